# shellcheck shell=bash
# What the cases about imgward's claims are written in. They have the volumes web1
# and web2 of 8 MiB, an image for them, and a domain db1 on a disk of its own.

# claim_setup [DISK]: makes them; db1 has one more disk.
claim_setup() {
	local v
	head -c 8M /dev/urandom >golden.img
	volume_group
	for v in web1 web2; do lvcreate -qq -Wn -L 8M -n $v vg0; done
	volume db1 db1
	config web1 "$(phy /dev/vg0/web1 xvda)"
	config web2 "$(phy /dev/vg0/web2 xvda)"
	config reader "$(phy /dev/vg0/web1 xvda r)"
	forget web1
	forget reader
	domu db1 "$(phy /dev/vg0/db1 xvda)${1:+, $1}" beat=xvda
}

# begin TARGET OPTION...: an overwrite is under way and waits for the rest of its
# source; its process is $writer, and /tmp/overwrite what it says. xenstored may be late here,
# which is a refusal (asked).
begin() {
	local token
	step "begin: imgward overwrite ${*:2} - $1"
	asked imgward check --porcelain "${@:2}" "$1" || { cat /tmp/said; return 1; }
	token=$(cut -f 2 /tmp/said)
	for _ in {1..6}; do
		rm -f /tmp/rest
		mkfifo /tmp/rest
		{ head -c 2M && read -r </tmp/rest && cat; } <golden.img |
			imgward overwrite -v --confirm "$token" "${@:2}" - "$1" >/tmp/overwrite 2>&1 &
		writer=$!
		wait_for 120 under_way || return 1
		! grep -q step=transfer /tmp/overwrite || return 0
		grep -q 'no answer within' /tmp/overwrite || break
	done
	cat /tmp/overwrite
	return 1
}
under_way() { grep -q step=transfer /tmp/overwrite || ! kill -0 "$writer"; }

# hold VOLUME OPTION...: begin, stopped, as if it took long. It costs nothing so.
hold() {
	begin "/dev/vg0/$1" "${@:2}"
	kill -STOP "$writer"
	claimed "$1"
}
# finish TARGET: the rest is written, and TARGET is as it should be
finish() {
	step "finish: $1"
	kill -CONT "$writer"
	echo >/tmp/rest
	wait "$writer" || { cat /tmp/overwrite; return 1; }
	cat /tmp/overwrite
	cmp golden.img "$1"
	no claims
}

# break_off: the overwrite's process is killed
break_off() {
	kill -9 "$writer"
	echo >/tmp/rest
	wait "$writer" || true
}

claims() { xenstore-ls -f | grep -E '^/local/domain/(0/backend/vbd/)?32760(/| =)'; }

# claimed VOLUME: the claims of the volume and of the disk under it are there
claimed() {
	claims >/tmp/claims
	cat /tmp/claims
	grep -qxF '/local/domain/32760/vm = "/vm/imgward"' /tmp/claims
	grep -qE "/physical-device = \"$(stat -L -c %t:%T "/dev/vg0/$1")\"\$" /tmp/claims
	grep -qE "/physical-device = \"$(stat -L -c %t:%T "$DISK1")\"\$" /tmp/claims
	grep -qE "/imgward/pid = \"$writer\"\$" /tmp/claims
}

# refused DOMAIN...: by Xen, and nothing is left of the domain
refused() {
	local d
	for d in "$@"; do
		step "refused: xl create $d"
		no xl create "/root/$d.cfg" >/tmp/xl 2>&1
		cat /tmp/xl
		grep -q 'is mounted.* in a guest domain' /tmp/xl
		no xl domid "$d"
	done
}

# attach_refused DISK...: a running domain does not get web1
attach_refused() {
	local disk
	for disk in "$@"; do
		step "refused: xl block-attach $disk"
		no xl block-attach db1 "phy:$disk" 2>/tmp/xl || return 1
		cat /tmp/xl
		grep -q 'is mounted.* in a guest domain' /tmp/xl || return 1
	done
	xl block-detach db1 xvdc || true
	xl block-detach db1 xvdd || true
	wait_for 60 detached "/local/domain/0/backend/vbd/$(xl domid db1)"
}
# detached BACKEND: the two disks have no node any more
detached() { no xenstore-exists "$1/51744" && no xenstore-exists "$1/51760"; }

# all_work: what was refused of web1 works
all_work() {
	step 'all work again'
	xl create -q -p /root/web1.cfg
	destroy web1
	xl create -q -p /root/reader.cfg
	destroy reader
	attach db1 /dev/vg0/web1 xvdc
	xl block-detach db1 xvdc
}

# reboot_refused: a domain reboots, and before it has its disk again imgward has
# it. The domain's configuration was changed while it ran, so that nothing says any
# more whose disk it is; that xl may start it again at any moment the operator takes
# upon himself. The domain stays down.
reboot_refused() {
	local xl log=/var/log/xen/xl-web2.log
	trap 'pkill -CONT -x xl || true' EXIT
	start web2
	config web2 ''
	xl reboot web2
	# xl waits for two seconds then.
	timeout 120 grep -q 'Rebooting now' < <(exec tail -n +1 -F $log)
	xl=$(xl_of web2)
	kill -STOP "$xl"
	no imgward check /dev/vg0/web2
	hold web2 --override "blind.configs:/proc/$xl/cmdline"
	kill -CONT "$xl"
	step 'refused: the restart'
	gone web2
	tail -n 5 $log
	grep -q 'is mounted.* in a guest domain' $log
	finish /dev/vg0/web2
	no xl domid web2
	domu web2 "$(phy /dev/vg0/web2 xvda)"
	destroy web2
}

# left_behind: what a killed overwrite leaves, and what check says to do
left_behind() {
	break_off
	asked imgward check /dev/vg0/web1 || { cat /tmp/said; return 1; }
	cat /tmp/said
	grep -q 'imgward release /dev/vg0/web1' /tmp/said
	grep -q 'did not finish' /tmp/said
}
