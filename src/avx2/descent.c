/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent in AVX2. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_descent_kernels qkv_avx2_descent = {
    .variant = ROOM_NAME,
};
