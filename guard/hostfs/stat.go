package hostfs

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A FileType is what kind of thing a name leads to: the S_IFMT part of st_mode
// (inode(7)).
type FileType uint8

// The file types. Other is a thing of no type, as the kernel's anonymous inodes
// are (an eventfd, an epoll instance).
const (
	Other FileType = iota
	Regular
	Directory
	BlockDevice
	CharDevice
	FIFO
	Socket
	Symlink
)

// String gives the type in words: "block device".
func (t FileType) String() string {
	switch t {
	case Regular:
		return "regular file"
	case Directory:
		return "directory"
	case BlockDevice:
		return "block device"
	case CharDevice:
		return "character device"
	case FIFO:
		return "fifo"
	case Socket:
		return "socket"
	case Symlink:
		return "symbolic link"
	}
	return "special file"
}

// A Stat is the identity of a thing and what else stat(2) says of it.
type Stat struct {
	Type    FileType
	Dev     uint64 // device number of its file system, as Mkdev makes it
	Ino     uint64
	Rdev    uint64 // a device node's own number, as Mkdev makes it; 0 for everything else
	Size    int64  // bytes; of a block device 0, ask Size for its length
	Mode    uint32 // permission, set-id and sticky bits: st_mode & 07777
	MtimeNs int64  // last modification, nanoseconds since 1970
}

// Mkdev joins a major and a minor device number as makedev(3) does.
func Mkdev(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// ParseDev reads "253:0", decimal, the form of sysfs's dev files and of field 3
// of mountinfo (proc_pid_mountinfo(5)).
func ParseDev(s string) (uint64, error) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("device number %q: not MAJOR:MINOR", s)
	}
	return Mkdev(uint32(a), uint32(b)), nil
}

// FormatDev writes a device number as ParseDev reads it.
func FormatDev(dev uint64) string {
	return strconv.FormatUint(uint64(unix.Major(dev)), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(dev)), 10)
}
