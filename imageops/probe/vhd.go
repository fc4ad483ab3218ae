package probe

import (
	"errors"
	"fmt"
	"strings"
)

const (
	vhdMagic  = "conectix"
	vhdFooter = 512 // bytes
)

// vhd reads the parent of a differencing VHD: Microsoft's "Virtual Hard Disk
// Image Format Specification". The footer is the last 512 bytes of the file, and
// a disk that is not of fixed size has a copy of it at the start. Which of the
// two is read first differs between programs, so both count.
func (h *header) vhd() error {
	return errors.Join(h.vhdFooter(0), h.vhdEnd())
}

// vhdEnd looks at the last 512 bytes alone.
func (h *header) vhdEnd() error {
	if h.size < vhdFooter {
		return nil
	}
	return h.vhdFooter(h.size - vhdFooter)
}

// vhdFooter reads the footer at off, if there is one. Numbers are big-endian.
func (h *header) vhdFooter(off int64) error {
	const (
		offData = 16
		offType = 60

		differencing = 4
	)
	b, err := h.at(off, vhdFooter)
	if err != nil {
		return err
	}
	if string(b[:len(vhdMagic)]) != vhdMagic || be.Uint32(b[offType:]) != differencing {
		return nil
	}
	data := be.Uint64(b[offData:])
	if data > uint64(h.size) {
		return fmt.Errorf("the dynamic header at %d: %w", data, errOutside)
	}
	return h.vhdDynamic(int64(data))
}

// vhdDynamic reads the dynamic disk header at off: the parent's name, and the
// locators that say where it was seen, each in the form of one system.
func (h *header) vhdDynamic(off int64) error {
	const (
		magic       = "cxsparse"
		offUUID     = 40
		offName     = 64
		offLocators = 576
		locatorSize = 24
		locators    = 8
		size        = 1024
	)
	b, err := h.at(off, size)
	if err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return fmt.Errorf("there is no dynamic header at %d", off)
	}
	format := "vhd"
	if uuid(b[offUUID:]) == "" {
		format = "raw" // libvhd's mark of a parent without a header
	}
	before := len(h.refs)
	h.add("parent", fromWindows(wide(b[offName:offLocators], be)), format)
	for i := range locators {
		err = errors.Join(err, h.vhdLocator(b[offLocators+i*locatorSize:], format))
	}
	if err == nil && len(h.refs) == before && before == 0 {
		return errors.New("it has a parent, which it does not name")
	}
	return err
}

// vhdLocator reads one parent locator: a code that says how the name is written,
// the length of the name in bytes, and its offset. Codes of other systems, and
// those that Microsoft gave up, name the same file again.
func (h *header) vhdLocator(b []byte, format string) error {
	const (
		offLength = 8
		offOffset = 16

		relative = 0x57327275 // W2ru
		absolute = 0x57326b75 // W2ku
		fileURL  = 0x4d616358 // MacX
	)
	code, n, off := be.Uint32(b), be.Uint32(b[offLength:]), be.Uint64(b[offOffset:])
	if code != relative && code != absolute && code != fileURL {
		return nil
	}
	if n > 2*maxName || off > uint64(h.size) {
		return fmt.Errorf("a parent locator of %d bytes at %d", n, off)
	}
	text, err := h.at(int64(off), int64(n))
	if err != nil {
		return err
	}
	name := ""
	if code == fileURL {
		name = strings.TrimPrefix(string(text), "file://")
	} else {
		name = fromWindows(wide(text, le))
	}
	if len(name) > maxName {
		return fmt.Errorf("a parent locator of %d bytes", len(name))
	}
	h.add("parent", name, format)
	return nil
}
