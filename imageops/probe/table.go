package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"
)

const (
	mbrSector      = 512  // MBR counts in it; which other unit was meant is not in the table
	protectiveType = 0xee // UEFI 5.2.3: an MBR entry that stands for a GPT
	gptMagic       = "EFI PART"
	gptEntrySize   = 128
	maxEntries     = 1024 // of a GPT, far above the 128 of every common tool
	maxLogical     = 128  // links of a chain of logical partitions
)

// readTable fills in c.Table from a, which is the whole image. Unreadable
// blocks are left in a.errs; the rest comes back.
func (c *Contents) readTable(a *area) []error {
	first := a.at(0, 512)
	hasMBR := first != nil && le.Uint16(first[510:]) == 0xaa55
	protective := false
	for i := range 4 {
		protective = protective || hasMBR && first[446+16*i+4] == protectiveType
	}
	for _, sector := range []int64{512, 4096} {
		primary := a.has(sector, gptMagic)
		// A header at the end alone is left over from an earlier table,
		// unless the MBR still says that a GPT is in force.
		if !primary && !(protective && a.has(a.size-a.size%sector-sector, gptMagic)) {
			continue
		}
		c.Table = Table{Kind: "gpt", SectorSize: sector}
		if !protective {
			c.Notes = append(c.Notes, "gpt without a protective mbr")
		}
		return c.readGPT(a, sector)
	}
	if hasMBR && c.Signature.Type != "vfat" && c.Signature.Type != "ntfs" && c.Signature.Type != "exfat" {
		return c.readMBR(a, first)
	}
	return nil
}

// readGPT reads the table of UEFI 5.3 with the given sector size.
func (c *Contents) readGPT(a *area, sector int64) []error {
	// The library allocates what the headers ask for, so they are looked at
	// first. The area keeps what it read: the library sees the same bytes.
	for _, at := range []int64{sector, a.size - a.size%sector - sector} {
		if !a.has(at, gptMagic) {
			continue
		}
		h := a.at(at, 92)
		if n, size := le.Uint32(h[80:]), le.Uint32(h[84:]); n > maxEntries || size != gptEntrySize {
			err := fmt.Errorf("header at byte %d has %d entries of %d bytes", at, n, size)
			return []error{&PartError{Part: "gpt", Err: err}}
		}
	}
	var t *gpt.Table
	err := recovered(func() (err error) {
		t, err = gpt.Read(&file{area: a}, int(sector), int(sector))
		return err
	})
	if err != nil {
		return []error{&PartError{Part: "gpt", Err: err}}
	}
	if t.RecoveredFromBackup {
		c.Notes = append(c.Notes, "gpt read from its backup, the first copy is damaged")
	}
	var errs []error
	for _, p := range t.Partitions {
		if p.End < p.Start || p.End >= math.MaxInt64/uint64(sector) {
			err := fmt.Errorf("sectors %d to %d", p.Start, p.End)
			errs = append(errs, &PartError{Part: fmt.Sprintf("partition %d", p.Index), Err: err})
			continue
		}
		c.Table.Partitions = append(c.Table.Partitions, Partition{
			Number: p.Index,
			Start:  int64(p.Start) * sector,
			Size:   int64(p.End-p.Start+1) * sector,
			Type:   string(p.Type),
			Name:   p.Name,
		})
	}
	return errs
}

// readMBR reads the four primary entries of a PC partition table, of which
// first is the sector, and the chain of logical ones.
func (c *Contents) readMBR(a *area, first []byte) []error {
	for i := range 4 {
		// Code of a boot sector stands where the entries would be.
		if flag := first[446+16*i]; flag != 0 && flag != 0x80 {
			return nil
		}
	}
	primary, err := entries(a, 0)
	if err != nil {
		return []error{err}
	}
	var used []Partition
	var errs []error
	for _, p := range primary {
		if p.Type == mbr.Empty || p.Size == 0 {
			continue
		}
		used = append(used, partition(p, p.Index, 0))
		if extended(p) {
			logical, err := chain(a, int64(p.Start))
			used = append(used, logical...)
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(used) > 0 || c.Signature.Type == "" {
		c.Table = Table{Kind: "mbr", SectorSize: mbrSector, Partitions: used}
	}
	return errs
}

// chain follows the extended partition that begins at sector first. Each link
// has one logical partition, counted from the link, and the next link, counted
// from first (kernel block/partitions/msdos.c, parse_extended).
func chain(a *area, first int64) ([]Partition, error) {
	var logical []Partition
	seen := make(map[int64]bool)
	for link := first; ; {
		if seen[link] || len(seen) == maxLogical {
			return logical, &PartError{Part: "mbr", Err: fmt.Errorf("extended partition does not end")}
		}
		seen[link] = true
		sector := a.at(link*mbrSector, 512)
		if sector == nil || le.Uint16(sector[510:]) != 0xaa55 {
			return logical, &PartError{Part: "mbr", Err: fmt.Errorf("no extended partition table at byte %d", link*mbrSector)}
		}
		es, err := entries(a, link*mbrSector)
		if err != nil {
			return logical, err
		}
		next := int64(-1)
		for _, p := range es {
			switch {
			case p.Type == mbr.Empty || p.Size == 0:
			case !extended(p):
				logical = append(logical, partition(p, 5+len(logical), link))
			case next < 0:
				next = first + int64(p.Start)
			}
		}
		if next < 0 {
			return logical, nil
		}
		link = next
	}
}

// entries reads the four entries of the table sector at off.
func entries(a *area, off int64) ([]*mbr.Partition, error) {
	var t *mbr.Table
	err := recovered(func() (err error) {
		t, err = mbr.Read(&file{area: a, base: off}, mbrSector, mbrSector)
		return err
	})
	if err != nil {
		return nil, &PartError{Part: "mbr", Err: fmt.Errorf("table at byte %d: %w", off, err)}
	}
	return t.Partitions, nil
}

func partition(p *mbr.Partition, number int, base int64) Partition {
	return Partition{
		Number: number,
		Start:  (base + int64(p.Start)) * mbrSector,
		Size:   int64(p.Size) * mbrSector,
		Type:   fmt.Sprintf("0x%02x", byte(p.Type)),
	}
}

// extended reports whether p is a container of logical partitions, in the
// DOS, Windows or Linux way.
func extended(p *mbr.Partition) bool {
	return p.Type == 0x05 || p.Type == 0x0f || p.Type == 0x85
}

// recovered runs f and turns a panic over untrusted bytes into an error.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("parser gave up: %v", p)
		}
	}()
	return f()
}

// file shows an area from base on to the library as a file that can only be
// read at offsets and asked for its size.
type file struct {
	*area
	base int64
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.area.ReadAt(p, f.base+off) }

func (f *file) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekEnd {
		return 0, errors.ErrUnsupported
	}
	return f.size - f.base, nil
}

func (f *file) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (f *file) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

func (f *file) Close() error { return nil }
