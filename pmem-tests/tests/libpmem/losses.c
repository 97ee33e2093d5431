/*
 * An msync that fails, asked again, and after the mapping is made anew.
 *
 *     losses FILE
 *
 * Stores into the file once its input has a line, so that a failure can be planned until then.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <libpmem.h>
#include <stdio.h>
#include <string.h>

static void sync_it(const char *what, char *base, size_t len)
{
	errno = 0;
	int result = pmem_msync(base, len);
	printf("%s %d %s\n", what, result, errno ? strerrorname_np(errno) : "0");
}

int main(int argc, char **argv)
{
	size_t len;

	if (argc != 2)
		return 2;
	char *base = pmem_map_file(argv[1], 0, 0, 0, &len, NULL);
	if (!base || len < 8192)
		return 3;
	puts("mapped");
	fflush(stdout);
	if (getchar() != '\n')
		return 4;
	memset(base, 2, 4096);
	sync_it("first", base, 4096);
	sync_it("again", base, 4096);
	sync_it("elsewhere", base + 4096, 1);
	errno = 0;
	int deep = pmem_deep_persist(base, 1);
	printf("deep %d %s\n", deep, errno ? strerrorname_np(errno) : "0");
	printf("unmap %d\n", pmem_unmap(base, len));
	base = pmem_map_file(argv[1], 0, 0, 0, &len, NULL);
	if (!base)
		return 5;
	memset(base, 3, 4096);
	sync_it("mapped again", base, 4096);
	return 0;
}
