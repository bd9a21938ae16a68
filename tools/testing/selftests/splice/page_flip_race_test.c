// SPDX-License-Identifier: GPL-2.0-only
/*
 * Give and take against everything else that can happen to the memory and to
 * the pipe at the same time.  One process fills pages and gives them, another
 * takes and checks them, and meanwhile something is done over and over to the
 * memory of one of them, to the pipe, or to all memory.
 *
 * Every word of the data says which page of which generation it is of, and
 * where in it: each page that arrives must be one page of one generation, where
 * the race does not explain anything else.  What is taken is overwritten with
 * words of the taker's, which nobody else may see or alter.
 *
 * FLIP_RACE_SECONDS	length of each race (default 1; 30 shows more)
 * FLIP_SEED		repeat what a run with this seed chose
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
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
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "page_flip_util.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* What is given from, and taken to: two PMDs in each process. */
#define NR_PAGES 1024
#define LEN (NR_PAGES * PAGE)
#define WORDS (PAGE / 8)

/*
 * A word: page 12 bits, place 9, generation 32, check 11.  Generations begin at
 * 1, so that none is zero; those of takers and of forked children are marked.
 */
#define TAKEN_MARK 0x80000000U
#define CHILD_MARK 0x40000000U

static uint64_t make_word(unsigned int page, unsigned int place, uint32_t gen)
{
	uint64_t w = (uint64_t)page << 52 | (uint64_t)place << 43 |
		     (uint64_t)gen << 11;

	return w | (w ^ w >> 29) * 0xd6e8feb86659fd93ULL >> 53;
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

static void fill_page(uint64_t *to, unsigned int page, uint32_t gen)
{
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		to[i] = make_word(page, i, gen);
}

/* What the words of a page make together. */
enum shape {
	WHOLE, /* one page of one generation */
	BLANK, /* zeroes */
	CUT_OFF, /* the beginning of one page, then zeroes */
	TORN, /* words of the place, or zeroes, whatever page and generation */
	WRONG, /* anything else, or marked */
	NR_SHAPES,
};

/* How many words from the first one on are of the same page. */
static unsigned int same_words(const uint64_t *page)
{
	const unsigned int nr = page_of(page[0]);
	const uint32_t gen = gen_of(page[0]);
	unsigned int i;

	for (i = 0; i < WORDS && page[i] == make_word(nr, i, gen); i++)
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
	const unsigned int same = same_words(page);

	if (same == WORDS)
		return gen_of(page[0]) < CHILD_MARK ? WHOLE : WRONG;
	if (zero_check(page, PAGE) < 0)
		return BLANK;
	if (!is_torn(page))
		return WRONG;
	if (same && zero_check(page + same + 1, PAGE - 8 * (same + 1)) < 0)
		return CUT_OFF;
	return TORN;
}

/* What the races allow to arrive besides whole pages, and what they do. */
enum allowed {
	MAY_BLANK = 1 << BLANK,
	MAY_CUT = 1 << CUT_OFF,
	MAY_TEAR = 1 << TORN,
	/* The memory goes, or may not be touched, for a time. */
	MAY_FAULT = 1 << 8,
	/* The memory is replaced: what is stored may be lost with it. */
	MAY_LOSE = 1 << 9,
	/* It wants swap. */
	SWAPS = 1 << 10,
};

struct side;

/* What is done to the memory, or to the pipe, again and again. */
struct disturbance {
	const char *name;
	/* Once before; not 0: this machine cannot. */
	int (*prepare)(struct side *s);
	void (*disturb)(struct side *s);
	unsigned int allowed;
};

enum where { GIVER, TAKER, NEITHER };

/* Shared by all processes of a race. */
struct arena {
	const struct disturbance *what;
	enum where where;
	enum mem_kind kind;
	unsigned int seed;
	atomic_bool stop;
	atomic_bool failed;
	char why[160];
	atomic_uint gen;
	atomic_ulong given;
	atomic_ulong arrived[NR_SHAPES];
	/* Where the other processes find the memory. */
	pid_t pid[2];
	char *mem[2];
};

struct side {
	struct arena *arena;
	enum where where;
	unsigned int rng;
	char *mem;
	/* A second area: same contents, or where to go. */
	char *twin;
	int fds[2];
	int uffd;
	/* Pages of mem that are marked as taken. */
	unsigned int marked_from;
	unsigned int marked_nr;
	uint32_t mark;
};

/* The first one to fail says why, and what it saw. */
static void fail(struct side *s, const char *why, unsigned long a,
		 unsigned long b)
{
	const int err = errno;

	if (!atomic_exchange(&s->arena->failed, true))
		snprintf(s->arena->why, sizeof(s->arena->why),
			 "%s: %#lx, %#lx (%s)", why, a, b, strerror(err));
	s->arena->stop = true;
}

static unsigned int pick(struct side *s, unsigned int below)
{
	return rand_r(&s->rng) % below;
}

static bool disturbed(const struct side *s, unsigned int how)
{
	return s->arena->where == s->where && s->arena->what->allowed & how;
}

static bool is_allowed(const struct side *s, unsigned int how)
{
	return s->arena->what->allowed & how;
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

static char *page_at(struct side *s, unsigned int nr)
{
	return s->mem + nr * PAGE;
}

/* A range of pages, often what a large folio takes. */
static void pick_range(struct side *s, unsigned int *from, unsigned int *nr)
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
static void advise(struct side *s, char *mem)
{
	if (s->arena->kind == MEM_4K) {
		madvise(mem, LEN, MADV_NOHUGEPAGE);
		return;
	}
	madvise(mem, PMD, MADV_HUGEPAGE);
	madvise(mem + PMD, PMD - 16 * PAGE, MADV_HUGEPAGE);
}

/* Nobody but the giver has written here. */
static void check_unseen(struct side *s, const uint64_t *page)
{
	const uint64_t w = page[s->arena->gen % WORDS];

	if (w && is_word(w) && gen_of(w) >= CHILD_MARK)
		fail(s, "the giver sees a mark", w, page_of(w));
}

static void fill_range(struct side *s, unsigned int from, unsigned int nr,
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
		if (s->twin && !pick(s, 8)) {
			check_unseen(s, (uint64_t *)(s->twin + i * PAGE));
			memcpy(s->twin + i * PAGE, page_at(s, i), PAGE);
		}
	}
}

/* The errors that the flags and the race explain. */
static bool is_explained(struct side *s, int err, unsigned int flags)
{
	if (err == EFAULT)
		return disturbed(s, MAY_FAULT);
	if (err == EAGAIN)
		return flags & (SPLICE_F_NOCOPY | SPLICE_F_NONBLOCK);
	if (err == EOPNOTSUPP)
		return flags & SPLICE_F_NOCOPY;
	return false;
}

static unsigned int pick_flags(struct side *s)
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

/* Part of a page was given: complete it, so that the next one begins a page. */
static void complete_page(struct side *s, ssize_t n)
{
	static const char zeroes[PAGE];

	if (!disturbed(s, MAY_FAULT | MAY_LOSE))
		fail(s, "part of a page given", n, 0);
	else
		write_all(s->fds[1], zeroes, PAGE - n % PAGE);
}

static void give_range(struct side *s, unsigned int from, unsigned int nr)
{
	const unsigned int flags = pick_flags(s);
	ssize_t n = give(s->fds[1], page_at(s, from), nr * PAGE, flags);

	if (n < 0 && !is_explained(s, errno, flags))
		fail(s, "give", flags, nr);
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
		give_range(s, from, nr);
	}
}

static const char *const shapes[] = {
	[WHOLE] = "a whole page",     [BLANK] = "a page of zeroes",
	[CUT_OFF] = "a page cut off", [TORN] = "a torn page",
	[WRONG] = "a wrong page",
};

/* A page that came out of the pipe. */
static void check_page(struct side *s, const uint64_t *page)
{
	const enum shape shape = shape_of(page);

	s->arena->arrived[shape]++;
	if (shape != WHOLE && !is_allowed(s, 1 << shape))
		fail(s, shapes[shape], page[0], page[1]);
	else if (shape == WHOLE && gen_of(page[0]) > s->arena->gen)
		fail(s, "a generation to come", page[0], s->arena->gen);
}

/* Pages that were taken before: nobody has written to them since. */
static void check_marks(struct side *s)
{
	unsigned int i, j;

	for (i = s->marked_from; i < s->marked_from + s->marked_nr; i++) {
		const uint64_t *page = (uint64_t *)page_at(s, i);

		for (j = 0; j < WORDS; j++)
			if (page[j] != make_word(i, j, s->mark)) {
				fail(s, "a taken page, and a word of it", i,
				     page[j]);
				break;
			}
	}
	s->marked_nr = 0;
}

static void mark_range(struct side *s, unsigned int from, unsigned int nr)
{
	unsigned int i;

	s->marked_from = from;
	s->marked_nr = nr;
	s->mark = TAKEN_MARK | s->arena->gen;
	for (i = from; i < from + nr; i++)
		fill_page((uint64_t *)page_at(s, i), i, s->mark);
}

static void check_range(struct side *s, unsigned int from, unsigned int nr)
{
	uint64_t words[WORDS];
	unsigned int i;

	for (i = from; i < from + nr; i++) {
		if (!disturbed(s, MAY_FAULT | MAY_LOSE))
			check_page(s, (uint64_t *)page_at(s, i));
		else if (copy_out((char *)words, page_at(s, i), PAGE))
			check_page(s, words);
	}
	if (!disturbed(s, MAY_FAULT | MAY_LOSE | MAY_TEAR))
		mark_range(s, from, nr);
}

/* Read and forget what is left of a page that was taken in part. */
static void skip_rest(struct side *s, ssize_t n)
{
	char rest[PAGE];

	if (!is_allowed(s, MAY_FAULT | MAY_LOSE))
		fail(s, "part of a page taken", n, 0);
	else
		read_all(s->fds[0], rest, PAGE - n % PAGE);
}

/* One take and its check; false: nobody gives any more. */
static bool take_range(struct side *s, unsigned int from, unsigned int nr)
{
	const unsigned int flags = pick_flags(s);
	ssize_t n;

	check_marks(s);
	n = take(s->fds[0], page_at(s, from), nr * PAGE, flags);
	if (n < 0) {
		if (!is_explained(s, errno, flags))
			fail(s, "take", flags, nr);
		return true;
	}
	check_range(s, from, n / PAGE);
	if (n % PAGE)
		skip_rest(s, n);
	return n;
}

/* Until the end of the pipe, so that the giver never waits for ever. */
static void take_on(struct side *s)
{
	unsigned int from, nr;

	for (;;) {
		pick_range(s, &from, &nr);
		if (!take_range(s, from, nr))
			return;
		if (!pick(s, 8)) {
			check_marks(s);
			madvise(page_at(s, from), nr * PAGE, MADV_DONTNEED);
		}
	}
}

/* From here on: what is done to the memory, or to the pipe. */
static char *pick_pages(struct side *s, size_t *len)
{
	unsigned int from, nr;

	pick_range(s, &from, &nr);
	*len = nr * PAGE;
	return page_at(s, from);
}

static void map_anew(char *mem, size_t len)
{
	mmap(mem, len, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void do_unmap(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	munmap(mem, len);
	sched_yield();
	map_anew(mem, len);
	advise(s, s->mem);
}

static void do_map_over(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	map_anew(mem, len);
	advise(s, s->mem);
}

static int need_twin(struct side *s)
{
	s->twin = map_mem(LEN);
	return !s->twin;
}

/* Away, and back with what it held. */
static void do_mremap(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len), *to = s->twin + (mem - s->mem);

	if (mremap(mem, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return;
	sched_yield();
	if (mremap(to, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, mem) != mem)
		fail(s, "mremap", (long)mem, len);
}

static void do_advice(struct side *s, int advice)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	madvise(mem, len, advice);
}

static void do_dontneed(struct side *s)
{
	do_advice(s, MADV_DONTNEED);
}

static void do_free(struct side *s)
{
	do_advice(s, MADV_FREE);
	do_advice(s, MADV_PAGEOUT);
}

static void do_pageout(struct side *s)
{
	do_advice(s, MADV_PAGEOUT);
}

static void do_collapse(struct side *s)
{
	char *mem = s->mem + pick(s, 2) * PMD;

	madvise(mem, PMD, MADV_HUGEPAGE);
	madvise(mem, PMD, MADV_COLLAPSE);
	if (!pick(s, 4))
		advise(s, s->mem);
}

static void do_mprotect(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	mprotect(mem, len, pick(s, 2) ? PROT_READ : PROT_NONE);
	sched_yield();
	mprotect(mem, len, PROT_READ | PROT_WRITE);
}

static void do_mlock(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	mlock(mem, len);
	sched_yield();
	munlock(mem, len);
}

/* What the child writes stays in the child. */
static void do_fork(struct side *s)
{
	pid_t pid = fork();
	unsigned int i, j;

	if (pid) {
		if (pid > 0 && reap(pid))
			fail(s, "a child and its pages", pid, 0);
		return;
	}
	close(s->fds[0]);
	close(s->fds[1]);
	for (i = 0; i < NR_PAGES; i += 7)
		fill_page((uint64_t *)page_at(s, i), i, CHILD_MARK);
	sched_yield();
	for (i = 0; i < NR_PAGES; i += 7)
		for (j = 0; j < WORDS; j++)
			if (((uint64_t *)page_at(s, i))[j] !=
			    make_word(i, j, CHILD_MARK))
				_exit(1);
	_exit(0);
}

static int open_userfaultfd(struct side *s)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};

	s->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return s->uffd < 0 || ioctl(s->uffd, UFFDIO_API, &api);
}

/* Faults sleep until the range is let go again. */
static void do_userfault(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);
	struct uffdio_range range = { (uintptr_t)mem, len };
	struct uffdio_register reg = {
		.range = range,
		.mode = pick(s, 2) ? UFFDIO_REGISTER_MODE_WP :
				     UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_writeprotect wp = {
		.range = range,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	if (ioctl(s->uffd, UFFDIO_REGISTER, &reg))
		fail(s, "UFFDIO_REGISTER", (long)mem, len);
	if (reg.mode == UFFDIO_REGISTER_MODE_WP)
		ioctl(s->uffd, UFFDIO_WRITEPROTECT, &wp);
	sched_yield();
	/* Which wakes who waits for missing pages, but not all others. */
	if (ioctl(s->uffd, UFFDIO_UNREGISTER, &range) ||
	    ioctl(s->uffd, UFFDIO_WAKE, &range))
		fail(s, "UFFDIO_UNREGISTER", (long)mem, len);
}

#define KSM "/sys/kernel/mm/ksm/"

static int start_ksm(struct side *s)
{
	return access(KSM "run", W_OK) || need_twin(s) ||
	       sysctl_set(KSM "smart_scan", 0) ||
	       sysctl_set(KSM "sleep_millisecs", 0) ||
	       sysctl_set(KSM "pages_to_scan", 1000) ||
	       sysctl_set(KSM "run", 1);
}

static void do_ksm(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	madvise(s->twin, LEN, MADV_MERGEABLE);
	madvise(mem, len, MADV_MERGEABLE);
	usleep(1000 * pick(s, 20));
	madvise(mem, len, MADV_UNMERGEABLE);
}

#define SPLIT "/sys/kernel/debug/split_huge_pages"

static int can_split(struct side *s)
{
	return access(SPLIT, W_OK);
}

static void do_split(struct side *s)
{
	char text[80];

	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)s->mem, (unsigned long)s->mem + LEN);
	sysctl_write(SPLIT, text);
}

/* Somebody walks the page tables. */
static void do_look(struct side *s)
{
	static const char *const files[] = { "smaps", "numa_maps", "statm" };
	char path[64], buf[4096];
	int i, fd;

	present_pages(s->mem, LEN);
	huge_bytes(s->mem, LEN);
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
		fd = open(path, O_RDONLY);
		while (read(fd, buf, sizeof(buf)) > 0)
			;
		close(fd);
	}
}

/* Threads that keep changing processor leave pages in batches of each. */
static void do_migrate(struct side *s)
{
	const int nr = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(pick(s, nr), &set);
	sched_setaffinity(s->arena->pid[pick(s, 2)], sizeof(set), &set);
	usleep(500);
}

static int can_compact(struct side *s)
{
	return access("/proc/sys/vm/compact_memory", W_OK);
}

static void do_compact(struct side *s)
{
	sysctl_set("/proc/sys/vm/compact_memory", 1);
}

/* The memory cgroup that all processes of a race are in. */
#define GROUP "race"

static void do_reclaim(struct side *s)
{
	memcg_write(GROUP, "memory.reclaim", "1M swappiness=max");
	if (!pick(s, 8))
		sysctl_set("/proc/sys/vm/drop_caches", 2);
}

/* Another process reads the memory of both: references that come and go. */
static void do_peek(struct side *s)
{
	const enum where w = pick(s, 2);
	char buf[16 * PAGE];
	struct iovec mine = { buf, sizeof(buf) };
	struct iovec theirs = {
		s->arena->mem[w] + pick(s, NR_PAGES - 16) * PAGE, sizeof(buf)
	};

	process_vm_readv(s->arena->pid[w], &mine, 1, &theirs, 1, 0);
}

/* A second thread gives what the first one may be filling. */
static void do_give_too(struct side *s)
{
	unsigned int from, nr;

	pick_range(s, &from, &nr);
	give_range(s, from, nr);
}

/* A second thread takes to where the first one takes. */
static void do_take_too(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	take(s->fds[0], mem, len, SPLICE_F_NONBLOCK | pick_flags(s));
}

/* A second taker with memory of its own. */
static int need_memory(struct side *s)
{
	s->mem = map_mem(LEN);
	return !s->mem;
}

static void do_take_elsewhere(struct side *s)
{
	unsigned int from, nr;
	ssize_t n;

	pick_range(s, &from, &nr);
	check_marks(s);
	n = take(s->fds[0], page_at(s, from), nr * PAGE, SPLICE_F_NONBLOCK);
	if (n > 0)
		check_range(s, from, n / PAGE);
	else
		usleep(100);
}

static void do_resize(struct side *s)
{
	fcntl(s->fds[0], F_SETPIPE_SZ, (1 << pick(s, 11)) * PAGE);
}

/* Check @n bytes that came to @buf. */
static void check_bytes(struct side *s, const char *buf, ssize_t n)
{
	ssize_t off;

	for (off = 0; off + PAGE <= n; off += PAGE)
		check_page(s, (const uint64_t *)(buf + off));
	if (n > 0 && n % PAGE)
		fail(s, "part of a page came", n, 0);
}

static void do_read(struct side *s)
{
	struct pollfd p = { s->fds[0], POLLIN, 0 };

	/* Nothing to read would block, until the end of the race. */
	if (poll(&p, 1, 1) == 1 && bytes_queued(s->fds[0]) > 16 * PAGE)
		check_bytes(s, s->mem, read(s->fds[0], s->mem, 8 * PAGE));
}

/* A pipe of the disturber's own. */
static int own[2];

static int need_pipe(struct side *s)
{
	return need_memory(s) || pipe_of(own, 64);
}

static void do_tee(struct side *s)
{
	ssize_t n = tee(s->fds[0], own[1], 64 * PAGE, SPLICE_F_NONBLOCK);

	if (n > 0 && pick(s, 2))
		check_bytes(s, s->mem, read(own[0], s->mem, LEN));
	else if (n > 0)
		check_bytes(s, s->mem, take(own[0], s->mem, LEN, 0));
	else
		usleep(100);
	/* More than one buffer may have been taken in part. */
	while (bytes_queued(own[0]) > 0)
		check_bytes(s, s->mem, read(own[0], s->mem, LEN));
}

static void do_splice(struct side *s)
{
	ssize_t n = splice(s->fds[0], NULL, own[1], NULL, 64 * PAGE,
			   SPLICE_F_NONBLOCK);

	if (n <= 0) {
		usleep(100);
		return;
	}
	while (bytes_queued(own[0]) > 0)
		check_bytes(s, s->mem,
			    take(own[0], s->mem, pick(s, 2) ? LEN : 16 * PAGE,
				 0));
}

static int own_socket[2];

static int need_socket(struct side *s)
{
	return need_memory(s) || unix_pair(own_socket);
}

static void do_socket(struct side *s)
{
	ssize_t n = splice(s->fds[0], NULL, own_socket[1], NULL, 8 * PAGE,
			   SPLICE_F_NONBLOCK);

	if (n > 0 && !read_all(own_socket[0], s->mem, n))
		check_bytes(s, s->mem, n);
	else
		usleep(100);
}

/* What suits a PMD at one moment does not at the next. */
static void do_thp(struct side *s)
{
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	sched_yield();
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	usleep(pick(s, 200));
}

#define ZAP (MAY_LOSE | MAY_BLANK | MAY_CUT | MAY_TEAR)

/* clang-format off */
static const struct disturbance
	unmap = { "munmap and mmap", NULL, do_unmap, MAY_FAULT | ZAP },
	map_over = { "mmap over it", NULL, do_map_over, ZAP },
	mremapped = { "mremap", need_twin, do_mremap, MAY_FAULT | MAY_CUT | MAY_TEAR | MAY_BLANK },
	dontneed = { "MADV_DONTNEED", NULL, do_dontneed, ZAP },
	lazyfree = { "MADV_FREE", NULL, do_free, ZAP | SWAPS },
	pageout = { "MADV_PAGEOUT", NULL, do_pageout, SWAPS },
	collapse = { "MADV_COLLAPSE", NULL, do_collapse, 0 },
	protect = { "mprotect", NULL, do_mprotect, MAY_FAULT | MAY_CUT | MAY_BLANK },
	locked = { "mlock", NULL, do_mlock, 0 },
	forked = { "fork", NULL, do_fork, 0 },
	userfault = { "userfaultfd", open_userfaultfd, do_userfault, 0 },
	ksm = { "KSM", start_ksm, do_ksm, 0 },
	split = { "split", can_split, do_split, 0 },
	look = { "page table walks", NULL, do_look, 0 },
	migrate = { "migration of tasks", NULL, do_migrate, 0 },
	compact = { "compaction", can_compact, do_compact, 0 },
	reclaim = { "reclaim", NULL, do_reclaim, SWAPS },
	peek = { "process_vm_readv", NULL, do_peek, 0 },
	give_too = { "a second giver", NULL, do_give_too, MAY_BLANK | MAY_CUT | MAY_TEAR },
	take_too = { "a second taker", NULL, do_take_too, ZAP },
	take_elsewhere = { "a taker elsewhere", need_memory, do_take_elsewhere, 0 },
	resize = { "F_SETPIPE_SZ", NULL, do_resize, 0 },
	reader = { "read", need_memory, do_read, 0 },
	teed = { "tee", need_pipe, do_tee, 0 },
	spliced = { "splice", need_pipe, do_splice, 0 },
	thp = { "PR_SET_THP_DISABLE", NULL, do_thp, 0 },
	socket_too = { "splice to a socket", need_socket, do_socket, 0 };
/* clang-format on */

FIXTURE(race)
{
	struct arena *arena;
	int fds[2];
};

FIXTURE_VARIANT(race)
{
	const struct disturbance *what;
	enum where where;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(race, unmap_giver) { &unmap, GIVER };
FIXTURE_VARIANT_ADD(race, unmap_taker) { &unmap, TAKER };
FIXTURE_VARIANT_ADD(race, map_over_giver) { &map_over, GIVER };
FIXTURE_VARIANT_ADD(race, map_over_taker) { &map_over, TAKER };
FIXTURE_VARIANT_ADD(race, mremap_giver) { &mremapped, GIVER };
FIXTURE_VARIANT_ADD(race, mremap_taker) { &mremapped, TAKER };
FIXTURE_VARIANT_ADD(race, dontneed_giver) { &dontneed, GIVER };
FIXTURE_VARIANT_ADD(race, dontneed_taker) { &dontneed, TAKER };
FIXTURE_VARIANT_ADD(race, free_giver) { &lazyfree, GIVER };
FIXTURE_VARIANT_ADD(race, free_taker) { &lazyfree, TAKER };
FIXTURE_VARIANT_ADD(race, pageout_giver) { &pageout, GIVER };
FIXTURE_VARIANT_ADD(race, pageout_taker) { &pageout, TAKER };
FIXTURE_VARIANT_ADD(race, collapse_giver) { &collapse, GIVER };
FIXTURE_VARIANT_ADD(race, collapse_taker) { &collapse, TAKER };
FIXTURE_VARIANT_ADD(race, mprotect_giver) { &protect, GIVER };
FIXTURE_VARIANT_ADD(race, mprotect_taker) { &protect, TAKER };
FIXTURE_VARIANT_ADD(race, mlock_giver) { &locked, GIVER };
FIXTURE_VARIANT_ADD(race, mlock_taker) { &locked, TAKER };
FIXTURE_VARIANT_ADD(race, fork_giver) { &forked, GIVER };
FIXTURE_VARIANT_ADD(race, fork_taker) { &forked, TAKER };
FIXTURE_VARIANT_ADD(race, userfault_giver) { &userfault, GIVER };
FIXTURE_VARIANT_ADD(race, userfault_taker) { &userfault, TAKER };
FIXTURE_VARIANT_ADD(race, ksm_giver) { &ksm, GIVER };
FIXTURE_VARIANT_ADD(race, ksm_taker) { &ksm, TAKER };
FIXTURE_VARIANT_ADD(race, split_giver) { &split, GIVER };
FIXTURE_VARIANT_ADD(race, split_taker) { &split, TAKER };
FIXTURE_VARIANT_ADD(race, thp_giver) { &thp, GIVER };
FIXTURE_VARIANT_ADD(race, thp_taker) { &thp, TAKER };
FIXTURE_VARIANT_ADD(race, look_giver) { &look, GIVER };
FIXTURE_VARIANT_ADD(race, look_taker) { &look, TAKER };
FIXTURE_VARIANT_ADD(race, migrate) { &migrate, NEITHER };
FIXTURE_VARIANT_ADD(race, compact) { &compact, NEITHER };
FIXTURE_VARIANT_ADD(race, reclaim) { &reclaim, NEITHER };
FIXTURE_VARIANT_ADD(race, peek) { &peek, NEITHER };
FIXTURE_VARIANT_ADD(race, second_giver) { &give_too, GIVER };
FIXTURE_VARIANT_ADD(race, second_taker) { &take_too, TAKER };
FIXTURE_VARIANT_ADD(race, taker_elsewhere) { &take_elsewhere, NEITHER };
FIXTURE_VARIANT_ADD(race, resize) { &resize, NEITHER };
FIXTURE_VARIANT_ADD(race, read) { &reader, NEITHER };
FIXTURE_VARIANT_ADD(race, tee) { &teed, NEITHER };
FIXTURE_VARIANT_ADD(race, splice) { &spliced, NEITHER };
FIXTURE_VARIANT_ADD(race, socket) { &socket_too, NEITHER };
/* clang-format on */

static unsigned int number_from(const char *variable, unsigned int otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

static unsigned int pick_seed(void)
{
	return number_from("FLIP_SEED", time(NULL) ^ getpid() << 16);
}

/* Settings that some races change.  What is not there is not needed. */
static int keep_settings(void)
{
	static const char *const ksm_knobs[] = {
		KSM "run",
		KSM "sleep_millisecs",
		KSM "pages_to_scan",
		KSM "smart_scan",
	};
	static const char *const folios[] = {
		"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled",
	};

	if (!access(ksm_knobs[0], W_OK) &&
	    sysctl_keep(ksm_knobs, ARRAY_SIZE(ksm_knobs)))
		return -1;
	if (access(folios[0], W_OK))
		return 0;
	return sysctl_keep(folios, 1) || sysctl_write(folios[0], "madvise");
}

FIXTURE_SETUP(race)
{
	struct arena *a;

	if (geteuid() || memcg_new(GROUP) || keep_settings()) {
		undo_now();
		SKIP(return, "needs root and memory cgroups");
	}
	if (variant->what->allowed & SWAPS && swap_available(BACKING_EXT4))
		ASSERT_EQ(0, swap_space(BACKING_EXT4, 6 * LEN));
	a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, a);
	self->arena = a;
	a->what = variant->what;
	a->where = variant->where;
	a->seed = pick_seed();
	ASSERT_EQ(0, pipe_of(self->fds, 256));
}

FIXTURE_TEARDOWN(race)
{
	EXPECT_EQ(0, undo_now());
}

static void *disturb_on(void *arg)
{
	struct side *s = arg;

	while (!s->arena->stop)
		s->arena->what->disturb(s);
	return NULL;
}

/*
 * The life of the giver and the taker: the disturbance is a thread beside it.
 * The disturber's choices are its own, or they would depend on each other.
 */
static void run_side(struct side *s, void (*work)(struct side *s))
{
	struct side beside;
	pthread_t thread;

	s->mem = s->arena->mem[s->where];
	advise(s, s->mem);
	if (s->arena->where != s->where) {
		work(s);
		_exit(0);
	}
	if (s->arena->what->prepare && s->arena->what->prepare(s))
		_exit(KSFT_SKIP);
	beside = *s;
	beside.rng += 100;
	if (pthread_create(&thread, NULL, disturb_on, &beside))
		_exit(1);
	work(s);
	pthread_join(thread, NULL);
	_exit(0);
}

/* A process of its own for what is done to the pipe, or to everything. */
static void run_neither(struct side *s)
{
	if (s->arena->what->prepare && s->arena->what->prepare(s))
		_exit(KSFT_SKIP);
	disturb_on(s);
	check_marks(s);
	_exit(0);
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

	if (pid)
		return pid;
	if (memcg_enter(GROUP))
		_exit(1);
	if (where != GIVER) {
		close(fds[1]);
		s.fds[1] = -1;
	}
	if (where == GIVER)
		run_side(&s, give_on);
	if (where == TAKER)
		run_side(&s, take_on);
	run_neither(&s);
	return -1;
}

/* All pages in flight are gone when all pipes are. */
static long in_flight(void)
{
	return vmstat_get("nr_flip_pages");
}

/* The time that was asked for, and more if nothing has come by then. */
static void wait_for_race(struct arena *a)
{
	const unsigned int tenths = 10 * number_from("FLIP_RACE_SECONDS", 1);
	unsigned int i;

	for (i = 0; !a->stop; i++) {
		if (i >= tenths && (a->arrived[WHOLE] || i > 600 + tenths))
			break;
		usleep(100000);
	}
}

static int run_race(struct arena *a, int fds[2])
{
	pid_t other = 0;
	int status;

	a->mem[GIVER] = map_mem(LEN);
	a->mem[TAKER] = map_mem(LEN);
	a->pid[TAKER] = spawn_side(a, fds, TAKER);
	a->pid[GIVER] = spawn_side(a, fds, GIVER);
	if (a->where == NEITHER)
		other = spawn_side(a, fds, NEITHER);
	close(fds[0]);
	close(fds[1]);
	wait_for_race(a);
	a->stop = true;
	status = other ? reap(other) : 0;
	status = status ?: reap(a->pid[GIVER]);
	return status ?: reap(a->pid[TAKER]);
}

static void race_for_a_time(struct __test_metadata *_metadata, struct arena *a,
			    int fds[2])
{
	const long flying = in_flight();
	struct flip_counts before, after;
	int status;

	TH_LOG("seed %u", a->seed);
	ASSERT_EQ(0, flip_counts(&before));
	status = run_race(a, fds);
	ASSERT_EQ(0, flip_counts(&after));
	TH_LOG("gave %lu, moved %ld; came %lu whole, %lu blank, %lu cut off, %lu torn",
	       a->given, after.nr[TAKEN] - before.nr[TAKEN], a->arrived[WHOLE],
	       a->arrived[BLANK], a->arrived[CUT_OFF], a->arrived[TORN]);
	EXPECT_STREQ("", a->why);
	if (status == KSFT_SKIP)
		SKIP(return, "this machine cannot: %s", a->what->name);
	EXPECT_EQ(0, status);
	EXPECT_LT(0UL, a->arrived[WHOLE]);
	EXPECT_LT(before.nr[TAKEN], after.nr[TAKEN]);
	EXPECT_EQ(flying, in_flight());
}

TEST_F_TIMEOUT(race, small_pages, 900)
{
	self->arena->kind = MEM_4K;
	race_for_a_time(_metadata, self->arena, self->fds);
}

/* Of 2 MiB in one half of the memory, of 64 KiB in the other. */
TEST_F_TIMEOUT(race, large_folios, 900)
{
	self->arena->kind = MEM_2M;
	race_for_a_time(_metadata, self->arena, self->fds);
}

/*
 * The ends of a pipe are closed while threads give to it and take from it:
 * what arrives is right, and nothing is left behind.
 */
struct closing {
	struct side side;
	int fds[2];
	atomic_int turn;
	pthread_barrier_t begin;
	pthread_barrier_t end;
};

static void *close_giver(void *arg)
{
	struct closing *c = arg;
	struct side *s = &c->side;

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
	struct side *s = &c->side;
	ssize_t n;

	for (;;) {
		pthread_barrier_wait(&c->begin);
		if (s->arena->stop)
			return NULL;
		do {
			n = take(c->fds[0], s->twin, LEN, SPLICE_F_NONBLOCK);
			check_bytes(s, s->twin, n);
			sched_yield();
		} while (n > 0 || (n < 0 && errno == EAGAIN));
		if (n < 0 && errno != EBADF)
			fail(s, "take", 0, 0);
		pthread_barrier_wait(&c->end);
	}
}

/* One pipe's life; which end goes first is a matter of chance. */
static void close_once(struct closing *c)
{
	const int first = pick(&c->side, 2);
	unsigned int i;

	if (pipe_of(c->fds, 64))
		fail(&c->side, "pipe", 0, 0);
	c->side.arena->gen++;
	for (i = 0; i < NR_PAGES; i += 1 + pick(&c->side, 3))
		fill_page((uint64_t *)page_at(&c->side, i), i,
			  c->side.arena->gen);
	pthread_barrier_wait(&c->begin);
	usleep(pick(&c->side, 3000));
	close(c->fds[first]);
	usleep(pick(&c->side, 100));
	close(c->fds[!first]);
	pthread_barrier_wait(&c->end);
}

FIXTURE(closed)
{
	struct arena *arena;
	struct closing c;
};

FIXTURE_SETUP(closed)
{
	static const struct disturbance what = { "close", NULL, NULL,
						 MAY_BLANK };
	struct side *s = &self->c.side;

	if (geteuid())
		SKIP(return, "needs root");
	self->arena = calloc(1, sizeof(*self->arena));
	ASSERT_NE(NULL, self->arena);
	self->arena->what = &what;
	self->arena->seed = pick_seed();
	s->arena = self->arena;
	s->rng = self->arena->seed;
	s->mem = map_mem(LEN);
	s->twin = map_mem(LEN);
	ASSERT_NE(NULL, s->mem);
	ASSERT_NE(NULL, s->twin);
	advise(s, s->mem);
	pthread_barrier_init(&self->c.begin, NULL, 3);
	pthread_barrier_init(&self->c.end, NULL, 3);
	signal(SIGPIPE, SIG_IGN);
}

FIXTURE_TEARDOWN(closed)
{
}

TEST_F_TIMEOUT(closed, pages_arrive, 900)
{
	struct arena *a = self->arena;
	const long flying = in_flight();
	pthread_t giver, taker;
	int rounds = 0;
	time_t end;

	ASSERT_EQ(0, pthread_create(&giver, NULL, close_giver, &self->c));
	ASSERT_EQ(0, pthread_create(&taker, NULL, close_taker, &self->c));
	end = time(NULL) + number_from("FLIP_RACE_SECONDS", 1) + 1;
	for (; time(NULL) < end && !a->failed; rounds++)
		close_once(&self->c);
	a->stop = true;
	pthread_barrier_wait(&self->c.begin);
	ASSERT_EQ(0, pthread_join(giver, NULL));
	ASSERT_EQ(0, pthread_join(taker, NULL));
	TH_LOG("seed %u, %d pipes, whole %lu, empty %lu", a->seed, rounds,
	       a->arrived[WHOLE], a->arrived[BLANK]);
	EXPECT_STREQ("", a->why);
	EXPECT_LT(0UL, a->arrived[WHOLE]);
	EXPECT_EQ(flying, in_flight());
}

FLIP_HARNESS_MAIN
