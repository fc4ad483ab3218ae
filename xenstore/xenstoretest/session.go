package xenstoretest

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A session is one client. Two goroutines serve it: read takes requests and
// queues answers, write sends them, so that no event waits for a slow client.
type session struct {
	server *Server
	rwc    io.ReadWriteCloser
	once   sync.Once
	done   chan struct{} // closed by end

	// The server's mu guards what follows.
	watches []watch
	out     []message     // to be sent
	held    []heldMessage // answers that others overtake
	more    chan struct{} // one place: out may have grown
}

// A watch is what a client asked to be told of.
type watch struct{ path, token string }

// A heldMessage goes out after so many other answers.
type heldMessage struct {
	message
	after int
}

// home is where relative paths begin for a client of the socket.
const home = "/local/domain/0"

// newSession returns a session that has not begun.
func newSession(s *Server, rwc io.ReadWriteCloser) *session {
	return &session{server: s, rwc: rwc, done: make(chan struct{}), more: make(chan struct{}, 1)}
}

// end closes the connection, once.
func (ses *session) end() {
	ses.once.Do(func() {
		close(ses.done)
		ses.rwc.Close()
	})
}

// running waits while the server is suspended; false means that the session has
// ended.
func (ses *session) running() bool {
	for {
		ses.server.mu.Lock()
		gate := ses.server.gate
		ses.server.mu.Unlock()
		if gate == nil {
			return true
		}
		select {
		case <-gate:
		case <-ses.done:
			return false
		}
	}
}

// read takes requests until the connection ends.
func (ses *session) read() {
	defer func() {
		ses.end()
		ses.server.mu.Lock()
		defer ses.server.mu.Unlock()
		delete(ses.server.sessions, ses)
	}()
	for {
		m, err := receive(ses.rwc)
		if err != nil || !ses.running() {
			return
		}
		ses.take(m)
	}
}

// take handles one request.
func (ses *session) take(m message) {
	s := ses.server
	args := strings.Split(m.body, "\x00")
	s.mu.Lock()
	s.requests++
	req := Request{N: s.requests, Op: opNames[m.op], Path: args[0]}
	hook := s.hook
	s.mu.Unlock()
	var how Reply
	if hook != nil {
		how = hook(req)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if how.Drop {
		return
	}
	answer, errno := "", how.Error
	if errno == "" {
		answer, errno = ses.answer(m.op, args)
	}
	reply := message{op: m.op, id: m.id, tx: m.tx, body: answer}
	if errno != "" {
		reply.op, reply.body = opError, errno+"\x00"
	}
	switch {
	case how.Cut:
		reply.cut = true
		ses.queue(reply)
	case how.Late > 0:
		ses.held = append(ses.held, heldMessage{reply, how.Late})
	default:
		ses.queue(reply)
		ses.release()
	}
	if m.op == opWatch && errno == "" {
		ses.queue(event(args[0], args[1]))
	}
}

// release counts an answer that went out, and queues those that waited for it.
func (ses *session) release() {
	waiting := ses.held[:0]
	for _, h := range ses.held {
		h.after--
		if h.after > 0 {
			waiting = append(waiting, h)
		} else {
			ses.queue(h.message)
		}
	}
	ses.held = waiting
}

// answer returns the payload of the reply to a request, or the name of an errno.
// The server's mu is held.
func (ses *session) answer(op uint32, args []string) (body, errno string) {
	s := ses.server
	if opNames[op] == "" || op == opDirectoryPart && s.oxenstored {
		return "", "ENOSYS"
	}
	want := 3 // the path, one thing more, and what follows the last NUL
	if op == opRead || op == opDirectory || op == opWrite || op == opRemove {
		want = 2
	}
	if len(args) < want || !validPath(args[0]) {
		return "", "EINVAL"
	}
	path := absolute(args[0])
	if op == opUnwatch {
		return ses.unwatch(watch{args[0], args[1]})
	}
	if errno := s.denied[path]; errno != "" {
		return "", errno
	}
	if op == opWatch {
		return ses.watch(watch{args[0], args[1]})
	}
	n := s.store.nodes[path]
	switch op {
	case opWrite:
		// All that follows the first NUL is the value, others included.
		s.set(path, strings.Join(args[1:], "\x00"))
		return "OK\x00", ""
	case opRemove:
		return ses.remove(path)
	}
	if n == nil {
		return "", "ENOENT"
	}
	switch op {
	case opRead:
		return n.value, ""
	case opDirectory:
		names := n.names()
		if len(names) > maxPayload && !s.oxenstored {
			return "", "E2BIG"
		}
		return names, ""
	}
	offset, err := strconv.Atoi(args[1])
	if err != nil {
		return "", "EINVAL"
	}
	return n.part(offset), ""
}

// remove removes a node. One that is not there in a directory that is counts as
// removed, as with the C daemon.
func (ses *session) remove(path string) (body, errno string) {
	s := ses.server
	if path == "/" {
		return "", "EINVAL"
	}
	if parent, _ := split(path); s.store.nodes[path] == nil && s.store.nodes[parent] == nil {
		return "", "ENOENT"
	}
	s.remove(path)
	return "OK\x00", ""
}

// watch adds a watch.
func (ses *session) watch(w watch) (body, errno string) {
	if slices.Contains(ses.watches, w) {
		return "", "EEXIST"
	}
	ses.watches = append(ses.watches, w)
	return "OK\x00", ""
}

// unwatch removes a watch.
func (ses *session) unwatch(w watch) (body, errno string) {
	i := slices.Index(ses.watches, w)
	if i < 0 {
		return "", "ENOENT"
	}
	ses.watches = slices.Delete(ses.watches, i, i+1)
	return "OK\x00", ""
}

// fire tells the watches of a change at an absolute or special path; each is told
// in the form, relative or absolute, in which it was set.
func (ses *session) fire(changed string) {
	for _, w := range ses.watches {
		switch {
		case strings.HasPrefix(w.path, "@"):
			if w.path == changed {
				ses.queue(event(changed, w.token))
			}
		case !within(changed, absolute(w.path)):
		case w.path[0] == '/':
			ses.queue(event(changed, w.token))
		default:
			ses.queue(event(strings.TrimPrefix(changed, home+"/"), w.token))
		}
	}
}

// fireExact tells the watches set on exactly this path.
func (ses *session) fireExact(gone string) {
	for _, w := range ses.watches {
		if w.path[0] != '@' && absolute(w.path) == gone {
			ses.queue(event(w.path, w.token))
		}
	}
}

// absolute resolves a client's path.
func absolute(path string) string {
	if path[0] == '/' {
		return path
	}
	return home + "/" + path
}

// event encodes a watch event.
func event(path, token string) message {
	return message{op: opEvent, body: path + "\x00" + token + "\x00"}
}

// queue hands a message to write. The server's mu is held.
func (ses *session) queue(m message) {
	ses.out = append(ses.out, m)
	select {
	case ses.more <- struct{}{}:
	default:
	}
}

// write sends what is queued until the connection ends.
func (ses *session) write() {
	defer ses.end()
	for {
		select {
		case <-ses.more:
		case <-ses.done:
			return
		}
		ses.server.mu.Lock()
		out := ses.out
		ses.out = nil
		ses.server.mu.Unlock()
		for _, m := range out {
			if !ses.running() || !ses.send(m) {
				return
			}
		}
	}
}

// send sends one message, the header and the payload apart, as the C daemon does;
// false means that the connection is to end.
func (ses *session) send(m message) bool {
	b := m.encode()
	if m.cut {
		b = b[:headerSize+len(m.body)/2]
	}
	if _, err := ses.rwc.Write(b[:headerSize]); err != nil {
		return false
	}
	if len(b) > headerSize {
		if _, err := ses.rwc.Write(b[headerSize:]); err != nil {
			return false
		}
	}
	return !m.cut
}

// validPath applies the rules of xenstore.txt to an absolute or relative path.
func validPath(p string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@"
	limit := 2048
	if strings.HasPrefix(p, "/") {
		limit = 3072
	}
	if p == "/" {
		return true
	}
	return p != "" && len(p) <= limit && strings.IndexFunc(p, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) < 0 &&
		!strings.HasSuffix(p, "/") && !strings.Contains(p, "//")
}
