package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

// The kinds of things that a statement can be made of.
const (
	thingMount  = "mount"
	thingVG     = "vg"
	thingDevice = "device"
)

// A Thing is storage that a statement can be made of: a mount, a volume group or
// a block device. Its identity is what its name can lose: another export at one
// mount point, or a volume group that was made again under its old name, has
// another.
type Thing struct {
	Kind     string // "mount", "vg" or "device"
	Name     string // a mount point, a volume group's name or a device's path
	Identity string
}

// thingsOf gives the things of a place that the target is on, those first that
// a statement is best made of. A loop device is as local as its file is.
func thingsOf(ctx context.Context, host *Host, s *stack, st storage) []Thing {
	switch {
	case st.mount != nil:
		if th, ok := mountThing(ctx, host, s, st.mount); ok {
			return []Thing{th}
		}
	case st.device.kind != "loop":
		var out []Thing
		if vg, uuid, ok := volumeGroup(st.device); ok {
			out = append(out, Thing{thingVG, vg, uuid})
		}
		if id := stableDevice(ctx, host, s, st.device.id, 0); id != "" {
			out = append(out, Thing{thingDevice, st.device.path(), id})
		}
		return out
	}
	return nil
}

// mountThing knows a file system on a block device by its uuid, which a copy of
// it has as well, and by the device; any other by what it is mounted from. It is
// false for one on a device without a uuid.
func mountThing(ctx context.Context, host *Host, s *stack, m *mount) (Thing, bool) {
	id := m.source
	if slices.Contains(deviceFS, m.fstype) || m.fstype == "btrfs" {
		dev := m.dev
		if unix.Major(dev) == 0 {
			if st, err := host.FS.Stat(m.source); err == nil {
				dev = st.Rdev
			}
		}
		id = filesystemUUID(host, dev)
		if on := stableDevice(ctx, host, s, BlockID(dev), 0); id != "" && on != "" {
			id += " on " + on
		}
	}
	return Thing{thingMount, m.point, m.fstype + " " + id}, id != ""
}

// volumeGroup reads the name and uuid of a logical volume's group out of its
// device-mapper name and uuid: "LVM-", the group's uuid and the volume's, of 32
// letters each; the names with a hyphen between them and their own hyphens
// doubled (lvm2, lib/misc/lvm-string.c and lib/activate/dev_manager.c).
func volumeGroup(d *device) (name, uuid string, ok bool) {
	uuids, ok := strings.CutPrefix(d.uuid, "LVM-")
	if !ok || len(uuids) < 64 {
		return "", "", false
	}
	for i := 0; i < len(d.alias); i++ {
		if d.alias[i] != '-' {
			continue
		}
		if i+1 < len(d.alias) && d.alias[i+1] == '-' {
			i++
			continue
		}
		return strings.ReplaceAll(d.alias[:i], "--", "-"), uuids[:32], i > 0
	}
	return "", "", false
}

// thingNamed finds the thing that a person means by a name.
func thingNamed(ctx context.Context, host *Host, name string) (Thing, error) {
	var blind error
	s := readStack(ctx, host.FS, func(_ string, err error) { blind = errors.Join(blind, err) })
	if !strings.Contains(name, "/") {
		for _, d := range s.devices {
			if vg, uuid, ok := volumeGroup(d); ok && vg == name {
				return Thing{thingVG, vg, uuid}, nil
			}
		}
		return Thing{}, errors.Join(errors.New("no active volume is of a volume group of this name, and it is no path"), blind)
	}
	full, err := fromRoot(name)
	if err != nil {
		return Thing{}, err
	}
	h, err := host.FS.Open(full)
	if err != nil {
		return Thing{}, reason(err)
	}
	defer h.Close()
	switch h.Stat.Type {
	case hostfs.BlockDevice:
		d := s.devices[BlockID(h.Stat.Rdev)]
		if d == nil {
			return Thing{}, errors.Join(errors.New("the device is not in /sys/block"), blind)
		}
		for _, th := range thingsOf(ctx, host, s, storage{device: d}) {
			if th.Kind == thingDevice {
				return th, nil
			}
		}
		return Thing{}, errors.New("the device has no uuid, wwid or serial number by which it could be known again")
	case hostfs.Directory:
		return mountNamed(ctx, host, s, h)
	}
	return Thing{}, fmt.Errorf("it is a %s, not a mount point, a block device or a volume group", h.Stat.Type)
}

func mountNamed(ctx context.Context, host *Host, s *stack, h *hostfs.Handle) (Thing, error) {
	b, err := host.FS.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Thing{}, err
	}
	table, err := parseMountinfo(string(b))
	if err != nil {
		return Thing{}, err
	}
	m := mountOf(table, h.Stat.Dev, h.Real)
	switch {
	case m == nil:
		return Thing{}, errors.New("it is on no mount of this namespace")
	case m.point != h.Real:
		return Thing{}, fmt.Errorf("it is no mount point; it is on %s", quote(m.point))
	}
	th, ok := mountThing(ctx, host, s, m)
	if !ok {
		return Thing{}, errors.New("the file system has no uuid by which it could be known again")
	}
	return th, nil
}
