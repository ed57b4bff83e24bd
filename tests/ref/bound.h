/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the error bounds of the reference come from.
 *
 * u = 2^-24 is the unit roundoff: fl(x op y) = (x op y)(1 + d), |d| <= u. All bounds below are of
 * first order in u and are multiplied by SLACK for the higher orders.
 *
 * Dot product. One ascending chain of n fused multiply-adds: the product of step p (from 0) goes
 * through n - p roundings, and in the scalar room, which does not fuse, through one more of its
 * own. So the error is at most u * sum_p (n - p + 1) |x_p y_p|: about n/2 * u * |x||y| on ordinary
 * data. This is tighter than n * u * |x||y|, and holds for the ascending chain that the law of the
 * bits prescribes.
 *
 * Projected element. A chain of its own for each stretch of QKV_STRETCH inputs; stretch i of m,
 * joined from left to right, then goes through m - max(i, 1) additions: at d_model 4096 a 25th
 * of the bound of one chain on ordinary data.
 *
 * int8. The chain runs over integers, and the row's scale comes after it: the number that the
 * reference sees is their rounded product, u * sum_p |x_p y_p|, and the kernel's product with the
 * scale adds u * |s|. Of V both stand at the weight: 2u.
 *
 * Score. Scaling adds SCALE_ROUNDINGS * u * |s| (the scale itself, the product, a factor log2(e)).
 * The soft-cap c * tanh(s / c) adds 2u|s/c| to tanh's argument, shrinks what came in by tanh' <= 1,
 * and adds TANH_ULPS * 2u * |tanh| (SLEEF u35; an ulp is at most 2u) and one rounding. ALiBi
 * adds the roundings of slope * distance and of the sum; the bias that of the sum.
 *
 * Weight. e_j = exp(s_j - m) has the relative error expm1(r_j) with
 *   r_j = error of s_j
 *       + 3u |s_j - m|                  the argument: difference, factor log2(e), product
 *       + 2u M (1 + rescales)           M = max |s|: the rounding of max * scale
 *       + E (1 + rescales)              exp or exp2 itself, here and in each rescale
 *       + u rescales                    the products of the rescales
 * where E is the relative error of the call's exponential (EXP_ERRORS; stages/exp2.c measures
 * them: an ulp is at most 2u) and a rescale happens at most once a key block, once a piece and once
 * for the sink. The arguments of the rescales and of the weight add up to s_j - m as the maximum
 * only rises. Below 2^-126 an exp may be flushed to zero: FLOOR * (1 + rescales), absolutely. The
 * sum L of the e_j (and of the sink's) has the relative error r_L = sum_j w_j r_j + u * additions.
 *
 * Out. O_c = sum_j e_j v_jc / L is again an ascending chain:
 *   sum_j w_j |v_jc| (r_j + u (n - j + 1 + rescales)) + |O_c| (r_L + 3u) + FLOOR terms,
 * where j counts the keys that are kept: masked keys add exact zeros. As O_c lies between the
 * smallest and the largest v_jc (and 0), the error is never more than twice the largest |v_jc|.
 *
 * LSE. log(L) + m: r_L + 2u |log L| + u |LSE| + 3u |m|.
 *
 * What this catches. With n kept keys of like weight, a dropped key moves O_c by |v_c|/n, where
 * the bound is about u (head_dim/2 + n/2) * mean |v_c|: the key is seen while n * (n + head_dim)
 * is less than 2^25. A scale that is off by a factor 1 + d moves scores by d |s|, against
 * u (head_dim/2) |q||k| scale: seen for d above a few times head_dim * 2^-24.
 */
#ifndef QKV_TEST_BOUND_H
#define QKV_TEST_BOUND_H

#include <stdint.h>

#include "config.h"
#include "ref.h"

#define REF_U 0x1p-24
#define REF_FLOOR 0x1p-126    /* the smallest normal float */
#define REF_DENORMAL 0x1p-149 /* the smallest float */
#define REF_SLACK 1.02

/* By qkv_exp. Without SLEEF, one polynomial of about 2 ulp serves where SLEEF did. */
#if QKV_SLEEF
#define REF_EXP_ERRORS \
    { 2 * REF_U, 7 * REF_U, 5 * REF_U, 4e-6 }
#else
#define REF_EXP_ERRORS \
    { 6 * REF_U, 6 * REF_U, 5 * REF_U, 4e-6 }
#endif
#define REF_TANH_ULPS 3.5
#define REF_SCALE_ROUNDINGS 4.0

/* A weight on its way: the exact e_j = exp(s_j - m), and the relative errors r_j. */
struct ref_weight {
    double e, relative;
};

/* A row of weights on its way. */
struct ref_row {
    double max;      /* of the scores and the sink */
    double sum;      /* L */
    double kept;     /* how many keys have a finite score */
    double rescales; /* at most so many */
    double exp;      /* E */
    double relative; /* r_L */
    bool narrow;     /* weights are rounded on their way to V (narrow.h) */
    bool alone;      /* softmax by itself, whose scores are taken as they are */
};

/* x . y as one chain, and its bound; y's elements are y_step apart. */
struct ref_value ref_dot(const float *x, const float *y, int64_t y_step, int64_t n);

/* The same, in stretches of QKV_STRETCH. */
struct ref_value ref_stretches(const float *x, const float *y, int64_t y_step, int64_t n);

/* How often the weight of a key can be rescaled in a row of kv_len keys. */
double ref_rescales(int64_t kv_len);

/* exp(s - max) for one score of a row; magnitude: the largest |s| of the row. */
struct ref_weight ref_weigh(const struct ref_value *score, const struct ref_row *row,
                            double magnitude);

/* The LSE of a row that has mass. */
struct ref_value ref_lse(const struct ref_row *row);

#endif
