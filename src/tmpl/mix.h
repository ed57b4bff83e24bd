/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mix stage's own steps, which the gradients' products share with it, and the selecting product
 * that all of them and attention use.
 */
#ifndef QKV_TMPL_MIX_H
#define QKV_TMPL_MIX_H

#include "mark.h"
#include "mask.h"
#include "row.h"

void ROOM(mix_load)(float *out, const float *in, const struct qkv_score_row *row,
                    const struct qkv_score_rule *rule, int n) {
    const vf skip = vf_set1(-0.0f), zero = vf_set1(0.0f);
    int padded = (n + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    for (int c = 0; c < padded; c += VF_LANES) {
        vf x = c < n ? load_upto(in + c, n - c) : skip;
        x = vf_select(vm_eq(x, zero), skip, x);
        vf_store(out + c, keep_unmasked(x, skip, row, rule, c, n));
    }
}

void ROOM(mix_marked)(float *acc, float factor, const float *a, const float *v, ptrdiff_t ld_v,
                      ptrdiff_t k, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf sum = vf_set1(0.0f);
        for (ptrdiff_t p = 0; p < k; p++)
            if (!is_marked(a[p]))
                sum = vf_fma(vf_set1(a[p]), vf_load(v + p * ld_v + c), sum);
        vf_store(acc + c, vf_fma(vf_load(acc + c), vf_set1(factor), sum));
    }
}

#endif
