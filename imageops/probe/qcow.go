package probe

import "fmt"

// maxBacking is the longest name of a backing file in qcow, qcow2 and QED, in
// bytes (QEMU, docs/interop/qcow2.txt, docs/interop/qed_spec.rst).
const maxBacking = 1023

// qcow reads the header of a qcow2 image, or of its predecessor, whose header
// has the backing file in the same place: docs/interop/qcow2.txt and block/qcow.c
// of QEMU. Numbers are big-endian.
func (h *header) qcow() error {
	const (
		offVersion      = 4
		offBackingOff   = 8
		offBackingLen   = 16
		offClusterBits  = 20
		offIncompatible = 72
		offAutoclear    = 88
		offHeaderLength = 100

		dataFileBit    = 1 << 2 // of the incompatible features
		rawDataFileBit = 1 << 1 // of the autoclear features

		sizeV1, sizeV2, sizeV3 = 48, 72, 104
	)
	b, err := h.at(0, sizeV1)
	if err != nil {
		return err
	}
	version := be.Uint32(b[offVersion:])
	if version < 1 || version > 3 {
		return fmt.Errorf("unknown version %d", version)
	}
	backingOff, backingLen := be.Uint64(b[offBackingOff:]), be.Uint32(b[offBackingLen:])
	var backing string
	if backingOff != 0 && backingLen != 0 {
		if backing, err = h.name("backing file", backingOff, backingLen); err != nil {
			return err
		}
	}
	if version == 1 {
		h.add("backing", backing, "")
		return nil
	}
	if b, err = h.at(0, sizeV2); err != nil {
		return err
	}
	// Extensions lie between the header and the backing file's name, or in the
	// rest of the first cluster.
	bits := be.Uint32(b[offClusterBits:])
	if bits < 9 || bits > 21 {
		return fmt.Errorf("clusters of 2^%d bytes", bits)
	}
	from, to := int64(sizeV2), int64(1)<<bits
	if backingOff != 0 && backingOff < uint64(to) {
		to = int64(backingOff)
	}
	var dataFile, rawData bool
	if version == 3 {
		if b, err = h.at(0, sizeV3); err != nil {
			return err
		}
		dataFile = be.Uint64(b[offIncompatible:])&dataFileBit != 0
		rawData = be.Uint64(b[offAutoclear:])&rawDataFileBit != 0
		if from = int64(be.Uint32(b[offHeaderLength:])); from < sizeV3 {
			return fmt.Errorf("a header of %d bytes", from)
		}
	}
	format, data, err := h.qcowExtensions(from, min(to, h.size))
	h.add("backing", backing, format)
	if err != nil || !dataFile {
		return err
	}
	if data == "" {
		return fmt.Errorf("its data is in another file, which it does not name")
	}
	dataFormat := ""
	if rawData {
		dataFormat = "raw"
	}
	h.add("data", data, dataFormat)
	return nil
}

// name reads a file name of at most maxBacking bytes.
func (h *header) name(what string, off uint64, n uint32) (string, error) {
	if n > maxBacking || off > uint64(h.size) {
		return "", fmt.Errorf("the %s's name: %d bytes at %d", what, n, off)
	}
	b, err := h.at(int64(off), int64(n))
	return string(b), err
}

// qcowExtensions walks the header extensions between two offsets and gives what
// they say of the backing file's format and of the data file's name. Each is a
// type, a length, and as many bytes padded to eight.
func (h *header) qcowExtensions(from, to int64) (format, data string, err error) {
	const (
		end           = 0
		backingFormat = 0xe2792aca
		dataName      = 0x44415441

		most = 1024 // QEMU writes less than ten
	)
	if from > to {
		return "", "", fmt.Errorf("a header of %d bytes: %w", from, errOutside)
	}
	for range most {
		if to-from < 8 {
			return format, data, nil
		}
		b, err := h.at(from, 8)
		if err != nil {
			return format, data, err
		}
		kind, n := be.Uint32(b), int64(be.Uint32(b[4:]))
		from += 8
		switch {
		case kind == end:
			return format, data, nil
		case n > to-from:
			return format, data, fmt.Errorf("an extension of %d bytes: %w", n, errOutside)
		case kind == backingFormat || kind == dataName:
			if n > maxName {
				return format, data, fmt.Errorf("a name or format of %d bytes", n)
			}
			if b, err = h.at(from, n); err != nil {
				return format, data, err
			}
			if kind == dataName {
				data = string(b)
			} else {
				format = string(b)
			}
		}
		from += (n + 7) &^ 7
	}
	return format, data, fmt.Errorf("more than %d extensions", most)
}

// qed reads the header of a QED image: docs/interop/qed_spec.rst of QEMU. Numbers
// are little-endian.
func (h *header) qed() error {
	const (
		offFeatures   = 16
		offBackingOff = 56
		offBackingLen = 60

		hasBacking   = 1 << 0
		backingIsRaw = 1 << 2

		size = 64
	)
	b, err := h.at(0, size)
	if err != nil {
		return err
	}
	features := le.Uint64(b[offFeatures:])
	if features&hasBacking == 0 {
		return nil
	}
	name, err := h.name("backing file", uint64(le.Uint32(b[offBackingOff:])), le.Uint32(b[offBackingLen:]))
	if err != nil {
		return err
	}
	format := ""
	if features&backingIsRaw != 0 {
		format = "raw"
	}
	h.add("backing", name, format)
	return nil
}
