/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The row steps of the fused stage: online softmax over the key blocks of a piece (Milakov and
 * Gimelshein 2018; FlashAttention-2, Dao 2023), the joining of pieces, and the end of a row.
 *
 * Exponentials are powers of two, with log2(e) in the factor of the score
 * (docs/performance/tried-attention.md says what that wins). The running maximum is kept as a
 * rounded exponent of two, and the same rounded number stands in every exponential, so that weights
 * and factors agree exactly. Where two maxima are equal the factor is 1 by decision, not by
 * arithmetic: a block or piece that holds nothing for a row leaves the row's bits alone.
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

/* Does AVX-512 take the sums of such exponentials in a pass of their own? No vector register
 * survives a call of SLEEF, and sums that are kept in memory from one to the next cost an Intel
 * core up to 5 cycles each (docs/performance/tried-attention.md). */
INLINE int sums_apart(exp2_step *exp2) {
    return QKV_SLEEF && VF_LANES == QKV_PANEL && exp2 != exp2_poly5 && exp2 != exp2_poly4;
}

/* n scores of a row, whole vectors, to 2^(factor * s + base); returns their sum, lane by lane, as
 * row_sums adds up. */
INLINE vf row_exp(float *s, ptrdiff_t n, vf factor, vf base, const int mark, exp2_step *exp2,
                  const int apart) {
    const vf zero = vf_set1(0.0f);
    if (n <= 0)
        return zero;
    if (apart && n > 2 * VF_LANES) {
        for (ptrdiff_t c = 0; c < n; c += VF_LANES)
            exp_step(s + c, factor, base, mark, exp2);
        return row_sums(s, 0, n);
    }
    vf a = exp_step(s, factor, base, mark, exp2);
    if (mark)
        a = vf_add(a, zero);
    if (n <= VF_LANES)
        return a;
    vf b = exp_step(s + VF_LANES, factor, base, mark, exp2);
    ptrdiff_t c = 2 * VF_LANES;
    for (; c + 2 * VF_LANES <= n; c += 2 * VF_LANES) {
        a = vf_add(a, exp_step(s + c, factor, base, mark, exp2));
        b = vf_add(b, exp_step(s + c + VF_LANES, factor, base, mark, exp2));
    }
    if (c < n)
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

/* The largest scores of a row, lane by lane, by a pass that applies the rule and the masks. */
INLINE vf row_max(const struct qkv_score_row *row, const struct qkv_score_rule *rule) {
    return rule->modified || row->mask ? score_finish(row, rule) : score_finish_plain(row);
}

/* The largest scores of row r, whose n columns begin at s, lane by lane: those that the product has
 * left, or those of a pass. */
INLINE vf max_of_row(const struct qkv_weigh *w, int r, const float *s, ptrdiff_t n,
                     const int whole) {
    if (w->max)
        return panel_max(w->max + r * QKV_PANEL);
    return whole ? score_max(s, n) : row_max(w->row + r, w->rule);
}

/* The n scores of row r. */
INLINE float *scores_of(const struct qkv_weigh *w, int r, const int whole, ptrdiff_t *n) {
    const struct qkv_score_row *row = whole ? w->row : w->row + r;
    *n = row->to - row->from;
    return row->s + row->from + (whole ? r * QKV_SCORES_LD : 0);
}

/* The largest scores of `rows` rows from row r on, a row a lane. */
INLINE vf max_of_rows(const struct qkv_weigh *w, int r, int rows, const int whole) {
    ptrdiff_t n;
    const float *s = scores_of(w, r, whole, &n);
    float lanes[VF_LANES * VF_LANES]; /* a vector of each row */
    if (rows == 1)
        return vf_hmax_row(max_of_row(w, r, s, n, whole));
    if (w->max && rows == QKV_PANEL && VF_LANES == QKV_PANEL)
        return vf_hmax_rows(w->max + r * QKV_PANEL);
    for (int i = 0; i < rows; i++, s += QKV_SCORES_LD)
        vf_store(lanes + i * VF_LANES, max_of_row(w, r + i, s, n, whole));
    for (int i = rows; i < VF_LANES; i++)
        vf_store(lanes + i * VF_LANES, vf_set1(-INFINITY));
    return vf_hmax_rows(lanes);
}

/* The weights of these rows, and their sums. */
INLINE vf exp_of_rows(const struct qkv_weigh *w, int r, int rows, vf factor, const float *base,
                      const int whole, const int mark, exp2_step *exp2, const int apart) {
    float lanes[VF_LANES * VF_LANES];
    ptrdiff_t n;
    float *s = scores_of(w, r, whole, &n);
    if (rows == 1)
        return vf_hsum_row(row_exp(s, n, factor, vf_set1(base[0]), mark, exp2, apart));
    for (int i = 0; i < rows; i++, s += QKV_SCORES_LD) {
        if (!whole)
            s = scores_of(w, r + i, 0, &n);
        vf_store(lanes + i * VF_LANES, row_exp(s, n, factor, vf_set1(base[i]), mark, exp2, apart));
    }
    for (int i = rows; i < VF_LANES; i++)
        vf_store(lanes + i * VF_LANES, vf_set1(0.0f));
    return vf_hsum_rows(lanes);
}

/* Of a maximum beyond this, as a power of two, the rounding is larger than half a unit of the
 * exponent, and with the fused products of scores all weights of its row would be too large or too
 * small by as much, up to overflow. There products are rounded first, as the maximum was; below it
 * they are not, which keeps the distances between scores exact. */
#define FAR 0x1p24f

static inline vm is_far(vf base) {
    return vm_lt(vf_set1(FAR), vf_abs(base));
}

/* As exp_of_rows, where some of the rows have such a maximum; rare. */
static __attribute__((noinline)) vf exp_of_far_rows(const struct qkv_weigh *w, int r, int rows,
                                                    vf factor, const float *base, exp2_step *exp2) {
    float lanes[VF_LANES * VF_LANES] = {0};
    for (int i = 0; i < rows; i++) {
        ptrdiff_t n;
        float *s = scores_of(w, r + i, w->whole, &n);
        const int far = fabsf(base[i]) > FAR;
        for (ptrdiff_t c = 0; c < n && far; c += VF_LANES)
            vf_store(s + c, vf_mul(vf_load(s + c), factor));
        vf_store(lanes + i * VF_LANES,
                 row_exp(s, n, far ? vf_set1(1.0f) : factor, vf_set1(base[i]), w->mark, exp2, 0));
    }
    return vf_hsum_rows(lanes);
}

/* VF_LANES rows from row r on, or the last few: the maxima and sums of all rows are reduced at
 * once, a row a lane, so that no row waits for the horizontal steps of another. */
INLINE void weigh_group(const struct qkv_weigh *w, int r, const int whole, const int mark,
                        exp2_step *exp2, const int apart) {
    const int rows = w->rows - r < VF_LANES ? w->rows - r : VF_LANES;
    const vf scale = vf_set1(LOG2_E * (w->rule->modified ? 1.0f : w->rule->scale));
    float base[VF_LANES];

    vf top = vf_mul(max_of_rows(w, r, rows, whole), scale);
    vf before = vf_load(w->state.max + r), after = vf_max(top, before);
    vf fall = factor_between(before, after, exp2);
    vf_store(w->state.max + r, after);
    vf_store(w->factor + r, fall);
    vf bases = exponent_base(after);
    vf_store(base, bases);

    vf sum = vm_any(is_far(bases)) ? exp_of_far_rows(w, r, rows, scale, base, exp2)
                                   : exp_of_rows(w, r, rows, scale, base, whole, mark, exp2, apart);
    vf_store(w->state.sum + r, vf_fma(vf_load(w->state.sum + r), fall, sum));
}

INLINE void weigh_rows(const struct qkv_weigh *w, const int whole, const int mark, exp2_step *exp2,
                       const int apart) {
    for (int r = 0; r < w->rows; r += VF_LANES)
        weigh_group(w, r, whole, mark, exp2, apart);
}

/* The usual case has code of its own, since a row's fixed cost counts most there. */
INLINE void weigh_block(const struct qkv_weigh *w, exp2_step *exp2, const int apart) {
    if (w->mark)
        weigh_rows(w, 0, 1, exp2, apart);
    else if (w->whole)
        weigh_rows(w, 1, 0, exp2, apart);
    else
        weigh_rows(w, 0, 0, exp2, apart);
}

/* One kernel a tier. A Zen 4 is slower at a pass of its own. */
#define WEIGH(name, exp2)                         \
    static void name(const struct qkv_weigh *w) { \
        if (sums_apart(exp2) && !w->halves)       \
            weigh_block(w, exp2, 1);              \
        else                                      \
            weigh_block(w, exp2, 0);              \
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
 * is also what the rows' accumulators fall by, plus the sink's own, whose product with log2(e) is
 * taken as scores' are. A sink that is NaN is one. */
static inline vf join_sink(vf max, vf sum, vf sink, vf top, vf *fall) {
    const vf none = vf_set1(-INFINITY), zero = vf_set1(0.0f), log2_e = vf_set1(LOG2_E);
    *fall = vf_set1(1.0f);
    if (!vm_any(vm_lt(none, vf_select(vm_eq(sink, sink), sink, zero))))
        return sum;
    vf base = vf_select(vm_eq(top, none), zero, top);
    *fall = vf_select(vm_eq(max, top), *fall, vf_exp2(vf_sub(max, base)));
    vf fused = vf_fma(sink, log2_e, vf_sub(zero, base));
    vf rounded = vf_sub(vf_mul(sink, log2_e), base);
    vf own = vf_exp2(vf_select(is_far(base), rounded, fused));
    return vf_add(vf_mul(sum, *fall), own);
}

static void seal(struct qkv_running state, const float *sink, int rows, float *scale, float *lse) {
    const vf zero = vf_set1(0.0f);
    for (int r = 0; r < rows; r += VF_LANES) {
        vf max = vf_load(state.max + r), sum = vf_load(state.sum + r);
        vf extra = vf_load(sink + r);
        vf fall, top = vf_max(vf_mul(extra, vf_set1(LOG2_E)), max);
        vf mass = join_sink(max, sum, extra, top, &fall);
        vm empty = vm_eq(sum, zero);
        vf_store(scale + r, vf_select(empty, zero, vf_div(fall, mass)));
        if (!lse)
            continue;
        /* Without keys the sink itself, which does not survive the way to base 2 and back. */
        vf ln = vf_fma(top, vf_set1(LN_2), vf_log(mass));
        vf_store(lse + r, vf_select(empty, extra, ln));
    }
}

#endif
