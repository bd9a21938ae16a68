/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the files of splice_bench: splice_bench_rows.c has the rows,
 * splice_bench.c runs them, splice_bench_ways.c moves the data, splice_bench_env.c knows memory,
 * files and the knobs of the kernel.
 */
#ifndef SPLICE_BENCH_H
#define SPLICE_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "page_flip_util.h"

#define MAX_LANES 4
#define LARGEST_BYTES (512 * MIB)
#define MAX_REPS 15
/* The master from here on is nowhere what it is from its start. */
#define SPOIL 8

/* What memory or page cache is made of. */
enum pages {
	PAGES_4K,
	PAGES_64K,
	PAGES_2M,
	PAGES_MIXED,
	PAGES_FS, /* as the file system likes */
	PAGES_NONE,
	NR_PAGES,
};

/* A row with one process has a giver only. */
enum role { GIVER, TAKER, NR_ROLES };

/* Which pages of the source are there; the others are holes. */
enum fill {
	FILL_ALL,
	FILL_NOTHING,
	FILL_FIRST, /* the first page of each PMD, so that a page table is */
	FILL_MIXED, /* by turns a THP, small pages, nothing, every other page */
};

struct job;

/* What one thread of one process works on: its share, with its own pipes. */
struct lane {
	struct job *job;
	unsigned char *src;
	unsigned char *dst;
	size_t bytes;
	int to[2]; /* giver to taker */
	int back[2];
	unsigned long calls;
	unsigned int nr;
	pthread_t thread;
};

/*
 * One system call, or what takes its place, for up to @len bytes at @off of the
 * lane.  Returns the bytes done, 0 or less: failed.  It counts further calls in
 * lane->calls.
 */
typedef ssize_t (*step_fn)(struct lane *lane, size_t off, size_t len);

enum needs {
	NEED_SRC = 1, /* the giver's filled memory */
	NEED_DST =
		2, /* the receiver's memory, where the result is looked for */
	NEED_ECHO = 4, /* both have a destination */
	NEED_WARM = 8, /* the destination is populated before */
	NEED_IN = 16, /* a filled file, warm in the page cache */
	NEED_OUT =
		32, /* a written file, warm: the result is looked for there */
	NEED_TCP = 64,
	/*
	 * Measured runs discard the data; the rehearsal takes it into a
	 * destination, where it is looked for.
	 */
	NEED_CAPTURE = 128,
	NEED_UFFD = 256, /* the destination is registered with userfaultfd */
	NEED_FRAMES = 512, /* the page frames must arrive too */
};

struct way {
	unsigned int needs;
	step_fn step[NR_ROLES];
	bool whole; /* a step gets all that is left, not a pipeful */
	size_t skew; /* offset in both files */
	const char *missing; /* said when a kernel lacks it */
	bool (*available)(void);
};

/* One row with one backing, seen by one of its processes. */
struct job {
	const struct way *way;
	enum pages pages;
	enum fill fill;
	enum backing fs;
	enum role role;
	size_t bytes;
	size_t pipe_size;
	size_t message; /* acknowledged one by one; 0: a stream */
	unsigned int nr_lanes;
	unsigned int reps;
	bool warm;
	bool refault;
	bool memcg;
	bool rehearsal;
	bool echo; /* @message goes and comes back: no acknowledgment */
	unsigned char *src;
	unsigned char *dst;
	int in, out, null, sock[2], uffd, statm;
	pthread_barrier_t gate;
	struct lane lane[MAX_LANES];
};

/* Between the processes of a row, and for the parent to print. */
struct shared {
	pthread_barrier_t barrier;
	pid_t giver;
	unsigned char *src[MAX_LANES];
	uint64_t cpu[NR_ROLES][MAX_REPS];
	uint64_t start[NR_ROLES][MAX_REPS];
	uint64_t end[NR_ROLES][MAX_REPS];
	unsigned long calls[NR_ROLES];
	long rss[NR_ROLES]; /* anonymous pages beyond those at the start */
	long rss_start[NR_ROLES];
	long rss_peak; /* of both together */
	bool wrong;
	size_t copied; /* pages, in the worst repetition */
	uint64_t frames[];
};

enum vary { VARY_NOTHING, VARY_FS, VARY_SIZE, VARY_THREADS };

struct row {
	const char *name;
	const struct way *way;
	unsigned int backings;
	enum vary vary;
	const char *load; /* what the row loads */
	size_t pipe_size;
	size_t message;
	size_t bytes;
	unsigned int reps;
	enum fill fill;
	bool warm;
	bool refault;
	bool memcg;
	bool echo;
};

extern const struct row rows[];
extern const size_t nr_rows;
extern size_t default_bytes;

unsigned int nr_variants(const struct row *row);
struct job job_of_row(const struct row *row);
/* Make variant @v of @row; returns the end of its name. */
const char *vary_job(const struct row *row, unsigned int v, struct job *job,
		     unsigned int *backings);

extern struct shared *shared;
/* What every source holds: stream 1. */
extern unsigned char *master;

void must(bool ok, const char *what);
/* 2 MiB aligned, with the advice that @pages needs. */
unsigned char *map_pages(size_t len, enum pages pages);
void fill_source(const struct job *job);
bool memory_right(const struct job *job);
void note_frames(const struct job *job);
size_t frames_copied(const struct job *job);
int file_filled(const struct job *job);
/* Write what the result must not be; leave the offset where a way begins. */
void spoil_file(const struct job *job);
bool file_right(const struct job *job);
void sample_rss(struct job *job);
int userfault_fd(void);
void userfault_register(int fd, void *mem, size_t len);

/* Set the kernel's knobs for @pages; restore_knobs() may be called any time. */
bool set_knobs(enum pages pages);
void restore_knobs(void);
/* Folios of that size that the kernel could not have. */
long folio_fallbacks(const struct job *job);
bool cgroups_available(void);
void cgroup_join(enum role role);
void cgroups_remove(void);

extern const struct way way_memcpy, way_fault, way_dontneed, way_mremap,
	way_uffdio_move, way_process_vm_readv, way_write_read,
	way_vmsplice_read, way_vmsplice_vmsplice, way_give_take, way_pingpong,
	way_read_file, way_splice_null, way_tee, way_splice_file,
	way_splice_tcp, way_sendfile_tcp, way_sendfile_file, way_read_write,
	way_read_send, way_copy_file_range;

#endif /* SPLICE_BENCH_H */
