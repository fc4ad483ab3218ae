package blockio

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Limits are what a descriptor asks of a request, in bytes, and of the order of
// requests. All numbers are powers of two.
type Limits struct {
	Logical  int // smallest unit that can be written or zeroed without reading first
	Physical int // unit in which storage is handed out, and at least a page
	OffAlign int // alignment of offset and length under O_DIRECT
	MemAlign int // alignment of memory under O_DIRECT

	Rotational bool // a disk that turns, as far as the kernel knows: what is far apart takes long
}

// fallback is used where the kernel says nothing. Every page-sized request is
// good for every file system and sector size that Linux had before it could say.
const fallback = 4096

// largest is the greatest alignment that is believed.
const largest = 1 << 20

// reported is what the kernel answered about a descriptor; zero is "no answer".
type reported struct {
	dioMem, dioOff uint32 // statx(2), STATX_DIOALIGN (Linux 6.1)
	sector         int    // BLKSSZGET, the queue's logical_block_size
	physical       int    // BLKPBSZGET, the queue's physical_block_size
	block          int64  // st_blksize
	page           int
	device         bool
	rotational     bool // the queue's rotational; many virtual disks say so, too
}

// limits chooses: the direct I/O alignment if the kernel told it, else the
// queue's sector, else 4096. A file system may open O_DIRECT and report nothing
// (tmpfs does), or report zero (it will not do direct I/O on this file).
//
// Physical is no less than a page: if a page were partly written through the
// cache and partly zeroed behind it, one would undo the other.
func (r reported) limits() Limits {
	off := sane(int64(r.dioOff), int64(r.sector), fallback)
	l := Limits{
		OffAlign: off,
		MemAlign: sane(int64(r.dioMem), int64(r.sector), fallback),
		Logical:  sane(int64(r.sector), int64(off)),
		Physical: sane(r.block, fallback),

		Rotational: r.rotational,
	}
	if r.device {
		l.Physical = sane(int64(r.physical), int64(r.sector), fallback)
	}
	l.Physical = max(l.Physical, l.Logical, r.page)
	return l
}

// sane is the first of n that can be an alignment; the last one is.
func sane(n ...int64) int {
	for _, v := range n {
		if v > 0 && v <= largest && v&(v-1) == 0 {
			return int(v)
		}
	}
	return fallback
}

// ask collects what the kernel says about the descriptor.
func ask(fd int, st *unix.Stat_t) reported {
	r := reported{block: int64(st.Blksize), page: unix.Getpagesize(), device: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	dev := st.Dev
	if r.device {
		dev = st.Rdev
	}
	r.rotational = rotational(dev)
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 {
		r.dioMem, r.dioOff = stx.Dio_mem_align, stx.Dio_offset_align
	}
	if !r.device {
		return r
	}
	if n, err := unix.IoctlGetUint32(fd, unix.BLKSSZGET); err == nil {
		r.sector = int(n)
	}
	if n, err := unix.IoctlGetUint32(fd, unix.BLKPBSZGET); err == nil {
		r.physical = int(n)
	}
	return r
}

// rotational asks sysfs about a block device (Documentation/ABI/stable/sysfs-block).
// A partition has no queue of its own. What is not there does not turn.
func rotational(dev uint64) bool {
	for _, queue := range []string{"queue", "../queue"} {
		b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/%s/rotational", unix.Major(dev), unix.Minor(dev), queue))
		if err == nil {
			return string(b) == "1\n"
		}
	}
	return false
}
