package gpt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	disk "github.com/diskfs/go-diskfs/partition/gpt"
)

const mib = 1 << 20

// A layout is how a disk for a test is made.
type layout struct {
	sector, size int64
	entries      uint64 // LBA of the first copy's
	count, entry uint32
}

var plain = layout{512, 4 * mib, 2, 128, 128}

// make writes a disk with two partitions. It knows the format on its own.
func (l layout) make() []byte {
	b := make([]byte, l.size)
	for i := range b[:440] {
		b[i] = byte(i) // the boot code
	}
	last := uint64(l.size/l.sector) - 1
	b[510], b[511] = 0x55, 0xaa
	s := b[446:462]
	s[4] = 0xee
	le.PutUint32(s[8:], 1)
	le.PutUint32(s[12:], uint32(last))
	entries := make([]byte, l.count*l.entry)
	lbas := (uint64(len(entries)) + uint64(l.sector) - 1) / uint64(l.sector)
	usable := [2]uint64{l.entries + lbas, last - lbas - 1}
	for i, p := range [][2]uint64{{usable[0], usable[0] + 1}, {usable[0] + 2, usable[1]}} {
		e := entries[i*3*int(l.entry):] // one is left out
		copy(e, strings.Repeat(string(rune('1'+i)), 32))
		le.PutUint64(e[32:], p[0])
		le.PutUint64(e[40:], p[1])
		le.PutUint64(e[48:], 1<<60|5)
		copy(e[56:], "n\x00a\x00\x00\x00left over\x00\xd8")
	}
	for _, h := range []struct{ my, alternate, entries uint64 }{{1, last, l.entries}, {last, 1, last - lbas}} {
		p := b[int64(h.my)*l.sector:]
		copy(p, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		le.PutUint64(p[24:], h.my)
		le.PutUint64(p[32:], h.alternate)
		le.PutUint64(p[40:], usable[0])
		le.PutUint64(p[48:], usable[1])
		copy(p[56:], "0123456789abcdef")
		le.PutUint64(p[72:], h.entries)
		le.PutUint32(p[80:], l.count)
		le.PutUint32(p[84:], l.entry)
		copy(b[int64(h.entries)*l.sector:], entries)
		le.PutUint32(p[88:], crc32.ChecksumIEEE(entries))
		reseal(p)
	}
	return b
}

// reseal makes the checksum of a header right again.
func reseal(h []byte) {
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
}

func tableOf(t testing.TB, b []byte) *Table {
	t.Helper()
	table, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// onto is what becomes of a disk of c.Size bytes full of 0xff that b is copied to.
func onto(t testing.TB, b []byte, c Change) ([]byte, *Plan) {
	t.Helper()
	c.Random = rand.Reader
	plan, err := tableOf(t, b).Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	out := append(bytes.Clone(b), bytes.Repeat([]byte{0xff}, int(c.Size)-len(b))...)
	for _, p := range plan.Patches {
		copy(out[p.Off:p.Off+int64(len(p.Data))], p.Data)
	}
	return out, plan
}

// memory is a disk as the library wants one.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func (memory) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// agree has another reader of tables look at a disk.
func agree(t *testing.T, b []byte, sector int64) {
	t.Helper()
	m := memory{bytes.NewReader(b)}
	table, err := disk.Read(m, int(sector), int(sector))
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(m, uint64(int64(len(b))/sector*sector)); err != nil || table.RecoveredFromBackup {
		t.Errorf("%v, from backup %v", err, table.RecoveredFromBackup)
	}
}

func TestGrow(t *testing.T) {
	for _, l := range []layout{plain, {4096, 4 * mib, 2, 128, 128}, {512, 4 * mib, 2, 56, 128}, {512, 4 * mib, 2, 130, 256}, {512, 4 * mib, 100, 128, 128}, {512, 100 << 10, 2, 128, 128}} {
		for _, more := range []int64{l.sector, 2 * l.sector, 8*l.sector + 100, mib, 3*mib + 512} {
			t.Run(fmt.Sprintf("%+v+%d", l, more), func(t *testing.T) {
				b := l.make()
				out, plan := onto(t, b, Change{Size: l.size + more, Grow: true})
				old, next := tableOf(t, b), tableOf(t, out)
				if want := more / l.sector * l.sector; !plan.Moved || plan.Added != want || plan.ID != old.ID() {
					t.Errorf("%+v, want %d added", plan, want)
				}
				last := uint64(int64(len(out))/l.sector) - 1
				if next.primary.alternate() != last || next.backup.my() != last || next.primary.lastUsable() != last-next.lbas()-1 {
					t.Errorf("backup in LBA %d, %d usable, of %d", next.backup.my(), next.primary.lastUsable(), last)
				}
				if !bytes.Equal(next.entries, old.entries) || next.ID() != old.ID() {
					t.Error("entries or identifier have changed")
				}
				if got := le.Uint32(out[458:]); uint64(got) != last {
					t.Errorf("the MBR covers %d, want %d", got, last)
				}
				// All else is as it was, and nothing is left of the old backup.
				from, to := int64(old.backup.entryLBA())*l.sector, int64(old.backup.my()+1)*l.sector
				if !bytes.Equal(out[:446], b[:446]) || !bytes.Equal(out[l.sector*2:from], b[l.sector*2:from]) {
					t.Error("something else has changed")
				}
				at := min(to, int64(next.backup.entryLBA())*l.sector)
				if !bytes.Equal(out[from:at], make([]byte, max(0, at-from))) {
					t.Error("something is left of the old backup")
				}
				if l.entry == 128 && l.entries == 2 && l.count == 128 {
					agree(t, out, l.sector)
				}
			})
		}
	}
}

// A table that cannot be moved is left alone, and so is one that is at the end.
func TestGrowNot(t *testing.T) {
	b := plain.make()
	for _, size := range []int64{plain.size, plain.size + 511} {
		out, plan := onto(t, b, Change{Size: size, Grow: true})
		if plan.Moved || len(plan.Patches) > 0 || !bytes.Equal(out[:plain.size], b) {
			t.Errorf("to %d bytes: %+v", size, plan)
		}
	}
	for _, c := range []Change{{Size: plain.size - 1}, {Size: 2 * plain.size, Sector: 4096, Grow: true}, {Size: 2 * plain.size, Sector: 4096, DiskID: true}} {
		if plan, err := tableOf(t, b).Plan(c); err == nil {
			t.Errorf("%+v: %+v", c, plan)
		}
	}
	if _, err := tableOf(t, mbr()).Plan(Change{Size: mib, Grow: true}); err == nil {
		t.Error("an MBR was grown")
	}
}

// A disk whose table was left behind when it was made larger is grown from there.
func TestGrowFromTheMiddle(t *testing.T) {
	b := append(plain.make(), bytes.Repeat([]byte{7}, mib)...)
	out, plan := onto(t, b, Change{Size: int64(len(b)), Grow: true})
	if !plan.Moved || plan.Added != mib || bytes.Contains(out[mib:5*mib-512], []byte(magic)) {
		t.Errorf("%+v", plan)
	}
	tableOf(t, out)
}

// Of a hybrid MBR only the entry that covers the end becomes larger.
func TestHybridMBR(t *testing.T) {
	b := plain.make()
	le.PutUint32(b[446+12:], 33) // up to the first partition
	copy(b[462:], "\x80\x00\x00\x00\x83\x00\x00\x00\x22\x00\x00\x00\x0a\x00\x00\x00")
	copy(b[478:], "\x00\x00\x00\x00\xee\x00\x00\x00\x40\x00\x00\x00")
	le.PutUint32(b[490:], uint32(plain.size/512)-64)
	out, _ := onto(t, b, Change{Size: 8 * mib, Grow: true})
	if !bytes.Equal(out[:490], b[:490]) || le.Uint32(out[490:]) != 8*mib/512-64 {
		t.Errorf("%x\n%x", b[446:512], out[446:512])
	}
}

// mbr is a disk of a MiB with one partition.
func mbr() []byte {
	b := make([]byte, mib)
	copy(b[440:], "\x01\x02\x03\x04")
	copy(b[446:], "\x80\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\x0a\x00\x00\x00")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// differing are the bytes in which a and b differ.
func differing(a, b []byte) (at []int64) {
	for i := range a {
		if a[i] != b[i] {
			at = append(at, int64(i))
		}
	}
	return at
}

func within(at int64, ranges ...[2]int64) bool {
	return slices.ContainsFunc(ranges, func(r [2]int64) bool { return r[0] <= at && at < r[1] })
}

func TestNewIdentifiers(t *testing.T) {
	b := plain.make()
	last := plain.size - 512
	heads := [][2]int64{{512 + 16, 512 + 20}, {512 + 56, 512 + 72}, {512 + 88, 512 + 92}, {last + 16, last + 20}, {last + 56, last + 72}, {last + 88, last + 92}}
	array := last - 32*512
	guids := [][2]int64{{1024 + 16, 1024 + 32}, {1024 + 3*128 + 16, 1024 + 3*128 + 32}, {array + 16, array + 32}, {array + 3*128 + 16, array + 3*128 + 32}}
	seen := map[string]bool{}
	for _, all := range []bool{false, true} {
		out, plan := onto(t, b, Change{Size: plain.size, DiskID: true, PartitionIDs: all})
		may := heads
		if all {
			may = append(may, guids...)
		}
		for _, at := range differing(b, out) {
			if !within(at, may...) {
				t.Errorf("all %v: byte %d has changed", all, at)
			}
		}
		next := tableOf(t, out)
		if id := next.ID(); id != plan.ID || id[14] != '4' || !strings.Contains("89AB", id[19:20]) || seen[id] || id == tableOf(t, b).ID() {
			t.Errorf("identifier %s, planned %s", id, plan.ID)
		}
		seen[next.ID()] = true
		for i, e := range used(next.entries, 128) {
			if id := guid(e[16:32]); (id[14] == '4') != all || seen[id] {
				t.Errorf("all %v: partition %d is %s", all, i, id)
			} else {
				seen[id] = all
			}
		}
		agree(t, out, 512)
	}
	// The signature of the MBR in front of a GPT is zero, or one that is used.
	copy(b[440:], "\x01\x02\x03\x04")
	out, _ := onto(t, b, Change{Size: plain.size, DiskID: true})
	if bytes.Equal(out[440:444], b[440:444]) {
		t.Error("a signature that was not zero was left")
	}
}

func TestNewSignature(t *testing.T) {
	b := mbr()
	out, plan := onto(t, b, Change{Size: 2 * mib, DiskID: true, PartitionIDs: true})
	for _, at := range differing(b, out) {
		if !within(at, [2]int64{440, 444}) {
			t.Errorf("byte %d has changed", at)
		}
	}
	if id := tableOf(t, b).ID(); id != "04030201" || plan.ID == id || plan.ID != tableOf(t, out[:mib]).ID() {
		t.Errorf("%s became %s", id, plan.ID)
	}
	if _, err := tableOf(t, b).Plan(Change{Size: mib, DiskID: true, Random: strings.NewReader("abc")}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without random bytes: %v", err)
	}
}

func TestNoTable(t *testing.T) {
	fat := make([]byte, mib)
	copy(fat, mbr()[:512])
	copy(fat[54:], "FAT16   ")
	code := mbr()
	code[462] = 0x17
	for name, b := range map[string][]byte{"nothing": {}, "short": make([]byte, 511), "zeros": make([]byte, mib), "a FAT": fat, "a boot sector": code, "one sector": mbr()[:100]} {
		if _, err := Read(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(bytes.NewReader(mbr()[:512]), mib); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("an image that ends early: %v", err)
	}
}

// Any single byte that is wrong in what is checked is found.
func TestDamage(t *testing.T) {
	b := layout{512, 100 << 10, 2, 128, 128}.make()
	last := int64(len(b)) - 512
	for _, r := range [][2]int64{{450, 451}, {510, 512}, {512, 604}, {1024, 1024 + 128*128}, {last - 32*512, last}, {last, last + 92}} {
		for at := r[0]; at < r[1]; at++ {
			b[at] ^= 0x40
			if _, err := Read(bytes.NewReader(b), int64(len(b))); err == nil {
				t.Errorf("byte %d: nothing was found", at)
			}
			b[at] ^= 0x40
		}
	}
}

// What a table says is not believed because its checksum is right.
func TestNonsense(t *testing.T) {
	last := uint64(plain.size/512) - 1
	for _, tt := range []struct {
		what  string
		field int
		value uint64
	}{
		{"its own LBA", 24, 2}, {"the backup is itself", 32, 1}, {"the backup is a partition", 32, 100}, {"a larger disk", 32, last + 1}, {"no LBA", 32, 1 << 63},
		{"partitions in the table", 40, 2}, {"partitions in the backup", 48, last}, {"partitions behind the disk", 48, 1 << 62}, {"no room", 48, 3},
		{"entries in the MBR", 72, 0}, {"entries in the header", 72, 1}, {"entries far away", 72, 1 << 60}, {"entries in the middle", 72, 3000},
		{"no entries", 80, 128 << 32}, {"odd entries", 80, 96<<32 | 128}, {"small entries", 80, 64<<32 | 128}, {"huge entries", 80, 1<<63 | 128}, {"many entries", 80, 128<<32 | 1<<31},
		{"a short header", 8, 91<<32 | 1<<16}, {"a long header", 8, 513<<32 | 1<<16}, {"another disk", 56, 7},
	} {
		for _, both := range []bool{false, true} {
			b := plain.make()
			for _, at := range []int64{512, int64(last) * 512} {
				if at == 512 || both && tt.field != 24 && tt.field != 32 && tt.field != 72 {
					le.PutUint64(b[at+int64(tt.field):], tt.value)
					reseal(b[at:])
				}
			}
			_, err := Read(bytes.NewReader(b), plain.size)
			if err == nil && !(both && tt.field == 56) {
				t.Errorf("%s, in both copies %v: nothing was found", tt.what, both)
			}
		}
	}
}

// mend makes a backup like the first copy, and all checksums right, as far as the
// table lets it: else what is behind the checksums would never be reached.
func mend(b []byte) {
	for _, sector := range []uint64{512, 4096} {
		size := uint64(len(b))
		if size < 2*sector || string(b[sector:sector+8]) != magic {
			continue
		}
		p := header(b[sector:])
		n := uint64(p.count()) * uint64(p.entrySize())
		if n > size || p.entryLBA() > size || p.entryLBA()*sector+n > size {
			return
		}
		entries := b[p.entryLBA()*sector:][:n]
		le.PutUint32(p[88:], crc32.ChecksumIEEE(entries))
		reseal(p)
		end, lbas := p.alternate(), (n+sector-1)/sector
		if end < lbas || end > size || (end+1)*sector > size {
			return
		}
		q := header(b[end*sector:])
		copy(q[:92], p)
		le.PutUint64(q[24:], end)
		le.PutUint64(q[32:], 1)
		le.PutUint64(q[72:], end-lbas)
		copy(b[(end-lbas)*sector:], entries)
		reseal(q)
		return
	}
}

// FuzzRead demands of any disk that is taken for a sound one that it can be grown,
// with its partitions as they were.
func FuzzRead(f *testing.F) {
	f.Add(layout{512, 4 << 10, 2, 4, 128}.make())
	f.Add(mbr()[:1024])
	f.Fuzz(func(t *testing.T, b []byte) {
		if b = bytes.Clone(b); len(b)%2 == 0 {
			mend(b)
		}
		old, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil || !old.GPT() {
			return
		}
		c := Change{Size: int64(len(b)) + 64<<10, Grow: true, DiskID: true}
		if c.Random = rand.Reader; old.lbas() > 4 {
			return
		}
		out, plan := onto(t, b, c)
		next := tableOf(t, out)
		if !plan.Moved || !bytes.Equal(next.entries, old.entries) || next.primary.lastUsable() <= old.primary.lastUsable() || next.ID() == old.ID() {
			t.Errorf("%+v", plan)
		}
		for _, e := range used(old.entries, old.primary.entrySize()) {
			from, to := int64(le.Uint64(e[32:]))*old.sector, int64(le.Uint64(e[40:])+1)*old.sector
			if !bytes.Equal(out[from:to], b[from:to]) {
				t.Errorf("bytes %d to %d of a partition have changed", from, to)
			}
		}
	})
}
