package guard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"imgward/guard/hostfs"
)

// rescanEvery is how often the host is looked at again while a target is written
// that nothing keeps others away from.
const rescanEvery = time.Second

// changing are the collectors of what is cheap to look at and can change at any
// moment: who stands on the target, has it open in the kernel, mounts it, swaps to
// it; domains are looked for by the one given. The open files of all processes are
// not among them: they cost more than all the rest, and are looked at when
// device-mapper counts an opener too many.
func changing(domains Collector) []Collector {
	return []Collector{domains, holders{}, exports{}, dm{}, mounts{}, swaps{}}
}

// backends is the half of [xen] that asks the kernel alone, and not xenstore, whose
// changes are watched for instead.
type backends struct{}

func (backends) Name() string { return xen{}.Name() }

func (backends) Reads() []string { return xen{}.Reads() }

// Collect implements [Collector].
func (backends) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	x := &xenLook{host: host, t: t, s: s}
	x.kernel = x.readBackends()
	x.judgeKernel(nil)
}

// A rescan looks at the target again while it is written, and tells what has come
// since the writing began. It is behind every watcher that looks at the host, and
// behind the last look.
type rescan struct {
	host   *Host // whose patience is the rescan's own
	target *Target
	policy Policy
	names  []string  // of the collectors that looked before
	known  []Finding // of the look before the first byte
	proved []Finding // those of them that our own exclusive open goes on to prove
	notice func(Finding)

	told *toldOf
}

// toldOf is who was told of, and the processes that make up a device-mapper count.
type toldOf struct {
	mu       sync.Mutex
	findings []Finding
	pids     []string
}

// newRescan compares with before, which these collectors found and which was judged
// and let pass.
func newRescan(host *Host, t *Target, policy Policy, cs []Collector, before Evidence, notice func(Finding)) *rescan {
	r := &rescan{host: host, target: t.glancing(oneScan), policy: policy, known: before.Findings, notice: notice, told: &toldOf{}}
	for _, c := range cs {
		r.names = append(r.names, c.Name())
	}
	for _, f := range before.Findings {
		if f.Code == ExclFree && !before.view.severalWays() && !(before.view.held != nil && before.view.held.inherited) {
			r.proved = append(r.proved, f)
		}
	}
	return r
}

// glancing is the same rescan with another way to ask xenstore.
func (r *rescan) glancing(scan func(context.Context, Store) (*storeScan, error)) *rescan {
	other := *r
	other.target = r.target.glancing(scan)
	return &other
}

// look looks with those of the given collectors that looked before, and gives the
// finding that ends the write, or false. What may be a passing probe ends it only
// when it is there in every one of a few looks. A look that is not done in time is
// made once more, because we may have been stopped in it (SIGSTOP), and then ends
// it too. When ctx ends there is nothing to tell.
func (r *rescan) look(ctx context.Context, cs []Collector) (Finding, bool) {
	cs = slices.DeleteFunc(slices.Clone(cs), func(c Collector) bool { return !slices.Contains(r.names, c.Name()) })
	f, late := r.within(ctx, cs)
	if late {
		f, late = r.within(ctx, cs)
	}
	switch {
	case ctx.Err() != nil || f == nil && !late:
		return Finding{}, false
	case f == nil:
		return Finding{
			Code: HoldWatch, Subject: "the look at who came", Key: "rescan", Detail: "was not done within " + deadline.String(),
			Source: "rescan", Remedy: "find out what makes this host answer so slowly",
		}, true
	}
	return *f, true
}

// within looks for as long as a look may take, and tells one that was late: it
// saw nothing, or what may come of being late.
func (r *rescan) within(ctx context.Context, cs []Collector) (f *Finding, late bool) {
	start := time.Now()
	timed, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	found := make(chan *Finding, 1)
	r.target.handle.use()
	go func() {
		defer r.target.handle.release()
		found <- r.patient(timed, cs)
	}()
	select {
	case f = <-found:
	case <-timed.Done():
	}
	return f, time.Since(start) >= deadline && (f == nil || f.mayPass())
}

// patient is look without the limit of time. It ends with nothing only after a look
// whose findings are all explained: what a later look finds first is looked for as
// often as what the first one found. One passing thing after the other is no peace
// either.
func (r *rescan) patient(ctx context.Context, cs []Collector) *Finding {
	var stayed []Finding // what was in every look since look 0
	for i, rounds := 0, 0; ; i++ {
		fs := r.news(ctx, cs)
		for _, f := range fs {
			if !f.mayPass() {
				return &f
			}
		}
		if len(fs) == 0 {
			return nil
		}
		stayed = slices.DeleteFunc(stayed, func(f Finding) bool { return !has(fs, f) })
		if i == 0 || len(stayed) == 0 {
			i, stayed = 0, slices.Clone(fs)
			if rounds++; rounds > looks {
				return &fs[0]
			}
		}
		if r.host.again(ctx, i) {
			continue
		}
		if f := r.unexplained(ctx, stayed); f != nil || len(stayed) == len(fs) {
			return f
		}
		i, stayed = -1, nil // there is more, which came later
	}
}

// unexplained is the first of what stayed that more than readers stand behind.
func (r *rescan) unexplained(ctx context.Context, stayed []Finding) *Finding {
	for _, f := range stayed {
		if f.Code != DMOpen {
			return &f
		}
		if by := r.explain(ctx, f); by != nil {
			return by
		}
	}
	return nil
}

// mayPass tells what udev, LVM's tools or a device that is just being made look
// like for a moment from what somebody does on purpose.
func (f Finding) mayPass() bool {
	return f.Code == DMOpen || f.Code == XenStale || f.isBlind()
}

// has tells whether a finding with this code and about this subject is among fs.
func has(fs []Finding, f Finding) bool {
	return slices.ContainsFunc(fs, func(k Finding) bool { return k.Code == f.Code && k.Key == f.Key })
}

// news looks once and gives what refuses and was not known.
func (r *rescan) news(ctx context.Context, cs []Collector) []Finding {
	once := *r.host
	once.Patience = 0
	fs := append(Examine(ctx, &once, r.target, cs).Findings, r.proved...)
	vouch(fs, false, r.target.layered())
	return slices.DeleteFunc(fs, func(f Finding) bool {
		if f.Code == HoldDenied {
			r.tell(f)
		}
		weighed, overridden := r.policy.weigh(f, false)
		if overridden || weighed.Severity == Note || has(r.known, f) {
			return true
		}
		return f.Code == DMOpen && r.stillReaders(ctx)
	})
}

// tell tells once of one who breaks nothing.
func (r *rescan) tell(f Finding) {
	r.told.mu.Lock()
	defer r.told.mu.Unlock()
	if r.notice != nil && !has(r.told.findings, f) {
		r.told.findings = append(r.told.findings, f)
		r.notice(f)
	}
}

// explain looks for those whom device-mapper counts. Whoever only reads the device
// is told of, and breaks nothing; it is f, or what is worse, where that does not
// make up the whole count.
func (r *rescan) explain(ctx context.Context, f Finding) *Finding {
	readers, worse := r.openers(ctx, procfd{})
	if worse != nil {
		return worse
	}
	if !r.account(ctx, readers) {
		return &f
	}
	var pids []string
	for _, reader := range readers {
		r.tell(reader)
		pids = append(pids, pidOf(reader))
	}
	r.told.mu.Lock()
	defer r.told.mu.Unlock()
	r.told.pids = pids
	return nil
}

// stillReaders tells whether the readers that were told of make up the count, as
// far as they are still there.
func (r *rescan) stillReaders(ctx context.Context) bool {
	r.told.mu.Lock()
	pids := r.told.pids
	r.told.mu.Unlock()
	if len(pids) == 0 {
		return false
	}
	readers, worse := r.openers(ctx, procfd{only: pids})
	return worse == nil && r.account(ctx, readers)
}

// opener looks at a process that opened the device. One who reads is told of; the
// finding is about one who is still there after a few looks, and not for reading.
func (r *rescan) opener(ctx context.Context, pid string) *Finding {
	for i := 0; ; i++ {
		s := &Sheet{collector: procfd{}.Name()}
		once := *r.host
		once.Patience = 0
		procfd{only: []string{pid}}.Collect(ctx, &once, r.target, s)
		found, _ := s.seal()
		found = slices.DeleteFunc(found, func(f Finding) bool { return f.Relation != Same })
		switch {
		case len(found) == 0 || ctx.Err() != nil:
			return nil
		case r.host.again(ctx, i):
			continue
		}
		for _, f := range found {
			if f.Code != FDRead {
				return &f
			}
		}
		r.tell(found[0])
		return nil
	}
}

// openers gives the processes that have the device itself open for reading, once
// each, and the first that has it for more.
func (r *rescan) openers(ctx context.Context, c procfd) (readers []Finding, worse *Finding) {
	for _, f := range Examine(ctx, r.host, r.target, []Collector{c}).Findings {
		switch {
		case f.Code == FDWrite || f.Code == FDVM:
			return nil, &f
		case f.Code == FDRead && f.Relation == Same && !has(readers, f):
			readers = append(readers, f)
		}
	}
	return readers, nil
}

// stillWriting looks at all processes, which is done only once, and gives the first
// that has the target open for more than reading in every one of a few looks.
func (r *rescan) stillWriting(ctx context.Context) *Finding {
	quick, once := *r, *r.host
	quick.host, once.Patience = &once, 0
	for i := 0; ; i++ {
		_, worse := quick.openers(ctx, procfd{})
		if worse == nil || !r.host.again(ctx, i) {
			return worse
		}
	}
}

// account reports whether we and these readers are all that device-mapper counts.
// It counts opens, and so do we: a descriptor that a process has from its parent, or
// was sent, is no further one. What cannot be told counts for nothing, as a mapping
// does, whose descriptor is closed or somebody else's.
func (r *rescan) account(ctx context.Context, readers []Finding) bool {
	n, err := mapperOpeners(ctx, r.host, r.target.ID)
	var opens []string
	for _, f := range readers {
		fd := descriptorOf(f)
		shared := func(other string) bool {
			answer, err := r.host.FS.Ask(ctx, hostfs.SameOpen, other+" "+fd)
			return err != nil || answer != "other"
		}
		if fd != "" && !slices.ContainsFunc(opens, shared) {
			opens = append(opens, fd)
		}
	}
	return err == nil && n <= 1+len(opens)
}

// descriptorOf gives the process or thread and the descriptor that a finding of
// procfd is about, as [hostfs.SameOpen] names them, or "" for a mapping.
func descriptorOf(f Finding) string {
	parts := strings.Split(f.Source, "/") // /proc/PID/fd/N, /proc/PID/task/TID/fd/N
	if n := len(parts); n >= 5 && parts[n-2] == "fd" {
		return parts[n-3] + "/" + parts[n-1]
	}
	return ""
}

// pidOf is the process that a finding of procfd is about.
func pidOf(f Finding) string { return f.Key[strings.LastIndexByte(f.Key, '.')+1:] }

// rescanWatcher looks every second who came to a target that nothing keeps others
// away from: a device, or a file with neither gate nor lease.
type rescanWatcher struct{}

func (rescanWatcher) Name() string { return "rescan" }

// Watch implements [Watcher].
func (rescanWatcher) Watch(ctx context.Context, _ *Host, t *Target, alarm func(Finding)) error {
	if t.held.protection() != byLooking {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if f, broken := t.held.rescan.look(ctx, changing(backends{})); broken {
			alarm(f)
			return nil
		}
	}
}

// last looks once more when everything was written, before that is called a
// success. It gives a *BrokenError when somebody came.
func (r *rescan) last(ctx context.Context) error {
	cs := []Collector{lease{}}
	switch r.target.held.protection() {
	case byLease:
		cs = append(cs, xen{})
	case byLooking:
		cs = changing(xen{})
	}
	if f, broken := r.look(ctx, cs); broken {
		return brokenBy(f)
	}
	if r.target.held.protection() == byLooking && slices.Contains(r.names, procfd{}.Name()) {
		if f := r.stillWriting(ctx); f != nil {
			return brokenBy(*f)
		}
	}
	if n := r.target.held.node; n != nil {
		if _, wrote, err := n.ask(); wrote != nil {
			return brokenBy(*wrote)
		} else if err != nil {
			return brokenBy(ended(nodeWatcher{}.Name(), err))
		}
	}
	return context.Cause(ctx)
}

// A protection is what stands between the target and everybody else while it is
// written.
type protection uint8

const (
	byLooking protection = iota // nothing: it is looked at again and again
	byLease                     // an opener waits, and is noticed
	byGate                      // nobody can open it
)

func (h *held) protection() protection {
	switch {
	case h.gate != nil:
		return byGate
	case h.leased:
		return byLease
	}
	return byLooking
}

// inForce says which protection the target has while it is written.
func (t *Target) inForce() Finding {
	f := Finding{Code: HoldInForce, Relation: Same, Subject: "while it is written", Key: "hold"}
	switch t.held.protection() {
	case byGate:
		f.Detail = "nobody else can open " + quote(t.Path) + ": who tries is refused, and told of"
		f.Source = "fanotify on " + quote(t.Real)
	case byLease:
		f.Detail = "whoever opens " + quote(t.Path) + " has to wait, and stops the writing"
		f.Source = "fcntl F_SETLEASE F_WRLCK on " + quote(t.Real)
	default:
		f.Detail = fmt.Sprintf("nothing keeps others from opening %s: who came is looked at every %s, and stops the writing", quote(t.Path), rescanEvery)
		f.Source = "rescan"
		if t.ID.Kind == KindBlock && !t.held.inherited {
			refused := "mounts and volumes are refused"
			if t.held.claims.Load() != nil {
				refused = "mounts, volumes and, by a claim in xenstore, domains are refused"
			}
			f.Detail = fmt.Sprintf("%s is open exclusively: %s, and who else came is looked at every %s", quote(t.Path), refused, rescanEvery)
			if t.held.node != nil {
				f.Detail += "; who opens " + quote(t.Real) + " is noticed at once"
			}
			f.Source = "open O_EXCL of " + quote(t.Real)
		}
	}
	return f
}
