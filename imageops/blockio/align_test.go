package blockio

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCut(t *testing.T) {
	for off := range int64(20) {
		for n := range int64(30) {
			head, body, tail := cut(off, n, 8)
			switch {
			case head+body+tail != n, head < 0, body < 0, tail < 0:
				t.Errorf("%d at %d: %d+%d+%d", n, off, head, body, tail)
			case head > 7 || tail > 7 || body%8 != 0:
				t.Errorf("%d at %d: %d+%d+%d leave aligned bytes out", n, off, head, body, tail)
			case body > 0 && (off+head)%8 != 0:
				t.Errorf("%d at %d: body begins at %d", n, off, off+head)
			case body == 0 && n >= 15:
				t.Errorf("%d at %d: no body", n, off)
			}
		}
	}
}

func TestAlignedBytes(t *testing.T) {
	for _, align := range []int{1, 512, 4096, 1 << 16} {
		for _, n := range []int{0, 1, 511, 4096, 100000} {
			b := alignedBytes(n, align)
			if len(b) != n || n > 0 && !memAligned(b, align) {
				t.Errorf("%d bytes at %d: len %d", n, align, len(b))
			}
			if n > 1 && align > 1 && memAligned(b[1:], align) {
				t.Errorf("%d bytes at %d: the second byte is aligned, too", n, align)
			}
		}
	}
}

func TestLimitsChoice(t *testing.T) {
	for _, x := range []struct {
		what string
		r    reported
		want Limits
	}{
		{"ext4", reported{dioMem: 4, dioOff: 512, block: 4096}, Limits{Logical: 512, Physical: 4096, OffAlign: 512, MemAlign: 4}},
		{"tmpfs, no alignment reported", reported{block: 4096}, Limits{4096, 4096, 4096, 4096, false}},
		{"file system of 64 KiB blocks", reported{dioMem: 512, dioOff: 65536, block: 65536}, Limits{65536, 65536, 65536, 512, false}},
		{"block below the page", reported{dioMem: 4, dioOff: 512, block: 1024, page: 4096}, Limits{512, 4096, 512, 4, false}},
		{"block below the alignment", reported{dioMem: 512, dioOff: 4096, block: 512}, Limits{4096, 4096, 4096, 512, false}},
		{"device that reports", reported{dioMem: 4, dioOff: 512, sector: 512, physical: 4096, block: 4096, device: true}, Limits{512, 4096, 512, 4, false}},
		{"device of an old kernel", reported{sector: 512, physical: 512, block: 4096, device: true}, Limits{512, 512, 512, 512, false}},
		{"device of 512-byte blocks", reported{sector: 512, physical: 512, page: 4096, device: true}, Limits{512, 4096, 512, 512, false}},
		{"4096-byte sectors", reported{sector: 4096, physical: 4096, block: 4096, device: true}, Limits{4096, 4096, 4096, 4096, false}},
		{"device on a disk that turns", reported{sector: 512, physical: 4096, device: true, rotational: true}, Limits{512, 4096, 512, 512, true}},
		{"device that says nothing", reported{device: true}, Limits{4096, 4096, 4096, 4096, false}},
		{"nonsense", reported{dioMem: 3, dioOff: 1 << 30, sector: -512, physical: 1000, block: 7, device: true}, Limits{4096, 4096, 4096, 4096, false}},
	} {
		if got := x.r.limits(); got != x.want {
			t.Errorf("%s: %+v, want %+v", x.what, got, x.want)
		}
	}
}

func TestArena(t *testing.T) {
	a, err := NewArena(3, 8192)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c := a.Chunk(i)
		if len(c) != 8192 || cap(c) != 8192 || !memAligned(c, unix.Getpagesize()) {
			t.Errorf("chunk %d: len %d, cap %d", i, len(c), cap(c))
		}
		same(t, "new chunk", c, make([]byte, 8192))
		copy(c, noise(8192, uint64(i)))
	}
	for i := range 3 {
		same(t, "chunk", a.Chunk(i), noise(8192, uint64(i)))
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestArenaRefusesNonsense(t *testing.T) {
	for _, x := range [][2]int{{0, 4096}, {-1, 4096}, {1, 0}, {1, -1}, {1 << 40, 1 << 40}} {
		if a, err := NewArena(x[0], x[1]); err == nil {
			a.Close()
			t.Errorf("%d chunks of %d bytes: no error", x[0], x[1])
		}
	}
}
