package guard

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"imgward/guard/hostfs"
	"imgward/imageops/probe"
)

const (
	// maxImages bounds the files whose headers one look reads.
	maxImages = 1 << 14

	// readers is how many headers are read at the same time, for storage that
	// answers late.
	readers = 8

	// inOneGo is how many headers are at most read after one look at who has leases and
	// writes. The kernel stops all openers of files for a moment to list its locks.
	inOneGo = 16
)

// list takes down the files in a directory that may be images. The target is not
// among them: what it stands on does not matter, and to open it would disturb
// those who ask who has it open. A file that was listed before is to be read again
// if it is not the same. What cannot be listed is said through blind.
func (c *chainLook) list(dir string, blind func(where string, err error)) {
	entries, err := c.host.FS.StatDir(dir)
	if nothingThere(err) {
		return
	}
	if err != nil {
		blind(dir, err)
		return
	}
	slices.SortFunc(entries, func(a, b hostfs.Entry) int { return cmp.Compare(a.Name, b.Name) })
	for _, e := range entries {
		path := strings.TrimSuffix(dir, "/") + "/" + e.Name
		if nothingThere(e.Err) {
			continue
		}
		if e.Err != nil {
			blind(path, e.Err)
			continue
		}
		id, ok := idOf(e.Stat)
		if !ok || id.Kind != KindFile || id == c.t.ID || e.Stat.Size == 0 {
			continue
		}
		img := c.images[id]
		if img == nil {
			if len(c.order) == maxImages {
				blind(dir, fmt.Errorf("more than %d files to look at", maxImages))
				return
			}
			img = &imageFile{id: id, path: path}
			c.images[id] = img
			c.order = append(c.order, img)
		}
		img.seen = c.listing
		if img.stat != e.Stat || img.err != nil {
			img.stat, img.path, img.read = e.Stat, path, false
		}
		if !slices.Contains(img.dirs, dir) {
			img.dirs = append(img.dirs, dir)
		}
	}
}

// readHeaders reads what all images name that were not read since they were
// listed.
func (c *chainLook) readHeaders() {
	var unread []*imageFile
	for _, img := range c.order {
		if !img.read {
			unread = append(unread, img)
		}
	}
	var next atomic.Int64
	step := min(inOneGo, len(unread)/readers+1)
	crew(min(readers, len(unread)), func() {
		for {
			end := int(next.Add(int64(step)))
			if end-step >= len(unread) || c.ctx.Err() != nil {
				return
			}
			now := c.inHand()
			for _, img := range unread[end-step : min(end, len(unread))] {
				img.read, img.refs, img.err = true, nil, nil
				img.err = c.readHeader(img, now)
			}
		}
	})
}

// tell says how many headers were read, and which could not be. That the time was
// over before all were read, Examine says.
func (c *chainLook) tell() {
	var unread []Finding
	read, skipped := 0, 0
	for _, img := range c.order {
		switch {
		case !img.read || errors.Is(img.err, fs.ErrNotExist) && !c.moved(img): // removed since it was listed
		case errors.Is(img.err, errOurs):
			skipped++
		case img.err != nil:
			f := blind(chain{}.Name(), img.path, img.err)
			f.Detail = "could not look at what image " + quote(img.path) + " stands on: " + reason(img.err).Error()
			unread = append(unread, f)
		default:
			read++
		}
	}
	slices.SortFunc(unread, func(a, b Finding) int { return cmp.Compare(a.Key, b.Key) })
	for _, f := range someOf(unread, "image") {
		c.s.Found(f)
	}
	c.s.Looked(read, "image header")
	if skipped > 0 {
		c.s.Looked(skipped, "file that imgward writes")
	}
}

// errOurs says of a file that imgward writes to it now.
var errOurs = errors.New("imgward writes to it")

// inHand says which files somebody has in hand, so that they are not to be opened.
type inHand struct {
	locks   []lock
	err     error // why there are no locks
	written []ID  // the files that an imgward writes to
}

func (c *chainLook) inHand() inHand {
	var h inHand
	names, _ := c.host.FS.ReadDir(marksDir(c.host)) // the collector of marks says what cannot be read
	for _, name := range names {
		m, err := readMark(c.host, marksDir(c.host)+"/"+name)
		if err != nil || m.Boot != bootID(c.host) || m.PIDs != pidNamespace(c.host) {
			continue
		}
		// What imgward may be writing to is read; what it does write to is not.
		if start, err := startTime(c.host, m.PID); err == nil && start == m.Start {
			h.written = append(h.written, m.Numbers)
		}
	}
	h.locks, h.err = readLocks(c.host)
	return h
}

// readHeader reads what an image names. It opens the file for a moment, unless
// somebody has a lease on it, which opening would break, or imgward writes to it.
// A lease that is taken only to ask for it, maybe since the locks were listed, and a
// gate without a record yet, are something else a moment later.
func (c *chainLook) readHeader(img *imageFile, now inHand) error {
	for i := 0; ; i++ {
		if slices.Contains(now.written, img.id) {
			return errOurs
		}
		holder, err := leaseIn(now.locks, img.id.Dev, img.id.Ino), now.err
		switch {
		case holder == "" && err != nil:
			err = errors.New("/proc/locks: " + reason(err).Error()) // that this is missing does not mean that the image is
		case holder == "":
			err = c.readNow(img)
		case holder == ownPID():
			err = errOurs
		default:
			subject, _ := processName(c.host, holder)
			err = errors.New(subject + " has a lease on it")
		}
		shut := holder != "" || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ETXTBSY) || errors.Is(err, syscall.EPERM)
		if !shut || !c.host.again(c.ctx, i) {
			return err
		}
		now = c.inHand()
	}
}

// readNow opens the image and reads what it names.
func (c *chainLook) readNow(img *imageFile) error {
	content, err := c.host.FS.Content(img.path)
	if err != nil {
		return err
	}
	if id, ok := idOf(content.Stat); !ok || id != img.id {
		return errors.Join(fs.ErrNotExist, content.Close()) // another file has got the name since the listing
	}
	img.refs, err = probe.References(content, content.Size())
	return errors.Join(err, content.Close())
}
