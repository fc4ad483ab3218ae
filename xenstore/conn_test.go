package xenstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// converse runs f with a client and a server in a bubble of virtual time. A
// goroutine of either that is left when f returns fails the test.
func converse(t *testing.T, f func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := xenstoretest.NewServer()
		defer s.Close()
		c := xenstore.NewConn(s.Pipe())
		defer c.Close()
		f(t, s, c)
		if n := c.Pending(); n > 0 {
			t.Errorf("%d calls and watches are not forgotten", n)
		}
	})
}

// A fake is a daemon that a test plays by hand.
type fake struct {
	t    *testing.T
	conn net.Conn
}

// playDaemon runs f with a client whose daemon is the test.
func playDaemon(t *testing.T, f func(t *testing.T, d fake, c *xenstore.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		c := xenstore.NewConn(client)
		defer c.Close()
		f(t, fake{t, server}, c)
		if n := c.Pending(); n > 0 {
			t.Errorf("%d calls and watches are not forgotten", n)
		}
	})
}

// take returns the next request's operation, id and payload.
func (d fake) take() (op, id uint32, body string) {
	d.t.Helper()
	var h [4]uint32
	if err := binary.Read(d.conn, binary.NativeEndian, &h); err != nil {
		d.t.Error(err)
		return
	}
	b := make([]byte, h[3])
	if _, err := io.ReadFull(d.conn, b); err != nil {
		d.t.Error(err)
	}
	return h[0], h[1], string(b)
}

// send sends a message whose header says size.
func (d fake) send(op, id, size uint32, body string) {
	d.t.Helper()
	var b []byte
	for _, w := range []uint32{op, id, 0, size} {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	d.conn.Write(append(b, body...))
}

// reply sends a whole message.
func (d fake) reply(op, id uint32, body string) {
	d.t.Helper()
	d.send(op, id, uint32(len(body)), body)
}

func TestRead(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		for path, value := range map[string]string{
			"/local/domain/7/name": "web01",
			"/empty":               "",
			"/bytes":               "\x00\x01\n\r\x1b[2J\"\\\x7f\xff\x00",
			"/long":                strings.Repeat("x", 4096),
		} {
			s.Set(path, value)
			got, err := c.Read(t.Context(), path)
			if err != nil || string(got) != value || got == nil {
				t.Errorf("%s = %q, %v; want %q", path, got, err, value)
			}
		}
		s.Set("/local/domain/0/domid", "0")
		if got, err := c.Read(t.Context(), "domid"); string(got) != "0" || err != nil {
			t.Errorf("relative path: %q, %v", got, err)
		}
	})
}

// ask makes the request that op names.
func ask(ctx context.Context, c *xenstore.Conn, op, path string) error {
	var err error
	switch op {
	case "read":
		_, err = c.Read(ctx, path)
	case "list":
		_, err = c.List(ctx, path)
	case "watch":
		err = c.Watch(ctx, path, func(string) {})
	}
	return err
}

func TestRefusals(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Set("/secret/child", "1")
		s.Set("/quota", "1")
		s.Deny("/secret", "EACCES")
		s.Deny("/quota", "EQUOTA")
		for _, want := range []struct {
			op, path string
			is       error
			text     string
		}{
			{"read", "/absent", fs.ErrNotExist, `read "/absent": no such file or directory`},
			{"read", "/secret", fs.ErrPermission, `read "/secret": permission denied`},
			{"read", "/quota", nil, `read "/quota": daemon error "EQUOTA"`},
			{"read", "/a//b", syscall.EINVAL, `read "/a//b": empty name in path: invalid argument`},
			{"list", "/absent", fs.ErrNotExist, `list "/absent": no such file or directory`},
			{"list", "/secret", fs.ErrPermission, `list "/secret": permission denied`},
			{"list", "/a\x00b", syscall.EINVAL, `list "/a\x00b": byte 0x00 not allowed in a path: invalid argument`},
			{"watch", "/secret", fs.ErrPermission, `watch "/secret": permission denied`},
			{"watch", "", syscall.EINVAL, `watch "": empty path: invalid argument`},
		} {
			err := ask(t.Context(), c, want.op, want.path)
			var oe *xenstore.OpError
			if !errors.As(err, &oe) || oe.Op != want.op || oe.Path != want.path ||
				want.is != nil && !errors.Is(err, want.is) || err.Error() != want.text {
				t.Errorf("got %v, want %s", err, want.text)
			}
		}
		// The connection is none the worse for it.
		if _, err := c.Read(t.Context(), "/secret/child"); err != nil {
			t.Error(err)
		}
		if st := c.Stats(); st != (xenstore.Stats{}) {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestReadAll(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		for i := range 300 {
			s.Set(fmt.Sprintf("/d/%d", i), fmt.Sprint(i))
		}
		s.Deny("/d/5", "EACCES")
		for _, n := range []int{0, 1, 63, 64, 65, 127, 128, 129, 299} {
			paths := []string{}
			for i := range n {
				paths = append(paths, fmt.Sprintf("/d/%d", i))
			}
			if n > 10 {
				paths[3] = "/d/absent"
				paths[n-1] = "/not valid"
			}
			vs, err := c.ReadAll(t.Context(), paths)
			if err != nil || len(vs) != n {
				t.Fatalf("%d paths: %d values, %v", n, len(vs), err)
			}
			for i, v := range vs {
				var want error
				switch {
				case n > 10 && i == 3:
					want = fs.ErrNotExist
				case n > 10 && i == n-1:
					want = syscall.EINVAL
				case i == 5:
					want = fs.ErrPermission
				}
				if v.Path != paths[i] || !errors.Is(v.Err, want) || want == nil && string(v.Data) != fmt.Sprint(i) || want != nil && v.Data != nil {
					t.Errorf("%d paths: value %d is %+v, want error %v", n, i, v, want)
				}
			}
		}
	})
}

// TestInFlight says how many requests a daemon has to hold that answers none.
func TestInFlight(t *testing.T) {
	playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := c.ReadAll(ctx, slices.Repeat([]string{"/a"}, 1000))
			done <- err
		}()
		got := make(chan uint32, 1000)
		go func() {
			for {
				var h [4]uint32
				if err := binary.Read(d.conn, binary.NativeEndian, &h); err != nil {
					close(got)
					return
				}
				io.CopyN(io.Discard, d.conn, int64(h[3]))
				got <- h[1]
			}
		}()
		synctest.Wait()
		if len(got) != 64 {
			t.Errorf("%d requests in flight, want 64", len(got))
		}
		for range 32 {
			d.reply(2, <-got, "1")
		}
		synctest.Wait()
		if len(got) != 64 {
			t.Errorf("%d requests in flight after half of the replies, want 64", len(got))
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		d.conn.Close()
		for range got {
		}
	})
}

// The kernel's device is asked one thing after the other. With many at once it can
// hang, and with it everybody who uses xenstore through it.
func TestDeviceIsAskedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		c := xenstore.NewConn(struct{ io.ReadWriteCloser }{client})
		defer c.Close()
		d := fake{t, server}
		values := make(chan []xenstore.Value, 1)
		go func() {
			vs, err := c.ReadAll(t.Context(), []string{"/a", "/b", "/c"})
			if err != nil {
				t.Error(err)
			}
			values <- vs
		}()
		for _, want := range []string{"/a\x00", "/b\x00", "/c\x00"} {
			op, id, body := d.take()
			if body != want {
				t.Errorf("asked for %q, want %q", body, want)
			}
			if err := server.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := server.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes more while %q was not answered", n, want)
			}
			if err := server.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			d.reply(op, id, "value of "+body)
		}
		if vs := <-values; len(vs) != 3 || string(vs[2].Data) != "value of /c\x00" {
			t.Errorf("%v", vs)
		}
	})
}

func TestRepliesOutOfOrder(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		paths := []string{}
		for i := range 200 {
			paths = append(paths, fmt.Sprintf("/d/%d", i))
			s.Set(paths[i], fmt.Sprint(i))
		}
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.N%7 < 3 && r.N < 190 {
				return xenstoretest.Reply{Late: r.N%5 + 1}
			}
			return xenstoretest.Reply{}
		})
		vs, err := c.ReadAll(t.Context(), paths)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range vs {
			if string(v.Data) != fmt.Sprint(i) || v.Err != nil {
				t.Errorf("value %d is %+v", i, v)
			}
		}
	})
}

// TestStrays says that what nobody asked for is counted and disturbs nobody.
func TestStrays(t *testing.T) {
	converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
		s.Set("/a", "1")
		s.Send(2, 12345, "a reply nobody asked for")
		s.Send(77, 999, "an operation nobody knows")
		s.Send(4, 0, "OK\x00")
		s.Send(16, 0, "EINVAL\x00")
		s.Send(15, 0, "/a\x00no-such-token\x00")
		s.Send(15, 0, "no token")
		s.Send(15, 0, "")
		if v, err := c.Read(t.Context(), "/a"); string(v) != "1" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		if st := c.Stats(); st != (xenstore.Stats{Stray: 7}) {
			t.Errorf("%+v, want 7 strays", st)
		}
	})
}

// TestAnswerOfAnotherKind says that a value is never made of something else.
func TestAnswerOfAnotherKind(t *testing.T) {
	for _, op := range []uint32{0, 1, 4, 11, 22, 65535} {
		playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
			go func() {
				_, id, _ := d.take()
				d.reply(op, id, "web01\x00")
			}()
			v, err := c.Read(t.Context(), "/a")
			if err == nil || !strings.Contains(err.Error(), "malformed reply") {
				t.Errorf("op %d: %q, %v", op, v, err)
			}
		})
	}
}

// TestLateReply says that the reply to a request that was given up goes to
// nobody, in particular not to the next request.
func TestLateReply(t *testing.T) {
	playDaemon(t, func(t *testing.T, d fake, c *xenstore.Conn) {
		go func() {
			_, first, _ := d.take()
			_, second, _ := d.take()
			d.reply(2, first, "first")
			d.reply(2, second, "second")
			d.reply(2, second, "again")
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v, err := c.Read(ctx, "/a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%q, %v", v, err)
		}
		if v, err := c.Read(t.Context(), "/b"); string(v) != "second" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		synctest.Wait()
		if st := c.Stats(); st != (xenstore.Stats{Late: 2}) {
			t.Errorf("%+v, want two late replies", st)
		}
	})
}
