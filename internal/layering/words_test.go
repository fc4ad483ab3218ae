package layering_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// unfinished are the marks of unfinished work. They are put together here, so
// that this file may be looked at too.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

// mains are the files that may end the process: a main function that hands its
// exit status on.
var mains = []string{"cmd/imgward/main.go", "bench/main.go", "testdata/demo/store/main.go", "testdata/xen/refuses/main.go"}

func checkout(t *testing.T) []string {
	t.Helper()
	testkit.Need(t, "git")
	if exec.Command("git", "-c", "safe.directory=*", "-C", root, "rev-parse").Run() != nil {
		testkit.Missing(t, "a git checkout")
	}
	return tracked(t)
}

func TestNothingUnfinished(t *testing.T) {
	for _, name := range checkout(t) {
		if path.Base(name) == "go.sum" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			n++
			if w := unfinished.FindString(line); w != "" {
				t.Errorf("%s:%d: %s", name, n, w)
			}
		}
	}
}

// TestCalls forbids, outside of tests, what ends the process past its deferred
// calls, what truncates a file by opening it, and panics over anything but an
// impossible state.
func TestCalls(t *testing.T) {
	for _, name := range checkout(t) {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range badCalls(t, name, src) {
			t.Error(bad)
		}
	}
}

func badCalls(t *testing.T, name string, src []byte) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	add := func(n ast.Node, what string) {
		bad = append(bad, fset.Position(n.Pos()).String()+": "+what)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, _ := n.X.(*ast.Ident)
			switch {
			case x == nil:
			case x.Name == "os" && n.Sel.Name == "Exit" && !withinAny(name, mains),
				x.Name == "log" && strings.HasPrefix(n.Sel.Name, "Fatal"):
				add(n, x.Name+"."+n.Sel.Name+" skips deferred calls")
			case forTests(path.Dir(name)): // writes files of its own
			case n.Sel.Name == "O_TRUNC", x.Name == "os" && (n.Sel.Name == "Create" || n.Sel.Name == "WriteFile"):
				add(n, x.Name+"."+n.Sel.Name+" truncates what is there")
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "panic" {
				from, to := fset.Position(n.Pos()).Offset, fset.Position(n.End()).Offset
				if !strings.Contains(string(src[from:to]), "internal error") {
					add(n, `panic without "internal error"`)
				}
			}
		}
		return true
	})
	return bad
}

func TestBadCalls(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       int
	}{
		{"guard/a.go", `os.Exit(1)`, 1},
		{"cmd/imgward/main.go", `os.Exit(1)`, 0},
		{"cmd/imgward/run.go", `os.Exit(1)`, 1},
		{"bench/main.go", `log.Fatal(1)`, 1},
		{"imageops/a.go", `os.OpenFile("a", unix.O_TRUNC, 0)`, 1},
		{"imageops/a.go", `os.Create("a")`, 1},
		{"imageops/a.go", `os.WriteFile("a", nil, 0)`, 1},
		{"xenstore/xenstoretest/a.go", `os.Create("a")`, 0},
		{"xenstore/xenstoretest/a.go", `panic("oh")`, 1},
		{"imageops/a.go", `panic("oh")`, 1},
		{"imageops/a.go", `panic("internal error: chunk lost")`, 0},
		{"imageops/a.go", `panic(fmt.Sprintf("internal error: %d chunks lost", n))`, 0},
		{"imageops/a.go", `return`, 0},
	} {
		if bad := badCalls(t, tt.name, []byte("package p\nfunc f() {\n"+tt.body+"\n}\n")); len(bad) != tt.want {
			t.Errorf("%s with %s: %q", tt.name, tt.body, bad)
		}
	}
	for _, s := range []string{"TO" + "DO: later", "a XX" + "X b", "(FIX" + "ME)"} {
		if !unfinished.MatchString(s) {
			t.Errorf("%q passes", s)
		}
	}
	for _, s := range []string{"mktemp dir.XXXXXX", "TODOS", "hack"} {
		if unfinished.MatchString(s) {
			t.Errorf("%q does not pass", s)
		}
	}
}

// changers is where xenstore's changes lie, and readers where its own numbers of
// operations become operations: what the daemon sends is decoded there.
const changers, readers = "claim.go", "wire.go"

// TestOneFileChangesXenstore says that no other file of package xenstore names an
// operation that changes a store, or what makes a request of one, nor makes an
// operation out of a number.
func TestOneFileChangesXenstore(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "xenstore", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no package xenstore: %v", err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, bad := range storeChanges(t, filepath.Base(file), src) {
			t.Error(bad)
		}
	}
}

func storeChanges(t *testing.T, name string, src []byte) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	add := func(n ast.Node, what string) {
		bad = append(bad, fset.Position(n.Pos()).String()+": "+what)
	}
	reading := []string{"1", "2", "4", "5", "15", "16", "22"}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if slices.Contains([]string{"opWrite", "opRemove", "alter"}, n.Name) && name != changers {
				add(n, n.Name+" outside of "+changers)
			}
		case *ast.SelectorExpr:
			if slices.Contains([]string{"write", "remove"}, n.Sel.Name) && name != changers {
				add(n, n.Sel.Name+" outside of "+changers)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "op" && name != readers {
				add(n, "an operation made of a number")
			}
		case *ast.ValueSpec:
			if id, ok := n.Type.(*ast.Ident); ok && id.Name == "op" && name != changers {
				for _, v := range n.Values {
					if lit, ok := v.(*ast.BasicLit); !ok || !slices.Contains(reading, lit.Value) {
						add(v, "an operation that does not read")
					}
				}
			}
		}
		return true
	})
	return bad
}

func TestStoreChanges(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       int
	}{
		{"claim.go", `const opWrite op = 11`, 0},
		{"wire.go", `const opWrite op = 11`, 2},
		{"wire.go", `const opMake op = 12`, 1},
		{"wire.go", `const opRead op = 2`, 0},
		{"wire.go", `const opRead op = 1 + 1`, 1},
		{"wire.go", `func f(n int) op { return op(n) }`, 0},
		{"read.go", `func f(n int) op { return op(n) }`, 1},
		{"read.go", `func f(c *Conn) { c.write(ctx, "/a", "b") }`, 1},
		{"read.go", `func f(c *Conn) { c.roundTrip(ctx, opRemove, "/a") }`, 1},
		{"read.go", `func f(c *Conn) { c.roundTrip(ctx, opRead, "/a") }`, 0},
		{"claim.go", `func f(c *Conn) { c.alter(ctx, opRemove, "/a") }`, 0},
	} {
		if bad := storeChanges(t, tt.name, []byte("package p\n"+tt.body+"\n")); len(bad) != tt.want {
			t.Errorf("%s with %s: %q", tt.name, tt.body, bad)
		}
	}
}

// tracked returns the names of the files under version control, below root.
func tracked(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var names []string
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		// A file that was just removed may still be tracked.
		if st, err := os.Stat(filepath.Join(root, name)); err == nil && st.Mode().IsRegular() {
			names = append(names, name)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if len(names) == 0 {
		t.Fatal("git ls-files names nothing")
	}
	return names
}
