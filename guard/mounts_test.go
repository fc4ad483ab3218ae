package guard

import (
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// mounted adds a line to the mount table of a process.
func (m *machine) mounted(pid, line string) {
	m.file("/proc/"+pid+"/mountinfo", rootMount+line+"\n")
}

// elsewhere puts a process into a mount namespace of its own.
func (m *machine) elsewhere(pid, table string) {
	m.process(pid, "shell")
	m.link("/proc/"+pid+"/ns/mnt", "mnt:["+pid+"]")
	m.file("/proc/"+pid+"/mountinfo", table)
}

func TestMounts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"read-write", func(m *machine) { m.mounted("1", "30 22 8:17 / /mnt rw - xfs /dev/sdb1 rw") },
			"/dev/sdb1", []string{"mount.rw same /mnt"}},
		{"read-only", func(m *machine) { m.mounted("1", "30 22 8:17 / /mnt ro - xfs /dev/sdb1 ro,noatime") },
			"/dev/sdb1", []string{"mount.ro same /mnt"}},
		{"a read-only view of a writable file system", func(m *machine) { m.mounted("1", "30 22 8:17 / /mnt ro - xfs /dev/sdb1 rw") },
			"/dev/sdb1", []string{"mount.rw same /mnt"}},
		{"a partition of the target", func(m *machine) { m.mounted("1", "30 22 8:17 / /mnt rw - xfs /dev/sdb1 rw") },
			"/dev/sdb", []string{"mount.rw partition /mnt"}},
		{"another partition", func(m *machine) { m.mounted("1", "30 22 8:18 / /mnt rw - xfs /dev/sdb2 rw") },
			"/dev/sdb1", nil},
		{"the host's root", func(m *machine) {}, "/dev/sda", []string{"host.root partition /"}},
		{"the host's root, read-only", func(m *machine) { m.file("/proc/1/mountinfo", "22 1 8:1 / / ro - ext4 /dev/sda1 ro\n") },
			"/dev/sda", []string{"host.root partition /"}},
		{"a loop device on the target", func(m *machine) {
			m.loop("loop0", "7:0", onImage(0, 0))
			m.mounted("1", "30 22 7:0 / /mnt rw - iso9660 /dev/loop0 rw")
		}, image, []string{"mount.rw above /mnt"}},
		{"another namespace", func(m *machine) {
			m.elsewhere("60", "41 40 8:17 / /data rw - ext4 /dev/sdb1 rw\n40 1 0:50 / / rw - overlay overlay rw\n")
		}, "/dev/sdb1", []string{"mount.rw same /data"}},
		{"btrfs, whose number is no device's", func(m *machine) { m.mounted("1", "30 22 0:39 /sub /mnt rw - btrfs /dev/sdb1 rw,subvol=/sub") },
			"/dev/sdb1", []string{"mount.rw same /mnt"}},
		{"a name with blanks", func(m *machine) { m.mounted("1", `30 22 8:17 / /my\040disk rw - xfs /dev/sdb1 rw`) },
			"/dev/sdb1", []string{"mount.rw same /my_disk"}},
		{"a source that is no path", func(m *machine) { m.mounted("1", "30 22 0:40 / /mnt rw - nfs4 sdb1:/ rw") },
			"/dev/sdb1", nil},
		{"a process that is gone", func(m *machine) {
			m.process("60", "x")
			m.fs.SetErr("/proc/60/ns/mnt", syscall.ENOENT)
			m.process("61", "x")
			m.link("/proc/61/ns/mnt", "mnt:[61]")
			m.fs.SetErr("/proc/61/mountinfo", syscall.ESRCH)
		}, "/dev/sdb1", nil},
		{"a namespace that cannot be told", func(m *machine) {
			m.process("60", "x y")
			m.fs.SetErr("/proc/60/ns/mnt", syscall.EACCES)
		}, "/dev/sdb1", []string{"blind.mounts unrelated x_y.60"}},
		{"a table that cannot be read", func(m *machine) {
			m.elsewhere("60", "")
			m.fs.SetErr("/proc/60/mountinfo", syscall.EACCES)
		}, "/dev/sdb1", []string{"blind.mounts unrelated shell.60"}},
		{"a table that another process shows", func(m *machine) {
			m.elsewhere("60", "")
			m.fs.SetErr("/proc/60/mountinfo", syscall.ENOENT)
			m.elsewhere("61", rootMount+"30 22 8:17 / /mnt rw - xfs /dev/sdb1 rw\n")
			m.link("/proc/61/ns/mnt", "mnt:[60]")
		}, "/dev/sdb1", []string{"mount.rw same /mnt"}},
		{"a table that is cut off", func(m *machine) { m.elsewhere("60", rootMount+"30 22 8:1") },
			"/dev/sdb1", []string{"blind.mounts unrelated shell.60"}},
		{"a table that is empty", func(m *machine) { m.elsewhere("60", "") },
			"/dev/sdb1", []string{"blind.mounts unrelated shell.60"}},
		{"a process that changed its root", func(m *machine) {
			m.elsewhere("60", "30 22 8:18 / /run rw - xfs /dev/sdb2 rw\n")
			m.elsewhere("61", rootMount+"30 22 8:17 / /mnt rw - xfs /dev/sdb1 rw\n")
			m.link("/proc/61/ns/mnt", "mnt:[60]")
		}, "/dev/sdb1", []string{"mount.rw same /mnt"}},
		{"only processes that changed their roots", func(m *machine) { m.elsewhere("60", "30 22 8:17 / /run rw - xfs /dev/sdb1 rw\n") },
			"/dev/sdb1", []string{"mount.rw same /run", "blind.mounts unrelated shell.60"}},
		{"hidden processes", func(m *machine) { m.fs.SetDir("/proc", "self", "50", "swaps") },
			"/dev/sdb1", []string{"blind.mounts unrelated /proc"}},
		{"no processes at all", func(m *machine) { m.fs.SetErr("/proc", syscall.EACCES) },
			"/dev/sdb1", []string{"blind.mounts unrelated /proc"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
			tt.build(m)
			wantFound(t, m.collect(t, mounts{}, tt.target), tt.want...)
		})
	}
}

// Where we changed our own root, the host's mounts are those of the first
// process, and its root is still the host's.
func TestMountsFromChangedRoot(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.file("/proc/self/mountinfo", "22 1 8:16 / / rw - ext4 /dev/sdb rw\n")
	wantFound(t, m.collect(t, mounts{}, "/dev/sda1"), "host.root same /")
}

// What a mount says of itself can be anybody's words.
func TestMountsQuoteForeignText(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.mounted("1", "30 22 8:16 / /m\x1b[2Jnt rw - fuse.\x1b[2J /dev/sdb rw")
	for _, f := range m.collect(t, mounts{}, "/dev/sdb") {
		for _, text := range []string{f.Subject, f.Key, f.Detail, f.Source, f.Remedy, (&RefusedError{Policy{}.Judge([]Finding{f})}).Error()} {
			if strings.ContainsRune(text, 0x1b) {
				t.Errorf("an escape character in %q", text)
			}
		}
	}
}

func TestParseMountinfo(t *testing.T) {
	got, err := parseMountinfo(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root\011x rw,errors=continue` + "\n")
	want := []mount{{
		dev: hostfs.Mkdev(98, 0), root: "/mnt1", point: "/mnt 2", source: "/dev/root\tx", fstype: "ext3", rw: true,
		line: `36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root\011x rw,errors=continue`,
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw", // no end of line
		"36 35 98:0 /mnt1 /mnt2 rw ext3 /dev/root rw\n",
		"36 35 98 /mnt1 /mnt2 rw - ext3 /dev/root rw\n",
		"36 35 98:0 /mnt1 rw - ext3 /dev/root rw\n",
		"36 35 98:0 /mnt1 /mnt2 rw - ext3 rw\n",
		"\n",
	} {
		if got, err := parseMountinfo(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	long := strings.Repeat("x", 100_000)
	if got, err := parseMountinfo(fmt.Sprintf("36 35 0:9 / /mnt rw - overlay o rw,lowerdir=%s\n", long)); err != nil || len(got) != 1 {
		t.Errorf("a long line: %d mounts, %v", len(got), err)
	}
}

func TestSwaps(t *testing.T) {
	const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for _, tt := range []struct {
		name, table, target string
		want                []string
	}{
		{"a device", head + "/dev/sdb1 partition 1000 0 -2\n", "/dev/sdb1", []string{"swap.active same /dev/sdb1"}},
		{"a partition of the target", head + "/dev/sdb1 partition 1000 0 -2\n", "/dev/sdb", []string{"swap.active partition /dev/sdb1"}},
		{"another partition", head + "/dev/sdb1 partition 1000 0 -2\n", "/dev/sdb2", nil},
		{"a file", head + image + "\tfile\t1000\t0\t-3\n", image, []string{"swap.active same " + image}},
		{"a file with a blank in its name", head + `/srv/my\040swap file 1000 0 -3` + "\n", image, []string{"swap.active same /srv/my_swap"}},
		{"a file that cannot be looked at", head + "/srv/gone file 1000 0 -3\n", image, []string{"blind.swaps unrelated /srv/gone"}},
		{"none", head, image, nil},
		{"nothing at all", "", image, []string{"blind.swaps unrelated /proc/swaps"}},
		{"no head line", "/dev/sdb1 partition 1000 0 -2\n", image, []string{"blind.swaps unrelated /proc/swaps"}},
		{"cut off", head + "/dev/sdb1 partition 1000 0 -2\n/dev/sd", "/dev/sdb1",
			[]string{"blind.swaps unrelated /proc/swaps", "swap.active same /dev/sdb1"}},
		{"a line of something else", head + "/dev/sdb1 partition\n", "/dev/sdb1", []string{"blind.swaps unrelated /proc/swaps"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
			m.stat("/srv/my swap", hostfs.Stat{Type: hostfs.Regular, Dev: imageID.Dev, Ino: imageID.Ino})
			m.file("/proc/swaps", tt.table)
			wantFound(t, m.collect(t, swaps{}, tt.target), tt.want...)
		})
	}
	m := newMachine()
	m.fs.SetErr("/proc/swaps", syscall.EACCES)
	wantFound(t, m.collect(t, swaps{}, image), "blind.swaps unrelated /proc/swaps")
}
