package imageops

import "bytes"

// zeroTails makes zero what the targets have behind the end of the source, one
// target after the other, if that is wanted. What of it is held back gets its zeros
// with the rest of that.
func (c *copier) zeroTails() error {
	if !c.o.ZeroTail {
		return nil
	}
	for _, t := range c.targets {
		if t.err != nil {
			continue
		}
		before := t.rep
		t.aside = true
		at, end := c.size, t.dst.dst.Size()
		if at < end {
			if err := c.flow.run(func(ch *chunk) bool {
				n := min(roundUp(at+1, int64(c.flow.chunk)), end) - at
				ch.off, ch.data = at, c.flow.zeros[:n]
				at += n
				t.put(ch, wholeBlocks(Extent{Off: ch.off, Len: n, Zero: true}, t.block))
				return at < end && t.err == nil
			}); err != nil {
				return err
			}
		}
		t.flushZeros()
		err := c.flow.run(nil)
		t.abandon()
		if err != nil {
			return err
		}
		t.aside = false
		t.rep.Written, t.rep.Zeroed, t.rep.Same = before.Written, before.Zeroed, before.Same
	}
	return nil
}

// wholeBlocks is e with its beginning as data, where that is no whole block.
func wholeBlocks(e Extent, block int64) []Extent {
	n := min(roundUp(e.Off, block)-e.Off, e.Len)
	return appendExtent(appendExtent(nil, Extent{Off: e.Off, Len: n}), Extent{Off: e.Off + n, Len: e.Len - n, Zero: e.Zero})
}

// readTail reads back that what t has behind the end of the source is zero.
func (c *copier) readTail(t *target) error {
	size := t.dst.dst.Size()
	if !c.o.ZeroTail || c.size >= size || t.delta != nil && !t.rep.Touched {
		return nil // or what was found to be zero came from the storage
	}
	t.uncache(c.size, size-c.size)
	p := &pass{
		flow: c.flow, end: t.dst, do: t.do, size: size, off: roundDown(c.size, minChunk), failed: func() bool { return t.err != nil },
		sums: &sums{}, read: func(int64) {}, done: func(int64) {},
		got: func(ch *chunk, _ []Extent) {
			t.held.lay(ch.data, ch.off)
			from := max(0, c.size-ch.off)
			if tail := ch.data[from:]; !bytes.Equal(tail, c.flow.zeros[:len(tail)]) {
				t.mismatch(ch.off+from, int64(len(tail)))
			}
		},
	}
	return p.run()
}
