/*
 * What libpmem.so.1 does, as text: run beside two libraries, the outputs are compared.
 *
 *     differential DIRECTORY [DEVICE]
 *
 * Each case runs in a process of its own, in an empty folder in DIRECTORY, and prints what it saw:
 * results, errno, what out-parameters hold, alignment, sizes of files. No addresses and no texts of
 * messages: those may differ. DEVICE is a device-DAX node. With BRIEF in the environment, what takes
 * long on an emulated processor is left out: every copy that is not made in a mapping.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define C PMEM_FILE_CREATE
#define X PMEM_FILE_EXCL
#define S PMEM_FILE_SPARSE
#define T PMEM_FILE_TMPFILE
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static const char *device;
static size_t got_len;
static int got_pmem;

static const char *said(void)
{
	const char *text = pmem_errormsg();
	return !text ? "NULL" : *text ? "text" : "empty";
}

static const char *name(int number)
{
	return number ? strerrorname_np(number) : "0";
}

/* Maps, and prints everything that can be seen of it. */
static char *map(const char *path, size_t len, int flags, mode_t mode)
{
	struct stat st;

	got_len = 12345;
	got_pmem = -7;
	errno = 0;
	char *base = pmem_map_file(path, len, flags, mode, &got_len, &got_pmem);
	int after = errno;
	printf(" %s errno %s len %zu pmem %d message %s", base ? "mapped" : "NULL", name(after),
		got_len, got_pmem, said());
	if (base)
		printf(" in 2M %d in 1G %d", (int)((uintptr_t)base % (2 * MIB) == 0),
			(int)((uintptr_t)base % GIB == 0 || got_len < 2 * GIB));
	if (path && lstat(path, &st) == 0)
		printf(" file %o size %lld allocated %d", st.st_mode,
			S_ISDIR(st.st_mode) ? 0LL : (long long)st.st_size,
			S_ISDIR(st.st_mode) || st.st_blocks > 0);
	return base;
}

static void map_and_unmap(const char *path, size_t len, int flags, mode_t mode)
{
	char *base = map(path, len, flags, mode);
	if (base) {
		memset(base, 1, got_len < MIB ? got_len : MIB);
		errno = 0;
		int result = pmem_unmap(base, got_len);
		printf(" unmap %d %s", result, name(errno));
	}
}

static void file(const char *path, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || ftruncate(fd, (off_t)len) || posix_fallocate(fd, 0, len ? (off_t)len : 1) ||
		ftruncate(fd, (off_t)len))
		_exit(99);
	close(fd);
}

static char *mapped(size_t len)
{
	char *base = pmem_map_file("mapped", len, C, 0600, &got_len, &got_pmem);
	if (!base)
		_exit(98);
	return base;
}

static void pmem(const char *what, const void *addr, size_t len)
{
	errno = 0;
	int result = pmem_is_pmem(addr, len);
	printf(" %s %d", what, result);
	if (errno)
		printf(" %s", name(errno));
}

#define RESULT(what, call) do { \
	errno = 0; \
	int result = (call); \
	printf(" " what " %d %s", result, name(errno)); \
} while (0)

/* Paths and kinds of files. */
static void null_path(void) { map(NULL, 0, 0, 0); }
static void null_path_create(void) { map(NULL, 4096, C, 0600); }
static void empty_path(void) { map("", 0, 0, 0); }
static void empty_path_create(void) { map("", 4096, C, 0600); }
static void missing(void) { map("missing", 0, 0, 0); }
static void missing_directory(void) { map("no/where", 4096, C, 0600); }
static void file_as_directory(void) { file("f", 4096); map("f/x", 4096, C, 0600); }
static void too_long(void)
{
	static char path[5000];
	memset(path, 'x', sizeof path - 1);
	map(path, 4096, C, 0600);
	path[300] = 0;
	map(path, 4096, C, 0600);
}
static void link_loop(void) { (void)!symlink("loop", "loop"); map("loop", 4096, C, 0600); }
static void directory(void) { mkdir("d", 0755); map("d", 0, 0, 0); }
static void directory_create(void) { mkdir("d", 0755); map("d", 4096, C, 0600); }
static void fifo(void) { mkfifo("p", 0600); map("p", 0, 0, 0); map("p", 4096, C, 0600); }
static void socket_file(void)
{
	struct sockaddr_un at = { AF_UNIX, "s" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(fd, (void *)&at, sizeof at))
		_exit(97);
	map("s", 0, 0, 0);
}
static void null_device(void) { map("/dev/null", 0, 0, 0); map("/dev/null", 4096, C, 0); }
static void zero_device(void) { map("/dev/zero", 4096, C, 0600); }
static void full_proc(void) { map("/proc/self/maps", 0, 0, 0); }
static void sysfs_file(void) { map("/sys/kernel/mm/transparent_hugepage/enabled", 0, 0, 0); }
static void dangling_create(void) { (void)!symlink("to", "l"); map_and_unmap("l", 4096, C, 0600); }
static void dangling_excl(void) { (void)!symlink("to", "l"); map_and_unmap("l", 4096, C | X, 0600); }
static void dangling_open(void) { (void)!symlink("to", "l"); map("l", 0, 0, 0); }
static void link_to_file(void)
{
	file("to", 8192);
	(void)!symlink("to", "l");
	map_and_unmap("l", 0, 0, 0);
}

/* Flags and lengths. */
static void unknown_flag(void) { file("f", 4096); map("f", 0, 16, 0); }
static void unknown_flag_missing(void) { map("missing", 4096, C | 32, 0600); }
static void unknown_high_flag(void) { map("missing", 4096, (int)0x80000001, 0600); }
static void unknown_flag_on_fifo(void) { mkfifo("p", 0600); map("p", 0, 16, 0); }
static void len_without_create(void) { file("f", 4096); map("f", 4096, 0, 0); }
static void len_without_create_missing(void) { map("missing", 4096, 0, 0); }
static void zero_with_create(void) { map("f", 0, C, 0600); }
static void zero_with_create_there(void) { file("f", 4096); map("f", 0, C, 0600); }
static void negative(void) { map("f", (size_t)-1, C, 0600); map("f", (size_t)1 << 63, C, 0600); }
static void negative_without_create(void) { file("f", 1); map("f", (size_t)-1, 0, 0); }
static void largest(void) { map("f", ((size_t)1 << 63) - 1, C, 0600); }
static void largest_sparse(void) { map("f", ((size_t)1 << 63) - 1, C | S, 0600); }
static void largest_excl(void) { map("f", ((size_t)1 << 63) - 1, C | X, 0600); }
static void full_disk(void) { map("f", (size_t)1 << 43, C, 0600); }
static void full_disk_excl(void) { map("f", (size_t)1 << 43, C | X, 0600); }
static void full_disk_there(void) { file("f", 4096); map("f", (size_t)1 << 43, C, 0600); }
static void new_page(void) { map_and_unmap("f", 4096, C, 0640); }
static void new_byte(void) { map_and_unmap("f", 1, C, 0600); }
static void new_ragged(void) { map_and_unmap("f", 4097, C, 0600); }
static void new_2m(void) { map_and_unmap("f", 2 * MIB, C, 0600); }
static void new_5m(void) { map_and_unmap("f", 5 * MIB + 5, C, 0600); }
static void new_1g_sparse(void) { map_and_unmap("f", GIB, C | S, 0600); }
static void new_2g_sparse(void) { map_and_unmap("f", 2 * GIB, C | S, 0600); }
static void new_3g_sparse(void) { map_and_unmap("f", 3 * GIB + 1, C | S, 0600); }
static void mode_and_umask(void) { umask(027); map_and_unmap("f", 4096, C, 0777); }
static void mode_zero(void) { map_and_unmap("f", 4096, C, 0); }
static void shorter(void) { file("f", 65536); map_and_unmap("f", 4096, C, 0600); }
static void longer(void) { file("f", 4096); map_and_unmap("f", 65536, C, 0600); }
static void longer_sparse(void) { file("f", 4096); map_and_unmap("f", 65536, C | S, 0600); }
static void same(void) { file("f", 65536); map_and_unmap("f", 65536, C, 0600); }
static void open_there(void) { file("f", 65536); map_and_unmap("f", 0, 0, 0); }
static void open_ragged(void) { file("f", 65537); map_and_unmap("f", 0, 0, 0); }
static void open_empty(void) { file("f", 0); map("f", 0, 0, 0); }
static void open_sparse_flag(void) { file("f", 65536); map_and_unmap("f", 0, S, 0); }
static void open_excl_flag(void) { file("f", 65536); map_and_unmap("f", 0, X, 0); }
static void open_excl_missing(void) { map("f", 0, X, 0); }
static void excl_new(void) { map_and_unmap("f", 65536, C | X, 0600); }
static void excl_there(void) { file("f", 65536); map("f", 65536, C | X, 0600); }
static void excl_sparse(void) { map_and_unmap("f", 65536, C | X | S, 0600); }
static void sparse_new(void) { map_and_unmap("f", 65536, C | S, 0600); }
static void tmpfile_alone(void) { map(".", 0, T, 0); }
static void tmpfile_alone_len(void) { map(".", 4096, T, 0); }
static void tmpfile_new(void) { map_and_unmap(".", 65536, C | T, 0777); }
static void tmpfile_excl(void) { map_and_unmap(".", 65536, C | T | X, 0); }
static void tmpfile_sparse(void) { map_and_unmap(".", 65536, C | T | S, 0); }
static void tmpfile_zero(void) { map(".", 0, C | T, 0); }
static void tmpfile_on_file(void) { file("f", 4096); map("f", 4096, C | T, 0); }
static void tmpfile_missing(void) { map("no", 4096, C | T, 0); }
static void tmpfile_full(void) { map(".", (size_t)1 << 43, C | T, 0); }
static void tmpfile_proc(void) { map("/proc", 4096, C | T, 0); }
static void null_results(void)
{
	file("f", 4096);
	errno = 0;
	char *a = pmem_map_file("f", 0, 0, 0, NULL, NULL);
	printf(" %d %s", a != NULL, name(errno));
	got_len = 7;
	errno = 0;
	char *b = pmem_map_file("f", 0, 0, 0, &got_len, NULL);
	printf(" %d %s %zu", b != NULL, name(errno), got_len);
	errno = 0;
	char *c = pmem_map_file("f", 0, 0, 0, NULL, &got_pmem);
	printf(" %d %s %d", c != NULL, name(errno), got_pmem);
}
static void errno_is_kept_or_set(void)
{
	file("f", 4096);
	errno = 77;
	char *a = pmem_map_file("f", 0, 0, 0, NULL, NULL);
	printf(" open %d %s", a != NULL, name(errno));
	errno = 77;
	char *b = pmem_map_file("g", 4096, C, 0600, NULL, NULL);
	printf(" create %d %s", b != NULL, name(errno));
	errno = 77;
	char *c = pmem_map_file("h", 4096, C | S, 0600, NULL, NULL);
	printf(" sparse %d %s", c != NULL, name(errno));
	errno = 77;
	char *d = pmem_map_file(".", 4096, C | T, 0600, NULL, NULL);
	printf(" tmpfile %d %s", d != NULL, name(errno));
}
static void twice(void)
{
	char *a = map("f", 65536, C, 0600), *b = map("f", 65536, C, 0600);
	a[5] = 'x';
	printf(" shared %d apart %d", b[5] == 'x', a != b);
}

/* Limits and rights. */
static void unprivileged(void) { if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(96); }
static void read_only_file(void) { file("f", 4096); chmod("f", 0444); unprivileged(); map("f", 0, 0, 0); }
static void unreadable_file(void) { file("f", 4096); chmod("f", 0); unprivileged(); map("f", 0, 0, 0); }
static void unsearchable(void)
{
	mkdir("d", 0700);
	file("d/f", 4096);
	unprivileged();
	map("d/f", 0, 0, 0);
}
static void unwritable_directory(void) { unprivileged(); map("f", 4096, C, 0600); }
static void unwritable_tmpfile(void) { unprivileged(); map(".", 4096, C | T, 0600); }
static void limit(int what, rlim_t to)
{
	struct rlimit l = { to, to };
	setrlimit(what, &l);
}
static void file_limit(void)
{
	signal(SIGXFSZ, SIG_IGN);
	limit(RLIMIT_FSIZE, 4096);
	map("f", 8192, C, 0600);
	map("g", 8192, C | S, 0600);
	map("h", 8192, C | X, 0600);
	map("h", 4096, C, 0600);
}
static void memory_limit(void) { file("f", 64 * MIB); limit(RLIMIT_AS, 48 * MIB); map("f", 0, 0, 0); }
static void descriptor_limit(void) { file("f", 4096); limit(RLIMIT_NOFILE, 3); map("f", 0, 0, 0); }
static void running_program(void)
{
	char from[4096], command[5000];
	ssize_t length = readlink("/proc/self/exe", from, sizeof from - 1);
	from[length > 0 ? length : 0] = 0;
	snprintf(command, sizeof command, "cp '%s' program", from);
	if (system(command))
		_exit(94);
	pid_t pid = fork();
	if (pid == 0) {
		execl("./program", "program", "wait", (char *)NULL);
		_exit(1);
	}
	usleep(300000);
	map("program", 4096, C, 0600);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
static void sealed_memfd(void)
{
	char path[64];
	int fd = memfd_create("m", MFD_ALLOW_SEALING);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	(void)!ftruncate(fd, 8192);
	map_and_unmap(path, 0, 0, 0);
	fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE);
	map(path, 0, 0, 0);
	fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK);
	map(path, 4096, C, 0600);
}
static void descriptors_are_closed(void)
{
	int before = dup(0);
	close(before);
	for (int i = 0; i < 5; i++) {
		pmem_map_file("f", 65536, C, 0600, NULL, NULL);
		pmem_map_file("f", 65536, C | X, 0600, NULL, NULL);
		pmem_map_file("g", (size_t)1 << 43, C, 0600, NULL, NULL);
	}
	printf(" same %d", dup(0) == before);
}
static void survives_unlink(void)
{
	char *base = mapped(65536);
	unlink("mapped");
	base[65535] = 1;
	RESULT("msync", pmem_msync(base, 65536));
	pmem("is", base, 65536);
}

/* Which ranges are persistent memory. */
static void ranges(void)
{
	char *a = mapped(16 * 4096);
	pmem("whole", a, 16 * 4096);
	pmem("none", a, 0);
	pmem("byte", a + 5, 1);
	pmem("last", a + 16 * 4096 - 1, 1);
	pmem("past", a + 16 * 4096 - 1, 2);
	pmem("after", a + 16 * 4096, 1);
	pmem("before", a - 1, 2);
	pmem("huge", a, (size_t)-1);
	pmem("null", NULL, 1);
	pmem("null none", NULL, 0);
	pmem("heap", malloc(10), 10);
	pmem("stack", &a, sizeof a);
}
static void ragged_range(void)
{
	char *a = mapped(4097);
	pmem("whole", a, 4097);
	pmem("past the file", a, 4098);
	pmem("page", a, 8192);
}
static void foreign(void)
{
	file("f", 65536);
	int fd = open("f", O_RDWR);
	char *a = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *b = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
	pmem("foreign", a, 65536);
	if (b != MAP_FAILED)
		pmem("foreign sync", b, 65536);
}
static void partial(void)
{
	char *a = mapped(16 * 4096);
	RESULT("front", pmem_unmap(a, 4096));
	RESULT("middle", pmem_unmap(a + 5 * 4096, 2 * 4096));
	RESULT("back", pmem_unmap(a + 15 * 4096, 4096));
	for (int page = 0; page < 16; page++)
		pmem("", a + page * 4096, 4096);
	pmem("first part", a + 4096, 4 * 4096);
	pmem("across", a + 4096, 8 * 4096);
	pmem("second part", a + 7 * 4096, 8 * 4096);
	RESULT("rest", pmem_unmap(a, 16 * 4096));
	pmem("rest", a + 4096, 4096);
}
static void unmaps(void)
{
	char *a = mapped(16 * 4096);
	RESULT("unaligned", pmem_unmap(a + 1, 4096));
	pmem("", a, 4096);
	RESULT("empty", pmem_unmap(a, 0));
	pmem("", a, 4096);
	RESULT("null", pmem_unmap(NULL, 0));
	/* Not a length that wraps around: Debian's library never returns from it. */
	RESULT("ragged", pmem_unmap(a, 4097));
	pmem("", a, 4096);
	pmem("", a + 4096, 4096);
	pmem("", a + 8192, 4096);
	RESULT("all", pmem_unmap(a, 16 * 4096));
	RESULT("again", pmem_unmap(a, 16 * 4096));
	pmem("", a + 8192, 4096);
}
static void mapped_again(void)
{
	char *a = mapped(65536);
	RESULT("unmap", pmem_unmap(a, 65536));
	for (int i = 0; i < 3; i++) {
		char *b = map("mapped", 0, 0, 0);
		RESULT("unmap", pmem_unmap(b, got_len));
	}
}
static void two_neighbours(void)
{
	/* Where the kernel puts them side by side, the range is of both. */
	char *a = mapped(2 * MIB);
	char *b = pmem_map_file("other", 2 * MIB, C, 0600, NULL, NULL);
	pmem("first", a, 2 * MIB);
	pmem("second", b, 2 * MIB);
	pmem("more", a, 4 * MIB + (b + 2 * MIB == a || a + 2 * MIB == b ? 4096 : 0));
}
static void in_a_child(void)
{
	char *a = mapped(65536);
	fflush(stdout);
	if (fork() == 0) {
		pmem("child", a, 65536);
		RESULT("child unmaps", pmem_unmap(a, 65536));
		pmem("child", a, 65536);
		fflush(stdout);
		_exit(0);
	}
	wait(NULL);
	pmem("parent", a, 65536);
}

/* msync and deep drains. */
static void msyncs(void)
{
	char *a = mapped(16 * 4096);
	memset(a, 3, 65536);
	RESULT("whole", pmem_msync(a, 65536));
	RESULT("none", pmem_msync(a, 0));
	RESULT("none unaligned", pmem_msync(a + 5, 0));
	RESULT("byte", pmem_msync(a + 5000, 1));
	RESULT("over a boundary", pmem_msync(a + 4095, 2));
	RESULT("past", pmem_msync(a, 65537));
	RESULT("huge", pmem_msync(a, (size_t)-1));
	RESULT("wrapping", pmem_msync(a + 4095, (size_t)-100));
	RESULT("null", pmem_msync(NULL, 1));
	RESULT("null none", pmem_msync(NULL, 0));
	RESULT("null none unaligned", pmem_msync((char *)NULL + 3, 0));
	RESULT("top", pmem_msync((void *)-4096, 4096));
	RESULT("heap", pmem_msync(malloc(100), 100));
	printf(" message %s", said());
	pmem_unmap(a + 4 * 4096, 4096);
	RESULT("hole", pmem_msync(a, 65536));
	RESULT("in the hole", pmem_msync(a + 4 * 4096, 0));
	RESULT("in the hole", pmem_msync(a + 4 * 4096 + 1, 0));
	RESULT("before", pmem_msync(a, 4 * 4096));
	pmem_unmap(a, 65536);
	RESULT("unmapped", pmem_msync(a, 65536));
	RESULT("unmapped none", pmem_msync(a, 0));
}
static void deep(void)
{
	char *a = mapped(16 * 4096);
	memset(a, 3, 65536);
	RESULT("persist", pmem_deep_persist(a, 65536));
	RESULT("persist none", pmem_deep_persist(a, 0));
	RESULT("persist byte", pmem_deep_persist(a + 4095, 2));
	pmem_deep_flush(a + 1, 100);
	pmem_deep_flush(a, 0);
	RESULT("drain", pmem_deep_drain(a + 1, 100));
	RESULT("drain none", pmem_deep_drain(a, 0));
	RESULT("drain null none", pmem_deep_drain(NULL, 0));
	RESULT("drain null", pmem_deep_drain(NULL, 1));
	RESULT("drain past", pmem_deep_drain(a, 65537));
	RESULT("drain after", pmem_deep_drain(a + 65536, 1));
	RESULT("drain before", pmem_deep_drain(a - 4096, 8192));
	pmem_unmap(a + 4 * 4096, 4096);
	RESULT("drain hole", pmem_deep_drain(a, 65536));
	RESULT("drain behind", pmem_deep_drain(a + 5 * 4096, 11 * 4096));
}
static void flushes(void)
{
	char *a = mapped(65536);
	memset(a, 4, 65536);
	errno = 77;
	pmem_flush(a, 0);
	pmem_flush(a + 3, 1);
	pmem_flush(a, 65536);
	pmem_drain();
	pmem_persist(a + 63, 2);
	pmem_persist(NULL, 0);
	pmem_deep_flush(a, 65536);
	printf(" errno %d", errno);
}

/* Copies. */
static uint64_t sum(const unsigned char *bytes, size_t len)
{
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < len; i++)
		h = (h ^ bytes[i]) * 1099511628211u;
	return h;
}
#define AREA ((size_t)3 << 20)
static unsigned char *area;
static void refill(void)
{
	for (size_t i = 0; i < AREA; i++)
		area[i] = (unsigned char)(i * 31 + (i >> 8) * 7);
}
static const size_t sizes[] = { 0, 1, 3, 7, 8, 9, 15, 16, 31, 32, 63, 64, 65, 100, 127, 128, 200, 255,
	256, 257, 511, 512, 777, 1024, 2047, 2048, 4095, 4096, 5000, 65536, 65601, 300000, 1048576 };
static uint64_t copied(void *(*copy)(void *, const void *, size_t, unsigned), unsigned flags,
	size_t most)
{
	static const int offsets[] = { 0, 1, 7, 8, 33, 63 };
	static const long apart[] = { 0, 1, -1, 8, -8, 64, -64, 100, -100, 2000000, -2000000 };
	uint64_t all = 0;

	refill();
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes && sizes[s] <= most; s++)
		for (size_t o = 0; o < 6; o++)
			for (size_t d = 0; d < 11; d++) {
				if (sizes[s] > 100000 && (o > 1 || d % 3))
					continue;
				unsigned char *from = area + (apart[d] < 0 ? 2000200 : 200) + offsets[o];
				unsigned char *to = from + apart[d];
				if (to < area || to + sizes[s] > area + AREA || from + sizes[s] > area + AREA)
					continue;
				errno = 77;
				if (copy(to, from, sizes[s], flags) != to || errno != 77)
					printf(" wrong result");
				all = all * 31 + sum(to > area + 64 ? to - 64 : to, sizes[s] / 8 + 64);
			}
	return all * 31 + sum(area, AREA);
}
static void *persist_move(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memmove_persist(d, s, n); }
static void *persist_copy(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memcpy_persist(d, s, n); }
static void *nodrain_move(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memmove_nodrain(d, s, n); }
static void *nodrain_copy(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memcpy_nodrain(d, s, n); }
static void *libc_move(void *d, const void *s, size_t n, unsigned f) { (void)f; return memmove(d, s, n); }
static void *any_set(void *d, const void *s, size_t n, unsigned f) { return pmem_memset(d, (int)(uintptr_t)s, n, f); }
static void *persist_set(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memset_persist(d, (int)(uintptr_t)s, n); }
static void *nodrain_set(void *d, const void *s, size_t n, unsigned f) { (void)f; return pmem_memset_nodrain(d, (int)(uintptr_t)s, n); }
static void *libc_set(void *d, const void *s, size_t n, unsigned f) { (void)f; return memset(d, (int)(uintptr_t)s, n); }
static void area_is(void *at) { area = at; }
static void in_memory(void)
{
	area_is(mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
static void copies(void)
{
	in_memory();
	printf(" libc %lx", copied(libc_move, 0, 1 << 20));
	printf(" move %lx %lx", copied(persist_move, 0, 1 << 20), copied(nodrain_move, 0, 1 << 20));
	printf(" copy %lx %lx", copied(persist_copy, 0, 1 << 20), copied(nodrain_copy, 0, 1 << 20));
	printf(" flags %lx %lx", copied(pmem_memmove, 0, 1 << 20), copied(pmem_memcpy, 0, 1 << 20));
}
static void sets(void)
{
	in_memory();
	printf(" libc %lx", copied(libc_set, 0, 1 << 20));
	printf(" set %lx %lx", copied(persist_set, 0, 1 << 20), copied(nodrain_set, 0, 1 << 20));
	printf(" flags %lx", copied(any_set, 0, 1 << 20));
}
static void every_flag(void)
{
	in_memory();
	for (unsigned flags = 0; flags < 64; flags++)
		printf(" %lx %lx", copied(pmem_memmove, flags, 777), copied(any_set, flags, 777));
	printf(" unknown %lx %lx", copied(pmem_memcpy, 0xffffff00, 777), copied(any_set, 1 << 20, 777));
}
static void long_flags(void)
{
	in_memory();
	for (unsigned flags = 1; flags < 64; flags <<= 1)
		printf(" %lx", copied(pmem_memmove, flags, 1 << 20));
}
static void copies_in_a_mapping(void)
{
	area_is(mapped(AREA));
	size_t most = getenv("BRIEF") ? 777 : 1 << 20;
	printf(" %lx %lx", copied(persist_move, 0, most), copied(persist_set, 0, most / 4));
	RESULT("msync", pmem_msync(area, AREA));
}

/* The platform, versions, messages. */
static void platform(void)
{
	errno = 0;
	printf(" auto flush %d", pmem_has_auto_flush());
	printf(" hw drain %d %s", pmem_has_hw_drain(), name(errno));
}
static void versions(void)
{
	printf(" first message %s", said());
	for (unsigned major = 0; major < 3; major++)
		for (unsigned minor = 0; minor < 3; minor++)
			printf(" %u.%u %s", major, minor, pmem_check_version(major, minor) ? "no" : "yes");
	printf(" then %s same %d", said(), pmem_check_version(9, 9) == pmem_errormsg());
}
static void messages_stay(void)
{
	map(NULL, 0, 0, 0);
	const char *before = pmem_errormsg();
	char *a = mapped(4096);
	pmem_msync(a, 4096);
	printf(" same %d %s", before == pmem_errormsg(), said());
}
static void force_is_read_once(void)
{
	char *a = pmem_map_file("f", 65536, C, 0600, NULL, NULL);
	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	pmem("first", a, 65536);
	setenv("PMEM_IS_PMEM_FORCE", "0", 1);
	pmem("then", a, 65536);
	pmem("none", a, 0);
}
static void force_values(void)
{
	static const char *values[] = { "2", "-1", "x", "", "1x", "01", " 1", "0x1" };
	char *a = mapped(4096);
	(void)a;
	for (size_t i = 0; i < 8; i++) {
		fflush(stdout);
		if (fork() == 0) {
			char *args[] = { "differential", "force", NULL };
			setenv("PMEM_IS_PMEM_FORCE", values[i], 1);
			execv("/proc/self/exe", args);
			_exit(1);
		}
		wait(NULL);
	}
}
static void map_hint(void)
{
	static const char *values[] = { "10000000000", "0x10000000001", "zzz", "" };
	for (size_t i = 0; i < 4; i++) {
		fflush(stdout);
		if (fork() == 0) {
			char *args[] = { "differential", "hint", NULL };
			setenv("PMEM_MMAP_HINT", values[i], 1);
			execv("/proc/self/exe", args);
			_exit(1);
		}
		wait(NULL);
	}
}
/* What the programs that these two run print. */
static void forced(void)
{
	char *a = pmem_map_file("f", 65536, C, 0600, NULL, NULL);
	pmem("forced", a, 65536);
	pmem("heap", malloc(10), 10);
}
static void hinted(void)
{
	char *a = pmem_map_file("f", 65536, C, 0600, NULL, NULL);
	char *b = pmem_map_file("f", 65536, C, 0600, NULL, NULL);
	if (getenv("PMEM_MMAP_HINT")[0] == '1' || getenv("PMEM_MMAP_HINT")[0] == '0')
		printf(" at %p %p", a, b);
	else
		printf(" mapped %d", a && b);
}

/* Device DAX. */
static void device_whole(void) { char *a = map(device, 0, 0, 0); pmem("is", a, got_len); pmem("past", a, got_len + 1); }
static void device_exact(void) { map(device, 0, 0, 0); map(device, got_len, 0, 0); map(device, got_len, C, 0); }
static void device_wrong(void) { map(device, 4096, 0, 0); map(device, 4096, C, 0600); map(device, (size_t)-1, C, 0); }
static void device_flags(void)
{
	for (int flags = 0; flags < 32; flags++)
		map(device, 0, flags, 0600);
}
static void device_syncs(void)
{
	char *a = map(device, 0, 0, 0);
	pmem_memset_persist(a, 7, 65536);
	RESULT("msync", pmem_msync(a, 4096));
	RESULT("deep persist", pmem_deep_persist(a, 65536));
	RESULT("deep drain", pmem_deep_drain(a + 5, 5));
	RESULT("before", pmem_deep_drain(a - 4096, 8192));
	RESULT("past", pmem_deep_drain(a + got_len - 4096, 8192));
	RESULT("unmap part", pmem_unmap(a, 4096));
	pmem("is", a + 2 * MIB, 2 * MIB);
	RESULT("unmap", pmem_unmap(a, got_len));
	pmem("is", a + 2 * MIB, 2 * MIB);
}
static void device_copies(void)
{
	char *a = map(device, 0, 0, 0);
	area_is(a);
	printf(" %lx", copied(persist_move, 0, 777));
}

#define CASE(name) { #name, name }
static const struct { const char *name; void (*run)(void); } cases[] = {
	CASE(null_path), CASE(null_path_create), CASE(empty_path), CASE(empty_path_create),
	CASE(missing), CASE(missing_directory), CASE(file_as_directory), CASE(too_long),
	CASE(link_loop), CASE(directory), CASE(directory_create), CASE(fifo), CASE(socket_file),
	CASE(null_device), CASE(zero_device), CASE(full_proc), CASE(sysfs_file),
	CASE(dangling_create), CASE(dangling_excl), CASE(dangling_open), CASE(link_to_file),
	CASE(unknown_flag), CASE(unknown_flag_missing), CASE(unknown_high_flag),
	CASE(unknown_flag_on_fifo), CASE(len_without_create), CASE(len_without_create_missing),
	CASE(zero_with_create), CASE(zero_with_create_there), CASE(negative),
	CASE(negative_without_create), CASE(largest), CASE(largest_sparse), CASE(largest_excl),
	CASE(full_disk), CASE(full_disk_excl), CASE(full_disk_there), CASE(new_page), CASE(new_byte),
	CASE(new_ragged), CASE(new_2m), CASE(new_5m), CASE(new_1g_sparse), CASE(new_2g_sparse),
	CASE(new_3g_sparse), CASE(mode_and_umask), CASE(mode_zero), CASE(shorter), CASE(longer),
	CASE(longer_sparse), CASE(same), CASE(open_there), CASE(open_ragged), CASE(open_empty),
	CASE(open_sparse_flag), CASE(open_excl_flag), CASE(open_excl_missing), CASE(excl_new),
	CASE(excl_there), CASE(excl_sparse), CASE(sparse_new), CASE(tmpfile_alone),
	CASE(tmpfile_alone_len), CASE(tmpfile_new), CASE(tmpfile_excl), CASE(tmpfile_sparse),
	CASE(tmpfile_zero), CASE(tmpfile_on_file), CASE(tmpfile_missing), CASE(tmpfile_full),
	CASE(tmpfile_proc), CASE(null_results), CASE(errno_is_kept_or_set), CASE(twice),
	CASE(read_only_file), CASE(unreadable_file), CASE(unsearchable), CASE(unwritable_directory),
	CASE(unwritable_tmpfile), CASE(file_limit), CASE(memory_limit), CASE(descriptor_limit),
	CASE(running_program), CASE(sealed_memfd), CASE(descriptors_are_closed),
	CASE(survives_unlink), CASE(ranges), CASE(ragged_range), CASE(foreign), CASE(partial),
	CASE(unmaps), CASE(mapped_again), CASE(two_neighbours), CASE(in_a_child), CASE(msyncs),
	CASE(deep), CASE(flushes), CASE(copies), CASE(sets), CASE(every_flag), CASE(long_flags),
	CASE(copies_in_a_mapping), CASE(platform), CASE(versions), CASE(messages_stay),
	CASE(force_is_read_once), CASE(force_values), CASE(map_hint),
};
static const typeof(cases[0]) device_cases[] = {
	CASE(device_whole), CASE(device_exact), CASE(device_wrong), CASE(device_flags),
	CASE(device_syncs), CASE(device_copies),
};

/* Removes what a case left. */
static void clear(const char *at)
{
	char command[4200];
	snprintf(command, sizeof command, "rm -rf '%s'", at);
	(void)!system(command);
}

static void run(const char *at, const char *name, void (*body)(void))
{
	char folder[4096];
	int status;

	snprintf(folder, sizeof folder, "%s/case", at);
	clear(folder);
	if (mkdir(folder, 0755)) {
		perror(folder);
		exit(1);
	}
	printf("%s:", name);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		if (chdir(folder))
			_exit(95);
		alarm(120);
		body();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (status)
		printf(" ended with status %x", status);
	printf("\n");
	fflush(stdout);
	clear(folder);
}

static int only_copies(void (*body)(void))
{
	return body == copies || body == sets || body == every_flag || body == long_flags;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "wait") == 0)
		return (int)sleep(60);
	if (argc == 2 && strcmp(argv[1], "force") == 0)
		return forced(), 0;
	if (argc == 2 && strcmp(argv[1], "hint") == 0)
		return hinted(), 0;
	if (argc < 2)
		return 2;
	umask(022);
	device = argc > 2 ? argv[2] : NULL;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!getenv("BRIEF") || !only_copies(cases[i].run))
			run(argv[1], cases[i].name, cases[i].run);
	for (size_t i = 0; device && i < sizeof device_cases / sizeof *device_cases; i++)
		run(argv[1], device_cases[i].name, device_cases[i].run);
	return 0;
}
