// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the page flip's tests; page_flip_util.h has their contracts. */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "page_flip_util.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef PAGEMAP_SCAN
#define PAGE_IS_HUGE 0x40

struct page_region {
	__u64 start;
	__u64 end;
	__u64 categories;
};

struct pm_scan_arg {
	__u64 size;
	__u64 flags;
	__u64 start;
	__u64 end;
	__u64 walk_end;
	__u64 vec;
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define CGROUP "/sys/fs/cgroup/"

/* Bits of /proc/kpageflags. */
#define KPF_COMPOUND_HEAD 15
#define KPF_COMPOUND_TAIL 16

bool flip_available(void)
{
	bool has;
	int p[2];

	if (pipe(p))
		return false;
	has = !give(p[1], NULL, 0, SPLICE_F_NOCOPY);
	close(p[0]);
	close(p[1]);
	return has;
}

/* What the harness says of a program that skips: KSFT_SKIP is 4. */
void flip_require(void)
{
	if (flip_available())
		return;
	printf("1..0 # SKIP no page flip\n");
	exit(4);
}

int stay_on_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return -1;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

int leave_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu(), i;

	if (cpu < 0)
		return -1;
	CPU_ZERO(&set);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (i != cpu)
			CPU_SET(i, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

int become(uid_t uid)
{
	if (geteuid())
		return 0;
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) ||
	    setresuid(uid, uid, uid))
		return -1;
	return prctl(PR_SET_DUMPABLE, 1);
}

long elapsed_ms(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 +
	       (now.tv_nsec - since->tv_nsec) / 1000000;
}

static ssize_t vmsplice_one(int fd, const void *mem, size_t len,
			    unsigned int flags)
{
	struct iovec iov = { (void *)mem, len };

	return vmsplice(fd, &iov, 1, flags);
}

ssize_t give(int wfd, const void *mem, size_t len, unsigned int more)
{
	return vmsplice_one(wfd, mem, len,
			    SPLICE_F_GIFT | SPLICE_F_MOVE | more);
}

ssize_t give_iov(int wfd, const struct iovec *iov, size_t n, unsigned int more)
{
	return vmsplice(wfd, iov, n, SPLICE_F_GIFT | SPLICE_F_MOVE | more);
}

ssize_t take(int rfd, void *mem, size_t len, unsigned int more)
{
	return vmsplice_one(rfd, mem, len, SPLICE_F_MOVE | more);
}

ssize_t take_iov(int rfd, const struct iovec *iov, size_t n, unsigned int more)
{
	return vmsplice(rfd, iov, n, SPLICE_F_MOVE | more);
}

static ssize_t vmsplice_all(int fd, const char *mem, size_t len,
			    unsigned int flags)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = vmsplice_one(fd, mem + done, len - done, flags);
		if (n < 0)
			return -1;
		if (!n)
			break;
		done += n;
	}
	return done;
}

ssize_t give_all(int wfd, const void *mem, size_t len, unsigned int more)
{
	return vmsplice_all(wfd, mem, len,
			    SPLICE_F_GIFT | SPLICE_F_MOVE | more);
}

ssize_t take_all(int rfd, void *mem, size_t len, unsigned int more)
{
	return vmsplice_all(rfd, mem, len, SPLICE_F_MOVE | more);
}

ssize_t share(int wfd, const void *mem, size_t len)
{
	return vmsplice_one(wfd, mem, len, 0);
}

int pipe_of(int fds[2], size_t slots)
{
	if (pipe(fds))
		return -1;
	if (fcntl(fds[1], F_SETPIPE_SZ, slots * PAGE) == (int)(slots * PAGE))
		return 0;
	close(fds[0]);
	close(fds[1]);
	return -1;
}

static size_t round_up(size_t len, size_t to)
{
	return (len + to - 1) / to * to;
}

/* Out of reach, a PMD on each side keeps neighbours and other areas away. */
char *map_mem(size_t len)
{
	const size_t room = round_up(len, PMD) + 2 * PMD;
	char *raw, *from, *mem;

	raw = mmap(NULL, room + PMD, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return NULL;
	from = raw + (-(uintptr_t)raw & (PMD - 1));
	if (from > raw)
		munmap(raw, from - raw);
	if (from < raw + PMD)
		munmap(from + room, raw + PMD - from);
	mem = mmap(from + PMD, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		   0);
	return mem == MAP_FAILED ? NULL : mem;
}

void unmap_mem(void *mem, size_t len)
{
	munmap((char *)mem - PMD, round_up(len, PMD) + 2 * PMD);
}

static const struct {
	const char *name;
	ssize_t size;
} kinds[] = {
	[MEM_4K] = { "4k", PAGE },
	[MEM_16K] = { "16k", 16 * KIB },
	[MEM_32K] = { "32k", 32 * KIB },
	[MEM_64K] = { "64k", 64 * KIB },
	[MEM_128K] = { "128k", 128 * KIB },
	[MEM_256K] = { "256k", 256 * KIB },
	[MEM_512K] = { "512k", 512 * KIB },
	[MEM_1M] = { "1m", MIB },
	[MEM_2M] = { "2m", PMD },
	[MEM_2M_PTES] = { "2m by page table entries", PMD },
};

const char *mem_kind_name(enum mem_kind kind)
{
	return kinds[kind].name;
}

ssize_t mem_kind_size(enum mem_kind kind)
{
	return kinds[kind].size;
}

static void folio_knob(char path[128], size_t size)
{
	snprintf(path, 128, THP "hugepages-%lukB/enabled", size / KIB);
}

/* Larger folios are tried first: each size has its say. */
int mem_kind_set(enum mem_kind kind)
{
	static char paths[NR_MEM_KINDS][128];
	const char *keep[NR_MEM_KINDS];
	enum mem_kind k;
	size_t n = 0, i;

	if (kind == MEM_4K || kind >= MEM_2M)
		return 0;
	for (k = MEM_16K; k <= MEM_2M; k++, n++) {
		folio_knob(paths[n], kinds[k].size);
		keep[n] = paths[n];
	}
	if (sysctl_keep(keep, n))
		return -1;
	for (i = 0, k = MEM_16K; i < n; i++, k++)
		if (sysctl_write(keep[i], k == kind ? "madvise" : "never"))
			return -1;
	return 0;
}

/* Where it shows, every folio is as large as @kind says. */
static bool is_kind(char *mem, long len, enum mem_kind kind)
{
	const long size = kinds[kind].size;
	long off;

	if (huge_bytes(mem, len) != (kind == MEM_2M ? len : 0))
		return false;
	if (!frames_visible())
		return true;
	for (off = 0; off < len; off += size)
		if (folio_pages(mem + off) != size / PAGE)
			return false;
	return true;
}

/* The mapping of each PMD is split where protection once changed within it. */
static int map_by_ptes(char *mem, size_t len)
{
	const int rw = PROT_READ | PROT_WRITE;
	size_t off;

	for (off = 0; off < len; off += PMD)
		if (mprotect(mem + off + PMD / 2, PAGE, PROT_READ) ||
		    mprotect(mem + off + PMD / 2, PAGE, rw))
			return -1;
	return 0;
}

/*
 * Only what mTHP needs is advised, and taken back: memory that is known to
 * want huge pages would get other ones in the background.
 */
static int advise(char *mem, size_t len, enum mem_kind kind, bool filled)
{
	if (kind >= MEM_2M)
		return 0;
	if (kind == MEM_4K || filled)
		/* EINVAL: a kernel without huge pages. */
		return madvise(mem, len, MADV_NOHUGEPAGE) && kind != MEM_4K;
	return madvise(mem, len, MADV_HUGEPAGE);
}

int mem_fill(void *mem, size_t len, enum mem_kind kind, uint64_t seed)
{
	if (advise(mem, len, kind, false))
		return -1;
	pattern_fill(mem, len, 0, seed);
	if (advise(mem, len, kind, true))
		return -1;
	if (kind >= MEM_2M && huge_bytes(mem, len) != (long)len &&
	    madvise(mem, len, MADV_COLLAPSE))
		return -1;
	if (kind == MEM_2M_PTES && map_by_ptes(mem, len))
		return -1;
	/* Also where protection had changed the pages are writable again. */
	pattern_fill(mem, len, 0, seed);
	if (is_kind(mem, len, kind))
		return 0;
	errno = ENOENT;
	return -1;
}

char *map_filled(size_t len, enum mem_kind kind, uint64_t seed)
{
	char *mem = map_mem(len);
	int err;

	if (!mem || !mem_fill(mem, len, kind, seed))
		return mem;
	err = errno;
	unmap_mem(mem, len);
	errno = err;
	return NULL;
}

int swap_out(void *mem, size_t len)
{
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		if (madvise(mem, len, MADV_PAGEOUT))
			return -1;
		if (swapped_pages(mem, len) == (long)len / PAGE &&
		    !vmstat_get("nr_writeback"))
			return 0;
		usleep(10000);
	}
	errno = EAGAIN;
	return -1;
}

/* Entries of the page map with @bit. */
static long count_entries(const void *mem, size_t len, unsigned int bit)
{
	uint64_t entries[512];
	size_t off, i, n;
	long sum = 0;

	for (off = 0; off < len; off += n * PAGE) {
		n = (len - off) / PAGE;
		n = n < ARRAY_SIZE(entries) ? n : ARRAY_SIZE(entries);
		if (!n || read_pagemap((const char *)mem + off, n, entries))
			break;
		for (i = 0; i < n; i++)
			sum += entries[i] >> bit & 1;
	}
	return sum;
}

long present_pages(const void *mem, size_t len)
{
	return count_entries(mem, len, 63);
}

long swapped_pages(const void *mem, size_t len)
{
	return count_entries(mem, len, 62);
}

long huge_bytes(const void *mem, size_t len)
{
	struct page_region found[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)mem,
		.end = (uintptr_t)mem + len,
		.vec = (uintptr_t)found,
		.vec_len = ARRAY_SIZE(found),
		.category_mask = PAGE_IS_HUGE,
		.return_mask = PAGE_IS_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY), n, i;
	long sum = 0;

	while (arg.start < arg.end) {
		n = ioctl(fd, PAGEMAP_SCAN, &arg);
		if (n < 0)
			break;
		for (i = 0; i < n; i++)
			sum += found[i].end - found[i].start;
		arg.start = arg.walk_end;
	}
	close(fd);
	return sum;
}

long folio_pages(const void *mem)
{
	uint64_t frame, flags[PMD / PAGE];
	ssize_t got;
	long nr;
	int fd;

	if (read_frames(mem, 1, &frame) || !frame)
		return 0;
	fd = open("/proc/kpageflags", O_RDONLY);
	got = pread(fd, flags, sizeof(flags), frame * sizeof(*flags));
	close(fd);
	if (got < (ssize_t)sizeof(*flags) || flags[0] >> KPF_COMPOUND_TAIL & 1)
		return 0;
	if (!(flags[0] >> KPF_COMPOUND_HEAD & 1))
		return 1;
	for (nr = 1; nr < got / (long)sizeof(*flags); nr++)
		if (!(flags[nr] >> KPF_COMPOUND_TAIL & 1))
			break;
	return nr;
}

bool frames_visible(void)
{
	uint64_t frame = 0;

	return !read_frames(&frame, 1, &frame) && frame;
}

long same_frames(const void *mem, size_t nr, const uint64_t *frames)
{
	uint64_t *now = calloc(nr, sizeof(*now));
	long same = 0;
	size_t i;

	if (now && !read_frames(mem, nr, now))
		for (i = 0; i < nr; i++)
			same += now[i] && now[i] == frames[i];
	free(now);
	return same;
}

long number_in(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	const size_t len = strlen(name);
	char line[256];
	long value = -1;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, len) && strchr(" \t:", line[len]))
			value = atol(line + len + 1);
	fclose(file);
	return value;
}

long rss_pages(void)
{
	return number_in("/proc/self/status", "RssAnon:") / (long)(PAGE / KIB);
}

/* What each processor holds back is folded in by a read of that file. */
long vmstat_get(const char *name)
{
	if (!strncmp(name, "nr_", 3))
		sysctl_get("/proc/sys/vm/stat_refresh");
	return number_in("/proc/vmstat", name);
}

long flip_in_flight(long most, long ms)
{
	struct timespec start;
	long now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((now = vmstat_get("nr_flip_pages")) > most) {
		if (elapsed_ms(&start) > ms)
			break;
		usleep(10000);
	}
	return now;
}

static const char *const event_names[] = {
	[GIVEN] = "flip_given",
	[GIVEN_HOLE] = "flip_given_hole",
	[TAKEN] = "flip_taken",
	[TAKEN_HOLE] = "flip_taken_hole",
	[COPIED] = "flip_copied",
	[COPIED_UNALIGNED] = "flip_copied_unaligned",
	[COPIED_SHARED] = "flip_copied_shared",
	[COPIED_FILE] = "flip_copied_file",
	[COPIED_HUGETLB] = "flip_copied_hugetlb",
	[COPIED_SECRETMEM] = "flip_copied_secretmem",
	[COPIED_PFN] = "flip_copied_pfn",
	[COPIED_MLOCKED] = "flip_copied_mlocked",
	[COPIED_UFFD] = "flip_copied_uffd",
	[COPIED_DROPPABLE] = "flip_copied_droppable",
	[COPIED_SPECIAL] = "flip_copied_special",
	[COPIED_KSM] = "flip_copied_ksm",
	[COPIED_FORKED] = "flip_copied_forked",
	[COPIED_PINNED] = "flip_copied_pinned",
	[COPIED_REFERENCED] = "flip_copied_referenced",
	[COPIED_LAZYFREE] = "flip_copied_lazyfree",
	[COPIED_WRITEBACK] = "flip_copied_writeback",
	[COPIED_UNMOVABLE] = "flip_copied_unmovable",
	[COPIED_PARTIAL] = "flip_copied_partial",
	[COPIED_LOCKED] = "flip_copied_locked",
	[COPIED_FOREIGN] = "flip_copied_foreign",
	[COPIED_SHORT] = "flip_copied_short",
	[COPIED_TEED] = "flip_copied_teed",
	[COPIED_DESTBUSY] = "flip_copied_destbusy",
	[COPIED_RACE] = "flip_copied_race",
};

const char *flip_event_name(enum flip_event ev)
{
	return event_names[ev];
}

static void take_line(struct flip_counts *counts, char *line)
{
	char *value = strchr(line, ' ');
	int ev;

	if (!value)
		return;
	*value++ = '\0';
	for (ev = 0; ev < NR_FLIP_EVENTS; ev++)
		if (!strcmp(line, event_names[ev]))
			counts->nr[ev] = atol(value);
}

int flip_counts(struct flip_counts *counts)
{
	FILE *file = fopen("/proc/vmstat", "r");
	char line[256];
	int ev;

	if (!file)
		return -1;
	for (ev = 0; ev < NR_FLIP_EVENTS; ev++)
		counts->nr[ev] = -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "flip_", 5))
			take_line(counts, line);
	fclose(file);
	for (ev = 0; ev < NR_FLIP_EVENTS; ev++)
		if (counts->nr[ev] < 0) {
			errno = ENOENT;
			return -1;
		}
	return 0;
}

const char *flip_difference(const struct flip_counts *before,
			    const struct flip_counts *want)
{
	static char text[128];
	struct flip_counts now, sum = *want;
	int ev;

	if (flip_counts(&now))
		return "no counters";
	if (!sum.nr[COPIED])
		for (ev = COPIED + 1; ev < NR_FLIP_EVENTS; ev++)
			sum.nr[COPIED] += want->nr[ev];
	/* The reason that came says more than the sum that it changed. */
	for (ev = NR_FLIP_EVENTS - 1; ev >= 0; ev--) {
		long got = now.nr[ev] - before->nr[ev];

		if (got == sum.nr[ev])
			continue;
		snprintf(text, sizeof(text), "%s %ld, not %ld", event_names[ev],
			 got, sum.nr[ev]);
		return text;
	}
	return "";
}

const char *flip_difference_in(const struct flip_counts *before,
			       const struct flip_list *list)
{
	struct flip_counts want = { .nr = { 0 } };
	size_t i;

	for (i = 1; i < ARRAY_SIZE(list->nr); i += 2)
		want.nr[list->nr[i]] += list->nr[i + 1];
	return flip_difference(before, &want);
}

int send_fds(int sock, const int *fds, size_t nr, int flags)
{
	char space[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { "", 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	return sendmsg(sock, &msg, flags) == 1 ? 0 : -1;
}

int step_pair(int sv[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
}

int step_tell(int fd)
{
	return write_all(fd, "", 1);
}

int step_await(int fd)
{
	char c;

	return read_all(fd, &c, 1);
}

const char *memcg_path(const char *name, const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), CGROUP "splice_test.%s%s%s", name,
		 *file ? "/" : "", file);
	return path;
}

int memcg_remove(const char *name)
{
	return rmdir(memcg_path(name, ""));
}

/* Whoever is left in it goes to the root; the dead take a moment. */
static int memcg_end(void *name)
{
	char line[32];
	int tries;
	FILE *file;

	for (tries = 0; tries < 500; tries++) {
		file = fopen(memcg_path(name, "cgroup.procs"), "r");
		while (file && fgets(line, sizeof(line), file))
			sysctl_write(CGROUP "cgroup.procs", line);
		if (file)
			fclose(file);
		if (!memcg_remove(name) || errno == ENOENT)
			return 0;
		usleep(10000);
	}
	return -1;
}

/* Memory is accounted below, in the root or in the group around @name. */
static void memcg_enable(const char *name)
{
	char *above = strdup(name), *slash;

	sysctl_write(CGROUP "cgroup.subtree_control", "+memory");
	slash = above ? strrchr(above, '/') : NULL;
	if (slash) {
		*slash = '\0';
		memcg_write(above, "cgroup.subtree_control", "+memory");
	}
	free(above);
}

int memcg_new(const char *name)
{
	struct stat st;
	char *copy;

	memcg_enable(name);
	memcg_remove(name);
	if (mkdir(memcg_path(name, ""), 0755))
		return -1;
	copy = strdup(name);
	if (!copy || undo_at_end(memcg_end, copy))
		return -1;
	return stat(memcg_path(name, "memory.current"), &st);
}

int memcg_enter(const char *name)
{
	return memcg_write(name, "cgroup.procs", "0");
}

pid_t fork_in(const char *name)
{
	pid_t pid = fork_child();

	if (!pid && (memcg_enter(name) || stay_on_cpu()))
		_exit(255);
	return pid;
}

int memcg_write(const char *name, const char *file, const char *value)
{
	return sysctl_write(memcg_path(name, file), value);
}

long memcg_read(const char *name, const char *file)
{
	char text[64];

	if (setting_get(memcg_path(name, file), text, sizeof(text)) ||
	    !strcmp(text, "max"))
		return -1;
	return atol(text);
}

long memcg_stat(const char *name, const char *file, const char *key)
{
	return number_in(memcg_path(name, file), key);
}
