package layering_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A use is a row of the table of uses in ARCHITECTURE.md.
type use struct {
	name   string
	seenBy []string
	proofs []string
}

var quoted = regexp.MustCompile("`([^`]+)`")

// uses reads the table.
func uses(t *testing.T) []use {
	t.Helper()
	_, text, ok := strings.Cut(read(t, filepath.Join(root, "ARCHITECTURE.md")), "\n## The uses of an image\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no table of uses")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var out []use
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(cells[0])); err != nil {
			continue
		} else if n != len(out)+1 {
			t.Errorf("row %d after row %d", n, len(out))
		}
		u := use{name: strings.TrimSpace(cells[1])}
		for _, c := range strings.Split(cells[2], ",") {
			u.seenBy = append(u.seenBy, strings.TrimSpace(c))
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			u.proofs = append(u.proofs, m[1])
		}
		out = append(out, u)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// matches gives the first group of every match of pattern in the files.
func matches(t *testing.T, pattern string, files ...string) []string {
	t.Helper()
	if len(files) == 0 {
		t.Fatalf("no files for %s", pattern)
	}
	var out []string
	for _, file := range files {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, file), -1) {
			out = append(out, m[1])
		}
	}
	return out
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

// Every one of the 24 uses of an image has collectors that see it and proofs that
// exist: tests, captured hosts, cases on the real Xen that are not known to fail.
func TestUsesAreProved(t *testing.T) {
	collectors := matches(t, `(?m)^\t\t(\w+)\{\},$`, filepath.Join(root, "guard/collectors.go"))
	var proofs []string
	for _, dir := range []string{"guard/*_test.go", "cmd/imgward/*_test.go"} {
		proofs = append(proofs, matches(t, `(?m)^func (Test\w+)\(`, glob(t, dir)...)...)
	}
	for _, file := range glob(t, "testdata/hosts/*.txtar") {
		proofs = append(proofs, filepath.Base(file))
	}
	failing := strings.Split(read(t, filepath.Join(root, "testdata/xen/expected-failures")), "\n")
	for _, file := range glob(t, "testdata/xen/cases/*.sh") {
		_, group, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".sh"), "-")
		for _, name := range matches(t, `(?m)^case_(\w+)\(\)`, file) {
			name = group + "/" + strings.ReplaceAll(name, "_", "-")
			if !slices.Contains(failing, name) {
				proofs = append(proofs, name)
			}
		}
	}
	all := uses(t)
	if len(all) != 24 {
		t.Errorf("%d uses, not 24", len(all))
	}
	seen := map[string]bool{}
	for i, u := range all {
		for _, c := range u.seenBy {
			seen[c] = true
			if !slices.Contains(collectors, c) {
				t.Errorf("use %d, %s: there is no collector %q", i+1, u.name, c)
			}
		}
		if len(u.proofs) == 0 {
			t.Errorf("use %d, %s: nothing proves it", i+1, u.name)
		}
		for _, p := range u.proofs {
			if !slices.Contains(proofs, p) {
				t.Errorf("use %d, %s: there is no %s, or it is known to fail", i+1, u.name, p)
			}
		}
	}
	// These do not see uses: one keeps imgward from its own things, one warns of a
	// slip.
	for _, c := range collectors {
		if !seen[c] && c != "self" && c != "near" {
			t.Errorf("collector %q sees none of the uses", c)
		}
	}
}
