package ddcmd

import (
	"bytes"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// wait does what may wait for somebody else, without the lock.
func (j *Job) wait(e *endpoint, do func()) error {
	if !e.waits {
		do()
		return nil
	}
	j.mu.Unlock()
	do()
	j.mu.Lock()
	if j.stopped {
		return errStopped
	}
	return nil
}

// read is one read(2). A device without an end gives less than it is asked for when
// a signal comes (drivers/char/mem.c and random.c in Linux); what it gives then is
// not the end of a block, because it may be one of the runtime's own.
func (j *Job) read(e *endpoint, b []byte) (n int, err error) {
	for have := 0; ; have = n {
		var got int
		if stopped := j.wait(e, func() { got, err = unix.Read(e.fd, b[have:]) }); stopped != nil {
			return 0, stopped
		}
		n = have + max(0, got)
		if err != unix.EINTR && (got <= 0 || n == len(b) || !e.endless()) {
			break
		}
	}
	if err == unix.EINVAL && 0 < j.previous && j.previous < len(b) && j.IFlags&Direct != 0 {
		n, err = 0, nil // behind the end of a file that has no whole block there
	}
	if err != nil {
		j.previous = -1
		return 0, err
	}
	if n > 0 && j.warnPartial && 0 < j.previous && j.previous < len(b) {
		j.warnPartial = false
		if j.Status != StatusNone {
			j.say("warning: partial read (%d byte%s); suggest iflag=fullblock", j.previous, plural(int64(j.previous)))
		}
	}
	j.previous = n
	return n, nil
}

// endless reports whether an endpoint is /dev/zero, full, random or urandom (Linux,
// Documentation/admin-guide/devices.txt).
func (e *endpoint) endless() bool {
	return e.mode == unix.S_IFCHR && unix.Major(e.rdev) == 1 && slices.Contains([]uint32{5, 7, 8, 9}, unix.Minor(e.rdev))
}

// readRecord is one read, or with iflag=fullblock as many as make b full.
func (j *Job) readRecord(e *endpoint, b []byte) (int, error) {
	if j.IFlags&FullBlock == 0 {
		return j.read(e, b)
	}
	have := 0
	for have < len(b) {
		n, err := j.read(e, b[have:])
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		have += n
	}
	return have, nil
}

// writeAll writes b, of which some is written already, to its end, or as much as
// goes before the error, and gives how much is written then.
func (j *Job) writeAll(b []byte, done int) (_ int, err error) {
	if j.OFlags&Direct != 0 && int64(len(b)) < j.OBS {
		j.endDirect()
	}
	for done < len(b) {
		j.seeked = false
		if j.Conv&Sparse != 0 && allZero(b) {
			if _, err := unix.Seek(j.out.fd, int64(len(b)), io.SeekCurrent); err != nil {
				j.Conv &^= Sparse
			} else {
				j.seeked = true
				done = len(b)
				break
			}
		}
		var n int
		if j.unsaid != nil {
			err, j.unsaid = j.unsaid, nil // it may be told once only
		} else if stopped := j.wait(&j.out, func() { n, err = unix.Write(j.out.fd, b[done:]) }); stopped != nil {
			return done, stopped
		}
		switch {
		case err == unix.EINTR:
			err = nil
			continue
		case err == nil && n == 0:
			err = unix.ENOSPC // some drivers say it in this way at a device's end
		case err == unix.EPIPE && j.BrokenPipe != nil:
			j.BrokenPipe()
		}
		if err != nil {
			break
		}
		done += n
	}
	if j.OFlags&NoCache != 0 {
		j.outCached.drop(int64(done))
	}
	return done, err
}

// endDirect switches direct I/O off for the last block, which is no whole one, and
// has the output brought to its disk, as it would have been.
func (j *Job) endDirect() {
	old, err := unix.FcntlInt(uintptr(j.out.fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(j.out.fd), unix.F_SETFL, old&^unix.O_DIRECT)
	}
	if err != nil && j.Status != StatusNone {
		j.fail(err, "failed to turn off O_DIRECT: %s", j.Locale.fileIfNeeded(j.out.name))
	}
	j.Conv |= FSync
	if j.outCached == nil {
		j.outCached = &cache{end: &j.out}
	}
	j.outCached.ended()
}

// allZero compares b with itself, one byte on.
func allZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
