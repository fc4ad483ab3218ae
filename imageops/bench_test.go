package imageops

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/imageops/blockio"
	"imgward/internal/testkit"
)

// BenchmarkCopyFile copies 4 GiB of random bytes between files of the temporary
// directory (TMPDIR), cold and to stable storage, beside dd doing the same in
// the same run. peak-MB is the most memory that this process had resident in it.
//
//	TMPDIR=/var/tmp go test -run - -bench CopyFile -benchtime 3x ./imageops
func BenchmarkCopyFile(b *testing.B) {
	testkit.Need(b, "dd")
	const size = 4 << 30
	dir := b.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	random(b, source, size)
	run := func(name string, copy func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				b.StopTimer()
				_ = os.Remove(target) // there is none the first time
				cold(b, source)
				forgetPeak(b)
				b.StartTimer()
				copy(b)
			}
			b.ReportMetric(peak(b), "peak-MB")
		})
	}
	run("dd", func(b *testing.B) {
		out, err := exec.Command("dd", "if="+source, "of="+target, "bs=4M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none").CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	})
	ours := func(o Options) func(*testing.B) {
		return func(b *testing.B) {
			src, dst := open(b, source, os.O_RDONLY), open(b, target, os.O_RDWR|os.O_CREATE)
			if err := dst.Truncate(size); err != nil {
				b.Fatal(err)
			}
			o.Fresh = true
			if _, err := Copy(b.Context(), dst, src, o); err != nil {
				b.Fatal(err)
			}
		}
	}
	run("blake3", ours(Options{}))
	run("none", ours(Options{Digest: DigestNone}))
	run("sha256", ours(Options{Digest: SHA256}))
	run("verify", ours(Options{Verify: true}))
	for _, o := range []Options{
		{ChunkSize: 256 << 10, QueueDepth: 64}, {ChunkSize: 1 << 20, QueueDepth: 16}, {ChunkSize: 4 << 20, QueueDepth: 4},
		{QueueDepth: 4}, {QueueDepth: 16},
	} {
		run(fmt.Sprintf("chunk=%dKiB,depth=%d", cmp.Or(o.ChunkSize, defaultChunk)>>10, o.QueueDepth), ours(o))
	}
}

// random writes size random bytes, and nothing of them stays in the page cache.
func random(b *testing.B, name string, size int64) {
	b.Helper()
	f := open(b, name, os.O_RDWR|os.O_CREATE)
	mem, err := blockio.NewArena(1, 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer mem.Close()
	for off := int64(0); off < size; off += 1 << 20 {
		copy(mem.Chunk(0), noise(1<<20, uint64(off)))
		if _, err := f.WriteAt(mem.Chunk(0), off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// cold empties the page cache of a file.
func cold(b *testing.B, name string) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}

// forgetPeak makes what is resident now the peak (proc(5), clear_refs).
func forgetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

// peak is the most memory that was resident since, in MB (proc(5), VmHWM).
func peak(b *testing.B) float64 {
	b.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			var kib float64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatal("no VmHWM")
	return 0
}

// BenchmarkCopyMemory is the copy without a disk: what the machinery itself costs.
func BenchmarkCopyMemory(b *testing.B) {
	src, dst := &image{bytes: noise(256<<20, 1)}, &quiet{disk{bytes: make([]byte, 256<<20)}}
	for _, kind := range []DigestKind{BLAKE3, SHA256, SHA512, DigestNone} {
		b.Run(kind.String(), func(b *testing.B) {
			b.SetBytes(256 << 20)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Copy(b.Context(), dst, src, Options{Digest: kind}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// quiet is a disk that writes nothing down and needs no lock.
type quiet struct{ disk }

func (d *quiet) WriteAt(p []byte, off int64) (int, error) { return copy(d.bytes[off:], p), nil }

func (d *quiet) Sync() error { return nil }

func BenchmarkDigestMemory(b *testing.B) {
	src := &image{bytes: noise(256<<20, 1)}
	for _, kind := range []DigestKind{BLAKE3, SHA256, SHA512} {
		b.Run(kind.String(), func(b *testing.B) {
			b.SetBytes(256 << 20)
			for b.Loop() {
				if _, err := Digest(b.Context(), src, Options{Digest: kind}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompareMemory(b *testing.B) {
	src := &image{bytes: noise(256<<20, 1)}
	b.SetBytes(256 << 20)
	for b.Loop() {
		if _, err := Compare(b.Context(), src, src, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
