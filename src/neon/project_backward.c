/* SPDX-License-Identifier: Apache-2.0 */
/* The projection's gradients in NEON. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

const struct qkv_project_backward_kernels qkv_neon_project_backward = {
    .variant = ROOM_NAME,
};
