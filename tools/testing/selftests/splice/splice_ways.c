// SPDX-License-Identifier: GPL-2.0-only
/*
 * Move one real file by each of the five system calls, check every result by
 * its SHA-256 and show whether the page frames of the result are those of the
 * source (moved, or shared) or others (copied).
 *
 * Usage: splice_ways [-l LENGTH] [-s SHA256] SOURCE DIR
 *
 * SOURCE may be a block device; its contents are put into DIR first.  Needs
 * room for three times the source in DIR, and root for the page frames.
 *
 * The column headed "per 4 KiB" is processor time of all processes of a way, in
 * nanoseconds.  Under QEMU's -icount shift=0 that is instructions.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "splice_util.h"

#define PIPE_BYTES (1024 * 1024)

static size_t page_size, file_len, nr_pages;
static char source_path[PATH_MAX], result_path[PATH_MAX], tee_path[PATH_MAX];
static char source_sum[65];

/* The child's half of a way: what it measured, for the parent to print. */
struct report {
	uint64_t ns;
	size_t bytes;
	bool frames_seen;
	size_t same_frames;
	char sum[65];
};

static struct report *report;

/* Page frame of each page of the source, 0 where it is not known. */
static uint64_t *source_frames;

static uint64_t usage_ns(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ULL +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ULL;
}

/* Of this process and of those it has reaped. */
static uint64_t cpu_ns(void)
{
	return usage_ns(RUSAGE_SELF) + usage_ns(RUSAGE_CHILDREN);
}

static void must(bool ok, const char *what)
{
	if (!ok)
		err(1, "%s", what);
}

static void must_move(ssize_t n, const char *what)
{
	if (n < 0)
		err(1, "%s", what);
	if (n == 0)
		errx(1, "%s: unexpected end", what);
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	must(fd >= 0, path);
	return fd;
}

static void pipe_or_die(int p[2])
{
	must(!pipe(p), "pipe");
	must(fcntl(p[1], F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES,
	     "F_SETPIPE_SZ");
}

static pid_t fork_or_die(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0, "fork");
	return pid;
}

static void reap_or_die(pid_t pid)
{
	if (reap(pid))
		errx(1, "the other process failed");
}

/* sha256sum reads what is written to its standard input. */
static void sum_of(const char *path, const void *mem, char out[65])
{
	int in[2], res[2];
	pid_t pid;

	must(!pipe(in) && !pipe(res), "pipe");
	pid = fork_or_die();
	if (!pid) {
		if (path)
			in[0] = open_or_die(path, O_RDONLY);
		dup2(in[0], 0);
		dup2(res[1], 1);
		close(in[1]);
		execlp("sha256sum", "sha256sum", NULL);
		err(1, "sha256sum");
	}
	close(in[0]);
	close(res[1]);
	if (mem)
		must(!write_all(in[1], mem, file_len), "sha256sum");
	close(in[1]);
	must(!read_all(res[0], out, 64), "sha256sum");
	out[64] = 0;
	close(res[0]);
	reap_or_die(pid);
}

static void *map_file(const char *path)
{
	int fd = open_or_die(path, O_RDONLY);
	void *mem = mmap(NULL, file_len, PROT_READ, MAP_SHARED | MAP_POPULATE,
			 fd, 0);

	must(mem != MAP_FAILED, "mmap");
	close(fd);
	return mem;
}

static void *map_anon(void)
{
	void *mem = mmap(NULL, file_len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mem != MAP_FAILED, "mmap");
	return mem;
}

/* How many pages of @mem lie in the frame of the same page of the source. */
static void compare_frames(const void *mem)
{
	uint64_t *frames = calloc(nr_pages, sizeof(*frames));
	size_t i;

	must(frames, "calloc");
	must(!read_frames(mem, nr_pages, frames), "pagemap");
	report->same_frames = 0;
	report->frames_seen = frames[0] && source_frames[0];
	for (i = 0; i < nr_pages; i++)
		report->same_frames += frames[i] == source_frames[i];
	free(frames);
}

/* The result of a way: a file, or memory that takes its place. */
static void check_file(const char *path)
{
	void *mem = map_file(path);

	compare_frames(mem);
	munmap(mem, file_len);
	sum_of(path, NULL, report->sum);
}

static void check_memory(const void *mem)
{
	compare_frames(mem);
	sum_of(NULL, mem, report->sum);
}

static void splice_out(int pipe_fd, int fd, size_t n)
{
	while (n) {
		ssize_t m = splice(pipe_fd, NULL, fd, NULL, n, 0);

		must_move(m, "splice");
		n -= m;
	}
}

static void *way_splice(void)
{
	int in = open_or_die(source_path, O_RDONLY);
	int out = open_or_die(result_path, O_RDWR | O_CREAT | O_TRUNC);
	size_t done;
	ssize_t n;
	int p[2];

	pipe_or_die(p);
	for (done = 0; done < file_len; done += n) {
		n = splice(in, NULL, p[1], NULL, PIPE_BYTES, 0);
		must_move(n, "splice");
		splice_out(p[0], out, n);
	}
	report->bytes = done;
	return NULL;
}

/* One source, two results; the second is checked where it is made. */
static void *way_tee(void)
{
	int in = open_or_die(source_path, O_RDONLY);
	int out = open_or_die(result_path, O_RDWR | O_CREAT | O_TRUNC);
	int out2 = open_or_die(tee_path, O_RDWR | O_CREAT | O_TRUNC);
	int p[2], q[2];
	ssize_t n, m;
	size_t done;

	pipe_or_die(p);
	pipe_or_die(q);
	for (done = 0; done < file_len; done += n) {
		n = splice(in, NULL, p[1], NULL, PIPE_BYTES, 0);
		must_move(n, "splice");
		m = tee(p[0], q[1], n, 0);
		if (m != n)
			errx(1, "tee: %zd of %zd bytes", m, n);
		splice_out(p[0], out, n);
		splice_out(q[0], out2, n);
	}
	report->bytes = 2 * done;
	return NULL;
}

static void *way_sendfile(void)
{
	int in = open_or_die(source_path, O_RDONLY);
	int out = open_or_die(result_path, O_RDWR | O_CREAT | O_TRUNC);
	size_t done;
	ssize_t n;

	for (done = 0; done < file_len; done += n) {
		n = sendfile(out, in, NULL, file_len - done);
		must_move(n, "sendfile");
	}
	report->bytes = done;
	return NULL;
}

static void *way_copy_file_range(void)
{
	int in = open_or_die(source_path, O_RDONLY);
	int out = open_or_die(result_path, O_RDWR | O_CREAT | O_TRUNC);
	size_t done;
	ssize_t n;

	for (done = 0; done < file_len; done += n) {
		n = copy_file_range(in, NULL, out, NULL, file_len - done, 0);
		must_move(n, "copy_file_range");
	}
	report->bytes = done;
	return NULL;
}

static void *way_sendfile_tcp(void)
{
	int in = open_or_die(source_path, O_RDONLY);
	void *mem = map_anon();
	size_t done = 0;
	int sv[2];
	pid_t pid;

	must(!tcp_pair(sv), "TCP");
	pid = fork_or_die();
	if (!pid) {
		while (done < file_len) {
			ssize_t n = sendfile(sv[0], in, NULL, file_len - done);

			must_move(n, "sendfile");
			done += n;
		}
		_exit(0);
	}
	must(!read_all(sv[1], mem, file_len), "recv");
	report->bytes = file_len;
	reap_or_die(pid);
	return mem;
}

/* What the sender of way_vmsplice() has: the frames that count are its. */
static void *sender_memory;

static void fill_sender_memory(void)
{
	int in = open_or_die(source_path, O_RDONLY);

	sender_memory = map_anon();
	must(!read_all(in, sender_memory, file_len), "read");
	must(!read_frames(sender_memory, nr_pages, source_frames), "pagemap");
	close(in);
}

/*
 * Both directions: one process puts its memory into a pipe, another takes it
 * out into its own.
 */
static void *way_vmsplice(void)
{
	void *mem = map_anon();
	struct iovec iov;
	int p[2];
	pid_t pid;

	pipe_or_die(p);
	pid = fork_or_die();
	iov.iov_base = pid ? mem : sender_memory;
	for (iov.iov_len = file_len; iov.iov_len;) {
		ssize_t n = vmsplice(p[!pid], &iov, 1, 0);

		must_move(n, "vmsplice");
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
	}
	if (!pid)
		_exit(0);
	report->bytes = file_len;
	reap_or_die(pid);
	return mem;
}

/* @run returns the memory the result is in, NULL: it is in result_path. */
static const struct way {
	const char *name;
	void *(*run)(void);
	void (*prepare)(void);
} ways[] = {
	{ "splice: file > pipe > file", way_splice, NULL },
	{ "splice + tee: to two files", way_tee, NULL },
	{ "sendfile: file > file", way_sendfile, NULL },
	{ "copy_file_range: file > file", way_copy_file_range, NULL },
	{ "sendfile: file > TCP > memory", way_sendfile_tcp, NULL },
	{ "vmsplice: memory > pipe > memory", way_vmsplice,
	  fill_sender_memory },
};

/* In a process of its own, so that what a way leaves behind goes with it. */
static int run_way(const struct way *w)
{
	pid_t pid = fork_or_die();
	uint64_t start;
	void *mem;

	if (pid)
		return reap(pid);
	if (w->prepare)
		w->prepare();
	start = cpu_ns();
	mem = w->run();
	report->ns = cpu_ns() - start;
	if (mem) {
		check_memory(mem);
		_exit(0);
	}
	if (!access(tee_path, F_OK)) {
		check_file(tee_path);
		if (strcmp(report->sum, source_sum))
			errx(1, "the second result differs");
	}
	check_file(result_path);
	_exit(0);
}

static bool print_way(const struct way *w, int status)
{
	bool ok = !status && !strcmp(report->sum, source_sum);
	char frames[32] = "not visible";

	if (!report->frames_seen)
		;
	else if (!report->same_frames)
		snprintf(frames, sizeof(frames), "copied");
	else
		snprintf(frames, sizeof(frames), "same: %zu of %zu",
			 report->same_frames, nr_pages);
	printf("%-33s %11zu %9llu  %-18s %s\n", w->name, report->bytes,
	       report->bytes ?
		       (unsigned long long)(report->ns * 4096 / report->bytes) :
		       0ULL,
	       frames, ok ? "same SHA-256" : "FAILED");
	fflush(stdout);
	return ok;
}

static void lay_source(const char *from)
{
	int in = open_or_die(from, O_RDONLY);
	int out = open_or_die(source_path, O_RDWR | O_CREAT | O_TRUNC);
	static char buf[1024 * 1024];
	ssize_t n;

	while ((n = read(in, buf, sizeof(buf))) > 0)
		must(!write_all(out, buf, n), source_path);
	must(n == 0, from);
	must(!fsync(out), source_path);
	close(in);
	close(out);
}

/* @len: the true length where a disk is padded to its block size; else 0. */
static void prepare(const char *from, const char *dir, size_t len)
{
	struct stat st;

	snprintf(source_path, sizeof(source_path), "%s/source", dir);
	snprintf(result_path, sizeof(result_path), "%s/result", dir);
	snprintf(tee_path, sizeof(tee_path), "%s/result2", dir);
	page_size = sysconf(_SC_PAGESIZE);
	lay_source(from);
	if (len)
		must(!truncate(source_path, len), "truncate");
	must(!stat(source_path, &st), source_path);
	file_len = st.st_size;
	if (!file_len)
		errx(1, "%s is empty", from);
	nr_pages = (file_len + page_size - 1) / page_size;
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(report != MAP_FAILED, "mmap");
	source_frames = calloc(nr_pages, sizeof(*source_frames));
	must(source_frames, "calloc");
	sum_of(source_path, NULL, source_sum);
	must(!read_frames(map_file(source_path), nr_pages, source_frames),
	     "pagemap");
}

int main(int argc, char **argv)
{
	const char *want = NULL;
	size_t i, len = 0;
	int opt, bad = 0;

	while ((opt = getopt(argc, argv, "l:s:")) != -1) {
		if (opt == 's')
			want = optarg;
		else if (opt == 'l')
			len = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	if (argc - optind != 2)
		errx(2,
		     "usage: splice_ways [-l LENGTH] [-s SHA256] SOURCE DIR");
	prepare(argv[optind], argv[optind + 1], len);
	if (want && strcmp(want, source_sum))
		errx(1, "the source's SHA-256 is %s, not %s", source_sum, want);

	printf("%-33s %11s %9s  %-18s %s\n", "way", "bytes", "per 4 KiB",
	       "page frames", "verdict");
	for (i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		int status;

		memset(report, 0, sizeof(*report));
		status = run_way(&ways[i]);
		bad += !print_way(&ways[i], status);
		unlink(result_path);
		unlink(tee_path);
	}
	unlink(source_path);
	return bad ? 1 : 0;
}
