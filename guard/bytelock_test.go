package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// onlyBytes is what there is where nothing but byte-range locks can be had.
var onlyBytes = []Locker{byteLocker{}}

// QEMU's programs refuse a target that is being written, whatever they want of it,
// and our own locks are not taken for somebody's in the second look.
func TestByteLocks(t *testing.T) {
	testkit.Need(t, "qemu-img", "qemu-io")
	b := newPlace(t)
	b.guard.Lockers = onlyBytes
	b.guard.Collectors = []Collector{locks{}, marks{}}
	openers := [][]string{
		{"qemu-img", "convert", "-f", "raw", b.path, b.dir + "/copy.img"},
		{"qemu-img", "resize", "-f", "raw", b.path, "2M"},
		{"qemu-io", "-f", "raw", "-c", "write 0 4k", b.path},
		{"qemu-io", "-f", "raw", "-r", "-c", "read 0 4k", b.path},
	}
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		for _, argv := range openers {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err == nil || !strings.Contains(string(out), "lock") {
				t.Errorf("%v was let in: %v, %s", argv, err, out)
			}
		}
		return b.fill(b.content)(ctx, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range openers {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("afterwards %v: %v, %s", argv, err, out)
		}
	}
}

// A byte that somebody has for himself refuses, and so do locks that look like ours
// and are not.
func TestByteLocksOfOthers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		kind  int16
		start int64
		n     int64
		looks []Collector
		want  Code
	}{
		{"virtlockd's byte", unix.F_WRLCK, 0, 1, nil, LockWrite},
		{"the last of QEMU's", unix.F_WRLCK, 203, 1, nil, LockWrite},
		{"all", unix.F_WRLCK, 0, 0, nil, LockWrite},
		{"between", unix.F_WRLCK, 1, 99, nil, ""},
		{"behind", unix.F_WRLCK, 204, 0, nil, ""},
		{"the very same", unix.F_RDLCK, 100, 4, []Collector{secondLook{locks{}}}, LockWrite},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newPlace(t)
			b.guard.Lockers, b.guard.Collectors = onlyBytes, append(tt.looks, marks{})
			theirs, err := os.OpenFile(b.path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			if err := unix.FcntlFlock(theirs.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: tt.kind, Start: tt.start, Len: tt.n}); err != nil {
				t.Fatal(err)
			}
			err = b.guard.Write(t.Context(), b.path, b.fill(b.content))
			var refused *RefusedError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A descriptor whose locks cannot be read proves nothing: what is in the table may
// be anybody's.
func TestOwnLocksUnreadable(t *testing.T) {
	m := newMachine()
	m.file("/proc/locks", "1: OFDLCK ADVISORY  READ -1 08:01:100 100 103\n")
	got := m.collectHeld(t, locks{}, image, testHeld(t, t.TempDir()+"/x"))
	if codes := (Policy{}).Judge(got).Codes(); !slices.Equal(codes, []Code{"blind.locks", LockWrite}) {
		t.Errorf("found %q", found(got))
	}
}

// Our own lock that stands in the table twice is a reason to read it again, and
// another's is not.
func TestOwnLockTwice(t *testing.T) {
	const ours, other = "OFDLCK ADVISORY  READ -1 08:01:100 100 103", "OFDLCK ADVISORY  READ -1 08:01:100 201 201"
	for table, want := range map[string]struct {
		others int
		twice  bool
	}{
		"1: " + ours + "\n":                                     {0, false},
		"1: " + ours + "\n2: " + ours + "\n":                    {1, true},
		"1: " + other + "\n2: " + ours + "\n":                   {1, false},
		"1: " + other + "\n2: " + other + "\n3: " + ours + "\n": {1, false},
	} {
		m := newMachine()
		m.file("/proc/locks", table)
		target := m.resolve(t, image)
		target.held = testHeld(t, t.TempDir()+"/x")
		m.file(fmt.Sprintf("/proc/%d/fdinfo/%d", target.held.pid, target.held.fd()), "flags:\t0100002\nlock:\t1: "+ours+"\n")
		s := &Sheet{}
		held, twice := othersLocks(m.host, target, s)
		if len(held) != want.others || twice != want.twice || len(s.found) > 0 {
			t.Errorf("%q: %v, %v, %v", table, held, twice, s.found)
		}
	}
}
