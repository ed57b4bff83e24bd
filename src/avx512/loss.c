/* SPDX-License-Identifier: Apache-2.0 */
/* The losses and their gradients in AVX-512. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_loss_kernels qkv_avx512_loss = {
    .variant = ROOM_NAME,
};
