/* SPDX-License-Identifier: Apache-2.0 */
/* The scores stage's own step, a row of finished scores to the user's memory, and the look at the
 * masks by which every stage leaves out what they empty. */
#ifndef QKV_TMPL_SCORES_H
#define QKV_TMPL_SCORES_H

#include "score.h"

/* Stops at the first column that is kept, so that rows without masked stretches cost nothing. */
int ROOM(sees)(const struct qkv_score_row *row, const struct qkv_score_rule *rule) {
    const vf kept = vf_set1(0.0f), not_kept = vf_set1(1.0f);
    for (int c = row->lo / VF_LANES * VF_LANES; c < row->hi; c += VF_LANES)
        if (vm_any(vm_eq(keep_unmasked(kept, not_kept, row, rule, c, row->hi), kept)))
            return 1;
    return 0;
}

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
