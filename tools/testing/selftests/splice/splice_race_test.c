// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every operation on a pipe that is given to and taken from, against every
 * disturbance of the giver's memory, the taker's, its own, or the machine: each
 * test is an operation, each variant a disturbance.  page_flip_race.h says what is
 * checked, page_flip_race_test.c has the same disturbances without the third
 * process, for longer, and more of them.
 *
 * The seed also says whether a race is of small pages or of large folios.
 */

#include "kselftest_harness.h"

#include "page_flip_race_fixture.h"

/* Nothing but the operation. */
/* clang-format off */
FIXTURE_VARIANT_ADD(race, alone) { NOTHING, NEITHER };
/* clang-format on */

static void race_with(struct __test_metadata *_metadata, struct arena *a,
		      int fds[2], enum act_nr op)
{
	a->op = op;
	a->kind = a->seed & 1 ? MEM_2M : MEM_4K;
	race_for(_metadata, a, fds, 0.1);
}

/* A second process that gives pages of its own. */
TEST_F_TIMEOUT(race, give, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_GIVE);
}

/* A second process that takes. */
TEST_F_TIMEOUT(race, take, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_TAKE);
}

TEST_F_TIMEOUT(race, splice, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_SPLICE);
}

TEST_F_TIMEOUT(race, tee, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_TEE);
}

TEST_F_TIMEOUT(race, read, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_READ);
}

TEST_F_TIMEOUT(race, write, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_WRITE);
}

/* Ends of the pipe, and pipes to which pages went on. */
TEST_F_TIMEOUT(race, close, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_CLOSE);
}

/* F_SETPIPE_SZ */
TEST_F_TIMEOUT(race, resize, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_RESIZE);
}

/* What is done to the memory of the operation itself, which not all have. */
FIXTURE(own)
{
	struct arena *arena;
	int fds[2];
};

FIXTURE_VARIANT(own)
{
	enum act_nr what;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(own, fork) { FORK };
FIXTURE_VARIANT_ADD(own, unmap) { UNMAP };
FIXTURE_VARIANT_ADD(own, mremap) { MREMAP };
FIXTURE_VARIANT_ADD(own, mprotect) { MPROTECT };
FIXTURE_VARIANT_ADD(own, dontneed) { DONTNEED };
FIXTURE_VARIANT_ADD(own, free) { LAZYFREE };
FIXTURE_VARIANT_ADD(own, pageout) { PAGEOUT };
FIXTURE_VARIANT_ADD(own, collapse) { COLLAPSE };
FIXTURE_VARIANT_ADD(own, userfault) { USERFAULT };
FIXTURE_VARIANT_ADD(own, ksm) { KSM };
/* clang-format on */

FIXTURE_SETUP(own)
{
	const char *missing =
		race_begin(&self->arena, self->fds, variant->what, OPERATOR);

	if (missing)
		SKIP(return, "needs %s", missing);
	ASSERT_NE(NULL, self->arena);
}

FIXTURE_TEARDOWN(own)
{
	EXPECT_EQ(0, undo_now());
}

TEST_F_TIMEOUT(own, give, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_GIVE);
}

TEST_F_TIMEOUT(own, take, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_TAKE);
}

TEST_F_TIMEOUT(own, read, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_READ);
}

TEST_F_TIMEOUT(own, write, 900)
{
	race_with(_metadata, self->arena, self->fds, OP_WRITE);
}

FLIP_HARNESS_MAIN
