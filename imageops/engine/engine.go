package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Kind says what an op does.
type Kind uint8

const (
	Read  Kind = iota // fill Buf from End at Off
	Write             // write Buf to End at Off
	Zero              // make Len bytes of End at Off read as zeros
	Sync              // make everything written to End durable
	Call              // call Do
)

// kinds are the names of the kinds, as scripts of Faulty spell them.
var kinds = [...]string{Read: "read", Write: "write", Zero: "zero", Sync: "sync", Call: "call"}

func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// An Endpoint is what ops work on. Its methods are called concurrently.
type Endpoint interface {
	io.ReaderAt
	io.WriterAt
	Zero(off, n int64) error
	Sync() error
}

// An Op is one request. From Start until Wait returns it, it belongs to the engine.
type Op struct {
	Kind Kind
	End  Endpoint     // all kinds but Call
	Off  int64        // bytes; Read, Write, Zero
	Buf  []byte       // Read, Write
	Len  int64        // bytes; Zero
	Ends bool         // Read: fewer bytes are no error where End says io.EOF
	Do   func() error // Call

	N   int   // out: bytes read or written, also beside an error
	Err error // out: nil only if all of it was done
	Tag any   // the caller's own

	fault *fault
}

// errNotDone is the error of an op that no worker has finished.
var errNotDone = errors.New("request not done")

// ErrIdle is the answer of Wait when nothing is in flight.
var ErrIdle = errors.New("no request in flight")

// ErrBusy is the answer of Close while requests are in flight.
var ErrBusy = errors.New("requests still in flight")

// errClosed is the answer of Start after Close.
var errClosed = errors.New("engine is closed")

// An Engine carries out ops. Start and Wait may be called by different goroutines.
type Engine interface {
	// Start hands op over. It blocks while the queue is full, but never on a
	// missing Wait. If it returns an error (the cause of ctx; the engine is
	// closed) the op was not started and will not come back.
	Start(ctx context.Context, op *Op) error

	// Wait blocks until an op has ended and returns it. Every started op comes
	// back exactly once, in any order, also after the context of its Start has
	// ended. The error is ErrIdle if nothing is in flight.
	Wait() (*Op, error)

	// Close ends the workers. With ops in flight it does nothing but return ErrBusy.
	Close() error

	// String names the engine for reports.
	String() string
}

// perform carries the op out, as its fault wants it if it has one.
func (o *Op) perform() {
	if o.fault == nil {
		o.N, o.Err = o.do(o.Buf)
		return
	}
	o.N, o.Err = o.fault.do(o)
}

// do carries the op out with buf, which may be shorter than Buf: that is then a
// short read or write.
func (o *Op) do(buf []byte) (n int, err error) {
	short := io.ErrUnexpectedEOF
	switch o.Kind {
	case Read:
		n, err = o.End.ReadAt(buf, o.Off)
		if err == io.EOF {
			if o.Ends {
				return n, nil
			}
			err = nil // allowed beside a full buffer; any other is short
		}
	case Write:
		short = io.ErrShortWrite
		n, err = o.End.WriteAt(buf, o.Off)
	case Zero:
		return 0, o.End.Zero(o.Off, o.Len)
	case Sync:
		return 0, o.End.Sync()
	case Call:
		return 0, o.Do()
	default:
		return 0, fmt.Errorf("%v: %w", o.Kind, errors.ErrUnsupported)
	}
	if err == nil && n != len(o.Buf) {
		err = short
	}
	return n, err
}
