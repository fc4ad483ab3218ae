package ddcmd

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"syscall"
)

// An Error is about the operands.
type Error struct {
	Text string
	Help bool // it is worth pointing to --help
}

func (e *Error) Error() string { return e.Text }

// Parse reads dd's operands. The warnings come before the error, if there is one,
// which is an *Error.
func (l Locale) Parse(args []string) (p *Plan, warnings []string, err error) {
	o := &operands{Plan: Plan{MaxRecords: math.MaxInt64}, locale: l, count: math.MaxInt64}
	for _, arg := range args {
		if err := o.take(arg); err != nil {
			return nil, o.warnings, err
		}
	}
	if err := o.complete(); err != nil {
		return nil, o.warnings, err
	}
	return &o.Plan, o.warnings, nil
}

// operands is a plan in the making.
type operands struct {
	Plan
	locale   Locale
	warnings []string

	bs, count, skip, seek            int64
	countBytes, skipBytes, seekBytes bool // the number has a B
}

func (o *operands) help(what, value string) error {
	return &Error{what + " " + o.locale.quote(value), true}
}

// take takes one operand. The last one of a name counts; conversions and flags
// add up.
func (o *operands) take(arg string) (err error) {
	name, value, ok := strings.Cut(arg, "=")
	if !ok {
		return o.help("unrecognized operand", arg)
	}
	switch name {
	case "if":
		o.In, o.HasIn = value, true
	case "of":
		o.Out, o.HasOut = value, true
	case "conv":
		return symbols(o, value, conversions, &o.Conv, "invalid conversion:")
	case "iflag":
		return symbols(o, value, flags, &o.IFlags, "invalid input flag:")
	case "oflag":
		return symbols(o, value, flags, &o.OFlags, "invalid output flag:")
	case "status":
		// The last one counts here, too.
		for _, s := range strings.Split(value, ",") {
			level, ok := statuses[s]
			if !ok {
				return o.help("invalid status level:", s)
			}
			o.Status = level
		}
	case "bs":
		o.bs, err = o.number(value, 1, maxBlock)
	case "ibs":
		o.IBS, err = o.number(value, 1, maxBlock)
	case "obs":
		o.OBS, err = o.number(value, 1, maxBlock)
	case "cbs":
		o.CBS, err = o.number(value, 1, math.MaxInt64)
	case "skip", "iseek":
		o.skip, err = o.number(value, 0, math.MaxInt64)
		o.skipBytes = strings.Contains(value, "B")
	case "seek", "oseek":
		o.seek, err = o.number(value, 0, math.MaxInt64)
		o.seekBytes = strings.Contains(value, "B")
	case "count":
		o.count, err = o.number(value, 0, math.MaxInt64)
		o.countBytes = strings.Contains(value, "B")
	default:
		return o.help("unrecognized operand", arg)
	}
	return err
}

// maxBlock is the largest size of a block.
const maxBlock = math.MaxInt64 - 1

// symbols adds the symbols of a list.
func symbols[S ~uint](o *operands, list string, table map[string]S, set *S, complaint string) error {
	for _, s := range strings.Split(list, ",") {
		v, ok := table[s]
		if !ok {
			return o.help(complaint, s)
		}
		*set |= v
	}
	return nil
}

// number reads a number of a range.
func (o *operands) number(s string, low, high int64) (int64, error) {
	n, zeroTimes, r := product(s)
	if zeroTimes {
		o.warnings = append(o.warnings, fmt.Sprintf("warning: %s is a zero multiplier; use %s if that is intended", o.locale.quote("0x"), o.locale.quote("00x")))
	}
	switch {
	case r == tooLarge, r == largeJunk, r == fine && n > uint64(high):
		return 0, &Error{"invalid number: " + o.locale.quote(s) + ": " + reason(syscall.EOVERFLOW), false}
	case r == noNumber, n < uint64(low):
		return 0, &Error{"invalid number: " + o.locale.quote(s), false}
	}
	return int64(n), nil
}

// complete draws the conclusions of all operands together.
func (o *operands) complete() error {
	if o.bs != 0 {
		o.IBS, o.OBS = o.bs, o.bs
	} else {
		o.Conv |= reblocks
	}
	if o.IBS == 0 {
		o.IBS = defaultBlock
	}
	if o.OBS == 0 {
		o.OBS = defaultBlock
	}
	if o.CBS == 0 {
		o.Conv &^= Block | Unblock
	}
	if o.OFlags&FullBlock != 0 {
		return o.help("invalid output flag:", "fullblock")
	}
	o.SkipRecords, o.SkipBytes = records(o.skip, o.IBS, o.skipBytes || o.IFlags&SkipBytes != 0)
	o.SeekRecords, o.SeekBytes = records(o.seek, o.OBS, o.seekBytes || o.OFlags&SeekBytes != 0)
	if o.count != math.MaxInt64 {
		o.MaxRecords, o.MaxBytes = records(o.count, o.IBS, o.countBytes || o.IFlags&CountBytes != 0)
	}
	counted := o.SkipRecords != 0 || 0 < o.MaxRecords && o.MaxRecords < math.MaxInt64
	o.warnPartial = o.Conv&reblocks == 0 && o.IFlags&FullBlock == 0 && (counted || (o.IFlags|o.OFlags)&Direct != 0)
	for _, e := range []struct {
		set  bool
		text string
	}{
		{several(o.Conv & (ASCII | EBCDIC | IBM)), "cannot combine any two of {ascii,ebcdic,ibm}"},
		{several(o.Conv & (Block | Unblock)), "cannot combine block and unblock"},
		{several(o.Conv & (LCase | UCase)), "cannot combine lcase and ucase"},
		{several(o.Conv & (Excl | NoCreat)), "cannot combine excl and nocreat"},
		{several(o.IFlags&(Direct|NoCache)) || several(o.OFlags&(Direct|NoCache)), "cannot combine direct and nocache"},
	} {
		if e.set {
			return &Error{e.text, false}
		}
	}
	if o.OFlags&Append != 0 && o.Conv&NoTrunc == 0 {
		o.warnings = append(o.warnings, "you probably want conv=notrunc with oflag=append")
	}
	return nil
}

// defaultBlock is the size of a block that nobody named.
const defaultBlock = 512

// records splits n, which counts blocks or bytes, into whole blocks and bytes.
func records(n, block int64, bytes bool) (whole, rest int64) {
	if bytes {
		return n / block, n % block
	}
	return n, 0
}

func several[S ~uint](set S) bool { return bits.OnesCount(uint(set)) > 1 }
