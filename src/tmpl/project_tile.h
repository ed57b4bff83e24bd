/* SPDX-License-Identifier: Apache-2.0 */
/* A tile of a strip of the projection, as a walk hands it to the room, and the walk over all of
 * them; the room has defined MR and NR. A panel's inputs are a cache line each: 16 columns of one
 * input. */
#ifndef QKV_TMPL_PROJECT_TILE_H
#define QKV_TMPL_PROJECT_TILE_H

struct tile {
    ptrdiff_t row;   /* of the strip's tokens, the tile's first */
    ptrdiff_t lines; /* to be prefetched during the tile */
    uintptr_t ahead; /* the first of them: an address, as it may lie outside W */
    int rows;
    int panel, panels; /* first and count */
    int of;            /* one of so many steps asks for a line of a lane (project_lanes.h) */
    ptrdiff_t lane;    /* lines from one lane to the next */
};

enum { LINE = QKV_PANEL * sizeof(float) };

/* How many of the rows that are left the next of so many tiles takes: they share them evenly. */
static inline int tile_rows(ptrdiff_t left, ptrdiff_t tiles) {
    return (int)((left + tiles - 1) / tiles);
}

/* The address of input `line` of a panel. */
static inline uintptr_t line_of(const float *panel, ptrdiff_t line) {
    return (uintptr_t)panel + (uintptr_t)line * LINE;
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
        ahead += LINE;
    }
    return ahead;
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t);

/* Rows are shared out evenly to the tiles: a low tile at the end would have too few chains. While
 * the tiles of these panels run, the next ones' inputs are prefetched, each tile its share. */
static void many_tiles(const struct qkv_multiply *g) {
    enum { WIDE = NR / QKV_PANEL };
    const ptrdiff_t tiles = (g->tokens + MR - 1) / MR;
    for (int v = 0; v < g->panels; v += WIDE) {
        struct tile t = {.panel = v, .panels = g->panels - v < WIDE ? g->panels - v : WIDE};
        const float *next = v + WIDE < g->panels ? g->w + (v + WIDE) * g->w_panel : g->ahead;
        const ptrdiff_t share = tiles < t.panels ? 1 : tiles / t.panels;
        const ptrdiff_t lines = (g->k + share - 1) / share;
        for (ptrdiff_t i = 0; i < tiles; i++, t.row += t.rows) {
            const ptrdiff_t panel = i / share;
            t.rows = tile_rows(g->tokens - t.row, tiles - i);
            t.lines = panel < t.panels ? lines : 0;
            t.ahead = line_of(next, panel * g->w_panel / QKV_PANEL + i % share * lines);
            many_tile(g, &t);
        }
    }
}

#endif
