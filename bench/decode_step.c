/* SPDX-License-Identifier: Apache-2.0 */
/* How long a step of decoding takes at worst, as latency.c measures it: one token appended to a
 * cache (after the last step's was taken back), and attention of one query a head over all of
 * it. */
#include <stdio.h>

#include "cached.h"

enum { HEADS = 12, LENGTH = 256, HEAD_DIM = 64, CAPACITY = 512 };

struct row {
    int type, threads;
};

struct step {
    qkv_cache cache;
    qkv_append_params append;
    qkv_attention_params params;
    qkv_tensors token, tensors;
    qkv_exec append_exec, exec;
    qkv_plan plan; /* of decode: one serves all steps */
};

static qkv_status run_step(const void *argument) {
    const struct step *s = argument;
    qkv_status status = qkv_cache_truncate(&s->cache, 0, LENGTH - 1);
    if (status == QKV_OK)
        status = qkv_append(&s->append, &s->cache, &s->token, &s->append_exec);
    if (status == QKV_OK)
        status = qkv_execute(&s->plan, &s->tensors, &s->exec);
    return status;
}

static qkv_status set_step(struct step *s, struct bench_memory *memory, int type) {
    const struct cached_shape shape = {HEADS, HEAD_DIM, CAPACITY, 0, type};
    const int64_t count = HEADS * HEAD_DIM;
    cached_open(&s->cache, memory, &shape);
    cached_tokens(&s->token, memory, &s->cache, 1);
    qkv_append_params_init(&s->append);
    s->append.batch = s->append.tokens = 1;
    qkv_exec_init(&s->append_exec);
    s->append_exec.context = &bench_room.context;
    qkv_attention_params_init(&s->params);
    s->params.batch = s->params.q_len = 1;
    s->params.q_heads = s->params.kv_heads = HEADS;
    s->params.kv_len = LENGTH;
    s->params.head_dim = HEAD_DIM;
    qkv_tensors_init(&s->tensors);
    s->tensors.q = qkv_tensor_bhsd(bench_normal(memory, count), HEADS, 1, HEAD_DIM);
    s->tensors.out = qkv_tensor_bhsd(bench_zeros(memory, count), HEADS, 1, HEAD_DIM);
    return cached_fill(&s->cache, memory, LENGTH);
}

static void run(gb_state *state, void *user) {
    const struct row *row = user;
    struct pool *pool = row->threads > 1 ? pool_open(row->threads) : NULL;
    struct bench_memory memory = {.count = 0};
    struct step step;
    struct bench_work work = {.call = run_step, .argument = &step};
    qkv_status status = set_step(&step, &memory, row->type);
    if (status == QKV_OK && !memory.failed)
        status = qkv_decode_plan(&step.plan, &step.params, &step.cache, NULL, &bench_room.context);
    if (cached_ready(state, &memory, status) &&
        bench_exec(state, &memory, &step.exec, &step.plan, pool, row->threads, &work) == 0)
        bench_measure_latency(state, &work);
    bench_free(&memory);
    pool_close(pool);
}

void decode_step_register(void) {
    static struct row rows[2 * CACHED_TYPES];
    const struct bench_shape shape = {HEADS, HEADS, 1, LENGTH, HEAD_DIM, 0, 1, "append_decode"};
    char shape_name[BENCH_NAME], name[2 * BENCH_NAME];
    bench_shape_name(shape_name, &shape);
    for (int i = 0; i < 2 * CACHED_TYPES; i++) {
        rows[i] = (struct row){i / 2, 1 + i % 2};
        bench_name(name, "latency", cached_types[rows[i].type].name, shape_name, rows[i].threads);
        gb_register_once(name, run, &rows[i]);
    }
}
