# shellcheck shell=bash
# What there is to see of a domain that does not run any more.

# web1 [WORDS]: a new domain with a new image
web1() {
	image golden golden.img
	image web1 web1.img
	domu web1 "$(file /srv/images/web1.img xvda)" "$@"
}

# Nothing holds the image of a saved domain, which goes on with its memory later.
case_saved() {
	web1 beat=xvda
	mkdir -p /var/lib/xen/save
	xl save web1 /var/lib/xen/save/web1
	forget web1
	refuses web1 -- overwrite golden.img web1.img
}

case_destroyed() {
	web1
	refuses web1 xen.vbd.connected -- overwrite golden.img web1.img
	destroy web1
	forget web1
	refuses - domain.unproven -- overwrite --domain web2 golden.img web1.img
	works overwrite golden.img web1.img
	cmp golden.img web1.img
}

# A domain that is shut down and can be started again from its configuration.
case_configured() {
	image golden golden.img
	image web1 web1.img
	config web1 "$(file /srv/images/web1.img xvda)"
	refuses web1 -- overwrite golden.img web1.img
}

# The same, when the operator says whose disk it is; and not when he says wrongly.
case_configured_and_meant() {
	web1 beat=xvda
	stop web1
	refuses - domain.other -- overwrite --domain web2 golden.img web1.img
	works overwrite --domain web1 golden.img web1.img
	cmp golden.img web1.img
	start web1
	says web1 'xvda is golden'
	beats web1 xvda=ok
}

case_preserved() {
	ON_POWEROFF=preserve web1
	xl shutdown web1
	wait_for 60 sh -c 'xl list web1 | grep -q -- ---s'
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
}

case_crashed() {
	ON_CRASH=preserve web1
	xl sysrq web1 c
	wait_for 60 sh -c 'xl list web1 | grep -qE -- "---s?c"'
	xl list web1
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
}

# The hypervisor's domain is gone, and the toolstack did not hear of it: its node
# and its loop device are left behind, until somebody removes them.
case_left_behind() {
	local id
	web1
	id=$(xl domid web1)
	pkill -9 -x xl
	python3 /lab/guest/destroy-behind "$id"
	sleep 2
	refuses web1 xen.vbd.stale loop.attached lease.refused -- overwrite golden.img web1.img
	losetup -D
	refuses web1 xen.vbd.stale -- overwrite golden.img web1.img
	imgward check --override "xen.vbd.stale:web1.$id" web1.img
	xenstore-rm "/local/domain/0/backend/vbd/$id"
	xenstore-rm "/libxl/$id"
	forget web1
	free web1.img
}
