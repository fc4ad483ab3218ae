package hostfs_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/hostfs"
)

const capture = `A host that never was.
question: overwrite /dev/vg0/db1
-- manifest --
# devices
stat  /dev/dm-0 b dev=0:5 ino=301 rdev=253:0 mode=0660 mtime=1700000000000000001
link  /dev/vg0/db1 ../dm-0
link  /dev/mapper/vg0-db1 /dev/dm-0
dir   /dev/vg0 db1
link  /sys/block/dm-0 ../devices/virtual/block/dm-0
link  /sys/dev/block/253:0 ../../devices/virtual/block/dm-0
bytes /sys/devices/virtual/block/dm-0/size "65536\n"
dir   /sys/devices/virtual/block/dm-0/holders

dir   /proc 1 812 self swaps
link  /proc/self 812
bytes /proc/812/comm "xl\n"
dir   /proc/812/fd 0 1 2 3
link  /proc/812/fd/0 /dev/null
link  /proc/812/fd/1 "/srv/images/old.img (deleted)"
stat  /proc/812/fd/1 f dev=254:0 ino=99 size=-1
link  /proc/812/fd/2 socket:[4711]
link  /proc/812/fd/3 /dev/dm-0
stat  /proc/812/fd/3 b dev=0:5 ino=301 rdev=253:0
err   /proc/1/fd EACCES
bytes /etc/xen/none ""
dir   /srv/images web1.img "two words.img"
stat  /srv/images d dev=254:0 ino=2
stat  /srv/images/web1.img f dev=254:0 ino=14847 size=41943040 mode=0644
link  /srv/link images
link  /srv/loop1 loop2
link  /srv/loop2 loop1
link  /srv/up images/../images/web1.img
ask   lease /srv/images/web1.img EAGAIN
ask   excl /dev/dm-0 "free"
ask   dm-status 253:0 "open=1 suspended=0 uuid=\"LVM-x\" name=\"vg0-db1\""
-- /proc/swaps --
Filename Type Size Used Priority
-- xenstore --
/local/domain/0/name = "Domain-0"
-- want --
`

func load(t *testing.T, text string) *hostfs.Root {
	t.Helper()
	r, err := hostfs.Load(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// outcome is an access's answer or its error, whichever there is, as text.
func outcome[T any](v T, err error) any {
	var e *hostfs.Error
	switch {
	case err == nil:
		return v
	case !errors.As(err, &e):
		return "not an *Error: " + err.Error()
	}
	return e.Err
}

func TestCapturedAnswers(t *testing.T) {
	r := load(t, capture)
	read := func(name string) any {
		b, err := r.ReadFile(name)
		return outcome(string(b), err)
	}
	dir := func(name string) any { return outcome(r.ReadDir(name)) }
	link := func(name string) any { return outcome(r.Readlink(name)) }
	stat := func(name string) any { return outcome(r.Stat(name)) }
	real := func(name string) any {
		h, err := r.Open(name)
		if err != nil {
			return outcome("", err)
		}
		if h.Fd() != -1 || h.Name() != h.Real || h.Close() != nil {
			t.Errorf("%s: a captured handle has a descriptor, or a name of its own", name)
		}
		return h.Real
	}
	dm0 := hostfs.Stat{Type: hostfs.BlockDevice, Dev: hostfs.Mkdev(0, 5), Ino: 301, Rdev: hostfs.Mkdev(253, 0)}
	dm0full := dm0
	dm0full.Mode, dm0full.MtimeNs = 0o660, 1700000000000000001
	web1 := hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(254, 0), Ino: 14847, Size: 41943040, Mode: 0o644}

	for _, tt := range []struct {
		op   func(string) any
		name string
		want any
	}{
		{read, "/proc/swaps", "Filename Type Size Used Priority\n"},
		{read, "/etc/xen/none", ""},
		{read, "/proc/self/comm", "xl\n"},
		{read, "/sys/block/dm-0/size", "65536\n"},
		{read, "/sys/dev/block/253:0/size", "65536\n"},
		{read, "/sys/dev/block/253:0/dev", hostfs.ErrNotCaptured},
		{read, "//proc/./swaps", "Filename Type Size Used Priority\n"},
		{read, "/proc/813/comm", syscall.ENOENT},
		{read, "/proc/swaps/x", syscall.ENOTDIR},
		{read, "/proc", syscall.EISDIR},
		{read, "/proc/1/fd/3", syscall.EACCES},
		{read, "/proc/1/comm", hostfs.ErrNotCaptured},
		{read, "/elsewhere", hostfs.ErrNotCaptured},
		{read, "proc/swaps", syscall.EINVAL},
		{read, "", syscall.EINVAL},
		{read, "/proc/swaps\x00", syscall.EINVAL},

		{dir, "/proc", []string{"1", "812", "self", "swaps"}},
		{dir, "/sys/block/dm-0/holders", []string(nil)},
		{dir, "/srv/link", []string{"two words.img", "web1.img"}},
		{dir, "/proc/1/fd", syscall.EACCES},
		{dir, "/proc/swaps", syscall.ENOTDIR},
		{dir, "/proc/813", syscall.ENOENT},
		{dir, "/sys/block", hostfs.ErrNotCaptured},

		{link, "/dev/vg0/db1", "../dm-0"},
		{link, "/proc/self/fd/1", "/srv/images/old.img (deleted)"},
		{link, "/dev/dm-0", syscall.EINVAL},
		{link, "/dev/vg0/db2", syscall.ENOENT},
		{link, "/dev/sda", hostfs.ErrNotCaptured},

		{stat, "/dev/vg0/db1", dm0full},
		{stat, "/dev/mapper/vg0-db1", dm0full},
		{stat, "/proc/812/fd/3", dm0},
		{stat, "/proc/self/fd/3", dm0},
		{stat, "/proc/812/fd/1", hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(254, 0), Ino: 99, Size: -1}},
		{stat, "/proc/812/fd/0", hostfs.ErrNotCaptured},
		{stat, "/proc/812/fd/2", hostfs.ErrNotCaptured},
		{stat, "/proc/812/fd/4", syscall.ENOENT},
		{stat, "/proc/1/fd/4", syscall.EACCES},
		{stat, "/srv/up", web1},
		{stat, "/srv/link/web1.img", web1},
		{stat, "/srv/link/web2.img", syscall.ENOENT},
		{stat, "/srv/link/two words.img", hostfs.ErrNotCaptured},
		{stat, "/srv/loop1", syscall.ELOOP},
		{stat, "/srv/loop1/x", syscall.ELOOP},
		{stat, "/proc/swaps", hostfs.ErrNotCaptured},
		{stat, "/srv/images/web1.img/x", syscall.ENOTDIR},
		{stat, "/srv/images/web1.img/..", syscall.ENOTDIR},

		{real, "/srv/up", "/srv/images/web1.img"},
		{real, "/dev/vg0/db1", "/dev/dm-0"},
		{real, "/dev/vg0/../dm-0", "/dev/dm-0"},
		{real, "/proc/self/fd/1", "/srv/images/old.img (deleted)"},
		{real, "/proc/812/fd/3", "/dev/dm-0"},
		{real, "/srv/images/web9.img", syscall.ENOENT},
		{real, "/dev/sda", hostfs.ErrNotCaptured},
	} {
		if diff := cmp.Diff(tt.want, tt.op(tt.name), cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestCapturedAsk(t *testing.T) {
	r := load(t, capture)
	for _, tt := range []struct {
		q    hostfs.Question
		name string
		want any
	}{
		{hostfs.Lease, "/srv/images/web1.img", syscall.EAGAIN},
		{hostfs.Lease, "/srv/up", syscall.EAGAIN},
		{hostfs.Lease, "/srv/images/web2.img", syscall.ENOENT},
		{hostfs.Lease, "/srv/images/two words.img", hostfs.ErrNotCaptured},
		{hostfs.Excl, "/dev/vg0/db1", "free"},
		{hostfs.ReadOnly, "/dev/vg0/db1", hostfs.ErrNotCaptured},
		{hostfs.DMStatus, "253:0", `open=1 suspended=0 uuid="LVM-x" name="vg0-db1"`},
		{hostfs.DMStatus, "253:1", hostfs.ErrNotCaptured},
		{"rm", "/srv/up", syscall.EINVAL},
	} {
		got := outcome(r.Ask(t.Context(), tt.q, tt.name))
		if got != tt.want {
			t.Errorf("%s %s: %v, want %v", tt.q, tt.name, got, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Ask(ctx, hostfs.Excl, "/dev/dm-0"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestErrorsAreRecognised(t *testing.T) {
	r := load(t, capture)
	_, err := r.ReadFile("/proc/813/comm")
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, hostfs.ErrNotCaptured) {
		t.Errorf("absent: %v", err)
	}
	if got, want := err.Error(), `read "/proc/813/comm": no such file or directory`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	_, err = r.ReadDir("/proc/1/fd")
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("forbidden: %v", err)
	}
	_, err = r.Stat("/elsewhere")
	if !errors.Is(err, hostfs.ErrNotCaptured) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unrecorded: %v", err)
	}
}

func TestCaptureParts(t *testing.T) {
	r := load(t, capture)
	if got, want := r.Comment(), "A host that never was.\nquestion: overwrite /dev/vg0/db1\n"; got != want {
		t.Errorf("comment %q, want %q", got, want)
	}
	if got, want := r.Members(), []string{"xenstore", "want"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	if got, ok := r.Member("xenstore"); !ok || got != "/local/domain/0/name = \"Domain-0\"\n" {
		t.Errorf("xenstore: %q, %v", got, ok)
	}
	if got, ok := r.Member("want"); !ok || got != "" {
		t.Errorf("want: %q, %v", got, ok)
	}
	if _, ok := r.Member("/proc/swaps"); ok {
		t.Error("a file is a member")
	}
	live := hostfs.Live()
	if _, ok := live.Member("want"); ok || live.Members() != nil || live.Comment() != "" || live.Entries() != nil {
		t.Error("the live host has members")
	}
}

// TestLinkLimit follows as many links as the kernel does, and not one more.
func TestLinkLimit(t *testing.T) {
	for _, tt := range []struct {
		links int
		want  error
	}{{39, nil}, {40, nil}, {41, syscall.ELOOP}} {
		r := hostfs.New()
		name := "/a"
		for range tt.links {
			r.SetLink(name, "a"+name[1:])
			name = "/a" + name[1:]
		}
		r.SetStat(name, hostfs.Stat{Type: hostfs.Regular})
		if _, err := r.Stat("/a"); !errors.Is(err, tt.want) {
			t.Errorf("%d links: %v, want %v", tt.links, err, tt.want)
		}
	}
}
