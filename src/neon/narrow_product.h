/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the narrow products of this room share: the walk over tiles, where a tile reads, and the way
 * out of its sums.
 *
 * A tile is up to HEIGHT rows by a panel (of values: the 16 columns of one line), so that what is
 * loaded serves all of its rows; of few rows it is two panels wide, which gives the pipes as many
 * sums as they need. All tiles of a panel follow each other, and find it in the first-level cache.
 */
#ifndef QKV_NEON_NARROW_PRODUCT_H
#define QKV_NEON_NARROW_PRODUCT_H

#include "kernels.h"
#include "vec.h"
#include "stored.h"

#define INLINED __attribute__((always_inline))

/* gcc would take several steps of one sum together, each of which waits for the one before; and it
 * would write out the few turns that a panel of values has, all their beginnings and ends. */
#if defined(__clang__)
#define STEP_ENDS
#define KEEP_LOOP QKV_PRAGMA(clang loop unroll(disable))
#else
#define STEP_ENDS __asm__ volatile("")
#define KEEP_LOOP QKV_PRAGMA(GCC unroll 1)
#endif

enum { WIDEST = 2, LANES = 4, PANEL_VECTORS = QKV_PANEL / LANES };

/* A product's side, a constant wherever it is handed on. */
enum { KEYS, VALUES };

/* ---- Where a tile reads ---- */

/* The step that comes next: of keys, in each panel; of values, whose columns go on in the same
 * line, once. ahead: what to ask for meanwhile. row: bytes from one step to the next. */
struct source {
    uintptr_t at[WIDEST], ahead[WIDEST];
    ptrdiff_t row;
};

static inline INLINED int pointers(const int G, const int whose) {
    return whose == KEYS ? G : 1;
}

/* 16 columns of `size` bytes. */
static inline INLINED const char *line_of(const uintptr_t at[WIDEST], const int g, const int size,
                                          const int whose) {
    return (const char *)(whose == KEYS ? at[g] : at[0] + (uintptr_t)(g * size));
}

static inline INLINED void ask(const struct source *s, const int size, const int G,
                               const int whose) {
    QKV_UNROLL(2)
    for (int g = 0; g < G; g++)
        __builtin_prefetch(line_of(s->ahead, g, size, whose));
}

/* The rows of keys are a constant apart, which the loads hold. */
static inline INLINED void move(struct source *s, ptrdiff_t steps, const int G, const int whose) {
    QKV_UNROLL(2)
    for (int g = 0; g < pointers(G, whose); g++) {
        s->at[g] += (uintptr_t)(steps * s->row);
        s->ahead[g] += (uintptr_t)(steps * s->row);
    }
}

/* Hides the addresses from the compiler, which would else add up an index for each load. */
static inline INLINED void settle(struct source *s, const int G, const int whose) {
    QKV_UNROLL(2)
    for (int g = 0; g < pointers(G, whose); g++)
        __asm__("" : "+r"(s->at[g]), "+r"(s->ahead[g]));
}

/* Panel g of keys, or what comes when there are no more; else the last one, which is at hand. */
static inline INLINED uintptr_t key_panel(const struct qkv_key_product *p, int g) {
    const int behind = g - p->panels;
    if (behind < 0)
        return (uintptr_t)p->panel[g];
    if (!p->next)
        return (uintptr_t)p->panel[p->panels - 1];
    return (uintptr_t)p->next[behind < p->nexts ? behind : p->nexts - 1];
}

static inline INLINED struct source key_source(const struct qkv_key_product *p, int panel,
                                               const int row, const int G) {
    struct source s = {.row = row};
    QKV_UNROLL(2)
    for (int g = 0; g < G; g++) {
        s.at[g] = (uintptr_t)p->panel[panel + g];
        s.ahead[g] = key_panel(p, panel + g + G);
    }
    return s;
}

/* While panel g is read: the next one, the first of the next columns, or what comes then. */
static inline INLINED uintptr_t after_panel(const struct qkv_value_product *p, int g,
                                            ptrdiff_t line, ptrdiff_t size, ptrdiff_t row) {
    if ((g + 1) * QKV_PANEL < p->to)
        return (uintptr_t)p->panel[g + 1] + (uintptr_t)line;
    if (!p->next || line + size < row)
        return (uintptr_t)p->panel[p->from / QKV_PANEL] + (uintptr_t)(line + size);
    return (uintptr_t)p->next[0];
}

/* From column `column` on, of which 16 take `size` bytes. */
static inline INLINED struct source value_source(const struct qkv_value_product *p, int panel,
                                                 ptrdiff_t column, const int size, const int G) {
    const ptrdiff_t line = column / QKV_PANEL * size, row = p->n / QKV_PANEL * size;
    return (struct source){
        .at = {(uintptr_t)p->panel[panel] + (uintptr_t)line},
        .ahead = {after_panel(p, panel, line, G * size, row)},
        .row = row,
    };
}

/* The tokens of a panel that count: some at least. */
struct tokens {
    int from, to;
};

static inline INLINED struct tokens tokens_of(const struct qkv_value_product *p, int panel) {
    const int first = panel * QKV_PANEL, from = p->from - first, to = p->to - first;
    return (struct tokens){from > 0 ? from : 0, to < QKV_PANEL ? to : QKV_PANEL};
}

/* ---- The way out: sums as floats, by row and by vector of its columns ---- */

static inline INLINED void leave_key_row(float *to, const float *const *scale, float row_scale,
                                         const float32x4_t *sum, const int G) {
    QKV_UNROLL(8)
    for (int v = 0; v < G * PANEL_VECTORS; v++) {
        float32x4_t x = vmulq_n_f32(sum[v], row_scale);
        if (scale)
            x = vmulq_f32(x, vld1q_f32(scale[v / PANEL_VECTORS] + v % PANEL_VECTORS * LANES));
        vst1q_f32(to + v * LANES, x);
    }
}

static inline INLINED void leave_value_row(float *to, const float *factor, float row_scale,
                                           const float32x4_t *sum, const int G) {
    QKV_UNROLL(8)
    for (int v = 0; v < G * PANEL_VECTORS; v++) {
        float32x4_t x = vmulq_n_f32(sum[v], row_scale);
        if (factor)
            x = vfmaq_n_f32(x, vld1q_f32(to + v * LANES), *factor);
        vst1q_f32(to + v * LANES, x);
    }
}

/* Rows beyond `rows`, of the M of a tile, are nothing. What the product says is read before
 * anything is written: the compiler takes a vector's store for one that may reach everything. */
static inline INLINED void leave_keys(const struct qkv_key_product *p, int row, int rows, int panel,
                                      const float32x4_t *sum, const int M, const int G) {
    const float *const *scale = p->scale ? p->scale + panel : NULL;
    const float *row_scale = p->row_scale + row;
    const ptrdiff_t lds = p->lds;
    float *to = p->s + row * lds + panel * QKV_PANEL;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        if (r < rows)
            leave_key_row(to + r * lds, scale, row_scale[r], sum + r * G * PANEL_VECTORS, G);
}

static inline INLINED void leave_values(const struct qkv_value_product *p, int row, int rows,
                                        ptrdiff_t column, const float32x4_t *sum, const int M,
                                        const int G) {
    const float *factor = p->factor ? p->factor + row : NULL, *row_scale = p->row_scale + row;
    const ptrdiff_t ld = p->ld_acc;
    float *to = p->acc + row * ld + column;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        if (r < rows)
            leave_value_row(to + r * ld, factor ? factor + r : NULL, row_scale[r],
                            sum + r * G * PANEL_VECTORS, G);
}

/* ---- All tiles of a product ---- */

typedef void key_tile_fn(const struct qkv_key_product *p, int row, int rows, int panel, int wide);
typedef void value_tile_fn(const struct qkv_value_product *p, int row, int rows, ptrdiff_t column,
                           int wide);

/* Rows, `all` of them or fewer at the end, shared out evenly to tiles of at most `most`. */
static inline INLINED int share(int all, int most) {
    const int tiles = (all + most - 1) / most;
    return (all + tiles - 1) / tiles;
}

static inline INLINED void walk_keys(const struct qkv_key_product *p, int height, int flat,
                                     key_tile_fn *tile) {
    for (int g = 0, wide; g < p->panels; g += wide) {
        wide = height <= flat && p->panels - g >= WIDEST ? WIDEST : 1;
        for (int i = 0; i < p->rows; i += height)
            tile(p, i, p->rows - i < height ? p->rows - i : height, g, wide);
    }
}

static inline INLINED void walk_values(const struct qkv_value_product *p, int height, int flat,
                                       value_tile_fn *tile) {
    for (ptrdiff_t c = 0, wide; c < p->n; c += wide * QKV_PANEL) {
        wide = height <= flat && p->n - c >= WIDEST * QKV_PANEL ? WIDEST : 1;
        for (int i = 0; i < p->rows; i += height)
            tile(p, i, p->rows - i < height ? p->rows - i : height, c, (int)wide);
    }
}

#endif
