// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the races of the page flip do to memory, machine and pipe.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "page_flip_race.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

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

/* The new program goes on as the same side, with the same ends of the pipe. */
static void do_exec(struct side *s)
{
	usleep(1000 * (1 + pick(s, 20)));
	if (s->arena->stop)
		return;
	s->arena->disturbed++;
	execl("/proc/self/exe", "race", NULL);
	fail(s, "execve", s->where, 0);
}

static void do_exit(struct side *s)
{
	usleep(1000 * (1 + pick(s, 20)));
	if (s->arena->stop)
		return;
	s->arena->disturbed++;
	if (pick(s, 2))
		kill(getpid(), SIGKILL);
	_exit(RACE_GOES_ON);
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

static int need_uffd_move(struct side *s)
{
	return need_twin(s) || open_userfaultfd(s);
}

/* What the giver has got rid of, but by a give, is its own still. */
static void check_moved(struct side *s, char *mem, size_t len)
{
	uint64_t frames[PMD / PAGE];
	size_t i;

	if (s->where != GIVER || read_frames(mem, len / PAGE, frames))
		return;
	for (i = 0; i < len / PAGE; i++)
		if (frames[i])
			check_unseen(s, (uint64_t *)(mem + i * PAGE));
}

/* Within one area, as it has to be: advise() leaves out the last pages. */
static char *pick_in_area(struct side *s, size_t *len)
{
	char *mem = pick_pages(s, len), *last = s->mem + LEN - 16 * PAGE;

	if (mem < last && mem + *len > last)
		*len = last - mem;
	return mem;
}

/*
 * Pages leave the memory as they do by a give, but to a place of the process.
 * That is mapped anew each time, so that huge pages move as a whole.
 */
static void do_uffd_move(struct side *s)
{
	size_t len;
	char *mem = pick_in_area(s, &len), *to = s->twin + (mem - s->mem);
	struct uffdio_register reg = {
		.range = { (uintptr_t)to, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_move move = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)mem,
		.len = len,
		.mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
	};

	if (ioctl(s->uffd, UFFDIO_REGISTER, &reg))
		fail(s, "UFFDIO_REGISTER", (long)to, len);
	if (ioctl(s->uffd, UFFDIO_MOVE, &move) && errno != EAGAIN &&
	    errno != EBUSY)
		fail(s, "UFFDIO_MOVE", (long)mem, len);
	sched_yield();
	check_moved(s, to, len);
	map_anew(to, len);
}

static int start_ksm(struct side *s)
{
	return access(RACE_KSM "run", W_OK) || need_twin(s) ||
	       sysctl_set(RACE_KSM "smart_scan", 0) ||
	       sysctl_set(RACE_KSM "sleep_millisecs", 0) ||
	       sysctl_set(RACE_KSM "pages_to_scan", 1000) ||
	       sysctl_set(RACE_KSM "run", 1);
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

#define SPLIT_HUGE_PAGES "/sys/kernel/debug/split_huge_pages"

static int can_split(struct side *s)
{
	return access(SPLIT_HUGE_PAGES, W_OK);
}

static void do_split(struct side *s)
{
	char text[80];

	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)s->mem, (unsigned long)s->mem + LEN);
	sysctl_write(SPLIT_HUGE_PAGES, text);
}

static int start_khugepaged(struct side *s)
{
	return access(RACE_KHUGEPAGED "pages_to_scan", W_OK) || can_split(s) ||
	       sysctl_set(RACE_KHUGEPAGED "alloc_sleep_millisecs", 0) ||
	       sysctl_set(RACE_KHUGEPAGED "pages_to_scan", NR_PAGES) ||
	       sysctl_set(RACE_KHUGEPAGED "scan_sleep_millisecs", 0);
}

/*
 * It counts if a huge page was made of small ones meanwhile.  One that is huge is
 * no work for it any more, and does not move in parts: back to small ones.
 */
static void do_khugepaged(struct side *s)
{
	const long before = sysctl_get(RACE_KHUGEPAGED "pages_collapsed");

	madvise(s->mem + pick(s, 2) * PMD, PMD, MADV_HUGEPAGE);
	usleep(1000 * pick(s, 20));
	advise(s, s->mem);
	if (sysctl_get(RACE_KHUGEPAGED "pages_collapsed") == before)
		s->idle = true;
	if (s->arena->kind == MEM_4K || !pick(s, 4))
		do_split(s);
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

/*
 * Threads that keep changing processor leave pages in batches of each.  Where
 * there are two memory nodes, pages go from one to the other.
 */
static void do_migrate(struct side *s)
{
	const unsigned long to = 1 + pick(s, 2), from = 3 - to;
	const int nr = sysconf(_SC_NPROCESSORS_ONLN);
	const pid_t pid = s->arena->pid[pick(s, 2)];
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(pick(s, nr), &set);
	sched_setaffinity(pid, sizeof(set), &set);
	syscall(SYS_migrate_pages, pid, 3, &from, &to);
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

static void do_reclaim(struct side *s)
{
	memcg_write(RACE_GROUP, "memory.reclaim", "1M swappiness=max");
	if (!pick(s, 8))
		sysctl_set("/proc/sys/vm/drop_caches", 2);
}

/* The swap file of this race; the one of its fixture will be gone by itself. */
static char swap_path[256];

static int find_swap(struct side *s)
{
	FILE *file = fopen("/proc/swaps", "r");
	char line[512];
	int found = 0;

	if (!file)
		return -1;
	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, "splice_swap") &&
			sscanf(line, "%255s", swap_path) == 1;
	fclose(file);
	return !found;
}

/* What is in swap comes back, whoever gives it at the same time. */
static void do_swapoff(struct side *s)
{
	memcg_write(RACE_GROUP, "memory.reclaim", "1M swappiness=max");
	if (swapoff(swap_path) || swapon(swap_path, 0))
		fail(s, "swapoff and swapon", 0, 0);
	usleep(pick(s, 1000));
}

/*
 * What there is, but only now and then for memory.high, which slows down who is
 * above it; less than that where there is swap.  Without swap
 * a take of a single page does not fit, and who touches new memory is killed.
 */
static int set_limits(struct side *s, const char *group)
{
	const bool swap = !pick(s, 3), high = !pick(s, 8);
	const char *file = high ? "memory.high" : "memory.max";
	char text[32];
	long now;

	if (memcg_write(group, "memory.swap.max", swap ? "max" : "0"))
		return -1;
	now = memcg_read(group, "memory.current");
	if (swap && !high)
		now = now / 100 * (60 + pick(s, 40));
	snprintf(text, sizeof(text), "%ld", now);
	return memcg_write(group, file, text);
}

/*
 * The group of one side is full for a moment; with less than a MiB it would not
 * get anywhere.
 */
static void do_limits(struct side *s)
{
	const char *group = race_group(s->arena, s->arena->where);

	usleep(pick(s, 3000));
	if (memcg_read(group, "memory.current") < (long)MIB)
		return;
	if (set_limits(s, group))
		fail(s, "limits", 0, 0);
	usleep(pick(s, 5000));
	if (memcg_write(group, "memory.high", "max") ||
	    memcg_write(group, "memory.max", "max"))
		fail(s, "no limits", 0, 0);
}

/* A kernel without swap has no such file. */
static int can_limit(struct side *s)
{
	return access(memcg_path(race_group(s->arena, s->arena->where),
				 "memory.swap.max"),
		      W_OK);
}

static int can_unplug(struct side *s)
{
	return access(RACE_CPU, W_OK);
}

/* Pages in batches of a processor that goes, and counts that it has kept. */
static void do_hotplug(struct side *s)
{
	if (sysctl_set(RACE_CPU, 0) && errno != EBUSY)
		fail(s, "processor off", 0, 0);
	usleep(pick(s, 1000));
	if (sysctl_set(RACE_CPU, 1))
		fail(s, "processor on", 0, 0);
	usleep(pick(s, 1000));
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

/* A pipe and a connection of one's own. */
static int own[2];
static int own_socket[2];

static int need_pipe(struct side *s)
{
	return pipe_of(own, 64);
}

/*
 * References from a walk without locks, and what they lead to a moment later.
 * It may be written to, but by the giver, not by who has taken it.
 */
static void do_share(struct side *s)
{
	uint64_t words[WORDS];
	size_t len;
	char *mem = pick_pages(s, &len);

	if (share(own[1], mem, len < 64 * PAGE ? len : 64 * PAGE) < 0)
		fail(s, "vmsplice", (long)mem, len);
	sched_yield();
	while (bytes_queued(own[0]) > 0) {
		if (read(own[0], words, PAGE) != PAGE)
			fail(s, "read of pages shared", (long)mem, len);
		if (s->where == GIVER)
			check_unseen(s, words);
	}
}

static int direct;

/* With zeroes on the disk: a hole of a file is read without it. */
static int open_direct(struct side *s)
{
	static const char zeroes[PMD];
	int fd = backing_file(BACKING_EXT4);

	if (fd < 0 || write_all(fd, zeroes, PMD))
		return -1;
	direct = reopen(fd, O_RDONLY | O_DIRECT);
	close(fd);
	return direct < 0;
}

/* Pins to write through, from a walk without locks: zeroes, which come late. */
static void do_direct(struct side *s)
{
	size_t len;
	char *mem = pick_pages(s, &len);

	if (pread(direct, mem, len, 0) != (ssize_t)len)
		fail(s, "O_DIRECT", (long)mem, len);
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

/* What suits a PMD at one moment does not at the next. */
static void do_thp(struct side *s)
{
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	sched_yield();
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	usleep(pick(s, 200));
}

/* From here on: what is done to the pipe, with memory of one's own. */
static int need_memory(struct side *s)
{
	s->mem = map_mem(LEN);
	return !s->mem;
}

/* Another giver. */
static void op_give(struct side *s)
{
	unsigned int from, nr;

	pick_range(s, &from, &nr);
	fill_range(s, from, nr, ++s->arena->gen);
	give_range(s, from, nr);
}

/* Another taker. */
static void op_take(struct side *s)
{
	unsigned int from, nr;
	ssize_t n;

	pick_range(s, &from, &nr);
	check_marks(s);
	n = take(s->fds[0], page_at(s, from), nr * PAGE, SPLICE_F_NONBLOCK);
	if (n <= 0)
		s->idle = true;
	if (n < 0)
		check_error(s, "take", SPLICE_F_NONBLOCK);
	if (n <= 0)
		return;
	if (n % PAGE)
		skip_rest(s, n);
	check_range(s, from, n / PAGE);
}

static int need_pipes(struct side *s)
{
	return need_memory(s) || need_pipe(s) || unix_pair(own_socket);
}

/* What is in it: part of a page comes last, if at all. */
static void empty_own_pipe(struct side *s)
{
	while (bytes_queued(own[0]) > 0)
		if (pick(s, 2))
			check_bytes(s, s->mem, read(own[0], s->mem, LEN));
		else
			check_bytes(s, s->mem,
				    take(own[0], s->mem,
					 pick(s, 2) ? LEN : 16 * PAGE, 0));
}

/* As much as it has room for: bytes, and what is left of a page is gone. */
static ssize_t splice_to(struct side *s, int fd, unsigned int nr)
{
	const size_t len = nr * PAGE;
	ssize_t n = splice(s->fds[0], NULL, fd, NULL, len, SPLICE_F_NONBLOCK);

	if (n <= 0)
		s->idle = true;
	if (n < 0)
		check_error(s, "splice", SPLICE_F_NONBLOCK);
	if (n > 0 && n % PAGE)
		skip_rest(s, n);
	return n;
}

/* To another pipe, or to a socket, which takes references to the pages. */
static void op_splice(struct side *s)
{
	ssize_t n;

	if (pick(s, 3)) {
		if (splice_to(s, own[1], 64) > 0)
			empty_own_pipe(s);
		return;
	}
	n = splice_to(s, own_socket[1], 8);
	if (n > 0 && !read_all(own_socket[0], s->mem, n))
		check_bytes(s, s->mem, n);
}

static void op_tee(struct side *s)
{
	const ssize_t n = tee(s->fds[0], own[1], 64 * PAGE, SPLICE_F_NONBLOCK);

	if (n <= 0)
		s->idle = true;
	if (n < 0)
		check_error(s, "tee", SPLICE_F_NONBLOCK);
	empty_own_pipe(s);
}

/* If there is little to read somebody may be faster, and this would wait. */
static void op_read(struct side *s)
{
	ssize_t n;

	if (bytes_queued(s->fds[0]) <= 16 * PAGE) {
		s->idle = true;
		return;
	}
	n = read(s->fds[0], s->mem, (1 + pick(s, 8)) * PAGE);
	if (n < 0) {
		s->idle = true;
		check_error(s, "read", 0);
	}
	check_bytes(s, s->mem, n);
	if (n > 0 && n % PAGE)
		skip_rest(s, n);
}

/* Pages of a generation of its own, among those that are given. */
static void op_write(struct side *s)
{
	const unsigned int nr = 1 + pick(s, 16), from = pick(s, NR_PAGES - nr);

	ssize_t n;

	fill_range(s, from, nr, ++s->arena->gen);
	n = write(s->fds[1], page_at(s, from), nr * PAGE);
	if (n < 0) {
		s->idle = true;
		check_error(s, "write", 0);
	} else if (n % PAGE) {
		complete_page(s, n);
	}
}

/* An end of the pipe that is there for a moment. */
static void open_and_close(struct side *s)
{
	int fd = reopen(s->fds[0], pick(s, 2) ? O_RDONLY : O_WRONLY);

	if (fd < 0)
		fail(s, "an end of the pipe", 0, 0);
	usleep(pick(s, 100));
	close(fd);
}

/* Pages that are in flight when their pipe ends, alone or also in another one. */
static void op_close(struct side *s)
{
	int fds[2];

	if (pick(s, 2)) {
		open_and_close(s);
		return;
	}
	if (pipe_of(fds, 64)) {
		fail(s, "a pipe", 0, 0);
		return;
	}
	if (pick(s, 2))
		splice_to(s, fds[1], 8);
	else
		tee(s->fds[0], fds[1], 64 * PAGE, SPLICE_F_NONBLOCK);
	sched_yield();
	close(fds[pick(s, 2)]);
	close(fds[0]);
	close(fds[1]);
}

static void op_resize(struct side *s)
{
	fcntl(s->fds[0], F_SETPIPE_SZ, (1 << pick(s, 11)) * PAGE);
}

#define ZAP (MAY_LOSE | MAY_BLANK | MAY_CUT | MAY_TEAR)

/* clang-format off */
const struct act acts[NR_ACTS] = {
	[NOTHING] = { "nothing", NULL, NULL, 0 },
	[UNMAP] = { "munmap and mmap", NULL, do_unmap, MAY_FAULT | ZAP },
	[MAP_OVER] = { "mmap over it", NULL, do_map_over, ZAP },
	[MREMAP] = { "mremap", need_twin, do_mremap, MAY_FAULT | MAY_CUT | MAY_TEAR | MAY_BLANK },
	[DONTNEED] = { "MADV_DONTNEED", NULL, do_dontneed, ZAP },
	[LAZYFREE] = { "MADV_FREE", NULL, do_free, ZAP | SWAPS },
	[PAGEOUT] = { "MADV_PAGEOUT", NULL, do_pageout, SWAPS },
	[COLLAPSE] = { "MADV_COLLAPSE", NULL, do_collapse, 0 },
	[KHUGEPAGED] = { "khugepaged", start_khugepaged, do_khugepaged, 0 },
	[MPROTECT] = { "mprotect", NULL, do_mprotect, MAY_FAULT | MAY_CUT | MAY_BLANK },
	[MLOCK] = { "mlock", NULL, do_mlock, 0 },
	[FORK] = { "fork", NULL, do_fork, 0 },
	[EXEC] = { "execve", race_remember, do_exec, 0 },
	[EXIT] = { "exit", NULL, do_exit, DIES },
	[USERFAULT] = { "userfaultfd", open_userfaultfd, do_userfault, 0 },
	[UFFD_MOVE] = { "UFFDIO_MOVE", need_uffd_move, do_uffd_move, ZAP },
	[KSM] = { "KSM", start_ksm, do_ksm, 0 },
	[SPLIT] = { "split", can_split, do_split, 0 },
	[THP] = { "PR_SET_THP_DISABLE", NULL, do_thp, 0 },
	[LOOK] = { "page table walks", NULL, do_look, 0 },
	[MIGRATE] = { "migration of tasks and pages", NULL, do_migrate, 0 },
	[COMPACT] = { "compaction", can_compact, do_compact, 0 },
	[RECLAIM] = { "reclaim", NULL, do_reclaim, SWAPS },
	[SWAPOFF] = { "swapoff", find_swap, do_swapoff, SWAPS },
	[LIMITS] = { "memory limits", can_limit, do_limits, MAY_NOMEM | SWAPS | DIES | APART },
	[HOTPLUG] = { "processor hotplug", can_unplug, do_hotplug, 0 },
	[PEEK] = { "process_vm_readv", NULL, do_peek, 0 },
	[SHARE] = { "a plain vmsplice", need_pipe, do_share, 0 },
	[DIRECT] = { "O_DIRECT", open_direct, do_direct, MAY_BLANK | MAY_CUT | MAY_TEAR },
	[GIVE_TOO] = { "a second giver", NULL, do_give_too, MAY_BLANK | MAY_CUT | MAY_TEAR },
	[TAKE_TOO] = { "a second taker", NULL, do_take_too, ZAP },
	[HOLES] = { "memory with holes", NULL, NULL, MAY_BLANK },
	[OP_GIVE] = { "give", need_memory, op_give, WRITES },
	[OP_TAKE] = { "take", need_memory, op_take, READS },
	[OP_SPLICE] = { "splice", need_pipes, op_splice, READS },
	[OP_TEE] = { "tee", need_pipes, op_tee, READS },
	[OP_READ] = { "read", need_memory, op_read, READS },
	[OP_WRITE] = { "write", need_memory, op_write, WRITES },
	[OP_CLOSE] = { "close", NULL, op_close, READS },
	[OP_RESIZE] = { "F_SETPIPE_SZ", NULL, op_resize, 0 },
};

/* clang-format on */
