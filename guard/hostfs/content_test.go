package hostfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

const contents = `-- manifest --
stat /srv/web1.img f dev=254:0 ino=14847 size=100
data /srv/web1.img 98 "89"
data /srv/web1.img 2 "2345"
link /srv/link web1.img
stat /srv/none.img f size=100
stat /srv/zero.img f size=3
data /srv/zero.img 0 ""
stat /dev/dm-0 b rdev=253:0
ask size /dev/dm-0 "8"
data /dev/dm-0 6 "67"
stat /dev/dm-1 b rdev=253:1
data /dev/dm-1 0 "0"
stat /dev/dm-2 b rdev=253:2
ask size /dev/dm-2 ENOMEDIUM
data /dev/dm-2 0 "0"
stat /srv d
stat /srv/fifo p
data /srv/fifo 0 "0"
stat /srv/closed f size=3
data /srv/closed 0 "012"
err  /srv/closed EACCES
`

func TestCapturedContent(t *testing.T) {
	r := load(t, contents)
	for _, tt := range []struct {
		name string
		off  int64
		n    int
		want string
		err  error
	}{
		{"/srv/web1.img", 0, 8, "\x00\x002345\x00\x00", nil},
		{"/srv/web1.img", 3, 2, "34", nil},
		{"/srv/web1.img", 2, 4, "2345", nil},
		{"/srv/link", 1, 3, "\x0023", nil},
		{"/srv/web1.img", 97, 3, "\x0089", nil},
		{"/srv/web1.img", 97, 4, "\x0089", io.EOF},
		{"/srv/web1.img", 99, 2, "9", io.EOF},
		{"/srv/web1.img", 100, 1, "", io.EOF},
		{"/srv/web1.img", 1 << 62, 1, "", io.EOF},
		{"/srv/web1.img", -1, 1, "", syscall.EINVAL},
		{"/srv/zero.img", 0, 4, "\x00\x00\x00", io.EOF},
		{"/dev/dm-0", 5, 3, "\x0067", nil},
		{"/dev/dm-0", 5, 4, "\x0067", io.EOF},
		{"/srv/none.img", 0, 1, "", hostfs.ErrNotCaptured},
		{"/elsewhere", 0, 1, "", hostfs.ErrNotCaptured},
		{"/dev/dm-1", 0, 1, "", hostfs.ErrNotCaptured},
		{"/dev/dm-2", 0, 1, "", syscall.ENOMEDIUM},
		{"/srv", 0, 1, "", syscall.EINVAL},
		{"/srv/fifo", 0, 1, "", syscall.EINVAL},
		{"/srv/closed", 0, 1, "", syscall.EACCES},
		{"srv/web1.img", 0, 1, "", syscall.EINVAL},
	} {
		b := bytes.Repeat([]byte{'?'}, tt.n)
		n := 0
		c, err := r.Content(tt.name)
		if err == nil {
			n, err = c.ReadAt(b, tt.off)
		}
		if string(b[:n]) != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s, %d from %d: %q, %v, want %q, %v", tt.name, tt.n, tt.off, b[:n], err, tt.want, tt.err)
		}
		var e *hostfs.Error
		if err != nil && err != io.EOF && (!errors.As(err, &e) || e.Op != "content" || e.Name != tt.name) {
			t.Errorf("%s: %#v", tt.name, err)
		}
	}
	c, err := r.Content("/srv/link")
	if err != nil {
		t.Fatal(err)
	}
	if c.Size() != 100 || c.Stat.Ino != 14847 || c.Close() != nil {
		t.Errorf("size %d, %+v", c.Size(), c.Stat)
	}
	if dm, err := r.Content("/dev/dm-0"); err != nil || dm.Size() != 8 || dm.Stat.Size != 0 {
		t.Errorf("a device: %+v, %v", dm, err)
	}
}

// readAll is all that a content gives, and how reading it ended.
func readAll(r *hostfs.Root, name string) (string, error) {
	c, err := r.Content(name)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, c.Size()+1)
	n, err := c.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return string(b[:n]), err
}

func TestContentIsEdited(t *testing.T) {
	r := hostfs.New()
	r.SetStat("/x", hostfs.Stat{Type: hostfs.Regular, Size: 10})
	if _, err := readAll(r, "/x"); !errors.Is(err, hostfs.ErrNotCaptured) {
		t.Errorf("without data: %v", err)
	}
	must := func(r *hostfs.Root, want string, wantErr error) {
		t.Helper()
		if got, err := readAll(r, "/x"); got != want || !errors.Is(err, wantErr) {
			t.Errorf("%q, %v, want %q, %v", got, err, want, wantErr)
		}
	}
	r.SetData("/x", 0, "")
	must(r, strings.Repeat("\x00", 10), nil)
	if _, ok := r.Truncate("data /x"); ok {
		t.Error("zeros were truncated")
	}
	r.SetData("/x", 6, "6789")
	r.SetData("/x", 1, "123")
	clone := r.Clone()
	r.SetData("/x", 2, "....")
	must(r, "\x001....6789", nil)
	must(clone, "\x00123\x00\x006789", nil)

	// Half of seven bytes are three, which end where the fourth would be.
	cut, ok := clone.Truncate("data /x")
	if !ok {
		t.Error("not truncated")
	}
	must(cut, "\x00123", nil)
	if c, err := cut.Content("/x"); err != nil || c.Size() != 10 {
		t.Errorf("a cut changed the length: %v, %v", c, err)
	}
	must(clone.Fail("data /x", syscall.EACCES), "", syscall.EACCES)
	must(clone.Delete("data /x"), "", fs.ErrNotExist)
	must(clone.Delete("stat /x"), "", fs.ErrNotExist)
	broken := clone.Fail("data /x", syscall.EIO)
	must(broken, "", syscall.EIO)
	if _, err := broken.Content("/x"); err != nil {
		t.Errorf("a disk that fails cannot be opened: %v", err)
	}
	must(clone, "\x00123\x00\x006789", nil)
	r.SetErr("/x", syscall.ESTALE)
	must(r, "", syscall.ESTALE)
	r.SetData("/x", 0, "0")
	must(r, "01....6789", nil)
}

func TestLiveContent(t *testing.T) {
	r := hostfs.Live()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := r.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	c, err := r.Content(h.Name())
	if err != nil {
		t.Fatal(err)
	}
	if c.Size() != 10 || c.Stat.Ino != h.Stat.Ino {
		t.Errorf("size %d, %+v", c.Size(), c.Stat)
	}
	b := make([]byte, 4)
	if n, err := c.ReadAt(b, 3); n != 4 || string(b) != "3456" || err != nil {
		t.Errorf("%d, %q, %v", n, b, err)
	}
	if n, err := c.ReadAt(b, 8); n != 2 || string(b[:2]) != "89" || err != io.EOF {
		t.Errorf("over the end: %d, %q, %v", n, b, err)
	}
	if _, err := c.ReadAt(b, -1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("before the beginning: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c.Close() == nil {
		t.Error("closed twice")
	}
	if _, err := c.ReadAt(b, 0); err == nil {
		t.Error("read after it was closed")
	}
}

// TestContentOpensNothingElse asks the kernel (inotify(7)) whether anything was
// opened: opening a FIFO lets its writer go on, opening a tape rewinds it.
func TestContentOpensNothingElse(t *testing.T) {
	r := hostfs.Live()
	dir := t.TempDir()
	fifo, socket, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(seen)
	opened := func() bool {
		n, err := unix.Read(seen, make([]byte, 4096))
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		return n > 0
	}
	for _, name := range []string{fifo, socket, dir, "/dev/null", file} {
		if _, err := unix.InotifyAddWatch(seen, name, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{fifo, socket, dir, "/dev/null"} {
		if _, err := r.Content(name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
		if opened() {
			t.Errorf("%s was opened", name)
		}
	}
	if _, err := readAll(r, file); err != nil || !opened() {
		t.Errorf("a file: %v, or inotify does not tell what is opened", err)
	}
	if _, err := r.Content(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

// TestContentLeavesNoTrace reads a file that was not read since it was written,
// and whose time of access must stay what it is.
func TestContentLeavesNoTrace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.UtimesNano(name, []unix.Timespec{{Sec: 1}, {Sec: 2}}); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(hostfs.Live(), name); got != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || st.Atim.Sec != 1 {
		t.Errorf("access time %v, %v", st.Atim, err)
	}
}

// TestContentOfAnother reads a file of somebody else's, which must not be opened
// with O_NOATIME.
func TestContentOfAnother(t *testing.T) {
	testkit.Need(t, "root")
	dir, err := os.MkdirTemp("/var/tmp", "content") // $TMPDIR may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(name, []byte("x"), 0o644), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	// The file system user belongs to the thread alone; giving it up takes
	// CAP_FOWNER away (capabilities(7)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	_, noatime := unix.Open(name, unix.O_RDONLY|unix.O_NOATIME, 0)
	got, err := readAll(hostfs.Live(), name)
	if err := unix.Setfsuid(0); err != nil {
		t.Fatal(err)
	}
	if noatime != unix.EPERM {
		t.Fatalf("the test is none: %v", noatime)
	}
	if got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestContentOfLeased requires that a lease makes the answer an error, and nobody
// wait.
func TestContentOfLeased(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		testkit.Missing(t, "a file system with leases: "+err.Error())
	}
	if _, err := hostfs.Live().Content(name); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a leased file: %v", err)
	}
}

func TestContentOfDevice(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	name := filepath.Join(t.TempDir(), "disk")
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", "-r", name).CombinedOutput()
	if err != nil {
		testkit.Missing(t, "a loop device: "+string(out))
	}
	loop := strings.TrimSpace(string(out))
	defer func() {
		if out, err := exec.Command("losetup", "-d", loop).CombinedOutput(); err != nil {
			t.Errorf("%s, %v", out, err)
		}
	}()
	got, err := readAll(hostfs.Live(), loop)
	if got != string(want) || err != nil {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
	}
	h, err := hostfs.Live().Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c, err := hostfs.Live().Content(h.Name())
	if err != nil {
		t.Fatal(err)
	}
	if c.Size() != int64(len(want)) || c.Stat.Rdev != h.Stat.Rdev {
		t.Errorf("%s: %d, %+v", strconv.Quote(loop), c.Size(), c.Stat)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
