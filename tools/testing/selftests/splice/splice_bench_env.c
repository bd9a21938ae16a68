// SPDX-License-Identifier: GPL-2.0-only
/* What splice_bench needs around the ways: memory, files, knobs, cgroups. */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "splice_bench.h"

#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE 0x10000
#endif

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define VM "/proc/sys/vm/"
#define CGROUP "/sys/fs/cgroup/"

unsigned char *master;

void must(bool ok, const char *what)
{
	if (!ok)
		err(1, "%s", what);
}

unsigned char *map_pages(size_t len, enum pages pages)
{
	unsigned char *mem = (unsigned char *)map_mem(len);

	must(mem, "mmap");
	if (pages == PAGES_64K || pages == PAGES_2M)
		must(!madvise(mem, len, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	return mem;
}

static bool is_filled(enum fill fill, size_t off)
{
	unsigned int turn = off / PMD % 4;

	if (fill == FILL_NOTHING)
		return false;
	if (fill == FILL_FIRST)
		return off % PMD == 0;
	if (fill == FILL_MIXED && turn >= 2)
		return turn == 3 && off / PAGE % 2 == 0;
	return true;
}

void fill_source(const struct job *job)
{
	size_t off;

	for (off = 0; job->fill == FILL_MIXED && off < job->bytes;
	     off += 4 * PMD)
		must(!madvise(job->src + off, PMD, MADV_HUGEPAGE),
		     "MADV_HUGEPAGE");
	if (job->fill == FILL_ALL) {
		memcpy(job->src, master, job->bytes);
		return;
	}
	for (off = 0; off < job->bytes; off += PAGE)
		if (is_filled(job->fill, off))
			memcpy(job->src + off, master + off, PAGE);
}

bool memory_right(const struct job *job)
{
	size_t off;

	if (job->fill == FILL_ALL)
		return !memcmp(job->dst, master, job->bytes);
	for (off = 0; off < job->bytes; off += PAGE)
		if (is_filled(job->fill, off) ?
			    !!memcmp(job->dst + off, master + off, PAGE) :
			    zero_check(job->dst + off, PAGE) >= 0)
			return false;
	return true;
}

void note_frames(const struct job *job)
{
	must(!read_frames(job->src, job->bytes / PAGE, shared->frames),
	     "pagemap");
}

/* Without privilege all frames read as 0, and this knows nothing. */
size_t frames_copied(const struct job *job)
{
	size_t i, nr = job->bytes / PAGE, copied = 0;
	uint64_t *now = malloc(nr * sizeof(*now));

	must(now, "malloc");
	must(!read_frames(job->dst, job->bytes / PAGE, now), "pagemap");
	for (i = 0; i < nr; i++)
		copied += shared->frames[i] && shared->frames[i] != now[i];
	free(now);
	return copied;
}

static void fill_file(const struct job *job, int fd, size_t shift)
{
	size_t len = job->bytes + job->way->skew;

	must(lseek(fd, 0, SEEK_SET) == 0 && !write_all(fd, master + shift, len),
	     backing_name(job->fs));
}

int file_filled(const struct job *job)
{
	int fd = backing_file(job->fs);

	must(fd >= 0, backing_name(job->fs));
	fill_file(job, fd, 0);
	must(!fsync(fd), backing_name(job->fs));
	return fd;
}

void spoil_file(const struct job *job)
{
	fill_file(job, job->out, SPOIL);
	lseek(job->out, job->way->skew, SEEK_SET);
}

bool file_right(const struct job *job)
{
	static unsigned char buf[64 * KIB];
	size_t off, end = job->way->skew + job->bytes;
	ssize_t n;

	for (off = job->way->skew; off < end; off += n) {
		n = end - off < sizeof(buf) ? end - off : sizeof(buf);
		if (pread(job->out, buf, n, off) != n ||
		    memcmp(buf, master + off, n))
			return false;
	}
	return true;
}

static long anonymous_pages(int statm)
{
	unsigned long resident, file_and_shmem;
	char buf[128] = "";

	must(pread(statm, buf, sizeof(buf) - 1, 0) > 0, "statm");
	if (sscanf(buf, "%*u %lu %lu", &resident, &file_and_shmem) != 2)
		errx(1, "statm: %s", buf);
	return resident - file_and_shmem;
}

void sample_rss(struct job *job)
{
	long sum;

	shared->rss[job->role] =
		anonymous_pages(job->statm) - shared->rss_start[job->role];
	sum = shared->rss[GIVER] + shared->rss[TAKER];
	if (sum > shared->rss_peak)
		shared->rss_peak = sum;
}

int userfault_fd(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_MOVE };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

void userfault_register(int fd, void *mem, size_t len)
{
	struct uffdio_register reg = { .range = { (uintptr_t)mem, len },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	must(!ioctl(fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
}

/*
 * Whatever the machine's settings: folios of one size and no other, and no
 * writeback of its own accord.  NULL: leave it.
 */
static struct knob {
	const char *path;
	const char *value[NR_PAGES];
	char saved[32];
} knobs[] = {
	{ THP "enabled", { "madvise", "madvise", "madvise", "madvise" }, "" },
	{ THP "hugepages-64kB/enabled",
	  { "never", "madvise", "never", "never" },
	  "" },
	{ THP "hugepages-2048kB/enabled",
	  { NULL, "never", "inherit", "inherit" },
	  "" },
	{ THP "shmem_enabled", { "never", NULL, "always" }, "" },
	{ VM "dirty_background_ratio", { [PAGES_FS] = "80" }, "" },
	{ VM "dirty_ratio", { [PAGES_FS] = "90" }, "" },
	{ VM "dirty_writeback_centisecs", { [PAGES_FS] = "0" }, "" },
};

#define NR_KNOBS (sizeof(knobs) / sizeof(*knobs))

bool set_knobs(enum pages pages)
{
	struct knob *k;

	for (k = knobs; k < knobs + NR_KNOBS; k++) {
		const char *want = k->value[pages];
		char now[sizeof(k->saved)];

		if (!want)
			continue;
		if (setting_get(k->path, now, sizeof(now)))
			return false;
		if (!strcmp(now, want))
			continue;
		if (!*k->saved)
			memcpy(k->saved, now, sizeof(now));
		if (sysctl_write(k->path, want))
			return false;
	}
	return true;
}

void restore_knobs(void)
{
	struct knob *k;

	for (k = knobs; k < knobs + NR_KNOBS; k++) {
		if (*k->saved)
			sysctl_write(k->path, k->saved);
		*k->saved = 0;
	}
}

long folio_fallbacks(const struct job *job)
{
	const char *what = job->way->needs & NEED_IN ? "shmem" : "anon_fault";
	int kib = job->pages == PAGES_64K ? 64 : 2048;
	char path[128], value[32];

	if (job->pages == PAGES_4K || job->pages == PAGES_FS)
		return 0;
	snprintf(path, sizeof(path), THP "hugepages-%dkB/stats/%s_fallback",
		 kib, what);
	return setting_get(path, value, sizeof(value)) ? 0 : atol(value);
}

static const char *const groups[] = {
	[GIVER] = CGROUP "splice_bench.giver",
	[TAKER] = CGROUP "splice_bench.taker",
};

void cgroups_remove(void)
{
	rmdir(groups[GIVER]);
	rmdir(groups[TAKER]);
}

bool cgroups_available(void)
{
	struct stat st;

	sysctl_write(CGROUP "cgroup.subtree_control", "+memory");
	if ((mkdir(groups[GIVER], 0755) && errno != EEXIST) ||
	    (mkdir(groups[TAKER], 0755) && errno != EEXIST))
		return false;
	return !stat(CGROUP "splice_bench.giver/memory.current", &st);
}

void cgroup_join(enum role role)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", groups[role]);
	must(!sysctl_write(path, "0"), path);
}
