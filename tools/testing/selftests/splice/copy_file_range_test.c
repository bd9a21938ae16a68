// SPDX-License-Identifier: GPL-2.0-only
/*
 * copy_file_range(2) within one file system: what arrives, what offsets and
 * positions say afterwards, what is refused.  Covers vfs_copy_file_range() and
 * its checks in fs/read_write.c, the fallback to do_splice_direct() in
 * fs/splice.c, clones on xfs and the method of overlayfs.
 *
 * errno       test, or why there is none
 * EACCES      a descriptor that may not be written is EBADF; else an LSM's
 * EBADF       ebadf_*, same_fs.ebadf_append_output
 * EDQUOT      needs a file system with quotas
 * EFAULT      efault_*
 * EFBIG       same_fs.efbig_*
 * EINTR       local files are copied uninterruptibly
 * EINVAL      einval_*, same_fs.einval_*
 * EIO         eio_from_file_system
 * EISDIR      eisdir
 * ENOMEM      enomem_private_pipe; with SPLICE_FAULTS, see splice_fault.h
 * ENOSPC      enospc_after_short_count
 * EOPNOTSUPP  repair_file_test copy_from_procfs; else not from the VFS:
 *             whatever a method does not support is copied
 * EOVERFLOW   same_fs.eoverflow_range_wraps
 * EPERM       immutable.eperm_output, eperm_sealed
 * EROFS       seen by open() already
 * ETXTBSY     swap_file.etxtbsy_*
 * EXDEV       generated.exdev, exdev_*
 */

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "fuse_file.h"
#include "splice_util.h"

#define SEED 11
#define POISON 22

/* Signed, as positions and results are. */
#define BYTES(n) ((off_t)(n))
/* Neither a multiple of a page nor of what the private pipe holds. */
#define LEN BYTES(300 * KIB + 123)
/* For direct I/O and clones. */
#define BLOCKS BYTES(256 * KIB)
/* Does not fit 32 bits. */
#define FAR BYTES(5 * 1024 * MIB + 123)

/* Until @len bytes are copied or the input ends, whatever short counts. */
static ssize_t copy_all(int in, off_t *in_off, int out, off_t *out_off,
			size_t len)
{
	size_t sum = 0;

	while (sum < len) {
		ssize_t n =
			copy_file_range(in, in_off, out, out_off, len - sum, 0);

		if (n < 0)
			return -1;
		if (!n)
			break;
		sum += n;
	}
	return sum;
}

/* From the given places, whatever the positions are. */
static ssize_t copy_at(int in, off_t in_off, int out, off_t out_off, size_t len)
{
	return copy_all(in, &in_off, out, &out_off, len);
}

/* One call that must fail with @err and leave both offsets alone. */
static bool refused(int in, off_t in_off, int out, off_t out_off, size_t len,
		    int err)
{
	const off_t in_before = in_off, out_before = out_off;

	errno = 0;
	return copy_file_range(in, &in_off, out, &out_off, len, 0) == -1 &&
	       errno == err && in_off == in_before && out_off == out_before;
}

/* As an ordinary user: 0 when all is copied, else the errno. */
static int copy_as_nobody(int in, int out, size_t len)
{
	pid_t pid = fork_nobody();
	ssize_t n;

	if (pid)
		return reap(pid);
	n = copy_at(in, 0, out, 0, len);
	_exit(n == (ssize_t)len ? 0 : n < 0 ? errno : 254);
}

/* ---- within each file system ---- */

FIXTURE(same_fs)
{
	int in;
	int out;
};

FIXTURE_VARIANT(same_fs)
{
	enum backing b;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(same_fs, ext4) { .b = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(same_fs, xfs) { .b = BACKING_XFS };
FIXTURE_VARIANT_ADD(same_fs, tmpfs) { .b = BACKING_TMPFS };
FIXTURE_VARIANT_ADD(same_fs, overlay) { .b = BACKING_OVERLAY };
FIXTURE_VARIANT_ADD(same_fs, memfd) { .b = BACKING_MEMFD };
/* clang-format on */

FIXTURE_SETUP(same_fs)
{
	if (!backing_available(variant->b))
		SKIP(return, "no %s here", backing_name(variant->b));
	self->in = backing_file_filled(variant->b, LEN, SEED);
	ASSERT_LE(0, self->in);
	self->out = backing_file(variant->b);
	ASSERT_LE(0, self->out);
}

FIXTURE_TEARDOWN(same_fs)
{
	close(self->in);
	close(self->out);
}

/* A whole file arrives and both positions are at its end. */
TEST_F(same_fs, whole_file_arrives)
{
	ASSERT_EQ(LEN, copy_all(self->in, NULL, self->out, NULL, LEN));
	EXPECT_EQ(LEN, position(self->in));
	EXPECT_EQ(LEN, position(self->out));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

/* Bytes on both sides of an unaligned range stay as they were. */
TEST_F(same_fs, unaligned_range_replaces_only_itself)
{
	const off_t from = 4099, at = 777, len = 200001;

	ASSERT_EQ(0, write_pattern(self->out, LEN, 0, POISON));
	ASSERT_EQ(len, copy_at(self->in, from, self->out, at, len));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, at, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, at, len, from, SEED));
	EXPECT_EQ(0, pread_pattern(self->out, at + len, LEN - at - len,
				   at + len, POISON));
}

/* The same for whole blocks, which a file system may share. */
TEST_F(same_fs, aligned_range_replaces_only_itself)
{
	const off_t from = 8192, at = 16384, len = 65536;

	ASSERT_EQ(0, write_pattern(self->out, LEN, 0, POISON));
	ASSERT_EQ(len, copy_at(self->in, from, self->out, at, len));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, at, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, at, len, from, SEED));
	EXPECT_EQ(0, pread_pattern(self->out, at + len, LEN - at - len,
				   at + len, POISON));
}

/* Sizes around pages and around one fill of the private pipe. */
TEST_F(same_fs, sizes_are_exact)
{
	const off_t sizes[] = {
		1, 4095, 4096, 4097, 65535, 65536, 65537, 131073
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(0, ftruncate(self->out, 0));
		ASSERT_EQ(sizes[i],
			  copy_at(self->in, 0, self->out, 0, sizes[i]));
		EXPECT_EQ(sizes[i], file_size(self->out));
		EXPECT_EQ(0, pread_pattern(self->out, 0, sizes[i], 0, SEED));
	}
}

/* The length is cut at the end of the input. */
TEST_F(same_fs, short_at_end_of_file)
{
	ASSERT_EQ(10001, copy_at(self->in, LEN - 10001, self->out, 0, MIB));
	EXPECT_EQ(10001, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 10001, LEN - 10001, SEED));
}

/* At the end of the input and beyond there is nothing to copy. */
TEST_F(same_fs, zero_from_end_of_file_on)
{
	EXPECT_EQ(0, copy_at(self->in, LEN, self->out, 0, 4096));
	EXPECT_EQ(0, copy_at(self->in, LEN + 1, self->out, 0, 4096));
	EXPECT_EQ(0, copy_at(self->in, LEN + 10 * MIB, self->out, 0, 4096));
	EXPECT_EQ(0, copy_at(self->in, LEN, self->out, 100, 4096));
	EXPECT_EQ(0, file_size(self->out));
}

/* Nor in an empty file. */
TEST_F(same_fs, zero_from_empty_file)
{
	EXPECT_EQ(0, copy_at(self->out, 0, self->in, 0, 4096));
	EXPECT_EQ(0, pread_pattern(self->in, 0, LEN, 0, SEED));
}

/* A length of 0 is no request for the rest of the file. */
TEST_F(same_fs, length_zero)
{
	EXPECT_EQ(0, copy_file_range(self->in, NULL, self->out, NULL, 0, 0));
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(0, position(self->out));
	EXPECT_EQ(0, file_size(self->out));
}

/* The largest length there is copies to the end of the file. */
TEST_F(same_fs, huge_length_is_cut_at_end_of_file)
{
	ASSERT_EQ(LEN, copy_file_range(self->in, NULL, self->out, NULL,
				       SIZE_MAX, 0));
	EXPECT_EQ(LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

/* A hole arrives as zeroes, also where the destination had other data. */
TEST_F(same_fs, hole_arrives_as_zeroes)
{
	const off_t data = MIB + 5000;

	ASSERT_EQ(data, lseek(self->in, data, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 9000, data, SEED));
	ASSERT_EQ(0, write_pattern(self->out, data + 9000, 0, POISON));
	ASSERT_EQ(data + 9000, copy_at(self->in, 0, self->out, 0, 2 * MIB));
	EXPECT_EQ(data + 9000, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
	EXPECT_EQ(0, pread_zeroes(self->out, LEN, data - LEN));
	EXPECT_EQ(0, pread_pattern(self->out, data, 9000, data, SEED));
}

/* Beyond the end of the output the gap reads as zeroes. */
TEST_F(same_fs, gap_before_offset_is_zero)
{
	ASSERT_EQ(0, write_pattern(self->out, 100, 0, POISON));
	ASSERT_EQ(LEN, copy_at(self->in, 0, self->out, 70001, LEN));
	EXPECT_EQ(70001 + LEN, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 100, 0, POISON));
	EXPECT_EQ(0, pread_zeroes(self->out, 100, 70001 - 100));
	EXPECT_EQ(0, pread_pattern(self->out, 70001, LEN, 0, SEED));
}

/* Offsets have more than 32 bits, on both sides. */
TEST_F(same_fs, offset_beyond_4gib)
{
	ASSERT_EQ(FAR, lseek(self->in, FAR, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 70000, FAR, SEED));
	ASSERT_EQ(70000, copy_at(self->in, FAR, self->out, FAR + 5, MIB));
	EXPECT_EQ(FAR + 70005, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, FAR + 5, 70000, FAR, SEED));
}

/* What is written to either file afterwards does not show in the other. */
TEST_F(same_fs, files_are_independent_afterwards)
{
	ASSERT_EQ(0, ftruncate(self->in, BLOCKS));
	ASSERT_EQ(BLOCKS, copy_at(self->in, 0, self->out, 0, BLOCKS));
	ASSERT_EQ(8192, lseek(self->in, 8192, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->in, 20001, 0, POISON));
	ASSERT_EQ(65536, lseek(self->out, 65536, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->out, 20001, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 65536, 0, SEED));
	EXPECT_EQ(0,
		  pread_pattern(self->in, 65536, BLOCKS - 65536, 65536, SEED));
	EXPECT_EQ(0, pread_pattern(self->in, 8192, 20001, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, 65536, 20001, 0, POISON));
}

/* Data that is only in a shared mapping so far is copied. */
TEST_F(same_fs, mapped_input_is_copied)
{
	char *map = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
			 self->in, 0);

	ASSERT_NE(MAP_FAILED, map);
	pattern_fill(map, LEN, 0, POISON);
	ASSERT_EQ(LEN, copy_at(self->in, 0, self->out, 0, LEN));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, POISON));
}

/* A mapping of the destination shows the copy. */
TEST_F(same_fs, mapped_output_shows_copy)
{
	char *map;

	ASSERT_EQ(0, write_pattern(self->out, LEN, 0, POISON));
	map = mmap(NULL, LEN, PROT_READ, MAP_SHARED, self->out, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(-1, pattern_check(map, LEN, 0, POISON));
	ASSERT_EQ(LEN, copy_at(self->in, 0, self->out, 0, LEN));
	EXPECT_EQ(-1, pattern_check(map, LEN, 0, SEED));
}

/* Direct I/O on both sides. */
TEST_F(same_fs, direct_io)
{
	int in = reopen(self->in, O_RDONLY | O_DIRECT);
	int out = reopen(self->out, O_RDWR | O_DIRECT);

	ASSERT_LE(0, in);
	ASSERT_LE(0, out);
	ASSERT_EQ(BLOCKS, copy_at(in, 8192, out, 4096, BLOCKS));
	EXPECT_EQ(0, pread_zeroes(self->out, 0, 4096));
	EXPECT_EQ(0, pread_pattern(self->out, 4096, BLOCKS, 8192, SEED));
	close(in);
	close(out);
}

/* Within one file, to ranges that only touch: up, down and at the end. */
TEST_F(same_fs, same_file_touching)
{
	int out = reopen(self->in, O_RDWR);

	ASSERT_EQ(100001, copy_at(self->in, 0, out, 100001, 100001));
	EXPECT_EQ(0, pread_pattern(self->in, 0, 100001, 0, SEED));
	EXPECT_EQ(0, pread_pattern(self->in, 100001, 100001, 0, SEED));
	EXPECT_EQ(0,
		  pread_pattern(self->in, 200002, LEN - 200002, 200002, SEED));
	ASSERT_EQ(100000, copy_at(out, 200002, self->in, 100002, 100000));
	EXPECT_EQ(0, pread_pattern(self->in, 100002, 100000, 200002, SEED));
	close(out);
}

/* Ranges are compared after the length was cut at the end of the file. */
TEST_F(same_fs, same_file_doubled_at_end)
{
	ASSERT_EQ(LEN, copy_file_range(self->in, &(off_t){ 0 }, self->in,
				       &(off_t){ LEN }, 10 * LEN, 0));
	EXPECT_EQ(2 * LEN, file_size(self->in));
	EXPECT_EQ(0, pread_pattern(self->in, 0, LEN, 0, SEED));
	EXPECT_EQ(0, pread_pattern(self->in, LEN, LEN, 0, SEED));
}

/* Two descriptors of one file have positions of their own. */
TEST_F(same_fs, same_file_two_positions)
{
	int out = reopen(self->in, O_RDWR);

	ASSERT_EQ(150000, lseek(out, 150000, SEEK_SET));
	ASSERT_EQ(5, lseek(self->in, 5, SEEK_SET));
	ASSERT_EQ(70001, copy_all(self->in, NULL, out, NULL, 70001));
	EXPECT_EQ(70006, position(self->in));
	EXPECT_EQ(220001, position(out));
	EXPECT_EQ(0, pread_pattern(self->in, 150000, 70001, 5, SEED));
	close(out);
}

/* Overlapping ranges of one file are refused, through any descriptors. */
TEST_F(same_fs, einval_overlapping_ranges)
{
	const size_t huge = INT64_MAX - LEN;
	int out = reopen(self->in, O_RDWR);

	EXPECT_TRUE(refused(self->in, 0, self->in, 0, 4096, EINVAL));
	EXPECT_TRUE(refused(self->in, 0, out, 0, 1, EINVAL));
	EXPECT_TRUE(refused(self->in, 0, out, 4095, 4096, EINVAL));
	EXPECT_TRUE(refused(self->in, 4095, out, 0, 4096, EINVAL));
	EXPECT_TRUE(refused(self->in, 0, out, LEN - 1, huge, EINVAL));
	EXPECT_EQ(LEN, file_size(self->in));
	EXPECT_EQ(0, pread_pattern(self->in, 0, LEN, 0, SEED));
	close(out);
}

/* Flags are for later. */
TEST_F(same_fs, einval_flags)
{
	for (int bit = 0; bit < 32; bit++) {
		EXPECT_EQ(-1, copy_file_range(self->in, NULL, self->out, NULL,
					      LEN, 1U << bit));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, file_size(self->out));
	EXPECT_EQ(0, position(self->in));
}

/* A negative offset on either side. */
TEST_F(same_fs, einval_negative_offset)
{
	EXPECT_TRUE(refused(self->in, -100, self->out, 0, 10, EINVAL));
	EXPECT_TRUE(refused(self->in, 0, self->out, -100, 10, EINVAL));
	EXPECT_EQ(0, file_size(self->out));
}

/* Ranges whose end does not fit 64 bits. */
TEST_F(same_fs, eoverflow_range_wraps)
{
	EXPECT_TRUE(refused(self->in, 1, self->out, 0, SIZE_MAX, EOVERFLOW));
	EXPECT_TRUE(refused(self->in, 0, self->out, 1, SIZE_MAX, EOVERFLOW));
	EXPECT_TRUE(refused(self->in, -1, self->out, 0, 1, EOVERFLOW));
	EXPECT_TRUE(refused(self->in, 0, self->out, -1, 1, EOVERFLOW));
	EXPECT_EQ(0, file_size(self->out));
}

/* No file is as long as the largest offset. */
TEST_F(same_fs, efbig_largest_offset)
{
	EXPECT_TRUE(refused(self->in, 0, self->out, INT64_MAX, 1, EFBIG));
	EXPECT_EQ(0, file_size(self->out));
}

/* Up to the limit a short count, from there EFBIG and SIGXFSZ. */
TEST_F(same_fs, efbig_file_size_limit)
{
	struct rlimit limit = { .rlim_cur = 100001, .rlim_max = RLIM_INFINITY };
	ssize_t n;

	ASSERT_EQ(0, signal_count_start(SIGXFSZ));
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	do {
		EXPECT_EQ(0, signal_count(SIGXFSZ));
		n = copy_file_range(self->in, NULL, self->out, NULL, LEN, 0);
	} while (n > 0);
	EXPECT_EQ(-1, n);
	EXPECT_EQ(EFBIG, errno);
	EXPECT_EQ(1, signal_count(SIGXFSZ));
	limit.rlim_cur = RLIM_INFINITY;
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_EQ(100001, position(self->in));
	EXPECT_EQ(100001, file_size(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, 100001, 0, SEED));
}

/* A destination that is open for appending is refused. */
TEST_F(same_fs, ebadf_append_output)
{
	int out = reopen(self->out, O_WRONLY | O_APPEND);

	EXPECT_TRUE(refused(self->in, 0, out, 0, LEN, EBADF));
	EXPECT_TRUE(refused(self->in, 0, out, 0, 0, EBADF));
	EXPECT_EQ(0, file_size(self->out));
	close(out);
}

/* The output was modified, so its time of modification moves. */
TEST_F(same_fs, modification_time_moves)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->out, old));
	ASSERT_EQ(LEN, copy_at(self->in, 0, self->out, 0, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_NE(1000, st.st_mtime);
}

/* Copying nothing is no modification. */
TEST_F(same_fs, modification_time_stays_without_data)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct stat st;

	ASSERT_EQ(0, futimens(self->out, old));
	ASSERT_EQ(0, copy_at(self->in, 0, self->out, 0, 0));
	ASSERT_EQ(0, copy_at(self->in, LEN, self->out, 0, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_EQ(1000, st.st_mtime);
}

/* An ordinary user who changes a set-user-ID file takes the bit away. */
TEST_F(same_fs, user_strips_set_user_id)
{
	struct stat st;

	if (geteuid())
		SKIP(return, "not root");
	ASSERT_EQ(0, fchmod(self->out, 06755));
	ASSERT_EQ(0, copy_as_nobody(self->in, self->out, LEN));
	ASSERT_EQ(0, fstat(self->out, &st));
	EXPECT_EQ(0755U, st.st_mode & 07777);
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

struct job {
	pthread_t thread;
	int in;
	int out;
	off_t off;
	ssize_t copied;
};

static void *run_job(void *arg)
{
	struct job *job = arg;

	job->copied = copy_at(job->in, job->off, job->out, job->off, LEN / 4);
	return NULL;
}

/* Threads that copy parts of one file through the same descriptors. */
TEST_F(same_fs, threads_share_files)
{
	struct job jobs[4];

	for (int i = 0; i < 4; i++) {
		jobs[i] = (struct job){ .in = self->in,
					.out = self->out,
					.off = LEN / 4 * i };
		ASSERT_EQ(0, pthread_create(&jobs[i].thread, NULL, run_job,
					    &jobs[i]));
	}
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(jobs[i].thread, NULL));
		EXPECT_EQ(LEN / 4, jobs[i].copied);
	}
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN / 4 * 4, 0, SEED));
}

/* Copies page after page from position to position, over and over. */
static void *run_crossing(void *arg)
{
	struct job *job = arg;

	for (int i = 0; i < 2000 && job->copied >= 0; i++) {
		if (i % 16 == 0 && (lseek(job->in, 0, SEEK_SET) ||
				    lseek(job->out, 0, SEEK_SET)))
			job->copied = -1;
		else
			job->copied = copy_file_range(job->in, NULL, job->out,
						      NULL, 4096, 0);
	}
	return NULL;
}

/* Two positions are used in either direction, and nobody waits for ever. */
TEST_F(same_fs, threads_cross_positions)
{
	struct job there = { .in = self->in, .out = self->out };
	struct job back = { .in = self->out, .out = self->in };

	ASSERT_EQ(0, write_pattern(self->out, LEN, 0, SEED));
	ASSERT_EQ(0, pthread_create(&there.thread, NULL, run_crossing, &there));
	ASSERT_EQ(0, pthread_create(&back.thread, NULL, run_crossing, &back));
	ASSERT_EQ(0, pthread_join(there.thread, NULL));
	ASSERT_EQ(0, pthread_join(back.thread, NULL));
	EXPECT_LE(0, there.copied);
	EXPECT_LE(0, back.copied);
}

/* One position on both sides is one range on both sides. */
TEST_F(same_fs, einval_one_position_twice)
{
	EXPECT_EQ(-1, copy_file_range(self->in, NULL, self->in, NULL, 1, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, position(self->in));
}

/* ---- offsets and positions ---- */

FIXTURE(offsets)
{
	int in;
	int out;
	off_t in_off;
	off_t out_off;
};

FIXTURE_VARIANT(offsets)
{
	enum backing b;
	bool in;
	bool out;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(offsets, none_ext4) { BACKING_EXT4, false, false };
FIXTURE_VARIANT_ADD(offsets, in_ext4) { BACKING_EXT4, true, false };
FIXTURE_VARIANT_ADD(offsets, out_ext4) { BACKING_EXT4, false, true };
FIXTURE_VARIANT_ADD(offsets, both_ext4) { BACKING_EXT4, true, true };
FIXTURE_VARIANT_ADD(offsets, none_xfs) { BACKING_XFS, false, false };
FIXTURE_VARIANT_ADD(offsets, in_xfs) { BACKING_XFS, true, false };
FIXTURE_VARIANT_ADD(offsets, out_xfs) { BACKING_XFS, false, true };
FIXTURE_VARIANT_ADD(offsets, both_xfs) { BACKING_XFS, true, true };
FIXTURE_VARIANT_ADD(offsets, none_tmpfs) { BACKING_TMPFS, false, false };
FIXTURE_VARIANT_ADD(offsets, in_tmpfs) { BACKING_TMPFS, true, false };
FIXTURE_VARIANT_ADD(offsets, out_tmpfs) { BACKING_TMPFS, false, true };
FIXTURE_VARIANT_ADD(offsets, both_tmpfs) { BACKING_TMPFS, true, true };
FIXTURE_VARIANT_ADD(offsets, none_overlay) { BACKING_OVERLAY, false, false };
FIXTURE_VARIANT_ADD(offsets, in_overlay) { BACKING_OVERLAY, true, false };
FIXTURE_VARIANT_ADD(offsets, out_overlay) { BACKING_OVERLAY, false, true };
FIXTURE_VARIANT_ADD(offsets, both_overlay) { BACKING_OVERLAY, true, true };
FIXTURE_VARIANT_ADD(offsets, none_memfd) { BACKING_MEMFD, false, false };
FIXTURE_VARIANT_ADD(offsets, in_memfd) { BACKING_MEMFD, true, false };
FIXTURE_VARIANT_ADD(offsets, out_memfd) { BACKING_MEMFD, false, true };
FIXTURE_VARIANT_ADD(offsets, both_memfd) { BACKING_MEMFD, true, true };
/* clang-format on */

/* Input offset and position, output offset and position: all different. */
static const off_t start[4] = { 8192, 77, 333, 4096 };

FIXTURE_SETUP(offsets)
{
	if (!backing_available(variant->b))
		SKIP(return, "no %s here", backing_name(variant->b));
	self->in = backing_file_filled(variant->b, LEN, SEED);
	self->out = backing_file_filled(variant->b, LEN, POISON);
	self->in_off = start[0];
	self->out_off = start[2];
	ASSERT_EQ(start[1], lseek(self->in, start[1], SEEK_SET));
	ASSERT_EQ(start[3], lseek(self->out, start[3], SEEK_SET));
}

FIXTURE_TEARDOWN(offsets)
{
	close(self->in);
	close(self->out);
}

/* An offset that is given is used and moved, else the position is. */
TEST_F(offsets, only_those_used_move)
{
	off_t *in_off = variant->in ? &self->in_off : NULL;
	off_t *out_off = variant->out ? &self->out_off : NULL;
	const off_t from = start[variant->in ? 0 : 1];
	const off_t to = start[variant->out ? 2 : 3], len = 100001;

	ASSERT_EQ(len, copy_all(self->in, in_off, self->out, out_off, len));
	EXPECT_EQ(start[0] + (variant->in ? len : 0), self->in_off);
	EXPECT_EQ(start[1] + (variant->in ? 0 : len), position(self->in));
	EXPECT_EQ(start[2] + (variant->out ? len : 0), self->out_off);
	EXPECT_EQ(start[3] + (variant->out ? 0 : len), position(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, to, 0, POISON));
	EXPECT_EQ(0, pread_pattern(self->out, to, len, from, SEED));
	EXPECT_EQ(0, pread_pattern(self->out, to + len, LEN - to - len,
				   to + len, POISON));
}

/* A call that fails moves none of them. */
TEST_F(offsets, none_moves_on_error)
{
	off_t *in_off = variant->in ? &self->in_off : NULL;
	off_t *out_off = variant->out ? &self->out_off : NULL;

	ASSERT_EQ(-1, copy_file_range(self->in, in_off, self->out, out_off, LEN,
				      1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(start[0], self->in_off);
	EXPECT_EQ(start[1], position(self->in));
	EXPECT_EQ(start[2], self->out_off);
	EXPECT_EQ(start[3], position(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, POISON));
}

/* ---- clones ---- */

FIXTURE(clone)
{
	int in;
	int out;
};

FIXTURE_SETUP(clone)
{
	if (!backing_available(BACKING_XFS))
		SKIP(return, "no xfs here");
	self->in = backing_file_filled(BACKING_XFS, BLOCKS, SEED);
	self->out = backing_file(BACKING_XFS);
	ASSERT_LE(0, self->in);
	ASSERT_LE(0, self->out);
	if (ioctl(self->out, FICLONE, self->in)) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		SKIP(return, "xfs without reflink");
	}
	ASSERT_EQ(0, ftruncate(self->out, 0));
}

FIXTURE_TEARDOWN(clone)
{
	close(self->in);
	close(self->out);
}

/* The number of extents, -1 when there are none or one is not shared. */
static int shared_extents(int fd)
{
	struct {
		struct fiemap head;
		struct fiemap_extent extents[16];
	} map = { .head.fm_length = BLOCKS,
		  .head.fm_flags = FIEMAP_FLAG_SYNC,
		  .head.fm_extent_count = 16 };

	if (ioctl(fd, FS_IOC_FIEMAP, &map) || !map.head.fm_mapped_extents)
		return -1;
	for (unsigned int i = 0; i < map.head.fm_mapped_extents; i++)
		if (!(map.extents[i].fe_flags & FIEMAP_EXTENT_SHARED))
			return -1;
	return map.head.fm_mapped_extents;
}

/* Where the file system can share blocks, whole blocks are shared. */
TEST_F(clone, blocks_are_shared)
{
	ASSERT_EQ(BLOCKS, copy_at(self->in, 0, self->out, 0, BLOCKS));
	EXPECT_LT(0, shared_extents(self->in));
	EXPECT_LT(0, shared_extents(self->out));
	EXPECT_EQ(0, pread_pattern(self->out, 0, BLOCKS, 0, SEED));
}

/* One call copies at most 2 GiB less a page. */
TEST_F(clone, length_beyond_2gib_is_cut)
{
	const off_t most = 0x80000000L - sysconf(_SC_PAGESIZE);

	ASSERT_EQ(0, ftruncate(self->in, 3 * 1024 * MIB));
	ASSERT_EQ(most, copy_file_range(self->in, NULL, self->out, NULL,
					3 * 1024 * MIB, 0));
	EXPECT_EQ(most, file_size(self->out));
	EXPECT_EQ(most, position(self->in));
	EXPECT_EQ(0, pread_pattern(self->out, 0, BLOCKS, 0, SEED));
}

/* ---- files with something special about them ---- */

FIXTURE(immutable)
{
	int in;
	int out;
	int flags;
};

FIXTURE_VARIANT(immutable)
{
	enum backing b;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(immutable, ext4) { .b = BACKING_EXT4 };
FIXTURE_VARIANT_ADD(immutable, xfs) { .b = BACKING_XFS };
FIXTURE_VARIANT_ADD(immutable, tmpfs) { .b = BACKING_TMPFS };
/* clang-format on */

static int change_flags(int fd, int flags)
{
	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

FIXTURE_SETUP(immutable)
{
	if (!backing_available(variant->b))
		SKIP(return, "no %s here", backing_name(variant->b));
	self->in = backing_file_filled(variant->b, LEN, SEED);
	self->out = backing_file_filled(variant->b, LEN, POISON);
	ASSERT_EQ(0, ioctl(self->out, FS_IOC_GETFLAGS, &self->flags));
	ASSERT_EQ(0, change_flags(self->out, self->flags | FS_IMMUTABLE_FL));
}

FIXTURE_TEARDOWN(immutable)
{
	change_flags(self->out, self->flags);
	close(self->in);
	close(self->out);
}

/* A file that became immutable when it was open already is not changed. */
TEST_F(immutable, eperm_output)
{
	EXPECT_TRUE(refused(self->in, 0, self->out, 0, LEN, EPERM));
	EXPECT_TRUE(refused(self->in, 0, self->out, 0, 0, EPERM));
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, POISON));
}

/* It can be copied from. */
TEST_F(immutable, input_is_copied)
{
	ASSERT_EQ(LEN, copy_at(self->out, 0, self->in, 0, LEN));
	EXPECT_EQ(0, pread_pattern(self->in, 0, LEN, 0, POISON));
}

FIXTURE(swap_file)
{
	int swap;
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
	self->swap = swap_file(variant->b, SEED);
	ASSERT_LE(0, self->swap);
	self->fd = backing_file_filled(variant->b, LEN, POISON);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(swap_file)
{
	EXPECT_EQ(0, undo_now());
	close(self->swap);
	close(self->fd);
}

/* A file in use for swapping is not read. */
TEST_F(swap_file, etxtbsy_input)
{
	EXPECT_TRUE(refused(self->swap, 0, self->fd, 0, 4096, ETXTBSY));
	EXPECT_EQ(0, pread_pattern(self->fd, 0, LEN, 0, POISON));
}

/* Nor is it written to. */
TEST_F(swap_file, etxtbsy_output)
{
	EXPECT_TRUE(refused(self->fd, 0, self->swap, 8192, 4096, ETXTBSY));
	EXPECT_EQ(0, pread_pattern(self->swap, 8192, 8192, 8192, SEED));
}

FIXTURE(generated)
{
	int in;
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
}

FIXTURE_TEARDOWN(generated)
{
	close(self->in);
}

/* The size of a generated file means nothing, so it is not copied from. */
TEST_F(generated, exdev)
{
	int out = memfd_filled(LEN, POISON);

	EXPECT_TRUE(refused(self->in, 0, out, 0, 4096, EXDEV));
	EXPECT_EQ(0, position(self->in));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
}

/* A file system with a method of its own keeps to itself. */
TEST(exdev_method_on_one_side)
{
	int disk, memory, over;

	if (!backing_available(BACKING_OVERLAY))
		SKIP(return, "no overlay here");
	over = backing_file_filled(BACKING_OVERLAY, LEN, SEED);
	memory = memfd_filled(LEN, POISON);
	EXPECT_TRUE(refused(over, 0, memory, 0, LEN, EXDEV));
	EXPECT_TRUE(refused(memory, 0, over, 0, LEN, EXDEV));
	if (backing_available(BACKING_EXT4)) {
		disk = backing_file_filled(BACKING_EXT4, LEN, POISON);
		EXPECT_TRUE(refused(over, 0, disk, 0, LEN, EXDEV));
		EXPECT_TRUE(refused(disk, 0, over, 0, LEN, EXDEV));
		EXPECT_EQ(0, pread_pattern(disk, 0, LEN, 0, POISON));
	}
	EXPECT_EQ(0, pread_pattern(over, 0, LEN, 0, SEED));
	EXPECT_EQ(0, pread_pattern(memory, 0, LEN, 0, POISON));
}

/* One that has neither a method nor a disk copies, but only inside of it. */
TEST(exdev_neither_disk_nor_tmpfs)
{
	const char *const options[][2] = { { NULL } };
	int dir = private_mount("ramfs", options), memory, in, out;

	if (dir < 0)
		SKIP(return, "cannot make a ramfs: %s", strerror(errno));
	in = openat(dir, "in", O_RDWR | O_CREAT, 0600);
	out = openat(dir, "out", O_RDWR | O_CREAT, 0600);
	memory = memfd_filled(LEN, POISON);
	/* An empty file is no generated one. */
	EXPECT_EQ(0, copy_at(in, 0, out, 0, LEN));
	ASSERT_EQ(0, write_pattern(in, LEN, 0, SEED));
	EXPECT_EQ(LEN, copy_at(in, 0, out, 0, LEN));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
	EXPECT_TRUE(refused(in, 0, memory, 0, LEN, EXDEV));
	EXPECT_TRUE(refused(memory, 0, out, 0, LEN, EXDEV));
	EXPECT_EQ(0, pread_pattern(memory, 0, LEN, 0, POISON));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* A memfd sealed against writing stays as it is. */
TEST(eperm_sealed)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(LEN, POISON);
	int future = memfd_filled(LEN, POISON), grow = memfd_filled(0, 0);

	ASSERT_EQ(0, fcntl(out, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_EQ(0, fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	ASSERT_EQ(0, fcntl(grow, F_ADD_SEALS, F_SEAL_GROW));
	EXPECT_TRUE(refused(in, 0, out, 0, LEN, EPERM));
	EXPECT_TRUE(refused(in, 0, future, 0, LEN, EPERM));
	EXPECT_TRUE(refused(in, 0, grow, 0, LEN, EPERM));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
	EXPECT_EQ(0, pread_pattern(future, 0, LEN, 0, POISON));
	EXPECT_EQ(0, file_size(grow));
}

/* ---- other refusals ---- */

/* Descriptors that are not open. */
TEST(ebadf_closed)
{
	int fd = memfd_filled(LEN, SEED);

	EXPECT_TRUE(refused(-1, 0, fd, 0, LEN, EBADF));
	EXPECT_TRUE(refused(fd, 0, -1, 0, LEN, EBADF));
	EXPECT_TRUE(refused(-1, 0, fd, 0, 0, EBADF));
	EXPECT_TRUE(refused(fd, 0, -1, 0, 0, EBADF));
}

/* Descriptors that are open the wrong way. */
TEST(ebadf_wrong_direction)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(LEN, POISON);
	int wronly = reopen(in, O_WRONLY), rdonly = reopen(out, O_RDONLY);

	EXPECT_TRUE(refused(wronly, 0, out, 0, LEN, EBADF));
	EXPECT_TRUE(refused(in, 0, rdonly, 0, LEN, EBADF));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
}

/* O_PATH descriptors are for naming, not for data. */
TEST(ebadf_path_descriptor)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(LEN, POISON);
	int in_path = reopen(in, O_PATH), out_path = reopen(out, O_PATH);

	EXPECT_TRUE(refused(in_path, 0, out, 0, LEN, EBADF));
	EXPECT_TRUE(refused(in, 0, out_path, 0, LEN, EBADF));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
}

/* A directory on either side; its mode of opening does not matter. */
TEST(eisdir)
{
	int dir = open("/", O_RDONLY | O_DIRECTORY);
	int fd = memfd_filled(LEN, SEED);

	EXPECT_TRUE(refused(dir, 0, fd, 0, LEN, EISDIR));
	EXPECT_TRUE(refused(fd, 0, dir, 0, LEN, EISDIR));
	EXPECT_EQ(0, pread_pattern(fd, 0, LEN, 0, SEED));
}

/* Only regular files are copied. */
TEST(einval_not_regular)
{
	int fd = memfd_filled(LEN, SEED), fds[2], sv[2];
	int others[5];

	ASSERT_EQ(0, pipe_filled(fds, 100, SEED));
	ASSERT_EQ(0, unix_pair(sv));
	others[0] = fds[0];
	others[1] = fds[1];
	others[2] = sv[0];
	others[3] = open("/dev/zero", O_RDWR);
	others[4] = eventfd(0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		EXPECT_TRUE(refused(others[i], 0, fd, 0, 10, EINVAL));
		EXPECT_TRUE(refused(fd, 0, others[i], 0, 10, EINVAL));
	}
	EXPECT_EQ(100, bytes_queued(fds[0]));
	EXPECT_EQ(0, bytes_queued(sv[1]));
	EXPECT_EQ(0, pread_pattern(fd, 0, LEN, 0, SEED));
}

/* Offsets that cannot be read: nothing is copied. */
TEST(efault_unreadable_offset)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(LEN, POISON);
	off_t *bad =
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, bad);
	EXPECT_EQ(-1, copy_file_range(in, bad, out, NULL, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, copy_file_range(in, NULL, out, bad, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, position(in));
	EXPECT_EQ(0, position(out));
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, POISON));
}

/* Offsets that cannot be written back: the data is there already. */
TEST(efault_read_only_offset)
{
	int in = memfd_filled(LEN, SEED), out = memfd_filled(2 * LEN, POISON);
	off_t *zero =
		mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, zero);
	ASSERT_EQ(LEN, lseek(out, LEN, SEEK_SET));
	EXPECT_EQ(-1, copy_file_range(in, zero, out, NULL, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, pread_pattern(out, LEN, LEN, 0, SEED));
	EXPECT_EQ(-1, copy_file_range(in, NULL, out, zero, LEN, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* ---- file systems made for a test ---- */

/* A full file system: a short count first, then ENOSPC. */
TEST(enospc_after_short_count)
{
	int dir = small_tmpfs("512K");
	int in = openat(dir, ".", O_RDWR | O_TMPFILE, 0600);
	int out = openat(dir, ".", O_RDWR | O_TMPFILE, 0600);
	ssize_t n;

	if (dir < 0)
		SKIP(return, "cannot make a tmpfs: %s", strerror(errno));
	ASSERT_EQ(0, write_pattern(in, LEN, 0, SEED));
	n = copy_file_range(in, &(off_t){ 0 }, out, &(off_t){ 0 }, LEN, 0);
	ASSERT_LT(0, n);
	ASSERT_GT(LEN, n);
	EXPECT_EQ(n, file_size(out));
	EXPECT_EQ(0, pread_pattern(out, 0, n, 0, SEED));
	EXPECT_TRUE(refused(in, n, out, n, LEN, ENOSPC));
	EXPECT_EQ(n, file_size(out));
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
	ret = copy_as_nobody(in, out, LEN);
	ASSERT_EQ(0, undo_now());
	if (ret) {
		EXPECT_EQ(ENOMEM, ret);
		EXPECT_EQ(0, file_size(out));
		EXPECT_EQ(0, copy_as_nobody(in, out, LEN));
	}
	EXPECT_EQ(0, pread_pattern(out, 0, LEN, 0, SEED));
}

/* The error of a failing method comes through. */
TEST(eio_from_file_system)
{
	struct fuse_file file = { .size = BLOCKS };
	int dev, root, fd;
	pid_t pid;

	root = fuse_file_mount(0, &dev);
	if (root < 0)
		SKIP(return, "no FUSE here");
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid)
		fuse_file_serve(&file, dev);
	fd = reopen(root, O_RDWR);
	ASSERT_LE(0, fd);
	ASSERT_EQ(BLOCKS, file_size(fd));
	EXPECT_TRUE(refused(fd, 0, fd, 65536, 4096, EIO));
	close(fd);
}

TEST_HARNESS_MAIN
