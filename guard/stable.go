package guard

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"imgward/guard/hostfs"
)

// stableID names the target so that it is found again after a reboot, when
// device and inode numbers may mean something else: a file by its file system's
// uuid, inode and time of birth; a device by its device-mapper uuid, its wwid or
// serial number, a partition by its disk and where it starts; a loop device by
// the file under it. Without any of these it is the numbers and the boot, and
// lasting is false.
func stableID(ctx context.Context, host *Host, t *Target) (id string, lasting bool) {
	switch t.ID.Kind {
	case KindFile:
		if id := stableFile(ctx, host, t.handle.Name(), t.ID); id != "" {
			return id, true
		}
	case KindBlock:
		if id := stableDevice(ctx, host, t.stack, t.ID, 0); id != "" {
			return id, true
		}
	}
	return "now:" + bootID(host) + ":" + t.ID.String(), false
}

func stableFile(ctx context.Context, host *Host, name string, id ID) string {
	answer, err := host.FS.Ask(ctx, hostfs.Identity, name)
	if err != nil {
		return ""
	}
	f, err := fields(answer)
	if err != nil {
		return ""
	}
	fsuuid := f["fsuuid"]
	if fsuuid == "" {
		fsuuid = filesystemUUID(host, id.Dev)
	}
	if fsuuid == "" {
		return ""
	}
	return "file:" + fsuuid + ":" + f["ino"] + ":" + f["btime"]
}

// filesystemUUID finds a mounted device's file system uuid among udev's links.
func filesystemUUID(host *Host, dev uint64) string {
	const dir = "/dev/disk/by-uuid"
	names, _ := host.FS.ReadDir(dir)
	for _, n := range names {
		if st, err := host.FS.Stat(dir + "/" + n); err == nil && st.Type == hostfs.BlockDevice && st.Rdev == dev {
			return n
		}
	}
	return ""
}

func stableDevice(ctx context.Context, host *Host, s *stack, id ID, depth int) string {
	d := s.devices[id]
	if d == nil || depth == maxDepth {
		return ""
	}
	switch {
	case d.uuid != "":
		return "dm:" + d.uuid
	case d.kind == "loop" && len(d.under) == 1 && d.under[0].linear && d.under[0].off == 0 && d.under[0].lower.Kind == KindFile:
		file, err := attribute(host.FS, "/sys/block/"+d.name+"/loop/backing_file")
		if err != nil {
			return ""
		}
		if st, err := host.FS.Stat(file); err == nil {
			if below, ok := idOf(st); ok && below == d.under[0].lower {
				return stableFile(ctx, host, file, below)
			}
		}
	case d.kind == "partition" && d.under[0].linear:
		if disk := stableDevice(ctx, host, s, d.under[0].lower, depth+1); disk != "" {
			return disk + ":partition at " + strconv.FormatInt(d.under[0].off, 10)
		}
	case d.kind != "partition":
		for _, name := range []string{"wwid", "device/wwid", "serial", "device/serial"} {
			if v, err := attribute(host.FS, "/sys/block/"+d.name+"/"+name); err == nil && strings.TrimSpace(v) != "" {
				return "disk:" + strings.TrimSpace(v)
			}
		}
	}
	return ""
}

// unknownBoot stands for a boot that cannot be told; it may be any.
const unknownBoot = "unknown boot"

// bootID names the running boot (random(4)).
func bootID(host *Host) string {
	id, err := attribute(host.FS, "/proc/sys/kernel/random/boot_id")
	if err != nil || id == "" {
		return unknownBoot
	}
	return id
}

// startTime gives when a process started, in clock ticks since boot (proc(5),
// /proc/PID/stat, field 22); fs.ErrNotExist when there is no such process.
func startTime(host *Host, pid string) (string, error) {
	b, err := host.FS.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	// The name in parentheses may hold anything, parentheses and spaces too.
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 || !strings.HasSuffix(rest, "\n") {
		return "", errors.New("malformed stat of process " + pid)
	}
	return f[19], nil
}

// running reports whether the process that had this pid and start time still
// runs. When it cannot be told, it does.
func running(host *Host, pid, start string) bool {
	now, err := startTime(host, pid)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || now == start
}

// pidNamespace names the PID namespace in which we number processes
// (pid_namespaces(7)), "" when it cannot be told.
func pidNamespace(host *Host) string {
	name, err := host.FS.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return name
}

// A writer is a process that once said that it writes.
type writer struct{ pid, start, boot, namespace string }

// lives reports whether it still runs. When that cannot be told, it does: a process
// of another PID namespace has ended for sure when there is nobody in that any more,
// and only the host's own namespace sees whether there is.
func (w writer) lives(host *Host) bool {
	if boot := bootID(host); w.boot != boot && w.boot != unknownBoot && boot != unknownBoot {
		return false
	}
	ours := pidNamespace(host)
	if w.namespace != "" && w.namespace == ours {
		return running(host, w.pid, w.start)
	}
	pids, err := processes(host)
	if w.namespace == "" || ours != initPIDNamespace || err != nil {
		return true
	}
	for _, pid := range pids {
		name, err := host.FS.Readlink("/proc/" + pid + "/ns/pid")
		if name == w.namespace || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}
