/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Narrow products with bfloat16 keys and values (kernels_cache.h) by AVX512-BF16: vdpbf16ps adds
 * two products to each float, the odd step's first, each with one rounding, to nearest whatever
 * the caller's rounding is. Denormals count as zeros, also those that come out.
 *
 * Units go to two sums in turn, counted from k = 0 or from the block's first token, joined at the
 * end: even + odd. The latency is 6 and more, so that the 4 chains of a row that is alone would end
 * less than a line a cycle, about what a second-level cache gives; 8 are enough. It halves the
 * error, too. All tiles do the same, so that a row's bits do not depend on its company.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/narrow_rows.h"

/* A tile: up to 3 rows by 4 panels, or 6 by 2, two sums each: 24 sums, + up to 3 of the rows or 2
 * of the panels, + 1 of the others: 28 of 32 registers. */
enum {
    TALL = 6,
    WIDEST = 4,
    PARTS = 1,
    STEPS = 2,
    ORDERED = 1,
    AHEAD = 8,
};

/* The logarithm of the panels of a tile of so many rows. */
static const int widest[TALL] = {2, 2, 2, 1, 1, 1};

typedef vf vsum;
typedef __m512i vword;

struct sums {
    vsum of[2][TALL][WIDEST * PARTS];
};

static inline vsum *sum_at(struct sums *sums, int part, int r, int v) {
    return &sums->of[part][r][v];
}

struct held {
    vword of[WIDEST * PARTS];
};

static inline vword *held_at(struct held *held, int i) {
    return &held->of[i];
}

static inline vsum sum_zero(void) {
    return vf_set1(0.0f);
}

static inline vsum sum_join(vsum a, vsum b) {
    return vf_add(a, b);
}

static inline vf value_sum(vsum sum) {
    return sum;
}

static inline vf key_sum(const struct qkv_key_product *p, int row, vsum sum) {
    (void)p, (void)row;
    return sum;
}

static inline int parts_of(const int M, const int G) {
    (void)M, (void)G;
    return 2;
}

static inline vword key_line(const char *p) {
    return _mm512_loadu_si512(p);
}

static inline vword value_line(const char *p) {
    return _mm512_loadu_si512(p);
}

static inline vword words_of(const char *p) {
    return _mm512_castps_si512(vf_set1(*(const float *)p));
}

static inline vsum add_key(vsum sum, vword words, vword line) {
    return _mm512_dpbf16_ps(sum, (__m512bh)words, (__m512bh)line);
}

static inline vsum add_value(vsum sum, vword words, vword line) {
    return add_key(sum, words, line);
}

/* Keeps a sum in its register, and the next one's loads where they are: compilers would take those
 * early, and push a sum out. */
#define PIN(sum) __asm__ volatile("" : "+v"(sum))

/* What compilers are not to know. */
#define HIDE(number) __asm__ volatile("" : "+r"(number))

#include "tmpl/narrow_tile.h"

#define UP_TO_2(DO, rows) DO(rows, 1) DO(rows, 2)
#define UP_TO_4(DO, rows) UP_TO_2(DO, rows) DO(rows, 4)
UP_TO_4(TILE, 1)
UP_TO_4(TILE, 2)
UP_TO_4(TILE, 3)
UP_TO_2(TILE, 4)
UP_TO_2(TILE, 5)
UP_TO_2(TILE, 6)

#define TABLE(DO)                                                                                 \
    {                                                                                             \
        {UP_TO_4(DO, 1)}, {UP_TO_4(DO, 2)}, {UP_TO_4(DO, 3)}, {UP_TO_2(DO, 4)}, {UP_TO_2(DO, 5)}, \
        {                                                                                         \
            UP_TO_2(DO, 6)                                                                        \
        }                                                                                         \
    }
static key_tile_fn *const key_tiles[TALL][WIDTHS] = TABLE(KEY_TILE);
static value_tile_fn *const value_tiles[TALL][WIDTHS] = TABLE(VALUE_TILE);

static void keys(const struct qkv_key_product *p) {
    walk_keys(p, key_tiles);
}

static void values(const struct qkv_value_product *p) {
    walk_values(p, value_tiles);
}

static void round_rows(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    round_rows_bf16(rows, ld, count, from, to, scale);
}

const struct qkv_narrow_kernels qkv_avx512_bf16 = {
    .variant = "avx512bf16",
    .round_queries = round_rows,
    .keys = keys,
    .round_weights = round_rows,
    .values = values,
};
