package imageops

import (
	"bytes"
	"io"
	"slices"

	"imgward/imageops/engine"
)

// delta is what a target needs of which only what differs is written.
//
// Nothing of what is held back is zeroed before something is found to differ: a
// target that is equal already is not touched. What waits for that keeps its chunk.
type delta struct {
	old     [][]byte // what the target has in each of the parts that are held back
	taking  bool     // what is held back is being zeroed
	waiting []func()
	given   []*chunk
	dirty   map[uint64]bool // by mark of the tree: something there was written
}

const (
	sampleBytes = 64 << 10
	samples     = 64
	alikeMin    = 64 << 20 // bytes; what is smaller is copied sooner than looked at
)

// Alike reports whether a copy of src onto dst is likely to be faster with
// Options.Delta: whether at least 15 of 16 samples, spread over src, are equal
// already. Zeros do not count, because a copy has next to no work with them. A
// stream is like nothing.
func Alike(dst io.ReaderAt, src Source) bool {
	size := src.Size()
	if size < alikeMin {
		return false
	}
	a, b, zeros := make([]byte, sampleBytes), make([]byte, sampleBytes), make([]byte, sampleBytes)
	asked, equal := 0, 0
	for i := range int64(samples) {
		off := roundDown(size/samples*i, sampleBytes)
		if n, _ := src.ReadAt(a, off); n < sampleBytes || bytes.Equal(a, zeros) {
			continue // the copy says what is wrong with it
		}
		asked++
		if n, _ := dst.ReadAt(b, off); n == sampleBytes && bytes.Equal(a, b) {
			equal++
		}
		if asked-equal > samples/16 {
			return false
		}
	}
	return asked >= samples/4 && equal*16 >= asked*15
}

// keepOld remembers what the target has where something is held back.
func (t *target) keepOld() {
	for _, p := range t.held.parts() {
		t.delta.old = append(t.delta.old, bytes.Clone(p.buf))
	}
}

// compare reads what the target has in the place of ch, and writes what differs.
func (t *target) compare(ch *chunk, ext []Extent) {
	left := int64(len(ch.data))
	for _, m := range t.held.free(Extent{Off: ch.off, Len: left}) {
		left -= m.Len
		t.compareRange(ch, m, ext)
	}
	t.add(left)
}

// compareRange does that with the bytes m of ch.
func (t *target) compareRange(ch *chunk, m Extent, ext []Extent) {
	old := ch.buf[int64(t.c.flow.chunk)+m.Off-ch.off:][:m.Len]
	t.do(ch, &engine.Op{Kind: engine.Read, End: t.dst, Off: m.Off, Buf: old}, func() {
		var parts []Extent // that differ
		t.do(ch, &engine.Op{Kind: engine.Call, Do: func() error {
			parts = t.differing(ch.data[m.Off-ch.off:][:m.Len], old, m.Off, ext)
			return nil
		}}, func() {
			same := m.Len
			for _, e := range parts {
				same -= e.Len
			}
			t.rep.Same += same
			t.add(same)
			if len(parts) > 0 {
				t.delta.mark(t, ch.off)
				t.afterTaking(ch, func() { t.change(ch, parts) })
			}
		})
	})
}

// differing are the blocks in which data and old, which stand at off, differ, and
// whether they become zeros.
func (t *target) differing(data, old []byte, off int64, ext []Extent) []Extent {
	var out []Extent
	for n := int64(0); n < int64(len(data)); {
		at := off + n
		size := min(roundUp(at+1, t.block)-at, int64(len(data))-n)
		if !bytes.Equal(data[n:n+size], old[n:n+size]) {
			e := Extent{Off: at, Len: size, Zero: within(at, size, ext)}
			if t.c.o.Sparse == SparseDetect && size == t.block && bytes.Equal(data[n:n+size], t.c.flow.zeros[:size]) {
				e.Zero = true
			}
			out = appendExtent(out, e)
		}
		n += size
	}
	return out
}

// within reports whether n bytes at off lie in one of the extents that are zero.
func within(off, n int64, ext []Extent) bool {
	return slices.ContainsFunc(ext, func(e Extent) bool { return e.Zero && e.Off <= off && off+n <= e.End() })
}

// change writes parts of ch.
func (t *target) change(ch *chunk, parts []Extent) {
	for _, e := range parts {
		if e.Zero {
			t.zero(e)
		} else {
			t.write(ch, e)
		}
	}
}

// afterTaking calls then when what is held back is zero on the storage.
func (t *target) afterTaking(ch *chunk, then func()) {
	d := t.delta
	if t.taken || len(t.held.parts()) == 0 {
		then()
		return
	}
	t.c.flow.hold(ch)
	d.waiting, d.given = append(d.waiting, then), append(d.given, ch)
	if !d.taking {
		t.take()
	}
}

// take zeroes what is held back, and goes on with what waits for it.
func (t *target) take() {
	t.delta.taking = true
	parts := t.held.parts()
	left := len(parts)
	for _, p := range parts {
		t.do(nil, &engine.Op{Kind: engine.Zero, End: t.keep, Off: p.off, Len: int64(len(p.buf))}, func() {
			if left--; left > 0 {
				return
			}
			t.do(nil, &engine.Op{Kind: engine.Sync, End: t.dst}, func() {
				t.taken = true
				for _, then := range t.delta.waiting {
					then()
				}
				t.abandon()
			})
		})
	}
}

// abandon gives back the chunks that wait, or waited, for something to be zeroed.
func (t *target) abandon() {
	if t.delta == nil {
		return
	}
	for _, ch := range t.delta.given {
		t.c.flow.release(ch)
	}
	t.delta.waiting, t.delta.given = nil, nil
}

// settle decides, when all of the source is there, what becomes of what is held
// back: where nothing differs, it stays as it is.
func (t *target) settle() {
	if t.delta == nil || t.taken || len(t.held.parts()) == 0 {
		return
	}
	for i, p := range t.held.parts() {
		if !bytes.Equal(t.held.amended(p), t.delta.old[i]) {
			t.take()
			return
		}
	}
	for _, p := range t.held.parts() {
		t.rep.Same += p.of(t.c.size)
	}
	t.held = held{}
}

// mark notes that something of the chunk at off is written.
func (d *delta) mark(t *target, off int64) {
	if t.aside {
		return
	}
	if d.dirty == nil {
		d.dirty = map[uint64]bool{}
	}
	if tree := t.c.sums.tree; tree != nil {
		d.dirty[uint64(off/int64(t.c.flow.chunk))>>tree.level] = true
	}
}

// span is how many bytes a mark of the tree stands for.
func (t *target) span() int64 { return int64(t.c.flow.chunk) << t.c.sums.tree.level }

// partial reports whether only what was written is read back: what was found to be
// equal came from the storage then. The tree of a stream may have no marks.
func (t *target) partial() bool { return t.delta != nil && len(t.c.sums.tree.marks) > 0 }

// changed is how many of size bytes are read back.
func (t *target) changed(size int64) int64 {
	if !t.partial() {
		return size
	}
	n := int64(0)
	for k := range t.delta.dirty {
		n += min(t.span(), size-int64(k)*t.span())
	}
	return n
}

// wants gives the pass that reads back where to read; nil: everywhere.
func (t *target) wants(size int64) func(int64) int64 {
	if !t.partial() {
		return nil
	}
	return func(off int64) int64 {
		for off < size && !t.delta.dirty[uint64(off/t.span())] {
			off = (off/t.span() + 1) * t.span()
		}
		return min(off, size)
	}
}

// differs is tree.differs of the source's tree and back, as far as it was read.
func (t *target) differs(back *tree) (i, n uint64) {
	tree := t.c.sums.tree
	if !t.partial() {
		return tree.differs(back)
	}
	for k := range uint64(len(tree.marks)) {
		if t.delta.dirty[k] && (k >= uint64(len(back.marks)) || tree.marks[k] != back.marks[k]) {
			return k << tree.level, 1 << tree.level
		}
	}
	return 0, 0
}
