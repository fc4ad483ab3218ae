package xenstoretest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strings"
	"sync"

	"imgward/xenstore/dump"
)

// A Server is a xenstore daemon in this process. It answers READ, DIRECTORY,
// DIRECTORY_PART, WATCH, UNWATCH, WRITE and RM, and every other request with
// ENOSYS. All methods may be called at any time by any goroutine.
type Server struct {
	tasks sync.WaitGroup // of all connections and listeners

	// mu guards what follows. It is not held while a hook runs or while anything
	// is sent or received.
	mu         sync.Mutex
	store      *store
	sessions   map[*session]bool
	listeners  []net.Listener
	closed     bool
	oxenstored bool
	hook       func(Request) Reply
	denied     map[string]string // path to errno name
	requests   int
	gate       chan struct{} // not nil while suspended; closed by Resume
}

// A Request is what a hook is shown of a client's request.
type Request struct {
	N    int    // counts the requests of all clients, from 1
	Op   string // "READ", "DIRECTORY", "DIRECTORY_PART", "WATCH", "UNWATCH", "WRITE", "RM"; "" if unknown
	Path string // as the client sent it
}

// A Reply says how a request is answered; the zero Reply is the usual answer.
// With Error or Drop the request has no effect.
type Reply struct {
	Error string // the name of an errno to answer with: "EACCES", "EQUOTA"
	Drop  bool   // no answer at all; later requests are answered
	Cut   bool   // half of the answer, and then the end of the connection
	// Late holds the answer back until that many others have been sent on the
	// connection, so that answers come out of order. It is never sent if they
	// never are.
	Late int
}

// NewServer returns a daemon whose store is empty. It behaves as the C daemon of
// Xen 4.17. It must be closed.
func NewServer() *Server {
	return &Server{
		store:    newStore(),
		sessions: make(map[*session]bool),
		denied:   make(map[string]string),
	}
}

// Load adds the nodes of a dump, as [dump.Parse] reads it. An unreadable node is one
// that answers EACCES.
func (s *Server) Load(r io.Reader) error {
	nodes, err := dump.Parse(r)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		s.Set(n.Path, n.Value)
		if n.Unreadable {
			s.Deny(n.Path, "EACCES")
		}
	}
	return nil
}

// Set writes a value, which may hold any bytes, makes the parents that are
// missing, and tells the watches. A name that is not absolute is taken from the
// root.
func (s *Server) Set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(path.Clean("/"+name), value)
}

// SetAll writes nodes beneath dir, each "name=value", as one transaction does: nobody
// sees some of them without the others, and the watches are told behind the last.
func (s *Server) SetAll(dir string, nodes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var written []string
	for _, n := range nodes {
		name, value, _ := strings.Cut(n, "=")
		name = path.Clean("/" + dir + "/" + name)
		s.store.set(name, value)
		written = append(written, name)
	}
	for _, name := range written {
		s.fire(name)
	}
}

// set is Set for an absolute path. s.mu is held.
func (s *Server) set(name, value string) {
	s.store.set(name, value)
	s.fire(name)
}

// Remove deletes a node and all beneath it, and tells the watches, also those of
// nodes that went with it.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(path.Clean("/" + name))
}

// remove is Remove for an absolute path. s.mu is held.
func (s *Server) remove(name string) {
	gone := s.store.remove(name)
	if len(gone) == 0 {
		return
	}
	s.fire(name)
	for _, g := range gone[1:] {
		for ses := range s.sessions {
			ses.fireExact(g)
		}
	}
}

// Fire tells the watches of a change at name that did not happen; name may be
// special, "@introduceDomain". Called often, it makes a storm.
func (s *Server) Fire(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fire(name)
}

// fire sends an event to each watch that name is at or beneath. s.mu is held.
func (s *Server) fire(name string) {
	for ses := range s.sessions {
		ses.fire(name)
	}
}

// Send sends a message of any kind to every client: replies that nobody asked
// for, events with a token that nobody has. The payload is sent as it is.
func (s *Server) Send(op, id uint32, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ses := range s.sessions {
		ses.queue(message{op: op, id: id, body: payload})
	}
}

// Deny makes every request about exactly this path, but for UNWATCH, fail
// with an errno's name, "EACCES" for instance; "" ends that.
func (s *Server) Deny(name, errno string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[path.Clean("/"+name)] = errno
}

// Oxenstored chooses what the daemon does with a directory of more than 4096
// bytes: true, it answers with one oversize message and does not know
// DIRECTORY_PART, as the OCaml daemon does; false, it answers DIRECTORY with
// E2BIG, as the C daemon does.
func (s *Server) Oxenstored(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oxenstored = on
}

// Hook has f called before each request is answered, one request of a connection
// at a time; f may use the Server, to change the store between two requests. A
// nil f ends that.
func (s *Server) Hook(f func(Request) Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Suspend stops the daemon as SIGSTOP does: connections stay, nothing is answered
// and soon nothing more is read.
func (s *Server) Suspend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate == nil {
		s.gate = make(chan struct{})
	}
}

// Resume ends Suspend.
func (s *Server) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// Watches returns how many watches the clients have.
func (s *Server) Watches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ses := range s.sessions {
		n += len(ses.watches)
	}
	return n
}

// Pipe connects a client and returns its end, which the caller must close. After
// Close it is a connection that has ended.
func (s *Server) Pipe() io.ReadWriteCloser {
	client, server := net.Pipe()
	s.serve(server)
	return client
}

// Listen serves clients at a UNIX socket, which it creates and Close removes.
func (s *Server) Listen(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errors.New("listen: server is closed"), l.Close())
	}
	s.listeners = append(s.listeners, l)
	s.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	})
	return nil
}

// Close ends the daemon as SIGKILL does, and returns when nothing of it is left.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.listeners = nil
	for ses := range s.sessions {
		ses.end()
	}
	s.mu.Unlock()
	s.tasks.Wait()
	return errors.Join(errs...)
}

// serve starts a session over rwc.
func (s *Server) serve(rwc io.ReadWriteCloser) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		rwc.Close()
		return
	}
	ses := newSession(s, rwc)
	s.sessions[ses] = true
	s.tasks.Go(ses.read)
	s.tasks.Go(ses.write)
}
