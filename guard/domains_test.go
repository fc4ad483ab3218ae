package guard

import (
	"slices"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// What an image lies on is told down to the disks, through everything between.
func TestDomainsBelow(t *testing.T) {
	const home = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		params string
		want   []string
	}{
		{"a file", func(m *machine) {}, image, []string{image + " (ext4 on /)", "/dev/sda1", "/dev/sda"}},
		{"a file that is gone", func(m *machine) {}, "/srv/images/gone.img", nil},
		{"a volume on two disks", func(m *machine) {
			m.disk("sdc", "8:32")
			m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n100 100 linear 8:32 0\n", "sdb", "sdc")
		}, "/dev/dm-0", []string{"/dev/mapper/vg0-a", "/dev/sdb + /dev/sdc"}},
		{"a loop device on a file", func(m *machine) { m.loop("loop0", "7:0", onImage(0, 0)) }, "/dev/loop0",
			[]string{"/dev/loop0", image + " (ext4 on /)", "/dev/sda1", "/dev/sda"}},
		{"on btrfs, whose number is no device's", func(m *machine) {
			m.file("/proc/self/mountinfo", home+"30 22 0:40 / /srv rw - btrfs /dev/sdb rw\n")
			m.stat("/srv/b.img", hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(0, 41), Ino: 300})
		}, "/srv/b.img", []string{"/srv/b.img (btrfs on /srv)", "/dev/sdb"}},
		{"on a file server", func(m *machine) {
			m.file("/proc/self/mountinfo", "22 1 8:2 / / rw - ext4 /dev/sda2 rw\n30 22 0:40 / /srv rw - nfs4 nas:/vm rw\n")
		}, image, []string{image + " (nfs4 on /srv, from nas:/vm)"}},
		{"a mount over the mount", func(m *machine) {
			m.file("/proc/self/mountinfo", home+"30 22 8:1 / /srv rw - ext4 /dev/sda1 rw\n31 22 8:1 / /srv rw - ext3 /dev/sda1 rw\n")
		}, image, []string{image + " (ext3 on /srv)", "/dev/sda1", "/dev/sda"}},
		{"a mount beside the way", func(m *machine) {
			m.file("/proc/self/mountinfo", home+"30 22 8:1 / /srv/ima rw - ext3 /dev/sda1 rw\n")
		}, image, []string{image + " (ext4 on /)", "/dev/sda1", "/dev/sda"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			s := xenHost(t, m)
			tt.build(m)
			s.SetAll(vbd7, "params="+tt.params, "mode=w", "dev=xvda")
			list, blind := Domains(t.Context(), m.host)
			if len(blind) > 0 {
				t.Errorf("blind: %v", blind)
			}
			i := slices.IndexFunc(list, func(d DomainDisk) bool { return d.Domid == "7" })
			if i < 0 || list[i].Image != tt.params || !slices.Equal(list[i].Below, tt.want) {
				t.Errorf("%+v, want it on %q", list, tt.want)
			}
		})
	}
}

// What could not be looked at is said, and the rest is listed.
func TestDomainsBlind(t *testing.T) {
	m := newMachine()
	s := xenHost(t, m)
	s.SetAll(vbd7, "params=/far/x", "mode=w")
	s.Deny(vbd7+"/mode", "EACCES")
	m.fs.SetErr("/far", syscall.EIO)
	m.fs.SetErr("/proc/self/mountinfo", syscall.EACCES)
	s.SetAll("/local/domain/0/backend/vbd/8/51712", "params="+image, "mode=w")
	list, blind := Domains(t.Context(), m.host)
	wantFound(t, blind, "blind.xen unrelated /proc/self/mountinfo", "blind.xen unrelated "+vbd7+"/mode", "blind.xen unrelated /far/x")
	var got []string
	for _, d := range list {
		got = append(got, d.Domid+" "+string(d.State)+" "+d.Image)
	}
	if want := []string{"0 running ", "7 running /far/x", "8 gone " + image}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	m.host.Store, m.host.StoreErr = nil, syscall.EACCES
	if list, blind := Domains(t.Context(), m.host); len(list) != 0 || len(blind) != 2 {
		t.Errorf("without a store: %v, %v", list, blind)
	}
}

// Descriptions add what xenstore does not know: the images of domains that do
// not run or are saved, those that a running one does not have now, and domains
// of another hypervisor.
func TestDomainsDescribed(t *testing.T) {
	m := newMachine()
	s := xenHost(t, m)
	s.SetAll(vbd7, "params="+image, "mode=w", "dev=xvda")
	m.image("/srv/images/more.img", FileID(hostfs.Mkdev(8, 1), 300), "write", 0)
	m.link("/srv/same.img", "images/web1.img")
	m.file("/etc/xen/web01.cfg", "name = 'web01'\nkernel = '/boot/vmlinuz'\ndisk = [ '/srv/same.img,raw,xvda,rw', '/srv/images/more.img,raw,xvdb,rw' ]\n")
	m.file("/etc/xen/db1.cfg", "name = 'db1'\ndisk = [ '/srv/images/gone.img,raw,xvda,rw' ]\n")
	m.file("/etc/xen/broken.cfg", "disk = [\n")
	m.file("/run/libvirt/qemu/kvm1.xml", "<domstatus state='running'><domain type='kvm'><name>kvm1</name><devices>"+
		"<disk type='file' device='disk'><source file='/srv/images/more.img'/><target dev='vda'/></disk></devices></domain></domstatus>")
	list, blind := Domains(t.Context(), m.host)
	if len(blind) != 1 || blind[0].Key != "/etc/xen/broken.cfg" {
		t.Errorf("blind: %v", blind)
	}
	var got []string
	for _, d := range list {
		got = append(got, d.Domain+" "+d.Domid+" "+string(d.State)+" "+d.Device+" "+d.Image)
	}
	want := []string{
		"kvm1  running vda /srv/images/more.img", "Domain-0 0 running  ", "web01 7 running xvda " + image,
		"db1  configured xvda /srv/images/gone.img", "web01  configured xvdb /srv/images/more.img",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
