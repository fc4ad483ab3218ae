package xenstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// watching runs a watch on path until end is called, which returns Watch's error.
func watching(t *testing.T, c *xenstore.Conn, path string, fire func(string)) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, path, fire) }()
	return func() error {
		cancel()
		return <-done
	}
}

func TestWatch(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Set("/b/vbd/7/51712/state", "4")
		var events, others []string
		end := watching(t, c, "/b", func(p string) { events = append(events, p) })
		endOther := watching(t, c, "@introduceDomain", func(p string) { others = append(others, p) })
		synctest.Wait()
		if !slices.Equal(events, []string{"/b"}) || !slices.Equal(others, []string{"@introduceDomain"}) {
			t.Errorf("first events %q, %q", events, others)
		}
		s.Set("/b/vbd/7/51712/state", "5")
		s.Set("/elsewhere", "1")
		s.Fire("@introduceDomain")
		s.Remove("/b/vbd")
		s.Fire("/b/spurious")
		synctest.Wait()
		if want := []string{"/b", "/b/vbd/7/51712/state", "/b/vbd", "/b/spurious"}; !slices.Equal(events, want) {
			t.Errorf("events %q, want %q", events, want)
		}
		if want := []string{"@introduceDomain", "@introduceDomain"}; !slices.Equal(others, want) {
			t.Errorf("events %q, want %q", others, want)
		}
		if err := end(); err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
		if n := s.Watches(); n != 1 {
			t.Errorf("%d watches left with the daemon, want that of @introduceDomain", n)
		}
		s.Set("/b", "unwatched")
		synctest.Wait()
		if len(events) != 4 || c.Stats() != (xenstore.Stats{}) {
			t.Errorf("events after the end: %q, %+v", events, c.Stats())
		}
		if err := endOther(); err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	})
}

// TestWatchTwice says that two watches of one path are two.
func TestWatchTwice(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		var a, b int
		endA := watching(t, c, "/d", func(string) { a++ })
		endB := watching(t, c, "/d", func(string) { b++ })
		synctest.Wait()
		s.Set("/d", "1")
		synctest.Wait()
		endA()
		s.Set("/d", "2")
		synctest.Wait()
		endB()
		if a != 2 || b != 3 {
			t.Errorf("%d and %d events, want 2 and 3", a, b)
		}
	})
}

// TestWatchStorm says that any number of events neither stops the others on the
// connection nor gets lost: in the end there is a call that covers the rest.
func TestWatchStorm(t *testing.T) {
	for _, n := range []int{255, 256, 257, 10_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
				s.Set("/a", "1")
				var events []string
				gate := make(chan struct{})
				end := watching(t, c, "/d", func(p string) {
					events = append(events, p)
					<-gate
				})
				synctest.Wait() // fire holds the first event
				for i := range n {
					s.Set(fmt.Sprintf("/d/%d", i), "")
				}
				if v, err := c.Read(t.Context(), "/a"); string(v) != "1" || err != nil {
					t.Errorf("reading beside the storm: %q, %v", v, err)
				}
				close(gate)
				synctest.Wait()
				want := []string{"/d"}
				overflow := uint64(max(0, n-256))
				if overflow > 0 {
					want = append(want, "/d") // once for all of them
				} else {
					for i := range n {
						want = append(want, fmt.Sprintf("/d/%d", i))
					}
				}
				if !slices.Equal(events, want) || c.Stats() != (xenstore.Stats{Overflow: overflow}) {
					t.Errorf("%d events of %d, %+v", len(events), n, c.Stats())
				}
				// The watch still works.
				s.Set("/d/after", "")
				synctest.Wait()
				if last := events[len(events)-1]; last != "/d/after" {
					t.Errorf("the last event is %q", last)
				}
				end()
			})
		})
	}
}

// TestScanFromWithinAWatch says that fire may use the connection.
func TestScanFromWithinAWatch(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		fill(s, "/d", 300)
		var listed int
		end := watching(t, c, "/d", func(p string) {
			names, err := c.List(t.Context(), "/d")
			if err != nil {
				t.Error(err)
			}
			listed = len(names)
		})
		synctest.Wait()
		s.Set("/d/one-more", "")
		synctest.Wait()
		end()
		if listed != 301 {
			t.Errorf("listed %d names", listed)
		}
	})
}

// TestWatchEndsWithASuspendedDaemon says how long that takes.
func TestWatchEndsWithASuspendedDaemon(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		fired := 0
		end := watching(t, c, "/d", func(string) { fired++ })
		synctest.Wait()
		s.Suspend()
		began := time.Now()
		if err := end(); err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
		s.Resume()
		synctest.Wait()
		if n := s.Watches(); n != 0 || fired != 1 {
			t.Errorf("%d watches left, %d calls", n, fired)
		}
	})
}

// TestNoCallAfterTheEnd says that fire is not called once ctx has ended, however
// many events wait.
func TestNoCallAfterTheEnd(t *testing.T) {
	for range 20 { // what a select finds ready it takes at random
		converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
			ctx, cancel := context.WithCancel(t.Context())
			fired := 0
			err := c.Watch(ctx, "/d", func(string) {
				fired++
				for range 100 {
					s.Fire("/d/x")
				}
				synctest.Wait()
				cancel()
			})
			if err != context.Canceled || fired != 1 {
				t.Errorf("%d calls, %v", fired, err)
			}
		})
	}
}

// TestEventBeforeTheAcknowledgement says that the first event may overtake.
func TestEventBeforeTheAcknowledgement(t *testing.T) {
	playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
		go func() {
			_, id, body := d.take()
			d.reply(15, 0, body)
			d.reply(4, id, "OK\x00")
			op, id, _ := d.take()
			d.reply(op, id, "OK\x00")
		}()
		var events []string
		end := watching(t, c, "/d", func(p string) { events = append(events, p) })
		synctest.Wait()
		if err := end(); err != context.Canceled || !slices.Equal(events, []string{"/d"}) {
			t.Errorf("%q, %v", events, err)
		}
	})
}

// TestAcknowledgementWithoutID plays the xenbus device of kernels before 4.11,
// which answers WATCH and UNWATCH itself, with id 0.
func TestAcknowledgementWithoutID(t *testing.T) {
	playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
		go func() {
			for range 4 {
				op, _, body := d.take()
				d.reply(op, 0, "OK\x00")
				if op == 4 {
					d.reply(15, 0, body)
				}
			}
		}()
		for range 2 {
			var events []string
			end := watching(t, c, "/d", func(p string) { events = append(events, p) })
			synctest.Wait()
			if err := end(); err != context.Canceled || !slices.Equal(events, []string{"/d"}) {
				t.Errorf("%q, %v", events, err)
			}
		}
		if st := c.Stats(); st != (xenstore.Stats{}) {
			t.Errorf("%+v", st)
		}
	})
}

// TestWatchRefusedIsForgotten says that nothing stays of a watch that was not
// granted.
func TestWatchRefusedIsForgotten(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Deny("/d", "EACCES")
		err := c.Watch(t.Context(), "/d", func(string) { t.Error("fired") })
		var oe *xenstore.OpError
		if !errors.As(err, &oe) {
			t.Fatal(err)
		}
		s.Send(15, 0, "/d\x001\x00")
		synctest.Wait()
		if st := c.Stats(); st.Stray != 1 {
			t.Errorf("%+v, want the event to be a stray", st)
		}
	})
}
