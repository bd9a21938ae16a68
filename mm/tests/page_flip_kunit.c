// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of page_flip_detach() and page_flip_attach(), without a pipe between
 * them: what leaves an address space, in what state it is outside of one, and
 * what is there after it has entered one again.
 *
 * Each test has a thread and an mm of its own, which shares nothing with user
 * processes, so that every page, reference and counter can be accounted for.
 */
#include <kunit/test.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/page_flip.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "../internal.h"

#define TABLE_ORDER (PMD_SHIFT - PAGE_SHIFT)
#define TABLE_PAGES ((long)BIT(TABLE_ORDER))

/* Where mm/page_flip.c does without large folios and large holes. */
#define HAVE_LARGE_FOLIOS                           \
	(IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && \
	 !IS_ENABLED(CONFIG_HIGHMEM) &&             \
	 !IS_ENABLED(CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP))

/* In the reach of how many page tables the tests map memory. */
#define REGION_TABLES 8

/* How many small pages a test flips. */
#define NR 5

/**
 * struct flip_counts - what changes when pages move, all in base pages
 * @anon: anonymous memory of the mm
 * @in_flight: %NR_FLIP_PAGES
 * @given: %FLIP_GIVEN
 * @given_hole: %FLIP_GIVEN_HOLE
 * @taken: %FLIP_TAKEN
 * @taken_hole: %FLIP_TAKEN_HOLE
 */
struct flip_counts {
	long anon;
	long in_flight;
	long given;
	long given_hole;
	long taken;
	long taken_hole;
};

/**
 * struct flip_test - what a test works with
 * @mm: the mm of the thread
 * @base: the start of the region for mappings, aligned for a page table
 * @in_flight: %NR_FLIP_PAGES before the test
 * @counts: the counters as of start_counting() or expect_change()
 * @batch: what is detached, and not yet attached
 * @events: room for all events
 * @page: room for a page of data
 */
struct flip_test {
	struct mm_struct *mm;
	unsigned long base;
	long in_flight;
	struct flip_counts counts;
	struct flip_batch batch;
	unsigned long events[NR_VM_EVENT_ITEMS];
	u32 page[PAGE_SIZE / sizeof(u32)];
};

/* ---------------------------------------------------------------- counters */

static long sum_flip_pages(void)
{
	struct pglist_data *pgdat;
	long sum = 0;
	int cpu;

	for_each_online_pgdat(pgdat) {
		sum += atomic_long_read(&pgdat->vm_stat[NR_FLIP_PAGES]);
		for_each_online_cpu(cpu)
			sum += per_cpu_ptr(pgdat->per_cpu_nodestats, cpu)
				       ->vm_node_stat_diff[NR_FLIP_PAGES];
	}
	return sum;
}

/* Exactly; a CPU may just be folding what it has into the node's counter. */
static long count_flip_pages(void)
{
	long sum, again = sum_flip_pages();

	do {
		sum = again;
		again = sum_flip_pages();
	} while (sum != again);
	return sum;
}

static struct flip_counts count_all(struct flip_test *t)
{
	all_vm_events(t->events);
	return (struct flip_counts){
		.anon = get_mm_counter_sum(current->mm, MM_ANONPAGES),
		.in_flight = count_flip_pages(),
		.given = t->events[FLIP_GIVEN],
		.given_hole = t->events[FLIP_GIVEN_HOLE],
		.taken = t->events[FLIP_TAKEN],
		.taken_hole = t->events[FLIP_TAKEN_HOLE],
	};
}

static void start_counting(struct kunit *test)
{
	struct flip_test *t = test->priv;

	t->counts = count_all(t);
}

static void expect_counts(struct kunit *test, const struct flip_counts by)
{
	struct flip_test *t = test->priv;
	const struct flip_counts old = t->counts;
	const struct flip_counts new = count_all(t);

	t->counts = new;
	KUNIT_EXPECT_EQ(test, by.anon, new.anon - old.anon);
	KUNIT_EXPECT_EQ(test, by.in_flight, new.in_flight - old.in_flight);
	if (!IS_ENABLED(CONFIG_VM_EVENT_COUNTERS))
		return;
	KUNIT_EXPECT_EQ(test, by.given, new.given - old.given);
	KUNIT_EXPECT_EQ(test, by.given_hole, new.given_hole - old.given_hole);
	KUNIT_EXPECT_EQ(test, by.taken, new.taken - old.taken);
	KUNIT_EXPECT_EQ(test, by.taken_hole, new.taken_hole - old.taken_hole);
}

/* All that has changed since start_counting(), or the last call of this. */
#define expect_change(test, ...) \
	expect_counts(test, (struct flip_counts){ __VA_ARGS__ })

/* -------------------------------------------------------------------- data */

static void make_pattern(u32 *page, u32 seed)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*page); i++)
		page[i] = seed * 0x9e3779b1 + i;
}

static bool is_pattern(const u32 *page, u32 seed)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*page); i++)
		if (page[i] != seed * 0x9e3779b1 + i)
			return false;
	return true;
}

static void read_page(struct kunit *test, unsigned long addr)
{
	struct flip_test *t = test->priv;

	memset(t->page, 0xff, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, 0,
			copy_from_user(t->page, (void __user *)addr,
				       PAGE_SIZE));
}

/* Let no CPU's batch hold a reference to what was faulted in. */
static void fill(struct kunit *test, unsigned long addr, unsigned int nr,
		 u32 seed)
{
	struct flip_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < nr; i++, addr += PAGE_SIZE) {
		make_pattern(t->page, seed + i);
		KUNIT_ASSERT_EQ(test, 0,
				copy_to_user((void __user *)addr, t->page,
					     PAGE_SIZE));
	}
	lru_add_drain_all();
}

static void expect_data(struct kunit *test, unsigned long addr, unsigned int nr,
			u32 seed)
{
	struct flip_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < nr; i++, addr += PAGE_SIZE) {
		read_page(test, addr);
		KUNIT_EXPECT_TRUE_MSG(test, is_pattern(t->page, seed + i),
				      "page %u of %u", i, nr);
	}
}

static void expect_zeroes(struct kunit *test, unsigned long addr,
			  unsigned int nr)
{
	struct flip_test *t = test->priv;
	unsigned int i;

	for (i = 0; i < nr; i++, addr += PAGE_SIZE) {
		read_page(test, addr);
		KUNIT_EXPECT_NULL_MSG(test, memchr_inv(t->page, 0, PAGE_SIZE),
				      "page %u of %u", i, nr);
	}
}

static void fill_folio(struct folio *folio, u32 seed)
{
	unsigned int i;

	for (i = 0; i < folio_nr_pages(folio); i++) {
		void *page = kmap_local_folio(folio, i * PAGE_SIZE);

		make_pattern(page, seed + i);
		kunmap_local(page);
	}
	flush_dcache_folio(folio);
	folio_mark_uptodate(folio);
}

static void expect_folio_data(struct kunit *test, struct folio *folio, u32 seed)
{
	unsigned int i;

	for (i = 0; i < folio_nr_pages(folio); i++) {
		void *page = kmap_local_folio(folio, i * PAGE_SIZE);
		bool ok = is_pattern(page, seed + i);

		kunmap_local(page);
		KUNIT_EXPECT_TRUE_MSG(test, ok, "page %u", i);
	}
}

/* ------------------------------------------------------------------ memory */

/* @page pages after the start of page table number @table of the region. */
static unsigned long place(struct kunit *test, int table, long page)
{
	struct flip_test *t = test->priv;

	return t->base + table * PMD_SIZE + page * (long)PAGE_SIZE;
}

/* Where small pages come from and go to, each within one page table. */
static unsigned long source(struct kunit *test, long page)
{
	return place(test, 0, 7 + page);
}

static unsigned long dest(struct kunit *test, long page)
{
	return place(test, 2, 12 + page);
}

static unsigned long map_as(unsigned long addr, unsigned long nr,
			    unsigned long prot, unsigned long flags)
{
	return vm_mmap(NULL, addr, nr * PAGE_SIZE, prot,
		       MAP_FIXED | MAP_ANONYMOUS | flags, 0);
}

static void map_private(struct kunit *test, unsigned long addr,
			unsigned long nr, unsigned long prot)
{
	KUNIT_ASSERT_EQ(test, addr,
			map_as(addr, nr, prot, MAP_PRIVATE | MAP_NORESERVE));
}

/* Memory that faults map by small pages. */
static void map_small(struct kunit *test, unsigned long addr, unsigned long nr)
{
	map_private(test, addr, nr, PROT_READ | PROT_WRITE);
	/* Fails where there are no other pages. */
	do_madvise(current->mm, addr, nr * PAGE_SIZE, MADV_NOHUGEPAGE);
}

static void map_filled(struct kunit *test, unsigned long addr, unsigned long nr,
		       u32 seed)
{
	map_small(test, addr, nr);
	fill(test, addr, nr, seed);
}

static void advise(struct kunit *test, unsigned long addr, unsigned long nr,
		   int advice)
{
	if (do_madvise(current->mm, addr, nr * PAGE_SIZE, advice))
		kunit_skip(test, "madvise(%d) failed", advice);
}

/* Memory that faults may map by a PMD. */
static void map_huge(struct kunit *test, unsigned long addr, unsigned long nr)
{
	map_private(test, addr, nr, PROT_READ | PROT_WRITE);
	advise(test, addr, nr, MADV_HUGEPAGE);
}

/* What is mapped, and nothing is faulted in; %NULL also for a zero page. */
static struct page *page_at(unsigned long addr)
{
	struct page *page = NULL;
	struct vm_area_struct *vma;
	struct folio_walk walk;

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma && folio_walk_start(&walk, vma, addr, 0)) {
		page = walk.page;
		folio_walk_end(&walk, vma);
	}
	mmap_read_unlock(current->mm);
	return page;
}

static struct folio *folio_at(struct kunit *test, unsigned long addr)
{
	struct page *page = page_at(addr);

	KUNIT_ASSERT_NOT_NULL(test, page);
	return page_folio(page);
}

/* Where the reverse mapping says that @page is. */
static unsigned long rmap_address(struct page *page, unsigned long addr)
{
	struct vm_area_struct *vma;
	unsigned long found = 0;

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma)
		found = page_address_in_vma(page_folio(page), page, vma);
	mmap_read_unlock(current->mm);
	return found;
}

/* ----------------------------------------------------------------- flipping */

static unsigned long item_pages(struct folio *item)
{
	return flip_is_hole(item) ? flip_hole_pages(item) :
				    folio_nr_pages(item);
}

/* Returns pages, or an error. */
static long give_limited(struct kunit *test, unsigned long addr,
			 unsigned long nr, unsigned int max,
			 unsigned int budget)
{
	struct flip_test *t = test->priv;
	struct flip_batch *b = &t->batch;
	long ret;

	KUNIT_ASSERT_EQ(test, b->nr, 0);
	memset(b, 0xff, sizeof(*b));
	b->max = max;
	b->budget = budget;
	b->drained = false;
	ret = page_flip_detach(addr, addr + nr * PAGE_SIZE, b);
	KUNIT_ASSERT_LE(test, ret, (long)(nr * PAGE_SIZE));
	KUNIT_ASSERT_LE(test, b->nr, max);
	if (ret <= 0)
		return ret;
	KUNIT_EXPECT_EQ(test, ret, (b->pages + b->holes) * PAGE_SIZE);
	return ret >> PAGE_SHIFT;
}

/* There is room for all of it. */
static long give(struct kunit *test, unsigned long addr, unsigned long nr)
{
	return give_limited(test, addr, nr, FLIP_BATCH, UINT_MAX);
}

/* The first @nr pages of the batch were attached. */
static void forget_items(struct flip_batch *b, unsigned long nr)
{
	unsigned int i;

	for (i = 0; i < b->nr && nr; i++) {
		unsigned long pages = item_pages(b->item[i]);

		if (pages > nr) {
			b->item[i] = flip_hole(pages - nr);
			break;
		}
		nr -= pages;
	}
	b->nr -= i;
	memmove(b->item, b->item + i, b->nr * sizeof(b->item[0]));
}

/* Returns pages, or an error. */
static long take(struct kunit *test, unsigned long addr, unsigned long nr)
{
	struct flip_test *t = test->priv;
	struct flip_batch *b = &t->batch;
	long ret;

	b->pages = UINT_MAX;
	b->holes = UINT_MAX;
	b->span = ULONG_MAX;
	b->reason = NR_PAGE_FLIP_REASONS;
	b->drained = false;
	ret = page_flip_attach(addr, addr + nr * PAGE_SIZE, b);
	KUNIT_ASSERT_LE(test, ret, (long)(nr * PAGE_SIZE));
	if (ret <= 0)
		return ret;
	KUNIT_EXPECT_EQ(test, ret, (b->pages + b->holes) * PAGE_SIZE);
	forget_items(b, ret >> PAGE_SHIFT);
	return ret >> PAGE_SHIFT;
}

/* As if the pipe were closed. */
static void drop(struct flip_batch *b)
{
	unsigned int i;

	for (i = 0; i < b->nr; i++) {
		if (flip_is_hole(b->item[i]))
			continue;
		page_flip_put(b->item[i]);
		folio_put(b->item[i]);
	}
	b->nr = 0;
}

/* What the next page or item was said to be. */
static void expect_reason(struct kunit *test, enum page_flip_reason reason,
			  unsigned long span_pages)
{
	struct flip_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, (int)t->batch.reason, (int)reason);
	KUNIT_EXPECT_EQ(test, t->batch.span, span_pages * PAGE_SIZE);
}

/* All of it moves. */
static void give_all(struct kunit *test, unsigned long addr, long nr)
{
	start_counting(test);
	KUNIT_ASSERT_EQ(test, give(test, addr, nr), nr);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	expect_change(test, .anon = -nr, .in_flight = nr, .given = nr);
}

/* The same, where @used pages are mapped already. */
static void take_all(struct kunit *test, unsigned long addr, long nr, long used)
{
	start_counting(test);
	KUNIT_ASSERT_EQ(test, take(test, addr, nr), nr);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	expect_change(test, .anon = nr - used, .in_flight = -nr, .taken = nr);
}

/* Nothing of it moves, for a reason that holds for @span pages. */
static void expect_stays(struct kunit *test, unsigned long addr, long nr,
			 enum page_flip_reason reason, unsigned long span)
{
	start_counting(test);
	KUNIT_EXPECT_EQ(test, give(test, addr, nr), 0);
	expect_reason(test, reason, span);
	expect_change(test);
}

/* The batch is not taken there, nor is anything taken away. */
static void expect_refused(struct kunit *test, unsigned long addr, long nr,
			   enum page_flip_reason reason, unsigned long span)
{
	struct flip_test *t = test->priv;
	const unsigned int items = t->batch.nr;

	start_counting(test);
	KUNIT_EXPECT_EQ(test, take(test, addr, nr), 0);
	expect_reason(test, reason, span);
	expect_change(test);
	KUNIT_EXPECT_EQ(test, t->batch.nr, items);
}

/* As it was when it had been allocated, and in flight. */
static void expect_detached(struct kunit *test, struct folio *folio)
{
	unsigned int i;

	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), 0);
	KUNIT_EXPECT_NULL(test, folio->mapping);
	KUNIT_EXPECT_PTR_EQ(test, folio->private, (void *)1);
	KUNIT_EXPECT_TRUE(test, folio_test_uptodate(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_lru(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_active(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_unevictable(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_swapcache(folio));
	KUNIT_EXPECT_FALSE(test, folio_test_locked(folio));
	/* PageAnonExclusive() is for pages that are anonymous. */
	for (i = 0; i < folio_nr_pages(folio); i++)
		KUNIT_EXPECT_FALSE(test,
				   test_bit(PG_anon_exclusive,
					    &folio_page(folio, i)->flags.f));
	if (folio_order(folio) > 1)
		KUNIT_EXPECT_TRUE(test, list_empty(&folio->_deferred_list));
}

/* Where the page is found, and from where. */
static void expect_mapped(struct kunit *test, struct page *page,
			  unsigned long addr)
{
	KUNIT_EXPECT_PTR_EQ(test, page_at(addr), page);
	KUNIT_EXPECT_EQ(test, rmap_address(page, addr), addr);
}

/* By @nr entries: one of a PMD, or one for each page. */
static void expect_attached(struct kunit *test, struct folio *folio,
			    unsigned long addr, unsigned int nr)
{
	unsigned int i, pages = folio_nr_pages(folio);

	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), nr);
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), nr);
	if (pages > 1)
		KUNIT_EXPECT_EQ(test, folio_entire_mapcount(folio), nr == 1);
	KUNIT_EXPECT_FALSE(test, folio_maybe_mapped_shared(folio));
	KUNIT_EXPECT_TRUE(test, folio_test_anon(folio));
	KUNIT_EXPECT_TRUE(test, folio_test_swapbacked(folio));
	KUNIT_EXPECT_TRUE(test, folio_test_uptodate(folio));
	KUNIT_EXPECT_TRUE(test, folio_test_lru(folio));
	KUNIT_EXPECT_NULL(test, folio->private);
	for (i = 0; i < pages; i++)
		expect_mapped(test, folio_page(folio, i), addr + i * PAGE_SIZE);
	for (i = 0; i < nr; i++)
		KUNIT_EXPECT_TRUE(test,
				  PageAnonExclusive(folio_page(folio, i)));
}

/* Without a fault that would put another page there. */
static void expect_writable(struct kunit *test, unsigned long addr)
{
	struct page *page = page_at(addr);
	u32 word;

	KUNIT_EXPECT_EQ(test, 0, get_user(word, (u32 __user *)addr));
	KUNIT_EXPECT_EQ(test, 0, put_user(word, (u32 __user *)addr));
	KUNIT_EXPECT_PTR_EQ(test, page_at(addr), page);
}

/* A folio with data in the batch, as if it had been given. */
static struct folio *give_folio(struct kunit *test, unsigned int order,
				u32 seed)
{
	struct flip_test *t = test->priv;
	struct folio *folio;

	if (order && (!HAVE_LARGE_FOLIOS || order > MAX_PAGE_ORDER))
		kunit_skip(test, "needs folios of order %u", order);
	folio = page_flip_alloc(order, GFP_HIGHUSER | __GFP_NOWARN);
	if (!folio)
		kunit_skip(test, "no memory for a folio of order %u", order);
	fill_folio(folio, seed);
	t->batch.item[t->batch.nr++] = folio;
	return folio;
}

/* ----------------------------------------------------------- items, reasons */

static void flip_items(struct kunit *test)
{
	const unsigned long sizes[] = { 1, 2, TABLE_PAGES, LONG_MAX };
	struct folio *folio;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct folio *hole = flip_hole(sizes[i]);

		KUNIT_EXPECT_TRUE(test, flip_is_hole(hole));
		KUNIT_EXPECT_EQ(test, flip_hole_pages(hole), sizes[i]);
	}
	folio = give_folio(test, 0, 1);
	KUNIT_EXPECT_FALSE(test, flip_is_hole(folio));
}

struct flip_name {
	enum page_flip_reason reason;
	enum vm_event_item event;
	const char *name;
};

#define FLIP_NAME(what, name)                                             \
	{                                                                 \
		PAGE_FLIP_##what, FLIP_COPIED_##what, "flip_copied_" name \
	}

static const struct flip_name flip_names[] = {
	FLIP_NAME(UNALIGNED, "unaligned"),
	FLIP_NAME(SHARED, "shared"),
	FLIP_NAME(FILE, "file"),
	FLIP_NAME(HUGETLB, "hugetlb"),
	FLIP_NAME(SECRETMEM, "secretmem"),
	FLIP_NAME(PFN, "pfn"),
	FLIP_NAME(MLOCKED, "mlocked"),
	FLIP_NAME(UFFD, "uffd"),
	FLIP_NAME(DROPPABLE, "droppable"),
	FLIP_NAME(SPECIAL, "special"),
	FLIP_NAME(KSM, "ksm"),
	FLIP_NAME(FORKED, "forked"),
	FLIP_NAME(PINNED, "pinned"),
	FLIP_NAME(REFERENCED, "referenced"),
	FLIP_NAME(LAZYFREE, "lazyfree"),
	FLIP_NAME(WRITEBACK, "writeback"),
	FLIP_NAME(UNMOVABLE, "unmovable"),
	FLIP_NAME(PARTIAL, "partial"),
	FLIP_NAME(LOCKED, "locked"),
	FLIP_NAME(FOREIGN, "foreign"),
	FLIP_NAME(SHORT, "short"),
	FLIP_NAME(TEED, "teed"),
	FLIP_NAME(DESTBUSY, "destbusy"),
	FLIP_NAME(RACE, "race"),
};

/* A reason added to the numbers takes that distance from the first event. */
static void flip_reasons(struct kunit *test)
{
	unsigned int i;

	KUNIT_EXPECT_EQ(test, (int)PAGE_FLIP_MOVES, 0);
	KUNIT_EXPECT_EQ(test, NR_PAGE_FLIP_REASONS - 1,
			(int)ARRAY_SIZE(flip_names));
	for (i = 0; i < ARRAY_SIZE(flip_names); i++)
		KUNIT_EXPECT_EQ_MSG(test, (int)flip_names[i].event,
				    FLIP_COPIED + (int)flip_names[i].reason,
				    "%s", flip_names[i].name);
#if defined(CONFIG_VM_EVENT_COUNTERS) && defined(CONFIG_PROC_FS)
	for (i = 0; i < ARRAY_SIZE(flip_names); i++)
		KUNIT_EXPECT_STREQ(test, flip_names[i].name,
				   vm_event_name(flip_names[i].event));
	KUNIT_EXPECT_STREQ(test, "flip_copied", vm_event_name(FLIP_COPIED));
	KUNIT_EXPECT_STREQ(test, "nr_flip_pages",
			   node_stat_name(NR_FLIP_PAGES));
#endif
}

static const unsigned int flip_orders[] = { 0, 2, 4, TABLE_ORDER };

static void describe_order(const unsigned int *order, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "order %u", *order);
}

KUNIT_ARRAY_PARAM(flip_order, flip_orders, describe_order);

/* In flight once, whoever else holds it, until the last one lets go. */
static void flip_alloc(struct kunit *test)
{
	const unsigned int order = *(const unsigned int *)test->param_value;
	struct flip_test *t = test->priv;
	struct folio *folio;
	const long nr = 1L << order;

	start_counting(test);
	folio = give_folio(test, order, 1);
	t->batch.nr = 0;
	expect_change(test, .in_flight = nr);
	KUNIT_EXPECT_EQ(test, folio_nr_pages(folio), nr);
	expect_detached(test, folio);

	page_flip_get(folio);
	expect_change(test);
	KUNIT_EXPECT_FALSE(test, page_flip_put(folio));
	expect_change(test);
	KUNIT_EXPECT_TRUE(test, page_flip_put(folio));
	expect_change(test, .in_flight = -nr);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	folio_put(folio);
}

/* ------------------------------------------------------------- small folios */

static void flip_small(struct kunit *test)
{
	struct flip_test *t = test->priv;
	struct folio *folio[NR];
	int i;

	map_filled(test, source(test, 0), NR, 100);
	map_small(test, dest(test, 0), NR);
	for (i = 0; i < NR; i++)
		folio[i] = folio_at(test, source(test, i));

	give_all(test, source(test, 0), NR);
	KUNIT_EXPECT_EQ(test, t->batch.nr, NR);
	for (i = 0; i < NR; i++) {
		KUNIT_EXPECT_PTR_EQ(test, t->batch.item[i], folio[i]);
		KUNIT_EXPECT_NULL(test, page_at(source(test, i)));
		expect_detached(test, folio[i]);
	}
	take_all(test, dest(test, 0), NR, 0);
	for (i = 0; i < NR; i++) {
		expect_attached(test, folio[i], dest(test, i), 1);
		expect_writable(test, dest(test, i));
	}
	expect_data(test, dest(test, 0), NR, 100);
	expect_zeroes(test, source(test, 0), NR);
}

/* They can go on like this, also to where they came from. */
static void flip_again(struct kunit *test)
{
	int i;

	map_filled(test, source(test, 0), NR, 200);
	map_small(test, dest(test, 0), NR);
	for (i = 0; i < 3; i++) {
		give_all(test, source(test, 0), NR);
		take_all(test, dest(test, 0), NR, 0);
		give_all(test, dest(test, 0), NR);
		take_all(test, source(test, 0), NR, 0);
	}
	expect_data(test, source(test, 0), NR, 200);
}

/* What the giver writes later, through whatever entry, goes elsewhere. */
static void flip_write_after(struct kunit *test)
{
	unsigned long addr = source(test, 0);
	struct flip_test *t = test->priv;
	struct folio *folio;

	map_filled(test, addr, 1, 300);
	give_all(test, addr, 1);
	folio = t->batch.item[0];
	fill(test, addr, 1, 301);
	KUNIT_EXPECT_PTR_NE(test, folio_at(test, addr), folio);
	expect_folio_data(test, folio, 300);
	expect_data(test, addr, 1, 301);
}

/* A page just faulted in waits in a batch of this CPU, which refers to it. */
static void flip_fresh(struct kunit *test)
{
	unsigned long addr = source(test, 0);
	long moved;

	map_small(test, addr, 1);
	migrate_disable();
	moved = put_user(1, (char __user *)addr) ?: give(test, addr, 1);
	migrate_enable();
	KUNIT_EXPECT_EQ(test, moved, 1);
}

/* So does one that is to be made active. */
static void flip_accessed(struct kunit *test)
{
	unsigned long addr = source(test, 0);
	struct folio *folio;
	long moved;

	map_filled(test, addr, 1, 350);
	folio = folio_at(test, addr);
	migrate_disable();
	folio_mark_accessed(folio);
	folio_mark_accessed(folio);
	moved = give(test, addr, 1);
	migrate_enable();
	KUNIT_EXPECT_EQ(test, moved, 1);
}

/* Across from one page table to the next. */
static void flip_two_tables(struct kunit *test)
{
	unsigned long src = place(test, 1, -2);
	long n, ret;

	map_filled(test, src, NR, 400);
	map_small(test, place(test, 3, -3), NR);
	give_all(test, src, NR);
	for (n = 0; n < NR; n += ret) {
		ret = take(test, place(test, 3, n - 3), NR - n);
		KUNIT_ASSERT_GT(test, ret, 0);
	}
	expect_change(test, .anon = NR, .in_flight = -NR, .taken = NR);
	expect_data(test, place(test, 3, -3), NR, 400);
	expect_zeroes(test, src, NR);
}

/* Makes an mm the thread's, in which flip_test_exit() expects to find it. */
static int enter_new_mm(struct flip_test *t)
{
	const unsigned long len = (REGION_TABLES + 1) * PMD_SIZE;
	struct mm_struct *mm = mm_alloc();
	unsigned long addr;

	if (!mm)
		return -ENOMEM;
	mm->task_size = TASK_SIZE;
	arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
	kthread_use_mm(mm);
	t->mm = mm;
	addr = vm_mmap(NULL, 0, len, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, 0);
	if (IS_ERR_VALUE(addr))
		return addr;
	t->base = ALIGN(addr, PMD_SIZE);
	return 0;
}

static void leave_own_mm(struct flip_test *t)
{
	struct mm_struct *mm = t->mm;

	t->mm = NULL;
	kthread_unuse_mm(mm);
	mmput(mm);
}

/* The giver's mm, with all that its pages knew of, may be gone by then. */
static void flip_outlives_mm(struct kunit *test)
{
	struct flip_test *t = test->priv;
	struct folio *folio[NR];
	int i;

	map_filled(test, source(test, 0), NR, 500);
	give_all(test, source(test, 0), NR);
	leave_own_mm(t);
	for (i = 0; i < NR; i++) {
		folio[i] = t->batch.item[i];
		expect_detached(test, folio[i]);
		expect_folio_data(test, folio[i], 500 + i);
	}

	KUNIT_ASSERT_EQ(test, enter_new_mm(t), 0);
	map_small(test, dest(test, 0), NR);
	take_all(test, dest(test, 0), NR, 0);
	for (i = 0; i < NR; i++)
		expect_attached(test, folio[i], dest(test, i), 1);
	expect_data(test, dest(test, 0), NR, 500);
}

/* -------------------------------------------------------------------- holes */

/* Nothing, data, a zero page, data, nothing, to where there is data. */
static void flip_holes(struct kunit *test)
{
	struct flip_test *t = test->priv;
	int i;

	map_small(test, source(test, 0), NR);
	fill(test, source(test, 1), 1, 601);
	fill(test, source(test, 3), 1, 603);
	expect_zeroes(test, source(test, 2), 1);
	map_filled(test, dest(test, 0), NR, 650);

	start_counting(test);
	KUNIT_ASSERT_EQ(test, give(test, source(test, 0), NR), NR);
	expect_change(test, .anon = -2, .in_flight = 2, .given = 2,
		      .given_hole = 3);
	for (i = 0; i < NR; i++) {
		KUNIT_EXPECT_EQ(test, item_pages(t->batch.item[i]), 1);
		KUNIT_EXPECT_EQ(test, flip_is_hole(t->batch.item[i]), !(i & 1));
	}
	KUNIT_ASSERT_EQ(test, take(test, dest(test, 0), NR), NR);
	expect_change(test, .anon = 2 - NR, .in_flight = -2, .taken = 2,
		      .taken_hole = 3);
	for (i = 0; i < NR; i += 2) {
		KUNIT_EXPECT_NULL(test, page_at(dest(test, i)));
		expect_zeroes(test, dest(test, i), 1);
	}
	expect_data(test, dest(test, 1), 1, 601);
	expect_data(test, dest(test, 3), 1, 603);
}

/* Of a hole any number of pages can be taken, and nothing beyond is touched. */
static void flip_hole_in_parts(struct kunit *test)
{
	struct flip_test *t = test->priv;

	map_filled(test, dest(test, 0), NR, 700);
	t->batch.item[0] = flip_hole(NR - 1);
	t->batch.nr = 1;

	start_counting(test);
	KUNIT_ASSERT_EQ(test, take(test, dest(test, 0), 3), 3);
	expect_change(test, .anon = -3, .taken_hole = 3);
	KUNIT_EXPECT_EQ(test, t->batch.nr, 1);
	expect_data(test, dest(test, 3), 2, 703);
	KUNIT_ASSERT_EQ(test, take(test, dest(test, 3), 2), 1);
	expect_change(test, .anon = -1, .taken_hole = 1);
	expect_data(test, dest(test, 4), 1, 704);
	expect_zeroes(test, dest(test, 0), 4);
}

/* Where there is no page table, one item stands for all that it would map. */
static void flip_hole_of_pmd(struct kunit *test)
{
	const long nr = TABLE_PAGES + 2;
	struct flip_test *t = test->priv;

	if (!HAVE_LARGE_FOLIOS || TABLE_ORDER > MAX_PAGE_ORDER)
		kunit_skip(test, "needs folios of order %u", TABLE_ORDER);
	map_small(test, place(test, 1, -1), nr);
	start_counting(test);
	KUNIT_ASSERT_EQ(test, give(test, place(test, 1, -1), nr), nr);
	expect_change(test, .given_hole = nr);
	KUNIT_ASSERT_EQ(test, t->batch.nr, 3);
	KUNIT_EXPECT_EQ(test, flip_hole_pages(t->batch.item[0]), 1);
	KUNIT_EXPECT_EQ(test, flip_hole_pages(t->batch.item[1]), TABLE_PAGES);
	KUNIT_EXPECT_EQ(test, flip_hole_pages(t->batch.item[2]), 1);

	map_filled(test, place(test, 4, 1), nr, 800);
	start_counting(test);
	KUNIT_ASSERT_EQ(test, take(test, place(test, 4, 2), nr - 2), nr - 2);
	expect_change(test, .anon = 2 - nr, .taken_hole = nr - 2);
	expect_data(test, place(test, 4, 1), 1, 800);
	expect_zeroes(test, place(test, 4, 2), nr - 2);
	expect_data(test, place(test, 4, nr), 1, 800 + nr - 1);
}

/* ------------------------------------------------------------- large folios */

/**
 * struct flip_fit - a large folio and where it is attached
 * @order: its order
 * @page: where, in pages after the start of a page table
 * @huge: the vma allows huge pages
 * @desc: what is special about it
 */
struct flip_fit {
	unsigned int order;
	int page;
	bool huge;
	const char *desc;
};

static const struct flip_fit flip_fits[] = {
	{ 2, 4, false, "order 2" },
	{ 2, 5, true, "order 2 unaligned" },
	{ 4, 16, true, "order 4" },
	{ 4, -3, true, "order 4 by two page tables" },
	{ TABLE_ORDER, 0, true, "PMD order by a PMD" },
	{ TABLE_ORDER, 0, false, "PMD order by PTEs" },
	{ TABLE_ORDER, 1, true, "PMD order by two page tables" },
};

/* Those that one page table maps, and that can be given again therefore. */
static const struct flip_fit flip_givable[] = {
	{ 2, 4, false, "order 2" },
	{ 4, 16, true, "order 4" },
	{ TABLE_ORDER, 0, true, "PMD order by a PMD" },
	{ TABLE_ORDER, 0, false, "PMD order by PTEs" },
};

KUNIT_ARRAY_PARAM_DESC(flip_fit, flip_fits, desc);
KUNIT_ARRAY_PARAM_DESC(flip_givable, flip_givable, desc);

static long fit_pages(const struct flip_fit *fit)
{
	return 1L << fit->order;
}

/* Entries that map it. */
static unsigned int fit_entries(const struct flip_fit *fit)
{
	bool pmd = fit->order == TABLE_ORDER && !fit->page && fit->huge;

	return pmd ? 1 : fit_pages(fit);
}

static bool fit_crosses(const struct flip_fit *fit)
{
	return fit->page < 0 || fit->page + fit_pages(fit) > TABLE_PAGES;
}

static unsigned long map_fit(struct kunit *test, const struct flip_fit *fit)
{
	unsigned long addr = place(test, 2, fit->page);

	if (fit->huge)
		map_huge(test, addr, fit_pages(fit));
	else
		map_small(test, addr, fit_pages(fit));
	return addr;
}

static void expect_fit(struct kunit *test, const struct flip_fit *fit,
		       struct folio *folio)
{
	expect_attached(test, folio, place(test, 2, fit->page),
			fit_entries(fit));
}

static struct folio *attach_fit(struct kunit *test, const struct flip_fit *fit)
{
	struct folio *folio = give_folio(test, fit->order, 1000);
	unsigned long addr = map_fit(test, fit);

	take_all(test, addr, fit_pages(fit), 0);
	expect_fit(test, fit, folio);
	return folio;
}

static void flip_large(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = attach_fit(test, fit);
	unsigned long addr = place(test, 2, fit->page);
	const long nr = fit_pages(fit);
	struct flip_test *t = test->priv;

	expect_writable(test, addr + (nr - 1) * PAGE_SIZE);
	expect_data(test, addr, nr, 1000);
	if (fit_crosses(fit)) {
		/* The entries of one page table have to be all. */
		expect_stays(test, addr, nr, PAGE_FLIP_PARTIAL, nr);
		return;
	}
	give_all(test, addr, nr);
	KUNIT_EXPECT_EQ(test, t->batch.nr, 1);
	KUNIT_EXPECT_PTR_EQ(test, t->batch.item[0], folio);
	expect_detached(test, folio);
	expect_folio_data(test, folio, 1000);
	expect_zeroes(test, addr, nr);
}

/* Half of it stays where it is, whichever half that is. */
static void flip_large_half(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = attach_fit(test, fit);
	const long half = fit_pages(fit) / 2;
	unsigned long first = place(test, 2, fit->page);
	unsigned long second = first + half * PAGE_SIZE;

	expect_stays(test, first, half, PAGE_FLIP_PARTIAL, half);
	expect_stays(test, second, half, PAGE_FLIP_PARTIAL, half);
	expect_fit(test, fit, folio);

	/* It may hold what is not mapped any more. */
	KUNIT_ASSERT_EQ(test, 0, vm_munmap(first, half * PAGE_SIZE));
	expect_stays(test, second, half, PAGE_FLIP_PARTIAL, half);
	expect_data(test, second, half, 1000 + half);
}

/* No folio is split to fit in. */
static void flip_large_short(struct kunit *test)
{
	struct folio *folio = give_folio(test, 4, 1000);

	map_filled(test, dest(test, 0), 16, 1100);
	expect_refused(test, dest(test, 0), 15, PAGE_FLIP_SHORT, 15);
	expect_detached(test, folio);
	expect_data(test, dest(test, 0), 16, 1100);
}

/* A huge page that a fault has made. */
static void flip_thp(struct kunit *test)
{
	unsigned long src = place(test, 1, 0), dst = place(test, 4, 0);
	struct folio *folio;

	map_huge(test, src, TABLE_PAGES);
	map_huge(test, dst, TABLE_PAGES);
	fill(test, src, TABLE_PAGES, 1200);
	folio = folio_at(test, src);
	if (folio_nr_pages(folio) != TABLE_PAGES || !HAVE_LARGE_FOLIOS)
		kunit_skip(test, "no huge page was to be had");

	expect_stays(test, src, TABLE_PAGES - 1, PAGE_FLIP_PARTIAL,
		     TABLE_PAGES - 1);
	expect_attached(test, folio, src, 1);
	give_all(test, src, TABLE_PAGES);
	KUNIT_EXPECT_NULL(test, page_at(src));
	expect_detached(test, folio);
	take_all(test, dst, TABLE_PAGES, 0);
	expect_attached(test, folio, dst, 1);
	expect_writable(test, dst);
	expect_data(test, dst, TABLE_PAGES, 1200);
	expect_zeroes(test, src, TABLE_PAGES);
}

/* ------------------------------------------------------- what has to be left */

/* The page that something is wrong with. */
#define LEFT 2

static struct folio *map_left(struct kunit *test)
{
	map_filled(test, source(test, 0), NR, 0);
	return folio_at(test, source(test, LEFT));
}

/* Pages before it move; it does not. */
static void expect_left(struct kunit *test, struct folio *folio,
			enum page_flip_reason reason)
{
	const int refs = folio_ref_count(folio);
	struct flip_test *t = test->priv;

	start_counting(test);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 0), NR), LEFT);
	expect_reason(test, reason, 1);
	drop(&t->batch);
	expect_change(test, .anon = -LEFT, .given = LEFT);
	expect_stays(test, source(test, LEFT), NR - LEFT, reason, 1);
	KUNIT_EXPECT_PTR_EQ(test, folio_at(test, source(test, LEFT)), folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	KUNIT_EXPECT_TRUE(test, folio_test_lru(folio));
	expect_data(test, source(test, LEFT), NR - LEFT, LEFT);
}

/* But does once all is well. */
static void expect_moves(struct kunit *test, struct folio *folio)
{
	struct flip_test *t = test->priv;

	KUNIT_EXPECT_TRUE(test, PageAnonExclusive(&folio->page));
	expect_writable(test, source(test, LEFT));
	give_all(test, source(test, LEFT), NR - LEFT);
	KUNIT_EXPECT_PTR_EQ(test, t->batch.item[0], folio);
	expect_detached(test, folio);
	expect_folio_data(test, folio, LEFT);
}

static void flip_referenced(struct kunit *test)
{
	struct folio *folio = map_left(test);

	folio_get(folio);
	expect_left(test, folio, PAGE_FLIP_REFERENCED);
	expect_writable(test, source(test, LEFT));
	folio_put(folio);
	expect_moves(test, folio);
}

static struct page *pin(struct kunit *test, unsigned long addr)
{
	struct page *page = NULL;
	long ret;

	mmap_read_lock(current->mm);
	ret = pin_user_pages(addr, 1, FOLL_WRITE | FOLL_LONGTERM, &page);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_EQ(test, ret, 1);
	lru_add_drain_all();
	return page;
}

static void flip_pinned(struct kunit *test)
{
	struct folio *folio = map_left(test);
	struct page *page = pin(test, source(test, LEFT));

	KUNIT_EXPECT_PTR_EQ(test, page_folio(page), folio);
	expect_left(test, folio, PAGE_FLIP_PINNED);
	expect_writable(test, source(test, LEFT));
	unpin_user_page(page);
	expect_moves(test, folio);
}

/* As fork() leaves it, and a write by the last who has it does not. */
static void flip_forked(struct kunit *test)
{
	struct folio *folio = map_left(test);

	ClearPageAnonExclusive(&folio->page);
	expect_left(test, folio, PAGE_FLIP_FORKED);
	SetPageAnonExclusive(&folio->page);
	expect_moves(test, folio);
}

static void flip_lazyfree(struct kunit *test)
{
	struct folio *folio = map_left(test);

	advise(test, source(test, LEFT), 1, MADV_FREE);
	lru_add_drain_all();
	expect_left(test, folio, PAGE_FLIP_LAZYFREE);
}

/**
 * struct flip_flag - a flag that keeps a page where it is
 * @bit: number of the flag
 * @reason: why
 * @desc: its name
 */
struct flip_flag {
	unsigned int bit;
	enum page_flip_reason reason;
	const char *desc;
};

static const struct flip_flag flip_flags[] = {
	{ PG_writeback, PAGE_FLIP_WRITEBACK, "writeback" },
	{ PG_mlocked, PAGE_FLIP_MLOCKED, "mlocked" },
};

KUNIT_ARRAY_PARAM_DESC(flip_flag, flip_flags, desc);

static void flip_flagged(struct kunit *test)
{
	const struct flip_flag *flag = test->param_value;
	struct folio *folio = map_left(test);

	set_bit(flag->bit, &folio->flags.f);
	expect_left(test, folio, flag->reason);
	clear_bit(flag->bit, &folio->flags.f);
	expect_moves(test, folio);
}

#ifdef CONFIG_MEMORY_FAILURE
/* The last page of it. */
static void poison(struct folio *folio)
{
	SetPageHWPoison(folio_page(folio, folio_nr_pages(folio) - 1));
	if (folio_test_large(folio))
		folio_set_has_hwpoisoned(folio);
	atomic_long_inc(&num_poisoned_pages);
}

static void unpoison(struct folio *folio)
{
	ClearPageHWPoison(folio_page(folio, folio_nr_pages(folio) - 1));
	if (folio_test_large(folio))
		folio_clear_has_hwpoisoned(folio);
	atomic_long_dec(&num_poisoned_pages);
}

/* Neither side touches a page that is broken. */
static void flip_poisoned(struct kunit *test)
{
	struct folio *folio = map_left(test);

	map_filled(test, dest(test, 0), 3, 1250);
	poison(folio);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 1), 3), 1);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), 3), 1);
	KUNIT_EXPECT_EQ(test, give(test, source(test, LEFT), 2), -EHWPOISON);
	unpoison(folio);

	give_all(test, source(test, LEFT), 2);
	poison(folio);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 1), 2), -EHWPOISON);
	expect_data(test, dest(test, 0), 1, 1);
	expect_data(test, dest(test, 1), 2, 1251);
	unpoison(folio);
	take_all(test, dest(test, 1), 2, 2);
}

/* All of a large folio, in memory and in flight. */
static void flip_large_poisoned(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = attach_fit(test, fit);
	unsigned long addr = place(test, 2, fit->page);
	const long nr = fit_pages(fit);

	poison(folio);
	start_counting(test);
	KUNIT_EXPECT_EQ(test, give(test, addr, nr), -EHWPOISON);
	expect_change(test);
	unpoison(folio);
	give_all(test, addr, nr);
	SetPageHWPoison(folio_page(folio, nr - 1));
	atomic_long_inc(&num_poisoned_pages);
	start_counting(test);
	KUNIT_EXPECT_EQ(test, take(test, addr, nr), -EHWPOISON);
	expect_change(test);
	ClearPageHWPoison(folio_page(folio, nr - 1));
	atomic_long_dec(&num_poisoned_pages);
	take_all(test, addr, nr, 0);
	expect_data(test, addr, nr, 1000);
}
#else
static void flip_poisoned(struct kunit *test)
{
	kunit_skip(test, "needs CONFIG_MEMORY_FAILURE");
}

static void flip_large_poisoned(struct kunit *test)
{
	kunit_skip(test, "needs CONFIG_MEMORY_FAILURE");
}
#endif

/* All or nothing of a large folio, of which one page was asked for. */
static void flip_large_left(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = attach_fit(test, fit);
	unsigned long addr = place(test, 2, fit->page);
	const long nr = fit_pages(fit);
	struct page *page;

	folio_get(folio);
	expect_stays(test, addr, nr, PAGE_FLIP_REFERENCED, nr);
	folio_put(folio);
	page = pin(test, addr + (nr - 1) * PAGE_SIZE);
	expect_stays(test, addr, nr, PAGE_FLIP_PINNED, nr);
	unpin_user_page(page);
	expect_fit(test, fit, folio);
	expect_writable(test, addr);
	expect_data(test, addr, nr, 1000);
	give_all(test, addr, nr);
}

/* --------------------------------------------------------------------- vmas */

/**
 * struct flip_vma - a vma that pages neither leave nor enter
 * @flags: of mmap()
 * @reason: why
 * @desc: its name
 */
struct flip_vma {
	unsigned long flags;
	enum page_flip_reason reason;
	const char *desc;
};

static const struct flip_vma flip_vmas[] = {
	{ MAP_SHARED, PAGE_FLIP_SHARED, "shared" },
	{ MAP_PRIVATE | MAP_LOCKED, PAGE_FLIP_MLOCKED, "mlocked" },
	{ MAP_DROPPABLE, PAGE_FLIP_DROPPABLE, "droppable" },
};

KUNIT_ARRAY_PARAM_DESC(flip_vma, flip_vmas, desc);

/* The reason holds up to the end of the vma, and no further. */
static void flip_vma(struct kunit *test)
{
	const struct flip_vma *vma = test->param_value;
	unsigned long addr = source(test, 0);

	map_small(test, addr, 2 * NR);
	if (map_as(addr, NR, PROT_READ | PROT_WRITE, vma->flags) != addr)
		kunit_skip(test, "cannot be mapped");
	fill(test, addr, 2 * NR, 1300);
	expect_stays(test, addr, 2 * NR, vma->reason, NR);
	give_all(test, source(test, NR), NR);
	expect_refused(test, addr, 2 * NR, vma->reason, NR);
	expect_data(test, addr, NR, 1300);
	take_all(test, source(test, NR), NR, 0);
	expect_data(test, addr, 2 * NR, 1300);
}

static void set_special(struct kunit *test, unsigned long addr, bool special)
{
	struct vm_area_struct *vma;

	mmap_write_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	if (vma && special)
		vm_flags_set(vma, VM_DONTEXPAND);
	else if (vma)
		vm_flags_clear(vma, VM_DONTEXPAND);
	mmap_write_unlock(current->mm);
	KUNIT_ASSERT_NOT_NULL(test, vma);
}

/* As a driver may make memory, or the kernel a shadow stack. */
static void flip_special(struct kunit *test)
{
	unsigned long addr = source(test, 0);

	map_filled(test, addr, NR, 1350);
	set_special(test, addr, true);
	expect_stays(test, addr, NR, PAGE_FLIP_SPECIAL, NR);
	set_special(test, addr, false);
	give_all(test, addr, NR);
	set_special(test, addr, true);
	expect_refused(test, addr, NR, PAGE_FLIP_SPECIAL, NR);
	set_special(test, addr, false);
	take_all(test, addr, NR, 0);
	expect_data(test, addr, NR, 1350);
}

/* Both sides stop at the end of a vma, and go on in the next. */
static void flip_two_vmas(struct kunit *test)
{
	const unsigned long other = PROT_READ | PROT_WRITE | PROT_EXEC;

	map_small(test, source(test, 0), 3);
	map_private(test, source(test, 3), 2, other);
	fill(test, source(test, 0), 5, 1400);
	map_small(test, dest(test, 0), 2);
	map_private(test, dest(test, 2), 3, other);

	KUNIT_EXPECT_EQ(test, give(test, source(test, 0), 5), 3);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), 5), 2);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	take_all(test, dest(test, 2), 1, 0);
	give_all(test, source(test, 3), 2);
	take_all(test, dest(test, 3), 2, 0);
	expect_data(test, dest(test, 0), 5, 1400);
}

/**
 * struct flip_prot - what does not allow to give or to take
 * @prot: of mmap(); anything else stands for no mapping at all
 * @desc: its name
 */
struct flip_prot {
	unsigned long prot;
	const char *desc;
};

static const struct flip_prot flip_prots[] = {
	{ ULONG_MAX, "unmapped" },
	{ PROT_NONE, "PROT_NONE" },
	{ PROT_READ, "PROT_READ" },
};

KUNIT_ARRAY_PARAM_DESC(flip_prot, flip_prots, desc);

static void protect(struct kunit *test, unsigned long addr)
{
	const struct flip_prot *prot = test->param_value;

	if (prot->prot == ULONG_MAX)
		KUNIT_ASSERT_EQ(test, 0, vm_munmap(addr, PAGE_SIZE));
	else
		map_private(test, addr, 1, prot->prot);
}

/* What may be read but not written is nobody's to give. */
static void flip_access(struct kunit *test)
{
	map_filled(test, source(test, 0), 1, 1500);
	KUNIT_EXPECT_EQ(test, 0, page_flip_may_give(source(test, 0) + 1));
	give_all(test, source(test, 0), 1);
	protect(test, source(test, 0));
	protect(test, dest(test, 0));
	start_counting(test);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), 1), -EFAULT);
	KUNIT_EXPECT_EQ(test, page_flip_may_give(dest(test, 0)), -EFAULT);
	expect_change(test);
	map_small(test, dest(test, 0), 1);
	take_all(test, dest(test, 0), 1, 0);
	expect_data(test, dest(test, 0), 1, 1500);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 0), 1), -EFAULT);
}

/* Who reads a guard page gets a signal; neither side may pass over one. */
static void flip_guard(struct kunit *test)
{
	map_filled(test, source(test, 0), NR, 1600);
	map_small(test, dest(test, 0), NR);
	advise(test, source(test, 3), 1, MADV_GUARD_INSTALL);
	advise(test, dest(test, 1), 1, MADV_GUARD_INSTALL);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 0), NR), 3);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), 3), 1);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 1), 2), -EFAULT);
	take_all(test, dest(test, 2), 2, 0);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 3), 2), -EFAULT);
	expect_data(test, dest(test, 0), 1, 1600);
	expect_data(test, dest(test, 2), 2, 1601);
}

/* ------------------------------------------------------------------- limits */

static void flip_max(struct kunit *test)
{
	unsigned long src = source(test, 0);
	struct flip_test *t = test->priv;

	map_small(test, src, NR);
	fill(test, src, 3, 1700);
	KUNIT_EXPECT_EQ(test, give_limited(test, src, NR, 2, UINT_MAX), 2);
	KUNIT_EXPECT_FALSE(test, t->batch.limited);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	drop(&t->batch);
	/* A hole takes room as well. */
	KUNIT_EXPECT_EQ(test, give_limited(test, src, NR, 4, UINT_MAX), 4);
	KUNIT_EXPECT_FALSE(test, t->batch.limited);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	KUNIT_EXPECT_EQ(test, t->batch.pages, 1);
	KUNIT_EXPECT_EQ(test, t->batch.holes, 3);
}

/* Of which holes need nothing. */
static void flip_budget(struct kunit *test)
{
	unsigned long src = source(test, 0), last = source(test, 3);
	struct flip_test *t = test->priv;

	map_small(test, src, NR);
	fill(test, src, 1, 1800);
	fill(test, source(test, 2), 2, 1802);
	KUNIT_EXPECT_EQ(test, give_limited(test, src, NR, FLIP_BATCH, 2), 3);
	KUNIT_EXPECT_TRUE(test, t->batch.limited);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	drop(&t->batch);
	start_counting(test);
	KUNIT_EXPECT_EQ(test, give_limited(test, last, 2, FLIP_BATCH, 0), 0);
	KUNIT_EXPECT_TRUE(test, t->batch.limited);
	expect_change(test);
	expect_data(test, last, 1, 1803);
	KUNIT_EXPECT_EQ(test, give_limited(test, last, 2, FLIP_BATCH, 1), 2);
	KUNIT_EXPECT_FALSE(test, t->batch.limited);
}

/* What is not in the way for lack of room has no other reason. */
static void flip_large_budget(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = attach_fit(test, fit);
	unsigned long addr = place(test, 2, fit->page);
	const long nr = fit_pages(fit);
	struct flip_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, give_limited(test, addr, nr, 1, nr - 1), 0);
	KUNIT_EXPECT_TRUE(test, t->batch.limited);
	expect_reason(test, PAGE_FLIP_MOVES, 0);
	expect_change(test);
	expect_fit(test, fit, folio);
	KUNIT_EXPECT_EQ(test, give_limited(test, addr, nr, 1, nr), nr);
	KUNIT_EXPECT_FALSE(test, t->batch.limited);
}

/* ------------------------------------------------------------- destinations */

/* What was there is gone, and nothing beside it. */
static void flip_replaces(struct kunit *test)
{
	map_filled(test, source(test, 0), NR, 2100);
	map_filled(test, dest(test, -1), NR + 2, 2150);
	give_all(test, source(test, 0), NR);
	take_all(test, dest(test, 0), NR, NR);
	expect_data(test, dest(test, -1), 1, 2150);
	expect_data(test, dest(test, 0), NR, 2100);
	expect_data(test, dest(test, NR), 1, 2150 + NR + 1);
}

/* The same, where a few small pages have to make room. */
static void flip_large_replaces(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = give_folio(test, fit->order, 2200);
	unsigned long addr = place(test, 2, fit->page);
	const long nr = fit_pages(fit);

	map_small(test, addr, nr);
	fill(test, addr + PAGE_SIZE, 1, 1);
	fill(test, addr + (nr - 1) * PAGE_SIZE, 1, 2);
	if (fit->huge)
		advise(test, addr, nr, MADV_HUGEPAGE);
	take_all(test, addr, nr, 2);
	/* By PTEs if the empty page table cannot be freed. */
	expect_attached(test, folio, addr,
			folio_entire_mapcount(folio) ? fit_entries(fit) : nr);
	expect_data(test, addr, nr, 2200);
}

/* What somebody else refers to must not become private memory. */
static void flip_teed(struct kunit *test)
{
	struct flip_test *t = test->priv;
	struct folio *folio;

	map_filled(test, source(test, 0), NR, 1900);
	map_filled(test, dest(test, 0), NR, 1950);
	give_all(test, source(test, 0), NR);
	folio = t->batch.item[2];
	folio_get(folio);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), NR), 2);
	expect_refused(test, dest(test, 2), NR - 2, PAGE_FLIP_TEED, 1);
	/* Nothing is written behind what was taken. */
	expect_data(test, dest(test, 2), NR - 2, 1952);
	folio_put(folio);
	expect_detached(test, folio);
	take_all(test, dest(test, 2), NR - 2, NR - 2);
	expect_data(test, dest(test, 0), NR, 1900);
}

static void flip_large_teed(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = give_folio(test, fit->order, 2000);
	unsigned long addr = map_fit(test, fit);
	const long nr = fit_pages(fit);

	fill(test, addr, 1, 2050);
	folio_get(folio);
	expect_refused(test, addr, nr, PAGE_FLIP_TEED, nr);
	folio_put(folio);
	expect_detached(test, folio);
	expect_data(test, addr, 1, 2050);
	KUNIT_EXPECT_EQ(test, take(test, addr, nr), nr);
	expect_data(test, addr, nr, 2000);
}

/* A device may be writing there. */
static void flip_busy(struct kunit *test)
{
	struct flip_test *t = test->priv;
	struct page *page;

	map_small(test, source(test, 0), NR);
	fill(test, source(test, 0), 3, 2300);
	map_filled(test, dest(test, 0), NR, 2350);
	KUNIT_ASSERT_EQ(test, give(test, source(test, 0), NR), NR);
	page = pin(test, dest(test, 1));
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), NR), 1);
	expect_refused(test, dest(test, 1), NR - 1, PAGE_FLIP_DESTBUSY, 1);
	expect_detached(test, t->batch.item[0]);
	KUNIT_EXPECT_PTR_EQ(test, page_at(dest(test, 1)), page);
	expect_data(test, dest(test, 0), 1, 2300);
	expect_data(test, dest(test, 1), NR - 1, 2351);
	unpin_user_page(page);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 1), NR - 1), NR - 1);
	expect_data(test, dest(test, 0), 3, 2300);
	expect_zeroes(test, dest(test, 3), NR - 3);
}

/* A hole must not be put over it either. */
static void flip_busy_hole(struct kunit *test)
{
	struct flip_test *t = test->priv;
	struct page *page;

	map_filled(test, dest(test, 0), NR, 2400);
	page = pin(test, dest(test, 1));
	t->batch.item[0] = flip_hole(NR);
	t->batch.nr = 1;
	start_counting(test);
	KUNIT_EXPECT_EQ(test, take(test, dest(test, 0), NR), 1);
	expect_change(test, .anon = -1, .taken_hole = 1);
	expect_refused(test, dest(test, 1), NR - 1, PAGE_FLIP_DESTBUSY, 1);
	KUNIT_EXPECT_PTR_EQ(test, page_at(dest(test, 1)), page);
	expect_data(test, dest(test, 1), NR - 1, 2401);
	unpin_user_page(page);
}

/* All of the destination stays where a large folio cannot go. */
static void flip_large_busy(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = give_folio(test, fit->order, 2500);
	unsigned long addr = map_fit(test, fit);
	const long nr = fit_pages(fit);
	struct page *page;

	fill(test, addr, nr, 2600);
	page = pin(test, addr + (nr - 1) * PAGE_SIZE);
	expect_refused(test, addr, nr, PAGE_FLIP_DESTBUSY, nr);
	expect_detached(test, folio);
	expect_data(test, addr, nr, 2600);
	unpin_user_page(page);
	take_all(test, addr, nr, nr);
	expect_data(test, addr, nr, 2500);
}

/* --------------------------------------------------------------------- races */

static int flip_racer(void *folio)
{
	while (!kthread_should_stop()) {
		if (folio_try_get(folio))
			folio_put(folio);
		cond_resched();
	}
	return 0;
}

/* Takes, in as many attempts as it needs; false if something else is wrong. */
static bool take_racing(struct kunit *test, unsigned long addr, long nr)
{
	struct flip_test *t = test->priv;
	long ret;

	do {
		cond_resched();
		ret = take(test, addr, nr);
	} while (!ret && t->batch.reason == PAGE_FLIP_TEED);
	KUNIT_EXPECT_EQ(test, ret, nr);
	return ret == nr;
}

/* Flips to and fro; returns how often somebody else had the page just then. */
static unsigned int flip_racing(struct kunit *test, unsigned long from,
				unsigned long to, long nr)
{
	struct flip_test *t = test->priv;
	unsigned int i, lost = 0;

	for (i = 0; i < 2000; lost++) {
		long ret = give(test, from, nr);

		cond_resched();
		if (!ret && t->batch.reason == PAGE_FLIP_REFERENCED)
			continue;
		KUNIT_EXPECT_EQ(test, ret, nr);
		if (ret != nr || !take_racing(test, to, nr))
			break;
		swap(from, to);
		i++;
	}
	return lost - i;
}

/*
 * References that come and go.  No number of them makes a page move that
 * somebody else has, and none is lost that was put back.
 */
static void flip_race(struct kunit *test)
{
	const unsigned int order = *(const unsigned int *)test->param_value;
	struct folio *folio = give_folio(test, order, 2700);
	unsigned long src = place(test, 2, 0), dst = place(test, 4, 0);
	struct task_struct *racer;
	const long nr = 1L << order;

	map_small(test, src, nr);
	map_small(test, dst, nr);
	if (order) {
		advise(test, src, nr, MADV_HUGEPAGE);
		advise(test, dst, nr, MADV_HUGEPAGE);
	}
	take_all(test, src, nr, 0);
	racer = kthread_run(flip_racer, folio, "page_flip_racer");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, racer);
	kunit_info(test, "lost %u times\n", flip_racing(test, src, dst, nr));
	kthread_stop(racer);
	KUNIT_EXPECT_PTR_EQ(test, folio_at(test, src), folio);
	expect_data(test, src, nr, 2700);
	expect_writable(test, src);
	give_all(test, src, nr);
}

/*
 * The OOM reaper has begun: what is not there is no hole, as there may have been
 * data, and nothing may come that it would take away again.
 */
static void flip_unstable(struct kunit *test)
{
	unsigned long empty = place(test, 4, 0);

	map_small(test, source(test, 0), NR + 1);
	fill(test, source(test, 0), NR, 2800);
	map_small(test, empty, TABLE_PAGES);
	give_all(test, source(test, 0), 1);
	mm_flags_set(MMF_UNSTABLE, current->mm);
	start_counting(test);
	KUNIT_EXPECT_EQ(test, take(test, source(test, 0), 1), -EFAULT);
	drop(&((struct flip_test *)test->priv)->batch);
	KUNIT_EXPECT_EQ(test, give(test, source(test, 1), 1), -EFAULT);
	KUNIT_EXPECT_EQ(test, give(test, source(test, NR), 1), -EFAULT);
	KUNIT_EXPECT_EQ(test, give(test, empty, 1), -EFAULT);
	KUNIT_EXPECT_EQ(test, give(test, empty, TABLE_PAGES), -EFAULT);
	expect_change(test, .in_flight = -1);
	mm_flags_clear(MMF_UNSTABLE, current->mm);
	expect_data(test, source(test, 1), NR - 1, 2801);
}

/* The same with large folios, and a hole in one piece. */
static void flip_large_unstable(struct kunit *test)
{
	const struct flip_fit *fit = test->param_value;
	struct folio *folio = give_folio(test, fit->order, 2900);
	unsigned long addr = map_fit(test, fit);
	const long nr = fit_pages(fit);
	struct flip_test *t = test->priv;

	t->batch.item[t->batch.nr++] = flip_hole(nr);
	start_counting(test);
	mm_flags_set(MMF_UNSTABLE, current->mm);
	KUNIT_EXPECT_EQ(test, take(test, addr, nr), -EFAULT);
	swap(t->batch.item[0], t->batch.item[1]);
	KUNIT_EXPECT_EQ(test, take(test, addr, nr), -EFAULT);
	mm_flags_clear(MMF_UNSTABLE, current->mm);
	expect_change(test);
	t->batch.item[0] = folio;
	t->batch.nr = 1;
	take_all(test, addr, nr, 0);
	mm_flags_set(MMF_UNSTABLE, current->mm);
	KUNIT_EXPECT_EQ(test, give(test, addr, nr), -EFAULT);
	mm_flags_clear(MMF_UNSTABLE, current->mm);
	expect_fit(test, fit, folio);
	expect_data(test, addr, nr, 2900);
}

/* -------------------------------------------------------------------- suite */

static int flip_test_init(struct kunit *test)
{
	struct flip_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->in_flight = count_flip_pages();
	return enter_new_mm(t);
}

/*
 * In another thread, since that of the test may have been ended.  It took its
 * mm along; what is left is the reference of kthread_use_mm(), which
 * kunit_attach_mm() would never drop.
 */
static void flip_test_exit(struct kunit *test)
{
	struct flip_test *t = test->priv;

	if (!t)
		return;
	drop(&t->batch);
	KUNIT_EXPECT_EQ(test, count_flip_pages(), t->in_flight);
	if (t->mm)
		mmdrop(t->mm);
}

static struct kunit_case flip_test_cases[] = {
	KUNIT_CASE(flip_items),
	KUNIT_CASE(flip_reasons),
	KUNIT_CASE_PARAM(flip_alloc, flip_order_gen_params),
	KUNIT_CASE(flip_small),
	KUNIT_CASE(flip_again),
	KUNIT_CASE(flip_write_after),
	KUNIT_CASE(flip_fresh),
	KUNIT_CASE(flip_accessed),
	KUNIT_CASE(flip_two_tables),
	KUNIT_CASE(flip_outlives_mm),
	KUNIT_CASE(flip_holes),
	KUNIT_CASE(flip_hole_in_parts),
	KUNIT_CASE(flip_hole_of_pmd),
	KUNIT_CASE_PARAM(flip_large, flip_fit_gen_params),
	KUNIT_CASE_PARAM(flip_large_half, flip_fit_gen_params),
	KUNIT_CASE(flip_large_short),
	KUNIT_CASE(flip_thp),
	KUNIT_CASE(flip_referenced),
	KUNIT_CASE(flip_pinned),
	KUNIT_CASE(flip_forked),
	KUNIT_CASE(flip_lazyfree),
	KUNIT_CASE_PARAM(flip_flagged, flip_flag_gen_params),
	KUNIT_CASE(flip_poisoned),
	KUNIT_CASE_PARAM(flip_large_poisoned, flip_givable_gen_params),
	KUNIT_CASE_PARAM(flip_large_left, flip_givable_gen_params),
	KUNIT_CASE_PARAM(flip_vma, flip_vma_gen_params),
	KUNIT_CASE(flip_special),
	KUNIT_CASE(flip_two_vmas),
	KUNIT_CASE_PARAM(flip_access, flip_prot_gen_params),
	KUNIT_CASE(flip_guard),
	KUNIT_CASE(flip_max),
	KUNIT_CASE(flip_budget),
	KUNIT_CASE_PARAM(flip_large_budget, flip_givable_gen_params),
	KUNIT_CASE(flip_replaces),
	KUNIT_CASE_PARAM(flip_large_replaces, flip_fit_gen_params),
	KUNIT_CASE(flip_teed),
	KUNIT_CASE_PARAM(flip_large_teed, flip_fit_gen_params),
	KUNIT_CASE(flip_busy),
	KUNIT_CASE(flip_busy_hole),
	KUNIT_CASE_PARAM(flip_large_busy, flip_fit_gen_params),
	KUNIT_CASE_PARAM(flip_race, flip_order_gen_params),
	KUNIT_CASE(flip_unstable),
	KUNIT_CASE_PARAM(flip_large_unstable, flip_fit_gen_params),
	{}
};

static struct kunit_suite flip_test_suite = {
	.name = "page_flip",
	.init = flip_test_init,
	.exit = flip_test_exit,
	.test_cases = flip_test_cases,
};

kunit_test_suite(flip_test_suite);

MODULE_DESCRIPTION("Tests of moving pages between address spaces");
MODULE_LICENSE("GPL");
