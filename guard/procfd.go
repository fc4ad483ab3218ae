package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// procfd looks at the open descriptors and the mappings of every process
// (proc(5), fd, fdinfo, maps, map_files). It compares what the descriptors lead
// to, never their names, and follows them without asking a file server.
//
// It does not see what has no descriptor: the Xen block backend, loop devices,
// swap, exports by the kernel, descriptors in flight on a socket or registered
// with io_uring. The lease and the device-mapper count do.
type procfd struct {
	only []string // the processes to look at; nil for all
}

// initPIDNamespace is what the first PID namespace is always called
// (include/linux/proc_ns.h, PROC_PID_INIT_INO).
const initPIDNamespace = "pid:[4026531836]"

// oPath is O_PATH as fdinfo shows it: a descriptor that holds nothing open.
const oPath = 0o10000000

func (procfd) Name() string { return "procfd" }

func (procfd) Reads() []string {
	return []string{
		"/proc", "/proc/self/ns/pid", "/proc/*/comm", "/proc/*/fd", "/proc/*/fd/*", "/proc/*/fdinfo/*",
		"/proc/*/maps", "/proc/*/map_files/*", "/proc/*/task", "/proc/*/task/*/fd", "/proc/*/task/*/fd/*", "/proc/*/task/*/fdinfo/*",
	}
}

// Collect implements [Collector].
func (c procfd) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind == KindMissing {
		return
	}
	if ns, err := host.FS.Readlink("/proc/self/ns/pid"); err != nil {
		s.Blind("/proc/self/ns/pid", err)
	} else if ns != initPIDNamespace {
		s.Blind("/proc", errors.New("this is not the host's own PID namespace; processes outside it cannot be seen"))
	}
	pids, err := processes(host)
	if err != nil {
		s.Blind("/proc", err)
		return
	}
	if c.only != nil {
		pids = slices.DeleteFunc(pids, func(pid string) bool { return !slices.Contains(c.only, pid) })
	}
	parts := s.split((len(pids) + inOneHand - 1) / inOneHand)
	readers := make([][]reader, len(parts))
	var next atomic.Int64
	crew(min(runtime.GOMAXPROCS(0), len(parts)), func() {
		mapped := map[mapping]bool{}
		for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
			for _, pid := range pids[i*inOneHand : min((i+1)*inOneHand, len(pids))] {
				if ctx.Err() != nil {
					parts[i].Blind("/proc/"+pid, ctx.Err())
					return
				}
				p := procLook{host: host, t: t, s: parts[i], pid: pid, mapped: mapped, readers: &readers[i]}
				p.look()
			}
		}
	})
	stillThere(ctx, host, s.split(1)[0], slices.Concat(readers...))
	s.Looked(len(pids), "process")
}

// inOneHand is how many processes one who looks takes at a time.
const inOneHand = 8

// A reader is a descriptor that was open for reading when it was looked at.
type reader struct {
	finding Finding
	link    string
	id      ID
}

// stillThere says who reads, but for those who are gone after a while, as another
// imgward is that checks the same target.
func stillThere(ctx context.Context, host *Host, s *Sheet, readers []reader) {
	for i := 0; len(readers) > 0 && host.again(ctx, i); i++ {
		readers = slices.DeleteFunc(readers, func(r reader) bool {
			st, err := host.FS.Stat(r.link)
			id, ok := idOf(st)
			return vanished(r.link, err) || err == nil && (!ok || id != r.id)
		})
	}
	for _, r := range readers {
		s.Found(r.finding)
	}
}

// A denial is the first thing of a process that could not be looked at.
type denial struct {
	where string
	err   error
}

// A mapping is what a line of maps stands for: many processes map the same
// libraries, which are looked at once.
type mapping struct {
	dev, ino string
	writable bool
}

type procLook struct {
	host   *Host
	t      *Target
	s      *Sheet
	pid    string
	denied denial
	mapped map[mapping]bool // what is known not to lead to a device

	readers *[]reader
}

// look looks at one process.
func (p *procLook) look() {
	p.fds("/proc/" + p.pid)
	p.maps()
	if d := p.denied; d.err != nil {
		subject, key := processName(p.host, p.pid)
		p.s.blindTo("the open files of "+subject, key, d.where, d.err)
	}
}

func (p *procLook) deny(where string, err error) {
	if p.denied.err == nil && !vanished(where, err) {
		p.denied = denial{where, err}
	}
}

// fds looks at the descriptors of the process or thread whose directory is dir.
func (p *procLook) fds(dir string) {
	fds, err := p.host.FS.StatDir(dir + "/fd")
	if err != nil {
		p.deny(dir+"/fd", err)
		return
	}
	if len(fds) == 0 && !strings.Contains(dir, "/task/") {
		p.threads(dir)
	}
	for _, fd := range fds {
		if fd.Err != nil {
			p.deny(dir+"/fd/"+fd.Name, fd.Err)
			continue
		}
		id, ok := idOf(fd.Stat)
		if !ok || p.t.held.is(p.pid, fd.Name) || p.t.reads(p.pid, fd.Name) {
			continue
		}
		rel := p.t.Relate(id)
		if rel == Unrelated {
			continue
		}
		if p.t.held.shares(p.pid, fd.Name) {
			continue
		}
		link := dir + "/fd/" + fd.Name
		flags, err := p.flags(dir + "/fdinfo/" + fd.Name)
		switch {
		case vanished(dir, err):
			continue
		case err != nil:
			flags = os.O_RDWR // unreadable: take the worse
		case flags&oPath != 0:
			continue
		}
		f := p.finding(rel, id, flags&3 != os.O_RDONLY, "has it open", link)
		if f.Code == FDRead && p.host.Patience > 0 {
			*p.readers = append(*p.readers, reader{f, link, id})
			continue
		}
		p.s.Found(f)
	}
}

// threads looks at the descriptors of each thread: a process whose first thread
// has ended shows none of its own while the others go on.
func (p *procLook) threads(dir string) {
	tids, err := p.host.FS.ReadDir(dir + "/task")
	if err != nil {
		p.deny(dir+"/task", err)
		return
	}
	for _, tid := range tids {
		if tid != p.pid {
			p.fds(dir + "/task/" + tid)
		}
	}
}

// flags reads the open flags of a descriptor: octal, the line "flags:" of fdinfo.
func (p *procLook) flags(name string) (int, error) {
	b, err := p.host.FS.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return parseFDFlags(string(b))
}

func parseFDFlags(info string) (int, error) {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, "flags:"); ok {
			text, whole := strings.CutSuffix(v, "\n")
			n, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32)
			if err != nil || !whole {
				return 0, fmt.Errorf("malformed flags in fdinfo: %q", line)
			}
			return int(n), nil
		}
	}
	return 0, errors.New("no flags in fdinfo")
}

// maps looks for mappings of the target whose descriptor may be closed. For a
// file only lines with its inode number are followed; the device in maps is the
// superblock's, which need not be the one that stat shows.
func (p *procLook) maps() {
	dir := "/proc/" + p.pid
	table, err := p.host.FS.ReadFile(dir + "/maps")
	if err != nil {
		p.deny(dir+"/maps", err)
		return
	}
	for m, err := range parseMaps(string(table)) {
		if err != nil {
			p.deny(dir+"/maps", err)
			return
		}
		if p.t.ID.Kind == KindFile && m.ino != strconv.FormatUint(p.t.ID.Ino, 10) {
			continue
		}
		// Files of two subvolumes may have all that maps shows in common.
		if p.t.ID.Kind == KindBlock && p.mapped[m.mapping] {
			continue
		}
		file := dir + "/map_files/" + mapSpan(m.span)
		st, err := p.host.FS.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unmapped since
		}
		if err != nil {
			p.deny(file, err)
			continue
		}
		id, ok := idOf(st)
		rel := Unrelated
		if ok {
			rel = p.t.Relate(id)
		}
		if rel == Unrelated {
			p.mapped[m.mapping] = true
			continue
		}
		p.s.Found(p.finding(rel, id, m.writable, "has it mapped", file))
	}
}

func (p *procLook) finding(rel Relation, id ID, writes bool, what, source string) Finding {
	subject, key := processName(p.host, p.pid)
	f := Finding{
		Code: FDRead, Relation: rel, Subject: subject, Key: key,
		Detail: what + " for reading" + p.t.via(rel, id), Source: source, Remedy: "stop " + subject + " or wait for it",
	}
	if isMachine(subject) || p.hasMachine() {
		f.Code, f.Remedy = FDVM, "shut down the virtual machine of "+subject
	}
	if writes {
		f.Code, f.Detail = FDWrite, what+" for writing"+p.t.via(rel, id)
	}
	return f
}

// hasMachine tells a process that has a virtual machine of the kernel's open, or the
// device that makes one (KVM's api.rst, KVM_CREATE_VM, KVM_CREATE_VCPU). It is asked
// of the few that have the target.
func (p *procLook) hasMachine() bool {
	dir := "/proc/" + p.pid + "/fd"
	fds, err := p.host.FS.ReadDir(dir)
	if err != nil {
		return false // which was, or will be, said of the whole process
	}
	for _, fd := range fds {
		to, err := p.host.FS.Readlink(dir + "/" + fd)
		if err == nil && (to == "/dev/kvm" || strings.HasPrefix(to, "anon_inode:kvm-vm") || strings.HasPrefix(to, "anon_inode:kvm-vcpu")) {
			return true
		}
	}
	return false
}

// machines are the programs that run virtual machines, or give them their disks, by
// the names that the kernel cuts to 15 bytes. Parentheses are around a whole name.
var machines = []string{
	"qemu-system", "qemu-kvm", "qemu-dm", "qemu-dp", "qemu-storage-da", "(kvm)", "tapdisk", "nbdkit",
	"firecracker", "cloud-hyperviso", "crosvm", "stratovirt", "(lkvm)", "VBoxHeadless", "VirtualBoxVM", "vmware-vmx",
}

// isMachine tells them by their names. A process that only calls itself so is treated
// with more care than it deserves.
func isMachine(subject string) bool {
	return slices.ContainsFunc(machines, func(name string) bool { return strings.Contains(subject, name) })
}

type mapLine struct {
	mapping
	span string // start-end
}

// parseMaps reads a list of mappings (proc(5), /proc/PID/maps) and gives those
// of files, up to a line that is malformed:
//
//	00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon
func parseMaps(table string) iter.Seq2[mapLine, error] {
	return func(yield func(mapLine, error) bool) {
		for line := range strings.Lines(table) {
			var f [5]string
			rest, whole := strings.CutSuffix(line, "\n")
			for i := range f {
				f[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
			}
			if !whole || f[4] == "" || len(f[1]) != 4 || !strings.Contains(f[0], "-") {
				yield(mapLine{}, fmt.Errorf("malformed or cut off line %q", line))
				return
			}
			if f[4] == "0" {
				continue // no file
			}
			if !yield(mapLine{mapping{dev: f[3], ino: f[4], writable: f[1][1] == 'w' && f[1][3] == 's'}, f[0]}, nil) {
				return
			}
		}
	}
}

// mapSpan is start-end as map_files names it: without the leading zeros that maps
// prints.
func mapSpan(s string) string {
	start, end, _ := strings.Cut(s, "-")
	return trimZeros(start) + "-" + trimZeros(end)
}

func trimZeros(s string) string {
	if t := strings.TrimLeft(s, "0"); t != "" {
		return t
	}
	return "0"
}
