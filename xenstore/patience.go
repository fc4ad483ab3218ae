package xenstore

import (
	"context"
	"fmt"
	"time"
)

// A patience bounds how long a request waits for a daemon that is silent. The
// clock restarts with every step forward, so that a long scan that proceeds is
// not cut off. Where the context has a deadline, that is the bound instead.
type patience struct {
	limit time.Duration
	timer *time.Timer // nil: no bound
}

// patience returns the bound for requests under ctx. It must be stopped.
func (c *Conn) patience(ctx context.Context) *patience {
	if _, ok := ctx.Deadline(); ok || c.limit < 0 {
		return &patience{}
	}
	return &patience{limit: c.limit, timer: time.NewTimer(c.limit)}
}

// reset restarts the clock.
func (p *patience) reset() {
	if p.timer != nil {
		p.timer.Reset(p.limit)
	}
}

// spent returns a channel that delivers when the time is up.
func (p *patience) spent() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

// stop releases the clock.
func (p *patience) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// err says that the time was up.
func (p *patience) err() error {
	return fmt.Errorf("no reply for %v: %w", p.limit, context.DeadlineExceeded)
}
