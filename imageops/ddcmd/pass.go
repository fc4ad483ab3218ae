package ddcmd

import (
	"io"
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// skip passes over the beginning of the input.
func (j *Job) skip() error {
	if j.SkipRecords == 0 && j.SkipBytes == 0 {
		return nil
	}
	before := j.in.offset
	records, _, err := j.pass(&j.in, j.SkipRecords, j.SkipBytes, j.IBS)
	if err != nil {
		return err
	}
	want, ok := offset(j.SkipRecords, j.IBS, j.SkipBytes)
	if (records > 0 || !ok || j.in.offset-before != want) && j.Status != StatusNone {
		j.say("%s: cannot skip to specified offset", j.Locale.fileIfNeeded(j.in.name))
	}
	return nil
}

// seek passes over the beginning of the output. Where that can only be read, and
// ends too soon, there will be zeros.
func (j *Job) seek() error {
	if j.SeekRecords == 0 && j.SeekBytes == 0 {
		return nil
	}
	records, bytes, err := j.pass(&j.out, j.SeekRecords, j.SeekBytes, j.OBS)
	if err != nil {
		return err
	}
	for records > 0 || bytes > 0 {
		b := j.outputBuffer()
		if records > 0 {
			records--
		} else {
			b, bytes = b[:bytes], 0
		}
		clear(b)
		if _, err := j.writeAll(b, 0); err == errStopped {
			return err
		} else if err != nil {
			return j.quit(err, "writing to %s", j.Locale.file(j.out.name))
		}
	}
	return nil
}

// outputBuffer is where the output's blocks are put together.
func (j *Job) outputBuffer() []byte {
	if j.Conv&reblocks == 0 {
		return j.input
	}
	return j.output[:cap(j.output)]
}

// offset is how many bytes whole blocks and some bytes are, if that is a number.
func offset(records, block, bytes int64) (n int64, ok bool) {
	if records > (math.MaxInt64-bytes)/block {
		return 0, false
	}
	return records*block + bytes, true
}

// pass moves e on by seeking, or by reading what is there. It gives what is left
// to pass over.
func (j *Job) pass(e *endpoint, records, bytes, block int64) (recordsLeft, bytesLeft int64, _ error) {
	what := "skip"
	if e == &j.out {
		what = "seek"
	}
	n, ok := offset(records, block, bytes)
	failed := error(nil)
	if ok {
		if _, failed = unix.Seek(e.fd, n, io.SeekCurrent); failed == nil {
			return j.passed(e, n, block)
		}
	}
	if _, err := unix.Seek(e.fd, 0, io.SeekEnd); err == nil {
		// It can seek, only not so far.
		if failed == nil {
			failed = syscall.EOVERFLOW
		}
		return 0, 0, j.quit(failed, "%s: cannot %s", j.Locale.fileIfNeeded(e.name), what)
	}
	if err := j.buffers(e == &j.in, e == &j.out); err != nil {
		return 0, 0, err
	}
	b := j.input
	if e == &j.out {
		b = j.outputBuffer()
	}
	for records > 0 || bytes > 0 {
		part := b
		if records == 0 {
			part = b[:bytes]
		}
		n, err := j.readRecord(e, part)
		if err == errStopped {
			return 0, 0, err
		}
		if err != nil && e == &j.in {
			err = j.quit(err, "error reading %s", j.Locale.file(e.name))
			if j.Conv&NoError != 0 {
				j.report.stats(&j.counts)
			}
			return 0, 0, err
		}
		if err != nil && failed == nil {
			j.say("%s: cannot %s", j.Locale.fileIfNeeded(e.name), what) // nobody tried
			return 0, 0, errQuit
		}
		if err != nil {
			return 0, 0, j.quit(failed, "%s: cannot %s", j.Locale.fileIfNeeded(e.name), what)
		}
		if n == 0 {
			break
		}
		e.offset += int64(n)
		if records > 0 {
			records--
		} else {
			bytes = 0
		}
	}
	return records, bytes, nil
}

// passed is what a seek by n bytes left to pass over: in an input that is shorter,
// the blocks behind its end.
func (j *Job) passed(e *endpoint, n, block int64) (recordsLeft, bytesLeft int64, _ error) {
	if e == &j.out {
		return 0, 0, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(e.fd, &st); err != nil {
		return 0, 0, j.quit(err, "cannot fstat %s", j.Locale.file(e.name))
	}
	if e.mode == unix.S_IFREG && st.Size-e.offset < n {
		recordsLeft = (n - st.Size) / block
		n = st.Size - e.offset
	}
	e.offset += n
	return recordsLeft, 0, nil
}
