package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

func TestVHD(t *testing.T) {
	testkit.Need(t, "qemu-img")
	for _, sub := range []string{"dynamic", "fixed"} {
		for _, size := range []int{512, 1<<20 + 512, 5 << 20} {
			want := patchy(size, uint64(size))
			src, dst := file(t, "raw.img", want), filepath.Join(t.TempDir(), "disk.vhd")
			run(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat="+sub+",force_size=on", src, dst)
			l := load(t, VHD, dst)
			if k, err := Guess(l.File, l.Size); k != VHD || err != nil {
				t.Errorf("%s: guessed %v, %v", sub, k, err)
			}
			c := open(t, l)
			equal(t, fmt.Sprint(sub, size), copied(t, c), want)
			pieces(t, c, want, uint64(size))
		}
	}
}

// vhdOf writes a VHD of blocks of 4 KiB, with a bit for each of its sectors: what
// has none is absent. parent is the identity of the image below; nil: a dynamic disk.
func vhdOf(disk []byte, has func(sector int) bool, id byte, parent []byte) []byte {
	const block = 8 * sector
	be := binary.BigEndian
	sum := func(b []byte, off int) {
		total := uint32(0)
		for _, c := range b {
			total += uint32(c)
		}
		be.PutUint32(b[off:], ^total)
	}
	foot := make([]byte, vhdFooter)
	copy(foot, "conectix")
	be.PutUint64(foot[vhdData:], vhdFooter)
	be.PutUint64(foot[vhdSize:], uint64(len(disk)))
	be.PutUint32(foot[vhdType:], vhdDynamic)
	foot[vhdUUID] = id
	head := make([]byte, vhdHeader)
	copy(head, "cxsparse")
	be.PutUint64(head[vhdTable:], vhdFooter+vhdHeader)
	entries := (len(disk) + block - 1) / block
	be.PutUint32(head[vhdEntries:], uint32(entries))
	be.PutUint32(head[vhdBlock:], block)
	if parent != nil {
		be.PutUint32(foot[vhdType:], vhdDifferencing)
		copy(head[vhdParent:], parent)
	}
	sum(foot, vhdChecksum)
	sum(head, vhdHeaderChecksum)

	table := bytes.Repeat([]byte{0xff}, (4*entries+sector-1)/sector*sector)
	out := append(append(append([]byte{}, foot...), head...), table...)
	for i := range entries {
		bits, data := make([]byte, sector), make([]byte, block)
		for s := range 8 {
			if at := i*block + s*sector; at < len(disk) && has(at/sector) {
				bits[0] |= 0x80 >> s
				copy(data[s*sector:], disk[at:min(at+sector, len(disk))])
			} else {
				copy(data[s*sector:], bytes.Repeat([]byte("old"), sector)[:sector]) // nobody may see it
			}
		}
		if bits[0] != 0 {
			be.PutUint32(out[vhdFooter+vhdHeader+4*i:], uint32(len(out)/sector))
			out = append(append(out, bits...), data...)
		}
	}
	return append(out, foot...)
}

func TestVHDDifferencing(t *testing.T) {
	const size = 100*sector - 100
	base, over := noise(size, 1), noise(size, 2)
	inBase := func(s int) bool { return s%3 != 0 && (s < 40 || s > 60) }
	inTop := func(s int) bool { return s%5 == 0 || s > 90 }
	want := make([]byte, size)
	for i := range want {
		switch s := i / sector; {
		case inTop(s):
			want[i] = over[i]
		case inBase(s):
			want[i] = base[i]
		}
	}
	id := make([]byte, 16)
	id[0] = 5
	parent, top := vhdOf(base, inBase, 5, nil), vhdOf(over, inTop, 6, id)
	c := open(t, memory(VHD, "top", top), memory(VHD, "parent", parent))
	equal(t, "differencing", copied(t, c), want)
	pieces(t, c, want, 1)

	raw := vhdOf(over, inTop, 6, make([]byte, 16))
	rawWant := bytes.Clone(base)
	for i := range rawWant {
		if inTop(i / sector) {
			rawWant[i] = over[i]
		}
	}
	equal(t, "over raw", copied(t, open(t, memory(VHD, "top", raw), memory(Raw, "base", base))), rawWant)

	if _, err := Open(memory(VHD, "top", top)); !errors.Is(err, ErrNeedsParent) {
		t.Errorf("without its parent: %v", err)
	}
	if _, err := Open(memory(VHD, "parent", parent), memory(Raw, "base", base)); !errors.Is(err, ErrNoParent) {
		t.Errorf("a dynamic disk with a parent: %v", err)
	}
	if _, err := Open(memory(VHD, "top", top), memory(VHD, "other", vhdOf(base, inBase, 7, nil))); err == nil || !strings.Contains(err.Error(), "is not the parent") {
		t.Errorf("with another parent: %v", err)
	}
}

func TestVHDRefused(t *testing.T) {
	good := vhdOf(noise(20*sector, 1), func(int) bool { return true }, 1, nil)
	damage := func(off int) []byte {
		b := bytes.Clone(good)
		b[off] ^= 1
		return b
	}
	both := func(off int) []byte { // in the footer and its copy
		b := damage(off)
		b[len(b)-vhdFooter+off] ^= 1
		return b
	}
	for what, b := range map[string][]byte{
		"both footers": both(vhdSize), "dynamic header": damage(vhdFooter + vhdBlock), "cookie": damage(vhdFooter), "short": good[:400], "empty": nil,
	} {
		if _, err := Open(memory(VHD, "x", b)); err == nil {
			t.Errorf("%s is damaged, and the image is opened", what)
		}
	}
	// One footer is enough.
	for _, off := range []int{vhdSize, len(good) - vhdFooter + vhdSize} {
		if _, err := Open(memory(VHD, "x", damage(off))); err != nil {
			t.Errorf("one of two footers is damaged: %v", err)
		}
	}
	// A block that lies outside is an error when it is read.
	b := bytes.Clone(good)
	binary.BigEndian.PutUint32(b[vhdFooter+vhdHeader:], 1<<30)
	c, err := Open(memory(VHD, "x", b))
	if err == nil {
		_, err = c.ReadAt(make([]byte, sector), 0)
	}
	if err == nil {
		t.Error("a block outside of the file can be read")
	}
}

func FuzzVHD(f *testing.F) {
	f.Add(vhdOf(noise(20*sector, 1), func(s int) bool { return s%3 > 0 }, 1, nil))
	f.Add(vhdOf(noise(20*sector, 1), func(s int) bool { return s%3 > 0 }, 1, make([]byte, 16)))
	f.Fuzz(func(t *testing.T, b []byte) { readAny(t, VHD, b) })
}
