package blockio

import (
	"context"
	"errors"
	"io"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func extents(t *testing.T, f *File, off, n int64) []Extent {
	t.Helper()
	var out []Extent
	for e, err := range f.Extents(t.Context(), off, n) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// testExtents looks at a file of 16 blocks with data in blocks 4 to 7 and in 12.
func testExtents(t *testing.T, dir string, block int64) {
	file, _ := create(t, dir, nil, false)
	if err := file.Truncate(16 * block); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{4, 4}, {12, 1}} {
		if _, err := file.WriteAt(noise(int(r[1]*block), 1), r[0]*block); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		off, n int64
		want   []Extent
	}{
		{0, 16, []Extent{{0, 4, true}, {4, 4, false}, {8, 4, true}, {12, 1, false}, {13, 3, true}}},
		{5, 4, []Extent{{5, 3, false}, {8, 1, true}}},
		{1, 2, []Extent{{1, 2, true}}},
		{5, 1, []Extent{{5, 1, false}}},
		{13, 3, []Extent{{13, 3, true}}},
		{16, 0, nil},
		{0, 0, nil},
	} {
		want := append([]Extent(nil), x.want...)
		for i := range want {
			want[i].Off *= block
			want[i].Len *= block
		}
		if got := extents(t, file, x.off*block, x.n*block); !reflect.DeepEqual(got, want) {
			t.Errorf("%d blocks at %d: %v, want %v", x.n, x.off, got, want)
		}
	}
}

func TestExtents(t *testing.T) { testExtents(t, t.TempDir(), 64<<10) }

func TestExtentsOutsideTheFile(t *testing.T) {
	file := memfd(t, make([]byte, 100))
	for _, r := range [][2]int64{{0, 101}, {101, 0}, {-1, 2}, {0, -1}} {
		for e, err := range file.Extents(t.Context(), r[0], r[1]) {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%d bytes at %d: %v, %v", r[1], r[0], e, err)
			}
		}
	}
}

// What is missing at the end is not a hole.
func TestExtentsOfAFileThatBecameShorter(t *testing.T) {
	file, f := create(t, t.TempDir(), noise(8*4096, 1), false)
	if err := f.Truncate(4 * 4096); err != nil {
		t.Fatal(err)
	}
	var last error
	for e, err := range file.Extents(t.Context(), 0, 8*4096) {
		if last = err; err == nil && (e.Zero || e.End() > 4*4096) {
			t.Errorf("extent %v of what is not there", e)
		}
	}
	if !errors.Is(last, io.ErrUnexpectedEOF) {
		t.Errorf("ended with %v, want %v", last, io.ErrUnexpectedEOF)
	}
}

func TestExtentsEndWithTheContext(t *testing.T) {
	file := memfd(t, make([]byte, 100))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	n := 0
	for _, err := range file.Extents(ctx, 0, 100) {
		if n++; !errors.Is(err, why) {
			t.Errorf("%v, want %v", err, why)
		}
	}
	if n != 1 {
		t.Errorf("%d values, want one error", n)
	}
}

func TestExtentsStopWhenAsked(t *testing.T) {
	file, _ := create(t, t.TempDir(), nil, false)
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("x"), 1<<19); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range file.Extents(t.Context(), 0, 1<<20) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d extents, want 1", n)
	}
}

func TestReflinkIsUnsupportedInMemory(t *testing.T) {
	a, b := memfd(t, noise(4096, 1)), memfd(t, noise(8192, 2))
	if err := b.Reflink(a); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want %v", err, errors.ErrUnsupported)
	}
	got := make([]byte, 8192)
	if _, err := b.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "target", got, noise(8192, 2))
}
