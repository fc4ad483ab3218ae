// Package hostfs is one view of a host: its pseudo-filesystems (/proc, /sys,
// /dev, /run, /etc), the names on it, and the few ioctl and fcntl answers that
// no file gives.
//
// A [Root] is that view. It is live (the running kernel), captured (a text file
// that [Load] reads), or in memory ([New] and the Set methods). Whoever looks at
// a host through a Root can be tested on every host that was ever captured.
//
// A name is an absolute path on the host. A name that a captured or in-memory
// Root says nothing of answers [ErrNotCaptured], never "does not exist": a test
// cannot pass on evidence that was never there.
//
// A [Stat] is the identity of what a name leads to, a [Handle] holds exactly
// that thing, a [Content] reads the bytes in it, and a [Question] is one of a
// closed list of things to ask of it.
//
//	root := hostfs.Live()
//	table, err := root.ReadFile("/proc/self/mountinfo")
//	answer, err := root.Ask(ctx, hostfs.Lease, "/srv/images/web1.img") // "write": nobody has it open
//
// # Capture files
//
// A capture is a txtar archive: a comment, then members, each after a line
// "-- NAME --". A member whose name starts with "/" is the content of that file.
// The member "manifest" says everything else, a line each:
//
//	stat  NAME TYPE [dev=MAJ:MIN] [ino=N] [rdev=MAJ:MIN] [size=N] [mode=0644] [mtime=NS]
//	link  NAME TARGET
//	dir   NAME ENTRY...
//	bytes NAME "go quoted"
//	data  NAME OFFSET "go quoted"
//	data  NAME EIO
//	err   NAME ERRNO [file|dir|link|stat|data]
//	ask   QUESTION NAME ERRNO | "go quoted answer"
//
// TYPE is one letter: f regular, d directory, b and c devices, p FIFO, s socket,
// l symbolic link, o anything else. A NAME, ENTRY or TARGET that is empty or
// holds a blank, a control character or a leading quotation mark is quoted as a
// Go string. An ERRNO is its name, such as EACCES. Empty lines, and lines that
// start with #, say nothing. Other members are kept for [Root.Member].
//
// A member and a bytes line are what [Root.ReadFile] gives. What [Root.Content]
// gives is in data lines, one for each piece, OFFSET decimal and in bytes. It is as
// long as the stat of NAME says, or for a block device the answer to its size; the
// bytes that no data line speaks of are zero, all of them where the one line says
// "" at 0. EIO says that it can be opened, and every read fails.
//
// Names are looked up as path_resolution(7) says: recorded links are followed,
// in the middle of a path too, ELOOP after 40. These rules are added:
//
//   - What is recorded for a name exactly as it is asked for is answered, before
//     any link is followed. That is how the magic links of /proc/PID have a
//     target and an identity of their own.
//   - A magic link without a stat of its own is not followed by its text, which
//     is no path (socket:[7], "/x (deleted)"), but is not captured.
//   - err holds for the name and for all that is reached through it; with a third
//     word only for what that line, or content for file, would say of the name.
//   - A name that its recorded directory does not list does not exist (ENOENT),
//     unless something is recorded at or below it. A dir line implies nothing
//     else of the names it lists.
package hostfs
