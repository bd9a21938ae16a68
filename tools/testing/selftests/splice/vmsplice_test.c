// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmsplice(2): memory into a pipe, a pipe into memory.  Covers the two
 * directions of vmsplice() in fs/splice.c (iter_to_pipe(), vmsplice_to_user())
 * and what a buffer of user memory goes through in fs/pipe.c.
 *
 * SPLICE_F_MOVE is used here as well: with SPLICE_F_GIFT into a pipe, or out
 * of one, a kernel may then give and take the pages, but the same bytes arrive.
 * What becomes of the memory, SPLICE_F_NOCOPY and all else that goes with it is
 * in page_flip_test.c, which comes with that kernel.
 *
 * Left open: O_NONBLOCK of the pipe, because it changed.
 *
 * errno	test, or why there is none
 * EAGAIN	eagain_full, eagain_empty
 * EBADF	ebadf_not_a_pipe, ebadf_not_open, ebadf_notification_pipe
 * EFAULT	refused.efault*, bad_destination.efault,
 *		efault_iovec_array, efault_kernel_address,
 *		file_mapping.efault_truncated
 * EINTR	blocked.eintr
 * EINVAL	einval_unknown_flags, einval_iov_max, einval_negative_length,
 *		compat.einval_*
 * EPIPE	epipe_without_reader, epipe_full_without_reader,
 *		epipe_when_last_reader_leaves
 * EINVAL	for unaligned memory with SPLICE_F_GIFT is in vmsplice(2), but
 *		there is no such check: flags.gift.to_pipe_unaligned
 * EBADF	for a wrong direction: either end of a pipe has its direction
 * ENOMEM	with SPLICE_FAULTS, see splice_fault.h
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "splice_util.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#define SEED 0x5b11ce
#define OTHER_SEED 0x0dd
#define POISON 0xaa
#define PAGE ((ssize_t)sysconf(_SC_PAGESIZE))
/* Slots of a new pipe. */
#define SLOTS 16
/* Size and alignment of every kind of mapping: one huge page. */
#define MAP_LEN (2 * MIB)
/* The part of it that most tests use. */
#define MEM_OFFSET (3 * PAGE)
#define MEM_LEN (6 * PAGE)

static ssize_t put(int wfd, const void *mem, size_t len, unsigned int flags)
{
	struct iovec iov = { .iov_base = (void *)mem, .iov_len = len };

	return vmsplice(wfd, &iov, 1, flags);
}

/* The same call: the direction is that of the descriptor. */
static ssize_t get(int rfd, void *mem, size_t len, unsigned int flags)
{
	return put(rfd, mem, len, flags);
}

static ssize_t difference(const char *a, const char *b, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (a[i] != b[i])
			return i;
	return -1;
}

/* The pipe behind @fd holds exactly the @len bytes at @want. */
static void expect_bytes(struct __test_metadata *_metadata, int fd,
			 const char *want, ssize_t len)
{
	char *got = malloc(len + 1);

	memset(got, POISON, len + 1);
	ASSERT_EQ(len, bytes_queued(fd));
	EXPECT_EQ(0, read_all(fd, got, len));
	EXPECT_EQ(-1, difference(got, want, len));
	free(got);
}

/* Likewise @len bytes of the stream from @pos. */
static void expect_held(struct __test_metadata *_metadata, int fd, ssize_t len,
			uint64_t pos)
{
	ASSERT_EQ(len, bytes_queued(fd));
	EXPECT_EQ(0, read_pattern(fd, len, pos, SEED));
	EXPECT_EQ(0, bytes_queued(fd));
}

/* @mem holds POISON but for @len bytes of the stream at @offset. */
static void expect_filled(struct __test_metadata *_metadata, const char *mem,
			  size_t mem_len, size_t offset, size_t len)
{
	char *want = malloc(mem_len);

	memset(want, POISON, mem_len);
	pattern_fill(want + offset, len, 0, SEED);
	EXPECT_EQ(-1, difference(mem, want, mem_len));
	free(want);
}

static char *map_anon(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* Kinds of memory without a file in sight. */
enum kind { ANON, HOLE, LOCKED, DEV_ZERO, SHARED, THP, HUGETLB };

static char *map_thp(void)
{
	char *mem = map_anon(2 * MAP_LEN);

	if (!mem)
		return NULL;
	mem += MAP_LEN - (uintptr_t)mem % MAP_LEN;
	memset(mem, 0, MAP_LEN);
	if (madvise(mem, MAP_LEN, MADV_HUGEPAGE) ||
	    madvise(mem, MAP_LEN, MADV_COLLAPSE))
		return NULL;
	return mem;
}

static char *map_with(int flags, int fd)
{
	char *mem = mmap(NULL, MAP_LEN, PROT_READ | PROT_WRITE, flags, fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static char *map_kind(enum kind kind)
{
	char *mem;

	switch (kind) {
	case ANON:
	case HOLE:
		return map_anon(MAP_LEN);
	case LOCKED:
		mem = map_anon(MAP_LEN);
		return mlock(mem + MEM_OFFSET, MEM_LEN) ? NULL : mem;
	case DEV_ZERO:
		return map_with(MAP_PRIVATE, open("/dev/zero", O_RDWR));
	case SHARED:
		return map_with(MAP_SHARED | MAP_ANONYMOUS, -1);
	case THP:
		return map_thp();
	case HUGETLB:
		return map_with(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	}
	return NULL;
}

/* Enough for one mapping, and for another page while a pipe holds the first. */
#define HUGEPAGES 2

static const char *const nr_hugepages = "/proc/sys/vm/nr_hugepages";

/* Until undo_now(); -1 also where the pool got less than it was to get. */
static int add_hugepages(void)
{
	long want;

	if (sysctl_keep(&nr_hugepages, 1))
		return -1;
	want = sysctl_get(nr_hugepages) + HUGEPAGES;
	if (sysctl_set(nr_hugepages, want))
		return -1;
	return sysctl_get(nr_hugepages) == want ? 0 : -1;
}

FIXTURE(memory)
{
	int fds[2];
	char *map;
	char *mem;
	char *want;
};

FIXTURE_VARIANT(memory)
{
	enum kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(memory, anon) { .kind = ANON };
FIXTURE_VARIANT_ADD(memory, hole) { .kind = HOLE };
FIXTURE_VARIANT_ADD(memory, locked) { .kind = LOCKED };
FIXTURE_VARIANT_ADD(memory, dev_zero) { .kind = DEV_ZERO };
FIXTURE_VARIANT_ADD(memory, shared) { .kind = SHARED };
FIXTURE_VARIANT_ADD(memory, thp) { .kind = THP };
FIXTURE_VARIANT_ADD(memory, hugetlb) { .kind = HUGETLB };
/* clang-format on */

FIXTURE_SETUP(memory)
{
	if (variant->kind == HUGETLB && add_hugepages()) {
		undo_now();
		SKIP(return, "cannot change %s", nr_hugepages);
	}
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, pipe_use_slots(self->fds));
	self->map = map_kind(variant->kind);
	if (!self->map) {
		int err = errno;

		undo_now();
		SKIP(return, "no such memory: %s", strerror(err));
	}
	self->mem = self->map + MEM_OFFSET;
	self->want = calloc(1, MEM_LEN);
	if (variant->kind == HOLE)
		return;
	pattern_fill(self->mem, MEM_LEN, 0, SEED);
	pattern_fill(self->want, MEM_LEN, 0, SEED);
}

FIXTURE_TEARDOWN(memory)
{
	EXPECT_EQ(0, undo_now());
}

/* All bytes arrive. */
TEST_F(memory, arrives)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
}

/* Neither beginning nor end need be those of a page. */
TEST_F(memory, arrives_unaligned)
{
	const ssize_t len = MEM_LEN - 1000;

	ASSERT_EQ(len, put(self->fds[1], self->mem + 123, len, 0));
	expect_bytes(_metadata, self->fds[0], self->want + 123, len);
}

/* One byte inside a page. */
TEST_F(memory, arrives_one_byte)
{
	ASSERT_EQ(1, put(self->fds[1], self->mem + PAGE + 77, 1, 0));
	expect_bytes(_metadata, self->fds[0], self->want + PAGE + 77, 1);
}

/* The pipe can be spliced into a file. */
TEST_F(memory, splices_on)
{
	int fds[2], file = backing_file(BACKING_MEMFD);

	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	ASSERT_EQ(MEM_LEN, splice(self->fds[0], NULL, file, NULL, MEM_LEN, 0));
	EXPECT_EQ(0, lseek(file, 0, SEEK_SET));
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(MEM_LEN, splice(file, NULL, fds[1], NULL, MEM_LEN, 0));
	expect_bytes(_metadata, fds[0], self->want, MEM_LEN);
}

/* The pipe can be duplicated, and the duplicate spliced into a socket. */
TEST_F(memory, tees_on)
{
	char *got = malloc(MEM_LEN);
	int fds[2], sv[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	ASSERT_EQ(MEM_LEN, tee(self->fds[0], fds[1], MEM_LEN, 0));
	ASSERT_EQ(MEM_LEN, splice(fds[0], NULL, sv[0], NULL, MEM_LEN, 0));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	EXPECT_EQ(0, read_all(sv[1], got, MEM_LEN));
	EXPECT_EQ(-1, difference(got, self->want, MEM_LEN));
}

/*
 * Without a gift the pipe shares the page: a later store shows.  Only a page
 * never written to, the common zero page, is left behind by the store.
 */
TEST_F(memory, later_stores_show)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	pattern_fill(self->mem, MEM_LEN, 0, OTHER_SEED);
	if (variant->kind != HOLE)
		pattern_fill(self->want, MEM_LEN, 0, OTHER_SEED);
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	EXPECT_EQ(-1, pattern_check(self->mem, MEM_LEN, 0, OTHER_SEED));
}

/* What is written into the pipe afterwards does not reach the memory. */
TEST_F(memory, is_not_written_through)
{
	const ssize_t len = MEM_LEN - 100;

	ASSERT_EQ(len, put(self->fds[1], self->mem, len, 0));
	ASSERT_EQ(0, write_pattern(self->fds[1], 50, 0, OTHER_SEED));
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
	EXPECT_EQ(len + 50, bytes_queued(self->fds[0]));
}

/* The bytes stay in the pipe when the memory goes. */
TEST_F(memory, outlives_munmap)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	ASSERT_EQ(0, munmap(self->map, MAP_LEN));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
}

/* The same when only the pages go. */
TEST_F(memory, outlives_dontneed)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	if (variant->kind == LOCKED)
		ASSERT_EQ(0, munlock(self->mem, MEM_LEN));
	ASSERT_EQ(0, madvise(self->map, MAP_LEN, MADV_DONTNEED));
	if (variant->kind != SHARED)
		EXPECT_EQ(-1, zero_check(self->mem, MEM_LEN));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
}

/* A gift: pipe and giver both go on seeing the bytes. */
TEST_F(memory, gift_stays_usable)
{
	int file = backing_file(BACKING_MEMFD);

	ASSERT_EQ(MEM_LEN,
		  put(self->fds[1], self->mem, MEM_LEN, SPLICE_F_GIFT));
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
	ASSERT_EQ(MEM_LEN, splice(self->fds[0], NULL, file, NULL, MEM_LEN,
				  SPLICE_F_MOVE));
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
	pattern_fill(self->mem, MEM_LEN, 0, OTHER_SEED);
	EXPECT_EQ(-1, pattern_check(self->mem, MEM_LEN, 0, OTHER_SEED));
	EXPECT_EQ(0, variant->kind == HOLE ?
			     pread_zeroes(file, 0, MEM_LEN) :
			     pread_pattern(file, 0, MEM_LEN, 0, SEED));
}

/* A gift that is also to be moved: the bytes arrive, all of them. */
TEST_F(memory, gift_to_move_arrives)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN,
			       SPLICE_F_GIFT | SPLICE_F_MOVE));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	pattern_fill(self->mem, MEM_LEN, 0, OTHER_SEED);
	EXPECT_EQ(-1, pattern_check(self->mem, MEM_LEN, 0, OTHER_SEED));
}

/* As destination: the bytes of the pipe, and nothing beside them. */
TEST_F(memory, as_destination)
{
	const ssize_t len = 4 * PAGE + 77;

	ASSERT_EQ(0, write_pattern(self->fds[1], len, 0, SEED));
	if (variant->kind == HOLE) {
		ASSERT_EQ(len, get(self->fds[0], self->mem + 9, MEM_LEN, 0));
		EXPECT_EQ(-1, zero_check(self->mem, 9));
		EXPECT_EQ(-1, pattern_check(self->mem + 9, len, 0, SEED));
		EXPECT_EQ(-1, zero_check(self->mem + 9 + len, PAGE));
		return;
	}
	memset(self->mem, POISON, MEM_LEN);
	ASSERT_EQ(len, get(self->fds[0], self->mem + 9, MEM_LEN - 9, 0));
	expect_filled(_metadata, self->mem, MEM_LEN, 9, len);
}

/* A whole huge page, or as much of small ones: in two halves. */
TEST_F(memory, two_mib)
{
	const ssize_t half = MAP_LEN / 2;
	char *want = calloc(2, half);
	int i;

	ASSERT_EQ(half, fcntl(self->fds[1], F_SETPIPE_SZ, half));
	if (variant->kind != HOLE) {
		pattern_fill(self->map, MAP_LEN, 0, SEED);
		pattern_fill(want, MAP_LEN, 0, SEED);
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(half,
			  put(self->fds[1], self->map + i * half, half, 0));
		expect_bytes(_metadata, self->fds[0], want + i * half, half);
	}
}

/* Private memory that a child has too. */
FIXTURE(forked)
{
	int fds[2];
	char *mem;
};

FIXTURE_VARIANT(forked)
{
	enum kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(forked, anon) { .kind = ANON };
FIXTURE_VARIANT_ADD(forked, dev_zero) { .kind = DEV_ZERO };
FIXTURE_VARIANT_ADD(forked, thp) { .kind = THP };
/* clang-format on */

FIXTURE_SETUP(forked)
{
	ASSERT_EQ(0, pipe(self->fds));
	self->mem = map_kind(variant->kind);
	if (!self->mem)
		SKIP(return, "no such memory: %s", strerror(errno));
	self->mem += MEM_OFFSET;
	pattern_fill(self->mem, MEM_LEN, 0, SEED);
}

FIXTURE_TEARDOWN(forked)
{
}

/* After fork() the first store copies: the pipe keeps what it had. */
TEST_F(forked, parent_stores)
{
	pid_t pid;

	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	pid = fork_child();
	if (!pid)
		for (;;)
			pause();
	pattern_fill(self->mem, MEM_LEN, 0, OTHER_SEED);
	expect_held(_metadata, self->fds[0], MEM_LEN, 0);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(pid));
}

/* The stores of a child reach neither the pipe nor the parent. */
TEST_F(forked, child_stores)
{
	pid_t pid;

	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	pid = fork_child();
	if (!pid) {
		pattern_fill(self->mem, MEM_LEN, 0, OTHER_SEED);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->mem, MEM_LEN, 0, SEED));
	expect_held(_metadata, self->fds[0], MEM_LEN, 0);
}

/* The bytes stay in the pipe when the giver has exited. */
TEST_F(forked, outlives_giver)
{
	pid_t pid = fork_child();

	if (!pid) {
		pattern_fill(self->mem, MEM_LEN, MEM_LEN, SEED);
		_exit(put(self->fds[1], self->mem, MEM_LEN, 0) != MEM_LEN);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->mem, MEM_LEN, 0, SEED));
	expect_held(_metadata, self->fds[0], MEM_LEN, MEM_LEN);
}

/* A mapped file: two pages of data, two of a hole, two of data. */
FIXTURE(file_mapping)
{
	int fds[2];
	int file;
	char *mem;
	char *want;
};

FIXTURE_VARIANT(file_mapping)
{
	enum backing backing;
	int flags;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(file_mapping, ext4_private) {
	.backing = BACKING_EXT4, .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(file_mapping, ext4_shared) {
	.backing = BACKING_EXT4, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(file_mapping, xfs_private) {
	.backing = BACKING_XFS, .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(file_mapping, xfs_shared) {
	.backing = BACKING_XFS, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(file_mapping, tmpfs_private) {
	.backing = BACKING_TMPFS, .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(file_mapping, tmpfs_shared) {
	.backing = BACKING_TMPFS, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(file_mapping, overlay_private) {
	.backing = BACKING_OVERLAY, .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(file_mapping, overlay_shared) {
	.backing = BACKING_OVERLAY, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(file_mapping, memfd_private) {
	.backing = BACKING_MEMFD, .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(file_mapping, memfd_shared) {
	.backing = BACKING_MEMFD, .flags = MAP_SHARED };
/* clang-format on */

FIXTURE_SETUP(file_mapping)
{
	if (!backing_available(variant->backing))
		SKIP(return, "no %s here", backing_name(variant->backing));
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, pipe_use_slots(self->fds));
	self->want = calloc(1, MEM_LEN);
	pattern_fill(self->want, 2 * PAGE, 0, SEED);
	pattern_fill(self->want + 4 * PAGE, 2 * PAGE, 4 * PAGE, SEED);
	self->file = backing_file_filled(variant->backing, 2 * PAGE, SEED);
	ASSERT_GE(self->file, 0);
	ASSERT_EQ(2 * PAGE, pwrite(self->file, self->want + 4 * PAGE, 2 * PAGE,
				   4 * PAGE));
	self->mem = mmap(NULL, MEM_LEN, PROT_READ | PROT_WRITE, variant->flags,
			 self->file, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
}

FIXTURE_TEARDOWN(file_mapping)
{
}

/* Data and hole arrive; the file is as before. */
TEST_F(file_mapping, arrives)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	EXPECT_EQ(0, pread_pattern(self->file, 0, 2 * PAGE, 0, SEED));
	EXPECT_EQ(0, pread_zeroes(self->file, 2 * PAGE, 2 * PAGE));
}

/* So does a part from inside one page to inside another. */
TEST_F(file_mapping, arrives_unaligned)
{
	const ssize_t len = 3 * PAGE + 5;

	ASSERT_EQ(len, put(self->fds[1], self->mem + PAGE + 55, len, 0));
	expect_bytes(_metadata, self->fds[0], self->want + PAGE + 55, len);
}

/* What was stored through the mapping arrives too. */
TEST_F(file_mapping, stored_page_arrives)
{
	const bool private = variant->flags == MAP_PRIVATE;

	pattern_fill(self->mem + PAGE, PAGE, PAGE, OTHER_SEED);
	pattern_fill(self->want + PAGE, PAGE, PAGE, OTHER_SEED);
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
	EXPECT_EQ(0, pread_pattern(self->file, PAGE, PAGE, PAGE,
				   private ? SEED : OTHER_SEED));
}

/* What is written into the pipe afterwards does not reach the file. */
TEST_F(file_mapping, is_not_written_through)
{
	const ssize_t len = 2 * PAGE - 100;

	ASSERT_EQ(len, put(self->fds[1], self->mem, len, 0));
	ASSERT_EQ(0, write_pattern(self->fds[1], 50, 0, OTHER_SEED));
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
	EXPECT_EQ(0, pread_pattern(self->file, 0, 2 * PAGE, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], len, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], 50, 0, OTHER_SEED));
}

/* The bytes stay in the pipe when mapping and contents go. */
TEST_F(file_mapping, outlives_truncation)
{
	ASSERT_EQ(MEM_LEN, put(self->fds[1], self->mem, MEM_LEN, 0));
	ASSERT_EQ(0, munmap(self->mem, MEM_LEN));
	ASSERT_EQ(0, ftruncate(self->file, 0));
	close(self->file);
	expect_bytes(_metadata, self->fds[0], self->want, MEM_LEN);
}

/* Behind the end of the file: EFAULT and no SIGBUS, or a short count. */
TEST_F(file_mapping, efault_truncated)
{
	ASSERT_EQ(0, ftruncate(self->file, PAGE));
	ASSERT_EQ(PAGE, put(self->fds[1], self->mem, MEM_LEN, 0));
	EXPECT_EQ(-1, put(self->fds[1], self->mem + PAGE, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	expect_bytes(_metadata, self->fds[0], self->want, PAGE);
}

/* As destination: a shared mapping changes the file, a private one not. */
TEST_F(file_mapping, as_destination)
{
	const bool private = variant->flags == MAP_PRIVATE;

	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE, 0, OTHER_SEED));
	ASSERT_EQ(PAGE, get(self->fds[0], self->mem + 9, 2 * PAGE, 0));
	pattern_fill(self->want + 9, PAGE, 0, OTHER_SEED);
	EXPECT_EQ(-1, difference(self->mem, self->want, MEM_LEN));
	EXPECT_EQ(0, private ?
			     pread_pattern(self->file, 0, PAGE, 0, SEED) :
			     pread_pattern(self->file, 9, PAGE, 0, OTHER_SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* One pipe, eight pages of memory that hold the stream. */
FIXTURE(plain)
{
	int fds[2];
	char *mem;
	ssize_t len;
};

FIXTURE_SETUP(plain)
{
	self->len = 8 * PAGE;
	self->mem = map_anon(self->len);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, self->len, 0, SEED);
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(plain)
{
}

/* Local variables are memory as any other. */
TEST_F(plain, stack)
{
	char local[10000];

	pattern_fill(local, sizeof(local), 0, SEED);
	ASSERT_EQ(9999, put(self->fds[1], local + 1, 9999, 0));
	expect_held(_metadata, self->fds[0], 9999, 1);
}

/* Memory that may only be read will do. */
TEST_F(plain, read_only_source)
{
	ASSERT_EQ(0, mprotect(self->mem, self->len, PROT_READ));
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	expect_held(_metadata, self->fds[0], self->len, 0);
}

/* Calls append; also behind bytes that were written. */
TEST_F(plain, appends)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	ASSERT_EQ(90, put(self->fds[1], self->mem + 10, 90, 0));
	ASSERT_EQ(PAGE, put(self->fds[1], self->mem + 100, PAGE, 0));
	ASSERT_EQ(0, write_pattern(self->fds[1], 20, PAGE + 100, SEED));
	expect_held(_metadata, self->fds[0], PAGE + 120, 0);
}

/* Two pipes may hold the same memory. */
TEST_F(plain, into_two_pipes)
{
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(PAGE, put(self->fds[1], self->mem, PAGE, 0));
	ASSERT_EQ(PAGE, put(fds[1], self->mem, PAGE, 0));
	ASSERT_EQ(PAGE, put(fds[1], self->mem, PAGE, 0));
	expect_held(_metadata, self->fds[0], PAGE, 0);
	EXPECT_EQ(0, read_pattern(fds[0], PAGE, 0, SEED));
	expect_held(_metadata, fds[0], PAGE, 0);
}

/* A pipe that changes size keeps the buffers, and takes more after that. */
TEST_F(plain, survives_resize)
{
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	ASSERT_EQ(64 * PAGE, fcntl(self->fds[1], F_SETPIPE_SZ, 64 * PAGE));
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], self->len, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], self->len, 0, SEED));
	ASSERT_EQ(8 * PAGE, fcntl(self->fds[1], F_SETPIPE_SZ, 8 * PAGE));
	expect_held(_metadata, self->fds[0], self->len, 0);
}

/* A pipe in packet mode makes no packets of spliced memory. */
TEST_F(plain, packet_mode)
{
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_DIRECT));
	ASSERT_EQ(100, put(fds[1], self->mem, 100, 0));
	ASSERT_EQ(100, put(fds[1], self->mem + 100, 100, 0));
	EXPECT_EQ(0, read_pattern(fds[0], 30, 0, SEED));
	expect_held(_metadata, fds[0], 170, 30);
}

/* A reader asleep on the pipe is woken. */
TEST_F(plain, wakes_reader)
{
	pid_t pid = spawn_reader(self->fds[0], 100, 0, SEED);

	ASSERT_TRUE(await_asleep(pid, SYS_read));
	ASSERT_EQ(100, put(self->fds[1], self->mem, 100, 0));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* No segments, no bytes: nothing happens and nothing waits. */
TEST_F(plain, iov_count_zero)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = 10 };

	EXPECT_EQ(0, vmsplice(self->fds[0], &iov, 0, 0));
	EXPECT_EQ(0, vmsplice(self->fds[1], &iov, 0, 0));
	EXPECT_EQ(0, vmsplice(self->fds[1], NULL, 0, 0));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* The same with segments of no length. */
TEST_F(plain, iov_lengths_zero)
{
	struct iovec iov[3] = { { .iov_base = self->mem } };

	EXPECT_EQ(0, vmsplice(self->fds[0], iov, 1, 0));
	EXPECT_EQ(0, vmsplice(self->fds[0], iov, 3, 0));
	EXPECT_EQ(0, vmsplice(self->fds[1], iov, 1, 0));
	EXPECT_EQ(0, vmsplice(self->fds[1], iov, 3, 0));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Cut @mem into segments of all sorts, with empty ones between. */
#define NR_PIECES 12

static ssize_t cut(struct iovec iov[NR_PIECES], char *mem)
{
	const size_t len[NR_PIECES] = { 0,	  1,   0, PAGE - 1, PAGE, 0,
					PAGE + 1, 333, 0, PAGE,	    7,	  0 };
	ssize_t sum = 0;
	int i;

	for (i = 0; i < NR_PIECES; i++) {
		iov[i].iov_base = mem + sum;
		iov[i].iov_len = len[i];
		sum += len[i];
	}
	return sum;
}

/* Segments arrive in order, whatever their sizes; empty ones are skipped. */
TEST_F(plain, iov_gathers)
{
	struct iovec iov[NR_PIECES];
	ssize_t len = cut(iov, self->mem + 3);

	ASSERT_EQ(len, vmsplice(self->fds[1], iov, NR_PIECES, 0));
	expect_held(_metadata, self->fds[0], len, 3);
}

/* The order is that of the array, not of the addresses; one may repeat. */
TEST_F(plain, iov_in_any_order)
{
	struct iovec iov[3] = {
		{ .iov_base = self->mem + PAGE, .iov_len = 200 },
		{ .iov_base = self->mem, .iov_len = 100 },
		{ .iov_base = self->mem + PAGE, .iov_len = 200 },
	};

	ASSERT_EQ(500, vmsplice(self->fds[1], iov, 3, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], 200, PAGE, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], 100, 0, SEED));
	expect_held(_metadata, self->fds[0], 200, PAGE);
}

/* As many segments as are allowed, of a byte or of none, either way. */
TEST_F(plain, iov_max)
{
	const int bytes = IOV_MAX / 8;
	struct iovec iov[IOV_MAX];
	int i;

	for (i = 0; i < IOV_MAX; i++) {
		iov[i].iov_base = self->mem + i / 8;
		iov[i].iov_len = i % 8 == 5;
	}
	ASSERT_EQ(bytes * PAGE,
		  fcntl(self->fds[1], F_SETPIPE_SZ, bytes * PAGE));
	ASSERT_EQ(bytes, vmsplice(self->fds[1], iov, IOV_MAX, 0));
	expect_held(_metadata, self->fds[0], bytes, 0);
	ASSERT_EQ(0, write_pattern(self->fds[1], bytes, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(bytes, vmsplice(self->fds[0], iov, IOV_MAX, 0));
	expect_filled(_metadata, self->mem, self->len, 0, bytes);
}

/* One segment too many, either way. */
TEST_F(plain, einval_iov_max)
{
	struct iovec iov[IOV_MAX + 1] = { { self->mem, 1 } };

	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	EXPECT_EQ(-1, vmsplice(self->fds[1], iov, IOV_MAX + 1, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, vmsplice(self->fds[0], iov, IOV_MAX + 1, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, self->fds[0], 10, 0);
}

/* A negative length, alone or behind a good one; nothing is transferred. */
TEST_F(plain, einval_negative_length)
{
	struct iovec iov[2] = {
		{ .iov_base = self->mem, .iov_len = 10 },
		{ .iov_base = self->mem, .iov_len = (size_t)SSIZE_MAX + 1 },
	};

	EXPECT_EQ(-1, vmsplice(self->fds[1], iov, 2, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, vmsplice(self->fds[1], iov + 1, 1, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	EXPECT_EQ(-1, vmsplice(self->fds[0], iov, 2, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, self->fds[0], 10, 0);
}

/* More than a call can transfer is no error: the pipe is the limit. */
TEST_F(plain, beyond_two_gib)
{
	const size_t huge = 2UL * KIB * MIB;
	char *mem = mmap(NULL, huge, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct iovec iov[2] = { { mem, huge }, { mem, huge } };

	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, mprotect(mem, SLOTS * PAGE, PROT_READ | PROT_WRITE));
	pattern_fill(mem, SLOTS * PAGE, 0, SEED);
	ASSERT_EQ(SLOTS * PAGE, vmsplice(self->fds[1], iov, 1, 0));
	expect_held(_metadata, self->fds[0], SLOTS * PAGE, 0);
	ASSERT_EQ(SLOTS * PAGE, vmsplice(self->fds[1], iov, 2, 0));
	expect_held(_metadata, self->fds[0], SLOTS * PAGE, 0);
}

/* The array itself cannot be read. */
TEST_F(plain, efault_iovec_array)
{
	struct iovec *iov =
		mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, iov);
	EXPECT_EQ(-1, vmsplice(self->fds[1], iov, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, vmsplice(self->fds[1], iov, 2, 0));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	EXPECT_EQ(-1, vmsplice(self->fds[0], iov, 20, 0));
	EXPECT_EQ(EFAULT, errno);
	expect_held(_metadata, self->fds[0], 10, 0);
}

/* An address that no process has. */
TEST_F(plain, efault_kernel_address)
{
	EXPECT_EQ(-1, put(self->fds[1], (void *)-PAGE, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	EXPECT_EQ(-1, get(self->fds[0], (void *)-PAGE, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	expect_held(_metadata, self->fds[0], 10, 0);
}

/* Bits that no kernel knows, either way. */
TEST_F(plain, einval_unknown_flags)
{
	unsigned int bit;

	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, SEED));
	for (bit = 5; bit < 32; bit++) {
		EXPECT_EQ(-1, put(self->fds[1], self->mem, 10, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, get(self->fds[0], self->mem, 10, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
	}
	expect_held(_metadata, self->fds[0], 10, 0);
}

#define NR_IMPOSTORS 7

/* What is no pipe: readable, writable or both, seekable or not. */
static void open_impostors(int fds[NR_IMPOSTORS])
{
	int sv[2] = { -1, -1 };

	unix_pair(sv);
	fds[0] = backing_file_filled(BACKING_MEMFD, 100, SEED);
	fds[1] = reopen(fds[0], O_RDONLY);
	fds[2] = reopen(fds[0], O_WRONLY);
	fds[3] = open("/dev/zero", O_RDWR);
	fds[4] = open("/", O_RDONLY);
	fds[5] = eventfd(1, 0);
	fds[6] = sv[0];
}

/* Only a pipe will do, in either direction. */
TEST_F(plain, ebadf_not_a_pipe)
{
	int fds[NR_IMPOSTORS], i;

	open_impostors(fds);
	for (i = 0; i < NR_IMPOSTORS; i++) {
		ASSERT_GE(fds[i], 0);
		EXPECT_EQ(-1, put(fds[i], self->mem, 10, 0));
		EXPECT_EQ(EBADF, errno);
	}
	EXPECT_EQ(0, pread_pattern(fds[0], 0, 100, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

/* A pipe for notifications is none for this, in either direction. */
TEST_F(plain, ebadf_notification_pipe)
{
	int fds[2], i;

	if (notification_pipe(fds)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-1, put(fds[i], self->mem, 10, 0));
		EXPECT_EQ(EBADF, errno);
	}
	EXPECT_EQ(0, bytes_queued(fds[0]));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

/* A number that is no descriptor, or one without I/O (O_PATH). */
TEST_F(plain, ebadf_not_open)
{
	int path = reopen(self->fds[0], O_PATH);

	ASSERT_GE(path, 0);
	EXPECT_EQ(-1, put(-1, self->mem, 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, put(path, self->mem, 10, 0));
	EXPECT_EQ(EBADF, errno);
}

/* Full, and not to wait: EAGAIN, the pipe as before. */
TEST_F(plain, eagain_full)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], SLOTS * PAGE, 0, SEED));
	EXPECT_EQ(-1, put(self->fds[1], self->mem, 1, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	expect_held(_metadata, self->fds[0], SLOTS * PAGE, 0);
}

/* Empty, and not to wait: EAGAIN, the memory as before. */
TEST_F(plain, eagain_empty)
{
	EXPECT_EQ(-1, get(self->fds[0], self->mem, 10, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

/* Nobody to read: EPIPE and one SIGPIPE. */
TEST_F(plain, epipe_without_reader)
{
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	close(self->fds[0]);
	EXPECT_EQ(-1, put(self->fds[1], self->mem, 10, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

/* The same when the pipe is full, and without waiting. */
TEST_F(plain, epipe_full_without_reader)
{
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(SLOTS * PAGE, pipe_fill_up(self->fds[1]));
	close(self->fds[0]);
	EXPECT_EQ(-1, put(self->fds[1], self->mem, 10, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(-1, put(self->fds[1], self->mem, 10, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(2, signal_count(SIGPIPE));
}

/* The last reader leaves while vmsplice() waits for room. */
TEST_F(plain, epipe_when_last_reader_leaves)
{
	pid_t pid;

	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(SLOTS * PAGE, pipe_fill_up(self->fds[1]));
	pid = fork_child();
	if (!pid) {
		await_asleep(getppid(), SYS_vmsplice);
		_exit(0);
	}
	close(self->fds[0]);
	ASSERT_EQ(-1, put(self->fds[1], self->mem, 10, 0));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(0, reap(pid));
}

/* Into memory: part of a buffer leaves the rest of it in the pipe. */
TEST_F(plain, read_part_of_buffer)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], 1000, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(300, get(self->fds[0], self->mem + 50, 300, 0));
	expect_filled(_metadata, self->mem, self->len, 50, 300);
	expect_held(_metadata, self->fds[0], 700, 300);
}

/* Into memory: more than there is returns what there is, without waiting. */
TEST_F(plain, read_more_than_there_is)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE + 10, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(PAGE + 10, get(self->fds[0], self->mem, self->len, 0));
	expect_filled(_metadata, self->mem, self->len, 0, PAGE + 10);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Into memory: segments are filled in order, empty ones skipped. */
TEST_F(plain, read_scatters)
{
	struct iovec iov[NR_PIECES];
	ssize_t len = cut(iov, self->mem + 3);

	ASSERT_EQ(0, write_pattern(self->fds[1], len + 9, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(len, vmsplice(self->fds[0], iov, NR_PIECES, 0));
	expect_filled(_metadata, self->mem, self->len, 3, len);
	expect_held(_metadata, self->fds[0], 9, len);
}

/* Into memory: from buffers of page cache, cut at other places. */
TEST_F(plain, read_page_cache)
{
	int file = backing_file_filled(BACKING_MEMFD, 4 * PAGE, SEED);

	ASSERT_EQ(4 * PAGE,
		  splice(file, NULL, self->fds[1], NULL, 4 * PAGE, 0));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(3 * PAGE, get(self->fds[0], self->mem + 99, 3 * PAGE, 0));
	expect_filled(_metadata, self->mem, self->len, 99, 3 * PAGE);
	expect_held(_metadata, self->fds[0], PAGE, 3 * PAGE);
	EXPECT_EQ(0, pread_pattern(file, 0, 4 * PAGE, 0, SEED));
}

/* From memory into memory, through the pipe, sharing nothing afterwards. */
TEST_F(plain, read_spliced_memory)
{
	char *copy = map_anon(self->len);

	memset(copy, POISON, self->len);
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	ASSERT_EQ(self->len, get(self->fds[0], copy, self->len, 0));
	pattern_fill(self->mem, self->len, 0, OTHER_SEED);
	EXPECT_EQ(-1, pattern_check(copy, self->len, 0, SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Into the very memory that the pipe holds. */
TEST_F(plain, read_into_itself)
{
	ASSERT_EQ(self->len, put(self->fds[1], self->mem, self->len, 0));
	ASSERT_EQ(self->len, get(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* A writer asleep on the full pipe is woken. */
TEST_F(plain, read_wakes_writer)
{
	pid_t pid;

	ASSERT_EQ(0, write_pattern(self->fds[1], SLOTS * PAGE, 0, SEED));
	pid = spawn_writer(self->fds[1], PAGE, SLOTS * PAGE, SEED);
	ASSERT_TRUE(await_asleep(pid, SYS_write));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(PAGE, get(self->fds[0], self->mem, PAGE, 0));
	EXPECT_EQ(0, reap(pid));
	expect_filled(_metadata, self->mem, self->len, 0, PAGE);
	expect_held(_metadata, self->fds[0], SLOTS * PAGE, PAGE);
}

/* Nobody to write: what is left, then end of file. */
TEST_F(plain, eof)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], 100, 0, SEED));
	close(self->fds[1]);
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(100, get(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(0, get(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(0, get(self->fds[0], self->mem, 1, SPLICE_F_NONBLOCK));
	expect_filled(_metadata, self->mem, self->len, 0, 100);
}

/* The last writer leaves while vmsplice() waits for data: end of file. */
TEST_F(plain, eof_when_last_writer_leaves)
{
	pid_t pid = fork_child();

	if (!pid) {
		await_asleep(getppid(), SYS_vmsplice);
		_exit(0);
	}
	close(self->fds[1]);
	ASSERT_EQ(0, get(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

/* How large the pipe is: the count is short where it ends. */
FIXTURE(pipe_size)
{
	int fds[2];
	ssize_t size;
	char *mem;
};

FIXTURE_VARIANT(pipe_size)
{
	int slots;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(pipe_size, one) { .slots = 1 };
FIXTURE_VARIANT_ADD(pipe_size, four) { .slots = 4 };
FIXTURE_VARIANT_ADD(pipe_size, sixteen) { .slots = 16 };
FIXTURE_VARIANT_ADD(pipe_size, sixty_four) { .slots = 64 };
/* clang-format on */

FIXTURE_SETUP(pipe_size)
{
	self->size = variant->slots * PAGE;
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(self->size, fcntl(self->fds[1], F_SETPIPE_SZ, self->size));
	self->mem = map_anon(self->size + 2 * PAGE);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, self->size + 2 * PAGE, 0, SEED);
}

FIXTURE_TEARDOWN(pipe_size)
{
}

/* As many whole pages as there are slots. */
TEST_F(pipe_size, exact)
{
	ASSERT_EQ(self->size, put(self->fds[1], self->mem, self->size, 0));
	expect_held(_metadata, self->fds[0], self->size, 0);
}

/* Too much: the slots are filled and the call does not wait for more. */
TEST_F(pipe_size, short_count)
{
	const ssize_t len = self->size + 2 * PAGE;

	ASSERT_EQ(self->size, put(self->fds[1], self->mem, len, 0));
	EXPECT_EQ(-1, put(self->fds[1], self->mem, len, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	expect_held(_metadata, self->fds[0], self->size, 0);
}

/* Unaligned, the first slot holds the head only. */
TEST_F(pipe_size, short_count_unaligned)
{
	const ssize_t len = self->size + PAGE;

	ASSERT_EQ(self->size - 100,
		  put(self->fds[1], self->mem + 100, len, SPLICE_F_NONBLOCK));
	expect_held(_metadata, self->fds[0], self->size - 100, 100);
}

/* The limit may fall into the middle of the array. */
TEST_F(pipe_size, short_count_iov)
{
	struct iovec iov[2] = {
		{ .iov_base = self->mem, .iov_len = 200 },
		{ .iov_base = self->mem + 200, .iov_len = self->size },
	};
	ssize_t want = variant->slots == 1 ? 200 : self->size - PAGE;

	ASSERT_EQ(want, vmsplice(self->fds[1], iov, 2, 0));
	expect_held(_metadata, self->fds[0], want, 0);
}

/* One slot in use is one slot less. */
TEST_F(pipe_size, partly_full)
{
	ssize_t want = self->size - PAGE;

	ASSERT_EQ(0, write_pattern(self->fds[1], 10, 0, OTHER_SEED));
	ASSERT_EQ(want ? want : -1,
		  put(self->fds[1], self->mem, self->size, SPLICE_F_NONBLOCK));
	EXPECT_EQ(0, read_pattern(self->fds[0], 10, 0, OTHER_SEED));
	expect_held(_metadata, self->fds[0], want, 0);
}

/* Flags that change nothing as long as neither side has to wait. */
FIXTURE(flags)
{
	int fds[2];
	char *mem;
};

FIXTURE_VARIANT(flags)
{
	unsigned int flags;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(flags, move) { .flags = SPLICE_F_MOVE };
FIXTURE_VARIANT_ADD(flags, nonblock) { .flags = SPLICE_F_NONBLOCK };
FIXTURE_VARIANT_ADD(flags, more) { .flags = SPLICE_F_MORE };
FIXTURE_VARIANT_ADD(flags, gift) { .flags = SPLICE_F_GIFT };
FIXTURE_VARIANT_ADD(flags, gift_move) {
	.flags = SPLICE_F_GIFT | SPLICE_F_MOVE };
FIXTURE_VARIANT_ADD(flags, all) {
	.flags = SPLICE_F_GIFT | SPLICE_F_MOVE | SPLICE_F_MORE | SPLICE_F_NONBLOCK };
/* clang-format on */

FIXTURE_SETUP(flags)
{
	ASSERT_EQ(0, pipe(self->fds));
	self->mem = map_anon(MEM_LEN);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, MEM_LEN, 0, SEED);
}

FIXTURE_TEARDOWN(flags)
{
}

/* Whole pages into the pipe. */
TEST_F(flags, to_pipe)
{
	ASSERT_EQ(MEM_LEN,
		  put(self->fds[1], self->mem, MEM_LEN, variant->flags));
	expect_held(_metadata, self->fds[0], MEM_LEN, 0);
}

/* Parts of pages into the pipe. */
TEST_F(flags, to_pipe_unaligned)
{
	const ssize_t len = MEM_LEN - 5000;

	ASSERT_EQ(len, put(self->fds[1], self->mem + 321, len, variant->flags));
	expect_held(_metadata, self->fds[0], len, 321);
}

/* Whole pages out of the pipe. */
TEST_F(flags, to_memory)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], 4 * PAGE, 0, SEED));
	memset(self->mem, POISON, MEM_LEN);
	ASSERT_EQ(4 * PAGE, get(self->fds[0], self->mem + PAGE, 4 * PAGE,
				variant->flags));
	expect_filled(_metadata, self->mem, MEM_LEN, PAGE, 4 * PAGE);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Parts of pages out of the pipe. */
TEST_F(flags, to_memory_unaligned)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], 4 * PAGE, 0, SEED));
	memset(self->mem, POISON, MEM_LEN);
	ASSERT_EQ(5000,
		  get(self->fds[0], self->mem + 321, 5000, variant->flags));
	expect_filled(_metadata, self->mem, MEM_LEN, 321, 5000);
	expect_held(_metadata, self->fds[0], 4 * PAGE - 5000, 5000);
}

/* vmsplice() must sleep: for a free slot, or for data. */
FIXTURE(blocked)
{
	int fds[2];
	int fd;
	char *mem;
};

FIXTURE_VARIANT(blocked)
{
	bool full;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(blocked, on_full_pipe) { .full = true };
FIXTURE_VARIANT_ADD(blocked, on_empty_pipe) { .full = false };
/* clang-format on */

FIXTURE_SETUP(blocked)
{
	self->mem = map_anon(3 * PAGE);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, 3 * PAGE, 0, OTHER_SEED);
	ASSERT_EQ(0, pipe_filled(self->fds, variant->full ? SLOTS * PAGE : 0,
				 SEED));
	self->fd = variant->full ? self->fds[1] : self->fds[0];
}

FIXTURE_TEARDOWN(blocked)
{
}

/*
 * The child: send @signals to the sleeping parent, then give what it waits
 * for, one page of room or of data.
 */
static void unblock(int fds[2], bool full, int signals)
{
	for (; signals; signals--) {
		await_asleep(getppid(), SYS_vmsplice);
		kill(getppid(), SIGALRM);
	}
	await_asleep(getppid(), SYS_vmsplice);
	if (full)
		_exit(read_pattern(fds[0], PAGE, 0, SEED));
	_exit(write_pattern(fds[1], PAGE, 0, SEED));
}

/* One page was transferred, the others are where they were. */
static void expect_one_page(struct __test_metadata *_metadata, int rfd,
			    const char *mem, bool full)
{
	const ssize_t rest = (SLOTS - 1) * PAGE;

	if (full) {
		EXPECT_EQ(0, read_pattern(rfd, rest, PAGE, SEED));
		EXPECT_EQ(PAGE, bytes_queued(rfd));
		EXPECT_EQ(0, read_pattern(rfd, PAGE, 0, OTHER_SEED));
	} else {
		EXPECT_EQ(-1, pattern_check(mem, PAGE, 0, SEED));
		EXPECT_EQ(-1, pattern_check(mem + PAGE, 2 * PAGE, PAGE,
					    OTHER_SEED));
	}
	EXPECT_EQ(0, bytes_queued(rfd));
}

/* The call sleeps until another process reads or writes one page. */
TEST_F(blocked, waits)
{
	pid_t pid = fork_child();

	if (!pid)
		unblock(self->fds, variant->full, 0);
	ASSERT_EQ(PAGE, put(self->fd, self->mem, 3 * PAGE, 0));
	EXPECT_EQ(0, reap(pid));
	expect_one_page(_metadata, self->fds[0], self->mem, variant->full);
}

/* Interrupted thrice with SA_RESTART, the call goes on waiting. */
TEST_F(blocked, restarts)
{
	pid_t pid;

	ASSERT_EQ(0, alarm_start(3600 * 1000, SA_RESTART));
	pid = fork_child();
	if (!pid)
		unblock(self->fds, variant->full, 3);
	ASSERT_EQ(PAGE, put(self->fd, self->mem, 3 * PAGE, 0));
	ASSERT_EQ(3, signal_count(SIGALRM));
	EXPECT_EQ(0, reap(pid));
	expect_one_page(_metadata, self->fds[0], self->mem, variant->full);
}

/* A signal handler without SA_RESTART ends the wait; nothing happened. */
TEST_F(blocked, eintr)
{
	ASSERT_EQ(0, alarm_start(20, 0));
	EXPECT_EQ(-1, put(self->fd, self->mem, 3 * PAGE, 0));
	EXPECT_EQ(EINTR, errno);
	EXPECT_LE(1, signal_count(SIGALRM));
	alarm_stop();
	EXPECT_EQ(-1, pattern_check(self->mem, 3 * PAGE, 0, OTHER_SEED));
	expect_held(_metadata, self->fds[0], variant->full ? SLOTS * PAGE : 0,
		    0);
}

/* A descriptor open both ways. */
FIXTURE(both_ways)
{
	int fd;
	char *mem;
};

FIXTURE_VARIANT(both_ways)
{
	bool fifo;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(both_ways, pipe) { .fifo = false };
FIXTURE_VARIANT_ADD(both_ways, fifo) { .fifo = true };
/* clang-format on */

FIXTURE_SETUP(both_ways)
{
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	self->fd = variant->fifo ? fifo_in("/tmp") : reopen(fds[0], O_RDWR);
	ASSERT_GE(self->fd, 0);
	self->mem = map_anon(PAGE);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, PAGE, 0, SEED);
}

FIXTURE_TEARDOWN(both_ways)
{
}

/* The direction is into the pipe, even when it holds something to read. */
TEST_F(both_ways, writes)
{
	ASSERT_EQ(100, put(self->fd, self->mem, 100, 0));
	ASSERT_EQ(100, put(self->fd, self->mem + 100, 100, SPLICE_F_MOVE));
	EXPECT_EQ(-1, pattern_check(self->mem, PAGE, 0, SEED));
	expect_held(_metadata, self->fd, 200, 0);
}

/* One end of the same pipe, opened for reading only, reads. */
TEST_F(both_ways, read_only_reads)
{
	int rfd = reopen(self->fd, O_RDONLY);

	ASSERT_EQ(0, write_pattern(self->fd, 100, 0, SEED));
	memset(self->mem, POISON, PAGE);
	ASSERT_EQ(100, get(rfd, self->mem, PAGE, 0));
	expect_filled(_metadata, self->mem, PAGE, 0, 100);
}

/* Addresses that cannot be transferred from or to. */
enum bad { UNMAPPED, NO_ACCESS, GUARD, SECRET, DEVICE, READ_ONLY };

static char *secret_page(void)
{
	int fd = syscall(SYS_memfd_secret, 0);
	char *mem;

	if (fd < 0 || ftruncate(fd, PAGE))
		return NULL;
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return NULL;
	pattern_fill(mem, PAGE, 0, SEED);
	return mem;
}

/* A page of the clocks: VM_IO, VM_PFNMAP. */
static char *device_page(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long addr = 0;
	char line[256];

	if (!maps)
		return NULL;
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "[vvar_vclock]"))
			addr = strtoul(line, NULL, 16);
	fclose(maps);
	errno = ENXIO;
	return (char *)addr;
}

/* NULL and errno: this kernel has none. */
static char *bad_page(enum bad bad)
{
	char *mem = map_anon(PAGE);
	int err = 0;

	switch (bad) {
	case UNMAPPED:
		err = munmap(mem, PAGE);
		break;
	case NO_ACCESS:
		memset(mem, POISON, PAGE);
		err = mprotect(mem, PAGE, PROT_NONE);
		break;
	case GUARD:
		err = madvise(mem, PAGE, MADV_GUARD_INSTALL);
		break;
	case SECRET:
		return secret_page();
	case DEVICE:
		return device_page();
	case READ_ONLY:
		err = mprotect(mem, PAGE, PROT_READ);
		break;
	}
	return err ? NULL : mem;
}

FIXTURE(refused)
{
	int fds[2];
	char *bad;
	char *mem;
};

FIXTURE_VARIANT(refused)
{
	enum bad bad;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(refused, unmapped) { .bad = UNMAPPED };
FIXTURE_VARIANT_ADD(refused, prot_none) { .bad = NO_ACCESS };
FIXTURE_VARIANT_ADD(refused, guard) { .bad = GUARD };
FIXTURE_VARIANT_ADD(refused, secretmem) { .bad = SECRET };
FIXTURE_VARIANT_ADD(refused, device) { .bad = DEVICE };
/* clang-format on */

FIXTURE_SETUP(refused)
{
	ASSERT_EQ(0, pipe(self->fds));
	self->mem = map_anon(2 * PAGE);
	ASSERT_NE(NULL, self->mem);
	pattern_fill(self->mem, 2 * PAGE, 0, SEED);
	self->bad = bad_page(variant->bad);
	if (!self->bad)
		SKIP(return, "no such memory: %s", strerror(errno));
}

FIXTURE_TEARDOWN(refused)
{
}

/* Alone: EFAULT and nothing in the pipe. */
TEST_F(refused, efault)
{
	EXPECT_EQ(-1, put(self->fds[1], self->bad, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, put(self->fds[1], self->bad + 100, 1, SPLICE_F_GIFT));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* In front of good memory: the same. */
TEST_F(refused, efault_in_front)
{
	struct iovec iov[2] = {
		{ .iov_base = self->bad, .iov_len = PAGE },
		{ .iov_base = self->mem, .iov_len = PAGE },
	};

	EXPECT_EQ(-1, vmsplice(self->fds[1], iov, 2, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Behind good memory: what could be transferred, as a short count. */
TEST_F(refused, short_count)
{
	struct iovec iov[3] = {
		{ .iov_base = self->mem + 100, .iov_len = PAGE },
		{ .iov_base = self->bad, .iov_len = PAGE },
		{ .iov_base = self->mem, .iov_len = PAGE },
	};

	ASSERT_EQ(PAGE, vmsplice(self->fds[1], iov, 3, 0));
	expect_held(_metadata, self->fds[0], PAGE, 100);
}

/* The same inside one segment. */
TEST_F(plain, short_count_before_gap)
{
	ASSERT_EQ(0, munmap(self->mem + 3 * PAGE, PAGE));
	ASSERT_EQ(3 * PAGE - 10,
		  put(self->fds[1], self->mem + 10, self->len - 10, 0));
	expect_held(_metadata, self->fds[0], 3 * PAGE - 10, 10);
}

FIXTURE(bad_destination)
{
	int fds[2];
	char *bad;
	char *mem;
};

FIXTURE_VARIANT(bad_destination)
{
	enum bad bad;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(bad_destination, unmapped) { .bad = UNMAPPED };
FIXTURE_VARIANT_ADD(bad_destination, prot_none) { .bad = NO_ACCESS };
FIXTURE_VARIANT_ADD(bad_destination, guard) { .bad = GUARD };
FIXTURE_VARIANT_ADD(bad_destination, read_only) { .bad = READ_ONLY };
FIXTURE_VARIANT_ADD(bad_destination, device) { .bad = DEVICE };
/* clang-format on */

FIXTURE_SETUP(bad_destination)
{
	ASSERT_EQ(0, pipe_filled(self->fds, 4 * PAGE, SEED));
	self->mem = map_anon(2 * PAGE);
	ASSERT_NE(NULL, self->mem);
	memset(self->mem, POISON, 2 * PAGE);
	self->bad = bad_page(variant->bad);
	if (!self->bad)
		SKIP(return, "no such memory: %s", strerror(errno));
}

FIXTURE_TEARDOWN(bad_destination)
{
}

/* EFAULT, and the pipe still holds everything. */
TEST_F(bad_destination, efault)
{
	EXPECT_EQ(-1, get(self->fds[0], self->bad, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, get(self->fds[0], self->bad + 10, 1, SPLICE_F_MOVE));
	EXPECT_EQ(EFAULT, errno);
	expect_held(_metadata, self->fds[0], 4 * PAGE, 0);
}

/* Behind good memory: a short count, the rest is still in the pipe. */
TEST_F(bad_destination, short_count)
{
	struct iovec iov[2] = {
		{ .iov_base = self->mem, .iov_len = PAGE },
		{ .iov_base = self->bad, .iov_len = PAGE },
	};

	ASSERT_EQ(PAGE, vmsplice(self->fds[0], iov, 2, 0));
	expect_filled(_metadata, self->mem, 2 * PAGE, 0, PAGE);
	expect_held(_metadata, self->fds[0], 3 * PAGE, PAGE);
}

/*
 * A gap inside one segment, off the borders of buffers: as many bytes as the
 * call returns are gone from the pipe, not one more.
 */
TEST_F(plain, read_short_count_before_gap)
{
	ssize_t len;

	memset(self->mem, POISON, self->len);
	ASSERT_EQ(0, munmap(self->mem + 3 * PAGE, PAGE));
	ASSERT_EQ(0, write_pattern(self->fds[1], 6 * PAGE, 0, SEED));
	len = get(self->fds[0], self->mem + 10, 6 * PAGE, 0);
	ASSERT_LE(2 * PAGE, len);
	ASSERT_GE(3 * PAGE - 10, len);
	EXPECT_EQ(-1, pattern_check(self->mem + 10, len, 0, SEED));
	expect_held(_metadata, self->fds[0], 6 * PAGE - len, len);
}

/* Pages that a thread provides when they are first touched. */
#define NR_MISSING 4

FIXTURE(userfault)
{
	int fds[2];
	int uffd;
	char *mem;
};

FIXTURE_VARIANT(userfault)
{
	bool source;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(userfault, source) { .source = true };
FIXTURE_VARIANT_ADD(userfault, destination) { .source = false };
/* clang-format on */

struct provider {
	int uffd;
	char *mem;
	int faults;
};

/* Provide each missing page with its part of the other stream. */
static void *provide(void *arg)
{
	struct provider *p = arg;
	char *page = malloc(PAGE);
	struct uffdio_copy copy = { .src = (uintptr_t)page, .len = PAGE };
	struct uffd_msg msg;

	while (p->faults < NR_MISSING) {
		if (read(p->uffd, &msg, sizeof(msg)) != sizeof(msg))
			break;
		copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
		pattern_fill(page, PAGE, copy.dst - (uintptr_t)p->mem,
			     OTHER_SEED);
		if (ioctl(p->uffd, UFFDIO_COPY, &copy))
			break;
		p->faults++;
	}
	free(page);
	return NULL;
}

static int register_missing(int uffd, char *mem)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)mem, .len = NR_MISSING * PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(uffd, UFFDIO_API, &api) ||
	       ioctl(uffd, UFFDIO_REGISTER, &reg);
}

FIXTURE_SETUP(userfault)
{
	ASSERT_EQ(0, pipe(self->fds));
	self->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	self->mem = map_anon(NR_MISSING * PAGE);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, register_missing(self->uffd, self->mem));
}

FIXTURE_TEARDOWN(userfault)
{
}

/* The call waits for each page and then goes on as with any other. */
TEST_F(userfault, missing)
{
	struct provider p = { .uffd = self->uffd, .mem = self->mem };
	const ssize_t len = NR_MISSING * PAGE;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, provide, &p));
	if (variant->source) {
		ASSERT_EQ(len, put(self->fds[1], self->mem, len, 0));
		ASSERT_EQ(0, read_pattern(self->fds[0], len, 0, OTHER_SEED));
	} else {
		ASSERT_EQ(0, write_pattern(self->fds[1], len - 99, 0, SEED));
		ASSERT_EQ(len - 99, get(self->fds[0], self->mem, len, 0));
		ASSERT_EQ(-1, pattern_check(self->mem, len - 99, 0, SEED));
		ASSERT_EQ(-1, pattern_check(self->mem + len - 99, 99, len - 99,
					    OTHER_SEED));
	}
	ASSERT_EQ(0, bytes_queued(self->fds[0]));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(NR_MISSING, p.faults);
}

#ifdef __x86_64__
#define I386_VMSPLICE 316

struct iovec32 {
	uint32_t base;
	uint32_t len;
};

FIXTURE(compat)
{
	int fds[2];
	/* In the low 4 GiB: the array, then the memory. */
	struct iovec32 *iov;
	char *mem;
	ssize_t len;
};

FIXTURE_SETUP(compat)
{
	char *map;

	if (!has_int80())
		SKIP(return, "no 32-bit system calls");
	self->len = 6 * PAGE;
	map = mmap(NULL, 4 * PAGE + self->len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->iov = (void *)map;
	self->mem = map + 4 * PAGE;
	pattern_fill(self->mem, self->len, 0, SEED);
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(compat)
{
}

static long vmsplice32(int fd, const struct iovec32 *iov, unsigned int nr,
		       unsigned int flags)
{
	return int80(I386_VMSPLICE, fd, (long)iov, nr, flags);
}

/* Cut @mem at odd places into segments of 1000 bytes, with a gap each. */
static void cut32(struct iovec32 *iov, char *mem, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		iov[i].base = (uintptr_t)mem + 1001 * i;
		iov[i].len = 1000;
	}
}

/* One segment, either way. */
TEST_F(compat, one_segment)
{
	self->iov[0].base = (uintptr_t)self->mem + 50;
	self->iov[0].len = 5000;
	ASSERT_EQ(5000, vmsplice32(self->fds[1], self->iov, 1, 0));
	expect_held(_metadata, self->fds[0], 5000, 50);
	ASSERT_EQ(0, write_pattern(self->fds[1], 6000, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(5000, vmsplice32(self->fds[0], self->iov, 1, 0));
	expect_filled(_metadata, self->mem, self->len, 50, 5000);
	expect_held(_metadata, self->fds[0], 1000, 5000);
}

/* More segments than fit on the kernel's stack, into the pipe. */
TEST_F(compat, gathers)
{
	int i;

	cut32(self->iov, self->mem, 12);
	ASSERT_EQ(12000, vmsplice32(self->fds[1], self->iov, 12, 0));
	for (i = 0; i < 12; i++)
		EXPECT_EQ(0, read_pattern(self->fds[0], 1000, 1001 * i, SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* The same out of the pipe. */
TEST_F(compat, scatters)
{
	int i;

	cut32(self->iov, self->mem, 12);
	ASSERT_EQ(0, write_pattern(self->fds[1], 12000, 0, SEED));
	memset(self->mem, POISON, self->len);
	ASSERT_EQ(12000, vmsplice32(self->fds[0], self->iov, 12, 0));
	for (i = 0; i < 12; i++) {
		EXPECT_EQ(-1, pattern_check(self->mem + 1001 * i, 1000,
					    1000 * i, SEED));
		EXPECT_EQ((char)POISON, self->mem[1001 * i + 1000]);
	}
}

/* A length is negative at 31 bits here. */
TEST_F(compat, einval_negative_length)
{
	cut32(self->iov, self->mem, 2);
	self->iov[1].len = 1U << 31;
	EXPECT_EQ(-EINVAL, vmsplice32(self->fds[1], self->iov, 2, 0));
	EXPECT_EQ(-EINVAL, vmsplice32(self->fds[1], self->iov + 1, 1, 0));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* One segment too many. */
TEST_F(compat, einval_iov_max)
{
	cut32(self->iov, self->mem, 1);
	EXPECT_EQ(-EINVAL, vmsplice32(self->fds[1], self->iov, IOV_MAX + 1, 0));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* An unknown flag, a closed descriptor, unmapped memory. */
TEST_F(compat, errors)
{
	cut32(self->iov, self->mem, 1);
	EXPECT_EQ(-EINVAL, vmsplice32(self->fds[1], self->iov, 1, 1U << 20));
	EXPECT_EQ(-EBADF, vmsplice32(-1, self->iov, 1, 0));
	ASSERT_EQ(0, munmap(self->mem, PAGE));
	EXPECT_EQ(-EFAULT, vmsplice32(self->fds[1], self->iov, 1, 0));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}
#endif /* __x86_64__ */

TEST_HARNESS_MAIN
