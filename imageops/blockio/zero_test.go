package blockio

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// only leaves one rung of the ladder; "write" leaves none.
func only(f *File, name string) {
	for i, r := range ladder {
		f.gone[i].Store(r.name != name)
	}
}

// gone reports whether a rung was found to be missing.
func gone(f *File, name string) bool {
	for i, r := range ladder {
		if r.name == name {
			return f.gone[i].Load()
		}
	}
	return false
}

// testZeroShapes zeroes ranges around block edges: inside they read as zeros,
// and next to them nothing has changed.
func testZeroShapes(t *testing.T, file *File, how ZeroMode) {
	t.Helper()
	size := int(min(file.Size(), 6*4096+100))
	for _, r := range ranges(size, file.Limits().OffAlign) {
		want := noise(size, 9)
		if _, err := file.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Zero(int64(r[0]), int64(r[1]), how); err != nil {
			t.Fatalf("zero %d bytes at %d: %v", r[1], r[0], err)
		}
		clear(want[r[0] : r[0]+r[1]])
		got := make([]byte, size)
		if _, err := file.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("zero %d bytes at %d", r[1], r[0]), got, want)
	}
}

func TestEachRungAlone(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for _, x := range []struct {
			rung  string
			how   ZeroMode
			freed bool
		}{
			{"punch hole", ZeroPunch, true},
			{"zero range", ZeroKeep, false},
			{"zero range", ZeroPunch, false},
			{"write", ZeroKeep, false},
			{"write", ZeroPunch, false},
		} {
			t.Run(fmt.Sprintf("%s,how=%d,direct=%v", x.rung, x.how, direct), func(t *testing.T) {
				file, f := create(t, t.TempDir(), noise(8*4096, 1), direct)
				only(file, x.rung)
				testZeroShapes(t, file, x.how)
				if x.rung != "write" && gone(file, x.rung) {
					testkit.Missing(t, x.rung+" on the file system of the temporary directory")
				}
				if err := errors.Join(file.Sync(), file.Zero(0, 4*4096, x.how), file.Sync()); err != nil {
					t.Fatal(err)
				}
				if freed := blocks(t, f) < 8*4096; freed != x.freed {
					t.Errorf("storage was freed: %v, want %v", freed, x.freed)
				}
				if file.Size() != 8*4096 || len(content(t, f.Name())) != 8*4096 {
					t.Error("size has changed")
				}
			})
		}
	}
}

func TestHolesAreMadeOnlyWhereWanted(t *testing.T) {
	file, f := create(t, t.TempDir(), noise(8*4096, 1), false)
	if err := errors.Join(file.Zero(0, 8*4096, ZeroKeep), file.Sync()); err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, f); got < 8*4096 {
		t.Errorf("%d bytes of storage, want %d", got, 8*4096)
	}
	same(t, "zeroed", content(t, f.Name()), make([]byte, 8*4096))
}

// A tmpfs file has no FALLOC_FL_ZERO_RANGE.
func TestMissingRungIsTriedOnce(t *testing.T) {
	file := memfd(t, noise(4*4096, 1))
	err := file.control(func(fd int) error { return zeroRange(fd, 0, 4096) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		testkit.Missing(t, "a tmpfs that cannot zero ranges")
	}
	testZeroShapes(t, file, ZeroKeep)
	if !gone(file, "zero range") || gone(file, "punch hole") {
		t.Errorf("zero range is gone: %v, punch hole: %v", gone(file, "zero range"), gone(file, "punch hole"))
	}
	testZeroShapes(t, file, ZeroKeep)
	testZeroShapes(t, file, ZeroPunch)
	if gone(file, "punch hole") {
		t.Error("punching a hole worked, and is gone")
	}
}

func TestRealFailureIsNotMissingSupport(t *testing.T) {
	file := memfd(t, noise(4*4096, 1))
	err := file.control(func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		testkit.Missing(t, "seals on memory files")
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := file.Zero(0, 4096, ZeroPunch); !errors.Is(err, unix.EPERM) {
			t.Errorf("zero on a sealed file: %v, want %v", err, unix.EPERM)
		}
	}
	if gone(file, "punch hole") {
		t.Error("a failure switched the rung off")
	}
}

func TestZeroOutsideTheFileChangesNothing(t *testing.T) {
	want := noise(10000, 2)
	file, f := create(t, t.TempDir(), want, false)
	for _, r := range [][2]int64{{0, 10001}, {10000, 1}, {9999, 2}, {-1, 5}, {5, -1}, {10001, 0}, {1, 1<<63 - 1}} {
		if err := file.Zero(r[0], r[1], ZeroPunch); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%d bytes at %d: %v, want %v", r[1], r[0], err, unix.EINVAL)
		}
	}
	for _, off := range []int64{0, 5000, 10000} {
		if err := file.Zero(off, 0, ZeroPunch); err != nil {
			t.Errorf("nothing at %d: %v", off, err)
		}
	}
	same(t, "content", content(t, f.Name()), want)
}
