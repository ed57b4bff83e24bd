/* SPDX-License-Identifier: Apache-2.0 */
/* The projection's gradients, dX and all of dW in one call: 4 * tokens * d_model * n flops, n the
 * sum of the three widths. The gradients of Q, K and V stand as [tokens, heads, dim], or, in rows
 * that say so, as [heads, tokens, dim]. */
#include <stdio.h>

#include "bench.h"

struct shape {
    int tokens;
    int d_model;
    int q_heads;
    int kv_heads;
    int head_dim;
    int layout;
    int heads_first; /* [heads, tokens, dim] */
    int extra;       /* biases' gradients, too, and all of them added to what stands there */
    int threads;
};

static const struct shape shapes[] = {
    {512, 768, 12, 12, 64, QKV_W_IN_OUT, 0, 0, 1},  {512, 768, 12, 12, 64, QKV_W_OUT_IN, 0, 0, 1},
    {512, 768, 12, 12, 64, QKV_W_IN_OUT, 1, 0, 1},  {512, 768, 12, 12, 64, QKV_W_IN_OUT, 0, 1, 1},
    {512, 768, 12, 12, 64, QKV_W_OUT_IN, 0, 1, 1},  {4096, 128, 4, 4, 32, QKV_W_IN_OUT, 0, 0, 1},
    {512, 4096, 32, 8, 128, QKV_W_IN_OUT, 0, 0, 1}, {512, 768, 12, 12, 64, QKV_W_IN_OUT, 0, 0, 2},
    {4096, 128, 4, 4, 32, QKV_W_IN_OUT, 0, 0, 2},
};

struct call {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_project_gradients gradients;
    qkv_exec exec;
};

static double width(const struct shape *shape) {
    return (double)(shape->q_heads + 2 * shape->kv_heads) * shape->head_dim;
}

static double flops(const struct shape *shape) {
    return 4.0 * shape->tokens * shape->d_model * width(shape);
}

static qkv_tensor matrix(float *data, int64_t columns) {
    return qkv_tensor_bhsd(data, 1, 1, columns);
}

static void set_matrix(struct call *call, struct bench_memory *memory, const struct shape *shape,
                       int which) {
    qkv_project_gradients *g = &call->gradients;
    qkv_tensor *const w[] = {&call->tensors.wq, &call->tensors.wk, &call->tensors.wv};
    qkv_tensor *const y[] = {&g->q, &g->k, &g->v};
    qkv_tensor *const dw[] = {&g->wq, &g->wk, &g->wv};
    qkv_tensor *const db[] = {&g->bq, &g->bk, &g->bv};
    const int heads = which == QKV_WHICH_Q ? shape->q_heads : shape->kv_heads;
    const int64_t columns = (int64_t)heads * shape->head_dim;
    const int64_t row = shape->layout == QKV_W_IN_OUT ? columns : shape->d_model;
    float *of_y = bench_normal(memory, columns * shape->tokens);
    *w[which] = matrix(bench_normal(memory, columns * shape->d_model), row);
    *dw[which] = matrix(bench_zeros(memory, columns * shape->d_model), row);
    *y[which] = shape->heads_first ? qkv_tensor_bhsd(of_y, heads, shape->tokens, shape->head_dim)
                                   : qkv_tensor_bshd(of_y, heads, shape->tokens, shape->head_dim);
    if (shape->extra)
        *db[which] = matrix(bench_zeros(memory, columns), columns);
}

static void set_call(struct call *call, struct bench_memory *memory, const struct shape *shape) {
    qkv_project_params *p = &call->params;
    qkv_project_params_init(p);
    qkv_project_tensors_init(&call->tensors);
    qkv_project_gradients_init(&call->gradients);
    p->flags = shape->extra ? QKV_PROJECT_ACCUMULATE : 0;
    p->batch = 1;
    p->tokens = shape->tokens;
    p->d_model = shape->d_model;
    p->q_heads = shape->q_heads;
    p->kv_heads = shape->kv_heads;
    p->head_dim = shape->head_dim;
    p->layout = shape->layout;
    const int64_t count = (int64_t)shape->tokens * shape->d_model;
    call->tensors.x =
        qkv_tensor_bhsd(bench_normal(memory, count), 1, shape->tokens, shape->d_model);
    call->gradients.x =
        qkv_tensor_bhsd(bench_zeros(memory, count), 1, shape->tokens, shape->d_model);
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        set_matrix(call, memory, shape, which);
}

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    return qkv_project_backward(&call->params, &call->tensors, &call->gradients, &call->exec);
}

/* How to run the call. 0, or -1 with the benchmark skipped. */
static int prepare(gb_state *state, struct bench_memory *memory, struct call *call,
                   struct pool *pool, int threads, const struct shape *shape,
                   struct bench_work *work) {
    qkv_plan plan;
    qkv_status status = qkv_project_backward_plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(shape)};
    work->bytes = 8.0 * ((double)shape->tokens * shape->d_model + shape->d_model * width(shape)) +
                  4.0 * shape->tokens * width(shape);
    return bench_exec(state, memory, &call->exec, &plan, pool, threads, work);
}

static void run(gb_state *state, void *user) {
    const struct shape *shape = user;
    struct bench_memory memory = {.count = 0};
    struct pool *pool = shape->threads > 1 ? pool_open(shape->threads) : NULL;
    struct call call;
    struct bench_work work, alone;
    set_call(&call, &memory, shape);
    struct call call_alone = call;
    if (prepare(state, &memory, &call, pool, shape->threads, shape, &work) == 0 &&
        prepare(state, &memory, &call_alone, NULL, 1, shape, &alone) == 0) {
        work.alone = shape->threads > 1 ? &alone : NULL;
        bench_measure(state, &work);
    }
    pool_close(pool);
    bench_free(&memory);
}

void project_backward_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        char name[BENCH_NAME];
        snprintf(name, sizeof(name), "m%d_k%d_n%.0f_%s%s%s", shape->tokens, shape->d_model,
                 width(shape), shape->layout == QKV_W_IN_OUT ? "inout" : "outin",
                 shape->heads_first ? "_bhsd" : "", shape->extra ? "_biases_accumulate" : "");
        bench_register("project_backward", name, shape->threads, flops(shape), run, shape);
    }
}
