// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every operation on a pipe that is given to and taken from, against every
 * disturbance of the giver's memory, the taker's, or the machine: each test is
 * an operation, each variant a disturbance.  page_flip_race.h says what is
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

FLIP_HARNESS_MAIN
