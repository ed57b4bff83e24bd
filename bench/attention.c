/* SPDX-License-Identifier: Apache-2.0 */
/* The fused stage: O from Q, K and V. 4 * q_len * kv_len * head_dim flops a head, half of it for
 * causal. Every shape with the default exponential and with the inlined polynomial that is the next
 * in accuracy, and with the two other tiers if they are asked for. */
#include "bench.h"

static const struct bench_shape shapes[] = {
    {8, 8, 128, 128, 64, 0, 1, NULL},
    {8, 8, 128, 128, 64, 1, 1, NULL},
    {8, 8, 128, 128, 128, 0, 1, NULL},
    {8, 8, 128, 128, 128, 1, 1, NULL},
    {8, 8, 256, 256, 64, 0, 1, NULL},
    {8, 8, 256, 256, 64, 1, 1, NULL},
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
    /* sentences in MiniLM */
    {12, 12, 16, 16, 32, 0, 1, NULL},
    {12, 12, 32, 32, 32, 0, 1, NULL},
    {12, 12, 64, 64, 32, 0, 1, NULL},
    /* the same lengths at another head_dim */
    {8, 8, 16, 16, 64, 0, 1, NULL},
    {8, 8, 32, 32, 64, 0, 1, NULL},
    /* head_dim and lengths that are not powers of two */
    {8, 8, 1024, 1024, 80, 0, 1, NULL},
    {8, 8, 1024, 1024, 96, 0, 1, NULL},
    {8, 8, 1024, 1024, 112, 0, 1, NULL},
    {8, 8, 1024, 1024, 256, 0, 1, NULL},
    {8, 8, 1000, 1000, 64, 0, 1, NULL},
    /* a prompt in a model with GQA, and the same without */
    {32, 8, 1024, 1024, 128, 1, 1, NULL},
    {32, 32, 1024, 1024, 128, 1, 1, NULL},
    /* one query against a cache, and the smallest call, which shows the fixed cost */
    {8, 8, 1, 4096, 64, 0, 1, NULL},
    {32, 8, 1, 4096, 128, 0, 1, NULL},
    {1, 1, 1, 1, 16, 0, 1, NULL},
    /* two threads */
    {1, 1, 1, 1, 16, 0, 2, NULL},
    {12, 12, 16, 16, 32, 0, 2, NULL},
    {12, 12, 32, 32, 32, 0, 2, NULL},
    {12, 12, 64, 64, 32, 0, 2, NULL},
    {8, 8, 128, 128, 64, 0, 2, NULL},
    {8, 8, 128, 128, 64, 1, 2, NULL},
    {1, 1, 512, 512, 64, 0, 2, NULL},
    {8, 8, 512, 512, 64, 0, 2, NULL},
    {8, 8, 512, 512, 64, 1, 2, NULL},
    {8, 8, 512, 512, 128, 0, 2, NULL},
    {8, 8, 512, 512, 128, 1, 2, NULL},
    {8, 8, 1024, 1024, 64, 0, 2, NULL},
    {8, 8, 1024, 1024, 64, 1, 2, NULL},
    {8, 8, 1024, 1024, 128, 0, 2, NULL},
    {8, 8, 1024, 1024, 128, 1, 2, NULL},
    {8, 8, 2048, 2048, 64, 0, 2, NULL},
    {8, 8, 2048, 2048, 128, 1, 2, NULL},
    {32, 8, 1024, 1024, 128, 1, 2, NULL},
    {32, 8, 1, 4096, 128, 0, 2, NULL},
};

enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

/* By qkv_exp; the others are measured if all tiers are asked for. */
static const struct tier {
    const char *name;
    int always;
} tiers[QKV_EXP_COUNT] = {
    [QKV_EXP_SLEEF_U10] = {"attention/exp:sleef_u10", 1},
    [QKV_EXP_SLEEF_U35] = {"attention/exp:sleef_u35", 0},
    [QKV_EXP_POLY5] = {"attention/exp:poly5", 1},
    [QKV_EXP_POLY4] = {"attention/exp:poly4", 0},
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
    .plan = qkv_attention_plan,
    .run = qkv_attention,
    .flops = flops,
    .bytes = bytes,
    .fill = fill,
};

struct row {
    const struct bench_shape *shape;
    int exp;
};

static void run(gb_state *state, void *user) {
    const struct row *row = user;
    bench_stage_run(state, &bench_attention, row->shape, row->exp, bench_measure);
}

void attention_register(void) {
    static struct row rows[QKV_EXP_COUNT][SHAPES];
    for (int exp = 0; exp < QKV_EXP_COUNT; exp++) {
        for (int i = 0; i < SHAPES && (tiers[exp].always || bench_room.all_tiers); i++) {
            char name[BENCH_NAME];
            rows[exp][i] = (struct row){&shapes[i], exp};
            bench_shape_name(name, &shapes[i]);
            bench_register(tiers[exp].name, name, shapes[i].threads, flops(&shapes[i]), run,
                           &rows[exp][i]);
        }
    }
}
