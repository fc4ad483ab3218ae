# shellcheck shell=bash
# One domain with a disk on each kind of stack, and what lies under and beside
# those disks.

setup() {
	image golden golden.img
	volume plain plain

	lvcreate -qq -L 16M --thinpool pool vg0
	lvcreate -qq -V 4M --thin -n thin vg0/pool
	image thin /dev/vg0/thin
	lvcreate -qq -kn -s -n thinsnap vg0/thin

	volume origin origin
	lvcreate -qq -L 4M -s -n snap vg0/origin

	printf 'size=8M\nsize=8M\n' | sfdisk -q "$DISK2"
	udevadm settle
	image part1 "$DISK2-part1"
	image part2 "$DISK2-part2"

	truncate -s 16M member1.img member2.img
	modprobe raid1
	mdadm --create /dev/md0 --quiet --run --level=1 --raid-devices=2 --metadata=1.2 \
		"$(losetup -f --show member1.img)" "$(losetup -f --show member2.img)"
	vgcreate -qq vg1 /dev/md0
	lvcreate -qq -Wn -L 4M -n deep vg1
	image deep /dev/vg1/deep

	truncate -s 16M outer.img
	mkfs.ext4 -q outer.img
	mount -o loop outer.img /mnt
	image inner /mnt/inner.img

	domu vm "$(phy /dev/vg0/plain xvda)"
	attach vm /dev/vg0/thin xvdb
	attach vm /dev/vg0/snap xvdc
	attach vm "$DISK2-part1" xvdd
	attach vm /dev/vg1/deep xvde
	attach vm /mnt/inner.img xvdf
}

# The physical volume is a whole disk here. Of its two GiB the last is compared:
# imgward would write there first.
case_disk_under_volume() {
	refuses vm xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/plain
	FROM=2040M refuses vm xen.vbd.connected holder.dm excl.held -- overwrite golden.img "$DISK1"
}

case_thin() {
	refuses vm xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/thin
	refuses vm xen.vbd.connected dm.open -- overwrite golden.img /dev/mapper/vg0-pool_tdata
	# What was shared with the snapshot gets blocks of its own when it is written.
	works overwrite golden.img /dev/vg0/thinsnap
	cmp golden.img /dev/vg0/thinsnap
	beats vm xvdb=ok
}

# A snapshot of the old kind reads from its origin what was not written since.
case_snapshot_and_origin() {
	refuses vm xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/snap
	refuses vm xen.vbd.connected -- overwrite golden.img /dev/vg0/origin
}

case_partition() {
	refuses vm xen.vbd.connected -- overwrite golden.img "$DISK2-part1"
	FROM=2040M refuses vm xen.vbd.connected -- overwrite golden.img "$DISK2"
	works overwrite golden.img "$DISK2-part2"
	cmp -n 4M golden.img "$DISK2-part2"
	harm "$DISK2-part1" dd if=golden.img of="$DISK2" bs=1M seek=1 conv=notrunc,fsync status=none
	beats vm xvdd=ok
}

# A mapping made by hand over a used volume, one over the volume's sectors of the
# disk, and one over the sectors behind them, which nobody uses.
case_linear() {
	local start
	start=$(dmsetup table vg0-plain | awk '{ print $5 }')
	volume after
	dmsetup create lab-over --table "0 8192 linear /dev/vg0/plain 0"
	refuses vm xen.vbd.connected -- overwrite golden.img /dev/mapper/lab-over
	refuses vm xen.vbd.connected holder.dm -- overwrite golden.img /dev/vg0/plain
	harm /dev/mapper/lab-over dd if=golden.img of=/dev/mapper/lab-over bs=1M oflag=direct status=none
	beats vm xvda=ok
	dmsetup remove lab-over
	dmsetup create lab-beside --table "0 8192 linear $DISK1 $start"
	refuses vm xen.vbd.connected -- overwrite golden.img /dev/mapper/lab-beside
	dmsetup remove lab-beside
}

case_md_under_lvm() {
	local loop
	refuses vm xen.vbd.connected dm.open -- overwrite golden.img /dev/vg1/deep
	FROM=10M refuses vm xen.vbd.connected holder.dm excl.held -- overwrite golden.img /dev/md0
	loop=$(losetup -n -O NAME -j member1.img)
	FROM=10M refuses vm xen.vbd.connected holder.md excl.held -- overwrite golden.img "$loop"
	FROM=10M refuses vm xen.vbd.connected loop.attached lease.refused -- overwrite golden.img member2.img
}

# An image in a file system in an image: what is under it is named by the mount.
case_image_on_image() {
	refuses vm xen.vbd.connected loop.attached lease.refused -- overwrite golden.img /mnt/inner.img
	FROM=15M refuses - loop.attached mount.rw lease.refused -- overwrite golden.img outer.img
}
