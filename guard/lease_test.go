package guard

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

// testHeld holds a real file as Write does.
func testHeld(t *testing.T, name string) *held {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &held{pid: os.Getpid(), file: f}
}

func TestLease(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		want  []string
	}{
		{"nobody has it open", func(m *machine) {}, []string{"lease.free same kernel"}},
		{"readers only", func(m *machine) { m.image(image, imageID, "read", 0) }, []string{"lease.readers same kernel"}},
		{"a writer", func(m *machine) { m.image(image, imageID, "", syscall.EAGAIN) }, []string{"lease.refused same kernel"}},
		{"a file system without leases", func(m *machine) { m.image(image, imageID, "", syscall.EINVAL) }, []string{"blind.lease unrelated lease"}},
		{"somebody else's file", func(m *machine) { m.image(image, imageID, "", syscall.EACCES) }, []string{"blind.lease unrelated lease"}},
		{"an answer of the future", func(m *machine) { m.image(image, imageID, "maybe", 0) }, []string{"blind.lease unrelated lease"}},
		{"no answer", func(m *machine) { m.image(image, imageID, "", 0) }, []string{"blind.lease unrelated lease"}},
		{"a lease of somebody's", func(m *machine) {
			m.file("/proc/locks", "1: POSIX  ADVISORY  WRITE 1 08:01:100 0 EOF\n2: LEASE  ACTIVE    READ 50 08:01:100 0 EOF\n")
			m.image(image, imageID, "", syscall.EIO) // asking would break it
		}, []string{"lease.taken same sshd.50"}},
		{"a delegation of the NFS server's", func(m *machine) {
			m.file("/proc/locks", "2: DELEG  ACTIVE    READ 50 08:01:100 0 EOF\n")
			m.image(image, imageID, "", syscall.EIO)
		}, []string{"lease.taken same sshd.50"}},
		{"a lease on a file of another file system", func(m *machine) {
			m.file("/proc/locks", "1: LEASE  ACTIVE    READ 50 08:02:100 0 EOF\n2: LEASE  ACTIVE    READ 50 00:2a:100 0 EOF\n")
		}, []string{"lease.free same kernel"}},
		{"a lease on a subvolume, whose table shows another device", func(m *machine) {
			m.file("/proc/locks", "2: LEASE  ACTIVE    READ 50 00:2a:100 0 EOF\n")
			m.image(image, FileID(hostfs.Mkdev(0, 43), 100), "", syscall.EIO)
		}, []string{"lease.taken same sshd.50"}},
		{"a lease on another file", func(m *machine) { m.file("/proc/locks", "2: LEASE  ACTIVE    READ 50 08:01:1100 0 EOF\n") },
			[]string{"lease.free same kernel"}},
		{"one who waits for a lock", func(m *machine) {
			m.file("/proc/locks", "1: FLOCK  ADVISORY  WRITE 1 08:01:100 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 2 08:01:100 0 EOF\n")
		}, []string{"lease.free same kernel"}},
		{"a table of locks that is cut off", func(m *machine) { m.file("/proc/locks", "2: LEASE  ACTIVE    READ 50 08:01:101 0") },
			[]string{"blind.lease unrelated /proc/locks"}},
		{"a table of locks that cannot be read", func(m *machine) { m.fs.SetErr("/proc/locks", syscall.EACCES) },
			[]string{"blind.lease unrelated /proc/locks"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			tt.build(m)
			wantFound(t, m.collect(t, lease{}, image), tt.want...)
		})
	}
	m := newMachine()
	m.disk("sdb", "8:16")
	wantFound(t, m.collect(t, lease{}, "/dev/sdb"))
	wantFound(t, m.collect(t, lease{}, "/srv/images/new.img"))
}

// In the second look the lease that we hold is the evidence, and nothing else.
func TestLeaseHeld(t *testing.T) {
	m := newMachine() // where a new question would be answered with "write"
	for _, tt := range []struct {
		name string
		held func(h *held)
		want string
	}{
		{"none was asked for", func(h *held) {}, "blind.lease unrelated lease"},
		{"refused", func(h *held) { h.leaseErr = syscall.EAGAIN }, "lease.refused same kernel"},
		{"refused, and only readers were seen", func(h *held) { h.leaseErr, h.readersOnly = syscall.EAGAIN, true }, "lease.readers same kernel"},
		{"impossible", func(h *held) { h.leaseErr = syscall.EINVAL }, "blind.lease unrelated lease"},
		{"impossible, and only readers were seen", func(h *held) { h.leaseErr, h.readersOnly = syscall.EINVAL, true }, "blind.lease unrelated lease"},
		{"said to be held, and is not", func(h *held) { h.leased = true }, "lease.refused same kernel"},
	} {
		h := testHeld(t, t.TempDir()+"/x")
		tt.held(h)
		if got := found(m.collectHeld(t, lease{}, image, h)); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
	}
	h := testHeld(t, t.TempDir()+"/x")
	if _, err := unix.FcntlInt(h.file.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	h.leased = true
	wantFound(t, m.collectHeld(t, lease{}, image, h), "lease.free same kernel")
}

func TestExcl(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		want  []string
	}{
		{"free", func(m *machine) {}, []string{"excl.free same kernel"}},
		{"claimed", func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EBUSY) }, []string{"excl.held same kernel"}},
		{"not allowed", func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EACCES) }, []string{"blind.excl unrelated excl"}},
		{"an answer of the future", func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "maybe", 0) }, []string{"blind.excl unrelated excl"}},
		{"read-only", func(m *machine) { m.fs.SetAsk(hostfs.ReadOnly, "/dev/sdb", "1", 0) }, []string{"excl.free same kernel", "device.readonly same kernel"}},
		{"perhaps read-only", func(m *machine) { m.fs.SetAsk(hostfs.ReadOnly, "/dev/sdb", "", syscall.EIO) }, []string{"excl.free same kernel", "blind.excl unrelated excl"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			tt.build(m)
			wantFound(t, m.collect(t, excl{}, "/dev/sdb"), tt.want...)
		})
	}
	wantFound(t, newMachine().collect(t, excl{}, image))

	// Our own exclusive open is the answer of the second look.
	m := newMachine()
	m.disk("sdb", "8:16")
	m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EBUSY)
	wantFound(t, m.collectHeld(t, excl{}, "/dev/sdb", testHeld(t, t.TempDir()+"/x")), "excl.free same kernel")
}

// A lease that is refused, and an opener or a lease of somebody's that is gone when
// it is looked at again, was another imgward's question.
func TestPassingProbe(t *testing.T) {
	taken := "1: LEASE  ACTIVE    WRITE 50 08:01:100 0 EOF\n"
	for _, tt := range []struct {
		name  string
		op    string // what is looked at
		path  string
		looks []func(m *machine) // what each look finds; the last stays
		want  []string           // with patience
		once  []string           // without
	}{
		{"a lease", "ask lease", image, []func(*machine){
			func(m *machine) { m.fs.SetAsk(hostfs.Lease, image, "", syscall.EAGAIN) },
			func(m *machine) { m.fs.SetAsk(hostfs.Lease, image, "read", 0) },
			func(m *machine) { m.fs.SetAsk(hostfs.Lease, image, "write", 0) },
		}, []string{"lease.free same kernel"}, []string{"lease.refused same kernel"}},
		{"readers who stay", "ask lease", image, []func(*machine){
			func(m *machine) { m.fs.SetAsk(hostfs.Lease, image, "read", 0) },
		}, []string{"lease.readers same kernel"}, []string{"lease.readers same kernel"}},
		{"somebody's lease", "read", image, []func(*machine){
			func(m *machine) { m.file("/proc/locks", taken) },
			func(m *machine) { m.file("/proc/locks", "") },
		}, []string{"lease.free same kernel"}, []string{"lease.taken same sshd.50"}},
		{"somebody's lease that stays", "read", image, []func(*machine){
			func(m *machine) { m.file("/proc/locks", taken) },
		}, []string{"lease.taken same sshd.50"}, []string{"lease.taken same sshd.50"}},
		{"an exclusive opener", "ask excl", "/dev/sdb", []func(*machine){
			func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EBUSY) },
			func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "free", 0) },
		}, []string{"excl.free same kernel"}, []string{"excl.held same kernel"}},
		{"one who stays", "ask excl", "/dev/sdb", []func(*machine){
			func(m *machine) { m.fs.SetAsk(hostfs.Excl, "/dev/sdb", "", syscall.EBUSY) },
		}, []string{"excl.held same kernel"}, []string{"excl.held same kernel"}},
		{"a reader", "stat", image, []func(*machine){
			func(m *machine) { m.open("/proc/50", "4", imageID, "0100000") },
			func(m *machine) { m.fs.SetErr("/proc/50/fd/4", syscall.ENOENT) },
		}, nil, []string{"fd.read same sshd.50"}},
		{"a descriptor that leads elsewhere now", "stat", image, []func(*machine){
			func(m *machine) { m.open("/proc/50", "4", imageID, "0100000") },
			func(m *machine) { m.open("/proc/50", "4", FileID(1, 1), "0100000") },
		}, nil, []string{"fd.read same sshd.50"}},
		{"a reader who stays", "stat", image, []func(*machine){
			func(m *machine) { m.open("/proc/50", "4", imageID, "0100000") },
		}, []string{"fd.read same sshd.50"}, []string{"fd.read same sshd.50"}},
		{"a reader who cannot be looked at again", "stat", image, []func(*machine){
			func(m *machine) { m.open("/proc/50", "4", imageID, "0100000") },
			func(m *machine) { m.fs.SetErr("/proc/50/fd/4", syscall.EACCES) },
		}, []string{"fd.read same sshd.50"}, []string{"fd.read same sshd.50"}},
		{"a writer, who is not waited for", "stat", image, []func(*machine){
			func(m *machine) { m.open("/proc/50", "4", imageID, "0100002") },
			func(m *machine) { m.fs.SetErr("/proc/50/fd/4", syscall.ENOENT) },
		}, []string{"fd.write same sshd.50"}, []string{"fd.write same sshd.50"}},
	} {
		collector := map[string]Collector{"ask lease": lease{}, "read": lease{}, "ask excl": excl{}, "stat": procfd{}}[tt.op]
		for _, patience := range []time.Duration{0, time.Second} {
			t.Run(fmt.Sprintf("%s/%s", tt.name, patience), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMachine()
					m.disk("sdb", "8:16")
					m.host.Patience = patience
					tt.looks[0](m)
					looked := 0
					m.host.FS = m.host.FS.Record(func(op, name string) {
						if op == tt.op && (op != "read" || name == "/proc/locks") && (op != "stat" || name == "/proc/50/fd/4") {
							tt.looks[min(looked, len(tt.looks)-1)](m)
							looked++
						}
					})
					want := tt.want
					if patience == 0 {
						want = tt.once
					}
					wantFound(t, m.collect(t, collector, tt.path), want...)
					if looked > looks {
						t.Errorf("looked %d times", looked)
					}
				})
			})
		}
	}
}

// An opener that is gone when the count is read again was a passing probe. One
// that stays refuses; so does any when nothing is read again.
func TestMapperCount(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patience time.Duration
		counts   []int // what each look finds; the last stays
		held     bool
		want     string
	}{
		{"nobody", 0, []int{0}, false, "dm.free same dm-0"},
		{"somebody", 0, []int{1}, false, "dm.open same dm-0"},
		{"a probe, and no patience", 0, []int{1, 0}, false, "dm.open same dm-0"},
		{"a probe", time.Second, []int{1, 0}, false, "dm.free same dm-0"},
		{"a long probe", time.Second, []int{1, 2, 1, 0}, false, "dm.free same dm-0"},
		{"one who stays", time.Second, []int{1, 1, 1, 1, 0}, false, "dm.open same dm-0"},
		{"we", 0, []int{1}, true, "dm.free same dm-0"},
		{"we and somebody", 0, []int{2}, true, "dm.open same dm-0"},
		{"somebody in our place", 0, []int{0}, true, "dm.open same dm-0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := (*held)(nil)
			if tt.held {
				h = testHeld(t, t.TempDir()+"/x")
			}
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				m.disk("sdb", "8:16")
				m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
				looked := 0
				m.host.Patience = tt.patience
				under := m.host.FS
				m.host.FS = under.Record(func(op, name string) {
					if op == "ask dm-status" {
						m.opened("253:0", tt.counts[min(looked, len(tt.counts)-1)])
						looked++
					}
				})
				wantFound(t, m.collectHeld(t, dm{}, "/dev/dm-0", h), tt.want)
			})
		})
	}
}

func TestMapperCountBlindness(t *testing.T) {
	for _, tt := range []struct {
		answer string
		errno  syscall.Errno
	}{{"", syscall.EACCES}, {"", syscall.ENXIO}, {"open=", 0}, {"open=x", 0}, {"suspended=0", 0}, {"open=1 sus", 0}} {
		m := newMachine()
		m.disk("sdb", "8:16")
		m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
		m.fs.SetAsk(hostfs.DMStatus, "253:0", tt.answer, tt.errno)
		got := m.collect(t, dm{}, "/dev/dm-0")
		if len(got) != 1 || got[0].Code != "blind.dm" {
			t.Errorf("%q, %v: found %q", tt.answer, tt.errno, found(got))
		}
	}
	m := newMachine()
	wantFound(t, m.collect(t, dm{}, "/dev/sda1")) // no device of device-mapper's
}

// What stands on the target is told by what it is.
func TestHolders(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
	m.disk("sdc", "8:32")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
	m.mapper("dm-1", "253:1", "byhand", "0 10 linear 8:17 50\n", "sdb1")
	m.device("md0", "9:0", []string{"sdc"}, "md")
	m.device("bcache0", "252:0", []string{"sdc"})
	m.loop("loop0", "7:0", onImage(0, 0))
	m.loop("loop1", "7:1", fmt.Sprintf("dev=8:1 ino=100 rdev=0:0 offset=0 sizelimit=0 ro=1 file=%q", image))
	m.partition("loop0", "loop0p1 259:0 8 8")
	for target, want := range map[string][]string{
		"/dev/sdb":   {"holder.dm above dm-0", "holder.dm above dm-1"},
		"/dev/sdb1":  {"holder.dm above dm-0", "holder.dm above dm-1"},
		"/dev/dm-0":  {"holder.dm beside dm-1"},
		"/dev/sdc":   {"holder.other above bcache0", "holder.md above md0"},
		"/dev/md0":   {"holder.other beside bcache0"},
		image:        {"loop.attached above loop0", "loop.readonly above loop1"},
		"/dev/loop0": {"loop.readonly beside loop1"},
		"/dev/sda1":  nil,
	} {
		t.Run(target, func(t *testing.T) { wantFound(t, m.collect(t, holders{}, target), want...) })
	}
}

// The mapping that LVM keeps over a thin pool in use stands against none of the
// pool's volumes, unless somebody has it open or that cannot be told. One that is
// not LVM's does.
func TestHoldersThinPool(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*machine)
		want   []string
	}{
		"idle":       {func(*machine) {}, nil},
		"open":       {func(m *machine) { m.opened("253:1", 1) }, []string{"holder.dm beside dm-1"}},
		"no count":   {func(m *machine) { m.fs.SetAsk(hostfs.DMStatus, "253:1", "open=x", 0) }, []string{"holder.dm beside dm-1"}},
		"not asked":  {func(m *machine) { m.fs.SetAsk(hostfs.DMStatus, "253:1", "", syscall.EACCES) }, []string{"holder.dm beside dm-1"}},
		"not LVM's":  {func(m *machine) { m.file("/sys/block/dm-1/dm/uuid", "CRYPT-x-pool\n") }, []string{"holder.dm beside dm-1"}},
		"not a pool": {func(m *machine) { m.file("/sys/block/dm-1/dm/uuid", "LVM-XoP81P0E3bOSLi2s-tpool\n") }, []string{"holder.dm beside dm-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "vg0-pool-tpool", "0 100 thin-pool 8:16 8:16 128 0 0\n", "sdb")
			m.mapper("dm-1", "253:1", "vg0-pool", "0 100 linear 253:0 0\n", "dm-0")
			m.file("/sys/block/dm-1/dm/uuid", "LVM-XoP81P0E3bOSLi2s-pool\n")
			m.mapper("dm-2", "253:2", "vg0-thin", "0 50 thin 253:0 1\n", "dm-0")
			m.mapper("dm-3", "253:3", "vg0-spare", "0 50 thin 253:0 2\n", "dm-0")
			tt.change(m)
			wantFound(t, m.collect(t, holders{}, "/dev/dm-2"), tt.want...)
			if above := found(m.collect(t, holders{}, "/dev/dm-0")); len(above) != 3 {
				t.Errorf("on the pool itself stand %q", above)
			}
		})
	}
}
