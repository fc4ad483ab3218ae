package hostfs

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// retry calls a system call again that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openFd opens name with flags and O_CLOEXEC.
func openFd(name string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func liveReadFile(name string) ([]byte, error) {
	// O_NONBLOCK: a FIFO without a writer must not hold us.
	fd, err := openFd(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var first [8 << 10]byte // more than a page, the most that a sysfs file holds
	b := first[:0]
	for {
		n := 0
		err := retry(func() error {
			n, err = unix.Read(fd, b[len(b):cap(b)])
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 && cap(b) > len(first) {
			return b, nil
		}
		if n == 0 {
			return append(make([]byte, 0, len(b)), b...), nil
		}
		b = b[:len(b)+n]
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
	}
}

func liveReadDir(name string) ([]string, error) {
	fd, err := openFd(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := namesIn(fd)
	slices.Sort(names)
	return names, err
}

// namesIn lists the directory fd, without "." and "..", in its own order.
func namesIn(fd int) ([]string, error) {
	var names []string
	var b [8 << 10]byte
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(fd, b[:])
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		// The one of package unix leaves out what has inode number 0, as files of
		// FUSE can.
		_, _, names = syscall.ParseDirent(b[:n], -1, names)
	}
}

func liveStatDir(name string) ([]Entry, error) {
	fd, err := openFd(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := namesIn(fd)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(names))
	for i, n := range names {
		st, err := statAt(fd, n)
		if err != nil {
			err = wrap("stat", strings.TrimSuffix(name, "/")+"/"+n, err)
		}
		entries[i] = Entry{n, st, err}
	}
	return entries, nil
}

// bare takes the errno out of an error of package os, whose operation and name
// are said once more by [Error].
func bare(err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func liveReadlink(name string) (string, error) {
	for b := make([]byte, 256); ; b = make([]byte, 2*len(b)) {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Readlink(name, b)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < len(b) {
			return string(b[:n]), nil
		}
	}
}

func liveStat(name string) (Stat, error) { return statAt(unix.AT_FDCWD, name) }

// statAt is the stat of name as seen from the directory dir, or, where name is
// empty, of the descriptor dir.
func statAt(dir int, name string) (Stat, error) {
	x, err := statx(dir, name, unix.STATX_BASIC_STATS)
	if err == unix.ENOSYS { // before Linux 4.11
		return oldStatAt(dir, name)
	}
	if err != nil {
		return Stat{}, err
	}
	return Stat{
		Type:    fileType(uint32(x.Mode)),
		Dev:     unix.Mkdev(x.Dev_major, x.Dev_minor),
		Ino:     x.Ino,
		Rdev:    unix.Mkdev(x.Rdev_major, x.Rdev_minor),
		Size:    int64(x.Size),
		Mode:    uint32(x.Mode) & 0o7777,
		MtimeNs: x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec),
	}, nil
}

// statx is statx(2) without asking a file server and without mounting anything.
func statx(dir int, name string, mask int) (x unix.Statx_t, err error) {
	flags := unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err = retry(func() error { return unix.Statx(dir, name, flags, mask, &x) })
	return x, err
}

// oldStatAt is statAt for kernels without statx. It may ask a file server.
func oldStatAt(dir int, name string) (Stat, error) {
	flags := unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var s unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &s, flags) }); err != nil {
		return Stat{}, err
	}
	return Stat{
		Type:    fileType(s.Mode),
		Dev:     s.Dev,
		Ino:     s.Ino,
		Rdev:    s.Rdev,
		Size:    s.Size,
		Mode:    s.Mode & 0o7777,
		MtimeNs: s.Mtim.Nano(),
	}, nil
}

// fileType is the type in a st_mode (inode(7)).
func fileType(mode uint32) FileType {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFBLK:
		return BlockDevice
	case unix.S_IFCHR:
		return CharDevice
	case unix.S_IFIFO:
		return FIFO
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFLNK:
		return Symlink
	}
	return Other
}

func liveOpen(name string) (*Handle, error) {
	fd, err := openFd(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	h := &Handle{file: os.NewFile(uintptr(fd), name)}
	if h.Stat, err = statAt(fd, ""); err == nil {
		h.Real, err = liveReadlink(h.Name())
	}
	if err != nil {
		h.file.Close()
		return nil, err
	}
	return h, nil
}
