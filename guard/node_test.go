package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// noded is a loop device that is watched through its node alone.
func noded(t *testing.T) (b *place, dev string, told chan Finding) {
	b = newPlace(t)
	dev, _ = loopDevice(t, b)
	b.guard.Watchers = []Watcher{nodeWatcher{}}
	b.guard.Collectors = []Collector{excl{}, self{}, marks{}}
	b.guard.Host.Patience = 100 * time.Millisecond
	told = make(chan Finding, 100)
	b.guard.Notice = func(f Finding) { told <- f }
	return b, dev, told
}

// stays runs a shell command that opens dev and keeps it open until it is killed.
func stays(t *testing.T, redirection, dev string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "exec 3"+redirection+dev+"; echo open; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// Whoever writes to a device that is written, or keeps it open for that, stops the
// write; a probe does not, and one who reads is told of.
func TestNodeIsWatched(t *testing.T) {
	shell := func(script string) func(t *testing.T, dev string) {
		return func(t *testing.T, dev string) {
			if out, err := exec.Command("sh", "-c", strings.ReplaceAll(script, "DEV", dev)).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", script, err, out)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		comes func(t *testing.T, dev string)
		want  string // what stops the write
		who   string // and whose name it gives; or who is told of, or is not
	}{
		{"writes", shell("dd if=/dev/zero of=DEV bs=512 count=1 conv=notrunc,fsync"), "wrote to it", ""},
		{"writes directly", shell("dd if=/dev/zero of=DEV bs=4096 count=1 oflag=direct conv=notrunc"), "wrote to it", ""},
		{"stays to write", func(t *testing.T, dev string) { stays(t, "<>", dev) }, "open for writing", "(sh)"},
		{"stays to read", func(t *testing.T, dev string) { stays(t, "<", dev) }, "", "(sh)"},
		{"probes", shell(": <DEV"), "", ""},
		{"probes as smartd does", shell(": <>DEV"), "", ""},
		{"reads and goes", shell("cat DEV >/dev/null"), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, dev, told := noded(t)
			err := b.guard.Write(t.Context(), dev, func(ctx context.Context, p *Permit) error {
				if err := b.fill(bytes.Repeat([]byte("new!"), 4096))(ctx, p); err != nil {
					return err
				}
				if f := next(ctx, t, told); f.Code != HoldInForce || !strings.Contains(f.Detail, "noticed at once") {
					t.Errorf("said %q", f.sentence())
				}
				tt.comes(t, dev)
				if tt.want == "" {
					if tt.who == "" {
						stays(t, "<", dev) // who came before was looked at when this one is told of
					}
					f := next(ctx, t, told)
					if f.Code != FDRead || !strings.Contains(f.Subject, "(sh)") {
						t.Errorf("told of %s: %s", f.Code, f.sentence())
					}
					return nil
				}
				<-ctx.Done()
				return context.Cause(ctx)
			})
			var broken *BrokenError
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.As(err, &broken) || broken.Finding.Code != FDWrite ||
				!strings.Contains(broken.Finding.sentence(), tt.want) || !strings.Contains(broken.Finding.Subject, tt.who)):
				t.Errorf("%v, want one that %s", err, tt.want)
			}
			for len(told) > 0 {
				t.Errorf("told of %q, too", (<-told).sentence())
			}
		})
	}
}

// One who wrote in the last moment is found before success is said.
func TestNodeIsAskedAtTheEnd(t *testing.T) {
	b, dev, _ := noded(t)
	b.guard.Watchers = nil
	err := b.guard.Write(t.Context(), dev, func(ctx context.Context, p *Permit) error {
		err := b.fill(bytes.Repeat([]byte("new!"), 4096))(ctx, p)
		if out, err := exec.Command("dd", "if=/dev/zero", "of="+dev, "bs=512", "count=1", "conv=notrunc").CombinedOutput(); err != nil {
			t.Errorf("dd: %v: %s", err, out)
		}
		return err
	})
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != FDWrite {
		t.Error(err)
	}
	b.wantMarks(1)
}

// When nobody tells any more who opens the device, the write stops.
func TestNodeWatchIsLost(t *testing.T) {
	for _, which := range []string{"opens", "writes"} {
		b, dev, _ := noded(t)
		var n *nodeEvents
		b.guard.Lockers = []Locker{nodeLocker{}, lockFunc(func(t *Target) (func(context.Context) error, error) {
			n = t.held.node
			return nil, nil
		})}
		err := b.guard.Write(t.Context(), dev, func(ctx context.Context, p *Permit) error {
			_, err := p.File()
			if which == "opens" {
				err = errors.Join(err, n.opens.SetReadDeadline(time.Now()))
			} else {
				null, nerr := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				err = errors.Join(err, nerr, unix.Dup3(null, n.writes, unix.O_CLOEXEC), unix.Close(null))
			}
			if err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		var broken *BrokenError
		if !errors.As(err, &broken) || broken.Finding.Code != HoldWatch || broken.Finding.Key != "node" {
			t.Error(err)
		}
	}
}

// Events are read one after the other, and one that is cut off is an error.
func TestParseFanotify(t *testing.T) {
	event := func(length uint32, mask uint64, fd, pid int32, more int) []byte {
		b := make([]byte, 24+more)
		binary.NativeEndian.PutUint32(b, length)
		binary.NativeEndian.PutUint64(b[8:], mask)
		binary.NativeEndian.PutUint32(b[16:], uint32(fd))
		binary.NativeEndian.PutUint32(b[20:], uint32(pid))
		return b
	}
	two := append(event(56, 0x22, -1, 7, 32), event(24, 0x20, 5, 8, 0)...)
	all := []fanEvent{{0x22, -1, 7}, {0x20, 5, 8}}
	for _, tt := range []struct {
		b    []byte
		want []fanEvent
		fine bool
	}{
		{nil, nil, true},
		{two, all, true},
		{two[:55], all[:1], false},
		{event(23, 1, 5, 9, 0), []fanEvent{{1, 5, 9}}, false}, // its descriptor has to be closed
		{event(25, 1, 5, 9, 0), []fanEvent{{1, 5, 9}}, false},
		{event(1<<31, 1, 5, 9, 0), []fanEvent{{1, 5, 9}}, false},
	} {
		got, err := parseFanotify(tt.b)
		if !slices.Equal(got, tt.want) || (err == nil) != tt.fine {
			t.Errorf("%x: %v, %v", tt.b, got, err)
		}
	}
}

// A group can be asked by two at the same time, and neither misses who wrote.
func TestNodeIsAskedAtOnce(t *testing.T) {
	b, dev, _ := noded(t)
	b.guard.Watchers = nil
	err := b.guard.Write(t.Context(), dev, func(ctx context.Context, p *Permit) error {
		if out, err := exec.Command("dd", "if=/dev/zero", "of="+dev, "bs=512", "count=1", "conv=notrunc").CombinedOutput(); err != nil {
			t.Errorf("dd: %v: %s", err, out)
		}
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				if _, wrote, err := p.held.node.ask(); wrote == nil || err != nil {
					t.Errorf("%v, %v", wrote, err)
				}
			})
		}
		asking.Wait()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
