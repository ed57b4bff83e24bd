/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of what nobody sees stands in two files; this joins them. */
#ifndef QKV_TEST_UNSEEN_H
#define QKV_TEST_UNSEEN_H

#include <check.h>

void unseen_add_cache_test(TCase *tcase);

#endif
