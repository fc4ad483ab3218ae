package ddcmd

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestProduct(t *testing.T) {
	for _, tt := range []struct {
		s         string
		n         uint64
		zeroTimes bool
		r         reading
	}{
		{"0", 0, false, fine},
		{"12", 12, false, fine},
		{"2x3", 6, false, fine},
		{"2x3x512", 3072, false, fine}, // more than 9.1 takes
		{"2x0x3", 0, true, fine},
		{"0x10", 0, true, fine},
		{"00x10", 0, false, fine},
		{"1kB", 1000, false, fine},
		{"1K", 1024, false, fine},
		{"3KiB", 3072, false, fine},
		{"2b", 1024, false, fine},
		{"w", 2, false, fine},
		{"8E", 1 << 63, false, fine},
		{"16E", 0, false, tooLarge},
		{"18446744073709551615", math.MaxUint64, false, fine},
		{"18446744073709551616", math.MaxUint64, false, tooLarge},
		{"4294967296x4294967296", 0, false, tooLarge},
		{"1Yx0", 0, false, fine},
		{"1YQ", 0, false, largeJunk},
		{"2x1YQ", 0, false, noNumber},
		{"", 0, false, noNumber},
		{"x", 0, false, noNumber},
		{"1x", 0, false, noNumber},
		{"-1", 0, false, noNumber},
		{"1R", 0, false, noNumber},
		{"B", 0, false, noNumber},
	} {
		if n, z, r := product(tt.s); r != tt.r || r == fine && (n != tt.n || z != tt.zeroTimes) {
			t.Errorf("%q: %d, %t, %d", tt.s, n, z, r)
		}
	}
}

// Numbers of blocks and of bytes, and which operand wins.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args string
		want Plan
	}{
		{"", Plan{IBS: 512, OBS: 512, MaxRecords: math.MaxInt64, Conv: reblocks}},
		{"bs=4k ibs=1 obs=2", Plan{IBS: 4096, OBS: 4096, MaxRecords: math.MaxInt64}},
		{"ibs=3 bs=2 bs=5", Plan{IBS: 5, OBS: 5, MaxRecords: math.MaxInt64}},
		{"bs=10 count=25B skip=1x13B seek=3", Plan{IBS: 10, OBS: 10, MaxRecords: 2, MaxBytes: 5, SkipRecords: 1, SkipBytes: 3, SeekRecords: 3, warnPartial: true}},
		{"bs=10 count=25 iflag=count_bytes", Plan{IBS: 10, OBS: 10, MaxRecords: 2, MaxBytes: 5, IFlags: CountBytes, warnPartial: true}},
		{"bs=10 count=1K", Plan{IBS: 10, OBS: 10, MaxRecords: 1024, warnPartial: true}},
		{"bs=10 count=1KiB count=3", Plan{IBS: 10, OBS: 10, MaxRecords: 3, warnPartial: true}},
		{"bs=10 oseek=7 iseek=8", Plan{IBS: 10, OBS: 10, MaxRecords: math.MaxInt64, SeekRecords: 7, SkipRecords: 8, warnPartial: true}},
		{"bs=1 conv=notrunc conv=sync,fsync of=a of=", Plan{IBS: 1, OBS: 1, MaxRecords: math.MaxInt64, Conv: NoTrunc | Sync | FSync, HasOut: true}},
		{"conv=ascii", Plan{IBS: 512, OBS: 512, MaxRecords: math.MaxInt64, Conv: ASCII | reblocks}},
		{"conv=ascii cbs=3", Plan{IBS: 512, OBS: 512, CBS: 3, MaxRecords: math.MaxInt64, Conv: ASCII | Unblock | reblocks}},
		{"bs=1 status=none status=progress", Plan{IBS: 1, OBS: 1, MaxRecords: math.MaxInt64, Status: StatusProgress}},
	} {
		p, _, err := Locale{}.Parse(fields(tt.args))
		if err != nil || *p != tt.want {
			t.Errorf("%q: %+v, %v", tt.args, p, err)
		}
	}
}

func fields(s string) []string {
	var out []string
	for _, f := range bytes.Fields([]byte(s)) {
		out = append(out, string(f))
	}
	return out
}

func FuzzParse(f *testing.F) {
	f.Add("if=a\nof=b\nbs=2x3k\ncount=1KiB", false)
	f.Add("conv=ebcdic,swab\ncbs=0x1\nskip=99999999999999999999", true)
	f.Fuzz(func(t *testing.T, words string, utf8 bool) {
		var args []string
		for _, w := range bytes.Split([]byte(words), []byte("\n")) {
			args = append(args, string(w))
		}
		l := Locale{UTF8: utf8}
		for _, a := range args {
			l.file(a)
			l.fileIfNeeded(a)
		}
		p, _, err := l.Parse(args)
		if err != nil {
			if p != nil || err.Error() == "" {
				t.Errorf("%q: %+v beside %v", args, p, err)
			}
			return
		}
		whole := func(records, rest, block int64) bool { return records >= 0 && 0 <= rest && rest < block }
		if p.IBS < 1 || p.OBS < 1 || !whole(p.SkipRecords, p.SkipBytes, p.IBS) || !whole(p.SeekRecords, p.SeekBytes, p.OBS) || !whole(p.MaxRecords, p.MaxBytes, p.IBS) {
			t.Errorf("%q: %+v", args, p)
		}
		newConverter(p)
	})
}

// What comes out does not depend on how what comes in is cut into blocks.
func TestConvertInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, plan := range []Plan{
		{}, {Conv: Swab}, {Conv: UCase | Swab}, {Conv: Block, CBS: 7}, {Conv: Unblock, CBS: 7}, {Conv: EBCDIC | Block, CBS: 5},
		{Conv: ASCII | Unblock | Swab, CBS: 5}, {Conv: IBM | LCase},
	} {
		in := text(r, 3000)
		whole := newConverter(&plan)
		want := whole.finish(whole.convert(nil, slices.Clone(in)))
		for range 20 {
			c := newConverter(&plan)
			var got []byte
			for rest := slices.Clone(in); len(rest) > 0; {
				n := min(1+r.IntN(40), len(rest))
				got = c.convert(got, rest[:n])
				rest = rest[n:]
			}
			if got = c.finish(got); !bytes.Equal(got, want) || c.truncated != whole.truncated {
				t.Errorf("%+v: in pieces it becomes something else", plan)
			}
		}
	}
}

func TestCharacterSets(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	there := newConverter(&Plan{Conv: EBCDIC}).convert(nil, slices.Clone(all))
	if back := newConverter(&Plan{Conv: ASCII}).convert(nil, there); !bytes.Equal(back, all) {
		t.Error("EBCDIC is not converted back")
	}
	// POSIX's tables differ in a few characters.
	if toEBCDIC['A'] != 0xc1 || toIBM['A'] != 0xc1 || toEBCDIC['^'] != 0x9a || toIBM['^'] != 0x5f {
		t.Error("the tables are not POSIX's")
	}
}

func TestTransferred(t *testing.T) {
	for _, tt := range []struct {
		n     int64
		took  time.Duration
		whole bool
		want  string
	}{
		{0, 0, false, "0 bytes copied, 0 s, Infinity B/s"},
		{0, 22 * time.Microsecond, false, "0 bytes copied, 2.2e-05 s, 0.0 kB/s"},
		{1, time.Second, false, "1 byte copied, 1 s, 0.0 kB/s"},
		{999, time.Millisecond, false, "999 bytes copied, 0.001 s, 999 kB/s"},
		{1000, time.Second, false, "1000 bytes (1.0 kB) copied, 1 s, 1.0 kB/s"},
		{1023, time.Second, false, "1023 bytes (1.0 kB) copied, 1 s, 1.0 kB/s"},
		{1024, time.Second, false, "1024 bytes (1.0 kB, 1.0 KiB) copied, 1 s, 1.0 kB/s"},
		{1050, time.Second, false, "1050 bytes (1.0 kB, 1.0 KiB) copied, 1 s, 1.1 kB/s"},
		{1051, time.Second, false, "1051 bytes (1.1 kB, 1.0 KiB) copied, 1 s, 1.1 kB/s"},
		{1150, time.Second, false, "1150 bytes (1.2 kB, 1.1 KiB) copied, 1 s, 1.1 kB/s"},
		{9950, time.Second, false, "9950 bytes (10 kB, 9.7 KiB) copied, 1 s, 9.9 kB/s"},
		{10500, time.Second, true, "10500 bytes (10 kB, 10 KiB) copied, 1 s, 10.5 kB/s"},
		{11500, 2 * time.Second, false, "11500 bytes (12 kB, 11 KiB) copied, 2 s, 5.8 kB/s"},
		{999500, time.Second, false, "999500 bytes (1.0 MB, 976 KiB) copied, 1 s, 1000 kB/s"},
		{1048063, time.Second, false, "1048063 bytes (1.0 MB, 1023 KiB) copied, 1 s, 1.0 MB/s"},
		{1048064, time.Second, false, "1048064 bytes (1.0 MB, 1.0 MiB) copied, 1 s, 1.0 MB/s"},
		{104857600, 123456789 * time.Nanosecond, false, "104857600 bytes (105 MB, 100 MiB) copied, 0.123457 s, 849 MB/s"},
		{1 << 62, 1234567 * time.Second, true, "4611686018427387904 bytes (4.6 EB, 4.0 EiB) copied, 1234567 s, 3.7 TB/s"},
	} {
		if got := transferred(tt.n, tt.took, tt.whole); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
