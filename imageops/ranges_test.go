package imageops

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"imgward/imageops/engine"
)

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		add  [][2]int64 // from, to
		want string
	}{
		{nil, "[]"},
		{[][2]int64{{5, 5}}, "[]"},
		{[][2]int64{{5, 9}}, "[5-9]"},
		{[][2]int64{{5, 9}, {9, 12}}, "[5-12]"},
		{[][2]int64{{5, 9}, {10, 12}}, "[5-9 10-12]"},
		{[][2]int64{{5, 9}, {3, 5}}, "[3-9]"},
		{[][2]int64{{5, 9}, {3, 4}}, "[3-4 5-9]"},
		{[][2]int64{{5, 9}, {6, 8}}, "[5-9]"},
		{[][2]int64{{5, 9}, {4, 10}}, "[4-10]"},
		{[][2]int64{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {1, 6}}, "[0-7]"},
		{[][2]int64{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {3, 4}}, "[0-1 2-5 6-7]"},
	} {
		var r ranges
		for _, a := range tt.add {
			r.add(a[0], a[1]-a[0])
		}
		if got := spell(r); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.add, got, tt.want)
		}
	}
}

// ranges are where the disk was changed.
func (d *disk) ranges() ranges {
	var r ranges
	for _, e := range d.events {
		if e.kind != engine.Sync {
			r.add(e.off, e.n)
		}
	}
	return r
}

func spell(es []Extent) string {
	var out []string
	for _, e := range es {
		out = append(out, fmt.Sprintf("%d-%d", e.Off, e.End()))
	}
	return fmt.Sprint(out)
}

// However ranges come, they are what a list of single bytes says.
func TestRangesAreExact(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r ranges
		var bytes [64]bool
		for range 20 {
			off := rnd.Int64N(60)
			n := rnd.Int64N(4)
			r.add(off, n)
			for i := off; i < off+n; i++ {
				bytes[i] = true
			}
		}
		var want ranges
		for i, b := range bytes {
			if b {
				want = ranges(appendExtent(want, Extent{Off: int64(i), Len: 1}))
			}
		}
		if !slices.Equal(r, want) {
			t.Fatalf("seed %d: %s, want %s", seed, spell(r), spell(want))
		}
	}
}
