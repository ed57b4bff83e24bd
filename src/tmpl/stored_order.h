/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with keys or values as a cache stores them, for a cache that is read from memory: a walk
 * in the order in which panels stand there (kernels_cache.h, in_order). A tile as wide as a token's
 * values is one stream, and one of keys as many as it has panels, each from a share of its own of
 * the block: streams that a processor's own prefetchers follow. Of the room's own, defined before
 * the include, beside what stored_ahead.h wants: covering[TALL], the logarithm of the panels of the
 * widest tile of values of so many rows; ORDER_WIDTH, that of the streams of keys; and ORDER_ASKS,
 * bytes from one line that is asked for ahead in that walk to the next, or 0 for none.
 */
#ifndef QKV_TMPL_STORED_ORDER_H
#define QKV_TMPL_STORED_ORDER_H

#include "stored_ahead.h"

/* Asks for a few lines of [ahead, ahead + bytes), where the processor follows by itself: one that
 * is asked for holds one of its few buffers for misses until it is there
 * (docs/performance/tried-decode.md). */
static inline void ask_few(uintptr_t ahead, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; ORDER_ASKS > 0 && i < bytes; i += ORDER_ASKS)
        __builtin_prefetch((const void *)(ahead + (uintptr_t)i), 0, 2);
}

/* How many panels a tile's panels are apart. */
static inline int key_step(const struct qkv_key_product *p, const int G) {
    return p->in_order ? p->panels / G : 1;
}

/* Rows of one tile after another, of a panel or of as many as a tile has streams. */
static inline void key_rows_in_order(const struct qkv_key_product *p, int panel, int width,
                                     key_tile_fn *const tiles[][WIDTHS]) {
    const int height = height_of(p->rows);
    for (int row = 0; row < p->rows; row += height)
        tiles[(p->rows - row < height ? p->rows - row : height) - 1][width](p, row, panel);
}

static inline void keys_in_order(const struct qkv_key_product *p,
                                 key_tile_fn *const tiles[][WIDTHS]) {
    const int most = widest[height_of(p->rows) - 1],
              width = most < ORDER_WIDTH ? most : ORDER_WIDTH;
    const int share = p->panels >> width;
    for (int panel = 0; panel < share; panel++)
        key_rows_in_order(p, panel, width, tiles);
    for (int panel = share << width; panel < p->panels; panel++)
        key_rows_in_order(p, panel, 0, tiles);
}

/* The most rows of which a tile is as wide as the values; one, if none is. */
static inline int covering_height(ptrdiff_t n) {
    int rows = TALL;
    while (rows > 1 && (ptrdiff_t)QKV_PANEL << covering[rows - 1] < n)
        rows--;
    return rows;
}

static inline int covering_width(int rows, ptrdiff_t left) {
    int width = covering[rows - 1];
    while (left >> width == 0)
        width--;
    return width;
}

static inline void values_in_order(const struct qkv_value_product *p,
                                   value_tile_fn *const tiles[][WIDTHS]) {
    const int height = covering_height(p->n);
    for (int row = 0; row < p->rows; row += height) {
        const int rows = p->rows - row < height ? p->rows - row : height;
        for (ptrdiff_t column = 0; column < p->n;) {
            const int width = covering_width(rows, (p->n - column) / QKV_PANEL);
            tiles[rows - 1][width](p, row, column);
            column += (ptrdiff_t)QKV_PANEL << width;
        }
    }
}

/* The kernels of a type, from tables of its tiles by rows and by the logarithm of the width. */
#define STORED_PRODUCTS(type)                                                \
    static void keys_##type(const struct qkv_key_product *p) {               \
        (p->in_order ? keys_in_order : walk_keys)(p, key_tiles[type]);       \
    }                                                                        \
    static void values_##type(const struct qkv_value_product *p) {           \
        (p->in_order ? values_in_order : walk_values)(p, value_tiles[type]); \
    }

#endif
