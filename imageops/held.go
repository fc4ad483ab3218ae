package imageops

import "bytes"

// heldBytes is how much is held back at each end of the target.
const heldBytes = 1 << 20

// A part is a range of the target that is held back, and what it will hold.
type part struct {
	off int64
	buf []byte
}

func (p part) end() int64 { return p.off + int64(len(p.buf)) }

// of is how many bytes of the part come from a source of size bytes.
func (p part) of(size int64) int64 { return max(0, min(p.end(), size)-p.off) }

// held is what is held back of a target: its head and its tail, and between them
// what patches change. With nothing held back all are empty.
type held struct {
	head, mid, tail part
	patches         []Patch
}

// newHeld holds back the first and last MiB of size bytes; a little more at the
// end, so that the tail begins at a multiple of align, and all of a target that
// is no larger than both.
func newHeld(size, align int64) held {
	n := min(heldBytes, size)
	tail := max(n, roundDown(max(size-heldBytes, 0), align))
	return held{head: part{0, make([]byte, n)}, mid: part{off: n}, tail: part{tail, make([]byte, size-tail)}}
}

// cover holds back what patches change, too: of what is neither in the head nor in
// the tail one range from the first to the last, of whole multiples of align.
func (h *held) cover(patches []Patch, align int64) {
	h.patches = patches
	lo, hi := h.tail.off, h.head.end()
	for _, p := range patches {
		if from, to := max(p.Off, h.head.end()), min(p.end(), h.tail.off); from < to {
			lo, hi = min(lo, from), max(hi, to)
		}
	}
	if lo < hi {
		lo, hi = max(roundDown(lo, align), h.head.end()), min(roundUp(hi, align), h.tail.off)
		h.mid = part{lo, make([]byte, hi-lo)}
	}
}

// amended is what p will hold in the end.
func (h held) amended(p part) []byte {
	to := held{head: part{p.off, bytes.Clone(p.buf)}}
	for _, patch := range h.patches {
		to.take(patch.Data, patch.Off)
	}
	return to.head.buf
}

// amend makes what is held back what it will be in the end.
func (h held) amend() {
	for _, patch := range h.patches {
		h.take(patch.Data, patch.Off)
	}
}

// parts are those that are not empty, in the order in which they are given back:
// the head, without which nothing boots, last.
func (h held) parts() []part {
	var out []part
	for _, p := range []part{h.mid, h.tail, h.head} {
		if len(p.buf) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// part is the i-th of the parts, if there are so many.
func (h held) part(i int) (part, bool) {
	if all := h.parts(); i < len(all) {
		return all[i], true
	}
	return part{}, false
}

// take keeps what is held back of data, which stands at off.
func (h held) take(data []byte, off int64) {
	for _, p := range h.parts() {
		if lo, hi := max(off, p.off), min(off+int64(len(data)), p.end()); lo < hi {
			copy(p.buf[lo-p.off:hi-p.off], data[lo-off:hi-off])
		}
	}
}

// lay puts what is held back over data, which stands at off.
func (h held) lay(data []byte, off int64) {
	for _, p := range h.parts() {
		if lo, hi := max(off, p.off), min(off+int64(len(data)), p.end()); lo < hi {
			copy(data[lo-off:hi-off], p.buf[lo-p.off:hi-p.off])
		}
	}
}

// free is what is not held back of e: at most two ranges.
func (h held) free(e Extent) []Extent {
	if len(h.parts()) == 0 {
		return []Extent{e}
	}
	var out []Extent
	for _, gap := range [][2]int64{{h.head.end(), h.mid.off}, {h.mid.end(), h.tail.off}} {
		if lo, hi := max(e.Off, gap[0]), min(e.End(), gap[1]); lo < hi {
			out = append(out, Extent{Off: lo, Len: hi - lo, Zero: e.Zero})
		}
	}
	return out
}
