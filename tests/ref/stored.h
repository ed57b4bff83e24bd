/* SPDX-License-Identifier: Apache-2.0 */
/* The two half-width formats of a cache by their definitions, in double precision: binary16 (IEEE
 * 754), and bfloat16, which is the upper half of a binary32. */
#ifndef QKV_TEST_REF_STORED_H
#define QKV_TEST_REF_STORED_H

#include <stdint.h>

enum ref_format { REF_F16, REF_BF16, REF_FORMATS };

/* How many bits of a number are its fraction; the rest are its exponent and its sign. */
int ref_fraction_bits(enum ref_format format);

/* The number that 16 bits stand for. */
double ref_format_value(enum ref_format format, uint32_t bits);

/* The number of the format that is nearest to x, ties to even; infinite where that would be too
 * large for the format. */
double ref_format_rounded(enum ref_format format, double x);

#endif
