package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// vhd is a VHD: Microsoft's "Virtual Hard Disk Image Format Specification", version
// 1.0. Its size is the footer's current size; what programs made of cylinders, heads
// and sectors is not looked at.
type vhd struct {
	r         io.ReaderAt
	size      int64    // of the disk
	block     int64    // bytes of the disk per entry of bat
	bat       []uint32 // sectors at which blocks lie; nil: the disk is the file's beginning
	bitmapLen int64    // bytes of the bitmap in front of each block
	file      int64    // size of the file

	mu      sync.Mutex
	bitmaps map[int64][]byte // by block; those that were read last
}

// Offsets in the footer and in the header of a dynamic disk; numbers are big-endian.
const (
	vhdFooter   = 512
	vhdData     = 16
	vhdSize     = 48
	vhdType     = 60
	vhdChecksum = 64
	vhdUUID     = 68

	vhdFixed, vhdDynamic, vhdDifferencing = 2, 3, 4

	vhdHeader         = 1024
	vhdTable          = 16
	vhdEntries        = 28
	vhdBlock          = 32
	vhdHeaderChecksum = 36
	vhdParent         = 40

	vhdUnused = 0xffffffff
	sector    = 512
)

// openVHD opens a layer, whose parent, where there is one, must be the one that it
// was derived from. needs says that it is a differencing disk.
func openVHD(l Layer, parent []Layer) (opened layer, needs bool, err error) {
	foot, err := vhdReadFooter(l)
	if err != nil {
		return nil, false, err
	}
	be := binary.BigEndian
	v := &vhd{r: l.File, file: l.Size, bitmaps: map[int64][]byte{}}
	size := be.Uint64(foot[vhdSize:])
	if size > 1<<62 {
		return nil, false, fmt.Errorf("a disk of %d bytes", size)
	}
	v.size = int64(size)
	kind := be.Uint32(foot[vhdType:])
	switch kind {
	case vhdFixed:
		if v.size > l.Size-vhdFooter {
			return nil, false, fmt.Errorf("a disk of %d bytes in a file of %d", v.size, l.Size)
		}
		return raw{l.File, v.size}, false, nil
	case vhdDynamic, vhdDifferencing:
	default:
		return nil, false, fmt.Errorf("disk type %d", kind)
	}
	head := make([]byte, vhdHeader)
	off := be.Uint64(foot[vhdData:])
	if off > uint64(l.Size) || l.Size-int64(off) < vhdHeader {
		return nil, false, fmt.Errorf("a header at byte %d of %d", off, l.Size)
	}
	if err := readAll(l.File, head, int64(off)); err != nil {
		return nil, false, err
	}
	if string(head[:8]) != "cxsparse" || !vhdSummed(head, vhdHeaderChecksum) {
		return nil, false, errors.New("its dynamic header is damaged")
	}
	if err := v.readTable(head); err != nil {
		return nil, false, err
	}
	needs = kind == vhdDifferencing
	if needs && len(parent) > 0 && parent[0].Kind == VHD {
		foot, err := vhdReadFooter(parent[0])
		if err != nil {
			return nil, false, fmt.Errorf("parent %q: %w", parent[0].Name, err)
		}
		if !bytes.Equal(foot[vhdUUID:vhdUUID+16], head[vhdParent:vhdParent+16]) {
			return nil, false, fmt.Errorf("%q is not the parent that it was derived from", parent[0].Name)
		}
	}
	return v, needs, nil
}

// vhdReadFooter reads the last 512 bytes, or the copy at the start of the file where
// these are damaged.
func vhdReadFooter(l Layer) ([]byte, error) {
	if l.Size < vhdFooter {
		return nil, io.ErrUnexpectedEOF
	}
	for _, off := range []int64{l.Size - vhdFooter, 0} {
		foot := make([]byte, vhdFooter)
		if err := readAll(l.File, foot, off); err != nil {
			return nil, err
		}
		if guess(foot) == VHD && vhdSummed(foot, vhdChecksum) {
			return foot, nil
		}
	}
	return nil, errors.New("it has no footer whose checksum is right")
}

// vhdSummed compares the checksum at off: the complement of the sum of all other
// bytes.
func vhdSummed(b []byte, off int) bool {
	sum := uint32(0)
	for i, c := range b {
		if i < off || i >= off+4 {
			sum += uint32(c)
		}
	}
	return ^sum == binary.BigEndian.Uint32(b[off:])
}

// readTable reads the block allocation table.
func (v *vhd) readTable(head []byte) error {
	be := binary.BigEndian
	off, n, block := be.Uint64(head[vhdTable:]), int64(be.Uint32(head[vhdEntries:])), be.Uint32(head[vhdBlock:])
	if block < 8*sector || block > 1<<30 || bits.OnesCount32(block) != 1 {
		return fmt.Errorf("blocks of %d bytes", block)
	}
	v.block = int64(block)
	v.bitmapLen = (v.block/sector/8 + sector - 1) / sector * sector
	need := v.size / v.block
	if v.size%v.block != 0 {
		need++
	}
	if n < need || off > uint64(v.file) || n > (v.file-int64(off))/4 {
		return fmt.Errorf("a table of %d entries at byte %d for a disk of %d bytes", n, off, v.size)
	}
	b := make([]byte, 4*need)
	if err := readAll(v.r, b, int64(off)); err != nil {
		return err
	}
	v.bat = make([]uint32, need)
	for i := range v.bat {
		v.bat[i] = be.Uint32(b[4*i:])
	}
	return nil
}

func (v *vhd) Size() int64 { return v.size }

// part goes as far as the sectors of a block have the same bit in its bitmap.
func (v *vhd) part(off, n int64) (int64, state, error) {
	i, in := off/v.block, off%v.block
	if v.bat[i] == vhdUnused {
		end := i + 1
		for end < int64(len(v.bat)) && v.bat[end] == vhdUnused && end*v.block < off+n {
			end++
		}
		return min(n, end*v.block-off), absent, nil
	}
	bitmap, err := v.bitmap(i)
	if err != nil {
		return 0, data, err
	}
	bit := func(s int64) bool { return bitmap[s/8]&(0x80>>(s%8)) != 0 }
	s := in / sector
	first := bit(s)
	end := s + 1
	for end < v.block/sector && bit(end) == first && end*sector-in < n {
		end++
	}
	m := min(n, end*sector-in)
	if first {
		return m, data, nil
	}
	return m, absent, nil
}

// at is where the i-th block, which is in use, begins in the file.
func (v *vhd) at(i int64) (int64, error) {
	off := int64(v.bat[i]) * sector
	if off+v.bitmapLen > v.file {
		return 0, fmt.Errorf("block %d lies at byte %d of %d", i, off, v.file)
	}
	return off, nil
}

// keptBitmaps is how many bitmaps are kept.
const keptBitmaps = 64

func (v *vhd) bitmap(i int64) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, ok := v.bitmaps[i]; ok {
		return b, nil
	}
	off, err := v.at(i)
	if err != nil {
		return nil, err
	}
	b := make([]byte, v.bitmapLen)
	if err := readAll(v.r, b, off); err != nil {
		return nil, err
	}
	if len(v.bitmaps) >= keptBitmaps {
		clear(v.bitmaps)
	}
	v.bitmaps[i] = b
	return b, nil
}

// ReadAt reads what part says is data: bytes of one block.
func (v *vhd) ReadAt(p []byte, off int64) (int, error) {
	at, err := v.at(off / v.block)
	if err != nil {
		return 0, err
	}
	return v.r.ReadAt(p, at+v.bitmapLen+off%v.block)
}
