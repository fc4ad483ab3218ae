package guard

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"imgward/guard/hostfs"
)

// A reach says who can reach a disk, or where else that can be seen.
type reach uint8

const (
	unknownReach reach = iota
	onlyHere
	sharedReach
	nvmeReach // ask nvmeTransport
	scsiReach // ask scsiDriver
)

// buses says what an element of a disk's path in sysfs means. The first line
// that fits any element counts: what is shared comes before the buses that carry
// it, and a bus before the SCSI host that every disk behind it has.
var buses = []struct {
	elements string // forms between spaces: # is a number, and * anything, at the end
	where    reach
	what     string
}{
	{"session#", sharedReach, "an iSCSI disk"},                   // scsi_transport_iscsi
	{"rport-*", sharedReach, "a disk of a storage network"},      // scsi_transport_fc, scsi_transport_srp
	{"rbd rbd#", sharedReach, "a Ceph block device"},             // drivers/block/rbd.c
	{"nbd#", sharedReach, "a network block device"},              // nbd.c
	{"drbd#", sharedReach, "a DRBD device"},                      // drbd
	{"etherd!*", sharedReach, "an AoE disk"},                     // aoe
	{"expander-*", unknownReach, "a disk behind a SAS expander"}, // scsi_transport_sas
	{"vbd-#", unknownReach, "a disk that another domain serves"}, // xen-blkfront
	{"zd#", unknownReach, "a volume of a ZFS pool"},              // zvol
	{"ata# usb# virtio#", onlyHere, ""},                          // libata, usb, virtio
	{"mmc_host floppy.# ndbus#", onlyHere, ""},                   // mmc, floppy, nvdimm
	{"end_device-*", onlyHere, ""},                               // scsi_transport_sas, directly attached
	{"zram# ram# nullb# loop#", onlyHere, ""},                    // zram, brd, null_blk, a loop device on nothing
	{"nvme# nvme-subsys#", nvmeReach, ""},                        // nvme
	{"host#", scsiReach, ""},                                     // scsi_mid_low_api
}

// reachOf judges a disk by the text of its link in /sys/block.
func reachOf(link string) (reach, string) {
	elements := strings.Split(link, "/")
	for _, b := range buses {
		for form := range strings.FieldsSeq(b.elements) {
			if slices.ContainsFunc(elements, func(e string) bool { return hasForm(e, form) }) {
				return b.where, b.what
			}
		}
	}
	return unknownReach, "a disk of an unknown kind"
}

// hasForm tells whether an element of a path has a form, as buses has them.
func hasForm(element, form string) bool {
	if begin, ok := strings.CutSuffix(form, "*"); ok {
		return strings.HasPrefix(element, begin)
	}
	begin, ok := strings.CutSuffix(form, "#")
	rest, begins := strings.CutPrefix(element, begin)
	if !ok || !begins || rest == "" {
		return element == form
	}
	return strings.Trim(rest, "0123456789") == ""
}

// nvmeTransport judges an NVMe disk by the transport of its controller, or of
// all controllers of its subsystem where the kernel joins the ways to one disk
// (native multipathing).
func nvmeTransport(root *hostfs.Root, name string) (reach, string, error) {
	dir := "/sys/block/" + name + "/device"
	one, err := attribute(root, dir+"/transport")
	if err == nil {
		where, what := overTransport(one)
		return where, what, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return unknownReach, "", err
	}
	entries, err := root.ReadDir(dir)
	if err != nil {
		return unknownReach, "", err
	}
	where, what := unknownReach, "an NVMe disk without a controller"
	for _, e := range entries {
		if !hasForm(e, "nvme#") {
			continue
		}
		t, err := attribute(root, dir+"/"+e+"/transport")
		if err != nil {
			return unknownReach, "", err
		}
		if where, what = overTransport(t); where != onlyHere {
			break
		}
	}
	return where, what, nil
}

func overTransport(t string) (reach, string) {
	switch t {
	case "pcie":
		return onlyHere, ""
	case "tcp", "rdma", "fc":
		return sharedReach, "an NVMe disk over " + t
	}
	return unknownReach, "an NVMe disk over " + quote(t)
}

// ownDrivers are the drivers of controllers that make volumes out of disks of
// their own and show nothing of these, of directly attached SAS whose RAID
// volumes have no end device, and of disks in memory.
var ownDrivers = []string{"3w-9xxx", "3w-sas", "aacraid", "arcmsr", "megaraid_sas", "mpi3mr", "mpt2sas", "mpt3sas", "mptsas", "scsi_debug"}

// arrayDrivers put volumes of their own on channel 1, and those of an array
// outside the host on another (hpsa.h, smartpqi.h).
var arrayDrivers = []string{"hpsa", "smartpqi"}

var (
	scsiHost    = pattern(`(?:^|/)(host[0-9]+)/`)
	ownChannels = pattern(`/[0-9]+:1:[0-9]+:[0-9]+/block/`)
)

// scsiDriver judges a disk that hangs on nothing but its SCSI host by the driver
// of that.
func scsiDriver(root *hostfs.Root, link string) (reach, string, error) {
	m := scsiHost().FindStringSubmatch(link)
	if m == nil {
		return unknownReach, "a disk of an unknown SCSI host", nil
	}
	driver, err := attribute(root, "/sys/class/scsi_host/"+m[1]+"/proc_name")
	if err != nil {
		return unknownReach, "", err
	}
	if slices.Contains(ownDrivers, driver) || slices.Contains(arrayDrivers, driver) && ownChannels().MatchString(link) {
		return onlyHere, "", nil
	}
	return unknownReach, "a disk of the driver " + quote(driver), nil
}
