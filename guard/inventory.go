package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"imgward/guard/domcfg"
	"imgward/guard/hostfs"
)

// A disk is an image, or a directory, that a description of a domain names.
type disk struct {
	Domain string // as the description spells it; the file's name where it has none
	Path   string // absolute, as a reader without a shell resolves it
	Source string // "FILE: the words that name it"
	Saved  bool   // it is a saved domain's
	Live   bool   // a running domain's own record names it
	kind   domcfg.Kind
	dev    string // its name inside the domain, if that is said
	file   string // the description
}

// An inventory is what this host's descriptions of domains say at one moment:
// configuration files and records, saved domains, and the processes of xl.
type inventory struct {
	disks   []disk
	configs int      // descriptions that were read, but for saved domains
	saves   int      // saved domains that were read
	places  int      // directories of either that exist
	dirs    []string // in which named images lie, and those of libvirt's storage pools
	starts  []xlStart
	libvirt map[string]libvirtDomain // libvirt's domains, by name
	blind   []inventoryBlind
	paths   *lookups // for those that are named
}

// A libvirtDomain is where libvirt describes a domain: live where it runs.
type libvirtDomain struct {
	name string // of the file
	live bool
}

// An inventoryBlind is a place that could not be read, and whose evidence it
// would have been: that of the collector configs, of saved, or "" for both.
type inventoryBlind struct {
	collector string
	where     string
	err       error
}

// inventory gives what descriptions of domains say during the look that is going
// on. It is read when the first collector asks, for all of them.
func (t *Target) inventory(ctx context.Context, host *Host) *inventory {
	l := t.descriptions
	l.settle.Do(func() {
		l.read.Do(func() { l.inventory = readInventory(ctx, host, t.ID) })
		scan, err := t.scan()
		if err == nil && scan != nil {
			l.inventory.withoutUnplugged(ctx, host.Store, scan)
		}
		if err != nil || scan != nil { // what it means that there is no xenstore, the collector xen says
			l.inventory.restarting(host, scan)
		}
		l.inventory.paths = newLookups(host.FS)
	})
	return l.inventory
}

// described gives the directories of what descriptions name, which are known before
// xenstore has answered.
func (t *Target) described(ctx context.Context, host *Host) []string {
	l := t.descriptions
	l.read.Do(func() { l.inventory = readInventory(ctx, host, t.ID) })
	return l.inventory.dirs
}

// withoutUnplugged takes out the disks that libxl's record of a living domain
// names and xenstore does not. libxl leaves a disk in the record when it is taken
// away, and passes over it from then on (libxl_domain.c,
// retrieve_domain_configuration_end). Where xenstore did not tell everything, all
// stay.
func (inv *inventory) withoutUnplugged(ctx context.Context, store Store, scan *storeScan) {
	if len(scan.blind) > 0 {
		return
	}
	recorded := map[string]bool{}
	for _, d := range inv.disks {
		if domid := d.recordOf(); domid != "" && scan.exists[domid] {
			recorded[domid] = true
		}
	}
	plugged, err := scan.plugged(ctx, store, recorded)
	if err != nil {
		return
	}
	inv.disks = slices.DeleteFunc(inv.disks, func(d disk) bool {
		domid := d.recordOf()
		return recorded[domid] && !slices.Contains(plugged[domid], d.dev) && !slices.Contains(plugged[domid], "")
	})
}

// recordOf gives the domain whose record by libxl names the disk, if one does.
func (d disk) recordOf() (domid string) {
	rest, ok := strings.CutPrefix(d.file, xenLibDir+"/userdata-d.")
	domid, _, cut := strings.Cut(rest, ".")
	if !ok || !cut || !d.Live || d.dev == "" {
		return ""
	}
	return domid
}

// lookedUp is an inventory that is read when it is first asked for, and settled
// when the first one asks for all of it.
type lookedUp struct {
	read, settle sync.Once
	inventory    *inventory
}

// The directories in which descriptions of domains lie. A file is a description
// by its place and its name; others are not looked at.
const (
	xenDir     = "/etc/xen"
	xenAutoDir = "/etc/xen/auto"
	xenLibDir  = "/var/lib/xen"
	xenSaveDir = "/var/lib/xen/save"
)

var (
	// xendomainsFiles hold the settings of the service that starts, saves and
	// restores domains with the host.
	xendomainsFiles = []string{"/etc/default/xendomains", "/etc/sysconfig/xendomains"}
	libvirtDrivers  = []string{"libxl", "qemu"}
	libvirtDirs     = []string{"/etc/libvirt/", "/run/libvirt/"}
)

// inventoryReads are the patterns of what an inventory reads of its own accord.
// Beside them it reads what descriptions and the processes of xl name.
var inventoryReads = []string{
	"/etc/xen", "/etc/xen/*.cfg", "/etc/xen/auto", "/etc/xen/auto/*", "/etc/default/xendomains", "/etc/sysconfig/xendomains",
	"/var/lib/xen", "/var/lib/xen/userdata-d.*", "/var/lib/xen/save", "/var/lib/xen/save/*",
	"/etc/libvirt/libxl", "/etc/libvirt/libxl/*.xml", "/etc/libvirt/qemu", "/etc/libvirt/qemu/*.xml",
	"/run/libvirt/libxl", "/run/libvirt/libxl/*.xml", "/run/libvirt/qemu", "/run/libvirt/qemu/*.xml",
	"/etc/libvirt/storage", "/etc/libvirt/storage/*.xml", "/run/libvirt/storage", "/run/libvirt/storage/*.xml",
	"/var/lib/libvirt/libxl/save", "/var/lib/libvirt/libxl/save/*", "/var/lib/libvirt/qemu/save", "/var/lib/libvirt/qemu/save/*",
	"/proc", "/proc/*/comm", "/proc/*/cmdline", "/proc/*/cwd", "/proc/*/fd/1", "/proc/locks",
}

// readInventory reads all descriptions. A saved domain's file that is the target
// itself is not opened: an opener of our own would be taken for somebody's.
func readInventory(ctx context.Context, host *Host, target ID) *inventory {
	r := &inventoryReader{
		ctx: ctx, host: host, target: target, out: &inventory{libvirt: map[string]libvirtDomain{}},
		pools: map[string]string{}, live: map[string]bool{}, known: map[knownDisk]bool{},
	}
	r.libvirtPools()
	saves := r.xl()
	for _, driver := range libvirtDrivers {
		for i, dir := range libvirtDirs {
			r.libvirt(dir+driver, i == 1)
		}
		saves = append(saves, "/var/lib/libvirt/"+driver+"/save")
	}
	for _, dir := range saves {
		r.savedIn(dir)
	}
	if r.xen {
		r.processes()
	}
	if err := ctx.Err(); err != nil {
		r.blind("", "descriptions of domains", err)
	}
	r.out.dirs = slices.Sorted(maps.Keys(r.imageDirs()))
	return r.out
}

type inventoryReader struct {
	ctx    context.Context
	host   *Host
	target ID
	out    *inventory
	xen    bool              // there are directories of Xen's tools
	pools  map[string]string // name to directory, or to "" when it has none here
	live   map[string]bool   // domains that have a record of running
	gone   bool              // what was to be read last is not there
	known  map[knownDisk]bool
}

// A knownDisk is in the inventory once, whatever says so.
type knownDisk struct {
	domain, path string
	saved, live  bool
}

func (r *inventoryReader) blind(collector, where string, err error) {
	r.out.blind = append(r.out.blind, inventoryBlind{collector, where, err})
}

// each reads what lies in a directory of descriptions, if that is there. What is gone
// when its turn comes may have another name by then: the directory is listed again, and
// what is gone once more is a link to nothing.
func (r *inventoryReader) each(collector, dir string, read func(name string)) {
	done := map[string]bool{}
	gone := map[string]bool{}
	for i := range looks {
		names, err := r.host.FS.ReadDir(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
			return
		case err != nil:
			r.blind(collector, dir, err)
			return
		case r.ctx.Err() != nil:
			return // said in the end
		case i == 0:
			r.out.places++
		}
		again := false
		for _, name := range names {
			if done[name] {
				continue
			}
			r.gone = false
			read(name)
			again = again || r.gone && !gone[name]
			done[name], gone[name] = !r.gone || gone[name], r.gone
		}
		if !again {
			return
		}
	}
	r.blind(collector, dir, errors.New("what lies there is renamed all the time"))
}

// text reads a description of the collector configs; false when there is none.
func (r *inventoryReader) text(file string) ([]byte, bool) {
	b, err := r.host.FS.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.gone = true // since the listing, or a link to nothing
		return nil, false
	case errors.Is(err, syscall.EISDIR):
		return nil, false
	case err != nil:
		r.blind("configs", file, err)
		return nil, false
	}
	return b, true
}

// xl reads the configuration files of xl, those of the domains that start with
// the host, and libxl's records of running domains. It gives the directories of
// saved domains.
func (r *inventoryReader) xl() (saves []string) {
	before := r.out.places
	r.each("configs", xenDir, func(name string) {
		if strings.HasSuffix(name, ".cfg") {
			r.xlFile(xenDir + "/" + name)
		}
	})
	autos, saves := r.xendomains()
	for _, dir := range autos {
		r.each("configs", dir, func(name string) { r.xlFile(dir + "/" + name) })
	}
	r.each("configs", xenLibDir, func(name string) {
		if strings.HasPrefix(name, "userdata-d.") {
			r.userdata(xenLibDir + "/" + name)
		}
	})
	r.xen = r.out.places > before
	return saves
}

func (r *inventoryReader) xlFile(file string) {
	if text, ok := r.text(file); ok {
		d, err := domcfg.ParseXL(string(text))
		r.add(d, file, err, disk{})
	}
}

// userdata reads a record of libxl's: what the domain was made with and has now
// (".libxl-json"), or a configuration that "xl config-update" put in its place
// (".xl").
func (r *inventoryReader) userdata(file string) {
	parse := domcfg.ParseUserdata
	switch path.Ext(file) {
	case ".xl":
		parse = func(b []byte) (domcfg.Domain, error) { return domcfg.ParseXL(string(b)) }
	case ".libxl-json":
	default:
		return
	}
	if text, ok := r.text(file); ok {
		d, err := parse(text)
		if d.Name == "" && strings.HasPrefix(path.Base(file), "userdata-d.0.") {
			d.Name = "Domain-0"
		}
		r.live[d.Name] = true
		r.add(d, file, err, disk{Live: true})
	}
}

// xendomains gives the directories of domains that are started with the host and
// that were saved when it went down, by the service's settings and by default.
func (r *inventoryReader) xendomains() (autos, saves []string) {
	autos, saves = []string{xenAutoDir}, []string{xenSaveDir}
	for _, file := range xendomainsFiles {
		text, err := r.host.FS.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var set map[string]string
		if err == nil {
			set, err = domcfg.ParseShell(string(text), "XENDOMAINS_AUTO", "XENDOMAINS_SAVE")
		}
		if err != nil {
			r.blind("", file, err)
		}
		add := func(dirs *[]string, dir string) {
			dir = path.Clean("/" + dir)
			if dir != "/" && !slices.Contains(*dirs, dir) {
				*dirs = append(*dirs, dir)
			}
		}
		add(&autos, set["XENDOMAINS_AUTO"])
		add(&saves, set["XENDOMAINS_SAVE"])
	}
	return autos, saves
}

// libvirt reads the domains of one driver of libvirt's: those that are defined,
// or those that run.
func (r *inventoryReader) libvirt(dir string, live bool) {
	r.each("configs", dir, func(name string) {
		if !strings.HasSuffix(name, ".xml") {
			return
		}
		file := dir + "/" + name
		if text, ok := r.text(file); ok {
			d, err := domcfg.ParseLibvirt(text)
			if !r.out.libvirt[d.Name].live {
				r.out.libvirt[d.Name] = libvirtDomain{file, live}
			}
			r.add(d, file, err, disk{Live: live})
		}
	})
}

func (r *inventoryReader) libvirtPools() {
	for _, dir := range libvirtDirs {
		r.each("configs", dir+"storage", func(name string) {
			file := dir + "storage/" + name
			if !strings.HasSuffix(name, ".xml") {
				return
			}
			text, ok := r.text(file)
			if !ok {
				return
			}
			pool, at, err := domcfg.ParsePool(text)
			if err != nil {
				r.blind("configs", file, err)
			}
			r.pools[pool] = at
		})
	}
}

// savedIn reads the saved domains in a directory. A file there that is none is
// not understood: whatever starts domains again will try it.
func (r *inventoryReader) savedIn(dir string) {
	r.each("saved", dir, func(name string) {
		file := dir + "/" + name
		st, err := r.host.FS.Stat(file)
		r.gone = errors.Is(err, fs.ErrNotExist)
		if r.gone || err == nil && (st.Type != hostfs.Regular || st.Size == 0) {
			return
		}
		if id, ok := idOf(st); ok && id == r.target {
			return
		}
		if err == nil {
			err = r.notLeased(st)
		}
		if err != nil {
			r.blind("saved", file, err)
			return
		}
		d, err := r.save(file)
		if r.gone = errors.Is(err, fs.ErrNotExist); r.gone {
			return
		}
		r.out.saves++
		r.add(d, file, err, disk{Saved: true})
	})
}

// notLeased is an error for a file that opening it for reading would disturb.
func (r *inventoryReader) notLeased(st hostfs.Stat) error {
	pid, err := leaseHolder(r.host, st.Dev, st.Ino)
	if err == nil && pid != "" {
		err = fmt.Errorf("process %s holds a lease on it", pid)
	}
	return err
}

func (r *inventoryReader) save(file string) (domcfg.Domain, error) {
	c, err := r.host.FS.Content(file)
	if err != nil {
		return domcfg.Domain{}, err
	}
	defer c.Close()
	return domcfg.ReadSave(c, c.Size())
}

// add takes a domain's disks into the inventory. What was understood before err
// counts, and err is blindness. like says what kind of description it is.
func (r *inventoryReader) add(d domcfg.Domain, file string, err error, like disk) {
	collector := "configs"
	if like.Saved {
		collector = "saved"
	} else {
		r.out.configs++
	}
	if err != nil {
		r.blind(collector, file, err)
	}
	like.Domain, like.file = d.Name, file
	if like.Domain == "" {
		like.Domain = strings.TrimSuffix(path.Base(file), path.Ext(file))
	}
	source := quote(file) + ": "
	for _, named := range d.Disks {
		paths, err := r.resolve(named)
		if err != nil {
			r.blind(collector, file, err)
		}
		for _, p := range paths {
			disk := like
			disk.Path, disk.kind, disk.dev = p, named.Kind, named.Dev
			disk.Source = source + named.Words
			key := knownDisk{disk.Domain, p, disk.Saved, disk.Live}
			if !r.known[key] {
				r.known[key] = true
				r.out.disks = append(r.out.disks, disk)
			}
		}
	}
}

// resolve gives the absolute paths that a disk can mean on this host: none when
// another domain serves it or when it lies on no file system.
func (r *inventoryReader) resolve(d domcfg.Disk) ([]string, error) {
	switch {
	case d.Backend != "":
		return nil, nil
	case d.Pool != "":
		dir, ok := r.pools[d.Pool]
		if !ok {
			return nil, fmt.Errorf("the storage pool %s of volume %s is not described anywhere", quote(d.Pool), quote(d.Path))
		}
		if dir == "" {
			return nil, nil
		}
		return []string{dir + "/" + d.Path}, nil
	case d.Script == "" && strings.HasPrefix(d.Path, "/"):
		return []string{d.Path}, nil
	case d.Kind != domcfg.Image:
		return nil, nil
	}
	return imagePaths(d.Path), nil
}

// imageDirs gives the directories, outside of /dev, of everything that is named,
// and of the storage pools.
func (r *inventoryReader) imageDirs() map[string]bool {
	out := map[string]bool{}
	add := func(dir string) {
		if dir = path.Clean("/" + dir); dir != "/dev" && !strings.HasPrefix(dir, "/dev/") {
			out[dir] = true
		}
	}
	for _, d := range r.out.disks {
		if d.kind == domcfg.Image {
			add(path.Dir(d.Path))
		}
	}
	for _, dir := range r.pools {
		if dir != "" {
			add(dir)
		}
	}
	return out
}
