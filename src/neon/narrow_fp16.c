/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with fp16. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_neon_fp16 = {.variant = "fp16"};
