// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nothing is left behind.  What one call after the other does with a pipe is
 * done over and over, by an ordinary user in a memory cgroup of his own: as much
 * memory is in use afterwards as was before, in the machine, in the cgroup and
 * in each slab cache, as many files are open, and the user may have as many
 * pages in pipes.  The same for processes that die in each way in the middle.
 *
 * ways		each way that data takes into pipes and out of them
 * deaths	whoever has a pipe, or its contents, is gone
 * lies		what keeps one thing each time is found, or this shows nothing
 *
 * SPLICE_LEAK_CYCLES	how often each is done (default 600, deaths 200)
 * SPLICE_LEAK_VERBOSE	say what there is more and less of, each time
 *
 * Noise.  Both looks are taken after a grace period, when the caches of files
 * and the free objects that processors keep have been given up, while the
 * process that does it waits.  As some things are freed later, the second look
 * is taken again while there is too much.  What is left are the counters of a
 * cgroup that each processor batches, and what the rest of the machine does in
 * the meantime, this process among it.  The bounds are a few times what that is
 * on an idle machine with 2 processors.  But for two of them they do not grow
 * with the number of times: a page or an object each time is found from 200
 * times on, by 10000 also what is left only once in fifty times.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fuse_file.h"
#include "page_flip_util.h"

#define SEED 0x5b11ce
#define LATER_SEED 0x0dd

/* The user, his cgroup, and one more. */
#define USER 1000
#define GROUP "leak"
#define OTHER "leak_other"

/* What he may have in pipes, so that it can be counted out. */
#define SOFT_LIMIT "/proc/sys/fs/pipe-user-pages-soft"
#define LIMIT 4096

/* What was read from swap beside what was wanted stays cached, too. */
#define READ_AHEAD "/proc/sys/vm/page-cluster"

/* For the second looks, in milliseconds. */
#define PATIENCE 15000

/* What is done before the first one. */
#define NR_WARM_UP 40

static long cycles(long usual)
{
	const char *text = getenv("SPLICE_LEAK_CYCLES");

	return text && atol(text) > 0 ? atol(text) : usual;
}

static void close_both(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

/* ---- what there is ---- */

/* In pages, where it is memory. */
enum gauge {
	IN_FLIGHT,
	SWAPPED,
	FILES,
	ANON,
	SHMEM,
	TABLES,
	STACKS,
	UNRECLAIMABLE,
	PER_CPU,
	GROUP_ALL,
	GROUP_ANON,
	GROUP_FILE,
	GROUP_KERNEL,
	GROUP_TABLES,
	GROUP_SOCK,
	USED,
	NR_GAUGES,
};

/*
 * How much more there may be.  A processor batches 64 pages of a cgroup before
 * it says so; 2 processors, and some for what is charged in bytes.
 */
#define BATCHES 160

/*
 * Of bytes that one processor charges and another one gives back, a rest of a
 * page stays charged now and then, on every kernel, but no memory with it.
 */
#define RESTS 50

static const struct {
	const char *name;
	long bound;
} gauges[] = {
	/* Exact, and nobody else has some. */
	[IN_FLIGHT] = { "pages in flight", 0 },
	/* What this process and the one that waits have had there. */
	[SWAPPED] = { "pages in swap", 32 },
	/* Whoever else opens one. */
	[FILES] = { "open files", 8 },
	/* This process keeps count of it all. */
	[ANON] = { "anonymous pages", 64 },
	[SHMEM] = { "pages of tmpfs", 32 },
	[TABLES] = { "page tables", 48 },
	/* Of threads that the kernel starts now and then: 4 pages each. */
	[STACKS] = { "stacks", 32 },
	/* Slabs of which some objects are in use, in 230 caches. */
	[UNRECLAIMABLE] = { "pages of slabs", 100 },
	[PER_CPU] = { "per-cpu pages", 16 },
	[GROUP_ALL] = { "pages of the cgroup", BATCHES },
	[GROUP_ANON] = { "anonymous pages of the cgroup", BATCHES },
	[GROUP_FILE] = { "file pages of the cgroup", BATCHES },
	[GROUP_KERNEL] = { "kernel pages of the cgroup", BATCHES },
	[GROUP_TABLES] = { "page tables of the cgroup", BATCHES },
	[GROUP_SOCK] = { "socket pages of the cgroup", BATCHES },
	/* The sum of the noise above. */
	[USED] = { "pages in use", 120 },
};

/* Objects of one slab cache that others may allocate, or that are freed late. */
#define OBJECTS 100
#define MAX_CACHES 512

struct cache {
	char name[48];
	long objects;
};

struct state {
	long gauge[NR_GAUGES];
	struct cache cache[MAX_CACHES];
	size_t nr_caches;
};

/* The numbers behind these words in a file of lines "NAME[:] NUMBER [kB]". */
struct line {
	const char *name;
	long value;
};

static int read_lines(const char *path, struct line *lines, size_t nr)
{
	FILE *file = fopen(path, "r");
	char text[256], *end;
	size_t i;

	if (!file)
		return -1;
	while (fgets(text, sizeof(text), file)) {
		end = strpbrk(text, ": ");
		if (!end)
			continue;
		*end = '\0';
		for (i = 0; i < nr; i++)
			if (!strcmp(text, lines[i].name))
				lines[i].value = atol(end + 1);
	}
	fclose(file);
	return 0;
}

/* Free pages that processors keep for themselves. */
static long kept_pages(void)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	char text[256];
	long sum = 0, n;

	if (!file)
		return 0;
	while (fgets(text, sizeof(text), file))
		if (sscanf(text, " count: %ld", &n) == 1)
			sum += n;
	fclose(file);
	return sum;
}

static int read_machine(struct state *s)
{
	struct line m[] = {
		{ "MemTotal", 0 },     { "MemFree", 0 },
		{ "Buffers", 0 },      { "Cached", 0 },
		{ "SReclaimable", 0 }, { "AnonPages", 0 },
		{ "Shmem", 0 },	       { "PageTables", 0 },
		{ "KernelStack", 0 },  { "SUnreclaim", 0 },
		{ "Percpu", 0 },       { "SwapTotal", 0 },
		{ "SwapFree", 0 },
	};
	const long kib = PAGE / KIB;
	struct line files = { "", 0 };

	if (read_lines("/proc/meminfo", m, ARRAY_SIZE(m)))
		return -1;
	/* Cache that can be dropped is in no use; that of tmpfs is. */
	s->gauge[USED] = (m[0].value - m[1].value - m[2].value - m[3].value -
			  m[4].value + m[6].value) /
				 kib -
			 kept_pages();
	s->gauge[ANON] = m[5].value / kib;
	s->gauge[SHMEM] = m[6].value / kib;
	s->gauge[TABLES] = m[7].value / kib;
	s->gauge[STACKS] = m[8].value / kib;
	s->gauge[UNRECLAIMABLE] = m[9].value / kib;
	s->gauge[PER_CPU] = m[10].value / kib;
	s->gauge[SWAPPED] = (m[11].value - m[12].value) / kib;
	s->gauge[IN_FLIGHT] = vmstat_get("nr_flip_pages");
	files.value = sysctl_get("/proc/sys/fs/file-nr");
	s->gauge[FILES] = files.value;
	return 0;
}

static int read_group(struct state *s)
{
	struct line m[] = {
		{ "anon", 0 },	     { "file", 0 }, { "kernel", 0 },
		{ "pagetables", 0 }, { "sock", 0 },
	};

	if (read_lines(memcg_path(GROUP, "memory.stat"), m, ARRAY_SIZE(m)))
		return -1;
	s->gauge[GROUP_ALL] = memcg_read(GROUP, "memory.current") / PAGE;
	s->gauge[GROUP_ANON] = m[0].value / PAGE;
	s->gauge[GROUP_FILE] = m[1].value / PAGE;
	s->gauge[GROUP_KERNEL] = m[2].value / PAGE;
	s->gauge[GROUP_TABLES] = m[3].value / PAGE;
	s->gauge[GROUP_SOCK] = m[4].value / PAGE;
	return 0;
}

static int read_caches(struct state *s)
{
	FILE *file = fopen("/proc/slabinfo", "r");
	char text[512];
	struct cache *c;

	s->nr_caches = 0;
	if (!file)
		return -1;
	while (fgets(text, sizeof(text), file) && s->nr_caches < MAX_CACHES) {
		c = &s->cache[s->nr_caches];
		if (*text != '#' &&
		    sscanf(text, "%47s %ld", c->name, &c->objects) == 2)
			s->nr_caches++;
	}
	fclose(file);
	return 0;
}

/*
 * Free objects that processors and nodes keep.  The files stay open, as each of
 * them is some objects.
 */
static void shrink_caches(void)
{
	static int fds[MAX_CACHES];
	static size_t nr;
	glob_t caches;
	size_t i;

	if (!nr &&
	    !glob("/sys/kernel/slab/*/shrink", GLOB_NOSORT, NULL, &caches)) {
		for (i = 0; i < caches.gl_pathc && nr < MAX_CACHES; i++)
			fds[nr++] = open(caches.gl_pathv[i], O_WRONLY);
		globfree(&caches);
	}
	for (i = 0; i < nr; i++)
		pwrite(fds[i], "1", 1, 0);
}

static int look(struct state *s)
{
	sync();
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	sysctl_set("/proc/sys/vm/drop_caches", 3);
	shrink_caches();
	return read_machine(s) || read_group(s) || read_caches(s);
}

/* What there is more of than there may be. */
struct finding {
	const char *name;
	long more;
};

static long objects_of(const struct state *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->nr_caches; i++)
		if (!strcmp(s->cache[i].name, name))
			return s->cache[i].objects;
	return 0;
}

static long bound_of(size_t gauge, long nr)
{
	const bool rests = gauge == GROUP_ALL || gauge == GROUP_KERNEL;

	return gauges[gauge].bound + (rests ? nr / RESTS : 0);
}

/* The first that grew more than it may; 0: none did. */
static struct finding compare(const struct state *before,
			      const struct state *after, long nr)
{
	struct finding found = { 0 };
	size_t i;
	long more;

	for (i = 0; i < NR_GAUGES; i++) {
		more = after->gauge[i] - before->gauge[i];
		if (more > bound_of(i, nr))
			return (struct finding){ gauges[i].name, more };
	}
	for (i = 0; i < after->nr_caches; i++) {
		more = after->cache[i].objects -
		       objects_of(before, after->cache[i].name);
		if (more > OBJECTS)
			return (struct finding){ after->cache[i].name, more };
	}
	return found;
}

/*
 * Sockets in messages to each other are collected when some socket is closed,
 * not by themselves: the last ones may wait for one.
 */
static void collect_sockets(void)
{
	int sv[2];

	if (unix_pair(sv))
		return;
	close(sv[0]);
	close(sv[1]);
}

/* Until nothing is left, or time is up. */
static struct finding compare_now(const struct state *before,
				  struct state *after, long nr, long patience)
{
	struct timespec start;
	struct finding found;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (look(after))
			return (struct finding){ "no look", 1 };
		found = compare(before, after, nr);
		if (!found.name)
			break;
		collect_sockets();
		usleep(100000);
	} while (elapsed_ms(&start) < patience);
	return found;
}

static void say(const struct state *before, const struct state *after)
{
	size_t i;
	long more;

	if (!getenv("SPLICE_LEAK_VERBOSE"))
		return;
	printf("#");
	for (i = 0; i < NR_GAUGES; i++)
		printf(" %s %+ld,", gauges[i].name,
		       after->gauge[i] - before->gauge[i]);
	for (i = 0; i < after->nr_caches; i++) {
		more = after->cache[i].objects -
		       objects_of(before, after->cache[i].name);
		if (more > 20 || more < -20)
			printf(" %s %+ld", after->cache[i].name, more);
	}
	printf("\n");
}

/* ---- what is done ---- */

/* What each way has at hand; in none of it anything is left by a cycle. */
static struct {
	int fds[2];
	int more[2];
	int sv[2];
	int tcp[2];
	int file;
	int out;
	char *src;
	char *dst;
} my;

#define SMALL (4 * PAGE)

/* The process that does it has all of this before the first look. */
static int prepare(void)
{
	if (pipe_of(my.fds, 64) || pipe_of(my.more, 64) || unix_pair(my.sv) ||
	    tcp_pair(my.tcp))
		return -1;
	my.file = memfd_filled(SMALL, SEED);
	my.out = memfd_filled(SMALL, LATER_SEED);
	my.src = map_mem(PMD);
	my.dst = map_mem(PMD);
	return my.file < 0 || my.out < 0 || !my.src || !my.dst ? -1 : 0;
}

/* A word of each page, each time another one: quick, and seen if it is wrong. */
static void mark(char *mem, size_t len, long i)
{
	size_t off;

	for (off = 0; off < len; off += PAGE)
		*(uint64_t *)(mem + off + i % 512 * 8) = off + i + 1;
}

static bool marked(const char *mem, size_t len, long i)
{
	size_t off;

	for (off = 0; off < len; off += PAGE)
		if (*(const uint64_t *)(mem + off + i % 512 * 8) != off + i + 1)
			return false;
	return true;
}

static int flip(size_t len, long i, unsigned int more)
{
	mark(my.src, len, i);
	if (give_all(my.fds[1], my.src, len, more) != (ssize_t)len ||
	    take_all(my.fds[0], my.dst, len, more) != (ssize_t)len)
		return -1;
	return marked(my.dst, len, i) ? 0 : -1;
}

static int flip_small(long i)
{
	return flip(SMALL, i, 0);
}

/* The size was chosen before. */
static int flip_64k(long i)
{
	madvise(my.src, PMD, MADV_HUGEPAGE);
	return flip(64 * KIB, i, 0);
}

static int flip_2m(long i)
{
	madvise(my.src, PMD, MADV_HUGEPAGE);
	madvise(my.dst, PMD, MADV_HUGEPAGE);
	return flip(PMD, i, 0);
}

/* Somebody in another cgroup gives back what he takes; it ends with this one. */
static int there[2];
static int back[2];

static int other_start(void)
{
	char *mem;
	pid_t pid;

	if (pipe_of(there, 64) || pipe_of(back, 64))
		return -1;
	pid = fork_in(OTHER);
	if (pid)
		return pid < 0 || close(there[0]) || close(back[1]);
	close(there[1]);
	close(back[0]);
	mem = map_mem(PMD);
	if (!mem || become(USER))
		_exit(1);
	while (take_all(there[0], mem, SMALL, 0) == SMALL &&
	       give_all(back[1], mem, SMALL, 0) == SMALL)
		;
	_exit(0);
}

static int flip_to_other(long i)
{
	mark(my.src, SMALL, i);
	if (give_all(there[1], my.src, SMALL, 0) != SMALL ||
	    take_all(back[0], my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

/* In a page table, so that each page is a hole. */
static int flip_holes(long i)
{
	my.src[PMD - PAGE] = 1;
	mark(my.dst, SMALL, i);
	if (give(my.fds[1], my.src, SMALL, SPLICE_F_NOCOPY) != SMALL ||
	    take_all(my.fds[0], my.dst, SMALL, 0) != SMALL)
		return -1;
	return zero_check(my.dst, SMALL) < 0 ? 0 : -1;
}

static int flip_huge_hole(long i)
{
	madvise(my.src, PMD, MADV_DONTNEED);
	mark(my.dst, SMALL, i);
	if (give(my.fds[1], my.src, PMD, SPLICE_F_NOCOPY) != PMD ||
	    take_all(my.fds[0], my.dst, PMD, 0) != PMD)
		return -1;
	return zero_check(my.dst, SMALL) < 0 ? 0 : -1;
}

/* A page of zeroes each for who wants to have one; the file is full. */
static int fill_hole(long i)
{
	const struct rlimit none = { 0, RLIM_INFINITY };

	signal(SIGXFSZ, SIG_IGN);
	if (flip_holes(i) || setrlimit(RLIMIT_FSIZE, &none) ||
	    give(my.fds[1], my.src, SMALL, SPLICE_F_NOCOPY) != SMALL ||
	    splice(my.fds[0], NULL, my.out, NULL, SMALL, 0) != -1)
		return -1;
	return read_zeroes(my.fds[0], SMALL);
}

static int copied(long i)
{
	mark(my.src, SMALL, i);
	if (give_all(my.fds[1], my.src + 8, SMALL - 8, 0) != SMALL - 8 ||
	    take_all(my.fds[0], my.dst + 8, SMALL - 8, 0) != SMALL - 8)
		return -1;
	return i % 512 == 0 || marked(my.dst, SMALL, i) ? 0 : -1;
}

static int give_read(long i)
{
	mark(my.src, SMALL, i);
	if (give(my.fds[1], my.src, SMALL, 0) != SMALL ||
	    read_all(my.fds[0], my.dst, SMALL))
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int give_file(long i)
{
	loff_t off = 0;

	mark(my.src, SMALL, i);
	if (give(my.fds[1], my.src, SMALL, 0) != SMALL ||
	    splice_all(my.fds[0], NULL, my.out, &off, SMALL) != SMALL ||
	    pread(my.out, my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int give_to(const int sv[2], long i)
{
	mark(my.src, SMALL, i);
	if (give(my.fds[1], my.src, SMALL, 0) != SMALL ||
	    splice_all(my.fds[0], NULL, sv[1], NULL, SMALL) != SMALL ||
	    read_all(sv[0], my.dst, SMALL))
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int give_socket(long i)
{
	return give_to(my.sv, i);
}

static int give_tcp(long i)
{
	return give_to(my.tcp, i);
}

/* Both duplicates, one by copying and one by moving, and one that is dropped. */
static int give_tee(long i)
{
	int fds[2];

	mark(my.src, SMALL, i);
	if (pipe(fds) || give(my.fds[1], my.src, SMALL, 0) != SMALL ||
	    tee(my.fds[0], my.more[1], SMALL, 0) != SMALL ||
	    tee(my.fds[0], fds[1], SMALL, 0) != SMALL ||
	    take_all(my.fds[0], my.dst, SMALL, 0) != SMALL ||
	    !marked(my.dst, SMALL, i))
		return -1;
	close_both(fds);
	if (take_all(my.more[0], my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int share_read(long i)
{
	struct iovec iov = { my.src, SMALL };

	mark(my.src, SMALL, i);
	if (vmsplice(my.fds[1], &iov, 1, i & 1 ? SPLICE_F_GIFT : 0) != SMALL)
		return -1;
	iov.iov_base = my.dst;
	if (vmsplice(my.fds[0], &iov, 1, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int file_to_file(long i)
{
	loff_t in = 0, out = 0;

	mark(my.src, SMALL, i);
	if (pwrite(my.file, my.src, SMALL, 0) != SMALL ||
	    splice_all(my.file, &in, my.fds[1], NULL, SMALL) != SMALL ||
	    splice_all(my.fds[0], NULL, my.out, &out, SMALL) != SMALL ||
	    pread(my.out, my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int send_to_file(long i)
{
	loff_t off = 0;

	mark(my.src, SMALL, i);
	lseek(my.out, 0, SEEK_SET);
	if (pwrite(my.file, my.src, SMALL, 0) != SMALL ||
	    sendfile(my.out, my.file, &off, SMALL) != SMALL ||
	    pread(my.out, my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int send_to(const int sv[2], long i)
{
	loff_t off = 0;

	mark(my.src, SMALL, i);
	if (pwrite(my.file, my.src, SMALL, 0) != SMALL ||
	    sendfile(sv[1], my.file, &off, SMALL) != SMALL ||
	    read_all(sv[0], my.dst, SMALL))
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int send_to_socket(long i)
{
	return send_to(my.sv, i);
}

static int send_to_tcp(long i)
{
	return send_to(my.tcp, i);
}

/* The answer to each READ of this file is given; FUSE copies such pages. */
static int served;

static int read_given(struct fuse_file *f, const struct fuse_in_header *in,
		      char *data)
{
	const struct fuse_read_in *what = (const void *)(in + 1);
	const size_t rest = SMALL - what->offset;
	const size_t len = what->size < rest ? what->size : rest;
	struct fuse_out_header head = { .unique = in->unique,
					.len = sizeof(head) + len };

	mark(my.src, SMALL, 0);
	if (write_all(my.fds[1], &head, sizeof(head)) ||
	    give_all(my.fds[1], my.src + what->offset, len, 0) !=
		    (ssize_t)len ||
	    splice(my.fds[0], NULL, f->dev, NULL, head.len, SPLICE_F_MOVE) !=
		    head.len)
		_exit(1);
	return FUSE_FILE_SENT;
}

static int serve_start(void)
{
	struct fuse_file file = { .size = SMALL, .read = read_given };
	int dev;
	pid_t pid;

	served = fuse_file_mount(USER, &dev);
	if (served < 0)
		return -1;
	pid = fork_in(OTHER);
	if (pid)
		return pid < 0 || close(dev);
	my.src = map_mem(PMD);
	/* Which a change of the user has undone. */
	if (!my.src || pipe_of(my.fds, 64) || become(USER) ||
	    prctl(PR_SET_PDEATHSIG, SIGKILL))
		_exit(1);
	fuse_file_serve(&file, dev);
}

/* What was cached is gone with the open. */
static int served_file(long i)
{
	int fd = reopen(served, O_RDONLY);
	loff_t off = 0;

	mark(my.dst, SMALL, i);
	/* The kernel asks for the size only if somebody asks it. */
	if (fd < 0 || file_size(fd) != SMALL ||
	    splice_all(fd, &off, my.fds[1], NULL, SMALL) != SMALL ||
	    read_all(my.fds[0], my.dst, SMALL))
		return -1;
	close(fd);
	return marked(my.dst, SMALL, 0) ? 0 : -1;
}

/*
 * What is given is read from there.  Memory in swap is no place to take to here:
 * when it is let go, on any kernel, its pages stay cached until the half is full.
 */
static int flip_swapped(long i)
{
	mark(my.src, SMALL, i);
	if (swap_out(my.src, SMALL) ||
	    give_all(my.fds[1], my.src, SMALL, 0) != SMALL ||
	    take_all(my.fds[0], my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int copy_range(long i)
{
	loff_t in = 0, out = 0;

	mark(my.src, SMALL, i);
	if (pwrite(my.file, my.src, SMALL, 0) != SMALL ||
	    copy_file_range(my.file, &in, my.out, &out, SMALL, 0) != SMALL ||
	    pread(my.out, my.dst, SMALL, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

static int write_tee(long i)
{
	mark(my.src, SMALL, i);
	if (write_all(my.fds[1], my.src, SMALL) ||
	    tee(my.fds[0], my.more[1], SMALL, 0) != SMALL ||
	    splice(my.fds[0], NULL, my.more[1], NULL, 100, 0) != 100 ||
	    read_all(my.more[0], my.dst, SMALL) || !marked(my.dst, SMALL, i) ||
	    read_all(my.more[0], my.dst, 100))
		return -1;
	return read_all(my.fds[0], my.dst, SMALL - 100);
}

/* A pipe that is made, resized and closed with buffers of all kinds in it. */
static int whole_life(long i)
{
	loff_t off = 0;
	int fds[2];

	mark(my.src, 8 * PAGE, i);
	if (pipe(fds) || give(fds[1], my.src, SMALL, 0) != SMALL ||
	    give(fds[1], my.src, PAGE, 0) != PAGE ||
	    give(fds[1], my.src + SMALL + 1, 10, 0) != 10 ||
	    share(fds[1], my.src + SMALL, PAGE) != PAGE ||
	    write_all(fds[1], my.src, 10) ||
	    splice(my.file, &off, fds[1], NULL, PAGE, 0) != PAGE ||
	    fcntl(fds[0], F_SETPIPE_SZ, 64 * PAGE) != 64 * PAGE ||
	    tee(fds[0], my.more[1], PAGE, 0) != PAGE ||
	    fcntl(fds[0], F_SETPIPE_SZ, 16 * PAGE) != 16 * PAGE ||
	    read_all(my.more[0], my.dst, PAGE))
		return -1;
	close_both(fds);
	return marked(my.dst, PAGE, i) ? 0 : -1;
}

/* Calls that fail at once, and such as fail in the middle. */
static int failures(long i)
{
	struct iovec iov[2] = { { my.src, SMALL }, { my.src + PMD, SMALL } };

	mark(my.src, SMALL, i);
	if (give(my.fds[1], my.src + PMD, PAGE, 0) != -1 ||
	    give(my.fds[1], my.src + 1, PAGE, SPLICE_F_NOCOPY) != -1 ||
	    give_iov(my.fds[1], iov, 2, 0) != SMALL ||
	    tee(my.fds[0], my.more[1], SMALL, 0) != SMALL ||
	    take(my.fds[0], my.dst, PAGE, SPLICE_F_NOCOPY) != -1 ||
	    take(my.fds[0], my.dst + PMD, PAGE, 0) != -1 ||
	    read_all(my.more[0], my.dst, SMALL))
		return -1;
	iov[0].iov_base = my.dst;
	if (take_iov(my.fds[0], iov, 2, 0) != SMALL)
		return -1;
	return marked(my.dst, SMALL, i) ? 0 : -1;
}

/* Not all of it, and then nothing, for lack of slots. */
static int short_counts(long i)
{
	int fds[2];

	mark(my.src, 32 * PAGE, i);
	if (pipe(fds) || give(fds[1], my.src, 32 * PAGE, 0) != 16 * PAGE ||
	    give(fds[1], my.src, PAGE, SPLICE_F_NONBLOCK) != -1 ||
	    take_all(fds[0], my.dst, 16 * PAGE, 0) != 16 * PAGE)
		return -1;
	close_both(fds);
	return marked(my.dst, 16 * PAGE, i) ? 0 : -1;
}

/* ---- who dies ---- */

/* Not the same place each time. */
static void wait_a_little(long i)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec -
			 start.tv_nsec <
		 i * 7919 % 400 * 1000);
}

static void give_for_ever(int wfd)
{
	long i;

	for (i = 0;; i++) {
		mark(my.src, 8 * PAGE, i);
		give(wfd, my.src + (i & 1), 8 * PAGE, 0);
	}
}

static void take_for_ever(int rfd)
{
	for (;;)
		take(rfd, my.dst, 8 * PAGE, 0);
}

static int end(pid_t pid)
{
	kill(pid, SIGKILL);
	return reap(pid) == 128 + SIGKILL ? 0 : -1;
}

/* A part of what was given is taken, the rest goes with the pipe. */
static int giver_killed(long i)
{
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	pid = fork_child();
	if (!pid)
		give_for_ever(fds[1]);
	if (take(fds[0], my.dst, PAGE, 0) <= 0)
		return -1;
	wait_a_little(i);
	if (end(pid))
		return -1;
	close_both(fds);
	return 0;
}

static int taker_killed(long i)
{
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	pid = fork_child();
	if (!pid)
		take_for_ever(fds[0]);
	mark(my.src, 16 * PAGE, i);
	if (give(fds[1], my.src, 16 * PAGE, 0) <= 0)
		return -1;
	wait_a_little(i);
	if (end(pid))
		return -1;
	close_both(fds);
	return 0;
}

/* The pipe is theirs alone. */
static int both_killed(long i)
{
	pid_t giver, taker;
	int fds[2];

	if (pipe(fds))
		return -1;
	giver = fork_child();
	if (!giver)
		give_for_ever(fds[1]);
	taker = fork_child();
	if (!taker)
		take_for_ever(fds[0]);
	close_both(fds);
	wait_a_little(i);
	return end(giver) || end(taker) ? -1 : 0;
}

/* All of it in one process, which has one of each. */
static void have_all(long i)
{
	loff_t off = 0;
	int fds[2];

	mark(my.src, 8 * PAGE, i);
	if (pipe2(fds, O_CLOEXEC) || give(fds[1], my.src, SMALL, 0) != SMALL ||
	    give(fds[1], my.src + PMD / 2, SMALL, 0) != SMALL ||
	    give(fds[1], my.src + 1, 100, 0) != 100 ||
	    tee(fds[0], my.more[1], PAGE, 0) != PAGE ||
	    share(fds[1], my.src + SMALL, PAGE) != PAGE ||
	    splice(my.file, &off, fds[1], NULL, PAGE, 0) != PAGE ||
	    write_all(fds[1], my.src, 100))
		_exit(1);
}

/* Memory that was taken, and pages of it in flight: there is no more. */
static void eat(void)
{
	const size_t len = 64 * MIB;
	char *mem = map_mem(len);
	int fds[2];

	if (!mem || become(USER) || pipe_of(fds, 64) ||
	    take_all(there[0], mem, 2 * SMALL, 0) != 2 * SMALL ||
	    give_all(fds[1], mem, SMALL, 0) != SMALL)
		_exit(1);
	memset(mem + PMD, 1, len - PMD);
	_exit(2);
}

/* Somebody who has those born that will eat too much. */
static int hunger[2];

static int hunger_start(void)
{
	pid_t pid;

	if (pipe_of(there, 64) || step_pair(hunger) ||
	    memcg_write(OTHER, "memory.max", "4M"))
		return -1;
	pid = fork_child();
	if (pid)
		return pid < 0 || close(there[0]) || close(hunger[1]);
	close(hunger[0]);
	while (!step_await(hunger[1])) {
		pid = fork_in(OTHER);
		if (!pid)
			eat();
		if (reap(pid) != 128 + SIGKILL || step_tell(hunger[1]))
			break;
	}
	_exit(1);
}

static int killed_by_hunger(long i)
{
	mark(my.src, 2 * SMALL, i);
	if (give_all(there[1], my.src, 2 * SMALL, 0) != 2 * SMALL)
		return -1;
	return step_tell(hunger[0]) || step_await(hunger[0]);
}

static int exits(long i)
{
	pid_t pid = fork_child();

	if (!pid) {
		have_all(i);
		_exit(0);
	}
	return reap(pid) || read_all(my.more[0], my.dst, PAGE) ||
			       !marked(my.dst, PAGE, i) ?
		       -1 :
		       0;
}

/* This program, which does nothing then. */
#define NOTHING "SPLICE_LEAK_NOTHING"

static __attribute__((constructor)) void do_nothing(void)
{
	if (getenv(NOTHING))
		_exit(0);
}

static int execs(long i)
{
	char *const argv[] = { "nothing", NULL };
	char *const envp[] = { NOTHING "=1", NULL };
	pid_t pid = fork_child();

	if (!pid) {
		have_all(i);
		execve("/proc/self/exe", argv, envp);
		_exit(2);
	}
	return reap(pid) || read_all(my.more[0], my.dst, PAGE) ||
			       !marked(my.dst, PAGE, i) ?
		       -1 :
		       0;
}

/* The child of a fork has the pipe for longer, and what is mapped with it. */
static int forks(long i)
{
	int fds[2];
	pid_t pid;

	mark(my.src, 2 * SMALL, i);
	if (pipe(fds) || give(fds[1], my.src, SMALL, 0) != SMALL ||
	    take(fds[0], my.dst, PAGE, 0) != PAGE)
		return -1;
	pid = fork_child();
	close_both(fds);
	if (!pid) {
		/* Shared with the parent: copied. */
		if (give(fds[1], my.src + SMALL, PAGE, 0) != -1)
			_exit(1);
		_exit(!marked(my.dst, PAGE, i));
	}
	return reap(pid) ? -1 : 0;
}

/* What is in a ring counts until it is found, which may take its time. */
static int pipe_with_gift(int fds[2], long i)
{
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		mark(my.src, SMALL, i);
		if (pipe(fds))
			return -1;
		if (give(fds[1], my.src, SMALL, SPLICE_F_NONBLOCK) == SMALL)
			return 0;
		close_both(fds);
		usleep(10000);
	}
	return -1;
}

/* The pipe is in a message that nobody receives, every other time in a ring. */
static int passed(long i)
{
	int fds[2], sv[2], err;

	if (pipe_with_gift(fds, i) || unix_pair(sv))
		return -1;
	err = send_fds(sv[0], &fds[0], 1, 0);
	if (i & 1)
		err |= send_fds(sv[0], &sv[1], 1, 0);
	close_both(fds);
	close_both(sv);
	return err;
}

/* ---- what is kept ---- */

/* Small pages that are there until the end, always the same memory. */
static char *keep_mem(size_t len)
{
	static char *kept;

	if (!kept)
		kept = map_mem(len);
	madvise(kept, len, MADV_NOHUGEPAGE);
	return kept;
}

static int keep_page(long i)
{
	keep_mem(4 * PMD)[i * PAGE] = 1;
	return flip_small(i);
}

static int keep_file(long i)
{
	return open("/", O_PATH) < 0 ? -1 : flip_small(i);
}

/* One page each time, in pipes of 64. */
static int keep_in_flight(long i)
{
	static int fds[2];

	if (i % 64 == 0 && pipe_of(fds, 64))
		return -1;
	mark(my.src, PAGE, i);
	return give(fds[1], my.src, PAGE, 0) == PAGE ? flip_small(i) : -1;
}

static int keep_object(long i)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	timer_t timer;

	return timer_create(CLOCK_MONOTONIC, &ev, &timer) ? -1 : flip_small(i);
}

static int keep_in_file(long i)
{
	static int file = -1;

	if (file < 0)
		file = backing_file(BACKING_MEMFD);
	return pwrite(file, "", 1, i * PAGE) == 1 ? flip_small(i) : -1;
}

/* A page table of its own, with a page that is everybody's. */
static int keep_table(long i)
{
	return keep_mem(256 * PMD)[i * PMD] ? -1 : flip_small(i);
}

static int keep_swapped(long i)
{
	char *kept = keep_mem(4 * PMD) + i * PAGE;

	*kept = 1;
	return swap_out(kept, PAGE) || flip_small(i);
}

/* What this one has more of, another one has less of, in another cgroup. */
#define EXCHANGED (4 * PAGE)

static int exchange[2];

static int exchange_start(void)
{
	char *mem = map_mem(4 * PMD);
	pid_t pid;

	if (!mem || step_pair(exchange))
		return -1;
	madvise(mem, 4 * PMD, MADV_NOHUGEPAGE);
	pid = fork_in(OTHER);
	if (pid)
		return pid < 0 || close(exchange[1]);
	close(exchange[0]);
	memset(mem, 1, 4 * PMD);
	for (; !step_await(exchange[1]); mem += EXCHANGED)
		if (madvise(mem, EXCHANGED, MADV_DONTNEED) ||
		    step_tell(exchange[1]))
			break;
	_exit(1);
}

static int keep_charged(long i)
{
	memset(keep_mem(4 * PMD) + i * EXCHANGED, 1, EXCHANGED);
	if (step_tell(exchange[0]) || step_await(exchange[0]))
		return -1;
	return flip_small(i);
}

/* Nothing that the looks show: slots of a pipe that is there anyway. */
static int keep_room(long i)
{
	if (i == NR_WARM_UP)
		fcntl(my.more[0], F_SETPIPE_SZ, 128 * PAGE);
	return flip_small(i);
}

/* ---- and how often ---- */

/* The pages that he can have in pipes, or -1. */
static long account_room(void)
{
	static int fds[64][2];
	long given = 0, n;
	size_t i, nr;

	madvise(my.src, PMD, MADV_NOHUGEPAGE);
	for (nr = 0; nr < ARRAY_SIZE(fds) && !pipe_of(fds[nr], 256); nr++) {
		memset(my.src, 1, 256 * PAGE);
		n = give(fds[nr][1], my.src, 256 * PAGE, SPLICE_F_NONBLOCK);
		given += n > 0 ? n / PAGE : 0;
	}
	for (i = 0; i < nr; i++)
		close_both(fds[i]);
	madvise(my.src, PMD, MADV_DONTNEED);
	return given;
}

/* Pipes that were lost in a ring of sockets come back a little later. */
static bool has_room(long room)
{
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (account_room() >= room)
			return true;
		usleep(10000);
	}
	return false;
}

/* The process that does it: a few times, then as often as is said. */
static void repeat(int (*start)(void), int (*cycle)(long i), long nr, int step)
{
	long i, room;

	if ((start && start()) || memcg_enter(GROUP) || become(USER) ||
	    prepare())
		_exit(1);
	for (i = 0; i < NR_WARM_UP; i++)
		if (cycle(i))
			_exit(2);
	if (step_tell(step) || step_await(step))
		_exit(3);
	room = account_room();
	for (; i < NR_WARM_UP + nr; i++)
		if (cycle(i))
			_exit(4);
	if (step_tell(step) || step_await(step))
		_exit(5);
	/* Said here, because nothing else shows it. */
	_exit(has_room(room) ? 0 : 6);
}

/* Two looks at the machine, while that process waits. */
struct looks {
	struct state before;
	struct state after;
	int step[2];
	/* By root, before it is a user; or NULL. */
	int (*start)(void);
};

/* @swap: with some. */
static struct looks *set_up(enum mem_kind kind, bool swap)
{
	static const char *const keep[] = { SOFT_LIMIT, READ_AHEAD };
	const struct rlimit files = { 4 * LIMIT, 4 * LIMIT };
	struct looks *l = calloc(1, sizeof(*l));

	if (l && !geteuid() && !sysctl_keep(keep, 1 + swap) &&
	    !memcg_new(GROUP) && !memcg_new(OTHER) && !mem_kind_set(kind) &&
	    !setrlimit(RLIMIT_NOFILE, &files) &&
	    (!swap ||
	     (swap_available(BACKING_EXT4) && !swap_space(BACKING_EXT4, PMD) &&
	      !sysctl_set(READ_AHEAD, 0))) &&
	    !sysctl_set(SOFT_LIMIT, LIMIT) && !step_pair(l->step))
		return l;
	undo_now();
	return NULL;
}

/* Twice, as the first one may have been too early for what is freed late. */
static int look_before(struct state *before)
{
	return look(before) || look(before);
}

static struct finding find_leaks(struct looks *l, int (*cycle)(long i), long nr,
				 long patience)
{
	struct finding found = { "step", 1 };
	pid_t pid = fork_child();
	int ret;

	if (!pid) {
		close(l->step[0]);
		repeat(l->start, cycle, nr, l->step[1]);
	}
	close(l->step[1]);
	if (!step_await(l->step[0]) && !look_before(&l->before) &&
	    !step_tell(l->step[0]) && !step_await(l->step[0])) {
		found = compare_now(&l->before, &l->after, nr, patience);
		say(&l->before, &l->after);
		step_tell(l->step[0]);
	}
	ret = reap(pid);
	/* If it ended early, that says more. */
	if (ret && (!found.name || !strcmp(found.name, "step")))
		return (struct finding){ "exit status", ret };
	return found;
}

FIXTURE(ways)
{
	struct looks *looks;
};

FIXTURE_VARIANT(ways)
{
	int (*cycle)(long i);
	enum mem_kind kind;
	int (*start)(void);
	bool swap;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(ways, flip_small) { .cycle = flip_small };
FIXTURE_VARIANT_ADD(ways, flip_64k) { .cycle = flip_64k, .kind = MEM_64K };
FIXTURE_VARIANT_ADD(ways, flip_2m) { .cycle = flip_2m, .kind = MEM_2M };
FIXTURE_VARIANT_ADD(ways, flip_to_other) { .cycle = flip_to_other, .start = other_start };
FIXTURE_VARIANT_ADD(ways, flip_swapped) { .cycle = flip_swapped, .swap = true };
FIXTURE_VARIANT_ADD(ways, flip_holes) { .cycle = flip_holes };
FIXTURE_VARIANT_ADD(ways, flip_huge_hole) { .cycle = flip_huge_hole, .kind = MEM_2M };
FIXTURE_VARIANT_ADD(ways, fill_hole) { .cycle = fill_hole };
FIXTURE_VARIANT_ADD(ways, copied) { .cycle = copied };
FIXTURE_VARIANT_ADD(ways, give_read) { .cycle = give_read };
FIXTURE_VARIANT_ADD(ways, give_file) { .cycle = give_file };
FIXTURE_VARIANT_ADD(ways, give_socket) { .cycle = give_socket };
FIXTURE_VARIANT_ADD(ways, give_tcp) { .cycle = give_tcp };
FIXTURE_VARIANT_ADD(ways, give_tee) { .cycle = give_tee };
FIXTURE_VARIANT_ADD(ways, share_read) { .cycle = share_read };
FIXTURE_VARIANT_ADD(ways, file_to_file) { .cycle = file_to_file };
FIXTURE_VARIANT_ADD(ways, send_to_file) { .cycle = send_to_file };
FIXTURE_VARIANT_ADD(ways, send_to_socket) { .cycle = send_to_socket };
FIXTURE_VARIANT_ADD(ways, send_to_tcp) { .cycle = send_to_tcp };
FIXTURE_VARIANT_ADD(ways, served_file) { .cycle = served_file, .start = serve_start };
FIXTURE_VARIANT_ADD(ways, copy_range) { .cycle = copy_range };
FIXTURE_VARIANT_ADD(ways, write_tee) { .cycle = write_tee };
FIXTURE_VARIANT_ADD(ways, whole_life) { .cycle = whole_life };
FIXTURE_VARIANT_ADD(ways, failures) { .cycle = failures };
FIXTURE_VARIANT_ADD(ways, short_counts) { .cycle = short_counts };
/* clang-format on */

FIXTURE_SETUP(ways)
{
	self->looks = set_up(variant->kind, variant->swap);
	if (!self->looks)
		SKIP(return, "needs root, memory cgroups, swap, such folios");
	self->looks->start = variant->start;
}

FIXTURE_TEARDOWN(ways)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F_TIMEOUT(ways, leave_nothing, 900)
{
	struct finding f =
		find_leaks(self->looks, variant->cycle, cycles(600), PATIENCE);

	EXPECT_EQ(NULL, f.name) TH_LOG("%s: %ld", f.name, f.more);
}

FIXTURE(deaths)
{
	struct looks *looks;
};

FIXTURE_VARIANT(deaths)
{
	int (*cycle)(long i);
	int (*start)(void);
};

/* clang-format off */
FIXTURE_VARIANT_ADD(deaths, giver_killed) { .cycle = giver_killed };
FIXTURE_VARIANT_ADD(deaths, taker_killed) { .cycle = taker_killed };
FIXTURE_VARIANT_ADD(deaths, both_killed) { .cycle = both_killed };
FIXTURE_VARIANT_ADD(deaths, hunger) { .cycle = killed_by_hunger, .start = hunger_start };
FIXTURE_VARIANT_ADD(deaths, exits) { .cycle = exits };
FIXTURE_VARIANT_ADD(deaths, execs) { .cycle = execs };
FIXTURE_VARIANT_ADD(deaths, forks) { .cycle = forks };
FIXTURE_VARIANT_ADD(deaths, passed) { .cycle = passed };
/* clang-format on */

FIXTURE_SETUP(deaths)
{
	self->looks = set_up(MEM_4K, false);
	if (!self->looks)
		SKIP(return, "needs root, and memory cgroups");
	self->looks->start = variant->start;
}

FIXTURE_TEARDOWN(deaths)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F_TIMEOUT(deaths, leave_nothing, 900)
{
	struct finding f =
		find_leaks(self->looks, variant->cycle, cycles(200), PATIENCE);

	EXPECT_EQ(NULL, f.name) TH_LOG("%s: %ld", f.name, f.more);
}

/* As few times as there are deaths, each of which keeps one thing. */
#define NR_LIES 200

FIXTURE(lies)
{
	struct looks *looks;
};

FIXTURE_VARIANT(lies)
{
	int (*cycle)(long i);
	const char *found;
	int (*start)(void);
	bool swap;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(lies, page) { .cycle = keep_page, .found = "anonymous pages" };
FIXTURE_VARIANT_ADD(lies, file) { .cycle = keep_file, .found = "open files" };
FIXTURE_VARIANT_ADD(lies, in_flight) { .cycle = keep_in_flight, .found = "pages in flight" };
FIXTURE_VARIANT_ADD(lies, object) { .cycle = keep_object, .found = "posix_timers_cache" };
FIXTURE_VARIANT_ADD(lies, in_file) { .cycle = keep_in_file, .found = "pages of tmpfs" };
FIXTURE_VARIANT_ADD(lies, table) { .cycle = keep_table, .found = "page tables" };
FIXTURE_VARIANT_ADD(lies, swapped) {
	.cycle = keep_swapped, .found = "pages in swap", .swap = true };
FIXTURE_VARIANT_ADD(lies, charged) {
	.cycle = keep_charged, .found = "pages of the cgroup", .start = exchange_start };
FIXTURE_VARIANT_ADD(lies, room) { .cycle = keep_room, .found = "exit status" };
/* clang-format on */

FIXTURE_SETUP(lies)
{
	self->looks = set_up(MEM_4K, variant->swap);
	if (!self->looks)
		SKIP(return, "needs root, memory cgroups, and swap");
	self->looks->start = variant->start;
}

FIXTURE_TEARDOWN(lies)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F(lies, are_found)
{
	struct finding f = find_leaks(self->looks, variant->cycle, NR_LIES, 0);

	ASSERT_NE(NULL, f.name);
	EXPECT_STREQ(variant->found, f.name);
	TH_LOG("%s: %ld", f.name, f.more);
}

FLIP_HARNESS_MAIN
