/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in NEON: the
 * arithmetic of scores, mix, attention and project. A is multiplied by element, one a row and
 * step; B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0
 * does nothing, k = 0 writes zeros (or leaves C, when adding).
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

/* M is a constant where this is inlined, so that the accumulators live in registers. */
static inline __attribute__((always_inline)) void tile(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M) {
    const float *a = g->a + i * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    float *c = g->c + i * g->ldc + j;
    const ptrdiff_t lda = g->lda, ldc = g->ldc, b_k = g->b_k;
    float32x4_t acc[MR][4];

#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            acc[r][v] = g->add ? vld1q_f32(c + r * ldc + v * 4) : vdupq_n_f32(0.0f);

    for (ptrdiff_t p = g->k; p > 0; p--) {
        float32x4_t bv[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            bv[v] = vld1q_f32(b + v * 4);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) {
            float x = a[r * lda];
            /* Two rows' scalars at a time: loaded all at once they would push accumulators out of
             * the registers, and compilers would. */
            if (r % 2)
                __asm__ volatile("" ::: "memory");
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++)
                acc[r][v] = vfmaq_n_f32(acc[r][v], bv[v], x);
        }
        a++;
        b += b_k;
    }

#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            vst1q_f32(c + r * ldc + v * 4, acc[r][v]);
}

#define TILE(rows)                                                                \
    static void tile_##rows(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        tile(g, i, j, rows);                                                      \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5) TILE(6)

    typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

static tile_fn *const tiles[MR] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows,
                             int cols) {
    (void)cols; /* a tile is one panel wide */
    tiles[rows - 1](g, i, j);
}

#include "tmpl/gemm.h"
