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

#endif
