/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient descent (kernels.h says which), one pass over memory: what every array holds is loaded
 * once and stored once. The step itself is one fused multiply-add of the weight (in the scalar room
 * a multiplication and a subtraction). Any alignment, any n >= 0.
 */
#ifndef QKV_TMPL_DESCENT_H
#define QKV_TMPL_DESCENT_H

#include "row.h"

/* g + decay w: without decay g, even where w is infinite. */
static inline vf with_decay(vf g, vf w, float decay) {
    return decay != 0.0f ? vf_fma(vf_set1(decay), w, g) : g;
}

static inline vf scaled_gradient(const struct qkv_descend *d, ptrdiff_t i) {
    return vf_mul(load_upto(d->g + i, d->n - i), vf_set1(d->scale));
}

static inline void step_down(const struct qkv_descend *d, ptrdiff_t i, vf w, vf direction) {
    store_upto(d->w + i, vf_fma(vf_set1(-d->rate), direction, w), d->n - i);
}

static void descend_plain(const struct qkv_descend *d) {
    for (ptrdiff_t i = 0; i < d->n; i += VF_LANES) {
        const vf w = load_upto(d->w + i, d->n - i);
        step_down(d, i, w, with_decay(scaled_gradient(d, i), w, d->decay));
    }
}

/* keep * mean + g; at the first step g, whatever stands in the mean's memory. */
static inline vf moved_mean(const struct qkv_descend *d, const float *mean, float keep, vf g,
                            ptrdiff_t i) {
    return d->first ? g : vf_fma(vf_set1(keep), load_upto(mean + i, d->n - i), g);
}

static void descend_momentum(const struct qkv_descend *d) {
    for (ptrdiff_t i = 0; i < d->n; i += VF_LANES) {
        const vf w = load_upto(d->w + i, d->n - i);
        const vf g = with_decay(scaled_gradient(d, i), w, d->decay);
        const vf m = moved_mean(d, d->m, d->keep1, g, i);
        store_upto(d->m + i, m, d->n - i);
        step_down(d, i, w, m);
    }
}

static void descend_adamw(const struct qkv_descend *d) {
    const vf take1 = vf_set1(d->take1), take2 = vf_set1(d->take2);
    const vf root = vf_set1(d->root), epsilon = vf_set1(d->epsilon);
    for (ptrdiff_t i = 0; i < d->n; i += VF_LANES) {
        const vf w = load_upto(d->w + i, d->n - i), g = scaled_gradient(d, i);
        const vf m = moved_mean(d, d->m, d->keep1, vf_mul(take1, g), i);
        const vf v = moved_mean(d, d->v, d->keep2, vf_mul(vf_mul(take2, g), g), i);
        store_upto(d->m + i, m, d->n - i);
        store_upto(d->v + i, v, d->n - i);
        const vf direction = vf_div(m, vf_fma(vf_sqrt(v), root, epsilon));
        step_down(d, i, w, with_decay(direction, w, d->decay));
    }
}

/* Vectors go to two sums in turn, so that additions need not wait for each other. */
static double sum_squares(const float *x, ptrdiff_t n) {
    vd sum = vd_zero(), other = sum;
    for (ptrdiff_t i = 0; i < n; i += VF_LANES) {
        const vd next = vd_add(other, vd_fold_squares(load_upto(x + i, n - i)));
        other = sum;
        sum = next;
    }
    return vd_hsum(vd_add(sum, other));
}

#endif
