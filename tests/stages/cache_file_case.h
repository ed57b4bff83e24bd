/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the suite of cache files have in common. */
#ifndef QKV_TEST_CACHE_FILE_CASE_H
#define QKV_TEST_CACHE_FILE_CASE_H

#include <check.h>

#include "support/cache_case.h"

enum {
    MOST = 112,
    SEQUENCES = 2,
    PAIRS = CACHE_TYPES * CACHE_TYPES,
    PAGINGS = 4, /* the last: one page a sequence, and no table */
    HEADER = 64
};

/* What a sequence of every test begins with; odd numbers from `odd` on. */
extern token tokens[MOST];
void make_tokens(int odd);

/* An empty cache of a pair of types. */
struct cache_case make_cache(int pair, int paging);

void require(struct verdict verdict);
void require_ok(qkv_status status);

/* The first `count` tokens go to sequence 0. */
void fill(const struct cache_case *c, const qkv_context *context, int64_t count);

/* A file of sequence 0 between guard pages, at any alignment. */
struct guard save(const struct cache_case *c, size_t offset);

/* A cache of `count` tokens and its file. */
struct saved {
    struct cache_case c;
    struct guard file;
};

struct saved save_new(const qkv_context *context, int pair, int paging, int64_t count,
                      size_t offset);
void saved_free(struct saved *s);

/* A word of a file, and the checksums of what is there. */
void put_word(unsigned char *p, uint64_t word);
void sign(struct guard *file);

/* The tests of cache_file_refused.c. */
void cache_file_add_refused_tests(TCase *tcase);

#endif
