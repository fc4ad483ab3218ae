package imageops

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"imgward/imageops/engine"
)

// sector is the unit in which Compare tells a difference.
const sector = 512

// Compare reads a and b once, side by side, and returns nil if they are equal.
// If not, the error is a *MismatchError with the first run of 512-byte sectors
// that differ; a run ends with its chunk. Of different sizes, what the longer
// one has more differs. Report.Read counts both, and no digest is computed.
func Compare(ctx context.Context, a, b Source, o Options) (rep Report, err error) {
	start := time.Now()
	defer func() { rep.Elapsed = time.Since(start) }()
	o.Digest, o.Also = DigestNone, nil
	rep.DigestKind = DigestNone
	if o, err = o.filled(a, b); err != nil {
		return rep, err
	}
	c := &comparer{
		a:     &endpoint{name: nameOf(a, "first"), r: a},
		b:     &endpoint{name: nameOf(b, "second"), r: b},
		size:  min(a.Size(), b.Size()),
		chunk: o.ChunkSize,
		rep:   &rep,
	}
	if c.size < 0 {
		return rep, &OpError{Op: "compare", Name: c.b.name, Off: -1, Err: fmt.Errorf("with %q: %w", c.a.name, errNoSize)}
	}
	if c.flow, err = newFlow(ctx, o, 2*o.ChunkSize); err != nil {
		return rep, err
	}
	defer func() {
		if cerr := c.flow.close(); err == nil {
			err = cerr
		}
	}()
	rep.Engine, rep.ChunkSize = c.flow.eng.String(), o.ChunkSize
	c.meter = newMeter("compare", c.size, o.Progress)
	if err := c.run(); err != nil {
		return rep, err
	}
	if more := max(a.Size(), b.Size()) - c.size; more > 0 {
		c.differs(c.size, more)
	}
	if c.diff != nil {
		return rep, c.diff
	}
	return rep, nil
}

// A comparer is one comparison. A chunk of its flow has room for both sides.
type comparer struct {
	flow  *flow
	a, b  *endpoint
	size  int64 // of the shorter one
	chunk int
	off   int64 // where the next chunk begins
	diff  *MismatchError
	meter *meter
	rep   *Report
}

// run compares as much as both have, up to the first difference.
func (c *comparer) run() error {
	if c.size == 0 {
		return c.flow.run(nil)
	}
	if err := c.flow.run(c.begin); err != nil {
		return err
	}
	if c.diff == nil && !c.meter.full() {
		return errStuck
	}
	return nil
}

func (c *comparer) begin(ch *chunk) (more bool) {
	off, n := c.off, min(int64(c.chunk), c.size-c.off)
	c.off += n
	a, b := ch.buf[:n], ch.buf[c.chunk:][:n]
	missing := 2
	arrived := func() {
		c.rep.Read += n
		if missing--; missing == 0 {
			c.look(ch, off, a, b)
		}
	}
	c.flow.do(ch, &engine.Op{Kind: engine.Read, End: c.a, Off: off, Buf: a}, arrived)
	c.flow.do(ch, &engine.Op{Kind: engine.Read, End: c.b, Off: off, Buf: b}, arrived)
	return c.off < c.size && c.diff == nil
}

// look compares the bytes that both have at off.
func (c *comparer) look(ch *chunk, off int64, a, b []byte) {
	var first, run int64
	c.flow.do(ch, &engine.Op{Kind: engine.Call, Do: func() error {
		first, run = firstDifference(a, b)
		return nil
	}}, func() {
		if run > 0 {
			c.differs(off+first, run)
			return
		}
		c.rep.Verified += int64(len(a))
		c.meter.add(int64(len(a)))
	})
}

// differs takes a difference down, if it is the first by offset. Chunks before
// the one that showed it are all in flight or done.
func (c *comparer) differs(off, n int64) {
	if c.diff == nil || off < c.diff.Off {
		c.diff = &MismatchError{Name: c.b.name, Other: c.a.name, Off: off, Len: n}
	}
}

// firstDifference is the first run of sectors in which a and b, equally long,
// differ; n is 0 if they are equal.
func firstDifference(a, b []byte) (off, n int64) {
	if bytes.Equal(a, b) {
		return 0, 0
	}
	for at := 0; at < len(a); at += sector {
		end := min(at+sector, len(a))
		equal := bytes.Equal(a[at:end], b[at:end])
		if equal && n > 0 {
			break
		}
		if !equal {
			if n == 0 {
				off = int64(at)
			}
			n += int64(end - at)
		}
	}
	return off, n
}
