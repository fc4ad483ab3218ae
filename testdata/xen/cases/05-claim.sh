# shellcheck shell=bash
# While imgward writes to a block device, Xen itself refuses it to every domain;
# while it writes to an image file, the kernel does.
# limit: 700
. /lab/guest/claim.sh

setup() { claim_setup; }

# undisturbed: others go on, and Xen's tools see nothing
undisturbed() {
	step undisturbed
	no grep -q 32760 <(xl list; xl list -l; xl vm-list; xl block-list db1; xentop -b -i 1)
	xl save db1 /srv/db1.save
	xl restore /srv/db1.save
	beats db1 xvda=ok
	volume other
	config other "$(phy /dev/vg0/other xvda)"
	xl create -q -p /etc/xen/other.cfg
	destroy other
	forget other
	lvremove -fqq vg0/other
	imgward domains | tee /tmp/domains
	no grep -q 32760 /tmp/domains
}

# A whole overwrite: refused by Xen while it lasts, and all works afterwards.
case_overwrite() {
	hold web1
	refused web1 reader
	attach_refused /dev/vg0/web1,xvdc,w /dev/mapper/vg0-web1,xvdd,r
	undisturbed
	no imgward check /dev/vg0/web1
	no imgward release /dev/vg0/web1
	claimed web1
	finish /dev/vg0/web1
	all_work
}

case_reboot() { reboot_refused; }

# What kill -9 leaves is refused until somebody says that it may boot, or until it
# is overwritten.
case_killed() {
	hold web1
	left_behind
	works overwrite golden.img /dev/vg0/web1
	cmp golden.img /dev/vg0/web1
	no claims

	hold web1
	left_behind
	refused web1 reader
	attach_refused /dev/mapper/vg0-web1,xvdc,w
	imgward release /dev/vg0/web1
	no claims
	xl create -q -p /root/web1.cfg
	destroy web1
}

# A domain that was just started is found, and the claim withdrawn.
case_holder_wins() {
	xl create -p /root/web1.cfg
	refuses web1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/web1
	no claims
	destroy web1
}

# --no-claim leaves xenstore alone.
case_switched_off() {
	xenstore-watch -n 2 /local/domain/32760 >/tmp/watched &
	works overwrite --no-claim golden.img /dev/vg0/web1
	kill %1 # an event beside the first, which every watch gets, would have ended it
}

# What looks at all devices for moments stops nothing.
case_noise() {
	step 'lvs; blkid; udevadm trigger'
	: >/tmp/rounds
	while :; do
		lvs
		blkid
		udevadm trigger
		echo >>/tmp/rounds
	done >/dev/null 2>&1 &
	noise=$!
	works overwrite --limit-rate 2M golden.img /dev/vg0/web1
	kill "$noise"
	wait "$noise" || true
	echo "$(wc -l </tmp/rounds) rounds"
	cmp golden.img /dev/vg0/web1
}

# An image file cannot be opened by anybody while it is written: no loop device is
# set up, so no domain starts, and QEMU does not get its disk. Afterwards all do.
case_image_file() {
	local id
	truncate -s 8M file.img
	config filed "$(file /srv/images/file.img xvda)"
	config served "$(qdisk /srv/images/file.img xvda)"
	forget filed
	forget served
	begin file.img
	step 'refused: losetup, dd, xl create'
	no losetup -f --show file.img
	no dd if=golden.img of=file.img bs=1M conv=notrunc status=none
	no xl create /root/filed.cfg >/tmp/xl 2>&1
	cat /tmp/xl
	no xl domid filed
	step 'refused: the device model'
	xl create -q -p /root/served.cfg || true
	kill -0 "$writer"
	cat /var/log/xen/qemu-*served*.log
	grep -q 'Operation not permitted\|Permission denied' /var/log/xen/qemu-*served*.log
	[ -z "$(find /proc/[0-9]*/fd -lname /srv/images/file.img ! -path "/proc/$writer/*" 2>/dev/null)" ]
	destroy served || true
	finish file.img
	step 'all work again'
	xl create -q -p /root/filed.cfg
	destroy filed
	rm -f /var/log/xen/qemu-*served*.log
	xl create -q -p /root/served.cfg
	[ -n "$(find /proc/[0-9]*/fd -lname /srv/images/file.img 2>/dev/null)" ]
	destroy served
}
