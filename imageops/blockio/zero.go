package blockio

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ZeroMode says what may become of the storage behind a zeroed range.
type ZeroMode uint8

const (
	ZeroKeep  ZeroMode = iota // it stays allocated where the kernel can do that
	ZeroPunch                 // a regular file may get a hole, and a device may hand storage back
)

// A rung is one way to make a range zero without sending the zeros.
type rung struct {
	name string
	fits func(device bool, how ZeroMode) bool
	zero func(fd int, off, n int64) error
}

// ladder is tried from the top: fallocate(2) with FALLOC_FL_PUNCH_HOLE and
// FALLOC_FL_ZERO_RANGE, then BLKZEROOUT (linux/fs.h; the block layer writes
// zeros where the device has no command for it). A hole in a device (Linux 4.9) is
// made only by a command that leaves zeros. Behind the last rung zeros are written. A
// discard is no rung: nothing says that discarded blocks read as zeros.
var ladder = [...]rung{
	{"punch hole", func(_ bool, how ZeroMode) bool { return how == ZeroPunch }, punchHole},
	{"zero range", func(device bool, _ ZeroMode) bool { return !device }, zeroRange},
	{"zero out", func(device bool, _ ZeroMode) bool { return device }, zeroOut},
}

// Zero makes n bytes at off read as zeros; the range must lie within Size. It
// uses the first rung of the ladder that the kernel has for this file, and
// writes zeros where it has none. After an error any part of the range may be
// zero.
func (f *File) Zero(off, n int64, how ZeroMode) error {
	if err := f.inside(off, n); err != nil {
		return f.fail("zero", off, err)
	}
	head, body, tail := cut(off, n, int64(f.lim.Logical))
	if err := f.writeZeros(off, head); err != nil {
		return err
	}
	if err := f.zeroBlocks(off+head, body, how); err != nil {
		return err
	}
	return f.writeZeros(off+head+body, tail)
}

// zeroBlocks zeros whole logical blocks.
func (f *File) zeroBlocks(off, n int64, how ZeroMode) error {
	if n == 0 {
		return nil
	}
	for i, r := range ladder {
		if !r.fits(f.device, how) || f.gone[i].Load() {
			continue
		}
		err := f.climb(r, off, n)
		if err == nil || !unsupported(err) {
			return f.fail("zero", off, err)
		}
		f.gone[i].Store(true)
	}
	return f.writeZeros(off, n)
}

// climb tries one rung. Like a direct write it must not meet a part of a block
// that is being put into its block.
func (f *File) climb(r rung, off, n int64) error {
	f.mode.RLock()
	defer f.mode.RUnlock()
	return f.control(func(fd int) error { return again(func() error { return r.zero(fd, off, n) }) })
}

func (f *File) writeZeros(off, n int64) error {
	for n > 0 {
		m, err := f.WriteAt(f.zeros()[:min(n, zeroBytes)], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

func punchHole(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func zeroRange(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func zeroOut(fd int, off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	return ioctl(fd, unix.BLKZEROOUT, unsafe.Pointer(&span))
}

// deviceSize is the size of a block device in bytes (BLKGETSIZE64, a u64).
func deviceSize(fd int) (int64, error) {
	var n uint64
	err := ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&n))
	return int64(n), err
}

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// unsupported tells "this file cannot do that" from "that failed". EINVAL is
// the former: the arguments were checked before.
func unsupported(err error) bool {
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}
