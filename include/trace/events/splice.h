/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Addresses are those of the caller, sizes are in bytes.  None of this is a
 * stable interface.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM splice

#if !defined(_TRACE_SPLICE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_SPLICE_H

#include <linux/page_flip.h>
#include <linux/tracepoint.h>

#define PAGE_FLIP_REASONS				\
	EM(PAGE_FLIP_UNALIGNED,	"unaligned")		\
	EM(PAGE_FLIP_SHARED,	"shared")		\
	EM(PAGE_FLIP_FILE,	"file")			\
	EM(PAGE_FLIP_HUGETLB,	"hugetlb")		\
	EM(PAGE_FLIP_SECRETMEM,	"secretmem")		\
	EM(PAGE_FLIP_PFN,	"pfn")			\
	EM(PAGE_FLIP_MLOCKED,	"mlocked")		\
	EM(PAGE_FLIP_UFFD,	"uffd")			\
	EM(PAGE_FLIP_DROPPABLE,	"droppable")		\
	EM(PAGE_FLIP_SPECIAL,	"special")		\
	EM(PAGE_FLIP_KSM,	"ksm")			\
	EM(PAGE_FLIP_FORKED,	"forked")		\
	EM(PAGE_FLIP_PINNED,	"pinned")		\
	EM(PAGE_FLIP_REFERENCED, "referenced")		\
	EM(PAGE_FLIP_LAZYFREE,	"lazyfree")		\
	EM(PAGE_FLIP_WRITEBACK,	"writeback")		\
	EM(PAGE_FLIP_UNMOVABLE,	"unmovable")		\
	EM(PAGE_FLIP_PARTIAL,	"partial")		\
	EM(PAGE_FLIP_LOCKED,	"locked")		\
	EM(PAGE_FLIP_FOREIGN,	"foreign")		\
	EM(PAGE_FLIP_SHORT,	"short")		\
	EM(PAGE_FLIP_TEED,	"teed")			\
	EM(PAGE_FLIP_DESTBUSY,	"destbusy")		\
	EMe(PAGE_FLIP_RACE,	"race")

#undef EM
#undef EMe
#define EM(reason, name)	TRACE_DEFINE_ENUM(reason);
#define EMe(reason, name)	TRACE_DEFINE_ENUM(reason);

PAGE_FLIP_REASONS

#undef EM
#undef EMe
#define EM(reason, name)	{ reason, name },
#define EMe(reason, name)	{ reason, name }

DECLARE_EVENT_CLASS(vmsplice_flip,

	TP_PROTO(const struct inode *pipe, size_t asked, size_t moved,
		 size_t holes, size_t copied, ssize_t ret),

	TP_ARGS(pipe, asked, moved, holes, copied, ret),

	TP_STRUCT__entry(
		__field(u64,		pipe)
		__field(size_t,		asked)
		__field(size_t,		moved)
		__field(size_t,		holes)
		__field(size_t,		copied)
		__field(ssize_t,	ret)
	),

	TP_fast_assign(
		__entry->pipe	= pipe->i_ino;
		__entry->asked	= asked;
		__entry->moved	= moved;
		__entry->holes	= holes;
		__entry->copied	= copied;
		__entry->ret	= ret;
	),

	TP_printk("pipe=%llu asked=%zu moved=%zu holes=%zu copied=%zu ret=%zd",
		  __entry->pipe, __entry->asked, __entry->moved,
		  __entry->holes, __entry->copied, __entry->ret)
);

/* One give: vmsplice() with SPLICE_F_GIFT and SPLICE_F_MOVE. */
DEFINE_EVENT(vmsplice_flip, vmsplice_give,
	TP_PROTO(const struct inode *pipe, size_t asked, size_t moved,
		 size_t holes, size_t copied, ssize_t ret),
	TP_ARGS(pipe, asked, moved, holes, copied, ret)
);

/* One take: vmsplice() with SPLICE_F_MOVE from a pipe. */
DEFINE_EVENT(vmsplice_flip, vmsplice_take,
	TP_PROTO(const struct inode *pipe, size_t asked, size_t moved,
		 size_t holes, size_t copied, ssize_t ret),
	TP_ARGS(pipe, asked, moved, holes, copied, ret)
);

/* What could not be moved, and is copied unless the caller forbids it. */
TRACE_EVENT(page_flip_fallback,

	TP_PROTO(unsigned long addr, size_t bytes, bool take,
		 enum page_flip_reason reason),

	TP_ARGS(addr, bytes, take, reason),

	TP_STRUCT__entry(
		__field(unsigned long,	addr)
		__field(size_t,		bytes)
		__field(bool,		take)
		__field(int,		reason)
	),

	TP_fast_assign(
		__entry->addr	= addr;
		__entry->bytes	= bytes;
		__entry->take	= take;
		__entry->reason	= reason;
	),

	TP_printk("addr=0x%lx bytes=%zu side=%s reason=%s",
		  __entry->addr, __entry->bytes,
		  __entry->take ? "take" : "give",
		  __print_symbolic(__entry->reason, PAGE_FLIP_REASONS))
);

#endif /* _TRACE_SPLICE_H */

#include <trace/define_trace.h>
