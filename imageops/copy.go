package imageops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// errNoSize is the reason why a stream is not taken.
var errNoSize = errors.New("size is not known")

// zeroRun is the most that is zeroed by one request.
const zeroRun = 64 << 20

// Copy copies all of src to the beginning of dst. It returns nil when all bytes
// are on stable storage and, with o.Verify, were read back from there and found
// equal; bytes of dst behind the end of src stay as they are. A file that is too
// short is made longer by the caller before.
//
// Everything that can be checked is checked before dst is touched: a source that
// does not fit is ErrTooSmall. An endpoint's failure is an *OpError, a source
// that ends early is one with io.ErrUnexpectedEOF, a source without a digest that
// o expects is a *DigestError (what is held back stays zero then), a read-back
// that differs is a *MismatchError, and if ctx ended before all was done the error is its cause.
// No request is in flight any more when Copy returns.
func Copy(ctx context.Context, dst Dest, src Source, o Options) (rep Report, err error) {
	start := time.Now()
	defer func() { rep.Elapsed = time.Since(start) }()
	c, err := newCopier(ctx, dst, src, o)
	if err != nil {
		return Report{DigestKind: o.Digest}, err
	}
	defer func() {
		if cerr := c.close(); err == nil {
			err = cerr
		}
		rep = c.rep
		rep.Touched = c.flow.touched
		if err != nil {
			rep.Digest, rep.Expected = nil, nil
		}
	}()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"take away", c.takeAway},
		{"transfer", c.transfer},
		{"read back", c.readBack},
		{"give back", c.giveBack},
	} {
		c.o.Log.Debug("copy", "step", step.name, "source", c.src.name, "target", c.dst.name)
		if err := step.do(); err != nil {
			return rep, err
		}
	}
	return rep, context.Cause(c.flow.ctx)
}

// A copier is one copy.
type copier struct {
	o     Options
	flow  *flow
	src   *endpoint
	dst   *endpoint // zeroing as Options.Sparse says
	keep  *endpoint // zeroing so that storage stays allocated
	size  int64     // of the source
	block int64     // in which zeros are looked for
	holes *holes
	held  held
	sums  *sums
	meter *meter
	run   Extent // zeros that wait for more
	rep   Report
}

// newCopier checks all that can be checked.
func newCopier(ctx context.Context, dst Dest, src Source, o Options) (*copier, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	c := &copier{o: o, size: src.Size()}
	c.src = &endpoint{name: nameOf(src, "source"), r: src}
	c.dst = &endpoint{name: nameOf(dst, "target"), r: unreadable{}, dst: dst, how: blockio.ZeroPunch}
	refuse := func(err error) (*copier, error) {
		return nil, &OpError{Op: "copy to", Name: c.dst.name, Off: -1, Err: err}
	}
	r, readable := dst.(io.ReaderAt)
	if readable {
		c.dst.r = r
	}
	switch {
	case c.size < 0:
		return refuse(fmt.Errorf("%q: %w", c.src.name, errNoSize))
	case dst.Size() < c.size:
		return refuse(fmt.Errorf("%w: %d bytes for %d", ErrTooSmall, dst.Size(), c.size))
	case (o.Verify || o.HoldBack) && !readable:
		return refuse(fmt.Errorf("it cannot be read back: %w", errors.ErrUnsupported))
	}
	lim := dst.Limits()
	c.block = int64(max(1, min(lim.Physical, o.ChunkSize)))
	if o.HoldBack {
		c.held = newHeld(dst.Size(), int64(max(lim.OffAlign, lim.Physical, minChunk)))
	}
	if c.flow, err = newFlow(ctx, o, o.ChunkSize); err != nil {
		return nil, err
	}
	c.dst.zeros = c.flow.zeros
	keep := *c.dst
	keep.how, c.keep = blockio.ZeroKeep, &keep
	if c.holes, err = newHoles(c.flow.ctx, src, c.src.name, o.asks(), c.block); err != nil {
		return nil, errors.Join(err, c.flow.close())
	}
	c.sums = newSums(c.flow, o.kinds(), o.Verify, c.size, o.ChunkSize)
	c.meter = newMeter("copy", c.size, o.Progress)
	c.rep = Report{DigestKind: o.Digest, Engine: c.flow.eng.String(), Tail: dst.Size() - c.size}
	return c, nil
}

func (c *copier) close() error {
	c.holes.stop()
	return c.flow.close()
}

// takeAway keeps the target's own bytes behind the end of the source, as far as
// they lie in what is held back, and zeroes that on the storage.
func (c *copier) takeAway() error {
	for _, p := range c.held.parts() {
		if from := max(p.off, c.size); from < p.end() {
			c.uncache(from, p.end()-from)
			c.flow.do(nil, &engine.Op{Kind: engine.Read, End: c.dst, Off: from, Buf: p.buf[from-p.off:]}, nil)
		}
	}
	if err := c.flow.run(nil); err != nil || c.o.Fresh || len(c.held.parts()) == 0 {
		return err
	}
	for _, p := range c.held.parts() {
		c.flow.do(nil, &engine.Op{Kind: engine.Zero, End: c.keep, Off: p.off, Len: int64(len(p.buf))}, nil)
	}
	if err := c.flow.run(nil); err != nil {
		return err
	}
	return c.sync()
}

// transfer copies all but what is held back, and makes it durable.
func (c *copier) transfer() error {
	p := &pass{
		flow: c.flow, end: c.src, size: c.size, holes: c.holes, sums: c.sums,
		read: func(n int64) { c.rep.Read += n },
		got:  c.put,
		done: func(int64) {},
	}
	if err := p.run(); err != nil {
		return err
	}
	c.flushZeros()
	if err := c.flow.run(nil); err != nil {
		return err
	}
	if !c.meter.full() {
		return errStuck
	}
	// Before anything boots: what is held back is still zero.
	if err := c.sums.finish(&c.rep, c.o, c.src.name, c.size); err != nil {
		return err
	}
	return c.sync()
}

// put sends the bytes of ch to where they belong.
func (c *copier) put(ch *chunk, ext []Extent) {
	if c.o.Sparse == SparseDetect && !(len(ext) == 1 && ext[0].Zero) {
		ext = classify(ch.data, ch.off, c.block, c.flow.zeros)
	}
	c.held.take(ch.data, ch.off)
	for _, e := range ext {
		m := c.held.middle(e)
		c.meter.add(e.Len - m.Len)
		switch {
		case m.Len == 0:
		case m.Zero:
			c.zero(m)
		default:
			data := ch.data[m.Off-ch.off:][:m.Len]
			c.flow.do(ch, &engine.Op{Kind: engine.Write, End: c.dst, Off: m.Off, Buf: data}, func() {
				c.rep.Written += m.Len
				c.meter.add(m.Len)
			})
		}
	}
}

// zero makes e zero on the target, together with what follows it as it comes.
func (c *copier) zero(e Extent) {
	if c.o.Fresh {
		c.rep.Zeroed += e.Len
		c.meter.add(e.Len)
		return
	}
	if e.Off != c.run.End() {
		c.flushZeros()
		c.run.Off = e.Off
	}
	if c.run.Len += e.Len; c.run.Len >= zeroRun {
		c.flushZeros()
	}
}

// flushZeros starts zeroing what has been put together.
func (c *copier) flushZeros() {
	n := c.run.Len
	if n > 0 {
		c.flow.do(nil, &engine.Op{Kind: engine.Zero, End: c.dst, Off: c.run.Off, Len: n}, func() {
			c.rep.Zeroed += n
			c.meter.add(n)
		})
	}
	c.run = Extent{}
}

// sync makes all that was written durable.
func (c *copier) sync() error {
	c.flow.do(nil, &engine.Op{Kind: engine.Sync, End: c.dst}, nil)
	return c.flow.run(nil)
}
