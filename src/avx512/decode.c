/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in AVX-512. Queries
 * and weights are broadcast, one number a row and step; the cache comes in whole lines, and what is
 * converted serves all rows of a tile. Reads and writes exactly what the sizes say.
 *
 * What the tiles will read is prefetched, a line for each line that they read (stored_ahead.h). A
 * tile's own panels are several streams at a time, which the hardware prefetchers of a Zen 5 fetch
 * at half of the memory's speed: what is prefetched is one stream there, into the second-level
 * cache, since half a block is more than the first one holds. A Granite Rapids reads one at 12 GB/s
 * and four at 18, an Ice Lake one at 12 and eight at 17: there it is lanes. Panels that are taken
 * in their order are one stream themselves, and little of them is asked for (stored_order.h).
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

/* A tile: up to 6 rows by 4 panels, one vector each: 24 sums, + 4 of the panels, + 1 of the rows:
 * 29 of 32 registers; and up to 2 rows by 8 panels of values that are taken in their order. (8
 * panels for one row have twice the chains, but twice the streams as well: on a Zen 5 3 to 10 %
 * slower from DRAM, and 5 to 10 % faster from the second-level cache.) */
enum {
    TALL = 6,
    WIDEST = 8,
    AHEAD = 8,
    ORDER_WIDTH = 0,
    ORDER_ASKS = 512,
};

/* The logarithm of the panels of a tile of so many rows; and of values in their order. */
static const int widest[TALL] = {2, 2, 2, 2, 2, 2};
static const int covering[TALL] = {3, 3, 2, 2, 2, 2};

#define HIDE(number) HOLD(number)

#include "tmpl/stored_order.h"

typedef vf sums[WIDEST]; /* of a row */

/* Keeps a sum, or a unit's words, in a register, and the loads and conversions of the next where
 * they are: compilers would take those early, and push a sum out. */
#define PIN(sum) __asm__ volatile("" : "+v"(sum))

/* A step of products with float16 by vectors of 256 bits, for processors that send 512 bits through
 * their units in two halves: a Zen 4 converts 16 numbers by two instructions of 256 bits as fast as
 * its FMAs go, and by one of 512 bits at half of that speed. A half panel's sum stands in the lower
 * half of a vector of `sums`, 2 v and 2 v + 1 being panel v's, until the end. */
static inline __m256 half_of(vf sum) {
    return _mm512_castps512_ps256(sum);
}

static inline __attribute__((always_inline)) void half_step(sums *acc, const char *const *b,
                                                            ptrdiff_t at, const float *x,
                                                            ptrdiff_t ldx, const int M,
                                                            const int G) {
    __m256 xv[TALL];
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        xv[r] = _mm256_set1_ps(x[r * ldx]);
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const __m128i *p = (const __m128i *)(b[v / 2] + at) + v % 2;
        const __m256 bv = _mm256_cvtph_ps(_mm_loadu_si128(p));
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            acc[r][v] = _mm512_castps256_ps512(_mm256_fmadd_ps(xv[r], bv, half_of(acc[r][v])));
            PIN(acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void join_halves(sums *acc, const int M, const int G) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_insertf32x8(acc[r][2 * v], half_of(acc[r][2 * v + 1]), 1);
    }
}

/* Are a unit's words loaded once for all of its steps? A line that is on its way is else waited for
 * at every step. Taller tiles have no registers for that. */
static inline int are_held(const int type, const int M, const int G) {
    return unit_of(type) > 1 && M * G <= 16 && G < 8;
}

/* A unit of the tile's panels: where it stands, and its words if they are held. */
struct panels {
    const char *at[WIDEST];
    __m512i words[WIDEST];
};

/* Step i of the unit in panel v. */
static inline __attribute__((always_inline)) vf step_of(const struct panels *u, int v, const int i,
                                                        const int type, const int held) {
    const void *p = u->at[v];
    if (type == I8)
        return held ? vf_of_i8(u->words[v], i) : vf_load_i8(p, i);
    if (type == BF16)
        return held ? vf_of_bf16(u->words[v], i) : vf_load_bf16(p, i);
    return type == F32 ? vf_load(p) : vf_load_f16(p);
}

/* Step i of a unit, x's rows ldx apart, with the fewer of rows and panels in registers. M, G and
 * type are constants where this is inlined, so that the sums live in registers. */
static inline __attribute__((always_inline)) void by_rows(sums *acc, const struct panels *u,
                                                          const float *x, ptrdiff_t ldx,
                                                          const int i, const int type, const int M,
                                                          const int G) {
    vf bv[TALL]; /* G <= M here */
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++)
        bv[v] = step_of(u, v, i, type, are_held(type, M, G));
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        const vf xv = vf_set1(x[r * ldx]);
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++) {
            acc[r][v] = vf_fma(xv, bv[v], acc[r][v]);
            PIN(acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void by_panels(sums *acc, const struct panels *u,
                                                            const float *x, ptrdiff_t ldx,
                                                            const int i, const int type,
                                                            const int M, const int G) {
    vf xv[TALL];
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++)
        xv[r] = vf_set1(x[r * ldx]);
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++) {
        const vf bv = step_of(u, v, i, type, are_held(type, M, G));
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
    if (type == F16_HALVES) {
        half_step(acc, b, at, x, ldx, M, G);
        return;
    }
    struct panels u;
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++) {
        u.at[v] = b[v] + at;
        if (are_held(type, M, G)) {
            u.words[v] = _mm512_loadu_si512(u.at[v]);
            PIN(u.words[v]);
        }
    }
    QKV_UNROLL(4)
    for (int i = 0; i < unit_of(type); i++) {
        if (M < G)
            by_panels(acc, &u, x + i, ldx, i, type, M, G);
        else
            by_rows(acc, &u, x + i, ldx, i, type, M, G);
    }
}

/* The sums of a row of a tile of G panels. */
static inline int sums_of(const int type, const int G) {
    return type == F16_HALVES ? 2 * G : G;
}

static inline __attribute__((always_inline)) void zero(sums *acc, const int M, const int count) {
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < count; v++)
            acc[r][v] = vf_set1(0.0f);
    }
}

static inline __attribute__((always_inline)) void key_tile(const struct qkv_key_product *p, int row,
                                                           int panel, const int type, const int M,
                                                           const int G) {
    const int steps = unit_of(type);
    const ptrdiff_t bytes = (p->k + steps - 1) / steps * line_of(type), ldq = p->ldq;
    const float *q = (const float *)p->q + row * ldq;
    const char *b[WIDEST];
    sums acc[TALL];
    zero(acc, M, sums_of(type, G));
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        b[v] = p->panel[panel + v];

    const int turns = key_turns(p, panel, bytes, G);
    if (G == 1 && p->next && p->in_order)
        ask_few(ahead_of(p->panel, p->panels, p->next, p->nexts, panel), bytes);
    ptrdiff_t at = 0;
    for (int i = 0; i < turns; i++) {
        struct asked asked = asked_by_keys(p, panel + i, bytes, lanes_of(type));
        for (const ptrdiff_t end = bytes * (i + 1) / turns; at < end; at += line_of(type)) {
            ask(&asked, G * line_of(type), lanes_of(type));
            unit(acc, b, at, q, ldq, type, M, G);
            q += steps;
        }
    }

    if (type == F16_HALVES)
        join_halves(acc, M, G);
    float *s = p->s + row * p->lds + panel * QKV_PANEL;
    QKV_UNROLL(8)
    for (int v = 0; v < G; v++) {
        const vf scale = p->scale ? vf_load(p->scale[panel + v]) : vf_set1(1.0f);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            vf_store(s + r * p->lds + v * VF_LANES, vf_mul(acc[r][v], scale));
    }
}

#include "tmpl/stored_values.h"

static inline __attribute__((always_inline)) void value_tile(const struct qkv_value_product *p,
                                                             int row, ptrdiff_t column,
                                                             const int type, const int M,
                                                             const int G) {
    sums acc[TALL];
    zero(acc, M, sums_of(type, G));
    value_chains(acc, p, row, column, type, M, G);
    if (type == F16_HALVES)
        join_halves(acc, M, G);

    HOLD(p);
    float *to = p->acc + row * p->ld_acc + column;
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        if (p->factor) {
            const vf factor = vf_set1(p->factor[row + r]);
            QKV_UNROLL(8)
            for (int v = 0; v < G; v++)
                acc[r][v] = vf_fma(vf_load(to + v * VF_LANES), factor, acc[r][v]);
        }
        QKV_UNROLL(8)
        for (int v = 0; v < G; v++)
            vf_store(to + v * VF_LANES, acc[r][v]);
        to += p->ld_acc;
        HOLD(to);
    }
}

#define KEY_TILE(type, rows, groups)                                                      \
    static void keys_##type##_##rows##x##groups(const struct qkv_key_product *p, int row, \
                                                int panel) {                              \
        key_tile(p, row, panel, type, rows, groups);                                      \
    }
#define VALUE_TILE(type, rows, groups)                                                        \
    static void values_##type##_##rows##x##groups(const struct qkv_value_product *p, int row, \
                                                  ptrdiff_t column) {                         \
        value_tile(p, row, column, type, rows, groups);                                       \
    }
#define KEYS(type, rows, groups) keys_##type##_##rows##x##groups,
#define VALUES(type, rows, groups) values_##type##_##rows##x##groups,
#define UP_TO_4(DO, type, rows) DO(type, rows, 1) DO(type, rows, 2) DO(type, rows, 4)
#define UP_TO_8(DO, type, rows) UP_TO_4(DO, type, rows) DO(type, rows, 8)
#define TILES(DO, UP_TO, type) \
    UP_TO(DO, type, 1)         \
    UP_TO(DO, type, 2)         \
    UP_TO_4(DO, type, 3) UP_TO_4(DO, type, 4) UP_TO_4(DO, type, 5) UP_TO_4(DO, type, 6)
#define TABLE(DO, UP_TO, type)                                              \
    {                                                                       \
        {UP_TO(DO, type, 1)}, {UP_TO(DO, type, 2)}, {UP_TO_4(DO, type, 3)}, \
            {UP_TO_4(DO, type, 4)}, {UP_TO_4(DO, type, 5)}, {               \
            UP_TO_4(DO, type, 6)                                            \
        }                                                                   \
    }
#define TILES_OF(type) TILES(KEY_TILE, UP_TO_4, type) TILES(VALUE_TILE, UP_TO_8, type)
#define HALVES_OF(rows) UP_TO_4(KEY_TILE, F16_HALVES, rows) UP_TO_4(VALUE_TILE, F16_HALVES, rows)
#define HALVES(DO)                                                \
    {UP_TO_4(DO, F16_HALVES, 1)}, {UP_TO_4(DO, F16_HALVES, 2)}, { \
        UP_TO_4(DO, F16_HALVES, 3)                                \
    }
TILES_OF(F32)
TILES_OF(F16)
TILES_OF(BF16)
TILES_OF(I8)
HALVES_OF(1)
HALVES_OF(2)
HALVES_OF(3)

/* By rows, and by the logarithm of the width. */
static key_tile_fn *const key_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(KEYS, UP_TO_4, F32), TABLE(KEYS, UP_TO_4, F16), TABLE(KEYS, UP_TO_4, BF16),
    TABLE(KEYS, UP_TO_4, I8)};
static value_tile_fn *const value_tiles[QKV_STORED_COUNT][TALL][WIDTHS] = {
    TABLE(VALUES, UP_TO_8, F32), TABLE(VALUES, UP_TO_8, F16), TABLE(VALUES, UP_TO_8, BF16),
    TABLE(VALUES, UP_TO_8, I8)};

/* Of more rows conversions are shared by enough FMAs, and sums are too many for the registers. */
enum { HALVED_ROWS = 3 };

static key_tile_fn *const key_halves[HALVED_ROWS][WIDTHS] = {HALVES(KEYS)};
static value_tile_fn *const value_halves[HALVED_ROWS][WIDTHS] = {HALVES(VALUES)};

STORED_PRODUCTS(F32)
STORED_PRODUCTS(F16)
STORED_PRODUCTS(BF16)
STORED_PRODUCTS(I8)

/* Tiles of panels that are taken in their order have one sum a row, or more than halves have room
 * for. */
static int takes_halves(int rows, int halves, int in_order) {
    return halves && rows <= HALVED_ROWS && !in_order;
}

static void keys_F16_or_halves(const struct qkv_key_product *p) {
    if (takes_halves(p->rows, p->halves, p->in_order))
        walk_keys(p, key_halves);
    else
        keys_F16(p);
}

static void values_F16_or_halves(const struct qkv_value_product *p) {
    if (takes_halves(p->rows, p->halves, p->in_order))
        walk_values(p, value_halves);
    else
        values_F16(p);
}

const struct qkv_decode_kernels qkv_avx512_decode = {
    .variant = ROOM_NAME,
    .keys = {keys_F32, keys_F16_or_halves, keys_BF16, keys_I8},
    .values = {values_F32, values_F16_or_halves, values_BF16, values_I8},
    .scale = scale_weights,
    .lanes = VF_LANES,
    .in_order = {[F32] = 128, [F16] = 128, [BF16] = 128},
};
