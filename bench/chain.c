/* SPDX-License-Identifier: Apache-2.0 */
/* The backward stages of mix, softmax and scores, one by one. mix_backward and scores_backward are
 * two products each: 4 * q_len * kv_len * head_dim flops a head. softmax_backward reads two arrays
 * and writes one; by custom four flops an element, a product for the sum, a difference and a
 * product after it. */
#include "bench.h"

static const struct bench_shape product_shapes[] = {
    {8, 8, 512, 512, 64, 0, 1, NULL},    {8, 8, 512, 512, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 64, 0, 1, NULL},  {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL}, {8, 8, 1024, 1024, 64, 0, 2, NULL},
};

static const struct bench_shape row_shapes[] = {
    {8, 8, 512, 512, 0, 0, 1, NULL},
    {1, 1, 1024, 1024, 0, 0, 1, NULL},
    {1, 1, 1024, 1024, 0, 1, 1, NULL},
    {8, 8, 1024, 1024, 0, 0, 2, NULL},
};

static int64_t pairs(const struct bench_shape *s) {
    return (int64_t)s->heads * s->q_len * s->kv_len;
}

static int64_t query_numbers(const struct bench_shape *s) {
    return (int64_t)s->heads * s->q_len * s->head_dim;
}

static int64_t key_numbers(const struct bench_shape *s) {
    return (int64_t)s->kv_heads * s->kv_len * s->head_dim;
}

static qkv_tensor pair_tensor(const float *data, const struct bench_shape *s) {
    return qkv_tensor_bhsd(data, s->heads, s->q_len, s->kv_len);
}

static qkv_tensor query_tensor(const float *data, const struct bench_shape *s) {
    return qkv_tensor_bhsd(data, s->heads, s->q_len, s->head_dim);
}

static qkv_tensor key_tensor(const float *data, const struct bench_shape *s) {
    return qkv_tensor_bhsd(data, s->kv_heads, s->kv_len, s->head_dim);
}

static double product_flops(const struct bench_shape *shape) {
    return 4.0 * bench_shape_products(shape);
}

static double row_flops(const struct bench_shape *shape) {
    return (double)pairs(shape) * (shape->causal ? 2.0 : 4.0);
}

static double row_bytes(const struct bench_shape *shape) {
    return 12.0 * (double)pairs(shape);
}

/* ---- mix_backward: weights, v and dO to dA and dV ---------------------------------------- */

static double mix_bytes(const struct bench_shape *s) {
    return 4.0 * (2.0 * (double)pairs(s) + (double)query_numbers(s) + 2.0 * (double)key_numbers(s));
}

static void fill_mix(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    t->weights = pair_tensor(bench_normal(memory, pairs(s)), s);
    t->v = key_tensor(bench_normal(memory, key_numbers(s)), s);
}

static void fill_mix_gradients(qkv_gradients *g, struct bench_memory *memory,
                               const struct bench_shape *s) {
    g->out = query_tensor(bench_normal(memory, query_numbers(s)), s);
    g->weights = pair_tensor(bench_zeros(memory, pairs(s)), s);
    g->v = key_tensor(bench_zeros(memory, key_numbers(s)), s);
}

static const struct bench_stage mix = {
    .plan = qkv_mix_backward_plan,
    .run_backward = qkv_mix_backward,
    .flops = product_flops,
    .bytes = mix_bytes,
    .fill = fill_mix,
    .fill_gradients = fill_mix_gradients,
};

static void run_mix(gb_state *state, void *user) {
    bench_stage_run(state, &mix, user, QKV_EXP_SLEEF_U10, bench_measure);
}

/* ---- softmax_backward: weights and dA to dS ---------------------------------------------- */

static void fill_softmax(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    t->weights = pair_tensor(bench_normal(memory, pairs(s)), s);
}

static void fill_softmax_gradients(qkv_gradients *g, struct bench_memory *memory,
                                   const struct bench_shape *s) {
    g->weights = pair_tensor(bench_normal(memory, pairs(s)), s);
    g->scores = pair_tensor(bench_zeros(memory, pairs(s)), s);
}

static const struct bench_stage softmax = {
    .plan = qkv_softmax_backward_plan,
    .run_backward = qkv_softmax_backward,
    .flops = row_flops,
    .bytes = row_bytes,
    .fill = fill_softmax,
    .fill_gradients = fill_softmax_gradients,
};

static void run_softmax(gb_state *state, void *user) {
    bench_stage_run(state, &softmax, user, QKV_EXP_SLEEF_U10, bench_measure);
}

/* ---- scores_backward: q, k and dS to dQ and dK ------------------------------------------- */

static double scores_bytes(const struct bench_shape *s) {
    return 4.0 * ((double)pairs(s) + 2.0 * (double)query_numbers(s) + 2.0 * (double)key_numbers(s));
}

static void fill_scores(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    t->q = query_tensor(bench_normal(memory, query_numbers(s)), s);
    t->k = key_tensor(bench_normal(memory, key_numbers(s)), s);
}

static void fill_scores_gradients(qkv_gradients *g, struct bench_memory *memory,
                                  const struct bench_shape *s) {
    g->scores = pair_tensor(bench_normal(memory, pairs(s)), s);
    g->q = query_tensor(bench_zeros(memory, query_numbers(s)), s);
    g->k = key_tensor(bench_zeros(memory, key_numbers(s)), s);
}

static const struct bench_stage scores = {
    .plan = qkv_scores_backward_plan,
    .run_backward = qkv_scores_backward,
    .flops = product_flops,
    .bytes = scores_bytes,
    .fill = fill_scores,
    .fill_gradients = fill_scores_gradients,
};

static void run_scores(gb_state *state, void *user) {
    bench_stage_run(state, &scores, user, QKV_EXP_SLEEF_U10, bench_measure);
}

void chain_register(void) {
    const size_t products = sizeof(product_shapes) / sizeof(product_shapes[0]);
    const size_t rows = sizeof(row_shapes) / sizeof(row_shapes[0]);
    bench_stage_register("mix_backward", &mix, product_shapes, products, run_mix);
    bench_stage_register("softmax_backward", &softmax, row_shapes, rows, run_softmax);
    bench_stage_register("scores_backward", &scores, product_shapes, products, run_scores);
}
