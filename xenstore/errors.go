package xenstore

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// An OpError says what could not be done with which path.
type OpError struct {
	Op   string // "dial", "read", "list", "list-part", "watch", "write", "rm"
	Path string // of the node; for "dial" of the socket or device
	// Err wraps a syscall.Errno if the daemon answered with one, or Dial met one, so
	// that errors.Is(err, fs.ErrNotExist) and the like work; an EINVAL for a path
	// that cannot be; the context's error; context.DeadlineExceeded when the time
	// limit is over; net.ErrClosed after Close; io.EOF or io.ErrUnexpectedEOF if the
	// daemon closed the connection. It never is an errno of a connection that failed.
	Err error
}

// Error formats as: op "path": reason.
func (e *OpError) Error() string { return fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err) }

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }

// failure returns err as an *OpError, nil if err is.
func failure(o op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: o.String(), Path: path, Err: err}
}

// malformed marks err as one about the shape of a reply, nil if err is.
func malformed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("malformed reply: %w", err)
}

// lost makes the cause of a connection's end from what the transport said. The
// ends of the stream can be told apart; an errno of the transport becomes text,
// because an ENOENT that is about the connection must not pass for one that the
// daemon gave about a path.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("connection lost: %w", err)
	}
	return fmt.Errorf("connection lost: %v", err)
}

// errnos are the names in xsd_errors of xs_wire.h.
var errnos = map[string]syscall.Errno{
	"E2BIG":     syscall.E2BIG,
	"EACCES":    syscall.EACCES,
	"EAGAIN":    syscall.EAGAIN,
	"EBUSY":     syscall.EBUSY,
	"EEXIST":    syscall.EEXIST,
	"EINVAL":    syscall.EINVAL,
	"EIO":       syscall.EIO,
	"EISCONN":   syscall.EISCONN,
	"EISDIR":    syscall.EISDIR,
	"ENOENT":    syscall.ENOENT,
	"ENOMEM":    syscall.ENOMEM,
	"ENOSPC":    syscall.ENOSPC,
	"ENOSYS":    syscall.ENOSYS,
	"ENOTEMPTY": syscall.ENOTEMPTY,
	"EPERM":     syscall.EPERM,
	"EROFS":     syscall.EROFS,
}

// parseError decodes the payload of an ERROR message, the name of an errno and
// a NUL. A name outside xs_wire.h, as oxenstored's EQUOTA, becomes an error that
// keeps the name, quoted and cut to 64 bytes. The result is never nil.
func parseError(b []byte) error {
	name := strings.TrimSuffix(string(b[:min(len(b), 64)]), "\x00")
	if errno, ok := errnos[name]; ok {
		return errno
	}
	return fmt.Errorf("daemon error %q", name)
}
