/* SPDX-License-Identifier: Apache-2.0 */
/* The suite of project_backward stands in two files; this joins them. */
#ifndef QKV_TEST_PROJECT_BACKWARD_BITS_H
#define QKV_TEST_PROJECT_BACKWARD_BITS_H

#include <check.h>

void project_backward_add_bits(TCase *tcase);

#endif
