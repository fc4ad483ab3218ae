package xenstore_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// TestSilence says what a daemon that stops answering does to those who wait,
// and that the connection is good again when the daemon is.
func TestSilence(t *testing.T) {
	for _, how := range []string{"drop", "suspend"} {
		for _, op := range []string{"read", "list", "watch"} {
			t.Run(how+" "+op, func(t *testing.T) {
				converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
					s.Set("/a", "1")
					s.Set("/b", "2")
					if how == "drop" {
						s.Hook(func(r xenstoretest.Request) xenstoretest.Reply { return xenstoretest.Reply{Drop: r.Path == "/a"} })
					} else {
						s.Suspend()
					}
					began := time.Now()
					err := ask(t.Context(), c, op, "/a")
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("got %v, want a deadline", err)
					}
					want := xenstore.DefaultTimeout
					if op == "watch" {
						want += time.Second // for the daemon to confirm the end of the watch
					}
					if took := time.Since(began); took != want {
						t.Errorf("gave up after %v, want %v", took, want)
					}
					s.Hook(nil)
					s.Resume()
					if v, err := c.Read(t.Context(), "/b"); string(v) != "2" || err != nil {
						t.Errorf("afterwards: %q, %v", v, err)
					}
					synctest.Wait()
					if n := c.Stats().Late; how == "suspend" && n == 0 {
						t.Errorf("%d late replies", n)
					}
					if n := s.Watches(); n != 0 {
						t.Errorf("%d watches left", n)
					}
				})
			})
		}
	}
}

// TestContextEnds says that a context ends a request, whether it is being written
// or waits for its reply, and outranks the connection's own limit.
func TestContextEnds(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Set("/a", "1")
		s.Suspend()
		var wg sync.WaitGroup
		for range 10 { // all but the first two cannot even be written
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				_, err := c.Read(ctx, "/a")
				if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Minute {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		wg.Wait()
		s.Resume()
		if v, err := c.Read(t.Context(), "/a"); string(v) != "1" || err != nil {
			t.Errorf("afterwards: %q, %v", v, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, op := range []string{"read", "list", "watch"} {
			if err := ask(ctx, c, op, "/a"); !errors.Is(err, context.Canceled) {
				t.Errorf("%s with a context that has ended: %v", op, err)
			}
		}
	})
}

// TestSlowScanGoesOn says that the time limit is one of silence, not of a scan.
func TestSlowScanGoesOn(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Set("/a", "1")
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			time.Sleep(xenstore.DefaultTimeout - time.Millisecond)
			return xenstoretest.Reply{}
		})
		if vs, err := c.ReadAll(t.Context(), slices.Repeat([]string{"/a"}, 200)); err != nil || len(vs) != 200 {
			t.Errorf("%d values, %v", len(vs), err)
		}
	})
}

// TestDeath says that the end of the connection, however it comes, reaches
// everybody who waits, at once, with its cause.
func TestDeath(t *testing.T) {
	deaths := map[string]struct {
		kill func(s *xenstoretest.Server, c *xenstore.Conn)
		is   error
	}{
		"daemon closes": {func(s *xenstoretest.Server, _ *xenstore.Conn) { s.Close() }, io.EOF},
		"cut in a body": {func(s *xenstoretest.Server, c *xenstore.Conn) {
			s.Hook(func(xenstoretest.Request) xenstoretest.Reply { return xenstoretest.Reply{Cut: true} })
			go c.Read(context.Background(), "/a")
		}, io.ErrUnexpectedEOF},
		"close": {func(_ *xenstoretest.Server, c *xenstore.Conn) { c.Close() }, net.ErrClosed},
		"nonsense length": {func(s *xenstoretest.Server, c *xenstore.Conn) {
			s.Send(2, 1, strings.Repeat("x", 1<<20+1))
		}, nil},
	}
	for name, death := range deaths {
		t.Run(name, func(t *testing.T) {
			converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
				s.Set("/a", "12345678")
				s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
					return xenstoretest.Reply{Drop: r.Op != "WATCH" || r.Path == "/never"}
				})
				errs := make(chan error, 100)
				wait := func(f func() error) { go func() { errs <- f() }() }
				for range 20 {
					wait(func() error { return ask(t.Context(), c, "read", "/a") })
					wait(func() error { return ask(t.Context(), c, "list", "/a") })
					wait(func() error { return ask(t.Context(), c, "watch", "/a") })
					wait(func() error { return ask(t.Context(), c, "watch", "/never") })
					wait(func() error {
						vs, err := c.ReadAll(t.Context(), slices.Repeat([]string{"/a"}, 100))
						if vs != nil {
							t.Error("values of a scan that failed")
						}
						return err
					})
				}
				synctest.Wait()
				if len(errs) > 0 {
					t.Fatalf("ended too early: %v", <-errs)
				}
				began := time.Now()
				death.kill(s, c)
				for range cap(errs) {
					err := <-errs
					var oe *xenstore.OpError
					if !errors.As(err, &oe) || death.is != nil && !errors.Is(err, death.is) || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v, want %v", err, death.is)
					}
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("took %v", took)
				}
				for _, op := range []string{"read", "list", "watch"} {
					if err := ask(t.Context(), c, op, "/a"); err == nil || death.is != nil && !errors.Is(err, death.is) {
						t.Errorf("%s afterwards: %v", op, err)
					}
				}
				if err := errors.Join(c.Close(), c.Close()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// A broken transport fails every write, and reads nothing.
type broken struct{ closed chan struct{} }

func (b broken) Write([]byte) (int, error) { return 0, syscall.ENOENT }
func (b broken) Close() error              { close(b.closed); return nil }
func (b broken) Read([]byte) (int, error) {
	<-b.closed
	return 0, io.ErrClosedPipe
}

// TestTransportErrnoIsNotThePaths says that an errno of the connection does not
// pass for the absence of a node. Old kernels answer a write to their device with
// that of a watch.
func TestTransportErrnoIsNotThePaths(t *testing.T) {
	c := xenstore.NewConn(broken{make(chan struct{})})
	defer c.Close()
	for _, op := range []string{"read", "list", "watch"} {
		err := ask(t.Context(), c, op, "/a")
		if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "connection lost") {
			t.Errorf("%s: %v", op, err)
		}
	}
}
