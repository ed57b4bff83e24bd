/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of mix in plain C. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_mix_backward_kernels qkv_scalar_mix_backward = {
    .variant = ROOM_NAME,
};
