package blockio

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// bounceBytes bounds the memory of a request that has to be moved to aligned memory.
const bounceBytes = 1 << 20

// ReadAt is io.ReaderAt. Any offset, length and memory will do; where they are
// aligned to Limits the bytes are read straight into p.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	f.mode.RLock()
	defer f.mode.RUnlock()
	body := int64(len(p))
	if f.direct {
		head, b, _ := cut(off, body, int64(f.lim.OffAlign))
		if body = b; head > 0 || !memAligned(p, f.lim.MemAlign) {
			body = 0
		}
	}
	n, err := f.pread(p[:body], off)
	if err == nil && n < len(p) {
		var m int
		m, err = f.bounceRead(p[n:], off+int64(n))
		n += m
	}
	return n, f.fail("read", off+int64(n), err)
}

// bounceRead reads whole blocks into aligned memory and copies what was asked for.
func (f *File) bounceRead(p []byte, off int64) (n int, err error) {
	align := int64(f.lim.OffAlign)
	buf := alignedBytes(int(min(up(int64(len(p)), align)+align, max(bounceBytes, align))), max(f.lim.MemAlign, f.lim.OffAlign))
	for n < len(p) {
		at := off + int64(n)
		start := down(at, align)
		skip := int(at - start)
		want := up(int64(skip+len(p)-n), align)
		m, err := f.pread(buf[:min(want, int64(len(buf)))], start)
		if m > skip {
			n += copy(p[n:], buf[skip:m])
		}
		if err != nil && n < len(p) {
			return n, err
		}
	}
	return n, nil
}

// pread reads all of p, or says why not; io.EOF at the end of the file.
func (f *File) pread(p []byte, off int64) (n int, err error) {
	err = f.control(func(fd int) error {
		for n < len(p) {
			m, err := f.preadOnce(fd, p[n:], off+int64(n))
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				return err
			case m == 0:
				return io.EOF
			}
			n += m
			// A direct read stops inside a block only where the file ends, and
			// to go on from there would be an unaligned request.
			if f.direct && n < len(p) && n%f.lim.OffAlign != 0 {
				return io.EOF
			}
		}
		return nil
	})
	return n, err
}

// preadOnce is pread(2), or preadv2(2) where the page cache is to be left as it is.
func (f *File) preadOnce(fd int, p []byte, off int64) (int, error) {
	if !f.direct && f.aside.Load() {
		n, err := unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_DONTCACHE)
		if err != unix.EOPNOTSUPP {
			return n, err
		}
		f.aside.Store(false)
	}
	return unix.Pread(fd, p, off)
}

// WriteAt is io.WriterAt. Any offset, length and memory will do. Under O_DIRECT
// the aligned part of the range is written directly. The bytes that stick out of
// it are written while no other request is in flight: to a regular file through
// the page cache, to a device with the rest of their block, which is read first.
//
// A write past the end of a regular file makes it longer, as pwrite(2) does.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	head, body, tail := int64(0), int64(len(p)), int64(0)
	if f.Direct() {
		head, body, tail = cut(off, body, int64(f.lim.OffAlign))
	}
	n := 0
	for _, part := range [...]struct {
		n     int64
		write func([]byte, int64) (int, error)
	}{{head, f.writePartial}, {body, f.writeStraight}, {tail, f.writePartial}} {
		if part.n == 0 {
			continue
		}
		m, err := part.write(p[n:n+int(part.n)], off+int64(n))
		if n += m; err != nil {
			return n, f.fail("write", off+int64(n), err)
		}
	}
	return n, nil
}

// writeStraight writes blocks; memory that the kernel would not take is moved first.
func (f *File) writeStraight(p []byte, off int64) (n int, err error) {
	f.mode.RLock()
	defer f.mode.RUnlock()
	if !f.direct || memAligned(p, f.lim.MemAlign) {
		return f.pwrite(p, off)
	}
	buf := alignedBytes(min(len(p), max(bounceBytes, f.lim.OffAlign)), max(f.lim.MemAlign, f.lim.OffAlign))
	for n < len(p) && err == nil {
		var m int
		m, err = f.pwrite(buf[:copy(buf, p[n:])], off+int64(n))
		n += m
	}
	return n, err
}

// writePartial writes a part of a block, alone.
func (f *File) writePartial(p []byte, off int64) (int, error) {
	f.mode.Lock()
	defer f.mode.Unlock()
	switch {
	case !f.direct:
		return f.pwrite(p, off)
	case f.device:
		return f.patch(p, off)
	}
	return f.writeCached(p, off)
}

// writeCached writes through the page cache with O_DIRECT off for the moment.
// Direct requests that come later find the cache written back by the kernel
// (open(2), O_DIRECT).
func (f *File) writeCached(p []byte, off int64) (n int, err error) {
	if err := f.setDirect(false); err != nil {
		return 0, err
	}
	defer func() {
		if derr := f.setDirect(true); derr != nil {
			err = errors.Join(err, derr)
		}
	}()
	return f.pwrite(p, off)
}

// patch reads the block of a device around p and writes it with p in it. The page
// cache of a device is not asked: what a domain wrote has passed it by.
func (f *File) patch(p []byte, off int64) (int, error) {
	align := int64(f.lim.OffAlign)
	start := down(off, align)
	buf := alignedBytes(int(up(off+int64(len(p)), align)-start), max(f.lim.MemAlign, f.lim.OffAlign))
	if _, err := f.pread(buf, start); err == io.EOF {
		return 0, unix.ENOSPC // behind the end, where a write would say so
	} else if err != nil {
		return 0, err
	}
	copy(buf[off-start:], p)
	if _, err := f.pwrite(buf, start); err != nil {
		return 0, err
	}
	return len(p), nil
}

// pwrite writes all of p, or says why not.
func (f *File) pwrite(p []byte, off int64) (n int, err error) {
	err = f.control(func(fd int) error {
		for n < len(p) {
			m, err := unix.Pwrite(fd, p[n:], off+int64(n))
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				return err
			case m == 0:
				return io.ErrShortWrite
			}
			n += m
		}
		return nil
	})
	return n, err
}
