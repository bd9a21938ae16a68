// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bring real data from the memory of one process to that of another by the page
 * flip and by every way that copies: what it costs, how much memory it takes,
 * and whether the page frames at the other end are those of the source.
 *
 * Usage: flip_ways [-m MIB] [-l LENGTH] [-s SHA256] FILE
 *
 * The data is FILE, repeated up to -m MIB (default 256), and -s the sum of that.
 * Where FILE is a disk, -l is the length of what is on it.  Needs root for the
 * page frames and cgroup2 for the memory.
 *
 * The columns, for memory of small pages and of huge pages:
 * per 4 KiB  processor time of both processes in nanoseconds, which under
 *            QEMU's -icount shift=0 are instructions
 * peak       MiB that both had together at most: memory.peak of a cgroup, so
 *            pages in the pipe, page tables and shared memory count, once
 * frames     same: every page; else copied, or how many are the same
 *
 * A flip with nothing to free and nothing written again is the good case.  The
 * indented rows are the others.  With write and read, writing again costs the
 * giver nothing.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "page_flip_util.h"

#define PIPE_BYTES MIB
#define PEAK "/sys/fs/cgroup/splice_test.ways/memory.peak"
#define SHMEM_HUGE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

enum role { GIVER, TAKER, NR_ROLES };

/* What the processes of a way have in common, and tell each other. */
struct shared {
	pthread_barrier_t barrier;
	pid_t giver;
	char *giver_mem;
	uint64_t ns[NR_ROLES];
	long same; /* frames */
	bool right;
	char seen; /* a sum of bytes, so that they are read */
	uint64_t frames[];
};

static struct shared *shared;

static const char *source;
static size_t len = 256 * MIB, file_len;
static char source_sum[65];
/* Of the way that runs. */
static int pipe_fds[2], shm_fd;
static enum mem_kind kind;
static char *mem;

static void must(bool ok, const char *what)
{
	if (!ok)
		err(1, "%s", what);
}

static void vmsplice_all(int fd, unsigned int flags)
{
	struct iovec iov = { mem, len };
	ssize_t n;

	while (iov.iov_len) {
		n = vmsplice(fd, &iov, 1, flags);
		must(n >= 0, "vmsplice");
		if (!n)
			errx(1, "vmsplice: unexpected end");
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
	}
}

static void give_pages(void)
{
	vmsplice_all(pipe_fds[1], SPLICE_F_GIFT | SPLICE_F_MOVE);
}

static void take_pages(void)
{
	vmsplice_all(pipe_fds[0], SPLICE_F_MOVE);
}

static void give_and_write_again(void)
{
	size_t off;

	give_pages();
	for (off = 0; off < len; off += PAGE)
		mem[off] = 1;
}

static void write_pipe(void)
{
	size_t off;

	for (off = 0; off < len; off += PIPE_BYTES)
		must(!write_all(pipe_fds[1], mem + off, PIPE_BYTES), "write");
}

static void read_pipe(void)
{
	size_t off;

	for (off = 0; off < len; off += PIPE_BYTES)
		must(!read_all(pipe_fds[0], mem + off, PIPE_BYTES), "read");
}

static void vmsplice_in(void)
{
	vmsplice_all(pipe_fds[1], 0);
}

static void vmsplice_out(void)
{
	vmsplice_all(pipe_fds[0], 0);
}

static void read_other_process(void)
{
	struct iovec here = { mem, len }, there = { shared->giver_mem, len };
	ssize_t n;

	while (here.iov_len) {
		n = process_vm_readv(shared->giver, &here, 1, &there, 1, 0);
		must(n > 0, "process_vm_readv");
		here.iov_base = (char *)here.iov_base + n;
		here.iov_len -= n;
		there.iov_base = (char *)there.iov_base + n;
		there.iov_len -= n;
	}
}

static char *map_shared_memory(void)
{
	char *p =
		mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, shm_fd, 0);

	must(p != MAP_FAILED, "mmap");
	must(!madvise(p, len, kind == MEM_4K ? MADV_NOHUGEPAGE : MADV_HUGEPAGE),
	     "MADV_HUGEPAGE");
	return p;
}

static void copy_to_shared(void)
{
	memcpy(map_shared_memory(), mem, len);
	must(!write_all(pipe_fds[1], "", 1), "write");
}

static void map_shared(void)
{
	size_t off;
	char c;

	must(!read_all(pipe_fds[0], &c, 1), "read");
	mem = map_shared_memory();
	for (off = 0; off < len; off += PAGE)
		shared->seen += mem[off];
}

static void stand_still(void)
{
}

static const struct way {
	const char *name;
	void (*run[NR_ROLES])(void);
	bool flip;
	bool in_use; /* the taker's memory, before */
	bool other_cgroup;
	bool sum; /* check by SHA-256, which takes long */
} ways[] = {
	{ .name = "page flip: give, take",
	  .run = { give_pages, take_pages },
	  .flip = true,
	  .sum = true },
	{ .name = "  to another memory cgroup",
	  .run = { give_pages, take_pages },
	  .flip = true,
	  .other_cgroup = true },
	{ .name = "  taker's memory was in use",
	  .run = { give_pages, take_pages },
	  .flip = true,
	  .in_use = true },
	{ .name = "  giver writes its memory again",
	  .run = { give_and_write_again, take_pages },
	  .flip = true },
	{ .name = "  both, as a stream of buffers",
	  .run = { give_and_write_again, take_pages },
	  .flip = true,
	  .in_use = true },
	{ .name = "write, read", .run = { write_pipe, read_pipe } },
	{ .name = "  as a stream of buffers",
	  .run = { write_pipe, read_pipe },
	  .in_use = true },
	{ .name = "vmsplice, read", .run = { vmsplice_in, read_pipe } },
	{ .name = "vmsplice, vmsplice", .run = { vmsplice_in, vmsplice_out } },
	{ .name = "process_vm_readv",
	  .run = { stand_still, read_other_process } },
	{ .name = "shared memory: memcpy, map",
	  .run = { copy_to_shared, map_shared } },
};

/* By the kernel, which is faster at it than sha256sum of busybox. */
static void sum_of(const void *data, char text[65])
{
	struct sockaddr_alg hash = { .salg_family = AF_ALG,
				     .salg_type = "hash",
				     .salg_name = "sha256" };
	int sock = socket(AF_ALG, SOCK_SEQPACKET, 0), fd;
	unsigned char sum[32];
	size_t off, i;

	must(sock >= 0 && !bind(sock, (void *)&hash, sizeof(hash)), "AF_ALG");
	fd = accept(sock, NULL, NULL);
	must(fd >= 0, "AF_ALG");
	for (off = 0; off < len; off += MIB)
		must(send(fd, (const char *)data + off, MIB, MSG_MORE) ==
			     (ssize_t)MIB,
		     "AF_ALG");
	must(recv(fd, sum, sizeof(sum), 0) == sizeof(sum), "AF_ALG");
	for (i = 0; i < sizeof(sum); i++)
		sprintf(text + 2 * i, "%02x", sum[i]);
	close(fd);
	close(sock);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	must(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), "clock_gettime");
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Both on one processor, and who is woken waits, as in splice_bench. */
static void schedule_alike(void)
{
	const struct sched_param no_priority = { 0 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
	must(!sched_setscheduler(0, SCHED_BATCH, &no_priority), "SCHED_BATCH");
}

static void prepare(const struct way *way, enum role role)
{
	bool other = way->other_cgroup && role == TAKER;

	must(!memcg_enter(other ? "ways/taker" : "ways/giver"), "cgroup");
	schedule_alike();
	mem = map_mem(len);
	must(mem, "mmap");
	must(!madvise(mem, len,
		      kind == MEM_4K ? MADV_NOHUGEPAGE : MADV_HUGEPAGE),
	     "MADV_HUGEPAGE");
	if (role == TAKER && way->in_use)
		memset(mem, 0xa5, len);
	if (role == TAKER)
		return;
	memcpy(mem, source, len);
	if (kind == MEM_2M && huge_bytes(mem, len) != (long)len)
		errx(1, "the kernel had no huge pages left");
	must(!read_frames(mem, len / PAGE, shared->frames), "pagemap");
	shared->giver = getpid();
	shared->giver_mem = mem;
}

static void check(const struct way *way)
{
	char sum[65];

	shared->same = same_frames(mem, len / PAGE, shared->frames);
	if (!way->sum) {
		shared->right = !memcmp(mem, source, len);
		return;
	}
	sum_of(mem, sum);
	shared->right = !strcmp(sum, source_sum);
}

/* The giver's memory must be there until the taker is done. */
static pid_t play(const struct way *way, enum role role)
{
	uint64_t start;
	pid_t pid;

	fflush(stdout);
	pid = fork_child();
	must(pid >= 0, "fork");
	if (pid)
		return pid;
	prepare(way, role);
	pthread_barrier_wait(&shared->barrier);
	start = cpu_ns();
	way->run[role]();
	shared->ns[role] = cpu_ns() - start;
	pthread_barrier_wait(&shared->barrier);
	if (role == TAKER)
		check(way);
	_exit(0);
}

/* When one fails the other would wait for ever; it ends with this process. */
static void reap_both(void)
{
	int status, i;

	for (i = 0; i < NR_ROLES; i++) {
		must(wait(&status) > 0, "wait");
		if (status)
			errx(1, "one of the processes failed");
	}
}

static bool right;

/* Returns the most memory that the ways' cgroups had, in MiB. */
static long run_way(const struct way *way)
{
	int peak = open(PEAK, O_RDWR);
	pthread_barrierattr_t attr;
	char text[32] = "";

	must(peak >= 0 && write(peak, "0", 1) == 1, PEAK);
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->barrier, &attr, NR_ROLES);
	must(!pipe_of(pipe_fds, PIPE_BYTES / PAGE), "pipe");
	shm_fd = memfd_create("flip_ways", 0);
	must(shm_fd >= 0 && !ftruncate(shm_fd, len), "memfd");
	play(way, GIVER);
	play(way, TAKER);
	reap_both();
	close(shm_fd);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	must(pread(peak, text, sizeof(text) - 1, 0) > 0, PEAK);
	close(peak);
	return atol(text) / (long)MIB;
}

static void print_kind(const struct way *way)
{
	long peak = run_way(way);
	double ns = shared->ns[GIVER] + shared->ns[TAKER];
	char frames[32] = "copied";

	ns /= len / (4 * KIB);
	if (shared->same == (long)len / PAGE)
		strcpy(frames, "same");
	else if (shared->same)
		snprintf(frames, sizeof(frames), "%ld", shared->same);
	printf(" %10.*f %5ld %-7s", ns < 100 ? 2 : 0, ns, peak, frames);
	right &= shared->right;
}

static bool print_way(const struct way *way)
{
	printf("%-32s", way->name);
	right = true;
	for (kind = MEM_4K; kind <= MEM_2M; kind += MEM_2M - MEM_4K)
		print_kind(way);
	printf(" %s\n", !right	 ? "FAILED" :
			way->sum ? "same SHA-256" :
				   "same bytes");
	return right;
}

static void read_source(const char *path)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = open(path, O_RDONLY);
	size_t done, n;

	must(p != MAP_FAILED, "mmap");
	must(fd >= 0, path);
	if (!file_len)
		file_len = lseek(fd, 0, SEEK_END);
	if (!file_len)
		errx(1, "%s is empty", path);
	for (done = 0; done < len; done += n) {
		n = len - done < file_len ? len - done : file_len;
		must(!lseek(fd, 0, SEEK_SET) && !read_all(fd, p + done, n),
		     path);
	}
	close(fd);
	source = p;
}

static void make_cgroups(void)
{
	must(!memcg_new("ways"), "memory cgroups");
	must(!memcg_write("ways", "cgroup.subtree_control", "+memory"),
	     "memory cgroups");
	must(!memcg_new("ways/giver"), "memory cgroups");
	must(!memcg_new("ways/taker"), "memory cgroups");
}

static void allow_huge_shared_memory(void)
{
	const char *const knob = SHMEM_HUGE;

	must(!sysctl_keep(&knob, 1) && !sysctl_write(knob, "advise"), knob);
}

static void parse_options(int argc, char **argv, const char **want)
{
	int opt;

	while ((opt = getopt(argc, argv, "l:m:s:")) != -1) {
		if (opt == 'm')
			len = strtoul(optarg, NULL, 0) * MIB;
		else if (opt == 'l')
			file_len = strtoul(optarg, NULL, 0);
		else if (opt == 's')
			*want = optarg;
		else
			exit(2);
	}
	if (argc - optind != 1 || !len || len % PMD)
		errx(2,
		     "usage: flip_ways [-m MIB] [-l LENGTH] [-s SHA256] FILE");
}

static void start(const char *path, const char *want)
{
	read_source(path);
	if (want)
		snprintf(source_sum, sizeof(source_sum), "%s", want);
	else
		sum_of(source, source_sum);
	shared = mmap(NULL, sizeof(*shared) + len / PAGE * sizeof(uint64_t),
		      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	must(shared != MAP_FAILED, "mmap");
	allow_huge_shared_memory();
	make_cgroups();
}

static void print_head(void)
{
	const char *columns = " per 4 KiB  peak frames";

	printf("%-32s %-25s %s\n", "", " 4 KiB pages", " 2 MiB pages");
	printf("%-32s %-25s %s\n", "way", columns, columns);
}

int main(int argc, char **argv)
{
	bool flip = flip_available();
	const char *want = NULL;
	int bad = 0;
	size_t i;

	parse_options(argc, argv, &want);
	start(argv[optind], want);
	print_head();
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		if (!ways[i].flip || flip)
			bad += !print_way(&ways[i]);
	}
	if (undo_now())
		warn("cgroups are left");
	if (!flip)
		puts("This kernel has no page flip: SKIP");
	if (bad)
		return 1;
	return flip ? 0 : 4;
}
