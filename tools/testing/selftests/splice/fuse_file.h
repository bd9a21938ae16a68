/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A FUSE file system that is one file, and its server.  Each request but READ
 * has the plainest answer, and one that is not known fails with EIO.
 */
#ifndef FUSE_FILE_H
#define FUSE_FILE_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"

/* What one READ may ask for: max_pages of the kernel's default limit. */
#define FUSE_FILE_MOST (1024 * 1024)

/* The answer is sent already. */
#define FUSE_FILE_SENT (-65536)

/**
 * struct fuse_file - what its server is to say, and what it does
 * @size: of the file, bytes
 * @open_flags: FOPEN_*, of each open
 * @attr_valid: for how long the kernel may believe the size, seconds
 * @max_pages: of a READ; 0: what the kernel asks for by itself
 * @read: fills @data, which has room for FUSE_FILE_MOST bytes; returns their
 *        number, minus an error, or %FUSE_FILE_SENT; %NULL: EIO
 * @dev: /dev/fuse, set by fuse_file_serve(), for what is sent otherwise
 */
struct fuse_file {
	uint64_t size;
	uint32_t open_flags;
	uint32_t attr_valid;
	uint16_t max_pages;
	int (*read)(struct fuse_file *f, const struct fuse_in_header *in,
		    char *data);
	int dev;
};

/*
 * A file system that belongs to that user, for a server that reads @dev: its
 * root, which is the file, for reopen(); -1: no FUSE here, see errno.
 */
int fuse_file_mount(uid_t uid, int *dev);

/* Answer until the file system is gone; a process of its own, which ends. */
__noreturn void fuse_file_serve(struct fuse_file *f, int dev);

#endif /* FUSE_FILE_H */
