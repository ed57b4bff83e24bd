/* SPDX-License-Identifier: Apache-2.0 */
/* The derivative of the soft-cap, 1 - tanh^2 x = 4 e / (1 + e)^2 with e = exp(-2 |x|): as exact
 * where tanh is near 1 as elsewhere, and cheaper than tanh. */
#ifndef QKV_TMPL_SOFT_CAP_H
#define QKV_TMPL_SOFT_CAP_H

#include "row.h"

static inline vf soft_cap_slope(vf x) {
    const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
    vf e = exp_from(vf_sub(zero, vf_mul(vf_abs(x), vf_set1(2.0f))), zero);
    vf sum = vf_add(one, e);
    return vf_div(vf_mul(vf_set1(4.0f), e), vf_mul(sum, sum));
}

#endif
