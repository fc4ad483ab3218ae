package hostfs

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Save writes a captured or in-memory root as a capture file, from which Load
// makes the same. What Truncate cut is written as far as it is left. A comment or
// a member that would be read as something else is an error, and then what was
// written is no capture.
func (r *Root) Save(w io.Writer) error {
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	out := bufio.NewWriter(w)
	if err := checkText("comment", r.rec.comment); err != nil {
		return err
	}
	out.WriteString(r.rec.comment)
	out.WriteString("-- manifest --\n")
	var files []key
	for _, k := range r.rec.sorted() {
		e := r.rec.entries[k]
		if k.kind == kindFile && e.errno == 0 && isText(e.text) && isMember(k.name) {
			files = append(files, k)
			continue
		}
		for _, line := range lines(k, e) {
			out.WriteString(line + "\n")
		}
	}
	for _, k := range files {
		fmt.Fprintf(out, "-- %s --\n%s", k.name, r.rec.entries[k].text)
	}
	for _, m := range r.rec.members {
		if err := checkText("member "+strconv.Quote(m.name), m.data); err != nil || !isMember(m.name) || m.name == "manifest" || m.name[0] == '/' {
			return cmp.Or(err, fmt.Errorf("save capture: %q: no name of a member", m.name))
		}
		fmt.Fprintf(out, "-- %s --\n%s", m.name, m.data)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("save capture: %w", err)
	}
	return nil
}

// sorted lists what there are entries of, by name, and by kind as it is written: the
// content of a file may become a line of bytes.
func (c *record) sorted() []key {
	written := func(k kind) kind {
		if k == kindFile {
			return kindBytes
		}
		return k
	}
	return slices.SortedFunc(maps.Keys(c.entries), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(written(a.kind), written(b.kind)), cmp.Compare(a.question, b.question), cmp.Compare(a.kind, b.kind))
	})
}

// lines are what a manifest says of one entry.
func lines(k key, e entry) []string {
	id := k.String()
	if e.errno != 0 && k.kind != kindAsk {
		line := string(kindErr) + " " + quote(k.name) + " " + errnoName(e.errno)
		switch k.kind {
		case kindErr:
		case kindBytes:
			line += " " + string(kindFile)
		default:
			line += " " + string(k.kind)
		}
		return []string{line}
	}
	switch k.kind {
	case kindAsk:
		if e.errno != 0 {
			return []string{id + " " + errnoName(e.errno)}
		}
		return []string{id + " " + strconv.Quote(e.text)}
	case kindFile, kindBytes:
		return []string{string(kindBytes) + " " + quote(k.name) + " " + strconv.Quote(e.text)}
	case kindLink:
		return []string{id + " " + quote(e.text)}
	case kindDir:
		for _, name := range e.names {
			id += " " + quote(name)
		}
		return []string{id}
	case kindStat:
		return []string{id + " " + formatStat(e.stat)}
	}
	return dataLines(id, e)
}

func dataLines(id string, e entry) []string {
	var out []string
	if e.broken {
		out = append(out, id+" EIO")
	}
	for _, p := range e.flat() {
		out = append(out, id+" "+strconv.FormatInt(p.off, 10)+" "+strconv.Quote(p.text))
	}
	if out == nil {
		out = []string{id + ` 0 ""`}
	}
	return out
}

// flat gives the same bytes in pieces that do not meet, sorted, none of them
// empty.
func (e entry) flat() []piece {
	var out []piece
	for _, p := range e.data { // which holds over all before it
		var rest []piece
		for _, q := range out {
			if q.off < p.off {
				rest = append(rest, piece{q.off, q.text[:min(int64(len(q.text)), p.off-q.off)]})
			}
			if q.end() > p.end() {
				from := max(q.off, p.end())
				rest = append(rest, piece{from, q.text[from-q.off:]})
			}
		}
		out = rest
		if p.text != "" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b piece) int { return cmp.Compare(a.off, b.off) })
	return out
}

// formatStat writes a Stat as parseStat reads it.
func formatStat(st Stat) string {
	s := typeLetters[st.Type : st.Type+1]
	s += " dev=" + FormatDev(st.Dev) + " ino=" + strconv.FormatUint(st.Ino, 10)
	if st.Rdev != 0 {
		s += " rdev=" + FormatDev(st.Rdev)
	}
	return s + fmt.Sprintf(" size=%d mode=%04o mtime=%d", st.Size, st.Mode, st.MtimeNs)
}

// isText says that content can be a member as it is: whole lines of what can be
// printed, none of which looks like the beginning of a member.
func isText(s string) bool {
	odd := func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }
	return strings.HasSuffix(s, "\n") && utf8.ValidString(s) && strings.IndexFunc(s, odd) < 0 && checkText("", s) == nil
}

// isMember says that a "-- NAME --" line is read as this name.
func isMember(name string) bool {
	return marker("-- "+name+" --\n") == name && !strings.ContainsAny(name, "\n") && name != ""
}

// checkText refuses what would be read as the beginning of a member, or as a line
// that goes on with the next one.
func checkText(what, s string) error {
	for l := range strings.Lines(s) {
		if marker(l) != "" || !strings.HasSuffix(l, "\n") {
			return fmt.Errorf("save capture: %s: line %q cannot be written", what, l)
		}
	}
	return nil
}

// Rewrite is a new in-memory root with the same entries, in which every text was
// replaced by what edit makes of it: names, link targets, what directories list,
// contents, answers, the members and the comment, but not data. id is the entry
// as Entries lists it where the text is a content or an answer, "member NAME" for
// a member and its name, and empty for everything else, so that edit can treat a
// name in the same way wherever it stands. The texts come in the order of names.
func (r *Root) Rewrite(edit func(id, text string) string) *Root {
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	out := New()
	out.rec.comment = edit("", r.rec.comment)
	for _, m := range r.rec.members {
		out.rec.members = append(out.rec.members, member{edit("", m.name), edit("member "+m.name, m.data)})
	}
	for _, k := range r.rec.sorted() {
		e, id := r.rec.entries[k], k.String()
		k.name = edit("", k.name)
		switch k.kind {
		case kindLink:
			e.text = edit("", e.text)
		case kindFile, kindBytes, kindAsk:
			e.text = edit(id, e.text)
		case kindDir:
			names := make([]string, len(e.names))
			for i, name := range e.names {
				names[i] = edit("", name)
			}
			e.names = sorted(names)
		}
		out.rec.set(k, e)
	}
	return out
}
