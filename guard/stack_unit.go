package guard

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"syscall"

	"imgward/guard/hostfs"
)

// A disk that is reached in several ways is several disks to the kernel, unless
// it or device-mapper's multipath joins them. Their wwid is the same: what a SCSI
// disk says of itself in its page 0x83 (sysfs device/wwid, since Linux 3.15), or
// an NVMe namespace's own (wwid, since 4.5).
//
// It does not see two ways to a disk that has no wwid.

// oneOfAKind tells identifiers that are made to be the only one of their kind,
// and have more than zeros in them.
var oneOfAKind = pattern(`^(naa|eui|uuid|nvme|t10)\..*[1-9A-Za-z]`)

// readWWID reads the wwid of a disk whose directory in sysfs lists entries; it is
// empty where the disk has none.
func readWWID(root *hostfs.Root, dir string, entries []string) (string, error) {
	name := dir + "/wwid"
	if !slices.Contains(entries, "wwid") {
		if !slices.Contains(entries, "device") {
			return "", nil
		}
		name = dir + "/device/wwid"
	}
	id, err := attribute(root, name)
	// A disk that does not speak of itself answers ENXIO or EINVAL.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.EINVAL) {
		return "", nil
	}
	if id = strings.TrimSpace(id); err != nil || !oneOfAKind().MatchString(id) {
		return "", err
	}
	return id, nil
}

// join puts disks of one wwid and one size on a unit that they share.
func (s *stack) join(root *hostfs.Root, blind func(where string, err error)) {
	ways := map[string][]*device{}
	for _, d := range s.devices {
		if d.wwid != "" {
			ways[d.wwid] = append(ways[d.wwid], d)
		}
	}
	units := map[string]ID{}
	for wwid, ds := range ways {
		if len(ds) < 2 {
			continue
		}
		for _, d := range ds {
			size, err := attribute(root, "/sys/block/"+d.name+"/size")
			if err != nil {
				blind("/sys/block/"+d.name, err)
				continue
			}
			key := wwid + " " + size
			if _, ok := units[key]; !ok {
				units[key] = ID{Kind: kindUnit, Ino: uint64(len(units) + 1)}
			}
			d.under = append(d.under, layer{length: math.MaxInt64, lower: units[key], size: math.MaxInt64, linear: true})
		}
	}
}
