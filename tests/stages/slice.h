/* SPDX-License-Identifier: Apache-2.0 */
/* A part of a call as a call of its own: some rows of one head of one sequence, with views into
 * the same memory and an output of its own. The law of the bits says that nothing changes. */
#ifndef QKV_TEST_SLICE_H
#define QKV_TEST_SLICE_H

#include "support/case.h"
#include "support/run.h"
#include "support/verdict.h"

struct slice {
    int64_t b, h;
    int64_t first, rows; /* of the sequence's queries */
};

/* Runs the slice by itself and compares its bits with those rows of the finished case. A slice
 * that cannot be a call of its own (its rows' positions would change) is fine. */
struct verdict slice_check(const struct test_case *c, int stage, const qkv_context *context,
                           const struct slice *slice);

/* The keys that the slice's call needs so that its last row stands where it stood, which is
 * bottom-right: 0 if there is no such number. All of them if positions do not matter. */
int64_t slice_keys(const struct test_case *c, const struct slice *slice);

/* True if two numbers have the same bits, or are both NaN. */
bool same_bits(float x, float y);

#endif
