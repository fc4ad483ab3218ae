package guard

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/quick"
)

var operations = []Operation{Overwrite, Clone, Create, Read, Check, DD, DDFile, DDNew}

// declaredCodes gives every Code that the package's source names.
func declaredCodes(t *testing.T) []Code {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []Code
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, codesIn(t, f)...)
	}
	if len(out) < 30 {
		t.Fatalf("only %d codes in the source", len(out))
	}
	return out
}

func codesIn(t *testing.T, f *ast.File) (out []Code) {
	t.Helper()
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != "Code" || len(spec.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Code(text))
		return true
	})
	return out
}

// Every code that a collector can write has one row in the table, and every row
// a text and a use.
func TestTableOfSeverities(t *testing.T) {
	used := declaredCodes(t)
	for _, c := range append(Collectors(), overlap{}) {
		if code := blindCode(c.Name()); !slices.Contains(used, code) {
			used = append(used, code)
		}
	}
	used = append(used, "blind.stack")
	for _, c := range used {
		n := 0
		for _, r := range rules {
			if r.Code == c {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s has %d rows", c, n)
		}
	}
	for _, r := range rules {
		if !slices.Contains(used, r.Code) {
			t.Errorf("nothing writes %s", r.Code)
		}
		if len(r.Text) < 20 || !strings.HasSuffix(r.Text, ".") {
			t.Errorf("%s has no text: %q", r.Code, r.Text)
		}
		if text, ok := ExplainCode(r.Code); !ok || !strings.HasPrefix(text, r.Text) {
			t.Errorf("explain %s: %q, %t", r.Code, text, ok)
		}
		if r.Override && max(r.Write, r.Source) == Never {
			t.Errorf("%s can be overridden and never can", r.Code)
		}
		if r.Override && max(r.Write, r.Source) == Note {
			t.Errorf("%s can be overridden and refuses nothing", r.Code)
		}
		if strings.HasPrefix(string(r.Code), "blind.") && (r.Write != Unsure || r.Source != Unsure) {
			t.Errorf("%s does not refuse", r.Code)
		}
		for code := range witnesses {
			if r.Code == code && (r.Write != Note || r.Source != Note) {
				t.Errorf("%s vouches and is no note", code)
			}
		}
	}
	if _, ok := ExplainCode("xen.vbd"); ok {
		t.Error("a text for a code that does not exist")
	}
}

// A code that is in no table refuses, and no override helps.
func TestUnknownCode(t *testing.T) {
	f := Finding{Code: "future.user", Key: "x", Vouched: "a promise"}
	for _, op := range operations {
		v := Policy{Operation: op, Override: []Override{{"future.user", "x"}}}.Judge([]Finding{f})
		if v.Decision != Refuse || v.Overrides() != nil {
			t.Errorf("%d: %s, offering %v", op, v.Decision, v.Overrides())
		}
	}
	if (Policy{}).Judge(nil).Decision != Proceed {
		t.Error("nothing found refuses")
	}
	if (Verdict{}).Err() == nil {
		t.Error("the zero verdict is no refusal")
	}
}

// randomFinding makes a finding as collectors write it, of a code in the table
// or of none.
func randomFinding(r *rand.Rand) Finding {
	f := Finding{Code: "future.user", Subject: "subject", Detail: "does something"}
	if i := r.IntN(len(rules) + 1); i < len(rules) {
		f.Code = rules[i].Code
	}
	f.Key = []string{"a", "b", "kernel"}[r.IntN(3)]
	f.Domain = []string{"", "", "web1", "web2"}[r.IntN(4)]
	f.besideDD = r.IntN(3) == 0
	if strings.HasPrefix(string(f.Code), "blind.") && r.IntN(2) == 0 {
		f.Vouched = "the kernel grants a lease"
	}
	return f
}

func randomFindings(r *rand.Rand) []Finding {
	out := make([]Finding, r.IntN(6))
	for i := range out {
		out[i] = randomFinding(r)
	}
	return out
}

// randomPolicy asserts no domain and overrides what may be overridden, and what
// may not be as well.
func randomPolicy(r *rand.Rand) Policy {
	p := Policy{Operation: operations[r.IntN(len(operations))]}
	for range r.IntN(8) {
		f := randomFinding(r)
		p.Override = append(p.Override, Override{f.Code, f.Key})
	}
	return p
}

// One more finding never turns a refusal into anything else, and one more
// override touches only what it names.
func TestJudgeIsMonotone(t *testing.T) {
	err := quick.Check(func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		p, fs, more := randomPolicy(r), randomFindings(r), randomFinding(r)
		if p.Judge(fs).Decision == Refuse {
			at := r.IntN(len(fs) + 1)
			if p.Judge(slices.Insert(slices.Clone(fs), at, more)).Decision == Proceed {
				t.Logf("%+v made bolder by %+v under %+v", fs, more, p)
				return false
			}
		}
		bolder := p
		o := Override{more.Code, more.Key}
		bolder.Override = append(slices.Clip(p.Override), o)
		gone := len(p.Judge(fs).Because)
		for _, f := range p.Judge(fs).Because {
			if (Override{f.Code, f.Key}) == o && f.Severity < Never {
				gone--
			}
		}
		return len(bolder.Judge(fs).Because) >= gone
	}, &quick.Config{MaxCount: 5000})
	if err != nil {
		t.Error(err)
	}
}

// The same under --domain, but that a finding may support the assertion: it then
// takes away that nothing did, and what is on the disk, which is the domain's then,
// and no other reason.
func TestJudgeIsMonotoneUnderAssertion(t *testing.T) {
	refused := 0
	err := quick.Check(func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 4))
		p, fs, more := randomPolicy(r), randomFindings(r), randomFinding(r)
		p.Domain = []string{"web1", "web2", "nobody"}[r.IntN(3)]
		after := p.Judge(slices.Insert(slices.Clone(fs), r.IntN(len(fs)+1), more)).Because
		for _, f := range p.Judge(fs).Because {
			if more.Domain == p.Domain && (f.Code == DomainUnproven || f.Domain == "" && (f.Code == ContentDirty || f.Code == ContentMember)) {
				continue
			}
			refused++
			if !slices.Contains(after, f) {
				t.Logf("%+v: %+v is no reason any more beside %+v", p, f, more)
				return false
			}
		}
		return true
	}, &quick.Config{MaxCount: 5000})
	if err != nil {
		t.Error(err)
	}
	if refused < 1000 {
		t.Errorf("only %d reasons", refused)
	}
}

// Nothing is lost: every finding is in exactly one part of the verdict.
func TestJudgeKeepsEverything(t *testing.T) {
	err := quick.Check(func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		p, fs := randomPolicy(r), randomFindings(r)
		v := p.Judge(fs)
		proceeds := len(v.Because) == 0
		return len(v.All()) == len(fs) && (v.Decision == Proceed) == proceeds && (v.Err() == nil) == proceeds
	}, &quick.Config{MaxCount: 2000})
	if err != nil {
		t.Error(err)
	}
}

// What a refusal offers is what makes the next judgement proceed, all of it and
// nothing else, and it can be read back from the line in which it is offered.
func TestOffersAreExact(t *testing.T) {
	offered := 0
	err := quick.Check(func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 3))
		p, fs := randomPolicy(r), randomFindings(r)
		v := p.Judge(fs)
		line := ""
		for _, h := range v.Hints() {
			if _, after, ok := strings.Cut(h, "add: "); ok {
				line = after
			}
		}
		if v.Overrides() == nil {
			never := slices.ContainsFunc(v.Because, func(f Finding) bool { return f.Severity == Never })
			return line == "" && (never || v.Decision == Proceed)
		}
		offered++
		next := p
		for word := range strings.FieldsSeq(line) {
			if word == "--override" {
				continue
			}
			o, err := ParseOverride(strings.TrimPrefix(word, "--override=")) // as dd wants it
			if err != nil {
				t.Log(err)
				return false
			}
			next.Override = append(slices.Clip(next.Override), o)
		}
		if next.Judge(fs).Decision != Proceed {
			t.Logf("%s is not enough for %+v", line, fs)
			return false
		}
		// One less is not enough.
		short := next
		short.Override = next.Override[:len(next.Override)-1]
		return short.Judge(fs).Decision == Refuse
	}, &quick.Config{MaxCount: 5000})
	if err != nil {
		t.Error(err)
	}
	if offered < 100 {
		t.Errorf("only %d refusals offered anything", offered)
	}
}

// Subjects that hold anything at all come back from the offered line as they
// are in the finding.
func TestOffersOfOddSubjects(t *testing.T) {
	for _, key := range []string{"web 1.7", "a:b", "x;rm -rf", "~root", "#1", "$(x)", "k\x1bey", "/dev/my disk", "ü", ""} {
		s := &Sheet{collector: "procfd"}
		s.Found(Finding{Code: FDRead, Subject: "process 1 (" + quote(key) + ")", Key: key})
		fs, _ := s.seal()
		v := Policy{}.Judge(fs)
		os := v.Overrides()
		if len(os) != 1 {
			t.Fatalf("%q: offers %v", key, os)
		}
		o, err := ParseOverride(os[0].String())
		if err != nil || strings.ContainsAny(o.Key, " \t\n;$~#:'\"\\`(){}*?<>|&!") {
			t.Errorf("%q: %v, %v", key, o, err)
		}
		if (Policy{Override: []Override{o}}).Judge(fs).Decision != Proceed {
			t.Errorf("%q: %v does not override its own finding", key, o)
		}
	}
}

func TestParseOverride(t *testing.T) {
	for _, s := range []string{
		"", ":", "fd.read", "fd.read:", ":x", "fd.nothing:x", "fd.write:x", "xen.vbd.connected:web1", "host.root:/",
		" fd.read:x", "FD.READ:x", "lease.free:kernel", "self.overlap:source", "domain.other:web1",
	} {
		if o, err := ParseOverride(s); err == nil {
			t.Errorf("%q is taken for %v", s, o)
		}
	}
	for s, want := range map[string]Override{
		"fd.read:backupd.17":         {FDRead, "backupd.17"},
		"blind.xen:/local/domain:x":  {"blind.xen", "/local/domain:x"},
		"source.used:kernel":         {SourceUsed, "kernel"},
		"xen.vbd.stale:domain.7":     {XenStale, "domain.7"},
		"mount.ro:/mnt/golden,image": {MountRO, "/mnt/golden,image"},
	} {
		if o, err := ParseOverride(s); err != nil || o != want || o.String() != s {
			t.Errorf("%q: %v, %v", s, o, err)
		}
	}
}

// An override needs the code and the subject, and one that was made by hand for
// what nothing overrides has no effect.
func TestOverrides(t *testing.T) {
	f := Finding{Code: FDRead, Key: "backupd.17"}
	for _, tt := range []struct {
		name     string
		op       Operation
		f        Finding
		override Override
		want     Decision
	}{
		{"code and subject", Overwrite, f, Override{FDRead, "backupd.17"}, Proceed},
		{"another subject", Overwrite, f, Override{FDRead, "backupd.18"}, Refuse},
		{"a part of the subject", Overwrite, f, Override{FDRead, "backupd"}, Refuse},
		{"no subject", Overwrite, f, Override{FDRead, ""}, Refuse},
		{"another code", Overwrite, f, Override{LeaseReaders, "backupd.17"}, Refuse},
		{"a writer", Overwrite, Finding{Code: FDWrite, Key: "x"}, Override{FDWrite, "x"}, Refuse},
		{"a live domain", Clone, Finding{Code: XenConnected, Key: "web1.7"}, Override{XenConnected, "web1.7"}, Refuse},
		{"the source's code, for a target", Overwrite, f, Override{SourceUsed, "backupd.17"}, Refuse},
		{"a source in use", Read, Finding{Code: XenConnected, Key: "web1.7"}, Override{SourceUsed, "web1.7"}, Proceed},
		{"a source in use, by the target's code", Read, Finding{Code: XenStale, Key: "web1.7"}, Override{XenStale, "web1.7"}, Refuse},
		{"a source that is half an image", Read, Finding{Code: SelfIncomplete, Key: "imgward.7"}, Override{SelfIncomplete, "imgward.7"}, Refuse},
		{"a source that nobody could look at", Read, Finding{Code: "blind.xen", Key: "xenstore"}, Override{"blind.xen", "xenstore"}, Proceed},
	} {
		v := Policy{Operation: tt.op, Override: []Override{tt.override}}.Judge([]Finding{tt.f})
		if v.Decision != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, v.Decision, tt.want)
		}
		if v.Decision == Proceed && len(v.Overridden) != 1 {
			t.Errorf("%s: the verdict does not say what was overridden", tt.name)
		}
	}
	for _, r := range rules {
		for _, op := range operations {
			severity, code := r.Write, r.Code
			if op == Read {
				if severity = r.Source; severity == Busy {
					code = SourceUsed
				}
			}
			v := Policy{Operation: op, Override: []Override{{code, "x"}}}.Judge([]Finding{{Code: r.Code, Key: "x"}})
			if (v.Decision == Proceed) != (severity == Note || severity < Never && ruleOf(code).Override) {
				t.Errorf("%s, overridden as %s: %s", r.Code, code, v.Decision)
			}
		}
	}
}

// What is in use for writing makes a source torn; what only reads it does not.
func TestSources(t *testing.T) {
	for code, want := range map[Code]Code{
		XenConnected: SourceUsed, XenNamed: SourceUsed, XenSysfs: SourceUsed, XenStale: SourceUsed, XenFailed: SourceUsed,
		LoopAttached: SourceUsed, HolderDM: SourceUsed, MountRW: SourceUsed, SwapActive: SourceUsed, HostRoot: SourceUsed,
		FDWrite: SourceUsed, LeaseRefused: SourceUsed, LeaseTaken: SourceUsed, DMOpen: SourceUsed, ExclHeld: SourceUsed,
		XenReadOnly: "", LoopReadOnly: "", MountRO: "", FDRead: "", FDVM: "", LeaseReaders: "", LeaseFree: "", DeviceReadOnly: "", SelfBinary: "",
		SelfWriting: SelfWriting, SelfIncomplete: SelfIncomplete, XenDisagree: XenDisagree, "blind.lease": "blind.lease",
	} {
		v := Policy{Operation: Read}.Judge([]Finding{{Code: code, Key: "x"}})
		var got Code
		if len(v.Because) > 0 {
			got = v.Because[0].Code
		}
		if got != want || (v.Decision == Proceed) != (want == "") {
			t.Errorf("%s of a source: %s because of %q, want %q", code, v.Decision, got, want)
		}
	}
}

// An assertion of whose disk it is refuses what is anybody else's and what is
// nobody's, and makes a note of what the owner left behind, never of what the
// owner has.
func TestDomainAssertion(t *testing.T) {
	of := func(c Code, domain string) Finding { return Finding{Code: c, Key: domain + ".7", Domain: domain} }
	for _, tt := range []struct {
		name string
		fs   []Finding
		want string // the code that refuses, or nothing
	}{
		{"nothing found", nil, "domain.unproven"},
		{"something that is nobody's", []Finding{{Code: LeaseFree}}, "domain.unproven"},
		{"a node that was left behind", []Finding{of(XenStale, "web1")}, ""},
		{"one that could not be looked at beside it", []Finding{of(XenStale, "web1"), {Code: "blind.lease"}}, "blind.lease"},
		{"a reader beside it", []Finding{of(XenStale, "web1"), {Code: FDRead}}, "fd.read"},
		{"a running domain", []Finding{of(XenConnected, "web1")}, "xen.vbd.connected"},
		{"a read-only disk of it", []Finding{of(XenReadOnly, "web1")}, "xen.vbd.readonly"},
		{"a running domain that may try again", []Finding{of(XenFailed, "web1")}, "xen.vbd.failed"},
		{"sources that disagree", []Finding{of(XenDisagree, "web1")}, "xen.disagree"},
		{"somebody else's", []Finding{of(XenStale, "web2")}, "domain.other"},
		{"somebody else's too", []Finding{of(XenStale, "web1"), of(XenStale, "web2")}, "domain.other"},
		{"somebody else's note", []Finding{of(XenStale, "web1"), of(XenForeign, "web2")}, "domain.other"},
		{"a name that begins alike", []Finding{of(XenStale, "web11")}, "domain.other"},
	} {
		v := Policy{Domain: "web1"}.Judge(tt.fs)
		got := ""
		if len(v.Because) > 0 {
			got = string(v.Because[0].Code)
		}
		if got != tt.want || (v.Decision == Proceed) != (tt.want == "") {
			t.Errorf("%s: %s because of %q, want %q", tt.name, v.Decision, got, tt.want)
		}
		if strings.HasPrefix(got, "domain.") && v.Overrides() != nil {
			t.Errorf("%s: offers %v", tt.name, v.Overrides())
		}
	}
	// With overrides of everything, somebody else's stays refused.
	p := Policy{Domain: "web1", Override: []Override{{XenStale, "web2.7"}, {DomainOther, "web2.7"}, {DomainUnproven, ""}}}
	if v := p.Judge([]Finding{of(XenStale, "web2")}); v.Decision != Refuse {
		t.Error("an override beat the assertion")
	}
}

func TestVerdictDomain(t *testing.T) {
	for _, tt := range []struct {
		domains []string
		want    string
	}{{nil, ""}, {[]string{"", "a", ""}, "a"}, {[]string{"a", "a"}, "a"}, {[]string{"a", "b"}, ""}, {[]string{"a", "b", "a"}, ""}} {
		var fs []Finding
		for _, d := range tt.domains {
			fs = append(fs, Finding{Code: XenReadOnly, Domain: d})
		}
		if got := (Policy{}).Judge(fs).Domain(); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.domains, got, tt.want)
		}
	}
}

// What is explained has each fact and its source, and no control character,
// whatever the findings hold.
func TestExplain(t *testing.T) {
	raw := "a\x1b[31m\nb\u202e"
	fs := []Finding{
		{Code: XenConnected, Subject: raw, Key: "x", Detail: "has it " + raw, Source: "/local " + raw, Remedy: "detach it"},
		{Code: "blind.procfd", Subject: raw, Key: "y", Detail: "could not look at " + raw, Source: raw, Vouched: raw},
		{Code: FDRead, Subject: "process 1", Key: "z", Detail: "has it open", Source: "/proc/1/fd/3"},
	}
	v := Policy{Override: []Override{{FDRead, "z"}}}.Judge(fs)
	v.Target, v.Looked = "/dev/sdb", []string{"3 processes"}
	var b strings.Builder
	if err := v.Explain(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"refusing to overwrite /dev/sdb\n", "  busy    a?[31m?b? has it", "          /local a?", "  note    could not look at",
		"  yours   process 1 has it open\n          /proc/1/fd/3\n", "  looked  3 processes\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	for _, text := range []string{b.String(), v.Err().Error()} {
		if strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("control characters in %q", text)
		}
	}
	if v.Err().Error() == "" || strings.Contains(v.Err().Error(), "\n") {
		t.Errorf("the error is %q", v.Err())
	}
	if got := fmt.Sprint(v.Codes()); got != "[xen.vbd.connected fd.read]" {
		t.Errorf("codes %s", got)
	}
}
