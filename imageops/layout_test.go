package imageops

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"strings"
	"testing"
)

// ext is an extent in one line.
func ext(off, n int64, zero bool) Extent { return Extent{Off: off, Len: n, Zero: zero} }

// said is a source that says anything about its extents.
type said struct {
	image
	seq []Extent
	err error // instead of the extent behind the last
}

func (s *said) Extents(context.Context, int64, int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for _, e := range s.seq {
			if !yield(e, nil) {
				return
			}
		}
		if s.err != nil {
			yield(Extent{}, s.err)
		}
	}
}

// chart lays a source of 100 bytes out in pieces of 10 and joins them: "d" and "z" per byte.
func chart(t *testing.T, s *said, block int64) (string, error) {
	t.Helper()
	s.size = 100
	h, err := newHoles(t.Context(), s, "image", true, block)
	if err != nil {
		t.Fatal(err)
	}
	defer h.stop()
	var out strings.Builder
	for off := int64(0); off < 100; off += 10 {
		got, err := h.layout(off, 10)
		if err != nil {
			return out.String(), err
		}
		at := off
		for i, e := range got {
			if e.Off != at || e.Len <= 0 || i > 0 && got[i-1].Zero == e.Zero {
				t.Errorf("layout of %d: %v", off, got)
			}
			at = e.End()
			out.WriteString(strings.Repeat(map[bool]string{true: "z", false: "d"}[e.Zero], int(e.Len)))
		}
		if at != off+10 {
			t.Errorf("layout of %d: %v", off, got)
		}
	}
	return out.String(), nil
}

func TestLayout(t *testing.T) {
	d, z := func(n int) string { return strings.Repeat("d", n) }, func(n int) string { return strings.Repeat("z", n) }
	for _, x := range []struct {
		what  string
		seq   []Extent
		err   error
		block int64
		want  string
	}{
		{"nothing said", nil, nil, 1, d(100)},
		{"all data", []Extent{ext(0, 100, false)}, nil, 1, d(100)},
		{"all hole", []Extent{ext(0, 100, true)}, nil, 1, z(100)},
		{"one hole", []Extent{ext(0, 7, false), ext(7, 26, true), ext(33, 67, false)}, nil, 1, d(7) + z(26) + d(67)},
		{"only the hole is said", []Extent{ext(7, 26, true)}, nil, 1, d(7) + z(26) + d(67)},
		{"hole at the end", []Extent{ext(95, 5, true)}, nil, 1, d(95) + z(5)},
		{"holes touch", []Extent{ext(10, 10, true), ext(20, 5, true)}, nil, 1, d(10) + z(15) + d(75)},
		{"small holes", []Extent{ext(1, 1, true), ext(3, 1, true), ext(5, 1, true)}, nil, 1, "dzdzdz" + d(94)},
		{"blocks", []Extent{ext(1, 30, true)}, nil, 2, "dd" + z(28) + d(70)},
		{"block of the last piece", []Extent{ext(0, 100, true)}, nil, 2, z(100)},
		{"hole without a block", []Extent{ext(1, 2, true)}, nil, 2, d(100)},
		{"does not know", nil, errors.ErrUnsupported, 1, d(100)},
	} {
		got, err := chart(t, &said{seq: x.seq, err: x.err}, x.block)
		if err != nil || got != x.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", x.what, got, err, x.want)
		}
	}
}

func TestLayoutDoesNotBelieveNonsense(t *testing.T) {
	why := errors.New("bad map")
	for _, x := range []struct {
		what string
		seq  []Extent
		err  error
	}{
		{"overlap", []Extent{ext(0, 20, false), ext(19, 20, true)}, nil},
		{"backwards", []Extent{ext(50, 10, true), ext(0, 10, true)}, nil},
		{"too long", []Extent{ext(0, 101, true)}, nil},
		{"outside", []Extent{ext(101, 1, true)}, nil},
		{"empty", []Extent{ext(10, 0, true)}, nil},
		{"negative length", []Extent{ext(10, -5, true)}, nil},
		{"negative offset", []Extent{ext(-5, 10, true)}, nil},
		{"overflow", []Extent{ext(50, 1<<63-1, true)}, nil},
		{"error", []Extent{ext(0, 50, true)}, why},
		{"unsupported in the middle", []Extent{ext(0, 50, true)}, errors.ErrUnsupported},
	} {
		_, err := chart(t, &said{seq: x.seq, err: x.err}, 1)
		var op *OpError
		if !errors.As(err, &op) || op.Op != "map" || op.Name != "image" || x.err != nil && !errors.Is(err, x.err) {
			t.Errorf("%s: %v", x.what, err)
		}
		s := &said{seq: x.seq, err: x.err, image: image{bytes: noise(100, 1)}}
		d := &disk{bytes: make([]byte, 100)}
		if rep, err := Copy(t.Context(), d, s, whole(t, Options{})); err == nil || rep.Touched {
			t.Errorf("%s: copied: %v, touched %v", x.what, err, rep.Touched)
		}
	}
}

func TestClassify(t *testing.T) {
	zeros := make([]byte, 16)
	for _, x := range []struct {
		data  string // '.' is a zero byte
		off   int64
		block int64
		want  []Extent
	}{
		{"", 0, 4, nil},
		{"....", 0, 4, []Extent{ext(0, 4, true)}},
		{"...x", 0, 4, []Extent{ext(0, 4, false)}},
		{"x...", 0, 4, []Extent{ext(0, 4, false)}},
		{"........", 8, 4, []Extent{ext(8, 8, true)}},
		{"....abcd....", 0, 4, []Extent{ext(0, 4, true), ext(4, 4, false), ext(8, 4, true)}},
		{"..xx....xx..", 0, 4, []Extent{ext(0, 4, false), ext(4, 4, true), ext(8, 4, false)}},
		{"...", 0, 4, []Extent{ext(0, 3, false)}},
		{".......", 0, 4, []Extent{ext(0, 4, true), ext(4, 3, false)}},
		{"..........", 2, 4, []Extent{ext(2, 2, false), ext(4, 8, true)}},
		{"..x.", 0, 1, []Extent{ext(0, 2, true), ext(2, 1, false), ext(3, 1, true)}},
	} {
		got := classify([]byte(strings.ReplaceAll(x.data, ".", "\x00")), x.off, x.block, zeros)
		if !reflect.DeepEqual(got, x.want) {
			t.Errorf("%q at %d, block %d: %v, want %v", x.data, x.off, x.block, got, x.want)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	zeros := make([]byte, 1<<20)
	half := noise(1<<20, 1)
	for at := 0; at < len(half); at += 8192 {
		clear(half[at : at+4096])
	}
	for name, data := range map[string][]byte{"zeros": make([]byte, 1<<20), "data": noise(1<<20, 1), "half": half} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				classify(data, 0, 4096, zeros)
			}
		})
	}
}
