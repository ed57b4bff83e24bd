/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in AVX2. Queries and
 * weights are broadcast, one number a row and step; the cache comes in whole lines, and what is
 * converted serves all rows of a tile. Reads and writes exactly what the sizes say.
 *
 * What the tiles will read is prefetched, a line for each line that they read (stored_ahead.h). A
 * tile's own panels are several streams at a time, which the hardware prefetchers of a Zen 5 fetch
 * at half of the memory's speed: what is prefetched is one stream there, into the second-level
 * cache, since half a block is more than the first one holds, and on Intel's processors lanes. Of
 * panels that are taken in their order nothing is asked for: a Zen 3 reads two streams fastest if
 * it is left alone (stored_order.h).
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

/* A tile: up to 6 rows by 4 panels, two vectors each, at least 8 sums (two FMA ports of latency 4)
 * and at most 12, + 2 of the panels, + 1 of the rows: 15 of 16 registers. A row block then passes
 * the values once for every 16 or 32 columns, and wants most of them in the first pass: they are
 * fetched further ahead than in rooms with wider tiles. */
enum {
    TALL = 6,
    WIDEST = 4,
    VECTORS = 2 * WIDEST,
    AHEAD = 12,
    ORDER_WIDTH = 1,
    ORDER_ASKS = 0,
};

/* The logarithm of the panels of a tile of so many rows. */
static const int widest[TALL] = {2, 1, 1, 0, 0, 0};
static const int *const covering = widest;

#define HIDE(number) __asm__ volatile("" : "+r"(number))

#include "tmpl/stored_order.h"

typedef vf sums[VECTORS]; /* of a row */

/* Step i of a unit, columns 8 half to 8 half + 7. */
static inline __attribute__((always_inline)) vf step_of(const char *unit, const int type,
                                                        const int i, const int half) {
    const void *p = unit + half * line_of(type) / 2;
    if (type == I8)
        return vf_load_i8(p, i);
    return type == F32 ? vf_load(p) : type == F16 ? vf_load_f16(p) : vf_load_bf16(p, i);
}

/* Keeps a sum in its register, and the loads and conversions of the next where they are: compilers
 * would take those early, and push a sum out. */
#define PIN(sum) __asm__ volatile("" : "+x"(sum))

/* Step i of a unit, x's rows ldx apart, with the fewer of rows and panels in registers. M, G and
 * type are constants where this is inlined, so that the sums live in registers. */
static inline __attribute__((always_inline)) void
by_rows(sums *acc, const char *const *b, ptrdiff_t at, const float *x, ptrdiff_t ldx, const int i,
        const int type, const int M, const int G) {
    vf bv[VECTORS];
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++)
        bv[v] = step_of(b[v / 2] + at, type, i, v % 2);
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        const vf xv = vf_set1(x[r * ldx]);
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++) {
            acc[r][v] = vf_fma(xv, bv[v], acc[r][v]);
            PIN(acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void
by_panels(sums *acc, const char *const *b, ptrdiff_t at, const float *x, ptrdiff_t ldx, const int i,
          const int type, const int M, const int G) {
    vf xv[TALL];
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        xv[r] = vf_set1(x[r * ldx]);
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const vf bv = step_of(b[v / 2] + at, type, i, v % 2);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            acc[r][v] = vf_fma(xv[r], bv, acc[r][v]);
            PIN(acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void unit(sums *acc, const char *const *b,
                                                       ptrdiff_t at, const float *x, ptrdiff_t ldx,
                                                       const int type, const int M, const int G) {
    QKV_UNROLL(4)
    for (int i = 0; i < unit_of(type); i++) {
        if (M < 2 * G)
            by_panels(acc, b, at, x + i, ldx, i, type, M, G);
        else
            by_rows(acc, b, at, x + i, ldx, i, type, M, G);
    }
}

static inline __attribute__((always_inline)) void zero(sums *acc, const int M, const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            acc[r][v] = vf_set1(0.0f);
    }
}

static inline __attribute__((always_inline)) void key_tile(const struct qkv_key_product *p, int row,
                                                           int panel, const int type, const int M,
                                                           const int G) {
    const int steps = unit_of(type);
    const ptrdiff_t bytes = (p->k + steps - 1) / steps * line_of(type), ldq = p->ldq;
    const float *q = (const float *)p->q + row * ldq;
    const int step = G == 1 << ORDER_WIDTH ? key_step(p, G) : 1;
    const char *b[WIDEST];
    sums acc[TALL];
    zero(acc, M, G);
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        b[v] = p->panel[panel + v * step];

    const int turns = key_turns(p, panel, bytes, G);
    ptrdiff_t at = 0;
    for (int i = 0; i < turns; i++) {
        struct asked asked = asked_by_keys(p, panel + i, bytes, lanes_of(type));
        for (const ptrdiff_t end = bytes * (i + 1) / turns; at < end; at += line_of(type)) {
            ask(&asked, G * line_of(type), lanes_of(type));
            unit(acc, b, at, q, ldq, type, M, G);
            q += steps;
        }
    }

    float *s = p->s + row * p->lds + panel * QKV_PANEL;
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const vf scale =
            p->scale ? vf_load(p->scale[panel + v / 2 * step] + v % 2 * VF_LANES) : vf_set1(1.0f);
        float *to = s + v / 2 * step * QKV_PANEL + v % 2 * VF_LANES;
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            vf_store(to + r * p->lds, vf_mul(acc[r][v], scale));
    }
}

#include "tmpl/stored_values.h"

static inline __attribute__((always_inline)) void value_tile(const struct qkv_value_product *p,
                                                             int row, ptrdiff_t column,
                                                             const int type, const int M,
                                                             const int G) {
    sums acc[TALL];
    zero(acc, M, G);
    value_chains(acc, p, row, column, type, M, G);

    float *out = p->acc + row * p->ld_acc + column;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        float *to = out + r * p->ld_acc;
        if (p->factor) {
            const vf factor = vf_set1(p->factor[row + r]);
            QKV_UNROLL(8)
            for (int v = 0; v < 2 * G; v++)
                acc[r][v] = vf_fma(vf_load(to + v * VF_LANES), factor, acc[r][v]);
        }
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            vf_store(to + v * VF_LANES, acc[r][v]);
    }
}

#define TILE(type, rows, groups)                                                              \
    static void keys_##type##_##rows##x##groups(const struct qkv_key_product *p, int row,     \
                                                int panel) {                                  \
        key_tile(p, row, panel, type, rows, groups);                                          \
    }                                                                                         \
    static void values_##type##_##rows##x##groups(const struct qkv_value_product *p, int row, \
                                                  ptrdiff_t column) {                         \
        value_tile(p, row, column, type, rows, groups);                                       \
    }
#define KEYS(type, rows, groups) keys_##type##_##rows##x##groups,
#define VALUES(type, rows, groups) values_##type##_##rows##x##groups,
#define UP_TO_2(DO, type, rows) DO(type, rows, 1) DO(type, rows, 2)
#define UP_TO_4(DO, type, rows) UP_TO_2(DO, type, rows) DO(type, rows, 4)
#define TILES(type)        \
    UP_TO_4(TILE, type, 1) \
    UP_TO_2(TILE, type, 2) UP_TO_2(TILE, type, 3) TILE(type, 4, 1) TILE(type, 5, 1) TILE(type, 6, 1)
#define TABLE(DO, type)                                                                           \
    {                                                                                             \
        {UP_TO_4(DO, type, 1)}, {UP_TO_2(DO, type, 2)}, {UP_TO_2(DO, type, 3)}, {DO(type, 4, 1)}, \
            {DO(type, 5, 1)}, {                                                                   \
            DO(type, 6, 1)                                                                        \
        }                                                                                         \
    }
TILES(F32)
TILES(F16)
TILES(BF16)
TILES(I8)

/* By rows, and by the logarithm of the width. */
static key_tile_fn *const key_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(KEYS, F32), TABLE(KEYS, F16), TABLE(KEYS, BF16), TABLE(KEYS, I8)};
static value_tile_fn *const value_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(VALUES, F32), TABLE(VALUES, F16), TABLE(VALUES, BF16), TABLE(VALUES, I8)};

STORED_PRODUCTS(F32)
STORED_PRODUCTS(F16)
STORED_PRODUCTS(BF16)
STORED_PRODUCTS(I8)

const struct qkv_decode_kernels qkv_avx2_decode = {
    .variant = ROOM_NAME,
    .keys = {keys_F32, keys_F16, keys_BF16, keys_I8},
    .values = {values_F32, values_F16, values_BF16, values_I8},
    .scale = scale_weights,
    .lanes = VF_LANES,
    .in_order = {[F32] = 128},
};
