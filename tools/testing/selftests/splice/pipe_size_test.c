// SPDX-License-Identifier: GPL-2.0-only
/*
 * The size of a pipe: F_SETPIPE_SZ and F_GETPIPE_SZ, what they do to the data
 * and to those who wait, how many buffers fit, and the limits in
 * /proc/sys/fs/pipe-*.  Covers fs/pipe.c.
 *
 * errno		test
 * EBADF		ebadf_no_pipe
 * EBUSY		ebusy_shrink_below_*, ebusy_notification_pipe
 * EINVAL		einval_more_than_2_gib
 * ENFILE		limits.enfile_pipe_over_hard_limit
 * ENOMEM		enomem_ring_too_large
 * EPERM		limits.eperm_*
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "splice_util.h"

#define PAGE ((ssize_t)getpagesize())
#define SEED 1
#define DEFAULT_SLOTS 16

static ssize_t set_size(int fd, unsigned long size)
{
	return fcntl(fd, F_SETPIPE_SZ, size);
}

static ssize_t get_size(int fd)
{
	return fcntl(fd, F_GETPIPE_SZ);
}

static bool can_write(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };

	return poll(&pfd, 1, 0) == 1 && pfd.revents == POLLOUT;
}

static bool can_read(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1 && pfd.revents == POLLIN;
}

/* A pipe of @slots slots whose ring starts at slot @turn, empty. */
static int turned_pipe(int p[2], int slots, int turn)
{
	if (pipe(p) || set_size(p[1], slots * PAGE) != slots * PAGE)
		return -1;
	while (turn--)
		if (write_pattern(p[1], PAGE, 0, SEED) ||
		    read_pattern(p[0], PAGE, 0, SEED))
			return -1;
	return 0;
}

/* Root in a container may lack what lets root exceed pipe-max-size. */
static bool has_sys_resource(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &head, data))
		return false;
	return data[0].effective & CAP_TO_MASK(CAP_SYS_RESOURCE);
}

/* Root's default is 16 slots, seen at both ends. */
TEST(default_is_16_slots)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[0]));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[1]));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, pipe_fill_up(p[1]));
}

/* A size is rounded up to a power of two pages, and that is returned. */
TEST(rounds_up_to_power_of_two_pages)
{
	const struct {
		ssize_t ask, get;
	} sizes[] = {
		{ 0, PAGE },
		{ 1, PAGE },
		{ PAGE - 1, PAGE },
		{ PAGE, PAGE },
		{ PAGE + 1, 2 * PAGE },
		{ 3 * PAGE, 4 * PAGE },
		{ 4 * PAGE + 1, 8 * PAGE },
		{ 255 * PAGE, 256 * PAGE },
	};
	size_t i;
	int p[2];

	ASSERT_EQ(0, pipe(p));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(sizes[i].get, set_size(p[i % 2], sizes[i].ask));
		ASSERT_EQ(sizes[i].get, get_size(p[0]));
		ASSERT_EQ(sizes[i].get, get_size(p[1]));
	}
}

/* More than 2 GiB is no size, and changes nothing. */
TEST(einval_more_than_2_gib)
{
	static const unsigned int sizes[] = { (1U << 31) + 1, 3U << 30, -1U };
	size_t i;
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, 3 * PAGE, SEED));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(-1, set_size(p[1], sizes[i]));
		ASSERT_EQ(EINVAL, errno);
		ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[1]));
	}
	ASSERT_EQ(0, read_pattern(p[0], 3 * PAGE, 0, SEED));
}

/* 2 GiB is one, but its ring may be too large: up to Linux 7.3 always. */
TEST(enomem_ring_too_large)
{
	int p[2];
	ssize_t size = DEFAULT_SLOTS * PAGE;

	if (PAGE > 4096)
		SKIP(return, "the ring of 2 GiB is small here");
	if (!has_sys_resource())
		SKIP(return, "no CAP_SYS_RESOURCE");
	ASSERT_EQ(0, pipe_filled(p, 3 * PAGE, SEED));
	if (set_size(p[1], 1U << 31) == -1) {
		ASSERT_EQ(ENOMEM, errno);
	} else {
		/* Too large for the int that fcntl() returns. */
		size = INT_MIN;
	}
	ASSERT_EQ(size, get_size(p[1]));
	ASSERT_EQ(0, read_pattern(p[0], 3 * PAGE, 0, SEED));
}

/* What holds data in more slots than asked for keeps its size and data. */
TEST(ebusy_shrink_below_contents)
{
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, 5 * PAGE, SEED));
	ASSERT_EQ(-1, set_size(p[1], 4 * PAGE));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[1]));
	ASSERT_EQ(5 * PAGE, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], PAGE, 0, SEED));
	ASSERT_EQ(4 * PAGE, set_size(p[1], 4 * PAGE));
	ASSERT_EQ(0, read_pattern(p[0], 4 * PAGE, PAGE, SEED));
}

/* It is slots that count, not bytes. */
TEST(ebusy_shrink_below_slots_in_use)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, PAGE, SEED);
	int i;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(1, splice(fd, NULL, p[1], NULL, 1, 0));
	ASSERT_EQ(-1, set_size(p[1], 2 * PAGE));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_EQ(4 * PAGE, set_size(p[1], 4 * PAGE));
	ASSERT_EQ(0, read_pattern(p[0], 3, 0, SEED));
}

/* The size of a pipe for notifications is set by ioctl() only. */
TEST(ebusy_notification_pipe)
{
	ssize_t size;
	int p[2];

	if (notification_pipe(p)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	size = get_size(p[0]);
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, size);
	ASSERT_EQ(-1, set_size(p[1], 2 * size));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_EQ(-1, set_size(p[0], PAGE));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_EQ(size, get_size(p[1]));
}

/* Only pipes have a size. */
TEST(ebadf_no_pipe)
{
	int file = backing_file(BACKING_MEMFD), sv[2], p[2];
	int fds[5], i;

	ASSERT_EQ(0, unix_pair(sv));
	ASSERT_EQ(0, pipe(p));
	fds[0] = file;
	fds[1] = sv[0];
	fds[2] = open("/dev/null", O_RDWR);
	fds[3] = reopen(p[0], O_PATH);
	fds[4] = -1;
	for (i = 0; i < 5; i++) {
		ASSERT_TRUE(i == 4 || fds[i] >= 0);
		ASSERT_EQ(-1, set_size(fds[i], PAGE));
		ASSERT_EQ(EBADF, errno);
		ASSERT_EQ(-1, get_size(fds[i]));
		ASSERT_EQ(EBADF, errno);
	}
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[0]));
}

/* The size belongs to the pipe: a child's change shows in the parent. */
TEST(size_is_shared)
{
	int p[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(p));
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(set_size(p[0], 2 * PAGE) != 2 * PAGE);
	ASSERT_EQ(0, reap(pid));
	ASSERT_EQ(2 * PAGE, get_size(p[1]));
}

/* A FIFO keeps its size as long as anyone has it open. */
TEST(fifo_size_lasts_while_open)
{
	char path[] = "/tmp/splice_fifo.XXXXXX";
	int a, b;

	if (!mkdtemp(path))
		SKIP(return, "no writable /tmp");
	ASSERT_EQ(0, chdir(path));
	ASSERT_EQ(0, mkfifo("fifo", 0600));
	a = open("fifo", O_RDWR);
	ASSERT_LE(0, a);
	ASSERT_EQ(4 * PAGE, set_size(a, 4 * PAGE));
	b = open("fifo", O_RDWR);
	ASSERT_LE(0, b);
	close(a);
	EXPECT_EQ(4 * PAGE, get_size(b));
	close(b);
	a = open("fifo", O_RDWR);
	EXPECT_EQ(DEFAULT_SLOTS * PAGE, get_size(a));
	EXPECT_EQ(0, unlink("fifo"));
	EXPECT_EQ(0, rmdir(path));
}

/*
 * Resizing with data inside.  The ring of a pipe is an array; its data may
 * start anywhere and wrap around the end:
 *
 *	slots	|2|3| | | |0|1|		turn 5, 4 in use
 *	resized	|0|1|2|3| ...
 */

FIXTURE(resize)
{
	int p[2];
};

FIXTURE_VARIANT(resize)
{
	int from, used, to; /* slots */
};

/* clang-format off */
FIXTURE_VARIANT_ADD(resize, grow_full) { 8, 8, 16 };
FIXTURE_VARIANT_ADD(resize, grow_half) { 8, 4, 64 };
FIXTURE_VARIANT_ADD(resize, grow_one_slot) { 1, 1, 2 };
FIXTURE_VARIANT_ADD(resize, grow_to_1_mib) { 8, 7, 256 };
FIXTURE_VARIANT_ADD(resize, shrink_to_fit) { 8, 4, 4 };
FIXTURE_VARIANT_ADD(resize, shrink_with_room) { 16, 3, 8 };
FIXTURE_VARIANT_ADD(resize, shrink_to_one_slot) { 16, 1, 1 };
FIXTURE_VARIANT_ADD(resize, same_size) { 8, 8, 8 };
/* clang-format on */

FIXTURE_SETUP(resize)
{
}

FIXTURE_TEARDOWN(resize)
{
}

/* Whole pages, at every position of the ring, in order and none lost. */
TEST_F(resize, keeps_pages)
{
	ssize_t len = variant->used * PAGE;
	int turn;

	for (turn = 0; turn < variant->from; turn++) {
		ASSERT_EQ(0, turned_pipe(self->p, variant->from, turn));
		ASSERT_EQ(0, write_pattern(self->p[1], len, 0, SEED));
		ASSERT_EQ(variant->to * PAGE,
			  set_size(self->p[1], variant->to * PAGE));
		ASSERT_EQ(len, bytes_queued(self->p[0]));
		ASSERT_EQ(0, read_pattern(self->p[0], len, 0, SEED));
		close(self->p[0]);
		close(self->p[1]);
	}
}

/* The first buffer partly read, the last one partly written. */
TEST_F(resize, keeps_partial_buffers)
{
	ssize_t len = variant->used * PAGE - 100;
	int turn;

	for (turn = 0; turn < variant->from; turn++) {
		ASSERT_EQ(0, turned_pipe(self->p, variant->from, turn));
		ASSERT_EQ(0, write_pattern(self->p[1], len, 0, SEED));
		ASSERT_EQ(0, read_pattern(self->p[0], 77, 0, SEED));
		ASSERT_EQ(variant->to * PAGE,
			  set_size(self->p[0], variant->to * PAGE));
		ASSERT_EQ(len - 77, bytes_queued(self->p[0]));
		ASSERT_EQ(0, write_pattern(self->p[1], 100, len, SEED));
		ASSERT_EQ(0,
			  read_pattern(self->p[0], len - 77 + 100, 77, SEED));
		close(self->p[0]);
		close(self->p[1]);
	}
}

/* Page cache pages in the ring. */
TEST_F(resize, keeps_spliced_pages)
{
	ssize_t len = variant->used * PAGE - 50;
	off_t off = 50;
	int fd = backing_file_filled(BACKING_MEMFD, len + 50, SEED);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, turned_pipe(self->p, variant->from, variant->from - 1));
	ASSERT_EQ(len, splice(fd, &off, self->p[1], NULL, len, 0));
	ASSERT_EQ(variant->to * PAGE, set_size(self->p[1], variant->to * PAGE));
	ASSERT_EQ(0, read_pattern(self->p[0], len, 50, SEED));
	ASSERT_EQ(0, pread_pattern(fd, 0, len + 50, 0, SEED));
}

/* User pages in the ring, shared with a second pipe by tee(). */
TEST_F(resize, keeps_user_pages_and_their_copies)
{
	ssize_t len = variant->used * PAGE;
	struct iovec iov = { .iov_len = len };
	int copy[2];

	ASSERT_EQ(0, posix_memalign(&iov.iov_base, PAGE, len));
	pattern_fill(iov.iov_base, len, 0, SEED);
	ASSERT_EQ(0, turned_pipe(self->p, variant->from, variant->from / 2));
	ASSERT_EQ(0, turned_pipe(copy, DEFAULT_SLOTS, DEFAULT_SLOTS - 1));
	ASSERT_EQ(len, vmsplice(self->p[1], &iov, 1, 0));
	ASSERT_EQ(len, tee(self->p[0], copy[1], len, 0));
	ASSERT_EQ(variant->to * PAGE, set_size(self->p[1], variant->to * PAGE));
	ASSERT_EQ(64 * PAGE, set_size(copy[1], 64 * PAGE));
	ASSERT_EQ(0, read_pattern(self->p[0], len, 0, SEED));
	ASSERT_EQ(0, read_pattern(copy[0], len, 0, SEED));
}

/* The new size is what fits, before and after the old data is gone. */
TEST_F(resize, new_size_is_capacity)
{
	ssize_t used = variant->used * PAGE, size = variant->to * PAGE;

	ASSERT_EQ(0, turned_pipe(self->p, variant->from, variant->from / 2));
	ASSERT_EQ(0, write_pattern(self->p[1], used, 0, SEED));
	ASSERT_EQ(size, set_size(self->p[1], size));
	ASSERT_EQ(variant->to > variant->used, can_write(self->p[1]));
	ASSERT_EQ(size - used, pipe_fill_up(self->p[1]));
	ASSERT_EQ(size, bytes_queued(self->p[0]));
	ASSERT_FALSE(can_write(self->p[1]));
	ASSERT_EQ(0, read_pattern(self->p[0], used, 0, SEED));
	ASSERT_TRUE(can_write(self->p[1]));
	ASSERT_EQ(used, pipe_fill_up(self->p[1]));
	ASSERT_EQ(size, bytes_queued(self->p[0]));
}

/* Readiness follows the data and the room. */
TEST(poll_sees_room_after_growth)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_FALSE(can_read(p[0]));
	ASSERT_LT(0, pipe_fill_up(p[1]));
	ASSERT_FALSE(can_write(p[1]));
	ASSERT_EQ(32 * PAGE, set_size(p[1], 32 * PAGE));
	ASSERT_TRUE(can_write(p[1]));
	ASSERT_TRUE(can_read(p[0]));
	ASSERT_EQ(16 * PAGE, set_size(p[1], 16 * PAGE));
	ASSERT_FALSE(can_write(p[1]));
	ASSERT_TRUE(can_read(p[0]));
}

/* A full pipe of 2 slots and a child that waits for room in one of 3 ways. */

enum waiter { WAIT_WRITE, WAIT_SPLICE, WAIT_POLL };

FIXTURE(waiter)
{
	int p[2];
	pid_t pid;
};

FIXTURE_VARIANT(waiter)
{
	enum waiter how;
	long nr;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(waiter, write) { WAIT_WRITE, SYS_write };
FIXTURE_VARIANT_ADD(waiter, splice) { WAIT_SPLICE, SYS_splice };
FIXTURE_VARIANT_ADD(waiter, poll) { WAIT_POLL, SYS_ppoll };
/* clang-format on */

/* 0: the wait has ended well.  A page goes in, but for poll(). */
static int wait_for_room(enum waiter how, int wfd)
{
	struct pollfd pfd = { .fd = wfd, .events = POLLOUT };
	int fd;

	switch (how) {
	case WAIT_WRITE:
		return write_pattern(wfd, PAGE, 2 * PAGE, SEED);
	case WAIT_SPLICE:
		fd = backing_file_filled(BACKING_MEMFD, 3 * PAGE, SEED);
		if (lseek(fd, 2 * PAGE, SEEK_SET) < 0)
			return 1;
		return splice(fd, NULL, wfd, NULL, PAGE, 0) != PAGE;
	case WAIT_POLL:
		return ppoll(&pfd, 1, NULL, NULL) != 1 ||
		       pfd.revents != POLLOUT;
	}
	return 1;
}

FIXTURE_SETUP(waiter)
{
	ASSERT_EQ(0, pipe(self->p));
	ASSERT_EQ(2 * PAGE, set_size(self->p[1], 2 * PAGE));
	ASSERT_EQ(0, write_pattern(self->p[1], 2 * PAGE, 0, SEED));
	self->pid = fork_child();
	ASSERT_LE(0, self->pid);
	if (!self->pid)
		_exit(wait_for_room(variant->how, self->p[1]) != 0);
	ASSERT_TRUE(await_asleep(self->pid, variant->nr));
}

FIXTURE_TEARDOWN(waiter)
{
	close(self->p[0]);
	close(self->p[1]);
}

/* Growth makes room: the waiter goes on though nobody reads. */
TEST_F(waiter, woken_by_growth)
{
	ssize_t len = (variant->how == WAIT_POLL ? 2 : 3) * PAGE;

	ASSERT_EQ(4 * PAGE, set_size(self->p[0], 4 * PAGE));
	ASSERT_EQ(0, reap(self->pid));
	ASSERT_EQ(len, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], len, 0, SEED));
}

/* A resize that makes no room lets it wait on; then a reader does. */
TEST_F(waiter, waits_on_without_room)
{
	ASSERT_EQ(2 * PAGE, set_size(self->p[0], 2 * PAGE));
	ASSERT_EQ(-1, set_size(self->p[0], PAGE));
	ASSERT_EQ(EBUSY, errno);
	ASSERT_TRUE(await_asleep(self->pid, variant->nr));
	ASSERT_EQ(2 * PAGE, bytes_queued(self->p[0]));
	ASSERT_EQ(0, read_pattern(self->p[0], 2 * PAGE, 0, SEED));
	ASSERT_EQ(0, reap(self->pid));
	if (variant->how != WAIT_POLL)
		ASSERT_EQ(0, read_pattern(self->p[0], PAGE, 2 * PAGE, SEED));
}

/* How much fits: slots of a page each. */

/* Single bytes share a page until it is full. */
TEST(bytes_written_share_slots)
{
	int p[2], n = 0;
	char c;

	ASSERT_EQ(0, pipe2(p, O_NONBLOCK));
	ASSERT_EQ(2 * PAGE, set_size(p[1], 2 * PAGE));
	do {
		pattern_fill(&c, 1, n, SEED);
	} while (write(p[1], &c, 1) == 1 && ++n);
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(2 * PAGE, n);
	ASSERT_EQ(0, read_pattern(p[0], 2 * PAGE, 0, SEED));
}

/* Bytes spliced from a file take a slot each. */
TEST(bytes_spliced_take_slots)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, PAGE, SEED), n = 0;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	while (splice(fd, NULL, p[1], NULL, 1, SPLICE_F_NONBLOCK) == 1)
		n++;
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(DEFAULT_SLOTS, n);
	ASSERT_EQ(n, bytes_queued(p[0]));
	ASSERT_FALSE(can_write(p[1]));
	ASSERT_EQ(0, read_pattern(p[0], 1, 0, SEED));
	ASSERT_TRUE(can_write(p[1]));
	ASSERT_EQ(0, read_pattern(p[0], n - 1, 1, SEED));
}

/* A written byte does not join a spliced one, the next joins the written. */
TEST(bytes_written_after_spliced_byte)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, PAGE, SEED);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(2 * PAGE, set_size(p[1], 2 * PAGE));
	ASSERT_EQ(1, splice(fd, NULL, p[1], NULL, 1, 0));
	ASSERT_TRUE(can_write(p[1]));
	ASSERT_EQ(0, write_pattern(p[1], 1, 1, SEED));
	ASSERT_FALSE(can_write(p[1]));
	ASSERT_EQ(0, write_pattern(p[1], PAGE - 1, 2, SEED));
	ASSERT_EQ(PAGE + 1, bytes_queued(p[0]));
	ASSERT_EQ(0, read_pattern(p[0], PAGE + 1, 0, SEED));
}

/* In packet mode each write takes a slot, and each read one packet. */
TEST(packets_take_slots)
{
	char buf[64];
	int p[2], i;

	ASSERT_EQ(0, pipe2(p, O_DIRECT | O_NONBLOCK));
	for (i = 0; i < DEFAULT_SLOTS; i++)
		ASSERT_EQ(0, write_pattern(p[1], i + 1, i, SEED));
	ASSERT_EQ(-1, write(p[1], "x", 1));
	ASSERT_EQ(EAGAIN, errno);
	ASSERT_EQ(32 * PAGE, set_size(p[1], 32 * PAGE));
	for (i = 0; i < DEFAULT_SLOTS; i++) {
		ASSERT_EQ(i + 1, read(p[0], buf, sizeof(buf)));
		ASSERT_EQ(-1, pattern_check(buf, i + 1, i, SEED));
	}
	ASSERT_EQ(-1, read(p[0], buf, 1));
	ASSERT_EQ(EAGAIN, errno);
}

/* One splice() fills a large pipe. */
TEST(splice_fills_large_pipe)
{
	int p[2], fd = backing_file_filled(BACKING_MEMFD, MIB + PAGE, SEED);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(MIB, (size_t)set_size(p[1], MIB));
	ASSERT_EQ(MIB, (size_t)splice(fd, NULL, p[1], NULL, 2 * MIB, 0));
	ASSERT_EQ(MIB, (size_t)position(fd));
	ASSERT_FALSE(can_write(p[1]));
	ASSERT_EQ(0, read_pattern(p[0], MIB, 0, SEED));
}

/* The limits of ordinary users, with a user nobody else is. */

#define MAX_SIZE "/proc/sys/fs/pipe-max-size"
#define SOFT "/proc/sys/fs/pipe-user-pages-soft"
#define HARD PIPE_HARD_LIMIT
#define TEST_UID 61234

static const char *const sysctls[] = { MAX_SIZE, SOFT, HARD };

static int become_ordinary(void)
{
	return setresuid(TEST_UID, TEST_UID, TEST_UID);
}

/* clang-format off */
FIXTURE(limits) { };
/* clang-format on */

FIXTURE_SETUP(limits)
{
	if (geteuid() || sysctl_keep(sysctls, ARRAY_SIZE(sysctls)))
		SKIP(return, "only root can change the limits");
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, 64 * PAGE));
	ASSERT_EQ(0, sysctl_set(SOFT, 0));
	ASSERT_EQ(0, sysctl_set(HARD, 0));
}

FIXTURE_TEARDOWN(limits)
{
	EXPECT_EQ(0, undo_now());
}

/* Up to pipe-max-size anyone may grow, beyond it not; the data stays. */
TEST_F(limits, eperm_grow_beyond_max_size)
{
	int p[2];

	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe_filled(p, 5 * PAGE, SEED));
	ASSERT_EQ(64 * PAGE, set_size(p[1], 64 * PAGE));
	ASSERT_EQ(-1, set_size(p[1], 64 * PAGE + 1));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(64 * PAGE, get_size(p[1]));
	ASSERT_EQ(0, read_pattern(p[0], 5 * PAGE, 0, SEED));
}

/* Root may. */
TEST_F(limits, root_grows_beyond_max_size)
{
	int p[2];

	if (!has_sys_resource())
		SKIP(return, "no CAP_SYS_RESOURCE");
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(256 * PAGE, set_size(p[1], 256 * PAGE));
}

/* A pipe above the limit may shrink in steps, but not grow again. */
TEST_F(limits, eperm_grow_again_above_max_size)
{
	int p[2];

	if (!has_sys_resource())
		SKIP(return, "no CAP_SYS_RESOURCE");
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(256 * PAGE, set_size(p[1], 256 * PAGE));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(256 * PAGE, set_size(p[1], 256 * PAGE));
	ASSERT_EQ(128 * PAGE, set_size(p[1], 128 * PAGE));
	ASSERT_EQ(-1, set_size(p[1], 256 * PAGE));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(128 * PAGE, get_size(p[1]));
}

/* New pipes of ordinary users are no larger than pipe-max-size. */
TEST_F(limits, max_size_bounds_new_pipes)
{
	int p[2];

	if (!has_sys_resource())
		SKIP(return, "no CAP_SYS_RESOURCE");
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, 4 * PAGE));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[0]));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(4 * PAGE, get_size(p[0]));
	ASSERT_EQ(4 * PAGE, pipe_fill_up(p[1]));
}

/* Who is at the soft limit gets pipes of 2 slots, which still work. */
TEST_F(limits, soft_limit_makes_pipes_small)
{
	int a[2], b[2], c[2];

	ASSERT_EQ(0, sysctl_set(SOFT, 2 * DEFAULT_SLOTS));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(b[0]));
	ASSERT_EQ(0, pipe_filled(c, 2 * PAGE, SEED));
	ASSERT_EQ(2 * PAGE, get_size(c[0]));
	ASSERT_FALSE(can_write(c[1]));
	ASSERT_EQ(0, read_pattern(c[0], 2 * PAGE, 0, SEED));
}

/* At the soft limit no pipe grows; it does once another has shrunk. */
TEST_F(limits, eperm_grow_over_soft_limit)
{
	int a[2], b[2];

	ASSERT_EQ(0, sysctl_set(SOFT, 2 * DEFAULT_SLOTS));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(-1, set_size(a[1], 2 * DEFAULT_SLOTS * PAGE));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(a[1]));
	ASSERT_EQ(8 * PAGE, set_size(b[1], 8 * PAGE));
	ASSERT_EQ(-1, set_size(a[1], 2 * DEFAULT_SLOTS * PAGE));
	ASSERT_EQ(EPERM, errno);
	close(b[0]);
	close(b[1]);
	ASSERT_EQ(2 * DEFAULT_SLOTS * PAGE,
		  set_size(a[1], 2 * DEFAULT_SLOTS * PAGE));
}

/* At the hard limit there are no new pipes until one is closed. */
TEST_F(limits, enfile_pipe_over_hard_limit)
{
	int a[2], b[2];

	ASSERT_EQ(0, sysctl_set(HARD, DEFAULT_SLOTS));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(-1, pipe(b));
	ASSERT_EQ(ENFILE, errno);
	close(a[0]);
	ASSERT_EQ(-1, pipe(b));
	ASSERT_EQ(ENFILE, errno);
	close(a[1]);
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(b[1]));
}

/* Nor do pipes grow over it. */
TEST_F(limits, eperm_grow_over_hard_limit)
{
	int a[2];

	ASSERT_EQ(0, sysctl_set(HARD, DEFAULT_SLOTS));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe_filled(a, PAGE, SEED));
	ASSERT_EQ(-1, set_size(a[1], 2 * DEFAULT_SLOTS * PAGE));
	ASSERT_EQ(EPERM, errno);
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(a[1]));
	ASSERT_EQ(0, read_pattern(a[0], PAGE, 0, SEED));
}

/* Refused and repeated changes leave the account as it was. */
TEST_F(limits, refused_changes_are_not_charged)
{
	int a[2], b[2], i;

	ASSERT_EQ(0, sysctl_set(HARD, 2 * DEFAULT_SLOTS));
	ASSERT_EQ(0, become_ordinary());
	ASSERT_EQ(0, pipe_filled(a, 3 * PAGE, SEED));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(-1, set_size(a[1], 64 * PAGE));
		ASSERT_EQ(EPERM, errno);
		ASSERT_EQ(-1, set_size(a[1], PAGE));
		ASSERT_EQ(EBUSY, errno);
		ASSERT_EQ(8 * PAGE, set_size(a[1], 8 * PAGE));
		ASSERT_EQ(16 * PAGE, set_size(a[1], 16 * PAGE));
	}
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(b[1]));
	ASSERT_EQ(-1, set_size(b[1], 2 * DEFAULT_SLOTS * PAGE));
	ASSERT_EQ(EPERM, errno);
}

/* Neither limit binds root. */
TEST_F(limits, root_is_not_limited)
{
	int p[2];

	ASSERT_EQ(0, sysctl_set(SOFT, 1));
	ASSERT_EQ(0, sysctl_set(HARD, 1));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(DEFAULT_SLOTS * PAGE, get_size(p[1]));
	ASSERT_EQ(64 * PAGE, set_size(p[1], 64 * PAGE));
}

/* pipe-max-size is rounded like a pipe's size. */
TEST_F(limits, max_size_rounds_up)
{
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, 1));
	ASSERT_EQ(PAGE, sysctl_get(MAX_SIZE));
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, PAGE));
	ASSERT_EQ(PAGE, sysctl_get(MAX_SIZE));
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, 3 * PAGE));
	ASSERT_EQ(4 * PAGE, sysctl_get(MAX_SIZE));
	ASSERT_EQ(0, sysctl_set(MAX_SIZE, 1L << 31));
	ASSERT_EQ(1L << 31, sysctl_get(MAX_SIZE));
}

/* What is no number, negative or too large is refused and changes nothing. */
TEST_F(limits, max_size_refuses_nonsense)
{
	ASSERT_EQ(-1, sysctl_write(MAX_SIZE, "large"));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, sysctl_write(MAX_SIZE, "-4096"));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, sysctl_set(MAX_SIZE, (1L << 31) + 1));
	ASSERT_EQ(64 * PAGE, sysctl_get(MAX_SIZE));
}

/* Ordinary users read the limits but do not set them. */
TEST_F(limits, eacces_ordinary_user_sets_limit)
{
	size_t i;

	ASSERT_EQ(0, become_ordinary());
	for (i = 0; i < ARRAY_SIZE(sysctls); i++) {
		ASSERT_EQ(-1, sysctl_set(sysctls[i], 64 * PAGE));
		ASSERT_EQ(EACCES, errno);
		ASSERT_LE(0, sysctl_get(sysctls[i]));
	}
	ASSERT_EQ(64 * PAGE, sysctl_get(MAX_SIZE));
}

TEST_HARNESS_MAIN
