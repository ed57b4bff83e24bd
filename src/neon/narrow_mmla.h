/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of words, as in narrow_words.h, with instructions that multiply a matrix of two rows by
 * one of two columns, two words deep, as two steps of each of the four sums one after the other.
 *
 * Two lines of a panel are zipped for that, so that both words of a column stand side by side, and
 * so are the rows. For 16 columns and two units that is 8 zips, one more for two rows, and 8
 * products for these, where single words take 16: it pays from four rows on. Tiles are up to six:
 * 24 sums, 3 pairs of rows, and 4 registers for lines on their way. A unit that is left over goes
 * by itself, in the same places.
 *
 * Of the including file, besides:
 *
 *   sum_t mmla(sum_t sum, uint32x4_t rows, uint32x4_t columns, const int whose)
 *   sum_t dot_each(sum_t sum, uint32x4_t rows, uint32x4_t columns, const int whose)
 *
 * Sums of rows 0, 0, 1, 1 with columns 0, 1, 0, 1; dot_each takes the words as they stand.
 */
#ifndef QKV_NEON_NARROW_MMLA_H
#define QKV_NEON_NARROW_MMLA_H

#include "narrow_words.h"

enum { MMLA_ROWS = 6, MMLA_FROM = 4, PAIRS = MMLA_ROWS / 2, MMLA_SUMS = PAIRS * QKV_PANEL / 2 };

static inline INLINED uint32x4_t join_64(uint32x4_t a, uint32x4_t b, const int high) {
    const uint64x2_t x = vreinterpretq_u64_u32(a), y = vreinterpretq_u64_u32(b);
    return vreinterpretq_u32_u64(high ? vzip2q_u64(x, y) : vzip1q_u64(x, y));
}

/* The rows of pair i. The last one of an odd number stands twice. */
static inline INLINED int second_of(int i, int rows) {
    return 2 * i + 1 < rows ? 2 * i + 1 : 2 * i;
}

/* ---- Units of a tile ---- */

/* Two units: words u and u + 1 of the rows. */
static inline INLINED void mmla_units(sum_t sum[MMLA_SUMS], const struct words *a, int rows,
                                      struct source *s, int u, const int P, const int whose) {
    uint32x4_t x[PAIRS];
    ask(s, LINE, 1, whose);
    QKV_UNROLL(3)
    for (int i = 0; i < P; i++)
        x[i] = vcombine_u32(vld1_u32(word_at(a, 2 * i, u)),
                            vld1_u32(word_at(a, second_of(i, rows), u)));
    QKV_UNROLL(4)
    for (int v = 0; v < PANEL_VECTORS; v++) {
        const uint32_t *line = (const uint32_t *)s->at[0] + v * LANES;
        const uint32x4_t y = vld1q_u32(line);
        const uint32x4_t z = vld1q_u32((const uint32_t *)((const char *)line + s->row));
        const uint32x4_t low = vzip1q_u32(y, z), high = vzip2q_u32(y, z);
        QKV_UNROLL(3)
        for (int i = 0; i < P; i++) {
            sum_t *to = sum + (i * PANEL_VECTORS + v) * 2;
            to[0] = mmla(to[0], x[i], low, whose);
            to[1] = mmla(to[1], x[i], high, whose);
        }
        STEP_ENDS;
    }
    move(s, 1, 1, whose);
    ask(s, LINE, 1, whose);
    move(s, 1, 1, whose);
}

static inline INLINED void mmla_unit(sum_t sum[MMLA_SUMS], const struct words *a, int rows,
                                     struct source *s, int u, const int P, const int whose) {
    uint32x4_t x[PAIRS];
    QKV_UNROLL(3)
    for (int i = 0; i < P; i++)
        x[i] = vcombine_u32(vld1_dup_u32(word_at(a, 2 * i, u)),
                            vld1_dup_u32(word_at(a, second_of(i, rows), u)));
    QKV_UNROLL(4)
    for (int v = 0; v < PANEL_VECTORS; v++) {
        const uint32x4_t y = vld1q_u32((const uint32_t *)s->at[0] + v * LANES);
        const uint32x4_t low = join_64(y, y, 0), high = join_64(y, y, 1);
        QKV_UNROLL(3)
        for (int i = 0; i < P; i++) {
            sum_t *to = sum + (i * PANEL_VECTORS + v) * 2;
            to[0] = dot_each(to[0], x[i], low, whose);
            to[1] = dot_each(to[1], x[i], high, whose);
        }
        STEP_ENDS;
    }
    move(s, 1, 1, whose);
}

static inline INLINED void mmla_all(sum_t sum[MMLA_SUMS], const struct words *a, int rows,
                                    struct source *s, int u, int end, const int P,
                                    const int whose) {
    KEEP_LOOP
    for (; u + 2 <= end; u += 2) {
        mmla_units(sum, a, rows, s, u, P, whose);
        settle(s, 1, whose);
    }
    if (u < end)
        mmla_unit(sum, a, rows, s, u, P, whose);
}

static inline INLINED void mmla_begin(sum_t sum[MMLA_SUMS], const int P) {
    QKV_UNROLL(24)
    for (int i = 0; i < P * PANEL_VECTORS * 2; i++)
        sum[i] = (sum_t){0};
}

/* The sums of a row's columns from those of two rows and two columns each. */
static inline INLINED void mmla_floats(float32x4_t x[MMLA_SUMS], const sum_t sum[MMLA_SUMS],
                                       const int P) {
    QKV_UNROLL(12)
    for (int i = 0; i < P * PANEL_VECTORS; i++) {
        const int first = i / PANEL_VECTORS * 2 * PANEL_VECTORS + i % PANEL_VECTORS;
        const uint32x4_t a = vreinterpretq_u32_f32(sum_floats(sum[2 * i]));
        const uint32x4_t b = vreinterpretq_u32_f32(sum_floats(sum[2 * i + 1]));
        x[first] = vreinterpretq_f32_u32(join_64(a, b, 0));
        x[first + PANEL_VECTORS] = vreinterpretq_f32_u32(join_64(a, b, 1));
    }
}

/* ---- Tiles ---- */

static inline INLINED void mmla_keys(const struct qkv_key_product *p, int row, int rows, int panel,
                                     const int P) {
    const struct words a = key_words(p, row);
    struct source s = key_source(p, panel, LINE, 1);
    sum_t sum[MMLA_SUMS];
    float32x4_t x[MMLA_SUMS];
    mmla_begin(sum, P);
    mmla_all(sum, &a, rows, &s, 0, key_units(p), P, KEYS);
    mmla_floats(x, sum, P);
    leave_keys(p, row, rows, panel, x, 2 * P, 1);
}

static inline INLINED void mmla_values(const struct qkv_value_product *p, int row, int rows,
                                       ptrdiff_t column, const int P) {
    sum_t sum[MMLA_SUMS];
    float32x4_t x[MMLA_SUMS];
    mmla_begin(sum, P);
    for (int g = p->from / QKV_PANEL; g * QKV_PANEL < p->to; g++) {
        const struct words a = value_words(p, row, g);
        const struct tokens units = units_of(p, g);
        struct source s = value_source(p, g, column, LINE, 1);
        move(&s, units.from, 1, VALUES);
        mmla_all(sum, &a, rows, &s, units.from, units.to, P, VALUES);
    }
    mmla_floats(x, sum, P);
    leave_values(p, row, rows, column, x, 2 * P, 1);
}

#define MMLA_TILE(P)                                                                            \
    static void keys_pairs_##P(const struct qkv_key_product *p, int row, int rows, int panel) { \
        mmla_keys(p, row, rows, panel, P);                                                      \
    }                                                                                           \
    static void values_pairs_##P(const struct qkv_value_product *p, int row, int rows,          \
                                 ptrdiff_t column) {                                            \
        mmla_values(p, row, rows, column, P);                                                   \
    }
#define MMLA_TILES MMLA_TILE(2) MMLA_TILE(3)
MMLA_TILES

/* ---- All tiles of a product ---- */

static inline void mmla_key_tile(const struct qkv_key_product *p, int row, int rows, int panel,
                                 int wide) {
    static void (*const tiles[])(const struct qkv_key_product *, int, int, int) = {keys_pairs_2,
                                                                                   keys_pairs_3};
    if (rows < MMLA_FROM)
        dot_key_tile(p, row, rows, panel, wide);
    else
        tiles[rows > MMLA_FROM](p, row, rows, panel);
}

static inline void mmla_value_tile(const struct qkv_value_product *p, int row, int rows,
                                   ptrdiff_t column, int wide) {
    static void (*const tiles[])(const struct qkv_value_product *, int, int,
                                 ptrdiff_t) = {values_pairs_2, values_pairs_3};
    if (rows < MMLA_FROM)
        dot_value_tile(p, row, rows, column, wide);
    else
        tiles[rows > MMLA_FROM](p, row, rows, column);
}

/* An odd height would leave half of an instruction unused in each tile. */
static inline int mmla_height(int rows) {
    const int height = share(rows, MMLA_ROWS);
    return height > MMLA_FROM ? MMLA_ROWS : height;
}

static inline void mmla_key_product(const struct qkv_key_product *p) {
    walk_keys(p, mmla_height(p->rows), DOT_FLAT, mmla_key_tile);
}

static inline void mmla_value_product(const struct qkv_value_product *p) {
    walk_values(p, mmla_height(p->rows), DOT_FLAT, mmla_value_tile);
}

#endif
