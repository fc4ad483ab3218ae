package probe

import "math"

// The log of XFS is a ring of basic blocks of 512 bytes. The first word of each
// block is the number of the turn in which it was written, except in the first
// block of a record, which has a magic number there and the turn in its second
// word. The turn falls by one where writing ended, at the head. A file system is
// clean if what ends at its head is a record with nothing in it but the mark of
// an unmount (fs/xfs/xfs_log_recover.c, xlog_find_head, xlog_check_unmount_rec;
// fs/xfs/libxfs/xfs_log_format.h).
type xfsLog struct {
	a      *area
	start  int64 // in bytes from the start of the area
	blocks int64
	failed bool // a block could not be read
}

const (
	xfsBlock  = 512
	xfsRecord = 0xfeedbabe // h_magicno

	// xfsInFlight is how many blocks may be on their way to the disk at once,
	// eight buffers of 256 KiB (XLOG_TOTAL_REC_SHIFT). They may be written in any
	// order, so that far before the head there can be holes.
	xfsInFlight = 8 * 256 << 10 / xfsBlock

	xfsUnmount = 0x20 // XLOG_UNMOUNT_TRANS
)

// xfsDirty judges the log that the superblock sb of the file system in a names.
// It reads some 3 MiB of it at most.
func xfsDirty(a *area, sb []byte) string {
	if be.Uint64(sb[48:]) == 0 {
		return "may not have been cleanly unmounted (its log is on another device)"
	}
	l := newXFSLog(a, sb)
	if l == nil {
		return unjudged
	}
	head, ok := l.head()
	clean := ok && (head < 0 || l.unmounted(head))
	switch {
	case clean, l.failed: // what could not be read is in the area's errors
		return ""
	case !ok:
		return unjudged
	}
	return unclean("its log does not end with an unmount")
}

// newXFSLog finds the log inside the area: sb_logstart counts blocks with the
// number of an allocation group in its upper bits. nil if it is not all there.
func newXFSLog(a *area, sb []byte) *xfsLog {
	size := int64(be.Uint32(sb[4:]))
	at, blocks := be.Uint64(sb[48:]), int64(be.Uint32(sb[96:]))
	group, groupLog := uint64(be.Uint32(sb[84:])), sb[124]
	if groupLog > 31 || at>>groupLog > math.MaxUint32 || at&(1<<groupLog-1) >= group {
		return nil
	}
	first := at>>groupLog*group + at&(1<<groupLog-1) // no overflow: (2^32-1)^2 and less than 2^31
	if first > uint64(a.size/size) || blocks == 0 || blocks > a.size/size-int64(first) {
		return nil
	}
	return &xfsLog{a: a, start: int64(first) * size, blocks: blocks * size / xfsBlock}
}

const unjudged = "may not have been cleanly unmounted (its log makes no sense)"

// block returns the first n bytes of a block of the log.
func (l *xfsLog) block(i int64, n int) []byte {
	b := l.a.at(l.start+i*xfsBlock, n)
	if b == nil {
		l.failed = true
	}
	return b
}

// cycle is the turn in which a block was written; 0 for one that never was.
func (l *xfsLog) cycle(i int64) uint32 {
	b := l.block(i, 8)
	switch {
	case b == nil:
		return 0
	case be.Uint32(b) == xfsRecord:
		return be.Uint32(b[4:])
	}
	return be.Uint32(b)
}

// head finds the block after the last that was written; -1 when none ever was.
// false: the turns are not those of a log.
func (l *xfsLog) head() (int64, bool) {
	first, last := l.cycle(0), l.cycle(l.blocks-1)
	if l.failed {
		return 0, false
	}
	switch {
	case first == 0:
		return -1, last == 0
	case first == last:
		// The last write reached the end of the ring, if it has no hole.
		return l.settle(l.blocks, last-1) % l.blocks, !l.failed
	case last == 0 && first != 1, last != first-1:
		return 0, false
	}
	// Where the turn falls lies between a block of the first and one of the last.
	low, high := int64(0), l.blocks-1
	for high-low > 1 && !l.failed {
		mid := low + (high-low)/2
		if l.cycle(mid) == last {
			high = mid
		} else {
			low = mid
		}
	}
	return l.settle(high, last) % l.blocks, !l.failed
}

// settle moves a head back to the first hole among the blocks that may have been
// in flight before it: a block of the turn before, old, or behind the end of the
// ring of the one before that.
func (l *xfsLog) settle(head int64, old uint32) int64 {
	if wrapped := xfsInFlight - head; wrapped > 0 && old > 0 {
		for i := max(head, l.blocks-wrapped); i < l.blocks && !l.failed; i++ {
			if l.cycle(i) == old-1 {
				return i
			}
		}
	}
	for i := max(0, head-xfsInFlight); i < head && !l.failed; i++ {
		if l.cycle(i) == old {
			return i
		}
	}
	return head
}

// unmounted reports whether the record that ends at head is the mark of an
// unmount: a header of one block or, from version 2 on, one for every 32 KiB that
// the record may hold, and one operation.
func (l *xfsLog) unmounted(head int64) bool {
	for back := int64(1); back <= min(xfsInFlight, l.blocks) && !l.failed; back++ {
		at := (head - back + l.blocks) % l.blocks
		b := l.block(at, xfsBlock)
		if b == nil || be.Uint32(b) != xfsRecord {
			continue
		}
		headers := int64(1)
		if size := int64(be.Uint32(b[320:])); be.Uint32(b[8:])&2 != 0 && size > 32<<10 {
			headers = (size + 32<<10 - 1) / (32 << 10)
		}
		length := (int64(be.Uint32(b[12:])) + xfsBlock - 1) / xfsBlock
		if headers+length != back || be.Uint32(b[40:]) != 1 {
			return false
		}
		op := l.block((at+headers)%l.blocks, 12)
		return op != nil && op[9]&xfsUnmount != 0
	}
	return false
}
