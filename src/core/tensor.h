/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that a strided view touches: whether it fits in the address space, whether it
 * overlaps itself or another view.
 */
#ifndef QKV_CORE_TENSOR_H
#define QKV_CORE_TENSOR_H

#include <qkv/qkv.h>

/* A view's bytes: begin + sum of stride[d] * x[d] + e, 0 <= x[d] < count[d], 0 <= e < element.
 * Strides are positive (a negative one starts at its far end); dimensions of one element are
 * left out. end is the first byte after the last. element = 0: the view is empty, and the rest is
 * not set. */
struct qkv_footprint {
    uintptr_t begin, end;
    int64_t stride[4], count[4];
    int dims, element;
};

/* Checks data (null, unless the view is empty; aligned), and that the addresses fit. */
qkv_status qkv_footprint_make(struct qkv_footprint *f, const qkv_tensor *tensor,
                              const int64_t shape[4], int element, qkv_arg arg);

/* The same for a float32 tensor whose last dimension is contiguous. */
qkv_status qkv_check_tensor(struct qkv_footprint *f, const qkv_tensor *tensor,
                            const int64_t shape[4], qkv_arg arg);

/* The footprint of a plain array of `count` elements, NULL or empty included. */
struct qkv_footprint qkv_footprint_array(const void *data, int64_t count, int element);

/* Can two different indices name the same element? A view passes whose dimensions nest: sorted by
 * stride, each steps over everything inside it. */
int qkv_overlaps_itself(const struct qkv_footprint *f);

/* Do two views share a byte? Exact for views whose dimensions nest; for others the search may give
 * up and answer yes. */
int qkv_overlap_exactly(const struct qkv_footprint *a, const struct qkv_footprint *b);

static inline int qkv_overlap(const struct qkv_footprint *a, const struct qkv_footprint *b) {
    if (!a->element || !b->element || a->end <= b->begin || b->end <= a->begin)
        return 0;
    return qkv_overlap_exactly(a, b);
}

/* Does an output's view share a byte with a plain array of floats or of 32-bit integers? */
static inline int qkv_overlaps_array(const struct qkv_footprint *out, const void *data,
                                     int64_t count) {
    if (!data)
        return 0;
    const struct qkv_footprint f = qkv_footprint_array(data, count, 4);
    return qkv_overlap(out, &f);
}

/* Do two tensors of one shape name the same elements? Then a stage may work in place. */
static inline int qkv_same_view(const qkv_tensor *a, const qkv_tensor *b, const int64_t shape[4]) {
    int same = a->data == b->data;
    for (int d = 0; d < 3; d++)
        same &= shape[d] <= 1 || a->stride[d] == b->stride[d];
    return same;
}

#endif
