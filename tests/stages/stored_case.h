/* SPDX-License-Identifier: Apache-2.0 */
/* What the suite of a cache's numbers and products shares: panels of keys or values, packed here by
 * the definition in kernels_cache.h and not by the library, and products with them. */
#ifndef QKV_TEST_STORED_CASE_H
#define QKV_TEST_STORED_CASE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels.h"
#include "support/guard.h"
#include "support/verdict.h"

extern const char *const stored_names[QKV_STORED_COUNT];

/* Successive steps of a sum that share a word. */
extern const int stored_units[QKV_STORED_COUNT];

/* Panels of `steps` steps of a sum by `width` columns: of keys head_dim by 16, of values 16 by
 * v_pad. Each lies flush against a page that may not be touched, far from the others. */
struct panels {
    int type, count;
    ptrdiff_t steps, width;
    struct guard memory[QKV_BLOCK_PANELS], scales[QKV_BLOCK_PANELS];
    const void *panel[QKV_BLOCK_PANELS];
    const float *scale[QKV_BLOCK_PANELS];
    float *numbers; /* [count, steps, width]: what is stored, without the scales */
};

/* Random numbers; wild: among them NaN, infinities, -0 and denormals, in scales too. */
struct panels panels_make(int type, int count, ptrdiff_t steps, ptrdiff_t width, uint64_t seed,
                          bool wild);
void panels_free(struct panels *p);

/* Stores a pattern (its lowest bits) as one number. */
void panels_put(struct panels *p, int panel, ptrdiff_t step, ptrdiff_t column, uint32_t bits);

/* The pattern that is stored. */
uint32_t panels_bits(const struct panels *p, int panel, ptrdiff_t step, ptrdiff_t column);

/* The same in all columns of a step; and a panel that may not even be read. */
void panels_fill(struct panels *p, int panel, ptrdiff_t step, uint32_t bits);
void panels_forbid(struct panels *p, int panel);

/* What shows if it counts: NaN, where the type has it. */
extern const uint32_t stored_spoiled[QKV_STORED_COUNT];

/* The float of a number that a type stores. */
float stored_value(int type, uint32_t bits);

/* Equal bits, or both NaN, or both zero. */
bool same_number(float x, float y);

/* A product with random numbers, compared with double precision, and bit by bit with the room's
 * qkv_gemm. */
struct key_case {
    int type, rows, panels;
    ptrdiff_t k;
    uint64_t seed;
    bool wild; /* only bit by bit */
};

struct value_case {
    int type, rows, from, to;
    ptrdiff_t n;
    uint64_t seed;
    bool wild;
};

struct verdict check_key_product(const struct qkv_table *table, const struct key_case *c);
struct verdict check_value_product(const struct qkv_table *table, const struct value_case *c);

/* The tests of the conversions. */
void stored_add_number_tests(TCase *tcase);

#endif
