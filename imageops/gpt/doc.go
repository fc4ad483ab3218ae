// Package gpt fits the partition table of a disk image to the disk that the image
// is copied to: its backup goes to the end of a larger disk, and the disk gets
// identifiers of its own. It works on bytes in memory: [Read] reads and checks a
// table, and [Table.Plan] says as [Patch]es which bytes of the copy become others.
//
// A GPT (UEFI 2.10, 5.3) is a header in LBA 1 and an array of entries, both again
// in front of and in the last LBA; a protective MBR stands before it. A patch
// changes the fields that have to change and the checksums over them, so that all
// else stays as it was, to the byte: attributes, names, unused entries, fields that
// are newer than this program, the boot code, a hybrid MBR. Writing the table anew
// from what a library understands of it would lose that, and moves a table that
// does not begin in LBA 2.
//
// A table that is damaged is no table to change. Where its two copies, or it and
// the MBR, do not say the same, Read refuses it.
//
//	table, err := gpt.Read(image, size)
//	...
//	plan, err := table.Plan(gpt.Change{Size: target, Grow: true})
//	for _, p := range plan.Patches {
//		copy(disk[p.Off:], p.Data)
//	}
package gpt
