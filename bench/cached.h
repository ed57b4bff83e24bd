/* SPDX-License-Identifier: Apache-2.0 */
/* A cache of one sequence in the memory of a benchmark, with random tokens in it. */
#ifndef QKV_BENCH_CACHED_H
#define QKV_BENCH_CACHED_H

#include <qkv/cache.h>

#include "bench.h"

/* The types that a cache stores, by their names. */
struct cached_type {
    const char *name;
    int32_t dtype;
};

enum { CACHED_TYPES = 4 };
extern const struct cached_type cached_types[CACHED_TYPES];

struct cached_shape {
    int kv_heads, head_dim;
    int tokens; /* that the sequence may have */
    int page;   /* tokens of a page, in a table that jumps about; 0: one run of memory */
    int type;   /* of cached_types, of K and V */
};

/* The cache with its memory; a failed allocation is told by the memory. */
void cached_open(qkv_cache *cache, struct bench_memory *memory, const struct cached_shape *shape);

/* Bytes of a cache of that shape. */
size_t cached_bytes(const struct cached_shape *shape);

/* K and V of `tokens` new tokens, as append takes them. */
void cached_tokens(qkv_tensors *tensors, struct bench_memory *memory, const qkv_cache *cache,
                   int tokens);

/* Appends tokens until the sequence has so many; nothing without memory. */
qkv_status cached_fill(const qkv_cache *cache, struct bench_memory *memory, int tokens);

/* 1 if there is memory and nothing failed; else skips the benchmark. */
int cached_ready(gb_state *state, const struct bench_memory *memory, qkv_status status);

#endif
