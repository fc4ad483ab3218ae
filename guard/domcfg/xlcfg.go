package domcfg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseXL reads a configuration file of xl (xl.cfg(5); libxlu_cfg_y.y in Xen's
// source): assignments of strings, numbers and lists, of which the last of a name
// counts and += adds to the one before. extra are the KEY=VALUE words behind the
// file on the command line, which xl appends to it.
//
// Files of the time before xl are Python. Of Python everything is understood that
// xl understands too, and strings in three quotation marks; anything else is an
// error that names the line.
func ParseXL(text string, extra ...string) (Domain, error) {
	if len(extra) > 0 {
		text += "\n" + strings.Join(extra, "\n") + "\n"
	}
	p := &xlParser{text: text, line: 1, set: map[string]xlValue{}}
	syntax := p.file()
	d, err := p.domain()
	if syntax != nil {
		err = syntax
	}
	return d, err
}

// An xlValue is the right side of an assignment.
type xlValue struct {
	line  int
	list  bool
	atom  string
	items []xlValue
}

type xlParser struct {
	text string
	pos  int
	line int
	set  map[string]xlValue
}

func (p *xlParser) fail(format string, args ...any) error {
	return &SyntaxError{p.line, fmt.Sprintf(format, args...)}
}

// peek gives the next byte, or 0 at the end.
func (p *xlParser) peek() byte {
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// blanks skips blanks, and with lines also ends of lines and comments.
func (p *xlParser) blanks(lines bool) {
	for ; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
		case lines && c == '\n':
			p.line++
		case lines && c == '#':
			p.comment()
			p.pos--
		default:
			return
		}
	}
}

// comment skips to the end of the line.
func (p *xlParser) comment() {
	if n := strings.IndexByte(p.text[p.pos:], '\n'); n >= 0 {
		p.pos += n
		return
	}
	p.pos = len(p.text)
}

func (p *xlParser) file() error {
	for {
		p.blanks(true)
		switch {
		case p.pos == len(p.text):
			return nil
		case p.peek() == ';':
			p.pos++
			continue
		}
		if err := p.assignment(); err != nil {
			return err
		}
		p.blanks(false)
		if c := p.peek(); p.pos < len(p.text) && c != '\n' && c != ';' && c != '#' {
			return p.fail("%s behind a value", p.near())
		}
	}
}

// near shows what stands here, for an error.
func (p *xlParser) near() string {
	rest, _, _ := strings.Cut(p.text[p.pos:], "\n")
	return fmt.Sprintf("%.20q", rest)
}

func (p *xlParser) assignment() error {
	start := p.pos
	for p.pos < len(p.text) && word(p.text[p.pos]) {
		p.pos++
	}
	name := p.text[start:p.pos]
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		p.pos = start
		return p.fail("%s is no assignment", p.near())
	}
	p.blanks(false)
	add := strings.HasPrefix(p.text[p.pos:], "+=")
	if add {
		p.pos++
	}
	if p.peek() != '=' {
		p.pos = start
		return p.fail("%s is no assignment", p.near())
	}
	p.pos++
	p.blanks(false)
	v, err := p.value(0)
	if err != nil {
		return err
	}
	if before, ok := p.set[name]; add && ok {
		if before.list != v.list {
			return p.fail("%s is a list in one place and none in another", name)
		}
		v.atom, v.items = before.atom+v.atom, slices.Concat(before.items, v.items)
	}
	p.set[name] = v
	return nil
}

func word(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// maxNesting is how deep lists may lie in lists; xl itself knows of two.
const maxNesting = 8

func (p *xlParser) value(depth int) (xlValue, error) {
	v := xlValue{line: p.line}
	switch c := p.peek(); {
	case c == '\'' || c == '"':
		var err error
		v.atom, err = p.quoted(c)
		return v, err
	case '0' <= c && c <= '9':
		start := p.pos
		for p.pos < len(p.text) && word(p.text[p.pos]) {
			p.pos++
		}
		v.atom = p.text[start:p.pos]
		return v, nil
	case c != '[':
		return v, p.fail("%s is no string, number or list", p.near())
	case depth == maxNesting:
		return v, p.fail("lists in lists in lists")
	}
	v.list = true
	p.pos++
	for {
		p.blanks(true)
		if p.peek() == ']' {
			p.pos++
			return v, nil
		}
		item, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
		p.blanks(true)
		switch p.peek() {
		case ',':
			p.pos++
		case ']':
		default:
			return v, p.fail("%s in a list", p.near())
		}
	}
}

// quoted reads a string in one or three quotation marks. A backslash stands before
// a quotation mark, a backslash or the letter of a control character. Characters
// by number are not understood: xl itself reads them wrongly.
func (p *xlParser) quoted(mark byte) (string, error) {
	end := `"""`
	if mark == '\'' {
		end = "'''"
	}
	if !strings.HasPrefix(p.text[p.pos:], end) {
		end = end[:1]
	}
	begin := p.line
	p.pos += len(end)
	// Most have nothing in them that is not itself.
	if n := strings.IndexAny(p.text[p.pos:], end[:1]+"\\\n\x00"); n >= 0 && strings.HasPrefix(p.text[p.pos+n:], end) {
		p.pos += n + len(end)
		return p.text[p.pos-n-len(end):][:n], nil
	}
	var b strings.Builder
	for p.pos < len(p.text) {
		if strings.HasPrefix(p.text[p.pos:], end) {
			p.pos += len(end)
			return b.String(), nil
		}
		c := p.text[p.pos]
		p.pos++
		switch {
		case c == '\n' && len(end) == 1:
			return "", p.fail("a string is not closed")
		case c == '\n':
			p.line++
		case c == 0:
			return "", p.fail("a NUL in a string")
		case c == '\\':
			i := strings.IndexByte(`"'\abfnrtv`, p.peek())
			if p.pos == len(p.text) || i < 0 {
				p.pos--
				return "", p.fail("%s in a string", p.near())
			}
			c = "\"'\\\a\b\f\n\r\t\v"[i]
			p.pos++
		}
		b.WriteByte(c)
	}
	return "", &SyntaxError{begin, "a string is not closed"}
}

// domain takes what is wanted out of the assignments.
func (p *xlParser) domain() (Domain, error) {
	var d Domain
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	name, err := p.atom("name")
	note(err)
	d.Name = name
	for _, key := range []string{"kernel", "ramdisk"} {
		path, err := p.atom(key)
		note(err)
		if strings.HasPrefix(path, "/") {
			d.Disks = append(d.Disks, Disk{Kind: Boot, Path: path, Words: show(key, path)})
		}
	}
	each := func(key string, parse func(spec string) ([]Disk, error)) {
		items, err := p.strings(key)
		note(err)
		for _, it := range items {
			disks, err := parse(it.atom)
			if err != nil {
				note(&SyntaxError{it.line, err.Error()})
			}
			for _, disk := range disks {
				disk.Words = show(key, it.atom)
				d.Disks = append(d.Disks, disk)
			}
		}
	}
	each("disk", parseXLDisk)
	each("p9", parseXLShare)
	each("vscsi", parseXLSCSI)
	for _, key := range []string{"device_model_args", "device_model_args_pv", "device_model_args_hvm"} {
		each(key, parseQEMUArg)
	}
	return d, first
}

func show(key, value string) string { return key + " = " + strconv.Quote(value) }

// atom gives a string or number, or "" when the name is not assigned.
func (p *xlParser) atom(name string) (string, error) {
	v := p.set[name]
	if v.list {
		return "", &SyntaxError{v.line, name + " is a list"}
	}
	return v.atom, nil
}

// strings gives a list of strings.
func (p *xlParser) strings(name string) ([]xlValue, error) {
	v, ok := p.set[name]
	if ok && !v.list {
		return nil, &SyntaxError{v.line, name + " is not a list"}
	}
	for i, it := range v.items {
		if it.list {
			return v.items[:i], &SyntaxError{it.line, name + " has a list in it"}
		}
	}
	return v.items, nil
}
