package imageops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
)

// holes walks the extents of a source, in order, beside the chunks.
type holes struct {
	next  func() (Extent, error, bool)
	stop  func()
	cur   Extent
	block int64 // what is zero is told in whole blocks, at multiples of the block
	size  int64 // of the source
	name  string
}

// newHoles asks src for its extents, unless it has none to tell, or they are not
// wanted. What was written to it and has not come to the storage yet is brought
// there first: some file systems tell a hole where only the cache has data.
func newHoles(ctx context.Context, src Source, name string, ask bool, block int64) (*holes, error) {
	h := &holes{block: block, size: src.Size(), name: name, stop: func() {}}
	x, ok := src.(Extenter)
	if !ok || !ask || h.size <= 0 {
		return h, nil
	}
	if s, ok := src.(Flusher); ok {
		if err := s.Flush(); err != nil {
			return nil, named(err, "flush", name, -1)
		}
	}
	h.next, h.stop = iter.Pull2(x.Extents(ctx, 0, h.size))
	return h, nil
}

// layout divides n bytes at off into data and zeros. It is called with ranges
// that follow each other. Zeros that do not fill a block are data, and so is what
// no extent covers.
func (h *holes) layout(off, n int64) ([]Extent, error) {
	var out []Extent
	at, end := off, off+n
	for {
		if h.cur.Zero {
			from := roundUp(max(h.cur.Off, at), h.block)
			to := roundDown(min(h.cur.End(), end), h.block)
			if from < to {
				out = appendExtent(out, Extent{Off: at, Len: from - at})
				out = appendExtent(out, Extent{Off: from, Len: to - from, Zero: true})
				at = to
			}
		}
		if h.cur.End() >= end || h.next == nil {
			return appendExtent(out, Extent{Off: at, Len: end - at}), nil
		}
		if err := h.advance(); err != nil {
			return nil, err
		}
	}
}

// dataEnd is where the data ends that the last layout came to at its end, at; that is
// at itself, if zeros follow or were there.
func (h *holes) dataEnd(at int64) int64 {
	switch {
	case h.next == nil:
		return h.size
	case h.cur.Zero:
		return max(at, min(h.cur.Off, h.size))
	}
	return max(at, h.cur.End())
}

// advance goes to the next extent; next is nil behind the last.
func (h *holes) advance() error {
	e, err, ok := h.next()
	switch {
	case !ok, errors.Is(err, errors.ErrUnsupported) && h.cur.End() == 0:
		h.stop()
		h.next, h.cur = nil, Extent{}
		return nil
	case err != nil:
		return named(err, "map", h.name, h.cur.End())
	case e.Len <= 0 || e.Off < h.cur.End() || e.Len > h.size-e.Off:
		err := fmt.Errorf("extent of %d bytes at %d is out of order or out of range", e.Len, e.Off)
		return &OpError{Op: "map", Name: h.name, Off: h.cur.End(), Err: err}
	}
	h.cur = e
	return nil
}

// classify divides data, which stands at off, into runs of blocks that are zero
// and runs that are not. Blocks are at multiples of block; one that is not
// complete is data. zeros are at least a block of zeros.
func classify(data []byte, off, block int64, zeros []byte) []Extent {
	var out []Extent
	for n := int64(0); n < int64(len(data)); {
		at := off + n
		size := min(roundUp(at+1, block)-at, int64(len(data))-n)
		zero := size == block && bytes.Equal(data[n:n+size], zeros[:size])
		out = appendExtent(out, Extent{Off: at, Len: size, Zero: zero})
		n += size
	}
	return out
}

// appendExtent makes one extent of neighbours of the same kind, and nothing of an empty one.
func appendExtent(out []Extent, e Extent) []Extent {
	if e.Len == 0 {
		return out
	}
	if n := len(out); n > 0 && out[n-1].Zero == e.Zero && out[n-1].End() == e.Off {
		out[n-1].Len += e.Len
		return out
	}
	return append(out, e)
}

// roundDown is n rounded down to a multiple of block, a power of two.
func roundDown(n, block int64) int64 { return n &^ (block - 1) }

// roundUp is n rounded up to a multiple of block, a power of two.
func roundUp(n, block int64) int64 { return roundDown(n+block-1, block) }
