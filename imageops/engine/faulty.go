package engine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// faulty gives chosen ops a fault before the engine behind it gets them.
type faulty struct {
	Engine
	bad error // why the script cannot be run

	mu     sync.Mutex
	faults []fault
	seen   map[string]int // ops started so far, by kind and, as "*", in all
}

// A fault is one clause of a script.
type fault struct {
	kind  string // of the ops it is for; "*": all
	at    int    // the how manieth of them, from 1; 0: every one
	errno syscall.Errno
	short int           // bytes to do; negative: all
	delay time.Duration // before it is done
}

// Faulty is e with faults, for tests. A script is made of clauses:
//
//	write 3 EIO; write 7 short 512; read * delay 5ms
//
// A clause has a kind (read, write, zero, sync, call, * for any), the position
// among the ops of that kind in order of Start (from 1, * for every one), and
// what happens: an errno instead of the op, "short N" (only the first N bytes
// are read or written), or "delay D" (a Go duration, then the op). The first
// clause that fits an op holds. With a script that is wrong every Start fails.
func Faulty(e Engine, script string) Engine {
	f := &faulty{Engine: e, seen: map[string]int{}}
	f.faults, f.bad = parseScript(script)
	return f
}

func (f *faulty) Start(ctx context.Context, op *Op) error {
	if f.bad != nil {
		return f.bad
	}
	op.fault = f.next(op.Kind.String())
	return f.Engine.Start(ctx, op)
}

func (f *faulty) String() string { return "faulty " + f.Engine.String() }

// next counts an op and finds its fault.
func (f *faulty) next(kind string) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[kind]++
	f.seen["*"]++
	for i, x := range f.faults {
		if (x.kind == kind || x.kind == "*") && (x.at == 0 || x.at == f.seen[x.kind]) {
			return &f.faults[i]
		}
	}
	return nil
}

// do carries op out the faulty way.
func (x *fault) do(op *Op) (int, error) {
	time.Sleep(x.delay)
	if x.errno != 0 {
		return 0, x.errno
	}
	if x.short >= 0 {
		return op.do(op.Buf[:min(x.short, len(op.Buf))])
	}
	return op.do(op.Buf)
}

func parseScript(script string) ([]fault, error) {
	var faults []fault
	for clause := range strings.SplitSeq(script, ";") {
		words := strings.Fields(clause)
		if len(words) == 0 {
			continue
		}
		x, err := parseClause(words)
		if err != nil {
			return nil, fmt.Errorf("fault %q: %w", strings.TrimSpace(clause), err)
		}
		faults = append(faults, x)
	}
	return faults, nil
}

func parseClause(w []string) (fault, error) {
	x := fault{short: -1}
	if len(w) < 3 {
		return x, fmt.Errorf("want kind, position and fault")
	}
	if x.kind = w[0]; x.kind != "*" && !isKind(x.kind) {
		return x, fmt.Errorf("no kind %q", w[0])
	}
	if w[1] != "*" {
		at, err := strconv.Atoi(w[1])
		if err != nil || at < 1 {
			return x, fmt.Errorf("no position %q", w[1])
		}
		x.at = at
	}
	switch what := w[2]; {
	case what == "short" && len(w) == 4:
		n, err := strconv.Atoi(w[3])
		if err != nil || n < 0 {
			return x, fmt.Errorf("no byte count %q", w[3])
		}
		x.short = n
	case what == "delay" && len(w) == 4:
		d, err := time.ParseDuration(w[3])
		if err != nil {
			return x, err
		}
		x.delay = d
	case len(w) == 3 && errno(what) != 0:
		x.errno = errno(what)
	default:
		return x, fmt.Errorf("no fault %q", strings.Join(w[2:], " "))
	}
	return x, nil
}

func isKind(s string) bool {
	for _, k := range kinds {
		if s == k {
			return true
		}
	}
	return false
}

// errno is the number behind a name such as EIO, as unix.ErrnoName spells it; 0 if there is none.
func errno(name string) syscall.Errno {
	for no := syscall.Errno(1); no < 4096; no++ {
		if unix.ErrnoName(no) == name {
			return no
		}
	}
	return 0
}
