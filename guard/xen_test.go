package guard

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// xenHost makes the machine a Xen host, with a store that knows domain 0 and
// domain 7, web01, and a kernel that has no backend open.
func xenHost(t *testing.T, m *machine) *xenstoretest.Server {
	t.Helper()
	s := xenstoretest.NewServer()
	t.Cleanup(func() { s.Close() })
	conn := xenstore.NewConn(s.Pipe())
	t.Cleanup(func() { conn.Close() })
	m.host.Store = conn
	s.Set("/local/domain/0/name", "Domain-0")
	s.Set("/local/domain/0/domid", "0")
	s.Set("/local/domain/0/backend", "")
	s.Set("/local/domain/7/name", "web01")
	m.dir("/sys/bus/xen-backend/devices")
	return s
}

// backend records that the kernel has a device open for a domain.
func (m *machine) backend(domid, devid, device string) {
	dir := fmt.Sprintf("/sys/bus/xen-backend/devices/vbd-%s-%s", domid, devid)
	m.file(dir+"/physical_device", device+"\n")
	m.file(dir+"/mode", "w\n")
	m.file(dir+"/nodename", "backend/vbd/"+domid+"/"+devid+"\n")
}

const vbd7 = "/local/domain/0/backend/vbd/7/51712"

func TestDomains(t *testing.T) {
	type host struct {
		*machine
		*xenstoretest.Server
	}
	// connect gives web01 the logical volume, as a running domain has it.
	connect := func(h host, more ...string) {
		h.Server.SetAll(vbd7, append([]string{"params=/dev/vg0/a", "physical-device=fd:0", "mode=w", "state=4", "online=1", "hotplug-status=connected", "dev=xvda"}, more...)...)
		h.backend("7", "51712", "fd:0")
	}
	for _, tt := range []struct {
		name   string
		build  func(h host)
		target string
		want   []string
	}{
		{"connected", func(h host) { connect(h) }, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"by another name", func(h host) { connect(h) }, "/dev/vg0/a", []string{"xen.vbd.connected same web01.7"}},
		{"the disk below", func(h host) { connect(h) }, "/dev/sdb", []string{"xen.vbd.connected above web01.7"}},
		{"another volume", func(h host) { connect(h) }, "/dev/dm-1", nil},
		{"read-only", func(h host) { connect(h, "mode=r") }, "/dev/dm-0", []string{"xen.vbd.readonly same web01.7"}},
		{"paused, or created so", func(h host) { connect(h, "state=2") }, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"a state that cannot be read", func(h host) {
			connect(h)
			h.Deny(vbd7+"/state", "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated " + vbd7 + "/state", "xen.vbd.connected same web01.7"}},
		{"the guest has closed it and it is kept open", func(h host) { connect(h, "state=6") }, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"closing", func(h host) { connect(h, "state=6", "online=0") }, "/dev/dm-0", []string{"xen.vbd.closing same web01.7"}},
		{"no node any more, and still open", func(h host) { h.backend("7", "51712", "fd:0") }, "/dev/dm-0", []string{"xen.sysfs.vbd same web01.7"}},
		{"no domain any more, and still open", func(h host) {
			connect(h)
			h.Remove("/local/domain/7")
		}, "/dev/dm-0", []string{"xen.sysfs.vbd same domain.7"}},
		{"no domain any more", func(h host) {
			connect(h, "state=2")
			h.Remove("/local/domain/7")
			h.fs.SetDir("/sys/bus/xen-backend/devices")
		}, "/dev/dm-0", []string{"xen.vbd.stale same domain.7"}},
		{"left behind by the kernel", func(h host) {
			connect(h)
			h.backend("9", "51712", "fd:9")
			h.fs.SetDir("/sys/bus/xen-backend/devices", "vbd-9-51712")
		}, "/dev/dm-0", []string{"xen.vbd.stale same web01.7"}},
		{"who exists cannot be told", func(h host) {
			connect(h, "state=2")
			h.fs.SetDir("/sys/bus/xen-backend/devices")
			h.Deny("/local/domain", "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated /local/domain", "xen.vbd.connected same domain.7"}},
		{"attaching failed", func(h host) {
			h.Server.SetAll(vbd7, "params=/dev/vg0/a", "mode=w", "state=2", "hotplug-status=busy")
		}, "/dev/dm-0", []string{"xen.vbd.failed same web01.7"}},
		{"attaching failed, and it is open", func(h host) {
			connect(h, "hotplug-status=error")
		}, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"about to be attached", func(h host) { h.Server.SetAll(vbd7, "params=/dev/vg0/a", "mode=w", "state=1") },
			"/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"the two sources disagree, and xenstore means it", func(h host) {
			connect(h)
			h.backend("7", "51712", "fd:1")
		}, "/dev/dm-0", []string{"xen.disagree same web01.7", "xen.vbd.connected same web01.7"}},
		{"the two sources disagree, and the kernel means it", func(h host) {
			connect(h)
			h.backend("7", "51712", "fd:1")
		}, "/dev/dm-1", []string{"xen.disagree same web01.7", "xen.sysfs.vbd same web01.7"}},
		{"a device number that is none", func(h host) { connect(h, "physical-device=253:zero") },
			"/dev/dm-0", []string{"blind.xen unrelated " + vbd7 + "/physical-device", "xen.vbd.named named web01.7", "xen.sysfs.vbd same web01.7"}},
		{"a file that was replaced", func(h host) {
			h.Server.SetAll(vbd7, "params="+image, "physical-device=7:3", "node=/dev/loop3", "mode=w", "state=4")
			h.backend("7", "51712", "7:3")
			h.loop("loop3", "7:3", "dev=8:1 ino=99 rdev=0:0 offset=0 sizelimit=0 ro=0 file=\"x\"")
		}, image, []string{"xen.vbd.named named web01.7"}},
		{"a file that was removed, to be made again", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/images/gone.img", "physical-device=7:3", "mode=w", "state=4")
			h.backend("7", "51712", "7:3")
		}, "/srv/images/gone.img", []string{"xen.vbd.named named web01.7"}},
		{"the name of a file that was removed, through a link", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/web", "physical-device=7:3", "mode=w", "state=4")
			h.backend("7", "51712", "7:3")
			h.link("/srv/web", "images/gone.img")
		}, "/srv/images/gone.img", []string{"xen.vbd.named named web01.7"}},
		{"the name of a file that was removed, through a directory", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/short/../gone.img", "physical-device=7:3", "mode=w", "state=4")
			h.backend("7", "51712", "7:3")
			h.dir("/srv/images/deep")
			h.link("/srv/short", "images/deep")
		}, "/srv/images/gone.img", []string{"xen.vbd.named named web01.7"}},
		{"a file beside the one that was removed", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/images/gone.img", "physical-device=7:3", "mode=w", "state=4")
		}, "/srv/images/new.img", nil},
		{"the toolstack's copy alone", func(h host) {
			h.Server.SetAll("/libxl/7/device/vbd/51712", "params="+image, "backend="+vbd7, "mode=w", "state=1")
		}, image, []string{"xen.vbd.connected same web01.7"}},
		{"the toolstack's copy of another domain's disk", func(h host) {
			h.Server.SetAll("/libxl/7/device/vbd/51712", "params="+image, "backend=/local/domain/5/backend/vbd/7/51712", "mode=w", "state=1")
		}, image, nil},
		{"the toolstack's copy beside its original", func(h host) {
			connect(h)
			h.Server.SetAll("/libxl/7/device/vbd/51712", "params=/dev/vg0/a", "backend="+vbd7, "mode=w", "state=1")
		}, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
		{"a driver domain's disks", func(h host) {
			h.Server.SetAll("/local/domain/5/backend/vbd/7/51712", "params="+image, "physical-device=fd:0", "state=4")
			h.Server.SetAll("/local/domain/5/backend/vbd/7/51728", "params="+image, "physical-device=fd:1", "state=4")
		}, image, []string{"xen.foreign unrelated domain.5"}},
		{"a kind of the future", func(h host) {
			h.Server.SetAll("/local/domain/0/backend/quantum/7/51712", "params="+image, "state=4", "mode=w")
		}, image, []string{"xen.vbd.connected same web01.7"}},
		{"backends that are no disks", func(h host) {
			h.Server.SetAll("/local/domain/0/backend/vif/7/0", "state=4", "mac=00:16:3e:00:00:01")
			h.Server.SetAll("/local/domain/0/backend/console/7/0", "state=1")
		}, image, nil},
		{"a COLO disk", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/x", "hidden-disk="+image, "mode=w", "state=4")
			h.backend("7", "51712", "fd:9")
		}, image, []string{"xen.vbd.connected same web01.7"}},
		{"a COLO disk, while it is active", func(h host) {
			h.Server.SetAll(vbd7, "params=/srv/x", "active-disk="+image, "mode=w", "state=4")
			h.backend("7", "51712", "fd:9")
		}, image, []string{"xen.vbd.connected same web01.7"}},
		{"a stub domain's view of a disk", func(h host) {
			h.Server.SetAll("/local/domain/9", "name=web01-dm", "target=7")
			h.Server.SetAll("/local/domain/0/backend/vbd/9/51712", "params=/dev/vg0/a", "physical-device=fd:0", "mode=w", "state=4")
			h.backend("9", "51712", "fd:0")
		}, "/dev/dm-0", []string{"xen.vbd.connected same web01-dm.9"}},
		{"a domain in this very system", func(h host) {
			h.Server.SetAll("/local/domain/0/backend/vbd/0/51712", "params="+image, "physical-device=7:3", "mode=w", "state=4")
			h.backend("0", "51712", "7:3")
			h.loop("loop3", "7:3", onImage(0, 0))
		}, image, []string{"xen.vbd.connected above Domain-0.0"}},
		{"a kernel entry that cannot be read", func(h host) {
			connect(h)
			h.fs.SetErr("/sys/bus/xen-backend/devices/vbd-7-51712/physical_device", syscall.EIO)
		}, "/dev/dm-0", []string{"blind.xen unrelated /sys/bus/xen-backend/devices/vbd-7-51712/physical_device", "xen.vbd.connected same web01.7"}},
		{"a kernel list that cannot be read", func(h host) {
			connect(h)
			h.fs.SetErr("/sys/bus/xen-backend/devices", syscall.EIO)
		}, "/dev/dm-0", []string{"blind.xen unrelated /sys/bus/xen-backend/devices", "xen.vbd.connected same web01.7"}},
		{"a kernel entry without a node's name", func(h host) {
			h.backend("7", "51712", "fd:0")
			h.fs.SetErr("/sys/bus/xen-backend/devices/vbd-7-51712/nodename", syscall.EIO)
		}, "/dev/dm-0", []string{"xen.sysfs.vbd same web01.7"}},
		{"a path that cannot be looked up", func(h host) {
			h.Server.SetAll(vbd7, "params=/far/x.img", "mode=w", "state=4")
			h.backend("7", "51712", "fd:9")
			h.fs.SetErr("/far", syscall.EACCES)
			h.fs.SetErr("/far/x.img", syscall.EACCES)
		}, image, []string{"blind.xen unrelated /far/x.img"}},
		{"a path that nothing can have", func(h host) {
			h.Server.SetAll(vbd7, "params=/"+strings.Repeat("x", 300), "mode=w", "state=4")
			h.backend("7", "51712", "fd:9")
			h.fs.SetErr("/"+strings.Repeat("x", 300), syscall.ENAMETOOLONG)
		}, image, nil},
		{"no number of our own", func(h host) {
			connect(h)
			h.Remove("/local/domain/0/domid")
		}, "/dev/dm-0", []string{"xen.vbd.connected same web01.7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:16 100\n", "sdb")
			m.link("/dev/vg0/a", "../dm-0")
			s := xenHost(t, m)
			tt.build(host{m, s})
			wantFound(t, m.collect(t, xen{}, tt.target), tt.want...)
		})
	}
}

// Every spelling of an image that a toolstack is known to write leads to it.
func TestImageSpellings(t *testing.T) {
	for _, tt := range []struct{ kind, params string }{
		{"vbd", image},
		{"vbd", "/srv/images/../images/web1.img"},
		{"vbd", "/srv/link.img"},
		{"vbd", image + "\x00"},
		{"vbd", image + "\n"},
		{"vbd", image + ":" + "/srv/cow.img"},
		{"vbd", "/srv/cow.img:" + image},
		{"vbd", "dummy:" + image},
		{"vbd", "aio:" + image},
		{"vbd", "/srv/my images/web1.img:/srv/cow.img"},
		{"qdisk", "aio:" + image},
		{"qdisk", "qcow2:" + image},
		{"qdisk", "aio:/srv/with:colon.img"},
		{"qdisk", `json:{"driver":"raw","file":{"filename":"` + image + `"}}`},
		{"vbd3", "vhd:" + image},
		{"tap", "aio:" + image},
		{"tap2", "tap:aio:" + image},
		{"tap", "tap:qcow2:" + image},
		{"virtio_disk", image},
		{"vbd", "disk/web1"},
	} {
		m := newMachine()
		s := xenHost(t, m)
		same := hostfs.Stat{Type: hostfs.Regular, Dev: imageID.Dev, Ino: imageID.Ino}
		m.link("/srv/link.img", "images/web1.img")
		m.stat("/srv/with:colon.img", same)
		m.stat("/srv/my images/web1.img", same)
		m.stat("/dev/disk/web1", same)
		m.stat("/srv/cow.img", hostfs.Stat{Type: hostfs.Regular, Dev: imageID.Dev, Ino: 900})
		s.SetAll("/local/domain/0/backend/"+tt.kind+"/7/51712", "params="+tt.params, "mode=w", "state=2")
		if got := found(m.collect(t, xen{}, image)); !slices.Equal(got, []string{"xen.vbd.connected same web01.7"}) {
			t.Errorf("%s %q: found %q", tt.kind, tt.params, got)
		}
	}
}

// Text that comes out of xenstore reaches no terminal as it is.
func TestForeignNames(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	s := xenHost(t, m)
	s.Set("/local/domain/7/name", "web\x1b[2J\n01 rm -rf;`x`")
	s.SetAll(vbd7, "params=/dev/sdb\x1b", "physical-device=8:10", "mode=w\x1b", "state=4\x1b", "dev=xv\x1bda")
	v := m.judge(t, Policy{}, "/dev/sdb")
	var b strings.Builder
	if err := v.Explain(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String() + strings.Join(v.Hints(), "\n") + v.Err().Error()
	for _, f := range v.All() {
		text += f.Key + f.Subject + f.Detail + f.Source + f.Remedy
		if strings.ContainsAny(f.Key, " \n;`'\"$&|<>(){}*?!\\") {
			t.Errorf("key %q is not safe in a shell", f.Key)
		}
	}
	if strings.ContainsRune(text, 0x1b) {
		t.Errorf("an escape character in %q", text)
	}
	if v.Decision != Refuse || !slices.Contains(v.Codes(), XenConnected) {
		t.Errorf("%s because of %v", v.Decision, v.Codes())
	}
}

func TestParseHexDevice(t *testing.T) {
	for s, want := range map[string]ID{
		"fd:0":          devID("253:0"),
		"FD:1f":         devID("253:31"),
		"7:0":           devID("7:0"),
		"103:10":        devID("259:16"),
		"fff:fffff":     BlockID(hostfs.Mkdev(0xfff, 0xfffff)),
		"":              {},
		"fd":            {},
		"fd:":           {},
		":0":            {},
		"fd:0:1":        {},
		"fd:0 ":         {},
		"0xfd:0":        {},
		"-1:0":          {},
		"fd:100000000":  {},
		"fd:0\x00":      {},
		"/dev/mapper/x": {},
	} {
		got, err := parseHexDevice(s)
		if got != want || (err != nil) != (want == ID{}) {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
}

// What a stub domain has open belongs to the domain that it serves, whose name
// --domain is about.
func TestStubDomain(t *testing.T) {
	for _, tt := range []struct{ target, subject, domain string }{
		{"7", "domain 9 (stub domain of web01)", "web01"},
		{"8", "domain 9 (stub domain of domain 8)", ""},
		{"8\x1b", `domain 9 (stub domain of domain "8\x1b")`, ""},
	} {
		m := newMachine()
		s := xenHost(t, m)
		s.SetAll("/local/domain/9", "name=web01-dm", "target="+tt.target)
		s.SetAll("/local/domain/0/backend/qdisk/9/51712", "params=aio:"+image, "mode=w", "state=4")
		fs := m.collect(t, xen{}, image)
		wantFound(t, fs, "xen.vbd.connected same web01-dm.9")
		if fs[0].Subject != tt.subject || fs[0].Domain != tt.domain {
			t.Errorf("%q: %q of %q", tt.target, fs[0].Subject, fs[0].Domain)
		}
	}
}

// A file in a directory that a living domain has as a file system is the
// domain's too, by whatever path one comes to it; a file beside it is not.
func TestSharedDirectories(t *testing.T) {
	const share = "/local/domain/0/backend/9pfs/7/0"
	const found = "xen.shared.dir same web01.7"
	for _, tt := range []struct {
		name   string
		build  func(m *machine, s *xenstoretest.Server)
		target string
		want   []string
	}{
		{"in it", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/srv/images", "state=4") }, image, []string{found}},
		{"below it", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/srv", "state=4") }, image, []string{found}},
		{"with an end of line", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/srv/images\n") }, image, []string{found}},
		{"the root", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/") }, image, []string{found}},
		{"through a link", func(m *machine, s *xenstoretest.Server) {
			m.link("/exports", "srv/images")
			s.SetAll("/local/domain/0/backend/xen_9pfs/7/0", "path=/exports")
		}, image, []string{found}},
		{"another mount of the directory", func(m *machine, s *xenstoretest.Server) {
			m.stat("/mnt/images", hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: 5})
			s.SetAll(share, "path=/mnt/images")
		}, image, []string{found}},
		{"the toolstack's copy alone", func(m *machine, s *xenstoretest.Server) {
			s.SetAll("/libxl/7/device/9pfs/0", "path=/srv/images", "backend="+share)
		}, image, []string{found}},
		{"the toolstack's copy beside its original", func(m *machine, s *xenstoretest.Server) {
			s.SetAll(share, "path=/srv/images")
			s.SetAll("/libxl/7/device/9pfs/0", "path=/srv/images", "backend="+share)
		}, image, []string{found}},
		{"beside it", func(m *machine, s *xenstoretest.Server) {
			m.dir("/srv/images2")
			s.SetAll(share, "path=/srv/images2")
		}, image, nil},
		{"gone", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/srv/gone") }, image, nil},
		{"no directory", func(m *machine, s *xenstoretest.Server) {
			m.stat("/run/console.sock", hostfs.Stat{Type: hostfs.Socket})
			s.SetAll("/local/domain/0/backend/console/7/1", "path=/run/console.sock")
		}, image, nil},
		{"of a domain that is gone", func(m *machine, s *xenstoretest.Server) {
			s.SetAll("/local/domain/0/backend/9pfs/8/0", "path=/srv/images")
		}, image, nil},
		{"of a driver domain", func(m *machine, s *xenstoretest.Server) {
			s.SetAll("/local/domain/5/backend/9pfs/7/0", "path=/srv/images")
		}, image, nil},
		{"a device in it", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/dev") }, "/dev/sda", nil},
		{"a new file", func(m *machine, s *xenstoretest.Server) { s.SetAll(share, "path=/srv/images") }, "/srv/images/new.img", nil},
		{"cannot be looked at", func(m *machine, s *xenstoretest.Server) {
			m.fs.SetErr("/far", syscall.EACCES)
			s.SetAll(share, "path=/far")
		}, image, []string{"blind.xen unrelated /far"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for _, d := range []string{"/srv", "/"} {
				m.fs.SetStat(d, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: m.inode(d)})
			}
			s := xenHost(t, m)
			tt.build(m, s)
			wantFound(t, m.collect(t, xen{}, tt.target), tt.want...)
		})
	}
}
