/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partial results joined in double precision, straight from the definition in cache.h, with bounds.
 *
 * u = 2^-24. Two rows whose logsumexp are d apart get the weights 1 / (1 + f) and f / (1 + f), f =
 * e^-d: f has the relative error r = 3u d for its argument, E for the exponential (bound.h), and
 * what the joined logsumexp was off by; a weight w follows it by (1 - w) r, and 4u are rounded on
 * the way to the output. The joined logsumexp is off by the smaller weight times r and by its own
 * roundings: u for 1 + f, 4u of the logarithm's value, and u of the sum. A part's error is the sum
 * over the joins that it goes through. Where f is flushed to zero, 2^-126 of each value is lost.
 */
#ifndef QKV_TEST_REF_MERGE_H
#define QKV_TEST_REF_MERGE_H

#include <qkv/cache.h>

#include "ref.h"

/* Row i of head h of batch entry b: v_dim values, and one. */
void ref_merge(const qkv_merge_params *params, const qkv_merge_tensors *tensors, int64_t b,
               int64_t h, int64_t i, struct ref_value *out, struct ref_value *lse);

#endif
