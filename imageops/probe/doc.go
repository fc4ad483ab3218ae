// Package probe says what is in a disk image or block device, from its bytes
// alone: container format, partition table, file system and member signatures.
//
// A Contents is the answer for one image. It has a Format (a container's magic
// number), a Table with its Partitions, and a Signature: the mark that a file
// system, a swap area or a volume manager leaves at a fixed place. An area is
// the whole image or one partition of it; signatures are looked for in each. A
// Reference is another file that the header of a container names as a part of the
// image: the backing file of an overlay, the data of an image in several files.
//
// Everything that is read was written by somebody else, often by a guest. So
// nothing here believes a length or an offset before it is compared with the
// size of the image, text is quoted before it is shown, and the number of bytes
// read is bounded whatever they say. A magic number is a claim, not a proof: a
// guest can write any of them to its disk.
//
// The package opens nothing, writes nothing and sees only the io.ReaderAt that
// it is given:
//
//	f, err := os.Open("/srv/images/web1.img")
//	...
//	contents, err := probe.Look(f, size)
//	for _, line := range contents.Lines() {
//		fmt.Println(line)
//	}
//	if err != nil {
//		fmt.Println("could not look at everything:", err)
//	}
package probe
