/* SPDX-License-Identifier: Apache-2.0 */
/* Footprints of strided views (tensor.h). */
#include "tensor.h"

#include "status.h"

static void add_dimension(struct qkv_footprint *f, int64_t stride, int64_t count) {
    int d = f->dims++;
    for (; d > 0 && f->stride[d - 1] > stride; d--) {
        f->stride[d] = f->stride[d - 1];
        f->count[d] = f->count[d - 1];
    }
    f->stride[d] = stride;
    f->count[d] = count;
}

qkv_status qkv_footprint_make(struct qkv_footprint *f, const qkv_tensor *tensor,
                              const int64_t shape[4], int element, qkv_arg arg) {
    const qkv_status overflow = qkv_fail(arg, QKV_FAULT_OVERFLOW);
    int64_t low = 0, high = element, reach, stride;

    f->dims = f->element = 0;
    for (int d = 0; d < 4; d++)
        if (shape[d] == 0)
            return QKV_OK;
    if (!tensor->data)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)tensor->data % (uintptr_t)element)
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    f->element = element;
    for (int d = 3; d >= 0; d--) { /* mostly from the smallest stride up */
        if (shape[d] == 1)
            continue;
        if (__builtin_mul_overflow(tensor->stride[d], (int64_t)element, &stride) ||
            __builtin_mul_overflow(stride, shape[d] - 1, &reach) || reach == INT64_MIN)
            return overflow;
        int64_t *side = reach < 0 ? &low : &high;
        if (__builtin_add_overflow(*side, reach, side))
            return overflow;
        add_dimension(f, stride < 0 ? -stride : stride, shape[d]);
    }
    if (__builtin_add_overflow((uintptr_t)tensor->data, low, &f->begin) ||
        __builtin_add_overflow((uintptr_t)tensor->data, high, &f->end) || f->end > INTPTR_MAX)
        return overflow;
    return QKV_OK;
}

/* Do the view's elements stand one behind the other, `count` in all? Then it has none of the faults
 * below. Most views do, and in the shortest calls the checks count. */
static int is_dense(const qkv_tensor *t, const int64_t shape[4], int64_t *count) {
    int64_t bytes;
    *count = 1;
    for (int d = 3; d >= 0; d--)
        if (t->stride[d] != *count || __builtin_mul_overflow(*count, shape[d], count))
            return 0;
    return *count > 0 && t->data && (uintptr_t)t->data % sizeof(float) == 0 &&
           !__builtin_mul_overflow(*count, (int64_t)sizeof(float), &bytes) &&
           (uintptr_t)t->data <= (uintptr_t)INTPTR_MAX - (uintptr_t)bytes;
}

qkv_status qkv_check_tensor(struct qkv_footprint *f, const qkv_tensor *tensor,
                            const int64_t shape[4], qkv_arg arg) {
    int64_t count;
    if (tensor->data && tensor->dtype != QKV_F32)
        return qkv_fail(arg, QKV_FAULT_DTYPE);
    if (tensor->reserved)
        return qkv_fail(arg, QKV_FAULT_FUTURE);
    if (tensor->data && shape[3] > 1 && tensor->stride[3] != 1)
        return qkv_fail(arg, QKV_FAULT_STRIDE);
    if (is_dense(tensor, shape, &count)) {
        *f = qkv_footprint_array(tensor->data, count, sizeof(float));
        return QKV_OK;
    }
    return qkv_footprint_make(f, tensor, shape, sizeof(float), arg);
}

struct qkv_footprint qkv_footprint_array(const void *data, int64_t count, int element) {
    struct qkv_footprint f = {0};
    if (!data || count == 0)
        return f;
    f.begin = (uintptr_t)data;
    f.end = f.begin + (uintptr_t)(count * element);
    f.element = element;
    if (count > 1)
        add_dimension(&f, element, count);
    return f;
}

int qkv_overlaps_itself(const struct qkv_footprint *f) {
    int64_t extent = f->element;
    for (int d = 0; d < f->dims; d++) {
        if (f->stride[d] < extent)
            return 1;
        extent += f->stride[d] * (f->count[d] - 1);
    }
    return 0;
}

/* One unknown of the equation below: stride * x with low <= x <= high. */
struct term {
    int64_t stride, low, high;
};

static int64_t div_floor(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* Is there an x with sum of stride * x = rest? Terms from the largest stride down; where they nest,
 * each level has a few candidates. steps bounds the search for views that do not. */
static int solvable(const struct term *t, int n, int64_t rest, int *steps) {
    if (n == 0)
        return rest == 0;
    int64_t low = 0, high = 0; /* what the smaller terms can add up to */
    for (int i = 1; i < n; i++) {
        low += t[i].stride * t[i].low;
        high += t[i].stride * t[i].high;
    }
    int64_t first = -div_floor(high - rest, t->stride), last = div_floor(rest - low, t->stride);
    first = first > t->low ? first : t->low;
    last = last < t->high ? last : t->high;
    for (int64_t x = first; x <= last; x++) {
        if (--*steps < 0)
            return 1;
        if (solvable(t + 1, n - 1, rest - t->stride * x, steps))
            return 1;
    }
    return 0;
}

/* Adds a term, joining it to one of the same stride; keeps them sorted downwards. */
static int add_term(struct term *terms, int n, struct term t) {
    int i = 0;
    if (t.stride == 0)
        return n;
    while (i < n && terms[i].stride > t.stride)
        i++;
    if (i < n && terms[i].stride == t.stride) {
        terms[i].low += t.low;
        terms[i].high += t.high;
        return n;
    }
    for (int k = n; k > i; k--)
        terms[k] = terms[k - 1];
    terms[i] = t;
    return n + 1;
}

int qkv_overlap_exactly(const struct qkv_footprint *a, const struct qkv_footprint *b) {
    struct term terms[9];
    int n = 0, steps = 4096;
    for (int d = 0; d < a->dims; d++)
        n = add_term(terms, n, (struct term){a->stride[d], 0, a->count[d] - 1});
    for (int d = 0; d < b->dims; d++)
        n = add_term(terms, n, (struct term){b->stride[d], 1 - b->count[d], 0});
    n = add_term(terms, n, (struct term){1, 1 - b->element, a->element - 1});
    return solvable(terms, n, (int64_t)b->begin - (int64_t)a->begin, &steps);
}
