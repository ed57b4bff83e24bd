/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of scores in AVX-512. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_scores_backward_kernels qkv_avx512_scores_backward = {
    .variant = ROOM_NAME,
};
