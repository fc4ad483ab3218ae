package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"imgward/xenstore"
)

// A Claimer makes and removes claims in xenstore, by which Xen refuses block
// devices to domains. *xenstore.Conn is one.
type Claimer interface {
	Claim(ctx context.Context, c xenstore.Claim) (id uint32, err error)
	Unclaim(ctx context.Context, id uint32) error
}

const (
	// claimLimit is what making or removing the claims of one target may take.
	claimLimit = 5 * time.Second
	// hotplugLimit is how long Xen's hotplug scripts are waited for.
	hotplugLimit = time.Second
)

// hotplugDir is the directory of the locks of Xen's hotplug scripts.
const hotplugDir = "/var/run/xen-hotplug"

// claimed are the claims that were made for a target.
type claimed struct {
	made     []xenstore.Claim
	refusing bool // nobody came at the same time as they: Xen refuses who comes
}

// claimed gives the claims that we have made, and have not begun to withdraw.
func (h *held) claimed() []xenstore.Claim {
	if h == nil {
		return nil
	}
	if c := h.claims.Load(); c != nil {
		return c.made
	}
	return nil
}

// claimDevice has Xen itself refuse the target: it claims a device, and every device
// that shares bytes with it, because Xen compares numbers (see package xenstore).
// It does so under the lock of Xen's hotplug scripts, so that a domain either
// finds the claim or has written its own device number before it. Who was in the
// middle of starting all the same shows in a look behind the claim, with the
// "params" of its node. The error says why there is no claim; there is neither on
// a host without Xen.
//
// The claims are withdrawn when the target is whole, or was not written to. In
// between they stay: half an image must not boot. They do not keep out a domain
// whose disk is served by QEMU or attached by a script other than "block", and
// image files cannot be claimed.
func claimDevice(ctx context.Context, host *Host, t *Target) error {
	if t.ID.Kind != KindBlock {
		return nil
	}
	if host.Claims == nil {
		return host.StoreErr
	}
	return claiming(ctx, host, func(ctx context.Context) error {
		defer holdScripts(ctx, hotplugDir)()
		made, err := claimAll(ctx, host, t)
		if err == nil {
			t.held.claims.Store(&claimed{made: made})
		}
		return err
	})
}

// holdScripts takes the scripts' lock. Without it the look behind the claim has to
// find who came at the same time, and does; so a lock that is not to be had is
// waited for a little, and where there is no directory no script has run since
// the host started.
func holdScripts(ctx context.Context, dir string) (release func()) {
	if _, err := os.Stat(dir); err != nil {
		return func() {}
	}
	ctx, stop := context.WithTimeout(ctx, hotplugLimit)
	defer stop()
	release, err := lockFile(ctx, filepath.Join(dir, "block"))
	if err != nil {
		return func() {}
	}
	return release
}

// claiming runs f while no other imgward changes claims.
func claiming(ctx context.Context, host *Host, f func(ctx context.Context) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, claimLimit, fmt.Errorf("not done within %s", claimLimit))
	defer stop()
	if err := os.MkdirAll(host.State, 0o700); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, filepath.Join(host.State, "claims.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return f(ctx)
}

// claimAll claims the target and what overlaps it: all of it or nothing. What of it
// could not be undone is taken down for [withdraw].
func claimAll(ctx context.Context, host *Host, t *Target) ([]xenstore.Claim, error) {
	start, err := startTime(host, strconv.Itoa(t.held.pid))
	if err != nil {
		return nil, err
	}
	c := xenstore.Claim{Target: t.ID.Rdev, PID: t.held.pid, Namespace: pidNamespace(host), Boot: bootID(host), Operation: t.held.operation}
	if c.Start, err = strconv.ParseUint(start, 10, 64); err != nil {
		return nil, err
	}
	var made []xenstore.Claim
	for _, dev := range t.overlapping() {
		c.Device = dev
		if c.ID, err = host.Claims.Claim(ctx, c); err != nil {
			t.held.left = errors.Is(err, xenstore.ErrLeft)
			for _, m := range made {
				undoing := host.Claims.Unclaim(context.WithoutCancel(ctx), m.ID)
				t.held.left = t.held.left || undoing != nil
				err = errors.Join(err, undoing)
			}
			return nil, err
		}
		made = append(made, c)
	}
	return made, nil
}

// overlapping lists the device numbers of the target and of all that shares
// bytes with it.
func (t *Target) overlapping() []uint64 {
	devs := []uint64{t.ID.Rdev}
	for id := range t.stack.devices {
		if id != t.ID && t.Relate(id) != Unrelated {
			devs = append(devs, id.Rdev)
		}
	}
	slices.Sort(devs)
	return devs
}

// withdraw removes our claims, if we made any or may have. When the target was made
// whole, the claims of those who left it incomplete before us go with them, and then
// also where we made none, as far as there is a xenstore that says so.
func withdraw(ctx context.Context, host *Host, t *Target, whole bool) error {
	h := t.held
	var made []xenstore.Claim
	if ours := h.claims.Swap(nil); ours != nil {
		made = ours.made
	} else if !h.left && (!whole || t.ID.Kind != KindBlock || host.Claims == nil) {
		return nil
	}
	err := claiming(ctx, host, func(ctx context.Context) error {
		there, err := readClaims(ctx, host.Store)
		if err != nil && made == nil && !h.left {
			return nil
		}
		sure := err == nil
		ours := func(c storeClaim) bool {
			return slices.Contains(made, c.Claim) || h.left && c.Target == t.ID.Rdev && (c.broken != nil || c.PID == h.pid && c.Namespace == pidNamespace(host))
		}
		left := func(c storeClaim) bool {
			return sure && whole && (c.Target == t.ID.Rdev || t.orphan(c)) && !c.lives(host)
		}
		for _, c := range there {
			if ours(c) || left(c) {
				err = errors.Join(err, host.Claims.Unclaim(ctx, c.ID))
			}
		}
		if h.left && len(there) == 0 {
			err = errors.Join(err, host.Claims.Unclaim(ctx, 1)) // is not there, but what all have in common may be
		}
		return err
	})
	if err == nil {
		return nil
	}
	err = &LeftError{t.Path, err}
	if !whole && h.notice != nil {
		// What else is to be said may hide it, as a refusal does.
		h.notice(Finding{Code: ClaimLeft, Relation: Same, Subject: "imgward", Key: "claim", Detail: "could not " + err.Error(), Source: "xenstore"})
		return nil
	}
	return err
}

// A LeftError says that a claim could not be withdrawn, so that Xen refuses the
// target to every domain until somebody does it.
type LeftError struct {
	Path string
	Err  error
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("withdraw the claim in xenstore, by which Xen refuses %s to every domain (%q does it): %v", quote(e.Path), "imgward release "+shellWord(e.Path), e.Err)
}

func (e *LeftError) Unwrap() error { return e.Err }

// unclaimedFinding says that Xen was not told.
func unclaimedFinding(err error) Finding {
	return Finding{
		Code: HoldUnclaimed, Relation: Same, Subject: "Xen", Key: "xen", Source: "xenstore",
		Detail: fmt.Sprintf("would not refuse it to a domain that is started meanwhile: no claim could be made in xenstore: %v", err),
	}
}
