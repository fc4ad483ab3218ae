package guard

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imgward/guard/hostfs"
)

// overlay is the header of a qcow2 image on a backing file; on nothing if "".
func overlay(backing string) string {
	be := binary.BigEndian
	b := make([]byte, 512, 4096)
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 2)
	be.PutUint32(b[20:], 16)
	if backing != "" {
		be.PutUint64(b[8:], 512)
		be.PutUint32(b[16:], uint32(len(backing)))
	}
	return string(append(b, backing...))
}

// header records a file with a header at its start.
func (m *machine) header(name string, ino uint64, text string) ID {
	id := FileID(hostfs.Mkdev(8, 1), ino)
	m.image(name, id, "write", 0)
	m.fs.SetData(name, 0, text)
	return id
}

// served makes QEMU serve an image to a domain of a Xen host, 7 (web01).
func (m *machine) served(t *testing.T, domid, image string) {
	t.Helper()
	xenHost(t, m).SetAll("/local/domain/0/backend/qdisk/"+domid+"/51712", "params=qcow2:"+image)
}

func TestChain(t *testing.T) {
	const dir = "/srv/images"
	for _, tt := range []struct {
		name string
		made func(t *testing.T, m *machine)
		path string
		want []string
	}{
		{"images of their own", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay(""))
			m.header(dir+"/b.raw", 202, "raw")
		}, image, nil},
		{"an overlay beside it", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
		}, image, []string{"chain.parent same /srv/images/a.qcow2"}},
		{"an overlay by its full name", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("/srv/images/web1.img"))
		}, image, []string{"chain.parent same /srv/images/a.qcow2"}},
		{"an overlay by another name of the file", func(t *testing.T, m *machine) {
			m.link("/srv/current", image)
			m.header(dir+"/a.qcow2", 201, overlay("../current"))
		}, image, []string{"chain.parent same /srv/images/a.qcow2"}},
		{"the same name elsewhere", func(t *testing.T, m *machine) {
			m.header("/srv/other/web1.img", 300, "")
			m.header("/srv/other/a.qcow2", 201, overlay("web1.img"))
			m.served(t, "7", "/srv/other/a.qcow2")
		}, image, nil},
		{"a chain", func(t *testing.T, m *machine) {
			m.header(dir+"/c.qcow2", 203, overlay("b.qcow2"))
			m.header(dir+"/b.qcow2", 202, overlay("a.qcow2"))
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
		}, image, []string{"chain.parent same /srv/images/a.qcow2", "chain.parent above /srv/images/b.qcow2", "chain.parent above /srv/images/c.qcow2"}},
		{"images that stand on one another", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("b.qcow2"))
			m.header(dir+"/b.qcow2", 202, overlay("a.qcow2"))
			m.header(dir+"/c.qcow2", 203, overlay("c.qcow2"))
		}, image, nil},
		{"the target is an overlay itself", func(t *testing.T, m *machine) {
			m.fs.SetData(image, 0, overlay("base.img"))
			m.header(dir+"/base.img", 201, "raw")
		}, image, nil},
		{"a header of the future", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, "QFI\xfb\x00\x00\x00\x09")
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"a file that cannot be read", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.fs = m.fs.Fail("data "+dir+"/a.qcow2", syscall.EACCES)
			m.host.FS = m.fs
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"a directory that cannot be read", func(t *testing.T, m *machine) {
			m.fs = m.fs.Fail("dir "+dir, syscall.EACCES)
			m.host.FS = m.fs
		}, image, []string{"blind.chain unrelated /srv/images"}},
		{"a base that cannot be looked at", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("/srv/locked/x"))
			m.fs.SetErr("/srv/locked", syscall.EACCES)
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"a base that does not exist", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("/srv/gone"))
			m.fs.SetErr("/srv/gone", syscall.ENOENT)
		}, image, nil},
		{"a name that is not understood", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("json:{'file.filename':'web1.img'}"))
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"an overlay of a domain", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("../images/web1.img"))
			m.served(t, "7", "/srv/overlays/a.qcow2")
		}, image, []string{"chain.live same web01.7"}},
		{"the top of a chain is a domain's", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/overlays/b.qcow2"))
			m.header("/srv/overlays/b.qcow2", 202, overlay("/srv/images/web1.img"))
			m.served(t, "7", "/srv/overlays/a.qcow2")
		}, image, []string{"chain.live above web01.7", "chain.parent same /srv/overlays/b.qcow2"}},
		{"an overlay of a domain that is configured", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/images/web1.img"))
			m.file("/etc/xen/a.cfg", "name = 'a'\ndisk = [ '/srv/overlays/a.qcow2,qcow2,xvda,w' ]\n")
		}, image, []string{"chain.parent same /srv/overlays/a.qcow2"}},
		{"an overlay of a domain that runs, as its record says", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/images/web1.img"))
			m.file("/etc/xen/a.cfg", "name = 'a'\ndisk = [ '/srv/overlays/a.qcow2,qcow2,xvda,w' ]\n")
			m.file("/var/lib/xen/userdata-d.3.x.libxl-json", `{"c_info": {"name": "a"}, "disks": [{"pdev_path": "/srv/overlays/a.qcow2"}]}`)
		}, image, []string{"chain.live same a"}},
		{"an overlay in a storage pool", func(t *testing.T, m *machine) {
			m.header("/srv/pool/a.qcow2", 201, overlay("/srv/images/web1.img"))
			m.file("/etc/libvirt/storage/p.xml", "<pool type='dir'><name>p</name><target><path>/srv/pool</path></target></pool>")
		}, image, []string{"chain.parent same /srv/pool/a.qcow2"}},
		{"an overlay of a domain that is gone", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/images/web1.img"))
			m.served(t, "4", "/srv/overlays/a.qcow2")
		}, image, []string{"chain.parent same /srv/overlays/a.qcow2"}},
		{"an overlay of a domain whose name cannot be looked up", func(t *testing.T, m *machine) {
			m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/images/web1.img"))
			m.served(t, "7", "/srv/overlays/a.qcow2")
			m.fs = m.fs.Fail("stat /srv/overlays/a.qcow2", syscall.EIO)
			m.host.FS = m.fs
		}, image, []string{"blind.chain unrelated /srv/overlays/a.qcow2"}},
		{"a device, and an overlay on it", func(t *testing.T, m *machine) {
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
			m.header("/srv/overlays/a.qcow2", 201, overlay("/dev/sdb1"))
			m.served(t, "7", "/srv/overlays/a.qcow2")
		}, "/dev/sdb", []string{"chain.live partition web01.7"}},
		{"a device of its own", func(t *testing.T, m *machine) { m.disk("sdb", "8:16") }, "/dev/sdb", nil},
		{"a name under which something is missed", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("new.img"))
		}, dir + "/new.img", []string{"chain.parent named /srv/images/a.qcow2"}},
		{"a name that nobody misses", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("newer.img"))
			m.fs.SetErr(dir+"/newer.img", syscall.ENOENT)
		}, dir + "/new.img", nil},
		{"somebody has a lease on the overlay", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/locks", "1: LEASE  ACTIVE    WRITE 50 08:01:201 0 EOF\n")
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"the table of locks cannot be read", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.fs.SetErr("/proc/locks", syscall.EACCES)
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"there is no table of locks", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.fs.SetErr("/proc/locks", syscall.ENOENT)
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"we write to the overlay", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/locks", "1: LEASE  ACTIVE    WRITE "+strconv.Itoa(os.Getpid())+" 08:01:201 0 EOF\n")
		}, image, nil},
		{"another imgward writes to the overlay", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.dir(marksPath)
			m.file(marksPath+"/a", `{"id":"x","pid":"50","pid-namespace":"pid:[4026531836]","start":"4711","boot":"boot-1","numbers":{"Kind":1,"Dev":2049,"Ino":201}}`)
		}, image, nil},
		{"an imgward of another PID namespace has ended, or not", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.dir(marksPath)
			m.file(marksPath+"/a", `{"id":"x","pid":"50","pid-namespace":"pid:[1]","start":"4711","boot":"boot-1","numbers":{"Kind":1,"Dev":2049,"Ino":201}}`)
		}, image, []string{"chain.parent same /srv/images/a.qcow2"}},
		{"another imgward writes elsewhere", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/locks", "1: LEASE  ACTIVE    WRITE 50 08:01:201 0 EOF\n")
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.dir(marksPath)
			m.file(marksPath+"/a", `{"id":"x","pid":"50","pid-namespace":"pid:[4026531836]","start":"4711","boot":"boot-1","numbers":{"Kind":1,"Dev":2049,"Ino":202}}`)
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"a file that nobody may open", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.fs = m.fs.Fail("data "+dir+"/a.qcow2", syscall.ETXTBSY)
			m.host.FS = m.fs
		}, image, []string{"blind.chain unrelated /srv/images/a.qcow2"}},
		{"a record of a write that has ended", func(t *testing.T, m *machine) {
			m.header(dir+"/a.qcow2", 201, overlay("web1.img"))
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.dir(marksPath)
			m.file(marksPath+"/a", `{"id":"x","pid":"50","pid-namespace":"pid:[4026531836]","start":"4710","boot":"boot-1","numbers":{"Kind":1,"Dev":2049,"Ino":201}}`)
		}, image, []string{"chain.parent same /srv/images/a.qcow2"}},
		{"what is no file", func(t *testing.T, m *machine) {
			m.stat(dir+"/pipe", hostfs.Stat{Type: hostfs.FIFO})
			m.stat(dir+"/empty", hostfs.Stat{Type: hostfs.Regular, Dev: 1, Ino: 300})
			m.dir(dir + "/folder")
			m.link(dir+"/dangling", "/nowhere")
			m.fs.SetErr("/nowhere", syscall.ENOENT)
		}, image, nil},
		{"many overlays", func(t *testing.T, m *machine) {
			for i := range maxSaid + 1 {
				m.header(fmt.Sprintf("%s/%d.qcow2", dir, i), uint64(300+i), overlay("web1.img"))
			}
		}, image, []string{"chain.parent same images.9"}},
		{"many domains", func(t *testing.T, m *machine) {
			s := xenHost(t, m)
			for i := range maxSaid + 1 {
				name := fmt.Sprintf("%s/%d.qcow2", dir, i)
				m.header(name, uint64(300+i), overlay("web1.img"))
				domid := strconv.Itoa(20 + i)
				s.SetAll("/local/domain/"+domid, "name=d"+domid)
				s.SetAll("/local/domain/0/backend/qdisk/"+domid+"/51712", "params=qcow2:"+name)
			}
		}, image, []string{"chain.live same domains.9"}},
		{"some overlays", func(t *testing.T, m *machine) {
			for i := range maxSaid {
				m.header(fmt.Sprintf("%s/%d.qcow2", dir, i), uint64(300+i), overlay("web1.img"))
			}
		}, image, []string{
			"chain.parent same /srv/images/0.qcow2", "chain.parent same /srv/images/1.qcow2", "chain.parent same /srv/images/2.qcow2", "chain.parent same /srv/images/3.qcow2",
			"chain.parent same /srv/images/4.qcow2", "chain.parent same /srv/images/5.qcow2", "chain.parent same /srv/images/6.qcow2", "chain.parent same /srv/images/7.qcow2",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.fs.SetErr(marksPath, syscall.ENOENT)
			tt.made(t, m)
			wantFound(t, m.collect(t, chain{}, tt.path), tt.want...)
		})
	}
}

// The base of a domain's image is not the domain's: to say whose machine is
// rebuilt allows to destroy what the machine has, and not what it stands on.
func TestChainBelongsToNoDomain(t *testing.T) {
	m := newMachine()
	m.header("/srv/images/a.qcow2", 201, overlay("web1.img"))
	m.served(t, "7", "/srv/images/a.qcow2")
	for _, f := range m.collect(t, chain{}, image) {
		if f.Domain != "" {
			t.Errorf("%s names domain %q", f.Code, f.Domain)
		}
	}
	if v := m.judge(t, Policy{Domain: "web01"}, image); v.Decision != Refuse {
		t.Errorf("--domain web01 lets its base be destroyed: %v", v.Context)
	}
}

// What comes into a directory, or changes there, while xenstore is asked is seen.
func TestChainWhileXenstoreAnswers(t *testing.T) {
	const name = "/srv/images/a.qcow2"
	for what, change := range map[string]func(m *machine){
		"a new overlay": func(m *machine) { m.header("/srv/images/b.qcow2", 202, overlay("web1.img")) },
		"a header that was written": func(m *machine) {
			m.fs.SetStat(name, hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(8, 1), Ino: 201, Size: 4096, MtimeNs: 1})
			m.fs.SetData(name, 0, overlay("web1.img"))
		},
		"another file of the name": func(m *machine) { m.header(name, 203, overlay("web1.img")) },
	} {
		m := newMachine()
		m.header(name, 201, overlay(""))
		xenHost(t, m)
		m.host.Store = &changingStore{Store: m.host.Store, changes: 1, change: func() { change(m) }}
		if got := found(m.collect(t, chain{}, image)); len(got) != 1 || !strings.HasPrefix(got[0], "chain.parent same ") {
			t.Errorf("%s: found %q", what, got)
		}
	}
}

// A file that is moved away between the listing and the reading is read by its new
// name, and what got the old one is another file.
func TestChainWhileFilesMove(t *testing.T) {
	const old, moved = "/srv/images/a.qcow2", "/srv/images/b.qcow2"
	for what, heir := range map[string]func(m *machine){
		"nothing in its place": func(m *machine) {
			m.fs.Delete("stat " + old)
			m.fs.Delete("data " + old)
		},
		"another in its place": func(m *machine) { m.header(old, 202, overlay("")) },
	} {
		m := newMachine()
		m.header(old, 201, overlay("web1.img"))
		xenHost(t, m)
		var once sync.Once
		fs := m.fs
		m.host.FS = fs.Record(func(op, name string) {
			if op == "content" && name == old {
				once.Do(func() {
					heir(m)
					m.header(moved, 201, overlay("web1.img"))
				})
			}
		})
		if got := found(m.collect(t, chain{}, image)); len(got) != 1 || !strings.HasPrefix(got[0], "chain.parent same ") {
			t.Errorf("%s: found %q", what, got)
		}
	}
}

// So is one that comes while xenstore answers and is moved away after that; one that
// is moved all the time is not taken for removed, and one that is removed is.
func TestChainWhileNewFilesMove(t *testing.T) {
	const name = "/srv/images/%d.qcow2"
	for what, tt := range map[string]struct {
		moves int
		want  string
	}{
		"once":         {1, "chain.parent same "},
		"all the time": {100, "blind.chain unrelated "},
		"away":         {-1, ""},
	} {
		m := newMachine()
		xenHost(t, m)
		at := 0
		m.host.Store = &changingStore{Store: m.host.Store, changes: 1, change: func() { m.header(fmt.Sprintf(name, 0), 201, overlay("web1.img")) }}
		fs := m.fs
		m.host.FS = fs.Record(func(op, file string) {
			if op != "content" || file != fmt.Sprintf(name, at) || at == tt.moves {
				return
			}
			m.fs.Delete("stat " + file)
			m.fs.Delete("data " + file)
			m.fs.SetErr(file, syscall.ENOENT)
			if at++; tt.moves > 0 {
				m.header(fmt.Sprintf(name, at), 201, overlay("web1.img"))
			}
		})
		got := found(m.collect(t, chain{}, image))
		if len(got) != min(1, len(tt.want)) || tt.want != "" && !strings.HasPrefix(got[0], tt.want) {
			t.Errorf("%s: found %q", what, got)
		}
	}
}

// A lease that is taken only to ask for it does not hide what the image stands on.
func TestChainWaitsForPassingLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.host.Patience = time.Second
		m.header("/srv/images/a.qcow2", 201, overlay("web1.img"))
		m.file("/proc/locks", "1: LEASE  ACTIVE    WRITE 50 08:01:201 0 EOF\n")
		time.AfterFunc(time.Second/2, func() { m.file("/proc/locks", "") })
		wantFound(t, m.collect(t, chain{}, image), "chain.parent same /srv/images/a.qcow2")
	})
}

// Neither does one that was taken after the table of locks was read, by which the
// kernel refuses to open the image.
func TestChainMeetsPassingLease(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EAGAIN, syscall.ETXTBSY, syscall.EPERM} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine()
			m.host.Patience = 200 * time.Millisecond
			m.header("/srv/images/a.qcow2", 201, overlay("web1.img"))
			m.fs = m.fs.Fail("data /srv/images/a.qcow2", errno)
			m.host.FS = m.fs
			wantFound(t, m.collect(t, chain{}, image), "blind.chain unrelated /srv/images/a.qcow2")
			time.AfterFunc(300*time.Millisecond, func() { m.fs.SetData("/srv/images/a.qcow2", 0, overlay("web1.img")) })
			wantFound(t, m.collect(t, chain{}, image), "chain.parent same /srv/images/a.qcow2")
		})
	}
}

// More files than are looked at are said, not left out.
func TestChainIsBounded(t *testing.T) {
	m := newMachine()
	for i := range maxImages + 1 {
		name := fmt.Sprintf("/srv/images/%06d", i)
		m.dirs["/srv/images"] = append(m.dirs["/srv/images"], path.Base(name))
		m.fs.SetStat(name, hostfs.Stat{Type: hostfs.Regular, Dev: 9, Ino: uint64(1000 + i), Size: 1})
		m.fs.SetData(name, 0, "")
	}
	m.fs.SetDir("/srv/images", m.dirs["/srv/images"]...)
	// However long it takes here, no deadline comes.
	synctest.Test(t, func(t *testing.T) {
		wantFound(t, m.collect(t, chain{}, image), "blind.chain unrelated /srv/images")
	})
}

func TestReferencePaths(t *testing.T) {
	for _, tt := range []struct {
		dir, name string
		want      []string
	}{
		{"/d", "base.img", []string{"/d/base.img"}},
		{"/", "base.img", []string{"/base.img"}},
		{"/d", "../base.img", []string{"/d/../base.img"}},
		{"/d", "/srv/base.img", []string{"/srv/base.img"}},
		{"/d", "file:/srv/base.img", []string{"/d/file:/srv/base.img", "/srv/base.img"}},
		{"/d", "file:base.img", []string{"/d/file:base.img", "/d/base.img"}},
		{"/d", "file:///srv/base.img", []string{"/srv/base.img"}},
		{"/d", "host_device:/dev/sdb", []string{"/d/host_device:/dev/sdb", "/dev/sdb"}},
		{"/d", "nbd://host/x", nil},
		{"/d", "nbd:unix:/run/x", []string{"/d/nbd:unix:/run/x"}},
		{"/d", `json:{"driver":"raw","file":{"driver":"file","filename":"/srv/b"}}`, []string{"/srv/b"}},
		{"/d", `json:{"file.filename":"b", "x.filename":"file:c"}`, []string{"/d/b", "/d/file:c", "/d/c"}},
		{"/d", `json:{"driver":"quorum","children":[{"filename":"a"},{"file":{"filename":"b"}}]}`, []string{"/d/a", "/d/b"}},
		{"/d", `json:{"driver":"nbd","host":"x"}`, nil},
		{"/d", `json:{}`, nil},
	} {
		if got, err := referencePaths(tt.dir, tt.name); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s in %s: %q, %v, want %q", tt.name, tt.dir, got, err, tt.want)
		}
	}
	for _, bad := range []string{"json:", "json:x", "json:[]", "json:{'filename':'a'}", `json:{"a":1} x`} {
		if got, err := referencePaths("/d", bad); err == nil {
			t.Errorf("%s is understood as %q", bad, got)
		}
	}
}

// Whatever a header names, only absolute paths come of it, and what is written as
// a plain path leads there.
func FuzzReferencePaths(f *testing.F) {
	f.Add("/srv/images", "base.img")
	f.Add("/srv/images", "file:/x")
	f.Add("/", `json:{"file":{"filename":"/x"},"a":[1,null,"b"]}`)
	f.Add("/srv", "host_device:")
	f.Fuzz(func(t *testing.T, dir, name string) {
		if !path.IsAbs(dir) {
			return
		}
		got, err := referencePaths(dir, name)
		for _, p := range got {
			if !path.IsAbs(p) {
				t.Errorf("%q in %q leads to %q", name, dir, p)
			}
		}
		if err != nil && printable(err.Error()) != err.Error() {
			t.Errorf("raw text in %q", err)
		}
		if !strings.Contains(name, ":") && name != "" && len(got) == 0 {
			t.Errorf("%q leads nowhere", name)
		}
		if path.IsAbs(name) && !strings.Contains(name, "://") && !slices.Contains(got, name) {
			t.Errorf("%q leads to %q", name, got)
		}
	})
}

// Who has the image that stands on the target is said.
func TestChainNamesOwners(t *testing.T) {
	m := newMachine()
	m.header("/srv/overlays/a.qcow2", 201, overlay("/srv/images/web1.img"))
	for _, name := range []string{"a", "b"} {
		m.file("/etc/xen/"+name+".cfg", "name = '"+name+"'\ndisk = [ '/srv/overlays/a.qcow2,qcow2,xvda,w' ]\n")
	}
	fs := m.collect(t, chain{}, image)
	if want := "image /srv/overlays/a.qcow2 (of domain a, configured; domain b, configured)"; len(fs) != 1 || fs[0].Subject != want {
		t.Errorf("found %+v, want %q", fs, want)
	}
}
