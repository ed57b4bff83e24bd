/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax stage, whose work is exponentials and memory. By custom five flops an element:
 * maximum, subtraction, exponential, sum, division. In place the rows are weights already from
 * the second call on, which costs the same. */
#include "bench.h"

static const char in_place[] = "inplace";

static const struct bench_shape shapes[] = {
    {1, 1, 1024, 1024, 0, 0, 1, NULL},
    {1, 1, 1024, 1024, 0, 0, 1, in_place},
    {1, 1, 1024, 1024, 0, 1, 1, NULL},
    {8, 8, 1024, 1024, 0, 0, 2, NULL},
};

static double elements(const struct bench_shape *shape) {
    return (double)shape->heads * shape->q_len * shape->kv_len;
}

static double flops(const struct bench_shape *shape) {
    return elements(shape) * (shape->causal ? 2.5 : 5.0);
}

static double bytes(const struct bench_shape *shape) {
    return 8.0 * elements(shape);
}

static void fill(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    const int64_t count = (int64_t)s->heads * s->q_len * s->kv_len;
    float *scores = bench_normal(memory, count);
    float *weights = s->variant == in_place ? scores : bench_zeros(memory, count);
    t->scores = qkv_tensor_bhsd(scores, s->heads, s->q_len, s->kv_len);
    t->weights = qkv_tensor_bhsd(weights, s->heads, s->q_len, s->kv_len);
}

static const struct bench_stage stage = {
    .plan = qkv_softmax_plan,
    .run = qkv_softmax,
    .flops = flops,
    .bytes = bytes,
    .fill = fill,
};

static void run(gb_state *state, void *user) {
    bench_stage_run(state, &stage, user, QKV_EXP_SLEEF_U10, bench_measure);
}

void softmax_register(void) {
    bench_stage_register("softmax", &stage, shapes, sizeof(shapes) / sizeof(shapes[0]), run);
}
