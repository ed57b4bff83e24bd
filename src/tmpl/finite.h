/* SPDX-License-Identifier: Apache-2.0 */
/* The look at values that are multiplied where they are: a product with zero is NaN for infinities
 * and NaN, and stays so in a sum. */
#ifndef QKV_TMPL_FINITE_H
#define QKV_TMPL_FINITE_H

int ROOM(finite)(const float *x, ptrdiff_t n) {
    const vf zero = vf_set1(0.0f);
    vf a = zero, b = zero, c = zero, d = zero;
    ptrdiff_t i = 0;
    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
        a = vf_fma(vf_load(x + i), zero, a);
        b = vf_fma(vf_load(x + i + VF_LANES), zero, b);
        c = vf_fma(vf_load(x + i + 2 * VF_LANES), zero, c);
        d = vf_fma(vf_load(x + i + 3 * VF_LANES), zero, d);
    }
    for (; i < n; i += VF_LANES)
        a = vf_fma(vf_load(x + i), zero, a);
    vf all = vf_add(vf_add(a, b), vf_add(c, d));
    return !vm_any(vm_lt(zero, vf_select(vm_eq(all, zero), zero, vf_set1(1.0f))));
}

#endif
