/* SPDX-License-Identifier: Apache-2.0 */
/* What the five stage suites have in common: sizes alone and pairwise, options alone and
 * pairwise, random descriptions, each against the reference and against the scalar room. */
#ifndef QKV_TEST_STAGE_H
#define QKV_TEST_STAGE_H

#include "support/compare.h"
#include "support/rooms.h"

/* Fails the running test if the verdict did. */
void stage_assert(const struct verdict *verdict);

/* main() of a stage's suite. add: puts the stage's own tests into the suite, or NULL. */
int stage_main(int stage, void (*add)(TCase *tcase));

#endif
