/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with i8mm. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_neon_i8mm = {.variant = "i8mm"};
