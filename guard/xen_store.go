package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"imgward/xenstore"
)

// domainsDir has an entry for every domain, named by its number.
const domainsDir = "/local/domain"

// A storeScan is what xenstore says of this host's disks at one moment.
type storeScan struct {
	self    string            // our own domid, in decimal
	domains []string          // every domid in /local/domain
	exists  map[string]bool   // the same
	names   map[string]string // domid to name
	targets map[string]string // domid of a stub domain to that of the domain that it serves
	nodes   []node            // the disks that this domain serves
	shares  []node            // the other devices with a path: directories that a domain has as a file system
	claims  []storeClaim      // what imgwards claim
	ours    []xenstore.Claim  // those that we had made before the scan
	foreign map[string][]node // backend domid to the disks that it serves instead
	blind   []storeBlind
	paths   *lookups // of the look, for the paths of nodes
}

type storeBlind struct {
	path string
	err  error
}

// A node is one disk: a backend directory, or the toolstack's own copy of one
// under /libxl whose backend directory is not there.
type node struct {
	path               string // where its keys lie
	source             string // "backend" or "libxl"
	server             string // the domain that serves it
	kind, domid, devid string
	keys               map[string]string
	images             map[string][]string // what each key with a path can mean
}

// pathKeys are the keys that hold names of images: of the disk itself, of what
// the hotplug script ended with, and of the two more images of a COLO disk.
var pathKeys = []string{"params", "physical-device-path", "node", "active-disk", "hidden-disk"}

// whatKeys are read of every node: they say which image, device or directory it
// is about. howKeys say how that is used.
var (
	whatKeys = append([]string{"path", "physical-device"}, pathKeys...)
	howKeys  = []string{"mode", "state", "online", "hotplug-status", "dev", "script"}
)

// An asking gives the howKeys to read of a node. foreign says that another domain
// serves it.
type asking func(n node, foreign bool) []string

// everything is the asking of one who wants to know all.
func everything(node, bool) []string { return howKeys }

// ownDomid asks for the domain that we are in: the relative path "domid"
// resolves under our own home.
func ownDomid(ctx context.Context, s Store) (string, error) {
	vs, err := s.ReadAll(ctx, []string{"domid"})
	if err != nil {
		return "", err
	}
	if errors.Is(vs[0].Err, fs.ErrNotExist) {
		return "0", nil // a control domain whose toolstack wrote no node for it
	}
	return string(vs[0].Data), vs[0].Err
}

// scanStore reads every backend node of every kind, of every domain. Of howKeys it
// reads those that more gives for a node. The error is for a store that cannot be
// asked; single paths that cannot be read are in the scan.
func scanStore(ctx context.Context, store Store, self string, more asking) (*storeScan, error) {
	r := newStoreReader(ctx, store, self, more)
	r.domains()
	r.backends(r.homes())
	r.toolstack()
	for _, ns := range [][]node{r.scan.nodes, r.scan.shares} {
		slices.SortFunc(ns, func(a, b node) int { return cmp.Compare(a.path, b.path) })
	}
	return r.scan, r.err
}

// scanDisks reads the nodes of some disks of our own backend, whose they are, and
// the claims.
func scanDisks(ctx context.Context, store Store, self string, dirs []string) (*storeScan, error) {
	r := newStoreReader(ctx, store, self, everything)
	r.domains()
	r.claims(r.children([]string{claimsDir(self)}))
	var owners []string
	for _, n := range r.nodesAt(dirs, "backend") {
		r.keep(n)
		owners = append(owners, n.domid)
	}
	r.names(owners, nil)
	r.names(slices.Collect(maps.Values(r.scan.targets)), nil)
	return r.scan, r.err
}

func newStoreReader(ctx context.Context, store Store, self string, more asking) *storeReader {
	return &storeReader{ctx: ctx, store: store, more: more, scan: &storeScan{self: self, exists: map[string]bool{}, names: map[string]string{}, targets: map[string]string{}, foreign: map[string][]node{}}}
}

// domains lists the domains that there are.
func (r *storeReader) domains() {
	r.scan.domains = slices.DeleteFunc(r.list(domainsDir), func(d string) bool { return d == xenstore.ClaimDomid })
	for _, d := range r.scan.domains {
		r.scan.exists[d] = true
	}
}

type storeReader struct {
	ctx   context.Context
	store Store
	more  asking
	scan  *storeScan
	err   error // the store's; nothing more is asked once it is set
}

func (r *storeReader) list(dir string) []string { return r.listAll([]string{dir})[dir] }

// listAll lists many directories at once. One that is not there is empty.
func (r *storeReader) listAll(dirs []string) map[string][]string {
	out := map[string][]string{}
	if r.err != nil || len(dirs) == 0 {
		return out
	}
	ls, err := r.store.ListAll(r.ctx, dirs)
	if err != nil {
		r.err = err
		return out
	}
	for _, l := range ls {
		if l.Err != nil && !errors.Is(l.Err, fs.ErrNotExist) {
			r.scan.blind = append(r.scan.blind, storeBlind{l.Path, l.Err})
		}
		out[l.Path] = l.Names
	}
	return out
}

// children lists dirs and gives the full paths of what is in them.
func (r *storeReader) children(dirs []string) []string {
	names := r.listAll(dirs)
	var out []string
	for _, d := range dirs {
		for _, n := range names[d] {
			out = append(out, d+"/"+n)
		}
	}
	return out
}

func (r *storeReader) readAll(paths []string) map[string]string {
	out := map[string]string{}
	if r.err != nil || len(paths) == 0 {
		return out
	}
	vs, err := r.store.ReadAll(r.ctx, paths)
	if err != nil {
		r.err = err
		return out
	}
	for _, v := range vs {
		switch {
		case v.Err == nil:
			out[v.Path] = string(v.Data)
		case !errors.Is(v.Err, fs.ErrNotExist):
			r.scan.blind = append(r.scan.blind, storeBlind{v.Path, v.Err})
		}
	}
	return out
}

// homes reads what the domains are called, and gives the directories of backends
// of those that have one.
func (r *storeReader) homes() (backends []string) {
	var homes []string
	for _, d := range r.scan.domains {
		homes = append(homes, domainsDir+"/"+d)
	}
	present := r.listAll(homes)
	r.names(r.scan.domains, present)
	for _, home := range homes {
		if mayHave(present, home, "backend") {
			backends = append(backends, home+"/backend")
		}
	}
	if own := domainsDir + "/" + r.scan.self + "/backend"; !slices.Contains(backends, own) {
		backends = append(backends, own)
	}
	return backends
}

// mayHave tells whether a directory has a key, as it was listed. One of which
// nothing was listed may have it.
func mayHave(present map[string][]string, dir, key string) bool {
	return len(present[dir]) == 0 || slices.Contains(present[dir], key)
}

// names reads what domains are called, and which of them are stub domains
// (xenstore-paths(7), /local/domain/$DOMID/target). present is what was listed of
// their homes.
func (r *storeReader) names(domids []string, present map[string][]string) {
	var paths []string
	for _, d := range domids {
		for _, key := range []string{"name", "target"} {
			if home := domainsDir + "/" + d; mayHave(present, home, key) {
				paths = append(paths, home+"/"+key)
			}
		}
	}
	for p, value := range r.readAll(paths) {
		if domid := path.Base(path.Dir(p)); path.Base(p) == "name" {
			r.scan.names[domid] = value
		} else {
			r.scan.targets[domid] = value
		}
	}
}

// backends reads /local/domain/<be>/backend/<kind>/<domid>/<devid> of every
// domain, whatever the kinds are called. A kind that has none of the keys of a
// disk is none.
func (r *storeReader) backends(homes []string) {
	for _, n := range r.nodesAt(r.claims(r.children(r.children(r.children(homes)))), "backend") {
		switch {
		case n.server == r.scan.self:
			r.keep(n)
		case n.isDisk():
			r.scan.foreign[n.server] = append(r.scan.foreign[n.server], n)
		}
	}
}

func (r *storeReader) keep(n node) {
	if n.isDisk() {
		r.scan.nodes = append(r.scan.nodes, n)
	} else {
		r.scan.shares = append(r.scan.shares, n)
	}
}

// toolstack reads libxl's own copies, /libxl/<domid>/device/<kind>/<devid>: the
// guest cannot change them, and they stay when a backend directory is lost. Of a
// copy whose backend directory was read nothing else is.
func (r *storeReader) toolstack() {
	var homes []string
	for _, d := range r.list("/libxl") {
		homes = append(homes, "/libxl/"+d+"/device")
	}
	dirs := r.children(r.children(homes))
	var links []string
	for _, d := range dirs {
		links = append(links, d+"/backend")
	}
	backends := r.readAll(links)
	known := map[string]bool{}
	for _, n := range slices.Concat(r.scan.nodes, r.scan.shares) {
		known[n.path] = true
	}
	dirs = slices.DeleteFunc(dirs, func(d string) bool {
		be := backends[d+"/backend"]
		p := strings.Split(be, "/")
		servedByAnother := len(p) > 3 && p[1] == "local" && p[3] != r.scan.self
		return known[be] || servedByAnother
	})
	for _, n := range r.nodesAt(dirs, "libxl") {
		r.keep(n)
	}
}

// nodesAt reads the keys of the given directories and keeps those of disks and
// of what else has a path. They are listed first: most are network cards and
// consoles, and have none of the keys.
func (r *storeReader) nodesAt(dirs []string, source string) []node {
	present := r.listAll(dirs)
	nodes := make([]node, len(dirs))
	for i, d := range dirs {
		n := node{path: d, source: source, server: r.scan.self, keys: map[string]string{}, images: map[string][]string{}}
		parts := strings.Split(d, "/")
		n.devid = parts[len(parts)-1]
		if source == "libxl" {
			n.kind, n.domid = parts[len(parts)-2], parts[2]
		} else {
			n.kind, n.domid, n.server = parts[len(parts)-3], parts[len(parts)-2], parts[3]
		}
		nodes[i] = n
	}
	r.fill(nodes, present, func(node) []string { return whatKeys })
	nodes = slices.DeleteFunc(nodes, func(n node) bool {
		_, shared := n.get("path")
		return !shared && !n.isDisk()
	})
	for _, n := range nodes {
		for _, k := range whatKeys {
			if v, ok := n.get(k); ok && k != "physical-device" {
				n.images[k] = imagePaths(v)
			}
		}
	}
	r.fill(nodes, present, func(n node) []string { return r.more(n, n.server != r.scan.self) })
	return nodes
}

// fill reads those of the keys that want gives for a node that are there.
func (r *storeReader) fill(nodes []node, present map[string][]string, want func(node) []string) {
	var paths []string
	for _, n := range nodes {
		for _, k := range want(n) {
			if slices.Contains(present[n.path], k) {
				paths = append(paths, n.path+"/"+k)
			}
		}
	}
	values := r.readAll(paths)
	for _, n := range nodes {
		for _, k := range want(n) {
			if v, ok := values[n.path+"/"+k]; ok {
				n.keys[k] = v
			}
		}
	}
}

// isDisk tells a disk from what else a domain can have.
func (n node) isDisk() bool {
	_, ok := n.get("physical-device")
	return ok || slices.ContainsFunc(pathKeys, func(k string) bool { _, ok := n.get(k); return ok })
}

// lives reports whether the domain exists. When that cannot be told, it does.
func (s *storeScan) lives(domid string) bool {
	return s.exists[domid] || slices.ContainsFunc(s.blind, func(b storeBlind) bool { return b.path == domainsDir })
}

// plugged reads what the disks of some domains are called inside of them. A disk
// whose name is not said is called "".
func (s *storeScan) plugged(ctx context.Context, store Store, domids map[string]bool) (map[string][]string, error) {
	ctx, stop := context.WithTimeout(ctx, storeLimit)
	defer stop()
	var paths, owners []string
	for _, n := range s.nodes {
		if domids[n.domid] {
			paths, owners = append(paths, n.path+"/dev"), append(owners, n.domid)
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	vs, err := store.ReadAll(ctx, paths)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for i, v := range vs {
		out[owners[i]] = append(out[owners[i]], string(v.Data))
	}
	return out, nil
}

// hasDevice tells whether the node that the kernel calls nodename is there and
// gives the same device.
func (s *storeScan) hasDevice(nodename string, id ID) bool {
	return slices.ContainsFunc(s.nodes, func(n node) bool {
		return n.source == "backend" && n.nodename() == nodename && n.deviceID() == id
	})
}

// owner is the domain that a disk belongs to: a stub domain's disks are those of
// the domain that it serves.
func (s *storeScan) owner(domid string) string {
	if target, ok := s.targets[domid]; ok {
		return target
	}
	return domid
}

// name is the domain's name for a person, quoted where it must be.
func (s *storeScan) name(domid string) string {
	owner := s.owner(domid)
	n := s.names[owner]
	switch {
	case owner == domid && n != "":
		return quote(n)
	case owner == domid:
		return "no name"
	case n != "":
		return "stub domain of " + quote(n)
	}
	return "stub domain of domain " + quote(owner)
}

// domainName is the name of the disk's owner as it stands in xenstore.
func (s *storeScan) domainName(domid string) string { return s.names[s.owner(domid)] }

// key names the domain in an override: two may have one name.
func (s *storeScan) key(domid string) string {
	if n := s.names[domid]; n != "" {
		return n + "." + domid
	}
	return "domain." + domid
}

func (n node) get(key string) (string, bool) {
	v, ok := n.keys[key]
	return v, ok
}

// show prints a key as a refusal shows it.
func (n node) show(key string) string { return key + " = " + quote(n.keys[key]) }

// dev is the disk's name inside the domain.
func (n node) dev() string {
	if d := n.keys["dev"]; d != "" {
		return quote(d)
	}
	return "device " + quote(n.devid)
}

// nodename is the node as sysfs names it.
func (n node) nodename() string {
	return fmt.Sprintf("backend/%s/%s/%s", n.kind, n.domid, n.devid)
}

// entry is the node's name in /sys/bus/xen-backend/devices.
func (n node) entry() string { return fmt.Sprintf("%s-%s-%s", n.kind, n.domid, n.devid) }

// deviceID is the device that the node gives by number; the zero ID if none.
func (n node) deviceID() ID {
	id, err := parseHexDevice(n.keys["physical-device"])
	if err != nil {
		return ID{}
	}
	return id
}

// paths gives every absolute path that a key of the node can mean.
func (n node) paths(key string) []string { return n.images[key] }

// imagePaths gives every absolute path that the text of a disk can mean. A vbd's
// params is the path itself, a bare name means one under /dev (Xen's block
// script), a qdisk's is "aio:/path" or "qcow2:/path", and a custom script's text
// may hold paths anywhere between separators.
func imagePaths(text string) []string {
	// A C program does not see what follows a NUL, nor a shell script the ends
	// of lines behind the text.
	v, _, _ := strings.Cut(text, "\x00")
	if v == "" {
		return nil
	}
	var out []string
	add := func(p string) {
		for _, p := range []string{p, strings.TrimRight(p, "\n")} {
			if strings.HasPrefix(p, "/") && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	for rest, more := v, true; more; {
		var head string
		add(rest)
		// A colon behind a slash is a part of it: disk/by-path/pci-0000:00:1f.2-ata-1.
		if begin, _, _ := strings.Cut(rest, "/"); begin != "" && !strings.Contains(begin, ":") {
			add("/dev/" + rest)
		}
		head, rest, more = strings.Cut(rest, ":")
		add(head)
	}
	for _, p := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(":,=\"'{} ", r) }) {
		add(p)
	}
	return out
}
