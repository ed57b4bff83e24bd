/* SPDX-License-Identifier: Apache-2.0 */
/* The projection: Q, K and V from X in one call, of equal widths (the name's n is their sum) or
 * as in a model with GQA. 2 * tokens * d_model * n flops. Weights packed ahead of time, as for
 * inference, or as stored. */
#include <stdio.h>

#include "bench.h"

struct shape {
    int batch;
    int tokens;
    int d_model;
    int q_heads;
    int kv_heads;
    int head_dim;
    int layout; /* QKV_W_PACKED: packed from IN_OUT before the measurement */
    int threads;
};

static const struct shape shapes[] = {
    /* many tokens: as many flops as the machine has */
    {1, 128, 384, 12, 12, 32, QKV_W_PACKED, 1},
    {1, 128, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {1, 128, 1024, 16, 16, 64, QKV_W_PACKED, 1},
    {1, 128, 2048, 32, 8, 64, QKV_W_PACKED, 1},
    {1, 128, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {1, 512, 384, 12, 12, 32, QKV_W_PACKED, 1},
    {1, 512, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {1, 512, 1024, 16, 16, 64, QKV_W_PACKED, 1},
    {1, 512, 2048, 32, 8, 64, QKV_W_PACKED, 1},
    {1, 512, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    /* weights as stored */
    {1, 128, 384, 12, 12, 32, QKV_W_IN_OUT, 1},
    {1, 512, 768, 12, 12, 64, QKV_W_IN_OUT, 1},
    {1, 512, 768, 12, 12, 64, QKV_W_OUT_IN, 1},
    {1, 1, 4096, 32, 8, 128, QKV_W_IN_OUT, 1},
    {1, 1, 4096, 32, 8, 128, QKV_W_OUT_IN, 1},
    /* between */
    {1, 16, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {1, 32, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {1, 256, 768, 12, 12, 64, QKV_W_PACKED, 1},
    /* few tokens, weights in a cache */
    {1, 1, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {1, 8, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {8, 1, 768, 12, 12, 64, QKV_W_PACKED, 1},
    {8, 4, 768, 12, 12, 64, QKV_W_PACKED, 1},
    /* few tokens, weights in memory: as fast as it can be read */
    {1, 1, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {1, 2, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {1, 4, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {1, 8, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {8, 1, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    {1, 16, 4096, 32, 8, 128, QKV_W_PACKED, 1},
    /* two threads */
    {1, 16, 768, 12, 12, 64, QKV_W_PACKED, 2},
    {1, 128, 384, 12, 12, 32, QKV_W_PACKED, 2},
    {1, 512, 768, 12, 12, 64, QKV_W_PACKED, 2},
    {1, 512, 4096, 32, 8, 128, QKV_W_PACKED, 2},
    {1, 1, 768, 12, 12, 64, QKV_W_PACKED, 2},
    {1, 1, 4096, 32, 8, 128, QKV_W_PACKED, 2},
};

static const char *const layout_names[QKV_W_COUNT] = {
    [QKV_W_IN_OUT] = "inout", [QKV_W_OUT_IN] = "outin", [QKV_W_PACKED] = "packed"};

struct call {
    qkv_project_params params;
    qkv_project_tensors tensors;
    qkv_exec exec;
};

static int heads_of(const struct shape *shape, int which) {
    return which == QKV_WHICH_Q ? shape->q_heads : shape->kv_heads;
}

static double width(const struct shape *shape) {
    return (double)(shape->q_heads + 2 * shape->kv_heads) * shape->head_dim;
}

static int rows(const struct shape *shape) {
    return shape->batch * shape->tokens;
}

static double flops(const struct shape *shape) {
    return 2.0 * rows(shape) * shape->d_model * width(shape);
}

/* One matrix as the library is to get it. The packed one takes the place of the plain one. */
static qkv_status set_weights(qkv_tensor *w, struct bench_memory *memory,
                              const qkv_project_params *params, const struct shape *shape,
                              int which) {
    const int64_t columns = (int64_t)heads_of(shape, which) * shape->head_dim;
    const int64_t row = shape->layout == QKV_W_OUT_IN ? shape->d_model : columns;
    struct bench_memory plain = {.drawn = memory->drawn + (size_t)which * 1000};
    if (shape->layout != QKV_W_PACKED) {
        *w = qkv_tensor_bhsd(bench_normal(memory, columns * shape->d_model), 1, 1, row);
        w->stride[2] = row;
        return QKV_OK;
    }
    qkv_project_params from = *params;
    from.layout = QKV_W_IN_OUT;
    qkv_tensor source = qkv_tensor_bhsd(bench_normal(&plain, columns * shape->d_model), 1, 1, row);
    source.stride[2] = row;
    size_t size = qkv_project_pack_size(&from, which, &bench_room.context);
    void *packed = bench_bytes(memory, size);
    qkv_status status = QKV_OK;
    if (!plain.failed && packed)
        status = qkv_project_pack(&from, which, &source, packed, size, &bench_room.context);
    memory->failed |= plain.failed;
    bench_free(&plain);
    *w = qkv_tensor_bhsd(packed, 1, 1, row);
    return status;
}

static qkv_tensor output(struct bench_memory *memory, const struct shape *shape, int which) {
    const int64_t heads = heads_of(shape, which);
    float *data = bench_zeros(memory, heads * rows(shape) * shape->head_dim);
    return qkv_tensor_bhsd(data, heads, shape->tokens, shape->head_dim);
}

static void set_params(qkv_project_params *p, const struct shape *shape) {
    qkv_project_params_init(p);
    p->batch = shape->batch;
    p->tokens = shape->tokens;
    p->d_model = shape->d_model;
    p->q_heads = shape->q_heads;
    p->kv_heads = shape->kv_heads;
    p->head_dim = shape->head_dim;
    p->layout = shape->layout;
}

static qkv_status set_tensors(struct call *call, struct bench_memory *memory,
                              const struct shape *shape) {
    qkv_project_tensors *t = &call->tensors;
    qkv_tensor *const w[QKV_WHICH_COUNT] = {&t->wq, &t->wk, &t->wv};
    qkv_tensor *const out[QKV_WHICH_COUNT] = {&t->q, &t->k, &t->v};
    qkv_status status = QKV_OK;
    qkv_project_tensors_init(t);
    t->x = qkv_tensor_bhsd(bench_normal(memory, (int64_t)rows(shape) * shape->d_model), 1,
                           shape->tokens, shape->d_model);
    for (int which = 0; which < QKV_WHICH_COUNT && status == QKV_OK; which++) {
        status = set_weights(w[which], memory, &call->params, shape, which);
        *out[which] = output(memory, shape, which);
    }
    return status;
}

static qkv_status run_call(const void *argument) {
    const struct call *call = argument;
    return qkv_project(&call->params, &call->tensors, &call->exec);
}

/* Few tokens leave reading the weights as the only work; they are in memory if they are much larger
 * than the last cache, the quarter of what no cache holds. */
static int from_memory(const struct shape *shape) {
    return rows(shape) <= 8 &&
           4.0 * shape->d_model * width(shape) >= (double)peak_beyond_caches() / 4;
}

static void set_inputs(struct bench_work *work, const struct call *call,
                       const struct shape *shape) {
    const qkv_tensor *const w[QKV_WHICH_COUNT] = {&call->tensors.wq, &call->tensors.wk,
                                                  &call->tensors.wv};
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        const int64_t columns = (int64_t)heads_of(shape, which) * shape->head_dim;
        work->inputs[which] = (struct peak_region){
            w[which]->data, (size_t)(columns * shape->d_model) * sizeof(float)};
    }
}

/* How to run the call, whose tensors are set. 0, or -1 with the benchmark skipped. */
static int prepare(gb_state *state, struct bench_memory *memory, struct call *call,
                   struct pool *pool, int threads, const struct shape *shape,
                   struct bench_work *work) {
    qkv_plan plan;
    qkv_status status = qkv_project_plan(&plan, &call->params, &bench_room.context);
    if (status != QKV_OK) {
        bench_fail(state, status);
        return -1;
    }
    *work = (struct bench_work){.call = run_call, .argument = call, .flops = flops(shape)};
    work->bytes = 4.0 * ((double)rows(shape) * (shape->d_model + width(shape)) +
                         shape->d_model * width(shape));
    if (threads == 1 && from_memory(shape))
        set_inputs(work, call, shape);
    return bench_exec(state, memory, &call->exec, &plan, pool, threads, work);
}

static void run(gb_state *state, void *user) {
    const struct shape *shape = user;
    struct bench_memory memory = {.count = 0};
    struct pool *pool = shape->threads > 1 ? pool_open(shape->threads) : NULL;
    struct call call;
    struct bench_work work, alone;
    set_params(&call.params, shape);
    qkv_status status = set_tensors(&call, &memory, shape);
    struct call call_alone = call;
    if (status != QKV_OK) {
        bench_fail(state, status);
    } else if (prepare(state, &memory, &call, pool, shape->threads, shape, &work) == 0 &&
               prepare(state, &memory, &call_alone, NULL, 1, shape, &alone) == 0) {
        work.alone = shape->threads > 1 ? &alone : NULL;
        bench_measure(state, &work);
    }
    pool_close(pool);
    bench_free(&memory);
}

void project_register(void) {
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        char name[BENCH_NAME];
        int n = shape->batch > 1 ? snprintf(name, sizeof(name), "b%d_", shape->batch) : 0;
        snprintf(name + n, sizeof(name) - (size_t)n, "m%d_k%d_n%.0f_%s", shape->tokens,
                 shape->d_model, width(shape), layout_names[shape->layout]);
        bench_register("project", name, shape->threads, flops(shape), run, shape);
    }
}
