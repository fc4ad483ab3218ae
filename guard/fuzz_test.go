package guard

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"imgward/guard/domcfg"
	"imgward/guard/hostfs"
)

// What these parsers read is written by the kernel, by toolstacks and by
// whoever may mount, name a process or edit a file. None may panic, and what
// they accept must be what they were given.

func FuzzParseMountinfo(f *testing.F) {
	f.Add(rootMount)
	f.Add(rootMount + `36 35 98:0 /a\040b /mnt2 rw,noatime master:1 - fuse.x /dev/root rw` + "\n")
	f.Add("36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root")
	f.Fuzz(func(t *testing.T, table string) {
		ms, err := parseMountinfo(table)
		if err != nil {
			return
		}
		if table != "" && !strings.HasSuffix(table, "\n") {
			t.Errorf("a cut-off table is taken for whole")
		}
		if len(ms) != strings.Count(table, "\n") {
			t.Errorf("%d mounts of %d lines", len(ms), strings.Count(table, "\n"))
		}
	})
}

func FuzzParseSwaps(f *testing.F) {
	f.Add("Filename Type Size Used Priority\n")
	f.Add("Filename Type Size Used Priority\n/dev/sdb1 partition 1 0 -2\n/s\\040w file 1 0 -3\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, table string) {
		areas, err := parseSwaps(table)
		if err == nil && len(areas) != strings.Count(table, "\n")-1 {
			t.Errorf("%d areas of %d lines", len(areas), strings.Count(table, "\n"))
		}
	})
}

func FuzzParseMaps(f *testing.F) {
	f.Add("00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon\n")
	f.Add("7ffc-7ffd rw-p 0 00:00 0 [stack]\n0-1 rw-s 0 00:05 7 /dev/zero (deleted)\n")
	f.Fuzz(func(t *testing.T, table string) {
		var lines []mapLine
		for l, err := range parseMaps(table) {
			if err != nil {
				return
			}
			lines = append(lines, l)
		}
		if len(lines) > strings.Count(table, "\n") || table != "" && !strings.HasSuffix(table, "\n") {
			t.Errorf("%d mappings", len(lines))
		}
		for _, l := range lines {
			start, end, ok := strings.Cut(mapSpan(l.span), "-")
			if !ok || start == "" || end == "" || l.ino == "0" {
				t.Errorf("mapping %+v", l)
			}
		}
	})
}

func FuzzParseFDFlags(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02100002\nmnt_id:\t21\n")
	f.Add("flags:\t010000000\n")
	f.Add("flags:\t9\n")
	f.Fuzz(func(t *testing.T, info string) {
		if n, err := parseFDFlags(info); err == nil && (n < 0 || n > math.MaxUint32 || !strings.Contains(info, "flags:")) {
			t.Errorf("flags %o", n)
		}
	})
}

func FuzzParseLocks(f *testing.F) {
	f.Add("1: LEASE  ACTIVE    WRITE 2311 fe:00:14847 0 EOF\n")
	f.Add("1: POSIX  ADVISORY  READ 1 08:01:7 0 EOF\n1: -> FLOCK ADVISORY WRITE 2 08:01:7 0 EOF\n")
	f.Add("1: OFDLCK ADVISORY  READ -1 fe:00:14847 100 101\n2: POSIX ADVISORY WRITE -7 <none>:0 0 0\n")
	f.Add("1: ->\n")
	f.Fuzz(func(t *testing.T, table string) {
		locks, err := parseLocks(table)
		if err == nil && len(locks) != strings.Count(table, "\n") {
			t.Errorf("%d locks of %d lines", len(locks), strings.Count(table, "\n"))
		}
		if err == nil && table != "" && !strings.HasSuffix(table, "\n") {
			t.Errorf("a cut-off table is taken for whole")
		}
		for _, l := range locks {
			// What is said of a lock is what the line says.
			again, ok := parseLock(fmt.Sprintf("1: %s x %s %s %x:%x:%d %d %s\n", l.kind, l.access, l.pid, unix.Major(l.dev), unix.Minor(l.dev), l.ino, l.start, l.end))
			again.waits = l.waits
			if l.kind != "->" && (!ok || again != l) {
				t.Errorf("%+v is read as %+v", l, again)
			}
			if l.qemu() && l.end == "EOF" {
				t.Errorf("%s is taken for QEMU's", l)
			}
		}
	})
}

// The locks on a descriptor are those of its lines "lock:", whatever stands between.
func FuzzParseFDLocks(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02100002\nmnt_id:\t26\nlock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:14847 100 101\n")
	f.Add("lock:\t1: LEASE  ACTIVE    WRITE 2311 fe:00:14847 0 EOF\nlock:\t1: POSIX ADVISORY READ 1 08:01:7 0 EOF\n")
	f.Add("lock:")
	f.Fuzz(func(t *testing.T, info string) {
		locks, err := parseFDLocks(info)
		n := strings.Count("\n"+info, "\nlock:")
		if err == nil && len(locks) != n {
			t.Errorf("%d locks of %d lines", len(locks), n)
		}
	})
}

// No event of the kernel's is lost or made up, and every descriptor is given out
// once, to be closed.
func FuzzParseFanotify(f *testing.F) {
	event := make([]byte, unix.FAN_EVENT_METADATA_LEN)
	event[0], event[4], event[6] = byte(len(event)), unix.FANOTIFY_METADATA_VERSION, byte(len(event))
	f.Add(event)
	f.Add(append(event, event...))
	f.Add(event[:20])
	f.Add(append(event, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := parseFanotify(b)
		if most := len(b) / unix.FAN_EVENT_METADATA_LEN; len(events) > most || err == nil && len(events) == 0 && len(b) > 0 {
			t.Errorf("%d events in %d bytes", len(events), len(b))
		}
	})
}

func FuzzParseDMTable(f *testing.F) {
	for _, table := range []string{
		"0 1000 linear 8:17 2048\n", "0 2000 striped 2 128 8:16 100 8:32 500\n", "0 5000 thin 253:2 3 253:7\n",
		"0 100 crypt aes 00 0 8:16 32768\n100 5 zero\n", "0 1 striped 999999999 1 8:16 0\n", "0 1 linear 8:1 18014398509481983\n",
		"9007199254740991 9007199254740991 linear 8:1 1\n",
	} {
		f.Add(table)
	}
	f.Fuzz(func(t *testing.T, table string) {
		layers, err := parseDMTable(table)
		for _, l := range layers {
			if l.start < 0 || l.length < 0 || l.off < 0 || l.size < 0 || l.lower.Kind != KindBlock {
				t.Errorf("layer %+v", l)
			}
		}
		// Every device that a line names is under the device, whatever the line.
		if err != nil {
			return
		}
		for line := range strings.Lines(table) {
			words := strings.Fields(line)
			if len(words) < 4 {
				continue
			}
			for _, w := range words[3:] {
				rdev, err := hostfs.ParseDev(w)
				if err == nil && !slices.ContainsFunc(layers, func(l layer) bool { return l.lower == BlockID(rdev) }) {
					t.Errorf("device %s is not in %+v", w, layers)
				}
			}
		}
	})
}

// Whatever sysfs says of a partition and a disk, nothing is read as more or less than
// it says: what is not understood is blindness, and the device is under its disk.
func FuzzReadStack(f *testing.F) {
	f.Add("8:17\n", "2048\n", "1000\n", "naa.5000c5\n")
	f.Add("8:17", "2048\n", "1000\n", "")
	f.Add("8:17\n", "-1\n", "9007199254740993\n", "t10.ATA\n")
	f.Add("8:17\n", "18014398509481983\n", "18014398509481983\n", "\n")
	f.Fuzz(func(t *testing.T, dev, start, size, wwid string) {
		m := newMachine()
		m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
		for name, text := range map[string]string{"sdb1/dev": dev, "sdb1/start": start, "sdb1/size": size, "wwid": wwid} {
			m.file("/sys/block/sdb/"+name, text)
		}
		blind := false
		s := readStack(t.Context(), m.fs, func(string, error) { blind = true })
		disk := s.devices[devID("8:16")]
		if disk == nil {
			if !blind {
				t.Fatal("the disk is gone, and nobody says so")
			}
			return
		}
		if blind {
			return
		}
		rdev, err := hostfs.ParseDev(strings.TrimSuffix(dev, "\n"))
		if err != nil {
			t.Fatalf("%q is read as a device", dev)
		}
		p := s.devices[BlockID(rdev)]
		if BlockID(rdev) == disk.id || p == nil {
			return // sysfs says that they are one
		}
		first, err1 := strconv.ParseInt(strings.TrimSuffix(start, "\n"), 10, 64)
		sectors, err2 := strconv.ParseInt(strings.TrimSuffix(size, "\n"), 10, 64)
		l := p.under[0]
		if err1 != nil || err2 != nil || l.lower != disk.id || l.off/sector != first || l.size/sector != sectors || l.off < 0 || l.size < 0 {
			t.Errorf("%q, %q: %+v", start, size, l)
		}
		if s.relate(disk.id, s.footprint(disk.id), p.id) == Unrelated && l.size > 0 {
			t.Error("a partition is unrelated to its disk")
		}
	})
}

// Whatever the tables say, the walk over them ends, and a device overlaps itself
// and what it stands on.
func FuzzRelate(f *testing.F) {
	f.Add("0 1000 linear 8:17 2048\n", "0 1000 linear 253:0 0\n")
	f.Add("0 10 linear 253:1 0\n", "0 10 linear 253:0 1\n")
	f.Add("0 10 crypt 253:0\n0 10 thin 253:1 4\n", "0 9007199254740991 linear 253:0 9007199254740991\n")
	f.Fuzz(func(t *testing.T, one, two string) {
		if len(one)+len(two) > 200 {
			return // the number of ways through is a power of the number of lines
		}
		a, b := devID("253:0"), devID("253:1")
		s := &stack{devices: map[ID]*device{}}
		for id, table := range map[ID]string{a: one, b: two} {
			under, _ := parseDMTable(table)
			s.devices[id] = &device{id: id, kind: "dm", under: under}
		}
		if s.relate(a, s.footprint(a), a) != Same {
			t.Error("a device is not itself")
		}
		for _, sp := range s.footprint(a) {
			if rel := s.relate(a, s.footprint(a), sp.on); rel == Unrelated {
				t.Errorf("%s is under it and unrelated", sp.on)
			}
		}
		if (s.relate(a, s.footprint(a), b) == Unrelated) != (s.relate(b, s.footprint(b), a) == Unrelated) {
			t.Error("an overlap is seen from one side only")
		}
	})
}

func FuzzParseLoopStatus(f *testing.F) {
	f.Add(onImage(0, 0))
	f.Add(`dev=0:6 ino=9 rdev=8:16 offset=512 sizelimit=1024 ro=1 file="/x y\"="`)
	f.Add(`dev=0:6 ino=9 rdev=8:16 offset=-1 sizelimit=0 ro=0`)
	f.Fuzz(func(t *testing.T, answer string) {
		l, _, err := parseLoopStatus(answer)
		if err == nil && (l.off < 0 || l.size < 0 || l.lower == ID{}) {
			t.Errorf("layer %+v", l)
		}
	})
}

func FuzzParseHexDevice(f *testing.F) {
	f.Add("fd:0")
	f.Add("7:ff")
	f.Add("fd:0:1")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseHexDevice(s)
		if (err == nil) != (id.Kind == KindBlock) || strings.ContainsAny(s, " \n\x00-+") && err == nil {
			t.Errorf("%q is %v, %v", s, id, err)
		}
	})
}

// A value that is an image's path, or ends in one behind a format, always leads
// to it, and nothing but absolute paths is looked up.
func FuzzNodePaths(f *testing.F) {
	f.Add("/srv/web1.img")
	f.Add("aio:/srv/web1.img")
	f.Add("tap:qcow2:/a:b/c d,e=f")
	f.Add(`json:{"file":{"filename":"/x"}}`)
	f.Add("/a\x00b")
	f.Add("vg/lv")
	f.Fuzz(func(t *testing.T, v string) {
		paths := imagePaths
		for _, p := range paths(v) {
			if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
				t.Errorf("%q leads to %q", v, p)
			}
		}
		if !path.IsAbs(v) || strings.ContainsRune(v, 0) || strings.HasSuffix(v, "\n") {
			return
		}
		for _, written := range []string{v, "aio:" + v, "tap:qcow2:" + v, v + "\x00", v + "\n"} {
			if !slices.Contains(paths(written), v) {
				t.Errorf("%q does not lead to %q", written, v)
			}
		}
	})
}

func FuzzReadMark(f *testing.F) {
	f.Add(`{"id":"x","pid":"50","start":"1","command":["a"],"started":"2026-01-02T03:04:05Z","numbers":{"Kind":1}}`)
	f.Add(`{"id":"x","pid":"50","start":"1","boot":"boot-1","numbers":{"Kind":1,"Dev":2049,"Ino":100}}`)
	f.Add(`{"id":1}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		m := newMachine()
		m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
		m.file(marksPath+"/a", text)
		mark, err := readMark(m.host, marksPath+"/a")
		fs := m.collect(t, marks{}, image)
		if err != nil && (len(fs) != 1 || fs[0].Code != "blind.marks") {
			t.Errorf("unreadable, and found %q", found(fs))
		}
		if err == nil && (mark.ID == "" || mark.PID == "" || mark.Start == "") {
			t.Errorf("mark %+v", mark)
		}
		for _, f := range fs {
			if printable(f.sentence()+f.Source) != f.sentence()+f.Source || f.Key != shellSafe(f.Key) {
				t.Errorf("raw text in %+v", f)
			}
		}
	})
}

// Whatever a configuration holds, what is said of it can be printed and typed,
// and one that is not understood is never passed over.
func FuzzConfigs(f *testing.F) {
	f.Add("name='web1'\ndisk=['" + image + ",,xvda']\n")
	f.Add("name=\"a\\tb'c\"\ndisk=['/srv/../srv/images/web1.img,,x\\n']\np9=['path=/srv/images']\n")
	f.Add("name='x'\ndisk=['a:b/c,,xvda','script=block-x,vdev=x,target=aio:" + image + "']")
	f.Add("import os\n")
	f.Fuzz(func(t *testing.T, text string) {
		m := newMachine()
		for _, d := range []string{"/", "/srv", "/etc/xen/auto", "/run"} {
			m.dir(d)
		}
		m.file("/etc/xen/web1.cfg", text)
		_, err := domcfg.ParseXL(text)
		fs := m.collect(t, configs{}, image)
		if err != nil && !slices.ContainsFunc(fs, func(f Finding) bool { return f.Code == "blind.configs" }) {
			t.Errorf("not understood, and found %q", found(fs))
		}
		for _, f := range fs {
			if f.Key != shellSafe(f.Key) || strings.ContainsFunc(f.Subject+f.Detail+f.Remedy, unicode.IsControl) {
				t.Errorf("raw text in %+v", f)
			}
		}
	})
}

// What is read back from a line is what was written there, and nothing can be
// overridden that the table does not let.
func FuzzParseOverride(f *testing.F) {
	f.Add("fd.read:backupd.17")
	f.Add("xen.vbd.connected:web1")
	f.Add("blind.xen:/local/domain:x")
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOverride(s)
		if err != nil {
			if printable(err.Error()) != err.Error() {
				t.Errorf("raw text in %q", err)
			}
			return
		}
		if o.String() != s || o.Key == "" || !ruleOf(o.Code).Override {
			t.Errorf("%q is %+v", s, o)
		}
	})
}

// Quoted text is one word of printable characters, and no two texts look alike.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "/srv/web1.img", "a b", "a\x1b[2J", `"a"`, "\xff", "a\u202eb"} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if printable(quote(a)) != quote(a) || quote(a) == "" {
			t.Errorf("%q is quoted as %q", a, quote(a))
		}
		if a != b && quote(a) == quote(b) {
			t.Errorf("%q and %q look alike: %s", a, b, quote(a))
		}
		if key := shellSafe(a); strings.IndexFunc(key, odd) >= 0 || strings.ContainsAny(key, "~#:") {
			t.Errorf("%q as a key is %q", a, key)
		}
	})
}

func FuzzParseNFSExports(f *testing.F) {
	f.Add("/srv/images\t10.0.0.0/24(rw,sync,no_root_squash)\n")
	f.Add("# comment\n\"/srv/my images\" *(ro)\n/srv/a\\040b host1(rw) \\\n host2(ro) # both\n")
	f.Add("srv *(rw)\n")
	f.Add("\"/srv")
	f.Fuzz(func(t *testing.T, table string) {
		es, _ := parseNFSExports(table)
		if len(es) > strings.Count(table, "\n")+1 {
			t.Errorf("%d exports of %d lines", len(es), strings.Count(table, "\n"))
		}
		for _, e := range es {
			if !strings.HasPrefix(e.dir, "/") || strings.ContainsRune(e.line, '\n') {
				t.Errorf("export %+v", e)
			}
		}
	})
}

func FuzzParseStatements(f *testing.F) {
	f.Add("# comment\n\nvg vg0 is ckB4dQ0sVn9m says alice at 2026-10-02T08:15:00Z\n")
	f.Add("mount \"/srv/my nfs\" is \"nfs4 filer:/export\" says \"uid 7\" at 2026-10-02T08:15:00Z\n")
	f.Add("device /dev/sdb is disk:naa.6001405 says root at 2026-10-02T08:15:00Z")
	f.Fuzz(func(t *testing.T, text string) {
		said, err := parseStatements(text)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, s := range said {
			if s.Identity == "" || s.Name == "" {
				t.Errorf("a statement of nothing: %+v", s)
			}
			again.WriteString(s.String() + "\n")
		}
		if got, err := parseStatements(again.String()); err != nil || !slices.Equal(got, said) {
			t.Errorf("%q is read as %+v and then as %+v, %v", text, said, got, err)
		}
	})
}
