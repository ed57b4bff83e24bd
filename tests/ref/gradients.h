/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference of the backward stages: the gradients of a whole call in double precision, straight
 * from the formulas in qkv.h, with a bound on the error that a correct float32 kernel can make.
 * out, lse, weights and the incoming gradients are read as the float32 numbers that they are: the
 * bounds cover the arithmetic of the backward call alone, not the errors that its inputs carry.
 *
 * Where the bounds come from; u, E, SLACK and the error of a score are those of bound.h.
 *
 * Sums. A term that goes through r roundings on its way adds r u |term| to the error. Chains over
 * head_dim and v_dim are ascending, as bound.h has them. The others are:
 *   D_i = sum_c dO_ic O_ic, and sum_j A_ij dA_ij in softmax: any order of n terms, r = n + 4
 *   dV_j, dK_j over the rows of a group: a chain of up to QKV_ROWS rows from zero in each row block
 *     (of half as many for wide heads), blocks and heads joined one after the other
 *   dQ_i over the keys: a chain of up to QKV_KEY_BLOCK keys from zero in each block, blocks and
 *     pieces joined one after the other
 *   the gradient of a sink over batch and rows: any order
 * to which a few are added for the scale, the product before the sum, and the last store.
 *
 * Weight. P = exp(s - lse) has the relative error expm1(r) with
 *   r = error of s + u (3 |lse| + 3 |s - lse|) + E
 * for the factor log2(e) of both and the rounding of their sum. Nothing is divided: an error of lse
 * is an input's. A kernel may prefer any of the accurate exponentials to the one that the call
 * names, and may flush what is below 2^-126: FLOOR, absolutely.
 *
 * dS = P (dP - D): P's own error times |dP - D|, and P times the errors of dP, of D and of their
 * difference. With a soft-cap it is multiplied by 1 - t^2, t = tanh(x), whose error is 2 |t| times
 * that of t (as in bound.h) and three roundings: near |t| = 1 that is absolute, of the order of u.
 *
 * What this catches. One row more or less in dK_j moves it by |dS| |Q|, against a bound of about u
 * times (head_dim/2 + v_dim/2 + rows) of the sum of such terms: seen while rows (rows + dims) is
 * below 2^23; keys in dQ_i likewise.
 */
#ifndef QKV_TEST_GRADIENTS_H
#define QKV_TEST_GRADIENTS_H

#include "ref.h"

/* What a backward stage should write, densely: element ((b * heads + h) * len + t) * dim + c, where
 * len is the call's q_len or kv_len and t counts from the sequence's first row. NULL where the
 * stage writes nothing. A value that is not finite stands for any that is not. */
struct ref_gradients {
    struct ref_value *q, *k, *v;
    struct ref_value *scores, *weights, *bias;
    struct ref_value *sinks; /* [q_heads] */
};

/* stage: one of the four. `tensors` and `given` (the gradients that the stage reads) as the stage
 * reads them. ref_gradients_free frees what was made. */
struct ref_gradients ref_backward(int stage, const qkv_attention_params *params,
                                  const qkv_tensors *tensors, const qkv_gradients *given);
void ref_gradients_free(struct ref_gradients *made);

#endif
