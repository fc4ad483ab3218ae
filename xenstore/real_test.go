package xenstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/internal/testkit"
	"imgward/xenstore"
	"imgward/xenstore/dump"
	"imgward/xenstore/xenstoretest"
)

// dumpFile is what xenstore-ls printed on a Xen 4.17 host where xl had attached
// disks under all kinds of names.
const dumpFile = "../testdata/xenstored/xl-host.txt"

// onDaemons runs f with each daemon of the installed Xen. again starts another one
// in the place of one that was killed.
func onDaemons(t *testing.T, f func(t *testing.T, d *xenstoretest.Daemon, again func() *xenstoretest.Daemon)) {
	for name, begin := range map[string]func(string) (*xenstoretest.Daemon, error){
		"xenstored":  xenstoretest.StartXenstored,
		"oxenstored": xenstoretest.StartOxenstored,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, "gcc", "xenstore-write", "xenstore-rm")
			if name == "oxenstored" {
				testkit.Need(t, "root")
			}
			dir, err := os.MkdirTemp("", "xs") // short, for the socket's sake
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			start := func() *xenstoretest.Daemon {
				d, err := begin(dir)
				if errors.Is(err, fs.ErrNotExist) {
					testkit.Missing(t, name)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := d.Stop(); err != nil {
						t.Error(err)
					}
				})
				return d
			}
			f(t, start(), start)
		})
	}
}

// dial connects to a real daemon.
func dial(t testing.TB, d *xenstoretest.Daemon, limit time.Duration) *xenstore.Conn {
	t.Helper()
	c, err := xenstore.Dial(t.Context(), &xenstore.Config{Path: d.Socket(), Timeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// tool runs one of the xenstore tools.
func tool(t *testing.T, d *xenstoretest.Daemon, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "XENSTORED_PATH="+d.Socket())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// load fills a daemon with the dump and returns its nodes.
func load(t testing.TB, into interface{ Load(io.Reader) error }) []dump.Node {
	t.Helper()
	text, err := os.ReadFile(dumpFile)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := dump.Parse(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := into.Load(strings.NewReader(string(text))); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// walk reads the whole store, level by level.
func walk(ctx context.Context, c *xenstore.Conn) (map[string]string, error) {
	found := map[string]string{}
	for level := []string{"/"}; len(level) > 0; {
		values, err := c.ReadAll(ctx, level)
		if err != nil {
			return nil, err
		}
		listings, err := c.ListAll(ctx, level)
		if err != nil {
			return nil, err
		}
		level = nil
		for i, l := range listings {
			if err := errors.Join(values[i].Err, l.Err); err != nil {
				return nil, err
			}
			found[l.Path] = string(values[i].Data)
			for _, name := range l.Names {
				level = append(level, strings.TrimSuffix(l.Path, "/")+"/"+name)
			}
		}
	}
	return found, nil
}

// TestRealStore says that what the tools wrote is read, all of it and to the
// byte, from the real daemons and from the one in this process.
func TestRealStore(t *testing.T) {
	check := func(t *testing.T, c *xenstore.Conn, nodes []dump.Node) {
		found, err := walk(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if v, ok := found[n.Path]; !ok || v != n.Value {
				t.Errorf("%s = %q (found: %v), want %q", n.Path, v, ok, n.Value)
			}
			delete(found, n.Path)
		}
		for path := range found {
			if own := path == "/" || path == "/tool" || strings.HasPrefix(path, "/tool/") || strings.HasPrefix(path, "/@") || path == "/local"; !own {
				t.Errorf("%s was never written", path)
			}
		}
	}
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
		check(t, dial(t, d, 0), load(t, d))
	})
	t.Run("in process", func(t *testing.T) {
		converse(t, func(t *testing.T, s *xenstoretest.Server, c *xenstore.Conn) {
			check(t, c, load(t, s))
		})
	})
}

func TestRealLongDirectory(t *testing.T) {
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
		var dump strings.Builder
		want := []string{}
		for i := range 1500 {
			want = append(want, fmt.Sprintf("%09d", i))
			fmt.Fprintf(&dump, "/d/%s = \"\"\n", want[i])
		}
		if err := d.Load(strings.NewReader(dump.String())); err != nil {
			t.Fatal(err)
		}
		c := dial(t, d, 0)
		got, err := c.List(t.Context(), "/d")
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d names, %v; want %d", len(got), err, len(want))
		}
		if _, err := c.Read(t.Context(), "/d/absent"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an absent node: %v", err)
		}
	})
}

func TestRealWatch(t *testing.T) {
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
		c := dial(t, d, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		events, done := make(chan string, 100), make(chan error)
		go func() { done <- c.Watch(ctx, "/d", func(p string) { events <- p }) }()
		expect := func(want string) {
			t.Helper()
			select {
			case got := <-events:
				if got != want {
					t.Errorf("event %q, want %q", got, want)
				}
			case err := <-done:
				t.Fatalf("no event %q: %v", want, err)
			}
		}
		expect("/d")
		tool(t, d, "xenstore-write", "/elsewhere", "1")
		tool(t, d, "xenstore-write", "/d/a/b", "1")
		expect("/d/a/b")
		tool(t, d, "xenstore-rm", "/d/a")
		expect("/d/a")
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
		tool(t, d, "xenstore-write", "/d", "2")
		if _, err := c.Read(t.Context(), "/d"); err != nil {
			t.Error(err)
		}
		if len(events) > 0 || c.Stats() != (xenstore.Stats{}) {
			t.Errorf("after the end: %d events, %+v", len(events), c.Stats())
		}
	})
}

// TestRealDeath kills the daemon in the middle of scans, and starts it again.
func TestRealDeath(t *testing.T) {
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, again func() *xenstoretest.Daemon) {
		load(t, d)
		c := dial(t, d, 0)
		var started, ended sync.WaitGroup
		for range 4 {
			started.Add(1)
			ended.Go(func() {
				_, err := walk(t.Context(), c)
				started.Done()
				for err == nil {
					_, err = walk(t.Context(), c)
				}
				if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a scan ended with %v", err)
				}
			})
		}
		for range 4 {
			started.Add(1)
			ended.Go(func() {
				var once sync.Once
				err := c.Watch(t.Context(), "/local", func(string) { once.Do(started.Done) })
				if oe := new(xenstore.OpError); !errors.As(err, &oe) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a watch ended with %v", err)
				}
			})
		}
		started.Wait()
		if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		ended.Wait()
		if _, err := xenstore.Dial(t.Context(), &xenstore.Config{Path: d.Socket()}); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("dialling a dead daemon: %v", err)
		}
		d = again()
		tool(t, d, "xenstore-write", "/a", "1")
		if v, err := dial(t, d, 0).Read(t.Context(), "/a"); string(v) != "1" || err != nil {
			t.Errorf("from the new daemon: %q, %v", v, err)
		}
	})
}

func TestRealSilence(t *testing.T) {
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
		tool(t, d, "xenstore-write", "/a", "1")
		c := dial(t, d, 200*time.Millisecond)
		if err := d.Suspend(); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Read(t.Context(), "/a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("from a stopped daemon: %q, %v", v, err)
		}
		// New connections wait in the socket's queue, and then before it.
		for range 5 {
			late, err := xenstore.Dial(t.Context(), &xenstore.Config{Path: d.Socket(), Timeout: 50 * time.Millisecond})
			if err == nil {
				_, err = late.Read(t.Context(), "/a")
				late.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("from a stopped daemon, newly dialled: %v", err)
			}
		}
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if v, err := c.Read(ctx, "/a"); string(v) != "1" || err != nil {
			t.Errorf("afterwards: %q, %v", v, err)
		}
	})
}
