package guard

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// loopDevice attaches a loop device to a file of a MiB.
func loopDevice(t *testing.T, b *place) (dev, file string) {
	t.Helper()
	testkit.Need(t, "root", "losetup")
	file = b.dir + "/disk.img"
	b.put(file, bytes.Repeat([]byte("old "), 1<<18))
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	dev = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	b.guard.Collectors = []Collector{holders{}, mounts{}, swaps{}, procfd{}, lease{}, excl{}, self{}, marks{}}
	return dev, file
}

// lookAgain lets procfd's blindness to processes pass, which no device makes up
// for.
func (b *place) lookAgain(path string) {
	b.Helper()
	target, v, err := b.guard.Check(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	target.Close()
	for _, o := range v.Overrides() {
		if o.Code == "blind.procfd" {
			b.guard.Policy.Override = append(b.guard.Policy.Override, o)
		}
	}
}

// While a device is written nobody else has it exclusively or has its lock, and
// afterwards everybody may.
func TestWriteDevice(t *testing.T) {
	b := newPlace(t)
	dev, file := loopDevice(t, b)
	b.lookAgain(dev)
	exclusively := func() error {
		f, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
	locked := func() error {
		f, err := os.Open(dev)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	want := bytes.Repeat([]byte("new!"), 1<<18)
	err := b.guard.Write(t.Context(), dev, func(ctx context.Context, p *Permit) error {
		if !p.Lasting() {
			t.Error("the device is not known by the file under it")
		}
		if err := exclusively(); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("an exclusive open: %v", err)
		}
		if err := locked(); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("a lock: %v", err)
		}
		var refused *RefusedError
		if err := b.guard.Write(ctx, dev, unexpected); !errors.As(err, &refused) {
			t.Errorf("a second write: %v", err)
		}
		return b.fill(want)(ctx, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantContent(file, want)
	b.wantMarks(0)
	if err := errors.Join(exclusively(), locked()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// The image under a loop device is in use, and the refusal says by what.
func TestWriteUnderLoopDevice(t *testing.T) {
	b := newPlace(t)
	_, file := loopDevice(t, b)
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), file, unexpected); !errors.As(err, &refused) {
		t.Fatalf("%v", err)
	}
	for _, code := range []Code{LoopAttached, LeaseRefused} {
		if !slices.Contains(refused.Verdict.Codes(), code) {
			t.Errorf("%s is not among %v", code, refused.Verdict.Codes())
		}
	}
	if refused.Verdict.Overrides() != nil {
		t.Errorf("offers %v", refused.Verdict.Overrides())
	}
}

// Who claims a device between the look and the opening is seen by the opening,
// and who locks its node by the locker.
func TestDeviceClaimedBetweenLooks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags int
		lock  bool
		want  Code
	}{
		{"claimed", os.O_RDONLY | unix.O_EXCL, false, ExclHeld},
		{"locked", os.O_RDONLY, true, FlockHeld},
	} {
		b := newPlace(t)
		dev, file := loopDevice(t, b)
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var looks atomic.Int32
		var theirs *os.File
		b.guard.Collectors = []Collector{stub{"xen", func(context.Context, *Target, *Sheet) {
			if looks.Add(1) > 1 {
				return
			}
			if theirs, err = os.OpenFile(dev, tt.flags, 0); err != nil {
				t.Error(err)
			} else if tt.lock {
				if err := unix.Flock(int(theirs.Fd()), unix.LOCK_EX); err != nil {
					t.Error(err)
				}
			}
		}}}
		var refused *RefusedError
		if err := b.guard.Write(t.Context(), dev, unexpected); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		theirs.Close()
		b.wantContent(file, before)
		b.wantMarks(0)
	}
}
