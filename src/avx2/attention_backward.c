/* SPDX-License-Identifier: Apache-2.0 */
/* The fused stage's gradients in AVX2. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_attention_backward_kernels qkv_avx2_attention_backward = {
    .variant = ROOM_NAME,
};
