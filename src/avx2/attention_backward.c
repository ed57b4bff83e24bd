/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the fused stage in AVX2: the products are gemm.c's, the row steps
 * tmpl/attention_backward.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/attention_backward.h"

const struct qkv_attention_backward_kernels qkv_avx2_attention_backward = ATTENTION_BACKWARD;
