package imageops

import (
	"context"
	"errors"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// A chunk is one piece of memory and the bytes that are in it for now.
type chunk struct {
	buf  []byte
	off  int64
	data []byte // of buf, or of flow.zeros
	uses int    // ops and others that still need it
}

// A flow keeps chunks moving through an engine. One goroutine owns it: that
// goroutine starts all ops, takes them back, and runs what follows them. The
// first error ends it: nothing more is started, and run returns when the last op
// in flight has come back.
type flow struct {
	ctx     context.Context
	stop    context.CancelCauseFunc
	eng     engine.Engine
	own     bool // eng ends with the flow
	mem     *blockio.Arena
	depth   int
	chunk   int // bytes of a chunk that are read at a time
	free    []*chunk
	flying  int
	zeros   []byte        // a chunk of them; nobody writes here
	each    func()        // called between requests; nil: nothing
	nudge   chan struct{} // what is sent here makes run call each though no request comes back; nil: nobody sends
	came    chan returned // what Wait returned to the goroutine that waits beside the nudges
	waits   bool          // there is one
	inspect func(*flow)
}

// A step is what an op is for: it holds a chunk, and something comes after it.
type step struct {
	chunk *chunk
	then  func()      // after it has come back without an error
	fail  func(error) // after it has come back with one
}

type returned struct {
	op  *engine.Op
	err error
}

// errStuck cannot happen: it is returned where a result would be wrong if it did.
var errStuck = errors.New("internal error: the copy stopped before its end")

// newFlow makes o.QueueDepth chunks of size bytes.
func newFlow(ctx context.Context, o Options, size int) (*flow, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	mem, err := blockio.NewArena(o.QueueDepth+1, size)
	if err != nil {
		return nil, err
	}
	f := &flow{mem: mem, depth: o.QueueDepth, chunk: o.ChunkSize, eng: o.Engine, inspect: o.inspect, zeros: mem.Chunk(o.QueueDepth)}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	for i := range f.depth {
		f.free = append(f.free, &chunk{buf: mem.Chunk(i)})
	}
	if f.own = f.eng == nil; f.own {
		f.eng = engine.Pool(o.QueueDepth)
	}
	if o.Rate > 0 {
		f.eng = engine.Limited(f.eng, o.Rate)
	}
	return f, nil
}

// close ends the flow, after run has returned. With requests in flight, which
// only an engine that broke its promises leaves, the memory is theirs and stays.
func (f *flow) close() error {
	f.stop(nil)
	if f.inspect != nil {
		f.inspect(f)
	}
	if f.flying > 0 {
		return engine.ErrBusy
	}
	var err error
	if f.own {
		err = f.eng.Close()
	}
	return errors.Join(err, f.mem.Close())
}

// fail makes err the reason why the flow ends, if it is the first.
func (f *flow) fail(err error) { f.stop(err) }

// run calls begin with a free chunk again and again, until begin returns false,
// and carries on until nothing is in flight. It may be called several times, one
// after the other, and with no begin it only drains.
func (f *flow) run(begin func(*chunk) (more bool)) error {
	more := begin != nil
	for {
		if f.each != nil {
			f.each()
		}
		for more && len(f.free) > 0 && f.ctx.Err() == nil {
			more = f.with(begin)
		}
		if f.flying == 0 {
			if more {
				f.fail(errStuck) // unless something else was first
			}
			return context.Cause(f.ctx)
		}
		op, err := f.wait()
		if err != nil {
			f.fail(err)
			return err
		}
		if op == nil {
			continue // a nudge
		}
		f.flying--
		s := op.Tag.(step)
		if op.Err != nil {
			s.fail(opError(op))
		} else if s.then != nil {
			s.then()
		}
		f.release(s.chunk)
	}
}

// wait is Wait of the engine, and nil when a nudge comes first. What comes back
// meanwhile is what the next wait returns. It is called with requests in flight.
func (f *flow) wait() (*engine.Op, error) {
	if f.nudge == nil {
		return f.eng.Wait()
	}
	if !f.waits {
		f.waits = true
		go func() {
			op, err := f.eng.Wait()
			f.came <- returned{op, err}
		}()
	}
	select {
	case r := <-f.came:
		f.waits = false
		return r.op, r.err
	case <-f.nudge:
		return nil, nil
	}
}

// nudged makes the flow one that can be nudged, by what it returns.
func (f *flow) nudged() func() {
	f.nudge, f.came = make(chan struct{}, 1), make(chan returned)
	return func() {
		select {
		case f.nudge <- struct{}{}:
		default: // one is on its way
		}
	}
}

// with takes a chunk off the free list for begin. It is free again at once if
// begin starts nothing with it.
func (f *flow) with(begin func(*chunk) bool) bool {
	c := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	f.hold(c)
	defer f.release(c)
	return begin(c)
}

// do starts an op that needs c (nil: no chunk) until it is back. then is called
// after it has come back without an error. Once the flow has failed nothing is started.
func (f *flow) do(c *chunk, op *engine.Op, then func()) { f.start(op, step{c, then, f.fail}) }

// start starts an op, and reports whether it did.
func (f *flow) start(op *engine.Op, s step) bool {
	op.Tag = s
	if err := f.eng.Start(f.ctx, op); err != nil {
		f.fail(err)
		return false
	}
	f.hold(s.chunk)
	f.flying++
	return true
}

// hold keeps c out of the free list until a release more.
func (f *flow) hold(c *chunk) {
	if c != nil {
		c.uses++
	}
}

func (f *flow) release(c *chunk) {
	if c == nil {
		return
	}
	if c.uses--; c.uses == 0 {
		f.free = append(f.free, c)
	}
}
