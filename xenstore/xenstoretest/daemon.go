package xenstoretest

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"imgward/xenstore/dump"
)

//go:embed preload/preload.c
var preloadSource string

const (
	// startLimit bounds how long a daemon may take until its socket answers, and
	// stopLimit how long until it has ended by itself.
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
	// startPoll is the pause between two looks for the socket.
	startPoll = 5 * time.Millisecond
)

// A Daemon is a real xenstored, run as a child process. It dies with the thread
// that started it, at the latest with this process.
type Daemon struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
}

// StartXenstored starts the C xenstored of an installed Xen (Debian:
// xen-utils-4.17) and returns when its socket takes connections. Everything it
// makes lies in dir, which must exist, have a short name (a socket's path has
// 107 bytes at most), and be used by no other daemon; the host's own store is not
// touched. It needs gcc, and no privilege. The error is fs.ErrNotExist if there
// is no xenstored.
func StartXenstored(dir string) (*Daemon, error) {
	binary, err := find("xenstored")
	if err != nil {
		return nil, err
	}
	preload, err := compile(dir)
	if err != nil {
		return nil, err
	}
	run := filepath.Join(dir, "run")
	cmd := exec.Command(binary, "--no-fork")
	cmd.Env = []string{"LD_PRELOAD=" + preload, "XENSTORED_RUNDIR=" + run}
	return start(dir, cmd, run)
}

// StartOxenstored starts the OCaml daemon as StartXenstored does the C one. Its
// paths are fixed, so that it gets a mount namespace of its own, in which /run
// and /var/log/xen are in dir; that needs root.
func StartOxenstored(dir string) (*Daemon, error) {
	binary, err := find("oxenstored")
	if err != nil {
		return nil, err
	}
	preload, err := compile(dir)
	if err != nil {
		return nil, err
	}
	const script = `set -e
		mkdir -p "$1/log"
		mount --bind "$1/run" /run
		if [ -d /var/log/xen ]; then mount --bind "$1/log" /var/log/xen; fi
		LD_PRELOAD="$2" exec "$3" --no-fork`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", dir, preload, binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return start(dir, cmd, filepath.Join(dir, "run", "xenstored"))
}

// find returns the path of a daemon of the newest Xen installed.
func find(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/xen-*/bin/" + name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("find %s in /usr/lib/xen-*/bin: %w", name, fs.ErrNotExist)
	}
	return found[len(found)-1], nil
}

// compile builds the library that stands in for the hypervisor.
func compile(dir string) (library string, err error) {
	library = filepath.Join(dir, "preload.so")
	cmd := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-o", library, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(preloadSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile preload library: %w: %s", err, out)
	}
	return library, nil
}

// start runs cmd, which is to make a socket in run, below dir.
func start(dir string, cmd *exec.Cmd, run string) (*Daemon, error) {
	if err := os.MkdirAll(run, 0o700); err != nil {
		return nil, fmt.Errorf("start xenstored: %w", err)
	}
	d := &Daemon{dir: dir, socket: filepath.Join(run, "socket"), cmd: cmd, exited: make(chan struct{})}
	// The socket of a daemon that was killed in this directory is no sign of life.
	if err := os.RemoveAll(d.socket); err != nil {
		return nil, fmt.Errorf("start xenstored: %w", err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start xenstored: %w", err)
	}
	go func() {
		defer close(d.exited)
		cmd.Wait()
	}()
	for end := time.Now().Add(startLimit); time.Now().Before(end); {
		if conn, err := net.Dial("unix", d.socket); err == nil {
			conn.Close()
			return d, nil
		}
		select {
		case <-d.exited:
			err := fmt.Errorf("start xenstored: ended at once (%v): %s", cmd.ProcessState, &said)
			return nil, errors.Join(err, d.Stop())
		case <-time.After(startPoll):
		}
	}
	return nil, errors.Join(fmt.Errorf("start xenstored: no socket for %v", startLimit), d.Stop())
}

// Socket returns the path of the daemon's socket.
func (d *Daemon) Socket() string { return d.socket }

// Load writes the nodes of a dump with the tool xenstore-write (Debian:
// xenstore-utils). Values that hold a NUL cannot be passed to it and are an
// error. Permissions are not restored.
func (d *Daemon) Load(r io.Reader) error {
	nodes, err := dump.Parse(r)
	if err != nil {
		return err
	}
	const batch = 100 // one transaction each
	for len(nodes) > 0 {
		n := min(batch, len(nodes))
		args := []string{"-R", "--"}
		for _, node := range nodes[:n] {
			args = append(args, node.Path, node.Value)
		}
		cmd := exec.Command("xenstore-write", args...)
		cmd.Env = append(os.Environ(), "XENSTORED_PATH="+d.socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("xenstore-write: %w: %s", err, out)
		}
		nodes = nodes[n:]
	}
	return nil
}

// Suspend stops the daemon with SIGSTOP.
func (d *Daemon) Suspend() error { return d.signal(syscall.SIGSTOP) }

// Resume ends Suspend.
func (d *Daemon) Resume() error { return d.signal(syscall.SIGCONT) }

// Kill ends the daemon with SIGKILL and leaves its socket lying about, as a crash
// does. Another daemon may be started in the same directory then.
func (d *Daemon) Kill() error {
	err := d.signal(syscall.SIGKILL)
	<-d.exited
	return err
}

// Stop ends the daemon, suspended or not, and removes what it made in its
// directory. It may be called after Kill.
func (d *Daemon) Stop() error {
	errs := []error{d.signal(syscall.SIGTERM), d.signal(syscall.SIGCONT)}
	select {
	case <-d.exited:
	case <-time.After(stopLimit):
		errs = append(errs, d.Kill())
	}
	for _, name := range []string{"run", "log", "preload.so"} {
		errs = append(errs, os.RemoveAll(filepath.Join(d.dir, name)))
	}
	return errors.Join(errs...)
}

// signal sends a signal; to a daemon that has ended that is nothing.
func (d *Daemon) signal(sig syscall.Signal) error {
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal xenstored: %w", err)
	}
	return nil
}
