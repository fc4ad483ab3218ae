package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
)

var le = binary.LittleEndian

// span is within how many bytes of its end of the disk each copy has to lie.
const span = 1 << 20

// ErrNone is the error of a disk without a partition table.
var ErrNone = errors.New("there is no partition table")

// A Table is the partition table of a disk, as it was found.
type Table struct {
	size    int64
	mbr     []byte // 512 bytes
	sector  int64  // bytes in an LBA; 0: there is no GPT
	primary header
	backup  header
	entries []byte // the same in both copies
}

// A header is the LBA of one; the fields are those of UEFI 2.10, table 5.5.
type header []byte

func (h header) length() uint32      { return le.Uint32(h[12:]) }
func (h header) crc() uint32         { return le.Uint32(h[16:]) }
func (h header) my() uint64          { return le.Uint64(h[24:]) }
func (h header) alternate() uint64   { return le.Uint64(h[32:]) }
func (h header) firstUsable() uint64 { return le.Uint64(h[40:]) }
func (h header) lastUsable() uint64  { return le.Uint64(h[48:]) }
func (h header) id() []byte          { return h[56:72] }
func (h header) entryLBA() uint64    { return le.Uint64(h[72:]) }
func (h header) count() uint32       { return le.Uint32(h[80:]) }
func (h header) entrySize() uint32   { return le.Uint32(h[84:]) }
func (h header) entriesCRC() uint32  { return le.Uint32(h[88:]) }

// sum is the checksum that the header should have.
func (h header) sum() uint32 {
	b := bytes.Clone(h[:h.length()])
	clear(b[16:20])
	return crc32.ChecksumIEEE(b)
}

const (
	magic     = "EFI PART"
	minHeader = 92
	minEntry  = 128
	entryType = 0xee // of an entry of the MBR that stands for a GPT (UEFI 2.10, 5.2.3)
)

// Read reads and checks the partition table of the disk of size bytes behind r: a
// GPT with both copies, or an MBR. It reads at most a MiB at each end of the table.
// The error is ErrNone where there is none, or says what could not be read, or what
// is wrong with the table.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	if size < 512 {
		return nil, ErrNone
	}
	t := &Table{size: size}
	var err error
	if t.mbr, err = read(r, 0, 512); err != nil {
		return nil, err
	}
	for _, sector := range []int64{512, 4096} {
		if size < 2*sector {
			continue
		}
		b, err := read(r, sector, sector)
		if err != nil {
			return nil, err
		}
		if string(b[:8]) == magic {
			t.sector, t.primary = sector, b
			break
		}
	}
	switch protective := t.protective(); {
	case t.sector == 0 && protective:
		return nil, errors.New("the MBR says that there is a GPT, and the header of that is not there")
	case t.sector == 0 && !t.partitioned():
		return nil, ErrNone
	case t.sector == 0:
		return t, nil
	case !protective:
		return nil, errors.New("there is a GPT, and no entry of the MBR says so: one of the two is not in use")
	}
	return t, t.readGPT(r)
}

// read reads n bytes at off.
func read(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if m, err := r.ReadAt(b, off); m < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read the partition table at byte %d: %w", off, err)
	}
	return b, nil
}

// slot is the i-th entry of the MBR.
func slot(mbr []byte, i int) []byte { return mbr[446+16*i : 462+16*i] }

func (t *Table) signed() bool { return le.Uint16(t.mbr[510:]) == 0xaa55 }

// protective reports whether an entry of the MBR stands for a GPT.
func (t *Table) protective() bool {
	for i := range 4 {
		if t.signed() && slot(t.mbr, i)[4] == entryType {
			return true
		}
	}
	return false
}

// partitioned reports whether the MBR is a partition table: the boot sectors of
// file systems end in the same signature.
func (t *Table) partitioned() bool {
	for _, name := range []struct {
		at   int
		text string
	}{{3, "NTFS    "}, {3, "EXFAT   "}, {54, "FAT"}, {82, "FAT"}} {
		if bytes.HasPrefix(t.mbr[name.at:], []byte(name.text)) {
			return false
		}
	}
	used := false
	for i := range 4 {
		s := slot(t.mbr, i)
		if s[0]&^0x80 != 0 {
			return false
		}
		used = used || s[4] != 0 && le.Uint32(s[12:]) != 0
	}
	return t.signed() && used
}

// readGPT checks the first copy, and then the second, which has to say the same.
func (t *Table) readGPT(r io.ReaderAt) error {
	fail := func(which string, err error) error { return fmt.Errorf("the %s GPT is damaged: %w", which, err) }
	if err := t.check(t.primary, 1); err != nil {
		return fail("first", err)
	}
	p := t.primary
	if p.entryLBA() < 2 || p.firstUsable() < p.entryLBA()+t.lbas() || int64(p.entryLBA()+t.lbas())*t.sector > span {
		return fail("first", fmt.Errorf("its entries are in LBA %d, and partitions may begin in LBA %d", p.entryLBA(), p.firstUsable()))
	}
	var err error
	if t.entries, err = t.readEntries(r, p); err != nil {
		return fail("first", err)
	}
	if err := t.checkEntries(); err != nil {
		return fail("first", err)
	}
	end := p.alternate()
	if end >= uint64(t.size/t.sector) {
		return fmt.Errorf("the GPT is of a larger disk: its backup should be in LBA %d, and the image has %d", end, t.size/t.sector)
	}
	b, err := read(r, int64(end)*t.sector, t.sector)
	if err != nil {
		return err
	}
	t.backup = b
	if string(b[:8]) != magic {
		return fail("second", fmt.Errorf("there is no header in LBA %d", end))
	}
	if err := t.check(t.backup, end); err != nil {
		return fail("second", err)
	}
	if b := t.backup; b.alternate() != 1 || b.firstUsable() != p.firstUsable() || b.lastUsable() != p.lastUsable() ||
		!bytes.Equal(b.id(), p.id()) || b.count() != p.count() || b.entrySize() != p.entrySize() || b.entriesCRC() != p.entriesCRC() {
		return fmt.Errorf("the two copies of the GPT differ: the disk is %s in the first and %s in the second", guid(p.id()), guid(b.id()))
	}
	at := t.backup.entryLBA()
	if at <= p.lastUsable() || at+t.lbas() > end || int64(end-at)*t.sector > span {
		return fail("second", fmt.Errorf("its entries are in LBA %d, and its header in LBA %d", at, end))
	}
	again, err := t.readEntries(r, t.backup)
	if err != nil {
		return fail("second", err)
	}
	if !bytes.Equal(again, t.entries) {
		return errors.New("the two copies of the GPT have different entries")
	}
	return nil
}

// check checks what a header, which stands in an LBA, says of itself.
func (t *Table) check(h header, lba uint64) error {
	all := uint64(t.size / t.sector)
	length := h.length()
	switch {
	case length < minHeader || int64(length) > t.sector:
		return fmt.Errorf("its header has %d bytes", length)
	case h.crc() != h.sum():
		return fmt.Errorf("its header has checksum %08x, not %08x", h.sum(), h.crc())
	case h.my() != lba:
		return fmt.Errorf("its header is in LBA %d, and says %d", lba, h.my())
	case h.entrySize() < minEntry || h.entrySize()&(h.entrySize()-1) != 0 || h.count() == 0 || int64(h.count())*int64(h.entrySize()) > span:
		return fmt.Errorf("it has %d entries of %d bytes", h.count(), h.entrySize())
	case h.entryLBA() >= all || h.firstUsable() >= all || h.lastUsable() >= all || h.firstUsable() > h.lastUsable():
		return fmt.Errorf("of %d LBAs it uses %d to %d, and has entries in %d", all, h.firstUsable(), h.lastUsable(), h.entryLBA())
	}
	return nil
}

// lbas is how many LBAs the entries of one copy fill.
func (t *Table) lbas() uint64 {
	n := int64(t.primary.count()) * int64(t.primary.entrySize())
	return uint64((n + t.sector - 1) / t.sector)
}

func (t *Table) readEntries(r io.ReaderAt, h header) ([]byte, error) {
	b, err := read(r, int64(h.entryLBA())*t.sector, int64(h.count())*int64(h.entrySize()))
	if err != nil {
		return nil, err
	}
	if sum := crc32.ChecksumIEEE(b); sum != h.entriesCRC() {
		return nil, fmt.Errorf("its entries have checksum %08x, not %08x", sum, h.entriesCRC())
	}
	return b, nil
}

// checkEntries refuses partitions outside of where partitions may be: there the
// table itself is.
func (t *Table) checkEntries() error {
	for i, e := range used(t.entries, t.primary.entrySize()) {
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || first < t.primary.firstUsable() || last > t.primary.lastUsable() {
			return fmt.Errorf("partition %d is in LBA %d to %d, and partitions may be in %d to %d", i+1, first, last, t.primary.firstUsable(), t.primary.lastUsable())
		}
	}
	return nil
}

// used are the entries of a partition (UEFI 2.10, table 5.6: those with a type).
func used(entries []byte, size uint32) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for i := range len(entries) / int(size) {
			e := entries[i*int(size):][:size]
			if !bytes.Equal(e[:16], make([]byte, 16)) && !yield(i, e) {
				return
			}
		}
	}
}

// guid spells a GUID, of which the first three numbers are little-endian (UEFI 2.10, appendix A).
func guid(b []byte) string {
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
