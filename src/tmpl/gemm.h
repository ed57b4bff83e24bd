/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a product's tiles: columns by the width of a tile, within them rows by its
 * height, so that NR columns of B stay in the first-level cache while all rows pass them. The
 * room defines, before the include, MR, NR and
 *
 *   static void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows, int cols)
 *
 * for 1 <= rows <= MR and cols a multiple of PANEL up to NR.
 */
#ifndef QKV_TMPL_GEMM_H
#define QKV_TMPL_GEMM_H

void ROOM(gemm)(const struct qkv_gemm *g) {
    for (ptrdiff_t j = 0; j < g->n; j += NR) {
        int cols = (int)(g->n - j < NR ? g->n - j : NR);
        for (ptrdiff_t i = 0; i < g->m; i += MR)
            gemm_tile(g, i, j, (int)(g->m - i < MR ? g->m - i : MR), cols);
    }
}

#endif
