package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"imgward/guard/hostfs"
)

const sector = 512 // the unit of sysfs sizes and device-mapper tables, whatever the device's block size

// stackReads are the names that readStack looks at.
var stackReads = []string{
	"/sys/block", "/sys/block/*", "/sys/block/*/dev", "/sys/block/*/hidden", "/sys/block/*/slaves", "/sys/block/*/slaves/*/dev",
	"/sys/block/*/*/partition", "/sys/block/*/*/dev", "/sys/block/*/*/start", "/sys/block/*/*/size",
	"/sys/block/*/dm/name", "/sys/block/*/dm/uuid", "/sys/block/*/loop/backing_file", "/dev/loop*",
	"/sys/block/*/size", "/sys/block/*/wwid", "/sys/block/*/device/wwid", "dm-table", "loop-status",
}

// readStack reads the block layer of the host: /sys/block (sysfs-block ABI),
// device-mapper tables (dm-ioctl.h, DM_TABLE_STATUS) and what loop devices
// stand on (loop(4), LOOP_GET_STATUS64). What cannot be read is said through
// blind, and the rest is still returned.
func readStack(ctx context.Context, root *hostfs.Root, blind func(where string, err error)) *stack {
	s := &stack{devices: map[ID]*device{}}
	names, err := root.ReadDir("/sys/block")
	if err != nil {
		blind("/sys/block", err)
		return s
	}
	type answer struct {
		devices []*device
		err     error
	}
	answers := make([]answer, len(names))
	var next atomic.Int64
	crew(min(runtime.GOMAXPROCS(0), len(names)), func() {
		for i := int(next.Add(1)) - 1; i < len(names); i = int(next.Add(1)) - 1 {
			r := stackReader{ctx: ctx, root: root, dir: "/sys/block/" + names[i]}
			devs, err := r.read(names[i])
			// A device that went away while we looked is not there.
			if err != nil && r.gone() {
				err = nil
			}
			answers[i] = answer{devs, err}
		}
	})
	for i, a := range answers {
		if a.err != nil {
			blind("/sys/block/"+names[i], a.err)
		}
		for _, d := range a.devices {
			s.devices[d.id] = d
		}
	}
	s.join(root, blind)
	return s
}

type stackReader struct {
	ctx  context.Context
	root *hostfs.Root
	dir  string
}

func (r *stackReader) gone() bool {
	_, err := r.root.ReadDir(r.dir)
	return errors.Is(err, fs.ErrNotExist)
}

// read gives the device of r.dir and its partitions. It returns what it has
// together with all that went wrong.
func (r *stackReader) read(name string) ([]*device, error) {
	rdev, err := r.dev(r.dir)
	if err != nil {
		// The paths of a disk with several controllers are listed and have no
		// number: nothing can open them (GENHD_FL_HIDDEN).
		if hidden, herr := attribute(r.root, r.dir+"/hidden"); herr == nil && hidden == "1" && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	d := &device{id: BlockID(rdev), name: name, kind: "disk"}
	entries, err := r.root.ReadDir(r.dir)
	if err != nil {
		return []*device{d}, err
	}
	devs, errs := []*device{d}, []error(nil)
	var slaves []string
	if slices.Contains(entries, "slaves") {
		if slaves, err = r.root.ReadDir(r.dir + "/slaves"); err != nil {
			errs = append(errs, err)
		}
	}
	switch {
	case slices.Contains(entries, "dm"):
		d.kind = "dm"
		err = r.mapper(d)
	case slices.Contains(entries, "loop"):
		d.kind = "loop"
		err = r.loop(d)
	case slices.Contains(entries, "md"):
		d.kind = "md"
		err = nil
	default:
		d.wwid, err = readWWID(r.root, r.dir, entries)
	}
	errs = append(errs, err)
	for _, slave := range slaves {
		rdev, err := r.dev("/sys/block/" + name + "/slaves/" + slave)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if lower := BlockID(rdev); !slices.ContainsFunc(d.under, func(l layer) bool { return l.lower == lower }) {
			d.under = append(d.under, wholeLayer(lower))
		}
	}
	for _, e := range entries {
		if !strings.HasPrefix(e, name) {
			continue
		}
		p, err := r.partition(d, e)
		errs = append(errs, err)
		if p != nil {
			devs = append(devs, p)
		}
	}
	return devs, errors.Join(errs...)
}

// wholeLayer is a layer of which nothing is known but the lower device.
func wholeLayer(lower ID) layer {
	return layer{length: math.MaxInt64, lower: lower, size: math.MaxInt64}
}

func (r *stackReader) partition(disk *device, name string) (*device, error) {
	dir := r.dir + "/" + name
	if _, err := r.root.ReadFile(dir + "/partition"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // another directory that begins with the disk's name
	} else if err != nil {
		return nil, err
	}
	rdev, err := r.dev(dir)
	if err != nil {
		return nil, err
	}
	p := &device{id: BlockID(rdev), name: name, kind: "partition", under: []layer{wholeLayer(disk.id)}}
	start, err := r.number(dir + "/start")
	if err != nil {
		return p, err
	}
	size, err := r.number(dir + "/size")
	if err != nil {
		return p, err
	}
	p.under = []layer{{length: size * sector, lower: disk.id, off: start * sector, size: size * sector, linear: true}}
	return p, nil
}

func (r *stackReader) mapper(d *device) error {
	var err error
	if d.alias, err = attribute(r.root, r.dir+"/dm/name"); err != nil {
		return err
	}
	if d.uuid, err = attribute(r.root, r.dir+"/dm/uuid"); err != nil {
		return err
	}
	table, err := r.root.Ask(r.ctx, hostfs.DMTable, hostfs.FormatDev(d.id.Rdev))
	if err != nil {
		return err // the sysfs slaves still stand in as whole layers
	}
	d.under, err = parseDMTable(table)
	return err
}

func (r *stackReader) loop(d *device) error {
	answer, err := r.root.Ask(r.ctx, hostfs.LoopStatus, "/dev/"+d.name)
	if errors.Is(err, syscall.ENXIO) {
		return nil // detached while we looked
	}
	if err != nil {
		// Not allowed to ask: the name in sysfs can still show a use, though
		// never its absence.
		if file, ferr := attribute(r.root, r.dir+"/loop/backing_file"); ferr == nil {
			if st, serr := r.root.Stat(file); serr == nil {
				if id, ok := idOf(st); ok {
					d.under = []layer{wholeLayer(id)}
				}
			}
		}
		return err
	}
	l, ro, err := parseLoopStatus(answer)
	if err != nil {
		return fmt.Errorf("loop status %q: %w", d.name, err)
	}
	d.under, d.ro = []layer{l}, ro
	return nil
}

func (r *stackReader) dev(dir string) (uint64, error) {
	text, err := attribute(r.root, dir+"/dev")
	if err != nil {
		return 0, err
	}
	return hostfs.ParseDev(text)
}

func (r *stackReader) number(name string) (int64, error) {
	text, err := attribute(r.root, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/sector {
		return 0, fmt.Errorf("read %s: %q is not a count of sectors", quote(name), text)
	}
	return n, nil
}

// attribute reads a one-line file of sysfs or procfs without its newline. A
// file that does not end in one was cut off, which is an error.
func attribute(root *hostfs.Root, name string) (string, error) {
	b, err := root.ReadFile(name)
	if err != nil {
		return "", err
	}
	text, whole := strings.CutSuffix(string(b), "\n")
	if !whole && text != "" {
		return "", fmt.Errorf("read %s: cut off after %d bytes", quote(name), len(text))
	}
	return text, nil
}

// parseLoopStatus reads the answer to hostfs.LoopStatus.
func parseLoopStatus(answer string) (layer, bool, error) {
	f, err := fields(answer)
	if err != nil {
		return layer{}, false, err
	}
	dev, err1 := hostfs.ParseDev(f["dev"])
	rdev, err2 := hostfs.ParseDev(f["rdev"])
	ino, err3 := strconv.ParseUint(f["ino"], 10, 64)
	off, err4 := strconv.ParseInt(f["offset"], 10, 64)
	limit, err5 := strconv.ParseInt(f["sizelimit"], 10, 64)
	ro, err6 := strconv.ParseBool(f["ro"])
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return layer{}, false, err
	}
	if off < 0 || limit < 0 {
		return layer{}, false, fmt.Errorf("negative offset or limit in %q", answer)
	}
	lower := FileID(dev, ino)
	if rdev != 0 { // a loop device on a block device: dev and ino are those of a node
		lower = BlockID(rdev)
	}
	if limit == 0 {
		limit = math.MaxInt64
	}
	return layer{length: math.MaxInt64, lower: lower, off: off, size: limit, linear: limit == math.MaxInt64}, ro, nil
}

// fields splits "key=value key="quoted value"" as hostfs answers are written.
func fields(answer string) (map[string]string, error) {
	out := map[string]string{}
	for rest := strings.TrimSpace(answer); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, fmt.Errorf("no value in %q", rest)
		}
		if q, err := strconv.QuotedPrefix(after); err == nil {
			if out[key], err = strconv.Unquote(q); err != nil {
				return nil, err
			}
			rest = after[len(q):]
			continue
		}
		out[key], rest, _ = strings.Cut(after, " ")
	}
	return out, nil
}

// parseDMTable reads the lines of a device-mapper table (the kernel's
// Documentation/admin-guide/device-mapper). linear, striped and thin are
// understood to the byte; of any other target every device number in its
// parameters is taken as used from end to end.
func parseDMTable(table string) ([]layer, error) {
	var out []layer
	for line := range strings.Lines(table) {
		line, whole := strings.CutSuffix(line, "\n")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 3 || !whole {
			return out, fmt.Errorf("device-mapper table: malformed line %q", line)
		}
		start, err1 := strconv.ParseInt(f[0], 10, 64)
		length, err2 := strconv.ParseInt(f[1], 10, 64)
		if err1 != nil || err2 != nil || start < 0 || length < 0 || start > math.MaxInt64/sector || length > math.MaxInt64/sector {
			return out, fmt.Errorf("device-mapper table: bad range in %q", line)
		}
		out = append(out, dmTarget(layer{start: start * sector, length: length * sector}, f[2], f[3:])...)
	}
	return out, nil
}

func dmTarget(base layer, kind string, args []string) []layer {
	at := func(devArg, offArg string, size int64) (layer, bool) {
		rdev, err := hostfs.ParseDev(devArg)
		off, err2 := strconv.ParseInt(offArg, 10, 64)
		l := base
		l.lower, l.off, l.size = BlockID(rdev), off*sector, size
		return l, err == nil && err2 == nil && off >= 0 && off < math.MaxInt64/sector
	}
	switch {
	case kind == "linear" && len(args) == 2:
		if l, ok := at(args[0], args[1], base.length); ok {
			l.linear = true
			return []layer{l}
		}
	case kind == "striped" && len(args) > 2:
		n, err1 := strconv.Atoi(args[0])
		_, err2 := strconv.ParseUint(args[1], 10, 64) // the size of a chunk
		if err1 != nil || err2 != nil || n < 1 || len(args) != 2+2*n {
			break
		}
		var out []layer
		for i := range n {
			l, ok := at(args[2+2*i], args[3+2*i], base.length/int64(n)+sector)
			if !ok {
				return unknownTarget(base, args)
			}
			out = append(out, l)
		}
		return out
	case kind == "thin" && len(args) >= 2:
		rdev, err1 := hostfs.ParseDev(args[0])
		_, err2 := strconv.ParseUint(args[1], 10, 64) // the volume's number in the pool
		if err1 == nil && err2 == nil {
			l := base
			l.lower, l.size, l.slot = BlockID(rdev), math.MaxInt64, path.Join(args[0], args[1])
			return append([]layer{l}, unknownTarget(base, args[2:])...)
		}
	}
	return unknownTarget(base, args)
}

func unknownTarget(base layer, args []string) []layer {
	var out []layer
	for _, a := range args {
		if rdev, err := hostfs.ParseDev(a); err == nil {
			l := base
			l.lower, l.size = BlockID(rdev), math.MaxInt64
			out = append(out, l)
		}
	}
	return out
}
