# shellcheck shell=bash
# The other xenstored.
# xenstored: oxenstored

setup() {
	image web1 web1.img
	image golden golden.img
	volume web1 web1
	domu web1 "$(file /srv/images/web1.img xvda), $(phy /dev/vg0/web1 xvdb)"
}

case_file() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
}

case_volume() {
	xl pause web1
	refuses web1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/web1
	xl unpause web1
}

case_hung() {
	trap 'kill -CONT "$(cat /run/xen/xenstored.pid)"' EXIT
	kill -STOP "$(cat /run/xen/xenstored.pid)"
	HUNG=1 refuses - blind.xen xen.sysfs.vbd loop.attached -- overwrite golden.img web1.img
	kill -CONT "$(cat /run/xen/xenstored.pid)"
	refuses web1 xen.vbd.connected -- overwrite golden.img web1.img
}

case_rebuild() {
	stop web1
	forget web1
	works overwrite golden.img web1.img
	works overwrite golden.img /dev/vg0/web1
	domu web1 "$(file /srv/images/web1.img xvda)" beat=xvda
	says web1 'xvda is golden'
}
