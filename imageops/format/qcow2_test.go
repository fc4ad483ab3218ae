package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// qcowOf makes a qcow2 image of b as people do, by qemu-img convert.
func qcowOf(t testing.TB, b []byte, options ...string) string {
	t.Helper()
	testkit.Need(t, "qemu-img")
	src := file(t, "raw.img", b)
	dst := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), src, dst)...)
	return dst
}

func TestQCOW2(t *testing.T) {
	for _, options := range [][]string{
		nil, {"-c"}, {"-o", "cluster_size=512"}, {"-o", "cluster_size=2M"}, {"-o", "compat=0.10"}, {"-c", "-o", "compression_type=zstd"},
		{"-o", "preallocation=metadata"}, {"-S", "0"}, {"-o", "lazy_refcounts=on"},
	} {
		for _, size := range []int{512, 64 << 10, 1<<20 - 512, 1<<20 + 512, 3 << 20} {
			want := patchy(size, uint64(size))
			path := qcowOf(t, want, options...)
			c := open(t, load(t, QCOW2, path))
			equal(t, fmt.Sprint(options, size), copied(t, c), want)
			pieces(t, c, want, uint64(size))
		}
	}
}

// An empty disk of any size is all hole, and its size no reason to read long.
func TestQCOW2Empty(t *testing.T) {
	testkit.Need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1G")
	c := open(t, load(t, QCOW2, path))
	if c.Size() != 1<<30 {
		t.Errorf("%d bytes", c.Size())
	}
	n := 0
	for e, err := range c.Extents(t.Context(), 0, c.Size()) {
		if n++; err != nil || !e.Zero {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if n != 1<<30/mapped {
		t.Errorf("%d extents", n)
	}
}

// The chain is the caller's: what a header names is not opened, whatever it is.
func TestQCOW2Chain(t *testing.T) {
	testkit.Need(t, "qemu-img", "qemu-io")
	dir := t.TempDir()
	base, middle, top := filepath.Join(dir, "base.img"), filepath.Join(dir, "middle.qcow2"), filepath.Join(dir, "top.qcow2")
	below := patchy(1<<20, 1) // the overlays are longer than it
	if err := os.WriteFile(base, below, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle, "2M")
	run(t, "qemu-io", "-c", "write -P 7 64k 100k", "-c", "write -z 300k 128k", "-c", "write -P 9 1500k 1k", middle)
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top, "2560k")
	run(t, "qemu-io", "-c", "write -P 8 100k 10k", "-c", "write -z 0 64k", "-c", "discard 1500k 64k", top)
	flat := filepath.Join(dir, "flat.img")
	run(t, "qemu-img", "convert", "-O", "raw", top, flat)
	want, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	layers := []Layer{load(t, QCOW2, top), load(t, QCOW2, middle), load(t, Raw, base)}
	for _, path := range []string{base, middle, top} { // nothing that a name leads to is there any more
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, layers...)
	equal(t, "chain", copied(t, c), want)
	pieces(t, c, want, 4)

	if _, err := Open(layers[0]); !errors.Is(err, ErrNeedsParent) {
		t.Errorf("without its base: %v", err)
	}
	if _, err := Open(layers[:2]...); !errors.Is(err, ErrNeedsParent) {
		t.Errorf("without the base of its base: %v", err)
	}
	if _, err := Open(layers[2], layers[2]); !errors.Is(err, ErrNoParent) {
		t.Errorf("a raw image with a base: %v", err)
	}
	if _, err := Open(append(layers, layers[2])...); !errors.Is(err, ErrNoParent) {
		t.Errorf("a base too many: %v", err)
	}
}

// put changes an image's header.
func put(b []byte, off int, v any) []byte {
	var w bytes.Buffer
	_ = binary.Write(&w, binary.BigEndian, v) // of fixed size
	out := bytes.Clone(b)
	copy(out[off:], w.Bytes())
	return out
}

func TestQCOW2Refused(t *testing.T) {
	path := qcowOf(t, patchy(1<<20, 1))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		b    []byte
		want string
	}{
		{"version", put(good, qcowVersion, uint32(4)), "version 4"},
		{"version 1", put(good, qcowVersion, uint32(1)), "version 1"},
		{"small clusters", put(good, qcowClusterBits, uint32(8)), "2^8"},
		{"large clusters", put(good, qcowClusterBits, uint32(22)), "2^22"},
		{"encrypted", put(good, qcowCrypt, uint32(2)), "encrypted"},
		{"a table of 32 GiB", put(good, qcowL1Entries, uint32(1<<32-1)), "table"},
		{"a table that is too short", put(good, qcowSize, uint64(1<<40)), "table"},
		{"no table", put(put(good, qcowL1Entries, uint32(0)), qcowSize, uint64(0)), "no table"},
		{"a table outside", put(good, qcowL1Off, uint64(1<<40)), "table"},
		{"a table at the end", put(good, qcowL1Off, uint64(len(good))&^511), "table"},
		{"a huge disk", put(good, qcowSize, uint64(1<<63)), "table"},
		{"corrupt", put(good, qcowIncompatible, uint64(qcowCorrupt)), "corrupt"},
		{"data file", put(good, qcowIncompatible, uint64(qcowDataFile)), "another file"},
		{"subclusters", put(good, qcowIncompatible, uint64(qcowSubclusters)), "subclusters"},
		{"unknown feature", put(good, qcowIncompatible, uint64(1<<40)), "unknown features"},
		{"short header", put(good, qcowHeaderLength, uint32(96)), "header of 96"},
		{"long header", put(good, qcowHeaderLength, uint32(1<<20)), "header of"},
		{"no qcow2", put(good, 0, uint32(0)), "does not begin"},
		{"cut off", good[:300], "EOF"},
	} {
		if _, err := Open(memory(QCOW2, "x", tt.b)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
	if _, err := Open(memory(QCOW2, "x", put(good, qcowIncompatible, uint64(qcowDirty)))); err != nil {
		t.Errorf("dirty reference counts: %v", err)
	}
}

// What was cut off is an error where it is missing, not zeros.
func TestQCOW2CutOff(t *testing.T) {
	want := noise(2<<20, 1)
	whole, err := os.ReadFile(qcowOf(t, want))
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{64 << 10, 65 << 10, 512 << 10, 1 << 20} {
		c, err := Open(memory(QCOW2, "x", whole[:len(whole)-cut]))
		if err != nil {
			continue // its tables lay there
		}
		if _, err := c.ReadAt(make([]byte, c.Size()), 0); err == nil {
			t.Errorf("%d bytes are missing, and nobody says so", cut)
		}
	}
}

func FuzzQCOW2(f *testing.F) {
	for _, options := range [][]string{{"-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=512"}} {
		b, err := os.ReadFile(qcowOf(f, patchy(8192, 1), options...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { readAny(t, QCOW2, b) })
}

// readAny reads from whatever can be opened. It may fail, and must end.
func readAny(t *testing.T, kind Kind, b []byte) {
	c, err := Open(memory(kind, "x", b))
	if err != nil {
		return
	}
	size := c.Size()
	for _, off := range []int64{0, 511, size / 2, size - 100, size} {
		if off >= 0 {
			_, _ = c.ReadAt(make([]byte, 5000), off)
		}
	}
	n := 0
	for e, err := range c.Extents(t.Context(), 0, min(size, 1<<20)) {
		if n++; err != nil || n == 10000 {
			break
		}
		if e.Len <= 0 || e.Off < 0 || e.End() > size {
			t.Fatalf("%+v of %d", e, size)
		}
	}
}
