/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What /dev/splice_kbuf and /dev/splice_kbuf_mmap understand: for the module
 * and for the tests, and no interface of the kernel.
 */
#ifndef SPLICE_KBUF_H
#define SPLICE_KBUF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * enum splice_kbuf_mode - what a buffer is made of, and how it is mapped
 * @SPLICE_KBUF_PAGES: single pages, mapped by a fault handler
 * @SPLICE_KBUF_VMALLOC: vmalloc_user(), mapped by a fault handler
 * @SPLICE_KBUF_FOLIO: one large folio, mapped by a fault handler
 * @SPLICE_KBUF_INSERT_PAGES: alloc_pages(), mapped when mmap() is called, as
 *	vm_insert_pages() does
 * @SPLICE_KBUF_REMAP_PFN: alloc_pages(), mapped as remap_pfn_range() does
 * @SPLICE_KBUF_REMAP_VMALLOC: vmalloc_user(), mapped by remap_vmalloc_range(),
 *	which /dev/splice_kbuf_mmap alone can do
 * @SPLICE_KBUF_NR_MODES: their number
 */
enum splice_kbuf_mode {
	SPLICE_KBUF_PAGES,
	SPLICE_KBUF_VMALLOC,
	SPLICE_KBUF_FOLIO,
	SPLICE_KBUF_INSERT_PAGES,
	SPLICE_KBUF_REMAP_PFN,
	SPLICE_KBUF_REMAP_VMALLOC,
	SPLICE_KBUF_NR_MODES,
};

/* More cannot be had in one piece. */
#define SPLICE_KBUF_MAX_PAGES 1024

/**
 * struct splice_kbuf_alloc - argument of SPLICE_KBUF_ALLOC
 * @mode: input: an &enum splice_kbuf_mode
 * @pages: input: size, at most SPLICE_KBUF_MAX_PAGES; for SPLICE_KBUF_FOLIO a
 *	power of two
 */
struct splice_kbuf_alloc {
	__u32 mode;
	__u32 pages;
};

/**
 * struct splice_kbuf_page - argument of SPLICE_KBUF_PAGE
 * @index: input: which page of the buffer
 * @frame: output: its page frame number
 * @refs: output: references to it, or to the folio that it is part of
 * @from: output: the page frame of the last pipe buffer whose data splice(2)
 *	wrote to it, 0: none
 */
struct splice_kbuf_page {
	__u64 index;
	__u64 frame;
	__u64 refs;
	__u64 from;
};

/**
 * struct splice_kbuf_word - argument of SPLICE_KBUF_PEEK and SPLICE_KBUF_POKE
 * @offset: input: where in the buffer, a multiple of 8
 * @value: what the kernel reads there (output) or writes there (input)
 */
struct splice_kbuf_word {
	__u64 offset;
	__u64 value;
};

/**
 * struct splice_kbuf_at - argument of SPLICE_KBUF_AT
 * @address: input: where the caller has memory mapped by remap_pfn_range()
 * @frame: output: the page frame there, which no file in /proc tells
 */
struct splice_kbuf_at {
	__u64 address;
	__u64 frame;
};

/**
 * struct splice_kbuf_stat - argument of SPLICE_KBUF_STAT, all of it output
 * @mapped: mmap() calls that made a mapping of their own
 * @opened: mappings made of others, by fork, mremap() and partial munmap()
 * @closed: mappings that went away
 * @faults: pages the fault handler gave
 * @huge_faults: huge pages it mapped
 * @refs: references to the buffer: its file's and one of each mapping
 */
struct splice_kbuf_stat {
	__u64 mapped;
	__u64 opened;
	__u64 closed;
	__u64 faults;
	__u64 huge_faults;
	__u64 refs;
};

/* A type that ioctl-number.rst knows no owner of. */
#define SPLICE_KBUF_ALLOC _IOW(0xD5, 0, struct splice_kbuf_alloc)
#define SPLICE_KBUF_PAGE _IOWR(0xD5, 1, struct splice_kbuf_page)
#define SPLICE_KBUF_PEEK _IOWR(0xD5, 2, struct splice_kbuf_word)
#define SPLICE_KBUF_POKE _IOW(0xD5, 3, struct splice_kbuf_word)
#define SPLICE_KBUF_STAT _IOR(0xD5, 4, struct splice_kbuf_stat)
#define SPLICE_KBUF_AT _IOWR(0xD5, 5, struct splice_kbuf_at)

#endif /* SPLICE_KBUF_H */
