package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// other is a disk that is to differ from the source.
type other struct {
	*disk
	patches []Patch
}

func (o *other) Patches() []Patch { return o.patches }

// patched is b with the patches in it.
func patched(b []byte, patches []Patch) []byte {
	out := bytes.Clone(b)
	for _, p := range patches {
		copy(out[p.Off:p.end()], p.Data)
	}
	return out
}

// tableLike are patches as a partition table that moves to the end of a larger disk
// has them: at the head, where the source ends, and at the end.
func tableLike(size, target int64) []Patch {
	p := []Patch{{0, noise(600, 1)}, {size - 700, make([]byte, 700)}, {target - 900, noise(900, 2)}, {1024, noise(500, 3)}}
	if size > 1<<20+50000 {
		p = append(p, Patch{size - 40000, noise(3000, 4)})
	}
	return p
}

func TestAmend(t *testing.T) {
	turn := 0
	for _, size := range []int{2000, 1<<20 - 1, 1<<20 + 5000, 2<<20 + 12345, 3 << 20} {
		for _, more := range []int{0, 512, 4096 + 700, 2<<20 + 812} {
			for _, how := range []string{"old", "new", "delta", "fanout"} {
				for _, zero := range []bool{false, true} {
					turn++
					src, o := patchy(size, uint64(turn)), Options{
						ChunkSize: testChunk, QueueDepth: 1 + turn%4, Sparse: SparseMode(turn % 3), Verify: turn%5 > 0, HoldBack: turn%7 > 0, ZeroTail: zero,
					}
					t.Run(fmt.Sprintf("%s,size=%d,more=%d,zero=%v", how, size, more, zero), func(t *testing.T) { testAmend(t, src, more, how, o) })
				}
			}
		}
	}
}

func testAmend(t *testing.T, src *image, more int, how string, o Options) {
	size := len(src.bytes)
	old := noise(size+more, 9)
	dst := &other{&disk{bytes: bytes.Clone(old)}, tableLike(int64(size), int64(size+more))}
	if how == "new" {
		clear(old)
		clear(dst.bytes)
	}
	if o.ZeroTail {
		clear(old[size:])
	}
	var rep Report
	var err error
	switch how {
	case "fanout": // beside one that is not amended, and one that is smaller
		plain := &member{disk: &disk{bytes: noise(size+8192, 8)}}
		small := &other{&disk{bytes: noise(size, 8)}, []Patch{{7, []byte("small")}}}
		ms := []*member{{disk: dst.disk, dst: dst}, plain, {disk: small.disk, dst: small}}
		fan(t, src, o, ms...)
		if rep, err = ms[0].rep, ms[0].err; plain.err != nil || ms[2].err != nil {
			t.Fatal(plain.err, ms[2].err)
		}
		same(t, "plain", plain.disk.bytes[:size], src.bytes)
		same(t, "small", small.bytes, patched(src.bytes, small.patches))
	default:
		o.Fresh, o.HoldBack, o.Delta = how == "new", o.HoldBack && how != "new", how == "delta"
		rep, err = Copy(t.Context(), dst, src, whole(t, o))
	}
	if err != nil {
		t.Fatal(err)
	}
	want := patched(append(bytes.Clone(src.bytes), old[size:]...), dst.patches)
	same(t, "target", dst.bytes, want)
	if rep.Written+rep.Zeroed+rep.Same != int64(size) || o.Verify && rep.Verified != int64(size) || rep.Tail != int64(more) || !bytes.Equal(rep.Digest, digestOf(BLAKE3, src.bytes)) {
		t.Errorf("%+v", rep)
	}
	if !slices.Equal(rep.Ranges, dst.ranges()) {
		t.Errorf("reported %s, written %s", spell(rep.Ranges), spell(dst.ranges()))
	}
	if how != "delta" {
		return
	}
	dst.events = nil
	if rep, err = Copy(t.Context(), dst, src, whole(t, o)); err != nil || rep.Touched || dst.changed() || rep.Same != int64(size) {
		t.Errorf("once more: %v, %+v", err, rep)
	}
	same(t, "target", dst.bytes, want)
}

// What is wrong with patches is found before anything is touched.
func TestAmendRefusals(t *testing.T) {
	src := &image{bytes: noise(2<<20, 1)}
	for _, p := range []Patch{{-1, []byte("a")}, {2 << 20, []byte("a")}, {2<<20 - 3, []byte("four")}} {
		dst := &other{&disk{bytes: noise(2<<20, 2)}, []Patch{p}}
		if rep, err := Copy(t.Context(), dst, src, whole(t, Options{})); err == nil || rep.Touched || dst.changed() {
			t.Errorf("patch at %d: %v", p.Off, err)
		}
	}
	dst := &other{&disk{bytes: noise(2<<20, 2)}, []Patch{{0, []byte("a")}}}
	if _, err := Copy(t.Context(), dst, NewStream(bytes.NewReader(src.bytes), "pipe"), whole(t, Options{})); !errors.Is(err, errNoSize) || dst.changed() {
		t.Errorf("a stream: %v", err)
	}
}

// An error, short read or short write at every request is a failure, with a target
// of which the head is zero unless the head itself was being given back.
func TestAmendFaults(t *testing.T) {
	const size, target = 3<<20 + 700, 4<<20 + 512
	old := noise(target, 6)
	for _, delta := range []bool{false, true} {
		try := func(eng engine.Engine) (*other, error) {
			dst := &other{&disk{bytes: bytes.Clone(old)}, tableLike(size, target)}
			o := Options{ChunkSize: 8 * testChunk, QueueDepth: 3, HoldBack: true, Delta: delta, ZeroTail: true, Verify: true, Engine: eng}
			rep, err := Copy(t.Context(), dst, &image{bytes: faultSource.bytes}, whole(t, o))
			if err != nil && rep.Digest != nil || dst.changed() && !rep.Touched {
				t.Errorf("%v: %+v", err, rep)
			}
			return dst, err
		}
		count := &tally{Engine: engine.Pool(1), n: map[engine.Kind]int{}}
		if _, err := try(count); err != nil {
			t.Fatal(err)
		}
		count.Close()
		for kind, n := range count.n {
			for at := 1; at <= n; at++ {
				for what, want := range map[string]error{"EIO": syscall.EIO, "short 100": map[engine.Kind]error{engine.Read: io.ErrUnexpectedEOF, engine.Write: io.ErrShortWrite}[kind]} {
					if want == nil {
						continue
					}
					script := fmt.Sprintf("%v %d %s", kind, at, what)
					eng := &tally{Engine: engine.Faulty(engine.Pool(2), script), n: map[engine.Kind]int{}}
					dst, err := try(eng)
					eng.Close()
					if err == nil && kind == engine.Zero && eng.n[kind] < at {
						continue // fewer zeros came apart than the first time
					}
					if !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", script, err, want)
					}
					wrote := slices.ContainsFunc(dst.events, func(e event) bool { return e.kind == engine.Write })
					gave := slices.ContainsFunc(dst.events, func(e event) bool { return e.kind == engine.Write && e.off == 0 })
					if wrote && !gave && !bytes.Equal(dst.bytes[:heldBytes], make([]byte, heldBytes)) {
						t.Errorf("%s: the target may boot", script)
					}
				}
			}
		}
	}
}

// What is amended is read back, too, and so are the zeros behind the source.
func TestAmendRot(t *testing.T) {
	const size, target = 3 << 20, 6 << 20
	for _, at := range []int64{100, size - 300, target - 100, 4 << 20} {
		dst := &other{&disk{bytes: noise(target, 2)}, tableLike(size, target)}
		dst.rot = func(b []byte) {
			switch want := patched(make([]byte, target), dst.patches)[at]; {
			case at == 4<<20:
				b[at] |= 1
			case b[at] == want && bytes.Equal(b[:8], dst.patches[0].Data[:8]): // all is given back
				b[at] ^= 1
			}
		}
		_, err := Copy(t.Context(), dst, &image{bytes: noise(size, 1)}, whole(t, Options{HoldBack: true, Verify: true, ZeroTail: true}))
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) || at < mismatch.Off || at >= mismatch.Off+mismatch.Len {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

func TestZeroTail(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 1 << 20, 1<<20 + 700, 3 << 20} {
		for _, stream := range []bool{false, true} {
			for _, delta := range []bool{false, true} {
				src := patchy(size, 3)
				var from Source = src
				if stream {
					from = NewStream(bytes.NewReader(src.bytes), "pipe")
				}
				var told Progress
				dst := &disk{bytes: noise(5<<20+300, 4)}
				rep, err := Copy(t.Context(), dst, from, whole(t, Options{
					ChunkSize: testChunk, HoldBack: true, Verify: true, ZeroTail: true, Delta: delta, Progress: func(p Progress) {
						if p.Done > p.Total && p.Total >= 0 {
							t.Errorf("progress %+v", p)
						}
						told = p
					},
				}))
				if err != nil {
					t.Fatalf("size %d, stream %v, delta %v: %v", size, stream, delta, err)
				}
				same(t, "target", dst.bytes, append(bytes.Clone(src.bytes), make([]byte, len(dst.bytes)-size)...))
				if rep.Written+rep.Zeroed+rep.Same != int64(size) || rep.Verified != int64(size) {
					t.Errorf("size %d, stream %v, delta %v: %+v, %+v", size, stream, delta, rep, told)
				}
			}
		}
	}
}

func TestAmendShared(t *testing.T) {
	b := noise(3<<20, 1)
	patches := append(tableLike(2<<20, 3<<20), Patch{300, []byte("over another one")})
	dst := &other{&disk{bytes: bytes.Clone(b)}, patches}
	if err := Amend(dst, true); err != nil {
		t.Fatal(err)
	}
	same(t, "target", dst.bytes, patched(b, patches))
	dst.rot = func(b []byte) { b[patches[1].Off] = 1 }
	var mismatch *MismatchError
	if err := Amend(dst, true); !errors.As(err, &mismatch) || mismatch.Off != patches[1].Off {
		t.Errorf("%v", err)
	}
	for kind, calls := range map[engine.Kind]int{engine.Write: len(patches), engine.Sync: 1, engine.Read: len(patches)} {
		for at := range calls {
			bad := &broken{disk: &disk{bytes: bytes.Clone(b)}, what: kind, left: at}
			if err := Amend(brokenOther{bad, patches}, true); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v %d: %v", kind, at, err)
			}
		}
	}
}

// brokenOther is a broken disk that is to differ from the source.
type brokenOther struct {
	*broken
	patches []Patch
}

func (b brokenOther) Patches() []Patch { return b.patches }

// Where all is to be written no storage is handed back, behind the source neither.
func TestNoStorageIsHandedBack(t *testing.T) {
	for _, delta := range []bool{false, true} {
		dst := &disk{bytes: noise(4<<20+5, 2)}
		if _, err := Copy(t.Context(), dst, &image{bytes: noise(1<<20+7, 1)}, whole(t, Options{Sparse: SparseOff, ZeroTail: true, Delta: delta})); err != nil {
			t.Fatal(err)
		}
		for _, e := range dst.events {
			if e.kind == engine.Zero && e.how != blockio.ZeroKeep {
				t.Errorf("delta %t: %d bytes at %d may have lost their storage", delta, e.n, e.off)
			}
		}
		if !bytes.Equal(dst.bytes[1<<20+7:], make([]byte, 3<<20-2)) {
			t.Errorf("delta %t: what is behind the source is not zero", delta)
		}
	}
}
