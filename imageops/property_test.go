package imageops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"imgward/imageops/engine"
)

// borders are sizes around everything that the copy counts in: sectors, pages and
// blocks, leaves of the hash and what it takes at a time, chunks, and what is held
// back at both ends.
var borders = []int{512, 1024, 4096, lot, testChunk, 2 * testChunk, 3 * testChunk, heldBytes, 2 * heldBytes, 2*heldBytes + 4096}

// TestSizesAroundBorders copies n-1, n and n+1 bytes for each border, onto new and
// old targets of the same size and larger ones.
func TestSizesAroundBorders(t *testing.T) {
	turn := uint64(0)
	for _, border := range borders {
		for size := border - 1; size <= border+1; size++ {
			for _, more := range []int{0, 1, 511, 4096} {
				for _, delta := range []bool{false, true} {
					turn++
					c := &property{
						seed: turn, size: size, more: more, block: 512 << (turn % 4),
						o: Options{
							ChunkSize: []int{4096, testChunk}[turn%2], QueueDepth: 1 + int(turn%4), Sparse: SparseMode(turn % 3), Delta: delta,
							HoldBack: turn%3 > 0, Verify: turn%2 == 0, Digest: DigestKind(turn % 4),
						},
					}
					if border > 2*testChunk {
						c.o.ChunkSize = testChunk
					}
					t.Run(c.String(), c.check)
				}
			}
		}
	}
}

// TestAnyCopyEqualsTheReference is about copies of which all is drawn at random,
// with and without a fault: one that succeeds has made what the reference makes.
func TestAnyCopyEqualsTheReference(t *testing.T) {
	n := uint64(300)
	if testing.Short() {
		n = 100
	}
	failed := 0
	for seed := range n {
		c := draw(seed)
		t.Run(c.String(), c.check)
		if c.failed {
			failed++
		}
	}
	if failed < int(n/20) || failed > int(n/2) {
		t.Errorf("%d of %d copies failed", failed, n)
	}
}

// A property is one copy: what goes in, how, and what goes wrong.
type property struct {
	seed       uint64
	size, more int // of the source, and how much longer the target is
	block      int
	o          Options
	stream     bool
	targets    int    // 0: one, without a Fanout
	fault      string // of the engine; empty: none
	workers    int
	failed     bool
}

func (c *property) String() string {
	return fmt.Sprintf("seed=%d,size=%d,more=%d,chunk=%d,depth=%d,sparse=%d,delta=%v,stream=%v,targets=%d,fault=%s",
		c.seed, c.size, c.more, c.o.ChunkSize, c.o.QueueDepth, c.o.Sparse, c.o.Delta, c.stream, c.targets, c.fault)
}

// draw draws a copy.
func draw(seed uint64) *property {
	r := rand.New(rand.NewPCG(seed, 11))
	c := &property{seed: seed, block: 512 << r.IntN(5), workers: 1 + r.IntN(5)}
	c.size = borders[r.IntN(len(borders))]*r.IntN(3) + r.IntN(3) - 1 + r.IntN(2)*r.IntN(300<<10)
	c.size = max(c.size, 0)
	c.more = []int{0, 0, r.IntN(5000), heldBytes + r.IntN(heldBytes)}[r.IntN(4)]
	c.o = Options{
		ChunkSize: 4096 << r.IntN(9), QueueDepth: 1 + r.IntN(9), Sparse: SparseMode(r.IntN(3)), Extents: ExtentMode(r.IntN(2)),
		Fresh: r.IntN(4) == 0, HoldBack: r.IntN(2) == 0, Verify: r.IntN(2) == 0, Digest: DigestKind(r.IntN(4)), Manifest: r.IntN(4) == 0,
	}
	for c.size/c.o.ChunkSize > 500 {
		c.o.ChunkSize *= 2
	}
	if c.stream = r.IntN(5) == 0; c.stream {
		c.workers = c.o.QueueDepth // who waits for bytes that a fault kept keeps a worker
	}
	if r.IntN(4) == 0 {
		c.targets = 1 + r.IntN(3)
	} else {
		c.o.Delta = !c.o.Fresh && r.IntN(3) == 0
	}
	if r.IntN(2) == 0 {
		kinds := []string{"read", "write", "zero", "sync", "call", "*"}
		whats := []string{"EIO", "ENOSPC", fmt.Sprintf("short %d", r.IntN(5000)), "delay 100us"}
		c.fault = fmt.Sprintf("%s %d %s", kinds[r.IntN(len(kinds))], 1+r.IntN(20), whats[r.IntN(len(whats))])
	}
	return c
}

// check makes the copy. What is said to be whole is what the reference makes, with
// its digest; of what failed nothing is said that is not so.
func (c *property) check(t *testing.T) {
	src := patchy(c.size, c.seed)
	var source Source = src
	if c.stream {
		source = stream(src.bytes, c.seed, io.EOF)
	}
	old := make([]byte, c.size+c.more)
	if !c.o.Fresh {
		old = noise(len(old), c.seed+1)
	}
	if c.o.Delta {
		copy(old, nearly(append(bytes.Clone(src.bytes), 0), 5, c.seed)[:c.size])
	}
	want := reference(t, old, src)
	o := whole(t, c.o)
	o.Engine = engine.Faulty(engine.Pool(max(c.workers, 1)), c.fault)
	disks := make([]*disk, max(c.targets, 1))
	for i := range disks {
		disks[i] = &disk{bytes: bytes.Clone(old), block: c.block}
	}
	reps, errs := c.run(t, disks, source, o)
	for i, d := range disks {
		c.failed = c.failed || errs[i] != nil
		c.judge(t, d, reps[i], errs[i], want, old, src)
	}
	if err := o.Engine.Close(); err != nil {
		t.Error(err)
	}
}

// run makes the copy, alone or with several targets.
func (c *property) run(t *testing.T, disks []*disk, src Source, o Options) ([]Report, []error) {
	reps, errs := make([]Report, len(disks)), make([]error, len(disks))
	if c.targets == 0 {
		reps[0], errs[0] = Copy(t.Context(), disks[0], src, o)
		return reps, errs
	}
	f := NewFanout(t.Context(), src, o, len(disks))
	done := make(chan int)
	for i, d := range disks {
		go func() {
			reps[i], errs[i] = f.Join(t.Context(), d, c.o.Fresh)
			done <- i
		}()
	}
	for range disks {
		<-done
	}
	return reps, errs
}

func (c *property) judge(t *testing.T, d *disk, rep Report, err error, want, old []byte, src *image) {
	t.Helper()
	if err == nil {
		same(t, "target", d.bytes, want)
		if !bytes.Equal(rep.Digest, digestOf(c.o.Digest, src.bytes)) || rep.Written+rep.Zeroed+rep.Same != int64(c.size) || rep.Tail != int64(c.more) {
			t.Errorf("%+v", rep)
		}
		if c.o.Verify && rep.Verified != int64(c.size) {
			t.Errorf("verified %d of %d", rep.Verified, c.size)
		}
		return
	}
	if c.fault == "" {
		t.Fatalf("nothing was to go wrong: %v", err)
	}
	var op *OpError
	if !errors.As(err, &op) && c.faultKind() != "call" && c.faultKind() != "*" {
		t.Errorf("%v does not say what failed", err)
	}
	if rep.Digest != nil || rep.Manifest != nil {
		t.Error("a digest beside an error")
	}
	if !rep.Touched {
		same(t, "target that was not touched", d.bytes, old)
	}
	said := ranges(slices.Clone(rep.Ranges))
	for _, e := range d.ranges() {
		said.add(e.Off, e.Len)
	}
	if !slices.Equal(said, rep.Ranges) {
		t.Errorf("reported %s, written %s", spell(rep.Ranges), spell(d.ranges()))
	}
}

func (c *property) faultKind() string {
	var kind string
	_, _ = fmt.Sscan(c.fault, &kind) // of a script that draw made
	return kind
}
