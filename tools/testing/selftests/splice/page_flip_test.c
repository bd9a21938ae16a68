// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page flip: what vmsplice() with SPLICE_F_GIFT | SPLICE_F_MOVE (give) and
 * with SPLICE_F_MOVE on the other end (take) promises.  That a page moved is
 * said by its frame, that nothing was copied by the counters of the kernel.
 *
 * Why a page is copied: page_flip_copy_test.c.  Who must not get at it:
 * page_flip_attack_test.c.  Who pays: page_flip_account_test.c.
 *
 * errno	test, or where it is
 * EAGAIN	full.eagain, empty.eagain; SPLICE_F_NOCOPY: page_flip_copy_test
 * EBADF	flip.ebadf
 * EFAULT	bad_source.efault, bad_destination.efault, flip.efault_iovec,
 *		flip.efault_pkey
 * EHWPOISON	flip.ehwpoison_source, flip.ehwpoison_in_flight,
 *		ehwpoison_huge_in_flight
 * EINTR	full.eintr, empty.eintr
 * EINVAL	flip.einval_flags, flip.einval_nocopy_alone,
 *		flip.einval_nocopy_unaligned, flip.einval_iov_max,
 *		flip.einval_other_calls, flip.einval_io_uring
 * ENOMEM	page_flip_account_test: the memory cgroup of the taker is full
 * EOPNOTSUPP	page_flip_copy_test
 * EPIPE	flip.epipe
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "page_flip_util.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define SEED 0x5b11ce
#define OTHER_SEED 0x0dd
#define POISON 0xaa
/* Slots of a new pipe, and a source that fills them. */
#define SLOTS 16
#define LEN (SLOTS * PAGE)

/* @mem holds @len bytes of the stream from @pos on. */
static void expect_stream(struct __test_metadata *_metadata, const char *mem,
			  size_t len, uint64_t pos)
{
	EXPECT_EQ(-1, pattern_check(mem, len, pos, SEED));
}

/* The frames are at @mem now, every one. */
static void expect_frames(struct __test_metadata *_metadata, const char *mem,
			  const uint64_t *frames, long nr)
{
	if (frames_visible())
		EXPECT_EQ(nr, same_frames(mem, nr, frames));
}

/* Nothing is there any more: not a page, not a byte. */
static void expect_gone(struct __test_metadata *_metadata, const char *mem,
			size_t len)
{
	EXPECT_EQ(0, present_pages(mem, len));
	EXPECT_EQ(0, swapped_pages(mem, len));
	EXPECT_EQ(-1, zero_check(mem, len));
}

/* Give, take, until all is done.  As much as went through. */
static ssize_t through(int fds[2], char *from, char *to, size_t len,
		       unsigned int more)
{
	size_t done;
	ssize_t n;

	for (done = 0; done < len; done += n) {
		n = give(fds[1], from + done, len - done, more);
		if (n <= 0 || take_all(fds[0], to + done, n, more) != n)
			break;
	}
	return done;
}

/* --------------------------------------------------- folios of every size */

#define FOLIO_LEN (2 * PMD)
#define FOLIO_PAGES (FOLIO_LEN / PAGE)

FIXTURE(folio)
{
	int fds[2];
	char *src;
	char *dst;
	uint64_t frames[FOLIO_PAGES];
	struct flip_counts before;
};

FIXTURE_VARIANT(folio)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(folio, 4k) { .kind = MEM_4K };
FIXTURE_VARIANT_ADD(folio, 16k) { .kind = MEM_16K };
FIXTURE_VARIANT_ADD(folio, 32k) { .kind = MEM_32K };
FIXTURE_VARIANT_ADD(folio, 64k) { .kind = MEM_64K };
FIXTURE_VARIANT_ADD(folio, 128k) { .kind = MEM_128K };
FIXTURE_VARIANT_ADD(folio, 256k) { .kind = MEM_256K };
FIXTURE_VARIANT_ADD(folio, 512k) { .kind = MEM_512K };
FIXTURE_VARIANT_ADD(folio, 1m) { .kind = MEM_1M };
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
	self->src = map_filled(FOLIO_LEN, variant->kind, SEED);
	EXPECT_EQ(0, undo_now());
	if (!self->src)
		SKIP(return, "no such folios: %s", strerror(errno));
	self->dst = map_mem(FOLIO_LEN + PMD);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, read_frames(self->src, FOLIO_PAGES, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(folio)
{
}

/* All of it arrived at @to by moving. */
static void expect_moved(struct __test_metadata *_metadata,
			 FIXTURE_DATA(folio) * self, const char *to)
{
	expect_frames(_metadata, to, self->frames, FOLIO_PAGES);
	expect_stream(_metadata, to, FOLIO_LEN, 0);
	EXPECT_EVENTS(&self->before, GIVEN, FOLIO_PAGES, TAKEN, FOLIO_PAGES);
}

/* What the folios at @to are now: as large as they were. */
static void expect_folios(struct __test_metadata *_metadata, const char *to,
			  enum mem_kind kind, bool huge)
{
	const ssize_t size = mem_kind_size(kind);
	ssize_t off;

	EXPECT_EQ(huge ? FOLIO_LEN : 0, huge_bytes(to, FOLIO_LEN));
	if (!frames_visible())
		return;
	for (off = 0; off < FOLIO_LEN; off += size)
		EXPECT_EQ(size / PAGE, folio_pages(to + off));
}

/* The same frames at the other side, nothing left behind. */
TEST_F(folio, moves)
{
	EXPECT_EQ(FOLIO_LEN,
		  through(self->fds, self->src, self->dst, FOLIO_LEN, 0));
	expect_moved(_metadata, self, self->dst);
	expect_folios(_metadata, self->dst, variant->kind,
		      variant->kind >= MEM_2M);
	expect_gone(_metadata, self->src, FOLIO_LEN);
}

/* The same, and the kernel would have had to refuse a copy. */
TEST_F(folio, moves_strictly)
{
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->dst, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->dst);
	expect_gone(_metadata, self->src, FOLIO_LEN);
}

/* A page beside the multiple: by page table entries, across page tables. */
TEST_F(folio, moves_to_odd_page)
{
	char *odd = self->dst + PAGE;

	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, odd, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, odd);
	expect_folios(_metadata, odd, variant->kind, false);
	EXPECT_EQ(FOLIO_PAGES, present_pages(self->dst, FOLIO_LEN + PMD));
}

/* Whatever its size, a folio that moves whole is one slot. */
TEST_F(folio, is_one_slot)
{
	const ssize_t size = mem_kind_size(variant->kind);
	int fds[2];

	ASSERT_EQ(0, pipe_of(fds, 1));
	EXPECT_EQ(size, give(fds[1], self->src, FOLIO_LEN, 0));
	EXPECT_EQ(size, bytes_queued(fds[0]));
	expect_gone(_metadata, self->src, size);
	expect_stream(_metadata, self->src + size, FOLIO_LEN - size, size);
	EXPECT_EQ(size, take(fds[0], self->dst, FOLIO_LEN, 0));
	expect_frames(_metadata, self->dst, self->frames, size / PAGE);
	EXPECT_EVENTS(&self->before, GIVEN, size / PAGE, TAKEN, size / PAGE);
	expect_stream(_metadata, self->dst, size, 0);
}

/* What is replaced is freed, and nothing of it shows. */
TEST_F(folio, replaces_small_pages)
{
	/* Without advice, which would be against huge pages taken too. */
	pattern_fill(self->dst, FOLIO_LEN, 0, OTHER_SEED);
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->dst, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->dst);
	EXPECT_EQ(FOLIO_PAGES, present_pages(self->dst, FOLIO_LEN));
}

TEST_F(folio, replaces_huge_pages)
{
	if (mem_fill(self->dst, FOLIO_LEN, MEM_2M, OTHER_SEED))
		SKIP(return, "no huge pages: %s", strerror(errno));
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->dst, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->dst);
	EXPECT_EQ(FOLIO_PAGES, present_pages(self->dst, FOLIO_LEN));
}

/* In the middle of a huge page, whose ends must stay. */
TEST_F(folio, replaces_part_of_huge_page)
{
	char *to = self->dst + PMD / 2;

	if (mem_fill(self->dst, FOLIO_LEN + PMD, MEM_2M, OTHER_SEED))
		SKIP(return, "no huge pages: %s", strerror(errno));
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, to, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, to);
	EXPECT_EQ(-1, pattern_check(self->dst, PMD / 2, 0, OTHER_SEED));
	EXPECT_EQ(-1, pattern_check(to + FOLIO_LEN, PMD / 2,
				    FOLIO_LEN + PMD / 2, OTHER_SEED));
}

/* Every other page is there. */
TEST_F(folio, replaces_half_populated)
{
	ssize_t off;

	for (off = 0; off < FOLIO_LEN; off += 2 * PAGE)
		self->dst[off] = 1;
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->dst, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->dst);
}

/* Zero pages, which reading put there, are no obstacle. */
TEST_F(folio, replaces_zero_pages)
{
	EXPECT_EQ(-1, zero_check(self->dst, FOLIO_LEN));
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->dst, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->dst);
}

/* Back to where it was. */
TEST_F(folio, returns)
{
	EXPECT_EQ(FOLIO_LEN, through(self->fds, self->src, self->src, FOLIO_LEN,
				     SPLICE_F_NOCOPY));
	expect_moved(_metadata, self, self->src);
	pattern_fill(self->src, FOLIO_LEN, 0, OTHER_SEED);
	EXPECT_EQ(-1, pattern_check(self->src, FOLIO_LEN, 0, OTHER_SEED));
}

/* Moved memory is memory like any other: written, forked, given again. */
TEST_F(folio, moves_on_and_on)
{
	int i;

	for (i = 0; i < 4; i++) {
		char *from = i % 2 ? self->dst : self->src;
		char *to = i % 2 ? self->src : self->dst;

		EXPECT_EQ(FOLIO_LEN, through(self->fds, from, to, FOLIO_LEN,
					     SPLICE_F_NOCOPY));
		expect_frames(_metadata, to, self->frames, FOLIO_PAGES);
		pattern_fill(to, FOLIO_LEN, 0, SEED + i);
		EXPECT_EQ(-1, pattern_check(to, FOLIO_LEN, 0, SEED + i));
		expect_gone(_metadata, from, FOLIO_LEN);
	}
	EXPECT_EVENTS(&self->before, GIVEN, 4 * FOLIO_PAGES, TAKEN,
		      4 * FOLIO_PAGES);
}

/* A pipe's worth; the memory behind it goes before it is taken. */
TEST_F(folio, outlives_munmap)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, SPLICE_F_NOCOPY);

	ASSERT_LT(0, n);
	unmap_mem(self->src, FOLIO_LEN);
	EXPECT_EQ(n, take(self->fds[0], self->dst, n, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, n / PAGE);
	expect_stream(_metadata, self->dst, n, 0);
}

/* Nobody has the memory in a pipe that goes: it is free then. */
TEST_F(folio, goes_with_pipe)
{
	const long in_flight = flip_in_flight(0, 1000);
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, SPLICE_F_NOCOPY);

	ASSERT_LT(0, n);
	if (!geteuid())
		EXPECT_EQ(in_flight + n / PAGE, vmstat_get("nr_flip_pages"));
	close(self->fds[0]);
	close(self->fds[1]);
	if (!geteuid())
		EXPECT_EQ(in_flight, vmstat_get("nr_flip_pages"));
	EXPECT_EVENTS(&self->before, GIVEN, n / PAGE);
}

/* The giver's next stores go to fresh memory. */
TEST_F(folio, later_stores_stay_out)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);

	ASSERT_LT(0, n);
	memset(self->src, POISON, FOLIO_LEN);
	EXPECT_EQ(n, take(self->fds[0], self->dst, n, 0));
	expect_frames(_metadata, self->dst, self->frames, n / PAGE);
	expect_stream(_metadata, self->dst, n, 0);
	memset(self->dst, 0, n);
	EXPECT_EQ(POISON, (unsigned char)self->src[n - 1]);
}

/* RSS is right when the call returns, and so are the pages in flight. */
TEST_F(folio, accounts)
{
	const long rss = rss_pages(), flying = flip_in_flight(0, 1000);
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, SPLICE_F_NOCOPY);

	ASSERT_LT(0, n);
	EXPECT_EQ(rss - n / PAGE, rss_pages());
	if (!geteuid())
		EXPECT_EQ(flying + n / PAGE, vmstat_get("nr_flip_pages"));
	EXPECT_EQ(n, take(self->fds[0], self->dst, n, SPLICE_F_NOCOPY));
	EXPECT_EQ(rss, rss_pages());
	if (!geteuid())
		EXPECT_EQ(flying, vmstat_get("nr_flip_pages"));
	ASSERT_EQ(0, munmap(self->dst, n));
	EXPECT_EQ(rss - n / PAGE, rss_pages());
}

/* Who does not take reads. */
TEST_F(folio, is_read)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);

	ASSERT_LT(0, n);
	ASSERT_EQ(n, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, read_pattern(self->fds[0], n, 0, SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before, GIVEN, n / PAGE);
}

/* Where it is spliced to a file, that gets the bytes, and keeps them. */
TEST_F(folio, is_spliced_to_file)
{
	int file = backing_file(BACKING_MEMFD);
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);

	ASSERT_LT(0, n);
	ASSERT_EQ(n, splice_all(self->fds[0], NULL, file, NULL, n));
	EXPECT_EQ(0, pread_pattern(file, 0, n, 0, SEED));
	memset(self->src, POISON, FOLIO_LEN);
	EXPECT_EQ(0, pread_pattern(file, 0, n, 0, SEED));
}

/* On into another pipe it goes whole, and can be taken there. */
TEST_F(folio, is_spliced_to_pipe)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);
	int next[2];

	ASSERT_LT(0, n);
	ASSERT_EQ(0, pipe(next));
	EXPECT_EQ(n, splice_all(self->fds[0], NULL, next[1], NULL, n));
	EXPECT_EQ(n, take(next[0], self->dst, n, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, n / PAGE);
	expect_stream(_metadata, self->dst, n, 0);
	EXPECT_EVENTS(&self->before, GIVEN, n / PAGE, TAKEN, n / PAGE);
}

TEST_F(folio, is_spliced_to_socket)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);
	pid_t reader;
	int sv[2];

	ASSERT_LT(0, n);
	ASSERT_EQ(0, tcp_pair(sv));
	reader = spawn_reader(sv[1], n, 0, SEED);
	EXPECT_EQ(n, splice_all(self->fds[0], NULL, sv[0], NULL, n));
	EXPECT_EQ(0, reap(reader));
}

TEST_F(folio, is_spliced_to_null)
{
	int null = open("/dev/null", O_WRONLY);
	const long flying = flip_in_flight(0, 1000);
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);

	ASSERT_LT(0, n);
	EXPECT_EQ(n, splice_all(self->fds[0], NULL, null, NULL, n));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	if (!geteuid())
		EXPECT_EQ(flying, vmstat_get("nr_flip_pages"));
}

/* Tee'd, both pipes have it; the last of them has it alone again. */
TEST_F(folio, is_teed)
{
	const long flying = flip_in_flight(0, 1000);
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);
	int other[2];

	ASSERT_LT(0, n);
	ASSERT_EQ(0, pipe(other));
	EXPECT_EQ(n, tee(self->fds[0], other[1], n, 0));
	if (!geteuid())
		EXPECT_EQ(flying + n / PAGE, vmstat_get("nr_flip_pages"));
	EXPECT_EQ(0, read_pattern(other[0], n, 0, SEED));
	EXPECT_EQ(n, take(self->fds[0], self->dst, n, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, n / PAGE);
	expect_stream(_metadata, self->dst, n, 0);
}

/* The count that ioctl() and poll() go by is of bytes. */
TEST_F(folio, shows_in_poll)
{
	const ssize_t size = mem_kind_size(variant->kind);
	struct pollfd in, out;
	int fds[2];

	ASSERT_EQ(0, pipe_of(fds, 2));
	in = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	out = (struct pollfd){ .fd = fds[1], .events = POLLOUT };
	EXPECT_EQ(0, poll(&in, 1, 0));
	EXPECT_EQ(size, give(fds[1], self->src, size, 0));
	EXPECT_EQ(size, bytes_queued(fds[0]));
	EXPECT_EQ(1, poll(&in, 1, 0));
	EXPECT_EQ(1, poll(&out, 1, 0));
	EXPECT_EQ(size, give(fds[1], self->src + size, size, 0));
	EXPECT_EQ(2 * size, bytes_queued(fds[0]));
	EXPECT_EQ(0, poll(&out, 1, 0));
	EXPECT_EQ(size, take(fds[0], self->dst, size, SPLICE_F_NOCOPY));
	EXPECT_EQ(size, bytes_queued(fds[0]));
	EXPECT_EQ(1, poll(&out, 1, 0));
}

/* Forking afterwards changes nothing: what is in a pipe is in no process. */
TEST_F(folio, child_takes)
{
	ssize_t n = give(self->fds[1], self->src, FOLIO_LEN, 0);
	pid_t child;

	ASSERT_LT(0, n);
	child = fork_child();
	if (!child) {
		if (take(self->fds[0], self->dst, n, SPLICE_F_NOCOPY) != n)
			_exit(2);
		if (frames_visible() &&
		    same_frames(self->dst, n / PAGE, self->frames) != n / PAGE)
			_exit(3);
		_exit(pattern_check(self->dst, n, 0, SEED) < 0 ? 0 : 4);
	}
	EXPECT_EQ(0, reap(child));
	EXPECT_EVENTS(&self->before, GIVEN, n / PAGE, TAKEN, n / PAGE);
	EXPECT_EQ(0, present_pages(self->dst, FOLIO_LEN));
}

/* Taken memory is shared and separated by fork() as any other. */
TEST_F(folio, forks_after_take)
{
	pid_t child;

	ASSERT_EQ(FOLIO_LEN,
		  through(self->fds, self->src, self->dst, FOLIO_LEN, 0));
	child = fork_child();
	if (!child) {
		bool right = pattern_check(self->dst, FOLIO_LEN, 0, SEED) < 0;

		memset(self->dst, POISON, FOLIO_LEN);
		_exit(right ? 0 : 1);
	}
	EXPECT_EQ(0, reap(child));
	expect_stream(_metadata, self->dst, FOLIO_LEN, 0);
	expect_frames(_metadata, self->dst, self->frames, FOLIO_PAGES);
}

/* ------------------------------------------------------- two processes */

struct between {
	uint64_t frames[FOLIO_PAGES];
	long rss_before, rss_given;
	ssize_t given;
};

FIXTURE(two)
{
	int fds[2], sv[2];
	struct between *b;
	char *dst;
	pid_t giver;
	struct flip_counts before;
};

FIXTURE_VARIANT(two)
{
	enum mem_kind kind;
	bool nobody;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(two, 4k) { .kind = MEM_4K };
FIXTURE_VARIANT_ADD(two, 64k) { .kind = MEM_64K };
FIXTURE_VARIANT_ADD(two, 2m) { .kind = MEM_2M };
FIXTURE_VARIANT_ADD(two, 2m_ptes) { .kind = MEM_2M_PTES };
FIXTURE_VARIANT_ADD(two, 4k_by_user) { .kind = MEM_4K, .nobody = true };
FIXTURE_VARIANT_ADD(two, 64k_by_user) { .kind = MEM_64K, .nobody = true };
FIXTURE_VARIANT_ADD(two, 2m_by_user) { .kind = MEM_2M, .nobody = true };
/* clang-format on */

/* The giver, which ends with 0 when it has found all right on its side. */
static int give_to_parent(FIXTURE_DATA(two) * self, enum mem_kind kind)
{
	struct between *b = self->b;
	char *src = map_filled(FOLIO_LEN, kind, SEED);

	if (!src || read_frames(src, FOLIO_PAGES, b->frames))
		return 2;
	b->rss_before = rss_pages();
	/* Where to look is for the one who may. */
	if (write_all(self->sv[1], &src, sizeof(src)) ||
	    step_await(self->sv[1]))
		return 3;
	b->given = give_all(self->fds[1], src, FOLIO_LEN, SPLICE_F_NOCOPY);
	b->rss_given = rss_pages();
	if (b->given != FOLIO_LEN || present_pages(src, FOLIO_LEN))
		return 4;
	/* A store to what is not its any more. */
	memset(src, POISON, FOLIO_LEN);
	if (step_tell(self->sv[1]) || step_await(self->sv[1]))
		return 5;
	return 0;
}

/* The frames of another process, which may not see them itself. */
static int frames_of(pid_t pid, const char *mem, uint64_t *frames)
{
	const ssize_t len = FOLIO_PAGES * sizeof(*frames);
	char path[64];
	int fd, i;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY);
	if (pread(fd, frames, len, (uintptr_t)mem / PAGE * 8) != len)
		return -1;
	close(fd);
	for (i = 0; i < FOLIO_PAGES; i++)
		frames[i] &= (UINT64_C(1) << 55) - 1;
	return 0;
}

FIXTURE_SETUP(two)
{
	if (variant->nobody && geteuid())
		SKIP(return, "not root: nobody else to be");
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "no such folios: %s", strerror(errno));
	}
	self->b = mmap(NULL, sizeof(*self->b), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->b);
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, step_pair(self->sv));
	self->giver = variant->nobody ? fork_nobody() : fork_child();
	if (!self->giver)
		_exit(give_to_parent(self, variant->kind));
	/* That a giver which ends early is noticed. */
	close(self->sv[1]);
	close(self->fds[1]);
	self->dst = map_mem(FOLIO_LEN);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(two)
{
	EXPECT_EQ(0, undo_now());
}

/* From the giver's memory to the taker's, with each what the other has not. */
TEST_F(two, moves)
{
	char *src;
	long rss;

	ASSERT_EQ(0, read_all(self->sv[0], &src, sizeof(src)));
	if (frames_visible())
		ASSERT_EQ(0, frames_of(self->giver, src, self->b->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
	rss = rss_pages();
	ASSERT_EQ(0, step_tell(self->sv[0]));
	EXPECT_EQ(FOLIO_LEN, take_all(self->fds[0], self->dst, FOLIO_LEN,
				      SPLICE_F_NOCOPY));
	EXPECT_EQ(rss + FOLIO_PAGES, rss_pages());
	ASSERT_EQ(0, step_await(self->sv[0]));
	EXPECT_EQ(self->b->rss_before - FOLIO_PAGES, self->b->rss_given);
	expect_frames(_metadata, self->dst, self->b->frames, FOLIO_PAGES);
	EXPECT_EVENTS(&self->before, GIVEN, FOLIO_PAGES, TAKEN, FOLIO_PAGES);
	expect_stream(_metadata, self->dst, FOLIO_LEN, 0);
	ASSERT_EQ(0, step_tell(self->sv[0]));
	EXPECT_EQ(0, reap(self->giver));
	/* The giver is dead; the memory is not its any more. */
	expect_stream(_metadata, self->dst, FOLIO_LEN, 0);
}

/* ------------------------------------------------------------------ holes */

/* How the source of a give comes to have no pages. */
enum hole {
	HOLE_PMD, /* no page table */
	HOLE_PTE, /* empty entries of one */
	HOLE_ZERO, /* zero pages, from reading */
	HOLE_HUGE_ZERO,
	HOLE_SCATTERED, /* every other page is one */
};

#define HOLE_LEN (2 * PMD)

FIXTURE(hole)
{
	int fds[2];
	char *src;
	char *dst;
	ssize_t len; /* that fits into the pipe */
	bool scattered;
	struct flip_counts before;
};

FIXTURE_VARIANT(hole)
{
	enum hole hole;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(hole, pmd) { .hole = HOLE_PMD };
FIXTURE_VARIANT_ADD(hole, pte) { .hole = HOLE_PTE };
FIXTURE_VARIANT_ADD(hole, zero) { .hole = HOLE_ZERO };
FIXTURE_VARIANT_ADD(hole, huge_zero) { .hole = HOLE_HUGE_ZERO };
FIXTURE_VARIANT_ADD(hole, scattered) { .hole = HOLE_SCATTERED };
/* clang-format on */

static int make_holes(char *mem, enum hole hole)
{
	ssize_t off;

	if (hole != HOLE_PMD && hole != HOLE_HUGE_ZERO &&
	    madvise(mem, HOLE_LEN, MADV_NOHUGEPAGE))
		return -1;
	switch (hole) {
	case HOLE_PMD:
		break;
	case HOLE_PTE:
		/* Beyond what is given. */
		mem[PMD - PAGE] = 1;
		break;
	case HOLE_HUGE_ZERO:
		if (madvise(mem, HOLE_LEN, MADV_HUGEPAGE))
			return -1;
		__attribute__((fallthrough));
	case HOLE_ZERO:
		if (zero_check(mem, HOLE_LEN) >= 0)
			return -1;
		if (hole == HOLE_HUGE_ZERO && !huge_bytes(mem, HOLE_LEN)) {
			errno = ENOENT;
			return -1;
		}
		break;
	case HOLE_SCATTERED:
		for (off = 0; off < LEN; off += 2 * PAGE)
			pattern_fill(mem + off, PAGE, off, SEED);
		break;
	}
	return 0;
}

FIXTURE_SETUP(hole)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_mem(HOLE_LEN);
	self->dst = map_mem(HOLE_LEN + PMD);
	ASSERT_NE(NULL, self->dst);
	if (make_holes(self->src, variant->hole))
		SKIP(return, "no such holes: %s", strerror(errno));
	memset(self->dst, POISON, HOLE_LEN + PMD);
	self->len = variant->hole == HOLE_PMD ||
				    variant->hole == HOLE_HUGE_ZERO ?
			    HOLE_LEN :
			    LEN;
	self->scattered = variant->hole == HOLE_SCATTERED;
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(hole)
{
}

/* @len bytes at @mem are what the source was, from @pos on. */
static void expect_holes(struct __test_metadata *_metadata,
			 FIXTURE_DATA(hole) * self, const char *mem,
			 ssize_t len, ssize_t pos)
{
	ssize_t off;

	for (off = 0; off < len; off += PAGE) {
		const bool page = self->scattered &&
				  (pos + off) / PAGE % 2 == 0;

		EXPECT_EQ(-1, page ? pattern_check(mem + off, PAGE, pos + off,
						   SEED) :
				     zero_check(mem + off, PAGE));
	}
}

/* Holes arrive as holes, and neither side has a page for them. */
TEST_F(hole, stays_hole)
{
	const long pages = self->len / PAGE, rss = rss_pages();
	const long present = self->scattered ? pages / 2 : 0;

	EXPECT_EQ(self->len,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(self->len, bytes_queued(self->fds[0]));
	/* A zero page may stay: nobody has it. */
	if (variant->hole != HOLE_ZERO && variant->hole != HOLE_HUGE_ZERO)
		EXPECT_EQ(0, present_pages(self->src, self->len));
	EXPECT_EQ(rss - present, rss_pages());
	EXPECT_EQ(self->len,
		  take(self->fds[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(present, present_pages(self->dst, self->len));
	/* What the destination had before is gone. */
	EXPECT_EQ(rss - pages, rss_pages());
	EXPECT_EVENTS(&self->before, GIVEN, present, GIVEN_HOLE,
		      pages - present, TAKEN, present, TAKEN_HOLE,
		      pages - present);
	expect_holes(_metadata, self, self->dst, self->len, 0);
	EXPECT_EQ(POISON, (unsigned char)self->dst[self->len]);
}

/* Any page of it can be taken by itself, to any page. */
TEST_F(hole, is_taken_page_by_page)
{
	const ssize_t len = 8 * PAGE;
	ssize_t off;

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	for (off = 0; off < len; off += PAGE)
		EXPECT_EQ(PAGE, take(self->fds[0], self->dst + 3 * PAGE + off,
				     PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(self->len - len, bytes_queued(self->fds[0]));
	EXPECT_EQ(self->scattered ? 4 : 0,
		  present_pages(self->dst + 3 * PAGE, len));
	expect_holes(_metadata, self, self->dst + 3 * PAGE, len, 0);
	EXPECT_EQ(POISON, (unsigned char)self->dst[3 * PAGE - 1]);
	EXPECT_EQ(POISON, (unsigned char)self->dst[3 * PAGE + len]);
}

/* Who reads gets zeroes, however much at a time, and the rest stays. */
TEST_F(hole, is_read)
{
	char *got = malloc(self->len);
	ssize_t len;

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	memset(got, POISON, self->len);
	for (len = 0; len < self->len; len += PAGE / 2)
		ASSERT_EQ(0, read_all(self->fds[0], got + len, PAGE / 2));
	expect_holes(_metadata, self, got, self->len, 0);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* A little is read, then the rest taken, as far as that can be. */
TEST_F(hole, is_read_then_taken)
{
	char got[100];

	memset(got, POISON, sizeof(got));
	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(0, read_all(self->fds[0], got, sizeof(got)));
	EXPECT_EQ(self->len - 100,
		  take_all(self->fds[0], self->dst + 100, self->len - 100, 0));
	memcpy(self->dst, got, sizeof(got));
	expect_holes(_metadata, self, self->dst, self->len, 0);
}

TEST_F(hole, is_spliced_to_file)
{
	int file = backing_file(BACKING_MEMFD);
	char *got;

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	EXPECT_EQ(self->len,
		  splice_all(self->fds[0], NULL, file, NULL, self->len));
	ASSERT_EQ(self->len, file_size(file));
	got = mmap(NULL, self->len, PROT_READ, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, got);
	expect_holes(_metadata, self, got, self->len, 0);
}

/* Stores to what came out of a hole reach nobody else's zeroes. */
TEST_F(hole, is_private_once_read)
{
	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	EXPECT_EQ(self->len, take(self->fds[0], self->dst, self->len, 0));
	memset(self->dst, POISON, self->len);
	EXPECT_EQ(-1, zero_check(self->src, self->len));
	EXPECT_EQ(-1, zero_check(map_mem(PMD), PMD));
}

TEST_F(hole, is_spliced_to_socket)
{
	char *got = malloc(self->len);
	pid_t sender;
	int sv[2];

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(0, tcp_pair(sv));
	sender = fork_child();
	if (!sender)
		_exit(splice_all(self->fds[0], NULL, sv[0], NULL, self->len) ==
				      self->len ?
			      0 :
			      1);
	memset(got, POISON, self->len);
	ASSERT_EQ(0, read_all(sv[1], got, self->len));
	EXPECT_EQ(0, reap(sender));
	expect_holes(_metadata, self, got, self->len, 0);
}

TEST_F(hole, is_spliced_to_pipe)
{
	int next[2];

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(0, pipe(next));
	EXPECT_EQ(self->len,
		  splice_all(self->fds[0], NULL, next[1], NULL, self->len));
	EXPECT_EQ(self->len,
		  take(next[0], self->dst, self->len, SPLICE_F_NOCOPY));
	expect_holes(_metadata, self, self->dst, self->len, 0);
}

/* Both of a pair tee'd give zeroes, read or taken. */
TEST_F(hole, is_teed)
{
	char *got = malloc(self->len);
	int other[2];

	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(0, pipe(other));
	EXPECT_EQ(self->len, tee(self->fds[0], other[1], self->len, 0));
	EXPECT_EQ(self->len, bytes_queued(other[0]));
	memset(got, POISON, self->len);
	ASSERT_EQ(0, read_all(other[0], got, self->len));
	expect_holes(_metadata, self, got, self->len, 0);
	EXPECT_EQ(self->len, take(self->fds[0], self->dst, self->len, 0));
	expect_holes(_metadata, self, self->dst, self->len, 0);
}

/* Beside a page: zeroes are written there. */
TEST_F(hole, is_taken_unaligned)
{
	EXPECT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	EXPECT_EQ(self->len,
		  take_all(self->fds[0], self->dst + 5, self->len, 0));
	expect_holes(_metadata, self, self->dst + 5, self->len, 0);
	EXPECT_EQ(POISON, (unsigned char)self->dst[4]);
	EXPECT_EQ(POISON, (unsigned char)self->dst[5 + self->len]);
}

/* ------------------------------------------------- small pages in one pipe */

FIXTURE(flip)
{
	int fds[2];
	char *src;
	char *dst;
	uint64_t frames[SLOTS];
	struct flip_counts before;
};

FIXTURE_SETUP(flip)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(2 * PMD);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, read_frames(self->src, SLOTS, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(flip)
{
}

/* The probe moves nothing, tells nothing of the arguments beside the flag. */
TEST_F(flip, probe)
{
	EXPECT_EQ(0, give(self->fds[1], NULL, 0, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, give_iov(self->fds[1], NULL, 0, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, take_iov(self->fds[0], NULL, 0, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before);
}

/* A gift that is not to move is what it was: both see the memory. */
TEST_F(flip, gift_alone_shares)
{
	struct iovec iov = { self->src, LEN };

	EXPECT_EQ(LEN, vmsplice(self->fds[1], &iov, 1, SPLICE_F_GIFT));
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	expect_stream(_metadata, self->src, LEN, 0);
	pattern_fill(self->src, LEN, 0, OTHER_SEED);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, OTHER_SEED));
	EXPECT_EVENTS(&self->before);
}

/* What is to move but no gift is shared too. */
TEST_F(flip, move_alone_shares)
{
	struct iovec iov = { self->src, LEN };

	EXPECT_EQ(LEN, vmsplice(self->fds[1], &iov, 1, SPLICE_F_MOVE));
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	pattern_fill(self->src, LEN, 0, OTHER_SEED);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN, 0, OTHER_SEED));
	EXPECT_EVENTS(&self->before);
}

/* Without a flag given memory is copied out, and the counters stay. */
TEST_F(flip, plain_vmsplice_copies_out)
{
	struct iovec iov = { self->dst, LEN };

	EXPECT_EQ(LEN, share(self->fds[1], self->src, LEN));
	EXPECT_EQ(LEN, vmsplice(self->fds[0], &iov, 1, 0));
	EXPECT_EQ(0, same_frames(self->dst, SLOTS, self->frames));
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	memset(self->dst, POISON, LEN);
	EXPECT_EQ(LEN, vmsplice(self->fds[0], &iov, 1, 0));
	EXPECT_EQ(0, same_frames(self->dst, SLOTS, self->frames));
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EVENTS(&self->before, GIVEN, SLOTS);
}

/* The read side ignores a gift. */
TEST_F(flip, take_with_gift)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_GIFT));
	expect_frames(_metadata, self->dst, self->frames, SLOTS);
	expect_stream(_metadata, self->dst, LEN, 0);
}

/* A descriptor for both directions writes: no take there, and no give. */
TEST_F(flip, both_directions)
{
	struct iovec iov = { self->src, PAGE };
	int fd = reopen(self->fds[0], O_RDWR);

	ASSERT_LE(0, fd);
	EXPECT_EQ(PAGE, vmsplice(fd, &iov, 1, SPLICE_F_MOVE));
	expect_frames(_metadata, self->src, self->frames, 1);
	pattern_fill(self->src, PAGE, 0, OTHER_SEED);
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 0, OTHER_SEED));
	EXPECT_EQ(-1, vmsplice(fd, &iov, 1, SPLICE_F_MOVE | SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EVENTS(&self->before);
	/* A give it can be. */
	EXPECT_EQ(PAGE, give(fd, self->src + PAGE, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames + 1, 1);
}

/* More than fits: what did not go is as it was. */
TEST_F(flip, short_count)
{
	char *src = map_filled(2 * LEN, MEM_4K, SEED);

	EXPECT_EQ(LEN, give(self->fds[1], src, 2 * LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, present_pages(src, LEN));
	EXPECT_EQ(SLOTS, present_pages(src + LEN, LEN));
	expect_stream(_metadata, src + LEN, LEN, LEN);
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, 2 * LEN, 0));
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EQ(0, present_pages(self->dst + LEN, LEN));
}

/* A small destination: the rest of the pipe stays, and can be moved later. */
TEST_F(flip, short_take)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(3 * PAGE, take(self->fds[0], self->dst, 3 * PAGE, 0));
	EXPECT_EQ(LEN - 3 * PAGE, bytes_queued(self->fds[0]));
	EXPECT_EQ(LEN - 3 * PAGE,
		  take(self->fds[0], self->dst + 3 * PAGE, LEN, 0));
	expect_frames(_metadata, self->dst, self->frames, SLOTS);
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EVENTS(&self->before, GIVEN, SLOTS, TAKEN, SLOTS);
}

/* Nothing given, nothing taken. */
TEST_F(flip, length_zero)
{
	struct iovec iov[3] = { { self->src, 0 },
				{ NULL, 0 },
				{ self->src, 0 } };

	EXPECT_EQ(0, give(self->fds[1], self->src, 0, 0));
	EXPECT_EQ(0, give_iov(self->fds[1], iov, 3, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, give_iov(self->fds[1], iov, 0, 0));
	EXPECT_EQ(0, take(self->fds[0], self->dst, 0, 0));
	EXPECT_EQ(0, take_iov(self->fds[0], iov, 3, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	EXPECT_EVENTS(&self->before);
}

/* A page that is named twice moves once; then there is a hole. */
TEST_F(flip, same_page_twice)
{
	struct iovec iov[2] = { { self->src, PAGE }, { self->src, PAGE } };

	EXPECT_EQ(2 * PAGE, give_iov(self->fds[1], iov, 2, SPLICE_F_NOCOPY));
	EXPECT_EQ(2 * PAGE,
		  take(self->fds[0], self->dst, 2 * PAGE, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, 1);
	expect_stream(_metadata, self->dst, PAGE, 0);
	EXPECT_EQ(-1, zero_check(self->dst + PAGE, PAGE));
	EXPECT_EVENTS(&self->before, GIVEN, 1, GIVEN_HOLE, 1, TAKEN, 1,
		      TAKEN_HOLE, 1);
}

/* A destination that is named twice ends with the last page. */
TEST_F(flip, same_destination_twice)
{
	struct iovec iov[2] = { { self->dst, PAGE }, { self->dst, PAGE } };
	const long rss = rss_pages();

	EXPECT_EQ(2 * PAGE, give(self->fds[1], self->src, 2 * PAGE, 0));
	EXPECT_EQ(2 * PAGE, take_iov(self->fds[0], iov, 2, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames + 1, 1);
	expect_stream(_metadata, self->dst, PAGE, PAGE);
	EXPECT_EQ(rss - 1, rss_pages());
}

/* Segments in any order, of any length, empty ones between them. */
TEST_F(flip, iov_gathers_and_scatters)
{
	struct iovec from[] = {
		{ self->src + 9 * PAGE, 7 * PAGE },
		{ NULL, 0 },
		{ self->src + 2 * PAGE, PAGE },
		{ self->src + 3 * PAGE, 6 * PAGE },
		{ self->src, 2 * PAGE },
	};
	struct iovec to[] = {
		{ self->dst + 10 * PAGE, 6 * PAGE },
		{ self->dst, 0 },
		{ self->dst, 10 * PAGE },
	};

	EXPECT_EQ(LEN, give_iov(self->fds[1], from, ARRAY_SIZE(from),
				SPLICE_F_NOCOPY));
	EXPECT_EQ(0, present_pages(self->src, LEN));
	EXPECT_EQ(LEN,
		  take_iov(self->fds[0], to, ARRAY_SIZE(to), SPLICE_F_NOCOPY));
	/* In the pipe: 9..15, 2, 3..8, 0..1; the first six to 10..15. */
	expect_frames(_metadata, self->dst + 10 * PAGE, self->frames + 9, 6);
	expect_frames(_metadata, self->dst, self->frames + 15, 1);
	expect_frames(_metadata, self->dst + PAGE, self->frames + 2, 7);
	expect_frames(_metadata, self->dst + 8 * PAGE, self->frames, 2);
	expect_stream(_metadata, self->dst + 10 * PAGE, 6 * PAGE, 9 * PAGE);
	expect_stream(_metadata, self->dst, PAGE, 15 * PAGE);
	expect_stream(_metadata, self->dst + PAGE, 7 * PAGE, 2 * PAGE);
	expect_stream(_metadata, self->dst + 8 * PAGE, 2 * PAGE, 0);
	EXPECT_EVENTS(&self->before, GIVEN, SLOTS, TAKEN, SLOTS);
}

/* As many segments as there may be, of pages and holes, back to front. */
TEST_F(flip, iov_max)
{
	static struct iovec from[IOV_MAX], to[IOV_MAX];
	char *src = map_mem(IOV_MAX * PAGE), *dst = map_mem(IOV_MAX * PAGE);
	ssize_t i;
	int fds[2];

	if (pipe_of(fds, IOV_MAX))
		SKIP(return, "no pipe of that size: %s", strerror(errno));
	ASSERT_EQ(0, madvise(src, IOV_MAX * PAGE, MADV_NOHUGEPAGE));
	for (i = 0; i < IOV_MAX; i++) {
		from[i] =
			(struct iovec){ src + (IOV_MAX - 1 - i) * PAGE, PAGE };
		to[i] = (struct iovec){ dst + (i ^ 1) * PAGE, PAGE };
		if (i % 3)
			pattern_fill(from[i].iov_base, PAGE, i * PAGE, SEED);
	}
	EXPECT_EQ(IOV_MAX * PAGE,
		  give_iov(fds[1], from, IOV_MAX, SPLICE_F_NOCOPY));
	EXPECT_EQ(IOV_MAX * PAGE,
		  take_iov(fds[0], to, IOV_MAX, SPLICE_F_NOCOPY));
	for (i = 0; i < IOV_MAX; i++)
		if (i % 3)
			expect_stream(_metadata, to[i].iov_base, PAGE,
				      i * PAGE);
		else
			EXPECT_EQ(-1, zero_check(to[i].iov_base, PAGE));
	EXPECT_EVENTS(&self->before, GIVEN, 682, GIVEN_HOLE, 342, TAKEN, 682,
		      TAKEN_HOLE, 342);
}

/* What a give of @len bytes at offset @off of a page counts. */
static struct flip_counts counts_of(size_t off, size_t len)
{
	const size_t first = (off + PAGE - 1) / PAGE, end = (off + len) / PAGE;
	struct flip_counts c = { .nr = { 0 } };
	const size_t all = (off + len + PAGE - 1) / PAGE - off / PAGE;

	c.nr[GIVEN] = end > first ? end - first : 0;
	c.nr[COPIED_UNALIGNED] = all - c.nr[GIVEN];
	return c;
}

/*
 * Every combination of offsets on both sides: heads and tails are copied and
 * stay, whole pages go, and beside the destination nothing changes.
 */
TEST_F(flip, unaligned)
{
	static const size_t offs[] = { 0, 1, 8, 2048, 4095 };
	static const size_t lens[] = { 1, 100, 4095, 4096, 4097, 8192, 12345 };
	struct flip_counts want;
	size_t i, j, k;

	for (i = 0; i < ARRAY_SIZE(offs) * ARRAY_SIZE(lens); i++) {
		const size_t off = offs[i % ARRAY_SIZE(offs)];
		const size_t len = lens[i / ARRAY_SIZE(offs)];

		for (j = 0; j < ARRAY_SIZE(offs); j++) {
			char *to = self->dst + PAGE + offs[j];

			pattern_fill(self->src, LEN, 0, SEED);
			memset(self->dst, POISON, LEN);
			ASSERT_EQ(0, flip_counts(&self->before));
			want = counts_of(off, len);
			ASSERT_EQ((ssize_t)len,
				  give(self->fds[1], self->src + off, len, 0));
			EXPECT_STREQ("", flip_difference(&self->before, &want));
			ASSERT_EQ((ssize_t)len, take(self->fds[0], to, len, 0));
			expect_stream(_metadata, to, len, off);
			for (k = 0; k < 4 * PAGE + PAGE; k++)
				if (self->dst + k < to ||
				    self->dst + k >= to + len)
					ASSERT_EQ(POISON,
						  (unsigned char)self->dst[k]);
			/* What did not go is what it was. */
			expect_stream(_metadata, self->src, off, 0);
			expect_stream(_metadata, self->src + off + len,
				      LEN - off - len, off + len);
		}
	}
}

/* Heads and tails beside folios of 2 MiB, which then cannot go whole. */
TEST_F(flip, unaligned_huge)
{
	char *src = map_filled(2 * PMD, MEM_2M, SEED);
	const ssize_t len = 2 * PMD - 1000;
	int fds[2];

	if (!src || pipe_of(fds, 1024))
		SKIP(return, "no huge pages or pipes: %s", strerror(errno));
	EXPECT_EQ(len, give(fds[1], src + 500, len, 0));
	EXPECT_EQ(len, take(fds[0], self->dst + 500, len, 0));
	expect_stream(_metadata, self->dst + 500, len, 500);
	EXPECT_EQ(-1, zero_check(self->dst, 500));
	EXPECT_EQ(-1, zero_check(self->dst + 2 * PMD - 500, 500));
	/* Copied: it stays. */
	expect_stream(_metadata, src, 500, 0);
	expect_stream(_metadata, src + 2 * PMD - 500, 500, 2 * PMD - 500);
}

/* Areas of different kinds follow each other, on both sides. */
TEST_F(flip, several_areas)
{
	ASSERT_EQ(0, madvise(self->src + PAGE, 3 * PAGE, MADV_DONTFORK));
	ASSERT_EQ(0, madvise(self->src + 9 * PAGE, PAGE, MADV_DONTDUMP));
	ASSERT_EQ(0, madvise(self->dst + 5 * PAGE, PAGE, MADV_DONTFORK));
	ASSERT_EQ(0, madvise(self->dst + 6 * PAGE, PAGE, MADV_NOHUGEPAGE));
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, SLOTS);
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EVENTS(&self->before, GIVEN, SLOTS, TAKEN, SLOTS);
}

/* The heap and the stack are memory as any other. */
TEST_F(flip, heap_and_stack)
{
	char *heap = sbrk(3 * PAGE), stack[2 * PAGE];

	ASSERT_NE((char *)-1, heap);
	pattern_fill(heap, 3 * PAGE, 0, SEED);
	pattern_fill(stack, sizeof(stack), 3 * PAGE, SEED);
	EXPECT_EQ(3 * PAGE, give(self->fds[1], heap, 3 * PAGE, 0));
	EXPECT_EQ(PAGE, give(self->fds[1], stack, PAGE, 0));
	EXPECT_EQ(4 * PAGE, take(self->fds[0], self->dst, LEN, 0));
	expect_stream(_metadata, self->dst, 4 * PAGE, 0);
	/* The part of the stack that was not given. */
	expect_stream(_metadata, stack + PAGE, PAGE, 4 * PAGE);
}

/* Swapped out it comes back and goes; no trace stays in swap. */
TEST_F(flip, swapped_out)
{
	char *src;

	if (!swap_available(BACKING_EXT4))
		SKIP(return, "no swap here");
	ASSERT_EQ(0, swap_space(BACKING_EXT4, MIB));
	/* Filled now: the process that will undo has a part in the rest. */
	src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_EQ(0, swap_out(src, LEN));
	EXPECT_EQ(LEN, give(self->fds[1], src, LEN, SPLICE_F_NOCOPY));
	expect_gone(_metadata, src, LEN);
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_stream(_metadata, self->dst, LEN, 0);
	EXPECT_EVENTS(&self->before, GIVEN, SLOTS, TAKEN, SLOTS);
	/* Taken memory can be swapped, and a destination can be in swap. */
	ASSERT_EQ(0, swap_out(self->dst, LEN));
	pattern_fill(src, LEN, 0, OTHER_SEED);
	EXPECT_EQ(LEN, give(self->fds[1], src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(LEN, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, LEN, 0, OTHER_SEED));
	EXPECT_EQ(0, undo_now());
}

/* Moved, written and spliced pages in one pipe: each as it can be. */
TEST_F(flip, among_others)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE, 0, SEED));
	EXPECT_EQ(2 * PAGE, give(self->fds[1], self->src + PAGE, 2 * PAGE, 0));
	ASSERT_EQ(0, write_pattern(self->fds[1], 100, 3 * PAGE, SEED));
	EXPECT_EQ(3 * PAGE + 100, take(self->fds[0], self->dst, LEN, 0));
	expect_stream(_metadata, self->dst, 3 * PAGE + 100, 0);
	expect_frames(_metadata, self->dst + PAGE, self->frames + 1, 2);
	EXPECT_EVENTS(&self->before, GIVEN, 2, TAKEN, 2, COPIED_FOREIGN, 2);
}

/* A write appends nothing to a page that was given. */
TEST_F(flip, write_does_not_append)
{
	EXPECT_EQ(100, give(self->fds[1], self->src, 100, 0));
	ASSERT_EQ(0, write_pattern(self->fds[1], 100, 100, SEED));
	EXPECT_EQ(200, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, read_pattern(self->fds[0], 200, 0, SEED));
	expect_stream(_metadata, self->src, LEN, 0);
}

/* What is left of a hole is no whole pages; the page behind it stays there. */
TEST_F(flip, part_of_hole_then_page)
{
	char *hole = map_mem(PMD);
	struct iovec iov[2] = { { hole, PMD }, { self->src, 2 * PAGE } };
	ssize_t n;

	ASSERT_EQ(PMD + 2 * PAGE, give_iov(self->fds[1], iov, 2, 0));
	ASSERT_EQ(0, read_zeroes(self->fds[0], 100));
	n = take(self->fds[0], self->dst, 2 * PMD, SPLICE_F_NOCOPY);
	EXPECT_EQ(PMD - PAGE, n);
	EXPECT_EQ(PAGE - 100 + 2 * PAGE, bytes_queued(self->fds[0]));
	EXPECT_EQ(PAGE - 100, take(self->fds[0], self->dst + n, PAGE - 100, 0));
	EXPECT_EQ(2 * PAGE,
		  take(self->fds[0], self->dst + PMD, PMD, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst + PMD, self->frames, 2);
	expect_stream(_metadata, self->dst + PMD, 2 * PAGE, 0);
	EXPECT_EQ(-1, zero_check(self->dst, PMD));
}

/* A page of which some was read is still right to its end. */
TEST_F(flip, read_then_taken)
{
	EXPECT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	ASSERT_EQ(0, read_pattern(self->fds[0], 100, 0, SEED));
	EXPECT_EQ(PAGE - 100,
		  take(self->fds[0], self->dst + 100, PAGE - 100, 0));
	expect_stream(_metadata, self->dst + 100, PAGE - 100, 100);
	EXPECT_EQ(LEN - PAGE, take(self->fds[0], self->dst + PAGE, LEN, 0));
	expect_frames(_metadata, self->dst + PAGE, self->frames + 1, SLOTS - 1);
	expect_stream(_metadata, self->dst + PAGE, LEN - PAGE, PAGE);
}

/* A resized pipe has all that it had. */
TEST_F(flip, survives_resize)
{
	EXPECT_EQ(3 * PAGE, give(self->fds[1], self->src, 3 * PAGE, 0));
	EXPECT_EQ(64 * PAGE, fcntl(self->fds[1], F_SETPIPE_SZ, 64 * PAGE));
	EXPECT_EQ(3 * PAGE,
		  take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, 3);
	expect_stream(_metadata, self->dst, 3 * PAGE, 0);
}

/* In a pipe for packets a buffer is not one. */
TEST_F(flip, packet_mode)
{
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_DIRECT));
	EXPECT_EQ(2 * PAGE, give(fds[1], self->src, 2 * PAGE, 0));
	EXPECT_EQ(2 * PAGE, take(fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_stream(_metadata, self->dst, 2 * PAGE, 0);
}

struct giver {
	pthread_t thread;
	int fd;
	char *mem;
	ssize_t given;
};

#define NR_GIVERS 4

static void *give_share(void *arg)
{
	struct giver *g = arg;

	g->given = give_all(g->fd, g->mem, 4 * LEN, 0);
	return NULL;
}

/* Threads give at once: each page arrives once, in the order of its thread. */
TEST_F(flip, several_givers)
{
	char *src = map_filled(NR_GIVERS * 4 * LEN, MEM_4K, SEED);
	struct giver givers[NR_GIVERS];
	long at[NR_GIVERS] = { 0 };
	char page[PAGE], want[PAGE];
	int i, t;

	for (i = 0; i < NR_GIVERS; i++) {
		givers[i].fd = self->fds[1];
		givers[i].mem = src + i * 4 * LEN;
		ASSERT_EQ(0, pthread_create(&givers[i].thread, NULL, give_share,
					    &givers[i]));
	}
	for (i = 0; i < NR_GIVERS * 4 * SLOTS; i++) {
		ASSERT_EQ(PAGE, take(self->fds[0], self->dst, PAGE, 0));
		memcpy(page, self->dst, PAGE);
		for (t = 0; t < NR_GIVERS; t++) {
			/* What follows his share is the next one's. */
			if (at[t] == 4 * SLOTS)
				continue;
			pattern_fill(want, PAGE, t * 4 * LEN + at[t] * PAGE,
				     SEED);
			if (!memcmp(page, want, PAGE))
				break;
		}
		ASSERT_GT(NR_GIVERS, t);
		at[t]++;
	}
	for (i = 0; i < NR_GIVERS; i++) {
		pthread_join(givers[i].thread, NULL);
		EXPECT_EQ(4 * LEN, givers[i].given);
		EXPECT_EQ(4 * SLOTS, at[i]);
	}
	EXPECT_EQ(0, present_pages(src, NR_GIVERS * 4 * LEN));
}

/* ------------------------------------------------------------- pipe sizes */

FIXTURE(pipe_size)
{
	int fds[2];
	char *src;
	char *dst;
};

FIXTURE_VARIANT(pipe_size)
{
	ssize_t slots;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(pipe_size, 1) { .slots = 1 };
FIXTURE_VARIANT_ADD(pipe_size, 2) { .slots = 2 };
FIXTURE_VARIANT_ADD(pipe_size, 16) { .slots = 16 };
FIXTURE_VARIANT_ADD(pipe_size, 64) { .slots = 64 };
FIXTURE_VARIANT_ADD(pipe_size, 256) { .slots = 256 };
FIXTURE_VARIANT_ADD(pipe_size, 4096) { .slots = 4096 };
/* clang-format on */

FIXTURE_SETUP(pipe_size)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (pipe_of(self->fds, variant->slots))
		SKIP(return, "no such pipe: %s", strerror(errno));
	self->src = map_filled((variant->slots + 5) * PAGE, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem((variant->slots + 5) * PAGE);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(pipe_size)
{
}

/* A give fills the pipe and no more, a take empties it. */
TEST_F(pipe_size, is_filled)
{
	const ssize_t room = variant->slots * PAGE, all = room + 5 * PAGE;

	EXPECT_EQ(room, give(self->fds[1], self->src, all, SPLICE_F_NOCOPY));
	EXPECT_EQ(room, bytes_queued(self->fds[0]));
	EXPECT_EQ(-1, give(self->fds[1], self->src + room, PAGE,
			   SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(room, take(self->fds[0], self->dst, all, SPLICE_F_NOCOPY));
	expect_stream(_metadata, self->dst, room, 0);
	EXPECT_EQ(0, present_pages(self->src, room));
	EXPECT_EQ(5, present_pages(self->src + room, 5 * PAGE));
}

/* The ring goes round: given and taken in turns, out of step with its size. */
TEST_F(pipe_size, goes_round)
{
	const ssize_t all = (variant->slots + 5) * PAGE;
	ssize_t given = 0, taken = 0, n;

	while (taken < all) {
		if (given < all) {
			n = give(self->fds[1], self->src + given, all - given,
				 SPLICE_F_NOCOPY);
			ASSERT_LT(0, n);
			given += n;
		}
		n = given - taken < 3 * PAGE ? given - taken : 3 * PAGE;
		n = take(self->fds[0], self->dst + taken, n, SPLICE_F_NOCOPY);
		ASSERT_LT(0, n);
		taken += n;
	}
	expect_stream(_metadata, self->dst, all, 0);
}

/* More slots than 16 bits can number, each of them a page or a single hole. */
TEST(ring_of_many_slots)
{
	const ssize_t slots = 131072, len = slots * PAGE;
	char *src = map_mem(len), *dst = map_mem(len);
	ssize_t off;
	int fds[2];

	if (pipe_of(fds, slots))
		SKIP(return, "no such pipe: %s", strerror(errno));
	ASSERT_NE(NULL, src);
	ASSERT_NE(NULL, dst);
	ASSERT_EQ(0, madvise(src, len, MADV_NOHUGEPAGE));
	for (off = 0; off < len; off += PMD)
		*(ssize_t *)(src + off) = off + 1;
	ASSERT_EQ(len, give_all(fds[1], src, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, present_pages(src, len));
	EXPECT_EQ(-1, give(fds[1], src, PAGE, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(len, take_all(fds[0], dst, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(len / PMD, present_pages(dst, len));
	for (off = 0; off < len; off += PMD)
		ASSERT_EQ(off + 1, *(ssize_t *)(dst + off));
}

/* ------------------------------------------------- full and empty pipes */

FIXTURE(full)
{
	int fds[2];
	char *src;
	char *dst;
	uint64_t frames[SLOTS];
};

FIXTURE_SETUP(full)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(LEN);
	ASSERT_EQ(0, read_frames(self->src, SLOTS, self->frames));
	ASSERT_EQ(LEN, pipe_fill_up(self->fds[1]));
}

FIXTURE_TEARDOWN(full)
{
	alarm_stop();
}

/* Who must not wait for room gets EAGAIN, and has all that it had. */
TEST_F(full, eagain)
{
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, set_nonblock(self->fds[1]));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	EXPECT_EQ(0, read_zeroes(self->fds[0], PAGE));
	EXPECT_EQ(PAGE, give(self->fds[1], self->src, LEN, 0));
}

/* Room for one is enough to go on, with that much. */
TEST_F(full, waits)
{
	pid_t child = fork_child();

	if (!child) {
		char *mem = map_filled(LEN, MEM_4K, SEED);

		_exit(give(self->fds[1], mem, LEN, 0) == PAGE ? 0 : 1);
	}
	ASSERT_TRUE(await_asleep(child, SYS_vmsplice));
	ASSERT_EQ(LEN, bytes_queued(self->fds[0]));
	ASSERT_EQ(0, read_zeroes(self->fds[0], PAGE));
	EXPECT_EQ(0, reap(child));
	ASSERT_EQ(0, read_zeroes(self->fds[0], LEN - PAGE));
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, LEN, 0));
	expect_stream(_metadata, self->dst, PAGE, 0);
}

TEST_F(full, eintr)
{
	ASSERT_EQ(0, alarm_start(20, 0));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(EINTR, errno);
	alarm_stop();
	expect_frames(_metadata, self->src, self->frames, SLOTS);
}

/* With SA_RESTART the call goes on waiting. */
TEST_F(full, restarts)
{
	const pid_t self_pid = getpid();
	pid_t child = fork_child();

	if (!child) {
		/* Several signals later. */
		usleep(200000);
		if (!await_asleep(self_pid, SYS_vmsplice))
			_exit(2);
		_exit(read_zeroes(self->fds[0], PAGE) ? 1 : 0);
	}
	ASSERT_EQ(0, alarm_start(20, SA_RESTART));
	EXPECT_EQ(PAGE, give(self->fds[1], self->src, LEN, 0));
	alarm_stop();
	EXPECT_LT(0, signal_count(SIGALRM));
	EXPECT_EQ(0, reap(child));
}

/* The last reader leaves while a giver waits. */
TEST_F(full, epipe_when_last_reader_leaves)
{
	pid_t child = fork_child();

	if (!child) {
		close(self->fds[0]);
		signal_count_start(SIGPIPE);
		if (give(self->fds[1], self->src, LEN, 0) != -1 ||
		    errno != EPIPE)
			_exit(1);
		_exit(signal_count(SIGPIPE) == 1 ? 0 : 2);
	}
	ASSERT_TRUE(await_asleep(child, SYS_vmsplice));
	close(self->fds[0]);
	EXPECT_EQ(0, reap(child));
}

FIXTURE(empty)
{
	int fds[2];
	char *src;
	char *dst;
};

FIXTURE_SETUP(empty)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(LEN);
	memset(self->dst, POISON, LEN);
}

FIXTURE_TEARDOWN(empty)
{
	alarm_stop();
}

/* Nothing there: the destination is not touched. */
TEST_F(empty, eagain)
{
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, set_nonblock(self->fds[0]));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(SLOTS, present_pages(self->dst, LEN));
	EXPECT_EQ(POISON, (unsigned char)self->dst[0]);
}

/* The first buffer ends the wait; a second one is not waited for. */
TEST_F(empty, waits)
{
	pid_t child = fork_child();

	if (!child) {
		if (take(self->fds[0], self->dst, LEN, 0) != 2 * PAGE)
			_exit(1);
		_exit(pattern_check(self->dst, 2 * PAGE, 0, SEED) < 0 ? 0 : 2);
	}
	ASSERT_TRUE(await_asleep(child, SYS_vmsplice));
	EXPECT_EQ(2 * PAGE, give(self->fds[1], self->src, 2 * PAGE, 0));
	EXPECT_EQ(0, reap(child));
}

TEST_F(empty, eintr)
{
	ASSERT_EQ(0, alarm_start(20, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EQ(EINTR, errno);
	alarm_stop();
	EXPECT_EQ(POISON, (unsigned char)self->dst[0]);
}

TEST_F(empty, restarts)
{
	const pid_t self_pid = getpid();
	pid_t child = fork_child();

	if (!child) {
		usleep(200000);
		if (!await_asleep(self_pid, SYS_vmsplice))
			_exit(2);
		_exit(write_pattern(self->fds[1], PAGE, 0, SEED) ? 1 : 0);
	}
	ASSERT_EQ(0, alarm_start(20, SA_RESTART));
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, LEN, 0));
	alarm_stop();
	EXPECT_LT(0, signal_count(SIGALRM));
	expect_stream(_metadata, self->dst, PAGE, 0);
	EXPECT_EQ(0, reap(child));
}

/* No writer: the end, after what is left. */
TEST_F(empty, eof)
{
	EXPECT_EQ(PAGE, give(self->fds[1], self->src, PAGE, 0));
	close(self->fds[1]);
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EQ(0, take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_stream(_metadata, self->dst, PAGE, 0);
	EXPECT_EQ(POISON, (unsigned char)self->dst[PAGE]);
}

TEST_F(empty, eof_when_last_writer_leaves)
{
	pid_t child = fork_child();

	if (!child) {
		close(self->fds[1]);
		_exit(take(self->fds[0], self->dst, LEN, 0) ? 1 : 0);
	}
	ASSERT_TRUE(await_asleep(child, SYS_vmsplice));
	close(self->fds[1]);
	EXPECT_EQ(0, reap(child));
}

/* ----------------------------------------------------------------- errors */

/* Nothing of what a call that failed was to give has gone. */
static void expect_untouched(struct __test_metadata *_metadata,
			     FIXTURE_DATA(flip) * self)
{
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	expect_stream(_metadata, self->src, LEN, 0);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before);
}

/* No pipe, or only a name for one. */
TEST_F(flip, ebadf)
{
	int fds[] = { memfd_filled(PAGE, SEED), open("/dev/null", O_RDWR),
		      reopen(self->fds[0], O_PATH), -1 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		EXPECT_EQ(-1, give(fds[i], self->src, LEN, 0));
		EXPECT_EQ(EBADF, errno);
		EXPECT_EQ(-1, take(fds[i], self->src, LEN, 0));
		EXPECT_EQ(EBADF, errno);
	}
	expect_untouched(_metadata, self);
}

/*
 * The end decides what the flags mean: a gift at the read end is a take, which
 * finds nothing there.
 */
TEST_F(flip, wrong_end)
{
	EXPECT_EQ(-1, give(self->fds[0], self->src, LEN, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	expect_untouched(_metadata, self);
}

TEST_F(flip, einval_flags)
{
	unsigned int bit;

	for (bit = 5; bit < 32; bit++) {
		EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, take(self->fds[0], self->src, LEN, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
	}
	expect_untouched(_metadata, self);
}

/* Not to copy is said of a give or a take only. */
TEST_F(flip, einval_nocopy_alone)
{
	static const unsigned int others[] = { 0, SPLICE_F_GIFT,
					       SPLICE_F_NONBLOCK,
					       SPLICE_F_MORE };
	struct iovec iov = { self->src, LEN };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(others); i++) {
		const unsigned int flags = others[i] | SPLICE_F_NOCOPY;

		EXPECT_EQ(-1, vmsplice(self->fds[1], &iov, 1, flags));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, vmsplice(self->fds[0], &iov, 1, flags));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(-1, take(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	expect_untouched(_metadata, self);
}

/* One odd segment, and none of them goes. */
TEST_F(flip, einval_nocopy_unaligned)
{
	struct iovec odd[] = {
		{ self->src + 4 * PAGE + 1, PAGE },
		{ self->src + 4 * PAGE, PAGE - 1 },
		{ self->src + 4 * PAGE + 512, PAGE - 512 },
		{ self->src + 4 * PAGE, PAGE + 8 },
	};
	struct iovec iov[2] = { { self->src, PAGE } };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(odd); i++) {
		iov[1] = odd[i];
		EXPECT_EQ(-1, give_iov(self->fds[1], iov, 2, SPLICE_F_NOCOPY));
		EXPECT_EQ(EINVAL, errno);
	}
	expect_untouched(_metadata, self);
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, 0));
	for (i = 0; i < ARRAY_SIZE(odd); i++) {
		iov[1] = odd[i];
		EXPECT_EQ(-1, take_iov(self->fds[0], iov, 2, SPLICE_F_NOCOPY));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(LEN, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, present_pages(self->src, LEN));
}

/* Too many segments, and a length below 0. */
TEST_F(flip, einval_iov_max)
{
	static struct iovec iov[IOV_MAX + 1];
	size_t i;

	for (i = 0; i < IOV_MAX + 1; i++)
		iov[i] = (struct iovec){ self->src, i < SLOTS ? PAGE : 0 };
	EXPECT_EQ(-1, give_iov(self->fds[1], iov, IOV_MAX + 1, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, take_iov(self->fds[0], iov, IOV_MAX + 1, 0));
	EXPECT_EQ(EINVAL, errno);
	iov[1].iov_len = -PAGE;
	EXPECT_EQ(-1, give_iov(self->fds[1], iov, 2, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, take_iov(self->fds[0], iov, 2, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_untouched(_metadata, self);
}

/* The other calls of the family go on refusing the bit. */
TEST_F(flip, einval_other_calls)
{
	int other[2], file = memfd_filled(PAGE, SEED);

	ASSERT_EQ(0, pipe(other));
	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE, 0, SEED));
	EXPECT_EQ(-1, splice(self->fds[0], NULL, other[1], NULL, PAGE,
			     SPLICE_F_MOVE | SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1,
		  splice(file, NULL, other[1], NULL, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(self->fds[0], other[1], PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, bytes_queued(other[0]));
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 0, SEED));
}

/* One splice between two pipes by an io_uring: its result, or -1 for no ring. */
static int uring_splice(int from, int to, unsigned int flags)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct io_uring_params p = { 0 };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int fd = syscall(SYS_io_uring_setup, 1, &p);
	char *ring;

	if (fd < 0)
		return -1;
	ring = mmap(NULL, 2 * PAGE, rw, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	sqe = mmap(NULL, PAGE, rw, MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqe == MAP_FAILED)
		return -1;
	*sqe = (struct io_uring_sqe){ .opcode = IORING_OP_SPLICE,
				      .fd = to,
				      .splice_fd_in = from,
				      .off = -1,
				      .splice_off_in = -1,
				      .len = PAGE,
				      .splice_flags = flags };
	/* The array of the submission ring is all zeroes: entry 0. */
	++*(unsigned int *)(ring + p.sq_off.tail);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL,
		    0) != 1)
		return -1;
	cqe = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
	close(fd);
	return cqe->res;
}

TEST_F(flip, einval_io_uring)
{
	int other[2], res;

	ASSERT_EQ(0, pipe(other));
	ASSERT_EQ(PAGE, give(self->fds[1], self->src, PAGE, 0));
	res = uring_splice(self->fds[0], other[1],
			   SPLICE_F_MOVE | SPLICE_F_NOCOPY);
	if (res == -1)
		SKIP(return, "no io_uring: %s", strerror(errno));
	EXPECT_EQ(-EINVAL, res);
	EXPECT_EQ(PAGE, bytes_queued(self->fds[0]));
	/* Without the flag the page goes on, and can still be taken. */
	EXPECT_EQ(PAGE, uring_splice(self->fds[0], other[1], SPLICE_F_MOVE));
	EXPECT_EQ(PAGE, take(other[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, 1);
	expect_stream(_metadata, self->dst, PAGE, 0);
}

TEST_F(flip, efault_iovec)
{
	EXPECT_EQ(-1, give_iov(self->fds[1], (void *)PAGE, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, take_iov(self->fds[0], (void *)PAGE, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(self->fds[1], (void *)-PAGE, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(self->fds[1], (void *)-PAGE, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EFAULT, errno);
	expect_untouched(_metadata, self);
}

/* Nobody to take: SIGPIPE, and the memory stays. */
TEST_F(flip, epipe)
{
	close(self->fds[0]);
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(2, signal_count(SIGPIPE));
	expect_frames(_metadata, self->src, self->frames, SLOTS);
	EXPECT_EVENTS(&self->before);
}

/* Memory that a page of the source, or of the destination, is not to be. */
enum bad { UNMAPPED, NO_ACCESS, GUARD, READ_ONLY };

static int make_bad(char *page, enum bad bad)
{
	switch (bad) {
	case UNMAPPED:
		return munmap(page, PAGE);
	case NO_ACCESS:
		return mprotect(page, PAGE, PROT_NONE);
	case GUARD:
		return madvise(page, PAGE, MADV_GUARD_INSTALL);
	case READ_ONLY:
		return mprotect(page, PAGE, PROT_READ);
	}
	return -1;
}

#define BAD_PAGE 3

FIXTURE(bad_source)
{
	int fds[2];
	char *src;
	char *bad;
	char *dst;
	uint64_t frames[SLOTS];
	struct flip_counts before;
};

FIXTURE_VARIANT(bad_source)
{
	enum bad bad;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(bad_source, unmapped) { .bad = UNMAPPED };
FIXTURE_VARIANT_ADD(bad_source, prot_none) { .bad = NO_ACCESS };
FIXTURE_VARIANT_ADD(bad_source, guard) { .bad = GUARD };
FIXTURE_VARIANT_ADD(bad_source, read_only) { .bad = READ_ONLY };
/* clang-format on */

FIXTURE_SETUP(bad_source)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(LEN);
	self->bad = self->src + BAD_PAGE * PAGE;
	if (make_bad(self->bad, variant->bad))
		SKIP(return, "no such memory: %s", strerror(errno));
	ASSERT_EQ(0, read_frames(self->src, SLOTS, self->frames));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(bad_source)
{
}

/* In front: nothing goes, whole page or part of it. */
TEST_F(bad_source, efault)
{
	const size_t len = 4 * PAGE;

	EXPECT_EQ(-1, give(self->fds[1], self->bad, len, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(self->fds[1], self->bad, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EQ(3, present_pages(self->bad + PAGE, 3 * PAGE));
	expect_stream(_metadata, self->bad + PAGE, 3 * PAGE,
		      (BAD_PAGE + 1) * PAGE);
	EXPECT_EVENTS(&self->before);
}

/* Giving takes the right to write, also where it would come to a copy. */
TEST_F(bad_source, efault_unaligned)
{
	EXPECT_EQ(-1, give(self->fds[1], self->bad + 8, 100, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EVENTS(&self->before);
}

/* Behind: what is before it goes. */
TEST_F(bad_source, short_count)
{
	EXPECT_EQ(BAD_PAGE * PAGE, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(0, present_pages(self->src, BAD_PAGE * PAGE));
	expect_stream(_metadata, self->bad + PAGE, LEN - (BAD_PAGE + 1) * PAGE,
		      (BAD_PAGE + 1) * PAGE);
	EXPECT_EQ(BAD_PAGE * PAGE,
		  take(self->fds[0], self->dst, LEN, SPLICE_F_NOCOPY));
	expect_frames(_metadata, self->dst, self->frames, BAD_PAGE);
	expect_stream(_metadata, self->dst, BAD_PAGE * PAGE, 0);
}

FIXTURE(bad_destination)
{
	int fds[2];
	char *src;
	char *dst;
	char *bad;
	uint64_t frames[SLOTS];
	struct flip_counts before;
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
/* clang-format on */

FIXTURE_SETUP(bad_destination)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(LEN, MEM_4K, SEED);
	ASSERT_NE(NULL, self->src);
	self->dst = map_mem(LEN);
	memset(self->dst, POISON, LEN);
	self->bad = self->dst + BAD_PAGE * PAGE;
	if (make_bad(self->bad, variant->bad))
		SKIP(return, "no such memory: %s", strerror(errno));
	ASSERT_EQ(0, read_frames(self->src, SLOTS, self->frames));
	ASSERT_EQ(LEN, give(self->fds[1], self->src, LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, flip_counts(&self->before));
}

FIXTURE_TEARDOWN(bad_destination)
{
}

/* In front: everything is still in the pipe, and can be taken elsewhere. */
TEST_F(bad_destination, efault)
{
	char *good = map_mem(LEN);

	EXPECT_EQ(-1, take(self->fds[0], self->bad, 4 * PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, take(self->fds[0], self->bad, 4 * PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(LEN, bytes_queued(self->fds[0]));
	EXPECT_EQ(POISON, (unsigned char)self->bad[PAGE]);
	EXPECT_EVENTS(&self->before);
	EXPECT_EQ(LEN, take(self->fds[0], good, LEN, SPLICE_F_NOCOPY));
	expect_frames(_metadata, good, self->frames, SLOTS);
	expect_stream(_metadata, good, LEN, 0);
}

/* Behind: what fits before it is taken, the rest is in the pipe. */
TEST_F(bad_destination, short_count)
{
	const ssize_t len = BAD_PAGE * PAGE;

	EXPECT_EQ(len, take(self->fds[0], self->dst, LEN, 0));
	expect_frames(_metadata, self->dst, self->frames, BAD_PAGE);
	expect_stream(_metadata, self->dst, len, 0);
	EXPECT_EQ(POISON, (unsigned char)self->bad[PAGE]);
	EXPECT_EQ(0, read_pattern(self->fds[0], LEN - len, len, SEED));
}

/* Protection keys count as the protection of the area does. */
TEST_F(flip, efault_pkey)
{
	int write_key = syscall(SYS_pkey_alloc, 0, PKEY_DISABLE_WRITE);
	int access_key = syscall(SYS_pkey_alloc, 0, PKEY_DISABLE_ACCESS);
	const int rw = PROT_READ | PROT_WRITE;

	if (write_key < 0 || access_key < 0)
		SKIP(return, "no protection keys: %s", strerror(errno));
	ASSERT_EQ(0, pkey_mprotect(self->src, PAGE, rw, write_key));
	ASSERT_EQ(0, pkey_mprotect(self->src + PAGE, PAGE, rw, access_key));
	EXPECT_EQ(-1, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(self->fds[1], self->src + PAGE, LEN - PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	ASSERT_EQ(PAGE, give(self->fds[1], self->src + 2 * PAGE, PAGE, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->src, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, take(self->fds[0], self->src + PAGE, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(PAGE, bytes_queued(self->fds[0]));
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	expect_stream(_metadata, self->dst, PAGE, 2 * PAGE);
}

#define HARD_OFFLINE "/sys/devices/system/memory/hard_offline_page"

/* A page that memory failed under is not given; those before it are. */
TEST_F(flip, ehwpoison_source)
{
	char *bad = self->src + 2 * PAGE;

	/* It is sent at once. */
	ASSERT_EQ(0, signal_count_start(SIGBUS));
	if (madvise(bad, PAGE, MADV_HWPOISON))
		SKIP(return, "cannot poison: %s", strerror(errno));
	EXPECT_EQ(-1, give(self->fds[1], bad, PAGE, 0));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1, give(self->fds[1], bad, LEN - 2 * PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EQ(2 * PAGE, give(self->fds[1], self->src, LEN, 0));
	EXPECT_EQ(2 * PAGE, take(self->fds[0], self->dst, LEN, 0));
	expect_stream(_metadata, self->dst, 2 * PAGE, 0);
	expect_stream(_metadata, bad + PAGE, LEN - 3 * PAGE, 3 * PAGE);
}

/* A page that memory fails under in the pipe is not taken, nor read. */
TEST_F(flip, ehwpoison_in_flight)
{
	char text[32], got[10];
	struct iovec iov = { got, sizeof(got) };

	if (!frames_visible() || access(HARD_OFFLINE, W_OK))
		SKIP(return, "cannot poison");
	ASSERT_EQ(3 * PAGE, give(self->fds[1], self->src, 3 * PAGE, 0));
	snprintf(text, sizeof(text), "%#llx",
		 (unsigned long long)self->frames[1] * PAGE);
	/* That it cannot be mended may be an error there; it is marked. */
	sysctl_write(HARD_OFFLINE, text);
	EXPECT_EQ(PAGE, take(self->fds[0], self->dst, LEN, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst + PAGE, PAGE, 0));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1,
		  take(self->fds[0], self->dst + PAGE, PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1, vmsplice(self->fds[0], &iov, 1, 0));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1, read(self->fds[0], got, sizeof(got)));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(2 * PAGE, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, present_pages(self->dst + PAGE, PAGE));
}

/* Bits of /proc/kpageflags. */
#define KPF_COMPOUND_HEAD 15
#define KPF_HWPOISON 19

static bool frame_is(uint64_t frame, unsigned int bit)
{
	int fd = open("/proc/kpageflags", O_RDONLY);
	uint64_t flags = 0;

	if (fd < 0 || pread(fd, &flags, 8, frame * 8) != 8)
		flags = 0;
	close(fd);
	return flags >> bit & 1;
}

/* Nor is it allocated again, as the part of a huge page that was in flight. */
TEST(ehwpoison_huge_in_flight)
{
	char *src = map_filled(PMD, MEM_2M, SEED), *dst = map_mem(PMD),
	     text[32];
	uint64_t frames[6];
	int fds[2];

	if (!frames_visible() || access(HARD_OFFLINE, W_OK))
		SKIP(return, "cannot poison");
	ASSERT_NE(NULL, src);
	ASSERT_NE(NULL, dst);
	ASSERT_EQ(0, read_frames(src, 6, frames));
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(PMD, give(fds[1], src, PMD, SPLICE_F_NOCOPY));
	snprintf(text, sizeof(text), "%#llx",
		 (unsigned long long)frames[5] * PAGE);
	sysctl_write(HARD_OFFLINE, text);
	ASSERT_TRUE(frame_is(frames[5], KPF_HWPOISON));
	EXPECT_EQ(-1, take(fds[0], dst, PMD, 0));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1, read(fds[0], dst, PAGE));
	EXPECT_EQ(EHWPOISON, errno);
	close(fds[0]);
	close(fds[1]);
	EXPECT_TRUE(frame_is(frames[0], KPF_COMPOUND_HEAD));
	EXPECT_EQ(0, flip_in_flight(0, 1000));
}

FLIP_HARNESS_MAIN
