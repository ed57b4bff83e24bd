/* SPDX-License-Identifier: Apache-2.0 */
/* The scores stage's own step: a row of finished scores to the user's memory. */
#ifndef QKV_TMPL_SCORES_H
#define QKV_TMPL_SCORES_H

#include "score.h"

static void score_store(float *out, const struct qkv_score_row *row,
                        const struct qkv_score_rule *rule, int n) {
    score_finish(row, rule);
    const vf masked = vf_set1(-INFINITY);
    for (int c = 0; c < n; c += VF_LANES) {
        vf x = c >= row->from && c < row->to ? vf_load(row->s + c) : masked;
        if (c + VF_LANES <= n)
            vf_store(out + c, x);
        else
            vf_store_part(out + c, x, n - c);
    }
}

#endif
