package guard

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The claim is made under the lock of Xen's scripts, and without it where that is
// not to be had.
func TestHotplugLock(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "block")
	taken := func() bool {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	}
	release := holdScripts(t.Context(), dir)
	if !taken() {
		t.Error("the lock is not taken")
	}
	release()
	if _, err := os.Stat(name); err == nil {
		t.Error("the lock's file is left")
	}
	theirs, err := lockFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	holdScripts(ctx, dir)()
	if !taken() {
		t.Error("another's lock was taken away")
	}
	if _, err := lockFile(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	theirs()
	holdScripts(t.Context(), dir+"/none")()
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("the scripts' directory was made")
	}
	if _, err := lockFile(t.Context(), dir+"/none/block"); err == nil {
		t.Error("a lock where no file can be")
	}
}

// Only one has a lock at a time, though its file comes and goes.
func TestLockFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	inside := make(chan struct{}, 1)
	for range 4 {
		wg.Go(func() {
			for range 50 {
				unlock, err := lockFile(ctx, name)
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case inside <- struct{}{}:
					<-inside
				default:
					t.Error("two have the lock")
				}
				unlock()
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(name); err == nil {
		t.Error("its file is left")
	}
}

// Who came since the target was judged is seen before the first byte, and one who
// has broken the hold by then stops the write there.
func TestComesBeforeFirstByte(t *testing.T) {
	attach := func(h *claimHost, _ context.Context) {
		out, err := exec.Command("losetup", "--find", "--show", h.dev).CombinedOutput()
		if err != nil {
			h.Fatalf("losetup: %v: %s", err, out)
		}
		h.Cleanup(func() { _ = exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run() })
	}
	for _, tt := range []struct {
		name  string
		build func(h *claimHost)
		comes func(h *claimHost, ctx context.Context)
		want  Code
	}{
		{"claimed", func(*claimHost) {}, attach, LoopAttached},
		{"not to be claimed", func(h *claimHost) { h.guard.NoClaim = true }, attach, LoopAttached},
		{"cannot be claimed", func(h *claimHost) { h.Deny("/local/domain/32760/vm", "EACCES") }, attach, LoopAttached},
		{"no Xen", func(h *claimHost) { h.guard.Host.Store, h.guard.Host.Claims = nil, nil }, attach, LoopAttached},
		{"broken", func(h *claimHost) {
			h.guard.Watchers = []Watcher{alarming{Finding{Code: XenConnected, Relation: Same, Key: "web01.7"}}}
		}, func(_ *claimHost, ctx context.Context) { <-ctx.Done() }, XenConnected},
		{"broken, and not to be claimed", func(h *claimHost) {
			h.guard.NoClaim = true
			h.guard.Watchers = []Watcher{alarming{Finding{Code: XenConnected, Relation: Same, Key: "web01.7"}}}
		}, func(_ *claimHost, ctx context.Context) { <-ctx.Done() }, XenConnected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newClaimHost(t)
			h.guard.Watchers = nil
			tt.build(h)
			err := h.write(func(ctx context.Context, p *Permit) error {
				tt.comes(h, ctx)
				_, err := p.File()
				if err == nil {
					t.Error("the descriptor was given")
				}
				return err
			})
			var refused *RefusedError
			if !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if h.guard.Host.Store != nil {
				h.wantClaims(0)
			}
			h.wantMarks(0)
			for _, f := range h.noticed {
				if f.Code == HoldUnclaimed && tt.name != "cannot be claimed" {
					t.Errorf("said %q", f.sentence())
				}
			}
		})
	}
}

// alarming is a watcher that alarms at once.
type alarming struct{ Finding }

func (alarming) Name() string { return "alarming" }

func (w alarming) Watch(ctx context.Context, _ *Host, _ *Target, alarm func(Finding)) error {
	alarm(w.Finding)
	<-ctx.Done()
	return nil
}
