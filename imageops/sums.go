package imageops

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"lukechampine.com/blake3/guts"

	"imgward/imageops/engine"
)

// sums are the digests that are computed while chunks pass by.
type sums struct {
	flow *flow
	size int64 // of a chunk
	tree *tree // nil: none
	seqs []*sequence
}

// newSums computes the digests of all kinds, each once, over size bytes, and a
// tree beside them if one is needed anyway.
func newSums(f *flow, kinds []DigestKind, needTree bool, size int64, chunkSize int) *sums {
	s := &sums{flow: f, size: int64(chunkSize)}
	for _, kind := range kinds {
		switch {
		case kind == BLAKE3:
			needTree = true
		case s.sequence(kind) != nil:
		case kind == SHA256:
			s.seqs = append(s.seqs, newSequence(f, kind, sha256.New()))
		case kind == SHA512:
			s.seqs = append(s.seqs, newSequence(f, kind, sha512.New()))
		}
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
	for _, q := range s.seqs {
		q.add(c)
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
	if kind == BLAKE3 {
		return s.tree.sum()
	}
	if q := s.sequence(kind); q != nil && q.next == size {
		return q.hash.Sum(nil)
	}
	return nil
}

// end says that the source of unknown size has size bytes, all of which were added.
func (s *sums) end(size int64) {
	if s.tree == nil {
		return
	}
	if size == 0 {
		s.tree.add(0, subtree(nil, 0))
	}
	s.tree.end(chunksOf(size, int(s.size)))
}

// sequence is the one that computes kind; nil if none does.
func (s *sums) sequence(kind DigestKind) *sequence {
	for _, q := range s.seqs {
		if q.kind == kind {
			return q
		}
	}
	return nil
}

// finish puts into rep the digests that o asks for. It is an error if one is not
// what o expects; then rep has none.
func (s *sums) finish(rep *Report, o Options, name string, size int64) error {
	if o.Digest != DigestNone {
		if rep.Digest = s.sum(o.Digest, size); rep.Digest == nil {
			return errStuck
		}
	}
	for _, kind := range o.Also {
		b := s.sum(kind, size)
		if b == nil {
			return errStuck
		}
		rep.Also = append(rep.Also, Sum{kind, b})
	}
	for _, want := range o.Expect {
		got := Sum{want.Kind, s.sum(want.Kind, size)}
		switch {
		case got.Bytes == nil:
			return errStuck
		case !bytes.Equal(got.Bytes, want.Bytes):
			rep.Digest, rep.Also, rep.Expected = nil, nil, nil
			return &DigestError{Name: name, Want: want, Got: got}
		}
		rep.Expected = append(rep.Expected, got)
	}
	if o.Manifest {
		if s.tree.sum() == nil {
			return errStuck
		}
		rep.Manifest = s.tree.manifest(size, int(s.size))
	}
	return nil
}

// abandon gives back the chunks that a failed flow will not hash any more.
func (s *sums) abandon() {
	for _, q := range s.seqs {
		q.abandon()
	}
}

// A sequence hashes chunks in order of offset with a hash that needs order. One
// chunk is being hashed at a time, beside the I/O; those that came too early are
// parked. The chunk that is waited for is always in flight, because chunks are
// begun in order.
type sequence struct {
	flow   *flow
	kind   DigestKind
	hash   hash.Hash
	next   int64 // offset of the byte that is hashed next
	busy   bool
	parked map[int64]*chunk
}

func newSequence(f *flow, kind DigestKind, h hash.Hash) *sequence {
	return &sequence{flow: f, kind: kind, hash: h, parked: map[int64]*chunk{}}
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
