package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/guard/argv"
	"imgward/internal/testkit"
)

// What command lines would write to, in a directory with files and trees.
func TestAims(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, d := range []string{"d", "d/tree/sub", "tree/sub", "fresh", "linked", "d/linked/sub"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "d/a", "tree/big", "tree/sub/big", "tree/new", "tree/small", "d/tree/big", "d/tree/sub/big", "d/tree/mine", "d/..a", "d/linked/sub/big"} {
		write(t, name, smallInTree, 1)
	}
	write(t, "d/tree/small", smallInTree-1, 1)
	for link, to := range map[string]string{"link": "a", "dangling": "gone", "nowhere": "no/such", "twice": "dangling", "loop": "loop", "d/link": "../b", "linked/sub": "../tree"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link("a", "second"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ line, want string }{
		{"cp a b", "b"},
		{"cp a new", "new (new)"},
		{"cp a no/such", ""},
		{"cp a new/", ""},
		{"cp a a/b", ""},
		{"cp a d", "d/a"},
		{"cp a b d/", "d//a d//b (new)"},
		{"cp -t d a link", "d/a d/link"},
		{"cp -t b a", ""},
		{"cp -t new a", ""},
		{"cp -T a d", ""},
		{"cp -n a b", ""},
		{"cp -n a new", "new (new)"},
		{"cp a link", "link"},
		{"cp a dangling", "./gone (new)"},
		{"cp a nowhere", ""},
		{"cp a twice", "refused"},
		{"cp a loop", ""},
		{"cp a /dev/null", ""},
		{"cp --parents tree/big d", "d/tree/big"},
		{"cp tree d", ""}, // without -r a directory is left out
		{"cp -r tree d", "d/tree/big d/tree/sub/big"},
		{"cp -r tree/. d/tree", "d/tree/./big d/tree/./sub/big"},
		{"cp -rT tree d/tree", "d/tree/big d/tree/sub/big"},
		{"cp -r tree/sub/.. d/tree", "d/tree/./big d/tree/./sub/big"},
		{"cp -r linked d", ""}, // a link replaces no directory
		{"cp -rL linked d", "d/linked/sub/big"},
		{"cp -r tree fresh", ""},
		{"cp -r tree new", ""},
		{"cp -r a tree d", "d/a d/tree/big d/tree/sub/big"},
		{"cp -r / d", ""},
		{"mv a b", "b"},
		{"mv tree d", ""}, // mv merges no directories
		{"truncate -s 1 a link second b", "a b"},
		{"dd if=/dev/zero of=a", "a"},
		{"dd of=/dev/full", ""},
		{"mkfs.ext4 d", ""},
		{"qemu-img commit a", "a (base)"},
		{"cp --future a b", "b a"},
		{"lvremove no-such-group/x", "refused"},
		{"lvremove no-such-group", "refused"},
	} {
		if got := aimed(t, tt.line); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

// aimed lists what a command line is aimed at.
func aimed(t *testing.T, line string) string {
	words := strings.Fields(line)
	places, err := argv.Places(words[0], words[1:], false)
	if err != nil {
		t.Fatal(err)
	}
	a := &aims{volumes: func() []string { return nil }}
	var got []string
	for _, p := range places {
		var unseen *unseenError
		if err := a.add(p); errors.As(err, &unseen) {
			return "refused"
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range a.list {
		s := a.path
		if a.is == nil {
			s += " (new)"
		}
		if a.commit {
			s += " (base)"
		}
		got = append(got, s)
	}
	return strings.Join(got, " ")
}

// A rename within a file system leaves everybody what he has. From one to another a
// file is deleted, under whoever uses it.
func TestMoveToAnotherFileSystem(t *testing.T) {
	testkit.Need(t, "root", "mount")
	dir := t.TempDir()
	t.Chdir(dir)
	for _, d := range []string{"other", "tree/sub", "bound"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "tree/sub/big"} {
		write(t, name, smallInTree, 1)
	}
	write(t, "tree/small", 1, 1)
	if err := os.Symlink("other", "link"); err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]string{{"-t", "tmpfs", "imgward-test", "other"}, {"--bind", "tree", "bound"}} {
		command(t, "mount", m...)
		point := filepath.Join(dir, m[len(m)-1])
		t.Cleanup(func() { command(t, "umount", point) })
	}
	for _, tt := range []struct{ line, want string }{
		{"mv a tree", "tree/a (new)"},
		{"mv a other", "other/a (new) a"},
		{"mv a other/b", "other/b (new) a"},
		{"mv -t other a tree", "other/a (new) other/tree (new) a tree/sub/big"},
		{"mv a bound", "bound/a (new) a"},
		{"mv a link", "link/a (new) a"},
		{"mv link tree", "tree/link (new)"},
		{"mv no-such other", "other/no-such (new)"},
		{"cp a other", "other/a (new)"},
	} {
		if got := aimed(t, tt.line); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

// More files than can be looked at are refused, not passed over.
func TestTooManyAims(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, d := range []string{"from", "to/from"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range mostInTrees + 1 {
			f, err := os.Create(filepath.Join(d, string(rune('a'+i%26))+strings.Repeat("x", i/26)))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Truncate(smallInTree), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := aimed(t, "cp -r from to"); got != "refused" {
		t.Errorf("got %.200s", got)
	}
	if err := os.Remove("from/a"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(aimed(t, "cp -r from to")); len(got) != mostInTrees || slices.Contains(got, "to/from/a") {
		t.Errorf("%d files, want %d", len(got), mostInTrees)
	}
}

// A group is all its volumes. One that a domain has and that is not active cannot be
// looked at.
func TestAimsAtGroup(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	group := filepath.Join(t.TempDir(), "vg")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"web1", "web2"} {
		dev := loop(t, write(t, filepath.Join(t.TempDir(), name), 1<<20, byte(i)))
		if err := os.Symlink(dev, filepath.Join(group, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		images  []string
		refuses bool
	}{
		{nil, false},
		{[]string{group + "/web1", "/elsewhere/web3", group + "/sub/web3"}, false},
		{[]string{group + "/web1", group + "/web3"}, true},
	} {
		a := &aims{volumes: func() []string { return tt.images }}
		err := a.group(group)
		var unseen *unseenError
		if errors.As(err, &unseen) != tt.refuses {
			t.Errorf("%v: %v", tt.images, err)
		}
		if len(a.list) != 2 || a.list[0].path != group+"/web1" || a.list[1].path != group+"/web2" {
			t.Errorf("%v: %+v", tt.images, a.list)
		}
	}
}
