package guard

import (
	"slices"
	"testing"

	"imgward/xenstore/xenstoretest"
)

func TestSlip(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"/srv/web1.img", "/srv/web2.img", true},
		{"/srv/web1.img", "/srv/web11.img", true},
		{"/srv/web1.img", "/srv/web.img", true},
		{"/srv/web1.img", "/srv/wbe1.img", true},
		{"/srv/web1.img", "/srv/web1.img", false},
		{"/srv/web1.img", "/srv/web23.img", false},
		{"/srv/web1.img", "/srv/bew1.img", false},
		{"/srv/web1.img", "/srv/web1.i", false},
		{"/srv/wéb1.img", "/srv/web1.img", true},
		{"ab", "ba", true},
		{"a", "", true},
		{"ab", "", false},
		{"", "", false},
	} {
		if slip(tt.a, tt.b) != tt.want || slip(tt.b, tt.a) != tt.want {
			t.Errorf("%q and %q: %v, %v", tt.a, tt.b, slip(tt.a, tt.b), slip(tt.b, tt.a))
		}
	}
}

// Whatever one character becomes, the two are one slip apart, from both sides;
// and no text is a slip from itself.
func FuzzSlip(f *testing.F) {
	f.Add("/srv/web1.img", 8, "2")
	f.Add("", 0, "x")
	f.Fuzz(func(t *testing.T, s string, at int, r string) {
		x, y := []rune(s), []rune(r)
		if slip(s, s) || len(y) != 1 || at < 0 || at > len(x) {
			return
		}
		longer := string(slices.Insert(slices.Clone(x), at, y[0]))
		if !slip(string(x), longer) || !slip(longer, string(x)) {
			t.Errorf("%q and %q", s, longer)
		}
	})
}

func TestNear(t *testing.T) {
	const web2 = "/local/domain/0/backend/vbd/7/51712"
	for _, tt := range []struct {
		name   string
		build  func(m *machine, s *xenstoretest.Server)
		target string
		want   []string
	}{
		{"a digit away", func(m *machine, s *xenstoretest.Server) { s.SetAll(web2, "params=/srv/images/web2.img") }, image, []string{"near.name unrelated web01.7"}},
		{"a QEMU's disk", func(m *machine, s *xenstoretest.Server) { s.SetAll(web2, "params=aio:/srv/images/web2.img") }, image, []string{"near.name unrelated web01.7"}},
		{"a new file", func(m *machine, s *xenstoretest.Server) { s.SetAll(web2, "params="+image) }, "/srv/images/web2.img", []string{"near.name unrelated web01.7"}},
		{"two away", func(m *machine, s *xenstoretest.Server) { s.SetAll(web2, "params=/srv/images/db1.img") }, image, nil},
		{"only one of two", func(m *machine, s *xenstoretest.Server) {
			s.SetAll(web2, "params=/srv/images/web2.img")
			s.SetAll("/local/domain/0/backend/vbd/7/51728", "params=/srv/images/web3.img")
		}, image, []string{"near.name unrelated web01.7"}},
		{"the target itself is used too", func(m *machine, s *xenstoretest.Server) {
			s.SetAll(web2, "params=/srv/images/web2.img")
			s.SetAll("/local/domain/0/backend/vbd/7/51728", "params="+image)
		}, image, nil},
		{"of a domain that is gone", func(m *machine, s *xenstoretest.Server) {
			s.SetAll("/local/domain/0/backend/vbd/8/51712", "params=/srv/images/web2.img")
		}, image, nil},
		{"a volume, by the name that was given", func(m *machine, s *xenstoretest.Server) {
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "vg0-web1", "0 100 linear 8:16 0\n", "sdb")
			m.link("/dev/vg0/web1", "../dm-0")
			s.SetAll(web2, "params=/dev/vg0/web2")
		}, "/dev/vg0/web1", []string{"near.name unrelated web01.7"}},
		{"the numbers of loop devices", func(m *machine, s *xenstoretest.Server) {
			m.disk("sdb", "8:16")
			m.loop("loop1", "7:1", "dev=8:1 ino=101 rdev=0:0 offset=0 sizelimit=0 ro=0 file=\"x\"")
			s.SetAll(web2, "params=/srv/x", "node=/dev/loop2", "physical-device=7:2", "physical-device-path=/dev/loop2")
		}, "/dev/loop1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			s := xenHost(t, m)
			tt.build(m, s)
			fs := m.collect(t, near{}, tt.target)
			wantFound(t, fs, tt.want...)
			if v := (Policy{}).Judge(fs); v.Decision != Proceed {
				t.Errorf("a similar name refuses: %v", v.Because)
			}
		})
	}
}

// Who said whose disk he means, and is right, is not asked whether he means it.
func TestNearUnderAssertion(t *testing.T) {
	fs := []Finding{{Code: NearName, Subject: "domain 7 (web2)", Key: "web2.7"}, {Code: XenStale, Domain: "web1", Key: "web1.3"}}
	for domain, want := range map[string]bool{"": true, "web1": false, "web2": true} {
		v := Policy{Domain: domain}.Judge(fs)
		if got := slices.ContainsFunc(v.Context, func(f Finding) bool { return f.Code == NearName }); got != want {
			t.Errorf("--domain %q: said is %v", domain, got)
		}
	}
}
