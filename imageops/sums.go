package imageops

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"lukechampine.com/blake3/guts"

	"imgward/imageops/engine"
)

// sums are the digests that are computed while chunks pass by.
type sums struct {
	flow *flow
	size int64     // of a chunk
	tree *tree     // nil: none
	seq  *sequence // nil: none
}

// newSums computes kind over size bytes, and a tree beside it if one is needed anyway.
func newSums(f *flow, kind DigestKind, needTree bool, size int64, chunkSize int) *sums {
	s := &sums{flow: f, size: int64(chunkSize)}
	switch kind {
	case BLAKE3:
		needTree = true
	case SHA256:
		s.seq = newSequence(f, sha256.New())
	case SHA512:
		s.seq = newSequence(f, sha512.New())
	}
	if needTree {
		s.tree = newTree(size, chunkSize)
		if size == 0 {
			s.tree.add(0, subtree(nil, 0))
		}
	}
	return s
}

// add hashes the bytes of c, and calls then when its bytes are in the tree.
func (s *sums) add(c *chunk, then func()) {
	if s.seq != nil {
		s.seq.add(c)
	}
	if s.tree == nil {
		then()
		return
	}
	var node guts.Node
	s.flow.do(c, &engine.Op{Kind: engine.Call, Do: func() error {
		node = subtree(c.data, c.off)
		return nil
	}}, func() {
		s.tree.add(uint64(c.off/s.size), node)
		then()
	})
}

// sum is the digest of that kind; nil if bytes are missing.
func (s *sums) sum(kind DigestKind, size int64) []byte {
	switch {
	case kind == BLAKE3:
		return s.tree.sum()
	case s.seq != nil && s.seq.next == size:
		return s.seq.hash.Sum(nil)
	}
	return nil
}

// abandon gives back the chunks that a failed flow will not hash any more.
func (s *sums) abandon() {
	if s.seq != nil {
		s.seq.abandon()
	}
}

// A sequence hashes chunks in order of offset with a hash that needs order. One
// chunk is being hashed at a time, beside the I/O; those that came too early are
// parked. The chunk that is waited for is always in flight, because chunks are
// begun in order.
type sequence struct {
	flow   *flow
	hash   hash.Hash
	next   int64 // offset of the byte that is hashed next
	busy   bool
	parked map[int64]*chunk
}

func newSequence(f *flow, h hash.Hash) *sequence {
	return &sequence{flow: f, hash: h, parked: map[int64]*chunk{}}
}

func (q *sequence) add(c *chunk) {
	q.flow.hold(c)
	q.parked[c.off] = c
	q.hashNext()
}

func (q *sequence) hashNext() {
	c, ok := q.parked[q.next]
	if !ok || q.busy {
		return
	}
	q.busy = true
	delete(q.parked, q.next)
	q.flow.do(c, &engine.Op{Kind: engine.Call, Do: func() error {
		q.hash.Write(c.data) // never an error: hash.Hash
		return nil
	}}, func() {
		q.busy = false
		q.next += int64(len(c.data))
		q.hashNext()
	})
	q.flow.release(c)
}

func (q *sequence) abandon() {
	for off, c := range q.parked {
		delete(q.parked, off)
		q.flow.release(c)
	}
}
