package guard

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// The image that the tests ask about, and what it really is.
const image = "/srv/images/web1.img"

var imageID = FileID(hostfs.Mkdev(8, 1), 100)

// A machine is a host in memory. A new one is a quiet host: a root file system
// on sda1, a process or two, and an image that nobody uses.
type machine struct {
	fs     *hostfs.Root
	host   *Host
	dirs   map[string][]string
	inodes []string // the directories that have numbers
}

func newMachine() *machine {
	m := &machine{fs: hostfs.New(), dirs: map[string][]string{}}
	m.host = &Host{FS: m.fs, State: "/var/lib/imgward"}
	for _, d := range []string{"/dev", "/etc", "/proc", "/run", "/srv/images", "/sys/block", "/sys/bus", "/sys/kernel", "/var/lib"} {
		m.dir(d)
	}
	m.file("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
	m.file("/proc/locks", "")
	m.link("/proc/self/ns/mnt", "mnt:[1]")
	m.link("/proc/self/ns/pid", initPIDNamespace)
	m.file("/proc/self/mountinfo", rootMount)
	m.stat("/proc/self/exe", hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(8, 1), Ino: 7})
	m.process("1", "init")
	m.process("50", "sshd")
	m.disk("sda", "8:0", "sda1 8:1 2048 1000000")
	m.image(image, imageID, "write", 0)
	return m
}

const rootMount = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro\n"

// list makes the directories above name know of it.
func (m *machine) list(name string) {
	for name != "/" {
		dir, base := path.Dir(name), path.Base(name)
		if !slices.Contains(m.dirs[dir], base) {
			m.dirs[dir] = append(m.dirs[dir], base)
			m.fs.SetDir(dir, m.dirs[dir]...)
		}
		name = dir
	}
}

func (m *machine) dir(name string) {
	m.list(name)
	m.fs.SetDir(name, m.dirs[name]...)
	m.fs.SetStat(name, hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: m.inode(name)})
}

// inode numbers directories: 5 is where the images are, and no two have the same.
func (m *machine) inode(dir string) uint64 {
	if dir == path.Dir(image) {
		return 5
	}
	if i := slices.Index(m.inodes, dir); i >= 0 {
		return uint64(1000 + i)
	}
	m.inodes = append(m.inodes, dir)
	return uint64(1000 + len(m.inodes) - 1)
}

func (m *machine) file(name, content string) {
	m.list(name)
	m.fs.SetFile(name, content)
}

func (m *machine) link(name, target string) {
	m.list(name)
	m.fs.SetLink(name, target)
}

func (m *machine) stat(name string, st hostfs.Stat) {
	m.list(name)
	m.fs.SetStat(name, st)
}

// image records a file under name and what the kernel answers when asked for a
// lease on it.
func (m *machine) image(name string, id ID, lease string, errno syscall.Errno) {
	m.stat(name, hostfs.Stat{Type: hostfs.Regular, Dev: id.Dev, Ino: id.Ino, Size: 1 << 20})
	m.fs.SetData(name, 0, "")
	m.fs.SetAsk(hostfs.Lease, name, lease, errno)
	m.fs.SetData(name, 0, "")
	m.fs.SetAsk(hostfs.Identity, name, fmt.Sprintf("fsuuid=u-1 ino=%d btime=1.000000001", id.Ino), 0)
}

// node records a device node and what the kernel answers about the device.
func (m *machine) node(name string, id ID) {
	m.stat(name, hostfs.Stat{Type: hostfs.BlockDevice, Dev: hostfs.Mkdev(0, 6), Ino: id.Rdev, Rdev: id.Rdev})
	m.fs.SetAsk(hostfs.Size, name, "1048576", 0)
	m.fs.SetAsk(hostfs.Excl, name, "free", 0)
	m.fs.SetData(name, 0, "")
	m.fs.SetAsk(hostfs.ReadOnly, name, "0", 0)
}

// device records a block device in sysfs, with entries in its directory, and its
// node.
func (m *machine) device(name, number string, slaves []string, entries ...string) ID {
	dir := "/sys/block/" + name
	place := "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/"
	if len(entries) > 0 {
		place = "virtual/block/"
	}
	m.link(dir, "../devices/"+place+name)
	m.file(dir+"/dev", number+"\n")
	m.fs.SetDir(dir+"/slaves", slaves...)
	m.list(dir + "/slaves")
	for _, s := range slaves {
		disk := strings.TrimRight(s, "0123456789")
		b, err := m.fs.ReadFile("/sys/block/" + s + "/dev")
		if err != nil {
			b, _ = m.fs.ReadFile("/sys/block/" + disk + "/" + s + "/dev")
		}
		m.file(dir+"/slaves/"+s+"/dev", string(b))
	}
	m.fs.SetDir(dir+"/slaves", slaves...)
	for _, e := range entries {
		m.list(dir + "/" + e)
	}
	id := devID(number)
	m.node("/dev/"+strings.ReplaceAll(name, "!", "/"), id)
	return id
}

// disk records a disk and its partitions, each "name number start sectors".
func (m *machine) disk(name, number string, partitions ...string) ID {
	id := m.device(name, number, nil)
	for _, p := range partitions {
		m.partition(name, p)
	}
	return id
}

func (m *machine) partition(disk, p string) {
	f := strings.Fields(p)
	dir := "/sys/block/" + disk + "/" + f[0]
	m.file(dir+"/partition", "1\n")
	m.file(dir+"/dev", f[1]+"\n")
	m.file(dir+"/start", f[2]+"\n")
	m.file(dir+"/size", f[3]+"\n")
	m.node("/dev/"+f[0], devID(f[1]))
}

// mapper records a device-mapper device that nobody has open.
func (m *machine) mapper(name, number, alias, table string, slaves ...string) ID {
	id := m.device(name, number, slaves, "dm")
	m.file("/sys/block/"+name+"/dm/name", alias+"\n")
	m.file("/sys/block/"+name+"/dm/uuid", "LVM-"+alias+"\n")
	m.fs.SetAsk(hostfs.DMTable, number, table, 0)
	m.opened(number, 0)
	return id
}

// opened sets the count of openers of a device-mapper device.
func (m *machine) opened(number string, n int) {
	m.fs.SetAsk(hostfs.DMStatus, number, fmt.Sprintf("open=%d suspended=0 uuid=\"LVM-x\" name=\"x\"", n), 0)
}

// loop records a loop device that is attached to what status says.
func (m *machine) loop(name, number, status string) ID {
	id := m.device(name, number, nil, "loop")
	m.file("/sys/block/"+name+"/loop/backing_file", image+"\n")
	m.fs.SetAsk(hostfs.LoopStatus, "/dev/"+name, status, 0)
	return id
}

// onImage is the status of a loop device on the image.
func onImage(offset, limit int) string {
	return fmt.Sprintf("dev=8:1 ino=100 rdev=0:0 offset=%d sizelimit=%d ro=0 file=%q", offset, limit, image)
}

// process records a process without descriptors or mappings in the first mount
// namespace.
func (m *machine) process(pid, comm string) {
	dir := "/proc/" + pid
	m.file(dir+"/comm", comm+"\n")
	m.file(dir+"/maps", "")
	m.link(dir+"/ns/mnt", "mnt:[1]")
	m.file(dir+"/mountinfo", rootMount)
	m.file(dir+"/stat", pid+" ("+comm+") S"+strings.Repeat(" 0", 18)+" 4711 0 0\n")
	m.fs.SetDir(dir+"/fd", m.dirs[dir+"/fd"]...)
	m.list(dir + "/fd")
	m.file(dir+"/task/"+pid+"/comm", comm+"\n")
}

// open records a descriptor in dir, "/proc/PID" or "/proc/PID/task/TID".
func (m *machine) open(dir, fd string, id ID, flags string) {
	st := hostfs.Stat{Type: hostfs.Regular, Dev: id.Dev, Ino: id.Ino}
	if id.Kind == KindBlock {
		st = hostfs.Stat{Type: hostfs.BlockDevice, Rdev: id.Rdev}
	}
	m.link(dir+"/fd/"+fd, "/whatever")
	m.stat(dir+"/fd/"+fd, st)
	m.file(dir+"/fdinfo/"+fd, "pos:\t0\nflags:\t"+flags+"\nmnt_id:\t21\n")
}

// collect has one collector look at path.
func (m *machine) collect(t *testing.T, c Collector, path string) []Finding {
	t.Helper()
	return m.examine(t, path, nil, c).Findings
}

// collectHeld has one collector look a second time, with what we hold.
func (m *machine) collectHeld(t *testing.T, c Collector, path string, h *held) []Finding {
	t.Helper()
	return m.examine(t, path, h, c).Findings
}

func (m *machine) examine(t *testing.T, path string, h *held, cs ...Collector) Evidence {
	t.Helper()
	target := m.resolve(t, path)
	target.held = h
	return Examine(t.Context(), m.host, target, cs)
}

func (m *machine) resolve(t *testing.T, path string) *Target {
	t.Helper()
	target, err := Resolve(t.Context(), m.host, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

// judge has every collector look and judges under the policy.
func (m *machine) judge(t *testing.T, p Policy, path string) Verdict {
	t.Helper()
	return p.Judge(m.examine(t, path, nil, Collectors()...).Findings)
}

func devID(number string) ID {
	dev, err := hostfs.ParseDev(number)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return BlockID(dev)
}

// found lists findings as "code relation key".
func found(fs []Finding) []string {
	out := []string{}
	for _, f := range fs {
		out = append(out, fmt.Sprintf("%s %s %s", f.Code, f.Relation, f.Key))
	}
	return out
}

// wantFound fails unless the findings are exactly these.
func wantFound(t *testing.T, fs []Finding, want ...string) {
	t.Helper()
	if got := found(fs); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
		for _, f := range fs {
			t.Logf("%s %s: %s (%s)", f.Code, f.Subject, f.Detail, f.Source)
		}
	}
}

// The host that the other tests disturb is one on which everything is free.
func TestQuietHost(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
	m.mapper("dm-0", "253:0", "vg0-db1", "0 100 linear 8:17 0\n", "sdb1")
	m.loop("loop0", "7:0", "dev=8:1 ino=101 rdev=0:0 offset=0 sizelimit=0 ro=0 file=\"/x\"")
	for path, want := range map[string][]string{
		image:                            {"lease.free same kernel"},
		"/dev/dm-0":                      {"dm.free same dm-0", "excl.free same kernel"},
		"/dev/loop0":                     {"excl.free same kernel"},
		"/srv/images/new.img":            {},
		"/srv/images/../images/web1.img": {"lease.free same kernel"},
	} {
		v := m.judge(t, Policy{}, path)
		if v.Decision != Proceed {
			t.Errorf("%s: %s because of %v", path, v.Decision, v.Because)
		}
		wantFound(t, v.All(), want...)
	}
}
