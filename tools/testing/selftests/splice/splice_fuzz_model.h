/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What splice_fuzz_test.c believes: pages, what is queued in pipes and sockets,
 * and what files and memory hold.
 *
 * A page may be in several places at once, as one of the kernel's is: splice()
 * from a file, tee() and plain vmsplice() share it, give, write(2) and all that
 * arrives is a copy.  Who stores to a page that others have too gets one of its
 * own in the model, and the others' becomes loose: the documentation does not
 * say whether they see the store, so nothing is said of its bytes any more.
 */
#ifndef SPLICE_FUZZ_MODEL_H
#define SPLICE_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "page_flip_util.h"

struct mpage {
	unsigned int refs;
	/* Its bytes may be anything. */
	bool loose;
	unsigned char data[PAGE];
};

/* How many there are, which bounds what the model needs and a pipe holds. */
extern size_t mpages_alive;

struct mpage *mpage_get(struct mpage *page);
void mpage_put(struct mpage *page);

/* A piece of a queue, of one page; NULL is one of zeroes that nobody stores to. */
struct piece {
	struct mpage *page;
	unsigned int off;
	unsigned int len;
	/* Slots of a pipe that it takes at most. */
	unsigned int slots;
};

/* What a piece that came through a socket counts: nobody knows. */
#define SLOTS_UNKNOWN 1000

/* What is on its way, in order. */
struct queue {
	struct piece *piece;
	size_t first, nr, room;
	size_t bytes;
	size_t slots;
};

/* Takes over the reference to @page. */
void queue_push(struct queue *q, struct mpage *page, unsigned int off,
		unsigned int len, unsigned int slots);
void queue_drop(struct queue *q, size_t len);
/* The first @len bytes of @from are in @to as well; @slots: each, 0: as before. */
void queue_share(struct queue *to, const struct queue *from, size_t len,
		 unsigned int slots);
void queue_move(struct queue *to, struct queue *from, size_t len,
		unsigned int slots);
/* The slots that the first @len bytes take at most. */
size_t queue_slots(const struct queue *q, size_t len);
/*
 * Index of the first of @len bytes that is not what is queued from @from on, -1:
 * none.  @was is allowed as well, byte by byte, unless it is NULL.  Bytes of
 * loose pages are not looked at; the rest counts as checked.
 */
ssize_t queue_differs(const struct queue *q, size_t from, const void *buf,
		      size_t len, const void *was);
extern unsigned long bytes_checked, bytes_loose;

/* The pages of a file or an area of memory, NULL: a hole. */
struct space {
	struct mpage **page;
	size_t nr;
};

int space_init(struct space *s, size_t nr);
/* Others that have a page of this range know nothing of it any more. */
void space_loosen(struct space *s, size_t off, size_t len);
/* Unlike space_loosen(), also whoever reads the space knows nothing. */
void space_blur(struct space *s, size_t off, size_t len);
void space_store(struct space *s, size_t off, const void *buf, size_t len);
/* Whole pages become holes; others keep what they have. */
void space_discard(struct space *s, size_t page, size_t nr);
void space_move(struct space *s, size_t to, size_t from, size_t nr);
/* As queue_differs() for what is there. */
ssize_t space_differs(const struct space *s, size_t off, const void *buf,
		      size_t len);
/* Queue copies, or the pages themselves, a piece a page. */
void space_copy_to(const struct space *s, size_t off, size_t len,
		   struct queue *q, unsigned int slots);
void space_share_to(struct space *s, size_t off, size_t len, struct queue *q,
		    unsigned int slots);

#endif /* SPLICE_FUZZ_MODEL_H */
