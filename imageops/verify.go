package imageops

import (
	"bytes"

	"imgward/imageops/engine"
)

// readBack reads each target from its storage, with what is held back laid over
// it, and compares its tree with the one of what was read from the source.
func (c *copier) readBack() error {
	if !c.o.Verify {
		return nil
	}
	total := int64(0)
	c.alive(func(t *target) bool { total += t.changed(c.size); return true })
	meter := newMeter("verify", total, c.o.Progress)
	for _, t := range c.targets {
		if t.err != nil {
			continue
		}
		t.uncache(0, c.size)
		want := t.wants(c.size)
		p := &pass{
			flow: c.flow, end: t.dst, do: t.do, size: c.size, failed: func() bool { return t.err != nil },
			sums: newSums(c.flow, nil, true, c.size, c.o.ChunkSize),
			read: func(int64) {},
			got:  func(ch *chunk, _ []Extent) { t.held.lay(ch.data, ch.off) },
			done: meter.add, want: want,
		}
		p.sums.tree.markLike(c.sums.tree)
		if err := p.run(); err != nil {
			return err
		}
		if t.err != nil {
			continue
		}
		if want == nil && p.sums.sum(BLAKE3, c.size) == nil {
			return errStuck
		}
		if i, n := t.differs(p.sums.tree); n > 0 {
			off := int64(i) * int64(c.o.ChunkSize)
			t.mismatch(off, min(int64(n)*int64(c.o.ChunkSize), c.size-off))
			continue
		}
		for _, e := range t.held.free(Extent{Len: c.size}) {
			t.rep.Verified += e.Len
		}
		if err := c.readTail(t); err != nil {
			return err
		}
	}
	return c.flow.run(nil)
}

// giveBack writes what was held back, with what is to be other than in the source,
// each part made durable before the next, and reads it back.
func (c *copier) giveBack() error {
	c.alive(func(t *target) bool { t.held.amend(); return true })
	const parts = 3
	for i := range parts {
		err := c.all(func(t *target) {
			if p, ok := t.held.part(i); ok {
				t.do(nil, &engine.Op{Kind: engine.Write, End: t.dst, Off: p.off, Buf: p.buf}, func() { t.rep.Written += p.of(c.size) })
			}
		})
		if err != nil {
			return err
		}
		err = c.all(func(t *target) {
			if _, ok := t.held.part(i); ok {
				t.sync()
			}
		})
		if err != nil {
			return err
		}
	}
	if !c.o.Verify {
		return nil
	}
	for i := range parts {
		if err := c.all(func(t *target) { t.recheck(i) }); err != nil {
			return err
		}
	}
	return c.flow.run(nil)
}

// recheck reads the i-th of the parts that were given back.
func (t *target) recheck(i int) {
	p, ok := t.held.part(i)
	if !ok {
		return
	}
	t.uncache(p.off, int64(len(p.buf)))
	got := make([]byte, len(p.buf))
	t.do(nil, &engine.Op{Kind: engine.Read, End: t.dst, Off: p.off, Buf: got}, func() {
		if !bytes.Equal(got, p.buf) {
			off, n := firstDifference(got, p.buf)
			t.mismatch(p.off+off, n)
			return
		}
		t.rep.Verified += p.of(t.c.size)
	})
}
