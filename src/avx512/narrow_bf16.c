/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with avx512bf16. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_avx512_bf16 = {.variant = "avx512bf16"};
