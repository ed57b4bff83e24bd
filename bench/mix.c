/* SPDX-License-Identifier: Apache-2.0 */
/* The mix stage: O = A V, with weights as softmax leaves them: none is zero. 2 * q_len * kv_len
 * * head_dim flops a head. */
#include <math.h>

#include "bench.h"

static const struct bench_shape shapes[] = {
    {8, 8, 1024, 1024, 64, 0, 1, NULL},  {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL}, {8, 8, 1024, 1024, 128, 1, 1, NULL},
    {8, 8, 1024, 1024, 64, 0, 2, NULL},
};

/* exp(x) / kv_len of normal numbers: positive, of the size of weights. */
static float *weights(struct bench_memory *memory, int64_t count, int kv_len) {
    float *w = bench_normal(memory, count);
    for (int64_t i = 0; w && i < count; i++)
        w[i] = expf(w[i]) / (float)kv_len;
    return w;
}

static double flops(const struct bench_shape *shape) {
    return 2.0 * bench_shape_products(shape);
}

static double bytes(const struct bench_shape *s) {
    return 4.0 * s->heads *
           ((double)s->q_len * s->kv_len + (double)s->kv_len * s->head_dim +
            (double)s->q_len * s->head_dim);
}

static void fill(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    const int64_t w_count = (int64_t)s->heads * s->q_len * s->kv_len;
    const int64_t v_count = (int64_t)s->kv_heads * s->kv_len * s->head_dim;
    const int64_t o_count = (int64_t)s->heads * s->q_len * s->head_dim;
    float *w = weights(memory, w_count, s->kv_len);
    t->weights = qkv_tensor_bhsd(w, s->heads, s->q_len, s->kv_len);
    t->v = qkv_tensor_bhsd(bench_normal(memory, v_count), s->kv_heads, s->kv_len, s->head_dim);
    t->out = qkv_tensor_bhsd(bench_zeros(memory, o_count), s->heads, s->q_len, s->head_dim);
}

static const struct bench_stage stage = {
    .plan = qkv_mix_plan,
    .run = qkv_mix,
    .flops = flops,
    .bytes = bytes,
    .fill = fill,
};

static void run(gb_state *state, void *user) {
    bench_stage_run(state, &stage, user, QKV_EXP_SLEEF_U10, bench_measure);
}

void mix_register(void) {
    bench_stage_register("mix", &stage, shapes, sizeof(shapes) / sizeof(shapes[0]), run);
}
