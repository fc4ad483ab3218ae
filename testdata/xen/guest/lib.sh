# shellcheck shell=bash
# What the cases are written in. Every helper prints what it does, because the
# output of a case is shown when it fails.

XEN_BIN=$(echo /usr/lib/xen-[0-9]*/bin)
export PATH=/lab/bin:$PATH:$XEN_BIN
export GOGC=off # an emulated processor has better things to do
DISK1=/dev/disk/by-id/virtio-disk1 # the volume group vg0
export DISK2=/dev/disk/by-id/virtio-disk2 # empty

# wait_for SECONDS COMMAND...: until it succeeds. The times are for a host that
# has much else to do; an idle one needs a tenth.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $end ]; then
			echo "did not come true: $*"
			return 1
		fi
		sleep 0.5
	done
}

# no COMMAND...: it must fail
no() { if "$@"; then echo "succeeded: $*"; return 1; fi; }

start_xen() {
	mkdir -p /run/xenstored /run/xen /var/lib/xen /var/log/xen/console
	"$XEN_BIN/${XENSTORED:-xenstored}" --pid-file /run/xen/xenstored.pid
	wait_for 60 timeout 20 xenstore-read -s / || return 1
	"$XEN_BIN/xen-init-dom0"
	"$XEN_BIN/xenconsoled" --pid-file=/run/xen/xenconsoled.pid --log=guest --log-dir=/var/log/xen/console
}

# volume_group: makes vg0 where it is not there yet
volume_group() {
	[ -e /run/vg0 ] || {
		vgcreate -qq vg0 "$DISK1"
		touch /run/vg0
	}
}

# take_down: the host as it was before the first case
take_down() {
	local id d
	kill -CONT "$(cat /run/xen/xenstored.pid)"
	xl list | awk 'NR > 1 && $2 > 0 { print $2 }' | while read -r id; do xl destroy "$id"; done
	wait_for 10 no pgrep -x xl || killall -9 xl
	xenstore-ls -f /local/domain/0/backend | sed -n 's|^\(/local/domain/0/backend/[a-z]*/[0-9]*\) .*|\1|p' | while read -r d; do xenstore-rm "$d"; done
	killall -q -9 qemu-system-i386
	awk '$2 ~ "^/(mnt|srv/)" { print $2 }' /proc/mounts | sort -r | while read -r d; do umount "$d"; done
	[ ! -e /run/vg0 ] || lvremove -fqq vg0
	losetup -D
	rm -rf /srv/images /srv/*.save /var/lib/xen/save /etc/xen/*.cfg /etc/xen/auto /var/lib/imgward
	mkdir -p /srv/images
}

# image NAME FILE: a disk with NAME in the file generation of its file system.
# FILE is a new file of 4 MiB, or a device of at least that. The file system
# covers the first half; what a mounted one changes is not in the second, which
# ends in NAME. All images are copies of one: a name is all that they need of
# their own, and mkfs is dear.
image() {
	local at blank=/tmp/blank.img
	[ -e $blank ] || {
		mkdir /tmp/blank
		printf '%-32s' @name@ >/tmp/blank/generation
		truncate -s 4M $blank
		mkfs.ext4 -q -F -L lab -d /tmp/blank $blank 2M
		ggrep -abo @name@ $blank | cut -d : -f 1 >/tmp/blank.at
	}
	at=$(cat /tmp/blank.at)
	dd if=$blank of="$2" bs=1M conv=notrunc status=none
	for at in "$at" $(((4 << 20) - 32)); do
		printf '%-31s\n' "$1" | dd of="$2" bs=32 seek="$at" oflag=seek_bytes conv=notrunc status=none
	done
	[ ! -b "$2" ] || sync "$2"
}

# volume NAME [IMAGE]: a logical volume of 4 MiB in vg0, empty or a disk (image)
volume() {
	volume_group
	lvcreate -qq -Wn -L 4M -n "$1" vg0
	[ -z "${2:-}" ] || image "$2" "/dev/vg0/$1"
}

# config NAME DISKS [WORDS]: a domain's configuration; WORDS go to domu-init.
# DISKS is the value of disk=, each disk as xl-disk-configuration(5) has it.
# TYPE is pv, and MEMORY 112 MiB, unless set.
config() {
	local kernel=vmlinux
	[ "${TYPE:-pv}" = pv ] || kernel=vmlinuz
	cat >"/etc/xen/$1.cfg" <<-CFG
		name = "$1"
		type = "${TYPE:-pv}"
		kernel = "/boot/domu/$kernel"
		ramdisk = "/boot/domu/initrd"
		extra = "console=hvc0 quiet loglevel=1 mitigations=off nokaslr init_on_alloc=0 cryptomgr.notests rodata=off ${3:-}"
		memory = ${MEMORY:-112}
		vcpus = 1
		disk = [ $2 ]
		on_poweroff = "${ON_POWEROFF:-destroy}"
		on_crash = "${ON_CRASH:-destroy}"
		on_reboot = "restart"
	CFG
}

# file PATH DEV [MODE], phy PATH DEV [MODE], qdisk PATH DEV [FORMAT]: one disk
file() { echo "'format=raw,vdev=$2,access=${3:-rw},target=$1'"; }
phy() { echo "'phy:$1,$2,${3:-w}'"; }
qdisk() { echo "'format=${3:-raw},backendtype=qdisk,vdev=$2,access=rw,target=$1'"; }

# start NAME: creates a domain from its configuration and waits until it is ready
start() {
	step "start $1"
	rm -f "$(console "$1")"
	killall -q -HUP xenconsoled
	xl create -q "/etc/xen/$1.cfg"
	says "$1" 'domu: ready'
}
# forget NAME: the configuration goes where Xen does not look
forget() { mv "/etc/xen/$1.cfg" /root/; }
recall() { mv "/root/$1.cfg" /etc/xen/; }
# domu NAME DISKS [WORDS]: config and start
domu() { config "$@" && start "$1"; }

console() { echo "/var/log/xen/console/guest-$1.log"; }
# says NAME REGEXP [FROM]: the domain's console shows it, now or soon, in line
# FROM or later. It is followed, not polled: dom0 and the domain share a CPU.
says() {
	local log
	log=$(console "$1")
	wait_for 60 test -e "$log"
	grep -qE -m 1 "$2" < <(exec timeout 300 tail -n "+${3:-1}" -F "$log" 2>/dev/null) || {
		echo "domain $1 did not say \"$2\":"
		tail -n 5 "$log"
		return 1
	}
}
# beats NAME STATE: the domain goes on, and says STATE (xvda=ok) of its disk
beats() { says "$1" "domu: beat .*$2" $(($(wc -l <"$(console "$1")") + 1)); }

# attach NAME PATH DEV: plugs a disk into the running domain. Many at once make
# Xen's scripts late, and libxl gives up on them.
attach() { xl block-attach "$1" "format=raw,vdev=$3,access=rw,target=$2"; }

# xl_of NAME: the xl that waits for the domain's end, if there is one
xl_of() {
	local p args
	for p in /proc/[0-9]*; do
		{ mapfile -d '' -t args <"$p/cmdline"; } 2>/dev/null || continue
		[[ "${args[*]}" != *"xl "@(create|restore)" "*"/$1."* ]] || echo "${p#/proc/}"
	done
}
# gone NAME: the domain is gone, and xl has taken away what was its
gone() {
	local pid
	pid=$(xl_of "$1")
	[ -z "$pid" ] || timeout 180 tail -f --pid="$pid" /dev/null
	no xl domid "$1"
}
# stop NAME: shuts it down
stop() { step "stop $1" && xl shutdown "$1" >/dev/null && gone "$1"; }
destroy() { step "destroy $1" && xl destroy "$1" && gone "$1"; }

# keep TARGET, kept TARGET: what is on the target now, and whether that is still
# so. FROM=2M leaves out the half where a domain's own file system is mounted. Of
# a disk only the beginning is looked at, to which imgward would write first.
keep() { bytes "$1" /tmp/kept; }
kept() { bytes "$1" /tmp/now && cmp -s /tmp/now /tmp/kept; }
bytes() {
	# A device is read past the cache, which it does not share with its disk.
	local direct=''
	[ ! -b "$1" ] || direct=,direct
	dd if="$1" of="$2" bs=1M count=16 iflag="skip_bytes$direct" skip="${FROM:-0}" status=none
}

# harm TARGET COMMAND...: the plain tool succeeds and changes what is there
harm() {
	step "harm: ${*:2}"
	keep "$1"
	"${@:2}"
	sync "$1"
	if kept "$1"; then echo "nothing was changed"; return 1; fi
}

# asked COMMAND...: what imgward says, in /tmp/said, with its exit status.
# Where all is emulated and the host is busy, xenstored may be too slow for the
# three seconds that imgward gives it, which is a refusal of another kind; then
# it is asked again.
asked() {
	local status
	for _ in {1..10}; do
		status=0
		"$@" >/tmp/said 2>/tmp/remarks </dev/null || status=$?
		grep -q 'blind\.\|no answer within\|not done in time' /tmp/said /tmp/remarks || break
	done
	return $status
}

# refuses WHO CODE... -- COMMAND OPERAND... TARGET: imgward refuses with exit
# status 3 and at least these codes, writes nothing, and says that it is domain
# WHO's (- for nobody's); what it said is in /tmp/refusal. Then the collectors that
# the codes belong to are asked again, each alone.
refuses() {
	step "refuses: $*"
	command refuses "$@" 3>/tmp/refusal
}

# does COMMAND...: imgward does it, and so finds nobody
does() {
	step "imgward $*"
	asked imgward "$@" || { cat /tmp/said /tmp/remarks; return 1; }
}
free() { does check "$@"; }

# works COMMAND OPERAND... TARGET: imgward does it. The token of what is on the
# target is asked for first, as a person does who means it.
works() {
	local target=${*: -1}
	asked imgward check --porcelain "$target" || true
	does "$1" --confirm "$(cut -f 2 /tmp/said)" "${@:2}"
}

# step WORDS...: what is done now, and when
step() { echo "[$SECONDS s] $*"; }

unpriv() { setpriv --reuid alice --regid alice --clear-groups "$@"; }
