package ddcmd

import "golang.org/x/sys/unix"

// A cache takes what was read or written out of the page cache, as flag nocache
// asks. All its methods do nothing on a nil one.
type cache struct {
	end      *endpoint
	all      bool  // at the end, all that follows, too
	from, to int64 // what was used and is still there
}

// cacheStep is how much is used before it is asked to go.
const cacheStep = 128 << 10

// drop tells that n bytes more were used.
func (c *cache) drop(n int64) {
	if c == nil || !c.end.seekable {
		return
	}
	if c.to += n; c.to-c.from >= cacheStep {
		_ = unix.Fadvise(c.end.fd, c.from, c.to-c.from, unix.FADV_DONTNEED) // advice
		c.from = c.to - c.to%pageSize                                       // of whole pages
	}
}

// ended tells that what follows is to go, too.
func (c *cache) ended() {
	if c != nil {
		c.all = true
	}
}

// finish drops what is left.
func (c *cache) finish() error {
	if c == nil {
		return nil
	}
	if !c.end.seekable {
		return c.end.seekErr
	}
	n := c.to - c.from
	if c.all {
		n = 0 // to the end, whatever it is
	} else if n == 0 {
		return nil
	}
	return unix.Fadvise(c.end.fd, c.from-c.from%pageSize, n, unix.FADV_DONTNEED)
}

var pageSize = int64(unix.Getpagesize())

// uncache drops what is left of the input and the output.
func (j *Job) uncache() {
	for _, c := range []*cache{j.inCached, j.outCached} {
		if err := c.finish(); err != nil && j.nothing() {
			j.fail(err, "failed to discard cache for: %s", j.Locale.fileIfNeeded(c.end.name))
			j.status = 1
		}
	}
}
