package imageops

import (
	"context"
	"errors"
	"io"
	"iter"

	"imgward/imageops/blockio"
)

// A Source is bytes to read; ReadAt is called concurrently. Size is in bytes and
// must not change: a source that ends early is an error.
//
// A Source whose Size is negative is a stream. Its ReadAt is called once for each
// range, in no certain order, with ranges that follow each other from byte 0; it
// waits for the bytes before its range. The stream ends where it says io.EOF.
//
// A Source or Dest with a method Name() string is called by that name in errors.
type Source interface {
	io.ReaderAt
	Size() int64
}

// An Extent is a range of bytes, and whether it is known to be zero.
type Extent = blockio.Extent

// An Extenter is a Source that knows its holes. Extents yields n bytes at off in
// order; what it leaves out counts as data. errors.ErrUnsupported as the first
// error means that it cannot tell, after all.
type Extenter interface {
	Extents(ctx context.Context, off, n int64) iter.Seq2[Extent, error]
}

// A Flusher is a Source that may have bytes in a cache which it does not know of
// when it is asked for its extents. Flush brings them to where it does.
type Flusher interface {
	Flush() error
}

// A Stopper is a Source whose ReadAt can wait for long. After Stop, which may be
// called by any goroutine and more than once, what waits returns why, soon.
type Stopper interface {
	Stop(why error)
}

// A Grower is a Dest that can be made longer, with zeros, and shorter, as a new
// file for a stream is. Size follows. It is called while nothing is in flight
// behind the new end.
type Grower interface {
	Truncate(size int64) error
}

// A Dest is the target of a copy. Its methods are called concurrently, never two
// for the same byte. Size is in bytes and does not change by itself; Sync
// returns when all that was written is on stable storage.
//
// A Dest that is an io.ReaderAt can be verified and held back.
type Dest interface {
	io.WriterAt
	Size() int64
	Limits() blockio.Limits
	Sync() error
}

// A Zeroer is a Dest that makes a range read as zeros without being sent any.
// errors.ErrUnsupported makes the copy write zeros instead.
type Zeroer interface {
	Zero(off, n int64, how blockio.ZeroMode) error
}

// An Allocator is a Dest that can be given the storage for a range before it is
// written, without a change to its bytes. errors.ErrUnsupported means that it cannot.
type Allocator interface {
	Allocate(off, n int64) error
}

// An Uncacher is a Dest that can forget what it has cached of a range, so that
// it is read back from the storage.
type Uncacher interface {
	Uncache(off, n int64) error
}

// endpoint makes a Source or Dest what an engine works on.
type endpoint struct {
	name  string
	r     io.ReaderAt
	dst   Dest
	how   blockio.ZeroMode
	zeros []byte // what is written where dst is no Zeroer
}

func (e *endpoint) ReadAt(p []byte, off int64) (int, error) { return e.r.ReadAt(p, off) }

func (e *endpoint) WriteAt(p []byte, off int64) (int, error) { return e.dst.WriteAt(p, off) }

func (e *endpoint) Sync() error { return e.dst.Sync() }

func (e *endpoint) Zero(off, n int64) error {
	if z, ok := e.dst.(Zeroer); ok {
		if err := z.Zero(off, n, e.how); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	for n > 0 {
		want := min(n, int64(len(e.zeros)))
		m, err := e.dst.WriteAt(e.zeros[:want], off)
		if err == nil && int64(m) != want {
			err = io.ErrShortWrite
		}
		if err != nil {
			return &OpError{Op: "write zeros to", Name: e.name, Off: off + int64(m), Err: err}
		}
		off, n = off+want, n-want
	}
	return nil
}
