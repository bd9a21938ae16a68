// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel buffers and the page flip: what a driver has mapped belongs to the
 * driver, so giving it copies, taking onto it copies, and its pages in a pipe
 * are never taken for the pipe's own.  Page frames, reference counts and the
 * counters of /proc/vmstat say so, not only the data.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kbuf_util.h"

#define SEED 0xb0f11b
#define OTHER_SEED 0x0dd
/* The size of the buffer: less than a pipe holds. */
#define NR 8
#define LEN (NR * PAGE)

/* A buffer, its mapping, and what becomes of that. */
FIXTURE(mode)
{
	int fd;
	int fds[2];
	char *mem;
	char *anon;
	uint64_t frames[NR];
	long refs;
	struct flip_counts before;
};

FIXTURE_VARIANT(mode)
{
	const char *device;
	enum splice_kbuf_mode mode;
	int flags;
	enum flip_event reason;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(mode, pages) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_PAGES, .flags = MAP_SHARED,
	.reason = COPIED_SHARED };
FIXTURE_VARIANT_ADD(mode, vmalloc) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_VMALLOC,
	.flags = MAP_SHARED, .reason = COPIED_SHARED };
FIXTURE_VARIANT_ADD(mode, folio) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_FOLIO, .flags = MAP_SHARED,
	.reason = COPIED_SHARED };
FIXTURE_VARIANT_ADD(mode, insert_pages) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_INSERT_PAGES,
	.flags = MAP_SHARED, .reason = COPIED_PFN };
FIXTURE_VARIANT_ADD(mode, remap_pfn) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_REMAP_PFN,
	.flags = MAP_SHARED, .reason = COPIED_PFN };
FIXTURE_VARIANT_ADD(mode, remap_vmalloc) {
	.device = KBUF_MMAP_DEVICE, .mode = SPLICE_KBUF_REMAP_VMALLOC,
	.flags = MAP_SHARED, .reason = COPIED_PFN };
FIXTURE_VARIANT_ADD(mode, pages_private) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_PAGES,
	.flags = MAP_PRIVATE, .reason = COPIED_FILE };
FIXTURE_VARIANT_ADD(mode, folio_private) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_FOLIO,
	.flags = MAP_PRIVATE, .reason = COPIED_FILE };
FIXTURE_VARIANT_ADD(mode, insert_pages_private) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_INSERT_PAGES,
	.flags = MAP_PRIVATE, .reason = COPIED_PFN };
FIXTURE_VARIANT_ADD(mode, remap_pfn_private) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_REMAP_PFN,
	.flags = MAP_PRIVATE, .reason = COPIED_PFN };
/* clang-format on */

FIXTURE_SETUP(mode)
{
	ASSERT_EQ(0, stay_on_cpu());
	self->fd = kbuf_open(variant->device, variant->mode, NR, O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, kbuf_frames(self->fd, NR, self->frames));
	ASSERT_EQ(0, write_pattern(self->fd, LEN, 0, SEED));
	ASSERT_EQ(0, lseek(self->fd, 0, SEEK_SET));
	self->mem = kbuf_map(self->fd, NR, variant->flags);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(-1, pattern_check(self->mem, LEN, 0, SEED));
	ASSERT_EQ(NR, kbuf_same_frames(self->fd, self->mem, NR, self->frames));
	self->refs = kbuf_refs(self->fd, 0);
	self->anon = map_mem(PMD);
	ASSERT_NE(NULL, self->anon);
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(mode)
{
}

/* The buffer keeps its pages, its data and its references. */
#define EXPECT_KEPT()                                                   \
	do {                                                            \
		EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->mem, NR, \
					       self->frames));          \
		EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, SEED));  \
		EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));      \
		EXPECT_EQ(self->refs, kbuf_refs(self->fd, 0));          \
	} while (0)

/* A copy goes into the pipe, which the buffer has no more to do with. */
TEST_F(mode, given)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR);
	EXPECT_KEPT();
	ASSERT_EQ(LEN, pwrite(self->fd, self->anon, LEN, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, SEED));
	EXPECT_EQ(-1, zero_check(self->mem, LEN));
}

/* The copy is the pipe's own and may be taken: not the page it was made of. */
TEST_F(mode, given_and_taken)
{
	ASSERT_EQ(LEN, give(self->fds[1], self->mem, LEN, 0));
	EXPECT_EQ(LEN, take(self->fds[0], self->anon, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR, TAKEN, NR);
	EXPECT_EQ(-1, pattern_check(self->anon, LEN, 0, SEED));
	EXPECT_EQ(0, same_frames(self->anon, NR, self->frames));
	EXPECT_KEPT();
	memset(self->anon, 0, LEN);
	EXPECT_KEPT();
}

/* Moving it or nothing: nothing. */
TEST_F(mode, given_nocopy)
{
	EXPECT_EQ(-1, give(self->fds[1], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_KEPT();
}

/* Data that is taken lands in the buffer, where it is mapped. */
TEST_F(mode, taken_onto)
{
	pattern_fill(self->anon, LEN, 0, OTHER_SEED);
	ASSERT_EQ(LEN, give(self->fds[1], self->anon, LEN, 0));
	EXPECT_EQ(LEN, take(self->fds[0], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, GIVEN, NR, variant->reason, NR);
	EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, OTHER_SEED));
	if (variant->flags == MAP_PRIVATE) {
		EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
		return;
	}
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, OTHER_SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->mem, NR, self->frames));
	EXPECT_EQ(self->refs, kbuf_refs(self->fd, 0));
}

/* What could not be moved there is still in the pipe, and moves elsewhere. */
TEST_F(mode, taken_onto_nocopy)
{
	uint64_t frames[NR];

	pattern_fill(self->anon, LEN, 0, OTHER_SEED);
	ASSERT_EQ(0, read_frames(self->anon, NR, frames));
	ASSERT_EQ(LEN, give(self->fds[1], self->anon, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, take(self->fds[0], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before, GIVEN, NR);
	EXPECT_KEPT();
	EXPECT_EQ(LEN, take(self->fds[0], self->anon, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(NR, same_frames(self->anon, NR, frames));
	EXPECT_EQ(-1, pattern_check(self->anon, LEN, 0, OTHER_SEED));
}

/* A hole empties other memory; here it is zeroes. */
TEST_F(mode, hole_taken_onto)
{
	ASSERT_EQ(LEN, give(self->fds[1], self->anon, LEN, 0));
	EXPECT_EQ(LEN, take(self->fds[0], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, GIVEN_HOLE, NR, variant->reason, NR);
	EXPECT_EQ(-1, zero_check(self->mem, LEN));
	if (variant->flags == MAP_PRIVATE)
		return;
	EXPECT_EQ(0, pread_zeroes(self->fd, 0, LEN));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->mem, NR, self->frames));
	EXPECT_EQ(self->refs, kbuf_refs(self->fd, 0));
}

/* The driver's pages in a pipe were not given by anybody. */
TEST_F(mode, spliced_and_taken)
{
	ASSERT_EQ(LEN, splice(self->fd, NULL, self->fds[1], NULL, LEN, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->anon, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, bytes_queued(self->fds[0]));
	EXPECT_EQ(LEN, take(self->fds[0], self->anon, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	EXPECT_EQ(-1, pattern_check(self->anon, LEN, 0, SEED));
	EXPECT_EQ(0, same_frames(self->anon, NR, self->frames));
	EXPECT_KEPT();
}

/* Neither when the pipe is the last one that refers to them. */
TEST_F(mode, spliced_from_what_is_gone)
{
	uint64_t *frames = self->frames;

	ASSERT_EQ(LEN, splice(self->fd, NULL, self->fds[1], NULL, LEN, 0));
	ASSERT_EQ(0, munmap(self->mem, LEN));
	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, kbuf_unload());
	EXPECT_EQ(-1, take(self->fds[0], self->anon, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(LEN, take(self->fds[0], self->anon, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	EXPECT_EQ(-1, pattern_check(self->anon, LEN, 0, SEED));
	/* They were there all the time, so the copies are elsewhere. */
	EXPECT_EQ(0, same_frames(self->anon, NR, frames));
	ASSERT_EQ(0, kbuf_load());
}

/* Shared with the pipe, as vmsplice() does: called a gift, and yet no gift. */
TEST_F(mode, shared_and_taken)
{
	struct iovec iov = { self->mem, LEN };

	if (variant->mode == SPLICE_KBUF_REMAP_PFN) {
		EXPECT_EQ(-1, vmsplice(self->fds[1], &iov, 1, SPLICE_F_GIFT));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_KEPT();
		return;
	}
	ASSERT_EQ(LEN, vmsplice(self->fds[1], &iov, 1, SPLICE_F_GIFT));
	EXPECT_EQ(LEN, take(self->fds[0], self->anon, LEN, 0));
	EXPECT_EVENTS(&self->before, COPIED_FOREIGN, NR);
	EXPECT_EQ(-1, pattern_check(self->anon, LEN, 0, SEED));
	EXPECT_EQ(0, same_frames(self->anon, NR, self->frames));
	EXPECT_KEPT();
}

/* Part of a page, from inside of the buffer. */
TEST_F(mode, given_unaligned)
{
	EXPECT_EQ(PAGE, give(self->fds[1], self->mem + 512, PAGE, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 512, SEED));
	EXPECT_KEPT();
}

/* Written to: a private page is the process's own now, but in this area. */
TEST_F(mode, written)
{
	const bool private = variant->flags == MAP_PRIVATE;

	pattern_fill(self->mem, LEN, 0, OTHER_SEED);
	ASSERT_EQ(private ? 0 : NR,
		  kbuf_same_frames(self->fd, self->mem, NR, self->frames));
	EXPECT_EQ(-1, give(self->fds[1], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(LEN, give(self->fds[1], self->mem, LEN, 0));
	EXPECT_EVENTS(&self->before, variant->reason, NR);
	EXPECT_EQ(-1, pattern_check(self->mem, LEN, 0, OTHER_SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, OTHER_SEED));
	EXPECT_EQ(-1,
		  kbuf_check(self->fd, LEN, 0, private ? SEED : OTHER_SEED));
}

/* Memory that was given, on its way to a driver. */
FIXTURE(driver)
{
	int fd;
	int fds[2];
	char *mem;
	struct flip_counts before;
};

FIXTURE_SETUP(driver)
{
	ASSERT_EQ(0, stay_on_cpu());
	self->fd =
		kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, PMD / PAGE, O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(driver)
{
}

/* Frame by frame what came out of the pipe is what was given. */
static long came_from(int fd, size_t nr, const uint64_t *frames)
{
	struct splice_kbuf_page page;
	long same = 0;
	size_t i;

	for (i = 0; i < nr; i++)
		same += !kbuf_page(fd, i, &page) && page.from == frames[i];
	return same;
}

TEST_F(driver, small_pages)
{
	uint64_t frames[NR];

	self->mem = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, read_frames(self->mem, NR, frames));
	ASSERT_EQ(LEN, give(self->fds[1], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(LEN, splice(self->fds[0], NULL, self->fd, NULL, LEN, 0));
	EXPECT_EQ(NR, came_from(self->fd, NR, frames));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
}

/* One buffer of the pipe with all the pages of a folio. */
TEST_F(driver, huge_page)
{
	uint64_t frames[PMD / 4096];

	self->mem = map_filled(PMD, MEM_2M, SEED);
	if (!self->mem && errno == ENOENT)
		SKIP(return, "no huge page");
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, read_frames(self->mem, PMD / PAGE, frames));
	ASSERT_EQ(PMD, give(self->fds[1], self->mem, PMD, SPLICE_F_NOCOPY));
	/* From the second byte of it on. */
	EXPECT_EQ(0, read_pattern(self->fds[0], 512, 0, SEED));
	EXPECT_EQ(PMD - 512,
		  splice(self->fds[0], NULL, self->fd, NULL, PMD, 0));
	EXPECT_EQ(-1, kbuf_check(self->fd, PMD - 512, 512, SEED));
	EXPECT_EQ(PMD / PAGE - 1,
		  came_from(self->fd, PMD / PAGE - 1, frames + 1));
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
}

TEST_F(driver, hole)
{
	self->mem = map_mem(PMD);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, write_pattern(self->fd, LEN, 0, SEED));
	ASSERT_EQ(0, lseek(self->fd, 0, SEEK_SET));
	ASSERT_EQ(LEN, give(self->fds[1], self->mem, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(LEN, splice(self->fds[0], NULL, self->fd, NULL, LEN, 0));
	EXPECT_EQ(0, pread_zeroes(self->fd, 0, LEN));
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
}

static __attribute__((constructor)) void required(void)
{
	flip_require();
	kbuf_require();
}

TEST_HARNESS_MAIN
