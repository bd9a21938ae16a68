// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the splice selftests; splice_util.h has their contracts. */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/magic.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "splice_util.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#ifndef OVERLAYFS_SUPER_MAGIC
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#endif

#define CHUNK (64 * KIB)

/* The odd multiplier makes word number -> word a bijection for each seed. */
static uint64_t pattern_word(uint64_t nr, uint64_t seed)
{
	return (nr + seed * 0x9e3779b97f4a7c15ULL) * 0xd6e8feb86659fd93ULL;
}

static unsigned char pattern_byte(uint64_t pos, uint64_t seed)
{
	return pattern_word(pos / 8, seed) >> (pos % 8 * 8);
}

void pattern_fill(void *buf, size_t len, uint64_t pos, uint64_t seed)
{
	unsigned char *p = buf;
	size_t i = 0;

	while (i < len) {
		if ((pos + i) % 8 || len - i < 8) {
			p[i] = pattern_byte(pos + i, seed);
			i++;
		} else {
			uint64_t w = pattern_word((pos + i) / 8, seed);

			memcpy(p + i, &w, 8);
			i += 8;
		}
	}
}

ssize_t pattern_check(const void *buf, size_t len, uint64_t pos, uint64_t seed)
{
	const unsigned char *p = buf;
	unsigned char want[512];
	size_t i, j, n;

	for (i = 0; i < len; i += n) {
		n = len - i < sizeof(want) ? len - i : sizeof(want);
		pattern_fill(want, n, pos + i, seed);
		if (!memcmp(p + i, want, n))
			continue;
		for (j = 0; p[i + j] == want[j]; j++)
			;
		return i + j;
	}
	return -1;
}

ssize_t zero_check(const void *buf, size_t len)
{
	const unsigned char *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i])
			return i;
	return -1;
}

static const struct {
	const char *name;
	const char *dir;
	const char *env;
	unsigned long magic;
} backings[] = {
	[BACKING_EXT4] = { "ext4", "/mnt/ext4", "SPLICE_TEST_EXT4",
			   EXT4_SUPER_MAGIC },
	[BACKING_XFS] = { "xfs", "/mnt/xfs", "SPLICE_TEST_XFS",
			  XFS_SUPER_MAGIC },
	[BACKING_TMPFS] = { "tmpfs", "/mnt/tmpfs", "SPLICE_TEST_TMPFS",
			    TMPFS_MAGIC },
	[BACKING_OVERLAY] = { "overlay", "/mnt/overlay", "SPLICE_TEST_OVERLAY",
			      OVERLAYFS_SUPER_MAGIC },
	[BACKING_MEMFD] = { "memfd", NULL, "SPLICE_TEST_MEMFD", TMPFS_MAGIC },
};

const char *backing_name(enum backing b)
{
	return backings[b].name;
}

const char *backing_dir(enum backing b)
{
	const char *dir = getenv(backings[b].env);
	struct statfs st;

	if (!dir)
		dir = backings[b].dir;
	if (!dir || statfs(dir, &st))
		return NULL;
	return (unsigned long)st.f_type == backings[b].magic ? dir : NULL;
}

bool backing_available(enum backing b)
{
	return b == BACKING_MEMFD || backing_dir(b);
}

int backing_file(enum backing b)
{
	const char *dir;
	char path[256];
	int fd;

	if (b == BACKING_MEMFD)
		return memfd_create("splice_test", MFD_ALLOW_SEALING);
	dir = backing_dir(b);
	if (!dir) {
		errno = ENOENT;
		return -1;
	}
	snprintf(path, sizeof(path), "%s/splice_test.XXXXXX", dir);
	fd = mkstemp(path);
	if (fd >= 0)
		unlink(path);
	return fd;
}

int backing_file_filled(enum backing b, size_t len, uint64_t seed)
{
	int fd = backing_file(b);

	if (fd < 0)
		return -1;
	if (write_pattern(fd, len, 0, seed) || lseek(fd, 0, SEEK_SET)) {
		close(fd);
		return -1;
	}
	return fd;
}

int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

int write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

int read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (!n)
				errno = 0;
			return -1;
		}
		p += n;
		len -= n;
	}
	return 0;
}

int write_pattern(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	char buf[CHUNK];

	while (len) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);

		pattern_fill(buf, n, pos, seed);
		if (write_all(fd, buf, n))
			return -1;
		pos += n;
		len -= n;
	}
	return 0;
}

int read_pattern(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	char buf[CHUNK];

	while (len) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);

		if (read_all(fd, buf, n))
			return -1;
		if (pattern_check(buf, n, pos, seed) >= 0)
			return 1;
		pos += n;
		len -= n;
	}
	return 0;
}

/* @seed NULL stands for zeroes. */
static int pread_check(int fd, off_t off, size_t len, uint64_t pos,
		       const uint64_t *seed)
{
	char buf[CHUNK];
	ssize_t got, bad;

	for (; len; off += got, pos += got, len -= got) {
		got = pread(fd, buf, len < sizeof(buf) ? len : sizeof(buf),
			    off);
		if (got <= 0) {
			if (!got)
				errno = 0;
			return -1;
		}
		bad = seed ? pattern_check(buf, got, pos, *seed) :
			     zero_check(buf, got);
		if (bad >= 0)
			return 1;
	}
	return 0;
}

int pread_pattern(int fd, off_t off, size_t len, uint64_t pos, uint64_t seed)
{
	return pread_check(fd, off, len, pos, &seed);
}

int pread_zeroes(int fd, off_t off, size_t len)
{
	return pread_check(fd, off, len, 0, NULL);
}

static pid_t spawn(void)
{
	pid_t pid = fork();

	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

pid_t spawn_writer(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	pid_t pid = spawn();

	if (pid)
		return pid;
	_exit(write_pattern(fd, len, pos, seed) ? 2 : 0);
}

pid_t spawn_reader(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	pid_t pid = spawn();
	int ret;

	if (pid)
		return pid;
	ret = read_pattern(fd, len, pos, seed);
	_exit(ret < 0 ? 2 : ret);
}

int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int pipe_filled(int fds[2], size_t len, uint64_t seed)
{
	if (pipe(fds))
		return -1;
	return write_pattern(fds[1], len, 0, seed);
}

int bytes_queued(int fd)
{
	int n;

	return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

ssize_t pipe_fill_up(int wfd)
{
	int flags = fcntl(wfd, F_GETFL);
	char page[4096] = { 0 };
	ssize_t n, sum = 0;

	if (fcntl(wfd, F_SETFL, flags | O_NONBLOCK))
		return -1;
	while ((n = write(wfd, page, sizeof(page))) > 0)
		sum += n;
	if (errno != EAGAIN)
		sum = -1;
	if (fcntl(wfd, F_SETFL, flags))
		return -1;
	return sum;
}

int unix_pair(int sv[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
}

int tcp_pair(int sv[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int lsn, err = -1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	lsn = socket(AF_INET, SOCK_STREAM, 0);
	if (lsn < 0)
		return -1;
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (sv[0] < 0)
		goto out;
	if (bind(lsn, (void *)&addr, len) || listen(lsn, 1) ||
	    getsockname(lsn, (void *)&addr, &len) ||
	    connect(sv[0], (void *)&addr, len))
		goto out;
	sv[1] = accept(lsn, NULL, NULL);
	err = sv[1] < 0 ? -1 : 0;
out:
	close(lsn);
	return err;
}

int ktls_pair(int sv[2])
{
	struct tls12_crypto_info_aes_gcm_128 info = {
		.info.version = TLS_1_2_VERSION,
		.info.cipher_type = TLS_CIPHER_AES_GCM_128,
	};

	memset(info.key, 0x5a, sizeof(info.key));
	if (tcp_pair(sv))
		return -1;
	if (setsockopt(sv[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) ||
	    setsockopt(sv[1], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")))
		return -1;
	if (setsockopt(sv[0], SOL_TLS, TLS_TX, &info, sizeof(info)) ||
	    setsockopt(sv[1], SOL_TLS, TLS_RX, &info, sizeof(info)))
		return -1;
	return 0;
}

static atomic_int nr_alarms;
static atomic_int nr_sigpipes;

static void count_alarm(int sig)
{
	nr_alarms++;
}

static void count_sigpipe(int sig)
{
	nr_sigpipes++;
}

int alarm_start(unsigned int ms, int sa_flags)
{
	struct sigaction sa = { .sa_handler = count_alarm,
				.sa_flags = sa_flags };
	struct itimerval it;

	it.it_value.tv_sec = ms / 1000;
	it.it_value.tv_usec = ms % 1000 * 1000;
	it.it_interval = it.it_value;
	nr_alarms = 0;
	if (sigaction(SIGALRM, &sa, NULL))
		return -1;
	return setitimer(ITIMER_REAL, &it, NULL);
}

void alarm_stop(void)
{
	struct itimerval it = { 0 };

	setitimer(ITIMER_REAL, &it, NULL);
}

int alarm_count(void)
{
	return nr_alarms;
}

int sigpipe_count_start(void)
{
	struct sigaction sa = { .sa_handler = count_sigpipe };

	nr_sigpipes = 0;
	return sigaction(SIGPIPE, &sa, NULL);
}

int sigpipe_count(void)
{
	return nr_sigpipes;
}
