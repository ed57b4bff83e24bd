/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection of few tokens whose W comes from memory (multiply_lanes in kernels.h), on
 * processors that bring several streams faster than one or two. A call is a window of the inputs;
 * its panels are taken a tile's width at a time, all tokens one tile below the other. Meanwhile
 * what the tiles read next is asked for in lanes: a line of each in turn, the lanes some pages
 * apart, into the first-level cache, though it may be more than that holds. By way of the second
 * level alone a line takes one of the core's few buffers for lines on their way twice. The room
 * defines, before the include,
 *
 *   LANED_ROWS     the rows of the tallest tile
 *
 * and behind it
 *
 *   laned_panels   static int (int rows): how many panels wide such tiles are, a power of two
 *   laned_tile     static void (const struct qkv_multiply *g, const struct tile *t): of that width
 *   few_tile       as for tmpl/project.h: the last panels where they are fewer than a tile of more
 *                  than one is wide
 */
#ifndef QKV_TMPL_PROJECT_LANES_H
#define QKV_TMPL_PROJECT_LANES_H

#include "project_tile.h"

/* Of each panel, so that there are eight or more. */
#define LANES(panels) ((panels) > 1 ? 4 : 8)

/* Addresses, as they may lie outside W: the next line of the first lane, and how far apart the
 * lanes of a panel and the panels are. */
struct lanes {
    uintptr_t line, lane, panel;
};

static inline struct lanes lanes_of(const struct qkv_multiply *g, const struct tile *t) {
    return (struct lanes){t->ahead, (uintptr_t)t->lane * LINE,
                          (uintptr_t)g->w_panel * sizeof(float)};
}

/* What step i of a turn asks for where one step of so many does: a line of each panel. */
static inline __attribute__((always_inline)) void ask_lanes(const struct lanes *at, const int i,
                                                            const int of, const int G) {
    const int turn = i / of;
    if (i % of)
        return;
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        __builtin_prefetch((const void *)(at->line + (uintptr_t)v * at->panel +
                                          (uintptr_t)(turn % LANES(G)) * at->lane +
                                          (uintptr_t)(turn / LANES(G) * LINE)),
                           0, 3);
}

/* How far n steps come in a lane, in bytes. */
static inline __attribute__((always_inline)) uintptr_t asked(ptrdiff_t n, const int of,
                                                             const int G) {
    return (uintptr_t)(n / (LANES(G) * of)) * LINE;
}

static int laned_panels(int rows);
static void laned_tile(const struct qkv_multiply *g, const struct tile *t);
static void few_tile(const struct qkv_multiply *g, const struct tile *t);

/* The tiles of some panels. Two share the lanes; a third, whose products take longer than memory
 * does, asks for what it reads itself, which is there. */
static void laned_column(const struct qkv_multiply *g, struct tile *t, const float *next,
                         int whole) {
    const int tiles = (int)(g->tokens + LANED_ROWS - 1) / LANED_ROWS;
    t->of = tiles > 1 ? 2 : 1;
    t->row = 0;
    for (int i = 0; i < tiles; i++, t->row += t->rows) {
        t->rows = tile_rows(g->tokens - t->row, tiles - i);
        t->ahead =
            i < 2 ? line_of(next, i * t->lane / 2) : (uintptr_t)(g->w + t->panel * g->w_panel);
        if (whole)
            laned_tile(g, t);
        else
            few_tile(g, t);
    }
}

static void multiply_lanes(const struct qkv_multiply *g) {
    const int rows = (int)(g->tokens < LANED_ROWS ? g->tokens : LANED_ROWS);
    const int wide = laned_panels(rows);
    struct tile t = {.panels = wide};
    for (; t.panel < g->panels; t.panel += t.panels) {
        while (t.panels > g->panels - t.panel)
            t.panels /= 2;
        const int after = t.panel + t.panels;
        t.lane = (after < g->panels ? g->k : g->ahead_k) / LANES(t.panels);
        const float *next = after < g->panels ? g->w + after * g->w_panel : g->ahead;
        laned_column(g, &t, next, t.panels == wide);
    }
}

#endif
