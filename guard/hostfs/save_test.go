package hostfs_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/hostfs"
)

// save writes a root down.
func save(t *testing.T, r *hostfs.Root) string {
	t.Helper()
	var b strings.Builder
	if err := r.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What is saved and loaded answers as before, failures and contents included.
func TestSaveAndLoad(t *testing.T) {
	r := load(t, capture+"-- /etc/two --\nlines\nof it\n")
	r.SetFile("/bin/odd", "-- want --\n")
	r.SetFile("/bin/nul", "a\x00b\n")
	r.SetFile("/bin/open", "no end")
	r.SetFile("/bin/name\n--", "x\n")
	r.SetStat("/disk", hostfs.Stat{Type: hostfs.Regular, Size: 300, Mode: 0o7644, MtimeNs: -1})
	r.SetData("/disk", 10, "0123456789")
	r.SetData("/disk", 15, "xyz")
	r.SetData("/disk", 200, "\x00\n\xff")
	r.SetStat("/other", hostfs.Stat{})
	r.SetStat("/zero", hostfs.Stat{Type: hostfs.Regular, Size: 3})
	r.SetData("/zero", 0, "")
	r.SetStat("/bad", hostfs.Stat{Type: hostfs.Regular, Size: 3})
	r.SetData("/bad", 0, "abc")
	r.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EBUSY)
	r.SetErr("/gone", syscall.Errno(512))
	for id, errno := range map[string]syscall.Errno{
		"data /bad": syscall.EIO, "stat /srv/images": syscall.EACCES, "dir /proc/812/fd": syscall.ESRCH,
		"link /srv/loop2": syscall.ENOENT, "file /etc/two": syscall.EISDIR, "bytes /proc/812/comm": syscall.EPERM,
	} {
		r = r.Fail(id, errno)
	}
	r.SetMember("xenstore", "/a = \"1\"\n")
	text := save(t, r)
	again := load(t, text)
	if again.Comment() != r.Comment() || !cmp.Equal(again.Members(), r.Members()) {
		t.Errorf("comment %q, members %q", again.Comment(), again.Members())
	}
	if got, _ := again.Member("xenstore"); got != "/a = \"1\"\n" {
		t.Errorf("member %q", got)
	}
	for _, id := range r.Entries() {
		name := id[strings.LastIndexByte(id, ' ')+1:]
		for op, f := range accesses {
			if was, is := f(t, r, name), f(t, again, name); was != is && !strings.Contains(was, "512") {
				t.Errorf("%s of %s: %s, saved and loaded %s", op, name, was, is)
			}
		}
	}
	if got, err := readAll(again, "/disk"); err != nil || got[10:20] != "01234xyz89" || got[200:203] != "\x00\n\xff" {
		t.Errorf("%q, %v", got, err)
	}
	if twice := save(t, again); twice != text {
		t.Error(cmp.Diff(text, twice))
	}
}

// accesses are all that can be asked of a name, with the answer as text.
var accesses = map[string]func(t *testing.T, r *hostfs.Root, name string) string{
	"read":    func(_ *testing.T, r *hostfs.Root, name string) string { return said(r.ReadFile(name)) },
	"readdir": func(_ *testing.T, r *hostfs.Root, name string) string { return said(r.ReadDir(name)) },
	"readlink": func(_ *testing.T, r *hostfs.Root, name string) string {
		return said(r.Readlink(name))
	},
	"stat": func(_ *testing.T, r *hostfs.Root, name string) string { return said(r.Stat(name)) },
	"open": func(t *testing.T, r *hostfs.Root, name string) string {
		h, err := r.Open(name)
		if err != nil {
			return said(nil, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		return said([]any{h.Stat, h.Real}, nil)
	},
	"content": func(_ *testing.T, r *hostfs.Root, name string) string { return said(readAll(r, name)) },
	"ask": func(t *testing.T, r *hostfs.Root, name string) string {
		out := ""
		for _, q := range []hostfs.Question{hostfs.Lease, hostfs.Excl, hostfs.Size, hostfs.DMStatus, hostfs.LoopStatus} {
			out += said(r.Ask(t.Context(), q, name))
		}
		return out
	},
}

func said(v any, err error) string {
	var e *hostfs.Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return cmp.Diff(nil, v)
}

func TestSaveRefuses(t *testing.T) {
	for what, edit := range map[string]func(r *hostfs.Root){
		"a comment with a member in it":   func(r *hostfs.Root) { r.SetComment("x\n-- y --\n") },
		"a comment without an end":        func(r *hostfs.Root) { r.SetComment("x") },
		"a member with a member in it":    func(r *hostfs.Root) { r.SetMember("want", "-- /proc --\n") },
		"a member that is a file":         func(r *hostfs.Root) { r.SetMember("/x", "y\n") },
		"a member that is the manifest":   func(r *hostfs.Root) { r.SetMember("manifest", "\n") },
		"a member without a name":         func(r *hostfs.Root) { r.SetMember("", "\n") },
		"a member whose name is no line":  func(r *hostfs.Root) { r.SetMember("a\nb", "\n") },
		"a member whose name has a blank": func(r *hostfs.Root) { r.SetMember(" a", "\n") },
	} {
		r := hostfs.New()
		edit(r)
		if err := r.Save(&strings.Builder{}); err == nil {
			t.Errorf("%s was saved", what)
		}
	}
	r := hostfs.New()
	if err := r.Save(failing{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a full disk: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func TestRewrite(t *testing.T) {
	r := load(t, "secret\n-- manifest --\nlink /secret/a secret\ndir /d secret x\nstat /secret/b f size=1\ndata /secret/b 0 \"secret\"\nerr /e/secret EIO\nask excl /secret/c \"secret\"\n-- /f --\nsecret\n-- xenstore --\nsecret\n")
	got := r.Rewrite(func(id, text string) string {
		if id != "" {
			return "of " + id + "\n"
		}
		return strings.ReplaceAll(text, "secret", "open")
	})
	want := load(t, "open\n-- manifest --\nlink /open/a open\ndir /d open x\nstat /open/b f size=1\ndata /open/b 0 \"secret\"\nerr /e/open EIO\nask excl /open/c \"of ask excl /secret/c\\n\"\n-- /f --\nof file /f\n-- xenstore --\nof member xenstore\n")
	if diff := cmp.Diff(save(t, want), save(t, got)); diff != "" {
		t.Error(diff)
	}
	if name, _ := r.Member("xenstore"); name != "secret\n" {
		t.Error("the original was changed")
	}
}

// FuzzSave requires that whatever can be loaded can be saved, and is the same.
func FuzzSave(f *testing.F) {
	f.Add(capture)
	f.Add(contents)
	f.Add("x\n-- manifest --\nerr /a EIO stat\ndata /b EIO\ndata /b 3 \"\"\nbytes /c \"-- x --\\n\"\n-- /d --\n\tx\u00e4\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := hostfs.Load(strings.NewReader(text))
		if err != nil {
			return
		}
		var b strings.Builder
		if err := r.Save(&b); err != nil {
			return // a member that Load takes more freely
		}
		again, err := hostfs.Load(strings.NewReader(b.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		for _, id := range r.Entries() {
			// Content is one entry, however it is written.
			rest, ok := strings.CutPrefix(id, "file ")
			if !contains(again, id) && !(ok && contains(again, "bytes "+rest)) && !contains(again, "file "+strings.TrimPrefix(id, "bytes ")) {
				t.Errorf("%s was lost:\n%s", id, b.String())
			}
		}
		if twice := save(t, again); twice != b.String() {
			t.Error(cmp.Diff(b.String(), twice))
		}
	})
}

func contains(r *hostfs.Root, id string) bool {
	for _, e := range r.Entries() {
		if e == id {
			return true
		}
	}
	return false
}
