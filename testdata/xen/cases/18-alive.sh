# shellcheck shell=bash
# One domain in the states that it comes out of alive.

setup() {
	image golden golden.img
	image web1 web1.img
	ON_POWEROFF=preserve domu web1 "$(file /srv/images/web1.img xvda)"
}

case_paused() {
	xl pause web1
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	xl unpause web1
	# Before its first instruction a domain has its disks, too.
	image new new.img
	config new "$(file /srv/images/new.img xvda)"
	xl create -q -p /etc/xen/new.cfg
	refuses new xen.vbd.connected loop.attached lease.refused -- overwrite golden.img new.img
	destroy new
}

case_meant_for_another() {
	refuses web1 domain.other -- overwrite --domain web2 golden.img web1.img
	refuses web1 xen.vbd.connected -- overwrite --domain web1 golden.img web1.img
}

# A disk is unplugged while looks go on: each look says yes or no, and the last
# one that it is free.
case_unplugged_meanwhile() {
	local status=3
	image data data.img
	attach web1 /srv/images/data.img xvdb
	imgward check -q data.img || status=$?
	[ $status = 3 ]
	xl block-detach web1 xvdb &
	for _ in {1..60}; do
		status=0
		imgward check -q data.img || status=$?
		echo "exit status $status"
		[ $status = 3 ] || break
	done
	[ $status = 0 ]
	wait
	free data.img
}

# looks PID CHECK...: looks while the process lives. Every look must find the
# target in use.
looks() {
	local answers=''
	while kill -0 "$1" 2>/dev/null; do
		imgward check -q "${@:2}" || answers+=$?
		answers+=' '
	done
	echo "exit statuses: $answers"
	[ -n "$answers" ] && [ -z "${answers//3 /}" ]
}

# Migration to this very host. Debian's Xen cannot follow what a running PV domain
# writes to its memory and gives up; the image is in use all the time.
case_migration() {
	xl migrate -s 'sh -c "shift; exec \"\$@\"" sh' web1 localhost >/tmp/migration 2>&1 &
	looks $! web1.img
	cat /tmp/migration
	xl list
	beats web1 xvda=ok
}

# Between the two lives of a rebooting domain nothing holds its image, and there
# is no node for it. xl, which starts it again, is stopped there for two looks;
# others go on all the time.
case_reboot() {
	local before id looking
	trap 'pkill -CONT -x xl || true' EXIT
	before=$(wc -l <"$(console web1)")
	id=$(xl domid web1)
	xl reboot web1
	says web1 'domu: ready' "$before" &
	looks $! web1.img &
	looking=$!
	# xl waits for two seconds then.
	timeout 120 grep -q 'Rebooting now' < <(exec tail -n +1 -F /var/log/xen/xl-web1.log)
	pkill -STOP -x xl
	[ -z "$(losetup -n -j web1.img)" ]
	no xenstore-exists "/local/domain/$id"
	# What web1 had plugged in only xl knows now, so that every image may be its.
	HUNG=1 refuses web1 config.named blind.configs -- overwrite golden.img web1.img
	HUNG=1 refuses - domain.restarting -- overwrite --domain web1 golden.img web1.img
	pkill -CONT -x xl
	wait $looking
	beats web1 xvda=ok
}

# A domain that has shut down and is kept, then without the xl that would have
# taken its disks away.
case_preserved() {
	xl shutdown web1
	wait_for 60 sh -c 'xl list web1 | grep -q -- ---s'
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
	pkill -9 -x xl || true
	refuses web1 xen.vbd.connected loop.attached lease.refused -- overwrite golden.img web1.img
}
