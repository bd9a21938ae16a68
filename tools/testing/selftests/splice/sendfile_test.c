// SPDX-License-Identifier: GPL-2.0-only
/*
 * sendfile(2): what arrives, what the offsets say afterwards, and what a call
 * that was refused or cut short leaves behind.  Covers do_sendfile() and the
 * 32-bit entries in fs/read_write.c, splice_direct_to_actor() and its
 * process-private pipe in fs/splice.c.
 *
 * errno      test, or why there is none
 * EAGAIN     stream.eagain_full_output, socket.eagain_send_timeout
 * EBADF      ebadf_*
 * EFAULT     efault_*
 * EFBIG      destination.efbig_file_size_limit
 * EINTR      stream.eintr_blocked_output
 * EINVAL     einval_*, destination.einval_append_output; "locked" is history
 *            since mandatory locks went
 * EIO        eio_terminal_without_peer
 * ENOMEM     enomem_private_pipe; with SPLICE_FAULTS, see splice_fault.h
 * ENOSPC     enospc_after_short_count
 * EOVERFLOW  eoverflow_*, compat.eoverflow_*
 * EPERM      eperm_sealed_*
 * EPIPE      broken_stream.epipe*
 * ESPIPE     espipe_*
 * ETXTBSY    swap_file.etxtbsy_output
 * EXDEV      exdev_notification_pipe_output
 */

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "splice_util.h"

#define SEED 11
#define POISON 22
#define OTHER 33

/* Signed, as positions and results are. */
#define BYTES(n) ((off_t)(n))
/* Neither a multiple of a page nor of what the private pipe holds. */
#define LEN BYTES(300 * KIB + 123)
/* More than any of the streams below buffers. */
#define LONG_LEN BYTES(2 * MIB)
/* For direct I/O. */
#define BLOCKS BYTES(256 * KIB)
/* Does not fit 32 bits. */
#define FAR BYTES(5 * 1024 * MIB + 123)

/* Until @len bytes are through or the input ends, whatever short counts. */
static ssize_t send_all(int out, int in, off_t *off, size_t len)
{
	size_t sum = 0;

	while (sum < len) {
		ssize_t n = sendfile(out, in, off, len - sum);

		if (n < 0)
			return -1;
		if (!n)
			break;
		sum += n;
	}
	return sum;
}

/* What a failed call might have left in the private pipe would show up here. */
static bool private_pipe_is_clean(void)
{
	int in = memfd_filled(LEN, OTHER), out = backing_file(BACKING_MEMFD);
	bool clean = sendfile(out, in, NULL, LEN) == LEN &&
		     file_size(out) == LEN &&
		     !pread_pattern(out, 0, LEN, 0, OTHER);

	close(in);
	close(out);
	return clean;
}

/* As an ordinary user: 0 when all is sent, else the errno. */
static int send_as_nobody(int out, int in, size_t len)
{
	pid_t pid = fork_nobody();
	ssize_t n;

	if (pid)
		return reap(pid);
	n = sendfile(out, in, NULL, len);
	_exit(n == (ssize_t)len ? 0 : n < 0 ? errno : 254);
}

/* ---- from any file to any file ---- */

FIXTURE(pair)
{
	int in;
	int out;
};

FIXTURE_VARIANT(pair)
{
	enum backing in;
	enum backing out;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(pair, ext4_to_ext4) { BACKING_EXT4, BACKING_EXT4 };
FIXTURE_VARIANT_ADD(pair, ext4_to_xfs) { BACKING_EXT4, BACKING_XFS };
FIXTURE_VARIANT_ADD(pair, ext4_to_tmpfs) { BACKING_EXT4, BACKING_TMPFS };
FIXTURE_VARIANT_ADD(pair, ext4_to_overlay) { BACKING_EXT4, BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(pair, ext4_to_memfd) { BACKING_EXT4, BACKING_MEMFD };
FIXTURE_VARIANT_ADD(pair, xfs_to_ext4) { BACKING_XFS, BACKING_EXT4 };
FIXTURE_VARIANT_ADD(pair, xfs_to_xfs) { BACKING_XFS, BACKING_XFS };
FIXTURE_VARIANT_ADD(pair, xfs_to_tmpfs) { BACKING_XFS, BACKING_TMPFS };
FIXTURE_VARIANT_ADD(pair, xfs_to_overlay) { BACKING_XFS, BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(pair, xfs_to_memfd) { BACKING_XFS, BACKING_MEMFD };
FIXTURE_VARIANT_ADD(pair, tmpfs_to_ext4) { BACKING_TMPFS, BACKING_EXT4 };
FIXTURE_VARIANT_ADD(pair, tmpfs_to_xfs) { BACKING_TMPFS, BACKING_XFS };
FIXTURE_VARIANT_ADD(pair, tmpfs_to_tmpfs) { BACKING_TMPFS, BACKING_TMPFS };
FIXTURE_VARIANT_ADD(pair, tmpfs_to_overlay) { BACKING_TMPFS, BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(pair, tmpfs_to_memfd) { BACKING_TMPFS, BACKING_MEMFD };
FIXTURE_VARIANT_ADD(pair, overlay_to_ext4) { BACKING_OVERLAY, BACKING_EXT4 };
FIXTURE_VARIANT_ADD(pair, overlay_to_xfs) { BACKING_OVERLAY, BACKING_XFS };
FIXTURE_VARIANT_ADD(pair, overlay_to_tmpfs) { BACKING_OVERLAY, BACKING_TMPFS };
FIXTURE_VARIANT_ADD(pair, overlay_to_overlay) {
	BACKING_OVERLAY, BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(pair, overlay_to_memfd) { BACKING_OVERLAY, BACKING_MEMFD };
FIXTURE_VARIANT_ADD(pair, memfd_to_ext4) { BACKING_MEMFD, BACKING_EXT4 };
FIXTURE_VARIANT_ADD(pair, memfd_to_xfs) { BACKING_MEMFD, BACKING_XFS };
FIXTURE_VARIANT_ADD(pair, memfd_to_tmpfs) { BACKING_MEMFD, BACKING_TMPFS };
FIXTURE_VARIANT_ADD(pair, memfd_to_overlay) { BACKING_MEMFD, BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(pair, memfd_to_memfd) { BACKING_MEMFD, BACKING_MEMFD };
/* clang-format on */

FIXTURE_SETUP(pair)
{
	if (!backing_available(variant->in))
		SKIP(return, "no %s here", backing_name(variant->in));
	if (!backing_available(variant->out))
		SKIP(return, "no %s here", backing_name(variant->out));
	self->in = backing_file_filled(variant->in, LEN, SEED);
	ASSERT_LE(0, self->in);
	self->out = backing_file(variant->out);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(pair)
{
	close(self->in);
	close(self->out);
}

/* One call copies a whole file and moves both positions by as much. */
TEST_F(pair, whole_file_arrives)
{
	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, LEN));
	EXPECT_EQ(LEN, position(self->in));
	EXPECT_EQ(LEN, position(self->out));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

/* Bytes on both sides of an unaligned range stay as they were. */
TEST_F(pair, unaligned_range_replaces_only_itself)
{
	const off_t at = 777, count = 200001;
	off_t off = 4099;

	ASSERT_EQ(0, write_pattern(self->out, LEN, 0, POISON));
	ASSERT_EQ(at, lseek(self->out, at, SEEK_SET));
	ASSERT_EQ(count, sendfile(self->out, self->in, &off, count));
	EXPECT_EQ(4099 + count, off);
	EXPECT_EQ(at + count, position(self->out));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, at, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, at, count, 4099, SEED));
	EXPECT_EQ(0, pread_pattern(self->out, at + count, LEN - at - count,
				   at + count, POISON));
}

/* ---- sizes around pages and around one fill of the private pipe ---- */

FIXTURE(size)
{
	int in;
};

FIXTURE_VARIANT(size)
{
	off_t len;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(size, byte) { .len = 1 };
FIXTURE_VARIANT_ADD(size, page_less_one) { .len = 4 * KIB - 1 };
FIXTURE_VARIANT_ADD(size, page) { .len = 4 * KIB };
FIXTURE_VARIANT_ADD(size, page_and_one) { .len = 4 * KIB + 1 };
FIXTURE_VARIANT_ADD(size, pipe_less_one) { .len = 64 * KIB - 1 };
FIXTURE_VARIANT_ADD(size, pipe) { .len = 64 * KIB };
FIXTURE_VARIANT_ADD(size, pipe_and_one) { .len = 64 * KIB + 1 };
FIXTURE_VARIANT_ADD(size, megabyte_and_one) { .len = MIB + 1 };
FIXTURE_VARIANT_ADD(size, three_megabytes) { .len = 3 * MIB };
/* clang-format on */

FIXTURE_SETUP(size)
{
	self->in = memfd_filled(variant->len, SEED);
	ASSERT_LE(0, self->in);
}

FIXTURE_TEARDOWN(size)
{
	close(self->in);
}

/* Every size arrives in a file, and not a byte more. */
TEST_F(size, file_arrives)
{
	int out = backing_file(BACKING_MEMFD);

	ASSERT_EQ(variant->len, sendfile(out, self->in, NULL, variant->len));
	EXPECT_EQ(variant->len, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, variant->len, 0, SEED));
}

/* Every size arrives at a socket, and not a byte more. */
TEST_F(size, socket_data_arrives)
{
	pid_t reader;
	int sv[2];

	ASSERT_EQ(0, unix_pair(sv));
	reader = spawn_reader(sv[1], variant->len, 0, SEED);
	ASSERT_EQ(variant->len, send_all(sv[0], self->in, NULL, variant->len));
	EXPECT_EQ(0, reap(reader));
	EXPECT_EQ(0, bytes_queued(sv[1]));
}

/* ---- streams ---- */

enum stream {
	STREAM_UNIX,
	STREAM_TCP,
	STREAM_KTLS,
	STREAM_PIPE,
	STREAM_FIFO,
};

static int fifo_pair(int sv[2])
{
	int fd = fifo_in("/tmp");

	if (fd < 0)
		return -1;
	sv[0] = reopen(fd, O_WRONLY);
	sv[1] = reopen(fd, O_RDONLY);
	close(fd);
	return sv[0] < 0 || sv[1] < 0 ? -1 : 0;
}

static int anonymous_pair(int sv[2])
{
	int fds[2];

	if (pipe(fds))
		return -1;
	sv[0] = fds[1];
	sv[1] = fds[0];
	return 0;
}

/* sv[0] is written to, sv[1] is read from. */
static int stream_pair(enum stream s, int sv[2])
{
	static int (*const make[])(int *) = {
		[STREAM_UNIX] = unix_pair, [STREAM_TCP] = tcp_pair,
		[STREAM_KTLS] = ktls_pair, [STREAM_PIPE] = anonymous_pair,
		[STREAM_FIFO] = fifo_pair,
	};
	int small = 64 * KIB;

	if (make[s](sv))
		return -1;
	/* Fails for a pipe, which is small enough. */
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	return 0;
}

/* Send without blocking until nothing more goes in; how much went in. */
static ssize_t fill_output(int out, int in, off_t *off)
{
	int flags = fcntl(out, F_GETFL);
	ssize_t n, sum = 0;

	if (set_nonblock(out))
		return -1;
	while ((n = sendfile(out, in, off, LONG_LEN)) > 0)
		sum += n;
	if (!n)
		errno = ENODATA;
	else if (errno == EAGAIN && !fcntl(out, F_SETFL, flags))
		return sum;
	return -1;
}

/* The stream holds @len bytes of the input and then ends. */
static bool holds_exactly(int sv[2], size_t len)
{
	char c;

	if (read_pattern(sv[1], len, 0, SEED))
		return false;
	close(sv[0]);
	return read(sv[1], &c, 1) == 0;
}

/* Starts to read when three signals have hit the sender. */
struct late_reader {
	int fd;
	size_t len;
	int ret;
};

static void *read_late(void *arg)
{
	struct late_reader *r = arg;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	while (signal_count(SIGALRM) < 3)
		usleep(5000);
	r->ret = read_pattern(r->fd, r->len, 0, SEED);
	return NULL;
}

FIXTURE(stream)
{
	int in;
	int sv[2];
	off_t off;
};

FIXTURE_VARIANT(stream)
{
	enum stream kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(stream, unix) { .kind = STREAM_UNIX };
FIXTURE_VARIANT_ADD(stream, tcp) { .kind = STREAM_TCP };
FIXTURE_VARIANT_ADD(stream, ktls) { .kind = STREAM_KTLS };
FIXTURE_VARIANT_ADD(stream, pipe) { .kind = STREAM_PIPE };
FIXTURE_VARIANT_ADD(stream, fifo) { .kind = STREAM_FIFO };
/* clang-format on */

FIXTURE_SETUP(stream)
{
	if (stream_pair(variant->kind, self->sv)) {
		ASSERT_EQ(ENOENT, errno);
		SKIP(return, "no kTLS here");
	}
	self->in = memfd_filled(LONG_LEN, SEED);
	ASSERT_LE(0, self->in);
	self->off = 0;
}

FIXTURE_TEARDOWN(stream)
{
	close(self->in);
	close(self->sv[0]);
	close(self->sv[1]);
}

/* A blocking output takes a file that is larger than its buffers. */
TEST_F(stream, whole_file_arrives)
{
	pid_t reader = spawn_reader(self->sv[1], LONG_LEN, 0, SEED);

	ASSERT_EQ(LONG_LEN, send_all(self->sv[0], self->in, NULL, LONG_LEN));
	EXPECT_EQ(LONG_LEN, position(self->in));
	EXPECT_EQ(0, reap(reader));
	EXPECT_EQ(0, bytes_queued(self->sv[1]));
}

/* An unaligned range arrives; the offset moves, the position does not. */
TEST_F(stream, unaligned_range_arrives)
{
	pid_t reader = spawn_reader(self->sv[1], 150001, 12345, SEED);

	self->off = 12345;
	ASSERT_EQ(150001, send_all(self->sv[0], self->in, &self->off, 150001));
	EXPECT_EQ(12345 + 150001, self->off);
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(0, reap(reader));
	EXPECT_EQ(0, bytes_queued(self->sv[1]));
}

/* The last bytes do not wait for more when the file ends before the count. */
TEST_F(stream, end_of_file_is_pushed_out)
{
	pid_t reader =
		spawn_reader(self->sv[1], 100001, LONG_LEN - 100001, SEED);

	self->off = LONG_LEN - 100001;
	ASSERT_EQ(100001, send_all(self->sv[0], self->in, &self->off, MIB));
	EXPECT_EQ(LONG_LEN, self->off);
	EXPECT_EQ(0, reap(reader));
}

/* Nothing to send: 0, and the reader sees nothing. */
TEST_F(stream, count_zero)
{
	EXPECT_EQ(0, sendfile(self->sv[0], self->in, &self->off, 0));
	EXPECT_EQ(0, self->off);
	EXPECT_EQ(0, bytes_queued(self->sv[1]));
}

/* A full output is EAGAIN; the offset counts what went in, no more, no less. */
TEST_F(stream, eagain_full_output)
{
	ssize_t sum = fill_output(self->sv[0], self->in, &self->off);

	ASSERT_LT(0, sum);
	ASSERT_GT(LONG_LEN, sum);
	EXPECT_EQ(sum, self->off);
	EXPECT_TRUE(private_pipe_is_clean());
	EXPECT_TRUE(holds_exactly(self->sv, sum));
}

/* The same for the file position. */
TEST_F(stream, eagain_keeps_position_exact)
{
	ssize_t sum = fill_output(self->sv[0], self->in, NULL);

	ASSERT_LT(0, sum);
	EXPECT_EQ(sum, position(self->in));
	EXPECT_TRUE(holds_exactly(self->sv, sum));
}

/* A signal ends a call that waits for a full output and has sent nothing. */
TEST_F(stream, eintr_blocked_output)
{
	ssize_t n, sum = fill_output(self->sv[0], self->in, &self->off);

	ASSERT_LT(0, sum);
	ASSERT_EQ(0, alarm_start(20, 0));
	while ((n = sendfile(self->sv[0], self->in, &self->off, LONG_LEN)) > 0)
		sum += n;
	EXPECT_EQ(-1, n);
	EXPECT_EQ(EINTR, errno);
	alarm_stop();
	EXPECT_EQ(sum, self->off);
	EXPECT_TRUE(private_pipe_is_clean());
	EXPECT_TRUE(holds_exactly(self->sv, sum));
}

/* With SA_RESTART the waiting call goes on and nothing is sent twice. */
TEST_F(stream, restart_blocked_output)
{
	struct late_reader r = { .fd = self->sv[1], .len = LONG_LEN };
	ssize_t sum = fill_output(self->sv[0], self->in, &self->off);
	pthread_t thread;

	ASSERT_LT(0, sum);
	ASSERT_EQ(0, alarm_start(30, SA_RESTART));
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_late, &r));
	EXPECT_EQ(LONG_LEN - sum,
		  send_all(self->sv[0], self->in, &self->off, LONG_LEN - sum));
	EXPECT_EQ(0, pthread_join(thread, NULL));
	alarm_stop();
	EXPECT_EQ(LONG_LEN, self->off);
	EXPECT_EQ(0, r.ret);
	EXPECT_EQ(0, bytes_queued(self->sv[1]));
}

/* A TCP socket learns only from an answer that its peer is gone. */
static int break_output(enum stream s, int sv[2])
{
	if (s == STREAM_TCP)
		return shutdown(sv[0], SHUT_WR);
	return close(sv[1]);
}

FIXTURE(broken_stream)
{
	int in;
	int sv[2];
};

FIXTURE_VARIANT(broken_stream)
{
	enum stream kind;
};

/* Not KTLS: it takes a record, reports it as sent, and only signals. */
/* clang-format off */
FIXTURE_VARIANT_ADD(broken_stream, unix) { .kind = STREAM_UNIX };
FIXTURE_VARIANT_ADD(broken_stream, tcp) { .kind = STREAM_TCP };
FIXTURE_VARIANT_ADD(broken_stream, pipe) { .kind = STREAM_PIPE };
FIXTURE_VARIANT_ADD(broken_stream, fifo) { .kind = STREAM_FIFO };
/* clang-format on */

FIXTURE_SETUP(broken_stream)
{
	ASSERT_EQ(0, stream_pair(variant->kind, self->sv));
	ASSERT_EQ(0, break_output(variant->kind, self->sv));
	self->in = memfd_filled(LEN, SEED);
	ASSERT_LE(0, self->in);
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
}

FIXTURE_TEARDOWN(broken_stream)
{
	close(self->in);
	close(self->sv[0]);
}

/* Nobody can receive any more: EPIPE and one SIGPIPE, the offset stays. */
TEST_F(broken_stream, epipe)
{
	off_t off = 10;

	EXPECT_EQ(-1, sendfile(self->sv[0], self->in, &off, LEN));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(10, off);
	EXPECT_TRUE(private_pipe_is_clean());
}

/* A broken output that does not block is EPIPE too, not EAGAIN. */
TEST_F(broken_stream, epipe_nonblocking)
{
	ASSERT_EQ(0, set_nonblock(self->sv[0]));
	EXPECT_EQ(-1, sendfile(self->sv[0], self->in, NULL, LEN));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(0, position(self->in));
}

/* ---- sockets ---- */

FIXTURE(socket)
{
	int in;
	int sv[2];
};

FIXTURE_VARIANT(socket)
{
	enum backing in;
	enum stream kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(socket, ext4_to_unix) { BACKING_EXT4, STREAM_UNIX };
FIXTURE_VARIANT_ADD(socket, ext4_to_tcp) { BACKING_EXT4, STREAM_TCP };
FIXTURE_VARIANT_ADD(socket, ext4_to_ktls) { BACKING_EXT4, STREAM_KTLS };
FIXTURE_VARIANT_ADD(socket, xfs_to_unix) { BACKING_XFS, STREAM_UNIX };
FIXTURE_VARIANT_ADD(socket, xfs_to_tcp) { BACKING_XFS, STREAM_TCP };
FIXTURE_VARIANT_ADD(socket, xfs_to_ktls) { BACKING_XFS, STREAM_KTLS };
FIXTURE_VARIANT_ADD(socket, tmpfs_to_unix) { BACKING_TMPFS, STREAM_UNIX };
FIXTURE_VARIANT_ADD(socket, tmpfs_to_tcp) { BACKING_TMPFS, STREAM_TCP };
FIXTURE_VARIANT_ADD(socket, tmpfs_to_ktls) { BACKING_TMPFS, STREAM_KTLS };
FIXTURE_VARIANT_ADD(socket, overlay_to_unix) { BACKING_OVERLAY, STREAM_UNIX };
FIXTURE_VARIANT_ADD(socket, overlay_to_tcp) { BACKING_OVERLAY, STREAM_TCP };
FIXTURE_VARIANT_ADD(socket, overlay_to_ktls) { BACKING_OVERLAY, STREAM_KTLS };
/* clang-format on */

FIXTURE_SETUP(socket)
{
	if (!backing_available(variant->in))
		SKIP(return, "no %s here", backing_name(variant->in));
	if (stream_pair(variant->kind, self->sv)) {
		ASSERT_EQ(ENOENT, errno);
		SKIP(return, "no kTLS here");
	}
	self->in = backing_file_filled(variant->in, LEN, SEED);
	ASSERT_LE(0, self->in);
}

FIXTURE_TEARDOWN(socket)
{
	close(self->in);
	close(self->sv[0]);
	close(self->sv[1]);
}

/* A file of any file system arrives. */
TEST_F(socket, file_arrives)
{
	pid_t reader = spawn_reader(self->sv[1], LEN, 0, SEED);

	ASSERT_EQ(LEN, send_all(self->sv[0], self->in, NULL, LEN));
	EXPECT_EQ(0, reap(reader));
	EXPECT_EQ(0, bytes_queued(self->sv[1]));
}

/* A send timeout of a blocking socket is EAGAIN once nothing moved. */
TEST_F(socket, eagain_send_timeout)
{
	struct timeval tv = { .tv_usec = 20000 };
	int in = memfd_filled(LONG_LEN, SEED);
	ssize_t n, sum = 0;

	ASSERT_EQ(0, setsockopt(self->sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv,
				sizeof(tv)));
	while ((n = sendfile(self->sv[0], in, NULL, LONG_LEN)) > 0)
		sum += n;
	EXPECT_EQ(-1, n);
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(sum, position(in));
	EXPECT_TRUE(private_pipe_is_clean());
	EXPECT_TRUE(holds_exactly(self->sv, sum));
}

/* ---- where the data comes from ---- */

FIXTURE(source)
{
	int in;
	int out;
};

FIXTURE_VARIANT(source)
{
	enum backing in;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(source, ext4) { .in = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(source, xfs) { .in = BACKING_XFS };
FIXTURE_VARIANT_ADD(source, tmpfs) { .in = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(source, overlay) { .in = BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(source, memfd) { .in = BACKING_MEMFD };
/* clang-format on */

FIXTURE_SETUP(source)
{
	if (!backing_available(variant->in))
		SKIP(return, "no %s here", backing_name(variant->in));
	self->in = backing_file_filled(variant->in, LEN, SEED);
	ASSERT_LE(0, self->in);
	self->out = backing_file(BACKING_MEMFD);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(source)
{
	close(self->in);
	close(self->out);
}

/* Without an offset each call goes on where the last one stopped. */
TEST_F(source, position_advances_from_call_to_call)
{
	ASSERT_EQ(100, lseek(self->in, 100, SEEK_SET));
	ASSERT_EQ(70001, sendfile(self->out, self->in, NULL, 70001));
	EXPECT_EQ(70101, position(self->in));
	ASSERT_EQ(5, sendfile(self->out, self->in, NULL, 5));
	EXPECT_EQ(70106, position(self->in));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 70006, 100, SEED));
}

/* With an offset the position of the input is neither used nor changed. */
TEST_F(source, offset_leaves_position_alone)
{
	off_t off = 8191;

	ASSERT_EQ(55, lseek(self->in, 55, SEEK_SET));
	ASSERT_EQ(70001, sendfile(self->out, self->in, &off, 70001));
	EXPECT_EQ(8191 + 70001, off);
	EXPECT_EQ(55, position(self->in));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 70001, 8191, SEED));
}

/* A hole is sent as zeroes, also where the destination had other data. */
TEST_F(source, hole_arrives_as_zeroes)
{
	const off_t data = MIB + 5000;

	ASSERT_EQ(data, lseek(self->in, data, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 9000, data, SEED));
	ASSERT_EQ(0, lseek(self->in, 0, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->out, data + 9000, 0, POISON));
	ASSERT_EQ(0, lseek(self->out, 0, SEEK_SET));
	ASSERT_EQ(data + 9000, sendfile(self->out, self->in, NULL, 2 * MIB));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
	EXPECT_EQ(0, pread_zeroes(self->out, LEN, data - LEN));
	EXPECT_EQ(0, pread_pattern(self->out, data, 9000, data, SEED));
}

/* The count is cut at the end of the file. */
TEST_F(source, short_at_end_of_file)
{
	off_t off = LEN - 10001;

	ASSERT_EQ(10001, sendfile(self->out, self->in, &off, MIB));
	EXPECT_EQ(LEN, off);
	EXPECT_EQ(10001, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 10001, LEN - 10001, SEED));
}

/* At the end and beyond there is nothing, and nothing moves. */
TEST_F(source, zero_from_end_of_file_on)
{
	off_t start[] = { LEN, LEN + 1, LEN + 10 * MIB };

	for (size_t i = 0; i < ARRAY_SIZE(start); i++) {
		off_t off = start[i];

		EXPECT_EQ(0, sendfile(self->out, self->in, &off, 4096));
		EXPECT_EQ(start[i], off);
		ASSERT_EQ(off, lseek(self->in, off, SEEK_SET));
		EXPECT_EQ(0, sendfile(self->out, self->in, NULL, 4096));
		EXPECT_EQ(off, position(self->in));
	}
	EXPECT_EQ(0, file_size(self->out));
	EXPECT_EQ(0, position(self->out));
}

/* What was appended after the end was seen is found by the next call. */
TEST_F(source, appended_data_is_found)
{
	int writer = reopen(self->in, O_WRONLY | O_APPEND);

	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, MIB));
	ASSERT_EQ(0, sendfile(self->out, self->in, NULL, MIB));
	ASSERT_EQ(0, write_pattern(writer, 7000, LEN, SEED));
	EXPECT_EQ(7000, sendfile(self->out, self->in, NULL, MIB));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN + 7000, 0, SEED));
}

/* Offsets have more than 32 bits. */
TEST_F(source, offset_beyond_4gib)
{
	off_t off = FAR;

	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 70000, FAR, SEED));
	ASSERT_EQ(70000, sendfile(self->out, self->in, &off, MIB));
	EXPECT_EQ(FAR + 70000, off);
	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	ASSERT_EQ(70000, sendfile(self->out, self->in, NULL, MIB));
	EXPECT_EQ(FAR + 70000, position(self->in));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 70000, FAR, SEED));
	EXPECT_EQ(0, pread_pattern(self->out, 70000, 70000, FAR, SEED));
}

/* Direct I/O at the source. */
TEST_F(source, direct_io)
{
	int in = reopen(self->in, O_RDONLY | O_DIRECT);
	off_t off = 8192;

	ASSERT_LE(0, in);
	ASSERT_EQ(BLOCKS, sendfile(self->out, in, &off, BLOCKS));
	EXPECT_EQ(8192 + BLOCKS, off);
	EXPECT_EQ(0, pread_pattern(self->out, 0, BLOCKS, 8192, SEED));
	close(in);
}

/* Within one file, to a range that does not overlap. */
TEST_F(source, same_file_apart)
{
	int out = reopen(self->in, O_RDWR);
	off_t off = 1001;

	ASSERT_EQ(200001, lseek(out, 200001, SEEK_SET));
	ASSERT_EQ(150001, sendfile(out, self->in, &off, 150001));
	EXPECT_EQ(0, pread_pattern(out, 0, 200001, 0, SEED));
	EXPECT_EQ(0, pread_pattern(out, 200001, 150001, 1001, SEED));
	close(out);
}

/* Onto itself: nothing changes. */
TEST_F(source, same_file_in_place)
{
	int out = reopen(self->in, O_RDWR);

	ASSERT_EQ(LEN, sendfile(out, self->in, NULL, LEN));
	EXPECT_EQ(LEN, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
	close(out);
}

/* Down by a page within one file: the later part is read before it is hit. */
TEST_F(source, same_file_overlapping_downwards)
{
	const off_t page = sysconf(_SC_PAGESIZE);
	int out = reopen(self->in, O_RDWR);
	off_t off = page;

	ASSERT_EQ(LEN - page, sendfile(out, self->in, &off, LEN));
	EXPECT_EQ(LEN, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN - page, page, SEED));
	EXPECT_EQ(0, pread_pattern(out, LEN - page, page, LEN - page, SEED));
	close(out);
}

/*
 * Up by a page within one file: which of the overlapping bytes were read
 * before they were hit is not defined, the rest is.
 */
TEST_F(source, same_file_overlapping_upwards)
{
	const off_t page = sysconf(_SC_PAGESIZE), count = 40 * page;
	int out = reopen(self->in, O_RDWR);
	off_t off = 0;

	ASSERT_EQ(page, lseek(out, page, SEEK_SET));
	ASSERT_EQ(count, sendfile(out, self->in, &off, count));
	EXPECT_EQ(LEN, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, page, 0, SEED));
	EXPECT_EQ(0, pread_pattern(out, page, page, 0, SEED));
	EXPECT_EQ(0, pread_pattern(out, page + count, LEN - page - count,
				   page + count, SEED));
	close(out);
}

/* ---- where it goes to ---- */

FIXTURE(destination)
{
	int in;
	int out;
};

FIXTURE_VARIANT(destination)
{
	enum backing out;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(destination, ext4) { .out = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(destination, xfs) { .out = BACKING_XFS };
FIXTURE_VARIANT_ADD(destination, tmpfs) { .out = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(destination, overlay) { .out = BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(destination, memfd) { .out = BACKING_MEMFD };
/* clang-format on */

FIXTURE_SETUP(destination)
{
	if (!backing_available(variant->out))
		SKIP(return, "no %s here", backing_name(variant->out));
	self->in = memfd_filled(LEN, SEED);
	ASSERT_LE(0, self->in);
	self->out = backing_file(variant->out);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(destination)
{
	close(self->in);
	close(self->out);
}

/* Beyond the end of the output the gap reads as zeroes. */
TEST_F(destination, gap_before_position_is_zero)
{
	ASSERT_EQ(0, write_pattern(self->out, 100, 0, POISON));
	ASSERT_EQ(70001, lseek(self->out, 70001, SEEK_SET));
	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, LEN));
	EXPECT_EQ(70001 + LEN, position(self->out));
	EXPECT_EQ(70001 + LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 100, 0, POISON));
	EXPECT_EQ(0, pread_zeroes(self->out, 100, 70001 - 100));
	EXPECT_EQ(0, pread_pattern(self->out, 70001, LEN, 0, SEED));
}

/* The position of the output has more than 32 bits. */
TEST_F(destination, position_beyond_4gib)
{
	ASSERT_EQ(FAR, lseek(self->out, FAR, SEEK_SET));
	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, LEN));
	EXPECT_EQ(FAR + LEN, position(self->out));
	EXPECT_EQ(FAR + LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, FAR, LEN, 0, SEED));
}

/* Direct I/O at the destination. */
TEST_F(destination, direct_io)
{
	int out = reopen(self->out, O_RDWR | O_DIRECT);

	ASSERT_LE(0, out);
	ASSERT_EQ(BLOCKS, sendfile(out, self->in, NULL, BLOCKS));
	EXPECT_EQ(BLOCKS, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, BLOCKS, 0, SEED));
	close(out);
}

/* The output was modified, so its time of modification moves. */
TEST_F(destination, modification_time_moves)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->out, old));
	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_NE(1000, st.st_mtime);
}

/* Sending nothing is no modification. */
TEST_F(destination, modification_time_stays_without_data)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->out, old));
	ASSERT_EQ(0, sendfile(self->out, self->in, NULL, 0));
	ASSERT_EQ(LEN, lseek(self->in, 0, SEEK_END));
	ASSERT_EQ(0, sendfile(self->out, self->in, NULL, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_EQ(1000, st.st_mtime);
}

/* An ordinary user who changes a set-user-ID file takes the bit away. */
TEST_F(destination, user_strips_set_user_id)
{
	struct stat st;

	if (geteuid())
		SKIP(return, "not root");
	ASSERT_EQ(0, fchmod(self->out, 06755));
	ASSERT_EQ(0, send_as_nobody(self->out, self->in, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_EQ(0755U, st.st_mode & 07777);
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

/* Root does not. */
TEST_F(destination, root_keeps_set_user_id)
{
	struct stat st;

	if (geteuid())
		SKIP(return, "not root");
	ASSERT_EQ(0, fchmod(self->out, 06755));
	ASSERT_EQ(LEN, sendfile(self->out, self->in, NULL, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_EQ(06755U, st.st_mode & 07777);
}

/* O_APPEND is refused, even for nothing. */
TEST_F(destination, einval_append_output)
{
	int out = reopen(self->out, O_WRONLY | O_APPEND);

	EXPECT_EQ(-1, sendfile(out, self->in, NULL, LEN));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, sendfile(out, self->in, NULL, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(0, file_size(self->out));
	close(out);
}

/* Up to the limit a short count, from there EFBIG and SIGXFSZ. */
TEST_F(destination, efbig_file_size_limit)
{
	struct rlimit limit = { .rlim_cur = 100001, .rlim_max = RLIM_INFINITY };

	ASSERT_EQ(0, signal_count_start(SIGXFSZ));
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_EQ(100001, sendfile(self->out, self->in, NULL, LEN));
	EXPECT_EQ(100001, position(self->in));
	ASSERT_EQ(0, signal_count_start(SIGXFSZ));
	EXPECT_EQ(-1, sendfile(self->out, self->in, NULL, LEN));
	EXPECT_EQ(EFBIG, errno);
	EXPECT_EQ(1, signal_count(SIGXFSZ));
	limit.rlim_cur = RLIM_INFINITY;
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_EQ(100001, position(self->in));
	EXPECT_EQ(100001, position(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 100001, 0, SEED));
	EXPECT_TRUE(private_pipe_is_clean());
}

FIXTURE(swap_file)
{
	int fd;
};

FIXTURE_VARIANT(swap_file)
{
	enum backing b;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(swap_file, ext4) { .b = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(swap_file, xfs) { .b = BACKING_XFS };
/* clang-format on */

FIXTURE_SETUP(swap_file)
{
	if (!swap_available(variant->b))
		SKIP(return, "no swapping to %s", backing_name(variant->b));
	self->fd = swap_file(variant->b, SEED);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(swap_file)
{
	EXPECT_EQ(0, undo_now());
	close(self->fd);
}

/* A file in use for swapping is not written to. */
TEST_F(swap_file, etxtbsy_output)
{
	int in = memfd_filled(LEN, OTHER);

	EXPECT_EQ(-1, sendfile(self->fd, in, NULL, LEN));
	EXPECT_EQ(ETXTBSY, errno);
	EXPECT_EQ(0, position(in));
	EXPECT_EQ(0, pread_pattern(self->fd, 8192, 8192, 8192, SEED));
	EXPECT_TRUE(private_pipe_is_clean());
}

/* ---- devices and files that the kernel generates ---- */

FIXTURE(generated)
{
	int in;
	int out;
	char want[512];
	ssize_t len;
};

FIXTURE_VARIANT(generated)
{
	const char *path;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(generated, seq_file) { .path = "/proc/version" };
FIXTURE_VARIANT_ADD(generated, sysctl) { .path = "/proc/sys/kernel/osrelease" };
FIXTURE_VARIANT_ADD(generated, sysfs) {
	.path = "/sys/devices/system/cpu/possible" };
/* clang-format on */

FIXTURE_SETUP(generated)
{
	self->in = open(variant->path, O_RDONLY);
	if (self->in < 0)
		SKIP(return, "no %s here", variant->path);
	self->len = pread(self->in, self->want, sizeof(self->want), 0);
	ASSERT_LT(1, self->len);
	ASSERT_GT(500, self->len);
	self->out = backing_file(BACKING_MEMFD);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(generated)
{
	close(self->in);
	close(self->out);
}

/* The same bytes as by read(), although the file has no size to speak of. */
TEST_F(generated, same_as_read)
{
	char got[512];

	ASSERT_EQ(self->len, sendfile(self->out, self->in, NULL, 4096));
	EXPECT_EQ(self->len, position(self->in));
	EXPECT_EQ(self->len, pread(self->out, got, sizeof(got), 0));
	EXPECT_EQ(0, memcmp(got, self->want, self->len));
	EXPECT_EQ(0, sendfile(self->out, self->in, NULL, 4096));
}

/* An offset inside the text. */
TEST_F(generated, starts_at_offset)
{
	char got[512];
	off_t off = 1;

	ASSERT_EQ(self->len - 1, sendfile(self->out, self->in, &off, 4096));
	EXPECT_EQ(self->len, off);
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(self->len - 1, pread(self->out, got, sizeof(got), 0));
	EXPECT_EQ(0, memcmp(got, self->want + 1, self->len - 1));
}

/* /dev/null swallows everything at once. */
TEST(null_device_takes_all)
{
	int in = memfd_filled(LEN, SEED), out = open("/dev/null", O_WRONLY);

	ASSERT_EQ(LEN, sendfile(out, in, NULL, MIB));
	EXPECT_EQ(LEN, position(in));
	EXPECT_TRUE(private_pipe_is_clean());
}

/* /dev/zero gives as many zeroes as were asked for. */
TEST(zero_device_gives_zeroes)
{
	int in = open("/dev/zero", O_RDONLY), out = memfd_filled(LEN, POISON);

	ASSERT_EQ(200001, sendfile(out, in, NULL, 200001));
	EXPECT_EQ(200001, position(out));
	EXPECT_EQ(0, pread_zeroes(out, 0, 200001));
	EXPECT_EQ(0, pread_pattern(out, 200001, LEN - 200001, 200001, POISON));
}

/* One call moves at most 2 GiB less a page. */
TEST(count_beyond_2gib_is_cut)
{
	const off_t most = 0x80000000L - sysconf(_SC_PAGESIZE);
	int in = backing_file(BACKING_MEMFD), out = open("/dev/null", O_WRONLY);
	off_t off = 0;

	ASSERT_EQ(0, ftruncate(in, 3 * 1024 * MIB));
	ASSERT_EQ(most, sendfile(out, in, &off, 3 * 1024 * MIB));
	EXPECT_EQ(most, off);
}

/* A socket may be the input when the output is a pipe. */
TEST(socket_input_with_pipe_output)
{
	int sv[2], fds[2];

	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, write_pattern(sv[0], 5000, 0, SEED));
	ASSERT_EQ(5000, send_all(fds[1], sv[1], NULL, 5000));
	EXPECT_EQ(0, bytes_queued(sv[1]));
	EXPECT_EQ(5000, bytes_queued(fds[0]));
	EXPECT_EQ(0, read_pattern(fds[0], 5000, 0, SEED));
}

/* A terminal is written to like any other file. */
TEST(terminal_output)
{
	int tty[2], in = memfd_filled(20001, SEED);
	pid_t reader;

	ASSERT_EQ(0, pty_pair(tty));
	reader = spawn_reader(tty[0], 20001, 0, SEED);
	ASSERT_EQ(20001, send_all(tty[1], in, NULL, 20001));
	EXPECT_EQ(0, reap(reader));
}

/* The error of a failing read comes through. */
TEST(eio_terminal_without_peer)
{
	int tty[2], fds[2];

	ASSERT_EQ(0, pty_pair(tty));
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, close(tty[1]));
	EXPECT_EQ(-1, sendfile(fds[1], tty[0], NULL, 100));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, bytes_queued(fds[0]));
}

/* ---- refusals ---- */

/* Every EINVAL below leaves the output untouched. */
static bool refused(int out, int in, off_t *off, size_t count, int err)
{
	off_t before = off ? *off : 0;

	errno = 0;
	return sendfile(out, in, off, count) == -1 && errno == err &&
	       (!off || *off == before);
}

/* A pipe cannot be read back, so it is no input. */
TEST(einval_pipe_input)
{
	int fds[2], other[2], out = backing_file(BACKING_MEMFD);

	ASSERT_EQ(0, pipe_filled(fds, 5000, SEED));
	ASSERT_EQ(0, pipe(other));
	EXPECT_TRUE(refused(out, fds[0], NULL, 5000, EINVAL));
	EXPECT_TRUE(refused(other[1], fds[0], NULL, 5000, EINVAL));
	EXPECT_EQ(0, file_size(out));
	EXPECT_EQ(0, read_pattern(fds[0], 5000, 0, SEED));
}

/* Nor can a socket. */
TEST(einval_socket_input)
{
	int sv[2], out = backing_file(BACKING_MEMFD);

	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(0, write_pattern(sv[0], 5000, 0, SEED));
	EXPECT_TRUE(refused(out, sv[1], NULL, 5000, EINVAL));
	EXPECT_EQ(0, file_size(out));
	EXPECT_EQ(0, read_pattern(sv[1], 5000, 0, SEED));
}

/* A pipe for notifications takes nothing, and what was read for it is gone. */
TEST(exdev_notification_pipe_output)
{
	int in = memfd_filled(LEN, SEED), fds[2];
	off_t off = 10;

	if (notification_pipe(fds)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	EXPECT_TRUE(refused(fds[1], in, NULL, LEN, EXDEV));
	EXPECT_TRUE(refused(fds[1], in, &off, LEN, EXDEV));
	EXPECT_EQ(0, position(in));
	EXPECT_EQ(0, bytes_queued(fds[0]));
	EXPECT_TRUE(private_pipe_is_clean());
}

/* Nor does it give any. */
TEST(einval_notification_pipe_input)
{
	int out = backing_file(BACKING_MEMFD), fds[2];

	if (notification_pipe(fds)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	EXPECT_TRUE(refused(out, fds[0], NULL, LEN, EINVAL));
	EXPECT_EQ(0, file_size(out));
}

/* Inputs that do not support splice. */
TEST(einval_input_without_splice_read)
{
	int dir = open("/proc", O_RDONLY | O_DIRECTORY);
	int null = open("/dev/null", O_RDONLY);
	int out = backing_file(BACKING_MEMFD);

	EXPECT_TRUE(refused(out, dir, NULL, 4096, EINVAL));
	EXPECT_TRUE(refused(out, null, NULL, 4096, EINVAL));
	EXPECT_EQ(0, file_size(out));
}

/* Outputs that do not support splice, and what was read for them is gone. */
TEST(einval_output_without_splice_write)
{
	int full = open("/dev/full", O_WRONLY), event = eventfd(0, 0);
	int in = memfd_filled(LEN, SEED);

	EXPECT_TRUE(refused(full, in, NULL, LEN, EINVAL));
	EXPECT_TRUE(refused(event, in, NULL, LEN, EINVAL));
	EXPECT_EQ(0, position(in));
	EXPECT_TRUE(private_pipe_is_clean());
}

/* Offsets and counts that are negative, or whose sum is. */
TEST(einval_negative_range)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);
	off_t minus = -1, one = 1, last = INT64_MAX;

	EXPECT_TRUE(refused(out, in, &minus, 1, EINVAL));
	EXPECT_TRUE(refused(out, in, &minus, 0, EINVAL));
	EXPECT_TRUE(refused(out, in, NULL, (size_t)-1, EINVAL));
	EXPECT_TRUE(refused(out, in, NULL, (size_t)INT64_MAX + 1, EINVAL));
	EXPECT_TRUE(refused(out, in, &one, INT64_MAX, EINVAL));
	EXPECT_TRUE(refused(out, in, &last, 1, EINVAL));
	EXPECT_EQ(0, file_size(out));
}

/* A pipe or socket has no offsets; this is seen before the output is. */
TEST(espipe_offset_for_stream)
{
	int fds[2], sv[2], out = backing_file(BACKING_MEMFD);
	off_t off = 0;

	ASSERT_EQ(0, pipe_filled(fds, 100, SEED));
	ASSERT_EQ(0, unix_pair(sv));
	EXPECT_TRUE(refused(out, fds[0], &off, 100, ESPIPE));
	EXPECT_TRUE(refused(out, sv[0], &off, 100, ESPIPE));
	EXPECT_TRUE(refused(-1, fds[0], &off, 100, ESPIPE));
	EXPECT_EQ(100, bytes_queued(fds[0]));
}

/* Descriptors that are not open. */
TEST(ebadf_closed)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);

	EXPECT_TRUE(refused(-1, in, NULL, LEN, EBADF));
	EXPECT_TRUE(refused(out, -1, NULL, LEN, EBADF));
	EXPECT_TRUE(refused(-1, in, NULL, 0, EBADF));
	EXPECT_TRUE(refused(out, -1, NULL, 0, EBADF));
}

/* Descriptors that are open the wrong way. */
TEST(ebadf_wrong_direction)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);
	int wronly = reopen(in, O_WRONLY), rdonly = reopen(out, O_RDONLY);
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	EXPECT_TRUE(refused(out, wronly, NULL, LEN, EBADF));
	EXPECT_TRUE(refused(rdonly, in, NULL, LEN, EBADF));
	EXPECT_TRUE(refused(fds[0], in, NULL, LEN, EBADF));
	EXPECT_EQ(0, file_size(out));
}

/* O_PATH descriptors are for naming, not for data. */
TEST(ebadf_path_descriptor)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);
	int in_path = reopen(in, O_PATH), out_path = reopen(out, O_PATH);

	EXPECT_TRUE(refused(out, in_path, NULL, LEN, EBADF));
	EXPECT_TRUE(refused(out_path, in, NULL, LEN, EBADF));
}

/* An offset that cannot be read is noticed before anything else. */
TEST(efault_unreadable_offset)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);
	off_t *bad =
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, bad);
	EXPECT_EQ(-1, sendfile(out, in, bad, LEN));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, sendfile(-1, -1, bad, LEN));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, file_size(out));
}

/* An offset that cannot be written back is noticed when the data is there. */
TEST(efault_read_only_offset)
{
	int in = memfd_filled(LEN, SEED), out = backing_file(BACKING_MEMFD);
	off_t *zero =
		mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, zero);
	EXPECT_EQ(-1, sendfile(out, in, zero, LEN));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, position(in));
	EXPECT_EQ(LEN, position(out));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* An offset that the file system of the input cannot have: 2 GiB in /proc. */
TEST(eoverflow_offset_beyond_input_limit)
{
	int in = open("/proc/version", O_RDONLY);
	int out = backing_file(BACKING_MEMFD);
	off_t off = INT32_MAX;

	EXPECT_TRUE(refused(out, in, &off, 1, EOVERFLOW));
	off = 1LL << 40;
	EXPECT_TRUE(refused(out, in, &off, 1, EOVERFLOW));
	EXPECT_EQ(0, file_size(out));
}

/* The limit of the output counts for the offset too: 2 GiB in /dev/pts. */
TEST(eoverflow_offset_beyond_output_limit)
{
	int tty[2], in = backing_file(BACKING_MEMFD);
	off_t off = INT32_MAX;

	ASSERT_EQ(0, pty_pair(tty));
	ASSERT_EQ(0, ftruncate(in, 3 * 1024 * MIB));
	EXPECT_TRUE(refused(tty[1], in, &off, 1, EOVERFLOW));
	off--;
	EXPECT_EQ(1, sendfile(tty[1], in, &off, 10));
	EXPECT_EQ(INT32_MAX, off);
}

/* A full file system: a short count first, then ENOSPC, nothing is lost. */
TEST(enospc_after_short_count)
{
	int in = memfd_filled(LEN, SEED), out = small_tmpfs_file("64K");
	ssize_t n;

	if (out < 0)
		SKIP(return, "cannot make a tmpfs: %s", strerror(errno));
	n = sendfile(out, in, NULL, LEN);
	ASSERT_LT(0, n);
	ASSERT_GE(BYTES(64 * KIB), n);
	EXPECT_EQ(n, position(in));
	EXPECT_EQ(n, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, n, 0, SEED));
	EXPECT_TRUE(refused(out, in, NULL, LEN, ENOSPC));
	EXPECT_EQ(n, position(in));
	EXPECT_EQ(n, position(out));
	EXPECT_TRUE(private_pipe_is_clean());
}

/* A memfd sealed against writing stays as it is. */
TEST(eperm_sealed_write)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(LEN, POISON);
	int future = memfd_filled(LEN, POISON);

	ASSERT_EQ(0, fcntl(out, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_EQ(0, fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_TRUE(refused(out, in, NULL, LEN, EPERM));
	EXPECT_TRUE(refused(future, in, NULL, LEN, EPERM));
	EXPECT_EQ(0, position(in));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
	EXPECT_EQ(0, pread_pattern(future, 0, LEN, 0, POISON));
	EXPECT_TRUE(private_pipe_is_clean());
}

/*
 * One sealed against growing takes the rounds that fit as a whole: up to Linux
 * 7.3 one, where rounds are larger none.
 */
TEST(eperm_sealed_grow)
{
	const off_t kept = 64 * KIB;
	int in = memfd_filled(LEN, SEED), out = memfd_filled(kept, POISON);
	ssize_t n;

	ASSERT_EQ(0, fcntl(out, F_ADD_SEALS, F_SEAL_GROW));
	n = sendfile(out, in, NULL, LEN);
	if (n < 0) {
		EXPECT_EQ(EPERM, errno);
		n = 0;
	} else {
		EXPECT_EQ(kept, n);
	}
	EXPECT_TRUE(refused(out, in, NULL, LEN, EPERM));
	EXPECT_EQ(n, position(in));
	EXPECT_EQ(kept, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, n, 0, SEED));
	EXPECT_EQ(0, pread_pattern(out, n, kept - n, n, POISON));
	EXPECT_TRUE(private_pipe_is_clean());
}

/*
 * The user may not have a private pipe: either nothing goes, as up to Linux 7.3,
 * or all.
 */
TEST(enomem_private_pipe)
{
	const char *const limit = PIPE_HARD_LIMIT;
	int in, out, ret;

	if (sysctl_keep(&limit, 1))
		SKIP(return, "cannot change %s", limit);
	in = memfd_filled(LEN, SEED);
	out = backing_file(BACKING_MEMFD);
	ASSERT_EQ(0, sysctl_set(limit, 1));
	ret = send_as_nobody(out, in, LEN);
	ASSERT_EQ(0, undo_now());
	if (ret) {
		EXPECT_EQ(ENOMEM, ret);
		EXPECT_EQ(0, file_size(out));
		EXPECT_EQ(0, send_as_nobody(out, in, LEN));
	}
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* ---- threads ---- */

struct job {
	pthread_t thread;
	int in;
	int out;
	off_t off;
	size_t len;
	ssize_t sent;
};

static void *run_job(void *arg)
{
	struct job *job = arg;

	job->sent = send_all(job->out, job->in, &job->off, job->len);
	return NULL;
}

#define NR_JOBS 4

/* Threads that send one file to one file through descriptors of their own. */
TEST(threads_share_files)
{
	int in = memfd_filled(NR_JOBS * LEN, SEED);
	int out = backing_file(BACKING_MEMFD);
	struct job jobs[NR_JOBS];

	for (int i = 0; i < NR_JOBS; i++) {
		jobs[i] = (struct job){ .in = in, .off = i * LEN, .len = LEN };
		jobs[i].out = reopen(out, O_WRONLY);
		ASSERT_EQ(i * LEN, lseek(jobs[i].out, i * LEN, SEEK_SET));
		ASSERT_EQ(0, pthread_create(&jobs[i].thread, NULL, run_job,
					    &jobs[i]));
	}
	for (int i = 0; i < NR_JOBS; i++) {
		ASSERT_EQ(0, pthread_join(jobs[i].thread, NULL));
		EXPECT_EQ(LEN, jobs[i].sent);
		EXPECT_EQ((i + 1) * LEN, jobs[i].off);
	}
	EXPECT_EQ(0, pread_pattern(out, 0, NR_JOBS * LEN, 0, SEED));
}

/* Threads with files of their own do not see each other's data. */
TEST(threads_with_own_files)
{
	struct job jobs[NR_JOBS];

	for (int i = 0; i < NR_JOBS; i++) {
		jobs[i] = (struct job){ .in = memfd_filled(LEN, i),
					.out = backing_file(BACKING_MEMFD),
					.len = LEN };
		ASSERT_EQ(0, pthread_create(&jobs[i].thread, NULL, run_job,
					    &jobs[i]));
	}
	for (int i = 0; i < NR_JOBS; i++) {
		ASSERT_EQ(0, pthread_join(jobs[i].thread, NULL));
		EXPECT_EQ(LEN, jobs[i].sent);
		EXPECT_EQ(0, pread_pattern(jobs[i].out, 0, LEN, 0, i));
	}
}

/* Who waits for a pipe does not keep others from the position of the input. */
TEST(position_is_free_while_pipe_is_full)
{
	int in = backing_file_filled(BACKING_TMPFS, LEN, SEED), fds[2];
	ssize_t stuffing;
	pid_t pid;

	if (in < 0)
		SKIP(return, "no tmpfs here");
	ASSERT_EQ(0, pipe(fds));
	stuffing = pipe_fill_up(fds[1]);
	ASSERT_LT(0, stuffing);
	pid = fork_child();
	if (!pid)
		_exit(sendfile(fds[1], in, NULL, 1000) != 1000);
	ASSERT_TRUE(await_asleep(pid, SYS_sendfile));
	ASSERT_EQ(0, position(in));
	ASSERT_EQ(0, read_zeroes(fds[0], stuffing));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(1000, position(in));
	EXPECT_EQ(0, read_pattern(fds[0], 1000, 0, SEED));
}

/* ---- the entries for 32-bit programs ---- */

#ifdef __x86_64__
#define IA32_SENDFILE 187
#define IA32_SENDFILE64 239

/* Either width at one address that fits 32 bits. */
union offset {
	int off32[2];
	off_t off64;
};

FIXTURE(compat)
{
	union offset *low;
	int in;
	int out;
};

FIXTURE_SETUP(compat)
{
	if (!has_int80())
		SKIP(return, "no 32-bit system calls here");
	self->low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, self->low);
	self->in = memfd_filled(LEN, SEED);
	self->out = backing_file(BACKING_MEMFD);
	ASSERT_LE(0, self->in);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(compat)
{
	close(self->in);
	close(self->out);
}

/* sendfile: the offset has 32 bits, what lies behind it is left alone. */
TEST_F(compat, sendfile_offset_is_32_bits)
{
	self->low->off32[0] = 1001;
	self->low->off32[1] = 0x5a5a5a5a;
	ASSERT_EQ(100001, int80(IA32_SENDFILE, self->out, self->in,
				(long)self->low, 100001));
	EXPECT_EQ(101002, self->low->off32[0]);
	EXPECT_EQ(0x5a5a5a5a, self->low->off32[1]);
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(100001, position(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 100001, 1001, SEED));
}

/* sendfile: an offset of 2 GiB less one is too large already. */
TEST_F(compat, eoverflow_offset_at_2gib)
{
	ASSERT_EQ(0, ftruncate(self->in, 3 * 1024 * MIB));
	self->low->off32[0] = INT32_MAX;
	EXPECT_EQ(-EOVERFLOW, int80(IA32_SENDFILE, self->out, self->in,
				    (long)self->low, 1));
	EXPECT_EQ(INT32_MAX, self->low->off32[0]);
	EXPECT_EQ(0, file_size(self->out));
}

/* sendfile: data is cut where the offset would not fit any more. */
TEST_F(compat, sendfile_is_cut_at_2gib)
{
	ASSERT_EQ(INT32_MAX - 15, lseek(self->in, INT32_MAX - 15, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 100, 0, SEED));
	self->low->off32[0] = INT32_MAX - 15;
	EXPECT_EQ(15, int80(IA32_SENDFILE, self->out, self->in, (long)self->low,
			    100));
	EXPECT_EQ(INT32_MAX, self->low->off32[0]);
	EXPECT_EQ(15, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 15, 0, SEED));
}

/* sendfile: without an offset the position may be anywhere. */
TEST_F(compat, sendfile_position_beyond_4gib)
{
	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 5000, 0, SEED));
	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	EXPECT_EQ(5000, int80(IA32_SENDFILE, self->out, self->in, 0, 9000));
	EXPECT_EQ(FAR + 5000, position(self->in));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 5000, 0, SEED));
}

/* sendfile64: the offset has 64 bits. */
TEST_F(compat, sendfile64_offset_beyond_4gib)
{
	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 5000, 0, SEED));
	self->low->off64 = FAR + 1000;
	EXPECT_EQ(4000, int80(IA32_SENDFILE64, self->out, self->in,
			      (long)self->low, 9000));
	EXPECT_EQ(FAR + 5000, self->low->off64);
	EXPECT_EQ(0, pread_pattern(self->out, 0, 4000, 1000, SEED));
}

/* Both refuse a negative offset. */
TEST_F(compat, einval_negative_offset)
{
	self->low->off64 = -1;
	EXPECT_EQ(-EINVAL, int80(IA32_SENDFILE, self->out, self->in,
				 (long)self->low, 1));
	EXPECT_EQ(-EINVAL, int80(IA32_SENDFILE64, self->out, self->in,
				 (long)self->low, 1));
	EXPECT_EQ(-1, self->low->off64);
}

/* Both refuse an offset that is not mapped. */
TEST_F(compat, efault_unmapped_offset)
{
	ASSERT_EQ(0, munmap(self->low, 4096));
	EXPECT_EQ(-EFAULT, int80(IA32_SENDFILE, self->out, self->in,
				 (long)self->low, 1));
	EXPECT_EQ(-EFAULT, int80(IA32_SENDFILE64, self->out, self->in,
				 (long)self->low, 1));
	EXPECT_EQ(0, file_size(self->out));
}
#endif /* __x86_64__ */

TEST_HARNESS_MAIN
