/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX-512: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
 */
#include "kernels.h"

#include <math.h>

#include "tile.h"
#include "vec.h"

/* Fewer panels leave registers for more rows: as many chains, and fewer edges. SUMS of a tile, row
 * after row. */
enum { GROUPS = NR / QKV_PANEL, TALL = 16, SUMS = MR * GROUPS, SPAN = 4, LONG = 64 };
static const int tall[GROUPS] = {TALL, 12, 8, MR};

/* C * factor, row by row. */
static inline __attribute__((always_inline)) void add_c(__m512 acc[SUMS], const float *c,
                                                        ptrdiff_t ldc, const float *factor,
                                                        const int M, const int G) {
    QKV_UNROLL(16)
    for (int r = 0; r < M; r++) {
        const __m512 x = _mm512_set1_ps(factor[r]);
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r * G + v] = _mm512_fmadd_ps(_mm512_loadu_ps(c + v * 16), x, acc[r * G + v]);
        c += ldc;
        HOLD(c);
    }
}

/* The rows times their scales. */
static inline __attribute__((always_inline)) void scale_rows(__m512 acc[SUMS], const float *scale,
                                                             const int M, const int G) {
    const __m512 zero = _mm512_setzero_ps();
    QKV_UNROLL(16)
    for (int r = 0; r < M; r++) {
        const __m512 x = _mm512_set1_ps(scale[r]);
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r * G + v] = _mm512_fmadd_ps(acc[r * G + v], x, zero);
    }
}

static inline __attribute__((always_inline)) void
store(float *c, ptrdiff_t ldc, const __m512 acc[SUMS], const int M, const int G) {
    QKV_UNROLL(16)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            _mm512_storeu_ps(c + v * 16, acc[r * G + v]);
        c += ldc;
        HOLD(c);
    }
}

/* The rows' largest, lane by lane, while they are in registers: a pass over the scores less. */
static inline __attribute__((always_inline)) void tile_max(float *max, __m512 acc[SUMS], int first,
                                                           const int M, const int G) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
    QKV_UNROLL(16)
    for (int r = 0; r < M; r++) {
        __m512 m = first ? none : _mm512_loadu_ps(max + r * QKV_PANEL);
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            m = vf_max(acc[r * G + v], m);
        _mm512_storeu_ps(max + r * QKV_PANEL, m);
    }
}

#define NOTHING(at) ""

/* clang-format off */
/* With the sums and six more an asm has all the operands that it may have. */
#define TILE_SUM(n) "%[s" #n "]"
#define SUMS_OF(row, a, b, c, d)                  \
    [s##a] "=&v"((row)[0]), [s##b] "=&v"((row)[1]), \
    [s##c] "=&v"((row)[2]), [s##d] "=&v"((row)[3])

/* B's rows may stand at any distance, so that each step moves on. */
#define STEP(at) TILE_LOAD(NOTHING, "0") "add %[b_k],%%rcx\n" TILE_STEP(at)

/* A whole tile's sums, where A's elements stand one behind the other. */
static inline __attribute__((always_inline)) void whole_product(__m512 acc[SUMS],
                                                                const struct qkv_gemm *g,
                                                                ptrdiff_t i, const float *b) {
    const ptrdiff_t size = sizeof(float);
    __asm__ volatile(
        TILE_ADDRESSES
        TILE_ZEROS
        "mov %[n],%%r10\n"
        "shr $2,%%r10\n"
        "jz 2f\n"
        TILE_LOOP(1, STEP("0") STEP("4") STEP("8") STEP("12"), "16")
        "2:\n"
        "mov %[n],%%r10\n"
        "and $3,%%r10\n"
        "jz 4f\n"
        TILE_LOOP(3, STEP("0"), "4")
        "4:\n" /* clang-format on */
        : SUMS_OF(acc, 0, 1, 2, 3), SUMS_OF(acc + 4, 4, 5, 6, 7), SUMS_OF(acc + 8, 8, 9, 10, 11),
          SUMS_OF(acc + 12, 12, 13, 14, 15), SUMS_OF(acc + 16, 16, 17, 18, 19),
          SUMS_OF(acc + 20, 20, 21, 22, 23)
        : [a] "r"(g->a + i * g->lda), [b] "r"(b), [lda] "r"(g->lda * size),
          [panel] "r"(g->b_g * size), [b_k] "r"(g->b_k * size), [n] "r"(g->k)
        : TILE_USES);
}

/* The sums of any tile. M and G are constants where this is inlined, so that they live in
 * registers. */
static inline __attribute__((always_inline)) void product(__m512 acc[SUMS],
                                                          const struct qkv_gemm *g, ptrdiff_t i,
                                                          const float *b, const int M,
                                                          const int G) {
    const float *a[TALL / SPAN]; /* every SPANth row: 16 distances would have no registers */
    const ptrdiff_t lda = g->lda, a_k = g->a_k, b_g = g->b_g, b_k = g->b_k;

    QKV_UNROLL(4)
    for (int r = 0; r < M; r += SPAN) {
        a[r / SPAN] = g->a + (i + r) * lda;
        HOLD(a[r / SPAN]);
    }
    QKV_UNROLL(16)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            acc[r * G + v] = _mm512_setzero_ps();
    }

    for (ptrdiff_t p = g->k; p > 0; p--) {
        __m512 bv[GROUPS];
        QKV_UNROLL(4)
        for (int v = 0; v < G; v++)
            bv[v] = _mm512_loadu_ps(b + v * b_g);
        QKV_UNROLL(16)
        for (int r = 0; r < M; r++) {
            __m512 x = _mm512_set1_ps(a[r / SPAN][r % SPAN * lda]);
            QKV_UNROLL(4)
            for (int v = 0; v < G; v++)
                acc[r * G + v] = _mm512_fmadd_ps(x, bv[v], acc[r * G + v]);
        }
        QKV_UNROLL(4)
        for (int r = 0; r < M; r += SPAN)
            a[r / SPAN] += a_k;
        b += b_k;
    }
}

static inline __attribute__((always_inline)) void tile(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M, const int G) {
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    __m512 acc[SUMS];

    if (M == MR && G == GROUPS && g->a_k == 1 && g->k >= LONG)
        whole_product(acc, g, i, b);
    else
        product(acc, g, i, b, M, G);
    HOLD(g);
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    if (g->factor)
        add_c(acc, g->c + i * g->ldc + j, g->ldc, g->factor + i, M, G);
    if (g->scale)
        scale_rows(acc, g->scale + i, M, G);
    store(out, ld_out, acc, M, G);
    if (g->max)
        tile_max(g->max + i * QKV_PANEL, acc, j == 0, M, G);
}

#define TILE(rows, groups)                                                                   \
    static void tile_##rows##x##groups(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        tile(g, i, j, rows, groups);                                                         \
    }
#define UP_TO_6(DO, groups) \
    DO(1, groups) DO(2, groups) DO(3, groups) DO(4, groups) DO(5, groups) DO(6, groups)
#define UP_TO_8(DO, groups) UP_TO_6(DO, groups) DO(7, groups) DO(8, groups)
#define UP_TO_12(DO, groups) \
    UP_TO_8(DO, groups) DO(9, groups) DO(10, groups) DO(11, groups) DO(12, groups)
#define UP_TO_16(DO, groups) \
    UP_TO_12(DO, groups) DO(13, groups) DO(14, groups) DO(15, groups) DO(16, groups)
UP_TO_16(TILE, 1)
UP_TO_12(TILE, 2)
UP_TO_8(TILE, 3)
UP_TO_6(TILE, 4)

typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

#define NAME(rows, groups) tile_##rows##x##groups,
static tile_fn *const tiles[GROUPS][TALL] = {
    {UP_TO_16(NAME, 1)},
    {UP_TO_12(NAME, 2)},
    {UP_TO_8(NAME, 3)},
    {UP_TO_6(NAME, 4)},
};

static inline int gemm_rows(int cols) {
    return tall[cols / QKV_PANEL - 1];
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows,
                             int cols) {
    tiles[cols / QKV_PANEL - 1][rows - 1](g, i, j);
}

#include "tmpl/gemm.h"
