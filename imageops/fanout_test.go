package imageops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"

	"imgward/imageops/engine"
)

// A member is one target of a Fanout in a test.
type member struct {
	disk  *disk
	fresh bool
	ctx   context.Context
	dst   Dest // nil: the disk
	rep   Report
	err   error
}

// fan copies src to all members at once.
func fan(t *testing.T, src Source, o Options, ms ...*member) {
	t.Helper()
	f := NewFanout(t.Context(), src, whole(t, o), len(ms)+1)
	var all sync.WaitGroup
	for _, m := range ms {
		if m.ctx == nil {
			m.ctx = t.Context()
		}
		if m.dst == nil {
			m.dst = m.disk
		}
		all.Go(func() { m.rep, m.err = f.Join(m.ctx, m.dst, m.fresh) })
	}
	f.Leave()
	all.Wait()
}

func TestFanout(t *testing.T) {
	for _, size := range []int{0, 1, testChunk, 3<<20 + 700} {
		for _, stream := range []bool{false, true} {
			src := patchy(size, 3)
			var from Source = src
			if stream {
				from = NewStream(bytes.NewReader(src.bytes), "pipe")
			}
			old := noise(size+5000, 4)
			ms := []*member{
				{disk: &disk{bytes: bytes.Clone(old)}},
				{disk: &disk{bytes: make([]byte, size)}, fresh: true},
				{disk: &disk{bytes: bytes.Clone(old), block: 512}},
				{disk: &disk{bytes: bytes.Clone(old[:size]), cannot: errors.ErrUnsupported}},
			}
			var told []Progress
			fan(t, from, Options{ChunkSize: testChunk, QueueDepth: 3, Sparse: SparseDetect, Verify: true, Expect: []Sum{{SHA256, digestOf(SHA256, src.bytes)}},
				Progress: func(p Progress) { told = append(told, p) }}, ms...)
			for i, m := range ms {
				name := fmt.Sprintf("target %d of size %d, stream %v", i, size, stream)
				if m.err != nil {
					t.Fatalf("%s: %v", name, m.err)
				}
				same(t, name, m.disk.bytes[:size], src.bytes)
				same(t, name+", tail", m.disk.bytes[size:], old[size:len(m.disk.bytes)])
				if !bytes.Equal(m.rep.Digest, digestOf(BLAKE3, src.bytes)) || m.rep.Verified != int64(size) || m.rep.Written+m.rep.Zeroed != int64(size) || len(m.rep.Expected) != 1 {
					t.Errorf("%s: %+v", name, m.rep)
				}
				if !m.fresh && m.disk.cannot == nil && size > 2*heldBytes {
					checkHoldBackOrder(t, m.disk.events, int64(len(m.disk.bytes)))
				}
			}
			if !stream && src.read > int64(size) {
				t.Errorf("%d bytes were read of %d", src.read, size)
			}
			if n := len(told); size > 0 && (n == 0 || told[n-1].Done != 4*int64(size)) {
				t.Errorf("told %v", told)
			}
		}
	}
}

// broken is a target on which a call fails from the n-th on.
type broken struct {
	*disk
	mu   sync.Mutex
	what engine.Kind
	left int
}

func (b *broken) fails(kind engine.Kind) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if kind != b.what {
		return nil
	}
	if b.left--; b.left < 0 {
		return syscall.EIO
	}
	return nil
}

func (b *broken) WriteAt(p []byte, off int64) (int, error) {
	if err := b.fails(engine.Write); err != nil {
		return 0, err
	}
	return b.disk.WriteAt(p, off)
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if err := b.fails(engine.Read); err != nil {
		return 0, err
	}
	return b.disk.ReadAt(p, off)
}

func (b *broken) Sync() error {
	if err := b.fails(engine.Sync); err != nil {
		return err
	}
	return b.disk.Sync()
}

// One target that fails, at whatever request, neither stops nor spoils another.
func TestFanoutOneTargetFails(t *testing.T) {
	src := patchy(3<<20+700, 3)
	for _, kind := range []engine.Kind{engine.Read, engine.Write, engine.Sync} {
		for at := 0; at < 70; at += 1 + at/8 {
			b := &broken{disk: &disk{bytes: noise(4<<20, 9)}, what: kind, left: at}
			bad := &member{disk: b.disk, dst: b}
			good := []*member{{disk: &disk{bytes: noise(4<<20, 7)}}, {disk: &disk{bytes: make([]byte, 3<<20+700)}, fresh: true}}
			fan(t, src, Options{ChunkSize: testChunk, QueueDepth: 3, Verify: true}, good[0], bad, good[1])
			name := fmt.Sprintf("%v %d", kind, at)
			for _, m := range good {
				if m.err != nil || !bytes.Equal(m.rep.Digest, digestOf(BLAKE3, src.bytes)) {
					t.Fatalf("%s: %v", name, m.err)
				}
				same(t, name, m.disk.bytes[:len(src.bytes)], src.bytes)
			}
			if b.left >= 0 {
				if bad.err != nil {
					t.Errorf("%s: %v, and nothing went wrong", name, bad.err)
				}
				continue
			}
			if !errors.Is(bad.err, syscall.EIO) || bad.rep.Digest != nil || bad.disk.changed() && !bad.rep.Touched {
				t.Errorf("%s: %v, %+v", name, bad.err, bad.rep)
			}
		}
	}
}

// What is wrong with the source is wrong with all targets; what refuses one before
// the copy begins leaves that one alone.
func TestFanoutRefusals(t *testing.T) {
	src := &image{bytes: noise(2<<20, 1)}
	small, good := &member{disk: &disk{bytes: noise(1<<20, 2)}}, &member{disk: &disk{bytes: noise(2<<20, 2)}}
	fan(t, src, Options{}, small, good)
	if !errors.Is(small.err, ErrTooSmall) || small.disk.changed() || small.rep.Touched || good.err != nil {
		t.Errorf("%v, %v", small.err, good.err)
	}
	short := &image{bytes: noise(2<<20, 1), size: 2<<20 + 1}
	a, b := &member{disk: &disk{bytes: make([]byte, 3<<20)}}, &member{disk: &disk{bytes: make([]byte, 3<<20)}}
	fan(t, short, Options{}, a, b)
	for _, m := range []*member{a, b} {
		if !errors.Is(m.err, io.ErrUnexpectedEOF) || m.rep.Digest != nil || !m.rep.Touched {
			t.Errorf("%v, %+v", m.err, m.rep)
		}
	}
	a, b = &member{disk: &disk{bytes: make([]byte, 3<<20)}}, &member{disk: &disk{bytes: make([]byte, 3<<20)}}
	fan(t, src, Options{ChunkSize: 5}, a, b)
	if a.err == nil || b.err == nil || a.rep.Touched {
		t.Errorf("%v, %v", a.err, b.err)
	}
}

// A target whose time is over goes at once, though others have far to go; and one
// that goes before the copy has begun is not waited for.
func TestFanoutTargetIsCancelled(t *testing.T) {
	why := errors.New("a domain wants the disk")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := make(chan struct{})
	src := &image{bytes: noise(40*testChunk, 1)}
	bad := &member{disk: &disk{bytes: noise(40*testChunk, 2)}, ctx: ctx}
	bad.disk.after = func(e event) {
		if e.kind == engine.Write {
			cancel(why)
		}
	}
	good := &member{disk: &disk{bytes: noise(40*testChunk, 2)}}
	var once sync.Once
	good.disk.after = func(e event) {
		if e.kind == engine.Sync && ctx.Err() != nil {
			once.Do(func() { <-gone }) // the good one goes on only when the bad one was let go
		}
	}
	f := NewFanout(t.Context(), src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 2}), 2)
	var all sync.WaitGroup
	all.Go(func() {
		bad.rep, bad.err = f.Join(ctx, bad.disk, false)
		close(gone)
	})
	all.Go(func() { good.rep, good.err = f.Join(t.Context(), good.disk, false) })
	all.Wait()
	if !errors.Is(bad.err, why) || !bad.rep.Touched || good.err != nil {
		t.Errorf("%v, %v", bad.err, good.err)
	}
	same(t, "good", good.disk.bytes, src.bytes)

	// So does one while the source has nothing to give.
	stalled, end := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	f = NewFanout(t.Context(), NewStream(r, "pipe"), whole(t, Options{ChunkSize: testChunk}), 2)
	b := noise(3<<20, 3)
	bad, good = &member{disk: &disk{bytes: noise(3<<20, 2)}}, &member{disk: &disk{bytes: noise(3<<20, 2)}}
	all.Go(func() { good.rep, good.err = f.Join(t.Context(), good.disk, false) })
	all.Go(func() {
		bad.rep, bad.err = f.Join(stalled, bad.disk, false)
		_, err := w.Write(b[1<<20:]) // only now the source goes on
		if err = errors.Join(err, w.Close()); err != nil {
			t.Error(err)
		}
	})
	if _, err := w.Write(b[:1<<20]); err != nil {
		t.Fatal(err)
	}
	end(why)
	all.Wait()
	if !errors.Is(bad.err, why) || good.err != nil {
		t.Errorf("%v, %v", bad.err, good.err)
	}
	same(t, "good", good.disk.bytes, b)

	early, stop := context.WithCancelCause(t.Context())
	f = NewFanout(t.Context(), src, whole(t, Options{}), 3)
	stop(why)
	d := &disk{bytes: noise(40*testChunk, 2)}
	if rep, err := f.Join(early, d, false); !errors.Is(err, why) || rep.Touched || d.changed() {
		t.Errorf("%v, %+v", err, rep)
	}
	f.Leave()
	d = &disk{bytes: noise(40*testChunk, 2)}
	if _, err := f.Join(t.Context(), d, false); err != nil {
		t.Error(err)
	}
	same(t, "the one that is left", d.bytes, src.bytes)
}
