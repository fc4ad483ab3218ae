package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// DD opens what dd writes to and calls work with it, as open(2) does with flags and
// perm; work's file is closed when it returns. [Guard.Policy] must be of operation
// [DD]. What is there already and holds bytes, a file or a block device, is judged
// and held as in [Guard.Write], with what dd does differently:
//
//   - nothing is truncated by opening: work does that, and flags beside [ddFlags] are refused
//   - the descriptor has O_DIRECT only when flags say so
//   - a write that ends in the middle leaves half an image, as dd does: there is no
//     record of an unfinished write, one of an earlier write stays, and claims in
//     xenstore are withdrawn however it ends
//   - where the name leads to afterwards is not looked at
//
// A name under which nothing is is judged and comes into being at once (see
// [Guard.makeNew]); what holds no bytes (a pipe, a terminal, /dev/null) is opened and
// nothing else. Errors of work, and of opening, are returned as they are, for dd to
// say; a *RefusedError says that nothing was written, a *BrokenError in it that
// somebody came while it was written.
func (g *Guard) DD(ctx context.Context, path string, flags int, perm fs.FileMode, work func(ctx context.Context, f *os.File) error) error {
	if flags&^ddFlags != 0 {
		return fmt.Errorf("open %s with flags %#x: %w", quote(path), flags&^ddFlags, unix.EINVAL)
	}
	if path == "" {
		return openError(path, unix.ENOENT)
	}
	if flags&unix.O_NOFOLLOW != 0 {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return openError(path, unix.ELOOP)
		}
	}
	for range looks {
		err := g.dd(ctx, path, flags, perm, work)
		if !errors.Is(err, errCame) {
			return err
		}
	}
	return openError(path, unix.EAGAIN)
}

// DDInherited is DD for what is open already, as standard output is: f is judged, if
// it leads to a file or a device, before the first byte is written, and stays open. A
// shell has truncated the file of a redirection by then. It is the opening itself that
// is expected, in whatever processes it is; whoever has opened the target for himself
// is found as always. A device is not held exclusively: its opening is not.
func (g *Guard) DDInherited(ctx context.Context, f *os.File, work func(ctx context.Context, f *os.File) error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", quote(f.Name()), err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return work(ctx, f)
	}
	t, err := Resolve(ctx, g.Host, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())))
	if err != nil {
		return err
	}
	t.Path = t.Real
	t.held = g.holding(f, false)
	t.held.inherited = true
	return g.write(ctx, t, func(ctx context.Context, p *Permit) error {
		f, err := p.File()
		if err != nil {
			return err
		}
		return work(ctx, f)
	})
}

// ddFlags are the flags of open(2) that dd can be told to open its output with, and
// that change nothing in what is opened.
const ddFlags = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_APPEND | unix.O_DIRECT | unix.O_DIRECTORY | unix.O_SYNC | unix.O_DSYNC |
	unix.O_NOATIME | unix.O_NOCTTY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_LARGEFILE | unix.O_CLOEXEC

// errCame is about a file that came into being, or was removed, since the name was
// looked at.
var errCame = errors.New("something else is there now")

func (g *Guard) dd(ctx context.Context, path string, flags int, perm fs.FileMode, work func(ctx context.Context, f *os.File) error) error {
	pin, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT) && flags&unix.O_CREAT != 0:
		return g.makeNew(ctx, path, flags, perm, work)
	case err != nil:
		return openError(path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(pin, &st)
	kind := st.Mode & unix.S_IFMT
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("stat %s: %w", quote(path), err), unix.Close(pin))
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return errors.Join(openError(path, unix.EEXIST), unix.Close(pin))
	case kind == unix.S_IFREG || kind == unix.S_IFBLK:
		if err := unix.Close(pin); err != nil {
			return err
		}
		h := *g
		h.flags = flags &^ (unix.O_CREAT | unix.O_EXCL | unix.O_ACCMODE | unix.O_NOFOLLOW)
		err := h.Write(ctx, path, func(ctx context.Context, p *Permit) error {
			f, err := p.File()
			if err != nil {
				return err
			}
			return work(ctx, f)
		})
		var other *TypeError
		if errors.As(err, &other) {
			return errCame
		}
		return err
	}
	// A name may lead elsewhere by now, and what was looked at does not.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(pin), flags&^(unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)|unix.O_CLOEXEC, 0)
	if err = errors.Join(err, unix.Close(pin)); err != nil {
		return openError(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return errors.Join(work(ctx, f), f.Close())
}

// makeNew makes a file where nothing is, and gives it its name at once: others may
// watch it grow, as dd's users do, and nothing else keeps them away. What the name
// means to a living domain is judged before: a path that a node of xenstore names is
// that domain's also when the file was removed. Of nothing else would a new file
// destroy anything, so nothing else is looked at. A link that leads nowhere is
// followed, as the kernel does: the file comes into being where it leads.
func (g *Guard) makeNew(ctx context.Context, path string, flags int, perm fs.FileMode, work func(ctx context.Context, f *os.File) error) error {
	t, err := resolveThrough(ctx, g.Host, path, flags&unix.O_EXCL == 0)
	if err != nil {
		return err
	}
	if t.Exists() {
		return errors.Join(errCame, t.Close())
	}
	h := *g
	wanted := forNames
	if g.Policy.Domain != "" {
		wanted = slices.Concat(wanted, forDomains)
	}
	h.Collectors = slices.DeleteFunc(slices.Clone(g.collectors()), func(c Collector) bool { return !slices.Contains(wanted, c.Name()) })
	e := h.look(ctx, t)
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), t.Close())
	}
	if err := h.judge(t, e).Err(); err != nil {
		return errors.Join(err, t.Close())
	}
	fd, err := unix.Openat(t.handle.Fd(), t.Base, flags|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_LARGEFILE, uint32(perm.Perm()))
	if cerr := t.Close(); cerr != nil {
		return errors.Join(err, cerr)
	}
	if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
		return errCame
	}
	if err != nil {
		return openError(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return errors.Join(work(ctx, f), f.Close())
}

// forNames are the collectors that say who has a name under which nothing is: what
// the others find of one is a note to dd.
var forNames = []string{xen{}.Name(), self{}.Name()}

// forDomains are those that may say, too, that it is the disk of a domain that is shut
// down, which is asked when the operator says so.
var forDomains = []string{configs{}.Name(), saved{}.Name()}

// resolveThrough is [Resolve], which with follow goes on where a symbolic link leads
// that leads nowhere.
func resolveThrough(ctx context.Context, host *Host, path string, follow bool) (*Target, error) {
	at := path
	for range maxLinks {
		t, err := Resolve(ctx, host, at)
		var d *danglingError
		switch {
		case errors.As(err, &d) && !follow:
			return nil, openError(path, unix.EEXIST)
		case errors.As(err, &d):
			if at = d.to; !filepath.IsAbs(at) {
				dir, _ := filepath.Split(d.from) // not cleaned: see fromRoot
				at = dir + at
			}
			continue
		case err != nil:
			return nil, err
		}
		t.Path = path // its name as well as where that leads
		return t, nil
	}
	return nil, openError(path, unix.ELOOP)
}

// spared is a collector that sees nothing that a lease does not rule out, where one
// is granted ([witnesses]). It looks when the others have, and not beside a witness.
type spared struct{ Collector }

// forDD gives the collectors for dd, where a plain file that nobody has open is to
// cost a few milliseconds: to look at the descriptors and mappings of all processes
// takes longer than all the rest, and a lease that is granted proves more. A mapping
// keeps the file open that it was made from, also when its descriptor is closed.
func forDD(cs []Collector) []Collector {
	out := slices.Clone(cs)
	for i, c := range out {
		if c.Name() == (procfd{}).Name() {
			out[i] = spared{c}
		}
	}
	return out
}

// alone holds a plain file that nobody has open, with one look where others take two.
// A write lease comes before the look and is kept until the gate is closed, so nobody
// has opened the file in between, and whoever tried waited for some milliseconds and
// was not refused. The hold is nil, and nothing is held, where there is no such lease
// or it was broken; then others have to be looked for as usual.
func (g *Guard) alone(ctx context.Context, t *Target) (*Hold, Evidence, error) {
	// Asking opens the file for reading; what the lease that is kept needs opens it
	// for writing, which is not to be done to a file that somebody uses.
	if f, denied := askForLease(ctx, g.Host, t); denied != nil || f.Code != LeaseFree {
		return nil, Evidence{}, nil
	}
	if err := g.open(t, Evidence{view: t}); err != nil {
		return nil, Evidence{}, err
	}
	letGo := func() error {
		file := t.held.file
		t.held = nil
		return file.Close() // and the lease with it
	}
	if _, err := unix.FcntlInt(t.held.file.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return nil, Evidence{}, letGo()
	}
	t.held.leased = true
	e := g.look(ctx, t)
	if ctx.Err() != nil {
		return nil, e, errors.Join(context.Cause(ctx), letGo())
	}
	if err := g.judge(t, e).Err(); err != nil {
		return nil, e, errors.Join(err, letGo())
	}
	hold, found := newHold(ctx, g.Host, t, g.Lockers)
	if !t.held.proved && !t.held.leased || len(found) > 0 {
		return nil, Evidence{}, errors.Join(hold.Release(context.WithoutCancel(ctx)), letGo())
	}
	return hold, e, nil
}

// reads tells a descriptor that we read ourselves, as dd's input is.
func (t *Target) reads(pid, fd string) bool {
	return len(t.own) > 0 && pid == ownPID() && slices.ContainsFunc(t.own, func(f *os.File) bool { return fd == strconv.Itoa(int(f.Fd())) })
}

// ownReaders counts what of that is the target, and not the very opening of it that
// we hold: the kernel counts that once.
func (t *Target) ownReaders() (n int) {
	for _, f := range t.own {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && BlockID(st.Rdev) == t.ID {
			if !t.held.shares(ownPID(), strconv.Itoa(int(f.Fd()))) {
				n++
			}
		}
	}
	return n
}

// ownFile gives what of that is the target, a file; nil if nothing is.
func (t *Target) ownFile() *os.File {
	for _, f := range t.own {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && FileID(st.Dev, st.Ino) == t.ID {
			return f
		}
	}
	return nil
}
