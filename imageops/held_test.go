package imageops

import (
	"bytes"
	"slices"
	"testing"
)

func TestHeldParts(t *testing.T) {
	const m = heldBytes
	for _, size := range []int64{0, 1, 4096, m - 1, m, m + 1, 2*m - 1, 2 * m, 2*m + 1, 2*m + 4096, 5*m + 100} {
		h := newHeld(size, 4096)
		head, tail := h.head, h.tail
		switch {
		case head.off != 0 || head.end() != min(size, m):
			t.Errorf("%d: head is %d to %d", size, head.off, head.end())
		case tail.end() != size || tail.off < head.end() || size > 2*m+4096 && tail.off%4096 != 0:
			t.Errorf("%d: tail is %d to %d", size, tail.off, tail.end())
		case tail.off > max(head.end(), size-m) || len(tail.buf) >= m+4096:
			t.Errorf("%d: %d bytes of tail from %d", size, len(tail.buf), tail.off)
		}
		all := noise(int(size), 1)
		for _, step := range []int64{4096, 100000, m, 3 * m} {
			free := int64(0)
			for off := int64(0); off < size; off += step {
				n := min(step, size-off)
				h.take(all[off:off+n], off)
				for _, e := range h.free(Extent{Off: off, Len: n}) {
					if e.Len <= 0 || e.Off < head.end() || e.End() > tail.off || e.Off < off || e.End() > off+n {
						t.Errorf("%d: free of %d bytes at %d is %+v", size, n, off, e)
					}
					free += e.Len
				}
			}
			if free != tail.off-head.end() {
				t.Errorf("%d: %d bytes are not held back, want %d", size, free, tail.off-head.end())
			}
			got := make([]byte, size)
			copy(got[head.end():tail.off], all[head.end():tail.off])
			for off := int64(0); off < size; off += step {
				h.lay(got[off:min(off+step, size)], off)
			}
			if !bytes.Equal(got, all) {
				t.Errorf("%d: in steps of %d something is lost", size, step)
			}
		}
	}
}

func TestNothingIsHeldBackByDefault(t *testing.T) {
	var h held
	if parts := h.parts(); len(parts) != 0 {
		t.Errorf("%d parts", len(parts))
	}
	if e := (Extent{Off: 5, Len: 7, Zero: true}); !slices.Equal(h.free(e), []Extent{e}) {
		t.Errorf("free of %+v is %+v", e, h.free(e))
	}
}
