/* SPDX-License-Identifier: Apache-2.0 */
/* What the AVX-512 room puts into a table, and the variants for features beyond those that it
 * needs. */
#include "cpu.h"
#include "kernels.h"

static const struct qkv_narrow_variant variants[] = {
    {QKV_CPU_BIT(QKV_CPU_AVX512VNNI), QKV_STORED_I8, &qkv_avx512_vnni},
    {QKV_CPU_BIT(QKV_CPU_AVX512BF16), QKV_STORED_BF16, &qkv_avx512_bf16},
};

void qkv_avx512_init(struct qkv_table *table, uint64_t features) {
    table->project = &qkv_avx512_project;
    table->scores = &qkv_avx512_scores;
    table->softmax = &qkv_avx512_softmax;
    table->mix = &qkv_avx512_mix;
    table->attention = &qkv_avx512_attention;
    table->project_backward = &qkv_avx512_project_backward;
    table->scores_backward = &qkv_avx512_scores_backward;
    table->softmax_backward = &qkv_avx512_softmax_backward;
    table->mix_backward = &qkv_avx512_mix_backward;
    table->attention_backward = &qkv_avx512_attention_backward;
    table->loss = &qkv_avx512_loss;
    table->descent = &qkv_avx512_descent;
    table->cache = &qkv_avx512_cache;
    table->rotate = &qkv_avx512_rotate;
    table->decode = &qkv_avx512_decode;
    table->merge = &qkv_avx512_merge;
    qkv_bind_narrow(table, features, variants, sizeof variants / sizeof *variants);
}
