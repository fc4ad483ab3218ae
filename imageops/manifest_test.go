package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func manifestOf(t testing.TB, src Source, chunk int) *Manifest {
	t.Helper()
	rep, err := Digest(t.Context(), src, whole(t, Options{ChunkSize: chunk, Manifest: true, Digest: DigestNone}))
	if err != nil {
		t.Fatal(err)
	}
	return rep.Manifest
}

func text(t testing.TB, m *Manifest) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := m.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatal(n, err)
	}
	return b.Bytes()
}

// A manifest that was written and read is the same, the copy's is that of the source,
// and it says of every byte that differs where.
func TestManifest(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 4097, 5*4096 + 1, 8 * 4096, 20_000_000} {
		chunk := 4096
		if size > 1<<20 {
			chunk = testChunk
		}
		src := patchy(size, uint64(size))
		m := manifestOf(t, src, chunk)
		if m.Size != int64(size) || !bytes.Equal(m.Digest, digestOf(BLAKE3, src.bytes)) {
			t.Errorf("%d bytes: %d, %x", size, m.Size, m.Digest)
		}
		parsed, err := ParseManifest(text(t, m))
		if err != nil || fmt.Sprint(parsed) != fmt.Sprint(m) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		for _, from := range []Source{src, stream(src.bytes, 1, io.EOF)} {
			dst := &disk{bytes: make([]byte, size)}
			rep, err := Copy(t.Context(), dst, from, whole(t, Options{ChunkSize: chunk, Manifest: true, Verify: true, Digest: SHA256}))
			if err != nil || !bytes.Equal(text(t, rep.Manifest), text(t, m)) {
				t.Errorf("%d bytes: the copy's manifest is another: %v", size, err)
			}
		}
		if rep, err := Verify(t.Context(), src, m, whole(t, Options{})); err != nil || rep.Verified != int64(size) {
			t.Errorf("%d bytes: %v, %+v", size, err, rep)
		}
		for _, bad := range []int{0, size / 2, size - 1} {
			if bad < 0 || size == 0 {
				continue
			}
			b := bytes.Clone(src.bytes)
			b[bad] ^= 1
			var damage *DamageError
			_, err := Verify(t.Context(), &image{bytes: b}, m, whole(t, Options{}))
			want := Extent{Off: int64(bad / chunk * chunk)}
			want.Len = min(int64(chunk), int64(size)-want.Off)
			if !errors.As(err, &damage) || len(damage.Ranges) != 1 || damage.Ranges[0] != want {
				t.Errorf("%d bytes, byte %d is bad: %v", size, bad, err)
			}
		}
		for _, b := range [][]byte{append(bytes.Clone(src.bytes), 0), src.bytes[:max(0, size-1)]} {
			var damage *DamageError
			if _, err := Verify(t.Context(), &image{bytes: b}, m, whole(t, Options{})); len(b) != size && !errors.As(err, &damage) {
				t.Errorf("%d bytes instead of %d: %v", len(b), size, err)
			}
		}
	}
}

// A source that is another than expected has no manifest.
func TestNoManifestBesideAnError(t *testing.T) {
	src := &image{bytes: noise(100_000, 1)}
	rep, err := Copy(t.Context(), &disk{bytes: make([]byte, 100_000)}, src, whole(t, Options{Manifest: true, Expect: []Sum{{BLAKE3, make([]byte, 32)}}}))
	if err == nil || rep.Manifest != nil {
		t.Errorf("%v, %v", err, rep.Manifest)
	}
}

func TestManifestDamaged(t *testing.T) {
	good := text(t, manifestOf(t, &image{bytes: noise(5*4096+1, 1)}, 4096))
	for at := range good {
		for _, change := range []byte{1, 0x10} {
			bad := bytes.Clone(good)
			bad[at] ^= change
			if _, err := ParseManifest(bad); err == nil {
				t.Errorf("byte %d is damaged: %.80q", at, bad)
			}
		}
		if _, err := ParseManifest(good[:at]); err == nil {
			t.Errorf("%d bytes of %d are a manifest", at, len(good))
		}
	}
	for what, change := range map[string][2]string{
		"size": {"size 20481", "size 30481"}, "negative": {"size 20481", "size -1"}, "chunk": {"chunk 4096", "chunk 4095"}, "key": {"chunk", "chunks"},
		"digest": {"blake3 ", "blake3 00"}, "head": {"manifest 1", "manifest 2"}, "empty line": {"\n\n", "\n"},
	} {
		bad := strings.Replace(strings.TrimSuffix(string(good), string(good[len(good)-74:])), change[0], change[1], 1)
		if _, err := ParseManifest(sealed(bad)); err == nil {
			t.Errorf("%s: passes", what)
		}
	}
	if _, err := ParseManifest(sealed(string(good[:len(good)-74]))); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if _, err := ParseManifest(append(good, '\n')); err == nil {
		t.Error("more than a manifest passes")
	}
}

// sealed gives lines their last one.
func sealed(lines string) []byte {
	return fmt.Appendf([]byte(lines), "%s%x\n", manifestEnd, digestOf(BLAKE3, []byte(lines)))
}

func FuzzManifest(f *testing.F) {
	whole := string(text(f, manifestOf(f, &image{bytes: noise(5000, 1)}, 4096)))
	f.Add(whole[:len(whole)-74])
	f.Add(manifestHead + "\nsize 9223372036854775807\nchunk 4096\nblake3 \n\n")
	f.Fuzz(func(t *testing.T, lines string) {
		m, err := ParseManifest(sealed(lines))
		if err != nil {
			return
		}
		again, err := ParseManifest(text(t, m))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
			t.Errorf("%q becomes %q, %v", lines, text(t, m), err)
		}
	})
}

func TestDamageIsTold(t *testing.T) {
	e := &DamageError{Name: "web1", Ranges: []Extent{{Off: 0, Len: 4096}, {Off: 8192, Len: 4096}}}
	if want := `"web1" differs from its manifest in bytes 0 to 4095, 8192 to 12287: within 8192 bytes`; e.Error() != want {
		t.Errorf("%q", e.Error())
	}
	for i := range int64(20) {
		e.Ranges = append(e.Ranges, Extent{Off: (i + 2) * 8192, Len: 4096})
	}
	if !strings.Contains(e.Error(), " and 14 ranges more: within 90112 bytes") {
		t.Errorf("%q", e.Error())
	}
}
