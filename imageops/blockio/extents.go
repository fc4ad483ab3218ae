package blockio

import (
	"context"
	"io"
	"iter"

	"golang.org/x/sys/unix"
)

// An Extent is a range of bytes. Zero means that it is known to read as zeros;
// otherwise it may hold anything.
type Extent struct {
	Off, Len int64
	Zero     bool
}

// End is the offset of the first byte behind the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// Extents yields what n bytes at off consist of, in order and without gaps, as
// the file system tells it (lseek(2), SEEK_DATA and SEEK_HOLE): a hole is Zero.
// What cannot tell (a device, some network file systems) is one extent of data.
// An error ends the sequence. The file offset moves, so only one sequence of an
// open file may be walked at a time.
func (f *File) Extents(ctx context.Context, off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if err := f.inside(off, n); err != nil {
			yield(Extent{}, f.fail("map", off, err))
			return
		}
		for end := off + n; off < end; {
			if ctx.Err() != nil {
				yield(Extent{}, f.fail("map", off, context.Cause(ctx)))
				return
			}
			e, err := f.extent(off, end)
			if err != nil {
				yield(Extent{}, f.fail("map", off, err))
				return
			}
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// extent is the one that begins at off, cut at end.
func (f *File) extent(off, end int64) (e Extent, err error) {
	err = f.control(func(fd int) error {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // no data from here to the end of the file, wherever that is by now
			e = Extent{Off: off, Len: end - off, Zero: true}
			return reaches(fd, end)
		case unsupported(err):
			e = Extent{Off: off, Len: end - off}
			return nil
		case err != nil:
			return err
		case data > off:
			e = Extent{Off: off, Len: min(data, end) - off, Zero: true}
			return nil
		}
		hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if hole <= off { // it moved while we looked: read it
			hole = end
		}
		e = Extent{Off: off, Len: min(hole, end) - off}
		return nil
	})
	return e, err
}

// reaches is an error if the file ends before end.
func reaches(fd int, end int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size < end {
		return io.ErrUnexpectedEOF
	}
	return nil
}
