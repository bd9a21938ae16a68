// SPDX-License-Identifier: GPL-2.0-only
/*
 * tee(2): what one pipe holds appears in a second one and stays in the first.
 * Covers do_tee(), link_pipe() and the waiting before it in fs/splice.c, and
 * the references to and flags of shared buffers in fs/pipe.c.
 *
 * errno	test, or why there is none
 * EAGAIN	nonblock.eagain
 * EBADF	ebadf_wrong_direction, ebadf_not_open
 * EINTR	blocked.eintr
 * EINVAL	einval_same_pipe, einval_unknown_flags, not_a_pipe.einval_*,
 *		fifo.einval_same_fifo, einval_notification_pipe
 * EPIPE	epipe_without_reader, epipe_full_without_reader,
 *		epipe_when_last_reader_leaves
 * EFAULT	a page reference count about to overflow: two milliards of
 *		references do not fit into a test
 * ENOMEM	is in tee(2), but nothing is allocated
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "splice_util.h"

#define SEED 0x7ee
#define OTHER_SEED 0x0dd
#define PAGE ((ssize_t)sysconf(_SC_PAGESIZE))
/* Slots of a new pipe. */
#define SLOTS 16
/* More than any pipe here holds. */
#define PLENTY (16 * MIB)

/* The pipe behind @fd holds exactly @len bytes, from @pos of the stream. */
static void expect_held(struct __test_metadata *_metadata, int fd, ssize_t len,
			uint64_t pos)
{
	ASSERT_EQ(len, bytes_queued(fd));
	EXPECT_EQ(0, read_pattern(fd, len, pos, SEED));
	EXPECT_EQ(0, bytes_queued(fd));
}

FIXTURE(pipes)
{
	int src[2];
	int dst[2];
};

FIXTURE_SETUP(pipes)
{
	ASSERT_EQ(0, pipe(self->src));
	ASSERT_EQ(0, pipe(self->dst));
	ASSERT_EQ(0, pipe_use_slots(self->dst));
}

FIXTURE_TEARDOWN(pipes)
{
}

/* How much is asked for, and from where in the first buffer. */
FIXTURE(length)
{
	int src[2];
	int dst[2];
	ssize_t total;
	ssize_t len;
};

FIXTURE_VARIANT(length)
{
	int skip;
	int pages;
	int bytes;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(length, one_byte) { .bytes = 1 };
FIXTURE_VARIANT_ADD(length, part_of_a_page) { .bytes = 1234 };
FIXTURE_VARIANT_ADD(length, page) { .pages = 1 };
FIXTURE_VARIANT_ADD(length, page_less_one) { .pages = 1, .bytes = -1 };
FIXTURE_VARIANT_ADD(length, page_and_one) { .pages = 1, .bytes = 1 };
FIXTURE_VARIANT_ADD(length, whole_pipe) { .pages = SLOTS };
FIXTURE_VARIANT_ADD(length, unaligned_one_byte) { .skip = 77, .bytes = 1 };
FIXTURE_VARIANT_ADD(length, unaligned_page) { .skip = 77, .pages = 1 };
FIXTURE_VARIANT_ADD(length, unaligned_pages) {
	.skip = 1, .pages = 5, .bytes = 99 };
FIXTURE_VARIANT_ADD(length, unaligned_whole_pipe) {
	.skip = 2049, .pages = SLOTS, .bytes = -2049 };
/* clang-format on */

FIXTURE_SETUP(length)
{
	self->total = SLOTS * PAGE - variant->skip;
	self->len = variant->pages * PAGE + variant->bytes;
	ASSERT_EQ(0, pipe(self->dst));
	ASSERT_EQ(0, pipe_filled(self->src, SLOTS * PAGE, SEED));
	ASSERT_EQ(0, read_pattern(self->src[0], variant->skip, 0, SEED));
}

FIXTURE_TEARDOWN(length)
{
}

/* As many bytes as asked for are doubled and none is consumed. */
TEST_F(length, duplicates)
{
	ASSERT_EQ(self->len, tee(self->src[0], self->dst[1], self->len, 0));
	expect_held(_metadata, self->dst[0], self->len, variant->skip);
	expect_held(_metadata, self->src[0], self->total, variant->skip);
}

/* A second tee starts at the beginning again. */
TEST_F(length, repeats_the_beginning)
{
	int third[2];

	ASSERT_EQ(0, pipe(third));
	ASSERT_EQ(self->len, tee(self->src[0], self->dst[1], self->len, 0));
	ASSERT_EQ(self->len, tee(self->src[0], third[1], self->len, 0));
	expect_held(_metadata, third[0], self->len, variant->skip);
	expect_held(_metadata, self->dst[0], self->len, variant->skip);
	expect_held(_metadata, self->src[0], self->total, variant->skip);
}

/* Move all that @fd holds into a new file; return the file. */
static int splice_out(int fd, ssize_t len)
{
	int file = backing_file(BACKING_MEMFD);

	if (file < 0 || splice(fd, NULL, file, NULL, len, 0) != len)
		return -1;
	return bytes_queued(fd) ? -1 : file;
}

/* Original and duplicate can both be spliced on. */
TEST_F(length, splices_on)
{
	int file;

	ASSERT_EQ(self->len, tee(self->src[0], self->dst[1], self->len, 0));
	file = splice_out(self->dst[0], self->len);
	EXPECT_EQ(0, pread_pattern(file, 0, self->len, variant->skip, SEED));
	file = splice_out(self->src[0], self->total);
	EXPECT_EQ(0, pread_pattern(file, 0, self->total, variant->skip, SEED));
}

/* Where the bytes in the source came from. */
enum origin { WRITTEN, VMSPLICED, FROM_UNIX, FROM_TCP, FROM_FILE };

/* Fits the default pipe in pieces of any kind; begins inside a page. */
#define ORIGIN_LEN 20557
#define ORIGIN_POS 123

FIXTURE(origin)
{
	int src[2];
	int dst[2];
	int file;
	char *mem;
};

FIXTURE_VARIANT(origin)
{
	enum origin from;
	enum backing backing;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(origin, written) { .from = WRITTEN };
FIXTURE_VARIANT_ADD(origin, vmspliced) { .from = VMSPLICED };
FIXTURE_VARIANT_ADD(origin, unix) { .from = FROM_UNIX };
FIXTURE_VARIANT_ADD(origin, tcp) { .from = FROM_TCP };
FIXTURE_VARIANT_ADD(origin, ext4) {
	.from = FROM_FILE, .backing = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(origin, xfs) { .from = FROM_FILE, .backing = BACKING_XFS };
FIXTURE_VARIANT_ADD(origin, tmpfs) {
	.from = FROM_FILE, .backing = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(origin, overlay) {
	.from = FROM_FILE, .backing = BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(origin, memfd) {
	.from = FROM_FILE, .backing = BACKING_MEMFD };
/* clang-format on */

static int fill_from_socket(int (*pair)(int sv[2]), int wfd)
{
	int sv[2];

	if (pair(sv) || write_pattern(sv[0], ORIGIN_LEN, ORIGIN_POS, SEED))
		return -1;
	return splice_all(sv[1], NULL, wfd, NULL, ORIGIN_LEN) != ORIGIN_LEN;
}

static int fill_from_memory(char *mem, int wfd)
{
	struct iovec iov = {
		.iov_base = mem + ORIGIN_POS,
		.iov_len = ORIGIN_LEN,
	};

	pattern_fill(mem, ORIGIN_POS + ORIGIN_LEN, 0, SEED);
	return vmsplice(wfd, &iov, 1, 0) == ORIGIN_LEN ? 0 : -1;
}

static int fill(enum origin from, int file, char *mem, int wfd)
{
	off_t off = ORIGIN_POS;

	switch (from) {
	case WRITTEN:
		return write_pattern(wfd, ORIGIN_LEN, ORIGIN_POS, SEED);
	case VMSPLICED:
		return fill_from_memory(mem, wfd);
	case FROM_UNIX:
		return fill_from_socket(unix_pair, wfd);
	case FROM_TCP:
		return fill_from_socket(tcp_pair, wfd);
	case FROM_FILE:
		return splice_all(file, &off, wfd, NULL, ORIGIN_LEN) !=
		       ORIGIN_LEN;
	}
	return -1;
}

FIXTURE_SETUP(origin)
{
	const bool file = variant->from == FROM_FILE;
	const size_t len = ORIGIN_POS + ORIGIN_LEN;

	if (file && !backing_available(variant->backing))
		SKIP(return, "no %s here", backing_name(variant->backing));
	if (file)
		self->file = backing_file_filled(variant->backing, len, SEED);
	ASSERT_GE(self->file, 0);
	self->mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	ASSERT_EQ(0, pipe(self->src));
	ASSERT_EQ(0, pipe(self->dst));
	ASSERT_EQ(0, pipe_use_slots(self->src));
	ASSERT_EQ(0, pipe_use_slots(self->dst));
	ASSERT_EQ(0, fill(variant->from, self->file, self->mem, self->src[1]));
	ASSERT_EQ(ORIGIN_LEN, tee(self->src[0], self->dst[1], PLENTY, 0));
}

FIXTURE_TEARDOWN(origin)
{
}

/* Both pipes hold the bytes, whatever kind of buffer carries them. */
TEST_F(origin, is_in_both)
{
	expect_held(_metadata, self->src[0], ORIGIN_LEN, ORIGIN_POS);
	expect_held(_metadata, self->dst[0], ORIGIN_LEN, ORIGIN_POS);
}

/* Both pipes can be spliced into a file, the duplicate first. */
TEST_F(origin, splices_on)
{
	int file = splice_out(self->dst[0], ORIGIN_LEN);

	EXPECT_EQ(0, pread_pattern(file, 0, ORIGIN_LEN, ORIGIN_POS, SEED));
	file = splice_out(self->src[0], ORIGIN_LEN);
	EXPECT_EQ(0, pread_pattern(file, 0, ORIGIN_LEN, ORIGIN_POS, SEED));
}

/* The duplicate outlives the pipe it came from. */
TEST_F(origin, outlives_source)
{
	close(self->src[0]);
	close(self->src[1]);
	expect_held(_metadata, self->dst[0], ORIGIN_LEN, ORIGIN_POS);
}

/* Throwing the duplicate away leaves the source alone. */
TEST_F(origin, outlives_duplicate)
{
	close(self->dst[0]);
	close(self->dst[1]);
	expect_held(_metadata, self->src[0], ORIGIN_LEN, ORIGIN_POS);
}

/* What is written behind the duplicate reaches neither source nor origin. */
TEST_F(origin, is_not_written_through)
{
	const size_t all = ORIGIN_POS + ORIGIN_LEN;

	ASSERT_EQ(0, write_pattern(self->dst[1], 100, 0, OTHER_SEED));
	EXPECT_EQ(0, read_pattern(self->dst[0], ORIGIN_LEN, ORIGIN_POS, SEED));
	EXPECT_EQ(0, read_pattern(self->dst[0], 100, 0, OTHER_SEED));
	expect_held(_metadata, self->src[0], ORIGIN_LEN, ORIGIN_POS);
	if (variant->from == FROM_FILE)
		EXPECT_EQ(0, pread_pattern(self->file, 0, all, 0, SEED));
	if (variant->from == VMSPLICED)
		EXPECT_EQ(-1, pattern_check(self->mem, all, 0, SEED));
}

/* Bytes written to the source later do not show in the duplicate. */
TEST_F(pipes, write_to_source_stays_there)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(0, write_pattern(self->src[1], 50, 100, SEED));
	expect_held(_metadata, self->dst[0], 100, 0);
	expect_held(_metadata, self->src[0], 150, 0);
}

/* Bytes written to the duplicate later do not show in the source. */
TEST_F(pipes, write_to_duplicate_stays_there)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(0, write_pattern(self->dst[1], 50, 100, SEED));
	expect_held(_metadata, self->src[0], 100, 0);
	expect_held(_metadata, self->dst[0], 150, 0);
}

/* Written to both, each pipe shows its own bytes only. */
TEST_F(pipes, writes_to_both_stay_apart)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(0, write_pattern(self->dst[1], 50, 100, SEED));
	ASSERT_EQ(0, write_pattern(self->src[1], 60, 0, OTHER_SEED));
	expect_held(_metadata, self->dst[0], 150, 0);
	EXPECT_EQ(0, read_pattern(self->src[0], 100, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->src[0], 60, 0, OTHER_SEED));
}

/* A write behind a cut duplicate does not overwrite the rest of the source. */
TEST_F(pipes, write_behind_cut_duplicate)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(10, tee(self->src[0], self->dst[1], 10, 0));
	ASSERT_EQ(0, write_pattern(self->dst[1], 50, 0, OTHER_SEED));
	expect_held(_metadata, self->src[0], 100, 0);
	EXPECT_EQ(0, read_pattern(self->dst[0], 10, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->dst[0], 50, 0, OTHER_SEED));
}

/* Asked for more than there is: what there is. */
TEST_F(pipes, more_than_source)
{
	ASSERT_EQ(0, write_pattern(self->src[1], PAGE + 1, 0, SEED));
	ASSERT_EQ(PAGE + 1, tee(self->src[0], self->dst[1], SIZE_MAX, 0));
	expect_held(_metadata, self->dst[0], PAGE + 1, 0);
	expect_held(_metadata, self->src[0], PAGE + 1, 0);
}

/* A destination with fewer slots than the source has buffers: short. */
TEST_F(pipes, more_than_destination)
{
	ASSERT_EQ(2 * PAGE, fcntl(self->dst[1], F_SETPIPE_SZ, 2 * PAGE));
	ASSERT_EQ(0, write_pattern(self->src[1], 5 * PAGE, 0, SEED));
	ASSERT_EQ(2 * PAGE, tee(self->src[0], self->dst[1], PLENTY, 0));
	expect_held(_metadata, self->dst[0], 2 * PAGE, 0);
	expect_held(_metadata, self->src[0], 5 * PAGE, 0);
}

/* Only the slots that are free are used, behind what was there. */
TEST_F(pipes, into_partly_full_destination)
{
	ASSERT_EQ(4 * PAGE, fcntl(self->dst[1], F_SETPIPE_SZ, 4 * PAGE));
	ASSERT_EQ(0, write_pattern(self->dst[1], PAGE + 10, 0, OTHER_SEED));
	ASSERT_EQ(0, write_pattern(self->src[1], 5 * PAGE, 0, SEED));
	ASSERT_EQ(2 * PAGE, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(3 * PAGE + 10, bytes_queued(self->dst[0]));
	EXPECT_EQ(0, read_pattern(self->dst[0], PAGE + 10, 0, OTHER_SEED));
	expect_held(_metadata, self->dst[0], 2 * PAGE, 0);
	expect_held(_metadata, self->src[0], 5 * PAGE, 0);
}

/* A larger destination takes all of a source of many small buffers. */
TEST_F(pipes, small_buffers)
{
	struct iovec iov[SLOTS];
	char mem[SLOTS * 30];
	int i;

	pattern_fill(mem, sizeof(mem), 0, SEED);
	for (i = 0; i < SLOTS; i++) {
		iov[i].iov_base = mem + 30 * i;
		iov[i].iov_len = 30;
	}
	ASSERT_EQ(SLOTS * 30, vmsplice(self->src[1], iov, SLOTS, 0));
	ASSERT_EQ(64 * PAGE, fcntl(self->dst[1], F_SETPIPE_SZ, 64 * PAGE));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], 100, 0));
	ASSERT_EQ(SLOTS * 30, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, read_pattern(self->dst[0], 100, 0, SEED));
	expect_held(_metadata, self->dst[0], SLOTS * 30, 0);
	expect_held(_metadata, self->src[0], SLOTS * 30, 0);
}

/* Hand on what tee left behind: source spliced into the destination. */
TEST_F(pipes, then_spliced_into_same_destination)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 2 * PAGE, 0, SEED));
	ASSERT_EQ(PAGE, tee(self->src[0], self->dst[1], PAGE, 0));
	ASSERT_EQ(2 * PAGE,
		  splice(self->src[0], NULL, self->dst[1], NULL, 2 * PAGE, 0));
	EXPECT_EQ(0, bytes_queued(self->src[0]));
	EXPECT_EQ(0, read_pattern(self->dst[0], PAGE, 0, SEED));
	expect_held(_metadata, self->dst[0], 2 * PAGE, 0);
}

/* The roles of the two pipes may change from call to call. */
TEST_F(pipes, forth_and_back)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(50, tee(self->dst[0], self->src[1], 50, 0));
	ASSERT_EQ(150, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, read_pattern(self->dst[0], 100, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->dst[0], 100, 0, SEED));
	expect_held(_metadata, self->dst[0], 50, 0);
	EXPECT_EQ(0, read_pattern(self->src[0], 100, 0, SEED));
	expect_held(_metadata, self->src[0], 50, 0);
}

/* Each flag of splice() is accepted and changes nothing here. */
TEST_F(pipes, accepts_known_flags)
{
	const unsigned int flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK |
				   SPLICE_F_MORE | SPLICE_F_GIFT;

	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, flags));
	expect_held(_metadata, self->dst[0], 100, 0);
	expect_held(_metadata, self->src[0], 100, 0);
}

/* From pipe to pipe to pipe: every one holds all. */
TEST(chain_of_many)
{
	int fds[40][2];
	int i;

	ASSERT_EQ(0, pipe_filled(fds[0], PAGE + 33, SEED));
	for (i = 1; i < 40; i++) {
		ASSERT_EQ(0, pipe(fds[i]));
		ASSERT_EQ(PAGE + 33, tee(fds[i - 1][0], fds[i][1], PLENTY, 0));
	}
	for (i = 0; i < 40; i++)
		expect_held(_metadata, fds[i][0], PAGE + 33, 0);
}

/* One source, many duplicates; closing some leaves the others. */
TEST(fan_out)
{
	int fds[41][2];
	int i;

	ASSERT_EQ(0, pipe_filled(fds[0], PAGE + 33, SEED));
	for (i = 1; i <= 40; i++) {
		ASSERT_EQ(0, pipe(fds[i]));
		ASSERT_EQ(PAGE + 33, tee(fds[0][0], fds[i][1], PLENTY, 0));
	}
	for (i = 0; i <= 40; i += 2) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
	for (i = 1; i <= 40; i += 2)
		expect_held(_metadata, fds[i][0], PAGE + 33, 0);
}

/* A pipe in packet mode with packets of 10, 20 and 30 bytes. */
static int pipe_of_packets(int fds[2])
{
	if (pipe2(fds, O_DIRECT))
		return -1;
	return write_pattern(fds[1], 10, 0, SEED) ||
	       write_pattern(fds[1], 20, 10, SEED) ||
	       write_pattern(fds[1], 30, 30, SEED);
}

/* One read() with room for @room bytes returns @len, from @pos on. */
static void expect_packet(struct __test_metadata *_metadata, int fd,
			  size_t room, ssize_t len, uint64_t pos)
{
	char *buf = malloc(room);

	memset(buf, 0xff, room);
	ASSERT_EQ(len, read(fd, buf, room));
	EXPECT_EQ(-1, pattern_check(buf, len, pos, SEED));
	free(buf);
}

/* Packets stay packets in a pipe that is not in packet mode. */
TEST_F(pipes, packets_stay_packets)
{
	int src[2];

	ASSERT_EQ(0, pipe_of_packets(src));
	ASSERT_EQ(60, tee(src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(60, bytes_queued(self->dst[0]));
	expect_packet(_metadata, self->dst[0], 100, 10, 0);
	expect_packet(_metadata, self->dst[0], 5, 5, 10);
	expect_packet(_metadata, self->dst[0], 100, 30, 30);
	expect_packet(_metadata, src[0], 100, 10, 0);
	expect_packet(_metadata, src[0], 100, 20, 10);
	expect_packet(_metadata, src[0], 100, 30, 30);
}

/* A packet cut by the length is a shorter packet, in the duplicate only. */
TEST_F(pipes, packet_is_cut)
{
	int src[2];

	ASSERT_EQ(0, pipe_of_packets(src));
	ASSERT_EQ(15, tee(src[0], self->dst[1], 15, 0));
	ASSERT_EQ(0, write_pattern(self->dst[1], 7, 200, SEED));
	expect_packet(_metadata, self->dst[0], 100, 10, 0);
	expect_packet(_metadata, self->dst[0], 100, 5, 10);
	expect_packet(_metadata, self->dst[0], 100, 7, 200);
	expect_packet(_metadata, src[0], 100, 10, 0);
	expect_packet(_metadata, src[0], 100, 20, 10);
}

/* A destination in packet mode makes no packets of what is duplicated. */
TEST_F(pipes, packet_mode_of_destination)
{
	int dst[2];

	ASSERT_EQ(0, pipe2(dst, O_DIRECT));
	ASSERT_EQ(0, write_pattern(self->src[1], PAGE, 0, SEED));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, PAGE, SEED));
	ASSERT_EQ(PAGE + 100, tee(self->src[0], dst[1], PLENTY, 0));
	expect_packet(_metadata, dst[0], PAGE - 1, PAGE - 1, 0);
	expect_packet(_metadata, dst[0], 100, 100, PAGE - 1);
	expect_held(_metadata, dst[0], 1, PAGE + 99);
}

FIXTURE(fifo)
{
	int fifo;
	int fds[2];
};

FIXTURE_VARIANT(fifo)
{
	enum backing backing;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(fifo, ext4) { .backing = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(fifo, xfs) { .backing = BACKING_XFS };
FIXTURE_VARIANT_ADD(fifo, tmpfs) { .backing = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(fifo, overlay) { .backing = BACKING_OVERLAY };
/* clang-format on */

FIXTURE_SETUP(fifo)
{
	if (!backing_available(variant->backing))
		SKIP(return, "no %s here", backing_name(variant->backing));
	self->fifo = fifo_in(backing_dir(variant->backing));
	ASSERT_GE(self->fifo, 0);
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(fifo)
{
}

/* A FIFO is a source like any pipe. */
TEST_F(fifo, as_source)
{
	ASSERT_EQ(0, write_pattern(self->fifo, PAGE + 9, 0, SEED));
	ASSERT_EQ(PAGE + 9, tee(self->fifo, self->fds[1], PLENTY, 0));
	expect_held(_metadata, self->fds[0], PAGE + 9, 0);
	expect_held(_metadata, self->fifo, PAGE + 9, 0);
}

/* A FIFO is a destination like any pipe. */
TEST_F(fifo, as_destination)
{
	ASSERT_EQ(0, write_pattern(self->fds[1], PAGE + 9, 0, SEED));
	ASSERT_EQ(PAGE + 9, tee(self->fds[0], self->fifo, PLENTY, 0));
	expect_held(_metadata, self->fifo, PAGE + 9, 0);
	expect_held(_metadata, self->fds[0], PAGE + 9, 0);
}

/* Two descriptions of one FIFO are one pipe. */
TEST_F(fifo, einval_same_fifo)
{
	int rfd = reopen(self->fifo, O_RDONLY);
	int wfd = reopen(self->fifo, O_WRONLY);

	ASSERT_EQ(0, write_pattern(wfd, 100, 0, SEED));
	EXPECT_EQ(-1, tee(rfd, wfd, 10, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(self->fifo, self->fifo, 10, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, rfd, 100, 0);
}

/* Watchers see an access of the source, a change of the destination. */
TEST_F(fifo, notifies)
{
	int ifd;

	ASSERT_EQ(0, write_pattern(self->fifo, 100, 0, SEED));
	ifd = watch(self->fifo);
	ASSERT_GE(ifd, 0);
	ASSERT_EQ(100, tee(self->fifo, self->fds[1], PLENTY, 0));
	EXPECT_EQ(IN_ACCESS, next_event(ifd));
	ASSERT_EQ(100, tee(self->fds[0], self->fifo, PLENTY, 0));
	EXPECT_EQ(IN_MODIFY, next_event(ifd));
	EXPECT_EQ(0, next_event(ifd));
}

/* Who keeps tee() from sleeping, and for what it would sleep. */
enum nonblock { BY_FLAG, BY_SOURCE, BY_DESTINATION };

FIXTURE(nonblock)
{
	int src[2];
	int dst[2];
	ssize_t src_len;
	ssize_t dst_len;
	unsigned int flags;
};

FIXTURE_VARIANT(nonblock)
{
	enum nonblock by;
	bool full;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(nonblock, flag_empty_source) { .by = BY_FLAG };
FIXTURE_VARIANT_ADD(nonblock, source_empty_source) { .by = BY_SOURCE };
FIXTURE_VARIANT_ADD(nonblock, destination_empty_source) {
	.by = BY_DESTINATION };
FIXTURE_VARIANT_ADD(nonblock, flag_full_destination) {
	.by = BY_FLAG, .full = true };
FIXTURE_VARIANT_ADD(nonblock, source_full_destination) {
	.by = BY_SOURCE, .full = true };
FIXTURE_VARIANT_ADD(nonblock, destination_full_destination) {
	.by = BY_DESTINATION, .full = true };
/* clang-format on */

FIXTURE_SETUP(nonblock)
{
	self->src_len = variant->full ? 100 : 0;
	self->dst_len = variant->full ? SLOTS * PAGE : 100;
	ASSERT_EQ(0, pipe_filled(self->src, self->src_len, SEED));
	ASSERT_EQ(0, pipe_filled(self->dst, self->dst_len, SEED));
	if (variant->by == BY_FLAG)
		self->flags = SPLICE_F_NONBLOCK;
	if (variant->by == BY_SOURCE)
		ASSERT_EQ(0, set_nonblock(self->src[0]));
	if (variant->by == BY_DESTINATION)
		ASSERT_EQ(0, set_nonblock(self->dst[1]));
}

FIXTURE_TEARDOWN(nonblock)
{
}

/* Instead of sleeping: EAGAIN, and both pipes as they were. */
TEST_F(nonblock, eagain)
{
	EXPECT_EQ(-1, tee(self->src[0], self->dst[1], PLENTY, self->flags));
	EXPECT_EQ(EAGAIN, errno);
	expect_held(_metadata, self->src[0], self->src_len, 0);
	expect_held(_metadata, self->dst[0], self->dst_len, 0);
}

/* With both data and room nothing differs. */
TEST_F(nonblock, works_when_ready)
{
	ASSERT_EQ(0, read_pattern(self->dst[0], self->dst_len, 0, SEED));
	ASSERT_EQ(0, write_pattern(self->src[1], 10, self->src_len, SEED));
	ASSERT_EQ(self->src_len + 10,
		  tee(self->src[0], self->dst[1], PLENTY, self->flags));
	expect_held(_metadata, self->dst[0], self->src_len + 10, 0);
	expect_held(_metadata, self->src[0], self->src_len + 10, 0);
}

/* tee() must sleep: for data, or for a free slot. */
FIXTURE(blocked)
{
	int src[2];
	int dst[2];
	ssize_t src_len;
};

FIXTURE_VARIANT(blocked)
{
	bool full;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(blocked, on_empty_source) { .full = false };
FIXTURE_VARIANT_ADD(blocked, on_full_destination) { .full = true };
/* clang-format on */

FIXTURE_SETUP(blocked)
{
	self->src_len = variant->full ? 2 * PAGE : 0;
	ASSERT_EQ(0, pipe_filled(self->src, self->src_len, SEED));
	ASSERT_EQ(0, pipe_filled(self->dst, variant->full ? SLOTS * PAGE : 0,
				 OTHER_SEED));
}

FIXTURE_TEARDOWN(blocked)
{
}

/*
 * The child: send @signals to the sleeping parent, then give what it waits
 * for, one page of data or of room.
 */
static void unblock(int src[2], int dst[2], bool full, int signals)
{
	for (; signals; signals--) {
		await_asleep(getppid(), SYS_tee);
		kill(getppid(), SIGALRM);
	}
	await_asleep(getppid(), SYS_tee);
	if (full)
		_exit(read_pattern(dst[0], PAGE, 0, OTHER_SEED));
	_exit(write_pattern(src[1], PAGE, 0, SEED));
}

/* The one page that could be duplicated is behind what @dst had. */
static void expect_one_page(struct __test_metadata *_metadata, int src[2],
			    ssize_t src_len, int dst[2], bool full)
{
	ssize_t had = (SLOTS - 1) * PAGE;

	if (full)
		EXPECT_EQ(0, read_pattern(dst[0], had, PAGE, OTHER_SEED));
	expect_held(_metadata, dst[0], PAGE, 0);
	expect_held(_metadata, src[0], full ? src_len : PAGE, 0);
}

/* The call sleeps until another process writes or reads one page. */
TEST_F(blocked, waits)
{
	pid_t pid = fork_child();

	if (!pid)
		unblock(self->src, self->dst, variant->full, 0);
	ASSERT_EQ(PAGE, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, reap(pid));
	expect_one_page(_metadata, self->src, self->src_len, self->dst,
			variant->full);
}

/* Interrupted thrice with SA_RESTART, the call goes on waiting. */
TEST_F(blocked, restarts)
{
	pid_t pid;

	ASSERT_EQ(0, alarm_start(3600 * 1000, SA_RESTART));
	pid = fork_child();
	if (!pid)
		unblock(self->src, self->dst, variant->full, 3);
	ASSERT_EQ(PAGE, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(3, signal_count(SIGALRM));
	EXPECT_EQ(0, reap(pid));
	expect_one_page(_metadata, self->src, self->src_len, self->dst,
			variant->full);
}

/* A signal handler without SA_RESTART ends the wait; nothing happened. */
TEST_F(blocked, eintr)
{
	ASSERT_EQ(0, alarm_start(20, 0));
	EXPECT_EQ(-1, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(EINTR, errno);
	EXPECT_LE(1, signal_count(SIGALRM));
	alarm_stop();
	EXPECT_EQ(variant->full ? SLOTS * PAGE : 0, bytes_queued(self->dst[0]));
	expect_held(_metadata, self->src[0], self->src_len, 0);
}

/* A reader asleep on the destination is woken. */
TEST_F(pipes, wakes_reader)
{
	pid_t pid = spawn_reader(self->dst[0], 100, 0, SEED);

	ASSERT_TRUE(await_asleep(pid, SYS_read));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, reap(pid));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* Empty and nobody left to write: end of file. */
TEST_F(pipes, eof)
{
	close(self->src[1]);
	EXPECT_EQ(0, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
}

/* What the last writer left is duplicated before and not instead of EOF. */
TEST_F(pipes, data_before_eof)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	close(self->src[1]);
	ASSERT_EQ(100, tee(self->src[0], self->dst[1], PLENTY, 0));
	expect_held(_metadata, self->dst[0], 100, 0);
	expect_held(_metadata, self->src[0], 100, 0);
	EXPECT_EQ(0, tee(self->src[0], self->dst[1], PLENTY, 0));
}

/* The last writer leaves while tee() waits for data: end of file. */
TEST_F(pipes, eof_when_last_writer_leaves)
{
	pid_t pid = fork_child();

	if (!pid) {
		await_asleep(getppid(), SYS_tee);
		_exit(0);
	}
	close(self->src[1]);
	ASSERT_EQ(0, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
}

/* Nobody to read the destination: EPIPE and one SIGPIPE. */
TEST_F(pipes, epipe_without_reader)
{
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	close(self->dst[0]);
	EXPECT_EQ(-1, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* The same when the destination is full, and even without blocking. */
TEST_F(pipes, epipe_full_without_reader)
{
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(SLOTS * PAGE, pipe_fill_up(self->dst[1]));
	close(self->dst[0]);
	EXPECT_EQ(-1, tee(self->src[0], self->dst[1], PLENTY, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(-1,
		  tee(self->src[0], self->dst[1], PLENTY, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(2, signal_count(SIGPIPE));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* The last reader leaves while tee() waits for room. */
TEST_F(pipes, epipe_when_last_reader_leaves)
{
	pid_t pid;

	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	ASSERT_EQ(SLOTS * PAGE, pipe_fill_up(self->dst[1]));
	pid = fork_child();
	if (!pid) {
		await_asleep(getppid(), SYS_tee);
		_exit(0);
	}
	close(self->dst[0]);
	ASSERT_EQ(-1, tee(self->src[0], self->dst[1], PLENTY, 0));
	ASSERT_EQ(EPIPE, errno);
	ASSERT_EQ(1, signal_count(SIGPIPE));
	EXPECT_EQ(0, reap(pid));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* Nothing asked for, nothing done: no waiting for the empty source. */
TEST_F(pipes, length_zero)
{
	EXPECT_EQ(0, tee(self->src[0], self->dst[1], 0, 0));
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	EXPECT_EQ(0, tee(self->src[0], self->dst[1], 0, 0));
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* Source and destination must differ, under whatever descriptor. */
TEST_F(pipes, einval_same_pipe)
{
	int both = reopen(self->src[0], O_RDWR);

	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	EXPECT_EQ(-1, tee(self->src[0], self->src[1], 10, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(both, both, 10, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(dup(self->src[0]), both, 10, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, self->src[0], 100, 0);
}

/* A pipe for notifications is neither source nor destination. */
TEST_F(pipes, einval_notification_pipe)
{
	int fds[2];

	if (notification_pipe(fds)) {
		ASSERT_EQ(ENOPKG, errno);
		SKIP(return, "no notification pipes here");
	}
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	EXPECT_EQ(-1, tee(self->src[0], fds[1], 10, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, tee(fds[0], self->dst[1], 10, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, bytes_queued(fds[0]));
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* Every bit that is no flag of splice() is refused. */
TEST_F(pipes, einval_unknown_flags)
{
	unsigned int bit;

	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	for (bit = 4; bit < 32; bit++) {
		EXPECT_EQ(-1, tee(self->src[0], self->dst[1], 10, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* The write end is no source, the read end no destination. */
TEST_F(pipes, ebadf_wrong_direction)
{
	ASSERT_EQ(0, write_pattern(self->src[1], 100, 0, SEED));
	EXPECT_EQ(-1, tee(self->src[1], self->dst[1], 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, tee(self->src[0], self->dst[0], 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(0, bytes_queued(self->dst[0]));
	expect_held(_metadata, self->src[0], 100, 0);
}

/* A number that is no descriptor, or one without I/O (O_PATH). */
TEST_F(pipes, ebadf_not_open)
{
	int path = reopen(self->src[0], O_PATH);

	ASSERT_GE(path, 0);
	EXPECT_EQ(-1, tee(-1, self->dst[1], 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, tee(self->src[0], -1, 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, tee(path, self->dst[1], 10, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, tee(self->src[0], path, 10, 0));
	EXPECT_EQ(EBADF, errno);
}

/* What can be read and written but is no pipe. */
enum impostor { REGULAR, SOCKET, DEVICE, EVENTFD };

FIXTURE(not_a_pipe)
{
	int fd;
	int fds[2];
};

FIXTURE_VARIANT(not_a_pipe)
{
	enum impostor is;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(not_a_pipe, file) { .is = REGULAR };
FIXTURE_VARIANT_ADD(not_a_pipe, socket) { .is = SOCKET };
FIXTURE_VARIANT_ADD(not_a_pipe, device) { .is = DEVICE };
FIXTURE_VARIANT_ADD(not_a_pipe, eventfd) { .is = EVENTFD };
/* clang-format on */

static int impostor(enum impostor is)
{
	int sv[2];

	switch (is) {
	case REGULAR:
		return backing_file_filled(BACKING_MEMFD, 100, SEED);
	case SOCKET:
		return unix_pair(sv) ? -1 : sv[0];
	case DEVICE:
		return open("/dev/zero", O_RDWR);
	case EVENTFD:
		return eventfd(1, 0);
	}
	return -1;
}

FIXTURE_SETUP(not_a_pipe)
{
	self->fd = impostor(variant->is);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, pipe_filled(self->fds, 100, SEED));
}

FIXTURE_TEARDOWN(not_a_pipe)
{
}

/* Only a pipe can be the source. */
TEST_F(not_a_pipe, einval_as_source)
{
	EXPECT_EQ(-1, tee(self->fd, self->fds[1], 10, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, self->fds[0], 100, 0);
}

/* Only a pipe can be the destination. */
TEST_F(not_a_pipe, einval_as_destination)
{
	EXPECT_EQ(-1, tee(self->fds[0], self->fd, 10, 0));
	EXPECT_EQ(EINVAL, errno);
	expect_held(_metadata, self->fds[0], 100, 0);
}

TEST_HARNESS_MAIN
