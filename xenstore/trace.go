package xenstore

import (
	"fmt"
	"io"
	"sync"
)

// A tracer writes one line per message. A nil tracer writes nothing.
type tracer struct {
	mu sync.Mutex // reader and writer of a Conn share the tracer
	w  io.Writer
}

// maxTraced is how many bytes of a payload a line shows.
const maxTraced = 128

// newTracer returns a tracer on w, nil if w is.
func newTracer(w io.Writer) *tracer {
	if w == nil {
		return nil
	}
	return &tracer{w: w}
}

// sent writes messages that appendMessage made.
func (t *tracer) sent(msgs []byte) {
	for t != nil && len(msgs) > 0 {
		h, err := parseHeader([headerSize]byte(msgs))
		if err != nil {
			return
		}
		end := headerSize + int(h.size)
		t.line('>', h, msgs[headerSize:end])
		msgs = msgs[end:]
	}
}

// line writes a message: its direction, '>' to the daemon or '<' from it, id,
// operation, and payload, quoted. What w says is ignored: a trace that cannot be
// written must not stop a scan.
func (t *tracer) line(direction rune, h header, body []byte) {
	if t == nil {
		return
	}
	more := ""
	if len(body) > maxTraced {
		body, more = body[:maxTraced], "..."
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "%c %d %v %q%s\n", direction, h.id, h.op, body, more)
}
