# shellcheck shell=bash
# Image files through loop devices and blkback, which is what xl does by default.

# The whole story. The disk of a running domain is neither overwritten nor read
# as a source. When the domain is shut down the same command works as it stands,
# and the domain boots from the new image. Then dd does the harm: the domain goes
# on from memory, and does not boot again.
case_accident() {
	image web1 web1.img
	image golden golden.img
	domu web1 "$(file /srv/images/web1.img xvda)" beat=xvda
	says web1 'xvda is web1'
	FROM=2M refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	FROM=2M refuses web1 xen.vbd.connected loop.attached -- clone golden.img web1.img
	no imgward copy web1.img torn.img
	[ ! -e torn.img ]

	stop web1
	forget web1
	does copy web1.img whole.img
	cmp web1.img whole.img
	works overwrite golden.img web1.img
	cmp golden.img web1.img
	recall web1
	start web1
	says web1 'xvda is golden'
	beats web1 xvda=ok

	harm web1.img dd if=/dev/zero of=web1.img bs=1M count=4 conv=notrunc status=none
	beats web1 xvda=ok
	stop web1
	start web1
	says web1 'xvda has no file system'
}

# Xen lets a second domain have the same file for writing. Each has a loop device
# of its own, which is the same disk by another name.
case_second_writer() {
	local loop
	image web1 web1.img
	image golden golden.img
	domu web1 "$(file /srv/images/web1.img xvda)"
	loop=$(losetup -n -O NAME -j web1.img)
	refuses web1 xen.vbd.connected -- overwrite golden.img "$loop"
	harm "$loop" dd if=golden.img of="$loop" bs=1M conv=notrunc,fsync status=none
	beats web1 xvda=ok

	config thief "$(file /srv/images/web1.img xvda)"
	xl create -q -p /etc/xen/thief.cfg
	refuses web1 xen.vbd.connected loop.attached -- overwrite golden.img web1.img
	destroy web1
	refuses thief xen.vbd.connected loop.attached -- overwrite golden.img web1.img
}

# Another file was moved over the image: the domain is on the old one, which has
# no name any more, and the name is the domain's all the same.
case_replaced() {
	image web1 web1.img
	image golden golden.img
	image new new.img
	domu web1 "$(file /srv/images/web1.img xvda)"
	ln web1.img old.img
	mv -f new.img web1.img
	refuses web1 xen.vbd.named -- overwrite golden.img web1.img
	refuses web1 xen.vbd.connected loop.attached -- overwrite golden.img old.img
	rm web1.img
	no imgward copy golden.img web1.img
	[ ! -e web1.img ]
	# A smaller file copied over it cuts the disk off under the domain.
	truncate -s 512K small.img
	harm old.img cp small.img old.img
	[ "$(stat -c %s old.img)" = 524288 ]
}

# What domains may only read is still not to be written to, by anybody.
case_readonly_shared() {
	image shared shared.img
	image golden golden.img
	domu ro1 "$(file /srv/images/shared.img xvda ro)"
	config ro2 "$(file /srv/images/shared.img xvda ro)"
	xl create -q -p /etc/xen/ro2.cfg
	refuses ro1 xen.vbd.readonly loop.readonly lease.readers -- overwrite golden.img shared.img
	does copy shared.img copy.img
	cmp shared.img copy.img
	destroy ro1
	refuses ro2 xen.vbd.readonly loop.readonly lease.readers -- overwrite golden.img shared.img
	destroy ro2
	forget ro1
	forget ro2
	works overwrite golden.img shared.img
}
