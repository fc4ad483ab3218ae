package guard

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// byteLocker takes the locks by which other programs tell that an image is in use
// (fcntl(2), "Open file description locks"), so that they refuse to start on it:
// QEMU, qemu-img and libguestfs look at bytes 100 to 103 for what somebody does with
// an image and at 200 to 203 for what he wants nobody else to do
// (docs/system/qemu-block-drivers.rst.inc, "Disk image file locking");
// libvirt's virtlockd locks byte 0 for a domain. On a device they lie on the node,
// so another node of the same device does not show them.
//
// Whoever does not ask for such locks is not kept away by them, the disks of Xen
// domains among them. They are shared ones, as QEMU's are: only a program that has
// one of the bytes for itself alone makes us fail, and that is evidence.
type byteLocker struct{}

// lockedBytes are the first byte and the number of bytes of each lock.
var lockedBytes = [...][2]int64{{0, 1}, {100, 4}, {200, 4}}

func (byteLocker) Name() string { return "bytes" }

// Lock implements [Locker]. It fails with EAGAIN when somebody has one of the bytes
// for himself. A file system without such locks is no reason to refuse: nobody else
// has them there either.
func (byteLocker) Lock(_ context.Context, _ *Host, t *Target) (func(context.Context) error, error) {
	set := func(kind int16, start, length int64) error {
		return unix.FcntlFlock(t.held.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: length})
	}
	var failed error
	for _, b := range lockedBytes {
		if err := set(unix.F_RDLCK, b[0], b[1]); err != nil {
			failed = errors.Join(failed, fmt.Errorf("lock bytes from %d of %s: %w", b[0], quote(t.Real), err))
		}
	}
	if failed != nil {
		return nil, failed // what was taken goes with the descriptor
	}
	return func(context.Context) error { return set(unix.F_UNLCK, 0, 0) }, nil
}

// byteFinding is about one who has a byte for himself alone.
func byteFinding(t *Target) Finding {
	return Finding{
		Code: LockWrite, Relation: Same, Subject: "another program", Key: "bytes", Detail: "has one of the bytes locked by which QEMU and libvirt say that an image is in use",
		Source: "fcntl F_OFD_SETLK on " + quote(t.Real), Remedy: "find out who holds the lock (\"lslocks\")",
	}
}
