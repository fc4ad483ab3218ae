package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"imgward/guard/hostfs"
	"imgward/imageops/probe"
)

// contents reads the marks by which file systems, arrays and swap areas say that
// whoever used them last did not finish: a domain that was saved or killed, or one
// that runs on another host, leaves them where no other collector sees a user. It
// tells as well what a machine puts together of disks: a physical volume, a member
// of an array or a pool. Where the marks lie is in imageops/probe.
//
// It opens the target for reading, and so runs after the others and not at all
// where they refuse for good ([opening]).
//
// It does not see into formats such as qcow2, into LUKS, and into the volumes of a
// physical volume; a mounted btrfs or NTFS often has no mark.
type contents struct{}

func (contents) Name() string { return "contents" }

func (contents) Reads() []string { return []string{"/proc/locks", "/proc/*/comm", "content"} }

// Collect implements [Collector].
func (contents) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind == KindMissing || t.held != nil && t.held.reading {
		return // nothing there, or a source, of which the first look has told
	}
	image := openContents(ctx, host, t, s)
	if image == nil {
		return
	}
	c, err := probe.Look(peeker{ctx, image}, image.Size())
	// What was found is read once more, for a capture: it is to hold this, and
	// nothing of the files.
	for _, g := range c.Grounds {
		if _, gerr := image.ReadAt(make([]byte, g.Len), g.Off); gerr != nil && gerr != io.EOF {
			s.Blind(t.Real, gerr)
			break
		}
	}
	if cerr := image.Close(); cerr != nil {
		s.Blind(t.Real, cerr)
	}
	if unread := firstUnread(err); unread != nil {
		s.blindTo(unread.Part+" of "+quote(t.Real), unread.Part, t.Real, unread.Err)
	}
	areas := []probe.Partition{{Size: c.Size, Signature: c.Signature, Others: c.Others}}
	for _, p := range append(areas, c.Table.Partitions...) {
		for _, sig := range append([]probe.Signature{p.Signature}, p.Others...) {
			if f, ok := contentFinding(t, p, sig); ok {
				s.Found(f)
			}
		}
	}
}

// An openImage is the target, open for reading.
type openImage interface {
	io.ReaderAt
	Peek(b []byte, off int64) (int, error) // what is read so does not go into a capture
	Size() int64                           // in bytes
	Close() error
}

// heldImage is the target as we hold it, which stays open.
type heldImage struct {
	io.ReaderAt
	size int64
}

func (h heldImage) Peek(b []byte, off int64) (int, error) { return h.ReadAt(b, off) }

func (h heldImage) Size() int64 { return h.size }

func (heldImage) Close() error { return nil }

// openContents opens the target for reading, or gives the descriptor with which we
// hold it. It does not break anybody's lease: another imgward's question is waited
// for a little. nil: it has said why not.
func openContents(ctx context.Context, host *Host, t *Target, s *Sheet) openImage {
	if t.held != nil && t.held.inherited && t.held.leased {
		return nil // to open it would break our own lease; the first look has told
	}
	if t.held != nil && !t.held.inherited {
		st, err := t.held.file.Stat()
		if err != nil {
			s.Blind(t.Real, err)
			return nil
		}
		size := t.Size
		if st.Mode().IsRegular() {
			size = st.Size()
		}
		return heldImage{t.held.file, size}
	}
	for i := 0; ; i++ {
		f, c, err := openUnleased(host, t)
		switch {
		case c != nil:
			return c
		case (f.Code == LeaseTaken || errors.Is(err, syscall.EAGAIN)) && host.again(ctx, i):
			continue
		case err != nil:
			s.Blind(t.Real, err)
		default:
			s.Found(f)
		}
		return nil
	}
}

// openUnleased opens the target unless somebody has a lease on it.
func openUnleased(host *Host, t *Target) (Finding, *hostfs.Content, error) {
	if t.ID.Kind == KindFile {
		pid, err := leaseHolder(host, t.ID.Dev, t.ID.Ino)
		if err != nil {
			return Finding{}, nil, err
		}
		if pid != "" {
			return takenFinding(host, t, pid), nil, nil
		}
	}
	c, err := host.FS.Content(t.handle.Name())
	if errors.Is(err, syscall.ETXTBSY) {
		return shutFinding(t), nil, nil
	}
	return Finding{}, c, err
}

// A peeker reads an image by Peek, until ctx ends.
type peeker struct {
	ctx   context.Context
	image openImage
}

func (p peeker) ReadAt(b []byte, off int64) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.image.Peek(b, off)
}

// firstUnread gives the first of the joined errors of [probe.Look] that is about
// something that was not read, or nil. What was read and not understood, no
// machine finds a file system in.
func firstUnread(err error) *probe.PartError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var part *probe.PartError
			if errors.As(e, &part) && part.Unread {
				return part
			}
		}
	}
	return nil
}

// parts are the signatures of what machines put together, each with what the area
// is called and is, and what tells more of it.
var parts = map[string]struct{ noun, is, tool string }{
	"linux_raid_member": {"array member", "is a part of an md array, which may run elsewhere", "mdadm --examine"},
	"LVM2_member":       {"physical volume", "is a part of a volume group of LVM, which may be active elsewhere", "pvs"},
	"zfs":               {"pool member", "is a part of a ZFS pool, which may be imported elsewhere", "zdb -l"},
	"bcache":            {"bcache device", "is a part of a cache, which may run elsewhere", "bcache-super-show"},
	"drbd":              {"mirror side", "is one side of a mirror over the network", "drbdadm status"},
	"ceph_bluestore":    {"object store", "is a part of a Ceph cluster", "ceph-bluestore-tool show-label"},
	"jbd":               {"journal", "is the journal of a file system on another device", "blkid"},
}

// contentFinding says what a signature in an area of the target means; false where
// it means nothing.
func contentFinding(t *Target, area probe.Partition, sig probe.Signature) (Finding, bool) {
	f := Finding{Code: ContentDirty, Relation: Same, Detail: sig.Dirty, Remedy: "find out which domain or host it belongs to, and shut that down cleanly"}
	noun := sig.Type + " file system"
	if sig.Type == "swsuspend" {
		noun = "swap area"
	}
	if sig.Member() {
		part := parts[sig.Type]
		f.Code, f.Detail, noun = ContentMember, part.is, part.noun
		f.Remedy = "find out whose it is (\"" + part.tool + "\")"
		if sig.Dirty != "" {
			f.Detail += ", and " + sig.Dirty
		}
	}
	if f.Detail == "" {
		return Finding{}, false
	}
	f.Subject, f.Key = "the "+noun, fmt.Sprintf("%s@%d", sig.Type, area.Start)
	for _, name := range []string{sig.UUID, sig.Label} {
		if name != "" {
			f.Subject, f.Key = "the "+noun+" "+quote(name), name
		}
	}
	if area.Number > 0 {
		f.Subject += fmt.Sprintf(" in its partition %d", area.Number)
	}
	f.Source = fmt.Sprintf("%s: %s at byte %d, %s", quote(t.Real), sig.Type, area.Start, Bytes(area.Size))
	return f, true
}
