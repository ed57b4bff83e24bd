/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection of many tokens, a stretch of all of them at a time: what the tiles of a stretch
 * share of W, 4 KiB a panel, then stays in the first-level cache, and a strip's X and sums in the
 * second at most. A tile that goes through all inputs instead reads W from the second-level cache
 * again in every tile, which takes 2 % longer, and 6 where another thread shares the core
 * (docs/performance/tried-project.md). The room defines, before the include,
 *
 *   LEAST   fewer tokens than this, MR or more, go by tiles that are shared out evenly
 *
 * and behind it
 *
 *   whole_tiles   static void (struct run *run, const struct qkv_multiply *g): a stretch of whole
 *                 tiles, MR rows by NR columns each; may change run
 */
#ifndef QKV_TMPL_PROJECT_STRETCH_H
#define QKV_TMPL_PROJECT_STRETCH_H

#include <stddef.h>

#include "project_tile.h"

/* What the room's assembly is handed, by its places in memory. */
struct run {
    const float *x, *w;
    float *sum;
    uintptr_t next;     /* of W, to be asked for */
    ptrdiff_t tiles;    /* one below the other */
    const float *after; /* the rows of X that follow these */
    int64_t add, ends;  /* as in struct qkv_multiply */
    ptrdiff_t out_ld;   /* bytes */
    const float *bias;
    float *out[NR / QKV_PANEL]; /* of each panel */
};

#define RUN_X "(%[run])"
#define RUN_W "8(%[run])"
#define RUN_SUM "16(%[run])"
#define RUN_NEXT "24(%[run])"
#define RUN_TILES "32(%[run])"
#define RUN_AFTER "40(%[run])"
#define RUN_ADD "48(%[run])"
#define RUN_ENDS "56(%[run])"
#define RUN_OUT_LD "64(%[run])"
#define RUN_BIAS "72(%[run])"
#define RUN_OUT(v) "80+8*" #v "(%[run])"
_Static_assert(offsetof(struct run, out) == 80, "these are the places");
_Static_assert(QKV_STRETCH == 64, "the assembly takes four times 16 inputs");

static void whole_tiles(struct run *run, const struct qkv_multiply *g);

/* The first rows of a stretch by NR columns from a panel on. */
static void run_tiles(const struct qkv_multiply *g, int panel, ptrdiff_t tiles) {
    static const float zeros[NR];
    const ptrdiff_t size = sizeof(float), w = panel * g->w_panel;
    struct run run = {
        .x = g->x,
        .w = g->w + w,
        .sum = g->sum + panel * QKV_PANEL,
        .next = (uintptr_t)g->ahead + (uintptr_t)(w * size),
        .tiles = tiles,
        .after = g->x + QKV_STRETCH,
        .add = g->add,
        .ends = g->ends,
        .out_ld = g->out_ld * size,
        .bias = g->bias ? g->bias + panel * QKV_PANEL : zeros,
    };
    for (int v = 0; v < NR / QKV_PANEL && g->ends; v++)
        run.out[v] = g->out[panel + v];
    whole_tiles(&run, g);
}

/* A stretch, or what is left at the end of the inputs. */
static void one_stretch(const struct qkv_multiply *g) {
    if (g->k < QKV_STRETCH) {
        many_tiles(g);
        return;
    }
    const ptrdiff_t tiles = g->tokens / MR;
    struct tile rest = {.row = tiles * MR, .rows = (int)(g->tokens % MR), .panels = NR / QKV_PANEL};
    for (; rest.panel < g->panels; rest.panel += rest.panels) {
        run_tiles(g, rest.panel, tiles);
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
