/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the tests of kernel buffers: the module, its devices, and what the
 * kernel says of a buffer.
 *
 * Like splice_util.h: helpers return -1 with errno set and print nothing, but
 * for kbuf_require().
 */
#ifndef KBUF_UTIL_H
#define KBUF_UTIL_H

#include <stddef.h>
#include <stdint.h>

#include "page_flip_util.h"
#include "test_modules/splice_kbuf.h"

/* What to open: pages are mapped by mmap_prepare() or by mmap(). */
#define KBUF_DEVICE "/dev/splice_kbuf"
#define KBUF_MMAP_DEVICE "/dev/splice_kbuf_mmap"

/*
 * Load test_modules/splice_kbuf.ko from where this program is, for as long as
 * the program runs.  Where that cannot be, end as a test program that is one
 * skip; if the module cannot be unloaded at the end, fail.
 */
void kbuf_require(void);

/* In place of TEST_HARNESS_MAIN, with the above before everything. */
#define KBUF_HARNESS_MAIN                                            \
	static __attribute__((constructor)) void kbuf_required(void) \
	{                                                            \
		kbuf_require();                                      \
	}                                                            \
	TEST_HARNESS_MAIN

/* The module alone; EAGAIN: something of it is in use. */
int kbuf_load(void);
int kbuf_unload(void);

/* Open @device with @flags and make a buffer. */
int kbuf_open(const char *device, enum splice_kbuf_mode mode, size_t pages,
	      int flags);
/* All @pages of @fd, readable and writable; NULL: no. */
char *kbuf_map(int fd, size_t pages, int flags);

/* What the kernel says of page @index. */
int kbuf_page(int fd, size_t index, struct splice_kbuf_page *page);
/* The frames of all pages of a buffer of @nr. */
int kbuf_frames(int fd, size_t nr, uint64_t *frames);
/*
 * How many of @nr frames are the same at @mem.  Of what remap_pfn_range() has
 * mapped there /proc/self/pagemap shows nothing, and the module is asked.
 */
long kbuf_same_frames(int fd, const void *mem, size_t nr,
		      const uint64_t *frames);
/* References to page @index, -1: error. */
long kbuf_refs(int fd, size_t index);
/* One word of the buffer, by the kernel's own address. */
int kbuf_peek(int fd, size_t off, uint64_t *value);
int kbuf_poke(int fd, size_t off, uint64_t value);
int kbuf_stat(int fd, struct splice_kbuf_stat *stat);
/* Index of the first word of @len bytes that differs from the stream, -1: none. */
ssize_t kbuf_check(int fd, size_t len, uint64_t pos, uint64_t seed);

#endif /* KBUF_UTIL_H */
