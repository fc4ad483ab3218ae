package guard

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Source is an image that may be read. Close releases it.
type Source struct {
	Target  *Target
	File    *os.File // O_RDONLY, O_DIRECT where the file system can
	Verdict Verdict
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
	s := &Source{Target: t, Verdict: v}
	if !t.Exists() {
		return nil, errors.Join(openError(path, unix.ENOENT), t.Close())
	}
	if err := v.Err(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if s.File, err = t.open(unix.O_RDONLY); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if err := unix.Fstat(int(s.File.Fd()), &s.before); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", quote(path), err), s.Close())
	}
	setDirect(s.File)
	return s, nil
}

// Changed is an error when the file was written to or resized since Open, as its
// times and size tell (stat(2), st_mtim): what was read may belong to two
// states. A device has no such times.
func (s *Source) Changed() error {
	if s.Target.ID.Kind != KindFile {
		return nil
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(s.File.Fd()), &now); err != nil {
		return fmt.Errorf("stat %s: %w", quote(s.Target.Path), err)
	}
	if now.Mtim != s.before.Mtim || now.Size != s.before.Size {
		return fmt.Errorf("%s was changed while it was read", quote(s.Target.Path))
	}
	return nil
}

// Close releases the source's descriptors.
func (s *Source) Close() error { return errors.Join(s.File.Close(), s.Target.Close()) }
