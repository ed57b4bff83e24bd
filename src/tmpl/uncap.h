/* SPDX-License-Identifier: Apache-2.0 */
/* The derivative of the soft-cap, 1 - tanh^2 x = 4 e / (1 + e)^2 with e = exp(-2 |x|): as exact
 * where tanh is near 1 as elsewhere, and cheaper than tanh. */
#ifndef QKV_TMPL_UNCAP_H
#define QKV_TMPL_UNCAP_H

#include "row.h"

static inline vf soft_cap_slope(vf x) {
    const vf one = vf_set1(1.0f), zero = vf_set1(0.0f);
    vf e = exp_from(vf_sub(zero, vf_mul(vf_abs(x), vf_set1(2.0f))), zero);
    vf sum = vf_add(one, e);
    return vf_div(vf_mul(vf_set1(4.0f), e), vf_mul(sum, sum));
}

static void uncap(float *x, const float *s, const struct qkv_score_rule *rule, int n) {
    const vf scale = vf_set1(rule->scale), inverse = vf_set1(1.0f / rule->softcap);
    const vf skip = vf_set1(-0.0f), zero = vf_set1(0.0f);
    for (int c = 0; c < n; c += VF_LANES) {
        vf before = vf_load(x + c);
        vf slope = soft_cap_slope(vf_mul(vf_mul(vf_load(s + c), scale), inverse));
        vf after = vf_select(vm_eq(before, zero), skip, vf_mul(before, slope));
        vf_store(x + c, vf_select(vm_eq(after, zero), skip, after));
    }
}

#endif
