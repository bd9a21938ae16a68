// SPDX-License-Identifier: GPL-2.0-only
/*
 * Give and take, and what else happens to given pages, without memory.
 *
 * One system call of each scene is made with the first, the second, ...
 * allocation of it failing, until none does any more; likewise with copies from
 * and to user memory.  Every time all bytes are accounted for: on the side where
 * they came from, in the pipe, and where they went.  What is behind the count is
 * as it was, no page stays in flight, and no charge is left in the cgroup.
 *
 * Charges cannot be made to fail one by one, but there can be no room for them:
 * the limit of the cgroup that is to pay rises page by page.
 *
 * SPLICE_FAULTS, which repeats the calls of the other tests, is without effect.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "page_flip_util.h"
#include "splice_fault.h"

#define SEED 51
#define OLD_SEED 52
/* Of the giver, and of whoever takes in another group. */
#define GIVER "fault_giver"
#define TAKER "fault_taker"

#define DROP_CACHES "/proc/sys/vm/drop_caches"

/* More than any call here can ask for. */
#define MAX_FAULTS 100000

enum layout {
	SMALL, /* pages */
	FOLIO_64K,
	FOLIO_2M,
	FOLIO_2M_PTES,
	HOLES,
	MIXED, /* pages, and a hole in place of every third one */
	PARTIAL, /* 64 KiB folios, of the first and the last one a part */
	UNALIGNED, /* no whole page at the beginning and at the end */
};

static enum mem_kind kind_of(enum layout layout)
{
	switch (layout) {
	case FOLIO_64K:
	case PARTIAL:
		return MEM_64K;
	case FOLIO_2M:
		return MEM_2M;
	case FOLIO_2M_PTES:
		return MEM_2M_PTES;
	default:
		return MEM_4K;
	}
}

/* What a sweep found, for the test that waits for it. */
struct report {
	char why[200];
	int nr;
	int errors;
	int shorts;
};

struct scene {
	const struct act *act;
	enum layout layout;
	size_t len;
	struct report *report;
	/* What all bytes are. */
	char *image;
	char *mapping;
	size_t mapped;
	char *src;
	char *dst;
	int fds[2];
	/* Another pipe, a file or the ends of a socket. */
	int out[2];
	long in_flight;
};

/* One way to use a pipe, or to fill it. */
struct act {
	const char *name;
	/* Before, with all bytes given; NULL: none are. */
	int (*prepare)(struct scene *s);
	/* The system call: bytes, or 0. */
	ssize_t (*call)(struct scene *s);
	/* Are @n bytes where they belong, and the others where they were? */
	bool (*holds)(struct scene *s, size_t n);
	/* The errors that it may have for want of memory, ended by 0. */
	int errors[4];
};

static bool complain(struct scene *s, const char *what, long a, long b)
{
	if (!*s->report->why)
		snprintf(s->report->why, sizeof(s->report->why), "%s: %ld, %ld",
			 what, a, b);
	return false;
}

static bool same(struct scene *s, const char *where, const char *got,
		 size_t from, size_t to)
{
	size_t i;

	if (to <= from || !memcmp(got + from, s->image + from, to - from))
		return true;
	for (i = from; got[i] == s->image[i]; i++)
		;
	return complain(s, where, i, to);
}

static void image_make(struct scene *s)
{
	size_t off;

	s->image = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->layout == HOLES)
		return;
	off = s->layout == PARTIAL ? PAGE : s->layout == UNALIGNED ? 100 : 0;
	pattern_fill(s->image, s->len, off, SEED);
	if (s->layout == MIXED)
		for (off = 0; off < s->len; off += 3 * PAGE)
			memset(s->image + off, 0, PAGE);
}

static int source_make(struct scene *s)
{
	size_t off;

	/* Also where it does not begin with the mapping; in whole folios. */
	s->mapped = (s->len + 16 * PAGE) / (16 * PAGE) * (16 * PAGE);
	if (kind_of(s->layout) >= MEM_2M)
		s->mapped = s->len;
	if (s->layout == HOLES || s->layout == MIXED)
		s->mapping = map_mem(s->mapped);
	else
		s->mapping = map_filled(s->mapped, kind_of(s->layout), SEED);
	s->src = s->mapping;
	if (!s->src)
		return -1;
	if (s->layout == PARTIAL)
		s->src += PAGE;
	if (s->layout == UNALIGNED)
		s->src += 100;
	if (s->layout != MIXED)
		return 0;
	madvise(s->src, s->len, MADV_NOHUGEPAGE);
	for (off = 0; off < s->len; off += PAGE)
		if (off % (3 * PAGE))
			memcpy(s->src + off, s->image + off, PAGE);
	return 0;
}

/* With a slot for each page, wherever in it the bytes begin, and more. */
static int pipe_for(int fds[2], size_t len)
{
	size_t slots = 2;

	while (slots < len / PAGE + 2)
		slots *= 2;
	return pipe_of(fds, slots);
}

/* What is behind @n in the pipe: all of it, and it goes. */
static bool rest_is_in(struct scene *s, int rfd, size_t n)
{
	const long queued = bytes_queued(rfd);
	char *got = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok;

	if (queued != (long)(s->len - n))
		return complain(s, "bytes left in the pipe", queued, n);
	if (read_all(rfd, got + n, s->len - n))
		return complain(s, "cannot read", errno, n);
	ok = same(s, "in the pipe", got, n, s->len);
	munmap(got, s->len);
	return ok;
}

/* Given pages are as they were or read as zeroes, the others as they were. */
static bool source_holds(struct scene *s, size_t n)
{
	size_t off, part;

	for (off = 0; off < n; off += part) {
		part = PAGE - (uintptr_t)(s->src + off) % PAGE;
		part = part < n - off ? part : n - off;
		if (zero_check(s->src + off, part) >= 0 &&
		    !same(s, "what was given", s->src, off, off + part))
			return false;
	}
	return same(s, "what was not given", s->src, n, s->len);
}

static ssize_t do_give(struct scene *s)
{
	return give(s->fds[1], s->src, s->len, 0);
}

static bool give_holds(struct scene *s, size_t n)
{
	ssize_t rest = s->len - n;

	if (bytes_queued(s->fds[0]) != (int)n)
		return complain(s, "bytes given", bytes_queued(s->fds[0]), n);
	if (!source_holds(s, n))
		return false;
	if (give_all(s->fds[1], s->src + n, rest, 0) != rest)
		return complain(s, "cannot give the rest", errno, n);
	return rest_is_in(s, s->fds[0], 0);
}

static int fresh_dst(struct scene *s)
{
	s->dst = map_mem(s->len);
	return s->dst ? madvise(s->dst, s->len, MADV_HUGEPAGE) : -1;
}

static int small_dst(struct scene *s)
{
	s->dst = map_filled(s->len, MEM_4K, OLD_SEED);
	if (!s->dst)
		return -1;
	return madvise(s->dst, s->len, MADV_HUGEPAGE);
}

static int huge_dst(struct scene *s)
{
	s->dst = map_filled(s->len, MEM_2M, OLD_SEED);
	return s->dst ? 0 : -1;
}

/* Page tables of its own from the top on: nothing was near it before. */
static int far_dst(struct scene *s)
{
	static uintptr_t far = 1UL << 39;

	far += 1UL << 39;
	s->dst = mmap((void *)far, s->len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return s->dst == MAP_FAILED ? -1 :
				      madvise(s->dst, s->len, MADV_HUGEPAGE);
}

static int fresh_dst_of_other(struct scene *s)
{
	return memcg_enter(TAKER) || fresh_dst(s) ? -1 : 0;
}

/*
 * What is charged besides the pages is there before: page tables, which a page
 * next to the destination keeps, and the anon_vma.  For these the OOM killer
 * acts, as it does in any page fault.
 */
static int tables_of_other(struct scene *s)
{
	if (memcg_enter(TAKER))
		return -1;
	s->dst = map_mem(s->len + PAGE);
	if (!s->dst || madvise(s->dst, s->len + PAGE, MADV_NOHUGEPAGE))
		return -1;
	s->dst[0] = 1;
	s->dst += PAGE;
	s->dst[s->len - PAGE] = 1;
	return madvise(s->dst, s->len, MADV_DONTNEED);
}

static ssize_t do_take(struct scene *s)
{
	return take(s->fds[0], s->dst, s->len, 0);
}

static ssize_t do_read(struct scene *s)
{
	return read(s->fds[0], s->dst, s->len);
}

static bool dst_holds(struct scene *s, size_t n, bool fresh)
{
	ssize_t bad;

	if (!same(s, "what arrived", s->dst, 0, n))
		return false;
	bad = fresh ? zero_check(s->dst + n, s->len - n) :
		      pattern_check(s->dst + n, s->len - n, n, OLD_SEED);
	if (bad >= 0)
		return complain(s, "changed behind the count", n, bad);
	return rest_is_in(s, s->fds[0], n);
}

static bool fresh_holds(struct scene *s, size_t n)
{
	return dst_holds(s, n, true);
}

static bool over_holds(struct scene *s, size_t n)
{
	return dst_holds(s, n, false);
}

static int other_pipe(struct scene *s)
{
	return pipe_for(s->out, s->len);
}

static int teed_and_dst(struct scene *s)
{
	const ssize_t len = s->len;

	if (other_pipe(s) || tee(s->fds[0], s->out[1], len, 0) != len)
		return -1;
	return fresh_dst(s);
}

static bool fresh_and_teed_hold(struct scene *s, size_t n)
{
	return fresh_holds(s, n) && rest_is_in(s, s->out[0], 0);
}

static ssize_t do_tee(struct scene *s)
{
	return tee(s->fds[0], s->out[1], s->len, 0);
}

static bool tee_holds(struct scene *s, size_t n)
{
	if (bytes_queued(s->out[0]) != (int)n)
		return complain(s, "bytes teed", bytes_queued(s->out[0]), n);
	if (n != s->len)
		return complain(s, "tee stopped", n, s->len);
	return rest_is_in(s, s->out[0], 0) && rest_is_in(s, s->fds[0], 0);
}

static int file_on(struct scene *s, enum backing b)
{
	s->out[0] = backing_file(b);
	s->out[1] = dup(s->out[0]);
	return s->out[0];
}

static int tmpfs_file(struct scene *s)
{
	return file_on(s, BACKING_MEMFD) < 0 ? -1 : 0;
}

static int ext4_file(struct scene *s)
{
	return file_on(s, BACKING_EXT4) < 0 ? -1 : 0;
}

/* What does not fit into its buffer stays in the pipe. */
static int socket_out(struct scene *s)
{
	return unix_pair(s->out) ?: set_nonblock(s->out[1]);
}

static int tcp_out(struct scene *s)
{
	return tcp_pair(s->out) ?: set_nonblock(s->out[1]);
}

static ssize_t do_splice(struct scene *s)
{
	return splice(s->fds[0], NULL, s->out[1], NULL, s->len, 0);
}

/* The file, pipe or socket has @n bytes, the pipe the rest. */
static bool out_holds(struct scene *s, size_t n)
{
	char *got = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	off_t size = file_size(s->out[0]);
	bool ok;

	if (size && size != (off_t)n)
		return complain(s, "size of the file", size, n);
	if (size && lseek(s->out[0], 0, SEEK_SET))
		return complain(s, "cannot seek", errno, n);
	if (read_all(s->out[0], got, n))
		return complain(s, "cannot read what went out", errno, n);
	ok = same(s, "what went out", got, 0, n);
	munmap(got, s->len);
	if (!size && bytes_queued(s->out[0]))
		return complain(s, "more went out", bytes_queued(s->out[0]), n);
	return ok && rest_is_in(s, s->fds[0], n);
}

static int nothing(struct scene *s)
{
	return 0;
}

static ssize_t do_resize(struct scene *s)
{
	const int was = fcntl(s->fds[1], F_GETPIPE_SZ);

	return fcntl(s->fds[1], F_SETPIPE_SZ, 2 * was) < 0 ? -1 : 0;
}

static ssize_t do_fork(struct scene *s)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid < 0 ? -1 : reap(pid);
}

static bool pipe_holds(struct scene *s, size_t n)
{
	return rest_is_in(s, s->fds[0], 0);
}

static ssize_t do_close(struct scene *s)
{
	close(s->fds[0]);
	close(s->fds[1]);
	s->fds[0] = -1;
	s->fds[1] = -1;
	return 0;
}

static bool all_is_gone(struct scene *s, size_t n)
{
	return true;
}

/* clang-format off */
static const struct act
give_it = { "give", NULL, do_give, give_holds, { ENOMEM, EFAULT } },
take_fresh = { "take", fresh_dst, do_take, fresh_holds, { ENOMEM, EFAULT } },
take_far = { "take far away", far_dst, do_take, fresh_holds,
	{ ENOMEM, EFAULT } },
take_over_small = { "take over pages", small_dst, do_take, over_holds,
	{ ENOMEM, EFAULT } },
take_over_huge = { "take over huge pages", huge_dst, do_take, over_holds,
	{ ENOMEM, EFAULT } },
take_other = { "take in another group", fresh_dst_of_other, do_take,
	fresh_holds, { ENOMEM, EFAULT } },
take_tables = { "take where page tables are", tables_of_other, do_take,
	fresh_holds, { ENOMEM, EFAULT } },
take_teed = { "take what was teed", teed_and_dst, do_take, fresh_and_teed_hold,
	{ ENOMEM, EFAULT } },
read_it = { "read", fresh_dst, do_read, fresh_holds, { EFAULT } },
tee_it = { "tee", other_pipe, do_tee, tee_holds, { 0 } },
to_pipe = { "splice to a pipe", other_pipe, do_splice, out_holds, { 0 } },
to_memfd = { "splice to a memfd", tmpfs_file, do_splice, out_holds, { ENOMEM } },
to_ext4 = { "splice to ext4", ext4_file, do_splice, out_holds, { ENOMEM } },
to_unix = { "splice to AF_UNIX", socket_out, do_splice, out_holds,
	{ ENOMEM, ENOBUFS } },
/* Without memory it has no room, for which it does not wait here. */
to_tcp = { "splice to TCP", tcp_out, do_splice, out_holds,
	{ ENOMEM, ENOBUFS, EAGAIN } },
resize = { "F_SETPIPE_SZ", nothing, do_resize, pipe_holds, { ENOMEM } },
fork_it = { "fork", nothing, do_fork, pipe_holds, { ENOMEM, EAGAIN } },
close_it = { "close", nothing, do_close, all_is_gone, { 0 } };
/* clang-format on */

static bool is_named(const struct scene *s, int err, int kinds)
{
	const int *e;

	if (err == EFAULT && kinds & FAULT_USERCOPY)
		return true;
	for (e = s->act->errors; *e; e++)
		if (*e == err)
			return true;
	return false;
}

static bool scene_begin(struct scene *s)
{
	memset(s->fds, -1, sizeof(s->fds));
	memset(s->out, -1, sizeof(s->out));
	s->dst = NULL;
	s->in_flight = flip_in_flight(0, 1000);
	if (memcg_enter(GIVER) || source_make(s) || pipe_for(s->fds, s->len))
		return complain(s, "no source", errno, s->len);
	if (!s->act->prepare)
		return true;
	if (give_all(s->fds[1], s->src, s->len, 0) != (ssize_t)s->len)
		return complain(s, "cannot give", errno, s->len);
	if (s->act->prepare(s))
		return complain(s, "cannot prepare", errno, s->len);
	return true;
}

static bool scene_end(struct scene *s)
{
	const int fd[] = { s->fds[0], s->fds[1], s->out[0], s->out[1] };
	long in_flight;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fd); i++)
		if (fd[i] >= 0)
			close(fd[i]);
	if (s->dst && s->act == &take_far)
		munmap(s->dst, s->len);
	else if (s->dst && s->act == &take_tables)
		unmap_mem(s->dst - PAGE, s->len + PAGE);
	else if (s->dst)
		unmap_mem(s->dst, s->len);
	unmap_mem(s->mapping, s->mapped);
	in_flight = vmstat_get("nr_flip_pages");
	if (in_flight != s->in_flight)
		return complain(s, "in flight", s->in_flight, in_flight);
	return true;
}

/* The call with the @nth failing: was there one?  If it did harm, a report. */
static bool call_with(struct scene *s, unsigned int nth, int kinds)
{
	bool fired;
	ssize_t n;
	int err;

	if (!scene_begin(s))
		return false;
	fault_arm(nth);
	n = s->act->call(s);
	fired = fault_fired();
	err = errno;
	s->report->nr += fired;
	if (n < 0) {
		s->report->errors++;
		if (!fired || !is_named(s, err, kinds))
			return complain(s, strerror(err), nth, fired);
		n = 0;
	} else if (n && n < (ssize_t)s->len) {
		s->report->shorts++;
	}
	if (!s->act->holds(s, n))
		return complain(s, "fault", nth, n);
	return scene_end(s) && fired;
}

static int sweep(struct scene *s, int kinds)
{
	unsigned int nth;

	faults_by_hand();
	image_make(s);
	for (nth = 1; call_with(s, nth, kinds); nth++)
		if (nth > MAX_FAULTS)
			complain(s, "no end", nth, 0);
	return *s->report->why != '\0';
}

/*
 * The files of the group that is to run out of room.  They are open already
 * then, since to open one is to be charged.
 */
struct meter {
	int current;
	int high;
	int max;
};

static int meter_open(struct meter *m, const char *group)
{
	m->current = open(memcg_path(group, "memory.current"), O_RDONLY);
	m->high = open(memcg_path(group, "memory.high"), O_WRONLY);
	m->max = open(memcg_path(group, "memory.max"), O_WRONLY);
	return m->max;
}

static void meter_close(struct meter *m)
{
	close(m->current);
	close(m->high);
	close(m->max);
}

static long meter_read(struct meter *m)
{
	char text[32] = "";

	if (pread(m->current, text, sizeof(text) - 1, 0) <= 0)
		_exit(2);
	return atol(text);
}

static void meter_write(int fd, const char *value)
{
	const ssize_t len = strlen(value);

	if (pwrite(fd, value, len, 0) != len)
		_exit(2);
}

/*
 * Processors keep charges in stock, of which somebody would be served first.
 * They give them back when there is too much.
 */
static void meter_limit(struct meter *m, size_t pages)
{
	char limit[32];

	meter_read(m);
	meter_write(m->high, "0");
	meter_write(m->high, "max");
	snprintf(limit, sizeof(limit), "%ld", meter_read(m) + pages * PAGE);
	meter_write(m->max, limit);
}

/* The call with room for @pages in the group that pays: was that too little? */
static bool call_within(struct scene *s, const char *group, size_t pages)
{
	struct meter m;
	ssize_t n;
	int err;

	if (!scene_begin(s) || meter_open(&m, group) < 0)
		return false;
	meter_limit(&m, pages);
	n = s->act->call(s);
	err = errno;
	meter_write(m.max, "max");
	meter_close(&m);
	if (n < 0) {
		s->report->errors++;
		if (err != ENOMEM)
			return complain(s, strerror(err), pages, err);
		n = 0;
	} else if (n < (ssize_t)s->len) {
		s->report->shorts++;
	}
	if (!s->act->holds(s, n))
		return complain(s, "room for pages", pages, n);
	return scene_end(s) && n < (ssize_t)s->len;
}

/* Page by page where that is most of it, or nearly all. */
static size_t more_room(const struct scene *s, size_t pages)
{
	const size_t want = s->len / PAGE;

	if (pages < 8 || want < 128 || pages + 16 > want)
		return pages + 1;
	return pages + want / 16;
}

static int rise(struct scene *s, int kinds)
{
	const char *group = s->act == &give_it ? GIVER : TAKER;
	size_t pages;

	faults_by_hand();
	image_make(s);
	for (pages = 0; call_within(s, group, pages);
	     pages = more_room(s, pages))
		if (pages > 4 * s->len / PAGE)
			complain(s, "no end", pages, 0);
	s->report->nr = pages;
	return *s->report->why != '\0';
}

static int groups_new(const struct scene *s)
{
	if (!geteuid() && !memcg_new(GIVER) && !memcg_new(TAKER) &&
	    !mem_kind_set(kind_of(s->layout)))
		return 0;
	undo_now();
	return -1;
}

/* Touched here, so that no group pays for it. */
static struct report *new_report(void)
{
	struct report *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memset(r, 0, sizeof(*r));
}

/*
 * What a group without processes is charged for, other than objects that the
 * kernel keeps for later.  Processors give back what they have in stock when
 * there is too much, and pages that wait for their LRU list with the page cache;
 * statistics take a moment.
 */
static long charge_left(const char *group)
{
	struct timespec start;
	long left;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		/* Once without and always without a line in the log. */
		sysctl_write(DROP_CACHES, "4");
		sysctl_write(DROP_CACHES, "1");
		memcg_write(group, "memory.high", "0");
		left = memcg_read(group, "memory.current") -
		       memcg_stat(group, "memory.stat", "kernel") +
		       memcg_stat(group, "memory.stat", "pagetables");
		if (!left || elapsed_ms(&start) > 20000)
			return left;
		usleep(20000);
	}
}

/* In a child, so that all memory of it goes. */
static void run(struct __test_metadata *_metadata, struct scene *s,
		int (*all)(struct scene *s, int kinds), int kinds)
{
	pid_t pid = fork_in(GIVER);

	if (!pid)
		_exit(all(s, kinds));
	EXPECT_EQ(0, reap(pid)) TH_LOG("%s: %s", s->act->name, s->report->why);
	EXPECT_EQ(0, charge_left(GIVER));
	EXPECT_EQ(0, charge_left(TAKER));
}

FIXTURE(fault)
{
	struct scene scene;
};

FIXTURE_VARIANT(fault)
{
	const struct act *act;
	enum layout layout;
	size_t len;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(fault, give_small) { &give_it, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, give_folio_64k) { &give_it, FOLIO_64K, 64 * PAGE };
FIXTURE_VARIANT_ADD(fault, give_folio_2m) { &give_it, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(fault, give_folio_2m_ptes) { &give_it, FOLIO_2M_PTES, PMD };
FIXTURE_VARIANT_ADD(fault, give_holes) { &give_it, HOLES, PMD };
FIXTURE_VARIANT_ADD(fault, give_mixed) { &give_it, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, give_partial) { &give_it, PARTIAL, 24 * PAGE };
FIXTURE_VARIANT_ADD(fault, give_unaligned) { &give_it, UNALIGNED, 6 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_fresh_small) { &take_fresh, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_fresh_folio_64k) { &take_fresh, FOLIO_64K, 64 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_fresh_folio_2m) { &take_fresh, FOLIO_2M, 4 * PMD };
FIXTURE_VARIANT_ADD(fault, take_fresh_holes) { &take_fresh, HOLES, PMD };
FIXTURE_VARIANT_ADD(fault, take_fresh_mixed) { &take_fresh, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_fresh_unaligned) { &take_fresh, UNALIGNED, 6 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_far_small) { &take_far, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_far_folio_2m) { &take_far, FOLIO_2M, 2 * PMD };
FIXTURE_VARIANT_ADD(fault, take_over_small_small) { &take_over_small, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_over_small_folio_2m) { &take_over_small, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(fault, take_over_small_holes) { &take_over_small, HOLES, PMD };
FIXTURE_VARIANT_ADD(fault, take_over_huge_folio_2m) { &take_over_huge, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(fault, take_over_huge_small) { &take_over_huge, SMALL, 512 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_other_small) { &take_other, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_other_folio_64k) { &take_other, FOLIO_64K, 64 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_other_folio_2m) { &take_other, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(fault, take_teed_small) { &take_teed, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_teed_folio_64k) { &take_teed, FOLIO_64K, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, take_teed_holes) { &take_teed, HOLES, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, read_mixed) { &read_it, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, read_holes) { &read_it, HOLES, PMD };
FIXTURE_VARIANT_ADD(fault, tee_mixed) { &tee_it, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_pipe_mixed) { &to_pipe, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_memfd_small) { &to_memfd, SMALL, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_memfd_holes) { &to_memfd, HOLES, PMD };
FIXTURE_VARIANT_ADD(fault, to_memfd_mixed) { &to_memfd, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_ext4_mixed) { &to_ext4, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_unix_holes) { &to_unix, HOLES, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_unix_folio_64k) { &to_unix, FOLIO_64K, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, to_tcp_mixed) { &to_tcp, MIXED, 8 * PAGE };
FIXTURE_VARIANT_ADD(fault, resize_mixed) { &resize, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, resize_folio_2m) { &resize, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(fault, fork_folio_64k) { &fork_it, FOLIO_64K, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, close_mixed) { &close_it, MIXED, 16 * PAGE };
FIXTURE_VARIANT_ADD(fault, close_folio_2m) { &close_it, FOLIO_2M, PMD };
/* clang-format on */

FIXTURE_SETUP(fault)
{
	faults_by_hand();
	if (!faults_available())
		SKIP(return, "no fault injection");
	self->scene = (struct scene){ .act = variant->act,
				      .layout = variant->layout,
				      .len = variant->len,
				      .report = new_report() };
	if (groups_new(&self->scene))
		SKIP(return, "no memory cgroups");
}

FIXTURE_TEARDOWN(fault)
{
	EXPECT_EQ(0, undo_now());
}

static void run_faults(struct __test_metadata *_metadata, struct scene *s,
		       int kinds)
{
	run(_metadata, s, sweep, faults_choose(kinds));
	faults_choose(0);
	TH_LOG("%s: %d faults, %d errors, %d short counts", s->act->name,
	       s->report->nr, s->report->errors, s->report->shorts);
	/* Some calls need no memory, or copy nothing; these do both. */
	if (s->layout == UNALIGNED || s->layout == PARTIAL)
		EXPECT_LT(0, s->report->errors);
}

/* No allocation that fails loses or doubles a byte, a page or a charge. */
TEST_F(fault, of_allocations)
{
	run_faults(_metadata, &self->scene, FAULT_SLAB | FAULT_PAGE);
}

/* Nor does a copy from or to user memory. */
TEST_F(fault, of_copies)
{
	run_faults(_metadata, &self->scene, FAULT_USERCOPY);
}

/* A group that has no room for what its process gives as a copy, or takes. */
FIXTURE(charge)
{
	struct scene scene;
};

FIXTURE_VARIANT(charge)
{
	const struct act *act;
	enum layout layout;
	size_t len;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(charge, take_tables_small) { &take_tables, SMALL, 48 * PAGE };
FIXTURE_VARIANT_ADD(charge, take_tables_mixed) { &take_tables, MIXED, 48 * PAGE };
FIXTURE_VARIANT_ADD(charge, take_tables_folio_64k) { &take_tables, FOLIO_64K, 64 * PAGE };
FIXTURE_VARIANT_ADD(charge, take_tables_folio_2m) { &take_tables, FOLIO_2M, PMD };
FIXTURE_VARIANT_ADD(charge, give_partial) { &give_it, PARTIAL, 88 * PAGE };
FIXTURE_VARIANT_ADD(charge, give_unaligned) { &give_it, UNALIGNED, 2 * PAGE };
/* clang-format on */

/* What another processor has in stock it gives back when it gets to it. */
FIXTURE_SETUP(charge)
{
	faults_by_hand();
	ASSERT_EQ(0, stay_on_cpu());
	self->scene = (struct scene){ .act = variant->act,
				      .layout = variant->layout,
				      .len = variant->len,
				      .report = new_report() };
	if (groups_new(&self->scene))
		SKIP(return, "no memory cgroups");
}

FIXTURE_TEARDOWN(charge)
{
	EXPECT_EQ(0, undo_now());
}

/* Then it is ENOMEM or a short count, and nobody is killed. */
TEST_F(charge, fails)
{
	const struct report *r = self->scene.report;

	run(_metadata, &self->scene, rise, 0);
	EXPECT_NE(0, r->errors + r->shorts);
	TH_LOG("%s: up to %d pages, %d errors, %d short counts",
	       variant->act->name, r->nr, r->errors, r->shorts);
}

/* Stands for all of the fixture fault where that cannot run. */
TEST(needs_fault_injection)
{
	faults_by_hand();
	if (!faults_available())
		SKIP(return, "no fault injection");
}

static __attribute__((constructor)) void flip_required(void)
{
	flip_require();
}

int main(int argc, char **argv)
{
	static const char *const rest[] = {
		"splice_fault_test", "-f", "charge", "-f", "global", NULL
	};

	if (argc > 1 || faults_available())
		return test_harness_run(argc, argv);
	return test_harness_run(ARRAY_SIZE(rest) - 1, (char **)rest);
}
