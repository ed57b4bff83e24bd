/* SPDX-License-Identifier: Apache-2.0 */
/* The mix in NEON: the product is gemm.c's, the marking of keys that do not count
 * tmpl/mix.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/mix.h"

const struct qkv_mix_kernels qkv_neon_mix = {
    .variant = ROOM_NAME,
    .gemm = ROOM(gemm),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .sees = ROOM(sees),
    .load = ROOM(mix_load),
    .marked = ROOM(mix_marked),
    .store = ROOM(store),
    .mr = MR,
    .nr = NR,
};
