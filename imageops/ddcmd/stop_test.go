package ddcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newJob is a job with an open input.
func newJob(t *testing.T, args ...string) *Job {
	t.Helper()
	plan, _, err := Locale{}.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	j := &Job{Plan: plan, Stderr: io.Discard}
	if err := j.OpenInput(); err != nil {
		t.Fatal(err)
	}
	return j
}

// A job that is stopped in the middle of a large block counts what it has written.
func TestStoppedInABlock(t *testing.T) {
	t.Chdir(inMemory(t))
	for range 20 {
		j := newJob(t, "if=/dev/zero", "of=out", "bs=64M", "count=8")
		f, err := j.OpenOutput()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = j.Copy(ctx, f, false)
		cancel()
		st, serr := f.Stat()
		if err := errors.Join(serr, f.Close()); err != nil {
			t.Fatal(err)
		}
		j.mu.Lock()
		if err != nil && st.Size() != j.counts.written {
			t.Errorf("%d bytes are written, %d counted", st.Size(), j.counts.written)
		}
		j.mu.Unlock()
	}
}

// A signal, as the runtime sends to its own threads, makes no short block of a device
// without an end.
func TestSignalsMakeNoShortBlocks(t *testing.T) {
	t.Chdir(inMemory(t))
	ended := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				_ = unix.Kill(os.Getpid(), unix.SIGURG)
			}
		}
	})
	defer sending.Wait()
	defer close(ended)
	for _, device := range []string{"zero", "urandom"} {
		j := newJob(t, "if=/dev/"+device, "of=out", "bs=1M", "count=30", "conv=swab")
		f, err := j.OpenOutput()
		if err != nil {
			t.Fatal(err)
		}
		status, err := j.Copy(t.Context(), f, true)
		if st, serr := os.Stat("out"); status != 0 || err != nil || serr != nil || st.Size() != 30<<20 {
			t.Errorf("%s: status %d, %v, %v, %d full blocks", device, status, err, serr, j.counts.inFull)
		}
	}
}

// Empty lines are padded some at a time, however long their records are.
func TestPaddingInPortions(t *testing.T) {
	t.Chdir(inMemory(t))
	if err := os.WriteFile("lines", bytes.Repeat([]byte("\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	j := newJob(t, "if=lines", "of=out", "conv=block", "cbs=1M", "obs=1M")
	f, err := j.OpenOutput()
	if err != nil {
		t.Fatal(err)
	}
	status, err := j.Copy(t.Context(), f, true)
	if st, serr := os.Stat("out"); status != 0 || err != nil || serr != nil || st.Size() != 100<<20 {
		t.Errorf("status %d, %v, %v", status, err, serr)
	}
	if cap(j.converted) > 2*mostPadded {
		t.Errorf("%d bytes of padding in memory", cap(j.converted))
	}
}

// One who waits for a file that gives nothing, as /proc/kmsg does, can be stopped,
// and asked how far he is.
func TestStoppedWhileReadingAFile(t *testing.T) {
	t.Chdir(inMemory(t))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	j := newJob(t, "if=/dev/null", "of=out", "bs=512")
	j.in.file.Close()
	j.in.fd, j.in.file, j.in.mode = int(r.Fd()), nil, unix.S_IFREG // for all that it knows
	f, err := j.OpenOutput()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := j.Copy(ctx, f, false)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it cannot be stopped")
	}
}

// An error of writing that the kernel tells once is the job's, although the next
// write would do.
func TestErrorIsToldOnce(t *testing.T) {
	t.Chdir(inMemory(t))
	j := newJob(t, "if=/dev/zero", "of=out", "bs=4096", "conv=notrunc")
	f, err := j.OpenOutput()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shut, err := os.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer shut.Close()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.out = endpoint{fd: int(shut.Fd()), name: "out"}
	j.out.examine()
	j.MaxRecords = math.MaxInt64
	if part, err := j.bulk(); part != 0 || err != nil {
		t.Fatal(part, err)
	}
	j.out.fd = int(f.Fd())
	if n, err := j.writeAll(make([]byte, 4096), 0); n != 0 || !errors.Is(err, unix.EBADF) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
