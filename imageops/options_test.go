package imageops

import (
	"testing"

	"imgward/imageops/blockio"
)

// turning is a disk that turns.
type turning struct{ *disk }

func (turning) Limits() blockio.Limits {
	return blockio.Limits{Logical: 512, Physical: 4096, OffAlign: 512, MemAlign: 512, Rotational: true}
}

// What is not told is chosen by what the endpoints say, and what is told holds.
func TestChunksAreChosen(t *testing.T) {
	still := &disk{bytes: make([]byte, 1000)}
	src := &image{bytes: noise(1000, 1)}
	for _, x := range []struct {
		what  string
		dst   Dest
		o     Options
		chunk int
		eng   string
	}{
		{"a disk that does not turn", still, Options{}, 2 << 20, "pool of 8"},
		{"one that does", turning{still}, Options{}, 4 << 20, "pool of 4"},
		{"told", turning{still}, Options{ChunkSize: 1 << 20, QueueDepth: 3}, 1 << 20, "pool of 3"},
		{"large chunks", still, Options{ChunkSize: 4 << 20}, 4 << 20, "pool of 4"},
		{"the largest", still, Options{ChunkSize: 64 << 20, Delta: true}, 64 << 20, "pool of 2"},
		{"small chunks", still, Options{ChunkSize: 4 << 10}, 4 << 10, "pool of 8"},
		{"a delta", still, Options{Delta: true}, 2 << 20, "pool of 6"},
		{"a manifest", turning{still}, Options{Manifest: true}, 2 << 20, "pool of 8"},
	} {
		rep, err := Copy(t.Context(), x.dst, src, whole(t, x.o))
		if err != nil || rep.ChunkSize != x.chunk || rep.Engine != x.eng {
			t.Errorf("%s: chunks of %d by a %s, %v", x.what, rep.ChunkSize, rep.Engine, err)
		}
	}
}
