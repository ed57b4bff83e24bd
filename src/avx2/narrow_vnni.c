/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Narrow products with int8 keys and values (kernels_cache.h) by AVX-VNNI: vpdpbusd adds four
 * products of unsigned by signed bytes to each 32-bit sum, exactly. The unsigned operand must be in
 * a register, the signed one may come from memory: values do, keys pass through one for their sign
 * bits anyway.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

/* A tile: up to 6 rows by 4 panels, two vectors each: 12 sums, + 2 of the panels, + 1 of the rows,
 * + 1 of sign bits: 16 of 16 registers. 8 sums or more, but for the last panels and few rows: two
 * pipes of latency 5, which keys share with the turning of their sign bits. A row block passes the
 * values once for every 16 columns, and wants most of them in the first pass: they are fetched
 * further ahead than in rooms with wider tiles. */
enum {
    TALL = 6,
    WIDEST = 4,
    PARTS = 2,
    AHEAD = 12,
};

/* The logarithm of the panels of a tile of so many rows. */
static const int widest[TALL] = {2, 1, 0, 0, 0, 0};

typedef __m256i vsum;
typedef __m256i vword;

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
    return _mm256_setzero_si256();
}

static inline vsum sum_join(vsum a, vsum b) {
    return _mm256_add_epi32(a, b);
}

static inline vf value_sum(vsum sum) {
    return _mm256_cvtepi32_ps(sum);
}

static inline vword sign_bits(void) {
    return _mm256_set1_epi8((char)0x80);
}

static inline vword key_line(const char *p) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)p), sign_bits());
}

static inline vword value_line(const char *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* A row's word, for all columns; and successive words of a row, as many as are left. (Rows were
 * floats, and are read as what they were.) */
static inline vword words_of(const char *p) {
    return _mm256_castps_si256(vf_set1(*(const float *)p));
}

static inline vword words_upto(const char *p, ptrdiff_t left) {
    return _mm256_maskload_epi32((const int *)p, vec_first(left < VF_LANES ? (int)left : VF_LANES));
}

static inline vsum add_key(vsum sum, vword words, vword line) {
    return _mm256_dpbusd_avx_epi32(sum, line, words);
}

static inline vsum add_value(vsum sum, vword words, vword line) {
    return _mm256_dpbusd_avx_epi32(sum, words, line);
}

/* Keeps a sum in its register, and the next one's loads where they are: compilers would take those
 * early, and push a sum out. */
#define PIN(sum) __asm__ volatile("" : "+x"(sum))

/* What compilers are not to know. */
#define HIDE(number) __asm__ volatile("" : "+r"(number))

#include "tmpl/narrow_i8.h"

#define UP_TO_2(DO, rows) DO(rows, 1) DO(rows, 2)
UP_TO_2(TILE, 1)
TILE(1, 4)
UP_TO_2(TILE, 2)
TILE(3, 1)
TILE(4, 1)
TILE(5, 1)
TILE(6, 1)

#define TABLE(DO)                                                                          \
    {                                                                                      \
        {UP_TO_2(DO, 1) DO(1, 4)}, {UP_TO_2(DO, 2)}, {DO(3, 1)}, {DO(4, 1)}, {DO(5, 1)}, { \
            DO(6, 1)                                                                       \
        }                                                                                  \
    }
static key_tile_fn *const key_tiles[TALL][WIDTHS] = TABLE(KEY_TILE);
static value_tile_fn *const value_tiles[TALL][WIDTHS] = TABLE(VALUE_TILE);

static void keys(const struct qkv_key_product *p) {
    multiply_keys(p, key_tiles);
}

static void values(const struct qkv_value_product *p) {
    walk_values(p, value_tiles);
}

const struct qkv_narrow_kernels qkv_avx2_vnni = {
    .variant = "avxvnni",
    .round_queries = round_queries,
    .keys = keys,
    .round_weights = round_weights,
    .values = values,
};
