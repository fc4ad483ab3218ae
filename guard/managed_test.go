package guard

import (
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

const (
	aRepository = "1f8a2c34-5b6d-4e7f-8091-a2b3c4d5e6f7"
	aVDI        = "0aa1bb22-cc33-4d44-8e55-ff6600771188"
)

func TestVolumeNames(t *testing.T) {
	for _, tt := range []struct {
		group, name string
		want        volume
		ok          bool
	}{
		{"VG_XenStorage-" + aRepository, "VHD-" + aVDI, volume{ManagedXAPI, aRepository, aVDI}, true},
		{"VG_XenStorage-" + aRepository, "LV-" + aVDI, volume{ManagedXAPI, aRepository, aVDI}, true},
		{"VG_XenStorage-" + aRepository, "QCOW2-" + aVDI, volume{ManagedXAPI, aRepository, aVDI}, true},
		{"VG_XenStorage-" + aRepository, "MGT", volume{ManagedXAPI, aRepository, ""}, true},
		{"XSLocalEXT-" + aRepository, aRepository, volume{ManagedXAPI, aRepository, ""}, true},
		{"vg0", "VHD-" + aVDI, volume{ManagedXAPI, "", aVDI}, true},
		{"vg0", "VHD-" + aVDI[1:], volume{}, false},
		{"vg0", "VHD-backup", volume{}, false},
		{"VG_XenStorage-old", "root", volume{}, false},
		{"qubes_dom0", "vm-work-private", volume{ManagedQubes, "work", "private"}, true},
		{"qubes_dom0", "vm-my-work-private-snap", volume{ManagedQubes, "my-work", "private"}, true},
		{"qubes_dom0", "vm-work-root-1690000000-back", volume{ManagedQubes, "work", "root"}, true},
		{"qubes_dom0", "vm-pool", volume{ManagedQubes, "", ""}, true},
		{"qubes_dom0", "root", volume{}, false},
		{"vg0", "vm-work-private", volume{}, false},
		{"pve", "vm-100-disk-0", volume{ManagedProxmox, "100", "disk-0"}, true},
		{"san", "base-9000-disk-12", volume{ManagedProxmox, "9000", "disk-12"}, true},
		{"pve", "vm-100-cloudinit", volume{ManagedProxmox, "100", "cloudinit"}, true},
		{"pve", "snap_vm-100-disk-0_before", volume{}, false},
		{"pve", "vm-100-disk", volume{}, false},
		{"pve", "vm-0100-disk-0", volume{}, false},
		{"pve", "vm-99-disk-0", volume{}, false},
		{"pve", "data", volume{}, false},
	} {
		if got, ok := volumeOf(tt.group, tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("%s/%s is %+v, %v", tt.group, tt.name, got, ok)
		}
	}
}

// What LVM joins and doubles is taken apart again.
func FuzzSplitMapperName(f *testing.F) {
	f.Add("vg0", "db1", "")
	f.Add("a-b", "c-d", "real")
	f.Add("qubes_dom0", "vm-work-private", "cow")
	f.Fuzz(func(t *testing.T, group, name, layer string) {
		splitMapperName(group) // never panics
		if group == "" || name == "" || strings.HasPrefix(name, "-") || strings.HasSuffix(group+name, "-") || strings.HasSuffix(group, "-") {
			return // LVM allows no such names
		}
		double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
		alias := double(group) + "-" + double(name)
		if layer != "" && !strings.HasPrefix(layer, "-") {
			alias += "-" + double(layer)
		}
		if g, n := splitMapperName(alias); g != group || n != name {
			t.Errorf("%q of %q and %q is taken for %q and %q", alias, group, name, g, n)
		}
	})
}

func TestManaged(t *testing.T) {
	root := func(m *machine) {
		for _, d := range []string{"/srv", "/"} {
			m.fs.SetStat(d, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: m.inode(d)})
		}
	}
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"nothing of the kind", func(m *machine) {}, image, nil},
		{"a device, nothing of the kind", func(m *machine) {}, "/dev/sda", nil},
		{"in a repository", func(m *machine) {
			root(m)
			m.stat("/run/sr-mount/"+aRepository, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: 5})
		}, image, []string{"managed.xapi same " + aRepository}},
		{"a new file in a repository", func(m *machine) {
			root(m)
			m.stat("/var/run/sr-mount/"+aRepository, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: 5})
		}, "/srv/images/new.img", []string{"managed.xapi same " + aRepository}},
		{"beside a repository", func(m *machine) {
			root(m)
			m.stat("/run/sr-mount/"+aRepository, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 2), Ino: 5})
		}, image, nil},
		{"repositories that cannot be listed", func(m *machine) { m.fs.SetErr("/run/sr-mount", syscall.EACCES) }, image,
			[]string{"blind.managed unrelated /run/sr-mount"}},
		{"the way up cannot be looked at", func(m *machine) {
			m.fs.SetErr("/", syscall.EIO)
			m.dir("/run/sr-mount/" + aRepository)
		}, image, []string{"blind.managed unrelated /srv"}},
		{"a link of the storage manager to a disk", func(m *machine) {
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
			m.link("/dev/sm/phy/"+aRepository+"/"+aVDI, "/dev/sdb")
		}, "/dev/sdb1", []string{"managed.xapi whole " + aVDI}},
		{"a link of the storage manager to nothing", func(m *machine) {
			m.disk("sdb", "8:16")
			m.link("/dev/sm/phy/"+aRepository+"/"+aVDI, "/dev/gone")
		}, "/dev/sdb", nil},
		{"a volume group on the disk", func(m *machine) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "qubes_dom0-vm--a--private", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-1", "253:1", "qubes_dom0-vm--b--private", "0 100 linear 8:16 100\n", "sdb")
		}, "/dev/sdb", []string{"managed.qubes above a/private"}},
		{"a mapping that is not LVM's", func(m *machine) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "qubes_dom0-vm--a--private", "0 100 linear 8:16 0\n", "sdb")
			m.file("/sys/block/dm-0/dm/uuid", "CRYPT-1\n")
		}, "/dev/dm-0", nil},
		{"Proxmox's volume where Proxmox is not", func(m *machine) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "pve-vm--100--disk--0", "0 100 linear 8:16 0\n", "sdb")
		}, "/dev/dm-0", nil},
		{"Proxmox's volume where it cannot be told", func(m *machine) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "pve-vm--100--disk--0", "0 100 linear 8:16 0\n", "sdb")
			m.fs.SetErr("/etc/pve", syscall.ENOTCONN)
		}, "/dev/dm-0", []string{"managed.proxmox same 100/disk-0"}},
		{"a ZFS volume in a deep data set", func(m *machine) {
			m.dir("/etc/pve")
			m.disk("zd0", "230:0")
			for _, d := range []string{"/dev/zvol/rpool", "/dev/zvol/rpool/data", "/dev/zvol/rpool/data/deep"} {
				m.dir(d)
			}
			m.link("/dev/zvol/rpool/data/deep/vm-100-disk-1", "/dev/zd0")
		}, "/dev/zd0", []string{"managed.proxmox same 100/disk-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			tt.build(m)
			wantFound(t, m.collect(t, managed{}, tt.target), tt.want...)
		})
	}
}

// The advice is to let the tool do it, and not to run the same command again.
func TestManagedAdvice(t *testing.T) {
	for _, tt := range []struct {
		v         volume
		inventory bool
		want      string
	}{
		{volume{ManagedXAPI, aRepository, aVDI}, true, `use "xe vdi-import uuid=` + aVDI + ` filename=SRC format=raw" instead`},
		{volume{ManagedXAPI, aRepository, ""}, true, `look for the VDI with "xe vdi-list sr-uuid=` + aRepository + `" and use "xe vdi-import" instead`},
		{volume{ManagedXAPI, aRepository, aVDI}, false, `use "xe vdi-import" on a host of the pool that this storage belongs to instead`},
		{volume{ManagedQubes, "work", "private"}, false, `use "qvm-volume import work:private SRC" instead`},
		{volume{ManagedProxmox, "100", "disk-0"}, false, `use "qm importdisk 100 SRC STORAGE" instead`},
	} {
		f := tt.v.finding(func(string) bool { return tt.inventory })
		if got := (Policy{}).Judge([]Finding{f}).Hints()[0]; got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.v, got, tt.want)
		}
	}
}
