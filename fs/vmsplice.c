// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmsplice() that gives and takes pages, instead of sharing and copying them.
 *
 * Everything that a give puts into a pipe belongs to the pipe alone: folios
 * that left the giver's page tables, copies of what could not leave, and holes,
 * which stand for memory that never was.  Their buffers are known by their
 * operations; a take maps those whose folio has no other reference, which
 * page_flip_attach() proves.  No flag of a buffer says so.
 *
 * The pages in flight count against the user who gave them, as slots of pipes
 * do, for as long as a buffer holds them: buffers change pipes, so the user is
 * in the buffer, and goes with the last buffer of the folio.
 *
 * pipe->mutex is held for one batch at a time.
 */
#include <linux/cacheflush.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/page_flip.h>
#include <linux/pipe_fs_i.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/vmstat.h>

#include "internal.h"

#define CREATE_TRACE_POINTS
#include <trace/events/splice.h>

/* Pages that are reserved in the account at a time, once folios are large. */
#define GIVE_RESERVE max(2048U, 1U << MAX_PAGE_ORDER)
/* Bytes that are copied, or collected from small segments, under one lock. */
#define LOCKED_BYTES (16 * PAGE_SIZE)

/* -ENOMEM rather than the OOM killer; it may become memory of a process. */
#define FLIP_GFP \
	(GFP_HIGHUSER | __GFP_SKIP_KASAN | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/*
 * ->private is the user who gave the buffer, with a reference to him.  A hole
 * counts against nobody.
 */
static struct user_struct *buf_user(const struct pipe_buffer *buf)
{
	return (struct user_struct *)buf->private;
}

/*
 * Nobody has split a folio whose memory failed in flight, and the allocator looks
 * for poison in single pages alone: such a folio is not to be allocated again.
 */
static bool given_folio_lost(struct folio *folio)
{
	if (!folio_test_large(folio) || !page_flip_poisoned(folio))
		return false;
	mem_cgroup_uncharge(folio);
	return true;
}

static void given_buf_release(struct pipe_inode_info *pipe,
			      struct pipe_buffer *buf)
{
	struct folio *folio = page_folio(buf->page);
	bool lost = false;

	if (page_flip_put(folio)) {
		account_pipe_buffers(buf_user(buf), folio_nr_pages(folio), 0);
		lost = given_folio_lost(folio);
	}
	free_uid(buf_user(buf));
	if (!lost)
		folio_put(folio);
}

static bool given_buf_get(struct pipe_inode_info *pipe, struct pipe_buffer *buf)
{
	struct folio *folio = page_folio(buf->page);

	if (!try_get_page(buf->page))
		return false;
	get_uid(buf_user(buf));
	page_flip_get(folio);
	return true;
}

static int given_buf_confirm(struct pipe_inode_info *pipe,
			     struct pipe_buffer *buf)
{
	return page_flip_poisoned(page_folio(buf->page)) ? -EHWPOISON : 0;
}

/*
 * Without ->try_steal(): FUSE and the page cache would have to undo what makes
 * it a folio of user memory.
 */
static const struct pipe_buf_operations given_buf_ops = {
	.confirm = given_buf_confirm,
	.release = given_buf_release,
	.get = given_buf_get,
};

static void hole_buf_release(struct pipe_inode_info *pipe,
			     struct pipe_buffer *buf)
{
}

static bool hole_buf_get(struct pipe_inode_info *pipe, struct pipe_buffer *buf)
{
	return true;
}

/*
 * splice() shows zeroes, and leaves the hole one.  Whoever else wants a page of
 * it, as FUSE of buffers that are not in a pipe any more, gets zeroes of his own,
 * which his memcg pays for.  They are in flight from now on, and count against
 * him: who gave the hole has no say in how often it is duplicated, and filled.
 */
static int hole_buf_confirm(struct pipe_inode_info *pipe,
			    struct pipe_buffer *buf)
{
	unsigned int order = get_order(buf->len);
	unsigned int nr = pipe_account_upto(current_user(), 1U << order);
	struct folio *folio = NULL;

	if (nr == 1U << order)
		folio = page_flip_alloc(order, FLIP_GFP | __GFP_ZERO);
	if (!folio) {
		account_pipe_buffers(current_user(), nr, 0);
		return -ENOMEM;
	}
	folio_mark_uptodate(folio);
	flush_dcache_folio(folio);
	buf->private = (unsigned long)get_uid(current_user());
	buf->page = folio_page(folio, 0);
	buf->offset = 0;
	buf->ops = &given_buf_ops;
	return 0;
}

static const struct pipe_buf_operations hole_buf_ops = {
	.confirm = hole_buf_confirm,
	.release = hole_buf_release,
	.get = hole_buf_get,
};

/* What one call does, on either side. */
struct flip_call {
	struct pipe_inode_info *pipe;
	struct iov_iter *iter;
	struct flip_batch *batch;
	unsigned int flags;
	bool take;
	/* A batch has met a folio that its slots alone are no measure of. */
	bool large;
	/* What is known to be copied, from the next byte on, and why. */
	size_t copy_left;
	enum page_flip_reason copy_reason;
	size_t moved;
	size_t holes;
	size_t copied;
};

/* Whether trying again may help, as opposed to never. */
static int reason_to_errno(enum page_flip_reason reason)
{
	switch (reason) {
	case PAGE_FLIP_PINNED:
	case PAGE_FLIP_REFERENCED:
	case PAGE_FLIP_WRITEBACK:
	case PAGE_FLIP_LOCKED:
	case PAGE_FLIP_TEED:
	case PAGE_FLIP_DESTBUSY:
	case PAGE_FLIP_RACE:
		return -EAGAIN;
	default:
		return -EOPNOTSUPP;
	}
}

static void count_copy(struct flip_call *call, unsigned long addr, size_t bytes,
		       enum page_flip_reason reason)
{
	unsigned int pages = DIV_ROUND_UP(bytes, PAGE_SIZE);

	call->copied += bytes;
	count_vm_events(FLIP_COPIED, pages);
	count_vm_events(FLIP_COPIED + reason, pages);
	trace_page_flip_fallback(addr, bytes, call->take, reason);
}

static int may_copy(struct flip_call *call, unsigned long addr, size_t bytes,
		    enum page_flip_reason reason)
{
	if (!(call->flags & SPLICE_F_NOCOPY))
		return 0;
	trace_page_flip_fallback(addr, bytes, call->take, reason);
	return reason_to_errno(reason);
}

/* Strict: a segment that is not made of whole pages fails before any moves. */
static int check_alignment(struct flip_call *call)
{
	if ((call->flags & SPLICE_F_NOCOPY) &&
	    (iov_iter_alignment(call->iter) & ~PAGE_MASK))
		return -EINVAL;
	return 0;
}

/* Segments of no length are passed; the address that is next. */
static unsigned long segment(struct iov_iter *iter, size_t *len)
{
	iov_iter_advance(iter, 0);
	*len = min(iter_iov_len(iter), iov_iter_count(iter));
	return untagged_addr((unsigned long)iter_iov_addr(iter));
}

static void unreserve_pages(unsigned int pages)
{
	if (pages)
		account_pipe_buffers(current_user(), pages, 0);
}

/* The caller has got the reference to the user that the buffer holds. */
static void set_folio(struct pipe_buffer *buf, struct folio *folio,
		      unsigned int len, struct user_struct *user)
{
	buf->page = folio_page(folio, 0);
	buf->offset = 0;
	buf->len = len;
	buf->ops = &given_buf_ops;
	buf->flags = 0;
	buf->private = (unsigned long)user;
}

static void set_hole(struct pipe_buffer *buf, unsigned long nr_pages)
{
	buf->page = NULL;
	buf->offset = 0;
	buf->len = nr_pages * PAGE_SIZE;
	buf->ops = &hole_buf_ops;
	buf->flags = 0;
	buf->private = 0;
}

static void give_batch(struct flip_call *call)
{
	struct pipe_inode_info *pipe = call->pipe;
	struct pipe_buffer *const bufs = pipe->bufs;
	const unsigned int mask = pipe->ring_size - 1;
	struct user_struct *user = current_user();
	struct flip_batch *b = call->batch;
	unsigned int i, head = pipe->head, nr = b->nr, folios = 0;

	for (i = 0; i < nr; i++, head++) {
		struct folio *item = b->item[i];

		if (flip_is_hole(item)) {
			set_hole(&bufs[head & mask], flip_hole_pages(item));
			continue;
		}
		set_folio(&bufs[head & mask], item, folio_size(item), user);
		folios++;
	}
	pipe->head = head;
	refcount_add(folios, &user->__count);
	call->moved += (size_t)b->pages * PAGE_SIZE;
	call->holes += (size_t)b->holes * PAGE_SIZE;
}

/* With a reservation, which others of the user cannot have meanwhile. */
static long give_detach(struct flip_batch *b, unsigned long addr, size_t len,
			unsigned int reserve)
{
	long ret;

	b->budget = pipe_account_upto(current_user(),
				      min(len >> PAGE_SHIFT, reserve));
	ret = page_flip_detach(addr, addr + len, b);
	unreserve_pages(b->budget - b->pages);
	return ret;
}

/* Whole pages at @addr, @len bytes: bytes that left, or why the first did not. */
static long give_pages(struct flip_call *call, unsigned long addr, size_t len)
{
	struct pipe_inode_info *pipe = call->pipe;
	struct flip_batch *b = call->batch;
	long ret;

	if (addr + len < addr)
		return -EFAULT;
	b->max = min(pipe->max_usage - pipe_buf_usage(pipe), FLIP_BATCH);
	ret = give_detach(b, addr, len, call->large ? GIVE_RESERVE : b->max);
	if (b->limited && !call->large) {
		call->large = true;
		if (!ret)
			ret = give_detach(b, addr, len, GIVE_RESERVE);
	}
	if (ret > 0) {
		give_batch(call);
		iov_iter_advance(call->iter, ret);
	}
	return !ret && b->limited ? -EAGAIN : ret;
}

static long give_copy(struct flip_call *call, size_t len)
{
	struct folio *folio;
	size_t n;

	if (!pipe_account_upto(current_user(), 1))
		return -EAGAIN;
	folio = page_flip_alloc(0, FLIP_GFP);
	if (!folio) {
		unreserve_pages(1);
		return -ENOMEM;
	}
	n = copy_page_from_iter(folio_page(folio, 0), 0, len, call->iter);
	/* Cut off by death: no part of a page is left to others. */
	if (n < len && fatal_signal_pending(current)) {
		iov_iter_revert(call->iter, n);
		n = 0;
	}
	if (!n) {
		page_flip_put(folio);
		folio_put(folio);
		unreserve_pages(1);
		return -EFAULT;
	}
	folio_mark_uptodate(folio);
	flush_dcache_folio(folio);
	set_folio(pipe_head_buf(call->pipe), folio, n, get_uid(current_user()));
	call->pipe->head++;
	return n;
}

/* Copy @len bytes at @addr, as far as there are slots. */
static long give_copies(struct flip_call *call, unsigned long addr, size_t len,
			enum page_flip_reason reason)
{
	struct pipe_inode_info *pipe = call->pipe;
	size_t done = 0;
	long n = 0;

	while (done < len && !pipe_is_full(pipe)) {
		size_t part = min(len - done,
				  PAGE_SIZE - offset_in_page(addr + done));

		n = give_copy(call, part);
		if (n > 0)
			done += n;
		if (n != part)
			break;
	}
	if (done)
		count_copy(call, addr, done, reason);
	return done ?: n;
}

/* The next bytes are no whole page: how many, or an error. */
static long give_part(unsigned long addr, size_t len)
{
	long err = page_flip_may_give(addr);

	return err ?: min(len, PAGE_SIZE - offset_in_page(addr));
}

/*
 * A part of one segment; at least one slot is free.  What batch->span covers is
 * copied without another look.
 */
static long give_some(struct flip_call *call)
{
	size_t len;
	unsigned long addr = segment(call->iter, &len);
	long ret;

	if (!call->copy_left) {
		if (offset_in_page(addr) || len < PAGE_SIZE) {
			ret = give_part(addr, len);
			if (ret < 0)
				return ret;
			call->copy_left = ret;
			call->copy_reason = PAGE_FLIP_UNALIGNED;
		} else {
			len = round_down(len, PAGE_SIZE);
			ret = give_pages(call, addr, len);
			if (ret || !call->batch->reason)
				return ret;
			call->copy_left = min(len, call->batch->span);
			call->copy_reason = call->batch->reason;
		}
	}
	ret = may_copy(call, addr, call->copy_left, call->copy_reason);
	if (ret)
		return ret;
	ret = give_copies(call, addr, min(call->copy_left, LOCKED_BYTES),
			  call->copy_reason);
	if (ret > 0)
		call->copy_left -= ret;
	return ret;
}

/* What is small goes in one piece, as far as it fits, whoever else writes. */
static long give_locked(struct flip_call *call)
{
	size_t done = 0;
	long n;

	do {
		n = give_some(call);
		if (n > 0)
			done += n;
	} while (n > 0 && done < LOCKED_BYTES && iov_iter_count(call->iter) &&
		 !pipe_is_full(call->pipe));
	return done ?: n;
}

static ssize_t give_all(struct flip_call *call)
{
	struct pipe_inode_info *pipe = call->pipe;
	ssize_t total = 0, ret = 0;

	while (iov_iter_count(call->iter)) {
		pipe_lock(pipe);
		if (!total)
			ret = pipe_wait_for_space(pipe, call->flags);
		else if (!pipe->readers || pipe_is_full(pipe))
			ret = -EAGAIN;
		if (!ret)
			ret = give_locked(call);
		pipe_unlock(pipe);
		if (ret <= 0)
			break;
		wakeup_pipe_readers(pipe);
		total += ret;
		ret = 0;
		if (signal_pending(current))
			break;
		cond_resched();
	}
	return total ?: ret;
}

/*
 * import_iovec() cuts what is longer than MAX_RW_COUNT, which would be in the
 * middle of the last huge page.
 */
static void round_count(struct iov_iter *iter)
{
	if (iov_iter_count(iter) == MAX_RW_COUNT)
		iov_iter_truncate(iter, round_down(MAX_RW_COUNT, PMD_SIZE));
}

static int flip_start(struct flip_call *call, const struct file *file)
{
	int err = check_alignment(call);

	if (err)
		return err;
	if (file->f_flags & O_NONBLOCK)
		call->flags |= SPLICE_F_NONBLOCK;
	round_count(call->iter);
	call->batch = kmalloc_obj(struct flip_batch);
	if (!call->batch)
		return -ENOMEM;
	call->batch->drained = false;
	return 0;
}

/**
 * vmsplice_give - vmsplice() with SPLICE_F_GIFT and SPLICE_F_MOVE
 * @file: the writing end
 * @pipe: its pipe
 * @from: memory of the caller
 * @flags: also SPLICE_F_NONBLOCK, SPLICE_F_NOCOPY
 *
 * Whole pages leave the page tables of the caller, the rest is copied: what is
 * in the pipe is in nobody's reach then.  The contents of the given memory are
 * unspecified afterwards: zeroes, or as before, page by page.
 *
 * Context: Process context, may sleep; takes pipe->mutex and mmap_lock.
 * Return: The number of bytes given, which is short if the pipe filled up, the
 * limit of the user was reached, a signal came or an error was met;
 * -EPIPE, after sending SIGPIPE, if the pipe has no readers; -EAGAIN if the
 * pipe is full and the call or the pipe does not block, if the user has as many
 * pages in pipes as allowed, or, with SPLICE_F_NOCOPY, if a page cannot be moved
 * now; -EINVAL if with SPLICE_F_NOCOPY a segment is not made of whole pages;
 * -EOPNOTSUPP if with SPLICE_F_NOCOPY a page cannot be moved at all; -EFAULT if
 * memory is not mapped, or may not be both read and written; -EHWPOISON if it
 * is poisoned; -ENOMEM if there is no memory, or no room in the memcg, for a
 * copy; -ERESTARTSYS if a signal came while it waited; -EINTR if the caller is
 * being killed.
 */
ssize_t vmsplice_give(struct file *file, struct pipe_inode_info *pipe,
		      struct iov_iter *from, unsigned int flags)
{
	struct flip_call call = {
		.pipe = pipe,
		.iter = from,
		.flags = flags,
	};
	size_t asked = iov_iter_count(from);
	ssize_t ret = flip_start(&call, file);

	if (ret)
		return ret;
	ret = give_all(&call);
	kfree(call.batch);
	if (ret > 0)
		fsnotify_modify(file);
	trace_vmsplice_give(file_inode(file), asked, call.moved, call.holes,
			    call.copied, ret);
	return ret;
}

static void drop_first(struct pipe_inode_info *pipe)
{
	struct pipe_buffer *buf = pipe_buf(pipe, pipe->tail);

	pipe_buf_release(pipe, buf);
	pipe->tail++;
}

/* 1: there is a buffer; 0: there will be none; or an error. */
static int wait_for_data(struct flip_call *call, bool wait)
{
	struct pipe_inode_info *pipe = call->pipe;

	for (;;) {
		unsigned int tail = pipe->tail;

		while (!pipe_is_empty(pipe)) {
			if (pipe_buf(pipe, pipe->tail)->len)
				return 1;
			drop_first(pipe);
		}
		if (tail != pipe->tail)
			wakeup_pipe_writers(pipe);
		if (!pipe->writers || !wait)
			return 0;
		if (call->flags & SPLICE_F_NONBLOCK)
			return -EAGAIN;
		if (signal_pending(current))
			return -ERESTARTSYS;
		pipe_wait_readable(pipe);
	}
}

/* A folio that is whole, in one buffer, and no more than @room bytes; or %NULL. */
static struct folio *takeable_folio(const struct pipe_buffer *buf, size_t room)
{
	struct folio *folio;

	if (buf->ops != &given_buf_ops || buf->offset || buf->len > room)
		return NULL;
	folio = page_folio(buf->page);
	return buf->len == folio_size(folio) ? folio : NULL;
}

/*
 * The holes from *@slot on, as one of at most @room bytes: whole pages.  Nothing
 * can follow a hole of which a part of a page is left: *@slot is the head then.
 */
static size_t takeable_holes(const struct pipe_inode_info *pipe,
			     unsigned int *slot, size_t room)
{
	const unsigned int head = pipe->head, mask = pipe->ring_size - 1;
	const struct pipe_buffer *const bufs = pipe->bufs;
	unsigned int at = *slot;
	size_t len = 0;

	while (len < room && !pipe_empty(head, at) &&
	       bufs[at & mask].ops == &hole_buf_ops && !offset_in_page(len)) {
		len += bufs[at & mask].len;
		at++;
	}
	*slot = offset_in_page(len) ? head : at;
	return round_down(min(len, room), PAGE_SIZE);
}

static enum page_flip_reason untakeable(const struct pipe_buffer *buf)
{
	if (buf->ops == &given_buf_ops)
		return PAGE_FLIP_SHORT;
	return buf->ops == &hole_buf_ops ? PAGE_FLIP_UNALIGNED :
					   PAGE_FLIP_FOREIGN;
}

/* Bytes that are in the batch; 0 with the reason why not even one buffer is. */
static size_t take_gather(struct flip_call *call, size_t room)
{
	const struct pipe_inode_info *pipe = call->pipe;
	const struct pipe_buffer *const bufs = pipe->bufs;
	const unsigned int head = pipe->head, mask = pipe->ring_size - 1;
	unsigned int nr = 0, slot = pipe->tail;
	struct flip_batch *b = call->batch;
	size_t total = 0, len;

	while (!pipe_empty(head, slot) && nr < FLIP_BATCH) {
		struct folio *item;

		item = takeable_folio(&bufs[slot & mask], room - total);
		if (item) {
			len = folio_size(item);
			slot++;
		} else {
			len = takeable_holes(pipe, &slot, room - total);
			if (!len)
				break;
			item = flip_hole(len >> PAGE_SHIFT);
		}
		b->item[nr++] = item;
		total += len;
	}
	b->nr = nr;
	b->reason = PAGE_FLIP_MOVES;
	if (!nr) {
		b->reason = untakeable(pipe_buf(pipe, pipe->tail));
		b->span = pipe_buf(pipe, pipe->tail)->len;
	}
	return total;
}

/* Of one user: what his buffers that are gone counted. */
static void uncharge_user(struct user_struct *user, unsigned int bufs,
			  unsigned int pages)
{
	if (!bufs)
		return;
	account_pipe_buffers(user, pages, 0);
	if (bufs > 1)
		WARN_ON_ONCE(refcount_sub_and_test(bufs - 1, &user->__count));
	free_uid(user);
}

/* The first @len bytes of the pipe were attached. */
static void take_batch(struct flip_call *call, size_t len)
{
	struct pipe_inode_info *pipe = call->pipe;
	struct pipe_buffer *const bufs = pipe->bufs;
	const unsigned int mask = pipe->ring_size - 1;
	unsigned int nr = 0, pages = 0, slot;
	struct user_struct *user = NULL;

	for (slot = pipe->tail; len; slot++) {
		struct pipe_buffer *buf = &bufs[slot & mask];

		if (len < buf->len) {
			/* Folios go whole. */
			WARN_ON_ONCE(!pipe_buf_is_hole(buf));
			buf->len -= len;
			buf->offset += len;
			break;
		}
		len -= buf->len;
		buf->ops = NULL;
		if (pipe_buf_is_hole(buf))
			continue;
		if (buf_user(buf) != user) {
			uncharge_user(user, nr, pages);
			user = buf_user(buf);
			nr = 0;
			pages = 0;
		}
		nr++;
		pages += buf->len >> PAGE_SHIFT;
	}
	pipe->tail = slot;
	uncharge_user(user, nr, pages);
	call->moved += (size_t)call->batch->pages * PAGE_SIZE;
	call->holes += (size_t)call->batch->holes * PAGE_SIZE;
}

/* Bytes that were attached; 0 with a reason why the first buffer is not. */
static long take_pages(struct flip_call *call, unsigned long addr, size_t len)
{
	size_t total = take_gather(call, len);
	long ret;

	if (!total)
		return 0;
	if (addr + total < addr)
		return -EFAULT;
	ret = page_flip_attach(addr, addr + total, call->batch);
	if (ret > 0) {
		take_batch(call, ret);
		iov_iter_advance(call->iter, ret);
	}
	return ret;
}

/* The first buffer, or @len bytes of it, as read(2) would. */
static long take_copy(struct flip_call *call, unsigned long addr, size_t len,
		      enum page_flip_reason reason)
{
	struct pipe_inode_info *pipe = call->pipe;
	struct pipe_buffer *buf = pipe_buf(pipe, pipe->tail);
	size_t n = min_t(size_t, len, buf->len);
	int err = may_copy(call, addr, n, reason);

	if (!err && !pipe_buf_is_hole(buf))
		err = pipe_buf_confirm(pipe, buf);
	if (err)
		return err == -ENODATA ? 0 : err;
	n = pipe_buf_to_iter(buf, n, call->iter);
	if (!n)
		return -EFAULT;
	/* Cut off by death, which leaves what others can go on with. */
	if (unlikely(fatal_signal_pending(current))) {
		iov_iter_revert(call->iter, n);
		return -EINTR;
	}
	count_copy(call, addr, n, reason);
	buf->offset += n;
	buf->len -= n;
	if (!buf->len)
		drop_first(pipe);
	return n;
}

/* A part of one segment; the pipe is not empty. */
static long take_some(struct flip_call *call)
{
	size_t len;
	unsigned long addr = segment(call->iter, &len);
	long ret;

	if (!call->copy_left) {
		call->copy_left = pipe_buf(call->pipe, call->pipe->tail)->len;
		call->copy_left = min(call->copy_left, len);
		call->copy_reason = PAGE_FLIP_UNALIGNED;
		if (!offset_in_page(addr) && len >= PAGE_SIZE) {
			ret = take_pages(call, addr,
					 round_down(len, PAGE_SIZE));
			if (ret || !call->batch->reason) {
				call->copy_left = 0;
				return ret;
			}
			call->copy_left = min(len, call->batch->span);
			call->copy_reason = call->batch->reason;
		}
	}
	ret = take_copy(call, addr, call->copy_left, call->copy_reason);
	if (ret > 0)
		call->copy_left -= ret;
	return ret;
}

/* As give_locked(). */
static long take_locked(struct flip_call *call)
{
	size_t done = 0;
	long n;

	do {
		n = take_some(call);
		if (n > 0)
			done += n;
	} while (n > 0 && done < LOCKED_BYTES && iov_iter_count(call->iter) &&
		 !pipe_is_empty(call->pipe) &&
		 pipe_buf(call->pipe, call->pipe->tail)->len);
	return done ?: n;
}

static ssize_t take_all(struct flip_call *call)
{
	struct pipe_inode_info *pipe = call->pipe;
	ssize_t total = 0, ret = 0;
	unsigned int tail;

	while (iov_iter_count(call->iter)) {
		pipe_lock(pipe);
		tail = pipe->tail;
		ret = wait_for_data(call, !total);
		if (ret > 0)
			ret = take_locked(call);
		tail = pipe->tail - tail;
		pipe_unlock(pipe);
		if (tail)
			wakeup_pipe_writers(pipe);
		if (ret <= 0)
			break;
		total += ret;
		if (signal_pending(current))
			break;
		cond_resched();
	}
	return total ?: ret;
}

/**
 * vmsplice_take - vmsplice() from a pipe with SPLICE_F_MOVE
 * @file: the reading end
 * @pipe: its pipe
 * @to: memory of the caller
 * @flags: also SPLICE_F_NONBLOCK, SPLICE_F_NOCOPY
 *
 * Folios that the pipe alone owns are mapped at the destination and replace
 * what was there, holes empty it; everything else is copied.
 *
 * Context: Process context, may sleep; takes pipe->mutex and mmap_lock.
 * Return: The number of bytes taken, which is short if the pipe ran empty, a
 * signal came or an error was met; 0 if the pipe is empty and has no writers;
 * -EAGAIN if the pipe is empty and the call or the pipe does not block, or, with
 * SPLICE_F_NOCOPY, if the first buffer cannot be moved now; -EINVAL if with
 * SPLICE_F_NOCOPY a segment is not made of whole pages; -EOPNOTSUPP if with
 * SPLICE_F_NOCOPY the first buffer cannot be moved at all; -EFAULT if memory is
 * not mapped or may not be written; -ENOMEM if the memcg of the caller is full
 * or there is no memory for page tables; -EHWPOISON if the memory is poisoned;
 * -EIO if a page of a file in the pipe could not be read; -ERESTARTSYS if a
 * signal came while it waited; -EINTR if the caller is being killed.  What was
 * not taken is still in the pipe.
 */
ssize_t vmsplice_take(struct file *file, struct pipe_inode_info *pipe,
		      struct iov_iter *to, unsigned int flags)
{
	struct flip_call call = {
		.pipe = pipe,
		.iter = to,
		.flags = flags,
		.take = true,
	};
	size_t asked = iov_iter_count(to);
	ssize_t ret = flip_start(&call, file);

	if (ret)
		return ret;
	ret = take_all(&call);
	kfree(call.batch);
	if (ret > 0)
		fsnotify_access(file);
	trace_vmsplice_take(file_inode(file), asked, call.moved, call.holes,
			    call.copied, ret);
	return ret;
}
