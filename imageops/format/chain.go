package format

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"imgward/imageops"
)

// A Layer is an image of a chain: an open file, and how it is to be read.
type Layer struct {
	Kind Kind // Raw, QCOW2 or VHD
	File io.ReaderAt
	Size int64 // of the file in bytes
	Name string
}

// A state says where a range of a layer's bytes is.
type state uint8

const (
	data   state = iota // in the layer
	zeros               // in the layer, which says that it is zero
	absent              // not in the layer
)

// layer is one image of a chain. Its methods are called concurrently.
type layer interface {
	io.ReaderAt
	Size() int64 // of the disk

	// part says where the bytes at off are. The answer is good for m of n bytes,
	// at least one; the range lies within Size.
	part(off, n int64) (m int64, s state, err error)
}

// A Chain is a disk that lies in one or more images. It is an imageops.Source and
// knows its holes.
type Chain struct {
	name   string
	layers []layer // the image itself first
}

// Open makes a Chain of an image and of those that it was derived from, its own
// parent first. The files stay the caller's and must be open until the last read.
// An image that needs a parent must have one here, and one that needs none must not.
func Open(layers ...Layer) (*Chain, error) {
	c := &Chain{name: layers[0].Name}
	for i, l := range layers {
		more := layers[i+1:]
		fail := func(err error) (*Chain, error) { return nil, fmt.Errorf("open %v image %q: %w", l.Kind, l.Name, err) }
		var opened layer
		var needs bool
		var err error
		switch l.Kind {
		case Raw:
			opened = raw{l.File, l.Size}
		case QCOW2:
			opened, needs, err = openQCOW2(l)
		case VHD:
			var parent []Layer
			if len(more) > 0 {
				parent = more[:1]
			}
			opened, needs, err = openVHD(l, parent)
		default:
			err = errors.ErrUnsupported
		}
		switch {
		case err != nil:
			return fail(err)
		case needs && len(more) == 0:
			return fail(ErrNeedsParent)
		case !needs && len(more) > 0:
			return fail(fmt.Errorf("%w, and got %q", ErrNoParent, more[0].Name))
		}
		c.layers = append(c.layers, opened)
	}
	return c, nil
}

// ErrNeedsParent is the reason why an image alone is not opened.
var ErrNeedsParent = errors.New("it holds only what differs from another image, which is missing")

// ErrNoParent is the reason why an image with a parent is not opened.
var ErrNoParent = errors.New("it is a whole image and has no parent")

// Name is the name of the image.
func (c *Chain) Name() string { return c.name }

// Size is the size of the disk in bytes.
func (c *Chain) Size() int64 { return c.layers[0].Size() }

// ReadAt is io.ReaderAt.
func (c *Chain) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > c.Size() {
		return 0, fmt.Errorf("read %q at byte %d: out of range", c.name, off)
	}
	n := min(int64(len(p)), c.Size()-off)
	if err := c.read(0, p[:n], off); err != nil {
		return 0, &imageops.OpError{Op: "read", Name: c.name, Off: off, Err: err}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// read fills p from the i-th layer and those below it. Behind the end of a layer,
// and below the last one, are zeros.
func (c *Chain) read(i int, p []byte, off int64) error {
	for len(p) > 0 {
		if i == len(c.layers) || off >= c.layers[i].Size() {
			clear(p)
			return nil
		}
		l := c.layers[i]
		n, s, err := l.part(off, min(int64(len(p)), l.Size()-off))
		if err != nil {
			return err
		}
		switch s {
		case zeros:
			clear(p[:n])
		case absent:
			err = c.read(i+1, p[:n], off)
		default:
			err = readAll(l, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// mapped is how many bytes are asked for at a time: a layer looks at each of its
// clusters in them, and those below it may say less.
const mapped = 64 << 20

// Extents is imageops.Extenter: what no layer has is zero.
func (c *Chain) Extents(ctx context.Context, off, n int64) iter.Seq2[imageops.Extent, error] {
	return func(yield func(imageops.Extent, error) bool) {
		for end := off + n; off < end; {
			if ctx.Err() != nil {
				yield(imageops.Extent{}, context.Cause(ctx))
				return
			}
			m, zero, err := c.extent(0, off, min(end-off, mapped))
			if err != nil {
				yield(imageops.Extent{}, err)
				return
			}
			if !yield(imageops.Extent{Off: off, Len: m, Zero: zero}, nil) {
				return
			}
			off += m
		}
	}
}

// extent is what the i-th layer and those below it have at off.
func (c *Chain) extent(i int, off, n int64) (m int64, zero bool, err error) {
	if i == len(c.layers) || off >= c.layers[i].Size() {
		return n, true, nil
	}
	l := c.layers[i]
	m, s, err := l.part(off, min(n, l.Size()-off))
	if err != nil || s != absent {
		return m, s == zeros, err
	}
	return c.extent(i+1, off, m)
}

// readAll reads all of p; the end of the file in it is an error.
func readAll(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// raw is a layer that has all its bytes.
type raw struct {
	io.ReaderAt
	size int64
}

func (r raw) Size() int64 { return r.size }

func (r raw) part(_, n int64) (int64, state, error) { return n, data, nil }
