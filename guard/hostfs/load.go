package hostfs

import (
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Load reads a capture file. Whatever it does not understand is an error that
// names the line.
func Load(r io.Reader) (*Root, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("load capture: %w", err)
	}
	rec, err := parseCapture(string(text))
	if err != nil {
		return nil, fmt.Errorf("load capture: %w", err)
	}
	root := New()
	root.rec = rec
	return root, nil
}

// A section is a part of a txtar archive: the comment, or a member.
type section struct {
	name string
	data string
	line int // of the first line of data, from 1
}

// sections cuts a txtar archive (golang.org/x/tools/txtar) into its comment and
// its members. There is no text that is not one.
func sections(text string) (comment section, members []section) {
	all := []section{{line: 1}}
	line, start, pos := 0, 0, 0
	for l := range strings.Lines(text) {
		line++
		pos += len(l)
		if name := marker(l); name != "" {
			all[len(all)-1].data = text[start : pos-len(l)]
			all = append(all, section{name: name, line: line + 1})
			start = pos
		}
	}
	last := text[start:]
	if last != "" && !strings.HasSuffix(last, "\n") {
		last += "\n"
	}
	all[len(all)-1].data = last
	return all[0], all[1:]
}

// marker is the name in a "-- NAME --" line, or "".
func marker(line string) string {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	line, ok1 := strings.CutPrefix(line, "-- ")
	line, ok2 := strings.CutSuffix(line, " --")
	if !ok1 || !ok2 {
		return ""
	}
	return strings.TrimSpace(line)
}

func parseCapture(text string) (*record, error) {
	c := newRecord()
	comment, parts := sections(text)
	c.comment = comment.data
	seen := map[string]bool{}
	for _, p := range parts {
		if seen[p.name] {
			return nil, fmt.Errorf("line %d: member %q again", p.line-1, p.name)
		}
		seen[p.name] = true
		switch {
		case p.name == "manifest":
			line := p.line - 1
			for l := range strings.Lines(p.data) {
				line++
				if err := c.parseLine(strings.TrimSuffix(l, "\n")); err != nil {
					return nil, fmt.Errorf("line %d: %w", line, err)
				}
			}
		case strings.HasPrefix(p.name, "/"):
			if err := c.add(key{kind: kindFile, name: p.name}, entry{text: p.data}); err != nil {
				return nil, fmt.Errorf("line %d: %w", p.line-1, err)
			}
		default:
			c.members = append(c.members, member{p.name, p.data})
		}
	}
	return c, nil
}

// add records e, once: a name has one content and one entry of every other kind,
// but for pieces of data that do not overlap.
func (c *record) add(k key, e entry) error {
	path := k.kind != kindAsk || strings.HasPrefix(k.name, "/")
	if path && !isClean(k.name) {
		return fmt.Errorf("%q: not an absolute path without . and .. and doubled slashes", k.name)
	}
	_, twice := c.entries[k]
	if k.kind == kindFile || k.kind == kindBytes {
		_, twice = c.content(k.name)
	}
	if old := c.entries[k]; k.kind == kindData && old.errno == 0 && e.errno == 0 {
		twice = e.broken && old.broken
		for _, p := range e.data {
			twice = twice || p.meets(old.data)
		}
		e.data, e.broken = slices.Concat(old.data, e.data), e.broken || old.broken
	}
	if twice {
		return fmt.Errorf("%s: recorded twice", k)
	}
	c.set(k, e)
	return nil
}

func isClean(name string) bool {
	return strings.HasPrefix(name, "/") && path.Clean(name) == name && !strings.ContainsRune(name, 0)
}

// parseLine reads one line of the manifest.
func (c *record) parseLine(line string) error {
	words, err := fields(line)
	if err != nil || len(words) == 0 {
		return err
	}
	k, args, err := parseKey(words)
	if err != nil {
		return err
	}
	if k.kind == kindErr && len(args) == 2 {
		if k, err = failing(k, args[1]); err != nil {
			return err
		}
		e, err := parseEntry(kindErr, args[:1])
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		return c.add(k, e)
	}
	e, err := parseEntry(k.kind, args)
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	return c.add(k, e)
}

// parseKey reads what a manifest line, or the id of an entry, starts with, and
// gives the words after it.
func parseKey(words []word) (k key, rest []word, err error) {
	k.kind, rest = kind(words[0].text), words[1:]
	if k.kind == kindAsk && len(rest) > 0 {
		k.question, rest = Question(rest[0].text), rest[1:]
		if !k.question.known() {
			return k, nil, fmt.Errorf("ask %q: no such question", k.question)
		}
	}
	if len(rest) == 0 {
		return k, nil, fmt.Errorf("%q: no name", words[0].text)
	}
	k.name = rest[0].text
	return k, rest[1:], nil
}

// failing is the key of the one thing that fails in an err line with three words.
func failing(k key, what word) (key, error) {
	switch of := kind(what.text); of {
	case kindFile, kindDir, kindLink, kindStat, kindData:
		return key{kind: of, name: k.name}, nil
	}
	return k, fmt.Errorf("%s: %q: nothing that can fail", k, what.text)
}

// parseEntry reads what a manifest line says after the name.
func parseEntry(k kind, args []word) (e entry, err error) {
	switch k {
	case kindDir:
		return parseDir(args)
	case kindStat:
		e.stat, err = parseStat(args)
		return e, err
	case kindData:
		return parseData(args)
	case kindLink, kindBytes, kindErr, kindAsk:
	default:
		return e, fmt.Errorf("no such keyword")
	}
	if len(args) != 1 {
		return e, fmt.Errorf("%d words after the name, not 1", len(args))
	}
	text, quoted := args[0].text, args[0].quoted
	if k == kindErr || k == kindAsk && !quoted {
		errno, ok := parseErrno(text)
		if !ok || quoted {
			return e, fmt.Errorf("%q: no such errno", text)
		}
		return entry{errno: errno}, nil
	}
	if k == kindBytes && !quoted {
		return e, fmt.Errorf("%q: not quoted", text)
	}
	if k == kindLink && text == "" {
		return e, fmt.Errorf("empty target")
	}
	return entry{text: text}, nil
}

func parseDir(args []word) (entry, error) {
	var names []string
	for _, a := range args {
		if a.text == "" || a.text == "." || a.text == ".." || strings.ContainsAny(a.text, "/\x00") {
			return entry{}, fmt.Errorf("%q: not the name of a directory entry", a.text)
		}
		names = append(names, a.text)
	}
	return entry{names: sorted(names)}, nil
}

func parseData(args []word) (entry, error) {
	if len(args) == 1 && !args[0].quoted && args[0].text == "EIO" {
		return entry{broken: true}, nil
	}
	if len(args) != 2 {
		return entry{}, fmt.Errorf("%d words after the name, not 2", len(args))
	}
	off, err := strconv.ParseInt(args[0].text, 10, 64)
	if err != nil || off < 0 || off > math.MaxInt64-int64(len(args[1].text)) {
		return entry{}, fmt.Errorf("%q: no offset in bytes", args[0].text)
	}
	if !args[1].quoted {
		return entry{}, fmt.Errorf("%q: not quoted", args[1].text)
	}
	return entry{data: []piece{{off, args[1].text}}}, nil
}

func parseStat(args []word) (st Stat, err error) {
	if len(args) == 0 {
		return st, fmt.Errorf("no type")
	}
	var ok bool
	if st.Type, ok = parseType(args[0].text); !ok {
		return st, fmt.Errorf("%q: no file type", args[0].text)
	}
	seen := map[string]bool{}
	for _, a := range args[1:] {
		field, value, _ := strings.Cut(a.text, "=")
		if seen[field] {
			return st, fmt.Errorf("%q: twice", field)
		}
		seen[field] = true
		switch field {
		case "dev":
			st.Dev, err = ParseDev(value)
		case "ino":
			st.Ino, err = strconv.ParseUint(value, 10, 64)
		case "rdev":
			st.Rdev, err = ParseDev(value)
		case "size":
			st.Size, err = strconv.ParseInt(value, 10, 64)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 12)
			st.Mode = uint32(mode)
		case "mtime":
			st.MtimeNs, err = strconv.ParseInt(value, 10, 64)
		default:
			err = fmt.Errorf("no such field")
		}
		if err != nil {
			return st, fmt.Errorf("%q: %w", a.text, err)
		}
	}
	return st, nil
}

// typeLetters has the letter of each FileType.
const typeLetters = "ofdbcpsl"

func parseType(letter string) (FileType, bool) {
	i := strings.Index(typeLetters, letter)
	return FileType(max(i, 0)), i >= 0 && len(letter) == 1
}

// A word is one field of a manifest line.
type word struct {
	text   string
	quoted bool
}

// fields cuts a manifest line into its words. A line that is empty or a comment
// has none.
func fields(line string) (words []word, err error) {
	if strings.HasPrefix(line, "#") {
		return nil, nil
	}
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			return words, nil
		}
		raw, quoted := line, line[0] == '"'
		if quoted {
			if raw, err = strconv.QuotedPrefix(line); err != nil {
				return nil, fmt.Errorf("%q: no end of the quotation", line)
			}
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			raw = line[:i]
		}
		line = line[len(raw):]
		text := raw
		if quoted {
			if text, err = strconv.Unquote(raw); err != nil {
				return nil, fmt.Errorf("%q: %w", raw, err)
			}
			if line != "" && line[0] != ' ' && line[0] != '\t' {
				return nil, fmt.Errorf("%q: no blank after the quotation", raw)
			}
		} else if !isPlain(raw) {
			return nil, fmt.Errorf("%q: must be quoted", raw)
		}
		words = append(words, word{text, quoted})
	}
}

// isPlain says that a word may stand in a manifest without quotation marks.
func isPlain(s string) bool {
	return s != "" && s[0] != '"' && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) < 0
}

// quote writes a word as fields reads it.
func quote(s string) string {
	if isPlain(s) {
		return s
	}
	return strconv.Quote(s)
}
