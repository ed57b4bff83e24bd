/* SPDX-License-Identifier: Apache-2.0 */
/* What a room's assembly of a product's whole tiles, one below the other, is handed, by its places
 * in memory. A stands by rows. */
#ifndef QKV_TMPL_GEMM_RUN_H
#define QKV_TMPL_GEMM_RUN_H

#include <math.h>
#include <stddef.h>

#include "gemm_ask.h"

struct run {
    const float *a, *b;
    ptrdiff_t k, tiles;
    const float *factor, *c; /* C * factor is added, unless factor is NULL */
    ptrdiff_t ldc;           /* distances of rows, in bytes */
    const float *scale;      /* unless NULL */
    float *out;
    ptrdiff_t ld_out;
    float *max; /* unless NULL; first: nothing stands there yet */
    int64_t first;
    uintptr_t ahead; /* asked for beside four steps, which move it by NR bytes (gemm_share) */
    float none;
};

#define RUN_A "(%[run])"
#define RUN_B "8(%[run])"
#define RUN_K "16(%[run])"
#define RUN_TILES "24(%[run])"
#define RUN_FACTOR "32(%[run])"
#define RUN_C "40(%[run])"
#define RUN_LDC "48(%[run])"
#define RUN_SCALE "56(%[run])"
#define RUN_OUT "64(%[run])"
#define RUN_LD_OUT "72(%[run])"
#define RUN_MAX "80(%[run])"
#define RUN_FIRST "88(%[run])"
#define RUN_AHEAD "96(%[run])"
#define RUN_NONE "104(%[run])"
_Static_assert(offsetof(struct run, none) == 104, "these are the places");
_Static_assert(4 * sizeof(float) * MR == QKV_ROWS,
               "gemm_share of MR rows and four steps is NR bytes");

/* Tiles from row i on, by the columns from j on. */
static inline struct run run_of(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j,
                                ptrdiff_t tiles) {
    const ptrdiff_t size = sizeof(float);
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    return (struct run){
        .a = g->a + i * g->lda,
        .b = g->b + j / QKV_PANEL * g->b_g,
        .k = g->k,
        .tiles = tiles,
        .factor = g->factor ? g->factor + i : NULL,
        .c = g->c + i * g->ldc + j,
        .ldc = g->ldc * size,
        .scale = g->scale ? g->scale + i : NULL,
        .out = out,
        .ld_out = ld_out * size,
        .max = g->max ? g->max + i * QKV_PANEL : NULL,
        .first = j == 0,
        .ahead = gemm_ahead(g, i, j),
        .none = -INFINITY,
    };
}

#endif
