// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel memory in user space, as drivers map it: which page frames are where,
 * who sees which write, and what becomes of the memory when mappings are copied,
 * moved, cut and dropped.  test_modules/splice_kbuf.c is the driver.
 *
 * All of it is what kernels do without the page flip as well; what the flip
 * makes of such memory is tested by kbuf_flip_test.
 *
 * errno of the device	test, or why there is none
 * EACCES	mode.read_only
 * EAGAIN	mode.splice_full
 * EBADF	mode.read_only
 * EBUSY, EINVAL, ENOTTY, ENXIO, EPERM
 *		ioctl_errors
 * EFAULT	read_write_ends
 * EINVAL	mode.offset, mode.longer
 * ENODEV	mmap_device_has_no_faults
 * ENOMEM	a folio or an area of vmalloc() that cannot be had is not to be
 *		had on demand
 * ENOSPC	read_write_ends, mode.splice_write_ends
 *
 * That mapping the pages fails half way, after which the driver's close() is
 * called without its mapped(), takes fault injection.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kbuf_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define SEED 0xb0f
#define OTHER_SEED 0x0dd
/* The size of the buffer. */
#define NR 8
#define LEN (NR * PAGE)

#define BIT(nr) (1ULL << (nr))

/* Bits of /proc/self/pagemap. */
#define PM_EXCLUSIVE BIT(56)
#define PM_FILE BIT(61)
#define PM_SWAPPED BIT(62)
#define PM_PRESENT BIT(63)
/* Bits of /proc/kpageflags. */
#define KPF_LRU BIT(5)
#define KPF_MMAP BIT(11)
#define KPF_ANON BIT(12)
#define KPF_SWAPCACHE BIT(13)
#define KPF_HEAD BIT(15)
#define KPF_TAIL BIT(16)
#define KPF_NOPAGE BIT(20)
#define KPF_RESERVED BIT(32)

static sigjmp_buf after_fault;

static void on_fault(int sig)
{
	siglongjmp(after_fault, sig);
}

/* The signal that reading a byte at @mem raises, 0: none. */
static int touch(const char *mem)
{
	struct sigaction sa = { .sa_handler = on_fault }, bus, segv;
	int sig;

	sigaction(SIGBUS, &sa, &bus);
	sigaction(SIGSEGV, &sa, &segv);
	sig = sigsetjmp(after_fault, 1);
	if (!sig)
		__atomic_load_n(mem, __ATOMIC_SEQ_CST);
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	return sig;
}

/* @nr words of a file in /proc that has one of each page frame. */
static int by_frame(const char *path, const uint64_t *frames, size_t nr,
		    uint64_t *words)
{
	int fd = open(path, O_RDONLY);
	size_t i;

	for (i = 0; i < nr; i++)
		if (pread(fd, words + i, sizeof(*words),
			  frames[i] * sizeof(*words)) != sizeof(*words))
			break;
	close(fd);
	return i == nr ? 0 : -1;
}

/* What smaps says of the area at @mem: the line @name, without the name. */
static int smaps_line(const void *mem, const char *name, char *value,
		      size_t size)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool here = false;
	char line[512];
	int err = -1;

	while (file && err && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start == (uintptr_t)mem;
		else if (here && !strncmp(line, name, strlen(name)) &&
			 line[strlen(name)] == ':')
			err = snprintf(value, size, "%s",
				       line + strlen(name) + 1) < 0;
	}
	if (file)
		fclose(file);
	return err;
}

/* A size in smaps, in pages. */
static long smaps_pages(const void *mem, const char *name)
{
	char value[512];

	if (smaps_line(mem, name, value, sizeof(value)))
		return -1;
	return atol(value) / (PAGE / (long)KIB);
}

static bool smaps_flag(const void *mem, const char *flag)
{
	char value[512], word[8];

	snprintf(word, sizeof(word), " %s ", flag);
	return !smaps_line(mem, "VmFlags", value, sizeof(value)) &&
	       strstr(value, word);
}

/* A buffer mapped twice. */
FIXTURE(mode)
{
	int fd;
	char *one;
	char *two;
	uint64_t frames[NR];
};

FIXTURE_VARIANT(mode)
{
	const char *device;
	enum splice_kbuf_mode mode;
	/* Mapped by mmap(), not when touched. */
	bool premapped;
	/* Without references to pages, and unknown to get_user_pages(). */
	bool pfn;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(mode, pages) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_PAGES };
FIXTURE_VARIANT_ADD(mode, vmalloc) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_VMALLOC };
FIXTURE_VARIANT_ADD(mode, folio) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_FOLIO };
FIXTURE_VARIANT_ADD(mode, insert_pages) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_INSERT_PAGES,
	.premapped = true };
FIXTURE_VARIANT_ADD(mode, remap_pfn) {
	.device = KBUF_DEVICE, .mode = SPLICE_KBUF_REMAP_PFN,
	.premapped = true, .pfn = true };
FIXTURE_VARIANT_ADD(mode, insert_pages_by_mmap) {
	.device = KBUF_MMAP_DEVICE, .mode = SPLICE_KBUF_INSERT_PAGES,
	.premapped = true };
FIXTURE_VARIANT_ADD(mode, remap_pfn_by_mmap) {
	.device = KBUF_MMAP_DEVICE, .mode = SPLICE_KBUF_REMAP_PFN,
	.premapped = true, .pfn = true };
FIXTURE_VARIANT_ADD(mode, remap_vmalloc) {
	.device = KBUF_MMAP_DEVICE, .mode = SPLICE_KBUF_REMAP_VMALLOC,
	.premapped = true };
/* clang-format on */

FIXTURE_SETUP(mode)
{
	self->fd = kbuf_open(variant->device, variant->mode, NR, O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, kbuf_frames(self->fd, NR, self->frames));
	self->one = kbuf_map(self->fd, NR, MAP_SHARED);
	self->two = kbuf_map(self->fd, NR, MAP_SHARED);
	ASSERT_TRUE(self->one && self->two);
}

FIXTURE_TEARDOWN(mode)
{
}

/* References to a page that @times entries of page tables have mapped. */
static long refs_mapped(const FIXTURE_VARIANT(mode) * variant, int times)
{
	if (variant->pfn)
		return 1;
	/* That of the folio counts for each of its pages. */
	if (variant->mode == SPLICE_KBUF_FOLIO)
		times *= NR;
	return 1 + times;
}

/* The same when only one mapping was touched. */
static long refs_touched(const FIXTURE_VARIANT(mode) * variant)
{
	return refs_mapped(variant, variant->premapped ? 2 : 1);
}

/* What the kernel has is zero at first, and in a place of its own each page. */
TEST_F(mode, new)
{
	size_t i, j;

	EXPECT_EQ(-1, zero_check(self->one, LEN));
	for (i = 0; i < NR; i++) {
		EXPECT_TRUE(!!self->frames[i]);
		for (j = 0; j < i; j++)
			EXPECT_NE(self->frames[i], self->frames[j]);
	}
}

/* Mapping one, mapping two and the kernel mean the same memory. */
TEST_F(mode, same_frames)
{
	EXPECT_EQ(-1, zero_check(self->one, LEN));
	memset(self->two, 0, LEN);
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->two, NR, self->frames));
}

/* Nothing is mapped before it is touched, or all of it. */
TEST_F(mode, present)
{
	struct splice_kbuf_stat stat;

	EXPECT_EQ(variant->premapped ? NR : 0,
		  kbuf_same_frames(self->fd, self->one, NR, self->frames));
	EXPECT_EQ(0, touch(self->one + PAGE));
	EXPECT_EQ(variant->premapped ? NR : 1,
		  kbuf_same_frames(self->fd, self->one, NR, self->frames));
	EXPECT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(variant->premapped ? 0UL : 1UL, stat.faults);
}

/* A write through one mapping. */
TEST_F(mode, write_by_mapping)
{
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	EXPECT_EQ(0, pread_pattern(self->fd, 0, LEN, 0, SEED));
	EXPECT_EQ(0, read_pattern(self->fd, LEN, 0, SEED));
	/* The other way round, with every page present on both sides. */
	pattern_fill(self->two, LEN, 0, OTHER_SEED);
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, OTHER_SEED));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, OTHER_SEED));
	EXPECT_EQ(0, pread_pattern(self->fd, 0, LEN, 0, OTHER_SEED));
}

/* A write(2), before and after the pages are present. */
TEST_F(mode, write_by_call)
{
	ASSERT_EQ(0, write_pattern(self->fd, LEN, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	ASSERT_EQ(0, lseek(self->fd, 0, SEEK_SET));
	ASSERT_EQ(0, write_pattern(self->fd, LEN, 0, OTHER_SEED));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, OTHER_SEED));
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, OTHER_SEED));
}

/* A write by the kernel, to the last word of each page. */
TEST_F(mode, write_by_kernel)
{
	uint64_t word;
	size_t i;

	for (i = 0; i < NR; i++) {
		const size_t off = (i + 1) * PAGE - sizeof(word);

		ASSERT_EQ(0, kbuf_poke(self->fd, off, i ^ SEED));
		memcpy(&word, self->one + off, sizeof(word));
		EXPECT_EQ(i ^ SEED, word);
		memcpy(&word, self->two + off, sizeof(word));
		EXPECT_EQ(i ^ SEED, word);
		ASSERT_EQ(8, pread(self->fd, &word, sizeof(word), off));
		EXPECT_EQ(i ^ SEED, word);
	}
}

/* From the middle on. */
TEST_F(mode, offset)
{
	char *part =
		mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, self->fd, 3 * PAGE);

	ASSERT_NE(MAP_FAILED, part);
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(-1, pattern_check(part, 2 * PAGE, 3 * PAGE, SEED));
	EXPECT_EQ(2, kbuf_same_frames(self->fd, part, 2, self->frames + 3));
	/* The last page, and where there is none. */
	EXPECT_NE(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd,
				   LEN - PAGE));
	EXPECT_EQ(MAP_FAILED,
		  mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, LEN));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd,
				   LONG_MAX & -PAGE));
	EXPECT_EQ(EINVAL, errno);
	/* The end of it is before its beginning. */
	EXPECT_EQ(MAP_FAILED,
		  mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, self->fd, -PAGE));
	EXPECT_EQ(EOVERFLOW, errno);
}

/* More than there is: refused, or SIGBUS behind the end. */
TEST_F(mode, longer)
{
	char *part = mmap(NULL, LEN, PROT_READ, MAP_SHARED, self->fd, PAGE);

	if (variant->premapped) {
		EXPECT_EQ(MAP_FAILED, part);
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(NULL, kbuf_map(self->fd, NR + 1, MAP_SHARED));
		EXPECT_EQ(EINVAL, errno);
		return;
	}
	ASSERT_NE(MAP_FAILED, part);
	EXPECT_EQ(0, touch(part + LEN - PAGE - 1));
	EXPECT_EQ(SIGBUS, touch(part + LEN - PAGE));
	EXPECT_EQ(SIGBUS, touch(part + LEN - 1));
	/* A system call does not get there either. */
	EXPECT_EQ(PAGE, pread(self->fd, self->two, LEN, LEN - PAGE));
	EXPECT_EQ(-1, write(self->fd, part + LEN - PAGE, PAGE));
	EXPECT_EQ(EFAULT, errno);
}

/* Private: the buffer's page until it is written to, then a copy. */
TEST_F(mode, private)
{
	char *mem = kbuf_map(self->fd, NR, MAP_PRIVATE);

	ASSERT_NE(NULL, mem);
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(-1, pattern_check(mem, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, mem, NR, self->frames));
	/* A whole page, and a byte of another. */
	pattern_fill(mem + PAGE, PAGE, 0, OTHER_SEED);
	mem[3 * PAGE] ^= 0xff;
	EXPECT_EQ(NR - 2, kbuf_same_frames(self->fd, mem, NR, self->frames));
	EXPECT_EQ(0,
		  kbuf_same_frames(self->fd, mem + PAGE, 1, self->frames + 1));
	EXPECT_EQ(0, kbuf_same_frames(self->fd, mem + 3 * PAGE, 1,
				      self->frames + 3));
	EXPECT_EQ(-1, pattern_check(mem + 3 * PAGE + 1, PAGE - 1, 3 * PAGE + 1,
				    SEED));
	/* Nobody else sees it. */
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	/* What was not copied goes on being the buffer. */
	ASSERT_EQ(0, kbuf_poke(self->fd, 0, 0));
	ASSERT_EQ(0, kbuf_poke(self->fd, PAGE, 0));
	EXPECT_EQ(-1, zero_check(mem, 8));
	EXPECT_EQ(-1, pattern_check(mem + PAGE, PAGE, 0, OTHER_SEED));
}

/* Written to before it was read. */
TEST_F(mode, private_write)
{
	char *mem = kbuf_map(self->fd, NR, MAP_PRIVATE);
	size_t i;

	ASSERT_NE(NULL, mem);
	pattern_fill(self->one, LEN, 0, SEED);
	for (i = 0; i < NR; i++)
		mem[i * PAGE] ^= 0xff;
	EXPECT_EQ(0, kbuf_same_frames(self->fd, mem, NR, self->frames));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(-1, pattern_check(mem + i * PAGE + 1, PAGE - 1,
					    i * PAGE + 1, SEED));
	/* A copy has a page of its own, and leaves the buffer's alone. */
	EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, 0));
}

/* A file that is open for reading only. */
TEST_F(mode, read_only)
{
	int fd = kbuf_open(variant->device, variant->mode, NR, O_RDONLY);
	const int rw = PROT_READ | PROT_WRITE;
	char *mem;

	ASSERT_LE(0, fd);
	EXPECT_EQ(NULL, kbuf_map(fd, NR, MAP_SHARED));
	EXPECT_EQ(EACCES, errno);
	mem = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(0, touch(mem));
	EXPECT_EQ(-1, mprotect(mem, LEN, rw));
	EXPECT_EQ(EACCES, errno);
	mem = kbuf_map(fd, NR, MAP_PRIVATE);
	ASSERT_NE(NULL, mem);
	memset(mem, 0xaa, LEN);
	EXPECT_EQ(0, pread_zeroes(fd, 0, LEN));
	EXPECT_EQ(-1, pwrite(fd, mem, PAGE, 0));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, kbuf_poke(fd, 0, 1));
	EXPECT_EQ(EBADF, errno);
}

/* What is asked for is what the pages allow. */
TEST_F(mode, protection)
{
	char *mem = mmap(NULL, LEN, PROT_READ, MAP_SHARED, self->fd, 0);
	const int rw = PROT_READ | PROT_WRITE;
	uint64_t word;

	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(0, touch(mem));
	/* The kernel writes where user space may not. */
	EXPECT_EQ(-1, pread(self->fd, mem, 8, 0));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, mprotect(mem, LEN, rw));
	memset(mem, 0x11, LEN);
	EXPECT_EQ(0, kbuf_peek(self->fd, LEN - 8, &word));
	EXPECT_EQ(0x1111111111111111UL, word);
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, mem, NR, self->frames));
	ASSERT_EQ(0, mprotect(mem, LEN, PROT_NONE));
	EXPECT_EQ(SIGSEGV, touch(mem));
	/* Nobody executes a buffer. */
	EXPECT_EQ(-1, mprotect(mem, LEN, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, LEN, PROT_READ | PROT_EXEC, MAP_SHARED,
				   self->fd, 0));
	EXPECT_EQ(EPERM, errno);
}

/* Each mapping refers to the buffer, each entry to its page or to none. */
TEST_F(mode, references)
{
	struct splice_kbuf_stat stat;
	size_t i;

	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(2UL, stat.mapped);
	EXPECT_EQ(3UL, stat.refs);
	memset(self->one, 0, LEN);
	memset(self->two, 0, LEN);
	for (i = 0; i < NR; i++)
		EXPECT_EQ(refs_mapped(variant, 2), kbuf_refs(self->fd, i));
	ASSERT_EQ(0, munmap(self->two, LEN));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(refs_mapped(variant, 1), kbuf_refs(self->fd, i));
	ASSERT_EQ(0, munmap(self->one, LEN));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(refs_mapped(variant, 0), kbuf_refs(self->fd, i));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(0UL, stat.opened);
	EXPECT_EQ(2UL, stat.closed);
	EXPECT_EQ(1UL, stat.refs);
}

/* Cut in the middle an area becomes two. */
TEST_F(mode, partial_munmap)
{
	struct splice_kbuf_stat stat;

	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(0, munmap(self->one + 3 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(1UL, stat.opened - stat.closed);
	EXPECT_EQ(4UL, stat.refs);
	EXPECT_EQ(SIGSEGV, touch(self->one + 3 * PAGE));
	EXPECT_EQ(-1, pattern_check(self->one, 3 * PAGE, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->one + 5 * PAGE, 3 * PAGE, 5 * PAGE,
				    SEED));
	EXPECT_EQ(3, kbuf_same_frames(self->fd, self->one, 3, self->frames));
	EXPECT_EQ(3, kbuf_same_frames(self->fd, self->one + 5 * PAGE, 3,
				      self->frames + 5));
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	ASSERT_EQ(0, munmap(self->one, LEN));
	ASSERT_EQ(0, munmap(self->two, LEN));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(stat.mapped + stat.opened, stat.closed);
	EXPECT_EQ(1UL, stat.refs);
	EXPECT_EQ(refs_mapped(variant, 0), kbuf_refs(self->fd, 0));
	EXPECT_EQ(refs_mapped(variant, 0), kbuf_refs(self->fd, 4));
}

/* Elsewhere it is the same memory. */
TEST_F(mode, mremap)
{
	char *place = map_mem(PMD), *old = self->one;
	struct splice_kbuf_stat stat;

	ASSERT_NE(NULL, place);
	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(place, mremap(self->one, LEN, LEN,
				MREMAP_MAYMOVE | MREMAP_FIXED, place));
	EXPECT_EQ(SIGSEGV, touch(old));
	EXPECT_EQ(-1, pattern_check(place, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, place, NR, self->frames));
	pattern_fill(place, LEN, 0, OTHER_SEED);
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, OTHER_SEED));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(3UL, stat.refs);
	ASSERT_EQ(0, munmap(place, LEN));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(2UL, stat.refs);
}

/* Nothing is there that it could grow by. */
TEST_F(mode, mremap_longer)
{
	char *mem;

	pattern_fill(self->one, LEN, 0, SEED);
	mem = mremap(self->one, LEN, 2 * LEN, MREMAP_MAYMOVE);
	if (variant->premapped) {
		EXPECT_EQ(MAP_FAILED, mem);
		EXPECT_EQ(EFAULT, errno);
		return;
	}
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(-1, pattern_check(mem, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, mem, NR, self->frames));
	EXPECT_EQ(SIGBUS, touch(mem + LEN));
}

/* A child has the same memory, and takes nothing with it when it ends. */
TEST_F(mode, fork)
{
	struct splice_kbuf_stat before, after;
	pid_t pid;

	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(0, kbuf_stat(self->fd, &before));
	pid = fork_child();
	if (!pid) {
		if (kbuf_stat(self->fd, &after) ||
		    after.opened != before.opened + 2 ||
		    after.refs != before.refs + 2)
			_exit(1);
		if (pattern_check(self->one, LEN, 0, SEED) != -1 ||
		    kbuf_same_frames(self->fd, self->one, NR, self->frames) !=
			    NR)
			_exit(2);
		pattern_fill(self->two, LEN, 0, OTHER_SEED);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, OTHER_SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
	ASSERT_EQ(0, kbuf_stat(self->fd, &after));
	EXPECT_EQ(before.refs, after.refs);
	EXPECT_EQ(before.closed + 2, after.closed);
	memset(self->two, 0, LEN);
	EXPECT_EQ(refs_mapped(variant, 2), kbuf_refs(self->fd, 0));
}

/* A private copy is shared with a child, and separate once one of them writes. */
TEST_F(mode, fork_private)
{
	char *mem = kbuf_map(self->fd, NR, MAP_PRIVATE);
	pid_t pid;

	ASSERT_NE(NULL, mem);
	pattern_fill(mem, LEN / 2, 0, SEED);
	pid = fork_child();
	if (!pid) {
		if (pattern_check(mem, LEN / 2, 0, SEED) != -1 ||
		    zero_check(mem + LEN / 2, LEN / 2) != -1)
			_exit(1);
		pattern_fill(mem, LEN, 0, OTHER_SEED);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(mem, LEN / 2, 0, SEED));
	EXPECT_EQ(-1, zero_check(mem + LEN / 2, LEN / 2));
	EXPECT_EQ(-1, zero_check(self->one, LEN));
}

/* The mapping keeps the buffer, and the module. */
TEST_F(mode, file_closed)
{
	int other;

	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(-1, kbuf_unload());
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	ASSERT_EQ(0, munmap(self->one, LEN));
	EXPECT_EQ(-1, kbuf_unload());
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	other = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, 1, O_RDWR);
	EXPECT_EQ(NR, kbuf_same_frames(other, self->two, NR, self->frames));
	ASSERT_EQ(0, close(other));
	ASSERT_EQ(0, munmap(self->two, LEN));
	ASSERT_EQ(0, kbuf_unload());
	ASSERT_EQ(0, kbuf_load());
}

/* Dropped from the page tables: a fault handler brings it back, others do not. */
TEST_F(mode, dontneed)
{
	struct splice_kbuf_stat before, after;
	int err;

	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(0, kbuf_stat(self->fd, &before));
	err = madvise(self->one, LEN, MADV_DONTNEED);
	if (variant->pfn) {
		EXPECT_EQ(-1, err);
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR,
					       self->frames));
		return;
	}
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, present_pages(self->one, LEN));
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	if (variant->premapped) {
		EXPECT_EQ(SIGBUS, touch(self->one));
		return;
	}
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
	ASSERT_EQ(0, kbuf_stat(self->fd, &after));
	EXPECT_LT(before.faults, after.faults);
}

/* /proc/self/smaps, of an area all of which is mapped here and once more. */
TEST_F(mode, smaps)
{
	const long rss = variant->pfn ? 0 : NR;

	memset(self->one, 1, LEN);
	memset(self->two, 1, LEN);
	EXPECT_EQ(NR, smaps_pages(self->one, "Size"));
	EXPECT_EQ(rss, smaps_pages(self->one, "Rss"));
	EXPECT_EQ(rss / 2, smaps_pages(self->one, "Pss"));
	EXPECT_EQ(rss, smaps_pages(self->one, "Shared_Clean") +
			       smaps_pages(self->one, "Shared_Dirty"));
	EXPECT_EQ(0, smaps_pages(self->one, "Anonymous"));
	EXPECT_EQ(0, smaps_pages(self->one, "Swap"));
	EXPECT_EQ(variant->pfn, smaps_flag(self->one, "pf"));
	EXPECT_EQ(variant->pfn, smaps_flag(self->one, "io"));
	EXPECT_EQ(variant->premapped && !variant->pfn,
		  smaps_flag(self->one, "mm"));
	EXPECT_EQ(variant->premapped, smaps_flag(self->one, "de"));
	EXPECT_EQ(variant->premapped, smaps_flag(self->one, "dd"));
	EXPECT_FALSE(smaps_flag(self->one, "ex"));
	EXPECT_FALSE(smaps_flag(self->one, "me"));
	ASSERT_EQ(0, munmap(self->two, LEN));
	EXPECT_EQ(rss, smaps_pages(self->one, "Pss"));
	EXPECT_EQ(rss, smaps_pages(self->one, "Private_Clean") +
			       smaps_pages(self->one, "Private_Dirty"));
}

/*
 * /proc/self/pagemap: memory that is a file's as far as it knows, and nothing
 * at all where remap_pfn_range() has mapped it.
 */
TEST_F(mode, pagemap)
{
	const uint64_t want = variant->pfn ? 0 : PM_PRESENT | PM_FILE;
	const uint64_t frame = BIT(55) - 1;
	uint64_t entries[NR];
	size_t i;

	memset(self->one, 1, LEN);
	memset(self->two, 1, LEN);
	ASSERT_EQ(0, read_pagemap(self->one, NR, entries));
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(want, entries[i] & (PM_PRESENT | PM_SWAPPED |
					      PM_FILE | PM_EXCLUSIVE));
		EXPECT_EQ(want ? self->frames[i] : 0, entries[i] & frame);
	}
	ASSERT_EQ(0, munmap(self->two, LEN));
	ASSERT_EQ(0, read_pagemap(self->one, NR, entries));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(want ? PM_EXCLUSIVE : 0, entries[i] & PM_EXCLUSIVE);
}

/* Ordinary memory: not reserved, on no LRU list, of no file, not anonymous. */
TEST_F(mode, page_flags)
{
	uint64_t flags[NR], counts[NR], folio;
	size_t i;

	memset(self->one, 1, LEN);
	memset(self->two, 1, LEN);
	ASSERT_EQ(0, by_frame("/proc/kpageflags", self->frames, NR, flags));
	ASSERT_EQ(0, by_frame("/proc/kpagecount", self->frames, NR, counts));
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(0UL, flags[i] & (KPF_RESERVED | KPF_LRU | KPF_ANON |
					   KPF_SWAPCACHE | KPF_NOPAGE));
		EXPECT_EQ(variant->pfn ? 0 : KPF_MMAP, flags[i] & KPF_MMAP);
		EXPECT_EQ(variant->pfn ? 0UL : 2UL, counts[i]);
		folio = variant->mode != SPLICE_KBUF_FOLIO ? 0 :
			i				   ? KPF_TAIL :
							     KPF_HEAD;
		EXPECT_EQ(folio, flags[i] & (KPF_HEAD | KPF_TAIL));
	}
}

/* Reclaim does not find it, even when asked to take exactly this. */
TEST_F(mode, never_swapped)
{
	pattern_fill(self->one, LEN, 0, SEED);
	if (madvise(self->one, LEN, MADV_PAGEOUT))
		EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, swapped_pages(self->one, LEN));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
}

/* get_user_pages() by vmsplice(): the pages themselves, or none. */
TEST_F(mode, vmsplice)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	pattern_fill(self->one, LEN, 0, SEED);
	if (variant->pfn) {
		EXPECT_EQ(-1, share(p[1], self->one, LEN));
		EXPECT_EQ(EFAULT, errno);
		return;
	}
	EXPECT_EQ(LEN, share(p[1], self->one, LEN));
	/* Shared: what is written now is seen. */
	pattern_fill(self->two, LEN, 0, OTHER_SEED);
	EXPECT_EQ(0, read_pattern(p[0], LEN, 0, OTHER_SEED));
}

/* By process_vm_readv() and process_vm_writev(). */
TEST_F(mode, process_vm)
{
	char mem[PAGE];
	struct iovec local = { mem, sizeof(mem) };
	struct iovec remote = { self->one + PAGE, sizeof(mem) };

	pattern_fill(self->one, LEN, 0, SEED);
	if (variant->pfn) {
		EXPECT_EQ(-1,
			  process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, process_vm_writev(getpid(), &local, 1, &remote, 1,
						0));
		EXPECT_EQ(EFAULT, errno);
		return;
	}
	EXPECT_EQ(PAGE, process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(-1, pattern_check(mem, PAGE, PAGE, SEED));
	memset(mem, 0, sizeof(mem));
	EXPECT_EQ(PAGE, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, pread_zeroes(self->fd, PAGE, PAGE));
}

/* By a debugger: there is no access() in this driver. */
TEST_F(mode, proc_mem)
{
	int fd = open("/proc/self/mem", O_RDWR);
	char mem[PAGE];

	ASSERT_LE(0, fd);
	pattern_fill(self->one, LEN, 0, SEED);
	if (variant->pfn) {
		EXPECT_EQ(-1, pread(fd, mem, PAGE, (uintptr_t)self->one));
		EXPECT_EQ(EIO, errno);
		return;
	}
	EXPECT_EQ(PAGE, pread(fd, mem, PAGE, (uintptr_t)self->one));
	EXPECT_EQ(-1, pattern_check(mem, PAGE, 0, SEED));
}

/* By O_DIRECT, from the buffer to the disk and back. */
TEST_F(mode, direct_io)
{
	int fd, direct;

	if (!backing_available(BACKING_EXT4))
		SKIP(return, "no ext4");
	/* A hole would be read without get_user_pages(). */
	fd = backing_file_filled(BACKING_EXT4, LEN, OTHER_SEED);
	direct = reopen(fd, O_RDWR | O_DIRECT);
	ASSERT_LE(0, direct);
	pattern_fill(self->one, LEN, 0, SEED);
	if (variant->pfn) {
		EXPECT_EQ(-1, pwrite(direct, self->one, LEN, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, pread(direct, self->one, LEN, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
		return;
	}
	EXPECT_EQ(LEN, pwrite(direct, self->one, LEN, 0));
	EXPECT_EQ(0, pread_pattern(fd, 0, LEN, 0, SEED));
	memset(self->one, 0, LEN);
	EXPECT_EQ(LEN, pread(direct, self->two, LEN, 0));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	EXPECT_EQ(refs_mapped(variant, 2), kbuf_refs(self->fd, 0));
}

/* What copies by the page tables does not care how memory is mapped. */
TEST_F(mode, copied_by_calls)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(LEN, write(p[1], self->one, LEN));
	EXPECT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
	EXPECT_EQ(0, write_pattern(p[1], LEN, 0, OTHER_SEED));
	EXPECT_EQ(LEN, read(p[0], self->two, LEN));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, OTHER_SEED));
}

/* Into a pipe and out to another buffer: kernel, mappings and pipe agree. */
TEST_F(mode, splice_same_frames)
{
	int other = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, NR, O_RDWR), p[2];
	struct splice_kbuf_page page;
	size_t i;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, pipe(p));
	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(LEN, splice(self->fd, NULL, p[1], NULL, LEN, 0));
	EXPECT_EQ(refs_touched(variant) +
			  (variant->mode == SPLICE_KBUF_FOLIO ? NR : 1),
		  kbuf_refs(self->fd, 0));
	ASSERT_EQ(LEN, splice(p[0], NULL, other, NULL, LEN, 0));
	EXPECT_EQ(-1, kbuf_check(other, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
	for (i = 0; i < NR; i++) {
		ASSERT_EQ(0, kbuf_page(other, i, &page));
		EXPECT_EQ(self->frames[i], page.from);
		EXPECT_NE(self->frames[i], page.frame);
		EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, i));
	}
}

/* A page in a pipe is shared: what is written later shows. */
TEST_F(mode, splice_shares)
{
	int p[2];

	ASSERT_EQ(0, pipe(p));
	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(LEN, splice(self->fd, NULL, p[1], NULL, LEN, 0));
	pattern_fill(self->one, LEN, 0, OTHER_SEED);
	EXPECT_EQ(0, read_pattern(p[0], LEN, 0, OTHER_SEED));
}

/* From the middle of a page to that of another. */
TEST_F(mode, splice_unaligned)
{
	loff_t off = PAGE - 512;
	int p[2];

	ASSERT_EQ(0, pipe(p));
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(2 * PAGE, splice(self->fd, &off, p[1], NULL, 2 * PAGE, 0));
	EXPECT_EQ(3 * PAGE - 512, off);
	EXPECT_EQ(2 * PAGE, bytes_queued(p[0]));
	EXPECT_EQ(0, read_pattern(p[0], 2 * PAGE, PAGE - 512, SEED));
	/* At the end is the end. */
	off = LEN - 512;
	EXPECT_EQ(512, splice(self->fd, &off, p[1], NULL, PAGE, 0));
	EXPECT_EQ(0, read_pattern(p[0], 512, LEN - 512, SEED));
	EXPECT_EQ(0, splice(self->fd, &off, p[1], NULL, PAGE, 0));
	off = LLONG_MAX & -PAGE;
	EXPECT_EQ(0, splice(self->fd, &off, p[1], NULL, PAGE - 1, 0));
}

/* A pipe of two slots takes two. */
TEST_F(mode, splice_full)
{
	loff_t off = 512;
	int p[2];

	ASSERT_EQ(0, pipe_of(p, 2));
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(2 * PAGE - 512,
		  splice(self->fd, &off, p[1], NULL, 2 * PAGE, 0));
	EXPECT_EQ(2 * PAGE, off);
	EXPECT_EQ(-1,
		  splice(self->fd, &off, p[1], NULL, PAGE, SPLICE_F_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, read_pattern(p[0], 2 * PAGE - 512, 512, SEED));
	EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, 0));
	EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, 2));
	/* Nobody reads: the reference is not lost. */
	ASSERT_EQ(0, signal_count_start(SIGPIPE));
	close(p[0]);
	EXPECT_EQ(-1, splice(self->fd, &off, p[1], NULL, PAGE, 0));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, 2));
}

/* A pipe holds pages, not the buffer, and not the module. */
TEST_F(mode, pipe_outlives)
{
	int p[2], q[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, pipe(q));
	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(LEN, splice(self->fd, NULL, p[1], NULL, LEN, 0));
	ASSERT_EQ(LEN, tee(p[0], q[1], LEN, 0));
	ASSERT_EQ(0, munmap(self->one, LEN));
	ASSERT_EQ(0, munmap(self->two, LEN));
	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, kbuf_unload());
	EXPECT_EQ(0, read_pattern(p[0], LEN, 0, SEED));
	EXPECT_EQ(0, read_pattern(q[0], LEN, 0, SEED));
	ASSERT_EQ(0, kbuf_load());
}

/* Data of a pipe, which both mappings see. */
TEST_F(mode, splice_write)
{
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, LEN, SEED));
	EXPECT_EQ(LEN, splice(p[0], NULL, self->fd, NULL, LEN, 0));
	EXPECT_EQ(LEN, position(self->fd));
	EXPECT_EQ(-1, pattern_check(self->one, LEN, 0, SEED));
	EXPECT_EQ(-1, pattern_check(self->two, LEN, 0, SEED));
	EXPECT_EQ(-1, kbuf_check(self->fd, LEN, 0, SEED));
	EXPECT_EQ(NR, kbuf_same_frames(self->fd, self->one, NR, self->frames));
}

/* To the middle of a page, and up to the end. */
TEST_F(mode, splice_write_ends)
{
	loff_t off = LEN - PAGE - 100;
	int p[2];

	ASSERT_EQ(0, pipe_filled(p, 2 * PAGE, SEED));
	EXPECT_EQ(PAGE + 100, splice(p[0], NULL, self->fd, &off, 2 * PAGE, 0));
	EXPECT_EQ(LEN, off);
	EXPECT_EQ(-1, pattern_check(self->one + LEN - PAGE - 100, PAGE + 100, 0,
				    SEED));
	EXPECT_EQ(-1, zero_check(self->one, LEN - PAGE - 100));
	EXPECT_EQ(-1, splice(p[0], NULL, self->fd, &off, PAGE, 0));
	EXPECT_EQ(ENOSPC, errno);
	/* What there was no room for is still in the pipe. */
	EXPECT_EQ(0, read_pattern(p[0], PAGE - 100, PAGE + 100, SEED));
}

/* A buffer that is to itself what a file is: sendfile() copies from it. */
TEST_F(mode, sendfile)
{
	int other = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, NR, O_RDWR);
	off_t off = 0;

	ASSERT_LE(0, other);
	pattern_fill(self->one, LEN, 0, SEED);
	EXPECT_EQ(LEN, sendfile(other, self->fd, &off, LEN));
	EXPECT_EQ(-1, kbuf_check(other, LEN, 0, SEED));
	EXPECT_EQ(refs_touched(variant), kbuf_refs(self->fd, 0));
}

/* The network keeps pages until they are read, whoever is gone by then. */
TEST_F(mode, socket)
{
	int sv[2], p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, tcp_pair(sv));
	pattern_fill(self->one, LEN, 0, SEED);
	ASSERT_EQ(LEN, splice(self->fd, NULL, p[1], NULL, LEN, 0));
	ASSERT_EQ(LEN, splice(p[0], NULL, sv[0], NULL, LEN, 0));
	ASSERT_EQ(0, munmap(self->one, LEN));
	ASSERT_EQ(0, munmap(self->two, LEN));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(0, read_pattern(sv[1], LEN, 0, SEED));
}

/* A folio as large as a PMD, mapped by one. */
FIXTURE(huge)
{
	int fd;
	char *mem;
	uint64_t frames[PMD / 4096];
};

FIXTURE_SETUP(huge)
{
	const int rw = PROT_READ | PROT_WRITE;

	self->fd =
		kbuf_open(KBUF_DEVICE, SPLICE_KBUF_FOLIO, PMD / PAGE, O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, kbuf_frames(self->fd, PMD / PAGE, self->frames));
	self->mem = map_mem(PMD);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(self->mem, mmap(self->mem, PMD, rw, MAP_SHARED | MAP_FIXED,
				  self->fd, 0));
	/* EINVAL: a kernel without huge pages. */
	if (madvise(self->mem, PMD, MADV_HUGEPAGE))
		SKIP(return, "no huge pages");
}

FIXTURE_TEARDOWN(huge)
{
}

TEST_F(huge, mapped)
{
	struct splice_kbuf_stat stat;

	pattern_fill(self->mem, PMD, 0, SEED);
	EXPECT_EQ(PMD, huge_bytes(self->mem, PMD));
	EXPECT_EQ(PMD / PAGE, kbuf_same_frames(self->fd, self->mem, PMD / PAGE,
					       self->frames));
	ASSERT_EQ(0, kbuf_stat(self->fd, &stat));
	EXPECT_EQ(1UL, stat.huge_faults);
	EXPECT_EQ(0UL, stat.faults);
	EXPECT_EQ(2, kbuf_refs(self->fd, 0));
	EXPECT_EQ(-1, kbuf_check(self->fd, PMD, 0, SEED));
	EXPECT_EQ(0, pread_pattern(self->fd, 0, PMD, 0, SEED));
	EXPECT_EQ(PMD / PAGE, smaps_pages(self->mem, "Rss"));
	EXPECT_EQ(PMD / PAGE, smaps_pages(self->mem, "FilePmdMapped"));
	ASSERT_EQ(0, munmap(self->mem, PMD));
	EXPECT_EQ(1, kbuf_refs(self->fd, 0));
}

/* Read before it is written. */
TEST_F(huge, written_later)
{
	EXPECT_EQ(0, touch(self->mem));
	EXPECT_EQ(PMD, huge_bytes(self->mem, PMD));
	pattern_fill(self->mem, PMD, 0, SEED);
	EXPECT_EQ(PMD, huge_bytes(self->mem, PMD));
	EXPECT_EQ(-1, kbuf_check(self->fd, PMD, 0, SEED));
}

/* What is left when a page goes is mapped by small entries. */
TEST_F(huge, partial_munmap)
{
	const long last = PMD / PAGE - 1;

	pattern_fill(self->mem, PMD, 0, SEED);
	ASSERT_EQ(0, munmap(self->mem, PAGE));
	EXPECT_EQ(0, huge_bytes(self->mem, PMD));
	EXPECT_EQ(-1, pattern_check(self->mem + PAGE, PMD - PAGE, PAGE, SEED));
	EXPECT_EQ(last, kbuf_same_frames(self->fd, self->mem + PAGE, last,
					 self->frames + 1));
	EXPECT_EQ(1 + last, kbuf_refs(self->fd, 0));
	ASSERT_EQ(0, munmap(self->mem, PMD));
	EXPECT_EQ(1, kbuf_refs(self->fd, 0));
}

/* An address that does not fit. */
TEST_F(huge, unaligned)
{
	const int rw = PROT_READ | PROT_WRITE;
	char *mem = map_mem(2 * PMD);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(mem + PAGE, mmap(mem + PAGE, PMD, rw, MAP_SHARED | MAP_FIXED,
				   self->fd, 0));
	ASSERT_EQ(0, madvise(mem + PAGE, PMD, MADV_HUGEPAGE));
	pattern_fill(mem + PAGE, PMD, 0, SEED);
	EXPECT_EQ(0, huge_bytes(mem, 2 * PMD));
	EXPECT_EQ(PMD / PAGE, kbuf_same_frames(self->fd, mem + PAGE, PMD / PAGE,
					       self->frames));
	EXPECT_EQ(-1, pattern_check(self->mem, PMD, 0, SEED));
}

/* An aligned address where the folio does not begin. */
TEST_F(huge, offset)
{
	char *mem = map_mem(PMD);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(mem, mmap(mem, PMD, PROT_READ, MAP_SHARED | MAP_FIXED,
			    self->fd, PAGE));
	ASSERT_EQ(0, madvise(mem, PMD, MADV_HUGEPAGE));
	pattern_fill(self->mem, PMD, 0, SEED);
	EXPECT_EQ(-1, pattern_check(mem, PMD - PAGE, PAGE, SEED));
	EXPECT_EQ(0, huge_bytes(mem, PMD));
	EXPECT_EQ(PMD / PAGE - 1,
		  kbuf_same_frames(self->fd, mem, PMD / PAGE - 1,
				   self->frames + 1));
	EXPECT_EQ(SIGBUS, touch(mem + PMD - PAGE));
}

/* Half of it, at either end of a PMD: nothing is mapped outside of the area. */
TEST_F(huge, half)
{
	const int rw = PROT_READ | PROT_WRITE;
	const size_t half = PMD / 2;
	char *mem = map_mem(PMD), *end = mem + half;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, munmap(mem, PMD));
	pattern_fill(self->mem, PMD, 0, SEED);
	ASSERT_EQ(mem,
		  mmap(mem, half, rw, MAP_SHARED | MAP_FIXED, self->fd, 0));
	ASSERT_EQ(0, madvise(mem, half, MADV_HUGEPAGE));
	EXPECT_EQ(-1, pattern_check(mem, half, 0, SEED));
	EXPECT_EQ(0, huge_bytes(mem, half));
	EXPECT_EQ(SIGSEGV, touch(end));
	ASSERT_EQ(0, munmap(mem, half));
	ASSERT_EQ(end,
		  mmap(end, half, rw, MAP_SHARED | MAP_FIXED, self->fd, half));
	ASSERT_EQ(0, madvise(end, half, MADV_HUGEPAGE));
	EXPECT_EQ(-1, pattern_check(end, half, half, SEED));
	EXPECT_EQ(0, huge_bytes(end, half));
	EXPECT_EQ(SIGSEGV, touch(end - 1));
}

TEST_F(huge, private)
{
	char *mem = map_mem(PMD);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(mem, mmap(mem, PMD, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_FIXED, self->fd, 0));
	ASSERT_EQ(0, madvise(mem, PMD, MADV_HUGEPAGE));
	pattern_fill(self->mem, PMD, 0, SEED);
	EXPECT_EQ(-1, pattern_check(mem, PMD, 0, SEED));
	mem[PAGE] ^= 0xff;
	EXPECT_EQ(0,
		  kbuf_same_frames(self->fd, mem + PAGE, 1, self->frames + 1));
	EXPECT_EQ(-1, pattern_check(mem + 2 * PAGE, PMD - 2 * PAGE, 2 * PAGE,
				    SEED));
	EXPECT_EQ(PMD / PAGE - 2,
		  kbuf_same_frames(self->fd, mem + 2 * PAGE, PMD / PAGE - 2,
				   self->frames + 2));
	EXPECT_EQ(-1, pattern_check(self->mem, PMD, 0, SEED));
}

TEST_F(huge, fork)
{
	pid_t pid;

	pattern_fill(self->mem, PMD, 0, SEED);
	pid = fork_child();
	if (!pid) {
		if (pattern_check(self->mem, PMD, 0, SEED) != -1)
			_exit(1);
		pattern_fill(self->mem, PMD, 0, OTHER_SEED);
		_exit(0);
	}
	ASSERT_EQ(0, reap(pid));
	EXPECT_EQ(-1, pattern_check(self->mem, PMD, 0, OTHER_SEED));
	EXPECT_EQ(2, kbuf_refs(self->fd, 0));
}

/* Without a fault handler there is nothing that mmap() itself would map. */
TEST(mmap_device_has_no_faults)
{
	int fd = kbuf_open(KBUF_MMAP_DEVICE, SPLICE_KBUF_PAGES, NR, O_RDWR);
	struct splice_kbuf_stat stat;

	ASSERT_LE(0, fd);
	EXPECT_EQ(NULL, kbuf_map(fd, NR, MAP_SHARED));
	EXPECT_EQ(ENODEV, errno);
	fd = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_REMAP_VMALLOC, NR, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(NULL, kbuf_map(fd, NR, MAP_SHARED));
	EXPECT_EQ(ENODEV, errno);
	/* A mapping that came to nothing refers to nothing. */
	ASSERT_EQ(0, kbuf_stat(fd, &stat));
	EXPECT_EQ(1UL, stat.refs);
}

/* Neighbours that are one area to the kernel are one mapping to the driver. */
TEST(merged)
{
	int fd = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, NR, O_RDWR);
	const int rw = PROT_READ | PROT_WRITE;
	struct splice_kbuf_stat stat;
	char *mem = map_mem(PMD);

	ASSERT_LE(0, fd);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(mem, mmap(mem, 4 * PAGE, rw, MAP_SHARED | MAP_FIXED, fd, 0));
	mem += 4 * PAGE;
	ASSERT_EQ(mem, mmap(mem, 4 * PAGE, rw, MAP_SHARED | MAP_FIXED, fd,
			    4 * PAGE));
	mem -= 4 * PAGE;
	pattern_fill(mem, LEN, 0, SEED);
	EXPECT_EQ(-1, kbuf_check(fd, LEN, 0, SEED));
	ASSERT_EQ(0, kbuf_stat(fd, &stat));
	EXPECT_EQ(stat.refs, 1 + stat.mapped + stat.opened - stat.closed);
	EXPECT_EQ(NR, smaps_pages(mem, "Size"));
	EXPECT_EQ(2UL, stat.refs);
	/* Cut in two, each has its own. */
	ASSERT_EQ(0, munmap(mem + 3 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, kbuf_stat(fd, &stat));
	EXPECT_EQ(3UL, stat.refs);
	ASSERT_EQ(0, munmap(mem, LEN));
	ASSERT_EQ(0, kbuf_stat(fd, &stat));
	EXPECT_EQ(1UL, stat.refs);
}

TEST(read_write_ends)
{
	int fd = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, NR, O_RDWR);
	char mem[2 * PAGE], *nowhere = map_mem(PAGE) - PAGE;

	ASSERT_LE(0, fd);
	pattern_fill(mem, sizeof(mem), 0, SEED);
	EXPECT_EQ(100, pwrite(fd, mem, sizeof(mem), LEN - 100));
	EXPECT_EQ(0, pread_pattern(fd, LEN - 100, 100, 0, SEED));
	EXPECT_EQ(100, pread(fd, mem, sizeof(mem), LEN - 100));
	EXPECT_EQ(0, pread(fd, mem, sizeof(mem), LEN));
	EXPECT_EQ(0, pread(fd, mem, 1, LLONG_MAX - 1));
	EXPECT_EQ(-1, pwrite(fd, mem, 1, LEN));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(0, pwrite(fd, mem, 0, LEN));
	EXPECT_EQ(-1, pwrite(fd, nowhere, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, pread(fd, nowhere, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(LEN, lseek(fd, 0, SEEK_END));
	EXPECT_EQ(-1, lseek(fd, LEN + 1, SEEK_SET));
	EXPECT_EQ(EINVAL, errno);
}

static int ioctl_errno(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? errno : 0;
}

TEST(ioctl_errors)
{
	struct splice_kbuf_alloc alloc = { .mode = SPLICE_KBUF_PAGES };
	struct splice_kbuf_word word = { .offset = 0 };
	struct splice_kbuf_page page = { .index = 0 };
	struct splice_kbuf_at at = { .address = 0 };
	int fd = open(KBUF_DEVICE, O_RDWR);
	pid_t pid;

	ASSERT_LE(0, fd);
	EXPECT_EQ(ENXIO, ioctl_errno(fd, SPLICE_KBUF_PEEK, &word));
	EXPECT_EQ(NULL, kbuf_map(fd, NR, MAP_SHARED));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, read(fd, &word, 1));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	alloc.pages = SPLICE_KBUF_MAX_PAGES + 1;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	alloc.mode = SPLICE_KBUF_NR_MODES;
	alloc.pages = NR;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	alloc.mode = SPLICE_KBUF_FOLIO;
	alloc.pages = 3;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	EXPECT_EQ(EFAULT, ioctl_errno(fd, SPLICE_KBUF_ALLOC, NULL));
	alloc.pages = NR;
	EXPECT_EQ(0, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	EXPECT_EQ(EBUSY, ioctl_errno(fd, SPLICE_KBUF_ALLOC, &alloc));
	EXPECT_EQ(ENOTTY, ioctl_errno(fd, _IO(0xD5, 99), NULL));
	page.index = NR;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_PAGE, &page));
	word.offset = 4;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_PEEK, &word));
	word.offset = LEN;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_POKE, &word));
	word.offset = -8;
	EXPECT_EQ(EINVAL, ioctl_errno(fd, SPLICE_KBUF_PEEK, &word));
	pid = fork_nobody();
	if (!pid)
		_exit(ioctl_errno(fd, SPLICE_KBUF_PAGE, &page));
	EXPECT_EQ(EPERM, reap(pid));
	pid = fork_nobody();
	if (!pid)
		_exit(ioctl_errno(fd, SPLICE_KBUF_AT, &at));
	EXPECT_EQ(EPERM, reap(pid));
	/* Nothing is mapped there, or it can be told otherwise. */
	EXPECT_EQ(EFAULT, ioctl_errno(fd, SPLICE_KBUF_AT, &at));
	at.address = (uintptr_t)&at;
	EXPECT_EQ(EFAULT, ioctl_errno(fd, SPLICE_KBUF_AT, &at));
}

/* The largest there is, of each kind. */
TEST(largest)
{
	uint64_t frames[SPLICE_KBUF_MAX_PAGES];
	enum splice_kbuf_mode mode;
	const long nr = SPLICE_KBUF_MAX_PAGES;
	char *mem;
	int fd;

	for (mode = 0; mode < SPLICE_KBUF_REMAP_VMALLOC; mode++) {
		fd = kbuf_open(KBUF_DEVICE, mode, nr, O_RDWR);
		ASSERT_LE(0, fd);
		mem = kbuf_map(fd, nr, MAP_SHARED);
		ASSERT_NE(NULL, mem);
		pattern_fill(mem, nr * PAGE, 0, SEED);
		ASSERT_EQ(0, kbuf_frames(fd, nr, frames));
		EXPECT_EQ(nr, kbuf_same_frames(fd, mem, nr, frames));
		EXPECT_EQ(0, pread_pattern(fd, 0, nr * PAGE, 0, SEED));
		ASSERT_EQ(0, munmap(mem, nr * PAGE));
		close(fd);
	}
}

KBUF_HARNESS_MAIN
