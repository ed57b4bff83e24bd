/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in AVX2: the
 * arithmetic of scores, mix and attention. A is broadcast, one element a row and step;
 * B comes in whole vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does
 * nothing, k = 0 writes zeros (or C * factor).
 *
 * Whole tiles are assembly from the first zero to the last store: next to nothing stands between
 * the last FMA of a tile and the first one of the next.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#define TILE_SUM(n) "%%ymm" #n

/* clang-format off */
/* A row of sums += the row of C times its factor, and to C. */
#define ADD_ROW(c, at, s0, s1)                     \
    "vbroadcastss " at "(%[a]),%%ymm15\n"          \
    "vfmadd231ps " c ",%%ymm15," TILE_SUM(s0) "\n" \
    "vfmadd231ps 32" c ",%%ymm15," TILE_SUM(s1) "\n"
/* A row of sums times its scale, + 0. */
#define SCALE_ROW(at, s0, s1)                        \
    "vbroadcastss " at "(%[a]),%%ymm15\n"            \
    "vfmadd213ps %%ymm14,%%ymm15," TILE_SUM(s0) "\n" \
    "vfmadd213ps %%ymm14,%%ymm15," TILE_SUM(s1) "\n"
#define STORE_ROW(c, s0, s1) "vmovups " TILE_SUM(s0) "," c "\nvmovups " TILE_SUM(s1) ",32" c "\n"
/* clang-format on */

/* A whole tile of an A that stands by rows. */
static void whole_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) {
    const ptrdiff_t size = sizeof(float), row = g->b_k * size;
    const float *a = g->a + i * g->lda, *low = a + 3 * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    const float *c = g->c + i * g->ldc + j, *c_low = c + 3 * g->ldc;
    struct { /* by its address: each by itself would take a register */
        const float *factor, *scale;
        float *out;
        ptrdiff_t ld_out;
    } end = {g->factor ? g->factor + i : NULL, g->scale ? g->scale + i : NULL, NULL, 0};
    end.out = qkv_gemm_results(g, i, j, &end.ld_out);
    size_t rounds = (size_t)g->k / 4, rest = (size_t)g->k % 4;
    __asm__ volatile(/* clang-format off */
        TILE_PRODUCT
        "mov (%[end]),%[a]\n"
        "test %[a],%[a]\n"
        "jz 5f\n"
        ADD_ROW("(%[c])", "0", 0, 1)
        ADD_ROW("(%[c],%[ldc])", "4", 2, 3)
        ADD_ROW("(%[c],%[ldc],2)", "8", 4, 5)
        ADD_ROW("(%[c_low])", "12", 6, 7)
        ADD_ROW("(%[c_low],%[ldc])", "16", 8, 9)
        ADD_ROW("(%[c_low],%[ldc],2)", "20", 10, 11)
        "5:\n"
        "mov 8(%[end]),%[a]\n"
        "mov 16(%[end]),%[b]\n"
        "mov 24(%[end]),%[rounds]\n"
        "shl $2,%[rounds]\n"
        "lea (%[rounds],%[rounds],2),%[low]\n"
        "add %[b],%[low]\n"
        "test %[a],%[a]\n"
        "jz 6f\n"
        "vxorps %%ymm14,%%ymm14,%%ymm14\n"
        SCALE_ROW("0", 0, 1)
        SCALE_ROW("4", 2, 3)
        SCALE_ROW("8", 4, 5)
        SCALE_ROW("12", 6, 7)
        SCALE_ROW("16", 8, 9)
        SCALE_ROW("20", 10, 11)
        "6:\n"
        STORE_ROW("(%[b])", 0, 1)
        STORE_ROW("(%[b],%[rounds])", 2, 3)
        STORE_ROW("(%[b],%[rounds],2)", 4, 5)
        STORE_ROW("(%[low])", 6, 7)
        STORE_ROW("(%[low],%[rounds])", 8, 9)
        STORE_ROW("(%[low],%[rounds],2)", 10, 11)
        "vzeroupper\n" /* clang-format on */
                     : [a] "+r"(a), [low] "+r"(low), [b] "+r"(b), [rounds] "+r"(rounds),
                       [rest] "+r"(rest)
                     : [lda] "r"(g->lda * size), [row] "r"(row), [row3] "r"(3 * row), [c] "r"(c),
                       [c_low] "r"(c_low), [ldc] "r"(g->ldc * size), [end] "r"(&end)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15");
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

static inline int gemm_rows(int cols) {
    (void)cols;
    return MR;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, int rows,
                             int cols) {
    (void)cols; /* a tile is one panel wide */
    if (rows == MR && g->a_k == 1)
        whole_tile(g, i, j);
    else
        parts[rows - 1](g, i, j);
}

#include "tmpl/gemm.h"
