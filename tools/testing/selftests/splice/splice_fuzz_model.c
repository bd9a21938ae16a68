// SPDX-License-Identifier: GPL-2.0-only
/* See splice_fuzz_model.h. */

#include <stdlib.h>
#include <string.h>

#include "splice_fuzz_model.h"

size_t mpages_alive;
unsigned long bytes_checked, bytes_loose;

static const unsigned char zeroes[PAGE];

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void *need(void *mem)
{
	if (!mem)
		abort();
	return mem;
}

static struct mpage *mpage_new(const struct mpage *from)
{
	struct mpage *page = need(malloc(sizeof(*page)));

	page->refs = 1;
	page->loose = from && from->loose;
	memcpy(page->data, from ? from->data : zeroes, PAGE);
	mpages_alive++;
	return page;
}

struct mpage *mpage_get(struct mpage *page)
{
	if (page)
		page->refs++;
	return page;
}

void mpage_put(struct mpage *page)
{
	if (!page || --page->refs)
		return;
	free(page);
	mpages_alive--;
}

static struct piece *piece_at(const struct queue *q, size_t i)
{
	return &q->piece[q->first + i];
}

static void make_room(struct queue *q)
{
	if (q->first + q->nr < q->room)
		return;
	if (q->first <= q->room / 2) {
		q->room = q->room ? 2 * q->room : 64;
		q->piece = need(realloc(q->piece, q->room * sizeof(*q->piece)));
		return;
	}
	memmove(q->piece, q->piece + q->first, q->nr * sizeof(*q->piece));
	q->first = 0;
}

void queue_push(struct queue *q, struct mpage *page, unsigned int off,
		unsigned int len, unsigned int slots)
{
	make_room(q);
	*piece_at(q, q->nr++) = (struct piece){ page, off, len, slots };
	q->bytes += len;
	q->slots += slots;
}

void queue_drop(struct queue *q, size_t len)
{
	while (len) {
		struct piece *p = piece_at(q, 0);
		const unsigned int n = min_size(len, p->len);

		p->off += n;
		p->len -= n;
		q->bytes -= n;
		len -= n;
		if (p->len)
			break;
		q->slots -= p->slots;
		mpage_put(p->page);
		q->first++;
		q->nr--;
	}
}

void queue_share(struct queue *to, const struct queue *from, size_t len,
		 unsigned int slots)
{
	size_t i;

	for (i = 0; len; i++) {
		const struct piece *p = piece_at(from, i);
		const unsigned int n = min_size(len, p->len);

		queue_push(to, mpage_get(p->page), p->off, n,
			   slots ? slots : p->slots);
		len -= n;
	}
}

void queue_move(struct queue *to, struct queue *from, size_t len,
		unsigned int slots)
{
	queue_share(to, from, len, slots);
	queue_drop(from, len);
}

size_t queue_slots(const struct queue *q, size_t len)
{
	size_t i, slots = 0;

	for (i = 0; i < q->nr && len; i++) {
		slots += piece_at(q, i)->slots;
		len -= min_size(len, piece_at(q, i)->len);
	}
	return slots;
}

/* Index of the first byte that is neither @want nor @was. */
static ssize_t bytes_differ(const unsigned char *got, const unsigned char *want,
			    const unsigned char *was, size_t len)
{
	size_t i;

	if (!memcmp(got, want, len))
		return -1;
	for (i = 0; i < len; i++)
		if (got[i] != want[i] && (!was || got[i] != was[i]))
			return i;
	return -1;
}

static ssize_t page_differs(const struct mpage *page, unsigned int off,
			    const void *buf, size_t len, const void *was)
{
	if (page && page->loose) {
		bytes_loose += len;
		return -1;
	}
	bytes_checked += len;
	return bytes_differ(buf, (page ? page->data : zeroes) + off, was, len);
}

ssize_t queue_differs(const struct queue *q, size_t from, const void *buf,
		      size_t len, const void *was)
{
	size_t i, n, skip, done = 0;
	ssize_t bad;

	for (i = 0; done < len && i < q->nr; i++) {
		const struct piece *p = piece_at(q, i);

		skip = min_size(from, p->len);
		from -= skip;
		n = min_size(len - done, p->len - skip);
		bad = page_differs(p->page, p->off + skip,
				   (const char *)buf + done, n,
				   was ? (const char *)was + done : NULL);
		if (bad >= 0)
			return done + bad;
		done += n;
	}
	return -1;
}

int space_init(struct space *s, size_t nr)
{
	s->nr = nr;
	s->page = calloc(nr, sizeof(*s->page));
	return s->page ? 0 : -1;
}

/* A part of a range that is in one page: its length. */
static size_t part_of_page(size_t off, size_t len)
{
	return min_size(len, PAGE - off % PAGE);
}

/* A page for the space alone, with what it has. */
static struct mpage *own(struct space *s, size_t i)
{
	struct mpage *old = s->page[i];

	if (old && old->refs == 1)
		return old;
	s->page[i] = mpage_new(old);
	if (old)
		old->loose = true;
	mpage_put(old);
	return s->page[i];
}

void space_loosen(struct space *s, size_t off, size_t len)
{
	size_t i;

	for (i = off / PAGE; len && i <= (off + len - 1) / PAGE; i++)
		if (s->page[i] && s->page[i]->refs > 1)
			own(s, i);
}

void space_blur(struct space *s, size_t off, size_t len)
{
	size_t i;

	for (i = off / PAGE; len && i <= (off + len - 1) / PAGE; i++)
		if (s->page[i])
			s->page[i]->loose = true;
}

void space_store(struct space *s, size_t off, const void *buf, size_t len)
{
	size_t n;

	for (; len; len -= n, off += n, buf = (const char *)buf + n) {
		struct mpage *page;

		n = part_of_page(off, len);
		if (!s->page[off / PAGE] && zero_check(buf, n) < 0)
			continue;
		page = own(s, off / PAGE);
		memcpy(page->data + off % PAGE, buf, n);
		if (n == PAGE)
			page->loose = false;
	}
}

void space_discard(struct space *s, size_t page, size_t nr)
{
	size_t i;

	for (i = page; i < page + nr; i++) {
		mpage_put(s->page[i]);
		s->page[i] = NULL;
	}
}

void space_move(struct space *s, size_t to, size_t from, size_t nr)
{
	space_discard(s, to, nr);
	memcpy(s->page + to, s->page + from, nr * sizeof(*s->page));
	memset(s->page + from, 0, nr * sizeof(*s->page));
}

ssize_t space_differs(const struct space *s, size_t off, const void *buf,
		      size_t len)
{
	size_t n, done;
	ssize_t bad;

	for (done = 0; done < len; done += n) {
		n = part_of_page(off + done, len - done);
		bad = page_differs(s->page[(off + done) / PAGE],
				   (off + done) % PAGE,
				   (const char *)buf + done, n, NULL);
		if (bad >= 0)
			return done + bad;
	}
	return -1;
}

void space_copy_to(const struct space *s, size_t off, size_t len,
		   struct queue *q, unsigned int slots)
{
	size_t n;

	for (; len; len -= n, off += n) {
		struct mpage *page = s->page[off / PAGE];

		n = part_of_page(off, len);
		queue_push(q, page ? mpage_new(page) : NULL, off % PAGE, n,
			   slots);
	}
}

void space_share_to(struct space *s, size_t off, size_t len, struct queue *q,
		    unsigned int slots)
{
	size_t n;

	for (; len; len -= n, off += n) {
		struct mpage **page = &s->page[off / PAGE];

		n = part_of_page(off, len);
		if (!*page)
			*page = mpage_new(NULL);
		queue_push(q, mpage_get(*page), off % PAGE, n, slots);
	}
}
