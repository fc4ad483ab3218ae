package blockio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewFileTakesFilesAndDevicesOnly(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	closed, err := os.Create(filepath.Join(t.TempDir(), "closed"))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, f := range []*os.File{r, w, null, dir, closed} {
		var op *OpError
		if _, err := NewFile(f); !errors.As(err, &op) || op.Name != f.Name() {
			t.Errorf("%s: %v, want an *OpError", f.Name(), err)
		}
	}
}

func TestClosedDescriptorIsAnError(t *testing.T) {
	file, f := create(t, t.TempDir(), []byte("12345678"), false)
	f.Close()
	_, rerr := file.ReadAt(make([]byte, 4), 0)
	_, werr := file.WriteAt([]byte("x"), 0)
	for what, err := range map[string]error{
		"read": rerr, "write": werr, "sync": file.Sync(), "zero": file.Zero(0, 4, ZeroPunch),
		"truncate": file.Truncate(4), "direct": file.SetDirect(true), "uncache": file.Uncache(0, 4),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v, want %v", what, err, os.ErrClosed)
		}
	}
}

func TestSizeIsFixed(t *testing.T) {
	file, f := create(t, t.TempDir(), make([]byte, 1000), false)
	if err := f.Truncate(5000); err != nil {
		t.Fatal(err)
	}
	if got := file.Size(); got != 1000 {
		t.Errorf("size %d after somebody else made it longer, want 1000", got)
	}
	if err := file.Truncate(3000); err != nil {
		t.Fatal(err)
	}
	if got := file.Size(); got != 3000 {
		t.Errorf("size %d, want 3000", got)
	}
	same(t, "after truncate", content(t, f.Name()), make([]byte, 3000))
	if err := file.Truncate(-1); !errors.Is(err, unix.EINVAL) || file.Size() != 3000 {
		t.Errorf("truncate to -1: %v, size %d", err, file.Size())
	}
}

func TestSetDirect(t *testing.T) {
	file, f := create(t, t.TempDir(), make([]byte, 8192), true)
	for _, on := range []bool{false, true, true, false} {
		if err := file.SetDirect(on); err != nil {
			t.Fatal(err)
		}
		if file.Direct() != on || isDirect(t, f) != on {
			t.Errorf("direct: %v, kernel says %v, want %v", file.Direct(), isDirect(t, f), on)
		}
	}
}

// ranges are requests around the edges of blocks and of the file.
func ranges(size int, align int) [][2]int {
	var out [][2]int
	edges := []int{0, 1, align - 1, align, align + 1, 3*align - 1, 3 * align, size - align, size - 1, size}
	for _, a := range edges {
		for _, b := range edges {
			if 0 <= a && a < b && b <= size {
				out = append(out, [2]int{a, b - a})
			}
		}
	}
	return out
}

func testReadsAndWrites(t *testing.T, file *File, f *os.File, what []byte) {
	align := file.Limits().OffAlign
	want := bytes.Clone(what)
	check := func(when string) {
		got := make([]byte, len(want))
		if n, err := file.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF {
			t.Fatalf("%s: read %d bytes: %v", when, n, err)
		}
		same(t, when, got, want)
	}
	check("at first")
	for i, r := range ranges(len(want), align) {
		for _, shift := range []int{0, 1} { // of the memory
			when := fmt.Sprintf("%d bytes at %d, memory off by %d", r[1], r[0], shift)
			p := alignedBytes(r[1]+shift, 4096)[shift:]
			if n, err := file.ReadAt(p, int64(r[0])); n != len(p) || err != nil && err != io.EOF {
				t.Fatalf("read %s: %d, %v", when, n, err)
			}
			same(t, "read "+when, p, want[r[0]:r[0]+r[1]])
			copy(p, noise(r[1], uint64(2*i+shift)))
			copy(want[r[0]:], p)
			if n, err := file.WriteAt(p, int64(r[0])); n != len(p) || err != nil {
				t.Fatalf("write %s: %d, %v", when, n, err)
			}
			check("after write " + when)
		}
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := file.Uncache(0, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	check("after sync")
	same(t, "through another descriptor", content(t, f.Name())[:len(want)], want)
}

func TestReadsAndWritesOfAnyShape(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			for _, size := range []int{5 * 4096, 5*4096 + 1, 5*4096 + 511, 6*4096 - 1} {
				what := noise(size, 3)
				file, f := create(t, t.TempDir(), what, direct)
				testReadsAndWrites(t, file, f, what)
				if isDirect(t, f) != direct {
					t.Errorf("direct is %v afterwards", !direct)
				}
			}
		})
	}
}

func TestLargeRequestsFromMisalignedMemory(t *testing.T) {
	what := noise(bounceBytes*2+777, 4)
	file, f := create(t, t.TempDir(), make([]byte, len(what)), true)
	if n, err := file.WriteAt(what, 0); n != len(what) || err != nil {
		t.Fatal(n, err)
	}
	same(t, "written", content(t, f.Name()), what)
	p := make([]byte, len(what)+1)[1:]
	if n, err := file.ReadAt(p, 0); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	same(t, "read", p, what)
}

func TestReadAcrossTheEnd(t *testing.T) {
	for _, direct := range []bool{false, true} {
		for _, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097} {
			what := noise(size, 5)
			file, _ := create(t, t.TempDir(), what, direct)
			for _, over := range []int{1, 512, 4096, 9000} {
				p := alignedBytes(size+over, 4096)
				n, err := file.ReadAt(p, 0)
				if n != size || err != io.EOF {
					t.Errorf("direct=%v: %d bytes of %d: %d, %v", direct, len(p), size, n, err)
				}
				same(t, "read", p[:n], what)
			}
			if n, err := file.ReadAt(make([]byte, 10), int64(size)+4096); n != 0 || err != io.EOF {
				t.Errorf("direct=%v: behind the end of %d: %d, %v", direct, size, n, err)
			}
		}
	}
}

func TestDirectTails(t *testing.T) {
	testDirectTails(t, t.TempDir())
}

// testDirectTails writes images that end one byte before, on, and after a block.
func testDirectTails(t *testing.T, dir string) {
	const n = 3 * 4096
	for _, size := range []int{n - 513, n - 512, n - 511, n - 1, n, n + 1, n + 511, n + 512, n + 513} {
		what := noise(size, 6)
		file, f := create(t, dir, make([]byte, size), true)
		if m, err := file.WriteAt(what, 0); m != size || err != nil {
			t.Fatalf("write %d bytes: %d, %v", size, m, err)
		}
		if !isDirect(t, f) {
			t.Errorf("%d bytes: direct I/O is off afterwards", size)
		}
		if err := errors.Join(file.Sync(), file.Uncache(0, int64(size))); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%d bytes", size), content(t, f.Name()), what)
		got := alignedBytes(size, 4096)
		if m, err := file.ReadAt(got, 0); m != size || err != nil {
			t.Fatalf("read %d bytes: %d, %v", size, m, err)
		}
		same(t, fmt.Sprintf("%d bytes read directly", size), got, what)
	}
}

// A second open of the file, even by the same process, would break the lease.
func TestUnalignedWritesKeepALease(t *testing.T) {
	file, f := create(t, t.TempDir(), make([]byte, 10000), true)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatalf("take a lease: %v", err)
	}
	if _, err := file.WriteAt(noise(10000, 7), 0); err != nil {
		t.Fatal(err)
	}
	if err := file.Zero(1, 9998, ZeroPunch); err != nil {
		t.Fatal(err)
	}
	for _, err := range file.Extents(t.Context(), 0, 10000) {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
	if err != nil || got != unix.F_WRLCK {
		t.Errorf("lease is %d, %v, want %d", got, err, unix.F_WRLCK)
	}
}

func TestConcurrentWritesWithUnalignedOnes(t *testing.T) {
	const piece, pieces = 3*4096 + 100, 40
	want := noise(piece*pieces, 8)
	file, f := create(t, t.TempDir(), make([]byte, len(want)), true)
	var wg sync.WaitGroup
	for i := range pieces {
		wg.Go(func() {
			p := alignedBytes(piece, 4096)
			copy(p, want[i*piece:])
			if _, err := file.WriteAt(p, int64(i*piece)); err != nil {
				t.Error(err)
			}
			got := make([]byte, piece)
			if _, err := file.ReadAt(got, int64(i*piece)); err != nil && err != io.EOF {
				t.Error(err)
			}
			if !bytes.Equal(got, p) {
				t.Errorf("piece %d reads back otherwise", i)
			}
		})
	}
	wg.Wait()
	same(t, "all", content(t, f.Name()), want)
}

func TestErrorsSayWhere(t *testing.T) {
	file, f := create(t, t.TempDir(), make([]byte, 4096), false)
	readOnly, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	ro, err := NewFile(readOnly)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ro.WriteAt([]byte("x"), 77)
	var op *OpError
	if !errors.As(err, &op) || op.Op != "write" || op.Off != 77 || op.Name != f.Name() || op.Err != unix.EBADF {
		t.Errorf("write: %#v", err)
	}
	if want := fmt.Sprintf("write %q at byte 77: bad file descriptor", f.Name()); err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if err := file.Truncate(-1); err.Error() != fmt.Sprintf("truncate %q: invalid argument", f.Name()) {
		t.Errorf("got %q", err)
	}
}
