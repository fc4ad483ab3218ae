package imageops

import (
	"errors"
	"io"
	"sync"
)

// A Stream makes an io.Reader a Source whose size is not known: a pipe, or what a
// decompressor gives. It is read once.
type Stream struct {
	name string
	r    io.Reader

	mu      sync.Mutex // guards what follows
	turn    *sync.Cond // next, reading or err has changed
	next    int64      // offset of the byte that comes next
	reading bool       // somebody is in r
	err     error      // why there are no more
}

// NewStream makes a Stream of r, to be called name in errors.
func NewStream(r io.Reader, name string) *Stream {
	s := &Stream{name: name, r: r}
	s.turn = sync.NewCond(&s.mu)
	return s
}

// Name is what the stream is called.
func (s *Stream) Name() string { return s.name }

// Size is negative: it is not known.
func (s *Stream) Size() int64 { return -1 }

// errAgain is the answer to who reads a range for the second time.
var errAgain = errors.New("a stream is read once")

// ReadAt waits until all bytes before off were read, and reads the next len(p).
// Fewer come with io.EOF where the stream ends, or with why it could not be read
// on. A range that was read already is an error.
func (s *Stream) ReadAt(p []byte, off int64) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (s.next < off || s.reading) && s.err == nil {
		s.turn.Wait()
	}
	switch {
	case s.err != nil:
		return 0, s.err
	case s.next != off:
		return 0, errAgain
	}
	s.reading = true
	s.mu.Unlock()
	n, err = readFull(s.r, p)
	s.mu.Lock()
	s.reading = false
	s.next += int64(n)
	if s.err == nil {
		s.err = err
	}
	s.turn.Broadcast()
	if n == len(p) {
		return n, nil
	}
	return n, s.err
}

// Stop ends the stream with why, for those who wait for their turn and for all
// that come later. It does not interrupt a read of the reader itself.
func (s *Stream) Stop(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = why
	}
	s.turn.Broadcast()
}

// readFull fills p. Other than io.ReadFull it leaves the reader's own error alone:
// to a decompressor io.ErrUnexpectedEOF is another thing than the end.
func readFull(r io.Reader, p []byte) (n int, err error) {
	const patience = 100 // reads of nothing, as in package bufio
	for empty := 0; n < len(p) && err == nil; {
		var m int
		m, err = r.Read(p[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty == patience && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}
