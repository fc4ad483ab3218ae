package imageops

import (
	"bytes"

	"imgward/imageops/engine"
)

// readBack reads the target from its storage, with what is held back laid over
// it, and compares its tree with the one of what was read from the source.
func (c *copier) readBack() error {
	if !c.o.Verify {
		return nil
	}
	c.uncache(0, c.size)
	meter := newMeter("verify", c.size, c.o.Progress)
	p := &pass{
		flow: c.flow, end: c.dst, size: c.size,
		sums: newSums(c.flow, nil, true, c.size, c.o.ChunkSize),
		read: func(int64) {},
		got:  func(ch *chunk, _ []Extent) { c.held.lay(ch.data, ch.off) },
		done: meter.add,
	}
	if err := p.run(); err != nil {
		return err
	}
	if !meter.full() || p.sums.sum(BLAKE3, c.size) == nil {
		return errStuck
	}
	if i, n := c.sums.tree.differs(p.sums.tree); n > 0 {
		off := int64(i) * int64(c.o.ChunkSize)
		return c.mismatch(off, min(int64(n)*int64(c.o.ChunkSize), c.size-off))
	}
	c.rep.Verified = c.held.middle(Extent{Len: c.size}).Len
	return nil
}

// giveBack writes what was held back, each part made durable before the next,
// and reads it back.
func (c *copier) giveBack() error {
	for _, p := range c.held.parts() {
		c.flow.do(nil, &engine.Op{Kind: engine.Write, End: c.dst, Off: p.off, Buf: p.buf}, func() {
			c.rep.Written += p.of(c.size)
		})
		if err := c.flow.run(nil); err != nil {
			return err
		}
		if err := c.sync(); err != nil {
			return err
		}
	}
	if !c.o.Verify {
		return nil
	}
	for _, p := range c.held.parts() {
		c.uncache(p.off, int64(len(p.buf)))
		got := make([]byte, len(p.buf))
		c.flow.do(nil, &engine.Op{Kind: engine.Read, End: c.dst, Off: p.off, Buf: got}, nil)
		if err := c.flow.run(nil); err != nil {
			return err
		}
		if !bytes.Equal(got, p.buf) {
			off, n := firstDifference(got, p.buf)
			return c.mismatch(p.off+off, n)
		}
		c.rep.Verified += p.of(c.size)
	}
	return nil
}

// uncache makes the target forget what it has cached, so that a read is one from
// the storage. If it cannot, the flow fails.
func (c *copier) uncache(off, n int64) {
	u, ok := c.dst.dst.(Uncacher)
	if !ok || n == 0 {
		return
	}
	if err := u.Uncache(off, n); err != nil {
		c.flow.fail(err)
	}
}

func (c *copier) mismatch(off, n int64) error {
	return &MismatchError{Name: c.dst.name, Other: c.src.name, Off: off, Len: n}
}
