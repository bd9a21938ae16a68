/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the splice selftests: test data that shows where it came from,
 * files on every backing, socket pairs, timers that interrupt a system call.
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
/* The file behind @fd opened again with @flags: a file description of its own. */
int reopen(int fd, int flags);

/* All of @len, whatever short counts; -1 on error or early end (errno 0). */
int write_all(int fd, const void *buf, size_t len);
int read_all(int fd, void *buf, size_t len);
int write_pattern(int fd, size_t len, uint64_t pos, uint64_t seed);
/* Read @len bytes and compare: 0 equal, 1 different, -1 error or early end. */
int read_pattern(int fd, size_t len, uint64_t pos, uint64_t seed);
/* The same for a range of a file, by pread(). */
int pread_pattern(int fd, off_t off, size_t len, uint64_t pos, uint64_t seed);
int pread_zeroes(int fd, off_t off, size_t len);

/* Child processes that feed or drain a descriptor, so that the test may block. */
pid_t spawn_writer(int fd, size_t len, uint64_t pos, uint64_t seed);
pid_t spawn_reader(int fd, size_t len, uint64_t pos, uint64_t seed);
/* 0: the child did all it was asked; else its exit status or 128 + signal. */
int reap(pid_t pid);

/* A pipe that holds @len bytes of stream @seed; @len must fit. */
int pipe_filled(int fds[2], size_t len, uint64_t seed);
/* Bytes in a pipe or socket (FIONREAD). */
int bytes_queued(int fd);
/* Write until the pipe is full; returns the bytes it took. */
ssize_t pipe_fill_up(int wfd);

/* Connected streams: sv[0] and sv[1] are the two ends. */
int unix_pair(int sv[2]);
int tcp_pair(int sv[2]);
/* TCP with TLS 1.2 AES-GCM-128 in the kernel; ENOENT: no kTLS here. */
int ktls_pair(int sv[2]);

/*
 * Send this process SIGALRM after @ms and again every @ms, with a handler that
 * only counts: a system call that sleeps is interrupted, however late it began.
 * @sa_flags: 0 or SA_RESTART.
 */
int alarm_start(unsigned int ms, int sa_flags);
void alarm_stop(void);
int alarm_count(void);
/* Count SIGPIPE instead of dying of it. */
int sigpipe_count_start(void);
int sigpipe_count(void);

#endif /* SPLICE_UTIL_H */
