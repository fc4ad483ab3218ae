// Package xenstore reads the Xen store, and makes claims in it: the tree of small values through which
// the toolstack, the domains and the kernel agree on who has which disk.
//
// The nouns:
//
//   - A path names a node, "/local/domain/0/name". A node has a value and
//     children; every node can have both.
//   - A [Conn] is one connection to the daemon, xenstored or oxenstored, through
//     its socket or through the kernel's device. It may be used by any number of
//     goroutines.
//   - A [Value] is what one path holds, or why it could not be read. A [Listing]
//     is the same for the names of a node's children.
//   - A watch calls a function whenever something at or beneath a path may have
//     changed. It is a hint to look again and never data.
//   - A [Claim] makes Xen refuse to give a block device to any domain.
//
// The package reads, with READ, DIRECTORY, DIRECTORY_PART, WATCH and UNWATCH. The
// one thing that it writes and removes are claims: its encoder refuses every other
// operation, and WRITE and RM of every other path. It opens no
// transactions either, because they make the daemon, which every start of a
// domain needs, some twenty times slower. A caller that needs a consistent view
// watches, scans, and scans again if an event came meanwhile.
//
// Values are data of foreign origin, partly written by guests. They are handed
// on byte by byte as they came, control characters included.
//
// Example:
//
//	conn, err := xenstore.Dial(ctx, nil)
//	if errors.Is(err, fs.ErrNotExist) {
//		// no xenstore on this host
//	}
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	domains, err := conn.List(ctx, "/local/domain")
//	...
//	values, err := conn.ReadAll(ctx, paths)
//
// The protocol is described in Xen's docs/misc/xenstore.txt and
// xen/include/public/io/xs_wire.h.
package xenstore
