// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an ordinary user could try with the page flip: to read or alter what has
 * another owner by now, to get at what was discarded, to escape a limit.  Each
 * test does it and checks every byte; a test that makes changes of the system
 * needs root for them and is an ordinary user from then on.
 *
 * attack				tests
 * a large folio mapped by page table
 *   entries, taken by a PMD, forked	cow
 * discarded parts of a large folio	discarded
 * references from before the give	foreign, direct_io
 * stores and loads while given, stale
 *   translations			hammered
 * tee() and take			teed
 * a socket holds part of a buffer	in_socket
 * mseal(), protection keys, guards	refused, guarded
 * MADV_FREE, droppable, merged pages	lazy, merged
 * a destination others refer to	held_destination
 * userfaultfd on either side		armed
 * crypto on the way			alg
 * a giver killed and reaped		killed
 * memory pressure while in flight	swap
 * buffers larger than a page, counts	sizes, queued_is_clamped,
 *   their slots			call_is_rounded, slots_are_reused
 * the new flag elsewhere		nocopy_is_refused
 *
 * Elsewhere: the limits of who gives, memory cgroups and all that is counted in
 * page_flip_account_test.c; whatever happens at the same time in
 * page_flip_race_test.c; virtual machines in page_flip_kvm_test.c.  Left out:
 * other users of mmu notifiers, memory tags, which take hardware; FUSE, which
 * steals no page that was given, so that nothing is to be seen from outside.
 * Nothing keeps a giver from choosing the page frames in which the taker's data
 * will be.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/if_alg.h>
#include <linux/io_uring.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "page_flip_util.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef PTRACE_SEIZE
#define PTRACE_SEIZE 0x4206
#define PTRACE_INTERRUPT 0x4207
#endif

/* The giver's data, what it writes later, and what the taker writes. */
#define SEED 0x5b11ce
#define LATER_SEED 0x0dd
#define TAKER_SEED 0x7a4e

/* The two users that take part, neither of them root. */
#define MALLORY 65534
#define VICTIM 65533

/* A pipe with a slot for each page of 2 MiB, where that is allowed. */
static int wide_pipe(int fds[2])
{
	return pipe_of(fds, 2 * PMD / PAGE) ? pipe_of(fds, 256) : 0;
}

/* Give and take in turns until @len bytes went over; a short count ends it. */
static ssize_t flip_over(int fds[2], void *from, void *to, size_t len,
			 unsigned int more)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = give(fds[1], (char *)from + done, len - done, more);

		if (n < 0 || take_all(fds[0], (char *)to + done, n, more) != n)
			return -1;
		done += n;
	}
	return done;
}

/*
 * Two processes map a taken folio after a fork.  Neither sees what the other
 * writes, however the folio was mapped when it was given, and whichever of them
 * splits its mapping before.  A page that is marked as exclusive, left over
 * from the page table entries of the giver, would be written in place.
 */
enum who { NOBODY, PARENT, CHILD };

FIXTURE(cow)
{
	int fds[2];
	int step[2];
	char *mem;
	ssize_t len;
};

FIXTURE_VARIANT(cow)
{
	enum mem_kind kind;
	enum who writes;
	enum who splits;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(cow, ptes_child) { MEM_2M_PTES, CHILD, NOBODY };
FIXTURE_VARIANT_ADD(cow, ptes_parent) { MEM_2M_PTES, PARENT, NOBODY };
FIXTURE_VARIANT_ADD(cow, ptes_child_splits) { MEM_2M_PTES, CHILD, CHILD };
FIXTURE_VARIANT_ADD(cow, ptes_parent_splits) { MEM_2M_PTES, PARENT, PARENT };
FIXTURE_VARIANT_ADD(cow, ptes_other_splits) { MEM_2M_PTES, CHILD, PARENT };
FIXTURE_VARIANT_ADD(cow, ptes_child_split) { MEM_2M_PTES, PARENT, CHILD };
FIXTURE_VARIANT_ADD(cow, pmd_child) { MEM_2M, CHILD, CHILD };
FIXTURE_VARIANT_ADD(cow, pmd_parent) { MEM_2M, PARENT, PARENT };
FIXTURE_VARIANT_ADD(cow, folio_64k_child) { MEM_64K, CHILD, NOBODY };
FIXTURE_VARIANT_ADD(cow, folio_64k_parent) { MEM_64K, PARENT, NOBODY };
FIXTURE_VARIANT_ADD(cow, small_child) { MEM_4K, CHILD, NOBODY };
FIXTURE_VARIANT_ADD(cow, small_parent) { MEM_4K, PARENT, NOBODY };
/* clang-format on */

FIXTURE_SETUP(cow)
{
	char *src;

	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = variant->kind == MEM_4K ? 16 * PAGE : PMD;
	src = map_filled(self->len, variant->kind, SEED);
	if (!src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, step_pair(self->step));
	ASSERT_EQ(0, become(MALLORY));
	self->mem = map_mem(self->len);
	ASSERT_NE(NULL, self->mem);
	madvise(self->mem, self->len, MADV_HUGEPAGE);
	ASSERT_EQ(self->len, flip_over(self->fds, src, self->mem, self->len,
				       SPLICE_F_NOCOPY));
	ASSERT_EQ(variant->kind >= MEM_2M ? self->len : 0,
		  huge_bytes(self->mem, self->len));
}

FIXTURE_TEARDOWN(cow)
{
	EXPECT_EQ(0, undo_now());
}

/* Both may write again afterwards, but the PMD is gone. */
static int split_mapping(char *mem, size_t len)
{
	return mprotect(mem + PAGE, PAGE, PROT_READ) ||
	       mprotect(mem + PAGE, PAGE, PROT_READ | PROT_WRITE) ||
	       huge_bytes(mem, len);
}

/* What one of the two does; not 0: the number of the step that went wrong. */
static int write_and_check(char *mem, size_t len, int step, bool first,
			   uint64_t own)
{
	if (step_tell(step) || step_await(step))
		return 2;
	if (!first &&
	    (step_await(step) || pattern_check(mem, len, 0, SEED) >= 0))
		return 3;
	pattern_fill(mem, len, 0, own);
	if (step_tell(step) || step_await(step))
		return 4;
	if (pattern_check(mem, len, 0, own) >= 0)
		return 5;
	return first ? step_tell(step) : 0;
}

TEST_F(cow, isolated)
{
	const bool parent_first = variant->writes == PARENT;
	pid_t pid = fork_child();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (variant->splits == CHILD &&
		    split_mapping(self->mem, self->len))
			_exit(1);
		_exit(write_and_check(self->mem, self->len, self->step[1],
				      !parent_first, LATER_SEED));
	}
	close(self->step[1]);
	if (variant->splits == PARENT)
		ASSERT_EQ(0, split_mapping(self->mem, self->len));
	EXPECT_EQ(0, write_and_check(self->mem, self->len, self->step[0],
				     parent_first, TAKER_SEED));
	EXPECT_EQ(0, reap(pid));
}

/*
 * A folio part of which was discarded still holds the old data.  Whoever takes
 * the range sees what the giver saw, nothing else.
 */
FIXTURE(discarded)
{
	int fds[2];
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(discarded)
{
	enum mem_kind kind;
	/* In pages; from the end if negative. */
	int from;
	ssize_t nr;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(discarded, first_of_64k) { MEM_64K, 0, 1 };
FIXTURE_VARIANT_ADD(discarded, middle_of_64k) { MEM_64K, 7, 3 };
FIXTURE_VARIANT_ADD(discarded, last_of_64k) { MEM_64K, -1, 1 };
FIXTURE_VARIANT_ADD(discarded, first_of_2m) { MEM_2M, 0, 1 };
FIXTURE_VARIANT_ADD(discarded, middle_of_2m) { MEM_2M, 100, 30 };
FIXTURE_VARIANT_ADD(discarded, last_of_2m) { MEM_2M, -1, 1 };
FIXTURE_VARIANT_ADD(discarded, half_of_2m) { MEM_2M, -256, 256 };
FIXTURE_VARIANT_ADD(discarded, first_of_2m_ptes) { MEM_2M_PTES, 0, 1 };
FIXTURE_VARIANT_ADD(discarded, all_but_one_2m_ptes) { MEM_2M_PTES, 1, 511 };
/* clang-format on */

FIXTURE_SETUP(discarded)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
	madvise(self->dst, self->len, MADV_HUGEPAGE);
}

FIXTURE_TEARDOWN(discarded)
{
	EXPECT_EQ(0, undo_now());
}

static ssize_t gap_offset(ssize_t len, int from)
{
	return from < 0 ? len + from * PAGE : from * PAGE;
}

/* The stream, but for a gap of zeroes: the first byte that differs, or -1. */
static ssize_t gap_check(const char *mem, size_t len, size_t off, size_t gap)
{
	ssize_t bad = pattern_check(mem, off, 0, SEED);

	if (bad >= 0)
		return bad;
	bad = zero_check(mem + off, gap);
	if (bad >= 0)
		return off + bad;
	off += gap;
	bad = pattern_check(mem + off, len - off, off, SEED);
	return bad < 0 ? -1 : (ssize_t)off + bad;
}

/* Zeroes where it was discarded, at the first taker and at the next. */
TEST_F(discarded, reads_zeroes)
{
	const ssize_t off = gap_offset(self->len, variant->from);
	const ssize_t gap = variant->nr * PAGE;
	char *again = map_mem(self->len);

	ASSERT_EQ(0, madvise(self->src + off, gap, MADV_DONTNEED));
	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->src, self->dst, self->len, 0));
	EXPECT_EQ(-1, gap_check(self->dst, self->len, off, gap));
	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->dst, again, self->len, 0));
	EXPECT_EQ(-1, gap_check(again, self->len, off, gap));
}

/* The same where the taker discards what it has taken, and gives the rest. */
TEST_F(discarded, after_a_take)
{
	const ssize_t off = gap_offset(self->len, variant->from);
	const ssize_t gap = variant->nr * PAGE;
	char *again = map_mem(self->len);

	ASSERT_EQ(self->len, flip_over(self->fds, self->src, self->dst,
				       self->len, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, madvise(self->dst + off, gap, MADV_DONTNEED));
	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->dst, again, self->len, 0));
	EXPECT_EQ(-1, gap_check(again, self->len, off, gap));
}

/* New data in the place of what was discarded. */
TEST_F(discarded, refilled)
{
	const ssize_t off = gap_offset(self->len, variant->from);
	const ssize_t gap = variant->nr * PAGE;

	ASSERT_EQ(0, madvise(self->src + off, gap, MADV_DONTNEED));
	pattern_fill(self->src + off, gap, off, LATER_SEED);
	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->src, self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst + off, gap, off, LATER_SEED));
	memset(self->dst + off, 0, gap);
	EXPECT_EQ(-1, gap_check(self->dst, self->len, off, gap));
}

/* The part outside of the range stays, and is not reached by the taker. */
TEST_F(discarded, part_of_the_range)
{
	const ssize_t off = gap_offset(self->len, variant->from);
	const ssize_t gap = variant->nr * PAGE;

	ASSERT_EQ(gap,
		  flip_over(self->fds, self->src + off, self->dst, gap, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, gap, off, SEED));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(-1, pattern_check(self->src, off, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->src + off + gap,
				    self->len - off - gap, off + gap, SEED));
}

/* A part that was moved elsewhere in the giver stays there. */
TEST_F(discarded, moved_away)
{
	const ssize_t off = gap_offset(self->len, variant->from);
	const ssize_t gap = variant->nr * PAGE;
	char *aside = map_mem(self->len);

	ASSERT_EQ(aside,
		  mremap(self->src + off, gap, gap,
			 MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
			 aside));
	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->src, self->dst, self->len, 0));
	EXPECT_EQ(-1, gap_check(self->dst, self->len, off, gap));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(-1, pattern_check(aside, gap, off, SEED));
	pattern_fill(aside, gap, 0, LATER_SEED);
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* An io_uring with room for one operation. */
struct uring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array;
	unsigned int *cq_head, *cq_tail, *cq_mask;
	struct io_uring_cqe *cqes;
	struct io_uring_sqe *sqe;
};

static int uring_open(struct uring *u)
{
	struct io_uring_params p = { 0 };
	size_t sq, cq;
	char *ring;

	u->fd = syscall(SYS_io_uring_setup, 1, &p);
	if (u->fd < 0)
		return -1;
	sq = p.sq_off.array + p.sq_entries * sizeof(*u->sq_array);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(*u->cqes);
	ring = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED,
		    u->fd, IORING_OFF_SQ_RING);
	u->sqe = mmap(NULL, sizeof(*u->sqe), PROT_READ | PROT_WRITE, MAP_SHARED,
		      u->fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || u->sqe == MAP_FAILED)
		return -1;
	u->sq_tail = (void *)(ring + p.sq_off.tail);
	u->sq_mask = (void *)(ring + p.sq_off.ring_mask);
	u->sq_array = (void *)(ring + p.sq_off.array);
	u->cq_head = (void *)(ring + p.cq_off.head);
	u->cq_tail = (void *)(ring + p.cq_off.tail);
	u->cq_mask = (void *)(ring + p.cq_off.ring_mask);
	u->cqes = (void *)(ring + p.cq_off.cqes);
	return 0;
}

/* Begin one operation. */
static int uring_start(struct uring *u, const struct io_uring_sqe *sqe)
{
	const unsigned int tail = *u->sq_tail;

	*u->sqe = *sqe;
	u->sq_array[tail & *u->sq_mask] = 0;
	__atomic_store_n(u->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, u->fd, 1, 0, 0, NULL, 0) != 1)
		return -1;
	return 0;
}

/* Its result, minus an errno if it is one, or -EAGAIN: it waits. */
static int uring_result(struct uring *u, unsigned int wait)
{
	int res;

	if (syscall(SYS_io_uring_enter, u->fd, 0, wait, IORING_ENTER_GETEVENTS,
		    NULL, 0))
		return -errno;
	if (__atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE) == *u->cq_head)
		return -EAGAIN;
	res = u->cqes[*u->cq_head & *u->cq_mask].res;
	__atomic_store_n(u->cq_head, *u->cq_head + 1, __ATOMIC_RELEASE);
	return res;
}

static int uring_do(struct uring *u, const struct io_uring_sqe *sqe)
{
	return uring_start(u, sqe) ? -errno : uring_result(u, 1);
}

/* A reference to one page that is not in the page tables of who has it. */
enum means { BY_VMSPLICE, BY_IO_URING, BY_ZEROCOPY };

struct holder {
	enum means by;
	void *page;
	struct uring ring;
	int fds[2];
	/* What a socket has to deliver before the page. */
	size_t backlog;
};

static int hold_by_io_uring(struct holder *h)
{
	struct iovec iov = { h->page, PAGE };

	if (uring_open(&h->ring) || pipe(h->fds))
		return -1;
	return syscall(SYS_io_uring_register, h->ring.fd,
		       IORING_REGISTER_BUFFERS, &iov, 1);
}

/*
 * Until the receiver takes no more, and what follows stays with the sender
 * behind more than what a probe of the window sends.
 */
static int fill_socket(struct holder *h)
{
	static char filler[16 * KIB];
	int unsent = 0;

	while (unsent < 4 * (int)sizeof(filler)) {
		ssize_t n =
			send(h->fds[1], filler, sizeof(filler), MSG_DONTWAIT);

		if (n < 0)
			return -1;
		h->backlog += n;
		/* Else it may only be waiting for an acknowledgment. */
		usleep(2000);
		if (ioctl(h->fds[1], SIOCOUTQNSD, &unsent))
			return -1;
	}
	return 0;
}

static int hold_by_zerocopy(struct holder *h)
{
	const int on = 1;

	if (tcp_pair(h->fds) ||
	    setsockopt(h->fds[1], SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) ||
	    fill_socket(h))
		return -1;
	return send(h->fds[1], h->page, PAGE, MSG_ZEROCOPY) == PAGE ? 0 : -1;
}

static int hold(struct holder *h, enum means by, void *page)
{
	memset(h, 0, sizeof(*h));
	h->by = by;
	h->page = page;
	switch (by) {
	case BY_VMSPLICE:
		if (pipe(h->fds))
			return -1;
		return share(h->fds[1], page, PAGE) == PAGE ? 0 : -1;
	case BY_IO_URING:
		return hold_by_io_uring(h);
	case BY_ZEROCOPY:
		return hold_by_zerocopy(h);
	}
	return -1;
}

static int uring_fixed(struct holder *h, int op, int fd)
{
	struct io_uring_sqe sqe = {
		.opcode = op,
		.fd = fd,
		.off = -1,
		.addr = (uintptr_t)h->page,
		.len = PAGE,
	};

	return uring_do(&h->ring, &sqe) == PAGE ? 0 : -1;
}

/* Read a page through the reference; all but io_uring let it go with that. */
static int held_read(struct holder *h, char *buf)
{
	char skipped[KIB];

	if (h->by == BY_IO_URING &&
	    uring_fixed(h, IORING_OP_WRITE_FIXED, h->fds[1]))
		return -1;
	for (; h->backlog; h->backlog -= sizeof(skipped))
		if (read_all(h->fds[0], skipped, sizeof(skipped)))
			return -1;
	return read_all(h->fds[0], buf, PAGE);
}

/* Write a page of a stream through it; by io_uring only. */
static int held_write(struct holder *h, uint64_t seed)
{
	if (write_pattern(h->fds[1], PAGE, 0, seed))
		return -1;
	return uring_fixed(h, IORING_OP_READ_FIXED, h->fds[0]);
}

static void let_go(struct holder *h)
{
	if (h->by == BY_IO_URING) {
		syscall(SYS_io_uring_register, h->ring.fd,
			IORING_UNREGISTER_BUFFERS, NULL, 0);
		close(h->ring.fd);
	}
	close(h->fds[0]);
	close(h->fds[1]);
}

/*
 * Who got hold of a page before it was given sees the giver's page for ever,
 * and writes to it, never to what the taker has.
 */
FIXTURE(foreign)
{
	int fds[2];
	char *src;
	char *dst;
	char *held;
	ssize_t len;
	struct holder holder;
};

FIXTURE_VARIANT(foreign)
{
	enum mem_kind kind;
	enum means by;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(foreign, vmsplice_4k) { MEM_4K, BY_VMSPLICE };
FIXTURE_VARIANT_ADD(foreign, vmsplice_64k) { MEM_64K, BY_VMSPLICE };
FIXTURE_VARIANT_ADD(foreign, vmsplice_2m) { MEM_2M, BY_VMSPLICE };
FIXTURE_VARIANT_ADD(foreign, vmsplice_2m_ptes) { MEM_2M_PTES, BY_VMSPLICE };
FIXTURE_VARIANT_ADD(foreign, io_uring_4k) { MEM_4K, BY_IO_URING };
FIXTURE_VARIANT_ADD(foreign, io_uring_64k) { MEM_64K, BY_IO_URING };
FIXTURE_VARIANT_ADD(foreign, io_uring_2m) { MEM_2M, BY_IO_URING };
FIXTURE_VARIANT_ADD(foreign, io_uring_2m_ptes) { MEM_2M_PTES, BY_IO_URING };
FIXTURE_VARIANT_ADD(foreign, zerocopy_4k) { MEM_4K, BY_ZEROCOPY };
FIXTURE_VARIANT_ADD(foreign, zerocopy_64k) { MEM_64K, BY_ZEROCOPY };
FIXTURE_VARIANT_ADD(foreign, zerocopy_2m) { MEM_2M, BY_ZEROCOPY };
FIXTURE_VARIANT_ADD(foreign, zerocopy_2m_ptes) { MEM_2M_PTES, BY_ZEROCOPY };
/* clang-format on */

FIXTURE_SETUP(foreign)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	/* All of a huge page is in it at once, page by page. */
	if (pipe_of(self->fds, 2 * PMD / PAGE)) {
		undo_now();
		SKIP(return, "no pipe of that many slots");
	}
	ASSERT_EQ(0, become(MALLORY));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
	/* Not the first page of a large folio, nor the last. */
	self->held = self->src + self->len / PAGE / 2 * PAGE;
	if (hold(&self->holder, variant->by, self->held)) {
		undo_now();
		SKIP(return, "no such reference: %s", strerror(errno));
	}
}

FIXTURE_TEARDOWN(foreign)
{
	let_go(&self->holder);
	EXPECT_EQ(0, undo_now());
}

/* The strict give refuses, as it would with any transient obstacle. */
TEST_F(foreign, nocopy_eagain)
{
	EXPECT_EQ(-1, give(self->fds[1], self->src, self->len,
			   SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	EXPECT_EQ(-1, pattern_check(self->src, self->len, 0, SEED));
}

/* What the taker writes does not show through the reference. */
TEST_F(foreign, reads_its_own)
{
	const size_t off = self->held - self->src;
	char *seen = malloc(PAGE);

	ASSERT_EQ(self->len,
		  flip_over(self->fds, self->src, self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	ASSERT_EQ(0, held_read(&self->holder, seen));
	EXPECT_EQ(-1, pattern_check(seen, PAGE, off, SEED));
}

/* The same while the page is still in the pipe, and after the giver has gone. */
TEST_F(foreign, outlives_the_giver)
{
	const size_t off = self->held - self->src;
	char *seen = malloc(PAGE);

	ASSERT_EQ(self->len, give_all(self->fds[1], self->src, self->len, 0));
	unmap_mem(self->src, self->len);
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	ASSERT_EQ(0, held_read(&self->holder, seen));
	EXPECT_EQ(-1, pattern_check(seen, PAGE, off, SEED));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* What is written through the reference reaches the giver's page alone. */
TEST_F(foreign, writes_its_own)
{
	/* The others cannot be written through. */
	if (variant->by != BY_IO_URING)
		return;
	ASSERT_EQ(self->len, give_all(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(0, held_write(&self->holder, LATER_SEED));
	EXPECT_EQ(-1, pattern_check(self->held, PAGE, 0, LATER_SEED));
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
	ASSERT_EQ(0, held_write(&self->holder, TAKER_SEED));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
}

/* Without the reference nothing stands in the way any more. */
TEST_F(foreign, moves_when_let_go)
{
	struct timespec start;
	ssize_t n;

	let_go(&self->holder);
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		usleep(1000);
		n = give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY);
	} while (n < 0 && errno == EAGAIN && elapsed_ms(&start) < 10000);
	ASSERT_EQ(self->len, n);
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len,
				      SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
}

/*
 * What waits in an io_uring for data has an address, and no page: memory under it
 * moves, and what comes lands at the giver.
 */
FIXTURE(awaited)
{
	int fds[2];
	int data[2];
	char *src;
	char *dst;
	ssize_t len;
	struct uring ring;
};

FIXTURE_VARIANT(awaited)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(awaited, small) { MEM_4K };
FIXTURE_VARIANT_ADD(awaited, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(awaited, huge_page) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(awaited)
{
	if (uring_open(&self->ring))
		SKIP(return, "no io_uring: %s", strerror(errno));
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_EQ(0, pipe(self->data));
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(awaited)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F(awaited, lands_at_the_giver)
{
	char *at = self->src + self->len / PAGE / 2 * PAGE;
	const struct io_uring_sqe sqe = { .opcode = IORING_OP_READ,
					  .fd = self->data[0],
					  .off = -1,
					  .addr = (uintptr_t)at,
					  .len = PAGE };

	ASSERT_EQ(0, uring_start(&self->ring, &sqe));
	ASSERT_EQ(self->len, flip_over(self->fds, self->src, self->dst,
				       self->len, SPLICE_F_NOCOPY));
	ASSERT_EQ(-EAGAIN, uring_result(&self->ring, 0));
	ASSERT_EQ(0, write_pattern(self->data[1], PAGE, 0, LATER_SEED));
	ASSERT_EQ(PAGE, uring_result(&self->ring, 1));
	EXPECT_EQ(-1, pattern_check(at, PAGE, 0, LATER_SEED));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
}

/* Disk transfers from and to memory that is given while they are under way. */
#define DIO_LEN (64 * PAGE)

FIXTURE(direct_io)
{
	int fds[2];
	int file;
	aio_context_t aio;
	struct flip_counts before;
	struct timespec start;
	char *src;
	char *dst;
};

FIXTURE_VARIANT(direct_io)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(direct_io, small) { MEM_4K };
FIXTURE_VARIANT_ADD(direct_io, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(direct_io, folio_256k) { MEM_256K };
/* clang-format on */

FIXTURE_SETUP(direct_io)
{
	int fd;

	fd = backing_file_filled(BACKING_EXT4, DIO_LEN, SEED);
	if (fd < 0)
		SKIP(return, "no ext4");
	self->file = reopen(fd, O_RDWR | O_DIRECT);
	if (self->file < 0 || syscall(SYS_io_setup, 1, &self->aio))
		SKIP(return, "no direct I/O: %s", strerror(errno));
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->src = map_filled(DIO_LEN, variant->kind, SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->dst = map_mem(DIO_LEN);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, flip_counts(&self->before));
	clock_gettime(CLOCK_MONOTONIC, &self->start);
}

/* The pages of some round were pinned. */
static bool under_way(const struct flip_counts *before)
{
	struct flip_counts now;

	return !flip_counts(&now) &&
	       now.nr[COPIED_PINNED] > before->nr[COPIED_PINNED];
}

/* Some rounds, and on until a transfer was under way in one of them. */
static bool another_round(const struct flip_counts *before,
			  const struct timespec *start, int rounds)
{
	return rounds < 50 || (!under_way(before) && elapsed_ms(start) < 20000);
}

FIXTURE_TEARDOWN(direct_io)
{
	EXPECT_TRUE(under_way(&self->before));
	EXPECT_EQ(0, undo_now());
}

static int aio_start(aio_context_t aio, int op, int file, void *mem)
{
	struct iocb cb = {
		.aio_lio_opcode = op,
		.aio_fildes = file,
		.aio_buf = (uintptr_t)mem,
		.aio_nbytes = DIO_LEN,
	};
	struct iocb *list = &cb;

	return syscall(SYS_io_submit, aio, 1, &list) == 1 ? 0 : -1;
}

static int aio_end(aio_context_t aio)
{
	struct io_event ev;

	if (syscall(SYS_io_getevents, aio, 1, 1, &ev, NULL) != 1)
		return -1;
	return ev.res == DIO_LEN ? 0 : -1;
}

/* The disk gets the giver's data, not what the taker writes meanwhile. */
TEST_F_TIMEOUT(direct_io, writes_what_was_given, 120)
{
	char *got = map_mem(DIO_LEN);
	int i;

	for (i = 0; another_round(&self->before, &self->start, i); i++) {
		pattern_fill(self->src, DIO_LEN, 0, SEED + i);
		ASSERT_EQ(0, aio_start(self->aio, IOCB_CMD_PWRITE, self->file,
				       self->src));
		ASSERT_EQ(DIO_LEN, flip_over(self->fds, self->src, self->dst,
					     DIO_LEN, 0));
		ASSERT_EQ(-1, pattern_check(self->dst, DIO_LEN, 0, SEED + i));
		pattern_fill(self->dst, DIO_LEN, 0, TAKER_SEED);
		ASSERT_EQ(0, aio_end(self->aio));
		ASSERT_EQ(DIO_LEN, pread(self->file, got, DIO_LEN, 0));
		ASSERT_EQ(-1, pattern_check(got, DIO_LEN, 0, SEED + i));
	}
}

/* What the disk delivers does not reach the taker's memory once taken. */
TEST_F_TIMEOUT(direct_io, reads_into_the_giver, 120)
{
	char *taken = malloc(DIO_LEN);
	int i;

	for (i = 0; another_round(&self->before, &self->start, i); i++) {
		pattern_fill(self->src, DIO_LEN, 0, LATER_SEED + i);
		ASSERT_EQ(0, aio_start(self->aio, IOCB_CMD_PREAD, self->file,
				       self->src));
		ASSERT_EQ(DIO_LEN, flip_over(self->fds, self->src, self->dst,
					     DIO_LEN, 0));
		memcpy(taken, self->dst, DIO_LEN);
		ASSERT_EQ(0, aio_end(self->aio));
		ASSERT_EQ(0, memcmp(taken, self->dst, DIO_LEN));
	}
}

/*
 * Somebody writes to the range, word by word, all the while it is given and
 * taken.  The taker then has words that were there at one time or another, each
 * in its place; from then on they are the taker's alone.  The writer looks at
 * each word first and never sees one of the taker's.
 *
 * A word: who wrote it, in which round, its place.
 */
enum via { VIA_STORE, VIA_PROC_MEM, VIA_PROCESS_VM, VIA_PTRACE };

#define GIVER_TAG UINT64_C(0x1111)
#define HAMMER_TAG UINT64_C(0x2222)
#define TAKER_TAG UINT64_C(0x3333)
#define HAMMER_PAGES 16

struct hammering {
	enum via via;
	uint64_t *mem;
	size_t words;
	pid_t pid;
	pid_t idle;
	atomic_bool stop;
	/* 0; 1: a word of the taker's was seen; 2: no access. */
	atomic_int failed;
	atomic_ulong rounds;
};

static uint64_t tagged(uint64_t tag, uint64_t round, uint64_t place)
{
	return tag << 48 | (round & 0xffff) << 32 | place;
}

static uint64_t tag_of(uint64_t word)
{
	return word >> 48;
}

/* One word of the giver's, or -1: read it, then write @word there. */
static int exchange_word(struct hammering *h, int fd, size_t i, uint64_t word)
{
	uint64_t *at = h->mem + i, old;
	struct iovec mine = { &old, 8 }, theirs = { at, 8 };

	switch (h->via) {
	case VIA_STORE:
		old = __atomic_load_n(at, __ATOMIC_RELAXED);
		__atomic_store_n(at, word, __ATOMIC_RELAXED);
		break;
	case VIA_PROC_MEM:
		if (pread(fd, &old, 8, (uintptr_t)at) != 8 ||
		    pwrite(fd, &word, 8, (uintptr_t)at) != 8)
			return 2;
		break;
	case VIA_PROCESS_VM:
		if (process_vm_readv(h->pid, &mine, 1, &theirs, 1, 0) != 8)
			return 2;
		mine.iov_base = &word;
		if (process_vm_writev(h->pid, &mine, 1, &theirs, 1, 0) != 8)
			return 2;
		break;
	case VIA_PTRACE:
		errno = 0;
		old = ptrace(PTRACE_PEEKDATA, h->idle, at, 0);
		if (errno || ptrace(PTRACE_POKEDATA, h->idle, at, word))
			return 2;
		break;
	}
	return tag_of(old) == TAKER_TAG;
}

static void hammer_on(struct hammering *h)
{
	/* By system calls it is written here and there only, each time elsewhere. */
	const size_t stride = h->via == VIA_STORE ? 1 : h->words / 256 | 1;
	char path[64];
	int fd;

	/* At the same time, and by other translations, where there are two. */
	leave_cpu();
	snprintf(path, sizeof(path), "/proc/%d/mem", h->pid);
	fd = open(path, O_RDWR);
	while (!h->stop && !h->failed) {
		const uint64_t round = h->rounds;
		size_t i;

		for (i = round % stride; i < h->words && !h->failed;
		     i += stride)
			h->failed = exchange_word(h, fd, i,
						  tagged(HAMMER_TAG, round, i));
		h->rounds++;
	}
	close(fd);
}

static void *hammer_thread(void *arg)
{
	hammer_on(arg);
	return NULL;
}

/* A thread for a tracer to stop. */
static void *idle_thread(void *arg)
{
	struct hammering *h = arg;

	h->idle = syscall(SYS_gettid);
	while (!h->stop)
		usleep(1000);
	return NULL;
}

/* A process of its own; only a stopped thread can be peeked at. */
static pid_t hammer_process(struct hammering *h)
{
	pid_t pid = fork_child();
	int status;

	if (pid)
		return pid;
	if (h->via == VIA_PTRACE &&
	    (ptrace(PTRACE_SEIZE, h->idle, 0, 0) ||
	     ptrace(PTRACE_INTERRUPT, h->idle, 0, 0) ||
	     waitpid(h->idle, &status, __WALL) != h->idle))
		h->failed = 2;
	hammer_on(h);
	_exit(0);
}

FIXTURE(hammered)
{
	int fds[2];
	char *src;
	char *dst;
	ssize_t len;
	struct hammering *hammer;
	pthread_t thread;
	pthread_t idle;
	pid_t pid;
};

FIXTURE_VARIANT(hammered)
{
	enum mem_kind kind;
	enum via via;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(hammered, store_4k) { MEM_4K, VIA_STORE };
FIXTURE_VARIANT_ADD(hammered, store_64k) { MEM_64K, VIA_STORE };
FIXTURE_VARIANT_ADD(hammered, store_2m) { MEM_2M, VIA_STORE };
FIXTURE_VARIANT_ADD(hammered, store_2m_ptes) { MEM_2M_PTES, VIA_STORE };
FIXTURE_VARIANT_ADD(hammered, proc_mem_4k) { MEM_4K, VIA_PROC_MEM };
FIXTURE_VARIANT_ADD(hammered, proc_mem_64k) { MEM_64K, VIA_PROC_MEM };
FIXTURE_VARIANT_ADD(hammered, proc_mem_2m) { MEM_2M, VIA_PROC_MEM };
FIXTURE_VARIANT_ADD(hammered, process_vm_4k) { MEM_4K, VIA_PROCESS_VM };
FIXTURE_VARIANT_ADD(hammered, process_vm_64k) { MEM_64K, VIA_PROCESS_VM };
FIXTURE_VARIANT_ADD(hammered, process_vm_2m) { MEM_2M, VIA_PROCESS_VM };
FIXTURE_VARIANT_ADD(hammered, ptrace_4k) { MEM_4K, VIA_PTRACE };
FIXTURE_VARIANT_ADD(hammered, ptrace_2m) { MEM_2M, VIA_PTRACE };
/* clang-format on */

FIXTURE_SETUP(hammered)
{
	struct hammering *h;

	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = variant->kind == MEM_4K ? HAMMER_PAGES * PAGE :
					      mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, 0);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
	h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, h);
	self->hammer = h;
	h->via = variant->via;
	h->mem = (void *)self->src;
	h->words = self->len / 8;
	h->pid = getpid();
}

FIXTURE_TEARDOWN(hammered)
{
	EXPECT_EQ(0, undo_now());
}

static int hammer_start(struct hammering *h, pthread_t *thread, pthread_t *idle,
			pid_t *pid)
{
	if (h->via == VIA_STORE || h->via == VIA_PROC_MEM)
		return pthread_create(thread, NULL, hammer_thread, h);
	if (pthread_create(idle, NULL, idle_thread, h))
		return -1;
	while (!h->idle)
		sched_yield();
	*pid = hammer_process(h);
	return *pid < 0 ? -1 : 0;
}

static int hammer_stop(struct hammering *h, pthread_t thread, pthread_t idle,
		       pid_t pid)
{
	h->stop = true;
	if (!pid)
		return pthread_join(thread, NULL);
	return reap(pid) || pthread_join(idle, NULL);
}

/*
 * Where a page is copied, it is byte by byte at worst: what was the giver's when
 * the copy began may have the last byte, or more, of a store in the meantime.
 */
static bool is_right(uint64_t word, uint64_t round, uint64_t place)
{
	const uint64_t givers = tagged(GIVER_TAG, round, place);
	const uint64_t last_byte = UINT64_C(0xff) << 56;

	if (word == givers)
		return true;
	if (tag_of(word) == HAMMER_TAG)
		return (uint32_t)word == place;
	return word ==
	       ((givers & ~last_byte) | (tagged(HAMMER_TAG, 0, 0) & last_byte));
}

/* Number of words that are neither the giver's nor the hammer's. */
static int wrong_words(const uint64_t *mem, size_t words, uint64_t round)
{
	int wrong = 0;
	size_t i;

	for (i = 0; i < words; i++)
		wrong += !is_right(mem[i], round, i);
	return wrong;
}

static void put_words(uint64_t *mem, size_t words, uint64_t tag, uint64_t round)
{
	size_t i;

	for (i = 0; i < words; i++)
		__atomic_store_n(mem + i, tagged(tag, round, i),
				 __ATOMIC_RELAXED);
}

static int lost_words(const uint64_t *mem, size_t words, uint64_t tag,
		      uint64_t round)
{
	int lost = 0;
	size_t i;

	for (i = 0; i < words; i++)
		lost += mem[i] != tagged(tag, round, i);
	return lost;
}

TEST_F(hammered, taken_memory_is_left_alone)
{
	struct hammering *h = self->hammer;
	uint64_t *dst = (void *)self->dst;
	struct timespec start;
	uint64_t round, seen;

	put_words(h->mem, h->words, GIVER_TAG, 0);
	ASSERT_EQ(0, hammer_start(h, &self->thread, &self->idle, &self->pid));
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (round = 0; round < 20 || elapsed_ms(&start) < 300; round++) {
		put_words(h->mem, h->words, GIVER_TAG, round);
		ASSERT_EQ(self->len, flip_over(self->fds, self->src, self->dst,
					       self->len, 0));
		ASSERT_EQ(0, wrong_words(dst, h->words, round));
		put_words(dst, h->words, TAKER_TAG, round);
		/* Time for a store by an old translation. */
		seen = h->rounds;
		while (h->rounds < seen + 2 && !h->failed)
			usleep(100);
		ASSERT_EQ(0, lost_words(dst, h->words, TAKER_TAG, round));
		ASSERT_EQ(0, h->failed);
	}
	ASSERT_EQ(0, hammer_stop(h, self->thread, self->idle, self->pid));
	EXPECT_EQ(0, h->failed);
}

/*
 * Buffers with more than one owner: the readers of two pipes after tee(2), or a
 * pipe and a socket.  Nobody may have the page itself while there is another.
 */
FIXTURE(teed)
{
	int a[2];
	int b[2];
	char *src;
	char *dst;
	char *other;
	ssize_t len;
};

FIXTURE_VARIANT(teed)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(teed, small) { MEM_4K };
FIXTURE_VARIANT_ADD(teed, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(teed, folio_2m) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(teed)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(self->a));
	ASSERT_EQ(0, pipe(self->b));
	self->dst = map_mem(self->len);
	self->other = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
	ASSERT_NE(NULL, self->other);
	ASSERT_EQ(self->len,
		  give(self->a[1], self->src, self->len, SPLICE_F_NOCOPY));
}

FIXTURE_TEARDOWN(teed)
{
	EXPECT_EQ(0, undo_now());
}

/* The reader of the second pipe sees what was given, not what a taker wrote. */
TEST_F(teed, take_copies)
{
	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	EXPECT_EQ(-1, take(self->a[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(self->len, bytes_queued(self->a[0]));
	ASSERT_EQ(self->len, take_all(self->a[0], self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(0, read_pattern(self->b[0], self->len, 0, SEED));
}

/* The last owner may have it, and has it for itself. */
TEST_F(teed, last_one_moves)
{
	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	ASSERT_EQ(self->len, take_all(self->a[0], self->dst, self->len, 0));
	ASSERT_EQ(self->len, take_all(self->b[0], self->other, self->len,
				      SPLICE_F_NOCOPY));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(-1, pattern_check(self->other, self->len, 0, SEED));
	pattern_fill(self->other, self->len, 0, LATER_SEED);
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* The second pipe may be read first, or be closed with the buffer in it. */
TEST_F(teed, moves_when_the_other_is_gone)
{
	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	ASSERT_EQ(0, read_pattern(self->b[0], self->len, 0, SEED));
	close(self->b[0]);
	close(self->b[1]);
	ASSERT_EQ(self->len,
		  take(self->a[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
}

/* A duplicate of the beginning counts as much as one of the whole. */
TEST_F(teed, part)
{
	ASSERT_EQ(100, tee(self->a[0], self->b[1], 100, 0));
	EXPECT_EQ(-1, take(self->a[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(self->len, take_all(self->a[0], self->dst, self->len, 0));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	/* Its rest is no part of the duplicate. */
	ASSERT_EQ(100, take(self->b[0], self->other, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->other, 100, 0, SEED));
	EXPECT_EQ(-1, zero_check(self->other + 100, self->len - 100));
}

/* A duplicate that a socket has not delivered yet. */
TEST_F(teed, in_a_socket)
{
	int sv[2];

	ASSERT_EQ(0, tcp_pair(sv));
	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	ASSERT_EQ(PAGE, splice(self->b[0], NULL, sv[1], NULL, PAGE, 0));
	ASSERT_EQ(self->len, take_all(self->a[0], self->dst, self->len, 0));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(0, read_pattern(sv[0], PAGE, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* Two takers at once: each byte right, and the memory of each its own. */
TEST_F(teed, two_takers)
{
	pid_t pid;

	ASSERT_EQ(self->len, tee(self->a[0], self->b[1], self->len, 0));
	pid = fork_child();
	if (!pid) {
		if (take_all(self->b[0], self->dst, self->len, 0) !=
			    (ssize_t)self->len ||
		    pattern_check(self->dst, self->len, 0, SEED) >= 0)
			_exit(1);
		pattern_fill(self->dst, self->len, 0, TAKER_SEED);
		_exit(0);
	}
	ASSERT_EQ(self->len, take_all(self->a[0], self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
	pattern_fill(self->dst, self->len, 0, LATER_SEED);
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, LATER_SEED));
}

/* A socket that has part of a buffer while the rest is taken. */
FIXTURE(in_socket)
{
	int fds[2];
	int sv[2];
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(in_socket)
{
	enum mem_kind kind;
	bool tcp;
	/* Bytes for the socket. */
	ssize_t part;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(in_socket, small_tcp) { MEM_4K, true, 100 };
FIXTURE_VARIANT_ADD(in_socket, small_unix) { MEM_4K, false, 100 };
FIXTURE_VARIANT_ADD(in_socket, folio_64k_tcp) { MEM_64K, true, PAGE };
FIXTURE_VARIANT_ADD(in_socket, folio_64k_unix) { MEM_64K, false, 5000 };
FIXTURE_VARIANT_ADD(in_socket, folio_2m_tcp) { MEM_2M, true, PAGE };
FIXTURE_VARIANT_ADD(in_socket, folio_2m_unix) { MEM_2M, false, 8 * PAGE };
/* clang-format on */

FIXTURE_SETUP(in_socket)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, variant->tcp ? tcp_pair(self->sv) : unix_pair(self->sv));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(self->len,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
}

FIXTURE_TEARDOWN(in_socket)
{
	EXPECT_EQ(0, undo_now());
}

/* What is left is copied; what the socket delivers is what was given. */
TEST_F(in_socket, rest_is_copied)
{
	const ssize_t rest = self->len - variant->part;

	ASSERT_EQ(variant->part, splice(self->fds[0], NULL, self->sv[1], NULL,
					variant->part, 0));
	EXPECT_EQ(-1,
		  take(self->fds[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(rest, bytes_queued(self->fds[0]));
	ASSERT_EQ(rest, take_all(self->fds[0], self->dst, rest, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, rest, variant->part, SEED));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	EXPECT_EQ(0, read_pattern(self->sv[0], variant->part, 0, SEED));
}

/* The giver's memory is its own again while the socket has the old pages. */
TEST_F(in_socket, giver_goes_on)
{
	ASSERT_EQ(variant->part, splice(self->fds[0], NULL, self->sv[1], NULL,
					variant->part, 0));
	pattern_fill(self->src, self->len, 0, LATER_SEED);
	EXPECT_EQ(0, read_pattern(self->sv[0], variant->part, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fds[0], self->len - variant->part,
				  variant->part, SEED));
	EXPECT_EQ(-1, pattern_check(self->src, self->len, 0, LATER_SEED));
}

/*
 * Memory that may not be written to: giving would discard it, taking would
 * replace it.  Both are refused, and nothing changes.
 */
enum bad { READ_ONLY, SEALED, KEY_NO_WRITE, KEY_NO_ACCESS };

FIXTURE(refused)
{
	int fds[2];
	char *mem;
	char *good;
	ssize_t len;
};

FIXTURE_VARIANT(refused)
{
	enum bad bad;
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(refused, read_only_4k) { READ_ONLY, MEM_4K };
FIXTURE_VARIANT_ADD(refused, read_only_2m) { READ_ONLY, MEM_2M };
FIXTURE_VARIANT_ADD(refused, sealed_4k) { SEALED, MEM_4K };
FIXTURE_VARIANT_ADD(refused, sealed_2m) { SEALED, MEM_2M };
FIXTURE_VARIANT_ADD(refused, key_no_write_4k) { KEY_NO_WRITE, MEM_4K };
FIXTURE_VARIANT_ADD(refused, key_no_write_2m) { KEY_NO_WRITE, MEM_2M };
FIXTURE_VARIANT_ADD(refused, key_no_access_4k) { KEY_NO_ACCESS, MEM_4K };
FIXTURE_VARIANT_ADD(refused, key_no_access_2m) { KEY_NO_ACCESS, MEM_2M };
/* clang-format on */

static int protect(char *mem, size_t len, enum bad bad)
{
	const int rw = PROT_READ | PROT_WRITE;
	unsigned int rights = PKEY_DISABLE_WRITE;
	int key;

	switch (bad) {
	case READ_ONLY:
		return mprotect(mem, len, PROT_READ);
	case SEALED:
		return mprotect(mem, len, PROT_READ) ||
		       syscall(SYS_mseal, mem, len, 0);
	case KEY_NO_ACCESS:
		rights = PKEY_DISABLE_ACCESS;
		__attribute__((fallthrough));
	case KEY_NO_WRITE:
		key = pkey_alloc(0, rights);
		return key < 0 || pkey_mprotect(mem, len, rw, key);
	}
	return -1;
}

/* For who wants to look at it again. */
static int unprotect(char *mem, size_t len, enum bad bad)
{
	const int rw = PROT_READ | PROT_WRITE;

	if (bad == KEY_NO_WRITE || bad == KEY_NO_ACCESS)
		return pkey_mprotect(mem, len, rw, 0);
	return 0;
}

FIXTURE_SETUP(refused)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, become(MALLORY));
	self->len = mem_kind_size(variant->kind);
	self->mem = map_filled(self->len, variant->kind, SEED);
	if (!self->mem)
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	self->good = map_filled(2 * self->len, variant->kind, LATER_SEED);
	ASSERT_NE(NULL, self->good);
	if (protect(self->mem, self->len, variant->bad))
		SKIP(return, "no such protection: %s", strerror(errno));
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(refused)
{
	ASSERT_EQ(0, unprotect(self->mem, self->len, variant->bad));
	EXPECT_EQ(-1, pattern_check(self->mem, self->len, 0, SEED));
}

TEST_F(refused, give)
{
	EXPECT_EQ(-1, give(self->fds[1], self->mem, self->len, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1,
		  give(self->fds[1], self->mem, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(self->fds[1], self->mem + 10, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Behind memory that may be given: a short count. */
TEST_F(refused, give_short)
{
	struct iovec iov[2] = { { self->good, self->len },
				{ self->mem, self->len } };

	ASSERT_EQ(self->len, give_iov(self->fds[1], iov, 2, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], self->len, 0, LATER_SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

TEST_F(refused, take)
{
	ASSERT_EQ(self->len, give(self->fds[1], self->good, self->len, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1,
		  take(self->fds[0], self->mem, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, take(self->fds[0], self->mem + 10, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, read_pattern(self->fds[0], self->len, 0, LATER_SEED));
}

/* Neither does a hole empty it. */
TEST_F(refused, take_hole)
{
	ASSERT_EQ(0, madvise(self->good, self->len, MADV_DONTNEED));
	ASSERT_EQ(self->len, give(self->fds[1], self->good, self->len, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->mem, self->len, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(self->len, bytes_queued(self->fds[0]));
}

/* Sealed memory that may be written to may be discarded too, so it is given. */
TEST(sealed_writable)
{
	char *mem = map_filled(PAGE, MEM_4K, SEED);
	char *more = map_filled(PAGE, MEM_4K, LATER_SEED);
	int fds[2];

	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(fds));
	if (syscall(SYS_mseal, mem, PAGE, 0))
		SKIP(return, "no mseal(): %s", strerror(errno));
	ASSERT_EQ(PAGE, give(fds[1], mem, PAGE, 0));
	ASSERT_EQ(0, read_pattern(fds[0], PAGE, 0, SEED));
	ASSERT_EQ(PAGE, give(fds[1], more, PAGE, 0));
	ASSERT_EQ(PAGE, take(fds[0], mem, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(mem, PAGE, 0, LATER_SEED));
}

/* A page that was made a guard is in the middle of either range. */
#define GUARD_AT (100 * PAGE)

FIXTURE(guarded)
{
	int fds[2];
	char *mem;
	char *other;
};

FIXTURE_SETUP(guarded)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->mem = map_mem(PMD);
	ASSERT_NE(NULL, self->mem);
	if (madvise(self->mem + GUARD_AT, PAGE, MADV_GUARD_INSTALL))
		SKIP(return, "no guards: %s", strerror(errno));
}

/* Whatever happened, it is still there. */
FIXTURE_TEARDOWN(guarded)
{
	EXPECT_EQ(-1, write(self->fds[1], self->mem + GUARD_AT, 1));
	EXPECT_EQ(EFAULT, errno);
}

static void expect_up_to_guard(struct __test_metadata *_metadata, int fds[2],
			       char *mem)
{
	ASSERT_EQ(GUARD_AT, give_all(fds[1], mem, GUARD_AT, 0));
	EXPECT_EQ(-1, give(fds[1], mem + GUARD_AT, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, give(fds[1], mem + GUARD_AT + 10, 10, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(GUARD_AT, bytes_queued(fds[0]));
}

/* Pages up to the guard. */
TEST_F(guarded, give)
{
	pattern_fill(self->mem, GUARD_AT, 0, SEED);
	ASSERT_EQ(GUARD_AT, give(self->fds[1], self->mem, PMD, 0));
	ASSERT_EQ(0, read_pattern(self->fds[0], GUARD_AT, 0, SEED));
	pattern_fill(self->mem, GUARD_AT, 0, SEED);
	expect_up_to_guard(_metadata, self->fds, self->mem);
	EXPECT_EQ(0, read_pattern(self->fds[0], GUARD_AT, 0, SEED));
}

/* Otherwise empty memory is no hole of a PMD. */
TEST_F(guarded, give_hole)
{
	ASSERT_EQ(GUARD_AT, give(self->fds[1], self->mem, PMD, 0));
	ASSERT_EQ(0, read_zeroes(self->fds[0], GUARD_AT));
	expect_up_to_guard(_metadata, self->fds, self->mem);
	EXPECT_EQ(0, read_zeroes(self->fds[0], GUARD_AT));
}

TEST_F(guarded, take)
{
	self->other = map_filled(PMD, MEM_4K, SEED);
	ASSERT_NE(NULL, self->other);
	ASSERT_EQ(GUARD_AT + PAGE,
		  give_all(self->fds[1], self->other, GUARD_AT + PAGE, 0));
	ASSERT_EQ(GUARD_AT, take(self->fds[0], self->mem, PMD, 0));
	EXPECT_EQ(-1, pattern_check(self->mem, GUARD_AT, 0, SEED));
	EXPECT_EQ(-1, take(self->fds[0], self->mem + GUARD_AT, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, GUARD_AT, SEED));
}

/* A huge page that would lie over it is neither mapped nor lost. */
TEST_F(guarded, take_huge)
{
	self->other = map_filled(PMD, MEM_2M, SEED);
	if (!self->other)
		SKIP(return, "no huge pages");
	madvise(self->mem, PMD, MADV_HUGEPAGE);
	ASSERT_EQ(PMD, give(self->fds[1], self->other, PMD, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->mem, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(PMD, bytes_queued(self->fds[0]));
	ASSERT_EQ(GUARD_AT, take(self->fds[0], self->mem, PMD, 0));
	EXPECT_EQ(-1, pattern_check(self->mem, GUARD_AT, 0, SEED));
	EXPECT_EQ(0,
		  read_pattern(self->fds[0], PMD - GUARD_AT, GUARD_AT, SEED));
}

/* Nor does a hole empty it. */
TEST_F(guarded, take_hole)
{
	self->other = map_mem(PMD);
	ASSERT_NE(NULL, self->other);
	pattern_fill(self->mem, GUARD_AT, 0, SEED);
	ASSERT_EQ(PMD, give(self->fds[1], self->other, PMD, 0));
	ASSERT_EQ(GUARD_AT, take(self->fds[0], self->mem, PMD, 0));
	EXPECT_EQ(-1, zero_check(self->mem, GUARD_AT));
	EXPECT_EQ(PMD - GUARD_AT, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, read_zeroes(self->fds[0], PMD - GUARD_AT));
}

/*
 * Memory whose contents the kernel may drop at any time.  Who takes them has
 * them for good: old data or zeroes, but the same after memory was short.
 */
#define GROUP "attack"

FIXTURE(lazy)
{
	int fds[2];
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(lazy)
{
	enum mem_kind kind;
	bool droppable;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(lazy, freed_4k) { MEM_4K, false };
FIXTURE_VARIANT_ADD(lazy, freed_64k) { MEM_64K, false };
FIXTURE_VARIANT_ADD(lazy, freed_2m) { MEM_2M, false };
FIXTURE_VARIANT_ADD(lazy, droppable_4k) { MEM_4K, true };
FIXTURE_VARIANT_ADD(lazy, droppable_2m) { MEM_2M, true };
/* clang-format on */

/* In the place of @mem: as map_mem() has it, but droppable. */
static bool make_droppable(char *mem, size_t len)
{
	return mmap(mem, len, PROT_READ | PROT_WRITE,
		    MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem;
}

static char *lazy_mem(size_t len, enum mem_kind kind, bool droppable)
{
	char *mem;

	if (!droppable) {
		mem = map_filled(len, kind, SEED);
		return mem && madvise(mem, len, MADV_FREE) ? NULL : mem;
	}
	mem = map_mem(len);
	if (!mem || !make_droppable(mem, len) || mem_fill(mem, len, kind, SEED))
		return NULL;
	return mem;
}

FIXTURE_SETUP(lazy)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (geteuid() || memcg_new(GROUP)) {
		undo_now();
		SKIP(return, "no memory cgroups");
	}
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	ASSERT_EQ(0, memcg_enter(GROUP));
	self->len = mem_kind_size(variant->kind);
	self->src = lazy_mem(self->len, variant->kind, variant->droppable);
	if (!self->src) {
		undo_now();
		SKIP(return, "no such memory: %s", strerror(errno));
	}
	ASSERT_EQ(0, wide_pipe(self->fds));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(lazy)
{
	EXPECT_EQ(0, undo_now());
}

/* Each page is zeroes or that of the stream. */
static bool old_or_zeroes(const char *mem, size_t len)
{
	size_t off;

	for (off = 0; off < len; off += PAGE)
		if (zero_check(mem + off, PAGE) >= 0 &&
		    pattern_check(mem + off, PAGE, off, SEED) >= 0)
			return false;
	return true;
}

/* It can never move. */
TEST_F(lazy, nocopy_eopnotsupp)
{
	EXPECT_EQ(-1,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

TEST_F(lazy, taken_for_good)
{
	char *taken = malloc(self->len);
	int i;

	ASSERT_EQ(self->len, give_all(self->fds[1], self->src, self->len, 0));
	memcg_write(GROUP, "memory.reclaim", "8M");
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	EXPECT_TRUE(old_or_zeroes(self->dst, self->len));
	memcpy(taken, self->dst, self->len);
	for (i = 0; i < 3; i++)
		memcg_write(GROUP, "memory.reclaim", "8M");
	EXPECT_EQ(0, memcmp(taken, self->dst, self->len));
}

/* Given data does not become droppable by being taken, as it is copied. */
TEST_F(lazy, destination)
{
	char *src = map_filled(self->len, variant->kind, LATER_SEED);

	ASSERT_NE(NULL, src);
	if (!variant->droppable)
		return;
	ASSERT_EQ(self->len, give(self->fds[1], src, self->len, 0));
	EXPECT_EQ(-1,
		  take(self->fds[0], self->src, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(self->len, take_all(self->fds[0], self->src, self->len, 0));
}

/* What was freed lazily is replaced by what is taken, which stays. */
TEST_F(lazy, freed_destination)
{
	char *src = map_filled(self->len, variant->kind, LATER_SEED);
	int i;

	ASSERT_NE(NULL, src);
	if (variant->droppable)
		return;
	ASSERT_EQ(self->len, give(self->fds[1], src, self->len, 0));
	ASSERT_EQ(self->len, take_all(self->fds[0], self->src, self->len, 0));
	for (i = 0; i < 3; i++)
		memcg_write(GROUP, "memory.reclaim", "8M");
	EXPECT_EQ(-1, pattern_check(self->src, self->len, 0, LATER_SEED));
}

/* Pages that KSM has merged with those of somebody else. */
#define KSM "/sys/kernel/mm/ksm/"
#define KSM_LEN (8 * PAGE)

FIXTURE(merged)
{
	int fds[2];
	char *src;
	char *twin;
	char *dst;
};

FIXTURE_VARIANT(merged)
{
	/* With the common page of zeroes. */
	bool zero;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(merged, page) { false };
FIXTURE_VARIANT_ADD(merged, zeroes) { true };
/* clang-format on */

static int ksm_start(bool zero)
{
	static const char *const keep[] = {
		KSM "run",	     KSM "sleep_millisecs",
		KSM "pages_to_scan", KSM "use_zero_pages",
		KSM "smart_scan",
	};

	return sysctl_keep(keep, ARRAY_SIZE(keep)) ||
	       sysctl_set(KSM "use_zero_pages", zero) ||
	       sysctl_set(KSM "smart_scan", 0) ||
	       sysctl_set(KSM "sleep_millisecs", 1) ||
	       sysctl_set(KSM "pages_to_scan", 10000) ||
	       sysctl_set(KSM "run", 1);
}

static bool same_pages(const char *a, const char *b, size_t nr)
{
	uint64_t *frames = calloc(nr, sizeof(*frames));
	bool same = frames && !read_frames(a, nr, frames) &&
		    same_frames(b, nr, frames) == (long)nr;

	free(frames);
	return same;
}

FIXTURE_SETUP(merged)
{
	struct timespec start;

	if (geteuid() || ksm_start(variant->zero)) {
		undo_now();
		SKIP(return, "cannot have pages merged: %s", strerror(errno));
	}
	ASSERT_EQ(0, pipe(self->fds));
	self->src = map_filled(KSM_LEN, MEM_4K, SEED);
	self->twin = map_filled(KSM_LEN, MEM_4K, SEED);
	self->dst = map_mem(KSM_LEN);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->twin);
	if (variant->zero) {
		memset(self->src, 0, KSM_LEN);
		memset(self->twin, 0, KSM_LEN);
	}
	ASSERT_EQ(0, madvise(self->src, KSM_LEN, MADV_MERGEABLE));
	ASSERT_EQ(0, madvise(self->twin, KSM_LEN, MADV_MERGEABLE));
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!same_pages(self->src, self->twin, KSM_LEN / PAGE)) {
		ASSERT_GT(60000, elapsed_ms(&start));
		usleep(10000);
	}
	ASSERT_EQ(0, become(MALLORY));
}

FIXTURE_TEARDOWN(merged)
{
	EXPECT_EQ(0, undo_now());
}

/* The other one sees nothing of what the taker writes, nor the other way. */
TEST_F(merged, isolated)
{
	ASSERT_EQ(KSM_LEN,
		  flip_over(self->fds, self->src, self->dst, KSM_LEN, 0));
	EXPECT_EQ(-1, variant->zero ?
			      zero_check(self->dst, KSM_LEN) :
			      pattern_check(self->dst, KSM_LEN, 0, SEED));
	pattern_fill(self->dst, KSM_LEN, 0, TAKER_SEED);
	EXPECT_EQ(-1, variant->zero ?
			      zero_check(self->twin, KSM_LEN) :
			      pattern_check(self->twin, KSM_LEN, 0, SEED));
	pattern_fill(self->twin, KSM_LEN, 0, LATER_SEED);
	EXPECT_EQ(-1, pattern_check(self->dst, KSM_LEN, 0, TAKER_SEED));
}

TEST_F(merged, nocopy)
{
	if (variant->zero) {
		/* As any page of zeroes that was only read. */
		EXPECT_EQ(KSM_LEN, give(self->fds[1], self->src, KSM_LEN,
					SPLICE_F_NOCOPY));
		return;
	}
	EXPECT_EQ(-1, give(self->fds[1], self->src, KSM_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* Merged pages that are replaced by a take leave their twins alone. */
TEST_F(merged, destination)
{
	char *more = map_filled(KSM_LEN, MEM_4K, LATER_SEED);

	ASSERT_NE(NULL, more);
	ASSERT_EQ(KSM_LEN, flip_over(self->fds, more, self->src, KSM_LEN, 0));
	EXPECT_EQ(-1, pattern_check(self->src, KSM_LEN, 0, LATER_SEED));
	EXPECT_EQ(-1, variant->zero ?
			      zero_check(self->twin, KSM_LEN) :
			      pattern_check(self->twin, KSM_LEN, 0, SEED));
}

/*
 * Others refer to the destination: a device, a socket, a pipe.  They see what
 * was taken, as after read(2); what they write later still arrives there.
 */
FIXTURE(held_destination)
{
	int fds[2];
	char *src;
	char *dst;
	char *held;
	ssize_t len;
	struct holder holder;
};

FIXTURE_VARIANT(held_destination)
{
	enum mem_kind kind;
	enum mem_kind dst_kind;
	enum means by;
	bool hole;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(held_destination, uring_4k) { MEM_4K, MEM_4K, BY_IO_URING, false };
FIXTURE_VARIANT_ADD(held_destination, uring_64k) { MEM_64K, MEM_4K, BY_IO_URING, false };
FIXTURE_VARIANT_ADD(held_destination, uring_2m) { MEM_2M, MEM_4K, BY_IO_URING, false };
FIXTURE_VARIANT_ADD(held_destination, uring_2m_over_2m) { MEM_2M, MEM_2M, BY_IO_URING, false };
FIXTURE_VARIANT_ADD(held_destination, uring_64k_over_64k) { MEM_64K, MEM_64K, BY_IO_URING, false };
FIXTURE_VARIANT_ADD(held_destination, io_uring_hole) { MEM_4K, MEM_4K, BY_IO_URING, true };
FIXTURE_VARIANT_ADD(held_destination, io_uring_hole_over_2m) { MEM_2M, MEM_2M, BY_IO_URING, true };
FIXTURE_VARIANT_ADD(held_destination, vmsplice_4k) { MEM_4K, MEM_4K, BY_VMSPLICE, false };
FIXTURE_VARIANT_ADD(held_destination, vmsplice_2m) { MEM_2M, MEM_2M, BY_VMSPLICE, false };
FIXTURE_VARIANT_ADD(held_destination, vmsplice_hole) { MEM_4K, MEM_4K, BY_VMSPLICE, true };
FIXTURE_VARIANT_ADD(held_destination, zerocopy_4k) { MEM_4K, MEM_4K, BY_ZEROCOPY, false };
FIXTURE_VARIANT_ADD(held_destination, zerocopy_64k) { MEM_64K, MEM_4K, BY_ZEROCOPY, false };
FIXTURE_VARIANT_ADD(held_destination, zerocopy_2m) { MEM_2M, MEM_2M, BY_ZEROCOPY, false };
/* clang-format on */

FIXTURE_SETUP(held_destination)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = variant->hole ? map_mem(self->len) :
				    map_filled(self->len, variant->kind, SEED);
	self->dst = map_filled(self->len, variant->dst_kind, LATER_SEED);
	if (!self->src || !self->dst) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, wide_pipe(self->fds));
	ASSERT_EQ(0, become(MALLORY));
	self->held = self->dst;
	if (!variant->hole)
		self->held += self->len / PAGE / 2 * PAGE;
	if (hold(&self->holder, variant->by, self->held)) {
		undo_now();
		SKIP(return, "no such reference: %s", strerror(errno));
	}
	ASSERT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
}

FIXTURE_TEARDOWN(held_destination)
{
	let_go(&self->holder);
	EXPECT_EQ(0, undo_now());
}

TEST_F(held_destination, nocopy_eagain)
{
	EXPECT_EQ(-1,
		  take(self->fds[0], self->dst, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(self->len, bytes_queued(self->fds[0]));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, LATER_SEED));
}

TEST_F(held_destination, written_into)
{
	const size_t off = self->held - self->dst;
	char *seen = malloc(PAGE);

	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	ASSERT_EQ(0, held_read(&self->holder, seen));
	if (variant->hole) {
		EXPECT_EQ(-1, zero_check(self->dst, self->len));
		EXPECT_EQ(-1, zero_check(seen, PAGE));
	} else {
		EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
		EXPECT_EQ(-1, pattern_check(seen, PAGE, off, SEED));
	}
	if (variant->by != BY_IO_URING)
		return;
	ASSERT_EQ(0, held_write(&self->holder, TAKER_SEED));
	EXPECT_EQ(-1, pattern_check(self->held, PAGE, 0, TAKER_SEED));
}

/*
 * Memory whose faults somebody in user space wants to see, who cannot be asked
 * from inside the kernel: nothing goes in or out behind the back.
 */
FIXTURE(armed)
{
	int fds[2];
	int uffd;
	char *mem;
	char *other;
};

FIXTURE_VARIANT(armed)
{
	/* Else missing pages. */
	bool protect;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(armed, missing) { false };
FIXTURE_VARIANT_ADD(armed, write_protect) { true };
/* clang-format on */

#define ARMED_LEN (4 * PAGE)

static int arm(char *mem, bool protect)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = protect ? UFFD_FEATURE_PAGEFAULT_FLAG_WP : 0,
	};
	struct uffdio_range range = { (uintptr_t)mem, ARMED_LEN };
	struct uffdio_register reg = {
		.range = range,
		.mode = protect ? UFFDIO_REGISTER_MODE_WP :
				  UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_writeprotect wp = {
		.range = range,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg) ||
	    (protect && ioctl(fd, UFFDIO_WRITEPROTECT, &wp)))
		return -1;
	return fd;
}

static bool is_write_protected(const char *page)
{
	uint64_t entry = 0;

	return !read_pagemap(page, 1, &entry) && entry >> 57 & 1;
}

FIXTURE_SETUP(armed)
{
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(self->fds));
	self->mem = map_mem(ARMED_LEN);
	ASSERT_NE(NULL, self->mem);
	/* With missing pages, the first is there and the others are not. */
	pattern_fill(self->mem, variant->protect ? ARMED_LEN : PAGE, 0, SEED);
	self->other = map_filled(ARMED_LEN, MEM_4K, LATER_SEED);
	ASSERT_NE(NULL, self->other);
	self->uffd = arm(self->mem, variant->protect);
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
}

FIXTURE_TEARDOWN(armed)
{
	/* What was there is there. */
	EXPECT_EQ(1, present_pages(self->mem, PAGE));
	EXPECT_EQ(variant->protect, is_write_protected(self->mem));
}

/* A page that is there is copied, and the next one ends it. */
TEST_F(armed, give)
{
	const ssize_t there = variant->protect ? ARMED_LEN : PAGE;

	EXPECT_EQ(-1,
		  give(self->fds[1], self->mem, ARMED_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(there, give(self->fds[1], self->mem, ARMED_LEN, 0));
	EXPECT_EQ(0, read_pattern(self->fds[0], there, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->mem, PAGE, 0, SEED));
}

/* A missing page is no hole. */
TEST_F(armed, give_missing)
{
	if (variant->protect)
		return;
	EXPECT_EQ(-1, give(self->fds[1], self->mem + PAGE, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1,
		  give(self->fds[1], self->mem + PAGE, PAGE, SPLICE_F_NOCOPY));
	EXPECT_NE(0, errno);
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* A page that is there is written into, one that is missing is not put in. */
TEST_F(armed, take)
{
	ASSERT_EQ(2 * PAGE, give(self->fds[1], self->other, 2 * PAGE, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->mem, 2 * PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	if (variant->protect) {
		EXPECT_EQ(-1, take(self->fds[0], self->mem, 2 * PAGE, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, pattern_check(self->mem, ARMED_LEN, 0, SEED));
		EXPECT_EQ(2 * PAGE, bytes_queued(self->fds[0]));
		return;
	}
	ASSERT_EQ(PAGE, take(self->fds[0], self->mem, 2 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->mem, PAGE, 0, LATER_SEED));
	EXPECT_EQ(0, present_pages(self->mem + PAGE, PAGE));
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, PAGE, LATER_SEED));
}

/* Nor does a hole take away what is watched. */
TEST_F(armed, take_hole)
{
	ASSERT_EQ(0, madvise(self->other, ARMED_LEN, MADV_DONTNEED));
	ASSERT_EQ(2 * PAGE, give(self->fds[1], self->other, 2 * PAGE, 0));
	if (variant->protect) {
		EXPECT_EQ(-1, take(self->fds[0], self->mem, 2 * PAGE, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, pattern_check(self->mem, ARMED_LEN, 0, SEED));
		return;
	}
	ASSERT_EQ(PAGE, take(self->fds[0], self->mem, 2 * PAGE, 0));
	EXPECT_EQ(-1, zero_check(self->mem, PAGE));
	EXPECT_EQ(0, present_pages(self->mem + PAGE, PAGE));
}

/*
 * Crypto in the kernel reads given buffers, and writes to none of them.  (Not
 * every user may choose an algorithm: the socket was handed to him.)
 */
FIXTURE(alg)
{
	int fds[2];
	int b[2];
	int op;
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(alg)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(alg, small) { MEM_4K };
FIXTURE_VARIANT_ADD(alg, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(alg, folio_2m) { MEM_2M };
/* clang-format on */

static int alg_open(const char *type, const char *name, const void *key,
		    size_t len)
{
	struct sockaddr_alg sa = { .salg_family = AF_ALG };
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);

	snprintf((char *)sa.salg_type, sizeof(sa.salg_type), "%s", type);
	snprintf((char *)sa.salg_name, sizeof(sa.salg_name), "%s", name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) ||
	    (key && setsockopt(fd, SOL_ALG, ALG_SET_KEY, key, len)))
		return -1;
	return accept(fd, NULL, NULL);
}

FIXTURE_SETUP(alg)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, pipe(self->b));
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(alg)
{
	EXPECT_EQ(0, undo_now());
}

/* The digest is that of the same bytes written to it. */
TEST_F(alg, digest)
{
	unsigned char want[32], got[32];
	int op = alg_open("hash", "sha256", NULL, 0);
	char *copy = malloc(self->len);

	if (op < 0)
		SKIP(return, "no AF_ALG: %s", strerror(errno));
	ASSERT_EQ(0, become(MALLORY));
	pattern_fill(copy, self->len, 0, SEED);
	ASSERT_EQ(self->len, send(op, copy, self->len, 0));
	ASSERT_EQ(0, read_all(op, want, sizeof(want)));
	ASSERT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(self->len,
		  splice_all(self->fds[0], NULL, op, NULL, self->len));
	ASSERT_EQ(0, read_all(op, got, sizeof(got)));
	EXPECT_EQ(0, memcmp(want, got, sizeof(got)));
}

/* The first message to a cipher: what to do, and the vector. */
static int alg_decrypt(int op)
{
	char space[CMSG_SPACE(4) + CMSG_SPACE(sizeof(struct af_alg_iv) + 16)];
	struct msghdr msg = { .msg_control = space,
			      .msg_controllen = sizeof(space) };
	struct cmsghdr *c;
	struct af_alg_iv *iv;
	__u32 what = ALG_OP_DECRYPT;

	memset(space, 0, sizeof(space));
	c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_ALG;
	c->cmsg_type = ALG_SET_OP;
	c->cmsg_len = CMSG_LEN(sizeof(what));
	memcpy(CMSG_DATA(c), &what, sizeof(what));
	c = CMSG_NXTHDR(&msg, c);
	c->cmsg_level = SOL_ALG;
	c->cmsg_type = ALG_SET_IV;
	c->cmsg_len = CMSG_LEN(sizeof(*iv) + 16);
	iv = (void *)CMSG_DATA(c);
	iv->ivlen = 16;
	return sendmsg(op, &msg, MSG_MORE) < 0;
}

/* A duplicate is deciphered; the original stays what it was, and is taken. */
TEST_F(alg, cipher)
{
	static const char key[16] = "0123456789abcde";
	int op = alg_open("skcipher", "cbc(aes)", key, sizeof(key));
	char *plain = malloc(PAGE);

	if (op < 0)
		SKIP(return, "no AF_ALG: %s", strerror(errno));
	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, alg_decrypt(op));
	ASSERT_EQ(self->len, give(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(self->len, tee(self->fds[0], self->b[1], self->len, 0));
	ASSERT_EQ(PAGE, splice(self->b[0], NULL, op, NULL, PAGE, 0));
	ASSERT_EQ(PAGE, read(op, plain, PAGE));
	EXPECT_NE(-1, pattern_check(plain, PAGE, 0, SEED));
	close(op);
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
}

/*
 * A giver is killed in the middle of it, and its memory is reaped while it may
 * still be giving.  What came into the pipe is what it had, never zeroes in the
 * place of pages that were reaped.
 */
#define KILLED_LEN (4096 * PAGE)
#define NR_KILLED 20

FIXTURE(killed)
{
	int fds[2];
	int step[2];
	char *data;
	/* How long it takes to give all, in nanoseconds; 0: not known yet. */
	long *takes;
};

FIXTURE_VARIANT(killed)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(killed, small) { MEM_4K };
FIXTURE_VARIANT_ADD(killed, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(killed, folio_2m) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(killed)
{
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	if (pipe_of(self->fds, KILLED_LEN / PAGE)) {
		undo_now();
		SKIP(return, "no pipe of %ld slots", KILLED_LEN / PAGE);
	}
	self->data = malloc(KILLED_LEN);
	ASSERT_NE(NULL, self->data);
	pattern_fill(self->data, KILLED_LEN, 0, SEED);
	self->takes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->takes);
	ASSERT_EQ(0, step_pair(self->step));
}

FIXTURE_TEARDOWN(killed)
{
	EXPECT_EQ(0, undo_now());
}

/* This process is killed @ns from now; not by others, who may come too late. */
static int kill_in(long ns)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL,
			       .sigev_signo = SIGKILL };
	struct itimerspec at = { .it_value.tv_sec = ns / 1000000000,
				 .it_value.tv_nsec = ns % 1000000000 + 1 };
	timer_t timer;

	return timer_create(CLOCK_MONOTONIC, &ev, &timer) ||
	       timer_settime(timer, 0, &at, NULL);
}

static long elapsed_ns(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000000000 + now.tv_nsec -
	       since->tv_nsec;
}

/*
 * The giver: fill, tell, give, wait for the end, which comes at some time of
 * *@takes if that is known; without @takes somebody else sees to it.  Large
 * folios go one by one, or all would be gone before anything can happen.
 */
static void give_until_killed(int wfd, enum mem_kind kind, int step,
			      const char *data, long *takes)
{
	const ssize_t one = kind == MEM_4K ? KILLED_LEN : mem_kind_size(kind);
	char *mem = map_mem(KILLED_LEN);
	struct timespec start;
	ssize_t off;

	if (!mem)
		_exit(1);
	madvise(mem, KILLED_LEN,
		kind == MEM_4K ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	memcpy(mem, data, KILLED_LEN);
	step_tell(step);
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (takes && *takes && kill_in(*takes / 1000 * (getpid() * 37 % 1000)))
		_exit(2);
	for (off = 0; off < KILLED_LEN; off += one)
		if (give_all(wfd, mem + off, one, 0) != one)
			_exit(3);
	if (takes) {
		*takes = elapsed_ns(&start);
		/* All of it went before the signal came, if there was one. */
		kill_in(0);
	}
	pause();
}

/* Reap the memory of a process as soon as it dies, until it has none. */
static void reap_memory(pid_t pid)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);

	/* EINVAL: it is not dying yet. */
	while (!syscall(SYS_process_mrelease, fd, 0) || errno == EAGAIN ||
	       errno == EINVAL)
		;
	close(fd);
}

/* Whatever the pipe holds is the beginning of the stream: bytes, or -1. */
static ssize_t drain_and_check(int rfd, char *to)
{
	const ssize_t len = bytes_queued(rfd);

	if (len && take_all(rfd, to, len, 0) != len)
		return -1;
	return pattern_check(to, len, 0, SEED) >= 0 ? -1 : len;
}

TEST_F(killed, no_zeroes)
{
	char *dst = map_mem(KILLED_LEN);
	int i, part = 0;
	pid_t pid;

	ASSERT_EQ(0, become(MALLORY));
	for (i = 0; i < NR_KILLED; i++) {
		ssize_t len;

		pid = fork_child();
		if (!pid)
			give_until_killed(self->fds[1], variant->kind,
					  self->step[1], self->data,
					  self->takes);
		ASSERT_EQ(0, step_await(self->step[0]));
		reap_memory(pid);
		ASSERT_EQ(128 + SIGKILL, reap(pid));
		len = drain_and_check(self->fds[0], dst);
		ASSERT_LE(0, len);
		part += len && len < KILLED_LEN;
	}
	/* Else the signals came before or after, and little is shown. */
	TH_LOG("%d of %d killed in the middle", part, NR_KILLED);
}

/* A thread of the giver's, which uses more than there is when giving began. */
static void *use_memory(void *arg)
{
	const int rfd = *(int *)arg;
	char *mem = map_mem(2 * KILLED_LEN);

	while (!bytes_queued(rfd))
		;
	memset(mem, 1, 2 * KILLED_LEN);
	return NULL;
}

/* The same by a memory cgroup that is out of memory. */
TEST_F(killed, out_of_memory)
{
	char *dst = map_mem(KILLED_LEN);
	pthread_t thread;
	pid_t pid;
	int i;

	if (memcg_new(GROUP) || memcg_write(GROUP, "memory.max", "32M"))
		SKIP(return, "no memory cgroups");
	memcg_write(GROUP, "memory.swap.max", "0");
	for (i = 0; i < NR_KILLED / 4; i++) {
		pid = fork_child();
		if (!pid) {
			if (memcg_enter(GROUP) ||
			    pthread_create(&thread, NULL, use_memory,
					   self->fds))
				_exit(4);
			give_until_killed(self->fds[1], variant->kind,
					  self->step[1], self->data, NULL);
		}
		ASSERT_EQ(0, step_await(self->step[0]));
		ASSERT_EQ(128 + SIGKILL, reap(pid));
		ASSERT_LE(0, drain_and_check(self->fds[0], dst));
	}
}

/*
 * Pages in a pipe cannot be reclaimed, so nothing is spent on trying: they get
 * no place in swap, and all of them can be taken by moving afterwards.
 */
#define SWAP_LEN (1024 * PAGE)

FIXTURE(swap)
{
	int fds[2];
	char *dst;
};

FIXTURE_VARIANT(swap)
{
	enum mem_kind kind;
	/* The pages were in swap when they were given. */
	bool swapped;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(swap, small) { MEM_4K, false };
FIXTURE_VARIANT_ADD(swap, folio_64k) { MEM_64K, false };
FIXTURE_VARIANT_ADD(swap, folio_2m) { MEM_2M, false };
FIXTURE_VARIANT_ADD(swap, from_swap) { MEM_4K, true };
/* clang-format on */

FIXTURE_SETUP(swap)
{
	if (!swap_available(BACKING_EXT4) || memcg_new(GROUP) ||
	    swap_space(BACKING_EXT4, 4 * SWAP_LEN) ||
	    mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "no swap, or no memory cgroups");
	}
	ASSERT_EQ(0, pipe_of(self->fds, SWAP_LEN / PAGE));
	self->dst = map_mem(SWAP_LEN);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(swap)
{
	EXPECT_EQ(0, undo_now());
}

/* A process of that cgroup which gives all it has, and ends. */
static pid_t spawn_giver(int wfd, enum mem_kind kind, bool swapped,
			 unsigned int more)
{
	pid_t pid = fork_in(GROUP);
	char *mem;

	if (pid)
		return pid;
	mem = map_mem(SWAP_LEN);
	if (!mem || become(MALLORY))
		_exit(1);
	/* Under pressure not all folios are what they were asked for. */
	if (mem_fill(mem, SWAP_LEN, kind, SEED) && more)
		_exit(2);
	if (swapped && swap_out(mem, SWAP_LEN))
		_exit(3);
	if (give_all(wfd, mem, SWAP_LEN, more) != SWAP_LEN)
		_exit(4);
	_exit(0);
}

TEST_F(swap, none_in_flight)
{
	int i;

	ASSERT_EQ(0, reap(spawn_giver(self->fds[1], variant->kind,
				      variant->swapped,
				      variant->swapped ? 0 : SPLICE_F_NOCOPY)));
	ASSERT_LE(SWAP_LEN, memcg_read(GROUP, "memory.current"));
	for (i = 0; i < 5; i++)
		memcg_write(GROUP, "memory.reclaim", "8M swappiness=max");
	EXPECT_EQ(0, memcg_read(GROUP, "memory.swap.current"));
	EXPECT_LE(SWAP_LEN, memcg_read(GROUP, "memory.current"));
	ASSERT_EQ(SWAP_LEN,
		  take_all(self->fds[0], self->dst, SWAP_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, SWAP_LEN, 0, SEED));
}

/* Reclaimed all the while it is given and taken. */
TEST_F(swap, reclaimed_meanwhile)
{
	pid_t giver, reclaimer;
	int i;

	reclaimer = fork_child();
	if (!reclaimer)
		for (;;)
			memcg_write(GROUP, "memory.reclaim",
				    "1M swappiness=max");
	for (i = 0; i < 10; i++) {
		int fds[2];

		ASSERT_EQ(0, pipe_of(fds, SWAP_LEN / PAGE));
		giver = spawn_giver(fds[1], variant->kind, false, 0);
		close(fds[1]);
		ASSERT_EQ(SWAP_LEN, take_all(fds[0], self->dst, SWAP_LEN, 0));
		ASSERT_EQ(-1, pattern_check(self->dst, SWAP_LEN, 0, SEED));
		EXPECT_EQ(0, reap(giver));
		close(fds[0]);
		memset(self->dst, 0, SWAP_LEN);
	}
	kill(reclaimer, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(reclaimer));
}

/* A pipe that holds more than an int can say, or 32 bits: FIONREAD. */
TEST(queued_is_clamped)
{
	const size_t len = 5UL << 30;
	int fds[2];
	char *mem;

	if (pipe_of(fds, 4096))
		SKIP(return, "no pipe of that many slots");
	mem = map_mem(len);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(1L << 30, give_all(fds[1], mem, 1UL << 30, SPLICE_F_NOCOPY));
	EXPECT_EQ(1 << 30, bytes_queued(fds[0]));
	ASSERT_EQ((2L << 30) - PMD,
		  give_all(fds[1], mem, (2UL << 30) - PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(INT_MAX, bytes_queued(fds[0]));
	ASSERT_EQ((2L << 30) + PMD,
		  give_all(fds[1], mem, (2UL << 30) + PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(INT_MAX, bytes_queued(fds[0]));
	ASSERT_EQ(0, read_zeroes(fds[0], 10 * PAGE + 1));
	EXPECT_EQ(INT_MAX, bytes_queued(fds[0]));
}

/* What one call does at most does not end within a huge page. */
TEST(call_is_rounded)
{
	const size_t len = 4UL << 30;
	const ssize_t most = (2L << 30) - PMD;
	char *mem, *last;
	int fds[2];

	if (pipe_of(fds, 4096))
		SKIP(return, "no pipe of that many slots");
	mem = map_mem(len);
	ASSERT_NE(NULL, mem);
	last = mem + most - PMD;
	ASSERT_EQ(0, mem_fill(last, PMD, MEM_2M, SEED));
	ASSERT_EQ(0, mem_fill(last + PMD, PMD, MEM_2M, LATER_SEED));
	ASSERT_EQ(most, give(fds[1], mem, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, present_pages(last, PMD));
	EXPECT_EQ(PMD, huge_bytes(last + PMD, PMD));
	ASSERT_EQ(most, give(fds[1], mem, most, SPLICE_F_NOCOPY));
	EXPECT_EQ(most, take(fds[0], mem, len, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(last, PMD, 0, SEED));
	EXPECT_EQ(-1, pattern_check(last + PMD, PMD, 0, LATER_SEED));
}

/* Buffers larger than a page, for who reads them in pieces. */
FIXTURE(sizes)
{
	int fds[2];
	char *src;
	ssize_t len;
};

FIXTURE_VARIANT(sizes)
{
	enum mem_kind kind;
	bool hole;
	ssize_t step;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(sizes, folio_64k_by_100) { MEM_64K, false, 100 };
FIXTURE_VARIANT_ADD(sizes, folio_64k_by_4095) { MEM_64K, false, 4095 };
FIXTURE_VARIANT_ADD(sizes, folio_64k_by_4097) { MEM_64K, false, 4097 };
FIXTURE_VARIANT_ADD(sizes, folio_2m_by_4097) { MEM_2M, false, 4097 };
FIXTURE_VARIANT_ADD(sizes, folio_2m_by_100001) { MEM_2M, false, 100001 };
FIXTURE_VARIANT_ADD(sizes, hole_by_4097) { MEM_2M, true, 4097 };
FIXTURE_VARIANT_ADD(sizes, hole_by_100001) { MEM_2M, true, 100001 };
/* clang-format on */

FIXTURE_SETUP(sizes)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	self->src = variant->hole ? map_mem(self->len) :
				    map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(self->len,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
}

FIXTURE_TEARDOWN(sizes)
{
	EXPECT_EQ(0, undo_now());
}

static int read_piece(int rfd, size_t len, size_t pos, bool hole)
{
	return hole ? read_zeroes(rfd, len) : read_pattern(rfd, len, pos, SEED);
}

/* All of it, piece by piece, and then what was written behind. */
TEST_F(sizes, read)
{
	ssize_t pos, n;

	/* Is not appended to a page that belongs to nobody's write(2). */
	ASSERT_EQ(0, write_pattern(self->fds[1], 50, 0, LATER_SEED));
	for (pos = 0; pos < self->len; pos += n) {
		n = self->len - pos;
		if (n > variant->step)
			n = variant->step;
		ASSERT_EQ(0, read_piece(self->fds[0], n, pos, variant->hole));
	}
	EXPECT_EQ(0, read_pattern(self->fds[0], 50, 0, LATER_SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* By a call that takes, at an address that allows no move. */
TEST_F(sizes, take)
{
	char *dst = map_mem(self->len + PAGE) + 1;
	ssize_t pos, n;

	for (pos = 0; pos < self->len; pos += n) {
		n = take(self->fds[0], dst + pos, variant->step, 0);
		ASSERT_LT(0, n);
		ASSERT_GE(variant->step, n);
	}
	EXPECT_EQ(self->len, pos);
	EXPECT_EQ(-1, variant->hole ? zero_check(dst, self->len) :
				      pattern_check(dst, self->len, 0, SEED));
}

/* Into a file, a piece at a time. */
TEST_F(sizes, splice)
{
	int file = backing_file(BACKING_MEMFD);
	ssize_t pos, n;

	for (pos = 0; pos < self->len; pos += n) {
		n = splice(self->fds[0], NULL, file, NULL, variant->step, 0);
		ASSERT_LT(0, n);
	}
	EXPECT_EQ(self->len, pos);
	EXPECT_EQ(0, variant->hole ?
			     pread_zeroes(file, 0, self->len) :
			     pread_pattern(file, 0, self->len, 0, SEED));
}

/* Slots whose buffers were given are used again by write(2), and back. */
TEST(slots_are_reused)
{
	char *src = map_filled(8 * PAGE, MEM_4K, SEED);
	char *dst = map_mem(8 * PAGE);
	int fds[2], i;

	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(8 * PAGE, give_all(fds[1], src, 8 * PAGE, 0));
		ASSERT_EQ(0, read_pattern(fds[0], 4 * PAGE, 0, SEED));
		ASSERT_EQ(4 * PAGE, take_all(fds[0], dst, 4 * PAGE, 0));
		ASSERT_EQ(-1, pattern_check(dst, 4 * PAGE, 4 * PAGE, SEED));
		ASSERT_EQ(0,
			  write_pattern(fds[1], 3 * PAGE + 5, 0, LATER_SEED));
		ASSERT_EQ(0,
			  write_pattern(fds[1], 5, 3 * PAGE + 5, LATER_SEED));
		ASSERT_EQ(3 * PAGE + 10,
			  take_all(fds[0], dst, 3 * PAGE + 10, 0));
		ASSERT_EQ(-1, pattern_check(dst, 3 * PAGE + 10, 0, LATER_SEED));
		pattern_fill(src, 8 * PAGE, 0, SEED);
	}
}

/* The bit that asks for a move means nothing to the neighbours. */
TEST(nocopy_is_refused)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_SPLICE, .len = 1 };
	struct uring ring;
	int a[2], b[2];

	ASSERT_EQ(0, become(MALLORY));
	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(0, write_pattern(a[1], PAGE, 0, SEED));
	EXPECT_EQ(-1, splice(a[0], NULL, b[1], NULL, 1, SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(a[0], b[1], 1, SPLICE_F_NOCOPY));
	EXPECT_EQ(EINVAL, errno);
	if (uring_open(&ring))
		SKIP(return, "no io_uring: %s", strerror(errno));
	sqe.splice_fd_in = a[0];
	sqe.splice_off_in = -1;
	sqe.fd = b[1];
	sqe.off = -1;
	sqe.splice_flags = SPLICE_F_NOCOPY;
	EXPECT_EQ(-EINVAL, uring_do(&ring, &sqe));
	sqe.opcode = IORING_OP_TEE;
	sqe.splice_off_in = 0;
	sqe.off = 0;
	EXPECT_EQ(-EINVAL, uring_do(&ring, &sqe));
	sqe.splice_flags = 0;
	EXPECT_EQ(1, uring_do(&ring, &sqe));
	EXPECT_EQ(PAGE, bytes_queued(a[0]));
}

FLIP_HARNESS_MAIN
