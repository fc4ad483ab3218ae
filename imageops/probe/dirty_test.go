package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/internal/testkit"
)

// mountedCopy mounts the image, changes something in it, and returns a copy that
// was made meanwhile. The image is unmounted when it returns.
func mountedCopy(t *testing.T, f *os.File, options string, change func(dir string)) *os.File {
	t.Helper()
	testkit.Need(t, "root")
	dir := t.TempDir()
	loop := strings.TrimSpace(run(t, f.Name(), "", "losetup -f --show"))
	defer run(t, loop, "", "losetup -d")
	if out, err := exec.Command("mount", "-o", "rw"+options, loop, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	defer func() {
		run(t, dir, "", "umount")
		unused(t, loop)
	}()
	change(dir)
	copied := image(t, 0)
	run(t, copied.Name(), "", "cp --sparse=always "+f.Name())
	return copied
}

// unused waits until nobody has the device mounted: a mount namespace that somebody
// made in the meantime has the mount, too, as long as it lives.
func unused(t *testing.T, dev string) {
	t.Helper()
	for range 600 {
		f, err := os.OpenFile(dev, os.O_RDONLY|syscall.O_EXCL, 0)
		if err == nil {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s stays mounted", dev)
}

// write makes n files of some size, so that a journal has something to say.
func write(t *testing.T, n int) func(dir string) {
	return func(dir string) {
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", i%64)), bytes.Repeat([]byte{byte(i)}, 8<<10), 0o600); err != nil {
				t.Error(err)
			}
		}
		run(t, dir, "", "sync -f")
	}
}

// A copy of a mounted file system is dirty; the file system itself was not, before
// and after.
func TestRealDirty(t *testing.T) {
	for _, tt := range []struct {
		name, command, options string
		size                   int64
	}{
		{"ext2", "mkfs.ext2 -q -F -L old", "", 16 * mib},
		{"ext3", "mkfs.ext3 -q -F -L old", "", 16 * mib},
		{"ext4", "mkfs.ext4 -q -F -L new", "", 16 * mib},
		{"ext4 without a journal", "mkfs.ext4 -q -F -O ^has_journal", "", 16 * mib},
		{"xfs", "mkfs.xfs -q -f -L x", "", 320 * mib},
		{"xfs of 4k sectors and stripes", "mkfs.xfs -q -f --unsupported -s size=4096 -d su=64k,sw=4 -l su=64k,size=16m", "", 320 * mib},
		{"xfs with big log buffers", "mkfs.xfs -q -f", ",logbsize=256k", 320 * mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := image(t, tt.size, tt.command)
			if s := look(t, f).Signature; s.Type == "" || s.Dirty != "" {
				t.Errorf("as made: %+v", s)
			}
			live := mountedCopy(t, f, tt.options, write(t, 100))
			if s := look(t, live).Signature; s.Dirty == "" {
				t.Errorf("a copy of it mounted: %+v", s)
			}
			if s := look(t, f).Signature; s.Dirty != "" {
				t.Errorf("unmounted: %+v", s)
			}
			if strings.HasPrefix(tt.name, "xfs") {
				wantLog(t, live)
				wantLog(t, f)
			}
		})
	}
}

// wantLog fails unless xfsprogs' own judgement of the log is the same.
func wantLog(t *testing.T, f *os.File) {
	t.Helper()
	loop := strings.TrimSpace(run(t, f.Name(), "", "losetup -r -f --show"))
	defer run(t, loop, "", "losetup -d")
	out := run(t, loop, "", "xfs_logprint -t")
	clean, dirty := strings.Contains(out, "<CLEAN>"), strings.Contains(out, "<DIRTY>")
	c := look(t, f)
	if clean == dirty || clean != (c.Signature.Dirty == "") {
		t.Errorf("%q, and xfs_logprint says %s", c.Signature.Dirty, out)
	}
	img, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	wantGrounds(t, img, c)
}

// The log goes round and round: at every turn its end is found.
func TestRealXFSLogWraps(t *testing.T) {
	f := image(t, 320*mib, "mkfs.xfs -q -f --unsupported -l size=8m,su=64k")
	for turn := range 4 {
		live := mountedCopy(t, f, "", func(dir string) {
			for i := range 1000 {
				if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("d%d-%d", turn, i)), 0o700); err != nil {
					t.Error(err)
				}
				if i%10 == 0 { // each fills a unit of the log
					run(t, dir, "", "sync -f")
				}
			}
		})
		wantLog(t, live)
		wantLog(t, f)
	}
	a := newArea(f, 320*mib, 0, 320*mib)
	if turn := newXFSLog(a, a.at(0, 128)).cycle(0); turn < 3 {
		t.Errorf("the log is in its turn %d: the test writes too little", turn)
	}
}

// What was synced of a mounted btrfs after its last commit lies in its log.
func TestRealBtrfsLog(t *testing.T) {
	f := image(t, 128*mib, "mkfs.btrfs -q -f -L pool")
	live := mountedCopy(t, f, "", func(dir string) {
		write(t, 10)(dir)
		name := filepath.Join(dir, "file3")
		if err := os.WriteFile(name, []byte("late"), 0o600); err != nil {
			t.Error(err)
		}
		run(t, name, "", "sync")
	})
	if s := look(t, live).Signature; s.Dirty == "" {
		t.Errorf("a copy of it mounted: %+v", s)
	}
	if s := look(t, f).Signature; s.Type != "btrfs" || s.Dirty != "" {
		t.Errorf("unmounted: %+v", s)
	}
}

// ext4's marks come and go one by one.
func TestExtMarks(t *testing.T) {
	for _, tt := range []struct {
		command string
		dirty   bool
	}{
		{"set_super_value state 1", false},
		{"set_super_value state 0", true},
		{"set_super_value state 2", true},
		{"set_super_value state 3", false}, // has errors, and was unmounted
		{"feature needs_recovery", true},
		{"feature orphan_present", true},
	} {
		f := image(t, 16*mib, "mkfs.ext4 -q -F -L new")
		testkit.Need(t, "debugfs")
		if out, err := exec.Command("debugfs", "-w", "-R", tt.command, f.Name()).CombinedOutput(); err != nil {
			t.Fatalf("debugfs: %v\n%s", err, out)
		}
		if s := look(t, f).Signature; s.Type != "ext4" || (s.Dirty != "") != tt.dirty {
			t.Errorf("%s: %+v", tt.command, s)
		}
	}
}

// FAT is marked in the boot sector by Linux, in the table's second entry by others.
func TestFATMarks(t *testing.T) {
	for _, tt := range []struct {
		bits   int
		size   int64
		at     int64 // of what is written
		bytes  string
		dirty  bool
		change string
	}{
		{12, 4 * mib, 37, "\x01", true, "state"},
		{16, 32 * mib, 37, "\x01", true, "state"},
		{16, 32 * mib, 37, "\x02", false, "another bit of the state"},
		{32, 64 * mib, 65, "\x01", true, "state"},
		{32, 64 * mib, 37, "\x01", false, "the other kind's state"},
		{12, 4 * mib, -2, "\xff\x7f", false, "table, which has no mark"},
		{16, 32 * mib, -2, "\xff\x7f", true, "table"},
		{16, 32 * mib, -2, "\xff\xbf", false, "another bit of the table"},
		{32, 64 * mib, -4, "\xff\xff\xff\x07", true, "table"},
		{32, 64 * mib, -4, "\xff\xff\xff\x0b", false, "another bit of the table"},
	} {
		f := image(t, tt.size, fmt.Sprintf("mkfs.vfat -F %d", tt.bits))
		if s := look(t, f).Signature; s.Type != "vfat" || s.Dirty != "" {
			t.Errorf("fat%d as made: %+v", tt.bits, s)
		}
		at := tt.at
		if at < 0 {
			boot := make([]byte, 512)
			if _, err := f.ReadAt(boot, 0); err != nil {
				t.Fatal(err)
			}
			at = int64(le.Uint16(boot[11:]))*int64(le.Uint16(boot[14:])) - at
		}
		if _, err := f.WriteAt([]byte(tt.bytes), at); err != nil {
			t.Fatal(err)
		}
		if s := look(t, f).Signature; (s.Dirty != "") != tt.dirty {
			t.Errorf("fat%d with %s changed: %+v", tt.bits, tt.change, s)
		}
	}
}

// What a machine puts together of areas is known as that.
func TestMember(t *testing.T) {
	for _, s := range synthetic {
		want := false
		for _, prefix := range []string{"md", "lvm2 in", "zfs", "bcache", "drbd", "bluestore"} {
			want = want || strings.HasPrefix(s.name, prefix)
		}
		if got := s.want.Member(); got != want {
			t.Errorf("%s: member is %t", s.name, got)
		}
	}
}

// A ring is the log of a file system of 4 KiB blocks at its second block, of as
// many blocks of 512 bytes as it has elements, which are the turns. What is
// written into it is laid over them.
func ring(turns []uint32, over bytesAt) []byte {
	m := bytesAt{0: "XFSB" + be32(4096), 48: be64(1), 84: be32(1 << 20), 96: be32(uint32(len(turns) / 8)), 124: "\x14"}
	img := m.image(4096 + int64(len(turns))*512)
	for i, turn := range turns {
		copy(img[4096+512*i:], be32(turn))
	}
	for off, s := range over {
		copy(img[4096+off:], s)
	}
	return img
}

// turns writes n blocks of a turn.
func turns(n int, turn uint32, more ...uint32) []uint32 {
	return append(slices.Repeat([]uint32{turn}, n), more...)
}

// record is a record at a block that holds one operation with flags, of one block.
func record(at int, turn uint32, operations uint32, flags byte) bytesAt {
	off := int64(at) * 512
	return bytesAt{
		off: be32(xfsRecord) + be32(turn) + be32(2) + be32(512), off + 40: be32(operations), off + 320: be32(32 << 10),
		off + 512: be32(turn) + be32(0) + "\xaa" + string([]byte{flags}),
	}
}

// The end of the log is found wherever it is, and only an unmount that is the
// very last thing there counts.
func TestXFSLog(t *testing.T) {
	const n = 8192 // blocks, 4 MiB
	clean, unclean, unjudged := "", unclean("its log does not end with an unmount"), unjudged
	for _, end := range []int{2, 3, 100, xfsInFlight - 1, xfsInFlight, xfsInFlight + 1, n/2 - 1, n / 2, n/2 + 1, n - 1, n} {
		for _, turn := range []uint32{1, 2, 7} {
			log := slices.Concat(turns(end, turn), turns(n-end, turn-1))
			check := func(what, want string, over bytesAt) {
				t.Helper()
				if s := lookAt(t, ring(log, over)).Signature; s.Type != "xfs" || s.Dirty != want {
					t.Errorf("turn %d, end at %d: %s: %q, want %q", turn, end, what, s.Dirty, want)
				}
			}
			check("an unmount", clean, record(end-2, turn, 1, xfsUnmount))
			check("something else", unclean, record(end-2, turn, 1, 0))
			check("an unmount among others", unclean, record(end-2, turn, 2, xfsUnmount))
			check("no record", unclean, nil)
			if end > 3 {
				check("an unmount that is not the last", unclean, record(end-3, turn, 1, xfsUnmount))
				hole := record(end-2, turn, 1, xfsUnmount)
				hole[int64(max(1, end-xfsInFlight))*512] = be32(turn - 1)
				check("a hole in what was in flight", unclean, hole)
			}
			if end < n && turn > 1 {
				check("a turn that is skipped", unjudged, bytesAt{0: be32(turn + 3)})
			}
		}
	}
	// A record over the end of the ring: its header is of the turn before.
	over := record(n-1, 2, 1, xfsUnmount)
	over[0] = strings.Replace(over[n*512], be32(2), be32(3), 1)
	delete(over, n*512)
	if s := lookAt(t, ring(turns(n, 2), over)).Signature; s.Dirty != clean {
		t.Errorf("a record over the end of the ring: %q", s.Dirty)
	}
	for _, tt := range []struct {
		what, want string
		log        []byte
	}{
		{"never written", clean, ring(turns(n, 0), nil)},
		{"first turn missing", unjudged, ring(slices.Concat(turns(n/2, 2), turns(n/2, 0)), nil)},
		{"beginning lost", unjudged, ring(slices.Concat(turns(n/2, 0), turns(n/2, 2)), nil)},
		{"cut off", unjudged, ring(turns(n, 0), nil)[:n*512]},
		{"of no size", unjudged, ring(nil, nil)},
		{"elsewhere", "may not have been cleanly unmounted (its log is on another device)", ring(turns(n, 0), bytesAt{-4096 + 48: be64(0)})},
		{"in a group that is not there", unjudged, ring(turns(n, 0), bytesAt{-4096 + 48: be64(1 << 40)})},
		{"behind its group", unjudged, ring(turns(n, 0), bytesAt{-4096 + 84: be32(1)})},
		{"of groups of no size", unjudged, ring(turns(n, 0), bytesAt{-4096 + 124: "\xff"})},
	} {
		if s := lookAt(t, tt.log).Signature; s.Dirty != tt.want {
			t.Errorf("a log %s: %q, want %q", tt.what, s.Dirty, tt.want)
		}
	}
	// What cannot be read is an error, and no judgement.
	img := ring(turns(n, 2), record(n-2, 2, 1, xfsUnmount))
	for _, at := range []int64{4 << 10, 3 << 20, 4 << 20} {
		if c, err := Look(faulty{bytes.NewReader(img), at, at + 1, syscall.EIO}, int64(len(img))); !errors.Is(err, syscall.EIO) || c.Signature.Dirty != "" {
			t.Errorf("byte %d unreadable: %+v, %v", at, c.Signature, err)
		}
	}
}

func FuzzXFSLog(f *testing.F) {
	f.Add(ring(turns(64, 2), record(62, 2, 1, xfsUnmount))[:8<<10])
	f.Add(ring(slices.Concat(turns(32, 1), turns(32, 0)), record(30, 1, 1, xfsUnmount)))
	f.Add(ring(turns(16, 0), nil))
	f.Fuzz(func(t *testing.T, img []byte) {
		if len(img) < 4 {
			return
		}
		copy(img, "XFSB")
		size := int64(len(img))
		s := xfs(newArea(bytes.NewReader(img), size, 0, size))
		if s.Type == "xfs" && s.Dirty == "" &&
			!bytes.Contains(img, []byte(be32(xfsRecord))) && bytes.Count(img[min(512, len(img)):], []byte{0}) == 0 {
			t.Errorf("a log without a record and without a zero is clean: %q", img)
		}
	})
}
