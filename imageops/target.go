package imageops

import (
	"context"
	"errors"
	"io"
	"math"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// A target is one Dest of a copy and what becomes of it. Its requests go through
// the flow of the copier, but their errors are its own.
type target struct {
	ctx      context.Context // when it ends, so does the target
	dst      *endpoint       // zeroing as Options.Sparse says
	keep     *endpoint       // zeroing so that storage stays allocated
	block    int64           // in which zeros are looked for
	fresh    bool
	holdBack bool
	grows    Grower  // nil: it has its size
	patches  []Patch // in which it differs from the source

	c      *copier
	held   held
	taken  bool   // what is held back was zeroed
	aside  bool   // what is put now is not of the source
	delta  *delta // nil: all is written
	owns   int64  // where the storage ends that a new target was given
	run    Extent // zeros that wait for more
	done   int64  // bytes of the source that are dealt with
	flying int
	rep    Report
	err    error // the first

	finished bool
	result   chan result // has room for one
}

type result struct {
	rep Report
	err error
}

func newTarget(ctx context.Context, dst Dest, holdBack, fresh bool) *target {
	t := &target{ctx: ctx, fresh: fresh, holdBack: holdBack, result: make(chan result, 1)}
	t.dst = &endpoint{name: nameOf(dst, "target"), r: unreadable{}, dst: dst, how: blockio.ZeroPunch}
	if r, ok := dst.(io.ReaderAt); ok {
		t.dst.r = r
	}
	if a, ok := dst.(Amender); ok {
		t.patches = a.Patches()
	}
	return t
}

// join makes t one of c.
func (t *target) join(c *copier) {
	t.c = c
	dst := t.dst.dst
	lim := dst.Limits()
	t.block = int64(max(1, min(lim.Physical, c.o.ChunkSize)))
	t.dst.zeros = c.flow.zeros
	keep := *t.dst
	keep.how, t.keep = blockio.ZeroKeep, &keep
	if c.o.Sparse == SparseOff {
		t.dst = t.keep
	}
	if align := int64(max(lim.OffAlign, lim.Physical, minChunk)); t.holdBack || len(t.patches) > 0 {
		t.held = newHeld(dst.Size(), align)
		t.held.cover(t.patches, align)
	}
	if g, ok := dst.(Grower); ok && c.size < 0 && t.fresh && !t.holdBack {
		t.grows = g
	}
	if c.o.Delta {
		t.delta = &delta{}
	}
	t.rep.Tail = dst.Size() - max(c.size, 0)
}

// fail ends the target with err, if it is its first error.
func (t *target) fail(err error) {
	if t.err != nil {
		return
	}
	t.err = err
	if t.c != nil && len(t.c.targets) == 1 {
		t.c.flow.fail(err)
	}
}

// do starts an op for the target, as flow.do does. After an error nothing is started.
func (t *target) do(ch *chunk, op *engine.Op, then func()) {
	if t.err != nil {
		return
	}
	if t.ctx.Err() != nil {
		t.fail(context.Cause(t.ctx))
		return
	}
	ok := t.c.flow.start(op, step{ch, func() {
		t.flying--
		if then != nil {
			then()
		}
	}, func(err error) {
		t.flying--
		t.fail(err)
	}})
	if ok {
		t.flying++
		switch op.Kind {
		case engine.Write:
			t.rep.touch(op.Off, int64(len(op.Buf)))
		case engine.Zero:
			t.rep.touch(op.Off, op.Len)
		}
	}
}

// add is called when n more bytes of the source are dealt with.
func (t *target) add(n int64) {
	if t.aside {
		return
	}
	t.done += n
	t.c.told()
}

// keepTail reads what of the target is held back and does not come from the
// source, which reaches to byte size.
func (t *target) keepTail(size int64) {
	if t.delta != nil {
		size = 0 // all of it is compared
	}
	for _, p := range t.held.parts() {
		if from := max(p.off, size); from < p.end() {
			t.uncache(from, p.end()-from)
			t.do(nil, &engine.Op{Kind: engine.Read, End: t.dst, Off: from, Buf: p.buf[from-p.off:]}, nil)
		}
	}
}

// zeroHeld zeroes what is held back.
func (t *target) zeroHeld() {
	if t.fresh {
		return
	}
	for _, p := range t.held.parts() {
		t.taken = true
		t.do(nil, &engine.Op{Kind: engine.Zero, End: t.keep, Off: p.off, Len: int64(len(p.buf))}, nil)
	}
}

// put sends the bytes of ch to where they belong.
func (t *target) put(ch *chunk, ext []Extent) {
	if !t.reach(ch.off + int64(len(ch.data))) {
		return
	}
	if t.delta == nil && t.c.o.Sparse == SparseDetect && !(len(ext) == 1 && ext[0].Zero) {
		ext = classify(ch.data, ch.off, t.block, t.c.flow.zeros)
	}
	t.held.take(ch.data, ch.off)
	if t.delta != nil {
		t.compare(ch, ext)
		return
	}
	for _, e := range ext {
		left := e.Len
		for _, m := range t.held.free(e) {
			left -= m.Len
			if m.Zero {
				t.zero(m)
			} else {
				t.write(ch, m)
			}
		}
		t.add(left)
	}
}

// write writes the bytes e of ch.
func (t *target) write(ch *chunk, e Extent) {
	t.do(ch, &engine.Op{Kind: engine.Write, End: t.dst, Off: e.Off, Buf: ch.data[e.Off-ch.off:][:e.Len]}, func() {
		t.rep.Written += e.Len
		t.add(e.Len)
	})
}

// ahead is how much storage a new target is given at a time. A direct write to a hole
// waits for its storage, and for the writes beside it.
const ahead = 64 << 20

// allocate has a new target own the storage for e, data that goes on to end.
func (t *target) allocate(e Extent, end int64) {
	a, ok := t.dst.dst.(Allocator)
	if !ok || !t.fresh || e.End() <= t.owns {
		return
	}
	from, to := max(e.Off, t.owns), min(roundUp(e.End(), ahead), end)
	err := a.Allocate(from, to-from)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		t.owns = math.MaxInt64
	case err != nil:
		t.fail(err)
	default:
		t.owns = to
	}
}

// growth is by how much a target of a stream is made longer at a time. It takes
// no space, and a write within the size of a file need not change the file's size.
const growth = 1 << 30

// reach makes sure that the target has end bytes.
func (t *target) reach(end int64) bool {
	size := t.dst.dst.Size()
	switch {
	case end <= size:
		return true
	case t.grows == nil:
		t.fail(&OpError{Op: "write", Name: t.dst.name, Off: size, Err: ErrTooSmall})
		return false
	}
	if err := t.grows.Truncate(roundUp(end, growth)); err != nil {
		t.fail(named(err, "extend", t.dst.name, size))
		return false
	}
	t.rep.Touched = true
	return true
}

// end gives a target that grew the size of the source.
func (t *target) end(size int64) {
	if t.grows != nil {
		if err := t.grows.Truncate(size); err != nil {
			t.fail(named(err, "truncate", t.dst.name, size))
		}
	}
	t.rep.Tail = t.dst.dst.Size() - size
}

// zero makes e zero on the target, together with what follows it as it comes.
func (t *target) zero(e Extent) {
	if t.fresh {
		t.rep.Zeroed += e.Len
		t.add(e.Len)
		return
	}
	if e.Off != t.run.End() {
		t.flushZeros()
		t.run.Off = e.Off
	}
	if t.run.Len += e.Len; t.run.Len >= zeroRun {
		t.flushZeros()
	}
}

// flushZeros starts zeroing what has been put together.
func (t *target) flushZeros() {
	n := t.run.Len
	if n > 0 {
		t.do(nil, &engine.Op{Kind: engine.Zero, End: t.dst, Off: t.run.Off, Len: n}, func() {
			t.rep.Zeroed += n
			t.add(n)
		})
	}
	t.run = Extent{}
}

// sync makes all that was written durable.
func (t *target) sync() {
	t.do(nil, &engine.Op{Kind: engine.Sync, End: t.dst}, nil)
}

// uncache makes the target forget what it has cached, so that a read is one from
// the storage. If it cannot, the target fails.
func (t *target) uncache(off, n int64) {
	u, ok := t.dst.dst.(Uncacher)
	if !ok || n == 0 || t.err != nil {
		return
	}
	if err := u.Uncache(off, n); err != nil {
		t.fail(err)
	}
}

func (t *target) mismatch(off, n int64) {
	t.fail(&MismatchError{Name: t.dst.name, Other: t.c.src.name, Off: off, Len: n})
}

// unreadable is the io.ReaderAt of a target that has none.
type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
