/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The losses in double precision, straight from the definitions in qkv.h, with bounds.
 *
 * u = 2^-24. Squared: the difference and the loss are rounded once each, the gradient's factor, its
 * product and the difference likewise. Cross-entropy, with r_j the relative error of exp(x_j -
 * max), which is 3u |x_j - max| for the argument and E for the exponential (bound.h): the sum's is
 * r = sum p_j r_j; a row's loss is off by r on top of the logarithm's own 4u (1 ulp, or a few of
 * the build without SLEEF, relative to it) and of what the double precision rounds; its gradient
 * p_j / counted by the factor r_j + r + 3u; the label's, (p - 1) / counted, by the others' errors
 * in the sum and those in the difference, which is taken before anything is rounded.
 */
#ifndef QKV_TEST_REF_LOSS_H
#define QKV_TEST_REF_LOSS_H

#include "ref.h"

/* The loss of a call. */
struct ref_value ref_loss(const qkv_loss_params *params, const qkv_loss_tensors *tensors);

/* One row of its gradient, columns long. */
void ref_loss_gradient(const qkv_loss_params *params, const qkv_loss_tensors *tensors, int64_t row,
                       struct ref_value *gradient);

#endif
