/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over a strip of the projection (struct qkv_multiply in kernels.h), and a row's way out.
 * The room defines, before the include, MR, NR and
 *
 *   FEW           up to so many tokens are one tile: W comes from memory, and is read once
 *   few_panels    static int (const struct qkv_multiply *g): how many panels wide such a tile is, a
 *                 power of two; the last ones may have less
 *   few_tile, many_tile
 *                 static void (const struct qkv_multiply *g, const struct tile *t)
 *   many_tokens   static void (const struct qkv_multiply *g): all of more than FEW tokens, by one
 *                 tile after the other (project_tile.h's many_tiles) or a stretch at a time
 *                 (project_stretch.h)
 *
 * and includes tmpl/project_tile.h before those.
 */
#ifndef QKV_TMPL_PROJECT_H
#define QKV_TMPL_PROJECT_H

#include "row.h"

static void few_tokens(const struct qkv_multiply *g) {
    const int wide = few_panels(g);
    struct tile t = {.rows = (int)g->tokens, .panels = wide};
    for (; t.panel < g->panels; t.panel += t.panels) {
        while (t.panels > g->panels - t.panel)
            t.panels /= 2;
        few_tile(g, &t);
    }
}

void ROOM(multiply)(const struct qkv_multiply *strip) {
    if (strip->tokens <= FEW)
        few_tokens(strip);
    else
        many_tokens(strip);
}

/* Adding +0 where there is no bias turns -0 into +0, as a bias of zero would. */
void ROOM(store)(float *out, const float *acc, const float *bias, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c += VF_LANES) {
        vf b = bias ? load_upto(bias + c, n - c) : vf_set1(0.0f);
        store_upto(out + c, vf_add(load_upto(acc + c, n - c), b), n - c);
    }
}

#endif
