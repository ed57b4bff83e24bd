/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decode's narrow arithmetic (cache.h) adds to the bounds of bound.h. Products are still those
 * of the exact queries and weights in double precision; the bound says how far rounding them, and
 * sums that are kept in fewer digits, may lead away. By the type that K or V is stored in:
 *
 *               a query or weight x, m the largest of its row      a sum of n products x y
 *   bfloat16    2^-8 |x|, and what is below 2^-126                 (n + 4) 2^-23 sum |x y|
 *   float16     2^-11 |x| + 2^-21 m (denormals of x / 16 m)        groups of 8: 8 * 2^-11 |x y|
 *                                                                  each, + 2^-21 m
 *   int8        m / 254                                            exact
 *
 * The largest of a row of weights is that of a block of 256 keys, after V's scales have gone in.
 * bfloat16's instructions round sums as they like (AArch64: to odd) and take denormals for zeros.
 */
#ifndef QKV_TEST_NARROW_H
#define QKV_TEST_NARROW_H

#include "bound.h"

/* Adds to the bound of the dot product of a query with a key of a stored dtype. A query that is not
 * finite makes its row NaN, but in bfloat16; a key that is not finite may do anything. */
void ref_narrow_dot(struct ref_value *dot, int32_t dtype, const float *q, const float *k,
                    int64_t n);

/* Is it such a key's? */
bool ref_may_be_anything(const qkv_attention_params *params, const struct ref_value *score);

/* The values of a row of n keys: v[j], v_dim numbers each. */
struct ref_narrow_values {
    const float *const *v;
    int64_t n, v_dim;
    int32_t dtype;
};

/* By how much the product of weight j (e, of which masked keys have zeros) with a value v may be
 * off: of_weight * |v| + alone. */
struct ref_narrow_error {
    double of_weight, alone;
};

void ref_narrow_weights(struct ref_narrow_error *errors, const struct ref_weight *weights,
                        const struct ref_narrow_values *values);

#endif
