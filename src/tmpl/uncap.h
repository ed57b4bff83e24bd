/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of scores on its way back through the soft-cap. */
#ifndef QKV_TMPL_UNCAP_H
#define QKV_TMPL_UNCAP_H

#include "soft_cap.h"

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
