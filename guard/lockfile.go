package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes a lock in the way of Xen's hotplug scripts
// (tools/hotplug/Linux/locking.sh): flock(2) on a file that is made for it, which is
// the lock only while the name leads to it. It tries until ctx ends. Unlocking
// removes the file.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && leadsTo(name, f) {
			// That the file could not be removed hinders nobody: the lock ends with the
			// descriptor.
			return func() { _, _ = os.Remove(name), f.Close() }, nil
		}
		_ = f.Close() // nothing was written
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
			continue // removed by whoever had the lock before us
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, &fs.PathError{Op: "lock", Path: name, Err: context.Cause(ctx)}
		}
	}
}

// leadsTo reports whether name leads to the file that f is open on.
func leadsTo(name string, f *os.File) bool {
	there, err1 := os.Stat(name)
	open, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(there, open)
}
