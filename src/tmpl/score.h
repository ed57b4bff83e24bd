/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From dot products to masked scores, in place, one row over one key block: scale, soft-cap,
 * ALiBi and bias in this order, then the masks (qkv.h, above qkv_attention_params). Shared by
 * scores and attention, so that both mean the same.
 */
#ifndef QKV_TMPL_SCORE_H
#define QKV_TMPL_SCORE_H

#include "mask.h"

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

/* The largest, lane by lane, of n scores, whole vectors. */
static inline vf score_max(const float *s, ptrdiff_t n) {
    vf a = vf_set1(-INFINITY), b = a, c = a, d = a;
    ptrdiff_t i = 0;
    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES) {
        a = vf_max(vf_load(s + i), a);
        b = vf_max(vf_load(s + i + VF_LANES), b);
        c = vf_max(vf_load(s + i + 2 * VF_LANES), c);
        d = vf_max(vf_load(s + i + 3 * VF_LANES), d);
    }
    for (; i < n; i += VF_LANES)
        a = vf_max(vf_load(s + i), a);
    return vf_max(vf_max(a, b), vf_max(c, d));
}

/* The same of one panel. */
static inline vf panel_max(const float *panel) {
    vf max = vf_load(panel);
    for (int c = VF_LANES; c < QKV_PANEL; c += VF_LANES)
        max = vf_max(vf_load(panel + c), max);
    return max;
}

/* softcap * tanh(scale * s / softcap), in a loop of its own since tanh is a call. */
static inline void score_softcap(const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule) {
    const vf scale = vf_set1(rule->scale), cap = vf_set1(rule->softcap);
    const vf uncap = vf_set1(1.0f / rule->softcap);
    for (int c = row->from; c < row->to; c += VF_LANES) {
        vf x = vf_mul(vf_load(row->s + c), scale);
        vf_store(row->s + c, vf_mul(vf_tanh(vf_mul(x, uncap)), cap));
    }
}

/* Scale, ALiBi, bias, boolean mask and intervals in one pass; which of them is known where this is
 * inlined. Neither bias nor mask is read at columns outside [from, hi). A bias that masks does so
 * whatever the score is. Returns the largest scores, lane by lane. */
static inline __attribute__((always_inline)) vf score_pass(const struct qkv_score_row *row,
                                                           const struct qkv_score_rule *rule,
                                                           float factor, const int alibi,
                                                           const int bias, const int mask) {
    const vf masked = vf_set1(-INFINITY), scale = vf_set1(factor);
    const vf slope = vf_set1(-row->slope), position = vf_set1(row->distance);
    const int from = row->from, to = row->to, lo = row->lo, hi = row->hi;
    const int bias_step = rule->bias_step, mask_step = rule->mask_step;
    const float *bias_row = row->bias, *ahead = row->ahead;
    const uint8_t *mask_row = row->mask;
    float *s = row->s;
    vf max = masked;

    for (int c = from; c < to; c += VF_LANES) {
        vf x = vf_mul(vf_load(s + c), scale);
        if (alibi)
            x = vf_fma(slope, vf_abs(vf_sub(position, column_numbers(c))), x);
        if (bias) {
            __builtin_prefetch((const void *)((uintptr_t)ahead + (uintptr_t)c * sizeof(float)));
            vf b = load_columns(bias_row, bias_step, c, hi);
            x = vf_select(bias_masks(b), masked, vf_add(x, b));
        }
        if (mask)
            x = vf_select(load_bool_columns(mask_row, mask_step, c, hi), x, masked);
        x = keep_columns(x, masked, c, lo, hi);
        max = vf_max(x, max);
        vf_store(s + c, x);
    }
    return max;
}

/* The usual case, where only intervals mask, and the scale is left to the exponential. */
static inline vf score_finish_plain(const struct qkv_score_row *row) {
    score_cut(row);
    return score_max(row->s + row->from, row->to - row->from);
}

/* The whole rule and all masks. Returns the largest scores, lane by lane, before the scale if the
 * rule leaves that to the exponential. */
static vf score_finish(const struct qkv_score_row *row, const struct qkv_score_rule *rule) {
    const int capped = rule->softcap > 0.0f;
    if (capped)
        score_softcap(row, rule);
    const float scale = capped || !rule->modified ? 1.0f : rule->scale;
    switch ((rule->alibi ? 4 : 0) | (row->bias ? 2 : 0) | (row->mask ? 1 : 0)) {
    case 0:
        return score_pass(row, rule, scale, 0, 0, 0);
    case 1:
        return score_pass(row, rule, scale, 0, 0, 1);
    case 2:
        return score_pass(row, rule, scale, 0, 1, 0);
    case 3:
        return score_pass(row, rule, scale, 0, 1, 1);
    case 4:
        return score_pass(row, rule, scale, 1, 0, 0);
    case 5:
        return score_pass(row, rule, scale, 1, 0, 1);
    case 6:
        return score_pass(row, rule, scale, 1, 1, 0);
    default:
        return score_pass(row, rule, scale, 1, 1, 1);
    }
}

#endif
