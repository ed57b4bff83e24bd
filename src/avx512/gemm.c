/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX-512: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
 */
#include "kernels.h"

#include <math.h>

#include "tile.h"
#include "vec.h"

enum { GROUPS = NR / QKV_PANEL };

/* The rows' largest, lane by lane, while they are in registers: a pass over the scores less. */
static inline __attribute__((always_inline)) void tile_max(float *max, __m512 acc[MR][GROUPS],
                                                           int first, const int M, const int G) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
#pragma GCC unroll 6
    for (int r = 0; r < M; r++) {
        __m512 m = first ? none : _mm512_loadu_ps(max + r * QKV_PANEL);
#pragma GCC unroll 4
        for (int v = 0; v < G; v++)
            m = vf_max(acc[r][v], m);
        _mm512_storeu_ps(max + r * QKV_PANEL, m);
    }
}

/* M and G are constants where this is inlined, so that the accumulators live in registers. */
static inline __attribute__((always_inline)) void tile(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M, const int G) {
    const float *a = g->a + i * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    float *c = g->c + i * g->ldc + j;
    const ptrdiff_t lda = g->lda, ldc = g->ldc, b_g = g->b_g, b_k = g->b_k;
    __m512 acc[MR][GROUPS];

#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_setzero_ps();

    for (ptrdiff_t p = g->k; p > 0; p--) {
        __m512 bv[GROUPS];
#pragma GCC unroll 4
        for (int v = 0; v < G; v++)
            bv[v] = _mm512_loadu_ps(b + v * b_g);
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) {
            __m512 x = _mm512_set1_ps(a[r * lda]);
#pragma GCC unroll 4
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_fmadd_ps(x, bv[v], acc[r][v]);
        }
        a++;
        b += b_k;
    }

    if (g->factor)
#pragma GCC unroll 6
        for (int r = 0; r < M; r++) {
            const __m512 x = _mm512_set1_ps(g->factor[i + r]);
#pragma GCC unroll 4
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_fmadd_ps(_mm512_loadu_ps(c + r * ldc + v * 16), x, acc[r][v]);
        }

#pragma GCC unroll 6
    for (int r = 0; r < M; r++)
#pragma GCC unroll 4
        for (int v = 0; v < G; v++)
            _mm512_storeu_ps(c + r * ldc + v * 16, acc[r][v]);
    if (g->max)
        tile_max(g->max + i * QKV_PANEL, acc, j == 0, M, G);
}

#define TILE(rows, groups)                                                                   \
    static void tile_##rows##x##groups(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        tile(g, i, j, rows, groups);                                                         \
    }
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3) TILE(rows, 4)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

    typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

#define ROW(rows) \
    { tile_##rows##x1, tile_##rows##x2, tile_##rows##x3, tile_##rows##x4 }
static tile_fn *const tiles[MR][GROUPS] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6)};

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows,
                             int cols) {
    tiles[rows - 1][cols / QKV_PANEL - 1](g, i, j);
}

#include "tmpl/gemm.h"
