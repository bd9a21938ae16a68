// SPDX-License-Identifier: GPL-2.0-only
/* Faults in the calls of a test; splice_fault.h has what this is for. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Other C libraries register nothing. */
#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 35)
#include <sys/rseq.h>
#endif
#endif

#include "splice_fault.h"

#define DEBUGFS "/sys/kernel/debug/"
#define FAIL_NTH "/proc/thread-self/fail-nth"

/* Out of the way of tests that know which descriptor is next. */
#define FAR 1000

/* What the calls cut a length to. */
#define MAX_COUNT (INT_MAX & ~4095UL)

/* Each fault up to here, then ever larger steps: large calls have thousands. */
#define EACH 256

/* Calls that none of which met a fault are a sweep of nothing. */
#define FAULTLESS 100

static const struct {
	const char *name;
	const char *dir;
} kinds[] = {
	{ "slab", "failslab" },
	{ "page", "fail_page_alloc" },
	{ "usercopy", "fail_usercopy" },
};

#define NR_KINDS (sizeof(kinds) / sizeof(*kinds))

/*
 * fail-nth counts whatever gets as far as to ask whether it is to fail.  What
 * keeps slabs and pages from that is of their own; for copies it is the filter
 * that wants a caller in a range of addresses, which no kernel has to have.
 */
static struct knob {
	const char *path;
	unsigned int kind; /* 0: the same whatever is chosen */
	const char *yes;
	const char *no;
	char was[32];
} knobs[] = {
	{ "failslab/verbose", 0, "0", NULL, "" },
	{ "failslab/ignore-gfp-wait", 0, "N", NULL, "" },
	{ "failslab/cache-filter", FAULT_SLAB, "N", "Y", "" },
	{ "fail_page_alloc/verbose", 0, "0", NULL, "" },
	{ "fail_page_alloc/ignore-gfp-wait", 0, "N", NULL, "" },
	{ "fail_page_alloc/ignore-gfp-highmem", 0, "N", NULL, "" },
	{ "fail_page_alloc/min-order", FAULT_PAGE, "0", "63", "" },
	{ "fail_usercopy/verbose", 0, "0", NULL, "" },
	{ "fail_usercopy/stacktrace-depth", 0, "0", NULL, "" },
	{ "fail_usercopy/require-start", FAULT_USERCOPY, "0", "1", "" },
};

#define NR_KNOBS (sizeof(knobs) / sizeof(*knobs))

bool faults_available(void)
{
	return !access(FAIL_NTH, W_OK) && !access(DEBUGFS "failslab", X_OK) &&
	       !access(DEBUGFS "fail_page_alloc", X_OK);
}

static int knob_open(const struct knob *k, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s", k->path);
	return open(path, flags | O_CLOEXEC);
}

static int knob_set(const struct knob *k, const char *value)
{
	const ssize_t len = strlen(value);
	int fd = knob_open(k, O_WRONLY), err;

	if (fd < 0)
		return -1;
	err = syscall(SYS_write, fd, value, len) == len ? 0 : -1;
	close(fd);
	return err;
}

static void knob_keep(struct knob *k)
{
	int fd = knob_open(k, O_RDONLY);

	if (fd >= 0 && !*k->was &&
	    syscall(SYS_read, fd, k->was, sizeof(k->was) - 1) <= 0)
		*k->was = '\0';
	close(fd);
}

int faults_choose(unsigned int chosen)
{
	size_t i;

	for (i = 0; i < NR_KNOBS; i++) {
		struct knob *k = &knobs[i];
		const char *value = k->yes;

		if (!chosen) {
			knob_set(k, k->was);
			continue;
		}
		knob_keep(k);
		if (k->kind && !(chosen & k->kind))
			value = k->no;
		if (knob_set(k, value) && k->kind)
			chosen |= k->kind;
	}
	return chosen;
}

/*
 * The file is that of the thread that opens it.  A read of it, and a write, may
 * be the copy that fails.
 */
static int arm_open(void)
{
	int low = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	int fd = syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, FAR);

	if (fd < 0)
		return low;
	close(low);
	return fd;
}

static int arm(int fd, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	return pwrite(fd, text, len, 0) == len ? 0 : -1;
}

static bool disarm(int fd)
{
	char text[16] = "";
	const bool fired = pread(fd, text, sizeof(text) - 1, 0) > 0 &&
			   text[0] == '0';

	while (arm(fd, 0))
		;
	return fired;
}

static __thread int armed = -1;

int fault_arm(unsigned int nth)
{
	armed = arm_open();
	if (armed < 0)
		return -1;
	return arm(armed, nth);
}

bool fault_fired(void)
{
	const int err = errno;
	const bool fired = disarm(armed);

	close(armed);
	errno = err;
	return fired;
}

/*
 * The sweep of every call.
 */
enum op {
	OP_COPY_FILE_RANGE,
	OP_PIPE,
	OP_READ,
	OP_RESIZE,
	OP_SENDFILE,
	OP_SPLICE,
	OP_TEE,
	OP_VMSPLICE,
	OP_WRITE,
	NR_OPS,
};

static const char *const op_names[] = {
	[OP_COPY_FILE_RANGE] = "copy_file_range",
	[OP_PIPE] = "pipe",
	[OP_READ] = "read",
	[OP_RESIZE] = "F_SETPIPE_SZ",
	[OP_SENDFILE] = "sendfile",
	[OP_SPLICE] = "splice",
	[OP_TEE] = "tee",
	[OP_VMSPLICE] = "vmsplice",
	[OP_WRITE] = "write",
};

/* How many places of a program that make a call are told apart. */
#define SITES 1024

/* Of all processes of this program. */
struct sweeps {
	pid_t pid;
	unsigned int kinds;
	atomic_ulong unswept;
	atomic_ulong wrong;
	/* The last fault that the call of this place got by with. */
	atomic_uint survived[SITES];
	struct {
		atomic_ulong calls;
		atomic_ulong faults;
		atomic_ulong failed;
	} of[NR_OPS];
};

static struct sweeps *sweeps;

static bool by_hand;

void faults_by_hand(void)
{
	by_hand = true;
}

/* One call with its arguments, and what of it is done. */
struct call {
	enum op op;
	int in;
	int out;
	off_t *off_in;
	off_t *off_out;
	void *buf;
	const struct iovec *iov;
	size_t nr;
	size_t len;
	/* What the call can do of it, and what of that is done. */
	size_t end;
	size_t done;
	unsigned int flags;
	/* Before this attempt: what a copy that fails late leaves changed. */
	off_t was_in;
	off_t was_out;
	int queued;
	/* An errno that no lack of memory explains, and of which fault. */
	int other;
	unsigned int other_nth;
	atomic_uint *survived;
};

static bool is_type(int fd, mode_t type)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && (st.st_mode & S_IFMT) == type;
}

static int queued(int fd)
{
	int n;

	return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

static ssize_t rest_of_vmsplice(const struct call *c, int fd)
{
	struct iovec iov[1024];
	size_t skip = c->done, i, n = 0;

	for (i = 0; i < c->nr; i++) {
		const size_t len = c->iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		iov[n].iov_base = c->iov[i].iov_base + skip;
		iov[n++].iov_len = len - skip;
		skip = 0;
	}
	return syscall(SYS_vmsplice, fd, iov, n, c->flags);
}

/* As system calls: the functions of the C library are what leads here. */
static ssize_t once(const struct call *c)
{
	const size_t len = c->done ? c->end - c->done : c->len;

	switch (c->op) {
	case OP_COPY_FILE_RANGE:
		return syscall(SYS_copy_file_range, c->in, c->off_in, c->out,
			       c->off_out, len, c->flags);
	case OP_PIPE:
		return syscall(SYS_pipe2, c->buf, c->flags);
	case OP_READ:
		return syscall(SYS_read, c->in, c->buf + c->done, len);
	case OP_RESIZE:
		return syscall(SYS_fcntl, c->out, F_SETPIPE_SZ, c->buf);
	case OP_SENDFILE:
		return syscall(SYS_sendfile, c->out, c->in, c->off_in, len);
	case OP_SPLICE:
		return syscall(SYS_splice, c->in, c->off_in, c->out, c->off_out,
			       len, c->flags);
	case OP_TEE:
		return syscall(SYS_tee, c->in, c->out, len, c->flags);
	case OP_VMSPLICE:
		if (c->done)
			return rest_of_vmsplice(c, c->out);
		return syscall(SYS_vmsplice, c->out, c->iov, c->nr, c->flags);
	default:
		return syscall(SYS_write, c->out, c->buf + c->done, len);
	}
}

/*
 * What a call stores at its end is brought in before, for writing: it fails
 * without memory for that, although it has done its work.  Through the kernel,
 * since tests name memory that is not there.
 */
static bool bring_in(void *mem, void *value, size_t len)
{
	struct iovec here = { value, len }, there = { mem, len };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) ==
		       (ssize_t)len &&
	       process_vm_writev(getpid(), &here, 1, &there, 1, 0) ==
		       (ssize_t)len;
}

static bool keep_offset(int fd, off_t *off, off_t *was)
{
	if (off)
		return bring_in(off, was, sizeof(*was));
	*was = lseek(fd, 0, SEEK_CUR);
	return true;
}

static bool before(struct call *c)
{
	int fds[2];

	if (c->op == OP_PIPE)
		return bring_in(c->buf, fds, sizeof(fds));
	c->queued = queued(c->off_in ? c->out : c->in);
	return keep_offset(c->in, c->off_in, &c->was_in) &&
	       keep_offset(c->out, c->off_out, &c->was_out);
}

static void restore_offset(int fd, off_t *off, off_t was)
{
	if (off)
		*off = was;
	else if (was >= 0)
		lseek(fd, was, SEEK_SET);
}

/*
 * A copy failed: if it was that of a new offset, the data were transferred.  The
 * bytes that this means, or 0: the same can be asked for again.
 */
static ssize_t moved_after_all(struct call *c)
{
	int n = 0;

	if (!c->off_in && !c->off_out)
		return 0;
	/* What copy_file_range() copied is simply copied once more. */
	if (c->op == OP_SPLICE)
		n = abs(queued(c->off_in ? c->out : c->in) - c->queued);
	restore_offset(c->in, c->off_in, c->was_in + n);
	restore_offset(c->out, c->off_out, c->was_out + n);
	return n;
}

/* What Documentation/userspace-api/splice.rst says of a lack of memory. */
static bool is_named(const struct call *c, int err)
{
	if (err == EFAULT && sweeps->kinds & FAULT_USERCOPY)
		return true;
	switch (c->op) {
	case OP_TEE:
		/* It allocates nothing. */
		return false;
	case OP_PIPE:
		return err == ENOMEM || err == ENFILE;
	case OP_READ:
		/* Of memory that cannot be brought in. */
		return err == EFAULT;
	case OP_VMSPLICE:
	case OP_WRITE:
		return err == ENOMEM || err == EFAULT;
	case OP_SENDFILE:
	case OP_SPLICE:
		/* What send(2) says for it. */
		if (err == ENOBUFS &&
		    (is_type(c->in, S_IFSOCK) || is_type(c->out, S_IFSOCK)))
			return true;
		return err == ENOMEM;
	default:
		return err == ENOMEM;
	}
}

/*
 * The test knows whether to expect these.  Some raise a signal, and once more
 * would be once too often; EAGAIN may be over at the next attempt.
 */
static bool is_for_test(int err)
{
	return err == EAGAIN || err == EFBIG || err == EINTR || err == EPIPE;
}

/*
 * Whether a call for the rest does what the same call would have gone on to do.
 * It must not wait a second time.
 */
static bool may_go_on(struct call *c)
{
	struct pollfd room = { .fd = c->out, .events = POLLOUT };

	switch (c->op) {
	case OP_SPLICE:
		c->flags |= SPLICE_F_NONBLOCK;
		return is_type(c->in, S_IFIFO) || is_type(c->in, S_IFREG);
	case OP_VMSPLICE:
		c->flags |= SPLICE_F_NONBLOCK;
		return true;
	case OP_SENDFILE:
		return !is_type(c->out, S_IFIFO) ||
		       (is_type(c->in, S_IFREG) && poll(&room, 1, 0) == 1);
	case OP_READ:
		return queued(c->in) > 0;
	case OP_COPY_FILE_RANGE:
	case OP_WRITE:
		return true;
	default:
		return false;
	}
}

static void wrong(const struct call *c)
{
	fprintf(stderr, "# %s: fault %u gave errno %d (%s) after %zu bytes\n",
		op_names[c->op], c->other_nth, c->other, strerror(c->other),
		c->done);
	sweeps->wrong++;
	abort();
}

static ssize_t attempt(struct call *c, int fd, unsigned int nth, bool *fired)
{
	ssize_t ret;
	int err;

	before(c);
	arm(fd, nth);
	ret = once(c);
	err = errno;
	*fired = disarm(fd);
	if (*fired) {
		sweeps->of[c->op].faults++;
		sweeps->of[c->op].failed += ret < 0;
		if (ret < 0 && err == EFAULT)
			ret = moved_after_all(c) ?: -1;
	}
	errno = err;
	return ret;
}

/* This came of an attempt that met a fault: is there one more to be made? */
static bool go_on(struct call *c, unsigned int nth, ssize_t ret)
{
	const int err = errno;

	if (ret >= 0) {
		c->done += ret;
		return c->done && c->done < c->end && may_go_on(c);
	}
	if (is_for_test(err))
		return false;
	if (!is_named(c, err)) {
		c->other = err;
		c->other_nth = nth;
	}
	return true;
}

static unsigned int next_fault(unsigned int nth)
{
	return nth < EACH ? nth + 1 : nth + nth / 16;
}

/*
 * A call that gets by without what failed has done its work and is not made
 * again: the next one from the same place goes on with the fault behind that.
 */
static ssize_t sweep_armed(struct call *c, int fd)
{
	unsigned int nth = next_fault(atomic_exchange(c->survived, 0));
	ssize_t ret;
	bool fired;
	int err;

	for (;; nth = next_fault(nth)) {
		ret = attempt(c, fd, nth, &fired);
		err = errno;
		if (!fired)
			break;
		if (!go_on(c, nth, ret)) {
			/* It is in c->done. */
			ret = ret < 0 ? ret : 0;
			*c->survived = nth;
			break;
		}
	}
	/* Not for the fault, or the last attempt would have gone well. */
	if (c->other && (ret >= 0 || err != c->other))
		wrong(c);
	errno = err;
	return c->done ? (ssize_t)c->done + (ret > 0 ? ret : 0) : ret;
}

static bool swept(void)
{
	return sweeps && !by_hand;
}

/* Files grow while they are copied to themselves. */
static size_t end_of(const struct call *c)
{
	size_t end = c->len < MAX_COUNT ? c->len : MAX_COUNT;
	struct stat st;

	if (c->op == OP_COPY_FILE_RANGE && !fstat(c->in, &st) &&
	    c->was_in >= 0 && c->was_in <= st.st_size &&
	    end > (size_t)(st.st_size - c->was_in))
		end = st.st_size - c->was_in;
	return end;
}

/*
 * Tests measure how much memory they have: what the stack of a sweep needs is
 * there from the first call on.
 */
static void warm_up(void)
{
	static pid_t warm;
	char stack[16 * 4096];

	if (warm == getpid())
		return;
	warm = getpid();
	explicit_bzero(stack, sizeof(stack));
}

/* A record that there is no memory to decrypt ends the connection. */
static bool is_ktls(int fd)
{
	char name[16] = "";
	socklen_t len = sizeof(name);

	return !getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len) &&
	       !strcmp(name, "tls");
}

/*
 * Without a place for the new offsets nobody knows what was done.  @site is where
 * the test makes the call.
 */
static ssize_t sweep_at(struct call *c, void *site)
{
	int fd = arm_open();
	ssize_t ret;
	int err;

	c->survived = &sweeps->survived[((uintptr_t)site ^ c->op) % SITES];

	warm_up();
	if (fd < 0 || !before(c) || is_ktls(c->in)) {
		sweeps->unswept++;
		close(fd);
		return once(c);
	}
	c->end = end_of(c);
	sweeps->of[c->op].calls++;
	ret = sweep_armed(c, fd);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

#define sweep(c) sweep_at(c, __builtin_return_address(0))

ssize_t __wrap_copy_file_range(int in, off_t *off_in, int out, off_t *off_out,
			       size_t len, unsigned int flags)
{
	struct call c = { .op = OP_COPY_FILE_RANGE,
			  .in = in,
			  .out = out,
			  .off_in = off_in,
			  .off_out = off_out,
			  .len = len,
			  .flags = flags };

	return swept() ? sweep(&c) : once(&c);
}

int __wrap_fcntl(int fd, int cmd, ...)
{
	struct call c = { .op = OP_RESIZE, .in = -1, .out = fd };
	va_list ap;

	va_start(ap, cmd);
	c.buf = va_arg(ap, void *);
	va_end(ap);
	if (cmd == F_SETPIPE_SZ && swept())
		return sweep(&c);
	return syscall(SYS_fcntl, fd, cmd, c.buf);
}

int __wrap_pipe2(int fds[2], int flags)
{
	struct call c = {
		.op = OP_PIPE, .in = -1, .out = -1, .buf = fds, .flags = flags
	};

	return swept() ? sweep(&c) : once(&c);
}

int __wrap_pipe(int fds[2])
{
	return __wrap_pipe2(fds, 0);
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	struct call c = {
		.op = OP_READ, .in = fd, .out = -1, .buf = buf, .len = len
	};

	return swept() && is_type(fd, S_IFIFO) ? sweep(&c) : once(&c);
}

ssize_t __wrap_sendfile(int out, int in, off_t *off, size_t len)
{
	struct call c = { .op = OP_SENDFILE,
			  .in = in,
			  .out = out,
			  .off_in = off,
			  .len = len };

	return swept() ? sweep(&c) : once(&c);
}

ssize_t __wrap_splice(int in, off_t *off_in, int out, off_t *off_out,
		      size_t len, unsigned int flags)
{
	struct call c = { .op = OP_SPLICE,
			  .in = in,
			  .out = out,
			  .off_in = off_in,
			  .off_out = off_out,
			  .len = len,
			  .flags = flags };

	return swept() ? sweep(&c) : once(&c);
}

ssize_t __wrap_tee(int in, int out, size_t len, unsigned int flags)
{
	struct call c = {
		.op = OP_TEE, .in = in, .out = out, .len = len, .flags = flags
	};

	return swept() ? sweep(&c) : once(&c);
}

ssize_t __wrap_vmsplice(int fd, const struct iovec *iov, size_t nr,
			unsigned int flags)
{
	struct call c = { .op = OP_VMSPLICE,
			  .in = -1,
			  .out = fd,
			  .iov = iov,
			  .nr = nr,
			  .len = SIZE_MAX,
			  .flags = flags };

	return swept() ? sweep(&c) : once(&c);
}

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	struct call c = { .op = OP_WRITE,
			  .in = -1,
			  .out = fd,
			  .buf = (void *)buf,
			  .len = len };

	return swept() && is_type(fd, S_IFIFO) ? sweep(&c) : once(&c);
}

/*
 * Tests that cannot hold when something fails.
 */
#define FAULT_ALL (FAULT_SLAB | FAULT_PAGE | FAULT_USERCOPY)
#define FIRST_HALF "after half of a give the other side has what it waits for"
#define FRAME "what a signal handler needs is copied, too, or kills"
#define HANDLER "what fails is a call of the signal handler, which makes one"
#define LONGER \
	"the copy made before the offset could not be stored is more input"
#define IN_PASSING \
	"what fails is io_uring's, which this thread does before it returns"
#define NO_EVENT "an event that there is no memory for comes as an overflow"
#define ONE_MORE "the call for the rest does as much, or says so, once more"
#define REST_TOO_BIG "the call for the rest meets the limit, and raises SIGXFSZ"

static const struct {
	const char *program;
	const char *test;
	unsigned int kinds;
	const char *why;
} unfit[] = {
	{ "copy_file_range_test", "efbig_file_size_limit", FAULT_ALL,
	  REST_TOO_BIG },
	{ "copy_file_range_test", "same_file_doubled_at_end", FAULT_USERCOPY,
	  LONGER },
	{ "kbuf_test", "splice_full", FAULT_USERCOPY, FRAME },
	{ "page_flip_attack_test", "call_is_rounded", FAULT_ALL, ONE_MORE },
	{ "page_flip_attack_test", "lands_at_the_giver", FAULT_ALL,
	  IN_PASSING },
	{ "page_flip_copy_test", "give_and_take", FAULT_ALL, ONE_MORE },
	{ "page_flip_copy_test", "refused", FAULT_ALL, ONE_MORE },
	{ "page_flip_test", "eintr", FAULT_USERCOPY, FRAME },
	{ "page_flip_test", "epipe", FAULT_USERCOPY, FRAME },
	{ "page_flip_test", "epipe_when_last_reader_leaves", FAULT_USERCOPY,
	  FRAME },
	{ "page_flip_test", "restarts", FAULT_USERCOPY, FRAME },
	{ "page_flip_test", "waits", FAULT_ALL, FIRST_HALF },
	{ "sendfile_test", "efbig_file_size_limit", FAULT_USERCOPY, FRAME },
	{ "sendfile_test", "eintr_blocked_output", FAULT_USERCOPY, FRAME },
	{ "sendfile_test", "epipe", FAULT_USERCOPY, FRAME },
	{ "sendfile_test", "epipe_nonblocking", FAULT_USERCOPY, FRAME },
	{ "sendfile_test", "restart_blocked_output", FAULT_USERCOPY, FRAME },
	{ "splice_test", "eintr_by_signal", FAULT_USERCOPY, FRAME },
	{ "splice_test", "epipe_file_to_pipe", FAULT_USERCOPY, FRAME },
	{ "splice_test", "epipe_pipe_to_pipe", FAULT_USERCOPY, FRAME },
	{ "splice_test", "epipe_tcp_shutdown", FAULT_USERCOPY, FRAME },
	{ "splice_test", "epipe_unix_shutdown", FAULT_USERCOPY, FRAME },
	{ "splice_test", "notifies_watchers", FAULT_SLAB, NO_EVENT },
	{ "splice_test", "restarts_after_signal", FAULT_ALL, HANDLER },
	{ "splice_test", "short_count_by_signal", FAULT_USERCOPY, FRAME },
	{ "tee_test", "eintr", FAULT_USERCOPY, FRAME },
	{ "tee_test", "epipe_full_without_reader", FAULT_USERCOPY, FRAME },
	{ "tee_test", "epipe_when_last_reader_leaves", FAULT_USERCOPY, FRAME },
	{ "tee_test", "epipe_without_reader", FAULT_USERCOPY, FRAME },
	{ "tee_test", "notifies", FAULT_SLAB, NO_EVENT },
	{ "tee_test", "restarts", FAULT_USERCOPY, FRAME },
	{ "vmsplice_test", "eintr", FAULT_USERCOPY, FRAME },
	{ "vmsplice_test", "epipe_full_without_reader", FAULT_USERCOPY, FRAME },
	{ "vmsplice_test", "epipe_when_last_reader_leaves", FAULT_USERCOPY,
	  FRAME },
	{ "vmsplice_test", "epipe_without_reader", FAULT_USERCOPY, FRAME },
	{ "vmsplice_test", "restarts", FAULT_USERCOPY, FRAME },
};

#define NR_UNFIT (sizeof(unfit) / sizeof(*unfit))

static void print_sweeps(void)
{
	unsigned long calls = 0, faults = 0, failed = 0;
	int op;

	if (getpid() != sweeps->pid)
		return;
	faults_choose(0);
	for (op = 0; op < NR_OPS; op++) {
		const unsigned long n = sweeps->of[op].calls;

		if (!n)
			continue;
		printf("# faults: %s: injected %lu in %lu calls, %lu errors\n",
		       op_names[op], sweeps->of[op].faults, n,
		       sweeps->of[op].failed);
		calls += n;
		faults += sweeps->of[op].faults;
		failed += sweeps->of[op].failed;
	}
	printf("# faults: injected %lu in %lu calls, %lu errors, %lu not swept\n",
	       faults, calls, failed, sweeps->unswept);
	fflush(stdout);
	/* Also if it was not a process that a test waits for. */
	if (sweeps->wrong)
		_exit(1);
	if (calls >= FAULTLESS && !faults) {
		fprintf(stderr, "# faults: none came of those asked for\n");
		_exit(1);
	}
}

static unsigned int named_kinds(const char *list)
{
	unsigned int i, chosen = 0;

	for (i = 0; i < NR_KINDS; i++)
		if (strstr(list, kinds[i].name))
			chosen |= 1 << i;
	return chosen;
}

static void sweeps_start(const char *list)
{
	struct sweeps *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const unsigned int asked = named_kinds(list);

	if (s == MAP_FAILED || !asked || !faults_available()) {
		printf("1..0 # SKIP no faults \"%s\" here\n", list);
		exit(4);
	}
	s->kinds = faults_choose(asked);
	if (s->kinds != asked)
		printf("# faults: this kernel cannot leave out others\n");
	s->pid = getpid();
	sweeps = s;
	atexit(print_sweeps);
}

/*
 * On its way out of a call the kernel tells a task that it runs on another
 * processor now, by a write to this area.  Where that wants a page, and meets the
 * fault, the task is ended by a signal.
 */
static void forget_rseq(void)
{
#ifdef RSEQ_SIG
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
	unsigned int len = 32;

	while (__rseq_size && len <= 256 &&
	       syscall(SYS_rseq, area, len, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
		len += 32;
#endif
}

/* The options of the harness that leave out a test come before all others. */
int __wrap_main(int argc, char **argv, char **envp)
{
	const char *list = getenv("SPLICE_FAULTS");
	char *args[64 + 2 * NR_UNFIT];
	int n = 0, i;
	size_t u;

	forget_rseq();
	if (!list || argc > 64)
		return __real_main(argc, argv, envp);
	sweeps_start(list);
	args[n++] = argv[0];
	for (u = 0; u < NR_UNFIT; u++) {
		if (strcmp(unfit[u].program, program_invocation_short_name) ||
		    !(unfit[u].kinds & sweeps->kinds))
			continue;
		printf("# without faults only: %s: %s\n", unfit[u].test,
		       unfit[u].why);
		args[n++] = "-T";
		args[n++] = (char *)unfit[u].test;
	}
	for (i = 1; i < argc; i++)
		args[n++] = argv[i];
	args[n] = NULL;
	return __real_main(n, args, envp);
}
