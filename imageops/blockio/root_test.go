package blockio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/imageops/blockio/blocktest"
	"imgward/internal/testkit"
)

const mib = 1 << 20

// fileSystems are made with their size, as small as their mkfs allows.
var fileSystems = []struct {
	kind    string
	size    int64
	reflink bool
}{
	{"ext4", 64 * mib, false},
	{"xfs", 320 * mib, true},
	{"btrfs", 320 * mib, true},
	{"tmpfs", 64 * mib, false},
}

func TestRootLoopDevices(t *testing.T) {
	testkit.Need(t, "root")
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			device := blocktest.Loop(t, 8*mib, sector)
			what := noise(8*mib, 1)
			for _, direct := range []bool{false, true} {
				if err := os.WriteFile(device, what, 0); err != nil {
					t.Fatal(err)
				}
				file, f := open(t, device, direct)
				if file.Size() != 8*mib {
					t.Errorf("size %d, want %d", file.Size(), 8*mib)
				}
				if lim := file.Limits(); lim.Logical != sector || lim.OffAlign != sector || lim.Physical < sector || lim.MemAlign > 4096 {
					t.Errorf("limits %+v of %d-byte sectors", lim, sector)
				}
				testReadsAndWrites(t, file, f, what[:5*4096+300])
				for _, rung := range []string{"punch hole", "zero out", "write"} {
					only(file, rung)
					testZeroShapes(t, file, ZeroPunch)
				}
				only(file, "zero out")
				if err := file.Zero(mib, mib, ZeroKeep); err != nil || gone(file, "zero out") {
					t.Errorf("BLKZEROOUT: %v, gone: %v", err, gone(file, "zero out"))
				}
				if err := file.Truncate(mib); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("truncate: %v", err)
				}
				if got, want := extents(t, file, 512, mib), []Extent{{512, mib, false}}; !reflect.DeepEqual(got, want) {
					t.Errorf("extents %v, want %v", got, want)
				}
				for _, n := range []int{sector, 1, sector + 1} {
					if _, err := file.WriteAt(make([]byte, n), 8*mib); !errors.Is(err, unix.ENOSPC) {
						t.Errorf("write %d bytes behind the end: %v, want %v", n, err, unix.ENOSPC)
					}
				}
				if err := file.Zero(8*mib-int64(sector), 2*int64(sector), ZeroKeep); !errors.Is(err, unix.EINVAL) {
					t.Errorf("zero across the end: %v", err)
				}
				if err := file.Sync(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A device hands back the storage of zeros where that was wanted, and only there.
func TestRootDeviceHandsStorageBack(t *testing.T) {
	testkit.Need(t, "root")
	for how, freed := range map[ZeroMode]bool{ZeroPunch: true, ZeroKeep: false} {
		_, backing := create(t, t.TempDir(), noise(4*mib, 1), false)
		file, _ := open(t, blocktest.Attach(t, backing.Name(), 512), true)
		if err := errors.Join(file.Zero(mib, 2*mib, how), file.Sync()); err != nil {
			t.Fatal(err)
		}
		if how == ZeroPunch && gone(file, "punch hole") {
			testkit.Missing(t, "a loop device that makes holes")
		}
		if got := blocks(t, backing); got < 3*mib != freed {
			t.Errorf("how %d: %d bytes of storage are left of %d", how, got, 4*mib)
		}
		want := noise(4*mib, 1)
		clear(want[mib : 3*mib])
		got := make([]byte, 4*mib)
		if _, err := file.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		same(t, "device", got, want)
	}
}

// Another way to the same storage, as a domain has one, leaves the page cache of
// the device behind. Bytes next to an unaligned write must not come from there.
func TestRootUnalignedWriteNextToAStaleCache(t *testing.T) {
	testkit.Need(t, "root")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, noise(mib, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	device, other := blocktest.Attach(t, image, 512), blocktest.Attach(t, image, 512)
	holder, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ReadAt(make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	now := noise(mib, 2)
	domain, _ := open(t, other, true)
	if _, err := domain.WriteAt(now, 0); err != nil {
		t.Fatal(err)
	}
	file, f := open(t, device, true)
	for _, r := range [][2]int{{0, 100}, {8192 + 17, 1000}, {mib - 30, 30}} {
		p := noise(r[1], 3)
		copy(now[r[0]:], p)
		if _, err := file.WriteAt(p, int64(r[0])); err != nil {
			t.Fatal(err)
		}
	}
	if !isDirect(t, f) {
		t.Error("direct I/O is off afterwards")
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, mib)
	if _, err := domain.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "storage", got, now)
}

func TestRootUncacheDropsWholePages(t *testing.T) {
	testkit.Need(t, "root")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, noise(mib, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	cached, _ := open(t, blocktest.Attach(t, image, 512), false)
	domain, _ := open(t, blocktest.Attach(t, image, 512), true)
	for i, r := range [][2]int{{0, mib}, {4096 + 100, 50}, {20000, 8192}, {mib - 1, 1}} {
		p, now := make([]byte, mib), noise(mib, uint64(i+2))
		if _, err := cached.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := domain.WriteAt(now, 0); err != nil {
			t.Fatal(err)
		}
		if err := cached.Uncache(int64(r[0]), int64(r[1])); err != nil {
			t.Fatal(err)
		}
		p = p[r[0] : r[0]+r[1]]
		if _, err := cached.ReadAt(p, int64(r[0])); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%d bytes at %d", r[1], r[0]), p, now[r[0]:r[0]+r[1]])
	}
}

func TestRootFileSystems(t *testing.T) {
	testkit.Need(t, "root")
	for _, fs := range fileSystems {
		t.Run(fs.kind, func(t *testing.T) {
			dir := blocktest.FileSystem(t, fs.kind, fs.size)
			t.Run("tails", func(t *testing.T) { testDirectTails(t, dir) })
			t.Run("extents", func(t *testing.T) { testExtents(t, dir, 64<<10) })
			for _, direct := range []bool{false, true} {
				what := noise(5*4096+511, 3)
				file, f := create(t, dir, what, direct)
				testReadsAndWrites(t, file, f, what)
				for _, rung := range []string{"all", "punch hole", "zero range", "write"} {
					file, _ := create(t, dir, noise(8*4096, 4), direct)
					if rung != "all" {
						only(file, rung)
					}
					testZeroShapes(t, file, ZeroPunch)
					testZeroShapes(t, file, ZeroKeep)
				}
			}
			t.Run("reflink", func(t *testing.T) { testReflink(t, dir, fs.reflink) })
		})
	}
}

func testReflink(t *testing.T, dir string, can bool) {
	what := noise(mib+100, 5)
	src, _ := create(t, dir, what, false)
	dst, f := create(t, dir, nil, false)
	err := dst.Reflink(src)
	if !can {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v, want %v", err, errors.ErrUnsupported)
		}
		same(t, "untouched target", content(t, f.Name()), nil)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if dst.Size() != mib+100 {
		t.Errorf("size %d, want %d", dst.Size(), mib+100)
	}
	same(t, "clone", content(t, f.Name()), what)
	if _, err := dst.WriteAt([]byte("only here"), 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := src.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "source after a write to its clone", got, what)
}

func TestRootReflinkBetweenFileSystems(t *testing.T) {
	testkit.Need(t, "root", "mkfs.xfs")
	src, _ := create(t, blocktest.FileSystem(t, "xfs", 320*mib), noise(4096, 1), false)
	dst, _ := create(t, blocktest.FileSystem(t, "xfs", 320*mib), nil, false)
	if err := dst.Reflink(src); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want %v", err, errors.ErrUnsupported)
	}
}

func TestRootFullFileSystem(t *testing.T) {
	testkit.Need(t, "root", "mkfs.ext4")
	dir := blocktest.FileSystem(t, "ext4", 16*mib)
	f, err := os.OpenFile(filepath.Join(dir, "image"), os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file, err := NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	off, p := int64(0), alignedBytes(64<<10, 4096)
	for err == nil && off < 32*mib {
		var n int
		n, err = file.WriteAt(p, off)
		off += int64(n)
	}
	var op *OpError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &op) || op.Off != off || off == 0 || off >= 16*mib {
		t.Errorf("%d bytes, then %v", off, err)
	}
}
