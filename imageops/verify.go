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
	if err := c.uncache(0, c.size); err != nil {
		return err
	}
	meter := newMeter("verify", c.size, c.o.Progress)
	p := &pass{
		flow: c.flow, end: c.dst, size: c.size,
		sums: newSums(c.flow, DigestNone, true, c.size, c.o.ChunkSize),
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
	c.rep.Verified = c.size
	return nil
}

// giveBack writes what was held back, each part made durable before the next,
// and reads it back.
func (c *copier) giveBack() error {
	for _, p := range c.held.parts() {
		c.flow.do(nil, &engine.Op{Kind: engine.Write, End: c.dst, Off: p.off, Buf: p.buf}, func() {
			c.rep.Written += max(0, min(p.end(), c.size)-p.off)
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
		if err := c.uncache(p.off, int64(len(p.buf))); err != nil {
			return err
		}
		got := make([]byte, len(p.buf))
		c.flow.do(nil, &engine.Op{Kind: engine.Read, End: c.dst, Off: p.off, Buf: got}, nil)
		if err := c.flow.run(nil); err != nil {
			return err
		}
		if !bytes.Equal(got, p.buf) {
			off, n := firstDifference(got, p.buf)
			return c.mismatch(p.off+off, n)
		}
	}
	return nil
}

func (c *copier) uncache(off, n int64) error {
	u, ok := c.dst.dst.(Uncacher)
	if !ok || n == 0 {
		return nil
	}
	return u.Uncache(off, n)
}

func (c *copier) mismatch(off, n int64) error {
	return &MismatchError{Name: c.dst.name, Other: c.src.name, Off: off, Len: n}
}
