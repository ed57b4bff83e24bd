/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what a cache holds, number by number, from the description of the order in which it is
 * stored (kernels_cache.h): the tests' own way, which shares no arithmetic with the library. */
#ifndef QKV_TEST_CACHED_READER_H
#define QKV_TEST_CACHED_READER_H

#include <stdbool.h>

#include "cache.h"
#include "verdict.h"

struct cached_reader {
    struct qkv_cache_state state;
};

struct verdict cached_open(struct cached_reader *reader, const qkv_cache *cache);

/* A row of K, or of V: head_dim or v_dim numbers. */
void cached_read(const struct cached_reader *reader, bool values, int64_t sequence, int64_t head,
                 int64_t token, float *row);

#endif
