#!/usr/bin/env bash
# The accident, repeated on throw-away images: a command from the shell history
# with one character wrong, aimed at the disk of a running domain.
#
# The domains are loop devices and the nodes that xl writes for them, in a real
# xenstored where one is installed. Nothing outside a temporary directory is
# touched. Without root there are no loop devices, and that is said.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
root=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/imgward-demo.XXXXXX")
loops=()
store=
cleanup() {
	[ -z "$store" ] || { exec {store_in}>&-; wait "$store" || true; }
	for l in "${loops[@]}"; do losetup -d "$l"; done
	rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# run STATUS COMMAND...: show it, run it, and fail unless it ends with STATUS
run() {
	local want=$1 got=0
	shift
	printf '$ %s\n' "$*"
	"$@" 2>&1 || got=$?
	[ "$got" = 0 ] || printf '(exit status %s)\n' "$got"
	[ "$got" = "$want" ] || { echo "demo: exit status $got, expected $want" >&2; exit 1; }
}

mkdir -p "$work/bin" "$work/xs" "$work/images" "$work/golden/etc"
go build -o "$work/bin/store" ./testdata/demo/store
cp "$root/bin/imgward" "$work/bin/"
export PATH=$work/bin:$PATH IMGWARD_STATE=$work/state
cd "$work/images"

say "A golden image with a partition table and an ext4 file system"
echo golden >"$work/golden/etc/hostname"
truncate -s 64M golden.img
echo 'start=2048, type=83' | sfdisk -q golden.img
mkfs.ext4 -q -F -L golden -E offset=1048576 -d "$work/golden" golden.img 63M
unset XENSTORED_PATH XENSTORED_RUNDIR
for n in 1 2; do run 0 imgward clone golden.img "web$n.img"; done

say "Two domains: web1 is running from its image, web2 was shut down for a rebuild"
dev=
if [ "$(id -u)" = 0 ]; then
	dev=$(losetup -f --show "$PWD/web1.img")
	loops+=("$dev")
	printf 'web1.img is %s now, as xl attaches it\n' "$dev"
else
	echo "not root: no loop device under web1, only its nodes in xenstore"
fi
be=/local/domain/0/backend/vbd/1/51712
{
	echo '/local/domain/0/domid = "0"'
	echo '/local/domain/0/name = "Domain-0"'
	echo '/local/domain/1/domid = "1"'
	echo '/local/domain/1/name = "web1"'
	echo "$be/frontend = \"/local/domain/1/device/vbd/51712\""
	echo "$be/params = \"$PWD/web1.img\""
	[ -z "$dev" ] || printf '%s/physical-device = "%x:%x"\n' "$be" "$((0x$(stat -c %t "$dev")))" "$((0x$(stat -c %T "$dev")))"
	[ -z "$dev" ] || echo "$be/node = \"$dev\""
	printf '%s/%s\n' "$be" 'mode = "w"' "$be" 'dev = "xvda"' "$be" 'online = "1"' "$be" 'state = "4"'
} >"$work/dump"
mkfifo "$work/stdin" "$work/stdout"
store "$work/xs" "$work/dump" <"$work/stdin" >"$work/stdout" &
store=$!
exec {store_in}>"$work/stdin"
{ read -r XENSTORED_PATH; read -r what; } <"$work/stdout"
export XENSTORED_PATH
echo "xenstore: $what"

say "The accident: the line was meant for web2, and one character is wrong"
before=$(sha256sum web1.img)
run 3 imgward overwrite golden.img web1.img </dev/null
[ "$(sha256sum web1.img)" = "$before" ] || { echo "demo: web1.img was changed" >&2; exit 1; }
echo "web1.img is what it was"
if [ -n "$dev" ]; then
	say "The loop device is the same disk under another name"
	run 3 imgward overwrite golden.img "$dev" </dev/null
fi

say "The right command: nobody uses web2, and the operator has to say that it may go"
run 6 imgward overwrite golden.img web2.img </dev/null
token=$(imgward check --porcelain web2.img | cut -f2)
run 0 imgward overwrite golden.img web2.img --confirm "$token"

say "The same line again, out of the shell history"
run 6 imgward overwrite golden.img web2.img --confirm "$token" </dev/null

say "A clone of the golden image to a free target, verified"
run 0 imgward clone --digest blake3 golden.img web3.img
run 0 imgward verify golden.img web3.img
run 0 imgward check web3.img
[ "$(id -u)" = 0 ] || { say "Left out, because it needs root"; echo "the loop device under the running image, and its refusal"; }
say "Done"
