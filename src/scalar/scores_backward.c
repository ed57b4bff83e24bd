/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of scores in plain C. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_scores_backward_kernels qkv_scalar_scores_backward = {
    .variant = ROOM_NAME,
};
