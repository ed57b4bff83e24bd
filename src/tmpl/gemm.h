/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a product's tiles: columns by the width of a tile, within them rows by its
 * height, so that NR columns of B stay in the first-level cache while all rows pass them. The
 * room defines, before the include, NR and
 *
 *   static ptrdiff_t gemm_rows(const struct qkv_gemm *g, ptrdiff_t left, int cols)
 *   static void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows,
 *                         int cols)
 *
 * for cols a multiple of PANEL up to NR: how many of the rows that are left come next, and these
 * rows: a tile, or several in one go.
 */
#ifndef QKV_TMPL_GEMM_H
#define QKV_TMPL_GEMM_H

/* Asks for bytes [from, to) of the NR columns of B behind column j, which will be wanted when all
 * rows have passed: a share with each tile, while its sums are still under way. */
static inline void gemm_ask(const struct qkv_gemm *g, ptrdiff_t j, size_t from, size_t to) {
    const uintptr_t next =
        (uintptr_t)g->b + sizeof(float) * (size_t)((j + NR) / QKV_PANEL * g->b_g);
    for (; from < to; from += 64)
        __builtin_prefetch((const void *)(next + from), 0, 2);
}

/* Bytes that a row asks for. */
static inline size_t gemm_share(const struct qkv_gemm *g) {
    const size_t columns = sizeof(float) * (size_t)(NR / QKV_PANEL * g->b_g);
    return g->ahead && g->m ? columns / (size_t)g->m : 0;
}

void ROOM(gemm)(const struct qkv_gemm *g) {
    const size_t share = gemm_share(g); /* a division a tile would cost a fiftieth of it */
    for (ptrdiff_t j = 0; j < g->n; j += NR) {
        const int cols = (int)(g->n - j < NR ? g->n - j : NR);
        for (ptrdiff_t i = 0, rows; i < g->m; i += rows) {
            rows = gemm_rows(g, g->m - i, cols);
            gemm_ask(g, j, share * (size_t)i, share * (size_t)(i + rows));
            gemm_tile(g, i, j, rows, cols);
        }
    }
}

#endif
