package imageops

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"lukechampine.com/blake3"
)

// A Manifest says what an image is, piece by piece, so that not only that an image
// differs can be told but where.
type Manifest struct {
	Size   int64      // of the image in bytes
	Chunk  int        // of a piece in bytes, a power of two; the last one may be smaller
	Sums   [][32]byte // of the pieces: the chaining values of BLAKE3's tree over the whole image
	Digest []byte     // BLAKE3 of the image
}

// manifestHead is the first line of a manifest.
const manifestHead = "imgward manifest 1"

// manifestEnd begins the last line, in front of BLAKE3 of all lines before it.
const manifestEnd = "manifest "

// WriteTo writes the manifest as text: its head, size, chunk and blake3 with their
// values, an empty line, a line of hexadecimal digits for each piece, and one for all
// lines before it.
func (m *Manifest) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nsize %d\nchunk %d\nblake3 %x\n\n", manifestHead, m.Size, m.Chunk, m.Digest)
	for _, sum := range m.Sums {
		fmt.Fprintf(&b, "%x\n", sum)
	}
	fmt.Fprintf(&b, "%s%x\n", manifestEnd, blake3.Sum256(b.Bytes()))
	return b.WriteTo(w)
}

// maxManifest bounds the pieces of a manifest: an image of 8 TiB in pieces of 2 MiB.
const maxManifest = 4 << 20

// ParseManifest reads what WriteTo wrote. One that was damaged is an error.
func ParseManifest(text []byte) (*Manifest, error) {
	end := len(text) - len(manifestEnd) - 2*BLAKE3.Size() - 1
	if end < 0 || string(text[end:]) != fmt.Sprintf("%s%x\n", manifestEnd, blake3.Sum256(text[:end])) {
		return nil, errors.New("manifest: its last line is not that of the lines before it")
	}
	head, rest, ok := strings.Cut(string(text[:end]), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) != 4 || lines[0] != manifestHead {
		return nil, errors.New("manifest: it does not begin as one")
	}
	m := &Manifest{}
	for i, key := range []string{"size ", "chunk ", "blake3 "} {
		value, ok := strings.CutPrefix(lines[i+1], key)
		var err error
		switch {
		case !ok:
			err = fmt.Errorf("no %q", key)
		case i == 0:
			m.Size, err = strconv.ParseInt(value, 10, 64)
		case i == 1:
			m.Chunk, err = strconv.Atoi(value)
		default:
			m.Digest, err = hex.DecodeString(value)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest: line %d: %w", i+2, err)
		}
	}
	if m.Size < 0 || m.Chunk < minChunk || m.Chunk > maxChunk || bits.OnesCount(uint(m.Chunk)) != 1 || len(m.Digest) != BLAKE3.Size() {
		return nil, errors.New("manifest: a size or digest is out of range")
	}
	n := chunksOf(m.Size, m.Chunk)
	if n > maxManifest || uint64(len(rest)) != n*65 {
		return nil, fmt.Errorf("manifest: %d bytes of digests for %d pieces", len(rest), n)
	}
	m.Sums = make([][32]byte, n)
	for i := range m.Sums {
		line := rest[i*65 : (i+1)*65]
		if _, err := hex.Decode(m.Sums[i][:], []byte(line[:64])); err != nil || line[64] != '\n' {
			return nil, fmt.Errorf("manifest: digest %d is damaged", i)
		}
	}
	return m, nil
}

// manifest makes a Manifest of a whole tree whose marks are those of its chunks.
func (t *tree) manifest(size int64, chunkSize int) *Manifest {
	m := &Manifest{Size: size, Chunk: chunkSize, Digest: t.sum(), Sums: make([][32]byte, len(t.marks))}
	for i, mark := range t.marks {
		for k, word := range mark {
			binary.LittleEndian.PutUint32(m.Sums[i][4*k:], word)
		}
	}
	return m
}

// A DamageError says where an image is not what its manifest says.
type DamageError struct {
	Name   string
	Ranges []Extent // in whole pieces, joined and in order
}

func (e *DamageError) Error() string {
	const most = 8
	var all []string
	var total int64
	for i, r := range e.Ranges {
		total += r.Len
		if i < most {
			all = append(all, fmt.Sprintf("%d to %d", r.Off, r.End()-1))
		}
	}
	more := ""
	if n := len(e.Ranges) - most; n > 0 {
		more = fmt.Sprintf(" and %d ranges more", n)
	}
	return fmt.Sprintf("%q differs from its manifest in bytes %s%s: within %d bytes", e.Name, strings.Join(all, ", "), more, total)
}

// Verify reads src once and compares it with m. What differs is a *DamageError; bytes
// that only one of both has differ.
func Verify(ctx context.Context, src Source, m *Manifest, o Options) (rep Report, err error) {
	start := time.Now()
	defer func() { rep.Elapsed = time.Since(start) }()
	o.Digest, o.ChunkSize, o.Manifest = BLAKE3, m.Chunk, true
	if rep, err = Digest(ctx, src, o); err != nil {
		return rep, err
	}
	got := rep.Manifest
	var bad ranges
	for i := range max(len(m.Sums), len(got.Sums)) {
		off := int64(i) * int64(m.Chunk)
		if i >= len(m.Sums) || i >= len(got.Sums) || m.Sums[i] != got.Sums[i] {
			bad.add(off, min(int64(m.Chunk), max(m.Size, got.Size)-off))
		}
	}
	if len(bad) == 0 && (m.Size != got.Size || !bytes.Equal(m.Digest, got.Digest)) {
		bad.add(0, max(m.Size, got.Size, 1))
	}
	if len(bad) > 0 {
		return rep, &DamageError{Name: nameOf(src, "image"), Ranges: bad}
	}
	rep.Verified = got.Size
	return rep, nil
}
