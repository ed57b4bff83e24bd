/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bfloat16 keys and values by the instructions of FEAT_BF16: BFDOT, and BFMMLA for more than a few
 * rows. A row's sum is one ascending chain over pairs of steps, from zero: the two products added,
 * and this added to the sum. BFMMLA is defined as two such steps, so that it makes no difference
 * which of them a row goes through. Both round to odd and take denormals as zeros, whatever the
 * floating-point environment says.
 */
#include "narrow_product.h"

typedef float32x4_t sum_t;

enum { UNIT = 2 };

static inline INLINED bfloat16x8_t bf16_of(uint32x4_t words) {
    return vreinterpretq_bf16_u32(words);
}

static inline INLINED sum_t dot(sum_t sum, uint32x4_t columns, uint32x4_t row, const int lane,
                                const int whose) {
    const bfloat16x8_t y = bf16_of(columns), x = bf16_of(row);
    (void)whose;
    switch (lane) {
    case 0:
        return vbfdotq_laneq_f32(sum, y, x, 0);
    case 1:
        return vbfdotq_laneq_f32(sum, y, x, 1);
    case 2:
        return vbfdotq_laneq_f32(sum, y, x, 2);
    default:
        return vbfdotq_laneq_f32(sum, y, x, 3);
    }
}

static inline INLINED sum_t mmla(sum_t sum, uint32x4_t rows, uint32x4_t columns, const int whose) {
    (void)whose;
    return vbfmmlaq_f32(sum, bf16_of(rows), bf16_of(columns));
}

static inline INLINED sum_t dot_each(sum_t sum, uint32x4_t rows, uint32x4_t columns,
                                     const int whose) {
    (void)whose;
    return vbfdotq_f32(sum, bf16_of(rows), bf16_of(columns));
}

static inline INLINED float32x4_t sum_floats(sum_t sum) {
    return sum;
}

#include "narrow_mmla.h"
#include "tmpl/narrow_rows.h"

static void round_rows(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_bf16(rows, ld, count, from, to, scale);
}

const struct qkv_narrow_kernels qkv_neon_bf16 = {
    .variant = "bf16",
    .round_queries = round_rows,
    .keys = mmla_key_product,
    .round_weights = round_rows,
    .values = mmla_value_product,
};
