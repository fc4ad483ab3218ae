package imageops

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// treeSum hashes b in chunks that come in random order. A stream tells its size at
// the end.
func treeSum(b []byte, chunkSize int, seed uint64, stream bool) []byte {
	t := newTree(int64(len(b)), chunkSize)
	if stream {
		t = newTree(-1, chunkSize)
	}
	chunks := chunksOf(int64(len(b)), chunkSize)
	for _, i := range rand.New(rand.NewPCG(seed, 4)).Perm(int(chunks)) {
		off := i * chunkSize
		t.add(uint64(i), subtree(b[off:min(off+chunkSize, len(b))], int64(off)))
	}
	if stream {
		t.end(chunks)
	}
	return t.sum()
}

func TestTreeIsBLAKE3ForEveryLength(t *testing.T) {
	all := noise(300<<10, 1)
	lengths := map[int]bool{}
	for n := range 70 {
		lengths[n] = true
	}
	for k := 6; k <= 18; k++ {
		for d := -1; d <= 1; d++ {
			lengths[1<<k+d], lengths[3<<(k-1)+d], lengths[5<<(k-2)+d] = true, true, true
		}
	}
	for n := range lengths {
		if n > len(all) {
			continue
		}
		want := blake3.Sum256(all[:n])
		for _, chunkSize := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20} {
			for _, stream := range []bool{false, true} {
				if got := treeSum(all[:n], chunkSize, uint64(n), stream); !bytes.Equal(got, want[:]) {
					t.Errorf("%d bytes in chunks of %d, stream %v: %x, want %x", n, chunkSize, stream, got, want)
				}
			}
		}
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte(nil), uint8(0), uint64(0))
	f.Add([]byte("abc"), uint8(2), uint64(1))
	f.Add(make([]byte, 5000), uint8(0), uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, k uint8, seed uint64) {
		b = bytes.Repeat(b, 1+int(seed%97))
		want := blake3.Sum256(b)
		if got := treeSum(b, 1<<(10+k%8), seed, k >= 128); !bytes.Equal(got, want[:]) {
			t.Errorf("%d bytes: %x, want %x", len(b), got, want)
		}
	})
}

func TestTreeIsNoDigestBeforeItIsWhole(t *testing.T) {
	b := noise(7<<10, 1)
	for missing := range 7 {
		tr := newTree(7<<10, 1<<10)
		for i := range 7 {
			if i != missing {
				tr.add(uint64(i), subtree(b[i<<10:(i+1)<<10], int64(i)<<10))
			}
		}
		if sum := tr.sum(); sum != nil {
			t.Errorf("without chunk %d: %x", missing, sum)
		}
		tr = newTree(-1, 1<<10)
		for i := range 7 {
			if i != missing {
				tr.add(uint64(i), subtree(b[i<<10:(i+1)<<10], int64(i)<<10))
			}
		}
		if sum := tr.sum(); sum != nil {
			t.Errorf("a stream before its end, without chunk %d: %x", missing, sum)
		}
		if tr.end(7); tr.sum() != nil {
			t.Errorf("a stream without chunk %d: %x", missing, tr.sum())
		}
	}
}

// Chunks come nearly in order when a few are in flight; then only a few nodes wait.
func TestTreeMemoryIsBounded(t *testing.T) {
	const chunks, depth = 5000, 16
	tr := newTree(chunks<<10, 1<<10)
	b := make([]byte, 1<<10)
	node := subtree(b, 0)
	late := map[uint64]bool{}
	most := 0
	add := func(i uint64) {
		tr.add(i, node)
		most = max(most, len(tr.halves))
	}
	for i := range uint64(chunks) {
		if i%311 == 0 && len(late) < depth {
			late[i] = true // as if it never came back
			continue
		}
		add(i)
	}
	if limit := (depth + 1) * bits.Len(chunks); most > limit {
		t.Errorf("%d nodes wait, want at most %d", most, limit)
	}
	for i := range late {
		add(i)
	}
	if tr.sum() == nil || len(tr.halves) != 0 {
		t.Errorf("complete, and %d nodes wait", len(tr.halves))
	}
}

func TestTreeDifference(t *testing.T) {
	for _, chunks := range []int{1, 2, 3, 4095, 4096, 4097, 10000, 20001} {
		t.Run(fmt.Sprint(chunks), func(t *testing.T) {
			nodes := make([]guts.Node, chunks)
			for i := range nodes {
				nodes[i] = subtree([]byte{byte(i), byte(i >> 8)}, int64(i)<<10)
			}
			build := func(bad int) *tree {
				tr := newTree(int64(chunks)<<10, 1<<10)
				for i, n := range nodes {
					if i == bad {
						n = subtree([]byte("bad"), int64(i)<<10)
					}
					tr.add(uint64(i), n)
				}
				return tr
			}
			good := build(-1)
			stream := newTree(-1, 1<<10)
			for i, n := range nodes {
				stream.add(uint64(i), n)
			}
			stream.end(uint64(chunks))
			like := newTree(int64(chunks)<<10, 1<<10)
			like.markLike(stream)
			for i, n := range nodes {
				like.add(uint64(i), n)
			}
			if i, n := stream.differs(like); n != 0 || len(stream.marks) != len(like.marks) || !bytes.Equal(stream.sum(), good.sum()) {
				t.Errorf("a stream differs from its read-back in %d chunks at %d", n, i)
			}
			if i, n := good.differs(build(-1)); n != 0 {
				t.Errorf("equal trees differ in %d chunks at %d", n, i)
			}
			if len(good.marks) > maxMarks {
				t.Errorf("%d marks", len(good.marks))
			}
			for _, bad := range []int{0, 1, chunks / 2, chunks - 2, chunks - 1} {
				if bad < 0 || bad >= chunks {
					continue
				}
				i, n := good.differs(build(bad))
				if n == 0 || uint64(bad) < i || uint64(bad) >= i+n || chunks <= maxMarks && n != 1 {
					t.Errorf("chunk %d is bad, and the trees differ in %d at %d", bad, n, i)
				}
			}
		})
	}
}

func BenchmarkSubtree(b *testing.B) {
	for _, size := range []int{16 << 10, 2 << 20, 64 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := noise(size, 1)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				subtree(p, 0)
			}
		})
	}
}
