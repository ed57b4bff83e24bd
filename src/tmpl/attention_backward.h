/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The row steps of the fused stage's gradients (FlashAttention-2, Dao 2023, algorithm 2; the
 * Jacobian of softmax gives dS = P (dP - D)). Weights are powers of two, as in the forward stage:
 * p = 2^(score * factor + base) with base = -lse * log2(e).
 *
 * An element whose weight is exactly zero counts as masked: its dS is zero whatever dP is, so that
 * hidden keys, values and gradients contribute nothing. Where a block holds infinities or NaN such
 * elements are marked by -0, for the products that leave them out.
 */
#ifndef QKV_TMPL_ATTENTION_BACKWARD_H
#define QKV_TMPL_ATTENTION_BACKWARD_H

#include "exp2.h"
#include "row.h"
#include "score.h"
#include "soft_cap.h"
#include "store.h"

/* Not finite: x - x is NaN then, which no number equals. */
static inline int any_not_finite(vf x) {
    const vf zero = vf_set1(0.0f);
    return vm_any(vm_eq(vf_select(vm_eq(vf_sub(x, x), zero), zero, vf_set1(1.0f)), vf_set1(1.0f)));
}

static inline int row_not_finite(const float *x, ptrdiff_t n) {
    vf sum = vf_set1(0.0f);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf part = load_upto(x + c, n - c);
        sum = vf_add(sum, vf_sub(part, part)); /* 0, or NaN for ever */
    }
    return any_not_finite(sum);
}

static inline float row_dot(const float *x, const float *y, ptrdiff_t n) {
    vf sum = vf_set1(0.0f);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        sum = vf_fma(load_upto(x + c, n - c), load_upto(y + c, n - c), sum);
    return vf_hsum(sum);
}

static inline int row_is_zero(const float *x, ptrdiff_t n) {
    vf largest = vf_set1(0.0f);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES)
        largest = vf_max(vf_abs(load_upto(x + c, n - c)), largest);
    return !vm_any(vm_lt(vf_set1(0.0f), largest));
}

/* Without keys the LSE is the sink's own number, and so it is where the sink takes all mass but a
 * little; but only without keys is the output zero. */
static int sees_no_key(const struct qkv_backward_row *row) {
    return row->lse == -INFINITY || (row->lse == row->sink && row_is_zero(row->out, row->v_dim));
}

static int backward_row(const struct qkv_backward_row *row, float *delta, float *base) {
    const int empty = sees_no_key(row);
    *base = row->lse == INFINITY ? NAN : -row->lse; /* +inf: no key may have a weight */
    *delta = empty ? 0.0f : row_dot(row->d_out, row->out, row->v_dim);
    return row_not_finite(row->q, row->head_dim) | row_not_finite(row->d_out, row->v_dim);
}

static float backward_sink(const float *base, const float *delta, ptrdiff_t rows, float sink) {
    const vf extra = vf_set1(sink), zero = vf_set1(0.0f);
    vf sum = zero;
    for (ptrdiff_t r = 0; r < rows; r += VF_LANES) {
        vf d = load_upto(delta + r, rows - r);
        vf p = exp_from(extra, vf_sub(zero, load_upto(base + r, rows - r)));
        sum = vf_sub(sum, vf_select(vm_eq(d, zero), zero, vf_mul(p, d)));
    }
    return vf_hsum(sum);
}

/* The slope of the soft-cap at the scores before it. */
static inline void softcap_slope(float *slope, const struct qkv_score_row *row,
                                 const struct qkv_score_rule *rule) {
    const vf factor = vf_set1(rule->scale), uncap = vf_set1(1.0f / rule->softcap);
    for (int c = row->from; c < row->to; c += VF_LANES)
        vf_store(slope + c, soft_cap_slope(vf_mul(vf_mul(vf_load(row->s + c), factor), uncap)));
}

static inline void mark_columns(float *row, int from, int to) {
    for (int c = from; c < to; c += VF_LANES)
        vf_store(row + c, vf_set1(-0.0f));
}

/* log2(e) times a row's base as two numbers, so that what is left of a large LSE and a large score
 * is not the rounding of the product; and the largest exponent. The polynomials go no further than
 * 2^128. From 2^18 on an LSE's own rounding is a part of the weights, which then stay below 1. */
struct base2 {
    float high, low, most;
};

static inline struct base2 in_base_2(float base) {
    float rest[VF_LANES];
    const float high = base * LOG2_E;
    vf_store(rest, vf_fma(vf_set1(base), vf_set1(LOG2_E), vf_set1(-high)));
    return (struct base2){
        .high = high,
        .low = isfinite(high) ? rest[0] : 0.0f,
        .most = fabsf(base) >= 0x1p18f ? 0.0f : 128.0f,
    };
}

/* One vector: s to p, which is returned, and d from dP to dS. */
INLINE vf weigh_step(float *s, float *d, vf factor, const struct base2 *base, vf delta,
                     const int mark, exp2_step *exp2) {
    const vf zero = vf_set1(0.0f), none = vf_set1(-0.0f);
    const vf most = vf_set1(base->most);
    vf x = vf_add(vf_fma(vf_load(s), factor, vf_set1(base->high)), vf_set1(base->low));
    vf p = exp2(vf_select(vm_lt(most, x), most, x));
    /* Also where base is not finite: a key that the forward call masks has no part in that. */
    p = vf_select(vm_eq(vf_mul(vf_load(s), factor), vf_set1(-INFINITY)), zero, p);
    vf slack = vf_sub(vf_load(d), delta);
    vm gone = vm_eq(p, zero);
    vf ds = vf_select(gone, mark ? none : zero, vf_mul(p, slack));
    vf_store(s, mark ? vf_select(gone, none, p) : p);
    vf_store(d, ds);
    return p;
}

/* dS times the slope of the soft-cap, and the slope's place takes what dS was. */
static inline void apply_slope(float *d, float *slope, int from, int to) {
    const vf zero = vf_set1(0.0f);
    for (int c = from; c < to; c += VF_LANES) {
        vf x = vf_load(d + c), y = vf_mul(x, vf_load(slope + c));
        vf_store(d + c, vf_select(vm_eq(x, zero), x, y));
        vf_store(slope + c, x);
    }
}

/* Returns the row's mass here. */
INLINE float weigh_row(const struct qkv_weigh_backward *w, int r, const int mark, exp2_step *exp2) {
    const struct qkv_score_row *row = w->row + r;
    const struct qkv_score_rule *rule = w->rule;
    const vf factor = vf_set1(LOG2_E * (rule->modified ? 1.0f : rule->scale));
    const struct base2 base = in_base_2(w->base[r]);
    const vf delta = vf_set1(w->delta[r]);
    float *d = w->d_scores + r * QKV_SCORES_LD, *slope = w->slope + r * QKV_SCORES_LD;
    const int capped = rule->softcap > 0.0f;

    if (capped)
        softcap_slope(slope, row, rule);
    if (rule->modified || row->mask)
        score_finish(row, rule);
    else
        score_cut(row);
    vf sum = vf_set1(0.0f);
    for (int c = row->from; c < row->to; c += VF_LANES)
        sum = vf_add(sum, weigh_step(row->s + c, d + c, factor, &base, delta, mark, exp2));
    if (capped)
        apply_slope(d, slope, row->from, row->to);
    return vf_hsum(sum);
}

INLINE void weigh_rows(const struct qkv_weigh_backward *w, const int mark, exp2_step *exp2) {
    for (int r = 0; r < w->rows; r++) {
        const struct qkv_score_row *row = w->row + r;
        float *p = w->scores + r * QKV_SCORES_LD, *d = w->d_scores + r * QKV_SCORES_LD;
        const int from = row->from < row->to ? row->from : w->end;
        const int to = row->from < row->to ? row->to : w->end;
        mark_columns(p, w->begin, from);
        mark_columns(p, to, w->end);
        mark_columns(d, w->begin, from);
        mark_columns(d, to, w->end);
        const float mass = row->from < row->to ? weigh_row(w, r, mark, exp2) : 0.0f;
        w->mass[r] = w->add ? w->mass[r] + mass : mass;
    }
}

/* One kernel a tier. */
#define WEIGH(name, exp2)                                  \
    static void name(const struct qkv_weigh_backward *w) { \
        if (w->mark)                                       \
            weigh_rows(w, 1, exp2);                        \
        else                                               \
            weigh_rows(w, 0, exp2);                        \
    }
WEIGH(weigh_sleef_u10, vf_exp2)
WEIGH(weigh_sleef_u35, vf_exp2_u35)
WEIGH(weigh_poly5, exp2_poly5)
WEIGH(weigh_poly4, exp2_poly4)

static void store_sum(float *out, const float *piece, ptrdiff_t step, int pieces, float scale,
                      ptrdiff_t n) {
    const vf factor = vf_set1(scale), zero = vf_set1(0.0f);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf sum = vf_load(piece + c);
        for (int i = 1; i < pieces; i++)
            sum = vf_add(sum, vf_load(piece + i * step + c));
        store_upto(out + c, vf_fma(sum, factor, zero), n - c);
    }
}

/* The stage's table entry, which the rooms make of the same furniture. */
#define ATTENTION_BACKWARD                                                                   \
    {                                                                                        \
        .variant = ROOM_NAME, .gemm = ROOM(gemm),                                            \
        .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)}, .sees = ROOM(sees),       \
        .row = backward_row, .sink = backward_sink,                                          \
        .weigh = {[QKV_EXP_SLEEF_U10] = weigh_sleef_u10,                                     \
                  [QKV_EXP_SLEEF_U35] = weigh_sleef_u35,                                     \
                  [QKV_EXP_POLY5] = weigh_poly5,                                             \
                  [QKV_EXP_POLY4] = weigh_poly4},                                            \
        .marked = ROOM(mix_marked), .store = store_scaled, .store_sum = store_sum, .mr = MR, \
        .nr = NR,                                                                            \
    }

#endif
