package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imgward/guard/hostfs"
)

// A stub is a collector made of a function.
type stub struct {
	name    string
	collect func(ctx context.Context, t *Target, s *Sheet)
}

func (c stub) Name() string { return c.name }

func (stub) Reads() []string { return nil }

func (c stub) Collect(ctx context.Context, _ *Host, t *Target, s *Sheet) { c.collect(ctx, t, s) }

// says is a collector that finds one thing.
func says(f Finding) Collector {
	return stub{"says", func(_ context.Context, _ *Target, s *Sheet) { s.Found(f) }}
}

// A collector that panics is blind, what it found until then is kept, and the
// others are not disturbed.
func TestPanic(t *testing.T) {
	m := newMachine()
	e := m.examine(t, image, nil,
		stub{"procfd", func(_ context.Context, _ *Target, s *Sheet) {
			s.Found(Finding{Code: FDRead, Key: "before"})
			s.Looked(3, "process")
			var none *Target
			none.ID = ID{}
		}},
		says(Finding{Code: XenStale, Key: "other"}),
		stub{"swaps", func(context.Context, *Target, *Sheet) { panic("internal error: \x1b") }},
	)
	wantFound(t, e.Findings, "fd.read unrelated before", "blind.procfd unrelated procfd", "xen.vbd.stale unrelated other", "blind.swaps unrelated swaps")
	if !slices.Equal(e.Looked, []string{"3 processes"}) {
		t.Errorf("looked at %q", e.Looked)
	}
	if v := (Policy{}).Judge(e.Findings[1:2]); v.Decision != Refuse {
		t.Error("a panic is no reason to refuse")
	}
}

// What several find who look at parts of one place is told in the order of the parts,
// and a panic of one of them is the collector's, which keeps what all found.
func TestParts(t *testing.T) {
	m := newMachine()
	e := m.examine(t, image, nil, stub{"procfd", func(_ context.Context, _ *Target, s *Sheet) {
		parts := s.split(3)
		s.Found(Finding{Code: FDRead, Key: "own"})
		var next atomic.Int64
		crew(len(parts), func() {
			i := int(next.Add(1)) - 1
			parts[len(parts)-1-i].Found(Finding{Code: FDRead, Key: fmt.Sprint("part-", len(parts)-1-i)})
			if i == 1 {
				panic("internal error: test")
			}
		})
		t.Error("the panic was swallowed")
	}})
	wantFound(t, e.Findings, "fd.read unrelated own", "blind.procfd unrelated procfd", "fd.read unrelated part-0", "fd.read unrelated part-1", "fd.read unrelated part-2")

	var s Sheet
	part := s.split(1)[0]
	part.Found(Finding{Code: MountRW})
	if !s.final() {
		t.Error("what nothing overrides is not seen in a part")
	}
	s.seal()
	part.Found(Finding{Code: FDWrite})
	s.split(1)[0].Found(Finding{Code: FDWrite})
	if fs, _ := s.seal(); len(fs) != 1 {
		t.Errorf("a sealed sheet takes down %d findings", len(fs))
	}
}

// A collector that is late is blind, what it found in time counts, what it finds
// later does not, and nobody waits for it.
func TestLateCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		start, hang, late := time.Now(), make(chan struct{}), make(chan struct{})
		e := m.examine(t, image, nil,
			stub{"procfd", func(_ context.Context, _ *Target, s *Sheet) {
				defer close(late)
				s.Found(Finding{Code: FDRead, Key: "early"})
				<-hang // without a look at the context
				s.Found(Finding{Code: FDWrite, Key: "late"})
				s.Looked(1, "process")
			}},
			stub{"xen", func(ctx context.Context, _ *Target, s *Sheet) { <-ctx.Done() }},
			stub{"mounts", func(ctx context.Context, _ *Target, s *Sheet) {
				time.Sleep(deadline - time.Nanosecond)
				s.Found(Finding{Code: MountRO, Key: "just"})
			}},
		)
		if took := time.Since(start); took != deadline {
			t.Errorf("took %s", took)
		}
		close(hang)
		<-late
		wantFound(t, e.Findings, "fd.read unrelated early", "blind.procfd unrelated procfd", "blind.xen unrelated xen", "mount.ro unrelated just")
		if len(e.Looked) != 0 {
			t.Errorf("looked at %q", e.Looked)
		}
	})
}

// A collector that is late keeps the target's descriptor from being closed, so
// that no other file gets its number while it still asks.
func TestLateCollectorKeepsDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &Host{FS: hostfs.Live(), State: t.TempDir()}
		target, err := Resolve(t.Context(), host, t.TempDir()+"/new")
		if err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		Examine(t.Context(), host, target, []Collector{stub{"procfd", func(context.Context, *Target, *Sheet) { <-hang }}})
		if err := target.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Readlink(target.handle.Name()); err != nil {
			t.Errorf("closed under the collector: %v", err)
		}
		close(hang)
		synctest.Wait()
		if fd := target.handle.Fd(); fd != -1 {
			t.Errorf("descriptor %d is left open", fd)
		}
	})
}

// A look that is interrupted is blind everywhere, however quick the collectors
// were.
func TestInterruptedLook(t *testing.T) {
	m := newMachine()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := Examine(ctx, m.host, m.resolve(t, image), []Collector{
		stub{"xen", func(context.Context, *Target, *Sheet) {}},
		stub{"swaps", func(context.Context, *Target, *Sheet) {}},
	})
	if got := found(e.Findings); len(got) != 2 || !strings.HasPrefix(got[0], "blind.xen") || !strings.HasPrefix(got[1], "blind.swaps") {
		t.Errorf("found %q", got)
	}
}

// Collectors look at the same time: each waits for all the others here.
func TestAllCollectorsRun(t *testing.T) {
	m := newMachine()
	var running atomic.Int32
	all := make(chan struct{})
	var cs []Collector
	const n = 12
	for i := range n {
		cs = append(cs, stub{"self", func(_ context.Context, _ *Target, s *Sheet) {
			if running.Add(1) == n {
				close(all)
			}
			<-all
			s.Found(Finding{Code: HostRoot, Key: fmt.Sprint(i)})
		}})
	}
	for i, f := range m.examine(t, image, nil, cs...).Findings {
		if f.Key != fmt.Sprint(i) {
			t.Errorf("finding %d is that of collector %s: the order is not the list's", i, f.Key)
		}
	}
}

// Only what vanished with its process is no blindness.
func TestVanished(t *testing.T) {
	for _, tt := range []struct {
		where string
		err   error
		want  bool
	}{
		{"/proc/812", syscall.ENOENT, true},
		{"/proc/812/fd/3", syscall.ENOENT, true},
		{"/proc/812/fd", syscall.ESRCH, true},
		{"/proc/812/maps", fmt.Errorf("read: %w", syscall.ESRCH), true},
		{"/proc/812/fd", syscall.EACCES, false},
		{"/proc/812/fd", syscall.EIO, false},
		{"/proc/812/fd", hostfs.ErrNotCaptured, false},
		{"/proc/812/fd", errors.New("malformed"), false},
		{"/proc/812x", syscall.ENOENT, false},
		{"/proc/self/fd", syscall.ENOENT, false},
		{"/proc/", syscall.ENOENT, false},
		{"/proc", syscall.ENOENT, false},
		{"/proc/swaps", syscall.ENOENT, false},
		{"/sys/block", syscall.ENOENT, false},
		{"/srv/proc/812", syscall.ENOENT, false},
		{"xenstore", syscall.ESRCH, false},
	} {
		s := &Sheet{collector: "procfd"}
		s.Blind(tt.where, tt.err)
		if fs, _ := s.seal(); (len(fs) == 0) != tt.want {
			t.Errorf("%s, %v: found %q", tt.where, tt.err, found(fs))
		}
	}
}

// Each kind of evidence makes up for exactly the blindness that it proves more
// than, and only evidence that was really found does.
func TestVouching(t *testing.T) {
	blindness := []Code{
		"blind.stack", "blind.xen", "blind.holders", "blind.mounts", "blind.swaps", "blind.procfd", "blind.lease",
		"blind.excl", "blind.dm", "blind.self", "blind.marks", "blind.locks",
	}
	for witness, want := range map[Code][]Code{
		LeaseFree:    {"blind.mounts", "blind.procfd"},
		DMFree:       {"blind.mounts", "blind.procfd", "blind.locks"},
		ExclFree:     {"blind.mounts"},
		LeaseReaders: nil,
		LeaseRefused: nil,
		XenReadOnly:  nil,
		"":           nil,
	} {
		fs := []Finding{{Code: witness, Subject: "the kernel", Detail: "says so"}}
		for _, c := range blindness {
			fs = append(fs, Finding{Code: c, Key: "x", Detail: "could not look"})
		}
		vouch(fs, false, false)
		var got []Code
		for _, f := range (Policy{}).Judge(fs).Context {
			if f.Code != witness {
				got = append(got, f.Code)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q makes up for %v, want %v", witness, got, want)
		}
	}
}

// A lease of overlayfs says nothing of mappings, so a process that could not be
// looked at stays one.
func TestLeaseOfALayeredFile(t *testing.T) {
	for _, layered := range []bool{false, true} {
		fs := []Finding{{Code: LeaseFree, Subject: "the kernel", Detail: "says so"}, {Code: "blind.procfd", Key: "x"}, {Code: "blind.mounts", Key: "x"}}
		vouch(fs, false, layered)
		if (fs[1].Vouched == "") != layered || fs[2].Vouched == "" {
			t.Errorf("layered %v: processes %q, mounts %q", layered, fs[1].Vouched, fs[2].Vouched)
		}
	}
}

// A file system without leases leaves blindness what it is; one with leases
// makes a note of it.
func TestVouchingByCollectors(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		want  Decision
	}{{0, Proceed}, {syscall.EINVAL, Refuse}, {syscall.EAGAIN, Refuse}} {
		m := newMachine()
		m.fs.SetErr("/proc/50/fd", syscall.EACCES)
		m.fs.SetErr("/proc/50/ns/mnt", syscall.EACCES)
		m.image(image, imageID, "write", tt.errno)
		if v := m.judge(t, Policy{}, image); v.Decision != tt.want {
			t.Errorf("%v: %s because of %v", tt.errno, v.Decision, v.Codes())
		}
	}
	// Nobody counts the openers of a plain disk.
	m := newMachine()
	m.disk("sdb", "8:16")
	m.fs.SetErr("/proc/50/fd", syscall.EACCES)
	m.fs.SetErr("/proc/50/ns/mnt", syscall.EACCES)
	v := m.judge(t, Policy{}, "/dev/sdb")
	wantFound(t, v.Because, "blind.procfd unrelated sshd.50")
}

// Whatever a collector writes, its subject can be typed after --override.
func TestKeys(t *testing.T) {
	s := &Sheet{collector: "procfd"}
	s.Found(Finding{Code: FDRead, Subject: "domain 7 (we b)"})
	s.Blind("/proc/1/fd/a b", syscall.EACCES)
	fs, _ := s.seal()
	wantFound(t, fs, "fd.read unrelated domain_7__we_b_", "blind.procfd unrelated /proc/1/fd/a_b")
	s.Found(Finding{Code: FDRead, Key: "after"})
	s.Looked(1, "x")
	if fs, looked := s.seal(); len(fs) != 2 || len(looked) != 0 {
		t.Errorf("a sealed sheet took down %q, %q", found(fs), looked)
	}
}

// Every collector says that it could not look when nothing at all can be looked
// at, and none says it of a target that is no matter of its own.
func TestTotalBlindness(t *testing.T) {
	for _, c := range Collectors() {
		m := newMachine()
		m.disk("sdb", "8:16")
		m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
		s := &Sheet{collector: c.Name()}
		for _, path := range []string{image, "/dev/dm-0"} {
			target := m.resolve(t, path)
			view := target.look(t.Context(), m.host, func(string, error) {})
			c.Collect(t.Context(), &Host{FS: hostfs.New(), State: "/var/lib/imgward"}, view, s)
		}
		fs, _ := s.seal()
		blind := slices.ContainsFunc(fs, func(f Finding) bool { return f.Code == blindCode(c.Name()) })
		// What stands on the target is read before the collectors are, and what near
		// cannot read xen reports.
		if want := c.Name() != "holders" && c.Name() != "near"; blind != want {
			t.Errorf("%s: blind is %t, found %q", c.Name(), blind, found(fs))
		}
	}
}
