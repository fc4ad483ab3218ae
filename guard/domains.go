package guard

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"imgward/guard/domcfg"
	"imgward/guard/hostfs"
)

// A DomainDisk is one image of one domain, or a domain that has none. Text in it
// is as it stands in xenstore and in descriptions: whoever prints it quotes it.
type DomainDisk struct {
	Domain string      // its name; empty when it has none
	Domid  string      // its number; empty when it does not run
	State  DomainState // what is known of the domain
	Device string      // the disk's name in the domain, or its number, where one is said
	Mode   string      // "w", "r", or what else is said there
	Image  string      // the image as xenstore or the description spells it
	Below  []string    // what the image lies on, down to the physical disks
	Source string      // where that is said
}

// DomainState tells where a domain shows. xenstore does not say whether one is
// paused, or has shut down and was kept.
type DomainState string

const (
	Running    DomainState = "running"    // it exists, be it paused or shut down
	Gone       DomainState = "gone"       // it does not exist, and its disk's node was left behind
	Saved      DomainState = "saved"      // its memory lies in a file
	Configured DomainState = "configured" // a description names the image, and no domain of the name runs with it
)

var domainStates = []DomainState{Running, Gone, Saved, Configured}

// Domains lists every domain of this host and every image that it has, with what
// the image lies on. What could not be looked at is returned beside that, as
// findings whose Detail says it; the list is then not whole.
func Domains(ctx context.Context, host *Host) ([]DomainDisk, []Finding) {
	s := &Sheet{collector: xen{}.Name()}
	l := &domainLook{host: host, s: s, stack: readStack(ctx, host.FS, s.Blind), has: map[string]bool{}, domids: map[string]string{}}
	ms, err := readMounts(host, "/proc/self")
	if err != nil {
		s.Blind("/proc/self/mountinfo", err)
	}
	l.mounts = ms
	if host.Store == nil {
		(&xenLook{host: host, s: s}).withoutStore()
	} else if scan, err := settledScan(ctx, host.Store, everything); err != nil {
		s.Blind("xenstore", err)
	} else {
		l.running(scan)
	}
	l.described(ctx)
	slices.SortStableFunc(l.out, compareDomainDisks)
	blind, _ := s.seal()
	return l.out, blind
}

func compareDomainDisks(a, b DomainDisk) int {
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			return -1
		}
		return n
	}
	return cmp.Or(
		cmp.Compare(slices.Index(domainStates, a.State), slices.Index(domainStates, b.State)),
		cmp.Compare(number(a.Domid), number(b.Domid)), cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Source, b.Source),
	)
}

type domainLook struct {
	host   *Host
	s      *Sheet
	stack  *stack
	mounts []mount
	out    []DomainDisk
	has    map[string]bool   // the images of running domains, as key makes them
	domids map[string]string // the numbers of running domains
}

// key names an image of a domain, by what it is where that can be told.
func (l *domainLook) key(domain, image string) string {
	if st, err := l.host.FS.Stat(image); err == nil {
		if id, ok := idOf(st); ok {
			image = fmt.Sprint(id)
		}
	}
	return domain + "\x00" + image
}

// running lists what xenstore knows.
func (l *domainLook) running(scan *storeScan) {
	for _, b := range scan.blind {
		l.s.Blind(b.path, b.err)
	}
	for domid, name := range scan.names {
		l.domids[name] = domid
	}
	seen := map[string]bool{}
	for _, be := range slices.Sorted(maps.Keys(scan.foreign)) {
		for _, n := range scan.foreign[be] {
			served := "domain " + be
			if name := scan.names[be]; name != "" {
				served += " (" + name + ")"
			}
			l.add(scan, n, []string{"storage of " + served})
			seen[n.domid] = true
		}
	}
	for _, n := range slices.Concat(scan.nodes, scan.shares) {
		below := l.below(l.start(n)...)
		if n.isDisk() || len(below) > 0 {
			l.add(scan, n, below)
			seen[n.domid] = true
		}
	}
	for _, domid := range scan.domains {
		if !seen[domid] {
			l.out = append(l.out, DomainDisk{Domain: scan.names[domid], Domid: domid, State: Running, Source: domainsDir + "/" + domid})
		}
	}
}

func (l *domainLook) add(scan *storeScan, n node, below []string) {
	d := DomainDisk{
		Domain: scan.names[n.domid], Domid: n.domid, State: Running, Below: below, Source: n.path, Mode: n.keys["mode"],
		Device: cmp.Or(n.keys["dev"], n.devid),
		Image:  cmp.Or(n.keys["params"], n.keys["path"], n.keys["physical-device-path"], n.keys["physical-device"]),
	}
	if !n.isDisk() {
		d.Device = n.kind + "/" + n.devid // numbers of disks and of other devices are not the same
	}
	if !scan.lives(n.domid) {
		d.State = Gone
	}
	l.out = append(l.out, d)
	for _, key := range append(slices.Clone(pathKeys), "path") {
		for _, p := range n.paths(key) {
			l.has[l.key(d.Domain, p)] = true
		}
	}
}

// described lists what descriptions of domains name beside that: the images of
// domains that are saved or do not run, and those that a domain that runs does
// not have now. A domain of another hypervisor runs when libvirt records it so.
func (l *domainLook) described(ctx context.Context) {
	inv := readInventory(ctx, l.host, ID{})
	for _, b := range inv.blind {
		l.s.Blind(b.where, b.err)
	}
	for _, live := range []bool{true, false} {
		for _, d := range inv.disks {
			if d.Live != live || d.kind == domcfg.Boot || !d.Saved && l.has[l.key(d.Domain, d.Path)] {
				continue
			}
			row := DomainDisk{Domain: d.Domain, State: Configured, Device: d.dev, Image: d.Path, Source: d.Source}
			switch {
			case d.Live:
				row.State, row.Domid = Running, l.domids[d.Domain]
			case d.Saved:
				row.State = Saved
			}
			if at, ok := l.look(d.Path); ok {
				row.Below = l.below(at)
			}
			l.out = append(l.out, row)
			l.has[l.key(d.Domain, d.Path)] = true
		}
	}
}

// start gives what a node's disk is: the device that it has by number, else what
// its paths lead to.
func (l *domainLook) start(n node) []rung {
	if id := n.deviceID(); id != (ID{}) {
		return []rung{{id: id}}
	}
	var out []rung
	for _, key := range slices.Concat(pathKeys, []string{"path"}) {
		for _, p := range n.paths(key) {
			if at, ok := l.look(p); ok && !slices.ContainsFunc(out, func(o rung) bool { return o.id == at.id }) {
				out = append(out, at)
			}
		}
	}
	return out
}

// A rung is a device, a file, or a directory by its own numbers.
type rung struct {
	id   ID
	path string // of a file
}

// look follows a path to what it leads to, by its path without links. Of what is
// not there, and what cannot be looked at, it is not known what it lies on.
func (l *domainLook) look(p string) (rung, bool) {
	h, err := l.host.FS.Open(p)
	if err != nil {
		if !nothingThere(err) {
			l.s.Blind(p, err)
		}
		return rung{}, false
	}
	defer h.Close()
	id, ok := idOf(h.Stat)
	if h.Stat.Type == hostfs.Directory {
		id, ok = FileID(h.Stat.Dev, h.Stat.Ino), true
	}
	return rung{id, h.Real}, ok
}

// below names what lies under some rungs, and them, level by level: a device under its
// path, a file with the file system that it is in. What is on one level is
// joined by a plus sign.
func (l *domainLook) below(at ...rung) []string {
	var out []string
	for depth := 0; len(at) > 0 && depth < maxDepth; depth++ {
		names := map[string]bool{}
		var next []rung
		for _, p := range at {
			name, under := l.level(p)
			names[name] = true
			for _, u := range under {
				if !slices.Contains(next, u) {
					next = append(next, u)
				}
			}
		}
		out = append(out, strings.Join(slices.Sorted(maps.Keys(names)), " + "))
		at = next
	}
	return out
}

// level names one rung and gives those that it lies on.
func (l *domainLook) level(p rung) (name string, under []rung) {
	d := l.stack.devices[p.id]
	switch {
	case p.id.Kind == KindBlock && d == nil:
		return "device " + p.id.String(), nil
	case p.id.Kind == KindBlock:
		for _, lower := range d.under {
			at := rung{id: lower.lower}
			if d.kind == "loop" && lower.lower.Kind == KindFile {
				file, err := attribute(l.host.FS, "/sys/block/"+d.name+"/loop/backing_file")
				if err != nil {
					file = lower.lower.String()
				}
				at.path = file
			}
			if !slices.Contains(under, at) {
				under = append(under, at)
			}
		}
		return d.path(), under
	}
	m, ok := l.mountOf(p)
	if !ok {
		return p.path, nil
	}
	if l.stack.devices[BlockID(m.dev)] != nil {
		return p.path + " (" + m.fstype + " on " + m.point + ")", []rung{{id: BlockID(m.dev)}}
	}
	// A file system with a device number of its own names the device, as btrfs
	// does, or something that is none of this host's.
	if strings.HasPrefix(m.source, "/") {
		if at, ok := l.look(m.source); ok && at.id.Kind == KindBlock {
			return p.path + " (" + m.fstype + " on " + m.point + ")", []rung{{id: at.id}}
		}
	}
	return fmt.Sprintf("%s (%s on %s, from %s)", p.path, m.fstype, m.point, m.source), nil
}

// mountOf finds the mount through which a file is reached: the last of those
// that lie deepest on its path and have its device number; where none has, as on
// btrfs, of all on its path.
func (l *domainLook) mountOf(p rung) (mount, bool) {
	var best mount
	score := -1
	for _, m := range l.mounts {
		if p.path != m.point && !strings.HasPrefix(p.path, strings.TrimSuffix(m.point, "/")+"/") {
			continue
		}
		n := len(m.point)
		if m.dev == p.id.Dev {
			n += 1 << 16 // paths are shorter (limits.h, PATH_MAX)
		}
		if n >= score {
			best, score = m, n
		}
	}
	return best, score >= 0 && path.IsAbs(p.path)
}
