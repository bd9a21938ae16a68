// SPDX-License-Identifier: GPL-2.0-only
/* Helpers of the splice selftests; splice_util.h has their contracts. */

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
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

#ifndef O_NOTIFICATION_PIPE
#define O_NOTIFICATION_PIPE O_EXCL
#endif

#define CHUNK (64 * KIB)
#define NOBODY 65534

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

int memfd_filled(size_t len, uint64_t seed)
{
	return backing_file_filled(BACKING_MEMFD, len, seed);
}

int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

off_t position(int fd)
{
	return lseek(fd, 0, SEEK_CUR);
}

off_t file_size(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_size;
}

int set_nonblock(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
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

/* One read(), or pread() unless @off is negative.  At the end -1, errno 0. */
static ssize_t read_some(int fd, void *buf, size_t len, off_t off)
{
	ssize_t n;

	do {
		n = off < 0 ? read(fd, buf, len) : pread(fd, buf, len, off);
	} while (n < 0 && errno == EINTR);
	if (n)
		return n;
	errno = 0;
	return -1;
}

int read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read_some(fd, p, len, -1);

		if (n < 0)
			return -1;
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

/* @off as in read_some(); @seed NULL stands for zeroes. */
static int check_bytes(int fd, off_t off, size_t len, uint64_t pos,
		       const uint64_t *seed)
{
	char buf[CHUNK];
	ssize_t got, bad;

	for (; len; pos += got, len -= got) {
		got = read_some(fd, buf, len < sizeof(buf) ? len : sizeof(buf),
				off);
		if (got < 0)
			return -1;
		bad = seed ? pattern_check(buf, got, pos, *seed) :
			     zero_check(buf, got);
		if (bad >= 0)
			return 1;
		if (off >= 0)
			off += got;
	}
	return 0;
}

int read_pattern(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	return check_bytes(fd, -1, len, pos, &seed);
}

int read_zeroes(int fd, size_t len)
{
	return check_bytes(fd, -1, len, 0, NULL);
}

int pread_pattern(int fd, off_t off, size_t len, uint64_t pos, uint64_t seed)
{
	return check_bytes(fd, off, len, pos, &seed);
}

int pread_zeroes(int fd, off_t off, size_t len)
{
	return check_bytes(fd, off, len, 0, NULL);
}

ssize_t splice_all(int in, off_t *off_in, int out, off_t *off_out, size_t len)
{
	size_t sum = 0;

	while (sum < len) {
		ssize_t n = splice(in, off_in, out, off_out, len - sum, 0);

		if (n < 0)
			return -1;
		if (!n)
			break;
		sum += n;
	}
	return sum;
}

/* A parent that has gone already sends no signal. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(255);
}

pid_t fork_child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid)
		die_with(parent);
	return pid;
}

pid_t fork_nobody(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		_exit(255);
	/* Only now: a change of credentials forgets the signal, and hides /proc. */
	die_with(parent);
	prctl(PR_SET_DUMPABLE, 1);
	return 0;
}

pid_t spawn_writer(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	pid_t pid = fork_child();

	if (pid)
		return pid;
	_exit(write_pattern(fd, len, pos, seed) ? 2 : 0);
}

pid_t spawn_reader(int fd, size_t len, uint64_t pos, uint64_t seed)
{
	pid_t pid = fork_child();
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

/* The beginning of /proc/@pid/@name. */
static bool proc_line(pid_t pid, const char *name, char line[256])
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY);
	n = read(fd, line, 255);
	close(fd);
	line[n < 0 ? 0 : n] = '\0';
	return n > 0;
}

/*
 * A task that is being woken still shows its system call, but not the state S.
 * Who may not see the call takes any sleep for it.
 */
bool await_asleep(pid_t pid, long nr)
{
	const char *state;
	char line[256];

	for (;; usleep(1000)) {
		if (!proc_line(pid, "stat", line))
			return false;
		state = strrchr(line, ')');
		if (!state || state[2] == 'Z' || state[2] == 'X')
			return false;
		if (state[2] != 'S')
			continue;
		if (!proc_line(pid, "syscall", line) ||
		    (line[0] != 'r' && strtol(line, NULL, 10) == nr))
			return true;
	}
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

	if (set_nonblock(wfd))
		return -1;
	while ((n = write(wfd, page, sizeof(page))) > 0)
		sum += n;
	if (errno != EAGAIN)
		sum = -1;
	if (fcntl(wfd, F_SETFL, flags))
		return -1;
	return sum;
}

int pipe_use_slots(int fds[2])
{
	ssize_t len = pipe_fill_up(fds[1]);

	return len < 0 ? -1 : read_zeroes(fds[0], len);
}

int fifo_in(const char *dir)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/splice_fifo.%d", dir, getpid());
	if (mkfifo(path, 0600))
		return -1;
	fd = open(path, O_RDWR);
	unlink(path);
	return fd;
}

int notification_pipe(int fds[2])
{
	return pipe2(fds, O_NOTIFICATION_PIPE);
}

int read_pagemap(const void *mem, size_t nr, uint64_t *entries)
{
	off_t off = (uintptr_t)mem / sysconf(_SC_PAGESIZE) * sizeof(*entries);
	ssize_t len = nr * sizeof(*entries), got;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0)
		return -1;
	got = pread(fd, entries, len, off);
	close(fd);
	return got == len ? 0 : -1;
}

int read_frames(const void *mem, size_t nr, uint64_t *frames)
{
	const uint64_t present = UINT64_C(1) << 63;
	const uint64_t mask = (UINT64_C(1) << 55) - 1;
	size_t i;

	if (read_pagemap(mem, nr, frames))
		return -1;
	for (i = 0; i < nr; i++)
		frames[i] = frames[i] & present ? frames[i] & mask : 0;
	return 0;
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

int pty_pair(int fds[2])
{
	struct termios raw;

	fds[0] = posix_openpt(O_RDWR | O_NOCTTY);
	if (fds[0] < 0 || unlockpt(fds[0]))
		return -1;
	fds[1] = ioctl(fds[0], TIOCGPTPEER, O_RDWR | O_NOCTTY);
	if (fds[1] < 0 || tcgetattr(fds[1], &raw))
		return -1;
	cfmakeraw(&raw);
	return tcsetattr(fds[1], TCSANOW, &raw);
}

int private_mount(const char *type, const char *const options[][2])
{
	int fs = syscall(SYS_fsopen, type, 0), dir = -1;

	if (fs < 0)
		return -1;
	for (; (*options)[0]; options++)
		if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING,
			    (*options)[0], (*options)[1], 0))
			goto out;
	if (!syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		dir = syscall(SYS_fsmount, fs, 0, 0);
out:
	close(fs);
	return dir;
}

int small_tmpfs(const char *size)
{
	const char *const options[][2] = { { "size", size }, { NULL } };

	return private_mount("tmpfs", options);
}

int small_tmpfs_file(const char *size)
{
	int dir = small_tmpfs(size), fd;

	if (dir < 0)
		return -1;
	fd = openat(dir, ".", O_RDWR | O_TMPFILE, 0600);
	close(dir);
	return fd;
}

int watch(int fd)
{
	int ifd = inotify_init1(IN_NONBLOCK);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (inotify_add_watch(ifd, path, IN_ACCESS | IN_MODIFY) < 0) {
		close(ifd);
		return -1;
	}
	return ifd;
}

int next_event(int ifd)
{
	struct inotify_event ev;

	return read(ifd, &ev, sizeof(ev)) == sizeof(ev) ? (int)ev.mask : 0;
}

static atomic_int signals[NSIG];

static void count_signal(int sig)
{
	signals[sig]++;
}

static int count_from_0(int sig, int sa_flags)
{
	struct sigaction sa = { .sa_handler = count_signal,
				.sa_flags = sa_flags };

	signals[sig] = 0;
	return sigaction(sig, &sa, NULL);
}

int alarm_start(unsigned int ms, int sa_flags)
{
	struct itimerval it;

	it.it_value.tv_sec = ms / 1000;
	it.it_value.tv_usec = ms % 1000 * 1000;
	it.it_interval = it.it_value;
	if (count_from_0(SIGALRM, sa_flags))
		return -1;
	return setitimer(ITIMER_REAL, &it, NULL);
}

void alarm_stop(void)
{
	struct itimerval it = { 0 };

	setitimer(ITIMER_REAL, &it, NULL);
}

int signal_count_start(int sig)
{
	return count_from_0(sig, 0);
}

int signal_count(int sig)
{
	return signals[sig];
}

/* The processes that undo, and the pipes whose ends they wait for. */
static struct {
	pid_t pid;
	int pipe;
} undoers[8];
static size_t nr_undoers;

int undo_at_end(int (*undo)(void *arg), void *arg)
{
	pid_t pid;
	int p[2];
	char c;

	if (nr_undoers == sizeof(undoers) / sizeof(*undoers) ||
	    pipe2(p, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid < 0) {
		close(p[0]);
		close(p[1]);
		return -1;
	}
	if (pid) {
		undoers[nr_undoers].pid = pid;
		undoers[nr_undoers++].pipe = p[1];
		close(p[0]);
		return setpgid(pid, pid);
	}
	close(p[1]);
	while (nr_undoers)
		close(undoers[--nr_undoers].pipe);
	while (read(p[0], &c, 1) < 0 && errno == EINTR)
		;
	_exit(undo(arg) ? 1 : 0);
}

/* A byte, because children may hold the pipe open. */
static int undo_last(void)
{
	const int end = undoers[--nr_undoers].pipe;
	ssize_t n = write(end, "", 1);

	close(end);
	return n == 1 ? reap(undoers[nr_undoers].pid) : -1;
}

int undo_now(void)
{
	int err = 0;

	while (nr_undoers)
		err |= undo_last();
	return err;
}

int setting_get(const char *path, char *value, size_t size)
{
	int fd = open(path, O_RDONLY);
	char buf[256] = "", *from, *end;
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	from = strchr(buf, '[');
	from = from ? from + 1 : buf;
	end = strpbrk(from, "]\n");
	if (end)
		*end = '\0';
	snprintf(value, size, "%s", from);
	return 0;
}

static struct kept {
	int fd;
	char value[32];
} kept[SYSCTLS_MAX];

/* @arg: the number of sysctls.  The locks go when this process ends. */
static int sysctl_put_back(void *arg)
{
	size_t i, nr = *(size_t *)arg;
	int err = 0;

	for (i = 0; i < nr; i++) {
		const ssize_t len = strlen(kept[i].value);

		err |= pwrite(kept[i].fd, kept[i].value, len, 0) != len;
	}
	return err;
}

int sysctl_keep(const char *const *paths, size_t nr)
{
	size_t i;
	int err;

	for (i = 0; i < nr; i++) {
		struct kept *k = &kept[i];

		k->fd = open(paths[i], O_RDWR | O_CLOEXEC);
		if (k->fd < 0 || flock(k->fd, LOCK_EX))
			return -1;
		if (setting_get(paths[i], k->value, sizeof(k->value)))
			return -1;
	}
	err = undo_at_end(sysctl_put_back, &nr);
	for (i = 0; i < nr; i++)
		close(kept[i].fd);
	return err;
}

long sysctl_get(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n < 0 ? -1 : atol(text);
}

int sysctl_set(const char *path, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	return sysctl_write(path, text);
}

int sysctl_write(const char *path, const char *text)
{
	ssize_t n = strlen(text), done;
	int fd = open(path, O_WRONLY), err;

	if (fd < 0)
		return -1;
	done = write(fd, text, n);
	err = errno;
	close(fd);
	errno = err;
	return done == n ? 0 : -1;
}

bool swap_available(enum backing b)
{
	return !geteuid() && !access("/proc/swaps", F_OK) && backing_dir(b);
}

/* Version, last page and, at the end of the first page, a signature. */
int swap_header(int fd, size_t pages)
{
	const uint32_t info[] = { 1, pages - 1, 0 };
	const long page = sysconf(_SC_PAGESIZE);

	if (pwrite(fd, info, sizeof(info), 1024) != sizeof(info) ||
	    pwrite(fd, "SWAPSPACE2", 10, page - 10) != 10)
		return -1;
	return fsync(fd);
}

static int swap_end(void *path)
{
	int err = swapoff(path);

	return unlink(path) || err;
}

static int swap_file_of(enum backing b, size_t pages, uint64_t seed)
{
	const size_t len = pages * sysconf(_SC_PAGESIZE);
	char path[256];
	int fd, err;

	snprintf(path, sizeof(path), "%s/splice_swap.XXXXXX", backing_dir(b));
	fd = mkstemp(path);
	if (fd < 0 || undo_at_end(swap_end, path))
		return -1;
	if (!write_pattern(fd, len, 0, seed) && !swap_header(fd, pages) &&
	    !swapon(path, 0))
		return fd;
	err = errno;
	undo_last();
	close(fd);
	errno = err;
	return -1;
}

int swap_file(enum backing b, uint64_t seed)
{
	return swap_file_of(b, SWAP_PAGES, seed);
}

int swap_space(enum backing b, size_t len)
{
	size_t pages = len / sysconf(_SC_PAGESIZE);
	int fd = swap_file_of(b, pages + 1, 0);

	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

#ifdef __x86_64__
#define I386_GETPID 20

long int80(long nr, long a, long b, long c, long d)
{
	long ret;

	asm volatile("int $0x80"
		     : "=a"(ret)
		     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

bool has_int80(void)
{
	pid_t pid = fork_child();

	if (!pid)
		_exit(int80(I386_GETPID, 0, 0, 0, 0) != getpid());
	return !reap(pid);
}
#endif
