#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Init of the guest that vmtest.sh boots.  /conf says what to do; results go to
# the second serial line, the kernel's messages to the first.

# shellcheck shell=dash disable=SC2154 # variables of /conf
/bin/busybox --install -s /bin
export PATH=/bin:/tests HOME=/root TERM=linux
# shellcheck source=/dev/null
. /conf

setup()
{
	mount -t devtmpfs none /dev
	mount -t proc none /proc
	mount -t sysfs none /sys
	mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
	mount -t devpts none /dev/pts
	mount -t tmpfs none /dev/shm
	mount -t tmpfs none /tmp
	mount -t debugfs none /sys/kernel/debug
	mount -t cgroup2 none /sys/fs/cgroup
	mkdir -p /mnt/ext4 /mnt/xfs /mnt/tmpfs /mnt/overlay
	mount -t ext4 /dev/vda /mnt/ext4
	mount -t xfs /dev/vdb /mnt/xfs
	mount -t tmpfs -o size=75% none /mnt/tmpfs
	mkdir -p /mnt/ext4/.lower /mnt/ext4/.upper /mnt/ext4/.work
	mount -t overlay -o \
		lowerdir=/mnt/ext4/.lower,upperdir=/mnt/ext4/.upper,workdir=/mnt/ext4/.work \
		none /mnt/overlay
	ip link set lo up
	ln -s /proc/self/fd /dev/fd
	echo root:x:0:0::/root:/bin/sh > /etc/passwd
}

# Indented, as KTAP wants the results of a program below its own line.
run_program()
{
	local args="" status why

	case $filter in
	"")	;;
	*.*)	args="-r $filter" ;;
	*)	args="-t $filter" ;;
	esac
	echo "  # Subtest: $1"
	# shellcheck disable=SC2086 # two words or none
	{ timeout -k 5 "$prog_limit" "/tests/$1" $args 2>&1
	  echo $? > /tmp/status; } | tee /tmp/said | sed 's/^/  /'
	status=$(cat /tmp/status)
	why=$(sed -n 's/^1\.\.0 # SKIP//p' /tmp/said)
	n=$((n + 1))
	case $status in
	0)	echo "ok $n $1" ;;
	4)	echo "ok $n $1 # SKIP$why" ;;
	124|143) echo "not ok $n $1 # timeout" ;;
	*)	echo "not ok $n $1 # exit=$status" ;;
	esac
}

run_tests()
{
	local n=0 p

	cd /tests || return 1
	echo "KTAP version 1"
	# shellcheck disable=SC2086 # a list of words
	echo "1..$(echo $programs | wc -w)"
	for p in $programs; do
		run_program "$p"
	done
}

# An object is a leak if a scan finds it at least 5 s old, with no pointer to it
# and as the scan before left it.
scan_for_leaks()
{
	{ echo scan > /sys/kernel/debug/kmemleak && sleep 6 &&
	  echo scan > /sys/kernel/debug/kmemleak; } 2>/dev/null || return
	head -n 300 /sys/kernel/debug/kmemleak > /dev/console
}

# What has found nothing because it gave up, or was never on.
detectors()
{
	[ ! -e /sys/kernel/debug/kmemleak ] || scan_for_leaks ||
		echo "# vmtest: off kmemleak"
	! grep -qs 'debug_locks: *0' /proc/lockdep_stats ||
		echo "# vmtest: off lockdep"
	! grep -qs '^enabled: 0' /sys/kernel/debug/kcsan ||
		echo "# vmtest: off KCSAN"
	[ ! -e /sys/kernel/debug/kcsan ] ||
		cat /sys/kernel/debug/kcsan > /dev/console
}

setup > /dev/console 2>&1
if [ "$mode" = shell ]; then
	cd /tests || :
	setsid sh -c 'exec sh -l </dev/ttyS0 >/dev/ttyS0 2>&1'
	poweroff -f
fi
stty -opost < /dev/ttyS1
exec > /dev/ttyS1 2>&1 < /dev/null
echo "# vmtest: up"
case $mode in
test)	run_tests ;;
run)	cd /tests && sh -c "$command" ;;
esac
status=$?
[ "$mode" = probe ] || detectors
echo "# vmtest: exit $status"
sync
reboot -f
