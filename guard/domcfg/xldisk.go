package domcfg

import (
	"fmt"
	"slices"
	"strings"
)

// parseXLDisk reads one disk by xl-disk-configuration(5) (libxlu_disk_l.l in
// Xen's source). The errors are without a line. There may be none, one or several
// images in it: an empty drive has none, a COLO disk three.
func parseXLDisk(spec string) ([]Disk, error) {
	s := &diskSpec{rest: spec}
	for s.err == nil {
		s.rest = strings.TrimLeft(s.rest, " \t\n")
		if s.rest == "" {
			break
		}
		s.parameter()
	}
	if s.err == nil && !s.has(vdev) {
		s.err = fmt.Errorf("%q names no device inside the domain", spec)
	}
	return s.disks(), s.err
}

// The positional parameters, in their order.
const (
	target = iota
	format
	vdev
	access
	positions
)

type diskSpec struct {
	rest     string
	value    [positions]string
	given    [positions]bool
	prefixed bool // a prefix made the format's position vanish
	backend  string
	script   string
	more     []string // further images
	err      error
}

func (s *diskSpec) has(i int) bool { return s.given[i] }

func (s *diskSpec) fail(format string, args ...any) { s.err = fmt.Errorf(format, args...) }

// set gives a parameter its value. Only an empty one can be given twice.
func (s *diskSpec) set(i int, v string) {
	if s.given[i] && s.value[i] != "" && s.value[i] != v {
		s.fail("%q and %q at the same time", s.value[i], v)
		return
	}
	s.given[i], s.value[i] = true, v
}

// diskPrefixes are the deprecated prefixes, which may be stacked. Those that are
// formats set it, those that are scripts choose it, the others say nothing any
// more.
var (
	formatPrefixes = []string{"raw", "qcow", "qcow2", "vhd"}
	scriptPrefixes = []string{"iscsi", "nbd", "enbd", "drbd"}
	emptyPrefixes  = []string{"tapdisk", "tap", "tap2", "aio", "ioemu", "file", "phy"}
	diskFlags      = []string{"cdrom", "discard", "no-discard", "direct-io-safe", "colo", "no-colo", "trusted", "untrusted"}
	diskFormats    = []string{"", "raw", "qcow", "qcow2", "vhd", "qed", "empty"}
	diskAccesses   = []string{"", "r", "ro", "rw", "w"}
)

// parameter takes the next one off the rest.
func (s *diskSpec) parameter() {
	if v, ok := strings.CutPrefix(s.rest, "target="); ok {
		// It takes all that follows, commas included, but for the last.
		s.set(target, strings.TrimSuffix(v, ","))
		s.rest = ""
		return
	}
	if prefix, rest, ok := strings.Cut(s.rest, ":"); ok && s.prefix(prefix, rest) {
		s.rest = rest
		return
	}
	var p string
	p, s.rest, _ = strings.Cut(s.rest, ",")
	key, value, named := strings.Cut(p, "=")
	switch {
	case named && plain(key):
		s.key(key, value)
	case named:
		s.fail("%q is not understood; a name with = in it needs target=", p)
	case !slices.Contains(diskFlags, p):
		s.positional(p)
	}
}

// plain tells a parameter's name.
func plain(key string) bool {
	return key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// prefix takes "phy:" and the like off. Other words before a colon belong to what
// they stand in, unless a slash follows, which makes them prefixes nobody knows.
func (s *diskSpec) prefix(prefix, rest string) bool {
	switch {
	case slices.Contains(formatPrefixes, prefix):
		s.set(format, prefix)
	case slices.Contains(scriptPrefixes, prefix):
		s.script = "block-" + prefix
	case slices.Contains(emptyPrefixes, prefix):
	case plain(prefix) && strings.HasPrefix(rest, "/"):
		s.fail("the prefix %q is not known", prefix)
		return false
	default:
		return false
	}
	s.prefixed = true
	return true
}

func (s *diskSpec) key(key, v string) {
	switch key {
	case "format":
		s.setFormat(v)
	case "vdev":
		s.set(vdev, v)
	case "access":
		s.checkAccess(v)
	case "backend":
		s.backend = v
	case "script":
		s.script = v
	case "active-disk", "hidden-disk":
		s.more = append(s.more, v)
	case "devtype", "backendtype", "specification", "grant_usage", "colo-host", "colo-port", "colo-export":
	default:
		// One that was added to xl since. If it can be a name, it is taken for one.
		if strings.Contains(v, "/") {
			s.more = append(s.more, v)
		}
	}
}

func (s *diskSpec) setFormat(v string) {
	if !slices.Contains(diskFormats, v) {
		s.fail("%q is no format", v)
		return
	}
	if v == "" {
		v = "raw"
	}
	s.set(format, v)
}

func (s *diskSpec) checkAccess(v string) {
	if !slices.Contains(diskAccesses, v) {
		s.fail("%q is no access", v)
	}
}

// positional gives p to the first position that is still free.
func (s *diskSpec) positional(p string) {
	dev, kind, typed := cutLast(p, ":")
	typed = typed && (kind == "cdrom" || kind == "disk")
	switch {
	case !s.has(target):
		s.set(target, p)
	case !s.has(format) && !s.prefixed && s.value[target] == "" && typed:
		s.set(vdev, dev)
		s.set(format, "empty")
	case !s.has(format) && !s.prefixed:
		s.setFormat(p)
	case !s.has(vdev) && typed:
		s.set(vdev, dev)
	case !s.has(vdev):
		s.set(vdev, p)
	case !s.has(access):
		s.given[access] = true
		s.checkAccess(p)
	default:
		s.fail("%q is too much", p)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// disks gives what was understood.
func (s *diskSpec) disks() []Disk {
	d := Disk{Dev: s.value[vdev], Script: s.script}
	if !controlDomain(s.backend) {
		d.Backend = s.backend
	}
	var out []Disk
	for _, p := range append([]string{s.value[target]}, s.more...) {
		if p != "" && (s.value[format] != "empty" || p != s.value[target]) {
			d.Path = p
			out = append(out, d)
		}
	}
	return out
}

// parseXLShare reads one 9pfs share (xl.cfg(5), "p9"): KEY=VALUE words between
// commas, of which "path" is a directory of the host.
func parseXLShare(spec string) ([]Disk, error) {
	d := Disk{Kind: Directory}
	backend := ""
	for _, w := range strings.Split(spec, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(w), "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("%q is not understood", w)
		case key == "path":
			d.Path = value
		case key == "tag":
			d.Dev = value
		case key == "backend":
			backend = value
		}
	}
	if !controlDomain(backend) {
		d.Backend = backend
	}
	if d.Path == "" {
		return nil, fmt.Errorf("%q names no path", spec)
	}
	return []Disk{d}, nil
}

// parseXLSCSI reads one SCSI device that is given through, "pdev,vdev[,...]". By
// its address, H:C:T:L, it is not understood.
func parseXLSCSI(spec string) ([]Disk, error) {
	pdev, rest, _ := strings.Cut(strings.TrimSpace(spec), ",")
	pdev = strings.TrimSpace(strings.TrimPrefix(pdev, "p-dev="))
	if !strings.HasPrefix(pdev, "/") && strings.Contains(pdev, ":") {
		return nil, fmt.Errorf("the SCSI address %q is not understood", pdev)
	}
	if pdev == "" {
		return nil, fmt.Errorf("%q names no device", spec)
	}
	return []Disk{{Path: pdev, Dev: strings.TrimSpace(rest)}}, nil
}

// parseQEMUArg finds absolute names in an argument for QEMU.
func parseQEMUArg(arg string) ([]Disk, error) {
	var out []Disk
	for _, w := range strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(",=:\"{} ", r) }) {
		if strings.HasPrefix(w, "/") {
			out = append(out, Disk{Path: w})
		}
	}
	return out, nil
}
