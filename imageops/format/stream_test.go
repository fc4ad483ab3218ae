package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// packers make a compressed image as people do.
var packers = []struct {
	kind Kind
	argv []string
}{
	{Gzip, []string{"gzip", "-c"}},
	{Zstd, []string{"zstd", "-c", "-q", "--check"}},
	{Zstd, []string{"zstd", "-c", "-q", "--long=27", "-19"}},
	{XZ, []string{"xz", "-c"}},
	{XZ, []string{"xz", "-c", "-T2", "--block-size=300000"}},
	{Bzip2, []string{"bzip2", "-c"}},
}

func pack(t testing.TB, argv []string, b []byte) []byte {
	t.Helper()
	testkit.Need(t, argv[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return out
}

func unpack(kind Kind, b []byte) ([]byte, error) {
	r, err := Decompress(kind, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	return out, errors.Join(err, r.Close())
}

func TestDecompress(t *testing.T) {
	for _, p := range packers {
		for _, size := range []int{0, 1, 511, 512, 1<<20 - 1, 1<<20 + 1} {
			want := patchy(size, uint64(size))
			packed := pack(t, p.argv, want)
			if k, err := Guess(bytes.NewReader(packed), int64(len(packed))); k != p.kind || err != nil {
				t.Errorf("%q: guessed %v, %v", p.argv, k, err)
			}
			got, err := unpack(p.kind, packed)
			if err != nil {
				t.Fatalf("%q of %d bytes: %v", p.argv, size, err)
			}
			equal(t, fmt.Sprint(p.argv), got, want)
			// Parts that were compressed one by one and put together are one image.
			got, err = unpack(p.kind, append(bytes.Clone(packed), packed...))
			if err != nil {
				t.Fatalf("%q of twice %d bytes: %v", p.argv, size, err)
			}
			equal(t, fmt.Sprint(p.argv), got, append(bytes.Clone(want), want...))
		}
	}
}

// What is cut off anywhere, or damaged in its checked part, is an error and never
// an image.
func TestDecompressDamaged(t *testing.T) {
	for _, p := range packers {
		want := patchy(100_000, 5)
		packed := pack(t, p.argv, want)
		for at := 0; at < len(packed); at += 1 + len(packed)/300 {
			if _, err := unpack(p.kind, packed[:at]); err == nil {
				t.Errorf("%q: %d bytes of %d are an image", p.argv, at, len(packed))
			}
		}
		for at := 4; at < len(packed); at += 1 + len(packed)/300 {
			bad := bytes.Clone(packed)
			bad[at] ^= 0x10
			if got, err := unpack(p.kind, bad); err == nil && !bytes.Equal(got, want) {
				t.Errorf("%q: byte %d is damaged, and another image comes out", p.argv, at)
			}
		}
		if _, err := unpack(p.kind, append(bytes.Clone(packed), "garbage"...)); err == nil {
			t.Errorf("%q: garbage behind the end passes", p.argv)
		}
		for _, other := range packers {
			if other.kind != p.kind {
				if _, err := unpack(other.kind, packed); err == nil {
					t.Errorf("%v passes for %v", p.kind, other.kind)
				}
			}
		}
	}
}

func TestXZMemory(t *testing.T) {
	testkit.Need(t, "xz")
	for dict, ok := range map[string]bool{"64MiB": true, "96MiB": false, "1GiB": false} {
		packed := pack(t, []string{"xz", "-c", "--lzma2=dict=" + dict}, []byte("image"))
		if _, err := unpack(XZ, packed); (err == nil) != ok {
			t.Errorf("%s: %v", dict, err)
		}
	}
	// With sizes in the block's header the filter lies behind them.
	packed := pack(t, []string{"xz", "-c", "-T2", "--lzma2=dict=96MiB"}, noise(100_000, 1))
	if _, err := unpack(XZ, packed); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("with sizes: %v", err)
	}
}

func FuzzDecompress(f *testing.F) {
	for _, p := range packers {
		if _, err := exec.LookPath(p.argv[0]); err == nil {
			f.Add(uint8(p.kind), pack(f, p.argv, []byte("an image, and some more of the image")))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		r, err := Decompress(Kind(kind), bytes.NewReader(b))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) // any bytes may be an error
		_ = r.Close()                                        // which may say it again
	})
}

func TestNames(t *testing.T) {
	for name, want := range map[string]Kind{
		"a.img": Raw, "a": Raw, "": Raw, "/dev/vg0/web1": Raw, "a.gz": Gzip, "A.IMG.GZ": Gzip, "/x.gz/a.img": Raw, "a.zst": Zstd, "a.xz": XZ,
		"a.bz2": Bzip2, "a.qcow2": QCOW2, "a.qcow2.gz": Gzip, "a.vhd": VHD, "a.vmdk": Other, "a.vhdx": Other,
	} {
		if got := ByName(name); got != want {
			t.Errorf("%q is %v, want %v", name, got, want)
		}
	}
	for _, f := range kinds {
		if k, ok := Parse(f.name); ok != (f.kind != Other) || ok && k != f.kind {
			t.Errorf("%q is %v, %v", f.name, k, ok)
		}
	}
	if _, ok := Parse("vdi"); ok {
		t.Error("vdi is known")
	}
}

func TestGuess(t *testing.T) {
	for _, tt := range []struct {
		b    []byte
		want Kind
	}{
		{nil, Raw}, {[]byte("Q"), Raw}, {make([]byte, 4096), Raw}, {[]byte("QFI\xfb"), QCOW2}, {[]byte("KDMV"), Other},
		{append(make([]byte, 4096), append([]byte("conectix"), make([]byte, 504)...)...), VHD},
		{append(make([]byte, 4096), append([]byte("conectix"), make([]byte, 505)...)...), Raw},
	} {
		if k, err := Guess(bytes.NewReader(tt.b), int64(len(tt.b))); k != tt.want || err != nil {
			t.Errorf("%.10q is %v, %v", tt.b, k, err)
		}
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Guess(f, 4096); err == nil {
		t.Error("a directory can be read")
	}
}
