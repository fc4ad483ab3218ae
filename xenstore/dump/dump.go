// Package dump reads and writes what "xenstore-ls -f" and "xenstore-ls -f -p"
// print: a line for each node of the Xen store.
//
//	nodes, err := dump.Parse(file)
package dump

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A Node is one line of a dump, what xenstore-ls prints.
type Node struct {
	Path  string
	Value string // unescaped; any bytes
	Perms string // as printed by -p, "n0,r1"; "" without -p
	// Unreadable says that the tool was not given the value, and printed only
	// "path:".
	Unreadable bool
}

// Parse reads the output of "xenstore-ls -f", with or without -p. Empty lines
// are skipped. It fails, naming the line, for anything else, in particular for a
// value that the tool cut to the width of a terminal.
func Parse(r io.Reader) ([]Node, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	var nodes []Node
	for i, line := range bytes.Split(b, []byte("\n")) {
		text := strings.TrimSuffix(string(line), "\r")
		if text == "" {
			continue
		}
		n, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("parse dump line %d: %w", i+1, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// parseLine reads one line: path = "value"   (perms).
func parseLine(line string) (Node, error) {
	end := strings.IndexAny(line, " :")
	if end < 0 || line[0] != '/' || !validPath(line[:end]) {
		return Node{}, fmt.Errorf("no absolute path in %q", line)
	}
	n := Node{Path: line[:end]}
	rest := line[end:]
	if rest == ":" {
		n.Unreadable = true
		return n, nil
	}
	value, ok := strings.CutPrefix(rest, ` = "`)
	// A quote within the value is not escaped, but permissions hold none: the
	// last quote of the line ends the value.
	closing := strings.LastIndexByte(value, '"')
	if !ok || closing < 0 {
		return Node{}, fmt.Errorf("no value in %q", line)
	}
	if tail := strings.TrimLeft(value[closing+1:], " "); tail != "" {
		if len(tail) < 2 || tail[0] != '(' || tail[len(tail)-1] != ')' {
			return Node{}, fmt.Errorf("no permissions in %q", tail)
		}
		n.Perms = tail[1 : len(tail)-1]
	}
	var err error
	n.Value, err = unescape(value[:closing])
	return n, err
}

// unescape undoes the escaping of xenstore-ls: \t \n \r \\, three octal digits for
// bytes below 8, \x and two hexadecimal digits for the others outside printable
// ASCII. \" is taken too, as people write it.
func unescape(s string) (string, error) {
	var b strings.Builder
	for len(s) > 0 {
		c := s[0]
		s = s[1:]
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		if s == "" {
			return "", fmt.Errorf("value ends in a backslash")
		}
		c, n := s[0], 1
		switch {
		case c == 't':
			c = '\t'
		case c == 'n':
			c = '\n'
		case c == 'r':
			c = '\r'
		case c == '\\', c == '"':
		case c == 'x' && len(s) >= 3 && hex(s[1]) >= 0 && hex(s[2]) >= 0:
			c, n = byte(hex(s[1])<<4|hex(s[2])), 3
		case c >= '0' && c <= '3' && len(s) >= 3 && octal(s[1]) && octal(s[2]):
			c, n = (c-'0')<<6|(s[1]-'0')<<3|(s[2]-'0'), 3
		case strings.HasPrefix(s, "..."):
			return "", fmt.Errorf("value was cut to the width of a terminal")
		default:
			return "", fmt.Errorf("unknown escape %q", `\`+s[:min(3, len(s))])
		}
		b.WriteByte(c)
		s = s[n:]
	}
	return b.String(), nil
}

// hex returns the value of a lower-case hexadecimal digit, or -1.
func hex(c byte) int { return strings.IndexByte("0123456789abcdef", c) }

// octal reports whether c is an octal digit.
func octal(c byte) bool { return '0' <= c && c <= '7' }

// String is the line that xenstore-ls prints of a node.
func (n Node) String() string {
	if n.Unreadable {
		return n.Path + ":"
	}
	line := n.Path + ` = "` + escape(n.Value) + `"`
	if n.Perms != "" {
		line += "   (" + n.Perms + ")"
	}
	return line
}

// escape writes a value as unescape reads it.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\\':
			b.WriteString(`\\`)
		case c < 8:
			fmt.Fprintf(&b, `\%03o`, c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// validPath applies the rules of xenstore.txt to an absolute or relative path.
func validPath(p string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@"
	limit := 2048
	if strings.HasPrefix(p, "/") {
		limit = 3072
	}
	if p == "/" {
		return true
	}
	return p != "" && len(p) <= limit && strings.IndexFunc(p, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) < 0 &&
		!strings.HasSuffix(p, "/") && !strings.Contains(p, "//")
}
