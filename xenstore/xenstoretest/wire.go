package xenstoretest

import (
	"encoding/binary"
	"errors"
	"io"
)

// Message types, from xs_wire.h.
const (
	opDirectory     = 1
	opRead          = 2
	opWatch         = 4
	opUnwatch       = 5
	opWrite         = 11
	opRemove        = 13
	opEvent         = 15
	opError         = 16
	opDirectoryPart = 22
)

// opNames are the names of the requests that a Server knows.
var opNames = map[uint32]string{
	opDirectory:     "DIRECTORY",
	opRead:          "READ",
	opWatch:         "WATCH",
	opUnwatch:       "UNWATCH",
	opWrite:         "WRITE",
	opRemove:        "RM",
	opDirectoryPart: "DIRECTORY_PART",
}

// maxPayload is what a daemon takes, and sends but for oxenstored's long
// directories, in bytes.
const maxPayload = 4096

// headerSize is the length of struct xsd_sockmsg.
const headerSize = 16

// A message is a header and its payload.
type message struct {
	op, id, tx uint32
	body       string
	cut        bool // only half of the payload is to be sent
}

// encode returns the bytes of m.
func (m message) encode() []byte {
	b := make([]byte, headerSize, headerSize+len(m.body))
	for i, w := range []uint32{m.op, m.id, m.tx, uint32(len(m.body))} {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return append(b, m.body...)
}

// receive reads a request. One that is too long is an error, for which a daemon
// closes the connection.
func receive(r io.Reader) (message, error) {
	var h [4]uint32
	if err := binary.Read(r, binary.NativeEndian, &h); err != nil {
		return message{}, err
	}
	if h[3] > maxPayload {
		return message{}, errors.New("oversize request")
	}
	body := make([]byte, h[3])
	_, err := io.ReadFull(r, body)
	return message{op: h[0], id: h[1], tx: h[2], body: string(body)}, err
}
