/* SPDX-License-Identifier: Apache-2.0 */
/* The fused stage in AVX2: the products are gemm.c's, the row steps tmpl/attention.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/attention.h"

const struct qkv_attention_kernels qkv_avx2_attention = {
    .variant = ROOM_NAME,
    .gemm = ROOM(gemm),
    .pack = {ROOM(pack_panel), ROOM(pack_rows), ROOM(finite)},
    .sees = ROOM(sees),
    .weigh = WEIGH_TIERS,
    .marked = ROOM(mix_marked),
    .merge = merge,
    .seal = seal,
    .store = store_scaled,
    .mr = MR,
    .nr = NR,
};
