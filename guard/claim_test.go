package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

const claimsAt = "/local/domain/0/backend/vbd/32760"

// setClaim sets up a claim as an imgward makes it, with some keys changed.
func setClaim(s *xenstoretest.Server, id string, keys ...string) {
	set(s, "/local/domain/32760", "vm=/vm/imgward")
	set(s, claimsAt+"/"+id, append([]string{
		"imgward/target=fd:0", "imgward/pid=60", "imgward/pid-namespace=pid:[4026531836]", "imgward/start=4711", "imgward/boot-id=boot-1", "imgward/operation=overwrite",
		"mode=w", "physical-device=fd:0",
	}, keys...)...)
}

// The claims of others are about what they write, not about all that they claim,
// and say whether whoever made them still runs.
func TestClaimsOfOthers(t *testing.T) {
	type host struct {
		*machine
		*xenstoretest.Server
	}
	live := func(h host) { h.process("60", "imgward") }
	for _, tt := range []struct {
		name   string
		build  func(h host)
		target string
		want   []string
	}{
		{"none", func(h host) {}, "/dev/dm-0", nil},
		{"writing", func(h host) { live(h); setClaim(h.Server, "1") }, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"writing to what stands on it", func(h host) { live(h); setClaim(h.Server, "1") }, "/dev/sdb", []string{"self.writing above imgward.60"}},
		{"with several claims", func(h host) {
			live(h)
			setClaim(h.Server, "1")
			setClaim(h.Server, "2", "physical-device=8:10")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"writing to another volume of the disk", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/target=fd:1", "physical-device=fd:1")
			setClaim(h.Server, "2", "imgward/target=fd:1", "physical-device=8:10")
		}, "/dev/dm-0", nil},
		{"ended", func(h host) { setClaim(h.Server, "1") }, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"ended, and its number is another's", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/start=4710")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of another boot", func(h host) {
			live(h)
			setClaim(h.Server, "1", "imgward/boot-id=boot-0")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of a boot that cannot be told", func(h host) {
			live(h)
			h.fs.SetErr("/proc/sys/kernel/random/boot_id", syscall.EACCES)
			setClaim(h.Server, "1", "imgward/boot-id=boot-0")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another PID namespace, in which there is somebody", func(h host) {
			h.namespaces("4026532000")
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another PID namespace, in which there is nobody", func(h host) {
			live(h)
			h.link("/proc/60/ns/pid", initPIDNamespace)
			h.namespaces("4026531836")
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of another PID namespace, and not everybody's can be read", func(h host) {
			h.namespaces("4026531836")
			h.fs.SetErr("/proc/50/ns/pid", syscall.EACCES)
			setClaim(h.Server, "1", "imgward/pid-namespace=pid:[4026532000]")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of the host's PID namespace, seen from another", func(h host) {
			h.link("/proc/self/ns/pid", "pid:[4026532000]")
			h.namespaces("4026532000")
			setClaim(h.Server, "1")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of a PID namespace that is not known", func(h host) { setClaim(h.Server, "1", "imgward/pid-namespace=") },
			"/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"of another boot, in whatever PID namespace", func(h host) {
			setClaim(h.Server, "1", "imgward/boot-id=boot-0", "imgward/pid-namespace=")
		}, "/dev/dm-0", []string{"claim.left same imgward.60"}},
		{"of a process that cannot be read", func(h host) {
			h.fs.SetErr("/proc/60/stat", syscall.EACCES)
			setClaim(h.Server, "1")
		}, "/dev/dm-0", []string{"self.writing same imgward.60"}},
		{"ended, and what it wrote to is there no more", func(h host) {
			setClaim(h.Server, "1", "imgward/target=fd:9", "physical-device=8:10")
		}, "/dev/sdb", []string{"claim.left same imgward.60"}},
		{"ended, of another volume of the disk", func(h host) {
			setClaim(h.Server, "1", "imgward/target=fd:1", "physical-device=8:10")
		}, "/dev/sdb", []string{"claim.left above imgward.60"}},
		{"cut short before it counted", func(h host) {
			setClaim(h.Server, "1")
			h.Remove(claimsAt + "/1/physical-device")
		}, "/dev/dm-0", nil},
		{"a node that is no claim", func(h host) {
			setClaim(h.Server, "1")
			h.Remove(claimsAt + "/1/imgward")
		}, "/dev/dm-0", []string{"xen.vbd.stale same domain.32760"}},
		{"a claim by whom cannot be read", func(h host) {
			setClaim(h.Server, "1")
			h.Deny(claimsAt+"/1/imgward/pid", "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated " + claimsAt + "/1/imgward/pid", "xen.vbd.stale same domain.32760"}},
		{"claims that cannot be listed", func(h host) {
			setClaim(h.Server, "1")
			h.Deny(claimsAt, "EACCES")
		}, "/dev/dm-0", []string{"blind.xen unrelated " + claimsAt}},
		{"another kind of device of that number", func(h host) {
			set(h.Server, "/local/domain/0/backend/qdisk/32760/1", "params=aio:/dev/vg0/a", "imgward/pid=60")
		}, "/dev/dm-0", []string{"xen.vbd.stale same domain.32760"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			h := host{m, xenHost(t, m)}
			m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
			m.disk("sdb", "8:16")
			m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:16 0\n", "sdb")
			m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:16 100\n", "sdb")
			m.node("/dev/vg0/a", devID("253:0"))
			tt.build(h)
			e := m.examine(t, tt.target, nil, xen{})
			wantFound(t, e.Findings, tt.want...)
			if !slices.Contains(e.Looked, "2 domains") && tt.name != "claims that cannot be listed" {
				t.Errorf("looked at %q: a claim is no domain", e.Looked)
			}
			for _, f := range e.Findings {
				if f.Code == ClaimLeft && !strings.Contains(f.Detail, "imgward release /dev/") {
					t.Errorf("does not say how it is withdrawn: %s", f.Detail)
				}
			}
		})
	}
}

// In the second look exactly our own claims are expected, as we made them.
func TestOwnClaims(t *testing.T) {
	ours := xenstore.Claim{
		ID: 1, Device: devID("253:0").Rdev, Target: devID("253:0").Rdev, PID: 60, Namespace: initPIDNamespace, Start: 4711, Boot: "boot-1", Operation: "overwrite",
	}
	for _, tt := range []struct {
		name  string
		build func(s *xenstoretest.Server)
		want  []string
	}{
		{"there", func(s *xenstoretest.Server) { setClaim(s, "1") }, nil},
		{"gone", func(s *xenstoretest.Server) {}, []string{"blind.xen unrelated xenstore"}},
		{"somebody else's", func(s *xenstoretest.Server) { setClaim(s, "1", "imgward/start=1") },
			[]string{"blind.xen unrelated xenstore", "claim.left same imgward.60"}},
		{"on another device", func(s *xenstoretest.Server) { setClaim(s, "1", "physical-device=fd:1") }, []string{"blind.xen unrelated xenstore"}},
		{"just being made", func(s *xenstoretest.Server) { setClaim(s, "1"); setClaim(s, "2", "physical-device=8:10") }, nil},
		{"another's, who has our number in another PID namespace", func(s *xenstoretest.Server) {
			setClaim(s, "1")
			setClaim(s, "2", "imgward/pid-namespace=")
		}, []string{"self.writing same imgward.60"}},
		{"another target's", func(s *xenstoretest.Server) { setClaim(s, "1"); setClaim(s, "2", "imgward/target=8:1") }, []string{"self.writing below imgward.60"}},
	} {
		m := newMachine()
		s := xenHost(t, m)
		m.file("/proc/sys/kernel/random/boot_id", "boot-1\n")
		m.process("60", "imgward")
		m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:1 0\n", "sda1")
		tt.build(s)
		t.Log(tt.name)
		h := &held{pid: 60}
		h.claims.Store(&claimed{made: []xenstore.Claim{ours}})
		wantFound(t, m.collectHeld(t, xen{}, "/dev/dm-0", h), tt.want...)
	}
}

// What shares bytes with the target is claimed with it, and nothing else.
func TestOverlapping(t *testing.T) {
	m := newMachine()
	m.disk("sdb", "8:16", "sdb1 8:17 0 1000", "sdb2 8:18 1000 1000")
	m.mapper("dm-0", "253:0", "vg0-a", "0 100 linear 8:17 0\n", "sdb1")
	m.mapper("dm-1", "253:1", "vg0-b", "0 100 linear 8:17 100\n", "sdb1")
	m.mapper("dm-2", "253:2", "by-hand", "0 50 linear 8:16 20\n", "sdb")
	m.mapper("dm-3", "253:3", "over-a", "0 10 linear 253:0 0\n", "dm-0")
	for path, want := range map[string][]string{
		"/dev/dm-0": {"8:16", "8:17", "253:0", "253:2", "253:3"},
		"/dev/dm-1": {"8:16", "8:17", "253:1"},
		"/dev/dm-3": {"8:16", "8:17", "253:0", "253:3"},
		"/dev/sdb2": {"8:16", "8:18"},
		"/dev/sdb":  {"8:16", "8:17", "8:18", "253:0", "253:1", "253:2", "253:3"},
	} {
		var got []string
		for _, dev := range m.examine(t, path, nil).view.overlapping() {
			got = append(got, BlockID(dev).String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: claims %q, want %q", path, got, want)
		}
	}
}

// A claimHost is a loop device, a xenstore, and a guard that writes to the one
// and asks the other.
type claimHost struct {
	*place
	*xenstoretest.Server
	dev, file string
	want      []byte
	mu        sync.Mutex
	noticed   []Finding
}

func newClaimHost(t *testing.T) *claimHost {
	b := newPlace(t)
	h := &claimHost{place: b, Server: xenstoretest.NewServer(), want: bytes.Repeat([]byte("new!"), 1<<18)}
	h.dev, h.file = loopDevice(t, b)
	t.Cleanup(func() { h.Close() })
	conn := xenstore.NewConn(h.Pipe())
	t.Cleanup(func() { conn.Close() })
	b.guard.Host.Store, b.guard.Host.Claims = conn, conn
	b.guard.Collectors = []Collector{xen{}, holders{}, excl{}, self{}, marks{}}
	b.guard.Notice = func(f Finding) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if f.Code != HoldInForce {
			h.noticed = append(h.noticed, f)
		}
	}
	h.Set("/local/domain/0/name", "Domain-0")
	h.Set("/local/domain/7/name", "web01")
	return h
}

// device is the loop device's number as Xen writes it.
func (h *claimHost) device() string {
	h.Helper()
	var st unix.Stat_t
	if err := unix.Stat(h.dev, &st); err != nil {
		h.Fatal(err)
	}
	return fmt.Sprintf("%x:%x", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// claims gives the claims that are in the store, whole or not.
func (h *claimHost) claims() []storeClaim {
	h.Helper()
	cs, err := readClaims(h.Context(), h.guard.Host.Store)
	if err != nil {
		h.Fatal(err)
	}
	return cs
}

func (h *claimHost) wantClaims(n int) {
	h.Helper()
	if cs := h.claims(); len(cs) != n {
		h.Errorf("%d claims, want %d: %+v", len(cs), n, cs)
	}
	_, err := h.guard.Host.Store.ReadAll(h.Context(), []string{"/local/domain/32760/vm"})
	if err != nil {
		h.Fatal(err)
	}
	home, err := h.guard.Host.Store.ListAll(h.Context(), []string{"/local/domain/32760"})
	if err != nil || (home[0].Err == nil) != (n > 0) {
		h.Errorf("with %d claims their domain is there: %v, %v", n, home[0].Err == nil, err)
	}
}

func (h *claimHost) write(work func(ctx context.Context, p *Permit) error) error {
	return h.guard.Write(h.Context(), h.dev, work)
}

// Claims are there while a device is written and may not be whole, and at no
// other time.
func TestClaimsWhileWriting(t *testing.T) {
	fault := errors.New("write: fault")
	for _, tt := range []struct {
		name  string
		opens bool
		work  func(h *claimHost, p *Permit) error
		left  int
	}{
		{"whole", true, func(h *claimHost, p *Permit) error { return h.fill(h.want)(h.Context(), p) }, 0},
		{"nothing was to be done", false, func(h *claimHost, p *Permit) error { return nil }, 0},
		{"failed before the first byte", false, func(h *claimHost, p *Permit) error { return fault }, 0},
		{"untouched", true, func(h *claimHost, p *Permit) error { p.Untouched(); return fault }, 0},
		{"failed in the middle", true, func(h *claimHost, p *Permit) error { return fault }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newClaimHost(t)
			err := h.write(func(_ context.Context, p *Permit) error {
				if h.wantClaims(0); !tt.opens {
					return tt.work(h, p)
				}
				if _, err := p.File(); err != nil {
					return err
				}
				cs := h.claims()
				if len(cs) != 1 || cs[0].broken != nil || cs[0].PID != os.Getpid() || cs[0].Operation != "overwrite" || !cs[0].lives(h.guard.Host) {
					t.Errorf("while it is written: %+v", cs)
				}
				v, err := h.guard.Host.Store.ReadAll(h.Context(), []string{cs[0].path + "/physical-device", cs[0].path + "/params", cs[0].path + "/state"})
				if err != nil || string(v[0].Data) != h.device() || v[1].Err == nil || v[2].Err == nil {
					t.Errorf("Xen sees %+v, %v", v, err)
				}
				var refused *RefusedError
				if err := h.guard.Write(h.Context(), h.dev, unexpected); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), SelfWriting) {
					t.Errorf("a second one: %v", err)
				}
				if r, err := Release(h.Context(), h.guard.Host, h.dev); err == nil || len(r.Withdrawn) != 0 {
					t.Errorf("a claim that is needed was released: %+v", r)
				}
				return tt.work(h, p)
			})
			if tt.left == 0 && err != nil && !errors.Is(err, fault) {
				t.Error(err)
			}
			h.wantClaims(tt.left)
		})
	}

	t.Run("panic", func(t *testing.T) {
		h := newClaimHost(t)
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
			h.wantClaims(1)
		}()
		_ = h.write(func(_ context.Context, p *Permit) error {
			_, err := p.File()
			panic(err)
		})
	})
}

// crash leaves what a write leaves that is killed in the middle: its mark and its
// claims, of a process that is no more.
func (h *claimHost) crash() {
	h.Helper()
	err := h.write(func(_ context.Context, p *Permit) error {
		_, err := p.File()
		return errors.Join(err, errors.New("killed"))
	})
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) {
		h.Fatal(err)
	}
	h.ended()
	for _, c := range h.claims() {
		h.Set(c.path+"/imgward/start", "0")
	}
}

// What a crash leaves refuses domains and not us: an overwrite repairs the target
// and withdraws the claim, and a failed one does not.
func TestClaimLeft(t *testing.T) {
	h := newClaimHost(t)
	h.crash()
	h.wantClaims(1)
	target, v, err := h.guard.Check(t.Context(), h.dev)
	if err != nil {
		t.Fatal(err)
	}
	target.Close()
	for _, code := range []Code{ClaimLeft, SelfIncomplete} {
		if v.Decision != Proceed || !slices.ContainsFunc(v.Context, func(f Finding) bool { return f.Code == code }) {
			t.Errorf("%s: %s %v", code, v.Decision, v.All())
		}
	}
	read := &Guard{Host: h.guard.Host, Collectors: []Collector{xen{}}, Policy: Policy{Operation: Read}}
	if target, v, err := read.Check(t.Context(), h.dev); err != nil || v.Decision != Refuse {
		t.Errorf("as a source: %v, %v", v, err)
	} else {
		target.Close()
	}
	if err := h.write(func(context.Context, *Permit) error { return errors.New("not yet") }); err == nil {
		t.Error("no error")
	}
	h.wantClaims(1)
	if err := h.write(h.fill(h.want)); err != nil {
		t.Fatal(err)
	}
	h.wantClaims(0)

	h.crash()
	h.crash()
	h.wantClaims(2)
	r, err := Release(t.Context(), h.guard.Host, h.dev)
	if err != nil || len(r.Withdrawn) != 2 || !r.Incomplete {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantClaims(0)
	if r, err := Release(t.Context(), h.guard.Host, h.dev); err != nil || len(r.Withdrawn) != 0 {
		t.Errorf("again: %+v, %v", r, err)
	}
}

// Whoever makes the target whole, or finds that it is, withdraws what a crash
// left, whether he made a claim himself or not.
func TestClaimLeftGoes(t *testing.T) {
	for name, work := range map[string]func(h *claimHost) func(context.Context, *Permit) error{
		"no claim": func(h *claimHost) func(context.Context, *Permit) error {
			h.guard.NoClaim = true
			return h.fill(h.want)
		},
		"no claim to be had": func(h *claimHost) func(context.Context, *Permit) error {
			h.Deny("/local/domain/32760/vm", "EACCES")
			return h.fill(h.want)
		},
		"equal already": func(h *claimHost) func(context.Context, *Permit) error {
			return func(_ context.Context, p *Permit) error {
				_, err := p.File()
				p.Untouched()
				return err
			}
		},
		"for a device that is gone": func(h *claimHost) func(context.Context, *Permit) error {
			setClaim(h.Server, "9", "imgward/target=fff:ff", "physical-device="+h.device())
			return h.fill(h.want)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newClaimHost(t)
			h.crash()
			h.wantMarks(1)
			if err := h.write(work(h)); err != nil {
				t.Error(err)
			}
			h.wantMarks(0)
			if cs := h.claims(); len(cs) != 0 {
				t.Errorf("left %+v", cs)
			}
		})
	}
}

// Release leaves alone what is not the target's, and takes away what was cut
// short, and what was claimed for the sake of a device that is there no more.
func TestReleaseOthers(t *testing.T) {
	h := newClaimHost(t)
	dev, another := h.device(), ""
	target, _, err := h.guard.Check(t.Context(), h.dev)
	if err != nil {
		t.Fatal(err)
	}
	for id := range target.stack.devices {
		if target.Relate(id) == Unrelated {
			another = fmt.Sprintf("%x:%x", unix.Major(id.Rdev), unix.Minor(id.Rdev))
		}
	}
	target.Close()
	setClaim(h.Server, "3", "imgward/target="+another, "physical-device="+another)
	setClaim(h.Server, "4", "imgward/target="+another, "physical-device="+dev)
	setClaim(h.Server, "5", "imgward/target="+dev, "physical-device="+dev)
	setClaim(h.Server, "6", "imgward/target="+dev)
	h.Remove(claimsAt + "/6/physical-device")
	setClaim(h.Server, "7", "imgward/target=fff:ff", "physical-device="+dev)
	start, err := startTime(h.guard.Host, "1")
	if err != nil {
		t.Fatal(err)
	}
	setClaim(h.Server, "8", "imgward/target="+dev, "physical-device="+dev, "imgward/pid=1", "imgward/start="+start, "imgward/boot-id="+bootID(h.guard.Host))
	if r, err := Release(t.Context(), h.guard.Host, h.dev); err == nil || len(r.Withdrawn) > 0 || !strings.Contains(err.Error(), "process 1") {
		t.Errorf("%+v, %v", r, err)
	}
	setClaim(h.Server, "8", "imgward/target="+dev, "physical-device="+dev, "imgward/pid-namespace=", "imgward/boot-id="+bootID(h.guard.Host))
	if r, err := Release(t.Context(), h.guard.Host, h.dev); err == nil || len(r.Withdrawn) > 0 || !strings.Contains(err.Error(), "cannot be seen that it has ended") {
		t.Errorf("of a PID namespace that is not known: %+v, %v", r, err)
	}
	h.Remove(claimsAt + "/8")
	if _, err := Release(t.Context(), h.guard.Host, h.dev); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, c := range h.claims() {
		left = append(left, filepath.Base(c.path))
	}
	if !slices.Equal(left, []string{"3", "4"}) {
		t.Errorf("left %q", left)
	}
}

// A domain that comes at the same time as the claim is found by its node's params
// alone, and the claim is withdrawn.
func TestDomainComesWithClaim(t *testing.T) {
	for _, key := range []string{"params", "physical-device"} {
		h := newClaimHost(t)
		value := map[string]string{"params": h.dev, "physical-device": h.device()}[key]
		h.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "WRITE" && strings.HasSuffix(r.Path, "/physical-device") {
				set(h.Server, vbd7, key+"="+value, "mode=w", "state=1", "script=/etc/xen/scripts/block")
			}
			return xenstoretest.Reply{}
		})
		var refused *RefusedError
		if err := h.write(h.fill(h.want)); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), XenConnected) {
			t.Errorf("%s: %v", key, err)
		}
		h.wantClaims(0)
		h.wantMarks(0)
		h.wantContent(h.file, bytes.Repeat([]byte("old "), 1<<18))
	}
}

// Who comes behind the claim is refused by Xen itself, and told of; who gets the
// device in spite of it, or in a way that Xen does not look at, stops the write.
func TestDomainComesBehindClaim(t *testing.T) {
	node := func(kind, script string, more ...string) func(h *claimHost) {
		return func(h *claimHost) {
			keys := append([]string{"params=" + h.dev, "mode=w", "state=1", "script=" + script}, more...)
			set(h.Server, "/local/domain/0/backend/"+kind+"/7/51712", keys...)
		}
	}
	for _, tt := range []struct {
		name  string
		comes func(h *claimHost)
		then  func(h *claimHost) // when that was told
		want  string             // what stops the write
	}{
		{"refused", node("vbd", "/etc/xen/scripts/block"), nil, ""},
		{"refused, and its node stays", node("vbd", "/etc/xen/scripts/block", "state=2", "hotplug-status=busy"), nil, ""},
		{"gets it", node("vbd", "/etc/xen/scripts/block"), func(h *claimHost) {
			h.Set("/local/domain/0/backend/vbd/7/51712/physical-device", h.device())
		}, "xen.vbd.connected same web01.7"},
		{"has it at once", func(h *claimHost) { node("vbd", "/etc/xen/scripts/block", "physical-device="+h.device())(h) }, nil, "xen.vbd.connected same web01.7"},
		{"by another script", node("vbd", "/etc/xen/scripts/block-dummy"), nil, "xen.vbd.connected same web01.7"},
		{"without a script", node("vbd", ""), nil, "xen.vbd.connected same web01.7"},
		{"served by QEMU", node("qdisk", "/etc/xen/scripts/block"), nil, "xen.vbd.connected same web01.7"},
		{"not claimed", func(h *claimHost) { node("vbd", "/etc/xen/scripts/block")(h) }, nil, "xen.vbd.connected same web01.7"},
		{"as the file under it", func(h *claimHost) { node("vbd", "/etc/xen/scripts/block", "params="+h.file)(h) }, nil, "xen.vbd.connected below web01.7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newClaimHost(t)
			h.guard.Watchers = []Watcher{xenWatcher{}}
			h.guard.NoClaim = tt.name == "not claimed"
			told := make(chan Finding, 100)
			h.guard.Notice = func(f Finding) { told <- f }
			err := h.write(func(ctx context.Context, p *Permit) error {
				if _, err := p.File(); err != nil {
					return err
				}
				if f := <-told; f.Code != HoldInForce || strings.Contains(f.Detail, "claim") == (tt.name == "not claimed") {
					t.Errorf("said %q", f.sentence())
				}
				tt.comes(h)
				if tt.want != "" && tt.then == nil {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				if f := <-told; f.Code != HoldDenied || f.Domain != "web01" {
					t.Errorf("told of %s: %s", f.Code, f.sentence())
				}
				if tt.then != nil {
					tt.then(h)
					<-ctx.Done()
					return context.Cause(ctx)
				}
				return h.fill(h.want)(ctx, p)
			})
			var broken *BrokenError
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.As(err, &broken) || found([]Finding{broken.Finding})[0] != tt.want):
				t.Errorf("%v, want %s", err, tt.want)
			}
			if len(told) > 0 {
				t.Errorf("told of %q, too", (<-told).sentence())
			}
		})
	}
}

// A claim that is lost while the device is written stops the write.
func TestClaimIsLost(t *testing.T) {
	h := newClaimHost(t)
	h.guard.Watchers = []Watcher{xenWatcher{}}
	err := h.write(func(ctx context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		for h.Watches() < 2 {
			time.Sleep(time.Millisecond)
		}
		h.Remove(claimsAt)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != "blind.xen" || !strings.Contains(err.Error(), "not there any more") {
		t.Error(err)
	}
}

// That no claim can be made is said once and stops nothing; that there is no
// xenstore is not worth saying.
func TestUnclaimed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(h *claimHost)
		said  string
	}{
		{"claimed", func(h *claimHost) {}, ""},
		{"not allowed", func(h *claimHost) { h.Deny("/local/domain/32760/vm", "EACCES") }, "permission denied"},
		{"not kept", func(h *claimHost) { h.Deny(claimsAt+"/1/mode", "EQUOTA") }, "EQUOTA"},
		{"no Xen", func(h *claimHost) { h.guard.Host.Store, h.guard.Host.Claims = nil, nil }, ""},
		{"no answer", func(h *claimHost) {
			h.guard.Host.Store, h.guard.Host.Claims, h.guard.Host.StoreErr = nil, nil, errors.New("dial: nobody there")
			h.guard.Policy.Override = []Override{{"blind.xen", "xenstore"}}
		}, "nobody there"},
		{"switched off", func(h *claimHost) {
			h.guard.NoClaim = true
			h.Deny("/local/domain/32760/vm", "EACCES")
		}, ""},
	} {
		h := newClaimHost(t)
		tt.build(h)
		err := h.write(func(_ context.Context, p *Permit) error {
			_, err := p.File()
			p.Untouched()
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var said []string
		for _, f := range h.noticed {
			said = append(said, f.sentence())
		}
		if tt.said == "" && len(said) > 0 || tt.said != "" && (len(said) != 1 || !strings.Contains(said[0], tt.said)) {
			t.Errorf("%s: said %q, want %q", tt.name, said, tt.said)
		}
		if h.guard.Host.Store != nil {
			h.Deny(claimsAt+"/1/mode", "")
			h.wantClaims(0)
		}
	}
}

// A claim that cannot be withdrawn is said, with what withdraws it.
func TestNotWithdrawn(t *testing.T) {
	for name, work := range map[string]func(h *claimHost) func(context.Context, *Permit) error{
		"whole": func(h *claimHost) func(context.Context, *Permit) error { return h.fill(h.want) },
		"nothing written": func(h *claimHost) func(context.Context, *Permit) error {
			return func(_ context.Context, p *Permit) error {
				_, err := p.File()
				p.Untouched()
				return err
			}
		},
	} {
		h := newClaimHost(t)
		h.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "RM" {
				return xenstoretest.Reply{Error: "EIO"}
			}
			return xenstoretest.Reply{}
		})
		err := h.write(work(h))
		var written *WrittenError
		hint := "imgward release " + h.dev
		switch {
		case name == "whole" && (!errors.As(err, &written) || !strings.Contains(err.Error(), hint)):
			t.Errorf("%s: %v", name, err)
		case name != "whole" && (err != nil || len(h.noticed) != 1 || !strings.Contains(h.noticed[0].Detail, hint)):
			t.Errorf("%s: %v, said %v", name, err, h.noticed)
		}
		h.Hook(nil)
		h.wantClaims(1)
	}
}

// A claim that could not be made, and of which something was left when that was to be
// undone, goes when the write ends; when it cannot, that is said, with what withdraws
// it, also where nothing was written.
func TestLeftBehind(t *testing.T) {
	untouched := func(_ context.Context, p *Permit) error {
		_, err := p.File()
		p.Untouched()
		return err
	}
	for _, tt := range []struct {
		name  string
		fails string // the request on which making the claim fails
		whole bool
		stuck bool // until the end nothing can be removed
	}{
		{"whole", "READ backend/vbd/32760/1/physical-device", true, false},
		{"nothing written", "READ backend/vbd/32760/1/physical-device", false, false},
		{"half a claim", "WRITE backend/vbd/32760/1/mode", true, false},
		{"whole and stuck", "READ backend/vbd/32760/1/physical-device", true, true},
		{"nothing written and stuck", "READ backend/vbd/32760/1/physical-device", false, true},
		{"half a claim and stuck", "WRITE backend/vbd/32760/1/mode", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newClaimHost(t)
			failed, removed := false, 0
			h.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
				switch {
				case r.Op+" "+r.Path == tt.fails && !failed:
					failed = true
				case r.Op == "RM" && (removed == 0 || tt.stuck):
					removed++
				default:
					return xenstoretest.Reply{}
				}
				return xenstoretest.Reply{Error: "EIO"}
			})
			work := untouched
			if tt.whole {
				work = h.fill(h.want)
			}
			err := h.write(work)
			said := fmt.Sprint(err)
			for _, f := range h.noticed {
				said += "\n" + f.Detail
			}
			if !failed || !strings.Contains(said, "no claim could be made") || strings.Contains(said, "imgward release "+h.dev) != tt.stuck {
				t.Errorf("said %s", said)
			}
			if (err != nil) != (tt.stuck && tt.whole) {
				t.Error(err)
			}
			h.Hook(nil)
			left := 0
			if tt.stuck {
				left = 1
			}
			h.wantClaims(left)
		})
	}
}

// Where several devices are claimed and the last claim fails, the others are undone,
// and those that cannot be when the write ends.
func TestClaimsAreUndone(t *testing.T) {
	m := newMachine()
	server := xenHost(t, m)
	host := &Host{FS: m.fs, Store: m.host.Store, Claims: m.host.Store.(Claimer), State: t.TempDir()}
	m.process("60", "imgward")
	m.disk("sdb", "8:16", "sdb1 8:17 0 1000")
	target := m.examine(t, "/dev/sdb1", nil).view
	target.held = &held{pid: 60}
	stuck := true
	server.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
		if r.Op == "WRITE" && strings.Contains(r.Path, "/32760/2/") || r.Op == "RM" && strings.HasSuffix(r.Path, "/1") && stuck {
			return xenstoretest.Reply{Error: "EIO"}
		}
		return xenstoretest.Reply{}
	})
	if err := claimDevice(t.Context(), host, target); err == nil || len(target.held.claimed()) > 0 {
		t.Errorf("claimed: %v", err)
	}
	if err := withdraw(t.Context(), host, target, true); err == nil || !strings.Contains(err.Error(), "imgward release /dev/sdb1") {
		t.Errorf("withdrawn: %v", err)
	}
	stuck = false
	if err := withdraw(t.Context(), host, target, true); err != nil {
		t.Error(err)
	}
	if left, err := host.Store.ListAll(t.Context(), []string{claimsAt, "/local/domain/32760"}); err != nil || left[0].Err == nil || left[1].Err == nil {
		t.Errorf("left: %+v, %v", left, err)
	}
}

// Claims of many targets at once get numbers of their own, and the last one takes
// what they share with it.
func TestClaimsAtOnce(t *testing.T) {
	m := newMachine()
	xenHost(t, m)
	host := &Host{FS: m.fs, Store: m.host.Store, Claims: m.host.Store.(Claimer), State: t.TempDir()}
	m.process("60", "imgward")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen, done := map[uint32]int{}, 0
	gate := make(chan struct{})
	for i := range 8 {
		dev := devID("253:" + strconv.Itoa(i))
		m.mapper("dm-"+strconv.Itoa(i), "253:"+strconv.Itoa(i), "vg0-a", "0 100 linear 8:1 0\n", "sda1")
		target := &Target{Path: "/dev/x", ID: dev, stack: &stack{}, held: &held{pid: 60}}
		wg.Go(func() {
			err := claimDevice(t.Context(), host, target)
			mu.Lock()
			if c := target.held.claims.Load(); c != nil {
				for _, c := range c.made {
					seen[c.ID]++
				}
			}
			if done++; done == 8 {
				close(gate)
			}
			mu.Unlock()
			<-gate
			if err == nil {
				err = withdraw(t.Context(), host, target, false)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(seen) != 8 || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
		t.Errorf("claims had numbers %v", seen)
	}
	left, err := host.Store.ListAll(t.Context(), []string{claimsAt, "/local/domain/32760"})
	if err != nil || left[0].Err == nil || left[1].Err == nil {
		t.Errorf("left: %+v, %v", left, err)
	}
}

// The claim is made under the lock of Xen's scripts, and without it where that is
// not to be had.
func TestHotplugLock(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "block")
	taken := func() bool {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	}
	release := holdScripts(t.Context(), dir)
	if !taken() {
		t.Error("the lock is not taken")
	}
	release()
	if _, err := os.Stat(name); err == nil {
		t.Error("the lock's file is left")
	}
	theirs, err := lockFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	holdScripts(ctx, dir)()
	if !taken() {
		t.Error("another's lock was taken away")
	}
	if _, err := lockFile(ctx, name); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	theirs()
	holdScripts(t.Context(), dir+"/none")()
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("the scripts' directory was made")
	}
	if _, err := lockFile(t.Context(), dir+"/none/block"); err == nil {
		t.Error("a lock where no file can be")
	}
}

// Only one has a lock at a time, though its file comes and goes.
func TestLockFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	inside := make(chan struct{}, 1)
	for range 4 {
		wg.Go(func() {
			for range 50 {
				unlock, err := lockFile(ctx, name)
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case inside <- struct{}{}:
					<-inside
				default:
					t.Error("two have the lock")
				}
				unlock()
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(name); err == nil {
		t.Error("its file is left")
	}
}

// Who came since the target was judged is seen before the first byte, and one who
// has broken the hold by then stops the write there.
func TestComesBeforeFirstByte(t *testing.T) {
	attach := func(h *claimHost, _ context.Context) {
		out, err := exec.Command("losetup", "--find", "--show", h.dev).CombinedOutput()
		if err != nil {
			h.Fatalf("losetup: %v: %s", err, out)
		}
		h.Cleanup(func() { _ = exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run() })
	}
	for _, tt := range []struct {
		name  string
		build func(h *claimHost)
		comes func(h *claimHost, ctx context.Context)
		want  Code
	}{
		{"claimed", func(*claimHost) {}, attach, LoopAttached},
		{"not to be claimed", func(h *claimHost) { h.guard.NoClaim = true }, attach, LoopAttached},
		{"cannot be claimed", func(h *claimHost) { h.Deny("/local/domain/32760/vm", "EACCES") }, attach, LoopAttached},
		{"no Xen", func(h *claimHost) { h.guard.Host.Store, h.guard.Host.Claims = nil, nil }, attach, LoopAttached},
		{"broken", func(h *claimHost) {
			h.guard.Watchers = []Watcher{alarming{Finding{Code: XenConnected, Relation: Same, Key: "web01.7"}}}
		}, func(_ *claimHost, ctx context.Context) { <-ctx.Done() }, XenConnected},
		{"broken, and not to be claimed", func(h *claimHost) {
			h.guard.NoClaim = true
			h.guard.Watchers = []Watcher{alarming{Finding{Code: XenConnected, Relation: Same, Key: "web01.7"}}}
		}, func(_ *claimHost, ctx context.Context) { <-ctx.Done() }, XenConnected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newClaimHost(t)
			h.guard.Watchers = nil
			tt.build(h)
			err := h.write(func(ctx context.Context, p *Permit) error {
				tt.comes(h, ctx)
				_, err := p.File()
				if err == nil {
					t.Error("the descriptor was given")
				}
				return err
			})
			var refused *RefusedError
			if !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if h.guard.Host.Store != nil {
				h.wantClaims(0)
			}
			h.wantMarks(0)
			for _, f := range h.noticed {
				if f.Code == HoldUnclaimed && tt.name != "cannot be claimed" {
					t.Errorf("said %q", f.sentence())
				}
			}
		})
	}
}

// alarming is a watcher that alarms at once.
type alarming struct{ Finding }

func (alarming) Name() string { return "alarming" }

func (w alarming) Watch(ctx context.Context, _ *Host, _ *Target, alarm func(Finding)) error {
	alarm(w.Finding)
	<-ctx.Done()
	return nil
}
