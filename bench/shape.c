/* SPDX-License-Identifier: Apache-2.0 */
/* Names and shapes of benchmarks: stage/dtype/room/shape. */
#include <stdio.h>

#include "bench.h"

void bench_name(char name[2 * BENCH_NAME], const char *stage, const char *type, const char *shape,
                int threads) {
    const size_t size = 2 * BENCH_NAME;
    int length = snprintf(name, size, "%s/%s/%s/%s", stage, type, bench_room.name, shape);
    if (threads > 1)
        snprintf(name + length, size - (size_t)length, "/threads:%d", threads);
}

void bench_register_typed(const char *stage, const char *type, const char *shape, int threads,
                          double flops, gb_function *function, const void *user) {
    char name[2 * BENCH_NAME];
    bench_name(name, stage, type, shape, threads);
    if (flops <= bench_room.longest)
        gb_register(name, function, (void *)(uintptr_t)user);
    else
        bench_room.left_out++;
}

void bench_register(const char *stage, const char *shape, int threads, double flops,
                    gb_function *function, const void *user) {
    bench_register_typed(stage, "f32", shape, threads, flops, function, user);
}

void bench_shape_name(char name[BENCH_NAME], const struct bench_shape *shape) {
    char kv_heads[16] = "";
    char dim[16] = "";
    if (shape->kv_heads != shape->heads)
        snprintf(kv_heads, sizeof(kv_heads), "_kvh%d", shape->kv_heads);
    if (shape->head_dim)
        snprintf(dim, sizeof(dim), "_d%d", shape->head_dim);
    snprintf(name, BENCH_NAME, "h%d%s_q%d_kv%d%s%s%s%s", shape->heads, kv_heads, shape->q_len,
             shape->kv_len, dim, shape->causal ? "_causal" : "", shape->variant ? "_" : "",
             shape->variant ? shape->variant : "");
}

double bench_shape_products(const struct bench_shape *shape) {
    double products = (double)shape->heads * shape->q_len * shape->kv_len * shape->head_dim;
    return shape->causal ? products / 2 : products;
}

void bench_shape_params(qkv_attention_params *params, const struct bench_shape *shape) {
    qkv_attention_params_init(params);
    params->batch = 1;
    params->q_heads = shape->heads;
    params->kv_heads = shape->kv_heads;
    params->q_len = shape->q_len;
    params->kv_len = shape->kv_len;
    params->head_dim = shape->head_dim ? shape->head_dim : 1;
    if (shape->causal)
        params->flags |= QKV_FLAG_CAUSAL;
}
