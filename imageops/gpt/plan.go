package gpt

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// A Patch is bytes of a disk that become Data.
type Patch struct {
	Off  int64
	Data []byte
}

// A Change says what a table is to be fitted to.
type Change struct {
	Size   int64 // of the disk that it comes to, in bytes
	Sector int64 // bytes in an LBA of that disk; 0: not known, as of a file

	Grow         bool      // the backup of a GPT goes to the end of that disk
	DiskID       bool      // a new GUID, or signature in an MBR
	PartitionIDs bool      // new GUIDs of the partitions, too; in an MBR they follow from the signature
	Random       io.Reader // what new identifiers are made of; crypto/rand.Reader
}

// A Plan is what a change comes to.
type Plan struct {
	Patches []Patch // in the order in which they count where they overlap
	Moved   bool    // the backup goes to another place
	Added   int64   // so many bytes more can be partitioned
	ID      string  // of the disk, new or not
}

// GPT reports whether the table is one, and not an MBR.
func (t *Table) GPT() bool { return t.sector > 0 }

// ID is the identifier of the disk: the GUID of a GPT, the signature of an MBR as
// Linux spells it.
func (t *Table) ID() string { return t.id(t.mbr, t.primary) }

func (t *Table) id(mbr []byte, h header) string {
	if t.GPT() {
		return guid(h.id())
	}
	return fmt.Sprintf("%08x", le.Uint32(mbr[440:]))
}

// Plan says which bytes change. The table stays as it is. The error says why it
// cannot be fitted.
func (t *Table) Plan(c Change) (*Plan, error) {
	switch {
	case c.Grow && !t.GPT():
		return nil, errors.New("the partition table is an MBR, which has nothing at the end of the disk: only a GPT is moved there")
	case t.GPT() && c.Sector != 0 && c.Sector != t.sector:
		return nil, fmt.Errorf("the GPT counts in sectors of %d bytes, and the target's have %d: nothing would find it there", t.sector, c.Sector)
	case c.Size < t.size:
		return nil, fmt.Errorf("a disk of %d bytes becomes none of %d", t.size, c.Size)
	}
	n := &next{
		table: t, plan: &Plan{}, mbr: bytes.Clone(t.mbr), entries: bytes.Clone(t.entries),
		primary: header(bytes.Clone(t.primary)), backup: header(bytes.Clone(t.backup)),
	}
	if c.Grow {
		if err := n.grow(c.Size); err != nil {
			return nil, err
		}
	}
	if err := n.rename(c); err != nil {
		return nil, err
	}
	n.patch()
	n.plan.ID = t.id(n.mbr, n.primary)
	return n.plan, nil
}

// next is a table in the making.
type next struct {
	table           *Table
	plan            *Plan
	mbr, entries    []byte
	primary, backup header
}

// grow puts the backup at the end of size bytes, and makes its old place zeros, so
// that nobody takes what is there for a table.
func (n *next) grow(size int64) error {
	t := n.table
	end, old := uint64(size/t.sector)-1, t.primary.alternate()
	if end <= old {
		return nil
	}
	at := end - t.lbas()
	if at <= t.primary.lastUsable() {
		return fmt.Errorf("the backup of the GPT does not fit between LBA %d and the target's end", t.primary.lastUsable())
	}
	from := t.backup.entryLBA()
	n.plan.Moved, n.plan.Added = true, int64(at-1-t.primary.lastUsable())*t.sector
	n.put(from, make([]byte, int64(t.lbas())*t.sector))
	n.put(old, make([]byte, t.sector))
	for _, h := range []header{n.primary, n.backup} {
		le.PutUint64(h[48:], at-1)
	}
	le.PutUint64(n.primary[32:], end)
	le.PutUint64(n.backup[24:], end)
	le.PutUint64(n.backup[72:], at)
	// An entry of the MBR that covers the disk to its end goes on to do so; one that
	// stands between the partitions of a hybrid MBR stays.
	for i := range 4 {
		s := slot(n.mbr, i)
		start, count := uint64(le.Uint32(s[8:])), uint64(le.Uint32(s[12:]))
		if s[4] == entryType && start <= end && start+count > old {
			le.PutUint32(s[12:], uint32(min(end-start+1, math.MaxUint32)))
		}
	}
	return nil
}

// rename makes new identifiers.
func (n *next) rename(c Change) error {
	if c.DiskID {
		// Of a disk with a GPT it is not used, and mostly zero.
		if sig := n.mbr[440:444]; !n.table.GPT() || le.Uint32(sig) != 0 {
			for old := le.Uint32(sig); le.Uint32(sig) == old || le.Uint32(sig) == 0; {
				if _, err := io.ReadFull(c.Random, sig); err != nil {
					return err
				}
			}
		}
		if n.table.GPT() {
			if err := newGUID(n.primary.id(), c.Random); err != nil {
				return err
			}
			copy(n.backup.id(), n.primary.id())
		}
	}
	if c.PartitionIDs && n.table.GPT() {
		for _, e := range used(n.entries, n.primary.entrySize()) {
			if err := newGUID(e[16:32], c.Random); err != nil {
				return err
			}
		}
	}
	return nil
}

// newGUID makes a random one (RFC 9562, version 4).
func newGUID(b []byte, random io.Reader) error {
	if _, err := io.ReadFull(random, b); err != nil {
		return err
	}
	b[7], b[8] = b[7]&0x0f|0x40, b[8]&0x3f|0x80
	return nil
}

// patch puts down all that has changed.
func (n *next) patch() {
	t := n.table
	if !bytes.Equal(n.mbr, t.mbr) {
		n.plan.Patches = append(n.plan.Patches, Patch{0, n.mbr})
	}
	if !t.GPT() {
		return
	}
	for _, h := range []header{n.primary, n.backup} {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(n.entries))
		le.PutUint32(h[16:], h.sum())
	}
	changed := !bytes.Equal(n.entries, t.entries)
	if n.plan.Moved {
		n.put(n.backup.entryLBA(), make([]byte, int64(t.lbas())*t.sector))
	}
	if n.plan.Moved || changed {
		n.put(n.backup.entryLBA(), n.entries)
	}
	if changed {
		n.put(n.primary.entryLBA(), n.entries)
	}
	if !bytes.Equal(n.primary, t.primary) {
		n.put(n.backup.my(), n.backup)
		n.put(n.primary.my(), n.primary)
	}
}

func (n *next) put(lba uint64, data []byte) {
	n.plan.Patches = append(n.plan.Patches, Patch{int64(lba) * n.table.sector, data})
}
