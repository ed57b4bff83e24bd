/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of floats as integers times a scale: with m the larger of max |x| and steps * 2^-126, the
 * scale is m / steps and x becomes the integer nearest to x * (steps / m). That m keeps both
 * quotients normal; |x * (steps / m)| is below steps + 0.5 for every x of the row, so that nothing
 * needs clamping.
 */
#ifndef QKV_TMPL_QUANTISE_H
#define QKV_TMPL_QUANTISE_H

#include <float.h>
#include <math.h>

#include "row.h"

/* A vector of a row from column c on, zeros beyond its n numbers. */
static inline vf row_at(const float *row, ptrdiff_t c, ptrdiff_t n) {
    return c < n ? load_upto(row + c, n - c) : vf_set1(0.0f);
}

/* Sums of products with zero: NaN if any factor was infinite or NaN. */
static inline vf look_at(vf x, vf sum) {
    return vf_fma(x, vf_set1(0.0f), sum);
}

static inline int any_nan(vf x) {
    const vf zero = vf_set1(0.0f), one = vf_set1(1.0f);
    return vm_any(vm_lt(zero, vf_select(vm_eq(x, x), zero, one)));
}

/* A row's scale. Returns what its numbers are multiplied by: 0 for one that has nothing to store.
 * Two sums and two maxima: neither depends on the order, and one of each would wait for itself. */
static inline float scale_row(float *scale, const float *row, ptrdiff_t n, const float steps) {
    vf most = vf_set1(0.0f), sum = most, other_most = most, other = most;
    for (ptrdiff_t c = 0; c < n; c += 2 * VF_LANES) {
        const vf x = row_at(row, c, n), y = row_at(row, c + VF_LANES, n);
        most = vf_max(vf_abs(x), most);
        other_most = vf_max(vf_abs(y), other_most);
        sum = look_at(x, sum);
        other = look_at(y, other);
    }
    const float max = vf_hmax(vf_max(most, other_most));
    const float least = steps * FLT_MIN, m = max > least ? max : least;
    if (any_nan(vf_add(sum, other))) {
        *scale = NAN;
        return 0.0f;
    }
    *scale = max > 0.0f ? m / steps : 0.0f;
    return steps / m;
}

/* NaN and infinities, whose product with 0 is NaN, become 0. */
static inline vf quantised(vf x, vf factor) {
    const vf q = vf_mul(x, factor);
    return vf_round(vf_select(vm_eq(q, q), q, vf_set1(0.0f)));
}

#endif
