/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Moving pages of anonymous memory out of one address space and into another,
 * without a copy and without ever sharing them.  See Documentation/mm/page_flip.rst.
 */
#ifndef _LINUX_PAGE_FLIP_H
#define _LINUX_PAGE_FLIP_H

#include <linux/mm_types.h>
#include <linux/vm_event_item.h>

/**
 * enum page_flip_reason - why something was copied and not moved
 * @PAGE_FLIP_MOVES: no obstacle
 * @PAGE_FLIP_UNALIGNED: not a whole page, at either end or in the buffer
 * @PAGE_FLIP_SHARED: the vma is a shared mapping
 * @PAGE_FLIP_FILE: the vma is a private mapping of a file
 * @PAGE_FLIP_HUGETLB: the vma maps hugetlbfs
 * @PAGE_FLIP_SECRETMEM: the vma maps secret memory
 * @PAGE_FLIP_PFN: device memory or a mapping without &struct page
 * @PAGE_FLIP_MLOCKED: the vma is locked in memory, or the page still is
 * @PAGE_FLIP_UFFD: the vma is registered with a userfaultfd
 * @PAGE_FLIP_DROPPABLE: the vma is droppable
 * @PAGE_FLIP_SPECIAL: shadow stack, tagged memory, other special mappings
 * @PAGE_FLIP_KSM: the page was merged with others
 * @PAGE_FLIP_FORKED: the page was shared by fork() and not copied since
 * @PAGE_FLIP_PINNED: the page may be pinned (FOLL_PIN)
 * @PAGE_FLIP_REFERENCED: somebody else holds a reference to the page
 * @PAGE_FLIP_LAZYFREE: the page may be discarded (MADV_FREE)
 * @PAGE_FLIP_WRITEBACK: the page is being written to swap
 * @PAGE_FLIP_UNMOVABLE: ZONE_MOVABLE or CMA, where a page must not stay for long
 * @PAGE_FLIP_PARTIAL: a large folio of which only a part is mapped or given
 * @PAGE_FLIP_LOCKED: the folio lock could not be had
 * @PAGE_FLIP_FOREIGN: the buffer was not made by giving
 * @PAGE_FLIP_SHORT: the folio is larger than what is left of the buffer, the
 *	destination or its vma
 * @PAGE_FLIP_TEED: the buffer's folio has other references, as after tee(2)
 * @PAGE_FLIP_DESTBUSY: a page at the destination is pinned or referenced
 * @PAGE_FLIP_RACE: the page tables changed again and again
 * @NR_PAGE_FLIP_REASONS: number of reasons
 *
 * The order is that of the events from FLIP_COPIED_UNALIGNED on.
 */
enum page_flip_reason {
	PAGE_FLIP_MOVES,
	PAGE_FLIP_UNALIGNED,
	PAGE_FLIP_SHARED,
	PAGE_FLIP_FILE,
	PAGE_FLIP_HUGETLB,
	PAGE_FLIP_SECRETMEM,
	PAGE_FLIP_PFN,
	PAGE_FLIP_MLOCKED,
	PAGE_FLIP_UFFD,
	PAGE_FLIP_DROPPABLE,
	PAGE_FLIP_SPECIAL,
	PAGE_FLIP_KSM,
	PAGE_FLIP_FORKED,
	PAGE_FLIP_PINNED,
	PAGE_FLIP_REFERENCED,
	PAGE_FLIP_LAZYFREE,
	PAGE_FLIP_WRITEBACK,
	PAGE_FLIP_UNMOVABLE,
	PAGE_FLIP_PARTIAL,
	PAGE_FLIP_LOCKED,
	PAGE_FLIP_FOREIGN,
	PAGE_FLIP_SHORT,
	PAGE_FLIP_TEED,
	PAGE_FLIP_DESTBUSY,
	PAGE_FLIP_RACE,
	NR_PAGE_FLIP_REASONS
};

/*
 * What travels: a folio, or a hole of so many pages, which is an odd number
 * where a pointer would be.
 */
static inline struct folio *flip_hole(unsigned long nr_pages)
{
	return (struct folio *)(nr_pages << 1 | 1);
}

static inline bool flip_is_hole(struct folio *item)
{
	return (unsigned long)item & 1;
}

static inline unsigned long flip_hole_pages(struct folio *item)
{
	return (unsigned long)item >> 1;
}

/* The most that one batch carries: one slot of the default largest pipe each. */
#define FLIP_BATCH 256

/**
 * struct flip_batch - what one call detaches or attaches
 * @max: give: items that may be detached, at most FLIP_BATCH
 * @budget: give: base pages that the folios among them may have
 * @nr: items
 * @pages: base pages of the folios among the items that were moved
 * @holes: base pages of the holes among the items that were moved
 * @reason: why the first item or page that was not moved could not be;
 *	PAGE_FLIP_MOVES where nothing was in the way
 * @span: bytes from there for which @reason holds
 * @limited: give: the next folio has more pages than what is left of @budget
 * @drained: this CPU's LRU batches were drained for this batch; false at first
 * @item: the items
 * @nr_folios: give: those of them that are folios
 * @folio: give: the same without the holes
 */
struct flip_batch {
	unsigned int max;
	unsigned int budget;
	unsigned int nr;
	unsigned int pages;
	unsigned int holes;
	enum page_flip_reason reason;
	unsigned long span;
	bool limited;
	bool drained;
	struct folio *item[FLIP_BATCH];
	unsigned int nr_folios;
	struct folio *folio[FLIP_BATCH];
};

#ifdef CONFIG_PAGE_FLIP
long page_flip_detach(unsigned long addr, unsigned long end,
		      struct flip_batch *batch);
long page_flip_attach(unsigned long addr, unsigned long end,
		      struct flip_batch *batch);
int page_flip_may_give(unsigned long addr);
struct folio *page_flip_alloc(unsigned int order, gfp_t gfp);
void page_flip_get(struct folio *folio);
bool page_flip_put(struct folio *folio);
bool page_flip_poisoned(struct folio *folio);
#endif

#endif /* _LINUX_PAGE_FLIP_H */
