/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of scores in NEON: the products are gemm.c's, the masks tmpl/chain.h's, the
 * soft-cap tmpl/uncap.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/chain.h"
#include "tmpl/uncap.h"

const struct qkv_scores_backward_kernels qkv_neon_scores_backward = {
    .variant = ROOM_NAME,
    .chain = CHAIN_KERNELS,
    .uncap = uncap,
};
