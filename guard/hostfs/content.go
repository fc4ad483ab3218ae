package hostfs

import (
	"cmp"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Content is the bytes of a regular file or of a block device, open for reading
// only. To everybody else it is an opener like any other until it is closed:
// leases and open counts see it, those that this process asks for included. It
// may be used by many goroutines at once.
type Content struct {
	Stat Stat

	name string
	size int64
	file *os.File // nil: captured
	rec  entry

	tape  *tape // nil: nobody writes down what is read
	taped string
}

// Content opens what name leads to for reading, never for writing. Anything but a
// regular file or a block device is EINVAL, and is not opened: the type is looked
// at first, through a descriptor that opens nothing. Opening a file breaks
// somebody's lease on it ("Leases" in fcntl(2)), also when the answer is EAGAIN
// because of that lease. Name may be that of a [Handle]; the caller closes the
// content.
//
// A captured content that no data line speaks of is [ErrNotCaptured].
func (r *Root) Content(name string) (*Content, error) {
	r.sees("content", name)
	c, err := answer(r, name, (*record).openContent, liveContent)
	r.tape.content(name, c, err)
	return c, wrap("content", name, err)
}

// Size is the length in bytes when the content was opened.
func (c *Content) Size() int64 { return c.size }

// ReadAt is that of [io.ReaderAt]. What was captured is as long as Size says, and
// all of it that no data line speaks of is zero.
func (c *Content) ReadAt(b []byte, off int64) (n int, err error) {
	n, err = c.Peek(b, off)
	c.tape.read(c.taped, off, b[:n], nil)
	return n, err
}

// Peek is ReadAt, but what it reads is not written down where the root is a
// [Root.Tee], only that it could not be read: for looking around in what somebody
// else wrote. What turns out to matter is read again by ReadAt.
func (c *Content) Peek(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, wrap("content", c.name, syscall.EINVAL)
	}
	if c.file != nil {
		n, err = c.file.ReadAt(b, off)
	} else {
		n, err = c.rec.readAt(b, off, c.size)
	}
	if err != nil && err != io.EOF {
		c.tape.read(c.taped, off, nil, err)
		err = wrap("content", c.name, bare(err))
	}
	return n, err
}

// Close lets go. A second Close is an error and does nothing.
func (c *Content) Close() error {
	if c.file == nil {
		return nil
	}
	return wrap("close", c.name, bare(c.file.Close()))
}

func liveContent(name string) (*Content, error) {
	pin, err := openFd(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pin)
	st, err := statAt(pin, "")
	if err != nil {
		return nil, err
	}
	if !st.hasContent() {
		return nil, syscall.EINVAL
	}
	// O_NONBLOCK: somebody's lease must not hold us, nor an empty drive.
	pinned := fdName(pin)
	fd, err := openFd(pinned, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME)
	if err == unix.EPERM { // not the owner (O_NOATIME in open(2))
		fd, err = openFd(pinned, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	if err != nil {
		return nil, err
	}
	c := &Content{Stat: st, name: name, size: st.Size, file: os.NewFile(uintptr(fd), name)}
	if st.Type == BlockDevice {
		if c.size, err = deviceSize(fd); err != nil {
			c.file.Close()
			return nil, err
		}
	}
	return c, nil
}

// hasContent says that a thing of this type has bytes that stay where they are.
func (s Stat) hasContent() bool { return s.Type == Regular || s.Type == BlockDevice }

// A piece is some bytes of a captured content.
type piece struct {
	off  int64
	text string
}

func (p piece) end() int64 { return p.off + int64(len(p.text)) }

// meets says that p and one of the pieces have a byte, or their place, in common.
func (p piece) meets(pieces []piece) bool {
	for _, q := range pieces {
		if p.off == q.off || p.off < q.end() && q.off < p.end() {
			return true
		}
	}
	return false
}

// openContent finds the stat, the length and the pieces of name.
func (c *record) openContent(name string) (*Content, error) {
	e, _, dataErr := c.find(name, c.one(kindData), nil)
	if dataErr != nil && dataErr != ErrNotCaptured {
		return nil, dataErr
	}
	st, err := c.stat(name)
	if err != nil {
		return nil, err
	}
	if !st.hasContent() {
		return nil, syscall.EINVAL
	}
	size := st.Size
	if st.Type == BlockDevice {
		text, err := c.ask(Size, name)
		if err != nil {
			return nil, err
		}
		if size, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, err
		}
	}
	if dataErr != nil {
		return nil, dataErr
	}
	return &Content{Stat: st, name: name, size: size, rec: e}, nil
}

// readAt is [Content.ReadAt] of a captured content of size bytes.
func (e entry) readAt(b []byte, off, size int64) (n int, err error) {
	if e.broken {
		return 0, syscall.EIO
	}
	if e.cut {
		size = min(size, e.end())
	}
	if off >= size {
		return 0, io.EOF
	}
	if left := size - off; left < int64(len(b)) {
		b, err = b[:left], io.EOF
	}
	clear(b)
	for _, p := range e.data {
		from, to := max(p.off, off), min(p.end(), off+int64(len(b)))
		if from < to {
			copy(b[from-off:], p.text[from-p.off:to-p.off])
		}
	}
	return len(b), err
}

// end is where the last of the pieces ends.
func (e entry) end() int64 {
	end := int64(0)
	for _, p := range e.data {
		end = max(end, p.end())
	}
	return end
}

// half is the entry without the second half of its pieces' bytes, and false if
// they have none. What is left ends where they were cut.
func (e entry) half() (entry, bool) {
	total := 0
	for _, p := range e.data {
		total += len(p.text)
	}
	if total == 0 {
		return e, false
	}
	var kept []piece
	left := total / 2
	byOffset := func(a, b piece) int { return cmp.Compare(a.off, b.off) }
	for _, p := range slices.SortedStableFunc(slices.Values(e.data), byOffset) {
		p.text = p.text[:min(left, len(p.text))]
		left -= len(p.text)
		kept = append(kept, p)
		if left == 0 {
			break
		}
	}
	e.data, e.cut = kept, true
	return e, true
}
