package imageops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"

	"imgward/imageops/engine"
)

// A tally counts what is started, by kind.
type tally struct {
	engine.Engine
	mu sync.Mutex
	n  map[engine.Kind]int
}

func (e *tally) Start(ctx context.Context, op *engine.Op) error {
	e.mu.Lock()
	e.n[op.Kind]++
	e.mu.Unlock()
	return e.Engine.Start(ctx, op)
}

// faultCase is a copy in which something is to go wrong: an existing target with
// old data, a source with holes and zeros, and everything switched on.
type faultCase struct {
	src *image
	dst *disk
	o   Options
}

const faultSize, faultMore = 3<<20 + 700, 5000

// faultSource and faultOld are made once: many copies begin with them.
var faultSource, faultOld = patchy(faultSize, 5), noise(faultSize+faultMore, 6)

func newFaultCase(t *testing.T, eng engine.Engine, holdBack, delta bool) *faultCase {
	return &faultCase{
		src: &image{bytes: faultSource.bytes, holes: faultSource.holes},
		dst: &disk{bytes: bytes.Clone(faultOld)},
		o: whole(t, Options{
			ChunkSize: 4 * testChunk, QueueDepth: 3, Sparse: SparseDetect, HoldBack: holdBack, Delta: delta, Verify: true, Engine: eng,
		}),
	}
}

// zeroed reports whether nothing of the target boots: its first and last MiB are zero.
func (c *faultCase) zeroed() bool {
	b := c.dst.bytes
	return bytes.Equal(b[:heldBytes], make([]byte, heldBytes)) && bytes.Equal(b[len(b)-heldBytes:], make([]byte, heldBytes))
}

// wrote reports whether data was written between the first and the last MiB.
func (c *faultCase) wrote() bool {
	for _, e := range c.dst.events {
		if e.overlaps(heldBytes, int64(len(c.dst.bytes))-heldBytes-4096) {
			return true
		}
	}
	return false
}

func TestFaultAtEveryRequest(t *testing.T) {
	for i := range 4 {
		holdBack, delta := i%2 == 1, i >= 2
		count := &tally{Engine: engine.Pool(1), n: map[engine.Kind]int{}}
		c := newFaultCase(t, count, holdBack, delta)
		rep, err := Copy(t.Context(), c.dst, c.src, c.o)
		if err != nil {
			t.Fatal(err)
		}
		count.Close()
		same(t, "target", c.dst.bytes[:len(c.src.bytes)], c.src.bytes)
		same(t, "tail", c.dst.bytes[len(c.src.bytes):], faultOld[len(c.src.bytes):])
		if rep.Zeroed == 0 || rep.Written == 0 {
			t.Fatalf("the copy has nothing to go wrong: %+v", rep)
		}
		for kind, n := range count.n {
			for at := 1; at <= n; at++ {
				workers := 1 + 3*(at%2)
				testFault(t, kind, at, "EIO", syscall.EIO, workers, holdBack, delta)
				if kind == engine.Read {
					testFault(t, kind, at, "short 100", io.ErrUnexpectedEOF, workers, holdBack, delta)
				}
				if kind == engine.Write {
					testFault(t, kind, at, "short 100", io.ErrShortWrite, workers, holdBack, delta)
				}
			}
		}
	}
}

// testFault lets one request fail. The copy fails with that error and nothing
// else, says so if the target may have changed, and leaves nothing that boots
// unless the failure came after all the rest was right.
func testFault(t *testing.T, kind engine.Kind, at int, what string, want error, workers int, holdBack, delta bool) {
	t.Helper()
	script := fmt.Sprintf("%v %d %s", kind, at, what)
	eng := &tally{Engine: engine.Faulty(engine.Pool(workers), script), n: map[engine.Kind]int{}}
	c := newFaultCase(t, eng, holdBack, delta)
	rep, err := Copy(t.Context(), c.dst, c.src, c.o)
	if err == nil && kind == engine.Zero && eng.n[kind] < at {
		return // out of order fewer zeros are joined, or more: there was no such request
	}
	if !errors.Is(err, want) {
		t.Errorf("%s, hold back %v: %v, want %v", script, holdBack, err, want)
		return
	}
	var op *OpError
	if kind != engine.Call && (!errors.As(err, &op) || op.Op != kind.String() || op.Name == "") {
		t.Errorf("%s, hold back %v: %#v", script, holdBack, err)
	}
	if rep.Digest != nil {
		t.Errorf("%s, hold back %v: a digest beside an error", script, holdBack)
	}
	if touches := kind == engine.Write || kind == engine.Zero; (c.dst.changed() || touches) && !rep.Touched {
		t.Errorf("%s, hold back %v: the target was touched, and the report says not", script, holdBack)
	}
	said := ranges(slices.Clone(rep.Ranges))
	for _, e := range c.dst.ranges() {
		said.add(e.Off, e.Len)
	}
	if !slices.Equal(said, rep.Ranges) {
		t.Errorf("%s, hold back %v: reported %s, written %s", script, holdBack, spell(rep.Ranges), spell(c.dst.ranges()))
	}
	if !c.dst.changed() && !rep.Touched {
		same(t, script, c.dst.bytes, faultOld)
	}
	if holdBack && c.wrote() && !c.gaveBack() && !c.zeroed() {
		t.Errorf("%s: the target may boot", script)
	}
	if err := eng.Close(); err != nil {
		t.Errorf("%s: %v", script, err)
	}
}

// gaveBack reports whether the copy had come to writing what was held back.
func (c *faultCase) gaveBack() bool {
	size := int64(len(c.dst.bytes))
	for _, e := range c.dst.events {
		if e.kind == engine.Write && (e.overlaps(0, heldBytes) || e.overlaps(size-heldBytes, size)) {
			return true
		}
	}
	return false
}

func TestFirstRequestOfAllLeavesTheTargetAlone(t *testing.T) {
	for _, holdBack := range []bool{false, true} {
		eng := engine.Faulty(engine.Pool(2), "read 1 EIO")
		c := newFaultCase(t, eng, holdBack, false)
		c.o.QueueDepth = 1
		rep, err := Copy(t.Context(), c.dst, c.src, c.o)
		if !errors.Is(err, syscall.EIO) || rep.Touched || c.dst.changed() {
			t.Errorf("hold back %v: %v, touched %v, changed %v", holdBack, err, rep.Touched, c.dst.changed())
		}
		eng.Close()
	}
}

func TestTheFirstErrorWins(t *testing.T) {
	eng := engine.Faulty(engine.Pool(1), "write 3 ENOSPC; write 4 EIO; write 5 EIO; write 6 EIO")
	defer eng.Close()
	dst := &disk{bytes: make([]byte, 20*testChunk)}
	src := &image{bytes: noise(20*testChunk, 1)}
	_, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 8, Engine: eng}))
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want %v", err, syscall.ENOSPC)
	}
}

// Cancelling at any event is a failure, with the cause, and a stop.
func TestCancelAtEveryEvent(t *testing.T) {
	why := errors.New("a domain wants the disk")
	total := 0
	for at := 0; at == 0 || at <= total; at++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := newFaultCase(t, nil, true, false)
		n := 0
		var mu sync.Mutex
		c.dst.after = func(event) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at {
				cancel(why)
			}
		}
		rep, err := Copy(ctx, c.dst, c.src, c.o)
		if at == 0 {
			if total = n; err != nil || total < 20 {
				t.Fatalf("%d events, %v", total, err)
			}
			cancel(nil)
			continue
		}
		if n < at {
			cancel(nil)
			continue // zeros were joined otherwise, and there were fewer events
		}
		if !errors.Is(err, why) || !rep.Touched || rep.Digest != nil {
			t.Errorf("canceled at event %d of %d: %v, touched %v", at, total, err, rep.Touched)
		}
		if c.wrote() && !c.gaveBack() && !c.zeroed() {
			t.Errorf("canceled at event %d: the target may boot", at)
		}
		if !slices.Equal(rep.Ranges, c.dst.ranges()) {
			t.Errorf("canceled at event %d: reported %s, written %s", at, spell(rep.Ranges), spell(c.dst.ranges()))
		}
		if more := n - at; more > c.o.QueueDepth*c.o.ChunkSize/4096 {
			t.Errorf("canceled at event %d: %d more came", at, more)
		}
		cancel(nil)
	}
}

func TestCancelWhileReading(t *testing.T) {
	for _, digest := range []DigestKind{BLAKE3, SHA256, DigestNone} {
		ctx, cancel := context.WithCancel(t.Context())
		src := &image{bytes: noise(20*testChunk, 1)}
		src.each = func(off int64) {
			if off == 10*testChunk {
				cancel()
			}
		}
		dst := &disk{bytes: make([]byte, 20*testChunk)}
		rep, err := Copy(ctx, dst, src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 4, Digest: digest}))
		if !errors.Is(err, context.Canceled) || rep.Written == 20*testChunk {
			t.Errorf("%v: %v, written %d", digest, err, rep.Written)
		}
		_, err = Digest(ctx, src, whole(t, Options{Digest: digest}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v: digest: %v", digest, err)
		}
	}
}

func TestCancelDuringTheLastSync(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dst := &disk{bytes: make([]byte, 1000)}
	dst.after = func(e event) {
		if e.kind == engine.Sync {
			cancel()
		}
	}
	if _, err := Copy(ctx, dst, &image{bytes: noise(1000, 1)}, whole(t, Options{})); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}
