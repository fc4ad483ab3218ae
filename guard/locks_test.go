package guard

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

func TestLocks(t *testing.T) {
	ofd := func(lines ...string) string {
		var b strings.Builder
		for i, l := range lines {
			b.WriteString(string(rune('1'+i)) + ": OFDLCK ADVISORY  READ -1 " + l + "\n")
		}
		return b.String()
	}
	// descriptor has a process hold locks through one of the image.
	descriptor := func(m *machine, pid string, lines string) {
		m.open("/proc/"+pid, "9", imageID, "0100002")
		m.file("/proc/"+pid+"/fdinfo/9", "flags:\t0100002\nlock:\t"+strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\nlock:\t")+"\n")
	}
	machineDisk := ofd("08:01:100 201 201", "08:01:100 100 101")
	for _, tt := range []struct {
		name  string
		locks string
		build func(m *machine)
		want  []string
	}{
		{"none", "", nil, nil},
		{"a machine's disk", machineDisk, func(m *machine) { descriptor(m, "50", machineDisk) }, []string{"lock.write same sshd.50"}},
		{"a machine's disk, and nobody can be looked at", machineDisk, func(m *machine) {
			m.fs.SetErr("/proc/50/fd", syscall.EACCES)
		}, []string{"lock.write same holder"}},
		{"a holder whose descriptor cannot be looked into", machineDisk, func(m *machine) {
			descriptor(m, "50", machineDisk)
			m.fs.SetErr("/proc/50/fdinfo/9", syscall.EACCES)
		}, []string{"lock.write same holder"}},
		{"processes are hidden", machineDisk, func(m *machine) { m.fs.SetErr("/proc", syscall.EACCES) }, []string{"lock.write same holder"}},
		{"a base image", ofd("08:01:100 100 100", "08:01:100 201 201", "08:01:100 203 203"), nil, []string{"lock.read same holder"}},
		{"one who resizes", ofd("08:01:100 103 103"), nil, []string{"lock.write same holder"}},
		{"one who may write what is there already", ofd("08:01:100 102 102"), nil, []string{"lock.read same holder"}},
		{"all that QEMU may do", ofd("08:01:100 100 103"), nil, []string{"lock.write same holder"}},
		{"bytes beside QEMU's", ofd("08:01:100 99 101"), nil, []string{"lock.read same holder"}},
		{"more than QEMU's", ofd("08:01:100 100 104"), nil, []string{"lock.read same holder"}},
		{"two readers", ofd("08:01:100 100 100", "08:01:100 100 100"), func(m *machine) {
			descriptor(m, "1", ofd("08:01:100 100 100"))
			descriptor(m, "50", ofd("08:01:100 100 100"))
		}, []string{"lock.read same init.1", "lock.read same sshd.50"}},
		{"one who is seen and one who is not", ofd("08:01:100 100 100", "08:01:100 100 101"), func(m *machine) {
			descriptor(m, "50", ofd("08:01:100 100 100"))
		}, []string{"lock.read same sshd.50", "lock.write same holder"}},
		{"an exclusive lock of all of it", "1: POSIX  ADVISORY  WRITE 50 08:01:100 0 EOF\n", nil, []string{"lock.write same sshd.50"}},
		{"a shared lock of all of it", "1: POSIX  ADVISORY  READ 50 08:01:100 0 EOF\n", nil, []string{"lock.read same sshd.50"}},
		{"of another host, through the NFS server", "1: POSIX  ADVISORY  WRITE -7 08:01:100 0 EOF\n", nil, []string{"lock.write same holder"}},
		{"libvirt's", "1: POSIX  ADVISORY  WRITE 60 08:01:100 0 0\n", func(m *machine) { m.process("60", "virtlockd") }, []string{"lock.guest same virtlockd.60"}},
		{"libvirt's for a shared disk", "1: POSIX  ADVISORY  READ 60 08:01:100 0 0\n", func(m *machine) { m.process("60", "virtlockd") },
			[]string{"lock.guest same virtlockd.60"}},
		{"one who waits", "1: POSIX  ADVISORY  WRITE 1 08:01:7 0 EOF\n1: -> POSIX  ADVISORY  WRITE 50 08:01:100 0 EOF\n", nil, nil},
		{"locks of other kinds", "1: FLOCK  ADVISORY  WRITE 50 08:01:100 0 EOF\n2: LEASE  ACTIVE    WRITE 50 08:01:100 0 EOF\n", nil, nil},
		{"another inode", ofd("08:01:1100 100 101", "08:01:10 100 101"), nil, nil},
		{"another file system", ofd("08:02:100 100 101", "00:2a:100 100 101"), nil, nil},
		{"a file that has gone", "1: POSIX  ADVISORY  WRITE 50 <none>:0 0 EOF\n", nil, nil},
		{"a subvolume, whose table shows another device", ofd("00:2a:100 100 101"), func(m *machine) {
			m.image(image, FileID(hostfs.Mkdev(0, 43), 100), "write", 0)
		}, []string{"lock.write same holder"}},
		{"a table that is cut off", "1: OFDLCK ADVISORY  READ -1 08:01:100 100 101", nil, []string{"blind.locks unrelated /proc/locks"}},
		{"a malformed inode", ofd("08:01:x 100 101"), nil, []string{"blind.locks unrelated /proc/locks"}},
		{"no such table", "", func(m *machine) { m.fs.SetErr("/proc/locks", syscall.ENOENT) }, []string{"blind.locks unrelated /proc/locks"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.file("/proc/locks", tt.locks)
			if tt.build != nil {
				tt.build(m)
			}
			wantFound(t, m.collect(t, locks{}, image), tt.want...)
		})
	}
}

// A lock on a device is on its node; one on the file under a loop device counts
// for the device.
func TestLocksOfDevices(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.disk("sdc", "8:32")
	m.loop("loop0", "7:0", onImage(0, 0))
	node, err := m.fs.Stat("/dev/sdb")
	if err != nil {
		t.Fatal(err)
	}
	l := lock{kind: "OFDLCK", access: "READ", pid: "-1", dev: node.Dev, ino: node.Ino, start: 100, end: "101"}
	if !l.on(node.Dev, node.Ino) || l.on(node.Dev, node.Ino+1) {
		t.Errorf("%s", l)
	}
	m.file("/proc/locks", "1: OFDLCK ADVISORY  READ -1 00:06:2064 100 101\n2: POSIX  ADVISORY  WRITE 50 08:01:100 0 0\n")
	wantFound(t, m.collect(t, locks{}, "/dev/sdb"), "lock.write same holder")
	wantFound(t, m.collect(t, locks{}, "/dev/sdc"))
	wantFound(t, m.collect(t, locks{}, "/dev/loop0"), "lock.write below sshd.50")
	wantFound(t, m.collect(t, locks{}, "/srv/images/new.img"))
}

// Nothing but the table is read where no lock is on the target.
func TestLocksCostNothing(t *testing.T) {
	m := newMachine()
	m.file("/proc/locks", "1: OFDLCK ADVISORY  READ -1 08:01:101 100 101\n")
	var read []string
	target := m.resolve(t, image)
	view := target.look(t.Context(), m.host, func(string, error) {})
	m.host.FS = m.fs.Record(func(op, name string) { read = append(read, op+" "+name) })
	locks{}.Collect(t.Context(), m.host, view, &Sheet{collector: "locks"})
	if !slices.Equal(read, []string{"read /proc/locks"}) {
		t.Errorf("read %q", read)
	}
}

// The real kernel's table, with real holders.
func TestRealLocks(t *testing.T) {
	b := newPlace(t)
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		typ     int16
		start   int64
		command int
		want    Code
	}{
		{unix.F_WRLCK, 0, unix.F_OFD_SETLK, LockWrite},
		{unix.F_RDLCK, 0, unix.F_OFD_SETLK, LockRead},
		{unix.F_RDLCK, 101, unix.F_OFD_SETLK, LockWrite},
		{unix.F_RDLCK, 201, unix.F_OFD_SETLK, LockRead},
		{unix.F_RDLCK, 0, unix.F_SETLK, LockRead},
		{unix.F_UNLCK, 0, unix.F_OFD_SETLK, ""},
	} {
		all := unix.Flock_t{Type: unix.F_UNLCK}
		l := unix.Flock_t{Type: tt.typ, Start: tt.start, Len: 1}
		for _, command := range []int{unix.F_SETLK, unix.F_OFD_SETLK} {
			if err := unix.FcntlFlock(f.Fd(), command, &all); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.FcntlFlock(f.Fd(), tt.command, &l); err != nil {
			t.Fatal(err)
		}
		fs := b.collect(locks{})
		if tt.want == "" {
			wantFound(t, fs)
			continue
		}
		if len(fs) != 1 || fs[0].Code != tt.want || !strings.Contains(fs[0].Subject, "guard.test") {
			t.Errorf("type %d at %d: found %+v, want %s of this process", tt.typ, tt.start, fs, tt.want)
		}
	}
}

// collect has one collector look at the place's image.
func (b *place) collect(c Collector) []Finding {
	b.Helper()
	target, err := Resolve(b.Context(), b.guard.Host, b.path)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	return Examine(b.Context(), b.guard.Host, target, []Collector{c}).Findings
}

// QEMU's own tool names itself by its locks while it has the image open, and is
// gone with them.
func TestRealQEMULocks(t *testing.T) {
	testkit.Need(t, "qemu-io")
	b := newPlace(t)
	for _, tt := range []struct {
		option string
		want   Code
	}{{"", LockWrite}, {"-r", LockRead}} {
		cmd := exec.Command("qemu-io", strings.Fields("-f raw "+tt.option+" "+b.path)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It answers when it has opened the image.
		if _, err := io.WriteString(in, "length\n"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(readUntil(t, out, "16"), "16 KiB") {
			t.Error("qemu-io does not say the length of the image")
		}
		fs := b.collect(locks{})
		if len(fs) != 1 || fs[0].Code != tt.want || !strings.Contains(fs[0].Subject, "(qemu-io)") || !strings.Contains(fs[0].Detail, "QEMU") {
			t.Errorf("qemu-io %s: found %+v, want %s", tt.option, fs, tt.want)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		wantFound(t, b.collect(locks{}))
	}
}

// readUntil gives what r says up to the line that has the word.
func readUntil(t *testing.T, r io.Reader, word string) string {
	t.Helper()
	lines := bufio.NewReader(r)
	var all strings.Builder
	for {
		line, err := lines.ReadString('\n')
		all.WriteString(line)
		if err != nil || strings.Contains(line, word) {
			return all.String()
		}
	}
}

// On a subvolume and on layers the table shows another device than stat does.
func TestRealLocksOfOtherDevices(t *testing.T) {
	testkit.Need(t, "root", "mkfs.btrfs")
	sh := func(command string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	for name, mount := range map[string]string{
		"btrfs":     "truncate -s 128M DIR/fs; mkfs.btrfs -q DIR/fs; mount -o loop DIR/fs DIR/m; btrfs -q subvolume create DIR/m/sub; mkdir DIR/x; mount --bind DIR/m/sub DIR/x; umount DIR/m",
		"overlayfs": "mkdir DIR/x DIR/u; mount -t tmpfs none DIR/u; mkdir DIR/u/l DIR/u/u DIR/u/w; truncate -s 4096 DIR/u/l/low; mount -t overlay -o lowerdir=DIR/u/l,upperdir=DIR/u/u,workdir=DIR/u/w none DIR/x; umount -l DIR/u",
	} {
		t.Run(name, func(t *testing.T) {
			b := newPlace(t)
			if err := os.Mkdir(b.dir+"/m", 0o700); err != nil {
				t.Fatal(err)
			}
			sh(strings.ReplaceAll(mount, "DIR", b.dir))
			defer sh("umount " + b.dir + "/x")
			b.path = b.dir + "/x/web1.img"
			b.put(b.path, b.content)
			f, err := os.OpenFile(b.path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			l := unix.Flock_t{Type: unix.F_RDLCK, Start: 101, Len: 1}
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
				t.Fatal(err)
			}
			if fs := b.collect(locks{}); len(fs) != 1 || fs[0].Code != LockWrite || !strings.Contains(fs[0].Subject, "guard.test") {
				t.Errorf("found %+v", fs)
			}
			// A lease likewise, which our own question would break.
			g, err := os.Create(b.dir + "/x/leased.img")
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if _, err := unix.FcntlInt(g.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
				t.Fatal(err)
			}
			b.path = g.Name()
			wantFound(t, b.collect(lease{}), "lease.taken same guard.test."+strconv.Itoa(os.Getpid()))
			if kind, err := unix.FcntlInt(g.Fd(), unix.F_GETLEASE, 0); err != nil || kind != unix.F_WRLCK {
				t.Errorf("the lease is %d now, %v", kind, err)
			}
		})
	}
}
