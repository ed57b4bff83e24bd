/* SPDX-License-Identifier: Apache-2.0 */
/* The fused stage: O from Q, K and V. 4 * q_len * kv_len * head_dim flops a head, half of it for
 * causal. */
#include "bench.h"

static const struct bench_shape shapes[] = {
    {8, 8, 128, 128, 64, 0, 1, NULL},
    {8, 8, 128, 128, 64, 1, 1, NULL},
    {8, 8, 128, 128, 128, 0, 1, NULL},
    {8, 8, 128, 128, 128, 1, 1, NULL},
    {8, 8, 512, 512, 64, 0, 1, NULL},
    {8, 8, 512, 512, 64, 1, 1, NULL},
    {8, 8, 512, 512, 128, 0, 1, NULL},
    {8, 8, 512, 512, 128, 1, 1, NULL},
    {8, 8, 1024, 1024, 64, 0, 1, NULL},
    {8, 8, 1024, 1024, 64, 1, 1, NULL},
    {8, 8, 1024, 1024, 128, 0, 1, NULL},
    {8, 8, 1024, 1024, 128, 1, 1, NULL},
    {8, 8, 2048, 2048, 64, 0, 1, NULL},
    {8, 8, 2048, 2048, 64, 1, 1, NULL},
    {8, 8, 2048, 2048, 128, 0, 1, NULL},
    {8, 8, 2048, 2048, 128, 1, 1, NULL},
    {8, 8, 4096, 4096, 64, 0, 1, NULL},
    {8, 8, 4096, 4096, 64, 1, 1, NULL},
    {8, 8, 4096, 4096, 128, 0, 1, NULL},
    {8, 8, 4096, 4096, 128, 1, 1, NULL},
    /* a sentence in MiniLM */
    {12, 12, 64, 64, 32, 0, 1, NULL},
    /* head_dim and lengths that are not powers of two */
    {8, 8, 1024, 1024, 80, 0, 1, NULL},
    {8, 8, 1024, 1024, 96, 0, 1, NULL},
    {8, 8, 1024, 1024, 112, 0, 1, NULL},
    {8, 8, 1024, 1024, 256, 0, 1, NULL},
    {8, 8, 1000, 1000, 64, 0, 1, NULL},
    /* a prompt in a model with GQA */
    {32, 8, 1024, 1024, 128, 1, 1, NULL},
    /* one query against a cache, and the smallest call, which shows the fixed cost */
    {8, 8, 1, 4096, 64, 0, 1, NULL},
    {32, 8, 1, 4096, 128, 0, 1, NULL},
    {1, 1, 1, 1, 16, 0, 1, NULL},
    /* two threads */
    {8, 8, 1024, 1024, 64, 0, 2, NULL},
    {8, 8, 1024, 1024, 128, 1, 2, NULL},
    {32, 8, 1, 4096, 128, 0, 2, NULL},
};

static double flops(const struct bench_shape *shape) {
    return 4.0 * bench_shape_products(shape);
}

static double bytes(const struct bench_shape *s) {
    return 8.0 * s->head_dim * ((double)s->heads * s->q_len + (double)s->kv_heads * s->kv_len);
}

static void fill(qkv_tensors *t, struct bench_memory *memory, const struct bench_shape *s) {
    const int64_t q_count = (int64_t)s->heads * s->q_len * s->head_dim;
    const int64_t kv_count = (int64_t)s->kv_heads * s->kv_len * s->head_dim;
    t->q = qkv_tensor_bhsd(bench_normal(memory, q_count), s->heads, s->q_len, s->head_dim);
    t->k = qkv_tensor_bhsd(bench_normal(memory, kv_count), s->kv_heads, s->kv_len, s->head_dim);
    t->v = qkv_tensor_bhsd(bench_normal(memory, kv_count), s->kv_heads, s->kv_len, s->head_dim);
    t->out = qkv_tensor_bhsd(bench_zeros(memory, q_count), s->heads, s->q_len, s->head_dim);
}

const struct bench_stage bench_attention = {
    "attention", qkv_attention_plan, qkv_attention, flops, bytes, fill};

static void run(gb_state *state, void *user) {
    bench_stage_run(state, &bench_attention, user);
}

void attention_register(void) {
    bench_stage_register(&bench_attention, shapes, sizeof(shapes) / sizeof(shapes[0]), run);
}
