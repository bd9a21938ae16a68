// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page flip: pages of anonymous memory leave one address space and enter
 * another, later, without a copy and without ever being shared.
 *
 * Detaching makes of a mapped folio what it was when it had been allocated,
 * but with its contents: charged to the giver's memcg, mapped nowhere, without
 * an anon_vma, on no LRU list, in no swap cache, on no deferred split queue, and
 * with one reference, which the caller of page_flip_detach() gets.  Attaching is
 * therefore the fault of a new anonymous folio, less the allocation.
 *
 * In between, folio->private counts what the folio is held by (the buffers of
 * pipes, of which tee(2) makes more), and NR_FLIP_PAGES the pages of the node.
 *
 * What makes it safe is folio_ref_freeze().  With the page table lock held and
 * the entries cleared, it succeeds only if the references are those of the
 * cleared entries; from then on nobody can get another, until the folio is
 * unfrozen.  It is a full barrier between clearing the entries and reading the
 * reference count, which pairs with the one between taking a reference and
 * reading the entry again in gup_fast_pte_range() and gup_fast_pmd_leaf().
 *
 * Lock order, outermost first:
 *	mmap_lock or vma read lock
 *	  mmu notifier (invalidate_range_start() may sleep)
 *	    page table lock; of a second table it is only tried
 *	      folio lock (tried only), swap cluster lock
 *	      list_lru and lruvec->lru_lock
 * Memory is charged, and page tables are allocated, under the vma lock and with
 * folios frozen, but outside of the page table lock.  Nothing here faults or
 * copies under any of these locks.
 *
 * The interface was modelled on that of UFFDIO_MOVE (mm/userfaultfd.c), which
 * does this inside of one address space.
 */
#include <linux/hugetlb.h>
#include <linux/khugepaged.h>
#include <linux/ksm.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_context.h>
#include <linux/mmu_notifier.h>
#include <linux/oom.h>
#include <linux/page_flip.h>
#include <linux/pagemap.h>
#include <linux/pgalloc.h>
#include <linux/rmap.h>
#include <linux/secretmem.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "swap.h"

/* How often page tables that change under us are looked at again. */
#define FLIP_RETRIES 4

/* PMDs that are attached at once; their memory is charged twice for a moment. */
#define ATTACH_PMDS 8

/* Memory with tags does not move: they would come along. */
#ifdef CONFIG_SPARC64
#define VM_TAGGED VM_SPARC_ADI
#else
#define VM_TAGGED VM_MTE
#endif

/* Has tags, also where no vma says so: a virtual machine has set them. */
#ifdef CONFIG_ARM64_MTE
#define PAGE_TAGGED BIT(PG_arch_2)
#else
#define PAGE_TAGGED 0UL
#endif

#define FLIP_PMD_PAGES (1UL << (PMD_SHIFT - PAGE_SHIFT))

static_assert(NR_PAGE_FLIP_REASONS - 1 == FLIP_COPIED_RACE - FLIP_COPIED);

/*
 * Buffers of more than a page need users that walk them, which those that map
 * a single page at a time are not.
 */
static bool flip_large_folios(void)
{
	return !IS_ENABLED(CONFIG_HIGHMEM) &&
	       !IS_ENABLED(CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP);
}

/* A hole in one piece must be one that a folio can fill that is not too large. */
static bool flip_pmd_holes(void)
{
	return IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && flip_large_folios() &&
	       PMD_SIZE <= SZ_2M;
}

/* As pmd_addr_end(), which is no end at all where PMDs are folded. */
static unsigned long flip_table_end(unsigned long addr, unsigned long end)
{
	unsigned long next = (addr & PMD_MASK) + PMD_SIZE;

	return next - 1 < end - 1 ? next : end;
}

static long flip_stop(struct flip_batch *b, enum page_flip_reason reason,
		      unsigned long span)
{
	b->reason = reason;
	b->span = span;
	return 0;
}

static enum page_flip_reason vma_obstacle(struct vm_area_struct *vma)
{
	const vm_flags_t flags = vma->vm_flags;

	if (is_vm_hugetlb_page(vma))
		return PAGE_FLIP_HUGETLB;
	if (vma_is_secretmem(vma))
		return PAGE_FLIP_SECRETMEM;
	if (flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP))
		return PAGE_FLIP_PFN;
	if (flags & (VM_SHARED | VM_MAYSHARE))
		return PAGE_FLIP_SHARED;
	if (!vma_is_anonymous(vma))
		return PAGE_FLIP_FILE;
	if (flags & (VM_LOCKED | VM_LOCKONFAULT))
		return PAGE_FLIP_MLOCKED;
	if (userfaultfd_armed(vma))
		return PAGE_FLIP_UFFD;
	if (flags & VM_DROPPABLE)
		return PAGE_FLIP_DROPPABLE;
	if (flags & (VM_SPECIAL | VM_SHADOW_STACK | VM_TAGGED))
		return PAGE_FLIP_SPECIAL;
	return PAGE_FLIP_MOVES;
}

/*
 * Giving destroys what it reads, so it wants what MADV_DONTNEED wants; what is
 * only ever copied is only read.  Taking is a write.
 */
static int vma_may(struct vm_area_struct *vma, vm_flags_t need)
{
	if ((vma->vm_flags & need) != need ||
	    !arch_vma_access_permitted(vma, true, false, false))
		return -EFAULT;
	return 0;
}

#ifdef CONFIG_PER_VMA_LOCK
static struct vm_area_struct *vma_trylock_slow(struct mm_struct *mm,
					       struct vm_area_struct *vma)
{
	/* The reference count of vma locks is at its limit. */
	if (!IS_ERR(vma) && !vma_start_read_locked(vma))
		vma = ERR_PTR(-EAGAIN);
	mmap_read_unlock(mm);
	return vma;
}

static struct vm_area_struct *vma_trylock_fast(struct mm_struct *mm,
					       unsigned long addr, bool take)
{
	struct vm_area_struct *vma = lock_vma_under_rcu(mm, addr);

	if (vma && take && vma_is_anonymous(vma) && !vma->anon_vma) {
		/* anon_vma_prepare() wants mmap_lock. */
		vma_end_read(vma);
		return NULL;
	}
	return vma;
}

static void flip_unlock_vma(struct vm_area_struct *vma)
{
	vma_end_read(vma);
}
#else
static struct vm_area_struct *vma_trylock_slow(struct mm_struct *mm,
					       struct vm_area_struct *vma)
{
	if (IS_ERR(vma))
		mmap_read_unlock(mm);
	return vma;
}

static struct vm_area_struct *vma_trylock_fast(struct mm_struct *mm,
					       unsigned long addr, bool take)
{
	return NULL;
}

static void flip_unlock_vma(struct vm_area_struct *vma)
{
	mmap_read_unlock(vma->vm_mm);
}
#endif

/* -ENOENT: there is no vma (yet: a stack may grow). */
static struct vm_area_struct *flip_lock_vma(struct mm_struct *mm,
					    unsigned long addr, bool take)
{
	struct vm_area_struct *vma = vma_trylock_fast(mm, addr, take);

	if (vma)
		return vma;
	if (mmap_read_lock_killable(mm))
		return ERR_PTR(-EINTR);
	vma = vma_lookup(mm, addr);
	if (!vma)
		vma = ERR_PTR(-ENOENT);
	else if (take && vma_is_anonymous(vma) &&
		 !(vma->vm_flags & VM_SHARED) && anon_vma_prepare(vma))
		vma = ERR_PTR(-ENOMEM);
	return vma_trylock_slow(mm, vma);
}

static bool folio_tagged(const struct folio *folio)
{
	unsigned int i;

	for (i = 0; PAGE_TAGGED && i < folio_nr_pages(folio); i++)
		if (folio_page(folio, i)->flags.f & PAGE_TAGGED)
			return true;
	return false;
}

/*
 * Why this anonymous folio, which is mapped exclusively by us, has to stay;
 * references are looked at elsewhere.
 */
static enum page_flip_reason folio_obstacle(struct folio *folio)
{
	if (folio_is_zone_device(folio))
		return PAGE_FLIP_PFN;
	if (!folio_test_swapbacked(folio))
		return PAGE_FLIP_LAZYFREE;
	if (folio_test_mlocked(folio))
		return PAGE_FLIP_MLOCKED;
	if (folio_test_writeback(folio))
		return PAGE_FLIP_WRITEBACK;
	if (!folio_is_longterm_pinnable(folio))
		return PAGE_FLIP_UNMOVABLE;
	if (folio_tagged(folio))
		return PAGE_FLIP_SPECIAL;
	return PAGE_FLIP_MOVES;
}

static enum page_flip_reason reference_reason(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio) ? PAGE_FLIP_PINNED :
					       PAGE_FLIP_REFERENCED;
}

/* Under the page table lock, the entry's reference keeps the folio. */
static enum page_flip_reason folio_leave_swap(struct folio *folio)
{
	if (!folio_trylock(folio))
		return PAGE_FLIP_LOCKED;
	if (folio_test_swapcache(folio))
		folio_free_swap(folio);
	folio_unlock(folio);
	return folio_test_swapcache(folio) ? reference_reason(folio) :
					     PAGE_FLIP_MOVES;
}

/* Whether @nr mappings are all that refers to the folio; a hint. */
static enum page_flip_reason folio_sole(struct flip_batch *b,
					struct folio *folio, int nr)
{
	if (folio_test_swapcache(folio)) {
		enum page_flip_reason reason = folio_leave_swap(folio);

		if (reason)
			return reason;
	}
	if (likely(folio_ref_count(folio) == nr))
		return PAGE_FLIP_MOVES;
	/* A batch of this CPU may hold a small folio; of others, bad luck. */
	if (!b->drained) {
		b->drained = true;
		lru_add_drain();
		/* That is where MADV_FREE ends. */
		if (!folio_test_swapbacked(folio))
			return PAGE_FLIP_LAZYFREE;
		if (folio_ref_count(folio) == nr)
			return PAGE_FLIP_MOVES;
	}
	return reference_reason(folio);
}

/**
 * page_flip_alloc - allocate a folio that is as if it had been detached
 * @order: its order
 * @gfp: for the allocation
 *
 * It is charged to the memcg of the caller, who fills it and calls
 * folio_mark_uptodate() before it is attached.
 *
 * Context: Process context, may sleep.
 * Return: The folio, with one reference and page_flip_get() once; %NULL if
 * there is no memory, or no room in the memcg.
 */
struct folio *page_flip_alloc(unsigned int order, gfp_t gfp)
{
	struct folio *folio = folio_alloc(gfp, order);

	if (!folio)
		return NULL;
	if (mem_cgroup_charge(folio, current->mm, gfp) ||
	    (order > 1 && folio_memcg_alloc_deferred(folio))) {
		folio_put(folio);
		return NULL;
	}
	page_flip_get(folio);
	mod_node_page_state(folio_pgdat(folio), NR_FLIP_PAGES, 1L << order);
	return folio;
}

static atomic_long_t *flip_count(struct folio *folio)
{
	BUILD_BUG_ON(sizeof(folio->private) != sizeof(atomic_long_t));
	return (atomic_long_t *)&folio->private;
}

/**
 * page_flip_get - one more holds a folio that was detached
 * @folio: the folio
 *
 * This is not a reference, of which the caller has one of its own.
 */
void page_flip_get(struct folio *folio)
{
	atomic_long_inc(flip_count(folio));
}

/**
 * page_flip_put - one less holds a folio that was detached
 * @folio: the folio, of which the caller still has a reference
 *
 * Return: Whether that was the last one; the folio does not count as in flight
 * any more then, whoever may still have references.
 */
bool page_flip_put(struct folio *folio)
{
	if (!atomic_long_dec_and_test(flip_count(folio)))
		return false;
	mod_node_page_state(folio_pgdat(folio), NR_FLIP_PAGES,
			    -folio_nr_pages(folio));
	return true;
}

/**
 * page_flip_poisoned - whether a page of a folio in flight is poisoned
 * @folio: the folio
 *
 * memory_failure() marks the page, but does not reach the folio then.
 *
 * Return: %true if its contents must not be looked at.
 */
bool page_flip_poisoned(struct folio *folio)
{
#ifdef CONFIG_MEMORY_FAILURE
	unsigned int i;

	if (likely(!atomic_long_read(&num_poisoned_pages)))
		return false;
	for (i = 0; i < folio_nr_pages(folio); i++)
		if (PageHWPoison(folio_page(folio, i)))
			return true;
#endif
	return false;
}

/*
 * Whether frozen folios are treated as one: of one order, mapped in one way and
 * counted in the same place of every statistic.
 */
static bool flip_alike(const struct folio *a, const struct folio *b)
{
	if (!folios_counted_alike(a, b))
		return false;
	return !folio_test_large(a) ||
	       (folio_order(a) == folio_order(b) &&
		folio_entire_mapcount(a) == folio_entire_mapcount(b));
}

static bool detach_room(struct flip_batch *b, unsigned int nr_pages)
{
	if (b->pages + nr_pages <= b->budget)
		return true;
	b->limited = true;
	return false;
}

static unsigned int detach_hole(struct flip_batch *b, unsigned int nr_pages)
{
	b->item[b->nr++] = flip_hole(nr_pages);
	b->holes += nr_pages;
	return nr_pages;
}

static void detach_folio(struct flip_batch *b, struct folio *folio,
			 unsigned int nr_pages)
{
	b->item[b->nr++] = folio;
	b->folio[b->nr_folios++] = folio;
	b->pages += nr_pages;
}

/*
 * Why not all of a large folio can go with the entries from @ptep on, which
 * are at most @max in this page table.
 */
static enum page_flip_reason large_obstacle(struct folio *folio, pte_t *ptep,
					    pte_t pte, unsigned int max)
{
	unsigned int i, nr = folio_nr_pages(folio);

	if (pte_pfn(pte) != folio_pfn(folio) || nr > max ||
	    !flip_large_folios())
		return PAGE_FLIP_PARTIAL;
	for (i = 0; i < nr; i++) {
		pte = ptep_get(ptep + i);
		if (!pte_present(pte) || pte_pfn(pte) != folio_pfn(folio) + i)
			return PAGE_FLIP_PARTIAL;
		/* PageAnonExclusive(), which has a look for hugetlb first. */
		if (!test_bit(PG_anon_exclusive,
			      &folio_page(folio, i)->flags.f))
			return PAGE_FLIP_FORKED;
	}
	if (folio_mapcount(folio) != nr)
		return PAGE_FLIP_FORKED;
	return folio_obstacle(folio);
}

static void large_restore(struct vm_area_struct *vma, unsigned long addr,
			  pte_t *ptep, pte_t pte, unsigned int nr)
{
	/*
	 * Which of them were writable or soft-dirty is forgotten, and no TLB
	 * may know better.
	 */
	lazy_mmu_mode_pause();
	flush_tlb_range(vma, addr, addr + nr * PAGE_SIZE);
	lazy_mmu_mode_resume();
	pte = pte_mkyoung(pte_mkdirty(pte));
	if (pgtable_supports_soft_dirty())
		pte = pte_mksoft_dirty(pte);
	set_ptes(vma->vm_mm, addr, ptep, pte_wrprotect(pte), nr);
}

static long detach_large(struct flip_batch *b, struct vm_area_struct *vma,
			 struct folio *folio, pte_t *ptep, pte_t pte,
			 unsigned long addr, unsigned long end)
{
	unsigned int i, nr = folio_nr_pages(folio);
	enum page_flip_reason reason;

	reason = large_obstacle(folio, ptep, pte, (end - addr) >> PAGE_SHIFT);
	if (!reason)
		reason = folio_sole(b, folio, nr);
	if (reason) {
		unsigned int left = folio_pfn(folio) + nr - pte_pfn(pte);

		return flip_stop(b, reason, left * PAGE_SIZE);
	}
	if (!detach_room(b, nr))
		return 0;

	for (i = 0; i < nr; i++)
		ptep_get_and_clear(vma->vm_mm, addr + i * PAGE_SIZE, ptep + i);
	if (!folio_ref_freeze(folio, nr)) {
		large_restore(vma, addr, ptep, pte, nr);
		return flip_stop(b, reference_reason(folio), nr * PAGE_SIZE);
	}
	detach_folio(b, folio, nr);
	return nr;
}

/* A small folio that has one reference at the moment. */
static __always_inline long detach_sole(struct flip_batch *b,
					struct vm_area_struct *vma,
					struct folio *folio, pte_t *ptep,
					unsigned long addr)
{
	pte_t pte;

	if (!detach_room(b, 1))
		return 0;
	pte = ptep_get_and_clear(vma->vm_mm, addr, ptep);
	if (!folio_ref_freeze(folio, 1)) {
		set_pte_at(vma->vm_mm, addr, ptep, pte);
		return flip_stop(b, reference_reason(folio), PAGE_SIZE);
	}
	detach_folio(b, folio, 1);
	return 1;
}

static long detach_small(struct flip_batch *b, struct vm_area_struct *vma,
			 struct folio *folio, pte_t *ptep, unsigned long addr)
{
	enum page_flip_reason reason = folio_obstacle(folio);

	if (!reason)
		reason = folio_sole(b, folio, 1);
	if (reason)
		return flip_stop(b, reason, PAGE_SIZE);
	return detach_sole(b, vma, folio, ptep, addr);
}

/*
 * Nearly all pages are that of a small anonymous folio that only we map and that
 * nothing keeps here.  One look at the flags is enough to find it; or %NULL.
 */
static struct folio *plain_folio(struct page *page)
{
	const unsigned long good = BIT(PG_swapbacked) | BIT(PG_anon_exclusive);
	const unsigned long bad = BIT(PG_head) | BIT(PG_swapcache) |
				  BIT(PG_mlocked) | BIT(PG_writeback) |
				  PAGE_TAGGED | __PG_HWPOISON;
	struct folio *folio = (struct folio *)page;

	if (IS_ENABLED(CONFIG_CMA) || PageTail(page) ||
	    (page->flags.f & (good | bad)) != good ||
	    page_zonenum(page) >= ZONE_MOVABLE)
		return NULL;
	if (((unsigned long)folio->mapping & FOLIO_MAPPING_FLAGS) !=
		    FOLIO_MAPPING_ANON ||
	    folio_ref_count(folio) != 1)
		return NULL;
	return folio;
}

/* What faulting the page in, or writing over it, would not mend. */
static int nonpresent_error(pte_t pte)
{
	softleaf_t entry = softleaf_from_pte(pte);

	if (softleaf_is_hwpoison(entry) || softleaf_is_poison_marker(entry))
		return -EHWPOISON;
	if (softleaf_is_guard_marker(entry))
		return -EFAULT;
	return 0;
}

static long detach_unusual(struct flip_batch *b, struct vm_area_struct *vma,
			   pte_t *ptep, pte_t pte, unsigned long addr,
			   unsigned long end)
{
	struct folio *folio;
	struct page *page;

	/* What a zero page shows stays where it is: it is nobody's. */
	if (pte_present(pte) && is_zero_pfn(pte_pfn(pte)))
		return detach_hole(b, 1);
	if (!pte_present(pte))
		return nonpresent_error(pte) ?: -EAGAIN;
	/* All that vm_normal_page() would ask in such a vma. */
	if (unlikely(pte_special(pte)))
		return flip_stop(b, PAGE_FLIP_PFN, PAGE_SIZE);

	page = pte_page(pte);
	folio = page_folio(page);
	if (unlikely(folio_contain_hwpoisoned_page(folio)))
		return -EHWPOISON;
	if (unlikely(folio_test_ksm(folio)))
		return flip_stop(b, PAGE_FLIP_KSM, PAGE_SIZE);
	if (unlikely(!folio_test_anon(folio)))
		return flip_stop(b, PAGE_FLIP_FILE, PAGE_SIZE);
	if (!PageAnonExclusive(page))
		return flip_stop(b, PAGE_FLIP_FORKED, PAGE_SIZE);
	if (folio_test_large(folio))
		return detach_large(b, vma, folio, ptep, pte, addr, end);
	return detach_small(b, vma, folio, ptep, addr);
}

/*
 * Pages that left, from this entry on; 0 with a reason or for lack of room;
 * -EAGAIN: let the page fault in.
 */
static long detach_pte(struct flip_batch *b, struct vm_area_struct *vma,
		       pte_t *ptep, unsigned long addr, unsigned long end)
{
	pte_t pte = ptep_get(ptep);
	struct folio *folio;

	if (pte_none(pte))
		return detach_hole(b, 1);
	if (likely(pte_present(pte) && !pte_special(pte))) {
		folio = plain_folio(pte_page(pte));
		if (likely(folio))
			return detach_sole(b, vma, folio, ptep, addr);
	}
	return detach_unusual(b, vma, ptep, pte, addr, end);
}

static long detach_ptes(struct flip_batch *b, struct vm_area_struct *vma,
			pmd_t *pmd, unsigned long start, unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;
	unsigned int pages = b->pages;
	unsigned long addr = start;
	spinlock_t *ptl;
	pte_t *ptep;
	long n = 0;

	ptep = pte_offset_map_lock(mm, pmd, start, &ptl);
	if (!ptep)
		return -EAGAIN;
	/* The OOM reaper must not turn data into holes. */
	if (unlikely(check_stable_address_space(mm))) {
		pte_unmap_unlock(ptep, ptl);
		return -EFAULT;
	}
	flush_cache_range(vma, start, end);
	flush_tlb_batched_pending(mm);
	lazy_mmu_mode_enable();
	while (addr < end && b->nr < b->max) {
		n = detach_pte(b, vma, ptep, addr, end);
		if (n <= 0)
			break;
		ptep += n;
		addr += n * PAGE_SIZE;
	}
	lazy_mmu_mode_disable();
	if (b->pages != pages)
		flush_tlb_range(vma, start, addr);
	pte_unmap_unlock(addr < end ? ptep : ptep - 1, ptl);
	return addr > start ? addr - start : n;
}

/* Holes for [addr, end), as many as there is room for. */
static long detach_holes(struct flip_batch *b, unsigned long addr,
			 unsigned long end)
{
	unsigned long start = addr;

	if (end - addr == PMD_SIZE && flip_pmd_holes()) {
		detach_hole(b, FLIP_PMD_PAGES);
		return PMD_SIZE;
	}
	for (; addr < end && b->nr < b->max; addr += PAGE_SIZE)
		detach_hole(b, 1);
	return addr - start;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static enum page_flip_reason pmd_obstacle(struct flip_batch *b,
					  struct folio *folio)
{
	enum page_flip_reason reason = folio_obstacle(folio);

	if (!PageAnonExclusive(&folio->page) || folio_mapcount(folio) != 1)
		return PAGE_FLIP_FORKED;
	if (!flip_large_folios())
		return PAGE_FLIP_PARTIAL;
	return reason ?: folio_sole(b, folio, 1);
}

static long detach_huge_page(struct flip_batch *b, struct vm_area_struct *vma,
			     pmd_t *pmd, unsigned long addr)
{
	struct folio *folio = page_folio(pmd_page(*pmd));
	struct mm_struct *mm = vma->vm_mm;
	enum page_flip_reason reason;
	pmd_t old;

	if (unlikely(folio_contain_hwpoisoned_page(folio)))
		return -EHWPOISON;
	reason = pmd_obstacle(b, folio);
	if (reason)
		return flip_stop(b, reason, PMD_SIZE);
	if (!detach_room(b, HPAGE_PMD_NR))
		return 0;

	flush_cache_range(vma, addr, addr + PMD_SIZE);
	flush_tlb_batched_pending(mm);
	old = pmdp_huge_clear_flush(vma, addr, pmd);
	if (!folio_ref_freeze(folio, 1)) {
		set_pmd_at(mm, addr, pmd, old);
		return flip_stop(b, reference_reason(folio), PMD_SIZE);
	}
	pte_free(mm, pgtable_trans_huge_withdraw(mm, pmd));
	mm_dec_nr_ptes(mm);
	detach_folio(b, folio, HPAGE_PMD_NR);
	return PMD_SIZE;
}

static long detach_huge(struct flip_batch *b, struct vm_area_struct *vma,
			pmd_t *pmd, unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;

	if (!pmd_present(*pmd))
		return -EAGAIN;
	if (unlikely(check_stable_address_space(mm)))
		return -EFAULT;
	if (is_huge_zero_pmd(*pmd))
		return detach_holes(b, addr, end);
	if (end - addr != PMD_SIZE)
		return flip_stop(b, PAGE_FLIP_PARTIAL, end - addr);
	return detach_huge_page(b, vma, pmd, addr);
}
#else
static long detach_huge(struct flip_batch *b, struct vm_area_struct *vma,
			pmd_t *pmd, unsigned long addr, unsigned long end)
{
	return -EAGAIN;
}
#endif

static long detach_empty(struct flip_batch *b, struct vm_area_struct *vma,
			 pmd_t *pmd, unsigned long addr, unsigned long end)
{
	spinlock_t *ptl = NULL;
	long ret = -EAGAIN;

	/* The lock orders the look at the entry before that at the OOM reaper. */
	if (pmd)
		ptl = pmd_lock(vma->vm_mm, pmd);
	if (!pmd || pmd_none(*pmd)) {
		ret = check_stable_address_space(vma->vm_mm) ? -EFAULT : 0;
		if (!ret)
			ret = detach_holes(b, addr, end);
	}
	if (ptl)
		spin_unlock(ptl);
	return ret;
}

/* [addr, end) is in the reach of one PMD. */
static long detach_pmd(struct flip_batch *b, struct vm_area_struct *vma,
		       unsigned long addr, unsigned long end)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	spinlock_t *ptl;
	long ret;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)))
		return detach_empty(b, vma, pmd, addr, end);
	ptl = pmd_trans_huge_lock(pmd, vma);
	if (!ptl)
		return detach_ptes(b, vma, pmd, addr, end);
	ret = detach_huge(b, vma, pmd, addr, end);
	spin_unlock(ptl);
	return ret;
}

static void detach_run(struct folio **folios, unsigned int nr,
		       struct vm_area_struct *vma)
{
	bool pmd = folio_test_large(folios[0]) &&
		   folio_entire_mapcount(folios[0]);
	unsigned int i;

	folios_forget_anon_rmap(folios, nr, vma,
				pmd ? PGTABLE_LEVEL_PMD : PGTABLE_LEVEL_PTE);
	lru_del_frozen_folios(folios, nr);
	mod_node_page_state(folio_pgdat(folios[0]), NR_FLIP_PAGES,
			    nr * folio_nr_pages(folios[0]));
	for (i = 0; i < nr; i++) {
		struct folio *folio = folios[i];

		folio_unqueue_deferred_split(folio);
		flush_dcache_folio(folio);
		folio->private = (void *)1UL;
		folio_ref_unfreeze(folio, 1);
	}
}

/*
 * The batch leaves the memory management: from here on it is in flight.  Nobody
 * could get at the folios since they were frozen, so page table locks are not
 * needed any more.
 */
static void detach_finish(struct flip_batch *b, struct vm_area_struct *vma)
{
	unsigned int i, nr;

	for (i = 0; i < b->nr_folios; i += nr) {
		for (nr = 1; i + nr < b->nr_folios; nr++)
			if (!flip_alike(b->folio[i], b->folio[i + nr]))
				break;
		detach_run(b->folio + i, nr, vma);
	}
	if (b->pages) {
		add_mm_counter(vma->vm_mm, MM_ANONPAGES, -(long)b->pages);
		count_vm_events(FLIP_GIVEN, b->pages);
	}
	if (b->holes)
		count_vm_events(FLIP_GIVEN_HOLE, b->holes);
}

static long detach_vma(struct flip_batch *b, struct vm_area_struct *vma,
		       unsigned long start, unsigned long end)
{
	struct mmu_notifier_range range;
	unsigned long addr = start;
	long ret = 0;

	b->reason = vma_obstacle(vma);
	if (b->reason)
		return flip_stop(b, b->reason, end - start);
	if (vma_may(vma, VM_READ | VM_WRITE))
		return -EFAULT;

	update_hiwater_rss(vma->vm_mm);
	while (addr < end && b->nr < b->max) {
		unsigned long next = flip_table_end(addr, end);

		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, vma->vm_mm,
					addr, next);
		mmu_notifier_invalidate_range_start(&range);
		ret = detach_pmd(b, vma, addr, next);
		mmu_notifier_invalidate_range_end(&range);
		if (ret > 0)
			addr += ret;
		if (addr != next)
			break;
	}
	b->span = min(b->span, end - addr);
	detach_finish(b, vma);
	return addr > start ? addr - start : ret;
}

/**
 * page_flip_detach - take pages out of the caller's address space
 * @addr: user virtual address, page-aligned
 * @end: where to stop, page-aligned, more than @addr
 * @batch: says how much there is room for; gets what was detached
 *
 * Detaches what it can from @addr on, up to the first obstacle, the end of the
 * vma or of the room in @batch.  Folios go whole or not at all.  Swapped-out
 * pages are read in.  The caller owns what is in @batch then: one reference to
 * each folio, and its page_flip_put(); the folios stay charged to their memcg.
 *
 * If @batch->reason is set, the page after the detached ones has to be copied,
 * and the same holds for @batch->span bytes from there.  It stays where it is.
 *
 * Context: Process context, may sleep; takes the mmap_lock.
 * Return: Bytes detached, which may be 0 if @batch->reason or @batch->limited
 * says so; -EFAULT if nothing is mapped there, or it may not be read and
 * written; -EHWPOISON if the page is poisoned; -EINTR if the caller is being
 * killed.
 */
long page_flip_detach(unsigned long addr, unsigned long end,
		      struct flip_batch *batch)
{
	struct vm_area_struct *vma;
	unsigned int tries = 0;
	long ret;

	batch->nr = 0;
	batch->nr_folios = 0;
	batch->pages = 0;
	batch->holes = 0;
	batch->reason = PAGE_FLIP_MOVES;
	batch->limited = false;
	batch->span = 0;
	do {
		vma = flip_lock_vma(current->mm, addr, false);
		if (IS_ERR(vma)) {
			ret = PTR_ERR(vma);
		} else {
			ret = detach_vma(batch, vma, addr,
					 min(end, vma->vm_end));
			flip_unlock_vma(vma);
		}
		if (ret != -EAGAIN && ret != -ENOENT)
			break;
		if (fault_in_readable((void __user *)addr, 1))
			return -EFAULT;
	} while (++tries < FLIP_RETRIES);

	if (ret == -EAGAIN || ret == -ENOENT)
		ret = flip_stop(batch, PAGE_FLIP_RACE, PAGE_SIZE);
	return ret;
}

/**
 * page_flip_may_give - whether a page of which a part is given may be given
 * @addr: user virtual address
 *
 * Context: Process context, may sleep; takes the mmap_lock.
 * Return: 0; otherwise as page_flip_detach().
 */
int page_flip_may_give(unsigned long addr)
{
	struct vm_area_struct *vma = flip_lock_vma(current->mm, addr, false);
	int ret;

	if (IS_ERR(vma))
		return PTR_ERR(vma) == -ENOENT ? -EFAULT : PTR_ERR(vma);
	ret = vma_obstacle(vma) ? 0 : vma_may(vma, VM_READ | VM_WRITE);
	flip_unlock_vma(vma);
	return ret;
}

/* One vma that pages are attached to. */
struct attach {
	struct flip_batch *b;
	struct vm_area_struct *vma;
	struct mem_cgroup_adoption adoption;
	/* The next folios go to a PMD each, and what they deposit there. */
	bool pmd;
	unsigned int nr_tables;
	pgtable_t tables[ATTACH_PMDS];
};

static bool dest_busy(struct flip_batch *b, struct folio *folio)
{
	if (likely(folio_ref_count(folio) == folio_expected_ref_count(folio)))
		return false;
	if (!b->drained) {
		b->drained = true;
		lru_add_drain();
	}
	return folio_ref_count(folio) != folio_expected_ref_count(folio);
}

/*
 * Whether what is mapped at the destination may be replaced: 1, or 0 if a
 * device or somebody else may be writing to it, or an error.
 */
static int dest_pte_ok(struct attach *a, unsigned long addr, pte_t pte)
{
	struct folio *folio;

	if (!pte_present(pte))
		return nonpresent_error(pte) ?: 1;
	folio = vm_normal_folio(a->vma, addr, pte);
	return !folio || !dest_busy(a->b, folio);
}

/*
 * Destinations are looked at before they are zapped: bytes from @addr on that
 * may be.  *@used: something is there.
 */
static long dest_scan_ptes(struct attach *a, pmd_t *pmd, unsigned long start,
			   unsigned long end, bool *used)
{
	unsigned long addr = start;
	spinlock_t *ptl;
	pte_t *ptep;
	int ok = 1;

	ptep = pte_offset_map_lock(a->vma->vm_mm, pmd, addr, &ptl);
	if (!ptep)
		return -EAGAIN;
	for (; addr < end; addr += PAGE_SIZE) {
		pte_t pte = ptep_get(ptep + ((addr - start) >> PAGE_SHIFT));

		if (pte_none(pte))
			continue;
		ok = dest_pte_ok(a, addr, pte);
		if (ok <= 0)
			break;
		*used = true;
	}
	pte_unmap_unlock(ptep, ptl);
	return ok < 0 && addr == start ? ok : addr - start;
}

static long dest_scan_huge(struct attach *a, pmd_t *pmd, unsigned long len)
{
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (pmd_present(*pmd) && !is_huge_zero_pmd(*pmd) &&
	    dest_busy(a->b, page_folio(pmd_page(*pmd))))
		return 0;
#endif
	return len;
}

static long dest_scan_pmd(struct attach *a, unsigned long addr,
			  unsigned long end, bool *used)
{
	pmd_t *pmd = mm_find_pmd(a->vma->vm_mm, addr);
	spinlock_t *ptl;
	long ret;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)))
		return end - addr;
	ptl = pmd_trans_huge_lock(pmd, a->vma);
	if (!ptl) {
		/* An empty table would be in the way of a PMD. */
		if (end - addr == PMD_SIZE)
			*used = true;
		return dest_scan_ptes(a, pmd, addr, end, used);
	}
	*used = true;
	ret = dest_scan_huge(a, pmd, end - addr);
	spin_unlock(ptl);
	return ret;
}

/* @tables: the emptied page tables are of no use to what comes. */
static void dest_zap(struct vm_area_struct *vma, unsigned long addr,
		     unsigned long end, bool tables)
{
	struct zap_details details = { .reclaim_pt = tables };
	struct mmu_gather tlb;

	tlb_gather_mmu(&tlb, vma->vm_mm);
	zap_vma_range_batched(&tlb, vma, addr, end - addr, &details);
	tlb_finish_mmu(&tlb);
}

/*
 * Empty the first part of the destination that may be emptied, in multiples of
 * @unit: bytes, 0 if there are none, or an error.
 */
static long dest_clear(struct attach *a, unsigned long start, unsigned long end,
		       unsigned long unit, bool tables)
{
	unsigned long addr = start;
	bool used = false;
	long n = 0;

	while (addr < end) {
		unsigned long next = flip_table_end(addr, end);

		n = dest_scan_pmd(a, addr, next, &used);
		if (n > 0)
			addr += n;
		if (addr != next)
			break;
	}
	if (n < 0 && addr == start)
		return n;
	addr -= (addr - start) % unit;
	if (used && addr > start)
		dest_zap(a->vma, start, addr, tables);
	return addr - start;
}

static pmd_t *flip_alloc_pmd(struct mm_struct *mm, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;

	return pud ? pmd_alloc(mm, pud, addr) : NULL;
}

static pmd_t *flip_alloc_table(struct mm_struct *mm, unsigned long addr)
{
	pmd_t *pmd = flip_alloc_pmd(mm, addr);

	return pmd && !pte_alloc(mm, pmd) ? pmd : NULL;
}

/* What was frozen here is the taker's: charge, rmap, LRU; not yet mapped. */
static void attach_folios(struct attach *a, struct folio **folios,
			  unsigned int nr, unsigned long addr,
			  enum pgtable_level level)
{
	long nr_pages = nr * folio_nr_pages(folios[0]);

	mem_cgroup_adopt_folios(&a->adoption, folios, nr);
	folios_add_new_anon_rmap(folios, nr, a->vma, addr, level);
	lru_add_frozen_folios(folios, nr);
	mod_node_page_state(folio_pgdat(folios[0]), NR_FLIP_PAGES, -nr_pages);
	add_mm_counter(a->vma->vm_mm, MM_ANONPAGES, nr_pages);
	a->b->pages += nr_pages;
}

/* It can be referenced from now on; whoever maps it holds the lock. */
static void attach_release(struct folio *folio, unsigned int refs)
{
	VM_WARN_ON_FOLIO(!folio_test_uptodate(folio), folio);
	folio->private = NULL;
	folio_ref_unfreeze(folio, refs);
}

static pte_t attach_mk_pte(struct folio *folio, unsigned int nr,
			   struct vm_area_struct *vma)
{
	pte_t pte = pfn_pte(folio_pfn(folio) + nr, vma->vm_page_prot);

	pte = pte_mkdirty(pte_sw_mkyoung(pte));
	if (pgtable_supports_soft_dirty())
		pte = pte_mksoft_dirty(pte);
	return pte_mkwrite(pte, vma);
}

static void attach_set_ptes(struct attach *a, struct folio **folios,
			    unsigned int nr, pte_t *ptep, unsigned long addr)
{
	unsigned int i, nr_pages = folio_nr_pages(folios[0]);
	unsigned long pfn = folio_pfn(folios[0]);
	struct vm_area_struct *vma = a->vma;
	pte_t pte = attach_mk_pte(folios[0], 0, vma);

	for (i = 0; i < nr; i++) {
		struct folio *folio = folios[i];

		/* Where a pte is wider than a long, this does not go back. */
		if (sizeof(pte_t) == sizeof(long))
			pte = pte_advance_pfn(pte, folio_pfn(folio) - pfn);
		else
			pte = attach_mk_pte(folio, 0, vma);
		pfn = folio_pfn(folio);
		attach_release(folio, nr_pages);
		set_ptes(vma->vm_mm, addr, ptep, pte, nr_pages);
		update_mmu_cache_range(NULL, vma, addr, ptep, nr_pages);
		if (folio_test_pmd_mappable(folio))
			deferred_split_folio(folio, false);
		addr += nr_pages * PAGE_SIZE;
		ptep += nr_pages;
	}
}

/* How many entries are empty, from the first on. */
static unsigned int nr_empty(pte_t *ptep, unsigned int max)
{
	unsigned int nr = 0;

	while (nr < max && pte_none(ptep_get(ptep + nr)))
		nr++;
	return nr;
}

/* By entries of one page table. */
static long attach_ptes(struct attach *a, struct folio **folios,
			unsigned int nr, unsigned long addr)
{
	unsigned int nr_pages = folio_nr_pages(folios[0]);
	struct mm_struct *mm = a->vma->vm_mm;
	pmd_t *pmd = flip_alloc_table(mm, addr);
	spinlock_t *ptl;
	pte_t *ptep;
	int err = 0;

	if (!pmd)
		return -ENOMEM;
	ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!ptep)
		return -EAGAIN;
	if (unlikely(check_stable_address_space(mm)))
		err = -EFAULT;
	VM_WARN_ON_ONCE(nr * nr_pages > PTRS_PER_PTE - pte_index(addr));
	nr = err ? 0 : nr_empty(ptep, nr * nr_pages) / nr_pages;
	if (nr) {
		attach_folios(a, folios, nr, addr, PGTABLE_LEVEL_PTE);
		attach_set_ptes(a, folios, nr, ptep, addr);
	}
	pte_unmap_unlock(ptep, ptl);
	return nr ? nr * nr_pages * PAGE_SIZE : err ?: -EAGAIN;
}

/* The part of a folio that one page table maps. */
struct attach_part {
	pmd_t *pmd;
	pmd_t pmdval;
	pte_t *ptep;
	spinlock_t *ptl;
	unsigned long addr;
	unsigned int nr;
};

static bool part_map(struct mm_struct *mm, struct attach_part *part)
{
	part->ptep = pte_offset_map_rw_nolock(mm, part->pmd, part->addr,
					      &part->pmdval, &part->ptl);
	return part->ptep;
}

/*
 * The second lock is only tried: mremap() takes two of them in the order of what
 * it moves, with the locks of its own vmas, which may lie beside ours.
 */
static bool parts_lock(const struct attach_part *part)
{
	spin_lock(part[0].ptl);
	if (part[0].ptl == part[1].ptl || spin_trylock(part[1].ptl))
		return true;
	spin_unlock(part[0].ptl);
	return false;
}

static void parts_unlock(const struct attach_part *part)
{
	if (part[0].ptl != part[1].ptl)
		spin_unlock(part[1].ptl);
	spin_unlock(part[0].ptl);
}

static bool part_empty(const struct attach_part *part)
{
	return pmd_same(part->pmdval, pmdp_get_lockless(part->pmd)) &&
	       nr_empty(part->ptep, part->nr) == part->nr;
}

static void part_set(struct attach *a, struct folio *folio, unsigned int first,
		     const struct attach_part *part)
{
	struct vm_area_struct *vma = a->vma;

	set_ptes(vma->vm_mm, part->addr, part->ptep,
		 attach_mk_pte(folio, first, vma), part->nr);
	update_mmu_cache_range(NULL, vma, part->addr, part->ptep, part->nr);
}

static int attach_parts_locked(struct attach *a, struct folio *folio,
			       const struct attach_part *part)
{
	unsigned int nr = folio_nr_pages(folio);

	if (unlikely(check_stable_address_space(a->vma->vm_mm)))
		return -EFAULT;
	if (!part_empty(&part[0]) || !part_empty(&part[1]))
		return -EAGAIN;
	attach_folios(a, &folio, 1, part[0].addr, PGTABLE_LEVEL_PTE);
	attach_release(folio, nr);
	part_set(a, folio, 0, &part[0]);
	part_set(a, folio, part[0].nr, &part[1]);
	if (folio_test_pmd_mappable(folio))
		deferred_split_folio(folio, false);
	return 0;
}

/* @folio by entries of two page tables: it crosses from one into the next. */
static long attach_parts(struct attach *a, struct folio *folio,
			 unsigned long addr)
{
	unsigned long end = addr + folio_size(folio);
	unsigned long mid = flip_table_end(addr, end);
	struct mm_struct *mm = a->vma->vm_mm;
	struct attach_part part[2] = {
		{ .addr = addr, .nr = (mid - addr) >> PAGE_SHIFT },
		{ .addr = mid, .nr = (end - mid) >> PAGE_SHIFT },
	};
	long err = -EAGAIN;

	part[0].pmd = flip_alloc_table(mm, addr);
	part[1].pmd = flip_alloc_table(mm, mid);
	if (!part[0].pmd || !part[1].pmd)
		return -ENOMEM;
	if (!part_map(mm, &part[0]))
		return -EAGAIN;
	if (part_map(mm, &part[1])) {
		if (parts_lock(part)) {
			err = attach_parts_locked(a, folio, part);
			parts_unlock(part);
		}
		pte_unmap(part[1].ptep);
	}
	pte_unmap(part[0].ptep);
	return err ?: end - addr;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static bool attach_suits_pmd(struct attach *a, struct folio *folio,
			     unsigned long addr)
{
	return folio_test_pmd_mappable(folio) && !thp_disabled_by_hw() &&
	       thp_vma_suitable_order(a->vma, addr, PMD_ORDER) &&
	       IS_ALIGNED(addr, PMD_SIZE) &&
	       !vma_thp_disabled(a->vma, a->vma->vm_flags, false);
}

/* How many PMDs are empty, from the first on. */
static unsigned int nr_empty_pmds(pmd_t *pmd, unsigned int max)
{
	unsigned int nr = 0;

	while (nr < max && pmd_none(pmdp_get_lockless(pmd + nr)))
		nr++;
	return nr;
}

static void attach_set_pmd(struct attach *a, struct folio *folio, pmd_t *pmd,
			   unsigned long addr, pgtable_t table)
{
	struct vm_area_struct *vma = a->vma;
	struct mm_struct *mm = vma->vm_mm;
	pmd_t entry = folio_mk_pmd(folio, vma->vm_page_prot);

	entry = maybe_pmd_mkwrite(pmd_mkdirty(entry), vma);
	if (pgtable_supports_soft_dirty())
		entry = pmd_mksoft_dirty(entry);
	attach_release(folio, 1);
	pgtable_trans_huge_deposit(mm, pmd, table);
	mm_inc_nr_ptes(mm);
	set_pmd_at(mm, addr, pmd, entry);
	update_mmu_cache_pmd(vma, addr, pmd);
	deferred_split_folio(folio, false);
}

static long attach_pmds_locked(struct attach *a, struct folio **folios,
			       unsigned int nr, pmd_t *pmd, unsigned long addr)
{
	unsigned int i;

	if (unlikely(check_stable_address_space(a->vma->vm_mm)))
		return -EFAULT;
	nr = nr_empty_pmds(pmd, min(nr, a->nr_tables));
	if (!nr)
		return -EAGAIN;
	attach_folios(a, folios, nr, addr, PGTABLE_LEVEL_PMD);
	for (i = 0; i < nr; i++)
		attach_set_pmd(a, folios[i], pmd + i, addr + i * PMD_SIZE,
			       a->tables[--a->nr_tables]);
	return nr * PMD_SIZE;
}

/* A PMD each, of one table of PMDs. */
static long attach_pmds(struct attach *a, struct folio **folios,
			unsigned int nr, unsigned long addr)
{
	struct mm_struct *mm = a->vma->vm_mm;
	pmd_t *pmd = flip_alloc_pmd(mm, addr);
	spinlock_t *ptl;
	long ret;

	if (!pmd)
		return -ENOMEM;
	ptl = pmd_lock(mm, pmd);
	ret = attach_pmds_locked(a, folios, nr, pmd, addr);
	spin_unlock(ptl);
	return ret;
}

/* For as many as are empty, or for one that is emptied; none is an error. */
static int attach_alloc_tables(struct attach *a, unsigned long addr,
			       unsigned int max)
{
	struct mm_struct *mm = a->vma->vm_mm;
	pmd_t *pmd;

	if (!a->pmd)
		return 0;
	pmd = flip_alloc_pmd(mm, addr);
	if (!pmd)
		return -ENOMEM;
	max = max(nr_empty_pmds(pmd, max), 1U);
	for (; a->nr_tables < max; a->nr_tables++) {
		a->tables[a->nr_tables] = pte_alloc_one(mm);
		if (!a->tables[a->nr_tables])
			break;
	}
	return a->nr_tables ? 0 : -ENOMEM;
}

static void attach_free_tables(struct attach *a)
{
	while (a->nr_tables)
		pte_free(a->vma->vm_mm, a->tables[--a->nr_tables]);
}
#else
static bool attach_suits_pmd(struct attach *a, struct folio *folio,
			     unsigned long addr)
{
	return false;
}

static long attach_pmds(struct attach *a, struct folio **folios,
			unsigned int nr, unsigned long addr)
{
	return -EAGAIN;
}

static int attach_alloc_tables(struct attach *a, unsigned long addr,
			       unsigned int max)
{
	return 0;
}

static void attach_free_tables(struct attach *a)
{
}
#endif

/*
 * @again: PMDs were tried before, and something was in the way.  What is
 * attached may be gone then.
 */
static long attach_step(struct attach *a, struct folio **folios,
			unsigned int nr, unsigned long addr, bool again)
{
	unsigned long end = addr + folio_size(folios[0]);
	long ret;

	if (a->pmd) {
		ret = attach_pmds(a, folios, nr, addr);
		if (ret != -EAGAIN || !again)
			return ret;
	}
	if (flip_table_end(addr, end) != end)
		return attach_parts(a, folios[0], addr);
	return attach_ptes(a, folios, nr, addr);
}

static long attach_hole(struct attach *a, unsigned long addr,
			unsigned long size)
{
	long n;

	if (unlikely(check_stable_address_space(a->vma->vm_mm)))
		return -EFAULT;
	n = dest_clear(a, addr, addr + size, PAGE_SIZE, true);
	if (n > 0)
		a->b->holes += n >> PAGE_SHIFT;
	return n ?: flip_stop(a->b, PAGE_FLIP_DESTBUSY, PAGE_SIZE);
}

/* The last byte that the next folios may take which are attached in one step. */
static unsigned long attach_reach(struct attach *a, struct folio *folio,
				  unsigned long addr)
{
	if (a->pmd)
		return addr +
		       min(~PUD_MASK & ~addr, ATTACH_PMDS * PMD_SIZE - 1);
	return addr + max(~PMD_MASK & ~addr, folio_size(folio) - 1);
}

/* How many folios of the size of this one fit in there. */
static unsigned int attach_room(struct attach *a, struct folio *folio,
				unsigned long addr, unsigned long end)
{
	unsigned long reach = attach_reach(a, folio, addr);

	return (min(end - 1, reach) + 1 - addr) / folio_size(folio);
}

/*
 * Items from the first on, which is a folio, that are alike and that nobody else
 * refers to; or why not one.
 */
static long attach_freeze(struct folio **items, unsigned int max)
{
	int err = 0;
	long nr;

	for (nr = 0; nr < max && !flip_is_hole(items[nr]); nr++) {
		if (!folio_ref_freeze(items[nr], 1))
			return nr ?: -EBUSY;
		if (unlikely(page_flip_poisoned(items[nr])))
			err = -EHWPOISON;
		if (err || !flip_alike(items[0], items[nr])) {
			folio_ref_unfreeze(items[nr], 1);
			return nr ?: err;
		}
	}
	return nr;
}

static void attach_unfreeze(struct folio **folios, unsigned int nr)
{
	while (nr--)
		folio_ref_unfreeze(folios[nr], 1);
}

static int attach_charge(struct attach *a, struct folio *folio, unsigned int nr)
{
	return mem_cgroup_adopt_prepare(&a->adoption, a->vma->vm_mm, folio, nr,
					GFP_KERNEL | __GFP_RETRY_MAYFAIL |
						__GFP_NOWARN);
}

/*
 * Frozen and charged folios to where they go; the destination is emptied only
 * now that nothing else can be in the way.
 */
static long attach_charged(struct attach *a, struct folio **folios,
			   unsigned int nr, unsigned long addr)
{
	unsigned long size = folio_size(folios[0]);
	unsigned int tries;
	long ret;

	for (tries = 0; tries < FLIP_RETRIES; tries++) {
		ret = attach_step(a, folios, nr, addr, tries);
		if (ret != -EAGAIN)
			return ret;
		/* It may take PTEs in the end, which is one at a time. */
		if (a->pmd)
			nr = 1;
		ret = dest_clear(a, addr, addr + nr * size, size, a->pmd);
		if (!ret)
			return flip_stop(a->b, PAGE_FLIP_DESTBUSY, size);
		if (ret > 0)
			nr = ret / size;
		else if (ret != -EAGAIN)
			return ret;
	}
	return flip_stop(a->b, PAGE_FLIP_RACE, size);
}

/* Folios from @first on, as many as go in one step: bytes, 0 or an error. */
static long attach_items(struct attach *a, unsigned int first,
			 unsigned long addr, unsigned long end)
{
	struct folio **folios = a->b->item + first;
	size_t size = folio_size(folios[0]);
	unsigned int max;
	long ret, nr;

	/* Once: prctl() may change it meanwhile. */
	a->pmd = attach_suits_pmd(a, folios[0], addr);
	max = min(attach_room(a, folios[0], addr, end), a->b->nr - first);
	if (!max)
		return flip_stop(a->b, PAGE_FLIP_SHORT, end - addr);
	nr = attach_freeze(folios, max);
	if (nr == -EBUSY)
		return flip_stop(a->b, PAGE_FLIP_TEED, size);
	if (nr < 0)
		return nr;

	ret = attach_charge(a, folios[0], nr);
	if (ret && nr > 1) {
		/* Almost no room left in the memcg: one at a time. */
		attach_unfreeze(folios + 1, nr - 1);
		nr = 1;
		ret = attach_charge(a, folios[0], nr);
	}
	if (!ret) {
		ret = attach_alloc_tables(a, addr, nr);
		if (!ret)
			ret = attach_charged(a, folios, nr, addr);
		attach_free_tables(a);
		mem_cgroup_adopt_finish(&a->adoption);
	}
	max = ret > 0 ? ret / size : 0;
	attach_unfreeze(folios + max, nr - max);
	return ret;
}

static unsigned long item_size(struct folio *item)
{
	if (flip_is_hole(item))
		return flip_hole_pages(item) * PAGE_SIZE;
	return folio_size(item);
}

static long attach_vma(struct flip_batch *b, struct vm_area_struct *vma,
		       unsigned long start, unsigned long end)
{
	struct attach a = { .b = b, .vma = vma };
	unsigned long addr = start;
	unsigned int i = 0;
	long ret = 0;

	if (vma_may(vma, VM_WRITE))
		return -EFAULT;
	b->reason = vma_obstacle(vma);
	if (b->reason)
		return flip_stop(b, b->reason, end - start);

	khugepaged_enter_vma(vma, vma->vm_flags);
	while (i < b->nr && addr < end) {
		unsigned long size = item_size(b->item[i]);

		if (flip_is_hole(b->item[i]))
			ret = attach_hole(&a, addr, min(size, end - addr));
		else
			ret = attach_items(&a, i, addr, end);
		if (ret <= 0)
			break;
		addr += ret;
		/* Of a hole it may be a part. */
		if (ret < size)
			break;
		i += ret / size;
	}
	b->span = min(b->span, end - addr);
	return addr > start ? addr - start : ret;
}

/**
 * page_flip_attach - map pages into the caller's address space
 * @addr: user virtual address, page-aligned
 * @end: where to stop, page-aligned, more than @addr
 * @batch: what is to be attached, one after the other, from @addr on
 *
 * Replaces what is mapped at the destination.  Attaches as many of the items as
 * it can, in order; of a hole also a part, whole pages.  What was attached is
 * not the caller's any more, neither its reference nor its page_flip_put(), and
 * is charged to the memcg of the caller's mm.  The rest is as it was.
 *
 * If @batch->reason is set, the next item cannot be attached but has to be
 * copied, and the same holds for @batch->span bytes from there on.
 *
 * Context: Process context, may sleep; takes the mmap_lock.
 * Return: Bytes attached, which may be 0 if @batch->reason says so; -EFAULT if
 * nothing is mapped there or it may not be written; -ENOMEM if the memcg is
 * full or there is no memory for page tables; -EHWPOISON if the page is
 * poisoned; -EINTR if the caller is being killed.  A memcg that has no room for
 * page tables or the anon_vma may kill, as in a page fault.
 */
long page_flip_attach(unsigned long addr, unsigned long end,
		      struct flip_batch *batch)
{
	struct vm_area_struct *vma;
	unsigned int tries = 0;
	long ret;

	batch->pages = 0;
	batch->holes = 0;
	batch->reason = PAGE_FLIP_MOVES;
	batch->span = 0;
	do {
		vma = flip_lock_vma(current->mm, addr, true);
		if (IS_ERR(vma)) {
			ret = PTR_ERR(vma);
		} else {
			ret = attach_vma(batch, vma, addr,
					 min(end, vma->vm_end));
			flip_unlock_vma(vma);
		}
		if (ret != -EAGAIN && ret != -ENOENT)
			break;
		if (fault_in_writeable((void __user *)addr, 1))
			return -EFAULT;
	} while (++tries < FLIP_RETRIES);

	if (ret == -EAGAIN || ret == -ENOENT)
		ret = flip_stop(batch, PAGE_FLIP_RACE, PAGE_SIZE);
	if (batch->pages)
		count_vm_events(FLIP_TAKEN, batch->pages);
	if (batch->holes)
		count_vm_events(FLIP_TAKEN_HOLE, batch->holes);
	return ret;
}
