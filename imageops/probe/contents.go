package probe

// Contents is what Look found. The zero value of a field means "none seen";
// whether everything could be looked at is in the error beside it.
type Contents struct {
	Size      int64  // of the image, in bytes
	Format    string // "raw", "qcow2", "qed", "vhd", "vhdx" or "vmdk", by magic number only
	Table     Table
	Signature Signature   // the image as a whole; the weightiest if there are several
	Others    []Signature // further signatures beside Signature, usually left over
	Zero      bool        // nothing but zeros in the first and last MiB
	Notes     []string    // facts that are odd but were understood, one short phrase each

	// Grounds are the parts of the image on which all this rests, Zero excepted:
	// with anything else replaced by zeros it would be found again. They are few
	// and small, but for ZFS and for the log of XFS, of which they have the marks.
	Grounds []Range
}

// A Range is a part of the image, in bytes.
type Range struct{ Off, Len int64 }

// A Table is a partition table.
type Table struct {
	Kind       string // "", "gpt" or "mbr"
	SectorSize int64  // in bytes, the unit in which the table counts: 512 or 4096
	Partitions []Partition
}

// A Partition is one used entry of a Table. Start and Size are what the table
// says; they may reach past the end of a truncated image.
type Partition struct {
	Number    int    // as the kernel numbers it, from 1
	Start     int64  // in bytes from the start of the image
	Size      int64  // in bytes
	Type      string // gpt: the type GUID in upper case; mbr: "0x83"
	Name      string // gpt only; untrusted text
	Signature Signature
	Others    []Signature
}

// A Signature is the mark of a file system, swap area or volume manager.
type Signature struct {
	Type  string // as blkid(8) names it, but "LUKS" and "zfs" for short; "" is none
	Label string // untrusted text, at most 256 bytes, perhaps not UTF-8
	UUID  string // letters, digits and dashes only, spelled as blkid does

	// Dirty says that whoever used the area last did not finish, or may not
	// have: "was not cleanly unmounted (needs_recovery)". It completes a sentence
	// whose subject is the area. Where it is empty the bytes look finished, or the
	// type leaves no mark: a mounted btrfs usually shows none, LUKS never does.
	Dirty string
}

// Member reports whether the area is a part of something that a machine puts
// together of areas: a volume group, an array, a pool, a mirror over the network.
// Whether that is running, or where, the bytes do not tell.
func (s Signature) Member() bool {
	switch s.Type {
	case "linux_raid_member", "LVM2_member", "zfs", "bcache", "drbd", "ceph_bluestore", "jbd":
		return true
	}
	return false
}

// A PartError names a part of the image that could not be looked at.
type PartError struct {
	Part   string // "bytes 65536 to 131071", "gpt", "partition 3"
	Err    error
	Unread bool // it was not read, rather than not understood
}

func (e *PartError) Error() string { return "look at " + e.Part + ": " + e.Err.Error() }

func (e *PartError) Unwrap() error { return e.Err }
