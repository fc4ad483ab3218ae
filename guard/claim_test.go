package guard

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

const claimsAt = "/local/domain/0/backend/vbd/32760"

// setClaim sets up a claim as an imgward makes it, with some keys changed.
func setClaim(s *xenstoretest.Server, id string, keys ...string) {
	s.SetAll("/local/domain/32760", "vm=/vm/imgward")
	s.SetAll(claimsAt+"/"+id, append([]string{
		"imgward/target=fd:0", "imgward/pid=60", "imgward/pid-namespace=pid:[4026531836]", "imgward/start=4711", "imgward/boot-id=boot-1", "imgward/operation=overwrite",
		"mode=w", "physical-device=fd:0",
	}, keys...)...)
}

// The claims of others are about what they write, not about all that they claim,
// and say whether whoever made them still runs.
func TestClaimsOfOthers(t *testing.T) {
	type host struct {
		*machine
		*xenstoretest.Server
	}
	live := func(h host) { h.process("60", "imgward") }
	for _, tt := range []struct {
		name   string
		build  func(h host)
		target string
		want   []string
	}{
		{"none", func(h host) {}, "/dev/dm-0", nil},
		{"writing", func(h host) { live(h); setClaim(h.Server, "1") }, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"writing to what stands on it", func(h host) { live(h); setClaim(h.Server, "1") }, "/dev/sdb", []string{"self.writing above imgward.60"}},
		{"with several claims", func(h host) {
			live(h)
			setClaim(h.Server, "1")
			setClaim(h.Server, "2", "physical-device=8:10")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"writing to another volume of the disk", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/target=fd:1", "physical-device=fd:1")
			setClaim(h.Server, "2", "imgward/target=fd:1", "physical-device=8:10")
		}, "/dev/dm-0", nil},
		{"ended", func(h host) { setClaim(h.Server, "1") }, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"ended, and its number is another's", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/start=4710")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of another boot", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/boot-id=boot-0")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of a boot that cannot be told", func(h host) {
			live(h)
			h.fs.SetErr("/proc/sys/kernel/random/boot_id", syscall.EACCES)
			setClaim(h.Server, "1", "imgward/boot-id=boot-0")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another PID namespace, in which there is somebody", func(h host) {
			h.namespaces("4026532000")
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another PID namespace, in which there is nobody", func(h host) {
			live(h)
			h.link("/proc/60/ns/pid", initPIDNamespace)
			h.namespaces("4026531836")
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of another PID namespace, and not everybody's can be read", func(h host) {
			h.namespaces("4026531836")
			h.fs.SetErr("/proc/50/ns/pid", syscall.EACCES)
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of the host's PID namespace, seen from another", func(h host) {
			h.link("/proc/self/ns/pid", "pid:[4026532000]")
			h.namespaces("4026532000")
			setClaim(h.Server, "1")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of a PID namespace that is not known", func(h host) { setClaim(h.Server, "1", "imgward/pid-namespace=") },
			"/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another boot, in whatever PID namespace", func(h host) {
			setClaim(h.Server, "1", "imgward/boot-id=boot-0", "imgward/pid-namespace=")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of a process that cannot be read", func(h host) {
			h.fs.SetErr("/proc/60/stat", syscall.EACCES)
			setClaim(h.Server, "1")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"ended, and what it wrote to is there no more", func(h host) {
			setClaim(h.Server, "1", "imgward/target=fd:9", "physical-device=8:10")
		}, "/dev/sdb", []string{"claim.left same imgward.60"}},
		{"ended, of another volume of the disk", func(h host) {
			setClaim(h.Server, "1", "imgward/target=fd:1", "physical-device=8:10")
		}, "/dev/sdb", []string{"claim.left above imgward.60"}},
		{"cut short before it counted", func(h host) {
			setClaim(h.Server, "1")
			h.Remove(claimsAt + "/1/physical-device")
		}, "/dev/dm-0", nil},
		{"a node that is no claim", func(h host) {
			setClaim(h.Server, "1")
			h.Remove(claimsAt + "/1/imgward")
		}, "/dev/dm-0", []string{"xen.vbd.stale same domain.32760"}},
		{"a claim by whom cannot be read", func(h host) {
			setClaim(h.Server, "1")
			h.Deny(claimsAt+"/1/imgward/pid", "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated " + claimsAt + "/1/imgward/pid", "xen.vbd.stale same domain.32760"}},
		{"claims that cannot be listed", func(h host) {
			setClaim(h.Server, "1")
			h.Deny(claimsAt, "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated " + claimsAt}},
		{"another kind of device of that number", func(h host) {
			h.Server.SetAll("/local/domain/0/backend/qdisk/32760/1", "params=aio:/dev/vg0/a", "imgward/pid=60")
		}, "/dev/dm-0", []string{"xen.vbd.stale same domain.32760"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			h := host{m, xenHost(t, m)}
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:16 100\n", "sdb")
			m.node("/dev/vg0/a", devID("253:0"))
			tt.build(h)
			e := m.examine(t, tt.target, nil, xen{})
			wantFound(t, e.Findings, tt.want...)
			if !slices.Contains(e.Looked, "2 domains") && tt.name != "claims that cannot be listed" {
				t.Errorf("looked at %q: a claim is no domain", e.Looked)
			}
			for _, f := range e.Findings {
				if f.Code == ClaimLeft && !strings.Contains(f.Detail, "imgward release /dev/") {
					t.Errorf("does not say how it is withdrawn: %s", f.Detail)
				}
			}
		})
	}
}

// In the second look exactly our own claims are expected, as we made them.
func TestOwnClaims(t *testing.T) {
	ours := xenstore.Claim{
		ID: 1, Device: devID("253:0").Rdev, Target: devID("253:0").Rdev, PID: 60, Namespace: initPIDNamespace, Start: 4711, Boot: "boot-1", Operation: "overwrite",
	}
	for _, tt := range []struct {
		name  string
		build func(s *xenstoretest.Server)
		want  []string
	}{
		{"there", func(s *xenstoretest.Server) { setClaim(s, "1") }, nil},
		{"gone", func(s *xenstoretest.Server) {}, []string{"blind.xen unrelated xenstore"}},
		{"somebody else's", func(s *xenstoretest.Server) { setClaim(s, "1", "imgward/start=1") },
			[]string{"blind.xen unrelated xenstore", "claim.left same imgward.60"}},
		{"on another device", func(s *xenstoretest.Server) { setClaim(s, "1", "physical-device=fd:1") }, []string{"blind.xen unrelated xenstore"}},
		{"just being made", func(s *xenstoretest.Server) { setClaim(s, "1"); setClaim(s, "2", "physical-device=8:10") }, nil},
		{"another's, who has our number in another PID namespace", func(s *xenstoretest.Server) {
			setClaim(s, "1")
			setClaim(s, "2", "imgward/pid-namespace=")
		}, []string{"self.writing same imgward.60"}},
		{"another target's", func(s *xenstoretest.Server) { setClaim(s, "1"); setClaim(s, "2", "imgward/target=8:1") }, []string{"self.writing below imgward.60"}},
	} {
		m := newMachine()
		s := xenHost(t, m)
		m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
		m.process("60", "imgward")
		m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:1 0\n", "sda1")
		tt.build(s)
		t.Log(tt.name)
		h := &held{pid: 60}
		h.claims.Store(&claimed{made: []xenstore.Claim{ours}})
		wantFound(t, m.collectHeld(t, xen{}, "/dev/dm-0", h), tt.want...)
	}
}

// What shares bytes with the target is claimed with it, and nothing else.
func TestOverlapping(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 0 1000", "sdb2 8:18 1000 1000")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
	m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:17 100\n", "sdb1")
	m.mapper("dm-2", "253:2", "by-hand", "0 50 linear 8:16 20\n", "sdb")
	m.mapper("dm-3", "253:3", "over-a", "0 10 linear 253:0 0\n", "dm-0")
	for path, want := range map[string][]string{
		"/dev/dm-0": {"8:16", "8:17", "253:0", "253:2", "253:3"},
		"/dev/dm-1": {"8:16", "8:17", "253:1"},
		"/dev/dm-3": {"8:16", "8:17", "253:0", "253:3"},
		"/dev/sdb2": {"8:16", "8:18"},
		"/dev/sdb":  {"8:16", "8:17", "8:18", "253:0", "253:1", "253:2", "253:3"},
	} {
		var got []string
		for _, dev := range m.examine(t, path, nil).view.overlapping() {
			got = append(got, BlockID(dev).String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: claims %q, want %q", path, got, want)
		}
	}
}
