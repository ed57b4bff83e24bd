/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile: 6 rows by 16 columns = 24 accumulators, + 4 of B, + one row's scalar: 29 of
 * 32 Q registers. */
#ifndef QKV_NEON_TILE_H
#define QKV_NEON_TILE_H

enum { MR = 6, NR = 16 };

#endif
