package guard

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// Where there is no xenstore, it depends on whether there should be one.
func TestWithoutStore(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		want  []string
	}{
		{"a plain host", func(m *machine) {}, nil},
		{"a guest of KVM", func(m *machine) { m.file("/sys/hypervisor/type", "kvm\n") }, nil},
		{"a control domain", func(m *machine) {
			m.file("/proc/xen/capabilities", "control_d\n")
			m.file("/sys/hypervisor/type", "xen\n")
		}, []string{"blind.xen unrelated xenstore"}},
		{"a control domain whose sysfs says nothing", func(m *machine) { m.file("/proc/xen/capabilities", "control_d\n") },
			[]string{"blind.xen unrelated xenstore"}},
		{"some Xen", func(m *machine) { m.file("/sys/hypervisor/type", "xen\n") }, []string{"blind.xen unrelated xenstore"}},
		{"it cannot be told", func(m *machine) { m.fs.SetErr("/sys/hypervisor/type", syscall.EACCES) },
			[]string{"blind.xen unrelated /sys/hypervisor/type"}},
		{"the capabilities cannot be read", func(m *machine) { m.fs.SetErr("/proc/xen/capabilities", syscall.EACCES) },
			[]string{"blind.xen unrelated /proc/xen/capabilities"}},
		{"a reason is known", func(m *machine) { m.host.StoreErr = errors.New("dial: permission denied") },
			[]string{"blind.xen unrelated xenstore"}},
		{"the kernel knows all the same", func(m *machine) {
			m.file("/proc/xen/capabilities", "control_d\n")
			m.backend("7", "51712", "8:10")
		}, []string{"blind.xen unrelated xenstore", "xen.sysfs.vbd same backend/vbd/7/51712"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			tt.build(m)
			wantFound(t, m.collect(t, xen{}, "/dev/sdb"), tt.want...)
		})
	}
}

// A store that dies, or that cannot be watched, is blindness, and the kernel is
// asked all the same.
func TestDyingStore(t *testing.T) {
	for _, tt := range []struct {
		name string
		hook func(s *xenstoretest.Server, r xenstoretest.Request) xenstoretest.Reply
	}{
		{"at the first request", func(s *xenstoretest.Server, r xenstoretest.Request) xenstoretest.Reply {
			return xenstoretest.Reply{Cut: true}
		}},
		{"at the watch", func(s *xenstoretest.Server, r xenstoretest.Request) xenstoretest.Reply {
			return xenstoretest.Reply{Cut: r.Op == "WATCH"}
		}},
		{"in the middle of a scan", func(s *xenstoretest.Server, r xenstoretest.Request) xenstoretest.Reply {
			return xenstoretest.Reply{Cut: r.Path == vbd7+"/params"}
		}},
		{"a quota on watches", func(s *xenstoretest.Server, r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "WATCH" {
				return xenstoretest.Reply{Error: "EQUOTA"}
			}
			return xenstoretest.Reply{}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16")
			s := xenHost(t, m)
			s.SetAll(vbd7, "params=/dev/sdb", "physical-device=8:10", "mode=w", "state=4")
			m.backend("7", "51712", "8:10")
			s.Hook(func(r xenstoretest.Request) xenstoretest.Reply { return tt.hook(s, r) })
			wantFound(t, m.collect(t, xen{}, "/dev/sdb"), "blind.xen unrelated xenstore", "xen.sysfs.vbd same backend/vbd/7/51712")
		})
	}
}

// A store that never answers costs only a part of the collector's time, so that
// what the kernel says is still told.
func TestHungStore(t *testing.T) {
	for _, op := range []string{"READ", "WATCH", "DIRECTORY"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				m.disk("sdb", "8:16")
				m.backend("7", "51712", "8:10")
				m.host.Store = hungStore{op}
				wantFound(t, m.collect(t, xen{}, "/dev/sdb"), "blind.xen unrelated xenstore", "xen.sysfs.vbd same backend/vbd/7/51712")
			})
		})
	}
}

// A hungStore never answers one kind of request.
type hungStore struct{ op string }

func (s hungStore) ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error) {
	if s.op == "READ" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := make([]xenstore.Value, len(paths))
	for i, p := range paths {
		out[i] = xenstore.Value{Path: p, Data: []byte("0")}
	}
	return out, nil
}

func (s hungStore) ListAll(ctx context.Context, _ []string) ([]xenstore.Listing, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s hungStore) Watch(ctx context.Context, p string, fire func(string)) error {
	if s.op != "WATCH" {
		fire(p)
	}
	<-ctx.Done()
	return ctx.Err()
}

// What changes while it is read is read again. What does not come to rest is
// blindness.
func TestChangingStore(t *testing.T) {
	for _, tt := range []struct {
		changes int
		want    string
	}{
		{1, "xen.vbd.connected same web01.7"},
		{maxScans - 1, "xen.vbd.connected same web01.7"},
		{maxScans, "blind.xen unrelated xenstore"},
	} {
		m := newMachine()
		m.disk("sdb", "8:16")
		s := xenHost(t, m)
		m.host.Store = &changingStore{Store: m.host.Store, changes: tt.changes, change: func() {
			s.SetAll(vbd7, "params=/dev/sdb", "physical-device=8:10", "mode=w", "state=2")
		}}
		wantFound(t, m.collect(t, xen{}, "/dev/sdb"), tt.want)
	}
}

// A changingStore changes some times, each time after a scan has read the
// backends and before it ends.
type changingStore struct {
	Store
	changes int
	change  func()
	fire    func(string)
}

func (s *changingStore) Watch(ctx context.Context, p string, fire func(string)) error {
	s.fire = fire
	fire(p)
	<-ctx.Done()
	return ctx.Err()
}

func (s *changingStore) ListAll(ctx context.Context, paths []string) ([]xenstore.Listing, error) {
	if slices.Contains(paths, "/libxl") && s.changes > 0 {
		s.changes--
		s.change()
		s.fire(vbd7)
	}
	return s.Store.ListAll(ctx, paths)
}

// A domain that connects after the kernel was asked is not taken for one whose
// disk was left behind: the kernel is asked last.
func TestConnectingMeanwhile(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	s := xenHost(t, m)
	m.backend("9", "51712", "fd:9")
	s.SetAll(vbd7, "params=/dev/sdb", "mode=w", "state=1")
	m.host.Store = &changingStore{Store: m.host.Store, changes: 1, change: func() {
		s.SetAll(vbd7, "physical-device=8:10", "state=4")
		m.backend("7", "51712", "8:10")
	}}
	wantFound(t, m.collect(t, xen{}, "/dev/sdb"), "xen.vbd.connected same web01.7")
}

// countingStore counts how often somebody begins to scan it.
type countingStore struct {
	Store
	scans atomic.Int64
}

func (c *countingStore) Watch(ctx context.Context, p string, fire func(string)) error {
	c.scans.Add(1)
	return c.Store.Watch(ctx, p, fire)
}

// All collectors of a look share one scan of xenstore, and the next look makes
// its own.
func TestOneScanALook(t *testing.T) {
	m := newMachine()
	xenHost(t, m).SetAll(vbd7, "params="+image, "mode=w", "state=4")
	store := &countingStore{Store: m.host.Store}
	m.host.Store = store
	target := m.resolve(t, image)
	for look := range int64(2) {
		e := Examine(t.Context(), m.host, target, []Collector{xen{}, xen{}})
		wantFound(t, e.Findings, "xen.vbd.connected same web01.7", "xen.vbd.connected same web01.7")
		if n := store.scans.Load(); n != look+1 {
			t.Errorf("%d scans in %d looks", n, look+1)
		}
	}
}

// How an image is used is asked of the target's nodes alone, by whichever way they
// lead to it, and in the scan, so that what changes meanwhile is read again.
func TestHowIsAskedOfTheTarget(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
	s := xenHost(t, m)
	other := "/local/domain/0/backend/vbd/7/51728"
	for node, about := range map[string][]string{
		vbd7:                                    {"params=/dev/other", "physical-device=8:11"}, // a partition of the target
		other:                                   {"params=/srv/other", "physical-device=fd:9"},
		"/local/domain/0/backend/qdisk/7/51744": {"params=aio:/dev/sdb"},
		"/libxl/7/device/vbd/51760":             {"params=/dev/sdb", "backend=/local/domain/0/backend/vbd/7/51760"},
		"/local/domain/5/backend/vbd/7/51776":   {"params=/dev/sdb", "physical-device=8:10"}, // of a driver domain
		"/local/domain/0/backend/9pfs/7/0":      {"path=/dev/sdb"},
	} {
		s.SetAll(node, append(about, "mode=w", "state=4", "online=1", "dev=xvda")...)
	}
	var mu sync.Mutex
	asked := map[string]bool{}
	s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
		mu.Lock()
		defer mu.Unlock()
		if r.Op == "READ" && path.Base(r.Path) == "state" {
			asked[path.Dir(r.Path)] = true
		}
		return xenstoretest.Reply{}
	})
	m.collect(t, xen{}, "/dev/sdb")
	want := []string{"/libxl/7/device/vbd/51760", "/local/domain/0/backend/qdisk/7/51744", vbd7}
	if got := slices.Sorted(maps.Keys(asked)); !slices.Equal(got, want) {
		t.Errorf("the state is asked of %q, want %q", got, want)
	}
}
