package guard

// A Code names a kind of finding. Codes are stable: scripts, overrides and the
// manual use them.
type Code string

// Severity is what a finding means for the operation that was asked for.
type Severity uint8

const (
	Note   Severity = iota // worth saying, stops nothing
	Unsure                 // could not look, or two sources disagree: refuses unless overridden
	Busy                   // in use: refuses unless overridden
	Never                  // in use: refuses, and nothing overrides it
)

// String is the word at the head of a line of an explanation. A Never is busy
// to the reader: that it cannot be overridden shows where overrides are offered.
func (s Severity) String() string {
	return [...]string{"note", "unsure", "busy", "busy"}[s]
}

const (
	XenConnected Code = "xen.vbd.connected"
	XenReadOnly  Code = "xen.vbd.readonly"
	XenNamed     Code = "xen.vbd.named"
	XenClosing   Code = "xen.vbd.closing"
	XenStale     Code = "xen.vbd.stale"
	XenFailed    Code = "xen.vbd.failed"
	XenSysfs     Code = "xen.sysfs.vbd"
	XenDisagree  Code = "xen.disagree"
	XenForeign   Code = "xen.foreign"
	XenSharedDir Code = "xen.shared.dir"

	ConfigNamed Code = "config.named"
	SavedNamed  Code = "saved.named"

	LoopAttached Code = "loop.attached"
	LoopReadOnly Code = "loop.readonly"
	HolderDM     Code = "holder.dm"
	HolderMD     Code = "holder.md"
	HolderOther  Code = "holder.other"
	DMOpen       Code = "dm.open"
	DMFree       Code = "dm.free"

	ExportBlock Code = "export.block"

	ManagedXAPI    Code = "managed.xapi"
	ManagedQubes   Code = "managed.qubes"
	ManagedProxmox Code = "managed.proxmox"

	NearName Code = "near.name"

	HostRoot   Code = "host.root"
	MountRW    Code = "mount.rw"
	MountRO    Code = "mount.ro"
	SwapActive Code = "swap.active"

	FDWrite Code = "fd.write"
	FDRead  Code = "fd.read"
	FDVM    Code = "fd.vm"

	LeaseFree    Code = "lease.free"
	LeaseReaders Code = "lease.readers"
	LeaseRefused Code = "lease.refused"
	LeaseTaken   Code = "lease.taken"
	FileShut     Code = "file.shut"
	LockWrite    Code = "lock.write"
	LockRead     Code = "lock.read"
	LockGuest    Code = "lock.guest"
	ExclFree     Code = "excl.free"
	ExclHeld     Code = "excl.held"
	FlockHeld    Code = "flock.held"

	LocalityShared   Code = "locality.shared"
	LocalityUnknown  Code = "locality.unknown"
	LocalityExported Code = "locality.exported"

	ContentDirty  Code = "content.dirty"
	ContentMember Code = "content.member"

	SelfOverlap    Code = "self.overlap"
	SelfBinary     Code = "self.binary"
	SelfWriting    Code = "self.writing"
	SelfIncomplete Code = "self.incomplete"
	SelfState      Code = "self.state"
	ClaimLeft      Code = "claim.left"
	DeviceReadOnly Code = "device.readonly"

	ChainLive   Code = "chain.live"
	ChainParent Code = "chain.parent"

	SourceUsed Code = "source.used"

	DomainUnproven Code = "domain.unproven"
	DomainOther    Code = "domain.other"

	DomainRunning    Code = "domain.running"
	DomainRestarting Code = "domain.restarting"

	HoldInForce Code = "hold.inforce"
	HoldLease   Code = "hold.lease"
	HoldDenied  Code = "hold.denied"
	HoldRenamed Code = "hold.renamed"
	HoldWatch   Code = "hold.watch"

	HoldUnclaimed Code = "hold.unclaimed"
)

// blindCode is the code under which a collector says that it could not look.
func blindCode(collector string) Code { return Code("blind." + collector) }

// witnesses: evidence that proves more than another collector can see. A write
// lease is granted only when nothing else has the file open (fcntl(2), "Leases"),
// mappings included, but for those of overlayfs (layered);
// the device-mapper count counts every opener; a mount claims its device, so an
// exclusive open proves that there is none in any namespace.
var witnesses = map[Code][]Code{
	LeaseFree: {"blind.procfd", "blind.mounts"},
	DMFree:    {"blind.procfd", "blind.mounts", "blind.locks"},
	ExclFree:  {"blind.mounts"},
}

// A rule is one row of the table of severities.
type rule struct {
	Code     Code
	Write    Severity // as the target of copy, clone and overwrite
	Source   Severity // as a source; Busy there is reported as source.used, with its subject
	Override bool     // --override CODE:SUBJECT makes it a note
	AtRest   bool     // --domain NAME makes it a note when it is NAME's
	Text     string   // what explain says
}

// rules is the one table of severities; the manual prints it. A code that is
// not in it refuses.
var rules = []rule{
	{XenConnected, Never, Busy, false, false, `A domain has the target as a disk, for reading and writing. xenstore's backend node of this host says so, and the domain exists. A paused domain, one that has shut down but was not destroyed, and one that is being migrated or restarted count as well: their memory holds a mounted file system. Writing underneath destroys it, often unnoticed for hours. Shut the domain down or detach the disk. Nothing overrides this.`},
	{XenReadOnly, Never, Note, false, false, `A domain has the target as a read-only disk. Writing underneath changes files that it has cached and believes constant. Shut the domain down or detach the disk. Nothing overrides this. As the source of a copy such an image is safe.`},
	{XenNamed, Never, Busy, false, false, `A domain's node in xenstore names this very path, but the domain runs from something else: somebody moved or deleted the image and put another file in its place, so the domain is on the old one, which has no name any more. What lies under the name now belongs to that domain all the same: it is what the domain would find after a restart, or what was prepared for it. Shut the domain down first.`},
	{XenClosing, Never, Busy, false, false, `A domain's disk is being closed at this moment. Wait a quarter of a minute and try again.`},
	{XenStale, Busy, Busy, true, true, `xenstore has a backend node for the target, but the domain that it names does not exist, or is not connected as far as the kernel knows, whose list of backends does not have it. That is what a killed toolstack leaves behind. Make sure with "xl list" that the domain is gone, remove its loop device and node, or override this finding by name.`},
	{XenFailed, Busy, Busy, true, false, `xenstore has a backend node for the target whose attachment failed: the hotplug script wrote "error" or "busy" and no device was opened. The domain may try again. Detach it with "xl block-detach", or override this finding by name.`},
	{XenSysfs, Never, Busy, false, false, `The kernel's own list of what the Xen block backend has open contains the target. It holds the device whatever xenstore says, until the backend is removed. Nothing overrides this.`},
	{XenDisagree, Unsure, Unsure, true, false, `xenstore and the kernel's list of open Xen backends say different things about the same disk. Both are shown. Find out which one is right before anything is written.`},
	{XenForeign, Note, Note, false, false, `Some disks are served by another domain (a driver domain). Paths and device numbers in their nodes belong to that domain's system and say nothing about this one's; they were not compared. If the driver domain has the same physical storage, check there as well.`},
	{XenSharedDir, Busy, Note, true, false, `The target lies in a directory that a living domain has as a file system of its own (9pfs, virtiofs). The domain may read and write any file in there, this one included, and nothing tells which it has open. Shut the domain down, or override this finding by name when you know that it does not use the file.`},

	{ConfigNamed, Busy, Note, true, true, `A domain is configured to have the target, whether it runs now or not. One that is shut down has its disk there; one that is rebooting is nowhere to be seen for some seconds but in its configuration, and opens the target again at any moment. If the domain is shut down and it is its disk that is meant, say so with --domain NAME: then it is looked at whether the domain really is down, and a path that is anybody else's is refused. Or override this finding by name.`},
	{SavedNamed, Busy, Note, true, true, `A domain was saved to a file, and its memory has the file systems on the target mounted. Nothing holds the target meanwhile, but when the domain is resumed, it goes on with what it remembers and destroys what was written. Restore the domain and shut it down, or give its saved state up by removing the file, or say with --domain NAME that this domain is meant.`},

	{LoopAttached, Never, Busy, false, false, `A loop device stands on the target, for reading and writing. This is how Xen attaches image files: no process has them open. If no domain uses the loop device, detach it with "losetup -d".`},
	{LoopReadOnly, Busy, Note, true, false, `A read-only loop device stands on the target, and whoever reads it would see the contents change. Detach it with "losetup -d", or override this finding by name.`},
	{HolderDM, Never, Busy, false, false, `A device-mapper device (a logical volume, a crypt or multipath map, a partition map) stands on the target. Writing underneath destroys what is on it. Deactivate it first ("lvchange -an", "cryptsetup close", "kpartx -d").`},
	{HolderMD, Never, Busy, false, false, `The target is a member of an md array that is running. Stop the array first.`},
	{HolderOther, Never, Busy, false, false, `Another block device stands on the target. Stop it first.`},
	{DMOpen, Never, Busy, false, false, `The device-mapper count says that somebody has the target open. It counts every opener, the Xen block backend and the kernel itself included, and was still there after a few looks, so it is no passing probe. If no other line says who it is, look with "dmsetup info", "lsof" and "xl list".`},
	{DMFree, Note, Note, false, false, `The device-mapper count says that nobody at all has the target open.`},

	{ExportBlock, Never, Busy, false, false, `The kernel of this host serves the target to others as a disk: over iSCSI, Fibre Channel or another transport of LIO or SCST, over NVMe over fabrics, or as a USB gadget. Somebody's mounted file system may be on it. No process has it open, and most of these servers do not claim it, so hardly anything else shows it. Take the export away first. Nothing overrides this.`},

	{ManagedXAPI, Busy, Note, true, false, `The target belongs to a storage repository of XenServer or XCP-ng. Its tool stack keeps its own books of what is in there: chains of images, which host has which of them open. Its garbage collector rewrites and deletes images while no machine runs, and another host of the pool may have this one open. Import through it, with "xe vdi-import", or override this finding by name.`},
	{ManagedQubes, Busy, Note, true, false, `The target is a volume of Qubes OS. A running qube works on a snapshot of it, so that the volume itself looks idle, and what is written to it is lost or mixed when the qube shuts down. Import with "qvm-volume import", or override this finding by name.`},
	{ManagedProxmox, Busy, Note, true, false, `The target is a volume of a virtual machine or container of Proxmox VE, which may run on another node of the cluster or have snapshots that Proxmox keeps books of. Import with "qm importdisk", or override this finding by name.`},

	{NearName, Note, Note, false, false, `The name of the target is one slip of the finger away from the name of a disk that a living domain uses. Nothing more is known against it. Read the name again; with "--domain NAME" you can say whose disk you mean.`},

	{HostRoot, Never, Busy, false, false, `The host's own root file system is on the target. Nothing overrides this.`},
	{MountRW, Never, Busy, false, false, `A file system on the target is mounted for writing, in some mount namespace of this host. Unmount it. Nothing overrides this.`},
	{MountRO, Busy, Note, true, false, `A file system on the target is mounted read-only. Programs that run from it would crash or read nonsense. Unmount it, or override this finding by name.`},
	{SwapActive, Never, Busy, false, false, `The host swaps to the target. Writing there is writing into the memory of running programs. Use "swapoff". Nothing overrides this.`},

	{FDWrite, Never, Busy, false, false, `A process has the target open for writing, or has it mapped writable. Stop the process.`},
	{FDRead, Busy, Note, true, false, `A process has the target open for reading: a backup, a conversion, a virtual machine that uses it as a read-only base. Wait for it or stop it, or override this finding by name if what it reads does not matter.`},
	{FDVM, Never, Note, false, false, `The process of a running virtual machine, or one that serves its disks (QEMU, tapdisk, Firecracker, nbdkit, whoever has a machine of KVM's), has the target open for reading: as a read-only disk, or as the base image under the machine's own. Writing underneath changes the machine's disk. Shut the machine down. Nothing overrides this.`},

	{LeaseFree, Note, Note, false, false, `The kernel granted a write lease on the file (fcntl(2)), which it does only when nothing else has it open: no process in any namespace or container, no loop device, no other part of the kernel.`},
	{LeaseReaders, Busy, Note, true, false, `The kernel refused a write lease on the file and granted a read lease: somebody has it open, and only for reading. If no other line says who it is, it is a part of the kernel or a descriptor in flight.`},
	{LeaseRefused, Never, Busy, false, false, `The kernel refused a lease on the file because somebody has it open for writing. If no other line says who it is, it is a part of the kernel (a loop device in another namespace, an export) or a descriptor in flight.`},
	{LeaseTaken, Never, Busy, false, false, `Another process holds a lease on the file, as file servers and imgward itself do while they work on it. Wait for it.`},
	{FileShut, Never, Never, false, false, `Nobody may open the file: another imgward writes to it at this moment, or it is swapped to. Wait for it.`},
	{LockWrite, Never, Busy, false, false, `A program holds a byte-range lock (fcntl(2)) on the target that says that it writes to it. QEMU takes such locks for the disks of a running machine, except those of a Xen domain's own drivers; qemu-img and libguestfs take them while they work. Shut the machine down or wait for the program.`},
	{LockRead, Busy, Note, true, false, `A program holds a byte-range lock (fcntl(2)) on the target that says that it reads it: QEMU does for a read-only disk and for the base image under a machine's own. Shut the machine down, or override this finding by name.`},
	{LockGuest, Never, Busy, false, false, `libvirt's lock manager (virtlockd) holds the lock of a running domain on the target. Shut the domain down. Nothing overrides this.`},
	{ExclFree, Note, Note, false, false, `The kernel granted an exclusive open of the device, which it does only when no mount, no swap, no md, device-mapper or other claimant has it. Domains and plain openers do not show here.`},
	{ExclHeld, Never, Busy, false, false, `The kernel refused an exclusive open of the device: it, its disk or one of its partitions is claimed by a mount, by swap, by md, device-mapper, bcache, btrfs, ZFS, drbd or the like. If no other line says by which, look with "lsblk" and "dmsetup deps".`},
	{FlockHeld, Busy, Note, true, false, `Another program holds a lock (flock(2)) on the device node: udev while it probes, or a tool that formats or partitions. Wait for it.`},

	{LocalityShared, Unsure, Note, true, false, `The target is on storage that other hosts can use as well: a network file system, a disk of a storage network, a network block device. What they do there cannot be seen from here, and Xen takes no locks. Make sure that no other host uses the target. If this storage is this host's alone, say so once with "imgward trust-local", which takes the mount point, the device or the volume group that the refusal names; such a statement is void as soon as something else bears the name.`},
	{LocalityUnknown, Unsure, Note, true, false, `The target is on storage of a kind of which it is not known whether other hosts can use it. If they cannot, say so once with "imgward trust-local".`},
	{LocalityExported, Unsure, Note, true, false, `This host exports a directory with the target in it over NFS, or is set up to, so a domain of another host may have it as a disk. End the export, or make sure that no other host uses the target.`},

	{ContentDirty, Unsure, Note, true, true, `What is on the target says that whoever used it last did not finish: a file system was not unmounted, an array not stopped, a machine hibernated. That is what the disk of a domain looks like that was saved, or was killed, or runs on another host that shares the storage; and what a copy of a running disk looks like. Find out whose it is. If nobody wants it any more, override this finding by the name that it shows; --domain does so for the disk of a domain that is at rest.`},
	{ContentMember, Unsure, Note, true, true, `The target is a part of something that a machine puts together of disks or of volumes: a volume group of LVM, an array, a pool, a mirror over the network. On this host nothing stands on it, or another line says what; whether it is in use inside a domain or on another host, its bytes do not tell. Find out whose it is, and override this finding by the name that it shows; --domain does so for the disk of a domain that is at rest.`},

	{SelfOverlap, Never, Never, false, false, `Source and target are the same thing, or one lies on the other. Copying one onto the other would read what was just written.`},
	{SelfBinary, Never, Note, false, false, `The target is the program that is running.`},
	{SelfWriting, Never, Never, false, false, `Another imgward is writing to the target, or to something over or under it, at this moment. Wait for it.`},
	{SelfIncomplete, Note, Never, false, false, `An earlier imgward began to write here and did not finish, so what is on it is half one image and half another, and its first and last MiB are zero so that it does not boot. Overwriting it is the way to repair it. It cannot be used as a source.`},
	{SelfState, Never, Note, false, false, `The target holds imgward's own records of unfinished writes. Nothing overrides this.`},
	{ClaimLeft, Note, Busy, false, false, `An earlier imgward that was writing to the target ended in the middle, and left its claim in xenstore. By such a claim Xen's own hotplug script refuses the device to every domain, while it is written and until it is whole: half an image must not boot. Overwriting it with a whole image is the way to repair it, and withdraws the claim; "imgward release TARGET" withdraws it without that, and does so only when the imgward that made it has ended. As a source it may be incomplete.`},
	{DeviceReadOnly, Never, Note, false, false, `The kernel has the device set read-only. If that is a mistake, "blockdev --setrw" changes it.`},

	{ChainLive, Never, Note, false, false, `A running domain has an image that stands on the target: an overlay whose backing file or parent it is, perhaps through other images between, or an image that has its data in it. What the domain did not write itself it reads from the target, so writing there changes its disk under it. Shut the domain down; the image stands on the target then as before. Nothing overrides this. As the source of a copy the target is safe.`},
	{ChainParent, Busy, Note, true, false, `An image stands on the target: an overlay whose backing file or parent it is, perhaps through other images between, or an image that has its data in it. No running domain has it, but with other bytes under it, it is destroyed as surely, and nobody notices before it is started again. Remove the image, give it a base of its own, as "qemu-img rebase -b ''" does for qcow2, or override this finding by name. As the source of a copy the target is safe.`},

	{SourceUsed, Busy, Busy, true, false, `The source of the copy is in use for writing, or may be: what was read first and what was read last would not belong together, and the copy would be torn, like a disk after a power failure or worse. Shut its user down, or copy a snapshot; or override this finding by name if a torn copy is good enough.`},

	{DomainUnproven, Never, Never, false, false, `--domain said whose disk the target is, and nothing on this host says so. Perhaps the path is mistyped.`},
	{DomainOther, Never, Never, false, false, `--domain said whose disk the target is, and this host says that it belongs to somebody else.`},

	{DomainRunning, Never, Never, false, false, `--domain said whose disk the target is, and this domain exists: it runs, is paused, has shut down and was not destroyed, or is being migrated. --domain is for a domain that is shut down. Shut it down first. Nothing overrides this.`},
	{DomainRestarting, Never, Never, false, false, `--domain said whose disk the target is. This domain does not run at this moment, but the process that starts it again when it reboots is still there, also after a pause of some seconds. Between two starts such a process is all that there is of a domain. Wait until the domain is back and shut it down, or stop the process if it is stuck. Nothing overrides this.`},

	{HoldInForce, Note, Note, false, false, `How the target is protected while it is written. The best that there is for a file is that nobody else can open it (fanotify(7), which needs root); where that may not or cannot be done, a lease makes every opener wait and stops the writing; without leases, and for a device, which the kernel lets be opened by whoever does not ask for it alone, it is looked again and again who came, and the writing stops when somebody did.`},
	{HoldLease, Never, Never, false, false, `While imgward was writing, somebody opened the file. The kernel makes such an opener wait for some seconds; writing was stopped in that time.`},
	{HoldDenied, Note, Note, false, false, `While imgward was writing, another program tried to open the file, or a domain to attach the device, and was refused, as everybody is until the writing ends. It may try again then; a disk whose "xl block-attach" was refused has to be detached before.`},
	{HoldRenamed, Never, Never, false, false, `While imgward was writing, the name of the target was changed to lead to something else. What was written went to the file or device that was checked, not to what bears the name now.`},
	{HoldWatch, Never, Never, false, false, `A watch that has to run while imgward writes ended, so nothing would have told of a new user. Writing was stopped.`},

	{HoldUnclaimed, Note, Note, false, false, `While a block device is written, a claim in xenstore makes Xen's own hotplug script refuse it to every domain. It could not be made, because xenstore does not answer or does not let this program write, so that nothing but care keeps somebody from starting a domain on the device meanwhile.`},

	{"blind.stack", Unsure, Unsure, true, false, `A part of the block layer could not be read, so it is not known what stands on the target or under it.`},
	{"blind.xen", Unsure, Unsure, true, false, `xenstore or the kernel's list of Xen backends could not be read, wholly or in part, so it is not known whether a domain has the target. On a Xen host that is never taken for "no". Start or repair xenstored, run as root.`},
	{"blind.configs", Unsure, Unsure, true, false, `A description of a domain could not be read or is not understood, so it is not known which images it names. A configuration file with Python code in it is such a one: nothing is executed here. Where a line is named, that is where it stops being understood; what stands before it was looked at. Look at the file yourself and override this finding by the file's name, or mend the file. Of a domain that reboots only the process of xl that starts it again knows which disks were plugged in while it ran: wait until the domain runs.`},
	{"blind.saved", Unsure, Unsure, true, false, `A saved domain could not be read, so it is not known whose images its memory is about. Look which domain it is ("xl restore" tries, "file" may say), remove it if it is none, or override this finding by the file's name.`},
	{"blind.holders", Unsure, Unsure, true, false, `It could not be read what stands on the target.`},
	{"blind.exports", Unsure, Unsure, true, false, `The kernel's lists of what this host serves to others as a disk could not be read, so it is not known whether the target is among that.`},
	{"blind.managed", Unsure, Unsure, true, false, `It could not be told whether the target belongs to the storage of XenServer, Qubes or Proxmox.`},
	{"blind.near", Unsure, Unsure, true, false, `It could not be told whether a disk of a living domain has a similar name.`},
	{"blind.mounts", Unsure, Unsure, true, false, `The mounts of some process's namespace could not be read, so it is not known whether the target is mounted there. A granted lease or exclusive open proves that it is not, and makes this a note.`},
	{"blind.swaps", Unsure, Unsure, true, false, `The list of active swap areas could not be read.`},
	{"blind.procfd", Unsure, Unsure, true, false, `The open files of some process could not be looked at. Where the kernel itself can say that nobody has the target open (a lease on a file, the count of a device-mapper device), this is a note. A plain disk or a loop device has no such count: override it by the process, or look at the process yourself.`},
	{"blind.lease", Unsure, Unsure, true, false, `No lease could be asked for on the file: the file system has none, or you are not its owner. It is not known whether a part of the kernel has it open.`},
	{"blind.locks", Unsure, Unsure, true, false, `The kernel's table of file locks could not be read, so it is not known whether a virtual machine has locked the target. For a device that device-mapper counts no opener of, this is a note.`},
	{"blind.excl", Unsure, Unsure, true, false, `No exclusive open of the device could be tried.`},
	{"blind.dm", Unsure, Unsure, true, false, `The device-mapper count of openers could not be read.`},
	{"blind.locality", Unsure, Unsure, true, false, `It could not be read on which disks or mounts the target is, what this host exports, or what was stated of its storage, so it is not known whether other hosts can use it.`},
	{"blind.chain", Unsure, Unsure, true, false, `It could not be read of some file what it stands on, so it may be an overlay on the target: the header is damaged or of an unknown kind, the file or its directory cannot be read, or somebody has a lease on it, which reading would break. Of files that imgward itself writes to at this moment it is not asked.`},
	{"blind.self", Unsure, Unsure, true, false, `imgward could not tell whether the target is its own program or its own records, or one of the source's layers.`},
	{"blind.contents", Unsure, Unsure, true, false, `What is on the target could not be read, wholly or in part, so it is not known whether it was left in the middle of something. A disk with unreadable blocks is perhaps failing.`},
	{"blind.marks", Unsure, Unsure, true, false, `imgward's own records of unfinished writes could not be read, so it is not known whether the target is whole.`},
}

// A ddRule is what a finding means to dd. Whoever types dd expects what dd does,
// and its output has no place for notes, so a note is said to nobody.
type ddRule struct {
	Code   Code
	Device Severity // an existing device
	File   Severity // an existing file
	New    Severity // a name under which nothing is
	Why    string   // what explain says
}

// ddRules is the column of the table for dd: what is not in it means to dd what it
// means to an overwrite. Everything that says of a domain that it lives, of the
// host that it has the target mounted or swaps to it, of the block layer and the
// Xen backends that they stand on it, and all blindness is as it is there; so is
// one who has a file open for writing, which is how QEMU has the disk of a machine.
//
// Of a mark of an earlier write that did not end nothing is said here, because it
// is a note anyway: to write is the way to repair it. It stays, since dd does not
// say whether what it wrote was all. Storage that other hosts can use refuses, as
// far as a file is on a file system that several hosts can have mounted; the disk
// under one that only one host can have mounted, as this one has, is a note for its
// files. So is, for a file, a lease that readers keep us from, when it is known who
// they are and each line about them is a note ([Finding], besideDD).
var ddRules = []ddRule{
	{FDRead, Busy, Note, Note, `One who reads a plain file stops no dd: a pager, a backup, "tail -f". A reader of a device does.`},
	{LeaseReaders, Busy, Busy, Note, `Where another line says that a process reads the file, this stops no dd.`},
	{ContentMember, Unsure, Note, Note, `It stops no dd to a plain file, since such a mark is on every image of this kind, at rest or not.`},
	{ConfigNamed, Busy, Busy, Note, `It does not keep dd from making a file that is not there yet, which is how the disk of a new domain is made.`},
	{SavedNamed, Busy, Busy, Note, `It does not keep dd from making a file that is not there: what the domain remembers was removed before.`},
	{XenSharedDir, Busy, Busy, Note, `It does not keep dd from making a new file in such a directory.`},
	{ManagedXAPI, Busy, Busy, Note, `It does not keep dd from making a new file there.`},
	{ManagedQubes, Busy, Busy, Note, `It does not keep dd from making a new file there.`},
	{ManagedProxmox, Busy, Busy, Note, `It does not keep dd from making a new file there.`},
	{ChainParent, Busy, Busy, Note, `It does not keep dd from making a file that is not there: the image has lost what it stood on.`},
}

// severity is what a finding of this code means for an operation.
func (r rule) severity(op Operation) Severity {
	if op == Read {
		return r.Source
	}
	for _, d := range ddRules {
		if d.Code != r.Code {
			continue
		}
		switch op {
		case DD:
			return d.Device
		case DDFile:
			return d.File
		case DDNew:
			return d.New
		}
	}
	return r.Write
}

// ruleOf gives the row of a code. An unknown code refuses and cannot be
// overridden.
func ruleOf(c Code) rule {
	for _, r := range rules {
		if r.Code == c {
			return r
		}
	}
	return rule{Code: c, Write: Never, Source: Never}
}

// Codes lists every code in the order of the manual.
func Codes() []Code {
	out := make([]Code, len(rules))
	for i, r := range rules {
		out[i] = r.Code
	}
	return out
}

// ExplainCode gives the paragraph on a code; false when there is no such code.
func ExplainCode(c Code) (string, bool) {
	r := ruleOf(c)
	for _, d := range ddRules {
		if d.Code == c {
			return r.Text + " " + d.Why, true
		}
	}
	return r.Text, r.Text != ""
}
