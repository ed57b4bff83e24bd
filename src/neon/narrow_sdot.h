/* SPDX-License-Identifier: Apache-2.0 */
/* SDOT with word `lane` of a row: the variants that have it share this. */
#ifndef QKV_NEON_NARROW_SDOT_H
#define QKV_NEON_NARROW_SDOT_H

#include "narrow_product.h"

static inline INLINED int32x4_t sdot_lane(int32x4_t sum, int8x16_t y, uint32x4_t row,
                                          const int lane) {
    const int8x16_t x = vreinterpretq_s8_u32(row);
    switch (lane) {
    case 0:
        return vdotq_laneq_s32(sum, y, x, 0);
    case 1:
        return vdotq_laneq_s32(sum, y, x, 1);
    case 2:
        return vdotq_laneq_s32(sum, y, x, 2);
    default:
        return vdotq_laneq_s32(sum, y, x, 3);
    }
}

#endif
