package hostfs

import (
	"cmp"
	"errors"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotCaptured is the answer of a captured or in-memory [Root] that neither
// knows the name asked for nor knows that it does not exist. It is no errno, so
// it never passes for "does not exist".
var ErrNotCaptured = errors.New("not captured")

// An Error is a question about a host that was not answered. Err is a
// [syscall.Errno], so that errors.Is(err, fs.ErrNotExist) and the like work, or
// [ErrNotCaptured], or what ended the context of an [Root.Ask].
type Error struct {
	Op   string // "read", "readdir", "readlink", "stat", "open", "content", "ask lease"
	Name string // as it was asked for
	Err  error
}

func (e *Error) Error() string { return e.Op + " " + strconv.Quote(e.Name) + ": " + e.Err.Error() }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// wrap makes an *Error of a failure to answer op on name, and nil of nil.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Name: name, Err: err}
}

// maxErrno is above every errno that Linux gives to user space (the last is
// EHWPOISON, 133).
const maxErrno = 134

// parseErrno reads an errno's name as errno(3) spells it.
func parseErrno(name string) (syscall.Errno, bool) {
	if name == "EOPNOTSUPP" { // the same number as ENOTSUP, under which x/sys knows it
		return unix.EOPNOTSUPP, true
	}
	for n := syscall.Errno(1); n < maxErrno; n++ {
		if name != "" && unix.ErrnoName(n) == name {
			return n, true
		}
	}
	return 0, false
}

// errnoName is what parseErrno reads as errno. One that has no name, which a
// driver may give, is an EIO.
func errnoName(errno syscall.Errno) string { return cmp.Or(unix.ErrnoName(errno), "EIO") }
