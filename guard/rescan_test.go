package guard

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// beginning is the moment before the first byte: what every look after it is
// compared with, and what it told.
type beginning struct {
	*rescan
	mu    sync.Mutex
	notes []string
}

func (m *machine) begin(t *testing.T, path string, p Policy) *beginning {
	t.Helper()
	target := m.resolve(t, path)
	target.held = testHeld(t, t.TempDir()+"/x")
	before := Examine(t.Context(), m.host, target, append(changing(xen{}), excl{}))
	if v := p.Judge(before.Findings); v.Decision != Proceed {
		t.Fatalf("refused from the beginning: %v", v.Because)
	}
	b := &beginning{}
	b.rescan = newRescan(m.host, target, p, append(Collectors(), turning{}), before, func(f Finding) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.notes = append(b.notes, found([]Finding{f})...)
	})
	return b
}

// wantBroken looks and fails unless this breaks the hold; "" for nothing.
func (b *beginning) wantBroken(t *testing.T, want string, cs ...Collector) Finding {
	t.Helper()
	if cs == nil {
		cs = changing(backends{})
	}
	f, broken := b.look(t.Context(), cs)
	got := ""
	if broken {
		got = found([]Finding{f})[0]
	}
	if got != want {
		t.Errorf("broken by %q, want %q: %s (%s)", got, want, f.sentence(), f.Source)
	}
	return f
}

// volumes is a quiet host with a logical volume that we hold and another.
func volumes() *machine {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
	m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:16 100\n", "sdb")
	m.opened("253:0", 1)
	m.dir("/sys/bus/xen-backend/devices")
	return m
}

func mounted(source, number, options string) string {
	return rootMount + "99 1 " + number + " / /mnt " + options + " - ext4 " + source + " " + options + "\n"
}

// Who comes while the target is written breaks the hold, and nobody else does.
func TestRescan(t *testing.T) {
	everywhere := func(m *machine, table string) {
		for _, p := range []string{"self", "1", "50"} {
			m.file("/proc/"+p+"/mountinfo", table)
		}
	}
	const lv, disk = "/dev/dm-0", "/dev/sdb"
	for _, tt := range []struct {
		name   string
		target string
		change func(m *machine)
		want   string
	}{
		{"nobody", lv, func(*machine) {}, ""},
		{"a domain", lv, func(m *machine) { m.backend("7", "51712", "fd:0") }, "xen.sysfs.vbd same backend/vbd/7/51712"},
		{"a domain on the volume beside", lv, func(m *machine) { m.backend("7", "51712", "fd:1") }, ""},
		{"a domain on the disk", lv, func(m *machine) { m.backend("7", "51712", "8:10") }, "xen.sysfs.vbd below backend/vbd/7/51712"},
		{"a loop device", lv, func(m *machine) {
			m.loop("loop0", "7:0", "dev=0:6 ino=64768 rdev=253:0 offset=0 sizelimit=0 ro=0 file=\"/dev/dm-0\"")
		},
			"loop.attached above loop0"},
		{"a reading loop device", image, func(m *machine) { m.loop("loop0", "7:0", strings.Replace(onImage(0, 0), "ro=0", "ro=1", 1)) }, "loop.readonly above loop0"},
		{"a loop device on another file", image, func(m *machine) { m.loop("loop0", "7:0", strings.Replace(onImage(0, 0), "ino=100", "ino=101", 1)) }, ""},
		{"a volume made by hand", disk, func(m *machine) { m.mapper("dm-2", "253:2", "x", "0 5 linear 8:16 7\n", "sdb") }, "holder.dm above dm-2"},
		{"a volume made beside", lv, func(m *machine) { m.mapper("dm-2", "253:2", "x", "0 5 linear 8:16 200\n", "sdb") }, ""},
		{"a mount", lv, func(m *machine) { everywhere(m, mounted("/dev/dm-0", "253:0", "rw")) }, "mount.rw same /mnt"},
		{"a reading mount", lv, func(m *machine) { everywhere(m, mounted("/dev/dm-0", "253:0", "ro")) }, "mount.ro same /mnt"},
		{"a mount of the volume beside", lv, func(m *machine) { everywhere(m, mounted("/dev/dm-1", "253:1", "rw")) }, ""},
		{"swap", lv, func(m *machine) {
			m.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n")
		},
			"swap.active same /dev/dm-0"},
		{"an opener that nobody can name", lv, func(m *machine) { m.opened("253:0", 2) }, "dm.open same dm-0"},
		{"we are not in any more", lv, func(m *machine) { m.opened("253:0", 0) }, ""},
		{"a writer", lv, func(m *machine) {
			m.opened("253:0", 2)
			m.open("/proc/50", "3", devID("253:0"), "0100001")
		}, "fd.write same sshd.50"},
		{"a machine", lv, func(m *machine) {
			m.process("60", "qemu-system-x86")
			m.opened("253:0", 2)
			m.open("/proc/60", "3", devID("253:0"), "0100000")
		}, "fd.vm same qemu-system-x86.60"},
		{"a reader and somebody", lv, func(m *machine) {
			m.opened("253:0", 3)
			m.open("/proc/50", "3", devID("253:0"), "0100000")
			m.open("/proc/50", "4", devID("253:0"), "0100000")
		}, "dm.open same dm-0"},
		{"a count that cannot be read", lv, func(m *machine) { m.fs.SetErr("/proc/swaps", syscall.EIO) }, "blind.swaps unrelated /proc/swaps"},
		{"a list that cannot be read", lv, func(m *machine) { m.fs.SetErr("/sys/bus/xen-backend/devices", syscall.EIO) },
			"blind.xen unrelated /sys/bus/xen-backend/devices"},
		{"devices that cannot be read", lv, func(m *machine) { m.fs.SetErr("/sys/block", syscall.EIO) }, "blind.stack unrelated /sys/block"},
		// The exclusive open proves that there is no mount.
		{"a process that cannot be looked at", lv, func(m *machine) { m.fs.SetErr("/proc/50/ns/mnt", syscall.EACCES) }, ""},
		{"the same, and a file", image, func(m *machine) { m.fs.SetErr("/proc/50/ns/mnt", syscall.EACCES) }, "blind.mounts unrelated sshd.50"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := volumes()
			if tt.target == disk { // which nothing stands on
				m = newMachine()
				m.disk("sdb", "8:16")
			}
			b := m.begin(t, tt.target, Policy{})
			tt.change(m)
			b.wantBroken(t, tt.want)
			if len(b.notes) > 0 {
				t.Errorf("told of %q", b.notes)
			}
		})
	}
}

// What the operator took upon himself, or was known, breaks nothing as long as it
// stays what it was.
func TestRescanKnows(t *testing.T) {
	m := volumes()
	m.file("/proc/1/mountinfo", mounted("/dev/dm-0", "253:0", "ro"))
	b := m.begin(t, "/dev/dm-0", Policy{Override: []Override{{MountRO, "/mnt"}}})
	if !has(b.known, Finding{Code: MountRO, Key: "/mnt"}) {
		t.Error("the mount was not known")
	}
	b.wantBroken(t, "")
	m.file("/proc/1/mountinfo", mounted("/dev/dm-0", "253:0", "rw"))
	b.wantBroken(t, "mount.rw same /mnt")

	m = newMachine()
	m.fs.SetErr("/proc/50/ns/mnt", syscall.EACCES)
	b = m.begin(t, image, Policy{Override: []Override{{"blind.mounts", "sshd.50"}}})
	b.wantBroken(t, "")
	m.fs.SetErr("/proc/1/ns/mnt", syscall.EACCES)
	b.wantBroken(t, "blind.mounts unrelated init.1")
}

// Whoever reads a device is told of once and breaks nothing, and while he stays it
// is him that is looked at, and not all processes.
func TestRescanTellsOfReaders(t *testing.T) {
	m := volumes()
	b := m.begin(t, "/dev/dm-0", Policy{})
	m.opened("253:0", 2)
	m.open("/proc/50", "3", devID("253:0"), "0100000")
	b.wantBroken(t, "")
	var looked []string
	plain := m.host.FS
	b.host.FS = plain.Record(func(op, name string) {
		if strings.HasSuffix(name, "/fd") {
			looked = append(looked, name)
		}
	})
	b.wantBroken(t, "")
	b.wantBroken(t, "")
	if !slices.Equal(b.notes, []string{"fd.read same sshd.50"}) {
		t.Errorf("told of %q", b.notes)
	}
	if !slices.Equal(slices.Compact(looked), []string{"/proc/50/fd"}) {
		t.Errorf("looked at %q", looked)
	}
	b.host.FS = plain

	m.opened("253:0", 3) // and one more, who is not seen
	b.wantBroken(t, "dm.open same dm-0")
	m.process("51", "cat")
	m.open("/proc/51", "3", devID("253:0"), "0100000")
	m.fs.SetAsk(hostfs.SameOpen, "50/3 51/3", "other", 0)
	b.wantBroken(t, "")
	if want := []string{"fd.read same sshd.50", "fd.read same cat.51"}; !slices.Equal(b.notes, want) {
		t.Errorf("told of %q, want %q", b.notes, want)
	}
	m.open("/proc/50", "3", devID("253:0"), "0100002")
	b.wantBroken(t, "fd.write same sshd.50")
}

// Who has a device open for writing that nobody told of, because he took another
// node of it, is found when all is written; one who reads, or is gone in a moment, is
// no reason.
func TestRescanFindsWriterAtTheEnd(t *testing.T) {
	for flags, want := range map[string]Code{"0100001": FDWrite, "0100002": FDWrite, "0100000": ""} {
		for _, stays := range []bool{true, false} {
			m := newMachine()
			m.disk("sdb", "8:16")
			b := m.begin(t, "/dev/sdb", Policy{})
			m.open("/proc/50", "3", devID("8:16"), flags)
			var err error
			synctest.Test(t, func(t *testing.T) {
				b.host.Patience = 200 * time.Millisecond
				if !stays {
					time.AfterFunc(300*time.Millisecond, func() { m.fs.SetDir("/proc/50/fd") })
				}
				err = b.last(t.Context())
				time.Sleep(time.Second)
			})
			var broken *BrokenError
			if found := errors.As(err, &broken) && broken.Finding.Code == want; found != (stays && want != "") {
				t.Errorf("%s, stays %t: %v", flags, stays, err)
			}
		}
	}
}

// A descriptor that several processes have of one open is one opener, so that
// nobody hides behind it.
func TestRescanCountsOpens(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
		errno  syscall.Errno
		change func(m *machine)
		want   string
	}{
		{"opened twice", "other", 0, func(*machine) {}, ""},
		{"inherited", "same", 0, func(*machine) {}, "dm.open same dm-0"},
		{"not to be told", "", syscall.EPERM, func(*machine) {}, "dm.open same dm-0"},
		{"closed meanwhile", "", syscall.EBADF, func(*machine) {}, "dm.open same dm-0"},
		{"no such question", "", syscall.ENOSYS, func(*machine) {}, "dm.open same dm-0"},
		{"not to be told, and one is enough", "", syscall.EPERM, func(m *machine) { m.opened("253:0", 2) }, ""},
		{"of a thread", "", 0, func(m *machine) {
			m.fs.SetDir("/proc/51/fd")
			m.open("/proc/51/task/52", "3", devID("253:0"), "0100000")
			m.fs.SetAsk(hostfs.SameOpen, "50/3 52/3", "other", 0)
		}, ""},
		{"a mapping", "other", 0, func(m *machine) {
			m.fs.SetDir("/proc/51/fd")
			m.file("/proc/51/maps", "7f00-7f10 r--s 00000000 00:06 9 /dev/dm-0\n")
			m.stat("/proc/51/map_files/7f00-7f10", hostfs.Stat{Type: hostfs.BlockDevice, Rdev: devID("253:0").Rdev})
		}, "dm.open same dm-0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := volumes()
			b := m.begin(t, "/dev/dm-0", Policy{})
			m.opened("253:0", 3)
			m.process("51", "cat")
			for _, p := range []string{"/proc/50", "/proc/51"} {
				m.open(p, "3", devID("253:0"), "0100000")
			}
			m.fs.SetAsk(hostfs.SameOpen, "50/3 51/3", tt.answer, tt.errno)
			tt.change(m)
			b.wantBroken(t, tt.want)
		})
	}
}

// What passes within a few looks breaks nothing; what stays does, and so does at
// once what nobody does by accident.
func TestRescanHasPatience(t *testing.T) {
	openers := func(n int) func(*machine) { return func(m *machine) { m.opened("253:0", n) } }
	blind := func(name string, errno syscall.Errno) func(*machine) {
		return func(m *machine) {
			m.file("/proc/swaps", "Filename Type Size Used Priority\n")
			m.file("/proc/50/mountinfo", rootMount)
			m.dir("/sys/bus/xen-backend/devices")
			if name != "" {
				m.fs.SetErr(name, errno)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		looks []func(*machine) // what each look finds; the last stays
		want  string
		after time.Duration
	}{
		{"a probe", []func(*machine){openers(2), openers(1)}, "", 200 * time.Millisecond},
		{"a long probe", []func(*machine){openers(2), openers(3), openers(2), openers(1)}, "", 600 * time.Millisecond},
		{"one who stays", []func(*machine){openers(2), openers(2), openers(2), openers(2)}, "dm.open same dm-0", 600 * time.Millisecond},
		{"a moment of blindness", []func(*machine){blind("/proc/swaps", syscall.EBUSY), blind("", 0)}, "", 200 * time.Millisecond},
		{"one moment after the other", []func(*machine){blind("/proc/swaps", syscall.EIO), blind("/sys/bus/xen-backend/devices", syscall.EIO), blind("", 0)}, "", 400 * time.Millisecond},
		{"blindness behind a moment", []func(*machine){blind("/proc/swaps", syscall.EIO), blind("/sys/bus/xen-backend/devices", syscall.EIO)},
			"blind.xen unrelated /sys/bus/xen-backend/devices", 800 * time.Millisecond},
		{"one who stays behind a moment", []func(*machine){blind("/proc/swaps", syscall.EIO), func(m *machine) { blind("", 0)(m); openers(2)(m) }},
			"dm.open same dm-0", 800 * time.Millisecond},
		{"blindness", []func(*machine){blind("/proc/swaps", syscall.EIO)}, "blind.swaps unrelated /proc/swaps", 600 * time.Millisecond},
		{"somebody behind a probe", []func(*machine){openers(2), func(m *machine) { m.backend("7", "51712", "fd:0") }},
			"xen.sysfs.vbd same backend/vbd/7/51712", 200 * time.Millisecond},
		{"a domain", []func(*machine){func(m *machine) { m.backend("7", "51712", "fd:0") }}, "xen.sysfs.vbd same backend/vbd/7/51712", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := volumes()
			b := m.begin(t, "/dev/dm-0", Policy{})
			synctest.Test(t, func(t *testing.T) {
				b.host.Patience = 200 * time.Millisecond
				start, look := time.Now(), 0
				b.wantBroken(t, tt.want, turning{m, tt.looks, &look})
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
			})
		})
	}
}

// turning changes the host before it looks.
type turning struct {
	m     *machine
	looks []func(*machine)
	n     *int
}

func (turning) Name() string { return "turning" }

func (turning) Reads() []string { return nil }

func (c turning) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	c.looks[min(*c.n, len(c.looks)-1)](c.m)
	*c.n++
	for _, c := range changing(backends{}) {
		under := &Sheet{collector: c.Name()}
		c.Collect(ctx, host, t, under)
		for _, f := range under.found {
			s.Found(f)
		}
	}
}

// A look that is not done in time breaks the hold when the next one is late too, as
// it is not when we were stopped in the first, and one that ends with the hold tells
// nothing.
func TestRescanIsLate(t *testing.T) {
	m := volumes()
	b := m.begin(t, "/dev/dm-0", Policy{})
	synctest.Test(t, func(t *testing.T) {
		hangs := stub{"mounts", func(ctx context.Context, _ *Target, _ *Sheet) { time.Sleep(time.Hour) }}
		start := time.Now()
		if _, broken := b.look(t.Context(), []Collector{hangs}); !broken || time.Since(start) != 2*deadline {
			t.Errorf("broken %v after %s", broken, time.Since(start))
		}
		var looked atomic.Int32
		once := stub{"mounts", func(context.Context, *Target, *Sheet) {
			if looked.Add(1) == 1 {
				time.Sleep(time.Hour)
			}
		}}
		if f, broken := b.look(t.Context(), []Collector{once}); broken || looked.Load() != 2 {
			t.Errorf("broken by %s after %d looks", f.sentence(), looked.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if f, broken := b.look(ctx, []Collector{hangs}); broken {
			t.Errorf("broken by %s", f.sentence())
		}
		time.Sleep(2 * time.Hour)
	})
}

// A file that nothing keeps others away from is looked at while it is written, and
// once more when everything was.
func TestRescanOfFile(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	attach := func(b *place) {
		out, err := exec.Command("losetup", "--find", "--show", b.path).CombinedOutput()
		if err != nil {
			b.Fatalf("losetup: %v: %s", err, out)
		}
		b.Cleanup(func() { _ = exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run() })
	}
	for name, wait := range map[string]func(context.Context) error{
		"while": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"after": func(context.Context) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := newPlace(t)
			b.guard.Lockers = nil
			b.guard.Collectors = append(b.guard.Collectors, holders{})
			b.guard.Policy.Override = []Override{{"blind.lease", "lease"}}
			var told []Finding
			b.guard.Notice = func(f Finding) { told = append(told, f) }
			err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
				if err := b.fill(bytes.Repeat([]byte("new!"), 4096))(ctx, p); err != nil {
					return err
				}
				attach(b)
				return wait(ctx)
			})
			var incomplete *IncompleteError
			var broken *BrokenError
			if !errors.As(err, &incomplete) || !errors.As(err, &broken) || broken.Finding.Code != LoopAttached {
				t.Errorf("%v", err)
			} else if !strings.Contains(err.Error(), broken.At.UTC().Format(time.DateTime)) {
				t.Errorf("%v does not say when", err)
			}
			b.wantMarks(1)
			if len(told) != 1 || told[0].Code != HoldInForce || !strings.Contains(told[0].Detail, "every 1s") {
				t.Errorf("told %v", told)
			}
		})
	}
}

// BenchmarkRescan is what a second of watching costs on this host, in percent of a
// core.
func BenchmarkRescan(b *testing.B) {
	path := b.TempDir() + "/web1.img"
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	host := &Host{FS: hostfs.Live()}
	target, err := Resolve(b.Context(), host, path)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	spent := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before, n := spent(), 0
	for b.Loop() {
		Examine(b.Context(), host, target, changing(backends{}))
		n++
	}
	b.ReportMetric(float64(spent()-before)/float64(n)/float64(rescanEvery)*100, "%-of-a-core")
}
