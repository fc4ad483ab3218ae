package guard

import (
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// withSource asks about path as the target of a copy from source.
func (m *machine) withSource(t *testing.T, p Policy, source, path string) Verdict {
	t.Helper()
	src := m.resolve(t, source)
	g := &Guard{Host: m.host, Collectors: Collectors(), Policy: p, Source: src}
	target, v, err := g.Check(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return v
}

func TestOverlap(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
	m.loop("loop0", "7:0", onImage(0, 0))
	m.link("/srv/images/link.img", "web1.img")
	m.image("/srv/images/other.img", FileID(hostfs.Mkdev(8, 1), 101), "write", 0)
	for _, tt := range []struct {
		source, target string
		want           bool
	}{
		{image, image, true},
		{"/srv/images/link.img", image, true},
		{image, "/dev/loop0", true},
		{"/dev/loop0", image, true},
		{"/dev/sdb1", "/dev/sdb", true},
		{"/dev/sdb", "/dev/sdb1", true},
		{"/dev/dm-0", "/dev/sdb", true},
		{"/dev/sdb1", "/dev/sdb2", false},
		{"/srv/images/other.img", image, false},
		{"/srv/images/other.img", "/srv/images/new.img", false},
	} {
		v := m.withSource(t, Policy{}, tt.source, tt.target)
		got := false
		for _, f := range v.Because {
			got = got || f.Code == SelfOverlap && f.Severity == Never
		}
		if got != tt.want {
			t.Errorf("%s onto %s: overlap %t, want %t: %v", tt.source, tt.target, got, tt.want, v.Codes())
		}
	}
}

// That the stack cannot be read keeps nothing else from being looked at, and an
// override of it is none of anything else.
func TestOverlapHalfBlind(t *testing.T) {
	m := newMachine()
	m.loop("loop0", "7:0", onImage(0, 0))
	m.disk("sdb", "8:16")
	m.fs.SetErr("/sys/block/sdb/dev", syscall.EIO)
	m.image("/srv/images/other.img", FileID(hostfs.Mkdev(8, 1), 101), "write", 0)
	v := m.withSource(t, Policy{Override: []Override{{"blind.stack", "/sys/block/sdb"}}}, "/srv/images/other.img", image)
	if v.Decision != Refuse {
		t.Errorf("%s though a loop device stands on the target", v.Decision)
	}
	wantFound(t, v.Because, "loop.attached above loop0")
	wantFound(t, v.Overridden, "blind.stack unrelated /sys/block/sdb")
}
