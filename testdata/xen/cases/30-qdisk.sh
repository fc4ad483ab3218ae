# shellcheck shell=bash
# Images that QEMU serves.

case_raw() {
	image q1 q1.img
	image golden golden.img
	domu q1 "$(qdisk /srv/images/q1.img xvda)" beat=xvda
	says q1 'xvda is q1'
	FROM=8M refuses q1 xen.vbd.connected fd.write lease.refused -- overwrite golden.img q1.img
	harm q1.img qemu-img convert -n -f raw -O raw golden.img q1.img
	beats q1 xvda=ok
}

case_qcow2_and_its_base() {
	image golden golden.img
	qemu-img convert -f raw -O qcow2 golden.img base.qcow2
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 app.qcow2
	domu app "$(qdisk /srv/images/app.qcow2 xvda qcow2)"
	refuses app xen.vbd.connected fd.write lease.refused -- overwrite --resize golden.img app.qcow2
	refuses - fd.vm lease.readers -- overwrite --resize golden.img base.qcow2
	harm base.qcow2 dd if=golden.img of=base.qcow2 bs=1M conv=notrunc status=none
	destroy app
	forget app
}

# The base of an image that no domain has at the moment.
case_base_at_rest() {
	image golden golden.img
	qemu-img convert -f raw -O qcow2 golden.img base.qcow2
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 app.qcow2
	config app "$(qdisk /srv/images/app.qcow2 xvda qcow2)"
	refuses - -- overwrite --resize golden.img base.qcow2
}

case_rebuild() {
	image q1 q1.img
	image golden golden.img
	domu q1 "$(qdisk /srv/images/q1.img xvda)" beat=xvda
	FROM=8M refuses q1 xen.vbd.connected -- overwrite golden.img q1.img
	stop q1
	forget q1
	works overwrite golden.img q1.img
	recall q1
	start q1
	says q1 'xvda is golden'
	beats q1 xvda=ok
}
