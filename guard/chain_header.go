package guard

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
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

	// inOneGo is how many headers are read after one look at who has leases and
	// writes. The kernel stops all openers of files for a moment to list its locks.
	inOneGo = 16
)

// list takes down the files in a directory that may be images. The target is not
// among them: what it stands on does not matter, and to open it would disturb
// those who ask who has it open.
func (c *chainLook) list(dir string) {
	entries, err := c.host.FS.StatDir(dir)
	if nothingThere(err) {
		return
	}
	if err != nil {
		c.s.Blind(dir, err)
		return
	}
	slices.SortFunc(entries, func(a, b hostfs.Entry) int { return cmp.Compare(a.Name, b.Name) })
	for _, e := range entries {
		path := strings.TrimSuffix(dir, "/") + "/" + e.Name
		if nothingThere(e.Err) {
			continue
		}
		if e.Err != nil {
			c.s.Blind(path, e.Err)
			continue
		}
		id, ok := idOf(e.Stat)
		if !ok || id.Kind != KindFile || id == c.t.ID || e.Stat.Size == 0 {
			continue
		}
		img := c.images[id]
		if img == nil {
			if len(c.order) == maxImages {
				c.s.Blind(dir, fmt.Errorf("more than %d files to look at", maxImages))
				return
			}
			img = &imageFile{id: id, path: path}
			c.images[id] = img
			c.order = append(c.order, img)
		}
		if !slices.Contains(img.dirs, dir) {
			img.dirs = append(img.dirs, dir)
		}
	}
}

// readHeaders reads what all images name and tells how many could be read.
func (c *chainLook) readHeaders() int {
	var next, done, skipped atomic.Int64
	var mu sync.Mutex
	var unread []Finding
	var wg sync.WaitGroup
	for range min(readers, len(c.order)) {
		wg.Go(func() {
			for {
				end := int(next.Add(inOneGo))
				if end-inOneGo >= len(c.order) || c.ctx.Err() != nil {
					return
				}
				now := c.inHand()
				for _, img := range c.order[end-inOneGo : min(end, len(c.order))] {
					err := c.readHeader(img, now)
					switch {
					case errors.Is(err, fs.ErrNotExist): // removed since the listing
					case errors.Is(err, errOurs):
						skipped.Add(1)
					case err != nil:
						f := blind(chain{}.Name(), img.path, err)
						f.Detail = "could not look at what image " + quote(img.path) + " stands on: " + reason(err).Error()
						mu.Lock()
						unread = append(unread, f)
						mu.Unlock()
					default:
						done.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(unread, func(a, b Finding) int { return cmp.Compare(a.Key, b.Key) })
	for _, f := range someOf(unread, "image") {
		c.s.Found(f)
	}
	c.skipped = int(skipped.Load())
	return int(done.Load())
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
		if err == nil && m.Boot == bootID(c.host) && running(c.host, m.PID, m.Start) {
			h.written = append(h.written, m.Numbers)
		}
	}
	h.locks, h.err = readLocks(c.host)
	return h
}

// readHeader reads what an image names. It opens the file for a moment, unless
// somebody has a lease on it, which opening would break, or imgward writes to it.
// A lease that is taken only to ask for it, and a gate without a record yet, are
// something else a moment later.
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
		shut := holder != "" || errors.Is(err, syscall.ETXTBSY) || errors.Is(err, syscall.EPERM)
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
	img.refs, err = probe.References(content, content.Size())
	if id, ok := idOf(content.Stat); ok {
		img.id = id // another file may have got the name since the listing
	}
	return errors.Join(err, content.Close())
}
