/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX2: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
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
    const ptrdiff_t lda = g->lda, a_k = g->a_k, ldc = g->ldc, b_k = g->b_k;
    __m256 acc[MR][2];

    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(2)
        for (int v = 0; v < 2; v++)
            acc[r][v] = _mm256_setzero_ps();
    }

    for (ptrdiff_t p = g->k; p > 0; p--) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            __m256 x = _mm256_broadcast_ss(a + r * lda);
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
        a += a_k;
        b += b_k;
    }

    if (g->factor) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            const __m256 x = _mm256_broadcast_ss(g->factor + i + r);
            QKV_UNROLL(2)
            for (int v = 0; v < 2; v++)
                acc[r][v] = _mm256_fmadd_ps(_mm256_loadu_ps(c + r * ldc + v * 8), x, acc[r][v]);
        }
    }

    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(2)
        for (int v = 0; v < 2; v++)
            _mm256_storeu_ps(c + r * ldc + v * 8, acc[r][v]);
    }
}

#define TILE(rows)                                                                \
    static void tile_##rows(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        tile(g, i, j, rows);                                                      \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

static tile_fn *const tiles[MR] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

static inline int gemm_rows(int cols) {
    (void)cols;
    return MR;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows,
                             int cols) {
    (void)cols; /* a tile is one panel wide */
    tiles[rows - 1](g, i, j);
}

#include "tmpl/gemm.h"
