package ddcmd

import (
	"errors"
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// copy moves the bytes. Its errors were said, but for errStopped; that of reading
// is none of them, because all that was read before is written.
func (j *Job) copy() error {
	if err := j.skip(); err != nil {
		return err
	}
	if err := j.seek(); err != nil {
		return err
	}
	if j.nothing() {
		return nil
	}
	if err := j.buffers(true, true); err != nil {
		return err
	}
	for {
		j.report.progress(&j.counts)
		part, err := j.bulk()
		if err != nil {
			return err
		}
		b, err := j.record()
		if err == io.EOF {
			break
		}
		if errors.Is(err, errSaid) {
			j.status = 1
			break
		}
		if err == nil {
			err = j.write(b, min(int(part), len(b)))
		}
		if err != nil {
			return err
		}
	}
	if j.unsaid != nil {
		return j.fail(j.unsaid, "error writing %s", j.Locale.file(j.out.name))
	}
	return j.finish()
}

// buffers makes the buffers that reading or writing needs.
func (j *Job) buffers(in, out bool) (err error) {
	two := j.Conv&reblocks != 0
	if j.input == nil && (in || !two) {
		if j.input, err = j.buffer(j.IBS, "input"); err != nil {
			return err
		}
	}
	if j.output == nil && out && two {
		if j.output, err = j.buffer(j.OBS, "output"); err != nil {
			return err
		}
		j.output = j.output[:0]
	}
	return nil
}

// record reads one block of the input, counts it, and gives what of it is to be
// written. At the end of the input, or of what count= wants of it, the error is
// io.EOF; one that was said stops reading.
func (j *Job) record() ([]byte, error) {
	padding := byte(0)
	if j.Conv&(Block|Unblock) != 0 {
		padding = ' '
	}
	for {
		b := j.input
		switch done := j.counts.inPartial + j.counts.inFull; {
		case done < j.MaxRecords:
		case done == j.MaxRecords && j.MaxBytes > 0:
			b = b[:j.MaxBytes]
		default:
			return nil, io.EOF
		}
		if j.Conv&Sync != 0 && j.Conv&NoError != 0 {
			fill(j.input, padding)
		}
		n, err := j.readRecord(&j.in, b)
		switch {
		case errors.Is(err, errStopped):
			return nil, err
		case err == nil && n == 0:
			j.inCached.ended()
			if j.Conv&NoTrunc == 0 {
				j.outCached.ended()
			}
			return nil, io.EOF
		case err != nil:
			if again, err := j.readFailed(err); err != nil {
				return nil, err
			} else if again {
				continue
			}
			n = 0
		default:
			j.in.offset += int64(n)
			j.inCached.drop(int64(n))
		}
		if n == len(j.input) {
			j.counts.inFull++
			j.partial = 0
			return j.input, nil
		}
		j.counts.inPartial++
		j.partial = int64(n)
		if j.Conv&Sync == 0 {
			return j.input[:n], nil
		}
		if j.Conv&NoError == 0 {
			fill(j.input[n:], padding)
		}
		return j.input, nil
	}
}

// readFailed deals with a failed read: with conv=noerror it steps over the block,
// and tells whether to read on instead of writing padding for it.
func (j *Job) readFailed(err error) (again bool, _ error) {
	if j.Conv&NoError == 0 || j.Status != StatusNone {
		j.fail(err, "error reading %s", j.Locale.file(j.in.name))
	}
	if j.Conv&NoError == 0 {
		return false, errSaid
	}
	j.report.stats(&j.counts)
	bad := j.IBS - j.partial
	j.inCached.drop(bad)
	if !j.stepOver(bad) {
		j.status = 1
		j.in.seekable, j.in.seekErr = false, unix.ESPIPE // one complaint is enough
	}
	return j.Conv&Sync == 0 || j.partial != 0, nil
}

// stepOver moves the input n bytes on from where the last read failed.
func (j *Job) stepOver(n int64) bool {
	err := j.in.seekErr
	if j.in.seekable {
		if j.in.offset > math.MaxInt64-n {
			j.say("offset overflow while reading file %s", j.Locale.file(j.in.name))
			return false
		}
		j.in.offset += n
		var at int64
		if at, err = unix.Seek(j.in.fd, 0, io.SeekCurrent); err == nil {
			if at == j.in.offset {
				return true
			}
			if d := j.in.offset - at; (d < 0 || d > n) && j.Status != StatusNone {
				j.say("warning: invalid file offset after failed read")
			}
			if _, err = unix.Seek(j.in.fd, j.in.offset-at, io.SeekCurrent); err == nil {
				return true
			}
		}
	} else if err == unix.ESPIPE {
		return true
	}
	j.fail(err, "%s: cannot seek", j.Locale.fileIfNeeded(j.in.name))
	return false
}

// write writes one block of the input, of which some may be written, or converts
// it and writes what is whole of the output's blocks.
func (j *Job) write(b []byte, part int) error {
	if j.Conv&reblocks != 0 && part == 0 {
		return j.reblock(b)
	}
	return j.writeBlock(b, part)
}

// writeBlock writes and counts a block, of which some was written already.
func (j *Job) writeBlock(b []byte, done int) error {
	n, err := j.writeAll(b, done)
	j.counts.written += int64(n)
	full := int64(n) == j.OBS
	switch {
	case errors.Is(err, errStopped):
		return err
	case err != nil && j.Conv&reblocks != 0:
		if n > 0 {
			j.counts.outPartial++
		}
		return j.quit(err, "writing to %s", j.Locale.file(j.out.name))
	case err != nil:
		return j.fail(err, "error writing %s", j.Locale.file(j.out.name))
	case full:
		j.counts.outFull++
	default:
		j.counts.outPartial++
	}
	return nil
}

// portion is how much is converted at once; cbs=1 can make two bytes of one, and a
// large one many.
const portion = 64 << 10

// reblock converts b and writes the blocks that are full then.
func (j *Job) reblock(b []byte) error {
	if j.conv.table == nil && !j.conv.swab && !j.conv.block && !j.conv.unblock {
		return j.collect(b)
	}
	for len(b) > 0 {
		n := min(len(b), portion)
		if j.conv.block { // of which each byte may end a record, that is padded
			n = min(n, int(max(1, mostPadded/j.conv.width)))
		}
		j.converted = j.conv.convert(j.converted[:0], b[:n])
		j.counts.truncated = j.conv.truncated
		if err := j.collect(j.converted); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// mostPadded is how much padding is made at once, or else that of one record.
const mostPadded = 16 << 20

// collect adds to the output's block, and writes each that is full.
func (j *Job) collect(b []byte) error {
	for len(b) > 0 {
		have := len(j.output)
		n := min(len(b), int(j.OBS)-have)
		j.output = append(j.output, b[:n]...)
		b = b[n:]
		if int64(len(j.output)) < j.OBS {
			return nil
		}
		if err := j.writeBlock(j.output, 0); err != nil {
			return err
		}
		j.output = j.output[:0]
	}
	return nil
}

// finish writes what is left of the output's last block, and gives a file that
// ends with a hole its size.
func (j *Job) finish() error {
	if j.Conv&reblocks != 0 {
		rest := j.conv.finish(nil)
		j.counts.truncated = j.conv.truncated
		if err := j.collect(rest); err != nil {
			return err
		}
		if len(j.output) > 0 {
			n, err := j.writeAll(j.output, 0)
			j.counts.written += int64(n)
			if errors.Is(err, errStopped) {
				return err
			}
			if n > 0 {
				j.counts.outPartial++
			}
			if err != nil {
				return j.fail(err, "error writing %s", j.Locale.file(j.out.name))
			}
		}
	}
	if !j.seeked {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(j.out.fd, &st); err != nil {
		return j.fail(err, "cannot fstat %s", j.Locale.file(j.out.name))
	}
	if at, err := unix.Seek(j.out.fd, 0, io.SeekCurrent); err == nil && j.out.mode == unix.S_IFREG && st.Size < at {
		if err := unix.Ftruncate(j.out.fd, at); err != nil {
			return j.fail(err, "failed to truncate to %d bytes in output file %s", at, j.Locale.file(j.out.name))
		}
	}
	return nil
}

func fill(b []byte, v byte) {
	if v == 0 {
		clear(b)
		return
	}
	for i := range b {
		b[i] = v
	}
}
