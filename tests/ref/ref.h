/* SPDX-License-Identifier: Apache-2.0 */
/* The reference: every stage in double precision, one row at a time, straight from the
 * definitions in qkv.h, with a bound on the error that a correct float32 kernel can make.
 *
 * Inputs are read as the float32 numbers that they are. Nothing here is fast or clever. */
#ifndef QKV_TEST_REF_H
#define QKV_TEST_REF_H

#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

/* What an element should be. value NaN: it must be NaN. value infinite: it must be that
 * infinity. Otherwise |element - value| <= bound; a bound of infinity accepts anything. */
struct ref_value {
    double value, bound;
};

/* Where a row stands in a tensor: ragged sequences lie end to end in batch 0. */
struct ref_place {
    int64_t b, t;
};

struct ref_place ref_query_place(const qkv_attention_params *params, int64_t b, int64_t i);
struct ref_place ref_key_place(const qkv_attention_params *params, int64_t b, int64_t j);

/* Of sequence b: the rows that an output has, the queries among them (fewer if padded), the
 * keys; and the dimension of V. */
int64_t ref_rows(const qkv_attention_params *params, int64_t b);
int64_t ref_queries(const qkv_attention_params *params, int64_t b);
int64_t ref_keys(const qkv_attention_params *params, int64_t b);
int64_t ref_v_dim(const qkv_attention_params *params);

/* Whether query i of head h keeps key j, as far as masks decide: causal, window, lengths, boolean
 * mask, -inf in the bias. */
bool ref_keeps(const qkv_attention_params *params, int64_t b, int64_t h, int64_t i, int64_t j);

/* The row i of head h of sequence b. k and v are rows of floats; a dtype of QKV_I8 says that each
 * number is an integer times the row's scale, and that the kernel applies the scale apart. scores
 * and weights have kv_len elements, out v_dim; lse is one element. ref_attention gives the weights,
 * too. */
void ref_scores(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                int64_t h, int64_t i, struct ref_value *scores);
void ref_softmax(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                 int64_t h, int64_t i, struct ref_value *weights, struct ref_value *lse);
void ref_mix(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b, int64_t h,
             int64_t i, struct ref_value *out);
void ref_attention(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                   int64_t h, int64_t i, struct ref_value *weights, struct ref_value *out,
                   struct ref_value *lse);

/* Element (b, h, t, c) of one output of project. which: a qkv_which; layout IN_OUT or OUT_IN. */
struct ref_value ref_project(const qkv_project_params *params, const qkv_project_tensors *tensors,
                             int which, int64_t b, int64_t h, int64_t t, int64_t c);

/* A call of project_backward, and one element of each output: of dX by token (of all batch
 * entries) and input, of dW by input and column however it is stored, of db by column. before: what
 * stood there if the call accumulates, else 0. */
struct ref_projection {
    const qkv_project_params *params;
    const qkv_project_tensors *tensors;
    const qkv_project_gradients *gradients;
};

struct ref_value ref_gradient_x(const struct ref_projection *call, int64_t token, int64_t input,
                                float before);
struct ref_value ref_gradient_w(const struct ref_projection *call, int which, int64_t input,
                                int64_t column, float before);
struct ref_value ref_gradient_b(const struct ref_projection *call, int which, int64_t column,
                                float before);

#endif
