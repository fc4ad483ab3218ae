package blockio

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// Both ways of asking tell a file that is cached from one that is not, and do not
// change it.
func TestCached(t *testing.T) {
	const size = 8<<20 + 100
	file, f := create(t, t.TempDir(), noise(size, 1), false)
	ask := func(what string, want int64) {
		t.Helper()
		got, err := file.Cached()
		if err != nil || got < want*9/10 || got > size || want == 0 && got > size/10 {
			t.Errorf("%s: %d bytes, %v, want %d", what, got, err, want)
		}
		got, err = sampled(int(f.Fd()), size)
		if err != nil || got < want*9/10 || got > size || want == 0 && got > size/10 {
			t.Errorf("%s, by samples: %d bytes, %v, want %d", what, got, err, want)
		}
	}
	if err := errors.Join(file.Sync(), file.Uncache(0, size)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	ask("cold", 0)
	ask("still cold", 0)
	if _, err := file.ReadAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	ask("warm", size)
	empty, _ := create(t, t.TempDir(), nil, false)
	if n, err := empty.Cached(); n != 0 || err != nil {
		t.Errorf("empty: %d, %v", n, err)
	}
}

// What the page cache has of a file stays there, and nothing comes to it.
func TestLeaveCache(t *testing.T) {
	const size = 8 << 20
	want := noise(size, 1)
	file, _ := create(t, t.TempDir(), want, false)
	if err := errors.Join(file.Sync(), file.Uncache(2<<20, size)); err != nil {
		t.Fatal(err)
	}
	file.LeaveCache()
	before, err := file.Cached()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := file.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "read", got, want)
	if !file.LeavesCache() {
		testkit.Missing(t, "RWF_DONTCACHE")
	}
	if after, err := file.Cached(); err != nil || after < before || after > before+size/16 {
		t.Errorf("%d bytes in the page cache, %v, and %d before", after, err, before)
	}
}

// Where the kernel cannot leave the cache alone, the bytes come all the same.
func TestLeaveCacheIsUnsupportedInMemory(t *testing.T) {
	want := noise(10000, 1)
	file := memfd(t, want)
	file.LeaveCache()
	got := make([]byte, len(want))
	if _, err := file.ReadAt(got, 0); err != nil || file.LeavesCache() {
		t.Errorf("%v, leaves the cache alone: %v", err, file.LeavesCache())
	}
	same(t, "read", got, want)
}
