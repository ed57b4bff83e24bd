/* SPDX-License-Identifier: Apache-2.0 */
/* What the AVX2 room puts into a table, and the variants for features beyond those that it needs.
 */
#include "cpu.h"
#include "kernels.h"

static const struct qkv_narrow_variant variants[] = {
    {QKV_CPU_BIT(QKV_CPU_AVXVNNI), QKV_STORED_I8, &qkv_avx2_vnni},
};

void qkv_avx2_init(struct qkv_table *table, uint64_t features) {
    table->project = &qkv_avx2_project;
    table->scores = &qkv_avx2_scores;
    table->softmax = &qkv_avx2_softmax;
    table->mix = &qkv_avx2_mix;
    table->attention = &qkv_avx2_attention;
    table->project_backward = &qkv_avx2_project_backward;
    table->scores_backward = &qkv_avx2_scores_backward;
    table->softmax_backward = &qkv_avx2_softmax_backward;
    table->mix_backward = &qkv_avx2_mix_backward;
    table->attention_backward = &qkv_avx2_attention_backward;
    table->loss = &qkv_avx2_loss;
    table->descent = &qkv_avx2_descent;
    table->cache = &qkv_avx2_cache;
    table->rotate = &qkv_avx2_rotate;
    table->decode = &qkv_avx2_decode;
    table->merge = &qkv_avx2_merge;
    qkv_bind_narrow(table, features, variants, sizeof variants / sizeof *variants);
}
