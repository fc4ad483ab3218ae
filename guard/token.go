package guard

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"lukechampine.com/blake3"
)

const (
	tokenEdge    = 1 << 20 // bytes read at each end of the target
	tokenSamples = 62      // samples between
	tokenSample  = 64 << 10
)

// Token names what is on the target at this moment: eight characters over its
// identity, its size, the number of writes that imgward began to it, its first
// and last MiB and 62 evenly spaced samples of 64 KiB. A command that carries it
// fires once: every write makes the token another. It is no checksum of the
// whole. The target must come from Check, and is opened for reading meanwhile.
func (g *Guard) Token(ctx context.Context, t *Target) (token string, err error) {
	f, err := t.Open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	id, _ := stableID(ctx, g.Host, t)
	n, err := writesBegun(g.Host, id)
	if err != nil {
		return "", err
	}
	return tokenOf(t, n, f)
}

// Token is the target's token as of now, read through the working descriptor.
func (p *Permit) Token() (string, error) {
	n, err := writesBegun(p.host, p.mark.ID)
	if err != nil {
		return "", err
	}
	return tokenOf(p.target, n, p)
}

func tokenOf(t *Target, writes uint64, r io.ReaderAt) (string, error) {
	h := blake3.New(32, nil)
	var head [8 * 6]byte
	for i, v := range []uint64{uint64(t.ID.Kind), t.ID.Dev, t.ID.Ino, t.ID.Rdev, uint64(t.Size), writes} {
		binary.LittleEndian.PutUint64(head[8*i:], v)
	}
	h.Write(head[:])
	buf := make([]byte, tokenEdge)
	read := func(off, n int64) error {
		n = min(n, t.Size-off)
		if n <= 0 {
			return nil
		}
		got, err := r.ReadAt(buf[:n], off)
		if int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read %s at %d: %w", quote(t.Path), off, reason(err))
		}
		h.Write(buf[:n])
		return nil
	}
	if err := read(0, tokenEdge); err != nil {
		return "", err
	}
	if between := t.Size - 2*tokenEdge; between > 0 {
		for i := range int64(tokenSamples) {
			// Multiples of 4096 suit every device's blocks.
			off := tokenEdge + between/tokenSamples*i
			if err := read(off&^4095, tokenSample); err != nil {
				return "", err
			}
		}
	}
	if last := max(tokenEdge, t.Size-tokenEdge); last < t.Size {
		if err := read(last, tokenEdge); err != nil {
			return "", err
		}
	}
	sum := h.Sum(nil)
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5])), nil
}
