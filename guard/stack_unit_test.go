package guard

import (
	"slices"
	"strings"
	"syscall"
	"testing"
)

// way makes a disk of the machine a way to the unit with this wwid.
func (m *machine) way(name, wwid, size string) {
	dir := "/sys/block/" + name
	m.fs.SetDir(dir, append(m.dirs[dir], "device")...)
	m.file(dir+"/device/wwid", wwid)
	m.file(dir+"/size", size+"\n")
}

// ways is a machine with two ways to one disk of two partitions.
func ways() *machine {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
	m.disk("sdc", "8:32", "sdc1 8:33 2048 1000", "sdc2 8:34 3048 1000")
	m.way("sdb", "naa.600a098038\n", "1000000")
	m.way("sdc", "naa.600a098038\n", "1000000")
	return m
}

func TestWaysToOneDisk(t *testing.T) {
	m := ways()
	m.disk("sdd", "8:48")
	m.way("sdd", "naa.600a098039\n", "1000000")
	m.mapper("dm-0", "253:0", "paths", "0 1000000 multipath 0 0 1 1 service-time 0 1 2 8:32 1 1\n", "sdc")
	m.mapper("dm-1", "253:1", "first", "0 1000 linear 8:33 0\n", "sdc1")
	s, blind := m.stackOf(t)
	if blind != nil {
		t.Errorf("blind to %v", blind)
	}
	for _, tt := range []struct {
		target, other string
		want          Relation
	}{
		{"sdb", "sdc", Beside},
		{"sdb", "sdc1", Beside},
		{"sdb1", "sdc1", Beside},
		{"sdb1", "sdc", Beside},
		{"sdb1", "sdc2", Unrelated},
		{"sdb1", "sdb2", Unrelated},
		{"sdb1", "sdb", Whole},
		{"sdb", "sdd", Unrelated},
		{"sdc", "sdd", Unrelated},
		{"sda", "sdb", Unrelated},
		{"sdb", "paths", Beside},
		{"sdc", "paths", Above},
		{"sdb1", "first", Beside},
		{"sdb2", "first", Unrelated},
	} {
		target, other := idByName(t, s, tt.target), idByName(t, s, tt.other)
		if got := s.relate(target, s.footprint(target), other); got != tt.want {
			t.Errorf("%s and %s are %s, want %s", tt.target, tt.other, got, tt.want)
		}
		if got := s.relate(other, s.footprint(other), target); got != inverse[tt.want] {
			t.Errorf("%s and %s are %s, want %s", tt.other, tt.target, got, inverse[tt.want])
		}
	}
}

// Only an identifier that is made to be unique joins two disks, and only disks
// of one size.
func TestWhatMakesOneDisk(t *testing.T) {
	for _, tt := range []struct {
		first, second, firstSize, secondSize string
		want                                 Relation
	}{
		{"naa.600a098038\n", "naa.600a098038\n", "1000", "1000", Beside},
		{"eui.0025385b71b01234\n", "eui.0025385b71b01234\n", "1000", "1000", Beside},
		{"t10.ATA     QEMU HARDDISK   QM00001\n", "t10.ATA     QEMU HARDDISK   QM00001\n", "1000", "1000", Beside},
		{"naa.600a098038 \n", "naa.600a098038\n", "1000", "1000", Beside},
		{"naa.600a098038\n", "naa.600a098038\n", "1000", "1001", Unrelated},
		{"naa.600a098038\n", "naa.600a098039\n", "1000", "1000", Unrelated},
		{"\n", "\n", "1000", "1000", Unrelated},
		{"", "", "1000", "1000", Unrelated},
		{"naa.0000000000000000\n", "naa.0000000000000000\n", "1000", "1000", Unrelated},
		{"eui.0000000000000000\n", "eui.0000000000000000\n", "1000", "1000", Unrelated},
		{"t10.\n", "t10.\n", "1000", "1000", Unrelated},
		{"QEMU\n", "QEMU\n", "1000", "1000", Unrelated},
	} {
		m := newMachine()
		m.disk("sdb", "8:16")
		m.disk("sdc", "8:32")
		m.way("sdb", tt.first, tt.firstSize)
		m.way("sdc", tt.second, tt.secondSize)
		s, blind := m.stackOf(t)
		if got := s.relate(devID("8:16"), s.footprint(devID("8:16")), devID("8:32")); got != tt.want || blind != nil {
			t.Errorf("%q of %s and %q of %s: %s, want %s; blind to %v", tt.first, tt.firstSize, tt.second, tt.secondSize, got, tt.want, blind)
		}
	}
}

// A disk that has no wwid says so with an error; any other is blindness.
func TestUnreadableWWID(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{syscall.ENXIO: false, syscall.EINVAL: false, syscall.ENOENT: false, syscall.EIO: true, syscall.EACCES: true} {
		m := ways()
		m.fs.SetErr("/sys/block/sdb/device/wwid", errno)
		if _, blind := m.stackOf(t); slices.Contains(blind, "/sys/block/sdb") != want {
			t.Errorf("%v: blind to %v", errno, blind)
		}
	}
	m := ways()
	m.fs.SetErr("/sys/block/sdb/size", syscall.EIO)
	if _, blind := m.stackOf(t); !slices.Contains(blind, "/sys/block/sdb") {
		t.Errorf("no size: blind to %v", blind)
	}
}

// What uses one way uses the other; that there is another way is no use.
func TestUseOfTheOtherWay(t *testing.T) {
	m := ways()
	if v := m.judge(t, Policy{}, "/dev/sdb"); v.Decision != Proceed {
		t.Errorf("a free disk: %v", v.Because)
	}
	m.file("/proc/1/mountinfo", rootMount+"40 22 8:33 / /mnt rw - xfs /dev/sdc1 rw\n")
	for path, want := range map[string]bool{"/dev/sdb": true, "/dev/sdb1": true, "/dev/sdb2": false} {
		v := m.judge(t, Policy{}, path)
		if got := slices.Equal(v.Codes(), []Code{MountRW}); got != want {
			t.Errorf("%s: %v", path, v.Codes())
		}
	}
	m = ways()
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:33 0\n", "sdc1")
	wantFound(t, m.collect(t, holders{}, "/dev/sdb"), "holder.dm beside dm-0")
}

// An exclusive open of one way proves nothing about mounts from the other.
func TestExclusiveOpenOfOneWay(t *testing.T) {
	m := ways()
	m.fs.SetErr("/proc/50/mountinfo", syscall.EACCES)
	m.fs.SetLink("/proc/50/ns/mnt", "mnt:[2]")
	m.fs.SetLink("/proc/50/ns/pid", initPIDNamespace)
	m.disk("sdd", "8:48")
	for path, want := range map[string]Decision{"/dev/sdd": Proceed, "/dev/sdb": Refuse, "/dev/sdb1": Refuse} {
		if v := m.judge(t, Policy{}, path); v.Decision != want {
			t.Errorf("%s: %s: %s", path, v.Decision, strings.Join(found(v.All()), "; "))
		}
	}
}
