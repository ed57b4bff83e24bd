/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in plain C: the
 * arithmetic of scores, mix and attention. Reads and writes exactly what the sizes say;
 * n = 0 or m = 0 does nothing, k = 0 writes zeros (or C * factor).
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

enum { COLUMNS = 4 };

/* M is a constant where this is inlined, so that the accumulators live in registers. */
static inline __attribute__((always_inline)) void tile(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M) {
    const float *a = g->a + i * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g + j % QKV_PANEL;
    const float *c = g->c + i * g->ldc + j;
    const ptrdiff_t lda = g->lda, a_k = g->a_k, ldc = g->ldc, b_k = g->b_k;
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    float acc[MR][COLUMNS];

    QKV_UNROLL(3)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++)
            acc[r][v] = 0.0f;
    }

    for (ptrdiff_t p = g->k; p > 0; p--) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++) {
            float y = b[v];
            QKV_UNROLL(3)
            for (int r = 0; r < M; r++)
                acc[r][v] = vf_fma(a[r * lda], y, acc[r][v]);
        }
        a += a_k;
        b += b_k;
    }

    QKV_UNROLL(3)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++) {
            float x = acc[r][v];
            if (g->factor)
                x = vf_fma(c[r * ldc + v], g->factor[i + r], x);
            if (g->scale)
                x = vf_fma(x, g->scale[i + r], 0.0f);
            out[r * ld_out + v] = x;
        }
    }
}

#define TILE(rows)                                                                \
    static void tile_##rows(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        tile(g, i, j, rows);                                                      \
    }
TILE(1)
TILE(2)
TILE(3)

typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

static tile_fn *const tiles[MR] = {tile_1, tile_2, tile_3};

static inline ptrdiff_t gemm_rows(const struct qkv_gemm *g, ptrdiff_t left, int cols) {
    (void)g;
    (void)cols;
    return left < MR ? left : MR;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows,
                             int cols) {
    for (int v = 0; v < cols; v += COLUMNS)
        tiles[rows - 1](g, i, j + v);
}

enum { ASKS = 0 };
#include "tmpl/gemm.h"
