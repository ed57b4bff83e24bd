/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of softmax in AVX2. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_softmax_backward_kernels qkv_avx2_softmax_backward = {
    .variant = ROOM_NAME,
};
