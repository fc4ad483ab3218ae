package guard

import (
	"fmt"

	"imgward/guard/hostfs"
)

// Kind says which numbers of an [ID] count.
type Kind uint8

const (
	KindFile    Kind = iota + 1 // a regular file: Dev and Ino
	KindBlock                   // a block device, by whatever node it was reached: Rdev
	KindMissing                 // a name that does not exist yet: Dev and Ino of its directory

	kindUnit // what several disks are ways to, in the stack alone: Ino is a number of it
)

// An ID is what a path really is, as stat(2) numbers it. It is comparable and
// serves as a map key; names never take part in it. Device numbers are encoded
// as makedev(3) does.
type ID struct {
	Kind           Kind
	Dev, Ino, Rdev uint64
}

// FileID is the identity of a regular file: st_dev and st_ino.
func FileID(dev, ino uint64) ID { return ID{Kind: KindFile, Dev: dev, Ino: ino} }

// BlockID is the identity of a block device: st_rdev. All nodes of one device
// have the same.
func BlockID(rdev uint64) ID { return ID{Kind: KindBlock, Rdev: rdev} }

// idOf gives the identity of what st describes; false when it is neither a
// regular file nor a block device.
func idOf(st hostfs.Stat) (ID, bool) {
	switch st.Type {
	case hostfs.Regular:
		return FileID(st.Dev, st.Ino), true
	case hostfs.BlockDevice:
		return BlockID(st.Rdev), true
	}
	return ID{}, false
}

// String gives the numbers as messages show them.
func (id ID) String() string {
	switch id.Kind {
	case KindFile:
		return fmt.Sprintf("inode %d on %s", id.Ino, hostfs.FormatDev(id.Dev))
	case KindBlock:
		return hostfs.FormatDev(id.Rdev)
	case KindMissing:
		return "not there yet"
	}
	return "unknown"
}

// Relation says how something found on the host overlaps the target.
type Relation uint8

const (
	Unrelated Relation = iota
	Same               // it is the target
	Partition          // it is a partition of the target
	Whole              // it is the disk of which the target is a partition
	Above              // it stands on the target: a loop device, dm, md, a partition of those
	Below              // the target stands on it
	Beside             // neither, but both use the same bytes of something below
	Named              // only its name leads to the target
)

// String names the relation in a word, as --json shows it.
func (r Relation) String() string {
	return [...]string{"unrelated", "same", "partition", "whole", "above", "below", "beside", "named"}[r]
}
