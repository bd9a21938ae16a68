// SPDX-License-Identifier: GPL-2.0-only
/* The ways that splice_bench measures, each a step or two. */

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "splice_bench.h"

static ssize_t step_memcpy(struct lane *lane, size_t off, size_t len)
{
	memcpy(lane->dst + off, lane->src + off, len);
	return len;
}

static void touch(unsigned char *mem, size_t len)
{
	size_t off;

	for (off = 0; off < len; off += PAGE)
		mem[off] = 1;
}

static ssize_t step_fault(struct lane *lane, size_t off, size_t len)
{
	touch(lane->dst + off, len);
	return len;
}

static ssize_t step_dontneed(struct lane *lane, size_t off, size_t len)
{
	return madvise(lane->src + off, len, MADV_DONTNEED) ? -1 : (ssize_t)len;
}

static ssize_t step_mremap(struct lane *lane, size_t off, size_t len)
{
	void *to = lane->dst + off;

	return mremap(lane->src + off, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
		      to) == to ?
		       (ssize_t)len :
		       -1;
}

static ssize_t step_uffdio_move(struct lane *lane, size_t off, size_t len)
{
	struct uffdio_move move = { .dst = (uintptr_t)lane->dst + off,
				    .src = (uintptr_t)lane->src + off,
				    .len = len };

	if (ioctl(lane->job->uffd, UFFDIO_MOVE, &move) && errno != EAGAIN)
		return -1;
	return move.move;
}

static ssize_t step_process_vm_readv(struct lane *lane, size_t off, size_t len)
{
	struct iovec local = { lane->dst + off, len };
	struct iovec remote = { shared->src[lane->nr] + off, len };

	return process_vm_readv(shared->giver, &local, 1, &remote, 1, 0);
}

static ssize_t step_write(struct lane *lane, size_t off, size_t len)
{
	return write(lane->to[1], lane->src + off, len);
}

static ssize_t step_read(struct lane *lane, size_t off, size_t len)
{
	return read(lane->to[0], lane->dst + off, len);
}

static ssize_t vmsplice_one(int fd, void *base, size_t len, unsigned int flags)
{
	struct iovec iov = { base, len };

	return vmsplice(fd, &iov, 1, flags);
}

static ssize_t step_vmsplice_in(struct lane *lane, size_t off, size_t len)
{
	return vmsplice_one(lane->to[1], lane->src + off, len, 0);
}

static ssize_t step_vmsplice_out(struct lane *lane, size_t off, size_t len)
{
	return vmsplice_one(lane->to[0], lane->dst + off, len, 0);
}

/*
 * Strict first: a page that is in the way now, or for good, must not end the
 * row, and the page frames tell that it was copied.
 */
static ssize_t flip(struct lane *lane, int fd, void *base, size_t len,
		    unsigned int flags)
{
	ssize_t n = vmsplice_one(fd, base, len, flags | SPLICE_F_NOCOPY);

	if (n >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP))
		return n;
	lane->calls++;
	return vmsplice_one(fd, base, len, flags);
}

static ssize_t step_give(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = flip(lane, lane->to[1], lane->src + off, len,
			 SPLICE_F_GIFT | SPLICE_F_MOVE);

	if (n > 0 && lane->job->refault)
		touch(lane->src + off, n);
	return n;
}

static ssize_t step_take(struct lane *lane, size_t off, size_t len)
{
	return flip(lane, lane->to[0], lane->dst + off, len, SPLICE_F_MOVE);
}

static bool uffdio_move_available(void)
{
	int fd = userfault_fd();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static ssize_t read_counted(struct lane *lane, int fd, unsigned char *mem,
			    size_t len)
{
	size_t done;
	ssize_t n;

	for (done = 0; done < len; done += n, lane->calls++) {
		n = read(fd, mem + done, len - done);
		if (n <= 0)
			return -1;
	}
	return done;
}

static ssize_t step_ping(struct lane *lane, size_t off, size_t len)
{
	if (write(lane->to[1], lane->src + off, len) != (ssize_t)len)
		return -1;
	return read_counted(lane, lane->back[0], lane->dst + off, len);
}

static ssize_t step_pong(struct lane *lane, size_t off, size_t len)
{
	if (read_counted(lane, lane->to[0], lane->dst + off, len) < 0)
		return -1;
	return write(lane->back[1], lane->dst + off, len);
}

/* Where data that is not kept goes: it is kept in the rehearsal. */
static void *scrap(struct lane *lane, size_t off)
{
	return lane->dst + (lane->job->rehearsal ? off : 0);
}

static ssize_t step_read_file(struct lane *lane, size_t off, size_t len)
{
	return read(lane->job->in, scrap(lane, off), len);
}

static ssize_t drain(struct lane *lane, int from, int to, size_t len)
{
	size_t done;
	ssize_t n;

	for (done = 0; done < len; done += n, lane->calls++) {
		n = splice(from, NULL, to, NULL, len - done, SPLICE_F_MOVE);
		if (n <= 0)
			return -1;
	}
	return done;
}

static ssize_t file_to_pipe(struct lane *lane, size_t len)
{
	return splice(lane->job->in, NULL, lane->to[1], NULL, len,
		      SPLICE_F_MOVE);
}

static ssize_t discard(struct lane *lane, int pipe_fd, size_t off, size_t len)
{
	if (lane->job->rehearsal)
		return read_counted(lane, pipe_fd, lane->dst + off, len);
	return drain(lane, pipe_fd, lane->job->null, len);
}

static ssize_t step_splice_null(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = file_to_pipe(lane, len);

	return n > 0 ? discard(lane, lane->to[0], off, n) : n;
}

/* The second pipe gets what the first one has, and both are emptied. */
static ssize_t step_tee(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = file_to_pipe(lane, len);

	if (n <= 0 || tee(lane->to[0], lane->back[1], n, 0) != n)
		return -1;
	lane->calls++;
	if (drain(lane, lane->to[0], lane->job->null, n) < 0)
		return -1;
	return discard(lane, lane->back[0], off, n);
}

static ssize_t step_splice_file(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = file_to_pipe(lane, len);

	return n > 0 ? drain(lane, lane->to[0], lane->job->out, n) : n;
}

static ssize_t step_splice_tcp(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = file_to_pipe(lane, len);

	return n > 0 ? drain(lane, lane->to[0], lane->job->sock[0], n) : n;
}

static ssize_t step_sendfile_tcp(struct lane *lane, size_t off, size_t len)
{
	return sendfile(lane->job->sock[0], lane->job->in, NULL, len);
}

static ssize_t step_sendfile_file(struct lane *lane, size_t off, size_t len)
{
	return sendfile(lane->job->out, lane->job->in, NULL, len);
}

static ssize_t step_read_write(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = read(lane->job->in, scrap(lane, off), len);

	lane->calls++;
	return n > 0 ? write(lane->job->out, scrap(lane, off), n) : n;
}

static ssize_t step_read_send(struct lane *lane, size_t off, size_t len)
{
	ssize_t n = read(lane->job->in, scrap(lane, off), len);

	lane->calls++;
	return n > 0 ? send(lane->job->sock[0], scrap(lane, off), n, 0) : n;
}

static ssize_t step_recv(struct lane *lane, size_t off, size_t len)
{
	return recv(lane->job->sock[1], scrap(lane, off), len,
		    lane->job->rehearsal ? 0 : MSG_TRUNC);
}

static ssize_t step_copy_file_range(struct lane *lane, size_t off, size_t len)
{
	return copy_file_range(lane->job->in, NULL, lane->job->out, NULL, len,
			       0);
}

const struct way way_memcpy = {
	.needs = NEED_SRC | NEED_DST | NEED_WARM,
	.step = { step_memcpy },
	.whole = true,
};

const struct way way_fault = {
	.needs = NEED_DST,
	.step = { step_fault },
	.whole = true,
};

const struct way way_dontneed = {
	.needs = NEED_SRC,
	.step = { step_dontneed },
	.whole = true,
};

const struct way way_mremap = {
	.needs = NEED_SRC | NEED_DST | NEED_FRAMES,
	.step = { step_mremap },
	.whole = true,
};

const struct way way_uffdio_move = {
	.needs = NEED_SRC | NEED_DST | NEED_UFFD | NEED_FRAMES,
	.step = { step_uffdio_move },
	.whole = true,
	.missing = "no UFFDIO_MOVE",
	.available = uffdio_move_available,
};

const struct way way_process_vm_readv = {
	.needs = NEED_SRC | NEED_DST,
	.step = { NULL, step_process_vm_readv },
	.whole = true,
};

const struct way way_write_read = {
	.needs = NEED_SRC | NEED_DST,
	.step = { step_write, step_read },
};

const struct way way_vmsplice_read = {
	.needs = NEED_SRC | NEED_DST,
	.step = { step_vmsplice_in, step_read },
};

const struct way way_vmsplice_vmsplice = {
	.needs = NEED_SRC | NEED_DST,
	.step = { step_vmsplice_in, step_vmsplice_out },
};

const struct way way_give_take = {
	.needs = NEED_SRC | NEED_DST | NEED_FRAMES,
	.step = { step_give, step_take },
	.whole = true,
	.missing = "no page flip",
	.available = flip_available,
};

const struct way way_pingpong = {
	.needs = NEED_SRC | NEED_DST | NEED_WARM | NEED_ECHO,
	.step = { step_ping, step_pong },
};

const struct way way_read_file = {
	.needs = NEED_IN | NEED_CAPTURE,
	.step = { step_read_file },
};

const struct way way_splice_null = {
	.needs = NEED_IN | NEED_CAPTURE,
	.step = { step_splice_null },
};

const struct way way_tee = {
	.needs = NEED_IN | NEED_CAPTURE,
	.step = { step_tee },
};

const struct way way_splice_file = {
	.needs = NEED_IN | NEED_OUT,
	.step = { step_splice_file },
};

const struct way way_splice_tcp = {
	.needs = NEED_IN | NEED_TCP | NEED_CAPTURE,
	.step = { step_splice_tcp, step_recv },
};

const struct way way_sendfile_tcp = {
	.needs = NEED_IN | NEED_TCP | NEED_CAPTURE,
	.step = { step_sendfile_tcp, step_recv },
};

const struct way way_sendfile_file = {
	.needs = NEED_IN | NEED_OUT,
	.step = { step_sendfile_file },
};

const struct way way_read_write = {
	.needs = NEED_IN | NEED_OUT | NEED_CAPTURE,
	.step = { step_read_write },
};

const struct way way_read_send = {
	.needs = NEED_IN | NEED_TCP | NEED_CAPTURE,
	.step = { step_read_send, step_recv },
};

/* Reflink wants whole blocks: an odd offset makes every file system copy. */
const struct way way_copy_file_range = {
	.needs = NEED_IN | NEED_OUT,
	.step = { step_copy_file_range },
	.skew = 512,
};
