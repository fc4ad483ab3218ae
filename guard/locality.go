package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// locality tells whether only this host can use the storage that the target is
// on: every other collector sees this host alone. It asks for a positive "only
// here". A file is followed to its file system (mountinfo, proc(5)), that to its
// devices (btrfs in /sys/fs/btrfs, since Linux 3.14), those down the block stack
// to disks, and a disk is known by its place in sysfs (the link in /sys/block,
// since 2.6.24), an NVMe disk by its controllers' transport (since 4.8), one of a
// RAID controller by the driver's name in /sys/class/scsi_host. What this host
// exports over NFS (exports(5), exportfs(8)) is not its own alone either.
//
// It does not see whether another host does use the storage, what this host
// shares by other means than the kernel's NFS server, and a disk that two hosts
// reach over directly attached SAS or that a hypervisor gives to two machines.
type locality struct{}

func (locality) Name() string { return "locality" }

func (locality) Reads() []string {
	return []string{
		"/proc/self/mountinfo", "/sys/block/*", "/sys/block/*/loop/backing_file",
		"/sys/block/*/device", "/sys/block/*/device/transport", "/sys/block/*/device/nvme*/transport", "/sys/class/scsi_host/*/proc_name",
		"/sys/fs/btrfs", "/sys/fs/btrfs/*/devices", "/sys/fs/btrfs/*/devices/*/dev",
		etab, exportsFile, exportsDir, exportsDir + "/*", statementsFile,
		"/dev/disk/by-uuid", "/dev/disk/by-uuid/*", "/sys/block/*/wwid", "/sys/block/*/device/wwid", "/sys/block/*/serial",
		"/sys/block/*/device/serial", "identity",
	}
}

// Collect implements [Collector].
func (locality) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	w := &localWalk{ctx: ctx, host: host, t: t, s: s, seen: map[string]bool{}}
	switch t.ID.Kind {
	case KindFile:
		w.file(t.ID, t.Real, nil)
	case KindBlock:
		w.device(t.ID, nil)
	}
	w.settle()
}

// A localWalk goes from the target down to all storage that it is on.
type localWalk struct {
	ctx  context.Context
	host *Host
	t    *Target
	s    *Sheet

	mounts []mount
	seen   map[string]bool
	doubts []doubt
}

// A doubt is storage that is not known to be only this host's, and what the walk
// came by on its way there, from the target down: a statement about any of that
// settles it.
type doubt struct {
	finding Finding
	trail   []storage
}

// storage is a mount or a device that the target is on.
type storage struct {
	mount  *mount
	device *device
}

func (w *localWalk) doubt(f Finding, trail []storage) {
	if f.Relation == Unrelated {
		f.Relation = Below
	}
	if w.t.ID.Kind == KindFile && len(trail) > 0 {
		fstype, last := trail[0].mount.fstype, trail[len(trail)-1]
		pool := slices.Contains(poolFS, fstype)
		f.besideDD = (pool || slices.Contains(deviceFS, fstype)) && last.device != nil || pool && f.Code == LocalityUnknown
	}
	w.doubts = append(w.doubts, doubt{f, trail})
}

// again tells whether the walk was at this place on this way before.
func (w *localWalk) again(id ID, trail []storage) bool {
	key := fmt.Sprint(id)
	for _, st := range trail {
		key += fmt.Sprintf(" %p %p", st.mount, st.device)
	}
	was := w.seen[key]
	w.seen[key] = true
	return was
}

// file follows a file, by its identity and the path under which it was found,
// to its file system and what that is on.
func (w *localWalk) file(id ID, name string, trail []storage) {
	if w.again(id, trail) {
		return
	}
	const table = "/proc/self/mountinfo"
	if w.mounts == nil {
		b, err := w.host.FS.ReadFile(table)
		if err == nil {
			w.mounts, err = parseMountinfo(string(b))
		}
		if err != nil {
			w.s.Blind(table, err)
			return
		}
	}
	m := mountOf(w.mounts, id.Dev, name)
	if m == nil {
		w.s.Blind(table, fmt.Errorf("the file system of %s is not mounted here", id))
		return
	}
	trail = append(slices.Clip(trail), storage{mount: m})
	w.nfs(m, name, trail)
	f := Finding{Subject: quote(m.fstype) + " on " + quote(m.point), Key: m.point, Source: table + ": " + quote(m.line)}
	switch {
	case slices.Contains(privateFS, m.fstype):
	case sharedFS(m.fstype):
		f.Code, f.Detail = LocalityShared, "is storage that other hosts can use"
		w.doubt(f, trail)
	case slices.Contains(deviceFS, m.fstype) && unix.Major(m.dev) != 0:
		w.device(BlockID(m.dev), trail)
	case m.fstype == "btrfs":
		w.btrfs(m, trail)
	default:
		f.Code, f.Detail = LocalityUnknown, "is a file system of which it is not known whether other hosts can use its storage"
		w.doubt(f, trail)
	}
}

// privateFS are file systems that lie in this host's memory, or, as the layers
// of overlayfs do, belong to one mount.
var privateFS = []string{"tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs", "overlay"}

// deviceFS are file systems that only one host may have mounted, so that they
// are as local as the block device they are on.
var deviceFS = []string{
	"ext2", "ext3", "ext4", "xfs", "f2fs", "jfs", "reiserfs", "nilfs2", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk",
	"udf", "iso9660", "squashfs", "erofs",
}

// poolFS are file systems of one host as well, which hold several devices together.
var poolFS = []string{"btrfs", "zfs", "bcachefs"}

// sharedFS tells file systems that are made to be used by several hosts, or, as
// those of FUSE, may have anything behind them.
func sharedFS(fstype string) bool {
	return strings.HasPrefix(fstype, "nfs") || strings.HasPrefix(fstype, "fuse.") || slices.Contains([]string{
		"fuse", "cifs", "smb3", "smbfs", "ceph", "gfs2", "ocfs2", "lustre", "glusterfs", "9p", "virtiofs", "afs", "orangefs", "gpfs", "beegfs",
	}, fstype)
}

// mountOf gives the mount through which a file of a file system with this device
// number is reached as name, or another mount of the same file system. On btrfs
// and overlayfs a file's number is not its mount's; there the mount is the one
// that covers the name. It is nil when the file's mount is not in the table.
func mountOf(table []mount, dev uint64, name string) *mount {
	var exact, other, covering *mount
	for i := range table {
		m := &table[i]
		covers := within(name, m.point)
		if covers && (covering == nil || len(m.point) >= len(covering.point)) {
			covering = m // the later of two at one point hides the earlier
		}
		switch {
		case m.dev != dev:
		case covers && (exact == nil || len(m.point) >= len(exact.point)):
			exact = m
		default:
			other = m
		}
	}
	switch {
	case exact != nil:
		return exact
	case other != nil:
		return other
	case covering != nil && (covering.fstype == "btrfs" || covering.fstype == "overlay"):
		return covering
	}
	return nil
}

// within tells whether name is dir or below it.
func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// btrfs follows a mount of btrfs to all devices of the file system, which is
// found by the one that the mount names as its source.
func (w *localWalk) btrfs(m *mount, trail []storage) {
	const dir = "/sys/fs/btrfs"
	st, err := w.host.FS.Stat(m.source)
	if err != nil {
		w.s.Blind(m.source, err)
		return
	}
	entries, err := w.host.FS.ReadDir(dir)
	if err != nil {
		w.s.Blind(dir, err)
		return
	}
	for _, e := range entries {
		ids, err := w.members(dir + "/" + e + "/devices")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue // "features", and what was unmounted meanwhile
		}
		if err != nil {
			w.s.Blind(dir+"/"+e+"/devices", err)
			continue
		}
		if slices.Contains(ids, BlockID(st.Rdev)) {
			for _, id := range ids {
				w.device(id, trail)
			}
			return
		}
	}
	w.s.Blind(dir, fmt.Errorf("no file system there has the device %s", quote(m.source)))
}

func (w *localWalk) members(dir string) ([]ID, error) {
	names, err := w.host.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []ID
	for _, n := range names {
		r := stackReader{root: w.host.FS}
		rdev, err := r.dev(path.Join(dir, n))
		if err != nil {
			return nil, err
		}
		out = append(out, BlockID(rdev))
	}
	return out, nil
}

// device follows a device down the stack to disks.
func (w *localWalk) device(id ID, trail []storage) {
	if w.again(id, trail) || w.ctx.Err() != nil { // Examine says that the time is over
		return
	}
	if len(trail) > maxDepth {
		w.s.Blind("/sys/block", fmt.Errorf("more than %d layers under the target", maxDepth))
		return
	}
	d := w.t.stack.devices[id]
	if d == nil {
		if len(trail) > 0 { // of the target itself the look says so
			w.s.Blind("/sys/block", fmt.Errorf("device %s is not there", id))
		}
		return
	}
	trail = append(slices.Clip(trail), storage{device: d})
	if d.isDisk() || d.kind == "disk" && !strings.HasPrefix(d.name, "bcache") {
		w.disk(d, trail)
		return
	}
	for _, l := range d.under {
		if l.lower.Kind == KindFile {
			w.backing(d, l.lower, trail)
		} else {
			w.device(l.lower, trail)
		}
	}
	if len(d.under) == 0 && d.kind != "loop" { // a loop device on nothing has no bytes
		f := w.onDisk(d)
		f.Code, f.Detail = LocalityUnknown, "is a device of which it is not known what it stands on, and so whether other hosts can use it"
		w.doubt(f, trail)
	}
}

// backing follows a loop device to its file. The path that the kernel shows may
// be another namespace's.
func (w *localWalk) backing(d *device, file ID, trail []storage) {
	attr := "/sys/block/" + d.name + "/loop/backing_file"
	name, err := attribute(w.host.FS, attr)
	if err != nil {
		w.s.Blind(attr, err)
		return
	}
	w.file(file, name, trail)
}

// disk judges a disk by its place in sysfs.
func (w *localWalk) disk(d *device, trail []storage) {
	f := w.onDisk(d)
	link, err := w.host.FS.Readlink(f.Source)
	if err != nil {
		w.s.Blind(f.Source, err)
		return
	}
	f.Source += ": " + quote(link)
	where, what := reachOf(link)
	switch where {
	case nvmeReach:
		where, what, err = nvmeTransport(w.host.FS, d.name)
	case scsiReach:
		where, what, err = scsiDriver(w.host.FS, link)
	}
	switch {
	case err != nil:
		w.s.Blind("/sys/block/"+d.name, err)
	case where == onlyHere:
	case where == sharedReach:
		f.Code, f.Detail = LocalityShared, "is "+what+", which other hosts can use"
		w.doubt(f, trail)
	default:
		f.Code, f.Detail = LocalityUnknown, "is "+what+", of which it is not known whether other hosts can use it"
		w.doubt(f, trail)
	}
}

func (w *localWalk) onDisk(d *device) Finding {
	return Finding{Relation: w.t.Relate(d.id), Subject: d.label(), Key: d.name, Source: "/sys/block/" + d.name}
}

// settle writes the doubts to the sheet, each with what the operator stated of
// the storage on the way to it.
func (w *localWalk) settle() {
	if len(w.doubts) == 0 {
		return
	}
	said, err := Statements(w.host)
	if err != nil {
		w.s.Blind(statementsPath(w.host), err)
	}
	for _, d := range w.doubts {
		f, void := d.finding, ""
		for _, st := range d.trail {
			for _, th := range thingsOf(w.ctx, w.host, w.t.stack, st) {
				if f.Remedy == "" {
					f.Remedy = "if only this host uses it, say so with \"imgward trust-local " + quote(th.Name) + "\""
				}
				for _, s := range said {
					switch day := s.When.UTC().Format(time.DateOnly); {
					case s.Kind != th.Kind:
					case s.Identity == th.Identity:
						f.Vouched = quote(s.Who) + " said on " + day + " that only this host uses " + quote(s.Name)
					case s.Name == th.Name:
						void = fmt.Sprintf("; what %s said of %s on %s is void, since it was %s then and is %s now",
							quote(s.Who), quote(s.Name), day, quote(s.Identity), quote(th.Identity))
					}
				}
			}
		}
		if f.Vouched == "" {
			f.Detail += void
		}
		if f.Remedy == "" {
			f.Remedy = "make sure that no other host uses it"
		}
		w.s.Found(f)
	}
}
