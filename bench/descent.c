/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent: arrays of one size, within the caches and far beyond them. Flops are those of
 * the rule as written; what counts is pct_copy. The rate is small, so that weights stay what they
 * are. */
#include <stdio.h>

#include "bench.h"

enum rule { SGD, MOMENTUM, ADAMW };

/* What a rule costs a number: flops, and the numbers it reads and writes. */
static const struct {
    const char *name;
    double flops, numbers;
} rules[] = {[SGD] = {"descent/sgd", 2, 3},
             [MOMENTUM] = {"descent/momentum", 4, 5},
             [ADAMW] = {"descent/adamw", 14, 7}};

struct shape {
    enum rule rule;
    int64_t count;
    int threads;
};

/* 4 and 64 Ki numbers: in the first cache, in the second or third; 16 Mi: 64 MiB an array. */
static const struct shape shapes[] = {
    {SGD, 4 << 10, 1},       {SGD, 64 << 10, 1},      {SGD, 16 << 20, 1},   {MOMENTUM, 4 << 10, 1},
    {MOMENTUM, 64 << 10, 1}, {MOMENTUM, 16 << 20, 1}, {ADAMW, 4 << 10, 1},  {ADAMW, 64 << 10, 1},
    {ADAMW, 16 << 20, 1},    {SGD, 16 << 20, 2},      {ADAMW, 16 << 20, 2},
};

struct call {
    qkv_descent_params params;
    qkv_descent_arrays arrays;
    qkv_exec exec;
};

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    return qkv_descent(&call->params, &call->arrays, &call->exec);
}

static void set_call(struct call *call, struct bench_memory *memory, const struct shape *shape) {
    qkv_descent_params_init(&call->params);
    call->params.count = shape->count;
    call->params.step = 10;
    call->params.rule = shape->rule == ADAMW ? QKV_DESCENT_ADAMW : QKV_DESCENT_SGD;
    call->params.rate = 1e-9f;
    call->params.momentum = shape->rule == MOMENTUM ? 0.9f : 0.0f;
    call->params.weight_decay = shape->rule == ADAMW ? 0.01f : 0.0f;
    qkv_descent_arrays_init(&call->arrays);
    call->arrays.weights = bench_normal(memory, shape->count);
    call->arrays.gradient = bench_normal(memory, shape->count);
    if (shape->rule != SGD)
        call->arrays.mean = bench_zeros(memory, shape->count);
    if (shape->rule == ADAMW)
        call->arrays.square = bench_zeros(memory, shape->count);
}

static double flops(const struct shape *shape) {
    return rules[shape->rule].flops * (double)shape->count;
}

static int prepare(gb_state *state, struct bench_memory *memory, void *argument, struct pool *pool,
                   int threads, const void *user, struct bench_work *work) {
    const struct shape *shape = user;
    struct call *call = argument;
    qkv_plan plan;
    qkv_status status = qkv_descent_plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(shape)};
    work->bytes = 4.0 * rules[shape->rule].numbers * (double)shape->count;
    work->updates_memory = threads == 1 && work->bytes >= (double)peak_beyond_caches() / 4;
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

void descent_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        char name[BENCH_NAME];
        snprintf(name, sizeof(name), "n%lld", (long long)shape->count);
        bench_register(rules[shape->rule].name, name, shape->threads, flops(shape), run, shape);
    }
}
