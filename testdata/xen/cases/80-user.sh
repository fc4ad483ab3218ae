# shellcheck shell=bash
# Somebody who is not root.

# The verdict of COMMAND as alice is a refusal that says that she cannot see.
blind() {
	local status=0
	unpriv env IMGWARD_STATE=/tmp/alice "$@" </dev/null >/tmp/said 2>&1 || status=$?
	cat /tmp/said
	[ $status = 3 ]
	grep -q 'could not look at' /tmp/said
	no grep -q '^free' /tmp/said
}

case_own_files() {
	image web1 web1.img
	image golden golden.img
	image free free.img
	domu web1 "$(file /srv/images/web1.img xvda)"
	chown alice web1.img free.img
	chmod 755 /srv /srv/images
	keep web1.img
	blind imgward check web1.img
	blind imgward check free.img
	blind imgward overwrite golden.img web1.img
	blind imgward overwrite golden.img free.img
	kept web1.img
}

case_writable_by_all() {
	image web1 web1.img
	image golden golden.img
	volume db1 db1
	domu web1 "$(file /srv/images/web1.img xvda), $(phy /dev/vg0/db1 xvdb)"
	chmod 666 web1.img "$(realpath /dev/vg0/db1)"
	keep web1.img
	blind imgward overwrite golden.img web1.img
	blind imgward overwrite golden.img /dev/vg0/db1
	kept web1.img
}
