package blockio

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cached estimates how many of the file's bytes the page cache has, from 0 to Size.
// It reads nothing and brings nothing there. The kernel counts them (cachestat(2),
// Linux 6.5); an older one is asked for 256 pages spread over the file (mincore(2)).
func (f *File) Cached() (int64, error) {
	size := f.Size()
	if size == 0 {
		return 0, nil
	}
	var n int64
	err := f.control(func(fd int) error {
		var st unix.Cachestat_t
		err := unix.Cachestat(uint(fd), &unix.CachestatRange{Len: uint64(size)}, &st, 0)
		if err == nil {
			n = min(int64(st.Cache)*int64(unix.Getpagesize()), size)
			return nil
		}
		if !unsupported(err) && !errors.Is(err, unix.EPERM) {
			return err
		}
		n, err = sampled(fd, size)
		return err
	})
	return n, f.fail("ask the page cache for", -1, err)
}

// sampled is Cached by samples.
func sampled(fd int, size int64) (int64, error) {
	const samples = 256
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(mem) }() // of what was mapped
	page := int64(unix.Getpagesize())
	pages := up(size, page) / page
	hits, asked := int64(0), min(samples, pages)
	for i := range asked {
		var in byte
		at := &mem[pages*i/asked*page]
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(at)), uintptr(page), uintptr(unsafe.Pointer(&in))); errno != 0 {
			return 0, errno
		}
		hits += int64(in & 1)
	}
	return min(size, size/asked*hits), nil
}
