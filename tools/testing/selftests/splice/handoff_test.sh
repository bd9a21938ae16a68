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

# hand_over NAME MOST WHAT... -- OPTION...: each WHAT is to be said, and that no
# more than MOST pages were copied
hand_over()
{
	name=$1
	most=$2
	shift 2
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
	nr_copied=$(echo "$said" | sed -n 's/.* \([0-9]*\) copied;.*/\1/p')
	[ "${nr_copied:-$pages}" -le "$most" ] || rc=1
	result "$name" $rc "$said"
}

echo TAP version 13
echo 1..2
pages=16384
copied="$pages copied"
# Pages that wait for their list in a batch of another processor do not move.
few=$((31 * 4))
if grep -q '^flip_given ' /proc/vmstat; then
	hand_over by_itself $few 'by page flip' \
		'huge pages 16 MiB, there 16 MiB' -- --quiet
else
	hand_over by_itself $pages 'by write and read' "$copied" -- --quiet
fi
hand_over told_to_copy $pages 'by write and read' "$copied" -- --quiet --copy
exit $status
