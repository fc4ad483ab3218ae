package argv

import (
	"fmt"
	"slices"
	"strings"
)

// How says how a program takes the path of a place.
type How uint8

const (
	Exact  How = iota // the path is the target
	Auto              // the path is the target, or, where it is a directory, as Inside
	Inside            // what is in that directory by the names of From
	Left              // the path is removed if it is moved to another file system
	Commit            // the path and the file that it is an overlay of, into which it is merged
	Base              // the path, into which its overlays From are merged
	Volume            // a logical volume, as "/dev/GROUP/NAME"
	Group             // all logical volumes of a group, as "/dev/GROUP"
)

// A Place is where a command would write.
type Place struct {
	How  How
	Path string
	From []string // what is copied there

	Tree    bool   // a directory of From is merged with what is there
	Follow  bool   // so is what a symbolic link in that directory leads to
	Parents bool   // each of From keeps its whole path below the place
	Keep    bool   // what is there already stays as it is
	To      string // of Left: where it goes
}

// An UntoldError says that a command line does not tell what it writes to.
type UntoldError struct{ Why string }

func (e *UntoldError) Error() string { return e.Why }

func untold(format string, args ...any) error { return &UntoldError{fmt.Sprintf(format, args...)} }

// A program is a row of the table.
type program struct {
	names   string // separated by blanks
	options grammar
	places  func(*line) ([]Place, error)
	plain   bool // see Plain

	// careful gives the places of a line with an option that nobody knows: one for
	// each word where it is nil.
	careful func(words []string) []Place
}

// Programs lists the names of the programs that Places knows.
func Programs() []string {
	var out []string
	for _, p := range table() {
		out = append(out, p.all()...)
	}
	return out
}

// Knows reports whether a program is in the table.
func Knows(name string) bool { return slices.Contains(Programs(), name) }

// Plain reports whether a program writes to files as dd does, so that what stops no
// dd, one who reads the file, stops it neither.
func Plain(name string) bool {
	return slices.ContainsFunc(table(), func(p program) bool { return p.plain && slices.Contains(p.all(), name) })
}

// Places says where a program would write that is given args. There are none where
// it would only read, or end with help. posix: POSIXLY_CORRECT is in the environment.
func Places(name string, args []string, posix bool) ([]Place, error) {
	for _, p := range table() {
		if !slices.Contains(p.all(), name) {
			continue
		}
		l := p.options.parse(args, posix)
		if l.has("help", "version") && !l.unknown {
			return nil, nil
		}
		places, err := p.places(l)
		if err != nil || !l.unknown {
			return places, err
		}
		careful := p.careful
		if careful == nil {
			careful = exact
		}
		return append(places, careful(l.words)...), nil
	}
	return nil, untold("which operands of %q are targets is not known", name)
}

// exact makes every path a place. Standard output ("-") is none.
func exact(paths []string) []Place {
	var out []Place
	for _, p := range paths {
		if p != "" && p != "-" {
			out = append(out, Place{Path: p})
		}
	}
	return out
}

func operands(l *line) ([]Place, error) { return exact(l.operands), nil }

func first(l *line) ([]Place, error) { return exact(l.operands[:min(1, len(l.operands))]), nil }

// words makes every word a place, and every part of one that is a list, like
// "logdev=/dev/x,size=64m".
func words(l *line) ([]Place, error) {
	out := exact(l.words)
	for _, w := range l.words {
		for part := range strings.SplitSeq(w, ",") {
			if _, value, ok := strings.Cut(part, "="); ok && part != w {
				out = append(out, exact([]string{value})...)
			}
		}
	}
	return out, nil
}

// unless is places, but none where one of the options is there that make the
// program write nothing.
func unless(places func(*line) ([]Place, error), options ...string) func(*line) ([]Place, error) {
	return func(l *line) ([]Place, error) {
		if l.has(options...) {
			return nil, nil
		}
		return places(l)
	}
}
