package imageops

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

// held is what is held back of a target: its head and its tail. With nothing
// held back both are empty.
type held struct {
	head, tail part
}

// newHeld holds back the first and last MiB of size bytes; a little more at the
// end, so that the tail begins at a multiple of align, and all of a target that
// is no larger than both.
func newHeld(size, align int64) held {
	n := min(heldBytes, size)
	tail := max(n, roundDown(max(size-heldBytes, 0), align))
	return held{head: part{0, make([]byte, n)}, tail: part{tail, make([]byte, size-tail)}}
}

// parts are those that are not empty, in the order in which they are given back:
// the head, without which nothing boots, last.
func (h held) parts() []part {
	var out []part
	for _, p := range []part{h.tail, h.head} {
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

// middle is what is not held back of e.
func (h held) middle(e Extent) Extent {
	if len(h.parts()) == 0 {
		return e
	}
	lo, hi := max(e.Off, h.head.end()), min(e.End(), h.tail.off)
	return Extent{Off: lo, Len: max(0, hi-lo), Zero: e.Zero}
}
