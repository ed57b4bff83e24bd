/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of rotate for its suite: random ones beside a reference in long double, and small ones of
 * one shape. */
#ifndef QKV_TEST_ROTATE_CASE_H
#define QKV_TEST_ROTATE_CASE_H

#include <check.h>
#include <stdint.h>

#include <qkv/cache.h>

#include "support/verdict.h"

/* Fails the running test if the verdict did. */
void require(struct verdict verdict);

struct angle {
    double cos, sin, error; /* error: of either */
};

/* A pair's angle at a position, from tables or from theta. */
struct angle rotate_angle(const qkv_rope *r, int64_t position, int64_t pair);

/* A random call, its rows, and what must stay as it was. */
struct verdict rotate_check_case(const qkv_context *context, int64_t number);

/* One sequence of rows like `rotate_x`, which rotate_fill fills. */
enum { HEADS = 3, TOKENS = 70, DIM = 36 };
extern float rotate_x[HEADS][TOKENS][DIM];
void rotate_fill(void);
qkv_rotate_params rotate_params(int pairs);
qkv_status rotate_rows(const qkv_rotate_params *p, const void *from, void *to,
                       const qkv_context *context);

void rotate_add_refused_tests(TCase *tcase);

#endif
