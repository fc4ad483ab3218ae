package format

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// What a compressed image may ask for in memory, in bytes: what the programs that
// made it use unless told otherwise (zstd(1), --long; xz(1), -9).
const (
	maxZstdWindow = 128 << 20
	maxXZDict     = 64 << 20
)

// Decompress makes a stream of a compressed image. r is read in order from its
// beginning. The stream ends with io.EOF only where the image ends whole, and all
// that the format has to check it by was right. Close releases memory; r is not
// closed.
func Decompress(kind Kind, r io.Reader) (io.ReadCloser, error) {
	end := &ending{r: r}
	in := bufio.NewReaderSize(end, 1<<20)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if guess(head) != kind {
		return nil, fmt.Errorf("it does not begin as %v does", kind)
	}
	switch kind {
	case Gzip:
		return gzip.NewReader(in)
	case Zstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(in)), nil
	case XZ:
		if err := xzFits(head); err != nil {
			return nil, err
		}
		d, err := xz.NewReader(in)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(&wholeXZ{d, in, end}), nil
	}
	return nil, fmt.Errorf("decompress %v: %w", kind, errors.ErrUnsupported)
}

// ending remembers how what is read ends, but for zeros.
type ending struct {
	r     io.Reader
	last  []byte
	zeros int // behind last
}

// xzFooter is the size of the footer of an xz stream.
const xzFooter = 12

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	some := bytes.TrimRight(p[:n], "\x00")
	if len(some) == 0 {
		e.zeros += n
		return n, err
	}
	e.last = append(e.last, make([]byte, min(e.zeros, xzFooter))...)
	e.last = append(e.last, some[max(0, len(some)-xzFooter):]...)
	e.last = e.last[max(0, len(e.last)-xzFooter):]
	e.zeros = n - len(some)
	return n, err
}

// wholeXZ believes an end only behind the footer of a stream: to the library an
// image that is cut off between or in the first bytes of its parts has ended too.
type wholeXZ struct {
	d   io.Reader
	in  *bufio.Reader
	end *ending
}

func (x *wholeXZ) Read(p []byte) (int, error) {
	n, err := x.d.Read(p)
	if err == io.EOF && !x.whole() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// whole compares the footer's magic number and checksum (the xz file format 1.1.0,
// section 2.1.2), behind which only padding may be.
func (x *wholeXZ) whole() bool {
	if _, err := x.in.Peek(1); err != io.EOF || len(x.end.last) != xzFooter || x.end.zeros%4 != 0 {
		return false
	}
	foot := x.end.last
	return string(foot[10:]) == "YZ" && crc32.ChecksumIEEE(foot[4:10]) == binary.LittleEndian.Uint32(foot)
}

// xzFits looks into the header of the first block for the size of its dictionary:
// the xz file format 1.1.0, sections 3.1 and 5.3.1. What it does not understand is
// left to the decoder, which understands one LZMA2 filter alone.
func xzFits(head []byte) error {
	const (
		block      = 12 // behind the stream's header
		compressed = 0x40
		whole      = 0x80
		lzma2      = 0x21
	)
	if len(head) < block+2 || head[block] == 0 {
		return nil // an index: no block
	}
	at := block + 2
	for _, flag := range []byte{compressed, whole} {
		for more := head[block+1]&flag != 0; more && at < len(head); at++ {
			more = head[at]&0x80 != 0
		}
	}
	if at+3 > len(head) || head[at] != lzma2 || head[at+1] != 1 {
		return nil
	}
	bits := uint(head[at+2] & 0x3f)
	if bits > 40 {
		return nil
	}
	if size := uint64(2|bits&1) << (bits/2 + 11); size > maxXZDict {
		return fmt.Errorf("it wants %d MiB of memory, and %d are allowed", size>>20, maxXZDict>>20)
	}
	return nil
}
