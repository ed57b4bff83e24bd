/* SPDX-License-Identifier: Apache-2.0 */
/* The joining of partial results in AVX2: tmpl/merge.h over this room's vec.h. */
#include "kernels.h"
#include "vec.h"

#include "tmpl/merge.h"

const struct qkv_merge_kernels qkv_avx2_merge = {
    .variant = ROOM_NAME,
    .join = join_row,
};
