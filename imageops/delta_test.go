package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"imgward/imageops/engine"
)

// nearly is b with some bytes changed, in so many places.
func nearly(b []byte, places int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 8))
	out := bytes.Clone(b)
	for range places {
		at := r.IntN(len(out))
		n := min(len(out)-at, 1+r.IntN(9000))
		if r.IntN(3) == 0 {
			clear(out[at : at+n])
		} else {
			copy(out[at:at+n], noise(n, r.Uint64()))
		}
	}
	return out
}

func TestDeltaEqualsTheReference(t *testing.T) {
	turn := 0
	for _, eng := range engines {
		for _, size := range []int{0, 1, 4097, testChunk, testChunk + 1, 2<<20 + 12345, 4 << 20} {
			for _, more := range []int{0, 700, 1<<20 + 8192 + 512} {
				for _, places := range []int{0, 1, 5, 200} {
					turn++
					src := patchy(size, uint64(turn))
					old := append(bytes.Clone(src.bytes), noise(more, 7)...)
					if size > 0 {
						old = append(nearly(src.bytes, places, uint64(turn)), old[size:]...)
					}
					o := Options{
						ChunkSize: testChunk, QueueDepth: 1 + turn%5, Sparse: SparseMode(turn % 3), HoldBack: turn%4 > 0, Verify: turn%2 == 0, Delta: true,
						Digest: []DigestKind{BLAKE3, SHA256, DigestNone}[turn/2%3], Engine: eng.make(),
					}
					name := fmt.Sprintf("%s/size=%d,more=%d,places=%d,sparse=%d,holdback=%v,verify=%v", eng.name, size, more, places, o.Sparse, o.HoldBack, o.Verify)
					t.Run(name, func(t *testing.T) { testDelta(t, src, old, o, turn) })
				}
			}
		}
	}
}

func testDelta(t *testing.T, src *image, old []byte, o Options, turn int) {
	size := len(src.bytes)
	dst := &disk{bytes: bytes.Clone(old), block: 512 << (turn % 4)}
	rep, err := Copy(t.Context(), dst, src, whole(t, o))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "target", dst.bytes, append(bytes.Clone(src.bytes), old[size:]...))
	equal := bytes.Equal(old[:size], src.bytes)
	if equal && (rep.Touched || dst.changed() || rep.Same != int64(size)) {
		t.Errorf("equal already, and touched %v, same %d of %d", rep.Touched, rep.Same, size)
	}
	if rep.Written+rep.Zeroed+rep.Same != int64(size) || rep.Tail != int64(len(old)-size) || !bytes.Equal(rep.Digest, digestOf(o.Digest, src.bytes)) {
		t.Errorf("%+v", rep)
	}
	if want := int64(size); o.Verify && rep.Verified != want || !o.Verify && rep.Verified != 0 {
		t.Errorf("verified %d of %d", rep.Verified, size)
	}
	if o.HoldBack && !equal && len(old) > 2*heldBytes+8192 {
		checkHoldBackOrder(t, dst.events, int64(len(old)))
	}
	for _, e := range dst.events { // nothing that is equal is written, but for what is held back
		if e.kind == engine.Sync || o.HoldBack && e.overlaps(0, heldBytes) || o.HoldBack && e.end() > int64(len(old))-heldBytes-8192 || e.end() > int64(size) {
			continue
		}
		if bytes.Equal(old[e.off:e.end()], src.bytes[e.off:e.end()]) && e.kind == engine.Write {
			t.Errorf("%d bytes at %d are equal, and were written", e.n, e.off)
		}
	}
	if o.Engine != nil {
		if err := o.Engine.Close(); err != nil {
			t.Error(err)
		}
	}
}

// One changed byte costs its block and what is held back.
func TestDeltaWritesLittle(t *testing.T) {
	b := noise(64<<20, 1)
	old := bytes.Clone(b)
	for at := 2 << 20; at < 62<<20; at += 1 << 20 {
		old[at+12345] ^= 1
	}
	for _, holdBack := range []bool{false, true} {
		dst := &disk{bytes: bytes.Clone(old)}
		rep, err := Copy(t.Context(), dst, &image{bytes: b}, whole(t, Options{Delta: true, HoldBack: holdBack, Verify: true}))
		if err != nil {
			t.Fatal(err)
		}
		want := int64(60 * 4096)
		if holdBack {
			want += 2 * heldBytes
		}
		if rep.Written != want || rep.Same != 64<<20-want {
			t.Errorf("hold back %v: written %d, same %d, want %d", holdBack, rep.Written, rep.Same, want)
		}
		same(t, "target", dst.bytes, b)
	}
}

func TestDeltaOfStream(t *testing.T) {
	for _, size := range []int{0, 1, 3 * testChunk, 8 * testChunk, 40*testChunk + 77} {
		for _, places := range []int{0, 3} {
			src := patchy(size, 3)
			old := bytes.Clone(src.bytes)
			if size > 0 {
				old = nearly(old, places, 9)
			}
			dst := &disk{bytes: append(old, noise(5000, 1)...)}
			rep, err := Copy(t.Context(), dst, stream(src.bytes, 1, io.EOF), whole(t, Options{ChunkSize: testChunk, Delta: true, HoldBack: true, Verify: true}))
			if err != nil || rep.Written+rep.Zeroed+rep.Same != int64(size) || places == 0 && rep.Touched || rep.Verified != int64(size) {
				t.Errorf("%d bytes, %d places: %v, %+v", size, places, err, rep)
			}
			same(t, "target", dst.bytes[:size], src.bytes)
		}
	}
}

// What was written is read back; what the disk makes of it is found out.
func TestDeltaVerifies(t *testing.T) {
	const size = 40 * testChunk
	for _, bad := range []int{heldBytes + 5, size / 2, size - heldBytes - 9000, 5, size - 5} {
		src := &image{bytes: noise(size, 1)}
		src.bytes[bad] = 1
		old := bytes.Clone(src.bytes)
		old[bad] = 2
		dst := &disk{bytes: old, rot: func(b []byte) { b[bad] = 0 }}
		_, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk, Delta: true, HoldBack: true, Verify: true}))
		var m *MismatchError
		if !errors.As(err, &m) || int64(bad) < m.Off || int64(bad) >= m.Off+m.Len {
			t.Errorf("byte %d: %v", bad, err)
		}
	}
}

// A source that is not the expected one leaves a target that was equal to nothing
// it has untouched where nothing differed, and else no target that boots.
func TestDeltaOfUnexpectedSource(t *testing.T) {
	src := &image{bytes: noise(4<<20, 1)}
	want := Sum{BLAKE3, digestOf(BLAKE3, noise(4<<20, 2))}
	dst := &disk{bytes: bytes.Clone(src.bytes)}
	rep, err := Copy(t.Context(), dst, src, whole(t, Options{Delta: true, HoldBack: true, Expect: []Sum{want}}))
	var differs *DigestError
	if !errors.As(err, &differs) || rep.Touched || dst.changed() {
		t.Errorf("%v, touched %v", err, rep.Touched)
	}
	dst.bytes[2<<20] ^= 1
	if _, err = Copy(t.Context(), dst, src, whole(t, Options{Delta: true, HoldBack: true, Expect: []Sum{want}})); !errors.As(err, &differs) {
		t.Errorf("%v", err)
	}
	same(t, "head", dst.bytes[:heldBytes], make([]byte, heldBytes))
	same(t, "tail", dst.bytes[3<<20:], make([]byte, heldBytes))
}

func TestDeltaRefused(t *testing.T) {
	d := &disk{bytes: noise(1000, 1)}
	if _, err := Copy(t.Context(), d, &image{bytes: noise(1000, 2)}, whole(t, Options{Delta: true, Fresh: true})); err == nil || d.changed() {
		t.Errorf("a new target: %v", err)
	}
	if _, err := Copy(t.Context(), writeOnly{d}, &image{bytes: noise(1000, 2)}, whole(t, Options{Delta: true})); !errors.Is(err, errors.ErrUnsupported) || d.changed() {
		t.Errorf("a target that cannot be read: %v", err)
	}
}

func TestManyRangesAreJoined(t *testing.T) {
	var r Report
	const n = 3 * maxRanges
	for i := range int64(n) {
		r.touch(i*8192, 4096)
		if len(r.Ranges) > maxRanges {
			t.Fatalf("%d ranges", len(r.Ranges))
		}
	}
	for i := int64(0); i < n; i += 997 {
		at, ok := i*8192, false
		for _, e := range r.Ranges {
			ok = ok || e.Off <= at && at+4096 <= e.End()
		}
		if !ok {
			t.Fatalf("nothing holds byte %d", at)
		}
	}
}

// parts is an image whose MiBs are noise by a seed each; of seed 0 they are zeros.
type parts struct {
	size int64
	seed func(part int64) uint64
}

func (p parts) Size() int64 { return p.size }

func (p parts) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), p.size-off)))
	if seed := p.seed(off / mib); seed == 0 {
		clear(b[:n])
	} else {
		copy(b, noise(n, seed))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Whether a target is like the source is told by samples, of which zeros say nothing.
func TestAlike(t *testing.T) {
	const size = alikeMin
	own := func(part int64) uint64 { return uint64(part) + 1 }
	zeros := func(int64) uint64 { return 0 }
	from := func(first int64, seed func(int64) uint64) func(int64) uint64 { // before it, other bytes
		return func(part int64) uint64 {
			if part < first {
				return uint64(part) + 1000
			}
			return seed(part)
		}
	}
	mostlyZeros := func(part int64) uint64 {
		if part < 50 {
			return 0
		}
		return own(part)
	}
	for _, x := range []struct {
		what     string
		src, dst parts
		want     bool
	}{
		{"equal", parts{size, own}, parts{size, own}, true},
		{"a target that is larger", parts{size, own}, parts{size + 1, own}, true},
		{"four parts of 64 differ", parts{size, own}, parts{size, from(4, own)}, true},
		{"five parts of 64 differ", parts{size, own}, parts{size, from(5, own)}, false},
		{"other bytes", parts{size, own}, parts{size, from(64, own)}, false},
		{"zeros", parts{size, zeros}, parts{size, zeros}, false},
		{"mostly zeros", parts{size, mostlyZeros}, parts{size, mostlyZeros}, false},
		{"a target that is smaller", parts{size, own}, parts{size / 2, own}, false},
		{"small", parts{size - 1, own}, parts{size - 1, own}, false},
		{"a stream", parts{-1, own}, parts{size, own}, false},
	} {
		if got := Alike(x.dst, x.src); got != x.want {
			t.Errorf("%s: %v", x.what, got)
		}
	}
}

// Several digests come out of one pass.
func TestMoreDigests(t *testing.T) {
	src := patchy(3*testChunk+7, 1)
	o := whole(t, Options{ChunkSize: testChunk, Digest: SHA512, Also: []DigestKind{BLAKE3, SHA256}})
	rep, err := Copy(t.Context(), &disk{bytes: make([]byte, len(src.bytes))}, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rep.Digest, digestOf(SHA512, src.bytes)) || len(rep.Also) != 2 {
		t.Fatalf("%+v", rep)
	}
	for i, kind := range o.Also {
		if rep.Also[i].Kind != kind || !bytes.Equal(rep.Also[i].Bytes, digestOf(kind, src.bytes)) {
			t.Errorf("%v", rep.Also[i])
		}
	}
	for _, kind := range []DigestKind{DigestNone, 9} {
		o.Also = []DigestKind{kind}
		if _, err := Copy(t.Context(), &disk{bytes: make([]byte, len(src.bytes))}, src, o); err == nil {
			t.Errorf("%v passes", kind)
		}
	}
}
