// SPDX-License-Identifier: GPL-2.0-only
/*
 * Give and take against everything else that can happen to the memory and to
 * the machine at the same time; page_flip_race.h says what is checked.  What
 * else can happen to the pipe is in splice_race_test.c.
 *
 * Two races are of another kind: the pipe ends while it is used, and mremap()
 * wants the page tables that a take wants.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "page_flip_race_fixture.h"

/* clang-format off */
FIXTURE_VARIANT_ADD(race, map_over_giver) { MAP_OVER, GIVER };
FIXTURE_VARIANT_ADD(race, map_over_taker) { MAP_OVER, TAKER };
FIXTURE_VARIANT_ADD(race, mlock_giver) { MLOCK, GIVER };
FIXTURE_VARIANT_ADD(race, mlock_taker) { MLOCK, TAKER };
FIXTURE_VARIANT_ADD(race, uffd_move_giver) { UFFD_MOVE, GIVER };
FIXTURE_VARIANT_ADD(race, uffd_move_taker) { UFFD_MOVE, TAKER };
FIXTURE_VARIANT_ADD(race, khugepaged_giver) { KHUGEPAGED, GIVER };
FIXTURE_VARIANT_ADD(race, khugepaged_taker) { KHUGEPAGED, TAKER };
FIXTURE_VARIANT_ADD(race, split_giver) { SPLIT, GIVER };
FIXTURE_VARIANT_ADD(race, split_taker) { SPLIT, TAKER };
FIXTURE_VARIANT_ADD(race, thp_giver) { THP, GIVER };
FIXTURE_VARIANT_ADD(race, thp_taker) { THP, TAKER };
FIXTURE_VARIANT_ADD(race, look_giver) { LOOK, GIVER };
FIXTURE_VARIANT_ADD(race, look_taker) { LOOK, TAKER };
FIXTURE_VARIANT_ADD(race, migrate) { MIGRATE, NEITHER };
FIXTURE_VARIANT_ADD(race, reclaim) { RECLAIM, NEITHER };
FIXTURE_VARIANT_ADD(race, peek) { PEEK, NEITHER };
FIXTURE_VARIANT_ADD(race, share_giver) { SHARE, GIVER };
FIXTURE_VARIANT_ADD(race, share_taker) { SHARE, TAKER };
FIXTURE_VARIANT_ADD(race, direct_giver) { DIRECT, GIVER };
FIXTURE_VARIANT_ADD(race, direct_taker) { DIRECT, TAKER };
/* clang-format on */

TEST_F_TIMEOUT(race, small_pages, 900)
{
	race_for(_metadata, self->arena, self->fds, 0.5);
}

/* Of 2 MiB in one half of the memory, of 64 KiB in the other. */
TEST_F_TIMEOUT(race, large_folios, 900)
{
	self->arena->kind = MEM_2M;
	race_for(_metadata, self->arena, self->fds, 0.5);
}

/*
 * The ends of a pipe are closed while threads give to it and take from it, and
 * while the memory of one of them, or the machine, is disturbed: what arrives is
 * right, and nothing is left behind.
 */
struct closing {
	struct side giver;
	struct side taker;
	struct side disturber;
	int fds[2];
	pthread_barrier_t begin;
	pthread_barrier_t end;
};

static void *close_giver(void *arg)
{
	struct closing *c = arg;
	struct side *s = &c->giver;

	for (;;) {
		pthread_barrier_wait(&c->begin);
		if (s->arena->stop)
			return NULL;
		while (give(c->fds[1], s->mem, LEN, SPLICE_F_NONBLOCK) >= 0 ||
		       errno == EAGAIN)
			sched_yield();
		if (errno != EBADF && errno != EPIPE)
			fail(s, "give", 0, 0);
		pthread_barrier_wait(&c->end);
	}
}

static void *close_taker(void *arg)
{
	struct closing *c = arg;
	struct side *s = &c->taker;
	ssize_t n;

	for (;;) {
		pthread_barrier_wait(&c->begin);
		if (s->arena->stop)
			return NULL;
		do {
			n = take(c->fds[0], s->mem, LEN, SPLICE_F_NONBLOCK);
			check_bytes(s, s->mem, n);
			sched_yield();
		} while (n > 0 || (n < 0 && errno == EAGAIN));
		if (n < 0 && errno != EBADF)
			fail(s, "take", 0, 0);
		pthread_barrier_wait(&c->end);
	}
}

static void *close_disturber(void *arg)
{
	struct closing *c = arg;
	struct side *s = &c->disturber;
	const struct act *act = &acts[s->arena->what];

	while (act->perform && !s->arena->stop)
		act->perform(s);
	return NULL;
}

/* One pipe's life; which end goes first is a matter of chance. */
static void close_once(struct closing *c)
{
	struct side *s = &c->giver;
	const int first = pick(s, 2);
	unsigned int i;

	if (pipe_of(c->fds, 64))
		fail(s, "pipe", 0, 0);
	s->arena->gen++;
	for (i = 0; i < NR_PAGES; i += 1 + pick(s, 3))
		fill_page((uint64_t *)page_at(s, i), i, s->arena->gen);
	pthread_barrier_wait(&c->begin);
	usleep(pick(s, 3000));
	close(c->fds[first]);
	usleep(pick(s, 100));
	close(c->fds[!first]);
	pthread_barrier_wait(&c->end);
}

FIXTURE(closed)
{
	struct arena *arena;
	struct closing c;
};

FIXTURE_VARIANT(closed)
{
	enum act_nr what;
	enum where where;
};

/* Without those that cut a page in two, which nobody could complete. */
/* clang-format off */
FIXTURE_VARIANT_ADD(closed, alone) { NOTHING, NEITHER };
FIXTURE_VARIANT_ADD(closed, fork_giver) { FORK, GIVER };
FIXTURE_VARIANT_ADD(closed, fork_taker) { FORK, TAKER };
FIXTURE_VARIANT_ADD(closed, pageout_giver) { PAGEOUT, GIVER };
FIXTURE_VARIANT_ADD(closed, pageout_taker) { PAGEOUT, TAKER };
FIXTURE_VARIANT_ADD(closed, collapse_giver) { COLLAPSE, GIVER };
FIXTURE_VARIANT_ADD(closed, collapse_taker) { COLLAPSE, TAKER };
FIXTURE_VARIANT_ADD(closed, userfault_giver) { USERFAULT, GIVER };
FIXTURE_VARIANT_ADD(closed, userfault_taker) { USERFAULT, TAKER };
FIXTURE_VARIANT_ADD(closed, compact) { COMPACT, NEITHER };
FIXTURE_VARIANT_ADD(closed, swapoff) { SWAPOFF, NEITHER };
FIXTURE_VARIANT_ADD(closed, hotplug) { HOTPLUG, NEITHER };
/* clang-format on */

static void closing_side(struct side *s, struct arena *a, enum where where)
{
	s->arena = a;
	s->where = where;
	s->rng = a->seed + where;
	s->fds[0] = -1;
	s->fds[1] = -1;
	s->uffd = -1;
	s->mem = map_mem(LEN);
	if (s->mem)
		advise(s, s->mem);
}

FIXTURE_SETUP(closed)
{
	struct closing *c = &self->c;
	struct arena *a;

	if (geteuid())
		SKIP(return, "needs root");
	a = race_arena(variant->what, variant->where);
	ASSERT_NE(NULL, a);
	self->arena = a;
	a->op = HOLES;
	a->kind = MEM_2M;
	if (race_keep_settings() || race_surroundings(a)) {
		undo_now();
		SKIP(return, "needs memory cgroups");
	}
	closing_side(&c->giver, a, GIVER);
	closing_side(&c->taker, a, TAKER);
	ASSERT_NE(NULL, c->giver.mem);
	ASSERT_NE(NULL, c->taker.mem);
	c->disturber = a->where == TAKER ? c->taker : c->giver;
	c->disturber.rng += 100;
	pthread_barrier_init(&c->begin, NULL, 3);
	pthread_barrier_init(&c->end, NULL, 3);
	signal(SIGPIPE, SIG_IGN);
}

FIXTURE_TEARDOWN(closed)
{
	EXPECT_EQ(0, undo_now());
}

/* The pipes there were. */
static int close_for(struct closing *c, long ms)
{
	struct arena *a = c->giver.arena;
	struct timespec start;
	long past = 0;
	int rounds;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (rounds = 0; !a->failed; rounds++) {
		if (past > (a->arrived[WHOLE] ? ms : ms + 60000))
			break;
		close_once(c);
		past = elapsed_ms(&start);
	}
	a->stop = true;
	pthread_barrier_wait(&c->begin);
	return rounds;
}

TEST_F_TIMEOUT(closed, pages_arrive, 900)
{
	void *(*const work[])(void *) = { close_giver, close_taker,
					  close_disturber };
	const long flying = flip_in_flight(0, 1000);
	struct arena *a = self->arena;
	const struct act *what = &acts[a->what];
	pthread_t thread[ARRAY_SIZE(work)];
	size_t i;

	if (what->prepare && what->prepare(&self->c.disturber))
		SKIP(return, "this machine cannot: %s", what->name);
	for (i = 0; i < ARRAY_SIZE(work); i++)
		ASSERT_EQ(0,
			  pthread_create(&thread[i], NULL, work[i], &self->c));
	TH_LOG("seed %u", a->seed);
	TH_LOG("%d pipes", close_for(&self->c, race_ms(0.5)));
	for (i = 0; i < ARRAY_SIZE(work); i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	TH_LOG("came %lu whole, %lu blank", a->arrived[WHOLE],
	       a->arrived[BLANK]);
	EXPECT_STREQ("", a->why);
	EXPECT_LT(0UL, a->arrived[WHOLE]);
	EXPECT_EQ(flying, flip_in_flight(flying, 10000));
}

/*
 * A folio that is taken across the border of two page tables needs the locks of
 * both.  mremap() of what lies beside needs the same two, in the order of what
 * it moves, and no lock that would keep the take away:
 *
 *	page table	|       first       |      second       |
 *	memory		| part |     | folio  folio |    | part |
 *	mremap()	  from <---------------------------> to
 *
 * A take that waits for the second lock with the first one held, against a part
 * that moves from the second to the first, stops two processors for ever.
 */
#define PART (64 * PAGE)

struct crossing {
	size_t len;
	struct side giver;
	struct side taker[2];
	struct side mover;
	atomic_ulong taken;
	atomic_ulong moves;
	atomic_int ended;
};

/*
 * A process of its own, whose memory the others need not hear of.  One word a
 * page: the border is what matters, and filling takes long.
 */
static pid_t cross_giver(struct crossing *c)
{
	struct side *s = &c->giver;
	pid_t pid = fork_child();
	unsigned int i;

	if (pid)
		return pid;
	close(s->fds[0]);
	while (!s->arena->stop) {
		s->arena->gen++;
		for (i = 0; i < c->len / PAGE; i++)
			*(uint64_t *)page_at(s, i) =
				make_word(i, 0, s->arena->gen);
		give_all(s->fds[1], s->mem, c->len, 0);
	}
	_exit(0);
}

/* What either of them took, or nothing, where the other one has just begun. */
static void check_crossed(struct side *s, size_t len)
{
	unsigned int i;
	uint64_t w;

	for (i = 0; i < len / PAGE; i++) {
		w = __atomic_load_n((uint64_t *)page_at(s, i),
				    __ATOMIC_RELAXED);
		if (w && w != make_word(w >> 52, 0, w >> 11))
			fail(s, "a page and its word", i, w);
		if ((uint32_t)(w >> 11) > s->arena->gen)
			fail(s, "a generation to come", w, s->arena->gen);
	}
}

static void cross_take(struct crossing *c, struct side *s)
{
	ssize_t n = take(s->fds[0], s->mem, c->len, 0);

	if (n < 0 || n % PAGE)
		fail(s, "take", n, c->len);
	if (n <= 0)
		return;
	c->taken++;
	check_crossed(s, c->len);
}

static void *cross_first_taker(void *arg)
{
	struct crossing *c = arg;

	while (!c->giver.arena->stop)
		cross_take(c, &c->taker[0]);
	c->ended++;
	return NULL;
}

static void *cross_second_taker(void *arg)
{
	struct crossing *c = arg;

	while (!c->giver.arena->stop)
		cross_take(c, &c->taker[1]);
	c->ended++;
	return NULL;
}

static void move_part(struct side *s, char *from, char *to)
{
	unsigned int i;

	if (mremap(from, PART, PART, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		fail(s, "mremap", (long)from, (long)to);
	for (i = 0; !s->arena->failed && i < PART / PAGE; i++)
		if (*(uint64_t *)(to + i * PAGE) != make_word(i, 1, 1))
			fail(s, "a page that was moved", i,
			     *(uint64_t *)(to + i * PAGE));
}

static void *cross_mover(void *arg)
{
	struct crossing *c = arg;
	struct side *s = &c->mover;
	unsigned int i;

	for (i = 0; i < PART / PAGE; i++)
		*(uint64_t *)page_at(s, i) = make_word(i, 1, 1);
	while (!s->arena->stop) {
		move_part(s, s->mem, s->twin);
		move_part(s, s->twin, s->mem);
		c->moves++;
	}
	c->ended++;
	return NULL;
}

FIXTURE(crossing)
{
	struct arena *arena;
	struct crossing c;
	pthread_t thread[3];
};

FIXTURE_VARIANT(crossing)
{
	enum mem_kind kind;
};

/* The larger one holds locks for longer, the smaller one takes more often. */
/* clang-format off */
FIXTURE_VARIANT_ADD(crossing, 64k) { MEM_64K };
FIXTURE_VARIANT_ADD(crossing, 2m) { MEM_2M };
/* clang-format on */

/* Two page tables, of which three separate areas are mapped. */
static int crossing_memory(struct crossing *c)
{
	char *mem = map_mem(2 * PMD), *high = mem + 2 * PMD - PART;
	char *border = mem + PMD, *from = border - c->len / 2;

	c->giver.mem = map_mem(c->len);
	if (!mem || !c->giver.mem ||
	    madvise(c->giver.mem, c->len, MADV_HUGEPAGE) ||
	    munmap(mem + PART, from - mem - PART) ||
	    munmap(from + c->len, high - from - c->len))
		return -1;
	c->taker[0].mem = from;
	c->taker[1].mem = from;
	c->mover.mem = mem;
	c->mover.twin = high;
	/* So that there is a second page table when the first part moves. */
	*high = 1;
	return 0;
}

FIXTURE_SETUP(crossing)
{
	struct crossing *c = &self->c;
	struct side *sides[] = { &c->giver, &c->taker[0], &c->taker[1],
				 &c->mover };
	struct arena *a = race_arena(NOTHING, NEITHER);
	int fds[2];
	size_t i;

	if (geteuid() || mem_kind_set(variant->kind))
		SKIP(return, "needs root and folios of that size");
	ASSERT_NE(NULL, a);
	self->arena = a;
	c->len = mem_kind_size(variant->kind);
	ASSERT_EQ(0, pipe_of(fds, 4));
	for (i = 0; i < ARRAY_SIZE(sides); i++) {
		sides[i]->arena = a;
		sides[i]->fds[0] = fds[0];
		sides[i]->fds[1] = fds[1];
	}
	if (crossing_memory(c))
		SKIP(return, "needs huge pages");
	signal(SIGPIPE, SIG_IGN);
}

FIXTURE_TEARDOWN(crossing)
{
	EXPECT_EQ(0, undo_now());
}

/*
 * With two processors both may be lost; it is the kernel then that says so.
 * Nothing is left to do for the threads that hang but to tell it in one line.
 */
#define HANG_MS 60000
#define NR_CROSSING 3

static bool cross_hangs(struct crossing *c)
{
	static unsigned long taken, moves;
	static struct timespec since;

	if (!since.tv_sec || (c->taken != taken && c->moves != moves)) {
		taken = c->taken;
		moves = c->moves;
		clock_gettime(CLOCK_MONOTONIC, &since);
	}
	return elapsed_ms(&since) > HANG_MS;
}

/*
 * Until all have ended, some time after they were told to; false: not so.  Who
 * waits for pages is told by the giver's end.
 */
static bool cross_for(struct crossing *c, long ms)
{
	struct arena *a = c->giver.arena;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (c->ended < NR_CROSSING && !cross_hangs(c)) {
		usleep(10000);
		if (!a->failed && (elapsed_ms(&start) < ms || !c->taken))
			continue;
		a->stop = true;
	}
	return c->ended == NR_CROSSING;
}

TEST_F_TIMEOUT(crossing, no_deadlock, 900)
{
	void *(*const work[NR_CROSSING])(void *) = { cross_first_taker,
						     cross_second_taker,
						     cross_mover };
	struct flip_counts before, after;
	struct crossing *c = &self->c;
	pid_t giver = cross_giver(c);
	size_t i;

	close(c->giver.fds[1]);
	ASSERT_EQ(0, flip_counts(&before));
	for (i = 0; i < NR_CROSSING; i++)
		ASSERT_EQ(0,
			  pthread_create(&self->thread[i], NULL, work[i], c));
	if (!cross_for(c, race_ms(1))) {
		TH_LOG("hang for %d s: %lu takes, %lu moves, %d of %d ended",
		       HANG_MS / 1000, c->taken, c->moves, c->ended,
		       NR_CROSSING);
		_exit(KSFT_FAIL);
	}
	for (i = 0; i < NR_CROSSING; i++)
		ASSERT_EQ(0, pthread_join(self->thread[i], NULL));
	close(c->giver.fds[0]);
	EXPECT_EQ(0, reap(giver));
	ASSERT_EQ(0, flip_counts(&after));
	TH_LOG("%lu takes, %ld pages moved, %ld copied as the tables changed, %lu moves",
	       c->taken, after.nr[TAKEN] - before.nr[TAKEN],
	       after.nr[COPIED_RACE] - before.nr[COPIED_RACE], c->moves);
	race_count(self->arena, &before, &after);
	EXPECT_STREQ("", self->arena->why);
	EXPECT_LT(before.nr[TAKEN], after.nr[TAKEN]);
}

FLIP_HARNESS_MAIN
