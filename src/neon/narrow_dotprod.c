/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8 keys and values by SDOT (FEAT_DotProd): queries and weights are integers in [-127, 127]
 * times a scale for each row. Sums of integers are exact, and so are their floats, below 127 * 128
 * * 512 < 2^24: no order, and no shape of a tile, makes a difference.
 */
#include "narrow_sdot.h"

typedef int32x4_t sum_t;

enum { UNIT = 4 };

static inline INLINED sum_t dot(sum_t sum, uint32x4_t columns, uint32x4_t row, const int lane,
                                const int whose) {
    (void)whose;
    return sdot_lane(sum, vreinterpretq_s8_u32(columns), row, lane);
}

static inline INLINED float32x4_t sum_floats(sum_t sum) {
    return vcvtq_f32_s32(sum);
}

#include "narrow_words.h"
#include "tmpl/narrow_rows.h"

static void round_signed(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_i8(rows, ld, count, from, to, scale, 127);
}

static void keys(const struct qkv_key_product *p) {
    walk_keys(p, share(p->rows, DOT_ROWS), DOT_FLAT, dot_key_tile);
}

static void values(const struct qkv_value_product *p) {
    walk_values(p, share(p->rows, DOT_ROWS), DOT_FLAT, dot_value_tile);
}

const struct qkv_narrow_kernels qkv_neon_dotprod = {
    .variant = "dotprod",
    .round_queries = round_signed,
    .keys = keys,
    .round_weights = round_signed,
    .values = values,
};
