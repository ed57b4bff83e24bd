/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of mix in AVX2: the products are gemm.c's, the masks tmpl/chain.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/chain.h"

const struct qkv_mix_backward_kernels qkv_avx2_mix_backward = {
    .variant = ROOM_NAME,
    .chain = CHAIN_KERNELS,
};
