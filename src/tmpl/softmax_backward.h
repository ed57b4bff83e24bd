/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of a row of softmax, a chunk at a time, by its Jacobian diag(a) - a a^T: two passes,
 * the weighted mean of the weights' gradient and what each weight makes of its distance to it. */
#ifndef QKV_TMPL_SOFTMAX_BACKWARD_H
#define QKV_TMPL_SOFTMAX_BACKWARD_H

#include "mask.h"
#include "row.h"

/* Does everything in a vector of columns count? Then it is full, too. */
static inline int all_count(const struct qkv_score_row *row, int c) {
    return !row->bias && !row->mask && c >= row->lo && c + VF_LANES <= row->hi;
}

/* weight * x, and 0 for a weight of zero. */
static inline vf times_weight(vf weight, vf x) {
    const vf zero = vf_set1(0.0f);
    return vf_select(vm_eq(weight, zero), zero, vf_mul(weight, x));
}

/* weight * (dw - mean) in the columns that count, 0 elsewhere. */
static inline vf weighted(const float *weight, const float *dw, vf mean,
                          const struct qkv_score_row *row, const struct qkv_score_rule *rule, int c,
                          int n) {
    if (all_count(row, c))
        return times_weight(vf_load(weight + c), vf_sub(vf_load(dw + c), mean));
    vf w = load_upto(weight + c, n - c), x = load_upto(dw + c, n - c);
    return keep_unmasked(times_weight(w, vf_sub(x, mean)), vf_set1(0.0f), row, rule, c, n);
}

/* Vectors go to two partial sums in turn, by the parity of their place in the chunk. */
static float weighted_sum(const float *weight, const float *dw, const struct qkv_score_row *row,
                          const struct qkv_score_rule *rule, int n) {
    const vf zero = vf_set1(0.0f);
    vf a = zero, b = zero;
    for (int c = row->lo / (2 * VF_LANES) * (2 * VF_LANES); c < row->hi; c += 2 * VF_LANES) {
        a = vf_add(a, weighted(weight, dw, zero, row, rule, c, n));
        if (c + VF_LANES < row->hi)
            b = vf_add(b, weighted(weight, dw, zero, row, rule, c + VF_LANES, n));
    }
    return vf_hsum(vf_add(a, b));
}

static void softmax_gradient(float *out, const float *weight, const float *dw, float mean,
                             const struct qkv_score_row *row, const struct qkv_score_rule *rule,
                             int n) {
    const vf zero = vf_set1(0.0f), base = vf_set1(mean);
    for (int c = 0; c < n; c += VF_LANES) {
        vf x = zero;
        if (c < row->hi && c + VF_LANES > row->lo)
            x = weighted(weight, dw, base, row, rule, c, n);
        store_upto(out + c, vf_add(x, zero), n - c);
    }
}

static float sink_share(float sink, float lse) {
    return exp_of(sink - lse);
}

#endif
