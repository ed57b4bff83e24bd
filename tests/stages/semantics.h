/* SPDX-License-Identifier: Apache-2.0 */
/* What the suite of the semantics has in common: one call done both ways, fused and by the three
 * stages one after the other, and short names for what stands in its tensors. */
#ifndef QKV_TEST_SEMANTICS_H
#define QKV_TEST_SEMANTICS_H

#include <check.h>
#include <stdbool.h>

#include "support/case.h"
#include "support/rooms.h"

/* The case's inputs are made; prepare them (NULL: nothing to do). */
typedef void semantics_prepare(struct test_case *c);

/* The case has run; see whether it is right. */
typedef void semantics_expect(const struct test_case *c);

/* Makes the case, prepares it, and expects the same of the fused call and of scores, softmax and
 * mix. Both must also agree with the reference. */
void semantics_check(const struct room *room, const struct desc *desc, semantics_prepare *prepare,
                     semantics_expect *expect);

/* The case of one fused call, prepared and run: for comparisons of bits. */
void semantics_run(struct test_case *c, const struct room *room, const struct desc *desc,
                   semantics_prepare *prepare);

/* True if the out and LSE of row i of head h of sequence b have the same bits in both. */
bool semantics_same_row(const struct test_case *x, const struct test_case *y, int64_t b, int64_t h,
                        int64_t i);

/* Elements of a case of batch 1 (or, where there is a b, of any). */
float *q_at(const struct test_case *c, int64_t h, int64_t i, int64_t x);
float *k_at(const struct test_case *c, int64_t h, int64_t j, int64_t x);
float *v_at(const struct test_case *c, int64_t h, int64_t j, int64_t x);
float out_at(const struct test_case *c, int64_t b, int64_t h, int64_t i, int64_t x);
float lse_at(const struct test_case *c, int64_t b, int64_t h, int64_t i);

void set_row(float *row, int64_t n, float value);

/* V = 1, so that out is the weights; v_dim must be kv_len. */
void make_v_identity(struct test_case *c);

/* Q = 0, so that every score is 0 before bias and ALiBi. */
void make_q_zero(struct test_case *c);

bool row_is_nan(const struct test_case *c, int64_t b, int64_t h, int64_t i);
bool row_is(const struct test_case *c, int64_t b, int64_t h, int64_t i, float value);
bool near(double x, double y); /* within 1e-5, relative to what is larger than 1 */

void add_masking_tests(TCase *tcase);
void add_number_tests(TCase *tcase);
void add_position_tests(TCase *tcase);
void add_zero_tests(TCase *tcase);

#endif
