package imageops

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/imageops/blockio"
	"imgward/imageops/blockio/blocktest"
	"imgward/imageops/engine"
	"imgward/internal/testkit"
)

const mib = 1 << 20

// open opens name as a blockio.File, directly if the file system lets it.
func open(t testing.TB, name string, flags int) *blockio.File {
	t.Helper()
	f, err := os.OpenFile(name, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(name, flags, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	file, err := blockio.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// sparse writes an image with real holes and opens it.
func sparse(t testing.TB, name string, m *image) *blockio.File {
	t.Helper()
	f := open(t, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err := f.Truncate(int64(len(m.bytes))); err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for _, h := range append(m.holes, [2]int64{int64(len(m.bytes)), 0}) {
		if _, err := f.WriteAt(m.bytes[at:h[0]], at); err != nil {
			t.Fatal(err)
		}
		at = h[0] + h[1]
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// onReal copies onto a target that has old data.
func onReal(t *testing.T, dir, target string, size, targetSize int) {
	t.Helper()
	m := patchy(size, uint64(size))
	src := sparse(t, filepath.Join(dir, "source"), m)
	old := noise(targetSize, 1)
	for _, o := range []Options{{Sparse: SparseKeep, HoldBack: true}, {Sparse: SparseDetect}, {Sparse: SparseOff, HoldBack: true}} {
		if err := os.WriteFile(target, old, 0o600); err != nil {
			t.Fatal(err)
		}
		o.Verify = true
		rep, err := Copy(t.Context(), open(t, target, os.O_RDWR), src, whole(t, o))
		if err != nil {
			t.Fatalf("size %d, %+v: %v", size, o, err)
		}
		got := read(t, target)
		same(t, "source part", got[:size], m.bytes)
		same(t, "old part", got[size:], old[size:])
		if rep.Verified != int64(size) || !bytes.Equal(rep.Digest, digestOf(BLAKE3, m.bytes)) {
			t.Errorf("%+v", rep)
		}
	}
}

func TestRootCopyOntoDevices(t *testing.T) {
	testkit.Need(t, "root")
	dir := t.TempDir()
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			device := blocktest.Loop(t, 6*mib, sector)
			for _, size := range []int{6 * mib, 5*mib + sector, 4*mib + sector - 1, 4*mib + 1, 700} {
				onReal(t, dir, device, size, 6*mib)
			}
		})
	}
}

func TestRootCopyOnFileSystems(t *testing.T) {
	testkit.Need(t, "root")
	for kind, size := range map[string]int64{"ext4": 64 * mib, "xfs": 320 * mib, "btrfs": 320 * mib, "tmpfs": 64 * mib} {
		t.Run(kind, func(t *testing.T) {
			dir := blocktest.FileSystem(t, kind, size)
			target := filepath.Join(dir, "target")
			for _, n := range []int{5*mib - 1, 5 * mib, 5*mib + 1, 5*mib + 512} {
				onReal(t, dir, target, n, n)
			}
			onReal(t, dir, target, 3*mib+77, 6*mib+99)
			testHolesStayHoles(t, dir)
		})
	}
}

// testHolesStayHoles copies an image of which an eighth is data.
func testHolesStayHoles(t *testing.T, dir string) {
	m := &image{bytes: make([]byte, 16*mib), holes: [][2]int64{{2 * mib, 14 * mib}}}
	copy(m.bytes, noise(2*mib, 1))
	src := sparse(t, filepath.Join(dir, "sparse"), m)
	for _, fresh := range []bool{true, false} {
		name := filepath.Join(dir, "copy")
		dst := open(t, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err := dst.Truncate(16 * mib); err != nil {
			t.Fatal(err)
		}
		if !fresh {
			if _, err := dst.WriteAt(noise(16*mib, 2), 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Copy(t.Context(), dst, src, whole(t, Options{Fresh: fresh, Verify: true})); err != nil {
			t.Fatal(err)
		}
		same(t, "copy", read(t, name), m.bytes)
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 3*mib {
			t.Errorf("fresh %v: %d bytes of storage for %d of data", fresh, st.Blocks*512, 2*mib)
		}
	}
}

func TestRootFullFileSystem(t *testing.T) {
	testkit.Need(t, "root", "mkfs.ext4")
	dir := blocktest.FileSystem(t, "ext4", 32*mib)
	src := &image{bytes: noise(64*mib, 1)}
	for sparse, what := range map[SparseMode]string{SparseKeep: "allocate", SparseDetect: "write"} {
		dst := open(t, filepath.Join(dir, "target"), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err := dst.Truncate(64 * mib); err != nil {
			t.Fatal(err)
		}
		rep, err := Copy(t.Context(), dst, src, whole(t, Options{Fresh: true, Sparse: sparse}))
		var op *OpError
		if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &op) || op.Op != what || op.Off < 0 || op.Off >= 64*mib {
			t.Fatalf("got %v, want no space to %s with an offset", err, what)
		}
		if rep.Touched != (rep.Written > 0) || what == "write" && !rep.Touched || rep.Digest != nil || rep.Written >= 32*mib {
			t.Errorf("%s: %+v", what, rep)
		}
		if strings.Count(err.Error(), "target") != 1 {
			t.Errorf("%q names the target more or less than once", err)
		}
	}
}

func TestDigestsAreThoseOfTheTools(t *testing.T) {
	testkit.Need(t, "b3sum", "sha256sum", "sha512sum")
	dir := t.TempDir()
	for _, size := range []int{0, 1, 1023, 1024, 1025, mib - 1, mib, mib + 1, 3*mib + 12345} {
		name := filepath.Join(dir, fmt.Sprint(size))
		src := sparse(t, name, patchy(size, uint64(size)))
		for kind, tool := range map[DigestKind]string{BLAKE3: "b3sum", SHA256: "sha256sum", SHA512: "sha512sum"} {
			out, err := exec.Command(tool, name).Output()
			if err != nil {
				t.Fatal(err)
			}
			want, _, _ := strings.Cut(string(out), " ")
			rep, err := Digest(t.Context(), src, whole(t, Options{Digest: kind}))
			if got := hex.EncodeToString(rep.Digest); err != nil || got != want {
				t.Errorf("%v of %d bytes: %s, %v, want %s", kind, size, got, err, want)
			}
		}
	}
}

// A fault in the middle of a copy onto a device leaves a device that does not boot.
func TestRootFaultOnADevice(t *testing.T) {
	testkit.Need(t, "root")
	device := blocktest.Loop(t, 16*mib, 512)
	if err := os.WriteFile(device, noise(16*mib, 1), 0); err != nil {
		t.Fatal(err)
	}
	eng := engine.Faulty(engine.Pool(4), "write 5 EIO")
	defer eng.Close()
	rep, err := Copy(t.Context(), open(t, device, os.O_RDWR), &image{bytes: noise(16*mib, 2)}, whole(t, Options{HoldBack: true, Engine: eng}))
	if !errors.Is(err, unix.EIO) || !rep.Touched {
		t.Fatalf("%v, touched %v", err, rep.Touched)
	}
	got := read(t, device)
	same(t, "head", got[:mib], make([]byte, mib))
	same(t, "tail", got[15*mib:], make([]byte, mib))
}
