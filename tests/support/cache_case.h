/* SPDX-License-Identifier: Apache-2.0 */
/* Caches for tests: in guarded memory that was never written, with pages in random order, and
 * tokens whose rows follow from a number each, so that a model of a cache is lists of numbers. */
#ifndef QKV_TEST_CACHE_CASE_H
#define QKV_TEST_CACHE_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include <qkv/cache.h>

#include "guard.h"
#include "verdict.h"

struct cache_shape {
    int32_t k_dtype, v_dtype;
    int64_t kv_heads, head_dim, v_dim;
    int64_t page_tokens, sequences, sequence_pages;
    bool table;
};

struct cache_case {
    qkv_cache cache;
    struct guard memory, table, lengths, holders;
    unsigned char *before[4]; /* of those, after cache_remember */
};

enum { CACHE_TYPES = 4 };
extern const int32_t cache_types[CACHE_TYPES];

/* Empty. With a table: as many pages as the sequences may have, in random order; holders are
 * counted with and without. */
struct cache_case cache_make(const struct cache_shape *shape, uint64_t seed);
void cache_free(struct cache_case *c);

/* Remembers all memory of a cache; fails if a byte of it, or beside it, has changed since. */
void cache_remember(struct cache_case *c);
struct verdict cache_check_unchanged(const struct cache_case *c);

/* Fails if holders is not the number of sequences that have tokens in each page. */
struct verdict cache_check_holders(const struct cache_case *c);

/* A token: what its rows hold. Those with the bit ODD are zeros, tiny, huge, or have a NaN or an
 * infinity somewhere. */
typedef uint64_t token;
#define TOKEN_ODD ((token)1 << 63)

enum row_kind { ROW_K, ROW_V };
float token_number(token t, enum row_kind kind, int64_t head, int64_t i);

/* Its row of a head as a cache of this type gives it back. */
void token_stored(double *row, token t, enum row_kind kind, int64_t head, int64_t n, int dtype);

/* Appends tokens[b * most + i], i < lens[b], to sequences[b]. */
qkv_status cache_append(const struct cache_case *c, const qkv_context *context, int64_t batch,
                        const int32_t *sequences, const int32_t *lens, int64_t most,
                        const token *tokens);

/* Fails if a sequence does not hold exactly these tokens. */
struct verdict cache_check_tokens(const struct cache_case *c, const qkv_context *context,
                                  int64_t sequence, const token *tokens, int64_t count);

#endif
