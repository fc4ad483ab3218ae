package blockio

import "fmt"

// An OpError says what failed, on what, and where.
type OpError struct {
	Op   string // read, write, zero, sync, ...
	Name string // the name the file was opened by
	Off  int64  // byte offset of the failure; negative where there is none
	Err  error  // an errno, io.ErrUnexpectedEOF, errors.ErrUnsupported, ...
}

func (e *OpError) Error() string {
	if e.Off < 0 {
		return fmt.Sprintf("%s %q: %v", e.Op, e.Name, e.Err)
	}
	return fmt.Sprintf("%s %q at byte %d: %v", e.Op, e.Name, e.Off, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }
