package imageops

import (
	"context"
	"sync"
)

// A Fanout copies one source to several targets, and reads it once. Targets come
// from different goroutines, each of which has made sure of its own; the copy
// begins when all that were announced have joined or left, and each gets its own
// report and error as soon as nothing will be done with it any more. What goes
// wrong with one target ends that one. The slowest sets the pace.
type Fanout struct {
	ctx context.Context
	src Source
	o   Options

	mu      sync.Mutex
	missing int
	targets []*target
}

// NewFanout announces n targets for src. Of the options Fresh and HoldBack mean
// nothing, because each target says that itself, and all is written, whatever Delta
// says. Progress is that of the slowest target.
func NewFanout(ctx context.Context, src Source, o Options, n int) *Fanout {
	o.Delta = false
	return &Fanout{ctx: ctx, src: src, o: o, missing: n}
}

// Join makes dst one of the targets and waits for its result, which is that of
// Copy. A fresh target is new and reads as zeros; what was there before is held
// back as Options.HoldBack says. When ctx ends, so does this target. No request
// to dst is in flight any more when Join returns.
func (f *Fanout) Join(ctx context.Context, dst Dest, fresh bool) (Report, error) {
	t := newTarget(ctx, dst, !fresh, fresh)
	f.arrive(t)
	select {
	case r := <-t.result:
		return r.rep, r.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	if f.missing > 0 { // it has not begun, and will without t
		for i, other := range f.targets {
			if other == t {
				f.targets = append(f.targets[:i], f.targets[i+1:]...)
				break
			}
		}
		f.mu.Unlock()
		return Report{DigestKind: f.o.Digest}, context.Cause(ctx)
	}
	f.mu.Unlock()
	r := <-t.result
	return r.rep, r.err
}

// Leave says that one of the announced targets will not join.
func (f *Fanout) Leave() { f.arrive(nil) }

// arrive counts a target, nil for one that left, and begins when it was the last.
func (f *Fanout) arrive(t *target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t != nil {
		f.targets = append(f.targets, t)
	}
	if f.missing--; f.missing == 0 && len(f.targets) > 0 {
		go copyTo(f.ctx, f.targets, f.src, f.o)
	}
}
