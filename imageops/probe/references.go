package probe

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// A Reference is another file or device that an image's header names as a part
// of the image: without it, or with other bytes in it, the image is worth nothing.
type Reference struct {
	Kind string // "backing" or "parent": what lies under it; "data" or "extent": where its data is

	// Name is untrusted text of at most 4096 bytes, perhaps not UTF-8: a path, which
	// counts from the image's own directory when it is relative, or a name with a
	// protocol ("nbd://host/x", "json:{...}"). The separators of Windows in a VHD or
	// VHDX are slashes here, and the letter of a drive is cut off, as libvhd reads them.
	Name string

	Format string // of what is named, where the header says so: untrusted text
}

// maxName is the longest name that is believed, in bytes: PATH_MAX of
// linux/limits.h. Formats with a smaller limit have theirs.
const maxName = 4096

// maxReferences is how many references of one image are believed: a disk of 8 TiB
// in extents of 2 GiB has as many.
const maxReferences = 4096

// References reads which other files the header of an image of size bytes behind
// r names, one level deep, in the header's order and once each. An image without
// a header, or whose header names none, has no references. It reads some KiB, at
// most about one MiB, in blocks of 4 KiB at multiples of 4 KiB, of which the last
// may reach past the end, and keeps no hold of r. Nothing that is named is looked
// up.
//
// The error is for what claims to be an image of a known format and could not be
// read in full, so that it may have references that nobody knows of: a *PartError
// that names the header. The references that could be read come with it.
func References(r io.ReaderAt, size int64) ([]Reference, error) {
	if size < 0 {
		return nil, &PartError{Part: "image", Err: fmt.Errorf("size is %d", size)}
	}
	h := &header{r: r, size: size}
	for _, f := range referring {
		magic, err := h.at(0, int64(len(f.magic)))
		if errors.Is(err, errOutside) {
			continue
		}
		if err != nil {
			return nil, &PartError{Part: "header", Err: err}
		}
		if string(magic) == f.magic {
			return h.run(f.part, f.read)
		}
	}
	found, err := h.isDescriptor()
	if err != nil {
		return nil, &PartError{Part: "header", Err: err}
	}
	if found {
		return h.run("vmdk descriptor", (*header).descriptorFile)
	}
	return h.run("vhd footer", (*header).vhdEnd)
}

// referring lists the formats with a header that can name other files, by their
// magic number. A COWD file has none of its own: the descriptor that names it as
// an extent has its parent (QEMU, block/vmdk.c).
var referring = []struct {
	magic, part string
	read        func(*header) error
}{
	{"QFI\xfb", "qcow2 header", (*header).qcow},
	{"QED\x00", "qed header", (*header).qed},
	{"conectix", "vhd header", (*header).vhd},
	{"vhdxfile", "vhdx metadata", (*header).vhdx},
	{"KDMV", "vmdk header", (*header).vmdk},
}

// A header is an image whose references are being read.
type header struct {
	r    io.ReaderAt
	size int64 // of the image, in bytes

	block []byte // the last single block that was read
	from  int64  // and where it lies

	refs []Reference
	seen map[Reference]bool
}

func (h *header) run(part string, read func(*header) error) ([]Reference, error) {
	err := read(h)
	if len(h.refs) > maxReferences {
		h.refs, err = h.refs[:maxReferences], errors.Join(err, fmt.Errorf("more than %d references", maxReferences))
	}
	if err != nil {
		err = &PartError{Part: part, Err: err}
	}
	return h.refs, err
}

// add takes down a reference. A name ends at its first NUL, as C programs read
// it; an empty one is none. What is beyond the limit is not kept, but for one that
// shows that there was more.
func (h *header) add(kind, name, format string) {
	name, _, _ = strings.Cut(name, "\x00")
	format, _, _ = strings.Cut(format, "\x00")
	ref := Reference{kind, name, format}
	if name == "" || h.seen[ref] || len(h.refs) > maxReferences {
		return
	}
	if h.seen == nil {
		h.seen = map[Reference]bool{}
	}
	h.seen[ref] = true
	h.refs = append(h.refs, ref)
}

// headerBlock is the unit of reads for references, in bytes.
const headerBlock = 4 << 10

// errOutside says that a header points to bytes that the image does not have.
var errOutside = errors.New("it ends before that")

// at gives n bytes at off, which the caller must not change. The error is
// errOutside when they are not all inside the image.
func (h *header) at(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > h.size-n {
		return nil, fmt.Errorf("bytes %d and %d more: %w", off, n, errOutside)
	}
	if off >= h.from && off+n <= h.from+int64(len(h.block)) {
		return h.block[off-h.from:][:n], nil
	}
	first := off - off%headerBlock
	buf := make([]byte, (off+n-first+headerBlock-1)/headerBlock*headerBlock)
	got, err := h.r.ReadAt(buf, first)
	if want := min(int64(len(buf)), h.size-first); int64(got) < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("bytes %d to %d: %w", first, first+want-1, err)
	}
	if len(buf) == headerBlock {
		h.block, h.from = buf[:min(headerBlock, h.size-first)], first
	}
	return buf[off-first:][:n], nil
}

// wide decodes UTF-16 text in the given byte order. The last byte of an odd
// number does not count.
func wide(b []byte, order interface{ Uint16([]byte) uint16 }) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// fromWindows turns a path of Windows into one of this system, as libvhd does: a
// drive's letter goes, and backslashes become slashes.
func fromWindows(name string) string {
	if len(name) > 1 && name[1] == ':' && plain(name[:1]) != "" {
		name = name[2:]
	}
	return strings.ReplaceAll(name, `\`, "/")
}
