package guard

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// withoutGate is what there is where fanotify may not be used.
var withoutGate = []Locker{flockLocker{}, leaseLocker{}}

// Without a gate, an opener that comes while we write ends the work, and what was made of it
// names him as the reason.
func TestLeaseBreaks(t *testing.T) {
	intrude := func(b *place) {
		f, err := os.OpenFile(b.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, syscall.EAGAIN) {
			b.Errorf("the opener was not kept waiting: %v", err)
		}
	}
	fault := errors.New("write: stopped")
	for _, result := range []error{nil, context.Canceled, fault} {
		b := newPlace(t)
		b.guard.Lockers = withoutGate
		err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
			if _, err := p.File(); err != nil {
				return err
			}
			intrude(b)
			<-ctx.Done()
			var broken *BrokenError
			if !errors.As(context.Cause(ctx), &broken) || broken.Finding.Code != HoldLease {
				t.Errorf("the context ended because of %v", context.Cause(ctx))
			}
			return result
		})
		var incomplete *IncompleteError
		var broken *BrokenError
		if !errors.As(err, &incomplete) || !errors.As(err, &broken) || broken.Finding.Code != HoldLease {
			t.Errorf("work returned %v: %v", result, err)
		}
		if result == fault && !errors.Is(err, fault) {
			t.Errorf("what work returned is lost: %v", err)
		}
		b.wantMarks(1)
	}

	// Before anything is written it is a refusal.
	b := newPlace(t)
	b.guard.Lockers = withoutGate
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		intrude(b)
		<-ctx.Done()
		return ctx.Err()
	})
	var refused *RefusedError
	if !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), HoldLease) {
		t.Errorf("%v", err)
	}
	b.wantContent(b.path, b.content)
	b.wantMarks(0)
}

// A watcher that ends while the work goes on breaks the hold.
func TestWatcherEnds(t *testing.T) {
	b := newPlace(t)
	begun := make(chan struct{})
	b.guard.Watchers = append(b.guard.Watchers, deafWatcher{begun})
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	})
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != HoldWatch || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("%v", err)
	}
	b.wantMarks(1)
}

type deafWatcher struct{ until chan struct{} }

func (deafWatcher) Name() string { return "deaf" }

func (w deafWatcher) Watch(context.Context, *Host, *Target, func(Finding)) error {
	<-w.until
	return errors.New("connection lost")
}

// An interruption is no refusal, and before the first byte leaves no trace.
func TestInterrupted(t *testing.T) {
	cause := errors.New("interrupted")
	for look := range int32(2) {
		b := newPlace(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		var looks atomic.Int32
		b.guard.Collectors = []Collector{stub{"xen", func(context.Context, *Target, *Sheet) {
			if looks.Add(1) == look+1 {
				cancel(cause)
			}
		}}}
		var refused *RefusedError
		if err := b.guard.Write(ctx, b.path, unexpected); !errors.Is(err, cause) || errors.As(err, &refused) {
			t.Errorf("in look %d: %v", look+1, err)
		}
		b.wantContent(b.path, b.content)
		b.wantMarks(0)
	}
	b := newPlace(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	err := b.guard.Write(ctx, b.path, func(ctx context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		cancel(cause)
		<-ctx.Done()
		return nil // however work takes it
	})
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || !errors.Is(err, cause) {
		t.Errorf("while writing: %v", err)
	}
	b.wantMarks(1)
	cancel(nil)
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(cause)
	if _, _, err := b.guard.Check(ctx, b.path); !errors.Is(err, cause) {
		t.Errorf("a check: %v", err)
	}
}

// Work that panics takes neither the locks nor the record with it.
func TestWorkPanics(t *testing.T) {
	b := newPlace(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		err := b.guard.Write(t.Context(), b.path, func(_ context.Context, p *Permit) error {
			if _, err := p.File(); err != nil {
				return err
			}
			panic("internal error: test")
		})
		t.Error(err)
	}()
	b.wantMarks(1)
	b.ended()
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What was written went to the file that was checked; that its name leads
// elsewhere now is said.
func TestNameIsSwapped(t *testing.T) {
	want := bytes.Repeat([]byte("new!"), 4096)
	for _, tt := range []struct {
		name string
		swap func(b *place) error
	}{
		{"another file", func(b *place) error {
			b.put(b.dir+"/other", []byte("other"))
			return errors.Join(os.Rename(b.path, b.dir+"/kept"), os.Rename(b.dir+"/other", b.path))
		}},
		{"removed", func(b *place) error { return errors.Join(os.Link(b.path, b.dir+"/kept"), os.Remove(b.path)) }},
		{"a link to something else", func(b *place) error {
			return errors.Join(os.Rename(b.path, b.dir+"/kept"), os.Symlink("/dev/null", b.path))
		}},
	} {
		b := newPlace(t)
		err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
			return errors.Join(b.fill(want)(ctx, p), tt.swap(b))
		})
		var broken *BrokenError
		if !errors.As(err, &broken) || broken.Finding.Code != HoldRenamed {
			t.Errorf("%s: %v", tt.name, err)
		}
		b.wantContent(b.dir+"/kept", want)
		b.wantMarks(0)
	}
	// The same file under the same name in the end is no matter.
	b := newPlace(t)
	if err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		return errors.Join(b.fill(want)(ctx, p), os.Rename(b.path, b.dir+"/a"), os.Rename(b.dir+"/a", b.path))
	}); err != nil {
		t.Errorf("back under its name: %v", err)
	}
}

// A name that is swapped between the looks and the opening leads nowhere: what
// is opened is what was looked at.
func TestNameIsSwappedBetweenLooks(t *testing.T) {
	b := newPlace(t)
	b.put(b.dir+"/other", []byte("other"))
	var looks atomic.Int32
	b.guard.Collectors = append(b.guard.Collectors, stub{"xen", func(context.Context, *Target, *Sheet) {
		if looks.Add(1) == 1 {
			if err := errors.Join(os.Rename(b.path, b.dir+"/kept"), os.Rename(b.dir+"/other", b.path)); err != nil {
				t.Error(err)
			}
		}
	}})
	want := bytes.Repeat([]byte("new!"), 4096)
	var broken *BrokenError
	if err := b.guard.Write(t.Context(), b.path, b.fill(want)); !errors.As(err, &broken) {
		t.Errorf("%v", err)
	}
	b.wantContent(b.path, []byte("other"))
	b.wantContent(b.dir+"/kept", want)
}

// Another lease on the file, as imgward itself takes it, is seen without being
// disturbed.
func TestLeaseOfSomebodyElse(t *testing.T) {
	b := newPlace(t)
	untouched := b.watched(b.path)
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != LeaseTaken {
		t.Errorf("%v", err)
	}
	if !refused.Verdict.Writing() {
		t.Error("the verdict does not say that somebody is at work")
	}
	if !untouched() {
		t.Error("the lease was broken")
	}
	// One write inside another.
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		if err := b.guard.Write(ctx, b.path, unexpected); !errors.As(err, &refused) {
			t.Errorf("a second write: %v", err)
		}
		if err := ctx.Err(); err != nil {
			t.Errorf("the second write disturbed the first: %v", context.Cause(ctx))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A lock on the node that cannot be had, for whatever reason, refuses.
func TestFlock(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EWOULDBLOCK, syscall.ENOLCK} {
		h, found := newHold(t.Context(), nil, &Target{Real: "/dev/sdb"}, []Locker{brokenLock{errno}})
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if len(found) != 1 || found[0].Code != FlockHeld || (Policy{}).Judge(found).Decision != Refuse {
			t.Errorf("%v: found %+v", errno, found)
		}
	}
}

type brokenLock struct{ errno syscall.Errno }

func (brokenLock) Name() string { return "flock" }

func (l brokenLock) Lock(context.Context, *Host, *Target) (func(context.Context) error, error) {
	return nil, l.errno
}

// Locks are given back in the other order, once, and every failure is told.
func TestRelease(t *testing.T) {
	var order []string
	lock := func(name string, err error) Locker {
		return namedLock{name, func(context.Context) error { order = append(order, name); return err }}
	}
	fault := errors.New("still held")
	h, _ := newHold(t.Context(), nil, &Target{}, []Locker{lock("a", fault), lock("b", nil), lock("c", fault)})
	h.cancel(&BrokenError{})
	for range 2 {
		if err := h.Release(t.Context()); !errors.Is(err, fault) {
			t.Errorf("%v", err)
		}
	}
	if !slices.Equal(order, []string{"c", "b", "a"}) {
		t.Errorf("unlocked %q", order)
	}
	if h.Context().Err() == nil {
		t.Error("the context outlives the hold")
	}
}

type namedLock struct {
	name   string
	unlock func(context.Context) error
}

func (l namedLock) Name() string { return l.name }

func (l namedLock) Lock(context.Context, *Host, *Target) (func(context.Context) error, error) {
	return l.unlock, nil
}

// Who opens a file that was leased since he looked, as one who reads headers, is
// turned away and costs us nothing; who tries until he has it keeps us from it.
func TestLeaseIsTakenAgain(t *testing.T) {
	for name, again := range map[string]bool{"turned away": false, "tries again": true} {
		t.Run(name, func(t *testing.T) {
			b := newPlace(t)
			f, err := os.OpenFile(b.path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			target := &Target{ID: ID{Kind: KindFile}, held: &held{file: f}}
			synctest.Test(t, func(t *testing.T) {
				go func() {
					for time.Sleep(15 * time.Millisecond); ; time.Sleep(time.Millisecond) {
						fd, err := unix.Open(b.path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
						if err == nil {
							time.Sleep(time.Minute)
							unix.Close(fd)
							return
						}
						if !errors.Is(err, unix.EAGAIN) {
							t.Error(err)
						}
						if !again {
							return
						}
					}
				}()
				_, err = leaseLocker{}.Lock(t.Context(), b.guard.Host, target)
				time.Sleep(2 * time.Minute)
			})
			if _, asked := target.held.lease(); (err == nil) == again || (asked == nil) == again {
				t.Errorf("locked: %v, then asked for: %v", err, asked)
			}
		})
	}
}

// Who looks at a file for a moment does not keep us from locking it; who stays does.
func TestLeaseLockerIsPatient(t *testing.T) {
	for _, tt := range []struct {
		name    string
		stays   time.Duration
		readers bool // were seen before, and are no surprise
		want    bool
	}{
		{"a moment", 15 * time.Millisecond, false, true},
		{"a minute", time.Minute, false, false},
		{"a reader that was there before", 15 * time.Millisecond, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newPlace(t)
			synctest.Test(t, func(t *testing.T) {
				f, err := os.OpenFile(b.path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				other, err := os.Open(b.path)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(tt.stays)
					other.Close()
				}()
				target := &Target{ID: ID{Kind: KindFile}, held: &held{file: f, readersOnly: tt.readers}}
				unlock, err := leaseLocker{}.Lock(t.Context(), b.guard.Host, target)
				if target.held.leased != tt.want || (err == nil) != tt.want {
					t.Errorf("leased: %t, %v", target.held.leased, err)
				}
				if unlock != nil {
					if err := unlock(t.Context()); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Minute)
			})
		})
	}
}
