// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random sequences of the calls that move data between pipes, files, sockets
 * and memory, against a model in user space: bytes come out in order, none is
 * lost, none doubled, none comes from anywhere else.
 *
 * model	programs of one thread.  After every call the result must be one
 *		that the model allows: the count, the error number, the bytes
 *		in every pipe, file positions, and whatever arrived, byte for
 *		byte.  A forked child looks whether its memory is still as it
 *		was when it was born.  When a program has ended, pages in flight
 *		are as many as before, whether it emptied its pipes or not.
 * streams	threads of two processes pass streams of numbered words on
 *		through pipes, whose sizes change, and which others look into.
 * found	what went wrong once, the short way.
 *
 * The tests called liar run the same with a kernel that lies now and then, which
 * must be found: they test the tests.
 *
 * A program is a seed.  Each has a selection of calls of its own, so that rare
 * states, such as a pipe that nobody reads, come often in some.
 *
 * Everything is non-blocking in the model, so that each call ends.  Packet pipes
 * (O_DIRECT) are left out: read(2) drops the rest of a packet there, and where
 * splice() cuts one is not documented.
 *
 * On a kernel without the flip, giving and taking are left out.
 *
 * SPLICE_FUZZ_SECONDS	length of each test (default 4)
 * SPLICE_FUZZ_SEED	seed of the first program; the next one has the next
 * SPLICE_FUZZ_STEPS	steps of each program (default 400); to find the
 *			shortest one that fails, lower it until it passes
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "splice_fuzz_model.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define NR_PIPES 4
#define NR_FILES 3
#define NR_SOCKS 2
/* Three PMDs of memory that all is done to, and some of other kinds. */
#define MEM_PAGES (3 * PMD / PAGE)
#define SHARED_PAGES 64
#define PRIVATE_PAGES 64
#define ALL_PAGES (MEM_PAGES + SHARED_PAGES + PRIVATE_PAGES)
#define FILE_PAGES 1024
#define FILE_BYTES (FILE_PAGES * PAGE)
/* Nothing is put into pipes when the model has more. */
#define MPAGES_MAX 16384
#define SEGMENTS_MAX 12
/* A segment that goes on where nothing is mapped. */
#define HUGE_LEN (16 * MIB)
#define BOUNCE (256 * KIB)
#define PAST 20

/* The calls that move bytes, and what else may happen. */
enum kind {
	WRITE,
	VMSPLICE,
	GIFT,
	GIVE,
	GIVE_STRICT,
	READ,
	VMREAD,
	TAKE,
	TAKE_STRICT,
	SPLICE,
	TEE,
	RING_SPLICE,
	RING_TEE,
	FILE_TO_PIPE,
	SENDFILE_TO_PIPE,
	PIPE_TO_FILE,
	SENDFILE,
	COPY_RANGE,
	SENDFILE_TO_SOCK,
	PIPE_TO_SOCK,
	SOCK_TO_PIPE,
	SEND,
	RECEIVE,
	NR_MOVERS,
	WRONG = NR_MOVERS,
	RESIZE,
	CLOSE_END,
	NEW_PIPE,
	NEW_SOCK,
	STORE_FILE,
	TRUNCATE,
	PUNCH,
	STORE,
	DISCARD,
	LAZYFREE,
	PROTECT,
	UNMAP,
	MEND,
	NEW_MEMORY,
	MREMAP,
	LOCK,
	ADVISE,
	FORK,
	NR_KINDS,
};

static const char *const kind_names[] = {
	[WRITE] = "write",
	[VMSPLICE] = "vmsplice",
	[GIFT] = "gift",
	[GIVE] = "give",
	[GIVE_STRICT] = "give-nocopy",
	[READ] = "read",
	[VMREAD] = "vmsplice-out",
	[TAKE] = "take",
	[TAKE_STRICT] = "take-nocopy",
	[SPLICE] = "splice",
	[TEE] = "tee",
	[RING_SPLICE] = "uring-splice",
	[RING_TEE] = "uring-tee",
	[FILE_TO_PIPE] = "file-pipe",
	[SENDFILE_TO_PIPE] = "sendfile-pipe",
	[PIPE_TO_FILE] = "pipe-file",
	[SENDFILE] = "sendfile",
	[COPY_RANGE] = "copy_file_range",
	[SENDFILE_TO_SOCK] = "sendfile-sock",
	[PIPE_TO_SOCK] = "pipe-sock",
	[SOCK_TO_PIPE] = "sock-pipe",
	[SEND] = "send",
	[RECEIVE] = "receive",
	[WRONG] = "wrong",
	[RESIZE] = "resize",
	[CLOSE_END] = "close",
	[NEW_PIPE] = "new-pipe",
	[NEW_SOCK] = "new-sock",
	[STORE_FILE] = "pwrite",
	[TRUNCATE] = "truncate",
	[PUNCH] = "punch",
	[STORE] = "store",
	[DISCARD] = "dontneed",
	[LAZYFREE] = "lazyfree",
	[PROTECT] = "mprotect",
	[UNMAP] = "munmap",
	[MEND] = "mend",
	[NEW_MEMORY] = "mmap",
	[MREMAP] = "mremap",
	[LOCK] = "mlock",
	[ADVISE] = "madvise",
	[FORK] = "fork",
};

/* Shared by a program and who started it. */
struct shared {
	unsigned long calls[NR_KINDS];
	/* Those that returned a count, and what it was. */
	unsigned long moved[NR_MOVERS];
	unsigned long bytes[NR_MOVERS];
	unsigned long steps, programs;
	unsigned long checked, loose;
	unsigned int lies;
	bool ringed;
	char why[200];
};

struct mpipe {
	/* -1: closed */
	int r, w;
	size_t slots;
	struct queue q;
};

struct msock {
	int sv[2];
	bool tcp;
	struct queue q;
};

struct mfile {
	int fd;
	enum backing where;
	struct space s;
	off_t size, pos;
};

/* An io_uring with room for one operation. */
struct uring {
	int fd;
	unsigned int *sq_tail, *cq_head, cq_mask;
	struct io_uring_cqe *cqes;
	struct io_uring_sqe *sqe;
};

struct call {
	enum kind kind;
	int in, out;
	off_t *off_in, *off_out;
	const struct iovec *iov;
	size_t n, len;
	unsigned int flags;
};

struct fuzz;

/* What a kernel could do wrong, for a test of the tests. */
struct lie {
	const char *name;
	/* Before the call; false: it does not apply. */
	bool (*before)(struct fuzz *f, struct call *c);
	/* After it; @n is the result, and what it returns is told. */
	ssize_t (*after)(struct fuzz *f, const struct call *c, ssize_t n);
	/* The call is not made, and this is told: a count, or minus an errno. */
	bool skip;
	int told;
	/* The child changes a byte of its memory. */
	bool on_child;
	/* A kernel that has no flip cannot do it wrong. */
	bool flip;
};

/* No access at all, as nothing is mapped. */
#define GONE 8

struct fuzz {
	struct shared *sh;
	uint64_t seed, rng, streams;
	unsigned int step;
	const struct lie *lie;
	bool flip, limited, across;
	/* There is an io_uring; it was used. */
	bool ringed, rung;
	bool on[NR_KINDS];
	struct mpipe pipe[NR_PIPES];
	struct msock sock[NR_SOCKS];
	struct mfile file[NR_FILES];
	struct uring ring;
	char *mem;
	struct space s;
	unsigned char prot[ALL_PAGES];
	bool locked;
	pid_t child;
	struct iovec iov[SEGMENTS_MAX];
	size_t n, total;
	char *bounce;
	char past[PAST][224];
	unsigned int notes;
};

static uint64_t rnd(struct fuzz *f)
{
	f->rng ^= f->rng << 13;
	f->rng ^= f->rng >> 7;
	f->rng ^= f->rng << 17;
	return f->rng * 0x2545f4914f6cdd1dULL >> 16;
}

static size_t pick(struct fuzz *f, size_t below)
{
	return rnd(f) % below;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t pages_touched(size_t off, size_t len)
{
	return len ? (off + len - 1) / PAGE - off / PAGE + 1 : 0;
}

static const char *note(struct fuzz *f, const char *form, ...)
{
	char *line = f->past[f->notes++ % PAST];
	va_list args;
	int n;

	n = snprintf(line, sizeof(f->past[0]), "%u ", f->step);
	va_start(args, form);
	vsnprintf(line + n, sizeof(f->past[0]) - n, form, args);
	va_end(args);
	return line;
}

/* How to repeat it, and what led to it. */
static void print_past(struct fuzz *f)
{
	const unsigned int from = f->notes < PAST ? 0 : f->notes - PAST;
	unsigned int i;

	printf("# SPLICE_FUZZ_SEED=%llu step %u: %s\n",
	       (unsigned long long)f->seed, f->step, f->sh->why);
	for (i = from; i < f->notes; i++)
		printf("#   %s\n", f->past[i % PAST]);
	fflush(stdout);
}

static __noreturn __printf(2, 3) void fail(struct fuzz *f, const char *form,
					   ...)
{
	va_list args;

	va_start(args, form);
	vsnprintf(f->sh->why, sizeof(f->sh->why), form, args);
	va_end(args);
	if (!f->lie)
		print_past(f);
	_exit(1);
}

/* What a descriptor is, for those who read the past. */
static const char *label(const struct fuzz *f, int fd)
{
	static char names[4][8];
	static unsigned int next;
	char *name = names[next++ % 4];
	size_t i;

	snprintf(name, sizeof(names[0]), "%d", fd);
	for (i = 0; i < NR_PIPES; i++)
		if (fd == f->pipe[i].r || fd == f->pipe[i].w)
			snprintf(name, sizeof(names[0]), "p%zu", i);
	for (i = 0; i < NR_FILES; i++)
		if (fd == f->file[i].fd)
			snprintf(name, sizeof(names[0]), "f%zu", i);
	for (i = 0; i < NR_SOCKS; i++)
		if (fd == f->sock[i].sv[0] || fd == f->sock[i].sv[1])
			snprintf(name, sizeof(names[0]), "s%zu", i);
	return fd < 0 ? "-" : name;
}

static void note_call(struct fuzz *f, const struct call *c)
{
	char *p = (char *)note(f, "%s %s>%s", kind_names[c->kind],
			       label(f, c->in), label(f, c->out));
	const char *end = p + sizeof(f->past[0]);
	size_t i;

	p += strlen(p);
	if (c->off_in)
		p += snprintf(p, end - p, " in@%llx", (long long)*c->off_in);
	if (c->off_out)
		p += snprintf(p, end - p, " out@%llx", (long long)*c->off_out);
	for (i = 0; i < c->n && i < 5; i++)
		p += snprintf(p, end - p, " %lx+%zx",
			      (long)((char *)c->iov[i].iov_base - f->mem),
			      c->iov[i].iov_len);
	if (!c->iov)
		p += snprintf(p, end - p, " %zx", c->len);
	snprintf(p, end - p, " flags %x", c->flags);
}

static void note_result(struct fuzz *f, ssize_t n)
{
	char *line = f->past[(f->notes - 1) % PAST];
	const size_t at = strlen(line);

	if (n < 0)
		snprintf(line + at, sizeof(f->past[0]) - at, " = %s",
			 strerror(errno));
	else
		snprintf(line + at, sizeof(f->past[0]) - at, " = %zx", n);
}

/* ---- The calls ---- */

static int uring_open(struct uring *u)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct io_uring_params p = { 0 };
	char *rings;

	u->fd = syscall(SYS_io_uring_setup, 1, &p);
	if (u->fd < 0)
		return -1;
	rings = mmap(NULL, 2 * PAGE, rw, MAP_SHARED, u->fd, IORING_OFF_SQ_RING);
	u->sqe = mmap(NULL, PAGE, rw, MAP_SHARED, u->fd, IORING_OFF_SQES);
	if (rings == MAP_FAILED || u->sqe == MAP_FAILED)
		return -1;
	u->sq_tail = (void *)(rings + p.sq_off.tail);
	u->cq_head = (void *)(rings + p.cq_off.head);
	u->cq_mask = p.cq_entries - 1;
	u->cqes = (void *)(rings + p.cq_off.cqes);
	return 0;
}

/* The array of the submission ring is all zeroes: the one entry there is. */
static ssize_t by_uring(struct uring *u, unsigned int op, const struct call *c)
{
	int res;

	*u->sqe = (struct io_uring_sqe){ .opcode = op,
					 .fd = c->out,
					 .splice_fd_in = c->in,
					 .off = op == IORING_OP_TEE ? 0 : -1,
					 .splice_off_in =
						 op == IORING_OP_TEE ? 0 : -1,
					 .len = c->len,
					 .splice_flags = c->flags };
	__atomic_store_n(u->sq_tail, *u->sq_tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -1;
	res = u->cqes[*u->cq_head & u->cq_mask].res;
	__atomic_store_n(u->cq_head, *u->cq_head + 1, __ATOMIC_RELEASE);
	if (res >= 0)
		return res;
	errno = -res;
	return -1;
}

static ssize_t do_call(struct fuzz *f, const struct call *c)
{
	switch (c->kind) {
	case WRITE:
	case SEND:
		return writev(c->out, c->iov, c->n);
	case READ:
	case RECEIVE:
		return readv(c->in, c->iov, c->n);
	case VMSPLICE:
	case GIFT:
	case GIVE:
	case GIVE_STRICT:
		return vmsplice(c->out, c->iov, c->n, c->flags);
	case VMREAD:
	case TAKE:
	case TAKE_STRICT:
		return vmsplice(c->in, c->iov, c->n, c->flags);
	case TEE:
		return tee(c->in, c->out, c->len, c->flags);
	case RING_SPLICE:
		return by_uring(&f->ring, IORING_OP_SPLICE, c);
	case RING_TEE:
		return by_uring(&f->ring, IORING_OP_TEE, c);
	case SENDFILE_TO_PIPE:
	case SENDFILE:
	case SENDFILE_TO_SOCK:
		return sendfile(c->out, c->in, c->off_in, c->len);
	case COPY_RANGE:
		return copy_file_range(c->in, c->off_in, c->out, c->off_out,
				       c->len, c->flags);
	default:
		return splice(c->in, c->off_in, c->out, c->off_out, c->len,
			      c->flags);
	}
}

/* What a count must be, or which errors may be instead. */
enum may {
	MAY_AGAIN = 1 << 0,
	MAY_FAULT = 1 << 1,
	MAY_INVAL = 1 << 2,
	MAY_PIPE = 1 << 3,
	MAY_NOTSUPP = 1 << 4,
	MAY_NOMEM = 1 << 5,
	MAY_XDEV = 1 << 6,
};

struct bounds {
	size_t min, max;
	unsigned int may;
};

static unsigned int bit_of(int err)
{
	static const int errors[] = { EAGAIN,	  EFAULT, EINVAL, EPIPE,
				      EOPNOTSUPP, ENOMEM, EXDEV };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i] == err)
			return 1 << i;
	return 0;
}

/* No count at all: one of these errors. */
static struct bounds only(unsigned int may)
{
	return (struct bounds){ 1, 0, may };
}

static struct bounds exactly(size_t n)
{
	return (struct bounds){ n, n, 0 };
}

static ssize_t tell(struct fuzz *f)
{
	f->sh->lies++;
	if (f->lie->told >= 0)
		return f->lie->told;
	errno = -f->lie->told;
	return -1;
}

static bool needs_ring(enum kind k)
{
	return k == RING_SPLICE || k == RING_TEE;
}

/*
 * A worker of io_uring is started, or asks for another one, by what counts as a
 * signal to calls that go on after a round.
 */
static size_t least(const struct fuzz *f, enum kind k, const struct bounds *b)
{
	switch (k) {
	case GIVE:
	case TAKE:
	case VMREAD:
	case PIPE_TO_FILE:
	case SENDFILE:
	case COPY_RANGE:
		return f->rung ? min_size(b->min, 1) : b->min;
	default:
		return b->min;
	}
}

/* Do it, and return the bytes that it is known to have moved. */
static size_t issue(struct fuzz *f, struct call *c, const struct bounds *b)
{
	bool lie = f->lie && f->step > 16 && !pick(f, 3);
	const size_t min = least(f, c->kind, b);
	ssize_t n;

	note_call(f, c);
	if (lie && f->lie->before)
		lie = f->lie->before(f, c);
	n = lie && f->lie->skip ? tell(f) : do_call(f, c);
	if (lie && f->lie->after)
		n = f->lie->after(f, c, n);
	note_result(f, n);
	f->sh->calls[c->kind]++;
	f->rung |= needs_ring(c->kind);
	if (n < 0) {
		if (!(b->may & bit_of(errno)))
			fail(f, "%s: %s", kind_names[c->kind], strerror(errno));
		return 0;
	}
	if ((size_t)n < min || (size_t)n > b->max)
		fail(f, "%s: %zd, not %zu to %zu", kind_names[c->kind], n, min,
		     b->max);
	f->sh->moved[c->kind] += n > 0;
	f->sh->bytes[c->kind] += n;
	return n;
}

/* ---- Choosing ---- */

static struct mpipe *pick_reader(struct fuzz *f)
{
	struct mpipe *p = &f->pipe[pick(f, NR_PIPES)];

	return p->r >= 0 ? p : NULL;
}

static struct mpipe *pick_writer(struct fuzz *f)
{
	struct mpipe *p = &f->pipe[pick(f, NR_PIPES)];

	return p->w >= 0 && mpages_alive < MPAGES_MAX ? p : NULL;
}

static size_t free_slots(const struct mpipe *p)
{
	return p->slots > p->q.slots ? p->slots - p->q.slots : 0;
}

static size_t pick_len(struct fuzz *f)
{
	switch (pick(f, 12)) {
	case 0:
		return pick(f, 8) ? 1 : 0;
	case 1:
	case 2:
	case 3:
		return 1 + pick(f, 6000);
	case 4:
	case 5:
		return PAGE * (1 + pick(f, 32));
	case 6:
		return pick(f, 2) ? PAGE : PMD;
	case 7:
		return pick(f, 4) ? PAGE : 1UL << 40;
	default:
		return 1 + pick(f, pick(f, 3) ? 30000 : 300000);
	}
}

/* One segment's length; @whole: of whole pages. */
static size_t pick_segment(struct fuzz *f, bool whole)
{
	size_t len;

	switch (pick(f, 8)) {
	case 0:
		len = pick(f, 200);
		break;
	case 1:
	case 2:
		len = PAGE * (1 + pick(f, 4));
		break;
	case 3:
		len = PAGE * 16 * (1 + pick(f, 3));
		break;
	case 4:
		len = pick(f, 3) ? PAGE * (1 + pick(f, 64)) : PMD;
		break;
	case 5:
		len = pick(f, 4) ? PAGE * (1 + pick(f, 16)) :
		      pick(f, 4) ? PAGE * (1 + pick(f, 700)) :
				   HUGE_LEN;
		break;
	default:
		len = pick(f, pick(f, 2) ? 10000 : 70000);
	}
	return whole ? (len + PAGE - 1) & -PAGE : len;
}

static size_t pick_start(struct fuzz *f, bool whole)
{
	switch (pick(f, 4)) {
	case 0:
		return pick(f, 3) * PMD;
	case 1:
		return pick(f, ALL_PAGES / 16) * 16 * PAGE;
	default:
		return pick(f, ALL_PAGES) * PAGE +
		       (whole ? 0 : pick(f, 2) * pick(f, PAGE));
	}
}

/* Segments of the memory, one behind the other, of which none is in two. */
static void pick_iov(struct fuzz *f)
{
	const size_t want = pick(f, 16) ? 1 + pick(f, 3) : SEGMENTS_MAX;
	const bool whole = pick(f, 3);
	size_t off = pick_start(f, whole);

	f->total = 0;
	for (f->n = 0; f->n < want; f->n++) {
		size_t len = pick_segment(f, whole);

		if (len < HUGE_LEN && off + len > ALL_PAGES * PAGE)
			len = ALL_PAGES * PAGE - off;
		f->iov[f->n].iov_base = f->mem + off;
		f->iov[f->n].iov_len = len;
		f->total += len;
		off = min_size(off + len, ALL_PAGES * PAGE);
		if (!pick(f, 3) && off + PAGE <= ALL_PAGES * PAGE)
			off += PAGE;
	}
}

static size_t seg_off(const struct fuzz *f, size_t i)
{
	return (char *)f->iov[i].iov_base - f->mem;
}

static bool is_aligned(const struct fuzz *f)
{
	size_t i;

	for (i = 0; i < f->n; i++)
		if (f->iov[i].iov_len &&
		    (seg_off(f, i) | f->iov[i].iov_len) % PAGE)
			return false;
	return true;
}

/* Bytes from the first one on that may be accessed so. */
static size_t reach(const struct fuzz *f, unsigned int prot)
{
	size_t i, page, sum = 0;

	for (i = 0; i < f->n; i++) {
		const size_t off = seg_off(f, i), len = f->iov[i].iov_len;

		for (page = off / PAGE; page * PAGE < off + len; page++)
			if (page >= ALL_PAGES || (f->prot[page] & prot) != prot)
				return page * PAGE > off ?
					       sum + page * PAGE - off :
					       sum;
		sum += len;
	}
	return sum;
}

static size_t slots_of_iov(const struct fuzz *f)
{
	size_t i, slots = 0;

	for (i = 0; i < f->n; i++)
		slots += pages_touched(seg_off(f, i), f->iov[i].iov_len);
	return slots;
}

/* ---- Memory to pipe ---- */

static bool is_give(enum kind k)
{
	return k == GIVE || k == GIVE_STRICT;
}

static unsigned int flags_of(enum kind k)
{
	switch (k) {
	case GIFT:
		return SPLICE_F_GIFT;
	case GIVE:
		return SPLICE_F_GIFT | SPLICE_F_MOVE;
	case GIVE_STRICT:
		return SPLICE_F_GIFT | SPLICE_F_MOVE | SPLICE_F_NOCOPY;
	case TAKE:
		return SPLICE_F_MOVE;
	case TAKE_STRICT:
		return SPLICE_F_MOVE | SPLICE_F_NOCOPY;
	default:
		return 0;
	}
}

static struct bounds bounds_to_pipe(struct fuzz *f, enum kind k,
				    const struct mpipe *to)
{
	const size_t good =
		reach(f, is_give(k) ? PROT_READ | PROT_WRITE : PROT_READ);
	const size_t room = free_slots(to);
	struct bounds b = { 1, good, 0 };

	if (!f->total)
		return exactly(0);
	if (k == GIVE_STRICT && !is_aligned(f))
		return only(MAY_INVAL);
	if (to->r < 0)
		return only(MAY_PIPE);
	if (good == f->total && k != GIVE_STRICT &&
	    !(f->limited && is_give(k)) && slots_of_iov(f) <= room)
		b.min = good;
	if (!room || (f->limited && is_give(k)))
		b.may |= MAY_AGAIN;
	/* A write that meets bad memory drops the page that it was filling. */
	if (!good || (k == WRITE && good < f->total))
		b.may |= MAY_FAULT;
	if (k == GIVE_STRICT)
		b.may |= MAY_AGAIN | MAY_NOTSUPP;
	return b;
}

static char *at(const struct fuzz *f, size_t page)
{
	return f->mem + page * PAGE;
}

/* What is there is what the model says; holes stay holes. */
static void check_page(struct fuzz *f, size_t page, const char *why)
{
	ssize_t bad;

	if (!(f->prot[page] & PROT_READ) || !f->s.page[page])
		return;
	bad = space_differs(&f->s, page * PAGE, at(f, page), PAGE);
	if (bad >= 0)
		fail(f, "%s: byte %zx of memory is wrong", why,
		     page * PAGE + bad);
}

static void store(struct fuzz *f, size_t off, size_t len)
{
	pattern_fill(f->mem + off, len, 0, f->seed << 20 ^ ++f->streams);
	space_store(&f->s, off, f->mem + off, len);
}

/* The whole page was given: it is as it was, or moved and thus empty. */
static void look_at_given(struct fuzz *f, size_t page)
{
	struct mpage *was = f->s.page[page];

	if (was && space_differs(&f->s, page * PAGE, at(f, page), PAGE) < 0)
		return;
	if (zero_check(at(f, page), PAGE) >= 0)
		fail(f, "given page %zx is neither empty nor as before", page);
	if (was && was->refs > 1 && !was->loose)
		fail(f, "page %zx was given, but is shared", page);
	space_discard(&f->s, page, 1);
}

static void settle_given_page(struct fuzz *f, size_t page, unsigned int how)
{
	if (how == 0 && page < MEM_PAGES && !f->locked &&
	    !madvise(at(f, page), PAGE, MADV_DONTNEED))
		space_discard(&f->s, page, 1);
	else if (how == 1)
		store(f, page * PAGE, PAGE);
	else
		look_at_given(f, page);
}

/* Contents of whole pages are unspecified now: specify them. */
static void settle_given(struct fuzz *f, size_t given)
{
	const unsigned int how = pick(f, 3);
	size_t i, page;

	for (i = 0; i < f->n; i++) {
		const size_t off = seg_off(f, i), end = off + f->iov[i].iov_len;
		const size_t given_end = off + min_size(given, end - off);

		for (page = off / PAGE; page * PAGE < end; page++) {
			if (page >= ALL_PAGES)
				break;
			if (page * PAGE >= off &&
			    (page + 1) * PAGE <= given_end)
				settle_given_page(f, page, how);
			else if (page * PAGE < given_end + 16 * PAGE)
				check_page(f, page, "part of a page given");
		}
		given -= given_end - off;
	}
}

static void queue_iov(struct fuzz *f, struct queue *q, size_t len, bool share,
		      unsigned int slots)
{
	size_t i, n;

	for (i = 0; i < f->n && len; i++, len -= n) {
		n = min_size(len, f->iov[i].iov_len);
		if (share)
			space_share_to(&f->s, seg_off(f, i), n, q, slots);
		else
			space_copy_to(&f->s, seg_off(f, i), n, q, slots);
	}
}

static void mem_to_pipe(struct fuzz *f, enum kind k)
{
	struct mpipe *to = pick_writer(f);
	struct bounds b;
	struct call c;
	size_t n;

	if (!to)
		return;
	pick_iov(f);
	c = (struct call){ .kind = k,
			   .in = -1,
			   .out = to->w,
			   .iov = f->iov,
			   .n = f->n,
			   .flags = flags_of(k) | SPLICE_F_NONBLOCK };
	b = bounds_to_pipe(f, k, to);
	n = issue(f, &c, &b);
	/* What was written may share a slot with its neighbour on either side. */
	queue_iov(f, &to->q, n, k == VMSPLICE || k == GIFT, k == WRITE ? 2 : 1);
	if (is_give(k))
		settle_given(f, n);
}

/* ---- Pipe to memory ---- */

static struct bounds bounds_from_pipe(struct fuzz *f, enum kind k,
				      const struct mpipe *from)
{
	const size_t good = reach(f, PROT_READ | PROT_WRITE);
	const size_t most = min_size(f->total, from->q.bytes);
	struct bounds b = { most, most, 0 };

	if (!f->total)
		return exactly(0);
	if (k == TAKE_STRICT && !is_aligned(f))
		return only(MAY_INVAL);
	if (!from->q.bytes)
		return from->w < 0 ? exactly(0) : only(MAY_AGAIN);
	if (good < most)
		b = (struct bounds){ 1, good, MAY_FAULT };
	if (k == TAKE_STRICT)
		b = (struct bounds){ 1, b.max,
				     b.may | MAY_AGAIN | MAY_NOTSUPP };
	return b;
}

static void check_arrived(struct fuzz *f, const struct queue *q, size_t from,
			  const void *got, size_t len, const void *was)
{
	ssize_t bad = queue_differs(q, from, got, len, was);

	if (bad >= 0)
		fail(f, "byte %zx of %zx that arrived at %zx is %02x, wrong",
		     from + bad, from + len, (char *)got + bad - f->mem,
		     ((unsigned char *)got)[bad]);
}

/*
 * Bytes behind the count.  Where memory is bad further on, the kernel may have
 * copied some before it found out; they are still in the pipe as well.
 */
static void check_behind(struct fuzz *f, const struct queue *q, size_t off,
			 size_t end, size_t pos, bool faulty)
{
	size_t n;

	for (; off < end && off < ALL_PAGES * PAGE; off += n, pos += n) {
		struct mpage *page = f->s.page[off / PAGE];

		n = min_size(end - off, PAGE - off % PAGE);
		if (!(f->prot[off / PAGE] & PROT_READ))
			continue;
		if (!faulty || pos >= q->bytes) {
			check_page(f, off / PAGE, "behind what arrived");
			continue;
		}
		n = min_size(n, q->bytes - pos);
		if (page && !page->loose) {
			char was[PAGE];

			memcpy(was, page->data + off % PAGE, n);
			space_loosen(&f->s, off, n);
			check_arrived(f, q, pos, f->mem + off, n, was);
		}
		space_store(&f->s, off, f->mem + off, n);
	}
}

static void arrive_in_mem(struct fuzz *f, const struct queue *q, size_t len,
			  bool faulty)
{
	size_t i, n, pos = 0;

	for (i = 0; i < f->n; i++, pos += n) {
		n = min_size(len - pos, f->iov[i].iov_len);
		space_loosen(&f->s, seg_off(f, i), n);
	}
	for (i = 0, pos = 0; i < f->n; i++, pos += n) {
		n = min_size(len - pos, f->iov[i].iov_len);
		check_arrived(f, q, pos, f->iov[i].iov_base, n, NULL);
		space_store(&f->s, seg_off(f, i), f->iov[i].iov_base, n);
	}
	for (i = 0, pos = 0; i < f->n; i++, pos += n) {
		n = f->iov[i].iov_len;
		if (pos + n > len)
			check_behind(f, q,
				     seg_off(f, i) +
					     (pos < len ? len - pos : 0),
				     seg_off(f, i) + n, pos < len ? len : pos,
				     faulty);
	}
}

static void pipe_to_mem(struct fuzz *f, enum kind k)
{
	struct mpipe *from = pick_reader(f);
	struct bounds b;
	struct call c;
	size_t n;

	if (!from)
		return;
	pick_iov(f);
	c = (struct call){ .kind = k,
			   .in = from->r,
			   .out = -1,
			   .iov = f->iov,
			   .n = f->n,
			   .flags = flags_of(k) | SPLICE_F_NONBLOCK };
	b = bounds_from_pipe(f, k, from);
	n = issue(f, &c, &b);
	arrive_in_mem(f, &from->q, n, b.may & MAY_FAULT);
	queue_drop(&from->q, n);
}

/* ---- Pipe to pipe ---- */

static struct bounds bounds_between(const struct mpipe *from,
				    const struct mpipe *to, size_t len)
{
	const size_t n = min_size(len, from->q.bytes);
	const bool room = free_slots(to);
	struct bounds b = { n, n, room ? 0 : MAY_AGAIN };

	if (!len)
		return exactly(0);
	if (!from->q.bytes && from->w >= 0)
		return only(MAY_AGAIN);
	if (to->r < 0)
		return only(MAY_PIPE);
	if (n && queue_slots(&from->q, n) > free_slots(to))
		b.min = 1;
	return b;
}

static void pipe_to_pipe(struct fuzz *f, enum kind k)
{
	struct mpipe *from = pick_reader(f), *to = pick_writer(f);
	struct bounds b;
	struct call c;
	size_t n;

	if (!from || !to || from == to)
		return;
	c = (struct call){ .kind = k,
			   .in = from->r,
			   .out = to->w,
			   .len = pick_len(f),
			   .flags = SPLICE_F_NONBLOCK | pick(f, 2) };
	/* What an entry of an io_uring has room for. */
	c.len = min_size(c.len, 1UL << 31);
	b = bounds_between(from, to, c.len);
	n = issue(f, &c, &b);
	if (k == TEE || k == RING_TEE)
		queue_share(&to->q, &from->q, n, 0);
	else
		queue_move(&to->q, &from->q, n, 0);
}

/* ---- Files ---- */

static struct mfile *pick_file(struct fuzz *f)
{
	return &f->file[pick(f, NR_FILES)];
}

static off_t pick_offset(struct fuzz *f, off_t below)
{
	off_t off = pick(f, below + 1);

	return pick(f, 2) ? off : off & -PAGE;
}

/* Where a call will be in a file: at its position, or at an offset of its own. */
struct place {
	struct mfile *file;
	bool own;
	off_t off, was;
};

static struct place pick_place(struct fuzz *f, struct mfile *file, bool own,
			       off_t below)
{
	struct place p = { file, own || pick(f, 2), 0, 0 };

	if (!p.own && (pick(f, 2) || file->pos > below))
		file->pos = lseek(file->fd, pick_offset(f, below), SEEK_SET);
	p.off = p.own ? pick_offset(f, below) : file->pos;
	p.was = p.off;
	return p;
}

static off_t *offset_of(struct place *p)
{
	return p->own ? &p->off : NULL;
}

/* The offset, and only that, or the position, moved on by what was moved. */
static void check_place(struct fuzz *f, struct place *p, size_t n)
{
	if (!p->own)
		p->file->pos += n;
	else if (p->off != p->was + (off_t)n)
		fail(f, "offset %llx after %zx at %llx", (long long)p->off, n,
		     (long long)p->was);
	if (position(p->file->fd) != p->file->pos)
		fail(f, "position %llx instead of %llx",
		     (long long)position(p->file->fd), (long long)p->file->pos);
}

static size_t left_in(const struct place *p, size_t len)
{
	const off_t size = p->file->size;

	return p->was < size ? min_size(len, size - p->was) : 0;
}

static void file_to_pipe(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	struct mpipe *to = pick_writer(f);
	struct bounds b;
	struct place p;
	struct call c;
	size_t n;

	if (!to)
		return;
	p = pick_place(f, file, false, file->size + 2 * PAGE);
	c = (struct call){ .kind = k,
			   .in = file->fd,
			   .off_in = offset_of(&p),
			   .out = to->w,
			   .len = pick_len(f),
			   .flags = k == FILE_TO_PIPE ? SPLICE_F_NONBLOCK : 0 };
	n = left_in(&p, c.len);
	b = (struct bounds){ n, n, free_slots(to) ? 0 : MAY_AGAIN };
	if (n && pages_touched(p.off, n) > free_slots(to))
		b.min = 1;
	if (to->r < 0 && (c.len || k != FILE_TO_PIPE))
		b = only(MAY_PIPE);
	n = issue(f, &c, &b);
	check_place(f, &p, n);
	space_share_to(&file->s, p.was, n, &to->q, 1);
}

static void check_file(struct fuzz *f, struct mfile *file, off_t from, off_t to)
{
	ssize_t n, bad;

	for (; from < to; from += n) {
		n = pread(file->fd, f->bounce, min_size(BOUNCE, to - from),
			  from);
		if (n <= 0)
			fail(f, "pread: %zd", n);
		bad = space_differs(&file->s, from, f->bounce, n);
		if (bad >= 0)
			fail(f, "byte %llx of a file is wrong",
			     (long long)from + bad);
	}
}

/* What was outside of what arrived is as before. */
static void check_around(struct fuzz *f, struct mfile *file, off_t off,
			 size_t len)
{
	const off_t end = off + len;

	if (len && end > file->size)
		file->size = end;
	if (file_size(file->fd) != file->size)
		fail(f, "a file of %llx bytes has %llx", (long long)file->size,
		     (long long)file_size(file->fd));
	check_file(f, file, off > PAGE ? off - PAGE : 0,
		   min_size(off, file->size));
	check_file(f, file, end, min_size(end + PAGE, file->size));
}

/* @torn: it was read from where it was written to. */
static void arrive_in_file(struct fuzz *f, struct mfile *file, off_t off,
			   const struct queue *q, size_t len, bool torn)
{
	size_t done;
	ssize_t n;

	space_loosen(&file->s, off, len);
	for (done = 0; done < len; done += n) {
		n = pread(file->fd, f->bounce, min_size(BOUNCE, len - done),
			  off + done);
		if (n <= 0)
			fail(f, "pread of what arrived: %zd", n);
		if (!torn)
			check_arrived(f, q, done, f->bounce, n, NULL);
		space_store(&file->s, off + done, f->bounce, n);
	}
	check_around(f, file, off, len);
}

/* What every output but a pipe allows for a pipe as input. */
static struct bounds bounds_out_of(struct fuzz *f, const struct mpipe *from,
				   size_t len)
{
	const size_t n = min_size(len, from->q.bytes);

	if (!len)
		return exactly(0);
	if (!n)
		return from->w < 0 ? exactly(0) : only(MAY_AGAIN);
	/* A hole needs a page of its own here, for which the user may pay. */
	if (f->limited)
		return (struct bounds){ 1, n, MAY_NOMEM };
	return exactly(n);
}

static void pipe_to_file(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	struct mpipe *from = pick_reader(f);
	struct bounds b;
	struct place p;
	struct call c;
	size_t n;

	if (!from)
		return;
	p = pick_place(f, file, false, FILE_BYTES / 2);
	c = (struct call){ .kind = k,
			   .in = from->r,
			   .out = file->fd,
			   .off_out = offset_of(&p),
			   .len = pick_len(f),
			   .flags = SPLICE_F_NONBLOCK };
	if (from->q.bytes > FILE_BYTES / 2)
		c.len = min_size(c.len, FILE_BYTES / 2);
	b = bounds_out_of(f, from, c.len);
	n = issue(f, &c, &b);
	check_place(f, &p, n);
	arrive_in_file(f, file, p.was, &from->q, n, false);
	queue_drop(&from->q, n);
}

static bool overlap(off_t a, off_t b, size_t len)
{
	return a < b + (off_t)len && b < a + (off_t)len;
}

/* @n: what is left to read; @torn: ranges of one file overlap. */
static struct bounds bounds_of_files(struct fuzz *f, enum kind k,
				     const struct mfile *in,
				     const struct mfile *out, size_t n,
				     bool torn)
{
	if (k == COPY_RANGE && in->where != out->where && !f->across)
		return only(MAY_XDEV);
	if (k == COPY_RANGE && torn && n)
		return only(MAY_INVAL);
	return exactly(n);
}

static void copy_file(struct fuzz *f, struct call *c, struct place *from,
		      struct place *to)
{
	struct mfile *in = from->file, *out = to->file;
	size_t n = left_in(from, c->len);
	const bool torn = in == out && overlap(from->off, to->off, n);
	const struct bounds b = bounds_of_files(f, c->kind, in, out, n, torn);
	struct queue q = { 0 };

	/* Writing may give it more to read. */
	if (in == out && c->kind == SENDFILE)
		c->len = min_size(c->len, n);
	space_copy_to(&in->s, from->off, n, &q, 1);
	n = issue(f, c, &b);
	if (in == out && !to->own)
		in->pos += n;
	else
		check_place(f, to, n);
	check_place(f, from, n);
	arrive_in_file(f, out, to->was, &q, n, torn);
	queue_drop(&q, q.bytes);
	free(q.piece);
}

static void file_to_file(struct fuzz *f, enum kind k)
{
	struct mfile *in = pick_file(f), *out = pick_file(f);
	struct place from = pick_place(f, in, in == out, in->size + PAGE);
	struct place to = pick_place(f, out, k == COPY_RANGE && in == out,
				     FILE_BYTES / 2);
	struct call c;

	if (k == SENDFILE && to.own)
		to = (struct place){ out, false, out->pos, out->pos };
	if (to.off > (off_t)FILE_BYTES / 2)
		return;
	c = (struct call){ .kind = k,
			   .in = in->fd,
			   .off_in = offset_of(&from),
			   .out = out->fd,
			   .off_out = offset_of(&to),
			   .len = min_size(pick_len(f), FILE_BYTES / 2) };
	copy_file(f, &c, &from, &to);
}

/* ---- Sockets ---- */

static struct msock *pick_sock(struct fuzz *f)
{
	return &f->sock[pick(f, NR_SOCKS)];
}

/* How much a socket takes is its affair, but an empty one takes something. */
static void bound_by_sock(const struct msock *s, struct bounds *b)
{
	if (b->min > 1)
		b->min = 1;
	if (s->tcp || s->q.bytes)
		b->may |= MAY_AGAIN;
}

static void file_to_sock(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	struct msock *to = pick_sock(f);
	struct place p = pick_place(f, file, false, file->size + PAGE);
	struct call c = { .kind = k,
			  .in = file->fd,
			  .off_in = offset_of(&p),
			  .out = to->sv[0],
			  .len = pick_len(f) };
	struct bounds b = exactly(left_in(&p, c.len));
	size_t n;

	if (b.max)
		bound_by_sock(to, &b);
	n = issue(f, &c, &b);
	check_place(f, &p, n);
	space_share_to(&file->s, p.was, n, &to->q, SLOTS_UNKNOWN);
}

static void pipe_to_sock(struct fuzz *f, enum kind k)
{
	struct mpipe *from = pick_reader(f);
	struct msock *to = pick_sock(f);
	struct bounds b;
	struct call c;
	size_t n;

	if (!from)
		return;
	c = (struct call){ .kind = k,
			   .in = from->r,
			   .out = to->sv[0],
			   .len = pick_len(f),
			   .flags = SPLICE_F_NONBLOCK };
	if (!pick(f, 4))
		c.flags |= SPLICE_F_MORE;
	b = bounds_out_of(f, from, c.len);
	if (b.min)
		bound_by_sock(to, &b);
	n = issue(f, &c, &b);
	queue_move(&to->q, &from->q, n, SLOTS_UNKNOWN);
}

static void sock_to_pipe(struct fuzz *f, enum kind k)
{
	struct mpipe *to = pick_writer(f);
	struct msock *from = pick_sock(f);
	struct bounds b;
	struct call c;
	size_t n;

	if (!to)
		return;
	c = (struct call){ .kind = k,
			   .in = from->sv[1],
			   .out = to->w,
			   .len = pick_len(f),
			   .flags = SPLICE_F_NONBLOCK };
	n = min_size(c.len, from->q.bytes);
	b = (struct bounds){ 1, n, from->tcp ? MAY_AGAIN : 0 };
	if (!free_slots(to) || !n)
		b.may |= MAY_AGAIN;
	if (!c.len)
		b = exactly(0);
	else if (to->r < 0)
		b = only(MAY_PIPE);
	n = issue(f, &c, &b);
	queue_move(&to->q, &from->q, n, SLOTS_UNKNOWN);
}

static void mem_to_sock(struct fuzz *f, enum kind k)
{
	struct msock *to = pick_sock(f);
	struct bounds b = { 1, 0, 0 };
	struct call c;
	size_t n;

	pick_iov(f);
	f->n = 1;
	f->iov[0].iov_len = min_size(f->iov[0].iov_len, reach(f, PROT_READ));
	c = (struct call){
		.kind = k, .in = -1, .out = to->sv[0], .iov = f->iov, .n = 1
	};
	b.max = f->iov[0].iov_len;
	if (!b.max)
		return;
	bound_by_sock(to, &b);
	n = issue(f, &c, &b);
	queue_iov(f, &to->q, n, false, SLOTS_UNKNOWN);
}

static void sock_to_mem(struct fuzz *f, enum kind k)
{
	struct msock *from = pick_sock(f);
	struct iovec iov = { f->bounce, min_size(pick_len(f), BOUNCE) };
	struct call c = {
		.kind = k, .in = from->sv[1], .out = -1, .iov = &iov, .n = 1
	};
	struct bounds b = { 1, min_size(iov.iov_len, from->q.bytes),
			    from->tcp || !from->q.bytes ? MAY_AGAIN : 0 };
	size_t n;

	if (!iov.iov_len)
		return;
	n = issue(f, &c, &b);
	check_arrived(f, &from->q, 0, f->bounce, n, NULL);
	queue_drop(&from->q, n);
}

/* ---- Calls that must fail, and change nothing ---- */

enum who { P_IN, P_OUT, Q_IN, Q_OUT, FILE_, APPEND, RDONLY, SOCK, CLOSED };
enum where { NOWHERE, START, NEGATIVE, OVERFLOWING, UNMAPPED };

static const struct wrong {
	enum kind kind;
	enum who in, out;
	enum where off_in, off_out;
	size_t len;
	unsigned int flags;
	int err;
} wrongs[] = {
	{ SPLICE, P_IN, Q_OUT, 0, 0, 1, 0x20, EINVAL },
	{ SPLICE, P_IN, Q_OUT, 0, 0, 1, SPLICE_F_NOCOPY, EINVAL },
	{ SPLICE, CLOSED, Q_OUT, 0, 0, 1, 0, EBADF },
	{ SPLICE, P_IN, CLOSED, 0, 0, 1, 0, EBADF },
	{ SPLICE, P_OUT, Q_OUT, 0, 0, 1, 0, EBADF },
	{ SPLICE, P_IN, Q_IN, 0, 0, 1, 0, EBADF },
	{ SPLICE, P_IN, P_OUT, 0, 0, 1, 0, EINVAL },
	{ SPLICE, P_IN, Q_OUT, START, 0, 1, 0, ESPIPE },
	{ SPLICE, P_IN, Q_OUT, 0, START, 1, 0, ESPIPE },
	{ SPLICE, FILE_, SOCK, 0, 0, 1, 0, EINVAL },
	{ SPLICE, FILE_, P_OUT, NEGATIVE, 0, 1, 0, EINVAL },
	{ SPLICE, FILE_, P_OUT, UNMAPPED, 0, 1, 0, EFAULT },
	{ SPLICE, FILE_, P_OUT, OVERFLOWING, 0, 1 << 20, 0, EINVAL },
	{ SPLICE, FILE_, P_OUT, 0, 0, -1, 0, EINVAL },
	{ SPLICE, SOCK, P_OUT, START, 0, 1, 0, EINVAL },
	{ SPLICE, P_IN, FILE_, 0, NEGATIVE, 1, 0, EINVAL },
	{ SPLICE, P_IN, FILE_, 0, UNMAPPED, 1, 0, EFAULT },
	{ SPLICE, P_IN, FILE_, 0, 0, -1, 0, EINVAL },
	{ SPLICE, P_IN, SOCK, 0, START, 1, 0, EINVAL },
	{ SPLICE, P_IN, APPEND, 0, 0, 1, 0, EINVAL },
	{ SPLICE, P_IN, RDONLY, 0, 0, 1, 0, EBADF },
	{ TEE, P_IN, Q_OUT, 0, 0, 1, SPLICE_F_NOCOPY, EINVAL },
	{ TEE, P_IN, P_OUT, 0, 0, 1, 0, EINVAL },
	{ TEE, FILE_, Q_OUT, 0, 0, 1, 0, EINVAL },
	{ TEE, P_IN, SOCK, 0, 0, 1, 0, EINVAL },
	{ TEE, P_OUT, Q_OUT, 0, 0, 1, 0, EBADF },
	{ VMSPLICE, CLOSED, P_OUT, 0, 0, -1, 0, EINVAL },
	{ VMSPLICE, CLOSED, P_OUT, 0, 0, 1, 0x20, EINVAL },
	{ VMSPLICE, CLOSED, P_OUT, 0, 0, 1, SPLICE_F_NOCOPY, EINVAL },
	{ VMSPLICE, CLOSED, CLOSED, 0, 0, 1, 0, EBADF },
	{ GIVE, CLOSED, FILE_, 0, 0, 1, 3, EBADF },
	{ GIVE, CLOSED, SOCK, 0, 0, 1, 3, EBADF },
	{ TAKE, FILE_, CLOSED, 0, 0, 1, SPLICE_F_MOVE, EBADF },
	{ SENDFILE, P_IN, SOCK, 0, 0, 1, 0, EINVAL },
	{ SENDFILE, P_IN, SOCK, START, 0, 1, 0, ESPIPE },
	{ SENDFILE, FILE_, SOCK, NEGATIVE, 0, 1, 0, EINVAL },
	{ SENDFILE, FILE_, SOCK, UNMAPPED, 0, 1, 0, EFAULT },
	{ SENDFILE, FILE_, APPEND, 0, 0, 1, 0, EINVAL },
	{ SENDFILE, FILE_, RDONLY, 0, 0, 1, 0, EBADF },
	{ SENDFILE, FILE_, SOCK, 0, 0, -1, 0, EINVAL },
	{ COPY_RANGE, P_IN, FILE_, 0, 0, 1, 0, EINVAL },
	{ COPY_RANGE, FILE_, SOCK, 0, 0, 1, 0, EINVAL },
	{ COPY_RANGE, FILE_, APPEND, 0, 0, 1, 0, EBADF },
	{ COPY_RANGE, FILE_, RDONLY, 0, 0, 1, 0, EBADF },
	{ COPY_RANGE, FILE_, FILE_, START, START, 1, 0, EINVAL },
	{ COPY_RANGE, FILE_, FILE_, START, START, 1, 1, EINVAL },
	{ COPY_RANGE, FILE_, FILE_, UNMAPPED, START, 1, 0, EFAULT },
};

static int fd_of(struct fuzz *f, enum who it, const int extra[2])
{
	switch (it) {
	case P_IN:
		return f->pipe[0].r;
	case P_OUT:
		return f->pipe[0].w;
	case Q_IN:
		return f->pipe[1].r;
	case Q_OUT:
		return f->pipe[1].w;
	case FILE_:
		return f->file[0].fd;
	case APPEND:
	case RDONLY:
		return extra[it == RDONLY];
	case SOCK:
		return f->sock[0].sv[0];
	default:
		return -1;
	}
}

static off_t *wrong_offset(enum where where)
{
	static off_t offsets[UNMAPPED];

	if (where == NOWHERE)
		return NULL;
	/* Nothing may be mapped in the first page. */
	if (where == UNMAPPED)
		return (off_t *)8;
	offsets[START] = 0;
	offsets[NEGATIVE] = -8;
	offsets[OVERFLOWING] = INT64_MAX - 8;
	return &offsets[where];
}

static void wrong_call(struct fuzz *f, const struct wrong *w, const int fds[2])
{
	struct iovec iov = { f->mem, w->len };
	const bool by_iov = w->kind == VMSPLICE || w->kind == GIVE ||
			    w->kind == TAKE;
	struct call c = { .kind = w->kind,
			  .in = fd_of(f, w->in, fds),
			  .out = fd_of(f, w->out, fds),
			  .off_in = wrong_offset(w->off_in),
			  .off_out = wrong_offset(w->off_out),
			  .iov = by_iov ? &iov : NULL,
			  .n = by_iov,
			  .len = w->len,
			  .flags = w->flags };
	ssize_t n = do_call(f, &c);

	note(f, "wrong %s %zu: %zd, %s", kind_names[w->kind], w - wrongs, n,
	     n < 0 ? strerror(errno) : "");
	if (n != -1 || errno != w->err)
		fail(f, "wrong %s, row %zu: %zd, %s", kind_names[w->kind],
		     w - wrongs, n, n < 0 ? strerror(errno) : "no error");
}

static void call_wrongly(struct fuzz *f, enum kind k)
{
	int fds[2], i;

	for (i = 0; i < 2; i++)
		if (f->pipe[i].r < 0 || f->pipe[i].w < 0)
			return;
	if (!f->file[0].size)
		return;
	fds[0] = reopen(f->file[0].fd, O_RDWR | O_APPEND);
	fds[1] = reopen(f->file[0].fd, O_RDONLY);
	for (i = 0; i < 6; i++)
		wrong_call(f, &wrongs[pick(f, ARRAY_SIZE(wrongs))], fds);
	f->sh->calls[k] += i;
	close(fds[0]);
	close(fds[1]);
}

/* ---- Pipes, sockets and files, other than by moving ---- */

static void open_pipe(struct fuzz *f, struct mpipe *p)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK))
		fail(f, "pipe: %s", strerror(errno));
	p->r = fds[0];
	p->w = fds[1];
	if (pick(f, 2))
		fcntl(p->w, F_SETPIPE_SZ, PAGE << pick(f, 9));
	p->slots = fcntl(p->w, F_GETPIPE_SZ) / PAGE;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_end(struct fuzz *f, enum kind k)
{
	struct mpipe *p = &f->pipe[pick(f, NR_PIPES)];
	const bool reader = pick(f, 2);

	if (p->r < 0 || p->w < 0)
		return;
	note(f, "close the %s of p%zu", reader ? "reader" : "writer",
	     p - f->pipe);
	close_fd(reader ? &p->r : &p->w);
	f->sh->calls[k]++;
}

static void new_pipe(struct fuzz *f, enum kind k)
{
	struct mpipe *p = &f->pipe[pick(f, NR_PIPES)];

	if (p->r >= 0 && p->w >= 0 && pick(f, 8))
		return;
	close_fd(&p->r);
	close_fd(&p->w);
	queue_drop(&p->q, p->q.bytes);
	open_pipe(f, p);
	note(f, "new p%zu of %zu", p - f->pipe, p->slots);
	f->sh->calls[k]++;
}

static void resize_pipe(struct fuzz *f, enum kind k)
{
	struct mpipe *p = &f->pipe[pick(f, NR_PIPES)];
	const size_t slots = 1 << pick(f, 9);
	const int fd = p->r >= 0 ? p->r : p->w;
	int n = fcntl(fd, F_SETPIPE_SZ,
		      (slots - pick(f, slots / 2 + 1)) * PAGE);

	note(f, "resize p%zu to %zu", p - f->pipe, slots);
	note_result(f, n);
	f->sh->calls[k]++;
	if (n < 0 && errno == EBUSY && p->q.slots > slots / 2)
		return;
	if (n < 0 && errno == EPERM && f->limited && slots > p->slots)
		return;
	if (n < 0 || n & (n - 1) || (size_t)n > slots * PAGE ||
	    n != fcntl(fd, F_GETPIPE_SZ))
		fail(f, "resize: %d, %s", n, strerror(errno));
	p->slots = n / PAGE;
}

static int open_sock(struct msock *s)
{
	s->tcp = !s->tcp;
	if (s->tcp ? tcp_pair(s->sv) : unix_pair(s->sv))
		return -1;
	return set_nonblock(s->sv[0]) | set_nonblock(s->sv[1]);
}

static void new_sock(struct fuzz *f, enum kind k)
{
	struct msock *s = pick_sock(f);

	close(s->sv[0]);
	close(s->sv[1]);
	queue_drop(&s->q, s->q.bytes);
	if (open_sock(s))
		fail(f, "socket: %s", strerror(errno));
	note(f, "new s%zu, %s", s - f->sock, s->tcp ? "TCP" : "UNIX");
	f->sh->calls[k]++;
}

static void store_file(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	const off_t off = pick_offset(f, FILE_BYTES / 2);
	const size_t len = 1 + pick(f, pick(f, 8) ? 10000 : BOUNCE);

	note(f, "pwrite f%zu %llx+%zx", file - f->file, (long long)off, len);
	pattern_fill(f->bounce, len, 0, f->seed << 20 ^ ++f->streams);
	if (pwrite(file->fd, f->bounce, len, off) != (ssize_t)len)
		fail(f, "pwrite: %s", strerror(errno));
	space_store(&file->s, off, f->bounce, len);
	check_around(f, file, off, len);
	f->sh->calls[k]++;
}

/* Who has a page of it may see the zeroes that fill up the last page, or not. */
static void empty_range(struct fuzz *f, struct mfile *file, off_t off,
			size_t len)
{
	static const char zeroes[PAGE];
	size_t n;

	space_blur(&file->s, off, len);
	for (; len; off += n, len -= n) {
		n = min_size(len, PAGE - off % PAGE);
		if (n == PAGE)
			space_discard(&file->s, off / PAGE, 1);
		else
			space_store(&file->s, off, zeroes, n);
		if (n < PAGE && file->s.page[off / PAGE])
			file->s.page[off / PAGE]->loose = false;
	}
}

static void truncate_file(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	const off_t size = pick_offset(f, FILE_BYTES / 2);

	note(f, "truncate f%zu %llx", file - f->file, (long long)size);
	if (ftruncate(file->fd, size))
		fail(f, "ftruncate: %s", strerror(errno));
	if (size < file->size)
		empty_range(f, file, size, file->size - size);
	file->size = size;
	check_around(f, file, size, 0);
	f->sh->calls[k]++;
}

static void punch_file(struct fuzz *f, enum kind k)
{
	struct mfile *file = pick_file(f);
	const off_t off = pick_offset(f, file->size);
	const size_t len = min_size(1 + pick(f, 100000), file->size - off);

	note(f, "punch f%zu %llx+%zx", file - f->file, (long long)off, len);
	if (!len ||
	    fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
		      len))
		return;
	empty_range(f, file, off, len);
	check_around(f, file, off, len);
	f->sh->calls[k]++;
}

/* ---- Memory, other than by moving ---- */

struct range {
	size_t page, nr;
};

/* Pages of which each one may be accessed so, or, for GONE, is mapped at all. */
static struct range pick_range(struct fuzz *f, size_t most, unsigned int prot)
{
	struct range r = { pick(f, MEM_PAGES), 1 + pick(f, most) };
	size_t i;

	if (most > 64 && !pick(f, 8))
		r = (struct range){ pick(f, MEM_PAGES / 512) * 512, 512 };
	for (i = 0; i < r.nr && r.page + i < MEM_PAGES; i++) {
		const unsigned char has = f->prot[r.page + i];

		if (prot == GONE ? has & GONE : (has & prot) != prot)
			break;
	}
	r.nr = i;
	return r;
}

static void note_range(struct fuzz *f, enum kind k, const struct range *r)
{
	note(f, "%s %lx+%lx", kind_names[k], r->page * PAGE, r->nr * PAGE);
	f->sh->calls[k]++;
}

static void unlock_all(struct fuzz *f)
{
	if (f->locked)
		munlockall();
	f->locked = false;
}

static void store_mem(struct fuzz *f, enum kind k)
{
	struct range r = pick_range(f, 80, PROT_READ | PROT_WRITE);
	size_t off = r.page * PAGE;

	if (!r.nr)
		return;
	note_range(f, k, &r);
	if (pick(f, 5)) {
		store(f, off, r.nr * PAGE);
		return;
	}
	off += pick(f, PAGE);
	store(f, off, 1 + pick(f, r.nr * PAGE - off % PAGE));
}

static void discard(struct fuzz *f, enum kind k)
{
	struct range r = pick_range(f, 300, GONE);

	if (!r.nr)
		return;
	unlock_all(f);
	note_range(f, k, &r);
	if (madvise(at(f, r.page), r.nr * PAGE, MADV_DONTNEED))
		fail(f, "MADV_DONTNEED: %s", strerror(errno));
	space_discard(&f->s, r.page, r.nr);
}

static void lazyfree(struct fuzz *f, enum kind k)
{
	struct range r = pick_range(f, 100, GONE);

	if (!r.nr)
		return;
	unlock_all(f);
	note_range(f, k, &r);
	if (madvise(at(f, r.page), r.nr * PAGE, MADV_FREE))
		fail(f, "MADV_FREE: %s", strerror(errno));
	space_blur(&f->s, r.page * PAGE, r.nr * PAGE);
}

/*
 * A fault to write without a store gives memory that was forked pages of its
 * own: who shares them in another way may share them still, or no more.
 */
static void fault_to_write(struct fuzz *f, size_t page, size_t nr)
{
	space_loosen(&f->s, page * PAGE, nr * PAGE);
}

static void protect(struct fuzz *f, enum kind k)
{
	const unsigned int prot = pick(f, 3) ? pick(f, 2) * PROT_READ :
					       PROT_READ | PROT_WRITE;
	struct range r = pick_range(f, 32, GONE);

	if (!r.nr)
		return;
	note_range(f, k, &r);
	if (mprotect(at(f, r.page), r.nr * PAGE, prot))
		fail(f, "mprotect: %s", strerror(errno));
	memset(f->prot + r.page, prot, r.nr);
	/* Locked memory is faulted in as soon as it can be. */
	if (f->locked)
		fault_to_write(f, r.page, r.nr);
}

static void unmap(struct fuzz *f, enum kind k)
{
	struct range r = pick_range(f, 16, 0);

	note_range(f, k, &r);
	if (munmap(at(f, r.page), r.nr * PAGE))
		fail(f, "munmap: %s", strerror(errno));
	space_discard(&f->s, r.page, r.nr);
	memset(f->prot + r.page, GONE, r.nr);
}

static void map_anew(struct fuzz *f, size_t page, size_t nr)
{
	const int rw = PROT_READ | PROT_WRITE;

	if (mmap(at(f, page), nr * PAGE, rw,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		fail(f, "mmap: %s", strerror(errno));
	space_discard(&f->s, page, nr);
	memset(f->prot + page, rw, nr);
}

static void mend(struct fuzz *f, enum kind k)
{
	const int rw = PROT_READ | PROT_WRITE;
	size_t i;

	note(f, "mend");
	for (i = 0; i < MEM_PAGES; i++) {
		if (f->prot[i] & GONE)
			map_anew(f, i, 1);
		else if (f->prot[i] != rw && mprotect(at(f, i), PAGE, rw))
			fail(f, "mprotect: %s", strerror(errno));
		else if (f->prot[i] != rw && f->locked)
			fault_to_write(f, i, 1);
		f->prot[i] = rw;
	}
	f->sh->calls[k]++;
}

/* Which folios may come: 2 MiB, 64 KiB where the test has set it, small ones. */
static void advise_pmd(struct fuzz *f, size_t pmd, unsigned int how)
{
	char *mem = f->mem + pmd * PMD;

	if (how == 0)
		madvise(mem, PMD, MADV_HUGEPAGE);
	else if (how == 1)
		madvise(mem, PMD - 16 * PAGE, MADV_HUGEPAGE);
	else
		madvise(mem, PMD, MADV_NOHUGEPAGE);
}

static void new_memory(struct fuzz *f, enum kind k)
{
	const size_t pmd = pick(f, MEM_PAGES / 512);
	struct range r = { pmd * 512, 512 };

	note_range(f, k, &r);
	map_anew(f, r.page, r.nr);
	advise_pmd(f, pmd, pick(f, 3));
	if (pick(f, 4))
		store(f, pmd * PMD, PMD);
}

/* Where a range was there is fresh memory then. */
static void move_mem(struct fuzz *f, enum kind k)
{
	struct range from = pick_range(f, 600, GONE);
	const size_t to = pick(f, MEM_PAGES - from.nr + 1);

	if (!from.nr || (to < from.page + from.nr && from.page < to + from.nr))
		return;
	unlock_all(f);
	note(f, "mremap %lx+%lx to %lx", from.page * PAGE, from.nr * PAGE,
	     to * PAGE);
	f->sh->calls[k]++;
	if (mremap(at(f, from.page), from.nr * PAGE, from.nr * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED, at(f, to)) == MAP_FAILED) {
		/* Of more than one mapping, some may have moved. */
		map_anew(f, to, from.nr);
	} else {
		space_move(&f->s, to, from.page, from.nr);
		memcpy(f->prot + to, f->prot + from.page, from.nr);
	}
	map_anew(f, from.page, from.nr);
}

static void lock_mem(struct fuzz *f, enum kind k)
{
	struct range r = pick_range(f, 64, PROT_READ | PROT_WRITE);

	if (!r.nr)
		return;
	note_range(f, k, &r);
	f->locked = true;
	mlock(at(f, r.page), r.nr * PAGE);
	fault_to_write(f, r.page, r.nr);
}

static void advise(struct fuzz *f, enum kind k)
{
	static const int advices[] = {
		MADV_COLLAPSE, MADV_HUGEPAGE,	   MADV_NOHUGEPAGE,
		MADV_COLD,     MADV_POPULATE_READ, MADV_POPULATE_WRITE
	};
	const size_t pmd = pick(f, MEM_PAGES / 512);
	const int advice = advices[pick(f, ARRAY_SIZE(advices))];

	note(f, "madvise %lx %d", pmd * PMD, advice);
	madvise(f->mem + pmd * PMD, PMD, advice);
	if (advice == MADV_POPULATE_WRITE)
		fault_to_write(f, pmd * 512, 512);
	f->sh->calls[k]++;
}

static void check_mem(struct fuzz *f, size_t nr, const char *why)
{
	size_t i;

	for (i = 0; i < nr; i++)
		check_page(f, i, why);
}

/* ---- A child, to whose memory nothing may happen ---- */

/* Only the parent may have the pipes: who has them closed is seen by others. */
static void be_child(struct fuzz *f, int told)
{
	sigset_t set;
	int sig;

	if (told > 3)
		close_range(3, told - 1, 0);
	close_range(told + 1, ~0U, 0);
	close(told);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigwait(&set, &sig);
	if (f->lie && f->lie->on_child && f->s.page[0] &&
	    f->prot[0] == (PROT_READ | PROT_WRITE)) {
		f->sh->lies++;
		f->mem[0] ^= 1;
	}
	check_mem(f, MEM_PAGES, "in the child");
	_exit(0);
}

static void have_child(struct fuzz *f)
{
	int told[2];
	sigset_t set;
	char c;

	note(f, "fork");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (pipe(told))
		fail(f, "pipe: %s", strerror(errno));
	f->child = fork_child();
	if (!f->child)
		be_child(f, told[1]);
	close(told[1]);
	if (f->child < 0 || read(told[0], &c, 1))
		fail(f, "fork: %s", strerror(errno));
	close(told[0]);
}

static void reap_child(struct fuzz *f)
{
	int status;

	note(f, "look at the memory of the child");
	kill(f->child, SIGUSR1);
	status = reap(f->child);
	f->child = 0;
	if (status)
		fail(f, "the child ended with %d", status);
}

static void breed(struct fuzz *f, enum kind k)
{
	f->sh->calls[k]++;
	if (f->child)
		reap_child(f);
	else
		have_child(f);
}

/* ---- Programs ---- */

static const struct op {
	void (*run)(struct fuzz *f, enum kind k);
	unsigned int weight;
} ops[NR_KINDS] = {
	[WRITE] = { mem_to_pipe, 6 },
	[VMSPLICE] = { mem_to_pipe, 5 },
	[GIFT] = { mem_to_pipe, 3 },
	[GIVE] = { mem_to_pipe, 14 },
	[GIVE_STRICT] = { mem_to_pipe, 5 },
	[READ] = { pipe_to_mem, 5 },
	[VMREAD] = { pipe_to_mem, 4 },
	[TAKE] = { pipe_to_mem, 14 },
	[TAKE_STRICT] = { pipe_to_mem, 5 },
	[SPLICE] = { pipe_to_pipe, 10 },
	[TEE] = { pipe_to_pipe, 6 },
	[RING_SPLICE] = { pipe_to_pipe, 3 },
	[RING_TEE] = { pipe_to_pipe, 3 },
	[FILE_TO_PIPE] = { file_to_pipe, 7 },
	[SENDFILE_TO_PIPE] = { file_to_pipe, 4 },
	[PIPE_TO_FILE] = { pipe_to_file, 8 },
	[SENDFILE] = { file_to_file, 3 },
	[COPY_RANGE] = { file_to_file, 3 },
	[SENDFILE_TO_SOCK] = { file_to_sock, 3 },
	[PIPE_TO_SOCK] = { pipe_to_sock, 6 },
	[SOCK_TO_PIPE] = { sock_to_pipe, 6 },
	[SEND] = { mem_to_sock, 2 },
	[RECEIVE] = { sock_to_mem, 6 },
	[WRONG] = { call_wrongly, 3 },
	[RESIZE] = { resize_pipe, 4 },
	[CLOSE_END] = { close_end, 2 },
	[NEW_PIPE] = { new_pipe, 8 },
	[NEW_SOCK] = { new_sock, 1 },
	[STORE_FILE] = { store_file, 4 },
	[TRUNCATE] = { truncate_file, 1 },
	[PUNCH] = { punch_file, 1 },
	[STORE] = { store_mem, 18 },
	[DISCARD] = { discard, 4 },
	[LAZYFREE] = { lazyfree, 1 },
	[PROTECT] = { protect, 2 },
	[UNMAP] = { unmap, 1 },
	[MEND] = { mend, 2 },
	[NEW_MEMORY] = { new_memory, 2 },
	[MREMAP] = { move_mem, 2 },
	[LOCK] = { lock_mem, 1 },
	[ADVISE] = { advise, 2 },
	[FORK] = { breed, 2 },
};

static bool needs_flip(enum kind k)
{
	return is_give(k) || k == TAKE || k == TAKE_STRICT;
}

/* What a program has none of, others have the more of. */
static void choose_kinds(struct fuzz *f)
{
	static const enum kind always[] = { WRITE, READ,     STORE,
					    MEND,  NEW_PIPE, RECEIVE };
	const bool ring = f->ringed && pick(f, 2);
	unsigned int i;
	enum kind k;

	for (k = 0; k < NR_KINDS; k++) {
		f->on[k] = pick(f, 4);
		if (needs_flip(k) && !f->flip)
			f->on[k] = false;
		if (needs_ring(k) && !ring)
			f->on[k] = false;
	}
	for (i = 0; i < ARRAY_SIZE(always); i++)
		f->on[always[i]] = true;
}

static enum kind pick_kind(struct fuzz *f)
{
	unsigned int sum = 0, at;
	enum kind k;

	for (k = 0; k < NR_KINDS; k++)
		sum += f->on[k] ? ops[k].weight : 0;
	at = pick(f, sum);
	for (k = 0; at >= (f->on[k] ? ops[k].weight : 0); k++)
		at -= f->on[k] ? ops[k].weight : 0;
	return k;
}

static void check_queues(struct fuzz *f)
{
	size_t i;
	int n;

	for (i = 0; i < NR_PIPES; i++) {
		const struct mpipe *p = &f->pipe[i];

		n = bytes_queued(p->r >= 0 ? p->r : p->w);
		if (n < 0 || (size_t)n != p->q.bytes)
			fail(f, "p%zu has %d bytes, not %zu", i, n, p->q.bytes);
	}
	for (i = 0; i < NR_SOCKS; i++) {
		const struct msock *s = &f->sock[i];

		n = bytes_queued(s->sv[1]);
		if ((size_t)n > s->q.bytes ||
		    (!s->tcp && (size_t)n != s->q.bytes))
			fail(f, "s%zu has %d bytes, not %zu", i, n, s->q.bytes);
	}
}

/* All that is in a queue comes out at last, and is right. */
static void drain(struct fuzz *f, int fd, struct queue *q)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	while (q->bytes) {
		if (poll(&p, 1, 20000) != 1)
			fail(f, "%zu bytes do not come out of %s", q->bytes,
			     label(f, fd));
		n = read(fd, f->bounce, BOUNCE);
		if (n <= 0 || (size_t)n > q->bytes)
			fail(f, "%s: %zd of the last %zu bytes", label(f, fd),
			     n, q->bytes);
		check_arrived(f, q, 0, f->bounce, n, NULL);
		queue_drop(q, n);
	}
	n = read(fd, f->bounce, 1);
	if (n > 0)
		fail(f, "more in %s than was put there", label(f, fd));
}

static void check_end(struct fuzz *f)
{
	size_t i;

	note(f, "the end");
	for (i = 0; i < NR_PIPES; i++)
		if (f->pipe[i].r >= 0)
			drain(f, f->pipe[i].r, &f->pipe[i].q);
	for (i = 0; i < NR_SOCKS; i++)
		drain(f, f->sock[i].sv[1], &f->sock[i].q);
	for (i = 0; i < NR_FILES; i++)
		check_file(f, &f->file[i], 0, f->file[i].size);
	check_mem(f, ALL_PAGES, "at the end");
	if (f->child)
		reap_child(f);
}

static void have_files(struct fuzz *f)
{
	static const enum backing wheres[] = { BACKING_TMPFS, BACKING_EXT4 };
	size_t i;

	for (i = 0; i < NR_FILES; i++) {
		struct mfile *file = &f->file[i];

		file->where = wheres[i < 2 ? i : pick(f, 2)];
		if (!backing_available(file->where))
			file->where = BACKING_MEMFD;
		file->fd = backing_file(file->where);
		if (file->fd < 0 || fchmod(file->fd, 0666) ||
		    space_init(&file->s, 2 * FILE_PAGES))
			fail(f, "no file: %s", strerror(errno));
	}
	f->across = copy_file_range(f->file[0].fd, NULL, f->file[1].fd, NULL, 1,
				    0) == 0;
}

/* Memory that cannot move, behind that which can: shared, and of a file. */
static void have_other_memory(struct fuzz *f)
{
	const int rw = PROT_READ | PROT_WRITE;
	char *mem = at(f, MEM_PAGES), *private = mem + SHARED_PAGES * PAGE;
	int fd = memfd_filled(PRIVATE_PAGES * PAGE, f->seed);

	if (mmap(mem, SHARED_PAGES * PAGE, rw,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
	    mmap(private, PRIVATE_PAGES * PAGE, rw, MAP_PRIVATE | MAP_FIXED, fd,
		 0) == MAP_FAILED)
		fail(f, "no memory: %s", strerror(errno));
	close(fd);
	store(f, MEM_PAGES * PAGE, SHARED_PAGES * PAGE);
	space_store(&f->s, (MEM_PAGES + SHARED_PAGES) * PAGE, private,
		    PRIVATE_PAGES * PAGE);
}

static void have_memory(struct fuzz *f)
{
	size_t pmd;

	f->mem = map_mem(ALL_PAGES * PAGE);
	f->bounce = malloc(BOUNCE);
	if (!f->mem || !f->bounce || space_init(&f->s, ALL_PAGES))
		fail(f, "no memory: %s", strerror(errno));
	memset(f->prot, PROT_READ | PROT_WRITE, ALL_PAGES);
	have_other_memory(f);
	for (pmd = 0; pmd < MEM_PAGES / 512; pmd++) {
		advise_pmd(f, pmd, pmd % 3);
		if (pick(f, 4))
			store(f, pmd * PMD, PMD);
	}
}

#define NOBODY 65534

static struct fuzz *running;

/* Memory that is not as the model has it. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	fail(running, "signal %d at %lx of the memory", sig,
	     (long)((char *)info->si_addr - running->mem));
}

static void set_up(struct fuzz *f)
{
	struct sigaction fault = { .sa_sigaction = on_fault,
				   .sa_flags = SA_SIGINFO };
	size_t i;

	f->rng = f->seed * 0x9e3779b97f4a7c15ULL | 1;
	f->flip = flip_available();
	running = f;
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	have_files(f);
	if (f->limited && become(NOBODY))
		fail(f, "cannot be nobody: %s", strerror(errno));
	f->ringed = !uring_open(&f->ring);
	f->sh->ringed |= f->ringed;
	for (i = 0; i < NR_PIPES; i++)
		open_pipe(f, &f->pipe[i]);
	for (i = 0; i < NR_SOCKS; i++) {
		f->sock[i].tcp = i;
		if (open_sock(&f->sock[i]))
			fail(f, "no socket: %s", strerror(errno));
	}
	have_memory(f);
	choose_kinds(f);
}

static __noreturn void run_program(struct fuzz *f, unsigned int steps)
{
	enum kind k;

	set_up(f);
	for (f->step = 1; f->step <= steps; f->step++) {
		k = pick_kind(f);
		ops[k].run(f, k);
		check_queues(f);
		if (f->step % 128 == 0)
			check_mem(f, ALL_PAGES, "from time to time");
	}
	f->sh->steps += steps;
	/* Every second one leaves all to the kernel. */
	if (pick(f, 2))
		check_end(f);
	f->sh->checked += bytes_checked;
	f->sh->loose += bytes_loose;
	_exit(0);
}

/* ---- Lies ---- */

static struct mpipe *pipe_behind(struct fuzz *f, int fd)
{
	size_t i;

	for (i = 0; fd >= 0 && i < NR_PIPES; i++)
		if (fd == f->pipe[i].r || fd == f->pipe[i].w)
			return &f->pipe[i];
	return NULL;
}

/* Told by the count. */
static ssize_t lose_one(struct fuzz *f, const struct call *c, ssize_t n)
{
	f->sh->lies += n > 0;
	return n > 0 ? n - 1 : n;
}

static ssize_t invent_one(struct fuzz *f, const struct call *c, ssize_t n)
{
	f->sh->lies += n > 0;
	return n > 0 ? n + 1 : n;
}

static ssize_t other_error(struct fuzz *f, const struct call *c, ssize_t n)
{
	f->sh->lies += n < 0;
	if (n < 0)
		errno = EIO;
	return n;
}

/* The last byte once more. */
static ssize_t double_one(struct fuzz *f, const struct call *c, ssize_t n)
{
	if (n > 0 && c->kind == WRITE)
		f->sh->lies += write(c->out, c->iov[0].iov_base, 1) == 1;
	return n;
}

/* The first byte becomes the last one. */
static ssize_t rotate(struct fuzz *f, const struct call *c, ssize_t n)
{
	struct mpipe *p = pipe_behind(f, c->out);
	struct pollfd room = { .fd = c->out, .events = POLLOUT };
	char byte;

	if (n > 0 && p && p->r >= 0 && poll(&room, 1, 0) == 1 &&
	    read(p->r, &byte, 1) == 1)
		f->sh->lies += write(p->w, &byte, 1) == 1;
	return n;
}

/* It comes from another pipe. */
static bool confuse_pipes(struct fuzz *f, struct call *c)
{
	struct mpipe *p = pipe_behind(f, c->in), *q;

	q = &f->pipe[pick(f, NR_PIPES)];
	if (!p || q->r < 0 || q->w == c->out || q == p)
		return false;
	f->sh->lies++;
	c->in = q->r;
	return true;
}

/* What is given stays where it is, and is seen by both. */
static bool share_given(struct fuzz *f, struct call *c)
{
	if (c->kind != GIVE)
		return false;
	f->sh->lies++;
	c->flags &= SPLICE_F_NONBLOCK;
	return true;
}

/* What was given is overwritten instead of left or taken away. */
static ssize_t spoil_given(struct fuzz *f, const struct call *c, ssize_t n)
{
	if (is_give(c->kind) && n >= PAGE) {
		f->sh->lies++;
		*(char *)c->iov[0].iov_base ^= 1;
	}
	return n;
}

static ssize_t spoil_arrived(struct fuzz *f, const struct call *c, ssize_t n)
{
	if (n > 0 && c->kind >= READ && c->kind <= TAKE_STRICT &&
	    c->iov[0].iov_len) {
		f->sh->lies++;
		*(char *)c->iov[0].iov_base ^= 1;
	}
	return n;
}

/* The byte behind what arrived; also one that only a later look can find. */
static ssize_t spoil_behind(struct fuzz *f, const struct call *c, ssize_t n)
{
	char *byte;

	if (n <= 0 || c->kind < READ || c->kind > TAKE_STRICT)
		return n;
	byte = (char *)c->iov[0].iov_base + n;
	if ((size_t)n < c->iov[0].iov_len &&
	    f->prot[(byte - f->mem) / PAGE] == (PROT_READ | PROT_WRITE)) {
		f->sh->lies++;
		*byte ^= 1;
	}
	return n;
}

static bool is_to_file(enum kind k)
{
	return k == PIPE_TO_FILE || k == SENDFILE || k == COPY_RANGE;
}

static off_t behind_output(const struct call *c)
{
	return c->off_out ? *c->off_out : position(c->out);
}

static ssize_t spoil_file(struct fuzz *f, const struct call *c, ssize_t n)
{
	char byte;

	if (n > 0 && is_to_file(c->kind) &&
	    pread(c->out, &byte, 1, behind_output(c) - n) == 1) {
		byte ^= 1;
		f->sh->lies += pwrite(c->out, &byte, 1, behind_output(c) - n) ==
			       1;
	}
	return n;
}

static ssize_t grow_file(struct fuzz *f, const struct call *c, ssize_t n)
{
	if (n > 0 && is_to_file(c->kind))
		f->sh->lies += !ftruncate(c->out, file_size(c->out) + 1);
	return n;
}

static ssize_t move_position(struct fuzz *f, const struct call *c, ssize_t n)
{
	if (n > 0 && is_to_file(c->kind))
		f->sh->lies += lseek(c->out, 1, SEEK_CUR) > 0;
	return n;
}

/* Somebody keeps what is in the pipe, whatever becomes of it. */
static ssize_t keep_given(struct fuzz *f, const struct call *c, ssize_t n)
{
	int fds[2];

	if (!is_give(c->kind) || n < PAGE || pipe_behind(f, c->out)->r < 0 ||
	    pipe(fds))
		return n;
	if (tee(pipe_behind(f, c->out)->r, fds[1], PAGE, 0) > 0 && !fork()) {
		close_range(3, fds[0] - 1, 0);
		close_range(fds[0] + 1, ~0U, 0);
		sleep(1);
		_exit(0);
	}
	f->sh->lies++;
	close(fds[0]);
	close(fds[1]);
	return n;
}

static const struct lie lies[] = {
	{ "a byte lost", .after = lose_one },
	{ "a byte too many", .after = invent_one },
	{ "another error", .after = other_error },
	{ "refused for nothing", .skip = true, .told = -EAGAIN },
	{ "ended too early", .skip = true },
	{ "a byte doubled", .after = double_one },
	{ "order changed", .after = rotate },
	{ "from another pipe", .before = confuse_pipes },
	{ "shared, not given", .before = share_given, .flip = true },
	{ "given memory spoilt", .after = spoil_given, .flip = true },
	{ "spoilt on arrival", .after = spoil_arrived },
	{ "spoilt behind", .after = spoil_behind },
	{ "spoilt in a file", .after = spoil_file },
	{ "file grown", .after = grow_file },
	{ "position moved", .after = move_position },
	{ "kept in flight", .after = keep_given, .flip = true },
	{ "child sees a store", .on_child = true },
};

/* ---- The tests of one thread ---- */

static unsigned long number_from(const char *variable, unsigned long otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

static unsigned long first_seed(void)
{
	return number_from("SPLICE_FUZZ_SEED",
			   (time(NULL) * 1000003UL ^ getpid()) % 1000000000);
}

static struct shared *new_shared(void)
{
	void *mem = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* In a process of its own: 0, or not with shared.why set. */
static int try_program(struct shared *sh, uint64_t seed, bool limited,
		       const struct lie *lie)
{
	const long before = flip_in_flight(0, 1000);
	struct fuzz *f;
	long left;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork_child();
	if (!pid) {
		f = calloc(1, sizeof(*f));
		f->sh = sh;
		f->seed = seed;
		f->limited = limited;
		f->lie = lie;
		run_program(f, number_from("SPLICE_FUZZ_STEPS", 400));
	}
	status = reap(pid);
	sh->programs++;
	left = status ? 0 : flip_in_flight(before, lie ? 300 : 5000) - before;
	if (left) {
		snprintf(sh->why, sizeof(sh->why), "seed %lu: %ld in flight",
			 (unsigned long)seed, left);
		return 1;
	}
	if (status && !sh->why[0])
		snprintf(sh->why, sizeof(sh->why), "seed %lu: status %d",
			 (unsigned long)seed, status);
	return status;
}

/* How often each kind ran, and what it moved. */
static void print_calls(const struct shared *sh)
{
	char line[160] = "";
	int n = 0;
	enum kind k;

	printf("# %lu programs, %lu steps; KiB compared %lu, not %lu\n",
	       sh->programs, sh->steps, sh->checked / KIB, sh->loose / KIB);
	for (k = 0; k < NR_KINDS; k++) {
		if (!sh->calls[k])
			continue;
		n += snprintf(line + n, sizeof(line) - n, " %s %lu",
			      kind_names[k], sh->calls[k]);
		if (k < NR_MOVERS)
			n += snprintf(line + n, sizeof(line) - n, "/%lu %luK",
				      sh->moved[k], sh->bytes[k] / KIB);
		if (n > 60 || k == NR_KINDS - 1) {
			printf("#%s\n", line);
			n = 0;
			line[0] = 0;
		}
	}
	if (n)
		printf("#%s\n", line);
}

FIXTURE(model)
{
	struct shared *sh;
};

FIXTURE_VARIANT(model)
{
	/* An ordinary user, for whom there are limits. */
	bool limited;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(model, root) { .limited = false };
FIXTURE_VARIANT_ADD(model, user) { .limited = true };
/* clang-format on */

FIXTURE_SETUP(model)
{
	if (geteuid())
		SKIP(return, "needs root");
	self->sh = new_shared();
	ASSERT_NE(NULL, self->sh);
	/* Where there is no such size, there are small pages instead. */
	mem_kind_set(MEM_64K);
}

FIXTURE_TEARDOWN(model)
{
	EXPECT_EQ(0, undo_now());
}

/* Where a kind never moves anything, programs do not test what they should. */
#define STEPS_FOR_ALL 20000

TEST_F_TIMEOUT(model, programs, 3600)
{
	const time_t end = time(NULL) + number_from("SPLICE_FUZZ_SECONDS", 4);
	uint64_t seed = first_seed();
	enum kind k;
	int status = 0;

	TH_LOG("SPLICE_FUZZ_SEED=%lu", (unsigned long)seed);
	do {
		status = try_program(self->sh, seed++, variant->limited, NULL);
	} while (!status && time(NULL) < end);
	print_calls(self->sh);
	EXPECT_STREQ("", self->sh->why);
	EXPECT_EQ(0, status);
	for (k = 0; k < NR_MOVERS && self->sh->steps > STEPS_FOR_ALL; k++) {
		if ((needs_flip(k) && !flip_available()) ||
		    (needs_ring(k) && !self->sh->ringed))
			continue;
		EXPECT_LT(0UL, self->sh->moved[k])
		{
			TH_LOG("%s never moved a byte", kind_names[k]);
		}
	}
}

/* A kernel that does it wrong is found.  Each variant is told half of the lies. */
TEST_F_TIMEOUT(model, liar, 900)
{
	const long before = flip_in_flight(0, 1000);
	uint64_t seed = first_seed();
	unsigned int i, tries;

	for (i = variant->limited; i < ARRAY_SIZE(lies); i += 2) {
		if (lies[i].flip && !flip_available())
			continue;
		memset(self->sh, 0, sizeof(*self->sh));
		for (tries = 0; tries < 60 && !self->sh->why[0]; tries++)
			try_program(self->sh, seed++, variant->limited,
				    &lies[i]);
		TH_LOG("%s: told %u, program %u: %s", lies[i].name,
		       self->sh->lies, tries, self->sh->why);
		EXPECT_LT(0U, self->sh->lies);
		EXPECT_STRNE("", self->sh->why);
		ASSERT_EQ(before, flip_in_flight(before, 5000));
	}
}

/* ---- Streams of words, many threads ---- */

#define NR_STREAMS 3
/* Pipes that each stream goes through. */
#define NR_HOPS 3
#define CHUNK_MAX (PMD + 64 * PAGE)
/* Words of these are written over what was given and what was taken. */
#define AFTER_GIVE 0x41
#define AFTER_TAKE 0x42

/* A word: stream 8 bits, number 40, check 16.  None of them is zero. */
static uint64_t make_word(unsigned int stream, uint64_t nr)
{
	const uint64_t w = (uint64_t)(stream + 1) << 56 | nr << 16;

	return w | (w ^ w >> 29) * 0xd6e8feb86659fd93ULL >> 48;
}

/* Bytes of a stream from any one of them on. */
static void fill_stream(void *buf, size_t len, unsigned int stream,
			uint64_t pos)
{
	char *p = buf;
	size_t n;

	for (; len; len -= n, p += n, pos += n) {
		const uint64_t w = make_word(stream, pos / 8);

		n = min_size(8 - pos % 8, len);
		memcpy(p, (const char *)&w + pos % 8, n);
	}
}

/* Index of the first word that is wrong, -1: none. */
static ssize_t check_stream(const void *buf, size_t len, unsigned int stream,
			    uint64_t pos)
{
	char want[PAGE];
	size_t n, done, i;

	for (done = 0; done < len; done += n) {
		n = min_size(len - done, PAGE);
		fill_stream(want, n, stream, pos + done);
		if (!memcmp(want, (const char *)buf + done, n))
			continue;
		for (i = 0; want[i] == ((const char *)buf)[done + i]; i++)
			;
		return done + i;
	}
	return -1;
}

/* What a producer, a mover and a consumer can do. */
enum way {
	MAKE_WRITE,
	MAKE_VMSPLICE,
	MAKE_GIVE,
	MOVE_SPLICE,
	MOVE_SOCK,
	MOVE_TEE,
	MOVE_READ,
	MOVE_RING,
	MOVE_TAKE,
	USE_READ,
	USE_VMREAD,
	USE_FILE,
	USE_SOCK,
	USE_TAKE,
	NR_WAYS,
};

static const char *const way_names[] = {
	[MAKE_WRITE] = "write",	      [MAKE_VMSPLICE] = "vmsplice",
	[MAKE_GIVE] = "give",	      [MOVE_SPLICE] = "splice",
	[MOVE_SOCK] = "through-sock", [MOVE_TEE] = "tee-and-drop",
	[MOVE_READ] = "read-write",   [MOVE_RING] = "uring-splice",
	[MOVE_TAKE] = "take-give",    [USE_READ] = "read",
	[USE_VMREAD] = "vmsplice",    [USE_FILE] = "splice-file",
	[USE_SOCK] = "splice-sock",   [USE_TAKE] = "take",
};

/* What a thread could do wrong. */
enum stream_lie { NO_LIE, LOSE_WORD, DOUBLE_WORD, OTHER_STREAM, KEEP_SHARING };

/* Shared by the two processes. */
struct flow {
	atomic_bool stop, failing, failed;
	char why[160];
	unsigned int seed;
	bool flip;
	enum stream_lie lie;
	int fds[NR_STREAMS][NR_HOPS][2];
	/* Of those who only look. */
	int look[NR_STREAMS * NR_HOPS];
	atomic_ulong made[NR_STREAMS], arrived[NR_STREAMS];
	atomic_ulong by[NR_WAYS];
	atomic_ulong looked, resized, forked;
};

struct worker {
	struct flow *flow;
	unsigned int rng;
	unsigned int stream, hop;
	int in, out;
	char *mem;
	int sv[2], file, sink, aside[2];
	struct uring ring;
	bool ringed;
	pthread_t thread;
};

/* The first one to fail says why; whoever else does waits until that is said. */
static __noreturn __printf(2, 3) void stream_fail(struct worker *w,
						  const char *form, ...)
{
	struct flow *f = w->flow;
	va_list args;
	int n;

	if (atomic_exchange(&f->failing, true)) {
		for (n = 0; n < 10000 && !f->failed; n++)
			usleep(1000);
	} else {
		n = snprintf(f->why, sizeof(f->why),
			     "stream %u, hop %u: ", w->stream, w->hop);
		va_start(args, form);
		vsnprintf(f->why + n, sizeof(f->why) - n, form, args);
		va_end(args);
		f->failed = true;
	}
	_exit(1);
}

static unsigned int choose(struct worker *w, unsigned int below)
{
	return rand_r(&w->rng) % below;
}

static size_t choose_len(struct worker *w)
{
	switch (choose(w, 8)) {
	case 0:
		return PMD;
	case 1:
		return PAGE * (1 + choose(w, 300));
	case 2:
		return 1 + choose(w, 100);
	case 3:
		return 1 + choose(w, 200000);
	default:
		return PAGE * (1 + choose(w, 16));
	}
}

static bool does_lie(struct worker *w, enum stream_lie lie)
{
	return w->flow->lie == lie && !choose(w, 8);
}

/* A count, or the end; nothing else is explained by what the others do. */
static size_t must(struct worker *w, ssize_t n, const char *what)
{
	if (n < 0)
		stream_fail(w, "%s: %s", what, strerror(errno));
	return n;
}

static void make(struct worker *w, enum way how, size_t len)
{
	const unsigned int flags = how == MAKE_GIVE &&
						   !does_lie(w, KEEP_SHARING) ?
					   SPLICE_F_GIFT | SPLICE_F_MOVE :
					   0;
	size_t n, done = 0;

	for (; done < len; done += n) {
		struct iovec iov = { w->mem + done, len - done };

		if (how == MAKE_WRITE)
			n = must(w, writev(w->out, &iov, 1), "write");
		else
			n = must(w, vmsplice(w->out, &iov, 1, flags), "give");
	}
	/* What is shared stays as it is; what was given is nobody's business. */
	if (how == MAKE_VMSPLICE)
		madvise(w->mem, CHUNK_MAX, MADV_DONTNEED);
	else if (choose(w, 2))
		fill_stream(w->mem, len, AFTER_GIVE, 0);
}

static enum way choose_way(struct worker *w, enum way from, enum way last)
{
	enum way way = from + choose(w, last - from + 1);

	if (!w->flow->flip &&
	    (way == MAKE_GIVE || way == MOVE_TAKE || way == USE_TAKE))
		return from;
	return way == MOVE_RING && !w->ringed ? from : way;
}

static void *produce(void *arg)
{
	struct worker *w = arg;
	uint64_t pos = 0;

	while (!w->flow->stop) {
		const enum way way = choose_way(w, MAKE_WRITE, MAKE_GIVE);
		const size_t len = choose_len(w);

		fill_stream(w->mem, len, w->stream, pos);
		make(w, way, len);
		pos += len;
		w->flow->made[w->stream] = pos;
		w->flow->by[way] += len;
	}
	close(w->out);
	return NULL;
}

static void write_out(struct worker *w, const char *buf, size_t len)
{
	if (write_all(w->out, buf, len))
		stream_fail(w, "write: %s", strerror(errno));
}

/* All of what is @from, which must come. */
static void pass_all(struct worker *w, int from, int to, size_t len)
{
	size_t n;

	for (; len; len -= n) {
		n = must(w, splice(from, NULL, to, NULL, len, 0), "splice");
		if (!n)
			stream_fail(w, "the end, %zu bytes too early", len);
	}
}

static size_t move_by_sock(struct worker *w, size_t len)
{
	/* Less than a socket takes, whatever the overhead. */
	const size_t n = must(w,
			      splice(w->in, NULL, w->sv[0], NULL,
				     min_size(len, 16 * KIB), 0),
			      "to sock");

	pass_all(w, w->sv[1], w->out, n);
	return n;
}

/* Tee, and drop as much: the next ones to come follow. */
static size_t move_by_tee(struct worker *w, size_t len)
{
	const size_t n = must(w, tee(w->in, w->out, len, 0), "tee");

	pass_all(w, w->in, w->sink, n);
	return n;
}

static size_t move_by_mem(struct worker *w, enum way how, size_t len)
{
	size_t n, m, done;

	if (how == MOVE_READ) {
		n = must(w, read(w->in, w->mem, len), "read");
		write_out(w, w->mem, n);
		return n;
	}
	n = must(w, take(w->in, w->mem, len, 0), "take");
	for (done = 0; done < n; done += m)
		m = must(w, give(w->out, w->mem + done, n - done, 0), "give");
	return n;
}

static size_t move_by_ring(struct worker *w, size_t len)
{
	struct call c = { .in = w->in, .out = w->out, .len = len };

	return must(w, by_uring(&w->ring, IORING_OP_SPLICE, &c), "io_uring");
}

static size_t move(struct worker *w, enum way how, size_t len)
{
	switch (how) {
	case MOVE_SOCK:
		return move_by_sock(w, len);
	case MOVE_TEE:
		return move_by_tee(w, len);
	case MOVE_RING:
		return move_by_ring(w, len);
	case MOVE_READ:
	case MOVE_TAKE:
		return move_by_mem(w, how, len);
	default:
		return must(w, splice(w->in, NULL, w->out, NULL, len, 0),
			    "splice");
	}
}

static void lie_about_stream(struct worker *w)
{
	const struct flow *f = w->flow;
	uint64_t word;

	if (does_lie(w, LOSE_WORD))
		must(w, read(w->in, &word, 8), "lie");
	if (does_lie(w, DOUBLE_WORD) && read(w->in, &word, 8) == 8) {
		write_out(w, (char *)&word, 8);
		write_out(w, (char *)&word, 8);
	}
	if (does_lie(w, OTHER_STREAM)) {
		const int other =
			f->fds[(w->stream + 1) % NR_STREAMS][w->hop - 1][0];

		if (read(other, &word, 8) == 8)
			write_out(w, (char *)&word, 8);
	}
}

static void *move_on(void *arg)
{
	struct worker *w = arg;
	enum way way;
	size_t n;

	do {
		if (w->flow->lie)
			lie_about_stream(w);
		way = choose_way(w, MOVE_SPLICE, MOVE_TAKE);
		n = move(w, way, choose_len(w));
		w->flow->by[way] += n;
	} while (n);
	close(w->out);
	return NULL;
}

/* Into memory, by way of what else there is. */
static size_t use(struct worker *w, enum way how, size_t len)
{
	struct iovec iov = { w->mem, len };
	size_t n;

	switch (how) {
	case USE_READ:
		return must(w, read(w->in, w->mem, len), "read");
	case USE_VMREAD:
		return must(w, vmsplice(w->in, &iov, 1, 0), "vmsplice");
	case USE_TAKE:
		return must(w, take(w->in, w->mem, len, 0), "take");
	case USE_SOCK:
		n = must(w,
			 splice(w->in, NULL, w->sv[0], NULL,
				min_size(len, 16 * KIB), 0),
			 "to sock");
		if (read_all(w->sv[1], w->mem, n))
			stream_fail(w, "read: %s", strerror(errno));
		return n;
	default:
		lseek(w->file, choose(w, 2 * PAGE), SEEK_SET);
		n = must(w, splice(w->in, NULL, w->file, NULL, len, 0), "file");
		if (pread(w->file, w->mem, n, position(w->file) - n) !=
		    (ssize_t)n)
			stream_fail(w, "pread: %s", strerror(errno));
		return n;
	}
}

static void check_words(struct worker *w, const char *buf, size_t len,
			uint64_t pos, const char *how)
{
	const ssize_t bad = check_stream(buf, len, w->stream, pos);
	uint64_t got = 0;
	ssize_t from;

	if (bad < 0)
		return;
	from = bad - (ssize_t)((pos + bad) % 8);
	if (from < 0)
		from = bad;
	memcpy(&got, buf + from, min_size(8, len - from));
	stream_fail(w, "%s, byte %#llx: word %#llx, not %#llx", how,
		    (unsigned long long)pos + bad, (unsigned long long)got,
		    (unsigned long long)make_word(w->stream, (pos + bad) / 8));
}

static void *consume(void *arg)
{
	struct worker *w = arg;
	uint64_t pos = 0;
	enum way way;
	size_t n;

	do {
		way = choose_way(w, USE_READ, USE_TAKE);
		n = use(w, way, choose_len(w));
		check_words(w, w->mem, n, pos, way_names[way]);
		/* Nobody sees this, unless something is shared still. */
		if (choose(w, 2))
			fill_stream(w->mem, n, AFTER_TAKE, 0);
		else if (!choose(w, 4))
			madvise(w->mem, CHUNK_MAX, MADV_DONTNEED);
		pos += n;
		w->flow->by[way] += n;
	} while (n);
	w->flow->arrived[w->stream] = pos;
	return NULL;
}

/* Find out where in a stream this is; a word is in the first 15 bytes. */
static bool find_place(struct worker *w, const char *buf, uint64_t *pos)
{
	unsigned int i;
	uint64_t word;

	for (i = 0; i < 8; i++) {
		memcpy(&word, buf + i, 8);
		*pos = (word << 8 >> 24) * 8;
		if (word == make_word(w->stream, *pos / 8) && *pos >= i) {
			*pos -= i;
			return true;
		}
	}
	return false;
}

/* What tee() gets is a piece of the stream as well. */
static void look_into(struct worker *w)
{
	const unsigned int nr = choose(w, NR_STREAMS * NR_HOPS);
	uint64_t pos;
	ssize_t n = tee(w->flow->look[nr], w->aside[1], CHUNK_MAX,
			SPLICE_F_NONBLOCK);

	w->stream = nr / NR_HOPS;
	w->hop = nr % NR_HOPS;
	if (n < 0 && errno != EAGAIN)
		stream_fail(w, "tee: %s", strerror(errno));
	if (n <= 0)
		return;
	if (read_all(w->aside[0], w->mem, n))
		stream_fail(w, "read of what was teed: %s", strerror(errno));
	w->flow->looked += n;
	if (n < 16)
		return;
	if (!find_place(w, w->mem, &pos))
		stream_fail(w, "tee saw %#llx", *(unsigned long long *)w->mem);
	check_words(w, w->mem, n, pos, "tee");
}

static void change_size(struct worker *w)
{
	const int fd = w->flow->look[choose(w, NR_STREAMS * NR_HOPS)];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fcntl(fd, F_SETPIPE_SZ, PAGE << choose(w, 7)) < 0 && errno != EBUSY)
		stream_fail(w, "resize: %s", strerror(errno));
	w->flow->resized++;
	if (bytes_queued(fd) < 0 || poll(&p, 1, 0) < 0 || p.revents & POLLERR)
		stream_fail(w, "poll: %x", p.revents);
}

static void *look_on(void *arg)
{
	struct worker *w = arg;

	while (!w->flow->stop) {
		look_into(w);
		if (!choose(w, 4))
			change_size(w);
		if (!choose(w, 4))
			usleep(choose(w, 3000));
	}
	return NULL;
}

/* Pages that a child has too are copied, and large folios come and go. */
static void *breed_on(void *arg)
{
	static const int advices[] = { MADV_COLLAPSE, MADV_HUGEPAGE,
				       MADV_NOHUGEPAGE, MADV_COLD };
	struct worker *w = arg, *other;
	pid_t pid;

	while (!w->flow->stop) {
		/* Of a worker of the same process. */
		other = w - 1 - choose(w, w->hop);
		madvise(other->mem, PMD, advices[choose(w, 4)]);
		usleep(choose(w, 20000));
		if (choose(w, 8))
			continue;
		pid = fork();
		if (!pid)
			_exit(0);
		if (pid > 0 && reap(pid))
			stream_fail(w, "the child ended");
		w->flow->forked++;
	}
	return NULL;
}

static void start(struct worker *w, void *(*run)(void *))
{
	static unsigned int nr;

	w->rng = w->flow->seed + ++nr;
	w->mem = map_mem(CHUNK_MAX);
	w->sink = open("/dev/null", O_WRONLY);
	w->file = backing_file(BACKING_MEMFD);
	w->ringed = !uring_open(&w->ring);
	if (!w->mem || unix_pair(w->sv) || pipe_of(w->aside, 256) ||
	    w->sink < 0 || w->file < 0)
		stream_fail(w, "no worker: %s", strerror(errno));
	if (choose(w, 2))
		madvise(w->mem, PMD, MADV_HUGEPAGE);
	if (pthread_create(&w->thread, NULL, run, w))
		stream_fail(w, "no thread");
}

static void close_end_of(struct flow *f, unsigned int hop, unsigned int end)
{
	unsigned int i;

	for (i = 0; i < NR_STREAMS; i++)
		close(f->fds[i][hop][end]);
}

/* The process that the words are of. */
static void run_producers(struct flow *f)
{
	struct worker w[NR_STREAMS + 1] = { 0 };
	unsigned int i;

	for (i = 1; i < NR_HOPS; i++)
		close_end_of(f, i, 1);
	for (i = 0; i <= NR_STREAMS; i++) {
		w[i].flow = f;
		w[i].stream = i;
		w[i].hop = i == NR_STREAMS ? NR_STREAMS : 0;
		w[i].out = i == NR_STREAMS ? -1 : f->fds[i][0][1];
		start(&w[i], i == NR_STREAMS ? breed_on : produce);
	}
	for (i = 0; i <= NR_STREAMS; i++)
		pthread_join(w[i].thread, NULL);
	_exit(0);
}

#define NR_RECEIVERS (NR_STREAMS * NR_HOPS)

/* The one that they go to, through its other threads. */
static void run_receivers(struct flow *f)
{
	struct worker w[NR_RECEIVERS + 2] = { 0 };
	unsigned int i;

	close_end_of(f, 0, 1);
	for (i = 0; i < NR_RECEIVERS; i++) {
		w[i].flow = f;
		w[i].stream = i / NR_HOPS;
		w[i].hop = i % NR_HOPS + 1;
		w[i].in = f->fds[w[i].stream][w[i].hop - 1][0];
		if (w[i].hop == NR_HOPS) {
			start(&w[i], consume);
			continue;
		}
		w[i].out = f->fds[w[i].stream][w[i].hop][1];
		start(&w[i], move_on);
	}
	w[i].flow = f;
	w[i + 1].flow = f;
	w[i].hop = NR_RECEIVERS;
	start(&w[i], breed_on);
	start(&w[i + 1], look_on);
	for (i = 0; i < NR_RECEIVERS + 2; i++)
		pthread_join(w[i].thread, NULL);
	_exit(0);
}

static int open_pipes(struct flow *f)
{
	unsigned int i, j;

	for (i = 0; i < NR_STREAMS; i++)
		for (j = 0; j < NR_HOPS; j++) {
			if (pipe(f->fds[i][j]))
				return -1;
			f->look[i * NR_HOPS + j] = dup(f->fds[i][j][0]);
		}
	return 0;
}

static void close_pipes(struct flow *f)
{
	unsigned int i;

	for (i = 0; i < NR_HOPS; i++) {
		close_end_of(f, i, 0);
		close_end_of(f, i, 1);
	}
	for (i = 0; i < NR_RECEIVERS; i++)
		close(f->look[i]);
}

/*
 * Until one is done or has failed; both must be, soon after the stop.  On a busy
 * machine it goes on until somebody has looked, a minute at most.
 */
static int run_flow(struct flow *f, unsigned int seconds)
{
	pid_t pid[2];
	unsigned int i;
	int status;

	fflush(stdout);
	pid[0] = fork_child();
	if (!pid[0])
		run_producers(f);
	pid[1] = fork_child();
	if (!pid[1])
		run_receivers(f);
	close_pipes(f);
	for (i = 0; i < 10 * seconds || (!f->looked && i < 600); i++) {
		if (f->failed)
			break;
		usleep(100000);
	}
	f->stop = true;
	if (f->failed)
		kill(pid[0], SIGKILL);
	status = reap(pid[1]);
	kill(pid[0], f->failed || status ? SIGKILL : 0);
	return status | reap(pid[0]);
}

static struct flow *new_flow(unsigned int seed, enum stream_lie lie)
{
	struct flow *f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (f == MAP_FAILED)
		return NULL;
	f->seed = seed;
	f->lie = lie;
	f->flip = flip_available();
	return open_pipes(f) ? NULL : f;
}

static void print_flow(const struct flow *f)
{
	unsigned int i;

	printf("# MiB of each way:");
	for (i = 0; i < NR_WAYS; i++)
		printf(" %s %lu", way_names[i], f->by[i] / MIB);
	printf("\n# looked at %lu, sizes %lu, forks %lu\n", f->looked / MIB,
	       f->resized, f->forked);
}

FIXTURE(streams)
{
	long in_flight;
};

FIXTURE_SETUP(streams)
{
	if (geteuid())
		SKIP(return, "needs root");
	self->in_flight = flip_in_flight(0, 1000);
}

FIXTURE_TEARDOWN(streams)
{
	EXPECT_EQ(self->in_flight, flip_in_flight(self->in_flight, 5000));
}

TEST_F_TIMEOUT(streams, arrive, 3600)
{
	struct flow *f = new_flow(first_seed(), NO_LIE);
	unsigned int i;

	ASSERT_NE(NULL, f);
	TH_LOG("SPLICE_FUZZ_SEED=%u", f->seed);
	EXPECT_EQ(0, run_flow(f, number_from("SPLICE_FUZZ_SECONDS", 4)));
	EXPECT_STREQ("", f->why);
	print_flow(f);
	for (i = 0; i < NR_STREAMS; i++) {
		EXPECT_LT(0UL, f->made[i]);
		EXPECT_EQ(f->made[i], f->arrived[i]);
	}
	EXPECT_LT(0UL, f->looked);
}

/*
 * A word that is lost, doubled or of another stream is found.  Each run ends with
 * that, which takes long on a busy machine.
 */
TEST_F_TIMEOUT(streams, liar, 3600)
{
	enum stream_lie lie;
	struct flow *f;

	for (lie = LOSE_WORD; lie <= KEEP_SHARING; lie++) {
		if (lie == KEEP_SHARING && !flip_available())
			continue;
		f = new_flow(first_seed(), lie);
		ASSERT_NE(NULL, f);
		EXPECT_NE(0, run_flow(f, 600));
		TH_LOG("lie %d: %s", lie, f->why);
		EXPECT_NE(NULL, strstr(f->why, "word"));
	}
}

/* ---- What programs have found ---- */

FIXTURE(found)
{
	int fds[2];
	int out[2];
};

FIXTURE_VARIANT(found)
{
	bool socket;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(found, file) { .socket = false };
FIXTURE_VARIANT_ADD(found, socket) { .socket = true };
/* clang-format on */

FIXTURE_SETUP(found)
{
	ASSERT_EQ(0, pipe(self->fds));
	if (variant->socket) {
		ASSERT_EQ(0, unix_pair(self->out));
		return;
	}
	self->out[0] = backing_file(BACKING_MEMFD);
	ASSERT_LE(0, self->out[0]);
	self->out[1] = dup(self->out[0]);
}

FIXTURE_TEARDOWN(found)
{
}

#define NR_WRITES 8000

/*
 * Interrupts the reader, on the same processor, wherever it has come to some
 * time after the last byte: one of them after it has found the pipe empty.
 */
static void *write_bytes(void *arg)
{
	const struct sched_param first = { .sched_priority = 1 };
	const int fd = *(int *)arg;
	unsigned int i;

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	for (i = 0; i < NR_WRITES; i++) {
		const struct timespec wait = { .tv_nsec = i * 499 % 150000 };

		nanosleep(&wait, NULL);
		if (write(fd, "", 1) != 1)
			break;
	}
	close(fd);
	return NULL;
}

/* It waits for what comes, and refuses nothing, with whoever at the other end. */
TEST_F(found, splice_waits)
{
	unsigned long sum = 0;
	pthread_t writer;
	char buf[KIB];
	ssize_t n;

	signal(SIGPIPE, SIG_IGN);
	ASSERT_EQ(0, stay_on_cpu());
	ASSERT_EQ(0, pthread_create(&writer, NULL, write_bytes, &self->fds[1]));
	do {
		n = splice(self->fds[0], NULL, self->out[0], NULL, KIB, 0);
		EXPECT_LE(0, n)
		{
			TH_LOG("after %lu bytes: %s", sum, strerror(errno));
		}
		if (n > 0 && variant->socket)
			EXPECT_EQ(0, read_all(self->out[1], buf, n));
		sum += n > 0 ? n : 0;
	} while (n > 0);
	close(self->fds[0]);
	ASSERT_EQ(0, pthread_join(writer, NULL));
	EXPECT_EQ((unsigned long)NR_WRITES, sum);
}

TEST_HARNESS_MAIN
