/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in NEON. Reads and
 * writes exactly what the sizes say.
 *
 * Four steps of the sum make a round: each row of A is one vector then, which is multiplied lane by
 * lane, and the words of int8 are loaded once. A tile has 16 sums in vectors, so that every latency
 * is covered: a single row takes four panels, four rows one panel. Taller tiles take half a panel:
 * a number that is stored in fewer bits is converted once for up to eight rows, and of the 32
 * registers 8 hold A, which leaves 8 for B on its way.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

#define INLINE static inline __attribute__((always_inline))

enum { TALL = 8, SUMS = 16, LANES = 4, GROUPS = SUMS / LANES, PANEL_VECTORS = QKV_PANEL / LANES };

/* The tiles, rows by vectors. */
#define EACH_TILE(DO, name, type)                                                           \
    DO(1, 16, name, type)                                                                   \
    DO(1, 4, name, type) DO(2, 8, name, type) DO(2, 4, name, type) DO(3, 4, name, type)     \
        DO(4, 4, name, type) DO(5, 2, name, type) DO(6, 2, name, type) DO(7, 2, name, type) \
            DO(8, 2, name, type)

/* Of 1 to TALL rows the tile, and the one where fewer columns are left. */
#define EACH_HEIGHT(PAIR, name)                                                     \
    PAIR(1, 16, 4, name)                                                            \
    PAIR(2, 8, 4, name) PAIR(3, 4, 4, name) PAIR(4, 4, 4, name) PAIR(5, 2, 2, name) \
        PAIR(6, 2, 2, name) PAIR(7, 2, 2, name) PAIR(8, 2, 2, name)

/* ---- Numbers of a step ---- */

/* Bytes from one column to the next, and between the rows of units that are `width` columns wide of
 * one round and the next. */
INLINE ptrdiff_t column_bytes(const int type) {
    return type == QKV_STORED_F16 ? 2 : 4;
}

INLINE ptrdiff_t round_bytes(ptrdiff_t width, const int type) {
    switch (type) {
    case QKV_STORED_F32:
        return 16 * width;
    case QKV_STORED_I8:
        return 4 * width;
    default:
        return 8 * width;
    }
}

/* How many rows of units a round has. */
INLINE int round_rows(const int type) {
    return type == QKV_STORED_I8 ? 1 : type == QKV_STORED_BF16 ? 2 : 4;
}

/* Byte i of four integers. It comes to the top of its lane, over zeros: the conversion of a number
 * with 24 binary places does the rest. */
INLINE float32x4_t byte_at(uint32x4_t x, const int i) {
    static const uint32_t bytes[2][4] = {
        {0x01ffffff, 0x05ffffff, 0x09ffffff, 0x0dffffff},
        {0x02ffffff, 0x06ffffff, 0x0affffff, 0x0effffff},
    };
    if (i == 0)
        return vcvtq_n_f32_s32(vreinterpretq_s32_u32(vshlq_n_u32(x, 24)), 24);
    if (i == 3)
        return vcvtq_f32_s32(vshrq_n_s32(vreinterpretq_s32_u32(x), 24));
    const uint8x16_t from = vreinterpretq_u8_u32(vld1q_u32(bytes[i - 1]));
    const uint8x16_t top = vqtbl1q_u8(vreinterpretq_u8_u32(x), from);
    return vcvtq_n_f32_s32(vreinterpretq_s32_u8(top), 24);
}

/* Eight columns of step i of the round that begins at p. */
INLINE float32x4x2_t eight_columns(const char *p, ptrdiff_t width, const int i, const int type) {
    float32x4x2_t y;
    if (type == QKV_STORED_F32) {
        const float *x = (const float *)p + i * width;
        y.val[0] = vld1q_f32(x);
        y.val[1] = vld1q_f32(x + 4);
    } else if (type == QKV_STORED_F16) {
        const uint16x8_t x = vld1q_u16((const uint16_t *)p + i * width);
        y.val[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x)));
        y.val[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(x));
    } else if (type == QKV_STORED_BF16) {
        const uint32_t *x = (const uint32_t *)p + i / 2 * width;
        y.val[0] = vf_load_bf16(x, i % 2);
        y.val[1] = vf_load_bf16(x + 4, i % 2);
    } else {
        y.val[0] = byte_at(vld1q_u32((const uint32_t *)p), i);
        y.val[1] = byte_at(vld1q_u32((const uint32_t *)p + 4), i);
    }
    return y;
}

/* Four columns of a step that is not known beforehand. */
INLINE float32x4_t four_columns(const char *p, ptrdiff_t width, int i, const int type) {
    switch (type) {
    case QKV_STORED_F16:
        return vf_load_f16((const uint16_t *)p + i * width);
    case QKV_STORED_BF16:
        return vf_load_bf16((const uint32_t *)p + i / 2 * width, i % 2);
    case QKV_STORED_I8:
        return vf_load_i8((const uint32_t *)p, i);
    default:
        return vld1q_f32((const float *)p + i * width);
    }
}

/* ---- Sums ---- */

/* Where a tile reads a panel, or as many as it is wide: the first step of each group of 16 columns
 * (or of fewer), and what to ask for meanwhile. */
struct source {
    const char *b[GROUPS];
    uintptr_t ahead[GROUPS];
    ptrdiff_t width; /* columns of a step */
};

INLINE float32x4_t add_product(float32x4_t sum, float32x4_t y, float32x4_t x, const int lane) {
    switch (lane) {
    case 0:
        return vfmaq_laneq_f32(sum, y, x, 0);
    case 1:
        return vfmaq_laneq_f32(sum, y, x, 1);
    case 2:
        return vfmaq_laneq_f32(sum, y, x, 2);
    default:
        return vfmaq_laneq_f32(sum, y, x, 3);
    }
}

/* A round: M rows by N vectors, both constants where this is inlined. */
INLINE void add_round(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, const struct source *s,
                      ptrdiff_t at, const int M, const int N, const int type) {
    float32x4_t x[TALL];
    QKV_UNROLL(8)
    for (int r = 0; r < M; r++)
        x[r] = vld1q_f32(a + r * lda);
    QKV_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        QKV_UNROLL(8)
        for (int v = 0; v < N; v += 2) {
            const char *p = s->b[v / 4] + at + v % 4 * LANES * column_bytes(type);
            const float32x4x2_t y = eight_columns(p, s->width, i, type);
            QKV_UNROLL(8)
            for (int r = 0; r < M; r++) {
                sum[r * N + v] = add_product(sum[r * N + v], y.val[0], x[r], i);
                sum[r * N + v + 1] = add_product(sum[r * N + v + 1], y.val[1], x[r], i);
            }
        }
    }
}

INLINE void add_step(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, const struct source *s,
                     ptrdiff_t at, int i, const int M, const int N, const int type) {
    QKV_UNROLL(16)
    for (int v = 0; v < N; v++) {
        const char *p = s->b[v / 4] + at + v % 4 * LANES * column_bytes(type);
        const float32x4_t y = four_columns(p, s->width, i, type);
        QKV_UNROLL(8)
        for (int r = 0; r < M; r++)
            sum[r * N + v] = vfmaq_n_f32(sum[r * N + v], y, a[r * lda]);
    }
}

/* A line or half of one for each row of units and group. */
INLINE void ask(const struct source *s, ptrdiff_t at, const int N, const int type) {
    QKV_UNROLL(4)
    for (int g = 0; g < (N + 3) / 4; g++) {
        QKV_UNROLL(4)
        for (int i = 0; i < round_rows(type); i++)
            __builtin_prefetch((const void *)(s->ahead[g] + (uintptr_t)at +
                                              (uintptr_t)(i * s->width * column_bytes(type))));
    }
}

/* The steps [from, to) of a panel: rounds, and before and after them single steps. */
INLINE void add_steps(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, const struct source *s,
                      ptrdiff_t from, ptrdiff_t to, const int M, const int N, const int type) {
    const ptrdiff_t bytes = round_bytes(s->width, type);
    for (ptrdiff_t t = from; t < to;) {
        const ptrdiff_t whole = t % 4 ? t + 4 - t % 4 : to - t < 4 ? to : t;
        for (; t < whole && t < to; t++)
            add_step(sum, a + t, lda, s, t / 4 * bytes, (int)(t % 4), M, N, type);
        for (; t + 4 <= to; t += 4) {
            ask(s, t / 4 * bytes, N, type);
            add_round(sum, a + t, lda, s, t / 4 * bytes, M, N, type);
        }
    }
}

/* ---- Tiles, from row i and vector j on ---- */

/* Where panel g stands, or would if there were one more. */
INLINE uintptr_t key_panel(const struct qkv_key_product *p, ptrdiff_t g, const int type) {
    const ptrdiff_t rounds = (p->k + 3) / 4;
    if (g < p->panels)
        return (uintptr_t)p->panel[g];
    if (!p->next)
        return (uintptr_t)p->panel[p->panels - 1];
    return (uintptr_t)p->next +
           (uintptr_t)((g - p->panels) * rounds * round_bytes(QKV_PANEL, type));
}

INLINE void key_tile(const struct qkv_key_product *p, int i, ptrdiff_t j, const int M, const int N,
                     const int type) {
    const ptrdiff_t panel = j / PANEL_VECTORS, groups = (N + 3) / 4;
    const ptrdiff_t inside = j % PANEL_VECTORS * LANES;
    float *out = p->s + i * p->lds + j * LANES;
    struct source s = {.width = QKV_PANEL};
    float32x4_t sum[SUMS];
    QKV_UNROLL(16)
    for (int v = 0; v < M * N; v++)
        sum[v] = vdupq_n_f32(0.0f);
    QKV_UNROLL(4)
    for (int g = 0; g < groups; g++) {
        s.b[g] = (const char *)p->panel[panel + g] + inside * column_bytes(type);
        s.ahead[g] = key_panel(p, panel + g + groups, type);
    }
    add_steps(sum, p->q + i * p->ldq, p->ldq, &s, 0, p->k, M, N, type);
    QKV_UNROLL(16)
    for (int v = 0; v < N; v++) {
        if (p->scale) {
            const float32x4_t x = vld1q_f32(p->scale[panel + v / 4] + inside + v % 4 * LANES);
            QKV_UNROLL(8)
            for (int r = 0; r < M; r++)
                sum[r * N + v] = vmulq_f32(sum[r * N + v], x);
        }
        QKV_UNROLL(8)
        for (int r = 0; r < M; r++)
            vst1q_f32(out + r * p->lds + v * LANES, sum[r * N + v]);
    }
}

/* What a value tile asks for while it is in panel g: the next panel, the first one of the next
 * columns, or what comes next. */
INLINE uintptr_t after_panel(const struct qkv_value_product *p, ptrdiff_t g, ptrdiff_t at,
                             ptrdiff_t size, const int type) {
    if ((g + 1) * QKV_PANEL < p->to)
        return (uintptr_t)p->panel[g + 1] + (uintptr_t)at;
    if (at + size < p->n * column_bytes(type) || !p->next)
        return (uintptr_t)p->panel[p->from / QKV_PANEL] + (uintptr_t)(at + size);
    return (uintptr_t)p->next;
}

INLINE void value_tile(const struct qkv_value_product *p, int i, ptrdiff_t j, const int M,
                       const int N, const int type) {
    const ptrdiff_t at = j * LANES * column_bytes(type), size = N * LANES * column_bytes(type);
    const ptrdiff_t group = QKV_PANEL * column_bytes(type);
    const float *w = p->w + i * p->ldw;
    float *out = p->acc + i * p->ld_acc + j * LANES;
    struct source s = {.width = p->n};
    float32x4_t sum[SUMS];
    QKV_UNROLL(16)
    for (int v = 0; v < M * N; v++)
        sum[v] = vdupq_n_f32(0.0f);
    for (ptrdiff_t first = p->from / QKV_PANEL * QKV_PANEL; first < p->to; first += QKV_PANEL) {
        const ptrdiff_t from = first < p->from ? p->from - first : 0;
        const ptrdiff_t to = p->to - first < QKV_PANEL ? p->to - first : QKV_PANEL;
        const char *b = (const char *)p->panel[first / QKV_PANEL] + at;
        const uintptr_t ahead = after_panel(p, first / QKV_PANEL, at, size, type);
        QKV_UNROLL(4)
        for (int g = 0; g < (N + 3) / 4; g++) {
            s.b[g] = b + g * group;
            s.ahead[g] = ahead + (uintptr_t)(g * group);
        }
        add_steps(sum, w + first, p->ldw, &s, from, to, M, N, type);
    }
    QKV_UNROLL(8)
    for (int r = 0; r < M; r++) {
        float *row = out + r * p->ld_acc;
        if (p->factor) {
            const float x = p->factor[i + r];
            QKV_UNROLL(16)
            for (int v = 0; v < N; v++)
                sum[r * N + v] = vfmaq_n_f32(sum[r * N + v], vld1q_f32(row + v * LANES), x);
        }
        QKV_UNROLL(16)
        for (int v = 0; v < N; v++)
            vst1q_f32(row + v * LANES, sum[r * N + v]);
    }
}

/* ---- All tiles of a product ---- */

typedef void tile_fn(const void *product, int i, ptrdiff_t j);
typedef tile_fn *const tile_table[TALL][2];

#define WIDTHS(rows, wide, narrow, name) {wide, narrow},
static const int widths[TALL][2] = {EACH_HEIGHT(WIDTHS, )};

/* Columns that are taken together by all rows, which may make two tiles; within them tiles as wide
 * as they come. */
static void walk_tiles(const void *product, int rows, ptrdiff_t vectors, tile_table tiles) {
    const int height = rows <= TALL ? rows : (rows + 1) / 2;
    const int span = widths[height - 1][0] < PANEL_VECTORS ? PANEL_VECTORS : widths[height - 1][0];
    for (ptrdiff_t first = 0; first < vectors; first += span)
        for (int i = 0; i < rows; i += height) {
            const int shape = (rows - i < height ? rows - i : height) - 1;
            const ptrdiff_t end = vectors - first < span ? vectors : first + span;
            for (ptrdiff_t j = first; j < end;) {
                const int narrow = end - j < widths[shape][0];
                tiles[shape][narrow](product, i, j);
                j += widths[shape][narrow];
            }
        }
}

#define TILES(rows, width, name, type)                                                      \
    static void keys_##name##_##rows##x##width(const void *product, int i, ptrdiff_t j) {   \
        key_tile(product, i, j, rows, width, type);                                         \
    }                                                                                       \
    static void values_##name##_##rows##x##width(const void *product, int i, ptrdiff_t j) { \
        value_tile(product, i, j, rows, width, type);                                       \
    }
#define NAMES(rows, wide, narrow, name) {name##_##rows##x##wide, name##_##rows##x##narrow},

#define PRODUCTS(name, type)                                                \
    EACH_TILE(TILES, name, type)                                            \
    static void keys_##name(const struct qkv_key_product *p) {              \
        static tile_table tiles = {EACH_HEIGHT(NAMES, keys_##name)};        \
        walk_tiles(p, p->rows, (ptrdiff_t)p->panels *PANEL_VECTORS, tiles); \
    }                                                                       \
    static void values_##name(const struct qkv_value_product *p) {          \
        static tile_table tiles = {EACH_HEIGHT(NAMES, values_##name)};      \
        walk_tiles(p, p->rows, p->n / LANES, tiles);                        \
    }
PRODUCTS(f32, QKV_STORED_F32)
PRODUCTS(f16, QKV_STORED_F16)
PRODUCTS(bf16, QKV_STORED_BF16)
PRODUCTS(i8, QKV_STORED_I8)

const struct qkv_decode_kernels qkv_neon_decode = {
    .variant = ROOM_NAME,
    .keys = {keys_f32, keys_f16, keys_bf16, keys_i8},
    .values = {values_f32, values_f16, values_bf16, values_i8},
    .scale = scale_weights,
};
