/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The losses of a row and their gradients. Sums are in double precision, by lanes and vectors taken
 * in turn, whether or not the gradient is wanted. Cross-entropy is softmax's three passes: maximum,
 * exponentials and their sum, the division; log(sum) is taken of the sum's two halves in single
 * precision, so that a loss near zero keeps its digits.
 */
#ifndef QKV_TMPL_LOSS_H
#define QKV_TMPL_LOSS_H

#include <math.h>

#include "row.h"

static double square(float *gradient, const float *p, const float *t, ptrdiff_t n, float factor) {
    const vf by = vf_set1(factor);
    vd sum = vd_zero(), other = sum;
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        const vf difference = vf_sub(load_upto(p + c, n - c), load_upto(t + c, n - c));
        const vd next = vd_add(other, vd_fold_squares(difference));
        other = sum;
        sum = next;
        if (gradient)
            store_upto(gradient + c, vf_mul(difference, by), n - c);
    }
    return vd_hsum(vd_add(sum, other));
}

/* NaN are passed over. */
static inline float largest(const float *x, ptrdiff_t n) {
    const vf none = vf_set1(-INFINITY);
    vf max = none;
    ptrdiff_t c = 0;
    for (; c + VF_LANES <= n; c += VF_LANES)
        max = vf_max(vf_load(x + c), max);
    float most = vf_hmax(max);
    for (; c < n; c++)
        most = x[c] > most ? x[c] : most;
    return most;
}

/* exp(x - base) of a row, to e or, without e, to nowhere; their sum. A tile at a time, since a call
 * of the exponential leaves no sum in the registers. */
static inline double exponentials(float *e, const float *x, ptrdiff_t n, float base) {
    float tile[QKV_KEY_BLOCK];
    vd sum = vd_zero(), other = sum;
    for (ptrdiff_t from = 0; from < n; from += QKV_KEY_BLOCK) {
        const ptrdiff_t m = n - from < QKV_KEY_BLOCK ? n - from : QKV_KEY_BLOCK;
        float *to = e ? e + from : tile;
        for (ptrdiff_t c = 0; c < m; c += VF_LANES)
            store_upto(to + c, exp_from(load_upto(x + from + c, m - c), vf_set1(base)), m - c);
        for (ptrdiff_t c = 0; c < m; c += VF_LANES) {
            const vd next = vd_add(other, vd_fold(load_upto(to + c, m - c)));
            other = sum;
            sum = next;
        }
    }
    return vd_hsum(vd_add(sum, other));
}

static inline double log_of_sum(double sum) {
    const float high = (float)sum;
    return (double)log_of(high) + (sum - (double)high) / (double)high;
}

static double cross_entropy(float *gradient, const float *x, ptrdiff_t n, int32_t label,
                            double counted) {
    const float max = largest(x, n), logit = x[label];
    const double sum = exponentials(gradient, x, n, max);
    if (gradient) {
        const double mass = sum * counted, others = sum - (double)gradient[label];
        const vf by = vf_set1((float)(1.0 / mass));
        for (ptrdiff_t c = 0; c < n; c += VF_LANES)
            store_upto(gradient + c, vf_mul(load_upto(gradient + c, n - c), by), n - c);
        gradient[label] = (float)(-others / mass);
    }
    return (double)max - (double)logit + log_of_sum(sum);
}

#endif
