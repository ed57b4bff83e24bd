/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in NEON (struct qkv_multiply in kernels.h): the tiles of a strip, for many tokens
 * and for few; the walk over them and the rows' way out are tmpl/project.h's, the packing pack.c's.
 * X is multiplied by element, one a row and input; W comes in whole vectors. Reads and writes
 * exactly what the sizes say.
 *
 * Many tokens: 4 rows by 16 columns, as in tile.h. What comes next of W is prefetched into the
 * second-level cache, the tile's share in equal parts with each stretch.
 * Few tokens: as many chains as cover two FMA ports of latency 4, and as few streams of W as that
 * takes; each is prefetched 16 KiB ahead, as the hardware stops at the end of each page.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project_tile.h"

enum { FEW = 4, GROUPS = 2, VECTORS = 4 * GROUPS, UNROLLED = 4, FAR = 256 };

static int few_panels(const struct qkv_multiply *g) {
    static const int panels[FEW] = {2, 2, 1, 1};
    return panels[g->tokens - 1];
}

/* One input. M and G are constants where this is inlined, so that acc lives in registers. */
static inline __attribute__((always_inline)) void
step(float32x4_t acc[MR][VECTORS], const struct place at, const int M, const int G) {
    float32x4_t w[VECTORS];
    QKV_UNROLL(8)
    for (int v = 0; v < 4 * G; v++)
        w[v] = vld1q_f32(at.w + v / 4 * at.w_panel + v % 4 * 4);
    QKV_UNROLL(4)
    for (int r = 0; r < M; r++) {
        float x = at.x[r * at.x_ld];
        /* Two rows' scalars at a time: loaded all at once they would push accumulators out of the
         * registers, and compilers would. */
        if (r % 2)
            __asm__ volatile("" ::: "memory");
        QKV_UNROLL(8)
        for (int v = 0; v < 4 * G; v++)
            acc[r][v] = vfmaq_n_f32(acc[r][v], w[v], x);
    }
}

/* The chains of n inputs, from zero. few: W is prefetched where it is read. */
static inline __attribute__((always_inline)) void stretch(float32x4_t acc[MR][VECTORS],
                                                          struct place at, ptrdiff_t n, const int M,
                                                          const int G, const int few) {
    QKV_UNROLL(4)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < 4 * G; v++)
            acc[r][v] = vdupq_n_f32(0.0f);
    }

    for (; few && n >= UNROLLED; n -= UNROLLED) {
        QKV_UNROLL(4)
        for (int i = 0; i < UNROLLED; i++) {
            QKV_UNROLL(2)
            for (int v = 0; v < G; v++)
                __builtin_prefetch((const void *)line_of(at.w + v * at.w_panel, FAR));
            step(acc, at, M, G);
            at.x++;
            at.w += QKV_PANEL;
        }
    }
    for (; n > 0; n--) {
        step(acc, at, M, G);
        at.x++;
        at.w += QKV_PANEL;
    }
}

/* Joins the stretch to the ones before; whole sums go out. */
static inline __attribute__((always_inline)) void join(float32x4_t acc[MR][VECTORS],
                                                       const struct qkv_multiply *g,
                                                       const struct tile *t, int add, int ends,
                                                       const int M, const int G) {
    float *sum = g->sum + t->row * g->sum_ld + t->panel * QKV_PANEL;
    if (add) {
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 4 * G; v++)
                acc[r][v] = vaddq_f32(vld1q_f32(sum + r * g->sum_ld + v * 4), acc[r][v]);
        }
    }
    if (!ends) {
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 4 * G; v++)
                vst1q_f32(sum + r * g->sum_ld + v * 4, acc[r][v]);
        }
        return;
    }
    QKV_UNROLL(8)
    for (int v = 0; v < 4 * G; v++) {
        const int panel = t->panel + v / 4;
        float *out = g->out[panel] + t->row * g->out_ld + v % 4 * 4;
        float32x4_t bias =
            g->bias ? vld1q_f32(g->bias + panel * QKV_PANEL + v % 4 * 4) : vdupq_n_f32(0.0f);
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++)
            vst1q_f32(out + r * g->out_ld, vaddq_f32(acc[r][v], bias));
    }
}

static inline __attribute__((always_inline)) void
tile(const struct qkv_multiply *g, const struct tile *t, const int M, const int G, const int few) {
    struct place at = {g->x + t->row * g->x_ld, g->w + t->panel * g->w_panel, g->x_ld, g->w_panel};
    uintptr_t ahead = t->ahead;
    int add = g->add;
    for (ptrdiff_t left = g->k; left > 0;) {
        float32x4_t acc[MR][VECTORS];
        const ptrdiff_t n = left < QKV_STRETCH ? left : QKV_STRETCH;
        if (!few)
            ahead = ask_ahead(g, t, ahead, n);
        stretch(acc, at, n, M, G, few);
        at.x += n;
        at.w += n * QKV_PANEL;
        left -= n;
        /* What join needs is not computed before the loop: it would push accumulators out. */
        const struct qkv_multiply *later = g;
        __asm__ volatile("" : "+r"(later));
        join(acc, later, t, add, later->ends && left == 0, M, G);
        add = 1;
    }
}

typedef void tile_fn(const struct qkv_multiply *g, const struct tile *t);

#define TILE(name, rows, groups, few)                                                          \
    static void name##_##rows##x##groups(const struct qkv_multiply *g, const struct tile *t) { \
        tile(g, t, rows, groups, few);                                                         \
    }
TILE(few, 1, 1, 1)
TILE(few, 1, 2, 1)
TILE(few, 2, 1, 1)
TILE(few, 2, 2, 1)
TILE(few, 3, 1, 1)
TILE(few, 4, 1, 1)
TILE(many, 2, 1, 0)
TILE(many, 3, 1, 0)
TILE(many, 4, 1, 0)

/* The even shares of more than FEW tokens are no lower than this. */
enum { LOWEST = 2 };

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[FEW][GROUPS] = {
        {few_1x1, few_1x2}, {few_2x1, few_2x2}, {few_3x1}, {few_4x1}};
    tiles[t->rows - 1][t->panels - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[MR - LOWEST + 1] = {many_2x1, many_3x1, many_4x1};
    tiles[t->rows - LOWEST](g, t);
}

#define many_tokens many_tiles
#include "tmpl/project.h"

const struct qkv_project_kernels qkv_neon_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
};
