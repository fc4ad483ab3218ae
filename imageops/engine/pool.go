package engine

import (
	"context"
	"fmt"
	"sync"
)

// pool is the engine of plain blocking calls.
type pool struct {
	workers int
	todo    chan *Op
	ended   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	came   *sync.Cond // done has grown, or flying has shrunk
	done   []*Op
	flying int // started and not yet returned by Wait
	closed bool
}

// Pool is an engine of so many workers (at least one), each of which carries out
// one op at a time. What has ended waits without bound for Wait, so Start blocks
// only on ops that are still being carried out.
func Pool(workers int) Engine {
	workers = max(workers, 1)
	p := &pool{workers: workers, todo: make(chan *Op, workers)}
	p.came = sync.NewCond(&p.mu)
	for range workers {
		p.ended.Go(p.work)
	}
	return p
}

func (p *pool) work() {
	for op := range p.todo {
		op.perform()
		p.mu.Lock()
		p.done = append(p.done, op)
		p.came.Signal()
		p.mu.Unlock()
	}
}

func (p *pool) Start(ctx context.Context, op *Op) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	op.N, op.Err = 0, errNotDone
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errClosed
	}
	p.flying++
	p.mu.Unlock()
	select {
	case p.todo <- op:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		p.flying--
		p.came.Broadcast()
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

func (p *pool) Wait() (*Op, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.done) == 0 {
		if p.flying == 0 {
			return nil, ErrIdle
		}
		p.came.Wait()
	}
	op := p.done[0]
	p.done[0] = nil
	p.done = p.done[1:]
	p.flying--
	if p.flying == 0 {
		p.came.Broadcast()
	}
	return op, nil
}

func (p *pool) Close() error {
	p.mu.Lock()
	if p.flying > 0 {
		p.mu.Unlock()
		return ErrBusy
	}
	if !p.closed {
		p.closed = true
		close(p.todo)
	}
	p.mu.Unlock()
	p.ended.Wait()
	return nil
}

func (p *pool) String() string { return fmt.Sprintf("pool of %d", p.workers) }
