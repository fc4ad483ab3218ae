package argv

import "strings"

// A grammar is what options a program knows.
type grammar struct {
	// short lists the letters as getopt(3) does: ":" behind one says that it takes a
	// value, "::" that it takes one that is joined to it.
	short string

	// long lists the words, separated by blanks: "=" behind one says that it takes a
	// value, "?" that it takes one that is joined to it.
	long string

	// inOrder: the first operand ends the options.
	inOrder bool
}

// An option is one of a command line, by its letter or its whole word.
type option struct {
	name  string
	value string
}

// A line is a command line that was taken apart.
type line struct {
	options  []option
	operands []string

	// unknown: there is an option that the grammar does not have, or that stands for
	// several, or lacks its value. It was passed over as one without a value.
	unknown bool

	// words is all that could be the name of a file, whatever an unknown option
	// means: operands, and values of options.
	words []string
}

func (l *line) has(names ...string) bool { return len(l.values(names...)) > 0 }

// values gives the values of the options of these names, in their order.
func (l *line) values(names ...string) []string {
	var out []string
	for _, o := range l.options {
		for _, n := range names {
			if o.name == n {
				out = append(out, o.value)
			}
		}
	}
	return out
}

// parse takes a command line apart as getopt_long(3) does: options may stand behind
// operands, unless posix (POSIXLY_CORRECT in the environment) or the grammar says
// otherwise, "--" ends them, letters may be clustered, words abbreviated.
func (g grammar) parse(args []string, posix bool) *line {
	l := &line{}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			l.operands = append(l.operands, args[i+1:]...)
			l.words = append(l.words, args[i+1:]...)
			return l
		case len(arg) < 2 || arg[0] != '-':
			l.words = append(l.words, arg)
			if _, value, ok := strings.Cut(arg, "="); ok {
				l.words = append(l.words, value)
			}
			l.operands = append(l.operands, arg)
			if posix || g.inOrder {
				l.operands = append(l.operands, args[i+1:]...)
				l.words = append(l.words, args[i+1:]...)
				return l
			}
		case strings.HasPrefix(arg, "--"):
			i += g.word(l, arg[2:], args[i+1:])
		default:
			i += g.cluster(l, arg[1:], args[i+1:])
		}
	}
	return l
}

// word takes an option of one word, and says how many of the next arguments are its
// value.
func (g grammar) word(l *line, text string, next []string) int {
	name, value, joined := strings.Cut(text, "=")
	if joined {
		l.words = append(l.words, value)
	}
	full, takes := g.find(name)
	switch {
	case full == "":
		l.unknown = true
		return 0
	case takes != '=' || joined:
		l.options = append(l.options, option{full, value})
		return 0
	case len(next) == 0:
		l.unknown = true
		return 0
	}
	l.options = append(l.options, option{full, next[0]})
	l.words = append(l.words, next[0])
	return 1
}

// find gives the word that name is, or is the only one to begin with, and '=' or '?'
// where it takes a value.
func (g grammar) find(name string) (full string, takes byte) {
	found := 0
	for _, w := range strings.Fields(g.long) {
		bare := strings.TrimRight(w, "=?")
		kind := byte(0)
		if len(bare) < len(w) {
			kind = w[len(w)-1]
		}
		if bare == name {
			return bare, kind
		}
		if name != "" && strings.HasPrefix(bare, name) {
			full, takes = bare, kind
			found++
		}
	}
	if found != 1 {
		return "", 0
	}
	return full, takes
}

// cluster takes options of one letter each, and says how many of the next arguments
// are the value of the last.
func (g grammar) cluster(l *line, letters string, next []string) int {
	for i := range len(letters) {
		rest := letters[i+1:]
		at := -1
		if letters[i] != ':' {
			at = strings.IndexByte(g.short, letters[i])
		}
		if at < 0 {
			l.unknown = true
			l.words = append(l.words, rest)
			continue
		}
		after := g.short[at+1:]
		name := letters[i : i+1]
		switch {
		case !strings.HasPrefix(after, ":"):
			l.options = append(l.options, option{name: name})
			continue
		case rest != "" || strings.HasPrefix(after, "::"):
			l.options = append(l.options, option{name, rest})
			l.words = append(l.words, rest)
			return 0
		case len(next) == 0:
			l.unknown = true
			return 0
		}
		l.options = append(l.options, option{name, next[0]})
		l.words = append(l.words, next[0])
		return 1
	}
	return 0
}
