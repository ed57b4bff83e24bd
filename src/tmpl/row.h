/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of any length: loads and stores that stop at the end, and the one tree of row sums. */
#ifndef QKV_TMPL_ROW_H
#define QKV_TMPL_ROW_H

/* VF_LANES elements, or the `left` that are left of the row (then 0 in the other lanes). */
static inline vf load_upto(const float *p, ptrdiff_t left) {
    return left >= VF_LANES ? vf_load(p) : vf_load_part(p, (int)left);
}

static inline void store_upto(float *p, vf x, ptrdiff_t left) {
    if (left >= VF_LANES)
        vf_store(p, x);
    else
        vf_store_part(p, x, (int)left);
}

/* The sum of row[from .. to), from a multiple of VF_LANES. Vector j goes to partial sum j % 4,
 * and these are joined in a fixed order, so that zeros before and after change nothing. The
 * partial sums take turns: s0 is always the next one's. */
static inline float row_sum(const float *row, ptrdiff_t from, ptrdiff_t to) {
    vf s0 = vf_set1(0.0f), s1 = s0, s2 = s0, s3 = s0, next;
    ptrdiff_t j = from / VF_LANES;
    for (ptrdiff_t c = from; c < to; c += VF_LANES, j++) {
        next = vf_add(s0, load_upto(row + c, to - c));
        s0 = s1, s1 = s2, s2 = s3, s3 = next;
    }
    for (; j % 4; j++)
        next = s0, s0 = s1, s1 = s2, s2 = s3, s3 = next;
    return vf_hsum(vf_add(vf_add(s0, s1), vf_add(s2, s3)));
}

#endif
