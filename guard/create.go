package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Create makes a new file under path and refuses an existing one. The name is
// judged first: a path that a running domain's node names belongs to that domain
// also when nothing is there any more. work gets a descriptor (O_RDWR, O_DIRECT
// where the file system can) of a file without a name; it has to sync what it
// writes. The file gets its name only when work is done and the name was judged
// again, so a half-written file never bears it.
func (g *Guard) Create(ctx context.Context, path string, work func(ctx context.Context, f *os.File) error) (err error) {
	published := false
	defer func() {
		if err != nil && published {
			err = &WrittenError{path, err}
		}
	}()
	t, v, err := g.Check(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := v.Err(); err != nil {
		return err
	}
	if t.Exists() {
		return fmt.Errorf("create %s: %w", quote(path), fs.ErrExist)
	}
	n, err := newNameless(t)
	if err != nil {
		return fmt.Errorf("create %s: %w", quote(path), err)
	}
	defer func() { err = errors.Join(err, n.discard()) }()
	setDirect(n.file)
	if err := work(ctx, n.file); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := g.judge(t, g.look(ctx, t)).Err(); err != nil {
		return err
	}
	if err := n.publish(); err != nil {
		return fmt.Errorf("create %s: %w", quote(path), err)
	}
	published = true
	return nil
}

// A nameless file waits for its name. temporary is the name that it has
// meanwhile on file systems without O_TMPFILE (open(2)).
type nameless struct {
	file      *os.File
	dir       int // O_PATH descriptor of the directory
	base      string
	temporary string
}

func newNameless(t *Target) (*nameless, error) {
	n := &nameless{dir: t.handle.Fd(), base: t.Base}
	fd, err := unix.Openat(n.dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		n.temporary = ".imgward-" + rand.Text()
		fd, err = unix.Openat(n.dir, n.temporary, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	}
	if err != nil {
		return nil, err
	}
	n.file = os.NewFile(uintptr(fd), filepath.Join(filepath.Dir(t.Path), t.Base))
	return n, nil
}

// publish gives the file its name, which must still be free, and makes that
// last. When it fails, the file does not bear the name.
func (n *nameless) publish() error {
	dir, err := unix.Openat(n.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := n.name(); err != nil {
		return errors.Join(err, unix.Close(dir))
	}
	if err := unix.Fsync(dir); err != nil {
		return errors.Join(err, unix.Unlinkat(n.dir, n.base, 0), unix.Close(dir))
	}
	return unix.Close(dir)
}

func (n *nameless) name() error {
	if n.temporary == "" {
		self := "/proc/self/fd/" + strconv.Itoa(int(n.file.Fd()))
		return unix.Linkat(unix.AT_FDCWD, self, n.dir, n.base, unix.AT_SYMLINK_FOLLOW)
	}
	err := unix.Renameat2(n.dir, n.temporary, n.dir, n.base, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system without RENAME_NOREPLACE: a link refuses an existing
		// name too, and the temporary one is removed with the rest.
		return unix.Linkat(n.dir, n.temporary, n.dir, n.base, 0)
	}
	if err == nil {
		n.temporary = ""
	}
	return err
}

// discard closes the file and removes a temporary name that is left.
func (n *nameless) discard() error {
	err := n.file.Close()
	if n.temporary != "" {
		err = errors.Join(err, unix.Unlinkat(n.dir, n.temporary, 0))
	}
	return err
}
