/* SPDX-License-Identifier: Apache-2.0 */
/* The scores stage's own step, a row of finished scores to the user's memory, and the look at the
 * masks by which every stage leaves out what they empty. */
#ifndef QKV_TMPL_SCORES_H
#define QKV_TMPL_SCORES_H

#include <string.h>

#include "score.h"

/* Is any lane not -inf? (NaN is not: it is a score like any other.) */
static inline int any_kept(vf x) {
    const vf kept = vf_set1(0.0f), masked = vf_set1(1.0f);
    return vm_any(vm_eq(vf_select(vm_eq(x, vf_set1(-INFINITY)), masked, kept), kept));
}

/* Are n bytes all zero? Eight at a time, which is what most of a masked block's cost comes to. */
static inline int all_zero(const uint8_t *p, int n) {
    uint64_t any = 0, word;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, p + i, sizeof(word));
        any |= word;
    }
    for (; i < n; i++)
        any |= p[i];
    return any == 0;
}

/* Stops at the first column that is kept, so that rows without masked stretches cost nothing, and
 * does not touch the bias where the boolean mask has decided. */
int ROOM(sees)(const struct qkv_score_row *row, const struct qkv_score_rule *rule) {
    const vf masked = vf_set1(-INFINITY);
    if (row->mask && rule->mask_step && all_zero(row->mask + row->lo, row->hi - row->lo))
        return 0;
    for (int c = row->lo / VF_LANES * VF_LANES; c < row->hi; c += VF_LANES) {
        vf x = keep_columns(vf_set1(0.0f), masked, c, row->lo, row->hi);
        if (row->mask)
            x = vf_select(load_bool_columns(row->mask, rule->mask_step, c, row->hi), x, masked);
        if (row->bias && any_kept(x))
            x = vf_select(bias_masks(load_columns(row->bias, rule->bias_step, c, row->hi)), masked,
                          x);
        if (any_kept(x))
            return 1;
    }
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
