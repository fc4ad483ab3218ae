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

// maxRanges is how many ranges a report has. Where more were changed, here and there,
// those that lie nearest to each other are joined with what is between them.
const maxRanges = 1 << 14

// touch notes that n bytes of the target at off may be others from now on.
func (r *Report) touch(off, n int64) {
	r.Touched = true
	(*ranges)(&r.Ranges).add(off, n)
	for gap := int64(1 << 20); len(r.Ranges) > maxRanges; gap *= 2 {
		(*ranges)(&r.Ranges).join(gap)
	}
}

// join joins ranges with less than gap bytes between them.
func (r *ranges) join(gap int64) {
	out := (*r)[:0]
	for _, e := range *r {
		if n := len(out); n > 0 && e.Off-out[n-1].End() < gap {
			out[n-1].Len = e.End() - out[n-1].Off
			continue
		}
		out = append(out, e)
	}
	*r = out
}
