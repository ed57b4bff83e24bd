/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The row steps of the fused stage: online softmax over the key blocks of a piece (Milakov and
 * Gimelshein 2018; FlashAttention-2, Dao 2023), the joining of pieces, and the end of a row.
 *
 * Exponentials are powers of two, with log2(e) in the factor of the score (docs/performance.md
 * says what that wins). The running maximum is kept as a rounded exponent of two, and the same
 * rounded number stands in every exponential, so that weights and factors agree exactly. Where two
 * maxima are equal the factor is 1 by decision, not by arithmetic: a block or piece that holds
 * nothing for a row leaves the row's bits alone.
 */
#ifndef QKV_TMPL_ATTENTION_H
#define QKV_TMPL_ATTENTION_H

#include "exp2.h"
#include "row.h"
#include "score.h"
#include "store.h"

#define LN_2 0x1.62e43p-1f

/* 2^(from - to) in each lane; 1 where they are equal, and where there was nothing before: then no
 * lane may need the exponential, which is the usual case once the maxima have settled. */
INLINE vf factor_between(vf from, vf to, exp2_step *exp2) {
    const vf one = vf_set1(1.0f);
    vf rise = vf_sub(to, from); /* +inf from nothing, and NaN where both are infinite */
    rise = vf_select(vm_eq(from, vf_set1(-INFINITY)), vf_set1(0.0f), rise);
    rise = vf_select(vm_eq(from, to), vf_set1(0.0f), rise);
    if (!vm_any(vm_lt(vf_set1(0.0f), rise)))
        return one;
    vf e = exp2(vf_sub(vf_set1(0.0f), rise));
    return vf_select(vm_eq(rise, vf_set1(0.0f)), one, e);
}

/* A vector of scores to weights: 2^(factor * s + base), -0 where s is -inf if mark is set. */
INLINE vf exp_step(float *s, vf factor, vf base, const int mark, exp2_step *exp2) {
    vf x = exp2(vf_fma(vf_load(s), factor, base));
    if (mark)
        x = vf_select(vm_eq(vf_load(s), vf_set1(-INFINITY)), vf_set1(-0.0f), x);
    vf_store(s, x);
    return x;
}

/* The row's columns [from, to), s to 2^(factor * s + base); returns their sum, lane by lane.
 * Vectors go to two partial sums in turn, by the parity of their place (which of the two is first
 * does not matter to their sum), so that zeros before and after change nothing. */
INLINE vf row_exp(float *s, int from, int to, vf factor, vf base, const int mark, exp2_step *exp2) {
    vf a = vf_set1(0.0f), b = a;
    int c = from;
    for (; c + 2 * VF_LANES <= to; c += 2 * VF_LANES) {
        a = vf_add(a, exp_step(s + c, factor, base, mark, exp2));
        b = vf_add(b, exp_step(s + c + VF_LANES, factor, base, mark, exp2));
    }
    if (c < to)
        a = vf_add(a, exp_step(s + c, factor, base, mark, exp2));
    return vf_add(a, b);
}

/* What stands in the exponents of a row whose maximum is max. A maximum of +inf, which may come
 * from a finite score times the scale, makes the row NaN. */
INLINE vf exponent_base(vf max) {
    const vf zero = vf_set1(-0.0f);
    vf base = vf_select(vm_eq(max, vf_set1(INFINITY)), vf_set1(NAN), vf_sub(zero, max));
    return vf_select(vm_eq(max, vf_set1(-INFINITY)), zero, base);
}

/* The rows' largest scores, a row a lane: those that the product has left, or those of a pass that
 * applies the rule and the masks. */
INLINE vf largest(const struct qkv_score_row *row, const float *max, int rows,
                  const struct qkv_score_rule *rule) {
    float lanes[VF_LANES * VF_LANES]; /* a vector of each row */
    for (int r = 0; r < rows; r++) {
        vf top = max                             ? panel_max(max + r * QKV_PANEL)
                 : rule->modified || row[r].mask ? score_finish(row + r, rule)
                                                 : score_finish_plain(row + r);
        vf_store(lanes + r * VF_LANES, top);
    }
    for (int r = rows; r < VF_LANES; r++)
        vf_store(lanes + r * VF_LANES, vf_set1(-INFINITY));
    return vf_hmax_rows(lanes);
}

/* VF_LANES rows, or the last few: the maxima and sums of all rows are reduced at once, a row a
 * lane, so that no row waits for the horizontal steps of another. */
INLINE void weigh_group(const struct qkv_score_row *row, const float *max, int rows,
                        const struct qkv_score_rule *rule, struct qkv_running state, float *factor,
                        const int mark, exp2_step *exp2) {
    const vf scale = vf_set1(LOG2_E * (rule->modified ? 1.0f : rule->scale));
    float lanes[VF_LANES * VF_LANES]; /* a vector of each row */
    float base[VF_LANES];

    vf top = vf_mul(largest(row, max, rows, rule), scale);
    vf before = vf_load(state.max), after = vf_max(top, before);
    vf fall = factor_between(before, after, exp2);
    vf_store(state.max, after);
    vf_store(factor, fall);
    vf_store(base, exponent_base(after));

    for (int r = 0; r < rows; r++)
        vf_store(lanes + r * VF_LANES,
                 row_exp(row[r].s, row[r].from, row[r].to, scale, vf_set1(base[r]), mark, exp2));
    for (int r = rows; r < VF_LANES; r++)
        vf_store(lanes + r * VF_LANES, vf_set1(0.0f));
    vf_store(state.sum, vf_fma(vf_load(state.sum), fall, vf_hsum_rows(lanes)));
}

INLINE void weigh_rows(const struct qkv_score_row *row, const float *max, int rows,
                       const struct qkv_score_rule *rule, struct qkv_running state, float *factor,
                       const int mark, exp2_step *exp2) {
    for (int r = 0; r < rows; r += VF_LANES) {
        const int n = rows - r < VF_LANES ? rows - r : VF_LANES;
        const struct qkv_running at = {state.max + r, state.sum + r};
        weigh_group(row + r, max ? max + r * QKV_PANEL : NULL, n, rule, at, factor + r, mark, exp2);
    }
}

/* One kernel a tier. */
#define WEIGH(name, exp2)                                                                        \
    static void name(const struct qkv_score_row *row, const float *max, int rows,                \
                     const struct qkv_score_rule *rule, struct qkv_running state, float *factor, \
                     int mark) {                                                                 \
        if (mark)                                                                                \
            weigh_rows(row, max, rows, rule, state, factor, 1, exp2);                            \
        else                                                                                     \
            weigh_rows(row, max, rows, rule, state, factor, 0, exp2);                            \
    }
WEIGH(weigh_sleef_u10, vf_exp2)
WEIGH(weigh_sleef_u35, vf_exp2_u35)
WEIGH(weigh_poly5, exp2_poly5)
WEIGH(weigh_poly4, exp2_poly4)

#define WEIGH_TIERS                                                                   \
    {                                                                                 \
        [QKV_EXP_SLEEF_U10] = weigh_sleef_u10, [QKV_EXP_SLEEF_U35] = weigh_sleef_u35, \
        [QKV_EXP_POLY5] = weigh_poly5, [QKV_EXP_POLY4] = weigh_poly4,                 \
    }

/* acc = acc * a + piece * b for one row, without the multiplications by 1. */
static inline void merge_row(float *acc, const float *piece, float a, float b, ptrdiff_t n) {
    const vf fa = vf_set1(a), fb = vf_set1(b);
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf x = vf_mul(vf_load(piece + c), fb);
        vf_store(acc + c, vf_fma(vf_load(acc + c), fa, x));
    }
}

static void merge(float *acc, struct qkv_running state, const float *piece,
                  struct qkv_running piece_state, ptrdiff_t ld, int rows, ptrdiff_t n) {
    float a[QKV_ROWS], b[QKV_ROWS];
    for (int r = 0; r < rows; r += VF_LANES) {
        vf left = vf_load(state.max + r), right = vf_load(piece_state.max + r);
        vf max = vf_max(left, right);
        vf fa = factor_between(left, max, vf_exp2), fb = factor_between(right, max, vf_exp2);
        vf sum = vf_mul(vf_load(piece_state.sum + r), fb);
        vf_store(state.sum + r, vf_fma(vf_load(state.sum + r), fa, sum));
        vf_store(state.max + r, max);
        vf_store(a + r, fa);
        vf_store(b + r, fb);
    }
    for (int r = 0; r < rows; r++)
        merge_row(acc + r * ld, piece + r * ld, a[r], b[r], n);
}

/* The mass of rows whose maximum is max once the sinks are joined to it: the sum times *fall, which
 * is also what the rows' accumulators fall by, plus the sink's own. */
static inline vf join_sink(vf max, vf sum, vf sink, vf top, vf *fall) {
    const vf none = vf_set1(-INFINITY), zero = vf_set1(0.0f);
    *fall = vf_set1(1.0f);
    if (!vm_any(vm_lt(none, sink)))
        return sum;
    vf base = vf_select(vm_eq(top, none), zero, top);
    *fall = vf_select(vm_eq(max, top), *fall, vf_exp2(vf_sub(max, base)));
    return vf_add(vf_mul(sum, *fall), vf_exp2(vf_sub(sink, base)));
}

static void seal(struct qkv_running state, const float *sink, int rows, float *scale, float *lse) {
    const vf zero = vf_set1(0.0f);
    for (int r = 0; r < rows; r += VF_LANES) {
        vf max = vf_load(state.max + r), sum = vf_load(state.sum + r);
        vf extra = vf_mul(vf_load(sink + r), vf_set1(LOG2_E));
        vf fall, top = vf_max(extra, max);
        vf mass = join_sink(max, sum, extra, top, &fall);
        vm empty = vm_eq(sum, zero);
        vf_store(scale + r, vf_select(empty, zero, vf_div(fall, mass)));
        if (!lse)
            continue;
        /* Without keys the sink itself, which does not survive the way to base 2 and back. */
        vf ln = vf_fma(top, vf_set1(LN_2), vf_log(mass));
        vf_store(lse + r, vf_select(empty, vf_load(sink + r), ln));
    }
}

#endif
