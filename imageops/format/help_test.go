package format

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"imgward/imageops"
)

// noise is n random bytes.
func noise(n int, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// patchy is n bytes with zeros in them and runs that are easy to compress.
func patchy(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := noise(n, seed)
	for at := 0; at < n; {
		run := min(n-at, 1+r.IntN(150<<10))
		switch r.IntN(3) {
		case 0:
			clear(b[at : at+run])
		case 1:
			copy(b[at:at+run], bytes.Repeat([]byte("all work and no play "), run/21+1))
		}
		at += run
	}
	return b
}

// run runs a program, which must succeed.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// file writes content to a new file.
func file(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load makes a layer of a file.
func load(t testing.TB, kind Kind, path string) Layer {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return memory(kind, path, b)
}

func memory(kind Kind, name string, b []byte) Layer {
	return Layer{Kind: kind, Name: name, File: bytes.NewReader(b), Size: int64(len(b))}
}

// copied is what a copy makes of the chain, with and without its holes.
func copied(t testing.TB, c *Chain) []byte {
	t.Helper()
	all := make([]byte, c.Size())
	if n, err := c.ReadAt(all, 0); int64(n) != c.Size() || err != nil && err != io.EOF {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	at := int64(0)
	for e, err := range c.Extents(t.Context(), 0, c.Size()) {
		if err != nil || e.Off != at || e.Len <= 0 || e.End() > c.Size() {
			t.Fatalf("extent %+v after byte %d: %v", e, at, err)
		}
		if e.Zero && len(bytes.Trim(all[e.Off:e.End()], "\x00")) > 0 {
			t.Fatalf("%+v is not zero", e)
		}
		at = e.End()
	}
	if at != c.Size() {
		t.Fatalf("extents end at %d of %d", at, c.Size())
	}
	return all
}

// pieces reads the chain in ranges of all kinds, which must agree with all.
func pieces(t testing.TB, c *Chain, all []byte, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 9))
	for range 200 {
		off := r.IntN(len(all) + 1)
		p := noise(r.IntN(200<<10), 1)
		n, err := c.ReadAt(p, int64(off))
		want := all[off:min(len(all), off+len(p))]
		if n != len(want) || !bytes.Equal(p[:n], want) || n < len(p) && err != io.EOF {
			t.Fatalf("%d bytes at %d: %d, %v", len(p), off, n, err)
		}
	}
}

func open(t testing.TB, layers ...Layer) *Chain {
	t.Helper()
	c, err := Open(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func equal(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}

var _ interface {
	imageops.Source
	imageops.Extenter
} = (*Chain)(nil)
