/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens appended to a cache, and taken back by truncating before the next call: one, whose place
 * is in the first cache by then, and 512. Bytes are the rows that are read and what is stored of
 * them. With rope K is turned on the way, by tables. */
#include <stdio.h>

#include "cached.h"

enum { KV_HEADS = 8, HEAD_DIM = 128, BEFORE = 256, CAPACITY = 1024 };

static const struct { int tokens, rope; } shapes[] = {{1, 0}, {1, 1}, {512, 0}, {512, 1}};

enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

struct row {
    int type, tokens, rope;
};

struct call {
    qkv_cache cache;
    qkv_append_params params;
    qkv_tensors tensors;
    qkv_exec exec;
};

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    const qkv_status status = qkv_cache_truncate(&call->cache, 0, BEFORE);
    return status != QKV_OK ? status
                            : qkv_append(&call->params, &call->cache, &call->tensors, &call->exec);
}

static qkv_status set_rope(qkv_rope *rope, struct bench_memory *memory) {
    float *cos = bench_zeros(memory, CAPACITY * HEAD_DIM / 2);
    float *sin = bench_zeros(memory, CAPACITY * HEAD_DIM / 2);
    rope->pairs = QKV_ROPE_HALF;
    rope->cos = cos;
    rope->sin = sin;
    rope->table_rows = CAPACITY;
    return memory->failed ? QKV_OK : qkv_rope_tables(cos, sin, 0, CAPACITY, HEAD_DIM, rope->theta);
}

static qkv_status set_call(struct call *call, struct bench_memory *memory, const struct row *row) {
    const struct cached_shape shape = {KV_HEADS, HEAD_DIM, CAPACITY, 0, row->type};
    cached_open(&call->cache, memory, &shape);
    cached_tokens(&call->tensors, memory, &call->cache, row->tokens);
    qkv_append_params_init(&call->params);
    call->params.batch = 1;
    call->params.tokens = row->tokens;
    const qkv_status status = row->rope ? set_rope(&call->params.rope, memory) : QKV_OK;
    return status == QKV_OK ? cached_fill(&call->cache, memory, BEFORE) : status;
}

static double bytes(const struct call *call, const struct row *row) {
    const double token = (double)qkv_cache_memory_size(&call->cache) / CAPACITY;
    return row->tokens * (token + 2.0 * KV_HEADS * HEAD_DIM * sizeof(float));
}

static void run(gb_state *state, void *user) {
    const struct row *row = user;
    struct bench_memory memory = {.count = 0};
    struct call call;
    struct bench_work work = {.call = run_call, .argument = &call};
    qkv_plan plan;
    qkv_status status = set_call(&call, &memory, row);
    if (status == QKV_OK && !memory.failed)
        status = qkv_append_plan(&plan, &call.params, &call.cache, &bench_room.context);
    work.bytes = bytes(&call, row);
    if (cached_ready(state, &memory, status) &&
        bench_exec(state, &memory, &call.exec, &plan, NULL, 1, &work) == 0)
        bench_measure(state, &work);
    bench_free(&memory);
}

void append_register(void) {
    static struct row rows[CACHED_TYPES * SHAPES];
    for (int i = 0; i < CACHED_TYPES * SHAPES; i++) {
        struct row *row = &rows[i];
        *row = (struct row){i / SHAPES, shapes[i % SHAPES].tokens, shapes[i % SHAPES].rope};
        char name[BENCH_NAME];
        snprintf(name, sizeof(name), "h%d_n%d_d%d%s", KV_HEADS, row->tokens, HEAD_DIM,
                 row->rope ? "_rope" : "");
        bench_register_typed("append", cached_types[row->type].name, name, 1, 0.0, run, row);
    }
}
