package imageops

import (
	"errors"
	"fmt"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// An OpError says what failed, on which endpoint, and at which byte. The whole
// data path has this one type; blockio's endpoints return it too.
type OpError = blockio.OpError

// ErrTooSmall is the reason of a copy whose source does not fit into the target.
var ErrTooSmall = errors.New("target is smaller than the source")

// errNoSize is the reason why a stream is not compared, and a copy of it not amended.
var errNoSize = errors.New("size is not known")

// A MismatchError says that two things that must be equal are not. The first
// difference lies within the Len bytes at Off.
type MismatchError struct {
	Name  string // what was compared
	Other string // what it should have been equal to
	Off   int64
	Len   int64
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%q differs from %q within the %d bytes at byte %d", e.Name, e.Other, e.Len, e.Off)
}

// A DigestError says that a source does not have the digest that it should.
type DigestError struct {
	Name string
	Want Sum
	Got  Sum
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%q has digest %v, not %v", e.Name, e.Got, e.Want)
}

// named is err with what failed and where, unless it says so itself.
func named(err error, op, name string, off int64) error {
	var known *OpError
	if errors.As(err, &known) {
		return err
	}
	return &OpError{Op: op, Name: name, Off: off, Err: err}
}

// opError is the error of an op that came back with one. An endpoint that says
// itself what and where is believed, and so is a call.
func opError(op *engine.Op) error {
	end, ok := op.End.(*endpoint)
	if !ok {
		return op.Err
	}
	off := op.Off + int64(op.N)
	if op.Kind == engine.Sync {
		off = -1
	}
	return named(op.Err, op.Kind.String(), end.name, off)
}

// nameOf is what x calls itself.
func nameOf(x any, otherwise string) string {
	if n, ok := x.(interface{ Name() string }); ok {
		return n.Name()
	}
	return otherwise
}
