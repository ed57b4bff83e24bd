/* SPDX-License-Identifier: Apache-2.0 */
/* What the NEON room puts into a table, and the variants for features beyond those that it needs.
 */
#include "cpu.h"
#include "kernels.h"

static const struct qkv_narrow_variant variants[] = {
    {QKV_CPU_BIT(QKV_CPU_FP16), QKV_STORED_F16, &qkv_neon_fp16},
    {QKV_CPU_BIT(QKV_CPU_DOTPROD), QKV_STORED_I8, &qkv_neon_dotprod},
    {QKV_CPU_BIT(QKV_CPU_I8MM) | QKV_CPU_BIT(QKV_CPU_DOTPROD), QKV_STORED_I8, &qkv_neon_i8mm},
    {QKV_CPU_BIT(QKV_CPU_BF16), QKV_STORED_BF16, &qkv_neon_bf16},
};

void qkv_neon_init(struct qkv_table *table, uint64_t features) {
    table->project = &qkv_neon_project;
    table->scores = &qkv_neon_scores;
    table->softmax = &qkv_neon_softmax;
    table->mix = &qkv_neon_mix;
    table->attention = &qkv_neon_attention;
    table->project_backward = &qkv_neon_project_backward;
    table->scores_backward = &qkv_neon_scores_backward;
    table->softmax_backward = &qkv_neon_softmax_backward;
    table->mix_backward = &qkv_neon_mix_backward;
    table->attention_backward = &qkv_neon_attention_backward;
    table->loss = &qkv_neon_loss;
    table->descent = &qkv_neon_descent;
    table->cache = &qkv_neon_cache;
    table->rotate = &qkv_neon_rotate;
    table->decode = &qkv_neon_decode;
    table->merge = &qkv_neon_merge;
    qkv_bind_narrow(table, features, variants, sizeof variants / sizeof *variants);
}
