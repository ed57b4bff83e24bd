/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors for tests: any order of dimensions, gaps between rows, zero and negative strides,
 * guard pages on both sides. Inputs have NaN in their gaps and must come back unchanged; outputs
 * begin as canaries, and what the view does not cover must stay so. */
#ifndef QKV_TEST_TENSOR_H
#define QKV_TEST_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "guard.h"
#include "verdict.h"

/* How a tensor lies in memory; all zeros: contiguous [batch, heads, length, dim], flush against
 * the page after it. */
struct layout {
    uint8_t order;   /* of batch, heads and length: one of LAYOUT_ORDERS, see tensor.c */
    uint8_t gap[3];  /* elements left after a row of batch, heads, length */
    uint8_t zero;    /* bit d: dimension d has stride 0 (bit 3: the last, of a mask or bias) */
    uint8_t reverse; /* bit d: dimension d < 3 is walked backwards */
    uint8_t side;    /* an enum guard_side */
    uint8_t offset;  /* elements between the guarded side and the data */
};

enum { LAYOUT_ORDERS = 6, LAYOUT_BHSD = 0, LAYOUT_BSHD = 1 };

struct tensor {
    qkv_tensor view; /* dtype NONE if there is no such tensor */
    int64_t dim[4];
    struct layout layout;
    struct guard memory;
    unsigned char *before; /* inputs: what memory held after tensor_freeze */
};

/* A tensor whose elements are all canaries. dtype: QKV_F32 or QKV_BOOL. */
struct tensor tensor_make(int dtype, const int64_t dim[4], struct layout layout);
void tensor_free(struct tensor *tensor);

/* The element (b, h, t, c) of a view. */
float *tensor_f32(const qkv_tensor *view, int64_t b, int64_t h, int64_t t, int64_t c);
uint8_t *tensor_bool(const qkv_tensor *view, int64_t b, int64_t h, int64_t t, int64_t c);

/* Fills the view of a float32 tensor: value(argument, hash) where the hash comes from the seed
 * and the element's place, zero strides counting as place 0. */
typedef float tensor_value(void *argument, uint64_t hash);
void tensor_fill(struct tensor *tensor, uint64_t seed, tensor_value *value, void *argument);

/* Remembers an input; tensor_check_input fails if it or its surroundings changed since. */
void tensor_freeze(struct tensor *tensor);
struct verdict tensor_check_input(const struct tensor *tensor, const char *name);

/* Fails if anything outside the view was written, or an element of the view was not. */
struct verdict tensor_check_output(const struct tensor *tensor, const char *name);

#endif
