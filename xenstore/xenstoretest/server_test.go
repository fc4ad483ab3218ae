package xenstoretest_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"imgward/xenstore/xenstoretest"
)

// A wire is a client that knows no more than the protocol's layout.
type wire struct {
	t    *testing.T
	conn io.ReadWriteCloser
	next uint32
}

// send sends a request and returns its id.
func (w *wire) send(op uint32, payload string) uint32 {
	w.t.Helper()
	w.next++
	var b []byte
	for _, word := range []uint32{op, w.next, 0, uint32(len(payload))} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	if _, err := w.conn.Write(append(b, payload...)); err != nil {
		w.t.Fatal(err)
	}
	return w.next
}

// recv returns the next message as "op id payload".
func (w *wire) recv() string {
	w.t.Helper()
	var h [4]uint32
	if err := binary.Read(w.conn, binary.NativeEndian, &h); err != nil {
		w.t.Fatal(err)
	}
	body := make([]byte, h[3])
	if _, err := io.ReadFull(w.conn, body); err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%d %d %q", h[0], h[1], body)
}

// want sends a request and checks the message that follows.
func (w *wire) want(op uint32, payload, reply string) {
	w.t.Helper()
	w.send(op, payload)
	if got := w.recv(); got != reply {
		w.t.Errorf("op %d %q: got %s, want %s", op, payload, got, reply)
	}
}

// talk runs a conversation with a new server. Whatever is left of either side
// when f returns fails the test.
func talk(t *testing.T, f func(s *xenstoretest.Server, w *wire)) {
	synctest.Test(t, func(t *testing.T) {
		s := xenstoretest.NewServer()
		w := &wire{t: t, conn: s.Pipe()}
		defer s.Close()
		defer w.conn.Close()
		f(s, w)
	})
}

// TestAnswers holds the server to what the C daemon of Xen 4.17 answered to the
// same requests.
func TestAnswers(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/local/domain/7/name", "web01")
		s.Set("/local/domain/7/empty", "")
		w.want(2, "/local/domain/7/name\x00", `2 1 "web01"`)
		w.want(2, "/local/domain/7/empty\x00", `2 2 ""`)
		w.want(2, "/local/domain/8\x00", `16 3 "ENOENT\x00"`)
		w.want(2, "/local/domain/7/\x00", `16 4 "EINVAL\x00"`)
		w.want(2, "\x00", `16 5 "EINVAL\x00"`)
		w.want(2, "/nul", `16 6 "EINVAL\x00"`)
		w.want(1, "/local/domain/7\x00", `1 7 "name\x00empty\x00"`)
		w.want(1, "/local/domain/7/name\x00", `1 8 ""`)
		w.want(1, "/\x00", `1 9 "local\x00"`)
		w.want(99, "", `16 10 "ENOSYS\x00"`)
		w.want(4, "/local/domain/7\x00t\x00", `4 11 "OK\x00"`)
		if got := w.recv(); got != `15 0 "/local/domain/7\x00t\x00"` {
			t.Errorf("first event: %s", got)
		}
		w.want(4, "/local/domain/7\x00t\x00", `16 12 "EEXIST\x00"`)
		s.Set("/local/domain/7/state", "4")
		if got := w.recv(); got != `15 0 "/local/domain/7/state\x00t\x00"` {
			t.Errorf("event: %s", got)
		}
		w.want(5, "/local/domain/7\x00t\x00", `5 13 "OK\x00"`)
		w.want(5, "/local/domain/7\x00t\x00", `16 14 "ENOENT\x00"`)
		for _, op := range []uint32{0, 3, 6, 7, 8, 9, 10, 12, 14, 17, 18, 19, 21} {
			w.want(op, "/local/domain/7/name\x00x", fmt.Sprintf(`16 %d "ENOSYS\x00"`, w.next+1))
		}
		w.want(2, "/local/domain/7/name\x00", fmt.Sprintf(`2 %d "web01"`, w.next+1))
	})
}

// TestChanges holds WRITE and RM to the C daemon's answers.
func TestChanges(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/local/domain/0/name", "Domain-0")
		w.want(11, "backend/vbd/9/1/mode\x00w", `11 1 "OK\x00"`)
		w.want(2, "/local/domain/0/backend/vbd/9/1/mode\x00", `2 2 "w"`)
		w.want(1, "backend/vbd/9\x00", `1 3 "1\x00"`)
		w.want(11, "/a\x00w\x00x\x00", `11 4 "OK\x00"`)
		w.want(2, "/a\x00", `2 5 "w\x00x\x00"`)
		w.want(11, "/a\x00", `11 6 "OK\x00"`)
		w.want(2, "/a\x00", `2 7 ""`)
		w.want(11, "/a", `16 8 "EINVAL\x00"`)
		w.want(13, "backend/vbd/9\x00", `13 9 "OK\x00"`)
		w.want(2, "backend/vbd/9/1/mode\x00", `16 10 "ENOENT\x00"`)
		w.want(13, "backend/vbd/9\x00", `13 11 "OK\x00"`)
		w.want(13, "backend/vbd/9/1\x00", `16 12 "ENOENT\x00"`)
		w.want(13, "/\x00", `16 13 "EINVAL\x00"`)
		s.Deny("/a", "EACCES")
		w.want(11, "/a\x00x", `16 14 "EACCES\x00"`)
		w.want(13, "/a\x00", `16 15 "EACCES\x00"`)
	})
}

func TestDirectoryParts(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/d/name", "")
		s.Set("/d/empty", "")
		w.send(22, "/d\x000\x00")
		first := w.recv()
		gen, _, _ := strings.Cut(strings.TrimPrefix(first, `22 1 "`), `\`)
		if first != `22 1 "`+gen+`\x00name\x00empty\x00\x00"` || gen == "" {
			t.Errorf("first part: %s", first)
		}
		w.want(22, "/d\x005\x00", `22 2 "`+gen+`\x00empty\x00\x00"`)
		w.want(22, "/d\x004000\x00", `22 3 "`+gen+`\x00\x00"`)
		w.want(22, "/d\x00x\x00", `16 4 "EINVAL\x00"`)
		w.want(22, "/d\x00", `16 5 "EINVAL\x00"`)
		// A directory is too long for one message from 4097 bytes on.
		for _, n := range []int{4095, 4096, 4097} {
			s.Remove("/d")
			s.Set("/d/"+strings.Repeat("a", n-3), "")
			s.Set("/d/b", "")
			w.send(1, "/d\x00")
			if tooLong := strings.HasPrefix(w.recv(), "16 "); tooLong != (n > 4096) {
				t.Errorf("%d bytes: too long is %v", n, tooLong)
			}
		}
		s.Oxenstored(true)
		w.send(1, "/d\x00")
		if got := w.recv(); len(got) < 4097 {
			t.Errorf("oxenstored's oversize reply is %.30s", got)
		}
		w.want(22, "/d\x000\x00", fmt.Sprintf(`16 %d "ENOSYS\x00"`, w.next+1))
	})
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		watch  string
		change func(s *xenstoretest.Server)
		events []string
	}{
		{"/a", func(s *xenstoretest.Server) { s.Set("/a", "") }, []string{"/a"}},
		{"/a", func(s *xenstoretest.Server) { s.Set("/a/b/c", "") }, []string{"/a/b/c"}},
		{"/", func(s *xenstoretest.Server) { s.Set("/a/b/c", "") }, []string{"/a/b/c"}},
		{"/a", func(s *xenstoretest.Server) { s.Set("/ab", "") }, nil},
		{"/a/b", func(s *xenstoretest.Server) { s.Set("/a", "") }, nil},
		{"/x", func(s *xenstoretest.Server) { s.Remove("/x/y/z") }, []string{"/x/y/z"}},
		{"/x/y/z", func(s *xenstoretest.Server) { s.Remove("/x") }, []string{"/x/y/z"}},
		{"/x/y", func(s *xenstoretest.Server) { s.Remove("/nothing") }, nil},
		{"backend", func(s *xenstoretest.Server) { s.Set("/local/domain/0/backend/vbd", "") }, []string{"backend/vbd"}},
		{"@introduceDomain", func(s *xenstoretest.Server) { s.Fire("@introduceDomain") }, []string{"@introduceDomain"}},
		{"/a", func(s *xenstoretest.Server) { s.Fire("@introduceDomain") }, nil},
		{"/a", func(s *xenstoretest.Server) { s.Fire("/a/q"); s.Fire("/a/q") }, []string{"/a/q", "/a/q"}},
	} {
		talk(t, func(s *xenstoretest.Server, w *wire) {
			s.Set("/x/y/z", "")
			w.want(4, c.watch+"\x00t\x00", `4 1 "OK\x00"`)
			for _, want := range append([]string{c.watch}, c.events...) {
				if got := w.recv(); got != fmt.Sprintf("15 0 %q", want+"\x00t\x00") {
					t.Errorf("watch %s: got %s, want %s", c.watch, got, want)
				}
				if want == c.watch && s.Watches() == 1 && c.change != nil {
					c.change(s)
					c.change = nil
				}
			}
			// The next message is no further event.
			w.want(5, c.watch+"\x00t\x00", `5 2 "OK\x00"`)
			if n := s.Watches(); n != 0 {
				t.Errorf("%d watches are left", n)
			}
		})
	}
}

func TestMisbehaviour(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/a", "1")
		s.Deny("/a", "EACCES")
		w.want(2, "/a\x00", `16 1 "EACCES\x00"`)
		s.Deny("/a", "")
		replies := map[int]xenstoretest.Reply{2: {Error: "EQUOTA"}, 3: {Drop: true}, 5: {Late: 2}, 8: {Cut: true}}
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			s.Set("/a", fmt.Sprintf("value of %s %s %d", r.Op, r.Path, r.N))
			return replies[r.N]
		})
		w.want(2, "/a\x00", `16 2 "EQUOTA\x00"`)
		w.send(2, "/a\x00")
		w.want(2, "/a\x00", `2 4 "value of READ /a 4"`)
		w.send(2, "/a\x00")
		w.want(2, "/a\x00", `2 6 "value of READ /a 6"`)
		w.want(2, "/a\x00", `2 7 "value of READ /a 7"`)
		if got := w.recv(); got != `2 5 "value of READ /a 5"` {
			t.Errorf("held answer: %s", got)
		}
		s.Send(77, 5, "\x00raw")
		if got := w.recv(); got != `77 5 "\x00raw"` {
			t.Errorf("message nobody asked for: %s", got)
		}
		w.send(2, "/a\x00")
		rest, err := io.ReadAll(w.conn)
		if want := 16 + len("value of READ /a 8")/2; len(rest) != want || err != nil {
			t.Errorf("cut after %d bytes, want %d (%v)", len(rest), want, err)
		}
	})
}

func TestSuspend(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/a", "1")
		w.want(4, "/a\x00t\x00", `4 1 "OK\x00"`)
		w.recv()
		s.Suspend()
		s.Set("/a", "2")
		w.send(2, "/a\x00")
		got := make(chan string)
		go func() {
			got <- w.recv()
			got <- w.recv()
		}()
		synctest.Wait()
		select {
		case m := <-got:
			t.Errorf("a suspended server sent %s", m)
		default:
		}
		s.Resume()
		if m := <-got; m != `15 0 "/a\x00t\x00"` {
			t.Errorf("first after Resume: %s", m)
		}
		if m := <-got; m != `2 2 "2"` {
			t.Errorf("second after Resume: %s", m)
		}
		s.Suspend() // Close must end a suspended server too
	})
}

func TestListen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	s := xenstoretest.NewServer()
	if err := s.Listen(socket); err != nil {
		t.Fatal(err)
	}
	s.Set("/a", "1")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := &wire{t: t, conn: conn}
	w.want(2, "/a\x00", `2 1 "1"`)
	if err := s.Listen(filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("listening in a directory that is not there succeeded")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after Close a client reads: %v", err)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := s.Listen(socket); err == nil {
		t.Error("a closed server listens")
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := s.Pipe().Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a pipe to a closed server reads: %v", err)
	}
}

func TestOversizeRequestEndsTheConnection(t *testing.T) {
	talk(t, func(s *xenstoretest.Server, w *wire) {
		s.Set("/a", "1")
		go func() {
			b := binary.NativeEndian.AppendUint32(nil, 2)
			b = append(b, make([]byte, 8)...)
			w.conn.Write(binary.NativeEndian.AppendUint32(b, 4097))
		}()
		if rest, err := io.ReadAll(w.conn); len(rest) > 0 || err != nil {
			t.Errorf("got %d bytes, %v", len(rest), err)
		}
	})
}
