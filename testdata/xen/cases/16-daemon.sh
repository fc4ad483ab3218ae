# shellcheck shell=bash
# xenstored with much to say, or with nothing, and somebody who is not root.

setup() {
	image web1 web1.img
	image golden golden.img
	image free free.img
	volume web1 web1
	domu web1 "$(file /srv/images/web1.img xvda), $(phy /dev/vg0/web1 xvdb)"
}

# The socket is not there: the kernel's device leads to the same daemon.
case_no_socket() {
	mv /run/xenstored/socket /run/xenstored/away
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	free free.img
	mv /run/xenstored/away /run/xenstored/socket
}

# More than a thousand nodes of other domains: as much as can be read here within
# imgward's three seconds, where a request takes a millisecond.
case_thousand_nodes() {
	local i b args=()
	for i in {1000..1199}; do
		b=/local/domain/0/backend/vbd/$i/51712
		args+=("/local/domain/$i/name" "other$i" "$b/params" "/srv/other/$i.img" "$b/mode" w "$b/dev" xvda "$b/state" 4 "$b/physical-device" "7:$i")
	done
	xenstore-write "${args[@]}"
	[ "$(xenstore-ls -f | grep -c /1[01][0-9][0-9])" -ge 1000 ]
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	free free.img
	grep -q '20[0-9] domains' /tmp/said
	for i in {1000..1199}; do echo "/local/domain/$i" "/local/domain/0/backend/vbd/$i"; done | xargs xenstore-rm
}

# A free image of a host whose xenstored does not answer is not known to be free.
case_hung() {
	trap 'kill -CONT "$(cat /run/xen/xenstored.pid)"' EXIT
	kill -STOP "$(cat /run/xen/xenstored.pid)"
	HUNG=1 refuses - blind.xen xen.sysfs.vbd loop.attached lease.refused -- overwrite golden.img web1.img
	HUNG=1 refuses - blind.xen -- overwrite golden.img free.img
	kill -CONT "$(cat /run/xen/xenstored.pid)"
	refuses web1 xen.vbd.connected -- overwrite golden.img web1.img
	free free.img
}

# blind COMMAND...: as alice it is refused, because she cannot see enough
blind() {
	local status=0
	step "as alice: $*"
	unpriv env IMGWARD_STATE=/tmp/alice "$@" </dev/null >/tmp/said 2>&1 || status=$?
	cat /tmp/said
	[ $status = 3 ]
	grep -q 'could not look at' /tmp/said
	no grep -q '^free' /tmp/said
}

case_own_files() {
	chown alice web1.img free.img
	keep web1.img
	blind imgward check web1.img
	blind imgward overwrite golden.img web1.img
	kept web1.img
	keep free.img
	blind imgward check free.img
	blind imgward overwrite golden.img free.img
	kept free.img
}

case_writable_by_all() {
	chmod 666 web1.img "$(realpath /dev/vg0/web1)"
	keep /dev/vg0/web1
	blind imgward overwrite golden.img web1.img
	blind imgward overwrite golden.img /dev/vg0/web1
	kept /dev/vg0/web1
}

# Nothing brings back a xenstored that died, so this case is the last one.
case_dead() {
	kill -9 "$(cat /run/xen/xenstored.pid)"
	HUNG=1 refuses - blind.xen xen.sysfs.vbd loop.attached lease.refused -- overwrite golden.img web1.img
	HUNG=1 refuses - blind.xen xen.sysfs.vbd dm.open -- overwrite golden.img /dev/vg0/web1
	HUNG=1 refuses - blind.xen -- overwrite golden.img free.img
	beats web1 xvda=ok
}
