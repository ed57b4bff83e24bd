/* SPDX-License-Identifier: Apache-2.0 */
/* What a product asks for ahead (struct qkv_gemm): a share with each tile, so that as much as B is
 * asked for when QKV_ROWS rows have passed all of its columns, and less by fewer. Where whole tiles
 * do so beside their steps, others ask for nothing. The room has defined NR. */
#ifndef QKV_TMPL_GEMM_ASK_H
#define QKV_TMPL_GEMM_ASK_H

#include <stddef.h>
#include <stdint.h>

/* Bytes for each row of A. */
static inline size_t gemm_share(const struct qkv_gemm *g) {
    return sizeof(float) * (size_t)(NR * g->k) / QKV_ROWS;
}

/* Where the share of the tiles begins whose first element is C's (i, j). */
static inline uintptr_t gemm_ahead(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) {
    return g->ahead + gemm_share(g) * (size_t)(j / NR * QKV_ROWS + i);
}

static inline void gemm_ask(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows) {
    const uintptr_t line = gemm_ahead(g, i, j);
    const size_t bytes = gemm_share(g) * (size_t)rows;
    for (size_t b = 0; b < bytes; b += 64)
        __builtin_prefetch((const void *)(line + b), 0, 2);
}

#endif
