/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of any length: loads and stores that stop at the end, the one tree of row sums, and the
 * exponentials of e by way of those of 2. */
#ifndef QKV_TMPL_ROW_H
#define QKV_TMPL_ROW_H

#define LOG2_E 0x1.715476p+0f

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

/* The sums of row[from .. to), from a multiple of VF_LANES, lane by lane. Vectors go to two partial
 * sums in turn, by the parity of their place in the row (which of the two is first does not matter
 * to their sum), so that zeros before and after change nothing. */
static inline vf row_sums(const float *row, ptrdiff_t from, ptrdiff_t to) {
    vf a = vf_set1(0.0f), b = a;
    ptrdiff_t c = from;
    for (; c + 2 * VF_LANES <= to; c += 2 * VF_LANES) {
        a = vf_add(a, vf_load(row + c));
        b = vf_add(b, vf_load(row + c + VF_LANES));
    }
    if (c < to)
        a = vf_add(a, load_upto(row + c, to - c));
    if (c + VF_LANES < to)
        b = vf_add(b, vf_load_part(row + c + VF_LANES, (int)(to - c - VF_LANES)));
    return vf_add(a, b);
}

static inline float row_sum(const float *row, ptrdiff_t from, ptrdiff_t to) {
    return vf_hsum(row_sums(row, from, to));
}

/* exp(x - base), and the exponential and the logarithm of a single number. */
static inline vf exp_from(vf x, vf base) {
    return vf_exp2(vf_mul(vf_sub(x, base), vf_set1(LOG2_E)));
}

static inline float exp_of(float x) {
    float e[VF_LANES];
    vf_store(e, exp_from(vf_set1(x), vf_set1(0.0f)));
    return e[0];
}

static inline float log_of(float x) {
    float e[VF_LANES];
    vf_store(e, vf_log(vf_set1(x)));
    return e[0];
}

#endif
