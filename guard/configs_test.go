package guard

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
	"imgward/xenstore/xenstoretest"
)

// configure records a configuration file of xl with these disks.
func (m *machine) configure(name string, disks ...string) {
	m.file("/etc/xen/"+name+".cfg", fmt.Sprintf("name = '%s'\ndisk = [ '%s' ]\n", name, strings.Join(disks, "', '")))
}

// xlProcess records a process of xl with these arguments, and the log that it
// writes.
func (m *machine) xlProcess(pid, log string, args ...string) {
	m.process(pid, "xl")
	m.dir("/var/lib/xen")
	m.file("/proc/"+pid+"/cmdline", strings.Join(append([]string{"/usr/sbin/xl"}, args...), "\x00")+"\x00")
	m.link("/proc/"+pid+"/cwd", "/")
	if log != "" {
		m.open("/proc/"+pid, "1", FileID(hostfs.Mkdev(8, 1), 77), "0102001")
		m.link("/proc/"+pid+"/fd/1", log)
	}
}

// savedFile records a file of "xl save" with this record of a domain at its head.
func (m *machine) savedFile(file string, ino uint64, record string) {
	b := []byte("Xen saved domain, xl format\n \x00 \r")
	for _, n := range []int{0x01020304, 3, 0, 4 + len(record), len(record)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	m.stat(file, hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(8, 1), Ino: ino, Size: 1 << 20})
	m.fs.SetData(file, 0, string(b)+record)
}

func record(name, image string) string {
	return fmt.Sprintf(`{"c_info":{"name":%q},"disks":[{"pdev_path":%q,"vdev":"xvda","format":"raw"}]}`, name, image)
}

const lab = "/etc/xen/lab/web1.cfg"

func TestConfiguredDomains(t *testing.T) {
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"its file", func(m *machine) { m.configure("web1", image+",raw,xvda,w") }, image, []string{"config.named same web1"}},
		{"a bare name with colons in it", func(m *machine) {
			m.disk("sdb", "8:16")
			m.link("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "/dev/sdb")
			m.configure("web1", "phy:disk/by-path/pci-0000:00:1f.2-ata-1,xvda,w")
		}, "/dev/sdb", []string{"config.named same web1"}},
		{"another file", func(m *machine) { m.configure("web1", "/srv/images/other.img,raw,xvda,w") }, image, nil},
		{"through a link", func(m *machine) {
			m.link("/srv/current", "images/web1.img")
			m.configure("web1", "file:/srv/current,xvda,w")
		}, image, []string{"config.named same web1"}},
		{"another name of the file", func(m *machine) {
			m.image("/srv/images/hard.img", imageID, "write", 0)
			m.configure("web1", "/srv/images/hard.img,raw,xvda,w")
		}, image, []string{"config.named same web1"}},
		{"a file that is not there, to be made", func(m *machine) { m.configure("web1", "/srv/images/new.img,raw,xvda,w") },
			"/srv/images/new.img", []string{"config.named named web1"}},
		{"a file that is not there, beside another", func(m *machine) { m.configure("web1", "/srv/images/new.img,raw,xvda,w") },
			"/srv/images/new2.img", nil},
		{"a partition, by a bare name", func(m *machine) { m.configure("web1", "phy:sda1,xvda1,w") }, "/dev/sda", []string{"config.named partition web1"}},
		{"the disk under the target", func(m *machine) { m.configure("web1", "phy:/dev/sda,xvda,w") }, "/dev/sda1", []string{"config.named whole web1"}},
		{"a driver domain's", func(m *machine) { m.configure("web1", image+",raw,xvda,w,backend=storage") }, image, nil},
		{"an empty drive", func(m *machine) { m.configure("web1", ",hdc:cdrom,r") }, image, nil},
		{"the second disk of three", func(m *machine) {
			m.configure("web1", "/srv/a,,xvda", "tap:aio:"+image+",xvdb,w", "/srv/c,,xvdc")
		}, image, []string{"config.named same web1"}},
		{"a base in a COLO disk", func(m *machine) {
			m.configure("web1", "/srv/a,raw,xvda,w,colo,active-disk=/srv/b,hidden-disk="+image)
		}, image, []string{"config.named same web1"}},
		{"a shared directory above it", func(m *machine) {
			m.dir("/")
			m.dir("/srv")
			m.file("/etc/xen/web1.cfg", "name='web1'\np9=['tag=t,path=/srv']\n")
		}, image, []string{"config.named same web1"}},
		{"a shared directory beside it", func(m *machine) {
			m.dir("/")
			m.dir("/srv")
			m.dir("/srv/other")
			m.file("/etc/xen/web1.cfg", "name='web1'\np9=['tag=t,path=/srv/other']\n")
		}, image, nil},
		{"its kernel", func(m *machine) { m.file("/etc/xen/web1.cfg", "name='web1'\nkernel='"+image+"'\n") }, image, []string{"config.named same web1"}},
		{"two domains", func(m *machine) {
			m.configure("web1", image+",raw,xvda,w")
			m.configure("web2", image+",raw,xvda,w")
		}, image, []string{"config.named same web1", "config.named same web2"}},
		{"one domain, also in auto", func(m *machine) {
			m.configure("web1", image+",raw,xvda,w")
			m.link("/etc/xen/auto/web1", "../web1.cfg")
		}, image, []string{"config.named same web1"}},
		{"in auto alone", func(m *machine) { m.file("/etc/xen/auto/web1", "name='web1'\ndisk=['"+image+",,xvda']\n") },
			image, []string{"config.named same web1"}},
		{"in the service's own directory", func(m *machine) {
			m.file("/etc/sysconfig/xendomains", "XENDOMAINS_AUTO=/srv/auto\n")
			m.file("/srv/auto/web1", "name='web1'\ndisk=['"+image+",,xvda']\n")
		}, image, []string{"config.named same web1"}},
		{"a directory and a dangling link in auto", func(m *machine) {
			m.dir("/etc/xen/auto/old")
			m.link("/etc/xen/auto/gone", "../gone.cfg")
		}, image, nil},
		{"a file that is no configuration by its name", func(m *machine) { m.file("/etc/xen/README", image) }, image, nil},
		{"no name", func(m *machine) { m.file("/etc/xen/web9.cfg", "disk=['"+image+",,xvda']\n") }, image, []string{"config.named same web9"}},

		{"code", func(m *machine) { m.file("/etc/xen/old.cfg", "import os\n") }, image, []string{"blind.configs unrelated /etc/xen/old.cfg"}},
		{"code behind its disk", func(m *machine) {
			m.file("/etc/xen/old.cfg", "name='old'\ndisk=['"+image+",,xvda']\nvif=os.x\n")
		}, image, []string{"blind.configs unrelated /etc/xen/old.cfg", "config.named same old"}},
		{"a file that cannot be read", func(m *machine) {
			m.file("/etc/xen/web1.cfg", "")
			m.fs.SetErr("/etc/xen/web1.cfg", syscall.EIO)
		}, image, []string{"blind.configs unrelated /etc/xen/web1.cfg"}},
		{"a directory that cannot be read", func(m *machine) {
			m.dir("/etc/xen")
			m.fs.SetErr("/etc/xen", syscall.EACCES)
		}, image, []string{"blind.configs unrelated /etc/xen"}},
		{"a disk that cannot be looked up", func(m *machine) {
			m.configure("web1", "/srv/nfs/a.img,,xvda", "/srv/nfs/a.img,,xvdb")
			m.dir("/srv/nfs")
			m.fs.SetErr("/srv/nfs/a.img", syscall.ESTALE)
		}, image, []string{"blind.configs unrelated /srv/nfs/a.img"}},
		{"settings that cannot be read", func(m *machine) {
			m.file("/etc/default/xendomains", "XENDOMAINS_AUTO=`pwd`\n")
		}, image, []string{"blind.configs unrelated /etc/default/xendomains"}},

		{"a running domain's record", func(m *machine) {
			m.file("/var/lib/xen/userdata-d.7.x.libxl-json", record("web1", image)+"\n\x00")
		}, image, []string{"config.named same web1"}},
		{"a record that was updated by hand", func(m *machine) {
			m.file("/var/lib/xen/userdata-d.7.x.xl", "name='web1'\ndisk=['"+image+",,xvda']\n")
		}, image, []string{"config.named same web1"}},
		{"a disk of the control domain", func(m *machine) {
			m.file("/var/lib/xen/userdata-d.0.x.libxl-json", record("", image))
		}, image, []string{"config.named same Domain-0"}},
		{"a record that is being written", func(m *machine) {
			m.file("/var/lib/xen/userdata-n.7.x.libxl-json", "{")
			m.file("/var/lib/xen/userdata-l.7.x.domain-userdata-lock", "")
		}, image, nil},
		{"a record that is cut off", func(m *machine) { m.file("/var/lib/xen/userdata-d.7.x.libxl-json", "{") },
			image, []string{"blind.configs unrelated /var/lib/xen/userdata-d.7.x.libxl-json"}},

		{"a process of xl with a file elsewhere", func(m *machine) {
			m.file(lab, "name='web1'\ndisk=['"+image+",,xvda']\n")
			m.xlProcess("60", "", "create", lab)
		}, image, []string{"config.named same web1"}},
		{"the same in the directory of the process", func(m *machine) {
			m.file(lab, "name='web1'\ndisk=['"+image+",,xvda']\n")
			m.xlProcess("60", "", "create", "web1.cfg")
			m.link("/proc/60/cwd", "/etc/xen/lab")
		}, image, []string{"config.named same web1"}},
		{"words on its command line", func(m *machine) {
			m.xlProcess("60", "", "create", "/dev/null", "name='web1'", "disk=['"+image+",,xvda']")
		}, image, []string{"config.named same web1"}},
		{"a saved domain that it was given", func(m *machine) {
			m.savedFile("/srv/w.save", 300, record("web1", image))
			m.xlProcess("60", "", "restore", "-p", "/srv/w.save")
		}, image, []string{"config.named same web1"}},
		{"a file that is gone, and its domain runs", func(m *machine) {
			m.xlProcess("60", "/var/log/xen/xl-web1.log", "create", "/etc/xen/gone.cfg")
			m.dir("/etc/xen")
			m.file("/var/lib/xen/userdata-d.7.x.libxl-json", record("web1", "/srv/images/other.img"))
		}, image, nil},
		{"a file that is gone, and its domain does not run", func(m *machine) {
			m.xlProcess("60", "/var/log/xen/xl-web1.log", "create", "/etc/xen/gone.cfg")
			m.dir("/etc/xen")
			m.file("/var/lib/xen/userdata-d.7.x.libxl-json", record("web2", "/srv/images/other.img"))
		}, image, []string{"blind.configs unrelated /proc/60/cmdline"}},
		{"a file that is gone, and whose is not known", func(m *machine) {
			m.xlProcess("60", "", "create", "/etc/xen/gone.cfg")
			m.dir("/etc/xen")
		}, image, []string{"blind.configs unrelated /proc/60/cmdline"}},
		{"a domain from another host", func(m *machine) {
			m.xlProcess("60", "/var/log/xen/xl-web1--incoming.log", "migrate-receive")
			m.file("/var/lib/xen/userdata-d.7.x.libxl-json", record("web1", image))
		}, image, []string{"config.named same web1"}},
		{"a domain that comes from another host", func(m *machine) { m.xlProcess("60", "/dev/null", "migrate-receive") },
			image, []string{"blind.configs unrelated /proc/60/cmdline"}},
		{"a process whose arguments cannot be read", func(m *machine) {
			m.xlProcess("60", "", "create", lab)
			m.fs.SetErr("/proc/60/cmdline", syscall.EACCES)
		}, image, []string{"blind.configs unrelated /proc/60/cmdline"}},
		{"a process that has ended", func(m *machine) {
			m.xlProcess("60", "", "create", lab)
			m.fs.SetErr("/proc/60/cmdline", syscall.ENOENT)
		}, image, nil},
		{"another command of xl", func(m *machine) { m.xlProcess("60", "", "console", "web1") }, image, nil},

		{"a domain of libvirt", func(m *machine) {
			m.file("/etc/libvirt/libxl/web1.xml", "<domain><name>web1</name><devices><disk><source file='"+image+"'/></disk></devices></domain>")
		}, image, []string{"config.named same web1"}},
		{"a base below a disk of libvirt's", func(m *machine) {
			m.file("/run/libvirt/qemu/web1.xml", "<domstatus><domain><name>web1</name><devices><disk><source file='/srv/images/top.img'/><backingStore><source file='"+
				image+"'/></backingStore></disk></devices></domain></domstatus>")
		}, image, []string{"config.named same web1"}},
		{"a volume", func(m *machine) {
			m.file("/etc/libvirt/storage/p.xml", "<pool><name>p</name><target><path>/srv/images</path></target></pool>")
			m.file("/etc/libvirt/qemu/web1.xml", "<domain><name>web1</name><devices><disk><source pool='p' volume='web1.img'/></disk></devices></domain>")
		}, image, []string{"config.named same web1"}},
		{"a volume of a pool on no file system", func(m *machine) {
			m.file("/run/libvirt/storage/p.xml", "<poolstatus><pool><name>p</name></pool></poolstatus>")
			m.file("/etc/libvirt/qemu/web1.xml", "<domain><name>web1</name><devices><disk><source pool='p' volume='web1.img'/></disk></devices></domain>")
		}, image, nil},
		{"a volume of a pool that nobody knows", func(m *machine) {
			m.file("/etc/libvirt/qemu/web1.xml", "<domain><name>web1</name><devices><disk><source pool='p' volume='web1.img'/></disk></devices></domain>")
		}, image, []string{"blind.configs unrelated /etc/libvirt/qemu/web1.xml"}},
		{"a domain of libvirt's that is cut off", func(m *machine) { m.file("/etc/libvirt/qemu/web1.xml", "<domain><name>web1</name>") },
			image, []string{"blind.configs unrelated /etc/libvirt/qemu/web1.xml"}},
		{"what lies beside", func(m *machine) {
			m.dir("/etc/libvirt/qemu/networks")
			m.dir("/etc/libvirt/qemu/autostart")
			m.file("/run/libvirt/qemu/web1.pid", "7")
		}, image, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for _, dir := range []string{"/etc/xen/auto", "/etc/sysconfig", "/run", "/srv/images"} {
				m.dir(dir)
			}
			tt.build(m)
			wantFound(t, m.collect(t, configs{}, tt.target), tt.want...)
		})
	}
}

// libxl leaves a disk in the record of a domain when it is unplugged.
func TestUnpluggedDisks(t *testing.T) {
	const kept = "config.named same web1"
	for _, tt := range []struct {
		name  string
		build func(m *machine, s *xenstoretest.Server)
		want  []string
	}{
		{"it is gone", func(*machine, *xenstoretest.Server) {}, nil},
		{"another disk of the domain is left", func(_ *machine, s *xenstoretest.Server) {
			s.SetAll("/local/domain/0/backend/vbd/7/51728", "dev=xvdb", "params=/srv/images/other.img")
		}, nil},
		{"another domain has one of its name", func(_ *machine, s *xenstoretest.Server) {
			s.Set("/local/domain/8/name", "web2")
			s.SetAll("/local/domain/0/backend/vbd/8/51712", "dev=xvda", "params=/srv/images/other.img")
		}, nil},
		{"it is there", func(_ *machine, s *xenstoretest.Server) { s.SetAll(vbd7, "dev=xvda", "params=/srv/images/other.img") }, []string{kept}},
		{"it is there by libxl's word", func(_ *machine, s *xenstoretest.Server) {
			s.SetAll("/libxl/7/device/vbd/51712", "dev=xvda", "params=/srv/images/other.img", "backend=/local/domain/0/backend/vbd/7/51712")
		}, []string{kept}},
		{"a disk of the domain does not say which it is", func(_ *machine, s *xenstoretest.Server) {
			s.SetAll(vbd7, "params=/srv/images/other.img")
		}, []string{kept}},
		{"the domain is gone, and its record is left", func(_ *machine, s *xenstoretest.Server) { s.Remove("/local/domain/7") }, []string{kept}},
		{"xenstore does not tell everything", func(_ *machine, s *xenstoretest.Server) {
			s.Set(vbd7+"/dev", "xvda")
			s.Deny(vbd7, "EACCES")
		}, []string{kept}},
		{"no xenstore answers", func(m *machine, _ *xenstoretest.Server) { m.host.Store, m.host.StoreErr = nil, syscall.EACCES }, []string{kept}},
		{"it is configured as well", func(m *machine, _ *xenstoretest.Server) { m.configure("web1", image+",raw,xvda,w") }, []string{kept}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			s := xenHost(t, m)
			m.file("/var/lib/xen/userdata-d.7.x.libxl-json", record("web1", image))
			for _, dir := range []string{"/etc/xen/auto", "/var/lib/xen/save"} {
				m.dir(dir)
			}
			tt.build(m, s)
			wantFound(t, m.collect(t, configs{}, image), tt.want...)
		})
	}
}

func TestSavedDomains(t *testing.T) {
	const w = "/var/lib/xen/save/web1"
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"saved by the service", func(m *machine) { m.savedFile(w, 300, record("web1", image)) }, image, []string{"saved.named same web1"}},
		{"another's image", func(m *machine) { m.savedFile(w, 300, record("web1", "/srv/images/other.img")) }, image, nil},
		{"an image that is not there any more", func(m *machine) { m.savedFile(w, 300, record("web1", "/srv/images/new.img")) },
			"/srv/images/new.img", []string{"saved.named named web1"}},
		{"saved where the service is told to", func(m *machine) {
			m.file("/etc/default/xendomains", "XENDOMAINS_SAVE=\"/srv/save\"\n")
			m.savedFile("/srv/save/web1", 300, record("web1", image))
		}, image, []string{"saved.named same web1"}},
		{"saved by libvirt", func(m *machine) {
			const file = "/var/lib/libvirt/libxl/save/web1.save"
			const xml = "<domain><name>web1</name><devices><disk><source file='" + image + "'/></disk></devices></domain>"
			b := binary.LittleEndian.AppendUint32([]byte("libvirt-xml\n \x00 \r"), 1)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(xml)))
			m.stat(file, hostfs.Stat{Type: hostfs.Regular, Dev: 1, Ino: 301, Size: 1 << 20})
			m.fs.SetData(file, 0, string(b)+strings.Repeat("\x00", 64-len(b))+xml)
		}, image, []string{"saved.named same web1"}},
		{"no saved domain at all", func(m *machine) {
			m.stat(w, hostfs.Stat{Type: hostfs.Regular, Dev: 1, Ino: 300, Size: 100})
			m.fs.SetData(w, 0, "notes")
		}, image, []string{"blind.saved unrelated " + w}},
		{"nothing was saved to it yet", func(m *machine) {
			m.stat(w, hostfs.Stat{Type: hostfs.Regular, Dev: 1, Ino: 300})
		}, image, nil},
		{"a directory among them", func(m *machine) { m.dir("/var/lib/xen/save/old") }, image, nil},
		{"one that cannot be read", func(m *machine) {
			m.savedFile(w, 300, record("web1", image))
			m.fs.SetErr(w, syscall.EIO)
		}, image, []string{"blind.saved unrelated " + w}},
		{"one that somebody has a lease on, which reading would break", func(m *machine) {
			m.savedFile(w, 300, record("web1", image))
			m.file("/proc/locks", "1: LEASE  ACTIVE    WRITE 50 08:01:300 0 EOF\n")
			m.fs.SetErr(w, syscall.EIO)
			m.savedFile(w, 300, "")
		}, image, []string{"blind.saved unrelated " + w}},
		{"the target itself, which must not be opened", func(m *machine) {
			m.savedFile(w, imageID.Ino, record("web1", image))
		}, image, nil},
		{"the directory cannot be read", func(m *machine) {
			m.dir("/var/lib/xen/save")
			m.fs.SetErr("/var/lib/xen/save", syscall.EACCES)
		}, image, []string{"blind.saved unrelated /var/lib/xen/save"}},
		{"where it would be cannot be told", func(m *machine) { m.file("/etc/default/xendomains", "XENDOMAINS_SAVE=$X\n") },
			image, []string{"blind.saved unrelated /etc/default/xendomains"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for _, dir := range []string{"/etc/xen/auto", "/etc/sysconfig", "/run", "/srv/images", "/var/lib/xen"} {
				m.dir(dir)
			}
			tt.build(m)
			wantFound(t, m.collect(t, saved{}, tt.target), tt.want...)
		})
	}
}

// A host without Xen and libvirt costs nothing but the look for their directories.
func TestNoDescriptions(t *testing.T) {
	m := newMachine()
	var read []string
	m.host.FS = m.fs.Record(func(op, name string) { read = append(read, op+" "+name) })
	e := m.examine(t, image, nil, configs{}, saved{})
	wantFound(t, e.Findings)
	if len(e.Looked) != 0 {
		t.Errorf("says that it looked at %q", e.Looked)
	}
	for _, r := range read {
		if strings.HasSuffix(r, "/comm") || strings.HasSuffix(r, "/cmdline") {
			t.Errorf("%s, where there are no tools of Xen's", r)
		}
	}
}

// The inventory is read once for all collectors of a look, and again for the
// next.
func TestInventoryOfALook(t *testing.T) {
	m := newMachine()
	m.dir("/etc/xen/auto")
	m.configure("web1", image+",raw,xvda,w", "phy:vg0/data,xvdb,w", "/srv/images/b.img,qcow2,xvdc,w")
	m.savedFile("/var/lib/xen/save/web2", 300, record("web2", "/srv/saved/c.img"))
	m.file("/etc/libvirt/storage/p.xml", "<pool><name>p</name><target><path>/srv/pool</path></target></pool>")
	reads := 0
	m.host.FS = m.fs.Record(func(op, name string) {
		if op == "read" && name == "/etc/xen/web1.cfg" {
			reads++
		}
	})
	m.examine(t, image, nil, configs{}, saved{}, configs{})
	if reads != 1 {
		t.Errorf("one look reads a file %d times", reads)
	}
	m.examine(t, image, nil, configs{})
	if reads != 2 {
		t.Errorf("two looks read a file %d times", reads)
	}
	inv := readInventory(t.Context(), m.host, imageID)
	var paths []string
	for _, d := range inv.disks {
		paths = append(paths, fmt.Sprintf("%s %s %t %s", d.Domain, d.Path, d.Saved, d.Source))
	}
	want := []string{
		`web1 ` + image + ` false /etc/xen/web1.cfg: disk = "` + image + `,raw,xvda,w"`,
		`web1 /dev/vg0/data false /etc/xen/web1.cfg: disk = "phy:vg0/data,xvdb,w"`,
		`web1 /srv/images/b.img false /etc/xen/web1.cfg: disk = "/srv/images/b.img,qcow2,xvdc,w"`,
		`web2 /srv/saved/c.img true /var/lib/xen/save/web2: "pdev_path": "/srv/saved/c.img"`,
	}
	if !slices.Equal(paths, want) {
		t.Errorf("disks %q, want %q", paths, want)
	}
	if want := []string{"/srv/images", "/srv/pool", "/srv/saved"}; !slices.Equal(inv.dirs, want) {
		t.Errorf("directories %q, want %q", inv.dirs, want)
	}
}

// A description that gets another name between the listing and the reading is read by
// that; a link to nothing is no such one, and what is renamed all the time is not
// taken for removed.
func TestDescriptionsThatMove(t *testing.T) {
	const dir = "/etc/xen/"
	for what, tt := range map[string]struct {
		moves int
		want  []string
	}{
		"once":         {1, []string{"config.named same web1"}},
		"all the time": {100, []string{"blind.configs unrelated /etc/xen"}},
		"away":         {-1, nil},
	} {
		m := newMachine()
		at := 0
		file := func() string { return fmt.Sprintf("%sweb%d.cfg", dir, at) }
		m.file(file(), "name = 'web1'\ndisk = [ '"+image+",raw,xvda,w' ]\n")
		m.link("/etc/xen/auto/gone.cfg", dir+"nothing.cfg")
		m.fs.SetErr(dir+"nothing.cfg", syscall.ENOENT)
		m.host.FS = m.fs.Record(func(op, name string) {
			if op != "read" || name != file() || at == tt.moves {
				return
			}
			text, err := m.fs.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m.fs.Delete("file " + name)
			m.fs.SetErr(name, syscall.ENOENT)
			if at++; tt.moves > 0 {
				m.file(file(), string(text))
			}
		})
		wantFound(t, m.collect(t, configs{}, image), tt.want...)
		if at == 0 {
			t.Errorf("%s: nothing moved", what)
		}
	}
}

// What is offered after a refusal works when it is typed, and --domain of
// another does not.
func TestConfiguredAndMeant(t *testing.T) {
	m := newMachine()
	m.configure("web1", image+",raw,xvda,w")
	m.savedFile("/var/lib/xen/save/web1", 300, record("web1", image))
	v := m.judge(t, Policy{}, image)
	if v.Decision != Refuse || len(v.Because) != 2 || !strings.Contains(strings.Join(v.Hints(), "\n"), "add --domain web1,") {
		t.Errorf("%s because of %q, with hints %q", v.Decision, found(v.Because), v.Hints())
	}
	if v := m.judge(t, Policy{Domain: "web1"}, image); v.Decision != Proceed {
		t.Errorf("meant, and refused because of %q", found(v.Because))
	}
	if v := m.judge(t, Policy{Domain: "web2"}, image); v.Decision != Refuse || v.Codes()[0] != DomainOther {
		t.Errorf("another's: %s because of %q", v.Decision, found(v.Because))
	}
	if v := m.judge(t, Policy{Override: []Override{{ConfigNamed, "web1"}, {SavedNamed, "web1"}}}, image); v.Decision != Proceed {
		t.Errorf("overridden, and refused because of %q", found(v.Because))
	}
	if v := m.judge(t, Policy{Operation: Read}, image); v.Decision != Proceed {
		t.Errorf("as a source refused because of %q", found(v.Because))
	}
}

// A name is offered so that a shell gives it as it is.
func TestShellWord(t *testing.T) {
	for s, want := range map[string]string{
		"web1": "web1", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(x)": "'$(x)'", "a:b": "'a:b'", "-x": "'-x'",
		"a\tb'\\\"": `$'a\tb\'\\"'`, "\x1b[2J": `$'\x1b[2J'`,
	} {
		if got := shellWord(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// Two thousand configurations are a matter of milliseconds.
func BenchmarkConfigs(b *testing.B) {
	m := newMachine()
	names := make([]string, 2000)
	for i := range names {
		names[i] = fmt.Sprintf("web%d.cfg", i)
		m.fs.SetFile("/etc/xen/"+names[i], fmt.Sprintf("# one of many\nname = 'web%d'\nmemory = 1024\nvcpus = 2\nvif = [ 'bridge=xenbr0' ]\n"+
			"disk = [\n  'phy:/dev/vg0/web%d-disk,xvda,w',\n  'phy:/dev/vg0/web%d-swap,xvdb,w',\n]\non_reboot = 'restart'\n", i, i, i))
	}
	m.dir("/dev/vg0")
	m.dir("/etc/xen/auto")
	m.fs.SetDir("/etc/xen", append(names, "auto")...)
	target, err := Resolve(b.Context(), m.host, image)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	for b.Loop() {
		e := Examine(b.Context(), m.host, target, []Collector{configs{}, saved{}})
		if len(e.Findings) != 0 {
			b.Fatal(found(e.Findings))
		}
	}
}

// Whatever a domain had plugged in while it ran, it gets again when it is rebooted,
// and in between only xl knows. So every image may be its as long as xenstore does
// not have the domain, and it makes no difference what of xl's process can be read.
func TestBetweenTwoLives(t *testing.T) {
	const web1 = "/var/log/xen/xl-web1.log"
	restarting := []string{"blind.configs unrelated /proc/80/cmdline"}
	for _, tt := range []struct {
		name  string
		build func(o owner)
		want  []string
	}{
		{"it runs", func(o owner) { o.store.Set("/local/domain/9/name", "web1") }, nil},
		{"it comes from another host", func(o owner) { o.store.Set("/local/domain/9/name", "web1--incoming") }, nil},
		{"it is between", func(o owner) { o.store.Set("/local/domain/9/name", "web12") }, restarting},
		{"it is between, and the log cannot be read", func(o owner) { o.fs.SetErr("/proc/80/fd/1", syscall.EACCES) }, restarting},
		{"it is between, and there is an old record of it", func(o owner) {
			o.file("/var/lib/xen/userdata-d.5.x.libxl-json", record("web1", "/srv/images/other.img"))
		}, restarting},
		{"it runs, and the log cannot be read", func(o owner) {
			o.fs.SetErr("/proc/80/fd/1", syscall.EACCES)
			o.store.Set("/local/domain/9/name", "web1")
		}, nil},
		{"domains cannot be listed", func(o owner) { o.store.Deny("/local/domain", "EACCES") }, restarting},
		{"its name cannot be read", func(o owner) {
			o.store.Set("/local/domain/9/name", "web1")
			o.store.Deny("/local/domain/9/name", "EACCES")
		}, restarting},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwner(t)
			o.xlProcess("80", web1, "create", "/etc/xen/web1.cfg")
			tt.build(o)
			got := o.collect(t, configs{}, "/dev/sda")
			wantFound(t, slices.DeleteFunc(got, func(f Finding) bool { return f.Code == ConfigNamed }), tt.want...)
		})
	}

	m := newMachine()
	m.fs.SetErr("/proc/81/comm", syscall.ENOENT)
	inv := &inventory{starts: []xlStart{{pid: "81", domain: "web1"}}}
	if inv.restarting(m.host, &storeScan{}); len(inv.blind) > 0 {
		t.Errorf("xl has ended since, and there is %v", inv.blind)
	}
}
