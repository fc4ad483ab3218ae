# shellcheck shell=bash
# What dom0 does with an image beside giving it to a domain as its disk.

setup() {
	image golden golden.img
	image web1 web1.img
	image web2 web2.img
	mkdir /srv/images/shared
	image inside shared/inside.img
	config web1 "$(file /srv/images/web1.img xvda)"
	echo "p9 = [ 'tag=share,path=/srv/images/shared,security_model=none' ]" >>/etc/xen/web1.cfg
	start web1
}

# A directory that the domain may look into as it likes.
case_shared_directory() {
	refuses web1 xen.shared.dir -- overwrite golden.img shared/inside.img
}

# One character beside the disk of a running domain.
case_neighbour() {
	free --json web2.img
	jq -e '.findings[] | select(.code == "near.name" and .outcome == "note")' /tmp/said
}

configfs() { mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config; }

# A whole disk that another host may have open through iSCSI or Fibre Channel.
# LIO claims it; the export says what claims it.
case_lio() {
	local disk lun=/sys/kernel/config/target/core/iblock_0/lun0
	disk=$(realpath "$DISK2")
	image disk2 "$disk"
	modprobe -a target_core_mod target_core_iblock
	configfs
	mkdir -p $lun
	echo "udev_path=$disk" >$lun/control
	echo "$disk" >$lun/udev_path
	echo 1 >$lun/enable
	refuses - export.block excl.held -- overwrite golden.img "$disk"
	rmdir $lun
	free "$disk"
}

# The same through NVMe over TCP, which claims nothing. A disk that came through
# it may be in use by any host, as far as this one can tell.
case_nvmet() {
	local disk nvmet=/sys/kernel/config/nvmet space
	disk=$(realpath "$DISK2")
	space=$nvmet/subsystems/lab/namespaces/1
	image disk2 "$disk"
	modprobe -a nvmet-tcp nvme-tcp
	configfs
	mkdir $nvmet/subsystems/lab $nvmet/ports/1
	echo 1 >$nvmet/subsystems/lab/attr_allow_any_host
	mkdir $space
	echo -n "$disk" >$space/device_path
	free "$disk"
	echo 1 >$space/enable
	refuses - export.block -- overwrite golden.img "$disk"
	harm "$disk" dd if=golden.img of="$disk" bs=1M conv=fsync status=none

	(cd $nvmet/ports/1 && echo ipv4 >addr_adrfam && echo tcp >addr_trtype && echo 127.0.0.1 >addr_traddr && echo 4420 >addr_trsvcid)
	ln -s $nvmet/subsystems/lab $nvmet/ports/1/subsystems/lab
	echo transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=lab >/dev/nvme-fabrics
	wait_for 30 test -b /dev/nvme0n1
	refuses - locality.shared -- overwrite golden.img /dev/nvme0n1
	echo 1 >/sys/class/nvme/nvme0/delete_controller
	rm $nvmet/ports/1/subsystems/lab
	echo 0 >$space/enable
	free "$disk"
}

# What xapi keeps is to be replaced through xapi, where it lies says so.
case_managed() {
	local sr=/run/sr-mount/0d8d2b5a-5b2e-4d0f-9a52-6a8b8f0a1c11
	mkdir -p $sr
	mount --bind /srv/images $sr
	cp web2.img 3a1f2f0e-8a6b-4f0e-9a10-52b9a8a4c6d7.raw
	refuses - managed.xapi -- overwrite golden.img $sr/3a1f2f0e-8a6b-4f0e-9a10-52b9a8a4c6d7.raw
	umount $sr
}
