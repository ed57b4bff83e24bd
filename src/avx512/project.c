/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The projection in AVX-512 (struct qkv_multiply in kernels.h): the tiles of a strip, for many
 * tokens and for few; the walk over them and the rows' way out are tmpl/project.h's, the packing
 * pack.c's. X is broadcast, one element a row and input; W comes in whole vectors. Reads and writes
 * exactly what the sizes say.
 *
 * Many tokens: 6 rows by 64 columns, as in tile.h. What comes next of W is prefetched into the
 * second-level cache, a line every fourth input: more at a time would be in the way of X. Where a
 * tile's share is half a panel or more (up to 66 tokens), most of it would be left out: there it is
 * a line an input. Whole tiles also fetch what they read of W into the first-level cache, eight
 * inputs ahead.
 * Few tokens: two panels, so that twelve rows have their chains in registers and few have enough of
 * them; W is prefetched where it is read, as the hardware stops at the end of a page: 2 KiB ahead
 * into the first-level cache, or, where a processor's own prefetchers are good at it and would miss
 * the few buffers that this one has for lines on their way, 4 KiB ahead into the second. The former
 * bring four streams 1.1 to 1.2 times as fast as two: up to six tokens take four panels there.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/project_tile.h"

enum { FEW = 12, GROUPS = NR / QKV_PANEL, UNROLLED = 4 };

/* How many inputs ahead W is asked for where it is read, and so into which cache; or what comes
 * next of it instead, a line every fourth input, or every input. */
enum { NEXT = 0, NEXT_FAST = 1, NEAR = 32, FAR = 64 };

/* Panels of a tile of few tokens. */
static int few_panels(const struct qkv_multiply *g) {
    return g->follows || g->tokens > MR ? 2 : GROUPS;
}

/* One input. M and G are constants where this is inlined, so that acc lives in registers. */
static inline __attribute__((always_inline)) void
step(__m512 acc[FEW][GROUPS], const struct place at, const int M, const int G) {
    __m512 w[GROUPS];
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++)
        w[v] = _mm512_loadu_ps(at.w + v * at.w_panel);
    QKV_UNROLL(12)
    for (int r = 0; r < M; r++) {
        __m512 x = _mm512_set1_ps(at.x[r * at.x_ld]);
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++) {
            acc[r][v] = _mm512_fmadd_ps(x, w[v], acc[r][v]);
            /* Keeps it in its register, and the next input's loads where they are: compilers would
             * take those early, and push an accumulator out. */
            __asm__ volatile("" : "+v"(acc[r][v]));
        }
    }
}

/* Asks for W's line that is `far` inputs ahead, if any is to be asked for there. */
static inline __attribute__((always_inline)) void ask(const struct place at, const int G,
                                                      const int far) {
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const void *line = (const void *)line_of(at.w + v * at.w_panel, far);
        if (far == NEAR)
            _mm_prefetch(line, _MM_HINT_T0);
        else if (far == FAR)
            _mm_prefetch(line, _MM_HINT_T1);
    }
}

/* W comes as four streams, too many for the first-level cache's own prefetcher. */
#define ASK_LINE(at) "prefetcht0 512+" at "\n"

/* clang-format off */
#define STEP(at, w_at) TILE_LOAD(ASK_LINE, w_at) TILE_STEP(at)
#define ASK_NEXT "prefetcht1 (%%r9)\nadd $64,%%r9\n"
#define ROUND                                                                  \
    ASK_NEXT STEP("0", "0") STEP("4", "64") STEP("8", "128") STEP("12", "192") \
    "add $256,%%rcx\n"
#define FAST_ROUND                                                                           \
    ASK_NEXT STEP("0", "0") ASK_NEXT STEP("4", "64") ASK_NEXT STEP("8", "128") ASK_NEXT      \
    STEP("12", "192") "add $256,%%rcx\n"

#define WHOLE_STRETCH(round)                                                                \
    __asm__ volatile(                                                                       \
        "mov %[ahead],%%r9\n"                                                               \
        TILE_PRODUCT(round, STEP("0", "0") "add $64,%%rcx\n")                               \
        : TILE_SUMS(acc[0], 0, 1, 2, 3), TILE_SUMS(acc[1], 4, 5, 6, 7),                     \
          TILE_SUMS(acc[2], 8, 9, 10, 11), TILE_SUMS(acc[3], 12, 13, 14, 15),               \
          TILE_SUMS(acc[4], 16, 17, 18, 19), TILE_SUMS(acc[5], 20, 21, 22, 23)              \
        : [a] "r"(at.x), [b] "r"(at.w), [lda] "r"(at.x_ld * size),                          \
          [panel] "r"(at.w_panel * size), [ahead] "r"(ahead), [n] "r"(n)                    \
        : TILE_USES)
/* clang-format on */

/* The chains of n inputs of a whole tile, from zero. */
static inline __attribute__((always_inline)) void whole_stretch(__m512 acc[FEW][GROUPS],
                                                                struct place at, uintptr_t ahead,
                                                                ptrdiff_t n, const int far) {
    const ptrdiff_t size = sizeof(float);
    if (far == NEXT_FAST)
        WHOLE_STRETCH(FAST_ROUND);
    else
        WHOLE_STRETCH(ROUND);
}

/* Lines of what comes next that are asked for beside n inputs. */
static inline ptrdiff_t next_lines(ptrdiff_t n, const int far) {
    return far == NEXT_FAST ? n : n / UNROLLED;
}

/* Those of any tile. far: W is prefetched so far ahead of where it is read, else at `ahead`. */
static inline __attribute__((always_inline)) void stretch(__m512 acc[FEW][GROUPS], struct place at,
                                                          uintptr_t ahead, ptrdiff_t n, const int M,
                                                          const int G, const int far) {
    if (M == MR && G == GROUPS && far < NEAR) {
        whole_stretch(acc, at, ahead, n, far);
        return;
    }
    QKV_UNROLL(12)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r][v] = _mm512_setzero_ps();
    }

    for (; n >= UNROLLED; n -= UNROLLED) {
        if (far == NEXT || far == NEXT_FAST)
            for (ptrdiff_t i = next_lines(UNROLLED, far); i > 0; i--) {
                _mm_prefetch((const void *)ahead, _MM_HINT_T1);
                ahead += QKV_PANEL * sizeof(float);
            }
        QKV_UNROLL(4)
        for (int i = 0; i < UNROLLED; i++) {
            ask(at, G, far);
            step(acc, at, M, G);
            at.x++;
            at.w += QKV_PANEL;
        }
    }
#pragma GCC unroll 1
    for (; n > 0; n--) {
        step(acc, at, M, G);
        at.x++;
        at.w += QKV_PANEL;
    }
}

/* Joins the stretch to the ones before; whole sums go out. */
static inline __attribute__((always_inline)) void join(__m512 acc[FEW][GROUPS],
                                                       const struct qkv_multiply *g,
                                                       const struct tile *t, int add, int ends,
                                                       const int M, const int G) {
    float *sum = g->sum + t->row * g->sum_ld + t->panel * QKV_PANEL;
    if (add) {
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(4)
            for (int v = 0; v < G; v++)
                acc[r][v] = _mm512_add_ps(_mm512_loadu_ps(sum + r * g->sum_ld + v * 16), acc[r][v]);
        }
    }
    if (!ends) {
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++) {
            QKV_UNROLL(4)
            for (int v = 0; v < G; v++)
                _mm512_storeu_ps(sum + r * g->sum_ld + v * 16, acc[r][v]);
        }
        return;
    }
    QKV_UNROLL(4)
    for (int v = 0; v < G; v++) {
        const int panel = t->panel + v;
        float *out = g->out[panel] + t->row * g->out_ld;
        __m512 bias = g->bias ? _mm512_loadu_ps(g->bias + panel * QKV_PANEL) : _mm512_setzero_ps();
        QKV_UNROLL(12)
        for (int r = 0; r < M; r++)
            _mm512_storeu_ps(out + r * g->out_ld, _mm512_add_ps(acc[r][v], bias));
    }
}

static inline __attribute__((always_inline)) void
tile(const struct qkv_multiply *g, const struct tile *t, const int M, const int G, const int far) {
    struct place at = {g->x + t->row * g->x_ld, g->w + t->panel * g->w_panel, g->x_ld, g->w_panel};
    int add = g->add;
    uintptr_t ahead = t->lines ? t->ahead : (uintptr_t)at.w;
    for (ptrdiff_t left = g->k; left > 0;) {
        __m512 acc[FEW][GROUPS];
        const ptrdiff_t n = left < QKV_STRETCH ? left : QKV_STRETCH;
        stretch(acc, at, ahead, n, M, G, far);
        ahead += (uintptr_t)next_lines(n, far) * QKV_PANEL * sizeof(float);
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

#define TILE(name, rows, groups, far)                                                          \
    static void name##_##rows##x##groups(const struct qkv_multiply *g, const struct tile *t) { \
        tile(g, t, rows, groups, far);                                                         \
    }
#define PAIR(name, rows, far) TILE(name, rows, 1, far) TILE(name, rows, 2, far)
#define FOUR(name, rows, far) \
    PAIR(name, rows, far) TILE(name, rows, 3, far) TILE(name, rows, 4, far)
#define SIX(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#define SEVEN_TO_TWELVE(DO) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12)
#define TWELVE(DO) SIX(DO) SEVEN_TO_TWELVE(DO)
#define NEAR_PAIR(rows) PAIR(near, rows, NEAR)
#define NEAR_FOUR(rows) FOUR(near, rows, NEAR)
#define FAR_PAIR(rows) PAIR(far, rows, FAR)
SIX(NEAR_FOUR)
SEVEN_TO_TWELVE(NEAR_PAIR)
TWELVE(FAR_PAIR)
FOUR(many, 4, NEXT)
FOUR(many, 5, NEXT)
FOUR(many, 6, NEXT)
FOUR(fast, 4, NEXT_FAST)
FOUR(fast, 5, NEXT_FAST)
FOUR(fast, 6, NEXT_FAST)

#define TWO_OF(name, rows) name##_##rows##x1, name##_##rows##x2
#define FOUR_OF(name, rows) TWO_OF(name, rows), name##_##rows##x3, name##_##rows##x4
#define NEAR_FOUR_OF(rows) {FOUR_OF(near, rows)},
#define NEAR_TWO_OF(rows) {TWO_OF(near, rows)},
#define FAR_TWO_OF(rows) {TWO_OF(far, rows)},
/* The even shares of more than FEW tokens are no lower than this. */
enum { LOWEST = 4 };

static void few_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[2][FEW][GROUPS] = {{SIX(NEAR_FOUR_OF) SEVEN_TO_TWELVE(NEAR_TWO_OF)},
                                                   {TWELVE(FAR_TWO_OF)}};
    tiles[g->follows != 0][t->rows - 1][t->panels - 1](g, t);
}

static void many_tile(const struct qkv_multiply *g, const struct tile *t) {
    static tile_fn *const tiles[2][MR - LOWEST + 1][GROUPS] = {
        {{FOUR_OF(many, 4)}, {FOUR_OF(many, 5)}, {FOUR_OF(many, 6)}},
        {{FOUR_OF(fast, 4)}, {FOUR_OF(fast, 5)}, {FOUR_OF(fast, 6)}}};
    const int fast = 2 * t->lines >= g->k;
    tiles[fast][t->rows - LOWEST][t->panels - 1](g, t);
}

#include "tmpl/project.h"

const struct qkv_project_kernels qkv_avx512_project = {
    .variant = ROOM_NAME,
    .multiply = ROOM(multiply),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
    .few = FEW,
    .wide_from = 2 << 20,
};
