// SPDX-License-Identifier: GPL-2.0-only
/*
 * One page of a kernel buffer seen from four sides: by the kernel, through two
 * mappings, and in a pipe.  Prints its page frame as each of them has it; exits
 * with 1 unless all are the same, and have the same data.
 *
 * The pipe's is what the next driver is handed: the page goes by splice(2) into
 * a pipe and on to a second buffer, which says what frame the data came from.
 */

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kbuf_util.h"

#define SEED 1

enum side { KERNEL, MAPPING_ONE, MAPPING_TWO, PIPE, NR_SIDES };

static const char *const names[] = {
	[KERNEL] = "kernel",
	[MAPPING_ONE] = "mapping one",
	[MAPPING_TWO] = "mapping two",
	[PIPE] = "pipe",
};

static int new_buffer(void)
{
	int fd = kbuf_open(KBUF_DEVICE, SPLICE_KBUF_PAGES, 1, O_RDWR);

	if (fd < 0)
		err(1, "cannot make a buffer");
	return fd;
}

static void by_kernel(int fd, uint64_t *frame)
{
	if (kbuf_frames(fd, 1, frame))
		err(1, "cannot ask for the page frame");
	if (kbuf_check(fd, PAGE, 0, SEED) != -1)
		errx(1, "the kernel has other data");
}

/* The mapping stays, so that another one is at another place. */
static void by_mapping(int fd, uint64_t *frame)
{
	char *mem = kbuf_map(fd, 1, MAP_SHARED);

	if (!mem)
		err(1, "cannot map the buffer");
	if (pattern_check(mem, PAGE, 0, SEED) != -1)
		errx(1, "a mapping has other data");
	if (read_frames(mem, 1, frame))
		err(1, "cannot read /proc/self/pagemap");
}

static void by_pipe(int fd, uint64_t *frame)
{
	struct splice_kbuf_page page;
	int other = new_buffer(), p[2];

	if (pipe(p) || splice(fd, NULL, p[1], NULL, PAGE, 0) != PAGE ||
	    splice(p[0], NULL, other, NULL, PAGE, 0) != PAGE ||
	    kbuf_page(other, 0, &page))
		err(1, "cannot splice from buffer to buffer");
	if (kbuf_check(other, PAGE, 0, SEED) != -1)
		errx(1, "other data came through the pipe");
	*frame = page.from;
	close(other);
}

/* By a process of its own, whose end takes files and mappings away. */
static int compare(void)
{
	uint64_t frames[NR_SIDES];
	int fd = new_buffer(), i;
	bool same = true;

	if (write_pattern(fd, PAGE, 0, SEED) || lseek(fd, 0, SEEK_SET))
		err(1, "cannot write to the buffer");
	by_kernel(fd, &frames[KERNEL]);
	by_mapping(fd, &frames[MAPPING_ONE]);
	by_mapping(fd, &frames[MAPPING_TWO]);
	by_pipe(fd, &frames[PIPE]);
	printf("kernel buffer: ");
	for (i = 0; i < NR_SIDES; i++) {
		printf("%s%s 0x%llx", i ? ", " : "", names[i],
		       (unsigned long long)frames[i]);
		same &= frames[i] && frames[i] == frames[KERNEL];
	}
	puts(same ? ": the same page frame" : ": DIFFERENT page frames");
	return !same;
}

int main(void)
{
	pid_t pid;

	kbuf_require();
	pid = fork_child();
	if (!pid) {
		int status = compare();

		fflush(stdout);
		_exit(status);
	}
	return reap(pid);
}
