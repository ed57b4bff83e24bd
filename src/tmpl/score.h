/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From dot products to masked scores, in place, one row over one key block: scale, soft-cap,
 * ALiBi and bias in this order, then the masks (qkv.h, above qkv_attention_params). Shared by
 * scores and attention, so that both mean the same.
 */
#ifndef QKV_TMPL_SCORE_H
#define QKV_TMPL_SCORE_H

#include "mask.h"

/* Scale, soft-cap, ALiBi, bias. Bias is not read at columns outside [from, hi); a bias of -inf
 * masks, whatever the score is. */
static inline void score_modify(const struct qkv_score_row *row,
                                const struct qkv_score_rule *rule) {
    const vf scale = vf_set1(rule->scale);
    const vf cap = vf_set1(rule->softcap);
    const vf uncap = vf_set1(rule->softcap > 0.0f ? 1.0f / rule->softcap : 0.0f);
    const vf masked = vf_set1(-INFINITY);
    const vf slope = vf_set1(-row->slope), position = vf_set1(row->distance);

    for (int c = row->from; c < row->to; c += VF_LANES) {
        vf x = vf_mul(vf_load(row->s + c), scale);
        if (rule->softcap > 0.0f)
            x = vf_mul(vf_tanh(vf_mul(x, uncap)), cap);
        if (rule->alibi)
            x = vf_fma(slope, vf_abs(vf_sub(position, column_numbers(c))), x);
        if (row->bias) {
            vf bias = load_columns(row->bias, rule->bias_step, c, row->hi);
            x = vf_select(vm_eq(bias, masked), masked, vf_add(x, bias));
        }
        vf_store(row->s + c, x);
    }
}

/* -inf where masked. The edges of [from, to) are the only vectors that an interval can cut. */
static inline void score_mask(const struct qkv_score_row *row, const struct qkv_score_rule *rule) {
    const vf masked = vf_set1(-INFINITY);
    if (row->mask)
        for (int c = row->from; c < row->to; c += VF_LANES) {
            vm keep = load_bool_columns(row->mask, rule->mask_step, c, row->hi);
            vf_store(row->s + c, vf_select(keep, vf_load(row->s + c), masked));
        }
    int c = row->from;
    for (; c < row->lo; c += VF_LANES)
        vf_store(row->s + c, keep_columns(vf_load(row->s + c), masked, c, row->lo, row->hi));
    int cut = row->hi / VF_LANES * VF_LANES;
    for (c = cut > c ? cut : c; c < row->to; c += VF_LANES)
        vf_store(row->s + c, keep_columns(vf_load(row->s + c), masked, c, row->lo, row->hi));
}

static inline void score_finish(const struct qkv_score_row *row,
                                const struct qkv_score_rule *rule) {
    if (rule->modified)
        score_modify(row, rule);
    score_mask(row, rule);
}

#endif
