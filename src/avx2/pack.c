/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing in AVX2: sixteen rows transposed into a panel, eight at a time, and rows copied with
 * their length padded (signatures in kernels.h). Reads exactly the elements named, with masked
 * loads at the edges; k = 0 or rows = 0 does nothing.
 */
#include "kernels.h"
#include "vec.h"

/* Sixteen short streams are too many for a hardware prefetcher: the next panel's rows are asked for
 * while this one's are used. The address may lie outside the matrix; nothing is read there. */
static inline void prefetch(const float *base, int row, ptrdiff_t ld) {
    const uintptr_t offset = (uintptr_t)row * (uintptr_t)ld;
    __builtin_prefetch((const void *)((uintptr_t)base + offset * sizeof(float)));
}

static inline void transpose_8(__m256 x[8]) {
    __m256 t[8];
    for (int q = 0; q < 8; q += 4) {
        __m256 u0 = _mm256_unpacklo_ps(x[q], x[q + 1]), u1 = _mm256_unpackhi_ps(x[q], x[q + 1]);
        __m256 u2 = _mm256_unpacklo_ps(x[q + 2], x[q + 3]);
        __m256 u3 = _mm256_unpackhi_ps(x[q + 2], x[q + 3]);
        t[q] = _mm256_shuffle_ps(u0, u2, 0x44);
        t[q + 1] = _mm256_shuffle_ps(u0, u2, 0xee);
        t[q + 2] = _mm256_shuffle_ps(u1, u3, 0x44);
        t[q + 3] = _mm256_shuffle_ps(u1, u3, 0xee);
    }
    for (int c = 0; c < 4; c++) {
        x[c] = _mm256_permute2f128_ps(t[c], t[c + 4], 0x20);
        x[c + 4] = _mm256_permute2f128_ps(t[c], t[c + 4], 0x31);
    }
}

/* n columns of the rows [first, last) of eight. Inlined, so that whole ones need not be looked
 * at one by one, and stay in registers. */
static inline __attribute__((always_inline)) void turn_columns(float *dst, ptrdiff_t ld_dst,
                                                               const float *src, ptrdiff_t ld,
                                                               int first, int last, int n) {
    __m256 x[8];
    for (int r = 0; r < 8; r++)
        prefetch(src, r + QKV_PANEL, ld);
    for (int r = 0; r < 8; r++)
        x[r] = r < first || r >= last ? _mm256_setzero_ps()
               : n == 8               ? _mm256_loadu_ps(src + r * ld)
                                      : vf_load_part(src + r * ld, n);
    transpose_8(x);
    QKV_UNROLL(8)
    for (int c = 0; c < 8; c++)
        if (c < n)
            _mm256_storeu_ps(dst + c * ld_dst, x[c]);
}

#include "tmpl/turn.h"

static inline __attribute__((always_inline)) void turn_half(float *dst, ptrdiff_t ld_dst,
                                                            const float *src, ptrdiff_t ld,
                                                            int first, int last, ptrdiff_t k) {
    if (first <= 0 && last >= 8)
        turn_rows(dst, ld_dst, src, ld, 0, 8, k);
    else if (first < 8 && last > 0)
        turn_rows(dst, ld_dst, src, ld, first, last, k);
    else
        for (ptrdiff_t p = 0; p < k; p++)
            _mm256_storeu_ps(dst + p * ld_dst, _mm256_setzero_ps());
}

void qkv_avx2_pack_panel(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                         ptrdiff_t k) {
    turn_half(dst, QKV_PANEL, src, ld, first, last, k);
    turn_half(dst + 8, QKV_PANEL, src + 8 * ld, ld, first - 8, last - 8, k);
}

void qkv_avx2_pack_turned(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int rows,
                          ptrdiff_t k) {
    turn_half(dst, ld_dst, src, ld, 0, rows, k);
    turn_half(dst + 8, ld_dst, src + 8 * ld, ld, 0, rows - 8, k);
}

/* Infinite or NaN: the exponent is all ones. */
static inline __m256i not_finite(__m256 x) {
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(x), exponent), exponent);
}

int qkv_avx2_pack_rows(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                       ptrdiff_t n) {
    const ptrdiff_t ld_dst = (n + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    __m256i bad = _mm256_setzero_si256();
    for (ptrdiff_t r = 0; r < rows; r++, src += ld_src, dst += ld_dst) {
        ptrdiff_t c = 0;
        for (; c + 8 <= n; c += 8) {
            __m256 x = _mm256_loadu_ps(src + c);
            bad = _mm256_or_si256(bad, not_finite(x));
            _mm256_storeu_ps(dst + c, x);
        }
        for (; c < ld_dst; c += 8) {
            __m256 x = c < n ? vf_load_part(src + c, (int)(n - c)) : _mm256_setzero_ps();
            bad = _mm256_or_si256(bad, not_finite(x));
            _mm256_storeu_ps(dst + c, x);
        }
    }
    return !_mm256_testz_si256(bad, bad);
}

#include "tmpl/finite.h"
