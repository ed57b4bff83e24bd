/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile: 6 rows by 64 columns = 24 accumulators, + 4 of B, + 1 of A: 29 of 32 ZMM.
 * 24 chains cover two FMA ports of latency 4 three times over, and a step's 10 loads stay under
 * its 12 cycles of FMAs. */
#ifndef QKV_AVX512_TILE_H
#define QKV_AVX512_TILE_H

enum { MR = 6, NR = 64 };

/* Keeps what is computed from a number or pointer behind this place, and as it is written:
 * compilers would work addresses out before a loop, or all of a tile's at once, and then have no
 * registers for them but the vectors', which moves through the multiplications' ports reach. */
#define HOLD(number) __asm__ volatile("" : "+r"(number))

#endif
