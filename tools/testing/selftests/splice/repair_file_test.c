// SPDX-License-Identifier: GPL-2.0-only
/*
 * Defects of splice(2), sendfile(2) and copy_file_range(2) with files that were
 * repaired: each of these tests failed on the kernel before.
 */

#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
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

/* ---- threads that share the position of a file ---- */

#define NR_MOVERS 4
#define NR_BLOCKS 2048
#define BLOCK BYTES(4096)

/* Moves blocks from in to out, through the pipe or not, until the end. */
struct mover {
	pthread_t thread;
	ssize_t (*move)(struct mover *m);
	int in;
	int out;
	int pipe[2];
	ssize_t last;
};

static ssize_t move_by_splice(struct mover *m)
{
	ssize_t n = splice(m->in, NULL, m->pipe[1], NULL, BLOCK, 0);

	return n > 0 ? splice(m->pipe[0], NULL, m->out, NULL, n, 0) : n;
}

static ssize_t move_by_sendfile(struct mover *m)
{
	return sendfile(m->out, m->in, NULL, BLOCK);
}

static ssize_t move_by_sendfile_to_pipe(struct mover *m)
{
	ssize_t n = sendfile(m->pipe[1], m->in, NULL, BLOCK);

	return n > 0 ? splice(m->pipe[0], NULL, m->out, NULL, n, 0) : n;
}

static ssize_t move_by_copy(struct mover *m)
{
	return copy_file_range(m->in, NULL, m->out, NULL, BLOCK, 0);
}

static void *run_mover(void *arg)
{
	struct mover *m = arg;

	do
		m->last = m->move(m);
	while (m->last > 0);
	return NULL;
}

/* A file with the blocks @first to @first + @nr - 1, each with its number. */
static int numbered_blocks(uint64_t first, uint64_t nr)
{
	int fd = backing_file(BACKING_TMPFS);
	char buf[BLOCK];

	for (uint64_t i = first; i < first + nr; i++) {
		pattern_fill(buf, BLOCK, i * BLOCK, SEED);
		memcpy(buf, &i, sizeof(i));
		if (write_all(fd, buf, BLOCK))
			return -1;
	}
	return lseek(fd, 0, SEEK_SET) ? -1 : fd;
}

/* Count each block of @fd; false: something is there that is no block. */
static bool count_blocks(int fd, unsigned char *seen)
{
	off_t size = file_size(fd);
	char buf[BLOCK];
	uint64_t nr;

	for (off_t off = 0; off < size; off += BLOCK) {
		if (pread(fd, buf, BLOCK, off) != BLOCK)
			return false;
		memcpy(&nr, buf, sizeof(nr));
		if (nr >= NR_BLOCKS)
			return false;
		if (pattern_check(buf + sizeof(nr), BLOCK - sizeof(nr),
				  nr * BLOCK + sizeof(nr), SEED) >= 0)
			return false;
		seen[nr]++;
	}
	return true;
}

/*
 * Several threads move all blocks: out of one input that they share, or into
 * one output, each with files of its own on the other side.  Returns how many
 * blocks did not arrive exactly once, -1 when the move itself failed.
 */
static int wrong_blocks_once(ssize_t (*move)(struct mover *m), bool share_input)
{
	static unsigned char seen[NR_BLOCKS];
	struct mover movers[NR_MOVERS];
	int shared, wrong = 0, i;

	memset(seen, 0, sizeof(seen));
	shared = numbered_blocks(0, share_input ? NR_BLOCKS : 0);
	for (i = 0; i < NR_MOVERS; i++) {
		const int part = NR_BLOCKS / NR_MOVERS;

		movers[i].move = move;
		movers[i].in = share_input ? shared :
					     numbered_blocks(i * part, part);
		movers[i].out = share_input ? numbered_blocks(0, 0) : shared;
		if (movers[i].in < 0 || movers[i].out < 0 ||
		    pipe(movers[i].pipe))
			return -1;
	}
	for (i = 0; i < NR_MOVERS; i++)
		if (pthread_create(&movers[i].thread, NULL, run_mover,
				   &movers[i]))
			return -1;
	for (i = 0; i < NR_MOVERS; i++) {
		pthread_join(movers[i].thread, NULL);
		if (movers[i].last)
			return -1;
	}
	for (i = 0; i < NR_MOVERS; i++) {
		if ((share_input || !i) && !count_blocks(movers[i].out, seen))
			return -1;
		close(share_input ? movers[i].out : movers[i].in);
		close(movers[i].pipe[0]);
		close(movers[i].pipe[1]);
	}
	close(shared);
	for (i = 0; i < NR_BLOCKS; i++)
		wrong += seen[i] != 1;
	return wrong;
}

/* Until threads have been in each other's way. */
static int wrong_blocks(ssize_t (*move)(struct mover *m), bool share_input)
{
	int wrong = 0;

	for (int i = 0; i < 10 && !wrong; i++)
		wrong = wrong_blocks_once(move, share_input);
	return wrong;
}

/* Every byte goes once whatever threads do with the position at a time. */
TEST(splice_position)
{
	if (!backing_available(BACKING_TMPFS))
		SKIP(return, "no tmpfs here");
	EXPECT_EQ(0, wrong_blocks(move_by_splice, true));
	EXPECT_EQ(0, wrong_blocks(move_by_splice, false));
}

TEST(sendfile_position)
{
	if (!backing_available(BACKING_TMPFS))
		SKIP(return, "no tmpfs here");
	EXPECT_EQ(0, wrong_blocks(move_by_sendfile, true));
	EXPECT_EQ(0, wrong_blocks(move_by_sendfile, false));
}

TEST(sendfile_position_to_pipe)
{
	if (!backing_available(BACKING_TMPFS))
		SKIP(return, "no tmpfs here");
	EXPECT_EQ(0, wrong_blocks(move_by_sendfile_to_pipe, true));
}

TEST(copy_position)
{
	if (!backing_available(BACKING_TMPFS))
		SKIP(return, "no tmpfs here");
	EXPECT_EQ(0, wrong_blocks(move_by_copy, true));
	EXPECT_EQ(0, wrong_blocks(move_by_copy, false));
}

/* ---- a file that is slow ---- */

/* Its server; this memory is shared with the test. */
struct server {
	struct fuse_file file;
	atomic_size_t given; /* bytes in answers to READ */
	atomic_int asked; /* READs that came in */
	int delay_ms; /* before such an answer; negative: never */
};

#define SLOW_LEN BYTES(512 * KIB)

static int slow_read(struct fuse_file *f, const struct fuse_in_header *in,
		     char *data)
{
	const struct fuse_read_in *what = (const void *)(in + 1);
	struct server *s = (struct server *)f;
	size_t n = what->size;

	s->asked++;
	if (s->delay_ms < 0)
		pause();
	usleep(s->delay_ms * 1000);
	if (what->offset >= f->size)
		return 0;
	if (n > f->size - what->offset)
		n = f->size - what->offset;
	pattern_fill(data, n, what->offset, SEED);
	s->given += n;
	return n;
}

FIXTURE(slow)
{
	struct server *server;
	pid_t pid;
	int fd;
};

FIXTURE_SETUP(slow)
{
	int dev, root = fuse_file_mount(0, &dev);

	if (root < 0)
		SKIP(return, "no FUSE here");
	self->server = mmap(NULL, sizeof(*self->server), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->server);
	self->server->file.size = SLOW_LEN;
	/* Else a reader that is killed waits for the server again. */
	self->server->file.open_flags = FOPEN_NOFLUSH;
	self->server->file.read = slow_read;
	self->pid = fork_child();
	ASSERT_LE(0, self->pid);
	if (!self->pid)
		fuse_file_serve(&self->server->file, dev);
	close(dev);
	/* Nothing comes from a cache, so all that is read has been asked for. */
	self->fd = reopen(root, O_RDONLY | O_DIRECT);
	ASSERT_LE(0, self->fd);
	close(root);
}

/* Without its server no request of the file system takes long. */
FIXTURE_TEARDOWN(slow)
{
	kill(self->pid, SIGKILL);
	reap(self->pid);
	close(self->fd);
}

/*
 * Signals that come faster than the source gives data: what was read is sent
 * on, so that there is progress in spite of them, and nothing is read twice.
 */
TEST_F(slow, slow_source_signal)
{
	int out = backing_file(BACKING_MEMFD), calls;
	ssize_t n, sum = 0;

	self->server->delay_ms = 60;
	ASSERT_EQ(0, alarm_start(20, 0));
	for (calls = 0; calls < 50 && sum < SLOW_LEN; calls++) {
		n = sendfile(out, self->fd, NULL, SLOW_LEN - sum);
		if (n < 0) {
			EXPECT_EQ(EINTR, errno);
			continue;
		}
		EXPECT_LT(0, n);
		sum += n;
	}
	alarm_stop();
	EXPECT_LT(1, calls);
	EXPECT_EQ(SLOW_LEN, sum);
	EXPECT_EQ(sum, position(self->fd));
	EXPECT_EQ(sum, BYTES(self->server->given));
	EXPECT_EQ(0, pread_pattern(out, 0, sum, 0, SEED));
}

/* Reads a block at the position, for direct I/O; exits with 0 if all came. */
static pid_t spawn_one_read(int fd)
{
	pid_t pid = fork_child();
	void *page;

	if (pid)
		return pid;
	page = mmap(NULL, BLOCK, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	_exit(read(fd, page, BLOCK) != BLOCK);
}

/* Whether the process ends within a time in which a kill must have an effect. */
static bool ends_soon(pid_t pid)
{
	for (int i = 0; i < 300; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return true;
		usleep(10000);
	}
	return false;
}

/* Who waits for a position that somebody else has can be killed. */
TEST_F(slow, position_wait_is_killed)
{
	pid_t first, second;
	bool ended;

	self->server->delay_ms = -1;
	first = spawn_one_read(self->fd);
	while (!self->server->asked)
		usleep(1000);
	second = spawn_one_read(self->fd);
	usleep(200000);
	ASSERT_EQ(0, kill(second, SIGKILL));
	ended = ends_soon(second);
	EXPECT_TRUE(ended);
	kill(self->pid, SIGKILL);
	EXPECT_NE(0, reap(first));
	if (!ended)
		reap(second);
}

/* ---- memory ---- */

/* Pages that were allocated since the machine started. */
static long pages_allocated(void)
{
	FILE *f = fopen("/proc/vmstat", "r");
	long n, sum = 0;
	char name[64];

	if (!f)
		return -1;
	while (fscanf(f, "%63s %ld", name, &n) == 2)
		if (!strncmp(name, "pgalloc_", 8))
			sum += n;
	fclose(f);
	return sum;
}

/* A byte costs what a byte needs, whatever the size of the ring. */
TEST(array_of_write_follows_request)
{
	const int slots = 16384, calls = 256;
	int out = memfd_filled(1, POISON), fds[2];
	long pages;

	ASSERT_EQ(0, pipe(fds));
	if (fcntl(fds[1], F_SETPIPE_SZ, slots * sysconf(_SC_PAGESIZE)) < 0) {
		ASSERT_EQ(EPERM, errno);
		SKIP(return, "not allowed to make a pipe that large");
	}
	pages = pages_allocated();
	if (pages <= 0)
		SKIP(return, "no /proc/vmstat here");
	for (int i = 0; i < calls; i++) {
		ASSERT_EQ(1, write(fds[1], "x", 1));
		ASSERT_EQ(1, splice(fds[0], NULL, out, &(off_t){ 0 }, 1, 0));
	}
	/* An array of the ring's size is 16 bytes a slot. */
	EXPECT_GT(calls * (slots * 16 / sysconf(_SC_PAGESIZE)) / 4,
		  pages_allocated() - pages);
}

#define CGROUPS "/sys/fs/cgroup"
#define NR_PIPES 4

static int cgroup_path(char path[128], const char *name)
{
	return snprintf(path, 128, CGROUPS "/splice_test.%d%s", getpid(), name);
}

/*
 * In a control group of its own a process fills pipes and empties them again:
 * the charge before, with full pipes, and after.
 */
struct charge {
	long before;
	long full;
	long after;
	bool failed;
};

static void charge_pipes(const char *usage, struct charge *c)
{
	int zero = open("/dev/zero", O_RDONLY), fds[NR_PIPES][2], i;

	for (i = 0; i < NR_PIPES; i++)
		if (pipe(fds[i]) ||
		    fcntl(fds[i][1], F_SETPIPE_SZ, MIB) != BYTES(MIB))
			return;
	c->before = sysctl_get(usage);
	for (i = 0; i < NR_PIPES; i++)
		if (splice(zero, NULL, fds[i][1], NULL, MIB, 0) != BYTES(MIB))
			return;
	c->full = sysctl_get(usage);
	for (i = 0; i < NR_PIPES; i++)
		if (read_zeroes(fds[i][0], MIB))
			return;
	c->after = sysctl_get(usage);
	c->failed = false;
}

/* Pages that a read fills are charged to the reader as those of write(2) are. */
TEST(read_is_charged)
{
	char dir[128], procs[128], usage[128];
	struct statfs st;
	struct charge *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, c);
	if (statfs(CGROUPS, &st) || st.f_type != CGROUP2_SUPER_MAGIC)
		SKIP(return, "no cgroup2 here");
	if (sysctl_write(CGROUPS "/cgroup.subtree_control", "+memory"))
		SKIP(return, "cannot use the memory controller");
	cgroup_path(dir, "");
	cgroup_path(procs, "/cgroup.procs");
	cgroup_path(usage, "/memory.current");
	ASSERT_EQ(0, mkdir(dir, 0700));
	c->failed = true;
	pid = fork_child();
	if (!pid) {
		if (!sysctl_write(procs, "0"))
			charge_pipes(usage, c);
		_exit(0);
	}
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(0, rmdir(dir));
	ASSERT_FALSE(c->failed);
	/* Charges come in portions, so a part of it may be found missing. */
	EXPECT_LE(c->before + BYTES((NR_PIPES - 1) * MIB), c->full);
	EXPECT_GE(c->before + BYTES(MIB), c->after);
}

/* ---- copy_file_range() and where a file is ---- */

/* Whether a range arrives, and nothing else. */
static bool range_is_copied(int in, int out)
{
	const off_t from = 4099, at = 777, len = 200001;
	off_t in_off = from, out_off = at;

	while (out_off < at + len)
		if (copy_file_range(in, &in_off, out, &out_off,
				    at + len - out_off, 0) <= 0)
			return false;
	return in_off == from + len && file_size(out) == LEN &&
	       !pread_pattern(out, 0, at, 0, POISON) &&
	       !pread_pattern(out, at, len, from, SEED) &&
	       !pread_pattern(out, at + len, LEN - at - len, at + len, POISON);
}

/* Between file systems of disks and memory, each way. */
TEST(copy_across_filesystems)
{
	const enum backing all[] = { BACKING_EXT4, BACKING_XFS, BACKING_TMPFS,
				     BACKING_MEMFD };
	int pairs = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t j = 0; j < ARRAY_SIZE(all); j++) {
			bool copied;
			int in, out;

			if (i == j || !backing_available(all[i]) ||
			    !backing_available(all[j]))
				continue;
			in = backing_file_filled(all[i], LEN, SEED);
			out = backing_file_filled(all[j], LEN, POISON);
			copied = range_is_copied(in, out);
			EXPECT_TRUE(copied);
			if (!copied)
				TH_LOG("%s to %s", backing_name(all[i]),
				       backing_name(all[j]));
			close(in);
			close(out);
			pairs++;
		}
	if (!pairs)
		SKIP(return, "one file system only");
}

/* A generated file has a size of 0 and data: an error, not nothing to copy. */
TEST(copy_from_procfs)
{
	const char *const from[] = { "/proc/version", "/proc/self/environ",
				     "/proc/sys/kernel/osrelease" };
	int out = open("/proc/self/comm", O_WRONLY);

	if (out < 0)
		SKIP(return, "no procfs here");
	for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
		int in = open(from[i], O_RDONLY);

		ASSERT_LE(0, in);
		EXPECT_EQ(-1, copy_file_range(in, NULL, out, NULL, 4096, 0));
		EXPECT_EQ(EOPNOTSUPP, errno);
		EXPECT_EQ(0, position(in));
		close(in);
	}
}

TEST_HARNESS_MAIN
