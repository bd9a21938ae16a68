// SPDX-License-Identifier: GPL-2.0-only
/*
 * splice(2): what arrives, what stays behind, where positions end, what it
 * waits for and what it refuses.  Covers fs/splice.c and the methods it calls:
 * mm/filemap.c, mm/shmem.c, fs/overlayfs/file.c, drivers/char/mem.c, net/.
 *
 * errno		test
 * EAGAIN		nonblock.eagain_*, sockets.eagain_*
 * EBADF		refusal.ebadf_*
 * ECONNRESET		econnreset_input_reset
 * EFAULT		refusal.efault_*
 * EFBIG		efbig_file_size_limit, refusal.efbig_*
 * EINTR		blocked.eintr_by_signal
 * EINVAL		refusal.einval_*, backing.einval_append_output
 * ENOSPC		enospc_after_short_count
 * ENOTCONN		enotconn_input_never_connected
 * EPERM		refusal.eperm_*
 * EPIPE		epipe_*
 * ESPIPE		refusal.espipe_*
 * ETXTBSY		swapfile.etxtbsy_swapfile
 * EXDEV		refusal.exdev_notification_pipe
 * EIO			not here: needs a disk that fails
 * ENOMEM		with SPLICE_FAULTS, see splice_fault.h
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/tls.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "splice_util.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define PAGE ((ssize_t)getpagesize())
#define SEED 1 /* what moves */
#define REST 2 /* what must not change */
#define FILE_PAGES 24
#define FILE_LEN (FILE_PAGES * PAGE + 123)
#define LEN 1000
#define ALL_FLAGS \
	(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)

static ssize_t move(int in, int out, size_t len)
{
	return splice(in, NULL, out, NULL, len, 0);
}

static ssize_t move_all(int in, int out, size_t len)
{
	return splice_all(in, NULL, out, NULL, len);
}

static pid_t spawn_move(int in, int out, ssize_t len)
{
	pid_t pid = fork_child();

	if (pid)
		return pid;
	_exit(move_all(in, out, len) != len);
}

static int pipe_full(int fds[2])
{
	if (pipe(fds))
		return -1;
	return pipe_fill_up(fds[1]);
}

/* A file of stream REST, position 0. */
static int file_to_hit(enum backing b)
{
	return backing_file_filled(b, FILE_LEN, REST);
}

/* Ranges that touch page, folio and pipe buffer edges; none fills a pipe. */
static const struct shape {
	int page, byte;
	int pages, bytes;
} shapes[] = {
	{ 0, 0, 0, 1 },	  { 0, 0, 1, -1 },   { 0, 0, 1, 0 },	{ 0, 0, 1, 1 },
	{ 0, 1, 1, 0 },	  { 1, -1, 0, 2 },   { 0, 123, 5, 77 }, { 3, 0, 4, 0 },
	{ 16, -1, 0, 2 }, { 7, 100, 12, 0 },
};

static const struct shape *const shapes_end = shapes + ARRAY_SIZE(shapes);

static off_t shape_off(const struct shape *s)
{
	return s->page * PAGE + s->byte;
}

static ssize_t shape_len(const struct shape *s)
{
	return s->pages * PAGE + s->bytes;
}

/* Files: every test on every file system. */

FIXTURE(backing)
{
	int fd; /* stream SEED */
	int p[2];
};

FIXTURE_VARIANT(backing)
{
	enum backing b;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(backing, ext4) { .b = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(backing, xfs) { .b = BACKING_XFS };
FIXTURE_VARIANT_ADD(backing, tmpfs) { .b = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(backing, overlay) { .b = BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(backing, memfd) { .b = BACKING_MEMFD };
/* clang-format on */

FIXTURE_SETUP(backing)
{
	if (!backing_available(variant->b))
		SKIP(return, "no %s here", backing_name(variant->b));
	self->fd = backing_file_filled(variant->b, FILE_LEN, SEED);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, pipe(self->p));
}

FIXTURE_TEARDOWN(backing)
{
	close(self->fd);
}

/* The range of the file comes out of the pipe, the position moves past it. */
TEST_F(backing, to_pipe_from_position)
{
	const struct shape *s;

	for (s = shapes; s < shapes_end; s++) {
		ssize_t len = shape_len(s);
		off_t off = shape_off(s);

		ASSERT_EQ(off, lseek(self->fd, off, SEEK_SET));
		ASSERT_EQ(len, move(self->fd, self->p[1], len));
		ASSERT_EQ(off + len, position(self->fd));
		ASSERT_EQ(len, bytes_queued(self->p[0]));
		ASSERT_EQ(0, read_pattern(self->p[0], len, off, SEED));
	}
}

/* An explicit offset is read from and advanced, the position stays. */
TEST_F(backing, to_pipe_from_offset)
{
	const struct shape *s;

	ASSERT_EQ(7, lseek(self->fd, 7, SEEK_SET));
	for (s = shapes; s < shapes_end; s++) {
		ssize_t len = shape_len(s);
		off_t off = shape_off(s);

		ASSERT_EQ(len,
			  splice(self->fd, &off, self->p[1], NULL, len, 0));
		ASSERT_EQ(shape_off(s) + len, off);
		ASSERT_EQ(7, position(self->fd));
		ASSERT_EQ(len, bytes_queued(self->p[0]));
		ASSERT_EQ(0, read_pattern(self->p[0], len, off - len, SEED));
	}
}

static void expect_only_range_hit(struct __test_metadata *_metadata, int fd,
				  off_t off, ssize_t len)
{
	off_t end = off + len;

	ASSERT_EQ(0, pread_pattern(fd, 0, off, 0, REST));
	ASSERT_EQ(0, pread_pattern(fd, off, len, 0, SEED));
	ASSERT_EQ(0, pread_pattern(fd, end, FILE_LEN - end, end, REST));
	ASSERT_EQ(FILE_LEN, lseek(fd, 0, SEEK_END));
}

/* Just the range at the position is overwritten, and the position moves. */
TEST_F(backing, from_pipe_to_position)
{
	const struct shape *s;

	for (s = shapes; s < shapes_end; s++) {
		ssize_t len = shape_len(s);
		off_t off = shape_off(s);
		int fd = file_to_hit(variant->b);

		ASSERT_LE(0, fd);
		ASSERT_EQ(0, write_pattern(self->p[1], len, 0, SEED));
		ASSERT_EQ(off, lseek(fd, off, SEEK_SET));
		ASSERT_EQ(len, move(self->p[0], fd, len));
		ASSERT_EQ(off + len, position(fd));
		ASSERT_EQ(0, bytes_queued(self->p[0]));
		expect_only_range_hit(_metadata, fd, off, len);
		close(fd);
	}
}

/* An explicit offset is written to and advanced, the position stays. */
TEST_F(backing, from_pipe_to_offset)
{
	const struct shape *s;

	for (s = shapes; s < shapes_end; s++) {
		ssize_t len = shape_len(s);
		off_t off = shape_off(s);
		int fd = file_to_hit(variant->b);

		ASSERT_LE(0, fd);
		ASSERT_EQ(0, write_pattern(self->p[1], len, 0, SEED));
		ASSERT_EQ(len, splice(self->p[0], NULL, fd, &off, len, 0));
		ASSERT_EQ(shape_off(s) + len, off);
		ASSERT_EQ(0, position(fd));
		ASSERT_EQ(0, bytes_queued(self->p[0]));
		expect_only_range_hit(_metadata, fd, off - len, len);
		close(fd);
	}
}

/* Writing beyond the end leaves a hole that reads as zeroes. */
TEST_F(backing, from_pipe_beyond_end)
{
	off_t off = FILE_LEN + 3 * PAGE + 5;

	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, REST));
	ASSERT_EQ(LEN, splice(self->p[0], NULL, self->fd, &off, LEN, 0));
	ASSERT_EQ(off, lseek(self->fd, 0, SEEK_END));
	ASSERT_EQ(0, pread_pattern(self->fd, 0, FILE_LEN, 0, SEED));
	ASSERT_EQ(0, pread_zeroes(self->fd, FILE_LEN, 3 * PAGE + 5));
	ASSERT_EQ(0, pread_pattern(self->fd, off - LEN, LEN, 0, REST));
}

/* At and beyond the end of the file 0 is returned and nothing moves. */
TEST_F(backing, to_pipe_0_at_end)
{
	off_t off = FILE_LEN;

	ASSERT_EQ(0, splice(self->fd, &off, self->p[1], NULL, PAGE, 0));
	ASSERT_EQ(FILE_LEN, off);
	off += 10 * PAGE;
	ASSERT_EQ(0, splice(self->fd, &off, self->p[1], NULL, PAGE, 0));
	ASSERT_EQ(FILE_LEN + 10 * PAGE, off);
	ASSERT_EQ(FILE_LEN + 3, lseek(self->fd, FILE_LEN + 3, SEEK_SET));
	ASSERT_EQ(0, move(self->fd, self->p[1], PAGE));
	ASSERT_EQ(FILE_LEN + 3, position(self->fd));
	ASSERT_EQ(0, bytes_queued(self->p[0]));
}

/* The count is short at the end of the file, no byte of the last page more. */
TEST_F(backing, to_pipe_short_at_end)
{
	off_t off = FILE_LEN - 200;

	ASSERT_EQ(200, splice(self->fd, &off, self->p[1], NULL, 2 * PAGE, 0));
	ASSERT_EQ(FILE_LEN, off);
	ASSERT_EQ(200, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], 200, off - 200, SEED));
}

/* Holes arrive as zeroes, the data around them unchanged. */
TEST_F(backing, to_pipe_hole)
{
	off_t off = FILE_LEN - 10, end = FILE_LEN + 8 * PAGE + 5;
	ssize_t hole = end - FILE_LEN;
	char behind[10];

	ASSERT_EQ(10, pwrite(self->fd, "0123456789", 10, end));
	ASSERT_EQ(hole + 20,
		  splice(self->fd, &off, self->p[1], NULL, hole + 20, 0));
	ASSERT_EQ(end + 10, off);
	ASSERT_EQ(0, read_pattern(self->p[0], 10, FILE_LEN - 10, SEED));
	ASSERT_EQ(0, read_zeroes(self->p[0], hole));
	ASSERT_EQ(0, read_all(self->p[0], behind, 10));
	ASSERT_EQ(0, memcmp(behind, "0123456789", 10));
}

/* Positions and offsets that do not fit in 32 bits. */
TEST_F(backing, offsets_beyond_4g)
{
	off_t far = 5UL * 1024 * MIB + 123, off = far;

	ASSERT_EQ(0, write_pattern(self->p[1], 3 * PAGE, 0, REST));
	ASSERT_EQ(3 * PAGE,
		  splice(self->p[0], NULL, self->fd, &off, 3 * PAGE, 0));
	ASSERT_EQ(far + 3 * PAGE, off);
	ASSERT_EQ(off, lseek(self->fd, 0, SEEK_END));
	ASSERT_EQ(0, pread_pattern(self->fd, far, 3 * PAGE, 0, REST));
	ASSERT_EQ(far, lseek(self->fd, far, SEEK_SET));
	ASSERT_EQ(2 * PAGE, move(self->fd, self->p[1], 2 * PAGE));
	ASSERT_EQ(far + 2 * PAGE, position(self->fd));
	ASSERT_EQ(0, read_pattern(self->p[0], 2 * PAGE, 0, REST));
	ASSERT_EQ(0, pread_pattern(self->fd, 0, FILE_LEN, 0, SEED));
}

/* A pipe takes what it has slots for, then nothing, and both are reported. */
TEST_F(backing, to_pipe_short_when_full)
{
	ssize_t size = fcntl(self->p[1], F_GETPIPE_SZ);

	ASSERT_GT(FILE_LEN, size);
	ASSERT_EQ(size, move(self->fd, self->p[1], FILE_LEN));
	ASSERT_EQ(size, position(self->fd));
	ASSERT_EQ(-1, splice(self->fd, NULL, self->p[1], NULL, 1,
			     SPLICE_F_NONBLOCK));
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(size, position(self->fd));
	ASSERT_EQ(0, read_pattern(self->p[0], size, 0, SEED));
}

/* A file larger than the pipe gets through to a reader. */
TEST_F(backing, large_to_reader)
{
	ssize_t len = MIB + 123;
	int fd = backing_file_filled(variant->b, len, REST);
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = spawn_reader(self->p[0], len, 0, REST);
	ASSERT_LT(0, pid);
	ASSERT_EQ(len, move_all(fd, self->p[1], len + 1));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(len, position(fd));
}

/* What a writer sends, however cut into buffers, becomes the file. */
TEST_F(backing, large_from_writer)
{
	ssize_t len = MIB + 123;
	int fd = backing_file(variant->b);
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = spawn_writer(self->p[1], len, 0, REST);
	ASSERT_LT(0, pid);
	close(self->p[1]);
	ASSERT_EQ(len, move_all(self->p[0], fd, len + 1));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(len, lseek(fd, 0, SEEK_END));
	ASSERT_EQ(0, pread_pattern(fd, 0, len, 0, REST));
}

/* A file copied through a pipe in odd pieces equals its source. */
TEST_F(backing, file_to_file)
{
	int fd = backing_file(variant->b);
	ssize_t n, sum = 0;

	ASSERT_LE(0, fd);
	while ((n = move(self->fd, self->p[1], 3 * PAGE + 7)) > 0) {
		ASSERT_EQ(n, move_all(self->p[0], fd, n));
		sum += n;
	}
	ASSERT_EQ(0, n);
	ASSERT_EQ(FILE_LEN, sum);
	ASSERT_EQ(FILE_LEN, lseek(fd, 0, SEEK_END));
	ASSERT_EQ(0, pread_pattern(fd, 0, FILE_LEN, 0, SEED));
}

/* An O_DIRECT source gives the same bytes, its unaligned tail too. */
TEST_F(backing, to_pipe_o_direct)
{
	int fd = reopen(self->fd, O_RDONLY | O_DIRECT);
	off_t off = (FILE_PAGES - 2) * PAGE;

	ASSERT_LE(0, fd);
	ASSERT_EQ(4 * PAGE, move(fd, self->p[1], 4 * PAGE));
	ASSERT_EQ(4 * PAGE, position(fd));
	ASSERT_EQ(0, read_pattern(self->p[0], 4 * PAGE, 0, SEED));
	ASSERT_EQ(2 * PAGE + 123,
		  splice(fd, &off, self->p[1], NULL, 8 * PAGE, 0));
	ASSERT_EQ(FILE_LEN, off);
	ASSERT_EQ(2 * PAGE + 123, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], 2 * PAGE + 123,
				  off - 2 * PAGE - 123, SEED));
}

/* A file opened with O_APPEND is refused and the pipe keeps its data. */
TEST_F(backing, einval_append_output)
{
	int fd = reopen(self->fd, O_WRONLY | O_APPEND);
	off_t off = 0;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, REST));
	ASSERT_EQ(-1, move(self->p[0], fd, LEN));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, splice(self->p[0], NULL, fd, &off, LEN, 0));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, pread_pattern(self->fd, 0, FILE_LEN, 0, SEED));
	ASSERT_EQ(LEN, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], LEN, 0, REST));
}

/*
 * write() to a pipe that ends in a spliced page must not append to that page:
 * the ring slots were used by mergeable buffers before.
 */
TEST_F(backing, pipe_write_spares_spliced_page)
{
	off_t off = 0;

	ASSERT_EQ(0, pipe_use_slots(self->p));
	ASSERT_EQ(100, splice(self->fd, &off, self->p[1], NULL, 100, 0));
	ASSERT_EQ(0, write_pattern(self->p[1], 500, 0, REST));
	ASSERT_EQ(0, pread_pattern(self->fd, 0, FILE_LEN, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->p[0], 100, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->p[0], 500, 0, REST));
}

/* FIFOs: the same ring under a name. */

FIXTURE(fifo)
{
	int rfd, wfd;
	int p[2];
};

FIXTURE_VARIANT(fifo)
{
	enum backing b;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(fifo, ext4) { .b = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(fifo, xfs) { .b = BACKING_XFS };
FIXTURE_VARIANT_ADD(fifo, tmpfs) { .b = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(fifo, overlay) { .b = BACKING_OVERLAY };
/* clang-format on */

FIXTURE_SETUP(fifo)
{
	int fd;

	if (!backing_available(variant->b))
		SKIP(return, "no %s here", backing_name(variant->b));
	fd = fifo_in(backing_dir(variant->b));
	ASSERT_LE(0, fd);
	self->rfd = reopen(fd, O_RDONLY | O_NONBLOCK);
	self->wfd = reopen(fd, O_WRONLY);
	close(fd);
	ASSERT_LE(0, self->rfd);
	ASSERT_LE(0, self->wfd);
	ASSERT_EQ(0, pipe(self->p));
}

FIXTURE_TEARDOWN(fifo)
{
	close(self->rfd);
	close(self->wfd);
}

/* File into FIFO, FIFO into another file. */
TEST_F(fifo, file_to_fifo_to_file)
{
	int in = backing_file_filled(variant->b, FILE_LEN, SEED);
	int out = file_to_hit(variant->b);
	ssize_t len = 5 * PAGE + 7;

	ASSERT_LE(0, in);
	ASSERT_LE(0, out);
	ASSERT_EQ(len, move(in, self->wfd, len));
	ASSERT_EQ(len, bytes_queued(self->rfd));
	ASSERT_EQ(len, move(self->rfd, out, len));
	expect_only_range_hit(_metadata, out, 0, len);
}

/* FIFO to pipe and back; a partly moved buffer keeps its rest. */
TEST_F(fifo, fifo_to_pipe_to_fifo)
{
	ASSERT_EQ(0, write_pattern(self->wfd, LEN, 0, SEED));
	ASSERT_EQ(300, move(self->rfd, self->p[1], 300));
	ASSERT_EQ(LEN - 300, bytes_queued(self->rfd));
	ASSERT_EQ(300, move(self->p[0], self->wfd, 300));
	ASSERT_EQ(0, read_pattern(self->rfd, LEN - 300, 300, SEED));
	ASSERT_EQ(0, read_pattern(self->rfd, 300, 0, SEED));
}

/* Two opens of one FIFO are one pipe. */
TEST_F(fifo, einval_same_fifo)
{
	ASSERT_EQ(0, write_pattern(self->wfd, LEN, 0, SEED));
	ASSERT_EQ(-1, move(self->rfd, self->wfd, LEN));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, read_pattern(self->rfd, LEN, 0, SEED));
}

/* O_NONBLOCK of the open counts; without writers it is the end of input. */
TEST_F(fifo, eagain_then_0_without_writers)
{
	ASSERT_EQ(-1, move(self->rfd, self->p[1], LEN));
	ASSERT_EQ(EAGAIN, errno);
	close(self->wfd);
	ASSERT_EQ(0, move(self->rfd, self->p[1], LEN));
	self->wfd = -1;
}

/* Watchers see the input read and the output changed. */
TEST_F(fifo, notifies_watchers)
{
	int fd = backing_file_filled(variant->b, LEN, SEED);
	int of_file = watch(fd);
	int of_fifo = watch(self->rfd);

	ASSERT_LE(0, of_file);
	ASSERT_LE(0, of_fifo);
	ASSERT_EQ(LEN, move(fd, self->wfd, LEN));
	ASSERT_EQ(IN_ACCESS, next_event(of_file));
	ASSERT_EQ(IN_MODIFY, next_event(of_fifo));
	ASSERT_EQ(LEN, move(self->rfd, fd, LEN));
	ASSERT_EQ(IN_ACCESS, next_event(of_fifo));
	ASSERT_EQ(IN_MODIFY, next_event(of_file));
	ASSERT_EQ(0, next_event(of_file));
	ASSERT_EQ(0, next_event(of_fifo));
}

/* Pipe to pipe. */

FIXTURE(two_pipes)
{
	int a[2], b[2];
};

FIXTURE_SETUP(two_pipes)
{
	ASSERT_EQ(0, pipe(self->a));
	ASSERT_EQ(0, pipe(self->b));
}

FIXTURE_TEARDOWN(two_pipes)
{
	close(self->a[0]);
	close(self->b[0]);
}

/* Buffers of odd sizes arrive whole and in order. */
TEST_F(two_pipes, moves_buffers_in_order)
{
	static const int sizes[] = { 1, 4095, 4096, 17, 8192, 3000 };
	ssize_t sum = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); sum += sizes[i++])
		ASSERT_EQ(0, write_pattern(self->a[1], sizes[i], sum, SEED));
	ASSERT_EQ(sum, move(self->a[0], self->b[1], sum + 1));
	ASSERT_EQ(0, bytes_queued(self->a[0]));
	ASSERT_EQ(sum, bytes_queued(self->b[0]));
	ASSERT_EQ(0, read_pattern(self->b[0], sum, 0, SEED));
}

/* Halves of a split buffer do not see what is later written after either. */
TEST_F(two_pipes, split_buffer_is_not_appended_to)
{
	ASSERT_EQ(0, write_pattern(self->a[1], LEN, 0, SEED));
	ASSERT_EQ(400, move(self->a[0], self->b[1], 400));
	ASSERT_EQ(LEN - 400, bytes_queued(self->a[0]));
	ASSERT_EQ(0, write_pattern(self->b[1], 300, 0, REST));
	ASSERT_EQ(0, write_pattern(self->a[1], 200, LEN, SEED));
	ASSERT_EQ(0, read_pattern(self->a[0], LEN - 400 + 200, 400, SEED));
	ASSERT_EQ(0, read_pattern(self->b[0], 400, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->b[0], 300, 0, REST));
}

/* A moved buffer leaves the source ready for more, the target in order. */
TEST_F(two_pipes, writes_follow_moved_buffer)
{
	ASSERT_EQ(0, write_pattern(self->a[1], LEN, 0, SEED));
	ASSERT_EQ(LEN, move(self->a[0], self->b[1], LEN));
	ASSERT_EQ(0, write_pattern(self->a[1], 50, 0, REST));
	ASSERT_EQ(0, write_pattern(self->b[1], 100, LEN, SEED));
	ASSERT_EQ(0, read_pattern(self->a[0], 50, 0, REST));
	ASSERT_EQ(0, read_pattern(self->b[0], LEN + 100, 0, SEED));
}

/* Output with fewer slots than the input has buffers: a short count. */
TEST_F(two_pipes, short_when_output_fills)
{
	ASSERT_EQ(2 * PAGE, fcntl(self->b[1], F_SETPIPE_SZ, 2 * PAGE));
	ASSERT_EQ(0, write_pattern(self->a[1], 5 * PAGE, 0, SEED));
	ASSERT_EQ(2 * PAGE, move(self->a[0], self->b[1], 5 * PAGE));
	ASSERT_EQ(3 * PAGE, bytes_queued(self->a[0]));
	ASSERT_EQ(0, read_pattern(self->b[0], 2 * PAGE, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->a[0], 3 * PAGE, 2 * PAGE, SEED));
}

/* With some data there is no waiting for more. */
TEST_F(two_pipes, short_when_input_runs_empty)
{
	ASSERT_EQ(0, write_pattern(self->a[1], LEN, 0, SEED));
	ASSERT_EQ(LEN, move(self->a[0], self->b[1], PAGE));
	ASSERT_EQ(0, read_pattern(self->b[0], LEN, 0, SEED));
}

/* The last bytes come first, the end of input after. */
TEST_F(two_pipes, returns_0_without_writers)
{
	ASSERT_EQ(0, write_pattern(self->a[1], LEN, 0, SEED));
	close(self->a[1]);
	ASSERT_EQ(LEN, move(self->a[0], self->b[1], 2 * LEN));
	ASSERT_EQ(0, move(self->a[0], self->b[1], 2 * LEN));
	ASSERT_EQ(LEN, bytes_queued(self->b[0]));
	ASSERT_EQ(0, read_pattern(self->b[0], LEN, 0, SEED));
}

/* Several times the capacity of either, with feeder and reader. */
TEST_F(two_pipes, large_between_processes)
{
	ssize_t len = MIB + 1;
	pid_t feeder, reader;

	feeder = spawn_writer(self->a[1], len, 0, SEED);
	reader = spawn_reader(self->b[0], len, 0, SEED);
	ASSERT_LT(0, feeder);
	ASSERT_LT(0, reader);
	close(self->a[1]);
	ASSERT_EQ(len, move_all(self->a[0], self->b[1], len + 1));
	ASSERT_EQ(0, reap(feeder));
	ASSERT_EQ(0, reap(reader));
}

/* Packets of an O_DIRECT pipe stay packets. */
TEST_F(two_pipes, keeps_packets_apart)
{
	char buf[LEN];
	int in[2];

	ASSERT_EQ(0, pipe2(in, O_DIRECT));
	ASSERT_EQ(0, write_pattern(in[1], 10, 0, SEED));
	ASSERT_EQ(0, write_pattern(in[1], 20, 0, REST));
	ASSERT_EQ(30, move(in[0], self->b[1], LEN));
	ASSERT_EQ(10, read(self->b[0], buf, LEN));
	ASSERT_EQ(-1, pattern_check(buf, 10, 0, SEED));
	ASSERT_EQ(20, read(self->b[0], buf, LEN));
	ASSERT_EQ(-1, pattern_check(buf, 20, 0, REST));
}

/* A length of 0 returns 0 whatever the state of the pipes. */
TEST_F(two_pipes, len_0_returns_0)
{
	ASSERT_LT(0, pipe_fill_up(self->b[1]));
	ASSERT_EQ(0, move(self->a[0], self->b[1], 0));
	ASSERT_EQ(0, bytes_queued(self->a[0]));
}

/* Any combination of the known flags moves the same bytes. */
TEST_F(two_pipes, known_flags_are_accepted)
{
	unsigned int flags;

	for (flags = 0; flags <= ALL_FLAGS; flags++) {
		ASSERT_EQ(0, write_pattern(self->a[1], LEN, 0, SEED));
		ASSERT_EQ(LEN, splice(self->a[0], NULL, self->b[1], NULL, LEN,
				      flags));
		ASSERT_EQ(0, read_pattern(self->b[0], LEN, 0, SEED));
	}
}

/* Waiting.  Each variant has one end that cannot go on. */

enum input {
	IN_FILE,
	IN_PIPE,
	IN_UNIX,
	IN_EMPTY_PIPE,
	IN_EMPTY_UNIX,
	IN_EMPTY_TCP,
	IN_EMPTY_KTLS,
};

enum output {
	OUT_FILE,
	OUT_PIPE,
	OUT_NULL,
	OUT_UNIX,
	OUT_FULL_PIPE,
	OUT_FULL_UNIX,
};

struct joint {
	int in, out;
	int feed; /* what is written here comes out at @in */
	int drain; /* what arrives at @out is read here; -1: nowhere */
	bool empty; /* @in has no data yet */
	ssize_t stuffing; /* zeroes that make @out full */
};

static int joint_input(struct joint *j, enum input kind)
{
	int fds[2] = { -1, -1 }, err = 0;

	switch (kind) {
	case IN_FILE:
		j->in = backing_file_filled(BACKING_MEMFD, LEN, SEED);
		return j->in < 0 ? -1 : 0;
	case IN_PIPE:
	case IN_EMPTY_PIPE:
		err = pipe(fds);
		j->in = fds[0];
		j->feed = fds[1];
		break;
	case IN_UNIX:
	case IN_EMPTY_UNIX:
		err = unix_pair(fds);
		break;
	case IN_EMPTY_TCP:
		err = tcp_pair(fds);
		break;
	case IN_EMPTY_KTLS:
		err = ktls_pair(fds);
		break;
	}
	if (kind != IN_PIPE && kind != IN_EMPTY_PIPE) {
		j->feed = fds[0];
		j->in = fds[1];
	}
	j->empty = kind >= IN_EMPTY_PIPE;
	return err || j->empty ? err : write_pattern(j->feed, LEN, 0, SEED);
}

static int joint_output(struct joint *j, enum output kind)
{
	int fds[2], err = 0;

	switch (kind) {
	case OUT_FILE:
		j->out = file_to_hit(BACKING_MEMFD);
		j->drain = reopen(j->out, O_RDONLY);
		return j->drain < 0 ? -1 : 0;
	case OUT_NULL:
		j->out = open("/dev/null", O_WRONLY);
		j->drain = -1;
		return j->out < 0 ? -1 : 0;
	case OUT_UNIX:
	case OUT_FULL_UNIX:
		err = unix_pair(fds);
		break;
	case OUT_PIPE:
	case OUT_FULL_PIPE:
		err = pipe(fds);
		break;
	}
	j->drain = fds[0];
	j->out = fds[1];
	if (!err && kind >= OUT_FULL_PIPE)
		j->stuffing = pipe_fill_up(j->out);
	return err || j->stuffing < 0 ? -1 : 0;
}

/* Async-signal-safe: a signal handler uses it too. */
static int unblock(const struct joint *j)
{
	if (j->empty)
		return write_pattern(j->feed, LEN, 0, SEED);
	return read_zeroes(j->drain, j->stuffing);
}

static int arrived(const struct joint *j)
{
	if (j->drain < 0)
		return bytes_queued(j->in);
	return read_pattern(j->drain, LEN, 0, SEED);
}

FIXTURE(blocked)
{
	struct joint j;
};

FIXTURE_VARIANT(blocked)
{
	enum input in;
	enum output out;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(blocked, empty_to_file) { IN_EMPTY_PIPE, OUT_FILE };
FIXTURE_VARIANT_ADD(blocked, empty_to_pipe) { IN_EMPTY_PIPE, OUT_PIPE };
FIXTURE_VARIANT_ADD(blocked, empty_to_null) { IN_EMPTY_PIPE, OUT_NULL };
FIXTURE_VARIANT_ADD(blocked, empty_to_unix) { IN_EMPTY_PIPE, OUT_UNIX };
FIXTURE_VARIANT_ADD(blocked, file_to_full) { IN_FILE, OUT_FULL_PIPE };
FIXTURE_VARIANT_ADD(blocked, pipe_to_full) { IN_PIPE, OUT_FULL_PIPE };
FIXTURE_VARIANT_ADD(blocked, unix_to_full) { IN_UNIX, OUT_FULL_PIPE };
FIXTURE_VARIANT_ADD(blocked, empty_unix) { IN_EMPTY_UNIX, OUT_PIPE };
FIXTURE_VARIANT_ADD(blocked, empty_tcp) { IN_EMPTY_TCP, OUT_PIPE };
FIXTURE_VARIANT_ADD(blocked, empty_ktls) { IN_EMPTY_KTLS, OUT_PIPE };
FIXTURE_VARIANT_ADD(blocked, full_unix) { IN_PIPE, OUT_FULL_UNIX };
/* clang-format on */

FIXTURE_SETUP(blocked)
{
	int err = joint_input(&self->j, variant->in);

	if (err && errno == ENOENT)
		SKIP(return, "no kTLS here");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, joint_output(&self->j, variant->out));
}

FIXTURE_TEARDOWN(blocked)
{
	alarm_stop();
}

/* It sleeps until there is data, or room, and then moves all. */
TEST_F(blocked, wakes_when_unblocked)
{
	const struct joint *j = &self->j;
	pid_t pid = spawn_move(j->in, j->out, LEN);

	ASSERT_LT(0, pid);
	ASSERT_TRUE(await_asleep(pid, SYS_splice));
	ASSERT_EQ(0, unblock(j));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, arrived(j));
}

/* Who waits for data does not keep others from the position of the output. */
TEST(position_is_free_while_pipe_is_empty)
{
	int fd = file_to_hit(BACKING_TMPFS), fds[2];
	pid_t pid;

	if (fd < 0)
		SKIP(return, "no tmpfs here");
	ASSERT_EQ(0, pipe(fds));
	pid = spawn_move(fds[0], fd, LEN);
	ASSERT_TRUE(await_asleep(pid, SYS_splice));
	ASSERT_EQ(0, position(fd));
	ASSERT_EQ(0, write_pattern(fds[1], LEN, 0, SEED));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(LEN, position(fd));
	ASSERT_EQ(0, pread_pattern(fd, 0, LEN, 0, SEED));
}

/* Nor does who waits for room. */
TEST(position_is_free_while_pipe_is_full)
{
	int fd = backing_file_filled(BACKING_TMPFS, FILE_LEN, SEED), fds[2];
	ssize_t stuffing;
	pid_t pid;

	if (fd < 0)
		SKIP(return, "no tmpfs here");
	stuffing = pipe_full(fds);
	ASSERT_LT(0, stuffing);
	pid = spawn_move(fd, fds[1], LEN);
	ASSERT_TRUE(await_asleep(pid, SYS_splice));
	ASSERT_EQ(0, position(fd));
	ASSERT_EQ(0, read_zeroes(fds[0], stuffing));
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(LEN, position(fd));
	ASSERT_EQ(0, read_pattern(fds[0], LEN, 0, SEED));
}

/* A handled signal ends the wait with EINTR, and nothing is lost. */
TEST_F(blocked, eintr_by_signal)
{
	const struct joint *j = &self->j;

	ASSERT_EQ(0, alarm_start(20, 0));
	ASSERT_EQ(-1, move(j->in, j->out, LEN));
	ASSERT_EQ(EINTR, errno);
	alarm_stop();
	ASSERT_EQ(0, unblock(j));
	ASSERT_EQ(LEN, move(j->in, j->out, LEN));
	ASSERT_EQ(0, arrived(j));
}

static const struct joint *blocked_joint;
static atomic_int nr_signals, unblock_result;

static void unblock_at_second_signal(int sig)
{
	if (++nr_signals == 2)
		unblock_result = unblock(blocked_joint);
}

/* With SA_RESTART the call goes on after the handler. */
TEST_F(blocked, restarts_after_signal)
{
	struct sigaction sa = { .sa_handler = unblock_at_second_signal,
				.sa_flags = SA_RESTART };
	const struct joint *j = &self->j;

	blocked_joint = j;
	ASSERT_EQ(0, alarm_start(20, SA_RESTART));
	ASSERT_EQ(0, sigaction(SIGALRM, &sa, NULL));
	ASSERT_EQ(LEN, move(j->in, j->out, LEN));
	alarm_stop();
	ASSERT_LE(2, nr_signals);
	ASSERT_EQ(0, unblock_result);
	ASSERT_EQ(0, arrived(j));
}

/* The same, where it is a pipe that blocks, without waiting. */

FIXTURE(nonblock)
{
	struct joint j;
};

FIXTURE_VARIANT(nonblock)
{
	enum input in;
	enum output out;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(nonblock, empty_to_file) { IN_EMPTY_PIPE, OUT_FILE };
FIXTURE_VARIANT_ADD(nonblock, empty_to_pipe) { IN_EMPTY_PIPE, OUT_PIPE };
FIXTURE_VARIANT_ADD(nonblock, empty_to_null) { IN_EMPTY_PIPE, OUT_NULL };
FIXTURE_VARIANT_ADD(nonblock, empty_to_unix) { IN_EMPTY_PIPE, OUT_UNIX };
FIXTURE_VARIANT_ADD(nonblock, file_to_full) { IN_FILE, OUT_FULL_PIPE };
FIXTURE_VARIANT_ADD(nonblock, pipe_to_full) { IN_PIPE, OUT_FULL_PIPE };
FIXTURE_VARIANT_ADD(nonblock, unix_to_full) { IN_UNIX, OUT_FULL_PIPE };
/* clang-format on */

FIXTURE_SETUP(nonblock)
{
	ASSERT_EQ(0, joint_input(&self->j, variant->in));
	ASSERT_EQ(0, joint_output(&self->j, variant->out));
}

FIXTURE_TEARDOWN(nonblock)
{
	close(self->j.in);
	close(self->j.out);
}

/* EAGAIN, nothing moved, and the same call works once unblocked. */
static void check_eagain(struct __test_metadata *_metadata,
			 const struct joint *j, unsigned int flags)
{
	ASSERT_EQ(-1, splice(j->in, NULL, j->out, NULL, LEN, flags));
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, unblock(j));
	ASSERT_EQ(LEN, splice(j->in, NULL, j->out, NULL, LEN, flags));
	ASSERT_EQ(0, arrived(j));
}

/* By the flag of the call. */
TEST_F(nonblock, eagain_splice_f_nonblock)
{
	check_eagain(_metadata, &self->j, SPLICE_F_NONBLOCK);
}

/* By the flag of the pipe that blocks. */
TEST_F(nonblock, eagain_o_nonblock)
{
	const struct joint *j = &self->j;

	ASSERT_EQ(0, set_nonblock(j->empty ? j->in : j->out));
	check_eagain(_metadata, j, 0);
}

/* Interrupted after some bytes: a short count, the rest still in the pipe. */
TEST(short_count_by_signal)
{
	ssize_t size = MIB, n;
	int p[2], sv[2];

	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(size, fcntl(p[1], F_SETPIPE_SZ, size));
	ASSERT_EQ(0, write_pattern(p[1], size, 0, SEED));
	ASSERT_EQ(0, alarm_start(20, 0));
	do {
		n = move(p[0], sv[0], size);
	} while (n < 0 && errno == EINTR);
	alarm_stop();
	ASSERT_LT(0, n);
	ASSERT_GT(size, n);
	ASSERT_EQ(size - n, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(sv[1], n, 0, SEED));
	ASSERT_EQ(0, read_pattern(p[0], size - n, n, SEED));
}

/* Stream sockets. */

FIXTURE(sockets)
{
	int sv[2];
	int p[2];
};

FIXTURE_VARIANT(sockets)
{
	int (*pair)(int sv[2]);
};

/* clang-format off */
FIXTURE_VARIANT_ADD(sockets, unix_stream) { .pair = unix_pair };
FIXTURE_VARIANT_ADD(sockets, tcp) { .pair = tcp_pair };
FIXTURE_VARIANT_ADD(sockets, ktls) { .pair = ktls_pair };
/* clang-format on */

FIXTURE_SETUP(sockets)
{
	int err = variant->pair(self->sv);

	if (err && errno == ENOENT)
		SKIP(return, "no kTLS here");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, pipe(self->p));
}

FIXTURE_TEARDOWN(sockets)
{
	close(self->sv[0]);
	close(self->sv[1]);
}

/* Pipe buffers of odd sizes leave through the socket in order. */
TEST_F(sockets, from_pipe)
{
	ssize_t len = 5 * PAGE + 77;

	ASSERT_EQ(0, write_pattern(self->p[1], 100, 0, SEED));
	ASSERT_EQ(0, write_pattern(self->p[1], len - 100, 100, SEED));
	ASSERT_EQ(len, move(self->p[0], self->sv[0], len));
	ASSERT_EQ(0, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->sv[1], len, 0, SEED));
}

/* What the peer sent comes out of the pipe. */
TEST_F(sockets, to_pipe)
{
	ssize_t len = 5 * PAGE + 77;

	ASSERT_EQ(0, write_pattern(self->sv[0], len, 0, SEED));
	ASSERT_EQ(len, move_all(self->sv[1], self->p[1], len));
	ASSERT_EQ(len, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], len, 0, SEED));
}

/* A short splice leaves the rest of the data in the socket. */
TEST_F(sockets, to_pipe_leaves_rest)
{
	ASSERT_EQ(0, write_pattern(self->sv[0], LEN, 0, SEED));
	ASSERT_EQ(300, move(self->sv[1], self->p[1], 300));
	ASSERT_EQ(0, read_pattern(self->p[0], 300, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->sv[1], LEN - 300, 300, SEED));
}

/* A short splice leaves the rest of the data in the pipe. */
TEST_F(sockets, from_pipe_leaves_rest)
{
	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, SEED));
	ASSERT_EQ(300, move(self->p[0], self->sv[0], 300));
	ASSERT_EQ(0, read_pattern(self->sv[1], 300, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->p[0], LEN - 300, 300, SEED));
}

/* More and larger buffers than one message to the socket can name. */
TEST_F(sockets, from_pipe_many_buffers)
{
	ssize_t len = 60 * PAGE + 1;
	pid_t pid;

	ASSERT_EQ(64 * PAGE, fcntl(self->p[1], F_SETPIPE_SZ, 64 * PAGE));
	ASSERT_EQ(0, write_pattern(self->p[1], len, 0, SEED));
	pid = spawn_reader(self->sv[1], len, 0, SEED);
	ASSERT_LT(0, pid);
	ASSERT_EQ(len, move(self->p[0], self->sv[0], len));
	ASSERT_EQ(0, reap(pid));
}

/* Page cache pages through pipe and socket to a reader. */
TEST_F(sockets, file_to_socket)
{
	ssize_t n, sum = 0, len = 256 * KIB + 123;
	int fd = backing_file_filled(BACKING_MEMFD, len, SEED);
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = spawn_reader(self->sv[1], len, 0, SEED);
	ASSERT_LT(0, pid);
	while ((n = move(fd, self->p[1], len)) > 0) {
		ASSERT_EQ(n, move_all(self->p[0], self->sv[0], n));
		sum += n;
	}
	ASSERT_EQ(len, sum);
	ASSERT_EQ(0, reap(pid));
}

/* What a writer sends into the socket becomes the file. */
TEST_F(sockets, socket_to_file)
{
	ssize_t n, sum = 0, len = 256 * KIB + 123;
	int fd = backing_file(BACKING_MEMFD);
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = spawn_writer(self->sv[0], len, 0, SEED);
	ASSERT_LT(0, pid);
	while (sum < len) {
		n = move(self->sv[1], self->p[1], len - sum);
		ASSERT_LT(0, n);
		ASSERT_EQ(n, move_all(self->p[0], fd, n));
		sum += n;
	}
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, pread_pattern(fd, 0, len, 0, SEED));
}

/* SPLICE_F_MORE may delay bytes, the last piece without it pushes all. */
TEST_F(sockets, more_keeps_order)
{
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, write_pattern(self->p[1], LEN, i * LEN, SEED));
		ASSERT_EQ(LEN, splice(self->p[0], NULL, self->sv[0], NULL, LEN,
				      i < 3 ? SPLICE_F_MORE : 0));
	}
	ASSERT_EQ(0, read_pattern(self->sv[1], 4 * LEN, 0, SEED));
}

/* After the peer's last byte: 0. */
TEST_F(sockets, to_pipe_0_at_end)
{
	ASSERT_EQ(0, write_pattern(self->sv[0], LEN, 0, SEED));
	close(self->sv[0]);
	ASSERT_EQ(LEN, move_all(self->sv[1], self->p[1], 2 * LEN));
	ASSERT_EQ(0, move(self->sv[1], self->p[1], LEN));
	ASSERT_EQ(0, read_pattern(self->p[0], LEN, 0, SEED));
	self->sv[0] = -1;
}

/* A socket has no offsets. */
TEST_F(sockets, einval_offset)
{
	off_t off = 0;

	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, SEED));
	ASSERT_EQ(0, write_pattern(self->sv[0], LEN, 0, SEED));
	ASSERT_EQ(-1, splice(self->p[0], NULL, self->sv[0], &off, LEN, 0));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, splice(self->sv[1], &off, self->p[1], NULL, LEN, 0));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(LEN, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->sv[1], LEN, 0, SEED));
}

/* A pipe on one side is required. */
TEST_F(sockets, einval_socket_to_socket)
{
	ASSERT_EQ(0, write_pattern(self->sv[0], LEN, 0, SEED));
	ASSERT_EQ(-1, move(self->sv[1], self->sv[0], LEN));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, read_pattern(self->sv[1], LEN, 0, SEED));
}

/* Non-blocking on both descriptors and no data: EAGAIN. */
TEST_F(sockets, eagain_empty_socket)
{
	ASSERT_EQ(0, set_nonblock(self->sv[1]));
	ASSERT_EQ(-1, splice(self->sv[1], NULL, self->p[1], NULL, LEN,
			     SPLICE_F_NONBLOCK));
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, bytes_queued(self->p[0]));
}

/* A full pipe takes nothing out of the socket. */
TEST_F(sockets, eagain_full_pipe)
{
	ASSERT_LT(0, pipe_fill_up(self->p[1]));
	ASSERT_EQ(0, write_pattern(self->sv[0], LEN, 0, SEED));
	ASSERT_EQ(-1, splice(self->sv[1], NULL, self->p[1], NULL, LEN,
			     SPLICE_F_NONBLOCK));
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, read_pattern(self->sv[1], LEN, 0, SEED));
}

/* An O_NONBLOCK socket fills: what it took and what the pipe kept are all. */
TEST_F(sockets, eagain_full_socket)
{
	ssize_t n, put = 0, sent = 0, chunk = 4 * PAGE + 5;
	int size = 32 * KIB;

	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDBUF, &size,
				sizeof(size)));
	ASSERT_EQ(0, setsockopt(self->sv[1], SOL_SOCKET, SO_RCVBUF, &size,
				sizeof(size)));
	ASSERT_EQ(0, set_nonblock(self->sv[0]));
	do {
		if (put == sent) {
			ASSERT_EQ(0,
				  write_pattern(self->p[1], chunk, put, SEED));
			put += chunk;
		}
		n = move(self->p[0], self->sv[0], put - sent);
		sent += n > 0 ? n : 0;
	} while (n > 0);
	ASSERT_EQ(-1, n);
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(put - sent, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->sv[1], sent, 0, SEED));
	ASSERT_EQ(0, read_pattern(self->p[0], put - sent, sent, SEED));
}

/* A record that is not data is refused and left for recvmsg(). */
TEST(einval_tls_control_record)
{
	char cbuf[CMSG_SPACE(1)] = { 0 }, data[2] = { 1, 0 };
	struct iovec iov = { data, sizeof(data) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = cbuf,
			      .msg_controllen = sizeof(cbuf) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int sv[2], p[2], err = ktls_pair(sv);

	if (err && errno == ENOENT)
		SKIP(return, "no kTLS here");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, pipe(p));
	c->cmsg_level = SOL_TLS;
	c->cmsg_type = TLS_SET_RECORD_TYPE;
	c->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(c) = 21;
	ASSERT_EQ(2, sendmsg(sv[0], &msg, 0));
	ASSERT_EQ(-1, move(sv[1], p[1], LEN));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, bytes_queued(p[0]));
	memset(cbuf, 0, sizeof(cbuf));
	memset(data, 0xff, sizeof(data));
	ASSERT_EQ(2, recvmsg(sv[1], &msg, 0));
	ASSERT_EQ(TLS_GET_RECORD_TYPE, CMSG_FIRSTHDR(&msg)->cmsg_type);
	ASSERT_EQ(21, *CMSG_DATA(CMSG_FIRSTHDR(&msg)));
	ASSERT_EQ(1, data[0]);
	ASSERT_EQ(0, data[1]);
}

/* Nothing more may be sent: EPIPE, SIGPIPE, and the pipe keeps its data. */
static void check_epipe(struct __test_metadata *_metadata,
			int (*pair)(int sv[2]))
{
	int sv[2], p[2];

	ASSERT_EQ(0, pair(sv));
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	ASSERT_EQ(0, shutdown(sv[0], SHUT_WR));
	ASSERT_EQ(-1, move(p[0], sv[0], LEN));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(1, signal_count(SIGPIPE));
	ASSERT_EQ(LEN, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
}

/* A UNIX socket that was shut down. */
TEST(epipe_unix_shutdown)
{
	check_epipe(_metadata, unix_pair);
}

/* A TCP socket that was shut down. */
TEST(epipe_tcp_shutdown)
{
	check_epipe(_metadata, tcp_pair);
}

/* From a datagram socket one call moves one datagram. */
TEST(datagrams_come_one_by_one)
{
	int sv[2], p[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, write_pattern(sv[0], 700, 0, SEED));
	ASSERT_EQ(0, write_pattern(sv[0], 300, 0, REST));
	ASSERT_EQ(700, move(sv[1], p[1], LEN));
	ASSERT_EQ(0, read_pattern(p[0], 700, 0, SEED));
	ASSERT_EQ(300, move(sv[1], p[1], LEN));
	ASSERT_EQ(0, read_pattern(p[0], 300, 0, REST));
}

/* A TCP socket that never had a peer. */
TEST(enotconn_input_never_connected)
{
	int p[2], fd = socket(AF_INET, SOCK_STREAM, 0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(-1, move(fd, p[1], LEN));
	ASSERT_EQ(ENOTCONN, errno);
}

/* The peer aborts the connection. */
TEST(econnreset_input_reset)
{
	struct linger now = { .l_onoff = 1 };
	struct pollfd pfd = { 0 };
	int p[2], sv[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, tcp_pair(sv));
	ASSERT_EQ(0,
		  setsockopt(sv[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(sv[0]);
	pfd.fd = sv[1];
	ASSERT_EQ(1, poll(&pfd, 1, -1));
	ASSERT_EQ(-1, move(sv[1], p[1], LEN));
	ASSERT_EQ(ECONNRESET, errno);
}

/* Refused calls: nothing of what there is may change. */

FIXTURE(refusal)
{
	int file; /* LEN bytes, position 0 */
	int full[2]; /* LEN bytes */
	int empty[2];
};

FIXTURE_SETUP(refusal)
{
	self->file = backing_file_filled(BACKING_MEMFD, LEN, REST);
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, pipe_filled(self->full, LEN, SEED));
	ASSERT_EQ(0, pipe(self->empty));
}

FIXTURE_TEARDOWN(refusal)
{
	EXPECT_EQ(0, bytes_queued(self->empty[0]));
	EXPECT_EQ(LEN, bytes_queued(self->full[0]));
	EXPECT_EQ(0, read_pattern(self->full[0], LEN, 0, SEED));
	EXPECT_EQ(0, position(self->file));
	EXPECT_EQ(LEN, lseek(self->file, 0, SEEK_END));
	EXPECT_EQ(0, pread_pattern(self->file, 0, LEN, 0, REST));
}

/* The errno of a call without offsets, 0: it was not refused. */
static int refused(int in, int out)
{
	return move(in, out, LEN) < 0 ? errno : 0;
}

/* Likewise with either offset, which must not be written then. */
static int refused_off(int in, off_t *off_in, int out, off_t *off_out)
{
	off_t was_in = off_in ? *off_in : 0, was_out = off_out ? *off_out : 0;
	int err = splice(in, off_in, out, off_out, LEN, 0) < 0 ? errno : 0;

	if ((off_in && *off_in != was_in) || (off_out && *off_out != was_out))
		return 0;
	return err;
}

/* Numbers that are no descriptors. */
TEST_F(refusal, ebadf_no_descriptor)
{
	int fd = dup(0);

	close(fd);
	EXPECT_EQ(EBADF, refused(-1, self->empty[1]));
	EXPECT_EQ(EBADF, refused(fd, self->empty[1]));
	EXPECT_EQ(EBADF, refused(self->full[0], -1));
	EXPECT_EQ(EBADF, refused(self->full[0], fd));
}

/* Input that is not open for reading. */
TEST_F(refusal, ebadf_write_only_input)
{
	int fd = reopen(self->file, O_WRONLY);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EBADF, refused(fd, self->empty[1]));
	EXPECT_EQ(EBADF, refused(self->full[1], self->empty[1]));
	EXPECT_EQ(EBADF, refused(self->full[1], self->file));
}

/* Output that is not open for writing. */
TEST_F(refusal, ebadf_read_only_output)
{
	int fd = reopen(self->file, O_RDONLY);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EBADF, refused(self->full[0], fd));
	EXPECT_EQ(EBADF, refused(self->full[0], self->empty[0]));
	EXPECT_EQ(EBADF, refused(self->file, self->empty[0]));
}

/* O_PATH opens nothing to read or write. */
TEST_F(refusal, ebadf_o_path)
{
	int fd = reopen(self->file, O_PATH);
	int pfd = reopen(self->full[0], O_PATH);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, pfd);
	EXPECT_EQ(EBADF, refused(fd, self->empty[1]));
	EXPECT_EQ(EBADF, refused(self->full[0], fd));
	EXPECT_EQ(EBADF, refused(pfd, self->file));
}

/* Every bit without a meaning, alone and beside the known ones. */
TEST_F(refusal, einval_unknown_flag)
{
	unsigned int bit;

	for (bit = 1; bit; bit <<= 1) {
		if (bit & ALL_FLAGS)
			continue;
		EXPECT_EQ(-1, splice(self->full[0], NULL, self->empty[1], NULL,
				     LEN, bit));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, splice(self->file, NULL, self->empty[1], NULL,
				     LEN, bit | SPLICE_F_MOVE));
		EXPECT_EQ(EINVAL, errno);
	}
}

/* A pipe on one side is required. */
TEST_F(refusal, einval_two_files)
{
	int fd = backing_file(BACKING_MEMFD);
	off_t off = 0;

	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, refused(self->file, fd));
	EXPECT_EQ(EINVAL, refused_off(self->file, &off, fd, NULL));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_END));
}

/* One pipe, by its two ends, a duplicate, or an open of its own. */
TEST_F(refusal, einval_same_pipe)
{
	int other = dup(self->full[1]);
	int both = reopen(self->full[0], O_RDWR);

	ASSERT_LE(0, other);
	ASSERT_LE(0, both);
	EXPECT_EQ(EINVAL, refused(self->full[0], self->full[1]));
	EXPECT_EQ(EINVAL, refused(self->full[0], other));
	EXPECT_EQ(EINVAL, refused(self->full[0], both));
	EXPECT_EQ(EINVAL, refused(both, both));
}

/* No offset for a pipe, not even a wild one. */
TEST_F(refusal, espipe_input_pipe)
{
	off_t off = 0;

	EXPECT_EQ(ESPIPE, refused_off(self->full[0], &off, self->file, NULL));
	EXPECT_EQ(ESPIPE, refused_off(self->full[0], &off, self->file, &off));
	EXPECT_EQ(ESPIPE,
		  refused_off(self->full[0], &off, self->empty[1], NULL));
	EXPECT_EQ(-1,
		  splice(self->full[0], (off_t *)8, self->file, NULL, LEN, 0));
	EXPECT_EQ(ESPIPE, errno);
}

/* Likewise on the output side. */
TEST_F(refusal, espipe_output_pipe)
{
	off_t off = 0;

	EXPECT_EQ(ESPIPE, refused_off(self->file, NULL, self->empty[1], &off));
	EXPECT_EQ(ESPIPE, refused_off(self->file, &off, self->empty[1], &off));
	EXPECT_EQ(ESPIPE,
		  refused_off(self->full[0], NULL, self->empty[1], &off));
}

/* An offset that cannot be read. */
TEST_F(refusal, efault_offset)
{
	off_t *bad =
		mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, bad);
	EXPECT_EQ(-1, splice(self->file, bad, self->empty[1], NULL, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, splice(self->full[0], NULL, self->file, bad, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
}

/* Before the first byte of a file. */
TEST_F(refusal, einval_negative_offset)
{
	off_t off = -1;

	EXPECT_EQ(EINVAL, refused_off(self->file, &off, self->empty[1], NULL));
	EXPECT_EQ(EINVAL, refused_off(self->full[0], NULL, self->file, &off));
}

/* Offset plus length beyond the largest offset. */
TEST_F(refusal, einval_offset_overflow)
{
	off_t off = INT64_MAX - LEN + 1;

	EXPECT_EQ(EINVAL, refused_off(self->file, &off, self->empty[1], NULL));
	EXPECT_EQ(EINVAL, refused_off(self->full[0], NULL, self->file, &off));
}

/* A length that is negative as a result would be. */
TEST_F(refusal, einval_negative_length)
{
	EXPECT_EQ(-1, move(self->file, self->empty[1], SIZE_MAX));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, move(self->full[0], self->file, SIZE_MAX));
	EXPECT_EQ(EINVAL, errno);
}

/* A directory has no bytes. */
TEST_F(refusal, einval_directory)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, refused(fd, self->empty[1]));
}

/* An eventfd has neither method. */
TEST_F(refusal, einval_eventfd)
{
	int fd = eventfd(1, 0);
	uint64_t count = 0;

	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, refused(fd, self->empty[1]));
	EXPECT_EQ(EINVAL, refused(self->full[0], fd));
	EXPECT_EQ(0, read_all(fd, &count, sizeof(count)));
	EXPECT_EQ(1UL, count);
}

/* What a pipe holds cannot go into one for notifications. */
TEST_F(refusal, exdev_notification_pipe)
{
	off_t off = 0;
	int n[2];

	if (notification_pipe(n)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	EXPECT_EQ(EXDEV, refused(self->full[0], n[1]));
	EXPECT_EQ(EINVAL, refused_off(self->full[0], NULL, n[1], &off));
	EXPECT_EQ(0, bytes_queued(n[0]));
}

/* Nor is that the pipe that has to be on one side. */
TEST_F(refusal, einval_notification_pipe)
{
	off_t off = 0;
	int n[2];

	if (notification_pipe(n)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	EXPECT_EQ(EINVAL, refused(self->file, n[1]));
	EXPECT_EQ(EINVAL, refused_off(self->file, &off, n[1], NULL));
	EXPECT_EQ(EINVAL, refused(n[0], self->file));
	EXPECT_EQ(EINVAL, refused(n[0], self->empty[1]));
	EXPECT_EQ(0, bytes_queued(n[0]));
}

/* Devices that have only one of the two methods. */
TEST_F(refusal, einval_one_way_device)
{
	int null = open("/dev/null", O_RDWR), full = open("/dev/full", O_RDWR);

	ASSERT_LE(0, null);
	ASSERT_LE(0, full);
	EXPECT_EQ(EINVAL, refused(null, self->empty[1]));
	EXPECT_EQ(EINVAL, refused(self->full[0], full));
}

/* A proc file with read() but no splice method. */
TEST_F(refusal, einval_proc_stat)
{
	int fd = open("/proc/self/stat", O_RDONLY);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, refused(fd, self->empty[1]));
	EXPECT_EQ(0, position(fd));
}

/* Sealed against writing. */
TEST_F(refusal, eperm_write_sealed)
{
	ASSERT_EQ(0, fcntl(self->file, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EPERM, refused(self->full[0], self->file));
}

/* Sealed against growth: inside the file it works, beyond its end not. */
TEST_F(refusal, eperm_growth_sealed)
{
	int fd = backing_file_filled(BACKING_MEMFD, LEN, REST), p[2];
	off_t off = LEN;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	EXPECT_EQ(EPERM, refused_off(self->full[0], NULL, fd, &off));
	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	EXPECT_EQ(LEN, move(p[0], fd, LEN));
	EXPECT_EQ(LEN, lseek(fd, 0, SEEK_END));
	EXPECT_EQ(0, pread_pattern(fd, 0, LEN, 0, SEED));
}

/* A file system may hold a file immutable that is open for writing. */
TEST_F(refusal, eperm_immutable)
{
	int fd, was, flags;

	if (!backing_available(BACKING_EXT4))
		SKIP(return, "no ext4 here");
	fd = backing_file_filled(BACKING_EXT4, LEN, REST);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, FS_IOC_GETFLAGS, &was));
	flags = was | FS_IMMUTABLE_FL;
	ASSERT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &flags));
	EXPECT_EQ(EPERM, refused(self->full[0], fd));
	EXPECT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &was));
	EXPECT_EQ(0, pread_pattern(fd, 0, LEN, 0, REST));
}

/* Beyond the largest file of ext4. */
TEST_F(refusal, efbig_beyond_what_ext4_holds)
{
	off_t off = 1L << 50;
	int fd;

	if (!backing_available(BACKING_EXT4))
		SKIP(return, "no ext4 here");
	fd = backing_file(BACKING_EXT4);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EFBIG, refused_off(self->full[0], NULL, fd, &off));
	EXPECT_EQ(0, splice(fd, &off, self->empty[1], NULL, LEN, 0));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_END));
}

/* A file that ext4 swaps to may not change under the kernel. */

FIXTURE(swapfile)
{
	int fd;
};

FIXTURE_SETUP(swapfile)
{
	if (!swap_available(BACKING_EXT4))
		SKIP(return, "no swapping to ext4");
	self->fd = swap_file(BACKING_EXT4, REST);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(swapfile)
{
	EXPECT_EQ(0, undo_now());
}

/* Splicing to it is refused and the pipe keeps its data. */
TEST_F(swapfile, etxtbsy_swapfile)
{
	off_t off = 0;
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	ASSERT_EQ(-1, splice(p[0], NULL, self->fd, &off, LEN, 0));
	ASSERT_EQ(ETXTBSY, errno);
	ASSERT_EQ(0, off);
	ASSERT_EQ(LEN, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
}

/* Output that takes only part: the first @room bytes of 4 pages, then @err. */
static void check_partial(struct __test_metadata *_metadata, int fd,
			  ssize_t room, int err)
{
	ssize_t rest = 4 * PAGE - room;
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, 4 * PAGE, SEED));
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	ASSERT_EQ(room, move(p[0], fd, 4 * PAGE));
	ASSERT_EQ(room, position(fd));
	ASSERT_EQ(-1, move(p[0], fd, rest));
	ASSERT_EQ(err, errno);
	ASSERT_EQ(room, position(fd));
	ASSERT_EQ(rest, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], rest, room, SEED));
	ASSERT_EQ(room, lseek(fd, 0, SEEK_END));
	ASSERT_EQ(0, pread_pattern(fd, 0, room, 0, SEED));
}

/* RLIMIT_FSIZE in the middle of a page. */
TEST(efbig_file_size_limit)
{
	struct rlimit rl = { .rlim_cur = PAGE + 1000,
			     .rlim_max = RLIM_INFINITY };
	int fd = backing_file(BACKING_MEMFD);

	ASSERT_LE(0, fd);
	ASSERT_NE(SIG_ERR, signal(SIGXFSZ, SIG_IGN));
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &rl));
	check_partial(_metadata, fd, PAGE + 1000, EFBIG);
}

/* A file system that is full after 3 pages. */
TEST(enospc_after_short_count)
{
	char size[32];
	int fd;

	snprintf(size, sizeof(size), "%zd", 3 * PAGE);
	fd = small_tmpfs_file(size);
	if (fd < 0)
		SKIP(return, "cannot make a tmpfs: %s", strerror(errno));
	check_partial(_metadata, fd, 3 * PAGE, ENOSPC);
}

/* No reader of the output pipe: EPIPE, SIGPIPE, the position stays. */
TEST(epipe_file_to_pipe)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, LEN, SEED);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	close(p[0]);
	ASSERT_EQ(-1, move(fd, p[1], LEN));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(1, signal_count(SIGPIPE));
	ASSERT_EQ(0, position(fd));
}

/* Likewise from a pipe, which keeps its data, with room or without. */
TEST(epipe_pipe_to_pipe)
{
	int p[2], out[2], full[2];

	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	ASSERT_EQ(0, pipe(out));
	ASSERT_LT(0, pipe_full(full));
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	close(out[0]);
	close(full[0]);
	ASSERT_EQ(-1, move(p[0], out[1], LEN));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(1, signal_count(SIGPIPE));
	ASSERT_EQ(-1, move(p[0], full[1], LEN));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(2, signal_count(SIGPIPE));
	ASSERT_EQ(LEN, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
}

/* The reader goes while the writer waits for room. */
TEST(epipe_reader_leaves_waiting_writer)
{
	int p[2], out[2];
	pid_t pid;

	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	ASSERT_LT(0, pipe_full(out));
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid) {
		signal(SIGPIPE, SIG_IGN);
		close(out[0]);
		_exit(move(p[0], out[1], LEN) == -1 ? errno : 0);
	}
	ASSERT_TRUE(await_asleep(pid, SYS_splice));
	close(out[0]);
	ASSERT_EQ(EPIPE, reap(pid));
	ASSERT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
}

/* The last writer goes while the reader waits: end of input. */
TEST(returns_0_when_writer_leaves)
{
	int p[2], fd = file_to_hit(BACKING_MEMFD);
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(p[1]);
		_exit(move(p[0], fd, LEN) ? 1 : 0);
	}
	ASSERT_TRUE(await_asleep(pid, SYS_splice));
	close(p[1]);
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(0, position(fd));
	ASSERT_EQ(0, pread_pattern(fd, 0, FILE_LEN, 0, REST));
}

/* No writers and no data: 0, and the file is not touched. */
TEST(returns_0_without_writers)
{
	int p[2], fd = file_to_hit(BACKING_MEMFD);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	close(p[1]);
	ASSERT_EQ(LEN, move(p[0], fd, PAGE));
	ASSERT_EQ(0, move(p[0], fd, PAGE));
	ASSERT_EQ(LEN, position(fd));
	expect_only_range_hit(_metadata, fd, 0, LEN);
}

/* Buffers partly read, and partly spliced, go to the file from there on. */
TEST(partial_buffers_to_file)
{
	int p[2], fd = file_to_hit(BACKING_MEMFD);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe_filled(p, 3 * PAGE, SEED));
	ASSERT_EQ(0, read_pattern(p[0], 100, 0, SEED));
	ASSERT_EQ(50, move(p[0], fd, 50));
	ASSERT_EQ(0, pread_pattern(fd, 0, 50, 100, SEED));
	ASSERT_EQ(PAGE, move(p[0], fd, PAGE));
	ASSERT_EQ(2 * PAGE - 150, bytes_queued(p[0]));
	ASSERT_EQ(0, pread_pattern(fd, 0, PAGE + 50, 100, SEED));
	ASSERT_EQ(0, read_pattern(p[0], 2 * PAGE - 150, PAGE + 150, SEED));
}

/* The largest length is cut to what there is, not refused. */
TEST(huge_length_is_cut)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, LEN, SEED);
	int out = backing_file(BACKING_MEMFD);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, out);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(LEN, move(fd, p[1], INT64_MAX));
	ASSERT_EQ(LEN, move(p[0], out, INT64_MAX));
	ASSERT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* Devices, proc, sysfs, terminals. */

/* /dev/null and /dev/zero swallow what they are told to, no more. */
TEST(null_and_zero_swallow)
{
	static const char *const names[] = { "/dev/null", "/dev/zero" };
	int p[2], fd;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		fd = open(names[i], O_WRONLY);
		ASSERT_LE(0, fd);
		ASSERT_EQ(0, pipe_filled(p, 3 * PAGE, SEED));
		ASSERT_EQ(PAGE + 5, move(p[0], fd, PAGE + 5));
		ASSERT_EQ(2 * PAGE - 5, bytes_queued(p[0]));
		ASSERT_EQ(0, read_pattern(p[0], 2 * PAGE - 5, PAGE + 5, SEED));
	}
}

/* /dev/zero gives zeroes, in pages that were never anybody's. */
TEST(zero_fills_pipe)
{
	int p[2], fd = open("/dev/zero", O_RDONLY);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(4 * PAGE + 7, move_all(fd, p[1], 4 * PAGE + 7));
	ASSERT_EQ(4 * PAGE + 7, bytes_queued(p[0]));
	ASSERT_EQ(0, read_zeroes(p[0], 4 * PAGE + 7));
}

/* splice() from a file made up on the fly gives what read() gives. */
static void check_like_read(struct __test_metadata *_metadata, const char *path)
{
	char want[4096], got[4096];
	int p[2], fd = open(path, O_RDONLY);
	ssize_t n, len;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	n = read(fd, want, sizeof(want));
	ASSERT_LT(0, n);
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	len = move(fd, p[1], sizeof(want));
	ASSERT_EQ(n, len);
	ASSERT_EQ(n, position(fd));
	ASSERT_EQ(n, read(p[0], got, sizeof(got)));
	ASSERT_EQ(0, memcmp(want, got, n));
}

/* A sysctl. */
TEST(proc_sys_like_read)
{
	check_like_read(_metadata, "/proc/sys/kernel/osrelease");
}

/* A sequence file. */
TEST(proc_filesystems_like_read)
{
	check_like_read(_metadata, "/proc/filesystems");
}

/* An attribute. */
TEST(sysfs_like_read)
{
	check_like_read(_metadata, "/sys/devices/system/cpu/possible");
}

/* A sysctl is set by what comes through the pipe; to what it was already. */
TEST(proc_sys_takes_value)
{
	int p[2], fd = open("/proc/sys/fs/pipe-max-size", O_RDWR);
	char was[32], now[32];
	ssize_t n;

	if (fd < 0)
		SKIP(return, "cannot write a sysctl: %s", strerror(errno));
	n = read(fd, was, sizeof(was));
	ASSERT_LT(0, n);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(n, write(p[1], was, n));
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	ASSERT_EQ(n, move(p[0], fd, n));
	ASSERT_EQ(0, bytes_queued(p[0]));
	ASSERT_EQ(n, pread(fd, now, sizeof(now), 0));
	ASSERT_EQ(0, memcmp(was, now, n));
	ASSERT_EQ(n, write(p[1], "garbage-garbage-garbage", n));
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	ASSERT_EQ(-1, move(p[0], fd, n));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(n, bytes_queued(p[0]));
}

FIXTURE(pty)
{
	int main, sub;
	int p[2];
};

FIXTURE_SETUP(pty)
{
	int fds[2];

	ASSERT_EQ(0, pty_pair(fds));
	self->main = fds[0];
	self->sub = fds[1];
	ASSERT_EQ(0, pipe(self->p));
}

FIXTURE_TEARDOWN(pty)
{
	close(self->main);
	close(self->sub);
}

/* What is typed comes out of the pipe. */
TEST_F(pty, to_pipe)
{
	ASSERT_EQ(0, write_pattern(self->main, LEN, 0, SEED));
	ASSERT_EQ(LEN, move_all(self->sub, self->p[1], LEN));
	ASSERT_EQ(0, read_pattern(self->p[0], LEN, 0, SEED));
}

/* What comes through the pipe is shown. */
TEST_F(pty, from_pipe)
{
	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, SEED));
	ASSERT_EQ(LEN, move_all(self->p[0], self->sub, LEN));
	ASSERT_EQ(0, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->main, LEN, 0, SEED));
}

/* A terminal has no offsets. */
TEST_F(pty, einval_offset)
{
	off_t off = 0;

	ASSERT_EQ(0, write_pattern(self->p[1], LEN, 0, SEED));
	ASSERT_EQ(-1, splice(self->p[0], NULL, self->sub, &off, LEN, 0));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, splice(self->sub, &off, self->p[1], NULL, LEN, 0));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, read_pattern(self->p[0], LEN, 0, SEED));
}

TEST_HARNESS_MAIN
