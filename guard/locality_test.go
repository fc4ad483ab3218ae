package guard

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

func TestDisksByTheirPlace(t *testing.T) {
	for _, tt := range []struct {
		link string
		want reach
	}{
		{"../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", onlyHere},
		{"../devices/pci0000:00/0000:00:04.0/virtio1/block/vda", onlyHere},
		{"../devices/pci0000:00/0000:00:04.0/virtio2/host2/target2:0:0/2:0:0:0/block/sda", onlyHere},
		{"../devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb", onlyHere},
		{"../devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0", onlyHere},
		{"../devices/pci0000:00/0000:04:00.0/host9/port-9:0/end_device-9:0/target9:0:0/9:0:0:0/block/sdi", onlyHere},
		{"../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0/block/pmem0", onlyHere},
		{"../devices/platform/floppy.0/block/fd0", onlyHere},
		{"../devices/virtual/block/zram0", onlyHere},
		{"../devices/virtual/block/ram15", onlyHere},
		{"../devices/virtual/block/nullb0", onlyHere},
		{"../devices/virtual/block/loop7", onlyHere},
		{"../devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb", sharedReach},
		{"../devices/pci0000:00/0000:05:00.0/0000:05:00.0/host4/session2/target4:0:0/4:0:0:0/block/sdc", sharedReach},
		{"../devices/pci0000:3a/0000:3b:00.0/host6/rport-6:0-2/target6:0:0/6:0:0:0/block/sdc", sharedReach},
		{"../devices/pci0000:00/0000:00:04.0/virtio2/host2/rport-2:0-0/target2:0:0/2:0:0:0/block/sda", sharedReach},
		{"../devices/rbd/0/block/rbd0", sharedReach},
		{"../devices/virtual/block/nbd3", sharedReach},
		{"../devices/virtual/block/drbd10", sharedReach},
		{"../devices/virtual/block/etherd!e0.0", sharedReach},
		{"../devices/pci0000:00/0000:04:00.0/host9/port-9:1/expander-9:0/port-9:0:4/end_device-9:0:4/target9:0:5/9:0:5:0/block/sdj", unknownReach},
		{"../devices/vbd-51712/block/xvda", unknownReach},
		{"../devices/virtual/block/zd0", unknownReach},
		{"../devices/virtual/block/tdb", unknownReach},
		{"../devices/virtual/block/ublkb0", unknownReach},
		{"../devices/virtual/block/ramdisk0", unknownReach},
		{"../devices/data1/virtio/block/x", unknownReach},
		{"../devices/pci0000:00/0000:05:00.0/nvme/nvme0/nvme0n1", nvmeReach},
		{"../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", nvmeReach},
		{"../devices/pci0000:00/0000:00:10.0/host2/target2:0:0/2:0:0:0/block/sda", scsiReach},
		{"", unknownReach},
	} {
		if got, what := reachOf(tt.link); got != tt.want || got == sharedReach && what == "" {
			t.Errorf("%s: %d (%s), want %d", tt.link, got, what, tt.want)
		}
	}
}

func TestSCSIDisksByTheirDriver(t *testing.T) {
	for _, tt := range []struct {
		driver, address string
		want            reach
	}{
		{"megaraid_sas", "2:2:0:0", onlyHere},
		{"scsi_debug", "2:0:0:0", onlyHere},
		{"hpsa", "2:1:0:0", onlyHere},
		{"hpsa", "2:2:0:0", unknownReach}, // an array outside the host
		{"hpsa", "2:0:1:0", unknownReach},
		{"smartpqi", "2:1:0:0", onlyHere},
		{"smartpqi", "2:3:0:0", unknownReach},
		{"vmw_pvscsi", "2:0:0:0", unknownReach},
		{"hv_storvsc", "2:0:0:0", unknownReach},
		{"qla2xxx", "2:0:0:0", unknownReach},
		{"tcm_loopback", "2:0:0:0", unknownReach},
		{"", "2:1:0:0", unknownReach},
	} {
		m := newMachine()
		m.file("/sys/class/scsi_host/host2/proc_name", tt.driver+"\n")
		link := "../devices/pci0000:00/0000:02:00.0/host2/target" + tt.address[:5] + "/" + tt.address + "/block/sdb"
		if got, _, err := scsiDriver(m.fs, link); got != tt.want || err != nil {
			t.Errorf("%s %s: %d, %v, want %d", tt.driver, tt.address, got, err, tt.want)
		}
	}
}

func TestNVMeDisksByTheirTransport(t *testing.T) {
	for _, tt := range []struct {
		controllers []string
		want        reach
	}{
		{[]string{"pcie"}, onlyHere},
		{[]string{"pcie", "pcie"}, onlyHere},
		{[]string{"tcp"}, sharedReach},
		{[]string{"pcie", "rdma"}, sharedReach},
		{[]string{"fc", "pcie"}, sharedReach},
		{[]string{"pcie", "loop"}, unknownReach},
		{[]string{"apple-nvme"}, unknownReach},
		{nil, unknownReach},
	} {
		m := newMachine()
		dir := "/sys/block/nvme0n1/device"
		m.dir(dir + "/nvme0n1") // no controller
		for i, transport := range tt.controllers {
			m.file(fmt.Sprintf("%s/nvme%d/transport", dir, i), transport+"\n")
		}
		if got, _, err := nvmeTransport(m.fs, "nvme0n1"); got != tt.want || err != nil {
			t.Errorf("%v: %d, %v, want %d", tt.controllers, got, err, tt.want)
		}
	}
}

// on mounts something on /srv/images, in place of the root file system there.
func (m *machine) on(fstype, source string, dev uint64) {
	line := fmt.Sprintf("50 22 %s / /srv/images rw - %s %s rw\n", hostfs.FormatDev(dev), fstype, source)
	m.file("/proc/self/mountinfo", rootMount+line)
	m.image(image, FileID(dev, 100), "write", 0)
}

func TestFileSystemsByTheirType(t *testing.T) {
	anonymous := hostfs.Mkdev(0, 50)
	for fstype, want := range map[string][]string{
		"tmpfs": {}, "overlay": {}, "ramfs": {},
		"nfs": {"locality.shared"}, "nfs4": {"locality.shared"}, "cifs": {"locality.shared"}, "smb3": {"locality.shared"}, "ceph": {"locality.shared"},
		"9p": {"locality.shared"}, "virtiofs": {"locality.shared"}, "fuse": {"locality.shared"}, "fuse.glusterfs": {"locality.shared"}, "lustre": {"locality.shared"},
		"zfs": {"locality.unknown"}, "bcachefs": {"locality.unknown"}, "vboxsf": {"locality.unknown"}, "ext4": {"locality.unknown"}, "": {"locality.unknown"},
	} {
		m := newMachine()
		m.on(fstype, "filer:/export", anonymous)
		got := []string{}
		for _, f := range m.collect(t, locality{}, image) {
			got = append(got, string(f.Code))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: found %v, want %v", fstype, got, want)
		}
	}
	// The same types on a disk of this host's own.
	for fstype, want := range map[string][]string{"ext4": {}, "xfs": {}, "fuseblk": {}, "gfs2": {"locality.shared below /srv/images"}, "ocfs2": {"locality.shared below /srv/images"}, "vxfs": {"locality.unknown below /srv/images"}} {
		m := newMachine()
		id := m.disk("sdb", "8:16")
		m.on(fstype, "/dev/sdb", id.Rdev)
		wantFound(t, m.collect(t, locality{}, image), want...)
	}
}

// A disk that other hosts can use is found under everything that stands on it.
func TestSharedDiskUnderTheStack(t *testing.T) {
	build := func() *machine {
		m := newMachine()
		m.disk("sdb", "8:16", "sdb1 8:17 2048 100000")
		m.link("/sys/block/sdb", "../devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb")
		m.disk("sdc", "8:32")
		m.mapper("dm-0", "253:0", "vg0-san", "0 1000 linear 8:17 0\n", "sdb1")
		m.mapper("dm-1", "253:1", "vg0-own", "0 1000 linear 8:32 0\n", "sdc")
		m.mapper("dm-2", "253:2", "vg0-both", "0 1000 linear 8:32 1000\n1000 1000 linear 8:17 1000\n", "sdb1", "sdc")
		m.mapper("dm-3", "253:3", "zeros", "0 1000 zero\n")
		m.device("md0", "9:0", []string{"sdb1", "sdc"}, "md")
		return m
	}
	shared := "locality.shared below sdb"
	for path, want := range map[string][]string{
		"/dev/sdb":  {"locality.shared same sdb"},
		"/dev/sdb1": {"locality.shared whole sdb"},
		"/dev/dm-0": {shared},
		"/dev/dm-1": {},
		"/dev/dm-2": {shared},
		"/dev/md0":  {shared},
		"/dev/sdc":  {},
		"/dev/dm-3": {"locality.unknown same dm-3"}, // nothing says what it is
	} {
		wantFound(t, build().collect(t, locality{}, path), want...)
	}
	m := build()
	m.on("ext4", "/dev/dm-0", devID("253:0").Rdev)
	wantFound(t, m.collect(t, locality{}, image), shared)
	m.loop("loop0", "7:0", fmt.Sprintf("dev=253:0 ino=100 rdev=0:0 offset=0 sizelimit=0 ro=0 file=%q", image))
	wantFound(t, m.collect(t, locality{}, "/dev/loop0"), shared)
	m.loop("loop1", "7:1", "dev=0:6 ino=1 rdev=253:0 offset=0 sizelimit=0 ro=0 file=\"/dev/dm-0\"")
	wantFound(t, m.collect(t, locality{}, "/dev/loop1"), shared)
}

// Whatever is not told counts as not known, whichever part of the way it is.
func TestLocalityIsNeverGuessed(t *testing.T) {
	for name, spoil := range map[string]func(m *machine){
		"no mount table":             func(m *machine) { m.fs.SetErr("/proc/self/mountinfo", syscall.EACCES) },
		"a mount table cut off":      func(m *machine) { m.file("/proc/self/mountinfo", strings.TrimSuffix(rootMount, "\n")) },
		"a mount table without it":   func(m *machine) { m.file("/proc/self/mountinfo", strings.ReplaceAll(rootMount, "8:1", "8:2")) },
		"no place in sysfs":          func(m *machine) { m.fs.SetErr("/sys/block/sda", syscall.EIO) },
		"a disk of nobody knows":     func(m *machine) { m.link("/sys/block/sda", "../devices/new/block/sda") },
		"a driver that cannot be":    func(m *machine) { m.link("/sys/block/sda", "../devices/pci0/host0/target0:0:0/0:0:0:0/block/sda") },
		"a table of exports":         func(m *machine) { m.file(etab, "srv\n") },
		"a table of exports cut off": func(m *machine) { m.file(etab, "/srv/other *(rw)") },
		"a stack without an end": func(m *machine) {
			m.mapper("dm-0", "253:0", "a", "0 1000 linear 253:1 0\n")
			m.mapper("dm-1", "253:1", "b", "0 1000 linear 253:0 0\n")
			m.file("/proc/self/mountinfo", strings.ReplaceAll(rootMount, "8:1", "253:0"))
			m.image(image, FileID(hostfs.Mkdev(253, 0), 100), "write", 0)
		},
		"unreadable exports":  func(m *machine) { m.fs.SetErr(etab, syscall.EACCES) },
		"a folder of exports": func(m *machine) { m.fs.SetErr(exportsDir, syscall.EACCES) },
	} {
		m := newMachine()
		spoil(m)
		if fs := m.collect(t, locality{}, image); (Policy{}).Judge(fs).Decision != Refuse {
			t.Errorf("%s: found %q", name, found(fs))
		}
	}
}

func TestNewFileHasNoPlaceYet(t *testing.T) {
	m := newMachine()
	m.on("nfs4", "filer:/export", hostfs.Mkdev(0, 50))
	read := &recorder{seen: map[string]bool{}}
	m.host.FS = m.fs.Record(read.note)
	wantFound(t, m.collect(t, locality{}, "/srv/images/new.img"))
	if read.seen["/proc/self/mountinfo"] {
		t.Error("a file that is not there was followed to its file system")
	}
}

func TestMountOf(t *testing.T) {
	anon := func(minor uint32) uint64 { return hostfs.Mkdev(0, minor) }
	table := []mount{
		{dev: hostfs.Mkdev(8, 1), point: "/", fstype: "ext4"},
		{dev: anon(40), point: "/srv", fstype: "btrfs"},
		{dev: anon(41), point: "/srv/nfs", fstype: "nfs4", source: "a"},
		{dev: anon(42), point: "/srv/nfs", fstype: "nfs4", source: "b"}, // over it
		{dev: anon(43), point: "/srv/merged", fstype: "overlay"},
		{dev: hostfs.Mkdev(8, 1), point: "/bound", fstype: "ext4"},
	}
	for _, tt := range []struct {
		dev  uint64
		name string
		want int // -1: none
	}{
		{hostfs.Mkdev(8, 1), "/etc/passwd", 0},
		{hostfs.Mkdev(8, 1), "/bound/x", 5},
		{hostfs.Mkdev(8, 1), "/boundary/x", 0},
		{hostfs.Mkdev(8, 1), "/srv/x", 0}, // under the mount on /srv
		{hostfs.Mkdev(8, 2), "/x", -1},    // on a file system that is not mounted here
		{anon(40), "/srv/x", 1},           // the top of btrfs
		{anon(77), "/srv/subvolume/x", 1}, // below it
		{anon(77), "/srv/nfs/x", -1},      // not of btrfs
		{anon(41), "/srv/nfs/x", 2},       // under the mount over it
		{anon(42), "/srv/nfs/x", 3},       //
		{anon(78), "/srv/merged/x", 4},    // a file of a lower layer
		{anon(42), "/elsewhere/x", 3},     // reached in a way that the table does not show
		{anon(77), "/x", -1},              //
	} {
		got := mountOf(table, tt.dev, tt.name)
		if tt.want < 0 && got != nil || tt.want >= 0 && got != &table[tt.want] {
			t.Errorf("%s on %s: %+v, want number %d", tt.name, hostfs.FormatDev(tt.dev), got, tt.want)
		}
	}
}

func TestExportedDirectories(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		want  bool
	}{
		{"its directory", func(m *machine) { m.file(etab, "/srv/images\t*(rw)\n") }, true},
		{"the root", func(m *machine) { m.file(etab, "/\t*(ro)\n") }, true},
		{"the file itself", func(m *machine) { m.file(etab, image+"\t*(rw)\n") }, true},
		{"a slash at the end", func(m *machine) { m.file(etab, "/srv/images/\t*(rw)\n") }, true},
		{"a name that begins so", func(m *machine) { m.file(etab, "/srv/image\t*(rw)\n") }, false},
		{"a directory beside it", func(m *machine) { m.file(etab, "/srv/images/old\t*(rw)\n") }, false},
		{"only set up", func(m *machine) { m.file(exportsFile, "/srv/images *(rw)") }, true},
		{"set up in a folder", func(m *machine) { m.file(exportsDir+"/a.exports", "/srv/images *(rw)\n") }, true},
		{"a file of another kind there", func(m *machine) { m.file(exportsDir+"/a.exports~", "/srv/images *(rw)\n") }, false},
		{"a comment", func(m *machine) { m.file(exportsFile, "#/srv/images *(rw)\n") }, false},
		{"escaped", func(m *machine) { m.file(etab, `/srv/im\141ges`+"\t*(rw)\n") }, true},
		{"quoted, and joined lines", func(m *machine) { m.file(exportsFile, "/x a(rw) \\\n b(rw)\n\"/srv/images\" *(rw)\n") }, true},
		{"through a link", func(m *machine) {
			m.link("/exports", "/srv/images")
			m.file(etab, "/exports\t*(rw)\n")
		}, true},
		{"through a bind mount", func(m *machine) {
			m.file("/proc/self/mountinfo", rootMount+"60 22 8:1 /srv/images /export rw - ext4 /dev/sda1 rw\n")
			m.dir("/export")
			m.file(etab, "/export\t*(rw)\n")
		}, true},
		{"another part of its file system", func(m *machine) {
			m.file("/proc/self/mountinfo", rootMount+"60 22 8:1 /srv/other /export rw - ext4 /dev/sda1 rw\n")
			m.dir("/export")
			m.file(etab, "/export\t*(rw)\n")
		}, false},
	} {
		m := newMachine()
		tt.build(m)
		fs := m.collect(t, locality{}, image)
		if got := len(fs) == 1 && fs[0].Code == LocalityExported; got != tt.want || len(fs) > 1 {
			t.Errorf("%s: found %q, want %v", tt.name, found(fs), tt.want)
		}
	}
}

// Storage made of files in this host's memory is this host's own, through every
// layer of it.
func TestLoopOnLoopOnTmpfsIsLocal(t *testing.T) {
	testkit.Need(t, "root", "losetup", "mkfs.ext4", "mount")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	attach := func(file string, size int64) string {
		t.Helper()
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		dev := run("losetup", "--find", "--show", file)
		t.Cleanup(func() { run("losetup", "--detach", dev) })
		return dev
	}
	mountOn := func(dir string, args ...string) string {
		t.Helper()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		run("mount", append(args, dir)...)
		t.Cleanup(func() { run("umount", dir) })
		return dir
	}
	dir := t.TempDir()
	memory := mountOn(dir+"/memory", "-t", "tmpfs", "tmpfs")
	outer := attach(memory+"/outer.img", 64<<20)
	run("mkfs.ext4", "-q", outer)
	disk := mountOn(dir+"/disk", outer)
	inner := attach(disk+"/inner.img", 8<<20)
	host := &Host{FS: hostfs.Live(), Local: dir + "/local"}
	for _, name := range []string{memory + "/outer.img", outer, disk + "/inner.img", inner} {
		target, err := Resolve(t.Context(), host, name)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		wantFound(t, Examine(t.Context(), host, target, []Collector{locality{}}).Findings)
	}
}
