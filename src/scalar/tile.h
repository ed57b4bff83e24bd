/* SPDX-License-Identifier: Apache-2.0 */
/* The register tile: 3 rows by 4 columns = 12 accumulators, + 1 of B, + 1 of A and the product:
 * 15 of the 16 registers of x86-64. A tile call covers a whole panel, four columns at a time. */
#ifndef QKV_SCALAR_TILE_H
#define QKV_SCALAR_TILE_H

enum { MR = 3, NR = 16 };

#endif
