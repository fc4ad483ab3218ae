package hostfs

import (
	"os"
	"strconv"
)

// A Handle holds on to the very thing that a name led to. Live, it is a
// descriptor that was opened with O_PATH (open(2)), which no lease, lock or open
// count sees.
type Handle struct {
	Stat Stat
	Real string // the path behind all links; the kernel adds " (deleted)" to one that has lost its name

	file   *os.File // nil: captured
	closed func()   // nil: nobody wants to know
}

// Name is the name under which [Root.Ask] and [Root.ReadFile] reach this very
// inode, whatever became of its path. It is good until Close.
func (h *Handle) Name() string {
	if h.file == nil {
		return h.Real
	}
	return fdName(h.Fd())
}

// fdName is the name under which proc_pid_fd(5) has a descriptor of ours.
func fdName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Fd is the descriptor, which stays the handle's, or -1 where there is none.
func (h *Handle) Fd() int {
	if h.file == nil {
		return -1
	}
	return int(h.file.Fd())
}

// Close lets go. A second Close is an error and does nothing.
func (h *Handle) Close() error {
	if h.file == nil {
		return nil
	}
	if h.closed != nil {
		h.closed()
		h.closed = nil
	}
	return wrap("close", h.Real, h.file.Close())
}
