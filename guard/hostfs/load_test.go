package hostfs_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"imgward/guard/hostfs"
)

// TestLoadRefuses says for each malformed capture on which line the error is.
func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"frob /x", "line 2: frob /x: no such keyword"},
		{"stat", `line 2: "stat": no name`},
		{"stat /x", "line 2: stat /x: no type"},
		{"stat /x q", `"q": no file type`},
		{"stat /x f ino=1 ino=1", `"ino": twice`},
		{"stat /x f ino=-1", "invalid syntax"},
		{"stat /x f ino=18446744073709551616", "value out of range"},
		{"stat /x f dev=1", "not MAJOR:MINOR"},
		{"stat /x f rdev=1:2:3", "not MAJOR:MINOR"},
		{"stat /x f mode=10000", "value out of range"},
		{"stat /x f mode=8", "invalid syntax"},
		{"stat /x f colour=red", "no such field"},
		{"stat x f", "not an absolute path"},
		{"stat /x/ f", "not an absolute path"},
		{"stat /x/../y f", "not an absolute path"},
		{`stat "/x\x00" f`, "not an absolute path"},
		{"link /x", "0 words after the name"},
		{"link /x a b", "2 words after the name"},
		{`link /x ""`, "empty target"},
		{"dir /x a/b", "not the name of a directory entry"},
		{"dir /x ..", "not the name of a directory entry"},
		{"bytes /x y", "not quoted"},
		{`bytes /x "y`, "no end of the quotation"},
		{`bytes /x "y"z`, "no blank after the quotation"},
		{"data /x", "0 words after the name, not 2"},
		{`data /x "y"`, "1 words after the name, not 2"},
		{`data /x 0x10 "y"`, `"0x10": no offset in bytes`},
		{`data /x -1 "y"`, `"-1": no offset in bytes`},
		{`data /x 9223372036854775807 "y"`, "no offset in bytes"},
		{"data /x 0 y", `"y": not quoted`},
		{"data /x 5 \"567\"\ndata /x 7 \"789\"", "line 3: data /x: recorded twice"},
		{"data /x 5 \"567\"\ndata /x 3 \"345\"", "line 3: data /x: recorded twice"},
		{"data /x 5 \"567\"\ndata /x 0 \"0123456789\"", "line 3: data /x: recorded twice"},
		{"data /x 0 \"\"\ndata /x 0 \"0\"", "line 3: data /x: recorded twice"},
		{"err /x EGG", "no such errno"},
		{`err /x "EIO"`, "no such errno"},
		{"ask", `line 2: "ask": no name`},
		{"ask lease", `"ask": no name`},
		{"ask rm /x EIO", `ask "rm": no such question`},
		{"ask lease /x write", "no such errno"},
		{"ask lease x/../y EIO\nask lease x/../y EIO", "line 3: ask lease x/../y: recorded twice"},
		{"link /x a\nlink /x b", "line 3: link /x: recorded twice"},
		{"bytes /x \"\"\n-- /x --", "line 3: file /x: recorded twice"},
		{"-- /x --\n-- /x --", `line 3: member "/x" again`},
		{"-- want --\n-- want --", `line 3: member "want" again`},
		{"-- /x/ --", "line 2: \"/x/\": not an absolute path"},
		{"stat /x\x01 f", "must be quoted"},
		{"stat /x\xff f", "must be quoted"},
	} {
		_, err := hostfs.Load(strings.NewReader("-- manifest --\n" + tt.line + "\n"))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "load capture: ") {
			t.Errorf("%q: %v, want %s", tt.line, err, tt.want)
		}
	}
	if _, err := hostfs.Load(iotest.ErrReader(errors.ErrUnsupported)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a read that fails: %v", err)
	}
}

// TestLoadLayout reads what is well-formed but odd.
func TestLoadLayout(t *testing.T) {
	r := load(t, "-- --\n--  manifest  --\r\n\t\n  bytes\t/x \"1\" \n-- /y --\nlast line")
	if r.Comment() != "-- --\n" {
		t.Errorf("comment %q", r.Comment())
	}
	for name, want := range map[string]string{"/x": "1", "/y": "last line\n"} {
		if b, err := r.ReadFile(name); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	empty := load(t, "")
	if empty.Comment() != "" || len(empty.Entries()) != 0 {
		t.Error("an empty capture holds something")
	}
}

// FuzzLoad requires that no capture breaks the loader or the lookups, and that
// every entry can be named again.
func FuzzLoad(f *testing.F) {
	f.Add(capture)
	f.Add("-- manifest --\nlink / /\nlink /a ../../a/b\nstat /a/b l\ndir /")
	f.Add("-- manifest --\nask lease \"a b\" \"\"\nerr / EIO\n-- / --\n")
	f.Add("-- manifest --\nstat /a f size=9\ndata /a 3 \"345\"\ndata /a 6 \"6\"\nlink /b a\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := hostfs.Load(strings.NewReader(text))
		if err != nil {
			return
		}
		names := []string{"/", "/..", "/proc/self/fd/0"}
		for _, id := range r.Entries() {
			names = append(names, id[strings.LastIndexByte(id, ' ')+1:])
			failed := r.Fail(id, syscall.EXDEV)
			if !slices.Equal(failed.Entries(), r.Entries()) {
				t.Errorf("failing %s changed what is recorded", id)
			}
			if name, ok := strings.CutPrefix(id, "dir "); ok {
				if unquoted, err := strconv.Unquote(name); err == nil {
					name = unquoted
				}
				if _, err := failed.ReadDir(name); err == nil {
					t.Errorf("%s does not fail", id)
				}
			}
			if len(r.Entries()) > 20 {
				break
			}
		}
		for _, name := range names {
			r.ReadFile(name)
			r.ReadDir(name + "/..")
			r.Readlink(name)
			r.Stat(name + "/x")
			r.Open(name)
			r.Ask(t.Context(), hostfs.Lease, name)
			if c, err := r.Content(name); err == nil {
				b := make([]byte, 10)
				if n, err := c.ReadAt(b, max(0, c.Size()-5)); (n < len(b)) != (err != nil) {
					t.Errorf("content of %s: %d bytes, %v", name, n, err)
				}
			}
		}
	})
}
