// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver whose buffer user space reads, writes, maps and splices, with memory
 * of every kind that such a driver may have.  It has no hardware, and is for
 * the tests of this directory and for whoever wants to copy from it:
 * Documentation/mm/mapping-kernel-buffers.rst says what to choose.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cacheflush.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/kref.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/pipe_fs_i.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/vmalloc.h>

#include "splice_kbuf.h"

/**
 * DOC: Lifetime
 *
 * An open file gets one buffer, by SPLICE_KBUF_ALLOC, and never another one.
 * What refers to what:
 *
 * * A mapping holds its file, the file holds the module: the module stays as
 *   long as anything is mapped.
 * * The file and each mapping have a reference to the buffer, which goes with
 *   the last of them.  Only then are pages freed that are mapped without a
 *   reference of their own (SPLICE_KBUF_REMAP_PFN).
 * * Whatever else meets a page has a reference to the page: page table entries
 *   in the other modes, pipes, the network, get_user_pages().  Such a page is
 *   freed when the last of these goes, which may be after the buffer, and
 *   after the module.
 *
 * No lock is needed: the buffer does not change, its contents are as safe from
 * two writers as those of any shared memory, and the counters are atomic.
 */

/* User space decides about it, so it pays for it, and never sees old data. */
#define KBUF_GFP (GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_ZERO)

/**
 * struct kbuf - a buffer
 * @ref: one of the file, one of each mapping
 * @mode: what it is made of, how it is mapped
 * @area: where the kernel sees all of it, NULL unless it is vmalloc memory
 * @from: see &struct splice_kbuf_page
 * @mapped: these five: see &struct splice_kbuf_stat
 * @opened: a counter
 * @closed: a counter
 * @faults: a counter
 * @huge_faults: a counter
 * @nr_pages: its size
 * @pages: each has a reference, or is part of a folio that has one
 */
struct kbuf {
	struct kref ref;
	enum splice_kbuf_mode mode;
	void *area;
	unsigned long *from;
	atomic64_t mapped;
	atomic64_t opened;
	atomic64_t closed;
	atomic64_t faults;
	atomic64_t huge_faults;
	unsigned long nr_pages;
	struct page *pages[] __counted_by(nr_pages);
};

/* Buffers that there are, to find one that was forgotten. */
static atomic_t kbuf_buffers;

static int kbuf_alloc_single(struct kbuf *buf)
{
	unsigned long i;

	for (i = 0; i < buf->nr_pages; i++) {
		buf->pages[i] = alloc_page(KBUF_GFP);
		if (!buf->pages[i])
			return -ENOMEM;
	}
	return 0;
}

/*
 * Neighbours, for hardware that wants them.  Without split_page() only the
 * first one of them would have a reference count, and nobody could refer to
 * another one.
 */
static int kbuf_alloc_contiguous(struct kbuf *buf)
{
	unsigned int order = get_order(buf->nr_pages << PAGE_SHIFT);
	struct page *page = alloc_pages(KBUF_GFP | __GFP_NOWARN, order);
	unsigned long i;

	if (!page)
		return -ENOMEM;
	split_page(page, order);
	for (i = 0; i < buf->nr_pages; i++)
		buf->pages[i] = page + i;
	for (; i < 1UL << order; i++)
		__free_page(page + i);
	return 0;
}

static void kbuf_free_single(struct kbuf *buf)
{
	unsigned long i;

	for (i = 0; i < buf->nr_pages; i++)
		if (buf->pages[i])
			__free_page(buf->pages[i]);
}

static int kbuf_alloc_vmalloc(struct kbuf *buf)
{
	unsigned long i;

	buf->area = vmalloc_user(buf->nr_pages << PAGE_SHIFT);
	if (!buf->area)
		return -ENOMEM;
	for (i = 0; i < buf->nr_pages; i++)
		buf->pages[i] = vmalloc_to_page(buf->area + (i << PAGE_SHIFT));
	return 0;
}

static void kbuf_free_vmalloc(struct kbuf *buf)
{
	vfree(buf->area);
}

static int kbuf_alloc_folio(struct kbuf *buf)
{
	struct folio *folio;
	unsigned long i;

	if (!is_power_of_2(buf->nr_pages))
		return -EINVAL;
	folio = folio_alloc(KBUF_GFP | __GFP_NOWARN, ilog2(buf->nr_pages));
	if (!folio)
		return -ENOMEM;
	for (i = 0; i < buf->nr_pages; i++)
		buf->pages[i] = folio_page(folio, i);
	return 0;
}

static void kbuf_free_folio(struct kbuf *buf)
{
	if (buf->pages[0])
		folio_put(page_folio(buf->pages[0]));
}

static const struct {
	int (*alloc)(struct kbuf *buf);
	/* Also of what alloc() left when it failed. */
	void (*free)(struct kbuf *buf);
	/* Mapped as a whole by mmap(), else page by page when touched. */
	bool premapped;
} kbuf_modes[] = {
	[SPLICE_KBUF_PAGES] = {
		.alloc = kbuf_alloc_single,
		.free = kbuf_free_single,
	},
	[SPLICE_KBUF_VMALLOC] = {
		.alloc = kbuf_alloc_vmalloc,
		.free = kbuf_free_vmalloc,
	},
	[SPLICE_KBUF_FOLIO] = {
		.alloc = kbuf_alloc_folio,
		.free = kbuf_free_folio,
	},
	[SPLICE_KBUF_INSERT_PAGES] = {
		.alloc = kbuf_alloc_contiguous,
		.free = kbuf_free_single,
		.premapped = true,
	},
	[SPLICE_KBUF_REMAP_PFN] = {
		.alloc = kbuf_alloc_contiguous,
		.free = kbuf_free_single,
		.premapped = true,
	},
	[SPLICE_KBUF_REMAP_VMALLOC] = {
		.alloc = kbuf_alloc_vmalloc,
		.free = kbuf_free_vmalloc,
		.premapped = true,
	},
};

static void kbuf_release(struct kref *ref)
{
	struct kbuf *buf = container_of(ref, struct kbuf, ref);

	kbuf_modes[buf->mode].free(buf);
	kvfree(buf->from);
	kvfree(buf);
	atomic_dec(&kbuf_buffers);
}

static void kbuf_put(struct kbuf *buf)
{
	kref_put(&buf->ref, kbuf_release);
}

static struct kbuf *kbuf_new(enum splice_kbuf_mode mode, unsigned long nr_pages)
{
	struct kbuf *buf;
	int err = -ENOMEM;

	buf = kvzalloc_flex(*buf, pages, nr_pages, GFP_KERNEL_ACCOUNT);
	if (!buf)
		return ERR_PTR(-ENOMEM);
	atomic_inc(&kbuf_buffers);
	kref_init(&buf->ref);
	buf->mode = mode;
	buf->nr_pages = nr_pages;
	buf->from = kvcalloc(nr_pages, sizeof(*buf->from), GFP_KERNEL_ACCOUNT);
	if (buf->from)
		err = kbuf_modes[mode].alloc(buf);
	if (!err)
		return buf;
	kbuf_put(buf);
	return ERR_PTR(err);
}

/* NULL: none yet. */
static struct kbuf *kbuf_of(const struct file *file)
{
	/* Pairs with cmpxchg_release() in kbuf_ioctl_alloc(). */
	return smp_load_acquire(&file->private_data);
}

static loff_t kbuf_size(const struct kbuf *buf)
{
	return (loff_t)buf->nr_pages << PAGE_SHIFT;
}

/* How much of @len bytes at @pos is in one page; 0 behind the end. */
static size_t kbuf_part(const struct kbuf *buf, loff_t pos, size_t len)
{
	if (pos >= kbuf_size(buf))
		return 0;
	return min(len, PAGE_SIZE - offset_in_page(pos));
}

static struct page *kbuf_page(const struct kbuf *buf, loff_t pos)
{
	return buf->pages[pos >> PAGE_SHIFT];
}

/*
 * Mapping.  An area may begin anywhere in the buffer.  One with a fault handler
 * may end behind it, as that of a file may, and touching what is not there is
 * SIGBUS; the others must be filled here and now.
 */
static int kbuf_may_map(const struct kbuf *buf, pgoff_t pgoff,
			unsigned long nr_pages)
{
	if (!buf)
		return -ENXIO;
	if (pgoff >= buf->nr_pages)
		return -EINVAL;
	if (kbuf_modes[buf->mode].premapped && nr_pages > buf->nr_pages - pgoff)
		return -EINVAL;
	return 0;
}

/*
 * Here is where a new mapping gets its reference: before, in mmap_prepare(), it
 * may still fail or be merged with its neighbour.  If mapping the pages fails
 * this is not called, but kbuf_vm_close() is.
 */
static int kbuf_vm_mapped(unsigned long start, unsigned long end, pgoff_t pgoff,
			  const struct file *file, void **private_data)
{
	struct kbuf *buf = kbuf_of(file);

	kref_get(&buf->ref);
	atomic64_inc(&buf->mapped);
	*private_data = buf;
	return 0;
}

/* There is one mapping more, by fork, mremap() or since one was split. */
static void kbuf_vm_open(struct vm_area_struct *vma)
{
	struct kbuf *buf = vma->vm_private_data;

	kref_get(&buf->ref);
	atomic64_inc(&buf->opened);
}

static void kbuf_vm_close(struct vm_area_struct *vma)
{
	struct kbuf *buf = vma->vm_private_data;

	if (!buf)
		return;
	atomic64_inc(&buf->closed);
	kbuf_put(buf);
}

static vm_fault_t kbuf_vm_fault(struct vm_fault *vmf)
{
	struct kbuf *buf = vmf->vma->vm_private_data;

	if (vmf->pgoff >= buf->nr_pages)
		return VM_FAULT_SIGBUS;
	vmf->page = buf->pages[vmf->pgoff];
	/* The reference of the page table entry, which drops it. */
	get_page(vmf->page);
	atomic64_inc(&buf->faults);
	return 0;
}

/*
 * A folio that fills a PMD, where the area has room for one around the address
 * and is aligned as the folio is.  A private page is copied, a small one.
 */
static vm_fault_t kbuf_vm_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	const unsigned long start = vmf->address & PMD_MASK;
	struct vm_area_struct *vma = vmf->vma;
	struct kbuf *buf = vma->vm_private_data;
	struct folio *folio = page_folio(buf->pages[0]);
	vm_fault_t ret;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || order != PMD_ORDER ||
	    folio_order(folio) != PMD_ORDER)
		return VM_FAULT_FALLBACK;
	if (start < vma->vm_start || vma->vm_end - start < PMD_SIZE ||
	    linear_page_index(vma, start))
		return VM_FAULT_FALLBACK;
	if ((vmf->flags & FAULT_FLAG_WRITE) && !(vma->vm_flags & VM_SHARED))
		return VM_FAULT_FALLBACK;
	ret = vmf_insert_folio_pmd(vmf, folio, vmf->flags & FAULT_FLAG_WRITE);
	if (ret == VM_FAULT_NOPAGE)
		atomic64_inc(&buf->huge_faults);
	return ret;
}

static const struct vm_operations_struct kbuf_fault_ops = {
	.mapped = kbuf_vm_mapped,
	.open = kbuf_vm_open,
	.close = kbuf_vm_close,
	.fault = kbuf_vm_fault,
	.huge_fault = kbuf_vm_huge_fault,
};

static const struct vm_operations_struct kbuf_premapped_ops = {
	.mapped = kbuf_vm_mapped,
	.open = kbuf_vm_open,
	.close = kbuf_vm_close,
};

/*
 * What is said here about the pages is done by the caller once there is an
 * area.  Nothing may be changed or taken: see kbuf_vm_mapped().
 */
static int kbuf_mmap_prepare(struct vm_area_desc *desc)
{
	struct kbuf *buf = kbuf_of(desc->file);
	int err = kbuf_may_map(buf, desc->pgoff, vma_desc_pages(desc));

	if (err)
		return err;
	if (vma_desc_test(desc, VMA_EXEC_BIT))
		return -EPERM;
	vma_desc_clear_flags(desc, VMA_MAYEXEC_BIT);
	desc->vm_ops = &kbuf_premapped_ops;
	switch (buf->mode) {
	case SPLICE_KBUF_REMAP_PFN:
		mmap_action_remap_full(desc,
				       page_to_pfn(buf->pages[desc->pgoff]));
		return 0;
	case SPLICE_KBUF_INSERT_PAGES:
		/* Nobody would map what it grows by. */
		vma_desc_set_flags(desc, VMA_DONTEXPAND_BIT, VMA_DONTDUMP_BIT);
		mmap_action_map_kernel_pages_full(desc,
						  buf->pages + desc->pgoff);
		return 0;
	case SPLICE_KBUF_REMAP_VMALLOC:
		return -ENODEV;
	default:
		desc->vm_ops = &kbuf_fault_ops;
		return 0;
	}
}

/* Areas made by mmap() have no mapped(). */
static const struct vm_operations_struct kbuf_mmap_ops = {
	.open = kbuf_vm_open,
	.close = kbuf_vm_close,
};

static int kbuf_premap(struct kbuf *buf, struct vm_area_struct *vma)
{
	struct page **pages = buf->pages + vma->vm_pgoff;
	unsigned long nr = vma_pages(vma);

	switch (buf->mode) {
	case SPLICE_KBUF_REMAP_PFN:
		return remap_pfn_range(vma, vma->vm_start,
				       page_to_pfn(pages[0]), nr << PAGE_SHIFT,
				       vma->vm_page_prot);
	case SPLICE_KBUF_INSERT_PAGES:
		vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
		return vm_insert_pages(vma, vma->vm_start, pages, &nr);
	case SPLICE_KBUF_REMAP_VMALLOC:
		return remap_vmalloc_range(vma, buf->area, vma->vm_pgoff);
	default:
		return -ENODEV;
	}
}

/*
 * The older way, for what has to have an area in hands.  A new driver wants
 * kbuf_mmap_prepare(); remap_vmalloc_range() has no counterpart there.
 */
static int kbuf_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct kbuf *buf = kbuf_of(file);
	int err = kbuf_may_map(buf, vma->vm_pgoff, vma_pages(vma));

	if (err)
		return err;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);
	/* What was mapped before an error is unmapped by the caller. */
	err = kbuf_premap(buf, vma);
	if (err)
		return err;
	kref_get(&buf->ref);
	atomic64_inc(&buf->mapped);
	vma->vm_private_data = buf;
	vma->vm_ops = &kbuf_mmap_ops;
	return 0;
}

/*
 * Reading, writing and splicing.  flush_dcache_page() is for caches where a
 * page can be at two places at once, the kernel's and user space's: before the
 * kernel reads what user space may have written, and after it writes.
 */
static ssize_t kbuf_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct kbuf *buf = kbuf_of(iocb->ki_filp);
	size_t part, copied;
	ssize_t done = 0;

	if (!buf)
		return -ENXIO;
	while ((part = kbuf_part(buf, iocb->ki_pos, iov_iter_count(to)))) {
		struct page *page = kbuf_page(buf, iocb->ki_pos);

		flush_dcache_page(page);
		copied = copy_page_to_iter(page, offset_in_page(iocb->ki_pos),
					   part, to);
		iocb->ki_pos += copied;
		done += copied;
		if (copied < part)
			return done ?: -EFAULT;
	}
	return done;
}

static ssize_t kbuf_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct kbuf *buf = kbuf_of(iocb->ki_filp);
	size_t part, copied;
	ssize_t done = 0;

	if (!buf)
		return -ENXIO;
	while ((part = kbuf_part(buf, iocb->ki_pos, iov_iter_count(from)))) {
		struct page *page = kbuf_page(buf, iocb->ki_pos);

		copied = copy_page_from_iter(page, offset_in_page(iocb->ki_pos),
					     part, from);
		flush_dcache_page(page);
		iocb->ki_pos += copied;
		done += copied;
		if (copied < part)
			return done ?: -EFAULT;
	}
	return done || !iov_iter_count(from) ? done : -ENOSPC;
}

/*
 * The pipe gets references to the pages, not to the buffer, and operations that
 * are the kernel's own: it may hold them longer than this module is there.
 * Without try_steal() nobody takes such a page for itself.
 */
static ssize_t kbuf_splice_read(struct file *in, loff_t *ppos,
				struct pipe_inode_info *pipe, size_t len,
				unsigned int flags)
{
	struct kbuf *buf = kbuf_of(in);
	ssize_t done = 0, added;
	size_t part;

	if (!buf)
		return -ENXIO;
	while ((part = kbuf_part(buf, *ppos, len - done))) {
		struct pipe_buffer slot = {
			.page = kbuf_page(buf, *ppos),
			.offset = offset_in_page(*ppos),
			.len = part,
			.ops = &nosteal_pipe_buf_ops,
		};

		flush_dcache_page(slot.page);
		get_page(slot.page);
		/* Drops the reference if it fails. */
		added = add_to_pipe(pipe, &slot);
		if (added < 0)
			return done ?: added;
		*ppos += added;
		done += added;
	}
	return done;
}

/*
 * Take what one call can of one pipe buffer, which can hold more than a page:
 * pages of a folio, that follow each other.
 */
static int kbuf_from_pipe(struct pipe_inode_info *pipe,
			  struct pipe_buffer *slot, struct splice_desc *sd)
{
	struct page *from = slot->page + (slot->offset >> PAGE_SHIFT);
	size_t off = offset_in_page(slot->offset);
	struct kbuf *buf = sd->u.data;
	struct page *page;
	size_t part;

	part = kbuf_part(buf, sd->pos, min(sd->len, PAGE_SIZE - off));
	if (!part)
		return -ENOSPC;
	page = kbuf_page(buf, sd->pos);
	memcpy_page(page, offset_in_page(sd->pos), from, off, part);
	flush_dcache_page(page);
	WRITE_ONCE(buf->from[sd->pos >> PAGE_SHIFT], page_to_pfn(from));
	return part;
}

static ssize_t kbuf_splice_write(struct pipe_inode_info *pipe, struct file *out,
				 loff_t *ppos, size_t len, unsigned int flags)
{
	struct splice_desc sd = {
		.total_len = len,
		.flags = flags,
		.pos = *ppos,
		.u.data = kbuf_of(out),
	};
	ssize_t done;

	if (!sd.u.data)
		return -ENXIO;
	pipe_lock(pipe);
	done = __splice_from_pipe(pipe, &sd, kbuf_from_pipe);
	pipe_unlock(pipe);
	if (done > 0)
		*ppos += done;
	return done;
}

static loff_t kbuf_llseek(struct file *file, loff_t off, int whence)
{
	struct kbuf *buf = kbuf_of(file);

	if (!buf)
		return -ENXIO;
	return fixed_size_llseek(file, off, whence, kbuf_size(buf));
}

static long kbuf_ioctl_alloc(struct file *file, const void __user *user)
{
	struct splice_kbuf_alloc arg;
	struct kbuf *buf;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.mode >= SPLICE_KBUF_NR_MODES || !arg.pages ||
	    arg.pages > SPLICE_KBUF_MAX_PAGES)
		return -EINVAL;
	if (kbuf_of(file))
		return -EBUSY;
	buf = kbuf_new(arg.mode, arg.pages);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	/* Whoever sees it sees what is in it: pairs with kbuf_of(). */
	if (!cmpxchg_release(&file->private_data, NULL, buf))
		return 0;
	kbuf_put(buf);
	return -EBUSY;
}

/* Where pages are in memory is nobody's business but root's, as in pagemap. */
static long kbuf_ioctl_page(const struct kbuf *buf, void __user *user)
{
	struct splice_kbuf_page arg;
	struct page *page;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.index >= buf->nr_pages)
		return -EINVAL;
	page = buf->pages[arg.index];
	arg.frame = page_to_pfn(page);
	arg.refs = page_count(page);
	arg.from = READ_ONCE(buf->from[arg.index]);
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long kbuf_ioctl_at(void __user *user)
{
	struct follow_pfnmap_args args = {};
	struct splice_kbuf_at at;
	int err = -EFAULT;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&at, user, sizeof(at)))
		return -EFAULT;
	mmap_read_lock(current->mm);
	args.vma = vma_lookup(current->mm, at.address);
	args.address = at.address;
	if (args.vma)
		err = follow_pfnmap_start(&args);
	if (!err) {
		at.frame = args.pfn;
		follow_pfnmap_end(&args);
	}
	mmap_read_unlock(current->mm);
	if (err)
		return -EFAULT;
	return copy_to_user(user, &at, sizeof(at)) ? -EFAULT : 0;
}

/* The kernel's address of a page: in its own area, or made for the moment. */
static void *kbuf_kmap(const struct kbuf *buf, loff_t pos)
{
	if (buf->area)
		return buf->area + (pos & PAGE_MASK);
	return kmap_local_page(kbuf_page(buf, pos));
}

static void kbuf_kunmap(const struct kbuf *buf, void *addr)
{
	if (!buf->area)
		kunmap_local(addr);
}

/*
 * Read a word by the kernel's address, and write @new there unless it is NULL.
 * An area of vmalloc() is a third place where the cache can have a page, and has
 * helpers of its own for that.
 */
static u64 kbuf_word(const struct kbuf *buf, loff_t pos, const u64 *new)
{
	void *addr = kbuf_kmap(buf, pos);
	u64 *word = addr + offset_in_page(pos), old;

	flush_dcache_page(kbuf_page(buf, pos));
	if (buf->area)
		invalidate_kernel_vmap_range(word, sizeof(*word));
	old = READ_ONCE(*word);
	if (new) {
		WRITE_ONCE(*word, *new);
		if (buf->area)
			flush_kernel_vmap_range(word, sizeof(*word));
		flush_dcache_page(kbuf_page(buf, pos));
	}
	kbuf_kunmap(buf, addr);
	return old;
}

static long kbuf_ioctl_word(const struct kbuf *buf, void __user *user,
			    bool write)
{
	struct splice_kbuf_word arg;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.offset % sizeof(u64) || arg.offset >= kbuf_size(buf))
		return -EINVAL;
	if (write) {
		kbuf_word(buf, arg.offset, &arg.value);
		return 0;
	}
	arg.value = kbuf_word(buf, arg.offset, NULL);
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long kbuf_ioctl_stat(const struct kbuf *buf, void __user *user)
{
	struct splice_kbuf_stat stat = {
		.mapped = atomic64_read(&buf->mapped),
		.opened = atomic64_read(&buf->opened),
		.closed = atomic64_read(&buf->closed),
		.faults = atomic64_read(&buf->faults),
		.huge_faults = atomic64_read(&buf->huge_faults),
		.refs = kref_read(&buf->ref),
	};

	return copy_to_user(user, &stat, sizeof(stat)) ? -EFAULT : 0;
}

/**
 * kbuf_ioctl - Make a buffer, or look at it as the kernel does
 * @file: an open device
 * @cmd: a SPLICE_KBUF_* command
 * @arg: a pointer to its structure
 *
 * Return: 0 or
 *
 * * -EBADF: SPLICE_KBUF_POKE, and the file is not open for writing
 * * -EBUSY: SPLICE_KBUF_ALLOC, and the file has a buffer
 * * -EFAULT: @arg cannot be read or written, or SPLICE_KBUF_AT and no such
 *   memory there
 * * -EINVAL: unknown mode, wrong size, or nothing of the buffer at that place
 * * -ENOMEM: no memory for a buffer
 * * -ENOTTY: unknown command
 * * -ENXIO: the file has no buffer
 * * -EPERM: SPLICE_KBUF_PAGE or SPLICE_KBUF_AT without CAP_SYS_ADMIN
 */
static long kbuf_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct kbuf *buf = kbuf_of(file);

	if (cmd == SPLICE_KBUF_ALLOC)
		return kbuf_ioctl_alloc(file, user);
	if (cmd == SPLICE_KBUF_POKE && !(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (!buf)
		return -ENXIO;
	switch (cmd) {
	case SPLICE_KBUF_PAGE:
		return kbuf_ioctl_page(buf, user);
	case SPLICE_KBUF_PEEK:
		return kbuf_ioctl_word(buf, user, false);
	case SPLICE_KBUF_POKE:
		return kbuf_ioctl_word(buf, user, true);
	case SPLICE_KBUF_STAT:
		return kbuf_ioctl_stat(buf, user);
	case SPLICE_KBUF_AT:
		return kbuf_ioctl_at(user);
	default:
		return -ENOTTY;
	}
}

static int kbuf_open(struct inode *inode, struct file *file)
{
	/* misc_open() leaves its own there. */
	file->private_data = NULL;
	return 0;
}

static int kbuf_close(struct inode *inode, struct file *file)
{
	if (file->private_data)
		kbuf_put(file->private_data);
	return 0;
}

#define KBUF_FOPS                                                        \
	.owner = THIS_MODULE, .open = kbuf_open, .release = kbuf_close,  \
	.llseek = kbuf_llseek, .read_iter = kbuf_read_iter,              \
	.write_iter = kbuf_write_iter, .splice_read = kbuf_splice_read,  \
	.splice_write = kbuf_splice_write, .unlocked_ioctl = kbuf_ioctl, \
	.compat_ioctl = compat_ptr_ioctl

static const struct file_operations kbuf_fops = {
	KBUF_FOPS,
	.mmap_prepare = kbuf_mmap_prepare,
};

/* The two ways to map exclude each other, so this is a device of its own. */
static const struct file_operations kbuf_mmap_fops = {
	KBUF_FOPS,
	.mmap = kbuf_mmap,
};

static struct miscdevice kbuf_devices[] = {
	{
		.minor = MISC_DYNAMIC_MINOR,
		.name = "splice_kbuf",
		.fops = &kbuf_fops,
		.mode = 0600,
	},
	{
		.minor = MISC_DYNAMIC_MINOR,
		.name = "splice_kbuf_mmap",
		.fops = &kbuf_mmap_fops,
		.mode = 0600,
	},
};

static int __init kbuf_init(void)
{
	int err = misc_register(&kbuf_devices[0]);

	if (err)
		return err;
	err = misc_register(&kbuf_devices[1]);
	if (err)
		misc_deregister(&kbuf_devices[0]);
	return err;
}

static void __exit kbuf_exit(void)
{
	misc_deregister(&kbuf_devices[1]);
	misc_deregister(&kbuf_devices[0]);
	/* Files and mappings would have kept the module. */
	WARN_ON(atomic_read(&kbuf_buffers));
}

module_init(kbuf_init);
module_exit(kbuf_exit);

MODULE_DESCRIPTION("A kernel buffer to map, for the splice selftests");
MODULE_LICENSE("GPL");
