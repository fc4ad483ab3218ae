package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// gated gives a place whose guard closes a gate, and what it was told.
func gated(t *testing.T) (*place, func() []Finding) {
	t.Helper()
	testkit.Need(t, "root")
	b := newPlace(t)
	var mu sync.Mutex
	var told []Finding
	b.guard.Notice = func(f Finding) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, f)
	}
	return b, func() []Finding {
		mu.Lock()
		defer mu.Unlock()
		return told
	}
}

// While a file is written nobody else opens it, under any of its names; the write
// goes on, says who came, and afterwards everybody is let in.
func TestGate(t *testing.T) {
	testkit.Need(t, "root", "losetup", "mount", "umount", "dd", "qemu-img", "mkfs.ext4")
	b, told := gated(t)
	hard := filepath.Join(b.dir, "hard.img")
	mnt := filepath.Join(b.dir, "mnt")
	if err := errors.Join(os.Link(b.path, hard), os.Mkdir(mnt, 0o755)); err != nil {
		t.Fatal(err)
	}
	bound := filepath.Join(mnt, filepath.Base(b.path))
	if err := unix.Mount(b.dir, mnt, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mnt, 0) })
	openers := [][]string{
		{"cat", b.path}, {"cat", hard}, {"cat", bound}, {"losetup", "--find", "--show", b.path},
		{"dd", "if=/dev/zero", "of=" + b.path, "count=1", "conv=notrunc"}, {"mount", "-o", "loop", b.path, mnt},
		{"qemu-img", "check", "-f", "raw", b.path}, {"sh", "-c", "> " + b.path}, {"swapon", b.path}, {"truncate", "-s", "0", b.path},
	}
	want := bytes.Repeat([]byte("new!"), 4096)
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		err := b.fill(want)(ctx, p)
		for _, argv := range openers {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err == nil {
				t.Errorf("%v was let in: %s", argv, out)
			}
		}
		if err := exec.Command("stat", b.path).Run(); err != nil {
			t.Errorf("who only asks for the times is refused: %v", err)
		}
		if ctx.Err() != nil {
			t.Errorf("the hold broke: %v", context.Cause(ctx))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantContent(b.path, want)
	b.wantContent(hard, want)
	names := map[string]bool{}
	if first := told()[0]; first.Code != HoldInForce || !strings.Contains(first.Detail, "nobody else can open") {
		t.Errorf("%s: %s", first.Code, first.sentence())
	}
	for _, f := range told()[1:] {
		names[f.Key] = true
		if f.Code != HoldDenied || !strings.Contains(f.Detail, "started by process "+strconv.Itoa(os.Getpid())) {
			t.Errorf("%s: %s", f.Code, f.sentence())
		}
	}
	for _, name := range []string{"cat", "losetup", "dd", "mount", "qemu-img", "sh", "swapon", "truncate"} {
		if !names[name] {
			t.Errorf("%s was not told of, only %v", name, names)
		}
	}
	if len(told()) > 1+len(names) {
		t.Errorf("%d notices of %d programs", len(told())-1, len(names))
	}
}

// Who is in already is found by the lease behind the gate, and one who only
// waits at the gate while it is asked for is not taken for him.
func TestGateProves(t *testing.T) {
	b, _ := gated(t)
	b.guard.Lockers = []Locker{gateLocker{}, lockFunc(func(*Target) (func(context.Context) error, error) {
		f, err := os.Open(b.path) // we ourselves pass
		return func(context.Context) error { return f.Close() }, err
	}), leaseLocker{}}
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) {
		t.Errorf("with another descriptor: %v", err)
	}

	b, _ = gated(t)
	stop := make(chan struct{})
	var visitors sync.WaitGroup
	for range 2 {
		visitors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("cat", b.path).Run()
				}
			}
		})
	}
	done := false
	for range 10 {
		err := b.guard.Write(t.Context(), b.path, b.fill(b.content))
		switch {
		case err == nil:
			done = true
		case !errors.As(err, &refused):
			t.Errorf("with visitors: %v", err)
		}
	}
	close(stop)
	visitors.Wait()
	if !done {
		t.Error("not one write of 10 was let through beside readers that come and go")
	}
}

type lockFunc func(*Target) (func(context.Context) error, error)

func (lockFunc) Name() string { return "func" }

func (l lockFunc) Lock(_ context.Context, _ *Host, t *Target) (func(context.Context) error, error) {
	return l(t)
}

// A gate at which nobody answers any more breaks the hold.
func TestGateBreaks(t *testing.T) {
	b, _ := gated(t)
	var g *gate
	b.guard.Lockers = append(Lockers(), lockFunc(func(t *Target) (func(context.Context) error, error) {
		g = t.held.gate
		return nil, nil
	}))
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		if err := g.group.Close(); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return ctx.Err()
	})
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != HoldWatch {
		t.Errorf("%v", err)
	}
}

// When imgward is killed, who waits goes in, and nothing is left.
func TestGateDies(t *testing.T) {
	testkit.Need(t, "root")
	if path := os.Getenv("GATE_KEEPER"); path != "" {
		target, err := Resolve(t.Context(), &Host{FS: hostfs.Live()}, path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := target.open(unix.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		target.held = &held{pid: os.Getpid(), file: f}
		if _, err := closeGate(&Host{FS: hostfs.Live()}, target, int32(os.Getpid())); err != nil {
			t.Fatal(err)
		}
		fmt.Println("closed")
		select {}
	}
	b := newPlace(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestGateDies$", "-test.v")
	cmd.Env = append(os.Environ(), "GATE_KEEPER="+b.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 0, 4096)
	for !bytes.Contains(text, []byte("closed")) {
		n, err := out.Read(text[len(text):cap(text)])
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		text = text[:len(text)+n]
	}
	if f, err := os.Open(b.path); err == nil {
		f.Close()
		t.Error("the gate is not closed")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// It answers until it has really stopped (waitpid(2), WUNTRACED).
	if _, err := unix.Wait4(cmd.Process.Pid, nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() {
		f, err := os.Open(b.path)
		if err == nil {
			f.Close()
		}
		opened <- err
	}()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := <-opened; err != nil {
		t.Errorf("after the keeper was killed: %v", err)
	}
}

// Another guard at a closed gate refuses, whatever it wants of the file.
func TestGateRefusesAnotherGuard(t *testing.T) {
	b, _ := gated(t)
	target := Lockers()
	target[slices.IndexFunc(target, func(l Locker) bool { return l.Name() == "gate" })] = lockFunc(func(target *Target) (func(context.Context) error, error) {
		g, err := closeGate(b.guard.Host, target, -1) // as if it were another process's
		if err != nil {
			return nil, err
		}
		target.held.gate = g
		return func(context.Context) error { return g.release() }, nil
	})
	g := *b.guard
	g.Lockers = target
	err := g.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		var refused *RefusedError
		_, v, err := b.guard.Check(ctx, b.path)
		if err != nil || !slices.Contains(v.Codes(), FileShut) || !v.Writing() {
			t.Errorf("a check: %v, %v", v.Codes(), err)
		}
		for name, try := range map[string]func() error{
			"a write": func() error { return b.guard.Write(ctx, b.path, unexpected) },
			"a write that came in between": func() error {
				g := *b.guard
				g.Collectors = []Collector{stub{"xen", func(context.Context, *Target, *Sheet) {}}}
				return g.Write(ctx, b.path, unexpected)
			},
			"a source": func() error {
				g := *b.guard
				g.Policy.Operation, g.Collectors = Read, []Collector{stub{"xen", func(context.Context, *Target, *Sheet) {}}}
				_, err := g.Open(ctx, b.path)
				return err
			},
		} {
			if err := try(); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), FileShut) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
