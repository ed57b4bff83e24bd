/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of the law of the bits stands in three files; this joins them. */
#ifndef QKV_TEST_BITS_H
#define QKV_TEST_BITS_H

#include <check.h>

#include "support/run.h"

/* Every way of running, and every number of threads that is asked for. */
enum { BITS_WAYS = 13 };
extern const struct how bits_ways[BITS_WAYS];

/* One description in so many of a full random run is asked about the bits. */
enum { BITS_SHARE = 10 };

void bits_add_project_tests(TCase *tcase);
void bits_add_backward_tests(TCase *tcase);

#endif
