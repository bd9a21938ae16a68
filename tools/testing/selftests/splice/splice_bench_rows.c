// SPDX-License-Identifier: GPL-2.0-only
/*
 * The rows of splice_bench.  Their names are what bench/allowed, plots and
 * readers know them by: a row that comes to load something else gets another.
 */

#include "splice_bench.h"

/* Small messages are repeated until this much went through. */
#define LEAST_BYTES (4 * MIB)
#define DEFAULT_REPS 5
#define PIPE_SIZE MIB
/* Fewer repetitions of what takes long. */
#define LONG_BYTES (128 * MIB)
#define LONG_REPS 3

enum {
	ANON = 1 << PAGES_4K | 1 << PAGES_64K | 1 << PAGES_2M,
	SMALL = 1 << PAGES_4K,
	SMALL_OR_2M = 1 << PAGES_4K | 1 << PAGES_2M,
};

const struct row rows[] = {
	{
		.name = "memcpy",
		.way = &way_memcpy,
		.backings = ANON,
		.load = "user-space copy, both sides mapped: what any copy costs at least",
	},
	{
		.name = "page_fault",
		.way = &way_fault,
		.backings = ANON,
		.load = "first touch: fault, allocation, zeroing",
	},
	{
		.name = "madvise_dontneed",
		.way = &way_dontneed,
		.backings = ANON,
		.load = "zap and free of present pages: what a giver would pay anyway",
		.reps = 9,
	},
	{
		.name = "mremap",
		.way = &way_mremap,
		.backings = ANON,
		.load = "page tables moved in one process",
		.reps = 15,
	},
	{
		.name = "uffdio_move",
		.way = &way_uffdio_move,
		.backings = ANON,
		.load = "pages moved in one process, page by page",
		.reps = 9,
	},
	{
		.name = "process_vm_readv",
		.way = &way_process_vm_readv,
		.backings = ANON,
		.load = "one copy between processes, pages found one by one, no pipe",
	},
	{
		.name = "write_read",
		.way = &way_write_read,
		.backings = ANON,
		.load = "pipe of 1 MiB, 1 MiB calls: two copies, fresh destination",
	},
	{
		.name = "write_read_pipe64k",
		.way = &way_write_read,
		.backings = SMALL,
		.load = "the same with the default pipe and 64 KiB calls",
		.pipe_size = 64 * KIB,
	},
	{
		.name = "write_read_warm",
		.way = &way_write_read,
		.backings = ANON,
		.load = "write_read into memory that is mapped already",
		.warm = true,
	},
	{
		.name = "vmsplice_read",
		.way = &way_vmsplice_read,
		.backings = ANON,
		.load = "pages shared into a pipe, one copy out, fresh destination",
	},
	{
		.name = "vmsplice_vmsplice",
		.way = &way_vmsplice_vmsplice,
		.backings = ANON,
		.load = "the same, taken out by vmsplice, which copies",
	},
	{
		.name = "vmsplice_vmsplice_pipe64k",
		.way = &way_vmsplice_vmsplice,
		.backings = SMALL,
		.load = "vmsplice_vmsplice through the default pipe",
		.pipe_size = 64 * KIB,
	},
	{
		.name = "vmsplice_vmsplice_warm",
		.way = &way_vmsplice_vmsplice,
		.backings = ANON,
		.load = "vmsplice_vmsplice into memory that is mapped already",
		.warm = true,
	},
	{
		.name = "give_take",
		.way = &way_give_take,
		.backings = ANON,
		.load = "pages moved from process to process, fresh destination",
	},
	{
		.name = "give_take_pipe64k",
		.way = &way_give_take,
		.backings = ANON,
		.load = "give_take through the default pipe",
		.pipe_size = 64 * KIB,
	},
	{
		.name = "give_take",
		.way = &way_give_take,
		.backings = SMALL,
		.load = "memory never touched: empty page middle directories",
		.reps = 15,
		.fill = FILL_NOTHING,
	},
	{
		.name = "give_take",
		.way = &way_give_take,
		.backings = SMALL,
		.load = "one page of each 2 MiB touched: holes found one by one",
		.fill = FILL_FIRST,
	},
	{
		.name = "give_take",
		.way = &way_give_take,
		.backings = 1 << PAGES_MIXED,
		.load = "by turns 2 MiB of THP, small pages, nothing, every other page",
		.fill = FILL_MIXED,
	},
	{
		.name = "give_take_refault",
		.way = &way_give_take,
		.backings = ANON,
		.load = "give_take, the giver touching what it gave at once: streaming",
		.refault = true,
	},
	{
		.name = "give_take_warm",
		.way = &way_give_take,
		.backings = ANON,
		.load = "give_take replacing mapped memory, which is freed",
		.warm = true,
	},
	{
		.name = "give_take_memcg",
		.way = &way_give_take,
		.backings = ANON,
		.load = "give_take with the processes in different memory cgroups",
		.memcg = true,
	},
	{
		.name = "vmsplice_vmsplice_memcg",
		.way = &way_vmsplice_vmsplice,
		.backings = ANON,
		.load = "vmsplice_vmsplice with the processes in different memory cgroups",
		.memcg = true,
	},
	{
		.name = "read_file",
		.way = &way_read_file,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "page cache to warm memory, 1 MiB calls",
	},
	{
		.name = "splice_null",
		.way = &way_splice_null,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "page cache to pipe to /dev/null: references, no copy",
	},
	{
		.name = "splice_null_pipe64k",
		.way = &way_splice_null,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same through the default pipe",
		.pipe_size = 64 * KIB,
	},
	{
		.name = "tee",
		.way = &way_tee,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "splice_null, tee'd into a second pipe and emptied too",
	},
	{
		.name = "splice_file",
		.way = &way_splice_file,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "page cache to pipe to another file, overwriting it: one copy",
	},
	{
		.name = "sendfile_file",
		.way = &way_sendfile_file,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same by sendfile and its own pipe of 64 KiB",
	},
	{
		.name = "copy_file_range",
		.way = &way_copy_file_range,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same by copy_file_range, at offset 512 so that no reflink fits",
	},
	{
		.name = "read_write_file",
		.way = &way_read_write,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same by read and write of 64 KiB: two copies",
		.pipe_size = 64 * KIB,
	},
	{
		.name = "splice_tcp",
		.way = &way_splice_tcp,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "page cache to pipe to TCP over loopback, discarded by the receiver",
		.reps = 9,
	},
	{
		.name = "sendfile_tcp",
		.way = &way_sendfile_tcp,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same by sendfile",
		.reps = 9,
	},
	{
		.name = "read_send_tcp",
		.way = &way_read_send,
		.backings = SMALL_OR_2M,
		.vary = VARY_FS,
		.load = "the same by read and send of 64 KiB: copies",
		.pipe_size = 64 * KIB,
		.reps = 9,
	},
	{
		.name = "pingpong_1",
		.way = &way_pingpong,
		.backings = 1 << PAGES_NONE,
		.load = "a ROUND TRIP, not 4 KiB: pipe wake-ups, two context switches",
		.message = 1,
		.bytes = 2048,
		.echo = true,
	},
	{
		.name = "pingpong_4k",
		.way = &way_pingpong,
		.backings = 1 << PAGES_NONE,
		.load = "a ROUND TRIP of 4 KiB each way",
		.message = 4 * KIB,
		.bytes = 4 * MIB,
		.echo = true,
	},
	{
		.name = "pingpong_64k",
		.way = &way_pingpong,
		.backings = 1 << PAGES_NONE,
		.load = "a ROUND TRIP of 64 KiB each way, a full pipe",
		.message = 64 * KIB,
		.bytes = 16 * MIB,
		.pipe_size = 64 * KIB,
		.echo = true,
	},
	{
		.name = "size_write_read",
		.way = &way_write_read,
		.backings = SMALL_OR_2M,
		.vary = VARY_SIZE,
		.load = "write_read of one buffer, acknowledged by a byte",
	},
	{
		.name = "size_vmsplice_vmsplice",
		.way = &way_vmsplice_vmsplice,
		.backings = SMALL_OR_2M,
		.vary = VARY_SIZE,
		.load = "vmsplice_vmsplice of one buffer, acknowledged by a byte",
	},
	{
		.name = "size_give_take",
		.way = &way_give_take,
		.backings = SMALL_OR_2M,
		.vary = VARY_SIZE,
		.load = "give_take of one buffer, acknowledged by a byte",
	},
	{
		.name = "threads_write_read",
		.way = &way_write_read,
		.backings = SMALL,
		.vary = VARY_THREADS,
		.load = "write_read by threads of one process, a pipe and a peer each",
	},
	{
		.name = "threads_vmsplice_vmsplice",
		.way = &way_vmsplice_vmsplice,
		.backings = SMALL,
		.vary = VARY_THREADS,
		.load = "vmsplice_vmsplice by threads of one process, a pipe and a peer each",
	},
	{
		.name = "threads_give_take",
		.way = &way_give_take,
		.backings = SMALL_OR_2M,
		.vary = VARY_THREADS,
		.load = "give_take by threads of one process, a pipe and a peer each",
	},
};

const size_t nr_rows = ARRAY_SIZE(rows);

/*
 * What a row varies in is the end of its name.  tmpfs is a memfd: the size of
 * its folios can be set without a mount of its own.
 */
static const struct {
	const char *suffix;
	enum backing fs;
	unsigned int backings;
} vary_fs[] = {
	{ "tmpfs", BACKING_MEMFD, SMALL_OR_2M },
	{ "ext4", BACKING_EXT4, 1 << PAGES_FS },
	{ "xfs", BACKING_XFS, 1 << PAGES_FS },
};

static const struct {
	const char *suffix;
	size_t bytes;
} vary_size[] = {
	{ "4k", 4 * KIB },	   { "32k", 32 * KIB }, { "256k", 256 * KIB },
	{ "2m", 2 * MIB },	   { "16m", 16 * MIB }, { "128m", 128 * MIB },
	{ "512m", LARGEST_BYTES },
};

static const struct {
	const char *suffix;
	unsigned int lanes;
} vary_threads[] = { { "1", 1 }, { "2", 2 }, { "4", MAX_LANES } };

unsigned int nr_variants(const struct row *row)
{
	switch (row->vary) {
	case VARY_FS:
		return ARRAY_SIZE(vary_fs);
	case VARY_SIZE:
		return ARRAY_SIZE(vary_size);
	case VARY_THREADS:
		return ARRAY_SIZE(vary_threads);
	case VARY_NOTHING:
		break;
	}
	return 1;
}

struct job job_of_row(const struct row *row)
{
	struct job job = {
		.way = row->way,
		.fill = row->fill,
		.bytes = row->bytes ? row->bytes : default_bytes,
		.pipe_size = row->pipe_size ? row->pipe_size : PIPE_SIZE,
		.message = row->message,
		.nr_lanes = 1,
		.reps = row->reps ? row->reps : DEFAULT_REPS,
		.warm = row->warm,
		.refault = row->refault,
		.memcg = row->memcg,
		.echo = row->echo,
	};

	return job;
}

const char *vary_job(const struct row *row, unsigned int v, struct job *job,
		     unsigned int *backings)
{
	size_t size;

	*backings = row->backings;
	switch (row->vary) {
	case VARY_FS:
		job->fs = vary_fs[v].fs;
		*backings = vary_fs[v].backings;
		return vary_fs[v].suffix;
	case VARY_SIZE:
		size = vary_size[v].bytes;
		job->message = size;
		job->bytes = size < LEAST_BYTES ? LEAST_BYTES : size;
		if (size < PMD)
			*backings &= SMALL;
		if (size >= LONG_BYTES)
			job->reps = LONG_REPS;
		return vary_size[v].suffix;
	case VARY_THREADS:
		job->nr_lanes = vary_threads[v].lanes;
		return vary_threads[v].suffix;
	case VARY_NOTHING:
		break;
	}
	return NULL;
}
