/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products with keys and values as a cache stores them (kernels_cache.h) in NEON. Reads and
 * writes exactly what the sizes say.
 *
 * Four steps of the sum make a round: each row of A is one vector then, which is multiplied lane by
 * lane, and the words of bfloat16 and int8 are loaded once. A tile has at least 8 sums in vectors,
 * which is what two pipes with a latency of 4 can do at a time, and at most 16: of one row it takes
 * two panels, of up to four rows one panel. Taller tiles take half a panel, so that a number that
 * is stored in fewer bits is converted once for up to eight rows; A holds 8 registers then, and 8
 * are left for B on its way.
 */
#include "kernels.h"
#include "vec.h"
#include "stored.h"

#include "tmpl/scale_weights.h"

#define INLINE static inline __attribute__((always_inline))

/* gcc would convert the numbers of all steps first, and run out of registers; clang does not, and
 * would keep the sums in memory if it saw this. */
#if defined(__clang__)
#define STEP_ENDS
#else
#define STEP_ENDS __asm__ volatile("")
#endif

enum { TALL = 8, SUMS = 16, LANES = 4, POINTERS = 4, PANEL_VECTORS = QKV_PANEL / LANES };

/* Of 1 to TALL rows the tile's width in vectors, and its width where fewer columns are left. */
#define EACH_TILE(DO, ...)                                                     \
    DO(1, 8, 4, __VA_ARGS__)                                                   \
    DO(2, 4, 4, __VA_ARGS__)                                                   \
    DO(3, 4, 4, __VA_ARGS__) DO(4, 4, 4, __VA_ARGS__) DO(5, 2, 2, __VA_ARGS__) \
        DO(6, 2, 2, __VA_ARGS__) DO(7, 2, 2, __VA_ARGS__) DO(8, 2, 2, __VA_ARGS__)

/* ---- Numbers of a step ---- */

/* Bytes from one column to the next, rows of units in a round, and the row of a step. */
INLINE int column_bytes(const int type) {
    return type == QKV_STORED_F16 ? 2 : 4;
}

INLINE int round_rows(const int type) {
    return type == QKV_STORED_I8 ? 1 : type == QKV_STORED_BF16 ? 2 : 4;
}

INLINE int row_of(int i, const int type) {
    return i * round_rows(type) / 4;
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

/* Eight columns of step i of a round, from its row of units. */
INLINE float32x4x2_t eight_columns(const void *p, const int i, const int type) {
    float32x4x2_t y;
    if (type == QKV_STORED_F32) {
        y.val[0] = vld1q_f32(p);
        y.val[1] = vld1q_f32((const float *)p + 4);
    } else if (type == QKV_STORED_F16) {
        const uint16x8_t x = vld1q_u16(p);
        y.val[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x)));
        y.val[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(x));
    } else if (type == QKV_STORED_BF16) {
        y.val[0] = vf_load_bf16(p, i % 2);
        y.val[1] = vf_load_bf16((const uint32_t *)p + 4, i % 2);
    } else {
        y.val[0] = byte_at(vld1q_u32(p), i);
        y.val[1] = byte_at(vld1q_u32((const uint32_t *)p + 4), i);
    }
    return y;
}

/* Four columns of a step that is not known beforehand. */
INLINE float32x4_t four_columns(const void *p, int i, const int type) {
    switch (type) {
    case QKV_STORED_F16:
        return vf_load_f16(p);
    case QKV_STORED_BF16:
        return vf_load_bf16(p, i % 2);
    case QKV_STORED_I8:
        return vf_load_i8(p, i);
    default:
        return vld1q_f32(p);
    }
}

/* ---- Sums ---- */

enum { KEYS, VALUES };

/* Where a tile reads. Of keys, whose rows of units are 16 columns wide, an address for each panel;
 * of values, whose panels' columns are in line, one for each row of units of a round: the rest is a
 * constant away. ahead: what to ask for meanwhile, likewise. */
struct source {
    uintptr_t b[POINTERS], ahead[POINTERS];
    ptrdiff_t row, step; /* bytes from one row of units, or round, to the next */
};

/* Vector v of a row of units. */
INLINE const char *vector_at(const uintptr_t *p, int row, int v, const int whose, const int type) {
    const int panel = QKV_PANEL * column_bytes(type), inside = v % 4 * LANES * column_bytes(type);
    const uintptr_t begin = p[whose == KEYS ? v / 4 : row];
    return (const char *)(begin + (uintptr_t)((whose == KEYS ? row : v / 4) * panel + inside));
}

INLINE int pointers(const int N, const int whose, const int type) {
    return whose == KEYS ? (N + 3) / 4 : round_rows(type);
}

/* The addresses are hidden from the compiler, which would else add up an index for each load. */
INLINE void next_round(struct source *s, const int N, const int whose, const int type) {
    QKV_UNROLL(4)
    for (int i = 0; i < pointers(N, whose, type); i++) {
        s->b[i] += (uintptr_t)s->step;
        s->ahead[i] += (uintptr_t)s->step;
        __asm__("" : "+r"(s->b[i]), "+r"(s->ahead[i]));
    }
}

/* A line or half of one for each row of units and panel. */
INLINE void ask(const struct source *s, const int N, const int whose, const int type) {
    QKV_UNROLL(2)
    for (int v = 0; v < N; v += 4) {
        QKV_UNROLL(4)
        for (int row = 0; row < round_rows(type); row++)
            __builtin_prefetch(vector_at(s->ahead, row, v, whose, type));
    }
}

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

/* Step i of a round in the columns of one panel: its words of integers are loaded once for all
 * steps. */
INLINE void add_columns(float32x4_t sum[SUMS], const float32x4_t x[TALL], const struct source *s,
                        int first, const int i, const int M, const int N, const int whose,
                        const int type) {
    const int last = first + (N < PANEL_VECTORS ? N : PANEL_VECTORS);
    QKV_UNROLL(2)
    for (int v = first; v < last; v += 2) {
        const float32x4x2_t y =
            eight_columns(vector_at(s->b, row_of(i, type), v, whose, type), i, type);
        QKV_UNROLL(8)
        for (int r = 0; r < M; r++) {
            sum[r * N + v] = add_product(sum[r * N + v], y.val[0], x[r], i);
            sum[r * N + v + 1] = add_product(sum[r * N + v + 1], y.val[1], x[r], i);
        }
    }
}

/* A round: M rows by N vectors, both constants where this is inlined. */
INLINE void add_round(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, const struct source *s,
                      const int M, const int N, const int whose, const int type) {
    float32x4_t x[TALL];
    QKV_UNROLL(8)
    for (int r = 0; r < M; r++)
        x[r] = vld1q_f32(a + r * lda);
    QKV_UNROLL(4)
    for (int first = 0; first < N; first += 4) {
        QKV_UNROLL(4)
        for (int i = 0; i < 4; i++) {
            add_columns(sum, x, s, first, i, M, N, whose, type);
            STEP_ENDS;
        }
    }
}

INLINE void add_step(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, const struct source *s,
                     int i, const int M, const int N, const int whose, const int type) {
    const ptrdiff_t row = row_of(i, type) * s->row;
    QKV_UNROLL(16)
    for (int v = 0; v < N; v++) {
        const float32x4_t y = four_columns(vector_at(s->b, 0, v, whose, type) + row, i, type);
        QKV_UNROLL(8)
        for (int r = 0; r < M; r++)
            sum[r * N + v] = vfmaq_n_f32(sum[r * N + v], y, a[r * lda]);
    }
}

/* The steps [from, to) of a panel, of which s is the first round: rounds, and before and after them
 * single steps. */
INLINE void add_steps(float32x4_t sum[SUMS], const float *a, ptrdiff_t lda, struct source *s,
                      ptrdiff_t from, ptrdiff_t to, const int M, const int N, const int whose,
                      const int type) {
    for (ptrdiff_t t = from; t < to;) {
        if (t % 4 == 0)
            for (; t + 4 <= to; t += 4) {
                ask(s, N, whose, type);
                add_round(sum, a + t, lda, s, M, N, whose, type);
                next_round(s, N, whose, type);
            }
        if (t < to) {
            add_step(sum, a + t, lda, s, (int)(t % 4), M, N, whose, type);
            if (++t % 4 == 0)
                next_round(s, N, whose, type);
        }
    }
}

/* ---- Tiles, from row i and vector j on ---- */

/* Row after row of units, from b on; the panels of keys differ. */
INLINE void set_rows(struct source *s, uintptr_t b, uintptr_t ahead, const int type) {
    QKV_UNROLL(4)
    for (int row = 0; row < round_rows(type); row++) {
        s->b[row] = b + (uintptr_t)(row * s->row);
        s->ahead[row] = ahead + (uintptr_t)(row * s->row);
    }
}

/* Where panel g of keys stands, or would if there were one more. */
INLINE uintptr_t key_panel(const struct qkv_key_product *p, ptrdiff_t g) {
    if (g < p->panels)
        return (uintptr_t)p->panel[g];
    if (!p->next)
        return (uintptr_t)p->panel[p->panels - 1];
    return (uintptr_t)p->next[g - p->panels < p->nexts ? g - p->panels : p->nexts - 1];
}

INLINE void key_tile(const struct qkv_key_product *p, int i, ptrdiff_t j, const int M, const int N,
                     const int type) {
    const ptrdiff_t panel = j / PANEL_VECTORS, inside = j % PANEL_VECTORS * LANES;
    float *out = p->s + i * p->lds + j * LANES;
    struct source s = {.row = QKV_PANEL * column_bytes(type)};
    float32x4_t sum[SUMS];
    QKV_UNROLL(16)
    for (int v = 0; v < M * N; v++)
        sum[v] = vdupq_n_f32(0.0f);
    s.step = round_rows(type) * s.row;
    QKV_UNROLL(4)
    for (int g = 0; g < pointers(N, KEYS, type); g++) {
        s.b[g] = (uintptr_t)p->panel[panel + g] + (uintptr_t)(inside * column_bytes(type));
        s.ahead[g] = key_panel(p, panel + g + pointers(N, KEYS, type));
    }
    add_steps(sum, (const float *)p->q + i * p->ldq, p->ldq, &s, 0, p->k, M, N, KEYS, type);
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
                             ptrdiff_t size, ptrdiff_t row) {
    if ((g + 1) * QKV_PANEL < p->to)
        return (uintptr_t)p->panel[g + 1] + (uintptr_t)at;
    if (at + size < row || !p->next)
        return (uintptr_t)p->panel[p->from / QKV_PANEL] + (uintptr_t)(at + size);
    return (uintptr_t)p->next[0];
}

INLINE void value_tile(const struct qkv_value_product *p, int i, ptrdiff_t j, const int M,
                       const int N, const int type) {
    const ptrdiff_t at = j * LANES * column_bytes(type), size = N * LANES * column_bytes(type);
    const float *w = (const float *)p->w + i * p->ldw;
    float *out = p->acc + i * p->ld_acc + j * LANES;
    struct source s = {.row = p->n * column_bytes(type)};
    float32x4_t sum[SUMS];
    QKV_UNROLL(16)
    for (int v = 0; v < M * N; v++)
        sum[v] = vdupq_n_f32(0.0f);
    s.step = round_rows(type) * s.row;
    for (ptrdiff_t g = p->from / QKV_PANEL; g * QKV_PANEL < p->to; g++) {
        const ptrdiff_t first = g * QKV_PANEL, from = first < p->from ? p->from - first : 0;
        const ptrdiff_t to = p->to - first < QKV_PANEL ? p->to - first : QKV_PANEL;
        const uintptr_t skipped = (uintptr_t)(from / 4 * s.step);
        set_rows(&s, (uintptr_t)p->panel[g] + (uintptr_t)at + skipped,
                 after_panel(p, g, at, size, s.row) + skipped, type);
        add_steps(sum, w + first, p->ldw, &s, from, to, M, N, VALUES, type);
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

#define WIDTHS(rows, wide, narrow, unused) {wide, narrow},
static const int widths[TALL][2] = {EACH_TILE(WIDTHS, )};

/* Columns that are taken together by all rows, shared out evenly to tiles; within them tiles as wide
 * as they come. */
static void walk_tiles(const void *product, int rows, ptrdiff_t vectors, tile_table tiles) {
    const int high = (rows + TALL - 1) / TALL, height = (rows + high - 1) / high;
    const int span = height == 1 ? widths[0][0] : PANEL_VECTORS;
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

#define TILE(rows, width, unused, name, type)                                               \
    static void keys_##name##_##rows##x##width(const void *product, int i, ptrdiff_t j) {   \
        key_tile(product, i, j, rows, width, type);                                         \
    }                                                                                       \
    static void values_##name##_##rows##x##width(const void *product, int i, ptrdiff_t j) { \
        value_tile(product, i, j, rows, width, type);                                       \
    }
#define NAMES(rows, wide, narrow, name) {name##_##rows##x##wide, name##_##rows##x##narrow},

#define PRODUCTS(name, type)                                                \
    TILE(1, 4, 4, name, type)                                               \
    EACH_TILE(TILE, name, type)                                             \
    static void keys_##name(const struct qkv_key_product *p) {              \
        static tile_table tiles = {EACH_TILE(NAMES, keys_##name)};          \
        walk_tiles(p, p->rows, (ptrdiff_t)p->panels *PANEL_VECTORS, tiles); \
    }                                                                       \
    static void values_##name(const struct qkv_value_product *p) {          \
        static tile_table tiles = {EACH_TILE(NAMES, values_##name)};        \
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
    .lanes = VF_LANES,
};
