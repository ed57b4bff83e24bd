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

#include "row.h"
#include "score.h"

#define LOG2_E 0x1.715476p+0f
#define LN_2 0x1.62e43p-1f

/* 2^(from - to) in each lane; 1 where they are equal, and where there was nothing before. */
static inline vf factor_between(vf from, vf to) {
    vf none = vf_set1(-INFINITY);
    vf e = vf_exp2(vf_sub(from, to));
    e = vf_select(vm_eq(from, to), vf_set1(1.0f), e);
    return vf_select(vm_eq(from, none), vf_set1(1.0f), e);
}

static inline float row_max(const float *s, int from, int to) {
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

/* 2^(scale * s - max) over [from, to), -0 instead where s is -inf if mark is set. A maximum of
 * +inf, which may come from a finite s times the scale, makes the row NaN. */
static inline void row_exp(float *s, int from, int to, float scale, float max, int mark) {
    const vf factor = vf_set1(scale), base = vf_set1(max == -INFINITY  ? -0.0f
                                                     : max == INFINITY ? NAN
                                                                       : -max);
    if (mark) {
        const vf masked = vf_set1(-INFINITY), skip = vf_set1(-0.0f);
        for (int c = from; c < to; c += VF_LANES) {
            vf x = vf_load(s + c);
            vf e = vf_exp2(vf_fma(x, factor, base));
            vf_store(s + c, vf_select(vm_eq(vf_load(s + c), masked), skip, e));
        }
        return;
    }
    for (int c = from; c < to; c += VF_LANES)
        vf_store(s + c, vf_exp2(vf_fma(vf_load(s + c), factor, base)));
}

static void weigh(const struct qkv_score_row *row, int row0, int rows,
                  const struct qkv_score_rule *rule, struct qkv_running state, float *factor,
                  int mark) {
    const float scale = LOG2_E * (rule->modified ? 1.0f : rule->scale);
    float before[QKV_PANEL], after[QKV_PANEL], ratio[QKV_PANEL];

    for (int r = 0; r < rows; r++) {
        score_finish(row + r, rule);
        float max = row_max(row[r].s, row[r].from, row[r].to) * scale;
        before[r] = state.max[row0 + r];
        after[r] = max > before[r] ? max : before[r];
    }
    for (int r = rows; r < QKV_PANEL; r++)
        before[r] = after[r] = 0.0f;
    for (int r = 0; r < rows; r += VF_LANES)
        vf_store(ratio + r, factor_between(vf_load(before + r), vf_load(after + r)));

    for (int r = 0; r < rows; r++) {
        row_exp(row[r].s, row[r].from, row[r].to, scale, after[r], mark);
        float sum = row_sum(row[r].s, row[r].from, row[r].to);
        state.max[row0 + r] = after[r];
        state.sum[row0 + r] = state.sum[row0 + r] * ratio[r] + sum;
        factor[row0 + r] = ratio[r];
    }
}

static void rescale(float *acc, ptrdiff_t ld, int rows, ptrdiff_t n, const float *factor) {
    for (int r = 0; r < rows; r++, acc += ld) {
        if (factor[r] == 1.0f)
            continue;
        vf x = vf_set1(factor[r]);
        for (ptrdiff_t c = 0; c < n; c += VF_LANES)
            vf_store(acc + c, vf_mul(vf_load(acc + c), x));
    }
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
        vf fa = factor_between(left, max), fb = factor_between(right, max);
        vf sum = vf_mul(vf_load(piece_state.sum + r), fb);
        vf_store(state.sum + r, vf_fma(vf_load(state.sum + r), fa, sum));
        vf_store(state.max + r, max);
        vf_store(a + r, fa);
        vf_store(b + r, fb);
    }
    for (int r = 0; r < rows; r++)
        merge_row(acc + r * ld, piece + r * ld, a[r], b[r], n);
}

static void seal(struct qkv_running state, const float *sink, int rows, float *scale, float *lse) {
    const vf none = vf_set1(-INFINITY), zero = vf_set1(0.0f), one = vf_set1(1.0f);
    for (int r = 0; r < rows; r += VF_LANES) {
        vf max = vf_load(state.max + r), sum = vf_load(state.sum + r);
        vf extra = vf_mul(vf_load(sink + r), vf_set1(LOG2_E));
        vf top = vf_max(extra, max);
        vf base = vf_select(vm_eq(top, none), zero, top);
        vf fall = vf_select(vm_eq(max, top), one, vf_exp2(vf_sub(max, base)));
        vf mass = vf_add(vf_mul(sum, fall), vf_exp2(vf_sub(extra, base)));
        vm empty = vm_eq(sum, zero);
        vf_store(scale + r, vf_select(empty, zero, vf_div(fall, mass)));
        /* Without keys the sink itself, which does not survive the way to base 2 and back. */
        vf ln = vf_fma(top, vf_set1(LN_2), vf_log(mass));
        vf_store(lse + r, vf_select(empty, vf_load(sink + r), ln));
    }
}

static void store_scaled(float *out, const float *acc, float scale, ptrdiff_t n) {
    const vf x = vf_set1(scale), zero = vf_set1(0.0f);
    ptrdiff_t c = 0;
    for (; c + VF_LANES <= n; c += VF_LANES)
        vf_store(out + c, vf_fma(vf_load(acc + c), x, zero));
    if (c < n)
        vf_store_part(out + c, vf_fma(vf_load(acc + c), x, zero), (int)(n - c));
}

#endif
