/* SPDX-License-Identifier: Apache-2.0 */
/* The way out of the fused stage and of its gradients: accumulators, times a factor, to the user's
 * rows. */
#ifndef QKV_TMPL_STORE_H
#define QKV_TMPL_STORE_H

static void store_scaled(float *out, ptrdiff_t ld_out, const float *acc, ptrdiff_t ld,
                         const float *scale, int rows, ptrdiff_t n) {
    const vf zero = vf_set1(0.0f);
    for (int r = 0; r < rows; r++, out += ld_out, acc += ld) {
        const vf x = vf_set1(scale[r]);
        ptrdiff_t c = 0;
        for (; c + VF_LANES <= n; c += VF_LANES)
            vf_store(out + c, vf_fma(vf_load(acc + c), x, zero));
        if (c < n)
            vf_store_part(out + c, vf_fma(vf_load(acc + c), x, zero), (int)(n - c));
    }
}

#endif
