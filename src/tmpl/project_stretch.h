/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection of many tokens, a stretch of all of them at a time: what the tiles of a stretch
 * share of W, 4 KiB a panel, then stays in the first-level cache, and a strip's X and sums in the
 * second at most. A tile that goes through all inputs instead reads W from the second-level cache
 * again in every tile, which takes 2 % longer, and 6 where another thread shares the core
 * (docs/performance/tried-project.md). The room defines, before the include,
 *
 *   LEAST         fewer tokens than this, MR or more, go by tiles that are shared out evenly
 *   whole_tiles   static void (const struct qkv_multiply *g, int panel, ptrdiff_t tiles): the first
 *                 rows, MR a tile, by NR columns from a panel on; g->k is STRETCH
 */
#ifndef QKV_TMPL_PROJECT_STRETCH_H
#define QKV_TMPL_PROJECT_STRETCH_H

#include "project_tile.h"

/* A stretch, or what is left at the end of the inputs. */
static void one_stretch(const struct qkv_multiply *g) {
    if (g->k < QKV_STRETCH) {
        many_tiles(g);
        return;
    }
    const ptrdiff_t tiles = g->tokens / MR;
    struct tile rest = {.row = tiles * MR, .rows = (int)(g->tokens % MR), .panels = NR / QKV_PANEL};
    for (; rest.panel < g->panels; rest.panel += rest.panels) {
        whole_tiles(g, rest.panel, tiles);
        if (rest.rows > 0)
            many_tile(g, &rest);
    }
}

static void many_tokens(const struct qkv_multiply *g) {
    if (g->tokens < LEAST || g->panels % (NR / QKV_PANEL)) {
        many_tiles(g);
        return;
    }
    struct qkv_multiply part = *g;
    for (ptrdiff_t left = g->k; left > 0; left -= part.k) {
        part.k = left < QKV_STRETCH ? left : QKV_STRETCH;
        part.ends = g->ends && part.k == left;
        part.ahead = part.k < left ? part.w + part.k * QKV_PANEL : g->ahead;
        one_stretch(&part);
        part.x += part.k;
        part.w += part.k * QKV_PANEL;
        part.add = 1;
    }
}

#endif
