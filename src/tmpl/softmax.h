/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax of a row that stands in memory, in three passes: masks and maximum (a chunk at a
 * time), exponentials and their sum, and the division by the sum.
 */
#ifndef QKV_TMPL_SOFTMAX_H
#define QKV_TMPL_SOFTMAX_H

#include "mask.h"
#include "row.h"

static float softmax_mask(float *out, const float *in, const struct qkv_score_row *row,
                          const struct qkv_score_rule *rule, int n) {
    const vf masked = vf_set1(-INFINITY);
    vf max = masked;
    for (int c = 0; c < n; c += VF_LANES) {
        vf x = keep_unmasked(load_upto(in + c, n - c), masked, row, rule, c, n);
        max = vf_max(x, max);
        store_upto(out + c, x, n - c);
    }
    return vf_hmax(max);
}

static void softmax_row(float *row, ptrdiff_t n, float max, float sink, float *lse) {
    const float top = sink > max ? sink : max;
    const vf base = vf_set1(top == -INFINITY ? 0.0f : top);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        store_upto(row + c, exp_from(load_upto(row + c, n - c), base), n - c);

    float sum = row_sum(row, 0, n);
    const int empty = max == -INFINITY && sum == 0.0f; /* its weights stay 0 beside any sink */
    if (sink != -INFINITY)
        sum += exp_of(sink - top);
    if (lse)
        *lse = empty ? sink : top + log_of(sum);

    const vf scale = vf_set1(empty ? 0.0f : 1.0f / sum);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        store_upto(row + c, vf_mul(load_upto(row + c, n - c), scale), n - c);
}

#endif
