/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary embedding of a row (signature in kernels_cache.h; Su et al. 2021, RoFormer, section
 * 3.4.2): pairs of numbers, turned by angles whose cosines and sines the caller has. Any alignment;
 * out may be x, but may not overlap it otherwise; dims = 0 copies the row.
 */
#ifndef QKV_TMPL_ROTATE_H
#define QKV_TMPL_ROTATE_H

#include <string.h>

#include "row.h"

static inline vf turned_first(vf a, vf b, vf cos, vf sin) {
    return vf_fma(a, cos, vf_mul(b, vf_mul(sin, vf_set1(-1.0f))));
}

static inline vf turned_second(vf a, vf b, vf cos, vf sin) {
    return vf_fma(a, sin, vf_mul(b, cos));
}

static void turn_halves(float *out, const float *x, const float *cos, const float *sin,
                        ptrdiff_t pairs) {
    for (ptrdiff_t i = 0; i < pairs; i += VF_LANES) {
        const vf a = load_upto(x + i, pairs - i), b = load_upto(x + pairs + i, pairs - i);
        const vf c = load_upto(cos + i, pairs - i), s = load_upto(sin + i, pairs - i);
        store_upto(out + i, turned_first(a, b, c, s), pairs - i);
        store_upto(out + pairs + i, turned_second(a, b, c, s), pairs - i);
    }
}

/* A vector of neighbouring pairs. */
static inline void turn_pairs(float *out, const float *x, vf c, vf s) {
    vf b;
    const vf a = vf_load_pairs(x, &b);
    vf_store_pairs(out, turned_first(a, b, c, s), turned_second(a, b, c, s));
}

static void turn_neighbours(float *out, const float *x, const float *cos, const float *sin,
                            ptrdiff_t pairs) {
    ptrdiff_t i = 0;
    for (; i + VF_LANES <= pairs; i += VF_LANES)
        turn_pairs(out + 2 * i, x + 2 * i, vf_load(cos + i), vf_load(sin + i));
    if (i < pairs) {
        const int left = (int)(pairs - i);
        float rest[2 * VF_LANES] = {0};
        memcpy(rest, x + 2 * i, 2 * (size_t)left * sizeof(float));
        turn_pairs(rest, rest, vf_load_part(cos + i, left), vf_load_part(sin + i, left));
        memcpy(out + 2 * i, rest, 2 * (size_t)left * sizeof(float));
    }
}

static void turn_row(float *out, const float *x, const float *cos, const float *sin, ptrdiff_t dims,
                     int half, ptrdiff_t n) {
    if (half)
        turn_halves(out, x, cos, sin, dims / 2);
    else
        turn_neighbours(out, x, cos, sin, dims / 2);
    if (out != x)
        memcpy(out + dims, x + dims, (size_t)(n - dims) * sizeof(float));
}

#endif
