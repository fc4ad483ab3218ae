package guard

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

func TestOpenFiles(t *testing.T) {
	sdb := devID("8:16")
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"for reading", func(m *machine) { m.open("/proc/50", "4", imageID, "0100000") }, image, []string{"fd.read same sshd.50"}},
		{"for writing", func(m *machine) { m.open("/proc/50", "4", imageID, "0100001") }, image, []string{"fd.write same sshd.50"}},
		{"for both", func(m *machine) { m.open("/proc/50", "4", imageID, "02100002") }, image, []string{"fd.write same sshd.50"}},
		{"for nothing", func(m *machine) { m.open("/proc/50", "4", imageID, "010000002") }, image, nil},
		{"by a virtual machine", func(m *machine) {
			m.process("70", "qemu-system-i38")
			m.open("/proc/70", "4", imageID, "0100000")
		}, image, []string{"fd.vm same qemu-system-i38.70"}},
		{"by a machine of another name", func(m *machine) {
			m.process("70", "cloud-hyperviso")
			m.open("/proc/70", "4", imageID, "0100000")
		}, image, []string{"fd.vm same cloud-hyperviso.70"}},
		{"by what has a machine of KVM's", func(m *machine) {
			m.process("70", "vmm")
			m.open("/proc/70", "4", imageID, "0100000")
			m.open("/proc/70", "9", FileID(hostfs.Mkdev(0, 14), 7), "02")
			m.link("/proc/70/fd/9", "anon_inode:kvm-vm")
		}, image, []string{"fd.vm same vmm.70"}},
		{"mapped by what makes machines of KVM's", func(m *machine) {
			m.process("70", "vmm")
			m.open("/proc/70", "9", FileID(hostfs.Mkdev(0, 5), 7), "02")
			m.link("/proc/70/fd/9", "/dev/kvm")
			m.mapped("70", "r--s", imageID)
		}, image, []string{"fd.vm same vmm.70"}},
		{"another file", func(m *machine) { m.open("/proc/50", "4", FileID(imageID.Dev, 101), "02") }, image, nil},
		{"the same inode number elsewhere", func(m *machine) { m.open("/proc/50", "4", FileID(hostfs.Mkdev(8, 2), 100), "02") }, image, nil},
		{"a name that says nothing", func(m *machine) {
			m.open("/proc/50", "4", FileID(imageID.Dev, 101), "02")
			m.link("/proc/50/fd/4", image)
		}, image, nil},
		{"a deleted name", func(m *machine) {
			m.open("/proc/50", "4", imageID, "02")
			m.link("/proc/50/fd/4", image+" (deleted)")
		}, image, []string{"fd.write same sshd.50"}},
		{"a partition of the target", func(m *machine) { m.open("/proc/50", "4", devID("8:17"), "02") }, "/dev/sdb", []string{"fd.write partition sshd.50"}},
		{"the disk of the target", func(m *machine) { m.open("/proc/50", "4", sdb, "00") }, "/dev/sdb1", []string{"fd.read whole sshd.50"}},
		{"another partition", func(m *machine) { m.open("/proc/50", "4", devID("8:18"), "02") }, "/dev/sdb1", nil},
		{"a loop device on the target", func(m *machine) {
			m.loop("loop0", "7:0", onImage(0, 0))
			m.open("/proc/50", "4", devID("7:0"), "02")
		}, image, []string{"fd.write above sshd.50"}},
		{"flags that cannot be read", func(m *machine) {
			m.open("/proc/50", "4", imageID, "0")
			m.fs.SetErr("/proc/50/fdinfo/4", syscall.EACCES)
		}, image, []string{"fd.write same sshd.50"}},
		{"flags that are cut off", func(m *machine) {
			m.open("/proc/50", "4", imageID, "0")
			m.file("/proc/50/fdinfo/4", "pos:\t0\nflags:\t01000")
		}, image, []string{"fd.write same sshd.50"}},
		{"closed meanwhile", func(m *machine) {
			m.open("/proc/50", "4", imageID, "02")
			m.fs.SetErr("/proc/50/fdinfo/4", syscall.ENOENT)
		}, image, nil},
		{"gone meanwhile", func(m *machine) { m.fs.SetErr("/proc/50/fd", syscall.ENOENT) }, image, nil},
		{"threads whose first has ended", func(m *machine) {
			m.file("/proc/50/task/51/comm", "sshd\n")
			m.open("/proc/50/task/51", "4", imageID, "02")
			m.fs.SetDir("/proc/50/task/51/fd", "4")
		}, image, []string{"fd.write same sshd.50"}},
		{"threads that cannot be listed", func(m *machine) { m.fs.SetErr("/proc/50/task", syscall.EACCES) },
			image, []string{"blind.procfd unrelated sshd.50"}},
		{"mapped and closed", func(m *machine) {
			m.mapped("50", "r--s", imageID)
		}, image, []string{"fd.read same sshd.50"}},
		{"mapped for writing", func(m *machine) { m.mapped("50", "rw-s", imageID) }, image, []string{"fd.write same sshd.50"}},
		{"a private copy mapped", func(m *machine) { m.mapped("50", "rw-p", imageID) }, image, []string{"fd.read same sshd.50"}},
		{"a device mapped", func(m *machine) { m.mapped("50", "rw-s", sdb) }, "/dev/sdb", []string{"fd.write same sshd.50"}},
		{"another subvolume's file mapped, then the target", func(m *machine) {
			m.mapped("1", "rw-s", FileID(hostfs.Mkdev(0, 41), 100))
			m.mapped("50", "rw-s", imageID)
		}, image, []string{"fd.write same sshd.50"}},
		{"a mapping that cannot be followed", func(m *machine) {
			m.mapped("50", "rw-s", imageID)
			m.fs.SetErr("/proc/50/map_files", syscall.EPERM)
			m.fs.SetErr("/proc/50/map_files/400000-452000", syscall.EPERM)
		}, image, []string{"blind.procfd unrelated sshd.50"}},
		{"mappings that cannot be read", func(m *machine) { m.fs.SetErr("/proc/50/maps", syscall.EACCES) },
			image, []string{"blind.procfd unrelated sshd.50"}},
		{"mappings that are cut off", func(m *machine) { m.file("/proc/50/maps", "00400000-00452000 r-xp 0000") },
			image, []string{"blind.procfd unrelated sshd.50"}},
		{"a process that may not be looked at", func(m *machine) { m.fs.SetErr("/proc/50/fd", syscall.EACCES) },
			image, []string{"blind.procfd unrelated sshd.50"}},
		{"a descriptor that may not be followed", func(m *machine) {
			m.open("/proc/50", "4", imageID, "02")
			m.open("/proc/50", "5", imageID, "02")
			m.fs.SetErr("/proc/50/fd/4", syscall.EACCES)
		}, image, []string{"fd.write same sshd.50", "blind.procfd unrelated sshd.50"}},
		{"another PID namespace", func(m *machine) { m.link("/proc/self/ns/pid", "pid:[4026532222]") },
			image, []string{"blind.procfd unrelated /proc"}},
		{"a PID namespace that cannot be told", func(m *machine) { m.fs.SetErr("/proc/self/ns/pid", syscall.ENOENT) },
			image, []string{"blind.procfd unrelated /proc/self/ns/pid"}},
		{"hidden processes", func(m *machine) { m.fs.SetDir("/proc", "self", "50") },
			image, []string{"blind.procfd unrelated /proc"}},
		{"no list of processes", func(m *machine) { m.fs.SetErr("/proc", syscall.EIO) },
			image, []string{"blind.procfd unrelated /proc"}},
		{"a target that is not there", func(m *machine) { m.fs.SetErr("/proc", syscall.EIO) }, "/srv/images/new.img", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
			tt.build(m)
			wantFound(t, m.collect(t, procfd{}, tt.target), tt.want...)
		})
	}
}

// mapped records that a process has a file or device mapped.
func (m *machine) mapped(pid, perms string, id ID) {
	ino, dev := id.Ino, "08:01"
	st := hostfs.Stat{Type: hostfs.Regular, Dev: id.Dev, Ino: id.Ino}
	if id.Kind == KindBlock {
		ino, dev, st = id.Rdev, "00:06", hostfs.Stat{Type: hostfs.BlockDevice, Rdev: id.Rdev}
	}
	m.file("/proc/"+pid+"/maps", fmt.Sprintf("7f00-7f10 rw-p 0 00:00 0 [heap]\n00400000-00452000 %s 00000000 %s %d  /whatever\n", perms, dev, ino))
	m.stat("/proc/"+pid+"/map_files/400000-452000", st)
}

// From one process too many on they are one line, which names how many.
func TestManyDenials(t *testing.T) {
	for n, want := range map[int]int{manyBlind - 1: manyBlind - 1, manyBlind: manyBlind, manyBlind + 1: 1} {
		m := newMachine()
		for i := range n {
			pid := fmt.Sprint(100 + i)
			m.process(pid, "x")
			m.fs.SetErr("/proc/"+pid+"/fd", syscall.EACCES)
		}
		got := gather(m.collect(t, procfd{}, image))
		if len(got) != want {
			t.Errorf("%d denials in %d lines, want %d", n, len(got), want)
		}
		if want == 1 && (got[0].Key != "processes" || !strings.Contains(got[0].Detail, fmt.Sprintf("with %d processes more", n-1))) {
			t.Errorf("%d denials are said as %q with the key %q", n, got[0].Detail, got[0].Key)
		}
	}
}

// In the second look exactly our own descriptor is expected: not another of
// ours, not the same number in another process.
func TestOwnDescriptor(t *testing.T) {
	dir := t.TempDir()
	h := testHeld(t, dir+"/x")
	m := newMachine()
	m.process("60", "imgward")
	h.pid = 60
	own, next := fmt.Sprint(h.fd()), fmt.Sprint(h.fd()+1)
	m.open("/proc/60", own, imageID, "02")
	wantFound(t, m.collectHeld(t, procfd{}, image, h))
	wantFound(t, m.collect(t, procfd{}, image), "fd.write same imgward.60")

	m.open("/proc/60", next, imageID, "02")
	wantFound(t, m.collectHeld(t, procfd{}, image, h), "fd.write same imgward.60")

	m.open("/proc/50", own, imageID, "02")
	got := m.collectHeld(t, procfd{}, image, h)
	if !slices.Contains(found(got), "fd.write same sshd.50") {
		t.Errorf("another process's descriptor of the same number: found %q", found(got))
	}
}
