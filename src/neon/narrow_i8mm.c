/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8 keys and values by the instructions of FEAT_I8MM. Keys: SMMLA, of a few rows SDOT, with
 * queries in [-127, 127]. Values: USMMLA and SUDOT, which take weights without a sign, in [0, 255]:
 * half the error. Sums of integers are exact, and so are their floats, below 255 * 128 * 256 and
 * 127 * 128 * 512 < 2^24: no order, and no instruction, makes a difference.
 */
#include "narrow_sdot.h"

typedef int32x4_t sum_t;

enum { UNIT = 4 };

static inline INLINED sum_t dot_unsigned_lane(sum_t sum, int8x16_t y, uint32x4_t row,
                                              const int lane) {
    const uint8x16_t x = vreinterpretq_u8_u32(row);
    switch (lane) {
    case 0:
        return vsudotq_laneq_s32(sum, y, x, 0);
    case 1:
        return vsudotq_laneq_s32(sum, y, x, 1);
    case 2:
        return vsudotq_laneq_s32(sum, y, x, 2);
    default:
        return vsudotq_laneq_s32(sum, y, x, 3);
    }
}

static inline INLINED sum_t dot(sum_t sum, uint32x4_t columns, uint32x4_t row, const int lane,
                                const int whose) {
    const int8x16_t y = vreinterpretq_s8_u32(columns);
    return whose == KEYS ? sdot_lane(sum, y, row, lane) : dot_unsigned_lane(sum, y, row, lane);
}

static inline INLINED sum_t mmla(sum_t sum, uint32x4_t rows, uint32x4_t columns, const int whose) {
    const int8x16_t y = vreinterpretq_s8_u32(columns);
    return whose == KEYS ? vmmlaq_s32(sum, vreinterpretq_s8_u32(rows), y)
                         : vusmmlaq_s32(sum, vreinterpretq_u8_u32(rows), y);
}

static inline INLINED sum_t dot_each(sum_t sum, uint32x4_t rows, uint32x4_t columns,
                                     const int whose) {
    const int8x16_t y = vreinterpretq_s8_u32(columns);
    return whose == KEYS ? vdotq_s32(sum, vreinterpretq_s8_u32(rows), y)
                         : vusdotq_s32(sum, vreinterpretq_u8_u32(rows), y);
}

static inline INLINED float32x4_t sum_floats(sum_t sum) {
    return vcvtq_f32_s32(sum);
}

#include "narrow_mmla.h"
#include "tmpl/narrow_rows.h"

static void round_signed(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_i8(rows, ld, count, from, to, scale, 127);
}

static void round_unsigned(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_i8(rows, ld, count, from, to, scale, 255);
}

const struct qkv_narrow_kernels qkv_neon_i8mm = {
    .variant = "i8mm",
    .round_queries = round_signed,
    .keys = mmla_key_product,
    .round_weights = round_unsigned,
    .values = mmla_value_product,
};
