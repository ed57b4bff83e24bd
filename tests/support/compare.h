/* SPDX-License-Identifier: Apache-2.0 */
/* The check that all stage suites share: run a description in a room, compare every element with
 * the reference and with the scalar room, and look at the memory around. It returns a verdict. */
#ifndef QKV_TEST_COMPARE_H
#define QKV_TEST_COMPARE_H

#include "case.h"
#include "ref/ref.h"
#include "rooms.h"
#include "run.h"
#include "verdict.h"

/* NULL if `got` is what `want` asks for, or what is wrong in a few words. */
const char *compare_value(float got, const struct ref_value *want);

/* The same for what a room and the scalar room made of the same element. */
const char *compare_rooms(float got, float scalar, const struct ref_value *want);

/* Makes the description's case for a stage, runs it in the context and in the scalar room, and
 * compares. The message of a failure holds the description. */
struct verdict check_desc(const qkv_context *context, int stage, const struct desc *desc);

/* Compares what a case holds after its call of a stage with the reference alone; check_results
 * looks at the memory around, too. */
struct verdict check_values(const struct test_case *c, int stage);
struct verdict check_results(const struct test_case *c, int stage);

/* Random descriptions of one stage: as many as QKV_TEST_CASES says, of a backward stage a quarter.
 */
struct verdict check_random(const qkv_context *context, int stage);

#endif
