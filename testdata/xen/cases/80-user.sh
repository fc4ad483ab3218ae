# shellcheck shell=bash
# Somebody who is not root.

setup() {
	image web1 web1.img
	image golden golden.img
	image free free.img
	volume web1 web1
	domu web1 "$(file /srv/images/web1.img xvda), $(phy /dev/vg0/web1 xvdb)"
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
