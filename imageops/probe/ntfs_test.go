package probe

import (
	"bytes"
	"strings"
	"testing"
)

// ntfsRecord is a record of 1 KiB of a file table with some attributes, as it lies
// on the disk: the ends of its sectors are replaced.
func ntfsRecord(attributes ...string) string {
	b := bytesAt{0: "FILE" + le16(48) + le16(3), 20: le16(56), 48: le16(0x1234), 56: strings.Join(attributes, "") + le32(0xffffffff)}.image(1024)
	for i, end := range []int{510, 1022} {
		copy(b[50+2*i:], b[end:end+2])
		copy(b[end:], le16(0x1234))
	}
	return string(b)
}

// ntfsAttribute is one that is resident.
func ntfsAttribute(kind uint32, value string) string {
	return le32(kind) + le32(24+uint32(len(value))) + "\x00\x00" + le16(24) + le32(0) + le32(uint32(len(value))) + le16(24) + le16(0) + value
}

// ntfsRuns is an attribute that lies elsewhere.
func ntfsRuns(kind uint32, runs string) string {
	runs += strings.Repeat("\x00", 8-len(runs))
	return le32(kind) + le32(72) + "\x01\x00" + le16(64) + le32(0) + strings.Repeat("\x00", 16) + le16(64) + strings.Repeat("\x00", 30) + runs
}

func volumeFlags(flags uint16) string {
	return ntfsAttribute(0x70, strings.Repeat("\x00", 8)+"\x03\x01"+le16(flags))
}

// restart is a restart page of the log: whose turn it is, the client that has it
// open, and flags.
func restart(lsn uint64, client, flags uint16) string {
	return "RSTR" + strings.Repeat("\x00", 20) + le16(48) + strings.Repeat("\x00", 22) + le64(lsn) + le16(1) + le16(0xffff) + le16(client) + le16(flags)
}

// ntfsImage is a file system with its table at 16 KiB and its log at 64 KiB.
func ntfsImage(over bytesAt) []byte {
	m := bytesAt{
		3: "NTFS    \x00\x02\x08", 48: le64(4), 64: "\xf6", 72: le64(1), 510: "\x55\xaa",
		18 << 10: ntfsRecord(ntfsRuns(0x80, "\x11\x02\x10")),
		19 << 10: ntfsRecord(volumeFlags(0)),
		64 << 10: "\xff\xff\xff\xff",
	}
	for off, s := range over {
		m[off] = s
	}
	return m.image(mib)
}

func TestNTFSDirty(t *testing.T) {
	lost := "may not have been cleanly unmounted (no record of the volume)"
	table := "may not have been cleanly unmounted (its file table is not where it should be)"
	flag, open := unclean("VOLUME_FLAG_DIRTY"), unclean("open log")
	pad := ntfsAttribute(0x30, strings.Repeat("x", 510-56-24-24-11)) // so that the flags are the end of a sector
	torn := []byte(ntfsRecord(volumeFlags(0)))
	torn[1022]++
	for _, tt := range []struct {
		name string
		over bytesAt
		want string
	}{
		{"emptied log", nil, ""},
		{"zeroed log", bytesAt{64 << 10: "\x00"}, open},
		{"closed log", bytesAt{64 << 10: restart(7, 0xffff, 0)}, ""},
		{"clean log", bytesAt{64 << 10: restart(7, 0, 2)}, ""},
		{"open log", bytesAt{64 << 10: restart(7, 0, 0)}, open},
		{"open log, then clean", bytesAt{64 << 10: restart(7, 0, 0), 68 << 10: restart(8, 0, 2)}, ""},
		{"clean log, then open", bytesAt{64 << 10: restart(7, 0, 2), 68 << 10: restart(8, 0, 0)}, open},
		{"open log, clean before", bytesAt{64 << 10: restart(8, 0, 0), 68 << 10: restart(7, 0, 2)}, open},
		{"second page only", bytesAt{64 << 10: "\x00", 68 << 10: restart(8, 0, 2)}, ""},
		{"restart area outside its sector", bytesAt{64 << 10: "RSTR" + strings.Repeat("\xff", 40)}, open},
		{"log that cannot be found", bytesAt{18 << 10: ntfsRecord()}, open},
		{"log in runs of nonsense", bytesAt{18 << 10: ntfsRecord(ntfsRuns(0x80, "\xff\xff"))}, open},
		{"log behind the end", bytesAt{18 << 10: ntfsRecord(ntfsRuns(0x80, "\x41\x01\xff\xff\xff\x7f"))}, open},
		{"dirty", bytesAt{19 << 10: ntfsRecord(volumeFlags(1))}, flag},
		{"other flags", bytesAt{19 << 10: ntfsRecord(volumeFlags(0x8006))}, ""},
		{"flags at the end of a sector, dirty", bytesAt{19 << 10: ntfsRecord(pad, volumeFlags(1))}, flag},
		{"flags at the end of a sector", bytesAt{19 << 10: ntfsRecord(pad, volumeFlags(0))}, ""},
		{"no flags", bytesAt{19 << 10: ntfsRecord()}, lost},
		{"short flags", bytesAt{19 << 10: ntfsRecord(ntfsAttribute(0x70, strings.Repeat("\x00", 11)))}, lost},
		{"torn record", bytesAt{19 << 10: string(torn)}, lost},
		{"no record", bytesAt{19 << 10: strings.Repeat("\x00", 1024)}, lost},
		{"attribute of no size", bytesAt{19 << 10: ntfsRecord(le32(0x10) + le32(0))}, lost},
		{"table at 0", bytesAt{48: le64(0)}, table},
		{"table behind the end", bytesAt{48: le64(1 << 60)}, table},
		{"records of no size", bytesAt{64: "\x00"}, table},
		{"records of a huge size", bytesAt{64: "\x80"}, table},
	} {
		if s := lookAt(t, ntfsImage(tt.over)).Signature; s.Type != "ntfs" || s.Dirty != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, s.Dirty, tt.want)
		}
	}
}

// A guest writes what it likes into its file table.
func FuzzNTFS(f *testing.F) {
	f.Add([]byte(ntfsRecord(volumeFlags(1))), []byte(ntfsRecord(ntfsRuns(0x80, "\x11\x02\x10"))), []byte(restart(7, 0, 2)))
	f.Add([]byte(ntfsRecord()), []byte("FILE"), []byte("RSTR"))
	f.Fuzz(func(t *testing.T, volume, log, page []byte) {
		img := ntfsImage(bytesAt{18 << 10: string(log), 19 << 10: string(volume), 64 << 10: string(page)})
		s := ntfs(newArea(bytes.NewReader(img), mib, 0, mib))
		if s.Type == "ntfs" && s.Dirty == "" && !bytes.HasPrefix(volume, []byte("FILE")) && len(log) < 1024 && len(volume) > 4 {
			t.Errorf("clean without a record of the volume: %+v", s)
		}
	})
}
