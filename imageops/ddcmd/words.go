package ddcmd

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// A Locale is the character set of messages.
type Locale struct{ UTF8 bool }

// LocaleOf finds the locale that the environment names, as setlocale(3) does:
// LC_ALL before LC_CTYPE before LANG. One that is not installed is the C locale.
func LocaleOf(getenv func(string) string) Locale {
	for _, key := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		name := getenv(key)
		if name == "" {
			continue
		}
		language, set, _ := strings.Cut(name, ".")
		set, modifier, modified := strings.Cut(set, "@")
		if set = strings.ToLower(strings.ReplaceAll(set, "-", "")); set != "utf8" {
			return Locale{}
		}
		installed := []string{"/usr/lib/locale/locale-archive", "/usr/lib/locale/" + language + ".utf8"}
		if modified {
			installed[1] += "@" + modifier
		}
		for _, file := range installed {
			if _, err := os.Stat(file); err == nil {
				return Locale{UTF8: true}
			}
		}
		return Locale{}
	}
	return Locale{}
}

// next takes the first character of s: its bytes, and whether it can be printed.
func (l Locale) next(s string) (char string, printable bool) {
	if s[0] < utf8.RuneSelf {
		return s[:1], s[0] >= ' ' && s[0] != 0x7f
	}
	if !l.UTF8 {
		return s[:1], false
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return s[:1], false
	}
	return s[:n], unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Zs, unicode.Cf)
}

// escapes are the bytes that have a letter of their own behind a backslash.
var escapes = map[byte]string{'\a': `\a`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\v': `\v`}

// escape words what cannot be printed as C does, byte by byte.
func escape(char string) string {
	var b strings.Builder
	for i := range len(char) {
		if e, ok := escapes[char[i]]; ok {
			b.WriteString(e)
		} else {
			fmt.Fprintf(&b, `\%03o`, char[i])
		}
	}
	return b.String()
}

// quote puts s, a part of the command line, into the quotes of the locale.
func (l Locale) quote(s string) string {
	left, right := "'", "'"
	if l.UTF8 {
		left, right = "‘", "’"
	}
	var b strings.Builder
	b.WriteString(left)
	for len(s) > 0 {
		char, printable := l.next(s)
		s = s[len(char):]
		switch {
		case !printable:
			b.WriteString(escape(char))
		case char == `\`, char == right:
			b.WriteString(`\` + char)
		default:
			b.WriteString(char)
		}
	}
	b.WriteString(right)
	return b.String()
}

// plainInQuotes are the punctuation marks that mean nothing to a shell, nor to it
// between double quotes.
const plainInQuotes = "%'+,-./:@]_ "

// file quotes the name of a file so that a shell takes it back.
func (l Locale) file(s string) string {
	double := strings.Contains(s, "'") // then double quotes are tried
	var single strings.Builder
	single.WriteByte('\'')
	escaping := false
	for rest, i := s, 0; len(rest) > 0; i++ {
		char, printable := l.next(rest)
		rest = rest[len(char):]
		if !printable {
			if !escaping {
				single.WriteString(`'$'`)
			}
			single.WriteString(escape(char))
			escaping, double = true, false
			continue
		}
		if c := char[0]; c < utf8.RuneSelf && !isAlnum(c) && !strings.Contains(plainInQuotes, char) && (i > 0 || c != '#' && c != '~') {
			double = false
		}
		switch {
		case char == "'":
			single.WriteString(`'\''`)
		case escaping:
			single.WriteString("''" + char)
		default:
			single.WriteString(char)
		}
		escaping = false
	}
	if double {
		return `"` + s + `"`
	}
	return single.String() + "'"
}

// fileIfNeeded quotes the name of a file if it needs that, or has a colon.
func (l Locale) fileIfNeeded(s string) string {
	if s == "" || s == "{" || s == "}" || s[0] == '#' || s[0] == '~' || strings.ContainsAny(s, "!\"$&'()*:;<=>?[\\^`| ") {
		return l.file(s)
	}
	for rest := s; len(rest) > 0; {
		char, printable := l.next(rest)
		if !printable {
			return l.file(s)
		}
		rest = rest[len(char):]
	}
	return s
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// reason is what strerror(3) says of an error.
func reason(err syscall.Errno) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}
