/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of a row-major A and a panel-wise B (struct qkv_gemm in kernels.h) in NEON: the
 * arithmetic of scores, mix and attention. A is multiplied by element; B comes in whole
 * vectors. Reads and writes exactly what the sizes say; n = 0 or m = 0 does nothing, k = 0 writes
 * zeros (or C * factor).
 *
 * Whole tiles are assembly, because the order of the instructions decides on the cores that issue
 * in order, and no compiler keeps it. Four steps make a round, which takes each row of A as one
 * vector. A row of B is loaded a step and more ahead of its use, into the one of three buffers that
 * was used last; so three rounds make the loop. Loads of A, and the additions to pointers, stand
 * together at the start of a round: to llvm-mca's model of the Cortex-A53, which writes results in
 * the order of the program, every change from multiplications to something short is a wait.
 * `tools/neon-report` says what that comes to on seven cores.
 */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

/* ISO C promises string literals of 4,095 characters; assembly may be longer in gcc and clang. */
#pragma GCC diagnostic ignored "-Woverlength-strings"

/* Buffers of B. */
#define V0 0, 1, 2, 3
#define V4 4, 5, 6, 7
#define V8 8, 9, 10, 11

#define LOAD_(b0, b1, b2, b3, from) \
    "ld1 {v" #b0 ".4s, v" #b1 ".4s, v" #b2 ".4s, v" #b3 ".4s}, [%[" #from "]]\n"
#define LOAD(...) LOAD_(__VA_ARGS__)
/* A row from `at`, or to it, and on to the next row. */
#define ROW(name, r0, r1, r2, r3, at) \
#name " {v" #r0 ".4s, v" #r1 ".4s, v" #r2 ".4s, v" #r3 ".4s}, [%[" #at "]], %[ld_" #at "]\n"

/* A row of sums += the row of C * its factor. */
#define ADD_ROW(c0, c1, c2, c3, e)             \
    ROW(ld1, 0, 1, 2, 3, c)                    \
    "fmla v" #c0 ".4s, v0.4s, v12.s[" #e "]\n" \
    "fmla v" #c1 ".4s, v1.4s, v12.s[" #e "]\n" \
    "fmla v" #c2 ".4s, v2.4s, v12.s[" #e "]\n" \
    "fmla v" #c3 ".4s, v3.4s, v12.s[" #e "]\n"

/* A row of sums times its scale, + 0, to out. */
#define SCALED_ROW(c0, c1, c2, c3, e)                                     \
    "movi v0.4s, #0\n movi v1.4s, #0\n movi v2.4s, #0\n movi v3.4s, #0\n" \
    "fmla v0.4s, v" #c0 ".4s, v12.s[" #e "]\n"                            \
    "fmla v1.4s, v" #c1 ".4s, v12.s[" #e "]\n"                            \
    "fmla v2.4s, v" #c2 ".4s, v12.s[" #e "]\n"                            \
    "fmla v3.4s, v" #c3 ".4s, v12.s[" #e "]\n" ROW(st1, 0, 1, 2, 3, out)

/* Four columns of the four rows: a column of vectors += B's vector * element e of A's vectors. */
#define COLUMN(c0, c1, c2, c3, b, e)                \
    "fmla v" #c0 ".4s, v" #b ".4s, v12.s[" #e "]\n" \
    "fmla v" #c1 ".4s, v" #b ".4s, v13.s[" #e "]\n" \
    "fmla v" #c2 ".4s, v" #b ".4s, v14.s[" #e "]\n" \
    "fmla v" #c3 ".4s, v" #b ".4s, v15.s[" #e "]\n"
#define STEP_(b0, b1, b2, b3, e)  \
    COLUMN(16, 20, 24, 28, b0, e) \
    COLUMN(17, 21, 25, 29, b1, e) COLUMN(18, 22, 26, 30, b2, e) COLUMN(19, 23, 27, 31, b3, e)
#define STEP(...) STEP_(__VA_ARGS__)

/* The start of a round: its part of A, all pointers a round further. x is the round's first row of
 * B, which is there already, as y, the second. b2 is needed first, at once. */
#define ROUND_START(ahead)         \
    "ldr q12, [%[a0], %[at]]\n"    \
    "add %[b2], %[b2], %[round]\n" \
    "ldr q13, [%[a1], %[at]]\n"    \
    "add %[b3], %[b3], %[round]\n" \
    "ldr q14, [%[a2], %[at]]\n"    \
    "add %[b0], %[b0], %[round]\n" \
    "ldr q15, [%[a3], %[at]]\n"    \
    "add %[b1], %[b1], %[round]\n" ahead

/* One round; behind it the next one's first two rows of B are in y and z. */
#define ROUND(x, y, z, advance)                 \
    ROUND_START(advance " %[at], %[at], #16\n") \
    LOAD(z, b2) STEP(x, 0) LOAD(x, b3) STEP(y, 1) LOAD(y, b0) STEP(z, 2) LOAD(z, b1) STEP(x, 3)

/* The last round, which looks no further than its own rows. */
#define LAST_ROUND(x, y, z) \
    ROUND_START("") LOAD(z, b2) STEP(x, 0) LOAD(x, b3) STEP(y, 1) STEP(z, 2) STEP(x, 3)

/* rounds >= 1 of them, then `rest` single steps. */
static void whole_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) {
    const ptrdiff_t rounds = g->k / 4, lda = g->lda, size = sizeof(float), row = g->b_k * size;
    const float *a0 = g->a + i * lda + (rounds - 1) * 4, *a1 = a0 + lda;
    const float *a2 = a1 + lda, *a3 = a2 + lda;
    const float *c = g->c + i * g->ldc + j;
    const float *const ends[] = {g->factor ? g->factor + i : NULL, g->scale ? g->scale + i : NULL};
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    /* Addresses: b2 and b3 begin a round early, which may be before the matrix. */
    uintptr_t b0 = (uintptr_t)(g->b + j / QKV_PANEL * g->b_g), b1 = b0 + (uintptr_t)row;
    uintptr_t b2 = b0 - 2 * (uintptr_t)row, b3 = b0 - (uintptr_t)row;
    ptrdiff_t at = -16 * (rounds - 1); /* counts up to 0, where a0 to a3 point */
    ptrdiff_t rest = g->k % 4;
    __asm__ volatile(/* clang-format off */
        "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n movi v19.4s, #0\n"
        "movi v20.4s, #0\n movi v21.4s, #0\n movi v22.4s, #0\n movi v23.4s, #0\n"
        "movi v24.4s, #0\n movi v25.4s, #0\n movi v26.4s, #0\n movi v27.4s, #0\n"
        "movi v28.4s, #0\n movi v29.4s, #0\n movi v30.4s, #0\n movi v31.4s, #0\n"
        /* The loop ends behind its third round: enter it so that the rounds come out even. */
        "cbz %[enter], 3f\n"
        "cmp %[enter], #2\n"
        "b.eq 4f\n"
        LOAD(V8, b0) LOAD(V0, b1) "b 7f\n"
        "4:\n" LOAD(V4, b0) LOAD(V8, b1) "b 6f\n"
        "3:\n" LOAD(V0, b0) LOAD(V4, b1) "cbz %[at], 8f\n"
        ".p2align 4\n"
        "5:\n" ROUND(V0, V4, V8, "add")
        "6:\n" ROUND(V4, V8, V0, "add")
        "7:\n" ROUND(V8, V0, V4, "adds")
        "b.ne 5b\n"
        "8:\n" LAST_ROUND(V0, V4, V8)
        "cbz %[rest], 10f\n"
        "add %[a0], %[a0], #16\n add %[a1], %[a1], #16\n"
        "add %[a2], %[a2], #16\n add %[a3], %[a3], #16\n"
        "9:\n" LOAD(V0, b0)
        "ldr s12, [%[a0]], #4\n ldr s13, [%[a1]], #4\n"
        "ldr s14, [%[a2]], #4\n ldr s15, [%[a3]], #4\n"
        "add %[b0], %[b0], %[row]\n"
        STEP(V0, 0)
        "sub %[rest], %[rest], #1\n"
        "cbnz %[rest], 9b\n"
        "10:\n"
        "ldp %[b0], %[b1], [%[ends]]\n"
        "cbz %[b0], 11f\n"
        "ld1 {v12.4s}, [%[b0]]\n"
        ADD_ROW(16, 17, 18, 19, 0) ADD_ROW(20, 21, 22, 23, 1)
        ADD_ROW(24, 25, 26, 27, 2) ADD_ROW(28, 29, 30, 31, 3)
        "11:\n"
        "cbnz %[b1], 12f\n"
        ROW(st1, 16, 17, 18, 19, out) ROW(st1, 20, 21, 22, 23, out)
        ROW(st1, 24, 25, 26, 27, out) ROW(st1, 28, 29, 30, 31, out)
        "b 13f\n"
        "12:\n"
        "ld1 {v12.4s}, [%[b1]]\n"
        SCALED_ROW(16, 17, 18, 19, 0) SCALED_ROW(20, 21, 22, 23, 1)
        SCALED_ROW(24, 25, 26, 27, 2) SCALED_ROW(28, 29, 30, 31, 3)
        "13:\n" /* clang-format on */
                     : [a0] "+r"(a0), [a1] "+r"(a1), [a2] "+r"(a2), [a3] "+r"(a3), [b0] "+r"(b0),
                       [b1] "+r"(b1), [b2] "+r"(b2), [b3] "+r"(b3), [at] "+r"(at),
                       [rest] "+r"(rest), [c] "+r"(c), [out] "+r"(out)
                     : [row] "r"(row), [round] "r"(4 * row), [enter] "r"((rounds - 1) % 3),
                       [ld_c] "r"(g->ldc * size), [ld_out] "r"(ld_out * size), [ends] "r"(ends)
                     : "memory", "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9",
                       "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20",
                       "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}

/* A tile's sums to where they belong. */
static inline __attribute__((always_inline)) void
end_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, float32x4_t acc[MR][4], const int M) {
    const float *c = g->c + i * g->ldc + j;
    ptrdiff_t ld_out;
    float *out = qkv_gemm_results(g, i, j, &ld_out);
    QKV_UNROLL(4)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < 4; v++) {
            float32x4_t x = acc[r][v];
            if (g->factor)
                x = vfmaq_n_f32(x, vld1q_f32(c + r * g->ldc + v * 4), g->factor[i + r]);
            if (g->scale)
                x = vfmaq_n_f32(vdupq_n_f32(0.0f), x, g->scale[i + r]);
            vst1q_f32(out + r * ld_out + v * 4, x);
        }
    }
}

/* Fewer rows or steps. M is a constant where this is inlined, so that the accumulators live in
 * registers. */
static inline __attribute__((always_inline)) void part(const struct qkv_gemm *g, ptrdiff_t i,
                                                       ptrdiff_t j, const int M) {
    const float *a = g->a + i * g->lda;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    const ptrdiff_t lda = g->lda, a_k = g->a_k, b_k = g->b_k;
    float32x4_t acc[MR][4];

    QKV_UNROLL(4)
    for (int r = 0; r < M; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < 4; v++)
            acc[r][v] = vdupq_n_f32(0.0f);
    }

    for (ptrdiff_t p = g->k; p > 0; p--, a += a_k, b += b_k) {
        const float32x4_t b0 = vld1q_f32(b), b1 = vld1q_f32(b + 4);
        const float32x4_t b2 = vld1q_f32(b + 8), b3 = vld1q_f32(b + 12);
        QKV_UNROLL(4)
        for (int r = 0; r < M; r++) {
            const float x = a[r * lda];
            acc[r][0] = vfmaq_n_f32(acc[r][0], b0, x);
            acc[r][1] = vfmaq_n_f32(acc[r][1], b1, x);
            acc[r][2] = vfmaq_n_f32(acc[r][2], b2, x);
            acc[r][3] = vfmaq_n_f32(acc[r][3], b3, x);
        }
    }

    end_tile(g, i, j, acc, M);
}

#define PART(rows)                                                                \
    static void part_##rows(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) { \
        part(g, i, j, rows);                                                      \
    }
PART(1)
PART(2)
PART(3)
PART(4)

/* A whole tile of an A that stands by columns: four rows are one vector. */
static void columns_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j) {
    const float *a = g->a + i;
    const float *b = g->b + j / QKV_PANEL * g->b_g;
    const ptrdiff_t a_k = g->a_k, b_k = g->b_k;
    float32x4_t acc[MR][4];

    QKV_UNROLL(4)
    for (int r = 0; r < MR; r++) {
        QKV_UNROLL(4)
        for (int v = 0; v < 4; v++)
            acc[r][v] = vdupq_n_f32(0.0f);
    }

    for (ptrdiff_t p = g->k; p > 0; p--, a += a_k, b += b_k) {
        const float32x4_t x = vld1q_f32(a);
        QKV_UNROLL(4)
        for (int v = 0; v < 4; v++) {
            const float32x4_t y = vld1q_f32(b + 4 * v);
            acc[0][v] = vfmaq_laneq_f32(acc[0][v], y, x, 0);
            acc[1][v] = vfmaq_laneq_f32(acc[1][v], y, x, 1);
            acc[2][v] = vfmaq_laneq_f32(acc[2][v], y, x, 2);
            acc[3][v] = vfmaq_laneq_f32(acc[3][v], y, x, 3);
        }
    }

    end_tile(g, i, j, acc, MR);
}

typedef void tile_fn(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j);

static tile_fn *const parts[MR] = {part_1, part_2, part_3, part_4};

static inline ptrdiff_t gemm_rows(const struct qkv_gemm *g, ptrdiff_t left, int cols) {
    (void)g;
    (void)cols;
    return left < MR ? left : MR;
}

static inline void gemm_tile(const struct qkv_gemm *g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows,
                             int cols) {
    (void)cols; /* a tile is one panel wide */
    if (rows == MR && g->lda == 1)
        columns_tile(g, i, j);
    else if (rows == MR && g->k >= 4)
        whole_tile(g, i, j);
    else
        parts[rows - 1](g, i, j);
}

enum { ASKS = 0 };
#include "tmpl/gemm.h"
