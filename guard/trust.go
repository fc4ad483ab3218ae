package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// statementsFile is where the operator's statements lie unless Host.Local moves
// them.
const statementsFile = "/etc/imgward/local"

func statementsPath(host *Host) string {
	if host.Local != "" {
		return host.Local
	}
	return statementsFile
}

// A Statement says that only this host uses a thing. Who and When are for
// people to read.
type Statement struct {
	Thing
	Who  string
	When time.Time
}

// String is the statement as a line of its file has it.
func (s Statement) String() string {
	return fmt.Sprintf("%s %s is %s says %s at %s", s.Kind, quote(s.Name), quote(s.Identity), quote(s.Who), s.When.UTC().Format(time.RFC3339))
}

// parseStatements reads the file of statements: one a line, in the words of
// String, beside empty lines and lines that begin with #. Any other line is an
// error, since it may be what is left of a statement.
func parseStatements(text string) ([]Statement, error) {
	var out []Statement
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseStatement(line)
		if err != nil {
			return nil, fmt.Errorf("malformed statement %q: %w", line, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseStatement(line string) (Statement, error) {
	w, err := splitWords(line)
	if err != nil {
		return Statement{}, err
	}
	if len(w) != 8 || w[2] != "is" || w[4] != "says" || w[6] != "at" {
		return Statement{}, errors.New("want \"KIND NAME is IDENTITY says WHO at TIME\"")
	}
	if w[0] != thingMount && w[0] != thingVG && w[0] != thingDevice {
		return Statement{}, fmt.Errorf("no kind of thing %q", w[0])
	}
	if w[1] == "" || w[3] == "" {
		return Statement{}, errors.New("an empty name or identity")
	}
	when, err := time.Parse(time.RFC3339, w[7])
	if err != nil {
		return Statement{}, err
	}
	s := Statement{Thing: Thing{w[0], w[1], w[3]}, Who: w[5], When: when}
	if s.String() != line {
		return Statement{}, fmt.Errorf("want it written as %s", s)
	}
	return s, nil
}

// splitWords cuts a line at single spaces; a word in quotation marks is a Go
// string.
func splitWords(line string) ([]string, error) {
	var out []string
	for rest := line; rest != ""; {
		word, _, _ := strings.Cut(rest, " ")
		used := len(word)
		if rest[0] == '"' {
			q, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, err
			}
			if word, err = strconv.Unquote(q); err != nil {
				return nil, err
			}
			used = len(q)
		}
		out = append(out, word)
		after, blank := strings.CutPrefix(rest[used:], " ")
		if !blank && after != "" || blank && after == "" {
			return nil, fmt.Errorf("stray text %q", rest[used:])
		}
		rest = after
	}
	return out, nil
}

// Statements lists what was stated on this host, in the order of the file. No
// file is no statement.
func Statements(host *Host) ([]Statement, error) {
	b, err := host.FS.ReadFile(statementsPath(host))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseStatements(string(b))
}

// TrustLocal states, on behalf of who, that only this host uses what name is: a
// mount point, a block device, or, when it has no slash, a volume group. It
// replaces what was stated of the same name before, and is on disk when TrustLocal
// returns.
func TrustLocal(ctx context.Context, host *Host, name, who string, now time.Time) (Statement, error) {
	th, err := thingNamed(ctx, host, name)
	if err != nil {
		return Statement{}, fmt.Errorf("trust %s: %w", quote(name), err)
	}
	s := Statement{Thing: th, Who: who, When: now.UTC().Truncate(time.Second)}
	err = editStatements(host, func(old []Statement, lines []string) []string {
		return append(without(old, lines, th), s.String())
	})
	return s, err
}

// ForgetLocal takes back what was stated of a name, as Statements lists it. The
// error is fs.ErrNotExist when nothing was.
func ForgetLocal(host *Host, name string) error {
	found := false
	err := editStatements(host, func(old []Statement, lines []string) []string {
		for _, s := range old {
			if s.Name == name {
				found, lines = true, without(old, lines, s.Thing)
			}
		}
		return lines
	})
	if err == nil && !found {
		err = fmt.Errorf("forget %s: nothing was stated of it: %w", quote(name), fs.ErrNotExist)
	}
	return err
}

// without leaves out the lines of the statements about a thing of this name.
func without(old []Statement, lines []string, th Thing) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return slices.ContainsFunc(old, func(s Statement) bool {
			return s.Kind == th.Kind && s.Name == th.Name && s.String() == line
		})
	})
}

// editStatements replaces the lines of the file by what edit makes of them,
// while nobody else does. A file that cannot be understood is left alone.
func editStatements(host *Host, edit func(old []Statement, lines []string) []string) error {
	file := statementsPath(host)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close() // gives the lock back; nothing was written through it
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", quote(dir.Name()), err)
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old, err := parseStatements(string(text))
	if err != nil {
		return fmt.Errorf("read %s: %w", quote(file), err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	if len(lines) == 0 {
		lines = []string{"# What only this host uses, as stated with \"imgward trust-local\"."}
	}
	return replaceFile(file, []byte(strings.Join(edit(old, lines), "\n")+"\n"))
}
