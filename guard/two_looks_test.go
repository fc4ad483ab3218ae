package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// A scene is a host in memory, and the path there for which a real file stands.
type scene struct {
	host *Host
	path string
}

// A stage is what the collectors see while Write works on a real file: the scene
// at hand. What we hold of the real file counts as held of the scene's target.
type stage struct {
	*testing.T
	now atomic.Pointer[scene]
}

// collectors is the whole list, before the stage.
func (s *stage) collectors() []Collector {
	var out []Collector
	for _, c := range Collectors() {
		if o, ok := c.(opening); ok {
			out = append(out, opening{spectator{o.Collector, s}})
			continue
		}
		out = append(out, spectator{c, s})
	}
	return out
}

type spectator struct {
	Collector
	stage *stage
}

func (s spectator) Collect(ctx context.Context, _ *Host, t *Target, sheet *Sheet) {
	now := s.stage.now.Load()
	target, err := Resolve(ctx, now.host, now.path)
	if err != nil {
		s.stage.Errorf("%s: %v", now.path, err)
		return
	}
	defer target.Close()
	view := target.look(ctx, now.host, sheet.Blind)
	view.held = t.held
	s.Collector.Collect(ctx, now.host, view, sheet)
}

// A turn is a locker that changes the scene: Write locks between its two looks.
type turn func()

func (turn) Name() string { return "turn" }

func (f turn) Lock(context.Context, *Host, *Target) (func(context.Context) error, error) {
	f()
	return nil, nil
}

// play has a real file written while the first look sees one scene and the second
// another, and tells what came of it. Work that is called writes nothing.
func play(t *testing.T, first *scene, change func(s *stage)) error {
	t.Helper()
	b := newPlace(t)
	s := &stage{T: t}
	s.now.Store(first)
	b.guard.Collectors = s.collectors()
	b.guard.Lockers = append([]Locker{turn(func() { change(s) })}, Lockers()...)
	err := b.guard.Write(t.Context(), b.path, unexpected)
	b.wantContent(b.path, b.content)
	b.wantMarks(0)
	return err
}

var errWorked = unexpected(context.Background(), nil).Error()

// Whoever begins to use the target after the first look is seen by the second.
func TestNewcomersAreSeen(t *testing.T) {
	other := FileID(hostfs.Mkdev(8, 1), 4711)
	for name, tt := range map[string]struct {
		change func(t *testing.T, m *machine)
		code   Code // "": nobody comes
	}{
		"nobody": {func(*testing.T, *machine) {}, ""},
		"another file is opened": {func(_ *testing.T, m *machine) {
			m.open("/proc/50", "3", other, "0100002")
			m.fs.SetDir("/proc/50/fd", "3")
		}, ""},
		"a loop device is attached": {func(_ *testing.T, m *machine) { m.loop("loop7", "7:7", onImage(0, 0)) }, LoopAttached},
		"a file system in it is mounted": {func(_ *testing.T, m *machine) {
			m.loop("loop7", "7:7", onImage(0, 0))
			m.file("/proc/1/mountinfo", rootMount+"23 22 7:7 / /mnt rw - ext4 /dev/loop7 rw\n")
		}, MountRW},
		"the host swaps to it": {func(_ *testing.T, m *machine) {
			m.file("/proc/swaps", "Filename Type Size Used Priority\n"+image+" file 1000 0 -2\n")
		}, SwapActive},
		"a process opens it": {func(_ *testing.T, m *machine) {
			m.open("/proc/50", "3", imageID, "0100002")
			m.fs.SetDir("/proc/50/fd", "3")
		}, FDWrite},
		"a process comes with it open": {func(_ *testing.T, m *machine) {
			m.process("60", "qemu-system-i38")
			m.open("/proc/60", "3", imageID, "0100000")
			m.fs.SetDir("/proc/60/fd", "3")
		}, FDVM},
		"a domain starts": {func(t *testing.T, m *machine) {
			s := xenHost(t, m)
			s.SetAll("/local/domain/0/backend/qdisk/7/51712", "params=aio:"+image, "mode=w", "state=4", "online=1", "frontend=/local/domain/7/device/vbd/51712")
		}, XenConnected},
		"a domain's link is turned to it": {func(t *testing.T, m *machine) {
			m.link("/srv/current", image)
			s := xenHost(t, m)
			s.SetAll("/local/domain/0/backend/qdisk/7/51712", "params=aio:/srv/current", "mode=w", "state=4", "online=1", "frontend=/local/domain/7/device/vbd/51712")
		}, XenConnected},
		"a domain is configured": {func(_ *testing.T, m *machine) {
			m.dir("/etc/xen")
			m.stat("/etc/xen/web1.cfg", hostfs.Stat{Type: hostfs.Regular, Dev: hostfs.Mkdev(8, 1), Ino: 900, Size: 100})
			m.file("/etc/xen/web1.cfg", "name = \"web1\"\ndisk = [ '"+image+",raw,xvda,rw' ]\n")
		}, ConfigNamed},
		"xenstore stops answering": {func(_ *testing.T, m *machine) {
			m.host.StoreErr = errors.New("connection refused")
		}, "blind.xen"},
		"sysfs fails": {func(_ *testing.T, m *machine) { m.fs.SetErr("/sys/block", syscall.EIO) }, "blind.holders"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			err := play(t, &scene{m.host, image}, func(*stage) { tt.change(t, m) })
			var refused *RefusedError
			switch {
			case tt.code == "":
				if err == nil || err.Error() != errWorked {
					t.Errorf("a free file: %v", err)
				}
			case !errors.As(err, &refused):
				t.Errorf("%v", err)
			case !hasCode(refused.Verdict.All(), tt.code):
				t.Errorf("refused because of %v, and not %s", refused.Verdict.Codes(), tt.code)
			}
		})
	}
}

func hasCode(fs []Finding, c Code) bool {
	for _, f := range fs {
		if f.Code == c {
			return true
		}
	}
	return false
}

// A host that was quiet at the first look and is one of the captured ones at the
// second refuses whatever is in use there. What the kernel says of the open file
// itself is left to the tests that have real openers, and what is found in the
// same ways in several places is tried once.
func TestCapturedUsesAreSeenBySecondLook(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range hostCases(t) {
		if c.store != nil {
			c.store = memo(c.store)
		}
		t.Run(c.name(), func(t *testing.T) {
			for _, q := range c.questions(t) {
				host := &Host{FS: c.root, Store: c.store, State: "/var/lib/imgward"}
				if q.op != Overwrite {
					continue
				}
				v, _, err := examine(t, c.root, c.store, q, Collectors())
				if err != nil {
					t.Fatal(err)
				}
				way := fmt.Sprint(v.Codes())
				if !usedByName(v) || tried[way] {
					continue
				}
				tried[way] = true
				err = play(t, &scene{newMachine().host, image}, func(s *stage) { s.now.Store(&scene{host, q.path}) })
				var refused *RefusedError
				if !errors.As(err, &refused) {
					t.Errorf("%s: %v, though at rest %v", q.text, err, v.Codes())
				}
			}
		})
	}
	if len(tried) < 30 {
		t.Errorf("only %d ways of use", len(tried))
	}
}

// usedByName says that something refuses that is neither blindness nor the
// kernel's answer about the open file, nor read through it.
func usedByName(v Verdict) bool {
	for _, f := range v.Because {
		switch f.Code {
		case LeaseReaders, LeaseRefused, LeaseTaken, FileShut, ExclHeld, DMOpen, ContentDirty, ContentMember:
			continue
		}
		if !strings.HasPrefix(string(f.Code), "blind.") {
			return true
		}
	}
	return false
}
