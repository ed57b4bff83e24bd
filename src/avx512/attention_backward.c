/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the fused stage in AVX-512: the products are gemm.c's, the row steps
 * tmpl/attention_backward.h's. */
#include "kernels.h"
#include "tile.h"
#include "vec.h"

#include "tmpl/attention_backward.h"

const struct qkv_attention_backward_kernels qkv_avx512_attention_backward = ATTENTION_BACKWARD;
