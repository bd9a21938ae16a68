/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of a race, and the disturbances that every operation on the pipe
 * is tried with, for programs whose tests set the rest of the arena and run it.
 * To be included once, behind kselftest_harness.h.
 */
#ifndef PAGE_FLIP_RACE_FIXTURE_H
#define PAGE_FLIP_RACE_FIXTURE_H

#include "page_flip_race.h"

FIXTURE(race)
{
	struct arena *arena;
	int fds[2];
};

FIXTURE_VARIANT(race)
{
	enum act_nr what;
	enum where where;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(race, fork_giver) { FORK, GIVER };
FIXTURE_VARIANT_ADD(race, fork_taker) { FORK, TAKER };
FIXTURE_VARIANT_ADD(race, exec_giver) { EXEC, GIVER };
FIXTURE_VARIANT_ADD(race, exec_taker) { EXEC, TAKER };
FIXTURE_VARIANT_ADD(race, exit_giver) { EXIT, GIVER };
FIXTURE_VARIANT_ADD(race, exit_taker) { EXIT, TAKER };
FIXTURE_VARIANT_ADD(race, unmap_giver) { UNMAP, GIVER };
FIXTURE_VARIANT_ADD(race, unmap_taker) { UNMAP, TAKER };
FIXTURE_VARIANT_ADD(race, mremap_giver) { MREMAP, GIVER };
FIXTURE_VARIANT_ADD(race, mremap_taker) { MREMAP, TAKER };
FIXTURE_VARIANT_ADD(race, mprotect_giver) { MPROTECT, GIVER };
FIXTURE_VARIANT_ADD(race, mprotect_taker) { MPROTECT, TAKER };
FIXTURE_VARIANT_ADD(race, dontneed_giver) { DONTNEED, GIVER };
FIXTURE_VARIANT_ADD(race, dontneed_taker) { DONTNEED, TAKER };
FIXTURE_VARIANT_ADD(race, free_giver) { LAZYFREE, GIVER };
FIXTURE_VARIANT_ADD(race, free_taker) { LAZYFREE, TAKER };
FIXTURE_VARIANT_ADD(race, pageout_giver) { PAGEOUT, GIVER };
FIXTURE_VARIANT_ADD(race, pageout_taker) { PAGEOUT, TAKER };
FIXTURE_VARIANT_ADD(race, collapse_giver) { COLLAPSE, GIVER };
FIXTURE_VARIANT_ADD(race, collapse_taker) { COLLAPSE, TAKER };
FIXTURE_VARIANT_ADD(race, userfault_giver) { USERFAULT, GIVER };
FIXTURE_VARIANT_ADD(race, userfault_taker) { USERFAULT, TAKER };
FIXTURE_VARIANT_ADD(race, ksm_giver) { KSM, GIVER };
FIXTURE_VARIANT_ADD(race, ksm_taker) { KSM, TAKER };
FIXTURE_VARIANT_ADD(race, limits_giver) { LIMITS, GIVER };
FIXTURE_VARIANT_ADD(race, limits_taker) { LIMITS, TAKER };
FIXTURE_VARIANT_ADD(race, swapoff) { SWAPOFF, NEITHER };
FIXTURE_VARIANT_ADD(race, compact) { COMPACT, NEITHER };
FIXTURE_VARIANT_ADD(race, hotplug) { HOTPLUG, NEITHER };
FIXTURE_VARIANT_ADD(race, second_giver) { GIVE_TOO, GIVER };
FIXTURE_VARIANT_ADD(race, second_taker) { TAKE_TOO, TAKER };
/* clang-format on */

/* What this machine lacks, or NULL; an arena, or NULL. */
static const char *race_begin(struct arena **arena, int fds[2],
			      enum act_nr what, enum where where)
{
	struct arena *a;

	*arena = NULL;
	if (geteuid())
		return "root";
	a = race_arena(what, where);
	if (!a)
		return NULL;
	if (race_keep_settings() || race_surroundings(a)) {
		undo_now();
		return "memory cgroups";
	}
	/* Who undoes it all holds what is open by then, so not the pipe. */
	if (!pipe_of(fds, 256))
		*arena = a;
	return NULL;
}

FIXTURE_SETUP(race)
{
	const char *missing = race_begin(&self->arena, self->fds, variant->what,
					 variant->where);

	if (missing)
		SKIP(return, "needs %s", missing);
	ASSERT_NE(NULL, self->arena);
}

FIXTURE_TEARDOWN(race)
{
	EXPECT_EQ(0, undo_now());
}

static void race_for(struct __test_metadata *_metadata, struct arena *a,
		     int fds[2], double seconds)
{
	const long flying = flip_in_flight(0, 1000);
	struct flip_counts before, after;
	int status;

	ASSERT_EQ(0, flip_counts(&before));
	TH_LOG("seed %u, %s", a->seed, mem_kind_name(a->kind));
	status = race_run(a, fds, race_ms(seconds));
	ASSERT_EQ(0, flip_counts(&after));
	race_count(a, &before, &after);
	TH_LOG("%u lives; gave %lu, moved %ld, %lu times ENOMEM", a->lives,
	       a->given, after.nr[TAKEN] - before.nr[TAKEN], a->nomem);
	TH_LOG("disturbed %lu, operated %lu times", a->disturbed, a->operated);
	TH_LOG("came %lu whole, %lu blank, %lu cut off, %lu torn",
	       a->arrived[WHOLE], a->arrived[BLANK], a->arrived[CUT_OFF],
	       a->arrived[TORN]);
	EXPECT_FALSE(a->failed);
	EXPECT_STREQ("", a->why);
	if (status == KSFT_SKIP)
		SKIP(return, "this machine cannot: %s", acts[a->what].name);
	EXPECT_EQ(0, status);
	EXPECT_LT(0UL, a->arrived[WHOLE]);
	if (acts[a->what].perform)
		EXPECT_LT(0UL, a->disturbed);
	if (a->op != NOTHING)
		EXPECT_LT(0UL, a->operated);
	EXPECT_LT(before.nr[TAKEN], after.nr[TAKEN]);
	EXPECT_EQ(flying, flip_in_flight(flying, 10000));
}

#endif /* PAGE_FLIP_RACE_FIXTURE_H */
