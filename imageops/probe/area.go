package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// blockSize is the unit of all reads. Offsets are multiples of it, and so are
// lengths, also at the end of the image, so that a reader over an O_DIRECT
// descriptor is never asked for an unaligned range.
const blockSize = 64 << 10

// An area is a range of the image that is looked at on its own: all of it, or
// one partition. Every block is read once, so that two looks at the same bytes
// agree even while somebody writes to them.
type area struct {
	r           io.ReaderAt
	end         int64 // of the image, in bytes
	start, size int64 // of this area, in bytes; inside the image
	blocks      map[int64]block
	errs        []error // unreadable blocks, each once
	asked       []Range // what was asked for, of the image
}

type block struct {
	data []byte
	err  error
}

func newArea(r io.ReaderAt, end, start, size int64) *area {
	return &area{r: r, end: end, start: start, size: size, blocks: make(map[int64]block)}
}

// block returns the block that begins at off, cut at the end of the image.
func (a *area) block(off int64) ([]byte, error) {
	if b, ok := a.blocks[off]; ok {
		return b.data, b.err
	}
	want := min(blockSize, a.end-off)
	buf := make([]byte, blockSize)
	n, err := a.r.ReadAt(buf, off)
	if int64(n) >= want {
		err = nil
	} else if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b := block{data: buf[:want]}
	if err != nil {
		b = block{err: &PartError{Part: fmt.Sprintf("bytes %d to %d", off, off+want-1), Err: err, Unread: true}}
		a.errs = append(a.errs, b.err)
	}
	a.blocks[off] = b
	return b.data, b.err
}

// ReadAt reads from the area and takes down what was asked for; it implements
// io.ReaderAt.
func (a *area) ReadAt(p []byte, off int64) (int, error) {
	n, err := a.read(p, off)
	if n > 0 {
		a.asked = append(a.asked, Range{a.start + off, int64(n)})
	}
	return n, err
}

func (a *area) read(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	done := 0
	for done < len(p) {
		if off >= a.size {
			return done, io.EOF
		}
		at := a.start + off
		first := at - at%blockSize
		b, err := a.block(first)
		if err != nil {
			return done, err
		}
		n := copy(p[done:min(int64(len(p)), int64(done)+a.size-off)], b[at-first:])
		done, off = done+n, off+int64(n)
	}
	return done, nil
}

// at returns n bytes at off, or nil if they are not all inside the area or
// cannot be read. The latter is also kept in errs.
func (a *area) at(off int64, n int) []byte {
	if off < 0 || off > a.size-int64(n) {
		return nil
	}
	p := make([]byte, n)
	if _, err := a.ReadAt(p, off); err != nil {
		return nil
	}
	return p
}

// has reports whether magic is at off.
func (a *area) has(off int64, magic string) bool {
	return string(a.at(off, len(magic))) == magic
}

// zero reports whether n bytes at off are readable and all zero; what lies
// outside the area does not count.
func (a *area) zero(off, n int64) bool {
	off, end := max(off, 0), min(off+n, a.size)
	b := make([]byte, blockSize)
	for off < end {
		n, err := a.read(b[:min(blockSize, end-off)], off)
		if err != nil || bytes.Count(b[:n], []byte{0}) != n {
			return false
		}
		off += int64(n)
	}
	return true
}
