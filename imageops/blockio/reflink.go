package blockio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Reflink makes f share all blocks of src (ioctl_ficlone(2)): a copy that takes
// no space and next to no time. Bytes of f behind the end of src stay. Where the
// file systems cannot do it, or are not one and the same, the error is
// errors.ErrUnsupported and f is as it was: copy instead.
func (f *File) Reflink(src *File) error {
	err := src.control(func(from int) error {
		return f.control(func(to int) error {
			return again(func() error { return unix.IoctlFileClone(to, from) })
		})
	})
	if unsupported(err) || errors.Is(err, unix.EXDEV) {
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err == nil {
		f.size.Store(max(f.Size(), src.Size()))
	}
	return f.fail("reflink to", -1, err)
}
