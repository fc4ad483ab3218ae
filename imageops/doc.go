// Package imageops is the data path: it copies, digests and compares the bytes
// of disk images. It knows nothing of names, domains or locks; who calls it has
// made sure that the target may be written.
//
// The nouns:
//
//   - A [Source] is bytes of known size; one that is an [Extenter] also knows
//     where it has holes. A [Stream] is one of unknown size.
//
//   - A [Dest] is the target. What else it can do it says by further methods:
//     [Zeroer] makes ranges zero without being sent zeros, [Uncacher] forgets
//     what it has cached, io.ReaderAt reads back, an [Amender] is to differ from the source.
//
//   - A chunk is a piece of fixed size at a multiple of that size: the unit of
//     reading and hashing. Options.QueueDepth of them exist, and a chunk that is
//     not in use lies in the free list; that is the bound on memory and on
//     requests in flight.
//
//   - Holding back: the first and last MiB of an existing target are zeroed
//     before the first byte of data is written, and the real ones are written
//     when all the rest is known to be right. Half a disk does not boot.
//
//   - A [Fanout] is one copy to several targets, which reads the source once.
//
// A copy that returns nil is complete, on stable storage, and read back if that
// was asked for. Anything else, cancellation included, is an error, and
// [Report].Touched says whether the target may have changed.
//
//	target, err := blockio.NewFile(f) // opened and locked by the caller
//	...
//	report, err := imageops.Copy(ctx, target, source, imageops.Options{HoldBack: true, Verify: true})
//	if err != nil {
//		return err // *OpError, *MismatchError, or why ctx ended
//	}
//	fmt.Printf("%x\n", report.Digest)
package imageops
