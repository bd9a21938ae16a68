/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Give and take against everything else that can happen to the memory, to the
 * pipe and to the machine at the same time.  A race is a process that fills
 * pages and gives them, one that takes and checks them, an operation on their
 * pipe or none, done by a process of its own, and a disturbance of the memory of
 * one of the three, or of the machine.
 *
 * Every word of the data says which page of which generation it is of, and
 * where in it: each page that arrives, wherever it does, must be one page of one
 * generation, as far as the disturbance does not explain anything else; in the
 * order in which they were given and each once, where nobody else gives.  What is
 * taken is overwritten with words of the taker's, which nobody else may see or
 * alter.  Every operation and every disturbance must have done something.
 *
 * FLIP_RACE_SECONDS	length of each race, instead of what the program says
 * FLIP_SEED		repeat what a run with this seed chose
 */
#ifndef PAGE_FLIP_RACE_H
#define PAGE_FLIP_RACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "page_flip_util.h"

/* What is given from, and taken to: two PMDs in each process. */
#define NR_PAGES 1024
#define LEN (NR_PAGES * PAGE)
#define WORDS (PAGE / 8)

/*
 * A word: page 12 bits, place 9, generation 32, check 11.  Generations begin at
 * 1, so that none is zero; those of takers and of forked children are marked.
 */
#define TAKEN_MARK 0x80000000U
#define CHILD_MARK 0x40000000U

uint64_t make_word(unsigned int page, unsigned int place, uint32_t gen);
void fill_page(uint64_t *to, unsigned int page, uint32_t gen);

/* What the words of a page make together. */
enum shape {
	WHOLE, /* one page of one generation */
	BLANK, /* zeroes */
	CUT_OFF, /* the beginning of one page, then zeroes */
	TORN, /* words of the place, or zeroes, whatever page and generation */
	WRONG, /* anything else, or marked */
	NR_SHAPES,
};

/* What an act allows to arrive besides whole pages, and what it does. */
enum act_flag {
	MAY_BLANK = 1 << BLANK,
	MAY_CUT = 1 << CUT_OFF,
	MAY_TEAR = 1 << TORN,
	/* The memory goes, or may not be touched, for a time. */
	MAY_FAULT = 1 << 8,
	/* The memory is replaced: what is stored may be lost with it. */
	MAY_LOSE = 1 << 9,
	/* The group of the process is full. */
	MAY_NOMEM = 1 << 10,
	/* It wants swap. */
	SWAPS = 1 << 11,
	/* The process ends, and another one takes its place. */
	DIES = 1 << 12,
	/* Not done by a thread of the process that it is done to. */
	APART = 1 << 13,
	/* It takes data out of the pipe, or puts some in. */
	READS = 1 << 14,
	WRITES = 1 << 15,
};

/* Every act that there is: disturbances, then operations on the pipe. */
enum act_nr {
	NOTHING,
	UNMAP,
	MAP_OVER,
	MREMAP,
	DONTNEED,
	LAZYFREE,
	PAGEOUT,
	COLLAPSE,
	KHUGEPAGED,
	MPROTECT,
	MLOCK,
	FORK,
	EXEC,
	EXIT,
	USERFAULT,
	UFFD_MOVE,
	KSM,
	SPLIT,
	THP,
	LOOK,
	MIGRATE,
	COMPACT,
	RECLAIM,
	SWAPOFF,
	LIMITS,
	HOTPLUG,
	PEEK,
	SHARE,
	DIRECT,
	GIVE_TOO,
	TAKE_TOO,
	HOLES,
	OP_GIVE,
	OP_TAKE,
	OP_SPLICE,
	OP_TEE,
	OP_READ,
	OP_WRITE,
	OP_CLOSE,
	OP_RESIZE,
	NR_ACTS,
};

struct side;

/* What is done again and again. */
struct act {
	const char *name;
	/* Once before; not 0: this machine cannot. */
	int (*prepare)(struct side *s);
	void (*perform)(struct side *s);
	unsigned int flags;
};

extern const struct act acts[NR_ACTS];

/* The sides of a race, and whom or what it disturbs. */
enum where { GIVER, TAKER, NEITHER, OPERATOR, NR_SIDES };

/* Shared by all processes of a race, and by the programs they execute. */
struct arena {
	int fd;
	enum act_nr what;
	enum act_nr op;
	enum where where;
	enum mem_kind kind;
	/* Each side in a memory cgroup of its own. */
	bool apart;
	unsigned int seed;
	atomic_bool stop;
	atomic_bool failed;
	char why[160];
	atomic_uint gen;
	atomic_uint lives;
	atomic_ulong given;
	atomic_ulong nomem;
	atomic_ulong arrived[NR_SHAPES];
	/* How often the disturbance, and the operation, did something. */
	atomic_ulong disturbed;
	atomic_ulong operated;
	/* Where the other processes find the memory. */
	pid_t pid[2];
	char *mem[2];
};

struct side {
	struct arena *arena;
	enum where where;
	unsigned int rng;
	char *mem;
	/* A second area: same contents, or where to go. */
	char *twin;
	int fds[2];
	int uffd;
	/*
	 * There was nothing to do.  Not assigned from a comparison: QEMU 7.2
	 * loses the flags of a SETcc whose store meets a page fault, and what
	 * is done with the result of the call depends on them.
	 */
	bool idle;
	/* Pages of mem that are marked as taken. */
	unsigned int marked_from;
	unsigned int marked_nr;
	uint32_t mark;
	/* Generation and number of the last whole page that came. */
	uint64_t last;
};

/* The memory cgroup around all processes of a race; that of a side. */
#define RACE_GROUP "race"
const char *race_group(const struct arena *a, enum where where);

#define RACE_KSM "/sys/kernel/mm/ksm/"
#define RACE_KHUGEPAGED "/sys/kernel/mm/transparent_hugepage/khugepaged/"
#define RACE_CPU "/sys/devices/system/cpu/cpu1/online"

unsigned int race_seed(void);
/* FLIP_RACE_SECONDS, or @otherwise, in milliseconds. */
long race_ms(double otherwise);
/* Settings that some races change, until undo_now(), and a value for one. */
int race_keep_settings(void);

/* With no operation, of small pages; the caller may change that.  NULL: none. */
struct arena *race_arena(enum act_nr what, enum where where);
/* The memory cgroups and the swap that it wants, until undo_now(). */
int race_surroundings(struct arena *a);
/*
 * For @ms, and on until a whole page has come, one was moved, and disturbance and
 * operation have done something.  Closes the pipe.  0, KSFT_SKIP, or what the
 * side that failed exited with.
 */
int race_run(struct arena *a, int fds[2], long ms);
/* Count for what the program says at its end. */
void race_count(const struct arena *a, const struct flip_counts *before,
		const struct flip_counts *after);

/* From here on for acts, and for threads that are like the sides of a race. */

/* The first one to fail says why, and what it saw. */
void fail(struct side *s, const char *why, unsigned long a, unsigned long b);
unsigned int pick(struct side *s, unsigned int below);
/* A range of pages, often what a large folio takes. */
void pick_range(struct side *s, unsigned int *from, unsigned int *nr);
unsigned int pick_flags(struct side *s);
/* A call that failed: errno must be what its flags or the race explain. */
void check_error(struct side *s, const char *call, unsigned int flags);
char *page_at(struct side *s, unsigned int nr);
void advise(struct side *s, char *mem);

/* A page that the giver alone may have written to, now or before. */
void check_unseen(struct side *s, const uint64_t *page);
void fill_range(struct side *s, unsigned int from, unsigned int nr,
		uint32_t gen);
void give_range(struct side *s, unsigned int from, unsigned int nr);
/* Of @n bytes: what is missing of a page, so that the next one begins a page. */
void complete_page(struct side *s, ssize_t n);
/* Pages that came to @buf: @n bytes, part of a page only where it is explained. */
void check_bytes(struct side *s, const char *buf, ssize_t n);
/* Pages that were taken to s->mem; they are marked then. */
void check_range(struct side *s, unsigned int from, unsigned int nr);
/* Pages that were marked: nobody has written to them since. */
void check_marks(struct side *s);
/* Read and forget what is left in the pipe of a page of which @n % PAGE came. */
void skip_rest(struct side *s, ssize_t n);

/* How a side ends for another process to take its place, or when it is killed. */
#define RACE_GOES_ON 77
/* What a process must know to be this side of the race after execve(). */
int race_remember(struct side *s);

#endif /* PAGE_FLIP_RACE_H */
