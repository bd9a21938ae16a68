// SPDX-License-Identifier: GPL-2.0-only
/*
 * Defects of pipes, vmsplice() and the private pipe of sendfile() that were
 * repaired: each test fails on a kernel without the repair.  Covers fs/pipe.c,
 * fs/splice.c, and fs/fuse/dev.c where it takes pages out of a pipe.
 *
 * What FUSE does with a page is seen from both sides: a child process is the
 * server of one file, in the raw protocol, and notes what it was asked for and
 * which page frame it offered; the test reads the file.
 *
 * Left open: FUSE cleared PG_uptodate of pages that it then only copied.
 * Nobody else can see such a page, so fuse_uptodate shows what else came of
 * taking a page too early.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse_file.h"
#include "splice_util.h"

#define SEED 0x4e9a14
#define PAGE ((ssize_t)sysconf(_SC_PAGESIZE))
/* Slots of a new pipe. */
#define SLOTS 16

#define SOFT_LIMIT "/proc/sys/fs/pipe-user-pages-soft"

/* ---- vmsplice() and O_NONBLOCK ---- */

FIXTURE(vmsplice_nonblock)
{
	int fds[2];
	char *mem;
	/* The end that the test uses, and the other one. */
	int end;
	int other;
};

FIXTURE_VARIANT(vmsplice_nonblock)
{
	bool full;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(vmsplice_nonblock, full) { .full = true };
FIXTURE_VARIANT_ADD(vmsplice_nonblock, empty) { .full = false };
/* clang-format on */

FIXTURE_SETUP(vmsplice_nonblock)
{
	ASSERT_EQ(0, pipe_filled(self->fds, variant->full ? SLOTS * PAGE : 0,
				 SEED));
	self->end = self->fds[variant->full];
	self->other = self->fds[!variant->full];
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	pattern_fill(self->mem, PAGE, 0, SEED);
	/* A call that sleeps all the same is seen, and ends. */
	ASSERT_EQ(0, alarm_start(100, 0));
}

FIXTURE_TEARDOWN(vmsplice_nonblock)
{
	alarm_stop();
}

/* Full or empty, and O_NONBLOCK: EAGAIN, memory and pipe as before. */
TEST_F(vmsplice_nonblock, eagain)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = PAGE };

	ASSERT_EQ(0, set_nonblock(self->end));
	EXPECT_EQ(-1, vmsplice(self->end, &iov, 1, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, pattern_check(self->mem, PAGE, 0, SEED));
	EXPECT_EQ(variant->full ? SLOTS * PAGE : 0, bytes_queued(self->end));
}

/* The flag of the other end says nothing: the call sleeps. */
TEST_F(vmsplice_nonblock, other_end)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = PAGE };

	ASSERT_EQ(0, set_nonblock(self->other));
	EXPECT_EQ(-1, vmsplice(self->end, &iov, 1, 0));
	EXPECT_EQ(EINTR, errno);
}

/* ---- a FUSE server of one file ---- */

/* What the server and the test have in common. */
struct fuse_note {
	/* The last page frame offered. */
	uint64_t frame;
	/* The longest read that was asked for. */
	ssize_t longest;
	/* The first thing that failed, a line number. */
	int failed;
};

/* Where the page comes from that the server offers. */
enum source {
	/* None: it writes what was asked for. */
	SRC_WRITTEN,
	/* The page cache of a file that was cut after that. */
	SRC_FILE,
	/* The same, but the pipe was duplicated, and the copy is gone. */
	SRC_FILE_TEE,
	SRC_RAMFS,
	SRC_MEMFD,
	SRC_ANON,
	/* Memory of a driver: a ring of io_uring buffers. */
	SRC_RING,
	/* One page of a file whose page cache has larger folios. */
	SRC_LARGE,
};

struct fuse_server {
	struct fuse_file file;
	int fd;
	enum source source;
	struct fuse_note *note;
	/* SRC_LARGE: the file that the page is of. */
	int of;
};

static void check(struct fuse_server *srv, bool ok, int line)
{
	if (!ok && !srv->note->failed)
		srv->note->failed = line;
}

#define CHECK(srv, cond) check(srv, cond, __LINE__)

/* The only one who refers to the page of @mem is then the pipe. */
static void give_page(struct fuse_server *srv, int wfd, char *mem)
{
	struct iovec iov = { .iov_base = mem, .iov_len = PAGE };

	/* Not everybody may know it. */
	if (read_frames(mem, 1, &srv->note->frame))
		srv->note->frame = 0;
	CHECK(srv, vmsplice(wfd, &iov, 1, SPLICE_F_GIFT) == PAGE);
	/* This empties the LRU batches of the processor, which have one too. */
	madvise(mem, PAGE, MADV_COLD);
	munmap(mem, PAGE);
}

/* A page of a file that has no name, and no page when this returns. */
static void give_file(struct fuse_server *srv, int wfd, int fd, off_t pos)
{
	char *mem;

	CHECK(srv, write_pattern(fd, PAGE, pos, SEED) == 0);
	CHECK(srv, fsync(fd) == 0);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	CHECK(srv, mem != MAP_FAILED);
	give_page(srv, wfd, mem);
	/* It is in use, so this looks for it in the batches of everybody. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	CHECK(srv, ftruncate(fd, 0) == 0);
	close(fd);
}

static void give_anon(struct fuse_server *srv, int wfd, off_t pos)
{
	char *mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(srv, mem != MAP_FAILED);
	pattern_fill(mem, PAGE, pos, SEED);
	give_page(srv, wfd, mem);
}

static int ramfs_file(void)
{
	const char *const none[][2] = { { NULL } };
	int dir = private_mount("ramfs", none), fd;

	if (dir < 0)
		return -1;
	fd = openat(dir, "file", O_RDWR | O_CREAT | O_EXCL, 0600);
	unlinkat(dir, "file", 0);
	close(dir);
	return fd;
}

/* This page is zeroes: a store would make it dirty, and not to be taken. */
static void give_ring(struct fuse_server *srv, int wfd)
{
	struct io_uring_params params = { 0 };
	struct io_uring_buf_reg reg = { .ring_entries = 16,
					.flags = IOU_PBUF_RING_MMAP };
	int fd = syscall(SYS_io_uring_setup, 1, &params);
	char *mem;

	CHECK(srv, fd >= 0);
	CHECK(srv, syscall(SYS_io_uring_register, fd, IORING_REGISTER_PBUF_RING,
			   &reg, 1) == 0);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, IORING_OFF_PBUF_RING);
	CHECK(srv, mem != MAP_FAILED);
	give_page(srv, wfd, mem);
	reg.flags = 0;
	CHECK(srv, syscall(SYS_io_uring_register, fd,
			   IORING_UNREGISTER_PBUF_RING, &reg, 1) == 0);
	close(fd);
}

/* Duplicate all that is in @rfd, and drop the copy. */
static void tee_and_drop(struct fuse_server *srv, int rfd)
{
	int copy[2], len = bytes_queued(rfd);

	CHECK(srv, pipe(copy) == 0);
	CHECK(srv, tee(rfd, copy[1], len, 0) == len);
	close(copy[0]);
	close(copy[1]);
}

static void offer_page(struct fuse_server *srv, int wfd, off_t pos)
{
	off_t start = 0;

	switch (srv->source) {
	case SRC_FILE:
	case SRC_FILE_TEE:
		give_file(srv, wfd, backing_file(BACKING_EXT4), pos);
		break;
	case SRC_RAMFS:
	case SRC_MEMFD:
		/* Opened by who may, before there was a server. */
		give_file(srv, wfd, dup(srv->of), pos);
		lseek(srv->of, 0, SEEK_SET);
		break;
	case SRC_ANON:
		give_anon(srv, wfd, pos);
		break;
	case SRC_RING:
		give_ring(srv, wfd);
		break;
	default:
		CHECK(srv, splice(srv->of, &start, wfd, NULL, PAGE, 0) == PAGE);
		break;
	}
}

/* One page, through a pipe, in the hope that FUSE takes it. */
static void answer_by_pipe(struct fuse_server *srv, uint64_t unique, off_t pos)
{
	struct fuse_out_header head = { .unique = unique,
					.len = sizeof(head) + PAGE };
	int p[2];

	CHECK(srv, pipe(p) == 0);
	CHECK(srv, write(p[1], &head, sizeof(head)) == sizeof(head));
	offer_page(srv, p[1], pos);
	if (srv->source == SRC_FILE_TEE)
		tee_and_drop(srv, p[0]);
	CHECK(srv, splice(p[0], NULL, srv->file.dev, NULL, head.len,
			  SPLICE_F_MOVE) == head.len);
	close(p[0]);
	close(p[1]);
}

static int answer_read(struct fuse_file *f, const struct fuse_in_header *in,
		       char *data)
{
	const struct fuse_read_in *what = (const void *)(in + 1);
	struct fuse_server *srv = (struct fuse_server *)f;
	size_t len = f->size - what->offset;

	if (srv->note->longest < (ssize_t)what->size)
		srv->note->longest = what->size;
	if (srv->source != SRC_WRITTEN) {
		CHECK(srv, what->size == PAGE);
		answer_by_pipe(srv, in->unique, what->offset);
		return FUSE_FILE_SENT;
	}
	CHECK(srv, what->size <= FUSE_FILE_MOST);
	if (len > what->size)
		len = what->size;
	pattern_fill(data, len, what->offset, SEED);
	return len;
}

static void serve(struct fuse_server *srv, int dev)
{
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	srv->file.open_flags = FOPEN_KEEP_CACHE;
	srv->file.attr_valid = 3600;
	srv->file.max_pages = FUSE_FILE_MOST / PAGE;
	srv->file.read = answer_read;
	fuse_file_serve(&srv->file, dev);
}

/*
 * Mount @srv and serve it, as an ordinary user if @nobody.  Its file is then
 * open as srv->fd; readahead is off.
 */
static int fuse_start(struct fuse_server *srv, bool nobody, int flags)
{
	int dev, root = fuse_file_mount(0, &dev);
	pid_t pid;

	srv->note = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (srv->note == MAP_FAILED || root < 0)
		return -1;
	pid = nobody ? fork_nobody() : fork_child();
	if (pid < 0)
		return -1;
	if (!pid) {
		/* The device must go with the server. */
		close(root);
		serve(srv, dev);
	}
	close(dev);
	srv->fd = reopen(root, O_RDONLY | flags);
	close(root);
	if (srv->fd < 0)
		return -1;
	return posix_fadvise(srv->fd, 0, 0, POSIX_FADV_RANDOM);
}

static bool fuse_available(void)
{
	return !access("/dev/fuse", R_OK | W_OK) && geteuid() == 0;
}

static uint64_t frame_of(int fd)
{
	void *mem =
		mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	uint64_t frame = 0;

	if (mem == MAP_FAILED)
		return 0;
	/* It is in use, so this empties the LRU batches, and no more. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	read_frames(mem, 1, &frame);
	munmap(mem, PAGE);
	return frame;
}

#define KPF_LRU 5
#define KPF_COMPOUND_HEAD 15

static bool page_flag(uint64_t frame, unsigned int bit)
{
	int fd = open("/proc/kpageflags", O_RDONLY);
	uint64_t flags = 0;

	pread(fd, &flags, sizeof(flags), frame * sizeof(flags));
	close(fd);
	return flags >> bit & 1;
}

FIXTURE(fuse)
{
	struct fuse_server srv;
};

FIXTURE_SETUP(fuse)
{
	if (!fuse_available())
		SKIP(return, "no FUSE here, or not root");
	self->srv = (struct fuse_server){ .file.size = PAGE };
}

FIXTURE_TEARDOWN(fuse)
{
	/* NULL: the test was skipped. */
	if (self->srv.note)
		EXPECT_EQ(0, self->srv.note->failed);
}

/* A gift that nobody else uses is taken: without this, the rest says nothing. */
TEST_F(fuse, gift_is_taken)
{
	if (!backing_available(BACKING_EXT4))
		SKIP(return, "no ext4 here");
	self->srv.source = SRC_FILE;
	ASSERT_EQ(0, fuse_start(&self->srv, false, 0));
	ASSERT_EQ(0, pread_pattern(self->srv.fd, 0, PAGE, 0, SEED));
	EXPECT_EQ(self->srv.note->frame, frame_of(self->srv.fd));
	EXPECT_TRUE(page_flag(frame_of(self->srv.fd), KPF_LRU));
}

/* A gift that was duplicated is none any more, in neither pipe. */
TEST_F(fuse, gift_after_tee)
{
	if (!backing_available(BACKING_EXT4))
		SKIP(return, "no ext4 here");
	self->srv.source = SRC_FILE_TEE;
	ASSERT_EQ(0, fuse_start(&self->srv, false, 0));
	ASSERT_EQ(0, pread_pattern(self->srv.fd, 0, PAGE, 0, SEED));
	EXPECT_NE(0ULL, self->srv.note->frame);
	EXPECT_NE(self->srv.note->frame, frame_of(self->srv.fd));
}

/* No page of the page cache is out of reach of reclaim. */
TEST_F(fuse, lru_flag)
{
	self->srv.source = SRC_RING;
	ASSERT_EQ(0, fuse_start(&self->srv, false, 0));
	ASSERT_EQ(0, pread_zeroes(self->srv.fd, 0, PAGE));
	EXPECT_TRUE(page_flag(frame_of(self->srv.fd), KPF_LRU));
}

/* Pages of @fd in memory; its offset and pages stay as they are. */
static int resident(int fd, size_t nr)
{
	unsigned char in_core[nr];
	void *mem = mmap(NULL, nr * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	int pages = 0;

	if (mem == MAP_FAILED || mincore(mem, nr * PAGE, in_core))
		return -1;
	munmap(mem, nr * PAGE);
	for (size_t i = 0; i < nr; i++)
		pages += in_core[i] & 1;
	return pages;
}

/*
 * A folio that is too large for FUSE is copied from, and no more: the file
 * that it belongs to keeps it.
 */
TEST_F(fuse, fuse_uptodate)
{
	int fd;

	if (!backing_available(BACKING_XFS))
		SKIP(return, "no xfs here");
	fd = backing_file_filled(BACKING_XFS, SLOTS * PAGE, SEED);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fsync(fd));
	if (!page_flag(frame_of(fd), KPF_COMPOUND_HEAD))
		SKIP(return, "no large folios here");
	self->srv.source = SRC_LARGE;
	self->srv.of = fd;
	ASSERT_EQ(0, fuse_start(&self->srv, false, 0));
	ASSERT_EQ(SLOTS, resident(fd, SLOTS));
	ASSERT_EQ(0, pread_pattern(self->srv.fd, 0, PAGE, 0, SEED));
	EXPECT_EQ(SLOTS, resident(fd, SLOTS));
	EXPECT_EQ(0, pread_pattern(fd, 0, SLOTS * PAGE, 0, SEED));
}

/* ---- what an ordinary user can write into the kernel log ---- */

#define NR_OFFERS 3

FIXTURE(fuse_gift_log)
{
	struct fuse_server srv;
	int log;
};

FIXTURE_VARIANT(fuse_gift_log)
{
	enum source source;
	/* Lines that are all right for all the time that the system is up. */
	int lines;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(fuse_gift_log, anon) { .source = SRC_ANON };
FIXTURE_VARIANT_ADD(fuse_gift_log, memfd) { .source = SRC_MEMFD };
FIXTURE_VARIANT_ADD(fuse_gift_log, ramfs) { .source = SRC_RAMFS, .lines = 1 };
/* clang-format on */

FIXTURE_SETUP(fuse_gift_log)
{
	if (!fuse_available())
		SKIP(return, "no FUSE here, or not root");
	self->log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (self->log < 0)
		SKIP(return, "no /dev/kmsg here");
	self->srv = (struct fuse_server){ .file.size = NR_OFFERS * PAGE,
					  .source = variant->source };
	self->srv.of = variant->source == SRC_RAMFS ?
			       ramfs_file() :
			       backing_file(BACKING_MEMFD);
	ASSERT_LE(0, self->srv.of);
	ASSERT_EQ(0, fuse_start(&self->srv, true, 0));
}

FIXTURE_TEARDOWN(fuse_gift_log)
{
	EXPECT_EQ(0, self->srv.note->failed);
}

static int complaints(int log)
{
	char line[1024];
	int nr = 0;
	ssize_t n;

	/* EPIPE: what is next was overwritten meanwhile. */
	while ((n = read(log, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		line[n > 0 ? n : 0] = 0;
		nr += !!strstr(line, "fuse: trying to steal weird page");
	}
	return nr;
}

/* What FUSE cannot take is copied, and not reported each time. */
TEST_F(fuse_gift_log, repeated)
{
	off_t pos;

	ASSERT_LE(0, lseek(self->log, 0, SEEK_END));
	for (pos = 0; pos < NR_OFFERS * PAGE; pos += PAGE)
		EXPECT_EQ(0, pread_pattern(self->srv.fd, pos, PAGE, pos, SEED));
	EXPECT_GE(variant->lines, complaints(self->log));
}

/* ---- the size of a pipe ---- */

/* glibc gives the result as an int, which is too small for 2 GiB. */
static long set_size(int fd, unsigned long size)
{
	return syscall(SYS_fcntl, fd, F_SETPIPE_SZ, size);
}

static long get_size(int fd)
{
	return syscall(SYS_fcntl, fd, F_GETPIPE_SZ, 0);
}

/* Bytes that each slot of a pipe with many slots has. */
#define SLOT_BYTES 16
#define CALL_SLOTS 1024UL

/* Fill @slots slots of @wfd with the stream from @pos on. */
static int fill_slots(int wfd, size_t slots, off_t pos)
{
	size_t len = CALL_SLOTS * SLOT_BYTES, nr, i;
	struct iovec iov[CALL_SLOTS];

	for (; slots; slots -= nr) {
		/* The pipe refers to the memory, so it is not used again. */
		char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (mem == MAP_FAILED)
			return -1;
		nr = slots < CALL_SLOTS ? slots : CALL_SLOTS;
		pattern_fill(mem, len, pos, SEED);
		for (i = 0; i < nr; i++)
			iov[i] = (struct iovec){ mem + i * SLOT_BYTES,
						 SLOT_BYTES };
		if (vmsplice(wfd, iov, nr, SPLICE_F_NONBLOCK) !=
		    (ssize_t)(nr * SLOT_BYTES))
			return -1;
		munmap(mem, len);
		pos += nr * SLOT_BYTES;
	}
	return 0;
}

FIXTURE(setpipe_large)
{
	int fds[2];
};

FIXTURE_VARIANT(setpipe_large)
{
	long long size;
};

/* The smallest that needs more than one allocation gives, and the largest. */
/* clang-format off */
FIXTURE_VARIANT_ADD(setpipe_large, 512m) { .size = 512LL * MIB };
FIXTURE_VARIANT_ADD(setpipe_large, 2g) { .size = 2048LL * MIB };
/* clang-format on */

FIXTURE_SETUP(setpipe_large)
{
	if (geteuid())
		SKIP(return, "not root");
	if (PAGE > 4096 || sizeof(long) < 8)
		SKIP(return, "no such pipe, or its ring is small here");
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(setpipe_large)
{
	close(self->fds[0]);
	close(self->fds[1]);
}

/* It has that many slots, and what was in it before comes out first. */
TEST_F(setpipe_large, holds_data)
{
	size_t slots = variant->size / PAGE, before = 10, i;
	size_t len = slots * SLOT_BYTES;

	/* The ring starts in its middle. */
	ASSERT_EQ(0, write_pattern(self->fds[1], 12 * PAGE, 0, 0));
	ASSERT_EQ(0, read_pattern(self->fds[0], 12 * PAGE, 0, 0));
	ASSERT_EQ(0, fill_slots(self->fds[1], before, 0));
	ASSERT_EQ(variant->size, set_size(self->fds[1], variant->size));
	ASSERT_EQ(variant->size, get_size(self->fds[0]));
	ASSERT_EQ(0, fill_slots(self->fds[1], slots - before,
				before * SLOT_BYTES));
	/* Not one slot more, and none less. */
	ASSERT_EQ(-1, fill_slots(self->fds[1], 1, len));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, set_size(self->fds[1], variant->size / 2));
	EXPECT_EQ(EBUSY, errno);
	/* Back to the usual size with what fits in it. */
	len -= SLOTS * SLOT_BYTES;
	ASSERT_EQ(0, read_pattern(self->fds[0], len, 0, SEED));
	ASSERT_EQ(SLOTS * PAGE, set_size(self->fds[1], SLOTS * PAGE));
	for (i = 0; i < SLOTS; i++, len += SLOT_BYTES)
		ASSERT_EQ(0, read_pattern(self->fds[0], SLOT_BYTES, len, SEED));
}

/* Every way out of such a pipe works, and into another one of its kind. */
TEST_F(setpipe_large, moves_data)
{
	size_t slots = variant->size / PAGE;
	ssize_t len = slots * SLOT_BYTES;
	int out = memfd_create("out", 0), p[2];

	ASSERT_EQ(variant->size, set_size(self->fds[1], variant->size));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(variant->size, set_size(p[1], variant->size));
	ASSERT_EQ(0, fill_slots(self->fds[1], slots, 0));
	ASSERT_EQ(len, tee(self->fds[0], p[1], variant->size, 0));
	ASSERT_EQ(0, read_pattern(p[0], len, 0, SEED));
	ASSERT_EQ(len,
		  splice(self->fds[0], NULL, p[1], NULL, variant->size, 0));
	ASSERT_EQ(len, splice_all(p[0], NULL, out, NULL, len));
	ASSERT_EQ(0, pread_pattern(out, 0, len, 0, SEED));
	ASSERT_EQ(len, splice(out, &(off_t){ 0 }, p[1], NULL, len, 0));
	ASSERT_EQ(0, read_pattern(p[0], len, 0, SEED));
	close(p[0]);
	close(p[1]);
	close(out);
}

static long cgroup_value(int dir, const char *name)
{
	char text[32] = "";
	int fd = openat(dir, name, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n < 0 ? -1 : atol(text);
}

static int cgroup_write(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY);
	ssize_t n = write(fd, text, strlen(text));

	close(fd);
	return n < 0 ? -1 : 0;
}

/* The memory cgroup of who asks for it pays for the ring. */
TEST_F(setpipe_large, charged)
{
	const char *const none[][2] = { { NULL } };
	const char *const name = "repair_pipe_test";
	/* At least: a slot is no smaller on any 64-bit kernel. */
	long ring = variant->size / PAGE * 32, before;
	int root = private_mount("cgroup2", none), dir;

	if (root < 0 || cgroup_write(root, "cgroup.subtree_control", "+memory"))
		SKIP(return, "no memory cgroups here");
	mkdirat(root, name, 0755);
	dir = openat(root, name, O_DIRECTORY);
	ASSERT_EQ(0, cgroup_write(dir, "cgroup.procs", "0"));
	before = cgroup_value(dir, "memory.current");
	EXPECT_EQ(variant->size, set_size(self->fds[1], variant->size));
	EXPECT_LE(before + ring, cgroup_value(dir, "memory.current"));
	EXPECT_EQ(SLOTS * PAGE, set_size(self->fds[1], SLOTS * PAGE));
	EXPECT_GT(before + ring, cgroup_value(dir, "memory.current"));
	ASSERT_EQ(0, cgroup_write(root, "cgroup.procs", "0"));
	ASSERT_EQ(0, unlinkat(root, name, AT_REMOVEDIR));
}

/* ---- the private pipe ---- */

#define LEN (4 * MIB)

FIXTURE(private_pipe)
{
	struct fuse_server srv;
	/* Bytes that say: go on. */
	int go[2];
	int done[2];
	int out;
};

FIXTURE_SETUP(private_pipe)
{
	const char *const limits[] = { SOFT_LIMIT, PIPE_HARD_LIMIT };

	if (!fuse_available())
		SKIP(return, "no FUSE here, or not root");
	ASSERT_EQ(0, sysctl_keep(limits, 2));
	ASSERT_EQ(0, pipe(self->go));
	ASSERT_EQ(0, pipe(self->done));
	self->out = backing_file(BACKING_MEMFD);
	self->srv = (struct fuse_server){ .file.size = LEN };
	/* Without a page cache each fill of the private pipe is a read. */
	ASSERT_EQ(0, fuse_start(&self->srv, false, O_DIRECT));
}

FIXTURE_TEARDOWN(private_pipe)
{
	EXPECT_EQ(0, undo_now());
	EXPECT_EQ(0, self->srv.note->failed);
}

/* Send @len bytes: 0, or an errno. */
static int send_it(struct fuse_server *srv, int out, size_t len)
{
	off_t pos = 0;
	ssize_t n;

	srv->note->longest = 0;
	lseek(out, 0, SEEK_SET);
	while ((size_t)pos < len) {
		n = sendfile(out, srv->fd, &pos, len - pos);
		if (n <= 0)
			return n ? errno : ENODATA;
	}
	return 0;
}

static void say(int fd)
{
	if (write(fd, "", 1) != 1)
		_exit(1);
}

static bool hear(int fd)
{
	char c;

	return read(fd, &c, 1) == 1;
}

/*
 * Over the soft limit it is small.  As soon as the user is below the limit
 * again it is what others get.
 */
TEST_F(private_pipe, private_pipe_grows)
{
	pid_t pid;

	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, 1));
	pid = fork_nobody();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (send_it(&self->srv, self->out, SLOTS * PAGE))
			_exit(1);
		say(self->done[1]);
		if (!hear(self->go[0]) ||
		    send_it(&self->srv, self->out, SLOTS * PAGE))
			_exit(1);
		_exit(0);
	}
	ASSERT_TRUE(hear(self->done[0]));
	EXPECT_EQ(2 * PAGE, self->srv.note->longest);
	EXPECT_EQ(0, pread_pattern(self->out, 0, SLOTS * PAGE, 0, SEED));
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, 1000));
	say(self->go[1]);
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(SLOTS * PAGE, self->srv.note->longest);
	EXPECT_EQ(0, pread_pattern(self->out, 0, SLOTS * PAGE, 0, SEED));
}

/* Over the hard limit there is no other pipe, but data go. */
TEST_F(private_pipe, private_pipe_hard_limit)
{
	pid_t pid;

	ASSERT_EQ(0, sysctl_set(PIPE_HARD_LIMIT, 1));
	pid = fork_nobody();
	ASSERT_LE(0, pid);
	if (!pid) {
		int p[2];

		if (!pipe(p) || errno != ENFILE)
			_exit(1);
		_exit(send_it(&self->srv, self->out, SLOTS * PAGE) ? 2 : 0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(2 * PAGE, self->srv.note->longest);
	EXPECT_EQ(0, pread_pattern(self->out, 0, SLOTS * PAGE, 0, SEED));
}

/* Much data go to a file in larger pieces. */
TEST_F(private_pipe, private_pipe_large)
{
	ASSERT_EQ(0, send_it(&self->srv, self->out, LEN));
	EXPECT_LT(SLOTS * PAGE, self->srv.note->longest);
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
	/* Little data: as before. */
	ASSERT_EQ(0, send_it(&self->srv, self->out, PAGE + 1));
	EXPECT_GE(2 * PAGE, self->srv.note->longest);
}

/* What it needed more than others is given back when the call returns. */
TEST_F(private_pipe, private_pipe_is_small_again)
{
	pid_t pid = fork_nobody();

	ASSERT_LE(0, pid);
	if (!pid) {
		int p[2];

		if (send_it(&self->srv, self->out, LEN))
			_exit(1);
		say(self->done[1]);
		if (!hear(self->go[0]) || pipe(p))
			_exit(2);
		_exit(get_size(p[0]) == SLOTS * PAGE ? 0 : 3);
	}
	ASSERT_TRUE(hear(self->done[0]));
	EXPECT_LT(SLOTS * PAGE, self->srv.note->longest);
	/* Enough for two pipes of the usual size. */
	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, 2 * SLOTS));
	say(self->go[1]);
	EXPECT_EQ(0, reap(pid));
}

/* The limits of the user hold: a larger one is a wish. */
TEST_F(private_pipe, private_pipe_over_limit)
{
	pid_t pid;

	ASSERT_EQ(0, sysctl_set(SOFT_LIMIT, SLOTS));
	pid = fork_nobody();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(send_it(&self->srv, self->out, LEN) ? 1 : 0);
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(SLOTS * PAGE, self->srv.note->longest);
	EXPECT_EQ(0, pread_pattern(self->out, 0, LEN, 0, SEED));
}

TEST_HARNESS_MAIN
