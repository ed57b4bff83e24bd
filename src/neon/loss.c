/* SPDX-License-Identifier: Apache-2.0 */
/* The losses and their gradients in NEON. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_loss_kernels qkv_neon_loss = {
    .variant = ROOM_NAME,
};
