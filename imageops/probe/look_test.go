package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"
)

// bytesAt is an image of zeros with some bytes in it.
type bytesAt map[int64]string

func (m bytesAt) image(size int64) []byte {
	img := make([]byte, size)
	for off, s := range m {
		copy(img[off:], s)
	}
	return img
}

func lookAt(t testing.TB, img []byte) Contents {
	t.Helper()
	c, err := Look(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }
func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }
func le64(v uint64) string { return string(binary.LittleEndian.AppendUint64(nil, v)) }
func be64(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

const (
	rawUUID  = "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
	textUUID = "01234567-89ab-cdef-0123-456789abcdef"
)

// synthSize is the size of the synthetic images; ZFS needs 64 MiB.
const synthSize = 64 * mib

// synthetic are headers made from their specifications, for what has no program
// among the test's needs. Where oracle is set blkid accepts them too.
var synthetic = []struct {
	name   string
	img    bytesAt
	want   Signature
	oracle bool
}{
	{"luks1", bytesAt{0: "LUKS\xba\xbe\x00\x01", 168: textUUID, 24: "cipher"}, Signature{"LUKS", "", textUUID, ""}, true},
	{"luks2", bytesAt{0: "LUKS\xba\xbe\x00\x02", 8: be64(4096), 168: textUUID, 24: "vault"}, Signature{"LUKS", "vault", textUUID, ""}, true},
	{"luks with a uuid that is none", bytesAt{0: "LUKS\xba\xbe\x00\x02", 168: "\x1b[2J"}, Signature{"LUKS", "", "", ""}, false},
	{"md 1.1", md1(0, math.MaxUint64), Signature{"linux_raid_member", "host:0", textUUID, ""}, true},
	{"md 1.2", md1(8, math.MaxUint64), Signature{"linux_raid_member", "host:0", textUUID, ""}, true},
	{"md 1.0", md1(synthSize/512-16, math.MaxUint64), Signature{"linux_raid_member", "host:0", textUUID, ""}, true},
	{"md that is written to", md1(8, 0), Signature{"linux_raid_member", "host:0", textUUID, stopped("resync_offset")}, false},
	{"md that is half in sync", md1(8, 1<<20), Signature{"linux_raid_member", "host:0", textUUID, stopped("resync_offset")}, false},
	{"md 0.90, stopped", bytesAt{synthSize - 64<<10: le32(0xa92b4efc), synthSize - 64<<10 + 132: le32(1)}, Signature{"linux_raid_member", "", "", ""}, false},
	{"md 0.90 of a big-endian machine", bytesAt{synthSize - 64<<10: be32(0xa92b4efc), synthSize - 64<<10 + 132: be32(1)},
		Signature{"linux_raid_member", "", "", ""}, false},
	{"md 0.90", bytesAt{synthSize - 64<<10: le32(0xa92b4efc), synthSize - 64<<10 + 8: le32(90), synthSize - 64<<10 + 20: rawUUID[:4],
		synthSize - 64<<10 + 52: rawUUID[4:]}, Signature{"linux_raid_member", "", textUUID, stopped("state")}, false},
	{"lvm2 in sector 1", bytesAt{512: "LABELONE" + le64(1), 536: "LVM2 001" + "abcdefghijklmnopqrstuvwxyz012345"},
		Signature{"LVM2_member", "", "abcdef-ghij-klmn-opqr-stuv-wxyz-012345", ""}, false},
	{"lvm2 that says another sector", bytesAt{512: "LABELONE" + le64(2), 536: "LVM2 001"}, Signature{}, false},
	{"zfs", zfsLabel(0), Signature{"zfs", "tank", "1234567890123456789", ""}, true},
	{"zfs, last label only", zfsLabel(synthSize - 256<<10), Signature{"zfs", "tank", "1234567890123456789", ""}, true},
	{"bcache", bytesAt{4096 + 24: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" + rawUUID},
		Signature{"bcache", "", textUUID, ""}, false},
	{"squashfs", bytesAt{0: "hsqs", 28: "\x04\x00"}, Signature{"squashfs", "", "", ""}, true},
	{"squashfs of an old version", bytesAt{0: "hsqs", 28: "\x03\x00"}, Signature{}, false},
	{"ntfs", bytesAt{3: "NTFS    \x00\x02", 72: le64(0x0123456789ABCDEF)},
		Signature{"ntfs", "", "0123456789ABCDEF", "may not have been cleanly unmounted (its file table is not where it should be)"}, false},
	{"exfat", bytesAt{3: "EXFAT   ", 100: le32(0xCAFEBABE)}, Signature{"exfat", "", "CAFE-BABE", ""}, false},
	{"exfat in use", bytesAt{3: "EXFAT   ", 100: le32(0xCAFEBABE), 106: "\x02\x00"}, Signature{"exfat", "", "CAFE-BABE", unclean("VolumeDirty")}, false},
	{"exfat with other flags", bytesAt{3: "EXFAT   ", 100: le32(0xCAFEBABE), 106: "\xfd\xff"}, Signature{"exfat", "", "CAFE-BABE", ""}, false},
	{"drbd", bytesAt{synthSize - 4096 + 60: be32(0x8374026b)}, Signature{Type: "drbd"}, true},
	{"drbd 9", bytesAt{synthSize - 4096 + 60: be32(0x8374026d)}, Signature{Type: "drbd"}, false},
	{"drbd in use", bytesAt{synthSize - 4096 + 60: be32(0x8374026c)}, Signature{Type: "drbd", Dirty: "was not cleanly detached from DRBD (activity log)"}, false},
	{"bluestore", bytesAt{0: "bluestore block device\n"}, Signature{Type: "ceph_bluestore"}, true},
	{"f2fs", bytesAt{1024: le32(0xf2f52010), 1024 + 108: rawUUID}, Signature{"f2fs", "", textUUID, ""}, false},
	{"iso9660", bytesAt{32768: "\x01CD001\x01", 32808: "DEBIAN 12 " + strings.Repeat(" ", 22)}, Signature{"iso9660", "DEBIAN 12", "", ""}, false},
	{"hibernated", bytesAt{4086: "S1SUSPEND\x00", 1024 + 12: rawUUID},
		Signature{"swsuspend", "", textUUID, "holds the memory of a machine that hibernated"}, false},
	{"swap of the first version", bytesAt{4086: "SWAP-SPACE"}, Signature{"swap", "", "", ""}, true},
	{"ext magic alone", bytesAt{1080: "\x53\xef"}, Signature{}, false},
	{"xfs magic alone", bytesAt{0: "XFSB"}, Signature{}, false},
	{"fat names alone", bytesAt{54: "FAT16   ", 510: "\x55\xaa"}, Signature{}, false},
}

// md1 is a version 1 RAID superblock at sector, with its checksum: the sum of
// its first 256 bytes as words and of the device table, folded once.
func md1(sector int64, resync uint64) bytesAt {
	sb := bytesAt{0: le32(0xa92b4efc), 4: le32(1), 16: rawUUID, 32: "host:0", 144: le64(uint64(sector)), 208: le64(resync)}.image(256)
	var sum uint64
	for i := 0; i < len(sb); i += 4 {
		sum += uint64(le.Uint32(sb[i:]))
	}
	copy(sb[216:], le32(uint32(sum)+uint32(sum>>32)))
	return bytesAt{sector * 512: string(sb)}
}

// zfsLabel is a label with a pool's name and number and some uberblocks.
func zfsLabel(at int64) bytesAt {
	m := bytesAt{at + 16<<10: "\x01\x01\x00\x00" + be32(0) + be32(1) +
		be32(32) + be32(32) + be32(4) + "name" + be32(9) + be32(1) + be32(4) + "tank" +
		be32(40) + be32(48) + be32(9) + "pool_guid\x00\x00\x00" + be32(8) + be32(1) + be64(1234567890123456789) + be64(0)}
	for i := range int64(8) {
		m[at+128<<10+i*1024] = le64(0x00bab10c) + le64(5000) + le64(uint64(i)+1)
	}
	return m
}

func TestSyntheticSignatures(t *testing.T) {
	for _, tt := range synthetic {
		t.Run(tt.name, func(t *testing.T) {
			f := image(t, synthSize)
			for off, s := range tt.img {
				if _, err := f.WriteAt([]byte(s), off); err != nil {
					t.Fatal(err)
				}
			}
			c := look(t, f)
			if c.Signature != tt.want || len(c.Others) != 0 {
				t.Errorf("signature %+v and %+v, want %+v", c.Signature, c.Others, tt.want)
			}
			if !tt.oracle {
				return
			}
			if s := blkid(t, f); s != tt.want {
				t.Errorf("blkid says %+v", s)
			}
		})
	}
}

// A mirror's half shows the file system that is on the mirror; that it is a
// half weighs more.
func TestMemberBeforeFileSystem(t *testing.T) {
	m := md1(synthSize/512-16, math.MaxUint64)
	m[0] = "hsqs"
	m[28] = "\x04\x00"
	c := lookAt(t, m.image(synthSize))
	if c.Signature.Type != "linux_raid_member" || len(c.Others) != 1 || c.Others[0].Type != "squashfs" {
		t.Errorf("contents %+v", c)
	}
}

func TestZeroBoundaries(t *testing.T) {
	for _, size := range []int64{0, 1, 511, blockSize - 1, blockSize, blockSize + 1, mib - 1, mib, mib + 1, 2*mib - 1, 2 * mib, 2*mib + 1, 5 * mib} {
		img := make([]byte, size)
		if c := lookAt(t, img); !c.Zero || c.Signature.Type != "" || c.Table.Kind != "" || c.Format != "raw" {
			t.Errorf("%d zeros: %+v", size, c)
		}
		for _, at := range []int64{0, mib - 1, mib, size - mib - 1, size - mib, size - 1} {
			if at < 0 || at >= size {
				continue
			}
			img[at] = 1
			if want := at >= mib && at < size-mib; lookAt(t, img).Zero != want {
				t.Errorf("%d zeros but one at %d: zero is %v", size, at, !want)
			}
			img[at] = 0
		}
	}
}

// faulty fails reads of a range, or ends early.
type faulty struct {
	io.ReaderAt
	from, to int64
	err      error
}

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

// What could not be read is an error, never "nothing there".
func TestUnreadable(t *testing.T) {
	const size = 8 * mib
	img := bytesAt{1080: "\x53\xef", 510: "\x55\xaa", 450: "\x83", 454: le32(2048) + le32(2048)}.image(size)
	for _, tt := range []struct {
		name     string
		from, to int64
	}{
		{"start", 0, 512}, {"btrfs", 64 << 10, 64<<10 + 1}, {"end", size - 512, size}, {"partition", mib, mib + 1}, {"all", 0, size},
	} {
		for _, cause := range []error{syscall.EIO, io.EOF, nil} {
			c, err := Look(faulty{bytes.NewReader(img), tt.from, tt.to, cause}, size)
			var part *PartError
			if !errors.As(err, &part) {
				t.Errorf("%s: no error with %v: %+v", tt.name, cause, c)
			}
			if !part.Unread {
				t.Errorf("%s: %v does not say that something was not read", tt.name, part)
			}
			if cause == syscall.EIO && !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: %v hides its cause", tt.name, err)
			}
			if c.Zero {
				t.Errorf("%s: zero, though it could not be read", tt.name)
			}
			if tt.name == "partition" && (c.Table.Kind != "mbr" || len(c.Table.Partitions) != 1) {
				t.Errorf("the table is lost: %+v", c)
			}
		}
	}
	if c, err := Look(bytes.NewReader(make([]byte, size)), size+1); err == nil {
		t.Errorf("no error past the end: %+v", c)
	}
	if _, err := Look(bytes.NewReader(nil), -1); err == nil {
		t.Error("no error for a negative size")
	}
}

// Crafted tables neither hang, nor allocate what they ask for, nor pass for
// the absence of a table.
func TestCraftedTables(t *testing.T) {
	header := func(count, size uint32) string {
		return "EFI PART" + strings.Repeat("\x00", 72) + le32(count) + le32(size)
	}
	entry := func(kind byte, start, size uint32) string {
		return "\x00\x00\x00\x00" + string([]byte{kind}) + "\x00\x00\x00" + le32(start) + le32(size)
	}
	tests := []struct {
		name string
		img  bytesAt
		kind string
		fail bool
	}{
		{"gpt of 4 billion entries", bytesAt{512: header(math.MaxUint32, 128)}, "gpt", true},
		{"gpt of entries of 2 GiB", bytesAt{512: header(128, 1<<31)}, "gpt", true},
		{"gpt backup of 4 billion entries", bytesAt{512: header(128, 128), 4*mib - 512: header(math.MaxUint32, 128)}, "gpt", true},
		{"gpt that is damaged twice", bytesAt{512: header(128, 128)}, "gpt", true},
		{"gpt gone but for the mbr", bytesAt{446: entry(0xee, 1, 8191), 510: "\x55\xaa"}, "mbr", false},
		{"mbr without partitions", bytesAt{510: "\x55\xaa"}, "mbr", false},
		{"boot code instead of a table", bytesAt{446: "boot code", 510: "\x55\xaa"}, "", false},
		{"extended partition of itself", bytesAt{446: entry(5, 0, 64), 510: "\x55\xaa"}, "mbr", true},
		{"extended partition without a table", bytesAt{446: entry(5, 64, 64), 510: "\x55\xaa"}, "mbr", true},
		{"chain in a circle", bytesAt{446: entry(5, 64, 64), 510: "\x55\xaa", 64*512 + 446: entry(0x83, 1, 1) + entry(5, 0, 64),
			64*512 + 510: "\x55\xaa"}, "mbr", true},
		{"partition beyond everything", bytesAt{446: entry(0x83, math.MaxUint32, math.MaxUint32), 510: "\x55\xaa"}, "mbr", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Look(bytes.NewReader(tt.img.image(4*mib)), 4*mib)
			if c.Table.Kind != tt.kind || (err != nil) != tt.fail {
				t.Errorf("table %+v, error %v", c.Table, err)
			}
			var part *PartError
			if errors.As(err, &part) && part.Unread {
				t.Errorf("%v says that something was not read", part)
			}
		})
	}
}

func TestPartitionBehindTheLimitIsNamed(t *testing.T) {
	c := Contents{Size: mib}
	if errs := c.lookInto(bytes.NewReader(make([]byte, mib)), &Partition{Number: 129, Size: mib}, maxProbed); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
	if errs := c.lookInto(bytes.NewReader(make([]byte, mib)), &Partition{Number: 128, Size: mib}, maxProbed-1); errs != nil {
		t.Errorf("errors %v", errs)
	}
}

func TestPanicIsAnError(t *testing.T) {
	if err := recovered(func() error { panic("junk") }); err == nil {
		t.Error("a panic was lost")
	}
}

func TestLines(t *testing.T) {
	two := Contents{Size: 4 << 30, Format: "raw", Table: Table{Kind: "gpt", Partitions: []Partition{
		{Number: 1, Size: 512 * mib, Signature: Signature{"ext4", "rootfs", textUUID, ""}},
		{Number: 14, Size: 1536, Type: "0FC63DAF", Name: "x\x1b[2J", Others: []Signature{{Type: "swap"}}},
	}}, Notes: []string{"odd", "odder"}}
	tests := []struct {
		c    Contents
		want string
	}{
		{two, "gpt, 2 partitions|" + `  1  ext4  "rootfs"  512 MiB  uuid ` + textUUID + "|" +
			`  14  type 0FC63DAF  "x\x1b[2J"  1.5 KiB  also swap|  note: odd; and 1 more such`},
		{Contents{Format: "raw", Zero: true}, "empty"},
		{Contents{Format: "raw", Size: 1, Zero: true}, "zeros at both ends"},
		{Contents{Format: "raw", Size: 1}, "nothing recognised"},
		{Contents{Format: "qcow2", Size: 1}, "qcow2"},
		{Contents{Format: "raw", Size: mib, Signature: Signature{Type: "xfs"}, Others: []Signature{{Type: "swap"}}},
			"xfs|  xfs  1 MiB|  also swap"},
		{Contents{Format: "raw", Size: mib, Signature: Signature{Type: "xfs", UUID: textUUID, Dirty: unclean("log")}},
			"xfs|  xfs  1 MiB  uuid " + textUUID + "  was not cleanly unmounted (log)"},
		{Contents{Format: "vhd", Table: Table{Kind: "mbr", Partitions: make([]Partition, 1)}, Signature: Signature{Type: "iso9660", Label: strings.Repeat("l", 65)}},
			`vhd, mbr, 1 partition, iso9660 "` + strings.Repeat("l", 64) + `"...|  iso9660  "` + strings.Repeat("l", 64) + `"...  0 B|  0  type   0 B`},
	}
	for _, tt := range tests {
		if got := strings.Join(tt.c.Lines(), "|"); got != tt.want {
			t.Errorf("lines\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// counting checks that what is asked for is aligned and inside the image.
type counting struct {
	t    testing.TB
	img  []byte
	size int64 // zeros follow img up to here, but for its first half again at the end
	n    int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= c.size || off%blockSize != 0 || len(p) != blockSize {
		c.t.Fatalf("read of %d bytes at %d of %d", len(p), off, c.size)
	}
	c.n += int64(len(p))
	clear(p)
	half := int64(len(c.img) / 2)
	if off < int64(len(c.img)) {
		copy(p, c.img[off:])
	}
	if tail := c.size - half; off+blockSize > tail && tail >= half {
		copy(p[max(0, tail-off):], c.img[max(0, off-tail):half])
	}
	if n := c.size - off; n < blockSize {
		return int(n), io.EOF
	}
	return len(p), nil
}

// wantGrounds fails unless the same is found in an image that has nothing but the
// grounds of what was found.
func wantGrounds(t testing.TB, img []byte, c Contents) {
	t.Helper()
	bare := make([]byte, len(img))
	for _, g := range c.Grounds {
		copy(bare[g.Off:], img[g.Off:g.Off+g.Len])
	}
	again, err := Look(bytes.NewReader(bare), int64(len(bare)))
	if err != nil {
		t.Errorf("with the grounds alone: %v", err)
	}
	c.Zero, again.Zero, c.Grounds, again.Grounds = false, false, nil, nil
	if !reflect.DeepEqual(c, again) {
		t.Errorf("found %+v, and with the grounds alone %+v", c, again)
	}
}

// What is found rests on its grounds, and they hold nothing of the files.
func TestGrounds(t *testing.T) {
	secret := strings.Repeat("secret", 100)
	for _, s := range synthetic {
		img := s.img.image(synthSize)
		for _, off := range []int64{1 << 20, 5<<20 + 123, synthSize / 2} {
			copy(img[off:], secret)
		}
		c := lookAt(t, img)
		wantGrounds(t, img, c)
		for _, g := range c.Grounds {
			if bytes.Contains(img[g.Off:g.Off+g.Len], []byte("secret")) {
				t.Errorf("%s: rests on files, at byte %d", s.name, g.Off)
			}
		}
	}
	if c := lookAt(t, bytes.Repeat([]byte("secret"), 1<<18)); slices.ContainsFunc(c.Grounds, func(g Range) bool { return g.Len > 512 }) {
		t.Errorf("of what is not recognised: %+v", c.Grounds)
	}
}

func FuzzLook(f *testing.F) {
	for _, s := range synthetic {
		for off, b := range s.img {
			f.Add([]byte(b), min(uint64(off), 1<<21), uint64(4<<20))
		}
	}
	f.Add([]byte("EFI PART"), uint64(512), uint64(1<<62))
	f.Add([]byte("\x55\xaa"), uint64(510), uint64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, b []byte, off, size uint64) {
		img := make([]byte, 128<<10)
		if off < uint64(len(img)) {
			copy(img[off:], b)
		}
		r := &counting{t: t, img: img, size: int64(size & math.MaxInt64)}
		c, err := Look(r, r.size)
		if r.n > 140*5*mib {
			t.Errorf("%d bytes were read", r.n)
		}
		if c.Format == "" || c.Zero && (c.Signature.Type != "" || c.Table.Kind != "") {
			t.Errorf("contents %+v, error %v", c, err)
		}
		for _, p := range c.Table.Partitions {
			if p.Start < 0 || p.Size < 0 || p.Start > math.MaxInt64-p.Size || p.Number < 1 {
				t.Errorf("partition %+v", p)
			}
		}
		if err == nil && r.size <= int64(len(img)) {
			wantGrounds(t, img[:r.size], c)
		}
		lines := c.Lines()
		if len(lines) == 0 || len(lines) > 12 {
			t.Errorf("%d lines", len(lines))
		}
		for _, r := range strings.Join(append(lines, c.Summary()), "") {
			if !unicode.IsPrint(r) {
				t.Errorf("lines %q", lines)
			}
		}
	})
}
