package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/xenstore/xenstoretest"
)

// A domain that comes at the same time as the claim is found by its node's params
// alone, and the claim is withdrawn.
func TestDomainComesWithClaim(t *testing.T) {
	for _, key := range []string{"params", "physical-device"} {
		h := newClaimHost(t)
		value := map[string]string{"params": h.dev, "physical-device": h.device()}[key]
		h.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "WRITE" && strings.HasSuffix(r.Path, "/physical-device") {
				h.SetAll(vbd7, key+"="+value, "mode=w", "state=1", "script=/etc/xen/scripts/block")
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
			h.SetAll("/local/domain/0/backend/"+kind+"/7/51712", keys...)
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
				if f := next(ctx, t, told); f.Code != HoldInForce || strings.Contains(f.Detail, "claim") == (tt.name == "not claimed") {
					t.Errorf("said %q", f.sentence())
				}
				tt.comes(h)
				if tt.want != "" && tt.then == nil {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				if f := next(ctx, t, told); f.Code != HoldDenied || f.Domain != "web01" {
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

// next waits for what is told while the hold lasts.
func next(ctx context.Context, t *testing.T, told <-chan Finding) Finding {
	t.Helper()
	select {
	case f := <-told:
		return f
	case <-ctx.Done():
		t.Errorf("nothing was told: %v", context.Cause(ctx))
		return Finding{}
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
