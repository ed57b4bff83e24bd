/* SPDX-License-Identifier: Apache-2.0 */
/* Partial results joined. Three flops an element of each part by custom: two weights' products and
 * a sum. A step of decode has few rows, and is short; a chunk of a prompt has many. */
#include <stdio.h>

#include <qkv/cache.h>

#include "bench.h"

enum { MOST_PARTS = 8 };

struct shape {
    int heads, length, v_dim, parts, threads;
};

static const struct shape shapes[] = {
    {32, 1, 128, 2, 1},   {32, 1, 128, 8, 1},   {12, 1, 64, 2, 1},
    {32, 512, 128, 2, 1}, {32, 512, 128, 2, 2},
};

struct call {
    qkv_merge_params params;
    qkv_merge_tensors tensors;
    qkv_tensor out[MOST_PARTS], lse[MOST_PARTS];
    qkv_exec exec;
};

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    qkv_merge_tensors tensors = call->tensors;
    tensors.part_out = call->out;
    tensors.part_lse = call->lse;
    return qkv_merge(&call->params, &tensors, &call->exec);
}

static double elements(const struct shape *shape) {
    return (double)shape->heads * shape->length * shape->v_dim;
}

static double flops(const struct shape *shape) {
    return 3.0 * elements(shape) * shape->parts;
}

static void set_call(struct call *call, struct bench_memory *memory, const struct shape *s) {
    const int64_t rows = (int64_t)s->heads * s->length, count = rows * s->v_dim;
    qkv_merge_params_init(&call->params);
    call->params.batch = 1;
    call->params.heads = s->heads;
    call->params.length = s->length;
    call->params.v_dim = s->v_dim;
    call->params.parts = s->parts;
    for (int p = 0; p < s->parts; p++) {
        call->out[p] = qkv_tensor_bhsd(bench_normal(memory, count), s->heads, s->length, s->v_dim);
        call->lse[p] = qkv_tensor_bhsd(bench_normal(memory, rows), s->heads, s->length, 1);
    }
    qkv_merge_tensors_init(&call->tensors);
    call->tensors.out = qkv_tensor_bhsd(bench_zeros(memory, count), s->heads, s->length, s->v_dim);
    call->tensors.lse = qkv_tensor_bhsd(bench_zeros(memory, rows), s->heads, s->length, 1);
}

static int prepare(gb_state *state, struct bench_memory *memory, void *argument, struct pool *pool,
                   int threads, const void *user, struct bench_work *work) {
    const struct shape *shape = user;
    struct call *call = argument;
    qkv_plan plan;
    qkv_status status = qkv_merge_plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(shape)};
    work->bytes = 4.0 * elements(shape) * (shape->parts + 1);
    return bench_exec(state, memory, &call->exec, &plan, pool, threads, work);
}

static void run(gb_state *state, void *user) {
    const struct shape *shape = user;
    struct bench_memory memory = {.count = 0};
    struct call call = {.exec = {.size = 0}}, alone;
    set_call(&call, &memory, shape);
    alone = call;
    bench_run_threads(state, &memory, prepare, shape, shape->threads, &call, &alone);
}

void merge_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *s = &shapes[i];
        char name[BENCH_NAME];
        snprintf(name, sizeof(name), "h%d_q%d_d%d_parts%d", s->heads, s->length, s->v_dim,
                 s->parts);
        bench_register("merge", name, s->threads, flops(s), run, s);
    }
}
