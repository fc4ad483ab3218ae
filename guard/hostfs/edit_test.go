package hostfs_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

func TestInMemory(t *testing.T) {
	r := hostfs.New()
	if _, err := r.ReadFile("/proc/swaps"); !errors.Is(err, hostfs.ErrNotCaptured) {
		t.Errorf("an empty root: %v", err)
	}
	r.SetFile("/proc/swaps", "one")
	r.SetDir("/proc", "swaps", "1", "swaps")
	r.SetLink("/dev/vg0/db1", "../dm-0")
	r.SetStat("/dev/dm-0", hostfs.Stat{Type: hostfs.BlockDevice, Rdev: 7})
	r.SetAsk(hostfs.Excl, "/dev/dm-0", "free", 0)
	r.SetAsk(hostfs.ReadOnly, "/dev/dm-0", "", syscall.ENXIO)
	r.SetErr("/proc/1", syscall.EACCES)

	if b, err := r.ReadFile("/proc/swaps"); string(b) != "one" || err != nil {
		t.Errorf("swaps: %q, %v", b, err)
	}
	if names, err := r.ReadDir("/proc"); !slices.Equal(names, []string{"1", "swaps"}) || err != nil {
		t.Errorf("proc: %q, %v", names, err)
	}
	if st, err := r.Stat("/dev/vg0/db1"); st.Rdev != 7 || err != nil {
		t.Errorf("db1: %v, %v", st, err)
	}
	if s, err := r.Ask(t.Context(), hostfs.Excl, "/dev/vg0/db1"); s != "free" || err != nil {
		t.Errorf("excl: %q, %v", s, err)
	}
	if _, err := r.Ask(t.Context(), hostfs.ReadOnly, "/dev/vg0/db1"); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("ro: %v", err)
	}
	if _, err := r.Readlink("/proc/1/exe"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("below an error: %v", err)
	}
	r.SetErr("/proc/swaps", syscall.EIO)
	if _, err := r.ReadFile("/proc/swaps"); !errors.Is(err, syscall.EIO) {
		t.Errorf("swaps after SetErr: %v", err)
	}
	r.SetFile("/proc/swaps", "two")
	if b, err := r.ReadFile("/proc/swaps"); string(b) != "two" || err != nil {
		t.Errorf("swaps after SetFile: %q, %v", b, err)
	}
}

// TestAnswersAreCopies changes what was handed out, and must not change the root.
func TestAnswersAreCopies(t *testing.T) {
	r := hostfs.New()
	names := []string{"b", "a"}
	r.SetDir("/d", names...)
	r.SetFile("/f", "abc")
	if names[0] != "b" {
		t.Error("SetDir sorted its caller's names")
	}
	got, _ := r.ReadDir("/d")
	got[0] = "x"
	b, _ := r.ReadFile("/f")
	b[0] = 'x'
	if got, _ := r.ReadDir("/d"); got[0] != "a" {
		t.Errorf("dir is now %q", got)
	}
	if b, _ := r.ReadFile("/f"); string(b) != "abc" {
		t.Errorf("file is now %q", b)
	}
}

func TestEntriesCanBeNamed(t *testing.T) {
	r := load(t, "-- manifest --\nstat /x f\nlink /l t\ndir \"/a b\" c\nbytes /e \"\"\nbytes /f \"1234\"\nerr /g EIO\nask lease /x \"write\"\nask dm-status 253:0 ENXIO\n-- /proc/swaps --\nswaps\n")
	want := []string{
		"ask dm-status 253:0", "ask lease /x", "bytes /e", "bytes /f", `dir "/a b"`,
		"err /g", "file /proc/swaps", "link /l", "stat /x",
	}
	if got := r.Entries(); !slices.Equal(got, want) {
		t.Fatalf("entries %q, want %q", got, want)
	}
	content := map[string]string{"ask lease /x": "wr", "bytes /f": "12", "file /proc/swaps": "swa"}
	access := map[string]func(*hostfs.Root) (string, error){
		"ask dm-status 253:0": func(r *hostfs.Root) (string, error) { return r.Ask(t.Context(), hostfs.DMStatus, "253:0") },
		"ask lease /x":        func(r *hostfs.Root) (string, error) { return r.Ask(t.Context(), hostfs.Lease, "/x") },
		"bytes /e":            func(r *hostfs.Root) (string, error) { b, err := r.ReadFile("/e"); return string(b), err },
		"bytes /f":            func(r *hostfs.Root) (string, error) { b, err := r.ReadFile("/f"); return string(b), err },
		`dir "/a b"`:          func(r *hostfs.Root) (string, error) { n, err := r.ReadDir("/a b"); return fmt.Sprint(n), err },
		"err /g":              func(r *hostfs.Root) (string, error) { return r.Readlink("/g") },
		"file /proc/swaps":    func(r *hostfs.Root) (string, error) { b, err := r.ReadFile("/proc/swaps"); return string(b), err },
		"link /l":             func(r *hostfs.Root) (string, error) { return r.Readlink("/l") },
		"stat /x":             func(r *hostfs.Root) (string, error) { st, err := r.Stat("/x"); return fmt.Sprint(st), err },
	}
	for _, id := range want {
		before, beforeErr := access[id](r)
		if _, err := access[id](r.Fail(id, syscall.EXDEV)); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%s made to fail: %v", id, err)
		}
		if _, err := access[id](r.Delete(id)); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s deleted: %v", id, err)
		}
		half, ok := r.Truncate(id)
		if got, err := access[id](half); ok != (content[id] != "") || ok && (got != content[id] || err != nil) {
			t.Errorf("%s truncated: %q, %v, %v", id, got, err, ok)
		}
		for _, other := range want {
			got, err := access[other](r.Delete(id))
			was, wasErr := access[other](r)
			if other != id && (got != was || fmt.Sprint(err) != fmt.Sprint(wasErr)) {
				t.Errorf("deleting %s changed %s", id, other)
			}
		}
		if after, afterErr := access[id](r); after != before || fmt.Sprint(afterErr) != fmt.Sprint(beforeErr) {
			t.Errorf("%s changed under its clones", id)
		}
	}
	for _, id := range []string{"file /nowhere", "file", "", "ask lease", "ask rm /x", "stat /x f", `dir "/a b`} {
		if _, ok := r.Truncate(id); ok {
			t.Errorf("%q was truncated", id)
		}
		if !slices.Equal(r.Delete(id).Entries(), want) {
			t.Errorf("%q was deleted", id)
		}
	}
}

// TestDeletedLink must not be followed, neither at the end nor on the way.
func TestDeletedLink(t *testing.T) {
	r := load(t, capture).Delete("link /sys/block/dm-0").Delete("link /dev/vg0/db1")
	if _, err := r.ReadFile("/sys/block/dm-0/size"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("through a deleted link: %v", err)
	}
	if _, err := r.Open("/dev/vg0/db1"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a deleted link: %v", err)
	}
	if _, err := load(t, capture).Fail("link /proc/812/fd/3", syscall.EACCES).Open("/proc/812/fd/3"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a magic link that cannot be read: %v", err)
	}
}

func TestClone(t *testing.T) {
	r := hostfs.New()
	r.SetFile("/a", "1")
	c := r.Clone()
	r.SetFile("/a", "2")
	c.SetFile("/b", "3")
	if b, _ := c.ReadFile("/a"); string(b) != "1" {
		t.Errorf("the clone saw %q", b)
	}
	if _, err := r.ReadFile("/b"); !errors.Is(err, hostfs.ErrNotCaptured) {
		t.Errorf("the original has what the clone got: %v", err)
	}
	if _, err := hostfs.Live().Clone().Stat("/"); err != nil {
		t.Errorf("a clone of the live host: %v", err)
	}
}

func TestRecord(t *testing.T) {
	r := hostfs.New()
	var inner, outer []string
	first := r.Record(func(op, name string) { inner = append(inner, op+" "+name) })
	second := first.Record(func(op, name string) { outer = append(outer, op+" "+name) })
	second.ReadFile("/1")
	second.ReadDir("/2")
	second.Readlink("/3")
	second.Stat("/4")
	second.Open("/5")
	second.Ask(t.Context(), hostfs.Lease, "/6")
	second.Clone().Stat("relative")
	first.Stat("/8")
	r.Stat("/9")
	want := []string{"read /1", "readdir /2", "readlink /3", "stat /4", "open /5", "ask lease /6", "stat relative"}
	if !slices.Equal(outer, want) {
		t.Errorf("the outer view saw %q, want %q", outer, want)
	}
	if want := append(want, "stat /8"); !slices.Equal(inner, want) {
		t.Errorf("the inner view saw %q, want %q", inner, want)
	}
	second.SetFile("/f", "x")
	if b, err := r.ReadFile("/f"); string(b) != "x" || err != nil {
		t.Errorf("set through a view: %q, %v", b, err)
	}
}

// TestConcurrentUse is for the race detector, and requires that every read sees
// one of the contents that were set.
func TestConcurrentUse(t *testing.T) {
	r := load(t, capture)
	r.SetFile("/f", "0")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				r.SetFile("/f", fmt.Sprint(i))
				if b, err := r.ReadFile("/f"); len(b) != 1 || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				r.Stat("/srv/up")
				r.Clone().SetErr("/srv", syscall.EIO)
				r.Entries()
			}
		})
	}
	wg.Wait()
}
