package layering_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// parserName is what a function is called that reads what others wrote.
var parserName = regexp.MustCompile(`^([pP]arse|[dD]ecode)[A-Z]?`)

// near is how many calls a parser may be away from a fuzz target. Those that are
// farther hardly see what the target makes up.
const near = 6

// ours are parsers of what nobody else writes: of the operator's own words, or of a
// test's. Each is a directory and a function.
var ours = map[string]bool{
	"bench.parseSize":             true, // BENCH_SIZE
	"cmd/imgward.parseBytes":      true, // --limit-rate, --chunk
	"imageops.ParseSum":           true, // --expect, of fixed length
	"imageops/engine.parseScript": true, // faults of a test
	"imageops/engine.parseClause": true,
	"imageops/format.Parse":       true, // --read
}

// What somebody else wrote may hold anything: every parser is reached by a fuzz target
// of its package, and every fuzz target has something to begin with.
func TestParsersAreFuzzed(t *testing.T) {
	packages := map[string][]string{}
	for _, name := range checkout(t) {
		if path.Ext(name) == ".go" {
			packages[path.Dir(name)] = append(packages[path.Dir(name)], name)
		}
	}
	parsers := 0
	for dir, files := range packages {
		words := map[string]map[string]bool{} // what is named in the body of each function
		declared := map[string]int{}          // how many have a name
		reached := map[string]bool{}
		var todo, found []string
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Body == nil {
					continue
				}
				called := f.Name.Name
				if f.Recv != nil {
					called = "." + called
				}
				declared[called]++
				if words[called] == nil {
					words[called] = map[string]bool{}
				}
				seeds := false
				ast.Inspect(f.Body, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.Ident:
						words[called][n.Name] = true
						seeds = seeds || n.Name == "Add"
					case *ast.CallExpr:
						if method, ok := n.Fun.(*ast.SelectorExpr); ok {
							words[called]["."+method.Sel.Name] = true
						}
					}
					return true
				})
				switch test := strings.HasSuffix(name, "_test.go"); {
				case test && strings.HasPrefix(called, "Fuzz"):
					todo = append(todo, called)
					if corpus, _ := os.ReadDir(filepath.Join(root, dir, "testdata/fuzz", called)); !seeds && len(corpus) == 0 {
						t.Errorf("%s: %s begins with nothing", name, called)
					}
				case !test && parserName.MatchString(f.Name.Name):
					found = append(found, called)
				}
			}
		}
		for range near {
			var next []string
			for _, called := range todo {
				for word := range words[called] {
					// Of methods that several have, it cannot be told which one is meant.
					if declared[word] == 1 && !reached[word] {
						reached[word] = true
						next = append(next, word)
					}
				}
			}
			todo = next
		}
		for _, called := range found {
			parsers++
			if !reached[called] && !ours[dir+"."+called] {
				t.Errorf("%s: no fuzz target reaches %s", dir, called)
			}
		}
	}
	if parsers < 40 {
		t.Errorf("only %d parsers were found", parsers)
	}
}
