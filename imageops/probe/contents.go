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
}

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
}

// A PartError names a part of the image that could not be looked at.
type PartError struct {
	Part string // "bytes 65536 to 131071", "gpt", "partition 3"
	Err  error
}

func (e *PartError) Error() string { return "look at " + e.Part + ": " + e.Err.Error() }

func (e *PartError) Unwrap() error { return e.Err }
