package engine

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// limited starts reads no faster than at a rate.
type limited struct {
	Engine
	rate int64 // bytes a second

	mu   sync.Mutex
	next time.Time // when the next read may start
}

// Limited is e with no more than rate bytes a second read: a read starts when the
// time that the ones before it take at that rate is over, and Start waits for that.
// Other ops are not held up; who writes what was read is slowed down by it.
func Limited(e Engine, rate int64) Engine { return &limited{Engine: e, rate: max(rate, 1)} }

func (l *limited) Start(ctx context.Context, op *Op) error {
	if op.Kind != Read {
		return l.Engine.Start(ctx, op)
	}
	l.mu.Lock()
	now := time.Now()
	at := l.next
	if at.Before(now) {
		at = now
	}
	l.next = at.Add(time.Duration(float64(len(op.Buf)) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	if wait := at.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return l.Engine.Start(ctx, op)
}

func (l *limited) String() string {
	return fmt.Sprintf("%v, at most %d bytes a second", l.Engine, l.rate)
}
