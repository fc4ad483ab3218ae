package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// An owner is a host with web1, which is configured to have the image, and its
// xenstore.
type owner struct {
	*machine
	store *xenstoretest.Server
}

func newOwner(t *testing.T) owner {
	m := newMachine()
	m.dir("/etc/xen/auto")
	m.configure("web1", image+",raw,xvda,w")
	return owner{m, xenHost(t, m)}
}

// claim asks under --domain web1 and gives what refuses.
func (o owner) claim(t *testing.T) []string {
	t.Helper()
	g := &Guard{Host: o.host, Policy: Policy{Domain: "web1"}, Collectors: []Collector{xen{}, configs{}, saved{}}}
	target, v, err := g.Check(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	out := []string{}
	for _, f := range v.Because {
		out = append(out, fmt.Sprintf("%s %s", f.Code, f.Key))
	}
	if (v.Decision == Proceed) != (len(out) == 0) {
		t.Errorf("%s because of %q", v.Decision, out)
	}
	return out
}

const pause = 5 * time.Second

// --domain NAME is for a domain that is down: not one that runs, nor one that
// will in a moment.
func TestDomainMustBeDown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		build  func(o owner)
		later  func(o owner) // happens in the pause; nil if there must be none
		paused bool          // whether there must be one
		want   []string
	}{
		{name: "shut down"},
		{name: "running without this disk", build: func(o owner) { o.store.Set("/local/domain/9/name", "web1") }, want: []string{"domain.running web1"}},
		{name: "coming from another host", build: func(o owner) { o.store.Set("/local/domain/9/name", "web1--incoming") }, want: []string{"domain.running web1"}},
		{name: "going to another host", build: func(o owner) { o.store.Set("/local/domain/9/name", "web1--migratedaway") }, want: []string{"domain.running web1"}},
		{name: "another whose name begins alike", build: func(o owner) {
			o.store.Set("/local/domain/9/name", "web12")
			o.store.Set("/local/domain/10/name", "web1--incoming2")
		}},
		{name: "a name that cannot be read", build: func(o owner) {
			o.store.Set("/local/domain/9/name", "web1")
			o.store.Deny("/local/domain/9/name", "EACCES")
		}, want: []string{"blind.xen /local/domain/9/name", "blind.xen /local/domain"}},
		{name: "running under libvirt without this disk", build: func(o owner) {
			o.file("/run/libvirt/libxl/web1.xml", "<domstatus><domain><name>web1</name></domain></domstatus>")
		}, want: []string{"domain.running web1"}},

		{name: "rebooting, and back", paused: true,
			build: func(o owner) { o.xlProcess("80", "/var/log/xen/xl-web1.log", "create", "/etc/xen/web1.cfg") },
			later: func(o owner) { o.store.Set("/local/domain/9/name", "web1") }, want: []string{"domain.running web1"}},
		{name: "rebooting, and not back yet", paused: true,
			build: func(o owner) { o.xlProcess("80", "/var/log/xen/xl-web1.log", "create", "/etc/xen/web1.cfg") },
			want:  []string{"blind.configs /proc/80/cmdline", "domain.restarting xl.80"}},
		{name: "its process ends", paused: true,
			build: func(o owner) { o.xlProcess("80", "/var/log/xen/xl-web1.log", "create", "/etc/xen/web1.cfg") },
			later: func(o owner) { o.end("80") }},
		{name: "rebooting, with a log that was rotated", paused: true,
			build: func(o owner) {
				o.xlProcess("80", "/var/log/xen/xl-web1.log.1 (deleted)", "create", "/dev/null", "name='x'")
			},
			want: []string{"blind.configs /proc/80/cmdline", "domain.restarting xl.80"}},
		{name: "being started", paused: true,
			build: func(o owner) { o.xlProcess("80", "", "create", "/etc/xen/web1.cfg") },
			want:  []string{"blind.configs /proc/80/cmdline", "domain.restarting xl.80"}},
		{name: "being restored", paused: true,
			build: func(o owner) {
				o.savedFile("/srv/w.save", 300, record("web1", image))
				o.xlProcess("80", "", "restore", "/srv/w.save")
			}, want: []string{"blind.configs /proc/80/cmdline", "domain.restarting xl.80"}},
		{name: "a process whose domain cannot be told", paused: true,
			build: func(o owner) { o.xlProcess("80", "", "migrate-receive") },
			want:  []string{"blind.configs /proc/80/cmdline", "domain.restarting xl.80"}},
		{name: "another domain's process",
			build: func(o owner) {
				o.configure("web2", "/srv/images/other.img,,xvda")
				o.xlProcess("80", "", "create", "/etc/xen/web2.cfg")
				o.store.Set("/local/domain/9/name", "web2")
			}},
		{name: "libvirt's, with its daemon", paused: true, build: func(o owner) {
			o.file("/etc/libvirt/libxl/web1.xml", "<domain><name>web1</name></domain>")
			o.process("81", "libvirtd")
		}},
		{name: "libvirt's, with its daemon, and back", paused: true, build: func(o owner) {
			o.file("/etc/libvirt/libxl/web1.xml", "<domain><name>web1</name></domain>")
			o.process("81", "virtxend")
		}, later: func(o owner) {
			o.file("/run/libvirt/libxl/web1.xml", "<domstatus><domain><name>web1</name></domain></domstatus>")
		}, want: []string{"domain.running web1"}},
		{name: "libvirt's, without its daemon", build: func(o owner) {
			o.file("/etc/libvirt/libxl/web1.xml", "<domain><name>web1</name></domain>")
		}},
		{name: "libvirt's daemon with other domains", build: func(o owner) {
			o.file("/etc/libvirt/libxl/web2.xml", "<domain><name>web2</name></domain>")
			o.process("81", "libvirtd")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOwner(t)
				o.host.Settle = pause
				o.dir("/run")
				if tt.build != nil {
					tt.build(o)
				}
				begun := time.Now()
				if tt.later != nil {
					time.AfterFunc(pause/2, func() { tt.later(o) })
				}
				if got := o.claim(t); !slices.Equal(got, tt.want) && len(got)+len(tt.want) > 0 {
					t.Errorf("refused because of %q, want %q", got, tt.want)
				}
				if waited := time.Since(begun); (waited >= pause) != tt.paused || waited >= 2*pause {
					t.Errorf("took %s", waited)
				}
			})
		})
	}
}

// end removes a process.
func (m *machine) end(pid string) {
	m.dirs["/proc"] = slices.DeleteFunc(m.dirs["/proc"], func(n string) bool { return n == pid })
	m.fs.SetErr("/proc/"+pid, syscall.ENOENT)
	m.fs.SetDir("/proc", m.dirs["/proc"]...)
}

// A domain that starts between the two looks of a write stops it, whatever the
// operator said, and nothing was written.
func TestDomainStartsBetweenTheLooks(t *testing.T) {
	b := newPlace(t)
	o := newOwner(t)
	looks := 0
	starts := stub{"configs", func(_ context.Context, _ *Target, s *Sheet) {
		s.Found(Finding{Code: ConfigNamed, Subject: "domain web1 (configured)", Key: "web1", Domain: "web1"})
		if looks++; looks == 1 {
			o.store.Set("/local/domain/9/name", "web1")
		}
	}}
	b.guard.Host.Store = o.host.Store
	b.guard.Collectors, b.guard.Policy = []Collector{starts}, Policy{Domain: "web1"}
	err := b.guard.Write(t.Context(), b.path, func(context.Context, *Permit) error {
		t.Error("the work began")
		return nil
	})
	var refused *RefusedError
	if !errors.As(err, &refused) || !slices.Equal(refused.Verdict.Codes(), []Code{DomainRunning}) {
		t.Errorf("%v", err)
	}
	if now, err := os.ReadFile(b.path); err != nil || string(now) != string(b.content) {
		t.Errorf("the target was changed, %v", err)
	}
}

// What cannot be asked is not down.
func TestDomainOfASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.dir("/etc/xen/auto")
		m.configure("web1", image+",raw,xvda,w")
		m.host.Store = hungStore{"DIRECTORY"}
		g := &Guard{Host: m.host, Policy: Policy{Domain: "web1"}, Collectors: []Collector{configs{}}}
		target, v, err := g.Check(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		if v.Decision != Refuse || v.Codes()[0] != "blind.xen" {
			t.Errorf("%s because of %q", v.Decision, found(v.Because))
		}
	})
}

// A process of xl's on this very machine, or what looks like one, and its file:
// the domain is configured while the process lives, and is about to start.
func TestProcessOfXLForReal(t *testing.T) {
	testkit.Need(t, "xl") // without Xen's tools nobody looks for their processes
	b := newPlace(t)
	b.put(filepath.Join(b.dir, "web1.cfg"), []byte("name = 'web1'\ndisk = [ 'tap:aio:"+b.path+",xvda,w' ]\n"))
	if err := os.WriteFile(filepath.Join(b.dir, "xl"), []byte("#!/bin/sh\nread line\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	xl := exec.Command("./xl", "create", "-p", "web1.cfg")
	xl.Dir = b.dir
	xl.Path = filepath.Join(b.dir, "xl")
	in, err := xl.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := xl.Start(); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint(xl.Process.Pid)
	check := func(domain string) (out []string) {
		g := &Guard{Host: b.guard.Host, Policy: Policy{Domain: domain}, Collectors: []Collector{configs{}, saved{}}}
		target, v, err := g.Check(t.Context(), b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		for _, f := range v.Because {
			if f.Domain == "web1" || f.Key == "xl."+pid || strings.HasPrefix(string(f.Code), "domain.") {
				out = append(out, fmt.Sprintf("%s %s", f.Code, f.Key))
			}
		}
		return out
	}
	for domain, want := range map[string][]string{
		"":     {"config.named web1"},
		"web1": {"domain.restarting xl." + pid},
		"web2": {"domain.other web1", "domain.unproven "},
	} {
		if got := check(domain); !slices.Equal(got, want) {
			t.Errorf("--domain %q: refused because of %q, want %q", domain, got, want)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = xl.Wait() // its input ended
	if got := check("web1"); !slices.Equal(got, []string{"domain.unproven "}) {
		t.Errorf("after the process has ended: %q", got)
	}
}
