/* SPDX-License-Identifier: Apache-2.0 */
/* What the references of the stages and of their gradients share. */
#ifndef QKV_TEST_ROWS_H
#define QKV_TEST_ROWS_H

#include <stddef.h>

#include "ref.h"

/* Row (place, h) of a tensor, and the key/value head that a query head reads. */
const float *ref_row_of(const qkv_tensor *x, struct ref_place place, int64_t h);
int64_t ref_kv_head(const qkv_attention_params *params, int64_t h);

double ref_scale(const qkv_attention_params *params);

/* The score of a pair: scaled and nothing else, and as the softmax sees it (-inf if masked). */
struct ref_value ref_scaled(const qkv_attention_params *params, const qkv_tensors *tensors,
                            int64_t b, int64_t h, int64_t i, int64_t j);
struct ref_value ref_score(const qkv_attention_params *params, const qkv_tensors *tensors,
                           int64_t b, int64_t h, int64_t i, int64_t j);

/* The relative errors of the exponentials, by qkv_exp. */
extern const double ref_exp_errors[QKV_EXP_COUNT];

/* n elements of zeros; ends the process when memory runs out. */
void *ref_allocate(int64_t n, size_t size);

#endif
