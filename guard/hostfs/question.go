package hostfs

import (
	"context"
	"syscall"
)

// A Question is one that no file of the host answers. Asking never opens for
// writing, and never opens anything that is not of the type the question is for.
type Question string

// The questions, with what NAME is and what the answer looks like. A refusal is
// an errno.
const (
	// LoopStatus, NAME a loop device: what it is attached to, as LOOP_GET_STATUS64
	// (loop(4)) tells, "dev=254:0 ino=14847 rdev=0:0 offset=0 sizelimit=0 ro=0
	// file="/srv/web1.img"". dev and ino are the backing file's, rdev that of a
	// backing device; offset and sizelimit are bytes; file is Go-quoted, what the
	// one who attached it wrote there, at most 63 bytes. ENXIO: not attached.
	LoopStatus Question = "loop-status"

	// DMStatus, NAME a device number such as "253:0": DM_DEV_STATUS
	// (linux/dm-ioctl.h), "open=1 suspended=0 uuid="LVM-..." name="vg0-db1"".
	// open counts every opener, kernel or not. ENXIO: no such mapped device.
	DMStatus Question = "dm-status"

	// DMTable, NAME a device number: the live table, a line for each target as
	// dmsetup(8) table prints it for one device, keys replaced by zeros:
	// "0 65536 linear 254:32 2048\n".
	DMTable Question = "dm-table"

	// Lease, NAME a regular file: "write" if nobody else has it open, "read" if
	// nobody has it open for writing (F_SETLEASE in fcntl(2)). EAGAIN: somebody
	// has. EINVAL: the file system knows no leases. The lease is given back.
	Lease Question = "lease"

	// Excl, NAME a block device: "free" if an exclusive open (O_EXCL, open(2))
	// succeeds. EBUSY: mounted, a member of something, or held exclusively. A
	// plain opener is not seen.
	Excl Question = "excl"

	// ReadOnly, NAME a block device: "1" if the kernel lets nobody write to it
	// (BLKROGET), else "0".
	ReadOnly Question = "ro"

	// Size, NAME a block device: its length in bytes, decimal (BLKGETSIZE64).
	Size Question = "size"

	// SameOpen, NAME two descriptors, "2311/3 2312/3", each of a process or thread:
	// "same" if they are of one open file (kcmp(2), KCMP_FILE), as those that a
	// process has from its parent are, else "other". EBADF, ESRCH: one of them is not
	// there.
	SameOpen Question = "same-open"

	// Identity, NAME a regular file: what tells it from every other file that
	// ever was, "fsuuid=0d8a...-... ino=14847 btime=1700000000.123456789". A
	// kernel or file system that does not know one leaves its field empty. The
	// file is not opened for reading; the directory that it is in is.
	Identity Question = "identity"
)

// asker gives the function that asks the live host, or nil for no question.
func (q Question) asker() func(name string) (string, error) {
	switch q {
	case LoopStatus:
		return askLoop
	case DMStatus:
		return askDMStatus
	case DMTable:
		return askDMTable
	case Lease:
		return askLease
	case Excl:
		return askExcl
	case ReadOnly:
		return askReadOnly
	case Size:
		return askSize
	case SameOpen:
		return askSameOpen
	case Identity:
		return askIdentity
	}
	return nil
}

// known says that q is one of the questions.
func (q Question) known() bool { return q.asker() != nil }

// Ask puts a question to the host. Name is a path, or the name of a [Handle]
// that stays open until the answer is there, or a device number. An unknown
// question is EINVAL.
//
// When ctx ends first, Ask returns its cause. The system call cannot be called
// off: it ends in the background, and what it took is given back then.
func (r *Root) Ask(ctx context.Context, q Question, name string) (string, error) {
	op := "ask " + string(q)
	r.sees(op, name)
	if ctx.Err() != nil {
		return "", wrap(op, name, context.Cause(ctx))
	}
	ask := q.asker()
	if ask == nil {
		return "", wrap(op, name, syscall.EINVAL)
	}
	if r.rec != nil {
		r.rec.mu.RLock()
		defer r.rec.mu.RUnlock()
		text, err := r.rec.ask(q, name)
		r.tape.take(key{kindAsk, q, name}, entry{text: text}, err)
		return text, wrap(op, name, err)
	}
	text, err := within(ctx, func() (string, error) { return ask(name) })
	r.tape.take(key{kindAsk, q, name}, entry{text: text}, err)
	return text, wrap(op, name, err)
}

// within calls f, but waits for it no longer than ctx lasts.
func within(ctx context.Context, f func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := f()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
