// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an ordinary user tries with pipes to harm others: each test is an attack
 * that has to fail.  All of them are done by users without any capability; root
 * only prepares the machine and looks at the result.
 *
 * attack				tests
 * a taker's thread that stores to the
 *   destination all the while		stale
 * what freed pages held, or what is
 *   beside what was given		secrets, nothing
 * a child of a fork, a crypto socket
 *   with part of a buffer, MADV_FREE	retained
 * more pages in pipes than the limits
 *   of users allow			limits, others_hole
 * more than the memory cgroup allows	parked, in_sockets
 * somebody who waits for a pipe, and
 *   cannot be killed			waiting, faulting, not_asked; held_up:
 *					no longer than by read() and write()
 * lines in the kernel log		log, fuse_log
 *
 * More attacks by ordinary users are in page_flip_attack_test.c; what is counted
 * for whom, in page_flip_account_test.c.
 *
 * SPLICE_ATTACK_SECONDS	a measure of how long tests last that go on for a
 *				while (default 1)
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_alg.h>
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse_file.h"
#include "page_flip_util.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* The giver's data, what it writes later, and what the taker writes. */
#define SEED 0x5b11ce
#define LATER_SEED 0x0dd
#define TAKER_SEED 0x7a4e

/* The users that take part, none of them root. */
#define MALLORY 1000
#define ACCOMPLICE 1001
#define VICTIM 1002

/* How long a process that was killed may take to die, in milliseconds. */
#define DEATH_MS 2000

static long seconds(void)
{
	const char *text = getenv("SPLICE_ATTACK_SECONDS");

	return text && atol(text) > 0 ? atol(text) : 1;
}

/* Without capabilities, and with no way to get one. */
static bool is_ordinary(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct caps[2];

	if (!getuid() || !geteuid() || syscall(SYS_capget, &head, caps))
		return false;
	return !(caps[0].permitted | caps[1].permitted | caps[0].effective |
		 caps[1].effective);
}

static int become_ordinary(uid_t uid)
{
	return become(uid) || !is_ordinary() ? -1 : 0;
}

static pid_t fork_user(uid_t uid)
{
	pid_t pid = fork_child();

	if (pid)
		return pid;
	if (become_ordinary(uid))
		_exit(254);
	/* A change of credentials forgets it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

/* As reap(), but -1 if it does not end in time. */
static int reap_within(pid_t pid, long ms)
{
	struct timespec start;
	siginfo_t info;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		info.si_pid = 0;
		if (waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT))
			return -1;
		if (info.si_pid)
			return reap(pid);
		usleep(1000);
	} while (elapsed_ms(&start) < ms);
	return -1;
}

/* 0: it died of it in time. */
static int kill_within(pid_t pid, long ms)
{
	kill(pid, SIGKILL);
	return reap_within(pid, ms) == 128 + SIGKILL ? 0 : -1;
}

static void close_both(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

/* Give and take in turns until @len bytes went over. */
static int flip_over(int fds[2], void *from, void *to, ssize_t len)
{
	ssize_t done = 0;

	while (done < len) {
		ssize_t n = give(fds[1], (char *)from + done, len - done, 0);

		if (n <= 0 || take_all(fds[0], (char *)to + done, n, 0) != n)
			return -1;
		done += n;
	}
	return 0;
}

/*
 * A thread of the taker's stores to the destination in a loop, without any
 * system call, while pages there are replaced.  What it stores after the take
 * has returned is in the taker's memory; by an old translation it would be in a
 * page that was freed, and might be somebody else's by then, who looks out for
 * that.
 */
#define STORED_LEN PMD

struct storing {
	uint64_t *mem;
	size_t words;
	atomic_bool stop;
	/* How often all of it was stored to; the words say in which round. */
	atomic_uint rounds;
};

static void *store_on(void *arg)
{
	struct storing *s = arg;
	uint64_t round;
	size_t i;

	/* At the same time, with other translations, where there are two. */
	leave_cpu();
	while (!s->stop) {
		round = s->rounds + 1;
		for (i = 0; i < s->words; i++)
			__atomic_store_n(s->mem + i, round << 32 | i,
					 __ATOMIC_RELAXED);
		s->rounds = round;
	}
	return NULL;
}

/* A round that begins after this call has ended when it returns. */
static unsigned int await_round(struct storing *s)
{
	const unsigned int seen = s->rounds;

	while (s->rounds < seen + 2)
		usleep(100);
	return seen + 2;
}

static size_t lost_stores(const struct storing *s, unsigned int round)
{
	size_t i, lost = 0;

	for (i = 0; i < s->words; i++) {
		const uint64_t word =
			__atomic_load_n(s->mem + i, __ATOMIC_RELAXED);

		lost += word >> 32 < round || (uint32_t)word != i;
	}
	return lost;
}

/*
 * Another user gets freed pages: zeroes at first, its own data from then on.
 * Until the other end of @step is closed.
 */
static void use_freed_pages(int step)
{
	char *mem, c;

	while (recv(step, &c, 1, MSG_DONTWAIT) < 0) {
		mem = map_mem(PMD);
		if (!mem || zero_check(mem, PMD) >= 0)
			_exit(1);
		pattern_fill(mem, PMD, 0, LATER_SEED);
		if (pattern_check(mem, PMD, 0, LATER_SEED) >= 0)
			_exit(2);
		unmap_mem(mem, PMD);
	}
	_exit(0);
}

FIXTURE(stale)
{
	int fds[2];
	char *src;
	struct storing storing;
	pthread_t thread;
	int step[2];
	pid_t victim;
};

FIXTURE_VARIANT(stale)
{
	enum mem_kind kind;
	bool hole;
	/* The destination is of huge pages each time. */
	bool over_huge;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(stale, small) { MEM_4K, false, false };
FIXTURE_VARIANT_ADD(stale, small_over_2m) { MEM_4K, false, true };
FIXTURE_VARIANT_ADD(stale, folio_64k) { MEM_64K, false, false };
FIXTURE_VARIANT_ADD(stale, folio_2m) { MEM_2M, false, false };
FIXTURE_VARIANT_ADD(stale, folio_2m_over_2m) { MEM_2M, false, true };
FIXTURE_VARIANT_ADD(stale, folio_2m_ptes_over_2m) { MEM_2M_PTES, false, true };
FIXTURE_VARIANT_ADD(stale, hole) { MEM_4K, true, false };
FIXTURE_VARIANT_ADD(stale, hole_over_2m) { MEM_2M, true, true };
/* clang-format on */

FIXTURE_SETUP(stale)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	ASSERT_EQ(0, pipe_of(self->fds, STORED_LEN / PAGE));
	ASSERT_EQ(0, step_pair(self->step));
	self->victim = fork_user(VICTIM);
	if (!self->victim) {
		close(self->step[0]);
		use_freed_pages(self->step[1]);
	}
	ASSERT_EQ(0, become_ordinary(MALLORY));
	self->src = map_mem(STORED_LEN);
	ASSERT_NE(NULL, self->src);
	self->storing.mem = (void *)map_mem(STORED_LEN);
	ASSERT_NE(NULL, self->storing.mem);
	self->storing.words = STORED_LEN / 8;
}

FIXTURE_TEARDOWN(stale)
{
	EXPECT_EQ(0, undo_now());
}

/* As before each take; the thread brings the pages in. */
static void empty_destination(struct storing *s, bool huge)
{
	madvise(s->mem, STORED_LEN, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	madvise(s->mem, STORED_LEN, MADV_DONTNEED);
	await_round(s);
}

static int fill_source(char *src, enum mem_kind kind, bool hole)
{
	if (!hole)
		return mem_fill(src, STORED_LEN, kind, SEED);
	/* One page, so that a hole is one of pages. */
	if (kind == MEM_4K)
		src[PAGE] = 1;
	return kind == MEM_4K ? madvise(src, STORED_LEN, MADV_DONTNEED) : 0;
}

TEST_F(stale, stores_arrive)
{
	struct storing *s = &self->storing;
	struct timespec start;
	int i;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, store_on, s));
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < 2 || elapsed_ms(&start) < 200 * seconds(); i++) {
		ASSERT_EQ(0,
			  fill_source(self->src, variant->kind, variant->hole));
		empty_destination(s, variant->over_huge);
		ASSERT_EQ(STORED_LEN,
			  give_all(self->fds[1], self->src, STORED_LEN, 0));
		ASSERT_EQ(STORED_LEN,
			  take_all(self->fds[0], s->mem, STORED_LEN, 0));
		ASSERT_EQ(0UL, lost_stores(s, await_round(s)));
	}
	s->stop = true;
	ASSERT_EQ(0, pthread_join(self->thread, NULL));
	close(self->step[0]);
	EXPECT_EQ(0, reap(self->victim));
}

/*
 * Somebody else's secrets were in pages that are free now, on this processor,
 * so that they are the next ones to be used.  None of it comes out of a pipe,
 * and memory beside what was delivered stays what it was.
 */
#define SECRET 0x5e
#define SECRETS_LEN (16 * MIB)

/* A process that had secrets; also where the kernel copies to, for pipes. */
static void have_secrets(void)
{
	char *mem = map_mem(SECRETS_LEN);
	int fds[2];

	if (!mem || pipe_of(fds, 256))
		_exit(1);
	memset(mem, SECRET, SECRETS_LEN);
	set_nonblock(fds[1]);
	_exit(write(fds[1], mem, 256 * PAGE) == 256 * PAGE ? 0 : 2);
}

static bool has_secret(const void *mem, size_t len)
{
	static const char secret[8] = { SECRET, SECRET, SECRET, SECRET,
					SECRET, SECRET, SECRET, SECRET };

	return memmem(mem, len, secret, sizeof(secret));
}

FIXTURE(secrets)
{
	int fds[2];
	int more[2];
	char *src;
	char *dst;
};

#define LEARN_LEN PMD

FIXTURE_SETUP(secrets)
{
	pid_t pid;

	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe_of(self->fds, 256));
	ASSERT_EQ(0, pipe_of(self->more, 256));
	self->src = map_filled(LEARN_LEN, MEM_4K, SEED);
	self->dst = map_filled(LEARN_LEN, MEM_4K, LATER_SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->dst);
	pid = fork_user(VICTIM);
	if (!pid)
		have_secrets();
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, become_ordinary(MALLORY));
}

FIXTURE_TEARDOWN(secrets)
{
	EXPECT_FALSE(has_secret(self->dst, LEARN_LEN));
}

/* The first @n bytes of the destination were delivered, and nothing else. */
static void expect_only(struct __test_metadata *_metadata, const char *dst,
			size_t n, uint64_t pos)
{
	EXPECT_EQ(-1, pattern_check(dst, n, pos, SEED));
	EXPECT_EQ(-1, pattern_check(dst + n, LEARN_LEN - n, n, LATER_SEED));
}

/* Each piece is in a page of its own, whose rest is nobody's business. */
TEST_F(secrets, beside_a_copy)
{
	static const ssize_t lens[] = { 1, 100, 4000, PAGE - 1 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		const ssize_t n = lens[i];

		ASSERT_EQ(n, give(self->fds[1], self->src + 1, n, 0));
		EXPECT_EQ(-1,
			  take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
		EXPECT_EQ(EOPNOTSUPP, errno);
		ASSERT_EQ(n, take(self->fds[0], self->dst, LEARN_LEN, 0));
		expect_only(_metadata, self->dst, n, 1);
		pattern_fill(self->dst, PAGE, 0, LATER_SEED);
	}
}

/* The same in the middle of a page where the giver's memory ends. */
TEST_F(secrets, cut_off_copy)
{
	const ssize_t at = 3 * PAGE - 200;

	ASSERT_EQ(0, munmap(self->src + 3 * PAGE, PAGE));
	ASSERT_EQ(200, give(self->fds[1], self->src + at, PAGE, 0));
	ASSERT_EQ(200, take(self->fds[0], self->dst, LEARN_LEN, 0));
	expect_only(_metadata, self->dst, 200, at);
}

/* The piece goes on, by each way, and is no longer than before. */
TEST_F(secrets, copy_on_its_way)
{
	int file = backing_file(BACKING_MEMFD), sv[2];
	char *map, got[200];

	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(100, give(self->fds[1], self->src + 1, 100, 0));
	ASSERT_EQ(100, tee(self->fds[0], self->more[1], PAGE, 0));
	ASSERT_EQ(100, splice(self->more[0], NULL, file, NULL, PAGE, 0));
	EXPECT_EQ(100, file_size(file));
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_EQ(-1, pattern_check(map, 100, 1, SEED));
	EXPECT_EQ(-1, zero_check(map + 100, PAGE - 100));
	ASSERT_EQ(60, splice(self->fds[0], NULL, self->more[1], NULL, 60, 0));
	ASSERT_EQ(60, take(self->more[0], self->dst, PAGE, 0));
	ASSERT_EQ(40, splice(self->fds[0], NULL, sv[1], NULL, PAGE, 0));
	ASSERT_EQ(40, recv(sv[0], got, sizeof(got), MSG_DONTWAIT));
	EXPECT_EQ(-1, pattern_check(got, 40, 61, SEED));
	expect_only(_metadata, self->dst, 60, 1);
}

/* What write(2) put into a pipe page by page, and what it appended to that. */
TEST_F(secrets, written)
{
	ASSERT_EQ(0, write_all(self->fds[1], self->src, 100));
	ASSERT_EQ(0, write_all(self->fds[1], self->src + 100, 100));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	ASSERT_EQ(200, take(self->fds[0], self->dst, LEARN_LEN, 0));
	expect_only(_metadata, self->dst, 200, 0);
}

/* A short file, whose page is longer; and one that is cut off meanwhile. */
TEST_F(secrets, file)
{
	int file = memfd_filled(300, SEED);
	loff_t off = 0;

	ASSERT_EQ(300, splice(file, &off, self->fds[1], NULL, PAGE, 0));
	EXPECT_EQ(-1, take(self->fds[0], self->dst, PAGE, SPLICE_F_NOCOPY));
	ASSERT_EQ(300, take(self->fds[0], self->dst, LEARN_LEN, 0));
	expect_only(_metadata, self->dst, 300, 0);
	pattern_fill(self->dst, PAGE, 0, LATER_SEED);
	off = 0;
	ASSERT_EQ(300, splice(file, &off, self->fds[1], NULL, PAGE, 0));
	ASSERT_EQ(0, ftruncate(file, 0));
	take(self->fds[0], self->dst, LEARN_LEN, SPLICE_F_NONBLOCK);
	EXPECT_EQ(-1, pattern_check(self->dst + 300, LEARN_LEN - 300, 300,
				    LATER_SEED));
}

/* Memory that never was is zeroes, by each way, and in pieces. */
FIXTURE(nothing)
{
	int fds[2];
	int more[2];
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(nothing)
{
	bool huge;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(nothing, page) { false };
FIXTURE_VARIANT_ADD(nothing, huge) { true };
/* clang-format on */

FIXTURE_SETUP(nothing)
{
	pid_t pid;

	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pipe_of(self->fds, 64));
	ASSERT_EQ(0, pipe_of(self->more, 64));
	self->len = variant->huge ? PMD : PAGE;
	self->src = map_mem(2 * PMD);
	self->dst = map_filled(PMD, MEM_4K, LATER_SEED);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->dst);
	if (!variant->huge)
		self->src[PAGE] = 1;
	pid = fork_user(VICTIM);
	if (!pid)
		have_secrets();
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, become_ordinary(MALLORY));
	ASSERT_EQ(self->len,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
	ASSERT_EQ(self->len, tee(self->fds[0], self->more[1], self->len, 0));
}

FIXTURE_TEARDOWN(nothing)
{
	EXPECT_FALSE(has_secret(self->dst, PMD));
}

TEST_F(nothing, is_zeroes)
{
	int file = backing_file(BACKING_MEMFD), sv[2];

	ASSERT_EQ(0, unix_pair(sv));
	/* A part of it, so that its rest begins in the middle of a page. */
	ASSERT_EQ(0, read_zeroes(self->fds[0], 100));
	ASSERT_EQ(1000, splice(self->fds[0], NULL, file, NULL, 1000, 0));
	EXPECT_EQ(0, pread_zeroes(file, 0, 1000));
	EXPECT_EQ(1000, file_size(file));
	ASSERT_EQ(500, splice(self->fds[0], NULL, sv[1], NULL, 500, 0));
	EXPECT_EQ(0, read_zeroes(sv[0], 500));
	EXPECT_EQ(0, read_zeroes(self->fds[0], self->len - 1600));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
	ASSERT_EQ(self->len,
		  splice_all(self->more[0], NULL, file, NULL, self->len));
	EXPECT_EQ(0, pread_zeroes(file, 1000, self->len));
}

/* Filled for a consumer that then did not want it, and taken after that. */
TEST_F(nothing, refused_then_taken)
{
	const struct rlimit none = { 0, RLIM_INFINITY };
	int file = backing_file(BACKING_MEMFD);

	ASSERT_EQ(100, take(self->fds[0], self->dst + 1, 100, 0));
	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &none));
	EXPECT_EQ(-1, splice(self->fds[0], NULL, file, NULL, self->len, 0));
	EXPECT_EQ(-1, splice(self->more[0], NULL, file, NULL, self->len, 0));
	ASSERT_EQ(self->len, take_all(self->more[0], self->dst, self->len, 0));
	EXPECT_EQ(-1, zero_check(self->dst, self->len));
	pattern_fill(self->dst, PMD, 0, LATER_SEED);
	ASSERT_EQ(self->len - 100,
		  take_all(self->fds[0], self->dst, self->len - 100, 0));
	EXPECT_EQ(-1, zero_check(self->dst, self->len - 100));
}

/* A huge page of which one byte was ever written. */
TEST_F(nothing, hardly_touched)
{
	char *huge = self->src + PMD;

	madvise(huge, PMD, MADV_HUGEPAGE);
	huge[12345] = 1;
	ASSERT_EQ(0, read_zeroes(self->fds[0], self->len));
	ASSERT_EQ(0, flip_over(self->fds, huge, self->dst, PMD));
	EXPECT_EQ(1, self->dst[12345]);
	self->dst[12345] = 0;
	EXPECT_EQ(-1, zero_check(self->dst, PMD));
}

/*
 * Ways to keep hold of what was given that page_flip_attack_test.c has not, or
 * tries as root.
 */
FIXTURE(retained)
{
	int fds[2];
	int more[2];
	int step[2];
	int hash;
	char *src;
	char *dst;
	ssize_t len;
};

FIXTURE_VARIANT(retained)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(retained, small) { MEM_4K };
FIXTURE_VARIANT_ADD(retained, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(retained, folio_2m) { MEM_2M };
FIXTURE_VARIANT_ADD(retained, folio_2m_ptes) { MEM_2M_PTES };
/* clang-format on */

/* What an ordinary user may not open can have been handed to him. */
static int hash_open(void)
{
	struct sockaddr_alg sa = { .salg_family = AF_ALG,
				   .salg_type = "hash",
				   .salg_name = "sha256" };
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return -1;
	return accept(fd, NULL, NULL);
}

FIXTURE_SETUP(retained)
{
	ASSERT_EQ(0, stay_on_cpu());
	if (mem_kind_set(variant->kind)) {
		undo_now();
		SKIP(return, "cannot choose the size of folios");
	}
	self->len = mem_kind_size(variant->kind);
	ASSERT_EQ(0, pipe_of(self->fds, 2 * PMD / PAGE));
	ASSERT_EQ(0, pipe_of(self->more, 2 * PMD / PAGE));
	ASSERT_EQ(0, step_pair(self->step));
	self->hash = hash_open();
	ASSERT_EQ(0, become_ordinary(MALLORY));
	self->src = map_filled(self->len, variant->kind, SEED);
	if (!self->src) {
		undo_now();
		SKIP(return, "no memory of that kind: %s", strerror(errno));
	}
	self->dst = map_mem(self->len);
	ASSERT_NE(NULL, self->dst);
}

FIXTURE_TEARDOWN(retained)
{
	EXPECT_EQ(0, undo_now());
}

/* The child of a fork: sees the old data for ever, its stores stay with it. */
static void child_of_giver(char *mem, size_t len, int step)
{
	if (step_await(step) || pattern_check(mem, len, 0, SEED) >= 0)
		_exit(1);
	pattern_fill(mem, len, 0, LATER_SEED);
	if (step_tell(step) || step_await(step))
		_exit(2);
	_exit(pattern_check(mem, len, 0, LATER_SEED) >= 0 ? 3 : 0);
}

TEST_F(retained, by_a_child)
{
	pid_t pid = fork_child();

	if (!pid)
		child_of_giver(self->src, self->len, self->step[1]);
	close(self->step[1]);
	EXPECT_EQ(-1, give(self->fds[1], self->src, self->len,
			   SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK));
	ASSERT_EQ(0, flip_over(self->fds, self->src, self->dst, self->len));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, SEED));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	ASSERT_EQ(0, step_tell(self->step[0]));
	ASSERT_EQ(0, step_await(self->step[0]));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
	ASSERT_EQ(0, step_tell(self->step[0]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* A child that comes between the give and the take has nothing at all. */
TEST_F(retained, by_a_child_in_between)
{
	pid_t pid;

	ASSERT_EQ(self->len, give_all(self->fds[1], self->src, self->len, 0));
	pid = fork_child();
	if (!pid) {
		if (step_await(self->step[1]) ||
		    zero_check(self->src, self->len) >= 0)
			_exit(1);
		pattern_fill(self->src, self->len, 0, LATER_SEED);
		_exit(0);
	}
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	ASSERT_EQ(0, step_tell(self->step[0]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* A digest that is not finished is of what was given. */
TEST_F(retained, by_a_hash)
{
	unsigned char want[32], got[32];
	char *copy = malloc(PAGE);

	if (self->hash < 0)
		SKIP(return, "no AF_ALG: %s", strerror(errno));
	memcpy(copy, self->src, PAGE);
	ASSERT_EQ(PAGE, send(self->hash, copy, PAGE, 0));
	ASSERT_EQ(32, read(self->hash, want, 32));
	ASSERT_EQ(self->len, give_all(self->fds[1], self->src, self->len, 0));
	ASSERT_EQ(self->len, tee(self->fds[0], self->more[1], self->len, 0));
	ASSERT_EQ(PAGE, splice(self->more[0], NULL, self->hash, NULL, PAGE,
			       SPLICE_F_MORE));
	ASSERT_EQ(self->len, take_all(self->fds[0], self->dst, self->len, 0));
	pattern_fill(self->dst, self->len, 0, TAKER_SEED);
	ASSERT_EQ(32, read(self->hash, got, 32));
	EXPECT_EQ(0, memcmp(want, got, 32));
	EXPECT_EQ(-1, pattern_check(self->dst, self->len, 0, TAKER_SEED));
}

/* Contents that the kernel may drop do not turn into the taker's. */
TEST_F(retained, by_madv_free)
{
	char *seen = malloc(self->len);

	ASSERT_EQ(0, madvise(self->src, self->len, MADV_FREE));
	EXPECT_EQ(-1,
		  give(self->fds[1], self->src, self->len, SPLICE_F_NOCOPY));
	EXPECT_EQ(EOPNOTSUPP, errno);
	ASSERT_EQ(0, flip_over(self->fds, self->src, self->dst, self->len));
	memcpy(seen, self->dst, self->len);
	madvise(self->dst, self->len, MADV_PAGEOUT);
	madvise(self->src, self->len, MADV_PAGEOUT);
	pattern_fill(self->src, self->len, 0, LATER_SEED);
	EXPECT_EQ(0, memcmp(seen, self->dst, self->len));
}

/*
 * The pages that a user has in pipes stay below the limit, whatever pipes they
 * are in, whoever's, and however they came there.  When all of that is gone, he
 * can give as much as before.
 */
#define SOFT_LIMIT "/proc/sys/fs/pipe-user-pages-soft"
#define LIMIT 400
#define RING 16

/* All the pages that can be given to a pipe without waiting. */
static long give_what_fits(int wfd)
{
	char *page = map_mem(PAGE);
	long given = -1;

	madvise(page, PAGE, MADV_NOHUGEPAGE);
	do {
		given++;
		/* What was given is gone. */
		page[0] = 1;
	} while (give(wfd, page, PAGE, SPLICE_F_NONBLOCK) == PAGE);
	unmap_mem(page, PAGE);
	return given;
}

/* All that goes into a pipe of that many slots, or as many as are allowed. */
static int filled_pipe(int fds[2], size_t slots)
{
	if (pipe(fds))
		return -1;
	fcntl(fds[0], F_SETPIPE_SZ, slots * PAGE);
	give_what_fits(fds[1]);
	return 0;
}

/* As many pipes as descriptors allow. */
static void many_pipes(int sock)
{
	const struct rlimit none = { 0, 0 };
	int fds[2], i;

	/* Given pages are not reclaimed; that limit is not theirs. */
	setrlimit(RLIMIT_MEMLOCK, &none);
	for (i = 0; i < 200; i++)
		if (filled_pipe(fds, RING))
			break;
}

/* Originals are read away, duplicates stay. */
static void duplicates(int sock)
{
	int fds[2], more[2], i;

	for (i = 0; i < 50; i++) {
		if (filled_pipe(fds, RING) || pipe(more))
			break;
		tee(fds[0], more[1], RING * PAGE, SPLICE_F_NONBLOCK);
		close_both(fds);
	}
}

/* On into another pipe, whose owner cannot be told from the buffers. */
static void moved_on(int sock)
{
	int fds[2], more[2], i;

	for (i = 0; i < 50; i++) {
		if (filled_pipe(fds, RING) || pipe(more))
			break;
		while (splice(fds[0], NULL, more[1], NULL, RING * PAGE / 2 + 1,
			      SPLICE_F_NONBLOCK) > 0)
			;
		close_both(fds);
	}
}

/* Larger and smaller with pages in it, again and again. */
static void resized(int sock)
{
	int fds[2], i, j;

	for (i = 0; i < 50; i++) {
		if (filled_pipe(fds, RING))
			break;
		for (j = 0; j < 20; j++) {
			fcntl(fds[0], F_SETPIPE_SZ, 4 * RING * PAGE);
			fcntl(fds[0], F_SETPIPE_SZ, PAGE);
			fcntl(fds[0], F_SETPIPE_SZ, RING * PAGE);
		}
		give_what_fits(fds[1]);
	}
}

/* By children who give and die; the pipe is their parent's. */
static void dead_givers(int sock)
{
	int fds[2], i;
	pid_t pid;

	for (i = 0; i < 50; i++) {
		if (pipe(fds))
			break;
		pid = fork_child();
		if (!pid) {
			give_what_fits(fds[1]);
			kill(getpid(), SIGKILL);
		}
		reap(pid);
	}
}

static void *give_in_thread(void *arg)
{
	int fds[2];

	while (!pipe(fds))
		if (!give_what_fits(fds[1]))
			break;
	return NULL;
}

/* At once, in many calls. */
static void many_threads(int sock)
{
	pthread_t threads[8];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_create(&threads[i], NULL, give_in_thread, NULL);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
}

/* Pipes that are only in messages which nobody has received. */
static void in_messages(int sock)
{
	int fds[2], sv[2], i;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sv))
		return;
	for (i = 0; i < 100; i++) {
		if (filled_pipe(fds, RING) ||
		    send_fds(sv[0], fds, 2, MSG_DONTWAIT))
			break;
		close_both(fds);
	}
}

/* Root of a user namespace is root of nothing here. */
static void in_user_namespace(int sock)
{
	if (unshare(CLONE_NEWUSER))
		return;
	many_pipes(sock);
}

/* All the slots that private pipes of calls that cannot go on may have. */
static void *send_in_thread(void *arg)
{
	const int file = *(int *)arg;
	loff_t off = 0;
	int sv[2];

	if (!unix_pair(sv))
		sendfile(sv[1], file, &off, 64 * MIB);
	return NULL;
}

static void private_pipes(int sock)
{
	static int file;
	pthread_t thread;
	int i;

	file = backing_file(BACKING_MEMFD);
	if (ftruncate(file, 8 * MIB))
		return;
	for (i = 0; i < 16; i++)
		pthread_create(&thread, NULL, send_in_thread, &file);
	/* What they take off the limits is not there for others, at most. */
	usleep(100000);
	many_pipes(sock);
}

FIXTURE(limits)
{
	/* Of the attacker: how to tell, and to be told. */
	int step[2];
	long before;
};

FIXTURE_VARIANT(limits)
{
	void (*attack)(int sock);
};

/* clang-format off */
FIXTURE_VARIANT_ADD(limits, many_pipes) { many_pipes };
FIXTURE_VARIANT_ADD(limits, duplicates) { duplicates };
FIXTURE_VARIANT_ADD(limits, moved_on) { moved_on };
FIXTURE_VARIANT_ADD(limits, resized) { resized };
FIXTURE_VARIANT_ADD(limits, dead_givers) { dead_givers };
FIXTURE_VARIANT_ADD(limits, many_threads) { many_threads };
FIXTURE_VARIANT_ADD(limits, in_messages) { in_messages };
FIXTURE_VARIANT_ADD(limits, in_user_namespace) { in_user_namespace };
FIXTURE_VARIANT_ADD(limits, private_pipes) { private_pipes };
/* clang-format on */

FIXTURE_SETUP(limits)
{
	static const char *const keep[] = { SOFT_LIMIT, PIPE_HARD_LIMIT };

	if (geteuid() || sysctl_keep(keep, ARRAY_SIZE(keep))) {
		undo_now();
		SKIP(return, "needs root");
	}
	ASSERT_EQ(0, step_pair(self->step));
	self->before = flip_in_flight(0, 1000);
	ASSERT_LE(0, self->before);
}

FIXTURE_TEARDOWN(limits)
{
	EXPECT_EQ(0, undo_now());
}

/* The pages that a user who has nothing in pipes can give; -1: an error. */
static long account_room(uid_t uid)
{
	pid_t pid;
	long given = 0, n;
	int said[2], fds[2];

	if (pipe(said))
		return -1;
	pid = fork_user(uid);
	if (!pid) {
		do {
			if (pipe(fds))
				_exit(1);
			n = give_what_fits(fds[1]);
			given += n;
		} while (n);
		_exit(write_all(said[1], &given, sizeof(given)) ? 2 : 0);
	}
	if (reap(pid) || read_all(said[0], &given, sizeof(given)))
		given = -1;
	close_both(said);
	return given;
}

/* The attacker, who keeps what there is until told to end. */
static pid_t spawn_attacker(uid_t uid, void (*attack)(int sock), int step)
{
	pid_t pid = fork_user(uid);

	if (pid)
		return pid;
	attack(step);
	if (step_tell(step) || step_await(step))
		_exit(1);
	_exit(0);
}

static void expect_limit_holds(struct __test_metadata *_metadata, int step[2],
			       long before, void (*attack)(int sock))
{
	const long room = account_room(MALLORY);
	pid_t pid = spawn_attacker(MALLORY, attack, step[1]);
	long held;

	ASSERT_EQ(0, step_await(step[0]));
	held = vmstat_get("nr_flip_pages") - before;
	/* Less than nothing is no attack; slots count as well. */
	EXPECT_LT(50, held);
	EXPECT_GE(LIMIT, held);
	EXPECT_LT(0, account_room(ACCOMPLICE));
	ASSERT_EQ(0, step_tell(step[0]));
	EXPECT_EQ(0, reap(pid));
	EXPECT_GE(before, flip_in_flight(before, 10000));
	EXPECT_EQ(room, account_room(MALLORY));
}

TEST_F(limits, soft)
{
	ASSERT_EQ(0, sysctl_set(PIPE_HARD_LIMIT, 0));
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, LIMIT));
	expect_limit_holds(_metadata, self->step, self->before,
			   variant->attack);
}

TEST_F(limits, hard)
{
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, 0));
	ASSERT_EQ(0, sysctl_set(PIPE_HARD_LIMIT, LIMIT));
	expect_limit_holds(_metadata, self->step, self->before,
			   variant->attack);
}

/*
 * A hole that somebody else gave, for whom there may be no limit, and who goes on
 * duplicating it.  Who reads a byte of each of them pays for no page that anybody
 * could keep in a pipe, wherever he writes it; and uses up nobody else's limit.
 */
FIXTURE(others_hole)
{
	int fds[2];
	int out;
	int step[2];
	long before;
	long room;
};

FIXTURE_VARIANT(others_hole)
{
	uid_t giver;
	int (*open)(void);
};

static int open_memfd(void)
{
	return backing_file(BACKING_MEMFD);
}

/* Its writes are done with the credentials of who has mounted it. */
static int open_overlay(void)
{
	return backing_file(BACKING_OVERLAY);
}

static int open_socket(void)
{
	int sv[2];

	return unix_pair(sv) ? -1 : sv[0];
}

static int open_null(void)
{
	return open("/dev/null", O_WRONLY);
}

/* clang-format off */
FIXTURE_VARIANT_ADD(others_hole, root_memfd) { 0, open_memfd };
FIXTURE_VARIANT_ADD(others_hole, user_memfd) { VICTIM, open_memfd };
FIXTURE_VARIANT_ADD(others_hole, root_overlay) { 0, open_overlay };
FIXTURE_VARIANT_ADD(others_hole, user_socket) { VICTIM, open_socket };
FIXTURE_VARIANT_ADD(others_hole, user_null) { VICTIM, open_null };
/* clang-format on */

/* Two huge pages. */
#define HOLE_LIMIT (2 * PMD / PAGE)

FIXTURE_SETUP(others_hole)
{
	static const char *const keep[] = { SOFT_LIMIT };
	pid_t pid;

	if (geteuid() || sysctl_keep(keep, 1) ||
	    !backing_available(BACKING_OVERLAY)) {
		undo_now();
		SKIP(return, "needs root and overlayfs");
	}
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, HOLE_LIMIT));
	self->room = account_room(VICTIM);
	ASSERT_EQ(0, step_pair(self->step));
	ASSERT_EQ(0, pipe(self->fds));
	self->out = variant->open();
	ASSERT_LE(0, self->out);
	pid = variant->giver ? fork_user(variant->giver) : fork_child();
	if (!pid)
		_exit(give(self->fds[1], map_mem(PMD), PMD, SPLICE_F_NOCOPY) !=
		      PMD);
	ASSERT_EQ(0, reap(pid));
	self->before = flip_in_flight(0, 1000);
}

FIXTURE_TEARDOWN(others_hole)
{
	EXPECT_EQ(0, undo_now());
}

/* What is left of each goes to a pipe of who has duplicated it. */
static void read_bytes(int hole, int out, int step)
{
	int fds[2], stash[2], i;

	if (pipe(fds) || pipe(stash))
		_exit(1);
	for (i = 0; i < 16; i++) {
		if (tee(hole, fds[1], PMD, SPLICE_F_NONBLOCK) != PMD)
			_exit(2);
		if (splice(fds[0], NULL, out, NULL, 1, SPLICE_F_NONBLOCK) != 1)
			_exit(3);
		if (splice(fds[0], NULL, stash[1], NULL, PMD,
			   SPLICE_F_NONBLOCK) != PMD - 1)
			_exit(4);
	}
	if (step_tell(step) || step_await(step))
		_exit(5);
	_exit(0);
}

TEST_F(others_hole, costs_who_reads_it_nothing)
{
	pid_t pid = fork_user(MALLORY);

	if (!pid)
		read_bytes(self->fds[0], self->out, self->step[1]);
	close(self->step[1]);
	ASSERT_EQ(0, step_await(self->step[0]));
	EXPECT_GE(self->before, vmstat_get("nr_flip_pages"));
	EXPECT_EQ(self->room, account_room(VICTIM));
	ASSERT_EQ(0, step_tell(self->step[0]));
	EXPECT_EQ(0, reap(pid));
}

/*
 * Pages that are parked in pipes count in the group of who gave them, also when
 * that group is gone: then in the one around it, whose limit is not exceeded by
 * any number of groups and givers below.
 */
#define AROUND "around"
#define AROUND_MAX (24 * MIB)
#define PARKED_LEN (4 * MIB)
#define NR_PARKED 12

FIXTURE(parked)
{
	long before;
};

FIXTURE_VARIANT(parked)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(parked, small) { MEM_4K };
FIXTURE_VARIANT_ADD(parked, folio_2m) { MEM_2M };
/* clang-format on */

FIXTURE_SETUP(parked)
{
	static const char *const keep[] = { SOFT_LIMIT };

	if (geteuid() || sysctl_keep(keep, 1) || memcg_new(AROUND)) {
		undo_now();
		SKIP(return, "no memory cgroups");
	}
	/* Who has many users has many limits. */
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, 0));
	memcg_write(AROUND, "memory.swap.max", "0");
	ASSERT_EQ(0, memcg_write(AROUND, "cgroup.subtree_control", "+memory"));
	self->before = flip_in_flight(0, 1000);
}

FIXTURE_TEARDOWN(parked)
{
	EXPECT_EQ(0, undo_now());
}

/* A user of a group below gives what he can, and ends, as does the group. */
static int park(int fds[2], const char *name, enum mem_kind kind)
{
	pid_t pid;
	char *mem;
	int ret;

	if (pipe_of(fds, PARKED_LEN / PAGE) ||
	    mkdir(memcg_path(name, ""), 0755))
		return -1;
	pid = fork_in(name);
	if (!pid) {
		if (become_ordinary(MALLORY))
			_exit(254);
		mem = map_mem(PARKED_LEN);
		mem_fill(mem, PARKED_LEN, kind, SEED);
		_exit(give_all(fds[1], mem, PARKED_LEN, 0) != PARKED_LEN);
	}
	ret = reap(pid);
	while (memcg_remove(name) && errno == EBUSY)
		usleep(1000);
	return ret;
}

TEST_F(parked, is_not_forgotten)
{
	int fds[NR_PARKED][2], i, refused = 0;
	char name[64];

	ASSERT_EQ(0, sysctl_write(memcg_path(AROUND, "memory.max"), "24M"));
	for (i = 0; i < NR_PARKED; i++) {
		snprintf(name, sizeof(name), AROUND "/below%d", i);
		/* Killed, as that group is out of memory, or refused. */
		refused += park(fds[i], name, variant->kind) != 0;
		EXPECT_GE((long)AROUND_MAX,
			  (vmstat_get("nr_flip_pages") - self->before) * PAGE);
	}
	EXPECT_LE(NR_PARKED - (int)(AROUND_MAX / PARKED_LEN), refused);
	EXPECT_LE(4 * (long)PARKED_LEN, memcg_read(AROUND, "memory.current"));
	for (i = 0; i < NR_PARKED; i++)
		close_both(fds[i]);
	EXPECT_GE(self->before, flip_in_flight(self->before, 10000));
	EXPECT_GT((long)MIB, memcg_read(AROUND, "memory.current"));
}

/*
 * A byte of each huge page is in a socket, which keeps all of it: the page is in
 * no pipe any more, but the group of who gave it goes on paying.
 */
#define NR_SENT 8

FIXTURE(in_sockets)
{
	int step[2];
	int sv[2];
};

FIXTURE_SETUP(in_sockets)
{
	if (geteuid() || memcg_new(AROUND)) {
		undo_now();
		SKIP(return, "no memory cgroups");
	}
	ASSERT_EQ(0, step_pair(self->step));
	ASSERT_EQ(0, unix_pair(self->sv));
}

FIXTURE_TEARDOWN(in_sockets)
{
	EXPECT_EQ(0, undo_now());
}

static void send_bytes(int sock, int step)
{
	char *mem, skip[4 * KIB];
	int fds[2], i;
	ssize_t n;

	if (become_ordinary(MALLORY) || pipe(fds))
		_exit(1);
	set_nonblock(fds[0]);
	for (i = 0; i < NR_SENT; i++) {
		mem = map_filled(PMD, MEM_2M, SEED);
		if (!mem || give(fds[1], mem, PMD, SPLICE_F_NOCOPY) != PMD ||
		    splice(fds[0], NULL, sock, NULL, 1, 0) != 1)
			_exit(2);
		do {
			n = read(fds[0], skip, sizeof(skip));
		} while (n > 0);
		unmap_mem(mem, PMD);
	}
	_exit(0);
}

TEST_F(in_sockets, is_not_forgotten)
{
	pid_t pid = fork_in(AROUND);

	if (!pid)
		send_bytes(self->sv[1], self->step[1]);
	ASSERT_EQ(0, reap(pid));
	EXPECT_LE(NR_SENT * PMD, memcg_read(AROUND, "memory.current"));
	EXPECT_EQ(NR_SENT, bytes_queued(self->sv[0]));
	close_both(self->sv);
	EXPECT_GT((long)MIB, memcg_read(AROUND, "memory.current"));
}

/*
 * Who waits for a pipe can be killed, whatever the other side does not do.
 */
#define SLOTS 16

/* Two pipes of one user, a file and a socket, as the calls below want them. */
static struct {
	int empty[2];
	int full[2];
	int sv[2];
	int file;
	char *mem;
} ends;

static void wait_take(void)
{
	take(ends.empty[0], ends.mem, PMD, 0);
}

static void wait_take_strictly(void)
{
	take(ends.empty[0], ends.mem, PMD, SPLICE_F_NOCOPY);
}

static void wait_give(void)
{
	give(ends.full[1], ends.mem, PMD, 0);
}

static void wait_give_hole(void)
{
	give(ends.full[1], ends.mem + PMD, PMD, SPLICE_F_NOCOPY);
}

static void wait_share(void)
{
	share(ends.full[1], ends.mem, PMD);
}

static void wait_splice_empty(void)
{
	splice(ends.empty[0], NULL, ends.file, NULL, PMD, 0);
}

static void wait_splice_full(void)
{
	loff_t off = 0;

	splice(ends.file, &off, ends.full[1], NULL, PMD, 0);
}

static void wait_splice_pipes(void)
{
	splice(ends.empty[0], NULL, ends.full[1], NULL, PMD, 0);
}

static void wait_splice_socket(void)
{
	for (;;)
		if (splice(ends.full[0], NULL, ends.sv[1], NULL, PMD, 0) > 0)
			give(ends.full[1], ends.mem, SLOTS * PAGE, 0);
}

static void wait_tee(void)
{
	tee(ends.empty[0], ends.full[1], PMD, 0);
}

static void wait_sendfile_pipe(void)
{
	loff_t off = 0;

	sendfile(ends.full[1], ends.file, &off, PMD);
}

static void wait_sendfile_socket(void)
{
	loff_t off = 0;

	while (sendfile(ends.sv[1], ends.file, &off, PMD) > 0)
		off = 0;
}

FIXTURE(waiting)
{
	int step[2];
};

FIXTURE_VARIANT(waiting)
{
	void (*call)(void);
};

/* clang-format off */
FIXTURE_VARIANT_ADD(waiting, take) { wait_take };
FIXTURE_VARIANT_ADD(waiting, take_strictly) { wait_take_strictly };
FIXTURE_VARIANT_ADD(waiting, give) { wait_give };
FIXTURE_VARIANT_ADD(waiting, give_hole) { wait_give_hole };
FIXTURE_VARIANT_ADD(waiting, share) { wait_share };
FIXTURE_VARIANT_ADD(waiting, splice_empty) { wait_splice_empty };
FIXTURE_VARIANT_ADD(waiting, splice_full) { wait_splice_full };
FIXTURE_VARIANT_ADD(waiting, splice_pipes) { wait_splice_pipes };
FIXTURE_VARIANT_ADD(waiting, splice_socket) { wait_splice_socket };
FIXTURE_VARIANT_ADD(waiting, tee) { wait_tee };
FIXTURE_VARIANT_ADD(waiting, sendfile_pipe) { wait_sendfile_pipe };
FIXTURE_VARIANT_ADD(waiting, sendfile_socket) { wait_sendfile_socket };
/* clang-format on */

FIXTURE_SETUP(waiting)
{
	if (geteuid())
		SKIP(return, "needs root");
	ASSERT_EQ(0, pipe_of(ends.empty, SLOTS));
	ASSERT_EQ(0, pipe_of(ends.full, SLOTS));
	ASSERT_LT(0, pipe_fill_up(ends.full[1]));
	ASSERT_EQ(0, unix_pair(ends.sv));
	ends.file = memfd_filled(PMD, SEED);
	ASSERT_LE(0, ends.file);
	ends.mem = map_mem(2 * PMD);
	ASSERT_NE(NULL, ends.mem);
	pattern_fill(ends.mem, PMD, 0, SEED);
	ASSERT_EQ(0, step_pair(self->step));
}

FIXTURE_TEARDOWN(waiting)
{
}

/* The other side is stopped in the middle of it, and is no help. */
static pid_t spawn_stopped(void)
{
	pid_t pid = fork_user(MALLORY);

	if (!pid) {
		kill(getpid(), SIGSTOP);
		_exit(0);
	}
	if (waitpid(pid, NULL, WUNTRACED) != pid)
		return -1;
	return pid;
}

TEST_F(waiting, can_be_killed)
{
	pid_t other = spawn_stopped(), pid;

	ASSERT_LT(0, other);
	pid = fork_user(VICTIM);
	if (!pid) {
		step_tell(self->step[1]);
		variant->call();
		_exit(0);
	}
	ASSERT_EQ(0, step_await(self->step[0]));
	usleep(100000);
	EXPECT_EQ(0, kill_within(pid, DEATH_MS));
	EXPECT_EQ(0, kill_within(other, DEATH_MS));
	/* He did not take the locks of the pipes with him. */
	EXPECT_EQ(0, bytes_queued(ends.empty[0]));
	EXPECT_LT(0, bytes_queued(ends.full[0]));
}

/*
 * Memory of which each fault is somebody's in user space, who does not answer:
 * by userfaultfd as every user may have it, which is not asked for faults of
 * the kernel.  No call waits for it, so nobody waits for who made the call.
 */
enum call {
	BY_WRITE,
	BY_SHARE,
	BY_GIVE,
	BY_GIVE_PART,
	BY_GIVE_STRICTLY,
	BY_READ,
	BY_COPY_OUT,
	BY_TAKE,
	BY_TAKE_STRICTLY,
	BY_RESIZE,
};

static ssize_t do_call(enum call by, int fds[2], char *mem)
{
	struct iovec iov = { mem, PAGE };

	switch (by) {
	case BY_WRITE:
		return write(fds[1], mem, PAGE);
	case BY_SHARE:
		return share(fds[1], mem, PAGE);
	case BY_GIVE:
		return give(fds[1], mem, PAGE, 0);
	case BY_GIVE_PART:
		return give(fds[1], mem + 1, 100, 0);
	case BY_GIVE_STRICTLY:
		return give(fds[1], mem, PAGE, SPLICE_F_NOCOPY);
	case BY_READ:
		return read(fds[0], mem, PAGE);
	case BY_COPY_OUT:
		return vmsplice(fds[0], &iov, 1, 0);
	case BY_TAKE:
		return take(fds[0], mem, PAGE, 0);
	case BY_TAKE_STRICTLY:
		return take(fds[0], mem, PAGE, SPLICE_F_NOCOPY);
	case BY_RESIZE:
		return fcntl(fds[0], F_SETPIPE_SZ, 64 * PAGE);
	}
	return -1;
}

/* Missing pages at @mem are nobody's but the caller's, who does not look. */
static int watch_faults(char *mem, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		return -1;
	return fd;
}

FIXTURE(faulting)
{
	int fds[2];
};

FIXTURE_VARIANT(faulting)
{
	enum call by;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(faulting, write) { BY_WRITE };
FIXTURE_VARIANT_ADD(faulting, share) { BY_SHARE };
FIXTURE_VARIANT_ADD(faulting, give) { BY_GIVE };
FIXTURE_VARIANT_ADD(faulting, give_part) { BY_GIVE_PART };
FIXTURE_VARIANT_ADD(faulting, give_strictly) { BY_GIVE_STRICTLY };
FIXTURE_VARIANT_ADD(faulting, read) { BY_READ };
FIXTURE_VARIANT_ADD(faulting, copy_out) { BY_COPY_OUT };
FIXTURE_VARIANT_ADD(faulting, take) { BY_TAKE };
FIXTURE_VARIANT_ADD(faulting, take_strictly) { BY_TAKE_STRICTLY };
/* clang-format on */

FIXTURE_SETUP(faulting)
{
	if (geteuid())
		SKIP(return, "needs root");
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE, 0, SEED));
}

FIXTURE_TEARDOWN(faulting)
{
}

/* 0: refused; 3: there is no userfaultfd. */
static void call_with_watched_memory(int fds[2], enum call by)
{
	char *mem = map_mem(4 * PAGE);

	if (watch_faults(mem, 4 * PAGE) < 0)
		_exit(3);
	if (do_call(by, fds, mem) >= 0)
		_exit(1);
	_exit(errno == EFAULT || errno == EOPNOTSUPP ? 0 : 2);
}

TEST_F(faulting, does_not_wait)
{
	pid_t pid = fork_user(MALLORY);
	int ret;

	if (!pid)
		call_with_watched_memory(self->fds, variant->by);
	ret = reap_within(pid, DEATH_MS);
	if (ret == 3)
		SKIP(return, "no userfaultfd");
	if (ret < 0)
		kill(pid, SIGKILL);
	ASSERT_EQ(0, ret);
	EXPECT_EQ(PAGE, bytes_queued(self->fds[0]));
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 0, SEED));
}

/*
 * The same with a file system in user space, which is asked for faults of the
 * kernel too.  Who has memory of such a file copied holds the lock of the pipe
 * meanwhile, for which others wait, and cannot be killed: so it is on every
 * kernel, by write(2) and read(2) as well.  A flip holds up nobody whom they
 * would not, not longer than the server lives; and it does not even ask for
 * memory that could not move.
 */
struct server {
	struct fuse_file file;
	atomic_int asked; /* READs that came in */
	atomic_bool waits; /* its victim does, as soon as it can */
	bool answer; /* else never */
	/* The answer is given, or a gift, to a pipe that is spliced. */
	unsigned int splice;
};

#define ANSWER (128 * KIB)

/* The header is written to a pipe, the pages are given to it. */
static int answer_by_splice(int dev, uint64_t unique, const char *data,
			    size_t len, unsigned int flags)
{
	struct fuse_out_header head = { .unique = unique,
					.len = sizeof(head) + len };
	static char *pages;
	static int fds[2];
	struct iovec iov;

	if (!pages) {
		pages = map_mem(ANSWER);
		if (pipe_of(fds, 64))
			return -EIO;
	}
	memcpy(pages, data, len);
	iov.iov_base = pages;
	iov.iov_len = len;
	if (write_all(fds[1], &head, sizeof(head)) ||
	    vmsplice(fds[1], &iov, 1, flags) != (ssize_t)len)
		return -EIO;
	/* Who asked may be gone. */
	if (splice(fds[0], NULL, dev, NULL, head.len, SPLICE_F_MOVE) < 0 &&
	    errno != ENOENT)
		_exit(1);
	return FUSE_FILE_SENT;
}

static int read_later(struct fuse_file *f, const struct fuse_in_header *in,
		      char *data)
{
	const struct fuse_read_in *what = (const void *)(in + 1);
	const size_t n = what->size < ANSWER ? what->size : ANSWER;
	struct server *s = (struct server *)f;

	s->asked++;
	if (!s->answer)
		pause();
	pattern_fill(data, n, what->offset, LATER_SEED);
	if (s->splice)
		return answer_by_splice(f->dev, in->unique, data, n, s->splice);
	return n;
}

/* The file of a file system that belongs to that user, as does its server. */
static int served_file(struct server *s, uid_t uid, pid_t *pid)
{
	int dev, root = fuse_file_mount(uid, &dev);

	if (root < 0)
		return -1;
	s->file.size = MIB;
	s->file.open_flags = FOPEN_NOFLUSH;
	s->file.read = read_later;
	*pid = fork_user(uid);
	if (!*pid)
		fuse_file_serve(&s->file, dev);
	close(dev);
	return *pid < 0 ? -1 : root;
}

FIXTURE(held_up)
{
	struct server *server;
};

FIXTURE_VARIANT(held_up)
{
	enum call by;
	/* The old way to do that. */
	enum call reference;
	enum call victim;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(held_up, give_read) { BY_GIVE, BY_WRITE, BY_READ };
FIXTURE_VARIANT_ADD(held_up, give_take) { BY_GIVE, BY_WRITE, BY_TAKE };
FIXTURE_VARIANT_ADD(held_up, give_give) { BY_GIVE, BY_WRITE, BY_GIVE };
FIXTURE_VARIANT_ADD(held_up, give_resize) { BY_GIVE, BY_WRITE, BY_RESIZE };
FIXTURE_VARIANT_ADD(held_up, give_part_read) { BY_GIVE_PART, BY_WRITE, BY_READ };
FIXTURE_VARIANT_ADD(held_up, take_read) { BY_TAKE, BY_READ, BY_READ };
FIXTURE_VARIANT_ADD(held_up, take_write) { BY_TAKE, BY_READ, BY_WRITE };
FIXTURE_VARIANT_ADD(held_up, take_take) { BY_TAKE, BY_READ, BY_TAKE };
FIXTURE_VARIANT_ADD(held_up, take_resize) { BY_TAKE, BY_READ, BY_RESIZE };
/* clang-format on */

FIXTURE_SETUP(held_up)
{
	if (geteuid() || access("/dev/fuse", R_OK | W_OK))
		SKIP(return, "no FUSE here");
	self->server = mmap(NULL, sizeof(*self->server), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->server);
}

FIXTURE_TEARDOWN(held_up)
{
}

/* Exits with 1 if the memory could not move. */
static void call_with_served_memory(int fds[2], enum call by, int root)
{
	int file = reopen(root, O_RDWR);
	char *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 file, 0);

	/* Its size is not known before somebody asks for it. */
	if (mem == MAP_FAILED || file_size(file) != MIB)
		_exit(10);
	_exit(do_call(by, fds, mem) == -1 && errno == EOPNOTSUPP ? 1 : 0);
}

/* One who waits for the server that does not answer, and one for him. */
struct jam {
	pid_t server;
	pid_t holder;
	pid_t victim;
};

static int jam_start(struct jam *jam, struct server *s, enum call by,
		     enum call victim)
{
	int fds[2], root;
	char *mem;

	s->asked = 0;
	s->waits = false;
	root = served_file(s, MALLORY, &jam->server);
	if (root < 0 || pipe(fds) || write_pattern(fds[1], PAGE, 0, SEED))
		return -1;
	jam->holder = fork_user(MALLORY);
	if (!jam->holder)
		call_with_served_memory(fds, by, root);
	while (!s->asked)
		if (reap_within(jam->holder, 10) >= 0)
			return -1;
	jam->victim = fork_user(VICTIM);
	if (!jam->victim) {
		mem = map_filled(PAGE, MEM_4K, SEED);
		s->waits = true;
		do_call(victim, fds, mem);
		_exit(0);
	}
	close(root);
	close_both(fds);
	while (!s->waits)
		usleep(1000);
	usleep(100000);
	return 0;
}

/* Without the server nobody waits any more. */
static int jam_end(struct jam *jam, bool has_victim)
{
	kill(jam->server, SIGKILL);
	reap(jam->server);
	kill(jam->holder, SIGKILL);
	if (reap_within(jam->holder, DEATH_MS) < 0)
		return -1;
	return has_victim && reap_within(jam->victim, DEATH_MS) < 0 ? -1 : 0;
}

/* Whether somebody can be killed in time while @by is under way; -1: error. */
static int killable_during(struct server *s, enum call by, enum call victim,
			   long ms)
{
	struct jam jam;
	bool ended;

	if (jam_start(&jam, s, by, victim))
		return -1;
	kill(jam.victim, SIGKILL);
	ended = reap_within(jam.victim, ms) >= 0;
	return jam_end(&jam, !ended) ? -1 : ended;
}

/* Slow machines: a second look, for longer, where the old way does better. */
TEST_F(held_up, no_longer_than_ever)
{
	int flip, old;

	flip = killable_during(self->server, variant->by, variant->victim, 200);
	ASSERT_LE(0, flip);
	if (flip)
		return;
	old = killable_during(self->server, variant->reference, variant->victim,
			      200);
	ASSERT_LE(0, old);
	if (old)
		EXPECT_EQ(1, killable_during(self->server, variant->by,
					     variant->victim, DEATH_MS));
}

/* What could only move is refused without a look at the memory. */
FIXTURE(not_asked)
{
	struct server *server;
	pid_t pid;
	int root;
	int fds[2];
};

FIXTURE_VARIANT(not_asked)
{
	enum call by;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(not_asked, give) { BY_GIVE_STRICTLY };
FIXTURE_VARIANT_ADD(not_asked, take) { BY_TAKE_STRICTLY };
/* clang-format on */

FIXTURE_SETUP(not_asked)
{
	if (geteuid() || access("/dev/fuse", R_OK | W_OK))
		SKIP(return, "no FUSE here");
	self->server = mmap(NULL, sizeof(*self->server), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->server);
	self->root = served_file(self->server, MALLORY, &self->pid);
	ASSERT_LE(0, self->root);
	ASSERT_EQ(0, pipe(self->fds));
	/* Given, so that it is the destination that is refused. */
	ASSERT_EQ(PAGE,
		  give(self->fds[1], map_filled(PAGE, MEM_4K, SEED), PAGE, 0));
}

FIXTURE_TEARDOWN(not_asked)
{
	kill(self->pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(self->pid));
}

TEST_F(not_asked, strictly)
{
	pid_t pid = fork_user(MALLORY);

	if (!pid)
		call_with_served_memory(self->fds, variant->by, self->root);
	ASSERT_EQ(1, reap_within(pid, DEATH_MS));
	EXPECT_EQ(0, self->server->asked);
	EXPECT_EQ(0, read_pattern(self->fds[0], PAGE, 0, SEED));
	EXPECT_EQ(0, bytes_queued(self->fds[0]));
}

/*
 * Calls that fail, and data that goes where it cannot, over and over: the log
 * of the kernel does not get a line from that.
 */
#define NR_CALLS 300

/* Counts what did not fail. */
static int nr_wrong;

static void must_fail(ssize_t ret)
{
	nr_wrong += ret >= 0;
}

static void call_wrongly(void)
{
	static struct iovec many[1025];
	const unsigned int flip = SPLICE_F_MOVE | SPLICE_F_GIFT;
	static char *mem;
	loff_t off = -1;
	int file = backing_file(BACKING_MEMFD), fds[2];

	if (pipe(fds))
		return;
	if (!mem)
		mem = map_filled(4 * PAGE, MEM_4K, SEED);
	must_fail(give(-1, mem, PAGE, 0));
	must_fail(give(file, mem, PAGE, 0));
	must_fail(give(fds[1], mem, PAGE, ~0U));
	must_fail(give(fds[1], mem + 1, PAGE, SPLICE_F_NOCOPY));
	must_fail(give(fds[1], (void *)-PAGE, PAGE, 0));
	must_fail(give(fds[1], (void *)(1UL << 62), PAGE, 0));
	must_fail(give(fds[1], mem, SIZE_MAX, 0));
	must_fail(vmsplice(fds[1], many, ARRAY_SIZE(many), flip));
	must_fail(vmsplice(fds[1], NULL, 1, flip));
	must_fail(vmsplice(fds[1], many, 1, SPLICE_F_NOCOPY));
	must_fail(take(fds[0], mem, PAGE, SPLICE_F_NONBLOCK));
	must_fail(take(fds[0], mem + 1, PAGE, SPLICE_F_NOCOPY));
	must_fail(take(fds[0], (void *)-PAGE, PAGE, SPLICE_F_NONBLOCK));
	must_fail(splice(fds[0], NULL, fds[1], NULL, 1, SPLICE_F_NONBLOCK));
	must_fail(splice(file, &off, fds[1], NULL, 1, 0));
	must_fail(splice(fds[0], &off, file, NULL, 1, 0));
	must_fail(splice(fds[0], NULL, file, NULL, 1, SPLICE_F_NOCOPY));
	must_fail(tee(fds[0], fds[1], 1, SPLICE_F_NONBLOCK));
	must_fail(tee(fds[0], file, 1, 0));
	must_fail(sendfile(file, fds[0], NULL, 1));
	must_fail(fcntl(fds[0], F_SETPIPE_SZ, 64 * MIB));
	must_fail(fcntl(fds[0], F_SETPIPE_SZ, (1U << 31) + 1));
	close_both(fds);
	close(file);
}

/* Memory of each kind that a flip does not move, or may not touch. */
static const struct odd_memory {
	int prot;
	int flags;
	int advice;
	bool lock;
} odd_memory[] = {
	{ PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, 0, false },
	{ PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, 0, false },
	{ PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, 0, false },
	{ PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, 0, false },
	{ PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false },
	{ PROT_READ | PROT_WRITE, MAP_SHARED, 0, false },
	{ PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0, true },
	{ PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, MADV_FREE,
	  false },
};

static char *odd_map(const struct odd_memory *odd, int file)
{
	const int fd = odd->flags & MAP_ANONYMOUS ? -1 : file;
	char *mem = mmap(NULL, 4 * PAGE, odd->prot, odd->flags, fd, 0);

	if (mem == MAP_FAILED)
		return NULL;
	if (odd->prot & PROT_WRITE)
		memset(mem, 1, 4 * PAGE);
	if (odd->lock)
		mlock(mem, 4 * PAGE);
	if (odd->advice)
		madvise(mem, 4 * PAGE, odd->advice);
	return mem;
}

/* Strictly, and then by copying, which some of them allow. */
static void call_with_odd_memory(void)
{
	int file = memfd_filled(4 * PAGE, SEED), fds[2];
	size_t i;

	if (pipe(fds))
		return;
	for (i = 0; i < ARRAY_SIZE(odd_memory); i++) {
		char *mem = odd_map(&odd_memory[i], file);

		must_fail(give(fds[1], mem, 4 * PAGE, SPLICE_F_NOCOPY));
		give(fds[1], mem, 4 * PAGE, SPLICE_F_NONBLOCK);
		give(fds[1], mem + 1, PAGE, SPLICE_F_NONBLOCK);
		take(fds[0], mem, 4 * PAGE,
		     SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK);
		take(fds[0], mem + 1, 2 * PAGE, SPLICE_F_NONBLOCK);
		munmap(mem, 4 * PAGE);
	}
	close_both(fds);
	close(file);
}

/* Buffers of each kind, and where they cannot go. */
static void send_nowhere(void)
{
	int fds[2], more[2], sv[2], file = backing_file(BACKING_MEMFD);
	char *mem = map_filled(8 * PAGE, MEM_4K, SEED);

	fcntl(file, F_ADD_SEALS, F_SEAL_WRITE);
	if (pipe(fds) || pipe(more) || unix_pair(sv))
		return;
	give(fds[1], mem, 4 * PAGE, 0);
	give(fds[1], mem, 4 * PAGE, 0);
	give(fds[1], mem + 4 * PAGE + 1, PAGE, 0);
	tee(fds[0], more[1], 8 * PAGE, 0);
	must_fail(take(fds[0], mem, 4 * PAGE, SPLICE_F_NOCOPY));
	must_fail(splice(fds[0], NULL, file, NULL, 8 * PAGE, 0));
	must_fail(fcntl(fds[0], F_SETPIPE_SZ, PAGE));
	must_fail(take(fds[0], NULL, PAGE, 0));
	close(sv[0]);
	must_fail(splice(fds[0], NULL, sv[1], NULL, PAGE, 0));
	close(more[0]);
	must_fail(give(more[1], mem, PAGE, 0));
	must_fail(tee(fds[0], more[1], PAGE, 0));
	must_fail(splice(fds[0], NULL, more[1], NULL, PAGE, 0));
	close(sv[1]);
	close(more[1]);
	close_both(fds);
	close(file);
	unmap_mem(mem, 8 * PAGE);
}

/* No more pipes, no more pages: every user gets there. */
static void exceed_limits(void)
{
	static int fds[4][2];
	static char *mem;
	size_t i;

	if (!mem) {
		mem = map_filled(PAGE, MEM_4K, SEED);
		for (i = 0; i < ARRAY_SIZE(fds); i++)
			filled_pipe(fds[i], 256);
	}
	must_fail(give(fds[0][1], mem, PAGE, SPLICE_F_NONBLOCK));
	must_fail(give(fds[1][1], mem + 1, 10, SPLICE_F_NONBLOCK));
	must_fail(fcntl(fds[0][1], F_SETPIPE_SZ, 16 * MIB));
}

FIXTURE(log)
{
	int kmsg;
};

FIXTURE_VARIANT(log)
{
	void (*attack)(void);
};

/* clang-format off */
FIXTURE_VARIANT_ADD(log, wrong_calls) { call_wrongly };
FIXTURE_VARIANT_ADD(log, odd_memory) { call_with_odd_memory };
FIXTURE_VARIANT_ADD(log, nowhere) { send_nowhere };
FIXTURE_VARIANT_ADD(log, limits) { exceed_limits };
/* clang-format on */

/* From now on: what is there already is passed. */
static int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (fd >= 0 && lseek(fd, 0, SEEK_END) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The first new line in the log is said. */
static int log_lines(int kmsg, char first[1024])
{
	char line[8 * KIB];
	int nr = 0;
	ssize_t n;

	/* EPIPE: so many that some are gone already. */
	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		line[n > 0 ? n : 0] = '\0';
		if (!nr++)
			snprintf(first, 1024, "%.1000s", line);
		errno = 0;
	}
	return nr;
}

FIXTURE_SETUP(log)
{
	self->kmsg = geteuid() ? -1 : log_open();
	if (self->kmsg < 0)
		SKIP(return, "the log cannot be read");
}

FIXTURE_TEARDOWN(log)
{
	char line[1024] = "";

	EXPECT_EQ(0, log_lines(self->kmsg, line)) TH_LOG("%s", line);
}

TEST_F(log, is_quiet)
{
	const long calls = NR_CALLS * seconds();
	pid_t pid = fork_user(MALLORY);
	long i;

	if (!pid) {
		signal(SIGPIPE, SIG_IGN);
		for (i = 0; i < calls; i++)
			variant->attack();
		_exit(nr_wrong ? 1 : 0);
	}
	EXPECT_EQ(0, reap(pid));
}

/*
 * A FUSE server that answers with pages of a pipe, which the page cache is
 * asked to take: it does not, and does not complain about them.
 */
#define NR_READ 1

FIXTURE(fuse_log)
{
	int kmsg;
	int root;
	struct server *server;
	pid_t pid;
};

FIXTURE_VARIANT(fuse_log)
{
	unsigned int flags;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(fuse_log, given) { SPLICE_F_GIFT | SPLICE_F_MOVE };
FIXTURE_VARIANT_ADD(fuse_log, gift) { SPLICE_F_GIFT };
/* clang-format on */

FIXTURE_SETUP(fuse_log)
{
	self->kmsg = geteuid() ? -1 : log_open();
	if (self->kmsg < 0 || access("/dev/fuse", R_OK | W_OK))
		SKIP(return, "no FUSE here, or the log cannot be read");
	self->server = mmap(NULL, sizeof(*self->server), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->server);
	self->server->answer = true;
	self->server->splice = variant->flags;
	self->root = served_file(self->server, MALLORY, &self->pid);
	ASSERT_LE(0, self->root);
}

FIXTURE_TEARDOWN(fuse_log)
{
	char line[1024] = "";

	EXPECT_EQ(0, log_lines(self->kmsg, line)) TH_LOG("%s", line);
	kill(self->pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, reap(self->pid));
}

static void read_over_and_over(int root)
{
	int file = reopen(root, O_RDONLY), i;

	for (i = 0; i < NR_READ; i++)
		if (file_size(file) != MIB ||
		    pread_pattern(file, 0, MIB, 0, LATER_SEED) ||
		    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
			_exit(1);
	_exit(0);
}

TEST_F(fuse_log, is_quiet)
{
	pid_t pid = fork_user(MALLORY);

	if (!pid)
		read_over_and_over(self->root);
	EXPECT_EQ(0, reap(pid));
	EXPECT_LE(NR_READ * (int)(MIB / 128 / KIB), self->server->asked);
}

FLIP_HARNESS_MAIN
