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

/* Of a room: sixteen floats, times a factor if the type has one, to numbers of its width. */
typedef void pack_fn(unsigned char *to, const float *x, vf factor);

static inline void pack_bf16(unsigned char *to, const float *x, vf factor) {
    (void)factor;
    vf_pack_bf16(to, x);
}

/* How many numbers are written for n. */
static inline size_t padded(int n) {
    return (size_t)(n + 3) / 4 * 4;
}

static inline void round_row(float *row, int from, int to, float factor, pack_fn *pack,
                             const size_t width) {
    unsigned char *out = (unsigned char *)row + (size_t)from * width;
    const vf f = vf_set1(factor);
    for (; from + QKV_PANEL <= to; from += QKV_PANEL, out += QKV_PANEL * width)
        pack(out, row + from, f);
    if (from < to) {
        float left[QKV_PANEL] = {0};
        unsigned char packed[QKV_PANEL * sizeof(float)];
        memcpy(left, row + from, (size_t)(to - from) * sizeof(float));
        pack(packed, left, f);
        memcpy(out, packed, padded(to - from) * width);
    }
}

static inline void zero_row(float *row, int from, int to, const size_t width) {
    memset((unsigned char *)row + (size_t)from * width, 0, padded(to - from) * width);
}

/* To integers in [-steps, steps], steps being 127 for signed ones, or 255 where no number is
 * negative. A row with NaN or infinities becomes zeros, and its scale NaN. */
static inline void round_rows_i8(float *rows, ptrdiff_t ld, int count, int from, int to,
                                 float *scale, const float steps) {
    for (int r = 0; r < count; r++) {
        float *row = rows + r * ld;
        const float factor = scale_row(scale + r, row + from, to - from, steps);
        if (factor > 0.0f)
            round_row(row, from, to, factor, vf_pack_i8, 1);
        else
            zero_row(row, from, to, 1);
    }
}

/* To bfloat16, which has NaN and infinities of its own. */
static inline void round_rows_bf16(float *rows, ptrdiff_t ld, int count, int from, int to,
                                   float *scale) {
    for (int r = 0; r < count; r++) {
        scale[r] = 1.0f;
        round_row(rows + r * ld, from, to, 1.0f, pack_bf16, 2);
    }
}

#endif
