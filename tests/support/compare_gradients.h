/* SPDX-License-Identifier: Apache-2.0 */
/* The check that the suites of the backward stages share, in the manner of compare.h. */
#ifndef QKV_TEST_COMPARE_GRADIENTS_H
#define QKV_TEST_COMPARE_GRADIENTS_H

#include "case.h"
#include "run.h"
#include "verdict.h"

/* Makes the description's case for a backward stage, runs it in the context and in the scalar room,
 * and compares. The message of a failure holds the description. */
struct verdict check_gradients(const qkv_context *context, int stage, const struct desc *desc);

/* Compares what a case holds after its call of a backward stage with the reference, and looks at
 * the memory around. */
struct verdict check_gradient_results(const struct test_case *c, int stage);

/* Runs the stage of a case. */
struct verdict run_backward(const struct test_case *c, int stage, const qkv_context *context,
                            struct how how);

#endif
