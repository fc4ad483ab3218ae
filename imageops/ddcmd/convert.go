package ddcmd

// A converter is what conv= does to the bytes on their way. Its methods append to
// what they are given.
type converter struct {
	table          *[256]byte // nil: bytes stay what they are
	newline, space byte       // in the output
	width          int64      // of records, cbs=
	block, unblock bool
	swab           bool

	column    int64 // in the record
	spaces    int64 // at the end of what came, which may be the end of the record
	odd       byte  // the first of a pair, when hasOdd
	hasOdd    bool
	truncated int64 // records that were longer than width
}

func newConverter(p *Plan) *converter {
	c := &converter{newline: '\n', space: ' ', width: p.CBS, block: p.Conv&Block != 0, unblock: p.Conv&Unblock != 0, swab: p.Conv&Swab != 0}
	if p.Conv&(ASCII|EBCDIC|IBM|LCase|UCase) == 0 {
		return c
	}
	c.table = new([256]byte)
	for i := range c.table {
		b := byte(i)
		if p.Conv&ASCII != 0 {
			b = fromEBCDIC[b]
		}
		switch {
		case p.Conv&UCase != 0 && 'a' <= b && b <= 'z':
			b -= 'a' - 'A'
		case p.Conv&LCase != 0 && 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		}
		switch {
		case p.Conv&EBCDIC != 0:
			b = toEBCDIC[b]
		case p.Conv&IBM != 0:
			b = toIBM[b]
		}
		c.table[i] = b
	}
	switch {
	case p.Conv&EBCDIC != 0:
		c.newline, c.space = toEBCDIC['\n'], toEBCDIC[' ']
	case p.Conv&IBM != 0:
		c.newline, c.space = toIBM['\n'], toIBM[' ']
	}
	return c
}

// fromEBCDIC is the inverse of toEBCDIC.
var fromEBCDIC = func() (t [256]byte) {
	for i := range t {
		t[toEBCDIC[i]] = byte(i)
	}
	return t
}()

// convert appends what becomes of in, which it changes.
func (c *converter) convert(out, in []byte) []byte {
	if c.table != nil {
		for i, b := range in {
			in[i] = c.table[b]
		}
	}
	if !c.swab {
		return c.records(out, in)
	}
	if c.hasOdd && len(in) > 0 {
		out = c.records(out, []byte{in[0], c.odd})
		in, c.hasOdd = in[1:], false
	}
	if n := len(in); n%2 == 1 {
		c.odd, c.hasOdd = in[n-1], true
		in = in[:n-1]
	}
	for i := 0; i < len(in); i += 2 {
		in[i], in[i+1] = in[i+1], in[i]
	}
	return c.records(out, in)
}

// finish appends what was held back until the end.
func (c *converter) finish(out []byte) []byte {
	if c.hasOdd {
		out = c.records(out, []byte{c.odd})
	}
	switch {
	case c.block && c.column > 0:
		out = c.pad(out, c.width-c.column)
	case c.unblock && c.column > 0:
		out = append(out, c.newline)
	}
	return out
}

func (c *converter) records(out, in []byte) []byte {
	switch {
	case c.block:
		return c.blocked(out, in)
	case c.unblock:
		return c.unblocked(out, in)
	}
	return append(out, in...)
}

// blocked makes records of one width of lines.
func (c *converter) blocked(out, in []byte) []byte {
	for _, b := range in {
		switch {
		case b == c.newline:
			out = c.pad(out, c.width-c.column)
			c.column = 0
			continue
		case c.column == c.width:
			c.truncated++
		case c.column < c.width:
			out = append(out, b)
		}
		c.column++
	}
	return out
}

// unblocked makes lines of records of one width, without the spaces at their ends.
func (c *converter) unblocked(out, in []byte) []byte {
	for _, b := range in {
		if c.column == c.width {
			out = append(out, c.newline)
			c.column, c.spaces = 0, 0
		}
		c.column++
		if b == c.space {
			c.spaces++
			continue
		}
		out = c.pad(out, c.spaces)
		c.spaces = 0
		out = append(out, b)
	}
	return out
}

func (c *converter) pad(out []byte, n int64) []byte {
	for ; n > 0; n-- {
		out = append(out, c.space)
	}
	return out
}
