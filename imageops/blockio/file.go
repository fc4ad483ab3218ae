package blockio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A File does I/O on a regular file or block device that somebody else opened
// and will close. All methods may be called concurrently, except where they say
// otherwise. Positioned I/O does not use the file offset; Extents does.
//
// The flag O_DIRECT belongs to the open file description: a File that takes it
// off for the unaligned tail of a regular file takes it off for every descriptor
// that was made from the same open by dup or fork.
type File struct {
	raw    syscall.RawConn
	name   string
	device bool
	lim    Limits
	size   atomic.Int64
	gone   [len(ladder)]atomic.Bool // rungs of the zeroing ladder that the kernel does not have here
	zeros  func() []byte
	aside  atomic.Bool // reads through the page cache leave nothing there

	mode   sync.RWMutex // a request holds it for reading; one for a part of a block holds it for writing
	direct bool
}

// zeroBytes is the size of a write where zeros have to be written.
const zeroBytes = 1 << 20

// NewFile wraps f, which must be a regular file or block device. It changes
// nothing about f, and neither owns nor closes it; f must stay open until the
// last call has returned.
func NewFile(f *os.File) (*File, error) {
	fail := func(err error) (*File, error) {
		return nil, &OpError{Op: "examine", Name: f.Name(), Off: -1, Err: err}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fail(err)
	}
	file := &File{raw: raw, name: f.Name()}
	err = file.control(func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		size := st.Size
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFBLK:
			file.device = true
			if size, err = deviceSize(fd); err != nil {
				return err
			}
		default:
			return errors.New("neither a regular file nor a block device")
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		file.direct = flags&unix.O_DIRECT != 0
		file.size.Store(size)
		file.lim = ask(fd, &st).limits()
		return nil
	})
	if err != nil {
		return fail(err)
	}
	file.zeros = sync.OnceValue(func() []byte {
		return alignedBytes(zeroBytes, max(file.lim.MemAlign, file.lim.OffAlign))
	})
	return file, nil
}

// Name is the name the file was opened by.
func (f *File) Name() string { return f.name }

// Size is the size in bytes when the File was made, or of the last Truncate or
// Reflink since. It does not follow a file that somebody else makes longer or shorter.
func (f *File) Size() int64 { return f.size.Load() }

// Limits are the alignment and granularity of the file.
func (f *File) Limits() Limits { return f.lim }

// Sector is how many bytes a sector of a device has (BLKSSZGET); of a regular file
// nobody knows, and it is 0.
func (f *File) Sector() int64 {
	if !f.device {
		return 0
	}
	return int64(f.lim.Logical)
}

// Direct reports whether O_DIRECT is on.
func (f *File) Direct() bool {
	f.mode.RLock()
	defer f.mode.RUnlock()
	return f.direct
}

// SetDirect turns O_DIRECT on or off (fcntl(2), F_SETFL). It waits for requests
// in flight. A file system that cannot do direct I/O answers EINVAL.
func (f *File) SetDirect(on bool) error {
	f.mode.Lock()
	defer f.mode.Unlock()
	if err := f.setDirect(on); err != nil {
		return f.fail("set direct I/O on", -1, err)
	}
	f.direct = on
	return nil
}

func (f *File) setDirect(on bool) error {
	return f.control(func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		flags &^= unix.O_DIRECT
		if on {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
		return err
	})
}

// LeaveCache has reads that go through the page cache leave nothing there that was
// not there before (preadv2(2), RWF_DONTCACHE; Linux 6.14, and not for every file).
// A page that is asked for in parts is read once for each.
func (f *File) LeaveCache() { f.aside.Store(true) }

// LeavesCache reports whether that is so: LeaveCache was called, and no request has
// shown yet that the kernel cannot do it here.
func (f *File) LeavesCache() bool { return f.aside.Load() }

// Sync returns when everything written is on stable storage (fsync(2)); on a
// device that includes its write cache.
func (f *File) Sync() error {
	err := f.control(func(fd int) error { return again(func() error { return unix.Fsync(fd) }) })
	return f.fail("sync", -1, err)
}

// Flush brings what the page cache alone has of a regular file to the file
// system (fsync(2)), so that Extents tells it. A file that cannot be written, on
// a file system that cannot, has nothing to bring.
func (f *File) Flush() error {
	if f.device {
		return nil
	}
	err := f.control(func(fd int) error { return again(func() error { return unix.Fsync(fd) }) })
	if err == unix.EROFS || unsupported(err) {
		return nil
	}
	return f.fail("flush", -1, err)
}

// Truncate sets the size of a regular file in bytes; what is added reads as
// zeros. On a device the error is errors.ErrUnsupported.
func (f *File) Truncate(size int64) error {
	if f.device {
		return f.fail("truncate", -1, errors.ErrUnsupported)
	}
	err := f.control(func(fd int) error { return again(func() error { return unix.Ftruncate(fd, size) }) })
	if err == nil {
		f.size.Store(size)
	}
	return f.fail("truncate", -1, err)
}

// Allocate has a regular file own the storage for n bytes at off (fallocate(2)), which
// read as zeros where nothing was written; the size stays. Where that cannot be done
// the error is errors.ErrUnsupported.
func (f *File) Allocate(off, n int64) error {
	err := f.control(func(fd int) error {
		return again(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
	})
	if f.device || unsupported(err) {
		err = errors.ErrUnsupported
	}
	return f.fail("allocate", off, err)
}

// Uncache drops the page cache behind n bytes at off (posix_fadvise(2),
// POSIX_FADV_DONTNEED), so that the next read comes from the storage. Pages that
// were not written back stay: Sync first.
func (f *File) Uncache(off, n int64) error {
	if n <= 0 {
		return nil // to the kernel no length is all of the file
	}
	page := int64(unix.Getpagesize()) // the kernel keeps pages of which only a part is named
	start := down(off, page)
	err := f.control(func(fd int) error { return unix.Fadvise(fd, start, up(off+n, page)-start, unix.FADV_DONTNEED) })
	return f.fail("uncache", off, err)
}

// control runs call with a descriptor that cannot be closed, and so cannot
// become another file's, before call returns. The error is os.ErrClosed if it is
// closed already.
func (f *File) control(call func(fd int) error) error {
	err := os.ErrClosed
	_ = f.raw.Control(func(fd uintptr) { err = call(int(fd)) }) // fails only on a closed file
	return err
}

// fail makes err an *OpError. io.EOF stays what io.ReaderAt says it is.
func (f *File) fail(op string, off int64, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &OpError{Op: op, Name: f.name, Off: off, Err: err}
}

// inside refuses a range that does not lie in the file.
func (f *File) inside(off, n int64) error {
	if size := f.Size(); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d are not within the size of %d: %w", n, off, size, unix.EINVAL)
	}
	return nil
}

// again repeats a call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
