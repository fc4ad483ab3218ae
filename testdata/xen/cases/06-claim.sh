# shellcheck shell=bash
# While imgward writes to a block device, Xen itself refuses it to every domain.
# limit: 700

setup() {
	head -c 128M /dev/urandom >golden.img
	volume_group
	lvcreate -qq -Wn -L 128M -n web1 vg0
	volume db1 db1
	config web1 "$(phy /dev/vg0/web1 xvda)"
	config reader "$(phy /dev/vg0/web1 xvda r)"
	forget web1
	forget reader
	domu db1 "$(phy /dev/vg0/db1 xvda)" beat=xvda
}

# begin: an overwrite of the volume is under way, and stopped in the middle, as if
# it took long. xenstored may be late here, which is a refusal (asked).
begin() {
	local token
	step "begin: imgward overwrite golden.img /dev/vg0/web1"
	asked imgward check --porcelain /dev/vg0/web1 || { cat /tmp/said; return 1; }
	token=$(cut -f 2 /tmp/said)
	for _ in 1 2 3 4 5 6; do
		imgward overwrite -v --confirm "$token" golden.img /dev/vg0/web1 >/tmp/overwrite 2>&1 &
		writer=$!
		wait_for 120 under_way || return 1
		if grep -q step=transfer /tmp/overwrite; then
			kill -STOP "$writer"
			claimed
			return
		fi
		grep -q 'no answer within' /tmp/overwrite || break
	done
	cat /tmp/overwrite
	return 1
}
under_way() { grep -q step=transfer /tmp/overwrite || ! kill -0 "$writer"; }

claims() { xenstore-ls -f | grep -E '^/local/domain/(0/backend/vbd/)?32760(/| =)'; }

# claimed: the claims of the volume and of the disk under it are there
claimed() {
	claims >/tmp/claims
	cat /tmp/claims
	grep -qxF '/local/domain/32760/vm = "/vm/imgward"' /tmp/claims
	grep -qE "/physical-device = \"$(stat -L -c %t:%T /dev/vg0/web1)\"\$" /tmp/claims
	grep -qE "/physical-device = \"$(stat -L -c %t:%T "$DISK1")\"\$" /tmp/claims
	grep -qE "/imgward/pid = \"$writer\"\$" /tmp/claims
}

# refused [DOMAIN...]: by Xen, in every way, and nothing is left of the domain
refused() {
	local how
	for how in "$@"; do
		step "refused: xl create $how"
		no xl create "/root/$how.cfg" >/tmp/xl 2>&1
		cat /tmp/xl
		no xl domid "$how"
	done
}

attach_refused() {
	local disk
	step "refused: xl block-attach"
	for disk in /dev/vg0/web1,xvdb,w /dev/mapper/vg0-web1,xvdc,r; do
		no xl block-attach db1 "phy:$disk" 2>/tmp/xl || return 1
		cat /tmp/xl
		grep -q 'is mounted.* in a guest domain' /tmp/xl || return 1
	done
	xl block-detach db1 xvdb || true
	xl block-detach db1 xvdc || true
	wait_for 60 detached "/local/domain/0/backend/vbd/$(xl domid db1)"
}
# detached BACKEND: the two disks have no node any more
detached() { no xenstore-exists "$1/51728" && no xenstore-exists "$1/51744"; }

# undisturbed: others go on, and Xen's tools see nothing
undisturbed() {
	step undisturbed
	beats db1 xvda=ok
	no grep -q 32760 <(xl list; xl list -l; xl vm-list; xl block-list db1; xentop -b -i 1)
	volume other other
	domu other "$(phy /dev/vg0/other xvda)"
	xl save other /srv/other.save
	xl restore /srv/other.save
	beats other xvda=ok || true
	destroy other
	lvremove -fqq vg0/other
	imgward domains | tee /tmp/domains
	no grep -q 32760 /tmp/domains
}

# A whole overwrite: refused by Xen while it lasts, and all works afterwards.
case_overwrite() {
	begin
	refused web1 reader
	attach_refused
	undisturbed
	no imgward check /dev/vg0/web1
	no imgward release /dev/vg0/web1
	claimed
	kill -CONT "$writer"
	wait "$writer" || { cat /tmp/overwrite; return 1; }
	cat /tmp/overwrite
	no claims
	cmp golden.img /dev/vg0/web1
	xl create /root/web1.cfg
	says web1 'domu: ready'
	destroy web1
	xl create /root/reader.cfg
	destroy reader
	attach db1 /dev/vg0/web1 xvdb
	xl block-detach db1 xvdb
}

# What kill -9 leaves is refused until somebody says that it may boot, or until it
# is overwritten.
case_killed() {
	local way
	for way in release overwrite; do
		begin
		kill -9 "$writer"
		wait "$writer" || true
		refused web1
		asked imgward check /dev/vg0/web1 || { cat /tmp/said; return 1; }
		cat /tmp/said
		grep -q 'imgward release /dev/vg0/web1' /tmp/said
		grep -q 'did not finish' /tmp/said
		if [ $way = release ]; then
			imgward release /dev/vg0/web1
		else
			works overwrite golden.img /dev/vg0/web1
		fi
		no claims
		xl create /root/reader.cfg
		destroy reader
	done
	cmp golden.img /dev/vg0/web1
}

# A domain that was just started is found, and the claim withdrawn.
case_holder_wins() {
	xl create -p /root/web1.cfg
	refuses web1 xen.vbd.connected dm.open -- overwrite golden.img /dev/vg0/web1
	no claims
	destroy web1
}

# --no-claim leaves xenstore alone.
case_switched_off() {
	xenstore-watch -n 2 /local/domain/32760 >/tmp/watched &
	works overwrite --no-claim golden.img /dev/vg0/web1
	kill %1 # an event beside the first, which every watch gets, would have ended it
}

# What looks at all devices for moments stops nothing.
case_noise() {
	step 'lvs; blkid; udevadm trigger'
	while :; do
		lvs
		blkid
		udevadm trigger
	done >/dev/null 2>&1 &
	noise=$!
	works overwrite golden.img /dev/vg0/web1
	kill "$noise"
	wait "$noise" || true
	cmp golden.img /dev/vg0/web1
}
