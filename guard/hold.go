package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// held is what we have of the target ourselves. The collectors of a later look
// expect exactly that much more than those of the first.
type held struct {
	pid         int
	file        *os.File // the working descriptor, exclusive for a device
	reading     bool     // the target is a source: file is open for reading, and nothing is locked
	inherited   bool     // file was open before we came, for others too; a device's is not exclusive
	readersOnly bool     // the first look found readers and no writer
	onlyUs      bool     // and that we are the only one, by our input
	gate        *gate    // nil where there is none
	leased      bool
	proved      bool  // behind the gate a lease was granted, and given back
	leaseErr    error // why there is no lease
	notice      func(Finding)
	node        *nodeEvents // nil where there are none
	rescan      *rescan     // compares with the look before the first byte; nil until then

	operation string                  // what we do to the target
	claims    atomic.Pointer[claimed] // by which Xen refuses it; nil while there are none
	left      bool                    // claims that could not be made may be there all the same
}

func (h *held) fd() int { return int(h.file.Fd()) }

// is tells the descriptor that we hold of the target ourselves.
func (h *held) is(pid, fd string) bool {
	return h != nil && pid == strconv.Itoa(h.pid) && fd == strconv.Itoa(h.fd())
}

// shares tells that a descriptor leads to the very opening of the target that we
// inherited, as that of the shell does which opened it for us (kcmp(2), KCMP_FILE).
// Where the kernel does not say so, it is somebody else's.
func (h *held) shares(pid, fd string) bool {
	if h == nil || !h.inherited {
		return false
	}
	p, err1 := strconv.Atoi(pid)
	n, err2 := strconv.Atoi(fd)
	if err1 != nil || err2 != nil {
		return false
	}
	const kcmpFile = 0
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(h.pid), uintptr(p), kcmpFile, uintptr(h.fd()), uintptr(n), 0)
	return errno == 0 && order == 0
}

// tell tells the operator of what breaks nothing.
func (h *held) tell(f Finding) {
	if h.notice != nil {
		h.notice(f)
	}
}

// lease answers for the second look what hostfs.Lease answers for the first.
func (h *held) lease() (string, error) {
	switch {
	case h.proved:
		if !h.gate.closed() {
			return "", errors.New("nobody answers fanotify any more")
		}
		return "write", nil
	case h.leased:
		if kind, err := unix.FcntlInt(h.file.Fd(), unix.F_GETLEASE, 0); err != nil || kind != unix.F_WRLCK {
			return "", errors.Join(err, syscall.EAGAIN)
		}
		return "write", nil
	case h.readersOnly && errors.Is(h.leaseErr, syscall.EAGAIN):
		// Our own descriptor is open for writing, so a read lease cannot be
		// asked for any more.
		return "read", nil
	case h.leaseErr == nil && h.inherited:
		// The lease is on what is open, however many descriptors lead there.
		if _, err := unix.FcntlInt(h.file.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			return "", err
		}
		_, err := unix.FcntlInt(h.file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return "write", err
	case h.leaseErr == nil:
		return "", errors.New("no lease was asked for")
	}
	return "", h.leaseErr
}

// A Locker keeps others away from the target, as far as the kernel lets it. What
// it could not take shows in the second look.
type Locker interface {
	Name() string
	Lock(ctx context.Context, host *Host, t *Target) (unlock func(context.Context) error, err error)
}

// Lockers is the list of all lockers, in the order in which they lock. That the
// working descriptor of a device is opened with O_EXCL comes before them all.
func Lockers() []Locker {
	return []Locker{flockLocker{}, nodeLocker{}, gateLocker{}, leaseLocker{}, byteLocker{}}
}

// flockLocker takes a lock on a device's node (flock(2)), which udev and
// partitioning tools honour. A lock that somebody else has is waited for a
// little: udev holds it while it probes.
type flockLocker struct{}

func (flockLocker) Name() string { return "flock" }

// Lock implements [Locker]. It fails with EWOULDBLOCK when somebody else keeps
// the lock.
func (flockLocker) Lock(ctx context.Context, _ *Host, t *Target) (func(context.Context) error, error) {
	if t.ID.Kind != KindBlock {
		return nil, nil
	}
	var err error
	for range 10 {
		if err = unix.Flock(t.held.fd(), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func(context.Context) error { return unix.Flock(t.held.fd(), unix.LOCK_UN) }, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, err
}

// leaseLocker takes a write lease on a file (fcntl(2), F_SETLEASE), which proves
// that nobody has it open. Behind a closed gate it is given back at once: nobody
// can come, and while we held it every opener would break it. Without a gate it
// is kept: an opener is made to wait, and the watcher of the same name sees that
// he came. One who is there for a moment only, as who reads a header is, is waited
// for a little.
type leaseLocker struct{}

func (leaseLocker) Name() string { return "lease" }

// Lock implements [Locker].
func (leaseLocker) Lock(ctx context.Context, _ *Host, t *Target) (func(context.Context) error, error) {
	if t.ID.Kind != KindFile {
		return nil, nil
	}
	early := t.held.leased // since before the look
	if early {
		if _, t.held.leaseErr = t.held.lease(); t.held.leaseErr != nil {
			t.held.leased = false
			return nil, t.held.leaseErr
		}
		if t.held.gate != nil {
			t.held.leased = false
			if t.held.leaseErr = t.unlease(); t.held.leaseErr != nil {
				return nil, t.held.leaseErr
			}
		}
	}
	// One who waits at the gate counts as an opener until he is refused. Whom a lease
	// was to keep out since before the look is not waited for: it must be looked again.
	for range 50 {
		t.held.leaseErr = t.takeLease(ctx)
		if early || t.held.onlyUs || !errors.Is(t.held.leaseErr, unix.EAGAIN) || t.held.gate == nil && t.held.readersOnly || !waited(ctx, 10*time.Millisecond) {
			break
		}
	}
	if t.held.leaseErr != nil {
		t.held.leased = false
		return nil, t.held.leaseErr
	}
	if t.held.gate != nil {
		t.held.leaseErr = t.unlease()
		t.held.proved = t.held.leaseErr == nil
		return nil, t.held.leaseErr
	}
	t.held.leased = true
	return func(context.Context) error {
		t.held.leased = false
		return t.unlease()
	}, nil
}

// takeLease takes the lease. Without a gate one who found no lease on the file a
// moment ago may open it now, as imgward does that reads headers: he is turned away
// (O_NONBLOCK) and breaks it. So it is looked for a little whether it stays whole;
// if it does not it is given back, with EAGAIN.
func (t *Target) takeLease(ctx context.Context) error {
	fd := t.held.file.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK); err != nil || t.held.gate != nil {
		return err
	}
	for range 10 {
		waited(ctx, 10*time.Millisecond)
		if kind, err := unix.FcntlInt(fd, unix.F_GETLEASE, 0); err != nil || kind != unix.F_WRLCK {
			return errors.Join(err, t.unlease(), unix.EAGAIN)
		}
	}
	return nil
}

// waited waits, and is false when ctx ended first.
func waited(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Target) unlease() error {
	if _, err := unix.FcntlInt(t.held.file.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		return fmt.Errorf("give back the lease on %s: %w", quote(t.Real), err)
	}
	return nil
}

// A Watcher notices a new user while imgward writes. It returns when ctx ends;
// returning before, for any reason, breaks the hold.
type Watcher interface {
	Name() string
	Watch(ctx context.Context, host *Host, t *Target, alarm func(Finding)) error
}

// Watchers is the list of all watchers.
func Watchers() []Watcher {
	return []Watcher{gateWatcher{}, leaseWatcher{}, nodeWatcher{}, rescanWatcher{}, xenWatcher{}}
}

// leaseWatcher looks a few times a second whether the lease is still whole. An
// opener waits /proc/sys/fs/lease-break-time seconds, 45 unless changed.
type leaseWatcher struct{}

const leaseEvery = 200 * time.Millisecond

func (leaseWatcher) Name() string { return "lease" }

// Watch implements [Watcher].
func (leaseWatcher) Watch(ctx context.Context, _ *Host, t *Target, alarm func(Finding)) error {
	if t.held.leased {
		tick := time.NewTicker(leaseEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if _, err := t.held.lease(); err != nil {
				alarm(Finding{
					Code: HoldLease, Relation: Same, Subject: "somebody", Key: "opener", Detail: "opened it while it was being written",
					Source: "fcntl F_GETLEASE on " + quote(t.Real), Remedy: "find out who it was before anything else",
				})
				return nil
			}
		}
	}
	<-ctx.Done()
	return nil
}

// A BrokenError says that the hold on a target broke while it was written: by
// whom, as which evidence shows, and when that was noticed.
type BrokenError struct {
	Finding Finding
	At      time.Time
}

func brokenBy(f Finding) *BrokenError { return &BrokenError{f, time.Now()} }

func (e *BrokenError) Error() string {
	return e.Finding.sentence() + ", noticed at " + e.At.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

// A Hold is the time during which a target is ours.
type Hold struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	watchers sync.WaitGroup
	unlock   []func(context.Context) error // in the order of locking
	once     sync.Once
	err      error
}

// newHold takes every lock. A lock that cannot be had is no error here: the
// second look judges it. The returned hold must be released.
func newHold(ctx context.Context, host *Host, t *Target, lockers []Locker) (*Hold, []Finding) {
	h := &Hold{}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	var found []Finding
	for _, l := range lockers {
		unlock, err := l.Lock(ctx, host, t)
		if unlock != nil {
			h.unlock = append(h.unlock, unlock)
		}
		if l.Name() == "bytes" && errors.Is(err, unix.EAGAIN) {
			found = append(found, byteFinding(t))
		}
		if err != nil && l.Name() == "flock" {
			f := Finding{
				Code: FlockHeld, Relation: Same, Subject: "another program", Key: "flock", Detail: "holds a lock on the device's node",
				Source: "flock of " + quote(t.Real), Remedy: "wait for it (\"lslocks\" shows it)",
			}
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				f.Detail = fmt.Sprintf("may hold a lock on the device's node: %v", reason(err))
			}
			found = append(found, f)
		}
	}
	return h, found
}

// watch starts the watchers.
func (h *Hold) watch(host *Host, t *Target, watchers []Watcher) {
	for _, w := range watchers {
		h.watchers.Go(func() {
			alarm := func(f Finding) { h.cancel(brokenBy(f)) }
			err := w.Watch(h.ctx, host, t, alarm)
			if h.ctx.Err() == nil {
				alarm(ended(w.Name(), err))
			}
		})
	}
}

// ended is about a watch that nothing watches any more.
func ended(name string, err error) Finding {
	return Finding{Code: HoldWatch, Subject: "the watch " + name, Key: name, Detail: fmt.Sprintf("ended early: %v", err), Source: name}
}

// Context is cancelled when the hold breaks, with a *BrokenError as its cause,
// and when it is released.
func (h *Hold) Context() context.Context { return h.ctx }

// Release stops the watchers and gives every lock back, last taken first. It
// works after the context was cancelled, and again does nothing.
func (h *Hold) Release(ctx context.Context) error {
	h.once.Do(func() {
		h.cancel(nil)
		h.watchers.Wait()
		for i := len(h.unlock) - 1; i >= 0; i-- {
			h.err = errors.Join(h.err, h.unlock[i](ctx))
		}
	})
	return h.err
}
