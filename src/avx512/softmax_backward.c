/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of softmax in AVX-512: the passes of tmpl/softmax_backward.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/softmax_backward.h"

const struct qkv_softmax_backward_kernels qkv_avx512_softmax_backward = {
    .variant = ROOM_NAME,
    .sum = weighted_sum,
    .gradient = softmax_gradient,
    .sink_share = sink_share,
};
