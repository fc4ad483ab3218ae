package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"imgward/guard"
	"imgward/imageops"
)

// A stoppedError is how a write ended that had begun, and what it had written.
type stoppedError struct {
	error
	path    string
	written []imageops.Extent // all that may have changed
}

func (e *stoppedError) Unwrap() error { return e.error }

// stopped tells of err, with which the write to path ended, what had been written.
func (o *outcome) stopped(err error, path string) error {
	var incomplete *guard.IncompleteError
	var broken *guard.BrokenError
	if !errors.As(err, &incomplete) && !errors.As(err, &broken) || len(o.report.Ranges) == 0 {
		return err
	}
	return &stoppedError{err, path, o.report.Ranges}
}

type rangeJSON struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

type brokenJSON struct {
	findingJSON
	At string `json:"at"` // when it was noticed
}

// manyRanges is how many ranges are told one by one to a person.
const manyRanges = 8

// say says what a person at a terminal wants to know now.
func (e *stoppedError) say(u *ui) {
	var broken *guard.BrokenError
	if errors.As(e.error, &broken) {
		u.remark("  seen     %s", printable(broken.Finding.Source))
	}
	var total int64
	var rs []string
	for i, r := range e.written {
		total += r.Len
		switch {
		case i < manyRanges:
			rs = append(rs, fmt.Sprintf("%d to %d", r.Off, r.End()-1))
		case i == manyRanges:
			rs = append(rs, fmt.Sprintf("%d ranges more, which --json lists", len(e.written)-i))
		}
	}
	u.remark("  written  bytes %s: %s of what was there before, or a part of them", strings.Join(rs, ", "), guard.Bytes(total))
}

// hints say what to do now.
func (e *stoppedError) hints() []string {
	var hints []string
	var broken *guard.BrokenError
	if errors.As(e.error, &broken) && broken.Finding.Remedy != "" {
		hints = append(hints, broken.Finding.Remedy)
	}
	var incomplete *guard.IncompleteError
	if errors.As(e.error, &incomplete) {
		hints = append(hints,
			fmt.Sprintf("start nothing on %s: when nobody uses it, overwrite it again, with the token that \"imgward check\" prints for it", printable(e.path)))
	}
	return hints
}

func (e *stoppedError) object(f *failure) {
	for _, r := range e.written {
		f.Written = append(f.Written, rangeJSON{r.Off, r.Len})
	}
	var broken *guard.BrokenError
	if errors.As(e.error, &broken) {
		f.Broken = &brokenJSON{findingObject(broken.Finding, "breaks the hold"), broken.At.UTC().Format(time.RFC3339Nano)}
	}
}
