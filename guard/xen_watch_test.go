package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// watchStore watches xenstore for the target, with what the host was when it was
// called known, and gives what comes of it.
func (m *machine) watchStore(t *testing.T, path string) (alarms chan Finding, ended chan error, stop func()) {
	t.Helper()
	b := m.begin(t, path, Policy{})
	b.target.held.rescan = b.rescan
	ctx, cancel := context.WithCancel(t.Context())
	alarms, ended = make(chan Finding, 100), make(chan error, 1)
	go func() { ended <- xenWatcher{}.Watch(ctx, m.host, b.target, func(f Finding) { alarms <- f }) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
		select {
		case f := <-alarms:
			t.Errorf("alarm: %s %s", f.Code, f.sentence())
		default:
		}
	}
	return alarms, ended, stop
}

// A domain that gets the target is seen by its node, whatever state it is in and
// before any device is open.
func TestXenWatch(t *testing.T) {
	for name, tt := range map[string]struct {
		keys []string
		want string
	}{
		"by name":   {[]string{"params=" + image, "mode=w", "state=1"}, "xen.vbd.connected same web01.7"},
		"read-only": {[]string{"params=" + image, "mode=r", "state=1"}, "xen.vbd.readonly same web01.7"},
		"by number": {[]string{"physical-device=fe:3", "mode=w"}, "xen.vbd.connected above web01.7"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			s := xenHost(t, m)
			m.loop("loop3", "254:3", "dev=8:1 ino=101 rdev=0:0 offset=0 sizelimit=0 ro=0 file=\"/x\"")
			alarms, ended, _ := m.watchStore(t, image)
			if name == "by number" {
				m.fs.SetAsk("loop-status", "/dev/loop3", onImage(0, 0), 0)
			}
			s.SetAll(vbd7, tt.keys...)
			if got := found([]Finding{<-alarms})[0]; got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			<-ended
		})
	}
}

// What other domains do breaks nothing, however much it is: a look that is
// overtaken by changes is followed by the next one.
func TestXenWatchOfOthers(t *testing.T) {
	m := newMachine()
	s := xenHost(t, m)
	const vbd8 = "/local/domain/0/backend/vbd/8/51712"
	looks := make(chan int, 100)
	s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
		if r.Op == "DIRECTORY" && r.Path == vbd8 {
			s.Set(vbd8+"/state", "1")
			select {
			case looks <- r.N:
			default:
			}
		}
		return xenstoretest.Reply{}
	})
	_, _, stop := m.watchStore(t, image)
	s.SetAll(vbd8, "params=/srv/images/other.img", "mode=w", "state=1")
	for range 10 {
		<-looks
	}
	stop()
}

// A watch that is lost breaks the hold, and so does a daemon that says nothing any
// more.
func TestXenWatchIsLost(t *testing.T) {
	m := newMachine()
	s := xenHost(t, m)
	alarms, ended, _ := m.watchStore(t, image)
	for s.Watches() < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		if f := <-alarms; f.Code != "blind.xen" { // a look was under way
			t.Errorf("alarm: %s", f.sentence())
		}
	}

	for name, store := range map[string]Store{"silent": &fallsSilent{asked: true}, "falls silent": &fallsSilent{}} {
		m := newMachine()
		b := m.begin(t, image, Policy{})
		b.target.held.rescan = b.rescan
		synctest.Test(t, func(t *testing.T) {
			host := *m.host
			host.Store = store
			err := xenWatcher{}.Watch(t.Context(), &host, b.target, func(f Finding) { t.Errorf("%s: alarm %s", name, f.sentence()) })
			if err == nil || !strings.Contains(err.Error(), storeLimit.String()) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// fallsSilent answers once and then no more.
type fallsSilent struct {
	hungStore
	asked bool
}

func (s *fallsSilent) ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error) {
	if s.asked {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.asked = true
	return []xenstore.Value{{Path: paths[0], Data: []byte("0")}}, nil
}

func (s *fallsSilent) Watch(ctx context.Context, _ string, _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Behind a closed gate nothing is watched for.
func TestXenWatchBehindGate(t *testing.T) {
	m := newMachine()
	b := m.begin(t, image, Policy{})
	b.target.held.gate = &gate{}
	m.host.Store = hungStore{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (xenWatcher{}).Watch(ctx, m.host, b.target, func(f Finding) { t.Error(f.sentence()) }); err != nil {
		t.Error(err)
	}
}

// storeWriter writes nodes as a toolstack does (io/xs_wire.h, XS_WRITE).
type storeWriter struct{ net.Conn }

func (w storeWriter) set(path, value string) error {
	b := make([]byte, 16, 16+len(path)+1+len(value))
	binary.NativeEndian.PutUint32(b, 11)
	binary.NativeEndian.PutUint32(b[12:], uint32(len(path)+1+len(value)))
	b = append(append(append(b, path...), 0), value...)
	if _, err := w.Write(b); err != nil {
		return err
	}
	reply := make([]byte, 16)
	if _, err := io.ReadFull(w, reply); err != nil {
		return err
	}
	if op := binary.NativeEndian.Uint32(reply); op != 11 {
		return fmt.Errorf("xenstored answers with %d", op)
	}
	_, err := io.CopyN(io.Discard, w, int64(binary.NativeEndian.Uint32(reply[12:])))
	return err
}

// BenchmarkXenWatch is how long it takes from the node of a disk, written to a real
// xenstored with so many domains of two disks, to the end of the last write.
func BenchmarkXenWatch(b *testing.B) {
	testkit.Need(b, "root", "gcc")
	for _, domains := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("%d domains", domains), func(b *testing.B) {
			dir, err := os.MkdirTemp("", "xs")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			d, err := xenstoretest.StartXenstored(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Stop()
			raw, err := net.Dial("unix", d.Socket())
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			w := storeWriter{raw}
			disk := func(domain, disk int, image string) {
				dir := fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", domain, disk)
				for _, kv := range [][2]string{{"mode", "w"}, {"state", "1"}, {"online", "1"}, {"dev", "xvda"}, {"params", image}} {
					if err := w.set(dir+"/"+kv[0], kv[1]); err != nil {
						b.Fatal(err)
					}
				}
			}
			for n := 1; n <= domains; n++ {
				if err := w.set(fmt.Sprintf("/local/domain/%d/name", n), fmt.Sprintf("web%d", n)); err != nil {
					b.Fatal(err)
				}
				disk(n, 51712, fmt.Sprintf("/srv/images/web%d.img", n))
				disk(n, 51728, fmt.Sprintf("/srv/images/data%d.img", n))
			}
			conn, err := xenstore.Dial(b.Context(), &xenstore.Config{Path: d.Socket()})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			var took []time.Duration
			for b.Loop() {
				took = append(took, untilStopped(b, conn, func(image string) { disk(1, 51712, image) }))
				disk(1, 51712, "/srv/images/web1.img")
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-worst")
		})
	}
}

// announcing tells that a watch is in place.
type announcing struct {
	Store
	announced chan struct{}
}

func (s announcing) Watch(ctx context.Context, path string, fire func(string)) error {
	return s.Store.Watch(ctx, path, func(p string) {
		if p == path {
			s.announced <- struct{}{}
		}
		fire(p)
	})
}

// untilStopped attaches a file that is being written to a domain, and gives the time
// to the end of the last write.
func untilStopped(b *testing.B, store Store, attach func(image string)) (took time.Duration) {
	b.Helper()
	path := b.TempDir() + "/web1.img"
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	announced := make(chan struct{}, 100)
	g := &Guard{
		Host:       &Host{FS: hostfs.Live(), Store: announcing{store, announced}, State: b.TempDir()},
		Collectors: []Collector{xen{}}, Watchers: []Watcher{xenWatcher{}},
	}
	err := g.Write(b.Context(), path, func(ctx context.Context, p *Permit) error {
		f, err := p.File()
		if err != nil {
			return err
		}
		for len(announced) < 4 { // one of each look, and the two of the watcher
			time.Sleep(time.Millisecond)
		}
		start := make(chan time.Time, 1)
		go func() {
			start <- time.Now()
			attach(path)
		}()
		for content := make([]byte, 1<<20); ctx.Err() == nil; {
			if err := overwriteWith(f, content); err != nil {
				return err
			}
		}
		took = time.Since(<-start)
		return ctx.Err()
	})
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != XenConnected {
		b.Fatal(err)
	}
	return took
}
