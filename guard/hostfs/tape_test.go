package hostfs_test

import (
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

// Whatever is asked of a captured host is answered in the same way by what was
// written down of it, and saved and loaded.
func TestTeeAnswersTheSame(t *testing.T) {
	for _, text := range []string{capture, contents} {
		r := load(t, text)
		names := []string{
			"/dev/vg0/db1", "/dev/mapper/vg0-db1", "/dev/vg0/db2", "/proc/self/fd/1", "/proc/self/fd/0", "/proc/812/fd/3", "/proc/self/fd/9",
			"/proc/1/fd/3", "/proc/swaps/x", "/srv/up", "/srv/loop1", "/srv/loop1/x", "/srv/link/", "/srv/link/../images/web1.img", "//proc/./swaps",
			"/srv/images/web1.img/..", "/srv/none/../x", "relative", "", "/sys/block/dm-0/size", "253:0", "253:7", "/sys/block/dm-0/none",
		}
		for _, id := range r.Entries() {
			name := id[strings.LastIndexByte(id, ' ')+1:]
			names = append(names, name, name+"/x")
		}
		for op, f := range accesses {
			to := hostfs.New()
			tee := r.Tee(to)
			want := map[string]string{}
			for _, name := range names {
				want[name] = f(t, r, name)
				if got := f(t, tee, name); got != want[name] {
					t.Errorf("%s %q: %s, teed %s", op, name, want[name], got)
				}
			}
			again := load(t, save(t, to))
			for _, name := range names {
				if got := f(t, again, name); got != want[name] {
					t.Errorf("%s %q: %s, written down %s", op, name, want[name], got)
				}
			}
		}
	}
}

// The live host, asked by all kinds of names, answers the same from paper.
func TestTeeLive(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	contents := strings.Repeat("\x00", 100) + "abc" + strings.Repeat("\x00", 10) + "def" + strings.Repeat("\x00", 500) + "ghi\n"
	if err := errors.Join(os.WriteFile(file, []byte(contents), 0o640), os.Symlink("file", link), os.Symlink("none", dangling)); err != nil {
		t.Fatal(err)
	}
	to := hostfs.New()
	tee := hostfs.Live().Tee(to)
	h, err := tee.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	st, err := tee.Stat(h.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tee.Ask(t.Context(), hostfs.Identity, h.Name()); err != nil {
		t.Fatal(err)
	}
	lease, leaseErr := tee.Ask(t.Context(), hostfs.Lease, h.Name())
	c, err := tee.Content(h.Name())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadAt(make([]byte, 300), 50); n != 300 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := c.ReadAt(make([]byte, 300), int64(len(contents)-100)); n != 100 || err == nil {
		t.Fatal(n, err)
	}
	if err := errors.Join(c.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := tee.Stat(dangling); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := tee.ReadFile(dir); !errors.Is(err, syscall.EISDIR) {
		t.Fatal(err)
	}
	if _, err := tee.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	deleted := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	gone, err := tee.Open(deleted)
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}

	r := load(t, save(t, to))
	for _, name := range []string{link, file, dir + "/./link"} {
		again, err := r.Open(name)
		if err != nil || again.Real != file || again.Stat != st {
			t.Fatalf("%s: %+v, %v, want %+v", name, again, err, st)
		}
		if got, err := r.Ask(t.Context(), hostfs.Lease, again.Name()); got != lease || !errors.Is(err, reason(leaseErr)) {
			t.Errorf("lease %q, %v, want %q, %v", got, err, lease, leaseErr)
		}
		if got, err := r.Ask(t.Context(), hostfs.Identity, again.Name()); err != nil || !strings.Contains(got, "ino=") {
			t.Errorf("identity %q, %v", got, err)
		}
		if got, err := readAll(r, name); got != contents || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := r.Stat(dangling); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that leads nowhere: %v", err)
	}
	if to, err := r.Readlink(dangling); to != "none" || err != nil {
		t.Errorf("its text: %q, %v", to, err)
	}
	if _, err := r.ReadFile(dir); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a directory as a file: %v", err)
	}
	if names, err := r.ReadDir(dir); !slices.Equal(names, []string{"dangling", "file", "link"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	if got, err := r.Open(deleted); err != nil || got.Real != file+" (deleted)" || got.Stat.Ino != st.Ino {
		t.Errorf("a deleted file: %+v, %v", got, err)
	}
}

// What a handle's name led to is forgotten with the handle: its number is given
// to something else.
func TestTeeForgetsHandles(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	if err := errors.Join(os.WriteFile(first, nil, 0o600), os.WriteFile(second, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	to := hostfs.New()
	tee := hostfs.Live().Tee(to)
	h, err := tee.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(second, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := tee.Stat(h.Name()); err == nil {
		t.Fatal("a closed handle has a name")
	}
	if _, err := tee.Ask(t.Context(), hostfs.Identity, "/proc/self/fd/"+strconv.Itoa(fd)); err != nil {
		t.Fatal(err)
	}
	for _, id := range to.Entries() {
		if strings.HasPrefix(id, "ask ") && strings.HasSuffix(id, first) {
			t.Errorf("%s was never asked", id)
		}
	}
}

// The last answer holds, also where there was nothing before, and where there is
// nothing any more.
func TestTeeKeepsTheLastAnswer(t *testing.T) {
	r, to := hostfs.New(), hostfs.New()
	tee := r.Tee(to)
	r.SetFile("/f", "1")
	r.SetErr("/new", syscall.ENOENT)
	r.SetFile("/gone", "1")
	r.SetFile("/gone/below", "1")
	for range 2 {
		for _, name := range []string{"/f", "/new", "/gone", "/gone/below"} {
			tee.ReadFile(name)
		}
		r.SetFile("/f", "2")
		r.SetFile("/new", "2")
		r.SetErr("/gone", syscall.ENOENT)
		r.SetErr("/gone/below", syscall.ENOENT)
	}
	for name, want := range map[string]string{"/f": "2", "/new": "2"} {
		if b, err := to.ReadFile(name); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"/gone", "/gone/below"} {
		if b, err := to.ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// reason is the errno of an error, or nil.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return nil
}
