package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"imgward/imageops/engine"
)

func TestParseSum(t *testing.T) {
	d32, d64 := strings.Repeat("0f", 32), strings.Repeat("aB", 64)
	for _, tt := range []struct {
		text string
		want DigestKind
	}{
		{"blake3:" + d32, BLAKE3}, {"b3:" + d32, BLAKE3}, {"sha256:" + d32, SHA256}, {"SHA-256:" + d32, SHA256}, {"sha512:" + d64, SHA512},
	} {
		s, err := ParseSum(tt.text)
		if err != nil || s.Kind != tt.want || len(s.Bytes) != tt.want.Size() {
			t.Errorf("%q is %v, %v", tt.text, s, err)
		}
		if again, err := ParseSum(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("%q becomes %v, %v", s, again, err)
		}
	}
	for _, text := range []string{
		"", ":", "sha256", "sha256:", d32, "none:" + d32, "md5:" + d32, "sha256:" + d32[1:], "sha256:" + d32 + "00",
		"sha256:" + d64, "sha512:" + d32, "sha256: " + d32[1:], "sha256:" + d32[2:] + "0g",
	} {
		if s, err := ParseSum(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
}

func TestFindSum(t *testing.T) {
	a, b, long := strings.Repeat("0a", 32), strings.Repeat("0b", 32), strings.Repeat("0c", 64)
	for _, tt := range []struct {
		what, list, name, file, want string
	}{
		{"text mode", a + "  web.img\n", "SHA256SUMS", "web.img", "sha256:" + a},
		{"binary mode", a + " *web.img\n", "SHA256SUMS", "web.img", "sha256:" + a},
		{"directories do not count", a + "  ./images/web.img\n", "/x/SHA256SUMS", "/srv/web.img", "sha256:" + a},
		{"line ends of Windows", a + "  web.img\r\n", "SHA256SUMS", "web.img", "sha256:" + a},
		{"no last line end", a + "  web.img", "SHA256SUMS", "web.img", "sha256:" + a},
		{"one of many", b + "  other\n" + a + "  web.img\n" + b + "  web.img.old\n", "SHA256SUMS", "web.img", "sha256:" + a},
		{"twice the same", a + "  web.img\n" + a + " *web.img\n", "SHA256SUMS", "web.img", "sha256:" + a},
		{"b3sum", a + "  web.img\n", "B3SUMS", "web.img", "blake3:" + a},
		{"b3", a + "  web.img\n", "web.img.b3", "web.img", "blake3:" + a},
		{"128 digits", long + "  web.img\n", "sums", "web.img", "sha512:" + long},
		{"tag", "SHA512 (web.img) = " + long + "\n", "CHECKSUM", "web.img", "sha512:" + long},
		{"tag against the name", "BLAKE3 (web.img) = " + a + "\n", "SHA256SUMS", "web.img", "blake3:" + a},
		{"tag, with remarks and a signature", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# web.img: 5 bytes\nSHA256 (web.img) = " + a + "\n-----BEGIN PGP SIGNATURE-----\n\niQIz\n=abcd\n", "CHECKSUM", "web.img", "sha256:" + a},
		{"name with blanks and brackets", "SHA256 (a (b) = c.img) = " + a + "\n", "x", "a (b) = c.img", "sha256:" + a},
		{"name with a backslash", `\` + a + `  we\\b\n.img` + "\n", "SHA256SUMS", "we\\b\n.img", "sha256:" + a},

		{"empty", "", "SHA256SUMS", "web.img", ""},
		{"another file", a + "  web.img.old\n", "SHA256SUMS", "web.img", ""},
		{"two that differ", a + "  web.img\n" + b + "  web.img\n", "SHA256SUMS", "web.img", ""},
		{"nobody says which kind", a + "  web.img\n", "sums.txt", "web.img", ""},
		{"digits of another kind", a + "  web.img\n", "SHA512SUMS", "web.img", ""},
		{"unknown tag", "MD5 (web.img) = " + a[:32] + "\n", "SHA256SUMS", "web.img", ""},
		{"cut off", a[:63] + "  web.img\n", "SHA256SUMS", "web.img", ""},
		{"cut to whole bytes", a[:62] + "  web.img\n", "SHA256SUMS", "web.img", ""},
		{"one blank", a + " web.img\n", "SHA256SUMS", "web.img", ""},
	} {
		s, err := FindSum([]byte(tt.list), tt.name, tt.file)
		if got := s.String(); (err == nil) != (tt.want != "") || err == nil && got != tt.want {
			t.Errorf("%s: %s, %v", tt.what, got, err)
		}
	}
}

func FuzzFindSum(f *testing.F) {
	d := strings.Repeat("0a", 32)
	for _, list := range []string{d + "  web.img\n", "SHA256 (web.img) = " + d, `\` + d + ` *web.img`, " (", ") = ", "\\"} {
		f.Add(list, "SHA256SUMS", "web.img")
	}
	f.Fuzz(func(t *testing.T, list, name, file string) {
		s, err := FindSum([]byte(list), name, file)
		if err == nil && len(s.Bytes) != s.Kind.Size() {
			t.Errorf("%v with %d bytes", s.Kind, len(s.Bytes))
		}
		if err == nil && !strings.Contains(strings.ToLower(list), s.String()[strings.Index(s.String(), ":")+1:]) {
			t.Errorf("%v does not stand in the list", s)
		}
	})
}

// All that is expected is computed in one pass, whatever else is.
func TestExpectedDigests(t *testing.T) {
	src := patchy(5*testChunk+77, 3)
	sum := func(k DigestKind) Sum { return Sum{k, digestOf(k, src.bytes)} }
	for _, digest := range []DigestKind{BLAKE3, SHA256, DigestNone} {
		for _, want := range [][]Sum{nil, {sum(SHA256)}, {sum(SHA512), sum(SHA256), sum(BLAKE3)}, {sum(SHA256), sum(SHA256)}} {
			o := whole(t, Options{ChunkSize: testChunk, Digest: digest, Expect: want})
			dst := &disk{bytes: noise(len(src.bytes), 9)}
			src.read = 0
			rep, err := Copy(t.Context(), dst, src, o)
			if err != nil || fmt.Sprint(rep.Expected) != fmt.Sprint(want) || !bytes.Equal(rep.Digest, digestOf(digest, src.bytes)) {
				t.Errorf("%v, %v: %v, %v, %x", digest, want, err, rep.Expected, rep.Digest)
			}
			if rep.Read > int64(len(src.bytes)) || src.read != rep.Read {
				t.Errorf("%d bytes read, reported %d", src.read, rep.Read)
			}
			rep, err = Digest(t.Context(), src, o)
			if err != nil || fmt.Sprint(rep.Expected) != fmt.Sprint(want) {
				t.Errorf("digest: %v, %v: %v, %v", digest, want, err, rep.Expected)
			}
		}
	}
}

// A source that is another than was meant is found out while nothing of it boots.
func TestUnexpectedDigest(t *testing.T) {
	src := &image{bytes: noise(4<<20, 1)}
	for _, kind := range []DigestKind{BLAKE3, SHA256, SHA512} {
		for bit := range 2 {
			want := Sum{kind, digestOf(kind, src.bytes)}
			want.Bytes[bit*(len(want.Bytes)-1)] ^= 1
			dst := &disk{bytes: noise(4<<20, 2)}
			rep, err := Copy(t.Context(), dst, src, whole(t, Options{HoldBack: true, Verify: true, Expect: []Sum{want}}))
			var differs *DigestError
			if !errors.As(err, &differs) || differs.Name != "image" || !bytes.Equal(differs.Got.Bytes, digestOf(kind, src.bytes)) {
				t.Fatalf("%v: %v", kind, err)
			}
			if !rep.Touched || rep.Digest != nil || rep.Expected != nil {
				t.Errorf("%v: touched %v, %x, %v", kind, rep.Touched, rep.Digest, rep.Expected)
			}
			same(t, "head", dst.bytes[:heldBytes], make([]byte, heldBytes))
			same(t, "tail", dst.bytes[3<<20:], make([]byte, heldBytes))
			if rep, err := Digest(t.Context(), src, whole(t, Options{Expect: []Sum{want}})); !errors.As(err, &differs) || rep.Digest != nil {
				t.Errorf("digest of %v: %v, %x", kind, err, rep.Digest)
			}
		}
	}
}

// liar tells holes where data is, and remembers when it was asked and flushed.
type liar struct {
	*image
	flushed bool
	err     error
}

func (l *liar) Flush() error {
	l.flushed = true
	if len(l.holes) > 0 {
		l.holes = l.holes[:1]
	}
	return l.err
}

func TestExtentsThatLie(t *testing.T) {
	b := noise(4<<20, 1)
	clear(b[1<<20 : 2<<20])
	holes := [][2]int64{{1 << 20, 1 << 20}, {3 << 20, 1 << 19}} // the second is data that only the cache has
	src := &liar{image: &image{bytes: b, holes: holes}}
	dst := &disk{bytes: noise(4<<20, 2)}
	if _, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk})); err != nil || !src.flushed {
		t.Errorf("flushed: %v, %v", src.flushed, err)
	}
	same(t, "after a flush", dst.bytes, b)

	for _, sparse := range []SparseMode{SparseKeep, SparseDetect, SparseOff} {
		src = &liar{image: &image{bytes: b, holes: [][2]int64{{0, 4 << 20}}}}
		dst = &disk{bytes: noise(4<<20, 2)}
		rep, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk, Extents: ExtentsIgnored, Sparse: sparse}))
		if err != nil || rep.Read != 4<<20 || src.flushed {
			t.Errorf("mode %d: %v, %d bytes read, flushed %v", sparse, err, rep.Read, src.flushed)
		}
		if zeroed := int64(0); sparse == SparseDetect && rep.Zeroed != 1<<20 || sparse != SparseDetect && rep.Zeroed != zeroed {
			t.Errorf("mode %d: %d bytes zeroed", sparse, rep.Zeroed)
		}
		same(t, "without extents", dst.bytes, b)
		if rep, err := Digest(t.Context(), src, whole(t, Options{Extents: ExtentsIgnored})); err != nil || !bytes.Equal(rep.Digest, digestOf(BLAKE3, b)) {
			t.Errorf("digest: %v, %x", err, rep.Digest)
		}
	}

	src = &liar{image: &image{bytes: b}, err: errors.New("no space left")}
	dst = &disk{bytes: noise(4<<20, 2)}
	rep, err := Copy(t.Context(), dst, src, whole(t, Options{HoldBack: true, Engine: engine.Pool(1)}))
	var op *OpError
	if !errors.As(err, &op) || op.Op != "flush" || rep.Touched || dst.changed() {
		t.Errorf("%v, touched %v", err, rep.Touched)
	}
}
