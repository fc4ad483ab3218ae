package xenstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// fill makes n children of path and returns their names. Ten of them take 100
// bytes in a listing.
func fill(s *xenstoretest.Server, path string, n int) []string {
	names := []string{}
	for i := range n {
		names = append(names, fmt.Sprintf("%09d", i))
		s.Set(path+"/"+names[i], "")
	}
	return names
}

func TestList(t *testing.T) {
	for _, oxenstored := range []bool{false, true} {
		// One message holds 409 names; a part, 408 or 409.
		for _, n := range []int{0, 1, 2, 408, 409, 410, 817, 818, 819, 5000} {
			t.Run(fmt.Sprintf("%d names oxenstored %v", n, oxenstored), func(t *testing.T) {
				converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
					s.Oxenstored(oxenstored)
					s.Set("/d", "value")
					want := fill(s, "/d", n)
					got, err := c.List(t.Context(), "/d")
					if err != nil || !slices.Equal(got, want) || got == nil {
						t.Errorf("%d names of %d, %v", len(got), n, err)
					}
				})
			})
		}
	}
}

// TestListBoundary says that no length of a directory is mishandled around the
// size of a message.
func TestListBoundary(t *testing.T) {
	for size := 4080; size <= 4100; size++ {
		converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
			want := []string{strings.Repeat("a", 2000), strings.Repeat("b", size-2000-2-2), "c"}
			for _, name := range want {
				s.Set("/d/"+name, "")
			}
			got, err := c.List(t.Context(), "/d")
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%d bytes: %d names, %v", size, len(got), err)
			}
		})
	}
}

func TestListAll(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		long := fill(s, "/long", 1000)
		s.Set("/empty", "")
		s.Set("/two/a", "")
		s.Set("/two/b", "")
		s.Set("/secret/a", "")
		s.Deny("/secret", "EACCES")
		paths := []string{"/empty", "/long", "/two", "/absent", "/secret", "/long", "//", "/two"}
		got, err := c.ListAll(t.Context(), paths)
		if err != nil || len(got) != len(paths) {
			t.Fatalf("%d listings, %v", len(got), err)
		}
		two := []string{"a", "b"}
		for i, want := range []struct {
			names []string
			err   error
		}{
			{[]string{}, nil}, {long, nil}, {two, nil}, {nil, syscall.ENOENT}, {nil, syscall.EACCES}, {long, nil}, {nil, syscall.EINVAL}, {two, nil},
		} {
			if g := got[i]; g.Path != paths[i] || !slices.Equal(g.Names, want.names) || (g.Names == nil) != (want.err != nil) || !errors.Is(g.Err, want.err) {
				t.Errorf("%s: %d names, %v", paths[i], len(g.Names), g.Err)
			}
		}
	})
}

// TestListOfAChangingDirectory says that a list is one that the directory had at
// some moment, however it changes between two parts.
func TestListOfAChangingDirectory(t *testing.T) {
	for _, changes := range []int{1, 5, 10, 11} {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
				want := fill(s, "/d", 1000)
				parts, left := 0, changes
				s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
					if r.Op != "DIRECTORY_PART" {
						return xenstoretest.Reply{}
					}
					// Before every second part, so that the first of each pair is good.
					if parts++; parts%2 == 0 && left > 0 {
						left--
						s.Remove("/d/" + want[0])
						want = want[1:]
					}
					return xenstoretest.Reply{}
				})
				got, err := c.List(t.Context(), "/d")
				if changes > 10 {
					if !errors.Is(err, syscall.EAGAIN) || got != nil {
						t.Errorf("%d names, %v; want EAGAIN", len(got), err)
					}
					return
				}
				if err != nil || !slices.Equal(got, want) || left > 0 {
					t.Errorf("%d names, want %d, %v; %d changes were not made", len(got), len(want), err, left)
				}
			})
		})
	}
}

// TestListGoneBetweenParts says that a directory that is removed while it is
// read is not a short one.
func TestListGoneBetweenParts(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		fill(s, "/d", 1000)
		parts := 0
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "DIRECTORY_PART" {
				if parts++; parts == 2 {
					s.Remove("/d")
				}
			}
			return xenstoretest.Reply{}
		})
		if got, err := c.List(t.Context(), "/d"); !errors.Is(err, syscall.ENOENT) || got != nil {
			t.Errorf("%d names, %v", len(got), err)
		}
	})
}

// TestListOnOxenstoredsRing is the case that has no answer: E2BIG, and no
// DIRECTORY_PART. It must be an error, not an empty directory.
func TestListOnOxenstoredsRing(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		fill(s, "/d", 10)
		s.Oxenstored(true)
		s.Deny("/d", "E2BIG")
		got, err := c.List(t.Context(), "/d")
		if !errors.Is(err, syscall.ENOSYS) || got != nil {
			t.Errorf("%d names, %v", len(got), err)
		}
	})
}

// TestMalformedListings says that no malformed reply passes for a shorter list.
func TestMalformedListings(t *testing.T) {
	for _, replies := range [][]string{
		{"a\x00b"}, {"\x00"}, {"a\x00\x00"},
		{"", "7\x00"}, {"", "7"}, {"", "7\x00a"}, {"", "7\x00a\x00", "7\x00"}, {"", "7\x00a\x00\x00\x00"},
	} {
		playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
			go func() {
				for i, body := range replies {
					op, id, _ := d.take()
					if i == 0 && body == "" {
						d.reply(16, id, "E2BIG\x00")
						continue
					}
					d.reply(op, id, body)
				}
			}()
			names, err := c.List(t.Context(), "/d")
			if err == nil || names != nil || !strings.Contains(err.Error(), "malformed reply") {
				t.Errorf("%q: %q, %v", replies, names, err)
			}
		})
	}
}

// TestEndlessListing says that a daemon that never ends a directory does not fill
// the memory.
func TestEndlessListing(t *testing.T) {
	playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
		page := "7\x00" + strings.Repeat(strings.Repeat("a", 1023)+"\x00", 1000)
		go func() {
			_, id, _ := d.take()
			d.reply(16, id, "E2BIG\x00")
			for range 17 { // the last one exceeds 16 MiB
				op, id, _ := d.take()
				d.reply(op, id, page)
			}
		}()
		if names, err := c.List(t.Context(), "/d"); !errors.Is(err, syscall.E2BIG) || names != nil {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
}
