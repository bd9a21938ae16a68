// SPDX-License-Identifier: GPL-2.0-only
/*
 * Errors for the detectors of a kernel to find: loading this module with
 * what=NAME makes one of them, and fails.  Never on a machine that matters.
 */

#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static char *what = "";
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "the error to make");

/* Many, as SLUB forgets the addresses that it gave out last only in time. */
static void leak(void)
{
	int i;

	for (i = 0; i < 256; i++)
		memset(kmalloc(128, GFP_KERNEL), i, 128);
}

static void after_free(void)
{
	int *p = kzalloc(sizeof(*p), GFP_KERNEL);

	kfree(p);
	pr_info("provoke: %d\n", READ_ONCE(*p));
}

static void shift(void)
{
	int by = 40;

	OPTIMIZER_HIDE_VAR(by);
	pr_info("provoke: %d\n", 1 << by);
}

static void bounds(void)
{
	char few[4] = { 0 };
	int at = 5;

	OPTIMIZER_HIDE_VAR(at);
	pr_info("provoke: %d\n", few[at]);
}

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static void locks(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void atomic(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	msleep(20);
	spin_unlock(&lock);
}

static void list(void)
{
	LIST_HEAD(head);
	LIST_HEAD(entry);
	LIST_HEAD(other);

	list_add(&entry, &head);
	entry.next = &other;
	list_del(&entry);
}

/* Not by what KASAN looks at: it would be the first to see it. */
static noinline __no_sanitize_address void spoil(char *page)
{
	WRITE_ONCE(page[1000], 0);
}

/* This processor's list of free pages is a stack. */
static void poison(void)
{
	struct page *page = alloc_page(GFP_KERNEL);
	char *addr = page_address(page);

	__free_page(page);
	spoil(addr);
	page = alloc_page(GFP_KERNEL);
	__free_page(page);
}

static void references(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	__free_page(page);
	put_page(page);
}

static int shared;

static int count(void *unused)
{
	while (!kthread_should_stop()) {
		shared++;
		cond_resched();
	}
	return 0;
}

static void race(void)
{
	struct task_struct *one = kthread_run(count, NULL, "provoke/1");
	struct task_struct *two = kthread_run(count, NULL, "provoke/2");

	msleep(10000);
	kthread_stop(one);
	kthread_stop(two);
}

static const struct {
	const char *name;
	void (*make)(void);
} errors[] = {
	{ "leak", leak },   { "after_free", after_free },
	{ "shift", shift }, { "bounds", bounds },
	{ "locks", locks }, { "atomic", atomic },
	{ "list", list },   { "poison", poison },
	{ "race", race },   { "references", references },
};

static int __init provoke_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		if (strcmp(what, errors[i].name))
			continue;
		errors[i].make();
		return -EAGAIN;
	}
	return -EINVAL;
}

module_init(provoke_init);
MODULE_DESCRIPTION("Errors for detectors to find");
MODULE_LICENSE("GPL");
