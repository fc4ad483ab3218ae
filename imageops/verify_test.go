package imageops

import (
	"errors"
	"fmt"
	"testing"
)

func TestVerifyFindsWhatTheDiskLostOrChanged(t *testing.T) {
	const size, more = 4<<20 + 300, 4096
	for _, digest := range []DigestKind{BLAKE3, SHA256, SHA512, DigestNone} {
		for _, holdBack := range []bool{false, true} {
			for _, bad := range []int{0, 1, heldBytes - 1, heldBytes, 2<<20 + 17, size - heldBytes, size - 1, size + more - 1} {
				t.Run(fmt.Sprintf("digest=%v,holdback=%v,bad=%d", digest, holdBack, bad), func(t *testing.T) {
					src := &image{bytes: noise(size, 1)}
					dst := &disk{bytes: noise(size+more, 2)}
					dst.bytes[bad] = 1
					if bad < size {
						src.bytes[bad] = 1
					}
					dst.rot = func(b []byte) { b[bad] = 0 }
					o := Options{ChunkSize: testChunk, Digest: digest, HoldBack: holdBack, Verify: true}
					rep, err := Copy(t.Context(), dst, src, whole(t, o))
					if bad >= size && !holdBack {
						if err != nil {
							t.Errorf("a byte that is not copied: %v", err)
						}
						return
					}
					var m *MismatchError
					if !errors.As(err, &m) {
						t.Fatalf("got %v, want a mismatch", err)
					}
					if m.Name != "disk" || m.Other != "image" || int64(bad) < m.Off || int64(bad) >= m.Off+m.Len || m.Len > testChunk {
						t.Errorf("%v, want byte %d", err, bad)
					}
					if !rep.Touched || rep.Digest != nil || rep.Verified == int64(size) {
						t.Errorf("%+v", rep)
					}
				})
			}
		}
	}
}

func TestWithoutVerifyNothingIsReadBack(t *testing.T) {
	dst := &disk{bytes: make([]byte, 1<<20)}
	if _, err := Copy(t.Context(), dst, &image{bytes: noise(1<<20, 1)}, whole(t, Options{})); err != nil {
		t.Fatal(err)
	}
	if dst.reads != 0 {
		t.Errorf("%d bytes of the target were read", dst.reads)
	}
}

func TestVerifyReadsFromTheStorage(t *testing.T) {
	const size, more = 3 << 20, 1 << 20
	dst := &disk{bytes: noise(size+more, 1)}
	if _, err := Copy(t.Context(), dst, &image{bytes: noise(size, 2)}, whole(t, Options{Verify: true, HoldBack: true})); err != nil {
		t.Fatal(err)
	}
	want := [][2]int64{{size, more}, {0, size}, {size, more}, {0, heldBytes}}
	if fmt.Sprint(dst.uncached) != fmt.Sprint(want) {
		t.Errorf("uncached %v, want %v", dst.uncached, want)
	}
}

// cached is a disk that cannot forget.
type cached struct{ *disk }

var errCached = errors.New("still cached")

func (cached) Uncache(int64, int64) error { return errCached }

func TestVerifyFailsWhereTheCacheStays(t *testing.T) {
	for _, o := range []Options{{Verify: true}, {HoldBack: true}, {HoldBack: true, Verify: true}} {
		d := &disk{bytes: noise(4<<20, 1)}
		rep, err := Copy(t.Context(), cached{d}, &image{bytes: noise(1000, 1)}, whole(t, o))
		if !errors.Is(err, errCached) || o.HoldBack && rep.Touched {
			t.Errorf("%+v: %v, touched %v", o, err, rep.Touched)
		}
	}
}

func TestMismatchSaysWhatAndWhere(t *testing.T) {
	err := &MismatchError{Name: "web 1", Other: "golden", Off: 4096, Len: 512}
	if want := `"web 1" differs from "golden" within the 512 bytes at byte 4096`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
