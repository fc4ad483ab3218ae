# shellcheck shell=bash
# The other xenstored.
# xenstored: oxenstored
. /lab/guest/claim.sh

setup() {
	image file file.img
	image fresh fresh.img
	claim_setup "$(file /srv/images/file.img xvdb)"
}

case_file() {
	refuses db1 xen.vbd.connected loop.attached lease.refused -- overwrite fresh.img file.img
}

case_volume() {
	FROM=2M refuses db1 xen.vbd.connected dm.open -- overwrite fresh.img /dev/vg0/db1
}

case_hung() {
	trap 'kill -CONT "$(cat /run/xen/xenstored.pid)"' EXIT
	kill -STOP "$(cat /run/xen/xenstored.pid)"
	HUNG=1 refuses - blind.xen xen.sysfs.vbd loop.attached -- overwrite fresh.img file.img
	kill -CONT "$(cat /run/xen/xenstored.pid)"
	refuses db1 xen.vbd.connected -- overwrite fresh.img file.img
}

# What imgward claims is refused while it writes, and after it was killed.
case_claim() {
	hold web1
	refused web1 reader
	attach_refused /dev/vg0/web1,xvdc,w /dev/mapper/vg0-web1,xvdd,r
	beats db1 xvda=ok
	left_behind
	refused web1
	imgward release /dev/vg0/web1
	no claims
	all_work
}

case_reboot() { reboot_refused; }

case_rebuild() {
	stop db1
	forget db1
	works overwrite fresh.img file.img
	works overwrite fresh.img /dev/vg0/db1
	recall db1
	start db1
	says db1 'xvda is fresh'
	beats db1 'xvda=ok xvdb=ok'
}
