package probe

import (
	"errors"
	"fmt"
)

// GUIDs of [MS-VHDX] as they lie on disk.
const (
	vhdxMetadata       = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e" // 2.2.3.2
	vhdxFileParameters = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b" // 2.6.2.1
	vhdxParentLocator  = "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c" // 2.6.2.6
)

// vhdxEntries is the largest number of entries of a VHDX table ([MS-VHDX] 2.2.3.1
// and 2.6.1.1).
const vhdxEntries = 2047

// vhdx reads the parent of a differencing VHDX ([MS-VHDX]): the region table
// leads to the metadata, whose parent locator is a list of keys and values.
// Numbers are little-endian. What stands in the log only is not seen.
func (h *header) vhdx() error {
	off, length, err := h.vhdxMetadataRegion()
	if err != nil {
		return err
	}
	items, err := h.vhdxItems(off, length)
	if err != nil {
		return err
	}
	params, ok := items[vhdxFileParameters]
	if !ok || len(params) < 8 {
		return errors.New("no file parameters")
	}
	const hasParent = 1 << 1
	if le.Uint32(params[4:])&hasParent == 0 {
		return nil
	}
	locator, ok := items[vhdxParentLocator]
	if !ok {
		return errors.New("it has a parent, which it does not name")
	}
	return h.vhdxLocator(locator)
}

// vhdxMetadataRegion finds the metadata in the first region table that is whole
// enough to have its signature; there are two.
func (h *header) vhdxMetadataRegion() (off, length int64, err error) {
	const (
		first, second = 192 << 10, 256 << 10
		headSize      = 16
		entrySize     = 32
	)
	for _, at := range []int64{first, second} {
		b, err := h.at(at, headSize)
		if err != nil {
			return 0, 0, err
		}
		if string(b[:4]) != "regi" {
			continue
		}
		n := int64(le.Uint32(b[8:]))
		if n > vhdxEntries {
			return 0, 0, fmt.Errorf("a region table of %d entries", n)
		}
		table, err := h.at(at+headSize, n*entrySize)
		if err != nil {
			return 0, 0, err
		}
		for ; len(table) > 0; table = table[entrySize:] {
			if string(table[:16]) != vhdxMetadata {
				continue
			}
			off := le.Uint64(table[16:])
			if off > uint64(h.size) {
				return 0, 0, fmt.Errorf("the metadata at %d: %w", off, errOutside)
			}
			return int64(off), int64(le.Uint32(table[24:])), nil
		}
		return 0, 0, errors.New("no metadata in the region table")
	}
	return 0, 0, errors.New("no region table")
}

// vhdxItems reads the two metadata items that matter, of the metadata region at
// off of the given length.
func (h *header) vhdxItems(off, length int64) (map[string][]byte, error) {
	const (
		headSize  = 32
		entrySize = 32
		most      = 1 << 20 // the largest item ([MS-VHDX] 2.6.1.2)
	)
	b, err := h.at(off, headSize)
	if err != nil {
		return nil, err
	}
	if string(b[:8]) != "metadata" {
		return nil, errors.New("the metadata has no signature")
	}
	n := int64(le.Uint16(b[10:]))
	if n > vhdxEntries {
		return nil, fmt.Errorf("a metadata table of %d entries", n)
	}
	table, err := h.at(off+headSize, n*entrySize)
	if err != nil {
		return nil, err
	}
	items := map[string][]byte{}
	for ; len(table) > 0; table = table[entrySize:] {
		id := string(table[:16])
		if id != vhdxFileParameters && id != vhdxParentLocator {
			continue
		}
		at, n := int64(le.Uint32(table[16:])), int64(le.Uint32(table[20:]))
		if n > most || at+n > length {
			return nil, fmt.Errorf("a metadata item of %d bytes at %d", n, at)
		}
		if items[id], err = h.at(off+at, n); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// vhdxLocator reads the paths out of a parent locator ([MS-VHDX] 2.6.2.6): all of
// them name one file.
func (h *header) vhdxLocator(b []byte) error {
	const (
		headSize  = 20
		entrySize = 12
	)
	if len(b) < headSize {
		return errors.New("the parent locator is cut off")
	}
	entries := b[headSize:]
	n := int(le.Uint16(b[18:]))
	if n*entrySize > len(entries) {
		return fmt.Errorf("a parent locator of %d entries in %d bytes", n, len(b))
	}
	for e := range n {
		e := entries[e*entrySize:]
		key, keyOK := part(b, le.Uint32(e), le.Uint16(e[8:]))
		value, valueOK := part(b, le.Uint32(e[4:]), le.Uint16(e[10:]))
		if !keyOK || !valueOK {
			return errors.New("an entry of the parent locator lies outside it")
		}
		switch wide(key, le) {
		case "relative_path", "volume_path", "absolute_win32_path":
			name := fromWindows(wide(value, le))
			if len(name) > maxName {
				return fmt.Errorf("a parent locator of %d bytes", len(name))
			}
			h.add("parent", name, "vhdx")
		}
	}
	if len(h.refs) == 0 {
		return errors.New("it has a parent, which it does not name")
	}
	return nil
}

// part is the range of b, false when it is not all inside.
func part(b []byte, off uint32, n uint16) ([]byte, bool) {
	if uint64(off)+uint64(n) > uint64(len(b)) {
		return nil, false
	}
	return b[off : off+uint32(n)], true
}
