package guard

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

// locks looks for byte-range locks on the target (fcntl(2); proc(5), /proc/locks),
// by which programs tell one another that an image is theirs. QEMU since 2.10 locks
// single bytes, 100 and up for what it does and 200 and up for what nobody else may
// do (docs/system/qemu-block-drivers.rst.inc, "Disk image file locking";
// block/file-posix.c); libvirt's virtlockd locks byte 0 for a running domain. Who
// holds a lock of an open file (F_OFD_SETLK) is in the fdinfo of his descriptors,
// which is only looked at for locks on the target.
//
// The locks of our own descriptor are none of these.
//
// It does not see locks that were taken through another node of the same device,
// locks of other hosts, and programs that take none: QEMU itself takes none for the
// disks of a Xen domain, blkback and tapdisk never do.
type locks struct{}

func (locks) Name() string { return "locks" }

func (locks) Reads() []string {
	return []string{"/proc/locks", "/proc", "/proc/*/comm", "/proc/*/fd", "/proc/*/fd/*", "/proc/*/fdinfo/*"}
}

// Collect implements [Collector].
func (locks) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind == KindMissing {
		return
	}
	var held []lock
	for range looks {
		var twice bool
		if held, twice = othersLocks(host, t, s); !twice {
			break
		}
	}
	if len(held) == 0 {
		return
	}
	holders := holdersOf(host, t, held)
	var pids []string
	for _, l := range held {
		for _, pid := range holders[l] {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		var his []lock
		for _, l := range held {
			if slices.Contains(holders[l], pid) {
				his = append(his, l)
			}
		}
		s.Found(lockFinding(host, t, pid, his))
	}
}

// locked says how what is locked overlaps the target. The lock on a device is on
// its node.
func (t *Target) locked(l lock) Relation {
	if l.on(t.handle.Stat.Dev, t.handle.Stat.Ino) {
		return Same
	}
	return t.Relate(FileID(l.dev, l.ino))
}

// lockFinding says what the locks of one process mean. pid is "" when nobody knows
// whose they are.
func lockFinding(host *Host, t *Target, pid string, his []lock) Finding {
	rel := t.locked(his[0])
	f := Finding{Code: LockRead, Relation: rel, Subject: "somebody", Key: "holder", Remedy: "find out who holds the lock (\"lslocks\")"}
	comm := ""
	if pid != "" {
		f.Subject, f.Key = processName(host, pid)
		f.Remedy = "stop " + f.Subject + " or wait for it"
		if isMachine(f.Subject) {
			f.Remedy = "shut down the virtual machine of " + f.Subject
		}
		comm, _ = attribute(host.FS, "/proc/"+pid+"/comm")
	}
	var lines []string
	qemu := false
	for _, l := range his {
		lines = append(lines, l.String())
		qemu = qemu || l.qemu()
		if l.writes() {
			f.Code = LockWrite
		}
	}
	via := t.via(rel, FileID(his[0].dev, his[0].ino))
	doing := map[Code]string{LockRead: "reading", LockWrite: "writing"}[f.Code]
	switch {
	case comm == "virtlockd":
		f.Code, f.Detail = LockGuest, "holds the lock of a running domain on it"+via
		f.Remedy = "shut down the domain that has it (\"virsh list\")"
	case qemu:
		f.Detail = "has it locked as QEMU locks an image for " + doing + via
	default:
		f.Detail = "has it locked for " + doing + via
	}
	f.Source = "/proc/locks: " + strings.Join(lines, ", ")
	return f
}

// A lock is a line of /proc/locks, or of fdinfo.
type lock struct {
	kind   string // POSIX, OFDLCK, FLOCK, LEASE, DELEG
	access string // READ or WRITE
	pid    string // -1 for an open file's
	dev    uint64 // the superblock's device, which need not be what stat(2) shows
	ino    uint64
	start  uint64 // first byte
	end    string // last byte, or EOF
	waits  bool   // it is waited for
}

// String is the lock as the line shows it.
func (l lock) String() string {
	return fmt.Sprintf("%s %s pid %s %s:%d bytes %d to %s", l.kind, l.access, l.pid, hostfs.FormatDev(l.dev), l.ino, l.start, l.end)
}

// ranged tells the locks of this collector from flocks, leases and those who wait.
func (l lock) ranged() bool { return (l.kind == "POSIX" || l.kind == "OFDLCK") && !l.waits }

// lease tells what opening the file would break: leases, and the delegations that
// the NFS server gives to its clients.
func (l lock) lease() bool { return l.kind == "LEASE" || l.kind == "DELEG" }

// on reports whether the lock is on the file that stat(2) shows with these numbers.
// Where files have devices of their own making, of subvolumes (btrfs) or layers
// (overlayfs), the superblock has another of that kind, and the inode alone decides.
func (l lock) on(dev, ino uint64) bool {
	unnamed := unix.Major(l.dev) == 0 && unix.Major(dev) == 0
	return l.ino == ino && (l.dev == dev || unnamed)
}

// qemu tells a lock on bytes that QEMU uses: consistent read, write, write
// unchanged and resize are bits 0 to 3 of what is locked from 100 and from 200 on.
func (l lock) qemu() bool {
	end, err := strconv.ParseUint(l.end, 10, 64)
	return err == nil && (l.start >= 100 && end <= 103 || l.start >= 200 && end <= 203)
}

// writes tells the lock of one who may write: an exclusive one, or QEMU's of byte
// 101, to write, or 103, to resize.
func (l lock) writes() bool {
	if l.access != "READ" {
		return true
	}
	end, err := strconv.ParseUint(l.end, 10, 64)
	return err == nil && l.start >= 100 && end <= 103 && (l.start <= 101 && end >= 101 || end == 103)
}

// holdersOf gives the processes that hold each lock, "" for one that nobody is
// known to hold.
func holdersOf(host *Host, t *Target, held []lock) map[lock][]string {
	out := map[lock][]string{}
	for _, l := range held {
		if n, err := strconv.ParseInt(l.pid, 10, 32); err == nil && n > 0 { // below 0: of another host
			out[l] = []string{l.pid}
		}
	}
	if slices.ContainsFunc(held, func(l lock) bool { return l.kind == "OFDLCK" }) {
		holdersByDescriptor(host, t, held, out)
	}
	for _, l := range held {
		if out[l] == nil {
			out[l] = []string{""}
		}
	}
	return out
}

// holdersByDescriptor looks for the locks among those of all descriptors of the
// files that they are on. What it cannot look at leaves a lock without a name.
func holdersByDescriptor(host *Host, t *Target, held []lock, out map[lock][]string) {
	pids, _ := processes(host)
	for _, pid := range pids {
		dir := "/proc/" + pid
		fds, _ := host.FS.ReadDir(dir + "/fd")
		for _, fd := range fds {
			st, err := host.FS.Stat(dir + "/fd/" + fd)
			if err != nil || t.held.is(pid, fd) || !slices.ContainsFunc(held, func(l lock) bool { return l.on(st.Dev, st.Ino) }) {
				continue
			}
			info, err := host.FS.ReadFile(dir + "/fdinfo/" + fd)
			if err != nil {
				continue
			}
			his, _ := parseFDLocks(string(info))
			for _, l := range his {
				if l.kind == "OFDLCK" && slices.Contains(held, l) && !slices.Contains(out[l], pid) {
					out[l] = append(out[l], pid)
				}
			}
		}
	}
}

// othersLocks gives the byte-range locks on the target that are not our own, each
// once. One that looks like ours is another's; or it is ours, and stands in the
// table twice because others came into it while it was read: then it is to be
// read again.
func othersLocks(host *Host, t *Target, s *Sheet) (held []lock, twice bool) {
	table, err := readLocks(host)
	if err != nil {
		s.Blind("/proc/locks", err)
		return nil, false
	}
	table = slices.DeleteFunc(table, func(l lock) bool { return !l.ranged() || t.locked(l) == Unrelated })
	if len(table) == 0 {
		return nil, false
	}
	ours, err := t.held.locks(host)
	if err != nil {
		s.Blind("our own locks", err)
	}
	left := slices.Clone(ours)
	for _, l := range table {
		if i := slices.Index(left, l); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else if !slices.Contains(held, l) {
			held = append(held, l)
			twice = twice || slices.Contains(ours, l)
		}
	}
	return held, twice
}

// locks gives the byte-range locks of our own descriptor, as its fdinfo shows them.
func (h *held) locks(host *Host) ([]lock, error) {
	if h == nil || h.reading {
		return nil, nil
	}
	info, err := host.FS.ReadFile("/proc/" + strconv.Itoa(h.pid) + "/fdinfo/" + strconv.Itoa(h.fd()))
	if err != nil {
		return nil, err
	}
	return parseFDLocks(string(info))
}

func readLocks(host *Host) ([]lock, error) {
	table, err := host.FS.ReadFile("/proc/locks")
	if err != nil {
		return nil, err
	}
	return parseLocks(string(table))
}

// parseLocks reads a table of locks (fs/locks.c, lock_get_status): a number, an
// arrow before one who waits, the kind, a mode, the access, the process, the
// superblock's device in hexadecimal and the inode, the first and the last byte.
//
//	1: OFDLCK ADVISORY  READ -1 fe:00:14847 100 101
//	1: -> POSIX  ADVISORY  WRITE 2311 fe:00:14847 0 EOF
func parseLocks(table string) ([]lock, error) { return parseLockLines(table, "") }

// parseFDLocks reads the lines of fdinfo that begin with "lock:".
func parseFDLocks(info string) ([]lock, error) { return parseLockLines(info, "lock:") }

func parseLockLines(table, begin string) ([]lock, error) {
	var out []lock
	for line := range strings.Lines(table) {
		text, ok := strings.CutPrefix(line, begin)
		if !ok {
			continue
		}
		l, ok := parseLock(text)
		if !ok {
			return out, fmt.Errorf("malformed or cut off line %q", line)
		}
		out = append(out, l)
	}
	return out, nil
}

func parseLock(line string) (l lock, ok bool) {
	f := strings.Fields(line)
	if len(f) > 1 && f[1] == "->" {
		l.waits = true
		f = append(f[:1], f[2:]...)
	}
	if len(f) != 8 || !strings.HasSuffix(line, "\n") {
		return lock{}, false
	}
	l.kind, l.access, l.pid, l.end = f[1], f[3], f[4], f[7]
	if f[5] == "<none>:0" { // of no file any more
		return l, true
	}
	major, rest, _ := strings.Cut(f[5], ":")
	minor, ino, _ := strings.Cut(rest, ":")
	ma, err1 := strconv.ParseUint(major, 16, 32)
	mi, err2 := strconv.ParseUint(minor, 16, 32)
	var err3, err4 error
	l.ino, err3 = strconv.ParseUint(ino, 10, 64)
	l.start, err4 = strconv.ParseUint(f[6], 10, 64)
	l.dev = hostfs.Mkdev(uint32(ma), uint32(mi))
	return l, err1 == nil && err2 == nil && err3 == nil && err4 == nil
}
