/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The register tile: 6 rows by 64 columns = 24 accumulators, + 4 of B, + 4 of A: all 32 ZMM. 24
 * chains cover two FMA ports of latency 4 three times over, and a step's 10 loads stay under its 12
 * cycles of FMAs.
 *
 * The inner loop of a whole tile is assembly: compilers move two dozen sums from register to
 * register in four steps of it, or count each step, and while another thread shares the core an
 * instruction more is time. Sum n, row after row, is TILE_SUM(n). Whoever uses it hands over
 *
 *   lda       bytes from a row of A, whose elements stand one behind the other, to the next one
 *   panel     bytes from a panel of B to the next one
 *
 * and points rax and rdx to rows 0 and 3 of A and rcx to a row of panel 0 of B; r8 is three panels,
 * r10 counts, and r9 is the user's.
 */
#ifndef QKV_AVX512_TILE_H
#define QKV_AVX512_TILE_H

enum { MR = 6, NR = 64 };

/* Keeps what is computed from a number or pointer behind this place, and as it is written:
 * compilers would work addresses out before a loop, or all of a tile's at once, and then have no
 * registers for them but the vectors', which moves through the multiplications' ports reach. */
#define HOLD(number) __asm__ volatile("" : "+r"(number))

/* clang-format off */
#define TILE_USES                                                                          \
    "memory", "cc", "rax", "rcx", "rdx", "r8", "r9", "r10", "xmm24", "xmm25", "xmm26",     \
    "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

#define TILE_SUMS                                                                            \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
    "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19",         \
    "xmm20", "xmm21", "xmm22", "xmm23"

#define TILE_SUM(n) "%%zmm" #n
#define TILE_ZERO(n) "vpxord " TILE_SUM(n) "," TILE_SUM(n) "," TILE_SUM(n) "\n"
#define TILE_ZERO_ROW(a, b, c, d) TILE_ZERO(a) TILE_ZERO(b) TILE_ZERO(c) TILE_ZERO(d)

/* A vector of B times an element each of two rows. */
#define TILE_MULTIPLY(b, a0, a1, s0, s1)          \
    "vfmadd231ps " a0 "," b "," TILE_SUM(s0) "\n" \
    "vfmadd231ps " a1 "," b "," TILE_SUM(s1) "\n"

/* Two rows of four sums += an element each of A times the row of B. */
#define TILE_TWO_ROWS(at0, at1, a0, a1, s0, s1, s2, s3, t0, t1, t2, t3) \
    "vbroadcastss " at0 "," a0 "\nvbroadcastss " at1 "," a1 "\n"        \
    TILE_MULTIPLY("%%zmm24", a0, a1, s0, t0)                            \
    TILE_MULTIPLY("%%zmm25", a0, a1, s1, t1)                            \
    TILE_MULTIPLY("%%zmm26", a0, a1, s2, t2)                            \
    TILE_MULTIPLY("%%zmm27", a0, a1, s3, t3)

#define TILE_ROW(at, a, s0, s1, s2, s3)                                                         \
    "vbroadcastss " at "," a "\n"                                                               \
    "vfmadd231ps " a ",%%zmm24," TILE_SUM(s0) "\nvfmadd231ps " a ",%%zmm25," TILE_SUM(s1) "\n" \
    "vfmadd231ps " a ",%%zmm26," TILE_SUM(s2) "\nvfmadd231ps " a ",%%zmm27," TILE_SUM(s3) "\n"

/* The row of B that stands `at` bytes on. */
#define TILE_LOAD(at)                            \
    "vmovups " at "(%%rcx),%%zmm24\n"            \
    "vmovups " at "(%%rcx,%[panel]),%%zmm25\n"   \
    "vmovups " at "(%%rcx,%[panel],2),%%zmm26\n" \
    "vmovups " at "(%%rcx,%%r8),%%zmm27\n"

/* A row of B, loaded, times the column of A that stands `at` bytes on: its first four rows; all
 * six; or five. */
#define TILE_FOUR_ROWS(at)                                                          \
    TILE_TWO_ROWS(at "(%%rax)", at "(%%rax,%[lda])", "%%zmm28", "%%zmm29",          \
                  0, 1, 2, 3, 4, 5, 6, 7)                                           \
    TILE_TWO_ROWS(at "(%%rax,%[lda],2)", at "(%%rdx)", "%%zmm30", "%%zmm31",        \
                  8, 9, 10, 11, 12, 13, 14, 15)
#define TILE_STEP(at)                                                               \
    TILE_FOUR_ROWS(at)                                                              \
    TILE_TWO_ROWS(at "(%%rdx,%[lda])", at "(%%rdx,%[lda],2)", "%%zmm28", "%%zmm29", \
                  16, 17, 18, 19, 20, 21, 22, 23)
#define TILE_LOW_STEP(at)                                                           \
    TILE_FOUR_ROWS(at) TILE_ROW(at "(%%rdx,%[lda])", "%%zmm28", 16, 17, 18, 19)

#define TILE_ZEROS                \
    TILE_ZERO_ROW(0, 1, 2, 3)     \
    TILE_ZERO_ROW(4, 5, 6, 7)     \
    TILE_ZERO_ROW(8, 9, 10, 11)   \
    TILE_ZERO_ROW(12, 13, 14, 15) \
    TILE_ZERO_ROW(16, 17, 18, 19) \
    TILE_ZERO_ROW(20, 21, 22, 23)

/* r10 times body, which is so many steps and moves rcx on. */
#define TILE_LOOP(label, body, bytes) \
    ".p2align 5\n"                    \
    #label ":\n"                      \
    body                              \
    "add $" bytes ",%%rax\n"          \
    "add $" bytes ",%%rdx\n"          \
    "sub $1,%%r10\n"                  \
    "jnz " #label "b\n"
/* clang-format on */

/* ISO C promises string literals of 4,095 characters; assembly may be longer in gcc and clang. */
#pragma GCC diagnostic ignored "-Woverlength-strings"

#endif
