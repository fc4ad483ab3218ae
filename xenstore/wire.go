package xenstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An op is a message type, enum xsd_sockmsg_type of xs_wire.h.
type op uint32

// The operations that read: what this package sends, and the two that only the
// daemon sends. Those that change the store are in claim.go.
const (
	opDirectory     op = 1
	opRead          op = 2
	opWatch         op = 4
	opUnwatch       op = 5
	opEvent         op = 15 // XS_WATCH_EVENT, from the daemon
	opError         op = 16 // from the daemon
	opDirectoryPart op = 22 // since Xen 4.9; unknown to oxenstored
)

// String returns the lower-case name used in errors and traces.
func (o op) String() string {
	switch o {
	case opDirectory:
		return "list"
	case opRead:
		return "read"
	case opWatch:
		return "watch"
	case opUnwatch:
		return "unwatch"
	case opEvent:
		return "event"
	case opError:
		return "error"
	case opDirectoryPart:
		return "list-part"
	}
	if name := o.change(); name != "" {
		return name
	}
	return fmt.Sprintf("operation %d", uint32(o))
}

// sendable reports whether a client of this package may send o.
func (o op) sendable() bool {
	switch o {
	case opDirectory, opRead, opWatch, opUnwatch, opDirectoryPart:
		return true
	}
	return o.change() != ""
}

const (
	headerSize = 16
	// maxSend is XENSTORE_PAYLOAD_MAX, in bytes. The daemon closes the
	// connection of a client that sends more.
	maxSend = 4096
	// maxReceive caps the payload of a message from the daemon, in bytes. It is
	// above the protocol's 4096 because oxenstored answers a long DIRECTORY on a
	// socket with one oversize message.
	maxReceive = 1 << 20
)

// A header is struct xsd_sockmsg: four 32-bit words in the host's byte order.
type header struct {
	op   op
	id   uint32 // req_id, chosen by the client and echoed
	tx   uint32 // tx_id, always 0 here
	size uint32 // bytes of payload
}

// appendMessage appends a request to b: the header and each part followed by a
// NUL, but for the value of a WRITE, which has none. The header's size is
// computed. It fails, with b unchanged, for an operation that this package does
// not send, for a change of anything but a claim, for a part that holds a NUL, and
// for a payload over 4096 bytes.
func appendMessage(b []byte, h header, parts ...string) ([]byte, error) {
	if !h.op.sendable() {
		return b, fmt.Errorf("%v is not sent by this client", h.op)
	}
	size := 0
	for _, p := range parts {
		if strings.IndexByte(p, 0) >= 0 {
			return b, fmt.Errorf("%q holds a NUL", p)
		}
		size += len(p) + 1
	}
	if len(parts) > 0 {
		if err := checkChange(h.op, parts[0]); err != nil {
			return b, err
		}
	}
	value := h.op.change() != "" && len(parts) == 2
	if value {
		size--
	}
	if size > maxSend {
		return b, fmt.Errorf("payload of %d bytes exceeds %d", size, maxSend)
	}
	for _, w := range [...]uint32{uint32(h.op), h.id, h.tx, uint32(size)} {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	for _, p := range parts {
		b = append(append(b, p...), 0)
	}
	if value {
		b = b[:len(b)-1]
	}
	return b, nil
}

// parseHeader decodes a header. It fails if the payload is over 1 MiB: such a
// length is a lost message boundary, not a message.
func parseHeader(b [headerSize]byte) (header, error) {
	h := header{
		op:   op(binary.NativeEndian.Uint32(b[0:])),
		id:   binary.NativeEndian.Uint32(b[4:]),
		tx:   binary.NativeEndian.Uint32(b[8:]),
		size: binary.NativeEndian.Uint32(b[12:]),
	}
	if h.size > maxReceive {
		return h, fmt.Errorf("payload of %d bytes exceeds %d", h.size, maxReceive)
	}
	return h, nil
}

// readMessage reads one message. The payload is the caller's. io.EOF means that
// the stream ended between two messages, io.ErrUnexpectedEOF within one.
func readMessage(r io.Reader) (header, []byte, error) {
	var raw [headerSize]byte
	if _, err := io.ReadFull(r, raw[:]); err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(raw)
	if err != nil {
		return h, nil, err
	}
	body := make([]byte, h.size)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	return h, body, nil
}

// parseNames decodes a list of NUL-terminated names. No bytes are an empty list;
// a missing NUL at the end is a cut reply and an error, as is an empty name.
func parseNames(b []byte) ([]string, error) {
	names := make([]string, 0, bytes.Count(b, []byte{0}))
	for len(b) > 0 {
		name, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			return nil, fmt.Errorf("name %q without its NUL", name)
		}
		if len(name) == 0 {
			return nil, errors.New("empty name")
		}
		names = append(names, string(name))
		b = rest
	}
	return names, nil
}

// A part is a reply to DIRECTORY_PART.
type part struct {
	generation string // changes whenever the directory does
	names      []byte // NUL-terminated, as in a reply to DIRECTORY
	last       bool
}

// parsePart decodes a reply to DIRECTORY_PART: the generation, NUL, names with
// their NULs, and one more NUL if the list ends here. A part that holds no name
// and does not end the list is an error, for a client would ask for it for ever.
func parsePart(b []byte) (part, error) {
	gen, rest, ok := bytes.Cut(b, []byte{0})
	if !ok || len(gen) == 0 {
		return part{}, errors.New("no generation count")
	}
	p := part{generation: string(gen), names: rest}
	if len(rest) == 1 && rest[0] == 0 || bytes.HasSuffix(rest, []byte{0, 0}) {
		p.names, p.last = rest[:len(rest)-1], true
	}
	if len(p.names) == 0 && !p.last {
		return part{}, errors.New("neither a name nor the end of the list")
	}
	if len(p.names) > 0 && p.names[len(p.names)-1] != 0 {
		return part{}, errors.New("last name without its NUL")
	}
	return p, nil
}

// parseEvent decodes the payload of a watch event, path NUL token NUL. The
// kernel's device adds nothing, later versions of the daemon may: what follows
// the token is ignored.
func parseEvent(b []byte) (path, token string, err error) {
	p, rest, ok := bytes.Cut(b, []byte{0})
	if !ok {
		return "", "", errors.New("event without a token")
	}
	t, _, ok := bytes.Cut(rest, []byte{0})
	if !ok {
		return "", "", errors.New("event token without its NUL")
	}
	return string(p), string(t), nil
}
