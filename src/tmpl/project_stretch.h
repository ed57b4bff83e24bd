/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection of many tokens, a stretch of all of them at a time: what the tiles of a stretch
 * share of W, 8 KiB a panel, then stays in the first-level cache (in AVX-512, whose four panels
 * take 32 KiB, if that has more), and a strip's X and sums in the second at most. A tile that goes
 * through all inputs instead reads W from the second-level cache again in every tile, which takes
 * 2 % longer, and 6 where another thread shares the core (docs/performance/tried-project.md). The
 * room defines, before the include,
 *
 *   LEAST   fewer tokens than this, MR or more, go by tiles that are shared out evenly
 *
 * and behind it
 *
 *   high_tiles    static void (struct run *run, const struct qkv_multiply *g): a stretch, or some
 *                 rounds of it, of tiles of MR rows by NR columns; leaves run where the tiles below
 *                 them begin
 *   low_tiles     the same of tiles of MR - 1 rows
 */
#ifndef QKV_TMPL_PROJECT_STRETCH_H
#define QKV_TMPL_PROJECT_STRETCH_H

#include <stddef.h>

#include "project_tile.h"

/* What the room's assembly is handed, by its places in memory. */
struct run {
    const float *x, *w; /* x and sum move on from tile to tile */
    float *sum;
    uintptr_t next;     /* of W, to be asked for */
    ptrdiff_t tiles;    /* one below the other, */
    ptrdiff_t of;       /* of so many that share what is asked for */
    ptrdiff_t rounds;   /* of ROUND inputs */
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
#define RUN_ROUNDS "48(%[run])"
#define RUN_AFTER "56(%[run])"
#define RUN_ADD "64(%[run])"
#define RUN_ENDS "72(%[run])"
#define RUN_OUT_LD "80(%[run])"
#define RUN_BIAS "88(%[run])"
#define RUN_OUT(v) "96+8*" #v "(%[run])"
_Static_assert(offsetof(struct run, out) == 96, "these are the places");

enum { ROUND = 16 }; /* the inputs that the assembly takes without a branch */

static void high_tiles(struct run *run, const struct qkv_multiply *g);
static void low_tiles(struct run *run, const struct qkv_multiply *g);

/* How rows are shared out to tiles: a few low ones instead of a last one of a row or two, whose
 * FMAs would wait for each other and for W. */
struct heights {
    ptrdiff_t high, low;
    int rest; /* rows, of too few to be shared out so */
};

static struct heights heights_of(ptrdiff_t rows) {
    const ptrdiff_t low = (MR - rows % MR) % MR;
    if (low * (MR - 1) > rows)
        return (struct heights){rows / MR, 0, (int)(rows % MR)};
    return (struct heights){(rows - low * (MR - 1)) / MR, low, 0};
}

/* The rows of a stretch but for the rest, by NR columns from a panel on. */
static void run_tiles(const struct qkv_multiply *g, int panel, const struct heights *h) {
    static const float zeros[NR];
    const ptrdiff_t size = sizeof(float), w = panel * g->w_panel;
    struct run run = {
        .x = g->x,
        .w = g->w + w,
        .sum = g->sum + panel * QKV_PANEL,
        .next = (uintptr_t)g->ahead + (uintptr_t)(w * size),
        .tiles = h->high,
        .of = h->high + h->low,
        .rounds = g->k / ROUND,
        .after = h->low ? g->x + h->high * MR * g->x_ld : g->x + g->k,
        .add = g->add,
        .ends = g->ends,
        .out_ld = g->out_ld * size,
        .bias = g->bias ? g->bias + panel * QKV_PANEL : zeros,
    };
    for (int v = 0; v < NR / QKV_PANEL && g->ends; v++)
        run.out[v] = g->out[panel + v];
    if (h->high > 0)
        high_tiles(&run, g);
    if (h->low > 0) {
        run.tiles = h->low;
        run.after = g->x + g->k;
        low_tiles(&run, g);
    }
}

/* A stretch, or what is left at the end of the inputs. */
static void one_stretch(const struct qkv_multiply *g) {
    if (g->k % ROUND) {
        many_tiles(g);
        return;
    }
    const struct heights h = heights_of(g->tokens);
    struct tile rest = {.row = g->tokens - h.rest, .rows = h.rest, .panels = NR / QKV_PANEL};
    for (; rest.panel < g->panels; rest.panel += rest.panels) {
        run_tiles(g, rest.panel, &h);
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
