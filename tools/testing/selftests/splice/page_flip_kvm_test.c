// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of a virtual machine that is given, and to which is taken.  KVM maps
 * it by tables of its own, without references to the pages, and hears of changes
 * by MMU notifiers alone: if a give or a take forgot them, the guest would go on
 * with pages that belong to somebody else.
 *
 * The guest is one processor in real mode, which reads or writes one byte at a
 * time and says so by a port.  Needs /dev/kvm; an emulated processor that can
 * virtualize does, slowly.
 */

#include "kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "page_flip_util.h"

#define SEED 0x5b11ce

/* Guest-physical: code of a page, and the two areas, each of a PMD. */
#define CODE_AT 0x1000UL
#define SRC_AT 0x400000UL
#define DST_AT 0x800000UL

/* Where in the code which loop is. */
#define READ_LOOP 0
#define WRITE_LOOP 16

/* mov (%si), %al; out %al, $0x10; jmp READ_LOOP */
static const unsigned char read_loop[] = { 0x8a, 0x04, 0xe6, 0x10, 0xeb, 0xfa };
/* mov %bl, (%si); inc %bl; out %al, $0x10; jmp WRITE_LOOP */
static const unsigned char write_loop[] = { 0x88, 0x1c, 0xfe, 0xc3,
					    0xe6, 0x10, 0xeb, 0xf8 };

/* In the middle of the area, not at the start of a page. */
#define BYTE (7 * PAGE + 123)

FIXTURE(guest)
{
	int vm;
	int vcpu;
	struct kvm_run *run;
	char *code;
	char *src;
	char *dst;
	int fds[2];
};

FIXTURE_VARIANT(guest)
{
	enum mem_kind kind;
};

/* clang-format off */
FIXTURE_VARIANT_ADD(guest, small) { MEM_4K };
FIXTURE_VARIANT_ADD(guest, folio_64k) { MEM_64K };
FIXTURE_VARIANT_ADD(guest, folio_2m) { MEM_2M };
/* clang-format on */

static int add_memory(int vm, unsigned int slot, unsigned long at, void *mem,
		      size_t len)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = at,
		.memory_size = len,
		.userspace_addr = (uintptr_t)mem,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Let the guest go on at that loop, with the byte at that address. */
static int set_guest(int vcpu, unsigned long loop, unsigned long at, int value)
{
	struct kvm_regs regs = { .rip = loop, .rbx = value, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -1;
	sregs.cs.base = CODE_AT;
	sregs.cs.selector = CODE_AT >> 4;
	sregs.ds.base = at & ~0xffffUL;
	regs.rsi = at & 0xffff;
	return ioctl(vcpu, KVM_SET_SREGS, &sregs) ||
	       ioctl(vcpu, KVM_SET_REGS, &regs);
}

/* One round of its loop: the byte that it said, or -1. */
static int run_guest(int vcpu, struct kvm_run *run)
{
	while (ioctl(vcpu, KVM_RUN, 0))
		if (errno != EINTR)
			return -1;
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x10)
		return -1;
	return *((unsigned char *)run + run->io.data_offset);
}

static int guest_reads(int vcpu, struct kvm_run *run, unsigned long at)
{
	return set_guest(vcpu, READ_LOOP, at, 0) ? -1 : run_guest(vcpu, run);
}

static int guest_writes(int vcpu, struct kvm_run *run, unsigned long at,
			int value)
{
	return set_guest(vcpu, WRITE_LOOP, at, value) ||
	       run_guest(vcpu, run) < 0;
}

FIXTURE_SETUP(guest)
{
	int kvm = open("/dev/kvm", O_RDWR);

	if (kvm < 0)
		SKIP(return, "needs /dev/kvm");
	if (mem_kind_set(variant->kind))
		SKIP(return, "no folios of that size");
	ASSERT_EQ(0, stay_on_cpu());
	self->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, self->vm);
	self->code = map_mem(PMD);
	self->src = map_filled(PMD, variant->kind, SEED);
	self->dst = map_mem(PMD);
	ASSERT_NE(NULL, self->code);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->dst);
	memcpy(self->code + READ_LOOP, read_loop, sizeof(read_loop));
	memcpy(self->code + WRITE_LOOP, write_loop, sizeof(write_loop));
	ASSERT_EQ(0, madvise(self->dst, PMD,
			     variant->kind == MEM_4K ? MADV_NOHUGEPAGE :
						       MADV_HUGEPAGE));
	memset(self->dst, 0x11, PMD);
	ASSERT_EQ(0, add_memory(self->vm, 0, CODE_AT, self->code, PAGE));
	ASSERT_EQ(0, add_memory(self->vm, 1, SRC_AT, self->src, PMD));
	ASSERT_EQ(0, add_memory(self->vm, 2, DST_AT, self->dst, PMD));
	self->vcpu = ioctl(self->vm, KVM_CREATE_VCPU, 0);
	ASSERT_LE(0, self->vcpu);
	self->run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
			 PROT_READ | PROT_WRITE, MAP_SHARED, self->vcpu, 0);
	ASSERT_NE(MAP_FAILED, self->run);
	ASSERT_EQ(0, pipe_of(self->fds, 512));
}

FIXTURE_TEARDOWN(guest)
{
	EXPECT_EQ(0, undo_now());
}

/* The guest has it mapped for reading and writing when it goes. */
TEST_F(guest, given)
{
	const unsigned char first = self->src[BYTE];

	ASSERT_EQ(0, guest_writes(self->vcpu, self->run, SRC_AT + BYTE, 0x77));
	ASSERT_EQ(0x77, self->src[BYTE]);
	self->src[BYTE] = first;
	ASSERT_EQ(first, guest_reads(self->vcpu, self->run, SRC_AT + BYTE));

	ASSERT_EQ(PMD, give(self->fds[1], self->src, PMD, SPLICE_F_NOCOPY));
	/* Not what is in flight, which the store does not reach. */
	EXPECT_EQ(0, guest_reads(self->vcpu, self->run, SRC_AT + BYTE));
	ASSERT_EQ(0, guest_writes(self->vcpu, self->run, SRC_AT + BYTE, 0x55));
	EXPECT_EQ(0x55, self->src[BYTE]);
	ASSERT_EQ(PMD, take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(-1, pattern_check(self->dst, PMD, 0, SEED));
	/* Nor what has been taken. */
	memset(self->dst, 0x66, PMD);
	EXPECT_EQ(0x55, guest_reads(self->vcpu, self->run, SRC_AT + BYTE));
	ASSERT_EQ(0, guest_writes(self->vcpu, self->run, SRC_AT + BYTE, 0x44));
	EXPECT_EQ(0x66, self->dst[BYTE]);
}

/* What the guest has mapped gives way to what comes. */
TEST_F(guest, taken)
{
	const unsigned char comes = self->src[BYTE];

	ASSERT_EQ(0, guest_writes(self->vcpu, self->run, DST_AT + BYTE, 0x77));
	ASSERT_EQ(0x77, guest_reads(self->vcpu, self->run, DST_AT + BYTE));
	ASSERT_EQ(PMD, give(self->fds[1], self->src, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(0x77, guest_reads(self->vcpu, self->run, DST_AT + BYTE));
	ASSERT_EQ(PMD, take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(comes, guest_reads(self->vcpu, self->run, DST_AT + BYTE));
	ASSERT_EQ(0, guest_writes(self->vcpu, self->run, DST_AT + BYTE, 0x33));
	EXPECT_EQ(0x33, self->dst[BYTE]);
	/* And a hole takes it away again. */
	ASSERT_EQ(0, madvise(self->src, PMD, MADV_DONTNEED));
	ASSERT_EQ(PMD, give(self->fds[1], self->src, PMD, SPLICE_F_NOCOPY));
	ASSERT_EQ(PMD, take(self->fds[0], self->dst, PMD, SPLICE_F_NOCOPY));
	EXPECT_EQ(0, guest_reads(self->vcpu, self->run, DST_AT + BYTE));
}

/* A thread of the guest's, which stores until it is told to stop. */
struct storing {
	int vcpu;
	struct kvm_run *run;
	atomic_bool stop;
	atomic_ulong stores;
	atomic_bool failed;
};

static void *store_on(void *arg)
{
	struct storing *s = arg;

	leave_cpu();
	s->failed = set_guest(s->vcpu, WRITE_LOOP, SRC_AT + BYTE, 1);
	while (!s->failed && !s->stop) {
		s->failed = run_guest(s->vcpu, s->run) < 0;
		s->stores++;
	}
	return NULL;
}

/* Until the guest has stored two times more, the first of which had begun. */
static void await_stores(struct storing *s)
{
	const unsigned long seen = s->stores;

	while (!s->failed && s->stores < seen + 2)
		usleep(100);
}

/* Who has taken a page does not see the guest's stores, however many there are. */
TEST_F_TIMEOUT(guest, stores_meanwhile, 900)
{
	struct storing s = { .vcpu = self->vcpu, .run = self->run };
	pthread_t thread;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, store_on, &s));
	for (i = 0; i < 200 && !s.failed; i++) {
		await_stores(&s);
		ASSERT_EQ(PMD, give(self->fds[1], self->src, PMD, 0));
		ASSERT_EQ(PMD, take(self->fds[0], self->dst, PMD, 0));
		memset(self->dst + BYTE - 1, 0, 3);
		await_stores(&s);
		ASSERT_EQ(-1, zero_check(self->dst + BYTE - 1, 3));
	}
	s.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_FALSE(s.failed);
	TH_LOG("%lu stores of the guest", s.stores);
}

FLIP_HARNESS_MAIN
