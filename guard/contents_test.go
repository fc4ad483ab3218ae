package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// ext4 is the superblock of a file system, with or without needs_recovery.
func ext4(label, uuid string, dirty bool) string {
	b := make([]byte, 0x88)
	le := binary.LittleEndian
	le.PutUint32(b, 64)          // inodes
	le.PutUint32(b[0x20:], 8192) // blocks in a group
	le.PutUint16(b[0x38:], 0xef53)
	le.PutUint16(b[0x3a:], 1)
	le.PutUint32(b[0x5c:], 4) // has a journal
	le.PutUint32(b[0x60:], 0x40)
	if dirty {
		b[0x60] |= 4
	}
	copy(b[0x68:], uuid)
	copy(b[0x78:], label)
	return string(b)
}

// mbr is a table of partitions, each of a start and a length in sectors.
func mbr(partitions ...[2]uint32) string {
	b := make([]byte, 512)
	for i, p := range partitions {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], p[0])
		binary.LittleEndian.PutUint32(e[12:], p[1])
	}
	b[510], b[511] = 0x55, 0xaa
	return string(b)
}

const lvmLabel = "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001abcdefghijklmnopqrstuvwxyz012345"

func TestContents(t *testing.T) {
	id := "0123456789abcdef"
	for _, tt := range []struct {
		name string
		data map[int64]string
		want []string
	}{
		{"zeros", nil, nil},
		{"clean", map[int64]string{1024: ext4("web1", id, false)}, nil},
		{"dirty", map[int64]string{1024: ext4("web1", id, true)}, []string{"content.dirty same web1"}},
		{"dirty, without a label", map[int64]string{1024: ext4("", id, true)}, []string{"content.dirty same 30313233-3435-3637-3839-616263646566"}},
		{"dirty, without any name", map[int64]string{1024: ext4("", "", true)}, []string{"content.dirty same ext4@0"}},
		{"dirty, with a label that a shell would not like", map[int64]string{1024: ext4("a b;$(x)'~:", id, true)}, []string{"content.dirty same a_b___x____"}},
		{"partitions", map[int64]string{
			0: mbr([2]uint32{64, 64}, [2]uint32{128, 64}), 64*512 + 1024: ext4("", "", true), 128*512 + 1024: ext4("", "", false),
		}, []string{"content.dirty same ext4@32768"}},
		{"a hibernated machine", map[int64]string{4086: "S1SUSPEND\x00"}, []string{"content.dirty same swsuspend@0"}},
		{"a physical volume", map[int64]string{512: lvmLabel}, []string{"content.member same abcdef-ghij-klmn-opqr-stuv-wxyz-012345"}},
		{"a physical volume, and what shines through", map[int64]string{512: lvmLabel, 1024: ext4("web1", id, true)},
			[]string{"content.member same abcdef-ghij-klmn-opqr-stuv-wxyz-012345", "content.dirty same web1"}},
		{"a side of a mirror", map[int64]string{1<<20 - 4096 + 60: "\x83\x74\x02\x6c"}, []string{"content.member same drbd@0"}},
		{"a table that makes no sense", map[int64]string{512: "EFI PART"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			for off, text := range tt.data {
				m.fs.SetData(image, off, text)
			}
			wantFound(t, m.collect(t, contents{}, image), tt.want...)
		})
	}
	wantFound(t, newMachine().collect(t, contents{}, "/srv/images/new.img"))
}

// What cannot be read is not taken for clean, whatever keeps it from being read.
func TestContentsBlindness(t *testing.T) {
	lease := "1: LEASE  ACTIVE    WRITE 50 08:01:100 0 EOF\n"
	for _, tt := range []struct {
		name  string
		build func(m *machine)
		want  string
	}{
		{"a bad disk", func(m *machine) { m.fs.SetData(image, 0, ""); m.fail("data "+image, syscall.EIO) }, "blind.contents"},
		{"no permission", func(m *machine) { m.fs.SetErr(image, syscall.EACCES) }, "blind.contents"},
		{"no table of locks", func(m *machine) { m.fs.SetErr("/proc/locks", syscall.EACCES) }, "blind.contents"},
		{"a table of locks that is cut off", func(m *machine) { m.file("/proc/locks", "1: LEASE") }, "blind.contents"},
		{"somebody's lease", func(m *machine) { m.file("/proc/locks", lease) }, "lease.taken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			target := m.resolve(t, image)
			tt.build(m)
			fs := Examine(t.Context(), m.host, target, []Collector{opening{contents{}}}).Findings
			if len(fs) != 1 || string(fs[0].Code) != tt.want || (Policy{}).Judge(fs).Decision != Refuse {
				t.Errorf("found %q, want %s", found(fs), tt.want)
			}
		})
	}
	// Not even opened, where that would break somebody's lease.
	m := newMachine()
	m.file("/proc/locks", lease)
	if ops := m.openedBy(t, image, contents{}); len(ops) != 0 {
		t.Errorf("opened %q", ops)
	}
}

// fail makes one entry of the host fail.
func (m *machine) fail(entry string, errno syscall.Errno) {
	m.fs = m.fs.Fail(entry, errno)
	m.host.FS = m.fs
}

// openedBy lists what was opened for reading while collectors looked at path.
func (m *machine) openedBy(t *testing.T, path string, cs ...Collector) (opened []string) {
	t.Helper()
	var mu sync.Mutex
	m.host.FS = m.fs.Record(func(op, name string) {
		mu.Lock()
		defer mu.Unlock()
		if op == "content" {
			opened = append(opened, name)
		}
	})
	m.examine(t, path, nil, cs...)
	return opened
}

// The target is opened after everybody else has looked, and not where something
// was found that nothing overrides.
func TestOpeningComesLast(t *testing.T) {
	for _, tt := range []struct {
		code Code
		want bool
	}{
		{"", true}, {FDRead, true}, {ConfigNamed, true}, {"blind.procfd", true}, {LeaseFree, true},
		{LeaseTaken, false}, {SelfWriting, false}, {FileShut, false}, {XenConnected, false}, {"future.user", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine()
			var opened time.Time
			m.examine(t, image, nil,
				opening{stub{"self", func(context.Context, *Target, *Sheet) { opened = time.Now() }}},
				stub{"xen", func(_ context.Context, _ *Target, s *Sheet) {
					time.Sleep(time.Second)
					if tt.code != "" {
						s.Found(Finding{Code: tt.code})
					}
				}},
			)
			if opened.IsZero() == tt.want || tt.want && !opened.Equal(time.Now()) {
				t.Errorf("beside %q: opened at %s, looked until %s", tt.code, opened, time.Now())
			}
		})
	}
	// One after the other, in the order of the list, where they report as well.
	m := newMachine()
	fs := m.examine(t, image, nil, opening{says(Finding{Code: FDRead, Key: "a"})}, says(Finding{Code: FDRead, Key: "b"}),
		opening{says(Finding{Code: LeaseTaken, Key: "c"})}, opening{says(Finding{Code: FDRead, Key: "d"})}).Findings
	wantFound(t, fs, "fd.read unrelated a", "fd.read unrelated b", "lease.taken unrelated c")
	n := 0
	for _, c := range Collectors() {
		if _, ok := c.(opening); ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d collectors open the target", n)
	}
}

// In the second look what we hold is read, and nothing is opened; a source is not
// read again.
func TestContentsHeld(t *testing.T) {
	m := newMachine()
	h := testHeld(t, t.TempDir()+"/x")
	if _, err := h.file.WriteAt([]byte(ext4("held", "", true)), 1024); err != nil {
		t.Fatal(err)
	}
	if err := h.file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	m.fs.SetErr(image, syscall.EIO)
	target := newMachine().resolve(t, image)
	target.held = h
	wantFound(t, Examine(t.Context(), m.host, target, []Collector{contents{}}).Findings, "content.dirty same held")
	h.reading = true
	wantFound(t, Examine(t.Context(), m.host, target, []Collector{contents{}}).Findings)
}

// What is on the disk of the domain that was named is that domain's, if something
// says that it is its disk.
func TestContentsOfNamedDomain(t *testing.T) {
	web1, web2 := Finding{Code: ConfigNamed, Key: "web1", Domain: "web1"}, Finding{Code: ConfigNamed, Key: "web2", Domain: "web2"}
	dirty, member := Finding{Code: ContentDirty, Key: "root"}, Finding{Code: ContentMember, Key: "pv"}
	stale, blind := Finding{Code: XenStale, Key: "7"}, Finding{Code: "blind.contents", Key: "x"}
	live := Finding{Code: XenConnected, Key: "web1.7", Domain: "web1"}
	for _, tt := range []struct {
		name   string
		domain string
		fs     []Finding
		want   []Code // what refuses
	}{
		{"nobody was named", "", []Finding{dirty, member}, []Code{ContentDirty, ContentMember}},
		{"nobody was named, and it is somebody's", "", []Finding{web1, dirty}, []Code{ConfigNamed, ContentDirty}},
		{"it is his", "web1", []Finding{dirty, web1, member}, nil},
		{"it is nobody's", "web1", []Finding{dirty, member}, []Code{ContentDirty, ContentMember, DomainUnproven}},
		{"it is somebody else's", "web1", []Finding{web2, dirty}, []Code{DomainOther, ContentDirty, DomainUnproven}},
		{"it is his and somebody else's", "web1", []Finding{web1, web2, dirty}, []Code{DomainOther}},
		{"he runs", "web1", []Finding{live, dirty}, []Code{XenConnected}},
		{"a node of nobody knows whom stays", "web1", []Finding{web1, stale}, []Code{XenStale}},
		{"what could not be read stays", "web1", []Finding{web1, blind}, []Code{"blind.contents"}},
	} {
		v := Policy{Domain: tt.domain}.Judge(tt.fs)
		var got []Code
		for _, f := range v.Because {
			got = append(got, f.Code)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: refused because of %v, want %v", tt.name, got, tt.want)
		}
	}
	if v := (Policy{Operation: Read}).Judge([]Finding{dirty, member}); v.Decision != Proceed {
		t.Errorf("as a source: %v", v.Codes())
	}
}

// A real file system that is copied while mounted is dirty and is refused until
// its label is named, also in the look that holds it; unmounted it is free.
func TestRealContents(t *testing.T) {
	testkit.Need(t, "root", "mkfs.ext4")
	b := newPlace(t)
	b.guard.Collectors = append(b.guard.Collectors, opening{contents{}})
	script := `truncate -s 16M DIR/fs; mkfs.ext4 -q -F -L web1-root DIR/fs; mkdir DIR/m; mount -o loop DIR/fs DIR/m
echo x > DIR/m/x; sync -f DIR/m; cp DIR/fs DIR/web1.img; umount DIR/m`
	if out, err := exec.Command("sh", "-ec", strings.ReplaceAll(script, "DIR", b.dir)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) {
		t.Fatalf("%v", err)
	}
	if os := refused.Verdict.Overrides(); fmt.Sprint(os) != "[content.dirty:web1-root]" {
		t.Errorf("refused because of %v", refused.Verdict.Because)
	}
	reader := *b.guard
	reader.Policy.Operation = Read
	src, err := reader.Open(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(src.Verdict.Context, func(f Finding) bool { return f.Code == ContentDirty }) {
		t.Errorf("a source that was not unmounted is not told of: %v", src.Verdict.All())
	}
	if err := errors.Join(src.Changed(t.Context()), src.Close()); err != nil {
		t.Error(err)
	}
	target, v, err := b.guard.Check(t.Context(), b.dir+"/fs")
	if err != nil {
		t.Fatal(err)
	}
	if v.Decision != Proceed {
		t.Errorf("unmounted: %v", v.Err())
	}
	if err := target.Close(); err != nil {
		t.Error(err)
	}
	b.guard.Policy.Override = []Override{{ContentDirty, "web1-root"}}
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Error(err)
	}
}

// A check disturbs none that comes after it, and waits for one that is at the same
// question or reads the target: whoever is gone at the second look was that.
func TestChecksDoNotRefuseOneAnother(t *testing.T) {
	b := newPlace(t)
	collectors := []Collector{dm{}, lease{}, locks{}, excl{}, self{}, marks{}, opening{contents{}}}
	check := func(g Guard, path string) {
		t.Helper()
		target, v, err := g.Check(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if v.Decision != Proceed {
			t.Errorf("%s: %v", path, v.Err())
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
	// beside has another open the target in this way until it is looked at in the
	// way of op for the second time.
	beside := func(path string, flags int, leased bool, op, name string) {
		t.Helper()
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		if leased {
			if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		looks, host := 0, *b.guard.Host
		host.Patience = time.Millisecond
		host.FS = host.FS.Record(func(o, n string) {
			mu.Lock()
			defer mu.Unlock()
			if o != op || name != "" && n != name {
				return
			}
			if looks++; looks == 2 {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		g := *b.guard
		g.Host = &host
		check(g, path)
		if looks < 2 {
			t.Errorf("%s was not asked again", op)
		}
	}
	b.guard.Collectors = collectors
	check(*b.guard, b.path)
	check(*b.guard, b.path)
	beside(b.path, os.O_RDONLY, false, "ask lease", "")
	b.guard.Collectors = []Collector{lease{}}
	beside(b.path, os.O_RDONLY, true, "read", "/proc/locks")
	b.guard.Collectors = []Collector{opening{contents{}}}
	beside(b.path, os.O_RDONLY, true, "read", "/proc/locks")

	testkit.Need(t, "root")
	dev, _ := loopDevice(t, b)
	b.guard.Collectors = collectors
	check(*b.guard, dev)
	check(*b.guard, dev)
	beside(dev, os.O_RDONLY|unix.O_EXCL, false, "ask excl", "")
}
