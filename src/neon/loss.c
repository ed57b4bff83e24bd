/* SPDX-License-Identifier: Apache-2.0 */
/* The losses and their gradients in NEON: the rows of tmpl/loss.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/loss.h"

const struct qkv_loss_kernels qkv_neon_loss = {
    .variant = ROOM_NAME,
    .square = square,
    .cross_entropy = cross_entropy,
};
