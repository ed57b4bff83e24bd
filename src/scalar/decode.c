/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in plain C: gemm.c's
 * tile, with a conversion where it loads B. Reads and writes exactly what the sizes say.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

enum { COLUMNS = 4 };

/* Column c of a step of the sum, in a panel whose steps are `width` columns wide. */
static inline float stored_at(const void *panel, int type, ptrdiff_t step, ptrdiff_t width,
                              ptrdiff_t c) {
    switch (type) {
    case QKV_STORED_F16:
        return vf_load_f16((const uint16_t *)panel + step * width + c);
    case QKV_STORED_BF16:
        return vf_load_bf16((const uint32_t *)panel + step / 2 * width + c, (int)(step % 2));
    case QKV_STORED_I8:
        return vf_load_i8((const uint32_t *)panel + step / 4 * width + c, (int)(step % 4));
    default:
        return ((const float *)panel)[step * width + c];
    }
}

/* M rows of four sums += the steps [from, to) of a panel. M and type are constants where this is
 * inlined, so that the sums live in registers. */
static inline __attribute__((always_inline)) void
add_steps(float acc[MR][COLUMNS], const float *a, ptrdiff_t lda, const void *panel, ptrdiff_t from,
          ptrdiff_t to, ptrdiff_t width, ptrdiff_t c, const int M, const int type) {
    for (ptrdiff_t p = from; p < to; p++) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++) {
            const float y = stored_at(panel, type, p, width, c + v);
            QKV_UNROLL(3)
            for (int r = 0; r < M; r++)
                acc[r][v] = vf_fma(a[r * lda + p], y, acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void
key_tile(const struct qkv_key_product *p, int i, int g, int c, const int M, const int type) {
    const float *q = (const float *)p->q + i * p->ldq;
    float *s = p->s + i * p->lds + g * QKV_PANEL + c;
    float acc[MR][COLUMNS] = {{0.0f}};
    add_steps(acc, q, p->ldq, p->panel[g], 0, p->k, QKV_PANEL, c, M, type);
    QKV_UNROLL(3)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++)
            s[r * p->lds + v] = p->scale ? acc[r][v] * p->scale[g][c + v] : acc[r][v];
    }
}

static inline __attribute__((always_inline)) void
value_tile(const struct qkv_value_product *p, int i, ptrdiff_t c, const int M, const int type) {
    const float *w = (const float *)p->w + i * p->ldw;
    float *out = p->acc + i * p->ld_acc + c;
    float acc[MR][COLUMNS] = {{0.0f}};
    for (int t = p->from, end; t < p->to; t = end) {
        const int first = t / QKV_PANEL * QKV_PANEL;
        end = first + QKV_PANEL < p->to ? first + QKV_PANEL : p->to;
        add_steps(acc, w + first, p->ldw, p->panel[t / QKV_PANEL], t - first, end - first, p->n, c,
                  M, type);
    }
    QKV_UNROLL(3)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < COLUMNS; v++) {
            float *x = out + r * p->ld_acc + v;
            *x = p->factor ? vf_fma(*x, p->factor[i + r], acc[r][v]) : acc[r][v];
        }
    }
}

#define TILES(rows, name, type)                                                                 \
    static void keys_##name##_##rows(const struct qkv_key_product *p, int i, int g, int c) {    \
        key_tile(p, i, g, c, rows, type);                                                       \
    }                                                                                           \
    static void values_##name##_##rows(const struct qkv_value_product *p, int i, ptrdiff_t c) { \
        value_tile(p, i, c, rows, type);                                                        \
    }

typedef void key_tile_fn(const struct qkv_key_product *p, int i, int g, int c);
typedef void value_tile_fn(const struct qkv_value_product *p, int i, ptrdiff_t c);

/* A tile may be lower than the others at the end of the rows. */
static void walk_keys(const struct qkv_key_product *p, key_tile_fn *const tiles[MR]) {
    for (int g = 0; g < p->panels; g++)
        for (int i = 0; i < p->rows; i += MR)
            for (int c = 0; c < QKV_PANEL; c += COLUMNS)
                tiles[p->rows - i < MR ? p->rows - i - 1 : MR - 1](p, i, g, c);
}

static void walk_values(const struct qkv_value_product *p, value_tile_fn *const tiles[MR]) {
    for (ptrdiff_t c = 0; c < p->n; c += COLUMNS)
        for (int i = 0; i < p->rows; i += MR)
            tiles[p->rows - i < MR ? p->rows - i - 1 : MR - 1](p, i, c);
}

#define PRODUCTS(name, type)                                                                       \
    TILES(1, name, type)                                                                           \
    TILES(2, name, type)                                                                           \
    TILES(3, name, type)                                                                           \
    static void keys_##name(const struct qkv_key_product *p) {                                     \
        static key_tile_fn *const tiles[MR] = {keys_##name##_1, keys_##name##_2, keys_##name##_3}; \
        walk_keys(p, tiles);                                                                       \
    }                                                                                              \
    static void values_##name(const struct qkv_value_product *p) {                                 \
        static value_tile_fn *const tiles[MR] = {values_##name##_1, values_##name##_2,             \
                                                 values_##name##_3};                               \
        walk_values(p, tiles);                                                                     \
    }
PRODUCTS(f32, QKV_STORED_F32)
PRODUCTS(f16, QKV_STORED_F16)
PRODUCTS(bf16, QKV_STORED_BF16)
PRODUCTS(i8, QKV_STORED_I8)

const struct qkv_decode_kernels qkv_scalar_decode = {
    .variant = ROOM_NAME,
    .keys = {keys_f32, keys_f16, keys_bf16, keys_i8},
    .values = {values_f32, values_f16, values_bf16, values_i8},
    .scale = scale_weights,
    .lanes = VF_LANES,
};
