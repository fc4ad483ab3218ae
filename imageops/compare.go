package imageops

import (
	"bytes"
	"context"
	"time"

	"imgward/imageops/engine"
)

// sector is the unit in which Compare tells a difference.
const sector = 512

// Compare reads a and b once, side by side, and returns nil if they are equal.
// If not, the error is a *MismatchError with the first run of 512-byte sectors
// that differ; a run ends with its chunk. Of different sizes, what the longer
// one has more differs. Report.Read counts both, and no digest is computed.
func Compare(ctx context.Context, a, b Source, o Options) (rep Report, err error) {
	start := time.Now()
	defer func() { rep.Elapsed = time.Since(start) }()
	o.Digest = DigestNone
	rep.DigestKind = DigestNone
	if o, err = o.filled(); err != nil {
		return rep, err
	}
	enda := &endpoint{name: nameOf(a, "first"), r: a}
	endb := &endpoint{name: nameOf(b, "second"), r: b}
	for _, e := range []*endpoint{enda, endb} {
		if e.r.(Source).Size() < 0 {
			return rep, &OpError{Op: "compare", Name: e.name, Off: -1, Err: errNoSize}
		}
	}
	f, err := newFlow(ctx, o, 2*o.ChunkSize)
	if err != nil {
		return rep, err
	}
	defer func() {
		if cerr := f.close(); err == nil {
			err = cerr
		}
	}()
	rep.Engine = f.eng.String()

	size := min(a.Size(), b.Size())
	meter := newMeter("compare", size, o.Progress)
	var diff *MismatchError
	differ := func(off, n int64) {
		if diff == nil || off < diff.Off {
			diff = &MismatchError{Name: endb.name, Other: enda.name, Off: off, Len: n}
		}
	}
	var off int64
	begin := func(c *chunk) bool {
		n := min(int64(o.ChunkSize), size-off)
		at, bufa, bufb := off, c.buf[:n], c.buf[o.ChunkSize:][:n]
		off += n
		halves := 0
		half := func() {
			rep.Read += n
			if halves++; halves < 2 {
				return
			}
			var first, run int64
			f.do(c, &engine.Op{Kind: engine.Call, Do: func() error {
				first, run = firstDifference(bufa, bufb)
				return nil
			}}, func() {
				if run > 0 {
					differ(at+first, run)
					return
				}
				rep.Verified += n
				meter.add(n)
			})
		}
		f.do(c, &engine.Op{Kind: engine.Read, End: enda, Off: at, Buf: bufa}, half)
		f.do(c, &engine.Op{Kind: engine.Read, End: endb, Off: at, Buf: bufb}, half)
		return off < size && diff == nil
	}
	if size == 0 {
		begin = nil
	}
	if err := f.run(begin); err != nil {
		return rep, err
	}
	if diff == nil && !meter.full() {
		return rep, errStuck
	}
	if longer := max(a.Size(), b.Size()); diff == nil && longer > size {
		differ(size, longer-size)
	}
	if diff != nil {
		return rep, diff
	}
	return rep, nil
}

// firstDifference is the first run of sectors in which a and b, equally long,
// differ; n is 0 if they are equal.
func firstDifference(a, b []byte) (off, n int64) {
	if bytes.Equal(a, b) {
		return 0, 0
	}
	for at := 0; at < len(a); at += sector {
		end := min(at+sector, len(a))
		equal := bytes.Equal(a[at:end], b[at:end])
		if equal && n > 0 {
			break
		}
		if !equal {
			if n == 0 {
				off = int64(at)
			}
			n += int64(end - at)
		}
	}
	return off, n
}
