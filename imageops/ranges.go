package imageops

import (
	"cmp"
	"slices"
)

// ranges are ranges of bytes in order, none of which touches the next. Requests
// come nearly in order, so that there are hardly more of them than requests in
// flight.
type ranges []Extent

// add takes in n bytes at off.
func (r *ranges) add(off, n int64) {
	if n <= 0 {
		return
	}
	// The first that is not wholly before, and the first that is wholly behind.
	from, _ := slices.BinarySearchFunc(*r, off, func(e Extent, off int64) int { return cmp.Compare(e.End(), off) })
	to := from
	end := off + n
	for ; to < len(*r) && (*r)[to].Off <= end; to++ {
		off, end = min(off, (*r)[to].Off), max(end, (*r)[to].End())
	}
	*r = slices.Replace(*r, from, to, Extent{Off: off, Len: end - off})
}

// touch notes that n bytes of the target at off may be others from now on.
func (r *Report) touch(off, n int64) {
	r.Touched = true
	(*ranges)(&r.Ranges).add(off, n)
}
