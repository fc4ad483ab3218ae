package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgward/guard/hostfs"
	"imgward/imageops/probe"
)

// chain looks for images that stand on the target: overlays that have it as their
// backing file or parent, and images that have their data in it. Nothing but
// their headers says so while no domain runs. It reads the headers of all files in
// the target's directory and in those of all images that a node of xenstore or a
// description of a domain names, resolves what they name as QEMU does
// (block.c, path_combine and get_tmp of json: and file:), and follows images that
// stand on one another up to the one that a domain has.
//
// What a header names is looked up and never opened: it was written by somebody
// else. A file under somebody's lease is not opened either, because that would
// break the lease ("Leases" in fcntl(2)).
//
// It does not see an overlay in a directory that nothing names, one on a block
// device, and one of a format whose header names its parent by number only, as
// VirtualBox's does. That the target itself is an overlay is no reason to refuse.
type chain struct{}

func (chain) Name() string { return "chain" }

func (chain) Reads() []string {
	return slices.Concat([]string{"/proc/locks", "xenstore"}, marks{}.Reads(), inventoryReads)
}

// Collect implements [Collector].
func (chain) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	c := &chainLook{ctx: ctx, host: host, t: t, s: s, images: map[ID]*imageFile{}, users: map[ID][]imageUser{}}
	// xenstore takes longest to answer, and names hardly ever another directory than
	// descriptions do. What is listed and read before it has answered is listed
	// again after, and read again where it is not what it was.
	dirs := c.knownDirs()
	for _, dir := range dirs {
		c.list(dir, func(string, error) {})
	}
	c.readHeaders()
	if dirs = c.usedDirs(dirs); len(dirs) == 0 {
		return
	}
	var unlisted []inventoryBlind
	for range looks {
		unlisted = nil
		c.listing++
		for _, dir := range dirs {
			c.list(dir, func(where string, err error) { unlisted = append(unlisted, inventoryBlind{where: where, err: err}) })
		}
		c.readHeaders()
		if !slices.ContainsFunc(c.order, c.moved) {
			break
		}
	}
	for _, b := range unlisted {
		s.Blind(b.where, b.err)
	}
	c.tell()
	c.report(c.standing())
}

type chainLook struct {
	ctx    context.Context
	host   *Host
	t      *Target
	s      *Sheet
	images map[ID]*imageFile
	order  []*imageFile // as they were found
	users  map[ID][]imageUser

	listing int // how often the directories were listed since xenstore has answered
}

// An imageFile is a regular file that may be one, by what it is and not by its name.
type imageFile struct {
	id   ID
	path string      // the first name that it was found by
	dirs []string    // the directories it was found in; names in its header count from there
	stat hostfs.Stat // as it was listed last
	seen int         // in which listing
	read bool        // its header was read since, or could not be
	refs []probe.Reference
	err  error // why some of them are not known

	// What makes it stand on the target; set for those that do.
	words  string // its header's, that lead to the target or to under, and lowest
	lowest string // those of the image at the end that leads to the target
	kind   string
	via    string // for the end of a sentence
	rel    Relation
	under  *imageFile // the image between, or nil
}

// An imageUser is a domain that has an image, as xenstore or a description says.
type imageUser struct {
	name string // the domain's
	live bool
	said func() userWords // made when they are wanted: most images do not matter
}

// userWords is what a finding says of an image's user.
type userWords struct {
	subject string // domain 3 (q1); domain q1, configured
	key     string
	shut    string // how to end it
	source  string
}

// moved tells an image that was not there any more under the name that the last
// listing had: it has another by now, or none.
func (c *chainLook) moved(img *imageFile) bool {
	return img.seen == c.listing && errors.Is(img.err, fs.ErrNotExist)
}

// knownDirs gives the directories to look in that are known without xenstore, once
// each.
func (c *chainLook) knownDirs() []string {
	var out []string
	if c.t.ID.Kind != KindBlock {
		out = append(out, dirOf(c.t.Real))
		if given, err := filepath.Abs(c.t.Path); err == nil && dirOf(given) != out[0] {
			out = append(out, dirOf(given))
		}
	}
	for _, dir := range c.t.described(c.ctx, c.host) {
		if !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// usedDirs adds to the directories those that nodes of xenstore name, and takes
// down who uses which image. What it says of images that cannot be looked at, the
// listing of their directory says again.
func (c *chainLook) usedDirs(dirs []string) []string {
	// What of xenstore and of descriptions cannot be read, the collectors xen,
	// configs and saved say.
	if scan, err := c.t.scan(); err == nil && scan != nil {
		for _, n := range scan.nodes {
			c.node(scan, n, func(dir string) {
				if !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			})
		}
	}
	inv := c.t.inventory(c.ctx, c.host)
	for _, d := range inv.disks {
		c.described(inv, d)
	}
	return dirs
}

// dirOf is the directory of a file's absolute path, with the links and dots in it
// as they stand.
func dirOf(file string) string { return file[:max(1, strings.LastIndexByte(file, '/'))] }

// node takes down the images that a node of xenstore names, and their directories.
func (c *chainLook) node(scan *storeScan, n node, add func(string)) {
	for _, key := range pathKeys {
		for _, p := range n.paths(key) {
			st, err := scan.paths.Stat(p)
			if nothingThere(err) || err == nil && st.Type != hostfs.Regular {
				continue
			}
			add(dirOf(p))
			if id, ok := idOf(st); err == nil && ok {
				c.use(id, imageUser{name: scan.domainName(n.domid), live: scan.lives(n.domid), said: func() userWords { return scan.user(n, key) }})
			}
		}
	}
}

// user says whose node names an image with a key.
func (s *storeScan) user(n node, key string) userWords {
	w := userWords{
		subject: fmt.Sprintf("domain %s (%s)", quote(n.domid), s.name(n.domid)), key: s.key(n.domid),
		shut: "shut down domain " + quote(n.domid), source: quote(n.path) + ": " + n.show(key),
	}
	if !s.lives(n.domid) {
		w.subject = "domain " + quote(n.domid) + ", which is gone"
	}
	return w
}

// described takes down an image that a description of a domain names.
func (c *chainLook) described(inv *inventory, d disk) {
	st, err := inv.paths.Stat(d.Path)
	id, ok := idOf(st)
	if err == nil && ok {
		c.use(id, imageUser{name: d.Domain, live: d.Live, said: d.user})
	}
}

// user says whose description names the disk.
func (d disk) user() userWords {
	subject := "domain " + quote(d.Domain)
	w := userWords{subject: subject, key: d.Domain, shut: "shut down " + subject, source: d.Source}
	switch {
	case d.Saved:
		w.subject += ", saved"
	case !d.Live:
		w.subject += ", configured"
	}
	return w
}

// use takes down a user of an image, each domain once: by what says that it runs,
// or else by the first thing that says so.
func (c *chainLook) use(id ID, u imageUser) {
	i := slices.IndexFunc(c.users[id], func(v imageUser) bool { return v.name == u.name })
	switch {
	case i < 0:
		c.users[id] = append(c.users[id], u)
	case u.live && !c.users[id][i].live:
		c.users[id][i] = u
	}
}

// standing finds the images that stand on the target: those whose header leads to
// it, and then those that stand on these.
func (c *chainLook) standing() []*imageFile {
	type link struct {
		img *imageFile
		ref probe.Reference
	}
	above := map[ID][]link{} // who names an image
	found := map[*imageFile]bool{}
	var out []*imageFile
	add := func(img *imageFile) {
		found[img] = true
		out = append(out, img)
	}
	for _, img := range c.order {
		for _, ref := range img.refs {
			for _, p := range c.places(img, ref) {
				st, err := c.host.FS.Stat(p)
				id, ok := idOf(st)
				if ok = ok && err == nil; ok && id == img.id {
					continue // an extent under the name of the file that it lies in
				}
				if ok {
					above[id] = append(above[id], link{img, ref})
				}
				rel, err := c.t.reach(c.host.FS, p)
				if err != nil {
					c.s.blindTo("what image "+quote(img.path)+" stands on", img.path, p, err)
				}
				if rel != Unrelated && !found[img] {
					img.stands(ref, rel, c.t.via(rel, id), nil)
					add(img)
				}
			}
		}
	}
	for i := 0; i < len(out); i++ {
		for _, l := range above[out[i].id] {
			if !found[l.img] {
				l.img.stands(l.ref, Above, "", out[i])
				add(l.img)
			}
		}
	}
	return out
}

// places gives the paths that a reference can mean, which says that it cannot
// tell where a name is not understood.
func (c *chainLook) places(img *imageFile, ref probe.Reference) []string {
	var out []string
	for _, dir := range img.dirs {
		ps, err := referencePaths(dir, ref.Name)
		if err != nil {
			c.s.blindTo("what image "+quote(img.path)+" stands on", img.path, img.path, err)
			return nil // in every directory
		}
		out = append(out, ps...)
	}
	return out
}

func (img *imageFile) stands(ref probe.Reference, rel Relation, via string, under *imageFile) {
	img.rel, img.via, img.under, img.kind = rel, via, under, ref.Kind
	img.words = quote(img.path) + ": " + ref.Kind + " = " + quote(ref.Name)
	img.lowest = img.words
	if under != nil {
		img.lowest = under.lowest
		img.words += "; " + img.lowest
	}
}

// onTarget completes "it ..." to what the image has to do with the target.
func (img *imageFile) onTarget() string {
	if img.under != nil {
		return "stands on it, through " + quote(img.under.path)
	}
	words := map[string]string{
		"backing": "has it as its backing file", "parent": "has it as its parent",
		"data": "has its data in it", "extent": "has a part of its data in it",
	}
	return words[img.kind] + img.via
}

// report says who stands on the target: running domains, and the other images.
// Many are said in one line.
func (c *chainLook) report(imgs []*imageFile) {
	slices.SortStableFunc(imgs, func(a, b *imageFile) int { return cmp.Compare(a.path, b.path) })
	var running, resting []Finding
	for _, img := range imgs {
		live := false
		var owners []string
		for _, u := range c.users[img.id] {
			w := u.said()
			if !u.live {
				owners = append(owners, w.subject)
				continue
			}
			live = true
			running = append(running, Finding{
				Code: ChainLive, Relation: img.rel, Subject: w.subject, Key: w.key,
				Detail: "runs from " + quote(img.path) + ", which " + img.onTarget(),
				Source: img.words + "; " + w.source, Remedy: w.shut,
			})
		}
		if live {
			continue
		}
		f := Finding{
			Code: ChainParent, Relation: img.rel, Subject: "image " + quote(img.path), Key: img.path,
			Detail: img.onTarget(), Source: img.words,
		}
		if len(owners) > 0 {
			f.Subject += " (of " + strings.Join(owners, "; ") + ")"
		}
		switch {
		case img.under != nil: // what is done to that one helps this one
		case img.kind == "backing" && c.t.Exists() && quote(img.path) == img.path:
			f.Remedy = "run \"qemu-img rebase -b '' " + img.path + "\", which copies into it what it needs, or remove the image"
		default:
			f.Remedy = "remove the image " + quote(img.path)
		}
		resting = append(resting, f)
	}
	for _, f := range slices.Concat(someOf(running, "domain"), someOf(resting, "image")) {
		c.s.Found(f)
	}
}

// maxSaid is how many findings of one kind are said one by one.
const maxSaid = 8

// someOf makes one finding of many. Its key has their number, so that an override
// does not cover one that appears later.
func someOf(fs []Finding, noun string) []Finding {
	if len(fs) <= maxSaid {
		return fs
	}
	f := fs[0]
	f.Detail += ", and so with " + count(len(fs)-1, noun) + " more"
	f.Key = noun + "s." + strconv.Itoa(len(fs))
	return []Finding{f}
}

// ownPID is this process as /proc names it.
func ownPID() string { return strconv.Itoa(os.Getpid()) }
