package guard

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/guard/hostfs"
)

const marksPath = "/var/lib/imgward/incomplete"

// mark records an unfinished write as one of this boot, by process 50, unless
// change says otherwise.
func (m *machine) mark(t *testing.T, name string, change func(r *Mark)) {
	t.Helper()
	r := &Mark{
		ID: "file:u-1:100:1.000000001", Lasting: true, Path: image, Numbers: imageID, Boot: "boot-1", PID: "50", PIDs: initPIDNamespace, Start: "4711",
		Command: []string{"imgward", "overwrite", "a b", image}, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if change != nil {
		change(r)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	m.file(marksPath+"/"+name, string(b))
}

// namespaces puts every process into the first PID namespace, but for sshd's.
func (m *machine) namespaces(sshd string) {
	m.link("/proc/1/ns/pid", initPIDNamespace)
	m.link("/proc/50/ns/pid", "pid:["+sshd+"]")
}

func TestMarks(t *testing.T) {
	elsewhere := func(r *Mark) { r.ID, r.Numbers = "file:u-1:101:1.000000001", FileID(imageID.Dev, 101) }
	for _, tt := range []struct {
		name   string
		build  func(t *testing.T, m *machine)
		target string
		want   []string
	}{
		{"none", func(t *testing.T, m *machine) { m.dir(marksPath) }, image, nil},
		{"no directory for them", func(t *testing.T, m *machine) {}, image, nil},
		{"at work", func(t *testing.T, m *machine) { m.mark(t, "a", nil) }, image, []string{"self.writing same imgward.50"}},
		{"dead", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.PID = "51" }) }, image, []string{"self.incomplete same imgward.51"}},
		{"another process of that number", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.Start = "4712" }) },
			image, []string{"self.incomplete same imgward.50"}},
		{"perhaps at work", func(t *testing.T, m *machine) {
			m.mark(t, "a", nil)
			m.fs.SetErr("/proc/50/stat", syscall.EACCES)
		}, image, []string{"self.writing same imgward.50"}},
		{"at work in another PID namespace", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.PID, r.PIDs = "7", "pid:[4026532000]" })
			m.namespaces("4026532000")
		}, image, []string{"self.writing same imgward.7"}},
		{"dead in another PID namespace", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.PIDs = "pid:[4026532000]" })
			m.namespaces("4026531836")
		}, image, []string{"self.incomplete same imgward.50"}},
		{"in a PID namespace that is not known", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.PID, r.PIDs = "51", "" }) },
			image, []string{"self.writing same imgward.51"}},
		{"another boot", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.Boot = "boot-0" }) },
			image, []string{"self.incomplete same imgward.50"}},
		{"another boot, and numbers that mean something else now", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.Boot, r.ID = "boot-0", "file:u-2:100:1.0" })
		}, image, nil},
		{"a boot that cannot be told", func(t *testing.T, m *machine) {
			m.mark(t, "a", nil)
			m.fs.SetErr("/proc/sys/kernel/random/boot_id", syscall.EACCES)
		}, image, []string{"self.writing same imgward.50"}},
		{"a boot that could not be told", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.Boot = unknownBoot }) },
			image, []string{"self.writing same imgward.50"}},
		{"another file", func(t *testing.T, m *machine) { m.mark(t, "a", elsewhere) }, image, nil},
		{"moved to another place", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.Path = "/old" }) },
			image, []string{"self.writing same imgward.50"}},
		{"a file system that tells no uuid", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.ID = "now:boot-1:inode 100 on 8:1" })
			m.fs.SetAsk(hostfs.Identity, image, "fsuuid= ino=100 btime=", 0)
		}, image, []string{"self.writing same imgward.50"}},
		{"a file system whose uuid udev tells", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.Boot, r.ID = "boot-0", "file:1234-ABCD:100:" })
			m.fs.SetAsk(hostfs.Identity, image, "fsuuid= ino=100 btime=", 0)
			m.link("/dev/disk/by-uuid/1234-ABCD", "../../sda1")
		}, image, []string{"self.incomplete same imgward.50"}},
		{"the disk of what is written", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.ID, r.Numbers = "x", devID("8:17") })
		}, "/dev/sdb", []string{"self.writing partition imgward.50"}},
		{"a partition of what is written", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.ID, r.Numbers = "x", devID("8:16") })
		}, "/dev/sdb1", []string{"self.writing whole imgward.50"}},
		{"another partition", func(t *testing.T, m *machine) {
			m.mark(t, "a", func(r *Mark) { r.ID, r.Numbers = "x", devID("8:17") })
		}, "/dev/sdb2", nil},
		{"the loop device on what is written, after a boot", func(t *testing.T, m *machine) {
			m.loop("loop0", "7:0", onImage(0, 0))
			m.mark(t, "a", func(r *Mark) { r.Boot = "boot-0" })
		}, "/dev/loop0", []string{"self.incomplete same imgward.50"}},
		{"two of them", func(t *testing.T, m *machine) {
			m.mark(t, "a", nil)
			m.mark(t, "b", elsewhere)
			m.mark(t, "c", func(r *Mark) { r.PID, r.ID = "51", "x" })
		}, image, []string{"self.writing same imgward.50", "self.incomplete same imgward.51"}},
		{"one that never became a mark", func(t *testing.T, m *machine) { m.file(marksPath+"/.new-17", "{\"id\"") }, image, nil},
		{"finished meanwhile", func(t *testing.T, m *machine) {
			m.mark(t, "a", nil)
			m.fs.SetErr(marksPath+"/a", syscall.ENOENT)
		}, image, nil},
		{"one that cannot be read", func(t *testing.T, m *machine) {
			m.mark(t, "a", nil)
			m.fs.SetErr(marksPath+"/a", syscall.EIO)
		}, image, []string{"blind.marks unrelated " + marksPath + "/a"}},
		{"an empty one", func(t *testing.T, m *machine) { m.file(marksPath+"/a", "") }, image, []string{"blind.marks unrelated " + marksPath + "/a"}},
		{"half of one", func(t *testing.T, m *machine) { m.file(marksPath+"/a", `{"id":"x","pid":"50"`) }, image, []string{"blind.marks unrelated " + marksPath + "/a"}},
		{"somebody else's file", func(t *testing.T, m *machine) { m.file(marksPath+"/a", `{"name":"x"}`) }, image, []string{"blind.marks unrelated " + marksPath + "/a"}},
		{"one without the process's start", func(t *testing.T, m *machine) { m.mark(t, "a", func(r *Mark) { r.Start = "" }) },
			image, []string{"blind.marks unrelated " + marksPath + "/a"}},
		{"a directory that cannot be listed", func(t *testing.T, m *machine) { m.fs.SetErr(marksPath, syscall.EACCES) },
			image, []string{"blind.marks unrelated " + marksPath}},
		{"a new file", func(t *testing.T, m *machine) { m.fs.SetErr(marksPath, syscall.EACCES) }, "/srv/images/new.img", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
			tt.build(t, m)
			wantFound(t, m.collect(t, marks{}, tt.target), tt.want...)
		})
	}
}

// The command that did not finish is shown, whatever its words hold.
func TestMarkShowsCommand(t *testing.T) {
	m := newMachine()
	m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
	m.mark(t, "a", func(r *Mark) { r.PID, r.Command = "5\x1b", []string{"imgward", "overwrite", "gold\x1b[2J", "b c"} })
	fs := m.collect(t, marks{}, image)
	if len(fs) != 1 || !strings.Contains(fs[0].Source, `imgward overwrite "gold\x1b[2J" "b c"`) || !strings.Contains(fs[0].Detail, "2026-01-02 03:04:05 UTC") {
		t.Fatalf("found %+v", fs)
	}
	if text := fmt.Sprintf("%s%s%s%s", fs[0].Subject, fs[0].Key, fs[0].Detail, fs[0].Source); strings.ContainsRune(text, 0x1b) {
		t.Errorf("an escape character in %q", text)
	}
}

// A target is known again under its lasting name, and under none that another
// target can have as well.
func TestStableID(t *testing.T) {
	m := newMachine()
	m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000", "sdb2 8:18 3048 1000")
	m.file("/sys/block/sdb/device/wwid", "naa.5000 \n")
	m.disk("vdc", "254:0")
	m.file("/sys/block/vdc/serial", "serial-1\n")
	m.disk("vdd", "254:16", "vdd1 254:17 8 8")
	m.file("/sys/block/vdd/serial", "\n")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
	m.loop("loop0", "7:0", onImage(0, 0))
	m.loop("loop1", "7:1", onImage(4096, 0))
	m.loop("loop2", "7:2", onImage(0, 4096))
	seen := map[string]string{}
	for path, want := range map[string]string{
		image:        "file:u-1:100:1.000000001",
		"/dev/sdb":   "disk:naa.5000",
		"/dev/sdb1":  "disk:naa.5000:partition at 1048576",
		"/dev/sdb2":  "",
		"/dev/vdc":   "disk:serial-1",
		"/dev/vdd":   "now:boot-1:254:16",
		"/dev/vdd1":  "now:boot-1:254:17",
		"/dev/dm-0":  "dm:LVM-vg0-a",
		"/dev/loop1": "now:boot-1:7:1",
		"/dev/loop2": "now:boot-1:7:2",
	} {
		view := m.examine(t, path, nil).view
		id, lasting := stableID(t.Context(), m.host, view)
		if want != "" && id != want {
			t.Errorf("%s is %q, want %q", path, id, want)
		}
		if lasting == strings.HasPrefix(id, "now:") {
			t.Errorf("%s is %q, lasting %t", path, id, lasting)
		}
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s are both %q", path, other, id)
		}
		seen[id] = path
	}
	// A loop device is its file.
	id, _ := stableID(t.Context(), m.host, m.examine(t, "/dev/loop0", nil).view)
	if id != "file:u-1:100:1.000000001" {
		t.Errorf("the loop device is %q", id)
	}
}

// Two partitions never have one lasting name, however close they are.
func TestStableIDOfPartitions(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 1000000000 1", "sdb2 8:18 1000000001 1")
	m.file("/sys/block/sdb/wwid", "naa.5000\n")
	one, _ := stableID(t.Context(), m.host, m.examine(t, "/dev/sdb1", nil).view)
	two, _ := stableID(t.Context(), m.host, m.examine(t, "/dev/sdb2", nil).view)
	if one == two {
		t.Errorf("both are %q", one)
	}
}

func TestSelf(t *testing.T) {
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"some image", func(m *machine) {}, image, nil},
		{"the running program", func(m *machine) {
			m.stat("/proc/self/exe", hostfs.Stat{Type: hostfs.Regular, Dev: imageID.Dev, Ino: imageID.Ino})
		}, image, []string{"self.binary same imgward"}},
		{"a program whose file is gone", func(m *machine) { m.fs.SetErr("/proc/self/exe", syscall.ENOENT) }, image, nil},
		{"a program that cannot be looked at", func(m *machine) { m.fs.SetErr("/proc/self/exe", syscall.EACCES) },
			image, []string{"blind.self unrelated the_running_program"}},
		{"one of our records", func(m *machine) {
			m.records()
			m.image(marksPath+"/a", FileID(imageID.Dev, 200), "write", 0)
		}, marksPath + "/a", []string{"self.state same imgward"}},
		{"a new file among our records", func(m *machine) { m.records() }, marksPath + "/b", []string{"self.state same imgward"}},
		{"one of our records under another name", func(m *machine) {
			m.records()
			m.dir("/mnt/state")
			m.stat("/mnt/state", hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: m.inode(marksPath)})
			m.image("/mnt/state/a", FileID(imageID.Dev, 200), "write", 0)
		}, "/mnt/state/a", []string{"self.state same imgward"}},
		{"records that cannot be looked at", func(m *machine) { m.fs.SetErr("/var/lib/imgward", syscall.EACCES) }, image, []string{
			"blind.self unrelated /var/lib/imgward", "blind.self unrelated /var/lib/imgward/incomplete", "blind.self unrelated /var/lib/imgward/writes"}},
		{"a directory whose name begins alike", func(m *machine) { m.image("/var/lib/imgward-images/a", FileID(imageID.Dev, 201), "write", 0) },
			"/var/lib/imgward-images/a", nil},
		{"a device", func(m *machine) { m.fs.SetErr("/proc/self/exe", syscall.EACCES) }, "/dev/sda", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			tt.build(m)
			wantFound(t, m.collect(t, self{}, tt.target), tt.want...)
		})
	}
}

// records makes the directories of imgward's own records.
func (m *machine) records() {
	for _, dir := range []string{"/var/lib/imgward", marksPath, "/var/lib/imgward/writes"} {
		m.dir(dir)
	}
}

// A mark is on disk as a whole or not at all, and gives way to what was there.
func TestMarkFiles(t *testing.T) {
	dir := t.TempDir()
	host := &Host{FS: hostfs.Live(), State: filepath.Join(dir, "state")}
	m := &Mark{ID: "x", PID: "1", Start: "2", file: filepath.Join(marksDir(host), "x"), count: countFile(host, "x"), writes: 41}
	if err := m.write(); err != nil {
		t.Fatal(err)
	}
	if n, err := writesBegun(host, "x"); n != 42 || err != nil {
		t.Errorf("%d writes, %v", n, err)
	}
	if got, err := readMark(host, m.file); err != nil || got.ID != "x" || got.PID != "1" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := m.restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.file); !os.IsNotExist(err) {
		t.Errorf("after restoring what was not there: %v", err)
	}

	if err := os.WriteFile(m.file, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.write(); err != nil {
		t.Fatal(err)
	}
	if err := m.restore(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(m.file); string(b) != "earlier" {
		t.Errorf("restored %q, %v", b, err)
	}
	names, err := os.ReadDir(marksDir(host))
	if err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	for _, junk := range []string{"", "x", "-1", "99999999999999999999", "4 2"} {
		if err := os.WriteFile(m.count, []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := writesBegun(host, "x"); err == nil {
			t.Errorf("%q is %d writes", junk, n)
		}
	}
}

func TestStartTime(t *testing.T) {
	m := newMachine()
	for _, comm := range []string{"sh", "a) S 1 2", "((", "x)) R", ") "} {
		m.process("60", comm)
		if got, err := startTime(m.host, "60"); got != "4711" || err != nil {
			t.Errorf("%q: %q, %v", comm, got, err)
		}
	}
	for _, bad := range []string{"", "60 (sh", "60 (sh) S 0 0", "60 (sh)", "60 (sh) S" + strings.Repeat(" 0", 18) + " 47"} {
		m.file("/proc/60/stat", bad)
		if got, err := startTime(m.host, "60"); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
	if !running(m.host, "60", "4711") {
		t.Error("a process of which it cannot be told does not run")
	}
}

// What was left by one who was killed in the middle of writing a record goes with the
// next record, and is none.
func TestRecordCutShort(t *testing.T) {
	b := newPlace(t)
	left := func() (names []string) {
		for _, dir := range []string{marksDir(b.guard.Host), b.guard.Host.State + "/writes"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				names = append(names, e.Name())
			}
		}
		return names
	}
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Fatal(err)
	}
	count := left()
	if len(count) != 1 {
		t.Fatalf("there is %q", count)
	}
	for _, dir := range []string{marksDir(b.guard.Host), b.guard.Host.State + "/writes"} {
		b.put(dir+"/.new-"+count[0], []byte("half a re"))
	}
	target, v, err := b.guard.Check(t.Context(), b.path)
	if err != nil || v.Decision != Proceed {
		t.Fatalf("%v because of %v", err, v.Because)
	}
	target.Close()
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Fatal(err)
	}
	if got := left(); !slices.Equal(got, count) {
		t.Errorf("left: %q", got)
	}
}
