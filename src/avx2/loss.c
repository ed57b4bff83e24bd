/* SPDX-License-Identifier: Apache-2.0 */
/* The losses and their gradients in AVX2: the rows of tmpl/loss.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/loss.h"

const struct qkv_loss_kernels qkv_avx2_loss = {
    .variant = ROOM_NAME,
    .square = square,
    .cross_entropy = cross_entropy,
};
