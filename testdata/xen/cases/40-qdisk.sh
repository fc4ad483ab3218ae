# shellcheck shell=bash
# Images that QEMU serves, one raw and one that stands on a golden one.

setup() {
	image q1 q1.img
	image golden golden.img
	qemu-img convert -f raw -O qcow2 golden.img base.qcow2
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 app.qcow2
	domu q1 "$(qdisk /srv/images/q1.img xvda), $(qdisk /srv/images/app.qcow2 xvdb qcow2)"
}

case_raw() {
	refuses q1 xen.vbd.connected fd.write lease.refused -- overwrite golden.img q1.img
}

case_qcow2() {
	refuses q1 xen.vbd.connected fd.write lease.refused -- overwrite --resize golden.img app.qcow2
}

# xenstore names the image and not its base, which QEMU has open all the same.
case_base() {
	refuses - chain.live fd.vm lease.readers -- overwrite --resize golden.img base.qcow2
}

case_harm() {
	harm q1.img qemu-img convert -n -f raw -O raw golden.img q1.img
	harm base.qcow2 dd if=golden.img of=base.qcow2 bs=1M conv=notrunc status=none
	beats q1 xvda=ok
}

case_rebuild() {
	image q1 new.img
	stop q1
	forget q1
	works overwrite new.img q1.img
	domu q1 "$(qdisk /srv/images/q1.img xvda)" beat=xvda
	says q1 'xvda is q1'
	beats q1 xvda=ok
	destroy q1
}

# The base of an image that no domain has at the moment.
case_base_at_rest() {
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -u other.qcow2 4M
	refuses - chain.parent -- overwrite --resize golden.img base.qcow2
}
