/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of floats to the numbers that narrow products take, in place (qkv_round_rows_fn in
 * kernels_cache.h), over a room's stored.h. Sixteen are read before their numbers are written,
 * which end before the next ones begin. What is left of a row goes through a copy, since its
 * numbers are written in fours.
 */
#ifndef QKV_TMPL_NARROW_ROWS_H
#define QKV_TMPL_NARROW_ROWS_H

#include <string.h>

#include "quantise.h"

/* How many numbers are written for n. */
static inline size_t padded(int n) {
    return (size_t)(n + 3) / 4 * 4;
}

static inline void round_row_i8(float *row, int from, int to, float factor) {
    unsigned char *out = (unsigned char *)row;
    const vf f = vf_set1(factor);
    int c = from;
    for (; c + QKV_PANEL <= to; c += QKV_PANEL)
        vf_pack_i8(out + c, row + c, f);
    if (c < to) {
        float left[QKV_PANEL] = {0};
        unsigned char packed[QKV_PANEL];
        memcpy(left, row + c, (size_t)(to - c) * sizeof(float));
        vf_pack_i8(packed, left, f);
        memcpy(out + c, packed, padded(to - c));
    }
}

static inline void round_row_bf16(float *row, int from, int to) {
    unsigned char *out = (unsigned char *)row;
    int c = from;
    for (; c + QKV_PANEL <= to; c += QKV_PANEL)
        vf_pack_bf16(out + 2 * c, row + c);
    if (c < to) {
        float left[QKV_PANEL] = {0};
        unsigned char packed[2 * QKV_PANEL];
        memcpy(left, row + c, (size_t)(to - c) * sizeof(float));
        vf_pack_bf16(packed, left);
        memcpy(out + 2 * c, packed, 2 * padded(to - c));
    }
}

/* To integers in [-steps, steps], steps being 127 for signed ones, or 255 where no number is
 * negative. A row with NaN or infinities becomes zeros, and its scale NaN. */
static inline void round_rows_i8(float *rows, ptrdiff_t ld, int count, int from, int to,
                                 float *scale, const float steps) {
    for (int r = 0; r < count; r++) {
        float *row = rows + r * ld;
        const float factor = scale_row(scale + r, row + from, to - from, steps);
        if (factor > 0.0f)
            round_row_i8(row, from, to, factor);
        else
            memset((char *)row + from, 0, padded(to - from));
    }
}

/* To bfloat16, which has NaN and infinities of its own. */
static inline void round_rows_bf16(float *rows, ptrdiff_t ld, int count, int from, int to,
                                   float *scale) {
    for (int r = 0; r < count; r++) {
        scale[r] = 1.0f;
        round_row_bf16(rows + r * ld, from, to);
    }
}

#endif
