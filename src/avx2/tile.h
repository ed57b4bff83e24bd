/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register tile: 6 rows by 16 columns = 12 accumulators, + 2 of B, + 2 of A: all 16 YMM.
 * 12 chains cover two FMA ports of latency 4 or 5.
 *
 * The inner loop of a whole tile is assembly: compilers turn four steps a round into thirty
 * addresses that they keep in memory. Here are none but those that an instruction can form: 21
 * instructions a step for 12 FMAs. Whoever uses it says what the sums are called, TILE_SUM(n) for
 * sum 0 to 11, row after row, and hands over
 *
 *   a, low        rows 0 and 3 of A, whose elements stand one behind the other; changed
 *   b             row 0 of B, of which a step takes 16 numbers; changed
 *   rounds, rest  steps / 4 and steps % 4; changed
 *   lda           bytes from a row of A to the next one
 *   row, row3     bytes from a row of B to the next one, and three times as many
 *
 * and ymm12 to ymm15.
 */
#ifndef QKV_AVX2_TILE_H
#define QKV_AVX2_TILE_H

enum { MR = 6, NR = 16 };

/* clang-format off */
#define TILE_LOAD(from) "vmovups " from ",%%ymm12\nvmovups 32+" from ",%%ymm13\n"

/* Two rows of sums += an element each of A times the row of B. */
#define TILE_TWO_ROWS(a0, a1, s0, s1, s2, s3)        \
    "vbroadcastss " a0 ",%%ymm14\n"                  \
    "vbroadcastss " a1 ",%%ymm15\n"                  \
    "vfmadd231ps %%ymm14,%%ymm12," TILE_SUM(s0) "\n" \
    "vfmadd231ps %%ymm15,%%ymm12," TILE_SUM(s2) "\n" \
    "vfmadd231ps %%ymm14,%%ymm13," TILE_SUM(s1) "\n" \
    "vfmadd231ps %%ymm15,%%ymm13," TILE_SUM(s3) "\n"

/* A step: a row of B, at an address that begins with a number, and the column of A that stands `at`
 * bytes on; or five of its six rows. */
#define TILE_FOUR_ROWS(at)                                     \
    TILE_TWO_ROWS(at "(%[a])", at "(%[a],%[lda])", 0, 1, 2, 3) \
    TILE_TWO_ROWS(at "(%[a],%[lda],2)", at "(%[low])", 4, 5, 6, 7)
#define TILE_STEP(from, at)            \
    TILE_LOAD(from) TILE_FOUR_ROWS(at) \
    TILE_TWO_ROWS(at "(%[low],%[lda])", at "(%[low],%[lda],2)", 8, 9, 10, 11)
#define TILE_LOW_STEP(from, at)                         \
    TILE_LOAD(from) TILE_FOUR_ROWS(at)                  \
    "vbroadcastss " at "(%[low],%[lda]),%%ymm14\n"      \
    "vfmadd231ps %%ymm14,%%ymm12," TILE_SUM(8) "\n"     \
    "vfmadd231ps %%ymm14,%%ymm13," TILE_SUM(9) "\n"

#define TILE_ZERO(n) "vxorps " TILE_SUM(n) "," TILE_SUM(n) "," TILE_SUM(n) "\n"

#define TILE_ZEROS                                                                \
    TILE_ZERO(0) TILE_ZERO(1) TILE_ZERO(2) TILE_ZERO(3) TILE_ZERO(4) TILE_ZERO(5) \
    TILE_ZERO(6) TILE_ZERO(7) TILE_ZERO(8) TILE_ZERO(9) TILE_ZERO(10) TILE_ZERO(11)

/* The sums from zero, and what else is done in a round of four steps. Uses the labels 1 to 4. */
#define TILE_PRODUCT(also)                                                          \
    TILE_ZEROS                                                                      \
    "test %[rounds],%[rounds]\n"                                                    \
    "jz 2f\n"                                                                       \
    ".p2align 5\n"                                                                  \
    "1:\n"                                                                          \
    TILE_STEP("0(%[b])", "0")                                                        \
    also                                                                            \
    TILE_STEP("0(%[b],%[row])", "4")                                                 \
    TILE_STEP("0(%[b],%[row],2)", "8")                                               \
    TILE_STEP("0(%[b],%[row3])", "12")                                               \
    "add $16,%[a]\n"                                                                \
    "add $16,%[low]\n"                                                              \
    "lea (%[b],%[row],4),%[b]\n"                                                    \
    "sub $1,%[rounds]\n"                                                            \
    "jnz 1b\n"                                                                      \
    "2:\n"                                                                          \
    "test %[rest],%[rest]\n"                                                        \
    "jz 4f\n"                                                                       \
    "3:\n"                                                                          \
    TILE_STEP("0(%[b])", "0")                                                        \
    "add $4,%[a]\n"                                                                 \
    "add $4,%[low]\n"                                                               \
    "add %[row],%[b]\n"                                                             \
    "sub $1,%[rest]\n"                                                              \
    "jnz 3b\n"                                                                      \
    "4:\n"
/* clang-format on */

/* ISO C promises string literals of 4,095 characters; assembly may be longer in gcc and clang. */
#pragma GCC diagnostic ignored "-Woverlength-strings"

#endif
