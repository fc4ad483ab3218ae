package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// A talker is a dd, or ours, that is given input and signals bit by bit.
type talker struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	mu     sync.Mutex
}

func (k *talker) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stderr.Write(b)
}

func (k *talker) said() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return elapsed.ReplaceAllString(k.stderr.String(), "copied, T, R")
}

// talk starts argv.
func talk(t *testing.T, env []string, argv ...string) *talker {
	t.Helper()
	k := &talker{cmd: exec.Command(argv[0], argv[1:]...)}
	k.cmd.Stderr, k.cmd.Env = k, append(os.Environ(), env...)
	var err error
	if k.stdin, err = k.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if k.cmd.ProcessState == nil {
			_ = k.cmd.Process.Kill() // the test has failed
			_ = k.cmd.Wait()
		}
	})
	return k
}

// feed gives it one block, and waits until it was read.
func (k *talker) feed(t *testing.T, n int) {
	t.Helper()
	if _, err := k.stdin.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		t.Fatal(err)
	}
	pipe := int(k.stdin.(*os.File).Fd())
	for range 3000 { // before it reads, it may sleep, too
		left, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			k.asleep(t)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("what it was fed is not read")
}

// asleep waits until the process has nothing to do but to wait for input: its
// threads sleep, and its processor time stands still.
func (k *talker) asleep(t *testing.T) {
	t.Helper()
	last, still := "", 0
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		// proc_pid_stat(5): the state is the third field, times are 14 and 15.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if now := f[11] + " " + f[12]; f[0] == "S" && now == last {
			if still++; still == 10 {
				return
			}
		} else {
			last, still = now, 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it is never at rest")
}

// signal sends a signal and waits for more to be said.
func (k *talker) signal(t *testing.T, s syscall.Signal, statistics int) {
	t.Helper()
	if err := k.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if strings.Count(k.said(), "copied") >= statistics {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no statistics after %v: %q", s, k.said())
}

// Signals: statistics on SIGUSR1, as often as it comes; SIGINT prints them and ends
// dd by the signal, SIGTERM ends it without a word.
func TestSignalsOfDD(t *testing.T) {
	dd := testkit.GNUdd(t)
	bin := program(t)
	dir := lab(t)
	old := write(t, filepath.Join(dir, "old"), 1000, 1)
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		end  syscall.Signal
	}{
		{"new file", nil, []string{"of=new", "bs=10"}, syscall.SIGINT},
		{"standard output", nil, []string{"bs=10"}, syscall.SIGINT},
		{"existing file", nil, []string{"of=" + old, "bs=10"}, syscall.SIGINT},
		{"existing file, terminated", nil, []string{"of=" + old, "bs=10"}, syscall.SIGTERM},
		{"reblocked", nil, []string{"of=new", "ibs=7", "obs=20"}, syscall.SIGINT},
		{"silent", nil, []string{"of=new", "bs=10", "status=none"}, syscall.SIGINT},
		{"terminated", nil, []string{"of=new", "bs=10"}, syscall.SIGTERM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want string
			for _, argv := range [][]string{{dd}, {bin, "dd"}} {
				t.Chdir(t.TempDir())
				k := talk(t, tt.env, append(argv, tt.args...)...)
				k.feed(t, 25)
				loud := tt.name != "silent"
				n := 0
				for range 2 {
					if n++; loud {
						k.signal(t, syscall.SIGUSR1, n)
					}
				}
				k.feed(t, 10)
				if err := k.cmd.Process.Signal(tt.end); err != nil {
					t.Fatal(err)
				}
				err := k.cmd.Wait()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != tt.end {
					t.Errorf("%v ended with %v", argv, err)
				}
				got := k.said()
				if len(argv) == 1 {
					want = got
				} else if got != want {
					t.Errorf("%q\ndd: %q", got, want)
				}
			}
		})
	}
}

// What ends dd is not lost among many who ask for statistics, and SIGQUIT ends it as
// it ends dd.
func TestEndAmongQuestions(t *testing.T) {
	bin := program(t)
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "ulimit -c 0; exec "+bin+" dd if=/dev/zero of=/dev/null")
		cmd.Stderr = w
		if err := errors.Join(cmd.Start(), w.Close()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // it has begun
		for range 100 {                    // more than there is room for
			if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		if err := cmd.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		said := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(r)
			said <- b
		}()
		late := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
		b := <-said
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != end || bytes.Contains(b, []byte("goroutine")) {
			t.Errorf("%v: ended by %v: %.300q", end, s.Signal(), b)
		}
	}
}

// In the background the terminal gives an error and does not stop us.
func TestTerminalInTheBackground(t *testing.T) {
	stop := (&ui{}).unsuspended()
	if !signal.Ignored(syscall.SIGTTIN) || !signal.Ignored(syscall.SIGTTOU) {
		t.Error("reading from a terminal is tried for ever")
	}
	stop()
	if signal.Ignored(syscall.SIGTTIN) || signal.Ignored(syscall.SIGTTOU) {
		t.Error("they stay ignored")
	}
}
