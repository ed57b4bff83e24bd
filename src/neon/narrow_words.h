/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products whose steps share words of 32 bits, four int8 or two bfloat16, with instructions that
 * take a word at a time: lane i of the sum grows by the products of word i of a line, one column,
 * with the row's word. A unit of the panel is one such instruction for each row and four columns.
 *
 * A row's vector of four words does for four units, which are a round. Tiles are up to four rows:
 * 16 sums, 4 vectors of rows, and a line on its way.
 *
 * Of the including file: sum_t, the vector of sums; UNIT, the steps of a word; and
 *
 *   sum_t dot(sum_t sum, uint32x4_t columns, uint32x4_t row, const int lane, const int whose)
 *   float32x4_t sum_floats(sum_t sum)
 */
#ifndef QKV_NEON_NARROW_WORDS_H
#define QKV_NEON_NARROW_WORDS_H

#include "narrow_product.h"

enum { DOT_ROWS = 4, DOT_SUMS = 16, LINE = QKV_PANEL * 4 };

/* Rows of words: word u of row r. */
struct words {
    const uint32_t *at;
    ptrdiff_t ld;
};

static inline INLINED const uint32_t *word_at(const struct words *a, int r, int u) {
    return a->at + r * a->ld + u;
}

/* ---- Units of a tile ---- */

static inline INLINED void dot_unit(sum_t sum[DOT_SUMS], const uint32x4_t x[DOT_ROWS],
                                    struct source *s, const int lane, const int M, const int G,
                                    const int whose) {
    ask(s, LINE, G, whose);
    QKV_UNROLL(8)
    for (int v = 0; v < G * PANEL_VECTORS; v++) {
        const char *line = line_of(s->at, v / PANEL_VECTORS, LINE, whose);
        const uint32x4_t y = vld1q_u32((const uint32_t *)line + v % PANEL_VECTORS * LANES);
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++) {
            sum_t *to = sum + r * G * PANEL_VECTORS + v;
            *to = dot(*to, y, x[r], lane, whose);
        }
    }
    move(s, 1, G, whose);
    if (whose == VALUES)
        settle(s, G, whose);
    STEP_ENDS;
}

static inline INLINED void dot_round(sum_t sum[DOT_SUMS], const struct words *a, struct source *s,
                                     int u, const int M, const int G, const int whose) {
    uint32x4_t x[DOT_ROWS];
    QKV_UNROLL(4)
    for (int r = 0; r < M; r++)
        x[r] = vld1q_u32(word_at(a, r, u));
    QKV_UNROLL(4)
    for (int i = 0; i < 4; i++)
        dot_unit(sum, x, s, i, M, G, whose);
}

/* Units [u, end), of which s is the first. */
static inline INLINED void dot_units(sum_t sum[DOT_SUMS], const struct words *a, struct source *s,
                                     int u, int end, const int M, const int G, const int whose) {
    KEEP_LOOP
    for (; u + 4 <= end; u += 4) {
        dot_round(sum, a, s, u, M, G, whose);
        settle(s, G, whose);
    }
    KEEP_LOOP
    for (; u < end; u++) {
        uint32x4_t x[DOT_ROWS];
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++)
            x[r] = vld1q_dup_u32(word_at(a, r, u));
        dot_unit(sum, x, s, 0, M, G, whose);
    }
}

static inline INLINED void dot_begin(sum_t sum[DOT_SUMS], const int M, const int G) {
    QKV_UNROLL(16)
    for (int v = 0; v < M * G * PANEL_VECTORS; v++)
        sum[v] = (sum_t){0};
}

/* ---- Rows of a product, and a panel of it ---- */

static inline INLINED struct words key_words(const struct qkv_key_product *p, int row) {
    return (struct words){(const uint32_t *)p->q + row * p->ldq, p->ldq};
}

static inline INLINED int key_units(const struct qkv_key_product *p) {
    return (int)(p->k + UNIT - 1) / UNIT;
}

static inline INLINED struct words value_words(const struct qkv_value_product *p, int row,
                                               int panel) {
    const uint32_t *w = (const uint32_t *)p->w + row * p->ldw;
    return (struct words){w + panel * (QKV_PANEL / UNIT), p->ldw};
}

/* The units that hold tokens which count: others of theirs have weights of zero. */
static inline INLINED struct tokens units_of(const struct qkv_value_product *p, int panel) {
    const struct tokens t = tokens_of(p, panel);
    return (struct tokens){t.from / UNIT, (t.to + UNIT - 1) / UNIT};
}

/* ---- Tiles ---- */

static inline INLINED void dot_floats(float32x4_t x[DOT_SUMS], const sum_t sum[DOT_SUMS],
                                      const int M, const int G) {
    QKV_UNROLL(16)
    for (int v = 0; v < M * G * PANEL_VECTORS; v++)
        x[v] = sum_floats(sum[v]);
}

static inline INLINED void dot_keys(const struct qkv_key_product *p, int row, int panel,
                                    const int M, const int G) {
    const struct words a = key_words(p, row);
    struct source s = key_source(p, panel, LINE, G);
    sum_t sum[DOT_SUMS];
    float32x4_t x[DOT_SUMS];
    dot_begin(sum, M, G);
    dot_units(sum, &a, &s, 0, key_units(p), M, G, KEYS);
    dot_floats(x, sum, M, G);
    leave_keys(p, row, M, panel, x, M, G);
}

static inline INLINED void dot_values(const struct qkv_value_product *p, int row, ptrdiff_t column,
                                      const int M, const int G) {
    sum_t sum[DOT_SUMS];
    float32x4_t x[DOT_SUMS];
    dot_begin(sum, M, G);
    for (int g = p->from / QKV_PANEL; g * QKV_PANEL < p->to; g++) {
        const struct words a = value_words(p, row, g);
        const struct tokens units = units_of(p, g);
        struct source s = value_source(p, g, column, LINE, G);
        move(&s, units.from, G, VALUES);
        dot_units(sum, &a, &s, units.from, units.to, M, G, VALUES);
    }
    dot_floats(x, sum, M, G);
    leave_values(p, row, M, column, x, M, G);
}

/* A function of each shape, so that each has its registers to itself. */
#define DOT_TILE(M, G)                                                                           \
    static void keys_##M##x##G(const struct qkv_key_product *p, int row, int panel) {            \
        dot_keys(p, row, panel, M, G);                                                           \
    }                                                                                            \
    static void values_##M##x##G(const struct qkv_value_product *p, int row, ptrdiff_t column) { \
        dot_values(p, row, column, M, G);                                                        \
    }
#define DOT_TILES DOT_TILE(1, 1) DOT_TILE(1, 2) DOT_TILE(2, 1) DOT_TILE(3, 1) DOT_TILE(4, 1)
DOT_TILES

enum { DOT_FLAT = 1 }; /* rows of a tile of two panels */

static inline void dot_key_tile(const struct qkv_key_product *p, int row, int rows, int panel,
                                int wide) {
    static void (*const tiles[])(const struct qkv_key_product *, int,
                                 int) = {keys_1x1, keys_2x1, keys_3x1, keys_4x1, keys_1x2};
    tiles[wide == 1 ? rows - 1 : DOT_ROWS](p, row, panel);
}

static inline void dot_value_tile(const struct qkv_value_product *p, int row, int rows,
                                  ptrdiff_t column, int wide) {
    static void (*const tiles[])(const struct qkv_value_product *, int, ptrdiff_t) = {
        values_1x1, values_2x1, values_3x1, values_4x1, values_1x2};
    tiles[wide == 1 ? rows - 1 : DOT_ROWS](p, row, column);
}

#endif
