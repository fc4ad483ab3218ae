package probe

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// maxDescriptor bounds a VMDK's descriptor, in bytes, as QEMU does (block/vmdk.c,
// vmdk_read_desc).
const maxDescriptor = 1 << 20

// vmdk reads the descriptor inside a sparse extent: VMware's "Virtual Disk Format
// 5.0", sparse extent header. Numbers are little-endian and count sectors. The
// extents that such a descriptor lists are the file itself under the name that it
// once had, unless the header says that there is no data in it.
func (h *header) vmdk() error {
	const (
		offCapacity   = 12
		offDescriptor = 28
		offLength     = 36
		size          = 79
		sector        = 512
	)
	b, err := h.at(0, size)
	if err != nil {
		return err
	}
	empty := le.Uint64(b[offCapacity:]) == 0
	off, n := le.Uint64(b[offDescriptor:]), le.Uint64(b[offLength:])
	if off == 0 {
		return nil // an extent of a disk whose descriptor is another file
	}
	if n > maxDescriptor/sector || off > uint64(h.size)/sector {
		return fmt.Errorf("a descriptor of %d sectors at sector %d", n, off)
	}
	text, err := h.at(int64(off)*sector, int64(n)*sector)
	if err != nil {
		return err
	}
	return h.descriptor(string(text), empty)
}

// isDescriptor recognises a descriptor file as QEMU does (block/vmdk.c,
// vmdk_probe): after comments and empty lines comes the version.
func (h *header) isDescriptor() (bool, error) {
	b, err := h.at(0, min(h.size, headerBlock))
	if err != nil {
		return false, err
	}
	if bytes.HasPrefix(b, []byte("# Disk DescriptorFile")) {
		return true, nil
	}
	for line := range bytes.Lines(b) {
		line = bytes.Trim(line, " \r\n")
		if len(line) > 0 && line[0] != '#' {
			version := string(line)
			return version == "version=1" || version == "version=2" || version == "version=3", nil
		}
	}
	return false, nil
}

// descriptorFile reads a file that is nothing but a descriptor.
func (h *header) descriptorFile() error {
	if h.size > maxDescriptor {
		return fmt.Errorf("a descriptor of %d bytes", h.size)
	}
	text, err := h.at(0, h.size)
	if err != nil {
		return err
	}
	return h.descriptor(string(text), true)
}

// descriptor reads a descriptor, which ends at its first NUL: lines of KEY=VALUE,
// and those of the extents, as
//
//	RW 4192256 SPARSE "disk-s001.vmdk"
//	RW 6144 FLAT "disk-flat.vmdk" 0
//	RW 1024 ZERO
func (h *header) descriptor(text string, extents bool) error {
	text, _, _ = strings.Cut(text, "\x00")
	parent, hint := false, false
	var errs []error
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, "=")
		words := strings.Fields(line)
		switch key = strings.TrimSpace(key); {
		case key == "parentCID":
			parent = !strings.EqualFold(strings.TrimSpace(value), "ffffffff")
		case key == "parentFileNameHint":
			name, ok := quoted(value)
			if !ok || len(name) > maxBacking {
				errs = append(errs, errors.New("the parent's name is malformed"))
				continue
			}
			hint = true
			h.add("parent", name, "")
		case extents && len(words) > 2 && (words[0] == "RW" || words[0] == "RDONLY" || words[0] == "NOACCESS") && words[2] != "ZERO":
			name, ok := quoted(line)
			if !ok || len(name) > maxName {
				errs = append(errs, errors.New("an extent's name is malformed"))
				continue
			}
			format := "raw"
			if strings.HasSuffix(words[2], "SPARSE") {
				format = "vmdk"
			}
			h.add("extent", name, format)
		}
	}
	if parent && !hint && len(errs) == 0 {
		errs = append(errs, errors.New("it has a parent, which it does not name"))
	}
	return errors.Join(errs...)
}

// quoted is what stands between the first two quotation marks of s.
func quoted(s string) (string, bool) {
	_, s, ok := strings.Cut(s, `"`)
	if !ok {
		return "", false
	}
	s, _, ok = strings.Cut(s, `"`)
	return s, ok
}
