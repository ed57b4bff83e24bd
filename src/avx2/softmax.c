/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax in AVX2: the passes of tmpl/softmax.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/softmax.h"

const struct qkv_softmax_kernels qkv_avx2_softmax = {
    .variant = ROOM_NAME,
    .mask = softmax_mask,
    .row = softmax_row,
};
