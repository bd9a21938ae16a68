/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Faults in the calls of a test: the Nth allocation, or the Nth copy from or to
 * user memory, of a system call fails.
 *
 * Every test program is linked so that its calls of splice(), tee(),
 * vmsplice(), sendfile() and copy_file_range(), what it does to pipes, and
 * main() pass through splice_fault.c.  That does nothing, unless the
 * environment says
 *
 *	SPLICE_FAULTS=slab,page		memory of the kernel, pages
 *	SPLICE_FAULTS=usercopy		copies from and to user memory
 *
 * Each call is then repeated with the first, the second, ... of these failing
 * until none does any more, or it gets by without: the next call from the same
 * place goes on behind that.  An attempt that failed for it must have failed with
 * an errno that the contract names, and must have done nothing: what the test
 * checks of data, offsets and page frames is the proof.  After a short count the
 * rest is asked for where that means the same as one call.
 *
 * Helpers return -1 with errno set.
 */
#ifndef SPLICE_FAULT_H
#define SPLICE_FAULT_H

#include <stdbool.h>

enum fault_kind {
	FAULT_SLAB = 1 << 0,
	FAULT_PAGE = 1 << 1,
	FAULT_USERCOPY = 1 << 2,
};

/* This kernel can let the Nth of something fail. */
bool faults_available(void);

/*
 * What is counted from now on, by the whole machine; 0 puts back what was before.
 * More than that is counted where a kernel cannot tell: returns what is.
 */
int faults_choose(unsigned int kinds);

/* This process arms by itself, and has its calls unswept. */
void faults_by_hand(void);
/* The @nth in the next call of this thread fails. */
int fault_arm(unsigned int nth);
/* It did; in any case nothing will from now on. */
bool fault_fired(void);

/* What --wrap makes of main(). */
int __real_main(int argc, char **argv, char **envp);

#endif /* SPLICE_FAULT_H */
