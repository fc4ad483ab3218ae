package imageops

import (
	"bytes"
	"encoding/binary"
	"math"

	"lukechampine.com/blake3/guts"
)

// A tree joins the BLAKE3 hashes of chunks, in whatever order they come, to the
// hash of the whole: BLAKE3 paper, section 2.1. All chunks but the last have the
// same power-of-two size of at least 1 KiB, so each is a complete subtree.
//
// A node waits only for the one beside it. With d chunks in flight no more than
// some d times the height of the tree wait.
type tree struct {
	chunks uint64 // in all; no input is one empty chunk
	halves map[place]guts.Node
	root   guts.Node
	whole  bool

	// marks are all nodes of one level: two trees can be compared by them. The
	// level is the lowest that has no more than maxMarks, where the size is known.
	level int
	marks [][8]uint32
}

// A place is where a node is: its level above the chunks, and its number in there.
type place struct {
	level int
	i     uint64
}

const maxMarks = 4096

// streamLevel is the level of the marks where the size is not known: with chunks
// of 2 MiB, 2 MiB of marks for a TiB.
const streamLevel = 3

// unknown is more chunks than there can be.
const unknown = math.MaxUint64

// newTree makes a tree over size bytes; of a negative size, over as many as end says.
func newTree(size int64, chunkSize int) *tree {
	t := &tree{chunks: unknown, halves: map[place]guts.Node{}, level: streamLevel}
	if size < 0 {
		return t
	}
	t.chunks, t.level = chunksOf(size, chunkSize), 0
	for n := t.chunks; n > maxMarks; n = (n + 1) / 2 {
		t.level++
	}
	return t
}

// chunksOf is how many chunks size bytes are; no bytes are an empty chunk.
func chunksOf(size int64, chunkSize int) uint64 {
	return max(1, (uint64(size)+uint64(chunkSize)-1)/uint64(chunkSize))
}

// markAll makes every chunk of t, which is empty, a mark.
func (t *tree) markAll() { t.level = 0 }

// markLike makes t, which is empty, comparable with o.
func (t *tree) markLike(o *tree) { t.level = o.level }

// add takes the node of the i-th chunk and joins it with all that was waiting for it.
func (t *tree) add(i uint64, node guts.Node) { t.join(0, i, t.chunks, node) }

// join takes the i-th node of n on a level.
func (t *tree) join(level int, i, n uint64, node guts.Node) {
	for ; ; level, i, n = level+1, i/2, n/2+n%2 {
		if level == t.level {
			t.mark(i, guts.ChainingValue(node))
		}
		if n == 1 {
			t.root, t.whole = node, true
			return
		}
		if i == n-1 && i%2 == 0 {
			continue // the last of an odd number has nothing beside it: it goes up as it is
		}
		above := place{level + 1, i / 2}
		other, ok := t.halves[above]
		if !ok {
			t.halves[above] = node
			return
		}
		delete(t.halves, above)
		left, right := guts.ChainingValue(other), guts.ChainingValue(node)
		if i%2 == 0 {
			left, right = right, left
		}
		node = guts.ParentNode(left, right, &guts.IV, 0)
	}
}

// end says how many chunks there are, all of which were added, where that was
// not known: the last node of the lowest level with an odd number of them waits for
// nobody any more.
func (t *tree) end(chunks uint64) {
	t.chunks = chunks
	for level, n := 0, chunks; ; level, n = level+1, n/2 {
		if n%2 == 0 {
			continue
		}
		if node, ok := t.halves[place{level + 1, (n - 1) / 2}]; ok {
			delete(t.halves, place{level + 1, (n - 1) / 2})
			t.join(level, n-1, n, node)
		}
		return
	}
}

// mark takes down the i-th mark.
func (t *tree) mark(i uint64, cv [8]uint32) {
	for uint64(len(t.marks)) <= i {
		t.marks = append(t.marks, [8]uint32{})
	}
	t.marks[i] = cv
}

// sum is the digest, 32 bytes; nil if chunks are missing.
func (t *tree) sum() []byte {
	if !t.whole {
		return nil
	}
	root := t.root
	root.Flags |= guts.FlagRoot
	words := guts.CompressNode(root)
	sum := make([]byte, 0, 32)
	for _, w := range words[:8] {
		sum = binary.LittleEndian.AppendUint32(sum, w)
	}
	return sum
}

// differs is the first range of chunks in which two complete trees of the same
// size differ: n chunks from the i-th; n is 0 if they are equal. A tree that ended
// below the level of its marks has none, and differs as a whole.
func (t *tree) differs(o *tree) (i, n uint64) {
	for k, mark := range t.marks {
		if k >= len(o.marks) || mark != o.marks[k] {
			return uint64(k) << t.level, 1 << t.level
		}
	}
	if !bytes.Equal(t.sum(), o.sum()) {
		return 0, t.chunks
	}
	return 0, 0
}

// lot is what the SIMD code hashes at a time.
const lot = guts.MaxSIMD * guts.ChunkSize

// subtree is the node over p, which stands at byte off of the input, a multiple
// of the size of a chunk. It is not finalised: as the only one it is the root.
func subtree(p []byte, off int64) guts.Node {
	var near [lot]byte      // the SIMD code reads 1 KiB apart, which is slow from far memory
	var stack [32][8]uint32 // complete subtrees, largest first, as the bits of i
	depth := 0
	for i, block := uint64(1), uint64(off)/guts.ChunkSize; ; i, block = i+1, block+guts.MaxSIMD {
		n := copy(near[:], p)
		p = p[n:]
		node := guts.CompressBuffer(&near, n, &guts.IV, block, 0)
		if len(p) == 0 {
			for ; depth > 0; depth-- {
				node = guts.ParentNode(stack[depth-1], guts.ChainingValue(node), &guts.IV, 0)
			}
			return node
		}
		cv := guts.ChainingValue(node)
		for k := i; k&1 == 0; k >>= 1 {
			depth--
			cv = guts.ChainingValue(guts.ParentNode(stack[depth], cv, &guts.IV, 0))
		}
		stack[depth] = cv
		depth++
	}
}
