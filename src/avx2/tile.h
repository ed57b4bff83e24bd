/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile: 6 rows by 16 columns = 12 accumulators, + 2 of B, + 1 of A: 15 of 16 YMM.
 * 12 chains cover two FMA ports of latency 4 or 5. */
#ifndef QKV_AVX2_TILE_H
#define QKV_AVX2_TILE_H

enum { MR = 6, NR = 16 };

#endif
