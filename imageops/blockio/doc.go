// Package blockio does I/O on disk images and block devices the way the kernel
// likes it: aligned, past the page cache, and without a second open.
//
// The nouns:
//
//   - A [File] is an already opened regular file or block device. It does not
//     own the descriptor: whoever opened it closes it, after all I/O has ended.
//   - [Limits] are what the descriptor asks of a request: alignment in the file
//     and in memory, and the block in which storage is handed out.
//   - An [Arena] is the memory that requests are made from: one mapping outside
//     the Go heap, cut into chunks of equal size.
//   - An [Extent] is a range of a file that holds data, or reads as zeros.
//
// A request that is aligned goes straight to the kernel. What sticks out of the
// alignment (the tail of an image whose size is no multiple of the block) is
// written on the same descriptor: with O_DIRECT taken off for that moment, or,
// on a device, together with the rest of its block.
// A second open would be seen by everything that watches the file, and would
// break a lease that the caller holds on it.
//
//	f, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0)
//	...
//	defer f.Close()
//	disk, err := blockio.NewFile(f)
//	...
//	err = disk.Zero(0, 1<<20, blockio.ZeroKeep)
package blockio
