/* SPDX-License-Identifier: Apache-2.0 */
/* A tile of a strip of the projection, as the walk (tmpl/project.h) hands it to the room. A panel's
 * inputs are a cache line each: 16 columns of one input. */
#ifndef QKV_TMPL_PROJECT_TILE_H
#define QKV_TMPL_PROJECT_TILE_H

struct tile {
    ptrdiff_t row;   /* of the strip's tokens, the tile's first */
    ptrdiff_t lines; /* to be prefetched during the tile */
    uintptr_t ahead; /* the first of them: an address, as it may lie outside W */
    int rows;
    int panel, panels; /* first and count */
};

/* The address of input `line` of a panel. */
static inline uintptr_t line_of(const float *panel, ptrdiff_t line) {
    return (uintptr_t)panel + (uintptr_t)line * QKV_PANEL * sizeof(float);
}

/* Where a tile reads, and how far apart its rows and panels are. */
struct place {
    const float *x, *w;
    ptrdiff_t x_ld, w_panel;
};

/* Asks for the part of the tile's lines that belongs to n of the k inputs; returns what is left. */
static inline uintptr_t ask_ahead(const struct qkv_multiply *g, const struct tile *t,
                                  uintptr_t ahead, ptrdiff_t n) {
    for (ptrdiff_t i = (t->lines * n + g->k - 1) / g->k; i > 0; i--) {
        __builtin_prefetch((const void *)ahead, 0, 2);
        ahead += QKV_PANEL * sizeof(float);
    }
    return ahead;
}

#endif
