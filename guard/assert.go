package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// down looks at whether the domain that the operator says the target belongs to
// is really down, which is what makes a note of its configuration and its saved
// state: it must not run, nor be about to run. Between two starts of a domain that
// reboots there is for some seconds nothing but the process that will start it,
// so that a process of xl's for it, or for a domain that cannot be told, or
// libvirt's daemon with a domain of this name, is a reason to look again after a
// pause. What is found has no domain of its own: it does not say whose the target
// is.
func (g *Guard) down(ctx context.Context, t *Target) []Finding {
	name := g.Policy.Domain
	first := lookForDomain(ctx, g.Host, t, name)
	if len(first.running) > 0 || !first.restarts {
		return first.running
	}
	select {
	case <-time.After(g.Host.Settle):
	case <-ctx.Done():
		return first.starting // the caller says why
	}
	second := lookForDomain(ctx, g.Host, t, name)
	if len(second.running) > 0 {
		return second.running
	}
	return second.starting
}

// A downLook is what one look found of a domain.
type downLook struct {
	running  []Finding
	starting []Finding // the processes that may be about to start it
	restarts bool      // whether there is any reason to look again
}

func lookForDomain(ctx context.Context, host *Host, t *Target, name string) (l downLook) {
	running, err := domainsNamed(ctx, host.Store, name)
	if err != nil {
		l.running = append(l.running, blind("xen", domainsDir, err))
	}
	inv := readInventory(ctx, host, t.ID)
	if file, ok := inv.libvirt[name]; ok {
		if file.live {
			running = append(running, quote(file.name))
		}
		l.restarts = l.restarts || libvirtRuns(host)
	}
	for _, source := range running {
		l.running = append(l.running, Finding{
			Code: DomainRunning, Subject: "domain " + quote(name), Key: name, Source: source,
			Detail: "exists, and --domain is for one that is shut down", Remedy: "shut " + quote(name) + " down",
		})
	}
	for _, x := range inv.starts {
		if x.domain != name && x.domain != "" {
			continue
		}
		l.restarts = true
		whom := "domain " + quote(name)
		if x.domain == "" {
			whom = "a domain that cannot be told"
		}
		subject, key := processName(host, x.pid)
		l.starting = append(l.starting, Finding{
			Code: DomainRestarting, Subject: subject, Key: key, Source: x.source,
			Detail: "is there to start " + whom + " again, which does not run at this moment",
			Remedy: "wait until " + quote(name) + " runs and shut it down, or stop " + subject,
		})
	}
	return l
}

// domainsNamed gives the nodes in xenstore that say that a domain of this name
// exists, or is being migrated here or away from here (xl_migrate.c). Without a
// store there are none.
func domainsNamed(ctx context.Context, store Store, name string) ([]string, error) {
	if store == nil {
		return nil, nil // what that means the collector xen says
	}
	ctx, stop := context.WithTimeout(ctx, storeLimit)
	defer stop()
	ls, err := store.ListAll(ctx, []string{domainsDir})
	if err == nil && ls[0].Err != nil && !errors.Is(ls[0].Err, fs.ErrNotExist) {
		err = ls[0].Err
	}
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, domid := range ls[0].Names {
		paths = append(paths, domainsDir+"/"+domid+"/name")
	}
	if len(paths) == 0 {
		return nil, nil
	}
	vs, err := store.ReadAll(ctx, paths)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, v := range vs {
		if v.Err != nil && !errors.Is(v.Err, fs.ErrNotExist) {
			return nil, v.Err
		}
		if rest, ok := strings.CutPrefix(string(v.Data), name); ok && v.Err == nil && slices.Contains([]string{"", "--incoming", "--migratedaway"}, rest) {
			out = append(out, fmt.Sprintf("%s = %s", v.Path, quote(string(v.Data))))
		}
	}
	return out, nil
}

// libvirtDaemons are what the daemons call themselves that start domains of the
// drivers that are looked at.
var libvirtDaemons = []string{"libvirtd", "virtxend", "virtqemud"}

// libvirtRuns reports whether a daemon of libvirt's runs. When that cannot be
// told, it does.
func libvirtRuns(host *Host) bool {
	pids, err := processes(host)
	return err != nil || slices.ContainsFunc(pids, func(pid string) bool {
		comm, err := attribute(host.FS, "/proc/"+pid+"/comm")
		return err == nil && slices.Contains(libvirtDaemons, comm)
	})
}
