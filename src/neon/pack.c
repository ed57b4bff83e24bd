/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing in NEON: sixteen rows transposed into a panel, four at a time, and rows copied with
 * their length padded (signatures in kernels.h). Reads exactly the elements named; k = 0 or
 * rows = 0 does nothing.
 */
#include "kernels.h"
#include "vec.h"

/* Sixteen short streams are too many for a hardware prefetcher: the next panel's rows are asked for
 * while this one's are used. The address may lie outside the matrix; nothing is read there. */
static inline void prefetch(const float *base, int row, ptrdiff_t ld) {
    const uintptr_t offset = (uintptr_t)row * (uintptr_t)ld;
    __builtin_prefetch((const void *)((uintptr_t)base + offset * sizeof(float)));
}

static inline void transpose_4(float32x4_t x[4]) {
    float32x4_t t0 = vtrn1q_f32(x[0], x[1]), t1 = vtrn2q_f32(x[0], x[1]);
    float32x4_t t2 = vtrn1q_f32(x[2], x[3]), t3 = vtrn2q_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(t0), vget_low_f32(t2));
    x[1] = vcombine_f32(vget_low_f32(t1), vget_low_f32(t3));
    x[2] = vcombine_f32(vget_high_f32(t0), vget_high_f32(t2));
    x[3] = vcombine_f32(vget_high_f32(t1), vget_high_f32(t3));
}

/* n columns of the rows [first, last) of four. Inlined, so that whole ones need not be looked
 * at one by one, and stay in registers. */
static inline __attribute__((always_inline)) void turn_columns(float *dst, ptrdiff_t ld_dst,
                                                               const float *src, ptrdiff_t ld,
                                                               int first, int last, int n) {
    float32x4_t x[4];
    for (int r = 0; r < 4; r++)
        prefetch(src, r + QKV_PANEL, ld);
    for (int r = 0; r < 4; r++)
        x[r] = r < first || r >= last ? vdupq_n_f32(0.0f)
               : n == 4               ? vld1q_f32(src + r * ld)
                                      : vf_load_part(src + r * ld, n);
    transpose_4(x);
    QKV_UNROLL(4)
    for (int c = 0; c < 4; c++)
        if (c < n)
            vst1q_f32(dst + c * ld_dst, x[c]);
}

#include "tmpl/turn.h"

static void turn_quarter(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int first,
                         int last, ptrdiff_t k) {
    if (first <= 0 && last >= 4)
        turn_rows(dst, ld_dst, src, ld, 0, 4, k);
    else if (first < 4 && last > 0)
        turn_rows(dst, ld_dst, src, ld, first, last, k);
    else
        for (ptrdiff_t p = 0; p < k; p++)
            vst1q_f32(dst + p * ld_dst, vdupq_n_f32(0.0f));
}

void qkv_neon_pack_panel(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                         ptrdiff_t k) {
    for (int q = 0; q < QKV_PANEL; q += 4)
        turn_quarter(dst + q, QKV_PANEL, src + q * ld, ld, first - q, last - q, k);
}

void qkv_neon_pack_turned(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int rows,
                          ptrdiff_t k) {
    for (int q = 0; q < QKV_PANEL; q += 4)
        turn_quarter(dst + q, ld_dst, src + q * ld, ld, 0, rows - q, k);
}

/* Infinite or NaN: the exponent is all ones. */
static inline uint32x4_t not_finite(float32x4_t x) {
    const uint32x4_t exponent = vdupq_n_u32(0x7f800000);
    return vceqq_u32(vandq_u32(vreinterpretq_u32_f32(x), exponent), exponent);
}

int qkv_neon_pack_rows(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                       ptrdiff_t n) {
    const ptrdiff_t ld_dst = (n + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    uint32x4_t bad = vdupq_n_u32(0);
    for (ptrdiff_t r = 0; r < rows; r++, src += ld_src, dst += ld_dst) {
        ptrdiff_t c = 0;
        for (; c + 4 <= n; c += 4) {
            float32x4_t x = vld1q_f32(src + c);
            bad = vorrq_u32(bad, not_finite(x));
            vst1q_f32(dst + c, x);
        }
        for (; c < ld_dst; c += 4) {
            float32x4_t x = c < n ? vf_load_part(src + c, (int)(n - c)) : vdupq_n_f32(0.0f);
            bad = vorrq_u32(bad, not_finite(x));
            vst1q_f32(dst + c, x);
        }
    }
    return vmaxvq_u32(bad) != 0;
}

#include "tmpl/finite.h"
