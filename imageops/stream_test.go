package imageops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"imgward/imageops/engine"
)

// trickle gives its bytes in pieces of any size, and then err.
type trickle struct {
	b   []byte
	r   *rand.Rand
	err error
}

func (t *trickle) Read(p []byte) (int, error) {
	if len(t.b) == 0 {
		return 0, t.err
	}
	n := copy(p[:min(len(p), t.r.IntN(90_000))], t.b)
	t.b = t.b[n:]
	if len(t.b) == 0 && t.r.IntN(2) == 0 {
		return n, t.err
	}
	return n, nil
}

func stream(b []byte, seed uint64, err error) *Stream {
	return NewStream(&trickle{b, rand.New(rand.NewPCG(seed, 5)), err}, "pipe")
}

// growing is a new file: it becomes as long as it is made, and takes the memory
// that was written to.
type growing struct {
	*disk
	size int64
}

func (g *growing) Truncate(size int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.size = size
	g.bytes = g.bytes[:min(size, int64(len(g.bytes)))]
	return nil
}

func (g *growing) Size() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.size
}

// fill takes memory up to end, or to the end of the file.
func (g *growing) fill(end int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes = append(g.bytes, make([]byte, max(0, min(end, g.size)-int64(len(g.bytes))))...)
}

func (g *growing) WriteAt(p []byte, off int64) (int, error) {
	g.fill(off + int64(len(p)))
	return g.disk.WriteAt(p, off)
}

func (g *growing) ReadAt(p []byte, off int64) (int, error) {
	g.fill(off + int64(len(p)))
	return g.disk.ReadAt(p, off)
}

func TestStreamEqualsTheReference(t *testing.T) {
	turn := 0
	for _, eng := range engines {
		for _, size := range []int{0, 1, 511, testChunk - 1, testChunk, testChunk + 1, 4 * testChunk, 9*testChunk + 100, 2<<20 + 12345} {
			for _, more := range []int{0, 700, 1<<20 + 8192} {
				for _, sparse := range []SparseMode{SparseKeep, SparseDetect} {
					turn++
					o := whole(t, Options{
						ChunkSize: testChunk, QueueDepth: 1 + turn%5, Sparse: sparse, HoldBack: turn%2 == 0, Verify: turn%3 > 0,
						Digest: []DigestKind{BLAKE3, SHA256, DigestNone}[turn%3], Engine: eng.make(),
					})
					name := fmt.Sprintf("%s/size=%d,more=%d,sparse=%d,holdback=%v,verify=%v,digest=%v", eng.name, size, more, sparse, o.HoldBack, o.Verify, o.Digest)
					src := patchy(size, uint64(turn))
					old := noise(size+more, uint64(turn)+1)
					dst := &disk{bytes: bytes.Clone(old), block: 512 << (turn % 5)}
					rep, err := Copy(t.Context(), dst, stream(src.bytes, uint64(turn), io.EOF), o)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					same(t, name, dst.bytes, append(bytes.Clone(src.bytes), old[size:]...))
					if rep.Read != int64(size) || rep.Written+rep.Zeroed != int64(size) || rep.Tail != int64(more) || !bytes.Equal(rep.Digest, digestOf(o.Digest, src.bytes)) {
						t.Errorf("%s: %+v", name, rep)
					}
					if o.Verify && rep.Verified != int64(size) {
						t.Errorf("%s: %d bytes verified", name, rep.Verified)
					}
					if o.Engine != nil {
						o.Engine.Close()
						o.Engine = nil
					}

					file := &growing{disk: &disk{}}
					o.HoldBack, o.Fresh = false, true
					rep, err = Copy(t.Context(), file, stream(src.bytes, uint64(turn), io.EOF), o)
					if err != nil || rep.Tail != 0 {
						t.Fatalf("%s, new file: %v, %+v", name, err, rep)
					}
					file.fill(file.size)
					same(t, name, file.bytes, src.bytes)

					if got, err := Digest(t.Context(), stream(src.bytes, 1, io.EOF), o); err != nil || !bytes.Equal(got.Digest, digestOf(o.Digest, src.bytes)) {
						t.Errorf("%s: digest %x, %v", name, got.Digest, err)
					}
				}
			}
		}
	}
}

// What the disk lost or changed is found, however short the stream was.
func TestStreamVerifyFindsWhatTheDiskChanged(t *testing.T) {
	for _, size := range []int{1, testChunk, testChunk + 1, 3 * testChunk, 7 * testChunk, 8 * testChunk, 8*testChunk + 1, 40*testChunk + 5} {
		for _, bad := range []int{0, size / 2, size - 1} {
			for _, holdBack := range []bool{false, true} {
				b := noise(size, 1)
				b[bad] = 1
				dst := &disk{bytes: make([]byte, size), rot: func(b []byte) { b[bad] = 0 }}
				_, err := Copy(t.Context(), dst, stream(b, 1, io.EOF), whole(t, Options{ChunkSize: testChunk, Verify: true, HoldBack: holdBack}))
				var m *MismatchError
				if !errors.As(err, &m) || int64(bad) < m.Off || int64(bad) >= m.Off+m.Len || m.Off+m.Len > int64(size) {
					t.Errorf("%d bytes, byte %d is bad: %v", size, bad, err)
				}
			}
		}
	}
}

// A stream that breaks off, wherever and however, is no stream that ended.
func TestStreamThatBreaksOff(t *testing.T) {
	b := noise(3<<20+100, 1)
	for _, at := range []int{0, 1, testChunk - 1, testChunk, testChunk + 1, 3 << 20, len(b) - 1, len(b)} {
		for _, why := range []error{io.ErrUnexpectedEOF, syscall.EIO, io.ErrNoProgress} {
			for depth := 1; depth < 4; depth++ {
				dst := &disk{bytes: noise(4<<20, 2)}
				end := why
				if why == io.ErrNoProgress {
					end = nil // it gives nothing for ever
				}
				rep, err := Copy(t.Context(), dst, stream(b[:at], 1, end), whole(t, Options{ChunkSize: testChunk, QueueDepth: depth, HoldBack: true, Verify: true}))
				if !errors.Is(err, why) || rep.Digest != nil {
					t.Errorf("%v after %d bytes: %v, digest %x", why, at, err, rep.Digest)
				}
				same(t, "head", dst.bytes[:heldBytes], make([]byte, heldBytes))
				if _, err := Digest(t.Context(), stream(b[:at], 1, end), whole(t, Options{ChunkSize: testChunk, QueueDepth: depth})); !errors.Is(err, why) {
					t.Errorf("digest of %d bytes and %v: %v", at, why, err)
				}
			}
		}
	}
}

func TestStreamTooLong(t *testing.T) {
	for _, size := range []int{0, 1, testChunk - 1, testChunk, 3<<20 + 100} {
		for _, more := range []int{1, testChunk, 5 * testChunk} {
			dst := &disk{bytes: make([]byte, size)}
			rep, err := Copy(t.Context(), dst, stream(noise(size+more, 1), 1, io.EOF), whole(t, Options{ChunkSize: testChunk, HoldBack: true}))
			if !errors.Is(err, ErrTooSmall) || rep.Digest != nil {
				t.Errorf("%d bytes for %d: %v", size+more, size, err)
			}
			if held := min(size, heldBytes); size > 0 {
				same(t, "head", dst.bytes[:held], make([]byte, held))
			}
		}
	}
}

// A request that fails, or is stopped, keeps nobody waiting for its turn.
func TestStreamFaultAtEveryRequest(t *testing.T) {
	b := noise(10*testChunk, 1)
	for _, kind := range []string{"read", "write", "call", "sync", "zero"} {
		for at := 1; at <= 12; at++ {
			count := &tally{Engine: engine.Faulty(engine.Pool(4), fmt.Sprintf("%s %d EIO", kind, at)), n: map[engine.Kind]int{}}
			dst := &disk{bytes: noise(11*testChunk, 2)}
			_, err := Copy(t.Context(), dst, stream(b, 1, io.EOF), whole(t, Options{ChunkSize: testChunk, QueueDepth: 4, Verify: true, HoldBack: true, Engine: count}))
			met := false
			for k, n := range count.n {
				met = met || k.String() == kind && n >= at
			}
			if errors.Is(err, syscall.EIO) != met {
				t.Errorf("%s %d: %v, and the request came: %v", kind, at, err, met)
			}
			if err := count.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A reader that is stuck is no reason to wait once the copy is over: those who
// wait for their turn are let go.
func TestStreamIsStopped(t *testing.T) {
	why := errors.New("the disk is wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	src := NewStream(r, "pipe")
	context.AfterFunc(ctx, func() { w.CloseWithError(why) })
	go func() {
		_, _ = w.Write(noise(3*testChunk, 1)) // the pipe's end is looked at below
		cancel(why)
	}()
	_, err := Copy(ctx, &disk{bytes: make([]byte, 1<<20)}, src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 4}))
	if !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
	if _, err := src.ReadAt(make([]byte, 1), 1<<19); err == nil {
		t.Error("a stream that was stopped can be read")
	}
}

func TestStreamIsReadOnce(t *testing.T) {
	s := stream(noise(100, 1), 1, io.EOF)
	p := make([]byte, 60)
	if n, err := s.ReadAt(p, 0); n != 60 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := s.ReadAt(p, 0); !errors.Is(err, errAgain) {
		t.Errorf("again: %v", err)
	}
	if n, err := s.ReadAt(p, 60); n != 40 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := s.ReadAt(p, 120); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
}
