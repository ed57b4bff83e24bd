/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in AVX2 (struct qkv_multiply in kernels.h): the tiles of a strip, for many tokens
 * and for few; the walk over them and the rows' way out are tmpl/project.h's, the packing pack.c's.
 * X is broadcast, one element a row and input; W comes in whole vectors. Reads and writes exactly
 * what the sizes say.
 *
 * Many tokens: 6 rows by 16 columns, as in tile.h. What comes next of W is prefetched into the
 * second-level cache, the tile's share in equal parts with each stretch.
 * Few tokens: as many chains as cover two FMA ports of latency 4, and as few streams of W as that
 * takes. One or two tokens leave them to the processor's own prefetchers, which follow them but for
 * the ends of pages: of each KiB one line is asked for, 32 KiB ahead. Every line that is asked for
 * holds one of a few buffers until it is there, and would be slower than theirs. Where three or
 * four tokens work on a line, some processors' prefetchers fall behind: all are asked for. Others
 * bring four streams 1.1 times as fast as two: one token takes as many, and asks for all lines, 2
 * KiB ahead, into the first-level cache.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project_tile.h"

enum { FEW = 4, GROUPS = 4, VECTORS = 2 * GROUPS, UNROLLED = 16 };

static int few_panels(const struct qkv_multiply *g) {
    static const int panels[2][FEW] = {{4, 2, 1, 1}, {2, 2, 1, 1}};
    return panels[g->follows != 0][g->tokens - 1];
}

/* Of how many lines one is asked for, and how many inputs ahead: of many panels into the
 * first-level cache. */
#define MANY(panels) ((panels) > 2)
#define ASKED(tokens, panels) (MANY(panels) || (tokens) > 2 ? 1 : UNROLLED)
#define FAR(tokens, panels) (MANY(panels) ? 32 : (tokens) > 2 ? 256 : 512)

/* One input. M and G are constants where this is inlined, so that acc lives in registers. */
static inline __attribute__((always_inline)) void
step(__m256 acc[MR][VECTORS], const struct place at, const int M, const int G) {
    __m256 w[VECTORS];
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++)
        w[v] = _mm256_loadu_ps(at.w + v / 2 * at.w_panel + v % 2 * 8);
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        __m256 x = _mm256_broadcast_ss(at.x + r * at.x_ld);
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            acc[r][v] = _mm256_fmadd_ps(x, w[v], acc[r][v]);
    }
}

/* Asks for the lines that are so many inputs ahead. */
static inline __attribute__((always_inline)) void ask(const struct place at, const int far,
                                                      const int G) {
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const void *line = (const void *)line_of(at.w + v * at.w_panel, far);
        if (MANY(G))
            _mm_prefetch(line, _MM_HINT_T0);
        else
            _mm_prefetch(line, _MM_HINT_T1);
    }
}

#define TILE_SUM(n) "%[s" #n "]"
#define SUMS(r, i, j) [s##i] "=&x"(acc[r][0]), [s##j] "=&x"(acc[r][1])

/* The chains of n inputs of a whole tile, from zero. */
static inline __attribute__((always_inline)) void whole_stretch(__m256 acc[MR][VECTORS],
                                                                struct place at, ptrdiff_t n) {
    const ptrdiff_t size = sizeof(float);
    const float *low = at.x + 3 * at.x_ld;
    size_t rounds = (size_t)n / 4, rest = (size_t)n % 4;
    __asm__ volatile(
        TILE_PRODUCT
        : SUMS(0, 0, 1), SUMS(1, 2, 3), SUMS(2, 4, 5), SUMS(3, 6, 7), SUMS(4, 8, 9),
          SUMS(5, 10, 11), [a] "+r"(at.x), [low] "+r"(low), [b] "+r"(at.w), [rounds] "+r"(rounds),
          [rest] "+r"(rest)
        : [lda] "r"(at.x_ld * size), [row] "r"(QKV_PANEL * size), [row3] "r"(3 * QKV_PANEL * size)
        : "memory", "cc", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* Those of any tile. few: W is prefetched where it is read. */
static inline __attribute__((always_inline)) void stretch(__m256 acc[MR][VECTORS], struct place at,
                                                          ptrdiff_t n, const int M, const int G,
                                                          const int few) {
    if (M == MR) {
        whole_stretch(acc, at, n);
        return;
    }
    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(8)
        for (int v = 0; v < 2 * G; v++)
            acc[r][v] = _mm256_setzero_ps();
    }

    for (; few && n >= UNROLLED; n -= UNROLLED) {
        QKV_UNROLL(16)
        for (int i = 0; i < UNROLLED; i++) {
            if (i % ASKED(M, G) == 0)
                ask(at, FAR(M, G), G);
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
static inline __attribute__((always_inline)) void join(__m256 acc[MR][VECTORS],
                                                       const struct qkv_multiply *g,
                                                       const struct tile *t, int add, int ends,
                                                       const int M, const int G) {
    float *sum = g->sum + t->row * g->sum_ld + t->panel * QKV_PANEL;
    if (add) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 2 * G; v++)
                acc[r][v] = _mm256_add_ps(_mm256_loadu_ps(sum + r * g->sum_ld + v * 8), acc[r][v]);
        }
    }
    if (!ends) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(8)
            for (int v = 0; v < 2 * G; v++)
                _mm256_storeu_ps(sum + r * g->sum_ld + v * 8, acc[r][v]);
        }
        return;
    }
    QKV_UNROLL(8)
    for (int v = 0; v < 2 * G; v++) {
        const int panel = t->panel + v / 2;
        float *out = g->out[panel] + t->row * g->out_ld + v % 2 * 8;
        __m256 bias = g->bias ? _mm256_loadu_ps(g->bias + panel * QKV_PANEL + v % 2 * 8)
                              : _mm256_setzero_ps();
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++)
            _mm256_storeu_ps(out + r * g->out_ld, _mm256_add_ps(acc[r][v], bias));
    }
}

static inline __attribute__((always_inline)) void
tile(const struct qkv_multiply *g, const struct tile *t, const int M, const int G, const int few) {
    struct place at = {g->x + t->row * g->x_ld, g->w + t->panel * g->w_panel, g->x_ld, g->w_panel};
    uintptr_t ahead = t->ahead;
    int add = g->add;
    for (ptrdiff_t left = g->k; left > 0;) {
        __m256 acc[MR][VECTORS];
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
TILE(few, 1, 3, 1)
TILE(few, 1, 4, 1)
TILE(few, 2, 1, 1)
TILE(few, 2, 2, 1)
TILE(few, 3, 1, 1)
TILE(few, 4, 1, 1)
TILE(many, 3, 1, 0)
TILE(many, 4, 1, 0)
TILE(many, 5, 1, 0)
TILE(many, 6, 1, 0)

/* The even shares of more than FEW tokens are no lower than this. */
enum { LOWEST = 3 };

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[FEW][GROUPS] = {
        {few_1x1, few_1x2, few_1x3, few_1x4}, {few_2x1, few_2x2}, {few_3x1}, {few_4x1}};
    tiles[t->rows - 1][t->panels - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[MR - LOWEST + 1] = {many_3x1, many_4x1, many_5x1, many_6x1};
    tiles[t->rows - LOWEST](g, t);
}

#include "tmpl/project.h"

const struct qkv_project_kernels qkv_avx2_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
};
