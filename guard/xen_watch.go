package guard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"imgward/xenstore"
)

// xenWatcher is told by xenstore of every change to the disks that this domain
// serves and of every new domain, and looks at once whether a domain got the
// target. A toolstack writes a disk's node before Xen's hotplug script runs and
// before the block backend opens the device.
//
// Behind a closed gate nothing of the kind can happen to the target. That a domain
// tries is told by the gate.
type xenWatcher struct{}

func (xenWatcher) Name() string { return "xenstore" }

// Watch implements [Watcher]. A connection that is lost, or a daemon that answers
// no more, ends it.
func (xenWatcher) Watch(ctx context.Context, host *Host, t *Target, alarm func(Finding)) error {
	if host.Store == nil || t.held.protection() == byGate {
		<-ctx.Done()
		return nil
	}
	self, err := limited(ctx, host.Store, ownDomid)
	if err != nil {
		return err
	}
	var watches sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer watches.Wait()
	defer stop()
	changed, ended := newChanges("/local/domain/"+self+"/backend"), make(chan error, 2)
	for _, path := range []string{changed.backend, "@introduceDomain"} {
		watches.Go(func() {
			ended <- fmt.Errorf("watch %s: %w", path, host.Store.Watch(ctx, path, changed.note))
		})
	}
	look := func(r *rescan) {
		if f, broken := r.look(ctx, []Collector{xen{}}); broken {
			alarm(f)
			stop()
		}
	}
	// What changed is looked at beside a look at everything, which takes a while
	// on a host with many domains and is not done without a break.
	watches.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-changed.all:
				start := time.Now()
				look(t.held.rescan)
				select {
				case <-time.After(time.Since(start)):
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
		}
	})
	alive := time.NewTicker(rescanEvery)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-alive.C:
			_, err := limited(ctx, host.Store, ownDomid)
			if err != nil { // once more, because we may have been stopped meanwhile
				_, err = limited(ctx, host.Store, ownDomid)
			}
			if err != nil && ctx.Err() == nil {
				return err
			}
		case <-changed.some:
			disks := changed.take()
			look(t.held.rescan.glancing(func(ctx context.Context, store Store) (*storeScan, error) { return scanDisks(ctx, store, self, disks) }))
		}
	}
}

// changes are what xenstore told of and nobody has looked at yet.
type changes struct {
	backend   string        // the tree of the disks that this domain serves
	some, all chan struct{} // one place each: disks changed, or anything may have

	mu    sync.Mutex
	disks map[string]bool // directories of disks in which something changed
}

func newChanges(backend string) *changes {
	return &changes{backend: backend, some: make(chan struct{}, 1), all: make(chan struct{}, 1), disks: map[string]bool{}}
}

// note takes down an event, which is BACKEND/KIND/DOMAIN/DEVICE and what changed
// there. Anything else says that everything has to be looked at: the first event of
// a watch, one that stands for many that were lost, a new domain, a claim.
func (c *changes) note(path string) {
	ready := c.all
	rest, ok := strings.CutPrefix(path, c.backend+"/")
	if parts := strings.SplitN(rest, "/", 4); ok && len(parts) >= 3 && parts[1] != xenstore.ClaimDomid {
		c.mu.Lock()
		c.disks[c.backend+"/"+strings.Join(parts[:3], "/")] = true
		c.mu.Unlock()
		ready = c.some
	}
	select {
	case ready <- struct{}{}:
	default: // the look that is due will see this too
	}
}

// take gives the directories of the disks in which something changed since it was
// called before.
func (c *changes) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	disks := slices.Sorted(maps.Keys(c.disks))
	clear(c.disks)
	return disks
}
