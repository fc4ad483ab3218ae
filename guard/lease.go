package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

// lease asks the kernel for a write lease on a regular file (fcntl(2),
// F_SETLEASE): it is granted only if no other open file description exists, in
// any process, container, namespace or in the kernel. It is the strongest
// evidence that there is on one host. The lease is given back at once; the one
// that is held while writing is a locker's, and its outcome is the evidence in
// the second look.
//
// It does not see other hosts, and file systems without leases cannot be asked.
type lease struct{}

func (lease) Name() string { return "lease" }

func (lease) Reads() []string { return []string{"/proc/locks", "/proc/*/comm", "lease"} }

// Collect implements [Collector]. A refusal may be a passing probe, another
// imgward's for one, and is asked about again a few times.
func (lease) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind != KindFile || t.held != nil && t.held.reading {
		return // a lease on a source that we read ourselves would only show us
	}
	for i := 0; ; i++ {
		f, err := askForLease(ctx, host, t)
		switch {
		case err != nil:
			s.Blind(err.where, err.err)
		case f.passing() && t.held == nil && host.again(ctx, i):
			continue
		default:
			s.Found(f)
		}
		return
	}
}

// passing tells that an opener of a moment looks the same.
func (f Finding) passing() bool {
	return f.Code == LeaseRefused || f.Code == LeaseReaders && !f.onlyUs || f.Code == LeaseTaken
}

// askForLease says what the kernel answers.
func askForLease(ctx context.Context, host *Host, t *Target) (Finding, *denial) {
	answer, err, onlyUs := "", error(nil), false
	if t.held != nil {
		answer, err = t.held.lease()
		onlyUs = t.held.onlyUs
	} else {
		// Asking opens the file, which would break a lease of somebody's.
		taken, lerr := leaseHolder(host, t.ID.Dev, t.ID.Ino)
		if lerr != nil {
			return Finding{}, &denial{"/proc/locks", lerr}
		}
		if taken != "" {
			return takenFinding(host, t, taken), nil
		}
		if onlyUs = aloneWith(t.ownFile()); onlyUs {
			answer = "read"
		} else {
			answer, err = host.FS.Ask(ctx, hostfs.Lease, t.handle.Name())
		}
	}
	f := Finding{Relation: Same, Subject: "the kernel", Key: "kernel", Source: "fcntl F_SETLEASE F_WRLCK on " + quote(t.Real)}
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return shutFinding(t), nil
	case errors.Is(err, syscall.EAGAIN):
		f.Code, f.Detail, f.Remedy = LeaseRefused, "refuses a lease: somebody has it open for writing", "find out who has it open"
	case err != nil:
		return Finding{}, &denial{"lease", err}
	case answer == "write":
		f.Code, f.Detail = LeaseFree, "grants a write lease: nobody has it open"
	case answer == "read":
		f.Code, f.Detail, f.Remedy = LeaseReaders, "grants only a read lease: somebody has it open for reading", "find out who has it open"
		if f.onlyUs = onlyUs; onlyUs {
			f.Detail = "grants a lease only to the input, which is the same file: nobody else has it open"
		}
	default:
		return Finding{}, &denial{"lease", fmt.Errorf("unexpected answer %q", answer)}
	}
	return f, nil
}

// aloneWith tells that nobody has a file open but for this opening of it: the kernel
// grants a write lease on that one then.
func aloneWith(f *os.File) bool {
	if f == nil {
		return false
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

func takenFinding(host *Host, t *Target, pid string) Finding {
	f := Finding{Code: LeaseTaken, Relation: Same, Detail: "holds a lease on it", Source: "/proc/locks: inode " + strconv.FormatUint(t.ID.Ino, 10)}
	f.Subject, f.Key = processName(host, pid)
	f.Remedy = "wait for " + f.Subject
	return f
}

// shutFinding is about a file that the kernel opens for nobody: a closed [gate]
// answers so.
func shutFinding(t *Target) Finding {
	return Finding{
		Code: FileShut, Relation: Same, Subject: "the kernel", Key: "kernel", Detail: "opens it for nobody: somebody is at work on it",
		Source: "open of " + quote(t.Real), Remedy: "wait for whoever is at work on it",
	}
}

// leaseHolder gives the process that holds a lease on the file that stat(2) shows
// with these numbers, or "" if nobody does.
func leaseHolder(host *Host, dev, ino uint64) (pid string, err error) {
	table, err := readLocks(host)
	if pid := leaseIn(table, dev, ino); pid != "" {
		return pid, nil
	}
	return "", err
}

// leaseIn is leaseHolder by a table of locks.
func leaseIn(table []lock, dev, ino uint64) (pid string) {
	for _, l := range table {
		if l.lease() && l.on(dev, ino) {
			return l.pid
		}
	}
	return ""
}
