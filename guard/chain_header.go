package guard

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"imgward/imageops/probe"
)

const (
	// maxImages bounds the files whose headers one look reads.
	maxImages = 1 << 14

	// readers is how many headers are read at the same time, for storage that
	// answers late.
	readers = 8
)

// list takes down the files in a directory that may be images. The target is not
// among them: what it stands on does not matter, and to open it would disturb
// those who ask who has it open.
func (c *chainLook) list(dir string) {
	names, err := c.host.FS.ReadDir(dir)
	if nothingThere(err) {
		return
	}
	if err != nil {
		c.s.Blind(dir, err)
		return
	}
	for _, name := range names {
		path := dir + "/" + name
		if dir == "/" {
			path = dir + name
		}
		st, err := c.host.FS.Stat(path)
		if nothingThere(err) {
			continue
		}
		if err != nil {
			c.s.Blind(path, err)
			continue
		}
		id, ok := idOf(st)
		if !ok || id.Kind != KindFile || id == c.t.ID || st.Size == 0 {
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
				i := int(next.Add(1)) - 1
				if i >= len(c.order) || c.ctx.Err() != nil {
					return
				}
				img := c.order[i]
				err := c.readHeader(img)
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

// readHeader reads what an image names. It opens the file for a moment, unless
// somebody has a lease on it, which opening would break, or imgward writes to it.
// A lease that is taken only to ask for it, and a gate without a record yet, are
// something else a moment later.
func (c *chainLook) readHeader(img *imageFile) error {
	for i := 0; ; i++ {
		if c.written(img.id) {
			return errOurs
		}
		holder, err := leaseHolder(c.host, img.id.Dev, img.id.Ino)
		switch {
		case err != nil:
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

// written reports whether an imgward writes to the file, by its record of this
// boot.
func (c *chainLook) written(id ID) bool {
	names, _ := c.host.FS.ReadDir(marksDir(c.host)) // the collector of marks says what cannot be read
	for _, name := range names {
		m, err := readMark(c.host, marksDir(c.host)+"/"+name)
		if err == nil && m.Numbers == id && m.Boot == bootID(c.host) && running(c.host, m.PID, m.Start) {
			return true
		}
	}
	return false
}
