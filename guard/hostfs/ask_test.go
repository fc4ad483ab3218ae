package hostfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// TestLiveLease sees every kind of other opener, and leaves no lease behind.
func TestLiveLease(t *testing.T) {
	r := hostfs.Live()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := r.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ask := func(name string) any { return outcome(r.Ask(t.Context(), hostfs.Lease, name)) }
	if got := ask(file); got == syscall.EINVAL {
		testkit.Missing(t, "leases on the file system of "+file)
	}
	for _, name := range []string{file, h.Name()} {
		for _, tt := range []struct {
			flags int
			want  any
		}{{os.O_RDONLY, "read"}, {os.O_WRONLY, syscall.EAGAIN}, {os.O_RDWR, syscall.EAGAIN}, {unix.O_PATH, "write"}} {
			if got := ask(name); got != "write" {
				t.Errorf("nobody has it open: %v", got)
			}
			f, err := os.OpenFile(file, tt.flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := ask(name); got != tt.want {
				t.Errorf("open with %#o: %v, want %v", tt.flags, got, tt.want)
			}
			f.Close()
		}
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	if ino := ":" + strconv.FormatUint(h.Stat.Ino, 10) + " "; strings.Contains(string(b), ino) {
		t.Errorf("a lease is left on inode%s:\n%s", ino, b)
	}
	if got := ask("/dev/null"); got != syscall.EINVAL {
		t.Errorf("a device: %v", got)
	}
}

// TestLiveSameOpen tells a descriptor that a process has from its parent from one
// of its own.
func TestLiveSameOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sh", "-c", "exec 4<\"$0\" && echo && exec sleep 60", file)
	cmd.ExtraFiles = []*os.File{f} // its descriptor 3
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf("%d/%d", os.Getpid(), f.Fd())
	for descriptor, want := range map[string]any{"3": "same", "4": "other", "99": syscall.EBADF} {
		name := fmt.Sprintf("%s %d/%s", ours, cmd.Process.Pid, descriptor)
		got := outcome(hostfs.Live().Ask(t.Context(), hostfs.SameOpen, name))
		if got == syscall.ENOSYS {
			testkit.Missing(t, "kcmp(2)")
		}
		if got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"x/3 1/3", "1/3 1/3 1", "-1/3 1/3"} {
		if got := outcome(hostfs.Live().Ask(t.Context(), hostfs.SameOpen, name)); got != syscall.EINVAL {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestLiveIdentity(t *testing.T) {
	r := hostfs.Live()
	dir := t.TempDir()
	file, link, other := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "other")
	for _, name := range []string{file, other} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(file, link); err != nil {
		t.Fatal(err)
	}
	ask := func(name string) string {
		t.Helper()
		s, err := r.Ask(t.Context(), hostfs.Identity, name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	id := ask(file)
	st, err := r.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(id)
	if len(words) != 3 || !strings.HasPrefix(words[0], "fsuuid=") || words[1] != "ino="+strconv.FormatUint(st.Ino, 10) || !strings.HasPrefix(words[2], "btime=") {
		t.Errorf("identity %q", id)
	}
	if got := ask(link); got != id {
		t.Errorf("another name of it: %q, not %q", got, id)
	}
	if ask(other) == id {
		t.Errorf("another file: %q too", id)
	}
	// A reader of the file itself would make this fail.
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	if got := ask(file); got != id {
		t.Errorf("unreadable: %q, not %q", got, id)
	}
	if _, err := r.Ask(t.Context(), hostfs.Identity, dir); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a directory: %v", err)
	}
}

func TestLiveLoop(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	r := hostfs.Live()
	file := filepath.Join(t.TempDir(), "an image.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", "-r", "-o", "4096", "--sizelimit", "65536", file).CombinedOutput()
	if err != nil {
		testkit.Missing(t, "a loop device: "+string(out))
	}
	loop := strings.TrimSpace(string(out))
	detach := func() error { return exec.Command("losetup", "-d", loop).Run() }
	attached := true
	t.Cleanup(func() {
		if attached {
			detach()
		}
	})
	st, err := r.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := r.Stat(loop)
	if err != nil || dev.Type != hostfs.BlockDevice || dev.Size != 0 {
		t.Fatalf("%s: %+v, %v", loop, dev, err)
	}
	ask := func(q hostfs.Question, name string) any { return outcome(r.Ask(t.Context(), q, name)) }
	want := "dev=" + hostfs.FormatDev(st.Dev) + " ino=" + strconv.FormatUint(st.Ino, 10) +
		" rdev=0:0 offset=4096 sizelimit=65536 ro=1 file=" + strconv.Quote(file)
	if got := ask(hostfs.LoopStatus, loop); len(file) < 64 && got != want {
		t.Errorf("%v, want %s", got, want)
	}
	for q, want := range map[hostfs.Question]string{hostfs.Size: "65536", hostfs.ReadOnly: "1", hostfs.Excl: "free"} {
		if got := ask(q, loop); got != want {
			t.Errorf("%s: %v, want %s", q, got, want)
		}
	}
	if got := ask(hostfs.Lease, file); got != "read" {
		t.Errorf("the image of a read-only loop device: lease %v", got)
	}
	if got := ask(hostfs.Lease, loop); got != syscall.EINVAL {
		t.Errorf("the device: lease %v", got)
	}
	if got := ask(hostfs.Excl, file); got != syscall.ENOTBLK {
		t.Errorf("the image: excl %v", got)
	}

	plain, err := os.Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(hostfs.Excl, loop); got != "free" {
		t.Errorf("beside a plain opener: %v", got)
	}
	plain.Close()
	excl, err := os.OpenFile(loop, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(hostfs.Excl, loop); got != syscall.EBUSY {
		t.Errorf("beside an exclusive opener: %v", got)
	}
	h, err := r.Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	excl.Close()
	if got := ask(hostfs.Excl, h.Name()); got != "free" {
		t.Errorf("by its handle: %v", got)
	}
	h.Close()

	if err := detach(); err != nil {
		t.Fatal(err)
	}
	attached = false
	// Whoever else looks at it at this moment keeps it attached until he has closed
	// it (loop(4), LOOP_CLR_FD), and somebody may have attached it to something
	// else since.
	got := ask(hostfs.LoopStatus, loop)
	for begun := time.Now(); got == want && time.Since(begun) < 10*time.Second; runtime.Gosched() {
		got = ask(hostfs.LoopStatus, loop)
	}
	if got == want || got != syscall.ENXIO && !strings.HasPrefix(fmt.Sprint(got), "dev=") {
		t.Errorf("detached: %v", got)
	}
}

// TestLiveDeviceMapper asks a device-mapper that is not there, or for a device
// that is not.
func TestLiveDeviceMapper(t *testing.T) {
	testkit.Need(t, "root")
	r := hostfs.Live()
	for _, q := range []hostfs.Question{hostfs.DMStatus, hostfs.DMTable} {
		got := outcome(r.Ask(t.Context(), q, "4095:1048575"))
		if !slices.Contains([]any{syscall.ENOENT, syscall.ENODEV, syscall.ENXIO}, got) {
			t.Errorf("%s: %v", q, got)
		}
	}
}

// TestLiveLeavesNothingOpen asks everything of all kinds of names, with and
// without success, and counts the descriptors.
func TestLiveLeavesNothingOpen(t *testing.T) {
	r := hostfs.Live()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	questions := []hostfs.Question{hostfs.LoopStatus, hostfs.DMStatus, hostfs.DMTable, hostfs.Lease,
		hostfs.Excl, hostfs.ReadOnly, hostfs.Size, hostfs.SameOpen, hostfs.Identity}
	open := func() (paths []string) {
		fds, err := r.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := r.Readlink("/proc/self/fd/" + fd); err == nil && strings.HasPrefix(to, "/") && !strings.HasSuffix(to, "/fd") {
				paths = append(paths, to)
			}
		}
		return paths
	}
	before := open()
	for _, name := range []string{file, dir, "/dev/null", "/dev/loop0", "/nowhere", file + "/x", "7:0"} {
		if name != "/dev/loop0" { // it may be long
			r.ReadFile(name)
		}
		r.ReadDir(name)
		r.Stat(name)
		if h, err := r.Open(name); err == nil {
			h.Close()
		}
		for _, q := range questions {
			r.Ask(t.Context(), q, name)
		}
	}
	if after := open(); !slices.Equal(before, after) {
		t.Errorf("open before %q, after %q", before, after)
	}
}

func TestLiveAskEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	_, err := hostfs.Live().Ask(ctx, hostfs.Size, "/dev/null")
	if !errors.Is(err, reason) {
		t.Errorf("%v, want %v", err, reason)
	}
}
