/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent in NEON. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_descent_kernels qkv_neon_descent = {
    .variant = ROOM_NAME,
};
