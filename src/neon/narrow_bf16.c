/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with bf16. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_neon_bf16 = {.variant = "bf16"};
