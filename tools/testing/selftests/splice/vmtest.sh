#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build a small kernel and the splice selftests, boot them in QEMU, run them.
# Needs no distribution image: the guest is an initramfs of busybox and the
# statically linked tests, with scratch disks for ext4 and xfs.
#
# The run fails when a test fails, and also on a kernel splat, a missing or
# unfinished plan, a skip that vmtest.skips does not name, a time-out, and a
# guest that ends early.  Modelled on selftests/liveupdate/vmtest.sh.

set -u
# Flags of a make that called this are not for the kernel's.
unset MAKEFLAGS MFLAGS MAKELEVEL

test_dir=$(dirname "$(realpath "$0")")
srctree=$(realpath "$test_dir/../../../..")
build_dir=""
workspace=""
bin_dir=""
mod_dir=""
keep_workspace=0
build_first=1
jobs=$(nproc)
accel=auto
mem=2048
cpus=2
nodes=1
limit=1800
prog_limit=""
boot_limit=300
filter=""
command=""
mode="test"
fragments=()
expected_skips=()
programs=()
environment=()
drives=()

SPLAT='BUG:|WARNING:|Oops|(KASAN|KCSAN|KMSAN|UBSAN): |kernel BUG|Kernel panic'
SPLAT+='|general protection|possible (recursive|circular|irq)|INFO: (task|rcu)'
SPLAT+='|soft lockup|hard LOCKUP|unreferenced object|bad page|Bad rss-counter'
SPLAT+='|Out of memory:|suspicious RCU|held lock|stack segment|unable to handle'
SPLAT+='|INFO: trying to register|turning off the locking|pagealloc: |ODEBUG disabled'

usage()
{
	cat <<EOF
usage: ${0##*/} [option ...]
  -d DIR     kernel build directory (default: .vmtest_build in the tree)
  -S DIR     kernel source, when it is not the tree of this script
  -c FILE    further config fragment; may be repeated, the last one wins
  -B         build the kernel only
  -K         run the kernel that is built, without looking for changes
  -b DIR     run the programs in DIR, statically linked or scripts, instead of
             building those of the tree; modules in DIR/test_modules likewise
  -j N       jobs of the build (default: $(nproc))
  -t NAME    run this test program only, also one that does not run by
             itself; may be repeated
  -f FILTER  run only these tests of it: a harness test name, or a full
             fixture.variant.test
  -E NAME=VALUE  set this in the environment of the programs; may be repeated
  -e TEXT    a skip whose line has TEXT is expected; may be repeated
  -r CMD     run CMD in the guest instead of the tests, print its output
  -i         interactive: a shell in the guest
  -x FILE    further read-only disk: /dev/vdc, /dev/vdd, ...; may be repeated
  -a ACCEL   kvm, tcg, icount (tcg, the clock counts instructions), or auto:
             kvm where it boots this kernel, else tcg (default)
  -m MIB     memory of the guest (default: $mem)
  -n N       processors of the guest (default: $cpus)
  -N N       memory nodes of the guest, among which its memory and processors
             are divided (default: $nodes)
  -s SEC     time limit of the guest (default: $limit)
  -p SEC     time limit of a program (default: that of the file settings)
  -w DIR     keep initramfs, disks, console log and results here
  -h         this help
EOF
}

die()
{
	echo "vmtest: $*" >&2
	exit 1
}

need()
{
	command -v "$1" >/dev/null ||
		die "$1 is missing; install it (Debian: apt-get install ${2:-$1})"
}

kmake()
{
	make -C "$srctree" O="$build_dir" ARCH=x86_64 -j"$jobs" "$@"
}

# Every symbol that a fragment asks for must be in the final .config: Kconfig
# drops what it does not know or what lacks a dependency without a word.
verify_config()
{
	awk -F= -v cfg="$build_dir/.config" '
		BEGIN { while ((getline l < cfg) > 0) have[l] = 1 }
		/^CONFIG_/ { want[$1] = $0 }
		/^# CONFIG_.* is not set$/ { split($0, w, " "); want[w[2]] = w[2] "=n" }
		END {
			for (s in want) {
				if (want[s] == s "=n")
					lost = (s "=y" in have || s "=m" in have)
				else
					lost = !(want[s] in have)
				if (lost)
					print want[s]
			}
		}' "$build_dir/vmtest.config" | sort
}

build_kernel()
{
	local lost tool

	for tool in gcc flex bison bc perl; do
		need $tool
	done
	# A compiler cache stands in for a compiler that is not there.
	gcc --version >/dev/null 2>&1 || die "gcc does not run; install it"
	[[ $srctree$build_dir != *[[:space:]:]* ]] ||
		die "a kernel cannot be built below a path with a space or colon"
	[[ -f $srctree/Kconfig && -d $srctree/mm ]] ||
		die "$srctree is no kernel tree; name one with -S"
	mkdir -p "$build_dir" || die "cannot make $build_dir"
	cat "$test_dir/config" "$test_dir/config.x86_64" "${fragments[@]}" \
		> "$build_dir/vmtest.config" || die "cannot read the fragments"
	kmake -s KCONFIG_ALLCONFIG="$build_dir/vmtest.config" allnoconfig \
		2> "$build_dir/vmtest.config.err" ||
		die "allnoconfig failed:" \
			"$(grep -m1 -iE 'error|not found' "$build_dir/vmtest.config.err")"
	lost=$(verify_config)
	[[ -z $lost ]] || die "not in the final .config: ${lost//$'\n'/ }"
	kmake bzImage modules || die "the kernel does not build"
	rm -rf "$build_dir/vmtest.modules"
	kmake -s modules_install \
		INSTALL_MOD_PATH="$build_dir/vmtest.modules" >/dev/null ||
		die "modules_install failed"
}

# The tests come from the tree of this script even when the kernel does not.
build_tests()
{
	local f top hdr=$build_dir/vmtest.tests/hdr

	if [[ $bin_dir ]]; then
		mapfile -t all_programs < <(cd "$bin_dir" &&
			find -L . -maxdepth 1 -type f -printf '%P\n' | LC_ALL=C sort)
		return
	fi
	top=$(realpath "$test_dir/../../../..")
	bin_dir=$build_dir/vmtest.tests/bin
	mkdir -p "$bin_dir" || die "cannot make $bin_dir"
	make -s -C "$top" O="$hdr" ARCH=x86_64 headers >/dev/null ||
		die "the headers do not build"
	make -s -C "$test_dir" OUTPUT="$bin_dir" USERLDFLAGS=-static \
		KHDR_INCLUDES="-isystem $hdr/usr/include" TEST_GEN_MODS_DIR= \
		-j"$jobs" all >&2 ||
		die "the tests do not build"
	for f in "$test_dir"/*.sh; do
		[[ $f -ef $bin_dir/${f##*/} ]] || cp -p "$f" "$bin_dir"
	done
	mapfile -t all_programs < <(make -s -C "$test_dir" OUTPUT="$bin_dir" \
		COLLECTION=splice emit_tests | sed -n 's/^splice://p')
}

# Modules are for one kernel, so they are built for the one that is booted, for
# programs of another directory too, unless that brings modules of its own.
build_modules()
{
	mod_dir=$bin_dir/test_modules
	! compgen -G "$mod_dir/*.ko" >/dev/null || return 0
	mod_dir=$build_dir/vmtest.tests/modules
	[[ -f $test_dir/test_modules/Makefile ]] || return 0
	mkdir -p "$mod_dir" || die "cannot make $mod_dir"
	make -s -C "$test_dir/test_modules" KDIR="$build_dir" MO="$mod_dir" \
		ARCH=x86_64 >&2 || die "the test modules do not build"
}

choose_programs()
{
	local p

	(( ${#programs[@]} )) || programs=("${all_programs[@]}")
	for p in "${programs[@]}"; do
		[[ " ${all_programs[*]} " == *" $p "* || -x $bin_dir/$p ]] ||
			die "no test program $p; there are: ${all_programs[*]}"
	done
}

guest_conf()
{
	printf 'mode=%q\n' "$mode"
	printf 'programs=%q\n' "${programs[*]}"
	printf 'filter=%q\n' "$filter"
	printf 'command=%q\n' "$command"
	printf 'prog_limit=%q\n' "$prog_limit"
	(( ! ${#environment[@]} )) || printf 'export %q\n' "${environment[@]}"
}

# gen_init_cpio makes device nodes without being root.
make_initrd()
{
	local busybox f

	busybox=$(command -v busybox) || die "no busybox (busybox-static)"
	guest_conf > "$workspace/conf"
	{
		for f in bin dev etc lib lib/modules mnt proc root sys tests \
			 tmp usr usr/bin; do
			echo "dir /$f 0755 0 0"
		done
		echo "nod /dev/console 0600 0 0 c 5 1"
		echo "slink /bin/sh busybox 0777 0 0"
		echo "slink /sbin /bin 0777 0 0"
		echo "file /bin/busybox $busybox 0755 0 0"
		echo "file /init $test_dir/vmtest-init.sh 0755 0 0"
		echo "file /conf $workspace/conf 0644 0 0"
		for f in "$bin_dir"/*; do
			[[ -f $f ]] && echo "file /tests/${f##*/} $f 0755 0 0"
		done
		echo "dir /tests/test_modules 0755 0 0"
		for f in "$mod_dir"/*.ko; do
			[[ -f $f ]] && echo "file /tests/test_modules/${f##*/} $f 0644 0 0"
		done
		cd "$build_dir/vmtest.modules" && find lib/modules/* \
			\( -type d -printf 'dir /%p 0755 0 0\n' \) -o \
			\( -type f -printf "file /%p $PWD/%p 0644 0 0\n" \)
	} > "$workspace/list"
	"$build_dir/usr/gen_init_cpio" "$workspace/list" \
		> "$workspace/initrd" || die "cannot make the initramfs"
}

make_disks()
{
	rm -f "$workspace"/{ext4,xfs}.img
	if ! truncate -s 640M "$workspace/ext4.img" "$workspace/xfs.img" ||
	   ! mkfs.ext4 -q "$workspace/ext4.img" ||
	   ! mkfs.xfs -q "$workspace/xfs.img"; then
		die "cannot make the scratch disks in $workspace"
	fi
}

accel_args()
{
	local smp=$cpus

	# Processors that share a cache must be of one node.
	(( nodes == 1 )) || smp+=,sockets=$cpus
	case $1 in
	kvm)	echo "-accel kvm -cpu host -smp $smp" ;;
	tcg)	echo "-accel tcg,thread=multi -cpu max,la57=off -smp $smp" ;;
	icount)	echo "-accel tcg -icount shift=0,sleep=off -smp 1" \
			"-cpu max,-erms,-fsrm,la57=off" ;;
	esac
}

node_args()
{
	local i cpu part=$((mem / nodes))

	for ((i = 0; nodes > 1 && i < nodes; i++)); do
		(( i < nodes - 1 )) || part=$((mem - i * part))
		echo "-object memory-backend-ram,id=node$i,size=${part}M"
		echo "-numa node,nodeid=$i,memdev=node$i$(
			for ((cpu = i; cpu < cpus; cpu += nodes)); do
				printf ',cpus=%d' $cpu
			done)"
	done
}

# Time jumps while an -icount guest waits for its disk: no task hangs there.
kernel_args()
{
	echo "console=ttyS0 panic=-1 norandmaps"
	[[ $mode != shell ]] || echo "loglevel=4"
	[[ $1 != icount ]] || echo "sysctl.kernel.hung_task_timeout_secs=0"
	# Free pages are poisoned only if somebody asks for it.
	! grep -qs '^CONFIG_PAGE_POISONING=y' "$build_dir/.config" ||
		echo "page_poison=1"
}

# Fill $qemu.  The console goes to a file, results to the second serial line:
# what the kernel prints cannot tear a result apart.
qemu_command()
{
	local drive

	# shellcheck disable=SC2207 # a list of words
	qemu=(qemu-system-x86_64 -M q35 -m "$mem" $(accel_args "$1") $(node_args)
		-no-reboot -nodefaults -no-user-config -display none
		-kernel "$build_dir/arch/x86/boot/bzImage"
		-initrd "$workspace/initrd"
		-pidfile "$workspace/qemu.pid"
		-append "$(kernel_args "$1" | tr '\n' ' ')")
	for drive in "$workspace/ext4.img" "$workspace/xfs.img"; do
		qemu+=(-drive
			"file=${drive//,/,,},format=raw,if=virtio,cache=unsafe")
	done
	for drive in "${drives[@]}"; do
		qemu+=(-drive
			"file=${drive//,/,,},format=raw,if=virtio,readonly=on")
	done
	if [[ $mode == shell ]]; then
		qemu+=(-serial mon:stdio)
	else
		qemu+=(-serial "file:$workspace/console.log" -serial stdio)
	fi
}

# A /dev/kvm that is there need not work: boot this very kernel, with a limit.
# The answer holds until the host boots again.
probe_accel()
{
	local memo=$build_dir/vmtest.accel saved=$mode boot

	[[ $accel == auto ]] || return 0
	accel=tcg
	[[ -w /dev/kvm ]] || return 0
	boot=$(cat /proc/sys/kernel/random/boot_id)
	if ! grep -qs "^$boot " "$memo"; then
		mode=probe
		make_initrd
		qemu_command kvm
		timeout --foreground -k 1 15 "${qemu[@]}" </dev/null 2>&1 |
			grep -q '^# vmtest: exit 0' && accel=kvm
		echo "$boot $accel" > "$memo"
		mode=$saved
	fi
	accel=$(sed "s/^$boot //" "$memo")
}

booted()
{
	grep -q '^# vmtest: up' "$workspace/output"
}

# QEMU takes the file away when it ends.
end_qemu()
{
	local pid

	pid=$(cat "$workspace/qemu.pid" 2>/dev/null)
	[[ -z $pid ]] || kill "$pid" 2>/dev/null
}

# A kernel that hangs on its way to init is not worth the whole time limit.
watch_boot()
{
	local i

	for ((i = 0; i < boot_limit; i++)); do
		sleep 1
		! booted || return
	done
	end_qemu
}

boot()
{
	local watchdog

	make_disks
	make_initrd
	qemu_command "$accel"
	: > "$workspace/console.log"
	: > "$workspace/output"
	watch_boot 8>&- &
	watchdog=$!
	# In the background, so that a signal to this shell is acted on at once.
	{ timeout --foreground -k 5 "$limit" "${qemu[@]}" \
		</dev/null 2> "$workspace/qemu.err"
	  echo $? > "$workspace/qemu.status"; } |
		sed -u 's/\r$//' | tee "$workspace/output" |
		grep --line-buffered -v '^# vmtest: ' &
	wait $!
	qemu_status=$(cat "$workspace/qemu.status")
	kill $watchdog 2>/dev/null
}

# QEMU's emulation now and then traps on a kernel instruction that was just
# patched at run time.  Exactly that is no finding about the kernel: boot once
# more, and say so.
boot_again_after_int3()
{
	[[ $accel != kvm ]] || return 0
	grep -q 'Oops: int3' "$workspace/console.log" || return 0
	echo "# vmtest: emulator tripped over patched code (int3), boot repeated"
	boot
}

# What KUnit printed at boot, as if each of its suites were a program.
add_kunit_results()
{
	sed -nE -e 's/\r$//' -e 's/^\[ *[0-9.]+\] //' -e 's/^    ([^ ])/  \1/' \
		-e '/^(  1\.\.[0-9]|(  )?(not )?ok [0-9]+ )/p' \
		"$workspace/console.log" | tee -a "$workspace/output"
}

# Leaf results: those of a program that prints a plan, else the program itself.
# A program that fails after passing all its results is a failure too.
count_results()
{
	awk '
		function tally(line) {
			if (line ~ /^ *not ok/) bad++
			else if (line ~ /# SKIP/) skip++
			else pass++
		}
		/^  1\.\.[0-9]+/ && !/# SKIP/ { leaf = 1; planned = substr($1, 4) + 0 }
		/^  (not )?ok / { got++; tally($0) }
		/^(not )?ok / {
			if (!leaf || (/^not/ && !bad))
				tally($0)
			if (leaf && got != planned)
				short++
			fail += bad
			leaf = got = bad = 0
		}
		END { print pass + 0, fail + bad, skip + 0, short + 0 }
	' "$workspace/output"
}

# Skips that neither vmtest.skips (a fixed string a line) nor -e names.
unexpected_skip()
{
	{ grep -v -e '^#' -e '^$' "$test_dir/vmtest.skips"
	  (( ! ${#expected_skips[@]} )) || printf '%s\n' "${expected_skips[@]}"
	} > "$workspace/skips"
	grep -E '^ *(not )?ok .*# SKIP' "$workspace/output" |
		grep -m1 -vFf "$workspace/skips"
}

# What the kernel complained of.  KCSAN looks everywhere: what counts are races
# of these files and of modules.
complaints()
{
	nm "$build_dir"/{fs/{pipe,read_write,splice,vmsplice},mm/page_flip}.o \
		2>/dev/null > "$workspace/functions"
	tr -d '\r' < "$workspace/console.log" | grep -E "$SPLAT" | awk '
		!said { ours[$3] = 1; next }
		/BUG: KCSAN: data-race in / && !/ \[[a-z_]+\]/ {
			sub(/\+0x[^ ]*$/, "")
			if (!($NF in ours) && !($(NF - 2) in ours))
				next
		}
		1
	' "$workspace/functions" said=1 -
}

races()
{
	grep -c 'BUG: KCSAN: data-race in '
}

# Why this run failed, in one line; nothing if it did not.
verdict()
{
	local pass fail skip short splat

	read -r pass fail skip short < <(count_results)
	splat=$(complaints | head -n1)
	if [[ $splat ]]; then
		echo "the kernel complained: $splat"
	elif (( qemu_status == 124 || qemu_status == 137 )); then
		echo "no end within $limit s"
	elif (( qemu_status )); then
		echo "QEMU failed: $(grep -m1 qemu-system "$workspace/qemu.err")"
	elif ! booted; then
		echo "the kernel did not reach init (limit $boot_limit s):" \
			"$(tail -n1 "$workspace/console.log")"
	elif grep -q '^# vmtest: off' "$workspace/output"; then
		echo "a detector gave up: $(sed -n 's/^# vmtest: off //p' \
			"$workspace/output" | paste -sd ' ')"
	elif ! grep -q '^# vmtest: exit' "$workspace/output"; then
		echo "the guest ended early: $(tail -n1 "$workspace/console.log")"
	elif [[ $mode == run ]]; then
		grep -q '^# vmtest: exit 0$' "$workspace/output" ||
			echo "the command failed in the guest"
	elif (( fail )); then
		echo "$fail failed: $(grep -m1 -E '^ *not ok' "$workspace/output")"
	elif (( short )); then
		echo "$short programs ended before their plan"
	elif unexpected_skip >/dev/null; then
		echo "unexpected skip: $(unexpected_skip)"
	elif (( pass == 0 )); then
		echo "nothing ran"
	fi
}

report()
{
	local pass fail skip short why elsewhere

	why=$(verdict)
	elsewhere=$(($(races < "$workspace/console.log") - $(complaints | races)))
	(( ! elsewhere )) || echo "# vmtest: data races elsewhere: $elsewhere"
	if [[ $mode == test ]]; then
		read -r pass fail skip short < <(count_results)
		echo "# Totals: pass:$pass fail:$fail xfail:0 xpass:0" \
			"skip:$skip error:$([[ $why ]] && echo 1 || echo 0)"
	fi
	[[ $why ]] || return 0
	keep_workspace=1
	echo "# vmtest: FAILED: ${why//$'\r'/} (console: $workspace/console.log)"
	return 1
}

cleanup()
{
	end_qemu
	rm -f "$workspace"/{ext4,xfs}.img
	(( keep_workspace )) || rm -rf "$workspace"
}

parse_options()
{
	local opt

	while getopts 'd:S:c:BKb:j:t:f:E:e:r:ix:a:m:n:N:s:p:w:h' opt; do
		case $opt in
		d) build_dir=$OPTARG ;;
		S) srctree=$(realpath -m "$OPTARG") ;;
		c) fragments+=("$(realpath -m "$OPTARG")") ;;
		B) mode=build ;;
		K) build_first=0 ;;
		b) bin_dir=$(realpath -m "$OPTARG") ;;
		j) jobs=$OPTARG ;;
		t) programs+=("$OPTARG") ;;
		f) filter=$OPTARG ;;
		E) environment+=("$OPTARG") ;;
		e) expected_skips+=("$OPTARG") ;;
		r) mode=run command=$OPTARG ;;
		i) mode=shell ;;
		x) drives+=("$(realpath -m "$OPTARG")") ;;
		a) accel=$OPTARG ;;
		m) mem=$OPTARG ;;
		n) cpus=$OPTARG ;;
		N) nodes=$OPTARG ;;
		s) limit=$OPTARG ;;
		p) prog_limit=$OPTARG ;;
		w) workspace=$OPTARG keep_workspace=1 ;;
		h) usage; exit 0 ;;
		*) usage >&2; exit 1 ;;
		esac
	done
	shift $((OPTIND - 1))
	(( $# == 0 )) || die "unexpected argument $1; see -h"
	check_options
}

check_options()
{
	local n f

	: "${prog_limit:=$(sed -n 's/^timeout=//p' "$test_dir/settings")}"
	for n in "$jobs" "$mem" "$cpus" "$nodes" "$limit" "$prog_limit"; do
		[[ $n =~ ^[1-9][0-9]*$ ]] || die "$n is no number; see -h"
	done
	for n in "${environment[@]}"; do
		[[ $n =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] ||
			die "$n is no NAME=VALUE; see -h"
	done
	[[ $accel =~ ^(auto|kvm|tcg|icount)$ ]] || die "no accelerator $accel"
	for f in "${fragments[@]}" "${drives[@]}"; do
		[[ -r $f ]] || die "cannot read $f"
	done
	[[ ! $bin_dir ]] || compgen -G "$bin_dir/*" >/dev/null ||
		die "no programs in $bin_dir"
}

main()
{
	parse_options "$@"
	: "${build_dir:=$srctree/.vmtest_build}"
	mkdir -p "$build_dir" || die "cannot make $build_dir"
	build_dir=$(realpath "$build_dir")
	need gcc
	exec 9> "$build_dir/vmtest.lock"
	flock 9
	if (( build_first )); then
		build_kernel >&2
	fi
	[[ -f $build_dir/arch/x86/boot/bzImage ]] || die "no kernel in $build_dir"
	[[ $mode != build ]] || exit 0

	need qemu-system-x86_64 qemu-system-x86
	need busybox busybox-static
	need mkfs.ext4 e2fsprogs
	need mkfs.xfs xfsprogs
	build_tests
	build_modules
	exec 9>&-
	choose_programs
	[[ $workspace ]] ||
		workspace=$(mktemp -d "${TMPDIR:-/tmp}/vmtest.XXXXXX") ||
		die "no place for temporary files; name one with -w"
	mkdir -p "$workspace" || die "cannot make $workspace"
	workspace=$(realpath "$workspace")
	exec 8> "$workspace/lock"
	flock -n 8 || die "another run uses $workspace; wait, or name another (-w)"
	# One that was left belongs to nobody any more.
	rm -f "$workspace/qemu.pid"
	trap cleanup EXIT
	trap 'echo "vmtest: interrupted" >&2; exit 130' INT TERM

	probe_accel
	if [[ $mode == shell ]]; then
		make_disks
		make_initrd
		qemu_command "$accel"
		"${qemu[@]}"
		exit
	fi
	echo "# vmtest: $accel, console log in $workspace/console.log" >&2
	boot
	boot_again_after_int3
	[[ $mode != test ]] || add_kunit_results
	report
}

main "$@"
