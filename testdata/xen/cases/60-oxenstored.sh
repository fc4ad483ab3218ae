# shellcheck shell=bash
# The other xenstored.
# xenstored: oxenstored

case_file() {
	image web1 web1.img
	image golden golden.img
	domu web1 "$(file /srv/images/web1.img xvda)" beat=xvda
	FROM=8M refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	stop web1
	forget web1
	works overwrite golden.img web1.img
	recall web1
	start web1
	says web1 'xvda is golden'
}

case_volume() {
	image golden golden.img
	volume db1 db1
	domu db1 "$(phy /dev/vg0/db1 xvda)"
	refuses db1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/db1
	xl pause db1
	refuses db1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/db1
}

case_hung() {
	image web1 web1.img
	image golden golden.img
	domu web1 "$(file /srv/images/web1.img xvda)"
	kill -STOP "$(cat /run/xen/xenstored.pid)"
	refuses - blind.xen xen.sysfs.vbd loop.attached -- overwrite golden.img web1.img
	kill -CONT "$(cat /run/xen/xenstored.pid)"
	refuses web1 xen.vbd.connected -- overwrite golden.img web1.img
}
