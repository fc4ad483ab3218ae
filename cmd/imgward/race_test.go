package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/imageops"
	"imgward/imageops/blockio"
	"imgward/internal/testkit"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// raced are the collectors that see a domain come, and what is needed to write.
var raced = []string{"xen", "holders", "lease", "excl", "self", "marks"}

// A course is a target on which domains and overwrites race.
type course struct {
	*testing.T
	*xenstoretest.Server
	store  *xenstore.Conn
	target string
	device bool
	disk   string // the loop device of the domains
	source []byte
	usual  time.Duration // what an overwrite takes that nobody disturbs
	n      int

	refused, stopped, whole int
	window                  []time.Duration // from a disk's node to the last write after it
	open                    time.Duration   // the longest from the device's opening to a write after it
}

func newCourse(t *testing.T, dir string, device bool) *course {
	c := &course{T: t, Server: xenstoretest.NewServer(), device: device, source: bytes.Repeat([]byte("new!"), 1<<19)}
	c.target = write(t, filepath.Join(dir, fmt.Sprintf("web1-%v.img", device)), len(c.source), 2)
	if device {
		c.target = loop(t, c.target)
	}
	c.disk = command(t, "losetup", "--find", "--show", write(t, filepath.Join(dir, fmt.Sprintf("disk-%v.img", device)), 1<<20, 3))
	t.Cleanup(func() { c.Close() })
	c.store = xenstore.NewConn(c.Pipe())
	t.Cleanup(func() { c.store.Close() })
	c.Set("/local/domain/0/name", "Domain-0")
	c.Set("/local/domain/7/name", "web1")
	return c
}

// timed remembers when it was last written to.
type timed struct {
	*blockio.File
	mu   sync.Mutex
	last time.Time
}

func (d *timed) wrote() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = time.Now()
}

func (d *timed) WriteAt(p []byte, off int64) (int, error) {
	defer d.wrote()
	return d.File.WriteAt(p, off)
}

func (d *timed) Zero(off, n int64, how blockio.ZeroMode) error {
	defer d.wrote()
	return d.File.Zero(off, n, how)
}

// overwrite replaces what is on the target, and tells when it wrote last; never is
// the zero time.
func (c *course) overwrite(state string) (last time.Time, err error) {
	g := &guard.Guard{
		Host:    &guard.Host{FS: hostfs.Live(), Store: c.store, Claims: c.store, State: state, Patience: 50 * time.Millisecond},
		Lockers: guard.Lockers(), Watchers: guard.Watchers(),
	}
	for _, k := range guard.Collectors() {
		if slices.Contains(raced, k.Name()) {
			g.Collectors = append(g.Collectors, k)
		}
	}
	err = g.Write(c.Context(), c.target, func(ctx context.Context, p *guard.Permit) error {
		f, err := p.File()
		if err != nil {
			return err
		}
		to, err := blockio.NewFile(f)
		if err != nil {
			return err
		}
		d := &timed{File: to}
		_, err = imageops.Copy(ctx, d, bytes.NewReader(c.source), imageops.Options{ChunkSize: 64 << 10, QueueDepth: 2, HoldBack: true, Verify: true})
		last = d.last
		return err
	})
	return last, err
}

// start starts a domain as xl does: the disk's node first, and then it is opened.
// It gives the times of the two, the zero one if the disk could not be opened.
func (c *course) start() (node, open time.Time, gone func()) {
	const dir = "/local/domain/0/backend/vbd/7/51712/"
	node = time.Now()
	for _, kv := range [][2]string{{"params", c.target}, {"mode", "w"}, {"dev", "xvda"}, {"online", "1"}, {"state", "1"}} {
		c.Set(dir+kv[0], kv[1])
	}
	// Not any that is free: looking for one opens those of others.
	if err := exec.Command("losetup", c.disk, c.target).Run(); err != nil {
		return node, time.Time{}, func() {}
	}
	return node, time.Now(), func() { command(c.T, "losetup", "-d", c.disk) }
}

// run lets a domain start while an overwrite is done, or shortly before or after.
func (c *course) run(state string) {
	var node, open time.Time
	gone := func() {}
	var starts sync.WaitGroup
	wait := time.After(rand.N(c.usual * 6 / 5))
	starts.Go(func() {
		<-wait
		node, open, gone = c.start()
	})
	last, err := c.overwrite(filepath.Join(state, fmt.Sprint(c.n)))
	starts.Wait()
	gone()
	c.n++
	// What it left says that this process, which goes on, is writing still.
	c.Remove("/local/domain/0/backend/vbd")
	c.Remove("/local/domain/32760")

	var refused *guard.RefusedError
	var broken *guard.BrokenError
	switch {
	case errors.As(err, &refused):
		c.refused++
		if !last.IsZero() {
			c.Errorf("%d: refused, and something was written", c.n)
		}
	case errors.As(err, &broken):
		c.stopped++
		c.window = append(c.window, max(0, last.Sub(node)))
		if !open.IsZero() {
			c.open = max(c.open, last.Sub(open))
		}
	case err != nil:
		c.Errorf("%d: %v", c.n, err)
	default:
		c.whole++
		// Behind a gate a domain may try, and not get in.
		if !open.IsZero() && !last.Before(open) || c.device && !last.Before(node) {
			c.Errorf("%d: a domain came at %v and had the disk open at %v, the last write was at %v, and nobody noticed", c.n, node, open, last)
		}
	}
}

// However a domain comes while a target is overwritten, nobody calls that a
// success, and no byte is written once it has the disk open but within the time
// that it takes to notice, which is said.
func TestDomainsRace(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := t.TempDir()
	const domains = 200
	var courses []*course
	for _, device := range []bool{true, false} {
		c := newCourse(t, dir, device)
		start := time.Now()
		if _, err := c.overwrite(filepath.Join(dir, "alone")); err != nil {
			t.Fatal(err)
		}
		c.usual = time.Since(start)
		courses = append(courses, c)
	}
	for _, c := range courses {
		command(t, "losetup", "-d", c.disk)
	}
	var running sync.WaitGroup
	for i, c := range courses {
		running.Go(func() {
			for range domains / len(courses) {
				c.run(filepath.Join(dir, fmt.Sprint("state", i)))
			}
		})
	}
	running.Wait()
	for _, c := range courses {
		t.Logf("%s: %d refused, %d stopped, %d whole", filepath.Base(c.target), c.refused, c.stopped, c.whole)
		if c.refused == 0 || c.whole == 0 || c.device && c.stopped == 0 {
			t.Error("that is no race")
		}
		if !c.device {
			if c.stopped > 0 {
				t.Errorf("behind the gate %d were stopped", c.stopped)
			}
			continue
		}
		slices.Sort(c.window)
		t.Logf("from a disk's node to the last write: %v (median), %v (longest); from its opening: %v (longest)",
			c.window[len(c.window)/2], c.window[len(c.window)-1], max(0, c.open))
		if longest := c.window[len(c.window)-1]; longest > 5*time.Second {
			t.Errorf("a domain was not noticed for %v", longest)
		}
	}
	if left := command(t, "losetup", "-n", "-O", "NAME,BACK-FILE"); strings.Count(left, dir) != 1 { // the target itself
		t.Errorf("left:\n%s", left)
	}
}
