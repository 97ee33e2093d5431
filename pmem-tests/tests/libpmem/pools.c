/*
 * PMDK's own libraries, on whatever libpmem.so.1 is loaded.
 *
 *     pools obj FILE COUNT   transactions that move a unit between two of 64 accounts, every
 *                            seventh aborted; creates the pool, or opens what is there, and prints
 *                            how many were committed
 *     pools log FILE         appends, rewinds, appends, and reads back
 *     pools blk FILE         writes every block, reads every block
 */
#include <libpmemblk.h>
#include <libpmemlog.h>
#include <libpmemobj.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCOUNTS 64
#define EACH 1000

struct root {
	uint64_t committed;
	int64_t accounts[ACCOUNTS];
};

static int sum_is_right(const struct root *root)
{
	int64_t sum = 0;
	for (int i = 0; i < ACCOUNTS; i++)
		sum += root->accounts[i];
	return sum == ACCOUNTS * EACH;
}

static int obj(const char *path, long count)
{
	PMEMobjpool *pool = pmemobj_create(path, "accounts", 64 << 20, 0600);
	int created = pool != NULL;

	if (!pool)
		pool = pmemobj_open(path, "accounts");
	if (!pool) {
		fprintf(stderr, "open: %s\n", pmemobj_errormsg());
		return 1;
	}
	struct root *root = pmemobj_direct(pmemobj_root(pool, sizeof *root));
	if (created || root->accounts[0] + root->accounts[1] == 0) {
		for (int i = 0; i < ACCOUNTS; i++)
			root->accounts[i] = EACH;
		pmemobj_persist(pool, root, sizeof *root);
	}
	if (!sum_is_right(root)) {
		fprintf(stderr, "units were lost\n");
		return 1;
	}
	printf("opened at %lu\n", (unsigned long)root->committed);
	fflush(stdout);
	srand((unsigned)root->committed);
	long aborted = 0;
	for (long i = 1; i <= count; i++) {
		int from = rand() % ACCOUNTS, to = rand() % ACCOUNTS;
		TX_BEGIN(pool) {
			pmemobj_tx_add_range_direct(root, sizeof *root);
			root->accounts[from]--;
			if (i % 7 == 0)
				pmemobj_tx_abort(0);
			root->accounts[to]++;
			root->committed++;
			PMEMoid note = pmemobj_tx_alloc(64, 1);
			pmemobj_tx_free(note);
		} TX_ONABORT {
			aborted++;
		} TX_END
	}
	printf("committed %lu aborted %ld right %d\n", (unsigned long)root->committed, aborted,
		sum_is_right(root));
	pmemobj_close(pool);
	return 0;
}

static int lines;
static int one_line(const void *bytes, size_t len, void *expected)
{
	lines += len == 100 && *(const unsigned char *)bytes == *(unsigned char *)expected + lines % 200;
	return 1;
}

static int log_pool(const char *path)
{
	unsigned char line[100], first = 7;
	PMEMlogpool *pool = pmemlog_create(path, 4 << 20, 0600);

	if (!pool)
		return 1;
	for (int round = 0; round < 2; round++) {
		pmemlog_rewind(pool);
		for (int i = 0; i < 5000; i++) {
			memset(line, first + i % 200, sizeof line);
			if (pmemlog_append(pool, line, sizeof line))
				return 1;
		}
	}
	pmemlog_close(pool);
	pool = pmemlog_open(path);
	if (!pool)
		return 1;
	pmemlog_walk(pool, 100, one_line, &first);
	pmemlog_close(pool);
	printf("lines %d\n", lines);
	return 0;
}

static int blk_pool(const char *path)
{
	unsigned char block[512], found[512];
	PMEMblkpool *pool = pmemblk_create(path, 512, 20 << 20, 0600);
	size_t count, good = 0;

	if (!pool)
		return 1;
	count = pmemblk_nblock(pool);
	if (count > 4000)
		count = 4000;
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < count; i++) {
			memset(block, (int)(i * 7 + 1 + (size_t)round), sizeof block);
			if (pmemblk_write(pool, block, (long long)i))
				return 1;
		}
	pmemblk_close(pool);
	pool = pmemblk_open(path, 512);
	if (!pool)
		return 1;
	for (size_t i = 0; i < count; i++) {
		memset(block, (int)(i * 7 + 2), sizeof block);
		good += pmemblk_read(pool, found, (long long)i) == 0 && !memcmp(block, found, 512);
	}
	pmemblk_close(pool);
	printf("blocks %zu good %zu\n", count, good);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "obj"))
		return obj(argv[2], atol(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "log"))
		return log_pool(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "blk"))
		return blk_pool(argv[2]);
	return 2;
}
