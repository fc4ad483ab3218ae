package probe

import "fmt"

// NTFS: fs/ntfs3/ntfs.h, struct NTFS_BOOT. The label lies in the file table and
// is left out. A mounted one shows in its log, and one that was found to be
// damaged in the volume's own record.
func ntfs(a *area) Signature {
	b := a.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " || !sectorSize(b) {
		return Signature{}
	}
	s := Signature{Type: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:]))}
	t, ok := newNTFSTable(a, b)
	if !ok {
		s.Dirty = "may not have been cleanly unmounted (its file table is not where it should be)"
		return s
	}
	volume := attribute(t.record(3), 0x70) // $Volume, ATTR_VOL_INFO
	switch {
	case len(volume) < 12:
		s.Dirty = "may not have been cleanly unmounted (no record of the volume)"
	case le.Uint16(volume[10:])&1 != 0: // VOLUME_FLAG_DIRTY
		s.Dirty = unclean("VOLUME_FLAG_DIRTY")
	case t.logOpen():
		s.Dirty = unclean("open log")
	}
	return s
}

// An ntfsTable is the beginning of the file table: its records 2 and 3, $LogFile
// and $Volume, are in its first run always.
type ntfsTable struct {
	a       *area
	cluster int64 // in bytes
	start   int64 // in bytes from the start of the area
	size    int64 // of a record, in bytes
}

func newNTFSTable(a *area, boot []byte) (ntfsTable, bool) {
	sector := int64(le.Uint16(boot[11:]))
	cluster := sector * power(boot[13], 0x80)
	size := cluster * int64(boot[64])
	if boot[64] >= 0x80 {
		size = power(boot[64], 0x80)
	}
	at := le.Uint64(boot[48:])
	if cluster <= 0 || cluster > 2<<20 || size < 1024 || size > 64<<10 || at == 0 || at > uint64(a.size/cluster) {
		return ntfsTable{}, false
	}
	return ntfsTable{a, cluster, int64(at) * cluster, size}, true
}

// power reads a count that stands for a power of two, negated, from limit on.
func power(b, limit byte) int64 {
	if b <= limit {
		return int64(b)
	}
	return 1 << min(uint(-b), 32)
}

// record returns a record of the table with the last two bytes of each 512 put
// back, which NTFS replaces by a number when it writes (struct NTFS_RECORD_HEADER,
// the update sequence); nil if it is none.
func (t ntfsTable) record(n int64) []byte {
	b := t.a.at(t.start+n*t.size, int(t.size))
	if b == nil || string(b[:4]) != "FILE" {
		return nil
	}
	at, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if count != len(b)/512+1 || at+2*count > len(b) {
		return nil
	}
	number := [2]byte(b[at:])
	for i := 1; i < count; i++ {
		end := b[i*512-2 : i*512]
		if [2]byte(end) != number {
			return nil
		}
		copy(end, b[at+2*i:])
	}
	return b
}

// attribute returns the value of a resident attribute of a record, or the runs of
// one that is not resident; nil if it is not there (struct ATTRIB).
func attribute(record []byte, kind uint32) []byte {
	if len(record) < 24 {
		return nil
	}
	rest := record[min(int(le.Uint16(record[20:])), len(record)):]
	for len(rest) >= 24 {
		size := le.Uint32(rest[4:])
		if size < 24 || size > uint32(len(rest)) {
			return nil
		}
		if le.Uint32(rest) != kind || rest[9] != 0 { // rest[9]: the length of its name
			rest = rest[size:]
			continue
		}
		a := rest[:size]
		if a[8] != 0 { // not resident
			if size < 64 {
				return nil
			}
			return a[min(int(le.Uint16(a[32:])), len(a)):]
		}
		value := a[min(int(le.Uint16(a[20:])), len(a)):]
		return value[:min(uint64(le.Uint32(a[16:])), uint64(len(value)))]
	}
	return nil
}

// logOpen reports whether the log has a client and was not marked clean: struct
// RESTART_HDR and RESTART_AREA in fs/ntfs3/fslog.c, the flag 2 in ntfs-3g's
// logfile.h. The log begins with two restart pages, of which the later counts. A
// log that was emptied, all ones, was closed before.
func (t ntfsTable) logOpen() bool {
	runs := attribute(t.record(2), 0x80) // $LogFile, ATTR_DATA
	start, ok := firstRun(runs)
	if !ok || start > t.a.size/t.cluster {
		return true
	}
	open, latest, found := false, uint64(0), false
	for i := range int64(2) {
		page := t.a.at(start*t.cluster+i*4096, 512)
		if page == nil || string(page[:4]) != "RSTR" && string(page[:4]) != "CHKD" {
			continue
		}
		at := int(le.Uint16(page[24:]))
		if at+16 > 510 {
			return true
		}
		area := page[at:]
		if lsn := le.Uint64(area); !found || lsn > latest {
			found, latest = true, lsn
			open = le.Uint16(area[12:]) != 0xffff && le.Uint16(area[14:])&2 == 0 // LFS_NO_CLIENT, RESTART_VOLUME_IS_CLEAN
		}
	}
	if !found {
		return !t.a.has(start*t.cluster, "\xff\xff\xff\xff")
	}
	return open
}

// firstRun reads the cluster at which the first of a list of runs begins: a byte
// with the lengths of two numbers, the run's length, its place.
func firstRun(runs []byte) (int64, bool) {
	if len(runs) == 0 {
		return 0, false
	}
	length, place := int(runs[0]&15), int(runs[0]>>4)
	if length == 0 || place == 0 || place > 8 || 1+length+place > len(runs) {
		return 0, false
	}
	at := int64(0)
	for i := place - 1; i >= 0; i-- {
		at = at<<8 | int64(runs[1+length+i])
	}
	return at, at > 0
}
