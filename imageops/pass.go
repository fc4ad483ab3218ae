package imageops

import (
	"imgward/imageops/engine"
)

// A pass reads size bytes of an endpoint once, chunk by chunk, and hashes them.
type pass struct {
	flow  *flow
	end   *endpoint
	size  int64
	holes *holes // nil: all is data
	sums  *sums

	read func(n int64)                // so many bytes were read
	got  func(c *chunk, ext []Extent) // the bytes of c are there, and this is what they are; may change them
	done func(n int64)                // so many bytes were read and are in the tree

	off int64
}

// run is the hot loop: what is wholly a hole is not read, and whatever got
// starts (writes, mostly) goes on beside the hashing.
func (p *pass) run() error {
	defer p.sums.abandon()
	if p.size == 0 {
		return p.flow.run(nil)
	}
	return p.flow.run(p.begin)
}

func (p *pass) begin(c *chunk) (more bool) {
	n := min(int64(len(c.buf)), p.size-p.off)
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
	if len(ext) == 1 && ext[0].Zero {
		c.data = p.flow.zeros[:n]
		p.pass(c, ext)
		return p.off < p.size
	}
	p.flow.do(c, &engine.Op{Kind: engine.Read, End: p.end, Off: c.off, Buf: c.data}, func() {
		p.read(n)
		p.pass(c, ext)
	})
	return p.off < p.size
}

func (p *pass) pass(c *chunk, ext []Extent) {
	p.got(c, ext)
	p.sums.add(c, func() { p.done(int64(len(c.data))) })
}
