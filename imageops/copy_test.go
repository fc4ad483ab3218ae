package imageops

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lukechampine.com/blake3"

	"imgward/imageops/engine"
)

const testChunk = 64 << 10

// digestOf is what the digest must be, by other code.
func digestOf(kind DigestKind, b []byte) []byte {
	switch kind {
	case BLAKE3:
		sum := blake3.Sum256(b)
		return sum[:]
	case SHA256:
		sum := sha256.Sum256(b)
		return sum[:]
	case SHA512:
		sum := sha512.Sum512(b)
		return sum[:]
	}
	return nil
}

// reference is what copyReference makes of old.
func reference(t *testing.T, old []byte, src Source) []byte {
	t.Helper()
	d := &disk{bytes: bytes.Clone(old)}
	if err := copyReference(d, src); err != nil {
		t.Fatal(err)
	}
	return d.bytes
}

// engines for the matrix; nil is the default.
var engines = []struct {
	name string
	make func() engine.Engine
}{
	{"default", func() engine.Engine { return nil }},
	{"pool1", func() engine.Engine { return engine.Pool(1) }},
	{"disorder", func() engine.Engine {
		return engine.Faulty(engine.Pool(4), "read 1 delay 2ms; write 2 delay 1ms; call 3 delay 1ms; read 7 delay 1ms; zero 1 delay 1ms")
	}},
}

func TestCopyEqualsTheReference(t *testing.T) {
	sizes := []int{0, 1, 511, 512, 513, testChunk - 1, testChunk, testChunk + 1, 2<<20 + 12345}
	digests := []DigestKind{BLAKE3, SHA256, SHA512, DigestNone}
	turn := 0
	for _, eng := range engines {
		for _, size := range sizes {
			for _, sparse := range []SparseMode{SparseKeep, SparseDetect, SparseOff} {
				for _, holdBack := range []bool{false, true} {
					for _, more := range []int{0, 700, 1<<20 + 8192 + 512} {
						for _, fresh := range []bool{false, true} {
							turn++
							o := Options{
								ChunkSize: testChunk, QueueDepth: 1 + turn%5, Sparse: sparse, HoldBack: holdBack, Fresh: fresh,
								Digest: digests[turn%4], Verify: turn%3 == 0, Engine: eng.make(),
							}
							name := fmt.Sprintf("%s/size=%d,more=%d,sparse=%d,holdback=%v,fresh=%v,digest=%v,verify=%v",
								eng.name, size, more, sparse, holdBack, fresh, o.Digest, o.Verify)
							t.Run(name, func(t *testing.T) { testCopy(t, size, more, uint64(turn), o) })
						}
					}
				}
			}
		}
	}
}

func testCopy(t *testing.T, size, more int, seed uint64, o Options) {
	src := patchy(size, seed)
	old := make([]byte, size+more)
	if !o.Fresh {
		old = noise(size+more, seed+1)
	}
	want := reference(t, old, src)
	dst := &disk{bytes: old, block: 512 << (seed % 5)}
	var told []Progress
	o.Progress = func(p Progress) { told = append(told, p) }
	rep, err := Copy(t.Context(), dst, src, whole(t, o))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "target", dst.bytes, want)
	if !bytes.Equal(rep.Digest, digestOf(o.Digest, src.bytes)) || rep.DigestKind != o.Digest {
		t.Errorf("%v %x, want %x", rep.DigestKind, rep.Digest, digestOf(o.Digest, src.bytes))
	}
	if rep.Written+rep.Zeroed != int64(size) || rep.Tail != int64(more) {
		t.Errorf("written %d, zeroed %d, tail %d, of %d and %d", rep.Written, rep.Zeroed, rep.Tail, size, more)
	}
	if o.Sparse == SparseOff && rep.Zeroed != 0 {
		t.Errorf("zeroed %d although everything is to be written", rep.Zeroed)
	}
	if got := dst.changed(); rep.Touched != got {
		t.Errorf("touched is %v, want %v", rep.Touched, got)
	}
	if want := int64(size); o.Verify && rep.Verified != want || !o.Verify && rep.Verified != 0 {
		t.Errorf("verified %d, want %d", rep.Verified, want)
	}
	if last := len(dst.events) - 1; dst.events[last].kind != engine.Sync {
		t.Errorf("the last thing was a %v, not a sync", dst.events[last].kind)
	}
	checkProgress(t, told, int64(size), o.Verify)
	if o.Engine != nil {
		if err := o.Engine.Close(); err != nil {
			t.Error(err)
		}
	}
}

// checkProgress wants copy, then verify, each growing up to the size.
func checkProgress(t *testing.T, told []Progress, size int64, verify bool) {
	t.Helper()
	done := map[string]int64{}
	phase := "copy"
	for _, p := range told {
		if p.Phase != phase && (p.Phase != "verify" || done["copy"] != size) {
			t.Errorf("phase %q after %q", p.Phase, phase)
		}
		if phase = p.Phase; p.Done <= done[phase] || p.Total != size {
			t.Errorf("%+v after %d of %d", p, done[phase], size)
		}
		done[phase] = p.Done
	}
	if done["copy"] != size || verify && done["verify"] != size || !verify && done["verify"] != 0 {
		t.Errorf("at the end: %v of %d", done, size)
	}
}

func TestRefusedBeforeAnythingIsTouched(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, x := range []struct {
		what string
		ctx  context.Context
		dst  func(*disk) Dest
		src  *image
		o    Options
		want error
	}{
		{what: "too small", src: &image{bytes: make([]byte, 1001)}, want: ErrTooSmall},
		{what: "canceled", ctx: canceled, want: context.Canceled},
		{what: "verify unreadable", dst: func(d *disk) Dest { return writeOnly{d} }, o: Options{Verify: true}, want: errors.ErrUnsupported},
		{what: "hold back unreadable", dst: func(d *disk) Dest { return writeOnly{d} }, o: Options{HoldBack: true}, want: errors.ErrUnsupported},
		{what: "chunk size", o: Options{ChunkSize: 5000}},
		{what: "small chunk size", o: Options{ChunkSize: 2048}},
		{what: "large chunk size", o: Options{ChunkSize: 128 << 20}},
		{what: "negative chunk size", o: Options{ChunkSize: -4096}},
		{what: "depth", o: Options{QueueDepth: -1}},
		{what: "large depth", o: Options{QueueDepth: 1 << 20}},
		{what: "sparse", o: Options{Sparse: 9}},
		{what: "digest", o: Options{Digest: 9}},
	} {
		d := &disk{bytes: noise(1000, 1)}
		var dst Dest = d
		if x.dst != nil {
			dst = x.dst(d)
		}
		if x.src == nil {
			x.src = &image{bytes: make([]byte, 1000)}
		}
		if x.ctx == nil {
			x.ctx = t.Context()
		}
		rep, err := Copy(x.ctx, dst, x.src, whole(t, x.o))
		if err == nil || x.want != nil && !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.what, err, x.want)
		}
		if rep.Touched || rep.Digest != nil || len(d.events) > 0 {
			t.Errorf("%s: touched %v, events %v", x.what, rep.Touched, d.events)
		}
		same(t, x.what, d.bytes, noise(1000, 1))
	}
}

func TestSourceThatEndsEarly(t *testing.T) {
	for _, missing := range []int{1, 99, 100, 512, testChunk, 3*testChunk + 7} {
		const size = 5*testChunk + 100
		src := &image{bytes: noise(size-missing, 1), size: size}
		dst := &disk{bytes: make([]byte, size)}
		rep, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk, QueueDepth: 2}))
		var op *OpError
		if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &op) || op.Op != "read" || op.Name != "image" || rep.Digest != nil {
			t.Errorf("%d bytes missing: %v, digest %x", missing, err, rep.Digest)
		}
		if missing <= 100 && op.Off != int64(size-missing) {
			t.Errorf("%d bytes missing: error at %d, want %d", missing, op.Off, size-missing)
		}
	}
}

// shortDisk takes half of what it is given, and says so but no more.
type shortDisk struct{ *disk }

func (d shortDisk) WriteAt(p []byte, off int64) (int, error) {
	return d.disk.WriteAt(p[:len(p)/2], off)
}

func TestShortWritesAreErrors(t *testing.T) {
	for _, src := range []*image{{bytes: noise(1000, 1)}, {bytes: make([]byte, 8192), holes: [][2]int64{{0, 8192}}}} {
		dst := shortDisk{&disk{bytes: make([]byte, 8192), cannot: errors.ErrUnsupported}}
		_, err := Copy(t.Context(), dst, src, whole(t, Options{}))
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%v, want %v", err, io.ErrShortWrite)
		}
	}
}

func TestFullTargetSaysWhere(t *testing.T) {
	eng := engine.Faulty(engine.Pool(1), "write 4 ENOSPC")
	defer eng.Close()
	rep, err := Copy(t.Context(), &disk{bytes: make([]byte, 1<<20)}, &image{bytes: noise(1<<20, 1)},
		whole(t, Options{ChunkSize: testChunk, QueueDepth: 1, Engine: eng}))
	var op *OpError
	if !errors.As(err, &op) || op.Op != "write" || op.Name != "disk" || op.Off != 3*testChunk || op.Err != syscall.ENOSPC {
		t.Errorf("got %v", err)
	}
	if !rep.Touched || rep.Written != 3*testChunk {
		t.Errorf("touched %v, written %d, want %d", rep.Touched, rep.Written, 3*testChunk)
	}
}

func TestTargetThatCannotZero(t *testing.T) {
	for _, why := range []error{errors.ErrUnsupported, fmt.Errorf("zero: %w", errors.ErrUnsupported)} {
		src := patchy(1<<20, 7)
		dst := &disk{bytes: noise(1<<20, 8), cannot: why}
		rep, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk, Sparse: SparseDetect, HoldBack: true}))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "target", dst.bytes, src.bytes)
		if rep.Written+rep.Zeroed != 1<<20 {
			t.Errorf("written %d, zeroed %d", rep.Written, rep.Zeroed)
		}
	}
	dst := &disk{bytes: noise(1<<20, 8), cannot: syscall.EIO}
	src := &image{bytes: make([]byte, 1<<20), holes: [][2]int64{{0, 1 << 20}}}
	if _, err := Copy(t.Context(), dst, src, whole(t, Options{})); !errors.Is(err, syscall.EIO) {
		t.Errorf("zeroing failed, and the copy says %v", err)
	}
}

// noZeroer hides Zero.
type noZeroer struct {
	Dest
	io.ReaderAt
}

func TestTargetThatIsNoZeroer(t *testing.T) {
	src := patchy(1<<20+77, 9)
	d := &disk{bytes: noise(1<<20+77, 8)}
	if _, err := Copy(t.Context(), noZeroer{d, d}, src, whole(t, Options{ChunkSize: testChunk, HoldBack: true, Verify: true})); err != nil {
		t.Fatal(err)
	}
	same(t, "target", d.bytes, src.bytes)
}

func TestHolesAreNotRead(t *testing.T) {
	src := &image{bytes: make([]byte, 10<<20), holes: [][2]int64{{1 << 20, 8 << 20}}}
	for _, x := range []struct {
		src  Source
		mode SparseMode
		want int64
	}{{src, SparseKeep, 2 << 20}, {src, SparseDetect, 2 << 20}, {src, SparseOff, 10 << 20}, {plain{src}, SparseKeep, 10 << 20}} {
		src.read = 0
		dst := &disk{bytes: noise(10<<20, 1)}
		rep, err := Copy(t.Context(), dst, x.src, whole(t, Options{ChunkSize: 1 << 20, Sparse: x.mode}))
		if err != nil {
			t.Fatal(err)
		}
		if src.read != x.want || rep.Read != x.want {
			t.Errorf("mode %d: %d bytes read, reported %d, want %d", x.mode, src.read, rep.Read, x.want)
		}
		same(t, "target", dst.bytes, src.bytes)
	}
}

func TestZerosAreZeroedInLargeRuns(t *testing.T) {
	src := &image{bytes: make([]byte, 8<<20), holes: [][2]int64{{0, 8 << 20}}}
	dst := &disk{bytes: noise(8<<20, 1)}
	rep, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: testChunk}))
	if err != nil {
		t.Fatal(err)
	}
	if len(dst.events) != 2 || dst.events[0].n != 8<<20 || rep.Zeroed != 8<<20 || rep.Written != 0 {
		t.Errorf("%d events, first %+v; zeroed %d, written %d", len(dst.events), dst.events[0], rep.Zeroed, rep.Written)
	}
}

func TestFreshTargetIsSentDataOnly(t *testing.T) {
	src := &image{bytes: make([]byte, 4<<20), holes: [][2]int64{{1 << 20, 1 << 20}}}
	copy(src.bytes, noise(4096, 1))
	copy(src.bytes[3<<20:], noise(8192, 1))
	for _, holdBack := range []bool{false, true} {
		dst := &disk{bytes: make([]byte, 8<<20)}
		rep, err := Copy(t.Context(), dst, src, whole(t, Options{Sparse: SparseDetect, Fresh: true, HoldBack: holdBack, Verify: true}))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range dst.events {
			if e.kind == engine.Zero {
				t.Errorf("hold back %v: zeroed %d bytes at %d of a new target", holdBack, e.n, e.off)
			}
		}
		if !holdBack && rep.Written != 4096+8192 {
			t.Errorf("written %d, want %d", rep.Written, 4096+8192)
		}
		same(t, "target", dst.bytes[:4<<20], src.bytes)
	}
}

// owner is a new file that is given storage.
type owner struct {
	*disk
	owned ranges
	calls int
	err   error
}

func (o *owner) Allocate(off, n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls++; o.err == nil {
		o.owned.add(off, n)
	}
	return o.err
}

// A new target owns the storage of the source's data, in blocks, before it is written,
// and of nothing else.
func TestNewTargetOwnsItsData(t *testing.T) {
	const size = 80 << 20
	src := &image{bytes: make([]byte, size+5), holes: [][2]int64{{1 << 20, 1 << 20}, {3<<20 + 100, 1 << 20}, {70 << 20, 2 << 20}}}
	want := ranges{{Len: 1 << 20}, {Off: 2 << 20, Len: 1<<20 + 4096}, {Off: 4 << 20, Len: 66 << 20}, {Off: 72 << 20, Len: 8<<20 + 5}}
	for _, chunk := range []int{1 << 20, 4 << 20} {
		dst := &owner{disk: &disk{bytes: make([]byte, size+5)}}
		dst.after = func(e event) {
			dst.mu.Lock()
			defer dst.mu.Unlock()
			more := slices.Clone(dst.owned)
			if more.add(e.off, e.n); e.kind == engine.Write && !slices.Equal(more, dst.owned) {
				t.Errorf("%d bytes at %d were written before they were owned", e.n, e.off)
			}
		}
		if _, err := Copy(t.Context(), dst, src, whole(t, Options{ChunkSize: chunk, Fresh: true})); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(dst.owned, want) {
			t.Errorf("owns %s, want %s", spell(dst.owned), spell(want))
		}
		if dst.calls > 8 {
			t.Errorf("was given storage %d times", dst.calls)
		}
	}
	small := &image{bytes: noise(3*testChunk, 1)}
	for _, o := range []Options{{}, {Fresh: true, Sparse: SparseDetect}} { // an old target, and zeros that may not be written
		dst := &owner{disk: &disk{bytes: make([]byte, len(small.bytes))}}
		if _, err := Copy(t.Context(), dst, small, whole(t, o)); err != nil || dst.calls > 0 {
			t.Errorf("was given storage %d times, %v", dst.calls, err)
		}
	}
	dst := &owner{disk: &disk{bytes: make([]byte, len(small.bytes))}, err: errors.ErrUnsupported}
	if _, err := Copy(t.Context(), dst, small, whole(t, Options{Fresh: true})); err != nil || dst.calls != 1 {
		t.Errorf("a target that cannot be given storage: asked %d times, %v", dst.calls, err)
	}
	dst.err = syscall.ENOSPC
	if _, err := Copy(t.Context(), dst, small, whole(t, Options{Fresh: true})); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full file system: %v", err)
	}
}

// A bubble ends only when all goroutines that were started in it have ended.
func TestNoGoroutineIsLeft(t *testing.T) {
	for _, digest := range []DigestKind{BLAKE3, SHA256} {
		for _, broken := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				src := patchy(1<<20, 1)
				if broken {
					src.size = 1<<20 + 1
				}
				o := whole(t, Options{ChunkSize: testChunk, Digest: digest, HoldBack: true, Verify: true})
				_, err := Copy(t.Context(), &disk{bytes: noise(1<<20+1, 2)}, src, o)
				if (err != nil) != broken {
					t.Errorf("copy: %v", err)
				}
				if _, err := Digest(t.Context(), src, o); (err != nil) != broken {
					t.Errorf("digest: %v", err)
				}
				if _, err := Compare(t.Context(), src, src, o); (err != nil) != broken {
					t.Errorf("compare: %v", err)
				}
			})
		}
	}
}

func TestEngineIsLeftOpenAndIdle(t *testing.T) {
	eng := engine.Pool(2)
	for range 2 {
		dst := &disk{bytes: make([]byte, 1000)}
		if _, err := Copy(t.Context(), dst, &image{bytes: noise(1000, 1)}, Options{Engine: eng}); err != nil {
			t.Fatal(err)
		}
	}
	if err := eng.Close(); err != nil {
		t.Error(err)
	}
}

// A copy keeps to its rate, also where it reads back, and ends at once when it is
// cancelled.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &image{bytes: noise(1<<20, 1)}
		dst := &disk{bytes: noise(1<<20, 2)}
		o := whole(t, Options{ChunkSize: testChunk, Rate: testChunk, Verify: true})
		start := time.Now()
		if _, err := Copy(t.Context(), dst, src, o); err != nil {
			t.Fatal(err)
		}
		// 16 chunks are read, and 16 are read back.
		if got := time.Since(start); got < 30*time.Second || got > 33*time.Second {
			t.Errorf("took %v", got)
		}
		same(t, "target", dst.bytes, src.bytes)

		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(3500*time.Millisecond, func() { cancel(why) })
		start = time.Now()
		if _, err := Copy(ctx, dst, src, o); !errors.Is(err, why) {
			t.Errorf("%v, want %v", err, why)
		}
		if got := time.Since(start); got != 3500*time.Millisecond {
			t.Errorf("ended after %v", got)
		}
	})
}
