package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// A reading looks for one kind of signature in an area: the zero Signature if
// it is not there. It is total: any bytes and any size have an answer.
type reading func(a *area) Signature

// readings lists the signatures in order of weight: what makes the area part of
// something larger comes before the file system that may shine through it, as
// the file system of a mirror's half does.
func readings() []reading {
	return []reading{
		raid, lvm2, luks, zfs, bcache, drbd, bluestore,
		swap, ext, xfs, btrfs, f2fs, squashfs, ntfs, exfat, vfat, iso9660,
	}
}

func signatures(a *area) (Signature, []Signature) {
	var found []Signature
	for _, read := range readings() {
		before := len(a.asked)
		s := read(a)
		if s.Type == "" {
			a.asked = a.asked[:before]
			continue
		}
		found = append(found, s)
	}
	if len(found) == 0 {
		return Signature{}, nil
	}
	return found[0], found[1:]
}

// ext2, ext3, ext4: fs/ext4/ext4.h, struct ext4_super_block at byte 1024. Two
// bytes of magic are little, so the fields that every kernel checks at mount are
// looked at too. While it is mounted for writing, one with a journal says that it
// needs recovery, and one without is not valid.
func ext(a *area) Signature {
	const (
		compatJournal    = 0x4
		incompatJournal  = 0x8 // the device holds only a journal
		incompatExt3     = 0x2 | 0x4 | 0x10
		readOnlyExt3     = 0x1 | 0x2 | 0x4
		maxLogBlockSize  = 6
		offMagic         = 0x38
		offLogBlock      = 0x18
		offBlocksInGroup = 0x20
		offState         = 0x3a
		stateValid       = 0x1
		incompatRecover  = 0x4
		orphanPresent    = 0x10000 // of readOnly
	)
	b := a.at(1024, 1024)
	if b == nil || le.Uint16(b[offMagic:]) != 0xef53 || le.Uint32(b[offLogBlock:]) > maxLogBlockSize {
		return Signature{}
	}
	compat, incompat, readOnly := le.Uint32(b[0x5c:]), le.Uint32(b[0x60:]), le.Uint32(b[0x64:])
	s := Signature{Type: "ext4", UUID: uuid(b[0x68:0x78]), Label: text(b[0x78:0x88])}
	switch {
	case incompat&incompatJournal != 0:
		s.Type = "jbd"
	case le.Uint32(b) == 0 || le.Uint32(b[offBlocksInGroup:]) == 0:
		return Signature{}
	case incompat&^incompatExt3 != 0 || readOnly&^readOnlyExt3 != 0:
	case compat&compatJournal != 0:
		s.Type = "ext3"
	default:
		s.Type = "ext2"
	}
	switch {
	case s.Type == "jbd":
	case incompat&incompatRecover != 0:
		s.Dirty = unclean("needs_recovery")
	case readOnly&orphanPresent != 0:
		s.Dirty = unclean("orphan_present")
	case le.Uint16(b[offState:])&stateValid == 0:
		s.Dirty = unclean("s_state")
	}
	return s
}

// unclean is what a file system's mark of not having been unmounted means. mark
// is its name in the kernel's header.
func unclean(mark string) string { return "was not cleanly unmounted (" + mark + ")" }

// XFS: fs/xfs/libxfs/xfs_format.h, struct xfs_dsb. Whether it was unmounted is in
// its log.
func xfs(a *area) Signature {
	b := a.at(0, 128)
	if b == nil || string(b[:4]) != "XFSB" {
		return Signature{}
	}
	if n := be.Uint32(b[4:]); n < 512 || n > 65536 || n&(n-1) != 0 {
		return Signature{}
	}
	return Signature{Type: "xfs", UUID: uuid(b[32:48]), Label: text(b[108:120]), Dirty: xfsDirty(a, b)}
}

// Btrfs: include/uapi/linux/btrfs_tree.h, struct btrfs_super_block at 64 KiB. It is
// whole at any moment; log_root leads to what was synced since the last commit and
// has to be replayed.
func btrfs(a *area) Signature {
	b := a.at(64<<10, 0x12b+256)
	if b == nil || string(b[0x40:0x48]) != "_BHRfS_M" {
		return Signature{}
	}
	s := Signature{Type: "btrfs", UUID: uuid(b[0x20:0x30]), Label: text(b[0x12b:])}
	if le.Uint64(b[0x60:]) != 0 {
		s.Dirty = unclean("log_root")
	}
	return s
}

// F2FS: include/linux/f2fs_fs.h, struct f2fs_super_block at byte 1024; the name
// is UTF-16 and is left out.
func f2fs(a *area) Signature {
	b := a.at(1024, 124)
	if b == nil || le.Uint32(b) != 0xf2f52010 {
		return Signature{}
	}
	return Signature{Type: "f2fs", UUID: uuid(b[108:124])}
}

// SquashFS: fs/squashfs/squashfs_fs.h, struct squashfs_super_block, version 4.
func squashfs(a *area) Signature {
	b := a.at(0, 96)
	if b == nil || string(b[:4]) != "hsqs" || le.Uint16(b[28:]) != 4 {
		return Signature{}
	}
	return Signature{Type: "squashfs"}
}

// exFAT: fs/exfat/exfat_raw.h, struct boot_sector. The label lies in the root
// directory and is left out.
func exfat(a *area) Signature {
	b := a.at(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " {
		return Signature{}
	}
	s := Signature{Type: "exfat", UUID: serial(b[100:])}
	if le.Uint16(b[106:])&2 != 0 { // VOL_DIRTY
		s.Dirty = unclean("VolumeDirty")
	}
	return s
}

// FAT: include/uapi/linux/msdos_fs.h, struct fat_boot_sector. The label is the
// boot sector's copy; one that was changed later may stand in the root
// directory only. Linux marks a mounted one in the boot sector, others in the
// second entry of the table.
func vfat(a *area) Signature {
	b := a.at(0, 512)
	if b == nil || !sectorSize(b) || le.Uint16(b[510:]) != 0xaa55 {
		return Signature{}
	}
	cluster, reserved, fats, media := b[13], le.Uint16(b[14:]), b[16], b[21]
	if cluster == 0 || cluster&(cluster-1) != 0 || reserved == 0 || fats == 0 || media < 0xf8 && media != 0xf0 {
		return Signature{}
	}
	ext := b[36:] // FAT12 and FAT16: the extended boot record
	second := a.at(int64(reserved)*int64(le.Uint16(b[11:])), 8)
	dirty := false
	switch {
	case string(b[82:90]) == "FAT32   ":
		ext = b[64:]
		dirty = second != nil && le.Uint32(second[4:])&0x08000000 == 0
	case string(b[54:59]) == "FAT16":
		dirty = second != nil && le.Uint16(second[2:])&0x8000 == 0
	case string(b[54:59]) == "FAT12", string(b[54:62]) == "FAT     ":
	default:
		return Signature{}
	}
	s := Signature{Type: "vfat", UUID: serial(ext[3:]), Label: strings.TrimRight(text(ext[7:18]), " ")}
	if s.Label == "NO NAME" {
		s.Label = ""
	}
	switch {
	case ext[1]&1 != 0: // FAT_STATE_DIRTY
		s.Dirty = unclean("FAT_STATE_DIRTY")
	case dirty:
		s.Dirty = unclean("FAT[1]")
	}
	return s
}

// ISO 9660: ECMA-119 8.4, the primary volume descriptor at sector 16.
func iso9660(a *area) Signature {
	b := a.at(32768, 72)
	if b == nil || string(b[1:6]) != "CD001" {
		return Signature{}
	}
	return Signature{Type: "iso9660", Label: strings.TrimRight(text(b[40:72]), " ")}
}

// sectorSize reports whether the boot sector b of a FAT or NTFS file system
// names a possible sector size.
func sectorSize(b []byte) bool {
	n := le.Uint16(b[11:])
	return n == 512 || n == 1024 || n == 2048 || n == 4096
}

// text is b up to its first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// uuid writes 16 bytes in the usual groups; 16 zeros are no UUID.
func uuid(b []byte) string {
	if bytes.Count(b[:16], []byte{0}) == 16 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// serial writes a FAT volume serial number as blkid and mtools do.
func serial(b []byte) string {
	return fmt.Sprintf("%02X%02X-%02X%02X", b[3], b[2], b[1], b[0])
}

// plain is s if it has only letters, digits and dashes, else empty.
func plain(s string) string {
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return ""
		}
	}
	return s
}
