package probe

import (
	"errors"
	"fmt"
	"io"
)

const (
	mib = 1 << 20

	// maxProbed bounds how many partitions are looked into, because a table
	// that somebody made up can name thousands. sgdisk and sfdisk make tables
	// of 128 entries.
	maxProbed = 128
)

// Look says what is in the image of size bytes behind r. It reads the first and
// last MiB of the image, the tables, and less than a MiB of each of at most 128
// partitions, 5 MiB of one with XFS, in blocks of 64 KiB at multiples of 64 KiB;
// the last block may reach past the end. It keeps no reference to r.
//
// The error joins a *PartError for each part that could not be read or
// understood. Contents holds the rest, so that "nothing found" can only be
// concluded where the error is nil.
func Look(r io.ReaderAt, size int64) (Contents, error) {
	if size < 0 {
		return Contents{}, &PartError{Part: "image", Err: fmt.Errorf("size is %d", size)}
	}
	a := newArea(r, size, 0, size)
	c := Contents{Size: size, Format: format(a)}
	c.Signature, c.Others = signatures(a)
	c.Zero = a.zero(0, mib) && a.zero(size-mib, mib)

	errs := c.readTable(a)
	errs = append(errs, a.errs...)
	c.Grounds = a.asked
	for i := range c.Table.Partitions {
		errs = append(errs, c.lookInto(r, &c.Table.Partitions[i], i)...)
	}
	return c, errors.Join(errs...)
}

// lookInto fills in the signatures of partition p, the i-th of the table.
func (c *Contents) lookInto(r io.ReaderAt, p *Partition, i int) []error {
	part := fmt.Sprintf("partition %d", p.Number)
	if i >= maxProbed {
		return []error{&PartError{Part: part, Err: fmt.Errorf("beyond the first %d partitions", maxProbed), Unread: true}}
	}
	if p.Size > c.Size-p.Start {
		c.Notes = append(c.Notes, part+" reaches past the end of the image")
	}
	a := newArea(r, c.Size, p.Start, max(0, min(p.Size, c.Size-p.Start)))
	p.Signature, p.Others = signatures(a)
	c.Grounds = append(c.Grounds, a.asked...)
	var errs []error
	for _, err := range a.errs {
		errs = append(errs, &PartError{Part: part, Err: err, Unread: true})
	}
	return errs
}

// formats lists container formats by their magic number at the start of the
// file. QEMU's block/qcow2.h, docs/specs/qed_spec.rst; Microsoft's "Virtual
// Hard Disk Image Format Specification" (dynamic disks repeat the footer at the
// start) and [MS-VHDX] 2.2.1; VMware's "Virtual Disk Format 5.0" (the sparse
// header, the older copy-on-write header, the descriptor file).
var formats = []struct{ name, magic string }{
	{"qcow2", "QFI\xfb"},
	{"qed", "QED\x00"},
	{"vhd", "conectix"},
	{"vhdx", "vhdxfile"},
	{"vmdk", "KDMV"},
	{"vmdk", "COWD"},
	{"vmdk", "# Disk DescriptorFile"},
}

func format(a *area) string {
	for _, f := range formats {
		if a.has(0, f.magic) {
			return f.name
		}
	}
	// A VHD of fixed size is the raw disk with a footer of 512 bytes behind it.
	if a.has(a.size-512, "conectix") {
		return "vhd"
	}
	return "raw"
}
