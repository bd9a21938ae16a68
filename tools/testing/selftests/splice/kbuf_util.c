// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the tests of kernel buffers; kbuf_util.h has their contracts. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kbuf_util.h"

#define MODULE "splice_kbuf"
#define MODULE_FILE "test_modules/" MODULE ".ko"

/* Who loads the module for the whole program; its children do not unload it. */
static pid_t loader;

/* The module file lies beside this program. */
static int open_module(void)
{
	char path[4096];
	ssize_t len;
	char *name;

	len = readlink("/proc/self/exe", path, sizeof(path));
	if (len < 0 || len == sizeof(path))
		return -1;
	path[len] = '\0';
	name = strrchr(path, '/') + 1;
	if (name + sizeof(MODULE_FILE) > path + sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(name, MODULE_FILE);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int kbuf_load(void)
{
	int fd = open_module(), err;

	if (fd < 0)
		return -1;
	err = syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return err;
}

int kbuf_unload(void)
{
	return syscall(SYS_delete_module, MODULE, O_NONBLOCK);
}

static __attribute__((destructor)) void unload_at_end(void)
{
	if (loader != getpid() || !kbuf_unload())
		return;
	printf("# " MODULE " cannot be unloaded: %s\n", strerror(errno));
	fflush(stdout);
	_exit(1);
}

/*
 * What an earlier run that was killed has left may be an older one.  Else what
 * the harness says of a program that skips: KSFT_SKIP is 4.
 */
void kbuf_require(void)
{
	if (!kbuf_load() ||
	    (errno == EEXIST && !kbuf_unload() && !kbuf_load())) {
		loader = getpid();
		return;
	}
	if (errno == ENOENT)
		printf("1..0 # SKIP no " MODULE_FILE "\n");
	else
		printf("1..0 # SKIP no module " MODULE ": %s\n",
		       strerror(errno));
	exit(4);
}

int kbuf_open(const char *device, enum splice_kbuf_mode mode, size_t pages,
	      int flags)
{
	struct splice_kbuf_alloc alloc = { .mode = mode, .pages = pages };
	int fd = open(device, flags), err;

	if (fd < 0 || !ioctl(fd, SPLICE_KBUF_ALLOC, &alloc))
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

char *kbuf_map(int fd, size_t pages, int flags)
{
	char *mem =
		mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

int kbuf_page(int fd, size_t index, struct splice_kbuf_page *page)
{
	page->index = index;
	return ioctl(fd, SPLICE_KBUF_PAGE, page);
}

int kbuf_frames(int fd, size_t nr, uint64_t *frames)
{
	struct splice_kbuf_page page;
	size_t i;

	for (i = 0; i < nr; i++) {
		if (kbuf_page(fd, i, &page))
			return -1;
		frames[i] = page.frame;
	}
	return 0;
}

/* The frame at @mem, 0: none. */
static uint64_t frame_at(int fd, const void *mem)
{
	struct splice_kbuf_at at = { .address = (uintptr_t)mem };
	uint64_t frame;

	if (!read_frames(mem, 1, &frame) && frame)
		return frame;
	return ioctl(fd, SPLICE_KBUF_AT, &at) ? 0 : at.frame;
}

long kbuf_same_frames(int fd, const void *mem, size_t nr,
		      const uint64_t *frames)
{
	const char *page = mem;
	long same = 0;
	size_t i;

	for (i = 0; i < nr; i++)
		same += frame_at(fd, page + i * PAGE) == frames[i];
	return same;
}

long kbuf_refs(int fd, size_t index)
{
	struct splice_kbuf_page page;

	return kbuf_page(fd, index, &page) ? -1 : (long)page.refs;
}

int kbuf_peek(int fd, size_t off, uint64_t *value)
{
	struct splice_kbuf_word word = { .offset = off };

	if (ioctl(fd, SPLICE_KBUF_PEEK, &word))
		return -1;
	*value = word.value;
	return 0;
}

int kbuf_poke(int fd, size_t off, uint64_t value)
{
	struct splice_kbuf_word word = { .offset = off, .value = value };

	return ioctl(fd, SPLICE_KBUF_POKE, &word);
}

int kbuf_stat(int fd, struct splice_kbuf_stat *stat)
{
	return ioctl(fd, SPLICE_KBUF_STAT, stat);
}

ssize_t kbuf_check(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	uint64_t value;
	size_t off;

	for (off = 0; off < len; off += sizeof(value))
		if (kbuf_peek(fd, off, &value) ||
		    pattern_check(&value, sizeof(value), pos + off, seed) != -1)
			return off;
	return -1;
}
