package domcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxHead bounds the description at the head of a saved domain, which is some
// thousand bytes long.
const maxHead = 16 << 20

// ErrNoSave says that a file is not a saved domain of any kind that is known.
var ErrNoSave = errors.New("not a saved domain")

// The heads of saved domains.
const (
	xlMagic       = "Xen saved domain, xl format\n \x00 \r" // xl.h, struct save_file_header
	libxlMagic    = "libvirt-xml\n \x00 \r"                 // libvirt's libxl_conf.h, libxlSavefileHeader
	qemuMagic     = "LibvirtQemudSave"                      // libvirt's qemu_saveimage.h, virQEMUSaveHeader
	qemuPartMagic = "LibvirtQemudPart"                      // the same, while it is being written
)

// ReadSave reads the description at the head of a saved domain: a file that "xl
// save" wrote, or libvirt, for Xen or for QEMU. size is the file's length in
// bytes. A file that is none is [ErrNoSave].
func ReadSave(r io.ReaderAt, size int64) (Domain, error) {
	h := &head{r: r, size: size}
	magic := string(h.bytes(0, min(size, 32)))
	if h.err != nil {
		return Domain{}, h.err
	}
	switch {
	case strings.HasPrefix(magic, xlMagic):
		return h.xl()
	case strings.HasPrefix(magic, libxlMagic):
		return h.libvirt(20, 64)
	case strings.HasPrefix(magic, qemuMagic), strings.HasPrefix(magic, qemuPartMagic):
		return h.libvirt(20, 92)
	}
	return Domain{}, ErrNoSave
}

type head struct {
	r    io.ReaderAt
	size int64
	err  error
}

func (h *head) fail(format string, args ...any) {
	if h.err == nil {
		h.err = &SyntaxError{0, fmt.Sprintf(format, args...)}
	}
}

// bytes reads n bytes at off; nil when they cannot be had.
func (h *head) bytes(off, n int64) []byte {
	switch {
	case h.err != nil:
		return nil
	case off < 0 || n < 0 || n > maxHead || off > h.size || n > h.size-off:
		h.fail("the head of the saved domain is cut off or not understood")
		return nil
	}
	b := make([]byte, n)
	if got, err := h.r.ReadAt(b, off); int64(got) < n {
		h.err = fmt.Errorf("read the head of a saved domain: %w", err)
		return nil
	}
	return b
}

// number reads a number of 32 bits at off; 0 when it cannot be had.
func (h *head) number(off int64, order binary.ByteOrder) uint32 {
	b := h.bytes(off, 4)
	if b == nil {
		return 0
	}
	return order.Uint32(b)
}

// xl reads the head that xl writes, behind the magic of 32 bytes:
//
//	u32 0x01020304   tells the order of bytes
//	u32 flags that must be understood: 1 the description is JSON, 2 the stream is of version 2
//	u32 other flags
//	u32 length of what follows, which begins with
//	u32 length of the description, then the description
func (h *head) xl() (Domain, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if h.number(32, binary.BigEndian) == 0x01020304 {
		order = binary.BigEndian
	} else if h.number(32, order) != 0x01020304 {
		h.fail("the order of bytes of the saved domain is not understood")
	}
	flags := h.number(36, order)
	if flags&^3 != 0 {
		h.fail("flags %#x of the saved domain are not understood", flags)
	}
	optional := int64(h.number(44, order))
	length := int64(h.number(48, order))
	if length > optional-4 {
		h.fail("the description in the saved domain is longer than its room")
	}
	text := h.bytes(52, length)
	if h.err != nil {
		return Domain{}, h.err
	}
	if flags&1 != 0 {
		return ParseUserdata(text)
	}
	return ParseXL(string(bytes.TrimRight(text, "\x00")))
}

// libvirt reads a head of libvirt's, which has the length of the XML at lengthAt
// in the order of bytes of the machine, and the XML itself at xmlAt, up to a NUL.
func (h *head) libvirt(lengthAt, xmlAt int64) (Domain, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if h.number(16, order) > 0xffff { // the version, which is small
		order = binary.BigEndian
	}
	text, _, _ := bytes.Cut(h.bytes(xmlAt, int64(h.number(lengthAt, order))), []byte{0})
	if h.err != nil {
		return Domain{}, h.err
	}
	return ParseLibvirt(text)
}
