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
static inline vf score_modify(vf x, const struct qkv_score_row *row,
                              const struct qkv_score_rule *rule, int c) {
    const vf masked = vf_set1(-INFINITY);
    x = vf_mul(x, vf_set1(rule->scale));
    if (rule->softcap > 0.0f) {
        vf t = vf_tanh(vf_mul(x, vf_set1(1.0f / rule->softcap)));
        x = vf_mul(t, vf_set1(rule->softcap));
    }
    if (rule->alibi) {
        vf distance = vf_abs(vf_sub(vf_set1(row->distance), column_numbers(c)));
        x = vf_fma(vf_set1(-row->slope), distance, x);
    }
    if (row->bias) {
        __builtin_prefetch((const void *)((uintptr_t)row->ahead + (uintptr_t)c * sizeof(float)));
        vf bias = load_columns(row->bias, rule->bias_step, c, row->hi);
        x = vf_select(vm_eq(bias, masked), masked, vf_add(x, bias));
    }
    return x;
}

/* -inf outside [lo, hi). The edges of [from, to) are all that an interval can cut. */
static inline void score_cut(const struct qkv_score_row *row) {
    const vf masked = vf_set1(-INFINITY);
    int c = row->from;
    for (; c < row->lo; c += VF_LANES)
        vf_store(row->s + c, keep_columns(vf_load(row->s + c), masked, c, row->lo, row->hi));
    int cut = row->hi / VF_LANES * VF_LANES;
    for (c = cut > c ? cut : c; c < row->to; c += VF_LANES)
        vf_store(row->s + c, keep_columns(vf_load(row->s + c), masked, c, row->lo, row->hi));
}

static inline float score_max(const float *s, int from, int to) {
    vf a = vf_set1(-INFINITY), b = a;
    int c = from;
    for (; c + 2 * VF_LANES <= to; c += 2 * VF_LANES) {
        a = vf_max(vf_load(s + c), a);
        b = vf_max(vf_load(s + c + VF_LANES), b);
    }
    if (c < to)
        a = vf_max(vf_load(s + c), a);
    return vf_hmax(vf_max(a, b));
}

/* The whole rule and all masks, in one pass where scores are modified or a boolean mask is given.
 * Returns the largest score, before the scale if the rule leaves that to the exponential. */
static inline float score_finish(const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule) {
    const vf masked = vf_set1(-INFINITY);
    vf max = masked;
    if (!rule->modified && !row->mask) {
        score_cut(row);
        return score_max(row->s, row->from, row->to);
    }
    for (int c = row->from; c < row->to; c += VF_LANES) {
        vf x = vf_load(row->s + c);
        if (rule->modified)
            x = score_modify(x, row, rule, c);
        if (row->mask)
            x = vf_select(load_bool_columns(row->mask, rule->mask_step, c, row->hi), x, masked);
        x = keep_columns(x, masked, c, row->lo, row->hi);
        max = vf_max(x, max);
        vf_store(row->s + c, x);
    }
    return vf_hmax(max);
}

#endif
