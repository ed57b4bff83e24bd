/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing in AVX-512: sixteen rows transposed into a panel, and rows copied with their length
 * padded (signatures in kernels.h). Reads exactly the elements named, with masked loads at the
 * edges; k = 0 or rows = 0 does nothing. The transpose is the usual one of 16 x 16 in registers:
 * pairs, quads, then 128-bit lanes twice.
 */
#include "kernels.h"
#include "vec.h"

/* Sixteen short streams are too many for a hardware prefetcher: the next panel's rows are asked for
 * while this one's are used. The address may lie outside the matrix; nothing is read there. */
static inline void prefetch(const float *base, int row, ptrdiff_t ld) {
    const uintptr_t offset = (uintptr_t)row * (uintptr_t)ld;
    __builtin_prefetch((const void *)((uintptr_t)base + offset * sizeof(float)));
}

/* Rows 4 q to 4 q + 3 of x become, in each 128-bit lane, the four columns of that lane. */
static inline void transpose_4(__m512 *x) {
    __m512 t0 = _mm512_unpacklo_ps(x[0], x[1]), t1 = _mm512_unpackhi_ps(x[0], x[1]);
    __m512 t2 = _mm512_unpacklo_ps(x[2], x[3]), t3 = _mm512_unpackhi_ps(x[2], x[3]);
    x[0] = _mm512_shuffle_ps(t0, t2, 0x44);
    x[1] = _mm512_shuffle_ps(t0, t2, 0xee);
    x[2] = _mm512_shuffle_ps(t1, t3, 0x44);
    x[3] = _mm512_shuffle_ps(t1, t3, 0xee);
}

static inline void transpose_16(__m512 x[16]) {
    for (int q = 0; q < 4; q++)
        transpose_4(x + 4 * q);
    for (int c = 0; c < 4; c++) {
        __m512 t0 = _mm512_shuffle_f32x4(x[c], x[c + 4], 0x88);
        __m512 t1 = _mm512_shuffle_f32x4(x[c], x[c + 4], 0xdd);
        __m512 t2 = _mm512_shuffle_f32x4(x[c + 8], x[c + 12], 0x88);
        __m512 t3 = _mm512_shuffle_f32x4(x[c + 8], x[c + 12], 0xdd);
        x[c] = _mm512_shuffle_f32x4(t0, t2, 0x88);
        x[c + 4] = _mm512_shuffle_f32x4(t1, t3, 0x88);
        x[c + 8] = _mm512_shuffle_f32x4(t0, t2, 0xdd);
        x[c + 12] = _mm512_shuffle_f32x4(t1, t3, 0xdd);
    }
}

/* n columns of the rows [first, last) of sixteen. Inlined, so that whole ones need not be looked
 * at one by one, and stay in registers. */
static inline __attribute__((always_inline)) void turn_columns(float *dst, ptrdiff_t ld_dst,
                                                               const float *src, ptrdiff_t ld,
                                                               int first, int last, int n) {
    const __mmask16 columns = vec_first(n);
    __m512 x[16];
    for (int r = 0; r < 16; r++)
        prefetch(src, r + QKV_PANEL, ld);
    for (int r = 0; r < 16; r++)
        x[r] = r >= first && r < last ? _mm512_maskz_loadu_ps(columns, src + r * ld)
                                      : _mm512_setzero_ps();
    transpose_16(x);
    QKV_UNROLL(16)
    for (int c = 0; c < 16; c++)
        if (c < n)
            _mm512_storeu_ps(dst + c * ld_dst, x[c]);
}

#include "tmpl/turn.h"

static void turn(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int first, int last,
                 ptrdiff_t k) {
    if (first <= 0 && last >= 16)
        turn_rows(dst, ld_dst, src, ld, 0, 16, k);
    else
        turn_rows(dst, ld_dst, src, ld, first, last, k);
}

void qkv_avx512_pack_panel(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                           ptrdiff_t k) {
    turn(dst, QKV_PANEL, src, ld, first, last, k);
}

void qkv_avx512_pack_turned(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int rows,
                            ptrdiff_t k) {
    turn(dst, ld_dst, src, ld, 0, rows, k);
}

/* Infinite or NaN: the exponent is all ones. */
static inline __mmask16 not_finite(__m512 x) {
    return _mm512_fpclass_ps_mask(x, 0x01 | 0x08 | 0x10 | 0x80);
}

int qkv_avx512_pack_rows(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                         ptrdiff_t n) {
    __mmask16 bad = 0;
    for (ptrdiff_t r = 0; r < rows; r++, src += ld_src) {
        ptrdiff_t c = 0;
        for (; c + 16 <= n; c += 16, dst += 16) {
            __m512 x = _mm512_loadu_ps(src + c);
            bad |= not_finite(x);
            _mm512_storeu_ps(dst, x);
        }
        if (c < n) {
            __m512 x = _mm512_maskz_loadu_ps(vec_first((int)(n - c)), src + c);
            bad |= not_finite(x);
            _mm512_storeu_ps(dst, x);
            dst += 16;
        }
    }
    return bad != 0;
}

#include "tmpl/finite.h"
