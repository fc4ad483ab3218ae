package blockio

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// An Arena is one anonymous mapping cut into chunks of equal size. It starts on
// a page, reads as zeros when new, and stays where it is until Close, so the
// kernel may own a chunk for as long as a request takes.
type Arena struct {
	mem  []byte
	size int
}

// NewArena maps chunks pieces of size bytes each. Chunks are page-aligned if size
// is a multiple of the page.
func NewArena(chunks, size int) (*Arena, error) {
	if chunks <= 0 || size <= 0 || size > math.MaxInt/chunks {
		return nil, fmt.Errorf("map %d chunks of %d bytes: %w", chunks, size, unix.EINVAL)
	}
	mem, err := unix.Mmap(-1, 0, chunks*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d chunks of %d bytes: %w", chunks, size, err)
	}
	// Of huge pages a request is a few long segments instead of hundreds, and
	// queues limit the segments of a request. No harm if there are none.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return &Arena{mem: mem, size: size}, nil
}

// Chunk is the i-th chunk. Its capacity ends where it ends, so an append cannot
// reach the next one.
func (a *Arena) Chunk(i int) []byte {
	return a.mem[i*a.size : (i+1)*a.size : (i+1)*a.size]
}

// Close gives the memory back. No chunk may be used any more, by anyone.
func (a *Arena) Close() error {
	mem := a.mem
	a.mem = nil
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}
