/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of mix in AVX-512: the products are gemm.c's, the masks tmpl/chain.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/chain.h"

const struct qkv_mix_backward_kernels qkv_avx512_mix_backward = {
    .variant = ROOM_NAME,
    .chain = CHAIN_KERNELS,
};
