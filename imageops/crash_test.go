package imageops

import (
	"testing"

	"imgward/imageops/blockio"
	"imgward/imageops/engine"
)

// TestHoldBackOrder is about what is on the storage when the power fails: of what
// was written since the last sync, any part may be. So the order of events must
// be: head and tail zeroed, sync, everything else, sync, tail, sync, head, sync.
func TestHoldBackOrder(t *testing.T) {
	for _, sizes := range [][2]int{{4 << 20, 4 << 20}, {3<<20 + 300, 3<<20 + 812}, {3 << 20, 5 << 20}, {2<<20 + 8192, 2<<20 + 8192}, {1000, 3 << 20}} {
		for _, sparse := range []SparseMode{SparseKeep, SparseDetect, SparseOff} {
			src := patchy(sizes[0], 3)
			old := noise(sizes[1], 4)
			dst := &disk{bytes: append([]byte(nil), old...)}
			o := whole(t, Options{ChunkSize: testChunk, Sparse: sparse, HoldBack: true, Verify: true})
			if _, err := Copy(t.Context(), dst, src, o); err != nil {
				t.Fatal(err)
			}
			same(t, "source part", dst.bytes[:sizes[0]], src.bytes)
			same(t, "old part", dst.bytes[sizes[0]:], old[sizes[0]:])
			checkHoldBackOrder(t, dst.events, int64(sizes[1]))
		}
	}
}

func checkHoldBackOrder(t *testing.T, events []event, size int64) {
	t.Helper()
	held := newHeld(size, 4096)
	head, tail := held.head.end(), held.tail.off
	const (
		taking = iota // head and tail are being zeroed
		copying
		tailDone
		headDone
	)
	phase, dirty := taking, 0
	zeroed := map[int64]int64{}
	for i, e := range events {
		inHead, inTail := e.overlaps(0, head), e.overlaps(tail, size)
		inMiddle := e.overlaps(head, tail)
		if e.kind != engine.Sync {
			dirty++
		}
		switch {
		case e.kind == engine.Sync:
			dirty = 0
			if phase == taking {
				if zeroed[0] != head || zeroed[tail] != size-tail {
					t.Fatalf("synced with %v zeroed, of %d and %d", zeroed, head, tail)
				}
				phase = copying
			}
		case phase == taking:
			if e.kind != engine.Zero || inMiddle || e.how != blockio.ZeroKeep {
				t.Fatalf("event %d, before head and tail are zero: %+v", i, e)
			}
			zeroed[e.off] = e.n
		case phase == copying && inMiddle:
			if inHead || inTail {
				t.Fatalf("event %d writes into what is held back: %+v", i, e)
			}
		case phase == copying && inTail:
			if dirty != 1 || e.kind != engine.Write || e.off != tail || e.end() != size {
				t.Fatalf("event %d gives the tail back with %d others not synced: %+v", i, dirty-1, e)
			}
			phase = tailDone
		case phase == tailDone && inHead:
			if dirty != 1 || e.kind != engine.Write || e.off != 0 || e.end() != head {
				t.Fatalf("event %d gives the head back with %d others not synced: %+v", i, dirty-1, e)
			}
			phase = headDone
		default:
			t.Fatalf("event %d in phase %d: %+v", i, phase, e)
		}
	}
	if phase != headDone || dirty != 0 {
		t.Errorf("ended in phase %d with %d events not synced", phase, dirty)
	}
}

// What is held back is read back before it is given back: nothing boots from a
// target whose middle is wrong.
func TestNothingIsGivenBackAfterAMismatch(t *testing.T) {
	src := &image{bytes: noise(4<<20, 1)}
	src.bytes[2<<20] = 1
	dst := &disk{bytes: noise(4<<20, 2), rot: func(b []byte) { b[2<<20] = 0 }}
	_, err := Copy(t.Context(), dst, src, whole(t, Options{HoldBack: true, Verify: true}))
	if err == nil {
		t.Fatal("no error")
	}
	same(t, "head", dst.bytes[:heldBytes], make([]byte, heldBytes))
	same(t, "tail", dst.bytes[3<<20:], make([]byte, heldBytes))
}
