package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

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
