/* SPDX-License-Identifier: Apache-2.0 */
/* The losses with their gradients. By custom five flops an element of cross-entropy, as in softmax,
 * and four of the squared loss. */
#include <stdio.h>

#include "bench.h"

struct shape {
    qkv_loss_kind kind;
    int64_t rows, columns;
    int threads;
};

static const struct shape shapes[] = {
    {QKV_LOSS_CROSS_ENTROPY, 4096, 64, 1},   {QKV_LOSS_CROSS_ENTROPY, 512, 4096, 1},
    {QKV_LOSS_CROSS_ENTROPY, 256, 32768, 1}, {QKV_LOSS_CROSS_ENTROPY, 256, 32768, 2},
    {QKV_LOSS_SQUARED, 512, 512, 1},
};

static const char *const names[QKV_LOSS_COUNT] = {
    [QKV_LOSS_SQUARED] = "loss/squared", [QKV_LOSS_CROSS_ENTROPY] = "loss/cross_entropy"};

struct call {
    qkv_loss_params params;
    qkv_loss_tensors tensors;
    qkv_exec exec;
};

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    return qkv_loss(&call->params, &call->tensors, &call->exec);
}

static double elements(const struct shape *shape) {
    return (double)shape->rows * (double)shape->columns;
}

static double flops(const struct shape *shape) {
    return elements(shape) * (shape->kind == QKV_LOSS_SQUARED ? 4.0 : 5.0);
}

static int32_t *labels(struct bench_memory *memory, const struct shape *shape) {
    int32_t *label = bench_bytes(memory, (size_t)shape->rows * sizeof(*label));
    uint64_t state = 7;
    for (int64_t i = 0; label && i < shape->rows; i++)
        label[i] = (int32_t)(bench_random(&state) % (uint64_t)shape->columns);
    return label;
}

static void set_call(struct call *call, struct bench_memory *memory, const struct shape *shape) {
    const int64_t count = shape->rows * shape->columns;
    qkv_loss_tensors *t = &call->tensors;
    qkv_loss_params_init(&call->params);
    call->params.rows = shape->rows;
    call->params.columns = shape->columns;
    call->params.kind = shape->kind;
    qkv_loss_tensors_init(t);
    t->prediction = qkv_tensor_bhsd(bench_normal(memory, count), 1, shape->rows, shape->columns);
    t->gradient = qkv_tensor_bhsd(bench_zeros(memory, count), 1, shape->rows, shape->columns);
    if (shape->kind == QKV_LOSS_SQUARED)
        t->target = qkv_tensor_bhsd(bench_normal(memory, count), 1, shape->rows, shape->columns);
    else
        t->labels = labels(memory, shape);
    t->loss = bench_zeros(memory, 1);
}

static int prepare(gb_state *state, struct bench_memory *memory, void *argument, struct pool *pool,
                   int threads, const void *user, struct bench_work *work) {
    const struct shape *shape = user;
    struct call *call = argument;
    qkv_plan plan;
    qkv_status status = qkv_loss_plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(shape)};
    work->bytes = elements(shape) * (shape->kind == QKV_LOSS_SQUARED ? 12.0 : 8.0);
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

void loss_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        char name[BENCH_NAME];
        snprintf(name, sizeof(name), "r%lld_c%lld", (long long)shape->rows,
                 (long long)shape->columns);
        bench_register(names[shape->kind], name, shape->threads, flops(shape), run, shape);
    }
}
