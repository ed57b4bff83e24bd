/* SPDX-License-Identifier: Apache-2.0 */
/* Caches for the benchmarks: their memory, their table, their tokens. */
#include "cached.h"

enum { AT_ONCE = 512 }; /* tokens appended together, the same ones again and again */

const struct cached_type cached_types[CACHED_TYPES] = {
    {"f32", QKV_F32}, {"f16", QKV_F16}, {"bf16", QKV_BF16}, {"i8", QKV_I8}};

static void set_numbers(qkv_cache *cache, const struct cached_shape *shape) {
    qkv_cache_init(cache);
    cache->kv_heads = shape->kv_heads;
    cache->head_dim = shape->head_dim;
    cache->page_tokens = shape->page ? shape->page : shape->tokens;
    cache->sequences = 1;
    cache->sequence_pages = shape->tokens / cache->page_tokens;
    cache->pages = cache->sequence_pages;
    cache->k_dtype = cache->v_dtype = cached_types[shape->type].dtype;
}

/* Any order: a permutation by Fisher and Yates. */
static void fill_table(int32_t *table, int64_t count) {
    uint64_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t other = (int64_t)(bench_random(&state) % (uint64_t)(i + 1));
        table[i] = table[other];
        table[other] = (int32_t)i;
    }
}

void cached_open(qkv_cache *cache, struct bench_memory *memory, const struct cached_shape *shape) {
    set_numbers(cache, shape);
    cache->memory = bench_bytes(memory, qkv_cache_memory_size(cache));
    cache->lengths = bench_bytes(memory, sizeof(int32_t));
    cache->holders = bench_bytes(memory, (size_t)cache->pages * sizeof(int32_t));
    if (shape->page)
        cache->table = bench_bytes(memory, (size_t)cache->pages * sizeof(int32_t));
    if (cache->table)
        fill_table(cache->table, cache->pages);
}

size_t cached_bytes(const struct cached_shape *shape) {
    qkv_cache cache;
    set_numbers(&cache, shape);
    return qkv_cache_memory_size(&cache);
}

void cached_tokens(qkv_tensors *tensors, struct bench_memory *memory, const qkv_cache *cache,
                   int tokens) {
    const int64_t count = cache->kv_heads * tokens * cache->head_dim;
    qkv_tensors_init(tensors);
    tensors->k =
        qkv_tensor_bhsd(bench_normal(memory, count), cache->kv_heads, tokens, cache->head_dim);
    tensors->v =
        qkv_tensor_bhsd(bench_normal(memory, count), cache->kv_heads, tokens, cache->head_dim);
}

qkv_status cached_fill(const qkv_cache *cache, struct bench_memory *memory, int tokens) {
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_exec exec;
    qkv_status status = QKV_OK;
    cached_tokens(&tensors, memory, cache, AT_ONCE);
    qkv_exec_init(&exec);
    exec.context = &bench_room.context;
    while (!memory->failed && status == QKV_OK && cache->lengths[0] < tokens) {
        const int32_t left = tokens - cache->lengths[0];
        qkv_append_params_init(&params);
        params.batch = 1;
        params.tokens = AT_ONCE;
        const int32_t lens = left < AT_ONCE ? left : AT_ONCE;
        params.lens = &lens;
        status = qkv_append(&params, cache, &tensors, &exec);
    }
    return status;
}

int cached_ready(gb_state *state, const struct bench_memory *memory, qkv_status status) {
    if (memory->failed)
        gb_skip(state, "skipped: not enough memory");
    else if (status != QKV_OK)
        bench_fail(state, status);
    return !memory->failed && status == QKV_OK;
}
