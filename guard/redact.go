package guard

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"imgward/guard/hostfs"
	"imgward/xenstore/dump"
)

// Redacted is a copy of a capture without what is nobody's business and no
// evidence: the words of command lines but for names of files, options and numbers
// and what is said to xl; addresses of networks and of their cards, each replaced
// by one of those that are for documentation, the same everywhere; passwords and
// the like in configurations and in the store. It says in the comment how much of
// each it was. Names of hosts' files, of domains and of processes stay, and so do
// the bytes that were read of images.
func Redacted(root *hostfs.Root) *hostfs.Root {
	r := &redactor{addresses: map[string]string{}}
	out := root.Rewrite(r.edit)
	said := fmt.Sprintf("redacted: words of %s, %s, %s (passwords and the like); not names of files, domains and programs\n",
		count(r.lines, "command line"), count(len(r.addresses), "network address"), count(r.secrets, "secret"))
	out.SetComment(out.Comment() + said)
	return out
}

type redactor struct {
	addresses      map[string]string // as they stood there, and what stands there now
	cards, v4, v6  int               // how many of each kind
	lines, secrets int
}

var commandLine = pattern(`^(file|bytes) /proc/[0-9]+/(task/[0-9]+/)?cmdline$`)

func (r *redactor) edit(id, text string) string {
	switch {
	case commandLine().MatchString(id):
		text = r.command(text)
	case strings.HasPrefix(id, "member xenstore"):
		return r.store(text)
	case id != "":
		text = r.hide(text)
	}
	return r.net(text)
}

// command redacts the words of a command line, which end in a NUL (proc(5),
// /proc/PID/cmdline).
func (r *redactor) command(text string) string {
	words := strings.Split(text, "\x00")
	xl := path.Base(words[0]) == "xl"
	hidden := false
	for i, w := range words {
		if i > 0 {
			words[i] = redactWord(w, xl)
			hidden = hidden || words[i] != w
		}
	}
	if hidden {
		r.lines++
	}
	return strings.Join(words, "\x00")
}

const redacted = "redacted"

// redactWord keeps names of files, options and numbers. Of a list such as
// "file=/srv/web1.img,if=ide" it keeps the keys. What xl is told is kept but for
// settings of the configuration.
func redactWord(word string, xl bool) string {
	if word == "" || plainWord(word) || xl && !strings.Contains(word, "=") {
		return word
	}
	if !strings.Contains(word, "=") {
		return redacted
	}
	parts := strings.Split(word, ",")
	for i, p := range parts {
		if key, value, ok := strings.Cut(p, "="); ok && !plainWord(value) {
			parts[i] = key + "=" + redacted
		} else if !ok && !plainWord(p) {
			parts[i] = redacted
		}
	}
	return strings.Join(parts, ",")
}

var number = pattern(`^[0-9]+$`)

// plainWord tells a name of a file, an option without a value, and a number.
func plainWord(w string) bool {
	return strings.HasPrefix(w, "/") && !strings.ContainsAny(w, "=,") || number().MatchString(w) ||
		strings.HasPrefix(w, "-") && !strings.Contains(w, "=")
}

var (
	secretKey   = pattern(`(?i)passw|passphrase|secret|key_?file`)
	secretValue = pattern(`(?i)(["']?[\w.-]*(?:passw(?:or)?d?|passphrase|secret|key_?file)[\w.-]*["']?[ \t]*[:=][ \t]*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,;"'\])}>]+)`)
	secretXML   = pattern(`(?i)(<(?:password|passwd|secret)\b[^>]*>)([^<]+)(</)`)
)

// hide replaces what stands behind a key that promises a secret, in the syntax of
// xl.cfg(5), of JSON or of XML, by something of the same syntax.
func (r *redactor) hide(text string) string {
	if !secretKey().MatchString(text) {
		return text
	}
	text = secretValue().ReplaceAllStringFunc(text, func(s string) string {
		m := secretValue().FindStringSubmatch(s)
		value := m[2]
		switch quoted := value[0] == '"' || value[0] == '\''; {
		case value == "null" || value == "true" || value == "false" || len(value) == 2 && quoted:
			return s
		case quoted:
			value = value[:1] + redacted + value[:1]
		case number().MatchString(value):
			value = "0"
		default:
			value = redacted
		}
		r.secrets++
		return m[1] + value
	})
	return secretXML().ReplaceAllStringFunc(text, func(s string) string {
		m := secretXML().FindStringSubmatch(s)
		r.secrets++
		return m[1] + redacted + m[3]
	})
}

// store redacts a dump of xenstore. One that cannot be read is left out.
func (r *redactor) store(text string) string {
	nodes, err := dump.Parse(strings.NewReader(text))
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, n := range nodes {
		if n.Value != "" && secretKey().MatchString(path.Base(n.Path)) {
			n.Value = redacted
			r.secrets++
		} else {
			n.Value = r.net(r.hide(n.Value))
		}
		b.WriteString(n.String() + "\n")
	}
	return b.String()
}

var (
	address = pattern(`(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}`)
	card    = pattern(`^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$`)
)

// net replaces addresses of networks and of their cards, where they are not part
// of something longer.
func (r *redactor) net(text string) string {
	var b strings.Builder
	last := 0
	for _, m := range address().FindAllStringIndex(text, -1) {
		word, rest := text[m[0]:m[1]], text[m[1]:]
		if partOf(text[:m[0]], word, rest) {
			continue
		}
		if instead, ok := r.address(word); ok {
			b.WriteString(text[last:m[0]] + instead)
			last = m[1]
		}
	}
	return b.String() + text[last:]
}

// partOf tells that what stands before or after word makes it something else: a
// version, a name of eight pairs of digits.
func partOf(before, word, after string) bool {
	if strings.Contains(word, ":") {
		return before != "" && (wordByte(before[len(before)-1]) || before[len(before)-1] == ':') ||
			after != "" && (wordByte(after[0]) || after[0] == ':')
	}
	return before != "" && (wordByte(before[len(before)-1]) || before[len(before)-1] == '.') ||
		after != "" && wordByte(after[0]) || len(after) > 1 && after[0] == '.' && number().MatchString(after[1:2])
}

func wordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// forExamples are the networks that are nobody's (RFC 5737, RFC 3849).
var forExamples = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("2001:db8::/32"),
}

// address gives what stands for an address: one that is nobody's, and for a card
// one with the prefix of Xen. Those of the host itself, and of nobody, stay.
func (r *redactor) address(word string) (string, bool) {
	if known, ok := r.addresses[word]; ok {
		return known, true
	}
	instead := ""
	if card().MatchString(word) {
		r.cards++
		instead = fmt.Sprintf("00:16:3e:00:%02x:%02x", r.cards>>8&0xff, r.cards&0xff)
	} else {
		a, err := netip.ParseAddr(word)
		switch {
		case err != nil || a.IsLoopback() || a.IsUnspecified() || slices.ContainsFunc(forExamples, func(p netip.Prefix) bool { return p.Contains(a) }):
			return "", false
		case a.Is4():
			r.v4++
			instead = fmt.Sprintf("%s.%d", [...]string{"192.0.2", "198.51.100", "203.0.113"}[r.v4/256%3], r.v4%256)
		default:
			r.v6++
			instead = fmt.Sprintf("2001:db8::%x", r.v6)
		}
	}
	r.addresses[word] = instead
	return instead, true
}
