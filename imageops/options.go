package imageops

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"time"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// Options say how; the zero value is the default of each.
type Options struct {
	// Bytes per request, a power of two from 4 KiB to 64 MiB, and chunks that exist, and
	// with them requests in flight. Default: 8 of 2 MiB, or 4 of 4 MiB where an endpoint's
	// Limits say that a disk turns and no manifest is made; with Delta a quarter less. Of
	// chunks of another size no more than fill 16 MiB, and at least 2.
	ChunkSize  int
	QueueDepth int

	Sparse   SparseMode
	Fresh    bool         // the target is new and reads as zeros: zeros need not be written
	Delta    bool         // the target is read, and what is there already is not written; for one target that is not Fresh
	ZeroTail bool         // what the target has behind the end of the source becomes zero
	HoldBack bool         // the target's first and last MiB become zeros first and get their bytes last
	Extents  ExtentMode   // whether the source is asked for holes
	Digest   DigestKind   // of the source
	Also     []DigestKind // more digests of the source, in the same pass
	Manifest bool         // of the source, with BLAKE3 of each chunk
	Expect   []Sum        // digests that the source must have; each is computed in the same pass
	Verify   bool         // read the target back from storage and compare

	Rate     int64          // bytes a second that are read at most, and so written to each target; 0: no limit
	Progress func(Progress) // called when bytes are done, by the goroutine of the call; it must not block
	Log      *slog.Logger   // phases, at debug level; default: none

	// Engine carries out the requests, and is idle again and still open when the
	// call returns. Default: a pool of QueueDepth workers for the time of the call.
	Engine engine.Engine

	inspect func(*flow) // tests: called when a flow has ended
}

// A SparseMode says what becomes of zeros.
type SparseMode uint8

const (
	SparseKeep   SparseMode = iota // what the source says are holes becomes holes, or zeros where the target has none
	SparseDetect                   // so do zeros that fill blocks of the target
	SparseOff                      // the source is not asked for holes: all is read, and all is written; no storage is handed back
)

// An ExtentMode says whether a source's word on its holes is taken.
type ExtentMode uint8

const (
	ExtentsAsked   ExtentMode = iota // holes are not read
	ExtentsIgnored                   // all is read: for a file system that tells holes where data is
)

// A DigestKind is a hash function.
type DigestKind uint8

const (
	BLAKE3 DigestKind = iota // 256 bits, what b3sum prints
	SHA256
	SHA512
	DigestNone
)

func (k DigestKind) String() string {
	switch k {
	case BLAKE3:
		return "blake3"
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	case DigestNone:
		return "none"
	}
	return fmt.Sprintf("digest %d", uint8(k))
}

// Size is the length of a digest of that kind in bytes.
func (k DigestKind) Size() int {
	switch k {
	case BLAKE3, SHA256:
		return 32
	case SHA512:
		return 64
	}
	return 0
}

// Progress is how far a call is. Within a phase Done only grows, up to Total.
type Progress struct {
	Phase       string // copy, verify, digest, compare
	Done, Total int64  // bytes of the source; of a stream the total is not known, and negative
}

// A Report says what was done, also beside an error. Counts are in bytes.
type Report struct {
	Read     int64 // read from the source; its holes are not
	Written  int64 // of the source, written to the target as data
	Zeroed   int64 // of the source, zeros of the target without being sent
	Same     int64 // of the source, with Delta: read from the target's storage, found equal, and left alone
	Verified int64 // read back, or compared, and found equal
	Tail     int64 // of the target behind the end of the source: they stayed, or with ZeroTail are zero

	Digest     []byte // nil with DigestNone, and beside an error
	DigestKind DigestKind
	Also       []Sum     // those of Options.Also; nil beside an error
	Manifest   *Manifest // that Options.Manifest asked for; nil beside an error
	Expected   []Sum     // those of Options.Expect, which the source has; nil beside an error
	Engine     string
	ChunkSize  int // bytes per request
	Elapsed    time.Duration
	Touched    bool     // something reached the target, or may have
	Ranges     []Extent // where that is, joined and in order, at most 16384; all else of the target is as it was
}

const (
	minChunk     = 4 << 10
	maxChunk     = 64 << 20
	defaultChunk = 2 << 20 // a huge page; measured with defaultDepth by BenchmarkCopyFile
	defaultDepth = 8
	turningChunk = 4 << 20 // a disk that turns goes back and forth half as often
	turningDepth = 4
	maxDepth     = 4096
)

// asks reports whether the source is asked for its holes.
func (o Options) asks() bool { return o.Sparse != SparseOff && o.Extents == ExtentsAsked }

// kinds are the digests that are wanted of the source, some perhaps twice.
func (o Options) kinds() []DigestKind {
	kinds := append([]DigestKind{o.Digest}, o.Also...)
	for _, s := range o.Expect {
		kinds = append(kinds, s.Kind)
	}
	if o.Manifest {
		kinds = append(kinds, BLAKE3)
	}
	return kinds
}

// filled is o with its defaults for what is to be read and written, or what is
// wrong with it.
func (o Options) filled(ends ...any) (Options, error) {
	chunk, depth := defaultChunk, defaultDepth
	if slices.ContainsFunc(ends, rotational) && !o.Manifest { // whose pieces are chunks
		chunk, depth = turningChunk, turningDepth
	}
	if o.Delta { // each has room for the target's bytes
		depth -= depth / 4
	}
	o.ChunkSize = cmp.Or(o.ChunkSize, chunk)
	o.QueueDepth = cmp.Or(o.QueueDepth, min(depth, max(2, defaultDepth*defaultChunk/max(1, o.ChunkSize))))
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.ChunkSize < minChunk || o.ChunkSize > maxChunk || bits.OnesCount(uint(o.ChunkSize)) != 1:
		return o, fmt.Errorf("chunk size %d: not a power of two from %d to %d", o.ChunkSize, minChunk, maxChunk)
	case o.QueueDepth < 1 || o.QueueDepth > maxDepth:
		return o, fmt.Errorf("queue depth %d: not from 1 to %d", o.QueueDepth, maxDepth)
	case o.Sparse > SparseOff:
		return o, fmt.Errorf("sparse mode %d: unknown", o.Sparse)
	case o.Rate < 0:
		return o, fmt.Errorf("rate %d: negative", o.Rate)
	case o.Extents > ExtentsIgnored:
		return o, fmt.Errorf("extent mode %d: unknown", o.Extents)
	case o.Digest > DigestNone:
		return o, fmt.Errorf("%v: unknown", o.Digest)
	}
	for _, k := range o.Also {
		if k.Size() == 0 {
			return o, fmt.Errorf("%v: unknown", k)
		}
	}
	for _, s := range o.Expect {
		if s.Kind.Size() == 0 || len(s.Bytes) != s.Kind.Size() {
			return o, fmt.Errorf("expected digest of kind %v with %d bytes", s.Kind, len(s.Bytes))
		}
	}
	return o, nil
}

// rotational reports whether an endpoint says that it lies on a disk that turns.
func rotational(end any) bool {
	l, ok := end.(interface{ Limits() blockio.Limits })
	return ok && l.Limits().Rotational
}
