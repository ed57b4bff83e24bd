/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over the tiles of a product with keys or values as a cache stores them: panels by the
 * width of a tile, within them rows by its height, so that a panel stays in the first-level cache
 * for all rows; and what such tiles ask for ahead. Of the room's own, defined before the include:
 * TALL, the most rows of a tile; AHEAD, how many panels ahead it asks; and widest[TALL], the
 * logarithm of the panels of a tile of so many rows.
 */
#ifndef QKV_TMPL_STORED_WALK_H
#define QKV_TMPL_STORED_WALK_H

enum {
    F32 = QKV_STORED_F32,
    F16 = QKV_STORED_F16,
    BF16 = QKV_STORED_BF16,
    I8 = QKV_STORED_I8,
    F16_HALVES = QKV_STORED_COUNT, /* float16 by vectors of half a register */
    WIDTHS = 4, /* tiles of 1, 2, 4 and 8 panels; no room has all for every number of rows */
};

typedef void key_tile_fn(const struct qkv_key_product *p, int row, int panel);
typedef void value_tile_fn(const struct qkv_value_product *p, int row, ptrdiff_t column);

/* Steps that share a word, and bytes of such a step, or steps, of one panel. */
static inline int unit_of(const int type) {
    return type == I8 ? 4 : type == BF16 ? 2 : 1;
}

static inline int line_of(const int type) {
    return type == F16 || type == F16_HALVES ? 32 : 64;
}

/* What is read AHEAD panels behind panel `index` of `count`: one of them, or of those behind. */
static inline uintptr_t ahead_of(const void *const *panel, int count, const void *const *next,
                                 int nexts, int index) {
    const int behind = index + AHEAD - count;
    if (behind < 0)
        return (uintptr_t)panel[index + AHEAD];
    return next ? (uintptr_t)next[behind < nexts ? behind : nexts - 1] : 0;
}

/* Rows are shared out evenly to tiles. */
static inline int height_of(int rows) {
    const int tiles = (rows + TALL - 1) / TALL;
    return (rows + tiles - 1) / tiles;
}

/* The logarithm of the width of a tile that has `left` panels before it. */
static inline int width_of(int rows, ptrdiff_t left) {
    int width = widest[rows - 1];
    while (left >> width == 0)
        width--;
    return width;
}

static inline void walk_keys(const struct qkv_key_product *p, key_tile_fn *const tiles[][WIDTHS]) {
    const int height = height_of(p->rows);
    for (int panel = 0; p->scale && panel < p->panels; panel++)
        __builtin_prefetch(p->scale[panel]);
    for (int panel = 0; panel < p->panels;) {
        const int width = width_of(height, p->panels - panel);
        for (int row = 0; row < p->rows; row += height) {
            const int rows = p->rows - row < height ? p->rows - row : height;
            tiles[rows - 1][width](p, row, panel);
        }
        panel += 1 << width;
    }
}

static inline void walk_values(const struct qkv_value_product *p,
                               value_tile_fn *const tiles[][WIDTHS]) {
    const int height = height_of(p->rows);
    for (ptrdiff_t column = 0; column < p->n;) {
        const int width = width_of(height, (p->n - column) / QKV_PANEL);
        for (int row = 0; row < p->rows; row += height) {
            const int rows = p->rows - row < height ? p->rows - row : height;
            tiles[rows - 1][width](p, row, column);
        }
        column += (ptrdiff_t)QKV_PANEL << width;
    }
}

#endif
