/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in plain C (struct qkv_multiply in kernels.h): the tile of a strip; the walk over
 * the tiles and the rows' way out are tmpl/project.h's, the packing pack.c's. Reads and writes
 * exactly what the sizes say. Few tokens take the same tile as many: this room multiplies more
 * slowly than any memory is read.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project_tile.h"

enum { FEW = MR, COLUMNS = 4 };

static int few_panels(const struct qkv_multiply *g) {
    static const int panels[FEW] = {1, 1, 1};
    return panels[g->tokens - 1];
}

/* Columns [c, c + COLUMNS) of the tile. M is a constant where this is inlined, so that the
 * accumulators live in registers. */
static inline __attribute__((always_inline)) void
columns(const struct qkv_multiply *g, const struct tile *t, int c, const int M) {
    const float *x = g->x + t->row * g->x_ld;
    const float *w = g->w + t->panel * g->w_panel + c;
    const float *bias = g->bias ? g->bias + t->panel * QKV_PANEL + c : NULL;
    int add = g->add;
    for (ptrdiff_t left = g->k; left > 0;) {
        const ptrdiff_t n = left < QKV_STRETCH ? left : QKV_STRETCH;
        float acc[MR][COLUMNS] = {{0}};
        for (ptrdiff_t p = n; p > 0; p--) {
            QKV_UNROLL(4)
            for (int v = 0; v < COLUMNS; v++) {
                QKV_UNROLL(3)
                for (int r = 0; r < M; r++)
                    acc[r][v] = vf_fma(x[r * g->x_ld], w[v], acc[r][v]);
            }
            x++;
            w += QKV_PANEL;
        }
        left -= n;
        const int ends = g->ends && left == 0;
        for (int r = 0; r < M; r++) {
            float *sum = g->sum + (t->row + r) * g->sum_ld + t->panel * QKV_PANEL + c;
            float *to = ends ? g->out[t->panel] + (t->row + r) * g->out_ld + c : sum;
            for (int v = 0; v < COLUMNS; v++) {
                float joined = add ? sum[v] + acc[r][v] : acc[r][v];
                to[v] = ends ? joined + (bias ? bias[v] : 0.0f) : joined;
            }
        }
        add = 1;
    }
}

#define TILE(rows)                                                                \
    static void tile_##rows(const struct qkv_multiply *g, const struct tile *t) { \
        for (int c = 0; c < QKV_PANEL; c += COLUMNS)                              \
            columns(g, t, c, rows);                                               \
    }
TILE(1)
TILE(2)
TILE(3)

typedef void tile_fn(const struct qkv_multiply *g, const struct tile *t);

static tile_fn *const by_rows[MR] = {tile_1, tile_2, tile_3};

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    by_rows[t->rows - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    by_rows[t->rows - 1](g, t);
}

#define many_tokens many_tiles
#include "tmpl/project.h"

const struct qkv_project_kernels qkv_scalar_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
};
