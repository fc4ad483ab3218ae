package guard

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// settledScan scans xenstore while watching the backend tree, and scans again
// when something changed meanwhile. There are no transactions: xenstored is
// single-threaded, and a transaction over a large host stops every domain start
// for seconds. Of how images are used it reads what more gives for a node.
func settledScan(ctx context.Context, store Store, more asking) (*storeScan, error) {
	return limited(ctx, store, func(ctx context.Context, store Store) (*storeScan, error) {
		return scanUntilQuiet(ctx, store, more)
	})
}

// oneScan scans xenstore once, for one who watches it and scans again when
// something changed.
func oneScan(ctx context.Context, store Store) (*storeScan, error) {
	self, err := ownDomid(ctx, store)
	if err != nil {
		return nil, err
	}
	return scanStore(ctx, store, self, everything)
}

// limited lets f ask for as long as a look may.
func limited[T any](ctx context.Context, store Store, f func(context.Context, Store) (T, error)) (T, error) {
	ctx, stop := context.WithTimeoutCause(ctx, storeLimit, fmt.Errorf("no answer within %s", storeLimit))
	defer stop()
	answer, err := f(ctx, store)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// storeLimit is what all questions to xenstore of one look may take together: a
// daemon that was stopped makes its clients wait for ever.
const storeLimit = 3 * time.Second

// maxScans is how often is looked until nothing changes meanwhile. A scan takes some
// milliseconds; domains that come and go, and other imgwards' claims, change the tree.
const maxScans = 10

func scanUntilQuiet(ctx context.Context, store Store, more asking) (*storeScan, error) {
	self, err := ownDomid(ctx, store)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var events atomic.Int64
	registered, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- store.Watch(ctx, "/local/domain/"+self+"/backend", func(string) {
			if events.Add(1) == 1 {
				close(registered)
			}
		})
	}()
	select {
	case <-registered:
	case err := <-ended:
		return nil, fmt.Errorf("watch the backend tree: %w", err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for range maxScans {
		before := events.Load()
		scan, err := scanStore(ctx, store, self, more)
		if err != nil {
			return nil, err
		}
		if events.Load() == before {
			return scan, nil
		}
	}
	return nil, fmt.Errorf("the backend tree changed during %d scans; try again", maxScans)
}
