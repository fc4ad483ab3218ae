package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// qcow is a qcow2 image: QEMU's docs/interop/qcow2.txt. The library that reads it is
// given a header without the name of a backing file, which it would open, and
// without extensions, which it does not need.
type qcow struct {
	img     *qcow2.Qcow2
	cluster int64
}

// Offsets in the header and its features; numbers are big-endian.
const (
	qcowVersion      = 4
	qcowBackingOff   = 8
	qcowBackingLen   = 16
	qcowClusterBits  = 20
	qcowSize         = 24
	qcowCrypt        = 32
	qcowL1Entries    = 36
	qcowL1Off        = 40
	qcowIncompatible = 72
	qcowHeaderLength = 100
	qcowCompression  = 104

	qcowDirty       = 1 << 0 // reference counts are out of date, which reading does not need
	qcowCorrupt     = 1 << 1
	qcowDataFile    = 1 << 2
	qcowCompressed  = 1 << 3 // of a kind that the header names
	qcowSubclusters = 1 << 4

	qcowSizeV2, qcowSizeV3 = 72, 104
)

// maxL1 bounds the table that is in memory: QEMU's QCOW_MAX_L1_SIZE, in bytes.
const maxL1 = 32 << 20

// zstdClusters teaches the library, which has one table for all images, to read
// clusters that are compressed with zstd.
var zstdClusters = sync.OnceFunc(func() {
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	})
})

// openQCOW2 opens a layer. needs says that its header names a backing file.
func openQCOW2(l Layer) (opened layer, needs bool, err error) {
	head, h, err := qcowHeader(l)
	if err != nil {
		return nil, false, err
	}
	zstdClusters()
	// What lies in the last cluster need not be there to its end.
	end := (l.Size + h.cluster - 1) / h.cluster * h.cluster
	img, err := qcow2.Open(&masked{l.File, head, l.Size, end}, nil)
	if err == nil {
		err = img.Readable()
	}
	if err != nil {
		return nil, false, err
	}
	return &qcow{img, h.cluster}, h.backing, nil
}

type qcowFacts struct {
	cluster int64
	backing bool
}

// qcowHeader checks the header, and gives one for the library.
func qcowHeader(l Layer) (head []byte, f qcowFacts, err error) {
	head = make([]byte, 512)
	if l.Size < int64(len(head)) {
		return nil, f, io.ErrUnexpectedEOF
	}
	if err := readAll(l.File, head, 0); err != nil {
		return nil, f, err
	}
	be := binary.BigEndian
	u32 := func(off int) uint32 { return be.Uint32(head[off:]) }
	u64 := func(off int) uint64 { return be.Uint64(head[off:]) }
	bits, size := u32(qcowClusterBits), u64(qcowSize)
	entries, table := uint64(u32(qcowL1Entries)), u64(qcowL1Off)
	version := u32(qcowVersion)
	switch {
	case guess(head) != QCOW2:
		return nil, f, errors.New("it does not begin as one")
	case version != 2 && version != 3:
		return nil, f, fmt.Errorf("version %d", version)
	case bits < 9 || bits > 21:
		return nil, f, fmt.Errorf("clusters of 2^%d bytes", bits)
	case u32(qcowCrypt) != 0:
		return nil, f, errors.New("it is encrypted")
	}
	f.cluster = int64(1) << bits
	perEntry := uint64(f.cluster) * uint64(f.cluster/8) // of the disk, by one table of the second level
	need := size / perEntry
	if size%perEntry != 0 {
		need++
	}
	switch {
	case size > 1<<62 || entries < need || entries*8 > maxL1:
		return nil, f, fmt.Errorf("a table of %d entries for a disk of %d bytes", entries, size)
	case entries > 0 && (table == 0 || table%512 != 0 || table > uint64(l.Size) || entries*8 > uint64(l.Size)-table):
		return nil, f, fmt.Errorf("a table of %d entries at byte %d of %d", entries, table, l.Size)
	case entries == 0:
		return nil, f, errors.New("it has no table")
	}
	f.backing = u64(qcowBackingOff) != 0 && u32(qcowBackingLen) != 0
	clear(head[qcowBackingOff : qcowBackingLen+4])
	if version == 2 {
		clear(head[qcowSizeV2:]) // the first extension is the end of them
		return head, f, nil
	}
	features, length := u64(qcowIncompatible), u32(qcowHeaderLength)
	switch {
	case length < qcowSizeV3 || length > 256 || length%8 != 0:
		return nil, f, fmt.Errorf("a header of %d bytes", length)
	case features&qcowCorrupt != 0:
		return nil, f, errors.New("it is marked as corrupt")
	case features&qcowDataFile != 0:
		return nil, f, errors.New("its data is in another file")
	case features&qcowSubclusters != 0:
		return nil, f, errors.New("it has subclusters (extended_l2)")
	case features&^(qcowDirty|qcowCompressed) != 0:
		return nil, f, fmt.Errorf("unknown features %#x", features)
	}
	be.PutUint64(head[qcowIncompatible:], features&^qcowDirty)
	if features&qcowCompressed == 0 && length > qcowSizeV3 && head[qcowCompression] != 0 {
		return nil, f, errors.New("its header contradicts itself about compression")
	}
	clear(head[length:])
	return head, f, nil
}

// masked is a file with another beginning, and with zeros behind its end, up to
// the end of its last cluster.
type masked struct {
	r         io.ReaderAt
	head      []byte
	size, end int64
}

func (m *masked) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= m.end {
		return 0, io.EOF
	}
	want := min(int64(len(p)), m.end-off)
	have := max(0, min(want, m.size-off))
	if have > 0 {
		if err := readAll(m.r, p[:have], off); err != nil {
			return 0, err
		}
	}
	clear(p[have:want])
	if off < int64(len(m.head)) {
		copy(p[:want], m.head[off:])
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

func (q *qcow) Size() int64 { return q.img.Size() }

// ReadAt reads what part says is data.
func (q *qcow) ReadAt(p []byte, off int64) (int, error) { return q.img.ReadAt(p, off) }

func (q *qcow) part(off, n int64) (int64, state, error) {
	start := off / q.cluster * q.cluster // the library wants whole clusters
	e, err := q.img.Extent(start, min(n+off-start, q.Size()-start))
	if err != nil {
		return 0, data, err
	}
	m := min(start+e.Length-off, n)
	if m <= 0 {
		return 0, data, fmt.Errorf("an extent of %d bytes at %d", e.Length, e.Start)
	}
	switch {
	case !e.Allocated:
		return m, absent, nil
	case e.Zero:
		return m, zeros, nil
	}
	return m, data, nil
}
