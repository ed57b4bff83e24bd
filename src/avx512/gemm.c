/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX-512: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
 *
 * Whole tiles are assembly, from the first zero of one to the last store of the lowest.
 */
#include "kernels.h"

#include <math.h>

#include "tile.h"
#include "vec.h"

#include "tmpl/gemm_run.h"

/* Fewer panels leave registers for more rows: as many chains, and fewer edges. SUMS of a tile, row
 * after row. */
enum { ASKS = 1, GROUPS = NR / QKV_PANEL, TALL = 16, SUMS = MR * GROUPS, SPAN = 4, LONG = 16 };
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

/* clang-format off */
/* B's rows may stand at any distance, so that each step moves on. */
#define STEP(at) TILE_LOAD("0") "add %[b_k],%%rcx\n" TILE_STEP(at)

#define FOUR_STEPS(ask) STEP("0") ask STEP("4") STEP("8") STEP("12")
#define ASK "prefetcht1 (%%r12)\nadd $64,%%r12\n"

#define EACH_ROW(DO)                                        \
    DO(0, 0, 1, 2, 3) DO(1, 4, 5, 6, 7) DO(2, 8, 9, 10, 11) \
    DO(3, 12, 13, 14, 15) DO(4, 16, 17, 18, 19) DO(5, 20, 21, 22, 23)
#define ADD_VECTOR(at, s) "vfmadd231ps " at "(%%rcx),%%zmm28," TILE_SUM(s) "\n"
/* A row of C times its factor; rdx: from row to row. */
#define ADD_ROW(r, s0, s1, s2, s3)                                                      \
    "vbroadcastss 4*" #r "(%%rax),%%zmm28\n"                                            \
    ADD_VECTOR("", s0) ADD_VECTOR("64", s1) ADD_VECTOR("128", s2) ADD_VECTOR("192", s3) \
    "add %%rdx,%%rcx\n"
#define SCALE(s) "vfmadd213ps %%zmm24,%%zmm28," TILE_SUM(s) "\n"
#define SCALE_ROW(r, s0, s1, s2, s3)         \
    "vbroadcastss 4*" #r "(%%rax),%%zmm28\n" \
    SCALE(s0) SCALE(s1) SCALE(s2) SCALE(s3)
#define STORE_ROW(r, s0, s1, s2, s3)                                             \
    "vmovups " TILE_SUM(s0) ",(%%r11)\nvmovups " TILE_SUM(s1) ",64(%%r11)\n"     \
    "vmovups " TILE_SUM(s2) ",128(%%r11)\nvmovups " TILE_SUM(s3) ",192(%%r11)\n" \
    "add %%rdx,%%r11\n"
/* The rows' largest, lane by lane, while they are in registers: a pass over the scores less. Where
 * a score is NaN the instruction answers with what was there before. */
#define MAX(s) "vmaxps %%zmm24," TILE_SUM(s) ",%%zmm24\n"
#define MAX_ROW(r, s0, s1, s2, s3)       \
    "vmovups 64*" #r "(%%rax),%%zmm24\n" \
    MAX(s0) MAX(s1) MAX(s2) MAX(s3)      \
    "vmovups %%zmm24,64*" #r "(%%rax)\n"
#define FIRST_MAX_ROW(r, s0, s1, s2, s3) \
    "vmovaps %%zmm25,%%zmm24\n"          \
    MAX(s0) MAX(s1) MAX(s2) MAX(s3)      \
    "vmovups %%zmm24,64*" #r "(%%rax)\n"

/* r9: the tile's row 0; r11: its results; r12: what is asked for next. */
#define WHOLE_TILES(ask)                                                         \
    __asm__ volatile(                                                            \
        "lea (%[panel],%[panel],2),%%r8\n"                                       \
        "mov " RUN_A ",%%r9\n"                                                   \
        "mov " RUN_AHEAD ",%%r12\n"                                              \
        "mov " RUN_OUT ",%%r11\n"                                                \
        "5:\n"                                                                   \
        "mov %%r9,%%rax\n"                                                       \
        "mov " RUN_B ",%%rcx\n"                                                  \
        "lea (%[lda],%[lda],2),%%rdx\n"                                          \
        "add %%rax,%%rdx\n"                                                      \
        TILE_ZEROS                                                               \
        "mov " RUN_K ",%%r10\n"                                                  \
        "shr $2,%%r10\n"                                                         \
        TILE_LOOP(1, FOUR_STEPS(ask), "16")                                      \
        "mov " RUN_K ",%%r10\n"                                                  \
        "and $3,%%r10\n"                                                         \
        "jz 4f\n"                                                                \
        TILE_LOOP(3, STEP("0"), "4")                                             \
        "4:\n"                                                                   \
        "lea (%%r9,%[lda],4),%%r9\n"                                             \
        "lea (%%r9,%[lda],2),%%r9\n"                                             \
        "mov " RUN_FACTOR ",%%rax\n"                                             \
        "test %%rax,%%rax\n"                                                     \
        "jz 6f\n"                                                                \
        "mov " RUN_C ",%%rcx\n"                                                  \
        "mov " RUN_LDC ",%%rdx\n"                                                \
        EACH_ROW(ADD_ROW)                                                        \
        "mov %%rcx," RUN_C "\n"                                                  \
        "addq $24," RUN_FACTOR "\n"                                              \
        "6:\n"                                                                   \
        "mov " RUN_SCALE ",%%rax\n"                                              \
        "test %%rax,%%rax\n"                                                     \
        "jz 7f\n"                                                                \
        "vpxord %%zmm24,%%zmm24,%%zmm24\n"                                       \
        EACH_ROW(SCALE_ROW)                                                      \
        "addq $24," RUN_SCALE "\n"                                               \
        "7:\n"                                                                   \
        "mov " RUN_LD_OUT ",%%rdx\n"                                             \
        EACH_ROW(STORE_ROW)                                                      \
        "mov " RUN_MAX ",%%rax\n"                                                \
        "test %%rax,%%rax\n"                                                     \
        "jz 9f\n"                                                                \
        "addq $384," RUN_MAX "\n"                                                \
        "cmpq $0," RUN_FIRST "\n"                                                \
        "jne 8f\n"                                                               \
        EACH_ROW(MAX_ROW)                                                        \
        "jmp 9f\n"                                                               \
        "8:\n"                                                                   \
        "vbroadcastss " RUN_NONE ",%%zmm25\n"                                    \
        EACH_ROW(FIRST_MAX_ROW)                                                  \
        "9:\n"                                                                   \
        "subq $1," RUN_TILES "\n"                                                \
        "jnz 5b\n"                                                               \
        "vzeroupper\n"                                                           \
        :                                                                        \
        : [run] "r"(&run), [lda] "r"(g->lda * size), [panel] "r"(g->b_g * size), \
          [b_k] "r"(g->b_k * size)                                               \
        : TILE_USES, "r11", "r12", TILE_SUMS)
/* clang-format on */

/* Whole tiles one below the other, of an A that stands by rows. */
static void whole_tiles(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t count) {
    const ptrdiff_t size = sizeof(float);
    struct run run = run_of(g, i, j, count);
    if (g->ahead)
        WHOLE_TILES(ASK);
    else
        WHOLE_TILES("");
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
        for (int v = 0; v < G; v++) {
            bv[v] = _mm512_loadu_ps(b + v * b_g);
            if (M == 2) /* or gcc loads it for each row, which takes longer */
                __asm__ volatile("" : "+v"(bv[v]));
        }
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

/* Do tiles of assembly come next? */
static inline int is_whole(const struct qkv_gemm *g, ptrdiff_t rows, int cols) {
    return cols == NR && rows >= MR && g->a_k == 1 && g->k >= LONG;
}

static inline ptrdiff_t gemm_rows(const struct qkv_gemm *g, ptrdiff_t left, int cols) {
    const int height = tall[cols / QKV_PANEL - 1];
    if (is_whole(g, left, cols))
        return left / MR * MR;
    return left < height ? left : height;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows,
                             int cols) {
    if (is_whole(g, rows, cols))
        whole_tiles(g, i, j, rows / MR);
    else
        tiles[cols / QKV_PANEL - 1][rows - 1](g, i, j);
}

#include "tmpl/gemm.h"
