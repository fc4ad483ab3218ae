package guard

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// stackOf reads the machine's block layer; what could not be read is in blind.
func (m *machine) stackOf(t *testing.T) (s *stack, blind []string) {
	t.Helper()
	s = readStack(t.Context(), m.fs, func(where string, err error) { blind = append(blind, where) })
	return s, blind
}

// idByName finds a device by its kernel name or what device-mapper calls it; a
// name with a slash is the image.
func idByName(t *testing.T, s *stack, name string) ID {
	t.Helper()
	if strings.Contains(name, "/") {
		return imageID
	}
	for id, d := range s.devices {
		if d.name == name || d.alias == name {
			return id
		}
	}
	t.Fatalf("no device %s", name)
	return ID{}
}

// inverse gives the relation as seen from the other side.
var inverse = map[Relation]Relation{
	Unrelated: Unrelated, Same: Same, Partition: Whole, Whole: Partition, Above: Below, Below: Above, Beside: Beside,
}

func TestRelations(t *testing.T) {
	type pair struct {
		target, other string
		want          Relation
	}
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		pairs []pair
	}{
		{"partitions of one disk", func(m *machine) {
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000", "sdb3 8:19 4047 1")
		}, []pair{
			{"sdb", "sdb", Same},
			{"sdb", "sdb1", Partition},
			{"sdb1", "sdb", Whole},
			{"sdb1", "sdb2", Unrelated},
			{"sdb2", "sdb3", Beside}, // it begins on the last sector
			{"sdb1", "sda", Unrelated},
		}},
		{"logical volumes", func(m *machine) {
			m.disk("sdb", "8:16", "sdb1 8:17 2048 100000", "sdb2 8:18 102048 100000")
			m.mapper("dm-0", "253:0", "vg0-a", "0 1000 linear 8:17 0\n", "sdb1")
			m.mapper("dm-1", "253:1", "vg0-b", "0 1000 linear 8:17 1000\n", "sdb1")
			m.mapper("dm-2", "253:2", "byhand", "0 10 linear 8:16 3047\n", "sdb")  // the last of a, the first of b
			m.mapper("dm-3", "253:3", "outside", "0 10 linear 8:16 4048\n", "sdb") // the first after b
			m.mapper("dm-4", "253:4", "vg0-c", "0 500 linear 8:17 5000\n500 500 linear 8:18 0\n", "sdb1", "sdb2")
		}, []pair{
			{"vg0-a", "sdb1", Below},
			{"vg0-a", "sdb", Below},
			{"sdb1", "vg0-a", Above},
			{"sdb", "vg0-a", Above},
			{"vg0-a", "vg0-b", Unrelated},
			{"vg0-a", "byhand", Beside},
			{"vg0-b", "byhand", Beside},
			{"vg0-a", "outside", Unrelated},
			{"vg0-b", "outside", Unrelated},
			{"vg0-a", "sdb2", Unrelated},
			{"vg0-c", "sdb2", Below},
			{"vg0-c", "vg0-a", Unrelated},
		}},
		{"thin volumes", func(m *machine) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "tmeta", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-1", "253:1", "tdata", "0 1000 linear 8:16 100\n", "sdb")
			m.mapper("dm-2", "253:2", "tpool", "0 1000 thin-pool 253:0 253:1 128 0 0\n", "dm-0", "dm-1")
			m.mapper("dm-3", "253:3", "thin1", "0 5000 thin 253:2 1\n", "dm-2")
			m.mapper("dm-4", "253:4", "thin2", "0 5000 thin 253:2 2\n", "dm-2")
			m.mapper("dm-5", "253:5", "again1", "0 5000 thin 253:2 1\n", "dm-2")
			m.mapper("dm-7", "253:7", "origin", "0 1000 linear 8:16 2000\n", "sdb")
			m.mapper("dm-6", "253:6", "ext", "0 5000 thin 253:2 3 253:7\n", "dm-2", "dm-7")
			m.mapper("dm-8", "253:8", "neighbour", "0 1000 linear 8:16 1100\n", "sdb")
		}, []pair{
			{"thin1", "thin2", Unrelated},
			{"thin1", "again1", Beside},
			{"thin1", "tpool", Below},
			{"thin1", "tdata", Below},
			{"tdata", "thin1", Above},
			{"tmeta", "thin1", Above},
			{"sdb", "thin2", Above},
			{"origin", "ext", Above},
			{"thin1", "ext", Unrelated},
			{"thin1", "neighbour", Unrelated},
			{"tpool", "neighbour", Unrelated},
		}},
		{"striped", func(m *machine) {
			m.disk("sdb", "8:16")
			m.disk("sdc", "8:32")
			m.mapper("dm-0", "253:0", "stripes", "0 2000 striped 2 128 8:16 100 8:32 500\n", "sdb", "sdc")
			m.mapper("dm-1", "253:1", "before", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-2", "253:2", "last", "0 1 linear 8:32 1499\n", "sdc")
			m.mapper("dm-3", "253:3", "after", "0 100 linear 8:32 1501\n", "sdc")
		}, []pair{
			{"stripes", "sdb", Below},
			{"stripes", "sdc", Below},
			{"stripes", "before", Unrelated},
			{"stripes", "last", Beside},
			{"stripes", "after", Unrelated},
		}},
		{"targets that are not understood count from end to end", func(m *machine) {
			m.disk("sdb", "8:16")
			m.disk("sdc", "8:32")
			m.mapper("dm-0", "253:0", "secret", "0 100 crypt aes-xts-plain64 00 0 8:16 32768\n", "sdb")
			m.mapper("dm-1", "253:1", "small", "0 1 linear 8:16 999999\n", "sdb")
			m.mapper("dm-2", "253:2", "paths", "0 100 multipath 0 0 1 1 service-time 0 2 2 8:16 1 1 8:32 1 1\n", "sdb", "sdc")
			m.mapper("dm-3", "253:3", "odd", "0 100 linear 8:32 -1\n", "sdc")
			m.mapper("dm-4", "253:4", "odder", "0 100 striped 9 128 8:32 0\n", "sdc")
			m.mapper("dm-5", "253:5", "oddest", "0 100 striped 4611686018427387905 8:16 8:32 0\n", "sdc")
		}, []pair{
			{"secret", "sdb", Below},
			{"secret", "small", Beside},
			{"paths", "sdc", Below},
			{"sdb", "paths", Above},
			{"odd", "sdc", Below},
			{"odder", "sdc", Below},
			{"oddest", "sdc", Below},
			{"oddest", "sdb", Below},
		}},
		{"md", func(m *machine) {
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
			m.disk("sdc", "8:32")
			m.device("md0", "9:0", []string{"sdb1", "sdc"}, "md")
		}, []pair{
			{"sdb1", "md0", Above},
			{"sdb", "md0", Above},
			{"md0", "sdc", Below},
			{"sdb1", "sdc", Unrelated},
		}},
		{"loop devices", func(m *machine) {
			m.disk("sdb", "8:16")
			m.loop("loop0", "7:0", onImage(0, 0))
			m.loop("loop1", "7:1", onImage(0, 0))
			m.loop("loop2", "7:2", onImage(4096, 4096))
			m.loop("loop3", "7:3", onImage(8192, 0))
			m.loop("loop4", "7:4", "dev=0:6 ino=9 rdev=8:16 offset=0 sizelimit=0 ro=1 file=\"/dev/sdb\"")
			m.partition("loop0", "loop0p1 259:0 8 8")
			m.mapper("dm-0", "253:0", "loop0p2", "0 8 linear 7:0 16\n", "loop0")
		}, []pair{
			{image, "loop0", Above},
			{"loop0", image, Below},
			{"loop0", "loop1", Beside},
			{"loop2", "loop3", Unrelated},
			{"loop0", "loop2", Beside},
			{"sdb", "loop4", Above},
			{"loop4", "loop0", Unrelated},
			{"loop0", "loop0p1", Partition},
			{image, "loop0p1", Above},
			{"loop0p1", "loop2", Beside}, // bytes 4096 to 8192
			{"loop0p1", "loop3", Unrelated},
			{"loop0", "loop0p2", Above},
			{"loop0p2", "loop0p1", Unrelated},
			{"loop0p2", "loop3", Beside},
		}},
		{"names with a slash in them", func(m *machine) {
			m.disk("cciss!c0d0", "104:0", "cciss!c0d0p1 104:1 8 8")
			m.mapper("dm-0", "253:0", "vg-a", "0 8 linear 104:1 0\n")
		}, []pair{
			{"cciss!c0d0", "cciss!c0d0p1", Partition},
			{"vg-a", "cciss!c0d0", Below},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			tt.build(m)
			s, blind := m.stackOf(t)
			if len(blind) > 0 {
				t.Fatalf("blind to %q", blind)
			}
			for _, p := range tt.pairs {
				a, b := idByName(t, s, p.target), idByName(t, s, p.other)
				if got := s.relate(a, s.footprint(a), b); got != p.want {
					t.Errorf("%s to %s is %s, want %s", p.other, p.target, got, p.want)
				}
				if got := s.relate(b, s.footprint(b), a); got != inverse[p.want] {
					t.Errorf("%s to %s is %s, want %s", p.target, p.other, got, inverse[p.want])
				}
			}
		})
	}
}

// What cannot be read is said, and what can be known without it still counts.
func TestStackBlindness(t *testing.T) {
	base := func() *machine {
		m := newMachine()
		m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
		m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
		m.loop("loop0", "7:0", onImage(0, 0))
		return m
	}
	for _, tt := range []struct {
		name          string
		spoil         func(m *machine)
		blind         []string
		target, other string
		want          Relation
	}{
		{"a table that cannot be asked", func(m *machine) { m.fs.SetAsk(hostfs.DMTable, "253:0", "", syscall.EACCES) },
			[]string{"/sys/block/dm-0"}, "sdb1", "dm-0", Above},
		{"a table that is cut off", func(m *machine) { m.fs.SetAsk(hostfs.DMTable, "253:0", "0 100 lin", 0) },
			[]string{"/sys/block/dm-0"}, "sdb1", "dm-0", Above},
		{"an empty table", func(m *machine) { m.fs.SetAsk(hostfs.DMTable, "253:0", "", 0) },
			nil, "sdb1", "dm-0", Above},
		{"a name that cannot be read", func(m *machine) { m.fs.SetErr("/sys/block/dm-0/dm/name", syscall.EIO) },
			[]string{"/sys/block/dm-0"}, "sdb1", "dm-0", Above},
		{"slaves that cannot be listed", func(m *machine) { m.fs.SetErr("/sys/block/dm-0/slaves", syscall.EACCES) },
			[]string{"/sys/block/dm-0"}, "sdb1", "dm-0", Above},
		{"a loop device that cannot be asked", func(m *machine) { m.fs.SetAsk(hostfs.LoopStatus, "/dev/loop0", "", syscall.EACCES) },
			[]string{"/sys/block/loop0"}, image, "loop0", Above},
		{"a loop device that answers nonsense", func(m *machine) { m.fs.SetAsk(hostfs.LoopStatus, "/dev/loop0", "dev=8:1 ino=100", 0) },
			[]string{"/sys/block/loop0"}, image, "loop0", Unrelated},
		{"a partition whose start cannot be read", func(m *machine) { m.fs.SetErr("/sys/block/sdb/sdb1/start", syscall.EIO) },
			[]string{"/sys/block/sdb"}, "sdb", "sdb1", Partition},
		{"a partition whose size is nonsense", func(m *machine) { m.file("/sys/block/sdb/sdb1/size", "-5\n") },
			[]string{"/sys/block/sdb"}, "sdb1", "sdb", Whole},
		{"a number that is cut off", func(m *machine) { m.file("/sys/block/sdb/sdb1/size", "10") },
			[]string{"/sys/block/sdb"}, "sdb1", "sdb", Whole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := base()
			tt.spoil(m)
			s, blind := m.stackOf(t)
			if !slices.Equal(blind, tt.blind) {
				t.Errorf("blind to %q, want %q", blind, tt.blind)
			}
			a, b := idByName(t, s, tt.target), idByName(t, s, tt.other)
			if got := s.relate(a, s.footprint(a), b); got != tt.want {
				t.Errorf("%s to %s is %s, want %s", tt.other, tt.target, got, tt.want)
			}
		})
	}
}

// A device that goes away while it is looked at is no blindness; one that is
// still there is.
func TestStackVanishing(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.fs.SetErr("/sys/block/sdb", syscall.ENOENT)
	if _, blind := m.stackOf(t); len(blind) != 0 {
		t.Errorf("a device that went away: blind to %q", blind)
	}
	m = newMachine()
	m.disk("sdb", "8:16")
	m.fs.SetErr("/sys/block/sdb/dev", syscall.EIO)
	if _, blind := m.stackOf(t); !slices.Equal(blind, []string{"/sys/block/sdb"}) {
		t.Errorf("a device that is there: blind to %q", blind)
	}
}

func TestStackUnreadable(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EACCES, syscall.EIO, syscall.ENOENT} {
		m := newMachine()
		m.fs.SetErr("/sys/block", errno)
		v := m.judge(t, Policy{}, image)
		if !slices.Contains(v.Codes(), "blind.stack") || v.Decision != Refuse {
			t.Errorf("%v: %s because of %v", errno, v.Decision, v.Codes())
		}
	}
}

// A device that is not in sysfs says that sysfs does not show what stands on it.
func TestStackLacksTheTarget(t *testing.T) {
	m := newMachine()
	m.node("/dev/hidden", devID("8:64"))
	v := m.judge(t, Policy{}, "/dev/hidden")
	wantFound(t, v.Because, "blind.stack unrelated /sys/block")

	m = newMachine()
	m.fs.SetDir("/sys/block")
	v = m.judge(t, Policy{}, "/dev/sda1")
	if !slices.Contains(v.Codes(), "blind.stack") {
		t.Errorf("an empty /sys/block: %s because of %v", v.Decision, v.Codes())
	}
}

// The paths of an NVMe disk with several controllers are in /sys/block and have
// no device number: nothing can open them.
func TestStackHiddenDisk(t *testing.T) {
	m := newMachine()
	m.file("/sys/block/nvme0c0n1/hidden", "1\n")
	if _, blind := m.stackOf(t); len(blind) != 0 {
		t.Errorf("blind to %q", blind)
	}
	m.file("/sys/block/nvme0c0n1/hidden", "0\n")
	if _, blind := m.stackOf(t); len(blind) != 1 {
		t.Errorf("no number and not hidden: blind to %q", blind)
	}
}

// A stack that refers to itself, or that meets itself many times, ends.
func TestStackCircle(t *testing.T) {
	m := newMachine()
	m.mapper("dm-0", "253:0", "a", "0 100 crypt x 253:1\n100 100 crypt x 253:1\n")
	m.mapper("dm-1", "253:1", "b", "0 100 linear 253:0 0\n100 100 linear 253:0 0\n200 1 crypt x 253:1\n")
	s, _ := m.stackOf(t)
	a, b := devID("253:0"), devID("253:1")
	if got := s.relate(a, s.footprint(a), b); got != Above && got != Below {
		t.Errorf("b to a is %s", got)
	}

	// Forty volumes, each on the one before in two places.
	m = newMachine()
	for i := range 40 {
		m.mapper(fmt.Sprintf("dm-%d", i+1), fmt.Sprintf("253:%d", i+1), fmt.Sprintf("v%d", i+1), fmt.Sprintf("0 9 crypt 253:%d\n9 9 crypt 253:%d\n", i, i))
	}
	s, _ = m.stackOf(t)
	top, under := devID("253:40"), devID("253:30")
	if got := s.relate(under, s.footprint(under), top); got != Above {
		t.Errorf("the top to what is under it is %s", got)
	}
}

// Whether two ranges meet is a matter of single bytes.
func TestSpansMeet(t *testing.T) {
	on, other := devID("8:16"), devID("8:32")
	a := span{on: on, off: 100, end: 200}
	for _, tt := range []struct {
		b    span
		want bool
	}{
		{span{on: on, off: 0, end: 100}, false},
		{span{on: on, off: 0, end: 101}, true},
		{span{on: on, off: 199, end: 300}, true},
		{span{on: on, off: 200, end: 300}, false},
		{span{on: on, off: 120, end: 130}, true},
		{span{on: other, off: 120, end: 130}, false},
		{span{on: on, slot: "1", off: 120, end: 130}, true},
	} {
		if got := a.meets(tt.b); got != tt.want {
			t.Errorf("%v meets %v: %t", a, tt.b, got)
		}
		if got := tt.b.meets(a); got != tt.want {
			t.Errorf("%v meets %v: %t", tt.b, a, got)
		}
	}
}
