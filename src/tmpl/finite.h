/* SPDX-License-Identifier: Apache-2.0 */
/* The look at values that are multiplied where they are: a product with zero is NaN for infinities
 * and NaN, and stays so in a sum. */
#ifndef QKV_TMPL_FINITE_H
#define QKV_TMPL_FINITE_H

int ROOM(finite)(const float *x, ptrdiff_t n) {
    const vf zero = vf_set1(0.0f);
    vf sum[4] = {zero, zero, zero, zero};
    ptrdiff_t c = 0;
    for (; c + 4 * VF_LANES <= n; c += 4 * VF_LANES)
        for (int i = 0; i < 4; i++)
            sum[i] = vf_fma(vf_load(x + c + i * VF_LANES), zero, sum[i]);
    for (; c < n; c += VF_LANES)
        sum[0] = vf_fma(vf_load(x + c), zero, sum[0]);
    vf all = vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3]));
    return !vm_any(vm_lt(zero, vf_select(vm_eq(all, zero), zero, vf_set1(1.0f))));
}

#endif
