package xenstore

import (
	"context"
	"errors"
	"slices"
	"syscall"
)

// A Value is what ReadAll found at one path.
type Value struct {
	Path string
	Data []byte // exactly as stored, not nil if Err is; may be empty
	Err  error  // why there is no Data, an *OpError: fs.ErrNotExist, fs.ErrPermission, ...
}

// A Listing is what ListAll found beneath one path.
type Listing struct {
	Path  string
	Names []string // in the daemon's order; empty, not nil, if there are none
	Err   error    // why there are no Names, an *OpError
}

// Read returns the value at path, exactly as stored. A node without a value has
// an empty one. The error is an *OpError.
func (c *Conn) Read(ctx context.Context, path string) ([]byte, error) {
	vs, err := c.ReadAll(ctx, []string{path})
	if err != nil {
		return nil, err
	}
	return vs[0].Data, vs[0].Err
}

// List returns the names of path's children, in the daemon's order; the slice is
// empty, not nil, if there are none. A directory too long for one message is
// read in parts, from the start again if it changed meanwhile. The error is an
// *OpError.
func (c *Conn) List(ctx context.Context, path string) ([]string, error) {
	ls, err := c.ListAll(ctx, []string{path})
	if err != nil {
		return nil, err
	}
	return ls[0].Names, ls[0].Err
}

// ReadAll reads many paths, on a socket with up to 64 requests under way, and returns a
// Value for each, in the order of paths. The values are not a snapshot: each was
// true at its own moment of the call. The error, an *OpError, says that the scan
// could not be finished, because of ctx, the time limit or the connection; then
// there are no values.
func (c *Conn) ReadAll(ctx context.Context, paths []string) ([]Value, error) {
	vs := make([]Value, len(paths))
	err := c.each(ctx, opRead, paths, func(i int, body []byte, err error) {
		vs[i] = Value{Path: paths[i], Data: body, Err: failure(opRead, paths[i], err)}
	})
	if err != nil {
		return nil, err
	}
	return vs, nil
}

// ListAll lists many paths as ReadAll reads them. Directories too long for one
// message are read in parts afterwards, one after the other.
func (c *Conn) ListAll(ctx context.Context, paths []string) ([]Listing, error) {
	ls := make([]Listing, len(paths))
	var long []int
	err := c.each(ctx, opDirectory, paths, func(i int, body []byte, err error) {
		var names []string
		switch {
		case err == nil:
			names, err = parseNames(body)
			err = malformed(err)
		case errors.Is(err, syscall.E2BIG):
			long = append(long, i)
		}
		ls[i] = Listing{Path: paths[i], Names: names, Err: failure(opDirectory, paths[i], err)}
	})
	if err != nil {
		return nil, err
	}
	for _, i := range long {
		names, refused, err := c.listParts(ctx, paths[i])
		if err != nil {
			return nil, failure(opDirectoryPart, paths[i], err)
		}
		ls[i] = Listing{Path: paths[i], Names: names, Err: failure(opDirectoryPart, paths[i], refused)}
	}
	return ls, nil
}

// each makes a request of kind o for every path and calls got, once for each path
// and in the order of the replies, with the payload of the reply or the error that
// stands for it. A path that no daemon would take is not sent. The error that each
// returns ends all.
func (c *Conn) each(ctx context.Context, o op, paths []string, got func(i int, body []byte, err error)) error {
	p := c.patience(ctx)
	defer p.stop()
	replies := make(chan reply, maxInFlight)
	calls := make([]call, len(paths)) // those under way have an id
	defer func() {
		for i := range calls {
			if calls[i].id != 0 {
				c.forget(&calls[i])
			}
		}
	}()
	stop := func(err error) error {
		first := slices.IndexFunc(calls, func(cl call) bool { return cl.id != 0 })
		return failure(o, paths[max(0, first)], err)
	}
	var msgs []byte // for the writer
	for made, flying := 0, 0; ; {
		for room := c.room(flying, msgs); room > 0 && made < len(paths); made++ {
			if err := checkPath(paths[made]); err != nil {
				got(made, nil, err)
				continue
			}
			calls[made] = call{op: o, index: made, reply: replies}
			c.expect(&calls[made])
			var err error
			if msgs, err = appendMessage(msgs, header{op: o, id: calls[made].id}, paths[made]); err != nil {
				return stop(err)
			}
			flying, room = flying+1, room-1
		}
		if flying == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return stop(err)
		}
		r, replied, err := c.step(ctx, p, msgs, replies)
		switch {
		case err != nil:
			return stop(err)
		case !replied:
			msgs = nil
		default:
			calls[r.index].id = 0
			flying--
			body, err := r.payload(o)
			got(r.index, body, err)
		}
	}
}

// room is how many requests more to send in one go, when so many are under way
// and msgs wait for the writer: where the transport takes several at once, half of
// those that may be under way. The kernel's device is asked one thing after the
// other: many at once can hang it, and with it everybody who uses xenstore.
func (c *Conn) room(flying int, msgs []byte) int {
	switch {
	case len(msgs) > 0 || c.batch && flying > maxInFlight/2:
		return 0
	case c.batch:
		return maxInFlight - flying
	}
	return max(0, 1-flying)
}
