/* SPDX-License-Identifier: Apache-2.0 */
/* What the plain C room puts into a table. The features beyond those that the room needs would
 * choose between variants here; there are none yet. */
#include "kernels.h"

void qkv_scalar_init(struct qkv_table *table, uint64_t features) {
    (void)features;
    table->project = &qkv_scalar_project;
    table->scores = &qkv_scalar_scores;
    table->softmax = &qkv_scalar_softmax;
    table->mix = &qkv_scalar_mix;
    table->attention = &qkv_scalar_attention;
    table->project_backward = &qkv_scalar_project_backward;
    table->scores_backward = &qkv_scalar_scores_backward;
    table->softmax_backward = &qkv_scalar_softmax_backward;
    table->mix_backward = &qkv_scalar_mix_backward;
    table->attention_backward = &qkv_scalar_attention_backward;
    table->loss = &qkv_scalar_loss;
    table->descent = &qkv_scalar_descent;
    table->cache = &qkv_scalar_cache;
    table->rotate = &qkv_scalar_rotate;
    table->decode = &qkv_scalar_decode;
    table->merge = &qkv_scalar_merge;
}
