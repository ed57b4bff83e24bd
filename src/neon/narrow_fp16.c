/* SPDX-License-Identifier: Apache-2.0 */
/*
 * float16 keys and values in the arithmetic of FEAT_FP16: eight columns an instruction, where
 * float32 takes four, and a conversion.
 *
 * A sum in float16 loses digits with every step, so there is one for each group of eight steps,
 * counted from the first number of head_dim or the block's first token: a product and seven fused
 * multiply-adds, ascending. It goes on to a float32 sum, group after group. Of 16 steps the worst
 * error would be twice as large, and the usual one 1.4 times; the conversions, which one pipe of
 * two does at half its pace, would be half as many, and a tile a fifth faster.
 *
 * A power of two brings a row's largest number to [1/16, 1/8]: no sum of eight overflows then,
 * whatever numbers float16 has, and products of usual ones are normal. Smaller ones are multiples
 * of 2^-24.
 *
 * Tiles: 16 sums of float32, 8 of a group, 4 vectors of rows, which hold a group's numbers.
 */
#include "narrow_product.h"
#include "tmpl/narrow_rows.h"

enum { TALL = 4, FLAT = 2, GROUP = 8, HALVES = 2, LINE = QKV_PANEL * 2, SUMS = 16, GROUP_SUMS = 8 };

/* Rows of float16: number c of row r. */
struct halves {
    const float16_t *at;
    ptrdiff_t ld;
};

static inline INLINED struct halves halves_of(const void *rows, ptrdiff_t ld, int row) {
    return (struct halves){(const float16_t *)rows + row * ld * 2, ld * 2};
}

/* ---- A group ---- */

/* A step of a group: its first product, or one more. Of the intrinsics gcc 12 makes a copy of the
 * lane in a register of its own. */
#define PRODUCT(lane)                                                               \
    if (lane)                                                                       \
        __asm__("fmla %0.8h, %1.8h, %2.h[" #lane "]" : "+w"(sum) : "w"(y), "x"(x)); \
    else                                                                            \
        __asm__("fmul %0.8h, %1.8h, %2.h[" #lane "]" : "=w"(sum) : "w"(y), "x"(x)); \
    return sum

static inline INLINED float16x8_t add_product(float16x8_t sum, float16x8_t y, float16x8_t x,
                                              const int lane) {
    switch (lane) {
    case 0:
        PRODUCT(0);
    case 1:
        PRODUCT(1);
    case 2:
        PRODUCT(2);
    case 3:
        PRODUCT(3);
    case 4:
        PRODUCT(4);
    case 5:
        PRODUCT(5);
    case 6:
        PRODUCT(6);
    default:
        PRODUCT(7);
    }
}

static inline INLINED float16x8_t columns_of(const struct source *s, int v, const int whose) {
    const char *line = line_of(s->at, v / HALVES, LINE, whose);
    return vld1q_f16((const float16_t *)line + v % HALVES * 8);
}

static inline INLINED void step_ends(struct source *s, const int G, const int whose) {
    move(s, 1, G, whose);
    if (whose == VALUES)
        settle(s, G, whose);
    STEP_ENDS;
}

/* Steps from number c of the rows on. */
static inline INLINED void add_group(float16x8_t sum[GROUP_SUMS], const struct halves *a,
                                     ptrdiff_t c, struct source *s, const int M, const int G,
                                     const int whose) {
    float16x8_t x[TALL];
    QKV_UNROLL(4)
    for (int r = 0; r < M; r++)
        x[r] = vld1q_f16(a->at + r * a->ld + c);
    QKV_UNROLL(8)
    for (int i = 0; i < GROUP; i++) {
        if (whose == VALUES || i % 2 == 0) /* a line of keys is two steps */
            ask(s, LINE, G, whose);
        QKV_UNROLL(4)
        for (int v = 0; v < G * HALVES; v++) {
            const float16x8_t y = columns_of(s, v, whose);
            QKV_UNROLL(4)
            for (int r = 0; r < M; r++) {
                float16x8_t *to = sum + r * G * HALVES + v;
                *to = add_product(*to, y, x[r], i);
            }
        }
        step_ends(s, G, whose);
    }
}

/* A sum that begins with +0 instead of a product may differ in the sign of a zero, which the
 * float32 sum takes away. */
static inline INLINED void add_single(float16x8_t sum[GROUP_SUMS], const struct halves *a,
                                      ptrdiff_t c, struct source *s, const int M, const int G,
                                      const int whose) {
    QKV_UNROLL(4)
    for (int v = 0; v < G * HALVES; v++) {
        const float16x8_t y = columns_of(s, v, whose);
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++) {
            float16x8_t *to = sum + r * G * HALVES + v;
            *to = vfmaq_f16(*to, y, vld1q_dup_f16(a->at + r * a->ld + c));
        }
    }
    step_ends(s, G, whose);
}

static inline INLINED void group_ends(float32x4_t sum[SUMS], const float16x8_t group[GROUP_SUMS],
                                      const int M, const int G) {
    QKV_UNROLL(8)
    for (int v = 0; v < M * G * HALVES; v++) {
        sum[2 * v] = vaddq_f32(sum[2 * v], vcvt_f32_f16(vget_low_f16(group[v])));
        sum[2 * v + 1] = vaddq_f32(sum[2 * v + 1], vcvt_high_f32_f16(group[v]));
    }
}

/* Steps [c, end), of which s is the first: whole groups, and what stands before and after them. */
static inline INLINED void add_steps(float32x4_t sum[SUMS], const struct halves *a, ptrdiff_t c,
                                     ptrdiff_t end, struct source *s, const int M, const int G,
                                     const int whose) {
    float16x8_t group[GROUP_SUMS];
    while (c < end) {
        if (c % GROUP == 0) {
            KEEP_LOOP
            for (; c + GROUP <= end; c += GROUP) {
                add_group(group, a, c, s, M, G, whose);
                group_ends(sum, group, M, G);
                settle(s, G, whose);
            }
            if (c == end)
                return;
        }
        QKV_UNROLL(8)
        for (int v = 0; v < M * G * HALVES; v++)
            group[v] = vdupq_n_f16(0);
        do
            add_single(group, a, c, s, M, G, whose);
        while (++c < end && c % GROUP != 0);
        group_ends(sum, group, M, G);
    }
}

/* ---- Tiles: vector v of 4 columns is v % 4 of panel v / 4 ---- */

static inline INLINED void begin(float32x4_t sum[SUMS], const int M, const int G) {
    QKV_UNROLL(16)
    for (int v = 0; v < M * G * PANEL_VECTORS; v++)
        sum[v] = vdupq_n_f32(0.0f);
}

static inline INLINED void tile_of_keys(const struct qkv_key_product *p, int row, int panel,
                                        const int M, const int G) {
    const struct halves a = halves_of(p->q, p->ldq, row);
    struct source s = key_source(p, panel, LINE, G);
    float32x4_t sum[SUMS];
    begin(sum, M, G);
    add_steps(sum, &a, 0, p->k, &s, M, G, KEYS);
    leave_keys(p, row, M, panel, sum, M, G);
}

static inline INLINED void tile_of_values(const struct qkv_value_product *p, int row,
                                          ptrdiff_t column, const int M, const int G) {
    float32x4_t sum[SUMS];
    begin(sum, M, G);
    for (int g = p->from / QKV_PANEL; g * QKV_PANEL < p->to; g++) {
        struct halves a = halves_of(p->w, p->ldw, row);
        const struct tokens t = tokens_of(p, g);
        struct source s = value_source(p, g, column, LINE, G);
        a.at += g * QKV_PANEL;
        move(&s, t.from, G, VALUES);
        add_steps(sum, &a, t.from, t.to, &s, M, G, VALUES);
    }
    leave_values(p, row, M, column, sum, M, G);
}

#define TILE(M, G)                                                                               \
    static void keys_##M##x##G(const struct qkv_key_product *p, int row, int panel) {            \
        tile_of_keys(p, row, panel, M, G);                                                       \
    }                                                                                            \
    static void values_##M##x##G(const struct qkv_value_product *p, int row, ptrdiff_t column) { \
        tile_of_values(p, row, column, M, G);                                                    \
    }
TILE(1, 1)
TILE(1, 2)
TILE(2, 1)
TILE(2, 2)
TILE(3, 1)
TILE(4, 1)

static void key_tile(const struct qkv_key_product *p, int row, int rows, int panel, int wide) {
    static void (*const tiles[TALL][WIDEST])(const struct qkv_key_product *, int, int) = {
        {keys_1x1, keys_1x2}, {keys_2x1, keys_2x2}, {keys_3x1}, {keys_4x1}};
    tiles[rows - 1][wide - 1](p, row, panel);
}

static void value_tile(const struct qkv_value_product *p, int row, int rows, ptrdiff_t column,
                       int wide) {
    static void (*const tiles[TALL][WIDEST])(const struct qkv_value_product *, int, ptrdiff_t) = {
        {values_1x1, values_1x2}, {values_2x1, values_2x2}, {values_3x1}, {values_4x1}};
    tiles[rows - 1][wide - 1](p, row, column);
}

static void keys(const struct qkv_key_product *p) {
    walk_keys(p, share(p->rows, TALL), FLAT, key_tile);
}

static void values(const struct qkv_value_product *p) {
    walk_values(p, share(p->rows, TALL), FLAT, value_tile);
}

/* ---- Rows ---- */

static float power_of_two(uint32_t exponent) {
    const uint32_t bits = exponent << 23;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The power of two that brings `most`, a normal number, to [1/16, 1/8), and its inverse. Beyond
 * 2^122 it stays 2^-126, so that both are normal: then a sum that overflows in float16 would do so
 * in float32. */
static float power_for(float *scale, float most) {
    uint32_t bits;
    memcpy(&bits, &most, sizeof bits);
    const uint32_t exponent = bits >> 23, power = exponent < 249 ? 250 - exponent : 1;
    *scale = power_of_two(254 - power);
    return power_of_two(power);
}

/* Rounding may bring a number to 1/8. Rows of zeros have a scale of 1. */
static void round_rows(float *rows, ptrdiff_t ld, int count, int from, int to, float *scale) {
    for (int r = 0; r < count; r++) {
        float *row = rows + r * ld, most;
        scale_row(&most, row + from, to - from, 1.0f);
        scale[r] = most == 0.0f ? 1.0f : most;
        if (most > 0.0f)
            round_row(row, from, to, power_for(scale + r, most), vf_pack_f16, 2);
        else
            zero_row(row, from, to, 2);
    }
}

const struct qkv_narrow_kernels qkv_neon_fp16 = {
    .variant = "fp16",
    .round_queries = round_rows,
    .keys = keys,
    .round_weights = round_rows,
    .values = values,
};
