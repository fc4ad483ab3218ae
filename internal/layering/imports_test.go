// Package layering_test holds the project to its own map: who may import whom,
// and which words may stand where. It needs no linter.
package layering_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "imgward"
	root   = "../.."
)

// layers says which packages of ours a package may import, outside of tests.
// Names are below the module; "x/..." is x and all below it. The first line
// that matches a package counts, and every package needs one.
var layers = []struct {
	pkg     string
	imports []string
}{
	{"cmd/...", []string{"guard/...", "imageops/...", "xenstore/..."}},

	// The safety path.
	{"guard/argv", nil},
	{"guard/domcfg", nil},
	{"guard/hostfs", nil},
	{"guard/...", []string{"guard/...", "imageops/probe", "imageops/journal", "xenstore", "xenstore/dump"}},

	// The data path knows nothing of Xen, and its leaves know nothing of it.
	{"imageops/blockio", nil},
	{"imageops/engine", nil},
	{"imageops/gpt", nil},
	{"imageops/journal", nil},
	{"imageops/probe", nil},
	{"imageops/...", []string{"imageops/..."}},

	{"xenstore", []string{"xenstore/dump"}},
	{"xenstore/dump", nil},

	{"bench", nil},
	{"internal/...", nil},
	{"scripts/...", nil},
}

// outside says which packages of ours may import packages of others that
// belong in one place only. Packages that are not named are free.
var outside = []struct {
	path    string
	allowed []string
}{
	{"github.com/diskfs/go-diskfs", []string{"imageops/probe", "imageops/gpt"}},
	{"github.com/schollz/progressbar", []string{"cmd/..."}},
	{"github.com/urfave/cli", []string{"cmd/..."}},
	{"golang.org/x/term", []string{"cmd/..."}},
}

// fromXenstore is all that package guard may use of package xenstore: it
// declares its own small interfaces in these types, and reads the claims that it
// finds.
var fromXenstore = []string{"Claim", "ClaimDomid", "ErrLeft", "Listing", "ParseClaim", "Value"}

// within reports whether path is pattern, or with "/..." also below it.
func within(path, pattern string) bool {
	if p, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == p || strings.HasPrefix(path, p+"/")
	}
	return path == pattern
}

func withinAny(path string, patterns []string) bool {
	for _, p := range patterns {
		if within(path, p) {
			return true
		}
	}
	return false
}

// forTests reports whether a package of ours is there for tests. It may import
// what it needs; only tests and others of its kind may import it.
func forTests(pkg string) bool {
	name := path.Base(pkg)
	return name == "testkit" || strings.HasSuffix(name, "test")
}

// edge is nil if package pkg may import package target.
func edge(pkg, target string) error {
	from, _ := strings.CutPrefix(pkg, module+"/")
	for _, o := range outside {
		if within(target, o.path+"/...") && !withinAny(from, o.allowed) {
			return fmt.Errorf("%s imports %s, which only %s may", pkg, target, strings.Join(o.allowed, ", "))
		}
	}
	to, ours := strings.CutPrefix(target, module+"/")
	if !ours {
		return nil
	}
	if forTests(to) && !forTests(from) {
		return fmt.Errorf("%s imports %s, which is for tests", pkg, target)
	}
	if forTests(from) && !within(to, "cmd/...") {
		return nil
	}
	for _, l := range layers {
		if !within(from, l.pkg) {
			continue
		}
		if !withinAny(to, l.imports) {
			return fmt.Errorf("%s imports %s; of ours it may import [%s]", pkg, target, strings.Join(l.imports, ", "))
		}
		return nil
	}
	return fmt.Errorf("%s is not in the table of layers", pkg)
}

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var pkg struct {
			ImportPath, Dir  string
			Imports, GoFiles []string
		}
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, path := range pkg.Imports {
			if err := edge(pkg.ImportPath, path); err != nil {
				t.Error(err)
			}
		}
		if pkg.ImportPath == module+"/guard" {
			for _, name := range pkg.GoFiles {
				onlyTypes(t, filepath.Join(pkg.Dir, name))
			}
		}
	}
	if seen < 2 {
		t.Errorf("go list named %d packages", seen)
	}
}

// onlyTypes fails for each use of package xenstore in a file of package guard
// that is not one of fromXenstore.
func onlyTypes(t *testing.T, name string) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if i.Path.Value == `"`+module+`/xenstore"` && i.Name != nil {
			t.Errorf("%s imports xenstore under another name", name)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "xenstore" && x.Obj == nil && !withinAny(s.Sel.Name, fromXenstore) {
				t.Errorf("%s: guard may use %v of xenstore, not %s", fset.Position(s.Pos()), fromXenstore, s.Sel.Name)
			}
		}
		return true
	})
}

// The table itself forbids what it must forbid.
func TestEdges(t *testing.T) {
	for _, tt := range []struct {
		pkg, path string
		ok        bool
	}{
		{"cmd/imgward", "imgward/guard", true},
		{"cmd/imgward", "imgward/imageops", true},
		{"cmd/imgward", "imgward/internal/testkit", false},
		{"cmd/imgward", "imgward/xenstore", true},
		{"cmd/imgward", "github.com/urfave/cli/v2", true},
		{"guard", "github.com/urfave/cli/v2", false},
		{"guard", "imgward/cmd/imgward", false},
		{"guard", "imgward/guard/hostfs", true},
		{"guard", "imgward/imageops", false},
		{"guard", "imgward/imageops/blockio", false},
		{"guard", "imgward/imageops/engine", false},
		{"guard", "imgward/imageops/journal", true},
		{"guard", "imgward/imageops/probe", true},
		{"guard", "imgward/xenstore", true},
		{"guard", "imgward/xenstore/xenstoretest", false},
		{"guard/guardtest", "imgward/xenstore/xenstoretest", true},
		{"guard/guardtest", "imgward/cmd/imgward", false},
		{"guard/domcfg", "imgward/guard/hostfs", false},
		{"guard/hostfs", "imgward/guard", false},
		{"imageops", "github.com/diskfs/go-diskfs", false},
		{"imageops", "github.com/schollz/progressbar/v3", false},
		{"imageops", "golang.org/x/term", false},
		{"imageops", "golang.org/x/sys/unix", true},
		{"imageops", "imgward/guard", false},
		{"imageops", "imgward/imageops/engine", true},
		{"imageops", "imgward/internal/testkit", false},
		{"imageops/engine", "imgward/imageops/blockio", false},
		{"imageops/gpt", "imgward/imageops", false},
		{"imageops/probe", "github.com/diskfs/go-diskfs/partition/gpt", true},
		{"imageops/probe", "imgward/imageops", false},
		{"xenstore", "imgward/guard", false},
		{"xenstore/xenstoretest", "imgward/xenstore", true},
		{"elsewhere", "imgward/guard", false},
	} {
		if err := edge(module+"/"+tt.pkg, tt.path); (err == nil) != tt.ok {
			t.Errorf("%s importing %s: %v", tt.pkg, tt.path, err)
		}
	}
}
