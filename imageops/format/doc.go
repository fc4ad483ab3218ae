// Package format reads disk images that are not raw: compressed ones, and
// containers that hold a disk in pieces.
//
// A [Kind] is the form that an image lies in. [Guess] says what the first and last
// bytes look like, [ByName] what the name says. They are two witnesses: the name was
// given by somebody on the host, the bytes may come from a guest, which can write any
// header to its raw disk. Only who has both, or was told, should read an image as
// anything but raw.
//
// A compressed image is a stream, and is decompressed as it is read. A container is a
// layer, and a [Chain] is a layer over those that it was derived from: what an image
// does not have itself comes from the next one. The layers are named by the caller.
// What an image's own header says about its parents is never followed.
//
// Headers and tables are foreign bytes: every offset and length is compared with the
// size of the file before it is used, and memory is bounded.
//
//	kind, err := format.Guess(file, file.Size())
//	...
//	chain, err := format.Open("golden.qcow2", format.Layer{Kind: kind, File: file}, format.Layer{Kind: format.Raw, File: base})
//	...
//	report, err := imageops.Copy(ctx, target, chain, imageops.Options{})
package format
