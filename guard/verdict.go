package guard

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// A Verdict is what the guard makes of a target, with the evidence.
type Verdict struct {
	Decision  Decision
	Operation Operation
	Target    string // the target in words

	Because    []Finding // what refuses, in the collectors' order
	Overridden []Finding // what would refuse had the operator not named it
	Context    []Finding // what is worth saying
	Looked     []string  // what was looked at
}

// A RefusedError is a refusal by the guard. Nothing was written.
type RefusedError struct{ Verdict Verdict }

func (e *RefusedError) Error() string {
	var why []string
	for _, f := range e.Verdict.Because {
		why = append(why, printable(f.sentence()))
	}
	return fmt.Sprintf("%s %s: %s", e.Verdict.head(), e.Verdict.Target, strings.Join(why, "; "))
}

// Err is nil when the operation may proceed, else a *RefusedError.
func (v Verdict) Err() error {
	if v.Decision == Proceed {
		return nil
	}
	return &RefusedError{v}
}

// All lists every finding: what refuses, what was overridden, the rest.
func (v Verdict) All() []Finding {
	return slices.Concat(v.Because, v.Overridden, v.Context)
}

// Codes lists the codes of all findings that are more than a note, in order
// and once each.
func (v Verdict) Codes() []Code {
	var out []Code
	for _, f := range slices.Concat(v.Because, v.Overridden) {
		if !slices.Contains(out, f.Code) {
			out = append(out, f.Code)
		}
	}
	return out
}

// Domain gives the name of the domain that the findings speak of, or "" when
// they speak of none or of several.
func (v Verdict) Domain() string {
	name := ""
	for _, f := range v.All() {
		if f.Domain == "" || f.Domain == name {
			continue
		}
		if name != "" {
			return ""
		}
		name = f.Domain
	}
	return name
}

// Overrides lists what the operator would have to add for the operation to
// proceed; nil when something that nothing overrides stands against it.
func (v Verdict) Overrides() []Override {
	var out []Override
	for _, f := range v.Because {
		if !Overridable(f) {
			return nil
		}
		if o := (Override{f.Code, f.Key}); !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

// Writing reports whether imgward or somebody else who shuts others out is at work on the
// target, so that even opening it for reading would disturb.
func (v Verdict) Writing() bool {
	return slices.ContainsFunc(v.All(), func(f Finding) bool { return f.Code == SelfWriting || f.Code == LeaseTaken || f.Code == FileShut })
}

// Incomplete reports whether an earlier write to the target was not finished.
func (v Verdict) Incomplete() bool {
	return slices.ContainsFunc(v.All(), func(f Finding) bool { return f.Code == SelfIncomplete })
}

func (v Verdict) head() string {
	if v.Decision == Proceed {
		return "free to " + v.Operation.verb()
	}
	return "refusing to " + v.Operation.verb()
}

// Explain writes the verdict for a person: the facts, each with its source on a
// line of its own, what was looked at, and what to do. It does not say whether
// anything was written, which the guard alone does not know.
func (v Verdict) Explain(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", v.head(), v.Target)
	for _, f := range v.Because {
		f.explain(&b, f.Severity.String())
	}
	for _, f := range v.Overridden {
		f.explain(&b, "yours")
	}
	for _, f := range v.Context {
		f.explain(&b, "note")
	}
	if len(v.Looked) > 0 {
		fmt.Fprintf(&b, "  %-7s %s\n", "looked", strings.Join(v.Looked, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Hints gives the lines of advice that follow an explanation. What stands
// behind "add: " is appended to the command as it is.
func (v Verdict) Hints() []string {
	var hints []string
	say := func(s string) {
		if s != "" && !slices.Contains(hints, s) {
			hints = append(hints, s)
		}
	}
	clearest := 0
	for _, f := range v.Because {
		clearest = max(clearest, f.clarity())
	}
	for _, f := range v.Because {
		if f.Remedy != "" && f.clarity() == clearest {
			say(f.advice())
		}
	}
	if os := v.Overrides(); os != nil {
		words := make([]string, len(os))
		for i, o := range os {
			words[i] = "--override " + o.String()
			if v.Operation.dd() {
				words[i] = "--override=" + o.String()
			}
		}
		say("if you know better, add: " + strings.Join(words, " "))
	}
	if len(v.Because) > 0 {
		worst := slices.MaxFunc(v.Because, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
		say("\"imgward explain " + string(worst.Code) + "\" says more")
	}
	return hints
}

// advice is the remedy and what follows it: the command again, or nothing where
// the remedy does the work instead.
func (f Finding) advice() string {
	if strings.HasPrefix(string(f.Code), "managed.") {
		return f.Remedy + " instead"
	}
	return f.Remedy + ", then run the command again"
}

// clarity ranks findings by how well they say who uses the target. The advice
// of one that does not is worth nothing beside that of one that does: what a
// domain uses is not to be detached or killed by hand.
func (f Finding) clarity() int {
	switch {
	case f.Code == ConfigNamed || f.Code == SavedNamed:
		return 1 // a running domain is said by its disk
	case f.Domain != "" || f.Code == LockGuest || f.Code == ChainLive || f.Code == SelfWriting || strings.HasPrefix(string(f.Code), "xen."):
		return 2
	case slices.Contains([]Code{LeaseRefused, LeaseReaders, DMOpen, ExclHeld, ContentDirty, ContentMember}, f.Code), f.isBlind():
		return 0
	}
	return 1
}

func (f Finding) explain(b *strings.Builder, word string) {
	fmt.Fprintf(b, "  %-7s %s\n", word, printable(f.sentence()))
	if f.Source != "" && f.Source != f.Subject {
		fmt.Fprintf(b, "          %s\n", printable(f.Source))
	}
}

// printable is the last line of defence for the terminal: collectors quote what
// is foreign, and a control character that got here all the same is replaced.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// sentence is the fact in one line.
func (f Finding) sentence() string {
	s := f.Detail
	if !f.isBlind() && f.Subject != "" {
		s = f.Subject + " " + s
	}
	if f.Vouched != "" && f.Severity == Note {
		s += ", but " + f.Vouched
	}
	return s
}
