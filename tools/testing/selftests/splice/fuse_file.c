// SPDX-License-Identifier: GPL-2.0-only
/*
 * A FUSE file system that is one file, and its server.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse_file.h"
#include "splice_util.h"

union fuse_out {
	struct fuse_init_out init;
	struct fuse_attr_out attr;
	struct fuse_open_out open;
	char data[FUSE_FILE_MOST];
};

int fuse_file_mount(uid_t uid, int *dev)
{
	char nr[16], id[16];
	const char *const options[][2] = { { "fd", nr },
					   { "rootmode", "100000" },
					   { "user_id", id },
					   { "group_id", id },
					   { NULL } };
	int root;

	*dev = open("/dev/fuse", O_RDWR);
	if (*dev < 0)
		return -1;
	snprintf(nr, sizeof(nr), "%d", *dev);
	snprintf(id, sizeof(id), "%u", uid);
	root = private_mount("fuse", options);
	if (root < 0)
		close(*dev);
	return root;
}

static int say_hello(const struct fuse_file *f, struct fuse_init_out *init)
{
	init->major = FUSE_KERNEL_VERSION;
	init->minor = 31;
	init->max_write = 4096;
	if (f->max_pages) {
		init->flags = FUSE_MAX_PAGES;
		init->max_pages = f->max_pages;
	}
	return sizeof(*init);
}

static int say_attr(const struct fuse_file *f, struct fuse_attr_out *attr)
{
	attr->attr_valid = f->attr_valid;
	attr->attr.ino = FUSE_ROOT_ID;
	attr->attr.size = f->size;
	attr->attr.mode = S_IFREG | 0644;
	attr->attr.nlink = 1;
	return sizeof(*attr);
}

/* The length of the answer, or what a reader may return. */
static int answer(struct fuse_file *f, const struct fuse_in_header *in,
		  union fuse_out *out)
{
	memset(out, 0, sizeof(out->attr));
	switch (in->opcode) {
	case FUSE_INIT:
		return say_hello(f, &out->init);
	case FUSE_GETATTR:
		return say_attr(f, &out->attr);
	case FUSE_OPEN:
		out->open.open_flags = f->open_flags;
		return sizeof(out->open);
	case FUSE_READ:
		return f->read ? f->read(f, in, out->data) : -EIO;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		return 0;
	default:
		return -EIO;
	}
}

void fuse_file_serve(struct fuse_file *f, int dev)
{
	/* The kernel wants room for more than what will come. */
	static char request[64 * KIB];
	const struct fuse_in_header *in = (void *)request;
	static struct {
		struct fuse_out_header head;
		union fuse_out body;
	} out;

	f->dev = dev;
	while (read(dev, request, sizeof(request)) > 0) {
		int ret;

		if (in->opcode == FUSE_FORGET)
			continue;
		ret = answer(f, in, &out.body);
		if (ret == FUSE_FILE_SENT)
			continue;
		out.head.unique = in->unique;
		out.head.error = ret < 0 ? ret : 0;
		out.head.len = sizeof(out.head) + (ret < 0 ? 0 : ret);
		/* Who asked may be gone. */
		if (write(dev, &out, out.head.len) < 0 && errno != ENOENT)
			_exit(1);
	}
	_exit(0);
}
