package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// nowhere is an endpoint that takes no time.
type nowhere struct{}

func (nowhere) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Zero(int64, int64) error                { return nil }
func (nowhere) Sync() error                            { return nil }

// Ten requests of 1000 bytes at 1000 bytes a second take nine seconds until the last
// of them starts. Other requests wait for nobody.
func TestLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Limited(Pool(2), 1000)
		start := time.Now()
		for i := range 10 {
			if err := e.Start(t.Context(), &Op{Kind: Read, End: nowhere{}, Buf: make([]byte, 1000)}); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != time.Duration(i)*time.Second {
				t.Errorf("request %d started after %v", i, got)
			}
			for _, kind := range []Kind{Write, Zero, Sync} {
				if err := e.Start(t.Context(), &Op{Kind: kind, End: nowhere{}, Buf: make([]byte, 5000), Len: 1 << 40}); err != nil {
					t.Fatal(err)
				}
			}
			for range 4 {
				if op, err := e.Wait(); err != nil || op.Err != nil {
					t.Fatal(op, err)
				}
			}
		}
		// Time that was not used is not saved up.
		time.Sleep(time.Hour)
		start = time.Now()
		for range 3 {
			if err := e.Start(t.Context(), &Op{Kind: Read, End: nowhere{}, Buf: make([]byte, 500)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("three requests after an hour's rest took %v", got)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(time.Millisecond, func() { cancel(why) })
		if err := e.Start(ctx, &Op{Kind: Read, End: nowhere{}, Buf: make([]byte, 500)}); !errors.Is(err, why) {
			t.Errorf("%v, want %v", err, why)
		}
		for range 3 {
			if _, err := e.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Wait(); !errors.Is(err, ErrIdle) {
			t.Errorf("what was not started comes back: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
