// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a page flip copies instead of moving, and why: each reason is provoked,
 * its counter and no other one rises by the pages copied, the data is right, the
 * source keeps what it had, and with SPLICE_F_NOCOPY the call fails with the
 * reason's errno and nothing has happened.
 *
 * reason	test, or why there is none
 * unaligned	page_flip_test: flip.unaligned; flip.unaligned_destination
 * shared, file, hugetlb, secretmem, mlocked, uffd, droppable
 *		source.*, destination.*
 * pfn		source.pfn; as destination it would be somebody's device
 * special	flip_special of the KUnit tests; here it takes hardware: memory
 *		that is private, anonymous and none of the above is special as
 *		a shadow stack, which map_shadow_stack() makes where the
 *		processor has them, or with PROT_MTE of arm64; what the kernel
 *		or a driver maps counts as file, shared or pfn
 * ksm, forked, pinned, referenced, lazyfree
 *		source.*
 * writeback	swapping.writeback
 * unmovable	flip.unmovable
 * partial	folio.partial*
 * locked	locked.*
 * foreign	flip.foreign_*
 * short	folio.short_*
 * teed		flip.teed
 * destbusy	flip.destbusy_*, folio.destbusy
 * race		cut_off.*, touched.*
 *
 * What tracing says of a give, a take and a copy: traced.*
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "page_flip_util.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define SEED 0x5b11ce
#define OTHER_SEED 0x0dd
/* What is given or taken: less than a pipe holds. */
#define NR 6
#define LEN (NR * PAGE)

/* Kinds of memory that do not move. */
enum kind {
	SHARED_ANON,
	SHARED_FILE,
	FILE_PRIVATE,
	FILE_WRITTEN, /* private pages of a file mapping are in no file */
	HUGETLB,
	SECRETMEM,
	PFN,
	MLOCKED,
	MLOCKED_ONFAULT,
	UFFD,
	DROPPABLE,
	KSM,
	FORKED,
	FORK_ENDED, /* the child is gone, but nothing was written since */
	PINNED,
	REFERENCED,
	LAZYFREE,
	LAZYFREE_BATCHED, /* not yet where the kernel marks it */
};

static char *map_of(int fd, int flags)
{
	char *mem = mmap(NULL, PMD, PROT_READ | PROT_WRITE, flags, fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static char *map_secret(void)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd < 0 || ftruncate(fd, PMD))
		return NULL;
	return map_of(fd, MAP_SHARED);
}

/* The firmware's text below 1 MiB: memory without struct page to the kernel. */
static char *map_firmware(void)
{
	int fd = open("/dev/mem", O_RDWR);
	char *mem;

	if (fd < 0)
		return NULL;
	mem = mmap(NULL, 64 * KIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0xf0000);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

static int arm_userfault(void *mem, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return -1;
	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

/* Pin memory as long as this process has the ring, whose descriptor it is. */
static int pin(void *mem, size_t len)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { mem, len };
	int fd = syscall(SYS_io_uring_setup, 1, &params);

	if (fd < 0)
		return -1;
	if (!syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov,
		     1))
		return fd;
	close(fd);
	return -1;
}

/* A pipe shares the pages from now on. */
static int refer(const void *mem, size_t len)
{
	int p[2];

	if (pipe(p))
		return -1;
	return share(p[1], mem, len) == (ssize_t)len ? 0 : -1;
}

#define KSM_DIR "/sys/kernel/mm/ksm/"
#define KPF_KSM 21

/* How many pages at @mem are merged. */
static int merged_pages(const void *mem, long nr)
{
	int fd = open("/proc/kpageflags", O_RDONLY), n = 0;
	uint64_t frame, flags;
	long i;

	for (i = 0; i < nr; i++)
		if (!read_frames((const char *)mem + i * PAGE, 1, &frame) &&
		    pread(fd, &flags, 8, frame * 8) == 8)
			n += flags >> KPF_KSM & 1;
	close(fd);
	return n;
}

/* Memory of the same contents elsewhere, and the daemon that finds out. */
static int merge(void *mem, size_t len)
{
	static const char *const run[] = { KSM_DIR "run",
					   KSM_DIR "sleep_millisecs",
					   KSM_DIR "pages_to_scan" };
	char *twin = map_filled(len, MEM_4K, SEED);
	int tries;

	errno = EPERM;
	if (geteuid() || sysctl_keep(run, ARRAY_SIZE(run)))
		return -1;
	if (madvise(mem, len, MADV_MERGEABLE) ||
	    madvise(twin, len, MADV_MERGEABLE) || sysctl_set(run[1], 1) ||
	    sysctl_set(run[2], 1000) || sysctl_set(run[0], 1))
		return -1;
	for (tries = 0; tries < 2000; tries++) {
		if (merged_pages(mem, len / PAGE) == (int)(len / PAGE))
			return 0;
		usleep(10000);
	}
	errno = ETIMEDOUT;
	return -1;
}

static int park_child(void)
{
	pid_t child = fork_child();

	if (!child) {
		pause();
		_exit(0);
	}
	return child > 0 ? 0 : -1;
}

static int discardable(char *mem, size_t len, bool drain)
{
	char *other = map_filled(PAGE, MEM_4K, SEED);

	if (madvise(mem, len, MADV_FREE))
		return -1;
	/* Which also ends the wait of what this processor had put off. */
	return drain ? madvise(other, PAGE, MADV_COLD) : 0;
}

static char *map_kind(enum kind kind)
{
	switch (kind) {
	case SHARED_ANON:
		return map_of(-1, MAP_SHARED | MAP_ANONYMOUS);
	case SHARED_FILE:
		return map_of(memfd_filled(PMD, SEED), MAP_SHARED);
	case FILE_PRIVATE:
	case FILE_WRITTEN:
		return map_of(memfd_filled(PMD, SEED), MAP_PRIVATE);
	case HUGETLB:
		return map_of(-1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB);
	case SECRETMEM:
		return map_secret();
	case PFN:
		return map_firmware();
	case DROPPABLE:
		return map_of(-1, MAP_ANONYMOUS | MAP_DROPPABLE);
	default:
		return map_mem(PMD);
	}
}

/* What it takes, of the first LEN bytes, after they were filled. */
static int make_kind(char *mem, enum kind kind)
{
	switch (kind) {
	case MLOCKED:
		return mlock(mem, LEN);
	case MLOCKED_ONFAULT:
		return syscall(SYS_mlock2, mem, LEN, MLOCK_ONFAULT);
	case UFFD:
		return arm_userfault(mem, LEN);
	case KSM:
		return merge(mem, LEN);
	case FORKED:
		return park_child();
	case FORK_ENDED:
		return reap(fork_child() ?: ({
			_exit(0);
			0;
		}));
	case PINNED:
		return pin(mem, LEN) < 0 ? -1 : 0;
	case REFERENCED:
		return refer(mem, LEN);
	case LAZYFREE:
	case LAZYFREE_BATCHED:
		return discardable(mem, LEN, kind == LAZYFREE);
	default:
		return 0;
	}
}

static const char *const nr_hugepages = "/proc/sys/vm/nr_hugepages";

/* Until undo_now(). */
static int add_hugepages(long nr)
{
	long want;

	errno = EPERM;
	if (geteuid() || sysctl_keep(&nr_hugepages, 1))
		return -1;
	want = sysctl_get(nr_hugepages) + nr;
	if (sysctl_set(nr_hugepages, want))
		return -1;
	return sysctl_get(nr_hugepages) == want ? 0 : -1;
}

/* NULL and errno: there is no such memory here. */
static char *make_memory(enum kind kind)
{
	char *mem;

	if (kind == HUGETLB && add_hugepages(2))
		return NULL;
	mem = map_kind(kind);
	if (!mem)
		return NULL;
	if (kind != PFN && kind != FILE_PRIVATE)
		pattern_fill(mem, LEN, 0, SEED);
	return make_kind(mem, kind) ? NULL : mem;
}

/* ----------------------------------------------------------- the giver's */

FIXTURE(source)
{
	int fds[2];
	char *mem;
	char *was; /* what the memory held */
	char *dst;
	struct flip_counts before;
};

FIXTURE_VARIANT(source)
{
	enum kind kind;
	enum flip_event reason;
	int err;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(source, shared_anon) {
	.kind = SHARED_ANON, .reason = COPIED_SHARED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, shared_file) {
	.kind = SHARED_FILE, .reason = COPIED_SHARED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, file) {
	.kind = FILE_PRIVATE, .reason = COPIED_FILE, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, file_written) {
	.kind = FILE_WRITTEN, .reason = COPIED_FILE, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, hugetlb) {
	.kind = HUGETLB, .reason = COPIED_HUGETLB, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, secretmem) {
	.kind = SECRETMEM, .reason = COPIED_SECRETMEM, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, pfn) {
	.kind = PFN, .reason = COPIED_PFN, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, mlocked) {
	.kind = MLOCKED, .reason = COPIED_MLOCKED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, mlocked_onfault) {
	.kind = MLOCKED_ONFAULT, .reason = COPIED_MLOCKED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, uffd) {
	.kind = UFFD, .reason = COPIED_UFFD, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, droppable) {
	.kind = DROPPABLE, .reason = COPIED_DROPPABLE, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, ksm) {
	.kind = KSM, .reason = COPIED_KSM, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, forked) {
	.kind = FORKED, .reason = COPIED_FORKED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, fork_ended) {
	.kind = FORK_ENDED, .reason = COPIED_FORKED, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, pinned) {
	.kind = PINNED, .reason = COPIED_PINNED, .err = EAGAIN };
FIXTURE_VARIANT_ADD(source, referenced) {
	.kind = REFERENCED, .reason = COPIED_REFERENCED, .err = EAGAIN };
FIXTURE_VARIANT_ADD(source, lazyfree) {
	.kind = LAZYFREE, .reason = COPIED_LAZYFREE, .err = EOPNOTSUPP };
FIXTURE_VARIANT_ADD(source, lazyfree_batched) {
	.kind = LAZYFREE_BATCHED, .reason = COPIED_LAZYFREE, .err = EOPNOTSUPP };
/* clang-format on */

FIXTURE_SETUP(source)
{
	ASSERT_EQ(0, stay_on_cpu());
	self->mem = make_memory(variant->kind);
	if (!self->mem) {
		int err = errno;

		undo_now();
		SKIP(return, "no such memory: %s", strerror(err));
	}
	ASSERT_EQ(0, pipe(self->fds));
	self->was = malloc(LEN);
	/* Not a read of what may be discarded, which would keep it. */
	if (variant->kind == PFN)
		memcpy(self->was, self->mem, LEN);
	else
		pattern_fill(self->was, LEN, 0, SEED);
	self->dst = map_mem(LEN);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(source)
{
	EXPECT_EQ(0, undo_now());
}

/* Copied, for that reason, and what the copies are made of can be moved. */
TEST_F(source, is_copied)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR);
	EXPECT_EQ(LEN, bytes_queued(self->fds[0]));
	/* It stays. */
	EXPECT_EQ(0, memcmp(self->mem, self->was, LEN));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, variant->reason, NR, TAKEN, NR);
	EXPECT_EQ(0, memcmp(self->dst, self->was, LEN));
}

/* What is stored there later does not show. */
TEST_F(source, is_no_longer_shared)
{
	char *got = malloc(LEN);

	EXPECT_EQ(LEN, give(self->fds[1], self->mem, LEN, 0));
	if (variant->kind != PFN)
		memset(self->mem, 0, LEN);
	ASSERT_EQ(0, read_all(self->fds[0], got, LEN));
	EXPECT_EQ(0, memcmp(got, self->was, LEN));
}

/* Strictly it is an error, and nothing has happened. */
TEST_F(source, stays_with_nocopy)
{
	EXPECT_EQ(-1, give(self->fds[1], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(variant->err, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(0, memcmp(self->mem, self->was, LEN));
}

/* Behind a page that moves it is the end of a short count. */
TEST_F(source, ends_nocopy)
{
	char *page = map_filled(PAGE, MEM_4K, OTHER_SEED);
	struct iovec iov[2] = { { page, PAGE }, { self->mem, LEN } };

	EXPECT_EQ(PAGE, give_iov(self->fds[1], iov, 2, SPLICE_F_NOCOPY));
	EXPECT_EQ(PAGE, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before, GIVEN, 1);
	EXPECT_EQ(0, memcmp(self->mem, self->was, LEN));
}

/* Pages of one call before and behind it move. */
TEST_F(source, among_others)
{
	char *page = map_filled(2 * PAGE, MEM_4K, OTHER_SEED);
	struct iovec iov[3] = { { page, PAGE },
				{ self->mem, LEN },
				{ page + PAGE, PAGE } };

	EXPECT_EQ(LEN + 2 * PAGE, give_iov(self->fds[1], iov, 3, 0));
	EXPECT_EVENTS(&self->before, GIVEN, 2, variant->reason, NR);
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 0, OTHER_SEED));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EQ(0, memcmp(self->dst, self->was, LEN));
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, PAGE, OTHER_SEED));
}

/* ----------------------------------------------------------- the taker's */

FIXTURE(destination)
{
	int fds[2];
	char *mem;
	char *src;
	struct flip_counts before;
};

FIXTURE_VARIANT(destination)
{
	enum kind kind;
	enum flip_event reason;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(destination, shared_anon) {
	.kind = SHARED_ANON, .reason = COPIED_SHARED };
FIXTURE_VARIANT_ADD(destination, shared_file) {
	.kind = SHARED_FILE, .reason = COPIED_SHARED };
FIXTURE_VARIANT_ADD(destination, file) {
	.kind = FILE_PRIVATE, .reason = COPIED_FILE };
FIXTURE_VARIANT_ADD(destination, file_written) {
	.kind = FILE_WRITTEN, .reason = COPIED_FILE };
FIXTURE_VARIANT_ADD(destination, hugetlb) {
	.kind = HUGETLB, .reason = COPIED_HUGETLB };
FIXTURE_VARIANT_ADD(destination, secretmem) {
	.kind = SECRETMEM, .reason = COPIED_SECRETMEM };
FIXTURE_VARIANT_ADD(destination, mlocked) {
	.kind = MLOCKED, .reason = COPIED_MLOCKED };
FIXTURE_VARIANT_ADD(destination, mlocked_onfault) {
	.kind = MLOCKED_ONFAULT, .reason = COPIED_MLOCKED };
FIXTURE_VARIANT_ADD(destination, uffd) {
	.kind = UFFD, .reason = COPIED_UFFD };
FIXTURE_VARIANT_ADD(destination, droppable) {
	.kind = DROPPABLE, .reason = COPIED_DROPPABLE };
/* clang-format on */

FIXTURE_SETUP(destination)
{
	ASSERT_EQ(0, stay_on_cpu());
	self->mem = make_memory(variant->kind);
	if (!self->mem) {
		int err = errno;

		undo_now();
		SKIP(return, "no such memory: %s", strerror(err));
	}
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, OTHER_SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(destination)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F(destination, is_copied_to)
{
	EXPECT_EQ(LEN, take(self->fds[0], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR);
	EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, OTHER_SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Strictly it is an error; the pages can still be taken elsewhere. */
TEST_F(destination, stays_with_nocopy)
{
	char *dst = map_mem(LEN);

	EXPECT_EQ(-1, take(self->fds[0], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, SEED));
	EXPECT_EQ(LEN, take(self->fds[0], dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(dst, LEN, 0, OTHER_SEED));
}

/* A hole is no exception: zeroes are written. */
TEST_F(destination, gets_zeroes_for_hole)
{
	ASSERT_EQ(0, read_pattern(self->fds[0], LEN, 0, OTHER_SEED));
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(LEN, take(self->fds[0], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR);
	EXPECT_EQ(-1, zero_check(self->mem, LEN));
}

/*
 * Destinations whose page is shared with others, or about to go, are replaced:
 * nobody writes there through them.
 */
FIXTURE(replaced)
{
	int fds[2];
	char *mem;
	char *src;
	uint64_t frames[NR];
	struct flip_counts before;
};

FIXTURE_VARIANT(replaced)
{
	enum kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(replaced, ksm) { .kind = KSM };
FIXTURE_VARIANT_ADD(replaced, forked) { .kind = FORKED };
FIXTURE_VARIANT_ADD(replaced, lazyfree) { .kind = LAZYFREE };
/* clang-format on */

FIXTURE_SETUP(replaced)
{
	ASSERT_EQ(0, stay_on_cpu());
	self->mem = make_memory(variant->kind);
	if (!self->mem) {
		int err = errno;

		undo_now();
		SKIP(return, "no such memory: %s", strerror(err));
	}
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, OTHER_SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_EQ(0, read_frames(self->src, NR, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(replaced)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F(replaced, moves)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(LEN, take(self->fds[0], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, GIVEN, NR, TAKEN, NR);
	EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, OTHER_SEED));
	if (frames_visible())
		EXPECT_EQ(NR, same_frames(self->mem, NR, self->frames));
}

/* --------------------------------------------------- small pages in a pipe */

FIXTURE(flip)
{
	int fds[2];
	char *src;
	char *dst;
	uint64_t frames[NR];
	struct flip_counts before;
};

FIXTURE_SETUP(flip)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(PMD);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, read_frames(self->src, NR, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(flip)
{
	EXPECT_EQ(0, undo_now());
}

/* Beside a page of the destination: a page each, and the rest of the last. */
TEST_F(flip, unaligned_destination)
{
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst + 8, LEN, 0));
	EXPECT_EVENTS(&self->before, GIVEN, NR, COPIED_UNALIGNED, NR);
	EXPECT_EQ(-1, pattern_check(self->dst + 8, LEN, 0, SEED));
}

/* Buffers that somebody else made: written, shared, of a file. */
TEST_F(flip, foreign_written)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], LEN, 0, SEED));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, bytes_queued(self->fds[0]));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
}

TEST_F(flip, foreign_gift)
{
	struct iovec iov = { self->src, LEN };

	ASSERT_EQ(LEN, vmsplice(self->fds[1], &iov, 1, SPLICE_F_GIFT));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
	EXPECT_EQ(0, same_frames(self->dst, NR, self->frames));
}

TEST_F(flip, foreign_page_cache)
{
	int file = memfd_filled(LEN, SEED);

	ASSERT_EQ(LEN, splice_all(file, NULL, self->fds[1], NULL, LEN));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	memset(self->dst, 0, LEN);
	EXPECT_EQ(0, pread_pattern(file, 0, LEN, 0, SEED));
}

/* A page of which a part is gone, or that came in part, is short. */
TEST_F(flip, short_of_its_head)
{
	ASSERT_EQ(2 * PAGE, give(self->fds[1], self->src, 2 * PAGE, 0));
	ASSERT_EQ(0, read_pattern(self->fds[0], 1024, 0, SEED));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(PAGE - 1024, take(self->fds[0], self->dst, PAGE - 1024, 0));
	/* The destination was less than a page, too. */
	EXPECT_EVENTS(&self->before, GIVEN, 2, COPIED_UNALIGNED, 1);
	EXPECT_EQ(-1, pattern_check(self->dst, PAGE - 1024, 1024, SEED));
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, PAGE, PAGE, SEED));
}

TEST_F(flip, short_tail)
{
	ASSERT_EQ(100, give(self->fds[1], self->src, 100, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	memset(self->dst, 0xaa, PAGE);
	EXPECT_EQ(100, take(self->fds[0], self->dst, PAGE, 0));
	EXPECT_EVENTS(&self->before, COPIED_UNALIGNED, 1, COPIED_SHORT, 1);
	EXPECT_EQ(-1, pattern_check(self->dst, 100, 0, SEED));
	/* Nothing of the page that carried it. */
	EXPECT_EQ(0xaa, (unsigned char)self->dst[100]);
}

/* While two pipes have it, it is copied; the last one's can be moved. */
TEST_F(flip, teed)
{
	int other[2];

	ASSERT_EQ(0, pipe(other));
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	ASSERT_EQ(LEN, tee(self->fds[0], other[1], LEN, 0));
	EXPECT_EQ(-1, take(other[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EVENTS(&self->before, GIVEN, NR);
	EXPECT_EQ(LEN, take(other[0], self->dst, LEN, 0));
	EXPECT_EVENTS(&self->before, GIVEN, NR, COPIED_TEED, NR);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
	EXPECT_EQ(0, same_frames(self->dst, NR, self->frames));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, GIVEN, NR, COPIED_TEED, NR, TAKEN, NR);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
}

/* Up to what cannot be moved now, and nothing of the destination behind it. */
TEST_F(flip, teed_in_the_middle)
{
	int other[2];

	ASSERT_EQ(0, pipe(other));
	memset(self->dst, 0xaa, LEN);
	ASSERT_EQ(2 * PAGE, give(self->fds[1], self->src, 2 * PAGE, 0));
	ASSERT_EQ(PAGE, give(other[1], self->src + 2 * PAGE, PAGE, 0));
	ASSERT_EQ(PAGE, tee(other[0], self->fds[1], PAGE, 0));
	ASSERT_EQ(3 * PAGE,
		  give(self->fds[1], self->src + 3 * PAGE, 3 * PAGE, 0));
	EXPECT_EQ(2 * PAGE,
		  take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, take(self->fds[0], self->dst + 2 * PAGE, LEN - 2 * PAGE,
			   SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, pattern_check(self->dst, 2 * PAGE, 0, SEED));
	EXPECT_EQ(NR, present_pages(self->dst, LEN));
	EXPECT_EQ(0xaa, (unsigned char)self->dst[2 * PAGE]);
	EXPECT_EQ(0xaa, (unsigned char)self->dst[LEN - 1]);
	EXPECT_EQ(LEN - 2 * PAGE, take_all(self->fds[0], self->dst + 2 * PAGE,
					   LEN - 2 * PAGE, 0));
	EXPECT_EVENTS(&self->before, GIVEN, NR, TAKEN, NR - 1, COPIED_TEED, 1);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
}

/*
 * What is only ever copied needs no right to write: it is as for write().
 * Memory that would move does.
 */
TEST_F(flip, read_only)
{
	int file = memfd_filled(LEN, SEED);
	char *priv = mmap(NULL, LEN, PROT_READ, MAP_PRIVATE, file, 0);
	char *common = mmap(NULL, LEN, PROT_READ, MAP_SHARED, file, 0);

	EXPECT_EQ(LEN, give(self->fds[1], priv, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FILE, NR);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, SEED));
	EXPECT_EQ(LEN, give(self->fds[1], common, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FILE, NR, COPIED_SHARED, NR);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, SEED));
	EXPECT_EQ(-1, give(self->fds[1], priv, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	/* Part of a page. */
	EXPECT_EQ(100, give(self->fds[1], priv + 5, 100, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], 100, 5, SEED));
	ASSERT_EQ(0, mprotect(self->src, LEN, PROT_READ));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Of what was given: one page of the destination is busy, the third. */
static void expect_busy(struct __test_metadata *_metadata,
			FIXTURE_DATA(flip) * self)
{
	char *busy = self->dst + 2 * PAGE;
	uint64_t frame;

	ASSERT_EQ(0, read_frames(busy, 1, &frame));
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(-1, take(self->fds[0], busy, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(2 * PAGE,
		  take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, TAKEN, 2);
	EXPECT_EQ(LEN - 2 * PAGE, take(self->fds[0], busy, LEN - 2 * PAGE, 0));
	EXPECT_EVENTS(&self->before, TAKEN, NR - 1, COPIED_DESTBUSY, 1);
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
	/* It was written into: who has it sees the data. */
	if (frames_visible())
		EXPECT_EQ(1, same_frames(busy, 1, &frame));
}

TEST_F(flip, destbusy_pinned)
{
	memset(self->dst, 0xaa, LEN);
	if (pin(self->dst + 2 * PAGE, PAGE) < 0)
		SKIP(return, "cannot pin: %s", strerror(errno));
	expect_busy(_metadata, self);
}

TEST_F(flip, destbusy_referenced)
{
	int p[2];

	memset(self->dst, 0xaa, LEN);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(PAGE, share(p[1], self->dst + 2 * PAGE, PAGE));
	expect_busy(_metadata, self);
	/* As read() would have it: the pipe shares what is there now. */
	EXPECT_EQ(0, read_pattern(p[0], PAGE, 2 * PAGE, SEED));
}

/* A hole over it: zeroes are written into the page. */
TEST_F(flip, destbusy_hole)
{
	char *hole = map_mem(PMD);
	uint64_t frame;

	memset(self->dst, 0xaa, LEN);
	if (pin(self->dst, PAGE) < 0)
		SKIP(return, "cannot pin: %s", strerror(errno));
	ASSERT_EQ(0, read_frames(self->dst, 1, &frame));
	ASSERT_EQ(2 * PAGE, give(self->fds[1], hole, 2 * PAGE, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(2 * PAGE, take(self->fds[0], self->dst, 2 * PAGE, 0));
	EXPECT_EVENTS(&self->before, GIVEN_HOLE, 2, COPIED_DESTBUSY, 1,
		      TAKEN_HOLE, 1);
	EXPECT_EQ(1, present_pages(self->dst, 2 * PAGE));
	EXPECT_EQ(-1, zero_check(self->dst, 2 * PAGE));
	if (frames_visible())
		EXPECT_EQ(1, same_frames(self->dst, 1, &frame));
}

/* A hole of 2 MiB in unequal parts: copied where it is not whole pages. */
TEST_F(flip, hole_in_parts)
{
	char *hole = map_mem(PMD);

	ASSERT_EQ(PMD, give(self->fds[1], hole, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, flip_counts(&self->before));
	memset(self->dst, 0xaa, PMD);
	EXPECT_EQ(100, take(self->fds[0], self->dst, 100, 0));
	EXPECT_EVENTS(&self->before, COPIED_UNALIGNED, 1);
	EXPECT_EQ(0xaa, (unsigned char)self->dst[100]);
	EXPECT_EQ(PMD - PAGE,
		  take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, take(self->fds[0], self->dst + PMD - PAGE, PAGE,
			   SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(PAGE - 100,
		  take(self->fds[0], self->dst + PMD - PAGE, PAGE, 0));
	/* 511 pages move; what is left of the hole is less than a page. */
	EXPECT_EVENTS(&self->before, TAKEN_HOLE, 511, COPIED_UNALIGNED, 2);
	EXPECT_EQ(-1, zero_check(self->dst, PMD - 100));
	EXPECT_EQ(0xaa, (unsigned char)self->dst[PMD - 100]);
}

#define MEMORY "/sys/devices/system/memory/"

/* Take the block back to where the kernel may have it for itself. */
static int block_back(void *path)
{
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (!sysctl_write(path, "offline"))
			return sysctl_write(path, "online");
		usleep(20000);
	}
	return -1;
}

/* From the memory node of this block, where there are several. */
static int prefer_node_of(int block)
{
	unsigned long node;
	char path[64];

	for (node = 0; node < 64; node++) {
		const unsigned long mask = 1UL << node;

		snprintf(path, sizeof(path), MEMORY "memory%d/node%lu", block,
			 node);
		if (!access(path, F_OK))
			return syscall(SYS_set_mempolicy, MPOL_PREFERRED, &mask,
				       65);
	}
	return 0;
}

/* One block of memory becomes ZONE_MOVABLE, from which user pages come first. */
static int movable_block(void)
{
	char state[64];
	int nr;

	errno = EPERM;
	if (geteuid())
		return -1;
	for (nr = 511; nr >= 0; nr--) {
		snprintf(state, sizeof(state), MEMORY "memory%d/state", nr);
		if (access(state, W_OK) || sysctl_write(state, "offline"))
			continue;
		if (sysctl_write(state, "online_movable")) {
			sysctl_write(state, "online");
			continue;
		}
		return undo_at_end(block_back, state) || prefer_node_of(nr);
	}
	errno = ENODEV;
	return -1;
}

/* What a long stay in a pipe would keep from moving is copied elsewhere. */
TEST_F(flip, unmovable)
{
	char *src;

	if (movable_block())
		SKIP(return, "no movable memory: %s", strerror(errno));
	src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(-1, give(self->fds[1], src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, give(self->fds[1], src, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_UNMOVABLE, NR);
	EXPECT_EQ(-1, pattern_check(src, LEN, 0, SEED));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
	/* The copies are where they may stay: these go. */
	EXPECT_EQ(LEN, give(self->fds[1], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, COPIED_UNMOVABLE, NR, TAKEN, NR, GIVEN,
		      NR);
	unmap_mem(src, LEN);
}

/* ------------------------------------------------- swap that takes its time */

#define NULLB "nullb/splice_slow"
#define SLOW_SWAP "/dev/splice_slow"
#define SLOW_MS 1000

static int write_at(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY);
	ssize_t len = strlen(text), n = write(fd, text, len);

	close(fd);
	return n == len ? 0 : -1;
}

static int slow_swap_end(void *dir)
{
	const int fd = *(int *)dir;

	swapoff(SLOW_SWAP);
	write_at(fd, NULLB "/power", "0");
	return unlinkat(fd, NULLB, AT_REMOVEDIR);
}

/* A device in memory whose every request takes SLOW_MS. */
static int slow_device(int dir)
{
	char ns[32];

	snprintf(ns, sizeof(ns), "%d000000", SLOW_MS);
	if (mkdirat(dir, NULLB, 0755))
		return -1;
	if (write_at(dir, NULLB "/size", "8") ||
	    write_at(dir, NULLB "/memory_backed", "1") ||
	    write_at(dir, NULLB "/irqmode", "2") ||
	    write_at(dir, NULLB "/completion_nsec", ns) ||
	    write_at(dir, NULLB "/power", "1"))
		return -1;
	return 0;
}

static int slow_swap(void)
{
	const char *const none[][2] = { { NULL } };
	int dir, fd, err;

	errno = EPERM;
	if (geteuid())
		return -1;
	dir = private_mount("configfs", none);
	if (dir < 0 || slow_device(dir) || undo_at_end(slow_swap_end, &dir))
		return -1;
	fd = open(SLOW_SWAP, O_RDWR);
	if (fd < 0)
		return -1;
	err = swap_header(fd, 1024) || swapon(SLOW_SWAP, SWAP_FLAG_PREFER);
	close(fd);
	return err ? -1 : 0;
}

FIXTURE(swapping)
{
	int fds[2];
	char *src;
	char *dst;
	struct flip_counts before;
};

FIXTURE_SETUP(swapping)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (slow_swap()) {
		int err = errno;

		undo_now();
		SKIP(return, "no slow swap: %s", strerror(err));
	}
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(LEN);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(swapping)
{
	EXPECT_EQ(0, undo_now());
}

/* A page that is on its way to swap, but was wanted again meanwhile. */
TEST_F(swapping, writeback)
{
	ASSERT_EQ(0, madvise(self->src, LEN, MADV_PAGEOUT));
	EXPECT_EQ(0, present_pages(self->src, LEN));
	EXPECT_EQ(-1, pattern_check(self->src, LEN, 0, SEED));
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_WRITEBACK, NR);
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, SEED));
	/* Once it is written the page, still in the cache of swap, goes. */
	usleep(2 * SLOW_MS * 1000);
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, GIVEN, NR);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, SEED));
}

/* ------------------------------------------------- what others do meanwhile */

/* Somebody else in this process, on another processor, over and over. */
struct meanwhile {
	void (*work)(struct meanwhile *m);
	char *mem;
	pthread_t thread;
	atomic_bool stop;
};

/* What never came together in that time does not. */
#define MEET_MS 100000

static void *work_on(void *arg)
{
	struct meanwhile *m = arg;

	leave_cpu();
	while (!m->stop)
		m->work(m);
	return NULL;
}

static int meanwhile_start(struct meanwhile *m)
{
	return pthread_create(&m->thread, NULL, work_on, m);
}

static void meanwhile_stop(struct meanwhile *m)
{
	m->stop = true;
	pthread_join(m->thread, NULL);
}

static bool one_processor(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) < 2;
}

static bool has_risen(const struct flip_counts *before, enum flip_event ev)
{
	struct flip_counts now;

	return !flip_counts(&now) && now.nr[ev] > before->nr[ev];
}

/*
 * A page that is mapped and locked, and has a place in swap: reclaim is about
 * to unmap it.  Over and over, as another reference keeps it in memory, which is
 * in the way of a move at the other times.
 */
static void reclaim(struct meanwhile *m)
{
	madvise(m->mem, PAGE, MADV_PAGEOUT);
}

FIXTURE(locked)
{
	int fds[2];
	char *page;
	char *dst;
	struct meanwhile reclaim;
	struct flip_counts before;
};

FIXTURE_SETUP(locked)
{
	char *other = map_filled(PAGE, MEM_4K, SEED);

	if (one_processor() || !swap_available(BACKING_EXT4))
		SKIP(return, "one processor, or no swap");
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, swap_space(BACKING_EXT4, MIB));
	ASSERT_EQ(0, pipe(self->fds));
	self->page = map_filled(PAGE, MEM_4K, SEED);
	ASSERT_NE(NULL, self->page);
	ASSERT_EQ(0, refer(self->page, PAGE));
	/* Out of the batch of this processor, where reclaim looks for none. */
	ASSERT_EQ(0, madvise(other, PAGE, MADV_COLD));
	self->dst = map_mem(PAGE);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, flip_counts(&self->before));
	self->reclaim.work = reclaim;
	self->reclaim.mem = self->page;
	ASSERT_EQ(0, meanwhile_start(&self->reclaim));
}

FIXTURE_TEARDOWN(locked)
{
	meanwhile_stop(&self->reclaim);
	EXPECT_EQ(0, undo_now());
}

TEST_F(locked, is_copied)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (elapsed_ms(&start) > MEET_MS)
			SKIP(return, "reclaim was too quick");
		ASSERT_EQ(PAGE, give(self->fds[1], self->page, PAGE, 0));
		ASSERT_EQ(PAGE,
			  take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
		ASSERT_EQ(-1, pattern_check(self->dst, PAGE, 0, SEED));
		ASSERT_EQ(-1, give(self->fds[1], self->page, PAGE,
				   SPLICE_F_NOCOPY));
		ASSERT_EQ(EAGAIN, errno);
	} while (!has_risen(&self->before, COPIED_LOCKED));
	EXPECT_FALSE(has_risen(&self->before, GIVEN));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EQ(-1, pattern_check(self->page, PAGE, 0, SEED));
}

/*
 * A page below a stack, which is there whenever somebody looks, and is cut off
 * again by somebody else: several times in a call it is found to be missing.
 */
static char *page_below_stack(void)
{
	char *mem = map_mem(3 * PAGE), *stack = mem + 2 * PAGE;

	if (!mem || mprotect(mem, PAGE, PROT_NONE) ||
	    munmap(mem + PAGE, 2 * PAGE) ||
	    mmap(stack, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1,
		 0) != stack)
		return NULL;
	return stack - PAGE;
}

static void cut_off(struct meanwhile *m)
{
	munmap(m->mem, PAGE);
}

FIXTURE(cut_off)
{
	int fds[2];
	char *page;
	struct meanwhile cut;
	struct flip_counts before;
};

FIXTURE_SETUP(cut_off)
{
	if (one_processor())
		SKIP(return, "one processor");
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->page = page_below_stack();
	ASSERT_NE(NULL, self->page);
	ASSERT_EQ(0, flip_counts(&self->before));
	self->cut.work = cut_off;
	self->cut.mem = self->page;
	ASSERT_EQ(0, meanwhile_start(&self->cut));
}

FIXTURE_TEARDOWN(cut_off)
{
	meanwhile_stop(&self->cut);
}

/* As any page of a stack that nothing was stored in, it holds zeroes. */
TEST_F(cut_off, is_copied)
{
	struct timespec start;
	long rounds = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (elapsed_ms(&start) > MEET_MS)
			SKIP(return, "always found in time");
		ASSERT_EQ(PAGE, give(self->fds[1], self->page, PAGE, 0));
		ASSERT_EQ(0, read_zeroes(self->fds[0], PAGE));
		rounds++;
	} while (!has_risen(&self->before, COPIED_RACE));
	EXPECT_EVENTS(&self->before, GIVEN_HOLE, rounds - 1, COPIED_RACE, 1);
}

TEST_F(cut_off, eagain_with_nocopy)
{
	struct timespec start;
	long rounds = 0;
	ssize_t n;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((n = give(self->fds[1], self->page, PAGE, SPLICE_F_NOCOPY)) ==
	       PAGE) {
		if (elapsed_ms(&start) > MEET_MS)
			SKIP(return, "always found in time");
		ASSERT_EQ(0, read_zeroes(self->fds[0], PAGE));
		rounds++;
	}
	EXPECT_EQ(-1, n);
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before, GIVEN_HOLE, rounds);
}

/* A destination in which somebody has a page as soon as it was emptied. */
static void touch(struct meanwhile *m)
{
	(void)__atomic_load_n(m->mem, __ATOMIC_RELAXED);
}

FIXTURE(touched)
{
	int fds[2];
	char *src;
	char *dst;
	struct meanwhile touch;
	struct flip_counts before;
};

FIXTURE_VARIANT(touched)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(touched, 4k) { .kind = MEM_4K };
FIXTURE_VARIANT_ADD(touched, 2m) { .kind = MEM_2M };
/* clang-format on */

FIXTURE_SETUP(touched)
{
	const ssize_t size = mem_kind_size(variant->kind);

	if (one_processor())
		SKIP(return, "one processor");
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(size, variant->kind, SEED);
	if (!self->src)
		SKIP(return, "no such folios: %s", strerror(errno));
	self->dst = map_mem(size);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, flip_counts(&self->before));
	self->touch.work = touch;
	self->touch.mem = self->dst;
	ASSERT_EQ(0, meanwhile_start(&self->touch));
}

FIXTURE_TEARDOWN(touched)
{
	meanwhile_stop(&self->touch);
}

TEST_F(touched, is_copied_to)
{
	const ssize_t size = mem_kind_size(variant->kind);
	struct timespec start;
	long rounds = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (elapsed_ms(&start) > MEET_MS)
			SKIP(return, "always empty in time");
		ASSERT_EQ(size, give(self->fds[1], self->src, size, 0));
		ASSERT_EQ(size, take_all(self->fds[0], self->dst, size, 0));
		ASSERT_EQ(-1, pattern_check(self->dst, size, 0, SEED));
		ASSERT_EQ(0, mem_fill(self->src, size, variant->kind, SEED));
		rounds++;
	} while (!has_risen(&self->before, COPIED_RACE));
	EXPECT_EVENTS(&self->before, GIVEN, rounds * size / PAGE, TAKEN,
		      (rounds - 1) * size / PAGE, COPIED_RACE, size / PAGE);
}

/* ----------------------------------------------------------- large folios */

FIXTURE(folio)
{
	int fds[2];
	char *src;
	char *dst;
	ssize_t size; /* of a folio; there are two */
	long pages;
	uint64_t frames[2 * PMD / PAGE];
	struct flip_counts before;
};

FIXTURE_VARIANT(folio)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(folio, 16k) { .kind = MEM_16K };
FIXTURE_VARIANT_ADD(folio, 64k) { .kind = MEM_64K };
FIXTURE_VARIANT_ADD(folio, 2m) { .kind = MEM_2M };
FIXTURE_VARIANT_ADD(folio, 2m_ptes) { .kind = MEM_2M_PTES };
/* clang-format on */

FIXTURE_SETUP(folio)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "no such folios: %s", strerror(errno));
	}
	self->size = mem_kind_size(variant->kind);
	self->pages = self->size / PAGE;
	self->src = map_filled(2 * self->size, variant->kind, SEED);
	EXPECT_EQ(0, undo_now());
	if (!self->src || pipe_of(self->fds, 1024))
		SKIP(return, "no such folios or pipes: %s", strerror(errno));
	self->dst = map_mem(2 * PMD);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, read_frames(self->src, 2 * self->pages, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(folio)
{
	EXPECT_EQ(0, undo_now());
}

/* What of it is in the range is copied; the other one goes whole. */
TEST_F(folio, partial_at_the_end)
{
	const ssize_t len = self->size + self->size / 2;

	EXPECT_EQ(len, give(self->fds[1], self->src, len, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_PARTIAL,
		      self->pages / 2);
	EXPECT_EQ(-1, pattern_check(self->src + self->size, self->size,
				    self->size, SEED));
	EXPECT_EQ(len, take(self->fds[0], self->dst, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, len, 0, SEED));
	EXPECT_EQ(self->pages,
		  same_frames(self->dst, self->pages, self->frames));
}

TEST_F(folio, partial_at_the_beginning)
{
	const ssize_t off = self->size / 2, len = 2 * self->size - off;

	EXPECT_EQ(len, give(self->fds[1], self->src + off, len, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_PARTIAL,
		      self->pages / 2);
	EXPECT_EQ(-1, pattern_check(self->src, self->size, 0, SEED));
	EXPECT_EQ(len, take_all(self->fds[0], self->dst, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, len, off, SEED));
}

TEST_F(folio, partial_with_nocopy)
{
	const ssize_t half = self->size / 2;

	EXPECT_EQ(-1, give(self->fds[1], self->src, half, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(-1,
		  give(self->fds[1], self->src + half, half, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(self->size, give(self->fds[1], self->src, self->size + half,
				   SPLICE_F_NOCOPY));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages);
	EXPECT_EQ(-1, pattern_check(self->src + self->size, self->size,
				    self->size, SEED));
}

/* What was discarded of it before must not come along. */
TEST_F(folio, partial_for_what_was_discarded)
{
	char *gone = self->src + self->size / 2;

	ASSERT_EQ(0, madvise(gone, PAGE, MADV_DONTNEED));
	ASSERT_EQ(0, read_frames(self->src, self->pages, self->frames));
	EXPECT_EQ(-1,
		  give(self->fds[1], self->src, self->size, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_PARTIAL, self->pages);
	EXPECT_EQ(self->size, take_all(self->fds[0], self->dst, self->size, 0));
	EXPECT_EQ(0, same_frames(self->dst, self->pages, self->frames));
	EXPECT_EQ(-1, pattern_check(self->dst, self->size / 2, 0, SEED));
	EXPECT_EQ(-1, zero_check(self->dst + self->size / 2, PAGE));
	EXPECT_EQ(-1, pattern_check(self->dst + self->size / 2 + PAGE,
				    self->size / 2 - PAGE,
				    self->size / 2 + PAGE, SEED));
}

/* Half of it is mapped, by an area that ends there. */
TEST_F(folio, partial_after_munmap)
{
	const ssize_t half = self->size / 2;

	ASSERT_EQ(0, munmap(self->src + half, half));
	EXPECT_EQ(-1, give(self->fds[1], self->src, half, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(half, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_PARTIAL, self->pages / 2);
	EXPECT_EQ(half, take(self->fds[0], self->dst, self->size, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, half, 0, SEED));
}

/* One page of it is referenced, which is a reference to it all. */
TEST_F(folio, referenced)
{
	ASSERT_EQ(0, refer(self->src + self->size - PAGE, PAGE));
	EXPECT_EQ(-1, give(self->fds[1], self->src, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(2 * self->size,
		  give_all(self->fds[1], self->src, 2 * self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_REFERENCED, self->pages, GIVEN,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->src, self->size, 0, SEED));
	EXPECT_EQ(2 * self->size,
		  take_all(self->fds[0], self->dst, 2 * self->size, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, 2 * self->size, 0, SEED));
}

TEST_F(folio, pinned)
{
	if (pin(self->src + PAGE, PAGE) < 0)
		SKIP(return, "cannot pin: %s", strerror(errno));
	EXPECT_EQ(-1,
		  give(self->fds[1], self->src, self->size, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_PINNED, self->pages);
	EXPECT_EQ(-1, pattern_check(self->src, self->size, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], self->size, 0, SEED));
}

/* Shared by a fork, and one page of it separated again. */
TEST_F(folio, forked)
{
	ASSERT_EQ(0, park_child());
	pattern_fill(self->src, PAGE, 0, SEED);
	EXPECT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	/* The page that was written to is a small one of its own now. */
	EXPECT_EQ(0, read_pattern(self->fds[0], self->size, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->src + self->size, self->size,
				    self->size, SEED));
	EXPECT_EQ(-1, give(self->fds[1], self->src + self->size, self->size,
			   SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(self->size,
		  give(self->fds[1], self->src + self->size, self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_FORKED, self->pages);
	EXPECT_EQ(0, read_pattern(self->fds[0], self->size, self->size, SEED));
}

/* Less room than the folio is large: piece by piece, and the next one moves. */
TEST_F(folio, short_destination)
{
	const ssize_t half = self->size / 2;

	ASSERT_EQ(2 * self->size,
		  give_all(self->fds[1], self->src, 2 * self->size, 0));
	ASSERT_EQ(0, flip_counts(&self->before));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, half, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(half, take(self->fds[0], self->dst, half, 0));
	EXPECT_EVENTS(&self->before, COPIED_SHORT, self->pages / 2);
	EXPECT_EQ(-1,
		  take(self->fds[0], self->dst + half, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(half + self->size, take_all(self->fds[0], self->dst + half,
					      half + self->size, 0));
	EXPECT_EVENTS(&self->before, COPIED_SHORT, self->pages, TAKEN,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst, 2 * self->size, 0, SEED));
	EXPECT_EQ(self->pages, same_frames(self->dst + self->size, self->pages,
					   self->frames + self->pages));
}

/* The same with segments, which only together have the room. */
TEST_F(folio, short_segments)
{
	const ssize_t half = self->size / 2;
	struct iovec iov[2] = { { self->dst + half, half },
				{ self->dst, half } };

	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EQ(self->size, take_iov(self->fds[0], iov, 2, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_SHORT,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst + half, half, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->dst, half, half, SEED));
}

/* An area ends in the middle of where it would go. */
TEST_F(folio, short_area)
{
	const ssize_t half = self->size / 2;

	ASSERT_EQ(0, madvise(self->dst + half, PMD, MADV_DONTFORK));
	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EQ(self->size, take(self->fds[0], self->dst, self->size, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_SHORT,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst, self->size, 0, SEED));
}

/* Some of it was read before. */
TEST_F(folio, short_of_its_head)
{
	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	ASSERT_EQ(0, read_pattern(self->fds[0], PAGE, 0, SEED));
	EXPECT_EQ(self->size - PAGE,
		  take(self->fds[0], self->dst + PAGE, self->size - PAGE, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_SHORT,
		      self->pages - 1);
	EXPECT_EQ(-1, pattern_check(self->dst + PAGE, self->size - PAGE, PAGE,
				    SEED));
}

TEST_F(folio, unaligned_destination)
{
	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EQ(self->size,
		  take(self->fds[0], self->dst + 512, self->size, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_UNALIGNED,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst + 512, self->size, 0, SEED));
}

TEST_F(folio, teed)
{
	int other[2];

	ASSERT_EQ(0, pipe(other));
	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	ASSERT_EQ(self->size, tee(self->fds[0], other[1], self->size, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(self->size, take(self->fds[0], self->dst, PMD, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_TEED,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst, self->size, 0, SEED));
	EXPECT_EQ(self->size, take(other[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(self->pages,
		  same_frames(self->dst, self->pages, self->frames));
}

/* One page of where it would go is busy: it cannot go there at all. */
TEST_F(folio, destbusy)
{
	char *busy = self->dst + self->size - PAGE;
	uint64_t frame;

	memset(self->dst, 0xaa, self->size);
	ASSERT_EQ(0, refer(busy, PAGE));
	ASSERT_EQ(0, read_frames(busy, 1, &frame));
	ASSERT_EQ(self->size, give(self->fds[1], self->src, self->size, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	/* Nothing of the destination has gone for it. */
	EXPECT_EQ(self->pages, present_pages(self->dst, self->size));
	EXPECT_EQ(0xaa, (unsigned char)self->dst[0]);
	EXPECT_EQ(self->size, take(self->fds[0], self->dst, PMD, 0));
	EXPECT_EVENTS(&self->before, GIVEN, self->pages, COPIED_DESTBUSY,
		      self->pages);
	EXPECT_EQ(-1, pattern_check(self->dst, self->size, 0, SEED));
	if (frames_visible())
		EXPECT_EQ(1, same_frames(busy, 1, &frame));
}

/*
 * Documentation/trace/events-splice.rst: an event for each call, and one for each
 * piece that is copied, in a buffer of this test's own.
 */
#define TRACE "instances/page_flip_copy_test"

FIXTURE(traced)
{
	int fds[2];
	/* Root of tracefs. */
	int dir;
	unsigned long pipe;
	char *src;
	char *dst;
};

static int trace_enable(int dir)
{
	int fd = openat(dir, TRACE "/events/splice/enable", O_WRONLY), err;

	if (fd < 0)
		return -1;
	err = write_all(fd, "1", 1);
	close(fd);
	return err;
}

FIXTURE_SETUP(traced)
{
	const char *const none[][2] = { { NULL } };
	struct stat st;

	self->dir = private_mount("tracefs", none);
	if (self->dir < 0 ||
	    (mkdirat(self->dir, TRACE, 0700) && errno != EEXIST) ||
	    trace_enable(self->dir))
		SKIP(return, "needs root, and tracing");
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, fstat(self->fds[0], &st));
	self->pipe = st.st_ino;
	self->src = map_mem(PMD);
	self->dst = map_mem(PMD);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, madvise(self->src, PMD, MADV_NOHUGEPAGE));
	memset(self->src, 1, 2 * PAGE);
}

FIXTURE_TEARDOWN(traced)
{
	EXPECT_EQ(0, unlinkat(self->dir, TRACE, AT_REMOVEDIR));
}

/* How many lines of the trace end with @want. */
static int count_lines(int dir, const char *want)
{
	int fd = openat(dir, TRACE "/trace", O_RDONLY), found = 0;
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	const size_t len = strlen(want);
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strlen(line) >= len)
			found += !strcmp(line + strlen(line) - len, want);
	}
	if (file)
		fclose(file);
	return found;
}

static int count_copies(int dir, const char *addr, int bytes, const char *side,
			const char *reason)
{
	char want[200];

	snprintf(want, sizeof(want),
		 ": page_flip_fallback: addr=%p bytes=%d side=%s reason=%s",
		 addr, bytes, side, reason);
	return count_lines(dir, want);
}

/* @what: everything behind the pipe. */
static int count_calls(int dir, const char *call, unsigned long pipe,
		       const char *what)
{
	char want[200];

	snprintf(want, sizeof(want), ": vmsplice_%s: pipe=%lu %s", call, pipe,
		 what);
	return count_lines(dir, want);
}

/* Two pages, a hole, and part of a page, which is copied on both sides. */
TEST_F(traced, give_and_take)
{
	const char gave[] =
		"asked=12384 moved=8192 holes=4096 copied=96 ret=12384";
	const char took[] =
		"asked=16384 moved=8192 holes=4096 copied=96 ret=12384";
	const int len = 3 * PAGE + 96;

	ASSERT_EQ(len, give(self->fds[1], self->src, len, 0));
	EXPECT_EQ(1, count_copies(self->dir, self->src + 3 * PAGE, 96, "give",
				  "unaligned"));
	EXPECT_EQ(1, count_calls(self->dir, "give", self->pipe, gave));
	ASSERT_EQ(len, take(self->fds[0], self->dst, 4 * PAGE, 0));
	EXPECT_EQ(1, count_copies(self->dir, self->dst + 3 * PAGE, 96, "take",
				  "short"));
	EXPECT_EQ(1, count_calls(self->dir, "take", self->pipe, took));
}

/* What the call stopped for; nothing was copied. */
TEST_F(traced, refused)
{
	char what[80];

	ASSERT_EQ(0, mlock(self->src, PAGE));
	EXPECT_EQ(-1, give(self->fds[1], self->src, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(1,
		  count_copies(self->dir, self->src, PAGE, "give", "mlocked"));
	snprintf(what, sizeof(what),
		 "asked=4096 moved=0 holes=0 copied=0 ret=%d", -EOPNOTSUPP);
	EXPECT_EQ(1, count_calls(self->dir, "give", self->pipe, what));
}

FLIP_HARNESS_MAIN
