package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Guard is the door to images: it looks, judges, holds, and hands out
// descriptors. One Guard serves one operation.
type Guard struct {
	Host       *Host
	Collectors []Collector // nil: all of them
	Lockers    []Locker
	Watchers   []Watcher
	Policy     Policy
	Source     *Target    // what is copied onto the target; nil if nothing is
	Command    []string   // the operation as it was typed, for the record of an unfinished write
	NoClaim    bool       // do not have Xen refuse a device while it is written
	Own        []*os.File // what we read meanwhile, as dd does its input: if that is the target, it is no reason to refuse, and explains no other reader
	flags      int        // further flags of open(2) for the working descriptor

	// Notice is told what is worth saying while work runs, and breaks nothing, one
	// thing after the other, the last of it before Write returns. It is called from
	// a goroutine of its own, and must not open the target. nil tells nobody.
	Notice func(Finding)
}

// Check resolves path, looks and judges. The target, as the look found it, is
// for the caller to close, and nil when there is an error. What may be written
// next is not decided here: Write looks again.
func (g *Guard) Check(ctx context.Context, path string) (*Target, Verdict, error) {
	t, err := Resolve(ctx, g.Host, path)
	if err != nil {
		return nil, Verdict{}, err
	}
	e := g.look(ctx, t)
	if ctx.Err() != nil {
		return nil, Verdict{}, errors.Join(context.Cause(ctx), t.Close())
	}
	return e.view, g.judge(t, e), nil
}

// look examines the target, and before that whether the domain that it is said
// to belong to is down: what takes a pause must not make the rest old.
func (g *Guard) look(ctx context.Context, t *Target) Evidence {
	if g.Policy.Domain == "" {
		return g.examine(ctx, t)
	}
	found := g.down(ctx, t)
	e := g.examine(ctx, t)
	e.Findings = append(e.Findings, found...)
	return e
}

// examine examines the target. One that overlaps the source is not looked at any
// further: it refuses whatever else there is, and the rest would be about the
// descriptor that we have of the source ourselves.
func (g *Guard) examine(ctx context.Context, t *Target) Evidence {
	cs := g.collectors()
	if g.Source == nil {
		return Examine(ctx, g.Host, t, cs)
	}
	o := Examine(ctx, g.Host, t, []Collector{overlap{g.Source}})
	if slices.ContainsFunc(o.Findings, func(f Finding) bool { return f.Code == SelfOverlap }) {
		return o
	}
	e := Examine(ctx, g.Host, t, cs)
	// What could not be seen of the overlap counts, though the second reading
	// of the block layer may see it.
	for _, f := range o.Findings {
		if !slices.Contains(e.Findings, f) {
			e.Findings = append(e.Findings, f)
		}
	}
	return e
}

func (g *Guard) collectors() []Collector {
	cs := g.Collectors
	if cs == nil {
		cs = Collectors()
	}
	if g.Policy.Operation.dd() {
		return forDD(cs)
	}
	return cs
}

func (g *Guard) judge(t *Target, e Evidence) Verdict { return g.Policy.verdict(t, e) }

// A Permit is the right to write to one existing target while its hold lasts.
// Only Write makes one.
type Permit struct {
	host   *Host
	target *Target
	file   *os.File
	mark   *Mark
	held   *held
	hold   *Hold

	noClaim bool
	opened  bool
	clean   bool
}

// dd tells that the target is written as dd writes: there is no mark.
func (p *Permit) dd() bool { return p.mark == nil }

// Target is what the permit is for.
func (p *Permit) Target() *Target { return p.target }

// ReadAt reads the target through the descriptor that File gives, before
// anything is written: for its token, for what is on it. Any offset and length
// will do.
func (p *Permit) ReadAt(b []byte, off int64) (int, error) { return p.file.ReadAt(b, off) }

// File records that a write begins, claims a device and gives the descriptor to
// write with: O_RDWR, exclusive for a device, O_DIRECT where the file system can,
// the same inode or device that was examined. It belongs to Write and is closed by
// it. If the record cannot be written, or somebody came since the target was
// judged, nothing may be written.
func (p *Permit) File() (*os.File, error) {
	if p.opened {
		return p.file, nil
	}
	if !p.dd() {
		if err := p.mark.write(); err != nil {
			return nil, fmt.Errorf("record the beginning of the write: %w", errors.Join(err, p.mark.restore()))
		}
	}
	if err := p.claim(); err != nil {
		err = errors.Join(err, withdraw(context.WithoutCancel(p.hold.Context()), p.host, p.target, false))
		if !p.dd() {
			err = errors.Join(err, p.mark.restore())
		}
		return nil, err
	}
	p.opened = true
	if !p.dd() {
		setDirect(p.file)
	}
	p.held.tell(p.target.inForce())
	return p.file, nil
}

// claim claims the target, and looks who came before the first byte, as nothing
// kept them away. A claim that cannot be made is told of and no error; a hold that
// is broken already is one. The claim is made behind the record, and withdrawn
// before it, so that whoever is killed leaves no claim without one.
func (p *Permit) claim() error {
	ctx := p.hold.Context()
	if !p.noClaim {
		if err := claimDevice(ctx, p.host, p.target); err != nil && ctx.Err() == nil {
			p.held.tell(unclaimedFinding(err))
		}
	}
	if p.held.protection() == byLooking {
		if f, broken := p.held.rescan.look(ctx, changing(xen{})); broken {
			return brokenBy(f)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ours := p.held.claims.Load(); ours != nil {
		p.held.claims.Store(&claimed{ours.made, true})
	}
	return nil
}

// Lasting reports whether the record of an unfinished write will still be found
// to be this target's after a reboot.
func (p *Permit) Lasting() bool { return !p.dd() && p.mark.Lasting }

// Untouched says that nothing reached the target after all, so that it is what
// it was before; if work does not fail all the same, it is whole.
func (p *Permit) Untouched() { p.clean = true }

// setDirect switches a descriptor to O_DIRECT. A file system that cannot is a
// normal case, and the descriptor stays as it is.
func setDirect(f *os.File) {
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
}

// An IncompleteError says that writing began and did not end: the target is
// neither what it was nor what it was to be, and is recorded as such.
type IncompleteError struct {
	Path string
	Err  error
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s is incomplete: %v", quote(e.Path), e.Err)
}

func (e *IncompleteError) Unwrap() error { return e.Err }

// A WrittenError says that the target, or a new file, is whole and what was to
// follow failed.
type WrittenError struct {
	Path string
	Err  error
}

func (e *WrittenError) Error() string {
	return fmt.Sprintf("%s was written whole, and then: %v", quote(e.Path), e.Err)
}

func (e *WrittenError) Unwrap() error { return e.Err }

// Write is the only door to a writable descriptor of an existing target. It
// examines and judges, opens the very inode or device that was examined,
// exclusively, takes the locks, examines and judges again with what is now held,
// and calls work under a context that dies with the hold. It returns a
// *RefusedError when the guard refuses (nothing was written), an
// *IncompleteError when work began to write and did not finish, a *BrokenError or
// *WrittenError when it did and something else is wrong, and otherwise, with
// nothing written, what work returned.
func (g *Guard) Write(ctx context.Context, path string, work func(ctx context.Context, p *Permit) error) error {
	t, err := Resolve(ctx, g.Host, path)
	if err != nil {
		return err
	}
	if !t.Exists() {
		return errors.Join(openError(path, fs.ErrNotExist), t.Close())
	}
	return g.write(ctx, t, work)
}

// write is Write to a target that was resolved, and closes it. One that we hold
// already is inherited.
func (g *Guard) write(ctx context.Context, t *Target, work func(ctx context.Context, p *Permit) error) (err error) {
	var p *Permit
	defer func() {
		var incomplete *IncompleteError
		var broken *BrokenError
		if err != nil && p != nil && p.opened && !p.clean && !p.dd() && !errors.As(err, &incomplete) && !errors.As(err, &broken) {
			err = &WrittenError{t.Path, err}
		}
	}()
	defer func() { err = errors.Join(err, t.Close()) }()
	t.own = g.Own
	notice, told := queued(g.Notice)
	defer told() // when nobody waits for us any more
	telling := *g
	telling.Notice = notice
	g = &telling
	hold, second, err := g.hold(ctx, t)
	if t.held != nil && !t.held.inherited {
		file := t.held.file
		defer func() { err = errors.Join(err, file.Close()) }()
	}
	if hold == nil {
		return err
	}
	defer func() { err = errors.Join(err, hold.Release(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	p = &Permit{host: g.Host, target: second.view, file: t.held.file, held: t.held, hold: hold, noClaim: g.NoClaim}
	policy := g.Policy
	policy.Operation = policy.Operation.on(t.ID.Kind)
	if !policy.Operation.dd() {
		if p.mark, err = makeMark(ctx, g.Host, second.view, time.Now(), g.Command); err != nil {
			return fmt.Errorf("record the beginning of the write: %w", err)
		}
	}
	t.held.rescan = newRescan(g.Host, second.view, policy, g.collectors(), second, g.Notice)
	hold.watch(g.Host, t, g.Watchers)
	err = p.finish(ctx, work(hold.Context(), p))
	var broken *BrokenError
	if (!p.opened || p.clean) && errors.As(err, &broken) {
		// Nothing was written, so this is one more reason to refuse.
		second.Findings = append(second.Findings, broken.Finding)
		return g.judge(t, second).Err()
	}
	return err
}

// hold looks, judges, opens and locks the target, and looks and judges again. When it
// is open, t.held says so, also where there is an error; the hold is nil until there
// is something to release.
func (g *Guard) hold(ctx context.Context, t *Target) (*Hold, Evidence, error) {
	if g.Policy.Operation.dd() && t.ID.Kind == KindFile && t.held == nil {
		if hold, e, err := g.alone(ctx, t); hold != nil || err != nil {
			return hold, e, err
		}
	}
	first := g.look(ctx, t)
	if ctx.Err() != nil {
		return nil, first, context.Cause(ctx)
	}
	if err := g.judge(t, first).Err(); err != nil {
		return nil, first, err
	}
	if t.held == nil {
		if err := g.open(t, first); err != nil {
			return nil, first, err
		}
	}
	return g.lock(ctx, t)
}

// open opens the working descriptor of a target that was judged by this evidence.
func (g *Guard) open(t *Target, first Evidence) error {
	file, err := t.open(unix.O_RDWR | g.flags)
	if errors.Is(err, syscall.EACCES) && g.Policy.Operation.dd() {
		file, err = t.open(unix.O_WRONLY | g.flags) // as dd does
	}
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		first.Findings = append(first.Findings, shutFinding(t))
		return g.judge(t, first).Err()
	case errors.Is(err, syscall.EBUSY):
		first.Findings = append(first.Findings, Finding{
			Code: ExclHeld, Relation: Same, Subject: "the kernel", Key: "kernel", Source: "open O_EXCL of " + quote(t.Real),
			Detail: "refuses an exclusive open: somebody has claimed it since it was looked at", Remedy: "find out by what with \"lsblk\"",
		})
		return g.judge(t, first).Err()
	case err != nil:
		return err
	}
	t.held = g.holding(file, slices.ContainsFunc(first.Findings, func(f Finding) bool { return f.Code == LeaseReaders }))
	t.held.onlyUs = slices.ContainsFunc(first.Findings, func(f Finding) bool { return f.onlyUs })
	return nil
}

// holding is what we hold when we have file open.
func (g *Guard) holding(file *os.File, readersOnly bool) *held {
	return &held{pid: os.Getpid(), file: file, notice: g.Notice, operation: g.Policy.Operation.String(), readersOnly: readersOnly}
}

// lock takes the locks of an open target, and looks and judges again.
func (g *Guard) lock(ctx context.Context, t *Target) (*Hold, Evidence, error) {
	hold, found := newHold(ctx, g.Host, t, g.Lockers)
	second := g.look(hold.Context(), t)
	second.Findings = append(second.Findings, found...)
	if ctx.Err() != nil {
		return hold, second, context.Cause(ctx)
	}
	return hold, second, g.judge(t, second).Err()
}

// finish decides what became of the target.
func (p *Permit) finish(ctx context.Context, err error) error {
	var broken *BrokenError
	switch cause := context.Cause(p.hold.Context()); {
	case cause == nil:
	case err == nil, errors.Is(err, context.Canceled):
		err = cause
	case errors.As(cause, &broken) && !errors.Is(err, cause):
		err = errors.Join(cause, err) // why work failed, whatever it made of it
	}
	if !p.opened {
		return err
	}
	if p.dd() {
		if err == nil {
			err = p.held.rescan.last(p.hold.Context())
		}
		return errors.Join(err, withdraw(context.WithoutCancel(ctx), p.host, p.target, false))
	}
	if p.mark.previous != nil && err == nil {
		p.clean = false // it was incomplete, and was found to be whole
	}
	if p.clean {
		return errors.Join(err, withdraw(context.WithoutCancel(ctx), p.host, p.target, false), p.mark.restore())
	}
	if err == nil {
		err = p.held.rescan.last(p.hold.Context())
	}
	if errors.As(err, &broken) {
		err = errors.Join(err, p.file.Sync()) // what is said to be written is, whatever comes now
	}
	if err != nil {
		return &IncompleteError{p.target.Path, err}
	}
	withdrawing := withdraw(context.WithoutCancel(ctx), p.host, p.target, true)
	if err := p.mark.remove(); err != nil {
		return errors.Join(withdrawing, fmt.Errorf("the record that it is incomplete could not be removed: %w", err))
	}
	return errors.Join(withdrawing, p.stillNamed(ctx))
}

// stillNamed resolves the target's name once more.
func (p *Permit) stillNamed(ctx context.Context) error {
	f := Finding{
		Code: HoldRenamed, Relation: Same, Subject: "the name " + quote(p.target.Path),
		Detail: "was changed meanwhile: what was written went to " + p.target.ID.String() + ", which has that name no more",
	}
	now, err := Resolve(context.WithoutCancel(ctx), p.host, p.target.Path)
	if err != nil {
		f.Detail += ": " + err.Error()
		return brokenBy(f)
	}
	if now.ID != p.target.ID {
		return errors.Join(brokenBy(f), now.Close())
	}
	return now.Close()
}

// open gives a descriptor of the very inode or device that was resolved, without
// following the path again; a device's is exclusive when it is writable. mode may have
// other flags of open(2) in it.
func (t *Target) open(mode int) (*os.File, error) {
	flags := mode | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_LARGEFILE
	switch {
	case mode&unix.O_ACCMODE == unix.O_RDONLY:
		flags |= unix.O_NONBLOCK // whoever leases it makes us fail, not wait
	case t.ID.Kind == KindBlock:
		flags |= unix.O_EXCL
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(t.handle.Fd()), flags, 0)
	if err != nil {
		return nil, openError(t.Path, err)
	}
	f := os.NewFile(uintptr(fd), t.Path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", quote(t.Path), err), f.Close())
	}
	id := FileID(st.Dev, st.Ino)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		id = BlockID(st.Rdev)
	}
	if id != t.ID {
		return nil, errors.Join(fmt.Errorf("open %s: it is %s now and was %s", quote(t.Path), id, t.ID), f.Close())
	}
	return f, nil
}

// Open gives a descriptor of the target for reading, which is for the caller to
// close. It counts as an opener: close it before anything is judged.
func (t *Target) Open() (*os.File, error) { return t.open(unix.O_RDONLY) }
