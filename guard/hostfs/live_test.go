package hostfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

func TestLiveFiles(t *testing.T) {
	r := hostfs.Live()
	dir := t.TempDir()
	for _, size := range []int{0, 1, 8<<10 - 1, 8 << 10, 8<<10 + 1, 300_001} {
		want := bytes.Repeat([]byte("x"), size)
		name := filepath.Join(dir, strconv.Itoa(size))
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadFile(name); !bytes.Equal(got, want) || err != nil {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	if b, err := r.ReadFile("/proc/self/mountinfo"); !bytes.Contains(b, []byte(" / ")) || err != nil {
		t.Errorf("mountinfo without a root: %q, %v", b, err)
	}
	names, err := r.ReadDir(dir)
	if want := []string{"0", "1", "300001", "8191", "8192", "8193"}; !slices.Equal(names, want) || err != nil {
		t.Errorf("names %q, %v, want %q", names, err, want)
	}
	long := strings.Repeat("y", 1000)
	for _, target := range []string{"a", long[:255], long[:256], long[:257], long} {
		name := filepath.Join(dir, "l"+strconv.Itoa(len(target)))
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Readlink(name); got != target || err != nil {
			t.Errorf("link of %d bytes: %q, %v", len(target), got, err)
		}
	}
}

// A directory's names are listed however many there are, with what each leads to.
func TestLiveStatDir(t *testing.T) {
	dir := t.TempDir()
	want := map[string]error{"dangling": syscall.ENOENT}
	if err := os.Symlink("none", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		name := strings.Repeat("n", 100) + strconv.Itoa(i)
		want[name] = nil
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	followed := hostfs.Live().Record(func(op, name string) {})
	for _, r := range []*hostfs.Root{hostfs.Live(), followed} {
		entries, err := r.StatDir(dir)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%d entries, %v, want %d", len(entries), err, len(want))
		}
		for _, e := range entries {
			st, err := r.Stat(filepath.Join(dir, e.Name))
			known, ok := want[e.Name]
			if !ok || e.Stat != st || !errors.Is(e.Err, known) || (e.Err == nil) != (known == nil) {
				t.Errorf("%q: %+v, %v, want %+v, %v", e.Name, e.Stat, e.Err, st, err)
			}
			if e.Err != nil && e.Err.Error() != err.Error() {
				t.Errorf("%q: %v, want %v", e.Name, e.Err, err)
			}
		}
	}
	if _, err := hostfs.Live().StatDir("/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// TestLiveFIFO reads a FIFO that nobody writes to, which must not wait.
func TestLiveFIFO(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	r := hostfs.Live()
	if b, err := r.ReadFile(name); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for _, q := range []hostfs.Question{hostfs.Lease, hostfs.Identity} {
		if _, err := r.Ask(t.Context(), q, name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", q, err)
		}
	}
	for _, q := range []hostfs.Question{hostfs.Excl, hostfs.ReadOnly, hostfs.Size, hostfs.LoopStatus} {
		if _, err := r.Ask(t.Context(), q, name); !errors.Is(err, syscall.ENOTBLK) {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestLiveErrors(t *testing.T) {
	r := hostfs.Live()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must := func(op string, err, want error) {
		t.Helper()
		var e *hostfs.Error
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Op != op {
			t.Errorf("%s: %v, want %v", op, err, want)
		}
		if _, ok := e.Err.(syscall.Errno); !ok {
			t.Errorf("%s: %T inside, not an errno", op, e.Err)
		}
	}
	_, err := r.ReadFile("/nowhere")
	must("read", err, fs.ErrNotExist)
	_, err = r.ReadFile("/proc")
	must("read", err, syscall.EISDIR)
	_, err = r.ReadFile("relative")
	must("read", err, syscall.EINVAL)
	_, err = r.ReadDir(file)
	must("readdir", err, syscall.ENOTDIR)
	_, err = r.Readlink(file)
	must("readlink", err, syscall.EINVAL)
	_, err = r.Stat(file + "/x")
	must("stat", err, syscall.ENOTDIR)
	_, err = r.Open("/nowhere")
	must("open", err, fs.ErrNotExist)
	_, err = r.Ask(t.Context(), "rm", file)
	must("ask rm", err, syscall.EINVAL)
	_, err = r.Ask(t.Context(), hostfs.DMStatus, "dm-0")
	must("ask dm-status", err, syscall.EINVAL)
}

func TestLiveStat(t *testing.T) {
	r := hostfs.Live()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("12345"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var s unix.Stat_t
	if err := unix.Stat(file, &s); err != nil {
		t.Fatal(err)
	}
	want := hostfs.Stat{Type: hostfs.Regular, Dev: s.Dev, Ino: s.Ino, Size: 5, Mode: s.Mode & 0o7777, MtimeNs: s.Mtim.Nano()}
	if got, err := r.Stat(filepath.Join(dir, "link")); got != want || err != nil {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	null, err := r.Stat("/dev/null")
	if err != nil || null.Type != hostfs.CharDevice || null.Rdev != hostfs.Mkdev(1, 3) {
		t.Errorf("/dev/null: %+v, %v", null, err)
	}

	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	magic := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if got, err := r.Stat(magic); got.Ino != want.Ino || got.Dev != want.Dev || err != nil {
		t.Errorf("through a magic link to a deleted file: %+v, %v", got, err)
	}
	p, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer w.Close()
	if got, err := r.Stat("/proc/self/fd/" + strconv.Itoa(int(p.Fd()))); got.Type != hostfs.FIFO || err != nil {
		t.Errorf("a pipe: %+v, %v", got, err)
	}
}

// TestLiveHandle keeps hold of a file that is renamed, replaced and deleted.
func TestLiveHandle(t *testing.T) {
	r := hostfs.Live()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	h, err := r.Open(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Real != file || h.Stat.Type != hostfs.Regular || h.Stat.Size != 3 {
		t.Errorf("%+v, want %s", h, file)
	}
	flags, err := unix.FcntlInt(uintptr(h.Fd()), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_PATH == 0 {
		t.Errorf("flags %#o, %v: not O_PATH", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(h.Fd()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#o, %v: a child would inherit it", flags, err)
	}
	if err := os.WriteFile(file+".new", []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if b, err := r.ReadFile(h.Name()); string(b) != "old" || err != nil {
		t.Errorf("through the handle: %q, %v", b, err)
	}
	if got, err := r.Stat(h.Name()); got.Ino != h.Stat.Ino || err != nil {
		t.Errorf("through the handle: %+v, %v", got, err)
	}
	gone, err := r.Open(h.Name())
	if err != nil || gone.Real != file+" (deleted)" {
		t.Fatalf("opened again: %+v, %v", gone, err)
	}
	if err := gone.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if h.Fd() != -1 || h.Close() == nil {
		t.Error("closed, but still there")
	}
}
