#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# handoff moves its memory on a kernel that can, and by itself copies on any
# other; all of it is right at the other end, with holes and huge pages as they
# were where it was moved.

cd "$(dirname "$0")" || exit 1
nr=0
status=0

# result NAME RC TEXT: what the program said, if it is not what was expected
result()
{
	nr=$((nr + 1))
	if [ "$2" = 0 ]; then
		echo "ok $nr $1"
		return
	fi
	echo "$3" | sed 's/^/# /'
	echo "not ok $nr $1"
	status=1
}

# hand_over NAME WHAT... -- OPTION...: each WHAT is to be said
hand_over()
{
	name=$1
	shift
	want=
	while [ "$1" != -- ]; do
		want="$want$1
"
		shift
	done
	shift
	said=$(./handoff --size=64 "$@" 2>&1)
	rc=$?
	while read -r line; do
		[ -z "$line" ] || echo "$said" | grep -qF "$line" || rc=1
	done <<EOF
$want
EOF
	result "$name" $rc "$said"
}

echo TAP version 13
echo 1..2
copied='16384 copied'
if grep -q '^flip_given ' /proc/vmstat; then
	hand_over by_itself 'by page flip' ' 0 copied' \
		'huge pages 16 MiB, there 16 MiB' -- --quiet
else
	hand_over by_itself 'by write and read' "$copied" -- --quiet
fi
hand_over told_to_copy 'by write and read' "$copied" -- --quiet --copy
exit $status
