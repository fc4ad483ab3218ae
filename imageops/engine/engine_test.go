package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// memory is an endpoint in memory.
type memory struct {
	mu    sync.Mutex
	b     []byte
	syncs int
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.b[off:], p), nil
}

func (m *memory) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.b[off : off+n])
	return nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

// engines are all that must keep the promises of Engine.
var engines = []struct {
	name string
	make func() Engine
}{
	{"pool of one", func() Engine { return Pool(1) }},
	{"pool of four", func() Engine { return Pool(4) }},
	{"pool of none", func() Engine { return Pool(0) }},
	{"faulty without faults", func() Engine { return Faulty(Pool(3), "") }},
	{"faulty with delays", func() Engine { return Faulty(Pool(3), "* 2 delay 1ms; read 5 delay 2ms") }},
}

// conform runs test against every engine, and closes it.
func conform(t *testing.T, test func(t *testing.T, e Engine)) {
	for _, x := range engines {
		t.Run(x.name, func(t *testing.T) {
			e := x.make()
			test(t, e)
			if err := e.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func start(t *testing.T, e Engine, ops ...*Op) {
	t.Helper()
	for _, op := range ops {
		if err := e.Start(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
}

func wait(t *testing.T, e Engine) *Op {
	t.Helper()
	op, err := e.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func TestEveryKindDoesItsWork(t *testing.T) {
	conform(t, func(t *testing.T, e Engine) {
		m := &memory{b: []byte("0123456789")}
		start(t, e, &Op{Kind: Write, End: m, Off: 2, Buf: []byte("ab")})
		if op := wait(t, e); op.Err != nil || op.N != 2 {
			t.Errorf("write: %d, %v", op.N, op.Err)
		}
		start(t, e, &Op{Kind: Zero, End: m, Off: 5, Len: 2})
		if op := wait(t, e); op.Err != nil {
			t.Errorf("zero: %v", op.Err)
		}
		start(t, e, &Op{Kind: Read, End: m, Off: 1, Buf: make([]byte, 7)})
		if op := wait(t, e); op.Err != nil || op.N != 7 || string(op.Buf) != "1ab4\x00\x007" {
			t.Errorf("read: %q, %d, %v", op.Buf, op.N, op.Err)
		}
		start(t, e, &Op{Kind: Sync, End: m})
		if op := wait(t, e); op.Err != nil || m.syncs != 1 {
			t.Errorf("sync: %d, %v", m.syncs, op.Err)
		}
		called := false
		start(t, e, &Op{Kind: Call, Do: func() error { called = true; return io.ErrNoProgress }})
		if op := wait(t, e); !called || op.Err != io.ErrNoProgress {
			t.Errorf("call: %v, %v", called, op.Err)
		}
		start(t, e, &Op{Kind: 77})
		if op := wait(t, e); !errors.Is(op.Err, errors.ErrUnsupported) {
			t.Errorf("unknown kind: %v", op.Err)
		}
	})
}

func TestEveryOpComesBackOnce(t *testing.T) {
	conform(t, func(t *testing.T, e Engine) {
		const n = 200
		var calls atomic.Int64
		go func() {
			for i := range n {
				op := &Op{Kind: Call, Tag: i, Do: func() error { calls.Add(1); return nil }}
				for e.Start(t.Context(), op) != nil {
					t.Error("not started")
				}
			}
		}()
		seen := map[any]int{}
		for len(seen) < n {
			op, err := e.Wait()
			if err == ErrIdle {
				continue // nothing is started yet
			}
			if op.Err != nil {
				t.Fatal(op.Err)
			}
			seen[op.Tag]++
		}
		for tag, times := range seen {
			if times != 1 {
				t.Errorf("op %v came back %d times", tag, times)
			}
		}
		if calls.Load() != n {
			t.Errorf("%d calls, want %d", calls.Load(), n)
		}
		if _, err := e.Wait(); err != ErrIdle {
			t.Errorf("then: %v, want %v", err, ErrIdle)
		}
	})
}

func TestStartNeverNeedsWait(t *testing.T) {
	conform(t, func(t *testing.T, e Engine) {
		for range 100 {
			start(t, e, &Op{Kind: Call, Do: func() error { return nil }})
		}
		for range 100 {
			wait(t, e)
		}
	})
}

func TestStartedOpsComeBackAfterCancel(t *testing.T) {
	for _, x := range engines {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := x.make()
				why := errors.New("somebody else wants it")
				ctx, cancel := context.WithCancelCause(t.Context())
				gate := make(chan struct{})
				blocked := func() *Op { return &Op{Kind: Call, Do: func() error { <-gate; return nil }} }
				started := 0
				refused := make(chan error)
				go func() {
					for { // until the queue is full, and the context ends
						if err := e.Start(ctx, blocked()); err != nil {
							refused <- err
							return
						}
						started++
					}
				}()
				synctest.Wait()
				time.Sleep(time.Second) // delays of the faulty engine are over
				synctest.Wait()
				cancel(why)
				if err := <-refused; err != why {
					t.Errorf("start: %v, want %v", err, why)
				}
				if err := e.Start(ctx, blocked()); err != why {
					t.Errorf("start: %v, want %v", err, why)
				}
				if err := e.Close(); err != ErrBusy {
					t.Errorf("close: %v, want %v", err, ErrBusy)
				}
				close(gate)
				for range started {
					if op := wait(t, e); op.Err != nil {
						t.Error(op.Err)
					}
				}
				if _, err := e.Wait(); err != ErrIdle {
					t.Errorf("then: %v, want %v", err, ErrIdle)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWaitEndsWhenTheLastStartIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pool(1).(*pool)
		gate := make(chan struct{})
		hold := &Op{Kind: Call, Do: func() error { <-gate; return nil }}
		start(t, p, hold, &Op{Kind: Call, Do: func() error { return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		refused := make(chan error, 1)
		go func() { refused <- p.Start(ctx, &Op{Kind: Call}) }()
		synctest.Wait()
		cancel()
		if err := <-refused; err != context.Canceled {
			t.Errorf("start: %v", err)
		}
		close(gate)
		wait(t, p)
		wait(t, p)
		if _, err := p.Wait(); err != ErrIdle {
			t.Errorf("wait: %v, want %v", err, ErrIdle)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestStartAfterClose(t *testing.T) {
	for _, x := range engines {
		e := x.make()
		if err := errors.Join(e.Close(), e.Close()); err != nil {
			t.Errorf("%s: close: %v", x.name, err)
		}
		if err := e.Start(t.Context(), &Op{Kind: Call}); err != errClosed {
			t.Errorf("%s: start: %v, want %v", x.name, err, errClosed)
		}
	}
}

// liar is an endpoint that does less than it was asked, or says odd things.
type liar struct {
	memory
	n   int
	err error
}

func (l *liar) ReadAt(p []byte, _ int64) (int, error)  { return min(l.n, len(p)), l.err }
func (l *liar) WriteAt(p []byte, _ int64) (int, error) { return min(l.n, len(p)), l.err }

func TestLessThanAllIsAnError(t *testing.T) {
	for _, x := range []struct {
		kind Kind
		n    int
		err  error
		want error
	}{
		{Read, 8, nil, nil},
		{Read, 8, io.EOF, nil},
		{Read, 8, syscall.EIO, syscall.EIO},
		{Read, 7, nil, io.ErrUnexpectedEOF},
		{Read, 7, io.EOF, io.ErrUnexpectedEOF},
		{Read, 0, io.EOF, io.ErrUnexpectedEOF},
		{Read, 3, syscall.EIO, syscall.EIO},
		{Write, 8, nil, nil},
		{Write, 7, nil, io.ErrShortWrite},
		{Write, 0, nil, io.ErrShortWrite},
		{Write, 8, syscall.EIO, syscall.EIO},
		{Write, 4, syscall.ENOSPC, syscall.ENOSPC},
	} {
		conform(t, func(t *testing.T, e Engine) {
			start(t, e, &Op{Kind: x.kind, End: &liar{n: x.n, err: x.err}, Buf: make([]byte, 8)})
			if op := wait(t, e); op.Err != x.want || op.N != x.n {
				t.Errorf("%v of %d bytes, %v: %d, %v, want %v", x.kind, x.n, x.err, op.N, op.Err, x.want)
			}
		})
	}
}

func TestFaultsHitTheirOps(t *testing.T) {
	for _, x := range []struct {
		script string
		kinds  string // r, w, z, s, c: ops in order
		want   []error
	}{
		{"write 2 EIO", "wrw", []error{nil, nil, syscall.EIO}},
		{"write * ENOSPC", "wrw", []error{syscall.ENOSPC, nil, syscall.ENOSPC}},
		{"* 2 EIO", "rwr", []error{nil, syscall.EIO, nil}},
		{"read 1 short 3; read 2 short 0", "rrr", []error{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, nil}},
		{"write 1 short 3", "ww", []error{io.ErrShortWrite, nil}},
		{"write 1 short 99", "w", []error{nil}},
		{"zero 1 ENOTSUP; sync 1 EIO; call 1 EINTR;", "zsczsc", []error{syscall.EOPNOTSUPP, syscall.EIO, syscall.EINTR, nil, nil, nil}},
		{"read 1 EIO; read * EBADF", "rr", []error{syscall.EIO, syscall.EBADF}},
		{"read * delay 1ms", "r", []error{nil}},
	} {
		t.Run(x.script, func(t *testing.T) {
			e := Faulty(Pool(1), x.script)
			m := &memory{b: make([]byte, 64)}
			for i, k := range x.kinds {
				op := &Op{Kind: Kind(bytes.IndexRune([]byte("rwzsc"), k)), End: m, Buf: make([]byte, 8), Len: 8, Do: func() error { return nil }}
				start(t, e, op)
				if wait(t, e); op.Err != x.want[i] {
					t.Errorf("op %d (%v): %v, want %v", i+1, op.Kind, op.Err, x.want[i])
				}
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFaultyWriteLeavesWhatItSays(t *testing.T) {
	m := &memory{b: []byte("........")}
	e := Faulty(Pool(1), "write 1 short 3; write 2 EIO")
	start(t, e, &Op{Kind: Write, End: m, Buf: []byte("abcdef")})
	if op := wait(t, e); op.N != 3 || string(m.b) != "abc....." {
		t.Errorf("short: %d bytes, %q", op.N, m.b)
	}
	start(t, e, &Op{Kind: Write, End: m, Buf: []byte("xyz")})
	if op := wait(t, e); op.N != 0 || string(m.b) != "abc....." {
		t.Errorf("failed: %d bytes, %q", op.N, m.b)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadScriptsStartNothing(t *testing.T) {
	for _, script := range []string{
		"write", "write 1", "write 0 EIO", "write -1 EIO", "write x EIO", "wipe 1 EIO", "write 1 EFOO",
		"write 1 EIO now", "write 1 short", "write 1 short -1", "write 1 short x", "write 1 delay", "write 1 delay soon",
		"write 2 EIO; huh",
	} {
		e := Faulty(Pool(1), script)
		if err := e.Start(t.Context(), &Op{Kind: Call}); err == nil {
			t.Errorf("%q: started", script)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	e := Faulty(Pool(2), "")
	defer e.Close()
	if got := fmt.Sprint(e, Write, Kind(9)); got != "faulty pool of 2 write kind 9" {
		t.Errorf("got %q", got)
	}
}

func BenchmarkPool(b *testing.B) {
	for _, workers := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			e := Pool(workers)
			defer e.Close()
			b.ReportAllocs()
			ops := make([]*Op, 32)
			for i := range ops {
				ops[i] = &Op{Kind: Call, Do: func() error { return nil }}
			}
			for b.Loop() {
				op := ops[len(ops)-1]
				ops = ops[:len(ops)-1]
				if err := e.Start(b.Context(), op); err != nil {
					b.Fatal(err)
				}
				if len(ops) == 0 {
					for range 32 {
						op, err := e.Wait()
						if err != nil {
							b.Fatal(err)
						}
						ops = append(ops, op)
					}
				}
			}
			for range 32 - len(ops) {
				if _, err := e.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
