# shellcheck shell=bash
# One domain with disks under every kind of path, all but the first plugged in
# while it runs. A disk costs the domain several MiB.

setup() {
	local f
	image golden golden.img
	for f in first second link bind dots odd held spare; do image $f $f.img; done
	mv odd.img 'a b"c.img'
	ln -s link.img current.img
	mkdir /srv/other /mnt/hidden
	mount --bind /srv/images /srv/other
	MEMORY=192 domu web1 "$(file /srv/images/first.img xvda), $(file /srv/images/second.img xvdb)"
	attach web1 /srv/images/current.img xvdc
	attach web1 /srv/other/bind.img xvdd
	(cd /srv && attach web1 images/../images/dots.img xvde)
	attach web1 '/srv/images/a b"c.img' xvdf
	unshare -m sh -c 'mount -t tmpfs hidden /mnt/hidden && cp held.img /mnt/hidden/ &&
		xl block-attach web1 format=raw,vdev=xvdg,access=rw,target=/mnt/hidden/held.img'
	attach web1 /srv/images/held.img xvdh
}

case_two_disks() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img first.img
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img second.img
}

case_symlink() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img link.img
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img current.img
	# The name is the domain's even when it leads elsewhere.
	ln -sfn spare.img current.img
	refuses web1 xen.vbd.connected -- overwrite golden.img link.img
	refuses web1 xen.vbd.named -- overwrite golden.img current.img
	ln -sfn link.img current.img
}

case_bind_mount() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img bind.img
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img /srv/other/bind.img
	refuses web1 xen.vbd.connected -- overwrite golden.img /srv/other/first.img
}

case_hard_link() {
	ln first.img innocent.img
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img innocent.img
	rm innocent.img
}

case_dotted_path() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img dots.img
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img ../images/./dots.img
}

case_odd_name() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img 'a b"c.img'
}

# The image of another mount namespace has no path here; its loop device has.
case_other_namespace() {
	local loop
	loop=$(losetup -n -O NAME,BACK-FILE | awk '$2 == "/held.img" || $2 == "/mnt/hidden/held.img" { print $1 }')
	refuses web1 xen.vbd.connected -- overwrite golden.img "$loop"
}

case_unplugged() {
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img held.img
	xl block-detach web1 xvdh
	wait_for 15 free held.img
	works overwrite golden.img held.img
	cmp golden.img held.img
}

case_bystander() {
	free spare.img
	works overwrite golden.img spare.img
	cmp golden.img spare.img
}
