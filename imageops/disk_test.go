package imageops

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// An event is one call that changes a disk.
type event struct {
	kind   engine.Kind // Write, Zero or Sync
	off, n int64
	how    blockio.ZeroMode
}

func (e event) end() int64 { return e.off + e.n }

// overlaps reports whether the event touches [off, end).
func (e event) overlaps(off, end int64) bool {
	return e.kind != engine.Sync && e.off < end && off < e.end()
}

// A disk is a target in memory that writes down what happens to it, in order.
type disk struct {
	mu       sync.Mutex
	bytes    []byte
	events   []event
	uncached [][2]int64
	reads    int64

	block  int          // Limits().Physical; 0: 4096
	cannot error        // what Zero returns instead of zeroing
	after  func(event)  // called when an event has happened, without the lock
	rot    func([]byte) // changes what is stored, after each write
}

func (d *disk) note(e event, change func()) {
	d.mu.Lock()
	change()
	d.events = append(d.events, e)
	if d.rot != nil {
		d.rot(d.bytes)
	}
	d.mu.Unlock()
	if d.after != nil {
		d.after(e)
	}
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	n := 0
	d.note(event{kind: engine.Write, off: off, n: int64(len(p))}, func() { n = copy(d.bytes[off:], p) })
	return n, nil
}

func (d *disk) Zero(off, n int64, how blockio.ZeroMode) error {
	if d.cannot != nil {
		return d.cannot
	}
	d.note(event{kind: engine.Zero, off: off, n: n, how: how}, func() { clear(d.bytes[off : off+n]) })
	return nil
}

func (d *disk) Sync() error {
	d.note(event{kind: engine.Sync}, func() {})
	return nil
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads += int64(len(p))
	return bytes.NewReader(d.bytes).ReadAt(p, off)
}

func (d *disk) Uncache(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uncached = append(d.uncached, [2]int64{off, n})
	return nil
}

func (d *disk) Size() int64 { return int64(len(d.bytes)) }

func (d *disk) Limits() blockio.Limits {
	block := d.block
	if block == 0 {
		block = 4096
	}
	return blockio.Limits{Logical: 512, Physical: block, OffAlign: 512, MemAlign: 512}
}

func (d *disk) Name() string { return "disk" }

// changed reports whether anything but a sync happened.
func (d *disk) changed() bool {
	for _, e := range d.events {
		if e.kind != engine.Sync {
			return true
		}
	}
	return false
}

// An image is a source in memory. Nothing is read from its holes.
type image struct {
	bytes []byte
	holes [][2]int64 // offset and length
	size  int64      // what Size says; 0: the truth
	mu    sync.Mutex
	read  int64
	each  func(off int64) // called at each read
}

func (m *image) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	m.read += int64(len(p))
	m.mu.Unlock()
	if m.each != nil {
		m.each(off)
	}
	return bytes.NewReader(m.bytes).ReadAt(p, off)
}

func (m *image) Size() int64 {
	if m.size != 0 {
		return m.size
	}
	return int64(len(m.bytes))
}

func (m *image) Name() string { return "image" }

func (m *image) Extents(_ context.Context, off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for _, h := range m.holes {
			if !yield(Extent{Off: h[0], Len: h[1], Zero: true}, nil) {
				return
			}
		}
	}
}

// plain hides everything about a source but its bytes.
type plain struct{ Source }

// writeOnly hides that a disk can be read.
type writeOnly struct{ Dest }

// noise is n random bytes.
func noise(n int, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// patchy is an image of n bytes with data, zeros that are no holes, and holes.
func patchy(n int, seed uint64) *image {
	r := rand.New(rand.NewPCG(seed, 3))
	m := &image{bytes: noise(n, seed)}
	for at := 0; at < n; {
		run := min(n-at, 1+r.IntN(100<<10))
		if r.IntN(2) == 0 {
			run = min(n-at, run&^4095)
		}
		if run == 0 {
			run = min(n-at, 4096)
		}
		switch r.IntN(3) {
		case 0:
			clear(m.bytes[at : at+run])
		case 1:
			clear(m.bytes[at : at+run])
			m.holes = append(m.holes, [2]int64{int64(at), int64(run)})
		}
		at += run
	}
	return m
}

// copyReference is the copy that anybody can see to be right.
func copyReference(dst Dest, src Source) error {
	buf := make([]byte, 10_000)
	for off := int64(0); off < src.Size(); {
		n, err := src.ReadAt(buf[:min(int64(len(buf)), src.Size()-off)], off)
		if n == 0 {
			return err
		}
		if _, err := dst.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return dst.Sync()
}

// whole makes o check that a flow gives everything back.
func whole(t testing.TB, o Options) Options {
	o.inspect = func(f *flow) {
		t.Helper()
		if len(f.free) != f.depth || f.flying != 0 {
			t.Errorf("%d of %d chunks are free and %d requests in flight at the end", len(f.free), f.depth, f.flying)
		}
		seen := map[*byte]bool{}
		for _, c := range f.free {
			if c.uses != 0 || seen[&c.buf[0]] {
				t.Errorf("a free chunk has %d uses, in the list twice: %v", c.uses, seen[&c.buf[0]])
			}
			seen[&c.buf[0]] = true
		}
		if !bytes.Equal(f.zeros, make([]byte, len(f.zeros))) {
			t.Error("somebody wrote into the zeros")
		}
		if _, err := f.eng.Wait(); err != engine.ErrIdle {
			t.Errorf("engine: %v, want %v", err, engine.ErrIdle)
		}
	}
	return o
}

// same compares, and says where the first difference is.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if off, n := firstDifference(got[:min(len(got), len(want))], want[:min(len(got), len(want))]); n > 0 {
		t.Fatalf("%s: %d bytes at %d differ", what, n, off)
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
}
