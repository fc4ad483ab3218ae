package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"imgward/guard/domcfg"
)

// An xlStart is a process of xl that started a domain and lives on beside it, to
// start it again when it reboots: between the two starts, for some seconds, it is
// all that there is of the domain (xl_vmcontrol.c, create_domain).
type xlStart struct {
	pid    string
	domain string // whose it is; "" when that cannot be told
	source string
}

// processes looks at xl's processes, for the configurations that they were given.
func (r *inventoryReader) processes() {
	pids, err := processes(r.host)
	if err != nil {
		r.blind("configs", "/proc", err)
		return
	}
	for _, pid := range pids {
		if r.ctx.Err() != nil {
			return
		}
		dir := "/proc/" + pid
		comm, err := attribute(r.host.FS, dir+"/comm")
		if err == nil && comm != "xl" {
			continue
		}
		var cmdline []byte
		if err == nil {
			cmdline, err = r.host.FS.ReadFile(dir + "/cmdline")
		}
		if err == nil && len(cmdline) > 0 && cmdline[len(cmdline)-1] != 0 {
			err = errors.New("the command line is cut off")
		}
		if err != nil {
			r.blind("configs", dir+"/cmdline", err) // which is none if the process has ended
			continue
		}
		if start, ok := domcfg.ParseXLCommand(string(cmdline)); ok {
			r.start(pid, start)
		}
	}
}

// start takes in what one process was given. What cannot be read counts only
// when the process's domain has no record of running, for then it may be about to
// be started.
func (r *inventoryReader) start(pid string, start domcfg.Start) {
	dir := "/proc/" + pid
	x := xlStart{pid: pid, domain: r.logged(dir), source: dir + "/cmdline: xl " + start.Command}
	d, err := r.given(dir, start)
	if x.domain == "" {
		x.domain = d.Name
	}
	r.out.starts = append(r.out.starts, x)
	if err != nil && (x.domain == "" || !r.live[x.domain]) {
		what := "a domain"
		if x.domain != "" {
			what = "domain " + quote(x.domain)
		}
		// Not as it is: that a file is not there must not pass for a process
		// that has ended.
		r.blind("configs", dir+"/cmdline", fmt.Errorf("xl may start %s at any moment, and what from is not known: %s", what, err.Error()))
	}
}

// restarting says of the processes of xl whose domain xenstore does not have, or not
// be read for, that they may be about to start it: with what was plugged in while it
// ran before, which only their memory knows then (xl_vmcontrol.c, create_domain,
// reload_domain_config). A domain that was renamed since xl started it counts as
// missing, since xl's log has its old name.
func (inv *inventory) restarting(host *Host, scan *storeScan) {
	there := scan.called()
	for _, x := range inv.starts {
		where := "/proc/" + x.pid + "/cmdline"
		if there[x.domain] || slices.ContainsFunc(inv.blind, func(b inventoryBlind) bool { return b.where == where }) {
			continue
		}
		if _, err := host.FS.ReadFile("/proc/" + x.pid + "/comm"); errors.Is(err, fs.ErrNotExist) {
			continue // ended with its domain
		}
		inv.blind = append(inv.blind, inventoryBlind{"configs", where, &passingError{
			fmt.Errorf("xl may start domain %s at any moment, with what was plugged in while it ran, which only xl knows", quote(x.domain)),
			"wait until domain " + quote(x.domain) + " runs",
		}})
	}
}

// called gives the names of all domains that exist, without what a name ends with
// while its domain comes from another host.
func (s *storeScan) called() map[string]bool {
	names := map[string]bool{}
	if s == nil {
		return names
	}
	for _, n := range s.names {
		names[strings.TrimSuffix(n, "--incoming")] = n != ""
	}
	return names
}

// logged gives the domain that a process of xl looks after, by the log that it
// writes: /var/log/xen/xl-NAME.log is its standard output (xl_utils.c,
// do_daemonize).
func (r *inventoryReader) logged(dir string) string {
	log, err := r.host.FS.Readlink(dir + "/fd/1")
	if err != nil {
		return ""
	}
	name, ok := strings.CutPrefix(path.Base(log), "xl-")
	end := strings.LastIndex(name, ".log") // one that was rotated has more behind it
	if !ok || end < 0 || path.Dir(log) != "/var/log/xen" {
		return ""
	}
	name = name[:end]
	return strings.TrimSuffix(name, "--incoming")
}

// given reads the configuration, or the saved domain, that a process of xl was
// given, and takes it into the inventory.
func (r *inventoryReader) given(dir string, start domcfg.Start) (domcfg.Domain, error) {
	if start.Config == "" && start.Saved == "" {
		return domcfg.Domain{}, errors.New("it came from another host")
	}
	if start.Config == "" {
		file, err := r.absolute(dir, start.Saved)
		if err != nil {
			return domcfg.Domain{}, err
		}
		d, err := r.saved(file)
		if len(d.Disks) > 0 {
			r.add(d, file, nil, disk{})
		}
		return d, err
	}
	file, text := dir+"/cmdline", []byte(nil)
	if start.Config != "/dev/null" {
		var err error
		if file, err = r.absolute(dir, start.Config); err != nil {
			return domcfg.Domain{}, err
		}
		if text, err = r.host.FS.ReadFile(file); err != nil {
			return domcfg.Domain{}, err
		}
	}
	d, err := domcfg.ParseXL(string(text), start.Extra...)
	r.add(d, file, nil, disk{})
	if err != nil {
		return d, fmt.Errorf("%s: %w", quote(file), err)
	}
	return d, nil
}

// saved reads a saved domain that a process was given, which is a regular file
// unless it was handed through something else.
func (r *inventoryReader) saved(file string) (domcfg.Domain, error) {
	st, err := r.host.FS.Stat(file)
	if err != nil {
		return domcfg.Domain{}, err
	}
	if id, ok := idOf(st); ok && id == r.target {
		return domcfg.Domain{}, fmt.Errorf("%s is the target itself", quote(file))
	}
	if err := r.notLeased(st); err != nil {
		return domcfg.Domain{}, err
	}
	return r.save(file)
}

// absolute resolves a name that a process was given against its working
// directory. That is "/" for xl once it runs in the background, so that many
// relative names lead nowhere then.
func (r *inventoryReader) absolute(dir, name string) (string, error) {
	if path.IsAbs(name) {
		return name, nil
	}
	cwd, err := r.host.FS.Readlink(dir + "/cwd")
	if err != nil {
		return "", err
	}
	return path.Join(cwd, name), nil
}
