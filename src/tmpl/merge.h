/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partial results joined: attention over two sets of keys from the attention over each, by their
 * logsumexp (FlashAttention-2, Dao 2023, section 3.1.1). Rows of any length, at any alignment; x
 * may be out itself. What is kept is the normalised row, so that joining some parts now and the
 * others later gives the same bits as all of them at once.
 */
#ifndef QKV_TMPL_MERGE_H
#define QKV_TMPL_MERGE_H

#include <math.h>

#include "row.h"

static inline void zero_row(float *out, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        store_upto(out + c, vf_set1(0.0f), n - c);
}

static inline void copy_row(float *out, const float *x, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        store_upto(out + c, load_upto(x + c, n - c), n - c);
}

/* The larger logsumexp's weight is 1 before both are divided by their sum. Beside an infinite one
 * nothing has a share that is a number. */
static void join_row(float *out, float *lse, const float *x, float x_lse, ptrdiff_t n) {
    const int nothing = *lse == -INFINITY;
    if (x_lse == -INFINITY) {
        if (nothing)
            zero_row(out, n);
        return;
    }
    if (nothing) {
        copy_row(out, x, n);
        *lse = x_lse;
        return;
    }
    const int rises = *lse < x_lse;
    const float low = rises ? *lse : x_lse, high = rises ? x_lse : *lse;
    const float fall = high == INFINITY ? NAN : exp_of(low - high), mass = 1.0f + fall;
    const vf major = vf_set1(1.0f / mass), minor = vf_set1(fall / mass);
    const vf a = rises ? minor : major, b = rises ? major : minor;
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        const vf joined = vf_mul(load_upto(x + c, n - c), b);
        store_upto(out + c, vf_fma(load_upto(out + c, n - c), a, joined), n - c);
    }
    *lse = high + log_of(mass);
}

#endif
