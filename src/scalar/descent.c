/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent in plain C: the loops of tmpl/descent.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/descent.h"

const struct qkv_descent_kernels qkv_scalar_descent = {
    .variant = ROOM_NAME,
    .plain = descend_plain,
    .momentum = descend_momentum,
    .adamw = descend_adamw,
    .sum_squares = sum_squares,
};
