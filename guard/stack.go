package guard

import (
	"math"
	"slices"
	"strings"
)

// A span is a range of bytes on one node of the block stack. A slot sets apart
// what shares a range without sharing bytes: the volumes of a thin pool.
type span struct {
	on       ID
	slot     string
	off, end int64
}

func (a span) meets(b span) bool {
	return a.on == b.on && (a.slot == "" || b.slot == "" || a.slot == b.slot) && a.off < b.end && b.off < a.end
}

// A layer says that bytes of a device lie on bytes of a lower one.
type layer struct {
	start, length int64  // the range of the upper device, in bytes
	lower         ID     // a block device, or the file under a loop device
	off           int64  // where the range begins on lower
	size          int64  // its length there
	slot          string // for a thin volume: which one
	linear        bool   // byte i of the range is byte off+i of lower; otherwise it may lie anywhere in it
}

// A device is one block device as sysfs and, for device-mapper and loop
// devices, the kernel's ioctls describe it.
type device struct {
	id    ID
	name  string // kernel name: dm-0, loop1, sda2
	alias string // the name people use: vg0-db1 for dm-0
	kind  string // disk, partition, loop, dm, md
	uuid  string // dm/uuid
	ro    bool   // a loop device that was attached read-only
	wwid  string // of a disk, where it has one that no other has
	under []layer
}

// isDisk tells a device that stands on no other: at most on the unit to which
// it is one of several ways.
func (d *device) isDisk() bool {
	return d.kind == "disk" && !slices.ContainsFunc(d.under, func(l layer) bool { return l.lower.Kind != kindUnit })
}

// path is the device's node as an administrator would type it.
func (d *device) path() string {
	if d.kind == "dm" && d.alias != "" {
		return "/dev/mapper/" + d.alias
	}
	return "/dev/" + strings.ReplaceAll(d.name, "!", "/")
}

// label is path with the kernel's name where that differs.
func (d *device) label() string {
	if d.kind == "dm" && d.alias != "" {
		return quote(d.path()) + " (" + d.name + ")"
	}
	return quote(d.path())
}

// A stack is the block layer of a host at one moment: which device stands on
// which bytes of which other device or file. It is a value; nothing in it is
// looked up again.
type stack struct{ devices map[ID]*device }

// maxDepth ends the walk down a stack that refers to itself.
const maxDepth = 32

// footprint lists every range that lies at or under the whole of id, once each.
func (s *stack) footprint(id ID) []span {
	var out []span
	s.walk(span{on: id, end: math.MaxInt64}, 0, map[span]bool{}, &out)
	return out
}

func (s *stack) walk(at span, depth int, seen map[span]bool, out *[]span) {
	if seen[at] {
		return
	}
	seen[at] = true
	*out = append(*out, at)
	d := s.devices[at.on]
	if d == nil || depth == maxDepth {
		return
	}
	for _, l := range d.under {
		start, end := max(at.off, l.start), min(at.end, add(l.start, l.length))
		if start >= end {
			continue
		}
		next := span{on: l.lower, slot: at.slot, off: l.off, end: add(l.off, l.size)}
		if l.slot != "" {
			next.slot = l.slot
		}
		if l.linear {
			next.off, next.end = l.off+start-l.start, add(l.off, end-l.start)
		}
		s.walk(next, depth+1, seen, out)
	}
}

// add is a + b that stops at the largest number instead of wrapping.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// relate says how other overlaps the device or file target, whose footprint is
// foot. Two things overlap when their footprints meet on any node.
func (s *stack) relate(target ID, foot []span, other ID) Relation {
	if other == target {
		return Same
	}
	theirs := []span{{on: other, end: math.MaxInt64}} // of what stands on nothing, as most of what a process has open
	if s.devices[other] != nil {
		theirs = s.footprint(other)
	}
	for _, sp := range theirs {
		if sp.on == target {
			if s.partitionOf(other) == target {
				return Partition
			}
			return Above
		}
	}
	for _, sp := range foot {
		if sp.on == other {
			if s.partitionOf(target) == other {
				return Whole
			}
			return Below
		}
	}
	for _, a := range foot {
		for _, b := range theirs {
			if a.meets(b) {
				return Beside
			}
		}
	}
	return Unrelated
}

// partitionOf gives the disk of which id is a partition, or the zero ID.
func (s *stack) partitionOf(id ID) ID {
	if d := s.devices[id]; d != nil && d.kind == "partition" && len(d.under) > 0 {
		return d.under[0].lower
	}
	return ID{}
}
