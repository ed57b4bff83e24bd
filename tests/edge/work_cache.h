/* SPDX-License-Identifier: Apache-2.0 */
/* The jobs of work.h with a cache, and what they write. */
#ifndef QKV_TESTS_WORK_CACHE_H
#define QKV_TESTS_WORK_CACHE_H

#include <qkv/cache.h>

enum {
    WORK_CACHED = 1 << 19, /* floats of the cache's memory */
    WORK_STEPS = 51,
    WORK_DECODED = 2 * 4 * WORK_STEPS * 23 /* batch, heads, v_dim */
};

/* Numbers from `uniform`, -1 to 1. */
void work_fill_cache(float spread, float uniform(void));

/* Each appends to an empty cache first. A step has 3 queries a sequence, a chunk WORK_STEPS. */
qkv_status work_append(const qkv_context *context);
qkv_status work_append_int8(const qkv_context *context);
qkv_status work_pages(const qkv_context *context); /* share, copy, truncate, save, load */
qkv_status work_step(const qkv_context *context);
qkv_status work_step_half(const qkv_context *context);
qkv_status work_step_int8(const qkv_context *context);
qkv_status work_chunk(const qkv_context *context);
qkv_status work_chunk_int8(const qkv_context *context);

/* In narrow arithmetic, over each type that the context has a variant for; else in float32. */
qkv_status work_step_narrow(const qkv_context *context);
qkv_status work_chunk_narrow(const qkv_context *context);

extern float work_cached[WORK_CACHED];
extern float work_decoded[WORK_DECODED];

/* Keys turned by theta on their way into a cache and exported; and rows turned by themselves. */
enum { WORK_ROWS_OUT = 2 * 1057 * 20 };
qkv_status work_export(const qkv_context *context);
qkv_status work_rotate(const qkv_context *context);
extern float work_rows[WORK_ROWS_OUT];

#endif
