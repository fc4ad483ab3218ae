package ddcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Job is one plan that is carried out. The order is dd's: OpenInput, then the
// output is opened, by OpenOutput or by somebody who knows better, then Copy.
type Job struct {
	*Plan
	Locale Locale
	Stdin  *os.File
	Stderr io.Writer

	// BrokenPipe is called when nobody reads what is written any more. When it
	// returns, or is nil, that is an error as any other.
	BrokenPipe func()

	in, out endpoint
	conv    *converter

	// mu is held while anything is done but reading, and writing to an output that
	// is neither a file nor a disk, which may wait for somebody. So whoever takes it
	// finds what is counted to be what was done, and stops the rest by setting stopped.
	mu      sync.Mutex
	stopped bool // nothing may be written any more
	ended   bool // it was all done
	counts  counts
	report  report

	input, output       []byte // buffers; of the output, what is in it
	converted           []byte
	bulked              bool  // it was tried
	unsaid              error // of writing many blocks at once; the next write's
	previous            int   // the size of the last read, -1 if it failed
	partial             int64 // how much of the last block was there, if not all
	seeked              bool  // the last write was none, but a seek
	status              int
	inCached, outCached *cache // nil: what was read or written may stay in the page cache
}

// An endpoint is what is read or written.
type endpoint struct {
	fd       int
	name     string
	file     *os.File // that is closed at the end; nil for a standard descriptor
	mode     uint32   // the type of file
	dev, ino uint64
	rdev     uint64 // of a device
	seekable bool
	seekErr  error // why not
	offset   int64
	waits    bool // an operation may wait for somebody
}

// errSaid ends a job whose error was said.
var errSaid = errors.New("said")

// errQuit ends a job at once: it has no statistics when bringing the output to its
// disk fails, too.
var errQuit = fmt.Errorf("quit: %w", errSaid)

// errStopped ends a job that was stopped.
var errStopped = errors.New("stopped")

// say prints a message of dd's.
func (j *Job) say(format string, args ...any) {
	j.report.endLine()
	fmt.Fprintf(j.Stderr, "dd: "+format+"\n", args...)
}

// fail prints a message about a system call.
func (j *Job) fail(err error, format string, args ...any) error {
	j.say("%s: %s", fmt.Sprintf(format, args...), reasonOf(err))
	return errSaid
}

// quit prints a message about a system call after which nothing is done any more.
func (j *Job) quit(err error, format string, args ...any) error {
	j.fail(err, format, args...)
	return errQuit
}

// reasonOf is the reason that strerror(3) gives.
func reasonOf(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return reason(errno)
	}
	return err.Error()
}

// OpenInput opens the input. When it cannot, that was said, and the exit status is
// 1.
func (j *Job) OpenInput() error {
	j.mu.Lock() // not longer: to open a pipe may take until somebody writes to it
	j.report = report{w: j.Stderr, status: j.Status}
	j.mu.Unlock()
	j.in = endpoint{name: j.Plan.input()}
	if j.HasIn {
		fd, err := open(j.In, unix.O_RDONLY|j.IFlags.open(), 0)
		if err != nil {
			return j.fail(err, "failed to open %s", j.Locale.file(j.In))
		}
		j.in.fd, j.in.file = fd, os.NewFile(uintptr(fd), j.In)
	} else {
		j.in.fd = int(j.Stdin.Fd())
		if err := j.setFlags(&j.in, j.IFlags); err != nil {
			return err
		}
	}
	j.in.examine()
	j.in.waits = true // a disk may be a bad one, and some files are as pipes
	return nil
}

// Input is what is read, once it is open.
func (j *Job) Input() *os.File {
	if j.HasIn {
		return j.in.file
	}
	return j.Stdin
}

// open is open(2), again when a signal comes.
func open(name string, flags int, perm uint32) (fd int, err error) {
	for {
		if fd, err = unix.Open(name, flags|unix.O_CLOEXEC|unix.O_LARGEFILE, perm); err != unix.EINTR {
			return fd, err
		}
	}
}

// examine finds out where a descriptor stands, and what is behind it.
func (e *endpoint) examine() {
	e.offset, e.seekErr = unix.Seek(e.fd, 0, io.SeekCurrent)
	if e.seekable = e.seekErr == nil; !e.seekable {
		e.offset = 0
	}
	var st unix.Stat_t
	if unix.Fstat(e.fd, &st) == nil {
		e.mode, e.dev, e.ino, e.rdev = st.Mode&unix.S_IFMT, st.Dev, st.Ino, st.Rdev
	}
	e.waits = e.mode != unix.S_IFREG && e.mode != unix.S_IFBLK
}

// setFlags adds flags to a descriptor that was open before (fcntl(2), F_SETFL).
func (j *Job) setFlags(e *endpoint, f Flags) error {
	add := f.open() &^ (unix.O_NOCTTY | unix.O_NOFOLLOW)
	if add == 0 {
		return nil
	}
	var err error
	if add&unix.O_DIRECTORY != 0 {
		// That is asked, not set.
		var st unix.Stat_t
		if err = unix.Fstat(e.fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
		add &^= unix.O_DIRECTORY
	}
	if err == nil {
		err = addFlags(e.fd, add)
	}
	if err != nil {
		return j.fail(err, "setting flags for %s", j.Locale.file(e.name))
	}
	return nil
}

func addFlags(fd, add int) error {
	old, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && old|add != old {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, old|add)
	}
	return err
}

// Perm is the mode of a new file, before the umask.
const Perm = 0o666

// OutputFlags are the flags of open(2) to try in turn. O_TRUNC is not among them,
// and O_DIRECT need not be: Copy sees to both.
func (p *Plan) OutputFlags() []int {
	flags := p.OFlags.open()
	if p.Conv&NoCreat == 0 {
		flags |= unix.O_CREAT
	}
	if p.Conv&Excl != 0 {
		flags |= unix.O_EXCL
	}
	if p.SeekRecords != 0 {
		return []int{unix.O_RDWR | flags, unix.O_WRONLY | flags}
	}
	return []int{unix.O_WRONLY | flags}
}

// OpenOutput opens of= as dd does.
func (j *Job) OpenOutput() (*os.File, error) {
	var fd int
	var err error
	for _, flags := range j.OutputFlags() {
		if fd, err = open(j.Out, flags, Perm); err == nil {
			return os.NewFile(uintptr(fd), j.Out), nil
		}
	}
	return nil, err
}

// FailedToOpen says that the output could not be opened.
func (j *Job) FailedToOpen(err error) int {
	j.fail(err, "failed to open %s", j.Locale.file(j.Out))
	return 1
}

// FailedToClose says that the output could not be closed.
func (j *Job) FailedToClose(err error) int {
	j.fail(err, "closing output file %s", j.Locale.file(j.Out))
	return 1
}

// TooLarge says that no file can have the size that seek= asks for, if so.
func (j *Job) TooLarge() bool {
	if _, ok := offset(j.SeekRecords, j.OBS, j.SeekBytes); ok || !j.HasOut || j.Conv&NoTrunc != 0 {
		return false
	}
	j.say("offset too large: cannot truncate to a length of seek=%d (%d-byte) blocks", j.SeekRecords, j.OBS)
	return true
}

// Copy copies to f and gives the exit status, having printed what there is to say.
// A file that is owned is closed. When the context ends before, nothing is
// written any more when Copy returns, and the error is its cause; what was copied
// until then Stats tells.
func (j *Job) Copy(ctx context.Context, f *os.File, owned bool) (status int, err error) {
	j.mu.Lock()
	j.out.name, j.out.fd = j.Plan.output(), int(f.Fd())
	if owned {
		j.out.file = f
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer j.mu.Unlock()
		j.run()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		if j.Stop() {
			return 1, context.Cause(ctx)
		}
		<-done
	}
	return j.status, nil
}

// Stop has nothing more written, unless all was done before.
func (j *Job) Stop() (stopped bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	stopped = !j.stopped
	j.stopped = true
	return stopped
}

// Stats prints the statistics, if there are any yet. After the work they were
// printed.
func (j *Job) Stats() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.ended && !j.report.start.IsZero() {
		j.report.stats(&j.counts)
	}
}

// run does the work.
func (j *Job) run() {
	defer j.free()
	if j.stopped {
		return
	}
	err := j.prepare()
	if err == nil {
		err = j.copy()
	}
	if errors.Is(err, errStopped) {
		return
	}
	j.stopped, j.ended = true, true
	if err != nil {
		j.status = 1
	}
	if errors.Is(err, errEarly) {
		return
	}
	if synced := j.sync(); errors.Is(err, errQuit) && !synced {
		return
	}
	j.uncache()
	j.close()
	j.report.stats(&j.counts)
}

// prepare makes the output what it is to be before the first byte.
func (j *Job) prepare() error {
	if !j.HasOut {
		if err := j.setFlags(&j.out, j.OFlags); err != nil {
			return errEarly
		}
	}
	j.out.examine()
	if j.HasOut && j.OFlags&Direct != 0 {
		if err := addFlags(j.out.fd, unix.O_DIRECT); err != nil {
			j.FailedToOpen(err)
			return errEarly
		}
	}
	if j.HasOut && j.Conv&NoTrunc == 0 {
		size := int64(0)
		if j.SeekRecords != 0 {
			size, _ = offset(j.SeekRecords, j.OBS, j.SeekBytes)
		}
		err := unix.Ftruncate(j.out.fd, size)
		switch regular := j.out.mode == unix.S_IFREG; {
		case err == nil || !regular:
		case size == 0:
			j.FailedToOpen(err)
			return errEarly
		default:
			j.fail(err, "failed to truncate to %d bytes in output file %s", size, j.Locale.file(j.Out))
		}
	}
	j.conv = newConverter(j.Plan)
	if j.IFlags&NoCache != 0 {
		j.inCached = &cache{end: &j.in, all: j.nothing(), from: j.in.offset, to: j.in.offset}
	}
	if j.OFlags&NoCache != 0 {
		j.outCached = &cache{end: &j.out, all: j.nothing(), from: j.out.offset, to: j.out.offset}
	}
	j.report.start = time.Now()
	j.report.next = j.report.start.Add(time.Second)
	return nil
}

// sync brings the output to its disk if that was asked for, after errors, too.
func (j *Job) sync() bool {
	ok := true
	if j.Conv&FDataSync != 0 {
		err := unix.Fdatasync(j.out.fd)
		for err == unix.EINTR {
			err = unix.Fdatasync(j.out.fd)
		}
		if err != nil {
			if err != unix.ENOSYS && err != unix.EINVAL {
				j.fail(err, "fdatasync failed for %s", j.Locale.file(j.out.name))
				ok = false
			}
			j.Conv |= FSync
		}
	}
	if j.Conv&FSync != 0 {
		err := unix.Fsync(j.out.fd)
		for err == unix.EINTR {
			err = unix.Fsync(j.out.fd)
		}
		if err != nil {
			j.fail(err, "fsync failed for %s", j.Locale.file(j.out.name))
			ok = false
		}
	}
	if !ok {
		j.status = 1
	}
	return ok
}

// close closes what was opened.
func (j *Job) close() {
	for _, e := range []struct {
		*endpoint
		what string
	}{{&j.in, "input"}, {&j.out, "output"}} {
		if e.file == nil {
			continue
		}
		if err := e.file.Close(); err != nil {
			j.fail(err, "closing %s file %s", e.what, j.Locale.file(e.name))
			j.status = 1
		}
	}
}

// buffer gives memory that begins with a page and costs nothing before it is used.
func (j *Job) buffer(size int64, what string) ([]byte, error) {
	err := error(unix.ENOMEM)
	var b []byte
	if size <= math.MaxInt {
		b, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	}
	if err != nil {
		j.say("memory exhausted by %s buffer of size %d bytes (%s)", what, size, human(size, 1024))
		return nil, errEarly
	}
	return b, nil
}

// errEarly ends a job without statistics.
var errEarly = fmt.Errorf("too early for statistics: %w", errSaid)

func (j *Job) free() {
	for _, b := range [][]byte{j.input, j.output[:cap(j.output)]} {
		if b != nil {
			_ = unix.Munmap(b) // of a mapping that is there
		}
	}
	j.input, j.output = nil, nil
}
