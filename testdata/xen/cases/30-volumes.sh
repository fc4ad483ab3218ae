# shellcheck shell=bash
# Logical volumes, which blkback opens itself.

# A golden image onto a new volume, from which a domain boots. While it runs
# imgward refuses the volume, and plain tools do not: it goes on from memory. When
# it is shut down the same command that was refused mends what they did.
case_accident() {
	image golden golden.img
	volume db1
	volume spare spare
	works clone golden.img /dev/vg0/db1
	cmp golden.img /dev/vg0/db1
	domu db1 "$(phy /dev/vg0/db1 xvda)" beat=xvda
	says db1 'xvda is golden'
	FROM=2M refuses db1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/db1
	FROM=2M refuses db1 xen.vbd.connected dm.open -- clone golden.img /dev/mapper/vg0-db1
	no lvremove -f vg0/db1
	harm /dev/vg0/db1 mkfs.ext4 -q -F /dev/vg0/db1
	harm /dev/vg0/db1 dd if=golden.img of=/dev/vg0/db1 bs=1M conv=fsync status=none
	harm /dev/vg0/db1 blkdiscard -f -z /dev/vg0/db1
	beats db1 xvda=ok
	free /dev/vg0/spare
	stop db1
	forget db1
	works overwrite golden.img /dev/vg0/db1
	cmp golden.img /dev/vg0/db1
	recall db1
	start db1
	says db1 'xvda is golden'
	beats db1 xvda=ok
}
