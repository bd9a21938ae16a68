// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it costs to bring data from one place to another: by splice and its
 * relatives, by what stands beside them, and by moving pages.
 *
 * Usage: splice_bench [-l] [-f NAME] [-s BYTES]
 *   -l        list the rows and what each of them loads
 *   -f NAME   only rows whose name fits, which may be a pattern
 *   -s BYTES  size of the buffer (default 32M), rounded up to 8 MiB; rows that
 *             show cost by size and round trips have their own
 *
 * To compare two kernels, run both as -smp 1 guests of QEMU with
 * "-accel tcg -icount shift=0,sleep=off -cpu max,-erms,-fsrm": there the column
 * per_4k is instructions, which repeat.  Elsewhere it is nanoseconds.
 *
 * per_4k is processor time of all processes and threads of a row, from when
 * they have their buffers until the last of them is done, the median of the
 * repetitions.  Nothing that idles is in it, since an -icount guest that idles
 * lets its clock jump.  Context switches are: the scheduler books them on the
 * processes that switch.  What kernel threads do is not; the column elapsed,
 * from the first start to the last end, has it.
 *
 * All run on one processor, further threads on the next ones.  They are
 * SCHED_BATCH: a process that is woken waits until the other one has to, while
 * by default it depends on the past of both who goes on, and with it how much
 * goes through a socket at once.
 *
 * A first repetition, not counted, samples memory (peak_kib: most anonymous
 * memory of both processes together) and takes data to where it can be checked.
 * After each one the result is compared with the source, byte by byte.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "splice_bench.h"

#define SOCKET_SIZE (2 * MIB)
/* A THP for each lane, and one round of FILL_MIXED. */
#define SIZE_STEP (MAX_LANES * PMD)

static const char *const pages_name[] = {
	[PAGES_4K] = "4k",	 [PAGES_64K] = "64k", [PAGES_2M] = "2m",
	[PAGES_MIXED] = "mixed", [PAGES_FS] = "-",    [PAGES_NONE] = "-",
};

/* Holes and mixtures are backings too, though their pages are small or none. */
static const char *backing_of(const struct job *job)
{
	switch (job->fill) {
	case FILL_NOTHING:
		return "hole_pmd";
	case FILL_FIRST:
		return "hole";
	default:
		return pages_name[job->pages];
	}
}

struct shared *shared;
size_t default_bytes = 32 * MIB;
static uint64_t clock_cost;
static unsigned int nr_fitting;

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* What reading the clock twice costs, for rows of few instructions. */
static void calibrate_clock(void)
{
	unsigned int i;

	clock_cost = UINT64_MAX;
	for (i = 0; i < 64; i++) {
		uint64_t a = now_ns(CLOCK_PROCESS_CPUTIME_ID);
		uint64_t b = now_ns(CLOCK_PROCESS_CPUTIME_ID);

		if (b - a < clock_cost)
			clock_cost = b - a;
	}
}

static void meet(pthread_barrier_t *barrier)
{
	pthread_barrier_wait(barrier);
}

static void pin(unsigned int nr)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(nr % sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void acknowledge(struct lane *lane)
{
	char c = 0;

	if (lane->job->role == GIVER)
		must(read(lane->back[0], &c, 1) == 1, "acknowledgment");
	else
		must(write(lane->back[1], &c, 1) == 1, "acknowledgment");
	lane->calls++;
}

static void move_message(struct lane *lane, size_t off, size_t len)
{
	const struct job *job = lane->job;
	step_fn step = job->way->step[job->role];

	while (step && len) {
		size_t most = job->way->whole ? len : job->pipe_size;
		ssize_t n = step(lane, off, len < most ? len : most);

		lane->calls++;
		if (n <= 0)
			err(1, "%s", n ? "a step failed" : "unexpected end");
		if (job->rehearsal)
			sample_rss(lane->job);
		off += n;
		len -= n;
	}
}

static void run_lane(struct lane *lane)
{
	const struct job *job = lane->job;
	size_t off, size = job->message ? job->message : lane->bytes;

	for (off = 0; off < lane->bytes; off += size) {
		move_message(lane, off, size);
		if (job->message && !job->echo)
			acknowledge(lane);
	}
}

static void *lane_thread(void *arg)
{
	struct lane *lane = arg;

	pin(lane->nr);
	meet(&lane->job->gate);
	meet(&lane->job->gate);
	run_lane(lane);
	meet(&lane->job->gate);
	return NULL;
}

static void start_threads(struct job *job)
{
	unsigned int i;

	for (i = 1; i < job->nr_lanes; i++)
		must(!pthread_create(&job->lane[i].thread, NULL, lane_thread,
				     &job->lane[i]),
		     "pthread_create");
	if (job->nr_lanes > 1)
		meet(&job->gate);
}

static void run_lanes(struct job *job)
{
	if (job->nr_lanes > 1)
		meet(&job->gate);
	run_lane(&job->lane[0]);
	if (job->nr_lanes > 1)
		meet(&job->gate);
}

static void measure(struct job *job, int rep)
{
	uint64_t start = now_ns(CLOCK_MONOTONIC);
	uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);

	run_lanes(job);
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	shared->end[job->role][rep] = now_ns(CLOCK_MONOTONIC);
	shared->start[job->role][rep] = start;
	shared->cpu[job->role][rep] = cpu > clock_cost ? cpu - clock_cost : 0;
}

/* The role that ends up with the data. */
static enum role receiver(const struct way *way)
{
	return way->step[TAKER] ? TAKER : GIVER;
}

static bool has_destination(const struct job *job)
{
	unsigned int needs = job->way->needs;

	if (needs & (NEED_CAPTURE | NEED_ECHO))
		return true;
	return needs & NEED_DST && job->role == receiver(job->way);
}

static void prepare_destination(struct job *job)
{
	if (job->way->needs & NEED_CAPTURE) {
		job->dst = mmap(NULL, job->bytes, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1,
				0);
		must(job->dst != MAP_FAILED, "mmap");
		return;
	}
	job->dst = map_pages(job->bytes, job->pages);
	if (job->warm || job->way->needs & NEED_WARM)
		memset(job->dst, 0xa5, job->bytes);
	if (job->way->needs & NEED_UFFD) {
		job->uffd = userfault_fd();
		must(job->uffd >= 0, "userfaultfd");
		userfault_register(job->uffd, job->dst, job->bytes);
	}
}

static void prepare_lanes(struct job *job)
{
	size_t share = job->bytes / job->nr_lanes;
	unsigned int i;

	for (i = 0; i < job->nr_lanes; i++) {
		struct lane *lane = &job->lane[i];

		lane->src = job->src + i * share;
		lane->dst = job->dst + i * share;
		lane->calls = 0;
		if (job->role == GIVER)
			shared->src[i] = lane->src;
	}
}

static void prepare(struct job *job)
{
	unsigned int needs = job->role == GIVER ? job->way->needs : 0;

	if (has_destination(job))
		prepare_destination(job);
	if (needs & NEED_SRC) {
		job->src = map_pages(job->bytes, job->pages);
		fill_source(job);
	}
	if (needs & NEED_FRAMES)
		note_frames(job);
	if (needs & NEED_IN)
		lseek(job->in, job->way->skew, SEEK_SET);
	if (needs & NEED_OUT)
		spoil_file(job);
	prepare_lanes(job);
	start_threads(job);
}

/* Data moved, so that there is a result to look for. */
static bool is_checked(const struct way *way)
{
	return way->needs & (NEED_OUT | NEED_CAPTURE) ||
	       (way->needs & NEED_SRC && way->needs & NEED_DST);
}

static void check(struct job *job)
{
	unsigned int needs = job->way->needs;
	enum role looks = receiver(job->way);

	if (needs & NEED_ECHO)
		looks = GIVER;
	if (!is_checked(job->way) || job->role != looks)
		return;
	if (needs & NEED_OUT)
		shared->wrong |= !file_right(job);
	else if (job->rehearsal || !(needs & NEED_CAPTURE))
		shared->wrong |= !memory_right(job);
}

static void release(struct job *job)
{
	unsigned int i;

	shared->calls[job->role] = 0;
	for (i = 0; i < job->nr_lanes; i++)
		shared->calls[job->role] += job->lane[i].calls;
	for (i = 1; i < job->nr_lanes; i++)
		pthread_join(job->lane[i].thread, NULL);
	if (job->uffd >= 0)
		close(job->uffd);
	if (job->src)
		munmap(job->src, job->bytes);
	if (job->dst)
		munmap(job->dst, job->bytes);
	job->uffd = -1;
	job->src = NULL;
	job->dst = NULL;
}

static void note_copied(size_t nr)
{
	if (nr > shared->copied)
		shared->copied = nr;
}

static void repetition(struct job *job, int rep)
{
	job->rehearsal = rep < 0;
	prepare(job);
	if (job->rehearsal)
		sample_rss(job);
	meet(&shared->barrier);
	measure(job, job->rehearsal ? 0 : rep);
	meet(&shared->barrier);
	if (job->way->needs & NEED_FRAMES && job->role == receiver(job->way))
		note_copied(frames_copied(job));
	check(job);
	release(job);
	meet(&shared->barrier);
}

static void play(struct job *job, enum role role)
{
	const struct sched_param no_priority = { 0 };
	int rep;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	job->role = role;
	if (role == GIVER)
		shared->giver = getpid();
	if (job->memcg)
		cgroup_join(role);
	pin(0);
	must(!sched_setscheduler(0, SCHED_BATCH, &no_priority), "SCHED_BATCH");
	pthread_barrier_init(&job->gate, NULL, job->nr_lanes);
	calibrate_clock();
	job->statm = open("/proc/self/statm", O_RDONLY);
	sample_rss(job);
	shared->rss_start[role] = shared->rss[role];
	shared->rss[role] = 0;
	shared->rss_peak = 0;
	meet(&shared->barrier);
	for (rep = -1; rep < (int)job->reps; rep++)
		repetition(job, rep);
	exit(0);
}

static void pipe_sized(int p[2], size_t size)
{
	must(!pipe(p), "pipe");
	must(fcntl(p[1], F_SETPIPE_SZ, size) >= (int)size, "F_SETPIPE_SZ");
}

static void size_socket(int fd, int force, int option)
{
	int size = SOCKET_SIZE;

	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, option, &size, sizeof(size));
}

/* Of a fixed size: what the kernel tunes by itself depends on the past. */
static void tcp_sized(int sv[2])
{
	must(!tcp_pair(sv), "TCP");
	size_socket(sv[0], SO_SNDBUFFORCE, SO_SNDBUF);
	size_socket(sv[1], SO_RCVBUFFORCE, SO_RCVBUF);
}

static void open_job(struct job *job)
{
	unsigned int i, needs = job->way->needs;

	for (i = 0; i < job->nr_lanes; i++) {
		struct lane *lane = &job->lane[i];

		lane->job = job;
		lane->nr = i;
		lane->bytes = job->bytes / job->nr_lanes;
		pipe_sized(lane->to, job->pipe_size);
		pipe_sized(lane->back, job->pipe_size);
	}
	job->in = needs & NEED_IN ? file_filled(job) : -1;
	job->out = needs & NEED_OUT ? file_filled(job) : -1;
	job->null = open("/dev/null", O_WRONLY);
	job->uffd = -1;
	job->sock[0] = -1;
	job->sock[1] = -1;
	if (needs & NEED_TCP)
		tcp_sized(job->sock);
}

static void close_job(struct job *job)
{
	unsigned int i;

	for (i = 0; i < job->nr_lanes; i++) {
		close(job->lane[i].to[0]);
		close(job->lane[i].to[1]);
		close(job->lane[i].back[0]);
		close(job->lane[i].back[1]);
	}
	close(job->in);
	close(job->out);
	close(job->null);
	close(job->sock[0]);
	close(job->sock[1]);
}

static pid_t fork_player(struct job *job, enum role role)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid)
		play(job, role);
	return pid;
}

/* When one of them fails the other would wait for ever. */
static bool reap_players(const pid_t *pids, unsigned int nr)
{
	unsigned int left;
	bool ok = true;
	int status;

	for (left = nr; left; left--) {
		must(wait(&status) >= 0, "wait");
		if (!status || !ok)
			continue;
		ok = false;
		for (unsigned int i = 0; i < nr; i++)
			kill(pids[i], SIGKILL);
	}
	return ok;
}

static bool run_job(struct job *job)
{
	unsigned int nr = job->way->step[TAKER] ? 2 : 1;
	pthread_barrierattr_t attr;
	pid_t pids[NR_ROLES];
	bool ok;

	memset(shared, 0, sizeof(*shared));
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->barrier, &attr, nr);
	open_job(job);
	pids[GIVER] = fork_player(job, GIVER);
	if (nr > 1)
		pids[TAKER] = fork_player(job, TAKER);
	ok = reap_players(pids, nr);
	close_job(job);
	return ok;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *values, unsigned int nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[nr / 2];
}

static uint64_t median_cpu(const struct job *job)
{
	uint64_t sum[MAX_REPS];
	unsigned int i;

	for (i = 0; i < job->reps; i++)
		sum[i] = shared->cpu[GIVER][i] + shared->cpu[TAKER][i];
	return median(sum, job->reps);
}

static uint64_t median_elapsed(const struct job *job)
{
	uint64_t time[MAX_REPS];
	unsigned int i;

	for (i = 0; i < job->reps; i++) {
		uint64_t start = shared->start[GIVER][i];
		uint64_t end = shared->end[GIVER][i];

		if (job->way->step[TAKER]) {
			if (shared->start[TAKER][i] < start)
				start = shared->start[TAKER][i];
			if (shared->end[TAKER][i] > end)
				end = shared->end[TAKER][i];
		}
		time[i] = end - start;
	}
	return median(time, job->reps);
}

static void print_skip(const char *name, const struct job *job,
		       const char *reason)
{
	printf("%s\t%s\t%zu\t0\tSKIP\t0\t0\t%s\tSKIP\n", name, backing_of(job),
	       job->bytes, reason);
}

static const char *verdict(const struct job *job, bool ok, bool fallback)
{
	static char copied[32];

	if (!ok)
		return "FAILED";
	if (shared->wrong)
		return "WRONG";
	if (fallback)
		return "backing";
	if (shared->copied) {
		snprintf(copied, sizeof(copied), "copied:%zu", shared->copied);
		return copied;
	}
	return is_checked(job->way) ? "ok" : "-";
}

static bool print_result(const char *name, const struct job *job, bool ok,
			 bool fallback)
{
	double units = job->bytes / (job->echo ? job->message : PAGE);

	printf("%s\t%s\t%zu\t%u\t%.2f\t%lu\t%ld\t%s\t%.2f\n", name,
	       backing_of(job), job->bytes, job->reps, median_cpu(job) / units,
	       shared->calls[GIVER] + shared->calls[TAKER],
	       shared->rss_peak * (long)(PAGE / KIB),
	       verdict(job, ok, fallback), median_elapsed(job) / units);
	return ok && !shared->wrong && !fallback;
}

static const char *cannot_run(struct job *job)
{
	if (job->way->available && !job->way->available())
		return job->way->missing;
	if (job->way->needs & NEED_IN && !backing_available(job->fs))
		return "no such file system";
	if (job->memcg && !cgroups_available())
		return "no memory cgroups";
	if (!set_knobs(job->pages))
		return "no folios of this size, or no right to set it";
	return NULL;
}

static void grow_master(size_t bytes)
{
	static size_t filled;

	if (bytes > filled)
		pattern_fill(master + filled, bytes - filled, filled, 1);
	if (bytes > filled)
		filled = bytes;
}

static bool bench(const char *name, struct job *job)
{
	const char *reason = cannot_run(job);
	long fallbacks;
	bool ok;

	if (reason) {
		print_skip(name, job, reason);
	} else {
		grow_master(job->bytes + job->way->skew + SPOIL);
		fallbacks = folio_fallbacks(job);
		ok = run_job(job);
		ok = print_result(name, job, ok,
				  folio_fallbacks(job) != fallbacks);
	}
	restore_knobs();
	if (job->memcg)
		cgroups_remove();
	fflush(stdout);
	return reason || ok;
}

static int bench_row(const struct row *row, const char *filter, bool list)
{
	unsigned int v, pages, backings;
	char name[64];
	int bad = 0;

	for (v = 0; v < nr_variants(row); v++) {
		struct job job = job_of_row(row);
		const char *suffix = vary_job(row, v, &job, &backings);

		snprintf(name, sizeof(name), "%s%s%s", row->name,
			 suffix ? "_" : "", suffix ? suffix : "");
		if (filter && fnmatch(filter, name, 0))
			continue;
		nr_fitting++;
		for (pages = 0; pages < NR_PAGES; pages++) {
			if (!(backings & 1 << pages))
				continue;
			job.pages = pages;
			if (list)
				printf("%s\t%s\t%s\n", name, backing_of(&job),
				       row->load);
			else
				bad += !bench(name, &job);
		}
	}
	return bad;
}

static pid_t main_pid;

static void on_exit_of_main(void)
{
	if (getpid() == main_pid)
		restore_knobs();
}

static void on_signal(int sig)
{
	on_exit_of_main();
	_exit(128 + sig);
}

static size_t parse_bytes(const char *text)
{
	char *end;
	size_t n = strtoull(text, &end, 0);

	if (*end == 'K' || *end == 'k')
		n *= KIB, end++;
	else if (*end == 'M' || *end == 'm')
		n *= MIB, end++;
	if (*end || !n || n > LARGEST_BYTES)
		errx(2, "-s %s: not a size up to 512M", text);
	return (n + SIZE_STEP - 1) / SIZE_STEP * SIZE_STEP;
}

static void *map_shared(size_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(mem != MAP_FAILED, "mmap");
	return mem;
}

static void set_up(void)
{
	if (sysconf(_SC_PAGESIZE) != PAGE)
		errx(4, "made for pages of 4 KiB");
	master = map_shared(LARGEST_BYTES + PMD);
	shared = map_shared(sizeof(*shared) +
			    LARGEST_BYTES / PAGE * sizeof(*shared->frames));
	main_pid = getpid();
	atexit(on_exit_of_main);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
}

int main(int argc, char **argv)
{
	const char *filter = NULL;
	bool list = false;
	int opt, bad = 0;
	size_t i;

	while ((opt = getopt(argc, argv, "lf:s:")) != -1) {
		if (opt == 'l')
			list = true;
		else if (opt == 'f')
			filter = optarg;
		else if (opt == 's')
			default_bytes = parse_bytes(optarg);
		else
			return 2;
	}
	if (optind != argc)
		errx(2, "usage: splice_bench [-l] [-f NAME] [-s BYTES]");
	set_up();
	if (!list)
		puts("name\tbacking\tbytes\treps\tper_4k\tsyscalls\tpeak_kib\tverdict\telapsed");
	for (i = 0; i < nr_rows; i++)
		bad += bench_row(&rows[i], filter, list);
	if (!nr_fitting)
		errx(2, "no row %s; -l lists them", filter);
	return bad ? 1 : 0;
}
