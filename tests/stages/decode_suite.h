/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of decode stands in two files; this joins them. */
#ifndef QKV_TEST_DECODE_SUITE_H
#define QKV_TEST_DECODE_SUITE_H

#include <check.h>

void decode_add_meaning_tests(TCase *tcase);

#endif
