/* SPDX-License-Identifier: Apache-2.0 */
/* What the NEON room puts into a table. The features beyond those that the room needs would
 * choose between variants here; there are none yet. */
#include "kernels.h"

void qkv_neon_init(struct qkv_table *table, uint64_t features) {
    (void)features;
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
}
