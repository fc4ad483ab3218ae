package probe

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

// Linux software RAID: include/uapi/linux/raid/md_p.h. Version 1 superblocks
// lie at the start (1.1), 4 KiB behind it (1.2), or in the last 8 KiB on a 4 KiB
// boundary (1.0); version 0.90 in the last whole 64 KiB but one, in the byte
// order of the machine that made it. An array that is being written to, or is
// not in sync, says so in each member.
func raid(a *area) Signature {
	sectors := a.size / 512
	for _, sector := range []int64{0, 8, (sectors - 16) &^ 7} {
		b := a.at(sector*512, 256)
		if b != nil && le.Uint32(b) == 0xa92b4efc && le.Uint32(b[4:]) == 1 && int64(le.Uint64(b[144:])) == sector {
			s := Signature{Type: "linux_raid_member", UUID: uuid(b[16:32]), Label: text(b[32:64])}
			if le.Uint64(b[208:]) != math.MaxUint64 {
				s.Dirty = stopped("resync_offset")
			}
			return s
		}
	}
	b := a.at((sectors&^127-128)*512, 136)
	if b == nil {
		return Signature{}
	}
	for _, order := range []binary.ByteOrder{le, be} {
		if order.Uint32(b) != 0xa92b4efc || order.Uint32(b[4:]) != 0 {
			continue
		}
		s := Signature{Type: "linux_raid_member", UUID: uuid(append(b[20:24:24], b[52:64]...))}
		if order.Uint32(b[132:])&1 == 0 { // MD_SB_CLEAN
			s.Dirty = stopped("state")
		}
		return s
	}
	return Signature{}
}

// stopped is what the mark of an array that was not stopped means.
func stopped(mark string) string {
	return "was not cleanly stopped (" + mark + ")"
}

// LVM2: lib/format_text/layout.h and lib/label/label.h of LVM2, struct
// label_header in one of the first four sectors, struct pv_header behind it.
func lvm2(a *area) Signature {
	for sector := range int64(4) {
		b := a.at(sector*512, 64)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" || int64(le.Uint64(b[8:])) != sector {
			continue
		}
		id := make([]byte, 0, 38)
		for i, c := range b[32:64] {
			if i >= 6 && i <= 26 && (i-6)%4 == 0 {
				id = append(id, '-')
			}
			id = append(id, c)
		}
		return Signature{Type: "LVM2_member", UUID: plain(string(id))}
	}
	return Signature{}
}

// LUKS: "LUKS1 On-Disk Format Specification" 2.1 and "LUKS2 On-Disk Format
// Specification" 2.1. Version 1 has no label.
func luks(a *area) Signature {
	b := a.at(0, 208)
	if b == nil || string(b[:6]) != "LUKS\xba\xbe" {
		return Signature{}
	}
	s := Signature{Type: "LUKS", UUID: plain(text(b[168:208]))}
	if be.Uint16(b[6:]) == 2 {
		s.Label = text(b[24:72])
	}
	return s
}

// ZFS: "ZFS On-Disk Specification" 1.2 and 1.3. Four labels of 256 KiB, two at
// the start and two at the end; the first half of each has the pool's names,
// the second the ring of uberblocks, which must hold one.
func zfs(a *area) Signature {
	const label = 256 << 10
	end := a.size &^ (label - 1)
	for _, at := range []int64{0, label, end - 2*label, end - label} {
		ring := a.at(at+label/2, label/2)
		for ; len(ring) >= 1024; ring = ring[1024:] {
			if le.Uint64(ring) == 0x00bab10c || be.Uint64(ring) == 0x00bab10c {
				return zpool(a.at(at+16<<10, 112<<10))
			}
		}
	}
	return Signature{}
}

// zpool finds the pool's name and number in a label's list of names and values,
// which is in XDR (RFC 4506): each name is followed by its type (8 is a 64-bit
// number, 9 a string), a count of 1, and the value.
func zpool(list []byte) Signature {
	s := Signature{Type: "zfs"}
	if _, v, ok := bytes.Cut(list, []byte("\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01")); ok && len(v) >= 4 {
		n := min(int64(be.Uint32(v)), 256, int64(len(v)-4))
		s.Label = text(v[4 : 4+n])
	}
	if _, v, ok := bytes.Cut(list, []byte("pool_guid\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01")); ok && len(v) >= 8 {
		s.UUID = strconv.FormatUint(be.Uint64(v), 10)
	}
	return s
}

// Bcache: include/uapi/linux/bcache.h, struct cache_sb at 4 KiB.
func bcache(a *area) Signature {
	const magic = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
	b := a.at(4096, 56)
	if b == nil || string(b[24:40]) != magic {
		return Signature{}
	}
	return Signature{Type: "bcache", UUID: uuid(b[40:56])}
}

// DRBD: drbd/drbd_int.h, struct meta_data_on_disk, in the last 4 KiB of a backing
// device whose metadata are internal; versions 8.3, 8.4 and 9.
func drbd(a *area) Signature {
	b := a.at(a.size&^4095-4096, 64)
	if b == nil {
		return Signature{}
	}
	switch be.Uint32(b[60:]) {
	case 0x8374026b, 0x8374026d:
		return Signature{Type: "drbd"}
	case 0x8374026c: // DRBD_MD_MAGIC_84_UNCLEAN
		return Signature{Type: "drbd", Dirty: "was not cleanly detached from DRBD (activity log)"}
	}
	return Signature{}
}

// BlueStore, Ceph's own: src/os/bluestore/bluestore_common.h and bluefs label.
func bluestore(a *area) Signature {
	if a.has(0, "bluestore block device") {
		return Signature{Type: "ceph_bluestore"}
	}
	return Signature{}
}

// Swap: include/linux/swap.h, union swap_header; the magic ends the first page,
// whose size is that of the machine that made it. A hibernated machine's image
// replaces the magic (kernel/power/swap.c, and the programs in user space).
func swap(a *area) Signature {
	for page := int64(4 << 10); page <= 64<<10; page *= 2 {
		m := string(a.at(page-10, 10))
		s := Signature{Type: "swap"}
		switch m {
		case "SWAP-SPACE": // the first version, without a header
			return s
		case "S1SUSPEND\x00", "S2SUSPEND\x00", "ULSUSPEND\x00", "LINHIB0001":
			s.Type, s.Dirty = "swsuspend", "holds the memory of a machine that hibernated"
		case "SWAPSPACE2":
		default:
			continue
		}
		if b := a.at(1024, 44); b != nil {
			s.UUID, s.Label = uuid(b[12:28]), text(b[28:44])
		}
		return s
	}
	return Signature{}
}
