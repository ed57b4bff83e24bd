/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in AVX-512. Queries
 * and weights are broadcast, one number a row and step; the cache comes in whole lines, and what is
 * converted serves all rows of a tile. Reads and writes exactly what the sizes say.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

enum {
    F32 = QKV_STORED_F32,
    F16 = QKV_STORED_F16,
    BF16 = QKV_STORED_BF16,
    I8 = QKV_STORED_I8,
    TALL = 6,
    WIDEST = 8,
};

/* The panels of a tile: at least 8 chains, two FMA ports of latency 4, and at most 24, so that the
 * panels' words and a broadcast have registers too. */
static const int widest[TALL] = {8, 8, 4, 4, 4, 4};

/* Steps that share a word, and bytes of such a step, or steps, of one panel. */
static inline int unit_of(const int type) {
    return type == I8 ? 4 : type == BF16 ? 2 : 1;
}

static inline int line_of(const int type) {
    return type == F16 ? 32 : 64;
}

/* Step i of the unit. */
static inline __attribute__((always_inline)) __m512 step_of(const char *unit, const int type,
                                                            const int i) {
    const void *p = unit;
    return type == F32    ? vf_load(p)
           : type == F16  ? vf_load_f16(p)
           : type == BF16 ? vf_load_bf16(p, i)
                          : vf_load_i8(p, i);
}

/* All steps of a unit: x's rows are ldx apart. M, G and type are constants where this is inlined,
 * so that the accumulators live in registers. */
static inline __attribute__((always_inline)) void unit(__m512 acc[TALL][WIDEST],
                                                       const char *const *b, ptrdiff_t at,
                                                       const float *x, ptrdiff_t ldx,
                                                       const int type, const int M, const int G) {
    QKV_UNROLL(4)
    for (int i = 0; i < unit_of(type); i++) {
        __m512 bv[WIDEST];
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++)
            bv[v] = step_of(b[v] + at, type, i);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            const __m512 xv = _mm512_set1_ps(x[r * ldx + i]);
            QKV_UNROLL(8)
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_fmadd_ps(xv, bv[v], acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void zero(__m512 acc[TALL][WIDEST], const int M,
                                                       const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_setzero_ps();
    }
}

static inline __attribute__((always_inline)) void key_tile(const struct qkv_key_product *p, int row,
                                                           int panel, const int type, const int M,
                                                           const int G) {
    const int steps = unit_of(type);
    const float *q = p->q + row * p->ldq;
    const char *b[WIDEST];
    __m512 acc[TALL][WIDEST];
    zero(acc, M, G);
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++)
        b[v] = p->panel[panel + v];

    const ptrdiff_t end = (p->k + steps - 1) / steps * line_of(type), ldq = p->ldq;
    for (ptrdiff_t at = 0; at < end; at += line_of(type)) {
        unit(acc, b, at, q, ldq, type, M, G);
        q += steps;
    }

    float *s = p->s + row * p->lds + panel * QKV_PANEL;
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++) {
        const __m512 scale = p->scale ? vf_load(p->scale[panel + v]) : _mm512_set1_ps(1.0f);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            vf_store(s + r * p->lds + v * QKV_PANEL, _mm512_mul_ps(acc[r][v], scale));
    }
}

static inline __attribute__((always_inline)) void value_tile(const struct qkv_value_product *p,
                                                             int row, ptrdiff_t column,
                                                             const int type, const int M,
                                                             const int G) {
    const int steps = unit_of(type);
    const ptrdiff_t line = p->n / QKV_PANEL * line_of(type), ldw = p->ldw;
    const ptrdiff_t offset = column / QKV_PANEL * line_of(type);
    __m512 acc[TALL][WIDEST];
    zero(acc, M, G);

    for (int t = p->from / steps * steps; t < p->to;) {
        const char *panel = (const char *)p->panel[t / QKV_PANEL] + offset;
        const char *b[WIDEST];
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++)
            b[v] = panel + v * line_of(type);
        const int last = t / QKV_PANEL * QKV_PANEL + QKV_PANEL, end = p->to < last ? p->to : last;
        const float *w = p->w + row * ldw + t;
        for (ptrdiff_t at = t % QKV_PANEL / steps * line; t < end; t += steps) {
            unit(acc, b, at, w, ldw, type, M, G);
            at += line;
            w += steps;
        }
    }

    float *out = p->acc + row * p->ld_acc + column;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        float *to = out + r * p->ld_acc;
        if (p->factor) {
            const __m512 factor = _mm512_set1_ps(p->factor[row + r]);
            QKV_UNROLL(8)
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_fmadd_ps(vf_load(to + v * QKV_PANEL), factor, acc[r][v]);
        }
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++)
            vf_store(to + v * QKV_PANEL, acc[r][v]);
    }
}

typedef void key_tile_fn(const struct qkv_key_product *p, int row, int panel);
typedef void value_tile_fn(const struct qkv_value_product *p, int row, ptrdiff_t column);

#define TILE(type, rows, groups)                                                              \
    static void keys_##type##_##rows##x##groups(const struct qkv_key_product *p, int row,     \
                                                int panel) {                                  \
        key_tile(p, row, panel, type, rows, groups);                                          \
    }                                                                                         \
    static void values_##type##_##rows##x##groups(const struct qkv_value_product *p, int row, \
                                                  ptrdiff_t column) {                         \
        value_tile(p, row, column, type, rows, groups);                                       \
    }
#define UP_TO_2(DO, type, rows) DO(type, rows, 1) DO(type, rows, 2)
#define UP_TO_4(DO, type, rows) UP_TO_2(DO, type, rows) DO(type, rows, 4)
#define UP_TO_8(DO, type, rows) UP_TO_4(DO, type, rows) DO(type, rows, 8)
#define TILES(type)        \
    UP_TO_8(TILE, type, 1) \
    UP_TO_8(TILE, type, 2) \
    UP_TO_4(TILE, type, 3) \
    UP_TO_4(TILE, type, 4) \
    UP_TO_4(TILE, type, 5) \
    UP_TO_4(TILE, type, 6)
TILES(F32)
TILES(F16)
TILES(BF16)
TILES(I8)

/* By the logarithm of the width. */
enum { WIDTHS = 4 };
#define KEYS(type, rows, groups) keys_##type##_##rows##x##groups,
#define VALUES(type, rows, groups) values_##type##_##rows##x##groups,
#define TABLE(DO, type)                                                         \
    {                                                                           \
        {UP_TO_8(DO, type, 1)}, {UP_TO_8(DO, type, 2)}, {UP_TO_4(DO, type, 3)}, \
            {UP_TO_4(DO, type, 4)}, {UP_TO_4(DO, type, 5)}, {                   \
            UP_TO_4(DO, type, 6)                                                \
        }                                                                       \
    }
static key_tile_fn *const key_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(KEYS, F32), TABLE(KEYS, F16), TABLE(KEYS, BF16), TABLE(KEYS, I8)};
static value_tile_fn *const value_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(VALUES, F32), TABLE(VALUES, F16), TABLE(VALUES, BF16), TABLE(VALUES, I8)};

/* The logarithm of the width of a tile that has `left` panels before it. */
static inline int width_of(int rows, ptrdiff_t left) {
    int width = __builtin_ctz((unsigned)widest[rows - 1]);
    while (left >> width == 0)
        width--;
    return width;
}

/* Rows are shared out evenly to tiles: a panel stays in the first-level cache for all of them. */
static inline int height_of(int rows) {
    const int tiles = (rows + TALL - 1) / TALL;
    return (rows + tiles - 1) / tiles;
}

static inline __attribute__((always_inline)) void keys(const struct qkv_key_product *p,
                                                       const int type) {
    const int height = height_of(p->rows);
    for (int panel = 0; panel < p->panels;) {
        const int width = width_of(height, p->panels - panel);
        for (int row = 0; row < p->rows; row += height) {
            const int rows = p->rows - row < height ? p->rows - row : height;
            key_tiles[type][rows - 1][width](p, row, panel);
        }
        panel += 1 << width;
    }
}

static inline __attribute__((always_inline)) void values(const struct qkv_value_product *p,
                                                         const int type) {
    const int height = height_of(p->rows);
    for (ptrdiff_t column = 0; column < p->n;) {
        const int width = width_of(height, (p->n - column) / QKV_PANEL);
        for (int row = 0; row < p->rows; row += height) {
            const int rows = p->rows - row < height ? p->rows - row : height;
            value_tiles[type][rows - 1][width](p, row, column);
        }
        column += (ptrdiff_t)QKV_PANEL << width;
    }
}

#define PRODUCTS(type)                                             \
    static void keys_##type(const struct qkv_key_product *p) {     \
        keys(p, type);                                             \
    }                                                              \
    static void values_##type(const struct qkv_value_product *p) { \
        values(p, type);                                           \
    }
PRODUCTS(F32)
PRODUCTS(F16)
PRODUCTS(BF16)
PRODUCTS(I8)

const struct qkv_decode_kernels qkv_avx512_decode = {
    .variant = ROOM_NAME,
    .keys = {keys_F32, keys_F16, keys_BF16, keys_I8},
    .values = {values_F32, values_F16, values_BF16, values_I8},
    .scale = scale_weights,
};
