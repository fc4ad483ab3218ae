package xenstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxInFlight is how many requests of one ReadAll or ListAll are with the daemon
// at a time. It hides the round trip, and bounds what the daemon has to buffer.
const maxInFlight = 64

// A Conn is a connection to the daemon. Its methods may be called by any number
// of goroutines. Two goroutines of its own move the messages: one writes, and
// one reads and never waits for anybody but the daemon.
//
// A request ends with its reply, with its context, with the time limit of
// [Config], or with the connection, whichever is first. The connection survives
// the first three.
type Conn struct {
	rwc   io.ReadWriteCloser
	limit time.Duration
	trace *tracer

	batch bool // the transport takes several messages with one Write

	out  chan []byte   // whole messages, to the writer
	dead chan struct{} // closed when cause is set
	once sync.Once     // guards the death
	// cause is why the connection ended, never nil after dead is closed;
	// closeErr is what closing the transport said.
	cause    error
	closeErr error
	tasks    sync.WaitGroup // reader and writer

	// mu guards what follows. It is held for map operations only: never while
	// something is sent, received or called.
	mu        sync.Mutex
	lastID    uint32
	calls     map[uint32]*call
	lastToken uint64
	watches   map[string]*watch
	stats     Stats
}

// Stats counts what a Conn received and could not use. None of it is an error.
type Stats struct {
	Late     uint64 // replies to requests that had been given up
	Stray    uint64 // replies to requests never made, events nobody watches, malformed events
	Overflow uint64 // events that did not fit the queue of their watch
}

// A call is a request that waits for its reply.
type call struct {
	id    uint32
	op    op
	index int // among the calls that share a channel
	// reply has a place for each call that shares it, so that the reader never
	// blocks. Each call is answered at most once.
	reply chan reply
}

// A reply is the daemon's answer to a call.
type reply struct {
	op    op
	index int // the call's
	body  []byte
}

// NewConn returns a connection over a transport that is already open, and owns
// it from then on. Closing the transport must end a Read and a Write that are
// under way, as it does for sockets, pipes and the kernel's device. The time
// limit is [DefaultTimeout].
func NewConn(rwc io.ReadWriteCloser) *Conn { return newConn(rwc, &Config{}) }

// newConn starts the two goroutines of a connection.
func newConn(rwc io.ReadWriteCloser, cfg *Config) *Conn {
	c := &Conn{
		rwc:     rwc,
		limit:   cfg.timeout(),
		trace:   newTracer(cfg.Trace),
		out:     make(chan []byte),
		dead:    make(chan struct{}),
		calls:   make(map[uint32]*call),
		watches: make(map[string]*watch),
	}
	_, c.batch = rwc.(net.Conn)
	c.tasks.Go(c.receive)
	c.tasks.Go(c.transmit)
	return c
}

// Close ends the connection and returns when its goroutines have ended. Every
// request and every watch under way fails with net.ErrClosed. The error is the
// transport's, also if the connection had died before.
func (c *Conn) Close() error {
	c.die(net.ErrClosed)
	c.tasks.Wait()
	return c.closeErr
}

// Stats returns the counts so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// die ends the connection because of cause, once.
func (c *Conn) die(cause error) {
	c.once.Do(func() {
		c.cause = cause
		close(c.dead)
		c.closeErr = c.rwc.Close()
	})
}

// transmit passes messages to the transport. The kernel's device wants one Write
// for each.
func (c *Conn) transmit() {
	for {
		select {
		case msg := <-c.out:
			c.trace.sent(msg)
			if _, err := c.rwc.Write(msg); err != nil {
				c.die(lost(err))
				return
			}
		case <-c.dead:
			return
		}
	}
}

// receive hands messages to those who wait for them, until the stream ends.
func (c *Conn) receive() {
	r := bufio.NewReader(c.rwc)
	for {
		h, body, err := readMessage(r)
		if err != nil {
			c.die(lost(err))
			return
		}
		c.trace.line('<', h, body)
		if h.op == opEvent {
			c.event(body)
		} else {
			c.answer(h, body)
		}
	}
}

// answer hands a reply to its call. An acknowledgement of WATCH or UNWATCH with
// id 0 is made by the device of kernels before 4.11, which handle one request
// after the other: it belongs to the oldest call of its kind.
func (c *Conn) answer(h header, body []byte) {
	c.mu.Lock()
	cl := c.calls[h.id]
	if cl == nil && h.id == 0 && (h.op == opWatch || h.op == opUnwatch) {
		cl = c.oldest(h.op)
	}
	switch {
	case cl != nil:
		delete(c.calls, cl.id)
	case h.id != 0 && h.id <= c.lastID:
		c.stats.Late++
	default:
		c.stats.Stray++
	}
	c.mu.Unlock()
	if cl != nil {
		cl.reply <- reply{op: h.op, index: cl.index, body: body}
	}
}

// oldest returns the call of kind o with the smallest id, or nil. c.mu is held.
func (c *Conn) oldest(o op) *call {
	var found *call
	for _, cl := range c.calls {
		if cl.op == o && (found == nil || cl.id < found.id) {
			found = cl
		}
	}
	return found
}

// expect gives a call an id and waits for its reply from then on. Ids are never 0,
// which is that of events. A call has no id before.
func (c *Conn) expect(cl *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.lastID++
		if c.lastID != 0 && c.calls[c.lastID] == nil {
			break
		}
	}
	cl.id = c.lastID
	c.calls[cl.id] = cl
}

// forget gives up a call; its reply will count as late.
func (c *Conn) forget(cl *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, cl.id)
}

// start sends a request without waiting for the reply. Every call that it
// returns must be waited for or forgotten.
func (c *Conn) start(ctx context.Context, p *patience, o op, parts ...string) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cl := &call{op: o, reply: make(chan reply, 1)}
	c.expect(cl)
	msg, err := appendMessage(nil, header{op: o, id: cl.id}, parts...)
	if err == nil {
		_, _, err = c.step(ctx, p, msg, nil)
	}
	if err != nil {
		c.forget(cl)
		return nil, err
	}
	return cl, nil
}

// wait returns the reply to cl, or why there will be none. In both cases cl is
// done with.
func (c *Conn) wait(ctx context.Context, p *patience, cl *call) (reply, error) {
	r, _, err := c.step(ctx, p, nil, cl.reply)
	if err != nil {
		c.forget(cl)
	}
	return r, err
}

// step hands whole messages to the writer, if there are any, or takes the next
// reply to any of the calls that share a channel, whichever can be done first. The
// error is why neither will be.
func (c *Conn) step(ctx context.Context, p *patience, msgs []byte, replies <-chan reply) (r reply, replied bool, err error) {
	p.reset()
	out := c.out
	if len(msgs) == 0 {
		out = nil
	}
	select {
	case out <- msgs:
		return reply{}, false, nil
	case r := <-replies:
		return r, true, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.spent():
		err = p.err()
	case <-c.dead:
		err = c.cause
	}
	// What the reader handed over before it stopped still counts.
	select {
	case r := <-replies:
		return r, true, nil
	default:
		return reply{}, false, err
	}
}

// payload returns the payload of a reply to an operation of kind want, or the
// error that the daemon answered with.
func (r reply) payload(want op) ([]byte, error) {
	switch r.op {
	case want:
		return r.body, nil
	case opError:
		return nil, parseError(r.body)
	}
	return nil, malformed(fmt.Errorf("of kind %v", r.op))
}

// roundTrip makes one request and returns the reply, which may be an error, or
// why there is none.
func (c *Conn) roundTrip(ctx context.Context, o op, parts ...string) (reply, error) {
	p := c.patience(ctx)
	defer p.stop()
	cl, err := c.start(ctx, p, o, parts...)
	if err != nil {
		return reply{}, err
	}
	return c.wait(ctx, p, cl)
}
