/* SPDX-License-Identifier: Apache-2.0 */
/* What products with stored keys and values take and leave, for the suites of both arithmetics:
 * rows of floats between pages that may not be touched, with gaps that hold NaN. */
#ifndef QKV_TEST_STORED_ROWS_H
#define QKV_TEST_STORED_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ref/ref.h"
#include "support/guard.h"
#include "support/verdict.h"

/* Rows of floats, `length` of each ld. */
struct rows {
    struct guard memory;
    float *at;
    ptrdiff_t ld;
};

struct rows rows_make(int rows, ptrdiff_t length, ptrdiff_t gap);
struct rows rows_copy(const struct rows *from, int rows, ptrdiff_t length);
void rows_fill(struct rows *r, int rows, ptrdiff_t from, ptrdiff_t to, uint64_t seed);
void rows_zero(struct rows *r, int rows, ptrdiff_t from, ptrdiff_t to);

/* Beside the `length` numbers of the rows nothing was written. */
bool rows_intact(const struct rows *r, int rows, ptrdiff_t length);

ptrdiff_t round_to(ptrdiff_t n, ptrdiff_t unit);

/* Which strides, factors and so on a case has: not in step with which cases are due. */
uint64_t turn_of(uint64_t seed);

/* For `next`: nothing may be read there. */
enum { NEXTS = 3 };
const void *const *next_of(uint64_t seed);

/* Element [r][c] of an output beside what it should be. */
struct verdict compare_number(float got, struct ref_value want, int r, ptrdiff_t c);

#endif
