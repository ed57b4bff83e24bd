/* SPDX-License-Identifier: Apache-2.0 */
/* What the AVX2 room puts into a table. The features beyond those that the room needs would
 * choose between variants here; there are none yet. */
#include "kernels.h"

void qkv_avx2_init(struct qkv_table *table, uint64_t features) {
    (void)features;
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
}
