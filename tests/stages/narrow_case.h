/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of one variant's kernels: rows that it rounds, and products with them. */
#ifndef QKV_TEST_NARROW_CASE_H
#define QKV_TEST_NARROW_CASE_H

#include "stored_case.h"
#include "stored_rows.h"

struct narrow_variant {
    int type; /* a qkv_stored */
    const struct qkv_narrow_kernels *kernels;
};

/* Rows of one kind in turn, columns [from, to). */
struct rounding_case {
    int rows, from, to, kind;
    uint64_t seed;
};

/* Kinds: ordinary, zeros, tiny, huge, of very different sizes, with a NaN, with an infinity. */
enum { NARROW_KINDS = 7 };

/* Each number is the nearest of its type, or its row's scale is NaN; zeros stand behind. */
struct verdict check_queries(const struct narrow_variant *v, const struct rounding_case *c);
struct verdict check_weights(const struct narrow_variant *v, const struct rounding_case *c);

/* Beside double precision; and each row, and each panel of keys, has the bits that it has alone. */
struct verdict check_narrow_keys(const struct narrow_variant *v, const struct key_case *c);
struct verdict check_narrow_values(const struct narrow_variant *v, const struct value_case *c);

/* A number of a rounded row. */
double narrow_number(int type, const float *row, int c, bool weights);

#endif
