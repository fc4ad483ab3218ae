package ddcmd

import (
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// counts are what dd counts.
type counts struct {
	inFull, inPartial   int64 // blocks read
	outFull, outPartial int64 // blocks written
	written             int64 // bytes
	truncated           int64 // records, by conv=block
}

// A report says how far it is.
type report struct {
	w      io.Writer
	status Status
	start  time.Time
	next   time.Time // when progress is told again
	line   int       // the length of the line of progress that the cursor stands in
}

// stats prints all that is known.
func (r *report) stats(c *counts) {
	if r.status == StatusNone {
		return
	}
	r.endLine()
	s := fmt.Sprintf("%d+%d records in\n%d+%d records out\n", c.inFull, c.inPartial, c.outFull, c.outPartial)
	if c.truncated > 0 {
		s += fmt.Sprintf("%d truncated record%s\n", c.truncated, plural(c.truncated))
	}
	if r.status != StatusNoXfer {
		s += transferred(c.written, time.Since(r.start), false) + "\n"
	}
	io.WriteString(r.w, s)
}

// progress prints one line over the last one, once a second.
func (r *report) progress(c *counts) {
	if r.status != StatusProgress {
		return
	}
	now := time.Now()
	if now.Before(r.next) {
		return
	}
	r.next = r.next.Add(time.Second)
	s := transferred(c.written, now.Sub(r.start), true)
	fmt.Fprintf(r.w, "\r%-*s", r.line, s)
	r.line = len(s)
}

// endLine ends the line of progress.
func (r *report) endLine() {
	if r.line > 0 {
		io.WriteString(r.w, "\n")
		r.line = 0
	}
}

// transferred is the line about the bytes. In one about progress the seconds are
// whole.
func transferred(n int64, took time.Duration, whole bool) string {
	seconds := fmt.Sprintf("%s s", general(took.Seconds()))
	if whole {
		seconds = fmt.Sprintf("%.0f s", took.Seconds())
	}
	rate := "Infinity B"
	if took > 0 {
		rate = perSecond(n, took)
	}
	var sizes string
	if n >= 1000 {
		sizes = " (" + human(n, 1000) + ")"
	}
	if n >= 1024 {
		sizes = " (" + human(n, 1000) + ", " + human(n, 1024) + ")"
	}
	return fmt.Sprintf("%d byte%s%s copied, %s, %s/s", n, plural(n), sizes, seconds, rate)
}

func plural(n int64) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// general is the conversion %g of printf(3), whose exponents have two digits as
// Go's have, and whose precision is six.
func general(v float64) string { return fmt.Sprintf("%.6g", v) }

// human words a number of bytes in its largest unit: with one decimal below ten of
// them, to the nearest, and to the even one of two that are as near.
func human(n int64, base int64) string {
	unit, power := int64(1), 0
	for n/base >= unit {
		unit *= base
		power++
	}
	if power == 0 {
		return fmt.Sprintf("%d B", n)
	}
	tenths := nearest(n, 10, unit)
	if tenths < 100 {
		return fmt.Sprintf("%d.%d %s", tenths/10, tenths%10, prefix(power, base))
	}
	whole := nearest(n, 1, unit)
	if whole == base && power < len(letters) {
		return "1.0 " + prefix(power+1, base)
	}
	return fmt.Sprintf("%d %s", whole, prefix(power, base))
}

const letters = "kMGTPE"

func prefix(power int, base int64) string {
	letter := letters[power-1 : power]
	if base == 1024 {
		return strings.ToUpper(letter) + "iB"
	}
	return letter + "B"
}

// nearest is n times m by d, rounded to the nearest, half to even.
func nearest(n, m, d int64) int64 {
	var q, r big.Int
	q.QuoRem(new(big.Int).Mul(big.NewInt(n), big.NewInt(m)), big.NewInt(d), &r)
	v := q.Int64()
	switch r.Lsh(&r, 1).Cmp(big.NewInt(d)) {
	case 1:
		v++
	case 0:
		v += v & 1
	}
	return v
}

// perSecond words the rate of n bytes in a time, in kB or more, with one decimal
// below a hundred of them.
func perSecond(n int64, took time.Duration) string {
	v, power := float64(n)/took.Seconds()/1000, 1
	for v >= 1000 && power < len(letters) {
		v /= 1000
		power++
	}
	s := fmt.Sprintf("%.1f", v)
	if len(s) > len("99.9") {
		s = fmt.Sprintf("%.0f", v)
	}
	return s + " " + prefix(power, 1000)
}
