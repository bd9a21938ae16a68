// SPDX-License-Identifier: GPL-2.0-only
/* The engine of the page flip's races; page_flip_race.h has its contracts. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "page_flip_race.h"

/* All races of a program together. */
struct total {
	atomic_ulong given;
	atomic_ulong moved;
	atomic_ulong taken;
	pid_t pid;
};

static struct total *total;

/* The place of a word, and what it adds to the check, which all have in common. */
static uint64_t places[WORDS];

static void make_places(void)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		places[i] = (uint64_t)i << 43 |
			    (i + 1) * 0xd6e8feb86659fd93ULL >> 53;
}

/* All words of a page differ from this by their place alone. */
static uint64_t page_word(unsigned int page, uint32_t gen)
{
	uint64_t w = (uint64_t)page << 52 | (uint64_t)gen << 11;

	return w | (w ^ w >> 29) * 0xd6e8feb86659fd93ULL >> 53;
}

uint64_t make_word(unsigned int page, unsigned int place, uint32_t gen)
{
	return page_word(page, gen) ^ places[place];
}

static unsigned int page_of(uint64_t w)
{
	return w >> 52;
}

static unsigned int place_of(uint64_t w)
{
	return w >> 43 & 511;
}

static uint32_t gen_of(uint64_t w)
{
	return w >> 11;
}

static bool is_word(uint64_t w)
{
	return w == make_word(page_of(w), place_of(w), gen_of(w));
}

void fill_page(uint64_t *to, unsigned int page, uint32_t gen)
{
	const uint64_t w = page_word(page, gen);
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		to[i] = w ^ places[i];
}

/* How many words from the first one on are of page @nr. */
static unsigned int same_words(const uint64_t *page, unsigned int nr,
			       uint32_t gen)
{
	const uint64_t w = page_word(nr, gen);
	unsigned int i;

	for (i = 0; i < WORDS && page[i] == (w ^ places[i]); i++)
		;
	return i;
}

/*
 * A copy may be cut between any two bytes: one word is neither then.  That of a
 * second taker and the one that looks overtake each other a few times at most.
 */
static bool is_torn(const uint64_t *page)
{
	unsigned int i, cut = 0;

	for (i = 0; i < WORDS; i++) {
		if (!page[i])
			continue;
		if (!is_word(page[i]) || place_of(page[i]) != i)
			cut++;
		else if (gen_of(page[i]) >= CHILD_MARK)
			return false;
	}
	return cut <= 3;
}

static enum shape shape_of(const uint64_t *page)
{
	const uint64_t w = page[0];
	const unsigned int same = same_words(page, page_of(w), gen_of(w));

	if (same == WORDS)
		return gen_of(w) < CHILD_MARK ? WHOLE : WRONG;
	if (zero_check(page, PAGE) < 0)
		return BLANK;
	if (!is_torn(page))
		return WRONG;
	if (same && zero_check(page + same + 1, PAGE - 8 * (same + 1)) < 0)
		return CUT_OFF;
	return TORN;
}

/* What takes no new memory first, which a full group might kill for. */
void fail(struct side *s, const char *why, unsigned long a, unsigned long b)
{
	struct arena *arena = s->arena;
	const int err = errno;

	arena->stop = true;
	if (atomic_exchange(&arena->failed, true))
		return;
	strncpy(arena->why, why, sizeof(arena->why) - 1);
	snprintf(arena->why, sizeof(arena->why), "%s: %#lx, %#lx (%s)", why, a,
		 b, strerror(err));
}

unsigned int pick(struct side *s, unsigned int below)
{
	return rand_r(&s->rng) % below;
}

static unsigned int flags_of(const struct arena *a)
{
	return acts[a->what].flags;
}

/* It is done to this side. */
static bool disturbed(const struct side *s, unsigned int how)
{
	return s->arena->where == s->where && flags_of(s->arena) & how;
}

/* What is done to the memory of who takes is seen by nobody else. */
static bool is_allowed(const struct side *s, unsigned int how)
{
	const enum where where = s->arena->where;
	unsigned int flags = acts[s->arena->op].flags;
	bool takes = where == TAKER || (where == OPERATOR && flags & READS);

	if (!takes || s->where == where)
		flags |= flags_of(s->arena);
	return flags & how;
}

/*
 * Where a page may go through the pipe in two parts, nobody else may use that
 * end of it between them.
 */
static bool is_guarded(const struct arena *a, unsigned int end)
{
	if (!(flags_of(a) & (MAY_FAULT | MAY_LOSE)) ||
	    !(acts[a->op].flags & end))
		return false;
	return end == READS || a->where != TAKER;
}

static void lock_end(const struct arena *a, unsigned int end, short how)
{
	struct flock lock = { .l_type = how, .l_start = end, .l_len = 1 };

	if (is_guarded(a, end))
		while (fcntl(a->fd, F_SETLKW, &lock) && errno == EINTR)
			;
}

/* A copy by the kernel: fails where a load or store would be a signal. */
static bool copy_out(char *to, const char *from, size_t len)
{
	struct iovec mine = { to, len }, theirs = { (void *)from, len };

	return process_vm_readv(getpid(), &mine, 1, &theirs, 1, 0) ==
	       (ssize_t)len;
}

static bool copy_in(char *to, const char *from, size_t len)
{
	struct iovec mine = { (void *)from, len }, theirs = { to, len };

	return process_vm_writev(getpid(), &mine, 1, &theirs, 1, 0) ==
	       (ssize_t)len;
}

char *page_at(struct side *s, unsigned int nr)
{
	return s->mem + nr * PAGE;
}

void pick_range(struct side *s, unsigned int *from, unsigned int *nr)
{
	if (s->arena->kind != MEM_4K && pick(s, 4)) {
		*nr = pick(s, 3) ? 512 : 16;
		*from = pick(s, NR_PAGES / *nr) * *nr;
		return;
	}
	*from = pick(s, NR_PAGES);
	*nr = 1 + pick(s, 64);
	if (*nr > NR_PAGES - *from)
		*nr = NR_PAGES - *from;
}

/*
 * The first half may have 2 MiB folios, the second one 64 KiB folios at most, as
 * a larger one would not lie in what is advised.
 */
void advise(struct side *s, char *mem)
{
	if (s->arena->kind == MEM_4K) {
		madvise(mem, LEN, MADV_NOHUGEPAGE);
		return;
	}
	madvise(mem, PMD, MADV_HUGEPAGE);
	madvise(mem + PMD, PMD - 16 * PAGE, MADV_HUGEPAGE);
}

void check_unseen(struct side *s, const uint64_t *page)
{
	const uint64_t w = page[s->arena->gen % WORDS];

	if (w && is_word(w) && gen_of(w) >= CHILD_MARK)
		fail(s, "the giver sees a mark", w, page_of(w));
}

/* For KSM to find. */
static void copy_to_twin(struct side *s, unsigned int nr)
{
	if (s->twin && !pick(s, 8))
		memcpy(s->twin + nr * PAGE, page_at(s, nr), PAGE);
}

void fill_range(struct side *s, unsigned int from, unsigned int nr,
		uint32_t gen)
{
	uint64_t words[WORDS];
	unsigned int i;

	for (i = from; i < from + nr; i++) {
		if (disturbed(s, MAY_FAULT | MAY_LOSE)) {
			fill_page(words, i, gen);
			copy_in(page_at(s, i), (char *)words, PAGE);
			continue;
		}
		check_unseen(s, (uint64_t *)page_at(s, i));
		fill_page((uint64_t *)page_at(s, i), i, gen);
		if (s->twin)
			check_unseen(s, (uint64_t *)(s->twin + i * PAGE));
		copy_to_twin(s, i);
	}
}

/* The error is one that the flags and the race explain. */
static bool is_explained(struct side *s, unsigned int flags)
{
	const int err = errno;

	if (err == EFAULT)
		return disturbed(s, MAY_FAULT);
	if (err == ENOMEM) {
		s->arena->nomem++;
		return disturbed(s, MAY_NOMEM);
	}
	if (err == EPIPE)
		return s->arena->stop;
	if (err == EAGAIN)
		return flags & (SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK);
	if (err == EOPNOTSUPP)
		return flags & SPLICE_F_NOCOPY;
	return false;
}

void check_error(struct side *s, const char *call, unsigned int flags)
{
	if (!is_explained(s, flags))
		fail(s, call, flags, 0);
}

unsigned int pick_flags(struct side *s)
{
	static const unsigned int flags[] = {
		0,
		0,
		0,
		SPLICE_F_NOCOPY,
		SPLICE_F_NONBLOCK,
		SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK,
	};

	return flags[pick(s, ARRAY_SIZE(flags))];
}

void complete_page(struct side *s, ssize_t n)
{
	static const char zeroes[PAGE];

	if (!disturbed(s, MAY_FAULT | MAY_LOSE))
		fail(s, "part of a page given", n, 0);
	else
		write_all(s->fds[1], zeroes, PAGE - n % PAGE);
}

void give_range(struct side *s, unsigned int from, unsigned int nr)
{
	const unsigned int flags = pick_flags(s);
	ssize_t n = give(s->fds[1], page_at(s, from), nr * PAGE, flags);

	if (n < 0)
		check_error(s, "give", flags);
	if (n <= 0)
		return;
	s->arena->given += n / PAGE;
	if (n % PAGE)
		complete_page(s, n);
}

static void give_on(struct side *s)
{
	unsigned int from, nr;

	while (!s->arena->stop) {
		pick_range(s, &from, &nr);
		fill_range(s, from, nr, ++s->arena->gen);
		lock_end(s->arena, WRITES, F_WRLCK);
		give_range(s, from, nr);
		lock_end(s->arena, WRITES, F_UNLCK);
	}
}

static const char *const shapes[] = {
	[WHOLE] = "a whole page",     [BLANK] = "a page of zeroes",
	[CUT_OFF] = "a page cut off", [TORN] = "a torn page",
	[WRONG] = "a wrong page",
};

/*
 * Pages come in the order in which they were given, each once, and none is left
 * out between those of one generation.  Not where memory was given twice, or is
 * not what the giver has stored, and not if somebody else gives or takes.
 */
static void check_order(struct side *s, uint64_t w)
{
	const uint64_t now = (uint64_t)gen_of(w) << 12 | page_of(w);
	const uint64_t was = s->last;
	const unsigned int flags = flags_of(s->arena),
			   op = acts[s->arena->op].flags;

	if (s->where != TAKER || op & (WRITES | MAY_BLANK) ||
	    flags & (MAY_FAULT | MAY_LOSE | MAY_TEAR))
		return;
	s->last = now;
	if (now <= was)
		fail(s, "a page again, or too late", now, was);
	if (now >> 12 == was >> 12 && now != was + 1 &&
	    !((flags | op) & (MAY_BLANK | READS)))
		fail(s, "a page is missing before", now, was);
}

/* A page that came out of the pipe. */
static void check_page(struct side *s, const uint64_t *page)
{
	const enum shape shape = shape_of(page);

	s->arena->arrived[shape]++;
	if (shape != WHOLE && !is_allowed(s, 1 << shape))
		fail(s, shapes[shape], page[0], page[1]);
	else if (shape == WHOLE && gen_of(page[0]) > s->arena->gen)
		fail(s, "a generation to come", page[0], s->arena->gen);
	else if (shape == WHOLE)
		check_order(s, page[0]);
}

/* Where it came to: it may be gone by now. */
static void check_page_at(struct side *s, const char *page)
{
	uint64_t words[WORDS];

	if (!disturbed(s, MAY_FAULT | MAY_LOSE))
		check_page(s, (const uint64_t *)page);
	else if (copy_out((char *)words, page, PAGE))
		check_page(s, words);
}

void check_bytes(struct side *s, const char *buf, ssize_t n)
{
	ssize_t off;

	for (off = 0; off + PAGE <= n; off += PAGE)
		check_page_at(s, buf + off);
	if (n > 0 && n % PAGE && !is_allowed(s, MAY_FAULT | MAY_LOSE))
		fail(s, "part of a page came", n, 0);
}

void check_marks(struct side *s)
{
	unsigned int i, same;

	for (i = s->marked_from; i < s->marked_from + s->marked_nr; i++) {
		const uint64_t *page = (uint64_t *)page_at(s, i);

		same = same_words(page, i, s->mark);
		if (same < WORDS)
			fail(s, "a taken page, and a word of it", i,
			     page[same]);
	}
	s->marked_nr = 0;
}

static void mark_range(struct side *s, unsigned int from, unsigned int nr)
{
	unsigned int i;

	s->marked_from = from;
	s->marked_nr = nr;
	s->mark = TAKEN_MARK | s->arena->gen;
	for (i = from; i < from + nr; i++) {
		fill_page((uint64_t *)page_at(s, i), i, s->mark);
		copy_to_twin(s, i);
	}
}

void check_range(struct side *s, unsigned int from, unsigned int nr)
{
	unsigned int i;

	for (i = from; i < from + nr; i++)
		check_page_at(s, page_at(s, i));
	if (!disturbed(s, MAY_FAULT | MAY_LOSE | MAY_TEAR))
		mark_range(s, from, nr);
}

void skip_rest(struct side *s, ssize_t n)
{
	char rest[PAGE];

	if (!is_allowed(s, MAY_FAULT | MAY_LOSE))
		fail(s, "part of a page taken", n, 0);
	else
		read_all(s->fds[0], rest, PAGE - n % PAGE);
}

/* Whoever keeps others from the pipe does not wait for data. */
static ssize_t take_pages(struct side *s, char *mem, size_t len,
			  unsigned int flags)
{
	struct arena *a = s->arena;
	ssize_t n;
	int err;

	if (is_guarded(a, READS))
		flags |= SPLICE_F_NONBLOCK;
	lock_end(a, READS, F_WRLCK);
	n = take(s->fds[0], mem, len, flags);
	err = errno;
	if (n > 0 && n % PAGE)
		skip_rest(s, n);
	lock_end(a, READS, F_UNLCK);
	errno = err;
	if (n < 0)
		check_error(s, "take", flags);
	if (n < 0 && is_guarded(a, READS))
		usleep(100);
	return n;
}

/* One take and its check; false: nobody gives any more. */
static bool take_range(struct side *s, unsigned int from, unsigned int nr)
{
	ssize_t n;

	check_marks(s);
	n = take_pages(s, page_at(s, from), nr * PAGE, pick_flags(s));
	if (n > 0)
		check_range(s, from, n / PAGE);
	return n;
}

/* A giver that waits is told by the end of the last reader. */
static void take_on(struct side *s)
{
	unsigned int from, nr;

	while (!s->arena->stop) {
		pick_range(s, &from, &nr);
		if (!take_range(s, from, nr))
			return;
		if (!pick(s, 8)) {
			check_marks(s);
			madvise(page_at(s, from), nr * PAGE, MADV_DONTNEED);
		}
	}
}

static void prepare(struct side *s, const struct act *act)
{
	if (!act->prepare || !act->prepare(s))
		return;
	s->arena->stop = true;
	_exit(KSFT_SKIP);
}

static void *disturb_on(void *arg)
{
	struct side *s = arg;

	while (!s->arena->stop) {
		s->idle = false;
		acts[s->arena->what].perform(s);
		if (!s->idle)
			s->arena->disturbed++;
	}
	return NULL;
}

/*
 * Until the end of the process; the disturbance is a thread beside it, whose
 * choices are its own, or they would depend on each other.
 */
static void work_on(struct side *s, void (*work)(struct side *s))
{
	struct arena *a = s->arena;
	struct side beside;
	pthread_t thread;

	if (a->where != s->where || flags_of(a) & APART) {
		work(s);
		_exit(0);
	}
	prepare(s, &acts[a->what]);
	beside = *s;
	beside.rng += 100;
	if (pthread_create(&thread, NULL, disturb_on, &beside))
		_exit(1);
	work(s);
	pthread_join(thread, NULL);
	_exit(0);
}

/* The life of the giver and the taker. */
static void run_side(struct side *s)
{
	s->mem = s->arena->mem[s->where];
	advise(s, s->mem);
	work_on(s, s->where == GIVER ? give_on : take_on);
}

static void enter_group(const struct arena *a, enum where where)
{
	if (memcg_enter(race_group(a, where)))
		_exit(1);
}

/*
 * A process keeps the ends of the pipe open, and puts another one in the place
 * of each side that has died of the disturbance.  It is outside of the group,
 * in which somebody can always be killed then: where nobody can, system calls
 * fail, and a signal ends who cannot be told on which processor it runs.
 */
static void keep_alive(struct side *s)
{
	int status;
	pid_t pid;

	do {
		s->rng += 1000 * ++s->arena->lives;
		pid = fork_child();
		if (!pid) {
			enter_group(s->arena, s->where);
			run_side(s);
		}
		status = reap(pid);
	} while (status == RACE_GOES_ON || status == 128 + SIGKILL);
	_exit(status);
}

/* A process of its own for what is done to the machine, or to the group. */
static void run_disturber(struct side *s)
{
	prepare(s, &acts[s->arena->what]);
	disturb_on(s);
	_exit(0);
}

static void operate_on(struct side *s)
{
	struct arena *a = s->arena;
	const unsigned int ends = acts[a->op].flags & (READS | WRITES);

	while (!a->stop) {
		s->idle = false;
		lock_end(a, ends, F_WRLCK);
		acts[a->op].perform(s);
		lock_end(a, ends, F_UNLCK);
		if (s->idle)
			usleep(100);
		else
			a->operated++;
	}
	check_marks(s);
}

static void run_operator(struct side *s)
{
	prepare(s, &acts[s->arena->op]);
	if (s->mem)
		advise(s, s->mem);
	work_on(s, operate_on);
}

/* A signal where there are no readers would hide the error. */
static void run(struct side *s)
{
	signal(SIGPIPE, SIG_IGN);
	if (s->where == NEITHER)
		run_disturber(s);
	if (s->where == OPERATOR)
		run_operator(s);
	if (disturbed(s, DIES))
		keep_alive(s);
	run_side(s);
}

static pid_t spawn_side(struct arena *a, int fds[2], enum where where)
{
	struct side s = {
		.arena = a,
		.where = where,
		.rng = a->seed + where,
		.fds = { fds[0], fds[1] },
		.uffd = -1,
	};
	pid_t pid = fork_child();
	bool writes;

	if (pid)
		return pid;
	enter_group(a, disturbed(&s, DIES) ? NEITHER : where);
	/* Who may wait for others holds no end that they would go on for. */
	writes = where == GIVER ||
		 (where == OPERATOR && acts[a->op].flags & WRITES);
	close(fds[!writes]);
	s.fds[!writes] = -1;
	run(&s);
	return -1;
}

#define REMEMBER "FLIP_RACE_SIDE"

int race_remember(struct side *s)
{
	char text[80];

	snprintf(text, sizeof(text), "%d %u %d %d", s->arena->fd, s->where,
		 s->fds[0], s->fds[1]);
	return setenv(REMEMBER, text, 1);
}

static struct arena *map_arena(int fd)
{
	void *a = mmap(NULL, sizeof(struct arena), PROT_READ | PROT_WRITE,
		       MAP_SHARED, fd, 0);

	return a == MAP_FAILED ? NULL : a;
}

/* With nothing but what execve() leaves. */
static void go_on(const char *text)
{
	struct side s = { .uffd = -1 };
	int fd;

	if (sscanf(text, "%d %u %d %d", &fd, &s.where, &s.fds[0], &s.fds[1]) !=
	    4)
		_exit(1);
	s.arena = map_arena(fd);
	if (!s.arena)
		_exit(1);
	s.rng = s.arena->seed + s.where + 1000 * ++s.arena->lives;
	s.arena->mem[s.where] = map_mem(LEN);
	signal(SIGPIPE, SIG_IGN);
	run_side(&s);
}

static void say_total(void)
{
	if (total->pid == getpid())
		printf("# in all: %lu pages given, %lu of them moved; %lu mapped by a take\n",
		       total->given, total->moved, total->taken);
}

static __attribute__((constructor)) void begin(void)
{
	const char *text = getenv(REMEMBER);

	make_places();
	if (text)
		go_on(text);
	total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (total == MAP_FAILED)
		exit(1);
	total->pid = getpid();
	atexit(say_total);
}

void race_count(const struct arena *a, const struct flip_counts *before,
		const struct flip_counts *after)
{
	total->given += a->given;
	total->moved += after->nr[GIVEN] - before->nr[GIVEN];
	total->taken += after->nr[TAKEN] - before->nr[TAKEN];
}

unsigned int race_seed(void)
{
	const char *text = getenv("FLIP_SEED");

	if (text)
		return strtoul(text, NULL, 0);
	return time(NULL) ^ getpid() << 16;
}

long race_ms(double otherwise)
{
	const char *text = getenv("FLIP_RACE_SECONDS");

	return 1000 * (text ? strtod(text, NULL) : otherwise);
}

/* What is not there is not needed. */
int race_keep_settings(void)
{
	static const char *const knobs[] = {
		RACE_KSM "run",
		RACE_KSM "sleep_millisecs",
		RACE_KSM "pages_to_scan",
		RACE_KSM "smart_scan",
		RACE_CPU,
		RACE_KHUGEPAGED "scan_sleep_millisecs",
		RACE_KHUGEPAGED "alloc_sleep_millisecs",
		RACE_KHUGEPAGED "pages_to_scan",
		"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled",
	};
	const char *keep[ARRAY_SIZE(knobs)];
	const char *const folios = knobs[ARRAY_SIZE(knobs) - 1];
	size_t i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		if (!access(knobs[i], W_OK))
			keep[nr++] = knobs[i];
	if (sysctl_keep(keep, nr))
		return -1;
	return access(folios, W_OK) ? 0 : sysctl_write(folios, "madvise");
}

struct arena *race_arena(enum act_nr what, enum where where)
{
	int fd = memfd_create("race", 0);
	struct arena *a;

	if (fd < 0 || ftruncate(fd, sizeof(*a)))
		return NULL;
	a = map_arena(fd);
	if (!a)
		return NULL;
	a->fd = fd;
	a->what = what;
	a->where = where;
	a->seed = race_seed();
	a->apart = a->seed & 2 || flags_of(a) & MAY_NOMEM;
	return a;
}

const char *race_group(const struct arena *a, enum where where)
{
	static const char *const groups[] = {
		[GIVER] = RACE_GROUP "/giver",
		[TAKER] = RACE_GROUP "/taker",
		[NEITHER] = RACE_GROUP "/others",
		[OPERATOR] = RACE_GROUP "/others",
	};

	return a->apart ? groups[where] : RACE_GROUP;
}

int race_surroundings(struct arena *a)
{
	enum where where;

	if (memcg_new(RACE_GROUP))
		return -1;
	for (where = GIVER; a->apart && where <= NEITHER; where++)
		if (memcg_new(race_group(a, where)))
			return -1;
	if (flags_of(a) & SWAPS && swap_available(BACKING_EXT4))
		return swap_space(BACKING_EXT4, 2 * LEN);
	return 0;
}

/* Everybody who takes part has done something. */
static bool is_race(const struct arena *a)
{
	return a->arrived[WHOLE] && (a->operated || a->op == NOTHING) &&
	       (a->disturbed || !acts[a->what].perform);
}

/* The time that was asked for, and more if that was not all by then. */
static void wait_for_race(struct arena *a, long ms)
{
	const long taken = vmstat_get("flip_taken");
	struct timespec start;
	long past;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (; !a->stop; usleep(10000)) {
		past = elapsed_ms(&start);
		if (past < ms)
			continue;
		if ((is_race(a) && vmstat_get("flip_taken") > taken) ||
		    past > ms + 60000)
			break;
	}
}

static bool takes_part(const struct arena *a, enum where where)
{
	if (where == OPERATOR)
		return a->op != NOTHING;
	if (where == NEITHER)
		return flags_of(a) & APART ||
		       (a->where == NEITHER && a->what != NOTHING);
	return true;
}

/* The one that is told of the others is the last. */
int race_run(struct arena *a, int fds[2], long ms)
{
	static const enum where order[] = { TAKER, GIVER, OPERATOR, NEITHER };
	pid_t pid[NR_SIDES] = { 0 };
	int status = 0, one;
	size_t i;

	a->mem[GIVER] = map_mem(LEN);
	a->mem[TAKER] = map_mem(LEN);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		if (takes_part(a, order[i]))
			pid[order[i]] = spawn_side(a, fds, order[i]);
		a->pid[GIVER] = pid[GIVER];
		a->pid[TAKER] = pid[TAKER];
	}
	close(fds[0]);
	close(fds[1]);
	wait_for_race(a, ms);
	a->stop = true;
	for (i = ARRAY_SIZE(order); i-- > 0;) {
		one = pid[order[i]] ? reap(pid[order[i]]) : 0;
		status = status ?: one;
	}
	return status;
}
