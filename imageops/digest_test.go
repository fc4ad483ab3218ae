package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"imgward/imageops/engine"
)

func TestDigest(t *testing.T) {
	for _, kind := range []DigestKind{BLAKE3, SHA256, SHA512, DigestNone} {
		for _, size := range []int{0, 1, 1023, 1024, 1025, testChunk - 1, testChunk, testChunk + 1, 3<<20 + 77} {
			for depth := range 4 {
				src := patchy(size, uint64(size))
				eng := engine.Faulty(engine.Pool(3), "read 1 delay 1ms; call 2 delay 1ms")
				var told []Progress
				o := Options{ChunkSize: testChunk, QueueDepth: 1 + depth, Digest: kind, Engine: eng, Progress: func(p Progress) { told = append(told, p) }}
				rep, err := Digest(t.Context(), src, whole(t, o))
				if err != nil {
					t.Fatal(err)
				}
				if want := digestOf(kind, src.bytes); !bytes.Equal(rep.Digest, want) {
					t.Errorf("%v of %d bytes: %x, want %x", kind, size, rep.Digest, want)
				}
				if rep.Touched || rep.Written != 0 || rep.Read != src.read {
					t.Errorf("%v of %d bytes: %+v", kind, size, rep)
				}
				if n := len(told); size > 0 && (n == 0 || told[n-1] != Progress{"digest", int64(size), int64(size)}) {
					t.Errorf("%v of %d bytes: told %v", kind, size, told)
				}
				if err := eng.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestDigestFails(t *testing.T) {
	if _, err := Digest(t.Context(), &image{}, Options{ChunkSize: 1}); err == nil {
		t.Error("chunk size of 1: no error")
	}
	for _, kind := range []DigestKind{BLAKE3, SHA256} {
		src := &image{bytes: noise(1<<20, 1), size: 1<<20 + 1}
		rep, err := Digest(t.Context(), src, whole(t, Options{ChunkSize: testChunk, Digest: kind}))
		if !errors.Is(err, io.ErrUnexpectedEOF) || rep.Digest != nil {
			t.Errorf("%v of a source that ends early: %v, %x", kind, err, rep.Digest)
		}
	}
}

func TestDigestKindNames(t *testing.T) {
	if got := fmt.Sprint(BLAKE3, SHA256, SHA512, DigestNone, DigestKind(7)); got != "blake3 sha256 sha512 none digest 7" {
		t.Errorf("got %q", got)
	}
}

func TestCompare(t *testing.T) {
	const size = 5*testChunk + 1000
	for _, x := range []struct {
		what   string
		change []int // bytes of the second that are different
		longer int   // of the second
		off, n int64 // the difference; n is 0: equal
	}{
		{what: "equal"},
		{what: "first byte", change: []int{0}, n: 512},
		{what: "last byte", change: []int{size - 1}, off: (size - 1) &^ 511, n: size - (size-1)&^511},
		{what: "two of one sector", change: []int{513, 600}, off: 512, n: 512},
		{what: "two sectors", change: []int{1023, 1024}, off: 512, n: 1024},
		{what: "two runs", change: []int{1024, 4096}, off: 1024, n: 512},
		{what: "two chunks", change: []int{4*testChunk + 5, testChunk + 5}, off: testChunk, n: 512},
		{what: "across chunks", change: []int{testChunk - 1, testChunk}, off: testChunk - 512, n: 512},
		{what: "longer", longer: 10, off: size, n: 10},
		{what: "shorter", longer: -10, off: size - 10, n: 10},
		{what: "longer and different", longer: 10, change: []int{2 * testChunk}, off: 2 * testChunk, n: 512},
	} {
		for depth := range 4 {
			a, b := noise(size, 1), noise(size, 1)
			for _, i := range x.change {
				b[i] ^= 1
			}
			b = append(b, make([]byte, max(0, x.longer))...)[:size+x.longer]
			eng := engine.Faulty(engine.Pool(3), "read 2 delay 1ms; call 1 delay 1ms")
			rep, err := Compare(t.Context(), plain{&image{bytes: a}}, &image{bytes: b}, whole(t, Options{ChunkSize: testChunk, QueueDepth: 1 + depth, Engine: eng}))
			if x.n == 0 {
				if err != nil || rep.Verified != size || rep.Read != 2*size {
					t.Errorf("%s: %v, %+v", x.what, err, rep)
				}
			} else {
				var m *MismatchError
				if !errors.As(err, &m) || m.Off != x.off || m.Len != x.n || m.Name != "image" || m.Other != "first" {
					t.Errorf("%s: %v, want %d bytes at %d", x.what, err, x.n, x.off)
				}
			}
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCompareEmpty(t *testing.T) {
	if _, err := Compare(t.Context(), &image{}, &image{}, whole(t, Options{})); err != nil {
		t.Error(err)
	}
	var m *MismatchError
	if _, err := Compare(t.Context(), &image{}, &image{bytes: []byte("x")}, whole(t, Options{})); !errors.As(err, &m) || m.Off != 0 || m.Len != 1 {
		t.Errorf("got %v", err)
	}
}

func TestCompareFails(t *testing.T) {
	if _, err := Compare(t.Context(), &image{}, &image{size: -1}, Options{}); !errors.Is(err, errNoSize) {
		t.Errorf("stream: %v", err)
	}
	for at := 1; at <= 10; at++ {
		for _, kind := range []string{"read", "call"} {
			if kind == "call" && at > 5 {
				continue
			}
			eng := engine.Faulty(engine.Pool(2), fmt.Sprintf("%s %d EIO", kind, at))
			src := &image{bytes: noise(5*testChunk, 1)}
			if _, err := Compare(t.Context(), src, src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 2, Engine: eng})); err == nil {
				t.Errorf("%s %d failed, and the comparison did not", kind, at)
			}
			eng.Close()
		}
	}
	src := &image{bytes: noise(1000, 1), size: 1001}
	if _, err := Compare(t.Context(), src, &image{bytes: noise(2000, 1)}, whole(t, Options{})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("source that ends early: %v", err)
	}
}
