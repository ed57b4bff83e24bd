/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over the columns of a few rows that packing turns, a vector's width at a time. The room
 * defines, before the include, turn_columns() for n of them, whose n is a constant but at the end.
 */
#ifndef QKV_TMPL_TURN_H
#define QKV_TMPL_TURN_H

static inline __attribute__((always_inline)) void turn_rows(float *dst, ptrdiff_t ld_dst,
                                                            const float *src, ptrdiff_t ld,
                                                            int first, int last, ptrdiff_t k) {
    ptrdiff_t p = 0;
    for (; p + VF_LANES <= k; p += VF_LANES)
        turn_columns(dst + p * ld_dst, ld_dst, src + p, ld, first, last, VF_LANES);
    if (p < k)
        turn_columns(dst + p * ld_dst, ld_dst, src + p, ld, first, last, (int)(k - p));
}

#endif
