/* SPDX-License-Identifier: Apache-2.0 */
/* The fused stage's gradients in plain C. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_attention_backward_kernels qkv_scalar_attention_backward = {
    .variant = ROOM_NAME,
};
