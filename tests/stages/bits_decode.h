/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of the law of the bits with a cache stands in three files; this joins them. */
#ifndef QKV_TEST_BITS_DECODE_H
#define QKV_TEST_BITS_DECODE_H

#include <check.h>

#include "support/cached.h"
#include "support/rng.h"

/* Properties of a case that was run: the sequence of entry 0 copied or shared while the first one
 * is forgotten, then saved, forgotten and loaded. It leaves the case with that sequence. */
struct verdict bits_after_moves(struct cached *x, const qkv_context *context, struct rng *rng);

/* Tokens decoded one by one. */
void bits_add_step_tests(TCase *tcase);

#endif
