package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A Source is an image that may be read. Close releases it.
type Source struct {
	Target  *Target
	File    *os.File // O_RDONLY, O_DIRECT where the file system can
	Verdict Verdict
	guard   *Guard
	before  unix.Stat_t
}

// Open examines path as the source of a copy, judges, and opens the very inode
// or device that was examined for reading. A source that is in use for writing
// is refused with a *RefusedError: a copy of it would be torn.
func (g *Guard) Open(ctx context.Context, path string) (*Source, error) {
	t, v, err := g.Check(ctx, path)
	if err != nil {
		return nil, err
	}
	s := &Source{Target: t, Verdict: v, guard: g}
	if !t.Exists() {
		return nil, errors.Join(openError(path, unix.ENOENT), t.Close())
	}
	if err := v.Err(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	s.File, err = t.open(unix.O_RDONLY)
	if errors.Is(err, unix.ETXTBSY) {
		v.Decision, v.Because = Refuse, append(v.Because, shutFinding(t))
		return nil, errors.Join(v.Err(), t.Close())
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if err := unix.Fstat(int(s.File.Fd()), &s.before); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", quote(path), err), s.Close())
	}
	setDirect(s.File)
	t.held = &held{pid: os.Getpid(), file: s.File, reading: true}
	return s, nil
}

// Changed is an error when what was read since Open may belong to two states: a
// file was written to or resized, as its times and size tell (stat(2), st_mtim),
// or something refuses the source now that was not known then. What only a lease
// could vouch for is known and does not count again. When something could not be looked
// at, it is looked for once more.
func (s *Source) Changed(ctx context.Context) error {
	path := quote(s.Target.Path)
	if s.Target.ID.Kind == KindFile {
		var now unix.Stat_t
		if err := unix.Fstat(int(s.File.Fd()), &now); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		if now.Mtim != s.before.Mtim || now.Size != s.before.Size {
			return fmt.Errorf("%s was changed while it was read", path)
		}
	}
	f, came := s.newcomer(ctx)
	if came && f.isBlind() { // once more, because we may have been stopped in the look
		f, came = s.newcomer(ctx)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if came {
		return fmt.Errorf("%s came into use while it was read: %s", path, f.sentence())
	}
	return nil
}

// newcomer is the first reason against the source that was not known when it was
// opened; one of somebody who was seen comes before what could not be looked at.
func (s *Source) newcomer(ctx context.Context) (Finding, bool) {
	v := s.guard.judge(s.Target, s.guard.look(ctx, s.Target))
	reasons := slices.DeleteFunc(v.Because, func(f Finding) bool {
		return slices.ContainsFunc(s.Verdict.All(), func(k Finding) bool { return k.Code == f.Code && k.Key == f.Key })
	})
	if len(reasons) == 0 {
		return Finding{}, false
	}
	return reasons[max(0, slices.IndexFunc(reasons, func(f Finding) bool { return !f.isBlind() }))], true
}

// Close releases the source's descriptors.
func (s *Source) Close() error { return errors.Join(s.File.Close(), s.Target.Close()) }
