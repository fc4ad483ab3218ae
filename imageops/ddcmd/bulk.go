package ddcmd

import (
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// Where reading and writing many blocks at once shows in nothing but the time it
// takes, that is done: from a file, a disk or /dev/zero to a file, a disk or
// /dev/null, as long as there are whole blocks. Whatever is not as usual, the end
// of the input, a short read, an error, is left to the loop over single blocks,
// at the place where it came.

// The bytes of one step: what a processor's cache has room for, and what keeps a
// disk busy.
const (
	bulkCached = 256 << 10
	bulkDirect = 1 << 20
	bulkMost   = 16 << 20 // of direct I/O, which has at least one block in a step
)

// bulk moves as many whole blocks as it can. It is called before each block, and
// works once: before the first, or with direct I/O before the second, when the
// first has shown that the size of a block suits. part is how much of the block
// that comes next is written already.
func (j *Job) bulk() (part int64, _ error) {
	direct := (j.IFlags|j.OFlags)&Direct != 0
	if j.bulked || direct && j.counts.inFull == 0 {
		return 0, nil
	}
	j.bulked = true
	step := j.step(direct)
	if step == 0 {
		return 0, nil
	}
	total := j.whole()
	if total < step/16 {
		return 0, nil
	}
	p, err := newPipeline(j.in.fd, step, total)
	if err != nil {
		return 0, nil // without the memory it goes block by block
	}
	moved, err := j.drain(p)
	part = moved % j.IBS
	j.in.offset += moved - part
	if read := p.stop(); err == nil && read != moved-part {
		// What was read and not written is read again.
		if _, err := unix.Seek(j.in.fd, j.in.offset, io.SeekStart); err != nil {
			return 0, j.quit(err, "%s: cannot seek", j.Locale.fileIfNeeded(j.in.name))
		}
	}
	return part, err
}

// step is how many bytes to move at once; 0 if blocks must be moved one by one.
func (j *Job) step(direct bool) int64 {
	const harmless = NoTrunc | Excl | NoCreat | FSync | FDataSync | reblocks
	const same = Direct | FullBlock | NoATime | NoCTTY | NoFollow | CountBytes | SkipBytes | SeekBytes
	switch {
	case j.Conv&^harmless != 0, (j.IFlags|j.OFlags)&^same != 0,
		j.IBS != j.OBS, len(j.output) > 0, j.counts.inPartial > 0, !j.in.seekable,
		!j.in.bulky(zeroDevice), !j.out.bulky(nullDevice), j.in.identity() == j.out.identity():
		return 0
	}
	switch {
	case !direct:
		return bulkCached
	case j.IBS > bulkMost:
		return 0
	case j.IBS > bulkDirect:
		return j.IBS
	}
	return bulkDirect - bulkDirect%j.IBS
}

var (
	nullDevice = unix.Mkdev(1, 3)
	zeroDevice = unix.Mkdev(1, 5)
)

// bulky reports whether an endpoint is a file, a disk, or this character device.
func (e *endpoint) bulky(device uint64) bool {
	switch e.mode {
	case unix.S_IFREG, unix.S_IFBLK:
		return true
	}
	return e.mode == unix.S_IFCHR && e.rdev == device
}

// identity is the file or device behind an endpoint.
func (e *endpoint) identity() [3]uint64 {
	if e.mode == unix.S_IFREG {
		return [3]uint64{unix.S_IFREG, e.dev, e.ino}
	}
	return [3]uint64{uint64(e.mode), e.rdev}
}

// whole is how many bytes the whole blocks have that are still to be read and are
// there. What a file of a file system without blocks gives, as /proc, is not known
// before.
func (j *Job) whole() int64 {
	n := int64(math.MaxInt64)
	switch j.in.mode {
	case unix.S_IFREG:
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Fstat(j.in.fd, &st) != nil || unix.Fstatfs(j.in.fd, &fs) != nil || fs.Blocks == 0 {
			return 0
		}
		n = st.Size - j.in.offset
	case unix.S_IFBLK:
		end, err := unix.Seek(j.in.fd, 0, io.SeekEnd)
		if _, back := unix.Seek(j.in.fd, j.in.offset, io.SeekStart); err != nil || back != nil {
			return 0
		}
		n = end - j.in.offset
	}
	if left := j.MaxRecords - j.counts.inFull; left < n/j.IBS {
		n = left * j.IBS
	}
	return n - n%j.IBS
}

// drain writes what the pipeline reads, until something is not as usual, and gives
// how much was written. While it waits for more it may be stopped, and what is
// counted is what was written, in the middle of a block, too; of the block that is
// left to the loop over single blocks nothing is counted in the end.
func (j *Job) drain(p *pipeline) (moved int64, _ error) {
	full := j.counts
	count := func(part int64) {
		blocks := moved / j.IBS
		j.counts.inFull, j.counts.outFull = full.inFull+blocks, full.outFull+blocks
		j.counts.inPartial, j.counts.outPartial = full.inPartial, full.outPartial
		j.counts.written = full.written + blocks*j.IBS + part
		if part > 0 {
			j.counts.inPartial++
			j.counts.outPartial++
		}
	}
	for {
		j.mu.Unlock()
		piece, ok := <-p.full
		j.mu.Lock()
		if j.stopped {
			return moved, errStopped
		}
		if !ok {
			count(0)
			return moved, nil
		}
		done := 0
		for done < piece.n {
			n, err := unix.Write(j.out.fd, piece.b[done:piece.n])
			if err == unix.EINTR {
				continue
			}
			// What the kernel was to write later may have failed, which it tells once.
			// What it finds wrong with the call itself it finds again.
			if err != nil && err != unix.EINVAL {
				j.unsaid = err
			}
			if err != nil || n == 0 {
				break
			}
			done += n
		}
		moved += int64(done)
		if done < len(piece.b) {
			count(0)
			return moved, nil
		}
		count(moved % j.IBS)
		p.free <- piece.b
		j.report.progress(&j.counts)
	}
}

// A pipeline reads ahead, in pieces.
type pipeline struct {
	full   chan piece // of what was read; closed at the end
	free   chan []byte
	quit   chan struct{}
	read   int64 // in all, once full is closed
	memory []byte
}

// A piece is what one read gave, if not all that it was to.
type piece struct {
	b []byte
	n int
}

// bulkDepth is how many pieces there are: one is read, one is written, and one
// waits.
const bulkDepth = 3

// newPipeline begins to read total bytes. The error is one of having no memory.
func newPipeline(fd int, step, total int64) (*pipeline, error) {
	memory, err := unix.Mmap(-1, 0, int(step*bulkDepth), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	p := &pipeline{full: make(chan piece, bulkDepth), free: make(chan []byte, bulkDepth), quit: make(chan struct{}), memory: memory}
	for i := range int64(bulkDepth) {
		p.free <- memory[i*step : (i+1)*step : (i+1)*step]
	}
	go p.fill(fd, total)
	return p, nil
}

func (p *pipeline) fill(fd int, total int64) {
	defer close(p.full)
	for p.read < total {
		var b []byte
		select {
		case b = <-p.free:
		case <-p.quit:
			return
		}
		b = b[:min(int64(cap(b)), total-p.read)]
		n := 0
		for n < len(b) { // a signal makes short reads of some devices
			m, err := unix.Read(fd, b[n:])
			if err != nil || m == 0 {
				break // whoever reads there next will meet it again
			}
			n += m
		}
		p.read += int64(n)
		p.full <- piece{b, n}
		if n < len(b) {
			return
		}
	}
}

// stop ends the reading and gives how much was read.
func (p *pipeline) stop() int64 {
	close(p.quit)
	for range p.full {
	}
	_ = unix.Munmap(p.memory) // of a mapping that is there
	return p.read
}
