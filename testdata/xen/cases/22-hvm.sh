# shellcheck shell=bash
# A domain with hardware emulation: QEMU has the image open, too, until the
# domain's own driver unplugs the emulated disk. Slow where Xen itself is emulated.
# limit: 900

case_running() {
	image h1 h1.img
	image golden golden.img
	TYPE=hvm config h1 "$(file /srv/images/h1.img xvda)" beat=xvda
	xl create -q /etc/xen/h1.cfg
	FROM=2M refuses h1 xen.vbd.connected loop.attached fd.write lock.write lease.refused -- overwrite golden.img h1.img
	says h1 'xvda is h1'
	FROM=2M refuses h1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img h1.img
	destroy h1
	forget h1
	works overwrite --override content.dirty:lab golden.img h1.img
}
