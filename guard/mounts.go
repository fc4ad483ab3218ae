package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"imgward/guard/hostfs"
)

// mounts reads the mount table of every mount namespace (proc(5),
// /proc/PID/mountinfo), found through the namespaces of all processes. A mount
// is compared by the device number that it has there, which on btrfs is not the
// device's: what the mount names as its source is compared as well.
//
// It does not see a namespace that no process is in, and a mount from inside a
// domain is none of this host's.
type mounts struct{}

func (mounts) Name() string { return "mounts" }

func (mounts) Reads() []string {
	return []string{"/proc", "/proc/*/ns/mnt", "/proc/*/mountinfo", "/proc/*/comm"}
}

// Collect implements [Collector].
func (mounts) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind == KindMissing {
		return
	}
	pids, err := processes(host)
	if err != nil {
		s.Blind("/proc", err)
		return
	}
	home, _ := host.FS.Readlink("/proc/self/ns/mnt")
	whole := map[string]bool{}  // the namespaces whose every mount was seen
	part := map[string]string{} // those of which a process showed a part, and which process
	judged := map[string]bool{}
	for _, pid := range append(pids, "self") {
		dir := "/proc/" + pid
		if ctx.Err() != nil {
			s.Blind(dir+"/mountinfo", ctx.Err())
			return
		}
		ns, err := host.FS.Readlink(dir + "/ns/mnt")
		if err != nil {
			blindToMounts(host, s, pid, "/ns/mnt", err)
			continue
		}
		if whole[ns] {
			continue
		}
		ms, err := readMounts(host, dir)
		if err != nil {
			blindToMounts(host, s, pid, "/mountinfo", err)
			continue
		}
		for _, m := range ms {
			if at := ns + m.line; !judged[at] {
				judged[at] = true
				judgeMount(host, t, s, m, dir+"/mountinfo", ns == home || pid == "1")
			}
		}
		if whole[ns] = slices.ContainsFunc(ms, func(m mount) bool { return m.point == "/" }); !whole[ns] {
			part[ns] = pid
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(part)) {
		if !whole[ns] {
			blindToMounts(host, s, part[ns], "/mountinfo", errors.New("it changed its root and shows no mounts outside"))
		}
	}
	s.Looked(len(judged), "mount")
	s.Looked(len(whole), "mount namespace")
}

func blindToMounts(host *Host, s *Sheet, pid, file string, err error) {
	subject, key := processName(host, pid)
	s.blindTo("the mounts of "+subject, key, "/proc/"+pid+file, err)
}

// readMounts gives the mounts of a process's namespace that lie under its root
// directory. One that did not change its root, or not away from a mount, has a
// mount on "/" among them, and then they are all.
func readMounts(host *Host, dir string) ([]mount, error) {
	table, err := host.FS.ReadFile(dir + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(table))
}

// A mount is one line of mountinfo.
type mount struct {
	dev    uint64
	root   string // the directory of the file system that is mounted at point
	point  string
	source string
	fstype string
	rw     bool // of the file system; a read-only bind mount of a writable one is writable
	line   string
}

// judgeMount reports a mount that leads to the target. home says that it is in
// our own namespace or the first process's, so that "/" is the host's root.
func judgeMount(host *Host, t *Target, s *Sheet, m mount, table string, home bool) {
	id := BlockID(m.dev)
	rel := t.Relate(id)
	if rel == Unrelated && strings.HasPrefix(m.source, "/") {
		// A source that cannot be looked up is no blindness: the name belongs
		// to another namespace, or is no device's.
		if st, err := host.FS.Stat(m.source); err == nil && st.Type == hostfs.BlockDevice {
			id = BlockID(st.Rdev)
			rel = t.Relate(id)
		}
	}
	if rel == Unrelated {
		return
	}
	f := Finding{
		Code: MountRW, Relation: rel, Subject: quote(m.fstype) + " on " + quote(m.point), Key: m.point,
		Detail: "is mounted from it, read-write" + t.via(rel, id), Source: table + ": " + quote(m.line),
		Remedy: "unmount " + quote(m.point),
	}
	switch {
	case m.point == "/" && home:
		f.Code, f.Subject, f.Remedy = HostRoot, "the host's root file system", ""
		f.Detail = "is on it" + t.via(rel, id)
	case !m.rw:
		f.Code, f.Detail = MountRO, "is mounted from it, read-only"+t.via(rel, id)
	}
	s.Found(f)
}

// parseMountinfo reads a mount table. Each line is, by proc(5):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	(1)(2)(3)  (4)   (5)   (6)        (7)     (8)(9)  (10)      (11)
//
// A table that does not look so, or ends in the middle of a line, is an error.
func parseMountinfo(table string) ([]mount, error) {
	var out []mount
	for line := range strings.Lines(table) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			return nil, fmt.Errorf("mount table is cut off at %q", line)
		}
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Split(left, " "), strings.Split(right, " ")
		if !ok || len(l) < 6 || len(r) < 3 {
			return nil, fmt.Errorf("mount table has a malformed line %q", line)
		}
		dev, err := hostfs.ParseDev(l[2])
		if err != nil {
			return nil, fmt.Errorf("mount table has a malformed line %q: %w", line, err)
		}
		super := strings.Split(r[len(r)-1], ",")
		out = append(out, mount{
			dev: dev, root: unescape(l[3]), point: unescape(l[4]), fstype: unescape(r[0]), source: unescape(r[1]),
			rw: super[0] != "ro", line: line,
		})
	}
	return out, nil
}

// unescape undoes the octal escapes of proc(5): \040 is a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }
