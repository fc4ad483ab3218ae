package hostfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// loopInfoSize is the size of a struct loop_info64 (linux/loop.h).
const loopInfoSize = 232

func askLoop(name string) (string, error) {
	return withOpen(name, BlockDevice, syscall.ENOTBLK, unix.O_RDONLY, func(fd int) (string, error) {
		b := make([]byte, loopInfoSize)
		if err := ioctl(fd, unix.LOOP_GET_STATUS64, b); err != nil {
			return "", err
		}
		return decodeLoop(b)
	})
}

// decodeLoop writes a struct loop_info64 (linux/loop.h) as the answer to
// LoopStatus:
//
//	 0 u64 device of the backing file's file system   32 u64 size limit, 0 for none
//	 8 u64 inode of the backing file                  40 u32 number of the loop device
//	16 u64 number of a backing device                 52 u32 flags
//	24 u64 offset in bytes                            56 64 bytes, name up to a NUL
//
// The device numbers have the encoding of makedev(3).
func decodeLoop(b []byte) (string, error) {
	if len(b) != loopInfoSize {
		return "", fmt.Errorf("loop status of %d bytes: malformed", len(b))
	}
	u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
	ro := binary.NativeEndian.Uint32(b[52:]) & unix.LO_FLAGS_READ_ONLY
	return fmt.Sprintf("dev=%s ino=%d rdev=%s offset=%d sizelimit=%d ro=%d file=%q",
		FormatDev(u64(0)), u64(8), FormatDev(u64(16)), u64(24), u64(32), ro, cString(b[56:120])), nil
}

// cString is the text before the first NUL.
func cString(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}
