package guard

import (
	"slices"
	"strings"
	"testing"

	"imgward/guard/hostfs"
)

// To dd nothing is worse than to an overwrite, and what says that somebody lives
// from the target, or that it is not known, is what it is there.
func TestTableForDD(t *testing.T) {
	for _, d := range ddRules {
		i := slices.IndexFunc(rules, func(r rule) bool { return r.Code == d.Code })
		if i < 0 {
			t.Errorf("%s is in no table", d.Code)
			continue
		}
		r := rules[i]
		if !r.Override || r.Write == Never || strings.HasPrefix(string(d.Code), "blind.") {
			t.Errorf("%s is no reason that dd could pass", d.Code)
		}
		if max(d.Device, d.File, d.New) > r.Write || d.New != Note || min(d.Device, d.File, d.New) == r.Write {
			t.Errorf("%s: %v on a device, %v on a file, %v on a new one, where an overwrite has %v", d.Code, d.Device, d.File, d.New, r.Write)
		}
		if text, ok := ExplainCode(d.Code); !ok || !strings.HasSuffix(text, d.Why) || !strings.HasSuffix(d.Why, ".") {
			t.Errorf("explain %s: %q", d.Code, text)
		}
	}
	for _, r := range rules {
		for _, op := range []Operation{DD, DDFile, DDNew} {
			if r.Write == Never && r.severity(op) != Never {
				t.Errorf("%s is passed by dd", r.Code)
			}
		}
	}
}

// The same host, asked for an overwrite and for dd.
func TestDDIsJudged(t *testing.T) {
	reader := func(m *machine) {
		m.open("/proc/50", "4", imageID, "0100000")
		m.image(image, imageID, "read", 0)
	}
	for _, tt := range []struct {
		name      string
		build     func(m *machine)
		path      string
		overwrite []Code
		dd        []Code
	}{
		{"a reader of a file", reader, image, []Code{FDRead, LeaseReaders}, nil},
		{"readers whom nobody names", func(m *machine) { m.image(image, imageID, "read", 0) }, image, []Code{LeaseReaders}, []Code{LeaseReaders}},
		{"a machine reads it", func(m *machine) { m.process("50", "qemu-system-x86"); reader(m) }, image, nil, []Code{FDVM, LeaseReaders}},
		{"a writer", func(m *machine) { m.open("/proc/50", "4", imageID, "0100002") }, image, []Code{FDWrite}, []Code{FDWrite}},
		{"nobody", func(*machine) {}, image, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, op := range []Operation{Overwrite, DD} {
				m := newMachine()
				tt.build(m)
				target := m.resolve(t, tt.path)
				e := Examine(t.Context(), m.host, target, []Collector{procfd{}, lease{}})
				v := Policy{Operation: op}.verdict(target, e)
				want := tt.overwrite
				if op == DD {
					want = tt.dd
				} else if want == nil && tt.dd != nil {
					continue
				}
				if got := v.Codes(); !slices.Equal(got, want) {
					t.Errorf("%v: %v, want %v", op, got, want)
				}
			}
		})
	}
}

// A hint is typed as it stands: behind dd's operands as before them.
func TestHintsForDD(t *testing.T) {
	f := Finding{Code: ConfigNamed, Key: "web1", Subject: "domain web1", Detail: "is configured to have it"}
	hints := Policy{Operation: DDFile}.Judge([]Finding{f}).Hints()
	if !slices.Contains(hints, "if you know better, add: --override=config.named:web1") {
		t.Errorf("%q", hints)
	}
	if v := (Policy{Operation: DDNew}).Judge([]Finding{f}); v.Decision != Proceed {
		t.Errorf("%+v", v)
	}
}

// The disk under a file system that one host can have mounted may be reached by
// others, who would find it mounted; a file system of several hosts is another
// matter, and so is a file that this host exports.
func TestStorageForDD(t *testing.T) {
	anonymous := hostfs.Mkdev(0, 50)
	for _, tt := range []struct {
		name    string
		build   func(m *machine)
		proceed bool
	}{
		{"ext4 on a disk of a storage network", func(m *machine) {
			m.disk("sdb", "8:16")
			m.link("/sys/block/sdb", "../devices/pci0000:00/host3/rport-3:0-0/target3:0:0/3:0:0:0/block/sdb")
			m.on("ext4", "/dev/sdb", hostfs.Mkdev(8, 16))
		}, true},
		{"zfs", func(m *machine) { m.on("zfs", "tank/images", anonymous) }, true},
		{"nfs", func(m *machine) { m.on("nfs4", "filer:/export", anonymous) }, false},
		{"of an unknown kind", func(m *machine) { m.on("vboxsf", "images", anonymous) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			tt.build(m)
			target := m.resolve(t, image)
			e := Examine(t.Context(), m.host, target, []Collector{locality{}})
			if v := (Policy{Operation: DD}).verdict(target, e); (v.Decision == Proceed) != tt.proceed {
				t.Errorf("%+v", v)
			}
			if v := (Policy{}).verdict(target, e); v.Decision != Refuse {
				t.Errorf("an overwrite: %+v", v)
			}
		})
	}
}
