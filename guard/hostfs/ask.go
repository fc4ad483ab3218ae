package hostfs

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withOpen opens name with flags, if it is of type t, and hands the descriptor
// to ask; wrong is the errno for another type. Looking first, through a
// descriptor that opens nothing, keeps a FIFO, a tape or an image from being
// touched by a question that is not for it.
func withOpen(name string, t FileType, wrong error, flags int, ask func(fd int) (string, error)) (string, error) {
	h, err := liveOpen(name)
	if err != nil {
		return "", err
	}
	defer h.file.Close()
	if h.Stat.Type != t {
		return "", wrong
	}
	fd, err := openFd(h.Name(), flags|unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return ask(fd)
}

// ioctl calls ioctl(2) with a buffer that the kernel reads and fills.
func ioctl(fd int, request uintptr, b []byte) error {
	p := unsafe.Pointer(unsafe.SliceData(b))
	return retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p))
		runtime.KeepAlive(b)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

func askLease(name string) (string, error) {
	return withOpen(name, Regular, syscall.EINVAL, unix.O_RDONLY, func(fd int) (string, error) {
		answer := "write"
		err := setLease(fd, unix.F_WRLCK)
		if err == unix.EAGAIN {
			answer = "read"
			err = setLease(fd, unix.F_RDLCK)
		}
		if err != nil {
			return "", err
		}
		return answer, setLease(fd, unix.F_UNLCK)
	})
}

func setLease(fd, lease int) error {
	return retry(func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, lease)
		return err
	})
}

func askExcl(name string) (string, error) {
	return withOpen(name, BlockDevice, syscall.ENOTBLK, unix.O_RDONLY|unix.O_EXCL, func(int) (string, error) {
		return "free", nil
	})
}

func askReadOnly(name string) (string, error) {
	return withOpen(name, BlockDevice, syscall.ENOTBLK, unix.O_RDONLY, func(fd int) (string, error) {
		b := make([]byte, 4) // an int
		if err := ioctl(fd, unix.BLKROGET, b); err != nil {
			return "", err
		}
		if binary.NativeEndian.Uint32(b) != 0 {
			return "1", nil
		}
		return "0", nil
	})
}

func askSize(name string) (string, error) {
	return withOpen(name, BlockDevice, syscall.ENOTBLK, unix.O_RDONLY, func(fd int) (string, error) {
		size, err := deviceSize(fd)
		if err != nil {
			return "", err
		}
		return formatSize(size), nil
	})
}

func askSameOpen(name string) (string, error) {
	var n [4]uintptr // process and descriptor, twice
	for i, s := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == ' ' }) {
		v, err := strconv.ParseUint(s, 10, 31)
		if err != nil || i >= len(n) {
			return "", syscall.EINVAL
		}
		n[i] = uintptr(v)
	}
	const file = 0 // KCMP_FILE of linux/kcmp.h
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, n[0], n[2], file, n[1], n[3], 0)
	switch {
	case errno != 0:
		return "", errno
	case order == 0:
		return "same", nil
	}
	return "other", nil
}

func formatSize(n int64) string { return strconv.FormatInt(n, 10) }

// deviceSize is the length in bytes of an open block device.
func deviceSize(fd int) (int64, error) {
	b := make([]byte, 8) // a u64
	if err := ioctl(fd, unix.BLKGETSIZE64, b); err != nil {
		return 0, err
	}
	return int64(binary.NativeEndian.Uint64(b)), nil
}

func askIdentity(name string) (string, error) {
	h, err := liveOpen(name)
	if err != nil {
		return "", err
	}
	defer h.file.Close()
	if h.Stat.Type != Regular {
		return "", syscall.EINVAL
	}
	btime, err := birth(h)
	if err != nil {
		return "", err
	}
	uuid, err := fsUUID(h)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("fsuuid=%s ino=%d btime=%s", uuid, h.Stat.Ino, btime), nil
}

// birth is the time that a file was made, seconds and nanoseconds since 1970, or
// nothing where the file system does not keep it (STATX_BTIME in statx(2)).
func birth(h *Handle) (string, error) {
	x, err := statx(h.Fd(), "", unix.STATX_BTIME)
	if err == unix.ENOSYS || err == nil && x.Mask&unix.STATX_BTIME == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%09d", x.Btime.Sec, x.Btime.Nsec), nil
}

// fsGetUUID is FS_IOC_GETFSUUID of linux/fs.h, _IOR(0x15, 0, struct fsuuid2),
// since Linux 6.9.
const fsGetUUID = 0x80111500

// fsUUID is the uuid of the file system that a file is on, asked of the file's
// directory, since the ioctl does not take an O_PATH descriptor and the file
// itself is not to be opened. Nothing where the kernel or the file system does
// not tell, or where the directory is on another file system (a bind mount).
func fsUUID(h *Handle) (string, error) {
	if !strings.HasPrefix(h.Real, "/") {
		return "", nil
	}
	fd, err := openFd(path.Dir(h.Real), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if err == unix.ENOENT { // the file has lost its name, and the directory is gone
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	dir, err := statAt(fd, "")
	if err != nil || dir.Dev != h.Stat.Dev {
		return "", err
	}
	b := make([]byte, 17)
	switch err := ioctl(fd, fsGetUUID, b); err {
	case nil:
		return decodeUUID(b)
	case unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL:
		return "", nil
	default:
		return "", err
	}
}

// decodeUUID reads a struct fsuuid2 (linux/fs.h): a length in bytes, and as many
// of the 16 bytes that follow. Those of length 16 are written as RFC 9562 does,
// others in plain hexadecimal.
func decodeUUID(b []byte) (string, error) {
	if len(b) < 1 || int(b[0]) > len(b)-1 {
		return "", fmt.Errorf("file system uuid of %d bytes: malformed", len(b))
	}
	s := hex.EncodeToString(b[1 : 1+int(b[0])])
	if len(s) != 32 {
		return s, nil
	}
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:], nil
}
