/* SPDX-License-Identifier: Apache-2.0 */
/* The scores stage: S = scale * Q K^T. 2 * q_len * kv_len * head_dim flops a head. */
#include "bench.h"

static const struct bench_shape shapes[] = {
    {8, 8, 1024, 1024, 64, 0, 1, NULL},  {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL}, {8, 8, 1024, 1024, 128, 1, 1, NULL},
    {8, 8, 1024, 1024, 64, 0, 2, NULL},
};

static double flops(const struct bench_shape *shape) {
    return 2.0 * bench_shape_products(shape);
}

static double bytes(const struct bench_shape *s) {
    return 4.0 * s->heads *
           ((double)s->q_len * s->head_dim + (double)s->kv_len * s->head_dim +
            (double)s->q_len * s->kv_len);
}

static void fill(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    const int64_t q_count = (int64_t)s->heads * s->q_len * s->head_dim;
    const int64_t k_count = (int64_t)s->kv_heads * s->kv_len * s->head_dim;
    const int64_t s_count = (int64_t)s->heads * s->q_len * s->kv_len;
    t->q = qkv_tensor_bhsd(bench_normal(memory, q_count), s->heads, s->q_len, s->head_dim);
    t->k = qkv_tensor_bhsd(bench_normal(memory, k_count), s->kv_heads, s->kv_len, s->head_dim);
    t->scores = qkv_tensor_bhsd(bench_zeros(memory, s_count), s->heads, s->q_len, s->kv_len);
}

static const struct bench_stage stage = {
    .plan = qkv_scores_plan,
    .run = qkv_scores,
    .flops = flops,
    .bytes = bytes,
    .fill = fill,
};

static void run(gb_state *state, void *user) {
    bench_stage_run(state, &stage, user, QKV_EXP_SLEEF_U10, bench_measure);
}

void scores_register(void) {
    bench_stage_register("scores", &stage, shapes, sizeof(shapes) / sizeof(shapes[0]), run);
}
