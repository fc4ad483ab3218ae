package xenstore

import (
	"context"
	"strconv"
	"time"
)

const (
	// maxEvents is how many events wait for a slow consumer before they are
	// replaced by one that says "look at everything".
	maxEvents = 256
	// unwatchLimit bounds how long a Watch that ends waits for the daemon to
	// confirm it.
	unwatchLimit = time.Second
)

// A watch is the queue between the reader and one consumer.
type watch struct {
	events chan string
	lost   chan struct{} // one place: events did not fit
}

// Watch calls fire with the path of every node at or beneath path that is
// created, changed or removed, until ctx ends. It blocks, and fire is called from
// the caller's goroutine; fire may use the Conn.
//
// The first call comes with path itself, once the watch is in place: the daemon
// sends it for every new watch. A change after that call is not missed, but one
// change may be told more than once, changes may come without need, and when
// more than 256 events wait, they become one with path itself. The argument is
// what the daemon sent, unchecked.
//
// The special paths "@introduceDomain" and "@releaseDomain" tell of domains that
// come and go.
//
// Watch always returns an error: ctx.Err() once the watch is in place and ctx
// ends, otherwise an *OpError with the daemon's refusal or the cause of the
// connection's end. Before it returns it has the daemon remove the watch, for
// which it waits up to one second.
func (c *Conn) Watch(ctx context.Context, path string, fire func(path string)) error {
	if err := checkPath(path); err != nil {
		return failure(opWatch, path, err)
	}
	w := &watch{events: make(chan string, maxEvents), lost: make(chan struct{}, 1)}
	token := c.addWatch(w)
	defer c.removeWatch(path, token)

	r, err := c.roundTrip(ctx, opWatch, path, token)
	if err == nil {
		_, err = r.payload(opWatch)
	}
	if err != nil {
		return failure(opWatch, path, err)
	}
	for {
		event := path
		select {
		case <-w.lost: // before what is queued, which it covers
			w.drain()
		default:
			select {
			case event = <-w.events:
			case <-w.lost:
				w.drain()
			case <-ctx.Done():
			case <-c.dead:
				return failure(opWatch, path, c.cause)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fire(event)
	}
}

// addWatch gives w a token that no other watch of this connection has or had.
func (c *Conn) addWatch(w *watch) (token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastToken++
	token = strconv.FormatUint(c.lastToken, 10)
	c.watches[token] = w
	return token
}

// removeWatch tells the daemon to forget a watch, also one that it may not know,
// and then forgets it. A daemon that does not answer may send further events:
// they count as stray.
func (c *Conn) removeWatch(path, token string) {
	ctx, cancel := context.WithTimeout(context.Background(), unwatchLimit)
	defer cancel()
	c.roundTrip(ctx, opUnwatch, path, token)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watches, token)
}

// event queues a watch event, without ever waiting.
func (c *Conn) event(body []byte) {
	path, token, err := parseEvent(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watches[token]
	if err != nil || w == nil {
		c.stats.Stray++
		return
	}
	select {
	case w.events <- path:
		return
	default:
		c.stats.Overflow++
	}
	select {
	case w.lost <- struct{}{}:
	default:
	}
}

// drain empties the queue: the one call that is about to be made covers it.
func (w *watch) drain() {
	for {
		select {
		case <-w.events:
		default:
			return
		}
	}
}
