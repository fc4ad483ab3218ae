// Command only asks collectors of the guard, each alone, whether a target may be
// overwritten, and prints a line for each: its name, the decision, and the codes
// that refuse. It shows that no collector leans on another.
//
//	$ only /srv/images/web1.img xen holders dm
//	xen refuse xen.vbd.connected
//	holders refuse loop.attached
//	dm proceed
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/xenstore"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: only TARGET COLLECTOR...")
		os.Exit(64)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "only:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, names []string) error {
	host := &guard.Host{FS: hostfs.Live(), State: "/var/lib/imgward", Patience: 200 * time.Millisecond}
	store, err := xenstore.Dial(ctx, &xenstore.Config{Timeout: 3 * time.Second})
	switch {
	case err == nil:
		host.Store = store
		defer store.Close()
	case !errors.Is(err, fs.ErrNotExist):
		host.StoreErr = err
	}
	for _, c := range guard.Collectors() {
		if !slices.Contains(names, c.Name()) {
			continue
		}
		if err := alone(ctx, host, c, path); err != nil {
			return err
		}
	}
	return nil
}

func alone(ctx context.Context, host *guard.Host, c guard.Collector, path string) error {
	g := &guard.Guard{Host: host, Collectors: []guard.Collector{c}, Policy: guard.Policy{Operation: guard.Overwrite}}
	t, v, err := g.Check(ctx, path)
	if err != nil {
		return err
	}
	fmt.Print(c.Name(), " ", v.Decision)
	for _, code := range v.Codes() {
		fmt.Print(" ", code)
	}
	fmt.Println()
	return t.Close()
}
