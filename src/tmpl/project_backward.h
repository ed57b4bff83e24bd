/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over the rows of a matrix, which the gradient of a bias is (qkv_sum_rows_fn in kernels.h):
 * four vectors of columns at a time, so that a row's cache lines are used while they are there.
 * Any count and n; count = 0 writes zeros, n = 0 nothing. */
#ifndef QKV_TMPL_PROJECT_BACKWARD_H
#define QKV_TMPL_PROJECT_BACKWARD_H

#include "row.h"

static inline void sum_four(float *sum, const float *rows, ptrdiff_t ld, ptrdiff_t count) {
    vf a = vf_set1(0.0f), b = a, c = a, d = a;
    for (ptrdiff_t r = 0; r < count; r++, rows += ld) {
        a = vf_add(a, vf_load(rows));
        b = vf_add(b, vf_load(rows + VF_LANES));
        c = vf_add(c, vf_load(rows + 2 * VF_LANES));
        d = vf_add(d, vf_load(rows + 3 * VF_LANES));
    }
    vf_store(sum, a);
    vf_store(sum + VF_LANES, b);
    vf_store(sum + 2 * VF_LANES, c);
    vf_store(sum + 3 * VF_LANES, d);
}

static void sum_rows(float *sum, const float *rows, ptrdiff_t ld, ptrdiff_t count, ptrdiff_t n) {
    ptrdiff_t c = 0;
    for (; c + 4 * VF_LANES <= n; c += 4 * VF_LANES)
        sum_four(sum + c, rows + c, ld, count);
    for (; c < n; c += VF_LANES) {
        vf s = vf_set1(0.0f);
        for (ptrdiff_t r = 0; r < count; r++)
            s = vf_add(s, load_upto(rows + r * ld + c, n - c));
        store_upto(sum + c, s, n - c);
    }
}

#endif
