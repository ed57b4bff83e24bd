/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with avx512vnni. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_avx512_vnni = {.variant = "avx512vnni"};
