package guard

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// A fanEvent is one event of a fanotify group.
type fanEvent struct {
	mask uint64
	fd   int32 // of the file, for the reader to close; negative where there is none
	pid  int32 // of the process; 0 where our PID namespace does not have it
}

// parseFanotify reads the events that one read(2) of a group gave, each of which
// begins with struct fanotify_event_metadata (linux/fanotify.h), in the machine's
// byte order:
//
//	u32 event_len; u8 vers; u8 reserved; u16 metadata_len; u64 mask; s32 fd; s32 pid
//
// What it could read is returned beside an error.
func parseFanotify(b []byte) ([]fanEvent, error) {
	var out []fanEvent
	for len(b) >= unix.FAN_EVENT_METADATA_LEN {
		length := binary.NativeEndian.Uint32(b)
		out = append(out, fanEvent{
			mask: binary.NativeEndian.Uint64(b[8:]),
			fd:   int32(binary.NativeEndian.Uint32(b[16:])),
			pid:  int32(binary.NativeEndian.Uint32(b[20:])),
		})
		if length < unix.FAN_EVENT_METADATA_LEN || uint64(length) > uint64(len(b)) {
			return out, fmt.Errorf("read fanotify: an event of %d bytes", length)
		}
		b = b[length:]
	}
	if len(b) > 0 {
		return out, fmt.Errorf("read fanotify: %d bytes of an event", len(b))
	}
	return out, nil
}
