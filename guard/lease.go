package guard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

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

func (lease) Reads() []string { return []string{"/proc/locks", "lease"} }

// Collect implements [Collector].
func (lease) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind != KindFile || t.held != nil && t.held.reading {
		return // a lease on a source that we read ourselves would only show us
	}
	answer, err := "", error(nil)
	if t.held != nil {
		answer, err = t.held.lease()
	} else {
		// Asking opens the file, which would break a lease of somebody's.
		taken, lerr := leaseHolder(host, t.ID.Ino)
		if lerr != nil {
			s.Blind("/proc/locks", lerr)
			return
		}
		if taken != "" {
			f := Finding{Code: LeaseTaken, Relation: Same, Detail: "holds a lease on it", Source: "/proc/locks: inode " + strconv.FormatUint(t.ID.Ino, 10)}
			f.Subject, f.Key = processName(host, taken)
			f.Remedy = "wait for " + f.Subject
			s.Found(f)
			return
		}
		answer, err = host.FS.Ask(ctx, hostfs.Lease, t.handle.Name())
	}
	f := Finding{Relation: Same, Subject: "the kernel", Key: "kernel", Source: "fcntl F_SETLEASE F_WRLCK on " + quote(t.Real)}
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		s.Found(shutFinding(t))
		return
	case errors.Is(err, syscall.EAGAIN):
		f.Code, f.Detail, f.Remedy = LeaseRefused, "refuses a lease: somebody has it open for writing", "find out who has it open"
	case err != nil:
		s.Blind("lease", err)
		return
	case answer == "write":
		f.Code, f.Detail = LeaseFree, "grants a write lease: nobody has it open"
	case answer == "read":
		f.Code, f.Detail, f.Remedy = LeaseReaders, "grants only a read lease: somebody has it open for reading", "find out who has it open"
	default:
		s.Blind("lease", fmt.Errorf("unexpected answer %q", answer))
		return
	}
	s.Found(f)
}

// shutFinding is about a file that the kernel opens for nobody: a closed [gate]
// answers so.
func shutFinding(t *Target) Finding {
	return Finding{
		Code: FileShut, Relation: Same, Subject: "the kernel", Key: "kernel", Detail: "opens it for nobody: somebody is at work on it",
		Source: "open of " + quote(t.Real), Remedy: "wait for whoever is at work on it",
	}
}

// leaseHolder gives the process that holds a lease on a file of this inode
// number, or "".
func leaseHolder(host *Host, ino uint64) (pid string, err error) {
	table, err := host.FS.ReadFile("/proc/locks")
	if err != nil {
		return "", err
	}
	return parseLeases(string(table), ino)
}

// parseLeases finds a lease in a table of locks (proc(5), /proc/locks):
//
//	1: LEASE  ACTIVE    WRITE 2311 fe:00:14847 0 EOF
//
// The device there is the superblock's, which on some file systems is not what
// stat shows, so the inode number alone decides, to the careful side.
func parseLeases(table string, ino uint64) (string, error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 1 && f[1] == "->" {
			f = append(f[:1], f[2:]...) // one who waits for the lock above
		}
		if len(f) < 6 || !strings.HasSuffix(line, "\n") {
			return "", fmt.Errorf("malformed or cut off line %q", line)
		}
		if f[1] == "LEASE" && strings.HasSuffix(f[5], ":"+strconv.FormatUint(ino, 10)) {
			return f[4], nil
		}
	}
	return "", nil
}
