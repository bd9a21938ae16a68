/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the tests of the page flip: give and take, memory of every kind,
 * what the kernel counts, and where pages are.
 *
 * Like splice_util.h: helpers return -1 with errno set and print nothing.
 */
#ifndef PAGE_FLIP_UTIL_H
#define PAGE_FLIP_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "splice_util.h"

#ifndef SPLICE_F_NOCOPY
#define SPLICE_F_NOCOPY 0x10
#endif

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#endif

/* A base page; what one page table maps, on the machines tested. */
#define PAGE 4096L
#define PMD (512 * PAGE)

/* The kernel knows SPLICE_F_NOCOPY, which it has with the flip alone. */
bool flip_available(void);

/* Without the flip end as a test program that is one skip. */
void flip_require(void);

/* In place of TEST_HARNESS_MAIN, with the above before everything. */
#define FLIP_HARNESS_MAIN                                            \
	static __attribute__((constructor)) void flip_required(void) \
	{                                                            \
		flip_require();                                      \
	}                                                            \
	TEST_HARNESS_MAIN

/*
 * Stay on one processor.  Elsewhere new pages may wait in a batch of another
 * processor for their LRU list, whose reference makes a give copy them.
 */
int stay_on_cpu(void);
/* Of a thread of who stays: be elsewhere.  -1: there is one processor. */
int leave_cpu(void);

/* Root becomes @uid for good, but may still look at itself in /proc. */
int become(uid_t uid);

long elapsed_ms(const struct timespec *since);

/* One call each.  @more: SPLICE_F_NOCOPY, SPLICE_F_NONBLOCK, ... or 0. */
ssize_t give(int wfd, const void *mem, size_t len, unsigned int more);
ssize_t give_iov(int wfd, const struct iovec *iov, size_t n, unsigned int more);
ssize_t take(int rfd, void *mem, size_t len, unsigned int more);
ssize_t take_iov(int rfd, const struct iovec *iov, size_t n, unsigned int more);
/* Calls until all of @len is done, an error, or the end: the bytes, or -1. */
ssize_t give_all(int wfd, const void *mem, size_t len, unsigned int more);
ssize_t take_all(int rfd, void *mem, size_t len, unsigned int more);
/* Vmsplice without a flip: the memory is shared, or copied out of the pipe. */
ssize_t share(int wfd, const void *mem, size_t len);

/* A pipe of that many slots; more than the limit allows takes privilege. */
int pipe_of(int fds[2], size_t slots);

/*
 * Memory.  map_mem() gives @len bytes of private anonymous memory at a multiple
 * of PMD, with nothing mapped below or above for a page at least; NULL: none.
 */
char *map_mem(size_t len);
void unmap_mem(void *mem, size_t len);

/* What memory is made of before it is given. */
enum mem_kind {
	MEM_4K,
	MEM_16K, /* mTHP: folios mapped by page table entries */
	MEM_32K,
	MEM_64K,
	MEM_128K,
	MEM_256K,
	MEM_512K,
	MEM_1M,
	MEM_2M, /* a PMD each */
	MEM_2M_PTES, /* the same, but mapped by page table entries */
	NR_MEM_KINDS,
};

const char *mem_kind_name(enum mem_kind kind);
ssize_t mem_kind_size(enum mem_kind kind);
/*
 * map_mem(), filled with stream @seed from position 0 and made of @kind, which
 * is made sure of where this process may look.  A kind between 4K and 2M needs
 * mem_kind_set() first, by root.  NULL, ENOENT: the kernel had no such folio.
 */
char *map_filled(size_t len, enum mem_kind kind, uint64_t seed);
/* The same in memory that map_mem() made and nothing has touched. */
int mem_fill(void *mem, size_t len, enum mem_kind kind, uint64_t seed);
/*
 * From now on, memory of MADV_HUGEPAGE gets folios of that size and no other,
 * until undo_now().  Needs nothing for 4K and 2M.  ENOENT: no such size.
 */
int mem_kind_set(enum mem_kind kind);
/*
 * Bring @len bytes to swap, as swap_space() adds, and wait for it to be written;
 * -1: a page is still present, or being written.
 */
int swap_out(void *mem, size_t len);

/* Pages of [@mem, @mem + @len) that are present; that are in swap. */
long present_pages(const void *mem, size_t len);
long swapped_pages(const void *mem, size_t len);
/* Bytes of it that are mapped by PMDs. */
long huge_bytes(const void *mem, size_t len);
/* Pages of the folio that begins at @mem, 0: none begins there.  Root only. */
long folio_pages(const void *mem);
/* A frame can be read (by root), so that comparing them means something. */
bool frames_visible(void);
/* How many of @nr page frames are the same at @mem, and are one at all. */
long same_frames(const void *mem, size_t nr, const uint64_t *frames);

/* The number in the line "@name NUMBER", or "@name: NUMBER", or -1. */
long number_in(const char *path, const char *name);

/* Anonymous memory of this process (RssAnon), in pages. */
long rss_pages(void);
/* A line of /proc/vmstat, -1: it has none.  Node counters are exact for root. */
long vmstat_get(const char *name);
/*
 * Pages in flight.  What a process or a socket had is let go of a little after
 * it is gone: waits for @ms at most until there are no more than @most.
 */
long flip_in_flight(long most, long ms);

/* The events that a flip counts, in base pages. */
enum flip_event {
	GIVEN,
	GIVEN_HOLE,
	TAKEN,
	TAKEN_HOLE,
	COPIED,
	COPIED_UNALIGNED, /* the reasons, which add up to COPIED */
	COPIED_SHARED,
	COPIED_FILE,
	COPIED_HUGETLB,
	COPIED_SECRETMEM,
	COPIED_PFN,
	COPIED_MLOCKED,
	COPIED_UFFD,
	COPIED_DROPPABLE,
	COPIED_SPECIAL,
	COPIED_KSM,
	COPIED_FORKED,
	COPIED_PINNED,
	COPIED_REFERENCED,
	COPIED_LAZYFREE,
	COPIED_WRITEBACK,
	COPIED_UNMOVABLE,
	COPIED_PARTIAL,
	COPIED_LOCKED,
	COPIED_FOREIGN,
	COPIED_SHORT,
	COPIED_TEED,
	COPIED_DESTBUSY,
	COPIED_RACE,
	NR_FLIP_EVENTS,
};

/* The name in /proc/vmstat. */
const char *flip_event_name(enum flip_event ev);

struct flip_counts {
	long nr[NR_FLIP_EVENTS];
};

/* Of the whole machine: only for a test that runs alone. */
int flip_counts(struct flip_counts *counts);
/*
 * Compare what happened since @before with @want, in which COPIED may be left 0:
 * it is the sum of the reasons.  "" or, until the next call, the first line
 * that differs.
 */
const char *flip_difference(const struct flip_counts *before,
			    const struct flip_counts *want);
/* The same with pairs of event and number behind a 0, the rest of them 0. */
struct flip_list {
	long nr[17];
};

const char *flip_difference_in(const struct flip_counts *before,
			       const struct flip_list *list);

/* In a test: EXPECT_EVENTS(&before, GIVEN, 3, TAKEN, 3), and nothing else. */
#define EXPECT_EVENTS(before, ...)           \
	EXPECT_STREQ("", flip_difference_in( \
				 before,     \
				 &(struct flip_list){ { 0, ##__VA_ARGS__ } }))

/* A message with up to two descriptors; @flags are those of sendmsg(). */
int send_fds(int sock, const int *fds, size_t nr, int flags);

/* Two processes in step, over a socketpair() each has an end of. */
int step_pair(int sv[2]);
int step_tell(int fd);
/* Returns when the other one has told; -1: it is gone. */
int step_await(int fd);

/*
 * Memory cgroups below the root of cgroup2, until undo_now().  @file is
 * memory.max, memory.current, ...; -1 is said of "max" too.  A name A/B is of
 * one within A.
 */
int memcg_new(const char *name);
/* Now; undo_now() finds that it is gone. */
int memcg_remove(const char *name);
/* The path, until the next call. */
const char *memcg_path(const char *name, const char *file);
int memcg_enter(const char *name);
/* fork_child(), in that group and on one processor; else it exits 255. */
pid_t fork_in(const char *name);
int memcg_write(const char *name, const char *file, const char *value);
long memcg_read(const char *name, const char *file);
/* The number of @key in memory.stat or another file of lines. */
long memcg_stat(const char *name, const char *file, const char *key);

#endif /* PAGE_FLIP_UTIL_H */
