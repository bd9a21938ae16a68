// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hand the memory of a process over to its successor: how a virtual machine
 * monitor, a database or a checkpointer is replaced by a new binary and keeps
 * its data, with no copy of it and no moment at which it exists twice.
 *
 * Usage: handoff [--size=MIB] [--copy] [--quiet]; see --help.
 *
 * This process fills memory that has everything an application's may have:
 * huge pages, small pages, holes.  It executes its successor, sends it a pipe
 * through a socket and gives the memory into the pipe; the successor takes it
 * out, looks at every byte and reports.  Worth knowing before writing such a
 * program:
 *
 * - Give and take are vmsplice(2) with flags: give_memory() and take_memory().
 * - An older kernel says so when asked: has_page_flip().  There this program
 *   writes and reads; the holes are filled then, the huge pages are lost.
 * - fork() shares every page, and what is shared is copied, not moved, until
 *   its owner has written to it again.  posix_spawn() does not share.
 * - A huge page stays one, and an empty 2 MiB range stays empty, where the
 *   memory lies at the same offset from a 2 MiB boundary on both sides.
 * - An ordinary user may have 64 MiB in pipes (fs.pipe-user-pages-soft).  At
 *   that limit a give fails with EAGAIN, whether or not the pipe has room.
 * - There is no way back: what was given is in the pipe and in the successor.
 *   So let that do first whatever may fail.
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "page_flip_util.h"

#define PIPE_BYTES MIB
#define SEED 1
/* The descriptor at which the successor finds its socket. */
#define SUCCESSOR_FD 3

/* By turns, 2 MiB of each: so every 8 MiB have 5 MiB of data. */
enum kind { HUGE_PAGE, SMALL_PAGES, EMPTY, EVERY_OTHER_PAGE, NR_KINDS };

#define TURN (NR_KINDS * PMD)
#define DATA(len) ((len) / TURN * (2 * PMD + PMD / 2))

/* One page table entry of each kind; where its page is must not change. */
static const struct entry {
	const char *name;
	size_t off;
} entries[] = {
	{ "huge page", HUGE_PAGE * 2 * MIB },
	{ "small page", SMALL_PAGES * 2 * MIB + 64 * KIB },
	{ "hole of a page", EVERY_OTHER_PAGE * 2 * MIB + 4 * KIB },
	{ "hole of 2 MiB", EMPTY * 2 * MIB },
};

#define NR_ENTRIES ARRAY_SIZE(entries)

/* What this process tells its successor, along with the pipe. */
struct hello {
	size_t len;
	bool flip;
	uint64_t frame[NR_ENTRIES];
};

/* What the successor tells this process when it has everything. */
struct report {
	uint64_t ns;
	uint64_t frame[NR_ENTRIES];
	bool right[NR_ENTRIES];
	ssize_t wrong; /* the first byte that is, -1: none */
	size_t pages; /* that it has there */
	long huge; /* bytes of it in huge pages */
};

static bool copy, quiet;
static pid_t successor;

static void must(bool ok, const char *what)
{
	if (!ok && errno)
		err(1, "%s", what);
	if (!ok)
		errx(1, "%s", what);
}

/* --------------------------------------------------------------- the handoff */

/*
 * Neither flag of a give is new, and a kernel that knows no page flip ignores
 * SPLICE_F_MOVE: it would share the memory with the pipe.  SPLICE_F_NOCOPY is
 * new.  To give nothing has no other effect than the answer.
 */
static bool has_page_flip(int pipe_fd)
{
	return !vmsplice(pipe_fd, NULL, 0,
			 SPLICE_F_GIFT | SPLICE_F_MOVE | SPLICE_F_NOCOPY);
}

/*
 * By copying.  What the pipe has is not kept, or there would be two of
 * everything in the end.
 */
static ssize_t give_copy(int pipe_fd, void *mem, size_t len)
{
	size_t part = len < PMD ? len : PMD;

	if (write_all(pipe_fd, mem, part) || madvise(mem, part, MADV_DONTNEED))
		return -1;
	return part;
}

/*
 * Up to @len bytes at @mem into the pipe: whole pages leave this process, what
 * cannot is copied.  (With SPLICE_F_NOCOPY the call would fail instead.)
 *
 * This sleeps while the pipe is full.  EAGAIN is the user's limit, for whose end
 * nobody can sleep: give the taker time and try again.  If there was nothing in
 * the pipe, other pipes of this user are in the way, or the limit is less than
 * a huge page, and waiting may take for ever.
 */
static ssize_t give_memory(int pipe_fd, void *mem, size_t len)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct iovec iov = { mem, len };
	bool empty;
	ssize_t n;

	for (;;) {
		empty = !bytes_queued(pipe_fd);
		n = vmsplice(pipe_fd, &iov, 1, SPLICE_F_GIFT | SPLICE_F_MOVE);
		if (n >= 0 || errno != EAGAIN)
			return n;
		if (empty)
			return give_copy(pipe_fd, mem, len);
		nanosleep(&ms, NULL);
	}
}

static ssize_t take_copy(int pipe_fd, void *mem, size_t len)
{
	return read(pipe_fd, mem, len);
}

/*
 * Up to @len bytes from the pipe: pages replace what is mapped at @mem, and what
 * cannot is copied.
 */
static ssize_t take_memory(int pipe_fd, void *mem, size_t len)
{
	struct iovec iov = { mem, len };

	return vmsplice(pipe_fd, &iov, 1, SPLICE_F_MOVE);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	must(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), "clock_gettime");
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

typedef ssize_t step_fn(int pipe_fd, void *mem, size_t len);
typedef void watch_fn(size_t done, size_t len);

/* All of @len, however short the steps; returns what their calls cost. */
static uint64_t run_steps(step_fn step, int pipe_fd, char *mem, size_t len,
			  watch_fn watch)
{
	uint64_t start, ns = 0;
	size_t done;
	ssize_t n;

	for (done = 0; done < len; done += n) {
		start = cpu_ns();
		n = step(pipe_fd, mem + done, len - done);
		ns += cpu_ns() - start;
		must(n >= 0, "pipe");
		if (!n)
			errx(1, "the other process has gone");
		if (watch)
			watch(done + n, len);
	}
	return ns;
}

/*
 * Here the successor is this very program, which is told by an option what it
 * is.  Returns this end of a socket; the successor has the other.
 */
static int exec_successor(void)
{
	char *const argv[] = { "handoff", "--successor", NULL };
	posix_spawn_file_actions_t actions;
	int sv[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), "socket");
	errno = posix_spawn_file_actions_init(&actions);
	if (!errno)
		errno = posix_spawn_file_actions_adddup2(&actions, sv[1],
							 SUCCESSOR_FD);
	if (!errno)
		errno = posix_spawn(&successor, "/proc/self/exe", &actions,
				    NULL, argv, environ);
	must(!errno, "posix_spawn");
	posix_spawn_file_actions_destroy(&actions);
	close(sv[1]);
	return sv[0];
}

static void send_hello(int sock, int pipe_fd, struct hello *hello)
{
	union {
		struct cmsghdr hdr;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { hello, sizeof(*hello) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &pipe_fd, sizeof(int));
	must(sendmsg(sock, &msg, 0) == sizeof(*hello), "sendmsg");
}

/* Returns the pipe. */
static int receive_hello(int sock, struct hello *hello)
{
	union {
		struct cmsghdr hdr;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { hello, sizeof(*hello) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int pipe_fd;

	must(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) >= 0, "recvmsg");
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(int)))
		errx(1, "the pipe did not come");
	memcpy(&pipe_fd, CMSG_DATA(c), sizeof(int));
	return pipe_fd;
}

/* ------------------------------------- data, and whether all of it came over */

static long pages_in_flight(void)
{
	long nr = vmstat_get("nr_flip_pages");

	return nr < 0 ? 0 : nr;
}

static long anonymous_pages(pid_t pid)
{
	long resident = 0, shared = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	f = fopen(path, "r");
	must(f, path);
	if (fscanf(f, "%*d %ld %ld", &resident, &shared) != 2)
		errx(1, "%s is strange", path);
	fclose(f);
	return resident - shared;
}

static char *map_memory(size_t len)
{
	char *mem = map_mem(len);

	must(mem, "mmap");
	return mem;
}

static bool is_hole(size_t off)
{
	enum kind kind = off / PMD % NR_KINDS;

	if (kind == EVERY_OTHER_PAGE)
		return off / PAGE % 2;
	return kind == EMPTY;
}

static void fill(char *mem, size_t len)
{
	size_t off;

	must(!madvise(mem, len, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	for (off = HUGE_PAGE * PMD; off < len; off += TURN)
		must(!madvise(mem + off, PMD, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	for (off = 0; off < len; off += PAGE)
		if (!is_hole(off))
			pattern_fill(mem + off, PAGE, off, SEED);
}

/* The first wrong byte within the page at @off, -1: none. */
static ssize_t check_page(const char *mem, size_t off)
{
	static const char zeroes[64 * KIB];
	ssize_t bad;

	if (is_hole(off))
		return memcmp(mem + off, zeroes, PAGE) ? (ssize_t)off : -1;
	bad = pattern_check(mem + off, PAGE, off, SEED);
	return bad < 0 ? -1 : (ssize_t)off + bad;
}

static ssize_t check(const char *mem, size_t len)
{
	ssize_t bad = -1;
	size_t off;

	for (off = 0; off < len && bad < 0; off += PAGE)
		bad = check_page(mem, off);
	return bad;
}

/* Only who has CAP_SYS_ADMIN is told frames; to others there are none. */
static void read_entries(const char *mem, uint64_t *frame)
{
	size_t i;

	for (i = 0; i < NR_ENTRIES; i++)
		must(!read_frames(mem + entries[i].off, 1, &frame[i]),
		     "pagemap");
}

static long first_pages, peak_pages;

/*
 * Both processes and what is between them, and only while nothing was taken
 * meanwhile: this one gives nothing now.
 */
static void sample_memory(void)
{
	long sum, flight;

	do {
		flight = pages_in_flight();
		sum = anonymous_pages(getpid()) + flight +
		      anonymous_pages(successor);
	} while (pages_in_flight() != flight);
	if (!first_pages)
		first_pages = sum;
	if (sum > peak_pages)
		peak_pages = sum;
}

static void watch_giving(size_t done, size_t len)
{
	static size_t shown;

	sample_memory();
	if (quiet || !isatty(2) || (done < len && done - shown < len / 32))
		return;
	shown = done;
	fprintf(stderr, "\rgiven %zu of %zu MiB%s", done / MIB, len / MIB,
		done < len ? "" : "\n");
}

/* Base pages; of the whole system, so what others flip is counted too. */
struct counts {
	long holes;
	long copied;
};

static void read_counts(struct counts *counts)
{
	counts->holes = vmstat_get("flip_taken_hole");
	counts->copied = vmstat_get("flip_copied");
}

static void print_frame(uint64_t frame, bool visible)
{
	if (frame)
		printf(" %#-12llx", (unsigned long long)frame);
	else
		printf(" %-12s", visible ? "none" : "not shown");
}

/* What moved has its frame still, and what was a hole has none. */
static bool entries_right(const struct hello *hello,
			  const struct report *report)
{
	bool visible = frames_visible(), right = true;
	size_t i;

	printf("%-16s %-12s %-12s content\n", "entry", "frame here",
	       "frame there");
	for (i = 0; i < NR_ENTRIES; i++) {
		printf("%-16s", entries[i].name);
		print_frame(hello->frame[i], visible);
		print_frame(report->frame[i], visible);
		printf(" %s\n", report->right[i] ? "right" : "WRONG");
		right &= report->right[i];
		if (hello->flip)
			right &= report->frame[i] == hello->frame[i];
	}
	return right;
}

/* Holes that arrived as holes take no memory there. */
static bool memory_right(const struct hello *hello, const struct report *report)
{
	return !hello->flip || report->pages <= DATA(hello->len) / PAGE;
}

static bool all_right(const struct hello *hello, const struct report *report)
{
	bool right = entries_right(hello, report);

	if (report->wrong >= 0)
		printf("byte %zd is wrong\n", report->wrong);
	if (!memory_right(hello, report))
		printf("the successor has %zu pages, too many\n",
		       report->pages);
	return right && report->wrong < 0 && memory_right(hello, report);
}

static void print_pages(const struct counts *before, const struct hello *hello,
			long huge, long huge_there)
{
	long nr = hello->len / PAGE, holes = 0, copied = nr;
	struct counts now;

	if (hello->flip) {
		read_counts(&now);
		holes = now.holes - before->holes;
		copied = now.copied - before->copied;
	}
	printf("%zu bytes: %ld pages moved, %ld holes, %ld copied; ",
	       hello->len, nr - holes - copied, holes, copied);
	printf("huge pages %ld MiB, there %ld MiB\n", huge / (long)MIB,
	       huge_there / (long)MIB);
}

static void print_cost(unsigned long long ns, size_t len)
{
	printf("both processes: %ld MiB before, %ld MiB at most; ",
	       first_pages * PAGE / (long)MIB, peak_pages * PAGE / (long)MIB);
	printf("%llu ns, %.1f per 4 KiB\n", ns, (double)ns / (len / (4 * KIB)));
}

/* ------------------------------------------------------- the two processes */

static int be_successor(void)
{
	struct report report;
	struct hello hello;
	int pipe_fd = receive_hello(SUCCESSOR_FD, &hello);
	char *mem = map_memory(hello.len);
	size_t i;

	must(!write_all(SUCCESSOR_FD, "", 1), "cannot say that I am ready");
	memset(&report, 0, sizeof(report));
	report.ns = run_steps(hello.flip ? take_memory : take_copy, pipe_fd,
			      mem, hello.len, NULL);
	report.pages = present_pages(mem, hello.len);
	report.huge = huge_bytes(mem, hello.len);
	read_entries(mem, report.frame);
	for (i = 0; i < NR_ENTRIES; i++)
		report.right[i] = check_page(mem, entries[i].off) < 0;
	report.wrong = check(mem, hello.len);
	must(!write_all(SUCCESSOR_FD, &report, sizeof(report)), "report");
	return 0;
}

/*
 * Everything that happens between the two processes.  The successor is ready
 * before the first page goes, since none of them comes back.
 */
static uint64_t hand_over(char *mem, struct hello *hello, struct report *report)
{
	int pipe_fds[2], sock;
	uint64_t ns;
	char ready;

	must(!pipe2(pipe_fds, O_CLOEXEC), "pipe");
	/* Fewer calls.  Nothing is lost when the user may not have that. */
	fcntl(pipe_fds[1], F_SETPIPE_SZ, PIPE_BYTES);
	hello->flip = !copy && has_page_flip(pipe_fds[1]);
	read_entries(mem, hello->frame);
	sock = exec_successor();
	send_hello(sock, pipe_fds[0], hello);
	/* Else a pipe without its taker would be full, not broken. */
	close(pipe_fds[0]);
	must(!read_all(sock, &ready, 1), "the successor is not ready");
	sample_memory();
	ns = run_steps(hello->flip ? give_memory : give_copy, pipe_fds[1], mem,
		       hello->len, watch_giving);
	must(!read_all(sock, report, sizeof(*report)), "no report");
	if (reap(successor))
		errx(1, "the successor failed");
	return ns;
}

static int run(size_t len)
{
	struct hello hello = { .len = len };
	char *mem = map_memory(len);
	struct counts before;
	struct report report;
	uint64_t ns;
	bool right;
	long huge;

	fill(mem, len);
	huge = huge_bytes(mem, len);
	read_counts(&before);
	ns = hand_over(mem, &hello, &report) + report.ns;
	printf("handoff: %zu MiB, %zu of it data, by %s, as %s\n", len / MIB,
	       DATA(len) / MIB, hello.flip ? "page flip" : "write and read",
	       geteuid() ? "an ordinary user" : "root");
	right = all_right(&hello, &report);
	print_pages(&before, &hello, huge, report.huge);
	print_cost(ns, len);
	printf("handoff: %s\n", right ? "everything is right" : "FAILED");
	return right ? 0 : 1;
}

static const struct option options[] = {
	{ "size", required_argument, NULL, 's' },
	{ "copy", no_argument, NULL, 'c' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "successor", no_argument, NULL, 'S' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static void help(FILE *to)
{
	fprintf(to,
		"usage: handoff [--size=MIB] [--copy] [--quiet]\n"
		"Hand memory over to a successor, a new process, and check it there.\n"
		"  --size=MIB  memory, of which 5/8 is data; a multiple of 8 (default 1024)\n"
		"  --copy      write and read, also where pages can be flipped\n"
		"  --quiet     no progress\n"
		"As an ordinary user too; page frames are shown to root only.\n");
}

static size_t size_option(const char *text)
{
	char *end;
	unsigned long mib = strtoul(text, &end, 0);

	if (!mib || *end || mib % (TURN / MIB) || mib > 1024 * 1024)
		errx(2, "--size=%s is no multiple of %lu", text, TURN / MIB);
	return mib * MIB;
}

int main(int argc, char **argv)
{
	size_t len = 1024 * MIB;
	int opt;

	/* A process that has gone is an error like any other. */
	signal(SIGPIPE, SIG_IGN);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			len = size_option(optarg);
			break;
		case 'c':
			copy = true;
			break;
		case 'q':
			quiet = true;
			break;
		case 'S':
			return be_successor();
		case 'h':
			help(stdout);
			return 0;
		default:
			help(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		help(stderr);
		return 2;
	}
	return run(len);
}
