package guard

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// elsewhere says of codes that no captured host can have which test proves them.
var elsewhere = map[Code]string{
	// What is seen only of a file that is being written or opened.
	HoldLease: "TestLeaseBreaks", HoldRenamed: "TestNameIsSwapped", HoldWatch: "TestWatcherEnds", HoldDenied: "TestGate", HoldInForce: "TestGate",
	FileShut: "TestGateRefusesAnotherGuard", FlockHeld: "TestFlock", HoldUnclaimed: "TestUnclaimed",
	// What needs a source, or an assertion.
	SelfOverlap: "TestOverlap", DomainUnproven: "TestDomainAssertion", DomainOther: "TestDomainAssertion",
	DomainRunning: "TestDomainMustBeDown", DomainRestarting: "TestDomainMustBeDown",
	// What their collectors could not read others say; these say only that they were late.
	"blind.holders": "TestLateCollector", "blind.near": "TestLateCollector",
}

// neverOverridden says of codes which test proves that they can be overridden.
var neverOverridden = map[Code]string{
	XenDisagree: "TestOffersAreExact", // beside it there is always the disk itself, which nothing overrides
}

// Every code is in the verdict on some captured host, and where an override or the
// assertion of its domain is said to help, there is one that it helps.
func TestEveryCodeIsProved(t *testing.T) {
	seen, helped, asserted := map[Code]bool{}, map[Code]bool{}, map[Code]bool{}
	for _, c := range hostCases(t) {
		if c.store != nil {
			c.store = memo(c.store)
		}
		for _, q := range c.questions(t) {
			v, fs, err := examine(t, c.root, c.store, q, Collectors())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range v.All() {
				seen[f.Code] = true
			}
			free := Policy{Operation: q.op, Override: v.Overrides()}.Judge(fs)
			if v.Decision == Refuse && free.Decision == Proceed {
				for _, f := range free.Overridden {
					helped[f.Code] = true
				}
			}
			if name := v.Domain(); v.Decision == Refuse && name != "" {
				meant := Policy{Operation: q.op, Domain: name}
				meant.Override = meant.Judge(fs).Overrides()
				if meant.Judge(fs).Decision == Proceed {
					for _, f := range v.Because {
						if f.Domain == name || f.Domain == "" && ruleOf(f.Code).AtRest {
							asserted[f.Code] = true
						}
					}
				}
			}
		}
	}
	for _, r := range rules {
		_, other := elsewhere[r.Code]
		if seen[r.Code] == other {
			t.Errorf("%s: on a captured host: %v; excused: %v", r.Code, seen[r.Code], other)
		}
		_, excused := neverOverridden[r.Code]
		if r.Override && !other && helped[r.Code] == excused {
			t.Errorf("%s: overridden on a captured host: %v; excused: %v", r.Code, helped[r.Code], excused)
		}
		if r.AtRest && !other && !asserted[r.Code] {
			t.Errorf("%s: no captured host proceeds with --domain", r.Code)
		}
	}
	tests := testNames(t)
	for _, m := range []map[Code]string{elsewhere, neverOverridden} {
		for code, name := range m {
			if !slices.Contains(tests, name) {
				t.Errorf("%s: there is no test %s", code, name)
			}
		}
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testNames lists the tests of this package.
func testNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
			out = append(out, strings.TrimSpace(m[1]))
		}
	}
	return out
}
