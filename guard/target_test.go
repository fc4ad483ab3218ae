package guard

import (
	"errors"
	"io/fs"
	"math"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

func TestResolve(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
	m.link("/srv/link.img", "images/web1.img")
	m.link("/srv/dangling.img", "images/gone.img")
	m.link("/srv/circle", "circle")
	m.link("/dev/disk/by-id/x", "../../sdb1")
	m.stat("/srv/socket", hostfs.Stat{Type: hostfs.Socket})
	missing := ID{Kind: KindMissing, Dev: imageID.Dev, Ino: 5}
	for path, want := range map[string]struct {
		id   ID
		real string
		size int64
	}{
		image:                               {imageID, image, 1 << 20},
		"/srv/link.img":                     {imageID, image, 1 << 20},
		"/srv//images/../images/./web1.img": {imageID, image, 1 << 20},
		"/dev/disk/by-id/x":                 {devID("8:17"), "/dev/sdb1", 1048576},
		"/srv/images/new.img":               {missing, "/srv/images/new.img", 0},
	} {
		target, err := Resolve(t.Context(), m.host, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if target.ID != want.id || target.Real != want.real || target.Size != want.size || target.Path != path || target.Exists() == (want.id == missing) {
			t.Errorf("%s: %+v", path, target)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
	m.fs.SetAsk(hostfs.Size, "/dev/sdb", "", syscall.EIO)
	m.fs.SetErr("/srv/private", syscall.EACCES)
	var typ *TypeError
	for path, is := range map[string]func(error) bool{
		"":                   func(err error) bool { return true },
		"/srv/a\x00b":        func(err error) bool { return true },
		"/srv/images":        func(err error) bool { return errors.As(err, &typ) },
		"/srv/socket":        func(err error) bool { return errors.As(err, &typ) },
		"/srv/dangling.img":  func(err error) bool { return err != nil },
		"/srv/circle":        func(err error) bool { return errors.Is(err, syscall.ELOOP) },
		"/srv/gone/new.img":  func(err error) bool { return errors.Is(err, fs.ErrNotExist) },
		"/srv/images/gone/":  func(err error) bool { return errors.Is(err, fs.ErrNotExist) },
		"/srv/private/x.img": func(err error) bool { return errors.Is(err, fs.ErrPermission) },
		"/dev/sdb":           func(err error) bool { return errors.Is(err, syscall.EIO) },
		image + "/x":         func(err error) bool { return errors.Is(err, syscall.ENOTDIR) },
	} {
		target, err := Resolve(t.Context(), m.host, path)
		if err == nil || !is(err) {
			t.Errorf("%q: %+v, %v", path, target, err)
		}
	}
}

// A new file's place is known by its directory, however a path spells it.
func TestNamesOfMissing(t *testing.T) {
	m := newMachine()
	m.dir("/srv/images/deep")
	m.fs.SetStat("/srv/images/deep", hostfs.Stat{Type: hostfs.Directory, Dev: imageID.Dev, Ino: 6})
	m.link("/srv/images-link", "images")
	m.link("/srv/to-new", "/srv/images/new.img")
	m.link("/srv/to-other", "images/other.img")
	m.link("/srv/circle", "circle")
	m.fs.SetErr("/srv/private", syscall.EACCES)
	target := m.resolve(t, "/srv/images/new.img")
	for path, want := range map[string]bool{
		"/srv/images/new.img":         true,
		"/srv/images-link/new.img":    true,
		"/srv/images/deep/../new.img": true,
		"/srv/to-new":                 true,
		"/srv/to-other":               false,
		"/srv/circle":                 false,
		"/srv/images/other.img":       false,
		"/srv/images/deep/new.img":    false,
		"/srv/gone/new.img":           false,
		image:                         false,
		image + "/new.img":            false,
	} {
		if got, err := target.names(m.fs, path); got != want || err != nil {
			t.Errorf("%s: %t, %v", path, got, err)
		}
	}
	if got, err := target.names(m.fs, "/srv/private"); got || err == nil {
		t.Errorf("what cannot be looked up: %t, %v", got, err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1025: "1 KiB", 1536: "1.5 KiB",
		1 << 20: "1 MiB", 40 << 30: "40 GiB", 1 << 40: "1 TiB", math.MaxInt64: "8 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
