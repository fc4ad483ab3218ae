package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"imgward/guard/hostfs"
)

// xen looks for domains that have the target as a disk, in two places that must
// agree: every backend node in xenstore (xenstore-paths(7), blkif.h), written by
// the toolstack, and /sys/bus/xen-backend (Linux since 2.6.37), the kernel's list
// of what its block backend has open. It compares device and inode numbers, and
// also names: a path that a node names belongs to that node's domain even when
// something else lies there now. A stub domain's disks are those of the domain
// that it serves.
//
// The claims of imgwards that write to block devices are no domains' disks. They
// are reported as what they are, but for our own.
//
// It does not see a domain that is saved or about to be restarted, which has no
// nodes, and it does not compare disks that another domain serves.
type xen struct{}

func (xen) Name() string { return "xen" }

func (xen) Reads() []string {
	return []string{
		"/proc/xen/capabilities", "/sys/hypervisor/type",
		"/sys/bus/xen-backend/devices", "/sys/bus/xen-backend/devices/*/physical_device",
		"/sys/bus/xen-backend/devices/*/mode", "/sys/bus/xen-backend/devices/*/nodename",
		"/proc/sys/kernel/random/boot_id", "/proc", "/proc/*/stat", "/proc/*/ns/pid",
		"xenstore",
	}
}

// Collect implements [Collector].
func (xen) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	x := &xenLook{host: host, t: t, s: s}
	var scan *storeScan
	if host.Store == nil {
		x.withoutStore()
	} else if found, err := t.scan(); err != nil {
		s.Blind("xenstore", err)
	} else {
		scan = found
	}
	// After xenstore, so that a disk that is connected there and not here was
	// left behind, and has not come between the two.
	x.kernel = x.readBackends()
	if scan != nil {
		x.judgeStore(scan)
	}
	x.judgeKernel(scan)
	if scan != nil {
		s.Looked(len(scan.domains), "domain")
	}
}

type xenLook struct {
	host   *Host
	t      *Target
	s      *Sheet
	kernel map[string]kernelBackend // by nodename: backend/vbd/1/51712
	listed []string                 // every entry of the kernel's list, disk or not; nil when it could not be read
}

// withoutStore says what it means that there is no xenstore: nothing where no
// hypervisor runs, blindness on a Xen host.
func (x *xenLook) withoutStore() {
	if x.host.StoreErr != nil {
		x.s.Blind("xenstore", x.host.StoreErr)
		return
	}
	caps, err := x.host.FS.ReadFile("/proc/xen/capabilities")
	if err == nil && strings.Contains(string(caps), "control_d") {
		x.s.Blind("xenstore", errors.New("this is a Xen control domain, and no xenstore answers"))
		return
	}
	hv, hvErr := x.host.FS.ReadFile("/sys/hypervisor/type")
	switch {
	case hvErr == nil && strings.TrimSpace(string(hv)) == "xen":
		x.s.Blind("xenstore", errors.New("the system runs on Xen, and no xenstore answers"))
	case hvErr != nil && !errors.Is(hvErr, fs.ErrNotExist):
		x.s.Blind("/sys/hypervisor/type", hvErr)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		x.s.Blind("/proc/xen/capabilities", err)
	default:
		x.s.Looked(0, "domain")
	}
}

// A kernelBackend is an entry of /sys/bus/xen-backend/devices.
type kernelBackend struct {
	dir      string
	nodename string // backend/vbd/1/51712, relative to the backend domain's home
	device   string // physical_device as it stands there; empty for kinds without one
	mode     string
	id       ID
}

func (x *xenLook) readBackends() map[string]kernelBackend {
	const dir = "/sys/bus/xen-backend/devices"
	names, err := x.host.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no backend driver is loaded
	}
	if err != nil {
		x.s.Blind(dir, err)
		return nil
	}
	x.listed = names
	out := map[string]kernelBackend{}
	for _, name := range names {
		b := kernelBackend{dir: dir + "/" + name}
		if b.device, err = attribute(x.host.FS, b.dir+"/physical_device"); errors.Is(err, fs.ErrNotExist) {
			continue // no block device, or gone since the listing
		}
		if err == nil {
			b.id, err = parseHexDevice(b.device)
		}
		if err != nil {
			x.s.Blind(b.dir+"/physical_device", err)
			continue
		}
		b.mode, err = attribute(x.host.FS, b.dir+"/mode")
		if err != nil {
			b.mode = "w" // unreadable: take the worse
		}
		if b.nodename, err = attribute(x.host.FS, b.dir+"/nodename"); err != nil {
			// vbd-1-51712 says the same, but for the kind.
			b.nodename = "backend/" + strings.ReplaceAll(name, "-", "/")
		}
		out[b.nodename] = b
	}
	return out
}

// parseHexDevice reads the form of physical-device: "fd:0", major and minor in
// hexadecimal, as Xen's block script writes it and blkback prints it.
func parseHexDevice(s string) (ID, error) {
	major, minor, ok := strings.Cut(s, ":")
	ma, err1 := strconv.ParseUint(major, 16, 32)
	mi, err2 := strconv.ParseUint(minor, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return ID{}, fmt.Errorf("%q is not a hexadecimal device number", s)
	}
	return BlockID(hostfs.Mkdev(uint32(ma), uint32(mi))), nil
}

// judgeStore compares every node with the target.
func (x *xenLook) judgeStore(scan *storeScan) {
	for _, p := range scan.blind {
		x.s.Blind(p.path, p.err)
	}
	for _, be := range slices.Sorted(maps.Keys(scan.foreign)) {
		n := len(scan.foreign[be])
		x.s.Found(Finding{
			Code: XenForeign, Subject: fmt.Sprintf("domain %s (%s)", quote(be), scan.name(be)), Key: scan.key(be),
			Detail: "serves " + count(n, "disk") + " that cannot be compared from here",
			Source: "/local/domain/" + quote(be) + "/backend",
		})
	}
	for _, n := range scan.nodes {
		x.judgeNode(scan, n)
	}
	x.judgeShares(scan)
	x.judgeClaims(scan)
}

// judgeNode compares one disk's node with the target, by numbers and by names.
func (x *xenLook) judgeNode(scan *storeScan, n node) {
	k, inKernel := x.kernel[n.nodename()]
	rel := Unrelated
	var why []string
	if dev, ok := n.get("physical-device"); ok {
		id, err := parseHexDevice(dev)
		if err != nil {
			x.s.Blind(n.path+"/physical-device", err)
		} else if r := x.t.Relate(id); r != Unrelated {
			rel, why = r, append(why, n.show("physical-device"))
		}
		if inKernel && err == nil && k.id != id && (x.t.Relate(id) != Unrelated || x.t.Relate(k.id) != Unrelated) {
			x.s.Found(x.about(scan, n, Finding{
				Code: XenDisagree, Relation: Same,
				Detail: "has one device in xenstore and another in the kernel",
				Source: n.path + ": " + n.show("physical-device") + "; " + k.dir + ": physical_device = " + quote(k.device),
				Remedy: "find out which one is right",
			}))
		}
	}
	named := false
	for _, key := range pathKeys {
		for _, p := range n.paths(key) {
			r, err := x.t.reach(scan.paths, p)
			switch {
			case err != nil:
				x.s.Blind(p, err)
				continue
			case r == Same || r == Named:
				named = true
			case r == Unrelated || rel != Unrelated:
				continue // the number has said so
			default:
				rel = r
			}
			if shown := n.show(key); !slices.Contains(why, shown) {
				why = append(why, shown)
			}
		}
	}
	if rel == Unrelated && !named {
		return
	}
	code, detail, remedy := x.state(scan, n, inKernel)
	switch {
	case rel == Unrelated && x.runsFromElsewhere(n):
		rel = Named
		if code == XenConnected || code == XenReadOnly {
			code, detail = XenNamed, "has a disk of this name as "+n.dev()+", though it runs from another file or device"
		}
	case rel == Unrelated:
		rel = Same
	}
	for _, key := range []string{"mode", "state", "online", "hotplug-status"} {
		if v, ok := n.get(key); ok && (key != "online" || v != "1") && (key != "hotplug-status" || v != "connected") {
			why = append(why, n.show(key))
		}
	}
	source := quote(n.path) + ": " + strings.Join(why, ", ")
	if x.abandoned(n) {
		source += "; /sys/bus/xen-backend/devices: no " + quote(n.entry())
	}
	if !inKernel && x.t.held.refuses(n, scan.paths) {
		code, detail, remedy = HoldDenied, "tried to get it as "+n.dev()+", which Xen refuses because of our claim", "let it try again when imgward is done"
	}
	x.s.Found(x.about(scan, n, Finding{Code: code, Relation: rel, Detail: detail + x.t.via(rel, n.deviceID()), Source: source, Remedy: remedy}))
}

// abandoned tells a node that says that it is connected while the kernel, which
// alone writes that, has no backend device for it any more.
func (x *xenLook) abandoned(n node) bool {
	st, _ := n.get("state")
	return n.kind == "vbd" && n.source == "backend" && st == "4" && x.listed != nil && !slices.Contains(x.listed, n.entry())
}

// runsFromElsewhere reports whether the node says by number which device the
// domain has, so that the name alone is not it.
func (x *xenLook) runsFromElsewhere(n node) bool {
	_, ok := n.get("physical-device")
	return ok
}

// state decides what a node that matches the target means.
func (x *xenLook) state(scan *storeScan, n node, inKernel bool) (code Code, detail, remedy string) {
	dev := n.dev()
	mode := "read-write"
	if m, ok := n.get("mode"); ok && !strings.Contains(m, "w") {
		mode = "read-only"
	}
	st, known := n.get("state")
	online, _ := n.get("online")
	hotplug, _ := n.get("hotplug-status")
	_, opened := n.get("physical-device")
	failed := (hotplug == "error" || hotplug == "busy") && !opened
	live := scan.lives(n.domid)
	shut := fmt.Sprintf("shut down domain %s or detach %s", quote(scan.owner(n.domid)), dev)
	switch {
	case !live && inKernel:
		return XenSysfs, "does not exist any more, and the kernel still has its disk " + dev + " open", "wait until the kernel has closed it"
	case x.abandoned(n):
		return XenStale, "is not connected any more as far as the kernel knows, and its node for " + dev + " was left behind", "make sure with \"xl list\" that the domain is gone"
	case !live:
		return XenStale, "does not exist any more, and its node for " + dev + " was left behind", "make sure with \"xl list\" that the domain is gone"
	case failed && !inKernel:
		return XenFailed, "tried to attach it as " + dev + " and failed", "detach it with \"xl block-detach " + shellSafe(n.domid) + " " + shellSafe(n.devid) + "\""
	case known && st == "6" && online == "0":
		return XenClosing, "is closing it (" + dev + ")", "wait a quarter of a minute"
	case mode == "read-only":
		return XenReadOnly, "has it as " + dev + ", read-only, " + stateWord(st), shut
	}
	return XenConnected, "has it as " + dev + ", read-write, " + stateWord(st), shut
}

// stateWord names a XenbusState (io/xenbus.h).
func stateWord(st string) string {
	words := map[string]string{
		"1": "initialising", "2": "waiting to connect", "3": "initialised", "4": "connected", "5": "closing",
		"6": "closed but kept open", "7": "reconfiguring", "8": "reconfigured",
	}
	if w := words[st]; w != "" {
		return w
	}
	return "in a state that could not be read"
}

// about fills in whose node a finding is about.
func (x *xenLook) about(scan *storeScan, n node, f Finding) Finding {
	f.Subject = fmt.Sprintf("domain %s (%s)", quote(n.domid), scan.name(n.domid))
	f.Key, f.Domain = scan.key(n.domid), scan.domainName(n.domid)
	return f
}

// judgeKernel reports what the kernel has open and xenstore does not know of.
// scan is nil when xenstore could not be asked.
func (x *xenLook) judgeKernel(scan *storeScan) {
	for _, name := range slices.Sorted(maps.Keys(x.kernel)) {
		k := x.kernel[name]
		rel := x.t.Relate(k.id)
		if rel == Unrelated {
			continue
		}
		f := Finding{
			Code: XenSysfs, Relation: rel, Subject: "a domain", Key: k.nodename,
			Detail: "has it open, says the kernel" + x.t.via(rel, k.id),
			Source: quote(k.dir) + ": physical_device = " + quote(k.device) + ", mode = " + quote(k.mode),
			Remedy: "shut the domain down",
		}
		if parts := strings.Split(k.nodename, "/"); len(parts) == 4 {
			f.Subject = "domain " + quote(parts[2])
			if scan != nil {
				if scan.hasDevice(k.nodename, k.id) {
					continue // judged with its node, which says the same
				}
				f = x.about(scan, node{domid: parts[2]}, f)
			}
		}
		x.s.Found(f)
	}
	if x.kernel != nil {
		x.s.Looked(len(x.kernel), "open Xen backend")
	}
}
