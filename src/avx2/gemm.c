/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX2: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
 *
 * Whole tiles are assembly, from the first zero of one to the last store of the lowest: next to
 * nothing stands between the last FMA of a tile and the first one of the next.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/gemm_run.h"

/* clang-format off */
#define TILE_SUM(n) "%%ymm" #n

/* A matrix's six rows, from the place in memory that has its first one's address and moves on to
 * the next tile's: b and low are rows 0 and 3, and rounds is from row to row. */
#define EACH_ROW(DO, first, ld)                                                                   \
    "mov " first ",%[b]\n"                                                                        \
    "mov " ld ",%[rounds]\n"                                                                      \
    "lea (%[rounds],%[rounds],2),%[low]\n"                                                        \
    "add %[b],%[low]\n"                                                                           \
    DO("(%[b])", "0", 0, 1) DO("(%[b],%[rounds])", "4", 2, 3) DO("(%[b],%[rounds],2)", "8", 4, 5) \
    DO("(%[low])", "12", 6, 7) DO("(%[low],%[rounds])", "16", 8, 9)                               \
    DO("(%[low],%[rounds],2)", "20", 10, 11)                                                      \
    "lea (%[low],%[rounds],2),%[low]\n"                                                           \
    "add %[rounds],%[low]\n"                                                                      \
    "mov %[low]," first "\n"
/* A row of sums += the row of C times its factor. */
#define ADD_ROW(c, at, s0, s1)                     \
    "vbroadcastss " at "(%[a]),%%ymm15\n"          \
    "vfmadd231ps " c ",%%ymm15," TILE_SUM(s0) "\n" \
    "vfmadd231ps 32" c ",%%ymm15," TILE_SUM(s1) "\n"
/* A row of sums times its scale, + 0. */
#define SCALE_ROW(at, s0, s1)                        \
    "vbroadcastss " at "(%[a]),%%ymm15\n"            \
    "vfmadd213ps %%ymm14,%%ymm15," TILE_SUM(s0) "\n" \
    "vfmadd213ps %%ymm14,%%ymm15," TILE_SUM(s1) "\n"
#define STORE_ROW(c, at, s0, s1) \
    "vmovups " TILE_SUM(s0) "," c "\nvmovups " TILE_SUM(s1) ",32" c "\n"

#define ASK "prefetcht1 (%[ahead])\nadd $16,%[ahead]\n"

#define WHOLE_TILES(ask)                                                                            \
    __asm__ volatile(                                                                               \
        "5:\n"                                                                                      \
        "mov " RUN_A ",%[a]\n"                                                                      \
        "lea (%[lda],%[lda],2),%[low]\n"                                                            \
        "add %[a],%[low]\n"                                                                         \
        "mov " RUN_B ",%[b]\n"                                                                      \
        "mov " RUN_K ",%[rounds]\n"                                                                 \
        "mov %[rounds],%[rest]\n"                                                                   \
        "shr $2,%[rounds]\n"                                                                        \
        "and $3,%[rest]\n"                                                                          \
        TILE_PRODUCT(ask)                                                                           \
        "mov " RUN_A ",%[a]\n"                                                                      \
        "lea (%[a],%[lda],4),%[a]\n"                                                                \
        "lea (%[a],%[lda],2),%[a]\n"                                                                \
        "mov %[a]," RUN_A "\n"                                                                      \
        "mov " RUN_FACTOR ",%[a]\n"                                                                 \
        "test %[a],%[a]\n"                                                                          \
        "jz 6f\n"                                                                                   \
        "addq $24," RUN_FACTOR "\n"                                                                 \
        EACH_ROW(ADD_ROW, RUN_C, RUN_LDC)                                                           \
        "6:\n"                                                                                      \
        "mov " RUN_SCALE ",%[a]\n"                                                                  \
        "test %[a],%[a]\n"                                                                          \
        "jz 7f\n"                                                                                   \
        "addq $24," RUN_SCALE "\n"                                                                  \
        "vxorps %%ymm14,%%ymm14,%%ymm14\n"                                                          \
        SCALE_ROW("0", 0, 1) SCALE_ROW("4", 2, 3) SCALE_ROW("8", 4, 5)                              \
        SCALE_ROW("12", 6, 7) SCALE_ROW("16", 8, 9) SCALE_ROW("20", 10, 11)                         \
        "7:\n"                                                                                      \
        EACH_ROW(STORE_ROW, RUN_OUT, RUN_LD_OUT)                                                    \
        "subq $1," RUN_TILES "\n"                                                                   \
        "jnz 5b\n"                                                                                  \
        "vzeroupper\n"                                                                              \
        : [a] "=&r"(a), [low] "=&r"(low), [b] "=&r"(b), [rounds] "=&r"(rounds), [rest] "=&r"(rest), \
          [ahead] "+&r"(ahead)                                                                      \
        : [run] "r"(&run), [lda] "r"(g->lda * size), [row] "r"(row), [row3] "r"(3 * row)            \
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",   \
          "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
/* clang-format on */

/* Whole tiles one below the other, of an A that stands by rows. */
static void whole_tiles(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t count) {
    const ptrdiff_t size = sizeof(float), row = g->b_k * size;
    const float *a, *low, *b;
    ptrdiff_t rounds, rest;
    struct run run = run_of(g, i, j, count);
    uintptr_t ahead = run.ahead;
    if (g->ahead)
        WHOLE_TILES(ASK);
    else
        WHOLE_TILES("");
}

/* Fewer rows, or an A that stands by columns. M is a constant where this is inlined, so that the
 * accumulators live in registers. */
static inline __attribute__((always_inline)) void part(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M) {
    const float *a = g->a + i * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    const float *c = g->c + i * g->ldc + j;
    const ptrdiff_t lda = g->lda, a_k = g->a_k, ldc = g->ldc, b_k = g->b_k;
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    __m256 acc[MR][2];

    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(2)
        for (int v = 0; v < 2; v++)
            acc[r][v] = _mm256_setzero_ps();
    }

    for (ptrdiff_t p = g->k; p > 0; p--) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            __m256 x = _mm256_broadcast_ss(a + r * lda);
            acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
        }
        a += a_k;
        b += b_k;
    }

    if (g->factor) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            const __m256 x = _mm256_broadcast_ss(g->factor + i + r);
            QKV_UNROLL(2)
            for (int v = 0; v < 2; v++)
                acc[r][v] = _mm256_fmadd_ps(_mm256_loadu_ps(c + r * ldc + v * 8), x, acc[r][v]);
        }
    }

    if (g->scale) {
        QKV_UNROLL(6)
        for (int r = 0; r < M; r++) {
            const __m256 x = _mm256_broadcast_ss(g->scale + i + r);
            QKV_UNROLL(2)
            for (int v = 0; v < 2; v++)
                acc[r][v] = _mm256_fmadd_ps(acc[r][v], x, _mm256_setzero_ps());
        }
    }

    QKV_UNROLL(6)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(2)
        for (int v = 0; v < 2; v++)
            _mm256_storeu_ps(out + r * ld_out + v * 8, acc[r][v]);
    }
}

#define PART(rows)                                                                \
    static void part_##rows(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        part(g, i, j, rows);                                                      \
    }
PART(1)
PART(2)
PART(3)
PART(4)
PART(5)
PART(6)

typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

static tile_fn *const parts[MR] = {part_1, part_2, part_3, part_4, part_5, part_6};

static inline ptrdiff_t gemm_rows(const struct qkv_gemm *g, ptrdiff_t left, int cols) {
    (void)cols; /* a tile is one panel wide */
    if (left < MR)
        return left;
    return g->a_k == 1 ? left / MR * MR : MR;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows,
                             int cols) {
    (void)cols;
    if (rows >= MR && g->a_k == 1)
        whole_tiles(g, i, j, rows / MR);
    else
        parts[rows - 1](g, i, j);
}

enum { ASKS = 1 };
#include "tmpl/gemm.h"
