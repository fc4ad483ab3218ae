package guard

import (
	"fmt"
	"slices"
	"strings"
)

// Operation is what the target is wanted for.
type Operation uint8

const (
	Overwrite Operation = iota // replace what is in an existing image or device
	Clone                      // the same, with a golden image
	Create                     // make a new file of the target's name
	Read                       // read it as the source of a copy
	Check                      // only ask what Overwrite would be told
	DD                         // dd's output: write to an existing device, as dd does
	DDFile                     // the same to an existing file
	DDNew                      // the same to a name under which nothing is
)

// dd tells dd's operations.
func (o Operation) dd() bool { return o == DD || o == DDFile || o == DDNew }

// on gives the operation as it is judged for a target of this kind. One who asks
// for dd does not know before what is there.
func (o Operation) on(k Kind) Operation {
	switch {
	case o.dd() && k == KindFile:
		return DDFile
	case o.dd() && k == KindMissing:
		return DDNew
	case o.dd():
		return DD
	case o == Check && k == KindMissing:
		return Create
	}
	return o
}

// String is the operation's name.
func (o Operation) String() string {
	return [...]string{"overwrite", "clone", "create", "read", "check", "dd", "dd", "dd"}[o]
}

// verb completes "refusing to".
func (o Operation) verb() string {
	return [...]string{"overwrite", "clone onto", "create", "copy from", "overwrite", "write to", "write to", "create"}[o]
}

// An Override takes away one finding's power to refuse: the one with this code
// and this subject.
type Override struct {
	Code Code
	Key  string
}

// String is the override as the command line takes it.
func (o Override) String() string { return string(o.Code) + ":" + o.Key }

// ParseOverride reads CODE:SUBJECT. The code must exist and be one that can be
// overridden, and the subject must not be empty: an override names what it
// overrides.
func ParseOverride(s string) (Override, error) {
	code, key, ok := strings.Cut(s, ":")
	if !ok || key == "" {
		return Override{}, fmt.Errorf("override %s: want CODE:SUBJECT, as the refusal shows it", quote(s))
	}
	r := ruleOf(Code(code))
	if r.Text == "" {
		return Override{}, fmt.Errorf("override %s: there is no finding %s", quote(s), quote(code))
	}
	if !r.Override {
		return Override{}, fmt.Errorf("override %s: nothing overrides %s", quote(s), code)
	}
	return Override{Code(code), key}, nil
}

// A Policy is what the operator said about the operation: what it is, whose
// disk the target is, and which findings he takes upon himself.
type Policy struct {
	Operation Operation
	Override  []Override
	Domain    string // the assertion of --domain; empty when none was made
}

// Decision is the outcome of judging.
type Decision uint8

const (
	Refuse  Decision = iota // the zero value refuses
	Proceed                 // nothing stands against it
)

// String is the word that --json and --porcelain print.
func (d Decision) String() string { return [...]string{"refuse", "proceed"}[d] }

// Judge weighs the findings. It is a pure and total function: more findings
// never make it bolder, except that an assertion of --domain needs a finding
// that supports it, and that what is on the disk is no reason then.
func (p Policy) Judge(fs []Finding) Verdict {
	v := Verdict{Operation: p.Operation}
	supported := p.Domain != "" && slices.ContainsFunc(fs, func(f Finding) bool { return f.Domain == p.Domain })
	for _, f := range fs {
		f, overridden := p.weigh(f, supported)
		switch {
		case overridden:
			v.Overridden = append(v.Overridden, f)
		case f.Severity == Note:
			v.Context = append(v.Context, f)
		default:
			v.Because = append(v.Because, f)
		}
	}
	if p.Domain != "" && !supported {
		v.Because = append(v.Because, Finding{
			Code: DomainUnproven, Severity: Never, Subject: "--domain", Domain: p.Domain,
			Detail: "nothing on this host says that it is a disk of " + quote(p.Domain),
			Source: "--domain " + quote(p.Domain), Remedy: "check the path and the domain's name",
		})
	}
	if supported {
		// The operator said whose disk he means, and it is.
		v.Context = slices.DeleteFunc(v.Context, func(f Finding) bool { return f.Code == NearName })
	}
	if len(v.Because) == 0 {
		v.Decision = Proceed
	}
	return v
}

// weigh gives a finding its severity under the policy, and tells whether the
// operator overrode it. supported: something says that the target is a disk of the
// domain that was named, so that what is on it is that domain's.
func (p Policy) weigh(f Finding, supported bool) (Finding, bool) {
	r := ruleOf(f.Code)
	f.Severity = r.severity(p.Operation)
	if p.Operation == DDFile && f.besideDD && f.Severity < Never {
		f.Severity = Note
	}
	if p.Operation == Read && f.Severity == Busy {
		r = ruleOf(SourceUsed)
		f.Code = r.Code
	}
	if f.Vouched != "" && f.Severity == Unsure {
		f.Severity = Note
	}
	if p.Domain != "" && f.Domain != "" {
		switch {
		case f.Domain != p.Domain:
			f.Code, f.Severity = DomainOther, Never
			f.Remedy = "check the path: it is not a disk of " + quote(p.Domain)
			return f, false
		case r.AtRest && f.Severity < Never:
			f.Severity = Note
		}
	}
	if supported && f.Domain == "" && (f.Code == ContentDirty || f.Code == ContentMember) {
		f.Severity = Note
	}
	if r.Override && f.Severity > Note && f.Severity < Never {
		for _, o := range p.Override {
			if o == (Override{f.Code, f.Key}) {
				return f, true
			}
		}
	}
	return f, false
}

// Overridable tells whether an override could take away the finding's power to
// refuse.
func Overridable(f Finding) bool {
	return f.Severity > Note && f.Severity < Never && ruleOf(f.Code).Override
}
