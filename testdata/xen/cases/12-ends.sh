# shellcheck shell=bash
# What there is to see of a domain that does not run any more.

# web1 [WORDS]: a new domain with a new image
web1() {
	image golden golden.img
	image web1 web1.img
	domu web1 "$(file /srv/images/web1.img xvda)" "$@"
}

# Nothing holds the image of a saved domain, which goes on with its memory later.
# Of one that was saved where nobody looks, or destroyed at its work, there is
# only what it left on the disk: a file system that was not unmounted. Whose it
# is nobody can say then but the operator.
case_saved_and_destroyed() {
	local override
	web1 beat=xvda
	mkdir -p /var/lib/xen/save
	xl save web1 /var/lib/xen/save/web1
	forget web1
	refuses web1 saved.named content.dirty -- overwrite golden.img web1.img
	refuses web1 domain.other -- overwrite --domain web2 golden.img web1.img
	mv /var/lib/xen/save/web1 /srv/web1.save
	refuses - content.dirty -- overwrite golden.img web1.img

	xl restore /srv/web1.save
	FROM=2M refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	beats web1 xvda=ok
	rm /srv/web1.save
	destroy web1
	refuses - content.dirty -- overwrite golden.img web1.img
	override=$(jq -r '.findings[] | select(.code == "content.dirty") | .override' /tmp/refusal)
	works overwrite --override "$override" golden.img web1.img
	cmp golden.img web1.img
}

# A domain that can be started from its configuration, whatever the file is
# called that xendomains starts it from. The operator says whose disk he means,
# and when he says wrongly, or the domain runs, that does not help.
case_configured() {
	image golden golden.img
	image web1 web1.img
	config web1 "$(file /srv/images/web1.img xvda)" beat=xvda
	refuses web1 config.named -- overwrite golden.img web1.img
	mkdir -p /etc/xen/auto /srv/domains
	mv /etc/xen/web1.cfg /srv/domains/web1
	ln -s /srv/domains/web1 /etc/xen/auto/10-web1
	refuses web1 config.named -- overwrite golden.img web1.img
	mv /srv/domains/web1 /etc/xen/web1.cfg
	rm -r /etc/xen/auto /srv/domains

	start web1
	FROM=2M refuses web1 domain.running xen.vbd.connected -- overwrite --domain web1 golden.img web1.img
	stop web1
	refuses web1 domain.other -- overwrite --domain web2 golden.img web1.img
	works overwrite --domain web1 golden.img web1.img
	cmp golden.img web1.img
	start web1
	says web1 'xvda is golden'
	beats web1 xvda=ok
	stop web1
	forget web1
	refuses - domain.unproven -- overwrite --domain web1 golden.img web1.img
	free web1.img
}

# A crashed domain is kept. Then the hypervisor's domain goes and the toolstack
# does not hear of it: its node, its loop device and libxl's record of it are
# left behind, until somebody removes them.
case_crashed_and_left_behind() {
	local id
	ON_CRASH=preserve web1 sysrq_always_enabled
	id=$(xl domid web1)
	xl sysrq web1 c
	wait_for 60 sh -c 'xl list web1 | grep -q -- ---sc'
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img

	pkill -9 -x xl || true
	python3 /lab/guest/destroy-behind "$id"
	sleep 2
	forget web1
	refuses web1 xen.vbd.stale config.named loop.attached lease.refused -- overwrite golden.img web1.img
	rm /var/lib/xen/userdata-*."$id".*
	losetup -D
	refuses web1 xen.vbd.stale -- overwrite golden.img web1.img
	does check --override "xen.vbd.stale:web1.$id" web1.img
	xenstore-rm "/local/domain/0/backend/vbd/$id"
	xenstore-rm "/libxl/$id"
	free web1.img
}
