/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with avxvnni. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_avx2_vnni = {.variant = "avxvnni"};
