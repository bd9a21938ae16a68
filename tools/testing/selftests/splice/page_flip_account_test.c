// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who pays for pages that are given, in flight and taken, and what shows of
 * them: resident sets, memory cgroups, the pipe account of users, the pages in
 * flight of the whole machine.  Whatever becomes of a pipe and the processes
 * around it, all of it is in balance afterwards.
 *
 * account	fs.pipe-user-pages-soft, for who gave
 * resident	RssAnon on either side
 * charged	memory.current and memory.stat of giver and taker, memory.max
 * in_flight	nr_flip_pages and PageFlip
 * orphaned	a cgroup that is removed while its pages are in flight
 * conserved	MemFree, AnonPages and PageFlip together
 * shrunk	huge pages between cgroups while reclaim splits them
 * filled_in_turn	holes that a file wants as memory
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "page_flip_util.h"

#define SEED 0x5b11ce
#define LATER_SEED 0x0dd

/* Users, neither of them root. */
#define GIVING 65534
#define OTHER 65533

/* Memory cgroups. */
#define GIVER "giver"
#define TAKER "taker"

/* In pages, with what the processors hold back. */
static long meminfo_get(const char *name)
{
	vmstat_get("nr_flip_pages");
	return number_in("/proc/meminfo", name) / (PAGE / 1024);
}

static pid_t fork_user(uid_t uid)
{
	pid_t pid = fork_child();

	if (!pid && become(uid))
		_exit(254);
	return pid;
}

static void close_both(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

static int receive_fd(int sock)
{
	char space[CMSG_SPACE(sizeof(int))], c;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space),
	};
	int fd;

	if (recvmsg(sock, &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/*
 * Leave a descriptor where only the collector of unreachable sockets finds it:
 * in a socket that is sent through itself.
 */
static int lose_fd(int fd)
{
	int sv[2], err;

	if (unix_pair(sv))
		return -1;
	err = send_fds(sv[0], &fd, 1, 0) || send_fds(sv[0], &sv[1], 1, 0);
	close(sv[0]);
	close(sv[1]);
	return err;
}

/* The collector runs when a socket is closed. */
static void collect_lost(void)
{
	int sv[2];

	if (!unix_pair(sv)) {
		close(sv[0]);
		close(sv[1]);
	}
	usleep(10000);
}

/*
 * The pages that a user has in pipes are counted, each until nobody has its
 * buffer any more, whatever pipe and whoever's that is in.  The limit stops a
 * give short; it neither sleeps nor copies.
 */
#define SOFT_LIMIT "/proc/sys/fs/pipe-user-pages-soft"
#define LIMIT 100
#define RING 64
#define ROOM (LIMIT - RING)

FIXTURE(account)
{
	/* Where users hand over descriptors. */
	int sv[2];
};

FIXTURE_SETUP(account)
{
	static const char *const limit = SOFT_LIMIT;

	if (geteuid() || sysctl_keep(&limit, 1))
		SKIP(return, "needs root");
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, LIMIT));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM, 0, self->sv));
}

FIXTURE_TEARDOWN(account)
{
	EXPECT_EQ(0, undo_now());
}

/* The pages that @uid, who has no other pipe, can still give; -1: an error. */
static long account_room(uid_t uid)
{
	pid_t pid = fork_user(uid);
	long given = 0;
	int fds[2];
	char *mem;

	if (pid) {
		given = reap(pid);
		return given < 200 ? given : -1;
	}
	mem = map_filled(LIMIT * PAGE, MEM_4K, SEED);
	if (!mem || pipe_of(fds, RING))
		_exit(255);
	while (give(fds[1], mem + given * PAGE, PAGE, SPLICE_F_NONBLOCK) ==
	       (ssize_t)PAGE)
		given++;
	_exit(errno == EAGAIN ? given : 255);
}

/* A user gives @nr pages to a pipe, in which they stay, and ends. */
static int give_as(uid_t uid, int wfd, size_t nr)
{
	pid_t pid = fork_user(uid);
	char *mem;

	if (pid)
		return reap(pid);
	mem = map_filled(nr * PAGE, MEM_4K, SEED);
	if (!mem)
		_exit(1);
	_exit(give(wfd, mem, nr * PAGE, 0) == (ssize_t)nr * PAGE ? 0 : 2);
}

/* The same to a pipe of that user's: its read end is all that remains. */
static int pipe_from(int sv[2], uid_t uid, size_t nr)
{
	pid_t pid = fork_user(uid);
	int fds[2];

	if (pid)
		return reap(pid) ? -1 : receive_fd(sv[0]);
	if (pipe_of(fds, RING) || give_as(uid, fds[1], nr))
		_exit(1);
	_exit(send_fds(sv[1], &fds[0], 1, 0) ? 2 : 0);
}

/* Short at the limit, then EAGAIN, although the descriptor may block. */
TEST_F(account, stops_short)
{
	int fds[2];
	char *mem;

	ASSERT_EQ(0, become(GIVING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	mem = map_filled(RING * PAGE, MEM_4K, SEED);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(ROOM * PAGE, give(fds[1], mem, RING * PAGE, 0));
	EXPECT_EQ(-1, give(fds[1], mem + ROOM * PAGE, PAGE, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1,
		  pattern_check(mem + ROOM * PAGE, PAGE, ROOM * PAGE, SEED));
	ASSERT_EQ(0, read_pattern(fds[0], 10 * PAGE, 0, SEED));
	ASSERT_EQ(10 * PAGE,
		  give(fds[1], mem + ROOM * PAGE, (RING - ROOM) * PAGE, 0));
	ASSERT_EQ(0, read_pattern(fds[0], ROOM * PAGE, 10 * PAGE, SEED));
	EXPECT_EQ(0, bytes_queued(fds[0]));
}

/* A large folio is not cut down to what the limit leaves, nor copied. */
TEST_F(account, large_folio_eagain)
{
	char *mem = map_filled(PMD, MEM_2M, SEED);
	int fds[2];

	if (!mem)
		SKIP(return, "no huge pages");
	ASSERT_EQ(0, become(GIVING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	EXPECT_EQ(-1, give(fds[1], mem, PMD, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, bytes_queued(fds[0]));
	EXPECT_EQ(-1, pattern_check(mem, PMD, 0, SEED));
	EXPECT_EQ(PMD, huge_bytes(mem, PMD));
}

/* Copies take pages as well. */
TEST_F(account, copies_count)
{
	char *mem = map_filled(LIMIT * PAGE, MEM_4K, SEED);
	long given = 0;
	int fds[2];

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, become(GIVING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	while (give(fds[1], mem + 1, 100, SPLICE_F_NONBLOCK) == 100)
		given++;
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(ROOM, given);
}

/* As unlimited as the one that is written as 0. */
TEST_F(account, largest_limit)
{
	int fds[2];

	ASSERT_EQ(0, sysctl_write(SOFT_LIMIT, "18446744073709551615"));
	ASSERT_EQ(0, pipe_of(fds, RING));
	EXPECT_EQ(0, give_as(GIVING, fds[1], RING));
}

/* Offers far more than the pipe has room for, again and again. */
#define OFFER (4 * PMD)

static atomic_bool offered_enough;

static void *offer(void *arg)
{
	char *mem = map_mem(OFFER), buf[16 * PAGE];
	cpu_set_t all;
	int fds[2];

	memset(&all, 0xff, sizeof(all));
	if (!mem || sched_setaffinity(0, sizeof(all), &all) || pipe(fds))
		return "no memory, or no pipe";
	/* Single holes, which have to be looked at one by one. */
	mem[PMD - PAGE] = 1;
	while (!offered_enough)
		if (give(fds[1], mem, OFFER, 0) != sizeof(buf) ||
		    read_all(fds[0], buf, sizeof(buf)))
			return "no 16 pages";
	return NULL;
}

/* While they are detached only those count that the pipe has room for. */
TEST_F(account, reserves_what_fits)
{
	struct timespec start;
	int fds[2], small = 0;
	pthread_t thread;
	void *why;

	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, OFFER / PAGE));
	ASSERT_EQ(0, become(GIVING));
	ASSERT_EQ(0, pthread_create(&thread, NULL, offer, NULL));
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (elapsed_ms(&start) < 1000) {
		ASSERT_EQ(0, pipe(fds));
		small += fcntl(fds[0], F_GETPIPE_SZ) < 16 * (int)PAGE;
		close_both(fds);
	}
	offered_enough = true;
	ASSERT_EQ(0, pthread_join(thread, &why));
	EXPECT_EQ(NULL, why) TH_LOG("%s", (char *)why);
	EXPECT_EQ(0, small);
}

/* Holes take none: they go through at the limit, page by page or in PMDs. */
TEST_F(account, holes_do_not_count)
{
	char *mem = map_filled(ROOM * PAGE, MEM_4K, SEED);
	char *holes = map_mem(4 * PMD);
	int fds[2], i;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, become(GIVING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	/* A page table, so that the first two are not one hole of a PMD. */
	holes[PMD - PAGE] = 1;
	for (i = 0; i < 10; i++)
		ASSERT_EQ(PAGE, give(fds[1], holes, PAGE, SPLICE_F_NOCOPY));
	ASSERT_EQ(PMD, give(fds[1], holes + PMD, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(ROOM * PAGE, give(fds[1], mem, ROOM * PAGE, 0));
	ASSERT_EQ(PAGE, give(fds[1], holes, PAGE, SPLICE_F_NOCOPY));
	ASSERT_EQ(PMD, give(fds[1], holes + 2 * PMD, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(0, read_zeroes(fds[0], 10 * PAGE + PMD));
	ASSERT_EQ(0, read_pattern(fds[0], ROOM * PAGE, 0, SEED));
	ASSERT_EQ(0, read_zeroes(fds[0], PAGE + PMD));
}

/* Not for who may exceed the limit anyway. */
TEST_F(account, privileged)
{
	char *mem = map_filled(2 * LIMIT * PAGE, MEM_4K, SEED);
	int fds[2];

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, pipe_of(fds, 256));
	ASSERT_EQ(2 * LIMIT * PAGE,
		  give(fds[1], mem, 2 * LIMIT * PAGE, SPLICE_F_NOCOPY));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* Closed with all in it, pipe and buffers of one user who has gone before. */
TEST_F(account, closed_after_the_giver)
{
	int rfd = pipe_from(self->sv, GIVING, ROOM);

	ASSERT_LE(0, rfd);
	close(rfd);
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* The same, but taken. */
TEST_F(account, taken_after_the_giver)
{
	int rfd = pipe_from(self->sv, GIVING, 20);
	char *mem = map_mem(20 * PAGE);

	ASSERT_LE(0, rfd);
	ASSERT_EQ(20 * PAGE, take_all(rfd, mem, 20 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(mem, 20 * PAGE, 0, SEED));
	close(rfd);
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* It is the giver who pays, not the owner of the pipe; until it is taken. */
TEST_F(account, pipe_of_another_user)
{
	char *mem = map_mem(20 * PAGE);
	int fds[2];

	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(GIVING, fds[1], 20));
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	EXPECT_EQ(ROOM, account_room(OTHER));
	ASSERT_EQ(5 * PAGE, take_all(fds[0], mem, 5 * PAGE, 0));
	EXPECT_EQ(ROOM - 15, account_room(GIVING));
	ASSERT_EQ(15 * PAGE, take_all(fds[0], mem, 15 * PAGE, 0));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/*
 * Moved into a pipe of another user's: the giver pays on, the other user never
 * does, and neither gains or loses when that pipe is closed or read.
 */
TEST_F(account, spliced_to_another_user)
{
	int fds[2], other;
	pid_t pid;

	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(GIVING, fds[1], 20));
	pid = fork_user(OTHER);
	if (!pid) {
		int own[2];

		if (pipe_of(own, RING) || splice(fds[0], NULL, own[1], NULL,
						 20 * PAGE, 0) != 20 * PAGE)
			_exit(1);
		_exit(send_fds(self->sv[1], &own[0], 1, 0) ? 2 : 0);
	}
	ASSERT_EQ(0, reap(pid));
	other = receive_fd(self->sv[0]);
	ASSERT_LE(0, other);
	close(fds[0]);
	close(fds[1]);
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	ASSERT_EQ(0, read_pattern(other, 10 * PAGE, 0, SEED));
	EXPECT_EQ(ROOM - 10, account_room(GIVING));
	close(other);
	EXPECT_EQ(ROOM, account_room(GIVING));
	EXPECT_EQ(ROOM, account_room(OTHER));
}

/* The other way: into a pipe that the giver owns, and which goes with it all. */
TEST_F(account, spliced_from_another_user)
{
	int rfd = pipe_from(self->sv, GIVING, 10), wfd, fds[2];
	char path[64];

	ASSERT_LE(0, rfd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", rfd);
	wfd = open(path, O_WRONLY);
	ASSERT_LE(0, wfd);
	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(OTHER, fds[1], 20));
	ASSERT_EQ(20 * PAGE, splice(fds[0], NULL, wfd, NULL, 20 * PAGE, 0));
	EXPECT_EQ(ROOM - 20, account_room(OTHER));
	close(rfd);
	close(wfd);
	EXPECT_EQ(ROOM, account_room(OTHER));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* A duplicate does not count again, but counts on when the first is gone. */
TEST_F(account, teed)
{
	int from[2], fds[2];

	ASSERT_EQ(0, pipe_of(from, RING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(GIVING, from[1], 20));
	ASSERT_EQ(20 * PAGE, tee(from[0], fds[1], 20 * PAGE, 0));
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	close(from[0]);
	close(from[1]);
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	ASSERT_EQ(0, read_pattern(fds[0], 5 * PAGE, 0, SEED));
	EXPECT_EQ(ROOM - 15, account_room(GIVING));
	close(fds[0]);
	close(fds[1]);
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* A buffer that is read in part, or spliced on in part, counts until the end. */
TEST_F(account, in_parts)
{
	int from[2], fds[2];

	ASSERT_EQ(0, pipe_of(from, RING));
	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(GIVING, from[1], 20));
	ASSERT_EQ(10, splice(from[0], NULL, fds[1], NULL, 10, 0));
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	ASSERT_EQ(0, read_pattern(from[0], PAGE, 10, SEED));
	/* The first buffer's account is that of its beginning in the other. */
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	ASSERT_EQ(0, read_pattern(fds[0], 10, 0, SEED));
	EXPECT_EQ(ROOM - 19, account_room(GIVING));
	close(from[0]);
	close(from[1]);
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* A pipe is resized, larger and smaller, with such buffers in it. */
TEST_F(account, resized)
{
	int fds[2], slots;

	ASSERT_EQ(0, pipe(fds));
	for (slots = 32; slots <= 256; slots *= 2)
		ASSERT_EQ(slots * PAGE,
			  fcntl(fds[0], F_SETPIPE_SZ, slots * PAGE));
	ASSERT_EQ(0, give_as(GIVING, fds[1], 20));
	ASSERT_EQ(32 * PAGE, fcntl(fds[0], F_SETPIPE_SZ, 32 * PAGE));
	ASSERT_EQ(64 * PAGE, fcntl(fds[0], F_SETPIPE_SZ, 64 * PAGE));
	EXPECT_EQ(ROOM - 20, account_room(GIVING));
	ASSERT_EQ(0, read_pattern(fds[0], 20 * PAGE, 0, SEED));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* In a socket the pages are no longer in a pipe; nothing is lost with it. */
TEST_F(account, in_a_socket)
{
	int fds[2], sv[2];

	ASSERT_EQ(0, pipe_of(fds, RING));
	ASSERT_EQ(0, give_as(GIVING, fds[1], 20));
	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(20 * PAGE, splice_all(fds[0], NULL, sv[1], NULL, 20 * PAGE));
	EXPECT_EQ(0, read_pattern(sv[0], 20 * PAGE, 0, SEED));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* Killed with a full pipe, which nobody else has. */
TEST_F(account, killed)
{
	pid_t pid = fork_user(GIVING);
	int fds[2];

	if (!pid) {
		if (pipe_of(fds, RING) || give_as(GIVING, fds[1], ROOM))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(128 + SIGKILL, reap(pid));
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/* In a pipe that can no longer be reached, until that is found out. */
TEST_F(account, lost)
{
	struct timespec start;
	pid_t pid = fork_user(GIVING);
	int fds[2];

	if (!pid) {
		if (pipe_of(fds, RING) || give_as(GIVING, fds[1], ROOM))
			_exit(1);
		_exit(lose_fd(fds[0]) ? 2 : 0);
	}
	ASSERT_EQ(0, reap(pid));
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (account_room(GIVING) != ROOM && elapsed_ms(&start) < 20000)
		collect_lost();
	EXPECT_EQ(ROOM, account_room(GIVING));
}

/*
 * The resident sets are right when the call returns: less by what moved out,
 * more by what moved in.
 */
#define RSS_PAGES 1024L
#define RSS_LEN (RSS_PAGES * PAGE)

FIXTURE(resident)
{
	int fds[2];
	char *src;
	char *dst;
};

FIXTURE_VARIANT(resident)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(resident, small) { MEM_4K };
FIXTURE_VARIANT_ADD(resident, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(resident, folio_2m) { MEM_2M };
FIXTURE_VARIANT_ADD(resident, folio_2m_ptes) { MEM_2M_PTES };
/* clang-format on */

FIXTURE_SETUP(resident)
{
	if (mem_kind_set(variant->kind) || pipe_of(self->fds, RSS_PAGES)) {
		undo_now();
		SKIP(return, "needs root");
	}
	ASSERT_EQ(0, stay_on_cpu());
	self->src = map_filled(RSS_LEN, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	self->dst = map_mem(RSS_LEN);
	ASSERT_NE(NULL, self->dst);
	/* What the calls below want for themselves. */
	rss_pages();
}

FIXTURE_TEARDOWN(resident)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F(resident, moved)
{
	const long before = rss_pages();

	ASSERT_EQ(RSS_LEN,
		  give_all(self->fds[1], self->src, RSS_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(before - RSS_PAGES, rss_pages());
	ASSERT_EQ(RSS_LEN,
		  take_all(self->fds[0], self->dst, RSS_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(before, rss_pages());
	EXPECT_EQ(-1, pattern_check(self->dst, RSS_LEN, 0, SEED));
}

/* What was there before is no longer. */
TEST_F(resident, replaced)
{
	char *full = map_filled(RSS_LEN, MEM_4K, LATER_SEED);
	const long before = rss_pages();

	ASSERT_EQ(RSS_LEN,
		  give_all(self->fds[1], self->src, RSS_LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(RSS_LEN,
		  take_all(self->fds[0], full, RSS_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(before - RSS_PAGES, rss_pages());
	EXPECT_EQ(-1, pattern_check(full, RSS_LEN, 0, SEED));
}

/* A hole empties the destination. */
TEST_F(resident, emptied)
{
	const long before = rss_pages();

	ASSERT_EQ(RSS_LEN,
		  give_all(self->fds[1], self->dst, RSS_LEN, SPLICE_F_NOCOPY));
	ASSERT_EQ(RSS_LEN,
		  take_all(self->fds[0], self->src, RSS_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(before - RSS_PAGES, rss_pages());
	EXPECT_EQ(0, present_pages(self->src, RSS_LEN));
	EXPECT_EQ(-1, zero_check(self->src, RSS_LEN));
}

/* Over and over, at addresses of every alignment to folios: no drift. */
TEST_F(resident, no_drift)
{
	const long before = rss_pages();
	char *from = self->src, *to = self->dst;
	int i;

	for (i = 0; i < 20; i++) {
		char *was = from;

		ASSERT_EQ(RSS_LEN, give_all(self->fds[1], from, RSS_LEN, 0));
		ASSERT_EQ(RSS_LEN, take_all(self->fds[0], to, RSS_LEN, 0));
		ASSERT_EQ(-1, pattern_check(to, RSS_LEN, 0, SEED));
		ASSERT_EQ(0, madvise(from, RSS_LEN, MADV_DONTNEED));
		ASSERT_EQ(before, rss_pages());
		from = to;
		to = was;
	}
}

/*
 * Giver and taker in memory cgroups of their own.  In flight the giver's pays,
 * after the take the taker's, at last nobody.
 */
#define CHARGE_PAGES 8192L
#define CHARGE_LEN (CHARGE_PAGES * PAGE)
/* What processors keep of a charge in stock, and page tables. */
#define SLACK (CHARGE_LEN / 16)
/* There twice for a moment: what khugepaged has copied into huge pages. */
#define COLLAPSED (2 * PMD)

FIXTURE(charged)
{
	int fds[2];
	int giver_step[2];
	int taker_step[2];
	pid_t giver;
	pid_t taker;
};

FIXTURE_VARIANT(charged)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(charged, small) { MEM_4K };
FIXTURE_VARIANT_ADD(charged, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(charged, folio_2m) { MEM_2M };
FIXTURE_VARIANT_ADD(charged, folio_2m_ptes) { MEM_2M_PTES };
/* clang-format on */

/* Fill, tell; when told, give by moving and tell; when told, end. */
static pid_t spawn_giver(const char *group, int wfd, size_t len,
			 enum mem_kind kind, int step)
{
	pid_t pid = fork_in(group);
	char *mem;

	if (pid)
		return pid;
	mem = map_filled(len, kind, SEED);
	if (!mem || step_tell(step) || step_await(step))
		_exit(1);
	if (give_all(wfd, mem, len, SPLICE_F_NOCOPY) != (ssize_t)len)
		_exit(2);
	step_tell(step);
	step_await(step);
	_exit(0);
}

/* When told, take by moving, check and tell; when told, end. */
static pid_t spawn_taker(const char *group, int rfd, size_t len, int step)
{
	pid_t pid = fork_in(group);
	char *mem;

	if (pid)
		return pid;
	mem = map_mem(len);
	if (!mem || step_tell(step) || step_await(step))
		_exit(1);
	madvise(mem, len, MADV_HUGEPAGE);
	if (take_all(rfd, mem, len, SPLICE_F_NOCOPY) != (ssize_t)len)
		_exit(2);
	if (pattern_check(mem, len, 0, SEED) >= 0)
		_exit(3);
	step_tell(step);
	step_await(step);
	_exit(0);
}

FIXTURE_SETUP(charged)
{
	if (geteuid() || memcg_new(GIVER) || memcg_new(TAKER) ||
	    mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "no memory cgroups");
	}
	ASSERT_EQ(0, pipe_of(self->fds, CHARGE_PAGES));
	ASSERT_EQ(0, step_pair(self->giver_step));
	ASSERT_EQ(0, step_pair(self->taker_step));
	self->giver = spawn_giver(GIVER, self->fds[1], CHARGE_LEN,
				  variant->kind, self->giver_step[1]);
	/* A child that dies is to be noticed. */
	close(self->giver_step[1]);
	ASSERT_EQ(0, step_await(self->giver_step[0]));
}

FIXTURE_TEARDOWN(charged)
{
	EXPECT_EQ(0, undo_now());
}

/* Of what processes leave, RCU and batches of processors free some later. */
static long charge_left(const char *group)
{
	struct timespec start;
	long left;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		left = memcg_read(group, "memory.current");
		if (left <= SLACK || elapsed_ms(&start) > 20000)
			return left;
		usleep(20000);
	}
}

/* @is @want, but for what the kernel does meanwhile. */
static void expect_about(struct __test_metadata *_metadata, long want, long is)
{
	EXPECT_LE(want - SLACK - COLLAPSED, is);
	EXPECT_GE(want + SLACK + COLLAPSED, is);
}

static int next_step(int fd)
{
	return step_tell(fd) || step_await(fd);
}

TEST_F(charged, who_pays)
{
	long giver, taker;

	self->taker = spawn_taker(TAKER, self->fds[0], CHARGE_LEN,
				  self->taker_step[1]);
	close(self->taker_step[1]);
	ASSERT_EQ(0, step_await(self->taker_step[0]));
	giver = memcg_read(GIVER, "memory.current");
	taker = memcg_read(TAKER, "memory.current");
	ASSERT_LE(CHARGE_LEN, giver);

	ASSERT_EQ(0, next_step(self->giver_step[0]));
	expect_about(_metadata, giver, memcg_read(GIVER, "memory.current"));
	expect_about(_metadata, taker, memcg_read(TAKER, "memory.current"));
	EXPECT_GE(SLACK, memcg_stat(GIVER, "memory.stat", "anon"));

	ASSERT_EQ(0, next_step(self->taker_step[0]));
	expect_about(_metadata, giver - CHARGE_LEN,
		     memcg_read(GIVER, "memory.current"));
	expect_about(_metadata, taker + CHARGE_LEN,
		     memcg_read(TAKER, "memory.current"));
	/* Statistics may lag behind by what processors have batched. */
	EXPECT_LE(CHARGE_LEN - SLACK, memcg_stat(TAKER, "memory.stat", "anon"));

	ASSERT_EQ(0, step_tell(self->taker_step[0]));
	EXPECT_EQ(0, reap(self->taker));
	EXPECT_GE(SLACK, charge_left(TAKER));
}

/* It stays the giver's when the giver has gone, until the pipe has, too. */
TEST_F(charged, until_closed)
{
	ASSERT_EQ(0, next_step(self->giver_step[0]));
	ASSERT_EQ(0, step_tell(self->giver_step[0]));
	ASSERT_EQ(0, reap(self->giver));
	expect_about(_metadata, CHARGE_LEN,
		     memcg_read(GIVER, "memory.current"));
	ASSERT_EQ(0, read_pattern(self->fds[0], CHARGE_LEN / 2, 0, SEED));
	expect_about(_metadata, CHARGE_LEN / 2,
		     memcg_read(GIVER, "memory.current"));
	close(self->fds[0]);
	close(self->fds[1]);
	EXPECT_GE(SLACK, charge_left(GIVER));
}

/* Taken by the giver's own cgroup: nothing changes. */
TEST_F(charged, same_group)
{
	long before;

	self->taker = spawn_taker(GIVER, self->fds[0], CHARGE_LEN,
				  self->taker_step[1]);
	close(self->taker_step[1]);
	ASSERT_EQ(0, step_await(self->taker_step[0]));
	before = memcg_read(GIVER, "memory.current");
	ASSERT_EQ(0, next_step(self->giver_step[0]));
	ASSERT_EQ(0, next_step(self->taker_step[0]));
	expect_about(_metadata, before, memcg_read(GIVER, "memory.current"));
	ASSERT_EQ(0, step_tell(self->taker_step[0]));
	EXPECT_EQ(0, reap(self->taker));
	expect_about(_metadata, before - CHARGE_LEN,
		     memcg_read(GIVER, "memory.current"));
}

/* What a taker that may not have it all reports, for its parent. */
struct limited {
	ssize_t first;
	int err;
	int queued;
};

/* Take until it is refused, then leave room for whatever else a process does. */
static ssize_t take_until_refused(int rfd, char *mem, struct limited *got)
{
	const size_t spare = 64 * PAGE;
	char *reserve = map_filled(spare, MEM_4K, SEED);
	ssize_t n = 0;

	while (n >= 0 && got->first < CHARGE_LEN) {
		n = take(rfd, mem + got->first, CHARGE_LEN - got->first,
			 SPLICE_F_NOCOPY);
		if (n > 0)
			got->first += n;
	}
	got->err = n < 0 ? errno : 0;
	got->queued = bytes_queued(rfd);
	munmap(reserve, spare);
	return pattern_check(mem, got->first, 0, SEED);
}

/* Take what is allowed; once told that all is, the rest. */
static pid_t spawn_limited(int rfd, int step, struct limited *got)
{
	pid_t pid = fork_in(TAKER);
	ssize_t n;
	char *mem;

	if (pid)
		return pid;
	mem = map_mem(CHARGE_LEN);
	if (!mem)
		_exit(1);
	madvise(mem, CHARGE_LEN, MADV_HUGEPAGE);
	if (take_until_refused(rfd, mem, got) >= 0)
		_exit(2);
	if (step_tell(step) || step_await(step))
		_exit(3);
	n = CHARGE_LEN - got->first;
	if (take_all(rfd, mem + got->first, n, SPLICE_F_NOCOPY) != n)
		_exit(4);
	_exit(pattern_check(mem, CHARGE_LEN, 0, SEED) >= 0 ? 5 : 0);
}

/*
 * A full cgroup ends the take: ENOMEM, nothing lost, nobody killed; the rest
 * can be taken when there is room.
 */
TEST_F(charged, limit_of_the_taker)
{
	struct limited *got = mmap(NULL, sizeof(*got), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_EQ(0, next_step(self->giver_step[0]));
	memcg_write(TAKER, "memory.swap.max", "0");
	ASSERT_EQ(0, memcg_write(TAKER, "memory.max", "12M"));
	self->taker = spawn_limited(self->fds[0], self->taker_step[1], got);
	close(self->taker_step[1]);
	ASSERT_EQ(0, step_await(self->taker_step[0]));
	EXPECT_EQ(ENOMEM, got->err);
	EXPECT_LE(PMD, got->first);
	EXPECT_GE(12 * 256 * PAGE, got->first);
	EXPECT_EQ(CHARGE_LEN - got->first, got->queued);
	EXPECT_EQ(0, memcg_stat(TAKER, "memory.events", "oom_kill"));
	ASSERT_EQ(0, memcg_write(TAKER, "memory.max", "max"));
	ASSERT_EQ(0, step_tell(self->taker_step[0]));
	EXPECT_EQ(0, reap(self->taker));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/* A folio that does not fit leaves what is at its destination as it is. */
TEST_F(charged, full_destination)
{
	char limit[32];
	pid_t pid;

	/* Of smaller ones some fit. */
	if (variant->kind < MEM_2M)
		return;
	ASSERT_EQ(0, next_step(self->giver_step[0]));
	memcg_write(TAKER, "memory.swap.max", "0");
	pid = fork_in(TAKER);
	if (!pid) {
		const int step = self->taker_step[1];
		char *mem = map_filled(PMD, MEM_4K, LATER_SEED);

		if (!mem || step_tell(step) || step_await(step))
			_exit(1);
		if (take(self->fds[0], mem, PMD, 0) != -1 || errno != ENOMEM)
			_exit(2);
		_exit(pattern_check(mem, PMD, 0, LATER_SEED) >= 0 ? 3 : 0);
	}
	ASSERT_EQ(0, step_await(self->taker_step[0]));
	snprintf(limit, sizeof(limit), "%ld",
		 memcg_read(TAKER, "memory.current") + 64 * PAGE);
	ASSERT_EQ(0, memcg_write(TAKER, "memory.max", limit));
	ASSERT_EQ(0, step_tell(self->taker_step[0]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(CHARGE_LEN, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, memcg_stat(TAKER, "memory.events", "oom_kill"));
}

/*
 * The pages in flight of the whole machine: each folio once, from the give to
 * its end, whatever that is.
 */
#define FLIGHT_PAGES 512L
#define FLIGHT_LEN (FLIGHT_PAGES * PAGE)

FIXTURE(in_flight)
{
	int fds[2];
	char *src;
	char *dst;
	long before;
};

FIXTURE_VARIANT(in_flight)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(in_flight, small) { MEM_4K };
FIXTURE_VARIANT_ADD(in_flight, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(in_flight, folio_2m) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(in_flight)
{
	if (geteuid() || mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "needs root");
	}
	self->before = flip_in_flight(0, 1000);
	ASSERT_LE(0, self->before);
	ASSERT_EQ(0, stay_on_cpu());
	self->src = map_filled(FLIGHT_LEN, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	self->dst = map_mem(FLIGHT_LEN);
	ASSERT_NE(NULL, self->dst);
	ASSERT_EQ(0, pipe_of(self->fds, FLIGHT_PAGES));
}

FIXTURE_TEARDOWN(in_flight)
{
	EXPECT_EQ(self->before, vmstat_get("nr_flip_pages"));
	EXPECT_EQ(0, undo_now());
}

static long in_flight(long before)
{
	return vmstat_get("nr_flip_pages") - before;
}

static bool give_everything(int wfd, char *mem)
{
	return give_all(wfd, mem, FLIGHT_LEN, SPLICE_F_NOCOPY) == FLIGHT_LEN;
}

/* Less with each byte range that leaves the pipe, whichever way. */
TEST_F(in_flight, shown)
{
	const long folio = mem_kind_size(variant->kind);
	long left = FLIGHT_PAGES;

	EXPECT_EQ(self->before, meminfo_get("PageFlip"));
	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	EXPECT_EQ(left, in_flight(self->before));
	EXPECT_EQ(left, meminfo_get("PageFlip") - self->before);
	if (folio < FLIGHT_LEN) {
		ASSERT_EQ(folio, take(self->fds[0], self->dst, folio,
				      SPLICE_F_NOCOPY));
		left -= folio / PAGE;
		EXPECT_EQ(left, in_flight(self->before));
		ASSERT_EQ(0, read_pattern(self->fds[0], folio, folio, SEED));
		left -= folio / PAGE;
		EXPECT_EQ(left, in_flight(self->before));
	}
	/* Part of a folio is left: all of it is in flight. */
	ASSERT_EQ(0, read_pattern(self->fds[0], 1, (FLIGHT_PAGES - left) * PAGE,
				  SEED));
	EXPECT_EQ(left, in_flight(self->before));
	ASSERT_EQ(left * PAGE - 1,
		  take_all(self->fds[0], self->dst, left * PAGE - 1, 0));
	EXPECT_EQ(0, in_flight(self->before));
}

/* Holes are nothing, and copies are what they are copied to. */
TEST_F(in_flight, holes_and_copies)
{
	ASSERT_TRUE(give_everything(self->fds[1], self->dst));
	EXPECT_EQ(0, in_flight(self->before));
	ASSERT_EQ(0, read_zeroes(self->fds[0], FLIGHT_LEN));
	ASSERT_EQ(100, give(self->fds[1], self->src + 1, 100, 0));
	EXPECT_EQ(1, in_flight(self->before));
	ASSERT_EQ(0, read_pattern(self->fds[0], 100, 1, SEED));
}

/* Once, however many pipes have it. */
TEST_F(in_flight, teed)
{
	int b[2], c[2];

	ASSERT_EQ(0, pipe_of(b, FLIGHT_PAGES));
	ASSERT_EQ(0, pipe_of(c, FLIGHT_PAGES));
	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	ASSERT_EQ(FLIGHT_LEN, tee(self->fds[0], b[1], FLIGHT_LEN, 0));
	ASSERT_EQ(FLIGHT_LEN, tee(b[0], c[1], FLIGHT_LEN, 0));
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	ASSERT_EQ(0, read_pattern(self->fds[0], FLIGHT_LEN, 0, SEED));
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	close_both(c);
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	ASSERT_EQ(FLIGHT_LEN,
		  take_all(b[0], self->dst, FLIGHT_LEN, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, in_flight(self->before));
}

/* With the last end of the pipe it goes. */
TEST_F(in_flight, closed)
{
	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	close(self->fds[1]);
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	close(self->fds[0]);
	EXPECT_EQ(0, in_flight(self->before));
}

/* The ends of a pipe in several processes: it goes with the last of them. */
TEST_F(in_flight, forked)
{
	pid_t pids[4];
	int step[2], i;

	ASSERT_EQ(0, step_pair(step));
	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	for (i = 0; i < 4; i++) {
		pids[i] = fork_child();
		if (!pids[i])
			_exit(step_await(step[1]) ? 1 : 0);
	}
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	close_both(self->fds);
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	for (i = 0; i < 4; i++)
		step_tell(step[0]);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, reap(pids[i]));
	EXPECT_EQ(0, in_flight(self->before));
}

/* exec() closes it. */
TEST_F(in_flight, exec)
{
	pid_t pid = fork_child();
	int fds[2];

	if (!pid) {
		char *mem = map_filled(FLIGHT_LEN, variant->kind, SEED);

		close_both(self->fds);
		if (!mem || pipe_of(fds, FLIGHT_PAGES) ||
		    fcntl(fds[0], F_SETFD, FD_CLOEXEC) ||
		    fcntl(fds[1], F_SETFD, FD_CLOEXEC) ||
		    !give_everything(fds[1], mem))
			_exit(1);
		execl("/bin/true", "true", NULL);
		_exit(2);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, in_flight(self->before));
}

/* Give all of two areas and wait, if there was no need to wait for room. */
static void give_twice(int fds[2], enum mem_kind kind)
{
	char *mem = map_filled(FLIGHT_LEN, kind, SEED);
	char *more = map_filled(FLIGHT_LEN, kind, SEED);

	if (!mem || !more || stay_on_cpu() || !give_everything(fds[1], mem))
		_exit(1);
	close(fds[0]);
	give_all(fds[1], more, FLIGHT_LEN, 0);
	pause();
	_exit(2);
}

/* The giver is killed while it sleeps, then the taker's side goes. */
TEST_F(in_flight, giver_killed)
{
	struct timespec start;
	pid_t pid = fork_child();

	if (!pid)
		give_twice(self->fds, variant->kind);
	close(self->fds[1]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (in_flight(self->before) < FLIGHT_PAGES)
		ASSERT_GT(60000, elapsed_ms(&start));
	usleep(50000);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(pid));
	EXPECT_LE(FLIGHT_PAGES, in_flight(self->before));
	EXPECT_EQ(0, read_pattern(self->fds[0], FLIGHT_LEN, 0, SEED));
	close(self->fds[0]);
	EXPECT_EQ(0, in_flight(self->before));
}

/* The taker is killed in the middle: what it has goes with it. */
TEST_F(in_flight, taker_killed)
{
	pid_t pid = fork_child();

	if (!pid) {
		close(self->fds[1]);
		take(self->fds[0], self->dst, FLIGHT_LEN, 0);
		kill(getpid(), SIGKILL);
	}
	ASSERT_EQ(FLIGHT_LEN / 2,
		  give(self->fds[1], self->src, FLIGHT_LEN / 2, 0));
	EXPECT_EQ(128 + SIGKILL, reap(pid));
	close_both(self->fds);
	EXPECT_EQ(0, in_flight(self->before));
}

/* Found by the collector of sockets that cannot be reached. */
TEST_F(in_flight, lost)
{
	struct timespec start;

	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	close(self->fds[1]);
	ASSERT_EQ(0, lose_fd(self->fds[0]));
	close(self->fds[0]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (in_flight(self->before) && elapsed_ms(&start) < 20000)
		collect_lost();
	EXPECT_EQ(0, in_flight(self->before));
}

/* By way of another pipe, a file and a socket. */
TEST_F(in_flight, spliced)
{
	int b[2], sv[2], file = backing_file(BACKING_MEMFD);
	const long third = FLIGHT_LEN / 4;

	ASSERT_EQ(0, pipe_of(b, FLIGHT_PAGES));
	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_TRUE(give_everything(self->fds[1], self->src));
	ASSERT_EQ(FLIGHT_LEN,
		  splice(self->fds[0], NULL, b[1], NULL, FLIGHT_LEN, 0));
	EXPECT_EQ(FLIGHT_PAGES, in_flight(self->before));
	ASSERT_EQ(third, splice_all(b[0], NULL, file, NULL, third));
	ASSERT_EQ(10 * PAGE, splice_all(b[0], NULL, sv[1], NULL, 10 * PAGE));
	EXPECT_EQ(0, pread_pattern(file, 0, third, 0, SEED));
	EXPECT_EQ(0, read_pattern(sv[0], 10 * PAGE, third, SEED));
	EXPECT_LT(0, in_flight(self->before));
	close_both(b);
	EXPECT_EQ(0, in_flight(self->before));
}

/*
 * A cgroup that is removed while pages of its are in flight does not linger for
 * them, and whoever gets them is charged as ever.
 */
FIXTURE(orphaned)
{
	int fds[2];
	int step[2];
	long dying;
};

FIXTURE_VARIANT(orphaned)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(orphaned, small) { MEM_4K };
FIXTURE_VARIANT_ADD(orphaned, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(orphaned, folio_2m) { MEM_2M };
/* clang-format on */

static long dying_cgroups(void)
{
	return number_in("/sys/fs/cgroup/cgroup.stat",
			 "nr_dying_subsys_memory");
}

FIXTURE_SETUP(orphaned)
{
	pid_t pid;

	self->dying = dying_cgroups();
	if (geteuid() || self->dying < 0 || memcg_new(GIVER) ||
	    memcg_new(TAKER) || mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "no memory cgroups");
	}
	ASSERT_EQ(0, pipe_of(self->fds, CHARGE_PAGES));
	ASSERT_EQ(0, step_pair(self->step));
	pid = spawn_giver(GIVER, self->fds[1], CHARGE_LEN, variant->kind,
			  self->step[1]);
	ASSERT_EQ(0, step_await(self->step[0]));
	ASSERT_EQ(0, next_step(self->step[0]));
	ASSERT_EQ(0, step_tell(self->step[0]));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, memcg_remove(GIVER));
}

/* Freed in the background. */
static bool none_dies(long before)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (dying_cgroups() > before) {
		if (elapsed_ms(&start) > 20000)
			return false;
		usleep(20000);
	}
	return true;
}

FIXTURE_TEARDOWN(orphaned)
{
	EXPECT_EQ(0, undo_now());
	EXPECT_TRUE(none_dies(self->dying));
}

TEST_F(orphaned, does_not_linger)
{
	EXPECT_TRUE(none_dies(self->dying));
	EXPECT_EQ(0, read_pattern(self->fds[0], CHARGE_LEN, 0, SEED));
}

TEST_F(orphaned, taken)
{
	pid_t pid = spawn_taker(TAKER, self->fds[0], CHARGE_LEN, self->step[1]);

	ASSERT_EQ(0, step_await(self->step[0]));
	ASSERT_EQ(0, next_step(self->step[0]));
	EXPECT_LE(CHARGE_LEN, memcg_read(TAKER, "memory.current"));
	ASSERT_EQ(0, step_tell(self->step[0]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_GE(SLACK, charge_left(TAKER));
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
}

TEST_F(orphaned, closed)
{
	close_both(self->fds);
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
}

/* No page is lost between the counters of the machine. */
FIXTURE(conserved)
{
	int fds[2];
	char *src;
	char *dst;
};

FIXTURE_VARIANT(conserved)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(conserved, small) { MEM_4K };
FIXTURE_VARIANT_ADD(conserved, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(conserved, folio_2m) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(conserved)
{
	if (geteuid() || mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "needs root");
	}
	ASSERT_EQ(0, stay_on_cpu());
	self->src = map_filled(CHARGE_LEN, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	self->dst = map_mem(CHARGE_LEN);
	ASSERT_NE(NULL, self->dst);
	madvise(self->dst, CHARGE_LEN, MADV_HUGEPAGE);
	ASSERT_EQ(0, pipe_of(self->fds, CHARGE_PAGES));
}

FIXTURE_TEARDOWN(conserved)
{
	EXPECT_EQ(0, undo_now());
}

/* What else the machine does in the meantime, in pages. */
#define NOISE 512L

static void expect_change(struct __test_metadata *_metadata, const char *name,
			  long before, long want)
{
	const long change = meminfo_get(name) - before;

	EXPECT_LE(want - NOISE, change) TH_LOG("%s", name);
	EXPECT_GE(want + NOISE, change) TH_LOG("%s", name);
}

TEST_F(conserved, give_and_take)
{
	const long anon = meminfo_get("AnonPages");
	const long flip = meminfo_get("PageFlip");

	ASSERT_EQ(CHARGE_LEN, give_all(self->fds[1], self->src, CHARGE_LEN,
				       SPLICE_F_NOCOPY));
	expect_change(_metadata, "AnonPages", anon, -CHARGE_PAGES);
	EXPECT_EQ(flip + CHARGE_PAGES, meminfo_get("PageFlip"));
	ASSERT_EQ(CHARGE_LEN, take_all(self->fds[0], self->dst, CHARGE_LEN,
				       SPLICE_F_NOCOPY));
	expect_change(_metadata, "AnonPages", anon, 0);
	EXPECT_EQ(flip, meminfo_get("PageFlip"));
	unmap_mem(self->dst, CHARGE_LEN);
	expect_change(_metadata, "AnonPages", anon, -CHARGE_PAGES);
}

/*
 * Over and over, with one half taken and the other closed with the pipe: what
 * was lost each time would be more than processors keep of free pages.
 */
TEST_F(conserved, free)
{
	const long free = meminfo_get("MemFree");
	int i;

	for (i = 0; i < 8; i++) {
		const ssize_t half = CHARGE_LEN / 2;
		int fds[2];

		ASSERT_EQ(0, pipe_of(fds, CHARGE_PAGES));
		pattern_fill(self->src, CHARGE_LEN, 0, SEED);
		ASSERT_EQ(CHARGE_LEN,
			  give_all(fds[1], self->src, CHARGE_LEN, 0));
		ASSERT_EQ(half, take_all(fds[0], self->dst, half, 0));
		ASSERT_EQ(0, madvise(self->dst, CHARGE_LEN, MADV_DONTNEED));
		close_both(fds);
	}
	EXPECT_LT(free - CHARGE_PAGES, meminfo_get("MemFree"));
}

/* Huge pages alone: AnonHugePages goes and comes as well. */
TEST_F(conserved, huge)
{
	const long huge = meminfo_get("AnonHugePages");

	if (variant->kind != MEM_2M)
		return;
	ASSERT_EQ(CHARGE_LEN, give_all(self->fds[1], self->src, CHARGE_LEN,
				       SPLICE_F_NOCOPY));
	expect_change(_metadata, "AnonHugePages", huge, -CHARGE_PAGES);
	ASSERT_EQ(CHARGE_LEN, take_all(self->fds[0], self->dst, CHARGE_LEN,
				       SPLICE_F_NOCOPY));
	expect_change(_metadata, "AnonHugePages", huge, 0);
	EXPECT_EQ(CHARGE_LEN, huge_bytes(self->dst, CHARGE_LEN));
}

/*
 * Huge pages go back and forth between two cgroups while both are reclaimed and
 * the shrinker splits those that are partly mapped, or mostly zeroes.
 */
#define SHRUNK_LEN (8 * PMD)
#define MAX_NONE "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none"

FIXTURE(shrunk)
{
	int there[2];
	int back[2];
	pid_t reclaimer;
};

FIXTURE_SETUP(shrunk)
{
	static const char *const keep[] = { MAX_NONE };

	if (geteuid() || memcg_new(GIVER) || memcg_new(TAKER) ||
	    sysctl_keep(keep, 1)) {
		undo_now();
		SKIP(return, "no memory cgroups, or no huge pages");
	}
	/* Below 511, mostly empty huge pages are split under pressure. */
	ASSERT_EQ(0, sysctl_set(MAX_NONE, 64));
	if (swap_available(BACKING_EXT4))
		ASSERT_EQ(0, swap_space(BACKING_EXT4, 2 * SHRUNK_LEN));
	ASSERT_EQ(0, pipe_of(self->there, SHRUNK_LEN / PAGE));
	ASSERT_EQ(0, pipe_of(self->back, SHRUNK_LEN / PAGE));
}

FIXTURE_TEARDOWN(shrunk)
{
	EXPECT_EQ(0, undo_now());
}

static void reclaim_for_ever(void)
{
	for (;;) {
		sysctl_set("/proc/sys/vm/drop_caches", 2);
		memcg_write(GIVER, "memory.reclaim", "2M swappiness=max");
		memcg_write(TAKER, "memory.reclaim", "2M swappiness=max");
	}
}

/* Some of each huge page is there, and another page discarded. */
static void fill_sparsely(char *mem, int round)
{
	size_t off;

	for (off = 0; off < SHRUNK_LEN; off += PMD) {
		madvise(mem + off, PMD, MADV_HUGEPAGE);
		pattern_fill(mem + off, 8 * PAGE, off, SEED + round);
		if (off & PMD)
			madvise(mem + off + 9 * PAGE, PAGE, MADV_DONTNEED);
	}
}

static bool sparse_is_right(const char *mem, int round)
{
	size_t off;

	for (off = 0; off < SHRUNK_LEN; off += PMD)
		if (pattern_check(mem + off, 8 * PAGE, off, SEED + round) >=
			    0 ||
		    zero_check(mem + off + 8 * PAGE, PMD - 8 * PAGE) >= 0)
			return false;
	return true;
}

/* The other cgroup: take it all, and give it back by moving what can be. */
static void give_back(int rfd, int wfd)
{
	char *mem = map_mem(SHRUNK_LEN);

	if (!mem || memcg_enter(TAKER))
		_exit(1);
	madvise(mem, SHRUNK_LEN, MADV_HUGEPAGE);
	while (take_all(rfd, mem, SHRUNK_LEN, 0) == SHRUNK_LEN)
		if (give_all(wfd, mem, SHRUNK_LEN, 0) != SHRUNK_LEN)
			_exit(2);
	_exit(0);
}

TEST_F(shrunk, back_and_forth)
{
	char *mem = map_mem(SHRUNK_LEN);
	struct timespec start;
	pid_t other;
	int round;

	self->reclaimer = fork_child();
	if (!self->reclaimer) {
		close_both(self->there);
		close_both(self->back);
		reclaim_for_ever();
	}
	other = fork_child();
	if (!other) {
		close(self->there[1]);
		give_back(self->there[0], self->back[1]);
	}
	ASSERT_EQ(0, memcg_enter(GIVER));
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (round = 0; round < 5 || elapsed_ms(&start) < 2000; round++) {
		fill_sparsely(mem, round);
		ASSERT_EQ(SHRUNK_LEN,
			  give_all(self->there[1], mem, SHRUNK_LEN, 0));
		ASSERT_EQ(SHRUNK_LEN,
			  take_all(self->back[0], mem, SHRUNK_LEN, 0));
		ASSERT_TRUE(sparse_is_right(mem, round));
		ASSERT_EQ(0, madvise(mem, SHRUNK_LEN, MADV_DONTNEED));
	}
	close_both(self->there);
	EXPECT_EQ(0, reap(other));
	kill(self->reclaimer, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(self->reclaimer));
	EXPECT_EQ(0, vmstat_get("nr_flip_pages"));
	unmap_mem(mem, SHRUNK_LEN);
	EXPECT_GE(SLACK, charge_left(TAKER));
}

/* To a disk: a page cache would need that much, too. */
#define FILLED_LEN (16 * PMD)

static int write_holes(void)
{
	int fds[2], file = backing_file(BACKING_EXT4);
	char *mem = map_mem(FILLED_LEN);
	loff_t off = 0;

	file = reopen(file, O_WRONLY | O_DIRECT);
	if (file < 0 || !mem || pipe_of(fds, 16) ||
	    give(fds[1], mem, FILLED_LEN, SPLICE_F_NOCOPY) != FILLED_LEN)
		return 1;
	return splice_all(fds[0], NULL, file, &off, FILLED_LEN) != FILLED_LEN;
}

/* What cost the giver nothing does not cost who writes it all of it at once. */
TEST(filled_in_turn)
{
	pid_t pid;

	if (geteuid() || !backing_available(BACKING_EXT4) || memcg_new(TAKER))
		SKIP(return, "needs root, ext4, and memory cgroups");
	pid = fork_in(TAKER);
	if (!pid)
		_exit(write_holes());
	EXPECT_EQ(0, reap(pid));
	TH_LOG("%ld pages at most", memcg_read(TAKER, "memory.peak") / PAGE);
	EXPECT_GT(PMD, memcg_read(TAKER, "memory.peak"));
	EXPECT_EQ(0, undo_now());
}

FLIP_HARNESS_MAIN
