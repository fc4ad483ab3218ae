package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
)

// A Finding is one piece of evidence about the target.
type Finding struct {
	Code     Code     // stable, documented by explain, overridable or not
	Severity Severity // set by Judge from the table of codes
	Relation Relation // how what was found overlaps the target
	Subject  string   // domain 7 (web01) | process 2311 (tapdisk)
	Key      string   // the subject as --override takes it; safe in a shell
	Domain   string   // the domain's name, where the finding is about one
	Detail   string   // one sentence about the subject
	Source   string   // the path and the bytes that say so
	Remedy   string   // what to do about it, in the imperative
	Vouched  string   // for blindness: the stronger evidence that makes up for it

	record   bool // only a toolstack's record of a running domain says so
	onlyUs   bool // of readers: we are, and nobody else
	besideDD bool // dd to a file goes on all the same, for what else is known
}

// A Collector looks at one place where a use of the target can show. It writes
// what it finds and what it could not see to the sheet, and never returns early
// without saying so. Collectors of one look run at the same time.
type Collector interface {
	Name() string
	Reads() []string // patterns of the names it looks at, and the questions it asks
	Collect(ctx context.Context, host *Host, t *Target, s *Sheet)
}

// opening is a collector that opens the target. It runs after the others, which
// would see it: their questions to the kernel count openers. And it does not run
// where one of them found what nothing overrides, so that nobody is disturbed who
// is at work on the target.
type opening struct{ Collector }

// A Sheet takes down evidence the way testing.T takes failures: what was found
// is never lost by an early return. It may be used by several goroutines.
type Sheet struct {
	collector string

	mu     sync.Mutex
	sealed bool
	found  []Finding
	looked []string
	parts  []*Sheet // whose evidence follows what was found, in this order
}

// split gives n sheets for those who look at parts of the collector's place at the
// same time: what they find is told in the order of the parts.
func (s *Sheet) split(n int) []*Sheet {
	parts := make([]*Sheet, n)
	for i := range parts {
		parts[i] = &Sheet{collector: s.collector}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sealed {
		s.parts = append(s.parts, parts...)
	}
	return parts
}

// Found takes down evidence.
func (s *Sheet) Found(f Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed {
		return
	}
	if f.Key == "" {
		f.Key = f.Subject
	}
	f.Key = shellSafe(f.Key)
	s.found = append(s.found, f)
}

// Looked says how much was looked at: absence of evidence needs a size. what is
// the noun for one of them.
func (s *Sheet) Looked(n int, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sealed {
		s.looked = append(s.looked, count(n, what))
	}
}

// count writes a number of things: "1 process", "3 processes".
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Blind says that where could not be looked at because of err. What vanished
// with its process while it was looked at is no blindness.
func (s *Sheet) Blind(where string, err error) {
	s.blindTo(quote(where), where, where, err)
}

// blindTo is Blind with words of its own for what could not be looked at, and a
// key by which it is overridden.
func (s *Sheet) blindTo(what, key, where string, err error) {
	if vanished(where, err) {
		return
	}
	f := blind(s.collector, where, err)
	f.Key, f.Detail = key, fmt.Sprintf("could not look at %s: %v", what, reason(err))
	s.Found(f)
}

func blind(collector, where string, err error) Finding {
	f := Finding{
		Code: blindCode(collector), Subject: where, Key: where,
		Detail: fmt.Sprintf("could not look at %s: %v", quote(where), reason(err)),
		Source: where, Remedy: "run the command as root in the host's own namespaces, or repair what cannot be read",
	}
	var passing *passingError
	if errors.As(err, &passing) {
		f.Remedy = passing.until
	}
	return f
}

// A passingError is why something cannot be known now; until says what to wait for.
type passingError struct {
	error
	until string
}

// pattern gives a regular expression that is compiled when it is first wanted: a
// check wants few of them, and starts sooner without the others.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

var procEntry = pattern(`^/proc/[0-9]+(/|$)`)

// vanished tells a process that ended between the listing of /proc and the look
// at it, which hides nothing, from a place that could not be looked at.
func vanished(where string, err error) bool {
	return (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)) && procEntry().MatchString(where)
}

// shellSafe makes a subject usable as an unquoted shell word.
func shellSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r != ':' && r != '~' && r != '#' && !odd(r) {
			return r
		}
		return '_'
	}, s)
}

// shellWord writes s so that a shell reads it as one word and a terminal shows
// it: what cannot be printed is written as bash and zsh read it.
func shellWord(s string) string {
	if s != "" && shellSafe(s) == s && s[0] != '-' {
		return s
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		escaped := strconv.QuoteToASCII(s)
		return "$'" + strings.NewReplacer(`\"`, `"`, `'`, `\'`, `\\`, `\\`).Replace(escaped[1:len(escaped)-1]) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// seal ends the taking down and gives what was taken. Sealed again, it gives the
// same.
func (s *Sheet) seal() ([]Finding, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
	for _, p := range s.parts {
		found, looked := p.seal()
		s.found, s.looked = append(s.found, found...), append(s.looked, looked...)
	}
	s.parts = nil
	return s.found, s.looked
}

// final tells whether something was found that nothing overrides.
func (s *Sheet) final() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.parts, (*Sheet).final) ||
		slices.ContainsFunc(s.found, func(f Finding) bool { return ruleOf(f.Code).Write == Never })
}

// leaseGranted tells whether the kernel granted a lease on the target.
func (s *Sheet) leaseGranted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.found, func(f Finding) bool { return f.Code == LeaseFree })
}

// deadline is what one collector may take. A host with a thousand domains needs
// a tenth of a second; a file server that does not answer must not hang us.
const deadline = 5 * time.Second

// Evidence is what one look at the host yielded, in the collectors' order.
type Evidence struct {
	Findings []Finding
	Looked   []string // "214 processes", "9 domains"

	view *Target // with the block layer as this look found it
}

// Examine has all collectors look at the host at the same time and to the end,
// so that a person gets the full picture and not the first reason, and then those
// that open the target, one after the other. A collector that panics, or is not
// done within its deadline or when ctx ends, counts as blind, and what it found
// until then is kept.
func Examine(ctx context.Context, host *Host, t *Target, cs []Collector) Evidence {
	stackSheet := &Sheet{collector: "stack"}
	view := t.look(ctx, host, stackSheet.Blind)
	sheets := []*Sheet{stackSheet}
	var wg sync.WaitGroup
	var last, unproved []func()
	for _, c := range cs {
		s := &Sheet{collector: c.Name()}
		sheets = append(sheets, s)
		look := func() { s.run(ctx, c, host, view) }
		switch c.(type) {
		case opening:
			last = append(last, look)
		case spared:
			unproved = append(unproved, look)
		default:
			wg.Go(look)
		}
	}
	wg.Wait()
	if view.layered() || !slices.ContainsFunc(sheets, (*Sheet).leaseGranted) {
		for _, look := range unproved {
			look()
		}
	}
	for _, look := range last {
		if !slices.ContainsFunc(sheets, (*Sheet).final) {
			look()
		}
	}
	e := Evidence{view: view}
	for _, s := range sheets {
		found, looked := s.seal()
		e.Findings = append(e.Findings, found...)
		e.Looked = append(e.Looked, looked...)
	}
	e.Findings = gather(withoutRecords(e.Findings))
	vouch(e.Findings, view.severalWays(), view.layered())
	explainReaders(e.Findings)
	return e
}

// run lets c write to s until it is done or late.
func (s *Sheet) run(ctx context.Context, c Collector, host *Host, t *Target) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	done := make(chan struct{})
	t.handle.use()
	go func() {
		defer close(done)
		defer t.handle.release()
		defer func() {
			if p := recover(); p != nil {
				s.Found(blind(s.collector, c.Name(), fmt.Errorf("internal error: %v", p)))
				if host.Log != nil {
					host.Log.Error("collector panicked", "collector", c.Name(), "panic", p, "stack", string(debug.Stack()))
				}
			}
		}()
		c.Collect(ctx, host, t, s)
	}()
	select {
	case <-done:
		if err := ctx.Err(); err != nil {
			s.Found(blind(s.collector, c.Name(), err))
		}
	case <-ctx.Done():
		s.Found(blind(s.collector, c.Name(), fmt.Errorf("not done in time: %w", ctx.Err())))
		s.seal()
	}
}

// crew runs work in n goroutines and waits for them all. Where one panics, the caller
// does.
func crew(n int, work func()) {
	var wg sync.WaitGroup
	panics := make(chan any, n)
	for range n {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panics <- p
				}
			}()
			work()
		})
	}
	wg.Wait()
	select {
	case p := <-panics:
		panic(fmt.Sprint("internal error: ", p))
	default:
	}
}

// manyBlind is from how many processes on that a collector could not look at
// they are reported in one line.
const manyBlind = 8

// gather makes one finding of a collector's blindness to many processes, as it
// befalls whoever is not root.
func gather(fs []Finding) []Finding {
	blind := map[Code]int{}
	for _, f := range fs {
		if f.blindToProcess() {
			blind[f.Code]++
		}
	}
	said := map[Code]bool{}
	var out []Finding
	for _, f := range fs {
		if n := blind[f.Code]; f.blindToProcess() && n > manyBlind {
			if said[f.Code] {
				continue
			}
			said[f.Code] = true
			f.Key, f.Detail = "processes", fmt.Sprintf("%s, and so with %d processes more", f.Detail, n-1)
		}
		out = append(out, f)
	}
	return out
}

// withoutRecords leaves out what a toolstack's record of a running domain says
// when that domain's disk in xenstore says it, which nothing overrides.
func withoutRecords(fs []Finding) []Finding {
	connected := map[string]bool{}
	for _, f := range fs {
		connected[f.Domain] = connected[f.Domain] || f.Code == XenConnected
	}
	return slices.DeleteFunc(fs, func(f Finding) bool { return f.record && connected[f.Domain] })
}

// isBlind tells a finding about what could not be looked at.
func (f Finding) isBlind() bool { return strings.HasPrefix(string(f.Code), "blind.") }

func (f Finding) blindToProcess() bool {
	return f.isBlind() && procEntry().MatchString(f.Source)
}

// vouch marks the blindness that stronger evidence makes up for: a lease that
// was granted proves that no process and no part of the kernel has the file
// open, whoever could not be looked at. On a disk that is reached in several ways
// the kernel keeps claims of each way by itself, so that a free one proves
// nothing. A lease on a file of overlayfs does not know of its mappings, and those
// are seen nowhere but in the processes.
func vouch(fs []Finding, severalWays, layered bool) {
	for i := range fs {
		for _, w := range fs {
			blindly := w.Code == ExclFree && severalWays || w.Code == LeaseFree && layered && fs[i].Code == "blind.procfd"
			if slices.Contains(witnesses[w.Code], fs[i].Code) && !blindly {
				fs[i].Vouched = w.Subject + " " + w.Detail
			}
		}
	}
}

// explainReaders marks a lease that readers keep us from as one that dd does without,
// where a process is known that reads the very file, or nobody does but we. Readers
// that no line names may be a machine's.
func explainReaders(fs []Finding) {
	known := slices.ContainsFunc(fs, func(f Finding) bool { return f.Code == FDRead && f.Relation == Same })
	for i := range fs {
		fs[i].besideDD = fs[i].besideDD || (known || fs[i].onlyUs) && fs[i].Code == LeaseReaders
	}
}
