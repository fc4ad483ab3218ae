package imageops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// zeroRun is the most that is zeroed by one request.
const zeroRun = 64 << 20

// Copy copies all of src to the beginning of dst. It returns nil when all bytes
// are on stable storage and, with o.Verify, were read back from there and found
// equal; bytes of dst behind the end of src stay as they are, unless o.ZeroTail
// makes them zero, and an Amender gets bytes of its own. A file that is too
// short is made longer by the caller before, unless the source is a stream.
//
// Everything that can be checked is checked before dst is touched: a source that
// does not fit is ErrTooSmall (a stream shows it when it comes to the end of the
// target). An endpoint's failure is an *OpError, a source that ends early is one
// with io.ErrUnexpectedEOF, a source without a digest that o expects is a
// *DigestError (what is held back stays zero then), a read-back that differs is a
// *MismatchError, and if ctx ended before all was done the error is its cause.
// No request is in flight any more when Copy returns.
func Copy(ctx context.Context, dst Dest, src Source, o Options) (Report, error) {
	t := newTarget(ctx, dst, o.HoldBack, o.Fresh)
	copyTo(ctx, []*target{t}, src, o)
	r := <-t.result
	return r.rep, r.err
}

// copyTo copies src to all targets at once, and gives each its result as soon as
// nothing will be done with it any more. The first error of a target ends that
// target; what is wrong with the source or with o ends all.
func copyTo(ctx context.Context, targets []*target, src Source, o Options) {
	c := &copier{start: time.Now(), targets: targets}
	err := c.open(ctx, src, o)
	if err == nil {
		err = errors.Join(c.steps(), c.close())
	}
	for _, t := range targets {
		c.finish(t, err)
	}
}

// A copier is one copy of one source.
type copier struct {
	o       Options
	start   time.Time
	flow    *flow
	src     *endpoint
	size    int64 // of the source; -1 while it is not known
	holes   *holes
	sums    *sums
	meter   *meter
	targets []*target
	watches []func() bool // what ends the watching of contexts
	rep     Report        // what all targets have in common
}

// open checks all that can be checked, and makes what is needed.
func (c *copier) open(ctx context.Context, src Source, o Options) error {
	c.rep.DigestKind = o.Digest
	ends := []any{src}
	for _, t := range c.targets {
		ends = append(ends, t.dst.dst)
	}
	o, err := o.filled(ends...)
	if err != nil {
		return err
	}
	c.o, c.size = o, max(src.Size(), -1)
	c.src = &endpoint{name: nameOf(src, "source"), r: src}
	for _, t := range c.targets {
		if err := t.fits(c.size, c.src.name, o); err != nil {
			if len(c.targets) == 1 {
				return err
			}
			t.fail(err)
		}
	}
	room := o.ChunkSize
	if o.Delta {
		room *= 2 // for the target's bytes
	}
	if c.flow, err = newFlow(ctx, o, room); err != nil {
		return err
	}
	if s, ok := src.(Stopper); ok {
		c.watches = append(c.watches, context.AfterFunc(c.flow.ctx, func() { s.Stop(context.Cause(c.flow.ctx)) }))
	}
	block := int64(1)
	for _, t := range c.targets {
		t.join(c)
		block = max(block, t.block)
	}
	c.holes, err = newHoles(c.flow.ctx, src, c.src.name, o.asks(), block)
	if err != nil {
		c.unwatch()
		return errors.Join(err, c.flow.close())
	}
	c.sums = newSums(c.flow, o.kinds(), o.Verify, c.size, o.ChunkSize)
	if o.Manifest {
		c.sums.tree.markAll()
	}
	c.meter = newMeter("copy", c.size, o.Progress)
	c.rep.Engine, c.rep.ChunkSize = c.flow.eng.String(), o.ChunkSize
	c.flow.each = c.look
	if len(c.targets) > 1 {
		// The time of one can be over while a source that is slow keeps all waiting.
		nudge := c.flow.nudged()
		for _, t := range c.targets {
			c.watches = append(c.watches, context.AfterFunc(t.ctx, nudge))
		}
	}
	return nil
}

func (c *copier) unwatch() {
	for _, stop := range c.watches {
		stop()
	}
}

func (c *copier) close() error {
	c.unwatch()
	c.holes.stop()
	return c.flow.close()
}

// steps are the phases. In each of them all targets that are left take part.
func (c *copier) steps() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"take away", c.takeAway},
		{"transfer", c.transfer},
		{"read back", c.readBack},
		{"give back", c.giveBack},
	} {
		c.o.Log.Debug("copy", "step", step.name, "source", c.src.name, "targets", len(c.targets))
		if err := step.do(); err != nil {
			return err
		}
	}
	return context.Cause(c.flow.ctx)
}

// look is called between requests: it ends the targets whose time is over, and
// lets go of those with which nothing will be done any more.
func (c *copier) look() {
	left := false
	for _, t := range c.targets {
		if t.err == nil && t.ctx.Err() != nil {
			t.fail(context.Cause(t.ctx))
		}
		left = left || t.err == nil
	}
	if !left {
		c.flow.fail(c.targets[0].err) // the results come when all has ended
		return
	}
	for _, t := range c.targets {
		if t.err != nil && t.flying == 0 {
			c.finish(t, nil)
		}
	}
}

// finish gives t its result: err, if nothing was wrong with t itself before.
func (c *copier) finish(t *target, err error) {
	if t.finished {
		return
	}
	t.finished = true
	if t.err != nil {
		err = t.err
	}
	r := t.rep
	r.Read, r.Engine, r.ChunkSize, r.DigestKind = c.rep.Read, c.rep.Engine, c.rep.ChunkSize, c.rep.DigestKind
	r.Elapsed = time.Since(c.start)
	if err == nil {
		r.Digest, r.Also, r.Expected, r.Manifest = c.rep.Digest, c.rep.Also, c.rep.Expected, c.rep.Manifest
	}
	t.result <- result{r, err}
}

// alive are the targets that are left.
func (c *copier) alive(yield func(*target) bool) {
	for _, t := range c.targets {
		if t.err == nil && !yield(t) {
			return
		}
	}
}

// all starts something for each target that is left, and waits for all of it.
func (c *copier) all(do func(*target)) error {
	c.alive(func(t *target) bool { do(t); return true })
	return c.flow.run(nil)
}

// takeAway keeps the targets' own bytes behind the end of the source, as far as
// they lie in what is held back, and zeroes that on the storage.
func (c *copier) takeAway() error {
	if err := c.all(func(t *target) { t.keepTail(max(c.size, 0)) }); err != nil {
		return err
	}
	if c.o.Delta {
		return c.all(func(t *target) { // it is zeroed when something differs
			t.keepOld()
			t.uncache(0, t.dst.dst.Size())
		})
	}
	if err := c.all((*target).zeroHeld); err != nil {
		return err
	}
	return c.all(func(t *target) {
		if t.taken {
			t.sync()
		}
	})
}

// transfer copies all but what is held back, and makes it durable.
func (c *copier) transfer() error {
	p := &pass{
		flow: c.flow, end: c.src, do: c.flow.do, size: c.size, holes: c.holes, sums: c.sums,
		read: func(n int64) { c.rep.Read += n },
		got:  c.put,
		plan: c.allocate,
		done: func(int64) {},
	}
	err := p.run()
	for _, t := range c.targets {
		t.abandon()
	}
	if err != nil {
		return err
	}
	c.size = p.size
	if err := c.all((*target).flushZeros); err != nil {
		return err
	}
	for _, t := range c.targets {
		if t.err == nil && t.done != c.size {
			return errStuck
		}
	}
	// Before anything boots: what is held back is still zero.
	if err := c.sums.finish(&c.rep, c.o, c.src.name, c.size); err != nil {
		return err
	}
	if err := c.zeroTails(); err != nil {
		return err
	}
	if err := c.all((*target).settle); err != nil {
		return err
	}
	return c.all(func(t *target) {
		t.end(c.size)
		t.sync()
	})
}

// allocate has new targets own the storage for data that comes. It does not do so
// where zeros in the data are not written.
func (c *copier) allocate(ext []Extent) {
	if c.size < 0 || c.o.Sparse == SparseDetect {
		return
	}
	c.alive(func(t *target) bool {
		for i, e := range ext {
			end := e.End()
			if i == len(ext)-1 {
				end = c.holes.dataEnd(end)
			}
			if !e.Zero {
				t.allocate(e, end)
			}
		}
		return true
	})
}

// put sends the bytes of ch to all targets.
func (c *copier) put(ch *chunk, ext []Extent) {
	c.alive(func(t *target) bool { t.put(ch, ext); return true })
}

// told says how far the slowest target is.
func (c *copier) told() {
	least := int64(-1)
	c.alive(func(t *target) bool {
		if least < 0 || t.done < least {
			least = t.done
		}
		return true
	})
	if least > c.meter.now.Done {
		c.meter.add(least - c.meter.now.Done)
	}
}

// fits says what keeps t from taking size bytes of a source (-1: not known).
func (t *target) fits(size int64, source string, o Options) error {
	refuse := func(err error) error { return &OpError{Op: "copy to", Name: t.dst.name, Off: -1, Err: err} }
	_, readable := t.dst.dst.(io.ReaderAt)
	switch {
	case size > t.dst.dst.Size():
		return refuse(fmt.Errorf("%q: %w: %d bytes for %d", source, ErrTooSmall, t.dst.dst.Size(), size))
	case o.Delta && t.fresh:
		return refuse(errors.New("a new target has nothing to compare with"))
	case (o.Verify || t.holdBack || o.Delta || len(t.patches) > 0) && !readable:
		return refuse(fmt.Errorf("it cannot be read back: %w", errors.ErrUnsupported))
	case len(t.patches) > 0 && size < 0:
		return refuse(errNoSize)
	}
	for _, p := range t.patches {
		if p.Off < 0 || p.end() > t.dst.dst.Size() {
			return refuse(fmt.Errorf("a patch of %d bytes at %d does not lie in it", len(p.Data), p.Off))
		}
	}
	return nil
}
