/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of the fused stage. attention_backward: dQ, dK and dV from a forward call that was made
 * before, 10 * q_len * kv_len * head_dim flops a head, half of it for causal; with the default
 * exponential and with the inlined polynomial that is next in accuracy. learning: the forward call,
 * which leaves the LSE, and the backward call, as in every step of a training run, 14 instead
 * of 10. */
#include "bench.h"

static const struct bench_shape alone_shapes[] = {
    {8, 8, 1024, 1024, 64, 0, 1, NULL},  {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL}, {8, 8, 1024, 1024, 128, 1, 1, NULL},
    {8, 8, 2048, 2048, 64, 0, 1, NULL},  {8, 8, 2048, 2048, 64, 1, 1, NULL},
    {8, 8, 2048, 2048, 128, 0, 1, NULL}, {8, 8, 2048, 2048, 128, 1, 1, NULL},
    {8, 8, 4096, 4096, 64, 0, 1, NULL},  {8, 8, 4096, 4096, 64, 1, 1, NULL},
    {8, 8, 4096, 4096, 128, 0, 1, NULL}, {8, 8, 4096, 4096, 128, 1, 1, NULL},
};

/* Two threads, also with nothing but keys to share out. */
static const struct bench_shape shared_shapes[] = {
    {8, 8, 1024, 1024, 64, 0, 2, NULL},  {8, 8, 1024, 1024, 64, 1, 2, NULL},
    {8, 8, 1024, 1024, 128, 0, 2, NULL}, {8, 8, 1024, 1024, 128, 1, 2, NULL},
    {1, 1, 1024, 1024, 64, 0, 2, NULL},  {1, 1, 1024, 1024, 128, 0, 2, NULL},
    {1, 1, 4096, 4096, 64, 0, 2, NULL},  {1, 1, 4096, 4096, 128, 0, 2, NULL},
};

static const struct bench_shape learning_shapes[] = {
    /* sentences in MiniLM, and short calls */
    {12, 12, 64, 64, 32, 0, 1, NULL},
    {8, 8, 128, 128, 64, 0, 1, NULL},
    {8, 8, 128, 128, 64, 1, 1, NULL},
    {8, 8, 512, 512, 64, 0, 1, NULL},
    {8, 8, 512, 512, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 64, 0, 1, NULL},
    {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL},
    {8, 8, 1024, 1024, 128, 1, 1, NULL},
    {32, 8, 512, 512, 128, 1, 1, NULL},
    /* two threads */
    {12, 12, 64, 64, 32, 0, 2, NULL},
    {8, 8, 512, 512, 64, 0, 2, NULL},
    {8, 8, 1024, 1024, 64, 0, 2, NULL},
    {8, 8, 1024, 1024, 128, 1, 2, NULL},
};

#define COUNT(list) ((int)(sizeof(list) / sizeof((list)[0])))

static const struct family {
    const char *name;
    int exp;
    int learns; /* the forward call counts too */
    const struct bench_shape *shapes;
    int count;
} families[] = {
    {"attention_backward/exp:sleef_u10", QKV_EXP_SLEEF_U10, 0, alone_shapes, COUNT(alone_shapes)},
    {"attention_backward/exp:poly5", QKV_EXP_POLY5, 0, alone_shapes, COUNT(alone_shapes)},
    {"attention_backward/exp:sleef_u10", QKV_EXP_SLEEF_U10, 0, shared_shapes, COUNT(shared_shapes)},
    {"learning", QKV_EXP_SLEEF_U10, 1, learning_shapes, COUNT(learning_shapes)},
};

enum { ROWS = 2 * COUNT(alone_shapes) + COUNT(shared_shapes) + COUNT(learning_shapes) };

struct row {
    const struct family *family;
    const struct bench_shape *shape;
};

struct call {
    qkv_attention_params params;
    qkv_tensors tensors;
    qkv_gradients gradients;
    qkv_exec forward, backward;
};

static double flops(const struct row *row) {
    return (row->family->learns ? 14.0 : 10.0) * bench_shape_products(row->shape);
}

/* Backward: Q, O, dO and dQ; K, V, dK and dV. The forward call has Q and O, K and V once more. */
static double bytes(const struct row *row) {
    const struct bench_shape *s = row->shape;
    const double numbers =
        s->head_dim * ((double)s->heads * s->q_len + (double)s->kv_heads * s->kv_len);
    const double rows = (double)s->heads * s->q_len;
    return row->family->learns ? 24.0 * numbers + 8.0 * rows : 16.0 * numbers + 4.0 * rows;
}

static void fill(struct call *call, struct bench_memory *memory, const struct bench_shape *s) {
    const int64_t q_count = (int64_t)s->heads * s->q_len * s->head_dim;
    const int64_t kv_count = (int64_t)s->kv_heads * s->kv_len * s->head_dim;
    qkv_tensor *const queries[] = {&call->tensors.q, &call->gradients.out, &call->tensors.out,
                                   &call->gradients.q};
    qkv_tensor *const keys[] = {&call->tensors.k, &call->tensors.v, &call->gradients.k,
                                &call->gradients.v};
    qkv_tensors_init(&call->tensors);
    qkv_gradients_init(&call->gradients);
    for (int i = 0; i < 4; i++) {
        *queries[i] =
            qkv_tensor_bhsd(bench_normal(memory, q_count), s->heads, s->q_len, s->head_dim);
        *keys[i] =
            qkv_tensor_bhsd(bench_normal(memory, kv_count), s->kv_heads, s->kv_len, s->head_dim);
    }
    call->tensors.lse =
        qkv_tensor_bhsd(bench_zeros(memory, (int64_t)s->heads * s->q_len), s->heads, s->q_len, 1);
}

static qkv_status run_forward(const struct call *call) {
    return qkv_attention(&call->params, &call->tensors, &call->forward);
}

static qkv_status run_backward(const void *argument) {
    const struct call *call = argument;
    return qkv_attention_backward(&call->params, &call->tensors, &call->gradients, &call->backward);
}

static qkv_status run_both(const void *argument) {
    const qkv_status status = run_forward(argument);
    return status == QKV_OK ? run_backward(argument) : status;
}

/* How to run the call, whose tensors are set; its forward part is run once. The workspace that is
 * reported is the backward call's. */
static int prepare(gb_state *state, struct bench_memory *memory, void *argument, struct pool *pool,
                   int threads, const void *shape, struct bench_work *work) {
    struct call *call = argument;
    const struct row *row = shape;
    qkv_plan forward, backward;
    qkv_status status = qkv_attention_plan(&forward, &call->params, &bench_room.context);
    if (status == QKV_OK)
        status = qkv_attention_backward_plan(&backward, &call->params, &bench_room.context);
    if (status == QKV_OK) {
        *work = (struct bench_work){.call = row->family->learns ? run_both : run_backward,
                                    .argument = call,
                                    .flops = flops(row),
                                    .bytes = bytes(row)};
        if (bench_exec(state, memory, &call->forward, &forward, pool, threads, work) ||
            bench_exec(state, memory, &call->backward, &backward, pool, threads, work))
            return -1;
        status = run_forward(call);
    }
    if (status != QKV_OK)
        bench_fail(state, status);
    return status == QKV_OK ? 0 : -1;
}

static void run(gb_state *state, void *user) {
    const struct row *row = user;
    struct bench_memory memory = {.count = 0};
    struct call call;
    bench_shape_params(&call.params, row->shape);
    call.params.exp = row->family->exp;
    fill(&call, &memory, row->shape);
    struct call call_alone = call;
    bench_run_threads(state, &memory, prepare, row, row->shape->threads, &call, &call_alone);
}

void learning_register(void) {
    static struct row rows[ROWS];
    struct row *row = rows;
    for (int f = 0; f < COUNT(families); f++) {
        for (int i = 0; i < families[f].count; i++, row++) {
            char name[BENCH_NAME];
            *row = (struct row){&families[f], &families[f].shapes[i]};
            bench_shape_name(name, row->shape);
            bench_register(families[f].name, name, row->shape->threads, flops(row), run, row);
        }
    }
}
