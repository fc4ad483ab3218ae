package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"imgward/xenstore"
)

// A Released says what [Release] did.
type Released struct {
	Target     string           // in words
	Withdrawn  []xenstore.Claim // one for each device that was claimed
	Incomplete bool             // the target is recorded as incomplete all the same
}

// Release withdraws the claims that imgwards which have ended left on the device
// that path leads to, so that Xen starts domains on it again. It fails, with
// nothing withdrawn, when one that made a claim still runs.
func Release(ctx context.Context, host *Host, path string) (r Released, err error) {
	t, err := Resolve(ctx, host, path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if host.Claims == nil {
		return r, fmt.Errorf("release %s: %w", quote(path), errors.Join(errors.New("there is no xenstore"), host.StoreErr))
	}
	e := Examine(ctx, host, t, []Collector{marks{}})
	r.Target = t.String()
	r.Incomplete = slices.ContainsFunc(e.Findings, func(f Finding) bool { return f.Code == SelfIncomplete })
	if i := slices.IndexFunc(e.Findings, func(f Finding) bool { return f.Code == "blind.stack" }); i >= 0 {
		return r, fmt.Errorf("release %s: %s", quote(path), e.Findings[i].Detail)
	}
	err = claiming(ctx, host, func(ctx context.Context) error {
		there, err := readClaims(ctx, host.Store)
		if err != nil {
			return err
		}
		there = slices.DeleteFunc(there, func(c storeClaim) bool { return BlockID(c.Target) != t.ID && !e.view.orphan(c) })
		for _, c := range there {
			if c.lives(host) {
				if c.Namespace != pidNamespace(host) {
					return fmt.Errorf("%s may be writing to it: from here it cannot be seen that it has ended", c.who(host))
				}
				return fmt.Errorf("%s is writing to it", c.who(host))
			}
		}
		for _, c := range there {
			if err := host.Claims.Unclaim(ctx, c.ID); err != nil {
				return err
			}
			r.Withdrawn = append(r.Withdrawn, c.Claim)
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("release %s: %w", quote(path), err)
	}
	return r, nil
}
