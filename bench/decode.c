/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one query a head over a cache, K and V of one type: caches that the processor's
 * caches hold, and far beyond them; in one run of memory, and in pages. 4 * kv_len * head_dim flops
 * a query head; what counts is pct_roof. Where the room has variants of narrow arithmetic, those
 * too, as decode/i8:avx512vnni and so on; the FMA peak is no roof for them, reading the cache is.
 */
#include <stdio.h>

#include "cached.h"

static const struct { int heads, kv_heads, head_dim; } models[] = {{32, 8, 128}, {8, 8, 64}};

static const int lengths[] = {256, 1024, 4096, 16384, 65536};

enum {
    MODELS = sizeof(models) / sizeof(models[0]),
    LENGTHS = sizeof(lengths) / sizeof(lengths[0]),
    THREADS = 2, /* one and two */
    MOST_ROWS = 2 * CACHED_TYPES * (MODELS * (LENGTHS + 1) * THREADS + 1),
    LONGER = 131072, /* where the last-level cache holds even the longest int8 cache */
    PAGED_LENGTH = 4096,
    PAGE = 64,
};

struct row {
    struct cached_shape cache;
    int heads;
    int threads;
    const char *narrow; /* the variant, or NULL */
};

struct call {
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_cache cache;
    qkv_exec exec;
    struct roof roof;
};

static double flops(const struct row *row) {
    return 4.0 * row->heads * row->cache.tokens * row->cache.head_dim;
}

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    return qkv_decode(&call->params, &call->tensors, &call->cache, NULL, &call->exec);
}

static void set_call(struct call *call, struct bench_memory *memory, const struct row *row) {
    const int64_t dim = row->cache.head_dim;
    qkv_attention_params_init(&call->params);
    call->params.batch = 1;
    call->params.q_heads = row->heads;
    call->params.kv_heads = row->cache.kv_heads;
    call->params.q_len = 1;
    call->params.kv_len = row->cache.tokens;
    call->params.head_dim = dim;
    call->params.arithmetic = row->narrow ? QKV_ARITHMETIC_NARROW : QKV_ARITHMETIC_F32;
    qkv_tensors_init(&call->tensors);
    call->tensors.q = qkv_tensor_bhsd(bench_normal(memory, row->heads * dim), row->heads, 1, dim);
    call->tensors.out = qkv_tensor_bhsd(bench_zeros(memory, row->heads * dim), row->heads, 1, dim);
    cached_open(&call->cache, memory, &row->cache);
}

static int prepare(gb_state *state, struct bench_memory *memory, void *argument, struct pool *pool,
                   int threads, const void *user, struct bench_work *work) {
    const struct row *row = user;
    struct call *call = argument;
    qkv_plan plan;
    qkv_status status =
        qkv_decode_plan(&plan, &call->params, &call->cache, NULL, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(row)};
    work->bytes = (double)cached_bytes(&row->cache);
    call->roof = (struct roof){.flops = row->narrow ? 0 : work->flops,
                               .memory = call->cache.memory,
                               .bytes = (size_t)work->bytes,
                               .pool = pool,
                               .threads = threads};
    work->roof = &call->roof;
    if (bench_exec(state, memory, &call->exec, &plan, pool, threads, work))
        return -1;
    roof_start(&call->roof, bench_room.peak.kernel);
    return 0;
}

static void run(gb_state *state, void *user) {
    const struct row *row = user;
    struct bench_memory memory = {.count = 0};
    struct call call = {.exec = {.size = 0}}, alone;
    set_call(&call, &memory, row);
    if (cached_ready(state, &memory, cached_fill(&call.cache, &memory, row->cache.tokens))) {
        alone = call;
        bench_run_threads(state, &memory, prepare, row, row->threads, &call, &alone);
    } else {
        bench_free(&memory);
    }
}

static void register_row(struct row *row) {
    const struct bench_shape shape = {row->heads,
                                      row->cache.kv_heads,
                                      1,
                                      row->cache.tokens,
                                      row->cache.head_dim,
                                      0,
                                      row->threads,
                                      row->cache.page ? "paged" : NULL};
    char name[BENCH_NAME], type[BENCH_NAME];
    bench_shape_name(name, &shape);
    snprintf(type, sizeof(type), "%s%s%s", cached_types[row->cache.type].name,
             row->narrow ? ":" : "", row->narrow ? row->narrow : "");
    bench_register_typed("decode", type, name, row->threads, flops(row), run, row);
}

/* 1 if the last-level cache cannot be meant to serve a cache of that shape. */
static int is_far(const struct cached_shape *shape) {
    return cached_bytes(shape) > peak_last_cache();
}

static void register_model(int model, int type, const char *narrow, struct row **row) {
    for (int threads = 1; threads <= THREADS; threads++) {
        for (int i = 0; i < LENGTHS + 1; i++) {
            struct cached_shape shape = {.kv_heads = models[model].kv_heads,
                                         .head_dim = models[model].head_dim,
                                         .tokens = lengths[i < LENGTHS ? i : LENGTHS - 1],
                                         .type = type};
            if (i == LENGTHS && is_far(&shape))
                continue;
            if (i == LENGTHS)
                shape.tokens = LONGER;
            **row = (struct row){shape, models[model].heads, threads, narrow};
            register_row((*row)++);
        }
    }
}

static void register_paged(int type, const char *narrow, struct row **row) {
    const struct cached_shape shape = {models[0].kv_heads, models[0].head_dim, PAGED_LENGTH, PAGE,
                                       type};
    **row = (struct row){shape, models[0].heads, 1, narrow};
    register_row((*row)++);
}

static void register_type(int type, const char *narrow, struct row **row) {
    for (int model = 0; model < MODELS; model++)
        register_model(model, type, narrow, row);
    register_paged(type, narrow, row);
}

void decode_register(void) {
    static struct row rows[MOST_ROWS];
    struct row *row = rows;
    for (int type = 0; type < CACHED_TYPES; type++) {
        const char *narrow = qkv_narrow_variant(&bench_room.context, cached_types[type].dtype);
        register_type(type, NULL, &row);
        if (narrow)
            register_type(type, narrow, &row);
    }
}
