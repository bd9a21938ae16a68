/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the splice selftests: test data that shows where it came from,
 * files on every backing, socket pairs, child processes, timers that interrupt
 * a system call, changes of the system that are undone whatever happens.
 *
 * Helpers return -1 with errno set, as system calls do, so that a test can
 * assert on them.  Nothing here prints; a test says itself what went wrong.
 */
#ifndef SPLICE_UTIL_H
#define SPLICE_UTIL_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Debug kernels under emulation are two orders of magnitude slower than what
 * the harness allows for.  (A test includes kselftest_harness.h first.)
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 240

#define KIB 1024UL
#define MIB (1024UL * 1024)

/*
 * Test data.  Byte N of the stream SEED is a function of N and SEED, no two
 * aligned 8-byte words of one stream are equal: a byte that is lost, doubled
 * or moved shows, and so does a page of another stream.
 */
void pattern_fill(void *buf, size_t len, uint64_t pos, uint64_t seed);
/* Index of the first byte of @buf that differs from the stream, -1: none. */
ssize_t pattern_check(const void *buf, size_t len, uint64_t pos, uint64_t seed);
/* Likewise for zeroes. */
ssize_t zero_check(const void *buf, size_t len);

/*
 * Backings: where a file lives.  A file system is looked for at the path in
 * the environment variable SPLICE_TEST_<NAME>, else at /mnt/<name>, and used
 * only when statfs() shows that it is what the name says.
 */
enum backing {
	BACKING_EXT4,
	BACKING_XFS,
	BACKING_TMPFS,
	BACKING_OVERLAY,
	BACKING_MEMFD,
};

const char *backing_name(enum backing b);
/* The directory of @b, NULL where this machine has none (or for memfd). */
const char *backing_dir(enum backing b);
bool backing_available(enum backing b);
/* A new empty file without a name, O_RDWR. */
int backing_file(enum backing b);
/* The same with @len bytes of stream @seed from position 0; offset 0. */
int backing_file_filled(enum backing b, size_t len, uint64_t seed);
/* The same in memory, whatever is mounted. */
int memfd_filled(size_t len, uint64_t seed);
/* The file behind @fd opened again with @flags: a file description of its own. */
int reopen(int fd, int flags);
off_t position(int fd);
off_t file_size(int fd);
int set_nonblock(int fd);

/* All of @len, whatever short counts; -1 on error or early end (errno 0). */
int write_all(int fd, const void *buf, size_t len);
int read_all(int fd, void *buf, size_t len);
int write_pattern(int fd, size_t len, uint64_t pos, uint64_t seed);
/* Read @len bytes and compare: 0 equal, 1 different, -1 error or early end. */
int read_pattern(int fd, size_t len, uint64_t pos, uint64_t seed);
int read_zeroes(int fd, size_t len);
/* The same for a range of a file, by pread(). */
int pread_pattern(int fd, off_t off, size_t len, uint64_t pos, uint64_t seed);
int pread_zeroes(int fd, off_t off, size_t len);

/* splice() until @len bytes have moved, whatever short counts, or to the end. */
ssize_t splice_all(int in, off_t *off_in, int out, off_t *off_out, size_t len);

/* fork(), but the child dies with the thread that it came from. */
pid_t fork_child(void);
/* The same as an ordinary user, without groups; if that fails it exits 255. */
pid_t fork_nobody(void);
/* Child processes that feed or drain a descriptor, so that the test may block. */
pid_t spawn_writer(int fd, size_t len, uint64_t pos, uint64_t seed);
pid_t spawn_reader(int fd, size_t len, uint64_t pos, uint64_t seed);
/* 0: the child did all it was asked; else its exit status or 128 + signal. */
int reap(pid_t pid);
/* Wait until @pid sleeps in system call @nr; false: it has ended instead. */
bool await_asleep(pid_t pid, long nr);

/* A pipe that holds @len bytes of stream @seed; @len must fit. */
int pipe_filled(int fds[2], size_t len, uint64_t seed);
/* Bytes in a pipe or socket (FIONREAD). */
int bytes_queued(int fd);
/* Write until the pipe is full; returns the bytes it took. */
ssize_t pipe_fill_up(int wfd);
/* Leave the marks of an earlier use, mergeable buffers, in every slot. */
int pipe_use_slots(int fds[2]);
/* A FIFO in @dir whose name is gone, open for reading and writing. */
int fifo_in(const char *dir);
/* An O_NOTIFICATION_PIPE; ENOPKG: this kernel has none. */
int notification_pipe(int fds[2]);

/*
 * The page frame of each of @nr pages from @mem on; 0 where none is present, or
 * all where this process may not know.
 */
int read_frames(const void *mem, size_t nr, uint64_t *frames);
/* The entries of /proc/self/pagemap as they are. */
int read_pagemap(const void *mem, size_t nr, uint64_t *entries);

/* Connected streams: sv[0] and sv[1] are the two ends. */
int unix_pair(int sv[2]);
int tcp_pair(int sv[2]);
/* TCP with TLS 1.2 AES-GCM-128 in the kernel; ENOENT: no kTLS here. */
int ktls_pair(int sv[2]);
/* A terminal that passes bytes on as they are: main side, its peer. */
int pty_pair(int fds[2]);

/* A new file system that is mounted nowhere: its root directory. */
int private_mount(const char *type, const char *const options[][2]);
/* The same, a tmpfs of @size, which is what its mount option takes. */
int small_tmpfs(const char *size);
/* A new empty file without a name on a small_tmpfs(). */
int small_tmpfs_file(const char *size);

/* Watch for IN_ACCESS and IN_MODIFY of what is open as @fd. */
int watch(int fd);
/* The mask of the next event of a watch(), 0: there is none. */
int next_event(int ifd);

/*
 * Send this process SIGALRM after @ms and again every @ms, with a handler that
 * only counts: a system call that sleeps is interrupted, however late it began.
 * @sa_flags: 0 or SA_RESTART.
 */
int alarm_start(unsigned int ms, int sa_flags);
void alarm_stop(void);
/* Count @sig, from 0, instead of dying of it; SIGALRM is alarm_start()'s. */
int signal_count_start(int sig);
int signal_count(int sig);

/*
 * Changes of the system that are undone when this process has ended, however it
 * ends: a process outside of the group that the harness kills does it.  It
 * shares the descriptors and the memory that there are now, so change before
 * there are others.
 */

/*
 * Have @undo called with @arg, by a process that is a copy of this one now.  It
 * returns 0 or not.
 */
int undo_at_end(int (*undo)(void *arg), void *arg);
/* Undo all, the last one first: 0, also where there is none, unless one failed. */
int undo_now(void);

#define PIPE_HARD_LIMIT "/proc/sys/fs/pipe-user-pages-hard"

/*
 * The values of these sysctls (at most SYSCTLS_MAX) will be put back.  Waits
 * until no other undo keeps one of them.  Settings of sysfs do as well.
 */
#define SYSCTLS_MAX 12
int sysctl_keep(const char *const *paths, size_t nr);
long sysctl_get(const char *path);
int sysctl_set(const char *path, long value);
int sysctl_write(const char *path, const char *text);
/* The value alone, or the one in brackets among all there are. */
int setting_get(const char *path, char *value, size_t size);

/* Root, a kernel with swap and a file system of that kind. */
bool swap_available(enum backing b);
/*
 * A new file that is swapped to until undo_now(): SWAP_PAGES pages of stream
 * @seed, but for the first one.
 */
#define SWAP_PAGES 32
int swap_file(enum backing b, uint64_t seed);
/* What mkswap(8) writes to a file or device of @pages pages. */
int swap_header(int fd, size_t pages);
/* Swap of @len bytes on @b until undo_now(). */
int swap_space(enum backing b, size_t len);

#ifdef __x86_64__
/* The i386 entry, from a 64-bit process: the result, or minus an errno. */
long int80(long nr, long a, long b, long c, long d);
/* Without CONFIG_IA32_EMULATION the instruction is a fault. */
bool has_int80(void);
#endif

#endif /* SPLICE_UTIL_H */
