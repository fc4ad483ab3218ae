package imageops

import (
	"context"
	"time"
)

// Digest reads src once and computes o.Digest and what o.Expect asks for; one
// that is not as expected is a *DigestError. With SparseKeep holes are hashed
// without being read, and of a stream all is read. Of the options those about a target mean nothing here.
func Digest(ctx context.Context, src Source, o Options) (rep Report, err error) {
	start := time.Now()
	defer func() { rep.Elapsed = time.Since(start) }()
	if o, err = o.filled(src); err != nil {
		return rep, err
	}
	name, size := nameOf(src, "source"), src.Size()
	rep.DigestKind = o.Digest
	f, err := newFlow(ctx, o, o.ChunkSize)
	if err != nil {
		return rep, err
	}
	defer func() {
		if cerr := f.close(); err == nil {
			err = cerr
		}
	}()
	rep.Engine, rep.ChunkSize = f.eng.String(), o.ChunkSize

	if s, ok := src.(Stopper); ok {
		defer context.AfterFunc(f.ctx, func() { s.Stop(context.Cause(f.ctx)) })()
	}
	h, err := newHoles(f.ctx, src, name, o.asks(), 1)
	if err != nil {
		return rep, err
	}
	defer h.stop()
	meter := newMeter("digest", size, o.Progress)
	p := &pass{
		flow: f, end: &endpoint{name: name, r: src}, do: f.do, size: size, holes: h,
		sums: newSums(f, o.kinds(), false, size, o.ChunkSize),
		read: func(n int64) { rep.Read += n },
		got:  func(*chunk, []Extent) {},
		done: meter.add,
	}
	if o.Manifest {
		p.sums.tree.markAll()
	}
	if err := p.run(); err != nil {
		return rep, err
	}
	return rep, p.sums.finish(&rep, o, name, p.size)
}
