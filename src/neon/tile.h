/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile: 4 rows by 16 columns = 16 accumulators, + three rows of B in turn = 12, + four
 * steps of A for each row = 4: all 32 Q registers. */
#ifndef QKV_NEON_TILE_H
#define QKV_NEON_TILE_H

enum { MR = 4, NR = 16 };

#endif
