/* SPDX-License-Identifier: Apache-2.0 */
/* Narrow products with dotprod. */
#include "kernels.h"

const struct qkv_narrow_kernels qkv_neon_dotprod = {.variant = "dotprod"};
