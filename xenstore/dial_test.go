package xenstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

func TestCandidates(t *testing.T) {
	devices := []string{"/dev/xen/xenbus", "/proc/xen/xenbus"}
	usual := append([]string{"/run/xenstored/socket", "/var/run/xenstored/socket"}, devices...)
	for _, c := range []struct {
		path string
		env  map[string]string
		want []string
	}{
		{"", nil, usual},
		{"/p", map[string]string{"XENSTORED_PATH": "/e", "XENSTORED_RUNDIR": "/r"}, []string{"/p"}},
		{"", map[string]string{"XENSTORED_PATH": "/e", "XENSTORED_RUNDIR": "/r"}, []string{"/e"}},
		{"", map[string]string{"XENSTORED_RUNDIR": "/r"}, append([]string{"/r/socket"}, devices...)},
	} {
		got := candidates(c.path, func(name string) string { return c.env[name] })
		if !slices.Equal(got, c.want) {
			t.Errorf("%q %v: %q, want %q", c.path, c.env, got, c.want)
		}
	}
}

// serve returns the socket of a server in this process.
func serve(t testing.TB, s *xenstoretest.Server) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	if err := s.Listen(socket); err != nil {
		t.Fatal(err)
	}
	return socket
}

func TestDial(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	s.Set("/a", "1")
	socket := serve(t, s)
	other := t.TempDir()
	for name, c := range map[string]struct {
		cfg *Config
		env map[string]string
	}{
		"path":   {&Config{Path: socket}, map[string]string{"XENSTORED_PATH": other}},
		"env":    {nil, map[string]string{"XENSTORED_PATH": socket, "XENSTORED_RUNDIR": other}},
		"rundir": {&Config{}, map[string]string{"XENSTORED_PATH": "", "XENSTORED_RUNDIR": filepath.Dir(socket)}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			conn, err := Dial(t.Context(), c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := conn.Read(t.Context(), "/a"); string(v) != "1" || err != nil {
				t.Errorf("%q, %v", v, err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDialFails says above all which failures do not pass for "no xenstore".
func TestDialFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, c := range []struct {
		path string
		is   error
		text string
	}{
		{filepath.Join(dir, "absent"), fs.ErrNotExist, "no such file"},
		{filepath.Join(file, "below"), syscall.ENOTDIR, "not a directory"},
		{stale, syscall.ECONNREFUSED, "refused"},
		{file, nil, "neither a socket nor a character device"},
		{dir, nil, "neither a socket nor a character device"},
		{"/dev/null", nil, "not a xenbus device"},
	} {
		conn, err := Dial(t.Context(), &Config{Path: c.path})
		var oe *OpError
		if conn != nil || !errors.As(err, &oe) || oe.Op != "dial" || oe.Path != c.path {
			t.Errorf("%s: %v, %v", c.path, conn, err)
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %s", c.path, err, c.text)
		}
		if c.is != fs.ErrNotExist && errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: passes for no xenstore: %v", c.path, err)
		}
	}

	// A socket on which nobody listens is not "no xenstore" either where the
	// devices are missing.
	for _, device := range candidates("", func(string) string { return dir })[1:] {
		if _, err := os.Stat(device); err == nil {
			testkit.Missing(t, "a machine without "+device)
		}
	}
	t.Setenv("XENSTORED_PATH", "")
	t.Setenv("XENSTORED_RUNDIR", dir)
	if _, err := Dial(t.Context(), nil); !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dead daemon: %v", err)
	}
	t.Setenv("XENSTORED_RUNDIR", t.TempDir())
	if _, err := Dial(t.Context(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no daemon: %v", err)
	}
}

// TestDialWithoutPermission drops root's right to look into every directory, on
// one thread, which ends with its goroutine.
func TestDialWithoutPermission(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			syscall.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0)
		}
		_, err := Dial(t.Context(), &Config{Path: filepath.Join(dir, "socket")})
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a permission error", err)
	}
}

// TestDialWaitsForAFullQueue says that a daemon that accepts nobody, as a stopped
// one, holds Dial up until the context ends, and no longer.
func TestDialWaitsForAFullQueue(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := Dial(t.Context(), &Config{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Dial(t.Context(), &Config{Path: socket, Timeout: time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, &Config{Path: socket}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	// As soon as there is room, it goes on.
	go func() {
		if conn, _, err := unix.Accept(fd); err == nil {
			unix.Close(conn)
		}
	}()
	second, err := Dial(t.Context(), &Config{Path: socket, Timeout: -1})
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// TestDevice connects through a character device: a terminal that passes every
// byte stands in for the kernel's.
func TestDevice(t *testing.T) {
	daemon, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testkit.Missing(t, "pseudo terminals")
	}
	defer daemon.Close()
	raw := func(f *os.File) int {
		n := -1
		sc, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = sc.Control(func(fd uintptr) {
			tio, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
			tio.Cc[unix.VMIN], tio.Cc[unix.VTIME] = 1, 0
			unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
			unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			n, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c, err := Dial(t.Context(), &Config{Path: "/dev/pts/" + strconv.Itoa(raw(daemon))})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r := bufio.NewReader(daemon)
		h, _, err := readMessage(r)
		if err != nil {
			t.Error(err)
			return
		}
		msg, _ := appendMessage(nil, header{op: opRead, id: h.id}, "web01")
		for _, b := range msg {
			daemon.Write([]byte{b})
		}
	}()
	if v, err := c.Read(t.Context(), "/a"); string(v) != "web01\x00" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	// Close must end the read that is under way.
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestTrace(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	s.Set("/a", "\x1b"+strings.Repeat("x", 200))
	var lines bytes.Buffer
	c, err := Dial(t.Context(), &Config{Path: serve(t, s), Trace: &lines})
	if err != nil {
		t.Fatal(err)
	}
	c.Read(t.Context(), "/a")
	c.Read(t.Context(), "/b")
	c.Close()
	want := "> 1 read \"/a\\x00\"\n" +
		"< 1 read \"\\x1b" + strings.Repeat("x", 127) + "\"...\n" +
		"> 2 read \"/b\\x00\"\n" +
		"< 2 error \"ENOENT\\x00\"\n"
	if got := lines.String(); got != want {
		t.Errorf("traced\n%s\nwant\n%s", got, want)
	}
}
