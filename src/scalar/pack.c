/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing in plain C: sixteen rows transposed into a panel, and rows copied with their length
 * padded (signatures in kernels.h). Reads exactly the elements named; k = 0 or rows = 0 does
 * nothing.
 */
#include "kernels.h"
#include "vec.h"

void qkv_scalar_pack_panel(float *dst, const float *src, ptrdiff_t ld, int first, int last,
                           ptrdiff_t k) {
    for (int r = 0; r < QKV_PANEL; r++)
        for (ptrdiff_t p = 0; p < k; p++)
            dst[p * QKV_PANEL + r] = r >= first && r < last ? src[r * ld + p] : 0.0f;
}

void qkv_scalar_pack_turned(float *dst, ptrdiff_t ld_dst, const float *src, ptrdiff_t ld, int rows,
                            ptrdiff_t k) {
    for (ptrdiff_t p = 0; p < k; p++)
        for (int r = 0; r < QKV_PANEL; r++)
            dst[p * ld_dst + r] = r < rows ? src[r * ld + p] : 0.0f;
}

int qkv_scalar_pack_rows(float *dst, const float *src, ptrdiff_t ld_src, ptrdiff_t rows,
                         ptrdiff_t n) {
    const ptrdiff_t ld_dst = (n + QKV_PANEL - 1) / QKV_PANEL * QKV_PANEL;
    int bad = 0;
    for (ptrdiff_t r = 0; r < rows; r++, src += ld_src, dst += ld_dst) {
        for (ptrdiff_t c = 0; c < n; c++) {
            bad |= !isfinite(src[c]);
            dst[c] = src[c];
        }
        for (ptrdiff_t c = n; c < ld_dst; c++)
            dst[c] = 0.0f;
    }
    return bad;
}

#include "tmpl/finite.h"
