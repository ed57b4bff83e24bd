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
 * rows: a tile, or several in one go; and
 *
 *   ASKS   whole tiles ask for what comes next (gemm_ask.h) beside their steps; or else that is
 *          done here, before them
 */
#ifndef QKV_TMPL_GEMM_H
#define QKV_TMPL_GEMM_H

#include "gemm_ask.h"

void ROOM(gemm)(const struct qkv_gemm *g) {
    for (ptrdiff_t j = 0; j < g->n; j += NR) {
        const int cols = (int)(g->n - j < NR ? g->n - j : NR);
        for (ptrdiff_t i = 0, rows; i < g->m; i += rows) {
            rows = gemm_rows(g, g->m - i, cols);
            if (!ASKS && g->ahead)
                gemm_ask(g, i, j, rows);
            gemm_tile(g, i, j, rows, cols);
        }
    }
}

#endif
