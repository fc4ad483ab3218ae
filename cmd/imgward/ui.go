package main

// Rules of speech. Results go to standard output, everything else to standard
// error. One fact a line, in lower case, without a full stop; what is foreign is
// quoted. A refusal says who, where that can be seen, what became of the target,
// and then, behind "hint:", what to do; words behind "add: " are made to be
// appended to the command as they are, and those behind "if you know better: " of
// preflight are a command line. --json says the same things with stable
// codes, as one object a line on standard output. -q says nothing at all, and
// the exit status says it; but for a claim in xenstore that stays behind, because
// Xen refuses a device by it long after that.

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"imgward/guard"
)

type ui struct {
	con     *console
	json    bool
	quiet   bool
	verbose bool
	pace    pace
	writes  bool // the command is one that could have written

	noted notes
}

// notes are what was worth saying beside the work on a target.
type notes struct {
	about string // in front of each: which of several targets it is

	mu   sync.Mutex
	said []findingJSON
}

// note tells of a finding that stops nothing. It may be called from any goroutine.
func (u *ui) note(n *notes, f guard.Finding) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, findingObject(f, "note"))
	text := "note: " + n.about + printable(f.Subject+" "+f.Detail)
	if f.Code == guard.ClaimLeft {
		u.stays(text)
		return
	}
	u.remark("%s", text)
}

// all gives what was said.
func (n *notes) all() []findingJSON {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.said)
}

// common are the options that all commands have.
func common(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "say it as one JSON object a line"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing; the exit status tells"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more about the work, on standard error"},
	}, more...)
}

// judged are the options of commands that ask the guard.
func judged(more ...cli.Flag) []cli.Flag {
	return common(append([]cli.Flag{
		&cli.StringSliceFlag{Name: "override", Usage: "take the one finding `CODE:SUBJECT` upon yourself (repeatable)"},
	}, more...)...)
}

// targeted are the options of commands that ask the guard about a target.
func targeted(more ...cli.Flag) []cli.Flag {
	return judged(append([]cli.Flag{
		&cli.StringFlag{Name: "domain", Usage: "say that the target is a disk of domain `NAME`, which is shut down; anybody else's is refused"},
	}, more...)...)
}

// preset takes from a command line that may turn out to be malformed how that is
// to be said.
func (u *ui) preset(argv []string) {
	for _, arg := range argv {
		switch arg {
		case "--":
			return
		case "--json":
			u.json = true
		case "-q", "--quiet":
			u.quiet = true
		}
	}
}

func (u *ui) configure(c *cli.Context) {
	u.json, u.quiet, u.verbose = c.Bool("json"), c.Bool("quiet"), c.Bool("verbose")
}

// result prints a line that was asked for.
func (u *ui) result(format string, args ...any) {
	if !u.quiet && !u.json {
		fmt.Fprintf(u.con.out, format+"\n", args...)
	}
}

// remark prints a line beside the results.
func (u *ui) remark(format string, args ...any) {
	if !u.quiet && !u.json {
		fmt.Fprintf(u.con.err, format+"\n", args...)
	}
}

// stays prints a line about what stays behind, with -q, too.
func (u *ui) stays(line string) {
	if u.quiet || !u.json {
		fmt.Fprintln(u.con.err, line)
	}
}

// object prints v as JSON.
func (u *ui) object(v any) {
	if u.json && !u.quiet {
		// What is printed is made of strings and numbers, which always encode.
		b, err := json.Marshal(v)
		if err != nil {
			b = []byte(fmt.Sprintf("{%q:%q}", "error", err))
		}
		fmt.Fprintf(u.con.out, "%s\n", b)
	}
}

// fail says what went wrong with a command, and what became of the target.
func (u *ui) fail(err error, code int) {
	var silent *saidError
	if err == nil || errors.As(err, &silent) {
		return
	}
	told := u.noted.all()
	var one *targetError
	if errors.As(err, &one) {
		told = append(told, one.notes...)
	}
	var refused *guard.RefusedError
	if errors.As(err, &refused) {
		u.refusal(refused.Verdict, told, code)
		return
	}
	var left *guard.LeftError
	if u.quiet && errors.As(err, &left) {
		u.stays("imgward: " + printable(left.Error()))
	}
	var hints []string
	var confirm *confirmError
	var hinted *hintedError
	var stopped *stoppedError
	said := failure{Error: err.Error(), Exit: code, Notes: told}
	if one != nil {
		said.Target = one.target
	}
	switch {
	case errors.As(err, &stopped):
		hints = stopped.hints()
		stopped.object(&said)
	case errors.As(err, &confirm):
		hints = confirm.hints()
	case errors.As(err, &hinted):
		hints = hinted.advice
	}
	said.Hints = hints
	u.object(said)
	u.remark("imgward: %s", printable(err.Error()))
	if stopped != nil {
		stopped.say(u)
	}
	if u.writes {
		switch code {
		case exitFailed, exitConfirm, exitInterrupt:
			u.remark("nothing was written")
		case exitMismatch:
			if !wrote(err) {
				u.remark("nothing was written")
			}
		}
	}
	u.hint(hints)
}

// A saidError ends a command whose outcome was said already.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

func (u *ui) refusal(v guard.Verdict, told []findingJSON, code int) {
	o := verdictObject(v, "", code)
	o.Notes = told
	u.object(o)
	if !u.quiet && !u.json {
		// A console that cannot be written to is nothing that can be told there.
		_ = v.Explain(u.con.err)
	}
	if u.writes {
		u.remark("nothing was written")
	}
	u.hint(v.Hints())
}

func (u *ui) hint(hints []string) {
	for _, h := range hints {
		u.remark("hint: %s", h)
	}
}

type failure struct {
	Target  string        `json:"target,omitempty"` // of several
	Error   string        `json:"error"`
	Exit    int           `json:"exit"`
	Broken  *brokenJSON   `json:"broken,omitempty"`  // who came while the target was written
	Written []rangeJSON   `json:"written,omitempty"` // of a target that was written in part
	Notes   []findingJSON `json:"notes,omitempty"`   // what was told beside the work
	Hints   []string      `json:"hints,omitempty"`
}

type findingJSON struct {
	Code     guard.Code `json:"code"`
	Severity string     `json:"severity"`
	Override string     `json:"override,omitempty"`
	Relation string     `json:"relation"`
	Subject  string     `json:"subject"`
	Domain   string     `json:"domain,omitempty"`
	Detail   string     `json:"detail"`
	Source   string     `json:"source"`
	Remedy   string     `json:"remedy,omitempty"`
	Outcome  string     `json:"outcome"` // refuses | overridden | note | breaks the hold
}

func findingObject(f guard.Finding, outcome string) findingJSON {
	j := findingJSON{
		Code: f.Code, Severity: f.Severity.String(), Relation: f.Relation.String(), Subject: f.Subject, Domain: f.Domain,
		Detail: f.Detail, Source: f.Source, Remedy: f.Remedy, Outcome: outcome,
	}
	if guard.Overridable(f) {
		j.Override = guard.Override{Code: f.Code, Key: f.Key}.String()
	}
	return j
}

type verdictJSON struct {
	Decision string        `json:"decision"`
	Target   string        `json:"target"`
	Token    string        `json:"token,omitempty"`
	Findings []findingJSON `json:"findings"`
	Looked   []string      `json:"looked"`
	Holds    string        `json:"holds,omitempty"` // what is on the target, or why that and the token could not be read
	Hints    []string      `json:"hints,omitempty"`
	Notes    []findingJSON `json:"notes,omitempty"` // what was told beside the work, of a write that was refused in the end
	Exit     int           `json:"exit"`
}

func verdictObject(v guard.Verdict, token string, code int) verdictJSON {
	o := verdictJSON{Decision: v.Decision.String(), Target: v.Target, Token: token, Looked: v.Looked, Hints: v.Hints(), Exit: code, Findings: []findingJSON{}}
	add := func(fs []guard.Finding, outcome string) {
		for _, f := range fs {
			o.Findings = append(o.Findings, findingObject(f, outcome))
		}
	}
	add(v.Because, "refuses")
	add(v.Overridden, "overridden")
	add(v.Context, "note")
	return o
}

// printable replaces what is no visible character in an error's text, whose
// parts come from many hands: controls, and what changes the direction of text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// rate says how fast n bytes went in d, in the decimal units of disks.
func rate(n int64, d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f s, %.2f GB/s", d.Seconds(), float64(n)/d.Seconds()/1e9)
}
