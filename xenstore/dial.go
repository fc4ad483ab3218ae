package xenstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultTimeout is the limit of a Config that sets none.
const DefaultTimeout = 5 * time.Second

// dialRetry is the pause before a daemon whose queue of connections is full is
// tried again.
const dialRetry = 20 * time.Millisecond

// A Config says how to reach the daemon. The zero Config is the usual way.
type Config struct {
	// Path is the socket or character device; "" means: the first of
	// $XENSTORED_PATH alone; $XENSTORED_RUNDIR/socket, or /run/xenstored/socket and
	// /var/run/xenstored/socket; /dev/xen/xenbus; /proc/xen/xenbus.
	Path string
	// Timeout is how long Dial and any request wait for a daemon that says
	// nothing, if their context has no deadline: the clients of a daemon that is
	// stopped, or of a device whose daemon is dead, would hang. Zero means
	// DefaultTimeout, less than zero no limit.
	Timeout time.Duration
	// Trace, if not nil, gets one line per message, one Write each, from the
	// goroutines that move the messages: it must not block.
	Trace io.Writer
}

// timeout returns the limit, which is negative if there is none.
func (c *Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

// Dial connects to the daemon; a nil cfg is the zero Config. It does not ask the
// daemon anything: one that is stopped shows at the first request.
//
// The order is that of libxenstore (xs_open in xenstore.h): the device is tried
// where there is no socket, as in a driver domain or beside a xenstore stub
// domain, and where nobody listens on it. The error is an *OpError. It is
// fs.ErrNotExist only if there is no socket and no device, that is, no xenstore;
// fs.ErrPermission if this process may not connect.
func Dial(ctx context.Context, cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	if _, ok := ctx.Deadline(); !ok && cfg.timeout() > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.timeout())
		defer cancel()
	}
	var failed error
	for _, path := range candidates(cfg.Path, os.Getenv) {
		rwc, err := open(ctx, path)
		if err == nil {
			return newConn(rwc, cfg), nil
		}
		// A door that is there and shut outranks those that are missing.
		if failed == nil || errors.Is(failed, fs.ErrNotExist) {
			failed = &OpError{Op: "dial", Path: path, Err: err}
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	return nil, failed
}

// candidates lists where the daemon may be, given Config.Path and the
// environment.
func candidates(path string, env func(string) string) []string {
	if path != "" {
		return []string{path}
	}
	if path := env("XENSTORED_PATH"); path != "" {
		return []string{path}
	}
	sockets := []string{"/run/xenstored/socket", "/var/run/xenstored/socket"}
	if dir := env("XENSTORED_RUNDIR"); dir != "" {
		sockets = []string{filepath.Join(dir, "socket")}
	}
	return append(sockets, "/dev/xen/xenbus", "/proc/xen/xenbus")
}

// open connects to the socket or opens the device at path.
func open(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, bare(err)
	case info.Mode()&fs.ModeSocket != 0:
		return connect(ctx, path)
	case info.Mode()&fs.ModeCharDevice != 0:
		return openDevice(path)
	}
	return nil, errors.New("neither a socket nor a character device")
}

// connect connects to a socket. Linux answers EAGAIN at once when the daemon's
// queue is full, as that of a stopped daemon is before long; connect then tries
// again until ctx ends.
func connect(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() == nil && !errors.Is(err, syscall.EAGAIN) {
			return nil, bare(err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("daemon accepts no connection: %w", ctx.Err())
		case <-time.After(dialRetry):
		}
	}
}

// openDevice opens the kernel's xenbus device. A device that cannot be polled is
// refused, because closing it would not end a read.
func openDevice(path string) (io.ReadWriteCloser, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, bare(err)
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("not a xenbus device: %w", bare(err))
	}
	return f, nil
}

// bare strips the operation and path that the standard library adds, for OpError
// names them.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
