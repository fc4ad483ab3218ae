package imageops

import (
	"imgward/imageops/engine"
)

// A pass reads size bytes of an endpoint once, chunk by chunk, and hashes them.
type pass struct {
	flow  *flow
	end   *endpoint
	do    func(*chunk, *engine.Op, func()) // starts the reads
	size  int64                            // -1: up to where the endpoint says io.EOF, and then that
	holes *holes                           // nil: all is data
	sums  *sums

	read   func(n int64)                // so many bytes were read
	got    func(c *chunk, ext []Extent) // the bytes of c are there, and this is what they are; may change them
	plan   func(ext []Extent)           // nil, or told of what will be read next, in order
	done   func(n int64)                // so many bytes were read and are in the tree
	failed func() bool                  // nil, or whether to stop early
	want   func(off int64) int64        // nil, or where the first chunk from off on is that is to be read, or the end

	off    int64
	stream bool
}

// run is the hot loop: what is wholly a hole is not read, and whatever got
// starts (writes, mostly) goes on beside the hashing.
func (p *pass) run() error {
	defer p.sums.abandon()
	p.stream = p.size < 0
	if p.size == 0 {
		return p.flow.run(nil)
	}
	if err := p.flow.run(p.begin); err != nil {
		return err
	}
	if p.size < 0 {
		return errStuck
	}
	if p.stream {
		p.sums.end(p.size)
	}
	return nil
}

// more reports whether there is something left to read.
func (p *pass) more() bool {
	if p.failed != nil && p.failed() {
		return false
	}
	return p.size < 0 || p.off < p.size
}

func (p *pass) begin(c *chunk) (more bool) {
	if !p.more() {
		return false // a stream ended, or the endpoint failed, since the last chunk
	}
	if p.want != nil {
		if p.off = p.want(p.off); !p.more() {
			return false
		}
	}
	n := int64(p.flow.chunk)
	if p.size >= 0 {
		n = min(n, p.size-p.off)
	}
	c.off, c.data = p.off, c.buf[:n]
	p.off += n
	ext := []Extent{{Off: c.off, Len: n}}
	if p.holes != nil {
		var err error
		if ext, err = p.holes.layout(c.off, n); err != nil {
			p.flow.fail(err)
			return false
		}
	}
	if p.plan != nil {
		p.plan(ext)
	}
	if len(ext) == 1 && ext[0].Zero {
		c.data = p.flow.zeros[:n]
		p.pass(c, ext)
		return p.more()
	}
	op := &engine.Op{Kind: engine.Read, End: p.end, Off: c.off, Buf: c.data, Ends: p.stream}
	p.do(c, op, func() {
		if got := int64(op.N); got < n {
			p.ended(c.off + got)
			c.data, ext[0].Len = c.data[:got], got
			if got == 0 {
				return
			}
		}
		p.read(int64(len(c.data)))
		p.pass(c, ext)
	})
	return p.more()
}

// ended is called with where a stream ended, by each chunk that is not full.
func (p *pass) ended(at int64) {
	if p.size < 0 || at < p.size {
		p.size = at
	}
}

func (p *pass) pass(c *chunk, ext []Extent) {
	p.got(c, ext)
	p.sums.add(c, func() { p.done(int64(len(c.data))) })
}
