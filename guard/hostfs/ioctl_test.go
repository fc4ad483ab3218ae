package hostfs

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// put writes numbers into b at their offsets, as the kernel lays them out.
func put(b []byte, u64 map[int]uint64, u32 map[int]uint32, text map[int]string) []byte {
	for off, v := range u64 {
		binary.NativeEndian.PutUint64(b[off:], v)
	}
	for off, v := range u32 {
		binary.NativeEndian.PutUint32(b[off:], v)
	}
	for off, v := range text {
		copy(b[off:], v)
	}
	return b
}

func TestDecodeLoop(t *testing.T) {
	full := put(make([]byte, loopInfoSize),
		map[int]uint64{0: 254 << 8, 8: 14847, 16: 8<<8 | 1, 24: 512, 32: 1 << 40},
		map[int]uint32{40: 7, 52: 1 | 4 | 16}, map[int]string{56: "/srv/\"x\"\x00rest"})
	for _, tt := range []struct {
		b    []byte
		want string
	}{
		{make([]byte, loopInfoSize), `dev=0:0 ino=0 rdev=0:0 offset=0 sizelimit=0 ro=0 file=""`},
		{full, `dev=254:0 ino=14847 rdev=8:1 offset=512 sizelimit=1099511627776 ro=1 file="/srv/\"x\""`},
		{put(make([]byte, loopInfoSize), map[int]uint64{0: 0x100800}, map[int]uint32{52: 4}, map[int]string{56: strings.Repeat("z", 64)}),
			`dev=8:256 ino=0 rdev=0:0 offset=0 sizelimit=0 ro=0 file="` + strings.Repeat("z", 64) + `"`},
	} {
		if got, err := decodeLoop(tt.b); got != tt.want || err != nil {
			t.Errorf("%s, %v, want %s", got, err, tt.want)
		}
	}
	for _, n := range []int{0, loopInfoSize - 1, loopInfoSize + 1} {
		if _, err := decodeLoop(make([]byte, n)); err == nil {
			t.Errorf("%d bytes decoded", n)
		}
	}
}

func TestEncodeDM(t *testing.T) {
	b := encodeDM(Mkdev(253, 256), 400, dmStatusTableFlag|dmNoFlushFlag)
	want := put(make([]byte, 400), map[int]uint64{40: 0x10fd00},
		map[int]uint32{0: 4, 12: 400, 16: 312, 28: 0x10 | 0x800}, nil)
	if string(b) != string(want) {
		t.Errorf("% x, want % x", b, want)
	}
	// _IOWR of linux/ioctl.h: direction 3, 14 bits of size, type, number.
	ioc := func(nr uint32) uint32 { return 3<<30 | 312<<16 | 0xfd<<8 | nr }
	if dmDevStatus != ioc(7) || dmTableStatus != ioc(12) {
		t.Errorf("request numbers %#x, %#x", dmDevStatus, dmTableStatus)
	}
}

func TestDecodeDMStatus(t *testing.T) {
	b := put(make([]byte, dmSize), map[int]uint64{40: 0xfd00}, map[int]uint32{24: 3, 28: 1<<1 | 1<<5},
		map[int]string{48: "vg0-db1", 176: "LVM-abc"})
	if got, err := decodeDMStatus(b); got != `open=3 suspended=1 uuid="LVM-abc" name="vg0-db1"` || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	b = put(make([]byte, dmSize), nil, nil, map[int]string{48: strings.Repeat("n", 127), 176: strings.Repeat("u", 128)})
	if got, err := decodeDMStatus(b); got != `open=0 suspended=0 uuid="`+strings.Repeat("u", 128)+`" name="`+strings.Repeat("n", 127)+`"` || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := decodeDMStatus(put(b, nil, map[int]uint32{24: 1 << 31}, nil)); err == nil {
		t.Error("a negative count of openers decoded")
	}
	if _, err := decodeDMStatus(b[:dmSize-1]); err == nil {
		t.Error("a short status decoded")
	}
}

// A target is what a test table is made of.
type target struct {
	start, length uint64
	kind, params  string
}

// dmTable lays targets out as the kernel's retrieve_status does.
func dmTable(targets ...target) []byte {
	b := make([]byte, dmSize)
	used := uint32(dmSize)
	for _, t := range targets {
		at := len(b)
		b = append(b, make([]byte, dmSpec)...)
		b = append(b, t.params...)
		b = append(b, 0)
		used = uint32(len(b))
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		put(b[at:], map[int]uint64{0: t.start, 8: t.length}, map[int]uint32{20: uint32(len(b) - dmSize)}, map[int]string{24: t.kind})
	}
	return put(append(b, make([]byte, 64)...), nil,
		map[int]uint32{dmDataSize: used, dmStart: dmSize, dmCount: uint32(len(targets))}, nil)
}

func TestDecodeDMTable(t *testing.T) {
	for _, tt := range []struct {
		targets []target
		want    string
	}{
		{nil, ""},
		{[]target{{0, 65536, "linear", "254:32 2048"}}, "0 65536 linear 254:32 2048\n"},
		{[]target{{0, 8, "error", ""}, {8, 1 << 40, "striped", "2 128 8:1 0 8:2 0"}},
			"0 8 error \n8 1099511627776 striped 2 128 8:1 0 8:2 0\n"},
		{[]target{{0, 8, "crypt", "aes-xts-plain64 c0ffee00 0 8:1 4096 1 allow_discards"}},
			"0 8 crypt aes-xts-plain64 00000000 0 8:1 4096 1 allow_discards\n"},
		{[]target{{0, 8, "crypt", "aes-xts-plain64 :64:logon:cryptsetup:x 0 8:1 4096"}},
			"0 8 crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 8:1 4096\n"},
		{[]target{{0, 8, "crypt", "cipher_null-ecb - 0 8:1 0"}}, "0 8 crypt cipher_null-ecb - 0 8:1 0\n"},
		{[]target{{0, 8, "inlinecrypt", "aes-xts-plain64 beef 0 8:1 0"}}, "0 8 inlinecrypt aes-xts-plain64 0000 0 8:1 0\n"},
		{[]target{{0, 8, "integrity", "8:1 0 32 J 2 internal_hash:hmac(sha256):abcd journal_crypt:ctr(aes):ef"}},
			"0 8 integrity 8:1 0 32 J 2 internal_hash:hmac(sha256):0000 journal_crypt:ctr(aes):00\n"},
	} {
		got, full, err := decodeDMTable(dmTable(tt.targets...))
		if got != tt.want || full || err != nil {
			t.Errorf("%q, %v, %v, want %q", got, full, err, tt.want)
		}
	}
	two := func() []byte { return dmTable(target{0, 8, "linear", "8:1 0"}, target{8, 8, "linear", "8:2 0"}) }
	if got, full, err := decodeDMTable(put(two(), nil, map[int]uint32{dmFlags: dmBufferFullFlag}, nil)); got != "" || !full || err != nil {
		t.Errorf("a full buffer: %q, %v, %v", got, full, err)
	}
	for name, u32 := range map[string]map[int]uint32{
		"starts in the header": {dmStart: dmSize - 1},
		"starts after its end": {dmDataSize: dmSize - 8},
		"ends after the bytes": {dmDataSize: 1 << 20},
		"one target too many":  {dmCount: 3},
		"very many targets":    {dmCount: 1<<32 - 1},
		"next is the same":     {dmSize + 20: 0},
		"next is inside":       {dmSize + 20: 45},
		"next is far":          {dmSize + 20: 1<<32 - 8},
		"no end of parameters": {dmDataSize: dmSize + dmSpec + 5},
	} {
		if got, full, err := decodeDMTable(put(two(), nil, u32, nil)); err == nil || got != "" || full {
			t.Errorf("%s: %q, %v, %v", name, got, full, err)
		}
	}
	if _, _, err := decodeDMTable(put(two(), nil, nil, map[int]string{dmSize + dmSpec: "8:1\n0"})); err == nil {
		t.Error("a target of two lines decoded")
	}
	if _, _, err := decodeDMTable(make([]byte, dmSize-1)); err == nil {
		t.Error("a short table decoded")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(dmTable(target{0, 8, "linear", "8:1 0"}, target{8, 8, "crypt", "a b c"}))
	f.Add(make([]byte, loopInfoSize))
	f.Add(append([]byte{16}, make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeLoop(b); err == nil && strings.Contains(s, "\n") {
			t.Errorf("loop: more than a line: %q", s)
		}
		if s, err := decodeDMStatus(b); err == nil && strings.Contains(s, "\n") {
			t.Errorf("dm: more than a line: %q", s)
		}
		if s, _, err := decodeDMTable(b); err == nil && s != "" && !strings.HasSuffix(s, "\n") {
			t.Errorf("table: half a line: %q", s)
		}
		decodeUUID(b)
	})
}

func TestDecodeUUID(t *testing.T) {
	sixteen := append([]byte{16}, "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"...)
	for _, tt := range []struct {
		b    []byte
		want string
	}{
		{sixteen, "00112233-4455-6677-8899-aabbccddeeff"},
		{append([]byte{4}, sixteen[1:]...), "00112233"},
		{make([]byte, 17), ""},
	} {
		if got, err := decodeUUID(tt.b); got != tt.want || err != nil {
			t.Errorf("% x: %s, %v, want %s", tt.b, got, err, tt.want)
		}
	}
	for _, b := range [][]byte{nil, {1}, append([]byte{17}, make([]byte, 16)...)} {
		if s, err := decodeUUID(b); err == nil {
			t.Errorf("% x: %s", b, s)
		}
	}
}

// TestWithin requires that a call that does not come back delays nobody.
func TestWithin(t *testing.T) {
	reason := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	ended := make(chan struct{})
	_, err := within(ctx, func() (string, error) {
		defer close(ended)
		cancel(reason)
		<-release
		return "late", nil
	})
	if err != reason {
		t.Errorf("%v, want %v", err, reason)
	}
	close(release)
	<-ended
	if s, err := within(t.Context(), func() (string, error) { return "in time", nil }); s != "in time" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
}
