/* SPDX-License-Identifier: Apache-2.0 */
/* What the suite of the semantics of the gradients has in common. */
#ifndef QKV_TEST_SEMANTICS_BACKWARD_H
#define QKV_TEST_SEMANTICS_BACKWARD_H

#include <check.h>
#include <stdbool.h>

#include "support/case.h"
#include "support/rooms.h"

/* The case's inputs are made; changes them. The forward call is then done once more. */
typedef void backward_prepare(struct test_case *c);

/* Makes the case of one backward attention, prepares it (NULL: nothing to do), runs it, and
 * compares it with the reference. */
void backward_run(struct test_case *c, int room, const struct desc *d, backward_prepare *prepare);

/* Row t of head h of the first sequence, n elements. */
void fill_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n, float value);
bool is_zero_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n);
bool is_finite_row(const qkv_tensor *x, int64_t h, int64_t t, int64_t n);

/* The same bits in row t of head 0 of both. */
bool is_same_row(const qkv_tensor *x, const qkv_tensor *y, int64_t t, int64_t n);

void add_nan_tests(TCase *tcase);

#endif
