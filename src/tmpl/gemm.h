/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a product's tiles: columns by the width of a tile, within them rows by its
 * height, so that NR columns of B stay in the first-level cache while all rows pass them. The
 * room defines, before the include, NR and
 *
 *   static int gemm_rows(int cols)
 *   static void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows, int cols)
 *
 * for cols a multiple of PANEL up to NR: the height of tiles of that width, and a tile of as many
 * rows, or of fewer.
 */
#ifndef QKV_TMPL_GEMM_H
#define QKV_TMPL_GEMM_H

/* Asks for the NR columns of B behind column j, which will be wanted when all rows have passed: a
 * share with each tile, while its sums are still under way. */
static inline void gemm_ask(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows) {
    const ptrdiff_t next = (j + NR) / QKV_PANEL * g->b_g, size = NR / QKV_PANEL * g->b_g;
    const ptrdiff_t end = size * (i + rows) / g->m;
    for (ptrdiff_t at = size * i / g->m; at < end; at += 64 / (ptrdiff_t)sizeof(float))
        __builtin_prefetch((const void *)((uintptr_t)g->b + sizeof(float) * (size_t)(next + at)), 0,
                           2);
}

void ROOM(gemm)(const struct qkv_gemm *g) {
    for (ptrdiff_t j = 0; j < g->n; j += NR) {
        const int cols = (int)(g->n - j < NR ? g->n - j : NR), height = gemm_rows(cols);
        for (ptrdiff_t i = 0; i < g->m; i += height) {
            const int rows = (int)(g->m - i < height ? g->m - i : height);
            if (g->ahead)
                gemm_ask(g, i, j, rows);
            gemm_tile(g, i, j, rows, cols);
        }
    }
}

#endif
