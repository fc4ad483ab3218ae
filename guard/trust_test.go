package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/guard/hostfs"
)

var saidAt = time.Date(2026, 10, 2, 8, 15, 0, 0, time.UTC)

const (
	vgUUID = "ckB4dQ0sVn9mPXyJwT1zLr7AeU2hKf5G"
	lvUUID = "Lx5oUe2rTq8wAz1sNd4fVg7hJk0mBc3P"
)

// san is a machine with a volume group on an iSCSI disk and images on NFS.
func san() *machine {
	m := newMachine()
	m.disk("sdb", "8:16")
	m.link("/sys/block/sdb", "../devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb")
	m.file("/sys/block/sdb/device/wwid", "naa.6001405aa\n")
	m.mapper("dm-0", "253:0", "vg--san-web1", "0 1000 linear 8:16 0\n", "sdb")
	m.file("/sys/block/dm-0/dm/uuid", "LVM-"+vgUUID+lvUUID+"\n")
	m.on("nfs4", "filer:/export", hostfs.Mkdev(0, 50))
	m.fs.SetStat("/srv/images", hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(0, 50), Ino: 2})
	return m
}

// A statement lifts the doubt about exactly what it was made of, for as long as
// that is the same.
func TestStatements(t *testing.T) {
	const nfs, volume, disk = image, "/dev/dm-0", "/dev/sdb"
	all := []string{nfs, volume, disk}
	for _, tt := range []struct {
		name, line string
		free       []string
		void       []string
	}{
		{"nothing", "", nil, nil},
		{"the mount", "mount /srv/images is \"nfs4 filer:/export\" says bob at 2026-10-02T08:15:00Z\n", []string{nfs}, nil},
		{"the mount, where it was mounted before", "mount /old is \"nfs4 filer:/export\" says bob at 2026-10-02T08:15:00Z\n", []string{nfs}, nil},
		{"another export on the mount point", "mount /srv/images is \"nfs4 filer:/other\" says bob at 2026-10-02T08:15:00Z\n", nil, []string{nfs}},
		{"the volume group", "vg vg-san is " + vgUUID + " says bob at 2026-10-02T08:15:00Z\n", []string{volume}, nil},
		{"a volume group of that name", "vg vg-san is " + lvUUID + " says bob at 2026-10-02T08:15:00Z\n", nil, []string{volume}},
		{"the disk", "device /dev/sdb is disk:naa.6001405aa says bob at 2026-10-02T08:15:00Z\n", []string{volume, disk}, nil},
		{"a disk of that name", "device /dev/sdb is disk:naa.6001405bb says bob at 2026-10-02T08:15:00Z\n", nil, []string{volume, disk}},
		{"the identity of another kind", "device /srv/images is \"nfs4 filer:/export\" says bob at 2026-10-02T08:15:00Z\n", nil, nil},
		{"a file that is cut off", "mount /srv/images is \"nfs4 filer:/export\" says bob at 2026-10-02T08", nil, nil},
		{"a statement among rubbish", "mount /srv/images is \"nfs4 filer:/export\" says bob at 2026-10-02T08:15:00Z\nrubbish\n", nil, nil},
	} {
		m := san()
		if tt.line != "" {
			m.file(statementsFile, tt.line)
		}
		for _, path := range all {
			v := Policy{}.Judge(m.collect(t, locality{}, path))
			free, void := false, false
			for _, p := range tt.free {
				free = free || p == path
			}
			for _, p := range tt.void {
				void = void || p == path
			}
			if (v.Decision == Proceed) != free {
				t.Errorf("%s, %s: %s because of %v", tt.name, path, v.Decision, v.Because)
			}
			said := false
			for _, f := range v.All() {
				said = said || strings.Contains(f.Detail, "bob said of") && strings.Contains(f.Detail, "is void")
			}
			if said != void {
				t.Errorf("%s, %s: that the statement is void is said: %v", tt.name, path, said)
			}
		}
	}
}

// A copy of a file system has its uuid; a statement about the one is none about
// the other.
func TestStatementAboutACopiedFileSystem(t *testing.T) {
	m := san()
	m.on("ext4", "/dev/sdb", devID("8:16").Rdev)
	m.link("/dev/disk/by-uuid/2da78c72", "../../sdb")
	m.host.Local = filepath.Join(t.TempDir(), "local")
	st, err := TrustLocal(t.Context(), m.host, "/srv/images", "bob", saidAt)
	if err == nil || st.Identity != "" {
		t.Errorf("a directory of another file system: %v, %v", st, err)
	}
	m.fs.SetStat("/srv/images", hostfs.Stat{Type: hostfs.Directory, Dev: devID("8:16").Rdev, Ino: 2})
	st, err = TrustLocal(t.Context(), m.host, "/srv/images", "bob", saidAt)
	if err != nil || st.Identity != "ext4 2da78c72 on disk:naa.6001405aa" {
		t.Fatalf("%v, %v", st, err)
	}
	m.file(m.host.Local, st.String()+"\n")
	if v := (Policy{}).Judge(m.collect(t, locality{}, image)); v.Decision != Proceed {
		t.Errorf("what was stated: %v", v.Because)
	}
	m.file("/sys/block/sdb/device/wwid", "naa.6001405bb\n")
	if v := (Policy{}).Judge(m.collect(t, locality{}, image)); v.Decision != Refuse {
		t.Error("its copy on another disk is taken for it")
	}
}

func TestRemedyNamesWhatCanBeStated(t *testing.T) {
	for path, want := range map[string]string{
		image:       `"imgward trust-local /srv/images"`,
		"/dev/dm-0": `"imgward trust-local vg-san"`,
		"/dev/sdb":  `"imgward trust-local /dev/sdb"`,
	} {
		fs := san().collect(t, locality{}, path)
		if len(fs) != 1 || !strings.HasSuffix(fs[0].Remedy, want) {
			t.Errorf("%s: %+v, want the remedy %s", path, fs, want)
		}
	}
}

// What was stated is on disk, replaces what was stated of the name before, and
// can be taken back; comments stay.
func TestTrustLocalKeepsTheFile(t *testing.T) {
	m := san()
	m.host.Local = filepath.Join(t.TempDir(), "etc", "local")
	content := func() string {
		t.Helper()
		b, err := os.ReadFile(m.host.Local)
		if err != nil {
			t.Fatal(err)
		}
		m.file(m.host.Local, string(b))
		return string(b)
	}
	state := func(name, who string) {
		t.Helper()
		if _, err := TrustLocal(t.Context(), m.host, name, who, saidAt); err != nil {
			t.Fatal(err)
		}
	}
	state("vg-san", "alice")
	state("/srv/images", "uid 7")
	want := `# What only this host uses, as stated with "imgward trust-local".
vg vg-san is ` + vgUUID + ` says alice at 2026-10-02T08:15:00Z
mount /srv/images is "nfs4 filer:/export" says "uid 7" at 2026-10-02T08:15:00Z
`
	if got := content(); got != want {
		t.Errorf("the file holds %q", got)
	}
	for _, path := range []string{image, "/dev/dm-0"} {
		if v := (Policy{}).Judge(m.collect(t, locality{}, path)); v.Decision != Proceed {
			t.Errorf("%s: %v", path, v.Because)
		}
	}
	m.file("/sys/block/dm-0/dm/uuid", "LVM-"+lvUUID+vgUUID+"\n")
	state("vg-san", "bob")
	if got := content(); strings.Count(got, "vg-san") != 1 || !strings.Contains(got, lvUUID+" says bob") {
		t.Errorf("the file holds %q", got)
	}
	if err := ForgetLocal(m.host, "vg-san"); err != nil {
		t.Fatal(err)
	}
	if got := content(); strings.Contains(got, "vg-san") || !strings.Contains(got, "/srv/images") || !strings.HasPrefix(got, "# What") {
		t.Errorf("the file holds %q", got)
	}
	if err := ForgetLocal(m.host, "vg-san"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten twice: %v", err)
	}
	// What cannot be understood is not written over.
	if err := os.WriteFile(m.host.Local, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := TrustLocal(t.Context(), m.host, "/srv/images", "bob", saidAt); err == nil || content() != "rubbish\n" {
		t.Errorf("%v, and the file holds %q", err, content())
	}
}

func TestThingsThatCannotBeStated(t *testing.T) {
	m := san()
	m.dir("/etc/imgward")
	m.fs.SetStat("/", hostfs.Stat{Type: hostfs.Directory, Dev: hostfs.Mkdev(8, 1), Ino: 2})
	m.fs.SetStat("/proc/mounts", hostfs.Stat{Type: hostfs.CharDevice})
	m.loop("loop0", "7:0", onImage(0, 0))
	for name, want := range map[string]string{
		"vg-sa":        "no active volume",
		"vg--san":      "no active volume",
		"/nowhere":     "no such file",
		"/etc":         "no mount point; it is on /",
		image:          "regular file",
		"/proc/mounts": "character device",
		"/dev/sda":     "by which it could be known again",
		"/dev/loop0":   "by which it could be known again",
		"/":            "no uuid",
	} {
		_, err := thingNamed(t.Context(), m.host, name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestVolumeGroupNames(t *testing.T) {
	for alias, want := range map[string]string{
		"vg0-root":        "vg0",
		"my--vg-root--lv": "my-vg",
		"a----b-c":        "a--b",
		"vg-thin-tpool":   "vg",
		"novolume":        "",
		"my--vg":          "",
		"-x":              "",
		"":                "",
	} {
		got, uuid, ok := volumeGroup(&device{alias: alias, uuid: "LVM-" + vgUUID + lvUUID + "-tpool"})
		if ok != (want != "") || ok && (got != want || uuid != vgUUID) {
			t.Errorf("%q: %q %q %v, want %q", alias, got, uuid, ok, want)
		}
	}
	for _, uuid := range []string{"", "LVM-", "LVM-" + vgUUID + lvUUID[1:], "CRYPT-LUKS2-" + vgUUID + lvUUID} {
		if got, _, ok := volumeGroup(&device{alias: "vg0-root", uuid: uuid}); ok {
			t.Errorf("%q is of the group %q", uuid, got)
		}
	}
}
